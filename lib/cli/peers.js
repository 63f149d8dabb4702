// Other peers by URL: how they are dialed and listened to.

import { lookup } from 'node:dns/promises'
import { readFileSync } from 'node:fs'
import { createServer as createHttp, get as getHttp } from 'node:http'
import { createServer as createHttps, get as getHttps } from 'node:https'
import { createRequire } from 'node:module'
import { explained as explainedError, ReplicError } from '../base/errors.js'
import { isName, isOrigin } from '../transport/browsers.js'
import { Mistake } from './command.js'

/** Options of every command that links. */
export const LINK_OPTIONS = {
  'secret-env': { type: 'string' },
  'secret-file': { type: 'string' },
  ca: { type: 'string' },
  cert: { type: 'string' },
  key: { type: 'string' },
}

export const LINK_HELP = `  --secret-env NAME    the environment variable that holds the secret of all links
  --secret-file FILE   the file that holds it (a last newline is not a part of it)
  --ca FILE            tls, wss: trust what this has signed (PEM)
  --cert FILE --key FILE
                       tls, wss: the own certificate (PEM); needed to listen
`

/** The secret, or undefined. Throws a Mistake where it is named and not there. */
export function secretOf(name, values) {
  const { 'secret-env': variable, 'secret-file': file } = values
  if (variable && file) throw new Mistake(`${name}: give --secret-env or --secret-file, not both`)
  if (file)
    return readOption(name, 'secret-file', file)
      .toString()
      .replace(/\r?\n$/, '')
  if (!variable) return undefined
  const secret = process.env[variable]
  if (!secret) throw new Mistake(`${name}: --secret-env: the variable ${variable} is not set`)
  return secret
}

function readOption(name, option, file) {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new Mistake(`${name}: --${option}: ${file} cannot be read (${error.code})`)
  }
}

/** Options of node:tls from --ca, --cert and --key. */
export function tlsOf(name, values) {
  const given = ['ca', 'cert', 'key'].filter((option) => values[option] !== undefined)
  return Object.fromEntries(
    given.map((option) => [option, readOption(name, option, values[option])]),
  )
}

/** A URL of one of the schemes. Throws a Mistake. */
export function parseUrl(name, option, text, schemes) {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const scheme = url?.protocol.slice(0, -1)
  if (!schemes.includes(scheme) || !url.hostname) {
    const wanted = schemes.map((each) => `${each}://`).join(', ')
    throw new Mistake(`${name}: ${option} must be a URL that begins with ${wanted}, not '${text}'`)
  }
  if (/^(tcp|tls|udp)$/.test(scheme) && url.port === '') {
    throw new Mistake(`${name}: ${option}: a port is missing in ${text}`)
  }
  return url
}

const host = (url) => url.hostname.replace(/^\[|\]$/g, '') // of an IPv6 address

export const DIALED = ['tcp', 'tls', 'ws', 'wss', 'http', 'https', 'udp']
export const LISTENED = ['tcp', 'tls', 'ws', 'wss', 'udp']

/** Dials a peer for as long as the replica is open. */
export async function dial(db, url, tls, options) {
  const scheme = url.protocol.slice(0, -1)
  if (scheme === 'tcp' || scheme === 'tls') {
    const { connect } = await import('../transport/tcp.js')
    const where = { host: host(url), port: Number(url.port), ...options }
    return connect(db, scheme === 'tls' ? { ...where, tls } : where)
  }
  if (scheme === 'udp') {
    const { peer } = await import('../transport/udp.js')
    return peer(db, { address: host(url), port: Number(url.port), ...options })
  }
  const given = Object.keys(tls).length > 0 ? { ...options, tls } : options
  if (scheme.startsWith('ws')) {
    const { connect } = await import('../transport/websocket.js')
    return connect(db, url.href, given)
  }
  const { connect } = await import('../transport/http.js')
  return connect(db, { url: url.href, ...given })
}

/** Which pages may come, from --host and --origin, as options of websocket.js. */
export function browsersOf(name, { host: hosts = [], origin: origins = [] }) {
  const wrong = origins.find((origin) => !isOrigin(origin))
  if (wrong !== undefined) {
    throw new Mistake(
      `${name}: --origin is a scheme, a host and a port, as https://app.example.com, not '${wrong}'`,
    )
  }
  const odd = hosts.find((each) => !isName(each))
  if (odd === undefined) return { hosts, origins }
  throw new Mistake(`${name}: --host is a name without a port, as replic.example.com, not '${odd}'`)
}

/**
 * Listens, with the options `tls` of node:tls and `browsers`; resolves with { url, close() }. Rejects with an error that names
 * what is wrong.
 */
export async function listenAt(name, db, url, options) {
  try {
    return await LISTEN[url.protocol](name, db, url, options)
  } catch (error) {
    throw explained(name, url, error)
  }
}

const MEANINGS = {
  EADDRINUSE: 'is in use by another program: stop that, or choose another port',
  EADDRNOTAVAIL: 'is no address of this machine: choose one, or 0.0.0.0 for all',
  EACCES: 'may not be listened to: ports below 1024 need rights',
  ENOTFOUND: 'is no address that can be found',
}

export function explained(name, url, error) {
  if (!MEANINGS[error.code]) return error
  const message = `${name}: ${url.protocol}//${url.host} ${MEANINGS[error.code]}`
  return new ReplicError(error.code, message, { cause: error })
}

const LISTEN = {
  'tcp:': listenTcp,
  'tls:': listenTcp,
  'ws:': listenWebSocket,
  'wss:': listenWebSocket,
  'udp:': listenUdp,
}

async function listenUdp(_, db, url) {
  const { bind } = await import('../transport/udp.js')
  const { address } = await lookup(host(url))
  const bound = await bind(db, { address, port: Number(url.port) })
  const { port } = bound.address()
  return { url: `udp://${bracketed(address)}:${port}`, close: () => bound.close() }
}

function needCertificate(name, url, tls) {
  if (tls.cert && tls.key) return
  throw new Mistake(`${name}: --listen ${url.href} needs --cert and --key`)
}

async function listenTcp(name, db, url, { tls }) {
  const { listen } = await import('../transport/tcp.js')
  const isTls = url.protocol === 'tls:'
  if (isTls) needCertificate(name, url, tls)
  const listener = await listen(db, {
    host: host(url),
    port: Number(url.port),
    ...(isTls && { tls: { ...tls, ...(tls.ca && { requestCert: true }) } }),
  })
  const { address, port } = listener.address()
  return { url: `${url.protocol}//${bracketed(address)}:${port}`, close: () => listener.close() }
}

async function listenWebSocket(name, db, url, { tls, browsers }) {
  const { attach } = await import('../transport/websocket.js')
  const secure = url.protocol === 'wss:'
  if (secure) needCertificate(name, url, tls)
  const server = secure ? createHttps(tls) : createHttp()
  server.on('request', (_, response) => response.writeHead(404).end())
  const sockets = new (webSocketServer(name, url))({ noServer: true, perMessageDeflate: false })
  const links = attach(db, sockets, browsers)
  server.on('upgrade', (request, socket, head) => {
    if (isAt(url.pathname, request)) sockets.handleUpgrade(request, socket, head, connected)
    else socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
  })
  const connected = (socket, request) => sockets.emit('connection', socket, request)
  await listening(server, url)
  const { address, port } = server.address()
  return {
    url: `${url.protocol}//${bracketed(address)}:${port}${url.pathname}`,
    close: async () => {
      await links.close()
      sockets.close()
      server.close()
    },
  }
}

// Without a path: any.
const isAt = (pathname, request) => pathname === '/' || request.url.split('?')[0] === pathname

function webSocketServer(name, url) {
  try {
    return createRequire(import.meta.url)('ws').WebSocketServer
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error
    throw new Mistake(`${name}: --listen ${url.href} needs the npm package ws: npm install ws`)
  }
}

/** Resolves when the server listens. */
export function listening(server, url) {
  const port =
    url.port === '' ? ({ 'https:': 443, 'wss:': 443 }[url.protocol] ?? 80) : Number(url.port)
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host(url), resolve)
  })
}

export const bracketed = (address) => (address.includes(':') ? `[${address}]` : address)

/** What an http:// or https:// URL answers: { status, type, body }. Rejects with what is in the way. */
export async function page(name, url, tls, timeoutMs) {
  const get = url.protocol === 'https:' ? getHttps : getHttp
  try {
    const response = await new Promise((resolve, reject) => {
      get(url, { ...tls, agent: false, signal: AbortSignal.timeout(timeoutMs) }, resolve).on(
        'error',
        reject,
      )
    })
    let body = ''
    for await (const text of response.setEncoding('utf8')) body += text
    return { status: response.statusCode, type: response.headers['content-type'] ?? '', body }
  } catch (error) {
    const isLate = error.name === 'AbortError'
    const hint =
      error.code === 'EPROTO' ? 'no TLS there: is it http://?' : explainedError(error).message
    const why = isLate ? `not within ${timeoutMs} ms` : hint
    const code = isLate ? 'REPLIC_TIMEOUT' : (error.code ?? 'REPLIC_PROTOCOL')
    throw new ReplicError(code, `${name}: ${url.href} does not answer: ${why}`, { cause: error })
  }
}

/** Is this address reachable from this machine only? */
export const isLoopback = (url) => /^(localhost|127\.|\[::1\])/.test(url.hostname)

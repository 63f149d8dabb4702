// WebSocket: a connection of its own, or sockets that an application's server has accepted. One message
// is one frame; see websocket-frames.js. Links have heartbeats, so pings are not needed.

import { createRequire } from 'node:module'
import { usage } from '../base/errors.js'
import {
  boolean,
  callback,
  kindOf,
  milliseconds,
  peerId,
  readOptions,
  show,
  text,
} from '../base/options.js'
import { linksOf } from '../links/registry.js'
import { BROWSERS_CHECKS, BROWSERS_DEFAULTS, Browsers } from './browsers.js'
import { refused } from './http-client.js'
import { FrameSocket, LEAST_PAYLOAD, maxFrame } from './websocket-frames.js'
import { kindOfSocket } from './websocket-kinds.js'
import { addressOf, handlersForBun, Server, upgradeBun } from './websocket-server.js'

const [UNAUTHORIZED, FORBIDDEN] = [401, 403]
const isObject = (value) => typeof value === 'object' && value !== null
const HANDLER_DEFAULTS = Object.freeze({
  ...BROWSERS_DEFAULTS, // which pages may come; none
  onUnknownMessage: undefined, // (message, socket): what is not ours; undefined: it ends the link
})
const HANDLER_CHECKS = { ...BROWSERS_CHECKS, onUnknownMessage: callback }
const ATTACH_DEFAULTS = Object.freeze({ ...HANDLER_DEFAULTS, path: undefined }) // undefined: any
const ATTACH_CHECKS = { ...HANDLER_CHECKS, path: text }
const BUN_DEFAULTS = Object.freeze({
  ...HANDLER_DEFAULTS,
  others: undefined, // handlers and limits of the application's own sockets
})
const BUN_CHECKS = {
  ...HANDLER_CHECKS,
  others: { accepts: isObject, wants: 'an object of handlers, as Bun.serve takes for websocket' },
}

const CONNECT_DEFAULTS = Object.freeze({
  peerId: undefined, // who must answer; undefined: whoever does
  headers: undefined, // of the request that opens it
  tls: undefined, // options of node:tls's connect(), for wss
  WebSocket: undefined, // the class; undefined: see connect()
  onUnknownMessage: undefined,
  retryMinMs: 100,
  retryMaxMs: 10_000,
  unref: false, // true: waiting to dial again does not keep the process alive
})
const CONNECT_CHECKS = {
  peerId,
  headers: {
    accepts: (value) => typeof value === 'function' || isObject(value),
    wants: 'an object of headers, or a function that returns one',
    isHidden: true,
  },
  tls: { accepts: isObject, wants: 'an object of options of node:tls', isHidden: true },
  WebSocket: { accepts: callback.accepts, wants: 'a class' },
  onUnknownMessage: callback,
  retryMinMs: milliseconds(1),
  retryMaxMs: milliseconds(1),
  unref: boolean,
}

/**
 * What links sockets that a server of ws's, or Fastify with @fastify/websocket, has accepted:
 * (socket, request) => void, with close(), which ends its links. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function handler(db, options) {
  const links = linksOf(db)
  const given = readOptions('handler', options, HANDLER_DEFAULTS, HANDLER_CHECKS)
  const server = serverOf(links, given)
  const handle = (socket, request) => {
    const kind = kindOfSocket(socket)
    if (kind !== 'ws') throw usage(`handler: a WebSocket of ws is needed, not ${kindOf(socket)}`)
    if (!isObject(request?.headers)) {
      throw usage(`handler: the request of the WebSocket is needed too, not ${kindOf(request)}`)
    }
    server.accept(socket, request, addressOf(request))
  }
  return Object.assign(handle, {
    refuses: (request) => server.refuses(request),
    close: () => server.close(),
  })
}

const serverOf = (links, given) =>
  new Server(links, given.onUnknownMessage, new Browsers(given, () => links.keys.length > 0))

/**
 * Links the sockets of a WebSocketServer of ws's whose request is for `path`. Returns { close() }, which
 * ends those links and leaves the server as it was. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function attach(db, server, options) {
  const { path, ...given } = readOptions('attach', options, ATTACH_DEFAULTS, ATTACH_CHECKS)
  if (typeof server?.handleUpgrade !== 'function' || typeof server.on !== 'function') {
    throw usage(`attach: a WebSocketServer of ws is needed, not ${kindOf(server)}`)
  }
  const { perMessageDeflate, maxPayload } = server.options ?? {}
  if (perMessageDeflate) {
    throw usage('attach: frames are not worth compressing: set perMessageDeflate: false')
  }
  if (maxPayload > 0 && maxPayload < LEAST_PAYLOAD) {
    throw usage(`attach: maxPayload must be at least ${LEAST_PAYLOAD}, not ${maxPayload}`)
  }
  const handle = handler(db, given)
  const isOurs = (request) => path === undefined || pathOf(request) === path
  const listener = (socket, request) => {
    if (isOurs(request)) handle(socket, request)
  }
  server.on('connection', listener)
  const letGo = verifyFirst(server, (request) => (isOurs(request) ? handle.refuses(request) : null))
  const close = () => {
    server.off('connection', listener)
    letGo()
    return handle.close()
  }
  return { close }
}

// Answers 403 where `refuses(request)` says why, before ws upgrades anything, and before the application's own
// verifyClient is asked. Returns how to do so no more.
function verifyFirst({ options = {} }, refuses) {
  const { verifyClient } = options
  let isOn = true
  options.verifyClient = (info, done) => {
    const why = isOn ? refuses(info.req) : null
    if (why) return done(false, FORBIDDEN, why)
    if (!verifyClient) return done(true)
    if (verifyClient.length === 2) return verifyClient(info, done)
    done(Boolean(verifyClient(info)), UNAUTHORIZED)
  }
  return () => {
    isOn = false
  }
}

const pathOf = ({ url }) => url.split('?')[0]

/**
 * The same for Bun.serve: { websocket, upgrade(request, server), close() }. `websocket` is what Bun.serve
 * takes under that name. upgrade() returns whether it has taken the request; then nothing is answered.
 * Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function bunHandlers(db, options) {
  const links = linksOf(db)
  const given = readOptions('bunHandlers', options, BUN_DEFAULTS, BUN_CHECKS)
  const server = serverOf(links, given)
  return {
    websocket: handlersForBun(server, given.others),
    upgrade: (request, bun) => upgradeBun(server, request, bun),
    refuses: (request) => server.refuses(request),
    close: () => server.close(),
  }
}

/**
 * Keeps a connection to a serving peer: dials now, and again whenever it ends, until close() or
 * db.closeRemotePeer(). Returns { socket, close() } at once; db.on('link') tells how it goes. It dials
 * with the global WebSocket; with ws where there is none, or where headers or TLS options are given and
 * it does not take them (it does on Bun). Throws REPLIC_USAGE, which names the package where that is
 * missing, or REPLIC_CLOSED.
 */
export function connect(db, url, options) {
  const links = linksOf(db)
  const given = readOptions('connect', options, CONNECT_DEFAULTS, CONNECT_CHECKS)
  const target = parseUrl(url)
  const Socket = given.WebSocket ?? chooseClass(given)
  const { retryMinMs, retryMaxMs, unref } = given
  let frames
  const dial = () => {
    frames = new FrameSocket(links.options, given.onUnknownMessage)
    open(frames, Socket, target, given, links.options).catch((error) => frames.failed(error))
    return frames
  }
  const dialer = links.dial(
    dial,
    { peerId: given.peerId, transport: 'websocket', address: `${target.origin}${target.pathname}` },
    { retryMinMs, retryMaxMs, unref },
  )
  return {
    get socket() {
      return frames?.raw ?? null
    },
    close: () => dialer.close(),
  }
}

// What a class does not know of these options it does not look at.
async function open(frames, Socket, url, { headers, tls }, limits) {
  const given = typeof headers === 'function' ? await headers() : headers
  if (frames.isEnding) return
  const raw = new Socket(url.href, {
    ...tls,
    ...(tls && { tls }),
    ...(given && { headers: given }),
    perMessageDeflate: false,
    maxPayload: maxFrame(limits),
  })
  frames.use(raw)
  if (kindOfSocket(raw) !== 'ws') return
  raw.on('unexpected-response', (request, response) => {
    frames.failed(refused(url, response.statusCode, response.headers, ''))
    request.destroy()
    raw.terminate()
  })
}

function chooseClass({ headers, tls }) {
  const isBun = process.versions.bun !== undefined
  if (globalThis.WebSocket && (isBun || !(headers || tls))) return globalThis.WebSocket
  try {
    return createRequire(import.meta.url)('ws').WebSocket
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error
    const why = globalThis.WebSocket
      ? 'headers and TLS options need'
      : 'there is no global WebSocket here, so this needs'
    throw usage(`connect: ${why} the npm package ws: npm install ws`)
  }
}

function parseUrl(value) {
  let url
  try {
    url = new URL(value)
  } catch {
    throw usage(
      `connect: a ws: or wss: URL is needed, as 'ws://host:8080/path', not ${show(value)}`,
    )
  }
  if (!['ws:', 'wss:'].includes(url.protocol)) {
    throw usage(`connect: a ws: or wss: URL is needed, not ${url.protocol}`)
  }
  if (url.username || url.password) {
    throw usage(
      'connect: credentials do not belong into the URL: give `headers: { authorization }`',
    )
  }
  url.hash = '' // which a WebSocket may not have
  return url
}

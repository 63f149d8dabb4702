// HTTP. Frames go in the body of a POST, those from the other side come with the responses, the most
// of them by long poll: a request that is answered when there is something to answer with. The core
// repairs lost, repeated and reordered frames, so a request that fails costs time only. How it looks
// on the wire is in docs/protocol.md.

import { ReplicError } from '../base/errors.js'
import {
  boolean,
  bytes,
  integer,
  kindOf,
  milliseconds,
  peerId,
  readOptions,
} from '../base/options.js'
import { linksOf } from '../links/registry.js'
import { BROWSERS_CHECKS, BROWSERS_DEFAULTS, Browsers } from './browsers.js'
import { ClientSession } from './http-client.js'
import { answerFetch, answerNode, Server } from './http-server.js'

const MAX_POLL_MS = 240_000
const pollMs = integer(1, MAX_POLL_MS)

const HANDLER_DEFAULTS = Object.freeze({
  ...BROWSERS_DEFAULTS, // which pages may come; none
  pollMs: 20_000, // the longest that a request waits for frames; proxies give up after 30 to 60 s
})
const HANDLER_CHECKS = { ...BROWSERS_CHECKS, pollMs }

const CONNECT_DEFAULTS = Object.freeze({
  url: undefined, // required
  peerId: undefined, // who must answer; undefined: whoever does
  headers: undefined, // of each request
  tls: undefined, // options of node:tls's connect(), for https
  agent: undefined, // of node:http's or node:https's kind; undefined: one that keeps connections alive
  pollMs: 20_000,
  maxBodyBytes: 1_000_000, // of a request; nginx permits 1 MiB
  retryMinMs: 100,
  retryMaxMs: 10_000,
  unref: false, // true: waiting to dial again does not keep the process alive
})
const CONNECT_CHECKS = {
  url: { accepts: (value) => parseUrl(value) !== undefined, wants: 'an http: or https: URL' },
  peerId,
  headers: {
    accepts: (value) => typeof value === 'function' || areHeaders(value),
    wants: 'an object of headers, or a function that returns one',
    isHidden: true,
  },
  tls: { accepts: isObject, wants: 'an object of options of node:tls', isHidden: true },
  agent: { accepts: isObject, wants: 'an http.Agent or https.Agent' },
  pollMs,
  maxBodyBytes: bytes(1024),
  retryMinMs: milliseconds(1),
  retryMaxMs: milliseconds(1),
  unref: boolean,
}

/**
 * What serves peers over node:http, Express or Fastify: (req, res) => void, with close(), which ends
 * its sessions. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function handler(db, options) {
  return serving('handler', db, options, answerNode)
}

/**
 * The same for fetch-style servers (Bun.serve, Hono, Deno): async (request) => Response, with close().
 */
export function fetchHandler(db, options) {
  return serving('fetchHandler', db, options, answerFetch)
}

function serving(name, db, options, answer) {
  const links = linksOf(db)
  const given = readOptions(name, options, HANDLER_DEFAULTS, HANDLER_CHECKS)
  const browsers = new Browsers(given, () => links.keys.length > 0)
  const server = new Server(links, given.pollMs, browsers)
  const handle = (first, second) => answer(server, first, second)
  return Object.assign(handle, { close: () => server.close() })
}

/**
 * Keeps a session with a serving peer: begins it now, and a new one whenever it ends, until close() or
 * db.closeRemotePeer(). Returns { close() } at once; db.on('link') tells how it goes.
 * Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function connect(db, options) {
  const links = linksOf(db)
  const given = readOptions('connect', options, CONNECT_DEFAULTS, CONNECT_CHECKS)
  if (given.url === undefined) throw new ReplicError('REPLIC_USAGE', 'connect: url is missing')
  const url = parseUrl(given.url)
  if (url.username || url.password) {
    const message = 'connect: credentials do not belong into url: give `headers: { authorization }`'
    throw new ReplicError('REPLIC_USAGE', message)
  }
  const { retryMinMs, retryMaxMs, unref } = given
  const dialer = links.dial(
    () => new ClientSession({ ...given, url }, links.options),
    { peerId: given.peerId, transport: 'http', address: `${url.origin}${url.pathname}` },
    { retryMinMs, retryMaxMs, unref },
  )
  return { close: () => dialer.close() }
}

function parseUrl(value) {
  try {
    const url = new URL(value)
    return ['http:', 'https:'].includes(url.protocol) ? url : undefined
  } catch {
    return undefined
  }
}

function areHeaders(value) {
  try {
    return isObject(value) && Boolean(new Headers(value))
  } catch {
    return false
  }
}

function isObject(value) {
  return kindOf(value) !== 'null' && typeof value === 'object'
}

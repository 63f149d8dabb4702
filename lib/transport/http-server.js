// The serving side of HTTP. What a request is answered does not depend on who serves it; below that
// are the adapters for node:http's (req, res) and for fetch's Request and Response.

import { randomBytes } from 'node:crypto'
import { headersOf } from './browsers.js'
import { CONTENT_TYPE, maxBody, Session } from './http-frames.js'

const ID_BYTES = 24 // of a session: nobody guesses it
const RETRY_AFTER_S = 1
const STATUS = { REPLIC_TOO_LARGE: 413, REPLIC_BUSY: 503 } // of what is wrong with a body
const POLL_MS = /^[0-9]{1,9}$/
const MAX_IDLE_S = 255 // the most that Bun.serve takes

/** What is answered instead of frames. */
class Refusal extends Error {
  constructor(status, message, headers = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

const isGone = () => new Refusal(499, 'the client is gone')
const isReplaced = () => new Refusal(409, 'a newer request of the session took its place')

/** All sessions of one handler. */
export class Server {
  #links
  #sessions = new Map() // id -> ServerSession
  #isClosed = false
  #browsers
  pollMs

  /** `browsers`: see browsers.js. */
  constructor(links, pollMs, browsers) {
    this.#links = links
    this.pollMs = pollMs
    this.#browsers = browsers
  }

  /**
   * Never rejects. `request`: { method, header(name), isTls, read(take, signal), onGone(listener), address,
   * details }. Gives { status, headers, body, sent }: sent(), where there is one, is called when the
   * response is gone.
   */
  async answer(request) {
    try {
      return await this.#answer(request)
    } catch (error) {
      const { status = 500, headers = {}, message } = error
      const plain = { 'content-type': 'text/plain; charset=utf-8', ...headers }
      return response(status, plain, Buffer.from(`replic-sqlite: ${message}\n`))
    }
  }

  async #answer(request) {
    const refusal = this.#browsers.refusal(request)
    if (refusal) {
      this.#links.turnedAway({ transport: 'http', address: request.address }, refusal)
      throw new Refusal(403, refusal.message)
    }
    const session = this.#sessions.get(request.header('replic-session'))
    if (!session) this.#checkOpen()
    if (request.method !== 'POST') {
      throw new Refusal(405, 'frames come by POST', { allow: 'POST' })
    }
    if (mediaType(request) !== CONTENT_TYPE || isEncoded(request)) {
      throw new Refusal(415, `the content type must be ${CONTENT_TYPE}, without a content encoding`)
    }
    if (session) return this.#serve(session, request)
    if (request.header('replic-session') === undefined) return this.#open(request)
    throw new Refusal(410, 'the session has ended, or was never here: begin a new one')
  }

  #checkOpen() {
    if (this.#isClosed || this.#links.stopped) throw unavailable('the replica is closed')
  }

  #open({ address, details, header }) {
    if (hasBody(header)) throw new Refusal(400, 'the request that begins a session has no body')
    const session = new ServerSession(this.#links.options)
    try {
      session.link = this.#links.add(session, {
        transport: 'http',
        address,
        isAccepted: true,
        details,
      })
    } catch (error) {
      throw unavailable(error.message)
    }
    this.#sessions.set(session.id, session)
    session.on('close', () => this.#sessions.delete(session.id))
    return frames(session, { 'replic-session': session.id })
  }

  async #serve(session, request) {
    const asked = request.header('replic-poll')
    if (asked !== undefined && !POLL_MS.test(asked)) {
      throw new Refusal(400, 'Replic-Poll is a number of milliseconds')
    }
    const kind = asked === undefined ? 'send' : 'poll'
    const { signal, done } = session.begin(kind, request)
    try {
      await this.#read(session, request, signal)
      if (request.header('replic-end') !== undefined) session.ended()
      else await session.resumed() // the client sends no more until this is answered
      if (kind === 'poll') await session.fetch(Math.min(Number(asked), this.pollMs), signal)
      if (session.readyState === 3) return frames(session)
      signal.throwIfAborted()
      return kind === 'poll' ? frames(session) : response(200, { 'content-type': CONTENT_TYPE })
    } finally {
      done()
    }
  }

  async #read(session, { header, read }, signal) {
    const maxBytes = maxBody(this.#links.options)
    const tooLarge = new Refusal(413, `a request has at most ${maxBytes} bytes`)
    if (Number(header('content-length')) > maxBytes) throw tooLarge
    const reader = session.reader()
    let bytes = 0
    const take = (chunk) => {
      bytes += chunk.length
      if (bytes > maxBytes) throw tooLarge
      reader.take(chunk)
    }
    try {
      await read(take, signal)
      reader.end()
    } catch (error) {
      if (!error.code?.startsWith('REPLIC_')) throw error
      session.fail(error)
      throw new Refusal(STATUS[error.code] ?? 400, error.message)
    }
  }

  /** Opens no more sessions and ends those that there are; resolves when they are gone. */
  async close() {
    this.#isClosed = true
    await Promise.all([...this.#sessions.values()].map(({ link }) => link.end()))
  }
}

class ServerSession extends Session {
  id = randomBytes(ID_BYTES).toString('base64url')
  link
  isEnding = false
  #outstanding = new Map() // 'poll' or 'send' -> AbortController
  #wake

  /** A request of that kind: the one before it, should it still be there, gives way. */
  begin(kind, { onGone }) {
    this.#outstanding.get(kind)?.abort(isReplaced())
    const controller = new AbortController()
    this.#outstanding.set(kind, controller)
    onGone(() => controller.abort(isGone()))
    const done = () => {
      if (this.#outstanding.get(kind) === controller) this.#outstanding.delete(kind)
    }
    return { signal: controller.signal, done }
  }

  /** Resolves when there are frames, or the end, to answer with; after `ms`; or when that is over. */
  async fetch(ms, signal) {
    if (this.#hasNews || signal.aborted) return
    let timer
    const woken = new Promise((resolve) => {
      timer = setTimeout(resolve, ms)
      signal.addEventListener('abort', resolve)
      this.#wake = resolve
    })
    await woken
    clearTimeout(timer)
  }

  get #hasNews() {
    return this.hasFrames || this.isEnding
  }

  ready() {
    if (this.#hasNews) this.#wake?.()
  }

  /** What is waiting goes with the next response, and that is the last one. */
  close() {
    this.isEnding = true
    this.ready()
  }

  terminate() {
    this.ended()
  }

  ended() {
    super.ended()
    const late = new Refusal(408, 'the session has ended before the request was there')
    const gone = new Refusal(410, 'the session has ended')
    for (const [kind, controller] of this.#outstanding) {
      controller.abort(kind === 'poll' ? gone : late)
    }
  }
}

// Frames go with one response after the other, never with two at once: so they stay in order.
function frames(session, headers = {}) {
  const isLast = session.isEnding || session.readyState === 3
  const end = isLast ? { 'replic-end': '1' } : {}
  const body = session.takeBody()
  const sent = isLast ? () => session.ended() : undefined
  return response(200, { 'content-type': CONTENT_TYPE, ...headers, ...end }, body, sent)
}

function response(status, headers, body = Buffer.alloc(0), sent = undefined) {
  const common = { 'cache-control': 'no-store, no-transform', 'content-length': `${body.length}` }
  return { status, headers: { ...common, ...headers }, body, sent }
}

const unavailable = (message) => new Refusal(503, message, { 'retry-after': `${RETRY_AFTER_S}` })
const mediaType = ({ header }) => header('content-type')?.split(';')[0].trim().toLowerCase()
const isEncoded = ({ header }) => (header('content-encoding') ?? 'identity') !== 'identity'
const hasBody = (header) =>
  header('transfer-encoding') !== undefined || Number(header('content-length') ?? 0) > 0

// ---- node:http ----

/** Answers a request of node:http's, or of what is built on it. */
export async function answerNode(server, req, res) {
  const header = (name) => req.headers[name]
  const { status, headers, body, sent } = await server.answer({
    method: req.method,
    header,
    isTls: req.socket.encrypted === true,
    read: (take, signal) => readStream(req, take, signal),
    onGone: (gone) => res.on('close', gone),
    address: req.socket.remoteAddress ?? null,
    details: { request: req },
  })
  // What was not read to its end is not read at all.
  const isUnread = hasBody(header) && !req.readableEnded
  const ending = isUnread && req.httpVersionMajor === 1 ? { connection: 'close' } : {}
  if (sent) res.on('finish', sent).on('close', sent)
  res.writeHead(status, { ...headers, ...ending })
  res.end(body)
}

function readStream(req, take, signal) {
  if (req.readableEnded) return readAlready(req, take)
  return new Promise((resolve, reject) => {
    const data = (chunk) => {
      try {
        take(chunk)
      } catch (error) {
        failed(error)
      }
    }
    const failed = (error) => {
      req.off('data', data)
      reject(error)
    }
    req.on('data', data).on('end', resolve)
    req.on('error', () => failed(isGone())).on('close', () => failed(isGone()))
    signal.addEventListener('abort', () => failed(signal.reason))
  })
}

// A body parser of the application's came first.
function readAlready(req, take) {
  if (req.body instanceof Uint8Array) return take(req.body)
  if (!hasBody((name) => req.headers[name])) return undefined
  throw new Refusal(500, 'the body has been read already: mount the handler before body parsers')
}

// ---- fetch ----

/** Answers a Request with a Response. `bun`: the server that Bun.serve passes on. */
export async function answerFetch(server, request, bun) {
  bun?.timeout?.(request, Math.min(Math.ceil(server.pollMs / 1000) + 10, MAX_IDLE_S))
  const { status, headers, body, sent } = await server.answer({
    method: request.method,
    header: headersOf(request),
    isTls: request.url.startsWith('https:'),
    read: (take, signal) => readWeb(request.body, take, signal),
    onGone: (gone) => request.signal?.addEventListener('abort', gone),
    address: bun?.requestIP?.(request)?.address ?? null,
    details: { request },
  })
  if (sent) setImmediate(sent)
  return new Response(body, { status, headers })
}

async function readWeb(body, take, signal) {
  if (!body) return
  const reader = body.getReader()
  const stop = () => reader.cancel().catch(() => {})
  signal.addEventListener('abort', stop)
  try {
    for (;;) {
      const { done, value } = await reader.read()
      signal.throwIfAborted()
      if (done) return
      take(value)
    }
  } catch (error) {
    stop()
    throw signal.aborted ? signal.reason : error
  }
}

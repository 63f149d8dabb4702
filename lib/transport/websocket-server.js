// The serving side of WebSocket: sockets that somebody has accepted become links.

import { headersOf } from './browsers.js'
import { FrameSocket, framesOf, LEAST_PAYLOAD, maxBuffered } from './websocket-frames.js'

const GOING_AWAY = 1001
const NOT_PERMITTED = 1008
const TRY_AGAIN_LATER = 1013
const BUN_IDLE_S = 120 // as Bun has it by default; it pings before
const BUN_PAYLOAD = 16 * 1024 * 1024 // the same, for the application's own sockets

/** All links of one handler. */
export class Server {
  #links
  #onUnknownMessage
  #browsers
  #accepted = new Set()
  #isClosed = false

  /** `browsers`: see browsers.js. */
  constructor(links, onUnknownMessage, browsers) {
    this.#links = links
    this.#onUnknownMessage = onUnknownMessage
    this.#browsers = browsers
  }

  get options() {
    return this.#links.options
  }

  get isOpen() {
    return !this.#isClosed && !this.#links.stopped
  }

  /** Why a request is not for us, as it may come from a page, which an event tells too; null: it is. */
  refuses(request, address = addressOf(request)) {
    const isTls = request.socket?.encrypted ?? request.url.startsWith('https:')
    const error = this.#browsers.refusal({ header: headersOf(request), isTls })
    if (!error) return null
    this.#links.turnedAway({ transport: 'websocket', address }, error)
    return error.message
  }

  /** Links a WebSocket that is open. `request`: with `headers` and `url`, for authorize(). `mayCome`: it was looked at. */
  accept(raw, request, address, mayCome = false) {
    const needsProof = this.#links.keys.length > 0
    const frames = new FrameSocket(this.options, this.#onUnknownMessage, needsProof).use(raw)
    if (!this.isOpen) return frames.dismiss(GOING_AWAY)
    if (!mayCome && this.refuses(request, address)) return frames.dismiss(NOT_PERMITTED)
    try {
      const link = this.#links.add(frames, {
        transport: 'websocket',
        address,
        isAccepted: true,
        details: { request },
        onDown: () => this.#accepted.delete(link),
      })
      this.#accepted.add(link)
    } catch {
      frames.dismiss(TRY_AGAIN_LATER) // no room, which status() counts
    }
  }

  /** Accepts no more and ends what it accepted; resolves when all of it is gone. */
  async close() {
    this.#isClosed = true
    await Promise.all([...this.#accepted].map((link) => link.end()))
  }
}

/** Where a request of node:http's or Fastify's comes from, as far as it is known. */
export const addressOf = (request) => request.ip ?? request.socket?.remoteAddress ?? null

/** What Bun keeps with a socket that upgrade() has made. */
class Upgraded {
  constructor(request) {
    this.request = { url: request.url, headers: new Headers(request.headers) }
  }
}

/** Returns whether it could upgrade the request; then nothing is to be answered. */
export function upgradeBun(server, request, bun) {
  if (!server.isOpen || server.refuses(request, bun.requestIP?.(request)?.address)) return false
  return bun.upgrade(request, { data: new Upgraded(request) })
}

/** Handlers for Bun.serve, before `others`, which has those of the application's own sockets. */
export function handlersForBun(server, others) {
  const { maxPayloadLength = others ? BUN_PAYLOAD : LEAST_PAYLOAD, backpressureLimit = 0 } =
    others ?? {}
  return {
    idleTimeout: BUN_IDLE_S,
    perMessageDeflate: false,
    ...others,
    maxPayloadLength: Math.max(LEAST_PAYLOAD, maxPayloadLength),
    backpressureLimit: Math.max(maxBuffered(server.options), backpressureLimit),
    open(raw) {
      if (raw.data instanceof Upgraded)
        server.accept(raw, raw.data.request, raw.remoteAddress, true)
      else return others?.open?.(raw)
    },
    message(raw, data) {
      const frames = framesOf(raw)
      return frames ? frames.received(data) : others?.message?.(raw, data)
    },
    close(raw, code, reason) {
      const frames = framesOf(raw)
      return frames ? frames.closed(code, reason) : others?.close?.(raw, code, reason)
    },
  }
}

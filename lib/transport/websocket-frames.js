// A WebSocket as a socket of frames: that of the npm package ws, a browser's kind (undici's, Node's
// and Bun's global), and what Bun.serve gives its handlers. One message is one frame; a frame that is
// larger than PART_BYTES goes in parts, so that the other side sees over a slow line too that it comes
// in, and no server's limit for messages stands in its way:
//
//   PART 34        version 1, type, bytes of a frame; another part follows
//   LAST_PART 35   version 1, type, the last bytes of it
//
// A message that begins with version 1 and a type of ours is ours; every other one is the application's.

import { EventEmitter } from 'node:events'
import { ReplicError, usage } from '../base/errors.js'
import { asError, guarded } from '../base/guard.js'
import { kindOf } from '../base/options.js'
import { GUEST_BYTES } from '../links/guests.js'
import { asBytes, listen } from '../links/socket.js'
import { Pieces } from './pieces.js'
import {
  CLOSED,
  closeCode,
  closeError,
  KINDS,
  kindOfSocket,
  LOST,
  told,
} from './websocket-kinds.js'

const VERSION = 1
const LAST_TYPE_OF_CORE = 11
const FIRST_TYPE_OF_LIB = 32 // the handshake's two, the two here, and what is sealed
const LAST_TYPE_OF_LIB = 37
const PART = 34
const LAST_PART = 35
const PART_HEADER = [PART, LAST_PART].map((type) => Buffer.from([VERSION, type]))
const PART_BYTES = 64 * 1024
const SLACK_BYTES = 2 * 1024 * 1024 // what a frame may be larger than maxFrameBytes, as in the core
const GUEST_FRAGMENTS = 16 // of a message, and chunks that it comes in, from who is not known yet
const GUEST_CHUNKS = 256
const END_MS = 2_000 // how long a socket that is no link's any more may take to close
const CONNECTING = 0

/** The least that a server must permit a message to have. */
export const LEAST_PAYLOAD = PART_HEADER[0].length + PART_BYTES

/** The most bytes in a frame, of a replica with these options. */
export const maxFrame = ({ maxFrameBytes }) => maxFrameBytes + SLACK_BYTES

/** The most bytes that wait in one direction. What an honest other side has there is less. */
export const maxBuffered = (options) => options.windowBytes + maxFrame(options)

// Bun calls handlers of the server for all its sockets: what is linked is looked up here.
const framesOfBun = new WeakMap()

/** The FrameSocket of a socket of Bun.serve's, if it has one. */
export const framesOf = (raw) => framesOfBun.get(raw)

/** See the head of this file. Closes, errors and what is not ours come as events or calls back. */
export class FrameSocket extends EventEmitter {
  #raw
  #kind
  #maxFrame
  #maxBuffered
  #onUnknownMessage
  #parts = new Pieces() // of a frame that is not whole yet
  #held = null // frames that came while it was paused, of a kind of socket that cannot be
  #heldBytes = 0
  #guestPayload // the most bytes of a message from who is not known yet
  #checkKept = null
  #given // limits of the socket's own
  #isEnding = false // by this side
  #hasFailed = false
  #isOver = false // no more is expected of the WebSocket
  #isClosed = false // and the link has been told

  /**
   * `options` of Replica.open(); `onUnknownMessage(message, socket)`, if there is one; `needsProof`: the other side has to
   * show that it knows a secret before more is taken of it than that takes.
   */
  constructor(options, onUnknownMessage, needsProof = false) {
    super()
    this.#maxFrame = maxFrame(options)
    this.#maxBuffered = maxBuffered(options)
    this.#guestPayload = needsProof ? PART_HEADER[0].length + GUEST_BYTES : LEAST_PAYLOAD
    this.#onUnknownMessage = onUnknownMessage
  }

  /** (bytes): throws where so many must not be kept of a frame that is not whole; null once the other side is known. */
  get checkKept() {
    return this.#checkKept
  }

  set checkKept(check) {
    this.#checkKept = check
    this.#limit()
  }

  // What a socket of ws keeps of a message that is not whole is up to its server, which may permit 100 MiB. Its limits
  // have no public names; where they are called otherwise, those of the server hold.
  #limit() {
    const receiver = this.#raw?._receiver
    if (!receiver || this.#onUnknownMessage) return
    const { _maxPayload, _maxFragments, _maxBufferedChunks } = receiver
    this.#given ??= { _maxPayload, _maxFragments, _maxBufferedChunks }
    const most = this.#checkKept
      ? [this.#guestPayload, GUEST_FRAGMENTS, GUEST_CHUNKS]
      : [LEAST_PAYLOAD, Infinity, Infinity]
    for (const [i, [name, own]] of Object.entries(this.#given).entries()) {
      if (typeof own === 'number') receiver[name] = Math.min(own || Infinity, most[i]) | 0
    }
  }

  /** The WebSocket; undefined while it is being made. */
  get raw() {
    return this.#raw
  }

  get readyState() {
    if (this.#isClosed) return CLOSED
    return this.#raw?.readyState ?? CONNECTING
  }

  get isEnding() {
    return this.#isEnding
  }

  /** Takes over a WebSocket, at once after it was made. Throws REPLIC_USAGE. */
  use(raw) {
    const name = kindOfSocket(raw)
    if (!name) throw usage(`a WebSocket is needed, not ${kindOf(raw)}`)
    this.#raw = raw
    this.#kind = KINDS[name]
    guarded(() => this.#hear(raw, name), this.#brokeSoon)
    return this
  }

  #hear(raw, name) {
    raw.binaryType = this.#kind.binaryType
    this.#limit()
    if (raw.readyState === CLOSED) queueMicrotask(() => this.closed(LOST, ''))
    if (name === 'bun') return framesOfBun.set(raw, this)
    const safely =
      (call) =>
      (...args) =>
        guarded(() => void call(...args), this.#broke)
    listen(raw, 'open', () => this.emit('open'), this.#broke)
    if (name === 'ws') {
      const message = (data, isBinary) => this.received(isBinary ? data : `${asBytes(data)}`)
      raw.on('message', safely(message))
      raw.on(
        'close',
        safely((code, reason) => this.closed(code, `${reason}`)),
      )
    } else {
      raw.addEventListener(
        'message',
        safely(({ data }) => this.received(data)),
      )
      raw.addEventListener(
        'close',
        safely(({ code, reason }) => this.closed(code, reason)),
      )
    }
    const fail = (event) => {
      const error = told(event)
      if (error) this.failed(error)
    }
    listen(raw, 'error', fail, this.#broke)
  }

  // It does not do what it was made for; nothing more is expected of it.
  #broke = (error) => {
    if (this.#isOver) return
    this.failed(asError(error, 'the connection failed'))
    this.#isEnding = true
    guarded(
      () => this.#raw?.terminate?.(),
      () => {},
    )
    this.closed(LOST, '')
  }

  #brokeSoon = (error) => queueMicrotask(() => this.#broke(error)) // once the link listens

  /** A message has come in: a string, or bytes in any of their forms. */
  received(data) {
    if (this.#isEnding || this.#isClosed) return
    const bytes = typeof data === 'string' ? null : asBytes(data)
    if (this.#onUnknownMessage && !isOurs(bytes)) {
      // What it throws is the application's affair, as of its listeners, and not that of whoever emits.
      guarded(() => void this.#onUnknownMessage(bytes ?? data, this.#raw), throwLater)
    } else if (bytes?.length + this.#parts.length > this.#maxFrame + PART_HEADER[0].length) {
      this.#end(new ReplicError('REPLIC_TOO_LARGE', `a frame has at most ${this.#maxFrame} bytes`))
    } else if (isOurs(bytes) && (bytes[1] === PART || bytes[1] === LAST_PART)) {
      this.#part(bytes)
    } else {
      this.#frame(bytes ?? data)
    }
  }

  // What is more than an honest other side sends without an acknowledgement is lost, and repaired.
  #frame(frame) {
    if (!this.#held) return this.emit('message', frame)
    if (this.#heldBytes + frame.length > this.#maxBuffered) return
    this.#held.push(typeof frame === 'string' ? frame : Buffer.from(frame)) // the socket may use its bytes again
    this.#heldBytes += frame.length
  }

  #part(bytes) {
    const part = bytes.subarray(PART_HEADER[0].length)
    if (part.length === 0) {
      return this.#end(new ReplicError('REPLIC_PROTOCOL', 'a part of a frame is empty'))
    }
    this.#parts.push(Buffer.from(part)) // a copy: the socket may use its bytes again
    try {
      this.checkKept?.(this.#parts.length)
    } catch (error) {
      return this.#end(error)
    }
    if (bytes[1] === PART) this.emit('progress')
    else this.#frame(this.#parts.join())
  }

  /** Something is wrong with it; 'close' follows, here or from the WebSocket. */
  failed(error) {
    if (this.#isEnding || this.#isClosed || this.#hasFailed) return
    this.#hasFailed = true
    this.emit('error', error)
    if (!this.#raw) this.closed(LOST, '')
  }

  /** The WebSocket is closed. */
  closed(code, reason) {
    if (this.#isOver) return
    this.#isOver = true
    this.resume()
    const error = this.#isEnding ? undefined : closeError(code, reason)
    if (error) this.failed(error)
    this.#isClosed = true
    this.#parts.clear()
    this.emit('close')
  }

  // The link is over at once, the connection as soon as the other side has answered.
  #end(error) {
    this.failed(error)
    this.dismiss(closeCode(error))
    this.closed()
  }

  /** Closes what is no link's, or not any more. */
  dismiss(code) {
    this.#isEnding = true
    const terminate = () =>
      guarded(
        () => this.#raw.terminate?.(),
        () => {},
      )
    const isClosing = guarded(() => this.#kind.close(this.#raw, code), terminate)
    if (isClosing) setTimeout(terminate, END_MS).unref()
  }

  /** A frame that finds too much waiting before it is lost, and repaired later. */
  send(frame) {
    if (this.readyState === CLOSED) return
    if (this.#kind.buffered(this.#raw) + frame.length > this.#maxBuffered) return
    if (frame.length <= PART_BYTES) return this.#send(frame)
    for (let at = 0; at < frame.length; at += PART_BYTES) {
      const header = PART_HEADER[at + PART_BYTES < frame.length ? 0 : 1]
      const part = frame.subarray(at, at + PART_BYTES)
      this.#send(Buffer.concat([header, part]))
    }
  }

  #send(bytes) {
    guarded(() => this.#kind.send(this.#raw, bytes), this.#broke)
  }

  pause() {
    if (!this.#raw?.pause) this.#held ??= []
    else guarded(() => this.#raw.pause(), this.#broke)
  }

  resume() {
    guarded(() => this.#raw?.resume?.(), this.#broke)
    const held = this.#held ?? []
    this.#held = null
    this.#heldBytes = 0
    for (const frame of held) this.emit('message', frame)
  }

  close() {
    this.closeFor(undefined)
  }

  /** Closes, and says why. */
  closeFor(error) {
    this.#isEnding = true
    if (!this.#raw) return queueMicrotask(() => this.closed())
    return this.#kind.close(this.#raw, closeCode(error)) // what it throws, or rejects with, is for the link
  }

  terminate() {
    this.#isEnding = true
    if (!this.#raw) return queueMicrotask(() => this.closed())
    return this.#raw.terminate ? this.#raw.terminate() : this.#kind.close(this.#raw, 1000)
  }
}

const throwLater = (error) =>
  queueMicrotask(() => {
    throw error
  })

const isOurs = (bytes) =>
  bytes?.[0] === VERSION &&
  bytes[1] >= 1 &&
  bytes[1] <= LAST_TYPE_OF_LIB &&
  (bytes[1] <= LAST_TYPE_OF_CORE || bytes[1] >= FIRST_TYPE_OF_LIB)

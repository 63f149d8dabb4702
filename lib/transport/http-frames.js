// What both sides of HTTP share: frames in the body of a request or of a response, one after the other.
//
//   a whole frame      its length in bytes (4 bytes, big-endian, below 2^31), the frame
//   a piece of one     2^31 + the length of the piece, number of the frame, length of the frame, where
//                      the piece begins in it (4 bytes each), the piece
//
// Proxies limit the size of a request (nginx to 1 MiB), so a frame that is larger goes in pieces, in
// order, in several requests. A piece that comes again is skipped; if one is missing, so is the frame.

import { EventEmitter } from 'node:events'
import { ReplicError } from '../base/errors.js'
import { Pieces } from './pieces.js'

export const CONTENT_TYPE = 'application/vnd.replic-sqlite'
const SLACK_BYTES = 2 * 1024 * 1024 // what a frame may be larger than maxFrameBytes, as in the core
const LENGTH_BYTES = 4
const PIECE_BYTES = 12 // what follows the length of a piece
const IS_PIECE = 0x8000_0000

const maxFrame = ({ maxFrameBytes }) => maxFrameBytes + SLACK_BYTES

/** A body may have this many bytes: one largest frame. */
export const maxBody = (options) => LENGTH_BYTES + maxFrame(options)

/** One end of a session, as a socket of frames. Subclasses say when a body may go, in ready(). */
export class Session extends EventEmitter {
  #outbox
  #assembly = new Assembly()
  #maxFrame
  #corks = 0
  #onResume = []
  #isPaused = false
  readyState = 1 // 0: opening, 1: open, 3: closed, as a WebSocket has it
  checkKept = null // (bytes): throws where so many must not be kept of frames that are not whole

  /** `options` of Replica.open(). */
  constructor(options) {
    super()
    this.#maxFrame = maxFrame(options)
    this.#outbox = new Outbox(options.windowBytes + maxFrame(options))
  }

  get hasFrames() {
    return !this.#outbox.isEmpty
  }

  /** The next body to go, of at most `maxBytes`. */
  takeBody(maxBytes) {
    return this.#outbox.take(maxBytes)
  }

  /** A reader of one body that came in. */
  reader() {
    const progress = (bytes) => {
      this.checkKept?.(this.#assembly.length + bytes)
      this.emit('progress')
    }
    const take = (frame, piece) => {
      const whole = piece ? this.#assembly.add(piece, frame) : frame
      if (!whole) progress(0)
      else if (this.readyState === 1) this.emit('message', whole)
    }
    return new BodyReader(this.#maxFrame, take, progress)
  }

  send(frame) {
    this.#outbox.push(frame)
    if (this.#corks === 0) this.ready()
  }

  cork() {
    this.#corks++
  }

  uncork() {
    if (--this.#corks === 0) this.ready()
  }

  pause() {
    this.#isPaused = true
  }

  resume() {
    this.#isPaused = false
    for (const resolve of this.#onResume.splice(0)) resolve()
  }

  /** Resolves when no pause() is in force. */
  async resumed() {
    if (this.#isPaused) await new Promise((resolve) => this.#onResume.push(resolve))
  }

  /** Closed, once. */
  ended() {
    if (this.readyState === 3) return
    this.readyState = 3
    this.resume()
    this.emit('close')
  }

  /** Ends it for that reason. */
  fail(error) {
    if (this.readyState === 3) return
    this.emit('error', error)
    this.terminate()
  }
}

/** Frames that wait for a request or response to go with. */
class Outbox {
  #frames = []
  #bytes = 0
  #maxBytes
  #sent = 0 // bytes of the first frame that went in pieces
  #number = 0 // of that frame

  constructor(maxBytes) {
    this.#maxBytes = maxBytes
  }

  get isEmpty() {
    return this.#frames.length === 0
  }

  /** What an honest other side leaves unfetched is bounded. Beyond that, frames are lost, and repaired. */
  push(frame) {
    if (this.#bytes + frame.length > this.#maxBytes) return
    this.#frames.push(frame)
    this.#bytes += frame.length
  }

  take(maxBytes = Infinity) {
    const parts = []
    let count = 0
    let room = maxBytes
    for (; count < this.#frames.length; count++) {
      const frame = this.#frames[count]
      if (this.#sent > 0 || LENGTH_BYTES + frame.length > room) {
        if (this.#sent === 0 && parts.length > 0) break // into the next body, whole if that can be
        const piece = frame.subarray(this.#sent, this.#sent + room - LENGTH_BYTES - PIECE_BYTES)
        parts.push(uint32s(IS_PIECE + piece.length, this.#number, frame.length, this.#sent), piece)
        room -= LENGTH_BYTES + PIECE_BYTES + piece.length
        this.#sent += piece.length
        if (this.#sent < frame.length) break
        this.#sent = 0
        this.#number = (this.#number + 1) % IS_PIECE
      } else {
        parts.push(uint32s(frame.length), frame)
        room -= LENGTH_BYTES + frame.length
      }
      this.#bytes -= frame.length
    }
    this.#frames.splice(0, count)
    return Buffer.concat(parts)
  }
}

function uint32s(...numbers) {
  const bytes = Buffer.allocUnsafe(4 * numbers.length)
  for (const [i, number] of numbers.entries()) bytes.writeUInt32BE(number, 4 * i)
  return bytes
}

/** Reads one body as it comes in, in chunks. */
class BodyReader {
  #maxFrame
  #emit
  #progress
  #pieces = new Pieces() // of what is at hand
  #need = LENGTH_BYTES
  #next = (bytes) => this.#length(bytes)

  /** `emit(bytes, piece)`: of a piece, { number, length, at }. `progress(bytes)`: so much of one is here. */
  constructor(maxFrameBytes, emit, progress) {
    this.#maxFrame = maxFrameBytes
    this.#emit = emit
    this.#progress = progress
  }

  /** Throws REPLIC_PROTOCOL, and what progress() throws. */
  take(chunk) {
    for (let rest = chunk; rest.length > 0; ) {
      const part = rest.subarray(0, this.#need - this.#pieces.length)
      rest = rest.subarray(part.length)
      if (part.length === this.#need) this.#next(part)
      else {
        this.#pieces.push(part)
        if (this.#pieces.length < this.#need) return this.#progress(this.#pieces.length)
        this.#next(this.#pieces.join())
      }
    }
  }

  /** The body has ended; throws REPLIC_PROTOCOL if it is cut off. */
  end() {
    if (this.#pieces.length === 0 && this.#need === LENGTH_BYTES) return
    throw malformed('a body that ends within a frame')
  }

  #expect(need, next) {
    this.#need = need
    this.#next = next
  }

  #length(bytes) {
    const length = viewOf(bytes).getUint32(0)
    if (length >= IS_PIECE) {
      return this.#expect(PIECE_BYTES, (header) => this.#piece(length - IS_PIECE, header))
    }
    this.#check(length)
    this.#expect(length, (frame) => this.#frame(frame))
  }

  #piece(size, header) {
    const view = viewOf(header)
    const piece = { number: view.getUint32(0), length: view.getUint32(4), at: view.getUint32(8) }
    this.#check(piece.length)
    if (size === 0 || piece.at + size > piece.length) {
      throw malformed(`a piece of ${size} bytes at ${piece.at} of a frame of ${piece.length}`)
    }
    this.#expect(size, (bytes) => this.#frame(bytes, piece))
  }

  #check(length) {
    if (length > 0 && length <= this.#maxFrame) return
    throw malformed(`a frame of ${length} bytes; the least is 1, the most ${this.#maxFrame}`)
  }

  #frame(bytes, piece) {
    this.#expect(LENGTH_BYTES, (next) => this.#length(next))
    this.#emit(bytes, piece)
  }
}

/** Joins the pieces of one frame, the last that was begun. */
class Assembly {
  #number
  #length
  #pieces = new Pieces()

  /** Bytes of the frame that are here. */
  get length() {
    return this.#pieces.length
  }

  /** Returns the frame once it is whole. */
  add({ number, length, at }, bytes) {
    if (at === 0) {
      this.#number = number
      this.#length = length
      this.#pieces.clear()
    }
    const isNext = number === this.#number && length === this.#length && at === this.#pieces.length
    if (!isNext) return undefined
    this.#pieces.push(bytes)
    if (this.#pieces.length < length) return undefined
    this.#number = undefined
    return this.#pieces.join()
  }
}

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
const malformed = (message) => new ReplicError('REPLIC_PROTOCOL', message)

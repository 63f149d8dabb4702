// A TCP stream as a socket of frames. It begins with the six bytes "REPLIC" (so that whatever else dials this port is
// refused at its first bytes); then each frame follows its length in bytes, four bytes, big-endian.

import { EventEmitter } from 'node:events'
import { ReplicError } from '../base/errors.js'
import { Pieces } from './pieces.js'
import { factsOf } from './tls.js'

const PREAMBLE = Buffer.from('REPLIC')
const HEADER_BYTES = 4
const NO_ROOM = 'it has no room, or listens with tls'
const DISTRUST = "as one does that does not trust this side's certificate"
const SLACK_BYTES = 2 * 1024 * 1024 // what a frame may be larger than maxFrameBytes, as in the core

// The other side has gone before it said anything.
const silent = (why) =>
  Object.assign(new Error(`closed by the other side before it said anything: ${why}`), {
    code: 'ECONNRESET',
  })

/** A stream as a socket of frames: 'open' once both sides may send, 'message' per frame. */
export class FrameSocket extends EventEmitter {
  #socket
  #maxBytes
  #isDialed
  #closing = false
  #greeting = PREAMBLE.length // bytes of the other side's preamble still to come
  #pieces = new Pieces() // of a frame, or of its header, that has not arrived whole
  #need = HEADER_BYTES
  #inHeader = true
  readyState = 0 // 1 once open, as a WebSocket has it
  checkKept = null // (bytes): throws where so many must not be kept of a frame that is not whole

  /**
   * `opening`: the event after which a stream that is dialed is there, null where it was accepted.
   * `explain(error)` gives what is told of an error.
   */
  constructor(socket, opening, maxFrameBytes, explain = (error) => error) {
    super()
    this.#socket = socket
    this.#maxBytes = maxFrameBytes + SLACK_BYTES
    this.#isDialed = opening !== null
    socket.setNoDelay(true).setKeepAlive(true, 10_000)
    socket.on('data', (chunk) => this.#data(chunk))
    socket.on('error', (error) => this.emit('error', explain(error)))
    socket.on('close', (hadError) => this.#closed(hadError))
    if (this.#isDialed) socket.once(opening, () => this.#open())
  }

  /** What authorize() is told beyond the address. */
  get details() {
    return this.#socket.encrypted ? { tls: factsOf(this.#socket) } : undefined
  }

  #closed(hadError) {
    if (this.#greeting > 0 && !this.#closing && !hadError) {
      if (!this.#isDialed && this.#socket.encrypted) this.emit('error', silent(DISTRUST))
      else if (this.#isDialed && this.readyState === 1) this.emit('error', silent(NO_ROOM))
    }
    this.emit('close')
  }

  #open() {
    this.#socket.write(PREAMBLE)
    this.readyState = 1
    this.emit('open')
  }

  send(frame) {
    const header = Buffer.allocUnsafe(HEADER_BYTES)
    header.writeUInt32BE(frame.length)
    this.cork()
    this.#socket.write(header)
    this.#socket.write(frame)
    this.uncork()
  }

  cork() {
    this.#socket.cork()
  }

  uncork() {
    this.#socket.uncork()
  }

  pause() {
    this.#socket.pause()
  }

  resume() {
    this.#socket.resume()
  }

  /** Sends what was written, then the end; what still comes in is read and dropped, or the other
   * side might get a reset before it has read our last frame. */
  close() {
    this.#closing = true
    this.#socket.end()
    this.#socket.resume()
  }

  terminate() {
    this.#closing = true
    this.#socket.destroy()
  }

  #data(chunk) {
    let rest = chunk
    if (this.#greeting > 0) {
      rest = this.#greet(chunk)
      if (this.#greeting > 0 || this.#closing) return
      if (!this.#isDialed) this.#open()
    }
    while (rest.length > 0 && !this.#closing) rest = this.#take(rest)
    if (this.#pieces.length > 0 && !this.#closing) this.#keep()
  }

  #keep() {
    try {
      this.checkKept?.(this.#pieces.length)
    } catch (error) {
      return this.#refuse(error)
    }
    this.emit('progress')
  }

  #greet(chunk) {
    const wanted = PREAMBLE.subarray(PREAMBLE.length - this.#greeting)
    const length = Math.min(wanted.length, chunk.length)
    if (!chunk.subarray(0, length).equals(wanted.subarray(0, length))) {
      this.#refuse(malformed('the first bytes are not "REPLIC": is this another service, or TLS?'))
    }
    this.#greeting -= length
    return chunk.subarray(length)
  }

  // Takes from `chunk` what the header or frame at hand lacks.
  #take(chunk) {
    const piece = chunk.subarray(0, this.#need - this.#pieces.length)
    if (piece.length === this.#need) this.#whole(piece)
    else {
      this.#pieces.push(piece)
      if (this.#pieces.length === this.#need) this.#whole(this.#pieces.join())
    }
    return chunk.subarray(piece.length)
  }

  #whole(bytes) {
    if (this.#inHeader) this.#header(bytes.readUInt32BE())
    else this.#frame(bytes)
  }

  #header(length) {
    if (length === 0 || length > this.#maxBytes) {
      const most = this.#maxBytes
      return this.#refuse(malformed(`a frame of ${length} bytes; the least is 1, the most ${most}`))
    }
    this.#inHeader = false
    this.#need = length
  }

  #frame(bytes) {
    this.#inHeader = true
    this.#need = HEADER_BYTES
    this.emit('message', bytes)
  }

  #refuse(error) {
    this.emit('error', error)
    this.terminate()
  }
}

const malformed = (message) => new ReplicError('REPLIC_PROTOCOL', message)

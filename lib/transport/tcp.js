// TCP. A stream begins with the six bytes "REPLIC" (so that whatever else dials this port is refused
// at its first bytes); then each frame follows its length in bytes, four bytes, big-endian.

import { EventEmitter } from 'node:events'
import { createServer, isIPv6, connect as netConnect } from 'node:net'
import { ReplicError } from '../errors.js'
import { boolean, integer, milliseconds, peerId, readOptions, text } from '../options.js'
import { linksOf } from '../replica.js'

const PREAMBLE = Buffer.from('REPLIC')
const HEADER_BYTES = 4
const SLACK_BYTES = 2 * 1024 * 1024 // what a frame may be larger than maxFrameBytes, as in the core

const LISTEN_DEFAULTS = Object.freeze({
  port: 0, // 0: the system chooses; address() tells
  host: '127.0.0.1',
  maxConnections: 1000, // further ones are dropped
})
const LISTEN_CHECKS = { port: integer(0, 65535), host: text, maxConnections: integer(1, 1_000_000) }

const CONNECT_DEFAULTS = Object.freeze({
  port: undefined, // required
  host: '127.0.0.1',
  peerId: undefined, // who must answer; undefined: whoever does
  retryMinMs: 100,
  retryMaxMs: 10_000,
  unref: false, // true: waiting to dial again does not keep the process alive
})
const CONNECT_CHECKS = {
  port: integer(1, 65535),
  host: text,
  peerId,
  retryMinMs: milliseconds(1),
  retryMaxMs: milliseconds(1),
  unref: boolean,
}

/**
 * Accepts connections from other peers. Resolves once it listens, with { address(), close() }.
 * Rejects with REPLIC_USAGE, REPLIC_CLOSED, or the system's own error (EADDRINUSE, EACCES, ...).
 */
export async function listen(db, options) {
  const links = linksOf(db)
  const { port, host, maxConnections } = readOptions(
    'listen',
    options,
    LISTEN_DEFAULTS,
    LISTEN_CHECKS,
  )
  const listener = new Listener(links, maxConnections)
  await listener.listen(port, host)
  return { address: () => listener.address(), close: () => listener.close() }
}

/**
 * Keeps a connection to a listening peer: dials now, and again whenever it ends, until close() or
 * db.closeRemotePeer(). Returns { close() } at once; db.on('link') tells how it goes.
 * Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function connect(db, options) {
  const links = linksOf(db)
  const { port, host, peerId, retryMinMs, retryMaxMs, unref } = readOptions(
    'connect',
    options,
    CONNECT_DEFAULTS,
    CONNECT_CHECKS,
  )
  if (port === undefined) throw new ReplicError('REPLIC_USAGE', 'connect: port is missing')
  const dialer = links.dial(
    () => new FrameSocket(netConnect({ port, host }), 'dialing', links.options.maxFrameBytes),
    { peerId, transport: 'tcp', address: join(host, port) },
    { retryMinMs, retryMaxMs, unref },
  )
  return { close: () => dialer.close() }
}

class Listener {
  #links
  #server
  #accepted = new Set()

  constructor(links, maxConnections) {
    this.#links = links
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket))
    this.#server.maxConnections = maxConnections
  }

  async listen(port, host) {
    this.#links.addEndpoint(this)
    try {
      await new Promise((resolve, reject) => {
        this.#server.on('error', reject)
        this.#server.listen(port, host, resolve)
      })
    } catch (error) {
      this.#links.removeEndpoint(this)
      throw error
    }
  }

  #accept(socket) {
    if (this.#links.stopped) return socket.destroy()
    const frames = new FrameSocket(socket, 'accepting', this.#links.options.maxFrameBytes)
    try {
      const link = this.#links.add(frames, {
        transport: 'tcp',
        address: join(socket.remoteAddress, socket.remotePort),
        isAccepted: true,
        onDown: () => this.#accepted.delete(link),
      })
      this.#accepted.add(link)
    } catch {
      frames.terminate() // no room, which status() counts
    }
  }

  address() {
    return this.#server.address()
  }

  /** Accepts no more. */
  stop() {
    this.#server.close()
  }

  /** Accepts no more and ends what it accepted; resolves when all of it is gone. */
  async close() {
    this.#links.removeEndpoint(this)
    this.#server.close()
    await Promise.all([...this.#accepted].map((link) => link.end()))
  }
}

const join = (host, port) => (isIPv6(host ?? '') ? `[${host}]:${port}` : `${host}:${port}`)

/** A stream as a socket of frames: 'open' once both sides may send, 'message' per frame. */
class FrameSocket extends EventEmitter {
  #socket
  #maxBytes
  #closing = false
  #greeting = PREAMBLE.length // bytes of the other side's preamble still to come
  #chunks = [] // of a frame, or of its header, that has not arrived whole
  #have = 0 // bytes in them
  #need = HEADER_BYTES
  #inHeader = true
  readyState = 0 // 1 once open, as a WebSocket has it

  constructor(socket, side, maxFrameBytes) {
    super()
    this.#socket = socket
    this.#maxBytes = maxFrameBytes + SLACK_BYTES
    socket.setNoDelay(true).setKeepAlive(true, 10_000)
    socket.on('data', (chunk) => this.#data(chunk, side))
    socket.on('error', (error) => this.emit('error', error))
    socket.on('close', () => this.emit('close'))
    if (side === 'dialing') socket.once('connect', () => this.#open())
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

  #data(chunk, side) {
    let rest = chunk
    if (this.#greeting > 0) {
      rest = this.#greet(chunk)
      if (this.#greeting > 0 || this.#closing) return
      if (side === 'accepting') this.#open()
    }
    while (rest.length > 0 && !this.#closing) rest = this.#take(rest)
    if (this.#have > 0) this.emit('progress')
  }

  #greet(chunk) {
    const wanted = PREAMBLE.subarray(PREAMBLE.length - this.#greeting)
    const length = Math.min(wanted.length, chunk.length)
    if (!chunk.subarray(0, length).equals(wanted.subarray(0, length))) {
      this.#refuse('the first bytes are not "REPLIC": is this another service, or TLS?')
    }
    this.#greeting -= length
    return chunk.subarray(length)
  }

  // Takes from `chunk` what the header or frame at hand lacks; the pieces are joined once, when it is
  // whole, and never beforehand: memory follows what has arrived, not what a header announces.
  #take(chunk) {
    const piece = chunk.subarray(0, this.#need - this.#have)
    this.#chunks.push(piece)
    this.#have += piece.length
    if (this.#have === this.#need) {
      const whole = this.#chunks.length === 1 ? piece : Buffer.concat(this.#chunks, this.#need)
      this.#chunks = []
      this.#have = 0
      if (this.#inHeader) this.#header(whole.readUInt32BE())
      else this.#frame(whole)
    }
    return chunk.subarray(piece.length)
  }

  #header(length) {
    if (length === 0 || length > this.#maxBytes) {
      this.#refuse(`a frame of ${length} bytes; the least is 1, the most ${this.#maxBytes}`)
      return
    }
    this.#inHeader = false
    this.#need = length
  }

  #frame(bytes) {
    this.#inHeader = true
    this.#need = HEADER_BYTES
    this.emit('message', bytes)
  }

  #refuse(reason) {
    this.emit('error', new ReplicError('REPLIC_PROTOCOL', reason))
    this.terminate()
  }
}

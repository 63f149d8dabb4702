// TCP, and TLS over it. A stream begins with the six bytes "REPLIC" (so that whatever else dials this port is refused
// at its first bytes); then each frame follows its length in bytes, four bytes, big-endian.

import { EventEmitter } from 'node:events'
import { createServer, isIPv6, connect as netConnect } from 'node:net'
import { createServer as createTlsServer, connect as tlsConnect } from 'node:tls'
import { explained, ReplicError, usage } from '../errors.js'
import { boolean, host, integer, milliseconds, peerId, readOptions } from '../options.js'
import { linksOf } from '../replica.js'
import {
  connectTls,
  explainAccepted,
  explainDialed,
  factsOf,
  listenTls,
  refusalOf,
  tlsObject,
} from './tls.js'

const PREAMBLE = Buffer.from('REPLIC')
const HEADER_BYTES = 4
const NO_ROOM = 'it has no room, or listens with tls'
const DISTRUST = "as one does that does not trust this side's certificate"
const SLACK_BYTES = 2 * 1024 * 1024 // what a frame may be larger than maxFrameBytes, as in the core

const LISTEN_DEFAULTS = Object.freeze({
  port: 0, // 0: the system chooses; address() tells
  host: '127.0.0.1',
  maxConnections: 1000, // further ones are dropped
  tls: undefined, // options of node:tls; undefined: not encrypted
})
const LISTEN_CHECKS = {
  port: integer(0, 65535),
  host,
  maxConnections: integer(1, 1_000_000),
  tls: tlsObject,
}

const CONNECT_DEFAULTS = Object.freeze({
  port: undefined, // required
  host: '127.0.0.1',
  tls: undefined, // options of node:tls; undefined: not encrypted
  peerId: undefined, // who must answer; undefined: whoever does
  retryMinMs: 100,
  retryMaxMs: 10_000,
  unref: false, // true: waiting to dial again does not keep the process alive
})
const CONNECT_CHECKS = {
  port: integer(1, 65535),
  host,
  tls: tlsObject,
  peerId,
  retryMinMs: milliseconds(1),
  retryMaxMs: milliseconds(1),
  unref: boolean,
}

/**
 * Accepts connections from other peers. Resolves once it listens, with { address(), close(), renew(tls) };
 * renew() is for listeners with TLS: later connections get another certificate.
 * Rejects with REPLIC_USAGE, REPLIC_CLOSED, or the system's own error (EADDRINUSE, EACCES, ...).
 */
export async function listen(db, options) {
  const links = linksOf(db)
  const { port, host, maxConnections, tls } = readOptions(
    'listen',
    options,
    LISTEN_DEFAULTS,
    LISTEN_CHECKS,
  )
  const listener = new Listener(links, maxConnections, tls && listenTls(tls))
  await listener.listen(port, host)
  return {
    address: () => listener.address(),
    close: () => listener.close(),
    renew: (tls) => listener.renew(tls),
  }
}

/**
 * Keeps a connection to a listening peer: dials now, and again whenever it ends, until close() or
 * db.closeRemotePeer(). Returns { close() } at once; db.on('link') tells how it goes.
 * Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function connect(db, options) {
  const links = linksOf(db)
  const { port, host, tls, peerId, retryMinMs, retryMaxMs, unref } = readOptions(
    'connect',
    options,
    CONNECT_DEFAULTS,
    CONNECT_CHECKS,
  )
  if (port === undefined) throw new ReplicError('REPLIC_USAGE', 'connect: port is missing')
  const address = join(host, port)
  const { maxFrameBytes } = links.options
  const secure = tls && connectTls(tls)
  const dial = () => {
    if (!secure) return new FrameSocket(netConnect({ port, host }), 'connect', maxFrameBytes)
    const socket = tlsConnect({ ...secure, port, host })
    const explain = (error) => explainDialed(error, socket, address)
    return new FrameSocket(socket, 'secureConnect', maxFrameBytes, explain)
  }
  const dialer = links.dial(
    dial,
    { peerId, transport: tls ? 'tls' : 'tcp', address },
    { retryMinMs, retryMaxMs, unref },
  )
  return { close: () => dialer.close() }
}

class Listener {
  #links
  #server
  #tls
  #transport
  #address // kept: the server forgets it when it is closed
  #accepted = new Set()
  #handshakes = new Map() // address -> socket: of those whose TLS handshake is under way

  constructor(links, maxConnections, tls) {
    this.#links = links
    this.#tls = tls
    this.#transport = tls ? 'tls' : 'tcp'
    if (tls) this.#secure()
    else this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket))
    this.#server.maxConnections = maxConnections
  }

  // A certificate that is wanted is checked here, after the handshake, and not by node:tls, which ends
  // the connection without a word: so the other side hears why.
  #secure() {
    const handshakeTimeout = this.#links.options.linkTimeoutMs
    const options = { ...this.#tls, rejectUnauthorized: false, handshakeTimeout, noDelay: true }
    this.#server = createTlsServer(options, (socket) => {
      this.#handshakes.delete(addressOf(socket))
      this.#accept(socket, refusalOf(socket, this.#tls))
    })
    this.#server.on('connection', (socket) => this.#shake(socket))
    this.#server.on('tlsClientError', (error, socket) => {
      const address = socket.remoteAddress ? addressOf(socket) : null
      const reason = explainAccepted(error, handshakeTimeout)
      socket.destroy()
      if (!this.#links.stopped)
        this.#links.turnedAway({ transport: this.#transport, address }, reason)
    })
  }

  // Who has connected, and has to go through the handshake before there is a link.
  #shake(socket) {
    const address = addressOf(socket)
    if (this.#links.stopped || this.#links.roomError(true)) return socket.destroy()
    this.#handshakes.set(address, socket)
    socket.on('close', () => this.#handshakes.delete(address))
  }

  /** Connections that are no links yet. */
  get pending() {
    return this.#handshakes.size
  }

  async listen(port, host) {
    this.#links.addEndpoint(this)
    try {
      await new Promise((resolve, reject) => {
        this.#server.on('error', reject)
        this.#server.listen(port, host, resolve)
      })
      this.#address = this.#server.address()
    } catch (error) {
      this.#links.removeEndpoint(this)
      throw explained(error)
    }
  }

  #accept(socket, refusal) {
    if (this.#links.stopped) return socket.destroy()
    const frames = new FrameSocket(socket, null, this.#links.options.maxFrameBytes)
    try {
      const link = this.#links.add(frames, {
        transport: this.#transport,
        address: addressOf(socket),
        isAccepted: true,
        refusal,
        onDown: () => this.#accepted.delete(link),
      })
      this.#accepted.add(link)
    } catch {
      frames.terminate() // no room, which status() counts
    }
  }

  address() {
    return this.#address
  }

  /** Later connections get another certificate. Throws REPLIC_USAGE. */
  renew(tls) {
    if (!this.#tls) throw usage('renew: this listener has no tls')
    this.#server.setSecureContext({ ...this.#tls, ...listenTls({ ...this.#tls, ...tls }) })
  }

  /** Accepts no more. */
  stop() {
    this.#server.close()
    for (const socket of this.#handshakes.values()) socket.destroy()
  }

  /** Accepts no more and ends what it accepted; resolves when all of it is gone. */
  async close() {
    this.#links.removeEndpoint(this)
    this.stop()
    await Promise.all([...this.#accepted].map((link) => link.end()))
  }
}

const join = (host, port) => (isIPv6(host ?? '') ? `[${host}]:${port}` : `${host}:${port}`)
const addressOf = ({ remoteAddress, remotePort }) => join(remoteAddress, remotePort)

// The other side has gone before it said anything.
const silent = (why) =>
  Object.assign(new Error(`closed by the other side before it said anything: ${why}`), {
    code: 'ECONNRESET',
  })

/** A stream as a socket of frames: 'open' once both sides may send, 'message' per frame. */
class FrameSocket extends EventEmitter {
  #socket
  #maxBytes
  #isDialed
  #closing = false
  #greeting = PREAMBLE.length // bytes of the other side's preamble still to come
  #chunks = [] // of a frame, or of its header, that has not arrived whole
  #have = 0 // bytes in them
  #need = HEADER_BYTES
  #inHeader = true
  readyState = 0 // 1 once open, as a WebSocket has it

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

// A TCP proxy between a dialing peer and a listening one that does to frames what a bad network does. It
// reads the stream as docs/protocol.md has it ("Over TCP"), so that whole frames are lost, doubled or
// overtaken and the stream stays one.
//
//   dialer ── near ─ Flow, line toListener ─> far ── listener
//          <─────── line toDialer, Flow ─────
//
// The lines belong to the proxy: all its connections share them, one after another.

import { EventEmitter } from 'node:events'
import { connect, createServer } from 'node:net'
import { randomFrom } from '../../examples/demo/random.js'
import { Line } from './line.js'

const PREAMBLE_BYTES = 6
const HEADER_BYTES = 4

export const TO_LISTENER = 'toListener'
export const TO_DIALER = 'toDialer'
const BOTH = [TO_LISTENER, TO_DIALER]

/** Emits 'frame' with { direction, length } for each that has come in. */
export class TcpProxy extends EventEmitter {
  #server
  #target
  #connections = new Set()
  #frozen = new Set() // directions in which nothing moves
  #refusing = false

  /** `target`: { host, port } of the listening peer. `settings` are those of a Line. */
  static async open({ target, seed, host = '127.0.0.1', ...settings }) {
    const proxy = new TcpProxy(target, seed)
    proxy.set(settings)
    await new Promise((resolve, reject) => {
      proxy.#server.on('error', reject).listen(0, host, resolve)
    })
    return proxy
  }

  constructor(target, seed) {
    super()
    this.#target = target
    this.lines = {
      [TO_LISTENER]: new Line(randomFrom(seed)),
      [TO_DIALER]: new Line(randomFrom(seed + 1)),
    }
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
      if (this.#refusing) near.resetAndDestroy()
      else this.#connections.add(new Connection(this, near))
    })
  }

  get address() {
    const { address, port } = this.#server.address()
    return { host: address, port }
  }

  get target() {
    return this.#target
  }

  /** Where new connections lead from now on: the peer has been restarted on another port. */
  retarget(target) {
    this.#target = target
  }

  /** How many connections are open, on both sides. */
  get connections() {
    return this.#connections.size
  }

  /** What became of the frames, over both directions. */
  get counts() {
    const [one, other] = BOTH.map((direction) => this.lines[direction].counts)
    return Object.fromEntries(Object.entries(one).map(([name, n]) => [name, n + other[name]]))
  }

  /** Changes settings of its lines, or of one of them. */
  set(settings, directions = BOTH) {
    for (const direction of [directions].flat()) this.lines[direction].set(settings)
  }

  /** Resolves when `n` more frames have come in. */
  frames(n, wanted = () => true) {
    return new Promise((resolve) => {
      let left = n
      const count = (frame) => {
        if (!wanted(frame) || --left > 0) return
        this.off('frame', count)
        resolve()
      }
      this.on('frame', count)
    })
  }

  /** As when a line is down: nothing moves, no end is told; in one direction or in both. */
  freeze(directions = BOTH) {
    for (const direction of [directions].flat()) this.#frozen.add(direction)
    for (const connection of this.#connections) connection.update()
  }

  /** Everything goes on where it was. */
  thaw() {
    this.#frozen.clear()
    for (const connection of this.#connections) connection.update()
  }

  isFrozen(direction) {
    return this.#frozen.has(direction)
  }

  /**
   * As when a router forgets its connections: whatever comes over those that are open now vanishes, and if one
   * side ends, the other is not told. New connections are as usual.
   */
  forget() {
    for (const connection of this.#connections) connection.forget()
  }

  /** Breaks all connections, for both sides to see. */
  reset() {
    for (const connection of this.#connections) connection.destroy()
  }

  /** Whether new connections are broken at once. */
  refuse(value) {
    this.#refusing = value
  }

  gone(connection) {
    this.#connections.delete(connection)
  }

  async close() {
    for (const direction of BOTH) this.lines[direction].clear()
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.reset()
    await closed
  }
}

class Connection {
  #proxy
  #near
  #far
  #flows = []
  #open = new Set() // sockets that have not closed
  #forgotten = false
  #broken = null // the direction in which a break is still to be told

  constructor(proxy, near) {
    this.#proxy = proxy
    this.#near = this.#watch(near, TO_LISTENER)
    this.update()
  }

  #watch(socket, direction) {
    this.#open.add(socket)
    return socket
      .on('error', () => {})
      .on('close', () => {
        this.#open.delete(socket)
        if (this.#open.size === 0) this.#proxy.gone(this)
        if (!this.#far) return this.#proxy.gone(this)
        this.#broken = direction
        this.update()
      })
  }

  /** After freezing or thawing. */
  update() {
    const frozen = (direction) => this.#proxy.isFrozen(direction)
    if (!this.#far && !BOTH.some(frozen)) this.#connect()
    for (const flow of this.#flows) flow.update()
    if (this.#broken && !this.#forgotten && !frozen(this.#broken)) this.destroy()
  }

  #connect() {
    if (this.#forgotten) return
    const { lines, target } = this.#proxy
    const far = connect({ ...target, allowHalfOpen: true, noDelay: true })
    this.#far = this.#watch(far, TO_DIALER)
    this.#flows = [
      new Flow(this.#proxy, TO_LISTENER, this.#near, far, lines[TO_LISTENER]),
      new Flow(this.#proxy, TO_DIALER, far, this.#near, lines[TO_DIALER]),
    ]
  }

  forget() {
    this.#forgotten = true
    for (const flow of this.#flows) flow.forget()
  }

  destroy() {
    for (const socket of this.#open) socket.resetAndDestroy()
  }
}

/** What one side of a connection sends to the other. */
class Flow {
  #proxy
  #direction
  #from
  #to
  #line
  #part = 'preamble' // then 'header' and 'frame' in turn
  #need = PREAMBLE_BYTES // bytes of that part
  #have = 0 // of them that have come
  #chunks = [] // what has come and is not on the line
  #delays = [] // of the frame at hand, see Line.draw()
  #streams = false // put on the line as it comes: neither lost nor doubled, and none may overtake it
  #isForgotten = false
  #isWaiting = false // for room on the line

  constructor(proxy, direction, from, to, line) {
    this.#proxy = proxy
    this.#direction = direction
    this.#from = from
    this.#to = to
    this.#line = line
    from.on('data', (chunk) => this.#data(chunk))
    from.on('end', () => line.afterAll(() => !this.#isForgotten && to.end()))
    to.on('drain', () => this.update())
    this.update()
  }

  /** Reads on, or not. */
  update() {
    if (this.#isForgotten || this.#mayRead()) this.#from.resume()
    else this.#from.pause()
  }

  #mayRead() {
    if (this.#line.isFull && !this.#isWaiting) {
      this.#isWaiting = true
      this.#line.whenRoom(() => {
        this.#isWaiting = false
        this.update()
      })
    }
    const isFrozen = this.#proxy.isFrozen(this.#direction)
    return !isFrozen && !this.#isWaiting && !this.#to.writableNeedDrain
  }

  forget() {
    this.#isForgotten = true
    this.update()
  }

  #data(chunk) {
    for (let rest = chunk; rest.length > 0 && !this.#isForgotten; ) rest = this.#take(rest)
    this.update()
  }

  #take(chunk) {
    const piece = chunk.subarray(0, this.#need - this.#have)
    this.#have += piece.length
    if (this.#streams) this.#put(piece, this.#delays[0])
    else this.#chunks.push(piece)
    if (this.#have === this.#need) this.#whole()
    return chunk.subarray(piece.length)
  }

  #whole() {
    const bytes = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks)
    if (this.#part === 'header') return this.#header(bytes)
    if (this.#part === 'preamble') this.#put(bytes, 0)
    else {
      if (!this.#streams) for (const delay of this.#delays) this.#put(bytes, delay)
      this.#proxy.emit('frame', { direction: this.#direction, length: this.#need })
    }
    this.#begin('header', HEADER_BYTES)
    this.#streams = false
  }

  // It goes with its frame.
  #header(bytes) {
    this.#delays = this.#line.draw()
    this.#streams = this.#line.isOrdered && this.#delays.length === 1
    this.#begin('frame', bytes.readUInt32BE())
    if (this.#streams) this.#put(bytes, this.#delays[0])
    else this.#chunks.push(bytes)
  }

  #begin(part, need) {
    this.#part = part
    this.#need = need
    this.#have = 0
    this.#chunks = []
  }

  #put(bytes, delay) {
    this.#line.put(bytes, delay, (piece) => {
      if (!this.#isForgotten && !this.#to.destroyed) this.#to.write(piece)
    })
  }
}

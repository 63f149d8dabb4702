// A UDP proxy that loses, doubles, delays and reorders datagrams. Each sender gets a socket of its own
// towards the target, as behind a router that translates addresses, so answers find their way back.

import { createSocket } from 'node:dgram'
import { randomFrom } from '../../examples/demo/random.js'
import { Line } from './line.js'
import { TO_DIALER, TO_LISTENER } from './proxy.js'

export class UdpProxy {
  #socket
  #target
  #senders = new Map() // 'host:port' -> socket towards the target
  #cut = false

  /** `target`: { host, port }. `settings` are those of a Line. */
  static async open({ target, seed, host = '127.0.0.1', ...settings }) {
    const proxy = new UdpProxy(target, seed)
    proxy.set(settings)
    await new Promise((resolve, reject) => {
      proxy.#socket.on('error', reject).bind(0, host, resolve)
    })
    return proxy
  }

  constructor(target, seed) {
    this.#target = target
    this.lines = {
      [TO_LISTENER]: new Line(randomFrom(seed)),
      [TO_DIALER]: new Line(randomFrom(seed + 1)),
    }
    this.#socket = createSocket('udp4')
    this.#socket.on('message', (bytes, sender) => this.#outwards(bytes, sender))
  }

  get address() {
    const { address, port } = this.#socket.address()
    return { host: address, port }
  }

  set(settings) {
    for (const line of Object.values(this.lines)) line.set(settings)
  }

  get target() {
    return this.#target
  }

  /** Where datagrams lead from now on: the peer has been restarted on another port. */
  retarget(target) {
    this.#target = target
  }

  /** What became of the datagrams, over both directions. */
  get counts() {
    const [one, other] = Object.values(this.lines).map(({ counts }) => counts)
    return Object.fromEntries(Object.entries(one).map(([name, n]) => [name, n + other[name]]))
  }

  /** While it is cut, every datagram vanishes. */
  cut(value) {
    this.#cut = value
  }

  #outwards(bytes, sender) {
    if (this.#cut) return
    const far = this.#socketOf(sender)
    const { host, port } = this.#target
    this.lines[TO_LISTENER].carry(bytes, (datagram) => send(far, datagram, port, host))
  }

  #socketOf({ address, port }) {
    const name = `${address}:${port}`
    const known = this.#senders.get(name)
    if (known) return known
    const far = createSocket('udp4')
    far.on('error', () => {}) // nobody listens there: for a datagram that is a loss
    far.on('message', (bytes) => {
      if (this.#cut) return
      const back = (datagram) => send(this.#socket, datagram, port, address)
      this.lines[TO_DIALER].carry(bytes, back)
    })
    this.#senders.set(name, far)
    return far
  }

  async close() {
    for (const line of Object.values(this.lines)) line.clear()
    const sockets = [this.#socket, ...this.#senders.values()]
    await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.close(resolve))))
  }
}

const send = (socket, bytes, port, host) => socket.send(bytes, port, host, () => {})

// Somebody who speaks a transport and nothing above it: through the transport's own client, whose
// sockets of frames the test holds in its hands, where otherwise a link would.

import { EventEmitter } from 'node:events'
import { Handshake } from '../../lib/links/handshake.js'
import { linksOf } from '../../lib/links/registry.js'
import { keyOf } from '../../lib/links/secret.js'

const LISTENER = 12 // the peer that listens, in all tests of the contract

/** Makes of `db` such a stranger: { connect(adapter, address) -> Raw, close() }. It links to nobody any more. */
export function strangerFrom(db) {
  const told = new EventEmitter().setMaxListeners(0)
  const open = new Set()
  linksOf(db).add = (socket, { peerId }) => {
    const raw = new Raw(socket)
    const isWanted = !peerId || peerId === LISTENER // on a bus there may be others
    if (isWanted) queueMicrotask(() => told.emit('socket', raw)) // after connect() has returned
    return raw
  }
  return {
    async connect(adapter, address) {
      const given = new Promise((resolve) => told.once('socket', resolve))
      const connection = adapter.connect(db, address)
      const raw = await given
      raw.connection = connection
      open.add(raw)
      raw.ended.then(() => open.delete(raw))
      await Promise.race([raw.opened, raw.ended])
      return raw
    },
    close: () => Promise.all([...open].map((raw) => raw.destroy())),
  }
}

/** Proves the secret over a Raw, as peer 11; what comes after that: { send(frame), next() }. */
export async function proven(raw, secret) {
  if (!secret || raw.socket.isSealed) return raw
  const send = (frame) => raw.send(frame)
  const proof = new Handshake({ keys: [await keyOf(secret)], peerId: 11, isInitiator: true, send })
  proof.begin()
  while (proof.peerId === undefined) proof.take(await raw.next())
  return {
    send: (frame) => send(proof.seal.seal(frame)),
    async next() {
      for (let frame = await raw.next(); frame; frame = await raw.next()) {
        const opened = proof.seal.open(frame)
        if (opened?.length) return opened // else its answer to the handshake, said again
      }
    },
  }
}

/** One connection: { send(frame), next(): the next frame, ended, destroy() }. To its maker it is a link. */
class Raw {
  #frames = []
  #told = new EventEmitter()
  #isOver = false
  peerId = null
  connection

  constructor(socket) {
    this.socket = socket
    const listen = (name, listener) =>
      typeof socket.on === 'function'
        ? socket.on(name, listener)
        : socket.addEventListener(name, (event) => listener(event.data ?? event))
    const event = (name) => new Promise((resolve) => listen(name, resolve))
    this.ended = event('close')
    this.ended.then(() => {
      this.#isOver = true
      this.#told.emit('change')
    })
    this.opened = socket.readyState === 0 ? event('open') : Promise.resolve()
    listen('error', () => {})
    listen('message', (frame) => {
      this.#frames.push(Buffer.from(frame))
      this.#told.emit('change')
    })
  }

  send(frame) {
    if (!this.#isOver) this.socket.send(frame)
  }

  /** The next frame; undefined when it is over. */
  async next() {
    while (this.#frames.length === 0 && !this.#isOver) {
      await new Promise((resolve) => this.#told.once('change', resolve))
    }
    return this.#frames.shift()
  }

  /** Ends abruptly; resolves when all of it is gone on this side. */
  async destroy() {
    this.#terminate()
    await this.connection.close()
  }

  end() {
    this.#terminate()
    return this.ended
  }

  #terminate() {
    if (this.socket.terminate) this.socket.terminate()
    else this.socket.close()
  }
}

/**
 * Links `db` through `raw`, and ends that abruptly instead of passing on the frame number `n`, counted in
 * both directions. { isOver, stop() }.
 */
export function relay(db, raw, n) {
  const socket = new EventEmitter()
  const state = { isOver: false, stop: () => raw.destroy() }
  let count = 0
  const pass = (deliver) => {
    if (state.isOver) return
    if (count++ < n) return deliver()
    state.isOver = true
    raw.destroy()
  }
  Object.assign(socket, {
    isSealed: raw.socket.isSealed,
    peerId: raw.socket.peerId,
    send: (frame) => pass(() => raw.send(frame)),
    close: () => raw.destroy(),
  })
  db.addRemotePeer(LISTENER, socket)
  const carry = async () => {
    for (let frame = await raw.next(); frame; frame = await raw.next()) {
      const whole = frame
      pass(() => socket.emit('message', whole))
    }
    state.isOver = true // the other side may have ended it, too
    socket.emit('close')
  }
  carry()
  return state
}

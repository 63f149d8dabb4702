// A bus: whatever publishes bytes on subjects and hands them to those who have subscribed. Every peer
// listens on `<prefix>.all` and on `<prefix>.<its peerId>`.
//
//   a new peer    HERE on .all  ──>  everybody who does not know it: WELCOME on .<peerId>
//                 <── from then on there is a link on both sides, and FRAMEs carry what it sends
//
// A link is a socket-like object per remote peer. What the sockets are given in one turn is collected:
// a frame that several of them were given is published once, on .all. What is lost is repaired by the
// frames' own rules. bus-message.js has the format of a message, docs/protocol.md the reasons.

import { describe, ReplicError, usage } from '../base/errors.js'
import { callback, integer, milliseconds, readOptions, subject } from '../base/options.js'
import { linksOf } from '../links/registry.js'
import * as format from './bus-message.js'
import { Peer } from './bus-peer.js'
import { BusSender } from './bus-sender.js'
import { BusSocket } from './bus-socket.js'

const MiB = 1024 * 1024
const SLACK_BYTES = 2 * MiB // what a frame may be larger than maxFrameBytes, as in the core
const ANNOUNCE_HEARTBEATS = 3
const MAX_PEERS = 10_000 // remembered
const END_MS = 2_000 // how long close() waits for what is being published

const DEFAULTS = Object.freeze({
  publish: undefined, // required: (subject, bytes)
  subscribe: undefined, // required: (subject, onMessage(bytes)) => unsubscribe()
  name: 'bus', // what events and status() call it
  prefix: 'replic', // of the subjects; peers with another one do not meet
  maxMessageBytes: MiB, // frames that are larger are sent in parts
  retryMinMs: 100,
  retryMaxMs: 10_000,
})
const CHECKS = {
  publish: callback,
  subscribe: callback,
  name: subject,
  prefix: subject,
  maxMessageBytes: integer(4096, 1024 * MiB),
  retryMinMs: milliseconds(1),
  retryMaxMs: milliseconds(1),
}

/**
 * Joins a bus: links to every peer that joins it with the same prefix. Resolves once this peer is
 * subscribed, with { disconnected(error), connected(), status(), close() }.
 * Rejects with REPLIC_USAGE, REPLIC_CLOSED, or what subscribe() throws.
 */
export async function bus(db, options) {
  const links = linksOf(db)
  const read = readOptions('bus', options, DEFAULTS, CHECKS)
  for (const name of ['publish', 'subscribe']) {
    if (!read[name]) throw usage(`bus: ${name} is missing: a function is needed`)
  }
  const joined = new Bus(links, read)
  await joined.join()
  return {
    disconnected: (error) => joined.disconnected(error),
    connected: () => joined.connected(),
    status: () => joined.figures(),
    close: () => joined.close(),
  }
}

class Bus {
  #links
  #options
  #sender
  #peers = new Map() // peerId -> Peer
  #welcomed = new Map() // instance, in hex -> number of the last HERE that was answered; the last is the newest
  #sockets = new Set()
  #unsubscribe = []
  #counts = { received: 0, ignored: 0, refused: 0 }
  #stopped = false
  #closed = false
  #hasTold = false // of a message that was refused, since the last announcement
  #timer
  #error

  constructor(links, options) {
    this.#links = links
    this.#options = options
    this.#sender = new BusSender(links.peerId, links.keys[0], options, this.#sockets, (error) => {
      this.#error = error
    })
  }

  async join() {
    this.#links.addEndpoint(this)
    try {
      for (const whom of ['all', this.#links.peerId]) {
        const subject = this.#sender.subject(whom)
        const unsubscribe = await this.#options.subscribe(subject, (bytes) => this.#message(bytes))
        if (this.#closed) await unsubscribe?.()
        else this.#unsubscribe.push(unsubscribe)
      }
    } catch (error) {
      await this.close()
      throw error
    }
    if (this.#stopped) throw new ReplicError('REPLIC_CLOSED', 'the replica is closed')
    const { heartbeatMs } = this.#links.options
    this.#timer = setInterval(() => this.#announce(), ANNOUNCE_HEARTBEATS * heartbeatMs).unref()
    this.#announce()
  }

  #announce() {
    this.#hasTold = false
    this.#sender.post(format.HERE, [])
  }

  /** A socket was given a frame. */
  collect(socket, frame) {
    this.#sender.collect(socket, frame)
  }

  // ---- receiving ----

  #message(bytes) {
    if (this.#stopped || !this.#sender.isUp) return
    const message = bytes instanceof Uint8Array ? format.readMessage(bytes) : null
    if (!message) this.#counts.ignored++
    else if (this.#isForMe(message)) this.#open(message)
  }

  #isForMe({ kind, to, peerId, instance }) {
    const me = this.#links.peerId
    if (!Array.isArray(to)) return to.peerId === me && to.instance.equals(this.#sender.instance)
    const isMine = peerId === me && instance.equals(this.#sender.instance)
    const isToAll = kind === format.HERE || kind === format.FRAME || kind === format.PART
    return !isMine && isToAll && (to.length === 0 || to.includes(me))
  }

  #open(message) {
    const { peerId, isSealed, to } = message
    if (isSealed) message.body = this.#unsealed(message)
    const reason = this.#whyRefused(message)
    if (reason) return this.#refuse(new ReplicError('REPLIC_AUTH', `peer ${peerId} ${reason}`))
    this.#counts.received++
    if (Array.isArray(to)) this.#fromAfar(message)
    else if (peerId === this.#links.peerId) this.#refuse(isTwice(peerId))
    else if (peerId > 0) this.#fromSomebodyAlive(message)
  }

  #whyRefused({ isSealed, body }) {
    const isSecret = this.#links.keys.length > 0
    if (isSealed && !isSecret) return 'has a secret and this one has none: set it here too'
    if (isSecret && !isSealed) return 'has not been given a secret: set the same one everywhere'
    if (body) return undefined
    return 'has another secret: set the same one everywhere, or another prefix'
  }

  #unsealed(message) {
    const sender = { ...message, prefix: this.#options.prefix }
    const known = this.#peers.get(message.peerId)
    for (const secret of this.#links.keys) {
      const key = known?.keyOf(sender, secret) ?? format.senderKey(secret, sender)
      const body = format.unsealed(message, key)
      if (body) return body
    }
    return undefined
  }

  // Anyone can publish such messages, and many: one event per announcement tells of them.
  #refuse(error) {
    this.#counts.refused++
    if (this.#hasTold) return
    this.#hasTold = true
    this.#error = error
    this.#links.turnedAway(
      { transport: this.#options.name, address: this.#sender.subject('all') },
      error,
    )
  }

  // It may be a recording; only from an instance that has answered, and by number, it is known not to be.
  #fromAfar({ kind, peerId, instance, number, body }) {
    const peer = this.#peers.get(peerId)
    const isKnown = peer?.isCurrent(instance) && peer.socket
    if (!isKnown) {
      if (kind === format.HERE && !peer?.isQuiet(instance) && this.#isNews(instance, number)) {
        this.#sender.post(format.WELCOME, { peerId, instance: Buffer.from(instance) })
      }
    } else if (peer.pass(instance, number)) peer.socket.take(kind, body)
  }

  // A recording of a HERE is not answered again, as all on the bus would answer it.
  #isNews(instance, number) {
    const key = instance.toString('hex')
    if (number <= (this.#welcomed.get(key) ?? 0)) return false
    this.#welcomed.delete(key)
    this.#welcomed.set(key, number)
    if (this.#welcomed.size > MAX_PEERS) this.#welcomed.delete(this.#welcomed.keys().next().value)
    return true
  }

  // The message has this instance in it.
  #fromSomebodyAlive({ kind, peerId, instance, number, body }) {
    const peer = this.#peerOf(peerId)
    if (!peer.pass(instance, number)) return
    if (!peer.isCurrent(instance)) {
      if (kind === format.BYE) return
      peer.socket?.lost() // it has started anew
      peer.startsAnew(instance)
    }
    if (kind === format.BYE) return peer.socket?.lost()
    if (!peer.socket && !peer.isQuiet(instance)) this.#link(peer)
    peer.socket?.take(kind, body)
  }

  #peerOf(peerId) {
    const known = this.#peers.get(peerId)
    if (known) return known
    if (this.#peers.size >= MAX_PEERS) {
      for (const [id, { socket }] of this.#peers) {
        if (!socket && this.#peers.delete(id)) break
      }
    }
    const peer = new Peer(peerId)
    this.#peers.set(peerId, peer)
    return peer
  }

  // ---- links ----

  #link(peer) {
    const { name: transport } = this.#options
    const { maxFrameBytes, windowBytes } = this.#links.options
    const socket = new BusSocket(this, peer, {
      isSealed: this.#links.keys.length > 0,
      maxFrameBytes: maxFrameBytes + SLACK_BYTES,
      maxHeldBytes: windowBytes + maxFrameBytes + SLACK_BYTES,
    })
    peer.socket = socket
    this.#sockets.add(socket)
    try {
      this.#links.add(socket, {
        peerId: peer.peerId,
        transport,
        address: this.#sender.subject(peer.peerId),
        isAccepted: true,
        onDown: (link) => this.#down(peer, socket, link),
      })
    } catch (error) {
      this.remove(socket) // no room, which status() counts; the next announcement tries again
      this.#error = error
    }
  }

  /** A socket has ended. `isOurs`: the other side is still there, and is told. */
  remove(socket, isOurs) {
    if (!this.#sockets.has(socket)) return
    if (isOurs) {
      this.#sender.flush()
      this.#sender.post(format.BYE, socket.remote)
    }
    this.#sockets.delete(socket)
    if (socket.peer.socket === socket) socket.peer.socket = undefined
  }

  #down(peer, socket, { error, upMs }) {
    if (this.#stopped || !this.#sender.isUp) return
    if (!error && socket.isEndedHere) peer.isLeft = true // by the application: closeRemotePeer()
    if (error) peer.failed(upMs, this.#options)
  }

  /** The medium cannot be reached: all links end now, and nothing is published until connected(). */
  disconnected(error) {
    if (!this.#sender.isUp || this.#closed) return
    this.#sender.isUp = false
    this.#error = error ?? lost(this.#options.name)
    for (const socket of [...this.#sockets]) socket.lost(this.#error)
  }

  /** It can be reached again: whoever is there is linked to. */
  connected() {
    if (this.#sender.isUp || this.#closed) return
    this.#sender.isUp = true
    this.#announce()
  }

  // ---- as an endpoint of Links ----

  keysChanged() {
    this.#sender.setSecret(this.#links.keys[0])
    for (const peer of this.#peers.values()) peer.forgetKeys()
  }

  /** Links to nobody any more. */
  stop() {
    this.#stopped = true
    clearInterval(this.#timer)
  }

  /** Ends all links, unsubscribes; resolves when that is done and everything is published. */
  async close() {
    this.stop()
    if (this.#closed) return
    this.#closed = true
    this.#links.removeEndpoint(this)
    for (const socket of [...this.#sockets]) socket.end()
    const left = this.#unsubscribe.splice(0).map(async (unsubscribe) => unsubscribe?.())
    let timer
    const deadline = new Promise((resolve) => {
      timer = setTimeout(resolve, END_MS).unref()
    })
    await Promise.race([Promise.allSettled([...left, this.#sender.settled()]), deadline])
    clearTimeout(timer)
  }

  /** What db.status() shows where there is no link. */
  status() {
    if (this.#sockets.size > 0) return []
    const { name: transport } = this.#options
    const lastError = describe(this.#error)
    const address = this.#sender.subject('all')
    return [{ peerId: null, link: null, transport, address, state: 'waiting', lastError }]
  }

  figures() {
    const { sent, sentBytes } = this.#sender
    return {
      isConnected: this.#sender.isUp && !this.#closed,
      links: this.#sockets.size,
      sent,
      sentBytes,
      ...this.#counts,
    }
  }
}

const isTwice = (peerId) =>
  new ReplicError(
    'REPLIC_PEER',
    `another peer on the bus has this one's own peerId ${peerId}: every peer needs its own`,
  )

const lost = (name) =>
  Object.assign(new Error(`${name}: the connection is lost`), { code: 'ENOTCONN' })

// An endpoint: one UDP socket and its sessions. It hands each datagram to the session that it names,
// accepts sessions where it may, and counts what it ignores.

import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { explained } from '../../base/errors.js'
import { PROOF_MS } from '../../links/guests.js'
import * as datagram from './datagram.js'
import { ANNOUNCE, CONNECT, ID_BYTES, INIT, NONCE_BYTES } from './datagram.js'
import {
  Cookies,
  HAS_NO_SECRET,
  Initiator,
  NEEDS_SECRET,
  NO_ROOM,
  OTHER_SECRET,
  objection,
} from './handshake.js'
import { Session } from './session.js'

const SLACK_BYTES = 2 * 1024 * 1024 // what a frame may be larger than maxFrameBytes, as in the core
const BUFFER_BYTES = 4 * 1024 * 1024 // of the system, for datagrams; it may grant less

export const join = ({ address, port }) =>
  isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`

/** A UDP socket for an address of that family. */
export function socketFor(address, options) {
  // A lookup of its own, as there are no names to be looked up: so datagrams leave at once.
  const lookup = (host, _, done) => done(null, host)
  return createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4', lookup, ...options })
}

/** Binds a socket. Rejects with the system's error. */
export function bindSocket(socket, port, address) {
  return new Promise((resolve, reject) => {
    const failed = (error) => reject(explained(error))
    socket.once('error', failed)
    socket.bind({ port, address }, () => {
      socket.off('error', failed)
      resolve()
    })
  })
}

export class Endpoint {
  #links
  #socket
  #address
  #accepts
  #isLasting // it goes on without sessions
  #cookies = new Cookies()
  #sessions = new Map() // id -> Session
  #accepted = new Map() // dialer's address and id -> { session, answer }
  #pending = new Map() // of those, the ones that have not been heard of again: session -> how to say that it has
  #ours = new Set() // links that close() ends
  #sending = 0
  #idle
  #closed = false
  #group
  mtu
  maxFrameBytes
  counters = {
    received: 0,
    sent: 0,
    malformed: 0, // too short, too long, not of this protocol
    unknown: 0, // of no session that there is
    forged: 0, // a wrong tag, or from elsewhere
    replayed: 0, // came again, or much too late
    noRoom: 0, // segments for which there was no room: they come again
    badCookies: 0,
    refused: 0, // handshakes
    evicted: 0, // sessions that were pending for too long, or until others took their place
    moved: 0, // times that the other side's address has changed
    unsent: 0, // the system has refused to send them
  }

  /** `accepts`: others may dial it; if not, it closes with its only session. */
  constructor(links, { mtu, accepts }) {
    this.#links = links
    this.#accepts = this.#isLasting = accepts
    this.mtu = mtu
    this.maxFrameBytes = links.options.maxFrameBytes + SLACK_BYTES
  }

  async open(port, address) {
    const socket = socketFor(address)
    await bindSocket(socket, port, address)
    if (this.#closed) return socket.close()
    this.#socket = socket
    this.#address = socket.address() // kept: a closed socket has none
    for (const set of ['setRecvBufferSize', 'setSendBufferSize']) {
      try {
        socket[set](BUFFER_BYTES)
      } catch {
        // then it has what the system gives
      }
    }
    socket.on('message', (bytes, sender) => this.#message(bytes, sender))
    socket.on('error', () => this.counters.unsent++)
  }

  /** Joins a multicast group, until close(). */
  async join(group) {
    this.#group = group
    await group.open()
  }

  get socket() {
    return this.#socket
  }

  address() {
    return this.#address
  }

  /** A session that may dial. */
  create(remote, onHeard) {
    const session = new Session(this, randomBytes(ID_BYTES), remote, onHeard)
    this.#sessions.set(datagram.keyOf(session.id), session)
    return session
  }

  dial(session, remote, maxInits) {
    const { peerId, keys } = this.#links
    const transmit = (parts, to) => this.transmit(parts, to)
    const settings = { secret: keys[0], peerId, transmit, counters: this.counters, maxInits }
    session.dial(remote, new Initiator(session, settings))
  }

  /** Links a session, and ends it with close(). Throws REPLIC_BUSY and REPLIC_CLOSED. */
  link(session, info) {
    const link = this.#links.add(session, {
      transport: 'udp',
      address: join(session.remote),
      host: session.remote.address,
      ...info,
      onDown: () => this.#ours.delete(link),
    })
    this.#ours.add(link)
  }

  /** The sessions with that peer, and those that dial it, the oldest first. */
  with(peerId) {
    return [...this.#sessions.values()].filter((session) => session.peerId === peerId)
  }

  transmit(parts, { address, port }) {
    if (this.#closed || !this.#socket) return
    this.counters.sent++
    this.#sending++
    try {
      this.#socket.send(parts, port, address, this.#sent)
    } catch (error) {
      this.#sent(error)
    }
  }

  // What the system does not take is lost, as on the way.
  #sent = (error) => {
    if (error) this.counters.unsent++
    if (--this.#sending === 0) this.#idle?.()
  }

  #message(bytes, sender) {
    this.counters.received++
    const type = datagram.typeOf(bytes)
    if (type === undefined) return void this.counters.malformed++
    if (type === INIT || type === CONNECT) {
      if (!this.#accepts || this.#links.stopped) return void this.counters.unknown++
      return type === INIT ? this.#init(bytes, sender) : this.#connect(bytes, sender)
    }
    if (type === ANNOUNCE && this.#group) return this.#group.heard(bytes, sender)
    const session = this.#sessions.get(datagram.idOf(bytes))
    if (!session) return void this.counters.unknown++
    session.take(type, bytes, sender)
  }

  #init(bytes, sender) {
    if (!datagram.isInit(bytes)) return void this.counters.malformed++
    const id = datagram.readId(bytes)
    this.transmit([datagram.cookie(id, this.#cookies.make(id, sender))], sender)
  }

  #connect(bytes, sender) {
    const asked = datagram.readConnect(bytes)
    if (!asked) return void this.counters.malformed++
    if (!this.#cookies.isValid(asked.cookie, asked.id, sender))
      return void this.counters.badCookies++
    const name = `${join(sender)} ${datagram.keyOf(asked.id)}`
    const known = this.#accepted.get(name)
    if (known) return this.transmit([known.answer], sender) // the first answer was lost
    const reason = this.#objection(asked)
    if (reason === undefined) return this.#accept(name, asked, sender)
    this.counters.refused++
    this.transmit([datagram.refuse(asked.id, reason)], sender)
    const error = objection(reason) // its cookie has shown that it is where it says
    this.#links.turnedAway({ transport: 'udp', address: join(sender) }, error)
  }

  #objection(asked) {
    const { keys } = this.#links
    const isSecret = keys.length > 0
    if (!isSecret && asked.proof.length > 0) return HAS_NO_SECRET
    if (isSecret && asked.proof.length === 0) return NEEDS_SECRET
    if (isSecret && !this.#secretOf(asked)) return OTHER_SECRET
    return this.#links.roomError(true) ? NO_ROOM : undefined
  }

  /** Which of the secrets the dialer knows. */
  #secretOf(asked) {
    return this.#links.keys.find((key) => datagram.isProven(asked, key))
  }

  #accept(name, dialer, { address, port }) {
    const session = this.create({ address, port }, () => this.#heard(session))
    const { peerId } = this.#links
    const self = { id: session.id, peerId, nonce: randomBytes(NONCE_BYTES) }
    const seal = datagram.sealOf(this.#secretOf(dialer), dialer, self, false)
    const answer = datagram.accept({ ...self, id: dialer.id, ownId: session.id }, seal)
    session.name = name
    this.#accepted.set(name, { session, answer })
    const leave = () => {
      this.counters.evicted++
      this.remove(session)
    }
    const known = this.#links.admit(address, leave)
    const timer = setTimeout(leave, PROOF_MS).unref()
    this.#pending.set(session, () => {
      clearTimeout(timer)
      known()
    })
    session.open({ remoteId: dialer.id, peerId: dialer.peerId, seal })
    this.transmit([answer], session.remote)
  }

  #isPendingNoMore(session) {
    this.#pending.get(session)?.()
    this.#pending.delete(session)
  }

  // The dialer has the answer, or it could not have sent this.
  #heard(session) {
    this.#isPendingNoMore(session)
    try {
      const { peerId } = session
      this.link(session, { peerId, isAccepted: true })
    } catch {
      session.terminate() // no room, which status() counts
    }
  }

  /** A session is gone. */
  remove(session) {
    this.#sessions.delete(datagram.keyOf(session.id))
    this.#isPendingNoMore(session)
    if (this.#accepted.get(session.name)?.session === session) this.#accepted.delete(session.name)
    if (!this.#isLasting) this.#closeSocket()
  }

  /** Accepts no more. */
  stop() {
    this.#accepts = false
    this.#group?.stop()
  }

  /** Accepts no more and ends its sessions; resolves when all is gone. */
  async close() {
    this.#links.removeEndpoint(this)
    await this.#group?.close()
    await Promise.all([...this.#ours].map((link) => link.end()))
    await this.#closeSocket()
  }

  async #closeSocket() {
    if (this.#closed) return
    this.#closed = true
    if (!this.#socket) return
    if (this.#sending > 0) {
      await new Promise((resolve) => {
        this.#idle = resolve
      })
    }
    await new Promise((resolve) => this.#socket.close(resolve))
  }

  /** For the application. */
  report() {
    return {
      sessions: [...this.#sessions.values()].map((session) => session.status()),
      pending: this.#pending.size,
      counters: { ...this.counters },
    }
  }
}

// A multicast group in which peers find each other. Each announces itself at intervals, from the
// address at which it can be dialed. Of two that are not linked the one with the lower peerId dials;
// where the other one hears first, it answers with an announcement of its own, to that address only.
//
// Who hears an announcement sends at most as much as that was long before the other side has shown
// that the address is its own: an announcement (96 bytes), or three INITs (32 bytes each).

import { performance } from 'node:perf_hooks'
import { ReplicError } from '../../base/errors.js'
import * as datagram from './datagram.js'
import { ANNOUNCE } from './datagram.js'
import { bindSocket, join, socketFor } from './endpoint.js'

const MAX_INITS = 3
const MAX_DIALS = 8 // at once, to one peer
const OPEN = 1

export class Group {
  #links
  #endpoint
  #settings
  #socket
  #timer

  /** `settings`: { group, port, interface, ttl, announceMs }. */
  constructor(links, endpoint, settings) {
    this.#links = links
    this.#endpoint = endpoint
    this.#settings = settings
  }

  /** Joins. Rejects with the system's error. */
  async open() {
    const { group, port, interface: nic, ttl, announceMs } = this.#settings
    this.#socket = socketFor(group, { reuseAddr: true })
    this.#socket.on('error', () => this.#endpoint.counters.unsent++)
    await bindSocket(this.#socket, port, undefined)
    this.#socket.addMembership(group, nic)
    const { socket } = this.#endpoint
    socket.setMulticastTTL(ttl)
    socket.setMulticastLoopback(true) // for others on this machine
    if (nic) socket.setMulticastInterface(nic)
    this.#socket.on('message', (bytes, sender) => this.#message(bytes, sender))
    this.#announce()
    this.#timer = setInterval(() => this.#announce(), announceMs).unref()
  }

  #announce() {
    const { group, port } = this.#settings
    this.#tell(true, { address: group, port })
  }

  #tell(asks, to) {
    this.#endpoint.transmit([datagram.announce(this.#links.peerId, asks, this.#links.keys[0])], to)
  }

  #message(bytes, sender) {
    this.#endpoint.counters.received++
    if (datagram.typeOf(bytes) === ANNOUNCE) this.heard(bytes, sender)
    else this.#endpoint.counters.malformed++
  }

  /** An announcement has come, over the group or as an answer. */
  heard(bytes, sender) {
    const { counters } = this.#endpoint
    const said = datagram.readAnnounce(bytes, this.#links.keys)
    if (!said) {
      counters[said === null ? 'forged' : 'malformed']++
      return
    }
    const { peerId, asks } = said
    const links = this.#links
    if (peerId === links.peerId || links.stopped) return
    const sessions = this.#endpoint.with(peerId)
    const open = sessions.filter(({ readyState }) => readyState === OPEN)
    if (open.length > 1 || (open.length === 1 && (asks || !this.#isSilent(open[0])))) return
    const remote = { address: sender.address, port: sender.port }
    if (peerId < links.peerId) {
      if (asks) this.#tell(false, remote)
      return
    }
    this.#dial(peerId, remote, sessions)
  }

  // Only who has no session with this peer answers its announcement. Its former process was killed, then, and the
  // session with that is silent.
  #isSilent({ heardAt }) {
    return performance.now() - heardAt > 2 * this.#links.options.heartbeatMs
  }

  // Whoever has recorded an announcement can send it from elsewhere. That must not keep the peer itself from being
  // dialed: each address is, and beyond MAX_DIALS the oldest one gives way.
  #dial(peerId, remote, dials) {
    const isSame = ({ address, port }) => address === remote.address && port === remote.port
    if (dials.some((session) => isSame(session.remote))) return
    if (dials.length >= MAX_DIALS) dials[0].fail(overtaken(peerId))
    if (this.#links.roomError(false)) return // another announcement will come
    const session = this.#endpoint.create(remote)
    session.peerId = peerId
    this.#endpoint.link(session, { peerId, address: join(remote) })
    this.#endpoint.dial(session, remote, MAX_INITS)
  }

  /** Announces nothing more. */
  stop() {
    clearInterval(this.#timer)
  }

  /** And hears nothing. */
  close() {
    this.stop()
    const socket = this.#socket
    this.#socket = undefined
    return socket ? new Promise((resolve) => socket.close(resolve)) : undefined
  }
}

const overtaken = (peerId) =>
  new ReplicError(
    'REPLIC_BUSY',
    `peer ${peerId} has been announced from ${MAX_DIALS} further addresses, and this one has not answered`,
  )

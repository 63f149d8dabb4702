// Links: what all transports share. A transport brings a socket-like object (socket.js), one message being one
// frame; everything else is here and in link.js: numbering, opening, backpressure, orderly ends, dialing again.
//
//   socket --message--> Link --receive(id, bytes)--> core --outbox--> Links.deliver --send--> sockets

import { printable, ReplicError, said } from '../base/errors.js'
import { Dialer } from './dialer.js'
import { Flush } from './flush.js'
import { Guests, gaveWay } from './guests.js'
import { Link } from './link.js'
import { Refused } from './refused.js'

const PAUSE_ABOVE = 16 * 1024 * 1024 // bytes waiting for the core: more than that, and sockets are paused
const MESSAGE = 10
const SIGN_OF_LIFE = new Uint8Array(0) // for the core: a part of a frame has come in

/** All links of one replica. */
export class Links {
  #native
  #emit
  #soon
  #options
  #links = new Map() // id -> Link
  #lastId = 0
  #endpoints = new Set() // what opens links by itself: dialers and listeners; each has close()
  #leaving = new Set() // links whose connection is gone, until the core has let go of them
  #paused = new Set()
  #pauseAbove
  #heartbeat
  #closing = false
  #stopped = false
  cannotStore = null // why nothing that comes in can be stored at present
  heardSince = Infinity // whoever is linked and may write has had the time to tell what it has: performance.now()
  #flush
  #refused // events of those whom nobody knows
  guests // those who are not known yet
  refusals = 0 // connections for which there was no room

  /**
   * `emit(name, event)` tells the application; `soon()` after frames were handed to `native`; `total()` is the sum of
   * all sequences that are applied here; `options` are those of Replica.open().
   */
  constructor(native, { emit, soon, total }, options, { peerId, keys }) {
    this.peerId = peerId
    this.keys = keys
    this.#native = native
    this.#emit = emit
    this.#refused = new Refused((event) => emit('link', event))
    this.#soon = soon
    this.#options = options
    this.#pauseAbove = Math.min(PAUSE_ABOVE, options.maxQueueBytes / 2)
    // without links, too: the core looks whether the file is there still
    this.#heartbeat = setInterval(() => this.#beat(), options.heartbeatMs).unref()
    this.#flush = new Flush({
      links: () => this.#links.values(),
      endpoints: () => this.#endpoints,
      refusing: () => this.refusing(),
      total,
    })
    this.guests = new Guests(options.maxPendingLinks)
  }

  get options() {
    return this.#options
  }

  get stopped() {
    return this.#stopped
  }

  get closing() {
    return this.#closing
  }

  /**
   * A new connection. `info`: { peerId (who must answer, or null), transport, address, host (of the address, as
   * Guests.admit() takes it), isAccepted (the other side has dialed), isDialed (by a Dialer), details (for authorize()),
   * refusal (the error that the other side is told, and nothing else), onDown(link) }. Throws REPLIC_CLOSED after
   * stop(), and REPLIC_BUSY where there are too many.
   */
  add(socket, info) {
    this.#check()
    const full = this.roomError(info.isAccepted)
    if (full) throw full
    const id = ++this.#lastId
    const link = new Link(this, id, socket, info)
    this.#links.set(id, link)
    link.start()
    return link
  }

  #beat() {
    for (const link of this.#links.values()) {
      if (link.traffic.isCarrying) this.carried(link)
      if (link.beat()) this.#native.receive(link.id, SIGN_OF_LIFE)
      if (link.traffic.beginMessages() && !this.#paused.has(link)) link.call('resume')
    }
    this.#native.tick()
  }

  /** Why there is no room for one more link; undefined where there is. Guests take none. */
  roomError(isAccepted) {
    const { maxLinks } = this.#options
    let known = 0
    for (const link of this.#links.values()) known += link.isKnown ? 1 : 0
    if (known < maxLinks) return undefined
    if (isAccepted) this.refusals++
    const message = `there are ${maxLinks} links already: maxLinks permits no more`
    return new ReplicError('REPLIC_BUSY', message)
  }

  /**
   * Somebody has connected who is not known yet; see Guests.admit(). `leave(error)` is called when he has to give way.
   */
  admit(host, leave) {
    return this.guests.admit(host, () => {
      this.refusals++
      leave(gaveWay(this.#options.maxPendingLinks))
    })
  }

  /** Other secrets, as keys: links that were made without one of them end. */
  setKeys(keys) {
    this.keys = keys
    for (const endpoint of this.#endpoints) endpoint.keysChanged?.()
    for (const link of this.#links.values()) link.keysChanged()
  }

  /** Keeps a connection up: dials at once and again whenever it ends. See Dialer. */
  dial(connect, info, options) {
    this.#check()
    const dialer = new Dialer(this, connect, info, options)
    dialer.begin()
    this.#endpoints.add(dialer)
    return dialer
  }

  /** Something that close() must close too. */
  addEndpoint(endpoint) {
    this.#check()
    this.#endpoints.add(endpoint)
  }

  removeEndpoint(endpoint) {
    this.#endpoints.delete(endpoint)
    this.#flush.check()
  }

  #check() {
    if (this.#stopped) throw new ReplicError('REPLIC_CLOSED', 'the replica is closed')
  }

  /** Frames that a batch left: flat [id, frame, id, frame, ...]. */
  deliver(sends) {
    const touched = new Set()
    for (let i = 0; i < sends.length; i += 2) {
      const link = this.#links.get(sends[i])
      if (!link) continue
      if (!touched.has(link)) link.call('cork')
      touched.add(link)
      link.send(sends[i + 1])
    }
    for (const link of touched) link.call('uncork')
  }

  /** Who is linked and ready. */
  peers() {
    return this.#peersOf((link) => link.isReady)
  }

  /** Those of them that may write here: what is lost here can come back from them. */
  writers() {
    return this.#peersOf((link) => link.isReady && !link.isReader)
  }

  /** Those of them that are sending a frame for longer than a heartbeat: what it brings, they have not told. */
  carrying() {
    return this.#peersOf((link) => link.isReady && !link.isReader && link.traffic.isCarrying)
  }

  /** A frame that took longer than a heartbeat is here, or a part of it. */
  carried(link) {
    if (!link.isReader) this.heardSince = performance.now()
  }

  #peersOf(accepts) {
    const links = [...this.#links.values()].filter(accepts)
    return [...new Set(links.map((link) => link.peerId))]
  }

  /** Sends bytes to a peer, if it is linked. They may be lost. */
  message(peerId, bytes) {
    if (this.#stopped) return
    for (const link of this.#links.values()) {
      if (link.peerId === peerId && link.isReady) return this.#native.linkMessage(link.id, bytes)
    }
  }

  /** An event of the core's that belongs to a link: ready, linkError, close, left, synced. */
  event(event) {
    const link = this.#links.get(event.link)
    if (!link) return
    if (event.kind === 'ready') {
      if (this.writers().length === 0) this.heardSince = performance.now()
      link.ready(event.peer)
    }
    if (event.kind === 'linkError') link.trouble(told(event))
    if (event.kind === 'close') link.end(told(event))
    if (event.kind === 'left') link.had = event.sum
    if (event.kind === 'synced') this.#emit('synced', { peerId: event.peer, link: event.link })
  }

  /** What the core knows of its links, after a heartbeat or a change. */
  snapshot(list) {
    const known = new Set()
    for (const figures of list) {
      known.add(figures.link)
      this.#links.get(figures.link)?.figures(figures)
    }
    for (const link of this.#leaving) if (!known.has(link.id)) this.#left(link)
    this.#flush.check()
  }

  /** Hands a frame to the core; pauses the sockets that bring more than it can take. */
  receive(link, bytes) {
    if (this.#stopped || (bytes[1] === MESSAGE && !link.takesMessage(bytes.length))) return
    const frameBytes = this.#native.receive(link.id, bytes)
    this.#soon()
    if (frameBytes > this.#pauseAbove) {
      this.#paused.add(link)
      link.call('pause')
    }
  }

  /** After every batch: `frameBytes` of received frames still wait. */
  drained(frameBytes) {
    if (this.#paused.size === 0 || frameBytes > this.#pauseAbove / 2) return
    for (const link of this.#paused) link.call('resume')
    this.#paused.clear()
  }

  opened(link) {
    if (!this.#stopped) this.#native.linkOpen(link.id, link.expected ?? 0, link.isReader)
  }

  changed(link, state, error) {
    const { peerId, id, transport, address } = link
    const event = linkEvent({ peerId, link: id, state, transport, address }, error)
    if (link.isKnown) this.#emit('link', event)
    else this.#refused.tell(event)
  }

  /** Somebody was refused before there was a link, where no connection ends with it: on a bus. */
  turnedAway({ transport, address }, error) {
    const event = { peerId: null, link: null, state: 'down', transport, address }
    this.#refused.tell(linkEvent(event, error))
  }

  /** Its connection is gone. What came in over it may still say why: the core has the last word. */
  gone(link, isInCore) {
    this.#paused.delete(link)
    if (this.#stopped || !isInCore) return this.#left(link)
    this.#leaving.add(link)
    this.#native.linkClose(link.id)
  }

  #left(link) {
    this.#leaving.delete(link)
    this.#links.delete(link.id)
    link.left()
    this.#flush.left(link)
    this.#flush.check()
  }

  /** Ends all links with a peer, and stops dialing it. Returns whether there were any. */
  closePeer(peerId) {
    let found = false
    for (const endpoint of this.#endpoints) {
      if (endpoint.peerId !== peerId) continue
      endpoint.close()
      found = true
    }
    for (const link of this.#links.values()) {
      if (link.peerId !== peerId) continue
      link.end()
      found = true
    }
    return found
  }

  status() {
    const waiting = [...this.#endpoints].flatMap((endpoint) => endpoint.status?.() ?? [])
    return [...this.#links.values()].map((link) => link.status()).concat(waiting)
  }

  /**
   * Resolves when each peer that is linked, being linked or dialed has acknowledged all that this one has. Who is
   * dialed may be gone, and come back; who has dialed and leaves in order is waited for no more, and who takes nothing
   * from this one is not waited for.
   */
  flush() {
    return this.#flush.run(this.#native.flush())
  }

  /** The peers over none of whose links anything is taken that this one sends, or was when they were up; in order. */
  refusing() {
    const links = [...this.#links.values()]
    const ends = [...links, ...this.#endpoints].filter(({ takesNothing }) => takesNothing)
    const taking = new Set(links.filter((link) => !link.takesNothing).map((link) => link.peerId))
    const refusing = ends.filter((end) => !taking.has(end.peerId)).map((end) => end.peerId)
    return [...new Set(refusing)].sort((a, b) => a - b)
  }

  /** The application may open no more links; those that there are go on. */
  refuse() {
    this.#closing = true
  }

  /** Takes nothing in any more; what the core still has to send goes out. */
  stop() {
    this.#stopped = true
    clearInterval(this.#heartbeat)
    this.#refused.flush()
    for (const endpoint of this.#endpoints) endpoint.stop()
    for (const link of this.#leaving) this.#left(link)
  }

  /** Ends everything, after stop(); resolves when all connections are gone. */
  async close() {
    const links = [...this.#links.values()].map((link) => link.end())
    const endpoints = [...this.#endpoints].map(async (endpoint) => endpoint.close())
    await Promise.allSettled([...links, ...endpoints])
  }

  /** Ends all connections at once. */
  terminate() {
    for (const link of this.#links.values()) link.terminate()
  }
}

// What another side has said.
const told = ({ code, text }) => new ReplicError(code, printable(text))

const linkEvent = (event, error) => ({
  ...event,
  code: error?.code ?? null,
  reason: error ? said(error) : null,
  count: 1,
})

// Links: what all transports share. A transport brings a socket-like object, one message being one
// frame; everything else is here: numbering, opening, backpressure, orderly ends, dialing again.
//
//   socket --message--> Link --receive(id, bytes)--> core --outbox--> Links.deliver --send--> sockets
//
// A socket has send(bytes), close(), and 'message', 'close' and 'error' events, by on() or by
// addEventListener(). It may have 'progress' events (a part of a frame has come in: over a slow line a
// whole one may take longer than linkTimeoutMs), readyState (0: not open yet, then an 'open' event follows), cork()
// and uncork() around the frames of one batch, pause() and resume(), terminate(), which closes without
// waiting, and closeFor(error), which tells the other side why. Where its transport itself proves the secret
// and encrypts with it, it has isSealed, and peerId. What it knows of the other side, for authorize(), is in
// details. Where it has checkKept, that is called with the bytes that it keeps of frames that are not whole,
// and throws where they are too many for one who is not known yet.
//
// Whatever a socket throws, rejects or tells is that link's affair, and at most its end. Bytes of a message are read
// until its listener returns; a socket may use them for its next one.

import { describe, printable, ReplicError, said, usage } from '../base/errors.js'
import { asError, guarded } from '../base/guard.js'
import { kindOf } from '../base/options.js'
import { introduction, isHello, isIntroduction, rightsOf, senderOf } from './authorization.js'
import { Dialer } from './dialer.js'
import { GUEST_BYTES, Guests, PROOF_MS } from './guests.js'
import { errorFrame, Handshake, isOfHandshake, readError } from './handshake.js'
import { Refused } from './refused.js'
import { isSealed } from './seal.js'

const MiB = 1024 * 1024
const PAUSE_ABOVE = 16 * MiB // bytes waiting for the core: more than that, and sockets are paused
const END_MS = 2_000 // how long an ended connection may take to close before it is terminated
const CONNECTING = 0
const MAX_HELLO_BYTES = 4 * MiB
const FRAME_COST = 200 // bytes, about, that a frame takes beside its own
const MESSAGE = 10
const MOST_MESSAGES = 8 * MiB // of a link, between two heartbeats
const MESSAGE_COST = 16 * 1024 // bytes for which it takes as long as for any one of them
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
  #total
  cannotStore = null // why nothing that comes in can be stored at present
  heardSince = Infinity // whoever is linked and may write has had the time to tell what it has: performance.now()
  #awaited = new Set() // peerIds that flush() waits for: their links broke, and they have dialed
  #isFlushing = false
  #flushed = () => {}
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
    this.#total = total
    this.#options = options
    this.#pauseAbove = Math.min(PAUSE_ABOVE, options.maxQueueBytes / 2)
    // without links, too: the core looks whether the file is there still
    this.#heartbeat = setInterval(() => this.#beat(), options.heartbeatMs).unref()
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
      if (link.isCarrying) this.carried(link)
      if (link.beat()) this.#native.receive(link.id, SIGN_OF_LIFE)
      if (link.beginMessages() && !this.#paused.has(link)) link.resume()
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
    this.#checkFlush()
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
      if (!touched.has(link)) link.cork()
      touched.add(link)
      link.send(sends[i + 1])
    }
    for (const link of touched) link.uncork()
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
    return this.#peersOf((link) => link.isReady && !link.isReader && link.isCarrying)
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
    this.#checkFlush()
  }

  /** Hands a frame to the core; pauses the sockets that bring more than it can take. */
  receive(link, bytes) {
    if (this.#stopped || (bytes[1] === MESSAGE && !link.takesMessage(bytes.length))) return
    const frameBytes = this.#native.receive(link.id, bytes)
    this.#soon()
    if (frameBytes > this.#pauseAbove) {
      this.#paused.add(link)
      link.pause()
    }
  }

  /** After every batch: `frameBytes` of received frames still wait. */
  drained(frameBytes) {
    if (this.#paused.size === 0 || frameBytes > this.#pauseAbove / 2) return
    for (const link of this.#paused) link.resume()
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
    this.#awaitAgain(link)
    this.#checkFlush()
  }

  // Who has dialed dials again where the connection broke; who has left in order does not.
  #awaitAgain({ peerId, isAccepted, upMs, error, had, takesNothing }) {
    if (!this.#isFlushing || !isAccepted || upMs === 0 || takesNothing) return
    if (error === undefined) this.#awaited.delete(peerId)
    else if (had < this.#total()) this.#awaited.add(peerId)
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
    this.#isFlushing = true
    return new Promise((resolve) => {
      // Not before the last write is in the figures of the links, which come with each batch from then on.
      const begin = () => {
        this.#flushed = resolve
        const acked = this.#settled()
        for (const endpoint of this.#endpoints) {
          if (!this.#hasAll(endpoint, acked)) endpoint.hurry()
        }
        this.#checkFlush()
      }
      this.#native.flush().then(begin, begin) // a commit that failed: its calls tell of it
    })
  }

  #checkFlush() {
    if (!this.#isFlushing) return
    const acked = this.#settled()
    for (const peerId of acked) this.#awaited.delete(peerId)
    if (this.#awaited.size > 0) return
    for (const link of this.#links.values()) {
      if (!link.isDialed && !acked.has(link.peerId)) return
    }
    for (const endpoint of this.#endpoints) if (!this.#hasAll(endpoint, acked)) return
    this.#flushed()
  }

  // Who has acknowledged everything, or will not.
  #settled() {
    const links = [...this.#links.values()].filter((link) => link.hasAcknowledged)
    return new Set([...links.map((link) => link.peerId), ...this.refusing()])
  }

  /** The peers over none of whose links anything is taken that this one sends, or was when they were up; in order. */
  refusing() {
    const links = [...this.#links.values()]
    const ends = [...links, ...this.#endpoints].filter(({ takesNothing }) => takesNothing)
    const taking = new Set(links.filter((link) => !link.takesNothing).map((link) => link.peerId))
    const refusing = ends.filter((end) => !taking.has(end.peerId)).map((end) => end.peerId)
    return [...new Set(refusing)].sort((a, b) => a - b)
  }

  // What only listens waits for nobody.
  #hasAll({ peerId, takesNothing, had = Infinity }, acked) {
    return takesNothing || had >= this.#total() || acked.has(peerId)
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

/** One connection. */
class Link {
  #links
  #socket
  #onDown
  #state = 'connecting' // then 'opening', 'ready' or 'standby', and at last 'closed'
  #figures = null // what the core told last
  #ending = false
  #error // why it ends, or what it last complained of
  #readyAt
  #timer
  #down
  #isDown
  #details
  #refusal
  #handshake
  #seal // of all that is sent and received after the handshake
  #isInCore = false
  #messageBytes = 0 // that came in since the last heartbeat, and what they cost
  #hasProgressed = false // since the last heartbeat a part of a frame has come in
  #isMidFrame = false // the rest of it has not
  isCarrying = false // nor had it at a heartbeat of this side's
  #isTrusted = false // nothing of what is kept for it is counted any more
  #isAsking = false // authorize()
  #isTerminating = false
  #isStarting = true // whoever makes the link does not have it yet: it ends only after that
  #hello // of whom authorize() is asked about; it waits for the answer
  #keptBytes = 0 // of this and of frames that are not whole, as the guests' account has them
  #host
  #isHeard = false
  #leaveGuests = () => {}
  isReader = false // authorize() lets the other side only read
  isKnown // it was dialed, or has proven itself; without a secret, its HELLO is accepted

  constructor(links, id, socket, info) {
    const { peerId = null, transport, address = null, onDown } = info
    const { isAccepted = false, isDialed = false } = info
    this.#links = links
    this.#socket = socket
    this.#onDown = onDown
    this.id = id
    this.expected = peerId
    this.peerId = peerId
    this.transport = transport
    this.address = address
    this.isAccepted = isAccepted
    this.isDialed = isDialed
    this.had = -1 // when it went down, the other side had everything up to this sum of sequences; -1: it had not
    this.isKnown = !isAccepted
    this.#host = info.host ?? address
    this.#details = info.details
    this.#refusal = info.refusal
    this.#isDown = new Promise((resolve) => {
      this.#down = resolve
    })
  }

  /** Listens to the socket, and opens the link as soon as that is open. */
  start() {
    const { linkTimeoutMs } = this.#links.options
    this.#wait(this.isAccepted ? Math.min(PROOF_MS, linkTimeoutMs) : linkTimeoutMs)
    if (this.isAccepted) {
      this.#leaveGuests = this.#links.admit(this.#host, (error) => this.#giveWay(error))
    }
    const broke = (error) => this.#broke(error)
    const hear = (name, listener) => listen(this.#socket, name, listener, broke)
    guarded(() => {
      if ('checkKept' in this.#socket) this.#socket.checkKept = (bytes) => this.#checkKept(bytes)
      hear('message', (data) => this.#message(data))
      hear('progress', () => {
        this.#hasProgressed = this.#isMidFrame = true
        this.#heard()
      })
      hear('error', (error) => this.#failed(error))
      hear('close', () => this.#closed())
      if (this.#socket.readyState === CONNECTING) hear('open', () => this.#opened())
      else this.#opened()
    }, broke)
    this.#isStarting = false
  }

  // Calls a method of the socket, if it has it; whether that was possible. (Asks for it each time: it may come later.)
  #call(name, ...args) {
    const call = () => this.#socket[name]?.(...args)
    return guarded(call, (error) => this.#broke(error))
  }

  // The socket does not do what it was made for.
  #broke(error) {
    if (this.#isStarting) return queueMicrotask(() => this.#broke(error))
    if (this.#state === 'closed') return
    this.#failed(error)
    this.terminate()
  }

  // For the other side's HELLO, or for what comes before it.
  #wait(ms) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      if (this.#isAsking && !this.#isInCore) return this.#refuse(noAnswer(ms))
      const what = this.#needsProof && !this.isKnown ? 'proof of the secret' : 'HELLO'
      this.#error ??= new ReplicError('REPLIC_TIMEOUT', `no ${what} within ${ms} ms`)
      this.terminate()
    }, ms).unref()
  }

  get #needsProof() {
    return this.#links.keys.length > 0 && !this.#look('isSealed')
  }

  // A property of the socket; undefined where it cannot be read.
  #look(name) {
    let value
    const read = () => {
      value = this.#socket[name]
    }
    guarded(read, () => {})
    return value
  }

  #giveWay(error) {
    this.#error ??= error
    this.terminate()
  }

  // Something has come in. Where there is a secret, that alone gives nobody more time.
  #heard() {
    if (this.#isHeard) return
    this.#isHeard = true
    if (this.isAccepted && !this.isReady && !this.#needsProof && !this.#ending) {
      this.#wait(this.#links.options.linkTimeoutMs)
    }
  }

  // Who the other side is, is known: it is no guest any more. Returns whether there is room for it.
  #becomesKnown() {
    const full = this.isKnown ? undefined : this.#links.roomError(this.isAccepted)
    this.isKnown = true
    this.#leave()
    if (full) this.#refuse(full)
    return !full
  }

  // What was kept for it is not counted any more.
  #leave() {
    this.#leaveGuests()
    this.#isTrusted = true
    this.#account(0)
    const forget = () => {
      if ('checkKept' in this.#socket) this.#socket.checkKept = null
    }
    guarded(forget, (error) => this.#broke(error))
  }

  // Throws if bytes of frames that are not whole are more than may be kept for one who is not known.
  #checkKept(bytes) {
    if (this.#account(bytes + this.#helloBytes)) return
    const message = `more than ${GUEST_BYTES} bytes of frames before it is known who sends them`
    throw new ReplicError(this.#needsProof ? 'REPLIC_TOO_LARGE' : 'REPLIC_BUSY', message)
  }

  get #helloBytes() {
    return this.#hello ? this.#hello.length + FRAME_COST : 0
  }

  #account(bytes) {
    if (this.#needsProof && !this.#isTrusted) return bytes <= GUEST_BYTES
    const kept = this.#isTrusted ? 0 : Math.max(0, bytes - GUEST_BYTES)
    if (!this.#links.guests.keep(this.#keptBytes, kept)) return false
    this.#keptBytes = kept
    return true
  }

  #opened() {
    if (this.#ending || this.#state !== 'connecting') return
    this.#state = 'opening'
    if (this.#refusal) return this.#refuse(this.#refusal)
    const { keys, options, peerId } = this.#links
    if (this.#look('isSealed')) return this.#proven(this.#look('peerId'))
    if (keys.length === 0) return options.authorize ? this.#introduce() : this.#enter()
    this.#handshake = new Handshake({
      keys,
      peerId,
      isInitiator: !this.isAccepted,
      wantsSeal: options.encryption,
      send: (bytes) => this.#put(bytes),
    })
    this.#handshake.begin()
  }

  // Where both sides ask authorize() first, one has to say who it is; and on a bus one that lacks the other's greeting
  // has to hear of it again.
  #introduce() {
    this.#put(introduction(this.#links.peerId))
  }

  // The core hears of the link, and says HELLO.
  #enter() {
    this.#isInCore = true
    this.#links.opened(this)
    if (this.#hello) this.#links.receive(this, this.#hello)
    this.#hello = undefined
  }

  /** There are other secrets now. */
  keysChanged() {
    if (this.#state === 'connecting' || this.#look('isSealed')) return
    const key = this.#handshake?.key
    if (key && this.#links.keys.some((each) => each.equals(key))) return
    this.#refuse(
      new ReplicError('REPLIC_AUTH', 'the secret of this link is no longer accepted here'),
    )
  }

  /** A heartbeat of this side's. Returns whether only a part of a frame has come in since the last one. */
  beat() {
    if (this.#state === 'opening' && !this.#ending) this.#beginAgain()
    const hasProgressed = this.#hasProgressed && this.isReady
    this.#hasProgressed = false
    this.isCarrying ||= this.#isMidFrame
    return hasProgressed
  }

  /** Whether a MESSAGE is taken. Else it is lost, as any may be, and nothing is read before the next heartbeat. */
  takesMessage(length) {
    this.#messageBytes += length + MESSAGE_COST
    if (this.#messageBytes <= MOST_MESSAGES) return true
    this.pause()
    return false
  }

  /** From here on MESSAGEs are counted again. Returns whether there were too many. */
  beginMessages() {
    const isPaused = this.#messageBytes > MOST_MESSAGES
    this.#messageBytes = 0
    return isPaused
  }

  #beginAgain() {
    if (this.#handshake) this.#handshake.begin()
    else if (!this.#isInCore && !this.#look('isSealed')) this.#introduce()
  }

  #message(data) {
    if (this.#ending || this.#state === 'connecting' || this.#state === 'closed') return
    const bytes = asBytes(data)
    if (!bytes?.length) {
      const what = bytes ? 'nothing' : kindOf(data)
      return this.end(new ReplicError('REPLIC_PROTOCOL', `frames are bytes, not ${what}`))
    }
    this.#heard()
    this.#wasWhole()
    const isShaking = this.#handshake && this.#handshake.peerId === undefined
    if (isShaking || isOfHandshake(bytes)) return this.#shake(bytes)
    if (this.#handshake) return this.#sealed(bytes)
    this.#frame(bytes)
  }

  #wasWhole() {
    this.#isMidFrame = false
    if (!this.isCarrying) return
    this.isCarrying = false
    this.#links.carried(this)
  }

  // After the handshake.
  #sealed(bytes) {
    const isEmptyOne = isSealed(bytes)
    if (!this.#seal && !isEmptyOne) return this.#frame(bytes)
    if (!this.#seal) return // the end of the handshake, come twice
    const frame = isEmptyOne ? this.#seal.open(bytes) : undefined
    if (frame === undefined) return this.end(tamperedWith())
    if (frame?.length) this.#frame(frame)
  }

  #frame(bytes) {
    if (!this.#isInCore) this.#early(bytes)
    else if (!isIntroduction(bytes)) this.#links.receive(this, bytes)
  }

  // Before authorize() has said yes. What is not kept is lost, and repaired.
  #early(bytes) {
    try {
      const error = readError(bytes)
      if (error) return this.end(error)
      const peerId = senderOf(bytes)
      if (peerId === undefined) return
      if (this.expected !== null && peerId !== this.expected) throw otherPeer(this.expected, peerId)
      if (isHello(bytes)) this.#hold(bytes)
      this.#authorize(peerId)
    } catch (error) {
      this.#refuse(error)
    }
  }

  #hold(hello) {
    const bytes = hello.length + FRAME_COST
    if (bytes > MAX_HELLO_BYTES || !this.#account(bytes)) return
    this.#hello = Buffer.from(hello) // a copy: what it is a view of may be large
  }

  // Before the core hears of the link.
  #shake(bytes) {
    try {
      this.#checkKept(bytes.length)
      const error = readError(bytes)
      if (error) return this.end(error)
      if (!this.#handshake) throw wantsSecret()
      const wasProven = this.#handshake.peerId !== undefined
      const frame = this.#handshake.take(bytes)
      const { peerId, seal } = this.#handshake
      if (wasProven || peerId === undefined) return
      this.#seal = seal
      this.#proven(peerId)
      if (frame && !this.#ending) this.#frame(frame)
    } catch (error) {
      return this.#refuse(error)
    }
  }

  // The other side has shown who it is, here or to the transport.
  #proven(peerId) {
    if (this.expected !== null && peerId !== this.expected) {
      return this.#refuse(otherPeer(this.expected, peerId))
    }
    this.peerId = this.expected = peerId // as proven, so it must not say another one in its HELLO
    if (!this.#becomesKnown()) return
    if (this.isAccepted) this.#wait(this.#links.options.linkTimeoutMs)
    if (this.#links.options.authorize) this.#authorize(peerId)
    else this.#enter()
  }

  async #authorize(peerId) {
    if (this.#isAsking) return
    this.#isAsking = true
    this.expected = peerId // whom it is asked about is the only one that may come
    const { transport, address } = this
    try {
      const { details } = this.#socket
      const info = { ...this.#details, ...details, transport, address, isAccepted: this.isAccepted }
      const { write } = rightsOf(await this.#links.options.authorize(peerId, info), peerId)
      this.isReader = !write
    } catch (error) {
      return this.#refuse(error)
    }
    if (!this.#ending && this.#state !== 'closed') this.#enter()
  }

  #refuse(error) {
    const cause = asError(error, 'it has thrown what is no Error')
    const isOurs = cause instanceof ReplicError
    const told = isOurs ? cause : new ReplicError('REPLIC_AUTH', 'it could not be authorized')
    this.send(errorFrame(told))
    const message = `authorize: ${cause.message}`
    this.end(isOurs ? cause : new ReplicError('REPLIC_AUTH', message, { cause }))
  }

  // Why a link ends is not what becomes of its connection after that: a last frame that nobody takes any more.
  #failed(error) {
    if (this.#ending && this.#error) return
    this.#error = asError(error, 'the connection failed')
  }

  #closed() {
    if (this.#isStarting) return queueMicrotask(() => this.#closed())
    if (this.#state === 'closed') return
    this.#state = 'closed'
    clearTimeout(this.#timer)
    this.#hello = undefined
    this.#leave()
    this.#links.gone(this, this.#isInCore)
  }

  /** The end of its life. */
  left() {
    this.#links.changed(this, 'down', this.#error)
    this.#onDown?.(this)
    this.#down()
  }

  get error() {
    return this.#error
  }

  get isReady() {
    return this.#state === 'ready' && !this.#ending
  }

  /** Whether the other side has all that there is here. */
  get hasAcknowledged() {
    return (this.#state === 'ready' || this.#state === 'standby') && this.#figures?.lag === 0
  }

  /** Nothing is taken there of what this side writes: it may only read. */
  get takesNothing() {
    return this.#figures?.selfMayWrite === false
  }

  /** For how long the link was up, in ms. */
  get upMs() {
    return this.#readyAt === undefined ? 0 : performance.now() - this.#readyAt
  }

  /** The core has accepted the other side's HELLO. */
  ready(peerId) {
    this.peerId = peerId
    if (this.#state === 'closed' || !this.#becomesKnown()) return
    clearTimeout(this.#timer)
    this.#state = 'ready'
    this.#readyAt = performance.now()
    this.#links.changed(this, 'up')
  }

  /** Something is wrong, and the link stays. */
  trouble(error) {
    this.#error = error
    this.#links.changed(this, 'error', error)
  }

  figures(figures) {
    const before = this.#state
    this.#figures = figures
    if (this.#ending || (before !== 'ready' && before !== 'standby')) return
    if (figures.state !== 'ready' && figures.state !== 'standby') return
    this.#state = figures.state
    if (before !== figures.state) {
      this.#links.changed(this, figures.state === 'ready' ? 'up' : 'standby')
    }
  }

  send(frame) {
    if (!this.#ending && this.#state !== 'closed') this.#put(this.#seal?.seal(frame) ?? frame)
  }

  #put(bytes) {
    if (!this.#ending && this.#state !== 'closed') this.#call('send', bytes)
  }

  cork() {
    this.#call('cork')
  }

  uncork() {
    this.#call('uncork')
  }

  pause() {
    this.#call('pause')
  }

  resume() {
    this.#call('resume')
  }

  /** Closes after what has been sent; resolves when the connection is gone. */
  end(error) {
    if (error) this.#error = error
    if (this.#ending || this.#state === 'closed') return this.#isDown
    this.#ending = true
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.terminate(), END_MS).unref()
    this.#call('resume') // a paused socket would not see the other side's end
    if (!this.#isTerminating && !this.#callIf('closeFor', error)) this.#call('close')
    return this.#isDown
  }

  /** Closes without waiting for the other side. */
  terminate() {
    if (this.#isTerminating) return
    this.#isTerminating = true
    this.#ending = true
    if (!this.#callIf('terminate')) this.#call('close')
    this.#closed()
  }

  // Whether the socket has such a method, which was called without throwing.
  #callIf(name, ...args) {
    let has = false
    const call = () => {
      const method = this.#socket[name]
      has = typeof method === 'function'
      return has ? method.call(this.#socket, ...args) : undefined
    }
    return guarded(call, (error) => this.#broke(error)) && has
  }

  // What is lacking may be held, or may have come and found no room on the disk.
  #whyHeld(held) {
    if (held) return printable(held)
    return this.#figures.behind > 0 ? this.#links.cannotStore : null
  }

  status() {
    const { link, peer, state, schema, held, ...figures } = this.#figures ?? {}
    return {
      peerId: this.peerId,
      link: this.id,
      transport: this.transport,
      address: this.address,
      state: this.#state,
      isEncrypted: this.#seal !== undefined || this.#look('isSealed') === true,
      ...figures,
      ...(this.#figures && { held: this.#whyHeld(held), schema: schemaOf(schema) }),
      lastError: describe(this.#error),
    }
  }
}

const noAnswer = (ms) =>
  new ReplicError('REPLIC_TIMEOUT', `authorize() has not answered within ${ms} ms`)

const gaveWay = (most) =>
  new ReplicError(
    'REPLIC_BUSY',
    `a newer connection took its place, as it had not shown who it is: maxPendingLinks (${most}), half as many from one address`,
  )

const otherPeer = (expected, peerId) =>
  new ReplicError(
    'REPLIC_PEER',
    `peer ${expected} was expected, and peer ${peerId} answered: correct the address or the peerId`,
  )

const tamperedWith = () =>
  new ReplicError(
    'REPLIC_AUTH',
    'a frame came in that the other side has not sealed: somebody in between changes what is sent',
  )

const wantsSecret = () =>
  new ReplicError(
    'REPLIC_AUTH',
    'the other side wants to see that this one knows its secret, and none is set here: give both the same `secret`',
  )

/** A line each: a table's name, a tab, and what of it is not the same here. */
const schemaOf = (lines) =>
  Object.fromEntries(
    lines
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        const [table, differs] = line.split('\t')
        return [printable(table), differs ? printable(differs) : null]
      }),
  )

// What another side has said.
const told = ({ code, text }) => new ReplicError(code, printable(text))

const linkEvent = (event, error) => ({
  ...event,
  code: error?.code ?? null,
  reason: error ? said(error) : null,
  count: 1,
})

/** Checks that `socket` is one, before anything is done with it. */
export function checkSocket(where, socket) {
  let isOne = false
  const look = () => {
    const emits = [socket?.on, socket?.addEventListener].some((each) => typeof each === 'function')
    isOne = emits && typeof socket.send === 'function' && typeof socket.close === 'function'
  }
  guarded(look, () => {}) // one that cannot be looked at is none
  if (isOne) return
  throw usage(
    `${where}: a socket has send(), close() and on() or addEventListener(), not ${kindOf(socket)}`,
  )
}

/**
 * Node's emitters give the data itself, browser-style sockets an event around it. What cannot be read of that, or what
 * the listener throws, `failed(error)` is told: it is not for whoever emits.
 */
export function listen(socket, name, listener, failed) {
  const safely = (call) => (event) => {
    try {
      call(event)
    } catch (error) {
      failed(error)
    }
  }
  if (typeof socket.on === 'function') return socket.on(name, safely(listener))
  if (name === 'message') socket.binaryType = 'arraybuffer' // else a Blob may come
  const take = (event) => listener(event?.data ?? event?.error ?? event)
  socket.addEventListener(name, safely(take))
}

/** A message as bytes; null if it is something else. */
export function asBytes(data) {
  if (data instanceof Uint8Array) return data
  if (data instanceof ArrayBuffer) return new Uint8Array(data)
  if (Array.isArray(data) && data.every((part) => part instanceof Uint8Array)) {
    return Buffer.concat(data) // ws with binaryType 'fragments'
  }
  return null
}

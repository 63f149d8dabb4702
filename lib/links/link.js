// One connection: its state (states.js has them all), and what each of them does with a frame.

import { describe, ReplicError } from '../base/errors.js'
import { asError } from '../base/guard.js'
import { kindOf } from '../base/options.js'
import { Admission } from './admission.js'
import { isIntroduction } from './authorization.js'
import { figuresOf } from './figures.js'
import { PROOF_MS } from './guests.js'
import { errorFrame } from './handshake.js'
import { asBytes, Socket } from './socket.js'
import { IN_CORE, OVER, SHOWN, UNANSWERED, UP } from './states.js'
import { Traffic } from './traffic.js'

const END_MS = 2_000 // how long an ended connection may take to close before it is terminated

export class Link {
  // What each state does with a frame; those that are not here take nothing.
  static #TAKES = {
    proving: (link, frame) => link.#admission.early(frame),
    authorizing: (link, frame) => link.#admission.early(frame),
    opening: (link, frame) => link.#toCore(frame),
    ready: (link, frame) => link.#toCore(frame),
    standby: (link, frame) => link.#toCore(frame),
  }

  #links
  #socket
  #admission
  #onDown
  #state = 'connecting'
  #endedIn // the state in which it began to end
  #figures = null // what the core told last
  #error // why it ends, or what it last complained of
  #readyAt
  #timer
  #down
  #isDown
  #refusal
  traffic = new Traffic()
  #isTerminated = false // the socket was
  #isStarting = true // whoever makes the link does not have it yet: it ends only after that
  #host
  #isHeard = false
  #leaveGuests = () => {}
  isReader = false // authorize() lets the other side only read
  isKnown // it was dialed, or has proven itself; without a secret, its HELLO is accepted

  constructor(links, id, socket, info) {
    const { peerId = null, transport, address = null, onDown } = info
    const { isAccepted = false, isDialed = false } = info
    this.#links = links
    this.#socket = new Socket(socket, (error) => this.#broke(error))
    this.#admission = new Admission(links, this, this.#socket, info.details)
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
    this.#refusal = info.refusal
    this.#isDown = new Promise((resolve) => {
      this.#down = resolve
    })
  }

  /** Listens to the socket, and opens the link as soon as that is open. */
  start() {
    const { linkTimeoutMs } = this.#links.options
    this.wait(this.isAccepted ? Math.min(PROOF_MS, linkTimeoutMs) : linkTimeoutMs)
    if (this.isAccepted) {
      this.#leaveGuests = this.#links.admit(this.#host, (error) => this.#giveWay(error))
    }
    this.#socket.hear({
      checkKept: (bytes) => this.#admission.checkKept(bytes),
      message: (data) => this.#message(data),
      progress: () => this.#progressed(),
      error: (error) => this.#failed(error),
      close: () => this.#closed(),
      opened: () => this.#opened(),
    })
    this.#isStarting = false
  }

  // The socket does not do what it was made for.
  #broke(error) {
    if (this.#isStarting) return queueMicrotask(() => this.#broke(error))
    if (this.#state === 'closed') return
    this.#failed(error)
    this.terminate()
  }

  /** For the other side's HELLO, or for what comes before it. */
  wait(ms) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      if (this.#state === 'authorizing') return this.refuse(noAnswer(ms))
      const what = this.#admission.needsProof && !this.isKnown ? 'proof of the secret' : 'HELLO'
      this.#error ??= new ReplicError('REPLIC_TIMEOUT', `no ${what} within ${ms} ms`)
      this.terminate()
    }, ms).unref()
  }

  #giveWay(error) {
    this.#error ??= error
    this.terminate()
  }

  get #isOver() {
    return OVER.has(this.#state)
  }

  /** Who the other side is, is known: it is no guest any more. Returns whether there is room for it. */
  becomesKnown() {
    const full = this.isKnown ? undefined : this.#links.roomError(this.isAccepted)
    this.isKnown = true
    this.#leave()
    if (full) this.refuse(full)
    return !full
  }

  #leave() {
    this.#leaveGuests()
    this.#admission.trust()
  }

  #opened() {
    if (this.#state !== 'connecting') return
    this.#state = 'proving'
    if (this.#refusal) return this.refuse(this.#refusal)
    this.#admission.begin()
  }

  /** authorize() is asked now. Returns false where it was already, or where the link is over. */
  asks() {
    if (this.#state !== 'proving') return false
    this.#state = 'authorizing'
    return true
  }

  /** Nothing stands in its way: the core hears of the link, and says HELLO. */
  enter() {
    if (this.#isOver) return
    this.#state = 'opening'
    this.#links.opened(this)
    const hello = this.#admission.takeHello()
    if (hello) this.#links.receive(this, hello)
  }

  /** There are other secrets now. */
  keysChanged() {
    if (this.#state !== 'connecting') this.#admission.keysChanged()
  }

  /** A heartbeat of this side's. Returns whether only a part of a frame has come in since the last one. */
  beat() {
    if (UNANSWERED.has(this.#state)) this.#admission.again(this.#state === 'opening')
    return this.traffic.beat() && this.isReady
  }

  /** Whether a MESSAGE is taken; else nothing is read before the next heartbeat. */
  takesMessage(length) {
    const takes = this.traffic.takesMessage(length)
    if (!takes) this.call('pause')
    return takes
  }

  #message(data) {
    if (!Link.#TAKES[this.#state]) return
    const bytes = asBytes(data)
    if (!bytes?.length) {
      const what = bytes ? 'nothing' : kindOf(data)
      return this.end(new ReplicError('REPLIC_PROTOCOL', `frames are bytes, not ${what}`))
    }
    this.#heard()
    if (this.traffic.wasWhole()) this.#links.carried(this)
    const frame = this.#admission.unwrap(bytes)
    if (frame) Link.#TAKES[this.#state]?.(this, frame) // as the state is now
  }

  #toCore(frame) {
    if (!isIntroduction(frame)) this.#links.receive(this, frame)
  }

  // Something has come in. Where there is a secret, that alone gives nobody more time.
  #heard() {
    if (this.#isHeard) return
    this.#isHeard = true
    if (this.isAccepted && !this.isReady && !this.#admission.needsProof && !this.#isOver) {
      this.wait(this.#links.options.linkTimeoutMs)
    }
  }

  #progressed() {
    this.traffic.progressed()
    this.#heard()
  }

  /** Ends it, and says why; of what the application's own function has thrown, only that it has. */
  refuse(error) {
    const cause = asError(error, 'it has thrown what is no Error')
    const isOurs = cause instanceof ReplicError
    const told = isOurs ? cause : new ReplicError('REPLIC_AUTH', 'it could not be authorized')
    this.send(errorFrame(told))
    const message = `authorize: ${cause.message}`
    this.end(isOurs ? cause : new ReplicError('REPLIC_AUTH', message, { cause }))
  }

  // Why a link ends is not what becomes of its connection after that: a last frame that nobody takes any more.
  #failed(error) {
    if (this.#endedIn && this.#error) return
    this.#error = asError(error, 'the connection failed')
  }

  #closed() {
    if (this.#isStarting) return queueMicrotask(() => this.#closed())
    if (this.#state === 'closed') return
    const isInCore = IN_CORE.has(this.#endedIn ?? this.#state)
    this.#state = 'closed'
    clearTimeout(this.#timer)
    this.#admission.takeHello()
    this.#leave()
    this.#links.gone(this, isInCore)
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
    return this.#state === 'ready'
  }

  // For status().
  get #shown() {
    return SHOWN[this.#state === 'ending' ? this.#endedIn : this.#state]
  }

  /** Whether the other side has all that there is here. */
  get hasAcknowledged() {
    return UP.has(this.#shown) && this.#figures?.lag === 0
  }

  /** Nothing is taken there of what this side writes: it may only read. */
  get takesNothing() {
    return this.#figures?.selfMayWrite === false
  }

  /** For how long the link was up, in ms. */
  get upMs() {
    return this.#readyAt === undefined ? 0 : performance.now() - this.#readyAt
  }

  /** The core has accepted the other side's HELLO, perhaps while the link was ending. */
  ready(peerId) {
    this.peerId = peerId
    if (this.#state === 'closed' || !this.becomesKnown()) return
    if (this.#state === 'ending') this.#endedIn = 'ready'
    else {
      clearTimeout(this.#timer)
      this.#state = 'ready'
    }
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
    if (!UP.has(before) || !UP.has(figures.state)) return
    this.#state = figures.state
    if (before !== figures.state) {
      this.#links.changed(this, figures.state === 'ready' ? 'up' : 'standby')
    }
  }

  send(frame) {
    if (!this.#isOver) this.put(this.#admission.wrap(frame))
  }

  /** Sends bytes as they are. */
  put(bytes) {
    if (!this.#isOver) this.#socket.call('send', bytes)
  }

  /** Calls cork(), uncork(), pause() or resume() of the socket, if it has that. */
  call(name) {
    this.#socket.call(name)
  }

  /** Closes after what has been sent; resolves when the connection is gone. */
  end(error) {
    if (error) this.#error = error
    if (this.#isOver) return this.#isDown
    this.#ends()
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.terminate(), END_MS).unref()
    this.#socket.call('resume') // a paused socket would not see the other side's end
    if (!this.#isTerminated && !this.#socket.callIf('closeFor', error)) this.#socket.call('close')
    return this.#isDown
  }

  #ends() {
    if (this.#isOver) return
    this.#endedIn = this.#state
    this.#state = 'ending'
  }

  /** Closes without waiting for the other side. */
  terminate() {
    if (this.#isTerminated) return
    this.#isTerminated = true
    this.#ends()
    if (!this.#socket.callIf('terminate')) this.#socket.call('close')
    this.#closed()
  }

  /** What status().links shows of it. */
  status() {
    const { peerId, id, transport, address } = this
    const { isEncrypted } = this.#admission
    const shown = { peerId, link: id, transport, address, state: this.#shown, isEncrypted }
    const figures = this.#figures && figuresOf(this.#figures, this.#links.cannotStore)
    return { ...shown, ...figures, lastError: describe(this.#error) }
  }
}

const noAnswer = (ms) =>
  new ReplicError('REPLIC_TIMEOUT', `authorize() has not answered within ${ms} ms`)

// A session: two sides that have shaken hands, as a socket of frames for the link. See Sender and
// Receiver for how frames travel; here is what comes in from the network, and when it is acknowledged.

import { EventEmitter } from 'node:events'
import { performance } from 'node:perf_hooks'
import { ReplayWindow } from '../../base/replay.js'
import * as datagram from './datagram.js'
import { ACK, ACK_BYTES, DATA, DATA_BYTES, END, FIN } from './datagram.js'
import { MAX_SEGMENTS, Receiver } from './receiver.js'
import { Sender } from './sender.js'

const FLIGHT_BYTES = 4 * 1024 * 1024 // on their way, at most
const ACK_EVERY = 2 // datagrams: as some ACKs are lost, more than one for each window (RFC 5681)
const FINS = 3 // FIN is not acknowledged: so many are sent
const CONNECTING = 0
const OPEN = 1
const CLOSED = 3
const NOTHING = Buffer.alloc(0)

export class Session extends EventEmitter {
  #endpoint
  #seal
  #remoteId
  #initiator // while it dials
  #onHeard // called at the first datagram that is known to be the other side's
  #counter = 0 // of the last datagram sent
  #replay = new ReplayWindow()
  #sender
  #receiver
  #corked = false
  #closing = false
  #unacked = 0 // datagrams of data since the last ACK
  #ackSoon // at the end of this turn of the event loop
  #echo = 0 // the counter of the last DATA
  #timer
  #timerAt = Infinity
  heardAt // when the other side's last datagram has come, as of performance.now()
  readyState = CONNECTING // as a WebSocket has it
  peerId = null // as the handshake says; proven if there is a secret
  checkKept = null // (bytes): throws where so many must not be kept of frames that are not whole

  /** `remote`: { address, port }, or null if it is not known yet. */
  constructor(endpoint, id, remote, onHeard) {
    super()
    this.#endpoint = endpoint
    this.id = id
    this.remote = remote
    this.#onHeard = onHeard
  }

  /** Shakes hands by means of `initiator`; then 'open', or 'error' and 'close'. */
  dial(remote, initiator) {
    if (this.readyState === CLOSED) return
    this.remote = remote
    this.#initiator = initiator
    initiator.start()
  }

  /** The handshake is complete. */
  open({ remoteId, peerId, seal }) {
    const { mtu, maxFrameBytes } = this.#endpoint
    this.#initiator = undefined
    this.#remoteId = remoteId
    this.#seal = seal
    this.peerId = peerId
    const room = mtu - seal.bytes
    this.#receiver = new Receiver(maxFrameBytes, (frame) => this.emit('message', frame))
    this.#sender = new Sender({
      payloadBytes: room - DATA_BYTES,
      maxSegments: Math.min(MAX_SEGMENTS, (room - ACK_BYTES) * 8),
      maxBytes: FLIGHT_BYTES,
      send: (segment) => this.#sendData(segment),
    })
    this.readyState = OPEN
    this.heardAt = performance.now()
    this.emit('open')
  }

  /** Both sides have proven that they know the secret, and each datagram has a tag. */
  get isTagged() {
    return this.#seal?.isAuthenticated ?? false
  }

  /** The handshake has failed, or cannot be begun. */
  fail(error) {
    if (this.readyState === CLOSED) return
    this.emit('error', error)
    this.#close()
  }

  send(frame) {
    if (this.readyState !== OPEN || this.#closing) return
    this.#sender.push(frame)
    if (!this.#corked) this.#pump()
  }

  cork() {
    this.#corked = true
  }

  uncork() {
    this.#corked = false
    if (this.readyState === OPEN) this.#pump()
  }

  pause() {
    this.#receiver?.pause()
  }

  resume() {
    if (this.readyState === OPEN) this.#receive(() => this.#receiver.resume())
  }

  /** Sends what was given, then the end. */
  close() {
    if (this.#closing) return
    this.#closing = true
    if (this.readyState !== OPEN) return this.terminate()
    this.#sender.push(NOTHING, END)
    this.#pump()
  }

  terminate() {
    if (this.readyState === CLOSED) return
    if (this.readyState === OPEN) this.#sendFin()
    this.#close()
  }

  #close() {
    this.readyState = CLOSED
    this.#initiator?.stop()
    clearTimeout(this.#timer)
    this.#endpoint.remove(this)
    this.emit('close')
  }

  /** A datagram for this session. `sender`: { address, port }. */
  take(type, bytes, sender) {
    if (this.#initiator) return this.#initiator.take(type, bytes)
    if (type < DATA || this.readyState !== OPEN) return // of the handshake, and late
    const open = this.#check(bytes, sender)
    if (!open) return
    this.heardAt = performance.now()
    this.#onHeard?.()
    this.#onHeard = undefined
    if (this.readyState !== OPEN) return
    if (type === DATA) this.#data(open)
    else if (type === ACK) this.#acked(open)
    else if (type === FIN) this.#close()
    else this.#endpoint.counters.malformed++
  }

  // Whether it is the other side's, and new; gives it without its tag.
  #check(bytes, sender) {
    const { counters } = this.#endpoint
    const { address, port } = this.remote
    const moved = sender.address !== address || sender.port !== port
    const open = moved && !this.isTagged ? undefined : this.#seal.open(bytes)
    if (!open) return count(counters, 'forged')
    if (open.length < datagram.SESSION_BYTES) return count(counters, 'malformed')
    const counter = datagram.counterOf(open)
    if (counter === undefined) return count(counters, 'malformed')
    const isNewest = counter > this.#replay.highest
    if (!this.#replay.take(counter)) return count(counters, 'replayed')
    if (moved && isNewest) this.#follow(sender)
    return open
  }

  // A router on the way has given the other side another address.
  #follow({ address, port }) {
    this.remote = { address, port }
    this.#sender.congestion.restart()
    this.#endpoint.counters.moved++
  }

  #data(open) {
    const segment = datagram.readData(open)
    if (!segment) return count(this.#endpoint.counters, 'malformed')
    const counter = datagram.counterOf(open)
    this.#receive(() => {
      if (this.#receiver.take(segment)) this.#echo = Math.max(this.#echo, counter)
      else this.#endpoint.counters.noRoom++
      if (this.#receiver.isWithin) this.checkKept?.(this.#receiver.keptBytes)
    })
    if (this.#receiver.isWithin) this.emit('progress')
  }

  #receive(step) {
    try {
      step()
    } catch (error) {
      this.emit('error', error)
      return this.terminate()
    }
    if (this.readyState !== OPEN) return
    if (this.#receiver.isEnded) return this.terminate()
    if (++this.#unacked === ACK_EVERY) return this.#sendAck()
    if (this.#unacked === 1) this.#ackSoon ??= setImmediate(() => this.#sendAck())
  }

  #acked(open) {
    const ack = datagram.readAck(open)
    if (!ack) return count(this.#endpoint.counters, 'malformed')
    this.#sender.ack(ack, performance.now())
    if (this.#closing && this.#sender.isDone) return this.#close()
    this.#arm()
  }

  #pump() {
    this.#sender.pump(performance.now())
    this.#arm()
  }

  #sendData(segment) {
    const counter = ++this.#counter
    this.#transmit(datagram.dataHeader(this.#remoteId, counter, segment), segment.payload)
    return counter
  }

  #sendAck() {
    clearImmediate(this.#ackSoon)
    this.#ackSoon = undefined
    this.#unacked = 0
    if (this.readyState !== OPEN) return
    const bitmap = this.#receiver.bitmap(this.#endpoint.mtu - ACK_BYTES - this.#seal.bytes)
    const said = { echo: this.#echo, next: this.#receiver.next }
    this.#transmit(datagram.ackHeader(this.#remoteId, ++this.#counter, said), bitmap)
  }

  #sendFin() {
    for (let i = 0; i < FINS; i++) {
      this.#transmit(datagram.header(FIN, this.#remoteId, ++this.#counter))
    }
  }

  #transmit(header, payload = NOTHING) {
    this.#endpoint.transmit([header, payload, this.#seal.tag(header, payload)], this.remote)
  }

  // One timer: where it fires early, because the deadline has moved, it is set again.
  #arm() {
    const { deadline } = this.#sender
    if (deadline === Infinity || this.readyState !== OPEN || this.#timerAt <= deadline) return
    clearTimeout(this.#timer)
    this.#timerAt = deadline
    this.#timer = setTimeout(() => this.#due(), Math.max(1, deadline - performance.now())).unref()
  }

  #due() {
    this.#timerAt = Infinity
    const now = performance.now()
    if (now >= this.#sender.deadline) this.#sender.tick(now)
    this.#arm()
  }

  /** For status(). */
  status() {
    const { congestion, flightBytes, queuedBytes, retransmitted } = this.#sender ?? {}
    return {
      peerId: this.peerId,
      address: this.remote?.address ?? null,
      port: this.remote?.port ?? null,
      isAuthenticated: this.isTagged,
      rttMs: congestion?.rttMs ?? null,
      windowBytes: Math.round(congestion?.window ?? 0),
      flightBytes: flightBytes ?? 0,
      queuedBytes: queuedBytes ?? 0,
      earlyBytes: this.#receiver?.earlyBytes ?? 0,
      retransmitted: retransmitted ?? 0,
    }
  }
}

const count = (counters, name) => {
  counters[name]++
}

// The sending half of a session: frames become numbered segments, which are sent as congestion
// permits, and again when they are lost. Bytes and times in, segments out: it knows no socket.
//
//   push -> queue -> outstanding <-> lost
//                         └── acknowledged: forgotten

import { Congestion } from './congestion.js'
import { DATA_BYTES, LAST } from './datagram.js'

const BURST_DATAGRAMS = 16
const BURST_MS = 4 // what may be sent at once to make up for a timer that came late
const PROBES = 2 // segments sent again after silence

export class Sender {
  #payloadBytes
  #datagramBytes
  #maxSegments
  #send
  #congestion
  #queue = [] // { frame, at, flags }: what has no segment yet
  #queuedBytes = 0
  #outstanding = new Map() // number -> segment, in the order in which they were sent last
  #lost = new Map() // number -> segment: to be sent again
  #flight = 0 // bytes of those outstanding
  #first = 0 // the lowest number that is not acknowledged
  #next = 0 // the number of the next new segment
  #arrived = 0 // the highest counter that has been acknowledged
  #last = 0 // the counter of what was sent last
  #isFull = false
  #budget = 0 // bytes that pacing permits now
  #budgetAt = 0
  #silentFrom = 0
  #lossAt = Infinity
  #paceAt = Infinity
  retransmitted = 0

  /**
   * `payloadBytes` a segment, `maxSegments` and `maxBytes` on their way; `send(segment)`, with
   * { number, flags, payload }, gives the counter of the datagram.
   */
  constructor({ payloadBytes, maxSegments, maxBytes, send }) {
    this.#payloadBytes = payloadBytes
    this.#datagramBytes = payloadBytes + DATA_BYTES
    this.#maxSegments = maxSegments
    this.#send = send
    this.#congestion = new Congestion(this.#datagramBytes, maxBytes)
  }

  get congestion() {
    return this.#congestion
  }

  get flightBytes() {
    return this.#flight
  }

  /** Bytes that have not been sent for the first time yet. */
  get queuedBytes() {
    return this.#queuedBytes
  }

  /** All has been acknowledged. */
  get isDone() {
    return this.#queue.length + this.#outstanding.size + this.#lost.size === 0
  }

  /** When tick() is due. */
  get deadline() {
    const silentAt =
      this.#outstanding.size > 0 ? this.#silentFrom + this.#congestion.rtoMs : Infinity
    return Math.min(this.#lossAt, this.#paceAt, silentAt)
  }

  /** A frame (borrowed until it is acknowledged) to be sent by the next pump(). */
  push(frame, flags = LAST) {
    this.#queue.push({ frame, at: 0, flags })
    this.#queuedBytes += frame.length
  }

  /** Sends what may be sent now. */
  pump(now) {
    this.#refill(now)
    this.#paceAt = Infinity
    for (;;) {
      const isWaiting = this.#lost.size > 0 || this.#queue.length > 0
      this.#isFull = isWaiting && !this.#hasRoom()
      if (!isWaiting || this.#isFull) return
      if (this.#budget <= 0) {
        this.#paceAt = now + 1
        return
      }
      this.#transmit(this.#takeLost() ?? this.#takeNew(), now)
    }
  }

  #hasRoom() {
    const { window } = this.#congestion
    if (this.#flight > 0 && this.#flight + this.#datagramBytes > window) return false
    return this.#lost.size > 0 || this.#next - this.#first < this.#maxSegments
  }

  #refill(now) {
    const { pace } = this.#congestion
    const most = Math.max(BURST_DATAGRAMS * this.#datagramBytes, pace * BURST_MS)
    const more = pace === Infinity ? most : pace * (now - this.#budgetAt)
    this.#budget = Math.min(most, this.#budget + more)
    this.#budgetAt = now
  }

  #takeLost() {
    for (const [number, segment] of this.#lost) {
      this.#lost.delete(number)
      this.retransmitted++
      return segment
    }
  }

  #takeNew() {
    const item = this.#queue[0]
    const payload = item.frame.subarray(item.at, item.at + this.#payloadBytes)
    item.at += payload.length
    this.#queuedBytes -= payload.length
    const isLast = item.at === item.frame.length
    if (isLast) this.#queue.shift()
    return { number: this.#next++, flags: isLast ? item.flags : 0, payload, counter: 0, sentAt: 0 }
  }

  #transmit(segment, now) {
    if (this.#outstanding.size === 0) this.#silentFrom = now
    segment.counter = this.#last = this.#send(segment)
    segment.sentAt = now
    this.#outstanding.set(segment.number, segment)
    this.#flight += sizeOf(segment)
    this.#budget -= sizeOf(segment)
  }

  /**
   * The other side has all segments below `next` and those of the bitmap (bit 0 of byte 0: `next`
   * itself); the datagram with the counter `echo` was the last to arrive.
   */
  ack({ echo, next, bitmap }, now) {
    if (next > this.#next || echo > this.#last) return // nothing of the kind was sent
    const before = this.#flight
    let sentAt
    const arrived = (number) => {
      const segment = this.#outstanding.get(number)
      if (!segment) return this.#lost.delete(number)
      this.#outstanding.delete(number)
      this.#flight -= sizeOf(segment)
      if (segment.counter === echo) sentAt = segment.sentAt
    }
    while (this.#first < next) arrived(this.#first++)
    for (let i = 0; i < bitmap.length; i++) {
      for (let bits = bitmap[i]; bits > 0; bits &= bits - 1) {
        arrived(next + i * 8 + 31 - Math.clz32(bits & -bits))
      }
    }
    if (sentAt !== undefined) this.#congestion.sample(now - sentAt)
    this.#arrived = Math.max(this.#arrived, echo)
    if (this.#flight < before) {
      this.#silentFrom = now
      this.#congestion.acked(before - this.#flight, this.#isFull)
    }
    this.#findLost(now)
    this.pump(now)
  }

  // Lost: sent before something that has arrived, and long enough ago.
  #findLost(now) {
    this.#lossAt = Infinity
    const { lossMs } = this.#congestion
    for (const segment of this.#outstanding.values()) {
      if (segment.counter > this.#arrived) return
      if (segment.sentAt + lossMs > now) {
        this.#lossAt = segment.sentAt + lossMs
        return
      }
      this.#congestion.lost(segment.counter, this.#last)
      this.#lose(segment)
    }
  }

  #lose(segment) {
    this.#outstanding.delete(segment.number)
    this.#flight -= sizeOf(segment)
    this.#lost.set(segment.number, segment)
  }

  /** The deadline has come. */
  tick(now) {
    this.#findLost(now)
    if (this.#outstanding.size > 0 && now >= this.#silentFrom + this.#congestion.rtoMs) {
      this.#congestion.timedOut(this.#last)
      this.#silentFrom = now
      const probes = [...this.#outstanding.values()].slice(0, PROBES)
      for (const segment of probes) {
        this.#lose(segment)
        this.#lost.delete(segment.number)
        this.retransmitted++
        this.#transmit(segment, now)
      }
    }
    this.pump(now)
  }
}

const sizeOf = (segment) => segment.payload.length + DATA_BYTES

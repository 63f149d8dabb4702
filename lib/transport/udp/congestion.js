// How much may be on its way, and when to send again: round trips as RFC 6298 measures them, a window
// that grows and is halved as RFC 5681 has it, once per round trip. Times are in milliseconds.
//
// One departure: by losses alone the window does not fall below the ten datagrams that every connection
// may begin with (RFC 6928), for a line that loses a fifth of what it carries, without being full,
// would bring it down to three. Only silence, two timeouts in a row, takes it to two.

const FIRST_DATAGRAMS = 10
const LEAST_DATAGRAMS = 2
const FIRST_RTO_MS = 500
const MIN_RTO_MS = 20 // as ACKs are not delayed
const MAX_RTO_MS = 4_000
const GRANULARITY_MS = 4 // of timers and of a busy event loop

export class Congestion {
  #datagram
  #max
  #threshold = Infinity // below it the window doubles with each round trip
  #reducedAt = 0 // losses of what was sent up to this counter are in the last reduction already
  #rttVar = 0
  #timeouts = 0 // in a row
  window
  rttMs // smoothed; undefined before the first sample

  /** Sizes in bytes: of a datagram, and the most that the window may become. */
  constructor(datagram, max) {
    this.#datagram = datagram
    this.#max = Math.max(max, FIRST_DATAGRAMS * datagram)
    this.window = FIRST_DATAGRAMS * datagram
  }

  /** A round trip took this long. */
  sample(ms) {
    if (this.rttMs === undefined) {
      this.rttMs = ms
      this.#rttVar = ms / 2
      return
    }
    this.#rttVar += (Math.abs(this.rttMs - ms) - this.#rttVar) / 4
    this.rttMs += (ms - this.rttMs) / 8
  }

  /** `bytes` have arrived. `isFull`: the window, and not the application, was the limit. */
  acked(bytes, isFull) {
    this.#timeouts = 0
    if (!isFull) return
    const isDoubling = this.window < this.#threshold
    const more = isDoubling ? bytes : (this.#datagram * bytes) / this.window
    this.window = Math.min(this.#max, this.window + more)
  }

  /** What was sent with this counter is lost; `last` was the last one sent. */
  lost(counter, last) {
    if (counter <= this.#reducedAt) return
    this.#reducedAt = last
    this.#reduce(FIRST_DATAGRAMS)
  }

  /** Nothing was acknowledged for rtoMs. */
  timedOut(last) {
    this.#reducedAt = last
    if (++this.#timeouts < 2) return
    this.#reduce(LEAST_DATAGRAMS)
    this.window = LEAST_DATAGRAMS * this.#datagram
  }

  #reduce(datagrams) {
    this.#threshold = Math.max(this.window / 2, datagrams * this.#datagram)
    this.window = Math.min(this.window, this.#threshold)
  }

  /** The path has changed: nothing is known of the new one. */
  restart() {
    this.#threshold = Infinity
    this.window = Math.min(this.window, FIRST_DATAGRAMS * this.#datagram)
  }

  /** After how much silence to send again. */
  get rtoMs() {
    const rto = Math.max(MIN_RTO_MS, this.#spread(FIRST_RTO_MS))
    return Math.min(MAX_RTO_MS, rto * 2 ** this.#timeouts)
  }

  /** After how long something is lost when what was sent later has arrived. */
  get lossMs() {
    return Math.max(this.#spread(FIRST_RTO_MS), ((this.rttMs ?? 0) * 9) / 8)
  }

  #spread(unknown) {
    if (this.rttMs === undefined) return unknown
    return this.rttMs + Math.max(GRANULARITY_MS, 4 * this.#rttVar)
  }

  /** Bytes per millisecond at which the window is spread over a round trip. */
  get pace() {
    if (this.rttMs === undefined) return Infinity
    const gain = this.window < this.#threshold ? 2 : 1.25
    return (gain * this.window) / Math.max(this.rttMs, 0.1)
  }
}

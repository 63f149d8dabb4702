// One direction of a line that misbehaves: what is put on it is lost, doubled, delayed, slowed down.
// Frames of a stream and datagrams alike. All chances come from the generator it is given.

/** What a line does to what it carries. Nothing, unless told otherwise. */
export const PERFECT = Object.freeze({
  loss: 0, // the share that is lost, 0 to 1
  duplicate: 0, // the share that arrives twice
  delayMs: [0, 0], // from, to: drawn for each
  ordered: true, // false: who drew a shorter delay overtakes
  kbit: Infinity, // kilobits a second, for all that it carries together
})

const PIECE_BYTES = 1400 // what a packet holds: what is slow comes piece by piece
const BACKLOG_MS = 2_000 // a line that has so much to send yet is full
const FLYING_BYTES = 16 * 1024 * 1024 // so is one with so much under way

export class Line {
  #random
  #settings = PERFECT
  #queue = [] // { due, bytes, deliver }, in order of `due`
  #queuedBytes = 0
  #freeAt = 0 // when the last of what was put on it has left
  #timer
  #waiting = [] // for room

  counts = { carried: 0, lost: 0, duplicated: 0 }

  /** `random(n)` gives the next integer from 0 to n - 1. */
  constructor(random) {
    this.#random = random
  }

  /** Changes some of its settings, for what is put on it from now on. */
  set(settings) {
    for (const name of Object.keys(settings)) {
      if (!Object.hasOwn(PERFECT, name)) throw new Error(`a line has no setting '${name}'`)
    }
    this.#settings = { ...this.#settings, ...settings }
  }

  get isOrdered() {
    return this.#settings.ordered
  }

  get isFull() {
    return this.#freeAt - performance.now() > BACKLOG_MS || this.#queuedBytes > FLYING_BYTES
  }

  /** Calls `then` when there may be room again. */
  whenRoom(then) {
    this.#waiting.push(then)
  }

  /** What becomes of the next frame or datagram: a delay for each time that it arrives, none to two. */
  draw() {
    const { loss, duplicate } = this.#settings
    this.counts.carried++
    if (this.#chance(loss)) {
      this.counts.lost++
      return []
    }
    if (!this.#chance(duplicate)) return [this.#delay()]
    this.counts.duplicated++
    return [this.#delay(), this.#delay()]
  }

  /** A datagram: `deliver(bytes)` is called when it arrives, if it does. */
  carry(bytes, deliver) {
    for (const delay of this.draw()) this.put(bytes, delay, deliver)
  }

  /** Calls `deliver` with the bytes when they arrive; in pieces if the line is slow and keeps order. */
  put(bytes, delay, deliver) {
    const { kbit, ordered } = this.#settings
    const step = ordered && kbit < Infinity ? PIECE_BYTES : bytes.length
    for (let at = 0; at < bytes.length; at += step) {
      const piece = bytes.subarray(at, at + step)
      this.#freeAt = Math.max(performance.now(), this.#freeAt) + (piece.length * 8) / kbit
      const before = ordered ? (this.#queue.at(-1)?.due ?? 0) : 0
      this.#enqueue({ due: Math.max(this.#freeAt + delay, before), bytes: piece, deliver })
    }
  }

  /** Calls `then` after all that is on the line has been delivered. */
  afterAll(then) {
    const due = this.#queue.at(-1)?.due ?? 0
    this.#enqueue({ due, bytes: Buffer.alloc(0), deliver: then })
  }

  /** Drops what is on the line. */
  clear() {
    clearTimeout(this.#timer)
    this.#queue = []
    this.#queuedBytes = 0
  }

  #chance(share) {
    return share > 0 && this.#random(1_000_000) < share * 1_000_000
  }

  #delay() {
    const [from, to] = this.#settings.delayMs
    return from + this.#random(to - from + 1)
  }

  #enqueue(item) {
    if (this.#queue.length === 0 && item.due <= performance.now()) return item.deliver(item.bytes)
    let at = this.#queue.length
    while (at > 0 && this.#queue[at - 1].due > item.due) at--
    this.#queue.splice(at, 0, item)
    this.#queuedBytes += item.bytes.length
    if (at === 0) this.#arm()
  }

  #arm() {
    clearTimeout(this.#timer)
    if (this.#queue.length === 0) return
    const wait = Math.ceil(this.#queue[0].due - performance.now())
    this.#timer = setTimeout(() => this.#deliverDue(), Math.max(wait, 0))
  }

  #deliverDue() {
    const now = performance.now()
    while (this.#queue.length > 0 && this.#queue[0].due <= now) {
      const { bytes, deliver } = this.#queue.shift()
      this.#queuedBytes -= bytes.length
      deliver(bytes)
    }
    this.#arm()
    for (const then of this.#waiting.splice(0)) then()
  }
}

// Which numbers of one sender have been seen: each is taken once, in almost any order (RFC 6479's window: a ring of bits
// behind the highest number). What is older than the window counts as seen.

const SIZE = 8192

/** A row of `count` bits, all of them clear at first. */
class Bits {
  #words

  constructor(count) {
    this.#words = new Uint32Array(Math.ceil(count / 32))
  }

  has(i) {
    return (this.#words[i >>> 5] & (1 << (i & 31))) !== 0
  }

  set(i) {
    this.#words[i >>> 5] |= 1 << (i & 31)
  }

  clear(i) {
    this.#words[i >>> 5] &= ~(1 << (i & 31))
  }
}

export class ReplayWindow {
  #size
  #first
  #seen
  highest = 0

  /** `size`: how many numbers one may be overtaken by. `first`: below that none is taken. */
  constructor(size = SIZE, first = 1) {
    this.#size = size
    this.#first = first
    this.#seen = new Bits(size)
  }

  /** Whether a number is new; from then on it is not. */
  take(number) {
    const size = this.#size
    if (!Number.isSafeInteger(number) || number <= this.highest - size) return false
    if (number < this.#first) return false
    if (number > this.highest) {
      const from = Math.max(this.highest + 1, number - size + 1)
      for (let skipped = from; skipped < number; skipped++) this.#seen.clear(skipped % size)
      this.highest = number
    } else if (this.#seen.has(number % size)) {
      return false
    }
    this.#seen.set(number % size)
    return true
  }
}

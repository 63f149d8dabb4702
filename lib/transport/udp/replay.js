// Which counters have been seen: each datagram of a session is taken once (RFC 6479's window: a ring
// of bits behind the highest counter). What is older than the window counts as seen.

import { Bits } from '../bits.js'

const SIZE = 8192

export class ReplayWindow {
  #seen = new Bits(SIZE)
  highest = 0 // counters begin at 1

  /** Whether a counter is new; from then on it is not. */
  take(counter) {
    if (!Number.isSafeInteger(counter) || counter <= this.highest - SIZE || counter < 1)
      return false
    if (counter > this.highest) {
      const from = Math.max(this.highest + 1, counter - SIZE + 1)
      for (let skipped = from; skipped < counter; skipped++) this.#seen.clear(skipped % SIZE)
      this.highest = counter
    } else if (this.#seen.has(counter % SIZE)) {
      return false
    }
    this.#seen.set(counter % SIZE)
    return true
  }
}

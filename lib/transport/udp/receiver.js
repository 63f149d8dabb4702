// The receiving half of a session: segments become frames again, in the order in which they were
// sent. What it keeps is bounded: segments that came early by number and bytes (others are not
// acknowledged, so they come again), and the frame at hand by its greatest length.

import { ReplicError } from '../../base/errors.js'
import { Pieces } from '../pieces.js'
import { END, LAST, MAX_BITMAP_BYTES } from './datagram.js'

/** Segments that may be kept, counted from the next one that is due. */
export const MAX_SEGMENTS = MAX_BITMAP_BYTES * 8
const EARLY_BYTES = 8 * 1024 * 1024
const SEGMENT_COST = 200 // bytes, about, that one takes beside its own

export class Receiver {
  #maxFrameBytes
  #deliver
  #early = new Map() // number -> { flags, payload }
  #earlyBytes = 0
  #pieces = new Pieces() // of the frame at hand
  #paused = false
  next = 0
  isEnded = false // nothing follows

  /** `deliver(frame)` for each. */
  constructor(maxFrameBytes, deliver) {
    this.#maxFrameBytes = maxFrameBytes
    this.#deliver = deliver
  }

  /** A part of a frame is here. */
  get isWithin() {
    return this.#pieces.length > 0 || this.#early.size > 0
  }

  get earlyBytes() {
    return this.#earlyBytes
  }

  /** Bytes, about, that all of it takes. */
  get keptBytes() {
    return this.#pieces.length + this.#earlyBytes
  }

  /**
   * A segment has come. Whether it is, or was, taken: if not, there is no room for it.
   * Throws REPLIC_PROTOCOL for a frame that is too large.
   */
  take({ number, flags, payload }) {
    if (number < this.next || this.#early.has(number)) return true
    if (number >= this.next + MAX_SEGMENTS) return false
    const isDue = number === this.next && !this.#paused
    const cost = payload.length + SEGMENT_COST
    if (!isDue && this.#earlyBytes + cost > EARLY_BYTES) return false
    this.#early.set(number, { flags, payload })
    this.#earlyBytes += cost
    this.#drain()
    return true
  }

  #drain() {
    while (!this.#paused && !this.isEnded) {
      const segment = this.#early.get(this.next)
      if (!segment) return
      this.#early.delete(this.next++)
      this.#earlyBytes -= segment.payload.length + SEGMENT_COST
      this.#join(segment)
    }
  }

  #join({ flags, payload }) {
    if (flags & END) {
      this.isEnded = true
      return
    }
    if (this.#pieces.length + payload.length > this.#maxFrameBytes) {
      const message = `a frame of more than ${this.#maxFrameBytes} bytes`
      throw new ReplicError('REPLIC_PROTOCOL', message)
    }
    if (flags & LAST && this.#pieces.length === 0) return this.#deliver(payload)
    this.#pieces.push(payload)
    if (flags & LAST) this.#deliver(this.#pieces.join())
  }

  /** Delivers nothing until resume(). */
  pause() {
    this.#paused = true
  }

  resume() {
    this.#paused = false
    this.#drain()
  }

  /** Which segments from `next` on are here: a bit for each, at most so many bytes. */
  bitmap(maxBytes) {
    let length = 0
    const bytes = Buffer.alloc(Math.min(maxBytes, MAX_BITMAP_BYTES))
    for (const number of this.#early.keys()) {
      const bit = number - this.next
      if (bit >= bytes.length * 8) continue
      bytes[bit >> 3] |= 1 << (bit & 7)
      length = Math.max(length, (bit >> 3) + 1)
    }
    return bytes.subarray(0, length)
  }
}

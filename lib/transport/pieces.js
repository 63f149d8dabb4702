// What of a frame has come in so far, in order. It is joined once, when it is whole, and never beforehand: memory follows
// what has arrived, not what a length announces. A small piece by itself would cost some 200 bytes, and keep alive
// all that it came with: such pieces are copied together.

const SMALL = 4096 // bytes of a piece
const LEAST_BLOCK = 256
const MOST_BLOCK = 16 * 1024

export class Pieces {
  #parts = []
  #block = null // where small pieces go
  #filled = 0 // bytes of it
  length = 0

  /** Takes a piece: borrowed until join() if it is large. */
  push(bytes) {
    this.length += bytes.length
    if (bytes.length >= SMALL) {
      this.#closeBlock()
      this.#parts.push(bytes)
      return
    }
    for (let rest = bytes; rest.length > 0; ) rest = this.#copy(rest)
  }

  // What fits into the block; returns the rest.
  #copy(bytes) {
    this.#block ??= Buffer.allocUnsafeSlow(blockFor(this.length))
    const count = Math.min(bytes.length, this.#block.length - this.#filled)
    this.#block.set(bytes.subarray(0, count), this.#filled)
    this.#filled += count
    if (this.#filled === this.#block.length) this.#closeBlock()
    return bytes.subarray(count)
  }

  #closeBlock() {
    if (this.#block) this.#parts.push(this.#block.subarray(0, this.#filled))
    this.#block = null
    this.#filled = 0
  }

  /** All of it; afterwards it is empty. */
  join() {
    this.#closeBlock()
    const whole = this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts)
    this.clear()
    return whole
  }

  clear() {
    this.#parts = []
    this.#block = null
    this.#filled = 0
    this.length = 0
  }
}

const blockFor = (length) => Math.max(LEAST_BLOCK, Math.min(MOST_BLOCK, length))

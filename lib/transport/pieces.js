// What of a frame has come in so far, in order. Memory follows what has arrived, not what a length announces. A small
// piece by itself would cost some 200 bytes, and keep alive all that it came with: such pieces are copied together.
// What comes to more than LARGE is copied as it comes, into memory that grows: tens of MiB that are joined at once keep
// the event loop for as many milliseconds.

const SMALL = 4096 // bytes of a piece
const LEAST_BLOCK = 256
const MOST_BLOCK = 16 * 1024
const LARGE = 1024 * 1024
const GROWTH = 4 // times what is here: the system gives a page of it only once something is written there

export class Pieces {
  #parts = []
  #block = null // where small pieces go
  #filled = 0 // bytes of it
  #large = null // where everything is, beyond LARGE
  length = 0

  /** Takes a piece: borrowed until join() if it is large. */
  push(bytes) {
    const at = this.length
    this.length += bytes.length
    if (this.length > LARGE) return this.#append(bytes, at)
    if (bytes.length >= SMALL) {
      this.#closeBlock()
      this.#parts.push(bytes)
      return
    }
    for (let rest = bytes; rest.length > 0; ) rest = this.#copy(rest)
  }

  #append(bytes, at) {
    if (this.#large === null || this.length > this.#large.length) this.#grow(at)
    this.#large.set(bytes, at)
  }

  #grow(length) {
    const grown = Buffer.allocUnsafeSlow(GROWTH * this.length)
    if (this.#large) grown.set(this.#large.subarray(0, length))
    else grown.set(this.#joined())
    this.#large = grown
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
    const whole = this.#large ? this.#large.subarray(0, this.length) : this.#joined()
    this.clear()
    return whole
  }

  #joined() {
    this.#closeBlock()
    const parts = this.#parts
    this.#parts = []
    return parts.length === 1 ? parts[0] : Buffer.concat(parts)
  }

  clear() {
    this.#parts = []
    this.#block = null
    this.#filled = 0
    this.#large = null
    this.length = 0
  }
}

const blockFor = (length) => Math.max(LEAST_BLOCK, Math.min(MOST_BLOCK, length))

/** A row of `count` bits, all of them clear at first. */
export class Bits {
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

// Frames that only the other side of a link can read, and nobody can change or send again:
//
//   SEALED 36      version 1, type, number (6 bytes, big-endian), the frame, encrypted, and its tag (16)
//
// The keys are those that the Noise handshake leaves, one for each direction. The number is the nonce,
// so none is used twice, and frames may be lost, overtake each other or come twice, as on any link: each
// is taken once. What stands before the encrypted bytes is protected by the tag too. After so many
// frames both sides make the next key of the last one, and forget that: who takes a key from a running
// process cannot read what was sent long before.

import { ReplayWindow } from '../base/replay.js'
import { decrypt, encrypt, rekey, TAG_BYTES } from './noise.js'

const VERSION = 1
export const SEALED = 36
const HEADER_BYTES = 8
const MAX_NUMBER = 2 ** 48 - 1
const REKEY_EVERY = 2 ** 20 // frames

/** What a frame is longer by when it is sealed. */
export const SEAL_BYTES = HEADER_BYTES + TAG_BYTES

/** The keys of one direction: that of now, and the one before, for frames that were overtaken. */
class Keys {
  #now
  #before
  #epoch = 0
  #every

  constructor(key, every) {
    this.#now = key
    this.#every = every
  }

  /** The key for a number, which may be the next one; undefined for numbers too far from the last. */
  at(number) {
    const epoch = Math.floor(number / this.#every)
    if (epoch === this.#epoch) return this.#now
    if (epoch === this.#epoch - 1) return this.#before
    return epoch === this.#epoch + 1 ? rekey(this.#now) : undefined
  }

  /** A number was right: where it is of the next key, that is the key from now on. */
  reached(number, key) {
    if (Math.floor(number / this.#every) <= this.#epoch) return
    this.#before = this.#now
    this.#now = key
    this.#epoch++
  }
}

/** One side of a sealed link. */
export class Seal {
  #out
  #in
  #number = 0
  #seen = new ReplayWindow()

  /** `keys`: { send, receive }, 32 bytes each. `every`: frames between two keys. */
  constructor({ send, receive }, every = REKEY_EVERY) {
    this.#out = new Keys(send, every)
    this.#in = new Keys(receive, every)
  }

  /** The frame, sealed. Throws a RangeError after 2^48 frames. */
  seal(frame) {
    if (this.#number === MAX_NUMBER) throw new RangeError('2^48 frames have been sent')
    const number = ++this.#number
    const header = Buffer.allocUnsafe(HEADER_BYTES)
    header[0] = VERSION
    header[1] = SEALED
    header.writeUIntBE(number, 2, 6)
    const key = this.#out.at(number)
    this.#out.reached(number, key)
    return Buffer.concat([header, ...encrypt(key, number, header, frame)])
  }

  /** The frame in a SEALED one; null where it has come before, undefined where it was changed or is not for this link. */
  open(bytes) {
    if (bytes.length < SEAL_BYTES) return undefined
    const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    const number = view.readUIntBE(2, 6)
    const key = this.#in.at(number)
    const header = view.subarray(0, HEADER_BYTES)
    const frame = key && decrypt(key, number, header, view.subarray(HEADER_BYTES))
    if (!frame) return undefined
    if (!this.#seen.take(number)) return null
    this.#in.reached(number, key)
    return frame
  }
}

export const isSealed = (bytes) => bytes[0] === VERSION && bytes[1] === SEALED

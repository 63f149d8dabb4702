// One message on a bus. docs/protocol.md, "Over a bus", has the layout and an example.
//
// Every message names its sender and the sender's instance, sixteen random bytes drawn when it joined.
// One that goes to a single peer names that peer's instance too: whoever gets a message with its own
// instance in it knows that the sender is alive now, and, where the message is sealed, that it is no
// recording from before. Numbers that grow keep recordings out from then on (ReplayWindow).
//
// Sealed means: all that the bus need not know, which is the body, is encrypted, and a tag protects it
// and what stands before it. One publication serves many, so the key is the sender's: made of the secret,
// the prefix and the instance, and so it is another one each time that a peer joins. The number is the nonce.

import { hkdfSync } from 'node:crypto'
import { decrypt, encrypt, TAG_BYTES } from '../links/noise.js'

export const HERE = 1 // who hears this and does not know the sender answers
export const WELCOME = 2 // the answer
export const FRAME = 3
export const PART = 4 // of a frame that is larger than a message
export const BYE = 5 // the sender has ended the link

const MAGIC = Buffer.from('RB')
const VERSION = 2
const TO_ONE = 0x40
const SEALED = 0x80
export const INSTANCE_BYTES = 16
const NUMBER_AT = 8 + INSTANCE_BYTES
const HEADER_BYTES = NUMBER_AT + 6 // up to and with the number
const ONE_BYTES = 4 + INSTANCE_BYTES
const PART_BYTES = 12 // number of the frame, its length, where this part begins
const LABEL = 'replic-sqlite bus'
const KEY_BYTES = 32
const MAX_NUMBER = 2 ** 48 - 1
/** Numbers: messages that are overtaken by more than so many are lost. */
export const WINDOW = 4096
const MAX_PARTIAL = 16 // incomplete frames of one sender
const PIECE_COST = 200 // bytes, about, that a piece takes beside its own
const LEAST_PIECE = 1024 // bytes, but for a frame's last: what a sender of ours puts into a message is more

/** Where a message goes: to one, { peerId, instance }, or to those of a list; an empty one means all. */
const addressOf = (to) => {
  if (!Array.isArray(to)) {
    const bytes = Buffer.alloc(ONE_BYTES)
    bytes.writeUInt32BE(to.peerId)
    to.instance.copy(bytes, 4)
    return bytes
  }
  const bytes = Buffer.alloc(2 + 4 * to.length)
  bytes.writeUInt16BE(to.length)
  for (const [i, peerId] of to.entries()) bytes.writeUInt32BE(peerId, 2 + 4 * i)
  return bytes
}

/** Makes the messages of one peer. */
export class Writer {
  #peerId
  #instance
  #prefix
  #key
  #number = 0
  #frames = 0

  /** `secret`: undefined where there is none; then nothing is sealed. `prefix`: of the subjects. */
  constructor({ peerId, instance, prefix, secret }) {
    this.#peerId = peerId
    this.#instance = instance
    this.#prefix = prefix
    this.setSecret(secret)
  }

  /** Seals with another secret from now on. */
  setSecret(secret) {
    const self = { peerId: this.#peerId, instance: this.#instance, prefix: this.#prefix }
    this.#key = secret && senderKey(secret, self)
  }

  message(kind, to, ...body) {
    const header = Buffer.alloc(HEADER_BYTES)
    MAGIC.copy(header)
    const flags = (Array.isArray(to) ? 0 : TO_ONE) | (this.#key ? SEALED : 0)
    header[2] = VERSION
    header[3] = kind | flags
    header.writeUInt32BE(this.#peerId, 4)
    this.#instance.copy(header, 8)
    if (this.#number === MAX_NUMBER) throw new RangeError('2^48 messages have been sent')
    header.writeUIntBE(++this.#number, NUMBER_AT, 6)
    const open = Buffer.concat([header, addressOf(to)])
    if (!this.#key) return Buffer.concat([open, ...body])
    return Buffer.concat([open, ...encrypt(this.#key, this.#number, open, Buffer.concat(body))])
  }

  /** The messages, none longer than `maxBytes`, that carry a frame. */
  *frame(to, frame, maxBytes) {
    const around = HEADER_BYTES + addressOf(to).length + (this.#key ? TAG_BYTES : 0)
    if (around + frame.length <= maxBytes) {
      yield this.message(FRAME, to, frame)
      return
    }
    const room = maxBytes - around - PART_BYTES
    const number = this.#frames++ % 2 ** 32
    for (let at = 0; at < frame.length; at += room) {
      const part = Buffer.alloc(PART_BYTES)
      part.writeUInt32BE(number)
      part.writeUInt32BE(frame.length, 4)
      part.writeUInt32BE(at, 8)
      yield this.message(PART, to, part, frame.subarray(at, at + room))
    }
  }
}

/** The key of what a sender seals for those of its prefix (HKDF, RFC 5869). */
export function senderKey(secret, { peerId, instance, prefix }) {
  const info = `${LABEL} ${prefix} ${peerId}`
  return Buffer.from(hkdfSync('sha256', secret, instance, info, KEY_BYTES))
}

/**
 * Reads a message, untrusted: { kind, peerId, instance, number, to (one, or a list), open, body, isSealed },
 * whose instances, body and what precedes that are views; a sealed body is as it came, see unsealed(). null for what is no message of this format.
 */
export function readMessage(bytes) {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (view.length < HEADER_BYTES + 2 || !view.subarray(0, 2).equals(MAGIC)) return null
  const kind = view[3] & ~(TO_ONE | SEALED)
  if (view[2] !== VERSION || kind < HERE || kind > BYE) return null
  const isToOne = (view[3] & TO_ONE) !== 0
  const isSealed = (view[3] & SEALED) !== 0
  const at = HEADER_BYTES + (isToOne ? ONE_BYTES : 2 + 4 * view.readUInt16BE(HEADER_BYTES))
  const end = view.length - (isSealed ? TAG_BYTES : 0)
  if (at > end) return null
  return {
    kind,
    peerId: view.readUInt32BE(4),
    instance: view.subarray(8, 8 + INSTANCE_BYTES),
    number: view.readUIntBE(NUMBER_AT, 6),
    to: isToOne ? readOne(view) : readList(view),
    open: view.subarray(0, at),
    body: view.subarray(at),
    isSealed,
  }
}

const readOne = (view) => ({
  peerId: view.readUInt32BE(HEADER_BYTES),
  instance: view.subarray(HEADER_BYTES + 4, HEADER_BYTES + ONE_BYTES),
})

const readList = (view) =>
  Array.from({ length: view.readUInt16BE(HEADER_BYTES) }, (_, i) =>
    view.readUInt32BE(HEADER_BYTES + 2 + 4 * i),
  )

/** What is in a sealed message; undefined where it was sealed with another key, or changed. */
export const unsealed = ({ number, open, body }, key) => decrypt(key, number, open, body)

/**
 * Puts the parts of one sender's frames together. Memory follows what has arrived. Beyond a
 * quarter more than `maxBytes`, the length of the largest frame, and beyond 16 incomplete frames, the
 * oldest is given up: it is lost, and repaired.
 */
export class Parts {
  #frames = new Map() // number -> { length, have, cost, pieces: Map(at -> bytes) }
  #cost = 0
  #maxBytes

  constructor(maxBytes) {
    this.#maxBytes = maxBytes
  }

  /** Bytes, about, that the incomplete frames take. */
  get keptBytes() {
    return this.#cost
  }

  /** Takes the body of a PART; returns the frame if that was the last that lacked, else null. */
  take(body) {
    if (body.length <= PART_BYTES) return null
    const number = body.readUInt32BE()
    const length = body.readUInt32BE(4)
    const at = body.readUInt32BE(8)
    const piece = body.subarray(PART_BYTES)
    const end = at + piece.length
    if (length > this.#maxBytes || end > length) return null
    if (piece.length < LEAST_PIECE && end < length) return null
    const frame = this.#frames.get(number) ?? { length, have: 0, cost: 0, pieces: new Map() }
    this.#frames.set(number, frame)
    if (frame.length !== length || frame.pieces.has(at)) return null
    frame.pieces.set(at, Buffer.from(piece)) // a copy: what it is a view of is the client's
    frame.have += piece.length
    frame.cost += piece.length + PIECE_COST
    this.#cost += piece.length + PIECE_COST
    if (frame.have >= length) return this.#join(number, frame)
    while (this.#cost > 1.25 * this.#maxBytes || this.#frames.size > MAX_PARTIAL) {
      this.#forget(this.#frames.keys().next().value)
    }
    return null
  }

  #forget(number) {
    this.#cost -= this.#frames.get(number).cost
    this.#frames.delete(number)
  }

  #join(number, { length, pieces }) {
    this.#forget(number)
    const ordered = []
    for (let at = 0; at < length; at += ordered.at(-1).length) {
      const piece = pieces.get(at)
      if (!piece) return null // they overlap: no sender of ours makes such parts
      ordered.push(piece)
    }
    return Buffer.concat(ordered)
  }
}

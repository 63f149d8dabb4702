// The proof, before the core hears of a link, that both sides know one secret. Each side challenges
// the other with random bytes, and proves itself over both challenges and both peerIds:
//
//   CHALLENGE 32   version 1, type, peerId (4 bytes, big-endian), 32 random bytes
//   PROOF     33   version 1, type, HMAC-SHA-256(secret, label, prover's peerId, the other's peerId,
//                  prover's challenge, the other's challenge)
//
// As the challenge is fresh, no proof can be used again; as both peerIds are in it, none that was
// made for another peer, or by one, can be passed on as one's own. (HMAC: RFC 2104; the scheme is
// the mutual challenge and response of ISO/IEC 9798-4.) It protects who may link, not the bytes
// that follow: that is TLS's. Who was dialed proves itself second, so that a stranger gets nothing
// that a weak secret could be guessed from.
//
// Any of the frames may be lost or come twice: a challenge is sent again at every heartbeat, and gets
// the same proof again.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { codes, printable, ReplicError } from './errors.js'
import { MAX_PEER_ID } from './options.js'

const VERSION = 1
const HELLO = 1
const ERROR = 6
const CHALLENGE = 32
const PROOF = 33
const NONCE_BYTES = 32
const CHALLENGE_BYTES = 6 + NONCE_BYTES
const LABEL = 'replic-sqlite link'
const MAX_UINT32 = 2 ** 32 - 1
const VARINT_BYTES = 5 // of up to 32 bits
const MAX_TEXT_BYTES = 4096 // of an ERROR's message: no more is looked at

export class Handshake {
  #secret
  #peerId
  #proves
  #send
  #nonce = randomBytes(NONCE_BYTES)
  #theirs // { peerId, nonce } once they have challenged
  #isVerified = false
  #hasProven = false

  /** `provesFirst`: this side has dialed, or nobody can say. `send(bytes)`. */
  constructor({ secret, peerId, provesFirst, send }) {
    this.#secret = secret
    this.#peerId = peerId
    this.#proves = provesFirst
    this.#send = send
  }

  /** The other side's peerId once both have proven themselves; undefined before. */
  get peerId() {
    return this.#isVerified && this.#hasProven ? this.#theirs.peerId : undefined
  }

  /** Sends the challenge; again where the proof has not come yet. */
  challenge() {
    if (this.#isVerified) return
    const id = Buffer.alloc(4)
    id.writeUInt32BE(this.#peerId)
    this.#send(Buffer.concat([Buffer.from([VERSION, CHALLENGE]), id, this.#nonce]))
  }

  /** A frame came in. Throws REPLIC_AUTH, REPLIC_PEER, REPLIC_PROTOCOL or REPLIC_VERSION. */
  take(bytes) {
    if (bytes[0] !== VERSION) throw otherVersion(bytes[0])
    if (bytes[1] === CHALLENGE) this.#challenged(bytes)
    else if (bytes[1] === PROOF) this.#verify(bytes)
    else if (bytes[1] === HELLO && !this.#theirs) {
      throw unproven('the other side has not been given a secret: set the same one on both sides')
    }
    if (this.#theirs && this.#proves && !this.#hasProven) this.#prove()
  }

  #challenged(bytes) {
    if (bytes.length !== CHALLENGE_BYTES) throw malformed('CHALLENGE')
    const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    if (view.readUInt32BE(2) === 0) throw malformed('CHALLENGE')
    const theirs = { peerId: view.readUInt32BE(2), nonce: Buffer.from(view.subarray(6)) }
    if (theirs.peerId === this.#peerId) {
      const message = `the other side has this peer's own peerId ${this.#peerId}: every peer needs its own`
      throw new ReplicError('REPLIC_PEER', message)
    }
    const again = this.#theirs?.nonce.equals(theirs.nonce)
    if (this.#theirs && !again) return // one link is one handshake
    this.#theirs = theirs
    if (again && this.#hasProven) this.#prove()
  }

  #verify(bytes) {
    if (!this.#theirs) return // its challenge is still to come, and it will prove itself again
    const { peerId, nonce } = this.#theirs
    const wanted = this.#proof(peerId, this.#peerId, nonce, this.#nonce)
    const proof = bytes.subarray(2)
    if (proof.length !== wanted.length || !timingSafeEqual(proof, wanted)) {
      throw unproven(`peer ${peerId} has another secret: set the same one on both sides`)
    }
    this.#isVerified = true
    this.#proves = true
  }

  #prove() {
    const { peerId, nonce } = this.#theirs
    const proof = this.#proof(this.#peerId, peerId, this.#nonce, nonce)
    this.#send(Buffer.concat([Buffer.from([VERSION, PROOF]), proof]))
    this.#hasProven = true
  }

  #proof(prover, other, proversNonce, othersNonce) {
    const ids = Buffer.alloc(8)
    ids.writeUInt32BE(prover)
    ids.writeUInt32BE(other, 4)
    const hmac = createHmac('sha256', this.#secret)
    return hmac.update(LABEL).update(ids).update(proversNonce).update(othersNonce).digest()
  }
}

const otherVersion = (version) =>
  new ReplicError(
    'REPLIC_VERSION',
    `the other side speaks version ${version} of the protocol, this one ${VERSION}: update the older one`,
  )
const unproven = (message) => new ReplicError('REPLIC_AUTH', message)
const malformed = (frame) => new ReplicError('REPLIC_PROTOCOL', `a malformed ${frame} frame`)

/** Whether bytes are a frame of the handshake, which the core must not see. */
export const isOfHandshake = (bytes) =>
  bytes[0] === VERSION && (bytes[1] === CHALLENGE || bytes[1] === PROOF)

/** The peerId that a HELLO gives; undefined for other frames and for malformed ones. */
export function peerIdOfHello(bytes) {
  if (bytes[0] !== VERSION || bytes[1] !== HELLO) return undefined
  const { value } = readVarint(bytes, 3)
  return value >= 1 && value <= MAX_PEER_ID ? value : undefined
}

// A number of up to 32 bits, and where it ends; none if it is malformed, larger or cut off.
function readVarint(bytes, start) {
  let value = 0
  for (
    let i = start, factor = 1;
    i < bytes.length && i < start + VARINT_BYTES;
    i++, factor *= 128
  ) {
    value += (bytes[i] & 127) * factor
    if (bytes[i] < 128) return value <= MAX_UINT32 ? { value, end: i + 1 } : {}
  }
  return {}
}

/** An ERROR frame, and its reading: what one side tells the other before it closes a link. */
export function errorFrame({ code, message }) {
  const text = (string) => {
    const bytes = Buffer.from(string)
    return Buffer.concat([varint(bytes.length), bytes])
  }
  return Buffer.concat([Buffer.from([VERSION, ERROR]), text(code), text(message)])
}

/** The error that an ERROR frame tells of, untrusted; undefined for other frames. */
export function readError(bytes) {
  if (bytes[0] !== VERSION || bytes[1] !== ERROR) return undefined
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const code = readText(view, 2)
  const message = code && readText(view, code.end)
  if (message?.end !== view.length) return malformed('ERROR')
  const known = codes.includes(code.text) ? code.text : 'REPLIC_PROTOCOL'
  return new ReplicError(known, printable(`the other side reports: ${message.text}`))
}

function readText(view, at) {
  const { value: length, end: start } = readVarint(view, at)
  if (length === undefined || length > view.length - start) return undefined
  const end = start + length
  return { text: view.toString('utf8', start, Math.min(end, start + MAX_TEXT_BYTES)), end }
}

function varint(number) {
  const bytes = []
  let rest = number
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128)
  return Buffer.from([...bytes, rest])
}

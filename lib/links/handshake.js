// What happens on a link before the core hears of it, where there is a secret: both sides prove that they
// know it and agree on keys that nobody else has, by the Noise handshake of noise.js. Then frames go
// sealed (seal.js).
//
//   INITIATE 32    version 1, type, Noise's first message       by the side that dials
//   RESPOND  33    version 1, type, Noise's second message      by the other one
//   SEALED   36    an empty one: the side that dials has the keys, and so has the secret
//
// The payload of a message is what its side says of itself: peerId (4 bytes, big-endian), and flags (1:
// it wants what follows to be sealed). As the secret goes into the first message, a stranger gets no
// answer; as a recording of that can be sent again, the side that answers believes nobody before it has
// opened a SEALED frame. Where both sides have dialed, as over a socket that the application brings,
// the one with the greater public key goes on as that.
//
// Any of the frames may be lost or come twice: each side says its last one again at every heartbeat until the link is
// up. What comes again is not answered, or whoever has recorded one frame could have any number of answers; and
// whatever of these comes after the end changes nothing.

import { codes, printable, ReplicError } from '../base/errors.js'
import { MAX_PEER_ID } from '../base/options.js'
import { withoutSum, withSum } from '../base/sum.js'
import { Noise } from './noise.js'
import { isSealed, Seal } from './seal.js'

const VERSION = 1
const HELLO = 1
const ERROR = 6
const INITIATE = 32
const RESPOND = 33
const INTRODUCE = 37 // see authorization.js
const PROLOGUE = Buffer.from('replic-sqlite link 1')
const PAYLOAD_BYTES = 5
const WANTS_SEAL = 1
const NOTHING = Buffer.alloc(0)
const MAX_UINT32 = 2 ** 32 - 1
const VARINT_BYTES = 5 // of up to 32 bits
const MAX_TEXT_BYTES = 4096 // of an ERROR's message: no more is looked at

export class Handshake {
  #keys
  #self
  #send
  #noise
  #psk
  #isInitiator
  #said // this side's message, as it is sent again
  #isHeard = false // this side answers
  #theirs // { peerId, flags }
  #seal
  #isDone = false

  /**
   * `keys`: of the secrets that are accepted; this side dials with the first. `isInitiator`: it has dialed.
   * `wantsSeal`: what follows is to be encrypted; it is, unless neither side wants it. `send(bytes)`.
   */
  constructor({ keys, peerId, isInitiator, wantsSeal = true, send }) {
    this.#keys = keys
    this.#send = send
    this.#isInitiator = isInitiator
    this.#self = Buffer.alloc(PAYLOAD_BYTES)
    this.#self.writeUInt32BE(peerId)
    this.#self[4] = wantsSeal ? WANTS_SEAL : 0
  }

  /** The other side's peerId once it has proven itself; undefined before. */
  get peerId() {
    return this.#isDone ? this.#theirs.peerId : undefined
  }

  /** What frames are sealed with from then on; undefined before, and where neither side wants that. */
  get seal() {
    if (!this.#isDone) return undefined
    return (this.#self[4] | this.#theirs.flags) & WANTS_SEAL ? this.#seal : undefined
  }

  /** The key of the secret that is being proven, or was. */
  get key() {
    return this.#psk
  }

  /** Begins; and sends this side's last message again, as it may be lost. */
  begin() {
    if (this.#isDone) return this.#isInitiator ? this.#confirm() : undefined
    if (this.#isInitiator && !this.#noise) {
      this.#noise = this.#start(this.#keys[0])
      this.#said = message(INITIATE, this.#noise.write(this.#self))
    }
    if (this.#said) this.#send(this.#said)
  }

  /**
   * A frame came in. Returns a frame that was in it, for the core: the first sealed one may overtake the
   * empty one. Throws REPLIC_AUTH, REPLIC_PEER, REPLIC_PROTOCOL or REPLIC_VERSION.
   */
  take(bytes) {
    if (bytes[0] !== VERSION) throw otherVersion(bytes[0])
    if (isSealed(bytes)) return this.#confirmed(bytes)
    if (bytes[1] === INITIATE) this.#initiated(bytes)
    else if (bytes[1] === RESPOND) this.#responded(bytes)
    else if ((bytes[1] === HELLO || bytes[1] === INTRODUCE) && !this.#theirs) {
      throw unproven('only one side of this link has a secret: give both the same `secret`')
    }
    return undefined
  }

  #start(psk) {
    this.#psk = psk
    return new Noise({
      psk,
      isInitiator: this.#isInitiator,
      prologue: PROLOGUE,
    })
  }

  #initiated(bytes) {
    if (this.#isHeard || this.#isDone) return // one link is one handshake
    if (this.#isInitiator) {
      const mine = this.#noise.publicKey
      if (mine.compare(bytes.subarray(2, 2 + mine.length)) > 0) return // the other side gives way
      this.#isInitiator = false
    }
    const payload = this.#readWithAny(bytes.subarray(2))
    if (!payload)
      throw unproven('the other side has another secret: set the same one on both sides')
    this.#isHeard = true
    this.#learn(payload)
    const answer = this.#noise.write(this.#self)
    if (!answer) throw malformed('INITIATE')
    this.#seal = new Seal(this.#noise.keys)
    this.#said = message(RESPOND, answer)
    this.#send(this.#said)
  }

  // Which of the secrets it was is not said.
  #readWithAny(noiseMessage) {
    for (const key of this.#keys) {
      this.#noise = this.#start(key)
      const payload = this.#noise.read(noiseMessage)
      if (payload) return payload
    }
    return undefined
  }

  #responded(bytes) {
    if (!this.#isInitiator || !this.#noise || this.#isDone) return
    const payload = this.#noise.read(bytes.subarray(2))
    if (!payload)
      throw unproven('the other side has another secret: set the same one on both sides')
    this.#learn(payload)
    this.#seal = new Seal(this.#noise.keys)
    this.#isDone = true
    this.#confirm()
  }

  #confirm() {
    this.#send(this.#seal.seal(NOTHING))
  }

  #confirmed(bytes) {
    if (this.#isInitiator || !this.#seal) return undefined // overtook what goes before: lost, and repaired
    const frame = this.#seal.open(bytes)
    if (!frame) throw unproven('the other side does not have the keys of this link: dial again')
    this.#isDone = true
    return frame.length > 0 ? frame : undefined
  }

  #learn(payload) {
    if (payload.length !== PAYLOAD_BYTES) throw malformed('handshake')
    const peerId = payload.readUInt32BE()
    if (peerId === 0) throw malformed('handshake')
    if (peerId === this.#self.readUInt32BE()) {
      const text = `the other side has this peer's own peerId ${peerId}: every peer needs its own`
      throw new ReplicError('REPLIC_PEER', text)
    }
    this.#theirs = { peerId, flags: payload[4] }
  }
}

const message = (type, bytes) => Buffer.concat([Buffer.from([VERSION, type]), bytes])

export const otherVersion = (version) =>
  new ReplicError(
    'REPLIC_VERSION',
    `the other side speaks version ${version} of the protocol, this one ${VERSION}: update the older one`,
  )
const unproven = (message) => new ReplicError('REPLIC_AUTH', message)
const malformed = (frame) => new ReplicError('REPLIC_PROTOCOL', `a malformed ${frame} frame`)

/** Whether bytes are a frame of the handshake, which the core must not see. */
export const isOfHandshake = (bytes) =>
  bytes[0] === VERSION && (bytes[1] === INITIATE || bytes[1] === RESPOND)

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
  return withSum(Buffer.concat([Buffer.from([VERSION, ERROR]), text(code), text(message)]))
}

/** The error that an ERROR frame tells of, untrusted; undefined for other frames. */
export function readError(bytes) {
  if (bytes[0] !== VERSION || bytes[1] !== ERROR) return undefined
  const view = withoutSum(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
  const code = view && readText(view, 2)
  const message = code && readText(view, code.end)
  if (!message || message.end !== view.length) return malformed('ERROR')
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

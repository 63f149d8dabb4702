// Datagrams: their layout and what protects them. Numbers are big-endian; an id is 8 random bytes
// that the receiver of the datagram chose, a counter never repeats in a session and direction.
//
//   of a handshake                                        of a session
//   INIT     mark 1 id, zeros up to 32 bytes              DATA   mark 6 id counter segment(6) flags bytes tag
//   COOKIE   mark 2 id cookie(16)                         ACK    mark 7 id counter echo(8) next(6) bitmap tag
//   CONNECT  mark 3 id cookie(16) peerId(4) nonce(32)     FIN    mark 8 id counter tag
//            [proof(32)]
//   ACCEPT   mark 4 id id'(8) peerId(4) nonce(32) tag
//   REFUSE   mark 5 id reason(1)                          ANNOUNCE  mark 9 peerId(4) asks(1), zeros
//                                                                   up to 80 bytes, tag(16) or zeros
//
// A tag is HMAC-SHA-256 over all that precedes it, cut to 16 bytes; without a secret there is none.
// handshake.js has the order of the handshake; each answer in it is smaller than its question.

import { createHmac, createSecretKey, hkdfSync, timingSafeEqual } from 'node:crypto'

export const MARK = 0xe1 // and version 1
export const INIT = 1
export const COOKIE = 2
export const CONNECT = 3
export const ACCEPT = 4
export const REFUSE = 5
export const DATA = 6
export const ACK = 7
export const FIN = 8
export const ANNOUNCE = 9

export const ID_BYTES = 8
export const COOKIE_BYTES = 16
export const NONCE_BYTES = 32
export const PROOF_BYTES = 32
export const TAG_BYTES = 16
const HEADER_BYTES = 10 // mark, type, id
export const SESSION_BYTES = 18 // and the counter
export const DATA_BYTES = SESSION_BYTES + 7 // and segment, flags
export const ACK_BYTES = SESSION_BYTES + 14 // and echo, next
const INIT_BYTES = 32
const ANNOUNCE_BYTES = 96 // three times an INIT: see Group
const CONNECT_BYTES = HEADER_BYTES + COOKIE_BYTES + 4 + NONCE_BYTES
const ACCEPT_BYTES = HEADER_BYTES + ID_BYTES + 4 + NONCE_BYTES
/** Bytes of an ACK's bitmap: a bit for each segment that a receiver may keep. */
export const MAX_BITMAP_BYTES = 512
const LABEL = 'replic-sqlite udp 1'

/** Flags of DATA: the segment ends a frame; nothing follows it in this session. */
export const LAST = 1
export const END = 2

const begin = (type, id) => Buffer.concat([Buffer.from([MARK, type]), id])
const uint32 = (value) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** A counter in 8 bytes: up to 2^53 - 1. */
function writeCounter(bytes, value, at) {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at)
  bytes.writeUInt32BE(value % 2 ** 32, at + 4)
}
/** undefined for what no number holds exactly: nobody counts that far. */
function readCounter(bytes, at) {
  const value = bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4)
  return value <= Number.MAX_SAFE_INTEGER ? value : undefined
}

/** The type of a datagram that may be one of ours; undefined otherwise. */
export const typeOf = (bytes) =>
  bytes.length >= HEADER_BYTES && bytes[0] === MARK ? bytes[1] : undefined

/** Whom a datagram is for, as a key of a Map. */
export const idOf = (bytes) => bytes.toString('latin1', 2, HEADER_BYTES)
export const keyOf = (id) => id.toString('latin1')

export const init = (id) =>
  Buffer.concat([begin(INIT, id), Buffer.alloc(INIT_BYTES - HEADER_BYTES)])
export const isInit = (bytes) => bytes.length === INIT_BYTES
export const readId = (bytes) => Buffer.from(bytes.subarray(2, HEADER_BYTES))

export const cookie = (id, value) => Buffer.concat([begin(COOKIE, id), value])
/** The cookie of a COOKIE; undefined if it is malformed. */
export const readCookie = (bytes) =>
  bytes.length === HEADER_BYTES + COOKIE_BYTES ? Buffer.from(bytes.subarray(10)) : undefined

export function connect({ id, cookie, peerId, nonce }, secret) {
  const open = Buffer.concat([begin(CONNECT, id), cookie, uint32(peerId), nonce])
  return secret ? Buffer.concat([open, proofOf(open, secret)]) : open
}

/** { id, cookie, peerId, nonce, open, proof }; undefined if it is malformed. */
export function readConnect(bytes) {
  const proof = bytes.subarray(CONNECT_BYTES)
  if (bytes.length < CONNECT_BYTES || (proof.length !== 0 && proof.length !== PROOF_BYTES)) return
  const at = HEADER_BYTES + COOKIE_BYTES
  if (bytes.readUInt32BE(at) === 0) return // no peer's id
  return {
    id: readId(bytes),
    cookie: bytes.subarray(HEADER_BYTES, at),
    peerId: bytes.readUInt32BE(at),
    nonce: Buffer.from(bytes.subarray(at + 4, CONNECT_BYTES)),
    open: bytes.subarray(0, CONNECT_BYTES),
    proof,
  }
}

const proofOf = (open, secret) => createHmac('sha256', secret).update(LABEL).update(open).digest()
export const isProven = ({ open, proof }, secret) =>
  proof.length === PROOF_BYTES && timingSafeEqual(proof, proofOf(open, secret))

export function accept({ id, ownId, peerId, nonce }, seal) {
  const open = Buffer.concat([begin(ACCEPT, id), ownId, uint32(peerId), nonce])
  return Buffer.concat([open, seal.tag(open)])
}

/** { id, peerId, nonce }: of the side that accepts; undefined if it is malformed. */
export function readAccept(bytes, hasTag) {
  if (bytes.length !== ACCEPT_BYTES + (hasTag ? TAG_BYTES : 0)) return undefined
  const at = HEADER_BYTES + ID_BYTES
  if (bytes.readUInt32BE(at) === 0) return undefined
  return {
    id: Buffer.from(bytes.subarray(HEADER_BYTES, at)),
    peerId: bytes.readUInt32BE(at),
    nonce: Buffer.from(bytes.subarray(at + 4, ACCEPT_BYTES)),
  }
}

export const refuse = (id, reason) => Buffer.concat([begin(REFUSE, id), Buffer.from([reason])])
export const readRefuse = (bytes) => (bytes.length === HEADER_BYTES + 1 ? bytes[10] : undefined)

/** The beginning of a datagram of a session; `more` bytes are left for what its type adds. */
export function header(type, id, counter, more = 0) {
  const bytes = Buffer.allocUnsafe(SESSION_BYTES + more)
  bytes[0] = MARK
  bytes[1] = type
  id.copy(bytes, 2)
  writeCounter(bytes, counter, HEADER_BYTES)
  return bytes
}
/** The counter of a datagram of a session; undefined if it is none. */
export const counterOf = (bytes) => readCounter(bytes, HEADER_BYTES)

export function dataHeader(id, counter, { number, flags }) {
  const bytes = header(DATA, id, counter, 7)
  bytes.writeUIntBE(number, SESSION_BYTES, 6)
  bytes[SESSION_BYTES + 6] = flags
  return bytes
}
/** { number, flags, payload } of DATA without its tag; undefined if it is malformed. Only END has no payload. */
export function readData(open) {
  if (open.length < DATA_BYTES) return undefined
  const flags = open[SESSION_BYTES + 6]
  const payload = open.subarray(DATA_BYTES)
  if (flags > END || (flags === END) !== (payload.length === 0)) return undefined
  return { number: open.readUIntBE(SESSION_BYTES, 6), flags, payload }
}

export function ackHeader(id, counter, { echo, next }) {
  const bytes = header(ACK, id, counter, 14)
  writeCounter(bytes, echo, SESSION_BYTES)
  bytes.writeUIntBE(next, SESSION_BYTES + 8, 6)
  return bytes
}
/** { echo, next, bitmap } of ACK without its tag; undefined if it is malformed. */
export function readAck(open) {
  if (open.length < ACK_BYTES || open.length > ACK_BYTES + MAX_BITMAP_BYTES) return undefined
  const echo = readCounter(open, SESSION_BYTES)
  if (echo === undefined) return undefined
  return { echo, next: open.readUIntBE(SESSION_BYTES + 8, 6), bitmap: open.subarray(ACK_BYTES) }
}

export function announce(peerId, asks, secret) {
  const open = Buffer.alloc(ANNOUNCE_BYTES - TAG_BYTES)
  open[0] = MARK
  open[1] = ANNOUNCE
  open.writeUInt32BE(peerId, 2)
  open[6] = asks ? 1 : 0
  return Buffer.concat([open, secret ? announceTag(secret, open) : Buffer.alloc(TAG_BYTES)])
}
/** { peerId, asks }; undefined if it is malformed, null if its tag is of none of the secrets. */
export function readAnnounce(bytes, secrets) {
  if (bytes.length !== ANNOUNCE_BYTES) return undefined
  const open = bytes.subarray(0, -TAG_BYTES)
  const tag = bytes.subarray(-TAG_BYTES)
  const isOf = (secret) => timingSafeEqual(announceTag(secret, open), tag)
  if (secrets.length > 0 && !secrets.some(isOf)) return null
  const peerId = bytes.readUInt32BE(2)
  return peerId > 0 && bytes[6] <= 1 ? { peerId, asks: bytes[6] === 1 } : undefined
}
const announceTag = (secret, open) =>
  tagOf(derive(secret, Buffer.alloc(0), `${LABEL} announce`)[0], open)

/** Tags of one session: none without a secret. */
export class Seal {
  #out
  #in

  constructor(keyOut, keyIn) {
    this.#out = keyOut
    this.#in = keyIn
  }

  get isAuthenticated() {
    return this.#out !== undefined
  }

  get bytes() {
    return this.#out ? TAG_BYTES : 0
  }

  /** The tag of what is sent in these parts. */
  tag(...parts) {
    return this.#out ? tagOf(this.#out, ...parts) : Buffer.alloc(0)
  }

  /** A datagram that was received, without its tag; undefined if that is wrong. */
  open(bytes) {
    if (!this.#in) return bytes
    if (bytes.length < TAG_BYTES) return undefined
    const open = bytes.subarray(0, -TAG_BYTES)
    return timingSafeEqual(tagOf(this.#in, open), bytes.subarray(-TAG_BYTES)) ? open : undefined
  }
}

/** The seal of a session, from what both sides have said: { id, peerId, nonce } of each. */
export function sealOf(secret, dialer, accepter, isDialer) {
  if (!secret) return new Seal()
  const salt = Buffer.concat([dialer.nonce, accepter.nonce])
  const said = [dialer.id, uint32(dialer.peerId), accepter.id, uint32(accepter.peerId)]
  const keys = derive(secret, salt, Buffer.concat([Buffer.from(LABEL), ...said]))
  return isDialer ? new Seal(keys[0], keys[1]) : new Seal(keys[1], keys[0])
}

// Two keys: RFC 5869 with SHA-256.
function derive(secret, salt, info) {
  const bytes = Buffer.from(hkdfSync('sha256', secret, salt, info, 64))
  return [createSecretKey(bytes.subarray(0, 32)), createSecretKey(bytes.subarray(32))]
}

function tagOf(key, ...parts) {
  const hmac = createHmac('sha256', key)
  for (const part of parts) hmac.update(part)
  return hmac.digest().subarray(0, TAG_BYTES)
}

// What comes before authorize() has said who may link, and what it has said. Until then this side tells
// its peerId at most, and keeps one HELLO of the other one.
//
//   INTRODUCE 37   version 1, type, peerId (4 bytes, big-endian), sum
//
// is sent by a side that has no secret and asks authorize(): where both do, they would wait for each other's HELLO
// else. It is sent again at every heartbeat until that side says HELLO.

import { ReplicError } from '../base/errors.js'
import { MAX_PEER_ID } from '../base/options.js'
import { withoutSum, withSum } from '../base/sum.js'
import { otherVersion, peerIdOfHello } from './handshake.js'

const VERSION = 1
const HELLO = 1
const INTRODUCE = 37

/** The frame that says who sends it. */
export function introduction(peerId) {
  const frame = Buffer.from([VERSION, INTRODUCE, 0, 0, 0, 0])
  frame.writeUInt32BE(peerId, 2)
  return withSum(frame)
}

export const isIntroduction = (bytes) => bytes[0] === VERSION && bytes[1] === INTRODUCE
export const isHello = (bytes) => bytes[0] === VERSION && bytes[1] === HELLO

/**
 * Who sends a frame, as it says itself; undefined for frames that do not say so. Throws REPLIC_VERSION for a HELLO of
 * another version of the protocol, and REPLIC_PROTOCOL where it is damaged or the peerId is none.
 */
export function senderOf(bytes) {
  if (bytes[1] === HELLO && bytes[0] !== VERSION) throw otherVersion(bytes[0])
  if (!isHello(bytes) && !isIntroduction(bytes)) return undefined
  const frame = withoutSum(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
  const peerId = frame && (isHello(frame) ? peerIdOfHello(frame) : readUInt32(frame, 2))
  if (peerId >= 1 && peerId <= MAX_PEER_ID) return peerId
  throw new ReplicError(
    'REPLIC_PROTOCOL',
    'a malformed HELLO frame: it is damaged, or names no peer',
  )
}

/** What authorize() has said of a peer, as { write }. Throws REPLIC_AUTH unless that permits to link. */
export function rightsOf(answer, peerId) {
  if (!answer) throw new ReplicError('REPLIC_AUTH', `peer ${peerId} is not authorized to link`)
  if (typeof answer !== 'object') return { write: true }
  const { write, ...others } = answer
  if (typeof write === 'boolean' && Object.keys(others).length === 0) return { write }
  const what = Object.keys(answer).join(', ') || 'nothing'
  throw new ReplicError(
    'REPLIC_AUTH',
    `authorize() has answered with an object that says ${what}: give true, false or { write: boolean }`,
  )
}

const readUInt32 = (bytes, at) => (bytes.length === at + 4 ? bytes.readUInt32BE(at) : undefined)

// What the fuzzers of the decoders feed on: a recorded session, as each transport carries it, and mutations of that.

import { readFileSync } from 'node:fs'
import { withSum } from '../../lib/base/sum.js'
import { keyOf } from '../../lib/links/secret.js'
import { Writer } from '../../lib/transport/bus-message.js'
import { Session as HttpSession } from '../../lib/transport/http-frames.js'
import * as datagram from '../../lib/transport/udp/datagram.js'

export const SECRET = 'a secret of the tests, long enough'
export const KEY = await keyOf(SECRET)

const lines = () =>
  readFileSync(new URL('session.txt', import.meta.url), 'latin1')
    .trim()
    .split('\n')

/** The frames of a link, of both sides. */
export const frames = () => lines().map((line) => Buffer.from(line.slice(2), 'hex'))

/** The same, as a stream of TCP. */
export const stream = (some) =>
  Buffer.concat([Buffer.from('REPLIC'), ...some.flatMap((frame) => [uint32(frame.length), frame])])

export const uint32 = (value) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

const ID = Buffer.from('replicid')
export const INSTANCE = 'replicid (a bus)'
const NONCE = Buffer.alloc(32, 7)

/** The same, as datagrams: of a handshake, and of a session. */
export function datagrams(some) {
  const said = { id: ID, peerId: 11, nonce: NONCE, cookie: Buffer.alloc(16, 5) }
  const seal = datagram.sealOf(undefined)
  return [
    datagram.init(ID),
    datagram.cookie(ID, said.cookie),
    datagram.connect(said),
    datagram.connect(said, KEY),
    datagram.accept({ ...said, ownId: ID }, seal),
    datagram.refuse(ID, 1),
    datagram.announce(11, true),
    datagram.header(datagram.FIN, ID, 1),
    ...some.flatMap((frame, number) => [
      Buffer.concat([datagram.dataHeader(ID, number + 1, { number, flags: 1 }), frame]),
      Buffer.concat([datagram.ackHeader(ID, number + 1, { echo: number, next: number }), NONCE]),
    ]),
  ]
}

/** Of the subjects of a bus. */
export const PREFIX = 'replic'

/** The same, as messages of a bus. */
export function messages(some, secret) {
  const instance = Buffer.from(INSTANCE)
  const writer = new Writer({ peerId: 11, instance, prefix: PREFIX, secret })
  const to = { peerId: 12, instance }
  const large = Buffer.concat(Array(40).fill(Buffer.concat(some)))
  return [
    ...[1, 2, 5].map((kind) => writer.message(kind, kind === 1 ? [] : to)),
    ...some.map((frame) => writer.message(3, [12, 13], frame)),
    ...writer.frame(to, large, 4096),
  ]
}

/** The same, as bodies of requests. */
export function bodies(some) {
  const session = new HttpSession({ windowBytes: 1 << 24, maxFrameBytes: 1 << 24 })
  session.ready = () => {}
  for (const frame of some) session.send(frame)
  session.send(Buffer.concat(some))
  const all = []
  while (session.hasFrames) all.push(session.takeBody(1024))
  return all
}

const BYTES = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff]
const NUMBERS = [
  0n,
  1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
]

/** One of a list. */
export const oneOf = (random, list) => list[random(list.length)]
export const noise = (random, length) =>
  Buffer.from(Array.from({ length: random(length + 1) }, () => random(256)))

const MUTATIONS = [
  (random, bytes) => {
    bytes[random(bytes.length)] ^= 1 << random(8)
    return bytes
  },
  (random, bytes) => {
    bytes[random(bytes.length)] = oneOf(random, BYTES)
    return bytes
  },
  (random, bytes) => {
    const number = Buffer.alloc(8)
    number.writeBigUInt64BE(oneOf(random, NUMBERS))
    const width = oneOf(random, [2, 4, 6, 8])
    number.copy(bytes, random(bytes.length), random(2) ? 0 : 8 - width)
    return bytes
  },
  (random, bytes) => bytes.subarray(0, random(bytes.length + 1)),
  (random, bytes) => bytes.subarray(random(bytes.length)),
  (random, bytes) => Buffer.concat([bytes, noise(random, 40)]),
  (random, bytes) => {
    const [from, at] = [random(bytes.length), random(bytes.length)]
    const slice = bytes.subarray(from, from + random(64))
    return Buffer.concat([bytes.subarray(0, at), slice, bytes.subarray(at)])
  },
  (random, bytes, others) => {
    const other = oneOf(random, others)
    return Buffer.concat([
      bytes.subarray(0, random(bytes.length)),
      other.subarray(random(other.length)),
    ])
  },
]

/** One of these inputs, changed in up to four places, or as it is. */
export function mutated(random, all) {
  let bytes = Buffer.from(oneOf(random, all))
  for (let left = random(5); left > 0 && bytes.length > 0; left--) {
    bytes = Buffer.from(oneOf(random, MUTATIONS)(random, bytes, all))
  }
  return bytes
}

/** The same of frames, mostly with the right sum: else nothing would come as far as what reads them. */
export function mutatedFrame(random, all) {
  if (random(4) === 0) return mutated(random, all)
  return withSum(
    mutated(
      random,
      all.map((frame) => frame.subarray(0, -4)),
    ),
  )
}

/** Bytes in pieces, as a network may deliver them. */
export function pieces(random, bytes) {
  const all = []
  const most = oneOf(random, [1, 7, 300, 70_000])
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random(most)
    all.push(bytes.subarray(at, at + length))
    at += length
  }
  return all
}

/** A value of JSON with some of it changed. */
export function mutatedJson(random, value) {
  if (random(8) === 0) return oneOf(random, JUNK)
  if (Array.isArray(value)) {
    const list = value.map((item) => (random(4) ? item : mutatedJson(random, item)))
    return random(6) ? list : [...list, ...list, null].slice(random(list.length + 1))
  }
  if (typeof value !== 'object' || value === null) return random(3) ? value : oneOf(random, JUNK)
  const pairs = Object.entries(value).filter(() => random(12) > 0)
  return Object.fromEntries(
    pairs.map(([name, each]) => [name, random(3) ? each : mutatedJson(random, each)]),
  )
}
const JUNK = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  2 ** 53,
  '',
  'x',
  '0123456789abcdef',
  [],
  {},
  [null],
  [[]],
  { length: 9 },
]

// Frames as objects, for people: the layout is that on top of src/core/links/wire.c. It is a reading of its
// own and not the core's decoder: it shows what a frame says, and does not judge it any further.

import { ReplicError } from '../base/errors.js'
import { withoutSum } from '../base/sum.js'
import { TAG_BYTES } from '../links/noise.js'

const malformed = (what) => new ReplicError('REPLIC_PROTOCOL', what)
const [HELLO, PATCHES, ACK, NEED, SCHEMA, ERROR, STAGE, JUMP, TAKE, MESSAGE, FORK] = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
]
const [INITIATE, RESPOND, PART, LAST_PART, SEALED, INTRODUCE] = [32, 33, 34, 35, 36, 37]
const KEY_BYTES = 32

class Reader {
  #bytes
  #at = 0

  constructor(bytes) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  get left() {
    return this.#bytes.length - this.#at
  }

  u8() {
    return this.bytes(1)[0]
  }

  bytes(length) {
    if (length > this.left) {
      throw malformed(`byte ${this.#at}: ${length} bytes are wanted, and ${this.left} are left`)
    }
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  /** LEB128, as a bigint. */
  big() {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.u8()
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    throw malformed(`byte ${this.#at}: a number is longer than ten bytes`)
  }

  number() {
    return Number(this.big())
  }

  text() {
    return this.bytes(this.number()).toString()
  }

  list(read) {
    const count = this.number()
    if (count > this.left)
      throw malformed(`byte ${this.#at}: a list of ${count} does not fit into the rest`)
    return Array.from({ length: count }, read)
  }

  value() {
    const head = this.u8()
    const number = () => (head >> 3 < 31 ? BigInt(head >> 3) : this.big())
    switch (head & 7) {
      case 1:
        return null
      case 2: {
        const zigzag = number()
        return zigzag & 1n ? -(zigzag >> 1n) - 1n : zigzag >> 1n
      }
      case 3:
        return this.bytes(8).readDoubleLE()
      case 4:
        return this.bytes(Number(number())).toString()
      case 5:
        return this.bytes(Number(number()))
    }
    throw malformed(`byte ${this.#at}: there is no type of value ${head & 7}`)
  }
}

/** Decodes the frames of one direction of a link: a SCHEMA says what later patches mean. */
export class Decoder {
  #tables = new Map() // id -> { table, keys, fields }
  #parts = []

  /** One frame as an object with `frame`, its name; undefined for a part that others follow. */
  decode(bytes) {
    const head = new Reader(bytes)
    const version = head.u8()
    if (version !== 1) throw malformed(`version ${version} is not known here; 1 is`)
    const type = head.u8()
    const read = READERS[type]
    if (type === PART || type === LAST_PART) return this.#part(head, type)
    if (!read) throw malformed(`there is no type of frame ${type}`)
    const in_ = type <= FORK || type === INTRODUCE ? bodyOf(bytes) : head
    const frame = read(in_, this.#tables)
    if (in_.left > 0) throw malformed(`${frame.frame}: ${in_.left} bytes are left over`)
    return frame
  }

  #part(in_, type) {
    this.#parts.push(in_.bytes(in_.left))
    if (type === PART) return undefined
    const whole = Buffer.concat(this.#parts)
    this.#parts = []
    return this.decode(whole)
  }
}

function bodyOf(bytes) {
  const frame = withoutSum(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
  if (!frame) throw malformed('its last four bytes are not the sum of those before: it is damaged')
  return new Reader(frame.subarray(2))
}

const peers = (in_) => in_.list(() => in_.number())
const sequences = (in_) => Object.fromEntries(in_.list(() => [in_.number(), in_.number()]))

// Linked peers: nothing, all of them, or those that have come or gone since that number.
function list(in_) {
  const kind = in_.number()
  if (kind === 0) return {}
  if (kind === 1) return { number: in_.number(), linked: peers(in_) }
  if (kind !== 2) throw malformed(`there is no kind ${kind} of a list of linked peers`)
  const [since, number] = [in_.number(), in_.number()]
  const changes = in_.list(() => [in_.number(), in_.number() === 1])
  return { since, number, changes: Object.fromEntries(changes) }
}

const leader = (in_) => (in_.left > 0 ? { leader: in_.number() } : {})

const flags = (bits) => ({
  wantsAnswer: (bits & 1) !== 0,
  mayWrite: (bits & 2) === 0,
  isVoid: (bits & 4) !== 0,
})

const READERS = {
  [HELLO]: (in_) => ({
    frame: 'HELLO',
    ...flags(in_.number()),
    peerId: in_.number(),
    instance: in_.number(),
    wallClock: in_.number(),
    vector: in_.list(() => ({
      origin: in_.number(),
      sequence: in_.number(),
      patchedAt: in_.number(),
      epoch: in_.number(),
    })),
    number: in_.number(),
    linked: peers(in_),
    ...leader(in_),
  }),
  [PATCHES]: (in_, tables) => ({ frame: 'PATCHES', ...patches(in_, tables, false) }),
  [STAGE]: (in_, tables) => ({ frame: 'STAGE', age: in_.number(), ...patches(in_, tables, true) }),
  [ACK]: (in_) => {
    const ack = {
      frame: 'ACK',
      wallClock: in_.number(),
      bytesSent: in_.number(),
      bytesArrived: in_.number(),
      applied: sequences(in_),
      sent: sequences(in_),
      staged: sequences(in_),
    }
    const known = in_.number()
    if (known > 0) ack.knows = known - 1
    return { ...ack, ...list(in_), ...leader(in_) }
  },
  [NEED]: (in_) => ({ frame: 'NEED', origin: in_.number(), after: in_.number() }),
  [SCHEMA]: (in_, tables) => {
    const id = in_.number()
    const table = in_.text()
    const keys = in_.number()
    const fields = in_.list(() => ({ name: in_.text(), type: in_.text() }))
    tables.set(id, { table, keys, fields: fields.map(({ name }) => name) })
    const strict = in_.left > 0 ? in_.number() === 1 : undefined
    if (strict !== undefined) for (const field of fields) field.rules = in_.text()
    const parted = { keys: fields.slice(0, keys), fields: fields.slice(keys) }
    return { frame: 'SCHEMA', id, table, strict, ...parted }
  },
  [ERROR]: (in_) => {
    const error = { frame: 'ERROR', code: in_.text(), message: in_.text() }
    return in_.left > 0 ? { ...error, origin: in_.number(), after: in_.number() } : error
  },
  [JUMP]: (in_) => ({
    frame: 'JUMP',
    vector: in_.list(() => ({
      origin: in_.number(),
      sequence: in_.number(),
      patchedAt: in_.number(),
      epoch: in_.number(),
      floor: in_.number(),
    })),
  }),
  [TAKE]: (in_) => ({ frame: 'TAKE', goesOn: in_.number() === 1, staged: sequences(in_) }),
  [MESSAGE]: (in_) => {
    const bytes = in_.bytes(in_.left)
    return { frame: 'MESSAGE', text: bytes.toString() }
  },
  [FORK]: (in_) => ({
    frame: 'FORK',
    origin: in_.number(),
    last: in_.number(),
    patches: in_.list(() => ({
      sequence: in_.number(),
      patchedAt: in_.number(),
      epoch: in_.number(),
    })),
    givenUp: { sequence: in_.number(), patchedAt: in_.number(), epoch: in_.number() },
    isAdvice: in_.number() === 1,
  }),
  [INITIATE]: (in_) => noise('INITIATE', in_),
  [RESPOND]: (in_) => noise('RESPOND', in_),
  [INTRODUCE]: (in_) => ({ frame: 'INTRODUCE', peerId: in_.bytes(4).readUInt32BE() }),
  [SEALED]: (in_) => ({
    frame: 'SEALED',
    number: in_.bytes(6).readUIntBE(0, 6),
    bytes: in_.bytes(in_.left).length - TAG_BYTES,
  }),
}

const noise = (frame, in_) => ({
  frame,
  key: in_.bytes(KEY_BYTES).toString('hex'),
  sealed: in_.bytes(in_.left).toString('hex'),
})

function patches(in_, tables, isStage) {
  const head = { origin: in_.number(), after: in_.number(), upTo: in_.number() }
  const afterClock = in_.number()
  head.afterEpoch = in_.number()
  let from = head.after
  head.epochs = in_.list(() => {
    from += in_.number()
    return { from, epoch: in_.number() }
  })
  let left = isStage ? in_.number() : head.upTo - head.after
  let sequence = head.after
  let patchedAt = afterClock
  head.patches = []
  while (left-- > 0 && in_.left > 0) {
    const step = in_.number()
    sequence += Math.floor(step / 2) + 1
    const begins = step % 2 === 1
    if (begins) patchedAt += in_.number()
    const patch = readPatch(in_, tables)
    head.patches.push({ sequence, patchedAt, begins, ...patch })
    if (patch.unread) return head
  }
  return head
}

// Without the table's SCHEMA nobody can tell where a patch ends.
function readPatch(in_, tables) {
  const id = in_.number()
  const known = tables.get(id)
  if (!known) return { tableId: id, unread: in_.bytes(in_.left).length }
  const key = {}
  for (const name of known.fields.slice(0, known.keys)) key[name] = in_.value()
  const others = known.fields.slice(known.keys)
  const bitmap = in_.bytes(Math.ceil(others.length / 8))
  const set = {}
  others.forEach((name, i) => {
    if ((bitmap[i >> 3] >> (i & 7)) & 1) set[name] = in_.value()
  })
  return { table: known.table, key, set }
}

// npm run bench:hostile [-- NAME ...]: what a linked peer that means harm does to the writes of this one.
//
// Another process links to a replica with ROWS rows, and sends BYTES of frames of one kind, or for SECONDS, as fast as
// they are taken: those that cost most. Meanwhile one row is upserted after the other, durability 'normal'. Shown are how
// long an upsert has waited and how late the event loop was, at most and at the 99th percentile, until all frames are
// worked off, the link is closed, or SECONDS later; `nothing` is the same without frames. Beyond LIMITS the exit code is 1.
// With `attack` as its argument this file is the other process.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { connect as netConnect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { withSum } from '../lib/sum.js'
import { listen } from '../lib/transport/tcp.js'
import { FrameSocket } from '../lib/transport/tcp-frames.js'
import { makeRows } from './data.js'
import { table, withFile } from './harness.js'
import { openReplic } from './replic.js'

const MiB = 1024 * 1024
const BYTES = 64 * MiB
const SECONDS = 10
const ROWS = 50_000
const MOST_WRITTEN = 4 * MiB // and not taken by the socket
const LIMITS = { upsert: 250, loop: 50 } // ms
const PAUSE_MS = 2 // between two upserts
const HOSTILE = 900
const MAX_FRAME = 64 * MiB

// ---- frames, from docs/protocol.md ----

const [HELLO, PATCHES, ACK, NEED, SCHEMA, ERROR, STAGE, JUMP, TAKE, MESSAGE, FORK] = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
]

class Frame {
  #bytes = Buffer.allocUnsafe(256)
  #length = 0

  constructor(type) {
    this.u8(1).u8(type)
  }

  get length() {
    return this.#length
  }

  #reserve(n) {
    if (this.#length + n <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(2 * (this.#length + n))
    this.#bytes.copy(grown, 0, 0, this.#length)
    this.#bytes = grown
  }

  u8(value) {
    this.#reserve(1)
    this.#bytes[this.#length++] = value
    return this
  }

  varint(...values) {
    for (let value of values) {
      for (; value >= 128; value = Math.floor(value / 128)) this.u8((value % 128) + 128)
      this.u8(value)
    }
    return this
  }

  bytes(value) {
    const bytes = Buffer.from(value)
    this.#reserve(bytes.length)
    bytes.copy(this.#bytes, this.#length)
    this.#length += bytes.length
    return this
  }

  text(value) {
    return this.varint(Buffer.byteLength(value)).bytes(value)
  }

  int(value) {
    return value <= 15 ? this.u8(2 + 16 * value) : this.u8(2 + 8 * 31).varint(2 * value)
  }

  take() {
    return withSum(this.#bytes.subarray(0, this.#length))
  }
}

const hello = (flags, peer, vector = [], direct = []) =>
  new Frame(HELLO)
    .varint(flags, peer, 7, Date.now(), vector.length / 4, ...vector, direct.length, ...direct)
    .take()
const schema = (id, name, fields) => {
  const frame = new Frame(SCHEMA).varint(id).text(name).varint(1, fields.length)
  for (const [field, type] of fields) frame.text(field).text(type)
  return frame.take()
}
const FIELDS = [
  ['id', 'INTEGER'],
  ['body', 'TEXT'],
]
const UNKNOWN = [
  ['k', 'INTEGER'],
  ['v', 'INTEGER'],
]
/** Patches (after, after + n] of `origin`; `add(frame, i)` puts table, key, bitmap and values. */
const patches = (origin, after, n, add, perGroup = 1, clock = 1000) => {
  const frame = new Frame(PATCHES).varint(origin, after, after + n, after && clock, after && 7)
  frame.varint(after ? 0 : 1)
  if (!after) frame.varint(1, 7)
  for (let i = 0; i < n; i++) {
    const begins = i % perGroup === 0
    frame.varint(begins ? 1 : 0)
    if (begins) frame.varint(after || i ? 0 : clock)
    add(frame, after + i)
  }
  return frame.take()
}
const tiny = (frame, i) => frame.varint(1).int(i).u8(0)

// ---- the kinds ----

function* each(make) {
  for (let i = 0; ; i++) yield make(i)
}

/** name -> (world) => frames; world: { peerId } of the other side. */
const KINDS = {
  *nothing() {},
  definitions: () => each((i) => schema(i + 1, `t${i}`, FIELDS)),
  *'patches of 16,000 tables'() {
    const N = 16_000
    for (let i = 0; i < N; i++) yield schema(i + 1, `t${i}`, UNKNOWN)
    const used = (frame, i) =>
      frame
        .varint(1 + (i % N))
        .int(i % 1000)
        .u8(1)
        .int(i)
    for (let after = 0; ; after += 400_000) yield patches(HOSTILE, after, 400_000, used)
  },
  'definitions of 32,767 columns': () =>
    each((i) =>
      schema(
        i + 1,
        'item',
        Array.from({ length: 32_767 }, (_, k) => [`f${(k + i).toString(36)}`, '']),
      ),
    ),
  'columns of one name': () =>
    each((i) => schema(i + 1, 'item', [FIELDS[0], ...Array(32_000).fill(['body', 'TEXT'])])),
  *'new origins, and long lists of linked peers'() {
    yield schema(1, 'item', FIELDS)
    for (let k = 0; k < 5000; k++) yield patches(100_000 + k, 0, 1, tiny)
    for (;;) {
      const direct = Array.from({ length: 16_384 }, (_, k) => 1 + k)
      const frame = new Frame(ACK).varint(Date.now(), 0, 0, 0, direct.length + 1)
      for (const peer of direct) frame.varint(peer)
      yield frame.take()
    }
  },
  'ACK of 16,000 origins': () =>
    each((i) => {
      const frame = new Frame(ACK).varint(Date.now())
      for (let list = 0; list < 3; list++) {
        frame.varint(16_000)
        for (let k = 0; k < 16_000; k++) frame.varint(1000 + k, 1 + i)
      }
      return frame.varint(0).take()
    }),
  NEED: ({ peerId }) => each(() => new Frame(NEED).varint(peerId, 0).take()),
  'HELLO that asks for one': () => each(() => hello(1, HOSTILE)),
  *'new origins, and HELLO of all'() {
    const N = 16_000
    yield schema(1, 'item', FIELDS)
    const vector = []
    for (let k = 0; k < N; k++) {
      yield patches(100_000 + k, 0, 2, tiny)
      vector.push(100_000 + k, 1, 1000, 7)
    }
    for (;;) yield hello(1, HOSTILE, vector)
  },
  *'tiny patches, large frames'() {
    yield schema(1, 'item', FIELDS)
    for (let after = 0; ; after += 300_000) yield patches(HOSTILE, after, 300_000, tiny)
  },
  *'tiny patches, early frames'() {
    yield schema(1, 'item', FIELDS)
    for (let from = 0; ; from += 100_000) {
      for (let after = from + 90_000; after >= from; after -= 10_000)
        yield patches(HOSTILE, after, 10_000, tiny)
    }
  },
  *'patches of an unknown table'() {
    yield schema(1, 'other', UNKNOWN)
    const used = (frame, i) => frame.varint(1).int(i).u8(1).int(i)
    for (let after = 0; ; after += 100_000) yield patches(HOSTILE, after, 100_000, used)
  },
  *'JUMP of 16,000 origins, and pieces'() {
    yield schema(1, 'item', FIELDS)
    const jump = new Frame(JUMP).varint(16_000)
    for (let k = 0; k < 16_000; k++) jump.varint(100_000 + k, 5, 1000, 7, 3)
    yield jump.take()
    for (let k = 0; ; k++) {
      const piece = new Frame(STAGE).varint(10, 100_000 + (k % 15_000), 0, 5, 0, 0, 1, 1, 7, 1)
      yield tiny(piece.varint(9, 1000), k).take()
    }
  },
  *'pieces of many epochs'() {
    yield schema(1, 'item', FIELDS)
    const N = 500_000
    for (let k = 0; ; k++) {
      const piece = new Frame(STAGE).varint(10, 100_000 + k, 0, N, 0, 0, N)
      for (let e = 0; e < N; e++) piece.varint(1, 7 + (e % 2))
      yield piece.varint(0).take()
    }
  },
  TAKE: () => each(() => new Frame(TAKE).varint(1, 0).take()),
  'FORK of many probes': ({ peerId }) =>
    each(() => {
      const frame = new Frame(FORK).varint(peerId, 400_000, 400_000)
      for (let k = 1; k <= 400_000; k++) frame.varint(k, 1000, 7)
      return frame.take()
    }),
  ERROR: () => each(() => new Frame(ERROR).text('REPLIC_SCHEMA').text('later').take()),
  MESSAGE: () => each(() => new Frame(MESSAGE).text('{"question":1}').take()),
  'questions of verify()': () =>
    each((id) => {
      const question = { id, n: 0, ask: 'compare', vector: 'a'.repeat(64), sum: 0 }
      return new Frame(MESSAGE).bytes(JSON.stringify(question)).take()
    }),
  'MESSAGEs of 4 MiB': () => each(() => new Frame(MESSAGE).text('x'.repeat(4 * MiB - 20)).take()),
}

// ---- the other process ----

async function drained(stream) {
  const end = performance.now() + 1000
  while (stream.writableLength > MOST_WRITTEN && !stream.destroyed && performance.now() < end)
    await delay(1)
}

async function attack(kind, port) {
  const stream = netConnect({ port, host: '127.0.0.1' })
  const socket = new FrameSocket(stream, 'connect', MAX_FRAME)
  let closed = false
  socket.on('close', () => {
    closed = true
  })
  socket.on('error', () => {})
  await once(socket, 'open')
  socket.send(hello(0, HOSTILE))
  const [first] = await once(socket, 'message')
  let at = 3 // version, type, flags; then its peerId
  let peerId = 0
  for (let scale = 1; ; scale *= 128) {
    const byte = first[at++]
    peerId += (byte & 127) * scale
    if (byte < 128) break
  }
  let bytes = 0
  let frames = 1
  const end = performance.now() + SECONDS * 1000
  for (const frame of KINDS[kind]({ peerId })) {
    if (closed || bytes > BYTES || performance.now() > end) break
    socket.send(frame)
    bytes += frame.length
    frames++
    if (stream.writableLength > MOST_WRITTEN) await drained(stream)
    else if (frames % 1000 === 0) await delay(0)
  }
  while (!closed && stream.writableLength && performance.now() < end) await delay(20)
  process.send({ frames, bytes, closed })
}

// ---- this one ----

const percentile = (list, share) =>
  [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * share))] ?? 0

/** { upsert, loop }: lists of ms, until isOver(). */
function watch(db, rows) {
  let running = true
  const figures = { upsert: [], loop: [] }
  let last = performance.now()
  const beat = setInterval(() => {
    const now = performance.now()
    figures.loop.push(Math.max(0, now - last - 1))
    last = now
  }, 1)
  const writing = (async () => {
    for (let i = 0; running; i++) {
      const began = performance.now()
      await db.upsert('item', rows[i % ROWS])
      figures.upsert.push(performance.now() - began)
      await delay(PAUSE_MS)
    }
  })()
  return {
    async end() {
      running = false
      await writing
      clearInterval(beat)
      return figures
    },
  }
}

const measure = (kind) =>
  withFile(async (path) => {
    const db = await openReplic(path, 'NORMAL')
    const events = []
    db.on('link', (event) => event.code && events.push(event.code))
    db.on('error', () => {})
    const rows = makeRows(ROWS)
    for (let i = 0; i < ROWS; i += 1000) await db.upsert('item', rows.slice(i, i + 1000))
    const listener = await listen(db)
    const child = fork(fileURLToPath(import.meta.url), ['attack', kind, listener.address().port])
    const ended = once(child, 'exit') // by itself, where the link is closed
    const watching = watch(db, rows)
    const [sent] = await once(child, 'message')
    if (kind === 'nothing') await delay(2000)
    const began = performance.now()
    const taken = () => db.status().links[0]?.framesIn ?? Infinity
    while (taken() < sent.frames && performance.now() - began < SECONDS * 1000) await delay(200)
    const left = taken() < sent.frames ? sent.frames - taken() : 0
    const figures = await watching.end()
    child.kill('SIGKILL')
    await ended
    await listener.close()
    await db.close()
    return { ...figures, ...sent, left, events: [...new Set(events)] }
  })

const ms = (value) => value.toFixed(value < 10 ? 1 : 0)

async function main(names) {
  const kinds = Object.keys(KINDS).filter(
    (kind) => names.length === 0 || names.some((name) => kind.startsWith(name)),
  )
  if (kinds.length === 0) throw new Error(`there are ${Object.keys(KINDS).join(', ')}`)
  const lines = [['', 'sent, MiB', 'frames', 'upsert p99', 'most', 'loop p99', 'most, ms', '']]
  for (const kind of kinds) {
    const { upsert, loop, frames, bytes, left, events } = await measure(kind)
    const most = { upsert: Math.max(...upsert), loop: Math.max(...loop) }
    const beyond = Object.keys(LIMITS).filter((name) => most[name] > LIMITS[name])
    if (beyond.length) process.exitCode = 1
    const notes = [
      ...events,
      ...beyond.map((name) => `${name} TOO LATE`),
      left ? `${left} frames left` : '',
    ]
    lines.push([
      kind,
      (bytes / MiB).toFixed(1),
      `${frames}`,
      ms(percentile(upsert, 0.99)),
      ms(most.upsert),
      ms(percentile(loop, 0.99)),
      ms(most.loop),
      notes.filter(Boolean).join(', '),
    ])
    console.error(lines.at(-1).join('  '))
  }
  console.log(table(lines, [0, 7]).join('\n'))
}

const [role, ...rest] = process.argv.slice(2)
if (role === 'attack') await attack(rest[0], Number(rest[1]))
else await main(process.argv.slice(2))

// npm run bench:hostile [-- NAME ...]: what a linked peer that means harm does to the writes of this one.
//
// Another process links to a replica with ROWS rows, and sends BYTES of frames of one kind, or for SECONDS, as fast as
// they are taken: those that cost most. Where the link is refused it dials again. Meanwhile one row is upserted after the
// other, durability 'normal'. Shown are how long an upsert has waited and how late the event loop was, at the 99th
// percentile and at most, and how many times as long as in `nothing` of the same run, which is the same without frames,
// until all frames are worked off, or WAIT_SECONDS later. Beyond LIMITS the exit code is 1: on a machine that has other work
// to do, look at `nothing` first. With `attack` as its argument this file is the other process.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { connect as netConnect } from 'node:net'
import { availableParallelism, loadavg } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { withSum } from '../lib/base/sum.js'
import { listen } from '../lib/transport/tcp.js'
import { FrameSocket } from '../lib/transport/tcp-frames.js'
import { makeRows } from './data.js'
import { table, withFile } from './harness.js'
import { openReplic } from './replic.js'

const MiB = 1024 * 1024
const BYTES = 64 * MiB
const SECONDS = 5
const WAIT_SECONDS = 3
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
    .varint(flags, peer, 7, Date.now(), vector.length / 4, ...vector, 0, direct.length, ...direct)
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
/** Patch `after` + 1 of an origin, whose epoch is another one than that of the patch before. */
const ofEpochs = (origin, after, n) => {
  const frame = new Frame(PATCHES).varint(
    origin,
    after,
    after + n,
    after && 1000,
    after && 7 + (after % 2),
  )
  frame.varint(n)
  for (let i = 1; i <= n; i++) frame.varint(1, 7 + ((after + i) % 2))
  for (let i = 0; i < n; i++) tiny(frame.varint(1, after || i ? 0 : 1000), after + i)
  return frame.take()
}
const tiny = (frame, i) => frame.varint(1).int(i).u8(0)

// ---- the kinds ----

function* each(make) {
  for (let i = 0; ; i++) yield make(i)
}

/** One group is one transaction, and this one has as many patches as one may have: it runs by its name only. */
const BY_NAME = 'a group as large as may be'

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
      const frame = new Frame(ACK).varint(Date.now(), 0, 0, 0, 0, 1, 0, direct.length)
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
      return frame.varint(0, 0).take()
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
  *'patches of a wide table'() {
    const N = 20_000
    yield schema(
      1,
      'wide',
      Array.from({ length: N }, (_, k) => [`f${k}`, '']),
    )
    const bitmap = Buffer.alloc(Math.ceil((N - 1) / 8))
    const used = (frame, i) => frame.varint(1).int(i).bytes(bitmap)
    for (let after = 0; ; after += 400) yield patches(HOSTILE, after, 400, used)
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
  *'pieces, very many'() {
    yield schema(1, 'item', FIELDS)
    const N = 1000
    const jump = new Frame(JUMP).varint(N)
    for (let k = 0; k < N; k++) jump.varint(100_000 + k, 1e9, 1000, 7, 3)
    yield jump.take()
    for (let k = 0; ; k++) {
      const after = Math.floor(k / N)
      const piece = new Frame(STAGE).varint(10, 100_000 + (k % N), after, after + 1)
      if (after) yield tiny(piece.varint(0, 7, 0, 1, 1, 1000), k).take()
      else yield tiny(piece.varint(0, 0, 1, 1, 7, 1, 1, 1000), k).take()
    }
  },
  *'patches of many epochs'() {
    yield schema(1, 'item', FIELDS)
    for (let after = 0; ; after += 4000) yield ofEpochs(HOSTILE, after, 4000)
  },
  *'pieces of many epochs'() {
    yield schema(1, 'item', FIELDS)
    const N = 4000
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
  'frames of one byte': () => each(() => Buffer.from([1])),
  *'patches ahead of time'() {
    yield schema(1, 'item', FIELDS)
    for (let after = 0; ; after++) {
      const frame = new Frame(PATCHES).varint(HOSTILE, after, after + 2, after && 1000, after && 7)
      frame.varint(after ? 0 : 1)
      if (!after) frame.varint(1, 7)
      tiny(frame.varint(1, after ? 0 : 1000), after)
      yield tiny(frame.varint(1, 2 ** 51), after).take()
    }
  },
  *[BY_NAME]() {
    yield schema(1, 'item', FIELDS)
    const N = 1_900_000
    for (let after = 0; ; after += N) yield patches(HOSTILE, after, N, tiny, N)
  },
  *'a group of tiny patches'() {
    yield schema(1, 'item', FIELDS)
    const N = 6_000_000
    for (let after = 0; ; after += N) yield patches(HOSTILE, after, N, tiny, N)
  },
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

/** A link, as { socket, stream, peerId, isClosed() }; null where that is refused. */
async function dial(port) {
  const stream = netConnect({ port, host: '127.0.0.1' })
  const socket = new FrameSocket(stream, 'connect', MAX_FRAME)
  let isClosed = false
  const closed = new Promise((resolve) =>
    socket.on('close', () => {
      isClosed = true
      resolve(null)
    }),
  )
  socket.on('error', () => {})
  if ((await Promise.race([once(socket, 'open'), closed])) === null) return null
  socket.send(hello(0, HOSTILE))
  const answer = await Promise.race([once(socket, 'message'), closed])
  if (answer === null) return null
  let at = 3 // version, type, flags; then its peerId
  let peerId = 0
  for (let scale = 1; ; scale *= 128) {
    const byte = answer[0][at++]
    peerId += (byte & 127) * scale
    if (byte < 128) break
  }
  return { socket, stream, peerId, isClosed: () => isClosed }
}

async function attack(kind, port) {
  const sent = { bytes: 0, frames: 0, links: 0 }
  const end = performance.now() + SECONDS * 1000
  const isOver = () => sent.bytes > BYTES || performance.now() > end
  let link
  do {
    link = await dial(port)
    if (!link) continue
    sent.links++
    let frames = 1
    for (const frame of KINDS[kind]({ peerId: link.peerId })) {
      if (link.isClosed() || isOver()) break
      link.socket.send(frame)
      sent.bytes += frame.length
      frames++
      if (link.stream.writableLength > MOST_WRITTEN) await drained(link.stream)
      else if (frames % 1000 === 0) await delay(0)
    }
    sent.frames += frames
    sent.last = frames
    while (!link.isClosed() && link.stream.writableLength && performance.now() < end)
      await delay(20)
  } while (kind !== 'nothing' && (!link || link.isClosed()) && !isOver())
  process.send(sent)
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
    if (kind === 'nothing') await delay(SECONDS * 1000)
    const began = performance.now()
    const taken = () => Math.max(0, ...db.status().links.map((link) => link.framesIn ?? 0))
    const isUp = () => db.status().links.length > 0
    while (isUp() && taken() < sent.last && performance.now() - began < WAIT_SECONDS * 1000)
      await delay(100)
    const left = isUp() ? Math.max(0, sent.last - taken()) : 0
    const figures = await watching.end()
    child.kill('SIGKILL')
    await ended
    await listener.close()
    await db.close()
    return { ...figures, ...sent, left, events: [...new Set(events)] }
  })

const ms = (value) => value.toFixed(value < 10 ? 1 : 0)

const most = (list) => list.reduce((so, value) => Math.max(so, value), 0)

/** The 99th percentile, the most, and that as a multiple of what it is in `nothing`. */
function cells(list, beside) {
  const times = beside ? `x${(most(list) / most(beside)).toFixed(1)}` : ''
  return [ms(percentile(list, 0.99)), ms(most(list)), times]
}

function lineOf(kind, figures, nothing) {
  const { upsert, loop, frames, bytes, links, left, events } = figures
  const beyond = Object.keys(LIMITS).filter((name) => most(figures[name]) > LIMITS[name])
  if (beyond.length) process.exitCode = 1
  const notes = [
    ...beyond.map((name) => `${name.toUpperCase()} TOO LATE`),
    ...events,
    links > 1 ? `${links} links` : '',
    left ? `${left} frames left` : '',
  ].filter(Boolean)
  return [
    kind,
    (bytes / MiB).toFixed(1),
    `${frames}`,
    ...cells(upsert, nothing?.upsert),
    ...cells(loop, nothing?.loop),
    notes.join(', '),
  ]
}

const HEAD = ['', 'MiB', 'frames', 'upsert p99', 'most', '', 'loop p99', 'most', 'ms']

async function main(names) {
  const wanted = Object.keys(KINDS).filter((kind) => names.some((name) => kind.startsWith(name)))
  const all = Object.keys(KINDS).filter((kind) => kind !== BY_NAME)
  const kinds = names.length === 0 ? all : ['nothing', ...wanted]
  if (names.length > 0 && wanted.length === 0)
    throw new Error(`there are ${Object.keys(KINDS).join(', ')}`)
  const load = () => loadavg()[0].toFixed(1)
  console.log(`Node ${process.version}, ${availableParallelism()} processors, load ${load()}`)
  const lines = [HEAD]
  let nothing
  for (const kind of new Set(kinds)) {
    const figures = await measure(kind)
    lines.push(lineOf(kind, figures, nothing))
    nothing ??= figures
    console.error(lines.at(-1).join('  '))
  }
  console.log(table(lines, [0, 8]).join('\n'))
  console.log(`load at the end ${load()}`)
}

const [role, ...rest] = process.argv.slice(2)
if (role === 'attack') await attack(rest[0], Number(rest[1]))
else await main(process.argv.slice(2))

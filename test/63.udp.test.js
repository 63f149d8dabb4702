// UDP: the parts of a session without a network, two and more peers over real sockets, bad lines, and
// what strangers may send.

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { randomFrom } from '../examples/demo/random.js'
import { ReplayWindow } from '../lib/base/replay.js'
import { Congestion } from '../lib/transport/udp/congestion.js'
import * as datagram from '../lib/transport/udp/datagram.js'
import { Receiver } from '../lib/transport/udp/receiver.js'
import { Sender } from '../lib/transport/udp/sender.js'
import { bind, peer } from '../lib/transport/udp.js'
import { isTested } from './chaos/play.js'
import { UdpProxy } from './chaos/udp.js'
import {
  converged,
  eventOf,
  FAST,
  hasIPv6,
  NOTES,
  openReplica,
  rejects,
  synced,
  tableDdl,
  tempDir,
  throws,
  until,
} from './helpers.js'

vi.setConfig?.({ testTimeout: 120_000 })

const SECRET = 'a secret of the tests, long enough'
const SEED = Number(process.env.REPLIC_SEED ?? 4)
const BLOBS = tableDdl('t', ['id INTEGER NOT NULL', 'v BLOB'], 'id')
const many = (n, from = 0) =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text: `row ${from + i}` }))
const replicas = (n, options) =>
  Promise.all(Array.from({ length: n }, (_, i) => openReplica({ peerId: 11 + i, ...options })))
const isUp = ({ state }) => state === 'up'
const isDown = ({ state }) => state === 'down'
const HOST = '127.0.0.1'

/** A bound endpoint of `to`, dialed by `from`, both up; `through` may put something between. */
async function linked(from, to, { through = (port) => port, ...options } = {}) {
  const endpoint = await bind(to, options.bind)
  const port = await through(endpoint.address().port)
  const up = [eventOf(from, 'link', isUp), eventOf(to, 'link', isUp)]
  const connection = peer(from, { port, ...FAST, ...options.peer })
  await Promise.all(up)
  return { endpoint, connection }
}

/** For `through`: a proxy with these settings; `line.proxy` is it. */
function badLine(settings) {
  const line = {
    through: async (port) => {
      line.proxy = await UdpProxy.open({ target: { host: HOST, port }, seed: SEED, ...settings })
      onTestFinished(() => line.proxy.close())
      return line.proxy.address.port
    },
  }
  return line
}

/** A socket that keeps what it gets: { port, send(bytes, port), next(): a datagram, close() }. */
async function rawSocket(address = HOST) {
  const socket = createSocket('udp4')
  await new Promise((resolve) => socket.bind(0, address, resolve))
  let isOpen = true
  const close = () => {
    if (isOpen) socket.close()
    isOpen = false
  }
  onTestFinished(close)
  const got = []
  const waiting = []
  socket.on('message', (bytes) => {
    if (waiting.length > 0) waiting.shift()(bytes)
    else got.push(bytes)
  })
  return {
    port: socket.address().port,
    socket,
    send: (bytes, port) => new Promise((resolve) => socket.send(bytes, port, HOST, resolve)),
    next: () =>
      got.length > 0
        ? Promise.resolve(got.shift())
        : new Promise((resolve) => waiting.push(resolve)),
    got,
    close,
  }
}

/**
 * A relay to `target`, as a router that translates addresses: { port, seen: [{ bytes, outwards }], move():
 * goes on from another port, send(bytes, outwards), stop() }.
 */
async function relay(target) {
  const front = await rawSocket()
  const seen = []
  let back
  let client
  const state = { stopped: false }
  const forward = (bytes, outwards) => {
    if (outwards) back.send(bytes, target)
    else front.send(bytes, client)
  }
  const pass = (bytes, outwards) => {
    seen.push({ bytes, outwards })
    if (!state.stopped) forward(bytes, outwards)
  }
  const move = async () => {
    const next = await rawSocket()
    next.socket.on('message', (bytes) => pass(bytes, false))
    back?.close()
    back = next
  }
  await move()
  front.socket.on('message', (bytes, { port }) => {
    client = port
    pass(bytes, true)
  })
  const stop = () => {
    state.stopped = true
  }
  return { port: front.port, seen, move, send: forward, stop }
}

describe('the window of counters seen', () => {
  it('takes each counter once, in any order, as a set would', () => {
    const random = randomFrom(SEED)
    const window = new ReplayWindow()
    const seen = new Set()
    let highest = 0
    for (let i = 0; i < 50_000; i++) {
      const jump = random(1000) === 0 ? random(20_000) : random(3)
      const counter = random(2) ? highest + jump : Math.max(0, highest - random(9_000))
      const isNew = counter > 0 && counter > highest - 8192 && !seen.has(counter)
      expect([counter, window.take(counter)]).toEqual([counter, isNew])
      if (!isNew) continue
      seen.add(counter)
      highest = Math.max(highest, counter)
      expect(window.highest).toBe(highest)
    }
  })
})

describe('numbers that nobody of ours sends', () => {
  it('a counter that no number holds exactly is none', () => {
    const data = datagram.dataHeader(Buffer.alloc(8), 1, { number: 0, flags: datagram.LAST })
    expect(datagram.counterOf(data)).toBe(1)
    data.writeBigUInt64BE(2n ** 53n - 1n, 10)
    expect(datagram.counterOf(data)).toBe(Number.MAX_SAFE_INTEGER)
    for (const counter of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      data.writeBigUInt64BE(counter, 10)
      expect([counter, datagram.counterOf(data)]).toEqual([counter, undefined])
    }
    expect(new ReplayWindow().take(undefined)).toBe(false)
    expect(new ReplayWindow().take(2 ** 63)).toBe(false)
  })
})

describe('numbers that nobody of ours sends, over a network', () => {
  it.each([
    ['who is dialed', true],
    ['who dials', false],
  ])('do nothing to %s', async (_, outwards) => {
    const [a, b] = await replicas(2)
    let router
    const { endpoint, connection } = await linked(a, b, {
      through: async (port) => {
        router = await relay(port)
        return router.port
      },
    })
    const { counters } = (outwards ? endpoint : connection).status()
    const of = router.seen.find(
      (seen) => seen.outwards === outwards && datagram.typeOf(seen.bytes) === datagram.DATA,
    )
    const id = datagram.readId(of.bytes)
    for (const type of [datagram.DATA, datagram.ACK, datagram.FIN]) {
      const bytes = Buffer.concat([datagram.header(type, id, 1), Buffer.alloc(14)])
      bytes.writeBigUInt64BE(2n ** 63n, 10)
      router.send(bytes, outwards)
    }
    await until(() => {
      const { malformed } = (outwards ? endpoint : connection).status().counters
      return malformed === counters.malformed + 3
    })
    await a.upsert('note', many(10))
    expect((await converged(a, b)).note).toHaveLength(10)
  })
})

describe('congestion', () => {
  it('doubles, then grows by a datagram, per round trip; is halved once per round trip', () => {
    const congestion = new Congestion(1000, 1_000_000)
    expect(congestion.window).toBe(10_000)
    congestion.acked(10_000, true)
    expect(congestion.window).toBe(20_000)
    congestion.acked(20_000, false)
    expect(congestion.window).toBe(20_000)
    congestion.acked(60_000, true)
    congestion.lost(50, 80)
    expect(congestion.window).toBe(40_000)
    congestion.lost(51, 90) // of the same round trip
    congestion.lost(80, 95)
    expect(congestion.window).toBe(40_000)
    congestion.acked(40_000, true)
    expect(congestion.window).toBe(41_000)
    congestion.lost(81, 99)
    expect(congestion.window).toBe(20_500)
    for (let n = 100; n < 110; n++) congestion.lost(n, n)
    expect(congestion.window).toBe(10_000)
    congestion.acked(10_000_000_000, true)
    expect(congestion.window).toBe(1_000_000)
  })

  it('falls to two datagrams by silence, and waits longer each time', () => {
    const congestion = new Congestion(1000, 1_000_000)
    for (let i = 0; i < 20; i++) congestion.sample(100)
    const first = congestion.rtoMs
    expect(first).toBeGreaterThanOrEqual(100)
    expect(first).toBeLessThan(120)
    congestion.timedOut(1)
    expect([congestion.window, congestion.rtoMs]).toEqual([10_000, 2 * first])
    congestion.timedOut(2)
    expect([congestion.window, congestion.rtoMs]).toEqual([2000, 4 * first])
    for (let n = 3; n < 20; n++) congestion.timedOut(n)
    expect(congestion.rtoMs).toBe(4000)
    congestion.acked(1000, true)
    expect([congestion.window, congestion.rtoMs]).toEqual([2500, first])
  })

  it('measures round trips: what varies is given more time', () => {
    const steady = new Congestion(1000, 1_000_000)
    const wild = new Congestion(1000, 1_000_000)
    for (let i = 0; i < 100; i++) {
      steady.sample(300)
      wild.sample(i % 2 ? 100 : 500)
    }
    expect(steady.rttMs).toBe(300)
    expect(steady.rtoMs).toBeLessThan(310)
    expect(wild.rtoMs).toBeGreaterThan(700)
    expect(wild.lossMs).toBeGreaterThan(500)
    expect(steady.pace).toBeCloseTo((2 * 10_000) / 300)
  })
})

/** Carries frames from a Sender to a Receiver in simulated time; gives what arrived and figures. */
function carry(
  frames,
  { loss = 0, duplicate = 0, delayMs = [5, 5], seed = SEED, deadAckUntil = 0 },
) {
  const random = randomFrom(seed)
  const got = []
  const events = [] // { at, run }
  const receiver = new Receiver(10_000_000, (frame) => got.push(Buffer.from(frame)))
  let now = 0
  let counter = 0
  let mostFlight = 0
  let mostEarly = 0
  const put = (run) => {
    if (random(1000) < loss * 1000) return
    const copies = random(1000) < duplicate * 1000 ? 2 : 1
    for (let i = 0; i < copies; i++) {
      events.push({ at: now + delayMs[0] + random(delayMs[1] - delayMs[0] + 1), run })
    }
  }
  const sender = new Sender({
    payloadBytes: 1000,
    maxSegments: 4096,
    maxBytes: 4_000_000,
    send: (segment) => {
      const { number, flags, payload } = segment
      const echo = ++counter
      put(() => {
        receiver.take({ number, flags, payload })
        const ack = { echo, next: receiver.next, bitmap: receiver.bitmap(512) }
        if (now >= deadAckUntil) put(() => sender.ack(ack, now))
      })
      return counter
    },
  })
  for (const frame of frames) sender.push(frame)
  sender.pump(now)
  while (!sender.isDone) {
    mostFlight = Math.max(mostFlight, sender.flightBytes)
    mostEarly = Math.max(mostEarly, receiver.earlyBytes)
    const due = events.reduce((min, { at }) => Math.min(min, at), sender.deadline)
    expect(due).toBeLessThan(Infinity)
    now = Math.max(now, due)
    if (now >= sender.deadline) sender.tick(now)
    const index = events.findIndex(({ at }) => at <= now)
    if (index >= 0) events.splice(index, 1)[0].run()
  }
  return { got, now, sent: counter, retransmitted: sender.retransmitted, mostFlight, mostEarly }
}

describe('frames as segments', () => {
  const random = randomFrom(SEED + 1)
  const frames = Array.from({ length: 60 }, () =>
    randomBytes(random(3) ? random(300) : random(40_000)),
  )

  it('arrive in order and whole, without a segment more than needed', () => {
    const { got, sent, retransmitted } = carry(frames, {})
    expect(got.map((frame) => frame.length)).toEqual(frames.map((frame) => frame.length))
    expect(got.every((frame, i) => frame.equals(frames[i]))).toBe(true)
    expect(retransmitted).toBe(0)
    expect(sent).toBe(
      frames.reduce((sum, { length }) => sum + Math.max(1, Math.ceil(length / 1000)), 0),
    )
  })

  it.each([1, 2, 3, 4, 5, 6, 7, 8])(
    'through a line that loses, doubles and reorders: seed %i',
    (seed) => {
      const line = { loss: 0.2, duplicate: 0.1, delayMs: [100, 500], seed }
      const { got, mostFlight, mostEarly } = carry(frames, line)
      expect(got.map((frame) => frame.length)).toEqual(frames.map((frame) => frame.length))
      expect(got.every((frame, i) => frame.equals(frames[i]))).toBe(true)
      expect(mostFlight).toBeLessThanOrEqual(4_000_000)
      expect(mostEarly).toBeLessThan(500_000)
    },
  )

  it('are sent seldom while nothing is acknowledged', () => {
    const { got, sent } = carry([randomBytes(100_000)], { deadAckUntil: 60_000 })
    expect(got).toHaveLength(1)
    expect(sent).toBeLessThan(10 + 2 * 25 + 110)
  })

  it('what is early is bounded in number and in bytes, and a frame in length', () => {
    const frames = []
    const receiver = new Receiver(1_000_000, (frame) => frames.push(frame))
    const payload = Buffer.alloc(60_000)
    let taken = 0
    while (taken < 4000 && receiver.take({ number: 1 + taken, flags: 0, payload })) taken++
    expect(receiver.earlyBytes).toBeLessThanOrEqual(8 * 1024 * 1024)
    expect(taken).toBe(Math.floor((8 * 1024 * 1024) / 60_000))
    expect(receiver.take({ number: 4096, flags: 1, payload: Buffer.alloc(0) })).toBe(false)
    expect(receiver.take({ number: 4095, flags: 1, payload: Buffer.alloc(0) })).toBe(true)
    expect(receiver.bitmap(10_000)).toHaveLength(512)
    expect(receiver.bitmap(5)).toHaveLength(5)
    expect(() => receiver.take({ number: 0, flags: 0, payload })).toThrow(
      'a frame of more than 1000000 bytes',
    )
    expect(frames).toEqual([])
  })

  it('wait while the receiver is paused', () => {
    const frames = []
    const receiver = new Receiver(1000, (frame) => frames.push(frame.toString()))
    receiver.pause()
    for (const number of [1, 0])
      receiver.take({ number, flags: 1, payload: Buffer.from(`${number}`) })
    expect(frames).toEqual([])
    expect([...receiver.bitmap(10)]).toEqual([3])
    receiver.resume()
    expect([frames, receiver.next, receiver.earlyBytes]).toEqual([['0', '1'], 2, 0])
  })

  it('an acknowledgement of what was never sent changes nothing', () => {
    const sent = []
    const sender = new Sender({
      payloadBytes: 1000,
      maxSegments: 10,
      maxBytes: 10_000,
      send: ({ number }) => sent.push(number),
    })
    sender.push(Buffer.alloc(3000))
    sender.pump(0)
    const before = sender.flightBytes
    sender.ack({ echo: 1, next: 4, bitmap: Buffer.alloc(0) }, 1)
    sender.ack({ echo: 9, next: 1, bitmap: Buffer.alloc(0) }, 1)
    sender.ack({ echo: 0, next: 0, bitmap: Buffer.alloc(500, 0) }, 1)
    expect([sent, sender.flightBytes]).toEqual([[0, 1, 2], before])
    sender.ack({ echo: 3, next: 0, bitmap: Buffer.alloc(500, 255) }, 1)
    expect(sender.isDone).toBe(true)
  })
})

describe.each([
  ['without a secret', undefined],
  ['with a secret', SECRET],
])('two peers %s', (_, secret) => {
  it('write, and have the same', async () => {
    const [a, b] = await replicas(2, { secret })
    await a.upsert('note', many(500))
    const { endpoint, connection } = await linked(a, b)
    await b.upsert('note', many(500, 250))
    await Promise.all(
      many(500, 1000).flatMap((row) => [
        a.upsert('note', row),
        b.upsert('note', { id: row.id, size: 1 }),
      ]),
    )
    const { note } = await converged(a, b)
    expect(note).toHaveLength(1250)
    expect(endpoint.status().sessions).toMatchObject([
      { peerId: 11, address: HOST, isAuthenticated: secret !== undefined },
    ])
    expect(connection.status().sessions).toMatchObject([{ peerId: 12 }])
    expect(b.status().links).toMatchObject([{ peerId: 11, transport: 'udp', state: 'ready' }])
    const { malformed, unknown, forged, replayed } = endpoint.status().counters
    expect({ malformed, unknown, forged, replayed }).toEqual({
      malformed: 0,
      unknown: 0,
      forged: 0,
      replayed: 0,
    })
  })

  it.each([548, 1200, 65_507])('blobs of 20 MB in datagrams of %i bytes', async (mtu) => {
    const [a, b] = await replicas(2, { secret, ddl: BLOBS })
    const blob = randomBytes(20_000_000)
    await linked(a, b, { bind: { mtu }, peer: { mtu } })
    await Promise.all([a.upsert('t', { id: 1, v: blob }), b.upsert('t', { id: 2, v: blob })])
    await synced(a, b)
    const rows = [
      await b.get('SELECT v FROM t WHERE id = 1'),
      await a.get('SELECT v FROM t WHERE id = 2'),
    ]
    expect(rows.map(({ v }) => blob.equals(v))).toEqual([true, true])
  })

  it('one closes: the other knows at once, and has what was written', async () => {
    const [a, b] = await replicas(2, { secret })
    const { endpoint } = await linked(a, b)
    const down = eventOf(b, 'link', isDown)
    const token = await a.upsert('note', many(500))
    await a.close({ flushMs: 60_000 })
    expect(await down).toMatchObject({ peerId: 11, code: null })
    await b.waitFor(token, 0)
    expect(b.status().links).toEqual([])
    expect(endpoint.status()).toMatchObject({ sessions: [], pending: 0 })
    const address = endpoint.address()
    await endpoint.close()
    expect(endpoint.address()).toEqual(address)
  })

  it('a session that ends is dialed again', async () => {
    const [a, b] = await replicas(2, { secret })
    await linked(a, b)
    for (let round = 0; round < 5; round++) {
      const up = [eventOf(a, 'link', isUp), eventOf(b, 'link', isUp)]
      b.closeRemotePeer(11)
      await a.upsert('note', many(100, round * 100))
      await Promise.all(up)
    }
    const { note } = await converged(a, b)
    expect(note).toHaveLength(500)
  })
})

describe.skipIf(!isTested('IPv6', hasIPv6 ? null : { why: 'no ::1 here', isFixable: false }))(
  'IPv6',
  () => {
    it.each(['::1', '::'])('bound to %s', async (address) => {
      const [a, b] = await replicas(2, { secret: SECRET })
      const endpoint = await bind(b, { address })
      const up = eventOf(b, 'link', isUp)
      const { port } = endpoint.address()
      const connection = peer(a, { address: '::1', port, ...FAST })
      expect(await up).toMatchObject({
        peerId: 11,
        address: expect.stringMatching(/^\[::1\]:\d+$/),
      })
      expect(a.status().links).toMatchObject([{ address: `[::1]:${port}` }])
      await Promise.all([a.upsert('note', many(500)), b.upsert('note', many(500, 250))])
      const { note } = await converged(a, b)
      expect(note).toHaveLength(750)
      await connection.close()
    })
  },
)

describe('bad lines', () => {
  it.each([
    [
      'lose 20 %, double and reorder',
      { loss: 0.2, duplicate: 0.2, delayMs: [0, 20], ordered: false },
    ],
    ['take 300 ± 200 ms, reorder, lose 20 %', { loss: 0.2, delayMs: [100, 500], ordered: false }],
  ])('%s', async (_, settings) => {
    const [a, b] = await replicas(2, { secret: SECRET })
    const line = badLine(settings)
    await linked(a, b, { through: line.through })
    for (let i = 0; i < 10; i++) {
      await Promise.all([
        ...many(20, i * 20).map((row) => a.upsert('note', row)),
        ...many(20, i * 20).map(({ id }) => b.upsert('note', { id, size: i })),
      ])
    }
    const { note } = await converged(a, b)
    expect(note).toHaveLength(200)
    const counts = Object.values(line.proxy.lines).map(({ counts }) => counts)
    for (const { lost } of counts) expect(lost).toBeGreaterThan(0)
    expect(a.status().links).toMatchObject([{ link: 1, lastError: null }]) // it was never dialed again
  })

  it('20 MB while every fifth datagram is lost', async () => {
    const [a, b] = await replicas(2, { ddl: BLOBS, secret: SECRET })
    const blob = randomBytes(20_000_000)
    const line = badLine({ loss: 0.2 })
    const { connection } = await linked(a, b, { through: line.through })
    await b.waitFor(await a.upsert('t', { id: 1, v: blob }), 110_000)
    expect(blob.equals((await b.get('SELECT v FROM t')).v)).toBe(true)
    expect(connection.status().sessions[0].retransmitted).toBeGreaterThan(2000)
    expect(a.status().links).toMatchObject([{ link: 1, lastError: null }])
    expect(a.status().counters.retransmissions).toBe(0)
  })

  it('a frame that takes longer than linkTimeoutMs does not end the link', async () => {
    const limits = { heartbeatMs: 50, linkTimeoutMs: 600 }
    const [a, b] = await replicas(2, { ddl: BLOBS, ...limits })
    const line = badLine({ kbit: 4_000 })
    await linked(a, b, { through: line.through })
    await b.waitFor(await a.upsert('t', { id: 1, v: randomBytes(1_000_000) }), 60_000)
    expect(a.status().links).toMatchObject([{ link: 1, lastError: null }])
    expect(a.status().counters.retransmissions).toBe(0) // and nothing was asked for twice
  })

  it('silence ends it, and it comes back', async () => {
    const limits = { heartbeatMs: 50, linkTimeoutMs: 600 }
    const [a, b] = await replicas(2, limits)
    const line = badLine({})
    await linked(a, b, { through: line.through })
    const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    line.proxy.cut(true)
    await a.upsert('note', many(10))
    for (const { code } of await Promise.all(downs)) expect(code).toBe('REPLIC_TIMEOUT')
    line.proxy.cut(false)
    await converged(a, b)
  })
})

describe('strangers', () => {
  it('get no more than they have sent before they have shown that their address is theirs', async () => {
    const [a] = await replicas(1)
    const { port } = (await bind(a)).address()
    const stranger = await rawSocket()
    const id = randomBytes(8)
    const question = datagram.init(id)
    await stranger.send(question, port)
    const answer = await stranger.next()
    expect(answer.length).toBeLessThanOrEqual(question.length)
    const cookie = datagram.readCookie(answer)
    const nonce = randomBytes(32)
    const connect = datagram.connect({ id, cookie, peerId: 12, nonce })
    await stranger.send(connect, port)
    const accepted = await stranger.next()
    expect(datagram.typeOf(accepted)).toBe(datagram.ACCEPT)
    expect(accepted.length).toBeLessThan(connect.length)

    const elsewhere = await rawSocket() // as if the address were forged: it has no cookie of its own
    await elsewhere.send(connect, port)
    await elsewhere.send(datagram.connect({ id, cookie: randomBytes(16), peerId: 12, nonce }), port)
    await elsewhere.send(question.subarray(0, 31), port) // shorter: not even a cookie
    await elsewhere.send(question, port)
    expect(datagram.typeOf(await elsewhere.next())).toBe(datagram.COOKIE)
    expect(elsewhere.got).toEqual([])
  })

  it('by the thousand take no memory before the cookie, and little after it', async () => {
    const [a, b] = await replicas(2, { maxPendingLinks: 10 })
    const { endpoint } = await linked(a, b)
    const { port } = endpoint.address()
    const sockets = await Promise.all(
      Array.from({ length: 100 }, (_, i) => rawSocket(`127.0.0.${2 + (i % 50)}`)),
    )
    const ask = async (socket) => {
      const id = randomBytes(8)
      await socket.send(datagram.init(id), port)
      const cookie = datagram.readCookie(await socket.next())
      return datagram.connect({ id, cookie, peerId: 99, nonce: randomBytes(32) })
    }
    let connects
    for (let round = 0; round < 20; round++) connects = await Promise.all(sockets.map(ask))
    expect(endpoint.status()).toMatchObject({ pending: 0, sessions: [{ peerId: 11 }] })
    for (const [i, socket] of sockets.entries()) {
      await socket.send(connects[i], port)
      await socket.next()
    }
    const { pending, sessions, counters } = endpoint.status()
    expect([pending, sessions.length, counters.evicted]).toEqual([10, 11, 90])
    expect(b.status().links).toHaveLength(1)
    await a.upsert('note', many(10))
    await converged(a, b)
  })

  it.each([
    ['without a secret', undefined],
    ['with a secret', SECRET],
  ])(
    'garbage, cut off, replayed, forged datagrams are counted and end nothing: %s',
    async (_, secret) => {
      const [a, b] = await replicas(2, { secret })
      let router
      const { endpoint } = await linked(a, b, {
        through: async (port) => {
          router = await relay(port)
          return router.port
        },
      })
      const random = randomFrom(SEED)
      await a.upsert('note', many(100))
      await synced(a, b)
      const { port } = endpoint.address()
      const stranger = await rawSocket()
      const genuine = router.seen.filter(({ outwards }) => outwards).map(({ bytes }) => bytes)
      expect(genuine.length).toBeGreaterThan(5)
      for (let i = 0; i < 300; i++) await stranger.send(randomBytes(random(1500)), port)
      for (const bytes of genuine) {
        const forged = Buffer.from(bytes)
        forged[forged.length - 1 - random(forged.length - 10)] ^= 1 << random(8)
        await stranger.send(bytes, port)
        await stranger.send(forged, port)
        await stranger.send(bytes.subarray(0, random(bytes.length)), port)
        if (secret) router.send(forged, true)
        if (secret) router.send(bytes.subarray(0, random(bytes.length)), true)
        router.send(bytes, true)
      }
      await b.upsert('note', many(100, 100))
      await a.upsert('note', many(100, 200))
      const { note } = await converged(a, b)
      expect(note).toHaveLength(300)
      for (const name of ['malformed', 'forged', 'replayed']) {
        expect([name, endpoint.status().counters[name]]).not.toEqual([name, 0])
      }
      for (const db of [a, b])
        expect(db.status().links).toMatchObject([{ link: 1, lastError: null }])
    },
  )

  it('cannot end a session with a FIN of their own', async () => {
    const [a, b] = await replicas(2, { secret: SECRET })
    let router
    const { endpoint } = await linked(a, b, {
      through: async (port) => {
        router = await relay(port)
        return router.port
      },
    })
    const data = router.seen.find(
      ({ outwards, bytes }) => outwards && datagram.typeOf(bytes) === datagram.DATA,
    )
    const fin = datagram.header(datagram.FIN, datagram.readId(data.bytes), 1_000_000)
    const before = endpoint.status().counters.forged
    router.send(fin, true)
    router.send(Buffer.concat([fin, randomBytes(16)]), true)
    await until(() => endpoint.status().counters.forged === before + 2)
    await a.upsert('note', many(10))
    await converged(a, b)
    expect(b.status().links).toMatchObject([{ link: 1 }])
  })
})

describe('a router gives the dialer another port', () => {
  it('with a secret the session goes on', async () => {
    const [a, b] = await replicas(2, { secret: SECRET })
    let router
    const { endpoint } = await linked(a, b, {
      through: async (port) => {
        router = await relay(port)
        return router.port
      },
    })
    for (let round = 0; round < 3; round++) {
      await router.move()
      await a.upsert('note', many(10, round * 10))
      await converged(a, b)
    }
    expect(endpoint.status().counters.moved).toBe(3)
    expect(b.status().links).toMatchObject([{ link: 1, lastError: null }])
  })

  it('a datagram from before, sent from elsewhere, does not lead it there', async () => {
    const [a, b] = await replicas(2, { secret: SECRET })
    let router
    const { endpoint } = await linked(a, b, {
      through: async (port) => {
        router = await relay(port)
        return router.port
      },
    })
    await a.upsert('note', many(10))
    await synced(a, b)
    const stranger = await rawSocket()
    for (const { bytes, outwards } of router.seen.filter((seen) => seen.outwards)) {
      if (outwards) await stranger.send(bytes, endpoint.address().port)
    }
    await b.upsert('note', many(10, 10))
    await converged(a, b)
    expect(endpoint.status().counters.moved).toBe(0)
    expect(stranger.got.filter((bytes) => datagram.typeOf(bytes) > datagram.REFUSE)).toEqual([])
  })

  it('without one it is dialed again', async () => {
    const [a, b] = await replicas(2, { heartbeatMs: 50, linkTimeoutMs: 600 })
    let router
    await linked(a, b, {
      through: async (port) => {
        router = await relay(port)
        return router.port
      },
    })
    const down = eventOf(b, 'link', isDown)
    await router.move()
    await a.upsert('note', many(10))
    expect((await down).code).toBe('REPLIC_TIMEOUT')
    await converged(a, b)
  })
})

describe('refused', () => {
  it.each([
    ['another secret', SECRET, `${SECRET}!`, 'REPLIC_AUTH', 'another secret'],
    ['a secret here only', SECRET, undefined, 'REPLIC_AUTH', 'has not been given a secret'],
    ['a secret there only', undefined, SECRET, 'REPLIC_AUTH', 'none is set here'],
  ])('%s', async (_, mine, theirs, code, words) => {
    const a = await openReplica({ peerId: 11, secret: mine })
    const b = await openReplica({ peerId: 12, secret: theirs })
    const endpoint = await bind(b)
    const down = eventOf(a, 'link', isDown)
    peer(a, { port: endpoint.address().port, ...FAST })
    const { code: told, reason } = await down
    expect([told, reason]).toEqual([code, expect.stringContaining(words)])
    expect(endpoint.status().counters.refused).toBeGreaterThan(0)
    expect(b.status().links).toEqual([])
  })

  it.each([
    ['without a secret', undefined],
    ['with a secret', SECRET],
  ])('a peer that is not the expected one, %s', async (_, secret) => {
    const [a, b] = await replicas(2, { secret })
    const endpoint = await bind(b)
    const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    peer(a, { port: endpoint.address().port, peerId: 13, ...FAST })
    for (const { code } of await Promise.all(downs)) expect(code).toBe('REPLIC_PEER')
  })

  it('one too many', async () => {
    const a = await openReplica({ peerId: 11 })
    const b = await openReplica({ peerId: 12, maxLinks: 1 })
    const c = await openReplica({ peerId: 13 })
    const { endpoint } = await linked(a, b)
    const down = eventOf(c, 'link', isDown)
    peer(c, { port: endpoint.address().port, ...FAST })
    expect(await down).toMatchObject({ code: 'REPLIC_BUSY' })
  })

  it('who is authorized is asked with the peerId', async () => {
    const asked = []
    const a = await openReplica({ peerId: 11, secret: SECRET })
    const b = await openReplica({
      peerId: 12,
      secret: SECRET,
      authorize: (peerId, { transport, isAccepted }) =>
        asked.push([peerId, transport, isAccepted]) > 1,
    })
    const down = eventOf(a, 'link', isDown)
    await linked(a, b)
    expect((await down).code).toBe('REPLIC_AUTH')
    expect(asked).toEqual([
      [11, 'udp', true],
      [11, 'udp', true],
    ])
  })

  it('wrong options', async () => {
    const [a] = await replicas(1)
    const multicast = { group: '239.255.1.9', port: 5000 }
    await rejects(bind(a, { mtu: 500 }), 'REPLIC_USAGE', 'mtu', '548', '65507')
    await rejects(bind(a, { adress: '::1' }), 'REPLIC_USAGE', "did you mean 'address'")
    await rejects(bind(a, { address: 'localhost' }), 'REPLIC_USAGE', 'an IP address')
    await rejects(
      bind(a, { multicast: { ...multicast, group: '10.0.0.1' } }),
      'REPLIC_USAGE',
      '224.0.0.0',
    )
    await rejects(bind(a, { multicast: { port: 1 } }), 'REPLIC_USAGE', 'multicast.group is missing')
    await rejects(bind(a, { address: '::1', multicast }), 'REPLIC_USAGE', 'must both be IPv4')
    await throws(() => peer(a, {}), 'REPLIC_USAGE', 'port is missing')
    const { port } = (await bind(a)).address()
    await expect(bind(a, { port })).rejects.toMatchObject({ code: 'EADDRINUSE' })
    const down = eventOf(a, 'link', isDown)
    const { close } = peer(a, { port, address: 'no.such.host.invalid', ...FAST })
    expect((await down).code).toMatch(/^(ENOTFOUND|EAI_AGAIN)$/)
    await close()
    await a.close()
    await rejects(bind(a), 'REPLIC_CLOSED')
  })
})

describe('a multicast group', () => {
  const multicast = { group: '239.255.77.4', interface: HOST, ttl: 0, announceMs: 100 }

  it.each([
    ['without a secret', undefined, 47_663],
    ['with a secret', SECRET, 47_664],
  ])('peers find each other, %s', async (_, secret, port) => {
    const dbs = await replicas(4, { secret })
    await Promise.all(dbs.map((db, i) => db.upsert('note', many(50, i * 50))))
    for (const db of dbs) await bind(db, { multicast: { ...multicast, port } })
    const { note } = await converged(...dbs)
    expect(note).toHaveLength(200)
    const others = () =>
      dbs.map((db) =>
        db
          .status()
          .links.map(({ peerId }) => peerId)
          .sort(),
      )
    await until(() => others().every((peers) => peers.length === 3))
    expect(others()[0]).toEqual([12, 13, 14])
    const up = eventOf(dbs[0], 'link', isUp)
    dbs[3].closeRemotePeer(11)
    expect((await up).peerId).toBe(14) // it is found again
  })

  /** Peer 12 has announced itself and is gone: with what peer 11 hears it from `n` other addresses. */
  async function recorded(port, n) {
    const settings = { multicast: { ...multicast, port, announceMs: 50 } }
    const recorder = createSocket({ type: 'udp4', reuseAddr: true })
    await new Promise((resolve) => recorder.bind(port, resolve))
    recorder.addMembership(multicast.group, HOST)
    const [a, b] = await replicas(2, { secret: SECRET })
    const heard = once(recorder, 'message')
    const first = await bind(b, settings)
    const [announcement] = await heard
    await first.close()
    const near = await bind(a, settings)
    const senders = Array.from({ length: n }, () => createSocket('udp4'))
    onTestFinished(() => {
      for (const socket of [recorder, ...senders]) socket.close()
    })
    const play = () => {
      for (const sender of senders) sender.send(announcement, near.address().port, HOST)
    }
    return { a, b, near, play, bindAgain: () => bind(b, settings) }
  }

  it('an announcement that was recorded keeps nobody from being dialed', async () => {
    const { a, b, near, play, bindAgain } = await recorded(47_666, 3)
    const flood = setInterval(play, 1)
    onTestFinished(() => clearInterval(flood))
    await until(() => near.status().sessions.length > 0)
    await bindAgain()
    await b.upsert('note', { id: 1 })
    await a.waitFor(b.token(), 60_000)
  })

  it('of the addresses that it has come from, the one that was dialed first gives way', async () => {
    const { a, b, near, play, bindAgain } = await recorded(47_660, 12)
    const gaveWay = eventOf(a, 'link', ({ code }) => code === 'REPLIC_BUSY')
    play()
    const { peerId, reason } = await gaveWay
    expect(peerId).toBe(12)
    expect(reason).toContain('from 8 further addresses')
    expect(near.status().sessions.length).toBeLessThanOrEqual(8)
    await bindAgain()
    await b.upsert('note', { id: 1 })
    await a.waitFor(b.token(), 60_000)
  })

  it.each([
    ['dials', 10, 47_662],
    ['is dialed', 12, 47_661],
  ])('a peer that was killed is linked again when it is back: who %s', async (_, peerId, port) => {
    const a = await openReplica({ peerId: 11, heartbeatMs: 50, linkTimeoutMs: 600_000 })
    const path = join(tempDir(), 'killed.db')
    const settings = { multicast: { ...multicast, port } }
    const source = `import { Replica } from ${JSON.stringify(new URL('../lib/index.js', import.meta.url))}
      import { bind } from ${JSON.stringify(new URL('../lib/transport/udp.js', import.meta.url))}
      const db = await Replica.open(${JSON.stringify(path)}, { peerId: ${peerId}, heartbeatMs: 50 })
      await db.migrate([{ up: ${JSON.stringify(NOTES)} }])
      await bind(db, ${JSON.stringify(settings)})
      await db.upsert('note', { id: ${peerId} })`
    await bind(a, settings)
    for (let sequence = 1; sequence <= 2; sequence++) {
      const child = spawn(execPath, ['--input-type=module', '-e', source], { stdio: 'inherit' })
      onTestFinished(() => child.kill('SIGKILL'))
      await a.waitFor(`${peerId}.${sequence}`, 20_000)
      await a.upsert('note', { id: sequence }, { acks: 1, timeoutMs: 20_000 })
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  })

  it('who does not know the secret is not heard', async () => {
    const a = await openReplica({ peerId: 11, secret: SECRET })
    const b = await openReplica({ peerId: 12 })
    const settings = { multicast: { ...multicast, port: 47_665, announceMs: 20 } }
    const [near, far] = [await bind(a, settings), await bind(b, settings)]
    await until(() => near.status().counters.forged > 3)
    expect(a.status().links).toEqual([])
    expect(near.status().sessions).toEqual([])
    await Promise.all([near.close(), far.close()])
  })
})

// Bad lines: frames and datagrams that are lost, doubled, late, out of order, slow, or swallowed by a
// connection that only one side has. First the proxies themselves: that they do what they say.

import { createSocket } from 'node:dgram'
import { EventEmitter } from 'node:events'
import { connect, createServer } from 'node:net'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { randomFrom } from '../examples/demo/random.js'
import { newStage, play, seed } from './chaos/play.js'
import { TcpProxy, TO_DIALER, TO_LISTENER } from './chaos/proxy.js'
import * as scenarios from './chaos/scenarios.js'
import { UdpProxy } from './chaos/udp.js'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const PREAMBLE = Buffer.from('REPLIC')

/** A frame with its length; `n` is in it, the rest as long as the seed says. */
function frame(n, random = randomFrom(seed + n)) {
  const bytes = Buffer.alloc(8 + random(5000), n)
  bytes.writeUInt32BE(bytes.length - 4)
  bytes.writeUInt32BE(n, 4)
  return bytes
}

/** The numbers of the frames in a stream; throws if one is not as frame() made it. */
function framesIn(stream) {
  expect(stream.subarray(0, PREAMBLE.length)).toEqual(PREAMBLE)
  const numbers = []
  for (let at = PREAMBLE.length; at < stream.length; ) {
    const n = stream.readUInt32BE(at + 4)
    const whole = frame(n)
    expect(stream.subarray(at, at + whole.length).equals(whole)).toBe(true)
    numbers.push(n)
    at += whole.length
  }
  return numbers
}

const upTo = (n) => Array.from({ length: n }, (_, i) => i)

/** A listener, a proxy to it, and a dialer: { proxy, dial(), accepted(): the next socket }. */
async function through(settings) {
  const sockets = []
  const told = new EventEmitter()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(collecting(socket))
    told.emit('accepted')
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const target = { host: '127.0.0.1', port: server.address().port }
  const proxy = await TcpProxy.open({ target, seed, ...settings })
  const dialed = []
  onTestFinished(async () => {
    for (const socket of [...dialed, ...sockets]) socket.destroy()
    await proxy.close()
    server.close()
  })
  return {
    proxy,
    dial: () => {
      const socket = collecting(connect({ ...proxy.address, allowHalfOpen: true }))
      dialed.push(socket)
      return socket
    },
    accepted: async () => {
      if (sockets.length === 0) await new Promise((resolve) => told.once('accepted', resolve))
      return sockets.shift()
    },
  }
}

/** A socket that keeps what comes: socket.got; socket.pieces counts. got(n): when there are n bytes. */
function collecting(socket) {
  const chunks = []
  const all = () => Buffer.concat(chunks)
  socket.on('data', (chunk) => chunks.push(chunk)).on('error', () => {})
  const waitFor = (isEnough) =>
    new Promise((resolve) => {
      const look = () => isEnough(all()) && resolve(all())
      socket.on('data', look).on('end', () => resolve(all()))
      look()
    })
  return Object.assign(socket, { all, waitFor, pieces: () => chunks.length })
}

/** What arrives of `count` frames sent one way, in whole. */
async function carry(count, settings) {
  const { proxy, dial, accepted } = await through(settings)
  const near = dial()
  near.write(PREAMBLE)
  for (const n of upTo(count)) near.write(frame(n))
  near.end()
  const far = await accepted()
  const stream = await far.waitFor(() => false)
  return { numbers: framesIn(stream), counts: proxy.counts, pieces: far.pieces() }
}

describe('the TCP proxy', () => {
  it('passes everything on, unless it is told otherwise', async () => {
    const { numbers, counts } = await carry(200, {})
    expect(numbers).toEqual(upTo(200))
    expect(counts).toEqual({ carried: 200, lost: 0, duplicated: 0 })
  })

  it('loses whole frames, about as many as it is told, and the same ones for a seed', async () => {
    const { numbers, counts } = await carry(1000, { loss: 0.2 })
    expect(counts.lost).toBeGreaterThan(120)
    expect(counts.lost).toBeLessThan(280)
    expect(numbers).toHaveLength(1000 - counts.lost)
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b))
    expect((await carry(1000, { loss: 0.2 })).numbers).toEqual(numbers)
    expect((await carry(1000, { loss: 0.2, seed: seed + 1 })).numbers).not.toEqual(numbers)
  })

  it('doubles frames', async () => {
    const { numbers, counts } = await carry(500, { duplicate: 0.2 })
    expect(counts.duplicated).toBeGreaterThan(50)
    expect(numbers).toHaveLength(500 + counts.duplicated)
    expect([...new Set(numbers)]).toEqual(upTo(500))
  })

  it('delays them, in order or not', async () => {
    const began = performance.now()
    const ordered = await carry(200, { delayMs: [5, 40] })
    expect(performance.now() - began).toBeGreaterThan(5)
    expect(ordered.numbers).toEqual(upTo(200))
    const { numbers } = await carry(200, { delayMs: [0, 40], ordered: false })
    expect(numbers).not.toEqual(upTo(200))
    expect(numbers.sort((a, b) => a - b)).toEqual(upTo(200))
  })

  it('is as slow as it is told, and brings what is slow piece by piece', async () => {
    const bytes = upTo(10).reduce((sum, n) => sum + frame(n).length, 0)
    const began = performance.now()
    const { numbers, pieces } = await carry(10, { kbit: 512 })
    expect(performance.now() - began).toBeGreaterThan((bytes * 8) / 512)
    expect(numbers).toEqual(upTo(10))
    expect(pieces).toBeGreaterThan(2)
  })

  it('takes in no more than a slow line can bring soon', async () => {
    const { proxy, dial, accepted } = await through({ kbit: 64 })
    const near = dial()
    near.write(PREAMBLE)
    const far = await accepted()
    await far.waitFor((stream) => stream.length >= PREAMBLE.length)
    let frames = 0
    proxy.on('frame', () => frames++)
    const sent = near.write(Buffer.concat(upTo(10_000).map((n) => frame(n)))) // 25 MB: too much for the system's buffers
    expect(sent).toBe(false)
    await proxy.frames(5)
    expect(near.writableLength).toBeGreaterThan(0)
    expect(frames).toBeLessThan(100)
  })

  it('lets nothing through while it is frozen, in one direction or both, and all afterwards', async () => {
    const { proxy, dial, accepted } = await through()
    const near = dial()
    const far = await accepted()
    near.write(PREAMBLE)
    await far.waitFor((stream) => stream.length === PREAMBLE.length)
    proxy.freeze(TO_LISTENER)
    near.write(frame(1))
    far.write(Buffer.concat([PREAMBLE, frame(2)]))
    const back = await near.waitFor((stream) => stream.length > PREAMBLE.length + 4)
    expect(framesIn(back)).toEqual([2])
    expect(far.all()).toEqual(PREAMBLE)
    proxy.thaw()
    await far.waitFor((stream) => stream.length === PREAMBLE.length + frame(1).length)

    proxy.freeze()
    const late = dial() // is connected to nobody until the line is up
    late.write(PREAMBLE)
    near.destroy() // and nobody is told
    const told = new Promise((resolve) => far.on('end', resolve))
    await new Promise((resolve) => near.on('close', resolve))
    expect(far.readableEnded).toBe(false)
    proxy.thaw()
    await told
    const farther = await accepted()
    expect(await farther.waitFor((stream) => stream.length === 6)).toEqual(PREAMBLE)
  })

  it('forgets a connection: each side keeps it, and hears nothing', async () => {
    const { proxy, dial, accepted } = await through()
    const near = dial()
    near.write(PREAMBLE)
    const far = await accepted()
    await far.waitFor((stream) => stream.length === PREAMBLE.length)
    proxy.forget()
    near.end(frame(1))
    far.write(frame(2))
    const other = dial()
    other.write(Buffer.concat([PREAMBLE, frame(3)]))
    const farther = await accepted()
    const length = PREAMBLE.length + frame(3).length
    expect(framesIn(await farther.waitFor((stream) => stream.length === length))).toEqual([3])
    expect(far.all()).toEqual(PREAMBLE)
    expect(far.readableEnded).toBe(false)
    expect(near.all()).toHaveLength(0)
  })

  it('breaks connections, refuses new ones, leads elsewhere', async () => {
    const { proxy, dial, accepted } = await through()
    const near = dial()
    const far = await accepted()
    const gone = [near, far].map((socket) => new Promise((resolve) => socket.on('close', resolve)))
    proxy.reset()
    await Promise.all(gone)
    proxy.refuse(true)
    const refused = dial()
    expect((await new Promise((resolve) => refused.on('error', resolve))).code).toBe('ECONNRESET')
    proxy.refuse(false)
    const elsewhere = createServer((socket) => socket.on('error', () => {}).end('here'))
    await new Promise((resolve) => elsewhere.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => elsewhere.close())
    proxy.retarget({ host: '127.0.0.1', port: elsewhere.address().port })
    // Not a stream of frames: of 'here' the proxy makes the beginning of a preamble.
    await new Promise((resolve) => dial().on('end', resolve))
  })

  it('knows its settings', async () => {
    const { proxy } = await through()
    expect(() => proxy.set({ lost: 1 })).toThrow("no setting 'lost'")
    proxy.set({ loss: 1 }, TO_DIALER)
  })
})

describe('the UDP proxy', () => {
  /** Sends `count` datagrams to a socket that sends each back; resolves with what came, when `isEnough`. */
  async function echo(count, settings, isEnough) {
    const bound = async (socket) => {
      await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve))
      onTestFinished(() => socket.close())
      return socket
    }
    const far = await bound(createSocket('udp4'))
    far.on('message', (bytes, { port, address }) => far.send(bytes, port, address))
    const target = { host: '127.0.0.1', port: far.address().port }
    const proxy = await UdpProxy.open({ target, seed, ...settings })
    onTestFinished(() => proxy.close())
    const near = await bound(createSocket('udp4'))
    const got = []
    const { host, port } = proxy.address
    const enough = new Promise((resolve) => {
      near.on('message', (bytes) => {
        got.push(bytes.readUInt32BE())
        if (isEnough(got, proxy)) resolve()
      })
    })
    const send = (n) => {
      const bytes = Buffer.alloc(4)
      bytes.writeUInt32BE(n)
      near.send(bytes, port, host)
    }
    for (const n of upTo(count)) send(n)
    return { got, proxy, enough, send }
  }
  const countsOf = (proxy) => [TO_LISTENER, TO_DIALER].map((name) => proxy.lines[name].counts)
  const last = (got) => got.at(-1) === 99

  it('carries datagrams there and back', async () => {
    const { got, enough } = await echo(100, {}, last)
    await enough
    expect(got).toEqual(upTo(100))
  })

  it('loses them', async () => {
    const isAllThatWillCome = (got, proxy) => {
      const [there, back] = countsOf(proxy)
      return (
        there.carried === 100 &&
        back.carried === 100 - there.lost &&
        got.length === 100 - there.lost - back.lost
      )
    }
    const { got, proxy, enough } = await echo(100, { loss: 0.2 }, isAllThatWillCome)
    await enough
    const [there, back] = countsOf(proxy)
    expect(there.lost).toBeGreaterThan(3)
    expect(back.lost).toBeGreaterThan(3)
    expect(got).toEqual([...got].sort((a, b) => a - b))
  })

  it('doubles, delays and reorders them', async () => {
    const isAll = (got, proxy) => {
      const [there, back] = countsOf(proxy)
      return (
        got.length === 100 + there.duplicated + back.duplicated &&
        there.carried === 100 &&
        new Set(got).size === 100
      )
    }
    const settings = { duplicate: 0.1, delayMs: [0, 20], ordered: false }
    const { got, enough } = await echo(100, settings, isAll)
    await enough
    expect(got).not.toEqual([...got].sort((a, b) => a - b))
  })

  it('is cut', async () => {
    const { got, proxy, enough, send } = await echo(0, {}, last)
    proxy.cut(true)
    send(1)
    // It is in the proxy's hands before what is sent to it after it has been mended.
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
    proxy.cut(false)
    send(99)
    await enough
    expect(got.at(-1)).toBe(99)
  })
})

const settings = { during: scenarios.acks(200), writes: { perSecond: 300 } }

describe('peers whose lines', () => {
  it('lose 20 % of all frames', async () => {
    const line = { loss: 0.2 }
    const { frames, framesLost } = await play(scenarios.badLines, { ...settings, line })
    expect(framesLost / frames).toBeGreaterThan(0.1)
    expect(framesLost / frames).toBeLessThan(0.3)
  })

  it('lose 20 % of all datagrams', async () => {
    const like = { ...scenarios.FAST, transport: 'udp' }
    const line = { loss: 0.2 }
    const { frames, framesLost } = await play(scenarios.badLines, { ...settings, line, like })
    expect(framesLost / frames).toBeGreaterThan(0.1)
    expect(framesLost / frames).toBeLessThan(0.3)
  })

  it('take 300 ± 200 ms', async () => {
    await play(scenarios.badLines, { ...settings, line: { delayMs: [100, 500] }, like: {} })
  })

  it('lose, double and reorder', async () => {
    const line = { loss: 0.2, duplicate: 0.2, delayMs: [0, 100], ordered: false }
    const counts = await play(scenarios.badLines, { ...settings, line })
    expect(counts.framesLost).toBeGreaterThan(0)
    expect(counts.framesDoubled).toBeGreaterThan(0)
  })

  it('carry 64 kbit/s, after one has written a lot', async () => {
    await play(scenarios.slowLine, {
      during: scenarios.acks(20),
      backlog: 800,
      line: { kbit: 64 },
      writes: { perSecond: 10 },
      like: { options: { heartbeatMs: 200, linkTimeoutMs: 3000 } },
    })
  })

  it('take longer than linkTimeoutMs for a frame: it is not taken for silence', async () => {
    const options = { heartbeatMs: 100, linkTimeoutMs: 3000 }
    const cluster = await newStage().cluster({ size: 2, line: { kbit: 128 }, options })
    const [one, other] = cluster.peers
    const written = one.acks(4000)
    await one.write({ atOnce: 64, count: 4000 })
    await written
    const isDown = ({ name, state }) => name === 'link' && state === 'down'
    const givenUp = other.event(isDown).then(() => 'given up')
    await cluster.mesh()
    const arrived = cluster.synced().then(() => 'arrived')
    expect(await Promise.race([arrived, givenUp])).toBe('arrived')
  })

  it('are down until both sides have noticed', async () => {
    await play(scenarios.lineDown, settings)
  })

  it('are stalled in one direction', async () => {
    await play(scenarios.oneWay, settings)
  })

  it('are forgotten by a router: connections are half-open', async () => {
    await play(scenarios.forgotten, settings)
  })
})

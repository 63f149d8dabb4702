// Peers over WebSocket: sockets of ws, of a browser's kind and of Bun.serve; servers of an application
// that has WebSockets of its own; what a close or an answer means; what is not ours.

import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { connect as connectStream, createServer as createStreamServer } from 'node:net'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import websocket from '@fastify/websocket'
import fastify from 'fastify'
import { WebSocket as UndiciWebSocket } from 'undici'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { attach, bunHandlers, connect, handler } from '../lib/transport/websocket.js'
import { FrameSocket, LEAST_PAYLOAD, maxBuffered } from '../lib/transport/websocket-frames.js'
import { authority } from './certificates.js'
import { Line } from './chaos/line.js'
import {
  bunProgram,
  childPath,
  converged,
  eventOf,
  FAST,
  openReplica,
  runProcess,
  tempDir,
  throws,
  until,
} from './helpers.js'
import { NGINX, startNginx } from './servers.js'
import { contract } from './transport/contract.js'
import { adapter as undici } from './transport/undici.js'
import { adapter } from './transport/websocket.js'

contract(adapter)
contract(undici)

const HELLO_LIKE = Uint8Array.of(1, 1)
const replicas = (n, options) =>
  Promise.all(Array.from({ length: n }, (_, i) => openReplica({ peerId: 11 + i, ...options })))
const many = (n, from = 0) =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text: `row ${from + i}` }))
const isDown = ({ state }) => state === 'down'
const isUp = ({ state }) => state === 'up'
const states = (db) => db.status().links.map(({ peerId, state }) => `${peerId} ${state}`)

/** A WebSocketServer, which ends with the test; gives { server, url }. */
async function serve(options) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', ...options })
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of server.clients) socket.terminate()
    server.close()
  })
  return { server, url: `ws://127.0.0.1:${server.address().port}` }
}

/** Starts an HTTP server, which ends with the test; resolves with its port. */
async function listening(server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  return server.address().port
}

function dial(db, url, options) {
  const connection = connect(db, url, { ...FAST, ...options })
  onTestFinished(() => connection.close())
  return connection
}

async function link(from, to, url, options) {
  const ups = [eventOf(from, 'link', isUp), eventOf(to, 'link', isUp)]
  const connection = dial(from, url, options)
  await Promise.all(ups)
  return connection
}

/** Both write, rows large and small, and become equal. */
async function replicate(a, b) {
  await Promise.all([a.upsert('note', many(500)), b.upsert('note', many(500, 250))])
  await a.upsert('note', { id: -1, text: 'é'.repeat(500_000) })
  await b.upsert('note', { id: -2, text: 'x'.repeat(65_536) })
  const { note } = await converged(a, b)
  expect(note).toHaveLength(752)
}

/** A pair of sockets: `Class`'s, open, and that of the server. */
async function pair(Class, options) {
  const { server, url } = await serve(options)
  const accepted = once(server, 'connection')
  const near = new Class(url)
  const opened = new Promise((resolve) => near.addEventListener('open', resolve))
  const [far, request] = await accepted
  return { near, far, opened, request }
}

describe('addRemotePeer takes a socket', () => {
  it.each([
    ['of ws', WebSocket],
    ['of a browser’s kind', UndiciWebSocket],
  ])('%s', async (_, Class) => {
    const [a, b] = await replicas(2)
    const { near, far } = await pair(Class)
    const ups = [eventOf(a, 'link', isUp), eventOf(b, 'link', isUp)]
    a.addRemotePeer(12, near)
    b.addRemotePeer(null, far)
    expect(await Promise.all(ups)).toMatchObject([
      { peerId: 12, transport: 'WebSocket' },
      { peerId: 11, transport: 'WebSocket' },
    ])
    await replicate(a, b)
    const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    a.closeRemotePeer(12)
    expect(await Promise.all(downs)).toMatchObject([{ code: null }, { code: null }])
  })

  it.each(['arraybuffer', 'fragments', 'blob'])(
    'that was used with binaryType %s',
    async (type) => {
      const [a, b] = await replicas(2)
      const { near, far, opened } = await pair(WebSocket)
      await opened
      near.binaryType = type
      far.binaryType = type
      a.addRemotePeer(12, near)
      b.addRemotePeer(11, far)
      await replicate(a, b)
      if (type === 'fragments') return
      const down = eventOf(a, 'link', isDown)
      near.binaryType = type // behind its back
      await b.upsert('note', { id: 1, text: 'again' })
      if (type === 'blob') {
        expect(await down).toMatchObject({
          code: 'REPLIC_PROTOCOL',
          reason: expect.stringContaining('Blob'),
        })
      } else await converged(a, b)
    },
  )

  it('that is closed already: the link ends at once', async () => {
    const [a] = await replicas(1)
    const { near, far } = await pair(WebSocket)
    far.close()
    await once(near, 'close')
    const down = eventOf(a, 'link', isDown)
    a.addRemotePeer(12, near)
    expect(await down).toMatchObject({ peerId: 12, code: 'ECONNRESET' })
  })

  it('and refuses what is none, and options that are none', async () => {
    const [a] = await replicas(1)
    await throws(() => a.addRemotePeer(12, {}), 'REPLIC_USAGE', 'send()')
    const { near } = await pair(WebSocket)
    const options = { onUnknownMessages: () => {} }
    await throws(() => a.addRemotePeer(12, near, options), 'REPLIC_USAGE', "'onUnknownMessage'")
    const [b] = await replicas(1, { peerId: 20, maxLinks: 1 })
    b.addRemotePeer(12, near)
    const before = (await pair(WebSocket)).near
    await throws(() => b.addRemotePeer(13, before), 'REPLIC_BUSY', 'maxLinks')
    expect(before.listenerCount('message')).toBe(0) // it is still the application's
    for (const socket of [near, before]) socket.on('error', () => {}).close()
  })
})

describe('served', () => {
  it('by a WebSocketServer of its own, and who it is that links', async () => {
    const seen = []
    const authorize = (peerId, { request, ...info }) => {
      seen.push([peerId, request?.url, request?.headers.authorization, info])
      return true
    }
    const [a, b] = await replicas(2, { authorize, secret: 'at least sixteen bytes' })
    const { server, url } = await serve()
    attach(b, server)
    let calls = 0
    const headers = async () => ({ authorization: `Bearer ${++calls}` })
    const connection = await link(a, b, `${url}/x?y=1`, { headers, peerId: 12 })
    await replicate(a, b)
    const info = { transport: 'websocket', isAccepted: true }
    expect(seen).toContainEqual([11, '/x?y=1', 'Bearer 1', { ...info, address: '127.0.0.1' }])
    expect(seen).toContainEqual([
      12,
      undefined,
      undefined,
      { ...info, address: `${url}/x`, isAccepted: false },
    ])
    const up = eventOf(a, 'link', isUp)
    for (const socket of server.clients) socket.terminate()
    await up
    expect(calls).toBe(2)
    const down = eventOf(b, 'link', isDown)
    await connection.close()
    expect(await down).toMatchObject({ code: null })
    expect([states(a), states(b)]).toEqual([[], []])
  })

  it('to undici, which sends headers too', async () => {
    const hosts = []
    const authorize = (_, { request }) => hosts.push(request.headers['x-test'])
    const [b] = await replicas(1, { authorize })
    const [a] = await replicas(1, { peerId: 12 })
    const { server, url } = await serve()
    attach(b, server)
    await link(a, b, url, { WebSocket: UndiciWebSocket, headers: { 'x-test': 'yes' } })
    expect(hosts).toEqual(['yes'])
  })

  it('on a path beside the application’s, by attach() and by handleUpgrade()', async () => {
    const [a, b, c] = await replicas(3)
    const { server, url } = await serve()
    const attached = attach(b, server, { path: '/replic' })
    server.on('connection', (socket, { url: path }) => {
      if (path === '/echo') socket.on('message', (data) => socket.send(`${data}`))
    })
    const http = createServer()
    const upgrading = new WebSocketServer({ noServer: true })
    const handle = handler(b)
    http.on('upgrade', (request, socket, head) => {
      upgrading.handleUpgrade(request, socket, head, (accepted) => {
        if (request.url === '/replic') handle(accepted, request)
        else accepted.on('message', (data) => accepted.send(`${data}`))
      })
    })
    const port = await listening(http)
    await link(a, b, `${url}/replic?x`)
    await link(c, b, `ws://127.0.0.1:${port}/replic`)
    await replicate(a, b)
    await converged(a, b, c)
    for (const echo of [`${url}/echo`, `ws://127.0.0.1:${port}/echo`]) {
      const socket = new WebSocket(echo)
      await once(socket, 'open')
      socket.send('hello')
      expect(`${await once(socket, 'message')}`).toContain('hello')
      socket.terminate()
    }
    expect(b.status().links).toHaveLength(2)
    const downs = [eventOf(a, 'link', isDown), eventOf(c, 'link', isDown)]
    await Promise.all([attached.close(), handle.close()])
    await Promise.all(downs)
    expect(server.listenerCount('connection')).toBe(1)
  })

  it('by Fastify', async () => {
    const addresses = []
    const authorize = (_, { request, address }) => addresses.push(request.headers.host, address)
    const [b] = await replicas(1, { authorize })
    const [a] = await replicas(1, { peerId: 12 })
    const app = fastify()
    await app.register(websocket)
    app.get('/replic', { websocket: true }, handler(b))
    app.get('/echo', { websocket: true }, (socket) => {
      socket.on('message', (data) => socket.send(`${data}`))
    })
    const origin = (await app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws')
    onTestFinished(() => app.close())
    await link(a, b, `${origin}/replic`)
    await replicate(a, b)
    expect(addresses).toEqual([new URL(origin).host, '127.0.0.1'])
    const socket = new WebSocket(`${origin}/echo`)
    await once(socket, 'open')
    socket.send('hello')
    expect(`${await once(socket, 'message')}`).toContain('hello')
    await a.close()
  })

  it('over TLS, with certificates of both', async () => {
    const [a, b] = await replicas(2)
    const { ca, sign } = authority()
    const own = sign({ name: 'server', alt: 'DNS:localhost' })
    const server = createSecureServer({ ...own, ca, requestCert: true, rejectUnauthorized: true })
    attach(b, new WebSocketServer({ server }))
    const url = `wss://localhost:${await listening(server)}`
    const down = eventOf(a, 'link', isDown)
    const unknown = dial(a, url)
    expect((await down).code).toBe('SELF_SIGNED_CERT_IN_CHAIN')
    await unknown.close()
    await link(a, b, url, { tls: { ca, ...sign({ name: 'peer' }) } })
    await replicate(a, b)
  })

  it('by Bun.serve, and by ws on Bun, and dialed by Bun and by Node', async () => {
    const script = fileURLToPath(new URL('./bun/websocket.js', import.meta.url))
    const outcome = { code: 0, signal: null, stdout: 'as expected\n', stderr: '' }
    expect(await runProcess(bunProgram(), [script, tempDir(), execPath])).toEqual(outcome)
  })

  it('by the example', async () => {
    const main = fileURLToPath(new URL('../examples/websocket/main.js', import.meta.url))
    expect(await runProcess(execPath, [main])).toEqual({
      code: 0,
      signal: null,
      stdout: `over the same socket: the server says hello
at the server: [ { id: 'a', text: 'written at the peer' } ]
at the peer: [
  { id: 'a', text: 'written at the peer' },
  { id: 'b', text: 'written at the server' }
]
`,
      stderr: '',
    })
  })
})

describe('messages that are not ours', () => {
  it('go to the application, both ways, over one socket', async () => {
    const [a, b] = await replicas(2, { secret: 'at least sixteen bytes' })
    const { server, url } = await serve()
    const got = new EventEmitter()
    attach(b, server, { onUnknownMessage: (...args) => got.emit('server', ...args) })
    const connection = await link(a, b, url, {
      onUnknownMessage: (...args) => got.emit('client', ...args),
    })
    const bytes = new Uint8Array([1, 12, 3])
    for (const message of ['{"version":1}', '', bytes, new Uint8Array(0)]) {
      const there = once(got, 'server')
      connection.socket.send(message)
      const [received, socket] = await there
      expect(typeof received).toBe(typeof message)
      expect([...received]).toEqual([...message])
      const back = once(got, 'client')
      socket.send(message)
      const [returned, near] = await back
      expect([...returned]).toEqual([...message])
      expect(near).toBe(connection.socket)
    }
    await replicate(a, b)
  })

  it('are those that begin with no version and type of ours', () => {
    const frames = new FrameSocket({ maxFrameBytes: 1000, windowBytes: 1000 }, () => unknown++)
    let unknown = 0
    const ours = []
    frames.on('message', ([version, type]) => ours.push([version, type]))
    frames.on('progress', () => ours.push([1, 34]))
    frames.use(new FakeSocket())
    for (let version = 0; version < 256; version++) {
      for (let type = 0; type < 256; type++) frames.received(Uint8Array.of(version, type, 7))
    }
    const types = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 32, 33, 34]
    expect(ours.slice(0, -3)).toEqual(types.map((type) => [1, type]))
    expect(ours.at(-3)).toEqual([7, 7]) // what parts 34 and 35 carried
    expect(ours.slice(-2)).toEqual([
      [1, 36],
      [1, 37],
    ])
    expect(unknown).toBe(65_536 - 17)
  })

  it.each([
    ['a text', 'hello', 'not string'],
    ['garbage', Uint8Array.of(1, 12), ''],
    ['nothing', new Uint8Array(0), 'not nothing'],
  ])('end the link where the application takes none: %s', async (_, message, words) => {
    const [b] = await replicas(1)
    const { server, url } = await serve()
    attach(b, server)
    const socket = new WebSocket(url)
    await once(socket, 'open')
    const down = eventOf(b, 'link', isDown)
    const closed = once(socket, 'close')
    socket.send(message)
    expect(await down).toMatchObject({
      code: 'REPLIC_PROTOCOL',
      reason: expect.stringContaining(words),
    })
    expect((await closed)[0]).toBe(1002)
  })
})

/** A WebSocket of ws's kind, or of a browser's, that is none; keeps what it is told. */
class FakeSocket extends EventEmitter {
  readyState = 1
  binaryType = 'nodebuffer'
  bufferedAmount = 0
  sent = []

  send(bytes) {
    this.sent.push(Buffer.from(bytes))
  }

  close(code) {
    this.closedWith = code
  }
}

class FakeBrowserSocket extends EventTarget {
  readyState = 1
  binaryType = 'blob'
  bufferedAmount = 0

  deliver(bytes) {
    const data = Uint8Array.from(bytes)
    this.dispatchEvent(Object.assign(new Event('message'), { data: data.buffer }))
    data.fill(0xff) // a socket may use its bytes again
  }
}

describe('frames', () => {
  const options = { maxFrameBytes: 1_000_000, windowBytes: 1000 }
  const most = 1_000_000 + 2 * 1024 * 1024
  const socket = (raw = new FakeSocket()) => {
    const events = []
    const frames = new FrameSocket(options).use(raw)
    frames.on('message', (bytes) => events.push(Buffer.from(bytes)))
    frames.on('progress', () => events.push('progress'))
    frames.on('error', ({ code }) => events.push(code))
    frames.on('close', () => events.push('close'))
    return { raw, frames, events }
  }

  it.each([
    [1, 1],
    [65_536, 1],
    [65_537, 2],
    [131_072, 2],
    [200_000, 4],
  ])('of %i bytes go in %i messages', (length, parts) => {
    const [near, far] = [socket(), socket()]
    const frame = Buffer.alloc(length, 7)
    frame.set(HELLO_LIKE.subarray(0, length))
    frame[length - 1] = 9
    near.frames.send(frame)
    expect(near.raw.sent).toHaveLength(parts)
    for (const message of near.raw.sent) {
      expect(message.length).toBeLessThanOrEqual(LEAST_PAYLOAD)
      far.raw.emit('message', message, true)
    }
    const whole = far.events.pop()
    expect(whole.equals(frame)).toBe(true)
    expect(far.events).toEqual(Array(parts - 1).fill('progress'))
  })

  it('that are larger than any may be end the link, whole or in parts', () => {
    const [whole, parts] = [socket(), socket()]
    whole.raw.emit('message', Buffer.alloc(most + 3, 1), true)
    expect(whole.events).toEqual(['REPLIC_TOO_LARGE', 'close'])
    expect(whole.raw.closedWith).toBe(1009)
    const part = Buffer.alloc(65_538, 1)
    part[1] = 34
    for (let i = 0; i < 1000; i++) parts.raw.emit('message', part, true)
    expect(parts.events.slice(-2)).toEqual(['REPLIC_TOO_LARGE', 'close'])
    expect(parts.events.length).toBe(Math.floor(most / 65_536) + 2)
  })

  it('are lost whole, and none is begun, where too much waits to be sent', () => {
    const { raw, frames } = socket()
    const frame = Buffer.alloc(100_000)
    raw.bufferedAmount = maxBuffered(options) - frame.length + 1
    frames.send(frame)
    expect(raw.sent).toEqual([])
    raw.bufferedAmount--
    frames.send(frame)
    expect(raw.sent).toHaveLength(2)
  })

  it('are kept while paused where the socket cannot be, as many as an honest side sends', () => {
    const { raw, frames, events } = socket(new FakeBrowserSocket())
    const frame = (i) => Buffer.of(1, 2, i)
    frames.pause()
    for (let i = 0; i < 3; i++) raw.deliver(frame(i))
    for (const bytes of [most, options.windowBytes, 1]) raw.deliver(new Uint8Array(bytes))
    expect(events).toEqual([])
    frames.resume()
    expect(events.map(({ length }) => length)).toEqual([3, 3, 3, most, 1])
    expect(events.splice(0).slice(0, 3)).toEqual([frame(0), frame(1), frame(2)])
    raw.deliver(frame(3))
    frames.pause()
    raw.deliver(frame(4))
    raw.dispatchEvent(Object.assign(new Event('close'), { code: 1000 }))
    expect(events).toEqual([frame(3), frame(4), 'close'])
  })

  // 2 s on this line, and a link that is silent for longer than 0.5 s ends.
  it.each([
    ['ws', WebSocket],
    ['undici', UndiciWebSocket],
  ])('arrive over a slow line, however large they are: %s', async (_, Class) => {
    const [a, b] = await replicas(2, { heartbeatMs: 100, linkTimeoutMs: 500 })
    const { server, url } = await serve()
    attach(b, server)
    await link(a, b, await slowLine(new URL(url).port, 8_000), { WebSocket: Class })
    const tokens = [a, b].map((db, id) => db.upsert('note', { id, text: 'x'.repeat(2_000_000) }))
    const [one, other] = await Promise.all(tokens)
    await Promise.all([b.waitFor(one, 50_000), a.waitFor(other, 50_000)])
  })

  it('are never compressed, whatever was negotiated', async () => {
    const [a, b] = await replicas(2)
    const { near, far, request, opened } = await pair(WebSocket, { perMessageDeflate: true })
    await opened
    const written = [near._socket, request.socket].map((stream) => vi.spyOn(stream, 'write'))
    expect([near.extensions, far.extensions]).toEqual(Array(2).fill('permessage-deflate'))
    a.addRemotePeer(12, near)
    b.addRemotePeer(11, far)
    await replicate(a, b)
    await Promise.all(many(50).map(({ id }) => [a, b][id % 2].upsert('note', { id, size: id })))
    await converged(a, b)
    for (const { mock } of written) {
      const bytes = Buffer.concat(mock.calls.map(([chunk]) => chunk))
      const firsts = firstBytes(bytes)
      expect(firsts.length).toBeGreaterThan(5)
      expect([...new Set(firsts)]).toEqual([0x82]) // a whole message of bytes, RSV1 not set
    }
  })
})

/** The URL of a line to a port of this machine that carries so many kilobits a second, each way. */
async function slowLine(port, kbit) {
  const streams = new Set()
  const server = createStreamServer((near) => {
    const far = connectStream(port, '127.0.0.1')
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      streams.add(from)
      const line = new Line(() => 0)
      line.set({ kbit })
      from
        .on('error', () => {})
        .on('data', (chunk) => line.put(chunk, 0, (piece) => to.write(piece)))
      from.on('close', () => {
        line.clear()
        to.destroy()
      })
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const stream of streams) stream.destroy()
  })
  return `ws://127.0.0.1:${server.address().port}`
}

it('a stranger is believed little as soon as there is a secret', async () => {
  const db = await openReplica()
  const { server, url } = await serve()
  attach(db, server)
  await db.setSecrets('a secret that was set later')
  const stranger = new WebSocket(url)
  const closed = once(stranger, 'close')
  await once(stranger, 'open')
  stranger.send(Buffer.alloc(8192), { fin: false }) // no message yet
  expect((await closed)[0]).toBe(1009)
})

/** The first byte of each WebSocket frame (RFC 6455, 5.2). */
function firstBytes(bytes) {
  const firsts = []
  for (let at = 0; at < bytes.length; ) {
    firsts.push(bytes[at])
    const isMasked = bytes[at + 1] > 127
    let length = bytes[at + 1] & 127
    at += 2
    if (length === 126) length = bytes.readUInt16BE(at)
    if (length === 127) length = Number(bytes.readBigUInt64BE(at))
    at += length < 126 ? 0 : length < 65_536 ? 2 : 8
    at += length + (isMasked ? 4 : 0)
  }
  return firsts
}

describe('a close', () => {
  it.each([
    [1000, null],
    [undefined, null], // 1005
    [1001, null],
    [1002, 'REPLIC_PROTOCOL'],
    [1003, 'REPLIC_PROTOCOL'],
    [1007, 'REPLIC_PROTOCOL'],
    [1008, 'REPLIC_AUTH'],
    [1009, 'REPLIC_TOO_LARGE'],
    [1011, 'REPLIC_BUSY'],
    [1012, 'REPLIC_BUSY'],
    [1013, 'REPLIC_BUSY'],
    [3000, null],
    [4002, 'REPLIC_PROTOCOL'],
    [4008, 'REPLIC_AUTH'],
    ['lost', 'ECONNRESET'],
  ])('with %s is %s', async (given, code) => {
    for (const Class of [WebSocket, UndiciWebSocket]) {
      const [a] = await replicas(1)
      const { server, url } = await serve()
      server.on('connection', (socket) => {
        if (given === 'lost') socket.terminate()
        else socket.close(given, given && 'for a reason')
      })
      const down = eventOf(a, 'link', isDown)
      const connection = dial(a, url, { WebSocket: Class, retryMinMs: 60_000, retryMaxMs: 60_000 })
      const event = await down
      expect(event.code).toBe(code)
      const isOrderly = given === 1000 || given === undefined
      if (isOrderly) expect(event.reason).toBe(null)
      else if (given !== 'lost') expect(event.reason).toContain(`${given}, 'for a reason'`)
      await connection.close()
    }
  })

  // What the other side is told, by ws and by a browser's kind.
  it.each([
    ['it is not authorized', { authorize: () => false }, 1008],
    ['there is no room', { maxLinks: 1 }, 1013],
  ])('where %s', async (_, options, code) => {
    const [b] = await replicas(1, options)
    const { server, url } = await serve()
    attach(b, server)
    const [a, c] = [await openReplica({ peerId: 12 }), await openReplica({ peerId: 13 })]
    const first = code === 1013 && eventOf(b, 'link', isUp)
    if (first) dial(c, url)
    await first
    const socket = code === 1013 ? new WebSocket(url) : undefined
    if (socket) expect((await once(socket, 'close'))[0]).toBe(code)
    else {
      const down = eventOf(a, 'link', isDown)
      const connection = dial(a, url)
      const closed = new Promise((resolve) => connection.socket.on('close', resolve))
      expect(await down).toMatchObject({ code: 'REPLIC_AUTH' })
      expect(await closed).toBe(code)
    }
    expect(b.status().refusedLinks).toBe(code === 1013 ? 1 : 0)
  })

  it('by a browser’s kind of socket, which may not say everything', async () => {
    const [a] = await replicas(1, { authorize: () => false })
    const [b] = await replicas(1, { peerId: 12 })
    const { server, url } = await serve()
    attach(b, server)
    const connected = once(server, 'connection')
    dial(a, url, { WebSocket: UndiciWebSocket })
    const [socket] = await connected
    const down = eventOf(b, 'link', isDown)
    expect((await once(socket, 'close'))[0]).toBe(4008)
    expect(await down).toMatchObject({ code: 'REPLIC_AUTH' })
  })

  it('of a handler that is closed, and of a replica that is', async () => {
    const [b] = await replicas(1)
    const { server, url } = await serve()
    const handle = handler(b)
    server.on('connection', handle)
    const codeOf = async () => {
      const socket = new WebSocket(url)
      return (await once(socket, 'close'))[0]
    }
    await handle.close()
    expect(await codeOf()).toBe(1001)
    server.off('connection', handle)
    server.on('connection', handler(b))
    await b.close()
    expect(await codeOf()).toBe(1001)
    expect(b.status().links).toEqual([])
  })
})

describe('connect', () => {
  it.each([
    [401, 'REPLIC_AUTH', 'headers'],
    [403, 'REPLIC_AUTH', 'headers'],
    [404, 'REPLIC_PROTOCOL', 'path'],
    [429, 'REPLIC_BUSY', ''],
    [503, 'REPLIC_BUSY', ''],
    [200, 'REPLIC_PROTOCOL', ''],
    [302, 'REPLIC_PROTOCOL', 'redirects to /x'],
  ])('is answered %i: %s', async (status, code, words) => {
    const [a] = await replicas(1)
    const server = createServer()
    const headers = status === 302 ? 'location: /x\r\n' : ''
    server.on('upgrade', (_request, socket) => {
      socket.end(`HTTP/1.1 ${status} x\r\n${headers}content-length: 0\r\n\r\n`)
    })
    const url = `ws://127.0.0.1:${await listening(server)}/replic`
    const downs = []
    a.on('link', (event) => downs.push(event))
    dial(a, url)
    await until(() => downs.length === 2) // it has dialed again
    expect(downs[1]).toMatchObject({ code, address: url })
    expect(downs[1].reason).toContain(`answered ${status}`)
    expect(downs[1].reason).toContain(words)
  })

  it.each([
    ['nobody who listens', {}, 'ECONNREFUSED'],
    ['nobody who listens, by undici', { WebSocket: UndiciWebSocket }, 'ECONNRESET'], // it does not say
    [
      'headers that cannot be had',
      { headers: () => Promise.reject(new Error('no token')) },
      null,
      'no token',
    ],
    [
      'a header that is none',
      { headers: { 'bad name': 'x' }, WebSocket },
      'ERR_INVALID_HTTP_TOKEN',
    ],
    [
      'a class that throws',
      {
        WebSocket: class {
          constructor() {
            throw new Error('not today')
          }
        },
      },
      null,
      'not today',
    ],
    [
      'a class of something else',
      { WebSocket: Set },
      'REPLIC_USAGE',
      'a WebSocket is needed, not a Set',
    ],
  ])('finds %s, and dials again', async (_, options, code, words = '') => {
    const [a] = await replicas(1)
    const server = createServer()
    const port = await listening(server)
    server.close()
    await once(server, 'close')
    const downs = []
    a.on('link', (event) => downs.push(event))
    const connection = dial(a, `ws://127.0.0.1:${port}`, options)
    await until(() => downs.length === 3)
    for (const event of downs) {
      expect(event).toMatchObject({ code, reason: expect.stringContaining(words) })
    }
    await connection.close()
    await until(() => a.status().links.length === 0)
  })

  it('is closed while it asks for headers', async () => {
    const [a] = await replicas(1)
    let answer
    const headers = () =>
      new Promise((resolve) => {
        answer = resolve
      })
    const made = []
    class Recorded extends WebSocket {
      constructor(...args) {
        super(...args)
        made.push(this)
      }
    }
    const connection = dial(a, 'ws://127.0.0.1:1', { headers, WebSocket: Recorded })
    expect(connection.socket).toBe(null)
    await connection.close()
    answer({})
    await new Promise((resolve) => setImmediate(resolve))
    expect(made).toEqual([])
  })

  const global = ['--experimental-websocket']
  const noGlobal =
    Number(process.versions.node.split('.')[0]) < 22 ? [] : ['--no-experimental-websocket']
  it.each([
    ['the global WebSocket where there is no ws', global, 'plain', 'linked\n'],
    ['ws only for headers', global, 'headers', 'headers and TLS options need'],
    ['ws where there is no global WebSocket', noGlobal, 'plain', 'there is no global WebSocket'],
  ])('uses %s', async (_, flags, what, words) => {
    const [b] = await replicas(1)
    const { server, url } = await serve()
    attach(b, server)
    const args = [...flags, '--no-warnings', childPath('websocket.js'), url, tempDir(), what]
    const { code, stdout, stderr } = await runProcess(execPath, args)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toContain(words)
    if (what !== 'plain' || flags !== global) {
      expect(stdout).toContain('REPLIC_USAGE')
      expect(stdout).toContain('npm install ws')
    }
  })

  it.each([
    [undefined, {}, 'ws: or wss: URL'],
    ['http://x', {}, 'not http:'],
    ['replic', {}, 'ws: or wss: URL'],
    ['ws://me:secret@x', {}, 'headers'],
    ['ws://x', { header: {} }, "did you mean 'headers'"],
    ['ws://x', { tls: 1 }, 'tls'],
    ['ws://x', { WebSocket: {} }, 'a class'],
    ['ws://x', { peerId: 0 }, 'peerId'],
  ])('refuses %j, %j', async (url, options, words) => {
    const [a] = await replicas(1)
    const error = await throws(() => connect(a, url, options), 'REPLIC_USAGE', 'connect: ', words)
    expect(error.message).not.toContain('secret@')
  })

  it('and the others refuse what they cannot serve', async () => {
    const [a] = await replicas(1)
    const refuses = (call, ...words) => throws(call, 'REPLIC_USAGE', ...words)
    await refuses(() => attach(a, {}), 'a WebSocketServer of ws')
    await refuses(
      () => attach(a, new WebSocketServer({ noServer: true }), { paths: '/' }),
      "'path'",
    )
    const compressing = new WebSocketServer({ noServer: true, perMessageDeflate: true })
    await refuses(() => attach(a, compressing), 'perMessageDeflate: false')
    const small = new WebSocketServer({ noServer: true, maxPayload: 65_537 })
    await refuses(() => attach(a, small), 'maxPayload', '65538', '65537')
    attach(a, new WebSocketServer({ noServer: true, maxPayload: 65_538 }))
    await refuses(() => handler(a)({}), 'handler', 'a WebSocket of ws')
    await refuses(() => bunHandlers(a, { others: 1 }), 'others')
    await a.close()
    for (const call of [handler, bunHandlers, (db) => connect(db, 'ws://x')]) {
      await throws(() => call(a), 'REPLIC_CLOSED')
    }
  })
})

if (!NGINX && process.env.CI) throw new Error('nginx is not installed: apt-get install nginx-light')
if (!NGINX) console.warn('SKIPPED: WebSocket through nginx, which is not installed (nginx-light)')

describe.skipIf(!NGINX)('through nginx', () => {
  /** It stands before `to`, a port, with what docs/transports.md says, or with `location`. */
  async function nginx(to, location) {
    const { port, close, log } = await startNginx(
      (own) => `
        server {
          listen 127.0.0.1:${own};
          location /replic { proxy_pass http://127.0.0.1:${to}; ${location} }
        }`,
    )
    onTestFinished(close)
    return { url: `ws://127.0.0.1:${port}/replic`, log }
  }
  const UPGRADE = `proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;`

  it('that hands upgrades on, and ends what is silent for a second', async () => {
    const quick = { heartbeatMs: 300, linkTimeoutMs: 30_000 }
    const [a, b] = await replicas(2, quick)
    const { server } = await serve()
    server.on('connection', handler(b))
    let messages = 0
    server.on('connection', (socket) =>
      socket.on('message', () => {
        messages++
      }),
    )
    const { url, log } = await nginx(server.address().port, `${UPGRADE} proxy_read_timeout 1s;`)
    await link(a, b, url)
    await replicate(a, b)
    // From here on there are only heartbeats; without them nginx would end it before the tenth.
    const before = messages
    await until(() => messages > before + 10)
    expect([states(a), states(b)]).toEqual([['12 ready'], ['11 ready']])
    expect(log('access')).not.toContain(' 101 ') // the line of a connection that has ended
  })

  it('that knows nothing of upgrades: the dialer says what it was answered', async () => {
    const [a, b] = await replicas(2)
    const { server } = await serve()
    server.on('connection', handler(b))
    const { url } = await nginx(server.address().port, '')
    const down = eventOf(a, 'link', isDown)
    dial(a, url)
    const { code, reason } = await down
    expect(code).toBe('REPLIC_PROTOCOL')
    expect(reason).toBe(
      `${url} answered 426: a proxy on the way does not hand the upgrade on (docs/transports.md, WebSocket, says how nginx does)`,
    )
  })
})

// Peers over HTTP: node:http, Express, Fastify, fetch-style handlers, proxies; what is answered to
// requests that are none of ours, and what a client makes of answers that are none.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { connect as netConnect } from 'node:net'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import express from 'express'
import express4 from 'express-4'
import fastify from 'fastify'
import { describe, expect, it, onTestFinished } from 'vitest'
import { connect, fetchHandler, handler } from '../lib/transport/http.js'
import { Session } from '../lib/transport/http-frames.js'
import {
  bunProgram,
  converged,
  eventOf,
  FAST,
  link as linkOverTcp,
  NOTES,
  openReplica,
  runProcess,
  tableDdl,
  tempDir,
  throws,
  until,
} from './helpers.js'
import { startProxy } from './proxy.js'
import { NGINX, startNginx } from './servers.js'
import { contract } from './transport/contract.js'
import { adapter } from './transport/http.js'

contract(adapter)

const TYPE = 'application/vnd.replic-sqlite'
const replicas = (n, options) =>
  Promise.all(Array.from({ length: n }, (_, i) => openReplica({ peerId: 11 + i, ...options })))
const many = (n, from = 0) =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text: `row ${from + i}` }))
const isDown = ({ state }) => state === 'down'
const isUp = ({ state }) => state === 'up'
const states = (db) => db.status().links.map(({ peerId, state }) => `${peerId} ${state}`)

/** Starts a server, which ends with the test; resolves with its port. */
async function listening(server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections?.()
  })
  return server.address().port
}

/** Serves a replica with node:http; gives { url, server, handle }. */
async function serve(db, options) {
  const handle = handler(db, options)
  const server = createServer(handle)
  return { url: `http://127.0.0.1:${await listening(server)}/replic`, server, handle }
}

/** Links `from` to what serves `to` at `url`. */
async function link(from, to, url, options) {
  const ups = [eventOf(from, 'link', isUp), eventOf(to, 'link', isUp)]
  const connection = connect(from, { url, ...FAST, ...options })
  await Promise.all(ups)
  return connection
}

/** Both write, and become equal. */
async function replicate(a, b, n = 500) {
  await Promise.all([a.upsert('note', many(n)), b.upsert('note', many(n, n / 2))])
  await Promise.all(many(50).map(({ id }) => [a, b][id % 2].upsert('note', { id, size: id })))
  const { note } = await converged(a, b)
  expect(note).toHaveLength(n * 1.5)
}

describe('two peers', () => {
  it('over node:http', async () => {
    const [a, b] = await replicas(2)
    const { url } = await serve(b)
    await a.upsert('note', { id: -1 })
    const ups = [eventOf(a, 'link', isUp), eventOf(b, 'link', isUp)]
    const connection = connect(a, { url, peerId: 12 })
    expect(await Promise.all(ups)).toMatchObject([
      { peerId: 12, transport: 'http', address: url },
      { peerId: 11, transport: 'http', address: '127.0.0.1' },
    ])
    await a.delete('note', { id: -1 })
    await Promise.all([a.upsert('note', many(500)), b.upsert('note', many(500, 250))])
    const { note } = await converged(a, b)
    expect(note).toHaveLength(751)
    const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    await connection.close()
    expect(await Promise.all(downs)).toMatchObject([{ code: null }, { code: null }])
    expect([states(a), states(b)]).toEqual([[], []])
  })

  it.each([
    ['Express 5', express],
    ['Express 4', express4],
  ])('over %s, beside other routes', async (_, framework) => {
    const [a, b] = await replicas(2)
    const app = framework()
    app.use(framework.json())
    app.use('/replic', handler(b))
    app.use('/read', framework.raw({ type: TYPE, limit: '100mb' }), handler(b))
    app.get('/hello', (_req, res) => res.json({ hello: 'world' }))
    const port = await listening(createServer(app))
    await link(a, b, `http://127.0.0.1:${port}/replic`)
    await replicate(a, b)
    const hello = await fetch(`http://127.0.0.1:${port}/hello`)
    expect(await hello.json()).toEqual({ hello: 'world' })
    const [c] = await replicas(1, { peerId: 13 })
    await link(c, b, `http://127.0.0.1:${port}/read`) // bodies read by a parser of the application's
    await converged(a, b, c)
  })

  it('over Fastify', async () => {
    const [a, b] = await replicas(2)
    const app = fastify()
    const handle = handler(b)
    app.register(async (scope) => {
      scope.addContentTypeParser(TYPE, (_request, _payload, done) => done(null))
      scope.post('/replic', (request, reply) => {
        reply.hijack()
        return handle(request.raw, reply.raw)
      })
    })
    app.post('/hello', async (request) => request.body)
    const origin = await app.listen({ port: 0, host: '127.0.0.1' })
    onTestFinished(() => app.close())
    await link(a, b, `${origin}/replic`)
    await replicate(a, b)
    const body = JSON.stringify({ hello: 'world' })
    const headers = { 'content-type': 'application/json' }
    const hello = await fetch(`${origin}/hello`, { method: 'POST', headers, body })
    expect(await hello.text()).toBe(body)
    await Promise.all([a.close(), b.close()])
  })

  it('over Bun.serve and node:http, served and dialed by Bun', async () => {
    const script = fileURLToPath(new URL('./bun/http.js', import.meta.url))
    expect(await runProcess(bunProgram(), [script, tempDir()])).toEqual({
      code: 0,
      signal: null,
      stdout: 'as expected\n',
      stderr: '',
    })
  })

  it('the example: Express with routes of its own, and who may link', async () => {
    const main = fileURLToPath(new URL('../examples/http/main.js', import.meta.url))
    expect(await runProcess(execPath, [main])).toEqual({
      code: 0,
      signal: null,
      stdout: `at the server: [ { id: 'a', text: 'written at the peer' } ]
at the peer: [
  { id: 'a', text: 'written at the peer' },
  { id: 'b', text: 'posted to the server' }
]
`,
      stderr: '',
    })
  })

  it('over HTTPS, with certificates of both', async () => {
    const [a, b] = await replicas(2)
    const { cert, key } = certificate()
    const server = createSecureServer({ cert, key, ca: cert, requestCert: true }, handler(b))
    const url = `https://localhost:${await listening(server)}`
    const down = eventOf(a, 'link', isDown)
    const unknown = connect(a, { url, ...FAST })
    expect((await down).code).toMatch(/SELF_SIGNED/)
    await unknown.close()
    await link(a, b, url, { tls: { ca: cert, cert, key } })
    await replicate(a, b)
  })

  it('with a secret, an authorization by headers, and credentials that change', async () => {
    const secret = 'at least sixteen bytes'
    const seen = []
    const authorize = (peerId, { request, transport, isAccepted }) => {
      if (isAccepted) seen.push([peerId, transport, request.headers.authorization])
      return true
    }
    const [a, b] = await replicas(2, { secret, authorize })
    const { url } = await serve(b)
    let calls = 0
    await link(a, b, url, { headers: async () => ({ authorization: `Bearer ${++calls}` }) })
    await replicate(a, b)
    expect(seen).toEqual([[11, 'http', 'Bearer 1']])
    expect(calls).toBeGreaterThan(3)
    const [c] = await replicas(1, { peerId: 13, secret: 'another of sixteen bytes' })
    const down = eventOf(c, 'link', isDown)
    connect(c, { url, ...FAST })
    expect(await down).toMatchObject({ code: 'REPLIC_AUTH' })
  })
})

/** A certificate for localhost, signed by itself. */
function certificate() {
  const dir = tempDir()
  const [key, cert] = ['key.pem', 'cert.pem'].map((name) => join(dir, name))
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
  const named = ['-nodes', '-days', '2', '-subj', '/CN=localhost']
  const also = ['-addext', 'subjectAltName=DNS:localhost']
  execFileSync('openssl', [...made, ...named, ...also, '-keyout', key, '-out', cert], {
    stdio: 'ignore',
  })
  return { key: readFileSync(key), cert: readFileSync(cert) }
}

describe('large frames', () => {
  it('go in pieces, each within maxBodyBytes', async () => {
    const ddl = NOTES + tableDdl('t', ['id INTEGER NOT NULL', 'v BLOB'], 'id')
    const [a, b] = await replicas(2, { ddl })
    let largest = 0
    const handle = handler(b)
    const server = createServer((req, res) => {
      largest = Math.max(largest, Number(req.headers['content-length']))
      return handle(req, res)
    })
    const url = `http://127.0.0.1:${await listening(server)}`
    await link(a, b, url, { maxBodyBytes: 5_000 })
    const bytes = (n) => new Uint8Array(n).map((_, i) => i * 7 + n)
    await a.upsert('t', { id: 1, v: bytes(100_000) })
    await Promise.all(many(200).map((row) => a.upsert('note', row)))
    await b.upsert('t', { id: 2, v: bytes(3_000_000) })
    await a.upsert('t', { id: 3, v: bytes(20_000) })
    await converged(a, b)
    expect(largest).toBeGreaterThan(4_000)
    expect(largest).toBeLessThanOrEqual(5_000)
  })

  const options = { maxFrameBytes: 1000, windowBytes: 100_000 }
  const bodies = (frames, maxBytes) => {
    const session = new Session(options)
    session.cork()
    for (const frame of frames) session.send(frame)
    const taken = []
    while (session.hasFrames) taken.push(session.takeBody(maxBytes))
    return taken
  }
  const received = (list, chunkBytes = Infinity) => {
    const session = new Session(options)
    const frames = []
    session.on('message', (frame) => frames.push(Buffer.from(frame)))
    for (const body of list) {
      const reader = session.reader()
      for (let i = 0; i < body.length; i += chunkBytes)
        reader.take(body.subarray(i, i + chunkBytes))
      reader.end()
    }
    return frames
  }
  const frames = [1, 30, 90, 5000, 10, 200, 3].map((length, i) => Buffer.alloc(length, i + 1))

  it.each([17, 40, 100, 1000, 1e6])('arrive in bodies of %i bytes, whatever the chunks', (size) => {
    const sent = bodies(frames, size)
    for (const body of sent) expect(body.length).toBeLessThanOrEqual(size)
    for (const chunk of [1, 7, Infinity]) expect(received(sent, chunk)).toEqual(frames)
  })

  it('are whole or not there when bodies come twice, not at all, or in another order', () => {
    const sent = bodies(frames, 100)
    expect(sent.length).toBeGreaterThan(50)
    for (const [i, body] of sent.entries()) {
      expect(received(sent.toSpliced(i, 0, body)).filter((frame) => frame.length > 100)).toEqual([
        frames[3],
        frames[5],
      ])
      const without = received(sent.toSpliced(i, 1))
      expect(without.length).toBeLessThan(frames.length)
      for (const frame of without) expect(frames).toContainEqual(frame)
    }
    for (const frame of received([...sent].reverse())) expect(frames).toContainEqual(frame)
  })
})

describe('answers', () => {
  // What a request is answered by either handler: over a real server, and as fetch's.
  const served = {
    'node:http': async (db) => {
      const { url, handle } = await serve(db)
      return { ask: (init) => fetch(url, init), handle }
    },
    fetch: async (db) => {
      const handle = fetchHandler(db)
      return { ask: (init) => handle(new Request('http://localhost/', init)), handle }
    },
  }
  const post = (headers, body) => ({
    method: 'POST',
    headers: { 'content-type': TYPE, ...headers },
    body,
  })
  const open = async (ask) => (await ask(post())).headers.get('replic-session')

  describe.each(Object.keys(served))('of %s', (kind) => {
    it.each([
      ['another method', 405, { method: 'GET' }, 'POST'],
      ['another content type', 415, { method: 'POST', body: '{}' }, TYPE],
      ['an encoded body', 415, post({ 'content-encoding': 'gzip' }), 'encoding'],
      ['an unknown session', 410, post({ 'replic-session': 'x'.repeat(32) }), 'session'],
      ['a body that begins a session', 400, post({ 'content-length': '4' }, 'body'), 'no body'],
    ])('to %s', async (_, status, init, words) => {
      const [db] = await replicas(1)
      const { ask } = await served[kind](db)
      const response = await ask(init)
      expect(response.status).toBe(status)
      expect(response.headers.get('cache-control')).toContain('no-store')
      expect(response.headers.get('allow')).toBe(status === 405 ? 'POST' : null)
      expect(await response.text()).toContain(words)
      expect(db.status().links).toEqual([])
    })

    it('to the first request: a session of its own, and nothing else before it has proven itself', async () => {
      const [db] = await replicas(1, { secret: 'at least sixteen bytes' })
      const { ask } = await served[kind](db)
      const responses = [await ask(post()), await ask(post())]
      const ids = responses.map(({ headers }) => headers.get('replic-session'))
      for (const id of ids) expect(id).toMatch(/^[\w-]{32}$/)
      expect(new Set(ids).size).toBe(2)
      for (const response of responses) {
        expect(response.status).toBe(200)
        expect(response.headers.get('content-type')).toBe(TYPE)
        expect(response.headers.get('cache-control')).toBe('no-store, no-transform')
        expect((await response.arrayBuffer()).byteLength).toBe(0)
      }
      expect(states(db)).toEqual(['null opening', 'null opening'])
    })

    it('to what is malformed, and ends the session', async () => {
      const [db] = await replicas(1)
      const { ask } = await served[kind](db)
      const bodies = {
        '00000000': '0 bytes',
        ffffffff00000000ffffffff00000000: `4294967295 bytes`,
        '0000000401': 'ends within a frame',
        '0420000100': '69206017 bytes',
      }
      for (const [hex, words] of Object.entries(bodies)) {
        const session = { 'replic-session': await open(ask) }
        const down = eventOf(db, 'link', isDown)
        const response = await ask(post(session, Buffer.from(hex, 'hex')))
        expect(response.status).toBe(400)
        expect(await response.text()).toContain(words)
        expect(await down).toMatchObject({ code: 'REPLIC_PROTOCOL' })
        expect((await ask(post(session))).status).toBe(410)
      }
    })

    it('to what is too large, and the session goes on', async () => {
      const [db] = await replicas(1, { maxFrameBytes: 1000 })
      const { ask } = await served[kind](db)
      const session = { 'replic-session': await open(ask) }
      const most = 2 * 1024 * 1024 + 1000 + 4
      const response = await ask(post(session, new Uint8Array(most + 1)))
      expect(response.status).toBe(413)
      expect(await response.text()).toContain(`${most}`)
      const again = await ask(post({ ...session, 'replic-poll': '0' }))
      expect(again.status).toBe(200)
    })

    it('to a poll that is no number: 400, and the session goes on', async () => {
      const [db] = await replicas(1)
      const { ask } = await served[kind](db)
      const session = { 'replic-session': await open(ask) }
      for (const poll of ['-1', 'soon', '1e3', 'Infinity', '']) {
        const response = await ask(post({ ...session, 'replic-poll': poll }))
        expect([poll, response.status]).toEqual([poll, 400])
      }
      expect((await ask(post({ ...session, 'replic-poll': '0' }))).status).toBe(200)
    })

    it('to more sessions than there is room for, and after close(): 503', async () => {
      const [db, other] = await replicas(2, { maxLinks: 1 })
      const { ask, handle } = await served[kind](db)
      const session = { 'replic-session': await open(ask) }
      const { connection } = await linkOverTcp(other, db) // the room is the same
      const busy = await ask(post())
      expect([busy.status, busy.headers.get('retry-after')]).toEqual([503, '1'])
      expect(await busy.text()).toContain('maxLinks')
      const left = eventOf(db, 'link', isDown)
      await connection.close()
      await left
      const polled = ask(post({ ...session, 'replic-poll': '20000' }))
      const end = (await polled).headers.has('replic-end') ? await polled : undefined
      expect(end).toBeUndefined() // HELLO came
      const last = ask(post({ ...session, 'replic-poll': '20000' }))
      const closing = handle.close()
      expect((await last).headers.get('replic-end')).toBe('1')
      await closing
      expect((await ask(post())).status).toBe(503)
      await db.close()
      for (const init of [post(), post(session), { method: 'GET' }]) {
        expect((await ask(init)).status).toBe(503)
      }
    })

    it('to a second poll: the first gives way', async () => {
      const [db] = await replicas(1, { heartbeatMs: 60_000, linkTimeoutMs: 60_000 })
      const { ask } = await served[kind](db)
      const session = { 'replic-session': await open(ask) }
      const poll = (ms) => ask(post({ ...session, 'replic-poll': `${ms}` }))
      await poll(20_000) // HELLO
      const statuses = (await Promise.all([poll(20_000), poll(200)])).map(({ status }) => status)
      expect(statuses).toContain(200)
      expect(statuses).toContain(409)
    })
  })

  it('to a body that does not come: 408, and the connection is closed', async () => {
    const [db] = await replicas(1, { linkTimeoutMs: 200 })
    const { url } = await serve(db)
    const down = eventOf(db, 'link', isDown)
    const id = await open((init) => fetch(url, init))
    const socket = netConnect(new URL(url).port, '127.0.0.1')
    onTestFinished(() => socket.destroy())
    const head = [`POST / HTTP/1.1`, 'host: x', `content-type: ${TYPE}`, `replic-session: ${id}`]
    socket.write(`${[...head, 'content-length: 1000', '', ''].join('\r\n')}\0\0`)
    let text = ''
    socket.on('data', (data) => {
      text += data
    })
    await once(socket, 'end')
    expect(text).toMatch(/^HTTP\/1.1 408 /)
    expect(text.toLowerCase()).toContain('connection: close')
    expect(await down).toMatchObject({ code: 'REPLIC_TIMEOUT' })
  })

  it('a body that was read by something else: 500', async () => {
    const [a, b] = await replicas(2)
    const app = express()
    app.use(express.text({ type: TYPE }), handler(b))
    const port = await listening(createServer(app))
    const down = eventOf(a, 'link', isDown)
    connect(a, { url: `http://127.0.0.1:${port}`, ...FAST })
    expect((await down).reason).toContain('before body parsers')
  })

  it('a session whose frames nobody fetches takes no memory', async () => {
    const session = new Session({ maxFrameBytes: 1000, windowBytes: 5000 })
    session.cork()
    for (let i = 0; i < 10_000; i++) session.send(Buffer.alloc(1000))
    const most = 1000 + 5000 + 2 * 1024 * 1024
    expect(session.takeBody().length).toBeLessThanOrEqual(most + 4 * (most / 1000))
    expect(session.hasFrames).toBe(false)
  })
})

describe('a client', () => {
  /** What answers every request as `answer(req, res)` does. */
  const answering = async (answer) => {
    const server = createServer((req, res) => {
      req.resume()
      answer(res, req)
    })
    return `http://127.0.0.1:${await listening(server)}/path`
  }
  const plain = (status, text, headers) => (res) =>
    res.writeHead(status, { 'content-type': 'text/plain', ...headers }).end(text)

  it.each([
    [
      'a redirect',
      plain(308, '', { location: 'https://else.where/' }),
      'REPLIC_PROTOCOL',
      '308',
      'https://else.where/',
    ],
    ['401', plain(401, 'no token'), 'REPLIC_AUTH', '401', 'no token', 'headers'],
    ['404', plain(404, ''), 'REPLIC_PROTOCOL', '404', 'mounted'],
    ['413', plain(413, ''), 'REPLIC_TOO_LARGE', 'maxBodyBytes'],
    ['503', plain(503, 'out of order'), 'REPLIC_BUSY', '503', 'out of order'],
    ['504', plain(504, ''), 'REPLIC_TIMEOUT', '504'],
    [
      'a page',
      (res) => res.writeHead(200, { 'content-type': 'text/html' }).end('<html>'),
      'REPLIC_PROTOCOL',
      'text/html',
      'mounted',
    ],
    [
      'no session',
      (res) => res.writeHead(200, { 'content-type': TYPE }).end(),
      'REPLIC_PROTOCOL',
      'session',
    ],
    [
      'compressed frames',
      (res) => res.writeHead(200, { 'content-type': TYPE, 'content-encoding': 'gzip' }).end(),
      'REPLIC_PROTOCOL',
      'gzip',
    ],
    [
      'no more than the beginning',
      (res) =>
        res
          .writeHead(200, { 'content-type': TYPE, 'content-length': 9 })
          .write('x', () => res.destroy()),
      'ECONNRESET',
    ],
    [
      'garbage',
      (res) => res.writeHead(200, { 'content-type': TYPE, 'replic-session': 'x' }).end('garbage'),
      'REPLIC_PROTOCOL',
      '1734439522 bytes',
    ],
  ])('names the reason: %s', async (_, answer, code, ...words) => {
    const [a] = await replicas(1)
    const url = await answering(answer)
    const down = eventOf(a, 'link', isDown)
    connect(a, { url, peerId: 12, retryMinMs: 60_000, retryMaxMs: 60_000, unref: true })
    const event = await down
    expect(event).toMatchObject({ code, peerId: 12, address: url })
    for (const word of words) expect(event.reason).toContain(word)
    expect(a.status().links).toMatchObject([{ state: 'waiting', lastError: { code } }])
  })

  it('names the system’s reason', async () => {
    const [a, b] = await replicas(2)
    const { url, server } = await serve(b)
    server.close()
    await once(server, 'close')
    const down = eventOf(a, 'link', isDown)
    connect(a, { url, ...FAST })
    expect(await down).toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('gives up a request that fails, not the session', async () => {
    const [a, b] = await replicas(2)
    const handle = handler(b)
    let n = 0
    const failures = [500, 502, 503, 504, 429, 408]
    const url = await answering((res, req) => {
      if (req.headers['replic-session'] && ++n % 2 === 0) {
        return plain(failures[n % failures.length], '')(res)
      }
      return handle(req, res)
    })
    await link(a, b, url)
    await replicate(a, b)
    expect(n).toBeGreaterThan(6)
    expect([states(a), states(b)]).toEqual([['12 ready'], ['11 ready']])
  })

  it('polls for a shorter time where a proxy cuts polls, then for longer again', async () => {
    const [a, b] = await replicas(2, { heartbeatMs: 60_000, linkTimeoutMs: 600_000 })
    const handle = handler(b)
    const polls = []
    const url = await answering((res, req) => {
      const ms = Number(req.headers['replic-poll'] ?? 0)
      if (ms > 0) polls.push(ms)
      return ms > 120 ? plain(504, '')(res) : handle(req, res)
    })
    await link(a, b, url)
    const longer = () => polls.findIndex((ms, i) => i > 0 && ms > 120)
    await until(() => longer() > 0 && polls.length > longer() + 1)
    expect(polls.slice(0, 2)).toEqual([20_000, 100])
    expect(polls[longer()]).toBeLessThan(130)
    expect(polls[longer() + 1]).toBe(100)
    expect([states(a), states(b)]).toEqual([['12 ready'], ['11 ready']])
    await Promise.all([a.upsert('note', { id: 1, text: 'a' }), b.upsert('note', { id: 2 })])
    await converged(a, b)
  })

  it('begins a new session when its own is gone, as after a restart', async () => {
    const [a, b] = await replicas(2)
    let handle = handler(b)
    const url = await answering((res, req) => handle(req, res))
    await link(a, b, url)
    await replicate(a, b)
    const down = eventOf(a, 'link', isDown)
    const up = eventOf(a, 'link', isUp)
    handle = handler(b) // knows nothing of the sessions of the other
    expect(await down).toMatchObject({ code: 'REPLIC_PROTOCOL', peerId: 12 })
    await up
    await a.upsert('note', { id: -1 })
    await converged(a, b)
  })

  it('goes on through connections that break at any time', async () => {
    const [a, b] = await replicas(2)
    const { url } = await serve(b)
    const proxy = await startProxy(new URL(url).port)
    await link(a, b, `http://127.0.0.1:${proxy.port}`)
    for (let round = 0; round < 20; round++) {
      const writes = many(50, round * 50).flatMap((row) => [
        a.upsert('note', row),
        b.upsert('note', { id: row.id, size: round }),
      ])
      await Promise.race(writes)
      proxy.cut()
      await Promise.all(writes)
    }
    const { note } = await converged(a, b)
    expect(note).toHaveLength(1000)
  })

  it('closes after what it was told to send', async () => {
    const [a, b] = await replicas(2)
    const { url } = await serve(b)
    await link(a, b, url)
    const token = a.upsert('note', many(500))
    const down = eventOf(b, 'link', isDown)
    await a.close()
    expect(await down).toMatchObject({ code: null })
    await b.waitFor(await token)
    expect(b.status().links).toEqual([])
  })

  it('hears what the server sent before it closed', async () => {
    const [a, b] = await replicas(2)
    const { url } = await serve(b)
    await link(a, b, url)
    const token = b.upsert('note', many(500))
    const down = eventOf(a, 'link', isDown)
    await b.close()
    await down
    await a.waitFor(await token)
  })

  it.each([
    [undefined, 'url is missing'],
    [{ url: 'ftp://x' }, 'http: or https: URL'],
    [{ url: 'replic' }, 'http: or https: URL'],
    [{ url: 'http://me:secret@x' }, 'headers'],
    [{ url: 'http://x', headers: { 'bad name': 'x' } }, 'headers'],
    [{ url: 'http://x', pollMs: 0 }, 'pollMs'],
    [{ url: 'http://x', uri: 1 }, "did you mean 'url'"],
    [{ url: 'http://x', maxBodyBytes: 10 }, 'maxBodyBytes'],
    [{ url: 'http://x', agent: 'x' }, 'agent'],
  ])('refuses %j', async (options, words) => {
    const [a] = await replicas(1)
    const error = await throws(() => connect(a, options), 'REPLIC_USAGE', 'connect: ', words)
    expect(error.message).not.toContain('secret@')
  })

  it('and handlers refuse a replica that is closed, and options that are none', async () => {
    const [a] = await replicas(1)
    await throws(() => handler(a, { pollMS: 1 }), 'REPLIC_USAGE', "did you mean 'pollMs'")
    await throws(() => fetchHandler({}), 'REPLIC_USAGE', 'a Replica is needed')
    await a.close()
    for (const call of [handler, fetchHandler]) await throws(() => call(a), 'REPLIC_CLOSED')
    await throws(() => connect(a, { url: 'http://x' }), 'REPLIC_CLOSED')
  })
})

if (!NGINX && process.env.CI) throw new Error('nginx is not installed: apt-get install nginx-light')
if (!NGINX) console.warn('SKIPPED: HTTP through nginx, which is not installed (nginx-light)')

describe.skipIf(!NGINX)('through nginx', () => {
  /** It stands before `to`, a port, as it comes but for what a test says: { url, log(name) }. */
  async function nginx(to, { server = '', location = '', upstream = '' } = {}) {
    const started = await startNginx(
      (port) => `
        upstream peer { server 127.0.0.1:${to}; ${upstream} }
        server {
          listen 127.0.0.1:${port};
          ${server}
          location /replic { proxy_pass http://peer; ${location} }
        }`,
    )
    onTestFinished(started.close)
    return { url: `http://127.0.0.1:${started.port}/replic`, log: started.log }
  }

  it('as it comes: catch-up both ways, then live, and a frame larger than it permits', async () => {
    const ddl = NOTES + tableDdl('t', ['id INTEGER NOT NULL', 'v BLOB'], 'id')
    const [a, b] = await replicas(2, { ddl })
    await Promise.all([a.load('note', many(30_000)), b.load('note', many(30_000, 15_000))])
    const { url } = await serve(b)
    const { url: proxied, log: logged } = await nginx(new URL(url).port)
    await link(a, b, proxied)
    const { note } = await converged(a, b)
    expect(note).toHaveLength(45_000)
    for (let i = 0; i < 100; i++) {
      await b.waitFor(await a.upsert('note', { id: i, size: i }), 30_000)
      await a.waitFor(await b.upsert('note', { id: i, text: `live ${i}` }), 30_000)
    }
    const v = new Uint8Array(3_000_000).fill(7)
    await Promise.all([a.upsert('t', { id: 1, v }), b.upsert('t', { id: 2, v })])
    await converged(a, b)
    expect([states(a), states(b)]).toEqual([['12 ready'], ['11 ready']])
    const statuses = new Set(logged('access').match(/" \d{3} /g))
    expect([...statuses]).toEqual(['" 404 ', '" 200 ']) // the first was to see that it is there
  })

  it('that permits less than a request has: the client says so', async () => {
    const [a, b] = await replicas(2)
    await a.load('note', many(5_000))
    const { url } = await serve(b)
    const { url: proxied } = await nginx(new URL(url).port, { server: 'client_max_body_size 4k;' })
    const down = eventOf(a, 'link', isDown)
    const connection = connect(a, { url: proxied, ...FAST })
    const { code, reason } = await down
    expect(code).toBe('REPLIC_TOO_LARGE')
    expect(reason).toContain('maxBodyBytes')
    await connection.close()
    await link(a, b, proxied, { maxBodyBytes: 4096 })
    await converged(a, b)
  })

  it('that closes idle connections, and cuts polls that take longer than a second', async () => {
    // Heartbeats so rare that polls would wait for longer than nginx does.
    const slow = { heartbeatMs: 3_000, linkTimeoutMs: 60_000 }
    const [a, b] = await replicas(2, slow)
    const { url } = await serve(b)
    const { url: proxied, log: logged } = await nginx(new URL(url).port, {
      server: 'keepalive_timeout 1s;',
      upstream: 'keepalive 4; keepalive_timeout 1s;',
      location:
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 1s; proxy_send_timeout 1s;',
    })
    await link(a, b, proxied)
    const cuts = () => logged('access').match(/" 504 /g)?.length ?? 0
    for (let n = 0; n < 2; n++) {
      const [tokenA, tokenB] = [
        await a.upsert('note', { id: n, size: n }),
        await b.upsert('note', { id: n, text: `${n}` }),
      ]
      await Promise.all([b.waitFor(tokenA, 30_000), a.waitFor(tokenB, 30_000)])
      if (n === 0) await until(() => cuts() > 0)
      // From now on polls are shorter than nginx's patience: they end, and are not cut.
      if (n === 0)
        await until(() => /" 200 [\s\S]*" 200 /.test(logged('access').split('" 504 ').at(-1)))
    }
    await converged(a, b)
    expect(cuts()).toBeGreaterThan(0)
    expect([states(a), states(b)]).toEqual([['12 ready'], ['11 ready']])
  })

  it('that is stopped and started again', async () => {
    const [a, b] = await replicas(2)
    const { url } = await serve(b)
    const { url: proxied } = await nginx(new URL(url).port)
    const proxy = await startProxy(new URL(proxied).port)
    await link(a, b, `http://127.0.0.1:${proxy.port}/replic`)
    const down = eventOf(a, 'link', isDown)
    proxy.refuse(true)
    proxy.cut()
    const { code } = await down
    expect(code).toBe('ECONNRESET')
    await Promise.all([a.upsert('note', many(500)), b.upsert('note', many(500, 250))])
    proxy.refuse(false)
    await converged(a, b)
  })
})

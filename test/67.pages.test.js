// Pages in browsers, which can reach what listens on this machine: those of other origins, and those whose name has
// become 127.0.0.1.

import { once } from 'node:events'
import { createServer, request as httpRequest } from 'node:http'
import { connect as connectStream } from 'node:net'
import websocket from '@fastify/websocket'
import fastify from 'fastify'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { Browsers } from '../lib/transport/browsers.js'
import * as http from '../lib/transport/http.js'
import * as ws from '../lib/transport/websocket.js'
import { startBrowser, whyNoBrowser } from './browser.js'
import { isTested } from './chaos/play.js'
import { eventOf, FAST, openReplica, throws } from './helpers.js'

const TYPE = 'application/vnd.replic-sqlite'
const SECRET = 'a secret of more than sixteen bytes'
const EVIL = 'http://evil.example'
const isRefused = ({ state, code }) => state === 'down' && code === 'REPLIC_AUTH'

/** Listens on 127.0.0.1 until the test ends; resolves with the port. */
async function listening(server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  return server.address().port
}

/** Everything that serves over HTTP and WebSocket: (db, options) => { port, path }. */
const SERVERS = {
  'attach, with a port': async (db, options) => {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    onTestFinished(() => {
      for (const socket of server.clients) socket.terminate()
      server.close()
    })
    ws.attach(db, server, { path: '/replic', ...options })
    return server.address().port
  },
  'attach, with a server and a verifyClient': async (db, options) => {
    const server = createServer()
    const sockets = new WebSocketServer({ server, verifyClient: () => true })
    ws.attach(db, sockets, options)
    return listening(server)
  },
  'attach, with the upgrade of an application': async (db, options) => {
    const server = createServer()
    const sockets = new WebSocketServer({ noServer: true })
    ws.attach(db, sockets, options)
    server.on('upgrade', (request, socket, head) =>
      sockets.handleUpgrade(request, socket, head, (each) =>
        sockets.emit('connection', each, request),
      ),
    )
    return listening(server)
  },
  'handler of WebSocket, asked first': async (db, options) => {
    const server = createServer()
    const sockets = new WebSocketServer({ noServer: true })
    const handle = ws.handler(db, options)
    server.on('upgrade', (request, socket, head) => {
      if (handle.refuses(request)) return socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
      sockets.handleUpgrade(request, socket, head, (each) => handle(each, request))
    })
    return listening(server)
  },
  'Fastify with WebSocket': async (db, options) => {
    const app = fastify()
    await app.register(websocket)
    const handle = ws.handler(db, options)
    const preValidation = async (request, reply) => {
      const why = handle.refuses(request)
      if (why) return reply.code(403).send(why)
    }
    app.register(async (scope) => {
      scope.get('/replic', { websocket: true, preValidation }, handle)
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    onTestFinished(() => app.close())
    return app.server.address().port
  },
  'handler of HTTP': (db, options) => listening(createServer(http.handler(db, options))),
  'Fastify with HTTP': async (db, options) => {
    const app = fastify()
    const handle = http.handler(db, options)
    app.addContentTypeParser(TYPE, (_request, _payload, done) => done(null))
    app.post('/replic', (request, reply) => {
      reply.hijack()
      return handle(request.raw, reply.raw)
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    onTestFinished(() => app.close())
    return app.server.address().port
  },
  fetchHandler: (db, options) => {
    const handle = http.fetchHandler(db, options)
    const server = createServer(async ({ method, url, headers }, response) => {
      const body = method === 'POST' ? new Uint8Array(0) : undefined
      const full = `http://${headers.host ?? '127.0.0.1'}${url}`
      const answer = await handle(new Request(full, { method, headers, body }))
      response.writeHead(answer.status, Object.fromEntries(answer.headers))
      response.end(await answer.text())
    })
    return listening(server)
  },
}
const isHttp = (kind) => /HTTP|fetch/.test(kind)

/** The status that a request is answered with; what is taken is 101, or 415 as a POST that has no content type. */
async function statusOf(kind, port, headers) {
  const options = { host: '127.0.0.1', port, path: '/replic', agent: false }
  const upgrade = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  }
  const request = isHttp(kind)
    ? httpRequest({ ...options, method: 'POST', headers })
    : httpRequest({ ...options, headers: { ...upgrade, ...headers } })
  request.end()
  return new Promise((resolve, reject) => {
    request.on('error', reject)
    request.on('response', (response) => {
      response.resume().on('end', () => resolve(response.statusCode))
    })
    request.on('upgrade', (response, socket) => {
      socket.destroy()
      resolve(response.statusCode)
    })
  })
}

describe.each(Object.keys(SERVERS))('%s', (kind) => {
  const taken = isHttp(kind) ? 415 : 101

  it('refuses pages of origins that are not named, its own among them', async () => {
    const db = await openReplica()
    const port = await SERVERS[kind](db, { origins: ['https://app.example.com'] })
    for (const origin of [
      EVIL,
      'null',
      `http://127.0.0.1:${port}`,
      'https://app.example.com.evil.example',
      'https://app.example.com, http://evil.example',
      '',
    ]) {
      const refused = eventOf(db, 'link', isRefused)
      expect([origin, await statusOf(kind, port, { origin })]).toEqual([origin, 403])
      expect((await refused).reason).toContain('`origins`')
    }
    expect(db.status().links).toEqual([])
    expect(await statusOf(kind, port, { origin: 'https://app.example.com' })).toBe(taken)
    expect(await statusOf(kind, port, {})).toBe(taken)
  })

  it('refuses names that a page may have, without a secret', async () => {
    const db = await openReplica()
    const port = await SERVERS[kind](db, { hosts: ['replic.example.com', '.example.org'] })
    const status = (host) => statusOf(kind, port, { host })
    expect(await status(`evil.example:${port}`)).toBe(403)
    expect(await status('replic.example.com.evil.example')).toBe(403)
    for (const host of [`127.0.0.1:${port}`, 'localhost', 'replic.example.com', 'a.example.org']) {
      expect([host, await status(host)]).toEqual([host, taken])
    }
    await db.setSecrets(SECRET)
    expect(await status(`evil.example:${port}`)).toBe(taken)
    expect(await statusOf(kind, port, { origin: EVIL })).toBe(403)
  })

  it('takes peers', async () => {
    const [a, b] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 12 })]
    const port = await SERVERS[kind](b)
    const address = `127.0.0.1:${port}/replic`
    if (kind === 'fetchHandler') return // the stand-in has no bodies; test/62 has them
    const connection = isHttp(kind)
      ? http.connect(a, { url: `http://${address}`, ...FAST })
      : ws.connect(a, `ws://${address}`, FAST)
    await b.waitFor(await a.upsert('note', { id: 1 }), 60_000)
    await connection.close()
  })
})

it('handler of WebSocket that is given the socket of a page tells it nothing', async () => {
  const db = await openReplica()
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  onTestFinished(() => server.close())
  server.on('connection', ws.handler(db))
  const page = new WebSocket(`ws://127.0.0.1:${server.address().port}`, { origin: EVIL })
  page.on('message', () => expect.fail('it was told something'))
  expect((await once(page, 'close'))[0]).toBe(1008)
  throws(() => ws.handler(db)(page), 'REPLIC_USAGE', 'request')
})

it('attach asks the application’s verifyClient, leaves other paths alone, and lets go', async () => {
  const db = await openReplica()
  const server = createServer()
  const asked = []
  const verifyClient = ({ req }, done) => {
    asked.push(req.url)
    done(req.url !== '/no', 402)
  }
  const sockets = new WebSocketServer({ server, verifyClient })
  const [one, two] = ['/one', '/two'].map((path) => ws.attach(db, sockets, { path }))
  const port = await listening(server)
  const status = (url) =>
    new Promise((resolve) => {
      const stream = connectStream(port, '127.0.0.1')
      stream.write(
        `GET ${url} HTTP/1.1\r\nHost: localhost\r\nOrigin: ${EVIL}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
          'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
      )
      stream.on('data', (data) => {
        resolve(Number(`${data}`.split(' ')[1]))
        stream.destroy()
      })
    })
  expect(await status('/one?x')).toBe(403)
  expect(await status('/two')).toBe(403)
  expect(await status('/app')).toBe(101)
  expect(await status('/no')).toBe(402)
  await one.close()
  expect(await status('/one')).toBe(101)
  expect(await status('/two')).toBe(403)
  await two.close()
  expect(asked).toEqual(['/app', '/no', '/one'])
})

it.each([
  [{ origins: 'https://app.example.com' }, 'origins must be a list'],
  [{ origins: ['https://app.example.com/'] }, 'origins must be a list'],
  [{ origins: ['*'] }, 'origins must be a list'],
  [{ origins: ['null'] }, 'origins must be a list'],
  [{ hosts: ['example.com:80'] }, 'hosts must be a list'],
  [{ hosts: ['*'] }, 'hosts must be a list'],
])('options %j are refused', async (options, words) => {
  const db = await openReplica()
  throws(() => ws.handler(db, options), 'REPLIC_USAGE', words)
  throws(() => http.handler(db, options), 'REPLIC_USAGE', words)
})

it('Host: addresses and names that nobody can register', () => {
  const browsers = new Browsers(
    { origins: [], hosts: ['Example.com', '.example.org'] },
    () => false,
  )
  const isTaken = (host, isTls) =>
    browsers.refusal({ header: (name) => (name === 'host' ? host : undefined), isTls }) ===
    undefined
  const good = [
    '127.0.0.1',
    '[::1]:80',
    '[::ffff:7f00:1]',
    'localhost',
    'LOCALHOST:1',
    'a.localhost',
  ]
  const named = ['example.com', 'EXAMPLE.COM:80', 'example.com.', 'example.org', 'a.b.example.org']
  for (const host of [...good, ...named, 'peer1', 'peer1:8080', 'localhost.', undefined]) {
    expect([host, isTaken(host)]).toEqual([host, true])
  }
  const bad = [
    'a.example.com',
    'xexample.org',
    '127.0.0.1.evil.example',
    'evil.example',
    'example.com:80:80',
  ]
  for (const host of [...bad, 'localhost.evil.example', '127.0.0.1@evil.example', 'x.local']) {
    expect([host, isTaken(host), isTaken(host, true)]).toEqual([host, false, true])
  }
})

describe.runIf(isTested('a page in a browser', whyNoBrowser()))('in Chromium', () => {
  /** What a page gets to see of what listens on `port`. */
  const attack = (port, path) => {
    const seen = {}
    const opened = new Promise((resolve) => {
      const socket = new globalThis.WebSocket(`ws://${location.hostname}:${port}${path}`)
      socket.onopen = () => resolve('open')
      socket.onclose = () => resolve('closed')
    })
    const type = 'application/vnd.replic-sqlite'
    const post = fetch(`http://${location.hostname}:${port}${path}`, {
      method: 'POST',
      headers: { 'content-type': type },
    })
    const blind = fetch(`http://${location.hostname}:${port}${path}`, {
      method: 'POST',
      mode: 'no-cors',
      body: 'x',
    })
    return Promise.allSettled([opened, post, blind]).then(([socket, { value, reason }]) => {
      seen.socket = socket.value
      seen.post = value ? value.status : `${reason}`
      return seen
    })
  }

  /** A server with both transports, at /ws and /http; and pages elsewhere. */
  async function serve(db, options) {
    const handle = http.handler(db, options)
    const server = createServer((request, response) =>
      request.url === '/page' ? response.end('<!doctype html>') : handle(request, response),
    )
    ws.attach(db, new WebSocketServer({ server }), options)
    return listening(server)
  }

  it('a page of another origin opens nothing and reads nothing', async () => {
    const db = await openReplica()
    await db.upsert('note', { id: 1, text: 'not for pages' })
    const browser = await startBrowser()
    const elsewhere = await listening(
      createServer((_, response) => response.end('<!doctype html>')),
    )
    const origin = `http://127.0.0.1:${elsewhere}`
    const page = await browser.open(`${origin}/`)
    await page.when(() => document.body)
    const port = await serve(db)
    expect(await page.run(attack, port, '/')).toMatchObject({
      socket: 'closed',
      post: expect.stringContaining('TypeError'), // the browser itself lets nothing of that through
    })
    expect(db.status().links).toEqual([])
    // The same attack where it is let in: else this test could not fail.
    const open = await serve(db, { origins: [origin] })
    expect((await page.run(attack, open, '/')).socket).toBe('open')
  }, 120_000)

  it('a page whose name has become 127.0.0.1 opens nothing and reads nothing', async () => {
    const db = await openReplica()
    const browser = await startBrowser('--host-resolver-rules=MAP evil.example 127.0.0.1')
    const port = await serve(db)
    const page = await browser.open(`${EVIL}:${port}/page`)
    await page.when(() => document.body)
    expect(await page.run(() => location.origin)).toBe(`${EVIL}:${port}`)
    expect(await page.run(attack, port, '/')).toEqual({ socket: 'closed', post: 403 })
    expect(db.status().links).toEqual([])
    // Were its origin named, its name would be refused still.
    const half = await serve(db, { origins: [`${EVIL}:${port}`] })
    expect((await page.run(attack, half, '/')).socket).toBe('closed')
    const open = await serve(db, { origins: [`${EVIL}:${port}`], hosts: ['evil.example'] })
    expect((await page.run(attack, open, '/')).socket).toBe('open')
  }, 120_000)
})

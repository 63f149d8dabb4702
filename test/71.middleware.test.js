// readYourWrite under every server: what a request waits for, what its answer says, however it is answered.

import { once } from 'node:events'
import { createServer, request as httpRequest } from 'node:http'
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2'
import { fileURLToPath } from 'node:url'
import express from 'express'
import express4 from 'express-4'
import fastify from 'fastify'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { readYourWrite as plugin } from '../lib/middleware/fastify.js'
import { readYourWrite as wrap } from '../lib/middleware/fetch.js'
import { bunProgram, linkHeld, openReplica, runProcess, tempDir, throws, until } from './helpers.js'

const HEADER = 'x-replic-token'
const SECRET = 'sixteen bytes or more'

/** Starts a server, which ends with the test; resolves with its origin. */
async function listening(server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections?.()
  })
  return `http://127.0.0.1:${server.address().port}`
}

/** An application in the manner of each server: give a replica and options, get its origin. */
const servers = {
  'Express 5': (db, options) => listening(createServer(expressApp(express, db, options))),
  'Express 4': (db, options) => listening(createServer(expressApp(express4, db, options))),
  Fastify: async (db, options) => {
    const app = fastifyApp(db, options)
    onTestFinished(() => app.close())
    return app.listen({ port: 0, host: '127.0.0.1' })
  },
  'fetch, behind node:http': (db, options) =>
    listening(createServer(bridge(fetchApp(db, options)))),
}

const note = (body) => ({ id: Number(body.id), text: body.text })

function expressApp(framework, db, options) {
  const app = framework()
  const safely = (fn) => (req, res, next) => fn(req, res).catch(next) // as Express 4 needs it
  app.use(db.readYourWrite(options?.header, options))
  app.use(framework.json())
  app.post(
    '/notes',
    safely(async (req, res) => {
      await db.upsert('note', note(req.body))
      res.json({ stale: req.replic.stale })
    }),
  )
  app.get(
    '/notes/:id',
    safely(async (req, res) => {
      const row = await db.get('SELECT text FROM note WHERE id = ?', [Number(req.params.id)])
      res.json({ row: row ?? null, stale: req.replic.stale })
    }),
  )
  app.post(
    '/stream',
    safely(async (req, res) => {
      await db.upsert('note', note(req.body))
      res.setHeader('set-cookie', 'mine=1')
      res.write('one ')
      await db.upsert('note', { ...note(req.body), id: 1000 }) // after the head
      res.end('two')
    }),
  )
  app.post(
    '/throw',
    safely(async (req) => {
      await db.upsert('note', note(req.body))
      throw new Error('after the write')
    }),
  )
  app.use((error, _req, res, _next) => res.status(500).end(error.message))
  return app
}

function fastifyApp(db, options) {
  const app = fastify()
  app.register(plugin, { db, ...options })
  app.post('/notes', async (request) => {
    await db.upsert('note', note(request.body))
    return { stale: request.replic.stale }
  })
  app.get('/notes/:id', async (request) => {
    const row = await db.get('SELECT text FROM note WHERE id = ?', [Number(request.params.id)])
    return { row: row ?? null, stale: request.replic.stale }
  })
  app.post('/stream', async (request, reply) => {
    await db.upsert('note', note(request.body))
    async function* parts() {
      yield 'one '
      await db.upsert('note', { ...note(request.body), id: 1000 })
      yield 'two'
    }
    reply.header('set-cookie', 'mine=1')
    const { Readable } = await import('node:stream')
    return reply.send(Readable.from(parts()))
  })
  app.post('/throw', async (request) => {
    await db.upsert('note', note(request.body))
    throw new Error('after the write')
  })
  return app
}

function fetchApp(db, options) {
  const handle = async (request) => {
    const { pathname } = new URL(request.url)
    if (request.method === 'GET') {
      const id = Number(pathname.split('/').at(-1))
      const row = await db.get('SELECT text FROM note WHERE id = ?', [id])
      return Response.json({ row: row ?? null, stale: request.replic.stale })
    }
    const body = await request.json()
    await db.upsert('note', note(body))
    if (pathname === '/throw') throw new Error('after the write')
    if (pathname === '/notes') return Response.json({ stale: request.replic.stale })
    async function* parts() {
      yield Buffer.from('one ')
      await db.upsert('note', { ...note(body), id: 1000 })
      yield Buffer.from('two')
    }
    return new Response(ReadableStream.from(parts()), { headers: { 'set-cookie': 'mine=1' } })
  }
  return wrap(db, handle, {
    onError: (error) => new Response(error.message, { status: 500 }),
    ...options,
  })
}

/** A fetch-style handler on node:http. */
const bridge = (handle) => async (req, res) => {
  const controller = new AbortController()
  res.on('close', () => controller.abort())
  const request = new Request(`http://localhost${req.url}`, {
    method: req.method,
    headers: req.headers,
    ...(req.method === 'GET' ? {} : { body: req, duplex: 'half' }),
    signal: controller.signal,
  })
  const response = await handle(request)
  res.writeHead(response.status, [...response.headers].flat())
  for await (const part of response.body ?? []) res.write(part)
  res.end()
}

const post = (origin, path, body, headers) =>
  fetch(origin + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
const tokenOf = (response) => response.headers.get(HEADER)
const with_ = (token) => ({ headers: { [HEADER]: token } })

/** Two linked replicas with an application each; what a sends does not arrive while it is held. */
async function two(serve, options, openOptions) {
  const [a, b] = [
    await openReplica({ peerId: 11, ...openOptions }),
    await openReplica({ peerId: 12, ...openOptions }),
  ]
  const wire = await linkHeld(a, b)
  return { a, b, wire, atA: await serve(a, options), atB: await serve(b, options) }
}

describe.each(Object.entries(servers))('%s', (_, serve) => {
  it.each([true, false])(
    'reads what was written elsewhere, once it has come (monotonicReads: %s)',
    async (monotonicReads) => {
      const { b, wire, atA, atB } = await two(serve, { timeoutMs: 60_000, monotonicReads })
      wire.hold()
      const written = await post(atA, '/notes', { id: 1, text: 'first' })
      expect(tokenOf(written)).toBe('11.1')
      const without = await fetch(`${atB}/notes/1`)
      expect(await without.json()).toEqual({ row: null, stale: false }) // who has no token does not wait
      const reading = fetch(`${atB}/notes/1`, with_(tokenOf(written)))
      await until(() => waitingAt(b) === 1)
      wire.release()
      const read = await reading
      expect(await read.json()).toEqual({ row: { text: 'first' }, stale: false })
      expect(tokenOf(read)).toBe(monotonicReads ? '12.0~b.1' : '11.1')
      const next = await post(atB, '/notes', { id: 2, text: 'second' }, { [HEADER]: tokenOf(read) })
      expect(tokenOf(next)).toBe('12.1~b.1')
      expect(await next.json()).toEqual({ stale: false })
    },
  )

  it('reads do not go back: an answer covers what it shows, whoever wrote it', async () => {
    const { a, wire, atA, atB } = await two(serve, { timeoutMs: 60_000 })
    wire.hold()
    await a.upsert('note', { id: 1, text: 'by somebody' })
    const seen = await fetch(`${atA}/notes/1`)
    const again = fetch(`${atB}/notes/1`, with_(tokenOf(seen)))
    wire.release()
    expect((await (await again).json()).row).toEqual({ text: 'by somebody' })
  })

  it('without monotonicReads an answer says nothing where nothing was written', async () => {
    const { a, atA } = await two(serve, { monotonicReads: false })
    await a.upsert('note', { id: 1, text: 'by somebody' })
    expect(tokenOf(await fetch(`${atA}/notes/1`))).toBe(null)
    const own = await post(atA, '/notes', { id: 2 })
    expect(tokenOf(own)).toBe('11.2')
    expect(tokenOf(await fetch(`${atA}/notes/1`, with_('11.1')))).toBe('11.1')
    // Requests at the same time: each has its own writes.
    const many = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        i % 2 ? post(atA, '/notes', { id: 10 + i }) : fetch(`${atA}/notes/1`),
      ),
    )
    const tokens = many.map(tokenOf)
    expect(tokens.filter((_, i) => i % 2 === 0)).toEqual(Array(10).fill(null))
    const written = tokens.filter((_, i) => i % 2).sort((x, y) => x.slice(3) - y.slice(3))
    expect(written).toEqual(Array.from({ length: 10 }, (_, i) => `11.${3 + i}`))
  })

  it.each([true, false])(
    'streams: the token is of the writes before the head, cookies stay (monotonicReads: %s)',
    async (monotonicReads) => {
      const { b, atA } = await two(serve, { cookie: 'replic', monotonicReads })
      const response = await post(atA, '/stream', { id: 1, text: 'a' })
      expect(tokenOf(response)).toBe('11.1')
      expect(response.headers.getSetCookie()).toEqual([
        'mine=1',
        'replic=11.1; Path=/; HttpOnly; SameSite=Lax',
      ])
      expect(await response.text()).toBe('one two')
      await b.waitFor('11.2', 60_000)
    },
  )

  it.each([true, false])(
    'throws: the token of what was written before is there (monotonicReads: %s)',
    async (monotonicReads) => {
      const { atA } = await two(serve, { monotonicReads })
      const response = await post(atA, '/throw', { id: 1 })
      expect(response.status).toBe(500)
      expect(tokenOf(response)).toBe('11.1')
      expect(await response.text()).toContain('after the write')
    },
  )

  it('refuses with 503 when it did not come in time', async () => {
    const { atB, wire, atA, b } = await two(serve, { timeoutMs: 1, retryAfterS: 7 })
    wire.hold()
    const token = tokenOf(await post(atA, '/notes', { id: 1 }))
    for (const asked of [token, '99.1']) {
      const response = await post(atB, '/notes', { id: 2 }, { [HEADER]: asked })
      expect(response.status).toBe(503)
      expect(response.headers.get('retry-after')).toBe('7')
      expect(await response.text()).toContain('REPLIC_TIMEOUT')
      expect(tokenOf(response)).toBe(null)
    }
    expect(await b.all('SELECT * FROM note')).toEqual([]) // the handler was not called
  })

  it('or calls the handler, which is told; the answer still asks for what is missing', async () => {
    const { a, wire, atA, atB } = await two(serve, { timeoutMs: 1, onTimeout: 'stale' })
    wire.hold()
    await a.upsert('note', { id: 1, text: 'a' })
    const token = tokenOf(await fetch(`${atA}/notes/1`))
    const response = await fetch(`${atB}/notes/1`, with_(token))
    expect(await response.json()).toEqual({ row: null, stale: true })
    expect(tokenOf(response)).toBe('12.0~b.1')
  })

  it.each([
    ['malformed', 'nonsense', undefined],
    ['of another time', '11.1-AAAAAAAAAAAAAAAAAAAAAA', undefined],
    ['not signed', '11.1', { tokenSecret: SECRET }],
    ['altered', '11.999-TjvtWoW25E0dwpHAEXPF0w', { tokenSecret: SECRET }],
    ['too many', Array(17).fill('11.1').join(', '), undefined],
    ['too large', '9'.repeat(4000), undefined],
  ])('refuses a token that is %s with 400, and never waits', async (_, token, openOptions) => {
    const { b, atB } = await two(serve, { timeoutMs: 600_000, cookie: 'replic' }, openOptions)
    const response = await post(atB, '/notes', { id: 1 }, { [HEADER]: token })
    expect(response.status).toBe(400)
    expect(await response.text()).toContain('REPLIC_TOKEN')
    expect(response.headers.getSetCookie()).toEqual([])
    // A cookie would come again and again: it is taken away.
    const cookie = await fetch(`${atB}/notes/1`, { headers: { cookie: `x=1; replic=${token}` } })
    expect(cookie.status).toBe(400)
    const [removed] = cookie.headers.getSetCookie()
    expect(removed).toMatch(/^replic=; .*Max-Age=0$/)
    expect(await b.all('SELECT * FROM note')).toEqual([])
    expect(waitingAt(b)).toBe(0)
  })

  it('takes signed tokens, from header and cookie, several at once', async () => {
    const { a, b, atA, atB } = await two(
      serve,
      { timeoutMs: 60_000, cookie: 'replic' },
      { tokenSecret: SECRET },
    )
    const [one, two_] = await Promise.all([
      post(atA, '/notes', { id: 1, text: 'a' }),
      post(atB, '/notes', { id: 2, text: 'b' }),
    ])
    expect(tokenOf(one)).toMatch(/^11\.1(~c\.1)?-[\w-]{22}$/)
    const cookie = two_.headers.getSetCookie()[0].split(';')[0]
    for (const [origin, id] of [
      [atA, 2],
      [atB, 1],
    ]) {
      const headers = { [HEADER]: `${tokenOf(one)}, ${tokenOf(two_)}`, cookie: `a=b; ${cookie}` }
      const response = await fetch(`${origin}/notes/${id}`, { headers })
      expect((await response.json()).row).toEqual({ text: id === 1 ? 'a' : 'b' })
    }
    await Promise.all([a.waitFor(b.token(), 60_000), b.waitFor(a.token(), 60_000)])
    expect(a.mergeTokens(a.token(), b.token())).toBe(b.token())
  })

  it('a cookie alone, with attributes of its own', async () => {
    const options = { header: null, cookie: '__Host-t', cookieAttributes: 'Path=/; Secure' }
    const { atA } = await two(serve, options)
    const response = await post(atA, '/notes', { id: 1 })
    expect(response.headers.getSetCookie()).toEqual(['__Host-t=11.1; Path=/; Secure'])
    expect(tokenOf(response)).toBe(null)
  })

  it('forgets who goes away while waiting', async () => {
    const { b, atB } = await two(serve, { timeoutMs: 600_000 })
    const { port, hostname } = new URL(atB)
    const headers = { [HEADER]: '99.1' }
    const request = httpRequest({ port, hostname, path: '/notes/1', headers })
    request.on('error', () => {})
    request.end()
    await until(() => waitingAt(b) === 1)
    request.destroy()
    await until(() => waitingAt(b) === 0)
  })

  it('refuses with 503 who waits while the replica closes, and who would have to wait afterwards', async () => {
    const { b, atB } = await two(serve, { timeoutMs: 600_000, onTimeout: 'stale' })
    const waiting = fetch(`${atB}/notes/1`, with_('99.1'))
    await until(() => waitingAt(b) === 1)
    await b.close()
    expect((await waiting).status).toBe(503)
    expect((await fetch(`${atB}/notes/1`, with_('99.1'))).status).toBe(503)
  })

  it('cannot be made to wait for more than maxWaits allows', async () => {
    const { b, atB } = await two(serve, { timeoutMs: 600_000 }, { maxWaits: 2 })
    const waiting = [1, 2].map(() => fetch(`${atB}/notes/1`, with_('99.1')))
    await until(() => waitingAt(b) === 2)
    const response = await fetch(`${atB}/notes/1`, with_('99.2'))
    expect(response.status).toBe(503)
    expect(await response.text()).toContain('REPLIC_BUSY')
    await b.close()
    await Promise.all(waiting)
  })
})

const waitingAt = (db) => db.status().waits

it('node:http2, and writeHead with headers of its own', async () => {
  const db = await openReplica({ peerId: 11 })
  const middleware = db.readYourWrite(HEADER, { cookie: 'replic' })
  const heads = {
    '/object': [200, { 'Set-Cookie': 'mine=1' }],
    '/message': [200, 'fine', { 'set-cookie': ['mine=1'] }],
    '/bare': [200],
  }
  const handler = (req, res) =>
    middleware(req, res, async () => {
      await db.upsert('note', { id: 1 })
      if (req.url === '/bare') res.setHeader('set-cookie', 'mine=1')
      res.writeHead(...heads[req.url])
      res.end()
    })
  const cookies = ['mine=1', 'replic=11.1; Path=/; HttpOnly; SameSite=Lax']
  const first = await listening(createServer(handler))
  let n = 0
  for (const path of Object.keys(heads)) {
    const response = await fetch(first + path)
    const expected = cookies.map((cookie) => cookie.replace('11.1', `11.${n + 1}`))
    expect(response.headers.getSetCookie(), path).toEqual(expected)
    expect(tokenOf(response)).toBe(`11.${++n}`)
  }
  const list = (req, res) =>
    middleware(req, res, () => res.writeHead(200, ['Set-Cookie', 'mine=1', 'x-a', 'b']).end())
  const response = await fetch(await listening(createServer(list)))
  expect(response.headers.getSetCookie()).toEqual([cookies[0], cookies[1].replace('11.1', '11.3')])
  expect([tokenOf(response), response.headers.get('x-a')]).toEqual(['11.3', 'b'])

  const session = connectHttp2(await listening(createHttp2Server(handler)))
  onTestFinished(() => session.destroy())
  const stream = session.request({ ':path': '/object' })
  const [headers] = await once(stream, 'response')
  expect(headers[HEADER]).toBe('11.4')
  expect(headers['set-cookie']).toHaveLength(2)
})

// Express changes the prototypes of what it gives to a mounted application, and back; the token has to come all the same.
it.each([
  ['Express 5', express],
  ['Express 4', express4],
])('%s: mounted applications, two replicas, routes without it', async (_, framework) => {
  const [one, two_] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 12 })]
  const app = framework()
  const seen = []
  const note_ = (req, _res, next) => {
    seen.push(req.replic)
    next()
  }
  app.get('/outside', note_, (_req, res) => res.end())
  const inner = framework()
  inner.use(one.readYourWrite('x-one'), note_)
  inner.get('/answered', async (_req, res) => {
    await one.upsert('note', { id: 1 })
    res.json({})
  })
  app.use('/inner', inner)
  app.use('/inner', two_.readYourWrite('x-two', { cookie: 'two' }), note_)
  app.get('/inner/passed-on', async (req, res) => {
    await Promise.all([one.upsert('note', { id: 2 }), two_.upsert('note', { id: 1 })])
    req.replic = 'the application may set it'
    res.writeHead(200, { 'set-cookie': 'mine=1' }).end(req.replic)
  })
  const origin = await listening(createServer(app))
  const outside = await fetch(`${origin}/outside`)
  expect([outside.headers.get('x-one'), outside.headers.get('x-two')]).toEqual([null, null])
  expect(seen).toEqual([undefined])
  expect((await fetch(`${origin}/inner/answered`)).headers.get('x-one')).toBe('11.1')
  const passed = await fetch(`${origin}/inner/passed-on`)
  expect([passed.headers.get('x-one'), passed.headers.get('x-two')]).toEqual(['11.2', '12.1'])
  expect(passed.headers.getSetCookie()).toEqual([
    'mine=1',
    'two=12.1; Path=/; HttpOnly; SameSite=Lax',
  ])
  expect(await passed.text()).toBe('the application may set it')
  const fresh = { stale: false, lost: [] }
  expect(seen).toEqual([undefined, fresh, fresh, fresh])
  const failed = await fetch(`${origin}/inner/nowhere`)
  expect([failed.status, failed.headers.get('x-one')]).toEqual([404, '11.2'])
})

it.each([
  ['Express 5', express],
  ['Express 4', express4],
])('%s: an application that replaces the headers of its requests', async (_, framework) => {
  const db = await openReplica({ peerId: 11 })
  const app = framework()
  const replace = (req, _res, next) => {
    req.headers = { ...req.headers, 'x-mine': '1' }
    if ('without' in req.query) req.rawHeaders = undefined
    next()
  }
  app.use(replace, db.readYourWrite(HEADER), replace)
  app.get('/', async (req, res) => {
    await db.upsert('note', { id: 1 })
    res.json({ state: req.replic, mine: req.get('x-mine') })
  })
  const origin = await listening(createServer(app))
  for (const token of ['11.1', '11.2']) {
    const response = await fetch(origin)
    expect(tokenOf(response)).toBe(token)
    expect(await response.json()).toEqual({ state: { stale: false, lost: [] }, mine: '1' })
  }
  const without = await fetch(`${origin}?without`)
  expect(tokenOf(without)).toBe('11.3')
  expect((await without.json()).state).toEqual({ stale: false, lost: [] })
})

it('Fastify: plugins, inject(), a reply that is hijacked', async () => {
  const db = await openReplica({ peerId: 11 })
  const app = fastify()
  onTestFinished(() => app.close())
  app.register(plugin, { db, monotonicReads: false })
  app.register(async (scope) => {
    scope.post('/inner', async () => ({ token: await db.upsert('note', { id: 1 }) }))
    scope.post('/hijack', async (_request, reply) => {
      await db.upsert('note', { id: 1 })
      reply.hijack()
      reply.raw.end('by hand')
    })
  })
  for (const [path, token] of Object.entries({ '/inner': '11.1', '/hijack': '11.2' })) {
    const { statusCode, headers } = await app.inject({ method: 'POST', url: path })
    expect([statusCode, headers[HEADER]]).toEqual([200, token])
  }
})

it('fetch: responses that cannot be changed, that are none, and handlers that throw', async () => {
  const db = await openReplica({ peerId: 11 })
  await db.upsert('note', { id: 1 })
  const ask = (handler, options) => wrap(db, handler, options)(new Request('http://localhost/'))
  const redirect = await ask(() => Response.redirect('http://localhost/there', 303))
  expect([redirect.status, redirect.headers.get('location'), tokenOf(redirect)]).toEqual([
    303,
    'http://localhost/there',
    '11.1',
  ])
  expect(await ask(() => undefined)).toBe(undefined) // Bun: the request became a WebSocket
  const passed = await wrap(db, (_request, server) => new Response(server))(
    new Request('http://a/'),
    'server',
  )
  expect(await passed.text()).toBe('server')
  const shown = vi.spyOn(console, 'error').mockImplementation(() => {})
  onTestFinished(() => shown.mockRestore())
  const failed = await ask(() => Promise.reject(new Error('broken')))
  expect([failed.status, tokenOf(failed), await failed.text()]).toEqual([
    500,
    '11.1',
    'Internal Server Error\n',
  ])
  expect(shown).toHaveBeenCalledWith(expect.objectContaining({ message: 'broken' }))
  expect(tokenOf(await ask(() => new Response('a'), undefined))).toBe('11.1')
})

it('two replicas in one application: each has a header of its own', async () => {
  const [a, b] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 12 })]
  const app = express()
  app.use(a.readYourWrite('x-a', { monotonicReads: false }))
  app.use(b.readYourWrite('x-b', { monotonicReads: false }))
  app.post('/a', async (_req, res) => res.json(await a.upsert('note', { id: 1 })))
  app.post('/both', async (_req, res) => {
    await Promise.all([a.upsert('note', { id: 1 }), b.batch((tx) => tx.upsert('note', { id: 1 }))])
    res.end()
  })
  const origin = await listening(createServer(app))
  const headers = async (path) => {
    const response = await post(origin, path, {})
    return ['x-a', 'x-b'].map((name) => response.headers.get(name))
  }
  expect(await headers('/a')).toEqual(['11.1', null])
  expect(await headers('/both')).toEqual(['11.2', '12.1'])
})

it('Bun.serve', async () => {
  const script = fileURLToPath(new URL('./bun/middleware.js', import.meta.url))
  expect(await runProcess(bunProgram(), [script, tempDir()])).toEqual({
    code: 0,
    signal: null,
    stdout: 'as expected\n',
    stderr: '',
  })
})

it('the example: a chat over WebSockets, with waitFor', async () => {
  const main = fileURLToPath(new URL('../examples/session/main.js', import.meta.url))
  expect(await runProcess(process.execPath, [main])).toEqual({
    code: 0,
    signal: null,
    stdout: `at a, new: []
at b, with the token: [ { id: '1', text: 'Is anybody there?' } ]
with another one: { error: 'REPLIC_TOKEN' }
`,
    stderr: '',
  })
})

describe('the arguments', () => {
  it.each([
    [['bad name']],
    [[null]],
    [['x', { cookie: 'a;b' }]],
    [['x', { cookieAttributes: 'Path=/\n' }]],
    [['x', -1]],
    [['x', { timeoutMs: '5' }]],
    [['x', { onTimeout: 'wait' }]],
    [['x', { timeout: 5 }]],
    [['x', 'y']],
    [[7]],
  ])('%j are refused', async (args) => {
    const db = await openReplica()
    await throws(() => db.readYourWrite(...args), 'REPLIC_USAGE', 'readYourWrite')
  })

  it('of the others', async () => {
    const db = await openReplica()
    await throws(() => wrap(db), 'REPLIC_USAGE', 'handler')
    await throws(() => wrap({}, () => {}), 'REPLIC_USAGE', 'Replica')
    await throws(() => wrap(db, () => {}, { onError: 1 }), 'REPLIC_USAGE', 'onError')
    await throws(() => wrap(db, () => {}, 5), 'REPLIC_USAGE')
    const app = fastify()
    app.register(plugin, { timeoutMs: 5 })
    await expect(app.ready()).rejects.toMatchObject({ code: 'REPLIC_USAGE' })
  })
})

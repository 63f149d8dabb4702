// What readYourWrite costs a request that does not have to wait: the same routes with it and without, in turn, each time
// in another order. Beside it what the framework itself takes for a middleware that does nothing, and for one that sets a
// header: the least that anything can cost there.
//
// Counted is the processor time that the serving process takes for a request, in two ways. `autocannon`: with everything,
// over HTTP. `direct`: the same requests handed to the framework without a network. A process serves all kinds, each with
// an application of its own, and only figures of one process are compared: two with the same server differ by a tenth (how
// their memory lies, what was compiled when). Whatever else the machine does can only add: so of the rounds of a kind the
// tenth that was least disturbed counts. `of bare` is the quotient to that of the bare route, as the median of several
// processes, and beside it that of each; `more` is the difference.
//   npm run bench:middleware [-- rounds [framework]]

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer, IncomingMessage, ServerResponse } from 'node:http'
import { argv } from 'node:process'
import { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import autocannon from 'autocannon'
import express from 'express'
import fastify from 'fastify'
import { Replica } from '../lib/index.js'
import { readYourWrite } from '../lib/middleware/fastify.js'
import { median, table, withFile } from './harness.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT);`
const HEADER = 'x-replic-token'
const CONSTANT = '1.1' // as long as the token
const SELECT = 'SELECT id, text FROM note WHERE id = ?'
const PAGE = 'SELECT id, text FROM note ORDER BY id LIMIT 50'
const DIRECT = '/ok' // that which crosses to no other thread
const CONNECTIONS = 32
const REQUESTS = 1000 // of a round of autocannon
const DIRECT_REQUESTS = 200
const DIRECT_ROUNDS = 2 // to one of autocannon
const PROCESSES = 5
const WARM = 5000

const bare = {}
const token = { readYourWrite: {} }
const signed = { readYourWrite: {}, isSigned: true }
const written = { readYourWrite: { monotonicReads: false } }
const KINDS = {
  Express: {
    bare,
    'bare, again': bare, // what the measurement itself is good for
    'a middleware that does nothing': { middleware: (_req, _res, next) => next() },
    'one that sets a header': {
      middleware: (_req, res, next) => {
        res.setHeader(HEADER, CONSTANT)
        next()
      },
    },
    readYourWrite: token,
    'readYourWrite, signed': signed,
    'readYourWrite, monotonicReads: false': written,
  },
  Fastify: {
    bare,
    'a hook that sets a header': {
      middleware: (_request, reply, done) => {
        reply.header(HEADER, CONSTANT)
        done()
      },
    },
    readYourWrite: token,
    'readYourWrite, signed': signed,
    'readYourWrite, monotonicReads: false': written,
  },
}
const ROUTES = { '50 rows as JSON': '/notes', 'a row as JSON': '/note', '{"ok":true}': '/ok' }

/** Each starts a server of `db`. */
const FRAMEWORKS = {
  async Express(db, { middleware, readYourWrite: options }) {
    const app = express()
    if (middleware) app.use(middleware)
    if (options) app.use(db.readYourWrite(HEADER, options))
    app.get('/note', async (_req, res) => res.json(await db.get(SELECT, [1])))
    app.get('/notes', async (_req, res) => res.json(await db.all(PAGE)))
    app.get('/ok', (_req, res) => res.json({ ok: true }))
    const server = createServer(app).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return server
  },
  async Fastify(db, { middleware, readYourWrite: options }) {
    const app = fastify()
    if (middleware) app.addHook('onRequest', middleware)
    if (options) app.register(readYourWrite, { db, header: HEADER, ...options })
    app.register(async (scope) => {
      scope.get('/note', () => db.get(SELECT, [1]))
      scope.get('/notes', () => db.all(PAGE))
      scope.get('/ok', async () => ({ ok: true }))
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    return app.server
  },
}

/** A request without a network: its response goes nowhere. */
function answer(server, socket, url, token) {
  const req = new IncomingMessage(socket)
  Object.assign(req, { url, method: 'GET', httpVersion: '1.1', complete: true })
  Object.assign(req, { httpVersionMajor: 1, httpVersionMinor: 1 })
  const headers = ['host', '127.0.0.1', HEADER, token, 'connection', 'keep-alive']
  req._addHeaderLines(headers, headers.length)
  const res = new ServerResponse(req)
  res.shouldKeepAlive = true
  res.assignSocket(socket)
  return new Promise((resolve, reject) => {
    res.on('finish', () => {
      res.detachSocket(socket)
      if (res.statusCode === 200) resolve()
      else reject(new Error(`${url}: ${res.statusCode}`))
    })
    server.emit('request', req, res)
  })
}

const cpuMicroseconds = () => {
  const { user, system } = process.cpuUsage()
  return user + system
}

/** Serves all kinds, until the parent is gone. */
async function serve(framework) {
  const socket = new Writable({ write: (_bytes, _encoding, done) => done() })
  socket.setTimeout = () => {}
  await withFile(async (path) => {
    const db = await open(path)
    await withFile(async (signedPath) => {
      const signing = await open(signedPath, 'the secret of the benchmark')
      const servers = {}
      for (const [kind, { isSigned, ...given }] of Object.entries(KINDS[framework]))
        servers[kind] = await FRAMEWORKS[framework](isSigned ? signing : db, given)
      const tokenOf = (kind) => (KINDS[framework][kind].isSigned ? signing : db).token()
      process.on('message', async ({ direct, kind, url }) => {
        const began = cpuMicroseconds()
        for (let i = 0; i < direct; i++) {
          await answer(servers[kind], socket, url, tokenOf(kind))
          if (i % 50 === 0) await new Promise(setImmediate)
        }
        process.send(direct ? cpuMicroseconds() - began : began)
      })
      process.send(
        Object.entries(servers).map(([kind, server]) => [
          kind,
          { port: server.address().port, token: tokenOf(kind) },
        ]),
      )
      await once(process, 'disconnect')
      await signing.close()
    })
    await db.close()
  })
  process.exit()
}

async function open(path, tokenSecret) {
  const db = await Replica.open(path, { peerId: 1, tokenSecret })
  await db.migrate([{ up: DDL }])
  const text = 'A note of about as many characters as notes have.'
  await db.upsert(
    'note',
    Array.from({ length: 100 }, (_, id) => ({ id, text })),
  )
  return db
}

async function asked(child, message) {
  child.send(message)
  return (await once(child, 'message'))[0]
}

/** Microseconds of processor time per request. */
const direct = async ({ child }, kind, url, count) =>
  (await asked(child, { direct: count, kind, url })) / count

/** The same, with network and all. */
async function load({ child, servers }, kind, path, amount) {
  const { port, token } = servers.get(kind)
  const before = await asked(child, {})
  const { non2xx, errors, requests } = await autocannon({
    url: `http://127.0.0.1:${port}${path}`,
    headers: { [HEADER]: token }, // the bare route gets it as well
    connections: CONNECTIONS,
    amount,
    sampleInt: 50, // ms; it ends with one
  })
  if (non2xx || errors) throw new Error(`${path}: ${non2xx} answers, ${errors} errors`)
  return ((await asked(child, {})) - before) / requests.total
}

const least = (list) => [...list].sort((x, y) => x - y)[Math.floor(list.length / 10)]

async function start(framework) {
  const child = fork(fileURLToPath(import.meta.url), ['serve', framework])
  const [servers] = await once(child, 'message')
  return { child, servers: new Map(servers) }
}

/** `figure(kind)` of all kinds, `times`, each time beginning with another one: kind -> the least. */
async function inTurns(kinds, times, figure) {
  const figures = new Map(kinds.map((kind) => [kind, []]))
  for (let round = 0; round < times; round++) {
    for (let i = 0; i < kinds.length; i++) {
      const kind = kinds[(round + i) % kinds.length]
      figures.get(kind).push(await figure(kind))
    }
  }
  return new Map([...figures].map(([kind, list]) => [kind, least(list)]))
}

/** What one process tells of each kind: [path, the figures over HTTP, those without a network or undefined]. */
async function ofOneProcess(framework, rounds) {
  const kinds = Object.keys(KINDS[framework])
  const started = await start(framework)
  const found = []
  for (const path of Object.values(ROUTES)) {
    const whole = (count) => (kind) => load(started, kind, path, count)
    const part = (count) => (kind) => direct(started, kind, path, count)
    await inTurns(kinds, 1, whole(WARM))
    const overHttp = await inTurns(kinds, rounds, whole(REQUESTS))
    let without
    if (path === DIRECT) {
      await inTurns(kinds, 1, part(WARM))
      without = await inTurns(kinds, rounds * DIRECT_ROUNDS, part(DIRECT_REQUESTS))
    }
    found.push([path, overHttp, without])
  }
  started.child.disconnect()
  return found
}

async function measure(framework, rounds) {
  const processes = []
  for (let i = 0; i < PROCESSES; i++) processes.push(await ofOneProcess(framework, rounds))
  return Object.entries(ROUTES).flatMap(([title, wanted]) => {
    const these = processes.map((found) => found.find(([path]) => path === wanted))
    const middle = (figure) => median(these.map(figure))
    return Object.keys(KINDS[framework]).map((kind) => {
      const ratios = these.map(([, http]) => http.get(kind) / http.get('bare'))
      ratios.sort((x, y) => x - y)
      const isDirect = wanted === DIRECT
      return [
        ...[`${framework}: ${title}`, kind],
        isDirect ? middle(([, , direct]) => direct.get(kind)).toFixed(1) : '',
        isDirect ? middle(([, , direct]) => direct.get(kind) - direct.get('bare')).toFixed(1) : '',
        middle(([, http]) => http.get(kind)).toFixed(1),
        middle(([, http]) => http.get(kind) - http.get('bare')).toFixed(1),
        median(ratios).toFixed(3),
        ratios.map((ratio) => ratio.toFixed(2)).join(' '),
      ]
    })
  })
}

if (argv[2] === 'serve') await serve(argv[3])
else {
  const frameworks = argv[3] ? [argv[3]] : Object.keys(KINDS)
  const head = [
    '',
    'with',
    'direct, us',
    'more',
    'autocannon, us',
    'more',
    'of bare',
    'each process',
  ]
  for (const framework of frameworks) {
    const rows = await measure(framework, Number(argv[2] ?? 20))
    for (const line of table([head, ...rows], [0, 1])) console.log(line)
  }
}

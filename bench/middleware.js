// What readYourWrite costs a request that does not have to wait: the same routes with it and without, in turn, each time
// in another order. Beside it what the framework itself takes for a middleware that does nothing, and for one that sets a
// header: the least that anything can cost there.
//
// Counted is the processor time that the serving process takes for a request, in two ways. `autocannon`: with everything,
// over HTTP. There one process has the servers of all kinds: two processes with the same server differ by more than what
// is looked for (how their memory lies, what was compiled when). `direct`: without a network, in a process for each kind,
// so that what one does to the framework's objects is not paid by the others, in many short rounds. Whatever else the
// machine does can only add to it: so of the rounds the tenth that was least disturbed counts, and beside it stand the
// medians. `more` is microseconds above the bare route, `of bare` the quotient.
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
const WARM = 5000

const bare = {}
const token = { readYourWrite: {} }
const signed = { readYourWrite: {}, tokenSecret: 'the secret of the benchmark' }
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

/** Serves `kinds`, until the parent is gone. */
async function serve(framework, kinds) {
  const served = {}
  const socket = new Writable({ write: (_bytes, _encoding, done) => done() })
  socket.setTimeout = () => {}
  const start = async ([kind, ...others], path) => {
    const { tokenSecret, ...given } = KINDS[framework][kind]
    const db = await Replica.open(path, { peerId: 1, tokenSecret })
    await db.migrate([{ up: DDL }])
    const text = 'A note of about as many characters as notes have.'
    await db.upsert(
      'note',
      Array.from({ length: 100 }, (_, id) => ({ id, text })),
    )
    const server = await FRAMEWORKS[framework](db, given)
    served[kind] = { server, port: server.address().port, token: db.token() }
    if (others.length) await withFile((next) => start(others, next))
    else await answerParent()
    await db.close()
  }
  const answerParent = async () => {
    process.on('message', async ({ kind, direct, url }) => {
      const began = cpuMicroseconds()
      for (let i = 0; i < direct; i++) {
        await answer(served[kind].server, socket, url, served[kind].token)
        if (i % 50 === 0) await new Promise(setImmediate)
      }
      process.send(direct ? cpuMicroseconds() - began : began)
    })
    process.send(
      Object.fromEntries(
        Object.entries(served).map(([kind, { port, token }]) => [kind, { port, token }]),
      ),
    )
    await once(process, 'disconnect')
  }
  await withFile((path) => start(kinds, path))
  process.exit()
}

async function asked(child, message) {
  child.send(message)
  return (await once(child, 'message'))[0]
}

/** Microseconds of processor time per request. */
const direct = async ({ child }, kind, url, count) =>
  (await asked(child, { kind, direct: count, url })) / count

/** The same, with network and all. */
async function load({ child, served }, kind, path, amount) {
  const { port, token } = served[kind]
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

async function start(framework, kinds) {
  const child = fork(fileURLToPath(import.meta.url), ['serve', framework, ...kinds])
  const [served] = await once(child, 'message')
  return { child, served }
}

/** `figure(kind)` of all kinds, `times`, each time beginning with another one: kind -> figures. */
async function inTurns(kinds, times, figure) {
  const figures = Object.fromEntries(kinds.map((kind) => [kind, []]))
  for (let round = 0; round < times; round++) {
    for (let i = 0; i < kinds.length; i++) {
      const kind = kinds[(round + i) % kinds.length]
      figures[kind].push(await figure(kind))
    }
  }
  return figures
}

async function measure(framework, rounds) {
  const kinds = Object.keys(KINDS[framework])
  const together = await start(framework, kinds)
  const apart = {}
  for (const kind of kinds) apart[kind] = await start(framework, [kind])
  const rows = []
  for (const [title, path] of Object.entries(ROUTES)) {
    const whole = (count) => (kind) => load(together, kind, path, count)
    const part = (count) => (kind) => direct(apart[kind], kind, path, count)
    await inTurns(kinds, 1, whole(WARM))
    const overHttp = await inTurns(kinds, rounds, whole(REQUESTS))
    let without
    if (path === DIRECT) {
      await inTurns(kinds, 1, part(WARM))
      without = await inTurns(kinds, rounds * DIRECT_ROUNDS, part(DIRECT_REQUESTS))
    }
    for (const kind of kinds) {
      const cpu = overHttp[kind]
      const ratios = cpu.map((each, i) => each / overHttp.bare[i]).sort((x, y) => x - y)
      const quartiles = [ratios[ratios.length >> 2], ratios[(3 * ratios.length) >> 2]]
      rows.push([
        ...[`${framework}: ${title}`, kind, without ? least(without[kind]).toFixed(1) : ''],
        without ? (least(without[kind]) - least(without.bare)).toFixed(1) : '',
        ...[least(cpu).toFixed(0), (least(cpu) / least(overHttp.bare)).toFixed(3)],
        ...[median(cpu).toFixed(0), (median(cpu) / median(overHttp.bare)).toFixed(3)],
        quartiles.map((ratio) => ratio.toFixed(2)).join(' - '),
      ])
    }
  }
  for (const { child } of [together, ...Object.values(apart)]) child.disconnect()
  return rows
}

if (argv[2] === 'serve') await serve(argv[3], argv.slice(4))
else {
  const frameworks = argv[3] ? [argv[3]] : Object.keys(KINDS)
  const http = ['autocannon, us', 'of bare', 'median', 'of bare', 'quartiles']
  const head = ['', 'with', 'direct, us', 'more', ...http]
  for (const framework of frameworks) {
    const rows = await measure(framework, Number(argv[2] ?? 50))
    for (const line of table([head, ...rows], [0, 1])) console.log(line)
  }
}

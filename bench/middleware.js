// What readYourWrite costs a request that does not have to wait: the same routes with it and without, each in a process
// of its own, in turn (A B C A B C ...). Beside it what Express itself takes for a middleware that does nothing, and for
// one that sets a header: the least that anything can cost there.
//
// Counted is the processor time that the serving process takes for a request, in two ways. `autocannon`: with everything,
// over HTTP. Other work on the machine disturbs that by more than what is looked for (caches, the other half of a core,
// how many packets come at once), so `direct` hands requests to the server without a network, in many short rounds, of
// which the tenth that were least disturbed count. `more` is microseconds above the bare route.
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
import { inTurn, median, table, withFile } from './harness.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT);`
const HEADER = 'x-replic-token'
const CONSTANT = '1.1' // as long as the token
const SELECT = 'SELECT id, text FROM note WHERE id = ?'
const DIRECT = '/ok' // that which crosses to no other thread
const CONNECTIONS = 32
const REQUESTS = 2000 // of a round of autocannon
const DIRECT_REQUESTS = 200
const DIRECT_ROUNDS = 10 // to one of autocannon
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
const ROUTES = { 'a row as JSON': '/note', '{"ok":true}': '/ok' }

/** Each starts a server of `db`. */
const FRAMEWORKS = {
  async Express(db, { middleware, readYourWrite: options }) {
    const app = express()
    if (middleware) app.use(middleware)
    if (options) app.use(db.readYourWrite(HEADER, options))
    app.get('/note', async (_req, res) => res.json(await db.get(SELECT, [1])))
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

async function serve(framework, kind) {
  await withFile(async (path) => {
    const { tokenSecret, ...given } = KINDS[framework][kind]
    const db = await Replica.open(path, { peerId: 1, tokenSecret })
    await db.migrate([{ up: DDL }])
    await db.upsert('note', { id: 1, text: 'A note of about as many characters as notes have.' })
    const server = await FRAMEWORKS[framework](db, given)
    const token = db.token()
    const socket = new Writable({ write: (_bytes, _encoding, done) => done() })
    socket.setTimeout = () => {}
    process.on('message', async ({ direct, url }) => {
      const began = cpuMicroseconds()
      for (let i = 0; i < direct; i++) {
        await answer(server, socket, url, token)
        if (i % 50 === 0) await new Promise(setImmediate)
      }
      process.send(direct ? cpuMicroseconds() - began : began)
    })
    process.send({ port: server.address().port, token })
    await once(process, 'disconnect')
    await db.close()
  })
  process.exit()
}

async function asked(child, message) {
  child.send(message)
  return (await once(child, 'message'))[0]
}

/** Microseconds of processor time per request. */
const direct = async ({ child }, url, count) => (await asked(child, { direct: count, url })) / count

/** The same, with network and all. */
async function load({ child, port, token }, path, amount) {
  const before = await asked(child, {})
  const { non2xx, errors, requests } = await autocannon({
    url: `http://127.0.0.1:${port}${path}`,
    headers: { [HEADER]: token }, // the bare route gets it as well
    connections: CONNECTIONS,
    amount,
  })
  if (non2xx || errors) throw new Error(`${path}: ${non2xx} answers, ${errors} errors`)
  return ((await asked(child, {})) - before) / requests.total
}

const least = (list) => [...list].sort((x, y) => x - y)[Math.floor(list.length / 10)]

async function measure(framework, rounds) {
  const servers = {}
  for (const kind of Object.keys(KINDS[framework])) {
    const child = fork(fileURLToPath(import.meta.url), ['serve', framework, kind])
    const [{ port, token }] = await once(child, 'message')
    servers[kind] = { child, port, token }
  }
  const rows = []
  const measured = (path, measure, count, times) => {
    const sides = Object.entries(servers)
    return inTurn(
      Object.fromEntries(sides.map(([kind, server]) => [kind, () => measure(server, path, count)])),
      times,
    )
  }
  for (const [title, path] of Object.entries(ROUTES)) {
    await measured(path, load, WARM, 1)
    const whole = await measured(path, load, REQUESTS, rounds)
    const part = {}
    if (path === DIRECT) {
      await measured(path, direct, WARM, 1)
      Object.assign(part, await measured(path, direct, DIRECT_REQUESTS, rounds * DIRECT_ROUNDS))
    }
    for (const kind of Object.keys(servers)) {
      const ratios = whole[kind].map((cpu, i) => cpu / whole.bare[i]).sort((x, y) => x - y)
      const quartiles = [ratios[ratios.length >> 2], ratios[(3 * ratios.length) >> 2]]
      rows.push([
        ...[`${framework}: ${title}`, kind, part[kind] ? least(part[kind]).toFixed(1) : ''],
        part[kind] ? (least(part[kind]) - least(part.bare)).toFixed(1) : '',
        ...[median(whole[kind]).toFixed(0), median(ratios).toFixed(3)],
        quartiles.map((ratio) => ratio.toFixed(2)).join(' - '),
      ])
    }
  }
  for (const { child } of Object.values(servers)) child.disconnect()
  return rows
}

if (argv[2] === 'serve') await serve(argv[3], argv[4])
else {
  const frameworks = argv[3] ? [argv[3]] : Object.keys(KINDS)
  const head = ['', 'with', 'direct, us', 'more', 'autocannon, us', 'of bare', 'quartiles']
  for (const framework of frameworks) {
    const rows = await measure(framework, Number(argv[2] ?? 10))
    for (const line of table([head, ...rows], [0, 1])) console.log(line)
  }
}

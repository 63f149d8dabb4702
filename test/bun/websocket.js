// Runs on Bun: WebSockets served by Bun.serve and by ws, dialed by Bun and by Node.
//   bun test/bun/websocket.js <folder> <node>
// That starts Node with this file, to dial: node test/bun/websocket.js <folder> <url>

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'
import { Replica } from '../../lib/index.js'
import { attach, bunHandlers, connect } from '../../lib/transport/websocket.js'
import { authority } from '../certificates.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT, data BLOB);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT, data BLOB);`
const [dir, other] = process.argv.slice(2)
const rows = (n, from) =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text: `row ${from + i}` }))
const stateOf = (db, wanted) =>
  new Promise((resolve) => {
    const listener = (event) => {
      if (event.state !== wanted) return
      db.off('link', listener)
      resolve(event)
    }
    db.on('link', listener)
  })

async function open(peerId, options) {
  const db = await Replica.open(join(dir, `${peerId}.db`), { peerId, ...options })
  await db.migrate([{ up: DDL }])
  return db
}

async function equal(a, b, tokens) {
  await Promise.all(tokens.flatMap((token) => [a, b].map((db) => db.waitFor(token, 30_000))))
  const sql = 'SELECT * FROM note ORDER BY id'
  assert.deepEqual(await a.all(sql), await b.all(sql))
}

async function replicate(a, b) {
  const load = [a.load('note', rows(5_000, 0)), b.load('note', rows(5_000, 2_500))]
  await equal(a, b, await Promise.all(load))
  const writes = rows(200, 0).map(({ id }) => [a, b][id % 2].upsert('note', { id, text: 'again' }))
  await equal(a, b, await Promise.all(writes))
  const data = new Uint8Array(3_000_000).fill(7)
  await equal(a, b, [await a.upsert('note', { id: -1, data })])
  await equal(a, b, [await b.upsert('note', { id: -2, data })])
}

async function replicates(a, b, url, options) {
  const connection = connect(a, url, options)
  await replicate(a, b)
  const gone = [stateOf(a, 'down'), stateOf(b, 'down')]
  await connection.close()
  for (const { code } of await Promise.all(gone)) assert.equal(code, null)
}

/** The next message of a WebSocket's. */
const next = (socket) =>
  new Promise((resolve) => {
    socket.addEventListener('message', ({ data }) => resolve(data), { once: true })
  })

async function onNode(url) {
  const db = await open(3)
  connect(db, url)
  const token = await db.load('note', rows(1000, 100_000))
  await db.upsert('note', { id: -3, data: new Uint8Array(1_000_000).fill(3) })
  await stateOf(db, 'down') // the other side has it all, and closes
  console.log(token, (await db.get('SELECT count(*) AS n FROM note')).n)
  await db.close()
}

async function fromNode(db, url) {
  const args = [fileURLToPath(import.meta.url), dir, url]
  const node = spawn(other, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  node.stdout.on('data', (data) => {
    output += data
  })
  await stateOf(db, 'up')
  await db.waitFor('3.1001', 30_000)
  const { n } = await db.get('SELECT count(*) AS n FROM note')
  await db.close({ flushMs: 30_000 })
  await once(node, 'close')
  assert.equal(output, `3.1000 ${n}\n`)
}

async function onBun() {
  const seen = []
  const authorize = (_peerId, { request, address }) => {
    if (request && seen.length === 0) {
      seen.push([new URL(request.url).pathname, request.headers.get('x-test'), address])
    }
    return true
  }
  const [a, b] = [await open(1), await open(2, { authorize })]
  const replic = bunHandlers(b, {
    onUnknownMessage: (message, socket) => socket.send(message),
    others: {
      open: (socket) => socket.data.mine && socket.send('welcome'),
      message: (socket, message) => socket.send(`${message}!`),
    },
  })
  const bun = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch(request, server) {
      const { pathname } = new URL(request.url)
      if (pathname === '/replic' && replic.upgrade(request, server)) return undefined
      if (pathname === '/chat' && server.upgrade(request, { data: { mine: true } }))
        return undefined
      return new Response('hello', { status: pathname === '/secret' ? 401 : 404 })
    },
    websocket: replic.websocket,
  })
  const url = `ws://127.0.0.1:${bun.port}`
  await replicates(a, b, `${url}/replic`, { headers: { 'x-test': 'yes' } })
  assert.deepEqual(seen, [['/replic', 'yes', '127.0.0.1']])

  // The application's own sockets, and its messages over one that is linked.
  const chat = new WebSocket(`${url}/chat`)
  assert.equal(await next(chat), 'welcome')
  chat.send('hello')
  assert.equal(await next(chat), 'hello!')
  chat.close()
  const shared = new WebSocket(`${url}/replic`)
  shared.onopen = () => shared.send('hello')
  let text
  while (typeof text !== 'string') text = await next(shared) // HELLO comes too
  assert.equal(text, 'hello')
  const left = stateOf(b, 'down')
  shared.close()
  await left

  // A page of a browser's, and one whose name has become 127.0.0.1.
  for (const headers of [{ origin: 'https://evil.example' }, { host: 'evil.example' }]) {
    const turnedAway = stateOf(b, 'down')
    const page = new WebSocket(`${url}/replic`, { headers })
    page.onopen = () => assert.fail('a page was let in')
    assert.match((await turnedAway).reason, /refused: .*evil\.example/)
    const request = new Request(`http://127.0.0.1:${bun.port}/replic`, { headers })
    assert.match(replic.refuses(request), /evil\.example/)
  }

  // A refusal, the end of the handlers, and a socket that the application has accepted itself.
  const refused = stateOf(a, 'down')
  const wrong = connect(a, `${url}/secret`, { retryMinMs: 60_000 })
  assert.match((await refused).reason, /101/)
  await wrong.close()
  await replic.close()
  assert.equal((await fetch(`http://127.0.0.1:${bun.port}/replic`)).status, 404)
  bun.stop(true)

  await ownSockets(a, b)
  await overWs(a, b)
  const { ca, sign } = authority()
  const last = bunHandlers(b)
  const secure = serveAll(last, { tls: sign({ name: 'server' }) })
  const untrusting = stateOf(a, 'down')
  const untrusted = connect(a, secure.url, { retryMinMs: 60_000 })
  assert.notEqual((await untrusting).reason, null)
  await untrusted.close()
  await replicates(a, b, secure.url, { tls: { ca } })
  secure.stop(true)
  const server = serveAll(last)
  await a.close()
  await fromNode(b, server.url)
  server.stop(true)
  console.log('as expected')
}

/** Serves links only; gives { url, stop() }. */
function serveAll(replic, options) {
  const server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: (request, bun) =>
      replic.upgrade(request, bun) ? undefined : new Response('', { status: 400 }),
    websocket: replic.websocket,
    ...options,
  })
  const url = `${options?.tls ? 'wss' : 'ws'}://127.0.0.1:${server.port}/`
  return { url, stop: (isAtOnce) => server.stop(isAtOnce) }
}

async function ownSockets(a, b) {
  const { websocket } = bunHandlers(b, { others: { open: (socket) => b.addRemotePeer(1, socket) } })
  const bun = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: (request, server) =>
      server.upgrade(request) ? undefined : new Response('', { status: 400 }),
    websocket,
  })
  const socket = new WebSocket(`ws://127.0.0.1:${bun.port}`, { perMessageDeflate: false })
  a.addRemotePeer(2, socket)
  await stateOf(a, 'up')
  await equal(a, b, [await b.upsert('note', { id: -4, text: 'own' })])
  const gone = [stateOf(a, 'down'), stateOf(b, 'down')]
  assert.equal(b.closeRemotePeer(1), true)
  await Promise.all(gone)
  bun.stop(true)
}

async function overWs(a, b) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  attach(b, server)
  await replicates(a, b, `ws://127.0.0.1:${server.address().port}/`)
  server.close()
}

await (process.versions.bun ? onBun() : onNode(other))

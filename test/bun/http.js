// Runs on Bun: HTTP served by Bun.serve and by Bun's node:http, and dialed.
//   bun test/bun/http.js <folder>

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { Replica } from '../../lib/index.js'
import { connect, fetchHandler, handler } from '../../lib/transport/http.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT, data BLOB);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT, data BLOB);`
const [dir] = process.argv.slice(2)
const rows = (n, from) =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text: `row ${from + i}` }))

async function open(peerId) {
  const db = await Replica.open(join(dir, `${peerId}.db`), { peerId })
  await db.migrate([{ up: DDL }])
  return db
}

async function equal(a, b, tokens) {
  await Promise.all(tokens.flatMap((token) => [a, b].map((db) => db.waitFor(token, 30_000))))
  const sql = 'SELECT * FROM note ORDER BY id'
  assert.deepEqual(await a.all(sql), await b.all(sql))
}

async function replicates(a, b, url) {
  const connection = connect(a, { url })
  const load = [a.load('note', rows(20_000, 0)), b.load('note', rows(20_000, 10_000))]
  await equal(a, b, await Promise.all(load))
  const writes = rows(200, 0).map(({ id }) => [a, b][id % 2].upsert('note', { id, text: 'again' }))
  await equal(a, b, await Promise.all(writes))
  const data = new Uint8Array(5_000_000).fill(7)
  await equal(a, b, [await a.upsert('note', { id: -1, data })])
  await equal(a, b, [await b.upsert('note', { id: -2, data })])
  const isGone = new Promise((resolve) => {
    b.on('link', ({ state }) => state === 'down' && resolve())
  })
  await connection.close()
  await isGone
}

const [a, b] = [await open(1), await open(2)]
const handle = fetchHandler(b)
const addresses = []
b.on('link', ({ address }) => addresses.push(address))
const bun = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch: (request, server) =>
    new URL(request.url).pathname === '/replic'
      ? handle(request, server)
      : new Response('hello', { status: 404 }),
})
await replicates(a, b, `http://127.0.0.1:${bun.port}/replic`)
assert.deepEqual([...new Set(addresses)], ['127.0.0.1'])
const reason = new Promise((resolve) => {
  a.on('link', (event) => event.state === 'down' && resolve(event.reason))
})
const wrong = connect(a, { url: `http://127.0.0.1:${bun.port}/wrong`, retryMinMs: 60_000 })
assert.match(await reason, /answered 404: is the handler mounted/)
await wrong.close()

const node = createServer(handler(b))
node.listen(0, '127.0.0.1')
await once(node, 'listening')
await replicates(a, b, `http://127.0.0.1:${node.address().port}/`)

// A poll is under way when the replica closes, and is answered.
const last = connect(a, { url: `http://127.0.0.1:${bun.port}/replic`, retryMinMs: 60_000 })
await equal(a, b, [await b.upsert('note', { id: -3, text: 'last' })])
await Promise.all([b.close(), a.close(), last.close()])
bun.stop(true)
node.close()
node.closeAllConnections()
console.log('as expected')

// Runs on Bun and on Node alike: opens two replicas in the folder given, writes, replicates over TCP,
// refuses, closes and opens again. No test runner, so that the same file shows the same on both.
//   bun test/bun/smoke.js <folder>

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { Replica, ReplicError } from '../../lib/index.js'
import { connect, listen } from '../../lib/transport/tcp.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT, data BLOB, deletedAt INTEGER);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, _nulls TEXT, id INTEGER NOT NULL, text TEXT, data BLOB, deletedAt INTEGER);`
const rows = (n, from) =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text: `row ${from + i}` }))
const [dir] = process.argv.slice(2)

async function open(name, peerId) {
  const db = await Replica.open(join(dir, name), { peerId })
  await db.migrate([{ up: DDL, down: 'DROP TABLE note; DROP TABLE note_patches' }])
  return db
}

async function writesAndReads(db) {
  const tokens = await Promise.all(rows(1000, 0).map((row) => db.upsert('note', row)))
  assert.deepEqual(
    tokens,
    rows(1000, 1).map(({ id }) => `1.${id}`),
  )
  await db.waitFor(tokens.at(-1), 0)
  assert.equal(await db.load('note', rows(3000, 1000)), '1.4000')
  const data = new Uint8Array([0, 255, 254])
  await db.batch((tx) => {
    tx.upsert('note', { id: 1, text: 'a\0é', data })
    tx.delete('note', { id: 2 })
  })
  assert.deepEqual(await db.get('SELECT text, data FROM note WHERE id = 1'), { text: 'a\0é', data })
  let count = 0
  for await (const { id } of db.iterate('SELECT id FROM note ORDER BY id'))
    assert.equal(id, count++)
  assert.equal(count, 4000)
  const big = { n: 2n ** 63n - 1n }
  assert.deepEqual(await db.get('SELECT :n AS n', big, { readBigInts: true }), big)
}

async function refuses(db) {
  const is = (code) => (error) => error instanceof ReplicError && error.code === code
  await assert.rejects(db.upsert('nota', { id: 1 }), is('REPLIC_UNKNOWN_TABLE'))
  await assert.rejects(db.upsert('note', { id: 1, text: new Date() }), is('REPLIC_USAGE'))
  await assert.rejects(db.run('DELETE FROM note'), is('REPLIC_DIRECT_WRITE'))
  await assert.rejects(db.all('SELEKT'), is('SQLITE_ERROR'))
  await assert.rejects(Replica.open(db.status().path), is('REPLIC_LOCKED'))
}

async function replicates(a, b) {
  const listener = await listen(b)
  connect(a, { port: listener.address().port, peerId: 2 })
  const last = await Promise.all(rows(500, 3800).map((row) => b.upsert('note', row)))
  await a.waitFor(last.at(-1), 30_000)
  await b.waitFor(await a.upsert('note', { id: -1, text: null }), 30_000)
  assert.deepEqual(a.status().vector, b.status().vector)
  const sql = 'SELECT * FROM note ORDER BY id'
  assert.deepEqual(await a.all(sql), await b.all(sql))
}

const a = await open('a.db', 1)
const b = await open('b.db', 2)
await writesAndReads(a)
await refuses(a)
await replicates(a, b)
const pending = Promise.allSettled(rows(100, 0).map((row) => a.upsert('note', row)))
await Promise.all([a.close(), b.close()])
assert.ok((await pending).every(({ status }) => status === 'fulfilled'))
await assert.rejects(a.all('SELECT 1'), { code: 'REPLIC_CLOSED' })
const again = await open('a.db', undefined)
assert.equal(again.status().peerId, 1)
assert.deepEqual(await again.get('SELECT count(*) AS n FROM note'), { n: 4301 })
console.log('as expected')

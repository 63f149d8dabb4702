// getSync and allSync: what get and all give, on the calling thread.

import { execFileSync } from 'node:child_process'
import { expect, it } from 'vitest'
import { openReplica, rejects, throws } from './helpers.js'

const filled = async (options) => {
  const db = await openReplica({ peerId: 7, ...options })
  await db.exec('CREATE TABLE own (a INTEGER PRIMARY KEY, b)')
  return db
}

// Another program that writes to the file, and is done when this returns.
const writeElsewhere = (db, sql) =>
  execFileSync('python3', [
    '-c',
    'import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=60); db.execute(sys.argv[2]); db.commit()',
    db.status().path,
    sql,
  ])

const QUERIES = [
  ["SELECT 1 AS i, 1.5 AS d, 'ä' AS t, x'00ff' AS x, NULL AS n, -0.0 AS z"],
  ['SELECT 2 AS a, 3 AS a, 4 AS "__proto__", 5 AS \'\''],
  ['SELECT value AS v, ? AS p FROM json_each(?)', [7n, '[1, "two", null]']],
  ['SELECT :a AS a, $b AS b', { a: Uint8Array.of(1, 2), b: true }],
  ['SELECT 9007199254740993 AS big', [], { readBigInts: true }],
  ['SELECT 1 AS never WHERE 0'],
  [
    'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i FROM n',
  ],
  ['PRAGMA table_list(own)'],
]

it.each(QUERIES)('%s', async (...query) => {
  const db = await filled()
  expect(db.allSync(...query)).toEqual(await db.all(...query))
  expect(db.getSync(...query)).toEqual(await db.get(...query))
})

it('readBigInts of open counts', async () => {
  const db = await filled({ readBigInts: true })
  expect(db.getSync('SELECT 1 AS n')).toEqual({ n: 1n })
  expect(db.getSync('SELECT 1 AS n', [], { readBigInts: false })).toEqual({ n: 1 })
})

it('what was awaited is seen', async () => {
  const db = await openReplica({ peerId: 7 })
  for (let id = 1; id <= 100; id++) {
    expect(db.getSync('SELECT count(*) AS n FROM note')).toEqual({ n: id - 1 })
    await db.upsert('note', { id })
    expect(db.getSync('SELECT max(id) AS id FROM note')).toEqual({ id })
  }
})

it('until the thread is let go, all reads see one state', async () => {
  const db = await filled()
  const count = () => db.getSync('SELECT count(*) AS n FROM own').n
  expect(count()).toBe(0)
  writeElsewhere(db, 'INSERT INTO own VALUES (1, 1)')
  expect(count()).toBe(0)
  expect(db.allSync('SELECT * FROM own')).toEqual([])
  await null
  expect(count()).toBe(1)
})

it('a failed read ends nothing, and the next state is seen all the same', async () => {
  const db = await filled()
  await throws(() => db.getSync("SELECT json('{')"), 'SQLITE_ERROR', 'JSON')
  expect(db.getSync('SELECT count(*) AS n FROM own')).toEqual({ n: 0 })
  await db.run('INSERT INTO own VALUES (1, 1)')
  expect(db.getSync('SELECT count(*) AS n FROM own')).toEqual({ n: 1 })
})

it('a table that comes, changes and goes', async () => {
  const db = await filled()
  const all = () => db.allSync('SELECT * FROM late')
  await throws(all, 'SQLITE_ERROR', 'late')
  await db.exec('CREATE TABLE late (a); INSERT INTO late VALUES (1)')
  expect(all()).toEqual([{ a: 1 }])
  await db.exec('ALTER TABLE late ADD COLUMN b DEFAULT 2')
  expect(all()).toEqual([{ a: 1, b: 2 }])
  await db.exec('DROP TABLE late')
  await throws(all, 'SQLITE_ERROR', 'late')
})

const WRONG = {
  'no SQL': [(db) => db.getSync(7), 'REPLIC_USAGE', 'number'],
  'two statements': [(db) => db.allSync('SELECT 1; SELECT 2'), 'REPLIC_USAGE'],
  'it would write': [(db) => db.getSync('DELETE FROM own'), 'SQLITE_READONLY', 'db.run'],
  'a transaction': [(db) => db.getSync('BEGIN'), 'REPLIC_TRANSACTION'],
  'its end': [(db) => db.getSync('COMMIT'), 'REPLIC_TRANSACTION'],
  'a parameter in no list': [(db) => db.getSync('SELECT ?', 1), 'REPLIC_USAGE', '[value]'],
  'a parameter too many': [(db) => db.allSync('SELECT ?', [1, 2]), 'REPLIC_USAGE'],
  'a value of no kind': [(db) => db.allSync('SELECT ?', [[]]), 'REPLIC_USAGE', 'Array'],
  'an unknown option': [
    (db) => db.getSync('SELECT 1', [], { readBigInt: true }),
    'REPLIC_USAGE',
    'readBigInts',
  ],
  'an integer beyond numbers': [
    (db) => db.allSync('SELECT 1 AS a, 9007199254740993 AS b'),
    'REPLIC_OUT_OF_RANGE',
    'column b of row 0',
  ],
}
it.each(Object.entries(WRONG))('%s', async (_, [call, code, ...parts]) => {
  const db = await filled()
  await throws(() => call(db), code, ...parts)
  expect(db.getSync('SELECT 1 AS n')).toEqual({ n: 1 })
})

it('closing at once ends the state that is read', async () => {
  const db = await filled()
  expect(db.getSync('SELECT 1 AS n')).toEqual({ n: 1 })
  const closing = db.close()
  await throws(() => db.getSync('SELECT 1'), 'REPLIC_CLOSED')
  await closing
  await throws(() => db.allSync('SELECT 1'), 'REPLIC_CLOSED')
  await rejects(db.get('SELECT 1'), 'REPLIC_CLOSED')
})

it('many reads at once see a state that is no older than their call', async () => {
  const db = await openReplica({ peerId: 7, readers: 1 })
  const counts = []
  const reading = []
  for (let id = 1; id <= 50; id++) {
    await db.upsert('note', { id })
    for (let i = 0; i < 4; i++) {
      reading.push(db.get('SELECT count(*) AS n FROM note').then(({ n }) => counts.push([id, n])))
    }
  }
  await Promise.all(reading)
  expect(counts.filter(([id, n]) => n < id)).toEqual([])
})

// Statistics for SQLite's planner: made by themselves, seen by every connection, and no change of the schema.

import { expect, it } from 'vitest'
import { eventOf, linkHeld, NOTES, openReplica, synced } from './helpers.js'

// Of 20,000 jobs 20 are open: only statistics tell that the index on `state` finds few of one kind and many of the other.
const JOBS = `CREATE TABLE job (id INTEGER PRIMARY KEY, state TEXT, owner INTEGER);
  CREATE INDEX job_owner ON job (owner); CREATE INDEX job_state ON job (state);`
const FILL = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)
  INSERT INTO job SELECT i, iif(i % 1000 = 0, 'open', 'done'), i % 50 FROM n`
const OPEN = "SELECT count(*) AS n FROM job WHERE state = 'open' AND owner = 0"
const DONE = OPEN.replace('open', 'done')

let explained = 0

// The index that a query uses, once its connection has seen what is new.
async function indexOf(read, sql) {
  await read(sql)
  explained++ // a statement that is kept would tell the plan it was prepared with
  return /INDEX (\w+)/.exec((await read(`EXPLAIN QUERY PLAN ${sql} -- ${explained}`)).detail)[1]
}

const onAll = (db) => [(sql) => db.get(sql), async (sql) => db.getSync(sql)]

it('a query finds the better index once there are statistics, on connections that are open already', async () => {
  const db = await openReplica({ readers: 1, ddl: JOBS })
  await db.run(FILL)
  for (const read of onAll(db)) {
    expect([await indexOf(read, OPEN), await indexOf(read, DONE)]).toEqual([
      'job_owner',
      'job_owner',
    ])
  }
  await db.compact()
  for (const read of onAll(db)) {
    expect([await indexOf(read, OPEN), await indexOf(read, DONE)]).toEqual([
      'job_state',
      'job_owner',
    ])
  }
  expect(await db.get('SELECT count(*) AS n FROM sqlite_stat4')).not.toEqual({ n: 0 })
})

it('a migration leaves statistics of what it has filled', async () => {
  const db = await openReplica({ readers: 1, ddl: '' })
  await db.migrate([{ up: JOBS + FILL }])
  for (const read of onAll(db)) expect(await indexOf(read, OPEN)).toBe('job_state')
})

it('of more than 50,000 rows a sample is looked at', async () => {
  const db = await openReplica({ ddl: '' })
  await db.migrate([{ up: JOBS + FILL.replace('20000', '50001') }])
  expect(await db.get('SELECT count(*) AS n FROM sqlite_stat1')).toEqual({ n: 2 })
  expect(await db.get('SELECT count(*) AS n FROM sqlite_stat4')).toEqual({ n: 0 })
})

it('tables of the engine and of the log are left out, and nothing of it is replicated', async () => {
  const [a, b] = [await openReplica(), await openReplica()]
  const index = (db) => db.migrate([{ up: NOTES }, { up: 'CREATE INDEX note_size ON note (size)' }])
  await Promise.all([index(a), index(b)])
  await linkHeld(a, b)
  const rows = Array.from({ length: 500 }, (_, id) => ({ id, size: id % 3 }))
  await a.load('note', rows)
  await synced(a, b)
  const { vector, tables } = a.status()
  await a.compact()
  expect(a.status()).toMatchObject({ vector, tables })
  expect(await a.all('SELECT DISTINCT tbl FROM sqlite_stat1')).toEqual([{ tbl: 'note' }])
  expect(await b.all("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_stat%'")).toEqual([])
  expect(await a.verify()).toMatchObject({ equal: true })
  const changed = eventOf(b, 'change')
  await b.waitFor(await a.upsert('note', { id: 1, size: 7 }))
  expect(await changed).toMatchObject({ table: 'note' })
})

it('small tables need none', async () => {
  const db = await openReplica({ ddl: JOBS })
  await db.run(FILL.replace('20000', '99'))
  await db.compact()
  expect(await db.all("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_stat%'")).toEqual([])
})

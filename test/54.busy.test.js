// Another program has the write lock: Debian's sqlite3 in a transaction, at work or stopped (SIGSTOP). Calls wait for so
// long as busyTimeoutMs says, all of them together; no thread does; links, reads and close() go on.

import { spawnSync } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import {
  converged,
  eventOf,
  link,
  NOTES,
  openReplica,
  rejects,
  startProcess,
  tempDir,
  until,
} from './helpers.js'

const hasShell = spawnSync('sqlite3', ['-version']).status === 0
if (!hasShell) {
  if (process.env.CI) throw new Error('sqlite3 is missing (package sqlite3)')
  console.warn('NOT TESTED: another program that has the write lock (package sqlite3)')
}
const NEVER = 2 ** 31 - 1
const ENDLESS =
  'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n'
const newPath = () => join(tempDir(), 'a.db')
const ids = (db) =>
  db.all('SELECT id FROM note ORDER BY id').then((rows) => rows.map(({ id }) => id))

/** sqlite3 in a transaction of its own; `begin` makes it take a lock. release() ends it. */
async function locker(path, begin = 'BEGIN IMMEDIATE') {
  const other = startProcess('sqlite3', ['-bail', path])
  other.send(`${begin}; SELECT 'held';`)
  let line = await other.line()
  while (line && line !== 'held') line = await other.line()
  expect(line).toBe('held')
  return {
    stop: () => other.kill('SIGSTOP'),
    goOn: () => other.kill('SIGCONT'),
    release: async () => {
      other.end('COMMIT;\n')
      expect((await other.ended).code).toBe(0)
    },
  }
}

/** The codes with which calls have failed. */
const codes = (results) => new Set(results.map(({ status, reason }) => reason?.code ?? status))

describe.skipIf(!hasShell).each(['full', 'normal'])('with durability %s', (durability) => {
  it('all calls that wait fail together, with one clear error', async () => {
    const path = newPath()
    const db = await openReplica({ path, durability, peerId: 7, busyTimeoutMs: 300 })
    const other = await locker(path)
    const failed = []
    const call = (promise) => promise.catch((error) => failed.push(error))
    const calls = Array.from({ length: 1200 }, (_, id) => call(db.upsert('note', { id })))
    calls.push(
      call(db.run('CREATE TABLE more (x)')),
      call(db.migrate([{ up: NOTES }, { up: 'CREATE TABLE t (x)' }])),
    )
    await Promise.all(calls)
    expect(failed).toHaveLength(1202)
    const [first] = failed
    expect(first.code).toBe('SQLITE_BUSY')
    for (const words of [path, 'another program holds the write lock', 'end its transaction'])
      expect(first.message).toContain(words)
    expect(new Set(failed.slice(0, 1201).map(({ message }) => message)).size).toBe(1)
    expect(failed[1201].code).toBe('SQLITE_BUSY')
    await other.release()
    expect(await db.upsert('note', { id: 1 })).toBe('7.1')
    expect(db.status().lockedSince).toBe(null)
  })

  it('a call whose timeoutMs ends meanwhile says what it waited for', async () => {
    const path = newPath()
    const db = await openReplica({ path, durability, peerId: 7, busyTimeoutMs: NEVER })
    const other = await locker(path)
    const words = ['20 ms', 'another program holds the write lock', path, 'end its transaction']
    const limits = { timeoutMs: 20 }
    await rejects(db.run('CREATE TABLE more (x)', [], limits), 'REPLIC_TIMEOUT', ...words)
    await rejects(
      db.migrate([{ up: NOTES }, { up: 'CREATE TABLE more (x)' }], limits),
      'REPLIC_TIMEOUT',
      ...words,
    )
    await rejects(db.get(ENDLESS, [], limits), 'REPLIC_TIMEOUT', 'EXPLAIN') // reads do not wait for it
    await other.release()
    await db.exec('CREATE TABLE more (x)', { timeoutMs: 60_000 })
  })

  it('calls that wait are executed when the lock is free, in their order', async () => {
    const path = newPath()
    const db = await openReplica({ path, durability, peerId: 7, busyTimeoutMs: NEVER })
    const other = await locker(path)
    other.stop()
    const calls = [
      db.upsert('note', { id: 1, text: 'a' }),
      db.upsert('note', { id: 1, text: 'b' }),
      db.migrate([{ up: NOTES }, { up: 'CREATE TABLE local (x)' }]),
    ]
    await until(() => db.status().lockedSince && db.status().queue.calls === calls.length)
    calls.push(db.run('INSERT INTO local SELECT text FROM note'))
    calls.push(db.upsert('note', { id: 1, text: 'c' }), db.compact())
    expect(await db.get('SELECT count(*) AS n FROM note')).toEqual({ n: 0 }) // reads go on
    expect(db.getSync('SELECT count(*) AS n FROM note')).toEqual({ n: 0 })
    other.goOn()
    await other.release()
    await Promise.all(calls)
    expect(await db.all('SELECT text, x FROM note, local')).toEqual([{ text: 'c', x: 'b' }])
    expect(db.status().lockedSince).toBe(null)
  })

  it('no thread waits, heartbeats go on, and what came meanwhile is applied', async () => {
    const path = newPath()
    const fast = { durability, heartbeatMs: 20, linkTimeoutMs: 400 }
    const a = await openReplica({ ...fast, path, peerId: 7, busyTimeoutMs: 100 })
    const b = await openReplica({ ...fast, peerId: 8 })
    await link(b, a)
    await b.upsert('note', { id: 0 })
    await converged(a, b)
    const ends = []
    for (const db of [a, b]) db.on('link', (event) => ends.push(event))
    const other = await locker(path)
    other.stop()
    const told = eventOf(a, 'error')
    for (let id = 1; id <= 20; id++) await b.upsert('note', { id, text: 'x'.repeat(1000) })
    const error = await told
    expect(error.code).toBe('SQLITE_BUSY')
    for (const words of [path, 'another program', 'what peers send waits'])
      expect(error.message).toContain(words)
    expect(a.status().lockedSince).toBeLessThanOrEqual(Date.now())
    // Much longer than a link may be silent: as many heartbeats, each of which the other side has seen.
    const seen = () => b.status().links[0].framesIn
    for (const from = seen(); seen() < from + 40; ) {
      await rejects(a.upsert('note', { id: 99 }), 'SQLITE_BUSY')
      await b.upsert('note', { id: 21 })
    }
    expect(await ids(a)).toEqual([0])
    expect(b.status().links[0].lag).toBeGreaterThanOrEqual(20)
    other.goOn()
    await other.release()
    await converged(a, b)
    expect(a.status().links[0].held).toBe(null)
    expect(await ids(a)).toEqual(Array.from({ length: 22 }, (_, id) => id))
    expect(ends).toEqual([])
    expect(b.status().counters.retransmissions + a.status().counters.retransmissions).toBe(0)
  })
})

it.skipIf(!hasShell)('what does not fit while it waits is dropped, and comes again', async () => {
  const path = newPath()
  const limits = { heartbeatMs: 20, durability: 'normal' }
  const small = { maxQueueBytes: 16 * 1024, earlyBytes: 4096 } // half of it is for frames
  const a = await openReplica({ ...limits, ...small, path, peerId: 7, busyTimeoutMs: 0 })
  const b = await openReplica({ ...limits, peerId: 8 })
  await link(b, a)
  const other = await locker(path)
  await Promise.all(Array.from({ length: 50 }, (_, id) => b.upsert('note', { id })))
  for (let id = 0; id < 200; id++) await b.upsert('note', { id, text: 'x'.repeat(1000) })
  await until(() => b.status().links[0].unackedBytes > 10_000)
  expect(a.status().queue.bytes).toBeLessThanOrEqual(8 * 1024)
  await other.release()
  await converged(a, b)
  expect(b.status().counters.retransmissions).toBeGreaterThan(0)
})

it.skipIf(!hasShell)('with busyTimeoutMs 0 a call fails at once', async () => {
  const path = newPath()
  const db = await openReplica({ path, busyTimeoutMs: 0 })
  const other = await locker(path)
  await rejects(db.upsert('note', { id: 1 }), 'SQLITE_BUSY')
  await rejects(db.exec('CREATE TABLE x (y)'), 'SQLITE_BUSY')
  await other.release()
  await db.upsert('note', { id: 1 })
})

it.skipIf(!hasShell)('no thread of the pool waits', async () => {
  const dbs = []
  for (let i = 0; i < 20; i++) {
    const path = newPath()
    const db = await openReplica({ path, busyTimeoutMs: NEVER })
    dbs.push({ path, db, other: await locker(path) })
  }
  const written = dbs.map(({ db }) => db.upsert('note', { id: 1 }))
  for (const { db } of dbs) await until(() => db.status().lockedSince)
  for (const { path, db } of dbs) {
    expect((await stat(path)).isFile()).toBe(true)
    expect(await ids(db)).toEqual([])
  }
  await Promise.all(dbs.map(({ other }) => other.release()))
  await Promise.all(written)
})

describe.skipIf(!hasShell)('opening', () => {
  it('waits for a program that writes, and opens then', async () => {
    const path = newPath()
    await (await openReplica({ path, peerId: 7 })).close()
    const other = await locker(path)
    const opening = openReplica({ path, ddl: null, busyTimeoutMs: NEVER })
    other.stop()
    other.goOn()
    await other.release()
    expect((await opening).status().peerId).toBe(7)
  })

  it('fails after busyTimeoutMs, and says why', async () => {
    const path = newPath()
    await (await openReplica({ path })).close()
    for (const begin of ['BEGIN IMMEDIATE', 'PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE']) {
      const other = await locker(path, begin)
      await rejects(
        Replica.open(path, { busyTimeoutMs: 50 }),
        'SQLITE_BUSY',
        path,
        'another program',
      )
      await other.release()
    }
    await openReplica({ path, ddl: null })
  })

  it('of a file with a rollback journal that another program reads', async () => {
    const path = newPath()
    const other = await locker(path, 'CREATE TABLE t (x); BEGIN; SELECT count(*) FROM t')
    await rejects(Replica.open(path, { busyTimeoutMs: 50 }), 'SQLITE_BUSY', path)
    const opening = openReplica({ path, busyTimeoutMs: NEVER })
    await other.release()
    await opening
  })
})

describe.skipIf(!hasShell)('close()', () => {
  it('ends the waiting at its deadline: the calls fail, and it is closed', async () => {
    const path = newPath()
    const db = await openReplica({ path, busyTimeoutMs: NEVER })
    const other = await locker(path)
    other.stop()
    const calls = Promise.allSettled(
      Array.from({ length: 1000 }, (_, id) => db.upsert('note', { id })),
    )
    await until(() => db.status().lockedSince)
    await db.close({ timeoutMs: 50 })
    expect(codes(await calls)).toEqual(new Set(['SQLITE_BUSY']))
    expect(db.status().state).toBe('closed')
    other.goOn()
    await other.release()
  })

  it('executes what waits, where the lock is free in time', async () => {
    const path = newPath()
    const db = await openReplica({ path, peerId: 7, busyTimeoutMs: NEVER })
    const other = await locker(path)
    const written = db.upsert('note', { id: 1 })
    const closed = db.close({ timeoutMs: NEVER })
    await other.release()
    expect(await written).toBe('7.1')
    await closed
  })
})

// Retention: what is removed from the log and what is not, by compact() and in the background; and
// the jump of peers that lack what was removed.

import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  contents,
  converged,
  eventOf,
  link,
  log,
  openReplica,
  rejects,
  runProcess,
  tempDir,
  until,
} from './helpers.js'

const ALL = { maxPatchRetentionMs: 0 }
const UNSAFE = { unsafe: true }
const many = (n, text = 'x', from = 0) =>
  Array.from({ length: n }, (_, id) => ({ id: from + id, text }))
const sqlite = async (path, sql) => {
  const script = 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2])'
  const ended = await runProcess('python3', ['-c', script, path, sql])
  expect(ended).toMatchObject({ code: 0, stderr: '' })
}
// The background does not begin before the test is over.
const replica = (options) => openReplica({ heartbeatMs: 60_000, ...options })
// With heartbeats, and without the background.
const peer = (options) =>
  openReplica({ heartbeatMs: 20, maxPatchRetentionMs: Infinity, ...options })
const logCount = async (db) => (await db.get('SELECT count(*) AS n FROM note_patches')).n
const noteCount = async (db) => (await db.get('SELECT count(*) AS n FROM note')).n

/** Writes every row `times` times over, so that all but the last patch of each are superseded. */
async function rewrite(db, rows, times) {
  for (let i = 0; i < times; i++) await db.load('note', many(rows, `${i}`))
}

describe('compact()', () => {
  it('removes what wins no cell, keeps what wins one, and changes no row', async () => {
    const db = await replica({ peerId: 11 })
    await db.upsert('note', { id: 1, text: 'first', size: 1 }) // 1: its size still counts
    await db.upsert('note', { id: 1, text: 'second' }) // 2
    await db.upsert('note', { id: 1, text: 'third' }) // 3
    await db.upsert('note', { id: 2 }) // 4: that the row exists
    await db.upsert('note', { id: 3, text: 'x' }) // 5
    await db.delete('note', { id: 3 }) // 6
    await db.upsert('note', { id: 3, text: null }) // 7
    const before = await contents(db)
    expect(await db.compact(ALL)).toEqual({ examined: 7, removed: 2, logRows: 5 })
    expect((await log(db, 'note')).map((patch) => patch._sequenceId)).toEqual([1, 3, 4, 6, 7])
    expect(await contents(db)).toEqual(before)
    expect(db.status()).toMatchObject({ logRows: 5, counters: { patchesPruned: 2 } })
  })

  it('looks at each patch once', async () => {
    const db = await replica()
    await rewrite(db, 10, 2)
    expect(await db.compact(ALL)).toMatchObject({ examined: 20, removed: 10 })
    expect(await db.compact(ALL)).toEqual({ examined: 0, removed: 0, logRows: 10 })
    await db.upsert('note', many(3))
    expect(await db.compact(ALL)).toEqual({ examined: 3, removed: 3, logRows: 10 })
  })

  it('goes on where it was after the file was closed', async () => {
    const path = join(tempDir(), 'a.db')
    const first = await replica({ path })
    await rewrite(first, 10, 2)
    await first.compact(ALL)
    await first.close()
    const db = await replica({ path, ddl: null })
    expect(db.status().logRows).toBe(10)
    expect(await db.compact(ALL)).toEqual({ examined: 0, removed: 0, logRows: 10 })
    expect(await logCount(db)).toBe(10)
  })

  it('takes the age from the options of open, if it is given none', async () => {
    const young = await replica()
    const old = await replica(ALL)
    const keeping = await replica({ maxPatchRetentionMs: Infinity })
    for (const db of [young, old, keeping]) await rewrite(db, 10, 2)
    expect(await young.compact()).toEqual({ examined: 0, removed: 0, logRows: 20 })
    expect(await old.compact()).toEqual({ examined: 20, removed: 10, logRows: 10 })
    expect(await keeping.compact()).toEqual({ examined: 0, removed: 0, logRows: 20 })
    expect(await keeping.compact({ maxPatchRetentionMs: Infinity })).toMatchObject({ removed: 0 })
    expect(await keeping.compact(ALL)).toMatchObject({ removed: 10 })
  })

  it('lets others have their turn', async () => {
    const db = await replica()
    await rewrite(db, 10_000, 2)
    const ended = []
    const compacting = db.compact(ALL).then((result) => {
      ended.push('compact')
      return result
    })
    for (let i = 0; i < 3; i++) {
      await db.upsert('note', { id: i, size: i })
      ended.push('upsert')
    }
    expect(await compacting).toMatchObject({ removed: 10_000 })
    expect(ended).toEqual(['upsert', 'upsert', 'upsert', 'compact'])
  })

  it('stops on a signal, and keeps what it has done', async () => {
    const db = await replica()
    await rewrite(db, 10_000, 2)
    const controller = new AbortController()
    const reason = new Error('enough')
    const compacting = db.compact({ ...ALL, signal: controller.signal })
    await db.upsert('note', { id: 1, size: 1 })
    controller.abort(reason)
    await expect(compacting).rejects.toBe(reason)
    await expect(db.compact({ ...ALL, signal: controller.signal })).rejects.toBe(reason)
    const left = await logCount(db)
    expect(left).toBeGreaterThan(10_001)
    expect(left).toBeLessThan(20_001)
    const rest = await db.compact(ALL)
    expect(rest.examined).toBeLessThan(20_001)
    expect(await logCount(db)).toBe(10_001)
  })

  it('waits for room in the queue', async () => {
    const db = await replica({ maxQueueCalls: 1 })
    await rewrite(db, 10, 2)
    const writes = Array.from({ length: 5 }, () => db.upsert('note', { id: 1, text: 'x' }))
    const compacting = db.compact(ALL)
    const outcomes = await Promise.allSettled(writes)
    expect(outcomes.filter(({ reason }) => reason?.code === 'REPLIC_BUSY')).not.toEqual([])
    const { examined, removed } = await compacting // writes of the same millisecond are not of age
    expect(examined).toBeGreaterThanOrEqual(20)
    expect(removed).toBeGreaterThanOrEqual(10)
  })

  it('tells what is wrong with its arguments', async () => {
    const db = await replica()
    const remedy = 'an integer from 0 to 9007199254740991, or Infinity'
    for (const maxPatchRetentionMs of [-1, 1.5, NaN, -Infinity, '1000', null, 2 ** 53]) {
      const given = { maxPatchRetentionMs }
      await rejects(db.compact(given), 'REPLIC_USAGE', 'compact: maxPatchRetentionMs', remedy)
      await rejects(replica(given), 'REPLIC_USAGE', 'open: maxPatchRetentionMs', remedy)
    }
    await rejects(
      db.compact({ maxPatchRetention: 1 }),
      'REPLIC_USAGE',
      "mean 'maxPatchRetentionMs'",
    )
    await rejects(db.compact({ signal: true }), 'REPLIC_USAGE', 'signal', 'AbortSignal')
    await rejects(
      db.compact(0),
      'REPLIC_USAGE',
      'compact: options must be an object, as {',
      'not number',
    )
  })
})

describe('in the background', () => {
  const busy = { maxPatchRetentionMs: 1, heartbeatMs: 1 }

  it('it prunes while it is written to', async () => {
    const db = await openReplica(busy)
    await rewrite(db, 5_000, 3)
    await until(() => db.status().logRows === 5_000)
    expect(await logCount(db)).toBe(5_000)
    expect(db.status().counters.patchesPruned).toBe(10_000)
    await db.load('note', many(5_000, 'again'))
    await until(() => db.status().logRows === 5_000)
    expect(await db.get("SELECT count(*) AS n FROM note WHERE text = 'again'")).toEqual({
      n: 5_000,
    })
  })

  it('a failure is told, and it is tried again', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ path, ...busy })
    // By another program: this package refuses such a trigger.
    await sqlite(
      path,
      "CREATE TRIGGER no BEFORE DELETE ON note_patches BEGIN SELECT RAISE(ABORT, 'not here'); END",
    )
    const errors = []
    const twice = eventOf(db, 'error', (error) => errors.push(error) === 2)
    await rewrite(db, 3, 2)
    await twice
    for (const error of errors) {
      expect(error).toMatchObject({ name: 'ReplicError', code: 'SQLITE_CONSTRAINT_TRIGGER' })
      expect(error.message).toMatch(/^retention: not here; it is tried again$/)
      expect(error.cause.code).toBe(error.code)
    }
    await rejects(db.compact(ALL), 'SQLITE_CONSTRAINT_TRIGGER', 'not here')
    expect(await logCount(db)).toBe(6)
    await sqlite(path, 'DROP TRIGGER no')
    await until(() => db.status().logRows === 3)
    expect(await logCount(db)).toBe(3)
  })

  it('it ends with the replica, in the middle of it', async () => {
    const path = join(tempDir(), 'a.db')
    const first = await openReplica({ path, ...busy, maxPatchRetentionMs: Infinity })
    await rewrite(first, 10_000, 3)
    await first.close()
    const db = await openReplica({ path, ddl: null, ...busy })
    const errors = []
    db.on('error', (error) => errors.push(error))
    await until(() => db.status().counters.patchesPruned > 0)
    await db.close()
    expect(errors).toEqual([])
    const { logRows } = db.status()
    expect(logRows).toBeGreaterThan(10_000)
    const again = await openReplica({ path, ddl: null, maxPatchRetentionMs: Infinity })
    expect(await logCount(again)).toBe(logRows)
    expect(again.status().logRows).toBe(logRows)
  })
})

describe('a peer that lacks what was removed', () => {
  it('gets the state, if it is new', async () => {
    const [a, b] = [await peer({ peerId: 11 }), await peer({ peerId: 12 })]
    await rewrite(a, 2_000, 2)
    await a.compact(ALL)
    const done = eventOf(b, 'synced')
    await link(b, a)
    await done
    const { note } = await converged(a, b)
    expect(note).toHaveLength(2_000)
    expect(await logCount(b)).toBe(2_000)
    expect(b.status()).toMatchObject({
      logRows: 2_000,
      counters: { jumps: 1, patchesStaged: 2_000 },
    })
    await a.upsert('note', { id: 1, text: 'plain frames again' })
    await converged(a, b)
    expect(b.status().counters.jumps).toBe(1)
  })

  it('gets it too if it was away, and keeps what it wrote meanwhile', async () => {
    const [a, b] = [await peer({ peerId: 11 }), await peer({ peerId: 12 })]
    const { listener, connection } = await link(b, a)
    await a.upsert('note', many(100, 'old'))
    await converged(a, b)
    await Promise.all([connection.close(), listener.close()])
    await rewrite(a, 100, 3)
    await b.upsert('note', { id: 5, size: 5 })
    await b.upsert('note', { id: 1000, text: 'of b' })
    await a.compact(ALL)
    await link(b, a)
    await converged(a, b)
    expect(await a.get('SELECT text, size FROM note WHERE id = 5')).toEqual({ text: '2', size: 5 })
    expect(await noteCount(b)).toBe(101)
    expect(b.status().counters.jumps).toBe(1)
    expect(a.status().counters.jumps).toBe(0)
  })

  it('as do two groups of peers that were apart, and both removed', async () => {
    const dbs = await Promise.all([11, 12, 13, 14].map((peerId) => peer({ peerId })))
    const [a, b, c, d] = dbs
    await link(a, b)
    await link(c, d)
    await Promise.all([rewrite(a, 200, 2), rewrite(c, 200, 3)])
    // Of two in one millisecond that of the greater peerId is the later one, and c's may be the last so far.
    const newest = async (db) => (await db.get('SELECT max(_patchedAt) AS at FROM note_patches')).at
    while ((await newest(a)) <= (await newest(c))) await a.upsert('note', { id: 3, text: 'later' })
    await a.upsert('note', [
      { id: 1, size: 1 },
      { id: 2, text: 'the latest' },
    ])
    await Promise.all([converged(a, b), converged(c, d)])
    for (const db of dbs) await db.compact(ALL)
    await link(b, c)
    await converged(...dbs)
    expect(await d.get('SELECT text FROM note WHERE id = 2')).toEqual({ text: 'the latest' })
    expect(await d.get('SELECT size FROM note WHERE id = 1')).toEqual({ size: 1 })
  })

  it('goes on with what it has after the link broke, and the status shows it', async () => {
    const small = {
      windowBytes: 1_000,
      sliceBytes: 100,
      heartbeatMs: 5,
    }
    const [a, b] = [await peer({ peerId: 11, ...small }), await peer({ peerId: 12, ...small })]
    for (let i = 0; i < 2; i++) for (const row of many(50)) await a.upsert('note', row)
    await a.compact(ALL)
    const first = pair(2) // STAGE frames pass, then it is stuck
    a.addRemotePeer(12, first[0])
    b.addRemotePeer(11, first[1])
    const figures = (db) => db.status().links[0] ?? {}
    await until(() => figures(a).jump === 'sending' && figures(b).jump === 'receiving')
    await until(() => figures(b).staged > 0 && first[0].stuck)
    expect(await noteCount(b)).toBe(0) // not visible before its end
    expect(figures(a).lag).toBe(100)
    const downs = [a, b].map((db) => eventOf(db, 'link', ({ state }) => state === 'down'))
    first[0].close()
    await Promise.all(downs)

    const second = pair()
    a.addRemotePeer(12, second[0])
    b.addRemotePeer(11, second[1])
    await converged(a, b)
    expect(b.status().counters).toMatchObject({ jumps: 1, jumpsResumed: 1, jumpsAbandoned: 0 })
    await until(() => figures(a).jump === null && figures(b).jump === null && figures(a).lag === 0)
  })
})

// Two ends of a connection. After `most` STAGE frames it passes no more of them.
function pair(most = Infinity) {
  const STAGE = 7
  const ends = [new EventEmitter(), new EventEmitter()]
  let staged = 0
  for (const [i, end] of ends.entries()) {
    end.send = (frame) => {
      if (frame[1] === STAGE && ++staged > most) ends[0].stuck = true
      else queueMicrotask(() => ends[1 - i].emit('message', frame))
    }
    end.close = () =>
      queueMicrotask(() => {
        for (const each of ends) each.emit('close')
      })
  }
  return ends
}

describe('deleted by hand', () => {
  const old = 'id < 50'
  const clean = async (db) => {
    await db.run(`DELETE FROM note WHERE ${old}`, [], UNSAFE)
    await db.run(`DELETE FROM note_patches WHERE ${old}`, [], UNSAFE)
  }

  it('on every peer, old rows are gone, and all goes on', async () => {
    const [a, b] = [await peer({ peerId: 11 }), await peer({ peerId: 12 })]
    await link(b, a)
    await a.upsert('note', many(100))
    await converged(a, b)
    for (const db of [a, b]) await clean(db)
    await Promise.all([a.upsert('note', many(10, 'a', 95)), b.upsert('note', many(10, 'b', 99))])
    await converged(a, b)
    expect(await noteCount(a)).toBe(59)
    expect(await a.verify()).toMatchObject({ equal: true })
  })

  it('a peer that lacks it gets all but what it set, and an error says so once', async () => {
    const [a, b, c] = await Promise.all([11, 12, 13].map((peerId) => peer({ peerId })))
    await a.upsert('note', many(100))
    await clean(a)
    const errors = []
    a.on('error', (error) => errors.push(error))
    await link(b, a)
    await converged(a, b)
    expect(await noteCount(b)).toBe(50)
    await a.upsert('note', { id: 1, text: 'written again' })
    await converged(a, b)
    await link(c, a)
    await converged(a, b, c)
    expect(errors).toMatchObject([{ name: 'ReplicError', code: 'REPLIC_NOT_FOUND' }])
    expect(errors[0].message).toContain('11.1 to 50')
  })
})

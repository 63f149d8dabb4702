import { describe, expect, it } from 'vitest'
import { eventOf, link, NOTES, openReplica, rejects, synced } from './helpers.js'

const outcomes = async (promises) => {
  const settled = await Promise.allSettled(promises)
  return settled.map(({ value, reason }) => value ?? reason.code)
}

describe('10,000 concurrent upserts', () => {
  it('all resolve, in order of sequence, in few commits', async () => {
    const [db, other] = [await openReplica({ peerId: 7, heartbeatMs: 20 }), await openReplica()]
    await link(db, other)
    const counted = eventOf(db, 'synced', () => db.status().counters.groupsWritten === 10_000)
    const order = []
    const writes = Array.from({ length: 10_000 }, (_, id) =>
      db.upsert('note', { id, text: `row ${id}` }).then((token) => order.push(token)),
    )
    await Promise.all(writes)
    expect(order).toEqual(Array.from({ length: 10_000 }, (_, i) => `7.${i + 1}`))
    await synced(db, other)
    expect(await db.get('SELECT count(*) AS n FROM note')).toEqual({ n: 10_000 })
    expect(await other.get('SELECT count(*) AS n FROM note')).toEqual({ n: 10_000 })
    const sequences = await db.all(
      'SELECT _sequenceId AS s, id FROM note_patches ORDER BY _sequenceId',
    )
    expect(sequences).toEqual(Array.from({ length: 10_000 }, (_, i) => ({ s: i + 1, id: i })))
    await counted
    const { commits } = db.status().counters
    expect(commits).toBeGreaterThan(0)
    expect(commits).toBeLessThan(200)
  })

  it('one that violates a constraint rejects alone', async () => {
    const db = await openReplica({ peerId: 7 })
    const bad = new Set([0, 17, 18, 999])
    const writes = Array.from({ length: 1000 }, (_, id) =>
      db.upsert('note', { id, size: bad.has(id) ? -1 : id }),
    )
    const results = await outcomes(writes)
    let sequence = 0
    for (const [id, result] of results.entries()) {
      expect(result).toBe(bad.has(id) ? 'SQLITE_CONSTRAINT_CHECK' : `7.${++sequence}`)
    }
    expect(await db.get('SELECT count(*) AS n FROM note')).toEqual({ n: 996 })
    expect(db.status().vector).toEqual({ 7: 996 })
  })

  it('calls of all kinds take effect in the order in which they were made', async () => {
    const db = await openReplica({ peerId: 7 })
    await Promise.all([
      db.exec('CREATE TABLE own (step INTEGER, n INTEGER)'),
      db.upsert('note', { id: 1, text: 'a' }),
      db.run('INSERT INTO own SELECT 1, count(*) FROM note'),
      db.batch((tx) => tx.upsert('note', { id: 2, text: 'b' })),
      db.run('INSERT INTO own SELECT 2, count(*) FROM note'),
      db.migrate([{ up: NOTES }, { up: 'INSERT INTO own SELECT 3, count(*) FROM note' }]),
      db.delete('note', { id: 1 }),
      db.run('INSERT INTO own SELECT 4, count(*) FROM note WHERE deletedAt IS NULL'),
    ])
    const own = await db.all('SELECT * FROM own WHERE step <> 3 ORDER BY step')
    expect(own).toEqual([
      { step: 1, n: 1 },
      { step: 2, n: 2 },
      { step: 4, n: 1 },
    ])
  })

  it('a commit that fails rejects what was in it', async () => {
    const db = await openReplica({ peerId: 7 })
    await db.exec(`
      CREATE TABLE parent (id INTEGER PRIMARY KEY);
      CREATE TABLE child (id INTEGER PRIMARY KEY,
        parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED)`)
    const results = await outcomes([
      db.upsert('note', { id: 1 }),
      db.run('INSERT INTO child VALUES (1, 99)'),
      db.upsert('note', { id: 2 }),
    ])
    const rows = await db.all('SELECT id FROM note ORDER BY id')
    expect(rows.length).toBe(results.filter((result) => result.startsWith('7.')).length)
    await db.upsert('note', { id: 3 })
    expect(db.status().vector).toEqual({ 7: rows.length + 1 })
  })
})

describe('the queue is bounded', () => {
  it('in calls: a further one is REPLIC_BUSY, and nothing else is lost', async () => {
    const db = await openReplica({ peerId: 7, maxQueueCalls: 10 })
    const writes = Array.from({ length: 1000 }, (_, id) => db.upsert('note', { id }))
    const results = await outcomes(writes)
    const stored = results.flatMap((result, id) => (result === 'REPLIC_BUSY' ? [] : [id]))
    expect(stored.length).toBeGreaterThanOrEqual(10)
    expect(stored.length).toBeLessThan(1000)
    expect(stored.map((id) => results[id])).toEqual(stored.map((_, i) => `7.${i + 1}`))
    expect(await db.all('SELECT id FROM note ORDER BY id')).toEqual(stored.map((id) => ({ id })))
    expect(await db.upsert('note', { id: 5000 })).toBe(`7.${stored.length + 1}`)
  })

  it('in bytes, naming the option', async () => {
    const db = await openReplica({ peerId: 7, maxQueueBytes: 100_000 })
    const writes = Array.from({ length: 100 }, (_, id) =>
      db.upsert('note', { id, text: 'x'.repeat(10_000) }),
    )
    const results = await outcomes(writes)
    const stored = results.filter((result) => result !== 'REPLIC_BUSY')
    expect(stored.length).toBeLessThan(50)
    expect(await db.get('SELECT count(*) AS n FROM note')).toEqual({ n: stored.length })
    const more = Array.from({ length: 9 }, (_, id) =>
      db.upsert('note', { id, text: 'x'.repeat(50_000) }),
    )
    const all = Promise.allSettled(more)
    await rejects(more.at(-1), 'REPLIC_BUSY', 'maxQueueBytes', '100000')
    await all
  })

  it('load() waits for room', async () => {
    const db = await openReplica({ peerId: 7, maxQueueCalls: 2 })
    const rows = Array.from({ length: 5000 }, (_, id) => ({ id }))
    const loads = Array.from({ length: 5 }, () => db.load('note', rows))
    await Promise.all(loads)
    expect(db.status().vector).toEqual({ 7: 25_000 })
  })

  it('frames of a peer that sends faster than we apply are held back, not lost', async () => {
    const [a, b] = [await openReplica(), await openReplica({ maxQueueBytes: 50_000 })]
    const text = 'x'.repeat(1000)
    await a.load(
      'note',
      Array.from({ length: 5000 }, (_, id) => ({ id, text })),
    )
    await link(a, b)
    await synced(a, b)
    expect(await b.get('SELECT count(*) AS n FROM note')).toEqual({ n: 5000 })
  })
})

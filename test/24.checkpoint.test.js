import { closeSync, openSync, readSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { linkHeld, openReplica, synced, tempDir } from './helpers.js'
import { withPoolOccupied } from './pool.js'

const MIB = 1 << 20
const TEXT = 'x'.repeat(2000)

/** How often the WAL has begun anew: a number in its header, https://sqlite.org/fileformat2.html#walformat */
function timesBegun(path) {
  const header = Buffer.alloc(32)
  const file = openSync(`${path}-wal`)
  readSync(file, header, 0, 32, 0)
  closeSync(file)
  return header.readUInt32BE(12)
}

/** A database without tables, with pages of that size: https://sqlite.org/fileformat2.html#the_database_header */
function createFile(path, pageSize) {
  const page = Buffer.alloc(pageSize)
  page.write('SQLite format 3\0')
  page.writeUInt16BE(pageSize === 65_536 ? 1 : pageSize, 16)
  page.set([1, 1, 0, 64, 32, 32], 18)
  for (const [at, value] of Object.entries({ 24: 1, 28: 1, 44: 4, 56: 1, 92: 1 }))
    page.writeUInt32BE(value, Number(at))
  page[100] = 13 // a leaf, whose content begins where the page ends
  page.writeUInt16BE(pageSize === 65_536 ? 0 : pageSize, 105)
  writeFileSync(path, page)
}

const rows = (first, count) =>
  Array.from({ length: count }, (_, i) => ({ id: first + i, text: TEXT }))

describe.each(['normal', 'full'])('checkpoints, durability %s', (durability) => {
  it.each([512, 4096, 65_536])(
    'the WAL keeps its bound while calls never pause, with pages of %i bytes',
    async (size) => {
      const path = join(tempDir(), 'a.db')
      createFile(path, size)
      const db = await openReplica({ path, durability })
      expect(await db.get('PRAGMA page_size')).toEqual({ page_size: size })
      for (let call = 0; call < 200; call += 2) {
        // the next one waits already when one ends
        await Promise.all([0, 1].map((i) => db.upsert('note', rows((call + i) * 100, 100))))
      }
      // 20,000 rows of 2,000 bytes, twice: 80 MB went through it; the bound is 32 MiB and two batches
      expect(statSync(`${path}-wal`).size).toBeLessThan(40 * MIB)
      expect(timesBegun(path)).toBeGreaterThan(1)
      expect(await db.get('SELECT count(*) AS n, count(DISTINCT id) AS k FROM note')).toEqual({
        n: 20_000,
        k: 20_000,
      })
      expect(await db.get('PRAGMA integrity_check')).toEqual({ integrity_check: 'ok' })
      await db.close()
      const again = await openReplica({ path, ddl: '', durability })
      expect(await again.get('SELECT count(*) AS n FROM note_patches')).toEqual({ n: 20_000 })
    },
  )

  it('a snapshot keeps what it sees, and the WAL begins anew once it has ended', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ path, durability })
    await db.upsert('note', rows(0, 100))
    // 10,000 rows of 2,000 bytes: more than is read ahead
    const seen = db.iterate('SELECT a.text FROM note AS a, note AS b')
    expect((await seen.next()).value).toEqual({ text: TEXT })
    const begun = timesBegun(path)
    for (let call = 1; call < 150; call++) await db.upsert('note', rows(call * 100, 100))
    // what is moved cannot be overwritten: the WAL has all that was written since
    expect(timesBegun(path)).toBe(begun)
    expect(statSync(`${path}-wal`).size).toBeGreaterThan(50 * MIB)
    let count = 1
    for await (const _ of seen) count++
    expect(count).toBe(10_000)
    for (let call = 150; timesBegun(path) === begun; call++) {
      await db.upsert('note', rows(call * 100, 100))
    }
    expect(statSync(`${path}-wal`).size).toBe(32 * MIB)
    expect(await db.get('PRAGMA integrity_check')).toEqual({ integrity_check: 'ok' })
  })
})

describe.skipIf(process.versions.bun)('while a checkpoint takes its time, at the bound', () => {
  it('calls go on, and what has come in waits', async () => {
    const options = { durability: 'normal', heartbeatMs: 60_000 }
    const db = await openReplica({ ...options, peerId: 7 })
    const other = await openReplica({ ...options, peerId: 8 })
    const link = await linkHeld(db, other)
    await Promise.all([db.upsert('note', { id: 1 }), other.upsert('note', { id: 2 })])
    await synced(db, other)
    for (let i = 0; i < 10; i++) await Promise.all([db.explain('note'), other.explain('note')])
    link.hold() // the other one would need a thread as well
    const written = db.upsert('note', { id: 3, text: 'x'.repeat(16.5 * MIB) }) // in the WAL twice
    await withPoolOccupied(async () => {
      await written
      const done = db.upsert('note', { id: 4 })
      const late = (async () => {
        for (let i = 0; i < 100; i++) await turn()
        return 'late'
      })()
      expect(await Promise.race([done, late])).toBe('7.3')
      await other.upsert('note', { id: 5 })
      for (let i = 0; i < 20; i++) await turn()
      expect(db.getSync('SELECT max(id) AS id FROM note')).toEqual({ id: 4 })
    })
    await db.waitFor('8.2')
    link.release()
  })
})

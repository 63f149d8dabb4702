// Checkpoints beside the writing: the WAL keeps its bound while calls never pause, snapshots keep
// what they see, and nothing is lost.

import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openReplica, tempDir } from './helpers.js'

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

const rows = (first, count) =>
  Array.from({ length: count }, (_, i) => ({ id: first + i, text: TEXT }))

describe.each(['normal', 'full'])('checkpoints, durability %s', (durability) => {
  it('the WAL keeps its bound while calls never pause', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ path, durability })
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
  })

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
    let count = 1
    for await (const _ of seen) count++
    expect(count).toBe(10_000)
    for (let call = 150; timesBegun(path) === begun; call++) {
      await db.upsert('note', rows(call * 100, 100))
    }
    expect(await db.get('PRAGMA integrity_check')).toEqual({ integrity_check: 'ok' })
  })
})

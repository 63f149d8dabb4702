// backup(): one state of the file while writing goes on, whole or not at all, and a new peer.

import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { converged, link, openReplica, rejects, tempDir } from './helpers.js'

const many = (n, text = 'x'.repeat(500)) => Array.from({ length: n }, (_, id) => ({ id, text }))

/** A replica of several slices' size, its path, and where its backup goes, in a folder of its own. */
async function fixture({ rows = 12_000, ...options } = {}) {
  const path = join(tempDir(), 'a.db')
  const db = await openReplica({ path, ...options })
  await db.load('note', many(rows))
  return { db, path, copy: join(tempDir(), 'copy.db') }
}

const folder = (path) => readdirSync(dirname(path)).sort()
const open = (path, options) => openReplica({ path, ddl: null, ...options })
const count = async (db) => (await db.get('SELECT count(*) AS n FROM note')).n

describe('the copy', () => {
  it('is one state, whatever is written meanwhile', async () => {
    const { db, copy } = await fixture()
    const balance = (a) => [
      { id: 1, size: a },
      { id: 2, size: 1000 - a },
    ]
    await db.upsert('note', balance(0))
    let done = false
    let written = 0
    const writer = (async () => {
      while (!done) await db.upsert('note', balance(written++ % 1000))
    })()
    const seen = []
    const result = await db.backup(copy, {
      progress: (pages) => seen.push({ ...pages, written }),
    })
    done = true
    await writer

    expect(seen.length).toBeGreaterThan(1)
    expect(seen.at(-1).written).toBeGreaterThan(seen[0].written) // it was written to between slices
    expect(new Set(seen.map(({ totalPages }) => totalPages))).toEqual(new Set([result.totalPages]))
    for (const [i, { remainingPages }] of seen.entries()) {
      expect(remainingPages).toBe(Math.max(0, result.totalPages - 1024 * (i + 1)))
    }
    expect(result.remainingPages).toBe(0)
    expect(folder(copy)).toEqual(['copy.db'])
    expect(statSync(copy).size).toBe(result.totalPages * 4096)
    const b = await open(copy)
    expect(await b.get('SELECT sum(size) AS sum, count(*) AS rows FROM note')).toEqual({
      sum: 1000,
      rows: 12_000,
    })
    expect(await b.all('PRAGMA integrity_check')).toEqual([{ integrity_check: 'ok' }])
    const { sequence } = await b.get('SELECT sequence FROM _replic_vector')
    const log = await b.get('SELECT max(_sequenceId) AS last, count(*) AS rows FROM note_patches')
    expect(log).toEqual({ last: sequence, rows: sequence })
  })

  it('opens as a new peer, and links to the first', async () => {
    const { db, copy } = await fixture({ rows: 10, peerId: 11 })
    await db.backup(copy)
    const error = await rejects(open(copy, { peerId: 11 }), 'REPLIC_RESTORED')
    expect(error.message).toContain('without peerId')
    const b = await open(copy)
    expect(b.status().peerId).not.toBe(11)
    await link(b, db)
    await Promise.all([
      db.upsert('note', { id: 1, text: 'a' }),
      b.upsert('note', { id: 2, size: 2 }),
    ])
    await converged(db, b)
  })

  it('seeds a new node, which then fetches only what is newer', async () => {
    const { db, copy } = await fixture({ rows: 2_000 })
    await db.backup(copy)
    const added = 37
    for (let id = 0; id < added; id++) await db.upsert('note', { id, size: id })

    const b = await open(copy)
    await link(b, db)
    await converged(db, b)
    expect(b.status().counters).toMatchObject({ patchesApplied: added, patchesDuplicate: 0 })
  })

  it('has the file mode of the database', async () => {
    const { db, path, copy } = await fixture({ rows: 1 })
    chmodSync(path, 0o600)
    await db.backup(copy)
    expect((statSync(copy).mode & 0o777).toString(8)).toBe(
      (statSync(path).mode & 0o777).toString(8),
    )
  })

  it('has it when the command line makes it, too', async () => {
    const { db, path, copy } = await fixture({ rows: 1 })
    await db.close()
    chmodSync(path, 0o600)
    const main = new URL('../lib/cli/main.js', import.meta.url).pathname
    execFileSync(process.execPath, [main, 'backup', path, copy])
    expect((statSync(copy).mode & 0o777).toString(8)).toBe('600')
  })

  it('can be made several at a time, of an empty database too', async () => {
    const { db } = await fixture({ rows: 0 })
    const dir = tempDir()
    const copies = Array.from({ length: 10 }, (_, i) => join(dir, `${i}.db`))
    await Promise.all(copies.map((copy) => db.backup(copy)))
    expect(readdirSync(dir).sort()).toEqual(copies.map((copy) => basename(copy)))
    for (const copy of copies) expect(await count(await open(copy))).toBe(0)
  })
})

describe('an earlier backup', () => {
  it('that was open as a peer is replaced by one that is a peer of its own', async () => {
    const { db, copy } = await fixture({ rows: 10 })
    await db.backup(copy)
    const first = await open(copy)
    await first.upsert('note', { id: 100 })
    await rejects(db.backup(copy), 'REPLIC_LOCKED', copy)
    await first.close()
    expect(folder(copy)).toEqual(['copy.db', 'copy.db-replic'])

    await db.upsert('note', { id: 10 })
    await db.backup(copy)
    expect(folder(copy)).toEqual(['copy.db'])
    const second = await open(copy)
    expect(await count(second)).toBe(11)
    const ids = [db, first, second].map((each) => each.status().peerId)
    expect(new Set(ids).size).toBe(3)
  })

  it('stays where a symbolic link leads to it', async () => {
    const { db, copy } = await fixture({ rows: 10 })
    await db.backup(copy)
    const named = join(tempDir(), 'latest.db')
    symlinkSync(copy, named)
    await db.upsert('note', { id: 10 })
    await db.backup(named)
    expect(await count(await open(copy))).toBe(11)
    expect(folder(named)).toEqual(['latest.db'])
  })

  it('is as it was if the new one is stopped, and nothing is left', async () => {
    const { db, copy } = await fixture()
    await db.run('CREATE TABLE own (a)')
    await db.backup(copy)
    const before = readFileSync(copy)
    await db.upsert('note', { id: 50_000 })

    const controller = new AbortController()
    const reason = new Error('enough')
    const stopping = db.backup(copy, {
      progress: () => controller.abort(reason),
      signal: controller.signal,
    })
    await expect(stopping).rejects.toBe(reason)
    await expect(db.backup(copy, { signal: controller.signal })).rejects.toBe(reason)
    const cause = new Error('no room on the screen')
    const thrown = await rejects(
      db.backup(copy, {
        progress: ({ remainingPages }) => {
          if (remainingPages === 0) throw cause
        },
      }),
      'REPLIC_USAGE',
      'no room on the screen',
    )
    expect(thrown.cause).toBe(cause)
    expect(folder(copy)).toEqual(['copy.db'])
    expect(readFileSync(copy).equals(before)).toBe(true)
  })

  it('is as it was if the replica is closed in the middle', async () => {
    const { db, copy } = await fixture()
    await db.backup(copy)
    const before = readFileSync(copy)
    await db.upsert('note', { id: 50_000 })
    let closing
    const backup = db.backup(copy, {
      progress: () => {
        closing ??= db.close()
      },
    })
    await rejects(backup, 'REPLIC_CLOSED')
    await closing
    expect(folder(copy)).toEqual(['copy.db'])
    expect(readFileSync(copy).equals(before)).toBe(true)
  })
})

describe('what is refused', () => {
  it('the database itself, by any name', async () => {
    const { db, path } = await fixture({ rows: 1 })
    const [soft, hard] = ['soft.db', 'hard.db'].map((name) => join(tempDir(), name))
    symlinkSync(path, soft)
    linkSync(path, hard)
    for (const name of [path, `${path}-wal`, `${path}-replic`, soft, hard]) {
      await rejects(db.backup(name), 'REPLIC_USAGE', 'another path')
    }
    await db.upsert('note', { id: 2 })
    expect(await count(db)).toBe(2)
  })

  it('a folder, and a folder that does not exist', async () => {
    const { db, copy } = await fixture({ rows: 1 })
    await rejects(db.backup(dirname(copy)), 'REPLIC_USAGE', dirname(copy))
    const missing = join(dirname(copy), 'missing', 'copy.db')
    await rejects(db.backup(missing), 'SQLITE_CANTOPEN', missing, 'folder')
    expect(folder(copy)).toEqual([])
  })

  it('a file that is no database', async () => {
    const { db, copy } = await fixture({ rows: 1 })
    writeFileSync(copy, 'This is the only copy of a letter.')
    await rejects(db.backup(copy), 'SQLITE_NOTADB', copy)
    expect(readFileSync(copy, 'utf8')).toBe('This is the only copy of a letter.')
    expect(folder(copy)).toEqual(['copy.db'])
    writeFileSync(copy, '')
    await db.backup(copy)
    expect(await count(await open(copy))).toBe(1)
  })

  it('a path where another backup is being written', async () => {
    const { db, copy } = await fixture()
    let second
    await db.backup(copy, {
      progress: () => {
        second ??= db.backup(copy).catch((error) => error)
      },
    })
    expect(await second).toMatchObject({ code: 'REPLIC_LOCKED' })
    expect(await count(await open(copy))).toBe(12_000)
  })

  it('wrong arguments', async () => {
    const { db, copy } = await fixture({ rows: 1 })
    for (const path of [undefined, '', 5, ':memory:', 'a\0b']) {
      await rejects(db.backup(path), 'REPLIC_USAGE', 'path')
    }
    await rejects(db.backup(copy, { progres: () => {} }), 'REPLIC_USAGE', "mean 'progress'")
    await rejects(db.backup(copy, { progress: 1 }), 'REPLIC_USAGE', 'progress')
    await rejects(db.backup(copy, { signal: {} }), 'REPLIC_USAGE', 'signal')
    expect(existsSync(copy)).toBe(false)
  })
})

describe('a full disk', () => {
  // A small file system of its own. Only root may mount one.
  const mounts = process.platform === 'linux' && process.getuid() === 0
  if (!mounts) console.warn('NOT TESTED: backup() to a full disk needs root, for mounting a tmpfs')

  it.skipIf(!mounts)('is named, and nothing is left', async () => {
    const { db } = await fixture({ rows: 4_000 })
    const dir = join(tempDir(), 'small')
    mkdirSync(dir)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', dir])
    onTestFinished(() => execFileSync('umount', [dir]))
    const copy = join(dir, 'copy.db')
    await rejects(db.backup(copy), 'SQLITE_FULL', copy, 'full')
    expect(readdirSync(dir)).toEqual([])
    await db.upsert('note', { id: 1 })
  })
})

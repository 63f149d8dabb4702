// Identity: a peerId belongs to one history. Files that are copied, moved or restored go on as new
// peers and lose nothing; what slips through is found when peers meet, and can be healed.

import { copyFileSync, existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { connect, listen } from '../lib/transport/tcp.js'
import { converged, eventOf, FAST, link, openReplica, rejects, synced, tempDir } from './helpers.js'

const PARTS = ['', '-wal', '-replic']
const WITHOUT_WITNESS = ['', '-wal']

/** The files of a closed replica, in a second place. */
function copyFiles(from, to, parts) {
  for (const part of parts) if (existsSync(from + part)) copyFileSync(from + part, to + part)
}

const reopen = (path, options) => openReplica({ path, ddl: null, ...options })
const idOf = (db) => db.status().peerId
const ids = async (db) => (await db.all('SELECT id FROM note ORDER BY id')).map(({ id }) => id)
const isDown = (code) => (event) => event.state === 'down' && event.code === code

/** A peer with notes 1 and 2 that are also at another peer; closed. */
async function fixture(options) {
  const path = join(tempDir(), 'a.db')
  const a = await openReplica({ path, ...options })
  const b = await openReplica({ peerId: 77 })
  await a.upsert('note', [{ id: 1 }, { id: 2 }])
  const { connection, listener } = await link(a, b)
  await synced(a, b)
  await connection.close()
  await listener.close()
  return { a, b, path, id: idOf(a) }
}

describe('a file that is opened elsewhere', () => {
  it('copied without its -replic: both go on, the copy as a new peer', async () => {
    const { a, b, path, id } = await fixture()
    await a.close()
    const place = join(tempDir(), 'copy.db')
    copyFiles(path, place, WITHOUT_WITNESS)
    const [again, copy] = [await reopen(path), await reopen(place)]
    expect(idOf(again)).toBe(id)
    expect(idOf(copy)).not.toBe(id)
    expect(await ids(copy)).toEqual([1, 2])
    await again.upsert('note', { id: 3 })
    await copy.upsert('note', { id: 4 })
    await link(again, b)
    await link(copy, b)
    await link(again, copy)
    expect((await converged(again, copy, b)).note).toHaveLength(4)
  })

  it('moved without its -replic: goes on as a new peer', async () => {
    const { a, b, path, id } = await fixture()
    await a.close()
    const place = join(tempDir(), 'moved.db')
    renameSync(path, place)
    const moved = await reopen(place)
    expect(idOf(moved)).not.toBe(id)
    await moved.upsert('note', { id: 3 })
    await link(moved, b)
    expect((await converged(moved, b)).note).toHaveLength(3)
  })

  it('moved with its -replic: the same peer', async () => {
    const { a, path, id } = await fixture()
    await a.close()
    const place = join(tempDir(), 'moved.db')
    for (const part of ['', '-replic']) renameSync(path + part, place + part)
    expect(idOf(await reopen(place))).toBe(id)
  })
})

describe('a backup that is put back', () => {
  async function restored(options) {
    const { a, b, path, id } = await fixture(options)
    const backup = join(tempDir(), 'backup.db')
    await a.backup(backup)
    await a.upsert('note', { id: 3, text: 'after the backup' })
    await link(a, b)
    await synced(a, b)
    await a.close()
    for (const part of WITHOUT_WITNESS) rmSync(path + part, { force: true })
    copyFileSync(backup, path)
    return { b, path, id }
  }

  it('goes on as a new peer, and what was lost comes back', async () => {
    const { b, path, id } = await restored()
    const again = await reopen(path)
    expect(idOf(again)).not.toBe(id)
    expect(await ids(again)).toEqual([1, 2])
    await again.upsert('note', { id: 4 })
    await link(again, b)
    expect((await converged(again, b)).note).toHaveLength(4)
  })

  it('under a fixed peerId: REPLIC_RESTORED, until it is left out or another one', async () => {
    const { b, path, id } = await restored({ peerId: 11 })
    expect(id).toBe(11)
    const error = await rejects(reopen(path, { peerId: 11 }), 'REPLIC_RESTORED')
    expect(error.message).toMatch(/without peerId or with a new one/)
    const again = await reopen(path, { peerId: 12 })
    await again.upsert('note', { id: 4 })
    await link(again, b)
    expect((await converged(again, b)).note).toHaveLength(4)
    await again.close()
    expect(idOf(await reopen(path))).toBe(12)
  })

  it('together with its -replic: the peers find out, and a new peerId brings the rest back', async () => {
    const { a, b, path } = await fixture({ peerId: 11 })
    await a.close()
    const place = join(tempDir(), 'backup.db')
    copyFiles(path, place, PARTS)
    const later = await reopen(path)
    await later.upsert('note', { id: 3 })
    await link(later, b)
    await synced(later, b)
    await later.close()
    for (const part of PARTS) rmSync(path + part, { force: true })
    copyFiles(place, path, PARTS)

    const old = await reopen(path)
    expect(idOf(old)).toBe(11)
    const listener = await listen(b)
    const refused = [old, b].map((db) => eventOf(db, 'link', isDown('REPLIC_FORK')))
    connect(old, { port: listener.address().port, ...FAST })
    for (const { reason } of await Promise.all(refused)) expect(reason).toMatch(/peer 11/)
    await old.close()
    const again = await reopen(path, { peerId: 12 })
    expect(again.status().counters.forksHealed).toBe(0) // nothing of its own was beyond
    connect(again, { port: listener.address().port, ...FAST })
    expect((await converged(again, b)).note).toHaveLength(3)
  })
})

describe('a file that goes on in two places', () => {
  /** Both were written to, and the first one has told a third peer. */
  async function forked() {
    const { a, b, path } = await fixture({ peerId: 11 })
    await a.close()
    const place = join(tempDir(), 'copy.db')
    copyFiles(path, place, PARTS)
    const [one, two] = [await reopen(path), await reopen(place)]
    expect([idOf(one), idOf(two)]).toEqual([11, 11])
    await one.upsert('note', { id: 3, text: 'at the first' })
    await two.upsert('note', { id: 4, text: 'at the second' })
    await two.upsert('note', { id: 1, text: 'changed at the second' })
    await link(one, b)
    await synced(one, b)
    return { one, two, b, place }
  }

  it('is refused on both sides, and nothing is lost when one is opened with a new peerId', async () => {
    const { one, two, b, place } = await forked()
    const listener = await listen(b)
    const refused = [two, b].map((db) => eventOf(db, 'link', isDown('REPLIC_FORK')))
    const dialing = connect(two, { port: listener.address().port, ...FAST })
    for (const { reason } of await Promise.all(refused)) {
      expect(reason).toMatch(/histories of peer 11/)
      expect(reason).toMatch(/new peerId/)
    }
    await dialing.close()
    expect(await ids(b)).toEqual([1, 2, 3])
    await two.close()

    const healed = await reopen(place, { peerId: 12 })
    expect(healed.status().counters.forksHealed).toBe(2)
    connect(healed, { port: listener.address().port, ...FAST })
    const { note } = await converged(one, b, healed)
    expect(note).toHaveLength(4)
    expect(await b.get('SELECT text FROM note WHERE id = 1')).toEqual({
      text: 'changed at the second',
    })
    await one.upsert('note', { id: 5 })
    await healed.upsert('note', { id: 6 })
    expect((await converged(one, b, healed)).note).toHaveLength(6)
  })

  it('is found where the two meet: REPLIC_PEER, and the same way out', async () => {
    const { one, two, b, place } = await forked()
    const listener = await listen(one)
    const refused = [one, two].map((db) => eventOf(db, 'link', isDown('REPLIC_PEER')))
    const dialing = connect(two, { port: listener.address().port, ...FAST })
    for (const { reason } of await Promise.all(refused)) expect(reason).toMatch(/own peerId 11/)
    await dialing.close()
    await two.close()
    const healed = await reopen(place, { peerId: 12 })
    connect(healed, { port: listener.address().port, ...FAST })
    expect((await converged(one, b, healed)).note).toHaveLength(4)
  })

  it('is found by a third peer while the histories are still equal: REPLIC_PEER for both', async () => {
    const { a, b, path } = await fixture({ peerId: 11, heartbeatMs: 20 })
    await a.close()
    const place = join(tempDir(), 'copy.db')
    copyFiles(path, place, PARTS)
    const [one, two] = [
      await reopen(path, { heartbeatMs: 20 }),
      await reopen(place, { heartbeatMs: 20 }),
    ]
    const listener = await listen(b)
    const refused = [one, two].map((db) => eventOf(db, 'link', isDown('REPLIC_PEER')))
    for (const db of [one, two]) connect(db, { port: listener.address().port, ...FAST })
    for (const { reason } of await Promise.all(refused)) expect(reason).toMatch(/peerId 11/)
  })

  it('but a peer that was restarted is not refused', async () => {
    const { a, b, path } = await fixture({ peerId: 11, heartbeatMs: 20 })
    const listener = await listen(b)
    const seen = []
    b.on('link', ({ code }) => seen.push(code))
    connect(a, { port: listener.address().port, ...FAST })
    await eventOf(b, 'link', ({ state }) => state === 'up')
    await a.close()
    const again = await reopen(path, { heartbeatMs: 20 })
    const dialing = connect(again, { port: listener.address().port, ...FAST })
    await again.upsert('note', { id: 3 })
    expect((await converged(again, b)).note).toHaveLength(3)
    expect(seen).not.toContain('REPLIC_PEER')
    await dialing.close()
  })
})

describe('forget', () => {
  it('forgets the forks that are noted of a peer, and nothing of others', async () => {
    const { a, path } = await fixture({ peerId: 11, heartbeatMs: 20 })
    await a.close()
    const place = join(tempDir(), 'copy.db')
    copyFiles(path, place, PARTS)
    const [one, two] = [
      await reopen(path, { heartbeatMs: 20 }),
      await reopen(place, { heartbeatMs: 20 }),
    ]
    await one.upsert('note', { id: 3 })
    await two.upsert('note', { id: 4 })
    const refused = eventOf(one, 'link', isDown('REPLIC_PEER'))
    connect(one, { port: (await listen(two)).address().port, ...FAST })
    await refused
    for (const [peerId, forks] of [
      [12, 0],
      [11, 1],
    ])
      expect(await one.forget({ forks: true, peerId })).toEqual({
        forks,
        pending: 0,
        staged: 0,
        lost: 0,
      })
  })

  it('wants to know what', async () => {
    const { a } = await fixture()
    for (const options of [undefined, {}, { peerId: 3 }, { forks: 1 }, { links: true }])
      await rejects(a.forget(options), 'REPLIC_USAGE')
    expect(await a.forget({ pending: true, staged: true })).toEqual({
      forks: 0,
      pending: 0,
      staged: 0,
      lost: 0,
    })
  })
})

// SIGKILL in the middle of writes: nothing acknowledged is missing, no sequence is issued twice.

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { describe, expect, it } from 'vitest'
import { listen } from '../lib/transport/tcp.js'
import { childPath, converged, NOTES, openReplica, startProcess, tempDir } from './helpers.js'

const WRITER = 5

// NOTES with keys that need not be integers.
const DDL = NOTES.replaceAll('id INTEGER NOT NULL', 'id REAL NOT NULL')

// Runs a writer until it has acknowledged `acks` writes, kills it, and returns all it acknowledged.
async function writeAndKill(path, port, first, acks) {
  const writer = startProcess(execPath, [
    childPath('writer.js'),
    path,
    `${WRITER}`,
    `${port}`,
    `${first}`,
  ])
  for (let seen = 0; seen < acks; seen++) expect(await writer.line()).not.toBe(null)
  writer.kill()
  const { signal, stdout, stderr } = await writer.ended
  expect({ signal, stderr }).toEqual({ signal: 'SIGKILL', stderr: '' })
  const complete = stdout.slice(0, stdout.lastIndexOf('\n'))
  return complete.split('\n').map((line) => {
    const [, sequence, id] = /^5\.(\d+) (\d+)$/.exec(line)
    return { sequence: Number(sequence), id: Number(id) }
  })
}

describe('kill -9 in the middle of writes', () => {
  it('again and again, with a peer linked', async () => {
    const path = join(tempDir(), 'writer.db')
    const first = await openReplica({ path, ddl: DDL, peerId: WRITER })
    await first.close()
    const peer = await openReplica({ ddl: DDL, peerId: 6 })
    const listener = await listen(peer)
    const acknowledged = []
    let next = 0
    for (const acks of [1, 3, 10, 40, 100, 300, 2, 500]) {
      const written = await writeAndKill(path, listener.address().port, next, acks)
      acknowledged.push(...written)
      next += 100_000
      await peer.upsert('note', { id: -acks, text: 'by the peer' })
    }
    expect(new Set(acknowledged.map(({ sequence }) => sequence)).size).toBe(acknowledged.length)

    const db = await openReplica({ path, ddl: '', peerId: WRITER })
    const log = await db.all(
      'SELECT _sequenceId AS sequence, id FROM note_patches WHERE _peerId = ? ORDER BY 1',
      [WRITER],
    )
    const inLog = new Map(log.map(({ sequence, id }) => [sequence, Math.floor(id)]))
    for (const { sequence, id } of acknowledged) expect(inLog.get(sequence)).toBe(id)
    expect(log.map(({ sequence }) => sequence)).toEqual(log.map((_, i) => i + 1))
    expect(db.status().vector[WRITER]).toBe(log.length)
    const partial = await db.all(
      `SELECT text FROM note WHERE id >= 0 GROUP BY text
       HAVING count(*) <> iif(CAST(substr(text, 4) AS INTEGER) % 2, 1, 3)`,
    )
    expect(partial).toEqual([])

    const { connect } = await import('../lib/transport/tcp.js')
    connect(db, { port: listener.address().port, peerId: 6 })
    const { note } = await converged(db, peer)
    expect(note).toHaveLength(log.length + 8)
    await db.upsert('note', { id: 1e9, text: 'goes on' })
    await converged(db, peer)
    expect(db.status().vector[WRITER]).toBe(log.length + 1)
  })

  it('of one that was given no peerId: it stays the same peer', async () => {
    const path = join(tempDir(), 'writer.db')
    const before = await openReplica({ path, ddl: DDL })
    const { peerId } = before.status()
    await before.upsert('note', { id: 1 })
    await before.close()
    const source = `import { Replica } from ${JSON.stringify(new URL('../lib/index.js', import.meta.url).href)}
      const db = await Replica.open(process.argv[1])
      await db.upsert('note', { id: 2 })
      console.log(db.status().peerId)
      for (let id = 3; ; id++) await db.upsert('note', { id })`
    const child = startProcess(execPath, ['--input-type=module', '-e', source, path])
    expect(await child.line()).toBe(`${peerId}`)
    child.kill()
    await child.ended
    const after = await openReplica({ path, ddl: '' })
    expect(after.status().peerId).toBe(peerId)
    const count = after.status().vector[peerId]
    expect(count).toBeGreaterThanOrEqual(2)
    expect(await after.upsert('note', { id: 0 })).toBe(`${peerId}.${count + 1}`)
  })

  it('with the lock file gone it goes on as a new peer, and nothing is lost', async () => {
    const path = join(tempDir(), 'writer.db')
    const before = await openReplica({ path, ddl: DDL })
    const { peerId } = before.status()
    await before.upsert('note', { id: 1 })
    await before.close()
    rmSync(`${path}-replic`)
    const after = await openReplica({ path, ddl: '' })
    expect(after.status().peerId).not.toBe(peerId)
    expect(after.status().vector).toEqual({ [peerId]: 1 })
    expect(await after.upsert('note', { id: 2 })).toBe(`${after.status().peerId}.1`)
  })
})

// What the examples of transports have in common: replicas of a table of notes.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Replica } from 'replic-sqlite'

const SCHEMA = [
  {
    up: `
      CREATE TABLE note (id TEXT NOT NULL PRIMARY KEY, text TEXT, deletedAt INTEGER) STRICT;
      CREATE TABLE note_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        _nulls TEXT, id TEXT NOT NULL, text TEXT, deletedAt INTEGER) STRICT;`,
    down: 'DROP TABLE note_patches; DROP TABLE note;',
  },
]

/** Opens a replica in a folder of its own. */
export async function openNotes(options) {
  const folder = mkdtempSync(join(tmpdir(), 'replic-example-'))
  const db = await Replica.open(join(folder, 'notes.db'), options)
  await db.migrate(SCHEMA)
  return { db, close: () => db.close().then(() => rmSync(folder, { recursive: true })) }
}

/** Each writes a note; prints what the last one has when it has all of them, and closes all. */
export async function shareNotes(peers) {
  const tokens = []
  for (const [i, { db }] of peers.entries()) {
    tokens.push(await db.upsert('note', { id: `${i + 1}`, text: `by peer ${i + 1}` }))
  }
  const { db } = peers.at(-1)
  await Promise.all(tokens.map((token) => db.waitFor(token, 30_000)))
  console.log(await db.all('SELECT id, text FROM note ORDER BY id'))
  await Promise.all(peers.map((peer) => peer.close()))
}

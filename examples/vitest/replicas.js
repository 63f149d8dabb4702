// What the tests share: replicas in a folder that goes away with the test.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { patchesTable, Replica } from 'replic-sqlite'
import { onTestFinished } from 'vitest'

const NOTE =
  'CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT, deletedAt INTEGER) STRICT'

/** A replica with a table of notes, closed after the test. */
export async function openNotes() {
  const folder = mkdtempSync(join(tmpdir(), 'replic-vitest-'))
  const db = await Replica.open(join(folder, 'notes.db'))
  onTestFinished(async () => {
    await db.close()
    rmSync(folder, { recursive: true })
  })
  await db.migrate([{ up: `${NOTE}; ${patchesTable(NOTE)}` }])
  return db
}

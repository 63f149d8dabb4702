// SIGKILL at every point of a migration, up and down: at the next start the file is at the version
// before the step or at the one after it, whole, and goes on.

import { join } from 'node:path'
import { execPath } from 'node:process'
import { expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import { makeSteps } from './child/migrator-steps.js'
import { childPath, openReplica, rejects, startProcess, tempDir } from './helpers.js'

const STEPS = makeSteps(async () => {})
const LAST = STEPS.length

const state = async (db) => ({
  schema: await db.all(
    "SELECT type, name, sql FROM sqlite_schema WHERE name <> 'sqlite_sequence' ORDER BY name",
  ),
  migrations: await db.all('SELECT version, name, up, down, hash FROM _replic_migrations'),
  tables: db.status().tables,
  own: await db
    .get('SELECT count(*) AS n, sum(length(a)) AS bytes, min(id) AS first FROM own')
    .catch((error) => error.code),
})

// What a file is like at each version: on the way up, and on the way down.
async function references() {
  const db = await openReplica({ ddl: '', peerId: 5 })
  const known = [[], [], [], []]
  const versions = [0, 1, 2, 3, 2, 1, 0]
  for (const to of versions) {
    await db.migrate(STEPS, { to })
    known[to].push(await state(db))
  }
  return known
}

// Lets the child go on to its n-th point, and kills it there. Whether it had so many.
async function killAtPoint(path, n, to) {
  const child = startProcess(execPath, [childPath('migrator.js'), path, `${LAST}`, `${to}`])
  let line = await child.line()
  for (let i = 0; i < n && line !== 'done' && line !== null; i++) {
    if (!line.startsWith('!')) child.send('on')
    line = await child.line()
  }
  child.kill()
  const { stderr } = await child.ended
  expect(stderr).toBe('')
  return line !== 'done' && { point: line }
}

it('it is before the step or after it, and the next start completes it', async () => {
  const known = await references()
  const points = []
  for (let n = 0; ; n++) {
    const path = join(tempDir(), 'a.db')
    const killed = await killAtPoint(path, n, 0)
    if (!killed) break
    points.push(killed.point)
    const db = await Replica.open(path, { peerId: 5 })
    const { n: version } = await db.get('SELECT count(*) AS n FROM _replic_migrations')
    expect(known[version], killed.point).toContainEqual(await state(db))
    const notes = version > 0 ? await db.all('SELECT * FROM note') : []
    const sequence = db.status().vector[5] ?? 0
    if (version >= 2) expect(notes).toMatchObject([{ id: 1, text: 'replicated', size: 1 }])
    if (version > 0) {
      const log = await db.all('SELECT _sequenceId AS s FROM note_patches')
      expect(log).toEqual(sequence ? [{ s: 1 }] : [])
    }
    expect(await db.migrate(STEPS)).toEqual({ from: version, to: LAST })
    expect((await state(db)).own).toEqual(known[LAST][0].own)
    await db.upsert('note', { id: 2, size: 2 })
    await db.close()
  }
  expect(points).toEqual([
    'opened',
    '2 begun',
    '2 altered',
    '2 upserted',
    '! 2 done',
    'there',
    '2 going down',
    '2 deleted',
    '! 2 undone',
    'back',
  ])
})

it('another process cannot open the file meanwhile, and so not migrate it', async () => {
  const path = join(tempDir(), 'a.db')
  const child = startProcess(execPath, [childPath('migrator.js'), path, `${LAST}`, '0'])
  let line = await child.line()
  while (line !== '2 altered') {
    child.send('on')
    line = await child.line()
  }
  await rejects(Replica.open(path), 'REPLIC_LOCKED', path)
  child.kill()
  await child.ended
  const db = await openReplica({ path, ddl: '', peerId: 5 })
  expect(await db.migrate(STEPS)).toEqual({ from: 1, to: LAST })
})

// Peers at different versions of the schema: nothing of what any of them writes is lost, and what is
// pending is told. (That clusters converge is shown by the simulator: test/core/sim_schemas.c.)

import { join } from 'node:path'
import { expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import { converged, link, openReplica, synced, tempDir, until } from './helpers.js'

const CLOCK =
  '_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls TEXT'
const both = (sql) => `${sql('task')}; ${sql('task_patches')};`

const STEPS = [
  {
    up: `CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT, size INTEGER);
      CREATE TABLE task_patches (${CLOCK}, id INTEGER, title TEXT, size INTEGER);`,
    down: both((table) => `DROP TABLE ${table}`),
  },
  {
    name: 'colour',
    up: both((table) => `ALTER TABLE ${table} ADD COLUMN colour TEXT`),
    down: both((table) => `ALTER TABLE ${table} DROP COLUMN colour`),
  },
  {
    name: 'name',
    up: both((table) => `ALTER TABLE ${table} RENAME COLUMN title TO name`),
    down: both((table) => `ALTER TABLE ${table} RENAME COLUMN name TO title`),
    rename: { 'task.title': 'task.name' },
  },
  {
    name: 'no size',
    up: both((table) => `ALTER TABLE ${table} DROP COLUMN size`),
    down: both((table) => `ALTER TABLE ${table} ADD COLUMN size INTEGER`),
  },
]

async function open(peerId, to) {
  const db = await openReplica({ peerId, ddl: '', path: join(tempDir(), `${peerId}.db`) })
  await db.migrate(STEPS, { to })
  return db
}

const pendingOf = (db) => db.status().pending

it('what is not known is kept, told, handed on, and stored by a migration', async () => {
  const [newer, older, behind] = [await open(1, 2), await open(2, 1), await open(3, 2)]
  await link(newer, older)
  await link(older, behind) // hears of it through the older one alone
  await newer.upsert('task', { id: 1, title: 'paint', colour: 'red' })
  await newer.upsert('task', { id: 1, size: 3 })
  await behind.waitFor('1.2')
  expect(await behind.all('SELECT * FROM task')).toEqual([
    { id: 1, title: 'paint', size: 3, colour: 'red' },
  ])
  await until(() => pendingOf(older).length)
  const why = 'table task has no column colour here'
  expect(pendingOf(older)).toEqual([{ table: 'task', why, patches: 1 }])
  expect(older.metrics()).toContain('replic_pending_patches 1\n')
  await until(() => older.status().links.some(({ schema }) => schema?.task === why))
  expect(await older.all('SELECT * FROM task')).toEqual([{ id: 1, title: 'paint', size: 3 }])
  await older.upsert('task', { id: 1, title: 'repaint' })

  await older.migrate(STEPS, { to: 2 })
  await until(() => pendingOf(older).length === 0)
  await converged(newer, older, behind)
  expect(await older.all('SELECT * FROM task')).toEqual([
    { id: 1, title: 'repaint', size: 3, colour: 'red' },
  ])
})

it('a version that is left, and comes back, finds its values; also after a restart', async () => {
  const db = await open(1, 2)
  await db.upsert('task', { id: 1, title: 'paint', size: 3, colour: 'red' })
  await db.upsert('task', { id: 2, title: null, size: 4, colour: null })
  const before = await db.all('SELECT * FROM task ORDER BY id')
  await db.migrate(STEPS) // name, and no size
  expect(await db.all('SELECT * FROM task ORDER BY id')).toEqual([
    { id: 1, name: 'paint', colour: 'red' },
    { id: 2, name: null, colour: null },
  ])
  await db.migrate(STEPS, { to: 0 })
  expect(pendingOf(db)).toMatchObject([{ table: 'task', patches: 2 }])
  const { path } = db.status()
  await db.close()
  const again = await Replica.open(path)
  expect(pendingOf(again)).toMatchObject([{ table: 'task', patches: 2 }])
  await again.migrate(STEPS, { to: 2 })
  expect(await again.all('SELECT * FROM task ORDER BY id')).toEqual(before)
  const nulls = await again.all('SELECT _nulls FROM task_patches WHERE _nulls IS NOT NULL')
  expect(nulls.map(({ _nulls }) => JSON.parse(_nulls).sort())).toEqual([['colour', 'title']])
  expect(pendingOf(again)).toEqual([])
  await again.close()
})

it('a renamed column is one column, in both directions', async () => {
  const [newer, older] = [await open(1, 3), await open(2, 2)]
  await link(newer, older)
  await older.upsert('task', { id: 1, title: 'of the older one' })
  await newer.waitFor('2.1')
  expect(await newer.get('SELECT name FROM task')).toEqual({ name: 'of the older one' })
  await newer.upsert('task', { id: 1, name: 'of the newer one' })
  await synced(newer, older)
  await older.migrate(STEPS, { to: 3 })
  expect(await older.get('SELECT name FROM task')).toEqual({ name: 'of the newer one' })
  await older.migrate(STEPS, { to: 2 }) // it knows the name by now
  await newer.upsert('task', { id: 1, name: 'once more' })
  await older.waitFor('1.2')
  expect(await older.get('SELECT title FROM task')).toEqual({ title: 'once more' })
  expect(pendingOf(older)).toEqual([])
})

it('adding a column writes no patches', async () => {
  const db = await open(1, 1)
  await db.upsert('task', [{ id: 1 }, { id: 2 }])
  await db.migrate(STEPS, { to: 2 })
  expect(db.status()).toMatchObject({ vector: { 1: 2 }, logRows: 2, pending: [] })
})

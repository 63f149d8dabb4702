// Peers at different versions of the schema: nothing of what any of them writes is lost, and what is
// pending is told. (That clusters converge is shown by the simulator: test/core/sim_schemas.c.)

import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import { converged, link, openReplica, rejects, synced, tempDir, until } from './helpers.js'

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
  expect(pendingOf(older)).toEqual([
    { table: 'task', why, patches: 1, oldestAt: expect.any(Number) },
  ])
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

it('linked peers know from the beginning how their tables differ', async () => {
  const [newer, older] = [await open(1, 2), await open(2, 1)]
  await link(newer, older)
  await until(() => older.status().links.some(({ schema }) => schema?.task))
  expect(older.status().links[0].schema.task).toBe('table task has no column colour here')
  expect(newer.status().links[0].schema?.task ?? null).toBe(null)
})

const DROPS_COLOUR = {
  name: 'no colour',
  up: async (tx) => {
    await tx.upsert('task', { id: 1, title: 'by the step', colour: 'blue' })
    await tx.exec(both((table) => `ALTER TABLE ${table} DROP COLUMN colour`))
    await tx.upsert('task', { id: 2, title: 'after it' })
  },
  down: both((table) => `ALTER TABLE ${table} ADD COLUMN colour TEXT`),
}

it('what a function step writes to a column before it drops it is not lost', async () => {
  const [db, other] = [await open(1, 2), await open(2, 2)]
  const steps = [...STEPS.slice(0, 2), DROPS_COLOUR]
  await db.migrate(steps)
  expect(await db.all('SELECT id, title FROM task ORDER BY id')).toEqual([
    { id: 1, title: 'by the step' },
    { id: 2, title: 'after it' },
  ])
  expect(pendingOf(db)).toMatchObject([{ table: 'task', patches: 1 }])
  await link(db, other)
  await synced(db, other)
  const colours = (of) => of.all('SELECT id, colour FROM task ORDER BY id')
  const expected = [
    { id: 1, colour: 'blue' },
    { id: 2, colour: null },
  ]
  expect(await colours(other)).toEqual(expected)
  await db.migrate(steps, { to: 2 })
  expect(await colours(db)).toEqual(expected)
  expect(pendingOf(db)).toEqual([])
})

it('two columns cannot swap their names, nor take one that another has had', async () => {
  const swap = ['title TO tmp', 'size TO title', 'tmp TO size']
  const step = {
    name: 'swap',
    up: swap
      .map((names) => both((table) => `ALTER TABLE ${table} RENAME COLUMN ${names}`))
      .join(' '),
    rename: { 'task.title': 'task.size', 'task.size': 'task.title' },
  }
  const db = await open(1, 1)
  await db.upsert('task', { id: 1, title: null, size: 3 })
  const refused = (list, ...words) => rejects(db.migrate(list), 'REPLIC_MIGRATION', ...words)
  const words = ['choose a name that the table has never had']
  await refused([STEPS[0], step], 'migration 2 (swap)', 'task.size', ...words)
  const later = {
    name: 'heading',
    up: both((table) => `ALTER TABLE ${table} RENAME COLUMN size TO title`),
    rename: { 'task.size': 'task.title' },
  }
  const renamed = STEPS.slice(0, 3)
  await refused([...renamed, later], 'migration 4 (heading)', 'task.size', 'title', ...words)
  const added = { up: both((table) => `ALTER TABLE ${table} ADD COLUMN title TEXT`) }
  await refused([...renamed, added], 'migration 4', 'task.title', 'name', ...words)
  expect(await db.all('SELECT * FROM task')).toEqual([{ id: 1, name: null, size: 3, colour: null }])
})

it('another primary key is another table, which comes back with its rows', async () => {
  const db = await open(1, 1)
  const drop = both((table) => `DROP TABLE ${table}`)
  const keyed = {
    up: `${drop} CREATE TABLE task (key TEXT PRIMARY KEY NOT NULL, title TEXT);
      CREATE TABLE task_patches (${CLOCK}, key TEXT NOT NULL, title TEXT);`,
    down: `${drop} ${STEPS[0].up}`,
  }
  await db.upsert('task', { id: 1, title: 'by id' })
  await db.migrate([STEPS[0], keyed])
  await db.upsert('task', { key: 'a', title: 'by key' })
  const why = 'table task has no column id here'
  expect(pendingOf(db)).toEqual([{ table: 'task', why, patches: 1, oldestAt: expect.any(Number) }])
  expect(await db.all('SELECT * FROM task')).toEqual([{ key: 'a', title: 'by key' }])
  await db.migrate([STEPS[0]])
  expect(await db.all('SELECT * FROM task')).toEqual([{ id: 1, title: 'by id', size: null }])
  await db.migrate([STEPS[0], keyed])
  expect(await db.all('SELECT * FROM task')).toEqual([{ key: 'a', title: 'by key' }])
})

describe('maxPendingRetentionMs', () => {
  const written = async (options) => {
    const db = await openReplica({ ddl: '', maxPatchRetentionMs: Infinity, ...options })
    await db.migrate(STEPS, { to: 3 })
    await db.upsert('task', { id: 1, name: 'paint', size: 3 })
    await db.migrate(STEPS)
    expect(pendingOf(db)).toMatchObject([{ table: 'task', patches: 1 }])
    await db.compact({ maxPatchRetentionMs: 0 })
    return db
  }
  const sizeOf = async (db) => {
    await db.migrate(STEPS, { to: 3 })
    return db.get('SELECT name, size FROM task')
  }

  it('what a step has taken away is kept', async () => {
    for (const options of [{}, { maxPendingRetentionMs: Infinity }]) {
      const db = await written(options)
      expect(pendingOf(db)).toHaveLength(1)
      expect(await sizeOf(db)).toEqual({ name: 'paint', size: 3 })
    }
  })

  it('until it is so old', async () => {
    const db = await written({ maxPendingRetentionMs: 1 })
    while (pendingOf(db).length > 0) await db.compact({ maxPatchRetentionMs: 0 })
    expect(await sizeOf(db)).toEqual({ name: 'paint', size: null })
  })

  it('must be a time', async () => {
    for (const maxPendingRetentionMs of [0, -1, 1.5, '1', null]) {
      const given = { maxPendingRetentionMs }
      await rejects(
        openReplica(given),
        'REPLIC_USAGE',
        'open: maxPendingRetentionMs',
        'or Infinity',
      )
    }
  })
})

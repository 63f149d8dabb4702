import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import { migrate } from '../lib/migrate.js'
import { converged, link, NOTES, openReplica, rejects, SEED, tempDir } from './helpers.js'

const drop = (table) => `DROP TABLE ${table}; DROP TABLE ${table}_patches;`
const steps = [
  { name: 'notes', up: NOTES, down: drop('note') },
  {
    name: 'colour',
    up: 'ALTER TABLE note ADD COLUMN colour TEXT; ALTER TABLE note_patches ADD COLUMN colour TEXT;',
    down: 'ALTER TABLE note DROP COLUMN colour; ALTER TABLE note_patches DROP COLUMN colour;',
  },
  { name: 'the seed', up: SEED, down: drop('myTable') },
]
const empty = (options) => openReplica({ ddl: '', ...options })
const schema = (db) =>
  db.all(
    "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_replic%' ESCAPE '\\' ORDER BY name",
  )
const versions = (db) => db.all('SELECT version, up, down FROM _replic_migrations ORDER BY version')

describe('up', () => {
  it('takes the steps that are missing, in order, once', async () => {
    const db = await empty()
    expect(await db.migrate(steps.slice(0, 1))).toEqual({ from: 0, to: 1 })
    await db.upsert('note', { id: 1, text: 'kept' })
    expect(await db.migrate(steps)).toEqual({ from: 1, to: 3 })
    expect(await db.migrate(steps)).toEqual({ from: 3, to: 3 })
    expect(db.status().tables.sort()).toEqual(['myTable', 'note'])
    expect(await versions(db)).toEqual(
      steps.map(({ up, down }, i) => ({ version: i + 1, up, down })),
    )
    await db.upsert('note', { id: 1, colour: 'red' })
    await db.upsert('myTable', { id: 1, tenantId: 1, name: 'x' })
    expect(await db.get('SELECT id, text, colour FROM note')).toEqual({
      id: 1,
      text: 'kept',
      colour: 'red',
    })
  })

  it('is kept in the file', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await empty({ path })
    await db.migrate(steps)
    await db.close()
    const again = await empty({ path })
    expect(again.status().tables.sort()).toEqual(['myTable', 'note'])
    expect(await again.migrate(steps)).toEqual({ from: 3, to: 3 })
  })

  it('an empty list on a new file is nothing', async () => {
    const db = await empty()
    expect(await db.migrate([])).toEqual({ from: 0, to: 0 })
  })

  it('two calls at once go one after the other', async () => {
    const db = await empty()
    const results = await Promise.all([
      db.migrate(steps),
      db.migrate(steps),
      db.migrate(steps.slice(0, 2)),
    ])
    expect(results).toEqual([
      { from: 0, to: 3 },
      { from: 3, to: 3 },
      { from: 3, to: 2 },
    ])
  })

  it('two peers at two versions of what they share', async () => {
    const [a, b] = [await openReplica(), await openReplica()]
    await link(a, b)
    await a.upsert('note', { id: 1, text: 'before' })
    await converged(a, b)
    for (const db of [a, b]) await db.migrate([{ up: NOTES }, { up: steps[1].up }])
    await a.upsert('note', { id: 1, colour: 'red' })
    await b.upsert('note', { id: 2, colour: 'blue' })
    const { note } = await converged(a, b)
    expect(note.length).toBe(2)
  })
})

describe('down', () => {
  it('steps back with the scripts kept in the database', async () => {
    const db = await empty()
    await db.migrate(steps.slice(0, 1))
    const one = await schema(db)
    await db.migrate(steps)
    await db.upsert('note', { id: 1, text: 'kept', colour: 'red' })
    expect(await db.migrate(steps.slice(0, 1))).toEqual({ from: 3, to: 1 })
    expect(await schema(db)).toEqual(one)
    expect(db.status().tables).toEqual(['note'])
    expect(await db.all('SELECT id, text FROM note')).toEqual([{ id: 1, text: 'kept' }])
    expect(await db.migrate([])).toEqual({ from: 1, to: 0 })
    expect(await schema(db)).toEqual([])
    expect(await db.migrate(steps)).toEqual({ from: 0, to: 3 })
  })

  it('of an older application that never saw the newer steps', async () => {
    const path = join(tempDir(), 'a.db')
    const newer = await empty({ path })
    await newer.migrate(steps)
    await newer.close()
    const older = await empty({ path })
    expect(await older.migrate(steps.slice(0, 2))).toEqual({ from: 3, to: 2 })
    expect(older.status().tables).toEqual(['note'])
  })

  it('names the step without a down script, and takes none', async () => {
    const db = await empty()
    const list = [steps[0], { up: steps[1].up }, steps[2]]
    await db.migrate(list)
    const before = await schema(db)
    await rejects(db.migrate(list.slice(0, 1)), 'REPLIC_MIGRATION', 'migration 2', 'down')
    expect(await schema(db)).toEqual(before)
    expect(await db.migrate(list)).toEqual({ from: 3, to: 3 })
  })

  it('a down script that fails leaves its version', async () => {
    const db = await empty()
    await db.migrate([
      steps[0],
      { up: 'CREATE TABLE own (a)', down: 'DROP TABLE own; DROP TABLE nope' },
    ])
    await rejects(db.migrate([steps[0]]), 'SQLITE_ERROR', 'migration 2', 'nope')
    expect(await db.all('SELECT * FROM own')).toEqual([])
    expect(await versions(db)).toHaveLength(2)
  })
})

describe('what is wrong', () => {
  it('a step that was changed after it was applied', async () => {
    const db = await empty()
    await db.migrate(steps)
    const changed = [steps[0], { ...steps[1], up: `${steps[1].up} ` }, steps[2]]
    await rejects(db.migrate(changed), 'REPLIC_MIGRATION', 'migration 2', 'colour')
    await rejects(db.migrate(changed.slice(0, 2)), 'REPLIC_MIGRATION', 'migration 2', 'colour')
    await rejects(db.migrate([...changed, { up: 'SELECT 1' }]), 'REPLIC_MIGRATION', 'migration 2')
    expect(await db.migrate(steps)).toEqual({ from: 3, to: 3 })
  })

  it('a failing step leaves the one before it, and the file as it was', async () => {
    const db = await empty()
    const list = [
      steps[0],
      { name: 'broken', up: 'CREATE TABLE own (a); INSERT INTO nope VALUES (1)' },
      steps[2],
    ]
    await rejects(db.migrate(list), 'SQLITE_ERROR', 'migration 2 (broken)', 'nope')
    expect((await schema(db)).filter(({ name }) => name === 'own')).toEqual([])
    expect(await versions(db)).toHaveLength(1)
    expect(db.status().tables).toEqual(['note'])
    await db.upsert('note', { id: 1 })
    expect(await db.migrate(steps)).toEqual({ from: 1, to: 3 })
  })

  it.each([
    ['COMMIT', 'COMMIT', 'REPLIC_TRANSACTION'],
    ['BEGIN', 'BEGIN; CREATE TABLE own (a); COMMIT', 'REPLIC_TRANSACTION'],
    ['ROLLBACK', 'CREATE TABLE own (a); ROLLBACK', 'REPLIC_TRANSACTION'],
    ['a syntax error', 'CREATE TABLE own (a); CREATE TABEL x (a)', 'SQLITE_ERROR'],
    [
      'a table without its column in _patches',
      'ALTER TABLE note ADD COLUMN extra',
      'REPLIC_SCHEMA',
    ],
    [
      'a table without a primary key',
      'CREATE TABLE t (a); CREATE TABLE t_patches (a)',
      'REPLIC_SCHEMA',
    ],
    [
      'a UNIQUE constraint',
      NOTES.replaceAll('note', 'other').replace('text TEXT', 'text TEXT UNIQUE'),
      'REPLIC_SCHEMA',
    ],
  ])('%s inside a step', async (_, up, code) => {
    const db = await empty()
    await db.migrate(steps.slice(0, 1))
    await db.upsert('note', { id: 1 })
    const before = await schema(db)
    await rejects(db.migrate([steps[0], { up }]), code, 'migration 2')
    expect(await schema(db)).toEqual(before)
    expect(await versions(db)).toHaveLength(1)
    await db.upsert('note', { id: 2 })
  })

  it.each([
    ['no list', undefined, 'undefined'],
    ['an object', {}, 'list'],
    ['text for a step', ['CREATE TABLE own (a)'], 'step 1'],
    ['null for a step', [null], 'step 1'],
    ['no up', [{ down: 'x' }], 'step 1 has no up'],
    ['an empty up', [{ up: 'SELECT 1' }, { up: '' }], 'step 2'],
    ['a misspelt key', [{ up: 'SELECT 1', dwon: 'SELECT 1' }], "'down'"],
    ['a number for down', [{ up: 'SELECT 1', down: 7 }], 'down must be a string'],
  ])('%s', async (_, list, ...words) => {
    const db = await empty()
    await rejects(db.migrate(list), 'REPLIC_USAGE', ...words)
    expect(await versions(db)).toEqual([])
  })

  it('a gap in what is stored', async () => {
    const stored = [1, 3].map((version) => ({ version, up: NOTES, down: '' }))
    const never = () => expect.fail('nothing may be applied')
    const list = [{ up: NOTES }, { up: NOTES }, { up: NOTES }]
    await rejects(migrate(list, stored, never), 'REPLIC_MIGRATION', 'version 2')
  })

  it('a second process has to wait for the file', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await empty({ path })
    const migrating = db.migrate(steps)
    await rejects(Replica.open(path), 'REPLIC_LOCKED')
    await migrating
  })
})

// Help with _patches tables: their DDL, and the very ALTER TABLE where one does not fit.

import { describe, expect, it } from 'vitest'
import { patchesTable } from '../lib/index.js'
import { converged, link, NOTES, openReplica, rejects, SEED, throws } from './helpers.js'

const empty = () => openReplica({ ddl: '' })
const [SEED_TABLE] = SEED.split('/* YOU MUST')

describe('patchesTable(CREATE TABLE …)', () => {
  it('gives the DDL of the patches of the seed', () => {
    expect(patchesTable(SEED_TABLE)).toBe(
      [
        'CREATE TABLE "myTable_patches" (',
        '  _patchedAt INTEGER NOT NULL,',
        '  _sequenceId INTEGER NOT NULL,',
        '  _peerId INTEGER NOT NULL,',
        '  _nulls TEXT,',
        '  "id" INTEGER NOT NULL,',
        '  "tenantId" INTEGER NOT NULL,',
        '  "name" TEXT,',
        '  "deletedAt" INTEGER',
        ') STRICT;',
      ].join('\n'),
    )
  })

  it.each([
    ['no types, one key', 'CREATE TABLE t (id PRIMARY KEY, a, b NOT NULL DEFAULT 1)'],
    [
      'an order of keys',
      'CREATE TABLE t (b TEXT, id INTEGER, a, PRIMARY KEY (id, b)) WITHOUT ROWID',
    ],
    [
      'odd names',
      'CREATE TABLE "t ""x" ("i d" INTEGER PRIMARY KEY, "a""b" VARCHAR(10), [c d] text)',
    ],
    ['ANY', 'CREATE TABLE t (id TEXT PRIMARY KEY, a ANY, b BLOB) STRICT'],
    [
      'generated columns',
      'CREATE TABLE t (id INTEGER PRIMARY KEY, a, b AS (a + 1), c AS (a) STORED)',
    ],
    [
      'checks, collations',
      'CREATE TABLE t (id INT PRIMARY KEY, a TEXT COLLATE NOCASE CHECK (a > 1))',
    ],
    ['a comment around', '-- first\n CREATE TABLE IF NOT EXISTS t (id REAL PRIMARY KEY); -- last'],
  ])('what it gives can be replicated: %s', async (_, sql) => {
    const [a, b] = [await empty(), await empty()]
    const up = `${sql.replace(/;? -- last$/, '')};\n${patchesTable(sql)}`
    for (const db of [a, b]) await db.migrate([{ up }])
    expect(a.status().tables).toHaveLength(1)
    const [table] = a.status().tables
    expect(patchesTable(sql)).toBe(await a.patchesTable(table))
    await link(a, b)
    const quoted = `"${table.replaceAll('"', '""')}"`
    const columns = await a.all(`SELECT name, pk FROM pragma_table_info(?)`, [table])
    const row = Object.fromEntries(columns.map(({ name }) => [name, 7]))
    await a.upsert(
      table,
      typeof row.id === 'number' && sql.includes('TEXT PRIMARY')
        ? { ...row, id: 'x', b: new Uint8Array(1) }
        : row,
    )
    expect(Object.keys(await converged(a, b))).toEqual([table])
    expect(await b.get(`SELECT count(*) AS n FROM ${quoted}`)).toEqual({ n: 1 })
  })

  it.each([
    ['no text', 7, 'REPLIC_USAGE', 'the SQL must be a string'],
    ['another statement', 'SELECT 1', 'REPLIC_USAGE', 'exactly one CREATE TABLE'],
    ['none', '', 'REPLIC_USAGE', 'exactly one CREATE TABLE'],
    [
      'two tables',
      'CREATE TABLE t (a PRIMARY KEY); CREATE TABLE u (a)',
      'REPLIC_USAGE',
      'exactly one',
    ],
    ['what it may not do', "ATTACH 'x.db' AS x", 'REPLIC_USAGE', 'patchesTable'],
    ['a pragma', 'PRAGMA journal_mode = WAL', 'REPLIC_USAGE', 'patchesTable'],
    ['a transaction', 'BEGIN; CREATE TABLE t (a PRIMARY KEY)', 'REPLIC_USAGE', 'patchesTable'],
    ['no key', 'CREATE TABLE t (a)', 'REPLIC_SCHEMA', 'table t has no PRIMARY KEY'],
    ['nonsense', 'CREATE TABLE t (', 'SQLITE_ERROR', 'incomplete input'],
    ['a NUL', 'CREATE TABLE t (a PRIMARY KEY)\0', 'REPLIC_USAGE', 'NUL'],
  ])('%s', async (_, sql, code, words) => {
    await throws(() => patchesTable(sql), code, words)
  })
})

describe('db.patchesTable', () => {
  it('follows the table as it is now, without a _patches table too', async () => {
    const db = await empty()
    await db.exec('CREATE TABLE own (id INTEGER PRIMARY KEY, a TEXT)')
    expect(await db.patchesTable('own')).toBe(
      patchesTable('CREATE TABLE own (id INTEGER PRIMARY KEY, a TEXT)'),
    )
    await db.exec('ALTER TABLE own ADD COLUMN b BLOB')
    expect(await db.patchesTable('OWN')).toContain('"b" BLOB')
    await db.migrate([{ up: await db.patchesTable('own') }])
    expect(db.status().tables).toEqual(['own'])
  })

  it('of what is no table, or has no key, is refused', async () => {
    const db = await empty()
    await db.exec('CREATE TABLE own (a); CREATE VIEW v AS SELECT 1')
    await rejects(db.patchesTable('nope'), 'REPLIC_UNKNOWN_TABLE', 'there is no table nope')
    await rejects(db.patchesTable('v'), 'REPLIC_UNKNOWN_TABLE')
    await rejects(db.patchesTable('own'), 'REPLIC_SCHEMA', 'table own has no PRIMARY KEY')
    await rejects(db.patchesTable(undefined), 'REPLIC_USAGE', 'the table must be a string')
  })
})

describe('forgetting the _patches table is refused, with the text that is missing', () => {
  const forget = async (up) => {
    const db = await empty()
    await db.migrate([{ up: NOTES }])
    await db.upsert('note', { id: 1, text: 'x', size: 3 })
    const schema = () => db.all('SELECT name, sql FROM sqlite_schema ORDER BY name')
    const before = await schema()
    const error = await rejects(db.migrate([{ up: NOTES }, { up }]), 'REPLIC_SCHEMA', 'migration 2')
    expect(await schema()).toEqual(before)
    await db.upsert('note', { id: 2 })
    return { db, error }
  }

  it.each([
    [
      'ADD COLUMN',
      'ALTER TABLE note ADD COLUMN colour TEXT',
      /ALTER TABLE "note_patches" ADD COLUMN "colour" TEXT$/,
    ],
    [
      'two of them',
      'ALTER TABLE note ADD COLUMN a; ALTER TABLE note ADD b INT',
      /ADD COLUMN "a"; ALTER TABLE "note_patches" ADD COLUMN "b" INT$/,
    ],
    [
      'DROP COLUMN',
      'ALTER TABLE note DROP COLUMN text',
      /ALTER TABLE "note_patches" DROP COLUMN "text"$/,
    ],
    [
      'RENAME COLUMN',
      'ALTER TABLE note RENAME text TO body',
      /ALTER TABLE "note_patches" RENAME COLUMN "text" TO "body"$/,
    ],
    [
      'another type',
      `CREATE TABLE n (id INTEGER NOT NULL, text BLOB, size INTEGER, deletedAt INTEGER, PRIMARY KEY (id));
       INSERT INTO n SELECT * FROM note; DROP TABLE note; ALTER TABLE n RENAME TO note`,
      /ALTER TABLE "note_patches" RENAME COLUMN "text" TO "text_was"; .*DROP COLUMN "text_was"$/,
    ],
    ['DROP TABLE', 'DROP TABLE note', /DROP TABLE "note_patches"/],
  ])('%s', async (_, up, missing) => {
    const { db, error } = await forget(up)
    expect(error.message).toMatch(missing)
    const text = /(ALTER TABLE "note_patches".*|DROP TABLE "note_patches")/.exec(error.message)[1]
    expect(
      await db.migrate([{ up: NOTES }, { up: `${up}; ${text.replace(/, or create.*/, '')}` }]),
    ).toEqual({
      from: 1,
      to: 2,
    })
    if (db.status().tables.length) await db.upsert('note', { id: 3 })
  })

  it('a _patches table that none belongs to: its name is misspelt', async () => {
    const { error } = await forget(
      NOTES.replaceAll('note', 'todo').replace('todo_patches', 'tood_patches'),
    )
    expect(error.message).toContain('there is no table tood, but there is tood_patches')
  })

  it('dropping T_patches alone makes T a table of its own', async () => {
    const db = await empty()
    await db.migrate([{ up: NOTES }])
    await db.upsert('note', { id: 1 })
    await db.migrate([{ up: NOTES }, { up: 'DROP TABLE note_patches' }])
    expect(db.status().tables).toEqual([])
    await db.run('INSERT INTO note (id) VALUES (2)')
  })
})

describe('names', () => {
  it('of the engine cannot be given to a table, by no way', async () => {
    const db = await empty()
    await db.exec('CREATE TABLE own (a)')
    const rename = 'ALTER TABLE own RENAME TO _replic_own'
    await rejects(db.migrate([{ up: rename }]), 'REPLIC_DIRECT_WRITE', 'migration 1', '_replic_')
    await rejects(db.exec(rename), 'REPLIC_DIRECT_WRITE', '_replic_')
    await rejects(db.run(rename), 'REPLIC_DIRECT_WRITE', '_replic_')
    const up = (tx) => tx.exec(rename)
    await rejects(db.migrate([{ up }]), 'REPLIC_DIRECT_WRITE', '_replic_')
    await rejects(
      db.migrate([{ up: 'CREATE TABLE _replic_x (a)' }]),
      'REPLIC_DIRECT_WRITE',
      '_replic_x',
    )
    await rejects(db.migrate([{ up: 'CREATE VIEW _replic_x AS SELECT 1' }]), 'REPLIC_DIRECT_WRITE')
    await rejects(db.migrate([{ up: 'DROP TABLE _replic_meta' }]), 'REPLIC_DIRECT_WRITE')
    await rejects(
      db.migrate([{ up: 'ALTER TABLE _replic_meta RENAME TO x' }]),
      'REPLIC_DIRECT_WRITE',
    )
    await rejects(db.migrate([{ up: 'DELETE FROM _replic_vector' }]), 'REPLIC_DIRECT_WRITE')
    expect(await db.all('SELECT * FROM own')).toEqual([])
  })

  it('of tables can be changed, and be used again', async () => {
    const db = await empty()
    const rename = (from, to) =>
      `ALTER TABLE ${from} RENAME TO ${to}; ALTER TABLE ${from}_patches RENAME TO ${to}_patches;`
    await db.migrate([{ up: NOTES }, { up: rename('note', 'memo') }, { up: NOTES }])
    expect(db.status().tables.sort()).toEqual(['memo', 'note'])
    await db.migrate([
      { up: NOTES },
      { up: rename('note', 'memo') },
      { up: NOTES },
      { up: rename('note', 'third') },
      { up: NOTES },
    ])
    await db.upsert('note', { id: 1 })
    await db.upsert('memo', { id: 1 })
    await db.upsert('third', { id: 1 })
  })
})

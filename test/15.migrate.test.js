import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import { migrate, readMigration } from '../lib/migrate.js'
import { converged, link, NOTES, openReplica, rejects, SEED, tempDir, until } from './helpers.js'

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

describe('what is kept', () => {
  const columns = 'version, name, up, down, length(hash) AS hash, rename, appliedAt > 0 AS dated'
  const rows = (db) => db.all(`SELECT ${columns} FROM _replic_migrations ORDER BY version`)

  it('is the text of both ways, a SHA-256 over all of it, the name and the time', async () => {
    const db = await empty()
    await db.migrate(steps)
    expect(await rows(db)).toEqual(
      steps.map(({ name, up, down }, i) => ({
        version: i + 1,
        name,
        up,
        down,
        hash: 64,
        rename: '',
        dated: 1,
      })),
    )
  })

  it('renamed columns, for the core; going down they stay, another step takes their place', async () => {
    const db = await empty()
    const renames = () =>
      db.all('SELECT version, tableName, oldColumn, newColumn FROM _replic_renames')
    const rename = (from, to) =>
      ['note', 'note_patches'].map((t) => `ALTER TABLE ${t} RENAME ${from} TO ${to};`).join(' ')
    const step = {
      up: rename('text', 'body'),
      down: rename('body', 'text'),
      rename: { 'note.text': 'note.body' },
    }
    await db.migrate([steps[0], step])
    const row = { version: 2, tableName: 'note', oldColumn: 'text', newColumn: 'body' }
    expect(await renames()).toEqual([row])
    await db.upsert('note', { id: 1, body: 'x' })
    await db.migrate([steps[0]])
    expect(await renames()).toEqual([row])
    expect(await db.get('SELECT id, text FROM note')).toEqual({ id: 1, text: 'x' })
    await db.migrate([steps[0], step])
    expect(await renames()).toEqual([row])
    await db.migrate([steps[0]])
    await db.migrate([steps[0], steps[1]])
    expect(await renames()).toEqual([])
  })

  it.each([
    ['a column that is not there', { 'note.txt': 'note.body' }, 'has no column txt before'],
    ['a column that does not come', { 'note.text': 'note.boddy' }, 'has no column boddy after'],
    ['another table', { 'nota.text': 'nota.body' }, 'nota has no column text'],
  ])('a rename of %s is refused', async (_, rename, words) => {
    const db = await empty()
    const up = 'ALTER TABLE note RENAME text TO body; ALTER TABLE note_patches RENAME text TO body'
    const before = await untouched(db)
    await rejects(db.migrate([steps[0], { up, rename }]), 'REPLIC_MIGRATION', 'migration 2', words)
    await before.check()
  })

  it('a rename of a column that stays is refused', async () => {
    const db = await empty()
    const rename = { 'note.text': 'note.colour' }
    const before = await untouched(db)
    const list = [steps[0], { ...steps[1], rename }]
    await rejects(db.migrate(list), 'REPLIC_MIGRATION', 'still has the column text')
    await before.check()
  })
})

// A database at version 1 with a row, and a check that it is as it was and goes on.
async function untouched(db) {
  await db.migrate(steps.slice(0, 1))
  await db.upsert('note', { id: 1, text: 'kept' })
  const state = async () => [
    await db.all('SELECT * FROM sqlite_schema ORDER BY name'),
    await db.all('SELECT * FROM _replic_migrations'),
    await db.all('SELECT * FROM _replic_renames'),
    await db.all('SELECT * FROM note'),
    await db.all('SELECT * FROM note_patches'),
  ]
  const before = await state()
  return {
    check: async () => {
      expect(await state()).toEqual(before)
      expect(db.status().tables).toEqual(['note'])
      await db.upsert('note', { id: 2, text: 'goes on' })
    },
  }
}

describe('force', () => {
  it('takes the new text of what was applied, runs nothing of it, and goes on', async () => {
    const db = await empty()
    await db.migrate(steps.slice(0, 2))
    const down = `${steps[1].down} CREATE TABLE was_here (a);`
    const changed = [steps[0], { name: 'color', up: 'SELECT 1', down }, steps[2]]
    await rejects(db.migrate(changed), 'REPLIC_MIGRATION', 'migration 2 (color)', 'force')
    expect(await db.migrate(changed, { force: true })).toEqual({ from: 2, to: 3 })
    expect(await db.migrate(changed)).toEqual({ from: 3, to: 3 })
    expect(db.status().tables.sort()).toEqual(['myTable', 'note'])
    expect(await db.migrate([steps[0]])).toEqual({ from: 3, to: 1 })
    expect(await db.all('SELECT * FROM was_here')).toEqual([])
  })

  it('of a down script alone counts at once', async () => {
    const db = await empty()
    await db.migrate([steps[0], { ...steps[1], down: 'SELECT nope' }])
    await rejects(db.migrate(steps, { to: 1 }), 'REPLIC_MIGRATION', 'migration 2')
    expect(await db.migrate(steps, { to: 1, force: true })).toEqual({ from: 2, to: 1 })
  })

  it('is not needed for another name, nor where there is no change', async () => {
    const db = await empty()
    await db.migrate(steps)
    const renamed = steps.map(({ up, down }, i) => ({ up, down, name: `n${i}` }))
    expect(await db.migrate(renamed)).toEqual({ from: 3, to: 3 })
    expect(await db.migrate(renamed, { force: true })).toEqual({ from: 3, to: 3 })
  })
})

describe('to', () => {
  it('stops at a version of the list, up and down', async () => {
    const db = await empty()
    expect(await db.migrate(steps, { to: 2 })).toEqual({ from: 0, to: 2 })
    expect(await db.migrate(steps, { to: 3 })).toEqual({ from: 2, to: 3 })
    expect(await db.migrate(steps, { to: 0 })).toEqual({ from: 3, to: 0 })
    expect(await schema(db)).toEqual([])
  })
})

describe('dryRun', () => {
  it('tells what would run, and leaves all as it is', async () => {
    const db = await empty()
    const before = await untouched(db)
    const planned = await db.migrate(steps, { dryRun: true })
    expect(planned).toEqual({
      from: 1,
      to: 3,
      steps: [
        { version: 2, direction: 'up', name: 'colour', sql: steps[1].up },
        { version: 3, direction: 'up', name: 'the seed', sql: steps[2].up },
      ],
    })
    await before.check()
    expect(await db.migrate(steps)).toEqual({ from: 1, to: 3 })
    const back = await db.migrate([], { dryRun: true })
    expect(back.steps.map(({ version, direction, sql }) => [version, direction, sql])).toEqual(
      [2, 1, 0].map((i) => [i + 1, 'down', steps[i].down]),
    )
    expect(db.status().tables.sort()).toEqual(['myTable', 'note'])
    const forced = [steps[0], { up: 'SELECT 1' }, { up: async () => {}, name: 'x' }]
    const { steps: shown } = await db.migrate(forced, { dryRun: true, force: true })
    expect(shown.map(({ version, direction, sql }) => [version, direction, sql])).toEqual([
      [2, 'note', null],
      [3, 'note', null],
    ])
    expect((await versions(db))[1].up).toBe(steps[1].up)
  })

  it('checks the shapes of both tables, and finds what fails', async () => {
    const db = await empty()
    const before = await untouched(db)
    const list = [steps[0], { up: 'ALTER TABLE note ADD COLUMN extra INTEGER' }, { up: 'nonsense' }]
    const text = 'ALTER TABLE "note_patches" ADD COLUMN "extra" INTEGER'
    await rejects(db.migrate(list, { dryRun: true }), 'REPLIC_SCHEMA', 'migration 2', text)
    const wrong = [steps[0], steps[1], { up: 'nonsense' }]
    await rejects(db.migrate(wrong, { dryRun: true }), 'SQLITE_ERROR', 'migration 3', 'nonsense')
    await before.check()
  })

  it('runs functions too, and undoes what they wrote', async () => {
    const db = await empty()
    const before = await untouched(db)
    const up = async (tx) => {
      await tx.upsert('note', { id: 9, text: 'never' })
      expect(await tx.get('SELECT count(*) AS n FROM note')).toEqual({ n: 2 })
    }
    const { steps: shown } = await db.migrate([steps[0], { up }], { dryRun: true })
    expect(shown).toEqual([{ version: 2, direction: 'up', name: '', sql: null }])
    await before.check()
    expect(db.status().vector[db.status().peerId]).toBe(2)
  })
})

describe('functions', () => {
  it('change data: run, exec, all, get are local, upsert and delete replicated', async () => {
    const [a, b] = [await empty(), await empty()]
    for (const db of [a, b]) await db.migrate([steps[0]])
    await link(a, b)
    await a.upsert('note', [
      { id: 1, text: 'one', size: 1 },
      { id: 2, text: 'two', size: 2 },
    ])
    await converged(a, b)
    const seen = []
    const up = async (tx) => {
      seen.push(await tx.run('UPDATE note SET size = size + :more', { more: 10 }))
      seen.push(await tx.exec('CREATE TABLE own (a); INSERT INTO own VALUES (1), (2)'))
      seen.push(await tx.all('SELECT id, size FROM note ORDER BY id'))
      seen.push(await tx.get('SELECT sum(a) AS s FROM own', [], { readBigInts: true }))
      seen.push(await tx.get('SELECT a FROM own WHERE a > ?', [5]))
      seen.push(await tx.upsert('note', { id: 3, text: 'by tx' }))
      await tx.delete('note', { id: 1 })
    }
    expect(await a.migrate([steps[0], { name: 'data', up }])).toEqual({ from: 1, to: 2 })
    expect(seen).toEqual([
      { changes: 2, lastInsertRowid: 0 },
      { changes: 2 },
      [
        { id: 1, size: 11 },
        { id: 2, size: 12 },
      ],
      { s: 3n },
      undefined,
      undefined,
    ])
    await b.waitFor(`${a.status().peerId}.${a.status().vector[a.status().peerId]}`)
    expect(
      await b.all('SELECT id, text, size FROM note WHERE deletedAt IS NULL ORDER BY id'),
    ).toEqual([
      { id: 2, text: 'two', size: 2 },
      { id: 3, text: 'by tx', size: null },
    ])
    expect(await a.get('SELECT size FROM note WHERE id = 2')).toEqual({ size: 12 })
  })

  it('see the schema that they make', async () => {
    const db = await empty()
    const up = async (tx) => {
      await tx.exec(
        'CREATE TABLE todo (id INTEGER PRIMARY KEY, title TEXT NOT NULL DEFAULT x) STRICT',
      )
      await tx.exec(await tx.patchesTable('todo'))
      await tx.upsert('todo', { id: 1, title: 'first' })
      await tx.exec('ALTER TABLE todo ADD done INTEGER; ALTER TABLE todo_patches ADD done INTEGER')
      await tx.upsert('todo', { id: 1, done: 1 })
    }
    await db.migrate([{ up }])
    expect(await db.all('SELECT * FROM todo')).toEqual([{ id: 1, title: 'first', done: 1 }])
    expect(db.status().vector[db.status().peerId]).toBe(2)
  })

  it('go on after a call that failed, which has left nothing', async () => {
    const db = await empty()
    const before = await untouched(db)
    const up = async (tx) => {
      await rejects(tx.run('INSERT INTO nope VALUES (1)'), 'SQLITE_ERROR', 'no such table: nope')
      await rejects(tx.exec('CREATE TABLE own (a); nonsense'), 'SQLITE_ERROR', 'in: nonsense')
      await rejects(tx.upsert('note', { id: 5, size: -1 }), 'SQLITE_CONSTRAINT_CHECK')
      await rejects(tx.exec('COMMIT'), 'REPLIC_TRANSACTION')
      await rejects(tx.all('DELETE FROM note'), 'SQLITE_READONLY', 'in: DELETE FROM note')
      await rejects(tx.run('SELECT 1; SELECT 2'), 'REPLIC_USAGE')
      await rejects(tx.run('DELETE FROM _replic_meta'), 'REPLIC_DIRECT_WRITE')
      await rejects(tx.upsert('nope', { id: 1 }), 'REPLIC_UNKNOWN_TABLE')
      await rejects(tx.get(7), 'REPLIC_USAGE')
      await rejects(tx.all('SELECT ?', 7), 'REPLIC_USAGE')
      await rejects(tx.patchesTable('nope'), 'REPLIC_UNKNOWN_TABLE', 'nope')
      await rejects(tx.patchesTable(7), 'REPLIC_USAGE')
      throw new TypeError('after all that')
    }
    const migrating = db.migrate([steps[0], { name: 'bold', up }])
    const error = await rejects(
      migrating,
      'REPLIC_MIGRATION',
      'migration 2 (bold)',
      'after all that',
    )
    expect(error.cause).toBeInstanceOf(TypeError)
    await before.check()
  })

  it('a call that the function did not wait for belongs to it; if it fails, the step fails', async () => {
    const db = await empty()
    await db.migrate([
      {
        up: (tx) => {
          tx.exec(NOTES)
        },
      },
    ])
    expect(db.status().tables).toEqual(['note'])
    const up = (tx) => {
      tx.run('INSERT INTO nope VALUES (1)')
    }
    await rejects(
      db.migrate([{ up: async () => {} }, { up }]),
      'SQLITE_ERROR',
      'migration 2',
      'nope',
    )
    expect(await versions(db)).toHaveLength(1)
  })

  it('tx ends with its function', async () => {
    const db = await empty()
    let kept
    await db.migrate([
      {
        up: async (tx) => {
          kept = tx
        },
      },
    ])
    await rejects(kept.run('SELECT 1'), 'REPLIC_USAGE', 'after its function')
  })

  it('are known by their name: another one, or SQL in their place, is a change', async () => {
    const db = await empty()
    await db.migrate([{ name: 'fill', up: async () => {} }])
    expect(await db.migrate([{ name: 'fill', up: async (tx) => tx.run('nope') }])).toEqual({
      from: 1,
      to: 1,
    })
    await rejects(db.migrate([{ name: 'other', up: async () => {} }]), 'REPLIC_MIGRATION', 'other')
    await rejects(db.migrate([{ name: 'fill', up: 'SELECT 1' }]), 'REPLIC_MIGRATION', 'fill')
  })

  it('a down function is used by who has it; without it the error names the step', async () => {
    const db = await empty()
    const list = [
      steps[0],
      { name: 'fn', up: 'CREATE TABLE own (a)', down: (tx) => tx.exec('DROP TABLE own') },
    ]
    await db.migrate(list)
    await rejects(db.migrate([steps[0]]), 'REPLIC_MIGRATION', 'migration 2 (fn)', 'a function')
    expect(await db.all('SELECT * FROM own')).toEqual([])
    expect(await db.migrate(list, { to: 1 })).toEqual({ from: 2, to: 1 })
    await rejects(db.all('SELECT * FROM own'), 'SQLITE_ERROR')
  })

  it('calls of the replica that would wait for the migration itself are refused', async () => {
    const db = await empty()
    const up = async (tx) => {
      await rejects(db.upsert('note', { id: 1 }), 'REPLIC_USAGE', 'tx')
      await rejects(db.delete('note', { id: 1 }), 'REPLIC_USAGE', 'tx')
      await rejects(
        db.batch(() => {}),
        'REPLIC_USAGE',
        'tx',
      )
      await rejects(db.load('note', []), 'REPLIC_USAGE', 'tx')
      await rejects(db.run('SELECT 1'), 'REPLIC_USAGE', 'tx')
      await rejects(db.exec('SELECT 1'), 'REPLIC_USAGE', 'tx')
      await rejects(db.compact(), 'REPLIC_USAGE', 'tx')
      await rejects(db.explain('note'), 'REPLIC_USAGE', 'tx')
      await rejects(db.patchesTable('note'), 'REPLIC_USAGE', 'tx')
      await rejects(db.migrate([]), 'REPLIC_USAGE', 'tx')
      expect(await db.all('SELECT * FROM sqlite_schema WHERE name = ?', ['note'])).toEqual([])
      await tx.exec(NOTES)
    }
    await db.migrate([{ up }])
    await db.upsert('note', { id: 1 })
  })

  it('close() ends one that does not end, and nothing of it is there', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await empty({ path })
    let reached
    const wrote = new Promise((resolve) => {
      reached = resolve
    })
    const up = async (tx) => {
      await tx.exec(NOTES)
      reached()
      await new Promise(() => {})
    }
    const migrating = rejects(db.migrate([{ up }]), 'REPLIC_CLOSED', 'migration 1')
    await wrote
    const waiting = db.upsert('note', { id: 1 })
    const failed = rejects(waiting, 'REPLIC_UNKNOWN_TABLE')
    await db.close()
    await migrating
    await failed
    const again = await empty({ path })
    expect(again.status().tables).toEqual([])
  })
})

describe('close()', () => {
  it('from within a function ends it too', async () => {
    const db = await empty()
    const up = async (tx) => {
      await tx.exec(NOTES)
      await db.close() // the function is over for the replica: this goes on by itself
    }
    await rejects(db.migrate([{ up }]), 'REPLIC_CLOSED', 'migration 1')
    await db.close()
    expect(db.status().state).toBe('closed')
  })

  it('lets the step under way end, if it is SQL, and takes no further one', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await empty({ path })
    const refused = rejects(db.migrate(steps), 'REPLIC_CLOSED')
    await until(() => db.status().queue.calls > 0)
    await db.close()
    await refused
    const again = await empty({ path })
    const { length } = await versions(again)
    expect(again.status().tables).toHaveLength(length === 3 ? 2 : Math.min(length, 1))
    expect(await again.migrate(steps)).toEqual({ from: length, to: 3 })
  })
})

describe('while it serves', () => {
  // A step that is held in the middle, when all that it does is done but its commit.
  const held = () => {
    const step = { up: undefined }
    const here = new Promise((reached) => {
      const gone = new Promise((resolve) => {
        step.go = resolve
      })
      step.up = async (tx) => {
        await tx.exec(steps[1].up)
        await tx.run("UPDATE note SET colour = 'by the step'")
        reached()
        await gone
      }
    })
    return { ...step, here, step: { up: step.up } }
  }

  it('reads see the state before it, writes wait and go on after it, nothing is refused', async () => {
    const [db, other] = [await openReplica(), await openReplica()]
    await link(db, other)
    await db.upsert('note', { id: 1, text: 'before' })
    await converged(db, other)
    const cursor = db.iterate('SELECT * FROM note ORDER BY id')
    const { step, here, go } = held()
    const migrating = db.migrate([{ up: NOTES }, step])
    await here
    let settled = 0
    const writes = Array.from({ length: 200 }, (_, i) =>
      db.upsert('note', { id: 100 + i, text: 'waited' }).then(() => settled++),
    )
    const withColour = db.upsert('note', { id: 1, colour: 'red' }) // of the new schema already
    const local = db.run('INSERT INTO note_log VALUES (1)').catch((error) => error.code)
    const remote = await other.upsert('note', { id: 7, text: 'came in meanwhile' })
    expect(await db.all('SELECT * FROM note')).toEqual([
      { id: 1, text: 'before', size: null, deletedAt: null },
    ])
    expect((await cursor.next()).value).toEqual({
      id: 1,
      text: 'before',
      size: null,
      deletedAt: null,
    })
    expect(settled).toBe(0)
    go()
    await migrating
    await Promise.all(writes)
    await withColour
    expect(await local).toBe('SQLITE_ERROR')
    await db.waitFor(remote)
    expect(await db.get('SELECT * FROM note WHERE id = 1')).toEqual({
      id: 1,
      text: 'before',
      size: null,
      deletedAt: null,
      colour: 'red',
    })
    expect(await db.get('SELECT count(*) AS n FROM note')).toEqual({ n: 202 })
    expect((await cursor.next()).done).toBe(true)
  })

  it('statements that were prepared before are prepared again', async () => {
    const db = await openReplica()
    const write = (id) => db.upsert('note', { id, text: 'x', size: 1 })
    const read = () => db.get('SELECT * FROM note WHERE id = ?', [1])
    await write(1)
    await read()
    await db.migrate([{ up: NOTES }, steps[1]])
    await write(1)
    expect(await read()).toHaveProperty('colour', null)
    await db.delete('note', { id: 1 })
    await db.migrate([{ up: NOTES }])
    await write(1)
    expect(await read()).not.toHaveProperty('colour')
  })

  it('one that fails lets the writes go on', async () => {
    const db = await openReplica()
    const migrating = db.migrate([{ up: NOTES }, { up: 'CREATE TABLE own (a); nonsense' }])
    const writes = Array.from({ length: 50 }, (_, id) => db.upsert('note', { id }))
    await rejects(migrating, 'SQLITE_ERROR', 'migration 2')
    await Promise.all(writes)
    expect(await db.get('SELECT count(*) AS n FROM note')).toEqual({ n: 50 })
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
    ['a number for up', [{ up: 7 }], 'up must be SQL text or a function'],
    ['a number for a name', [{ up: 'SELECT 1', name: 7 }], 'name must be a string'],
    [
      'a hole in the list',
      Object.assign([], { 0: { up: 'SELECT 1' }, 2: { up: 'SELECT 1' } }),
      'step 2',
    ],
    ['a list for rename', [{ up: 'SELECT 1', rename: [] }], 'rename must be an object'],
    ['a rename without a table', [{ up: 'SELECT 1', rename: { text: 'body' } }], "'text': 'body'"],
    ['a rename of a table', [{ up: 'SELECT 1', rename: { 'a.x': 'b.x' } }], "'a.x': 'b.x'"],
    ['a rename to itself', [{ up: 'SELECT 1', rename: { 'a.x': 'a.x' } }], "'a.x': 'a.x'"],
    ['a rename to a number', [{ up: 'SELECT 1', rename: { 'a.x': 7 } }], "'a.x': number"],
    ['a rename of too many parts', [{ up: 'SELECT 1', rename: { 'a.x.y': 'a.z' } }], "'a.x.y'"],
    ['a text of no statement', [{ up: '-- nothing' }], 'migration 1', 'no statement'],
    ['a text with a NUL', [{ up: 'SELECT 1\0' }], 'NUL'],
  ])('%s', async (_, list, ...words) => {
    const db = await empty()
    await rejects(db.migrate(list), 'REPLIC_USAGE', ...words)
    expect(await versions(db)).toEqual([])
  })

  it.each([
    ['force', { force: 1 }, 'force must be true or false'],
    ['dryRun', { dryRun: 'yes' }, 'dryRun must be true or false'],
    ['to beyond the list', { to: 2 }, 'to must be an integer from 0 to 1'],
    ['to below it', { to: -1 }, 'to must be'],
    ['a misspelt option', { dryrun: true }, "'dryRun'"],
    ['a list', [], 'options'],
  ])('options: %s', async (_, options, words) => {
    const db = await empty()
    await rejects(db.migrate([{ up: NOTES }], options), 'REPLIC_USAGE', words)
    expect(await versions(db)).toEqual([])
  })

  it('an error names the step, the statement and what SQLite says', async () => {
    const db = await empty()
    const long = `INSERT INTO nope VALUES ('${'grün '.repeat(100)}')`
    const list = [
      { name: 'first', up: NOTES },
      { name: 'second', up: `-- a comment\n  SELECT 1;\n  ${long}; SELECT 2;` },
    ]
    const error = await rejects(
      db.migrate(list),
      'SQLITE_ERROR',
      'migration 2 (second): no such table',
    )
    expect(error.message).toMatch(/, in: INSERT INTO nope VALUES \('grün .*…$/)
    expect(Buffer.byteLength(error.message)).toBeLessThan(330)
    expect(error.message).not.toContain('\ufffd')
  })

  it('a gap in what is stored', async () => {
    const stored = async () => [1, 3].map((version) => ({ version, up: NOTES, down: '', hash: '' }))
    const transaction = () => expect.fail('nothing may be applied')
    const list = [{ up: NOTES }, { up: NOTES }, { up: NOTES }]
    const migrating = migrate(readMigration(list), { stored, transaction })
    await rejects(migrating, 'REPLIC_MIGRATION', 'lacks version 2')
  })

  it('a second process has to wait for the file', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await empty({ path })
    const migrating = db.migrate(steps)
    await rejects(Replica.open(path), 'REPLIC_LOCKED')
    await migrating
  })
})

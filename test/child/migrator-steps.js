// What migrator.js migrates through. `point(name)` is called between any two things that are done.

const ROWS = 30_000
const NUMBERS = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})`

export const makeSteps = (point) => [
  {
    name: 'tables',
    up: `CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, deletedAt INTEGER);
      CREATE TABLE note_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        _nulls TEXT, id INTEGER, text TEXT, deletedAt INTEGER);
      CREATE TABLE own (id INTEGER PRIMARY KEY, a)`,
    down: 'DROP TABLE note; DROP TABLE note_patches; DROP TABLE own',
  },
  {
    name: 'a function',
    up: async (tx) => {
      await point('2 begun')
      await tx.exec('ALTER TABLE note ADD size INTEGER; ALTER TABLE note_patches ADD size INTEGER')
      await point('2 altered')
      await tx.upsert('note', { id: 1, text: 'replicated', size: 1 })
      await point('2 upserted')
      await tx.run("INSERT INTO own VALUES (0, 'by 2')")
      await point('! 2 done')
    },
    down: async (tx) => {
      await point('2 going down')
      await tx.run('DELETE FROM own WHERE id = 0')
      await point('2 deleted')
      await tx.exec('ALTER TABLE note DROP size; ALTER TABLE note_patches DROP size')
      await point('! 2 undone')
    },
  },
  {
    name: 'a long one',
    up: `INSERT INTO own ${NUMBERS} SELECT i, 'row ' || i FROM n;
      CREATE INDEX own_a ON own (a); UPDATE own SET a = a || '!' WHERE id > 0`,
    down: 'DROP INDEX own_a; DELETE FROM own WHERE id > 0',
  },
]

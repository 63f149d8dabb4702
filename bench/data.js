// The table that all benchmarks use: six columns, about 170 bytes a row.

/** Our table, and its log in the layout that docs/performance.md recommends. */
export const TABLE = `
  CREATE TABLE item (
    id INTEGER NOT NULL PRIMARY KEY, tenantId INTEGER, name TEXT, mail TEXT, body TEXT,
    updatedAt INTEGER
  ) STRICT;`
export const PATCHES = `
  CREATE TABLE item_patches (
    _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
    _nulls TEXT,
    id INTEGER NOT NULL, tenantId INTEGER, name TEXT, mail TEXT, body TEXT, updatedAt INTEGER,
    PRIMARY KEY (_peerId, _sequenceId)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX item_patches_key ON item_patches (id, _patchedAt);`

const BODY = 'The quick brown fox jumps over the lazy dog, and the dog looks up, and sleeps on. '

/** Rows with the ids from `first` to `first + count - 1`. */
export function makeRows(count, first = 1) {
  return Array.from({ length: count }, (_, i) => {
    const id = first + i
    return {
      id,
      tenantId: id % 97,
      name: `name of item number ${id}`,
      mail: `item.${id}@tenant-${id % 97}.example.org`,
      body: `${BODY}${id}`,
      updatedAt: 1_700_000_000_000 + id,
    }
  })
}

/** The same row under a key that is anywhere: a permutation of the ids up to 2^32, as in floor.c. */
export function spread(row) {
  const h = Math.imul(row.id - 1, 2654435769) >>> 0
  return { ...row, id: ((h ^ (h >>> 15)) >>> 0) + 1 }
}

export const COUNT = 'SELECT count(*) AS n FROM item'

/** Throws if that query found other than `rows` rows: a figure without its rows is none. */
export function checkRows({ n }, rows) {
  if (n !== rows) throw new Error(`${rows} rows were written, and ${n} are there`)
}

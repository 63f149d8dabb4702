// Digests of one state of the file: per replicated table, per bucket of its keys, per row. They do
// not depend on the order of rows or columns, and tell apart all that SQLite does: types and bytes.
// Rows are hashed and summed up in the core (src/core/file/digest.c), in bounded memory and a slice at a
// time, on a connection of their own.

import { createHash } from 'node:crypto'
import { toRows } from '../base/rows.js'

export const BUCKETS = 4096 // as in src/core/query.h
const SLICE_ROWS = 20_000 // then others have their turn on the thread
const HASHED_AT_ONCE = 100 // arguments of one call; SQLite's limit is 127
const SHOWN_AT_ONCE = 400 // columns of one query, two values each; SQLite's limit is 2,000
const MOST_ENTRIES = 20_000 // of one bucket: enough for tables of some 80 million rows
const LONG_BYTES = 200 // longer texts and blobs are shown by their beginning

const TABLES = `
  SELECT t.name AS "table", c.name AS name, upper(c.type) AS type, c.pk AS key
  FROM pragma_table_list AS t
  JOIN pragma_table_list AS p ON p.name = t.name || '_patches' COLLATE NOCASE
  JOIN pragma_table_xinfo(t.name, 'main') AS c
  WHERE t.schema = 'main' AND p.schema = 'main' AND t.type = 'table' AND c.hidden = 0
  ORDER BY lower(t.name), lower(c.name)`
// While a jump is being merged, the tables are of no vector: this one is nobody's.
const VECTOR = `
  SELECT 0 AS origin, abs(random() / 4096) AS sequence WHERE EXISTS (SELECT 1 FROM _replic_jump)
  UNION ALL SELECT * FROM (
    SELECT origin, sequence FROM _replic_vector WHERE sequence > 0 ORDER BY origin)`

const quoted = (name) => `"${name.replaceAll('"', '""')}"`

/** As SQLite compares names: ASCII letters only. */
export const lower = (name) => name.replace(/[A-Z]/g, (letter) => letter.toLowerCase())

/** The SQL of a hash of columns. */
function hashOf(expressions) {
  if (expressions.length <= HASHED_AT_ONCE) return `_replic_hash(${expressions.join(', ')})`
  const parts = []
  for (let i = 0; i < expressions.length; i += HASHED_AT_ONCE) {
    parts.push(hashOf(expressions.slice(i, i + HASHED_AT_ONCE)))
  }
  return hashOf(parts)
}

/** The SQL of a value as an SQL literal, so that 1 and 1.0 differ; what is long is cut. */
function literalOf(column) {
  const long = `typeof(${column}) IN ('text', 'blob') AND octet_length(${column}) > ${LONG_BYTES}`
  const cut = `quote(substr(${column}, 1, ${LONG_BYTES / 2})) || '… (' || octet_length(${column}) || ' bytes)'`
  const hasNul = `typeof(${column}) = 'text' AND instr(CAST(${column} AS BLOB), x'00')`
  const bytes = `'CAST(' || quote(CAST(${column} AS BLOB)) || ' AS TEXT)'`
  return `CASE WHEN ${long} THEN ${cut} WHEN ${hasNul} THEN ${bytes} ELSE quote(${column}) END`
}

class Table {
  constructor(name) {
    this.name = name
    this.columns = [] // { name, type, key }, by lower-case name
  }

  get keys() {
    return this.columns.filter(({ key }) => key > 0).sort((a, b) => a.key - b.key)
  }

  /** Equal for tables whose rows can be compared. */
  get shape() {
    const shape = this.columns.map(({ name, type, key }) => [lower(name), type, key])
    return createHash('sha256').update(JSON.stringify(shape)).digest('hex')
  }

  get keyHash() {
    return hashOf(this.keys.map(({ name }) => quoted(name)))
  }

  get rowHash() {
    return hashOf(this.columns.map(({ name }) => quoted(name)))
  }
}

/** The hash of a vector, a Map of origin -> sequence, in whatever order. */
export function vectorHash(vector) {
  const bytes = Buffer.alloc(16 * vector.size)
  let at = 0
  for (const origin of [...vector.keys()].sort((a, b) => a - b)) {
    at = bytes.writeDoubleLE(origin, at)
    at = bytes.writeDoubleLE(vector.get(origin), at)
  }
  return createHash('sha256').update(bytes).digest('hex')
}

/** How much a vector has; inexact where it is huge. */
export function vectorSum(vector) {
  let sum = 0
  for (const sequence of vector.values()) sum += sequence
  return sum
}

/** One state of the file, held until close(). */
export class Snapshot {
  #cursor
  #tables = new Map() // by lower-case name, in that order

  static async open(native) {
    const snapshot = new Snapshot()
    snapshot.#cursor = await native.snapshotOpen()
    try {
      await snapshot.#read()
      return snapshot
    } catch (error) {
      await snapshot.close()
      throw error
    }
  }

  async #read() {
    const positions = await this.#query(VECTOR)
    /** What this state consists of: origin -> sequence. */
    this.vector = new Map(positions.map(({ origin, sequence }) => [origin, sequence]))
    for (const { table, ...column } of await this.#query(TABLES)) {
      if (!this.#tables.has(lower(table))) this.#tables.set(lower(table), new Table(table))
      this.#tables.get(lower(table)).columns.push(column)
    }
  }

  async #query(sql, params, big = false) {
    return toRows(await this.#cursor.query(sql, params, false, big))
  }

  /** The table of that name, in whatever case; undefined if there is none. */
  table(name) {
    return this.#tables.get(lower(name))
  }

  /** { rows, buckets } of a table. `check()` is called between slices, and may throw. */
  async buckets(table, check) {
    await this.#cursor.sumStart(
      `SELECT ${table.keyHash}, ${table.rowHash} FROM main.${quoted(table.name)}`,
    )
    for (;;) {
      const { rows, buckets } = await this.#cursor.sum(SLICE_ROWS)
      if (buckets) return { rows, buckets }
      check()
    }
  }

  /** All tables: [{ name, shape, rows, digest }], in order of their lower-case names. */
  async digests(check) {
    const digests = []
    for (const table of this.#tables.values()) {
      const { rows, buckets } = await this.buckets(table, check)
      const digest = createHash('sha256').update(buckets).digest('hex')
      digests.push({ name: table.name, shape: table.shape, rows, digest })
    }
    return digests
  }

  /** [[key's hash, row's hash]] of one bucket, in order; null if there are too many. */
  async entries(table, bucket) {
    const rows = await this.#query(
      `SELECT printf('%016x', k) AS k, printf('%016x', r) AS r FROM
        (SELECT ${table.keyHash} AS k, ${table.rowHash} AS r FROM main.${quoted(table.name)})
        WHERE (k >> 52) & ${BUCKETS - 1} = ${bucket} LIMIT ${MOST_ENTRIES + 1}`,
    )
    if (rows.length > MOST_ENTRIES) return null
    return rows.map(({ k, r }) => [k, r]).sort(([a], [b]) => (a < b ? -1 : 1))
  }

  /** The row whose key has that hash: { key: [value], cells: [[column, literal, hash]] }, or null. */
  async row(table, keyHash) {
    const where = `FROM main.${quoted(table.name)} WHERE ${table.keyHash} = ? LIMIT 1`
    const params = [BigInt.asIntN(64, BigInt(`0x${keyHash}`))]
    const names = table.keys.map(({ name }) => quoted(name)).join(', ')
    const [, , ...key] = await this.#cursor.query(`SELECT ${names} ${where}`, params, false, true)
    if (key.length === 0) return null
    const cells = []
    for (let i = 0; i < table.columns.length; i += SHOWN_AT_ONCE) {
      const columns = table.columns.slice(i, i + SHOWN_AT_ONCE).map(({ name }) => name)
      const shown = columns.map(quoted).map((column) => {
        return `${literalOf(column)}, printf('%016x', _replic_hash(${column}))`
      })
      const sql = `SELECT ${shown.join(', ')} ${where}`
      const [, , ...values] = await this.#cursor.query(sql, params, false, false)
      cells.push(...columns.map((name, at) => [name, values[2 * at], values[2 * at + 1]]))
    }
    return { key, cells }
  }

  /** Why the schema here cannot store the row with that key, if that is so; else null. */
  async stuck(table, key) {
    const id = key.map((value, i) => {
      const v = typeof value === 'number' ? `CAST(?${i + 2} AS REAL)` : `?${i + 2}`
      // as src/core/tables/sql.c makes it
      return `typeof(${v}) || quote(iif(typeof(${v}) = 'text', CAST(${v} AS BLOB), ${v}))`
    })
    const [found] = await this.#query(
      `SELECT why FROM _replic_stuck WHERE tableName = ?1 AND id = ${id.join(" || ' ' || ")}`,
      [table.name, ...key],
    )
    return found?.why ?? null
  }

  async close() {
    await this.#cursor.close()
  }
}

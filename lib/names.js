// The names of tables and columns: what rows and keys become for the addon, and what is said of a name that is not there.

import { checkTable } from './arguments.js'
import { ReplicError, usage } from './base/errors.js'
import * as option from './base/options.js'
import { flatten, flattenOne, pack } from './base/rows.js'

const UPSERT = 0 // kinds of changes, as the addon numbers them
const DELETE = 1
const MAX_LISTED = 20

export class Names {
  #tables = new Map() // name -> { columns: Set, key: string[], given: string[], names: string }
  changing = 0 // calls under way that may change the schema

  /** The tables as they are now. */
  set(tables) {
    this.#tables = new Map(
      tables.map(({ name, columns }) => [
        name,
        {
          columns: new Set(columns.map((column) => column.name)),
          key: columns.filter((column) => column.key > 0).map((column) => column.name),
          given: [], // the columns that the last call named
          names: '', // the same as the addon takes them
        },
      ]),
    )
  }

  /** The names of all replicated tables. */
  list() {
    return [...this.#tables.keys()]
  }

  upsertOp(where, table, rows) {
    checkTable(where, table)
    const { columns, values } = Array.isArray(rows) ? flatten(where, rows) : flattenOne(where, rows)
    return [UPSERT, table, this.#columnNames(where, table, columns), pack(values)]
  }

  // Most calls for a table name the same columns as the last one: then nothing is checked again, and all names
  // go in one string. While the schema may change the core has to read each, whatever it holds.
  #columnNames(where, table, columns) {
    const known = this.changing > 0 ? undefined : this.#tables.get(table)
    if (known && isSameList(known.given, columns)) return known.names
    this.check(where, table, columns)
    if (!known) return columns
    known.given = columns
    known.names = columns.join('\0')
    return known.names
  }

  deleteOp(where, table, key) {
    checkTable(where, table)
    if (!option.isPlain(key)) {
      throw usage(`${where}: a key is an object, as { id: 1 }, not ${option.kindOf(key)}`)
    }
    const { columns, values } = flattenOne(where, key)
    this.check(where, table, columns)
    const known = this.changing > 0 ? undefined : this.#tables.get(table)
    const wanted = known?.key ?? columns // if unknown, the core decides
    if (columns.length !== wanted.length || !wanted.every((name) => columns.includes(name))) {
      const names = wanted.join(', ')
      throw new ReplicError(
        'REPLIC_KEY',
        `${where}: the primary key of '${table}' is (${names}); give exactly that`,
      )
    }
    return [DELETE, table, columns, values]
  }

  // The core checks names again, in its turn; here a misspelt one is answered with the right one. Not
  // while a call under way may change the schema: then only the core can know.
  check(where, table, columns) {
    checkTable(where, table)
    if (this.changing > 0) return
    const known = this.#tables.get(table)
    if (!known) {
      const names = [...this.#tables.keys()]
      const hint = option.nearest(table, names) || `; ${howToReplicate(names)}`
      const message = `${where}: there is no replicated table '${table}'${hint}`
      throw new ReplicError('REPLIC_UNKNOWN_TABLE', message)
    }
    for (const name of columns) {
      if (known.columns.has(name)) continue
      const message = `${where}: table '${table}' has no column '${name}'`
      const hint = option.nearest(name, known.columns) || `; it has ${listed(known.columns)}`
      throw new ReplicError('REPLIC_UNKNOWN_COLUMN', message + hint)
    }
  }
}

const listed = (names) => {
  const all = [...names]
  return all.slice(0, MAX_LISTED).join(', ') + (all.length > MAX_LISTED ? ', …' : '')
}

const howToReplicate = (names) =>
  names.length === 0
    ? 'no table is replicated yet: create it and its _patches table with migrate(), and await that'
    : `replicated are ${listed(names)}. It needs a _patches table, whose DDL patchesTable() gives; a table that stays local is written with run()`

function isSameList(a, b) {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return a.length === b.length
}

// Rows in and out: objects on the application's side, flat arrays on the addon's.

import { usage } from './errors.js'
import { isPlain, kindOf } from './options.js'

/**
 * Rows as { columns, values }: the union of their columns in order of appearance, and the values row
 * by row. A column that a row lacks, or has as undefined, is undefined: not set.
 * Throws REPLIC_USAGE where there is no row, or one that is no object.
 */
export function flatten(where, rows) {
  if (rows.length === 0) throw usage(`${where}: no rows given; pass at least one`)
  const known = new Set()
  let given = 0
  for (const row of rows) {
    checkRow(where, row)
    const names = Object.keys(row)
    given += names.length
    for (const name of names) known.add(name)
  }
  const columns = [...known]
  if (columns.length === 0) throw noColumns(where)
  // Where a row lacks a column, it must not deliver what it inherits under that name.
  const ragged = given < rows.length * columns.length
  const values = []
  for (const row of rows) {
    for (const name of columns) {
      values.push(ragged && !Object.hasOwn(row, name) ? undefined : row[name])
    }
  }
  return { columns, values }
}

/** The same of one row. */
export function flattenOne(where, row) {
  checkRow(where, row)
  const columns = Object.keys(row)
  if (columns.length === 0) throw noColumns(where)
  const values = []
  for (const name of columns) values.push(row[name])
  return { columns, values }
}

function checkRow(where, row) {
  if (!isPlain(row))
    throw usage(`${where}: a row must be an object, as { id: 1 }, not ${kindOf(row)}`)
}

const noColumns = (where) => usage(`${where}: a row without columns; give its primary key`)

// Kinds of packed values, as the addon numbers them.
const LISTED = 0
const UNSET = 1
const NULL = 2
const NUMBER = 3
const TEXT = 4

const FEW = 32 // values: fewer are not worth packing
const LONG = 4096 // characters: a longer text is not worth copying once more
const PIECE = 16 * 1024 // characters: a longer one gets memory of its own from the system each time

/**
 * Values as the addon takes them: as they are, or packed where they are many, since each one that it has to ask
 * for costs a crossing. Texts go many in one, a NUL behind each so that no two halves of a pair meet.
 */
export function pack(values) {
  if (values.length < FEW) return values
  const kinds = new Uint8Array(values.length)
  const numbers = new Float64Array(values.length)
  const listed = []
  const texts = []
  let text = ''
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (typeof value === 'string' && value.length < LONG) {
      kinds[i] = TEXT
      numbers[i] = value.length
      text += value
      text += '\0'
      if (text.length >= PIECE) {
        texts.push(text)
        text = ''
      }
    } else if (typeof value === 'number') {
      kinds[i] = NUMBER
      numbers[i] = value
    } else if (value === null) kinds[i] = NULL
    else if (value === undefined) kinds[i] = UNSET
    else {
      kinds[i] = LISTED
      listed.push(value)
    }
  }
  if (text) texts.push(text)
  return { kinds, numbers, texts, listed }
}

export const FIRST_VALUE = 2 // of what the addon gives as rows: [columns, done, value, ...]

/** Result rows from [columns, done, value, ...]: plain objects; of columns with one name the last counts. */
export function toRows(result) {
  const rows = []
  const columns = result[0]
  const special = columns.includes('__proto__')
  for (let at = FIRST_VALUE; at < result.length; at += columns.length) {
    rows.push(special ? toSpecialRow(columns, result, at) : toRow(columns, result, at))
  }
  return rows
}

function toRow(columns, result, at) {
  const row = {}
  for (let i = 0; i < columns.length; i++) row[columns[i]] = result[at + i]
  return row
}

function toSpecialRow(columns, result, at) {
  const row = {}
  for (let i = 0; i < columns.length; i++) define(row, columns[i], result[at + i])
  return row
}

// Plain assignment to '__proto__' would set the prototype.
function define(row, name, value) {
  Object.defineProperty(row, name, { value, writable: true, enumerable: true, configurable: true })
}

/** Checks the parameters of a statement: none, a list, or an object by name. */
export function checkParams(where, params) {
  if (params === undefined || Array.isArray(params) || isPlain(params)) return
  throw usage(
    `${where}: parameters must be an array or an object by name, not ${kindOf(params)}` +
      `; write [value] for a single one`,
  )
}

/** Checks that `sql` is text. */
export function checkSql(where, sql) {
  if (typeof sql !== 'string') throw usage(`${where}: the SQL must be a string, not ${kindOf(sql)}`)
}

/** About how much memory a row takes on its way to the disk: what load() sizes its groups by. */
export function rowBytes(row) {
  let size = 0
  for (const name in row) {
    const value = row[name]
    if (typeof value === 'string') size += value.length
    else size += value?.byteLength ?? 8
  }
  return size
}

// A digest of what a table holds: equal for two peers exactly when rows, values and their types are.

import { createHash } from 'node:crypto'

/** Of every replicated table, in order of name: [{ name, rows, digest }]. */
export async function digestAll(db) {
  const tables = []
  for (const name of db.status().tables.sort()) tables.push({ name, ...(await digest(db, name)) })
  return tables
}

/** SHA-256 over all rows in order of the primary key. */
async function digest(db, table) {
  const key = await db.all('SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk', [table])
  const order = key.map(({ name }) => quote(name)).join(', ')
  const hash = createHash('sha256')
  let rows = 0
  const all = db.iterate(`SELECT * FROM ${quote(table)} ORDER BY ${order}`, [], {
    readBigInts: true,
  })
  for await (const row of all) {
    rows++
    hash.update(Object.values(row).map(encode).join(''))
  }
  return { rows, digest: hash.digest('hex') }
}

const quote = (name) => `"${name.replaceAll('"', '""')}"`

// The type, the length where it varies, and the value without loss.
function encode(value) {
  if (value === null) return 'n;'
  if (typeof value === 'bigint') return `i${value};`
  if (typeof value === 'number') return `r${Object.is(value, -0) ? '-0' : value};`
  if (typeof value === 'string') return `t${value.length}:${value};`
  return `b${value.length}:${Buffer.from(value).toString('hex')};`
}

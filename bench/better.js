// better-sqlite3, what a user would take who needs no replication: plain tables, synchronous calls.

import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { COUNT, checkRows, TABLE } from './data.js'

const require = createRequire(import.meta.url)
const OUT = fileURLToPath(new URL('../build/bench', import.meta.url))
const BINARY = join(OUT, 'better_sqlite3.node')

// Its own binaries need Node-API 10, which Node 20 has only as an experiment, and die there without a
// word: https://github.com/WiseLibs/better-sqlite3/issues/1514. The same source, built for that
// experiment, runs.
const NEEDS_BUILD = Number(process.versions.napi) < 10
const FLAGS = '-UNAPI_VERSION -DNAPI_EXPERIMENTAL -DNODE_API_EXPERIMENTAL_NOGC_ENV_OPT_OUT'

/** Builds it where this version of Node needs that; once, about a minute. */
export function prepareBetter() {
  if (!NEEDS_BUILD || existsSync(BINARY)) return
  const dir = dirname(require.resolve('better-sqlite3/package.json'))
  console.log(`building better-sqlite3 for Node ${process.versions.node} (once) ...`)
  const gyp = require.resolve('node-gyp/bin/node-gyp.js')
  const args = [gyp, '-C', dir, 'rebuild', '--release', '--force_build=1']
  const env = { ...process.env, CXXFLAGS: FLAGS }
  const { status, stderr } = spawnSync(process.execPath, args, { env, encoding: 'utf8' })
  if (status !== 0) throw new Error(`better-sqlite3 could not be built:\n${stderr}`)
  mkdirSync(OUT, { recursive: true })
  copyFileSync(join(dir, 'build/Release/better_sqlite3.node'), BINARY)
  rmSync(join(dir, 'build'), { recursive: true })
}

/**
 * Opens a file with the plain table. `synchronous`: 'FULL' or 'NORMAL'. Gives { db, put(row),
 * putMany(rows), insertMany(rows), get(id) }: put() upserts a row in a transaction of its own, the others
 * upsert or insert all rows in one.
 */
export function openBetter(path, synchronous) {
  const db = new Database(path, NEEDS_BUILD ? { nativeBinding: BINARY } : {})
  db.pragma('journal_mode = WAL')
  db.pragma(`synchronous = ${synchronous}`)
  db.exec(TABLE)
  const columns = ['tenantId', 'name', 'mail', 'body', 'updatedAt']
  const values = `INSERT INTO item (id, ${columns.join(', ')}) VALUES (?, ?, ?, ?, ?, ?)`
  const sets = columns.map((name) => `${name} = excluded.${name}`).join(', ')
  const inserting = db.prepare(values)
  const upserting = db.prepare(`${values} ON CONFLICT (id) DO UPDATE SET ${sets}`)
  const getting = db.prepare('SELECT * FROM item WHERE id = ?')
  const run = (statement, { id, tenantId, name, mail, body, updatedAt }) =>
    statement.run(id, tenantId, name, mail, body, updatedAt)
  const transaction = (statement) =>
    db.transaction((rows) => {
      for (const row of rows) run(statement, row)
    })
  return {
    db,
    put: (row) => run(upserting, row),
    putMany: transaction(upserting),
    insertMany: transaction(inserting),
    get: (id) => getting.get(id),
  }
}

/** Closes it. Throws if it does not hold `rows` rows. */
export function closeBetter(db, rows) {
  checkRows(db.prepare(COUNT).get(), rows)
  db.close()
}

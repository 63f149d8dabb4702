// What one would take who needs no replication: plain tables without a log. Each peer is opened with
// open(path, synchronous) and gives { put(row), putMany(rows), get(id), all(n), close(rows) }, some of them
// asynchronous: put() upserts a row in a transaction of its own, putMany() all rows in one.

import { once } from 'node:events'
import { COUNT, checkRows, TABLE } from './data.js'

const NAMES = ['id', 'tenantId', 'name', 'mail', 'body', 'updatedAt']
const SETS = NAMES.slice(1).map((name) => `${name} = excluded.${name}`)
const PUT = `INSERT INTO item (${NAMES.join(', ')}) VALUES (?, ?, ?, ?, ?, ?)
  ON CONFLICT (id) DO UPDATE SET ${SETS.join(', ')}`
const GET = 'SELECT * FROM item WHERE id = ?'
const ALL = 'SELECT * FROM item WHERE id <= ?'
const setUp = (synchronous) =>
  `PRAGMA journal_mode = WAL; PRAGMA synchronous = ${synchronous}; ${TABLE}`

/** An import that may not be there: node:sqlite in an older Node, bun:sqlite in Node. */
const optional = (name) => import(name).catch(() => undefined)

// The two drivers with statements that are executed on the calling thread.
function synchronousPeer(db, put, get, all, count) {
  const run = ({ id, tenantId, name, mail, body, updatedAt }) =>
    put.run(id, tenantId, name, mail, body, updatedAt)
  return {
    put: run,
    putMany(rows) {
      db.exec('BEGIN')
      for (const row of rows) run(row)
      db.exec('COMMIT')
    },
    get: (id) => get.get(id),
    all: (n) => all.all(n),
    query: (sql) => db.prepare(sql).get(),
    close(rows) {
      if (rows !== undefined) checkRows(count.get(), rows)
      db.close()
    },
  }
}

function opener(Database) {
  return (path, synchronous) => {
    const db = new Database(path)
    db.exec(setUp(synchronous))
    return synchronousPeer(db, ...[PUT, GET, ALL, COUNT].map((sql) => db.prepare(sql)))
  }
}

// node-sqlite3: each call a job of a thread pool, as ours, and an answer by callback.
const openNodeSqlite3 = (sqlite3) => async (path, synchronous) => {
  const db = new sqlite3.Database(path)
  await once(db, 'open')
  db.serialize()
  const call = (on, method, ...args) =>
    new Promise((resolve, reject) =>
      on[method](...args, (error, result) => (error ? reject(error) : resolve(result))),
    )
  await call(db, 'exec', setUp(synchronous))
  const [put, get, all] = [PUT, GET, ALL].map((sql) => db.prepare(sql))
  const values = ({ id, tenantId, name, mail, body, updatedAt }) => [
    id,
    tenantId,
    name,
    mail,
    body,
    updatedAt,
  ]
  return {
    put: (row) => call(put, 'run', values(row)),
    async putMany(rows) {
      const calls = [call(db, 'exec', 'BEGIN')]
      for (const row of rows) calls.push(call(put, 'run', values(row)))
      await Promise.all([...calls, call(db, 'exec', 'COMMIT')])
    },
    get: (id) => call(get, 'get', id),
    all: (n) => call(all, 'all', n),
    async close(rows) {
      if (rows !== undefined) checkRows(await call(db, 'get', COUNT), rows)
      for (const statement of [put, get, all]) await call(statement, 'finalize')
      await call(db, 'close')
    },
  }
}

const [better, nodeSqlite, bunSqlite, sqlite3] = await Promise.all(
  ['better-sqlite3', 'node:sqlite', 'bun:sqlite', 'sqlite3'].map(optional),
)

/** name -> open(path, synchronous), those that this program can load. */
export const PEERS = Object.fromEntries(
  [
    ['better-sqlite3', !process.versions.bun && better && opener(better.default)],
    ['node:sqlite', nodeSqlite && opener(nodeSqlite.DatabaseSync)],
    ['bun:sqlite', bunSqlite && opener(bunSqlite.Database)],
    ['node-sqlite3', sqlite3 && openNodeSqlite3(sqlite3.default)],
  ].filter(([, open]) => open),
)

/** A synchronous one: what most figures are against. */
export const MAIN = Object.keys(PEERS)[0]
export const openMain = (path, synchronous) => PEERS[MAIN](path, synchronous)

// Writing: replic-sqlite (table, log and index) against plain tables, and against the floor, a C program that
// makes the same b-tree writes.

import { makeRows } from './data.js'
import { concurrently, floorRate, seconds, withFile } from './harness.js'
import { MAIN, openMain, PEERS } from './peers.js'
import { closeReplic, openReplic } from './replic.js'

const PER_CALL = 1000
const IN_FLIGHT = 1000

// A side: opens a fresh file, writes `count` rows, gives rows per second.
const replic = (synchronous, count, write) => () =>
  withFile(async (path) => {
    const db = await openReplic(path, synchronous)
    const rows = makeRows(count)
    const time = await seconds(() => write(db, rows))
    await closeReplic(db, count)
    return count / time
  })
const peer = (open, synchronous, count, write) => () =>
  withFile(async (path) => {
    const db = await open(path, synchronous)
    const rows = makeRows(count)
    const time = await seconds(() => write(db, rows))
    await db.close(count)
    return count / time
  })
const others = (mode, count, put) =>
  Object.fromEntries(
    Object.entries(PEERS).map(([name, open]) => [name, peer(open, mode, count(name), put)]),
  )

const oneByOne = async (db, rows) => {
  for (const row of rows) await db.upsert('item', row)
}
const manyAtOnce = (db, rows) =>
  concurrently(rows.length, IN_FLIGHT, (i) => db.upsert('item', rows[i]))
const perCall = async (db, rows) => {
  for (let i = 0; i < rows.length; i += PER_CALL) {
    await db.upsert('item', rows.slice(i, i + PER_CALL))
  }
}
const putEach = async (db, rows) => {
  for (const row of rows) {
    const putting = db.put(row)
    if (putting?.then) await putting // the synchronous ones shall not pay for the others
  }
}
const putMany = async (db, rows) => {
  for (let i = 0; i < rows.length; i += PER_CALL) await db.putMany(rows.slice(i, i + PER_CALL))
}

// Of what waits for the disk with each row, fewer rows: a rate is a rate.
const FEW = { FULL: 300, NORMAL: 5_000 }
const MANY = 50_000
const BULK = 200_000
const bulkOf = (name) => (name === 'node-sqlite3' ? MANY : BULK)
const FLOOR = 'C, same b-tree writes'

export const benches = ['NORMAL', 'FULL'].flatMap((mode) => [
  {
    name: `bulk-${mode}`,
    title: `upsert, 1,000 rows per call, ${mode}`,
    sides: {
      'replic-sqlite': replic(mode, BULK, perCall),
      ...others(mode, bulkOf, putMany),
      [FLOOR]: () => floorRate('write', 'key', 'up', mode, BULK, PER_CALL),
    },
    reach: { [MAIN]: 1, [FLOOR]: 0.75 },
  },
  {
    name: `first-${mode}`,
    title: `upsert, 1,000 rows per call, the first 50,000 of a file, ${mode}`,
    sides: {
      'replic-sqlite': replic(mode, MANY, perCall),
      [MAIN]: peer(openMain, mode, MANY, putMany),
      [FLOOR]: () => floorRate('write', 'key', 'up', mode, MANY, PER_CALL),
    },
  },
  {
    name: `flight-${mode}`,
    title: `upsert, 1,000 calls in flight, ${mode}`,
    sides: {
      'replic-sqlite': replic(mode, MANY, manyAtOnce),
      [MAIN]: peer(openMain, mode, FEW[mode], putEach),
      [FLOOR]: () => floorRate('write', 'key', 'up', mode, MANY, 64),
    },
    reach: { [MAIN]: mode === 'FULL' ? 20 : 3 },
  },
  {
    name: `one-${mode}`,
    title: `upsert, one call at a time, ${mode}`,
    sides: {
      'replic-sqlite': replic(mode, FEW[mode], oneByOne),
      ...others(mode, () => FEW[mode], putEach),
      [FLOOR]: () => floorRate('write', 'key', 'up', mode, FEW[mode], 1),
    },
    reach: { [MAIN]: mode === 'FULL' ? 1 : 0.5 },
  },
])

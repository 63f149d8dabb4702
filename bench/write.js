// Writing: replic-sqlite (table and log, with their indexes) against the plain table alone.

import { closeBetter, openBetter } from './better.js'
import { makeRows } from './data.js'
import { concurrently, seconds, withFile } from './harness.js'
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
const better = (synchronous, count, write) => () =>
  withFile(async (path) => {
    const { db, ...calls } = openBetter(path, synchronous)
    const rows = makeRows(count)
    const time = await seconds(() => write(calls, rows))
    closeBetter(db, count)
    return count / time
  })

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
const putEach = (calls, rows) => {
  for (const row of rows) calls.put(row)
}
const putMany = (calls, rows) => {
  for (let i = 0; i < rows.length; i += PER_CALL) calls.putMany(rows.slice(i, i + PER_CALL))
}

// Of what waits for the disk with each row, fewer rows: a rate is a rate.
const FEW = { FULL: 300, NORMAL: 5_000 }
const MANY = 50_000

export const benches = ['NORMAL', 'FULL'].flatMap((mode) => [
  {
    name: `one-${mode}`,
    title: `upsert, one by one, ${mode}`,
    against: 'one transaction per row',
    sides: {
      replic: replic(mode, FEW[mode], oneByOne),
      better: better(mode, FEW[mode], putEach),
    },
  },
  {
    name: `concurrent-${mode}`,
    title: `upsert, 1,000 in flight, ${mode}`,
    against: 'one transaction per row',
    sides: { replic: replic(mode, MANY, manyAtOnce), better: better(mode, FEW[mode], putEach) },
  },
  {
    name: `bulk-${mode}`,
    title: `upsert, 1,000 rows per call, ${mode}`,
    against: 'transactions of 1,000 rows',
    sides: { replic: replic(mode, MANY, perCall), better: better(mode, MANY, putMany) },
  },
])

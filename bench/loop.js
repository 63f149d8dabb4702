// How long the event loop is kept from other work while the database is busy: with replic-sqlite, whose
// statements run on other threads, and with better-sqlite3 doing the same on this one.
//
// A timer of 1 ms tells when the loop was there; the delay at any moment is how late an event at that
// moment would have been handled. So percentiles are of time, not of timer calls: a block of 50 ms
// counts as the 50 delays of 50, 49, 48, ... ms that it is.

import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import { connect } from '../lib/transport/tcp.js'
import { withSource } from './apply.js'
import { makeRows } from './data.js'
import { withFile } from './harness.js'
import { MAIN, openMain } from './peers.js'
import { withFilled as withBoth } from './read.js'
import { openReplic } from './replic.js'

const LOAD_MS = 700 // how long a load lasts per round
const WARM_MS = 200 // before it is measured
const ROWS = 100_000 // in the table that is read
const MANY = 1000
const LONG_QUERY = "SELECT count(*) AS n FROM item WHERE body LIKE '%lazy%99'"

/** Delays in ms, { p50, p99, max }, while `load(isOver)` runs until isOver(). */
async function delays(load) {
  const list = []
  let last
  const tick = () => {
    const now = performance.now()
    for (let late = now - last - 1; late > 0; late--) list.push(late)
    last = now
    timer = setTimeout(tick, 1)
  }
  const end = performance.now() + WARM_MS + LOAD_MS
  const start = () => {
    last = performance.now()
    tick()
  }
  let timer = setTimeout(start, WARM_MS)
  await load(() => performance.now() > end)
  clearTimeout(timer)
  list.sort((a, b) => a - b)
  const at = (share) => list[Math.min(list.length - 1, Math.floor(list.length * share))] ?? 0
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}

// Once: to collect those of a side before would be a pause of the loop's.
let rows

const replic = (load) => () =>
  withFile(async (path) => {
    const db = await openReplic(path, 'FULL')
    rows ??= makeRows(ROWS)
    const result = await delays((isOver) => load(db, rows, isOver))
    await db.close()
    return result
  })
const better = (load) => () =>
  withFile(async (path) => {
    const db = openMain(path, 'FULL')
    rows ??= makeRows(ROWS)
    const result = await delays((isOver) => load(db, rows, isOver))
    db.close()
    return result
  })

/** Nothing, for as long as a load lasts. */
const lull = () => delay(WARM_MS + LOAD_MS)

/** `inFlight` loops of `work(i)` until it is over. */
async function keepDoing(inFlight, isOver, work) {
  let i = 0
  const one = async () => {
    while (!isOver()) await work(i++)
  }
  await Promise.all(Array.from({ length: inFlight }, one))
}

const some = (rows, i) => {
  const first = (i * MANY) % (rows.length - MANY)
  return rows.slice(first, first + MANY)
}

// The synchronous side gives the loop a turn after each transaction, as a server does between requests.
const writing = {
  'replic-sqlite': replic((db, rows, isOver) =>
    keepDoing(MANY, isOver, (i) => db.upsert('item', rows[i % ROWS])),
  ),
  [MAIN]: better((calls, rows, isOver) =>
    keepDoing(1, isOver, (i) => {
      calls.put(rows[i % ROWS])
      return turn()
    }),
  ),
}
const bulk = {
  'replic-sqlite': replic((db, rows, isOver) =>
    keepDoing(2, isOver, (i) => db.upsert('item', some(rows, i))),
  ),
  [MAIN]: better((calls, rows, isOver) =>
    keepDoing(1, isOver, (i) => {
      calls.putMany(some(rows, i))
      return turn()
    }),
  ),
}
const applying = ({ port }) => ({
  'replic-sqlite': replic((db) => {
    connect(db, { port })
    return lull()
  }),
  [MAIN]: bulk[MAIN],
})

const withFilled = (use) => withBoth(use, ROWS)

const reading = (db, plain) => ({
  'replic-sqlite': () =>
    delays((isOver) =>
      keepDoing(64, isOver, (i) => db.get('SELECT * FROM item WHERE id = ?', [(i % ROWS) + 1])),
    ),
  [MAIN]: () =>
    delays((isOver) =>
      keepDoing(1, isOver, (i) => {
        plain.get((i % ROWS) + 1)
        return turn()
      }),
    ),
})
const longQuery = (db, plain) => {
  return {
    'replic-sqlite': () => delays((isOver) => keepDoing(2, isOver, () => db.get(LONG_QUERY))),
    [MAIN]: () =>
      delays((isOver) =>
        keepDoing(1, isOver, () => {
          plain.query(LONG_QUERY)
          return turn()
        }),
      ),
  }
}

const idle = () => delays(lull)

export const benches = [
  {
    name: 'loop-idle',
    title: 'nothing (what the timer itself costs)',
    sides: { 'replic-sqlite': idle },
  },
  { name: 'loop-write', title: 'upserts, 1,000 in flight | one by one', sides: writing },
  { name: 'loop-bulk', title: 'upserts, 1,000 rows per call', sides: bulk },
  {
    name: 'loop-apply',
    title: 'patches of another peer | inserts, 1,000 per transaction',
    around: (measure) => withSource({ perGroup: MANY }, (source) => measure(applying(source))),
  },
  {
    name: 'loop-get',
    title: 'gets by key, 64 in flight | one by one',
    around: (measure) => withFilled((db, plain) => measure(reading(db, plain))),
  },
  {
    name: 'loop-query',
    title: 'a query of the whole table, 2 at once | one by one',
    around: (measure) => withFilled((db, plain) => measure(longQuery(db, plain))),
  },
].map((bench) => ({ ...bench, title: `event loop: ${bench.title}`, unit: 'ms late' }))

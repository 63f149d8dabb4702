// Reading: by key, a thousand rows, a million.

import { makeRows } from './data.js'
import { concurrently, seconds, withFile } from './harness.js'
import { MAIN, openMain, PEERS } from './peers.js'
import { openReplic } from './replic.js'

const ROWS = 100_000
const READS = 20_000
const QUERIES = 100
const PER_QUERY = 1000
const MANY = 1_000_000
const keyOf = (i) => ((i * 7919) % ROWS) + 1 // all over the table
const GET = 'SELECT * FROM item WHERE id = ?'
const ALL = 'SELECT * FROM item WHERE id <= ?'

/** Runs `use(db, plain, asynchronous)` with all tables filled. */
export const withFilled = (use, count = ROWS) =>
  withFile((path) =>
    withFile((plainPath) =>
      withFile(async (otherPath) => {
        const rows = makeRows(count)
        const db = await openReplic(path, 'NORMAL')
        await db.load('item', rows)
        const plain = openMain(plainPath, 'NORMAL')
        plain.putMany(rows)
        const other = await PEERS['node-sqlite3']?.(otherPath, 'NORMAL')
        await other?.putMany(rows)
        try {
          return await use(db, plain, other)
        } finally {
          await other?.close()
          plain.close()
          await db.close()
        }
      }),
    ),
  )

const rate = (count, work) => async () => count / (await seconds(work))
const inTurn = (count, work) => () => {
  for (let i = 0; i < count; i++) work(i)
}

const point = (inFlight, reach) => ({
  name: `get-${inFlight}`,
  title: `get by key, ${inFlight === 1 ? 'one at a time' : `${inFlight} in flight`}`,
  around: (measure) =>
    withFilled((db, plain, other) => {
      const count = inFlight === 1 ? READS / 4 : READS
      return measure({
        'replic-sqlite': rate(count, () =>
          concurrently(count, inFlight, (i) => db.get(GET, [keyOf(i)])),
        ),
        [MAIN]: rate(
          READS,
          inTurn(READS, (i) => plain.get(keyOf(i))),
        ),
        ...(other && {
          'node-sqlite3': rate(count, () =>
            concurrently(count, inFlight, (i) => other.get(keyOf(i))),
          ),
        }),
      })
    }),
  reach: reach && { [MAIN]: reach },
})

const pointSync = {
  name: 'get-sync',
  title: 'getSync by key',
  around: (measure) =>
    withFilled((db, plain) =>
      measure({
        'replic-sqlite': rate(
          READS,
          inTurn(READS, (i) => db.getSync(GET, [keyOf(i)])),
        ),
        [MAIN]: rate(
          READS,
          inTurn(READS, (i) => plain.get(keyOf(i))),
        ),
      }),
    ),
  reach: { [MAIN]: 1 },
}

const rowsOf = (name, title, query) => ({
  name,
  title,
  around: (measure) =>
    withFilled((db, plain) =>
      measure({
        'replic-sqlite': rate(QUERIES * PER_QUERY, () => query(db)),
        [MAIN]: rate(
          QUERIES * PER_QUERY,
          inTurn(QUERIES, () => plain.all(PER_QUERY)),
        ),
      }),
    ),
  reach: { [MAIN]: 1 },
})

// What iterate() holds while it goes over a million rows: memory of the process above that before it.
const iterating = {
  name: 'iterate',
  title: 'iterate over 1,000,000 rows: memory above that before it',
  unit: 'MiB',
  sides: {
    'replic-sqlite': () =>
      withFile(async (path) => {
        const db = await openReplic(path, 'NORMAL')
        await db.run(
          `INSERT INTO item
          WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${MANY})
          SELECT i, i, 'name', 'mail', 'the quick brown fox jumps over the lazy dog', i FROM n`,
          [],
          { unsafe: true },
        )
        let most = 0
        let seen = 0
        let before
        for await (const { id } of db.iterate('SELECT * FROM item')) {
          if (id % 10_000 === 0) {
            const { rss } = process.memoryUsage()
            before ??= rss
            most = Math.max(most, rss - before)
          }
          seen++
        }
        await db.close()
        if (seen !== MANY) throw new Error(`iterate has given ${seen} rows`)
        return most / 2 ** 20
      }),
  },
  rounds: 1,
}

export const benches = [
  pointSync,
  point(64, 0.8),
  point(1),
  rowsOf('all-1000', 'all, 1,000 rows', async (db) => {
    for (let i = 0; i < QUERIES; i++) await db.all(ALL, [PER_QUERY])
  }),
  rowsOf('all-sync', 'allSync, 1,000 rows', (db) => {
    for (let i = 0; i < QUERIES; i++) db.allSync(ALL, [PER_QUERY])
  }),
  iterating,
]

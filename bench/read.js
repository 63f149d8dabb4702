// Reading rows by key.

import { openBetter } from './better.js'
import { makeRows } from './data.js'
import { concurrently, seconds, withFile } from './harness.js'
import { openReplic } from './replic.js'

const ROWS = 100_000
const READS = 20_000
const keyOf = (i) => ((i * 7919) % ROWS) + 1 // all over the table

/** Runs `use(db, plain)` with both tables filled. */
const withBoth = (use) =>
  withFile((path) =>
    withFile(async (plainPath) => {
      const rows = makeRows(ROWS)
      const db = await openReplic(path, 'NORMAL')
      await db.load('item', rows)
      const plain = openBetter(plainPath, 'NORMAL')
      plain.insertMany(rows)
      try {
        return await use(db, plain)
      } finally {
        plain.db.close()
        await db.close()
      }
    }),
  )

const reading = (inFlight) => ({
  name: `get-${inFlight}`,
  title: inFlight === 1 ? 'get by key, one at a time' : `get by key, ${inFlight} in flight`,
  against: 'get() of a prepared statement',
  around: (measure) =>
    withBoth((db, plain) => {
      const get = (i) => db.get('SELECT * FROM item WHERE id = ?', [keyOf(i)])
      return measure({
        replic: async () => READS / (await seconds(() => concurrently(READS, inFlight, get))),
        better: async () =>
          READS /
          (await seconds(() => {
            for (let i = 0; i < READS; i++) plain.get(keyOf(i))
          })),
      })
    }),
})

export const benches = [reading(1), reading(64)]

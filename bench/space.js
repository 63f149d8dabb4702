// Bytes, which need no clock: of a patch on the wire beyond its values, and of the file beside the plain table.

import { once } from 'node:events'
import { statSync } from 'node:fs'
import { connect } from '../lib/transport/tcp.js'
import { withSource } from './apply.js'
import { makeRows } from './data.js'
import { withFile } from './harness.js'
import { openMain } from './peers.js'
import { openReplic } from './replic.js'

const ROWS = 100_000
const HOT_KEYS = 10_000
const LIVE = 200

// What the values are without any encoding: the bytes of texts, and integers at their shortest.
function valueBytes(row) {
  let bytes = 0
  for (const value of Object.values(row)) {
    if (typeof value === 'string') bytes += Buffer.byteLength(value)
    else for (let rest = value; rest > 0; rest = Math.floor(rest / 256)) bytes++
  }
  return bytes
}
const averageBytes = (rows) => rows.reduce((sum, row) => sum + valueBytes(row), 0) / rows.length

const bytesIn = (db) => db.status().links.reduce((sum, { bytesIn }) => sum + bytesIn, 0)

const catchingUp = () =>
  withSource({ rows: ROWS }, ({ port, token }) =>
    withFile(async (path) => {
      const db = await openReplic(path, 'NORMAL')
      connect(db, { port })
      await db.waitFor(token, 60_000)
      const bytes = bytesIn(db) / ROWS
      await db.close()
      return bytes - averageBytes(makeRows(ROWS))
    }),
  )

// One row at a time, awaited at the other side before the next: a frame for each.
const live = () =>
  withFile((path) =>
    withFile(async (otherPath) => {
      const { listen } = await import('../lib/transport/tcp.js')
      const [from, to] = [await openReplic(path, 'NORMAL'), await openReplic(otherPath, 'NORMAL')]
      const linked = once(to, 'synced')
      connect(to, { port: (await listen(from)).address().port })
      await linked
      const rows = makeRows(LIVE + 1)
      await to.waitFor(await from.upsert('item', rows[LIVE]), 10_000) // brings the table's definition
      const before = bytesIn(to)
      for (let i = 0; i < LIVE; i++) await to.waitFor(await from.upsert('item', rows[i]), 10_000)
      const bytes = (bytesIn(to) - before) / LIVE
      await to.close()
      await from.close()
      return bytes - averageBytes(rows)
    }),
  )

// The file after the WAL has gone into it, in MiB. `rounds`: how often each row is written.
const replicFile = (keys) =>
  withFile(async (path) => {
    const db = await openReplic(path, 'NORMAL')
    for (let i = 0; i < ROWS; i += keys) await db.load('item', makeRows(keys))
    await db.compact({ maxPatchRetentionMs: 0 })
    await db.exec('VACUUM').catch(() => {}) // refused: then it is as it is
    await db.close()
    return statSync(path).size / 2 ** 20
  })
const plainFile = (keys) =>
  withFile(async (path) => {
    const db = openMain(path, 'NORMAL')
    db.putMany(makeRows(keys))
    await db.close(keys)
    return statSync(path).size / 2 ** 20
  })
const PLAIN = 'the plain table'
const disk = (name, title, keys, reach) => ({
  name,
  title,
  unit: 'MiB',
  sides: { 'replic-sqlite': () => replicFile(keys), [PLAIN]: () => plainFile(keys) },
  reach,
  rounds: 1,
})

export const benches = [
  {
    name: 'wire',
    title: 'bytes of a patch beyond its values',
    unit: 'bytes',
    sides: {
      'replic-sqlite': async () => ({
        'in catch-up': await catchingUp(),
        'in a frame of one': await live(),
      }),
      'as it shall be, at most': () => ({ 'in catch-up': 12, 'in a frame of one': 40 }),
    },
    reach: {},
    rounds: 1,
  },
  disk('disk-inserts', 'file after compaction, each row written once', ROWS, { [PLAIN]: 2.5 }),
  disk('disk-updates', 'file after compaction, each row written ten times', HOT_KEYS),
]

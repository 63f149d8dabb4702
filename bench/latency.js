// From the call of upsert() until another process sees the row by SELECT, over TCP on this machine; against half a
// round trip of as many bytes between two processes that do nothing else, as many a second (both have to be woken then,
// with caches that are cold) or one after another. Both processes read the same monotonic clock. Microseconds.
// What lies between is two transactions, each of which is made by a thread of its own. So two more rows: to such a thread
// and back with next to nothing to do there, and with a row to write. The latency cannot be less than half the round trip
// and two of the former; half the round trip and two of the latter is what there is to expect.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { listen } from '../lib/transport/tcp.js'
import { makeRows } from './data.js'
import { withFile } from './harness.js'
import { openReplic } from './replic.js'

const PEER = fileURLToPath(new URL('latency-peer.js', import.meta.url))
const PINGS = 2000
const HOPS = 1000
const BARE = 'half a bare round trip, as often'
const IN_A_ROW = 'the same, one after another'

const now = () => Number(process.hrtime.bigint() / 1000n)

function percentiles(list) {
  const sorted = [...list].sort((a, b) => a - b)
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]
  return { p50: at(0.5), p99: at(0.99) }
}

async function withPeer(options, use) {
  const child = fork(PEER, [JSON.stringify(options)])
  const next = async () => (await once(child, 'message'))[0]
  try {
    await next() // ready
    return await use(next)
  } finally {
    const ended = once(child, 'exit')
    child.disconnect()
    await ended
  }
}

/** `perSecond` writes, evenly spread in turns of the event loop, `count` in all. */
async function write(db, rows, perSecond) {
  const times = []
  const began = now()
  const calls = []
  while (times.length < rows.length) {
    const due = Math.min(rows.length, Math.floor(((now() - began) / 1e6) * perSecond) + 1)
    while (times.length < due) {
      const row = rows[times.length]
      times.push(now())
      calls.push(db.upsert('item', row))
    }
    await delay(perSecond < 100 ? 5 : 0)
  }
  await Promise.all(calls)
  return times
}

const throughReplicas = (mode, perSecond, count) => () =>
  withFile((path) =>
    withFile(async (peerPath) => {
      const db = await openReplic(path, mode)
      const { port } = (await listen(db)).address()
      const result = await withPeer({ path: peerPath, mode, port, count }, async (next) => {
        const seen = next()
        const times = await write(db, makeRows(count), perSecond)
        const { times: arrivals } = await seen
        return percentiles(arrivals.map((at, i) => at - times[i]))
      })
      await db.close()
      return result
    }),
  )

/** `pauseMs`: before each; null: none. */
const bare = (pauseMs, count) => async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const connected = once(server, 'connection')
  const result = await withPeer({ echo: server.address().port }, async () => {
    const [socket] = await connected
    socket.setNoDelay(true)
    const bytes = Buffer.alloc(200)
    const halves = []
    for (let i = 0; i < count; i++) {
      if (pauseMs !== null) await delay(pauseMs)
      const began = now()
      socket.write(bytes)
      for (let got = 0; got < bytes.length; ) got += (await once(socket, 'data'))[0].length
      halves.push((now() - began) / 2)
    }
    socket.destroy()
    return percentiles(halves)
  })
  server.close()
  return result
}

/** Calls that are awaited one by one, on a replica without links. */
const oneByOne = (mode, call) => () =>
  withFile(async (path) => {
    const db = await openReplic(path, mode)
    const rows = makeRows(HOPS)
    const times = []
    for (const row of rows) {
      const began = now()
      await call(db, row)
      times.push(now() - began)
    }
    await db.close()
    return percentiles(times)
  })

// A timer of 0 is one of a millisecond.
const pauseOf = (perSecond) => (perSecond > 1000 ? null : perSecond === 1000 ? 0 : 1000 / perSecond)

const latency = (mode, perSecond, count, reach) => ({
  name: `latency-${perSecond}-${mode}`,
  title: `until another process sees a row, ${perSecond.toLocaleString('en-US')} a second, ${mode}`,
  unit: 'µs',
  sides: {
    'replic-sqlite': throughReplicas(mode, perSecond, count),
    [BARE]: bare(pauseOf(perSecond), Math.min(count, PINGS)),
    [IN_A_ROW]: bare(null, PINGS),
    "get('SELECT 1'), awaited": oneByOne(mode, (db) => db.get('SELECT 1')),
    'upsert of one row, awaited': oneByOne(mode, (db, row) => db.upsert('item', row)),
  },
  reach: reach && { [`${BARE} p50`]: reach },
  rounds: perSecond === 1 ? 1 : 5,
})

export const benches = [
  latency('NORMAL', 1, 8, 2),
  latency('NORMAL', 1000, 1000, 2),
  latency('NORMAL', 10_000, 10_000),
  latency('FULL', 1000, 1000),
]

// What a write costs the writing process as its links grow: a frame is encoded once, so a link should add the copy
// into its socket, and the acknowledgement that comes back. Processor time of that process only; the peers are in
// another one. Each awaited upsert is a frame of its own for each link, the dearest case.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { listen } from '../lib/transport/tcp.js'
import { makeRows } from './data.js'
import { withFile } from './harness.js'
import { closeReplic, openReplic } from './replic.js'

const WRITES = 100
const PEERS = fileURLToPath(new URL('fanout-peers.js', import.meta.url))

/** Microseconds of processor time per upsert with so many links. */
const withLinks = (links) => () =>
  withFile(async (path) => {
    const db = await openReplic(path, 'NORMAL')
    const rows = makeRows(WRITES + 1)
    const token = await db.upsert('item', rows[WRITES])
    const { port } = (await listen(db)).address()
    const options = { port, links, dir: dirname(path), token }
    const child = fork(PEERS, [JSON.stringify(options)])
    await once(child, 'message')
    const before = process.cpuUsage()
    let last
    for (let i = 0; i < WRITES; i++) last = await db.upsert('item', rows[i])
    child.send({ token: last })
    await once(child, 'message') // all have it, and what they acknowledge has come or is on its way
    const { user, system } = process.cpuUsage(before)
    const ended = once(child, 'exit')
    child.disconnect()
    await ended
    await closeReplic(db, WRITES + 1)
    return (user + system) / WRITES
  })

export const benches = [
  {
    name: 'links',
    title: 'processor time of an upsert, 1 to 100 links, NORMAL',
    unit: 'µs',
    rounds: 3,
    around: async (measure) => {
      const figures = await measure({
        1: withLinks(1),
        10: withLinks(10),
        100: withLinks(100),
      })
      const rounds = figures[1].map((_, i) => {
        const [one, ten, hundred] = [1, 10, 100].map((links) => figures[links][i])
        return {
          'with 1 link': one,
          'with 10 links': ten,
          'with 100 links': hundred,
          'per write and link, of 100': (hundred - one) / 99,
        }
      })
      return { 'replic-sqlite': rounds }
    },
  },
]

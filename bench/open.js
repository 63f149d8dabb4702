// What an open replica costs: how long opening takes with a log of a million rows, and what is idle with links.

import { once } from 'node:events'
import { connect, listen } from '../lib/transport/tcp.js'
import { makeRows } from './data.js'
import { seconds, withFile } from './harness.js'
import { openReplic } from './replic.js'

const LINKS = 100
const IDLE_MS = 5000

const opening = (count, extra) => ({
  name: `open-${count}`,
  title: `open a file with ${count.toLocaleString('en-US')} log rows`,
  unit: 'ms',
  around: (measure) =>
    withFile((path) =>
      withFile(async (emptyPath) => {
        for (const [file, rows] of [
          [path, count],
          [emptyPath, 1],
        ]) {
          const db = await openReplic(file, 'NORMAL')
          for (let first = 1; first <= rows; first += 100_000) {
            await db.load('item', makeRows(Math.min(100_000, rows), first))
          }
          await db.close()
        }
        const open = (file) => async () => {
          let db
          const time = await seconds(async () => {
            db = await openReplic(file, 'NORMAL')
          })
          await db.close()
          return time * 1000
        }
        return measure({ 'replic-sqlite': open(path), 'a file with one': open(emptyPath) })
      }),
    ),
  ...extra,
})

// Replicas of one process that are linked to one another: what a hub holds for each of its links, and what
// nothing costs it.
async function idleWith(links) {
  const dirs = []
  const open = () =>
    new Promise((resolve, reject) => {
      withFile(async (path) => {
        resolve(await openReplic(path, 'NORMAL'))
        await new Promise((end) => dirs.push(end))
      }).catch(reject)
    })
  const hub = await open()
  const { port } = (await listen(hub)).address()
  const others = []
  for (let i = 0; i < links; i++) {
    const other = await open()
    const synced = once(other, 'synced')
    connect(other, { port })
    others.push(other)
    await synced
  }
  global.gc?.()
  const rss = process.memoryUsage().rss / 2 ** 10
  const before = process.cpuUsage()
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS))
  const { user, system } = process.cpuUsage(before)
  for (const db of [...others, hub]) await db.close()
  for (const end of dirs) end()
  return { rss, cpu: (user + system) / 10 / IDLE_MS } // KiB, percent of a core
}

const idle = {
  name: 'idle',
  title: `idle: per link of ${LINKS}, with the replica at its other end, in one process`,
  unit: 'KiB, % of a core',
  sides: {
    'replic-sqlite': async () => {
      const [alone, linked] = [await idleWith(0), await idleWith(LINKS)]
      return {
        KiB: (linked.rss - alone.rss) / LINKS,
        '%': (linked.cpu - alone.cpu) / LINKS,
        '% alone': alone.cpu,
      }
    },
  },
  rounds: 1,
}

export const benches = [opening(1_000_000), opening(10_000_000, { onlyByName: true }), idle]

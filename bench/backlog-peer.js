// A peer of backlog.js, in a process of its own, whose memory it measures. Arguments: the path of a file to
// create, and options of Replica.open() as JSON. Answers what its parent asks, one thing after another.

import { once } from 'node:events'
import { Replica } from '../lib/index.js'
import { connect, listen } from '../lib/transport/tcp.js'
import { makeRows, PATCHES, TABLE } from './data.js'
import { concurrently, median } from './harness.js'

const PER_CALL = 100
const IN_FLIGHT = 8
const SAMPLE_MS = 20
const LONG_MS = 600_000

const [path, options] = process.argv.slice(2)
const db = await Replica.open(path, JSON.parse(options))
await db.migrate([{ up: TABLE + PATCHES }])

let samples = [] // { share of the patches that are written, bytes }
let share = 0

const asks = {
  async listen() {
    return (await listen(db)).address()
  },

  async dial({ port }) {
    const up = once(db, 'link')
    connect(db, { port })
    await up
  },

  async write({ count }) {
    setInterval(sample, SAMPLE_MS) // to the end: others are still fed when all is written
    let written = 0
    await concurrently(Math.ceil(count / PER_CALL), IN_FLIGHT, async (i) => {
      const rows = Math.min(PER_CALL, count - i * PER_CALL)
      await db.upsert('item', makeRows(rows, 1 + i * PER_CALL))
      written += rows
      share = written / count
    })
    const { peerId, vector } = db.status()
    return `${peerId}.${vector[peerId]}`
  },

  /** Of the time since it was last asked for. `early`: around a tenth of the patches, `late`: at the end. */
  memory() {
    const between = (from, to) =>
      samples.filter((each) => each.share >= from && each.share <= to).map(({ bytes }) => bytes)
    const figures = {
      early: median(between(0.05, 0.15)),
      late: median(between(0.95, 1)),
      peak: samples.reduce((most, { bytes }) => Math.max(most, bytes), 0),
    }
    samples = []
    return figures
  },

  wait: ({ token }) => db.waitFor(token, LONG_MS),

  /** How many of the patches up to the token are here, and how many links are up. */
  state({ token }) {
    const { vector, links } = db.status()
    const linksUp = links.filter(({ state }) => state === 'ready').length
    return { patches: vector[token.split('.')[0]] ?? 0, linksUp }
  },
}

function sample() {
  samples.push({ share, bytes: process.memoryUsage.rss() })
}

process.on('message', async ({ ask, ...args }) => {
  process.send({ answer: (await asks[ask](args)) ?? null })
})
process.on('disconnect', () => process.exit())

// npm run bench:links [-- NAME ...]: when things arrive over lines that are slow, in real time.
//
//   behind   a row of one peer behind a backlog of 20 MB (over 1 MB/s), or 400 KB (over 64 kbit/s), of another; the
//            peer with the backlog has the lower peerId, or the higher one: hub relays both over one slow line
//   mesh     of what A writes, the line to C carries half; B, beside it, carries all: how old a row is when C has it
//   jump     a new peer jumps past the pruned log of another process, of 1,000,000 rows, and writes meanwhile: how long
//            its longest upsert takes, how long its WAL gets, whether the link lasts
//   herd     a hub of 59 leaves is killed, and comes back when each of them has written 20 rows, half of them one row
//            again and again, which they have pruned: until a new row, and until all, is everywhere
//   answers  two peers that each write when they see the other's row: how far their clocks get ahead of time
//
// Durability is 'normal', so that the disk is not what is measured. The lines are TcpProxies within this process.
// README.md has figures.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { connect, listen } from '../lib/transport/tcp.js'
import { TcpProxy } from '../test/chaos/proxy.js'
import { withSource } from './apply.js'
import { makeRows } from './data.js'
import { withFile } from './harness.js'
import { openReplic } from './replic.js'

const BYTES_PER_ROW = 250 // about, on a line
const GROUP_ROWS = 20
const HUB = fileURLToPath(new URL('hub.js', import.meta.url))
const FAST = { retryMinMs: 10, retryMaxMs: 100 }

/** Calls `use(open)`; open(peerId) makes a replica, which is closed afterwards, as are `use`'s proxies. */
async function withPeers(use) {
  const opened = []
  const files = []
  const open = (peerId) =>
    new Promise((resolve, reject) => {
      files.push(
        withFile(
          (path) =>
            new Promise((done) => {
              openReplic(path, 'NORMAL', peerId).then((db) => {
                opened.push({ db, done })
                resolve(db)
              }, reject)
            }),
        ),
      )
    })
  const proxies = []
  const link = async (from, to, line) => {
    const { address } = await listen(to)
    const { port } = address()
    const proxy =
      line && (await TcpProxy.open({ target: { host: '127.0.0.1', port }, seed: 1, ...line }))
    if (proxy) proxies.push(proxy)
    const up = new Promise((resolve) => {
      from.on('link', ({ state, peerId }) => {
        if (state === 'up' && peerId === to.status().peerId) resolve()
      })
    })
    connect(from, { port: proxy ? proxy.address.port : port, ...FAST })
    await up
    return proxy
  }
  try {
    return await use(open, link)
  } finally {
    await Promise.all(proxies.map((proxy) => proxy.close()))
    for (const { db, done } of opened) await db.close({ timeoutMs: 60_000 }).finally(done)
    await Promise.all(files)
  }
}

/** Seconds until a row of the peer without a backlog is at the far end of the line. */
const behind = (kbit, bytes, isBacklogFirst) =>
  withPeers(async (open, link) => {
    const [low, hub, far, high] = [await open(1), await open(5), await open(6), await open(9)]
    const [busy, quiet] = isBacklogFirst ? [low, high] : [high, low]
    await link(busy, hub)
    await link(quiet, hub)
    await link(far, hub, { kbit })
    const rows = makeRows(bytes / BYTES_PER_ROW) // in small groups: one is a frame, and never divided
    for (let at = 0; at < rows.length; at += GROUP_ROWS) {
      await busy.upsert('item', rows.slice(at, at + GROUP_ROWS))
    }
    await hub.waitFor(busy.token())
    const began = performance.now()
    await far.waitFor(await quiet.upsert('item', { id: 0, name: 'small' }), 600_000)
    return (performance.now() - began) / 1000
  })

/** Milliseconds from the write at A until the row is at C: the 99th percentile of the later half. */
const mesh = (ms) =>
  withPeers(async (open, link) => {
    const [a, b, c] = [await open(1), await open(2), await open(3)]
    await link(a, b)
    await link(b, c)
    await link(c, a, { kbit: 8 * 20 })
    const ages = []
    const arrivals = []
    const began = performance.now()
    for (let id = 1; performance.now() - began < ms; id++) {
      const at = performance.now()
      const token = await a.upsert('item', { id, body: 'x'.repeat(4_000) })
      arrivals.push(c.waitFor(token, 600_000).then(() => ages.push(performance.now() - at)))
      await sleep(100)
    }
    await Promise.all(arrivals)
    const later = ages.slice(ages.length / 2).sort((x, y) => x - y)
    return later[Math.floor(later.length * 0.99)]
  })

/** The most by which the clock of either is ahead of the wall clock, in ms, and hops a second. */
const answers = (ms) =>
  withPeers(async (open, link) => {
    const [a, b] = [await open(1), await open(2)]
    await link(a, b)
    let ahead = 0
    let hops = 0
    const began = performance.now()
    while (performance.now() - began < ms) {
      for (const [from, to] of [
        [a, b],
        [b, a],
      ]) {
        await to.waitFor(await from.upsert('item', { id: 1, tenantId: hops++ }))
        ahead = Math.max(ahead, from.status().clockAheadMs)
      }
    }
    return [ahead, (hops / ms) * 1000]
  })

/** A peer that jumps and writes: seconds, the longest upsert in ms, its WAL in bytes, links that came up. */
const jump = (rows) =>
  withSource({ pruned: true, rows }, ({ port, token }) =>
    withFile(async (path) => {
      const db = await openReplic(path, 'NORMAL')
      const took = []
      let [links, walBytes, isDone] = [0, 0, false]
      db.on('link', ({ state }) => {
        links += state === 'up'
      })
      const began = performance.now()
      connect(db, { port })
      const arrived = db.waitFor(token, 600_000).then(() => {
        isDone = true
      })
      while (!isDone) {
        const at = performance.now()
        await db.upsert('item', { id: -1 - took.length, name: 'meanwhile' })
        took.push(performance.now() - at)
        walBytes = Math.max(walBytes, db.status().walBytes)
        await sleep(5)
      }
      await arrived
      const seconds = (performance.now() - began) / 1000
      await db.close({ timeoutMs: 60_000 })
      return { seconds, longestMs: Math.max(...took), walBytes, links }
    }),
  )

/** Another process, see hub.js, and the port it listens at. */
async function startHub(path, port) {
  const hub = fork(HUB, [JSON.stringify({ path, port })])
  const [at] = await once(hub, 'message')
  return { hub, at }
}

const endHub = (hub) => {
  hub.kill('SIGKILL')
  return once(hub, 'exit')
}

/** 20 rows of a leaf; `isPruned`: one row, of which the log has but the latest. Gives the token. */
async function writeBacklog(db, isPruned) {
  const first = db.status().peerId * 1_000
  let token
  for (let i = 0; i < 20; i++) {
    token = await db.upsert('item', { id: first + (isPruned ? 0 : i), name: `version ${i}` })
  }
  if (isPruned) await db.compact({ maxPatchRetentionMs: 0 })
  return token
}

/** Milliseconds after the hub listens again until a new row, and until all, is everywhere. */
const herd = (n) =>
  withFile((path) =>
    withPeers(async (open) => {
      const first = await startHub(path, 0)
      const leaves = []
      for (let i = 0; i < n; i++) leaves.push(await open(2 + i))
      const everywhere = (...tokens) => {
        const token = leaves[0].mergeTokens(...tokens)
        return Promise.all(leaves.map((db) => db.waitFor(token, 600_000)))
      }
      for (const db of leaves) connect(db, { port: first.at, ...FAST })
      const rows = leaves.map((db, i) => db.upsert('item', { id: i }))
      await everywhere(...(await Promise.all(rows)))
      await endHub(first.hub)
      const backlogs = await Promise.all(leaves.map((db, i) => writeBacklog(db, i % 2 === 1)))
      const { hub } = await startHub(path, first.at)
      const began = performance.now()
      await everywhere(await leaves[0].upsert('item', { id: 0, name: 'new' }))
      const newMs = performance.now() - began
      await everywhere(...backlogs)
      const allMs = performance.now() - began
      await Promise.all(leaves.map((db) => db.close({ timeoutMs: 60_000 })))
      await endHub(hub)
      return [newMs, allMs]
    }),
  )

const BENCHES = {
  behind: async () => {
    for (const [line, kbit, bytes] of [
      ['1 MB/s', 8_000, 20e6],
      ['64 kbit/s', 64, 400e3],
    ]) {
      for (const isFirst of [true, false]) {
        const seconds = await behind(kbit, bytes, isFirst)
        const which = isFirst ? 'lower' : 'higher'
        console.log(
          `behind   a row behind ${bytes / 1e6} MB of the ${which} peerId, ${line}: ${seconds.toFixed(1)} s`,
        )
      }
    }
  },
  mesh: async () => {
    const p99 = await mesh(30_000)
    console.log(`mesh     p99 of 30 s beside a line of half the rate: ${p99.toFixed(0)} ms`)
  },
  jump: async () => {
    const { seconds, longestMs, walBytes, links } = await jump(1_000_000)
    const wal = (walBytes / 2 ** 20).toFixed(0)
    console.log(
      `jump     1,000,000 rows in ${seconds.toFixed(1)} s: the longest upsert ${longestMs.toFixed(0)} ms, WAL ${wal} MiB, links ${links}`,
    )
  },
  herd: async () => {
    const [newMs, allMs] = await herd(59)
    console.log(
      `herd     a hub of 59 leaves is back: a new row everywhere after ${newMs.toFixed(0)} ms, all after ${allMs.toFixed(0)} ms`,
    )
  },
  answers: async () => {
    const [ahead, rate] = await answers(20_000)
    console.log(`answers  ${rate.toFixed(0)} hops a second for 20 s: ${ahead} ms ahead at most`)
  },
}

const wanted = process.argv.slice(2)
for (const name of wanted) {
  if (!Object.hasOwn(BENCHES, name)) throw new Error(`there are ${Object.keys(BENCHES).join(', ')}`)
}
for (const name of wanted.length > 0 ? wanted : Object.keys(BENCHES)) await BENCHES[name]()

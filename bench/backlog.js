// npm run bench:backlog [-- PATCHES]: a peer writes 1,000,000 patches while the socket of one linked peer takes
// in nothing, and another keeps up. What the stalled one costs: the memory of the writing process, and the speed
// of the healthy one, each against the same run without it. Then the stall ends, and it catches up.
//
//   writer ──────────────── healthy
//     └───── proxy ─────── stalled      the proxy reads nothing of what the writer sends, and passes on all that
//                                        comes back: heartbeats keep the link up, for ever behind

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { TcpProxy, TO_DIALER } from '../test/chaos/proxy.js'
import { inTurn, median, table, withFile } from './harness.js'

const PATCHES = Number(process.argv[2] ?? 1_000_000)
const PEER = fileURLToPath(new URL('backlog-peer.js', import.meta.url))
const FOR_EVER_MS = 86_400_000
const MiB = 1024 * 1024

/** A process with a replica: ask(what, args) resolves with its answer. */
async function startPeer(path, options) {
  const child = fork(PEER, [path, JSON.stringify(options)])
  const died = once(child, 'exit').then(([code, signal]) => {
    throw new Error(`a peer has died (${signal ?? code})`)
  })
  died.catch(() => {})
  const ask = async (what, args) => {
    child.send({ ask: what, ...args })
    const [{ answer }] = await Promise.race([once(child, 'message'), died])
    return answer
  }
  const end = async () => {
    const ended = once(child, 'exit')
    child.disconnect()
    await ended
  }
  return { ask, end }
}

/** Calls `use(start)`; start(path, options) makes a peer, which ends afterwards. */
async function withPeers(use) {
  const peers = []
  try {
    return await use(async (path, options = {}) => {
      peers.push(await startPeer(path, options))
      return peers.at(-1)
    })
  } finally {
    await Promise.all(peers.map((peer) => peer.end()))
  }
}

/** The figures of one run. `isStalled`: with a third peer, which takes in nothing. */
const run = (isStalled) =>
  withFile((path) =>
    withPeers(async (start) => {
      const dir = join(path, '..')
      const writer = await start(join(dir, 'writer.db'))
      const healthy = await start(join(dir, 'healthy.db'))
      const { port } = await writer.ask('listen')
      await healthy.ask('dial', { port })
      if (!isStalled) return measure(writer, healthy)
      const target = { host: '127.0.0.1', port }
      const proxy = await TcpProxy.open({ target, seed: 1 })
      try {
        const stalled = await start(join(dir, 'stalled.db'), { linkTimeoutMs: FOR_EVER_MS })
        await stalled.ask('dial', { port: proxy.address.port })
        proxy.freeze(TO_DIALER)
        const figures = await measure(writer, healthy)
        return { ...figures, ...(await catchUp(writer, stalled, proxy, figures.token)) }
      } finally {
        await proxy.close()
      }
    }),
  )

async function measure(writer, healthy) {
  const began = performance.now()
  const token = await writer.ask('write', { count: PATCHES })
  await healthy.ask('wait', { token })
  const seconds = (performance.now() - began) / 1000
  return { rate: PATCHES / seconds, ...(await writer.ask('memory')), token }
}

async function catchUp(writer, stalled, proxy, token) {
  const [{ linksUp }, { patches }] = await Promise.all([
    writer.ask('state', { token }),
    stalled.ask('state', { token }),
  ])
  if (linksUp !== 2 || patches !== 0) {
    throw new Error(`nothing was stalled: ${linksUp} links are up, ${patches} patches have arrived`)
  }
  const began = performance.now()
  proxy.thaw()
  await stalled.ask('wait', { token: token })
  const catchUpRate = PATCHES / ((performance.now() - began) / 1000)
  return { catchUpRate, catchUpPeak: (await writer.ask('memory')).peak }
}

const number = (n) => n.toLocaleString('en-US', { maximumSignificantDigits: 3 })
const mib = (bytes) => `${(bytes / MiB).toFixed(0)} MiB`

// The ratio is that of runs that followed each other: the machine changes more from minute to minute than
// they differ.
function print({ without, with: stalled }) {
  const of = (rounds, name) => median(rounds.map((figures) => figures[name]))
  const line = (title, name, show) => {
    const ratios = stalled.map((figures, i) => figures[name] / without[i][name])
    return [title, show(of(without, name)), show(of(stalled, name)), median(ratios).toFixed(2)]
  }
  const lines = [
    ['', 'without', 'with a stalled peer', 'ratio'],
    line('memory of the writer after 10 % of the patches', 'early', mib),
    line('memory of the writer after all of them', 'late', mib),
    line('its highest', 'peak', mib),
    line('patches a second, written here and applied by the healthy peer', 'rate', number),
  ]
  console.log(table(lines, [0]).join('\n'))
  console.log(
    `then the stalled peer catches up with ${number(of(stalled, 'catchUpRate'))} patches a second; ` +
      `the highest memory of the writer meanwhile: ${mib(of(stalled, 'catchUpPeak'))}`,
  )
}

const count = (side) => async () => {
  const figures = await side()
  console.error(JSON.stringify(figures))
  return figures
}
print(await inTurn({ without: count(() => run(false)), with: count(() => run(true)) }))

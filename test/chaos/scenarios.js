// What happens to peers that write all the time. Each scenario is played small by the tests
// (50.*.test.js) and at full size by run.js; `during(cluster)` says how long a fault lasts: until so many
// writes are acknowledged, or for a minute. `like` are settings of a Cluster, `writes` those of Peer.write().
// Each returns what Cluster.finish() found, and `faults`, how often it did what it is about.

import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isLinkDown, isLinkUp } from './cluster.js'
import { clearUp, ROWS, sqlite3 } from './operator.js'
import { TO_DIALER, TO_LISTENER } from './proxy.js'

// What is waited for in a test is short.
export const FAST = {
  options: { heartbeatMs: 100, linkTimeoutMs: 1000 },
  dial: { retryMinMs: 10, retryMaxMs: 200 },
}

/** Until each running peer has acknowledged `n` more writes. */
export const acks = (n) => (cluster) => Promise.all(cluster.running.map((peer) => peer.acks(n)))

/** It notices by itself that nothing comes from `other` any more. */
const silence = (peer, other) => peer.event(isLinkDown(other, 'REPLIC_TIMEOUT'))
const lostTouch = (one, other) => Promise.all([silence(one, other), silence(other, one)])
const inTouch = (one, other) =>
  Promise.all([one.event(isLinkUp(other)), other.event(isLinkUp(one))])

/** `times` a step, one after another; gives `times`. */
async function repeat(times, step) {
  for (let i = 0; i < times; i++) await step(i)
  return times
}

// ---- on a network of their own ----

/** A full mesh is parted in the middle, each half goes on and agrees, then they meet again. */
export async function partition(stage, { during, times = 1, writes, like = FAST }) {
  const network = await stage.network(4)
  const cluster = await stage.cluster({ size: 4, network, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  const halves = [
    [0, 1],
    [2, 3],
  ]
  const faults = await repeat(times, async () => {
    const [a, , c] = cluster.peers
    const apart = lostTouch(a, c)
    await network.split(halves)
    await Promise.all([during(cluster), apart])
    for (const half of halves) await cluster.synced(half.map((i) => cluster.peers[i]))
    const again = inTouch(a, c)
    await cluster.heal(() => network.split([halves.flat()]))
    await again
  })
  return { faults, ...(await cluster.finish()) }
}

/** One of a full mesh is cut off from all others, and goes on alone. */
export async function cutOff(stage, { during, times = 1, writes, like = FAST }) {
  const network = await stage.network(3)
  const cluster = await stage.cluster({ size: 3, network, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  const faults = await repeat(times, async (i) => {
    const hermit = cluster.peers[i % 3]
    const others = cluster.peers.filter((peer) => peer !== hermit)
    const apart = others.map((peer) => lostTouch(hermit, peer))
    await network.unplug(hermit.index)
    await Promise.all([during(cluster), ...apart])
    const again = others.map((peer) => inTouch(hermit, peer))
    await cluster.heal(() => network.plug(hermit.index))
    await Promise.all(again)
  })
  return { faults, ...(await cluster.finish()) }
}

/** Three peers, a cable between any two; one is cut. What it carried goes round, by the third. */
export async function roundabout(stage, { during, times = 1, writes, like = FAST }) {
  const network = await stage.network(3)
  const cluster = await stage.cluster({ size: 3, network, ...like })
  const cables = []
  for (const [i, j] of [
    [1, 0],
    [2, 1],
    [2, 0],
  ]) {
    const cable = await network.cable(i, j)
    cables.push({ cable, ends: [cluster.peers[i], cluster.peers[j]] })
    await cluster.link(i, j, cable.address(j))
  }
  await cluster.write(writes)
  const faults = await repeat(times, async (i) => {
    const { cable, ends } = cables[i % cables.length]
    const apart = lostTouch(...ends)
    await cable.cut()
    await Promise.all([during(cluster), apart])
    await cluster.heal(() => {}) // while it is cut
    const again = inTouch(...ends)
    await cable.mend()
    await again
  })
  return { faults, ...(await cluster.finish()) }
}

/** A chain of five; in turn its cables go down and come up again. */
export async function chain(stage, { during, times = 1, writes, like = FAST }) {
  const network = await stage.network(5)
  const cluster = await stage.cluster({ size: 5, network, ...like })
  const cables = []
  for (let i = 1; i < 5; i++) {
    cables.push(await network.cable(i, i - 1))
    await cluster.link(i, i - 1, cables.at(-1).address(i - 1))
  }
  await cluster.write(writes)
  const faults = await repeat(times, async (i) => {
    const at = (i + 1) % cables.length // the second one first: two peers before it, three behind
    await cables[at].cut()
    await during(cluster)
    await cluster.heal(() => cables[at].mend())
  })
  return { faults, ...(await cluster.finish()) }
}

/**
 * The middle of a chain dies with its cables down, so that nobody gets to know: its neighbours keep
 * connections that are open on their side only.
 */
export async function halfOpenHost(stage, { during, times = 1, writes, like = FAST }) {
  const network = await stage.network(3)
  const cluster = await stage.cluster({ size: 3, network, ...like })
  await cluster.chain()
  await cluster.write(writes)
  const [left, middle, right] = cluster.peers
  const faults = await repeat(times, async () => {
    await middle.acks(1)
    const noticed = [left, right].map((peer) => silence(peer, middle))
    await network.unplug(middle.index)
    await middle.kill()
    await Promise.all([during(cluster), ...noticed])
    const again = [left, right].map((peer) => peer.event(isLinkUp(middle)))
    await network.plug(middle.index)
    await cluster.heal(() => middle.start())
    await Promise.all(again)
  })
  return { faults, ...(await cluster.finish()) }
}

// ---- through proxies ----

/** Three peers in a full mesh over lines that misbehave from the first to the last moment. */
export async function badLines(stage, { during, line, writes, like = FAST }) {
  const cluster = await stage.cluster({ size: 3, line, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  await during(cluster)
  return { ...(await cluster.finish()), ...countsOf(cluster) }
}

/** One peer has written a lot before it meets the other, over a line that is slow; then both write on. */
export async function slowLine(stage, { backlog, during, line, writes, like = FAST }) {
  const cluster = await stage.cluster({ size: 2, line, ...like })
  const [first] = cluster.peers
  const written = first.acks(backlog)
  await first.write({ atOnce: 64, count: backlog })
  await written
  await cluster.mesh()
  await cluster.write(writes)
  await during(cluster)
  return { ...(await cluster.finish()), ...countsOf(cluster) }
}

function countsOf({ proxies }) {
  const sum = (name) => proxies.reduce((total, proxy) => total + proxy.counts[name], 0)
  const [frames, framesLost, framesDoubled] = ['carried', 'lost', 'duplicated'].map(sum)
  return { faults: framesLost + framesDoubled, frames, framesLost, framesDoubled }
}

/** The line between two peers is down: nothing moves, nobody is told. */
export async function lineDown(stage, { during, times = 1, writes, like = FAST }) {
  const cluster = await stage.cluster({ size: 2, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  const [proxy] = cluster.proxies
  const faults = await repeat(times, async () => {
    const apart = lostTouch(...cluster.peers)
    proxy.freeze()
    await Promise.all([during(cluster), apart])
    const again = inTouch(...cluster.peers)
    await cluster.heal(() => proxy.thaw())
    await again
  })
  return { faults, ...(await cluster.finish()) }
}

/** Connections become half-open: a router has forgotten them, each side believes in them. */
export async function forgotten(stage, { during, times = 1, writes, like = FAST }) {
  const cluster = await stage.cluster({ size: 2, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  const [proxy] = cluster.proxies
  const faults = await repeat(times, async () => {
    const again = inTouch(...cluster.peers)
    await Promise.all([cluster.heal(() => proxy.forget()), again]) // nobody has to do anything
    await during(cluster)
  })
  return { faults, ...(await cluster.finish()) }
}

/** One direction of a line is stalled, in turn; the other one works. */
export async function oneWay(stage, { during, times = 2, writes, like = FAST }) {
  const cluster = await stage.cluster({ size: 2, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  const [proxy] = cluster.proxies
  const faults = await repeat(times, async (i) => {
    const [sender, receiver] = i % 2 ? cluster.peers : [...cluster.peers].reverse()
    const noticed = silence(receiver, sender)
    proxy.freeze(i % 2 ? TO_DIALER : TO_LISTENER) // peer 1 dials peer 0
    await Promise.all([during(cluster), noticed])
    const again = inTouch(...cluster.peers)
    await cluster.heal(() => proxy.thaw())
    await again
  })
  return { faults, ...(await cluster.finish()) }
}

// ---- processes and disks ----

/** Processes are stopped (SIGSTOP) in turn, until the others give them up, and go on (SIGCONT). */
export async function stopped(stage, { during, times = 3, writes, like = FAST }) {
  const cluster = await stage.cluster({ size: 3, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  const faults = await repeat(times, async (i) => {
    const victim = cluster.peers[i % 3]
    const others = cluster.peers.filter((peer) => peer !== victim)
    const noticed = others.map((peer) => silence(peer, victim))
    victim.freeze()
    await Promise.all([...noticed, during({ running: others })])
    const again = others.map((peer) => peer.event(isLinkUp(victim)))
    const goesOn = victim.acks(1)
    await cluster.heal(() => victim.thaw())
    await Promise.all([...again, goesOn])
  })
  return { faults, ...(await cluster.finish()) }
}

/**
 * Processes are killed (SIGKILL) and started again, one after another, each after a number of writes that the
 * seed chooses; `isEnough(kills)` says when to end.
 */
export async function killed(stage, { isEnough, most = 40, random, writes, like = FAST }) {
  const cluster = await stage.cluster({ size: 3, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  let faults = 0
  for (; !isEnough(faults); faults++) {
    const victim = cluster.peers[random(3)]
    await victim.acks(1 + random(most))
    await victim.kill()
    await victim.start() // and on: nobody waits until it has caught up
  }
  return { faults, ...(await cluster.finish()) }
}

/**
 * A rolling deployment: one peer after another is upgraded, downgraded and upgraded again (`versions`) while all
 * write; at the end of each round all have what was written. Then all is checked at that version, and again with
 * all of them one version back: so no column of any version may have been lost.
 */
export async function rolling(stage, { during, versions = [2, 1, 2], writes, like = FAST }) {
  const cluster = await stage.cluster({ size: 3, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  let faults = 0
  for (const to of versions) {
    for (const peer of cluster.peers) {
      await during(cluster)
      await peer.ask('migrate', { to })
      faults++
    }
    await during(cluster)
    await cluster.synced()
  }
  const last = await cluster.finish()
  await cluster.all((peer) => peer.ask('migrate', { to: 1 }))
  const { problems, lost } = await cluster.finish()
  if (last.refused > 0) problems.push(`${last.refused} writes were refused`)
  return { faults, ...last, problems: [...last.problems, ...problems], lost: last.lost + lost }
}

const MiB = 1024 * 1024

/** A small disk fills up with what its peer and the others write; when it is full, it gets a little larger. */
export async function diskFull(stage, { times, writes = { perSecond: 1000 }, like = FAST }) {
  let bytes = 2 * MiB
  const disk = stage.fileSystem(bytes)
  const paths = [`${disk.dir}/small.db`]
  const cluster = await stage.cluster({ size: 2, paths, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  const [small] = cluster.peers
  const isFull = ({ name, code }) => name === 'error' && code === 'SQLITE_FULL'
  const faults = await repeat(times, async () => {
    await Promise.all([small.refusals(5, 'SQLITE_FULL'), small.event(isFull)])
    bytes += 2 * MiB
    const goesOn = small.acks(10)
    disk.resize(bytes)
    await goesOn
  })
  await cluster.stop() // else it may be full again
  await cluster.heal(() => disk.resize(1024 * MiB))
  return { faults, ...(await cluster.finish()) }
}

/**
 * An operator's day: one after another, as the seed chooses, the deeds of operator.js are done to the file of one of
 * the peers; then its process is killed, started again, and the file put back as docs/reliability.md says.
 * `isEnough(deeds)` says when to end; `rows`: which of them, but for those that need a place or a program of their
 * own (a full disk is a scenario by itself).
 * Before a deed with which the file itself is lost, its peer stops writing until the others have everything.
 */
export async function operatorsDay(stage, { isEnough, rows = ROWS, random, writes, like = FAST }) {
  const dirs = Array.from({ length: 3 }, () => join(stage.dir(), 'data'))
  for (const dir of dirs) mkdirSync(dir)
  const paths = dirs.map((dir) => join(dir, 'app.db'))
  const cluster = await stage.cluster({ size: 3, paths, ...like })
  await cluster.mesh()
  await cluster.write(writes)
  const possible = rows.filter(({ place, program }) => !place && !program)
  let faults = 0
  for (; !isEnough(faults); faults++) {
    const row = possible[random(possible.length)]
    const peer = cluster.peers[random(3)]
    await peer.acks(1 + random(40))
    await operate(cluster, peer, row, 100 + faults)
  }
  return { faults, ...(await cluster.finish()) }
}

async function operate(cluster, peer, row, nextPeerId) {
  const { path: file, writes } = peer
  const deed = (name, ...args) => peer.ask('deed', { name, args })
  const place = { file, dir: dirname(file), deed }
  const isLost = row.spares === false
  if (isLost) {
    await peer.stop()
    await cluster.synced()
  }
  const end = await row.does(place)
  if (isLost) await peer.write(writes)
  await (row.refuses ? peer.refusals(3, row.refuses) : peer.acks(5))
  if (row.heals) {
    await end()
    await peer.acks(5)
  }
  if (!row.refuses || row.heals) {
    await sqlite3(file, 'SELECT count(*) FROM fact') // removes the WAL, if nobody else seems to have the file
    await peer.acks(5)
  }
  await peer.kill()
  row.putBack?.(place)
  if (isLost) peer.becomes(nextPeerId)
  await peer.start()
  await peer.acks(5)
  clearUp(place)
}

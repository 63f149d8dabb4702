// A cluster in which each peer is reached in another way, while links are cut at random:
//
//   11 ──TCP── 14 ──NATS── 15 ──HTTP── 13
//    │         │           ├───UDP──── 16
//    │         └─WebSocket─── 12
//    └──────────TCP────────┘
//
// The seed is printed where it fails; REPLIC_SEED repeats the choices.

import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { randomFrom } from '../examples/demo/random.js'
import { nats } from '../lib/transport/nats.js'
import { bind, peer as dialUdp } from '../lib/transport/udp.js'
import { isTested } from './chaos/play.js'
import { UdpProxy } from './chaos/udp.js'
import { converged, FAST, openReplica, until } from './helpers.js'
import { startNats, whyNoServer } from './servers.js'
import { adapter as http } from './transport/http.js'
import { adapter as tcp } from './transport/tcp.js'
import { adapter as websocket } from './transport/websocket.js'

vi.setConfig({ testTimeout: 180_000 })

const hasNats = isTested('a mixed cluster', whyNoServer('nats-server'))
const SEED = Number(process.env.REPLIC_SEED ?? Date.now() % 2 ** 31)
const TURNS = 6 // in each of them every link is cut once, or comes back
const KEYS = 50
const OPTIONS = { heartbeatMs: 20, linkTimeoutMs: 1_000, secret: 'a secret of the tests' }

/** A wire between two peers: { name, ends, cut(), mend() }, cut for long. */
async function overStreams(adapter, from, to) {
  const listener = await adapter.listen(to)
  const line = await adapter.line(listener.address)
  const connection = adapter.connect(from, line.address)
  onTestFinished(async () => {
    await connection.close()
    await listener.close()
    line.close()
  })
  const cut = () => {
    line.refuse(true)
    line.cut()
  }
  return { name: adapter.name, ends: [from, to], cut, mend: () => line.refuse(false) }
}

async function overUdp(from, to) {
  const endpoint = await bind(to)
  const target = { host: '127.0.0.1', port: endpoint.address().port }
  const proxy = await UdpProxy.open({ target, seed: SEED, loss: 0.1, duplicate: 0.1 })
  onTestFinished(() => proxy.close())
  dialUdp(from, { port: proxy.address.port, ...FAST })
  const [cut, mend] = [true, false].map((value) => () => proxy.cut(value))
  return { name: 'udp', ends: [from, to], cut, mend }
}

/** Here it is the server that dies, and comes back. */
async function overNats(...dbs) {
  const server = await startNats()
  for (const db of dbs) {
    const connection = await connectNats({
      servers: `127.0.0.1:${server.port}`,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 10,
      reconnectJitter: 10,
    })
    onTestFinished(async () => {
      await db.close()
      await connection.close()
    })
    await nats(db, { connection })
  }
  onTestFinished(() => server.close())
  return { name: 'nats', ends: dbs, cut: server.kill, mend: server.restart }
}

const isLinked = ({ ends: [a, b] }) => {
  const { peerId } = b.status()
  return a.status().links.some((link) => link.peerId === peerId && link.state === 'ready')
}

/** The numbers from 0 to n - 1, in any order. */
function shuffled(n, random) {
  const list = Array.from({ length: n }, (_, i) => i)
  return Array.from({ length: n }, () => list.splice(random(list.length), 1)[0])
}

function write(db, random) {
  const id = random(KEYS)
  const column = ['text', 'size', 'deletedAt'][random(3)]
  return db.upsert('note', { id, [column]: column === 'text' ? `${random(1e6)}` : random(1e6) })
}

describe.skipIf(!hasNats)('a mixed cluster', () => {
  it(`converges while its links are cut, seed ${SEED}`, async () => {
    const random = randomFrom(SEED)
    const dbs = []
    for (let peerId = 11; peerId <= 16; peerId++)
      dbs.push(await openReplica({ peerId, ...OPTIONS }))
    const [a, b, c, d, e, f] = dbs
    const wires = [
      await overStreams(tcp, a, d),
      await overStreams(tcp, a, e),
      await overStreams(websocket, b, d),
      await overStreams(http, c, e),
      await overNats(d, e),
      await overUdp(f, e),
    ]
    await until(() => wires.every(isLinked))
    const writes = []
    const cuts = new Set()
    for (let turn = 0; turn < TURNS; turn++) {
      for (const i of shuffled(wires.length, random)) {
        const wire = wires[i]
        if (cuts.delete(wire)) {
          await wire.mend()
          await until(() => isLinked(wire))
        } else {
          cuts.add(wire)
          await wire.cut()
        }
        for (const db of dbs) for (let n = 0; n < 10; n++) writes.push(write(db, random))
        await Promise.all(writes.slice(-dbs.length * 10))
      }
    }
    expect(cuts.size).toBe(0) // an even number of turns: all are whole again
    expect(writes).toHaveLength(TURNS * wires.length * dbs.length * 10)
    const { note } = await converged(...dbs)
    expect(note).toHaveLength(KEYS)
    await until(() => wires.every(isLinked))
    for (const db of dbs) expect(await db.verify()).toMatchObject({ equal: true })
    const vectors = dbs.map((db) => db.status().vector)
    const each = (TURNS * wires.length * 10).toString()
    for (const vector of vectors)
      expect(Object.values(vector).map(String)).toEqual(Array(6).fill(each))
  })
})

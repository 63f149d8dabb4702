// npm run bench:transports [-- NAME ...]: what each transport costs between two processes of one machine.
//
//   latency   from upsert() here until the row is visible there: the other process' 'change' event, after
//             its commit. Beside it, in turn, a message of the same size over the bare transport. Both
//             are stamped with CLOCK_MONOTONIC (process.hrtime), which all processes of a machine share;
//             the next one is sent when the other process has said that the last one was there.
//   bytes     of both directions, counted by a relay in between, per patch: one by one (live), and when
//             an empty peer fetches a log (catch-up), beside the same patch as JSON.
//
// Durability is 'normal', so that the disk is not what is measured. With `serve` as its argument this file
// is the other process. README.md has figures.

import { fork } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { Agent, createServer as createHttpServer, request } from 'node:http'
import { createServer as createNetServer, connect as netConnect } from 'node:net'
import { createServer as createTlsServer, connect as tlsConnect } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { connect as natsConnect } from '@nats-io/transport-node'
import { createClient } from 'redis'
import { WebSocket, WebSocketServer } from 'ws'
import * as http from '../lib/transport/http.js'
import { nats } from '../lib/transport/nats.js'
import { redis } from '../lib/transport/redis.js'
import * as tcp from '../lib/transport/tcp.js'
import * as udp from '../lib/transport/udp.js'
import * as websocket from '../lib/transport/websocket.js'
import { authority } from '../test/certificates.js'
import { startNats, startRedis } from '../test/servers.js'
import { makeRows } from './data.js'
import { median, table, withFile } from './harness.js'
import { openReplic } from './replic.js'

const SAMPLES = 100 // of each side in each round
const ROUNDS = 5
const LIVE = 1_000 // patches, one by one
const BACKLOG = 20_000 // patches of a log that is fetched
const MESSAGE = Buffer.alloc(180, 'x') // about as long as a row
const HOST = '127.0.0.1'

const listening = async (server, ...args) => {
  server.listen(...args)
  await once(server, 'listening')
  return server.address().port
}

/**
 * name -> listen(db, world) -> port, connect(db, port, world): ours; receive(got, world) -> port,
 * sender(port, world) -> send(bytes): the bare transport; start(): of a server -> { world, close() }. `world`
 * goes to the other process as JSON. The port of a bus is its server's.
 */
const TRANSPORTS = {
  tcp: {
    listen: async (db) => (await tcp.listen(db)).address().port,
    connect: (db, port) => tcp.connect(db, { port }),
    receive: (got) =>
      listening(
        createNetServer({ noDelay: true }, (socket) => socket.on('data', got)),
        0,
        HOST,
      ),
    sender: async (port) => {
      const socket = netConnect({ port, host: HOST, noDelay: true })
      await once(socket, 'connect')
      return (bytes) => socket.write(bytes)
    },
  },
  tls: {
    start: () => {
      const { ca, sign } = authority()
      return { ca, ...sign({ name: 'bench' }) }
    },
    listen: async (db, { cert, key }) =>
      (await tcp.listen(db, { tls: { cert, key } })).address().port,
    connect: (db, port, { ca }) => tcp.connect(db, { port, tls: { ca } }),
    receive: (got, { cert, key }) => {
      const serve = (socket) => socket.setNoDelay(true).on('data', got)
      return listening(createTlsServer({ cert, key }, serve), 0, HOST)
    },
    sender: async (port, { ca }) => {
      const socket = tlsConnect({ port, host: HOST, ca })
      await once(socket.setNoDelay(true), 'secureConnect')
      return (bytes) => socket.write(bytes)
    },
  },
  websocket: {
    listen: async (db) => {
      const server = new WebSocketServer({ port: 0, host: HOST })
      await once(server, 'listening')
      websocket.attach(db, server)
      return server.address().port
    },
    connect: (db, port) => websocket.connect(db, `ws://${HOST}:${port}`),
    receive: async (got) => {
      const server = new WebSocketServer({ port: 0, host: HOST })
      server.on('connection', (socket) => socket.on('message', got))
      await once(server, 'listening')
      return server.address().port
    },
    sender: async (port) => {
      const socket = new WebSocket(`ws://${HOST}:${port}`, { perMessageDeflate: false })
      await once(socket, 'open')
      return (bytes) => socket.send(bytes)
    },
  },
  http: {
    listen: (db) => listening(createHttpServer(http.handler(db)), 0, HOST),
    connect: (db, port) => http.connect(db, { url: `http://${HOST}:${port}/` }),
    receive: (got) => {
      const serve = async (req, res) => {
        for await (const _ of req);
        got()
        res.end()
      }
      return listening(createHttpServer(serve), 0, HOST)
    },
    sender: async (port) => {
      const options = { port, host: HOST, method: 'POST', agent: new Agent({ keepAlive: true }) }
      return (bytes) => request(options, (response) => response.resume()).end(bytes)
    },
  },
  udp: {
    isUdp: true,
    listen: async (db) => (await udp.bind(db)).address().port,
    connect: (db, port) => udp.peer(db, { port }),
    receive: async (got) => {
      const socket = createSocket('udp4').on('message', got).bind(0, HOST)
      await once(socket, 'listening')
      return socket.address().port
    },
    sender: async (port) => {
      const socket = createSocket('udp4').unref()
      return (bytes) => socket.send(bytes, port, HOST)
    },
  },
  nats: {
    start: () => startNats(),
    listen: async (db, { port, prefix }) => {
      await nats(db, { connection: await natsConnect({ port }), prefix })
      return port
    },
    connect: async (db, port, { prefix }) =>
      nats(db, { connection: await natsConnect({ port }), prefix }),
    receive: async (got, { port }) => {
      const connection = await natsConnect({ port })
      connection.subscribe('bare', { callback: got })
      await connection.flush()
      return port
    },
    sender: async (port) => {
      const connection = await natsConnect({ port })
      return (bytes) => connection.publish('bare', bytes)
    },
  },
  redis: {
    start: () => startRedis(),
    listen: async (db, { port, prefix }) => {
      await redis(db, { client: await redisClient(port), prefix })
      return port
    },
    connect: async (db, port, { prefix }) => redis(db, { client: await redisClient(port), prefix }),
    receive: async (got, { port }) => {
      await (await redisClient(port)).subscribe('bare', got, true)
      return port
    },
    sender: async (port) => {
      const client = await redisClient(port)
      return (bytes) => client.publish('bare', bytes)
    },
  },
}

const redisClient = (port) =>
  createClient({ socket: { port } })
    .on('error', () => {})
    .connect()

// ---- the other process ----

async function serve() {
  const stamp = () => process.send({ at: `${process.hrtime.bigint()}` })
  const closing = []
  const commands = {
    bare: async ({ name, world }) => ({ port: await TRANSPORTS[name].receive(stamp, world) }),
    ours: ({ name, world }) =>
      new Promise((resolve) => {
        const measured = withFile(async (path) => {
          const db = await openReplic(path, 'NORMAL')
          db.on('change', ({ remote }) => remote && stamp())
          resolve({ port: await TRANSPORTS[name].listen(db, world) })
          await new Promise((close) => closing.push(close))
          await db.close()
        })
        closing.push(() => measured)
      }),
  }
  process.on('message', async ({ command, ...given }) =>
    process.send(await commands[command](given)),
  )
  process.on('disconnect', async () => {
    await Promise.all(closing.map((close) => close()))
    process.exit()
  })
}

/** Starts it: { ask(command, given), stamped(): when it next tells, close() }. */
function startOther() {
  const child = fork(fileURLToPath(import.meta.url), ['serve'])
  const answer = async () => (await once(child, 'message'))[0]
  return {
    ask: (command, given) => {
      child.send({ command, ...given })
      return answer()
    },
    stamped: async () => BigInt((await answer()).at),
    close: async () => {
      child.disconnect()
      await once(child, 'exit')
    },
  }
}

// ---- latency ----

const percentile = (list, share) => [...list].sort((a, b) => a - b)[Math.floor(list.length * share)]

async function delays(other, send) {
  const list = []
  for (let i = 0; i < SAMPLES + 20; i++) {
    const told = other.stamped()
    const sent = process.hrtime.bigint()
    send(i)
    list.push(Number((await told) - sent) / 1000)
  }
  const warm = list.slice(20)
  return { p50: percentile(warm, 0.5), p99: percentile(warm, 0.99) }
}

async function latency(name, world) {
  const { sender, connect } = TRANSPORTS[name]
  const [bare, ours] = [startOther(), startOther()]
  const { port } = await bare.ask('bare', { name, world })
  const send = await sender(port, world)
  const rows = makeRows(ROUNDS * (SAMPLES + 20))
  const rounds = { bare: [], ours: [] }
  await withFile(async (path) => {
    const db = await openReplic(path, 'NORMAL')
    const up = once(db, 'link')
    await connect(db, (await ours.ask('ours', { name, world })).port, world)
    await up
    for (let round = 0; round < ROUNDS; round++) {
      rounds.bare.push(await delays(bare, () => send(MESSAGE)))
      rounds.ours.push(await delays(ours, () => db.upsert('item', rows.pop())))
    }
    await db.close()
  })
  await Promise.all([bare.close(), ours.close()])
  const of = (side, share) => median(rounds[side].map((each) => each[share]))
  return ['p50', 'p99'].map((share) => ({ bare: of('bare', share), ours: of('ours', share) }))
}

// ---- bytes ----

/** A relay to a port, of TCP or UDP, that counts: { port, bytes(), close() }. */
async function openRelay(to, isUdp) {
  let bytes = 0
  const count = (chunk) => {
    bytes += chunk.length
  }
  if (isUdp) {
    const [near, far] = [createSocket('udp4'), createSocket('udp4')]
    let dialer
    near.on('message', (chunk, { port }) => {
      dialer = port
      count(chunk)
      far.send(chunk, to, HOST)
    })
    far.on('message', (chunk) => {
      count(chunk)
      near.send(chunk, dialer, HOST)
    })
    near.bind(0, HOST)
    await once(near, 'listening')
    return {
      port: near.address().port,
      bytes: () => bytes,
      close: () => [near, far].map((each) => each.close()),
    }
  }
  const server = createNetServer({ noDelay: true }, (near) => {
    const far = netConnect({ port: to, host: HOST, noDelay: true })
    near
      .on('data', count)
      .on('error', () => {})
      .pipe(far)
    far
      .on('data', count)
      .on('error', () => {})
      .pipe(near)
  })
  return { port: await listening(server, 0, HOST), bytes: () => bytes, close: () => server.close() }
}

/** Bytes per patch, when an empty peer fetches a log, and of what is then written one by one. */
async function bytesPerPatch(name, world) {
  const { connect, isUdp } = TRANSPORTS[name]
  const other = startOther()
  const rows = makeRows(BACKLOG + LIVE)
  const figures = await withFile(async (path) => {
    const db = await openReplic(path, 'NORMAL')
    await db.load('item', rows.slice(0, BACKLOG))
    const relay = await openRelay((await other.ask('ours', { name, world })).port, isUdp)
    const isSynced = () => once(db, 'synced')
    const caughtUp = isSynced()
    await connect(db, relay.port, world)
    await caughtUp
    const catchUp = relay.bytes() / BACKLOG
    const before = relay.bytes()
    for (const row of rows.slice(BACKLOG)) {
      const synced = isSynced()
      await db.upsert('item', row)
      await synced
    }
    const live = (relay.bytes() - before) / LIVE
    await db.close()
    relay.close()
    return { catchUp, live }
  })
  await other.close()
  return figures
}

const jsonBytes = (row) => {
  const patch = {
    table: 'item',
    _peerId: 4294967295,
    _sequenceId: 12345,
    _patchedAt: Date.now(),
    ...row,
  }
  return Buffer.byteLength(JSON.stringify(patch))
}

// ---- all of it ----

async function measure(name) {
  const server = await TRANSPORTS[name].start?.()
  const { port, ...rest } = server ?? {}
  const { close, ca, cert, key } = rest
  const world = (kind) => ({ port: Number(port), ca, cert, key, prefix: `bench.${kind}` })
  const [p50, p99] = await latency(name, world('latency'))
  const bytes = await bytesPerPatch(name, world('bytes'))
  await close?.()
  console.error(`${name}: measured`)
  const us = (n) => `${Math.round(n)}`
  const ratio = ({ ours, bare }) => (ours / bare).toFixed(1)
  const delays = [p50, p99].flatMap((each) => [us(each.ours), us(each.bare), ratio(each)])
  return [name, ...delays, us(bytes.live), us(bytes.catchUp)]
}

if (process.argv[2] === 'serve') await serve()
else {
  const names = process.argv.slice(2)
  const unknown = names.filter((name) => !(name in TRANSPORTS))
  if (unknown.length > 0) throw new Error(`there is no ${unknown}: ${Object.keys(TRANSPORTS)}`)
  const rows = []
  for (const name of names.length > 0 ? names : Object.keys(TRANSPORTS))
    rows.push(await measure(name))
  const head = [
    'transport',
    'p50 µs',
    'bare',
    'ratio',
    'p99 µs',
    'bare',
    'ratio',
    'bytes live',
    'catch-up',
  ]
  console.log(table([head, ...rows], [0]).join('\n'))
  console.log(`The same patch as JSON: ${jsonBytes(makeRows(1, BACKLOG)[0])} bytes`)
  process.exit() // clients of servers that are gone would dial again
}

// A replica that listens on every transport, for tests in which strangers come: node --expose-gc besieged.js FOLDER
// OPTIONS, where OPTIONS is JSON: { secret, tls: { cert, key }, ...options of open() }. Says its addresses in a line of
// JSON, then answers each line that it reads with another:
//
//   {}                         figures: bytes (what is in use after a collection), guests, links, refused, worst (the
//                              longest turn of the event loop, in ms of this thread's processor time, since the last
//                              question), events
//   { "bus": ["hex", ...] }    null; these messages come over its bus

import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { WebSocketServer } from 'ws'
import { Replica } from '../../lib/index.js'
import { bus } from '../../lib/transport/bus.js'
import { handler } from '../../lib/transport/http.js'
import { listen } from '../../lib/transport/tcp.js'
import { bind } from '../../lib/transport/udp.js'
import { attach } from '../../lib/transport/websocket.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT);`

const [folder, text] = process.argv.slice(2)
const { tls, ...options } = JSON.parse(text)
const db = await Replica.open(join(folder, 'besieged.db'), { peerId: 12, ...options })
await db.migrate([{ up: DDL }])
const events = []
db.on('link', ({ code, state, reason, transport, peerId, count }) =>
  events.push({ code, state, reason, transport, peerId, count }),
)

const subscribers = new Map()
let instance // of this peer on its bus: sixteen bytes of the first message
const publish = (subject, bytes) => {
  instance ??= bytes.toString('hex', 8, 24)
  subscribers.get(subject)?.(bytes)
}
const subscribe = (subject, onMessage) => subscribers.set(subject, onMessage) && (() => {})
await bus(db, { publish, subscribe })

const tcp = await listen(db)
const secure = tls && (await listen(db, { tls }))
const udp = await bind(db)
const http = createServer(handler(db)).listen(0, '127.0.0.1')
const sockets = new WebSocketServer({ port: 0, host: '127.0.0.1' })
attach(db, sockets)
await new Promise((resolve) => sockets.on('listening', resolve))
const ports = {
  tcp: tcp.address().port,
  tls: secure?.address().port,
  udp: udp.address().port,
  http: http.address().port,
  websocket: sockets.address().port,
  instance,
}
console.log(JSON.stringify(ports))

// Processor time of this thread, as others on a busy machine make every turn long.
const spent = () => {
  if (process.threadCpuUsage) return process.threadCpuUsage().user / 1000
  return Number(readFileSync('/proc/self/schedstat', 'latin1').split(' ')[0]) / 1e6
}
let worst = 0
let last = spent()
let isOver = false
const turn = () => {
  const now = spent()
  worst = Math.max(worst, now - last)
  last = now
  if (!isOver) setImmediate(turn)
}
if (process.env.TURNS) turn()

const idle = () => new Promise((resolve) => setImmediate(resolve))
async function figures() {
  for (let i = 0; i < 3; i++) await idle()
  const longest = worst
  globalThis.gc?.()
  await idle()
  globalThis.gc?.()
  last = spent()
  worst = 0
  const { heapUsed, external } = process.memoryUsage()
  const { links, refusedLinks } = db.status()
  return {
    bytes: heapUsed + external,
    guests: links.filter(({ link, state }) => link && state !== 'ready').length,
    links: links.map(({ link, peerId, state }) => ({ link, peerId, state })),
    refused: refusedLinks,
    udp: udp.status().pending,
    worst: longest,
    events: events.splice(0),
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  for (const hex of asked.bus ?? []) publish('replic.12', Buffer.from(hex, 'hex'))
  console.log(JSON.stringify(asked.bus ? null : await figures()))
}
isOver = true
await db.close()
http.closeAllConnections()
http.close()
sockets.close()

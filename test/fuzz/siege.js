// Strangers who speak every transport, and none of them correctly, come to a replica in a process of its own, while an
// honest peer is linked to it over each.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect as netConnect } from 'node:net'
import { WebSocket } from 'ws'
import * as http from '../../lib/transport/http.js'
import * as tcp from '../../lib/transport/tcp.js'
import * as datagram from '../../lib/transport/udp/datagram.js'
import * as udp from '../../lib/transport/udp.js'
import * as websocket from '../../lib/transport/websocket.js'
import {
  bodies,
  datagrams,
  frames,
  INSTANCE,
  KEY,
  messages,
  mutated,
  noise,
  oneOf,
  pieces,
  stream,
} from './inputs.js'

const HOST = '127.0.0.1'
const FRAMES = frames()
const STREAM = [stream(FRAMES), stream(FRAMES.slice(0, 5))]
const BODIES = bodies(FRAMES)
const DATAGRAMS = datagrams(FRAMES)
const TYPE = 'application/vnd.replic-sqlite'

/** How honest peers dial. */
export const DIALS = {
  tcp: (db, ports) => tcp.connect(db, { port: ports.tcp }),
  http: (db, ports) => http.connect(db, { url: `http://${HOST}:${ports.http}/` }),
  websocket: (db, ports) => websocket.connect(db, `ws://${HOST}:${ports.websocket}`),
  udp: (db, ports) => udp.peer(db, { port: ports.udp }),
}

const over = (emitter) =>
  new Promise((resolve) => emitter.on('close', resolve).on('error', () => {}))

async function onTcp(random, ports) {
  const socket = netConnect({
    port: oneOf(random, [ports.tcp, ports.http, ports.websocket]),
    host: HOST,
  })
  const ended = over(socket)
  for (const piece of pieces(random, mutated(random, STREAM)).slice(0, 200)) socket.write(piece)
  socket.end()
  socket.resume()
  await ended
}

async function post(ports, headers, body) {
  const question = request({
    port: ports.http,
    host: HOST,
    method: 'POST',
    headers: { 'content-type': TYPE, ...headers },
  })
  question.on('error', () => {})
  const ended = over(question)
  const answered = once(question, 'response').then(
    ([response]) => response.resume(),
    () => null,
  )
  question.end(body)
  const response = await answered
  await ended
  return response?.headers ?? {}
}

async function onHttp(random, ports) {
  const { 'replic-session': id = 'none' } = await post(ports, {}, '')
  const headers = { 'replic-session': id }
  for (let n = random(4); n >= 0; n--) {
    const more = oneOf(random, [
      {},
      { 'replic-poll': '0' },
      { 'replic-poll': '1e9' },
      { 'replic-end': '1' },
    ])
    await post(ports, { ...headers, ...more }, mutated(random, BODIES))
  }
}

async function onWebSocket(random, ports) {
  const socket = new WebSocket(`ws://${HOST}:${ports.websocket}`, { perMessageDeflate: false })
  const ended = over(socket)
  await Promise.race([once(socket, 'open'), ended])
  for (let n = random(20); n >= 0 && socket.readyState === WebSocket.OPEN; n--) {
    const bytes = mutated(random, FRAMES)
    const part = Buffer.concat([Buffer.of(1, 34 + random(2)), bytes])
    socket.send(oneOf(random, [bytes, part, bytes.toString('latin1')]), { fin: random(9) > 0 })
  }
  socket.close()
  await ended
}

/** A handshake as far as one gets without the secret, then whatever else there is. */
async function onUdp(random, ports) {
  const socket = createSocket('udp4')
  socket.bind(0, HOST)
  await once(socket, 'listening')
  const send = (bytes) => new Promise((resolve) => socket.send(bytes, ports.udp, HOST, resolve))
  const id = noise(random, 0)
  const own = Buffer.concat([id, Buffer.alloc(8, 1 + random(255))])
  await send(datagram.init(own))
  const [answer] = await once(socket, 'message')
  const cookie = datagram.readCookie(answer) ?? Buffer.alloc(16)
  const secret = random(2) ? Buffer.alloc(32) : undefined
  const question = datagram.connect(
    { id: own, cookie, peerId: 1 + random(99), nonce: Buffer.alloc(32) },
    secret,
  )
  await send(mutated(random, [question, question]))
  for (let n = random(30); n >= 0; n--) await send(mutated(random, DATAGRAMS))
  socket.close()
}

function onBus(random, ports, ask) {
  const of = messages(FRAMES, random(2) ? KEY : undefined)
  const own = Buffer.from(ports.instance, 'hex')
  const hex = Array.from({ length: 20 }, () => {
    const bytes = mutated(random, of)
    const at = bytes.indexOf(INSTANCE, 30) // for whom it is
    if (at > 0 && random(2)) own.copy(bytes, at)
    return bytes.toString('hex')
  })
  return ask({ bus: hex })
}

const WAYS = [onTcp, onHttp, onWebSocket, onUdp, onBus]

/** As many strangers as `count`, some at a time; resolves when all have gone. */
export async function siege(random, count, ports, ask) {
  for (let n = 0; n < count; n += 10) {
    const some = Array.from({ length: Math.min(10, count - n) }, () => oneOf(random, WAYS))
    await Promise.all(some.map((way) => way(random, ports, ask)))
  }
}

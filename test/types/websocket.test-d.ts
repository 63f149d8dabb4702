// Types of replic-sqlite/websocket: what must compile, and what must not.

import { createServer } from 'node:http'
import websocket from '@fastify/websocket'
import fastify from 'fastify'
import { WebSocket, WebSocketServer } from 'ws'
import type { Replica } from '../../types/index.js'
import { attach, bunHandlers, type Connection, connect, handler } from '../../types/websocket.js'

function same<A, B>(
  _: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false,
) {}

export async function serving(db: Replica) {
  const server = new WebSocketServer({ port: 0 })
  const attached = attach(db, server, { path: '/replic' })
  await attached.close()
  const handle = handler(db, { onUnknownMessage: (message, socket) => socket.send(message) })
  server.on('connection', handle)
  const upgrading = new WebSocketServer({ noServer: true })
  createServer().on('upgrade', (request, socket, head) => {
    upgrading.handleUpgrade(request, socket, head, (accepted) => handle(accepted, request))
  })
  const app = fastify()
  await app.register(websocket)
  app.get('/replic', { websocket: true }, handle)
  await handle.close()
  // @ts-expect-error no such option
  attach(db, server, { url: '/replic' })
  // @ts-expect-error a server is needed
  attach(db, createServer())
}

export async function onBun(db: Replica, request: Request) {
  const { websocket, upgrade, close } = bunHandlers(db, {
    others: { open: (socket) => socket.send('hello'), message() {}, idleTimeout: 60 },
  })
  const taken = upgrade(request, { upgrade: () => true })
  same<typeof taken, boolean>(true)
  const limit: number = websocket.maxPayloadLength
  await close()
  return limit
}

export async function dialing(db: Replica) {
  const connection = connect(db, 'wss://example.com/replic', { peerId: 7 })
  same<typeof connection, Connection>(true)
  connect(db, new URL('ws://example.com'), { headers: { authorization: 'Bearer x' } })
  connect(db, 'wss://x', { WebSocket, headers: async () => ({ a: 'x' }), tls: { ca: 'x' } })
  // @ts-expect-error the URL comes first
  connect(db, { url: 'ws://example.com' })
  await connection.close()
}

export function linking(db: Replica) {
  const onUnknownMessage = (message: string | Uint8Array) => console.log(message)
  db.addRemotePeer(7, new WebSocket('ws://example.com'), { onUnknownMessage })
  // @ts-expect-error no such option
  db.addRemotePeer(7, new WebSocket('ws://example.com'), { onMessage: onUnknownMessage })
}

// Checked against Node's types, together with Node's own modules: what an application of Node's does.

import { EventEmitter, once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { createConnection } from 'node:net'
import { type ErrorCode, METRICS_CONTENT_TYPE, Replica, ReplicError } from 'replic-sqlite'
import { connect as dialHttp, handler as serveHttp } from 'replic-sqlite/http'
import { connect, listen } from 'replic-sqlite/tcp'
import { attach, connect as dialWebSocket } from 'replic-sqlite/websocket'
import { WebSocket, WebSocketServer } from 'ws'

interface Todo {
  id: string
  title: string
  done: number
}

export async function serving(db: Replica) {
  const server = createServer((request, response) => {
    response.setHeader('content-type', METRICS_CONTENT_TYPE)
    response.end(db.metrics())
    const titles: string[] = db.allSync<Todo>('SELECT * FROM todo').map(({ title }) => title)
    db.readYourWrite()(request, response, () => titles)
  })
  const peers = serveHttp(db)
  server.on('request', (request, response) => void peers(request, response))
  const sockets = attach(db, new WebSocketServer({ server }), { path: '/replic' })
  const listener = await listen(db, { port: 1, tls: { key: Buffer.from(''), cert: '' } })
  const port: number = listener.address().port
  await Promise.all([peers.close(), sockets.close(), listener.close()])
  return port
}

export async function dialing(db: Replica) {
  connect(db, { port: 1, peerId: 2 })
  dialHttp(db, { url: new URL('https://example.com/replic'), headers: () => ({ a: 'b' }) })
  dialWebSocket(db, 'wss://example.com/replic', { WebSocket, headers: { a: 'b' } })
  db.addRemotePeer(7, new WebSocket('ws://127.0.0.1'))
  db.addRemotePeer(null, Object.assign(new EventEmitter(), { send() {}, close() {} }))
  // @ts-expect-error a stream of bytes has no messages
  db.addRemotePeer(null, createConnection(1))
  await once(db, 'synced')
  await db.waitFor('1.2', { signal: AbortSignal.timeout(1) })
}

export async function authorizing() {
  await Replica.open('app.db', {
    authorize: (_peerId, { request }) => {
      const { headers }: IncomingMessage = request
      return headers.authorization === 'Bearer x'
    },
  })
}

export function explained(error: unknown): string {
  if (!(error instanceof ReplicError)) throw error
  const code: ErrorCode = error.code
  switch (code) {
    case 'REPLIC_LOCKED':
      return 'open elsewhere'
    case 'SQLITE_FULL':
      return 'no room'
    // @ts-expect-error no such code
    case 'REPLIC_LOCK':
      return ''
    default:
      return error.message
  }
}

export async function bytes(db: Replica) {
  await db.upsert('todo', { id: Buffer.from('x'), title: 'x' })
  const row = await db.get<{ bytes: Uint8Array }>('SELECT bytes FROM todo')
  return row && Buffer.from(row.bytes)
}

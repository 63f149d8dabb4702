// Checked against Bun's types: what an application of Bun's does.

import { Replica } from 'replic-sqlite'
import { readYourWrite } from 'replic-sqlite/fetch'
import { fetchHandler } from 'replic-sqlite/http'
import { connect, listen } from 'replic-sqlite/tcp'
import { bunHandlers, connect as dialWebSocket } from 'replic-sqlite/websocket'

interface Todo {
  id: string
  title: string
}

export async function serving() {
  const db = await Replica.open('app.db')
  const peers = bunHandlers(db, { others: { message: (socket, text) => socket.send(text) } })
  const poll = fetchHandler(db)
  const app = readYourWrite(db, async (request: Request) => {
    const todos = await db.all<Todo>('SELECT id, title FROM todo')
    return request.method === 'GET' ? Response.json(todos) : new Response(null, { status: 405 })
  })
  const server = Bun.serve({
    port: 0,
    websocket: peers.websocket,
    fetch(request, self) {
      const { pathname } = new URL(request.url)
      if (pathname === '/replic-http') return poll(request, self)
      if (pathname === '/replic' && peers.upgrade(request, self)) return undefined
      return app(request)
    },
  })
  await peers.close()
  return server.port
}

export async function dialing(db: Replica) {
  const { close } = connect(db, { port: (await listen(db)).address().port })
  dialWebSocket(db, 'wss://example.com/replic', { headers: { authorization: 'Bearer x' } })
  db.addRemotePeer(7, new WebSocket('ws://127.0.0.1:1'))
  await close()
  await using other = await Replica.open(`${import.meta.dir}/other.db`)
  return other.status().peerId
}

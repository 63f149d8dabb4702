// A node of a todo list: Express for the page, a WebSocket for what the page shows, another path of the same server
// for the other nodes. Each node has a database file of its own; none of them is needed by the others.
//   node examples/todo/main.js todo-1.db 8001
//   node examples/todo/main.js todo-2.db 8002 ws://127.0.0.1:8001
//   node examples/todo/main.js todo-3.db 8003 ws://127.0.0.1:8001 ws://127.0.0.1:8002
// Then open http://127.0.0.1:8001 and :8002, write, kill a node, write on, start it again.

import { createServer } from 'node:http'
import { argv, exit, stderr } from 'node:process'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { patchesTable, Replica } from 'replic-sqlite'
import { attach, connect } from 'replic-sqlite/websocket'
import { WebSocketServer } from 'ws'

const [file, port, ...others] = argv.slice(2)
if (!file || !port) {
  stderr.write('usage: main.js FILE PORT [ws://HOST:PORT of another node ...]\n')
  exit(2)
}

const TODO = `CREATE TABLE todo (
  id TEXT NOT NULL PRIMARY KEY, title TEXT, done INTEGER, createdAt INTEGER, deletedAt INTEGER) STRICT`
const db = await Replica.open(file)
await db.migrate([
  { up: `${TODO}; ${patchesTable(TODO)}`, down: 'DROP TABLE todo_patches; DROP TABLE todo' },
])

const app = express()
app.use(express.static(fileURLToPath(new URL('page', import.meta.url))))
const server = createServer(app)
const sockets = new WebSocketServer({ server })
attach(db, sockets, { path: '/replic' })
for (const other of others) connect(db, `${other}/replic`)

// A page gets the whole list whenever it has changed, by whomever. It sends { n, upsert } or { n, remove }; its keys
// are its own, so what it sends twice, after a lost connection, does no harm.
const pages = new Set()
const list = () =>
  JSON.stringify({
    peerId: db.status().peerId,
    todos: db.allSync(
      'SELECT id, title, done FROM todo WHERE deletedAt IS NULL ORDER BY createdAt, id',
    ),
  })

db.on('change', () => {
  const text = list()
  for (const page of pages) page.send(text)
})

sockets.on('connection', (socket, { url }) => {
  if (url !== '/live') return
  pages.add(socket)
  socket.on('close', () => pages.delete(socket))
  socket.on('message', async (data) => {
    let n
    try {
      const message = JSON.parse(data)
      n = message.n
      if (message.upsert) await db.upsert('todo', message.upsert)
      else await db.delete('todo', { id: message.remove })
      socket.send(JSON.stringify({ stored: n }))
    } catch (error) {
      socket.send(JSON.stringify({ stored: n, error: error.message }))
    }
  })
  socket.send(list())
})

server.listen(Number(port), '127.0.0.1', () => console.log(`http://127.0.0.1:${port}`))
process.once('SIGTERM', async () => {
  server.close()
  for (const page of pages) page.close()
  await db.close({ flushMs: 5_000 })
})

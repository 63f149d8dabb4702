// A node of an API of notes on Bun: one Bun.serve for the API, with read your own write, and for the other nodes, which
// dial it over WebSocket.
//   bun examples/bun/main.js notes-1.db 8001
//   bun examples/bun/main.js notes-2.db 8002 ws://127.0.0.1:8001

import { patchesTable, Replica } from 'replic-sqlite'
import { readYourWrite } from 'replic-sqlite/fetch'
import { bunHandlers, connect } from 'replic-sqlite/websocket'

const [file, port, ...others] = process.argv.slice(2)
if (!port) {
  console.error('usage: bun main.js FILE PORT [ws://HOST:PORT of another node ...]')
  process.exit(2)
}

const NOTE = 'CREATE TABLE note (id TEXT NOT NULL PRIMARY KEY, text TEXT, deletedAt INTEGER) STRICT'
const db = await Replica.open(file)
await db.migrate([
  { up: `${NOTE}; ${patchesTable(NOTE)}`, down: 'DROP TABLE note_patches; DROP TABLE note' },
])
for (const other of others) connect(db, `${other}/replic`)

const NOTES = 'SELECT id, text FROM note WHERE deletedAt IS NULL ORDER BY id'
const api = readYourWrite(db, async (request) => {
  const id = decodeURIComponent(new URL(request.url).pathname.slice('/notes/'.length))
  if (request.method === 'GET') return Response.json(await db.all(NOTES))
  if (request.method === 'DELETE') await db.delete('note', { id })
  else await db.upsert('note', { id, text: await request.text(), deletedAt: null })
  return new Response(null, { status: 204 })
})

const peers = bunHandlers(db)
const server = Bun.serve({
  port: Number(port),
  hostname: '127.0.0.1',
  websocket: peers.websocket,
  fetch(request, self) {
    const { pathname } = new URL(request.url)
    if (pathname !== '/replic') return api(request)
    return peers.upgrade(request, self) ? undefined : new Response('for peers', { status: 426 })
  },
})
console.log(`http://127.0.0.1:${server.port}`)

process.once('SIGTERM', async () => {
  await db.close({ flushMs: 5_000 })
  await server.stop(true)
  process.exit()
})

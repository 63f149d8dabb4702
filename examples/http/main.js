// Replication over HTTP, beside an application's own routes: a server of Express that keeps notes, and
// a peer that reaches it through HTTP only. Both write their own file.
//   node examples/http/main.js

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import express from 'express'
import { Replica } from 'replic-sqlite'
import { connect, handler } from 'replic-sqlite/http'

const TOKEN = 'Bearer of this example'
const SCHEMA = [
  {
    up: `
      CREATE TABLE note (id TEXT NOT NULL PRIMARY KEY, text TEXT, deletedAt INTEGER) STRICT;
      CREATE TABLE note_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        _nulls TEXT, id TEXT NOT NULL, text TEXT, deletedAt INTEGER) STRICT;`,
    down: 'DROP TABLE note_patches; DROP TABLE note;',
  },
]
const folder = mkdtempSync(join(tmpdir(), 'replic-http-'))

// The server. Who may link is seen from the request that begins a session; TLS is a proxy's task here.
const served = await Replica.open(join(folder, 'server.db'), {
  authorize: (_peerId, { request }) => request.headers.authorization === TOKEN,
})
await served.migrate(SCHEMA)
const app = express()
app.use('/replic', handler(served)) // before body parsers
app.use(express.json())
app.post('/notes', async (req, res) => res.json({ token: await served.upsert('note', req.body) }))
app.get('/notes', async (_req, res) => res.json(await served.all('SELECT id, text FROM note')))
const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')
const origin = `http://127.0.0.1:${server.address().port}`

// The peer: on another machine, behind whatever lets HTTP through.
const peer = await Replica.open(join(folder, 'peer.db'))
await peer.migrate(SCHEMA)
connect(peer, { url: `${origin}/replic`, headers: { authorization: TOKEN } })

const written = await peer.upsert('note', { id: 'a', text: 'written at the peer' })
await served.waitFor(written)
console.log('at the server:', await (await fetch(`${origin}/notes`)).json())

const answer = await fetch(`${origin}/notes`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ id: 'b', text: 'posted to the server' }),
})
await peer.waitFor((await answer.json()).token)
console.log('at the peer:', await peer.all('SELECT id, text FROM note ORDER BY id'))

await Promise.all([peer.close(), served.close()])
server.close()
server.closeAllConnections()
rmSync(folder, { recursive: true })

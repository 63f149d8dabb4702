// Replication over a WebSocket that an application has anyway: a server of ws with a path for peers
// beside its own one, and a peer that dials it. Both write their own file; both also send each other
// messages of the application's over the same socket.
//   node examples/websocket/main.js

import { EventEmitter, once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Replica } from 'replic-sqlite'
import { attach, connect } from 'replic-sqlite/websocket'
import { WebSocketServer } from 'ws'

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
const folder = mkdtempSync(join(tmpdir(), 'replic-websocket-'))

// The server. Who may link is seen from the request of the upgrade; TLS is a proxy's task here.
const served = await Replica.open(join(folder, 'server.db'), {
  authorize: (_peerId, { request }) => request.headers.authorization === TOKEN,
})
await served.migrate(SCHEMA)
const http = createServer((_req, res) => res.end('a page'))
const sockets = new WebSocketServer({ server: http })
attach(served, sockets, {
  path: '/replic',
  onUnknownMessage: (text, socket) => socket.send(`the server says ${text}`),
})
sockets.on('connection', (socket, { url }) => {
  if (url === '/chat') socket.send('hello') // the application's own, which are left alone
})
http.listen(0, '127.0.0.1')
await once(http, 'listening')

// The peer: on another machine.
const peer = await Replica.open(join(folder, 'peer.db'))
await peer.migrate(SCHEMA)
const answers = new EventEmitter()
const connection = connect(peer, `ws://127.0.0.1:${http.address().port}/replic`, {
  headers: { authorization: TOKEN },
  onUnknownMessage: (text) => answers.emit('text', text),
})
const written = await peer.upsert('note', { id: 'a', text: 'written at the peer' })
await served.waitFor(written)
const answer = once(answers, 'text')
connection.socket.send('hello')
console.log('over the same socket:', ...(await answer))
console.log('at the server:', await served.all('SELECT id, text FROM note'))
await peer.waitFor(await served.upsert('note', { id: 'b', text: 'written at the server' }))
console.log('at the peer:', await peer.all('SELECT id, text FROM note ORDER BY id'))

await Promise.all([peer.close(), served.close()])
http.close()
rmSync(folder, { recursive: true })

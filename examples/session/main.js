// Read your own write over WebSockets, where there are no requests to put a token into: a chat of two nodes.
// A user posts at one, loses the connection, and comes back at the other one with the last token that it got:
// that one waits for it before it says anything.
//   node examples/session/main.js

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Replica } from 'replic-sqlite'
import { connect, listen } from 'replic-sqlite/tcp'
import { WebSocket, WebSocketServer } from 'ws'

const SCHEMA = [
  {
    up: `
      CREATE TABLE post (id TEXT NOT NULL PRIMARY KEY, text TEXT, at INTEGER) STRICT;
      CREATE TABLE post_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        id TEXT NOT NULL, text TEXT, at INTEGER) STRICT;`,
  },
]
const folder = mkdtempSync(join(tmpdir(), 'replic-session-'))

async function startNode(name) {
  // With a secret, the only tokens there are are those that a node has given away.
  const tokenSecret = 'openssl rand -base64 32'
  const db = await Replica.open(join(folder, `${name}.db`), { tokenSecret })
  await db.migrate(SCHEMA)
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  server.on('connection', (socket) => serve(db, socket))
  await once(server, 'listening')
  return { db, server, url: `ws://127.0.0.1:${server.address().port}` }
}

// Messages are { resume: token or null } first, then { post: { id, text } }.
function serve(db, socket) {
  const gone = new AbortController()
  socket.on('close', () => gone.abort())
  const answer = (message) => socket.send(JSON.stringify(message))
  const resume = async (token) => {
    if (token) await db.waitFor(token, { timeoutMs: 5_000, signal: gone.signal })
    const posts = await db.all('SELECT id, text FROM post ORDER BY at, id')
    answer({ posts, token: db.token() }) // after the query: it covers what that has shown
  }
  const post = async (row) => answer({ token: await db.upsert('post', { ...row, at: Date.now() }) })
  socket.on('message', async (data) => {
    try {
      const message = JSON.parse(data)
      await (message.post ? post(message.post) : resume(message.resume))
    } catch (error) {
      if (gone.signal.aborted) return
      // REPLIC_TIMEOUT: come again, here or elsewhere. REPLIC_TOKEN: begin anew.
      answer({ error: error.code ?? 'malformed' })
    }
  })
}

/** A user: connects, says hello with the token of before, and gives { ask(message), close() }. */
async function comeBack(url, token) {
  const socket = new WebSocket(url)
  await once(socket, 'open')
  const ask = async (message) => {
    socket.send(JSON.stringify(message))
    const [data] = await once(socket, 'message')
    return JSON.parse(data)
  }
  return { ask, hello: await ask({ resume: token }), close: () => socket.close() }
}

const [a, b] = [await startNode('a'), await startNode('b')]

const atA = await comeBack(a.url, null)
console.log('at a, new:', atA.hello.posts)
const { token } = await atA.ask({ post: { id: '1', text: 'Is anybody there?' } })
atA.close()

// The nodes are not even linked yet. b is asked first, and waits for what it has never heard of.
const coming = comeBack(b.url, token)
const listener = await listen(a.db)
connect(b.db, { port: listener.address().port })
const atB = await coming
console.log('at b, with the token:', atB.hello.posts)

const forged = await atB.ask({ resume: token.replace('.', '.9') })
console.log('with another one:', forged)
atB.close()

await Promise.all([a, b].map(({ db }) => db.close()))
for (const { server } of [a, b]) {
  for (const socket of server.clients) socket.terminate()
  server.close()
}
rmSync(folder, { recursive: true })

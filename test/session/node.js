// One node of the session test: a replica served by Express, Fastify or (on Bun) Bun.serve.
//   node test/session/node.js '{"framework", "path", "peerId", "guarded", "timeoutMs"}'
// Prints { http, tcp }, its ports, then obeys lines: a list of ports to dial; "end".

import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { Replica } from '../../lib/index.js'
import { readYourWrite as plugin } from '../../lib/middleware/fastify.js'
import { readYourWrite as wrap } from '../../lib/middleware/fetch.js'
import { connect, listen } from '../../lib/transport/tcp.js'

const DDL = `
  CREATE TABLE item (id INTEGER NOT NULL PRIMARY KEY, n INTEGER, version TEXT) STRICT;
  CREATE TABLE item_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, n INTEGER, version TEXT) STRICT;`

const { framework, path, peerId, guarded, timeoutMs } = JSON.parse(process.argv[2])
const options = { cookie: 'replic', timeoutMs }
const db = await Replica.open(path, {
  peerId,
  tokenSecret: 'the secret of the session test',
  durability: 'normal', // nobody cuts the power here
  heartbeatMs: 100,
})
await db.migrate([{ up: DDL }])

const ALL = 'SELECT id, n, version FROM item ORDER BY id'
const read = (ids) => {
  const list = ids.split(',').map(Number)
  return db.all(`SELECT id, n, version FROM item WHERE id IN (${list.map(() => '?')})`, list)
}
const write = async (rows) => {
  await db.upsert('item', rows)
  return {}
}
const state = async () => ({ token: db.token(), rows: await db.all(ALL) })

async function serveExpress() {
  const { default: express } = await import('express')
  const app = express()
  app.get('/state', async (_req, res) => res.json(await state()))
  if (guarded) app.use(db.readYourWrite('x-replic-token', options))
  app.get('/read', async (req, res) => res.json(await read(req.query.ids)))
  app.post('/write', express.json(), async (req, res) => res.json(await write(req.body)))
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server.address().port
}

async function serveFastify() {
  const { default: fastify } = await import('fastify')
  const app = fastify()
  app.get('/state', state)
  app.register(async (scope) => {
    if (guarded) scope.register(plugin, { db, ...options })
    scope.get('/read', (request) => read(request.query.ids))
    scope.post('/write', (request) => write(request.body))
  })
  return Number(new URL(await app.listen({ port: 0, host: '127.0.0.1' })).port)
}

function serveBun() {
  const handle = async (request) => {
    const { pathname, searchParams } = new URL(request.url)
    if (pathname === '/read') return Response.json(await read(searchParams.get('ids')))
    return Response.json(await write(await request.json()))
  }
  const handler = guarded ? wrap(db, handle, options) : handle
  const server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    idleTimeout: 120,
    fetch: async (request) =>
      new URL(request.url).pathname === '/state' ? Response.json(await state()) : handler(request),
  })
  return server.port
}

const http = await { express: serveExpress, fastify: serveFastify, bun: serveBun }[framework]()
const listener = await listen(db)
console.log(JSON.stringify({ http, tcp: listener.address().port }))
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'end') break
  for (const port of JSON.parse(line)) connect(db, { port, retryMinMs: 10, retryMaxMs: 100 })
}
await db.close()
process.exit()

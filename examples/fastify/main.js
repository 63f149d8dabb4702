// A node of an API of notes, with Fastify; several of them stand behind nginx (examples/proxy/nginx.conf, whose ports
// and peerIds these are). A client that sends back the header x-replic-token sees what it has written, at any node.
//   node examples/fastify/main.js notes-11.db 11 8011 7011
//   node examples/fastify/main.js notes-12.db 12 8012 7012 7011
//   node examples/fastify/main.js notes-13.db 13 8013 7013 7011 7012

import { argv, exit, stderr } from 'node:process'
import fastify from 'fastify'
import { METRICS_CONTENT_TYPE, patchesTable, Replica } from 'replic-sqlite'
import { readYourWrite } from 'replic-sqlite/fastify'
import { connect, listen } from 'replic-sqlite/tcp'

const [file, peerId, httpPort, replicPort, ...others] = argv.slice(2)
if (!replicPort) {
  stderr.write(
    'usage: main.js FILE PEERID HTTP_PORT REPLIC_PORT [REPLIC_PORT of another node ...]\n',
  )
  exit(2)
}

const NOTE = 'CREATE TABLE note (id TEXT NOT NULL PRIMARY KEY, text TEXT, deletedAt INTEGER) STRICT'
const db = await Replica.open(file, { peerId: Number(peerId) })
await db.migrate([
  { up: `${NOTE}; ${patchesTable(NOTE)}`, down: 'DROP TABLE note_patches; DROP TABLE note' },
])
await listen(db, { port: Number(replicPort) })
for (const port of others) connect(db, { port: Number(port) })

const app = fastify({ forceCloseConnections: 'idle' })
app.get('/metrics', (_request, reply) => reply.type(METRICS_CONTENT_TYPE).send(db.metrics()))
await app.register(readYourWrite, { db, timeoutMs: 2_000 })

const NOTES = 'SELECT id, text FROM note WHERE deletedAt IS NULL'
const body = { type: 'object', required: ['text'], properties: { text: { type: 'string' } } }

app.get('/notes', () => db.all(`${NOTES} ORDER BY id`))
app.get('/notes/:id', async ({ params }, reply) => {
  const note = db.getSync(`${NOTES} AND id = ?`, [params.id])
  return note ?? reply.code(404).send({ error: 'there is no such note' })
})
app.put('/notes/:id', { schema: { body } }, async (request, reply) => {
  await db.upsert('note', { id: request.params.id, text: request.body.text, deletedAt: null })
  return reply.code(204).send()
})
app.delete('/notes/:id', async ({ params }, reply) => {
  await db.delete('note', { id: params.id })
  return reply.code(204).send()
})

const STATUS = { REPLIC_NOT_FOUND: 404, REPLIC_BUSY: 503, SQLITE_FULL: 507 }
app.setErrorHandler((error, _request, reply) =>
  reply.code(STATUS[error.code] ?? error.statusCode ?? 500).send({ error: error.message }),
)

await app.listen({ port: Number(httpPort) })
console.log('ready')
process.once('SIGTERM', async () => {
  await app.close()
  await db.close({ flushMs: 5_000 })
})

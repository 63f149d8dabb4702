// A process of many replicas, each linked to the port given: what fanout.js sends to. Its argument is JSON: port,
// links, dir for their files. Sends { ready: true } when all are linked, and on the message { token } answers
// { reached: token } when all have applied it.

import { join } from 'node:path'
import { connect } from '../lib/transport/tcp.js'
import { openReplic } from './replic.js'

const LONG_MS = 600_000
const { port, links, dir, token } = JSON.parse(process.argv[2])
const peers = []
for (let i = 0; i < links; i++) {
  const db = await openReplic(join(dir, `peer-${i}.db`), 'NORMAL')
  connect(db, { port })
  peers.push(db)
}
const reach = (sought) => Promise.all(peers.map((db) => db.waitFor(sought, LONG_MS)))
process.on('message', async ({ token: sought }) => {
  await reach(sought)
  process.send({ reached: sought })
})
process.on('disconnect', () => process.exit())
await reach(token)
process.send({ ready: true })

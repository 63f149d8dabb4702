// Three peers on NATS: they find each other, and what one publishes serves all. Needs a server (Debian's
// package nats-server) and the npm package @nats-io/transport-node.
//   node examples/nats/main.js [server]

import { connect } from '@nats-io/transport-node'
import { nats } from 'replic-sqlite/nats'
import { openNotes, shareNotes } from '../note.js'

const [servers = '127.0.0.1:4222'] = process.argv.slice(2)
const connection = await connect({ servers }).catch((error) => {
  console.error(`no NATS at ${servers} (${error.message}): start nats-server, or name another one`)
  process.exit(1)
})

const peers = []
for (let i = 0; i < 3; i++) {
  const peer = await openNotes()
  await nats(peer.db, { connection, prefix: 'example' })
  peers.push(peer)
}
await shareNotes(peers)
await connection.close() // the application's own, so last

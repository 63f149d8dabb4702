// Three peers on Redis' publish and subscribe; nothing is stored there. Needs a server (Debian's package
// redis-server) and the npm package redis.
//   node examples/redis/main.js [url]

import { createClient } from 'redis'
import { redis } from 'replic-sqlite/redis'
import { openNotes, shareNotes } from '../note.js'

const [url = 'redis://127.0.0.1:6379'] = process.argv.slice(2)
const client = createClient({ url, socket: { reconnectStrategy: false } })
client.on('error', () => {})
await client.connect().catch((error) => {
  console.error(`no Redis at ${url} (${error.message}): start redis-server, or name another one`)
  process.exit(1)
})

const peers = []
for (let i = 0; i < 3; i++) {
  const peer = await openNotes()
  await redis(peer.db, { client, prefix: 'example' })
  peers.push(peer)
}
await shareNotes(peers)
client.destroy() // the application's own, so last

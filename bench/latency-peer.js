// The other process of latency.js. Its argument is JSON: { echo: port } sends back what comes from there;
// { path, mode, port, count } is a replica that dials `port`, and tells when it saw each of `count` rows, by id.

import { once } from 'node:events'
import { connect as dial } from 'node:net'
import { connect } from '../lib/transport/tcp.js'
import { openReplic } from './replic.js'

const { echo, path, mode, port, count } = JSON.parse(process.argv[2])
const now = () => Number(process.hrtime.bigint() / 1000n)

if (echo) {
  const socket = dial(echo, '127.0.0.1')
  socket.setNoDelay(true)
  await once(socket, 'connect')
  socket.on('data', (bytes) => socket.write(bytes)).on('error', () => {})
} else {
  const db = await openReplic(path, mode)
  const times = []
  const look = () => {
    const { n } = db.getSync('SELECT max(id) AS n FROM item')
    const at = now()
    if (times.length === count) return
    while (times.length < n) times.push(at)
    if (times.length === count) process.send({ times })
  }
  db.on('change', ({ remote }) => remote && look())
  const linked = once(db, 'synced')
  connect(db, { port })
  await linked
}
process.send('ready')
process.on('disconnect', () => process.exit())

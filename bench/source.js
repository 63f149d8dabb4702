// A process that has a log of patches and offers it over TCP: what apply.js receives from. Its argument is JSON:
// path of a file to create, rows, perGroup; keys: how many different rows they are; order: 'up', or 'random' for
// keys all over; pruned: retention has removed a patch near its end, so who lacks that has to jump. Sends
// { port, peerId, token } when it is ready.

import { listen } from '../lib/transport/tcp.js'
import { makeRows, spread } from './data.js'
import { concurrently } from './harness.js'
import { openReplic } from './replic.js'

const { path, rows, perGroup, keys, order, pruned } = JSON.parse(process.argv[2])
const db = await openReplic(path, 'NORMAL')
const groups = Math.ceil(rows / perGroup)
await concurrently(groups, Math.ceil(1000 / perGroup), (i) => {
  const group = makeRows(Math.min(perGroup, rows - i * perGroup), ((i * perGroup) % keys) + 1)
  return db.upsert('item', order === 'random' ? group.map(spread) : group)
})
if (pruned) {
  const again = makeRows(1)
  await db.upsert('item', again)
  await db.upsert('item', again)
  await db.compact({ maxPatchRetentionMs: 0 })
}
const { peerId, vector } = db.status()
const { port } = (await listen(db)).address()
process.send({ port, peerId, token: `${peerId}.${vector[peerId]}` })
process.on('disconnect', () => process.exit())

// A process that has a log of patches and offers it over TCP: what apply.js receives from. Arguments: the
// path of a file to create, the number of rows, rows per group, and 'pruned' for a log from which
// retention has removed a patch near its end: who lacks that has to jump. Sends { port, token } when it is
// ready.

import { listen } from 'replic-sqlite/tcp'
import { makeRows } from './data.js'
import { concurrently } from './harness.js'
import { openReplic } from './replic.js'

const [path, count, perGroup] = [process.argv[2], ...process.argv.slice(3, 5).map(Number)]
const pruned = process.argv[5] === 'pruned'
const db = await openReplic(path, 'NORMAL')
const rows = makeRows(count)
const groups = Math.ceil(count / perGroup)
await concurrently(groups, Math.ceil(1000 / perGroup), (i) =>
  db.upsert('item', rows.slice(i * perGroup, (i + 1) * perGroup)),
)
if (pruned) {
  await db.upsert('item', rows[0])
  await db.upsert('item', rows[0])
  await db.compact({ maxPatchRetentionMs: 0 })
}
const { peerId, vector } = db.status()
const { port } = (await listen(db)).address()
process.send({ port, token: `${peerId}.${vector[peerId]}` })
process.on('disconnect', () => process.exit())

// A process that has a log of patches and offers it over TCP: what apply.js receives from. Arguments: the
// path of a file to create, the number of rows, and rows per group. Sends { port, token } when it is ready.

import { listen } from 'replic-sqlite/tcp'
import { makeRows } from './data.js'
import { concurrently } from './harness.js'
import { openReplic } from './replic.js'

const [path, count, perGroup] = [process.argv[2], ...process.argv.slice(3).map(Number)]
const db = await openReplic(path, 'NORMAL')
const rows = makeRows(count)
const groups = Math.ceil(count / perGroup)
await concurrently(groups, Math.ceil(1000 / perGroup), (i) =>
  db.upsert('item', rows.slice(i * perGroup, (i + 1) * perGroup)),
)
const { peerId, vector } = db.status()
const { port } = (await listen(db)).address()
process.send({ port, token: `${peerId}.${vector[peerId]}` })
process.on('disconnect', () => process.exit())

// Two peers over one transport, which are closed; then the process must end by itself.
//   node|bun test/child/transport.js <module of the adapter> <folder> <all|replicas>

import { join } from 'node:path'
import { Replica } from '../../lib/index.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT);`

const [module, folder, what] = process.argv.slice(2)
const { adapter } = await import(module)
const open = async (peerId) => {
  const db = await Replica.open(join(folder, `${peerId}.db`), { peerId })
  await db.migrate([{ up: DDL }])
  return db
}

await adapter.start?.()
const [a, b] = [await open(11), await open(12)]
const listener = await adapter.listen(b)
const connection = adapter.connect(a, listener.address)
const rows = (from) => Array.from({ length: 500 }, (_, i) => ({ id: from + i, text: 'x' }))
const [one, two] = await Promise.all([a.upsert('note', rows(0)), b.upsert('note', rows(250))])
await Promise.all([b.waitFor(one, 60_000), a.waitFor(two, 60_000)])
if (what === 'all') await Promise.all([connection.close(), listener.close()])
await Promise.all([a.close(), b.close()])
await adapter.stop?.()
console.log('closed')

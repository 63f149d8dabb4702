// A worker that calls whatever the addon has, and says when it has done so.
//   workerData: { root, folder }: the package's folder, and one for its files

import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'

const { root, folder } = workerData
const { Replica } = await import(`${root}/lib/index.js`)
const { connect, listen } = await import(`${root}/lib/transport/tcp.js`)
const { addon } = await import(`${root}/lib/base/load.js`)

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, v ANY, deletedAt INTEGER);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, _nulls TEXT, id INTEGER NOT NULL, v ANY, deletedAt INTEGER);`
const refused = (promise) =>
  promise.then(
    () => Promise.reject(new Error('not refused')),
    () => {},
  )

const steps = [
  { up: DDL, down: 'DROP TABLE note_patches; DROP TABLE note' },
  {
    up: async (tx) => {
      await tx.exec('CREATE TABLE own (a)')
      await tx.run('INSERT INTO own VALUES (?)', [1])
      await tx.all('SELECT a FROM own WHERE a > $least', { least: 0 })
      await tx.get('SELECT a FROM own')
      await tx.upsert('note', { id: 1 })
      await tx.patchesTable('note')
    },
  },
]
const open = async (name) => {
  const db = await Replica.open(join(folder, name), { heartbeatMs: 1 })
  await db.migrate(steps)
  return db
}
const [a, b] = [await open('a.db'), await open('b.db')]

const values = ['text', 1, 2.5, 2n ** 60n, true, null, new Uint8Array(3), new ArrayBuffer(3)]
const rows = values.map((v, id) => ({ id, v }))
await a.upsert('note', rows)
await a.upsert('note', [...rows, ...rows, ...rows])
await a.upsert('note', { id: 9, v: new DataView(new ArrayBuffer(1)) })
await a.delete('note', { id: 1 })
const token = await a.batch((tx) => tx.upsert('note', { id: 1, v: 'x' }))
await refused(a.upsert('note', { id: 1, v: Symbol('no value') }))
await refused(a.upsert('note', { id: 1, v: 2n ** 70n }))
await refused(a.upsert('note', { id: null }))
await refused(a.upsert('note', { id: 1 }, { acks: 9, timeoutMs: 0 }))
await a.run('INSERT INTO own VALUES (?)', [2])
await a.exec('DELETE FROM own')
await a.patchesTable('note')
await a.explain('note')

const big = { readBigInts: true }
const ALL = 'SELECT id, v FROM note'
await a.all(ALL, undefined, big)
await a.get(`${ALL} WHERE id = $id`, { id: 1 })
a.getSync(`${ALL} WHERE id = ?`, [1])
a.allSync(ALL, [], big)
await refused(a.all('SELECT'))
await refused(a.all('SELECT 1', [{}]))
try {
  a.getSync('SELECT')
} catch {}
for await (const _ of a.iterate(ALL, [], big));
for await (const _ of a.iterate(ALL, [], big)) break
await a.backup(join(folder, 'copy.db'), { progress: () => {} })
await a.compact({ maxPatchRetentionMs: 0 })
await a.forget({ forks: true, pending: true, staged: true, peerId: 7 })
addon().offlineQuery('SELECT 1', [], true, false, join(folder, 'copy.db'))
addon().offlineCopy(join(folder, 'copy.db'), join(folder, 'copied.db'))
addon().patchesTable('CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY)')
const isTruth = (name) => ['normalDurability', 'trace'].includes(name)
const config = new Proxy({}, { get: (_, name) => (isTruth(name) ? false : 1) })
const unopened = new (addon().Connection)(join(folder, 'none.db'), config, () => {})
await unopened.flush()
await unopened.close()
await unopened.close()
for (const wrong of [() => new (addon().Connection)(), () => addon().patchesTable(1)])
  try {
    wrong()
  } catch {}

const listener = await listen(a)
const link = connect(b, { port: listener.address().port })
b.on('change', () => {})
await b.waitFor(token, 60_000)
await b.verify()
a.status()
a.metrics()
const far = await b.upsert('note', { id: 20 })
await a.waitFor(far, 60_000)
await link.close()
await refused(a.migrate(steps.slice(0, 1)))
await b.close({ flushMs: 1 })
await b.close()
await a.close()
parentPort.postMessage('done')

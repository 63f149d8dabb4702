// Terminates workers in every state, many times each, and looks at the file after each time.
//   node|bun test/child/workers.js <folder> <times>

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { Replica } from '../../lib/index.js'
import { listen } from '../../lib/transport/tcp.js'

const DDL = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT);
  CREATE TABLE note_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
    _peerId INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT);`
const SOURCE = fileURLToPath(new URL('./worker.js', import.meta.url))
// The states are those that worker.js knows.
const STATES = [
  ...readFileSync(SOURCE, 'utf8').matchAll(/^ {2}(\w+): (?:async )?\(\) => \{$/gm),
].map(([, name]) => name)
const AT_ONCE = 4 // workers, each with a replica of its own

const [folder, times] = process.argv.slice(2)
const hub = await Replica.open(join(folder, 'hub.db'))
await hub.migrate([{ up: DDL }])
const { port } = (await listen(hub)).address()

// Terminates one worker as soon as it says that it is in the state, or a little later.
async function once(path, state, round) {
  const worker = new Worker(SOURCE, { workerData: { path, ddl: DDL, state, port } })
  await new Promise((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
    worker.once('exit', (code) => reject(new Error(`${state}: the worker has ended with ${code}`)))
  })
  for (let turn = 0; turn < round % 8; turn++) await new Promise(setImmediate)
  worker.removeAllListeners('exit')
  worker.removeAllListeners('error')
  await worker.terminate()
}

// What was there before is there still, whole, and the file is free.
async function check(path, state) {
  const db = await Replica.open(path)
  const own = await db.all("SELECT name FROM sqlite_schema WHERE name = 'own'")
  assert.deepEqual(own, [], `${state}: half a migration`)
  const rows = await db.all('PRAGMA quick_check')
  assert.deepEqual(rows, [{ quick_check: 'ok' }])
  await db.close()
}

async function many(state, lane) {
  const path = join(folder, `${state}-${lane}.db`)
  for (let round = lane; round < Number(times); round += AT_ONCE) {
    await once(path, state, round)
    if (round % 20 === lane) await check(path, state)
  }
  await check(path, state)
}

assert.ok(STATES.length >= 13)
for (const state of STATES) {
  await Promise.all(Array.from({ length: AT_ONCE }, (_, lane) => many(state, lane)))
  console.log(state)
}
await hub.close()
console.log('closed')

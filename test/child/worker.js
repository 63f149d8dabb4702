// A worker thread with a replica, which says in which state it is and is then terminated in it.
//   workerData: { path, ddl, state, port }

import { parentPort, workerData } from 'node:worker_threads'
import { Replica } from '../../lib/index.js'
import { connect, listen } from '../../lib/transport/tcp.js'

const { path, ddl, state, port } = workerData
const now = () => parentPort.postMessage('now')
const never = new Promise(() => {})

const begin = {
  opening: () => {
    Replica.open(path)
    now()
  },
  migrating: async () => {
    const db = await Replica.open(path)
    const up = async (tx) => {
      await tx.exec('CREATE TABLE own (a)')
      now()
      for (;;) await tx.run('INSERT INTO own VALUES (1)')
    }
    await db.migrate([{ up: ddl }, { up }])
  },
  writing: async () => {
    const db = await opened()
    for (let id = 0; id < 2000; id++) db.upsert('note', { id, text: 'x' })
    now()
  },
  reading: async () => {
    const db = await opened()
    for (let i = 0; i < 100; i++) db.all(LONG)
    now()
  },
  iterating: async () => {
    const db = await opened()
    for await (const _ of db.iterate(LONG)) now()
  },
  linked: async () => {
    const db = await opened()
    connect(db, { port })
    db.on('link', (event) => event.state === 'up' && now())
    for (let id = 0; ; id++) await db.upsert('note', { id })
  },
  listening: async () => {
    await listen(await opened())
    now()
  },
  backingUp: async () => {
    const db = await opened()
    for (;;) await db.backup(`${path}.copy`, { progress: now })
  },
  compacting: async () => {
    const db = await opened()
    for (let id = 0; id < 500; id++) db.upsert('note', { id: 1, text: `${id}` })
    db.compact({ maxPatchRetentionMs: 0 })
    now()
  },
  waiting: async () => {
    const db = await opened()
    db.waitFor('99.1', 60_000)
    now()
  },
  idle: async () => {
    await opened()
    now()
  },
  closing: async () => {
    const db = await opened()
    for (let id = 0; id < 200; id++) db.upsert('note', { id })
    db.close()
    now()
  },
  closed: async () => {
    const db = await opened()
    await db.close()
    now()
  },
}

// Some 100 ms of work.
const LONG = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
  SELECT i FROM n WHERE i % 1000 = 0`

async function opened() {
  const db = await Replica.open(path)
  await db.migrate([{ up: ddl }])
  return db
}

parentPort.ref()
await begin[state]()
await never

// Every method in every state that an application can meet: open, migrating, closing, closed.

import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Replica } from '../lib/index.js'
import { connect, listen } from '../lib/transport/tcp.js'
import { linkHeld, NOTES, openReplica, rejects, tempDir } from './helpers.js'

class Socket extends EventEmitter {
  send() {}
  close() {
    this.emit('close')
  }
}

// A call of each method that succeeds on an open replica with the tables of NOTES.
const calls = {
  migrate: (db) => db.migrate([{ up: NOTES }]),
  upsert: (db) => db.upsert('note', { id: 1 }),
  load: (db) => db.load('note', [{ id: 1 }]),
  batch: (db) => db.batch((tx) => tx.upsert('note', { id: 1 })),
  delete: (db) => db.delete('note', { id: 0 }),
  get: (db) => db.get('SELECT 1'),
  all: (db) => db.all('SELECT 1'),
  getSync: async (db) => db.getSync('SELECT 1'),
  allSync: async (db) => db.allSync('SELECT 1'),
  iterate: (db) => db.iterate('SELECT 1').next(),
  run: (db) => db.run('CREATE TABLE IF NOT EXISTS own (a)'),
  exec: (db) => db.exec('CREATE TABLE IF NOT EXISTS own (a)'),
  compact: (db) => db.compact({ maxPatchRetentionMs: 0 }),
  forget: (db) => db.forget({ forks: true, pending: true, staged: true }),
  backup: (db) => db.backup(join(tempDir(), 'copy.db')),
  waitFor: (db) => db.waitFor(`${db.status().peerId}.0`),
  token: async (db) => db.token(),
  mergeTokens: async (db) => db.mergeTokens('1.2', '3.4'),
  readYourWrite: async (db) => db.readYourWrite(),
  addRemotePeer: async (db) => db.addRemotePeer(null, new Socket()),
  setSecrets: (db) => db.setSecrets('sixteen bytes or more'),
  closeRemotePeer: async (db) => db.closeRemotePeer(5),
  explain: (db) => db.explain('note'),
  patchesTable: (db) => db.patchesTable('note'),
  verify: (db) =>
    db.verify().catch((error) => {
      if (error.code !== 'REPLIC_NOT_FOUND') throw error // nobody is linked
    }),
  listen: (db) => listen(db),
  connect: async (db) => connect(db, { port: 1, unref: true }),
}
// Those that work in every state.
const always = {
  status: (db) => db.status(),
  metrics: (db) => db.metrics(),
  toJSON: (db) => db.toJSON(),
  on: (db) => db.on('change', () => {}),
  once: (db) => db.once('change', () => {}),
  off: (db) => db.off('change', () => {}),
  close: (db) => db.close(),
}

const fixture = async () => {
  const db = await openReplica()
  await db.upsert('note', { id: 0 })
  return db
}

it('the matrix has every method', () => {
  const methods = Object.getOwnPropertyNames(Replica.prototype).filter(
    (name) => name !== 'constructor',
  )
  const tested = [...Object.keys(calls), ...Object.keys(always)]
  expect(methods.filter((name) => !tested.includes(name))).toEqual([])
})

describe('open', () => {
  it.each(Object.keys({ ...calls, ...always }))('%s succeeds', async (name) => {
    const db = await fixture()
    await { ...calls, ...always }[name](db)
  })

  it('status tells what it is', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ path, peerId: 9 })
    await db.upsert('note', { id: 1 })
    expect(db.status()).toMatchObject({
      peerId: 9,
      path,
      state: 'open',
      vector: { 9: 1 },
      tables: ['note'],
      queue: { calls: 0, bytes: 0 },
      links: [],
    })
    expect(JSON.parse(JSON.stringify(db))).toEqual({ peerId: 9, path, state: 'open' })
  })

  it('explain gives the SQL of a table', async () => {
    const db = await fixture()
    const sql = await db.explain('note')
    expect(sql).toContain('"note"')
    expect(sql).toContain('"note_patches"')
    expect(sql.trim().endsWith(';')).toBe(true)
  })
})

describe('migrating', () => {
  const two = [{ up: NOTES }, { up: 'CREATE TABLE other (a)' }]

  it.each(Object.keys(calls))('%s succeeds', async (name) => {
    const db = await fixture()
    const migrating = db.migrate(two)
    const call = name === 'migrate' ? db.migrate(two) : calls[name](db)
    await Promise.all([migrating, call])
    expect(await db.all('SELECT * FROM other')).toEqual([])
  })

  it.each(Object.keys(always))('%s succeeds', async (name) => {
    const db = await fixture()
    const migrating = db.migrate(two).catch((error) => error)
    await always[name](db)
    const outcome = await migrating
    if (name === 'close') expect(outcome.code ?? 'done').toMatch(/^(done|REPLIC_CLOSED)$/)
    else expect(outcome).toEqual({ from: 1, to: 2 })
  })
})

describe.each(['flushing', 'closing', 'closed'])('%s', (state) => {
  const enter = async () => {
    const db = await fixture()
    let closing
    if (state === 'flushing') {
      const other = await openReplica()
      const connection = await linkHeld(db, other)
      connection.hold()
      await db.upsert('note', { id: 0 })
      closing = db.close({ flushMs: 2 ** 31 - 1 })
      onTestFinished(connection.release)
    } else {
      closing = db.close()
      if (state === 'closed') await closing
    }
    expect(db.status().state).toBe(state === 'closed' ? 'closed' : 'closing')
    const end = () => (state === 'flushing' ? db.close() : closing)
    return { db, closing, end }
  }

  it.each(Object.keys(calls))('%s is REPLIC_CLOSED', async (name) => {
    const { db, end } = await enter()
    const error = await (async () => calls[name](db))().catch((reason) => reason)
    expect(error).toMatchObject({ name: 'ReplicError', code: 'REPLIC_CLOSED' })
    if (state === 'flushing') expect(db.status().state).toBe('closing')
    await end()
  })

  it.each(Object.keys(always))('%s succeeds', async (name) => {
    const { db, closing, end } = await enter()
    await always[name](db)
    await end()
    await closing
    expect(db.status().state).toBe('closed')
  })
})

describe('close', () => {
  it('executes what was called before, and settles it', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ path })
    const writes = Array.from({ length: 1000 }, (_, id) => db.upsert('note', { id }))
    const reads = Array.from({ length: 50 }, () => db.all('SELECT 1 AS a'))
    const batch = db.batch((tx) => tx.upsert('note', { id: 5000 }))
    await db.close()
    expect(new Set(await Promise.all(writes)).size).toBe(1000)
    expect(await Promise.all(reads)).toEqual(Array(50).fill([{ a: 1 }]))
    await batch
    const again = await openReplica({ path })
    expect(await again.get('SELECT count(*) AS n FROM note')).toEqual({ n: 1001 })
  })

  it('ends iterators and waits', async () => {
    const db = await fixture()
    await db.load(
      'note',
      Array.from({ length: 1000 }, (_, id) => ({ id })),
    )
    const iterator = db.iterate('SELECT id FROM note')
    await iterator.next()
    const waiting = [db.waitFor('77.1', 60_000), db.waitFor(`${db.status().peerId}.99999`, 60_000)]
    const outcome = Promise.allSettled(waiting)
    await db.close()
    await expect(iterator.next()).rejects.toMatchObject({ code: 'REPLIC_CLOSED' })
    expect(await iterator.next()).toEqual({ value: undefined, done: true })
    for (const { reason } of await outcome) expect(reason).toMatchObject({ code: 'REPLIC_CLOSED' })
  })

  it('ends load() and batch() under way', async () => {
    const db = await fixture()
    let go
    const gate = new Promise((resolve) => {
      go = resolve
    })
    const rows = async function* () {
      yield { id: 1 }
      await gate
      yield { id: 2 }
    }
    const loading = db.load('note', rows())
    const batch = db.batch(async (tx) => {
      tx.upsert('note', { id: 3 })
      await gate
    })
    const outcome = Promise.allSettled([loading, batch])
    await db.close()
    go()
    for (const { reason } of await outcome) expect(reason).toMatchObject({ code: 'REPLIC_CLOSED' })
  })

  it('can be called at any time, any number of times', async () => {
    const db = await fixture()
    await Promise.all([db.close(), db.close(), db[Symbol.asyncDispose]()])
    await db.close()
  })

  it('stops a long read at its deadline', async () => {
    const db = await fixture()
    const endless = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)'
    const reading = rejects(db.get(`${endless} SELECT max(i) FROM n`), 'REPLIC_CLOSED', 'timeoutMs')
    await db.close({ timeoutMs: 1 })
    expect(db.status().state).toBe('closed')
    await reading
  })

  it('frees the file for another Replica', async () => {
    const path = join(tempDir(), 'a.db')
    for (let round = 0; round < 5; round++) {
      const db = await Replica.open(path)
      await db[Symbol.asyncDispose]()
      expect(db.status().state).toBe('closed')
    }
  })
})

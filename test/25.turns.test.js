// Where calls run: a few small ones on the thread of the caller, after its turn of the event loop; the rest on another.

import { AsyncLocalStorage } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { withSum } from '../lib/base/sum.js'
import { eventOf, linkHeld, openReplica, startProcess, synced, tempDir } from './helpers.js'
import { withPoolOccupied } from './pool.js'

// Another program, until its input ends.
const HOLD_THE_LOCK = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()
db.execute('COMMIT')`
const NORMAL = { durability: 'normal', peerId: 7, heartbeatMs: 60_000 }

/** How far a promise has come after some turns of the event loop. */
async function seen(promise) {
  let state = 'pending'
  promise.then(
    () => (state = 'settled'),
    () => (state = 'rejected'),
  )
  for (let i = 0; i < 10; i++) await turn()
  return state
}

describe('calls that no other thread is needed for', () => {
  it('small writes, durability normal', async () => {
    const db = await openReplica(NORMAL)
    await db.explain('note') // runs alone: what came before it is over
    await withPoolOccupied(async () => {
      expect(await db.upsert('note', { id: 1, text: 'a' })).toBe('7.1')
      const two = [2, 3].map((id) => db.upsert('note', { id }))
      expect(await Promise.all(two)).toEqual(['7.2', '7.3'])
      expect(db.getSync('SELECT count(*) AS n FROM note')).toEqual({ n: 3 })
    })
  })

  it('what a linked peer has written, and its acknowledgement', async () => {
    const [db, other] = [await openReplica(NORMAL), await openReplica({ ...NORMAL, peerId: 8 })]
    await linkHeld(db, other)
    await Promise.all([db, other].map((one) => one.upsert('note', { id: one === db ? 10 : 11 })))
    await synced(db, other)
    // Each runs alone, after what has come: so what follows the link and the writes is over.
    for (let i = 0; i < 10; i++) await Promise.all([db.explain('note'), other.explain('note')])
    await withPoolOccupied(async () => {
      expect(await db.upsert('note', { id: 1, text: 'a' })).toBe('7.2')
      expect(await seen(other.waitFor('7.2', 60_000))).toBe('settled')
      expect(other.getSync('SELECT text FROM note WHERE id = 1')).toEqual({ text: 'a' })
    })
  })

  it('but with many calls, a large one, SQL of the application, or where the disk is waited for', async () => {
    const db = await openReplica(NORMAL)
    const full = await openReplica({ ...NORMAL, durability: 'full' })
    const calls = []
    await withPoolOccupied(async () => {
      calls.push(full.upsert('note', { id: 1 }))
      expect(await seen(calls[0])).toBe('pending')
      calls.push(...Array.from({ length: 5 }, (_, id) => db.upsert('note', { id })))
      expect(await seen(calls[5])).toBe('pending')
    })
    await Promise.all(calls)
    for (const call of [
      () => db.upsert('note', { id: 9, text: 'x'.repeat(20_000) }),
      () => db.run('CREATE TABLE own (n)'),
      () =>
        db.batch((tx) =>
          tx.upsert(
            'note',
            Array.from({ length: 200 }, (_, id) => ({ id })),
          ),
        ),
    ]) {
      let called
      await withPoolOccupied(async () => {
        called = call()
        expect([String(call), await seen(called)]).toEqual([String(call), 'pending'])
      })
      await called
    }
  })

  it('calls in a row, each awaited, leave the event loop its turns', async () => {
    const db = await openReplica(NORMAL)
    let turns = 0
    let counting = true
    const count = () => {
      turns++
      if (counting) setImmediate(count)
    }
    setImmediate(count)
    for (let id = 0; id < 100; id++) await db.upsert('note', { id })
    counting = false
    expect(turns).toBeGreaterThanOrEqual(99)
  })

  it('many calls at once, too: in a turn only some of them end', async () => {
    const db = await openReplica(NORMAL)
    const sequences = []
    const slices = []
    let ended = 0
    const countSlice = () => {
      slices.push(ended)
      ended = 0
    }
    const calls = Array.from({ length: 2000 }, (_, id) => db.upsert('note', { id }))
    for (const call of calls)
      call.then((token) => {
        sequences.push(Number(token.split('.')[1]))
        // Behind what is done for the other promises that were settled together.
        if (ended++ === 0) queueMicrotask(countSlice)
      })
    await Promise.all(calls)
    await turn()
    expect(Math.max(...slices)).toBeLessThanOrEqual(128)
    expect(slices.reduce((sum, slice) => sum + slice)).toBe(2000)
    expect(sequences).toEqual(Array.from({ length: 2000 }, (_, i) => i + 1))
  })

  it('nobody waits behind frames that came in before, however many', async () => {
    const db = await openReplica(NORMAL)
    const socket = Object.assign(new EventEmitter(), { send() {}, close() {} })
    const text = (value) => [value.length, ...Buffer.from(value)]
    const marker = (name) => [1, 6, ...text('REPLIC_SCHEMA'), ...text(name)] // ERROR: an event
    const come = (bytes) => socket.emit('message', withSum(Buffer.from(bytes)))
    const has = (name) => eventOf(db, 'link', ({ reason }) => reason?.endsWith(name))
    const [first, second] = [has('first'), has('second')]
    let isBusy = true
    const busy = () => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2)
      if (isBusy) setImmediate(busy)
    }
    db.addRemotePeer(null, socket)
    come([1, 1, 0, 9, 7, 5, 0, 0, 0]) // HELLO of peer 9
    for (let i = 0; i < 14_000; i++) {
      if (i === 10_000) come(marker('first'))
      if (i === 13_000) come(marker('second'))
      come([1, 4, 8, 0]) // NEED of peer 8, of whom there is nothing
    }
    busy()
    await first
    const order = []
    await Promise.all([
      db.upsert('note', { id: 1 }).then(() => order.push('written')),
      second.then(() => order.push('second')),
    ])
    isBusy = false
    expect(order).toEqual(['written', 'second'])
    socket.emit('close')
  })

  it('close() ends all of them first', async () => {
    const db = await openReplica(NORMAL)
    const ended = []
    const calls = Array.from({ length: 1000 }, (_, id) =>
      db.upsert('note', { id }).then(() => ended.push(id)),
    )
    await db.close()
    expect(ended).toHaveLength(1000)
    await Promise.all(calls)
  })

  it('who cannot have the write lock waits on another thread', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ ...NORMAL, path })
    await db.upsert('note', { id: 1 })
    const other = startProcess('python3', ['-c', HOLD_THE_LOCK, path])
    expect(await other.line()).toBe('held')
    const written = db.upsert('note', { id: 2 })
    expect(await seen(written)).toBe('pending') // and this thread goes on
    other.end()
    expect(await written).toBe('7.2')
    expect(await db.upsert('note', { id: 3 })).toBe('7.3')
  })

  it('one that fails rejects, alone', async () => {
    const db = await openReplica(NORMAL)
    const results = await Promise.allSettled([
      db.upsert('note', { id: 1, size: -1 }),
      db.upsert('note', { id: 2, size: 2 }),
      db.upsert('note', { id: 3, size: -1 }),
    ])
    expect(results.map(({ value, reason }) => value ?? reason.code)).toEqual([
      'SQLITE_CONSTRAINT_CHECK',
      '7.1',
      'SQLITE_CONSTRAINT_CHECK',
    ])
    expect(await db.all('SELECT id FROM note')).toEqual([{ id: 2 }])
  })

  it('an event is not part of what the caller was doing', async () => {
    const store = new AsyncLocalStorage()
    const db = await openReplica(NORMAL)
    const listened = new Promise((resolve) =>
      db.once('change', () => resolve(store.getStore() ?? 'nothing')),
    )
    await store.run('a request', () => db.upsert('note', { id: 1 }))
    expect(await listened).toBe('nothing')
  })

  it('what was called before close() is done', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ ...NORMAL, path })
    const written = db.upsert('note', { id: 1, text: 'last' })
    await db.close()
    expect(await written).toBe('7.1')
    const again = await openReplica({ ...NORMAL, path, ddl: '' })
    expect(await again.all('SELECT text FROM note WHERE id = 1')).toEqual([{ text: 'last' }])
  })
})

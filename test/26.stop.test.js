// Calls that are stopped: by a signal, by their own limit or the replica's, by the end of a loop, by close(). Each
// query here would run for ever, so a test that ends has seen it stopped.

import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { NOTES, openReplica, rejects, tempDir, until } from './helpers.js'

const NUMBERS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)'
const ENDLESS = `${NUMBERS} SELECT max(i) FROM n`
// One call of a function that takes seconds, and looks at nothing meanwhile.
const TIGHT = "SELECT instr(printf('%.400000c', 'a'), printf('%.200000c', 'a') || 'b')"
const FILL = `INSERT INTO own ${NUMBERS} SELECT i FROM n`
const DDL = 'CREATE TABLE own (n)'
const reason = new Error('the reader has gone')

// Aborts when the call runs: not before it has left the queue, as one that waits is not begun.
async function abortRunning(db, call) {
  const controller = new AbortController()
  const running = call(controller.signal)
  const next = db.get('SELECT 1') // behind it on the one reader, or beside it
  await new Promise((resolve) => setImmediate(resolve))
  controller.abort(reason)
  await expect(running).rejects.toBe(reason)
  expect(await next).toEqual({ 1: 1 })
}

describe('a signal', () => {
  it.each([
    ['get', (db, signal) => db.get(ENDLESS, [], { signal })],
    ['all', (db, signal) => db.all(ENDLESS, [], { signal })],
    ['iterate', (db, signal) => db.iterate(ENDLESS, [], { signal }).next()],
    ['run', (db, signal) => db.run(FILL, [], { signal })],
    ['exec', (db, signal) => db.exec(`SELECT 1; ${FILL}`, { signal })],
    ['migrate', (db, signal) => db.migrate([{ up: DDL }, { up: FILL }], { signal })],
    [
      'a step that is a function',
      (db, signal) =>
        db.migrate([{ up: DDL }, { name: 'fill', up: (tx) => tx.get(ENDLESS) }], { signal }),
    ],
    [
      'a step that waits for something else',
      (db, signal) =>
        db.migrate([{ up: DDL }, { name: 'wait', up: () => new Promise(() => {}) }], { signal }),
    ],
  ])('stops %s with its reason, and leaves nothing of it', async (_, call) => {
    const db = await openReplica({ ddl: DDL, readers: 1 })
    await abortRunning(db, (signal) => call(db, signal))
    expect(await db.all('SELECT n FROM own')).toEqual([])
    expect(await db.all('SELECT version FROM _replic_migrations')).toEqual([{ version: 1 }])
    expect(await db.run('INSERT INTO own VALUES (1)')).toMatchObject({ changes: 1 })
  })

  it.each(['a script', 'a function'])(
    'stops %s of a migration, whenever it comes',
    async (kind) => {
      const db = await openReplica({ ddl: DDL })
      const up = kind === 'a script' ? FILL : (tx) => tx.run(FILL)
      for (let turns = 0; turns < 20; turns++) {
        const controller = new AbortController()
        const { signal } = controller
        const migrating = db.migrate([{ up: DDL }, { name: 'fill', up }], { signal })
        const ended = Promise.allSettled([migrating])
        for (let i = 0; i < turns; i++) await Promise.resolve()
        for (let i = 10; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
        controller.abort(reason)
        expect((await ended)[0].reason).toBe(reason)
      }
      expect(await db.all('SELECT n FROM own')).toEqual([])
    },
  )

  it('that is aborted already: nothing begins', async () => {
    const db = await openReplica({ ddl: DDL })
    const signal = AbortSignal.abort(reason)
    const write = 'INSERT INTO own VALUES (1)'
    await expect(db.get('SELECT 1', [], { signal })).rejects.toBe(reason)
    await expect(db.iterate('SELECT 1', [], { signal }).next()).rejects.toBe(reason)
    await expect(db.run(write, [], { signal })).rejects.toBe(reason)
    await expect(db.exec(write, { signal })).rejects.toBe(reason)
    await expect(db.migrate([{ up: DDL }, { up: write }], { signal })).rejects.toBe(reason)
    expect(await db.all('SELECT n FROM own')).toEqual([])
  })

  it('ends a migration that waits for another one at once, and it never runs', async () => {
    const db = await openReplica({ ddl: DDL })
    let goOn
    const wait = {
      name: 'wait',
      up: () =>
        new Promise((resolve) => {
          goOn = resolve
        }),
    }
    const first = db.migrate([{ up: DDL }, wait])
    const list = [{ up: DDL }, wait, { up: 'CREATE TABLE more (n)' }]
    const controller = new AbortController()
    const second = db.migrate(list, { signal: controller.signal })
    controller.abort(reason)
    await expect(second).rejects.toBe(reason)
    await rejects(db.migrate(list, { timeoutMs: 1 }), 'REPLIC_TIMEOUT', 'migrate')
    await until(() => goOn)
    goOn()
    expect(await first).toEqual({ from: 1, to: 2 })
    expect(await db.migrate(list)).toEqual({ from: 2, to: 3 })
  })

  it('ends what waits at once, and it never runs', async () => {
    const db = await openReplica({ ddl: DDL, readers: 1 })
    const [first, second] = [new AbortController(), new AbortController()]
    const { signal } = second
    const holding = [
      db.get(ENDLESS, [], { signal: first.signal }),
      db.run(FILL, [], { signal: first.signal }),
    ]
    const waiting = [
      db.get('SELECT 1', [], { signal }),
      db.run('INSERT INTO own VALUES (1)', [], { signal }),
      db.exec('INSERT INTO own VALUES (1)', { signal }),
    ]
    const never = Promise.allSettled(waiting)
    second.abort(reason)
    for (const outcome of await never) expect(outcome.reason).toBe(reason)
    const ended = Promise.allSettled(holding)
    first.abort(reason)
    for (const outcome of await ended) expect(outcome.reason).toBe(reason)
    expect(await db.all('SELECT n FROM own')).toEqual([])
  })

  it('that comes too late changes nothing', async () => {
    const db = await openReplica({ ddl: DDL })
    const controller = new AbortController()
    const { signal } = controller
    const row = await db.get('SELECT 1 AS a', [], { signal })
    const written = await db.run('INSERT INTO own VALUES (1)', [], { signal })
    controller.abort()
    expect([row, written.changes]).toEqual([{ a: 1 }, 1])
    expect(await db.all('SELECT n FROM own')).toEqual([{ n: 1 }])
  })

  it('undoes one call of a batch: those beside it go on', async () => {
    const db = await openReplica()
    await db.run('CREATE TABLE own (n)')
    const controller = new AbortController()
    const { signal } = controller
    const before = Array.from({ length: 20 }, (_, id) => db.upsert('note', { id }))
    const stopped = db.run(FILL, [], { signal })
    const after = [
      db.upsert('note', { id: 100 }),
      db.run('INSERT INTO own VALUES (7)'),
      db.run('INSERT INTO own VALUES (8)', [], { timeoutMs: 60_000 }),
      db.upsert('note', { id: 101 }),
    ]
    await Promise.all(before)
    controller.abort(reason)
    await expect(stopped).rejects.toBe(reason)
    await Promise.all(after)
    expect(await db.all('SELECT n FROM own')).toEqual([{ n: 7 }, { n: 8 }])
    expect(await db.get('SELECT count(*) AS n FROM note')).toEqual({ n: 22 })
    expect(db.status().vector).toEqual({ [db.status().peerId]: 22 })
  })

  it('leaves a loop between two rows, too', async () => {
    const db = await openReplica({ ddl: DDL })
    const controller = new AbortController()
    const seen = []
    const loop = async () => {
      const rows = db.iterate(`${NUMBERS} SELECT i FROM n`, [], { signal: controller.signal })
      for await (const { i } of rows) {
        seen.push(i)
        if (i === 3) controller.abort(reason)
      }
    }
    await expect(loop()).rejects.toBe(reason)
    expect(seen).toEqual([1, 2, 3])
  })

  it('one for a thousand calls', async () => {
    const db = await openReplica({ ddl: DDL, readers: 1 })
    const controller = new AbortController()
    const { signal } = controller
    const calls = [db.get(ENDLESS, [], { signal })]
    for (let i = 0; i < 1000; i++) calls.push(db.get('SELECT 1', [], { signal }))
    controller.abort(reason)
    const settled = await Promise.allSettled(calls)
    expect(settled.every((outcome) => outcome.reason === reason)).toBe(true)
    expect(await db.get('SELECT 1 AS a')).toEqual({ a: 1 })
  })
})

describe('timeoutMs', () => {
  it.each([
    ['get', (db, timeoutMs) => db.get(ENDLESS, [], { timeoutMs })],
    ['all', (db, timeoutMs) => db.all(ENDLESS, [], { timeoutMs })],
    ['getSync', async (db, timeoutMs) => db.getSync(ENDLESS, [], { timeoutMs })],
    ['allSync', async (db, timeoutMs) => db.allSync(ENDLESS, [], { timeoutMs })],
    ['iterate', (db, timeoutMs) => db.iterate(ENDLESS, [], { timeoutMs }).next()],
    ['run', (db, timeoutMs) => db.run(FILL, [], { timeoutMs })],
    ['exec', (db, timeoutMs) => db.exec(FILL, { timeoutMs })],
    ['migrate', (db, timeoutMs) => db.migrate([{ up: DDL }, { up: FILL }], { timeoutMs })],
  ])('stops %s, and says what helps', async (_, call) => {
    const db = await openReplica({ ddl: DDL, readers: 1 })
    await rejects(call(db, 20), 'REPLIC_TIMEOUT', 'timeoutMs', '20 ms', 'index')
    expect(await db.all('SELECT n FROM own')).toEqual([])
    expect(await db.run('INSERT INTO own VALUES (1)')).toMatchObject({ changes: 1 })
  })

  it('of a call that waits counts too', async () => {
    const db = await openReplica({ ddl: DDL, readers: 1 })
    const controller = new AbortController()
    const holding = db.get(ENDLESS, [], { signal: controller.signal })
    await rejects(db.get('SELECT 1', [], { timeoutMs: 1 }), 'REPLIC_TIMEOUT')
    controller.abort(reason)
    await expect(holding).rejects.toBe(reason)
  })

  it('rejects at once where the thread cannot stop', async () => {
    const db = await openReplica({ ddl: DDL, readers: 2 })
    await rejects(db.get(TIGHT, [], { timeoutMs: 1 }), 'REPLIC_TIMEOUT')
    expect(await db.get('SELECT 1 AS a')).toEqual({ a: 1 }) // on the other reader
  })

  it('of iterate does not count what the loop does between rows', async () => {
    const db = await openReplica({ ddl: DDL })
    const rows = `${NUMBERS} SELECT i FROM n LIMIT 1000`
    let count = 0
    for await (const _ of db.iterate(rows, [], { timeoutMs: 1_000 })) {
      if (count++ % 250 === 0) await Promise.allSettled([db.get(ENDLESS, [], { timeoutMs: 400 })])
    }
    expect(count).toBe(1000)
  })

  it('is checked, and getSync has no signal', async () => {
    const db = await openReplica({ ddl: DDL })
    await rejects(db.get('SELECT 1', [], { timeoutMs: 0 }), 'REPLIC_USAGE', 'timeoutMs')
    await rejects(db.run('SELECT 1', [], { signal: 1 }), 'REPLIC_USAGE', 'an AbortSignal')
    await rejects(
      (async () => db.getSync('SELECT 1', [], { signal: AbortSignal.abort() }))(),
      'REPLIC_USAGE',
      "unknown option 'signal'",
    )
  })
})

describe('maxQueryMs', () => {
  it.each([
    ['get', (db) => db.get(ENDLESS)],
    ['all', (db) => db.all(ENDLESS)],
    ['getSync', async (db) => db.getSync(ENDLESS)],
    ['iterate', (db) => db.iterate(ENDLESS).next()],
    [
      'a slice of iterate',
      (db) => db.iterate(`SELECT 1 UNION ALL SELECT * FROM (${ENDLESS})`).next(),
    ],
  ])('stops each query: %s', async (_, call) => {
    const db = await openReplica({ ddl: DDL, maxQueryMs: 20 })
    await rejects(call(db), 'REPLIC_TIMEOUT', 'maxQueryMs', '20 ms', 'index')
    expect(await db.get('SELECT 1 AS a')).toEqual({ a: 1 })
  })

  it('a shorter timeoutMs counts instead', async () => {
    const db = await openReplica({ ddl: DDL, maxQueryMs: 600_000 })
    await rejects(
      (async () => db.getSync(ENDLESS, [], { timeoutMs: 20 }))(),
      'REPLIC_TIMEOUT',
      'timeoutMs',
    )
  })

  it('is no limit for what writes', async () => {
    const db = await openReplica({ ddl: DDL, maxQueryMs: 1 })
    const numbers = `${NUMBERS} SELECT i FROM n LIMIT 200000`
    expect(await db.run(`INSERT INTO own ${numbers}`)).toMatchObject({ changes: 200_000 })
  })
})

describe('iterate', () => {
  it('return() ends a search for the next row', async () => {
    const db = await openReplica({ ddl: DDL })
    const rows = db.iterate(ENDLESS)
    const next = rows.next()
    expect(await rows.return('left')).toEqual({ value: 'left', done: true })
    expect(await next).toEqual({ value: undefined, done: true })
    expect(await rows.next()).toEqual({ value: undefined, done: true })
  })

  it('leaving a loop ends the search that goes on meanwhile', async () => {
    const db = await openReplica({ ddl: DDL })
    const few = `SELECT value AS a FROM json_each('[${Array(256).fill(1)}]')`
    for await (const { a } of db.iterate(`${few} UNION ALL SELECT * FROM (${ENDLESS})`)) {
      expect(a).toBe(1)
      break
    }
    await db.close()
  })
})

describe('close()', () => {
  it('stops at its deadline what runs and what waits', async () => {
    const db = await openReplica({ readers: 1 })
    await db.run('CREATE TABLE own (n)')
    const rows = db.iterate(`SELECT 1 AS a UNION ALL SELECT * FROM (${ENDLESS})`)
    const calls = [db.get(ENDLESS), db.get('SELECT 1'), db.run(FILL), db.exec(FILL)].map((call) =>
      rejects(call, 'REPLIC_CLOSED', 'timeoutMs of close()'),
    )
    const loop = rejects(rows.next(), 'REPLIC_CLOSED')
    const written = db.upsert('note', { id: 1 })
    await db.close({ timeoutMs: 20 })
    expect(db.status().state).toBe('closed')
    await Promise.all([...calls, loop])
    await written // it is not stopped: it ends by itself
  })

  it('executes what shares a transaction with a call that it stops', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ ddl: NOTES + DDL, path, peerId: 7 })
    const calls = [
      db.run('INSERT INTO own VALUES (0)'), // so that the others come together
      db.upsert('note', { id: 1 }),
      db.exec('INSERT INTO own VALUES (1)'),
      db.exec(FILL),
      db.upsert('note', { id: 2 }),
      db.delete('note', { id: 1 }),
    ]
    const ended = Promise.allSettled(calls)
    await db.close({ timeoutMs: 20 })
    const [, first, own, fill, second, deleted] = await ended
    for (const { reason: why } of [own, fill]) expect(why.code).toBe('REPLIC_CLOSED')
    expect([first.value, second.value, deleted.value]).toEqual(['7.1', '7.2', '7.3'])
    const again = await openReplica({ ddl: NOTES + DDL, path, peerId: 7 })
    expect(await again.all('SELECT n FROM own')).toEqual([{ n: 0 }])
    expect(await again.all('SELECT id, deletedAt > 0 AS gone FROM note ORDER BY id')).toEqual([
      { id: 1, gone: 1 },
      { id: 2, gone: null },
    ])
  })

  it('stops a step of a migration', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await openReplica({ ddl: DDL, path })
    const fills = new Promise((resolve) => {
      const up = (tx) => {
        resolve()
        return tx.run(FILL)
      }
      db.migrate([{ up: DDL }, { name: 'fill', up }]).catch(resolve)
    })
    expect(await fills).toBe(undefined)
    await db.close({ timeoutMs: 20 })
    const again = await openReplica({ ddl: DDL, path })
    expect(await again.all('SELECT n FROM own')).toEqual([])
  })

  it('rejects where something cannot be stopped, and goes on in the background', async () => {
    const db = await openReplica({ ddl: DDL })
    const reading = rejects(db.get(TIGHT), 'REPLIC_CLOSED').catch(() => {}) // or it has just ended
    await new Promise((resolve) => setImmediate(resolve)) // one that has not begun is not executed
    await rejects(db.close({ timeoutMs: 1 }), 'REPLIC_TIMEOUT', 'in the background')
    expect(db.status().state).toBe('closing')
    await Promise.all([reading, db.close({ timeoutMs: 60_000 })])
    expect(db.status().state).toBe('closed')
  })
})

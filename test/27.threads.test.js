// Threads of the pool: however many queries run, and for however long, writes and whatever else the application has
// there find one. Each query here would run for ever.

import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { describe, expect, it } from 'vitest'
import { poolThreads } from '../lib/threads.js'
import { bunProgram, linkHeld, openReplica, runProcess, synced, tempDir } from './helpers.js'

const ENDLESS =
  'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n'
const MANY = 8 // more than threads and readers
const reason = new Error('enough')

// Queries that run, or wait for a thread, until release() is called.
function fill(db) {
  const controllers = Array.from({ length: MANY }, () => new AbortController())
  const calls = controllers.map(({ signal }, i) =>
    i % 4 === 3 ? db.iterate(ENDLESS, [], { signal }).next() : db.get(ENDLESS, [], { signal }),
  )
  const release = async () => {
    const ended = Promise.allSettled(calls)
    for (const controller of controllers) controller.abort(reason)
    for (const outcome of await ended) expect(outcome.reason).toBe(reason)
  }
  return { release, calls }
}

describe('while more queries run than there are threads', () => {
  it('writes, frames, files and loops that are left find one', async () => {
    const [a, b] = [await openReplica({ readers: 16 }), await openReplica({ readers: 16 })]
    await linkHeld(a, b)
    const filled = [fill(a), fill(b)]
    await a.upsert('note', { id: 1 })
    await b.upsert('note', { id: 2 })
    await b.run('CREATE TABLE own (n)')
    await synced(a, b)
    expect((await stat(a.status().path)).isFile()).toBe(true)
    expect(a.getSync('SELECT count(*) AS n FROM note')).toEqual({ n: 2 })
    const waiting = a.get('SELECT count(*) AS n FROM note')
    for (const { release } of filled) await release()
    expect(await waiting).toEqual({ n: 2 })
  })

  it('close() of one replica, and of another', async () => {
    const [a, b] = [await openReplica({ readers: 16 }), await openReplica()]
    const { calls } = fill(a)
    const ended = Promise.allSettled(calls)
    await b.upsert('note', { id: 1 })
    await b.close()
    await a.close({ timeoutMs: 1 })
    for (const { reason: error } of await ended) expect(error.code).toBe('REPLIC_CLOSED')
  })

  it('what waits for a thread is read when one is free', async () => {
    const [a, b] = [await openReplica({ readers: 16 }), await openReplica()]
    const { release } = fill(a)
    const waiting = Promise.all(Array.from({ length: 100 }, () => b.get('SELECT 1 AS a')))
    const rows = (async () => {
      for await (const row of b.iterate('SELECT 2 AS a')) return row
    })()
    await release()
    expect(await waiting).toEqual(Array(100).fill({ a: 1 }))
    expect(await rows).toEqual({ a: 2 })
  })

  it('a short query does not stay behind a long one where another reader is free', async () => {
    const db = await openReplica({ readers: 2 })
    const controller = new AbortController()
    const long = db.get(ENDLESS, [], { signal: controller.signal })
    const short = [db.get('SELECT 1 AS a'), db.get('SELECT 2 AS a'), db.get('SELECT 3 AS a')]
    const threads = poolThreads(process.env, process.versions)
    if (threads > 2) expect(await Promise.all(short)).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }])
    controller.abort(reason)
    await expect(long).rejects.toBe(reason)
    expect(await Promise.all(short)).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }])
  })
})

const RUNTIMES =
  process.env.REPLIC_RUNTIME === 'own'
    ? [['this one', execPath]]
    : [
        ['Node', execPath],
        ['Bun', bunProgram()],
      ]

describe.each(RUNTIMES)('on %s', (_, runtime) => {
  const lib = JSON.stringify(new URL('../lib/index.js', import.meta.url).href)
  const run = (source, size) =>
    runProcess(runtime, ['-e', source], {
      env: { ...process.env, UV_THREADPOOL_SIZE: size },
    })

  it.each(['2', '3', '6'])('a pool of %s', async (size) => {
    const path = JSON.stringify(join(tempDir(), 'a.db'))
    const result = await run(
      `const { Replica } = await import(${lib})
      const db = await Replica.open(${path}, { readers: 16 })
      for (let i = 0; i < 16; i++) db.get(${JSON.stringify(ENDLESS)}).catch(() => {})
      await db.exec('CREATE TABLE own (n)')
      console.log((await db.run('INSERT INTO own VALUES (1)')).changes)
      process.exit()`,
      size,
    )
    expect(result).toMatchObject({ code: 0, stdout: '1\n', stderr: '' })
  })

  it('a thread of JavaScript waits for those that another has, and gets them when that ends', async () => {
    const dir = tempDir()
    const [a, b] = ['a.db', 'b.db'].map((name) => JSON.stringify(join(dir, name)))
    const worker = `
      const { parentPort } = require('node:worker_threads')
      import(${lib}).then(async ({ Replica }) => {
        const db = await Replica.open(${a}, { readers: 16 })
        for (let i = 0; i < 16; i++) db.get(${JSON.stringify(ENDLESS)}).catch(() => {})
        await db.exec('CREATE TABLE own (n)')
        parentPort.postMessage('full')
      })`
    const result = await run(
      `const { Worker } = await import('node:worker_threads')
      const { Replica } = await import(${lib})
      const db = await Replica.open(${b})
      const worker = new Worker(${JSON.stringify(worker)}, { eval: true })
      await new Promise((resolve) => worker.once('message', resolve))
      worker.unref()
      const waiting = db.get('SELECT 1 AS a')
      await db.exec('CREATE TABLE own (n)')
      console.log('written')
      worker.terminate()
      console.log((await waiting).a)
      process.exit()`,
      '3',
    )
    expect(result).toMatchObject({ code: 0, stdout: 'written\n1\n', stderr: '' })
  })
})

it('the size of the pool is known as each runtime reads it', () => {
  const node = { node: '24.0.0' }
  const bun = { ...node, bun: '1.4.0' }
  const of = (versions, env) => poolThreads(env, versions)
  expect(of(node, {})).toBe(4)
  expect(of(node, { UV_THREADPOOL_SIZE: '16' })).toBe(16)
  expect(of(node, { UV_THREADPOOL_SIZE: '' })).toBe(1)
  expect(of(node, { UV_THREADPOOL_SIZE: '0' })).toBe(1)
  expect(of(node, { UV_THREADPOOL_SIZE: '5000' })).toBe(1024)
  expect(of(node, { UV_THREADPOOL_SIZE: '-1' })).toBe(1024)
  expect(of(bun, { UV_THREADPOOL_SIZE: '6', GOMAXPROCS: '3' })).toBe(6)
  expect(of(bun, { UV_THREADPOOL_SIZE: '1', GOMAXPROCS: '3' })).toBe(3)
  expect(of(bun, {})).toBeGreaterThanOrEqual(2)
})

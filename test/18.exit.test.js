// How a process ends: by itself, with what was pending settled.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { describe, expect, it } from 'vitest'
import { bunProgram, NOTES, openReplica, runProcess, tempDir } from './helpers.js'

const lib = (name) => JSON.stringify(new URL(`../lib/${name}`, import.meta.url).href)

// Runs a program with `open(name, options)` in it, and resolves with its output.
async function runOn(runtime, program, ...args) {
  const dir = tempDir()
  const file = join(dir, 'program.mjs')
  const source = `
    import { Replica } from ${lib('index.js')}
    import { connect, listen } from ${lib('transport/tcp.js')}
    const open = async (name, options) => {
      const db = await Replica.open(${JSON.stringify(dir)} + '/' + name, options)
      await db.migrate([{ up: ${JSON.stringify(NOTES)} }])
      return db
    }
    ${program}`
  writeFileSync(file, source)
  const result = await runProcess(runtime, [...args, file])
  return { dir, ...result }
}
// SQL that would run for ever, by the kind of call.
const ENDLESS = `const endless = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n'
  const nothing = () => {}
  const calls = {
    get: () => { for (let i = 0; i < 8; i++) db.get(endless).catch(nothing) },
    iterate: () => { db.iterate(endless).next().catch(nothing) },
    run: () => { db.run('CREATE TABLE own AS ' + endless).catch(nothing) },
    migrate: () => {
      db.migrate([{ up: ${JSON.stringify(NOTES)} }, { up: 'CREATE TABLE own AS ' + endless }]).catch(nothing)
    },
  }`
const ended = { code: 0, signal: null, stderr: '' }

// test/83 runs this on each runtime, for its own sake only.
const RUNTIMES =
  process.env.REPLIC_RUNTIME === 'own'
    ? [['this one', execPath]]
    : [
        ['Node', execPath],
        ['Bun', bunProgram()],
      ]

describe.each(RUNTIMES)('on %s', (_, runtime) => {
  const run = (...args) => runOn(runtime, ...args)

  describe('a process ends by itself', () => {
    it('with a replica open', async () => {
      const result = await run(`const db = await open('a.db')
      await db.upsert('note', { id: 1 })
      console.log(db.status().state)`)
      expect(result).toMatchObject({ ...ended, stdout: 'open\n' })
    })

    it('with a replica that is being opened', async () => {
      const result = await run(
        `Replica.open(${JSON.stringify(join(tempDir(), 'x.db'))}).then(() => console.log('opened'))`,
      )
      expect(result).toMatchObject({ ...ended, stdout: 'opened\n' })
    })

    it('with writes pending, which are executed', async () => {
      const result = await run(`const db = await open('a.db')
      let stored = 0
      for (let id = 0; id < 1000; id++) db.upsert('note', { id }).then(() => stored++)
      process.on('exit', () => console.log(stored))`)
      expect(result).toMatchObject({ ...ended, stdout: '1000\n' })
    })

    it('with a loop over rows left open', async () => {
      const result = await run(`const db = await open('a.db')
      const iterator = db.iterate('SELECT 1 AS a UNION ALL SELECT 2')
      console.log((await iterator.next()).value.a)`)
      expect(result).toMatchObject({ ...ended, stdout: '1\n' })
    })

    it('with a replica that nothing refers to any more', async () => {
      const result = await run(
        `
      for (let i = 0; i < 20; i++) await open(i + '.db')
      globalThis.gc()
      console.log('done')`,
        '--expose-gc',
      )
      expect(result).toMatchObject({ ...ended, stdout: 'done\n' })
    })

    it('with links closed by the other side', async () => {
      const result = await run(`const a = await open('a.db'), b = await open('b.db')
      const listener = await listen(b)
      connect(a, { port: listener.address().port, unref: true })
      await new Promise((resolve) => a.on('link', resolve))
      const token = await a.upsert('note', { id: 1 })
      await b.waitFor(token)
      await b.close()
      console.log('closed')`)
      expect(result).toMatchObject({ ...ended, stdout: 'closed\n' })
    })

    it('with a log that is being pruned', async () => {
      const result =
        await run(`const rows = Array.from({ length: 20_000 }, (_, id) => ({ id, text: 'x' }))
      const keeping = await open('a.db', { maxPatchRetentionMs: Infinity })
      for (let i = 0; i < 3; i++) await keeping.load('note', rows)
      await keeping.close()
      const db = await open('a.db', { maxPatchRetentionMs: 1, heartbeatMs: 1 })
      while (db.status().counters.patchesPruned === 0) await db.get('SELECT 1')
      process.on('exit', () => console.log(db.status().logRows > 20_000))`)
      expect(result).toMatchObject({ ...ended, stdout: 'true\n' })
    })

    it('not with a listener: that is something going on', async () => {
      const result = await run(`const db = await open('a.db')
      const listener = await listen(db)
      process.stdin.once('data', () => {})
      process.stdin.unref?.()
      setTimeout(() => listener.close().then(() => console.log('closed')), 20)`)
      expect(result).toMatchObject({ ...ended, stdout: 'closed\n' })
    })
  })

  describe('a process is ended', () => {
    it('by process.exit() in the middle of writes: what was acknowledged is there', async () => {
      const { dir, ...result } = await run(`const db = await open('a.db', { peerId: 4 })
      let stored = 0
      for (let id = 0; id < 5000; id++) db.upsert('note', { id }).then(() => {
        if (++stored === 10) { console.log(stored); process.exit() }
      })`)
      expect(result).toMatchObject({ ...ended, stdout: '10\n' })
      const db = await openReplica({ path: join(dir, 'a.db'), ddl: '' })
      const ids = await db.all('SELECT id FROM note ORDER BY id')
      expect(ids.length).toBeGreaterThanOrEqual(10)
      expect(ids).toEqual(ids.map((_, id) => ({ id })))
      expect(db.status().vector).toEqual({ 4: ids.length })
    })

    it('by process.exit() in the middle of a migration, which is not there then', async () => {
      const { dir, ...result } = await run(`const db = await open('a.db')
      const up = async (tx) => {
        await tx.exec('CREATE TABLE own (a); INSERT INTO own VALUES (1)')
        db.upsert('note', { id: 1 }).catch(() => {})
        await tx.upsert('note', { id: 2 })
        console.log((await tx.all('SELECT a FROM own')).length)
        process.exit()
      }
      await db.migrate([{ up: ${JSON.stringify(NOTES)} }, { up }])`)
      expect(result).toMatchObject({ ...ended, stdout: '1\n' })
      const db = await openReplica({ path: join(dir, 'a.db'), ddl: '' })
      expect(await db.all("SELECT name FROM sqlite_schema WHERE name = 'own'")).toEqual([])
      expect(await db.all('SELECT id FROM note')).toEqual([])
      expect(await db.all('SELECT version FROM _replic_migrations')).toEqual([{ version: 1 }])
    })

    it('by process.exit() while SQL runs that would never end', async () => {
      const { dir, ...result } = await run(`const db = await open('a.db')
      await db.upsert('note', { id: 1 })
      ${ENDLESS}
      for (const kind of ['get', 'iterate', 'run', 'migrate']) calls[kind]()
      setTimeout(() => { console.log('now'); process.exit() }, 20)`)
      expect(result).toMatchObject({ ...ended, stdout: 'now\n' })
      const db = await openReplica({ path: join(dir, 'a.db'), ddl: '' })
      expect(await db.all('SELECT id FROM note')).toEqual([{ id: 1 }])
      expect(await db.all("SELECT name FROM sqlite_schema WHERE name = 'own'")).toEqual([])
    })

    it('by an error that nobody catches', async () => {
      const { dir, ...result } = await run(`const db = await open('a.db')
      await db.upsert('note', { id: 1 })
      db.upsert('note', { id: 2 })
      throw new Error('not caught')`)
      expect(result).toMatchObject({ code: 1, signal: null })
      expect(result.stderr).toContain('not caught')
      const db = await openReplica({ path: join(dir, 'a.db'), ddl: '' })
      expect((await db.all('SELECT id FROM note ORDER BY id'))[0]).toEqual({ id: 1 })
    })

    it('by an error in a listener, as for any emitter', async () => {
      const result = await run(`const db = await open('a.db')
      db.on('change', () => { throw new Error('in a listener') })
      await db.upsert('note', { id: 1 })`)
      expect(result.code).toBe(1)
      expect(result.stderr).toContain('in a listener')
    })

    it('not by an error event that nobody listens to', async () => {
      const result = await run(`
      const a = await open('a.db'), b = await open('b.db')
      const trigger = "CREATE TRIGGER no BEFORE INSERT ON note BEGIN SELECT RAISE(ABORT, 'not here'); END"
      await b.migrate([{ up: ${JSON.stringify(NOTES)} }, { up: trigger }])
      const listener = await listen(b)
      connect(a, { port: listener.address().port })
      await b.waitFor(await a.upsert('note', { id: 1 }))
      console.log((await b.all('SELECT id FROM note')).length)
      await Promise.all([a.close(), b.close()])`)
      expect(result).toMatchObject({ ...ended, stdout: '1\n' })
    })
  })

  describe('close() settles every promise', () => {
    it('of calls of all kinds, made before and after', async () => {
      const result = await run(`const db = await open('a.db', { maxQueueCalls: 50 })
      const calls = []
      const all = () => {
        for (let id = 0; id < 100; id++) calls.push(db.upsert('note', { id }), db.get('SELECT 1'))
        calls.push(
          db.batch((tx) => tx.upsert('note', { id: 1 })),
          db.load('note', [{ id: 1 }]),
          db.delete('note', { id: 1 }),
          db.run('SELECT 1'),
          db.exec('SELECT 1'),
          db.explain('note'),
          db.migrate([{ up: ${JSON.stringify(NOTES)} }]),
          db.waitFor('99.1', 60_000),
          db.iterate('SELECT 1').next(),
        )
        for (const call of calls) call.catch(() => {}) // looked at in the end
      }
      all()
      const closing = db.close()
      all()
      await closing
      const settled = await Promise.allSettled(calls)
      const kinds = new Set(settled.map(({ reason }) => reason?.code ?? 'ok'))
      console.log(calls.length, [...kinds].sort().join(' '))`)
      expect(result).toMatchObject({ ...ended, stdout: '418 REPLIC_BUSY REPLIC_CLOSED ok\n' })
    })

    it('after what linked peers lack has arrived there, and the process ends', async () => {
      const result = await run(`const a = await open('a.db', { peerId: 1 }), b = await open('b.db')
      const listener = await listen(b)
      connect(a, { port: listener.address().port })
      a.upsert('note', { id: 1 })
      await a.close({ flushMs: 2 ** 31 - 1 })
      console.log(b.status().vector[1])
      await b.close({ flushMs: 2 ** 31 - 1 })`)
      expect(result).toMatchObject({ ...ended, stdout: '1\n' })
    })

    it('and the process ends, with links open on both sides', async () => {
      const result = await run(`const a = await open('a.db'), b = await open('b.db')
      const listener = await listen(b)
      connect(a, { port: listener.address().port })
      await b.waitFor(await a.upsert('note', { id: 1 }))
      await Promise.all([a.close(), b.close()])
      console.log(a.status().state, b.status().state, a.status().links.length)`)
      expect(result).toMatchObject({ ...ended, stdout: 'closed closed 0\n' })
    })
  })

  describe('NODE_DEBUG=replic', () => {
    const program = `const a = await open('a.db', { peerId: 1 }), b = await open('b.db', { peerId: 2 })
      const listener = await listen(b)
      connect(a, { port: listener.address().port })
      await b.waitFor(await a.upsert('note', { id: 7, text: 'traced' }))
      await Promise.all([a.close(), b.close()])`

    it('tells what is written, sent, received and applied, and the SQL', async () => {
      const before = process.env.NODE_DEBUG
      process.env.NODE_DEBUG = 'replic'
      try {
        const { code, stderr } = await run(program)
        expect(code).toBe(0)
        for (const word of [
          'REPLIC',
          'a.db',
          'written',
          'sent',
          'received',
          'applied',
          'INSERT INTO',
          'traced',
        ]) {
          expect(stderr).toContain(word)
        }
      } finally {
        if (before === undefined) delete process.env.NODE_DEBUG
        else process.env.NODE_DEBUG = before
      }
    })

    it('is off by default', async () => {
      expect(await run(program)).toMatchObject({ ...ended, stdout: '' })
    })
  })

  describe('a worker thread', () => {
    // Runs `inWorker` with a replica `db` in a worker, and `outside` beside it, with reopen() for later.
    async function runWorker(inWorker, outside) {
      const dir = tempDir()
      const path = JSON.stringify(join(dir, 'a.db'))
      const worker = join(dir, 'worker.mjs')
      writeFileSync(
        worker,
        `import { parentPort } from 'node:worker_threads'
        import { Replica } from ${lib('index.js')}
        const db = await Replica.open(${path})
        await db.migrate([{ up: ${JSON.stringify(NOTES)} }])
        ${inWorker}`,
      )
      const program = `import { Worker } from 'node:worker_threads'
        const worker = new Worker(${JSON.stringify(worker)})
        const reopen = () => Replica.open(${path})
        ${outside}`
      return run(program)
    }

    it('may end with a replica open, and the file is free', async () => {
      const result = await runWorker(
        "await db.upsert('note', { id: 1 })",
        `worker.on('exit', async (code) => {
          const db = await reopen()
          console.log(code, JSON.stringify(await db.all('SELECT id FROM note')))
        })`,
      )
      expect(result).toMatchObject({ ...ended, stdout: '0 [{"id":1}]\n' })
    })

    it('may be terminated in the middle of a migration, with writes that wait for it', async () => {
      const result = await runWorker(
        `const up = async (tx) => {
          await tx.exec('CREATE TABLE own (a)')
          parentPort.postMessage('now')
          for (;;) await tx.run('INSERT INTO own VALUES (1)')
        }
        db.migrate([{ up: ${JSON.stringify(NOTES)} }, { up }])
        for (let id = 0; id < 1000; id++) db.upsert('note', { id })`,
        `worker.on('message', async () => {
          await worker.terminate()
          const db = await reopen()
          const { n } = await db.get("SELECT count(*) AS n FROM sqlite_schema WHERE name = 'own'")
          console.log(n, (await db.all('SELECT version FROM _replic_migrations')).length)
        })`,
      )
      expect(result).toMatchObject({ ...ended, stdout: '0 1\n' })
    })

    it.each(['get', 'iterate', 'run', 'migrate', 'getSync'])(
      'may be terminated while %s runs, which would never end',
      async (kind) => {
        const result = await runWorker(
          `${ENDLESS}
          calls['kind']?.()
          setTimeout(() => {
            parentPort.postMessage('now')
            if ('kind' === 'getSync') db.getSync(endless)
          }, 20)`.replaceAll('kind', kind),
          `worker.on('message', async () => {
            await worker.terminate()
            const db = await reopen()
            console.log((await db.all("SELECT name FROM sqlite_schema WHERE name = 'own'")).length)
          })`,
        )
        expect(result).toMatchObject({ ...ended, stdout: '0\n' })
      },
    )

    it('may be terminated in the middle of writes', async () => {
      const result = await runWorker(
        `for (let id = 0; id < 20000; id++) {
          const written = db.upsert('note', { id })
          if (id === 100) written.then(() => parentPort.postMessage('now'))
        }`,
        `worker.on('message', async () => {
          await worker.terminate()
          const db = await reopen()
          console.log((await db.get('SELECT count(*) AS n FROM note')).n > 100)
        })`,
      )
      expect(result).toMatchObject({ ...ended, stdout: 'true\n' })
    })
  })
})

// The file is ours while it is open: what the application, another SQLite, another copy of this package or an operator
// does to it. Real processes, and SIGKILL: what was acknowledged is there afterwards.

import fs, { cpSync, existsSync, linkSync, readdirSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { execPath } from 'node:process'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import {
  bunProgram,
  childPath,
  NOTES,
  rejects,
  runProcess,
  startProcess,
  tempDir,
} from './helpers.js'

const DURABILITIES = ['full', 'normal']

/** A process that has `file` open. `call(fn, ...args)` runs fn(tools, ...args) there. */
async function holder(file, options = {}, program = execPath) {
  const child = startProcess(program, [childPath('holder.js'), file, JSON.stringify(options)])
  const answered = async () => {
    const line = await child.line()
    if (line === null) expect.fail((await child.ended).stderr)
    return line
  }
  const call = async (fn, ...args) => {
    child.send(JSON.stringify([fn.toString(), ...args]))
    const { result, error } = JSON.parse(await answered())
    if (error) throw Object.assign(new Error(error.message), { name: 'ReplicError', ...error })
    return result
  }
  const said = await answered()
  const kill = () => {
    child.kill()
    return child.ended
  }
  const error = said === 'open' ? undefined : JSON.parse(said).error
  return { call, kill, error }
}

/** The same with the table `note` and one row in it. */
async function writer(options, program) {
  const file = join(tempDir(), 'app.db')
  const process = await holder(file, options, program)
  await process.call(({ db }, up) => db.migrate([{ up }]), NOTES)
  const write = (id, text) =>
    process.call(({ db }, id, text) => db.upsert('note', { id, text }), id, text)
  await write(1, 'before')
  return { ...process, file, write }
}

/** Debian's sqlite3. */
async function sqlite3(file, sql) {
  const { code, stdout, stderr } = await runProcess('sqlite3', [file, sql])
  expect(`${code} ${stderr}`).toBe('0 ')
  return stdout.trim()
}

/** What the file holds after its process was killed, in the order of the ids. */
async function textsIn(file) {
  const db = await Replica.open(file)
  try {
    return (await db.all('SELECT text FROM note ORDER BY id')).map(({ text }) => text)
  } finally {
    await db.close()
  }
}

/** A second copy of the package, as two versions in one node_modules. */
function copyOfPackage() {
  const copy = join(tempDir(), 'replic-sqlite')
  for (const part of ['package.json', 'lib', 'build/Release/replic_sqlite.node'])
    cpSync(new URL(`../${part}`, import.meta.url), join(copy, part), { recursive: true })
  return pathToFileURL(join(copy, 'lib/index.js')).href
}

// What drops the POSIX locks of a process.
const CLOSES = {
  'reads its own file': ({ fs }, file) => {
    for (const end of ['', '-wal', '-shm', '-replic']) fs.readFileSync(file + end)
  },
  'copies the folder': ({ fs }, file) => {
    const copy = `${file}-copy`
    fs.mkdirSync(copy)
    for (const end of ['', '-wal', '-shm', '-replic']) fs.cpSync(file + end, `${copy}/app.db${end}`)
    fs.rmSync(copy, { recursive: true })
  },
  'opens it with another SQLite': async ({ load }, file, other) => {
    const { Database } = await load(other)
    const db = new Database(file)
    db.query('SELECT count(*) FROM note').get()
    db.close()
  },
  'opens it with another copy of this package': async ({ load }, file, other) => {
    const copy = await load(other)
    const code = await copy.Replica.open(file).catch((error) => error.code)
    if (code !== 'REPLIC_LOCKED') throw new Error(code ?? 'it was opened twice')
  },
}

const OTHERS = {
  'opens it with another SQLite': () => 'bun:sqlite',
  'opens it with another copy of this package': copyOfPackage,
}
const PROGRAMS = { 'opens it with another SQLite': bunProgram() }

describe.each(DURABILITIES)('with durability %s, an application that', (durability) => {
  it.each(Object.keys(CLOSES))('%s loses nothing', async (name) => {
    const { file, call, write, kill } = await writer({ durability }, PROGRAMS[name])
    await call(CLOSES[name], file, OTHERS[name]?.())
    expect(await sqlite3(file, 'SELECT text FROM note')).toBe('before')
    expect(existsSync(`${file}-wal`)).toBe(true)
    await write(2, 'after')
    expect(await sqlite3(file, 'SELECT count(*) FROM note')).toBe('2')
    await kill()
    expect(await textsIn(file)).toEqual(['before', 'after'])
    expect(readdirSync(dirname(file)).sort()).toEqual(['app.db', 'app.db-replic'])
  })
})

it('other programs read, write and VACUUM while it is open, whatever was closed before', async () => {
  const { file, call, write } = await writer()
  for (const name of ['reads its own file', 'copies the folder']) await call(CLOSES[name], file)
  await sqlite3(file, 'CREATE TABLE own (x); INSERT INTO own VALUES (1)')
  await write(2, 'a')
  await sqlite3(file, 'VACUUM; PRAGMA wal_checkpoint(TRUNCATE)')
  await write(3, 'b')
  expect(await sqlite3(file, 'PRAGMA integrity_check; SELECT count(*) FROM note')).toBe('ok\n3')
  const mode = await runProcess('sqlite3', [file, 'PRAGMA journal_mode = DELETE'])
  expect(mode.stderr + mode.stdout).toContain('locked')
  await call(({ db }) => db.close())
  expect(await sqlite3(file, 'PRAGMA integrity_check; SELECT count(*) FROM note')).toBe('ok\n3')
  expect(await sqlite3(file, 'PRAGMA journal_mode = DELETE')).toBe('delete')
  expect(await textsIn(file)).toEqual(['before', 'a', 'b']) // from a file that is not in WAL mode
})

it('what a reader still needs stays, whatever was closed before', async () => {
  const { file, call } = await writer()
  await call(async (tools, text) => {
    const rows = Array.from({ length: 5_000 }, (_, i) => ({ id: i + 1, text }))
    await tools.db.upsert('note', rows)
    tools.loop = tools.db.iterate('SELECT text FROM note ORDER BY id')
    await tools.loop.next()
  }, 'old '.repeat(50))
  await call(CLOSES['copies the folder'], file)
  for (const text of ['new', 'newer']) {
    await sqlite3(file, `UPDATE note SET text = '${text}'`)
    await sqlite3(file, 'PRAGMA busy_timeout = 100; PRAGMA wal_checkpoint(TRUNCATE)')
  }
  const others = await call(async ({ loop }) => {
    let count = 0
    for await (const { text } of loop) count += text.startsWith('old') ? 0 : 1
    return count
  })
  expect(others).toBe(0)
})

it('two SQLite libraries in one process do not write at once', async () => {
  const { file, call } = await writer({}, bunProgram())
  const said = await call(
    async ({ db, load }, file, up) => {
      const { Database } = await load('bun:sqlite')
      const other = new Database(file)
      let said
      const step = async (tx) => {
        await tx.run('CREATE TABLE own (x)')
        try {
          other.run('CREATE TABLE theirs (x)')
        } catch (error) {
          said = error.message
        }
      }
      await db.migrate([{ up }, { up: step, down: 'DROP TABLE own' }])
      other.run('CREATE TABLE theirs (x)')
      other.close()
      return said
    },
    file,
    NOTES,
  )
  expect(said).toContain('locked')
  expect(await sqlite3(file, 'PRAGMA integrity_check; SELECT count(*) FROM own, theirs')).toBe(
    'ok\n0',
  )
})

describe('whoever opens it second gets REPLIC_LOCKED, whatever was read before:', () => {
  const readAll = CLOSES['reads its own file']

  it('another process', async () => {
    const { file, call } = await writer()
    await call(readAll, file)
    expect((await holder(file)).error.code).toBe('REPLIC_LOCKED')
  })

  it('a worker thread, and a Replica in the same one', async () => {
    const file = join(tempDir(), 'app.db')
    const db = await Replica.open(file)
    readAll({ fs }, file)
    await rejects(Replica.open(file), 'REPLIC_LOCKED', file)
    const program = `import { Replica } from ${JSON.stringify(new URL('../lib/index.js', import.meta.url).href)}
      import { parentPort } from 'node:worker_threads'
      parentPort.postMessage(await Replica.open(${JSON.stringify(file)}).then(() => 'opened', ({ code }) => code))`
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`))
    expect(await new Promise((resolve) => worker.once('message', resolve))).toBe('REPLIC_LOCKED')
    await worker.terminate()
    await db.close()
  })

  it('another copy of the package, which had it first', async () => {
    const file = join(tempDir(), 'app.db')
    const copy = await import(copyOfPackage())
    const db = await copy.Replica.open(file)
    await rejects(Replica.open(file), 'REPLIC_LOCKED', file)
    readAll({ fs }, file)
    await rejects(Replica.open(file), 'REPLIC_LOCKED', file)
    expect((await holder(file)).error.code).toBe('REPLIC_LOCKED')
    await db.close()
    await (await Replica.open(file)).close()
  })

  it('by another name: a hard link, a symbolic one', async () => {
    const { file, call } = await writer()
    const hard = join(dirname(file), 'hard.db')
    const soft = join(dirname(file), 'soft.db')
    linkSync(file, hard)
    symlinkSync(file, soft)
    await call(readAll, file)
    await rejects(Replica.open(hard), 'REPLIC_LOCKED', hard, 'another name')
    await rejects(Replica.open(soft), 'REPLIC_LOCKED', file)
    const here = await call(
      ({ Replica }, hard) => Replica.open(hard).catch(({ code }) => code),
      hard,
    )
    expect(here).toBe('REPLIC_LOCKED')
  })

  it('a backup onto it', async () => {
    const { file, call } = await writer()
    await call(readAll, file)
    const db = await Replica.open(join(tempDir(), 'b.db'))
    await rejects(db.backup(file), 'REPLIC_LOCKED', file)
    await db.close()
  })
})

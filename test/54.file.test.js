// The file is ours while it is open: what the application, another SQLite, another copy of this package or an operator
// does to it. Real processes, and SIGKILL: what was acknowledged is there afterwards.

import { spawnSync } from 'node:child_process'
import fs, { cpSync, existsSync, linkSync, readdirSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import process, { execPath } from 'node:process'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { describe, expect, it, onTestFinished } from 'vitest'
import { placeWarning } from '../lib/file-system.js'
import { Replica } from '../lib/index.js'
import {
  bunProgram,
  childPath,
  eventOf,
  linkHeld,
  NOTES,
  openReplica,
  rejects,
  runProcess,
  startProcess,
  tempDir,
  until,
} from './helpers.js'

// Root of this system, or of a namespace in which it may mount.
const canMount = spawnSync('unshare', ['-m', 'true']).status === 0
const GONE = 'REPLIC_FILE_GONE'
const SLOW = { heartbeatMs: 3_600_000 } // so that a commit finds it
const DURABILITIES = ['full', 'normal']

/** A process that has `file` open. `call(fn, ...args)` runs fn(tools, ...args) there. */
async function holder(file, options = {}, program = execPath) {
  return holderOf(startProcess(program, [childPath('holder.js'), file, JSON.stringify(options)]))
}

async function holderOf(child) {
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
  return { call, kill, error, ended: child.ended }
}

/** The same with the table `note` and one row in it. */
async function writer(options, program) {
  const file = join(tempDir(), 'app.db')
  const opened = await holder(file, options, program)
  await opened.call(({ db }, up) => db.migrate([{ up }]), NOTES)
  const write = (id, text) =>
    opened.call(({ db }, id, text) => db.upsert('note', { id, text }), id, text)
  await write(1, 'before')
  return { ...opened, file, write }
}

/** A command of an operator's, in the folder of the file. */
async function operate(file, command) {
  const { code, stderr } = await runProcess('sh', ['-c', command], { cwd: dirname(file) })
  expect(`${code} ${stderr}`).toBe('0 ')
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

const isRoot = process.getuid?.() === 0
const NOBODY = 65_534

describe.runIf(isRoot)('a process that may not do what it needs is told whose file it is:', () => {
  async function refusedTo(end, mode, prepare = () => {}) {
    const file = join(tempDir(), 'app.db')
    fs.chmodSync(dirname(file), 0o777)
    const db = await Replica.open(file)
    await db.migrate([{ up: NOTES }])
    const all = ['', '-wal', '-shm', '-replic'].map((each) => file + each)
    const copies = all.map((path) => fs.readFileSync(path))
    await db.close()
    for (const [i, path] of all.entries()) {
      fs.writeFileSync(path, copies[i]) // as a crash leaves them
      fs.chownSync(path, NOBODY, NOBODY)
    }
    fs.chownSync(file + end, 0, 0)
    fs.chmodSync(file + end, mode)
    prepare(file)
    const asNobody = { uid: NOBODY, gid: NOBODY }
    const args = [childPath('holder.js'), file, '{}']
    const { error } = await holderOf(startProcess(execPath, args, asNobody))
    return { file, error }
  }

  it.each([
    ['', 0o644],
    ['', 0o600],
    ['-wal', 0o600],
    ['-wal', 0o644],
    ['-shm', 0o600],
    ['-shm', 0o644],
    ['-replic', 0o600],
    ['-replic', 0o644],
  ])('app.db%s with mode %o', async (end, mode) => {
    const { file, error } = await refusedTo(end, mode)
    expect(error.code).toMatch(/^SQLITE_(READONLY|CANTOPEN)/)
    expect(error.message).toContain(
      `${file}${end} belongs to user 0 and group 0, with mode ${mode.toString(8)}`,
    )
    expect(error.message).toContain(`runs as user ${NOBODY}`)
    expect(error.message).toContain('chown')
  })

  it('the folder', async () => {
    const { file, error } = await refusedTo('', 0o666, (file) => {
      for (const end of ['-wal', '-shm', '-replic']) fs.rmSync(file + end)
      fs.chmodSync(dirname(file), 0o755)
    })
    expect(error.code).toMatch(/^SQLITE_(READONLY|CANTOPEN)/)
    expect(error.message).toContain(`${dirname(file)} belongs to user 0`)
  })
})

it('file descriptors that are used up are told, and nothing is lost', async () => {
  const { file, call, write } = await writer()
  const said = await call(async ({ db, fs, Replica }, file) => {
    const open = []
    const failed = []
    try {
      for (;;) open.push(fs.openSync('/dev/null'))
    } catch (error) {
      failed.push(error.code)
    }
    const told = (promise) => promise.then(String, ({ message }) => message)
    failed.push(await told(db.iterate('SELECT 1').next()), await told(Replica.open(`${file}-2`)))
    for (const fd of open) fs.closeSync(fd)
    return [...failed, await told(db.iterate('SELECT 1').next())]
  }, file)
  expect(said[0]).toBe('EMFILE')
  for (const text of said.slice(1, 3)) expect(text).toContain('ulimit -n')
  expect(said[3]).toBe('[object Object]')
  await write(2, 'after')
  expect(await sqlite3(file, 'SELECT count(*) FROM note')).toBe('2')
})

describe('a place where it will not stay is said at once:', () => {
  it('a file of several names', () => {
    const file = join(tempDir(), 'app.db')
    fs.writeFileSync(file, '')
    expect(placeWarning(file)).toBe(undefined)
    linkSync(file, `${file}-2`)
    expect(placeWarning(file)).toContain(`${file} has 2 names`)
  })

  it.runIf(canMount)('a file system that is mounted read-only is told', async () => {
    const file = join(tempDir(), 'app.db')
    await (await openReplica({ path: file })).close()
    const program = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    const child = [execPath, childPath('holder.js'), file, '{}']
    const args = ['-m', 'sh', '-c', program, 'sh', dirname(file), ...child]
    const { error } = await holderOf(startProcess('unshare', args))
    expect(error.code).toMatch(/^SQLITE_(READONLY|CANTOPEN)/)
    expect(error.message).toContain(`${file} lies on a file system that is mounted read-only`)
    expect(error.message).toContain('remount,rw')
  })

  it.runIf(canMount)('a file that is mounted by itself, and what becomes of it', async () => {
    const outside = join(fs.mkdtempSync('/dev/shm/replic-'), 'app.db') // another device than inside
    onTestFinished(() => fs.rmSync(dirname(outside), { recursive: true }))
    const inside = join(tempDir(), 'app 1.db')
    await (await openReplica({ path: outside })).close()
    fs.writeFileSync(inside, '')
    const program = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    const child = [execPath, childPath('holder.js'), inside, JSON.stringify(SLOW)]
    const args = ['-m', 'sh', '-c', program, 'sh', outside, inside, ...child]
    const { call, kill, ended } = await holderOf(startProcess('unshare', args))
    await call(({ db }) => db.upsert('note', { id: 1, text: 'before' }))
    await operate(outside, 'mv app.db old.db && cp old.db app.db')
    await call(({ db }) => db.upsert('note', { id: 2, text: 'the mount is that file' }))
    await operate(outside, 'rm old.db')
    await rejects(
      call(({ db }) => db.upsert('note', { id: 3 })),
      GONE,
      inside,
      'mounted',
    )
    await kill()
    expect((await ended).stderr).toContain(`${inside} is a file that is mounted by itself`)
  })
})

describe('open({ lockTimeoutMs })', () => {
  it('waits for a predecessor that closes, or is killed', async () => {
    for (const end of [({ call }) => call(({ db }) => db.close()), ({ kill }) => kill()]) {
      const predecessor = await writer()
      const opening = Replica.open(predecessor.file, { lockTimeoutMs: 60_000, heartbeatMs: 5 })
      await predecessor.write(2, 'while another one waits')
      await end(predecessor)
      const db = await opening
      const { peerId } = db.status()
      expect(Object.keys(db.status().vector)).toEqual([`${peerId}`]) // no new peer
      expect(await db.get('SELECT count(*) AS n FROM note')).toEqual({ n: 2 })
      await db.upsert('note', { id: 3 })
      await db.close()
    }
  })

  it('waits for one in the same process, without a thread of the pool', async () => {
    const db = await openReplica()
    const { path } = db.status()
    const opening = Array.from({ length: 8 }, () => Replica.open(path, { lockTimeoutMs: 60_000 }))
    await db.upsert('note', { id: 1 })
    await db.close()
    const one = async (opening) => {
      const next = await opening
      expect(await next.get('SELECT count(*) AS n FROM note')).toEqual({ n: 1 })
      await next.close()
    }
    await Promise.all(opening.map(one))
  })

  it('says how long it has waited', async () => {
    const db = await openReplica()
    const opening = Replica.open(db.status().path, { lockTimeoutMs: 1 })
    await rejects(opening, 'REPLIC_LOCKED', db.status().path, 'lockTimeoutMs (1 ms)')
  })
})

// What an operator does, by a process of its own.
const LOOK = '(sqlite3 app.db "SELECT count(*) FROM note" || true) >/dev/null 2>&1' // it makes a WAL of its own
const OPERATORS = {
  'removes it': 'rm app.db',
  'renames it': 'mv app.db old.db',
  'moves a backup over it': 'mv backup.db app.db',
  'makes another one in its place': 'rm app.db && sqlite3 app.db VACUUM',
  'removes its WAL': 'rm app.db-wal',
  'removes its WAL and index': 'rm app.db-wal app.db-shm',
  'removes its WAL, and looks at it': `rm app.db-wal && ${LOOK}`,
  'removes its WAL and index, and looks at it': `rm app.db-wal app.db-shm && ${LOOK}`,
  'removes its witness': 'rm app.db-replic',
  'removes the folder': 'rm -r "$PWD"',
  'moves the folder': 'mv "$PWD" "$PWD-moved" && mkdir "$PWD"',
}
// There the data is, under another name or none.
const ELSEWHERE = {
  'renames it': (file) => join(dirname(file), 'old.db'),
  'moves the folder': (file) => join(`${dirname(file)}-moved`, 'app.db'),
}
const LOST = [
  'removes it',
  'moves a backup over it',
  'makes another one in its place',
  'removes the folder',
]

// As openReplica(), which would close it once more.
async function openToLose(path, options) {
  const db = await Replica.open(path, options)
  await db.migrate([{ up: NOTES }])
  return db
}

describe.each(DURABILITIES)('with durability %s, when somebody', (durability) => {
  it.each(Object.keys(OPERATORS))('%s, no write resolves that is lost', async (name) => {
    const { file, call, write, kill } = await writer({ durability, ...SLOW })
    await sqlite3(file, `VACUUM INTO '${join(dirname(file), 'backup.db')}'`)
    await write(2, 'last')
    await operate(file, OPERATORS[name])
    const noticed = await rejects(write(3, 'into a file without a name'), GONE, file)
    await rejects(write(4, 'after it'), GONE)
    for (const [method, ...args] of [
      ['run', 'CREATE TABLE own (x)'],
      ['exec', 'CREATE TABLE own (x)'],
      ['delete', 'note', { id: 1 }],
      ['load', 'note', [{ id: 5 }]],
      ['compact', { maxPatchRetentionMs: 0 }],
      ['migrate', [{ up: NOTES }, { up: 'CREATE TABLE own (x)' }]],
    ]) {
      await rejects(
        call(({ db }, name, args) => db[name](...args), method, args),
        GONE,
      )
    }
    const { status, events, last } = await call(async ({ db, events }) => ({
      status: db.status(),
      events,
      last: await db.get('SELECT text FROM note WHERE id = 2'),
    }))
    expect(last).toEqual({ text: 'last' })
    expect(status.fileGone).toBe(noticed.message)
    expect(events).toEqual([{ code: GONE, message: noticed.message }])
    await kill()
    if (LOST.includes(name)) return
    expect((await textsIn(ELSEWHERE[name]?.(file) ?? file)).slice(0, 2)).toEqual(['before', 'last'])
  })
})

it('a WAL that was removed is not mixed with what others have written since', async () => {
  const { file, write, kill } = await writer(SLOW)
  for (let id = 2; id < 50; id++) await write(id, 'last')
  await operate(file, 'rm app.db-wal app.db-shm')
  await sqlite3(
    file,
    'CREATE TABLE own (x); INSERT INTO own VALUES (1); PRAGMA wal_checkpoint(TRUNCATE)',
  )
  await sqlite3(file, 'SELECT 1 FROM own')
  expect(fs.statSync(`${file}-wal`).size).toBe(0)
  await rejects(write(50, 'too late'), GONE, `${file}-wal`)
  await kill()
  expect(await sqlite3(file, 'PRAGMA integrity_check; SELECT x FROM own')).toBe('ok\n1')
})

it('a loop of iterate() ends, and does not keep what was acknowledged from the file', async () => {
  const { file, call, write, kill } = await writer(SLOW)
  await call(async (tools) => {
    const many =
      'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT i FROM n, note'
    tools.loop = tools.db.iterate(many)
    await tools.loop.next()
  })
  await write(2, 'last')
  await operate(file, 'rm app.db-wal')
  await rejects(write(3, 'too late'), GONE)
  const rest = call(async ({ loop }) => {
    for await (const _ of loop); // what it has fetched, then the error
  })
  await rejects(rest, GONE, `${file}-wal`)
  await rejects(write(4, 'after it'), GONE)
  await rejects(
    call(({ db }) => db.iterate('SELECT 1').next()),
    GONE,
  )
  await kill()
  expect((await textsIn(file)).slice(0, 2)).toEqual(['before', 'last'])
})

const TEXT = 'a text that is long enough to need some pages'.repeat(20)
const ENDLESS =
  'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n, note'
const KEPT = 'PRAGMA integrity_check; SELECT count(*) FROM note WHERE id < 100'
// What still sees an older state of the file when the WAL is removed: `begin` is run in the process.
const HOLDS = {
  'a query': async (tools, _, endless) => {
    tools.held = tools.db.all(endless)
    tools.held.catch(() => {})
    await tools.db.get('SELECT 1')
  },
  'verify()': async (tools, file) => {
    const { db, Replica } = tools
    const EventEmitter = Object.getPrototypeOf(Replica)
    const [near, far] = [new EventEmitter(), new EventEmitter()]
    let isCut = false
    near.send = (frame) => queueMicrotask(() => isCut || far.emit('message', frame))
    far.send = (frame) => queueMicrotask(() => near.emit('message', frame))
    near.close = far.close = () => {}
    const other = await Replica.open(`${file}-2`, { heartbeatMs: 3_600_000 })
    const up = new Promise((resolve) => db.on('link', ({ state }) => state === 'up' && resolve()))
    db.addRemotePeer(null, near)
    other.addRemotePeer(null, far)
    await up
    isCut = true // what it asks is not answered
    tools.held = db.verify(undefined, { timeoutMs: 3_600_000 })
    tools.held.catch(() => {})
    await db.get('SELECT 1')
  },
}

describe.each(DURABILITIES)(
  'with durability %s, the WAL is removed, and what it held is kept, though',
  (durability) => {
    it.each(Object.keys(HOLDS))('%s was under way', async (name) => {
      const { file, call, write, kill } = await writer({ durability, ...SLOW })
      await write(2, 'seen')
      await call(HOLDS[name], file, ENDLESS)
      for (let id = 3; id < 100; id++) await write(id, TEXT)
      await operate(file, 'rm app.db-wal')
      await rejects(write(100, 'too late'), GONE)
      await rejects(
        call(({ held }) => held),
        GONE,
        `${file}-wal`,
      )
      await rejects(write(101, 'after it'), GONE)
      await kill()
      expect(await sqlite3(file, KEPT)).toBe('ok\n99')
    })
  },
)

it('a WAL that was removed is moved into the database whole, or not at all while others read', async () => {
  const { file, call, write, kill } = await writer(SLOW)
  const fill = async (from, to) => {
    for (let id = from; id < to; id++) await write(id, TEXT)
  }
  await fill(2, 50)
  const reader = startProcess('sqlite3', [file])
  reader.send('BEGIN; SELECT count(*) FROM note;')
  expect(await reader.line()).toBe('49')
  await fill(50, 100)
  const before = fs.readFileSync(file)
  await operate(file, 'rm app.db-wal')
  await rejects(write(100, 'too late'), GONE)
  await rejects(
    call(({ db }) => db.exec('SELECT 1')),
    GONE,
  )
  expect(fs.readFileSync(file).equals(before)).toBe(true)
  reader.send('COMMIT; SELECT 1;')
  await reader.line()
  await rejects(write(101, 'after it'), GONE)
  await kill()
  reader.kill()
  expect(await sqlite3(file, KEPT)).toBe('ok\n99')
})

it('a backup that was moved over it is not touched by what was in the WAL', async () => {
  for (const end of ['kill', 'close']) {
    const { file, call, write, kill } = await writer(SLOW)
    const backup = join(dirname(file), 'backup.db')
    await sqlite3(file, `VACUUM INTO '${backup}'`)
    const before = fs.readFileSync(backup)
    for (let id = 2; id < 50; id++) await write(id, 'later')
    await operate(file, OPERATORS['moves a backup over it'])
    await rejects(write(50, 'too late'), GONE)
    await rejects(
      call(({ db }) => db.iterate('SELECT 1').next()),
      GONE,
    ) // by its path it is the other one
    if (end === 'close')
      await rejects(
        call(({ db }) => db.close()),
        GONE,
        file,
      )
    else await kill()
    expect(await sqlite3(file, 'PRAGMA integrity_check; SELECT count(*) FROM note')).toBe('ok\n1')
    expect(fs.readFileSync(file).equals(before)).toBe(true)
    expect(await textsIn(file)).toEqual(['before'])
  }
})

it('a heartbeat finds it where nothing is written; close() says it, and another Replica opens', async () => {
  const file = join(tempDir(), 'app.db')
  const db = await openToLose(file, { heartbeatMs: 5 })
  const told = eventOf(db, 'error')
  await db.upsert('note', { id: 1, text: 'before' })
  expect(db.status().fileGone).toBe(null)
  await operate(file, 'rm app.db-wal')
  const { message } = await rejects(Promise.reject(await told), GONE, `${file}-wal`)
  expect(db.metrics()).toContain('replic_file_gone 1')
  expect(db.getSync('SELECT count(*) AS n FROM note')).toEqual({ n: 1 })
  await rejects(db.close(), GONE, message)
  expect(db.status().state).toBe('closed')
  expect(await textsIn(file)).toEqual(['before'])
})

it('a symbolic link that leads to another file now is found by a heartbeat', async () => {
  const [one, other] = [join(tempDir(), 'one.db'), join(tempDir(), 'other.db')]
  const link = join(tempDir(), 'app.db')
  await (await Replica.open(other)).close()
  await (await Replica.open(one)).close()
  symlinkSync(one, link)
  const db = await openToLose(link, { heartbeatMs: 5 })
  const told = eventOf(db, 'error')
  await operate(link, `ln -sf ${other} app.db`)
  await rejects(Promise.reject(await told), GONE, link, 'another file')
  await rejects(db.upsert('note', { id: 1 }), GONE)
  await rejects(db.close(), GONE)
})

it('what others do in the folder is no reason', async () => {
  const db = await openReplica({ path: join(tempDir(), 'app.db'), heartbeatMs: 1 })
  const path = db.status().path
  for (const command of [
    'touch other; mv other another; rm another',
    'ln app.db hard.db; rm hard.db; touch app.db app.db-wal; chmod 600 app.db',
    "sqlite3 app.db 'VACUUM; PRAGMA wal_checkpoint(TRUNCATE); SELECT count(*) FROM note' >/dev/null",
    'cp -a "$PWD" "$PWD-copy" && rm -r "$PWD-copy"',
  ]) {
    await operate(path, command)
    await db.upsert('note', { id: 1, text: command })
    await db.backup(join(dirname(path), 'copy.db'))
  }
  expect(db.status().fileGone).toBe(null)
})

it('links do not acknowledge then, and say why; what was acknowledged before goes out', async () => {
  const a = await openToLose(join(tempDir(), 'a.db'), SLOW)
  const b = await openReplica({ heartbeatMs: 5 })
  await a.upsert('note', { id: 1, text: 'before' })
  await operate(a.status().path, 'mv a.db old.db')
  await rejects(a.upsert('note', { id: 2, text: 'lost' }), GONE)
  await linkHeld(a, b)
  await b.waitFor(a.token())
  await b.upsert('note', { id: 3, text: 'kept at its sender' })
  await until(() => a.status().links[0].held?.includes(a.status().path))
  await until(() => b.status().links[0].lastError?.code === GONE)
  expect(b.status().links[0].lag).toBeGreaterThan(0)
  expect(await a.all('SELECT id FROM note WHERE id = 3')).toEqual([])
  await rejects(a.close(), GONE)
})

// What goes wrong in the first hour: every message says what, where, and what to do.

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { placeWarning } from '../lib/file-system.js'
import { patchesTable, Replica } from '../lib/index.js'
import { connect as dialHttp } from '../lib/transport/http.js'
import { connect, listen } from '../lib/transport/tcp.js'
import { bind } from '../lib/transport/udp.js'
import { connect as dialWebSocket } from '../lib/transport/websocket.js'
import { isTested } from './chaos/play.js'
import { eventOf, openReplica, tempDir } from './helpers.js'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TODO = `CREATE TABLE todo (
  id TEXT NOT NULL PRIMARY KEY, title TEXT NOT NULL, n INTEGER, deletedAt INTEGER) STRICT`
const DDL = `${TODO}; ${patchesTable(TODO)}; CREATE TABLE plain (a)`
const RESERVED =
  '_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL'

/** What a call rejects with, or throws, as 'CODE: message'. */
async function said(call) {
  try {
    const result = await call()
    return `no error, but ${JSON.stringify(result)}`
  } catch (error) {
    return `${error.code}: ${error.message}`
  }
}

/** Each: [what somebody does, how, the words that the answer must have]. */
const each = (cases) => it.each(cases.map(([name, call, ...words]) => [name, call, words]))

describe('opening', () => {
  each([
    ['no path', () => Replica.open(), 'REPLIC_USAGE', 'path of a file', 'undefined'],
    [':memory:', () => Replica.open(':memory:'), 'REPLIC_USAGE', 'path of a file', "':memory:'"],
    ['a URL', () => Replica.open('file:///a.db'), 'REPLIC_USAGE', 'fileURLToPath', 'file:///a.db'],
    ['new', () => new Replica('a.db'), 'await Replica.open(path, options)'],
    [
      'a folder that is not there',
      (dir) => Replica.open(join(dir, 'no', 'a.db')),
      'SQLITE_CANTOPEN',
      '/no/a.db',
      '/no does not exist',
      'create it',
    ],
    ['a device', () => Replica.open('/dev/null'), '/dev/null', 'no regular file', 'give the path'],
    ['options as text', (dir) => Replica.open(join(dir, 'a.db'), 'x'), 'REPLIC_USAGE', '{ peerId:'],
    [
      'a folder',
      (dir) => Replica.open(dir),
      'SQLITE_CANTOPEN',
      'is a folder',
      'give the path of a file',
    ],
    [
      'a text file',
      (dir) => Replica.open(textIn(dir)),
      'SQLITE_NOTADB',
      'text.db',
      'give another path',
      'left as it is',
    ],
    [
      'a misspelt option',
      (dir) => Replica.open(join(dir, 'a.db'), { peerID: 1 }),
      'REPLIC_USAGE',
      "'peerID'",
      "did you mean 'peerId'",
    ],
    [
      'a value out of range',
      (dir) => Replica.open(join(dir, 'a.db'), { peerId: 0 }),
      'REPLIC_USAGE',
      'peerId',
      'from 1 to 4294967295',
      'not 0',
    ],
    [
      'a short secret',
      (dir) => Replica.open(join(dir, 'a.db'), { secret: 'x' }),
      'REPLIC_USAGE',
      'secret',
      'at least 16',
    ],
  ])('%s', async (_, call, words) => {
    const dir = tempDir()
    const text = await said(() => call(dir))
    for (const word of words) expect(text).toContain(word)
  })

  it('a file that is open, here or in another process', async () => {
    const path = join(tempDir(), 'a.db')
    await openReplica({ path })
    const program = `import { Replica } from 'replic-sqlite'
      await Replica.open(${JSON.stringify(path)}).catch((e) => console.log(e.code + ': ' + e.message))`
    const args = ['--input-type=module', '-e', program]
    const there = spawnSync(execPath, args, { cwd: ROOT, encoding: 'utf8' }).stdout
    for (const text of [await said(() => Replica.open(path)), there]) {
      for (const word of [
        'REPLIC_LOCKED',
        path,
        'close that one first',
        'a file and a link of its own',
      ]) {
        expect(text).toContain(word)
      }
    }
  })

  it('a file on a network file system, which is a warning', async () => {
    const path = join(tempDir(), 'a.db')
    const text = placeWarning(path, (of) => ({ type: of === path ? 0x6969 : 0 })) // as a mount of NFS says
    for (const word of [path, 'network file system (NFS)', 'use a local disk']) {
      expect(text).toContain(word)
    }
    await openReplica({ path })
    expect(placeWarning(path)).toBe(undefined)
    expect(placeWarning(join(path, 'none'))).toBe(undefined)
  })

  // A real one: files behind an SFTP server, mounted where nobody else sees it. All ends with the shell.
  const sftp = '/usr/lib/openssh/sftp-server'
  const unshare = ['--mount', '--pid', '--fork', '--kill-child']
  it.skipIf(!isTested('a mount of SSHFS', whyNoMount(sftp, unshare)))('a real one', () => {
    const dir = tempDir()
    for (const name of ['far', 'near']) mkdirSync(join(dir, name))
    writeFileSync(join(dir, 'ssh'), `#!/bin/sh\nexec ${sftp}\n`, { mode: 0o755 })
    const program = `import { Replica } from 'replic-sqlite'
      const db = await Replica.open(${JSON.stringify(join(dir, 'near', 'a.db'))})
      console.log(db.status().state)
      await db.close()`
    writeFileSync(join(dir, 'program.mjs'), program)
    mkdirSync(join(dir, 'node_modules'))
    symlinkSync(ROOT, join(dir, 'node_modules', 'replic-sqlite'))
    const script = `sshfs -o ssh_command='${dir}/ssh' host:'${dir}/far' '${dir}/near' &&
      '${execPath}' '${dir}/program.mjs'; status=$?; umount '${dir}/near'; exit $status`
    const result = spawnSync('unshare', [...unshare, 'sh', '-c', script], { encoding: 'utf8' })
    expect(result).toMatchObject({ status: 0, stdout: 'open\n' })
    expect(existsSync(join(dir, 'far', 'a.db'))).toBe(true) // it was there that it was written
    for (const word of ['ReplicWarning', join(dir, 'near', 'a.db'), '(SSHFS)', 'use a local disk'])
      expect(result.stderr).toContain(word)
  })

  it('a copied file under a peerId that is taken', async () => {
    const path = join(tempDir(), 'a.db')
    const db = await Replica.open(path, { peerId: 1 })
    await db.close()
    rmSync(`${path}-replic`)
    const text = await said(() => Replica.open(path, { peerId: 1 }))
    for (const word of [
      'REPLIC_RESTORED',
      path,
      'peer 1',
      'Open it without peerId or with a new one',
    ]) {
      expect(text).toContain(word)
    }
  })
})

function whyNoMount(sftp, unshare) {
  if (spawnSync('sshfs', ['--version']).error || !existsSync(sftp)) {
    return { why: 'install sshfs and openssh-sftp-server', isFixable: true }
  }
  if (!existsSync('/dev/fuse')) return { why: 'the kernel has no FUSE' }
  const { status } = spawnSync('unshare', [...unshare, 'true'])
  return status === 0 ? undefined : { why: 'only root may mount' }
}

function textIn(dir) {
  const path = join(dir, 'text.db')
  writeFileSync(path, 'no database, '.repeat(100))
  return path
}

describe('tables', () => {
  const up = (sql) => (db) => db.migrate([{ up: sql }])
  const UNIQUE = 'CREATE TABLE a (id INTEGER PRIMARY KEY, b TEXT UNIQUE)'
  each([
    ['SQL instead of steps', (db) => db.migrate(TODO), 'REPLIC_USAGE', 'list of steps', '[{ up:'],
    ['SQL as steps', (db) => db.migrate([TODO]), 'REPLIC_USAGE', 'step 1', '{ up:'],
    ['a typo', up('CREATE TABEL a (b)'), 'SQLITE_ERROR', 'migration 1', 'near "TABEL"'],
    ['BEGIN', up('BEGIN; SELECT 1'), 'REPLIC_TRANSACTION', 'BEGIN', 'the engine owns'],
    [
      'no primary key',
      up(`CREATE TABLE a (b); CREATE TABLE a_patches (${RESERVED}, b)`),
      'REPLIC_SCHEMA',
      'table a has no PRIMARY KEY',
      'declare one',
    ],
    [
      'no column',
      up(
        `CREATE TABLE a (id INTEGER PRIMARY KEY, b); CREATE TABLE a_patches (${RESERVED}, id INTEGER)`,
      ),
      'REPLIC_SCHEMA',
      'a_patches has no column b',
      'ALTER TABLE "a_patches" ADD COLUMN "b"',
    ],
    [
      'a column too many',
      up(
        `CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE a_patches (${RESERVED}, id INTEGER, c)`,
      ),
      'REPLIC_SCHEMA',
      'a column c that a has not',
      'DROP COLUMN "c"',
    ],
    [
      'no reserved columns',
      up('CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE a_patches (id INTEGER)'),
      'REPLIC_SCHEMA',
      '_patchedAt INTEGER NOT NULL',
      'declare it',
    ],
    [
      'another type',
      up(
        `CREATE TABLE a (id INTEGER PRIMARY KEY, b TEXT); CREATE TABLE a_patches (${RESERVED}, id INTEGER, b INTEGER)`,
      ),
      'REPLIC_SCHEMA',
      '"TEXT" in a and "INTEGER" in a_patches',
      'ALTER TABLE',
    ],
    [
      'UNIQUE',
      up(`${UNIQUE}; ${patchesTable(UNIQUE)}`),
      'REPLIC_SCHEMA',
      'UNIQUE',
      'remove it, or make it the primary key',
    ],
    ['a step that was edited', up(TODO), 'REPLIC_MIGRATION', 'migration 1', 'append a new one'],
    [
      'patchesTable of a name',
      () => patchesTable('todo'),
      'SQLITE_ERROR',
      'patchesTable',
      "'CREATE TABLE todo (",
    ],
    [
      'patchesTable of two',
      () => patchesTable(`${TODO}; ${TODO.replace('todo', 'other')}`),
      'exactly one CREATE TABLE',
      'give the text of one',
    ],
    [
      'AUTOINCREMENT',
      () => patchesTable('CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT)'),
      'REPLIC_USAGE',
      'leave AUTOINCREMENT out',
    ],
    [
      'a misspelt step',
      (db) => db.migrate([{ pu: TODO }]),
      'REPLIC_USAGE',
      "step 1: unknown option 'pu'; did you mean 'up'?",
    ],
    [
      'patchesTable without a key',
      () => patchesTable('CREATE TABLE a (b)'),
      'REPLIC_SCHEMA',
      'no PRIMARY KEY',
      'declare one',
    ],
  ])('%s', async (name, call, words) => {
    const db = await openReplica({ ddl: name === 'a step that was edited' && DDL })
    const text = await said(() => call(db))
    for (const word of words) expect(text).toContain(word)
  })

  it('none yet', async () => {
    const db = await openReplica({ ddl: '' })
    const text = await said(() => db.upsert('todo', { id: '1' }))
    for (const word of [
      'REPLIC_UNKNOWN_TABLE',
      "'todo'",
      'no table is replicated yet',
      'migrate(), and await that',
    ]) {
      expect(text).toContain(word)
    }
  })
})

describe('calls', () => {
  const upsert = (row) => (db) => db.upsert('todo', row)
  const all = (sql, params) => (db) => db.all(sql, params)
  each([
    [
      'a misspelt table',
      (db) => db.upsert('tod', { id: '1' }),
      'REPLIC_UNKNOWN_TABLE',
      "'tod'",
      "did you mean 'todo'",
    ],
    [
      'a local table',
      (db) => db.upsert('plain', { a: 1 }),
      'REPLIC_UNKNOWN_TABLE',
      "'plain'",
      'patchesTable()',
      'run()',
    ],
    [
      'a misspelt column',
      upsert({ id: '1', titel: 'x' }),
      'REPLIC_UNKNOWN_COLUMN',
      "'todo'",
      "did you mean 'title'",
    ],
    [
      'another column',
      upsert({ id: '1', somethingElse: 1 }),
      'REPLIC_UNKNOWN_COLUMN',
      "'somethingElse'",
      'it has id, title, n, deletedAt',
    ],
    ['no key', upsert({ title: 'x' }), 'REPLIC_KEY', 'todo.id', 'randomUUID()'],
    [
      'no value for NOT NULL',
      upsert({ id: '1' }),
      'SQLITE_CONSTRAINT_NOTNULL',
      'todo.title',
      'give it a value',
    ],
    [
      'another type',
      upsert({ id: '1', title: 'x', n: 'y' }),
      'SQLITE_CONSTRAINT_DATATYPE',
      '.n',
      'declared type only',
    ],
    [
      'a Date',
      upsert({ id: '1', title: new Date() }),
      'REPLIC_USAGE',
      'todo.title',
      'Date',
      'give null, a number',
    ],
    ['no rows', upsert([]), 'REPLIC_USAGE', 'pass at least one'],
    ['no object', upsert('x'), 'REPLIC_USAGE', 'upsert', 'must be an object', 'not string'],
    [
      'arguments the wrong way round',
      (db) => db.upsert({ id: '1' }, 'todo'),
      'REPLIC_USAGE',
      'the table must be a string',
    ],
    ['delete by value', (db) => db.delete('todo', '1'), 'REPLIC_USAGE', 'delete', 'as { id: 1 }'],
    [
      'delete by another column',
      (db) => db.delete('todo', { title: 'x' }),
      'REPLIC_KEY',
      '(id)',
      'give exactly that',
    ],
    [
      'delete of nothing',
      (db) => db.delete('todo', { id: 'x' }),
      'REPLIC_NOT_FOUND',
      'todo',
      'waitFor()',
    ],
    [
      'INSERT',
      (db) => db.run("INSERT INTO todo (id, title) VALUES ('1', 'x')"),
      'REPLIC_DIRECT_WRITE',
      'todo',
      'use upsert',
    ],
    [
      'INSERT as a query',
      all('INSERT INTO plain VALUES (1)'),
      'SQLITE_READONLY',
      'db.run for others',
    ],
    ['DROP TABLE', (db) => db.exec('DROP TABLE todo'), 'REPLIC_DIRECT_WRITE', 'todo', 'migrate'],
    ['BEGIN', (db) => db.exec('BEGIN'), 'REPLIC_TRANSACTION', 'batch()'],
    ['VACUUM', (db) => db.exec('VACUUM'), 'REPLIC_TRANSACTION', 'VACUUM', 'leave it out'],
    ['ATTACH', (db) => db.exec("ATTACH 'b.db' AS b"), 'REPLIC_TRANSACTION', 'open the other one'],
    [
      'a PRAGMA',
      (db) => db.run('PRAGMA journal_mode = DELETE'),
      'REPLIC_TRANSACTION',
      'options of open',
    ],
    ['one parameter', all('SELECT ?', 1), 'REPLIC_USAGE', 'write [value]'],
    ['too few parameters', all('SELECT ?, ?', [1]), 'REPLIC_USAGE', '2 parameters, 1'],
    ['a misspelt parameter', all('SELECT :id', { di: 1 }), 'REPLIC_USAGE', ':id was not given'],
    [
      'a parameter with its colon',
      all('SELECT :id', { ':id': 1 }),
      'REPLIC_USAGE',
      'give it as id, without the :',
    ],
    ['two queries', all('SELECT 1; SELECT 2'), 'REPLIC_USAGE', 'one statement'],
    [
      'a large integer',
      all('SELECT 9007199254740993 AS n'),
      'REPLIC_OUT_OF_RANGE',
      'column n',
      'readBigInts: true',
    ],
    [
      'a misspelt event',
      (db) => db.on('chnage', () => {}),
      'REPLIC_USAGE',
      "did you mean 'change'",
    ],
    ['no token', (db) => db.waitFor('hello'), 'REPLIC_TOKEN', "'<peerId>.<sequence>'", 'hello'],
    [
      'a token that was not awaited',
      (db) => db.waitFor(db.upsert('todo', { id: '1', title: 'x' })),
      'REPLIC_TOKEN',
      'not a Promise: await it',
    ],
    [
      'a row of another kind among those loaded',
      (db) => db.load('todo', [{ id: '1', title: 'x' }, 5]),
      'REPLIC_USAGE: load: a row must be an object',
      'rows are stored',
    ],
    ['another option', (db) => db.compact({ max: 1 }), 'there are maxPatchRetentionMs, signal'],
    ['backup to no path', (db) => db.backup(), 'REPLIC_USAGE', 'path of a file', 'not undefined'],
    [
      'a token of nobody',
      (db) => db.waitFor('99.1', 1),
      'REPLIC_TIMEOUT',
      'peer 99',
      'is there a link',
    ],
    [
      'backup onto itself',
      (db) => db.backup(db.status().path),
      'REPLIC_USAGE',
      'choose another path',
    ],
    [
      'backup to nowhere',
      (db) => db.backup('/no/such/folder/a.db'),
      'SQLITE_CANTOPEN',
      '/no/such/folder',
      'must exist',
    ],
    ['verify without links', (db) => db.verify(), 'REPLIC_NOT_FOUND', 'status().links'],
    ['load of an object', (db) => db.load('todo', { id: 1 }), 'REPLIC_USAGE', 'iterable'],
    ['batch without a function', (db) => db.batch({}), 'REPLIC_USAGE', 'a function is needed'],
  ])('%s', async (_, call, words) => {
    const text = await said(async () => call(await openReplica({ ddl: DDL })))
    for (const word of words) expect(text).toContain(word)
  })

  it('after close', async () => {
    const db = await openReplica()
    await db.close()
    expect(await said(() => db.get('SELECT 1'))).toBe(
      'REPLIC_CLOSED: the replica is closed: Replica.open() opens the file again',
    )
  })
})

describe('links', () => {
  each([
    ['no port', (db) => connect(db, {}), 'REPLIC_USAGE', 'port is missing'],
    ['a port as text', (db) => connect(db, { port: '7000' }), 'REPLIC_USAGE', 'port', "not '7000'"],
    ['a port instead of options', (db) => connect(db, 7000), 'as { port: … }', 'not number'],
    [
      'a host with a port',
      (db) => connect(db, { host: 'localhost:7000', port: 7000 }),
      'REPLIC_USAGE',
      'the port is an option of its own',
      "'localhost:7000'",
    ],
    ['a host as a URL', (db) => connect(db, { host: 'tcp://a', port: 1 }), 'REPLIC_USAGE', 'name'],
    [
      'open was not awaited',
      (db) => connect(Promise.resolve(db), { port: 1 }),
      'a Replica is needed, not a Promise: await it',
    ],
    [
      'a ws port',
      (db) => dialWebSocket(db, 7000),
      'REPLIC_USAGE',
      "'ws://host:8080/path', not 7000",
    ],
    ['no replica', () => connect(undefined, { port: 1 }), 'REPLIC_USAGE', 'a Replica is needed'],
    ['an http URL', (db) => dialWebSocket(db, 'http://x'), 'REPLIC_USAGE', 'ws: or wss:'],
    ['a ws URL', (db) => dialHttp(db, { url: 'ws://x' }), 'REPLIC_USAGE', 'http: or https:'],
    ['no socket', (db) => db.addRemotePeer(1, {}), 'REPLIC_USAGE', 'send(), close() and on()'],
    ['a peer as text', (db) => db.addRemotePeer('1', {}), 'REPLIC_USAGE', 'peerId', "not '1'"],
    [
      'a foreign address',
      (db) => listen(db, { host: '203.0.113.1' }),
      'EADDRNOTAVAIL',
      '203.0.113.1',
      '0.0.0.0',
    ],
  ])('%s', async (_, call, words) => {
    const text = await said(async () => call(await openReplica()))
    for (const word of words) expect(text).toContain(word)
  })

  it('something else listens there', async () => {
    const db = await openReplica()
    const listener = await listen(await openReplica())
    const server = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1')
    onTestFinished(() => server.close())
    await once(server, 'listening')
    const [tcp, http] = [listener, server].map((each) => each.address().port)
    const cases = [
      [() => connect(db, { port: http }), 'REPLIC_PROTOCOL', 'is this another service, or TLS?'],
      [() => dialHttp(db, { url: at(http) }), 'REPLIC_PROTOCOL', `${at(http)}`, 'mounted there'],
      [() => dialHttp(db, { url: at(tcp) }), 'ECONNRESET', `${at(tcp)}`, 'does it speak HTTP?'],
    ]
    for (const [dial, code, ...words] of cases) {
      const event = eventOf(db, 'link', ({ state }) => state === 'down')
      const connection = dial()
      const { code: found, reason } = await event
      expect([found, reason]).toEqual([code, expect.any(String)])
      for (const word of words) expect(reason).toContain(word)
      await connection.close()
    }
  })

  it('a port in use, TCP and UDP', async () => {
    const [a, b] = [await openReplica(), await openReplica()]
    const { port } = (await listen(a)).address()
    const endpoint = await bind(a)
    const texts = [
      await said(() => listen(b, { port })),
      await said(() => bind(b, { port: endpoint.address().port })),
    ]
    for (const text of texts) {
      for (const word of ['EADDRINUSE', '127.0.0.1', 'choose another port'])
        expect(text).toContain(word)
    }
  })

  const at = (port) => `http://127.0.0.1:${port}/`
  const down = (db) => eventOf(db, 'link', ({ state }) => state === 'down')

  it('nobody listens, at an address or a name', async () => {
    for (const host of ['127.0.0.1', 'localhost']) {
      const db = await openReplica()
      const event = down(db)
      connect(db, { host, port: 1 })
      const { code, reason } = await event
      expect(code).toBe('ECONNREFUSED')
      for (const word of ['127.0.0.1:1', 'nobody listens there']) expect(reason).toContain(word)
    }
  })

  const pairs = [
    [
      'another secret',
      { secret: 'a'.repeat(16) },
      { secret: 'b'.repeat(16) },
      {},
      'REPLIC_AUTH',
      'set the same one',
    ],
    ['no secret', { secret: 'a'.repeat(16) }, {}, {}, 'REPLIC_AUTH', 'give both the same `secret`'],
    ['refused by authorize', { authorize: () => false }, {}, {}, 'REPLIC_AUTH', 'authorize'],
    [
      'one peerId twice',
      { peerId: 7 },
      { peerId: 7 },
      {},
      'REPLIC_PEER',
      'every peer needs its own',
    ],
    [
      'another peer than expected',
      { peerId: 7 },
      {},
      { peerId: 8 },
      'REPLIC_PEER',
      'peer 8 was expected',
      'correct the address or the peerId',
    ],
  ]
  it.each(pairs)('%s', async (_, there, here, options, code, ...words) => {
    const [a, b] = [await openReplica(there), await openReplica(here)]
    const listener = await listen(a)
    const event = down(b)
    connect(b, { port: listener.address().port, ...options })
    const { code: found, reason } = await event
    expect(found).toBe(code)
    for (const word of words) expect(reason).toContain(word)
  })

  it('WebSocket where the package ws is needed and missing', () => {
    const dir = join(tempDir(), 'node_modules', 'replic-sqlite')
    mkdirSync(dir, { recursive: true })
    for (const name of ['package.json', 'lib'])
      cpSync(join(ROOT, name), join(dir, name), { recursive: true })
    symlinkSync(join(ROOT, 'build'), join(dir, 'build'), 'junction')
    const url = pathToFileURL(join(dir, 'lib', 'index.js'))
    const program = `import { Replica } from '${url}'
      import { connect } from '${new URL('transport/websocket.js', url)}'
      const db = await Replica.open(${JSON.stringify(join(dir, 'a.db'))})
      try { connect(db, 'ws://127.0.0.1:1', { headers: {} }) } catch (e) { console.log(e.code + ': ' + e.message) }
      process.exit()`
    const { stdout, stderr } = spawnSync(execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
    })
    for (const word of ['REPLIC_USAGE', 'npm install ws']) expect(stdout + stderr).toContain(word)
  })
})

// Every wrong call gives its documented error, and leaves the database as it was.

import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import { connect, listen } from '../lib/transport/tcp.js'
import {
  contents,
  log,
  NOTES,
  openReplica,
  rejects,
  SEED,
  tableDdl,
  tempDir,
  throws,
} from './helpers.js'

const GENERATED = tableDdl(
  'computed',
  ['id INTEGER NOT NULL', 'a INTEGER NOT NULL', 'double AS (a * 2)', 'deletedAt INTEGER'],
  'id',
)
const PLAIN = tableDdl('plain', ['id TEXT NOT NULL', 'v'], 'id')

async function fixture() {
  const db = await openReplica({ ddl: NOTES + SEED + GENERATED + PLAIN, peerId: 7 })
  await db.exec('CREATE TABLE own (a INTEGER PRIMARY KEY, b NOT NULL)')
  await db.upsert('note', { id: 1, text: 'one', size: 1 })
  await db.upsert('myTable', { id: 1, tenantId: 1, name: 'one' })
  return db
}

// Everything in the file that a wrong call might have touched.
async function everything(db) {
  const schema = await db.all('SELECT type, name, sql FROM sqlite_schema ORDER BY name')
  const logs = await Promise.all(db.status().tables.map((table) => log(db, table)))
  const internal = []
  for (const { type, name } of schema) {
    if (type === 'table' && /^_replic_|^own$/.test(name))
      internal.push(await db.all(`SELECT * FROM ${name}`))
  }
  return { schema, logs, internal, ...(await contents(db)) }
}

const note = { id: 2, text: 'two' }
const circular = {}
circular.self = circular

// What is called, the code, and words that the message must have.
const wrong = {
  'upsert: no table': [(db) => db.upsert(undefined, note), 'REPLIC_USAGE', 'table', 'undefined'],
  'upsert: unknown table': [
    (db) => db.upsert('notes', note),
    'REPLIC_UNKNOWN_TABLE',
    'notes',
    "'note'",
  ],
  'upsert: nothing like it': [(db) => db.upsert('zzzzz', note), 'REPLIC_UNKNOWN_TABLE', '_patches'],
  'upsert: not replicated': [(db) => db.upsert('own', { a: 1 }), 'REPLIC_UNKNOWN_TABLE', 'own'],
  'upsert: the log itself': [(db) => db.upsert('note_patches', { id: 1 }), 'REPLIC_UNKNOWN_TABLE'],
  'upsert: unknown column': [
    (db) => db.upsert('note', { id: 1, txet: 'x' }),
    'REPLIC_UNKNOWN_COLUMN',
    'note',
    'txet',
    "'text'",
  ],
  'upsert: a reserved column': [
    (db) => db.upsert('note', { id: 1, _patchedAt: 1 }),
    'REPLIC_UNKNOWN_COLUMN',
    '_patchedAt',
  ],
  'upsert: unknown column in a later row': [
    (db) => db.upsert('note', [note, { id: 3, colour: 'red' }]),
    'REPLIC_UNKNOWN_COLUMN',
    'colour',
  ],
  'upsert: a generated column': [
    (db) => db.upsert('computed', { id: 1, a: 1, double: 2 }),
    'REPLIC_UNKNOWN_COLUMN',
    'double',
    'written',
  ],
  'upsert: no key': [(db) => db.upsert('note', { text: 'x' }), 'REPLIC_KEY', 'note', 'id'],
  'upsert: half a key': [(db) => db.upsert('myTable', { id: 1 }), 'REPLIC_KEY', 'tenantId'],
  'upsert: NULL in a key': [(db) => db.upsert('note', { id: null }), 'REPLIC_KEY', 'id'],
  'upsert: undefined in a key': [
    (db) => db.upsert('note', [note, { id: undefined }]),
    'REPLIC_KEY',
    'id',
  ],
  'upsert: NaN in a key': [(db) => db.upsert('note', { id: NaN }), 'REPLIC_KEY', 'id'],
  'upsert: no rows': [(db) => db.upsert('note', []), 'REPLIC_USAGE', 'no rows'],
  'upsert: no row': [(db) => db.upsert('note'), 'REPLIC_USAGE', 'undefined'],
  'upsert: null': [(db) => db.upsert('note', null), 'REPLIC_USAGE', 'null'],
  'upsert: text for a row': [(db) => db.upsert('note', 'x'), 'REPLIC_USAGE', 'string'],
  'upsert: a list for a row': [(db) => db.upsert('note', [[1, 'x']]), 'REPLIC_USAGE', 'array'],
  'upsert: a Map': [(db) => db.upsert('note', new Map([['id', 1]])), 'REPLIC_USAGE', 'Map'],
  'upsert: bytes for a row': [
    (db) => db.upsert('note', Buffer.from('x')),
    'REPLIC_USAGE',
    'Buffer',
  ],
  'upsert: a row without columns': [(db) => db.upsert('note', {}), 'REPLIC_USAGE', 'primary key'],
  'upsert: a Date': [
    (db) => db.upsert('note', { id: 2, text: new Date(0) }),
    'REPLIC_USAGE',
    'text',
  ],
  'upsert: an object': [
    (db) => db.upsert('note', { id: 2, text: circular }),
    'REPLIC_USAGE',
    'text',
  ],
  'upsert: a symbol': [
    (db) => db.upsert('note', { id: 2, text: Symbol('x') }),
    'REPLIC_USAGE',
    'text',
  ],
  'upsert: a function': [
    (db) => db.upsert('note', { id: 2, text: () => 1 }),
    'REPLIC_USAGE',
    'text',
  ],
  'upsert: 2^63': [(db) => db.upsert('note', { id: 2n ** 63n }), 'REPLIC_OUT_OF_RANGE', 'id'],
  'upsert: -2^63-1': [
    (db) => db.upsert('note', { id: 2, size: -(2n ** 63n) - 1n }),
    'REPLIC_OUT_OF_RANGE',
    'size',
  ],
  'upsert: a type that a STRICT table refuses': [
    (db) => db.upsert('myTable', { id: 2, tenantId: 1, deletedAt: 'never' }),
    'SQLITE_CONSTRAINT_DATATYPE',
  ],
  'upsert: CHECK': [(db) => db.upsert('note', { id: 2, size: -1 }), 'SQLITE_CONSTRAINT_CHECK'],
  'upsert: CHECK in the second row': [
    (db) => db.upsert('note', [note, { id: 3, size: -1 }]),
    'SQLITE_CONSTRAINT_CHECK',
  ],
  'upsert: NOT NULL': [(db) => db.upsert('computed', { id: 1 }), 'SQLITE_CONSTRAINT_NOTNULL'],
  'upsert: NULL where NOT NULL': [
    (db) => db.upsert('computed', { id: 1, a: null }),
    'SQLITE_CONSTRAINT_NOTNULL',
  ],
  'upsert: NaN where NOT NULL': [
    (db) => db.upsert('computed', { id: 1, a: NaN }),
    'SQLITE_CONSTRAINT_NOTNULL',
  ],
  'upsert: NULL without _nulls': [
    (db) => db.upsert('myTable', { id: 1, tenantId: 1, name: null }),
    'REPLIC_NULLS',
    'myTable_patches',
    '_nulls',
  ],
  'delete: unknown table': [(db) => db.delete('ntoe', { id: 1 }), 'REPLIC_UNKNOWN_TABLE', "'note'"],
  'delete: no key': [(db) => db.delete('note'), 'REPLIC_USAGE'],
  'delete: the key itself': [(db) => db.delete('note', 1), 'REPLIC_USAGE', 'number'],
  'delete: half a key': [(db) => db.delete('myTable', { id: 1 }), 'REPLIC_KEY', 'id, tenantId'],
  'delete: more than a key': [
    (db) => db.delete('note', { id: 1, text: 'one' }),
    'REPLIC_KEY',
    '(id)',
  ],
  'delete: another column': [(db) => db.delete('note', { text: 'one' }), 'REPLIC_KEY', '(id)'],
  'delete: NULL': [(db) => db.delete('note', { id: null }), 'REPLIC_KEY', 'id'],
  'delete: no such row': [(db) => db.delete('note', { id: 9 }), 'REPLIC_NOT_FOUND', 'note'],
  'delete: no deletedAt': [
    (db) => db.delete('plain', { id: 'x' }),
    'REPLIC_NO_DELETED_AT',
    'plain',
  ],
  'upsert: a signal': [
    (db) => db.upsert('note', note, { signal: AbortSignal.abort() }),
    'REPLIC_USAGE',
    'no signal',
  ],
  'upsert: a second row behind the first': [
    (db) => db.upsert('note', note, { id: 3, text: 'three' }),
    'REPLIC_USAGE',
    'one array',
  ],
  'delete: timeoutMs': [
    (db) => db.delete('note', { id: 1 }, { timeoutMs: 5 }),
    'REPLIC_USAGE',
    'acks',
  ],
  'batch: a signal': [
    (db) => db.batch((tx) => tx.upsert('note', note), { signal: AbortSignal.abort() }),
    'REPLIC_USAGE',
    'no signal',
  ],
  'batch: tx.upsert with a second row': [
    (db) => db.batch((tx) => tx.upsert('note', note, { id: 3 })),
    'REPLIC_USAGE',
    'tx.upsert',
    'one array',
  ],
  'batch: tx.delete with options': [
    (db) => db.batch((tx) => tx.delete('note', { id: 1 }, {})),
    'REPLIC_USAGE',
    'tx.delete',
  ],
  'batch: no function': [(db) => db.batch('x'), 'REPLIC_USAGE', 'string'],
  'batch: a wrong call inside': [
    (db) =>
      db.batch((tx) => {
        tx.upsert('note', note)
        tx.upsert('nota', note)
      }),
    'REPLIC_UNKNOWN_TABLE',
    "'note'",
  ],
  'batch: a constraint in its last change': [
    (db) =>
      db.batch((tx) => {
        tx.upsert('note', note)
        tx.delete('note', { id: 1 })
        tx.upsert('note', { id: 3, size: -1 })
      }),
    'SQLITE_CONSTRAINT_CHECK',
  ],
  'batch: tx.upsert without rows': [
    (db) => db.batch((tx) => tx.upsert('note', [])),
    'REPLIC_USAGE',
  ],
  'batch: tx used afterwards': [
    async (db) => {
      let kept
      await db.batch((tx) => {
        kept = tx
      })
      kept.upsert('note', note)
    },
    'REPLIC_USAGE',
    'settled',
  ],
  'load: not iterable': [(db) => db.load('note', { id: 1 }), 'REPLIC_USAGE', 'iterable'],
  'load: text': [(db) => db.load('note', 'abc'), 'REPLIC_USAGE', 'string'],
  'load: nothing': [(db) => db.load('note'), 'REPLIC_USAGE', 'undefined'],
  'load: unknown option': [
    (db) => db.load('note', [note], { progess: () => {} }),
    'REPLIC_USAGE',
    "'progress'",
  ],
  'load: unknown table': [(db) => db.load('nope', [note]), 'REPLIC_UNKNOWN_TABLE', '0 rows'],
  'load: a wrong row': [(db) => db.load('note', [note, 5]), 'REPLIC_USAGE', 'number', '0 rows'],
  'get: no SQL': [(db) => db.get(), 'REPLIC_USAGE', 'undefined'],
  'get: bad SQL': [(db) => db.get('SELEKT 1'), 'SQLITE_ERROR', 'SELEKT'],
  'get: no such table': [(db) => db.get('SELECT * FROM nope'), 'SQLITE_ERROR', 'nope'],
  'get: a write': [(db) => db.get('UPDATE own SET b = 1 RETURNING b'), 'SQLITE_READONLY'],
  'get: a single parameter': [(db) => db.get('SELECT ?', 1), 'REPLIC_USAGE', '[value]'],
  'get: bytes as parameters': [(db) => db.get('SELECT ?', new Uint8Array(1)), 'REPLIC_USAGE'],
  'get: a parameter that is missing': [(db) => db.get('SELECT ?, ?', [1]), 'REPLIC_USAGE'],
  'get: one parameter too many': [(db) => db.get('SELECT ?', [1, 2]), 'REPLIC_USAGE'],
  'get: a name that is missing': [(db) => db.get('SELECT :a, :b', { a: 1 }), 'REPLIC_USAGE', 'b'],
  'get: an unknown name': [(db) => db.get('SELECT :a', { a: 1, c: 1 }), 'REPLIC_USAGE', 'c'],
  'get: an undefined parameter': [(db) => db.get('SELECT ?', [undefined]), 'REPLIC_USAGE', '1'],
  'get: a Date as parameter': [(db) => db.get('SELECT ?', [new Date(0)]), 'REPLIC_USAGE', '1'],
  'get: unknown option': [
    (db) => db.get('SELECT 1', [], { readBigInt: true }),
    'REPLIC_USAGE',
    "'readBigInts'",
  ],
  'get: an integer that no number holds': [
    (db) => db.get('SELECT 1 AS a, 9007199254740993 AS b'),
    'REPLIC_OUT_OF_RANGE',
    'b',
    'readBigInts',
  ],
  'all: two statements': [(db) => db.all('SELECT 1; SELECT 2'), 'REPLIC_USAGE'],
  'all: bad SQL': [(db) => db.all('SELECT'), 'SQLITE_ERROR'],
  'all: an error while stepping': [
    (db) => db.all("SELECT json(value) FROM json_each('[1]') UNION ALL SELECT json('{')"),
    'SQLITE_ERROR',
    'JSON',
  ],
  'iterate: bad SQL': [(db) => db.iterate('SELECT').next(), 'SQLITE_ERROR'],
  'iterate: no SQL': [(db) => db.iterate(7).next(), 'REPLIC_USAGE', 'number'],
  'run: bad SQL': [(db) => db.run('DELETE FRM own'), 'SQLITE_ERROR', 'FRM'],
  'run: no SQL': [(db) => db.run(null), 'REPLIC_USAGE', 'null'],
  'run: two statements': [(db) => db.run('SELECT 1; SELECT 2'), 'REPLIC_USAGE', 'exec'],
  'run: unknown option': [(db) => db.run('SELECT 1', [], { safe: 1 }), 'REPLIC_USAGE', "'unsafe'"],
  'run: unsafe is no boolean': [
    (db) => db.run('SELECT 1', [], { unsafe: 1 }),
    'REPLIC_USAGE',
    'true or false',
  ],
  'run: a constraint': [
    (db) => db.run('INSERT INTO own VALUES (1, NULL)'),
    'SQLITE_CONSTRAINT_NOTNULL',
  ],
  'run: INSERT': [
    (db) => db.run('INSERT INTO note (id) VALUES (5)'),
    'REPLIC_DIRECT_WRITE',
    'note',
    'upsert',
  ],
  'run: UPDATE': [(db) => db.run('UPDATE note SET text = 1'), 'REPLIC_DIRECT_WRITE', 'note'],
  'run: DELETE': [(db) => db.run('DELETE FROM note'), 'REPLIC_DIRECT_WRITE', 'note'],
  'run: the log': [(db) => db.run('DELETE FROM note_patches'), 'REPLIC_DIRECT_WRITE'],
  'run: an internal table': [(db) => db.run('DELETE FROM _replic_vector'), 'REPLIC_DIRECT_WRITE'],
  'exec: a direct write after another statement': [
    (db) => db.exec('INSERT INTO own VALUES (8, 8); DELETE FROM note'),
    'REPLIC_DIRECT_WRITE',
  ],
  'exec: an error in the second statement': [
    (db) => db.exec('INSERT INTO own VALUES (8, 8); INSERT INTO own VALUES (8, 8)'),
    'SQLITE_CONSTRAINT_PRIMARYKEY',
  ],
  'exec: BEGIN': [(db) => db.exec('BEGIN; DELETE FROM own'), 'REPLIC_TRANSACTION', 'batch'],
  'exec: COMMIT': [(db) => db.exec('COMMIT'), 'REPLIC_TRANSACTION'],
  'exec: ROLLBACK': [(db) => db.exec('ROLLBACK'), 'REPLIC_TRANSACTION'],
  'exec: SAVEPOINT': [(db) => db.exec('SAVEPOINT a'), 'REPLIC_TRANSACTION'],
  'exec: RELEASE': [(db) => db.exec('RELEASE a'), 'REPLIC_TRANSACTION'],
  'exec: ATTACH': [(db) => db.exec("ATTACH 'x.db' AS x"), 'REPLIC_TRANSACTION'],
  'exec: synchronous': [(db) => db.exec('PRAGMA synchronous = OFF'), 'REPLIC_TRANSACTION'],
  'exec: journal_mode': [(db) => db.exec('PRAGMA journal_mode = DELETE'), 'REPLIC_TRANSACTION'],
  'exec: a table that cannot be replicated': [
    (db) => db.exec('CREATE TABLE t (a); CREATE TABLE t_patches (a)'),
    'REPLIC_SCHEMA',
    't',
    'PRIMARY KEY',
  ],
  'exec: no SQL': [(db) => db.exec(7), 'REPLIC_USAGE', 'number'],
  'waitFor: no token': [(db) => db.waitFor(), 'REPLIC_TOKEN', 'undefined'],
  'waitFor: a malformed token': [(db) => db.waitFor('7'), 'REPLIC_TOKEN', "'7'"],
  'waitFor: a bad timeout': [(db) => db.waitFor('7.1', -1), 'REPLIC_USAGE', 'timeoutMs'],
  'waitFor: an unknown option': [
    (db) => db.waitFor('7.1', { timeout: 1 }),
    'REPLIC_USAGE',
    "'timeoutMs'",
  ],
  'waitFor: no signal': [(db) => db.waitFor('7.1', { signal: {} }), 'REPLIC_USAGE', 'AbortSignal'],
  'addRemotePeer: no socket': [(db) => db.addRemotePeer(8), 'REPLIC_USAGE', 'send()'],
  'addRemotePeer: peerId 0': [
    (db) => db.addRemotePeer(0, {}),
    'REPLIC_USAGE',
    'peerId',
    '4294967295',
  ],
  'addRemotePeer: peerId as text': [(db) => db.addRemotePeer('8', {}), 'REPLIC_USAGE', 'peerId'],
  'setSecrets: none': [(db) => db.setSecrets(), 'REPLIC_USAGE', 'at least 16'],
  'setSecrets: many': [
    (db) => db.setSecrets(Array(9).fill('a secret that is long enough')),
    'REPLIC_USAGE',
    'at most 8',
  ],
  'setSecrets: short': [(db) => db.setSecrets(['short']), 'REPLIC_USAGE', 'at least 16'],
  'closeRemotePeer: peerId 2^32': [(db) => db.closeRemotePeer(2 ** 32), 'REPLIC_USAGE', 'peerId'],
  'explain: unknown table': [(db) => db.explain('noted'), 'REPLIC_UNKNOWN_TABLE', "'note'"],
  'on: unknown event': [(db) => db.on('chnage', () => {}), 'REPLIC_USAGE', "'change'"],
  'once: unknown event': [(db) => db.once('sync', () => {}), 'REPLIC_USAGE', "'synced'"],
  'off: unknown event': [(db) => db.off('x', () => {}), 'REPLIC_USAGE', "'x'"],
  'close: bad timeout': [(db) => db.close({ timeoutMs: 'x' }), 'REPLIC_USAGE', 'timeoutMs'],
  'listen: no replica': [() => listen({}), 'REPLIC_USAGE', 'Replica'],
  'listen: a bad port': [(db) => listen(db, { port: 65536 }), 'REPLIC_USAGE', 'port', '65535'],
  'listen: an unknown option': [(db) => listen(db, { prot: 1 }), 'REPLIC_USAGE', "'port'"],
  'connect: no replica': [() => connect(null, { port: 1 }), 'REPLIC_USAGE', 'null'],
  'connect: no port': [(db) => connect(db, {}), 'REPLIC_USAGE', 'port is missing'],
  'connect: delays the wrong way round': [
    (db) => connect(db, { port: 1, retryMinMs: 5000, retryMaxMs: 100 }),
    'REPLIC_USAGE',
    'retryMinMs must not be more than retryMaxMs, not 5000 and 100',
  ],
  'connect: a bad peerId': [(db) => connect(db, { port: 1, peerId: 0 }), 'REPLIC_USAGE', 'peerId'],
}

describe('a wrong call', () => {
  it.each(Object.keys(wrong))('%s', async (name) => {
    const [call, ...expected] = wrong[name]
    const db = await fixture()
    const before = await everything(db)
    await throws(() => call(db), ...expected)
    expect(await everything(db)).toEqual(before)
    await db.upsert('note', { id: 1, text: 'goes on' })
    expect(await db.get('SELECT text FROM note')).toEqual({ text: 'goes on' })
  })

  it('is forgiven where the names are the core’s to judge: the schema is being changed', async () => {
    const db = await openReplica({ ddl: '' })
    const created = db.exec(NOTES)
    const written = db.upsert('note', { id: 1 })
    const misspelt = db.upsert('nope', { id: 1 })
    await created
    await rejects(misspelt, 'REPLIC_UNKNOWN_TABLE', 'nope')
    await written
    expect(await db.all('SELECT id FROM note')).toEqual([{ id: 1 }])
  })
})

describe('the receiver', () => {
  const methods = Object.getOwnPropertyNames(Replica.prototype).filter(
    (name) => name !== 'constructor',
  )

  it('knows all methods', () => {
    expect(methods.length).toBeGreaterThanOrEqual(20)
  })

  it.each([...methods, 'asyncDispose'])('is checked by %s', async (method) => {
    const name = method === 'asyncDispose' ? Symbol.asyncDispose : method
    await expect((async () => Replica.prototype[name].call({}))()).rejects.toThrow(TypeError)
  })

  it('is made by open() alone', () => {
    expect(() => new Replica()).toThrow(TypeError)
    expect(() => new Replica('a.db')).toThrow('Replica.open')
  })
})

describe('open', () => {
  const dirs = () => {
    const dir = tempDir()
    return { dir, path: join(dir, 'a.db') }
  }

  it.each([
    ['no path', [], 'path'],
    ['an empty path', [''], 'path'],
    ['a path that is none', [7], 'path'],
    ['a NUL in the path', ['a\0b'], 'path'],
    ['memory', [':memory:'], 'path'],
    ['options that are none', ['a.db', 7], 'number'],
    ['null for options', ['a.db', null], 'null'],
    ['an unknown option', ['a.db', { peerid: 1 }], "'peerId'"],
    ['peerId 0', ['a.db', { peerId: 0 }], 'peerId'],
    ['peerId -1', ['a.db', { peerId: -1 }], 'peerId'],
    ['peerId 2^32', ['a.db', { peerId: 2 ** 32 }], '4294967295'],
    ['peerId 1.5', ['a.db', { peerId: 1.5 }], '1.5'],
    ['peerId as text', ['a.db', { peerId: '1' }], "'1'"],
    ['a bigint', ['a.db', { peerId: 1n }], 'bigint'],
    ['durability', ['a.db', { durability: 'none' }], "'full' or 'normal'"],
    ['readers', ['a.db', { readers: 0 }], 'readers'],
    ['heartbeatMs', ['a.db', { heartbeatMs: Infinity }], 'heartbeatMs'],
    ['maxFrameBytes', ['a.db', { maxFrameBytes: 2 ** 40 }], 'maxFrameBytes'],
  ])('%s', async (_, args, ...words) => {
    await rejects(Replica.open(...args), 'REPLIC_USAGE', ...words)
  })

  it('a file that is open already', async () => {
    const { path } = dirs()
    const db = await openReplica({ path })
    await rejects(Replica.open(path), 'REPLIC_LOCKED', path)
    await db.upsert('note', { id: 1 })
    await db.close()
    const again = await openReplica({ path })
    expect(await again.all('SELECT id FROM note')).toEqual([{ id: 1 }])
  })

  it('a directory', async () => {
    const { dir } = dirs()
    await rejects(Replica.open(dir), 'SQLITE_CANTOPEN', dir)
  })

  it('a path through a file', async () => {
    const { path } = dirs()
    writeFileSync(path, '')
    await rejects(Replica.open(join(path, 'b.db')), 'SQLITE_CANTOPEN', path)
  })

  it('a directory that does not exist', async () => {
    const { dir } = dirs()
    await rejects(Replica.open(join(dir, 'none', 'b.db')), 'SQLITE_CANTOPEN', 'none')
  })

  it('a file that is no database stays as it is', async () => {
    const { path } = dirs()
    const text = 'This is not a database. '.repeat(1000)
    writeFileSync(path, text)
    await rejects(Replica.open(path), 'SQLITE_NOTADB', path)
    expect(readFileSync(path, 'utf8')).toBe(text)
  })

  it('a damaged database', async () => {
    const { path } = dirs()
    const db = await openReplica({ path })
    await db.upsert(
      'note',
      Array.from({ length: 2000 }, (_, id) => ({ id, text: 'x'.repeat(100) })),
    )
    await db.close()
    const bytes = readFileSync(path)
    bytes.fill(0xa5, 4096, 6 * 4096)
    writeFileSync(path, bytes)
    const error = await Replica.open(path).then(
      async (opened) => {
        await opened.close()
      },
      (reason) => reason,
    )
    expect(error?.code).toMatch(/^SQLITE_CORRUPT/)
    expect(readFileSync(path).equals(bytes)).toBe(true)
  })

  it('a read-only directory', async () => {
    const { dir } = dirs()
    const readOnly = join(dir, 'ro')
    mkdirSync(readOnly)
    const undo = makeReadOnly(readOnly)
    await rejects(Replica.open(join(readOnly, 'a.db')), 'SQLITE_CANTOPEN', readOnly).finally(undo)
  })

  it('a database in a read-only directory', async () => {
    const { dir, path } = dirs()
    const db = await openReplica({ path })
    await db.upsert('note', { id: 1 })
    await db.close()
    const readOnly = join(dir, 'ro')
    mkdirSync(readOnly)
    for (const file of ['a.db', 'a.db-replic']) copyFileSync(join(dir, file), join(readOnly, file))
    const undo = makeReadOnly(readOnly)
    const error = await Replica.open(join(readOnly, 'a.db')).catch((reason) => reason)
    undo()
    expect(error.code).toMatch(/^SQLITE_(CANTOPEN|READONLY)/)
    expect(error.message).toContain(readOnly)
  })

  it('a table that cannot be replicated', async () => {
    const db = await openReplica({ ddl: '' })
    const { tables } = db.status()
    await rejects(
      db.migrate([
        { up: 'CREATE TABLE t (a INTEGER PRIMARY KEY, b); CREATE TABLE t_patches (a, b)' },
      ]),
      'REPLIC_SCHEMA',
      't_patches',
      '_patchedAt',
    )
    expect(db.status().tables).toEqual(tables)
  })
})

// Modes do not bind root: there the directory is mounted upon itself, read-only.
function makeReadOnly(dir) {
  if (process.getuid() !== 0) {
    chmodSync(dir, 0o555)
    return () => chmodSync(dir, 0o755)
  }
  execFileSync('mount', ['--bind', dir, dir])
  execFileSync('mount', ['-o', 'remount,bind,ro', dir])
  return () => execFileSync('umount', [dir])
}

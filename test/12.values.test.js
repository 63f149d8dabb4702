// Every value comes back as it was written; here, and in the log.

import { createHash, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { log, openReplica, rejects, SEED, SEED_NULLS, tableDdl } from './helpers.js'

const column = (columns, options) =>
  tableDdl('t', ['id INTEGER NOT NULL', ...columns], 'id', options)

// What is written, and what is read (with readBigInts where that is a bigint).
const values = [
  ['null', null],
  ['true', true, 1],
  ['false', false, 0],
  ['0', 0],
  ['-1', -1],
  ['1.5', 1.5],
  ['the least positive number', Number.MIN_VALUE],
  ['the greatest number', Number.MAX_VALUE],
  ['infinity', Infinity],
  ['minus infinity', -Infinity],
  ['-0', -0],
  ['NaN', NaN, null],
  ['2^31', 2 ** 31],
  ['2^53-1', 2 ** 53 - 1],
  ['-(2^53-1)', -(2 ** 53 - 1)],
  ['2^53-1 as a bigint', 2n ** 53n - 1n],
  ['2^53 as a bigint', 2n ** 53n],
  ['2^53+1', 2n ** 53n + 1n],
  ['-2^53-1', -(2n ** 53n) - 1n],
  ['2^63-1', 2n ** 63n - 1n],
  ['-2^63', -(2n ** 63n)],
  ['empty text', ''],
  ['text', 'text'],
  ['more than ASCII', 'é ß 漢字 🙂'],
  ['text with NUL', 'a\0b\0'],
  ['NUL alone', '\0'],
  ['a byte order mark', '\uFEFFx'],
  ['decomposed é', 'e\u0301'],
  ['a lone surrogate', 'a\uD800b', 'a\uFFFDb'],
  ['text that looks like a number', '0012'],
  ['an empty blob', new Uint8Array(0)],
  ['a blob', Uint8Array.of(0, 1, 255)],
  ['a blob that is no UTF-8', Uint8Array.of(0xff, 0xfe, 0xc0, 0x80, 0xed, 0xa0, 0x80)],
  ['a Buffer', Buffer.from('buffer'), new Uint8Array(Buffer.from('buffer'))],
  ['an ArrayBuffer', Uint8Array.of(1, 2).buffer, Uint8Array.of(1, 2)],
  [
    'a DataView of a part',
    new DataView(Uint8Array.of(1, 2, 3, 4).buffer, 1, 2),
    Uint8Array.of(2, 3),
  ],
  ['a part of an array', Uint8Array.of(1, 2, 3, 4).subarray(1, 3), Uint8Array.of(2, 3)],
]

const plain = (value) => (value instanceof Uint8Array ? new Uint8Array(value) : value)

// So many the addon takes packed: many texts as one, of 16,384 characters, in which each has to be found again.
describe('many rows in one call', () => {
  const long = '🙂'.repeat(5000)
  const wide = ['', 'a\uD83D', '\uDE42b', '🙂', 'é', '\0\0', 'a\0b', '漢字', long, 'z'.repeat(4095)]
  const texts = Array.from({ length: 12 }, () => wide).flat()
  const rowsOf = (list, first) => list.map((v, i) => ({ id: first + i, v }))

  it.each([
    ['of every kind', values.map(([, written]) => written)],
    ['of ASCII alone', Array.from({ length: 100 }, (_, i) => `text ${i}`)],
    ['of all widths', texts],
    ['which fill what is packed as one', [...'abcdefghijklmnopqrstu'].map((c) => c.repeat(4095))],
    [
      'first ASCII, then wide',
      Array.from({ length: 50 }, (_, i) => (i < 30 ? 'a' : 'é').repeat(1000 + i)),
    ],
  ])('%s: as if they came one by one', async (_, list) => {
    const db = await openReplica({ ddl: column(['v']) })
    await db.upsert('t', rowsOf(list, 1))
    for (const row of rowsOf(list, 1001)) await db.upsert('t', row)
    const read = async (first) => {
      const sql = 'SELECT v, typeof(v) AS type FROM t WHERE id BETWEEN ? AND ? ORDER BY id'
      const rows = await db.all(sql, [first, first + 999], { readBigInts: true })
      return rows.map(({ v, type }) => [plain(v), type])
    }
    const together = await read(1)
    expect(together).toHaveLength(list.length)
    expect(together).toStrictEqual(await read(1001))
  })

  it('names the row and the column of what cannot be stored', async () => {
    const db = await openReplica({ ddl: column(['v']) })
    for (const [wrong, code] of [
      [Symbol('v'), 'REPLIC_USAGE'],
      [{}, 'REPLIC_USAGE'],
      [2n ** 63n, 'REPLIC_OUT_OF_RANGE'],
    ]) {
      await rejects(
        db.upsert('t', rowsOf([...texts, wrong, 'after it'], 1)),
        code,
        't.v in row 120',
      )
    }
    expect(await db.all('SELECT * FROM t')).toEqual([])
  })
})

describe.each([
  ['a table without types', column(['v'])],
  ['a STRICT table', column(['v ANY'], 'STRICT')],
])('%s', (_, ddl) => {
  it.each(values)('%s', async (_, written, expected = written) => {
    const db = await openReplica({ ddl })
    const readBigInts = typeof expected === 'bigint'
    await db.upsert('t', { id: 1, v: written })
    const row = await db.get('SELECT v FROM t', [], { readBigInts })
    expect(plain(row.v)).toStrictEqual(expected)
    const { v } = await db.get('SELECT v FROM t_patches', [], { readBigInts })
    expect(plain(v)).toStrictEqual(expected)
  })

  it.each(values)('%s, as a parameter', async (_, written, expected = written) => {
    const db = await openReplica({ ddl: '' })
    const readBigInts = typeof expected === 'bigint'
    const { v } = await db.get('SELECT ? AS v', [written], { readBigInts })
    expect(plain(v)).toStrictEqual(expected)
    const named = await db.get('SELECT :v AS v', { v: written }, { readBigInts })
    expect(plain(named.v)).toStrictEqual(expected)
  })
})

describe('integers', () => {
  it('are never rounded', async () => {
    const db = await openReplica({ ddl: column(['v INTEGER']) })
    await db.upsert('t', { id: 1, v: 2n ** 53n + 1n })
    await rejects(db.all('SELECT id, v FROM t'), 'REPLIC_OUT_OF_RANGE', 'v', 'row', 'readBigInts')
    expect(await db.all('SELECT id, v FROM t', [], { readBigInts: true })).toEqual([
      { id: 1n, v: 2n ** 53n + 1n },
    ])
    const iterator = db.iterate('SELECT v FROM t')
    await rejects(iterator.next(), 'REPLIC_OUT_OF_RANGE', 'v')
  })

  it('are bigints where the replica was opened so, and numbers where a call says so', async () => {
    const db = await openReplica({ ddl: column(['v INTEGER']), readBigInts: true })
    await db.upsert('t', { id: 1, v: 2 })
    expect(await db.get('SELECT id, v FROM t')).toEqual({ id: 1n, v: 2n })
    expect(await db.get('SELECT v FROM t', [], { readBigInts: false })).toEqual({ v: 2 })
    for await (const row of db.iterate('SELECT v FROM t')) expect(row).toEqual({ v: 2n })
  })

  it('come back from run(), exactly', async () => {
    const db = await openReplica({ ddl: '' })
    await db.exec('CREATE TABLE own (id INTEGER PRIMARY KEY)')
    expect(await db.run('INSERT INTO own VALUES (?)', [5])).toEqual({
      changes: 1,
      lastInsertRowid: 5,
    })
    expect(await db.run('INSERT INTO own VALUES (?)', [2n ** 53n + 1n])).toEqual({
      changes: 1,
      lastInsertRowid: 2n ** 53n + 1n,
    })
  })
})

describe('keys', () => {
  it.each([
    ['TEXT', 'id TEXT NOT NULL', ['', 'a', 'A', 'a\0b', 'é', 'e\u0301']],
    [
      'BLOB',
      'id BLOB NOT NULL',
      [[], [0], [0, 0], [255, 254]].map((bytes) => Uint8Array.from(bytes)),
    ],
    ['REAL', 'id REAL NOT NULL', [0.5, -1.5, 1e300, Infinity]],
    ['INTEGER', 'id INTEGER NOT NULL', [0, -1, 2 ** 53 - 1, 2n ** 63n - 1n, -(2n ** 63n)]],
  ])('%s', async (_, id, keys) => {
    for (const options of ['', 'WITHOUT ROWID', 'STRICT', 'STRICT, WITHOUT ROWID']) {
      const db = await openReplica({
        ddl: tableDdl('t', [id, 'n INTEGER', 'deletedAt INTEGER'], 'id', options),
      })
      for (const [n, key] of keys.entries()) {
        await db.upsert('t', { id: key, n })
        await db.upsert('t', { id: key, n: n + 100 })
      }
      const rows = await db.all('SELECT n FROM t ORDER BY n')
      expect(rows).toEqual(keys.map((_, n) => ({ n: n + 100 })))
      for (const key of keys) await db.delete('t', { id: key })
      expect(await db.all('SELECT n FROM t WHERE deletedAt IS NULL')).toEqual([])
      await db.close()
    }
  })

  it('composite, of several types, in another order than the columns', async () => {
    const columns = [
      'a INTEGER NOT NULL',
      'b TEXT NOT NULL',
      'c BLOB NOT NULL',
      'v',
      'deletedAt INTEGER',
    ]
    const db = await openReplica({ ddl: tableDdl('t', columns, 'c, a, b', 'WITHOUT ROWID') })
    const c = Uint8Array.of(1)
    await db.upsert('t', [
      { a: 1, b: 'x', c, v: 1 },
      { a: 1, b: 'X', c, v: 2 },
      { c: Uint8Array.of(2), b: 'x', a: 1, v: 3 },
    ])
    await db.upsert('t', { b: 'x', c, a: 1, v: 9 })
    await db.delete('t', { b: 'X', a: 1, c })
    const rows = await db.all('SELECT v, deletedAt IS NULL AS live FROM t ORDER BY v')
    expect(rows).toEqual([
      { v: 2, live: 0 },
      { v: 3, live: 1 },
      { v: 9, live: 1 },
    ])
  })

  it('an INTEGER PRIMARY KEY is given by the caller', async () => {
    const ddl = `CREATE TABLE t (id INTEGER PRIMARY KEY, v);
      CREATE TABLE t_patches (_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,
        _peerId INTEGER NOT NULL, id INTEGER, v)`
    const db = await openReplica({ ddl })
    await db.upsert('t', { id: 5, v: 'x' })
    await rejects(db.upsert('t', { v: 'y' }), 'REPLIC_KEY', 'id')
    expect(await db.all('SELECT * FROM t')).toEqual([{ id: 5, v: 'x' }])
  })
})

describe('names', () => {
  it('of tables and columns may be anything', async () => {
    const names = [
      'order',
      'a"b',
      "it's",
      'é',
      'with space',
      'a.b',
      'a;b',
      '1',
      'constructor',
      '__proto__',
    ]
    const quoted = names.map((name) => `"${name.replaceAll('"', '""')}"`)
    const columns = [
      '"group" INTEGER NOT NULL',
      ...quoted.map((name) => `${name} TEXT`),
      'deletedAt INTEGER',
    ]
    const db = await openReplica({ ddl: tableDdl('select "from"', columns, '"group"') })
    const row = Object.create(null)
    row.group = 1
    for (const name of names) row[name] = `value of ${name}`
    await db.upsert('select "from"', row)
    await db.upsert('select "from"', { group: 2 }) // inherits "constructor" and "__proto__"
    const empty = Object.fromEntries([...names, 'deletedAt'].map((name) => [name, null]))
    const [first, second] = await db.all('SELECT * FROM "select ""from""" ORDER BY "group"')
    expect(Object.entries(first)).toEqual([...Object.entries(row), ['deletedAt', null]])
    expect(Object.entries(second)).toEqual(Object.entries({ group: 2, ...empty }))
    await db.delete('select "from"', { group: 1 })
    expect(await db.explain('select "from"')).toContain('"a""b"')
  })

  it('of a result: of columns with the same name the last counts', async () => {
    const db = await openReplica({ ddl: '' })
    expect(await db.get('SELECT 1 AS a, 2 AS b, 3 AS a')).toEqual({ a: 3, b: 2 })
  })
})

describe('NULL', () => {
  it('is set where _patches has _nulls', async () => {
    const db = await openReplica({ ddl: SEED_NULLS })
    const key = { id: 1, tenantId: 1 }
    await db.upsert('myTable', { ...key, name: 'x', deletedAt: 5 })
    await db.upsert('myTable', { ...key, name: null })
    expect(await db.all('SELECT * FROM myTable')).toEqual([{ ...key, name: null, deletedAt: 5 }])
    const patches = await log(db, 'myTable')
    expect(patches.map((patch) => patch._nulls)).toEqual([null, '["name"]'])
  })

  it('is refused where it has none, and undefined is no NULL', async () => {
    const db = await openReplica({ ddl: SEED })
    const key = { id: 1, tenantId: 1 }
    await db.upsert('myTable', { ...key, name: 'x' })
    await rejects(db.upsert('myTable', { ...key, name: null }), 'REPLIC_NULLS', '_nulls', 'name')
    await rejects(db.upsert('myTable', { ...key, name: NaN }), 'REPLIC_NULLS', '_nulls', 'name')
    await db.upsert('myTable', { ...key, name: undefined, deletedAt: 5 })
    expect(await db.all('SELECT * FROM myTable')).toEqual([{ ...key, name: 'x', deletedAt: 5 }])
  })
})

describe('shapes', () => {
  it('rows of one call may set different columns', async () => {
    const db = await openReplica({ ddl: column(['a', 'b', 'c']) })
    await db.upsert('t', [{ id: 1, a: 1 }, { b: 2, id: 2 }, { id: 3, c: null, a: 3 }, { id: 4 }])
    await db.upsert('t', { id: 1, b: 5 })
    expect(await db.all('SELECT * FROM t ORDER BY id')).toEqual([
      { id: 1, a: 1, b: 5, c: null },
      { id: 2, a: null, b: 2, c: null },
      { id: 3, a: 3, b: null, c: null },
      { id: 4, a: null, b: null, c: null },
    ])
  })

  it('rows may be of a class, and other properties than their own do not count', async () => {
    class Row {
      constructor(id) {
        this.id = id
      }
      get a() {
        return 'inherited'
      }
    }
    const db = await openReplica({ ddl: column(['a']) })
    await db.upsert('t', [new Row(1), { id: 2, a: 2 }])
    expect(await db.all('SELECT * FROM t ORDER BY id')).toEqual([
      { id: 1, a: null },
      { id: 2, a: 2 },
    ])
  })

  it('generated columns are computed, stored or not', async () => {
    const ddl = tableDdl(
      't',
      ['id INTEGER NOT NULL', 'a INTEGER', 'b AS (a + 1)', 'c AS (a * 10) STORED'],
      'id',
    )
    const db = await openReplica({ ddl })
    await db.upsert('t', { id: 1, a: 4 })
    await db.upsert('t', { id: 1, a: 5 })
    expect(await db.all('SELECT * FROM t')).toEqual([{ id: 1, a: 5, b: 6, c: 50 }])
  })

  it('200 columns', async () => {
    const names = Array.from({ length: 200 }, (_, i) => `c${i}`)
    const db = await openReplica({ ddl: column(names) })
    const row = Object.fromEntries(names.map((name, i) => [name, i]))
    await db.upsert('t', { id: 1, ...row })
    await db.upsert('t', { id: 1, c199: 'last' })
    expect(await db.get('SELECT * FROM t')).toEqual({ id: 1, ...row, c199: 'last' })
  })

  it('60 tables in one group', async () => {
    const names = Array.from({ length: 60 }, (_, i) => `t${i}`)
    const ddl = names.map((name) => tableDdl(name, ['id INTEGER NOT NULL', 'v'], 'id')).join('\n')
    const db = await openReplica({ ddl, peerId: 3 })
    const token = await db.batch((tx) => {
      for (const [i, name] of names.entries()) tx.upsert(name, { id: i, v: name })
    })
    expect(token).toBe('3.60')
    for (const [i, name] of names.entries()) {
      expect(await db.all(`SELECT * FROM ${name}`)).toEqual([{ id: i, v: name }])
    }
  })

  it('a blob of 20 MB', async () => {
    const db = await openReplica({ ddl: column(['v BLOB']) })
    const bytes = randomBytes(20_000_000)
    await db.upsert('t', { id: 1, v: bytes })
    const { v } = await db.get('SELECT v FROM t')
    expect(v.length).toBe(bytes.length)
    const hash = (data) => createHash('sha256').update(data).digest('hex')
    expect(hash(v)).toBe(hash(bytes))
  })

  it('a group beyond maxFrameBytes is refused, naming load', async () => {
    const db = await openReplica({ ddl: column(['v BLOB']), maxFrameBytes: 1000 })
    await rejects(
      db.upsert('t', { id: 1, v: randomBytes(1001) }),
      'REPLIC_TOO_LARGE',
      'load',
      '1000',
    )
    await db.upsert('t', { id: 1, v: randomBytes(500) })
    expect(await db.get('SELECT length(v) AS n FROM t')).toEqual({ n: 500 })
  })
})

describe('load', () => {
  const rows = function* (n) {
    for (let id = 1; id <= n; id++) yield { id, a: `row ${id}` }
  }

  it('stores any number of rows in groups, telling of its progress', async () => {
    const db = await openReplica({ ddl: column(['a']), peerId: 3 })
    const seen = []
    const token = await db.load('t', rows(2500), { progress: (done) => seen.push(done.rows) })
    expect(token).toBe('3.2500')
    expect(seen).toEqual([1000, 2000, 2500])
    expect(await db.get('SELECT count(*) AS n, max(id) AS last FROM t')).toEqual({
      n: 2500,
      last: 2500,
    })
  })

  it('takes async iterables, and none at all', async () => {
    const db = await openReplica({ ddl: column(['a']), peerId: 3 })
    expect(await db.load('t', [])).toBe('3.0')
    const slow = async function* () {
      yield* rows(3)
    }
    expect(await db.load('t', slow())).toBe('3.3')
    expect(await db.load('t', new Set())).toBe('3.3')
  })

  it('ends a group at about 1 MiB', async () => {
    const db = await openReplica({ ddl: column(['a']) })
    const seen = []
    const large = Array.from({ length: 5 }, (_, id) => ({ id, a: 'x'.repeat(600_000) }))
    await db.load('t', large, { progress: (done) => seen.push(done.rows) })
    expect(seen).toEqual([2, 4, 5])
  })

  it('an error of the iterable rejects after what was sent is stored', async () => {
    const db = await openReplica({ ddl: column(['a']) })
    const broken = function* () {
      yield* rows(1500)
      throw new Error('the file ends here')
    }
    const error = await rejects(
      db.load('t', broken()),
      'REPLIC_USAGE',
      'the file ends here',
      '1000 rows are stored',
    )
    expect(error.cause.message).toBe('the file ends here')
    expect(await db.get('SELECT count(*) AS n FROM t')).toEqual({ n: 1000 })
  })

  it('an error of a group keeps its code, and closes the iterable', async () => {
    const db = await openReplica({ ddl: column(['a CHECK (a <> 1500)']) })
    let closed = false
    const source = function* () {
      try {
        for (let id = 1; id <= 10_000; id++) yield { id, a: id }
      } finally {
        closed = true
      }
    }
    await rejects(db.load('t', source()), 'SQLITE_CONSTRAINT_CHECK', 'rows are stored')
    expect(closed).toBe(true)
    const { n } = await db.get('SELECT count(*) AS n FROM t')
    expect(n % 1000).toBe(0)
    expect(await db.all('SELECT id FROM t WHERE id BETWEEN 1001 AND 2000')).toEqual([])
  })

  it('stops on a signal', async () => {
    const db = await openReplica({ ddl: column(['a']) })
    const controller = new AbortController()
    const loading = db.load('t', rows(1_000_000), {
      signal: controller.signal,
      progress: () => controller.abort(new Error('enough')),
    })
    await expect(loading).rejects.toThrow('enough')
    const { n } = await db.get('SELECT count(*) AS n FROM t')
    expect(n).toBeGreaterThan(0)
    expect(n).toBeLessThan(10_000)
  })
})

describe('named parameters', () => {
  it('10,000 of them, in every kind of call: minutes, where each is looked for among all', async () => {
    const db = await openReplica({ ddl: 'CREATE TABLE own (n)' })
    const names = Array.from({ length: 10_000 }, (_, i) => `p${i}`)
    const params = Object.fromEntries(names.map((name, i) => [name, i]).reverse())
    const list = names.map((name) => `:${name}`).join()
    const query = `SELECT 9999 IN (${list}) AS found`
    for (let i = 0; i < 10; i++) expect(db.getSync(query, params)).toEqual({ found: 1 })
    expect(await db.get(query, params)).toEqual({ found: 1 })
    expect(await db.run(`INSERT INTO own SELECT 9999 IN (${list})`, params)).toMatchObject({
      changes: 1,
    })
    const { p5000, ...fewer } = params
    await rejects(db.get(query, fewer), 'REPLIC_USAGE', ':p5000 was not given')
    await rejects(db.get(query, { ...params, other: 1 }), 'REPLIC_USAGE', 'no parameter other')
  })
})

describe('iterate', () => {
  it('gives all rows, whatever their number', async () => {
    const db = await openReplica({ ddl: '' })
    const numbers =
      'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n WHERE i <= ?'
    for (const count of [0, 1, 255, 256, 257, 512, 1000]) {
      const seen = []
      for await (const { i } of db.iterate(numbers, [count, count])) seen.push(i)
      expect(seen).toEqual(Array.from({ length: count }, (_, i) => i + 1))
    }
  })

  it('reads one snapshot, while writing goes on', async () => {
    const db = await openReplica({ ddl: column(['a']) })
    await db.load(
      't',
      Array.from({ length: 1000 }, (_, id) => ({ id, a: 1 })),
    )
    const seen = []
    for await (const row of db.iterate('SELECT * FROM t')) {
      if (seen.length === 0) await db.run('UPDATE t SET a = 2', [], { unsafe: true })
      seen.push(row.a)
    }
    expect(seen).toEqual(Array(1000).fill(1))
  })

  it('gives its connection back: more loops that are left than connections', async () => {
    const db = await openReplica({ ddl: '' })
    for (let i = 0; i < 100; i++) {
      for await (const row of db.iterate('SELECT 1 AS a UNION ALL SELECT 2')) {
        expect(row).toEqual({ a: 1 })
        break
      }
    }
    const open = Array.from({ length: 64 }, () => db.iterate('SELECT 1 UNION ALL SELECT 2'))
    for (const iterator of open) await iterator.next()
    await rejects(db.iterate('SELECT 1').next(), 'REPLIC_BUSY', '64')
    await Promise.all(open.map((iterator) => iterator.return()))
    expect((await db.iterate('SELECT 1 AS a').next()).value).toEqual({ a: 1 })
  })
})

describe('direct writes', () => {
  it('to a replicated table are possible with unsafe, and are not replicated', async () => {
    const db = await openReplica({ ddl: column(['a']) })
    await db.upsert('t', { id: 1, a: 1 })
    const before = await log(db, 't')
    expect(await db.run('DELETE FROM t WHERE id = ?', [1], { unsafe: true })).toMatchObject({
      changes: 1,
    })
    expect(await db.all('SELECT * FROM t')).toEqual([])
    expect(await log(db, 't')).toEqual(before)
    expect(await db.exec('DELETE FROM t_patches', { unsafe: true })).toEqual({ changes: 1 })
  })
})

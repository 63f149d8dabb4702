// Two and three peers over real TCP.

import { randomBytes } from 'node:crypto'
import { connect as netConnect } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { connect, listen } from '../lib/transport/tcp.js'
import {
  contents,
  converged,
  eventOf,
  FAST,
  link,
  log,
  NOTES,
  openReplica,
  SEED,
  SEED_NULLS,
  synced,
  tableDdl,
} from './helpers.js'
import { startProxy } from './proxy.js'

const replicas = (n, options) =>
  Promise.all(Array.from({ length: n }, (_, i) => openReplica({ peerId: 11 + i, ...options })))
const states = (db) => db.status().links.map(({ peerId, state }) => `${peerId} ${state}`)
const many = (n, from = 0) =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text: `row ${from + i}` }))

describe('two peers', () => {
  it.each([
    ['the DDL of the seed', SEED],
    ['the same with _nulls', SEED_NULLS],
  ])('%s', async (_, ddl) => {
    const [a, b] = await replicas(2, { ddl })
    const key = { id: 1, tenantId: 1 }
    await a.upsert('myTable', [
      { ...key, name: 'before' },
      { id: 2, tenantId: 1 },
    ])
    await link(a, b)
    await synced(a, b)
    await b.upsert('myTable', { ...key, name: 'after' })
    await b.upsert('myTable', { id: 2 ** 53 - 1, tenantId: -1, name: '' })
    await a.delete('myTable', { id: 2, tenantId: 1 })
    await converged(a, b)
    expect(
      await a.all('SELECT id, tenantId, name, deletedAt IS NULL AS live FROM myTable ORDER BY id'),
    ).toEqual([
      { ...key, name: 'after', live: 1 },
      { id: 2, tenantId: 1, name: null, live: 0 },
      { id: 2 ** 53 - 1, tenantId: -1, name: '', live: 1 },
    ])
    expect(await log(a, 'myTable')).toEqual(await log(b, 'myTable'))
    expect((await log(a, 'myTable')).map((patch) => [patch._peerId, patch._sequenceId])).toEqual([
      [11, 1],
      [11, 2],
      [11, 3],
      [12, 1],
      [12, 2],
    ])
  })

  it('setting a column to NULL reaches the other', async () => {
    const [a, b] = await replicas(2, { ddl: SEED_NULLS })
    await link(a, b)
    const key = { id: 1, tenantId: 1 }
    await a.upsert('myTable', { ...key, name: 'x' })
    await synced(a, b)
    await b.upsert('myTable', { ...key, name: null })
    await synced(a, b)
    expect(await a.get('SELECT name FROM myTable')).toEqual({ name: null })
  })

  it('two columns of a row edited apart both survive', async () => {
    const [a, b] = await replicas(2)
    await a.upsert('note', { id: 1, text: 'x', size: 1 })
    const { listener, connection } = await link(a, b)
    await synced(a, b)
    await Promise.all([connection.close(), listener.close()])
    await a.upsert('note', { id: 1, text: 'by a' })
    await b.upsert('note', { id: 1, size: 2 })
    await link(a, b)
    await converged(a, b)
    expect(await a.get('SELECT text, size FROM note')).toEqual({ text: 'by a', size: 2 })
  })

  it('a column edited apart becomes the later one, a deletion and an edit meet', async () => {
    const [a, b] = await replicas(2)
    await a.upsert('note', [{ id: 1, text: 'first' }, { id: 2 }])
    await b.upsert('note', { id: 1, text: 'second' })
    await link(a, b)
    await synced(a, b)
    await Promise.all([a.delete('note', { id: 2 }), b.upsert('note', { id: 2, text: 'edited' })])
    const { note } = await converged(a, b)
    expect(note).toHaveLength(2)
    const rows = await a.all('SELECT id, text, deletedAt IS NULL AS live FROM note ORDER BY id')
    const [winner] = await a.all(
      'SELECT text FROM note_patches WHERE id = 1 ORDER BY _patchedAt DESC, _peerId DESC LIMIT 1',
    )
    expect(rows).toEqual([
      { id: 1, ...winner, live: 1 },
      { id: 2, text: 'edited', live: 0 },
    ])
  })

  it('all values arrive as they are', async () => {
    const ddl = tableDdl(
      't',
      ['id BLOB NOT NULL', 'v', '"order"', '"é"', 'g AS (typeof(v))'],
      'id',
      'WITHOUT ROWID',
    )
    const [a, b] = await replicas(2, { ddl })
    await link(a, b)
    const values = [
      2n ** 63n - 1n,
      -(2n ** 63n),
      2n ** 53n + 1n,
      2 ** 53 - 1,
      -0,
      NaN,
      Infinity,
      0.1,
      '',
      'a\0b',
      new Uint8Array(0),
      Uint8Array.of(0xff, 0xc0, 0x80),
    ]
    for (const [i, v] of values.entries())
      await a.upsert('t', { id: Uint8Array.of(i), v, order: v, é: v })
    const { t } = await converged(a, b)
    expect(t).toHaveLength(values.length)
    expect(await log(a, 't').catch((error) => error.code)).toBe('REPLIC_OUT_OF_RANGE')
    const [negative] = await b.all('SELECT v FROM t WHERE id = ?', [Uint8Array.of(4)])
    expect(Object.is(negative.v, -0)).toBe(true)
  })

  it('a blob of 20 MB, and many groups in one go', async () => {
    const ddl = tableDdl('t', ['id INTEGER NOT NULL', 'v BLOB'], 'id')
    const [a, b] = await replicas(2, { ddl })
    const bytes = randomBytes(20_000_000)
    await a.upsert('t', { id: 1, v: bytes })
    await link(a, b)
    await a.upsert('t', { id: 2, v: bytes })
    await Promise.all(many(3000, 10).map(({ id }) => b.upsert('t', { id })))
    await synced(a, b)
    const rows = await b.all('SELECT id, v FROM t WHERE v IS NOT NULL ORDER BY id')
    expect(rows.map(({ id, v }) => [id, bytes.equals(v)])).toEqual([
      [1, true],
      [2, true],
    ])
    expect(await a.get('SELECT count(*) AS n FROM t')).toEqual({ n: 3002 })
  })

  it('tells of what comes: change, synced, status', async () => {
    const [a, b] = await replicas(2)
    const localChange = eventOf(a, 'change')
    const remoteChange = eventOf(b, 'change')
    const ups = [eventOf(a, 'link'), eventOf(b, 'link')]
    await link(a, b)
    expect(await Promise.all(ups)).toMatchObject([
      { peerId: 12, state: 'up', transport: 'tcp', code: null },
      { peerId: 11, state: 'up', transport: 'tcp', code: null },
    ])
    const done = eventOf(a, 'synced')
    await a.upsert('note', { id: 1 })
    expect(await localChange).toEqual({ table: 'note', local: true, remote: false })
    expect(await remoteChange).toEqual({ table: 'note', local: false, remote: true })
    expect(await done).toMatchObject({ peerId: 12 })
    expect(a.status().links).toMatchObject([
      { peerId: 12, transport: 'tcp', state: 'ready', lastError: null },
    ])
  })

  it('synced: once on both sides after a catch-up, and after each change', async () => {
    const [a, b] = await replicas(2)
    await Promise.all([a.upsert('note', many(500)), b.upsert('note', many(500, 300))])
    const seen = []
    for (const db of [a, b]) {
      db.on('synced', ({ peerId, link }) => {
        const { vector, links } = db.status()
        seen.push({ to: peerId, vector, lag: links[0].lag, behind: links[0].behind })
        expect(link).toBe(links[0].link)
      })
    }
    const caughtUp = [eventOf(a, 'synced'), eventOf(b, 'synced')]
    await link(a, b)
    await Promise.all(caughtUp)
    const onBothSides = (vector) => [
      { to: 11, vector, lag: 0, behind: 0 },
      { to: 12, vector, lag: 0, behind: 0 },
    ]
    const taken = () => seen.splice(0).sort((x, y) => x.to - y.to)
    expect(taken()).toEqual(onBothSides({ 11: 500, 12: 500 }))
    const again = [eventOf(a, 'synced'), eventOf(b, 'synced')]
    await b.upsert('note', { id: 1 })
    await Promise.all(again)
    expect(taken()).toEqual(onBothSides({ 11: 500, 12: 501 }))
  })

  it('a group arrives whole', async () => {
    const ddl = NOTES + tableDdl('other', ['id INTEGER NOT NULL', 'v'], 'id')
    const [a, b] = await replicas(2, { ddl })
    await link(a, b)
    const counts = []
    b.on('change', () => {
      counts.push(
        b.get('SELECT (SELECT count(*) FROM note) AS note, (SELECT count(*) FROM other) AS other'),
      )
    })
    for (let i = 0; i < 20; i++) {
      await a.batch((tx) => {
        tx.upsert('note', many(50, i * 50))
        tx.upsert(
          'other',
          many(50, i * 50).map(({ id }) => ({ id })),
        )
      })
    }
    await synced(a, b)
    const seen = await Promise.all(counts)
    expect(seen.length).toBeGreaterThan(0)
    for (const { note, other } of seen) {
      expect(note % 50).toBe(0)
      expect(other).toBe(note)
    }
  })

  it('both dial each other: one link carries, the other stands by', async () => {
    const [a, b] = await replicas(2, { heartbeatMs: 20 })
    const [toA, toB] = [await listen(a), await listen(b)]
    const standby = [eventOf(a, 'link', isStandby), eventOf(b, 'link', isStandby)]
    connect(a, { port: toB.address().port, ...FAST })
    connect(b, { port: toA.address().port, ...FAST })
    await Promise.all(standby)
    await a.upsert('note', many(100))
    await b.upsert('note', many(100, 100))
    await converged(a, b)
    expect(states(a).sort()).toEqual(['12 ready', '12 standby'])
    expect(states(b).sort()).toEqual(['11 ready', '11 standby'])
  })
})

const isStandby = ({ state }) => state === 'standby'
const isDown = ({ state }) => state === 'down'

describe('three peers', () => {
  const topologies = {
    'a full mesh': [
      [0, 1],
      [0, 2],
      [1, 2],
    ],
    'a chain': [
      [0, 1],
      [1, 2],
    ],
    'a hub': [
      [1, 0],
      [2, 0],
    ],
    'a ring, each link twice': [
      [0, 1],
      [1, 2],
      [2, 0],
      [1, 0],
      [2, 1],
      [0, 2],
    ],
  }

  it.each(Object.keys(topologies))('%s', async (name) => {
    const dbs = await replicas(3)
    await Promise.all(dbs.map((db, i) => db.upsert('note', many(100, i * 50))))
    for (const [from, to] of topologies[name]) {
      const listener = await listen(dbs[to])
      connect(dbs[from], { port: listener.address().port, ...FAST })
    }
    await Promise.all(
      dbs.flatMap((db, i) => many(100, i * 30).map((row) => db.upsert('note', row))),
    )
    const { note } = await converged(...dbs)
    expect(note).toHaveLength(200)
    for (const db of dbs) expect(db.status().vector).toEqual({ 11: 200, 12: 200, 13: 200 })
  })

  it('one that comes late gets all from one of them', async () => {
    const [a, b, c] = await replicas(3)
    await link(a, b)
    await Promise.all([a.upsert('note', many(500)), b.upsert('note', many(500, 250))])
    await synced(a, b)
    await a.close()
    await link(c, b)
    const { note } = await converged(b, c)
    expect(note).toHaveLength(750)
  })
})

describe('a link that breaks', () => {
  it('is dialed again, and goes on where it was', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    const proxy = await startProxy(listener.address().port)
    connect(a, { port: proxy.port, ...FAST })
    for (let round = 0; round < 10; round++) {
      const rows = many(200, round * 200)
      const writes = rows.flatMap((row) => [
        a.upsert('note', row),
        b.upsert('note', { id: row.id, size: round }),
      ])
      await Promise.race(writes)
      const up = eventOf(a, 'link', ({ state }) => state === 'up')
      proxy.cut()
      await Promise.all(writes)
      await up
    }
    const { note } = await converged(a, b)
    expect(note).toHaveLength(2000)
  })

  it('is dialed for as long as it takes', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    const proxy = await startProxy(listener.address().port)
    proxy.refuse(true)
    let failures = 0
    const several = eventOf(a, 'link', (event) => isDown(event) && ++failures === 5)
    connect(a, { port: proxy.port, ...FAST })
    await several
    await a.upsert('note', { id: 1 })
    proxy.refuse(false)
    await synced(a, b)
    expect(await b.all('SELECT id FROM note')).toEqual([{ id: 1 }])
  })

  it('names the system’s reason', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    const { port } = listener.address()
    await listener.close()
    const down = eventOf(a, 'link', isDown)
    const connection = connect(a, {
      port,
      peerId: 12,
      ...FAST,
      retryMinMs: 60_000,
      retryMaxMs: 60_000,
    })
    expect(await down).toMatchObject({ peerId: 12, transport: 'tcp', code: 'ECONNREFUSED' })
    expect(a.status().links).toMatchObject([
      { peerId: 12, link: null, state: 'waiting', lastError: { code: 'ECONNREFUSED' } },
    ])
    await connection.close()
    expect(a.status().links).toEqual([])
  })

  it('closeRemotePeer ends it, and dials no more', async () => {
    const [a, b] = await replicas(2)
    await link(a, b)
    const down = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    expect(a.closeRemotePeer(99)).toBe(false)
    expect(a.closeRemotePeer(12)).toBe(true)
    expect(await Promise.all(down)).toMatchObject([{ peerId: 12 }, { peerId: 11 }])
    expect(a.status().links).toEqual([])
    await a.upsert('note', { id: 1 })
    await link(a, b)
    await converged(a, b)
  })

  it('a peer that closes sends what it had', async () => {
    const [a, b] = await replicas(2)
    await link(a, b)
    const token = a.upsert('note', many(500))
    const down = eventOf(b, 'link', isDown)
    await a.close()
    await down
    await b.waitFor(await token)
    expect(await b.get('SELECT count(*) AS n FROM note')).toEqual({ n: 500 })
    expect(b.status().links).toEqual([])
  })
})

describe('refused', () => {
  it('a peer that is not the expected one', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    await a.upsert('note', { id: 1 })
    connect(a, { port: listener.address().port, peerId: 13, ...FAST })
    const [near, far] = await Promise.all(downs)
    expect(near).toMatchObject({ code: 'REPLIC_PEER', state: 'down' })
    expect(near.reason).toMatch(/13/)
    expect(near.reason).toMatch(/12/)
    expect(far).toMatchObject({ code: 'REPLIC_PEER' })
    expect(b.status().vector).toEqual({})
  })

  it('a connection to itself', async () => {
    const [a] = await replicas(1)
    const listener = await listen(a)
    const down = eventOf(a, 'link', isDown)
    connect(a, { port: listener.address().port, ...FAST })
    expect((await down).code).toMatch(/^REPLIC_(PEER|FORK)$/)
    await a.upsert('note', { id: 1 })
  })

  // What a stranger may send, and words of the reason. A length is 4 bytes, big-endian.
  const frame = (length, bytes = '') =>
    Buffer.concat([Buffer.from(length, 'hex'), Buffer.from(bytes, 'hex')])
  const greeting = Buffer.from('REPLIC')
  const garbage = {
    'an HTTP request': [Buffer.from('GET / HTTP/1.1\r\n\r\n'), 'first bytes'],
    'a TLS hello': [Buffer.from('16030100', 'hex'), 'first bytes'],
    'a wrong byte at the end of the greeting': [Buffer.from('REPLIK'), 'first bytes'],
    'an empty frame': [Buffer.concat([greeting, frame('00000000')]), '0 bytes'],
    'a frame of 4 GiB': [Buffer.concat([greeting, frame('ffffffff')]), '4294967295 bytes'],
    'a frame beyond maxFrameBytes': [
      Buffer.concat([greeting, frame('04200001')]),
      '69206017 bytes',
    ],
    'a frame of garbage': [Buffer.concat([greeting, frame('00000004', 'deadbeef')]), ''],
    'a megabyte of garbage': [
      Buffer.concat([greeting, frame('00100000'), Buffer.alloc(1 << 20, 0xa5)]),
      '',
    ],
  }

  it.each(Object.keys(garbage))('%s', async (name) => {
    const [bytes, words] = garbage[name]
    const [a, b] = await replicas(2)
    const { listener } = await link(a, b)
    await a.upsert('note', { id: 1 })
    await synced(a, b)
    const before = await contents(b)
    const down = eventOf(b, 'link', isDown)
    const stranger = netConnect(listener.address().port)
    onTestFinished(() => stranger.destroy())
    const ended = new Promise((resolve) => {
      stranger.on('error', () => {}).on('close', resolve)
    })
    stranger.resume()
    stranger.write(bytes)
    const event = await down
    expect(event).toMatchObject({ peerId: null, code: 'REPLIC_PROTOCOL' })
    expect(event.reason).toContain(words)
    await ended
    expect(await contents(b)).toEqual(before)
    await a.upsert('note', { id: 2 })
    await converged(a, b)
  })

  it('what answers in another protocol', async () => {
    const [a, b] = await replicas(2)
    const { createServer } = await import('node:net')
    const server = createServer((socket) => socket.on('error', () => {}).end('SSH-2.0-x\r\n'))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => server.close())
    const down = eventOf(a, 'link', isDown)
    connect(a, { port: server.address().port, ...FAST })
    expect(await down).toMatchObject({
      code: 'REPLIC_PROTOCOL',
      reason: expect.stringContaining('REPLIC'),
    })
    await link(a, b)
  })

  it('who says nothing', async () => {
    const [b] = await replicas(1, { linkTimeoutMs: 50 })
    const listener = await listen(b)
    const down = eventOf(b, 'link', isDown)
    const stranger = netConnect(listener.address().port)
    const ended = new Promise((resolve) => stranger.on('close', resolve))
    stranger.resume()
    stranger.write('REPL')
    expect(await down).toMatchObject({
      code: 'REPLIC_TIMEOUT',
      reason: expect.stringContaining('50 ms'),
    })
    await ended
  })

  it('more connections than maxConnections', async () => {
    const [a, b, c] = await replicas(3)
    const listener = await listen(b, { maxConnections: 1 })
    const { port } = listener.address()
    const up = eventOf(b, 'link')
    connect(a, { port, ...FAST })
    await up
    const down = eventOf(c, 'link', isDown)
    const connection = connect(c, { port, ...FAST })
    await down
    await connection.close()
    expect(states(b)).toEqual(['11 ready'])
  })
})

describe('frames', () => {
  it('may arrive in any pieces', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    // Passes on from a to b byte by byte, and back in pieces of three.
    const { createServer } = await import('node:net')
    const server = createServer((near) => {
      const far = netConnect({ port: listener.address().port, noDelay: true })
      near.setNoDelay(true)
      const pieces = (from, to, size) =>
        from.on('data', (data) => {
          for (let i = 0; i < data.length; i += size) to.write(data.subarray(i, i + size))
        })
      pieces(near, far, 1)
      pieces(far, near, 3)
      const end = () => {
        near.destroy()
        far.destroy()
      }
      for (const socket of [near, far]) socket.on('error', end).on('close', end)
    })
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => server.close())
    connect(a, { port: server.address().port, ...FAST })
    await Promise.all([a.upsert('note', many(100)), b.upsert('note', many(100, 50))])
    const { note } = await converged(a, b)
    expect(note).toHaveLength(150)
  })
})

describe('closing', () => {
  it('a listener ends what it accepted', async () => {
    const [a, b] = await replicas(2)
    const { listener, connection } = await link(a, b)
    const down = eventOf(b, 'link', isDown)
    const address = listener.address()
    await listener.close()
    await down
    expect(b.status().links).toEqual([])
    expect(listener.address()).toEqual(address)
    await connection.close()
    expect(a.status().links).toEqual([])
  })

  it('a port in use', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(a)
    await expect(listen(b, { port: listener.address().port })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    })
    await b.close()
  })
})

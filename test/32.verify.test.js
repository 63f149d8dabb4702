// verify(): equal tables are found equal, and where one differs, table and key are named, whatever is
// written meanwhile and whatever a link loses.

import { EventEmitter, once } from 'node:events'
import { describe, expect, it, onTestFinished } from 'vitest'
import { withoutSum, withSum } from '../lib/base/sum.js'
import { vectorHash, vectorSum } from '../lib/verify/digest.js'
import { Verifier } from '../lib/verify/verifier.js'
import { converged, eventOf, link, NOTES, openReplica, rejects, tableDdl } from './helpers.js'

const many = (n) => Array.from({ length: n }, (_, id) => ({ id, text: `row ${id}`, size: id }))
const UNSAFE = { unsafe: true }

/** Replicas 11, 12, … with the same rows, all linked to the first. */
async function replicas(n, { ddl = NOTES, ddls, rows = many(100), table = 'note' } = {}) {
  const dbs = await Promise.all(
    Array.from({ length: n }, (_, i) =>
      openReplica({ peerId: 11 + i, ddl: ddls?.[i] ?? ddl, heartbeatMs: 20 }),
    ),
  )
  for (const db of dbs.slice(1)) await link(db, dbs[0])
  if (rows.length > 0) await dbs[0].load(table, rows)
  await settled(...dbs)
  return dbs
}

// Everything that any of them has, all have.
async function settled(...dbs) {
  for (const db of dbs) {
    const { peerId, vector } = db.status()
    const token = `${peerId}.${vector[peerId] ?? 0}`
    for (const other of dbs) if (other !== db && vector[peerId]) await other.waitFor(token, 60_000)
  }
}

const behindItsBack = (db, sql, params) => db.run(sql, params, UNSAFE)

describe('equal peers', () => {
  it('are equal', async () => {
    const [a, b, c] = await replicas(3)
    expect(await b.verify()).toEqual({
      equal: true,
      peers: [{ peerId: 11, equal: true, tables: 1, rows: 100 }],
    })
    const { equal, peers } = await a.verify()
    expect(equal).toBe(true)
    expect(peers.map(({ peerId }) => peerId).sort()).toEqual([12, 13])
    expect(await a.verify(13)).toMatchObject({ equal: true, peers: [{ peerId: 13 }] })
    expect(await c.verify(11, { timeoutMs: 60_000 })).toMatchObject({ equal: true })
  })

  it('whose files are laid out differently are equal', async () => {
    const columns = ['id INTEGER NOT NULL', 'kind TEXT NOT NULL', 'v', 'w REAL']
    const key = 'id, kind'
    const turned = [columns[3], columns[1], columns[2].toUpperCase(), columns[0], 'g AS (w * 2)']
    const [a, b] = await replicas(2, {
      ddls: [tableDdl('t', columns, key), tableDdl('T', turned, key, 'WITHOUT ROWID')],
      rows: [],
    })
    const rows = Array.from({ length: 300 }, (_, id) => ({ id, kind: 'x', v: id / 2, w: id }))
    await a.upsert('t', rows.slice(0, 200))
    const turn = ({ v, ...row }) => ({ V: v, ...row })
    await b.upsert('T', rows.slice(100).reverse().map(turn))
    await settled(a, b)
    expect(await a.verify()).toMatchObject({ equal: true, peers: [{ tables: 1, rows: 300 }] })
  })

  it('without tables, and without rows, are equal', async () => {
    const [a] = await replicas(2, { ddl: '', rows: [] })
    expect(await a.verify()).toMatchObject({ equal: true, peers: [{ tables: 0, rows: 0 }] })
    const [b] = await replicas(2, { rows: [] })
    expect(await b.verify()).toMatchObject({ equal: true, peers: [{ tables: 1, rows: 0 }] })
  })
})

describe('a difference', () => {
  const differs = async ([a, b], expected) => {
    const mirrored = { ...expected, here: expected.there, there: expected.here }
    const result = { equal: false, difference: 'row' }
    expect(await a.verify(12)).toMatchObject({
      equal: false,
      peers: [{ peerId: 12, ...result, ...expected }],
    })
    expect(await b.verify(11)).toMatchObject({
      equal: false,
      peers: [{ peerId: 11, ...result, ...mirrored }],
    })
  }
  const note = (id, here, there) => ({ table: 'note', key: { id }, here, there })
  const whole = (id) => ({ id: `${id}`, text: `'row ${id}'`, size: `${id}`, deletedAt: 'NULL' })

  it('in a value', async () => {
    const [a, b] = await replicas(2)
    await behindItsBack(b, "UPDATE note SET text = 'Row 50' WHERE id = 50")
    await differs([a, b], note(50, { text: "'row 50'" }, { text: "'Row 50'" }))
  })

  it('by a missing row, and by one too many', async () => {
    const [a, b] = await replicas(2)
    await behindItsBack(b, 'DELETE FROM note WHERE id = 7')
    await differs([a, b], note(7, whole(7), null))
    await behindItsBack(b, "INSERT INTO note (id, text, size) VALUES (7, 'row 7', 7)")
    expect(await a.verify()).toMatchObject({ equal: true })
    await behindItsBack(b, 'INSERT INTO note (id) VALUES (1000)')
    await differs([a, b], note(1000, null, { id: '1000', text: 'NULL', size: 'NULL' }))
  })

  it('by NULL instead of a value', async () => {
    const [a, b] = await replicas(2)
    await behindItsBack(b, 'UPDATE note SET size = NULL, text = NULL WHERE id = 0')
    await differs([a, b], note(0, { text: "'row 0'", size: '0' }, { text: 'NULL', size: 'NULL' }))
  })

  it('in several tables: the first is named', async () => {
    const ddl = NOTES + tableDdl('a', ['id INTEGER NOT NULL', 'v'], 'id')
    const [a, b] = await replicas(2, { ddl })
    await behindItsBack(b, 'UPDATE note SET size = 1000')
    const { peers } = await a.verify()
    expect(peers[0]).toMatchObject({ table: 'note', tables: 2, rows: 100 })
    const { id } = peers[0].key
    expect(peers[0]).toMatchObject({ here: { size: `${id}` }, there: { size: '1000' } })
    await behindItsBack(b, 'INSERT INTO a VALUES (1, 2)')
    expect((await a.verify()).peers[0]).toMatchObject({ table: 'a', key: { id: 1 } })
  })

  const KEYS = {
    'a large integer': ['INTEGER', 2n ** 62n + 1n, `${2n ** 62n + 1n}`],
    'a real': ['REAL', 0.5, '0.5'],
    'a text': ['TEXT', "it's", "'it''s'"],
    bytes: ['BLOB', Uint8Array.of(0, 255), "X'00FF'"],
  }
  it.each(Object.keys(KEYS))('in a row whose key is %s', async (name) => {
    const [type, id, literal] = KEYS[name]
    const ddl = tableDdl('t', [`id ${type} NOT NULL`, 'b TEXT NOT NULL', 'v'], 'b, id')
    const [a, b] = await replicas(2, { ddl, table: 't', rows: [{ id, b: 'x', v: 1 }] })
    await behindItsBack(b, 'UPDATE t SET v = 2')
    const key = { b: 'x', id }
    await differs([a, b], { table: 't', key, here: { v: '1' }, there: { v: '2' } })
    await behindItsBack(b, 'DELETE FROM t')
    const here = { b: "'x'", id: literal, v: '1' }
    await differs([a, b], { table: 't', key, here, there: null })
  })

  const long = 'x'.repeat(1000)
  const VALUES = {
    '1 and 1.0': [1, '1.0', '1', '1.0'],
    "1 and '1'": [1, "'1'", '1', "'1'"],
    'a text and its bytes': ['ab', "x'6162'", "'ab'", "X'6162'"],
    'an empty text and no value': ['', 'NULL', "''", 'NULL'],
    'an empty text and no bytes': ['', "x''", "''", "X''"],
    'integers beyond 2^53': [2n ** 53n, '9007199254740993', '9007199254740992', '9007199254740993'],
    'reals that differ in the last bit': [0.1, '0.10000000000000002', '0.1', '0.10000000000000002'],
    'texts with NUL': [
      'a\0b',
      "'a' || char(0) || 'c'",
      "CAST(X'610062' AS TEXT)",
      "CAST(X'610063' AS TEXT)",
    ],
    'long texts': [
      `${long}a`,
      `'${long}b'`,
      `'${'x'.repeat(100)}'… (1001 bytes)`,
      `'${'x'.repeat(100)}'… (1001 bytes)`,
    ],
  }
  it.each(Object.keys(VALUES))('between %s', async (name) => {
    const [value, sql, here, there] = VALUES[name]
    const ddl = tableDdl('t', ['id INTEGER NOT NULL', 'v', 'w'], 'id')
    const rows = [
      { id: 1, v: value, w: value },
      { id: 2, v: value },
    ]
    const [a, b] = await replicas(2, { ddl, table: 't', rows })
    expect(await a.verify()).toMatchObject({ equal: true })
    await behindItsBack(b, `UPDATE t SET v = ${sql} WHERE id = 1`)
    await differs([a, b], { table: 't', key: { id: 1 }, here: { v: here }, there: { v: there } })
  })

  it('in one of many columns, one of many rows', async () => {
    const columns = Array.from({ length: 950 }, (_, i) => `c${i} INTEGER`)
    const ddl = tableDdl('wide', ['id INTEGER NOT NULL', ...columns], 'id') + NOTES
    const [a, b] = await replicas(2, { ddl, rows: many(30_000) })
    await a.upsert('wide', { id: 1, c0: 0, c949: 949 })
    await settled(a, b)
    expect(await a.verify()).toMatchObject({ equal: true })
    await behindItsBack(b, 'UPDATE wide SET c949 = 950')
    await differs([a, b], { table: 'wide', here: { c949: '949' }, there: { c949: '950' } })
    await behindItsBack(b, 'UPDATE wide SET c949 = 949')
    await behindItsBack(b, 'UPDATE note SET size = 0 WHERE id = 12345')
    await differs([a, b], note(12345, { size: '12345' }, { size: '0' }))
  })

  it('of the schema', async () => {
    const [a, b] = await replicas(2)
    await b.migrate([
      { up: NOTES },
      { up: 'ALTER TABLE note ADD COLUMN color; ALTER TABLE note_patches ADD COLUMN color' },
    ])
    const schema = { table: 'note', difference: 'schema', key: null }
    await differs([a, b], { ...schema, here: {}, there: { color: '' } })
    const other = tableDdl('apple', ['id INTEGER NOT NULL'], 'id')
    await a.migrate([{ up: NOTES }, { up: other }])
    await differs([a, b], {
      ...schema,
      table: 'apple',
      here: { id: 'INTEGER PRIMARY KEY 1' },
      there: null,
    })
  })
})

// ---- links on which a test sees every message ----

class Socket extends EventEmitter {
  static pair(carry) {
    const ends = [new this(), new this()]
    for (const [i, end] of ends.entries()) {
      end.send = (frame) => {
        const deliver = (bytes = frame) => queueMicrotask(() => ends[1 - i].emit('message', bytes))
        carry(Buffer.from(frame), deliver)
      }
      end.close = () => {
        for (const each of ends) queueMicrotask(() => each.emit('close'))
      }
    }
    return ends
  }
}

const isPatches = (frame) => frame[1] === 2
/** The message of verify()'s in a frame; undefined if there is none. */
function messageIn(frame) {
  const at = frame.indexOf('{"')
  return frame.includes('"id":') && at >= 0 ? JSON.parse(withoutSum(frame).subarray(at)) : undefined
}

/** Two linked replicas with equal rows; from then on `carry(frame, deliver, replicas)` rules. */
async function carried(carry, options) {
  let calm = true
  const [a, b] = [
    await openReplica({ peerId: 11, heartbeatMs: 20, ...options }),
    await openReplica({ peerId: 12, heartbeatMs: 20, ...options }),
  ]
  await a.upsert('note', many(50))
  const [near, far] = Socket.pair((frame, deliver) => {
    if (calm) deliver()
    else carry(frame, deliver, [a, b])
  })
  const up = [eventOf(a, 'link'), eventOf(b, 'link')]
  a.addRemotePeer(12, near)
  b.addRemotePeer(11, far)
  await Promise.all(up)
  await converged(a, b)
  calm = false
  return [a, b]
}

describe('while', () => {
  // An answer comes when its question has been asked once more, later than a heartbeat.
  it('both are written to between all messages: one state is compared', async () => {
    let id = 1000
    let late
    const asked = []
    const seen = new Set()
    const [a, b] = await carried((frame, deliver, [a, b]) => {
      const message = messageIn(frame)
      const text = JSON.stringify(message)
      if (!message) return deliver()
      if (seen.has(text)) return late?.() // itself as if lost
      seen.add(text)
      if (message.ask) asked.push(message.ask)
      if (['compare', 'hold', 'end'].includes(message.ask)) return deliver()
      const writes = [a, b].map((db) => db.upsert('note', { id: id++, text: 'meanwhile' }))
      Promise.all(writes).then(() => {
        if (message.ask) deliver()
        else late = deliver
      })
    })
    expect(await a.verify()).toMatchObject({ equal: true, peers: [{ rows: 50 }] })
    expect(id).toBeGreaterThan(1003)
    await converged(a, b)
    await behindItsBack(b, 'UPDATE note SET size = 1 WHERE id = 33')
    expect((await a.verify()).peers).toMatchObject([
      { equal: false, table: 'note', key: { id: 33 }, here: { size: '33' }, there: { size: '1' } },
    ])
    expect(asked).toEqual(expect.arrayContaining(['tables', 'buckets', 'entries', 'row', 'end']))
  })

  it('both are written to all the time: it finds a moment', async () => {
    const [a, b] = await replicas(2)
    let done = false
    const writers = [
      [a, b],
      [b, a],
    ].map(async ([from, to], i) => {
      for (let n = 0; !done; n++) {
        await to.waitFor(await from.upsert('note', { id: 1000 + i, size: n }), 60_000)
        for (let turns = 0; turns < 50; turns++) await new Promise(setImmediate)
      }
    })
    expect(await a.verify(12, { timeoutMs: 60_000 })).toMatchObject({ equal: true })
    done = true
    await Promise.all(writers)
  })

  it('the other peer is behind: it is waited for', async () => {
    const held = []
    const [a, b] = await carried((frame, deliver) => {
      const message = messageIn(frame)
      if (held && isPatches(frame)) held.push(deliver)
      else deliver()
      if (message?.waits) for (const late of held.splice(0)) late()
    })
    await a.upsert('note', { id: 2000 })
    expect(await a.verify()).toMatchObject({ equal: true, peers: [{ rows: 51 }] })
    expect(await b.get('SELECT count(*) AS n FROM note')).toEqual({ n: 51 })
  })

  it('the other peer stays behind: an ever newer state is compared', async () => {
    const late = []
    const ids = new Set()
    const [a] = await carried((frame, deliver) => {
      const { ask, id } = messageIn(frame) ?? {}
      if (ask === 'compare') ids.add(id)
      if (isPatches(frame)) late.push(deliver)
      else deliver()
      if (ids.size > 2) for (const held of late.splice(0)) held()
    })
    await a.upsert('note', { id: 2000 })
    expect(await a.verify()).toMatchObject({ equal: true, peers: [{ rows: 51 }] })
  })

  const dice = () => {
    let state = 1
    return (sides) => {
      state = (state * 48271) % 2147483647
      return state % sides
    }
  }
  it.each(['loses every third message', 'delivers twice'])('the link %s', async (fate) => {
    const roll = dice()
    const [a, b] = await carried((_, deliver) => {
      if (fate === 'delivers twice' || roll(3)) deliver()
      if (fate === 'delivers twice') deliver()
    })
    expect(await a.verify(12, { timeoutMs: 60_000 })).toMatchObject({ equal: true })
    await behindItsBack(b, 'DELETE FROM note WHERE id = 5')
    expect(await a.verify(12, { timeoutMs: 60_000 })).toMatchObject({
      peers: [{ table: 'note', key: { id: 5 }, there: null }],
    })
  })

  it('the link breaks and comes back: it goes on', async () => {
    let broken = false
    const [a, b] = await carried((frame, deliver, [a, b]) => {
      if (broken || messageIn(frame)?.ask !== 'buckets') return deliver()
      broken = true
      a.closeRemotePeer(12)
      eventOf(a, 'link', ({ state }) => state === 'down').then(() => link(b, a))
    })
    await behindItsBack(b, 'DELETE FROM note WHERE id = 5')
    expect(await a.verify(12, { timeoutMs: 60_000 })).toMatchObject({
      peers: [{ table: 'note', key: { id: 5 }, there: null }],
    })
    expect(broken).toBe(true)
  })
})

describe('a peer that', () => {
  it('never answers', async () => {
    const [a] = await carried((frame, deliver) => {
      if (!messageIn(frame)?.re) deliver()
    })
    await rejects(a.verify(12, { timeoutMs: 100 }), 'REPLIC_TIMEOUT', 'peer 12', 'no answer', '100')
  })

  it('never has the same vector', async () => {
    const [a] = await carried((frame, deliver) => {
      if (!isPatches(frame)) deliver()
    })
    await a.upsert('note', { id: 3000 })
    await rejects(a.verify(12, { timeoutMs: 200 }), 'REPLIC_TIMEOUT', 'peer 12', 'never were equal')
  })

  it('never sends its digests', async () => {
    const [a] = await carried((frame, deliver) => {
      if (!messageIn(frame)?.tables) deliver()
    })
    await rejects(a.verify(12, { timeoutMs: 200 }), 'REPLIC_TIMEOUT', 'peer 12', 'not complete')
  })

  // Its answers replaced by others.
  const tampered = (make) => (frame, deliver) => {
    const message = messageIn(frame)
    const at = frame.indexOf('{"')
    const changed = message?.re && make(message)
    if (!changed) return deliver()
    deliver(withSum(Buffer.concat([frame.subarray(0, at), Buffer.from(changed)])))
  }
  const LIES = {
    'no list of tables': ({ re, id, n, tables }) =>
      tables && JSON.stringify({ re, id, n, tables: 5 }),
    'tables without digests': ({ re, id, n, tables }) =>
      tables && JSON.stringify({ re, id, n, tables: [[]] }),
    'no entries': ({ re, id, n, entries }) =>
      entries && JSON.stringify({ re, id, n, entries: [['x', 'y']] }),
    'no row': ({ re, id, n, row }) =>
      row && JSON.stringify({ re, id, n, row: { key: [], cells: [] } }),
  }
  it.each(Object.keys(LIES))('answers with %s', async (name) => {
    const [a, b] = await carried(tampered(LIES[name]))
    await behindItsBack(b, 'UPDATE note SET size = 0 WHERE id = 5')
    await rejects(a.verify(12, { timeoutMs: 60_000 }), 'REPLIC_PROTOCOL', 'peer 12')
    await a.upsert('note', { id: 1 })
  })

  const tooLarge = (name) => (message) =>
    message[name] && JSON.stringify({ re: 1, id: message.id, n: message.n, large: true })

  it('has answers too large to be sent', async () => {
    for (const name of ['tables', 'entries']) {
      const [a, b] = await carried(tampered(tooLarge(name)))
      await behindItsBack(b, 'UPDATE note SET size = 0 WHERE id = 5')
      if (name === 'tables') await rejects(a.verify(), 'REPLIC_TOO_LARGE', 'peer 12')
      else {
        expect((await a.verify()).peers).toMatchObject([
          { equal: false, table: 'note', difference: 'row', key: null, here: null, there: null },
        ])
      }
    }
  })

  it('sends what is no JSON is not heard', async () => {
    const [a] = await carried(tampered(() => 'nonsense'))
    await rejects(a.verify(12, { timeoutMs: 100 }), 'REPLIC_TIMEOUT', 'peer 12', 'no answer')
  })

  it('is closed meanwhile, or closes', async () => {
    const [a, b] = await carried((frame, deliver) => {
      if (!messageIn(frame)?.re) deliver()
    })
    const [ours, theirs] = [a.verify(), b.verify()]
    const outcome = Promise.all([rejects(ours, 'REPLIC_CLOSED'), rejects(theirs, 'REPLIC_CLOSED')])
    await Promise.all([a.close(), b.close()])
    await outcome
  })
})

describe('what is refused', () => {
  it('wrong arguments', async () => {
    const [a] = await replicas(2, { rows: [] })
    for (const peerId of ['12', 0, 1.5, {}, 2 ** 32]) {
      await rejects(a.verify(peerId), 'REPLIC_USAGE', 'peerId')
    }
    await rejects(a.verify(12, { timeout: 1 }), 'REPLIC_USAGE', "mean 'timeoutMs'")
    await rejects(a.verify(12, { timeoutMs: -1 }), 'REPLIC_USAGE', 'timeoutMs')
  })

  it('peers that are not linked', async () => {
    const a = await openReplica()
    await rejects(a.verify(), 'REPLIC_NOT_FOUND', 'no peer')
    const [b] = await replicas(2, { rows: [] })
    await rejects(b.verify(13), 'REPLIC_NOT_FOUND', 'peer 13')
  })
})

const MESSAGE = 10

/** A replica with a link to another one, over which a test sends MESSAGEs as if they were that one's. */
async function flooded(options) {
  const [a, b] = [
    await openReplica({ peerId: 11, ...options }),
    await openReplica({ peerId: 12, durability: 'normal', ...options }),
  ]
  const answers = new EventEmitter()
  const [near, far] = Socket.pair((frame, deliver) => {
    if (frame[1] !== MESSAGE) return deliver()
    const answer = messageIn(frame)
    answers.emit('any', answer)
    answers.emit(answer.id, answer)
  })
  let pauses = 0
  far.pause = () => pauses++
  far.resume = () => answers.emit('resumed')
  const up = eventOf(b, 'link')
  a.addRemotePeer(12, near)
  b.addRemotePeer(11, far)
  await up
  const say = (message) => {
    const bytes = Buffer.from(JSON.stringify(message))
    far.emit('message', withSum(Buffer.concat([Buffer.of(1, MESSAGE), bytes])))
  }
  const ask = (message) => {
    const answer = once(answers, message.id)
    say(message)
    return answer.then(([given]) => given)
  }
  return { a, b, answers, say, ask, pauses: () => pauses }
}

describe('a peer that floods another one with MESSAGEs', () => {
  it('is read no further before the next heartbeat', async () => {
    const { answers, say, pauses } = await flooded({ heartbeatMs: 200 })
    const taken = new Set()
    answers.on('any', ({ id }) => taken.add(id))
    const flood = (from) => {
      for (let id = from; id < from + 5000; id++) say({ id, n: 1, ask: 'tables' })
    }
    flood(0)
    expect(pauses()).toBeGreaterThan(0)
    await once(answers, 'resumed') // a heartbeat begins
    flood(5000)
    await once(answers, 'resumed')
    const ids = [...taken]
    for (const from of [0, 5000]) {
      const n = ids.filter((id) => id >= from && id < from + 5000).length
      expect(n).toBeGreaterThan(100)
      expect(n).toBeLessThanOrEqual(512)
    }
  })

  it('does not make its WAL grow', async () => {
    const { a, b, ask } = await flooded({ heartbeatMs: 1000 })
    const text = 'x'.repeat(64 * 1024)
    const holds = []
    let held
    let most = 0
    for (let id = 1; id < 600; id++) {
      await b.upsert('note', { id, text })
      await a.waitFor(`12.${id}`, 60_000)
      most = Math.max(most, b.status().walBytes)
      if (held && (await ask({ id: held, n: 1, ask: 'tables' })).gone) held = undefined
      if (held) continue
      const vector = new Map([[12, id]])
      const compare = { id, n: 0, ask: 'compare', vector: vectorHash(vector), sum: id }
      const { equal } = await ask(compare)
      if (equal) holds.push(id)
      if (equal) held = id
    }
    expect(holds.length).toBeGreaterThan(1) // the first one had to be let go of
    expect(most).toBeLessThan(40 * 2 ** 20)
  })
})

// The answering side alone, with a file that has nothing, to see what other peers make it hold.
describe('a peer that asks', () => {
  function answering({ linkTimeoutMs = 60_000, columns = [], sum } = {}) {
    const told = new EventEmitter()
    const held = new Set()
    const native = {
      snapshotOpen: async () => {
        const cursor = {
          query: async (sql) => (sql.includes('xinfo') ? TABLE(columns) : [[], true]),
          sumStart: async () => {},
          sum,
          close: async () => {
            held.delete(cursor)
            told.emit('closed')
          },
        }
        held.add(cursor)
        return cursor
      },
    }
    const answers = []
    const links = {
      message: (peerId, bytes) => {
        answers.push({ peerId, ...JSON.parse(bytes.toString()) })
        told.emit('answer', answers.at(-1))
      },
    }
    const options = { heartbeatMs: 1000, linkTimeoutMs }
    const vector = new Map()
    const wal = { bytes: 0 }
    const file = { vector: () => vector, walBytes: () => wal.bytes, isUnsure: () => false }
    const verifier = new Verifier(native, links, file, options)
    onTestFinished(() => verifier.stop(new Error('the end')))
    const once = (name) => new Promise((resolve) => told.once(name, resolve))
    const ask = (peerId, message) => {
      const answer = once('answer')
      verifier.message(peerId, Buffer.from(JSON.stringify(message)))
      return answer
    }
    return { verifier, vector, wal, held, answers, once, ask }
  }
  const TABLE = (columns) => [
    ['table', 'name', 'type', 'key'],
    true,
    ...columns.flatMap((name) => ['t', name, 'INTEGER', 1]),
  ]
  const compare = (id, positions = []) => {
    const vector = new Map(positions)
    return { id, n: 0, ask: 'compare', vector: vectorHash(vector), sum: vectorSum(vector) }
  }

  it('and falls silent is not waited for', async () => {
    const { held, once, ask } = answering({ linkTimeoutMs: 10 })
    expect(await ask(12, compare(1))).toMatchObject({ re: 1, id: 1, equal: true })
    expect(held.size).toBe(1)
    await once('closed')
    expect(held.size).toBe(0)
    expect(await ask(12, { id: 1, n: 1, ask: 'tables' })).toMatchObject({ gone: true })
  })

  it('and says that it has ended is believed', async () => {
    const { verifier, held, ask } = answering()
    await ask(12, compare(1))
    verifier.message(12, Buffer.from('{"id":1,"ask":"end"}'))
    expect(held.size).toBe(0)
  })

  it('is told where the state that it asks about had to be let go of', async () => {
    const summing = new EventEmitter()
    const sum = () => new Promise((resolve) => summing.emit('begun', resolve))
    const { verifier, wal, held, once: next, ask } = answering({ columns: ['id'], sum })
    const crowd = () => {
      wal.bytes = 2 ** 40
      verifier.advanced()
      wal.bytes = 0
    }
    const opening = ask(12, compare(1))
    crowd()
    expect(await opening).toMatchObject({ id: 1, n: 0, equal: false, busy: true })
    expect(await ask(13, compare(2))).toMatchObject({ id: 2, equal: true })
    const begun = once(summing, 'begun')
    const computing = ask(13, { id: 2, n: 1, ask: 'tables' })
    const [resolve] = await begun
    crowd()
    resolve({ rows: 1, buckets: null })
    expect(await computing).toMatchObject({ id: 2, n: 1, gone: true })
    await (held.size > 0 && next('closed'))
  })

  it('has one state held for it, however often it begins', async () => {
    const { held, ask } = answering()
    const outcomes = new Set()
    for (let id = 1; outcomes.size < 2; id++) {
      const { equal, busy } = await ask(12, compare(id))
      outcomes.add(busy ? 'busy' : equal)
      expect(held.size).toBe(busy ? 0 : 1)
    }
    expect([...outcomes]).toEqual([true, 'busy']) // it rests for as long as it has held one
  })

  it('has one answer computed for it, however often it begins', async () => {
    let go
    let slices = 0
    let begun
    const summing = new Promise((resolve) => {
      begun = resolve
    })
    const sum = () => {
      slices++
      begun()
      return new Promise((resolve) => {
        go = () => resolve({ rows: 1, buckets: null })
      })
    }
    const { held, ask, answers, verifier } = answering({ columns: ['id'], sum })
    await ask(12, compare(1))
    verifier.message(12, Buffer.from('{"id":1,"n":1,"ask":"tables"}'))
    await summing
    for (let id = 2; id < 10; id++) expect(await ask(12, compare(id))).toMatchObject({ busy: true })
    expect(held.size).toBe(0) // let go of, as soon as the slice is done
    go()
    const next = async (id) => ((await ask(12, compare(id))).busy ? next(id + 1) : id)
    await next(10)
    expect(slices).toBe(1)
    expect(answers.filter(({ tables }) => tables)).toEqual([])
  })

  it('has no state held for it once the WAL has grown', async () => {
    const { verifier, wal, held, ask } = answering()
    expect(await ask(12, compare(1))).toMatchObject({ equal: true })
    wal.bytes = 32 * 2 ** 20
    verifier.advanced()
    expect(held.size).toBe(1)
    wal.bytes++
    verifier.advanced()
    expect(held.size).toBe(0)
    expect(await ask(12, { id: 1, n: 1, ask: 'tables' })).toMatchObject({ gone: true })
    expect(await ask(13, compare(2))).toMatchObject({ equal: false, busy: true })
    wal.bytes = 0
    expect(await ask(13, compare(3))).toMatchObject({ equal: true })
  })

  it('makes the same of the side that asks', async () => {
    const { verifier, wal, held, once } = answering()
    const asked = once('answer')
    const outcome = rejects(verifier.verify([12], 200), 'REPLIC_TIMEOUT', 'try when less is')
    await asked
    expect(held.size).toBe(1)
    wal.bytes = 2 ** 30
    const [again, closed] = [once('answer'), once('closed')]
    verifier.advanced()
    await closed
    await again // with a newer state
    await outcome
  })

  it('asks what is longer than 64 KiB is not heard', async () => {
    const { verifier, answers, ask } = answering()
    const padded = (bytes) => Buffer.from(JSON.stringify(compare(1)).padEnd(bytes))
    verifier.message(12, padded(65_537))
    expect(await ask(13, compare(2))).toMatchObject({ equal: true })
    expect(answers).toHaveLength(1)
    verifier.message(12, padded(65_536))
    expect(await ask(14, compare(3))).toMatchObject({ equal: true })
    expect(answers.map(({ peerId }) => peerId).sort()).toEqual([12, 13, 14])
  })

  it('is told when there are too many', async () => {
    const { held, ask } = answering()
    for (const peerId of [1, 2, 3, 4]) await ask(peerId, compare(1))
    expect(await ask(5, compare(1))).toMatchObject({ peerId: 5, equal: false, busy: true })
    expect(held.size).toBe(4)
  })

  it('gets the same answer again, and no more than eight', async () => {
    const { ask, answers, verifier } = answering()
    await ask(12, compare(1))
    const tables = await ask(12, { id: 1, n: 1, ask: 'tables' })
    expect(await ask(12, { id: 1, n: 1, ask: 'tables' })).toEqual(tables)
    for (let n = 2; n <= 8; n++) await ask(12, { id: 1, n, ask: 'tables' })
    const before = answers.length
    verifier.message(12, Buffer.from('{"id":1,"n":9,"ask":"tables"}'))
    expect(await ask(12, { id: 2, n: 1, ask: 'tables' })).toMatchObject({ id: 2, gone: true })
    expect(answers.length).toBe(before + 1)
  })

  it('rests as long as it has taken', async () => {
    const { ask, verifier } = answering()
    await ask(12, compare(1))
    await ask(12, { id: 1, n: 1, ask: 'tables' })
    verifier.message(12, Buffer.from('{"id":1,"ask":"end"}'))
    const next = async (id) => ((await ask(12, compare(id))).busy ? next(id + 1) : id)
    expect(await next(2)).toBeGreaterThan(1) // the rest ends
  })

  it('is refused at once where this peer has more, and waited for where it has less', async () => {
    const { ask, vector, verifier, once } = answering()
    vector.set(7, 5)
    expect(await ask(12, compare(1, [[7, 4]]))).toMatchObject({ equal: false })
    expect(await ask(12, compare(2, [[7, 6]]))).toMatchObject({ waits: true })
    expect(await ask(12, compare(2, [[7, 6]]))).toMatchObject({ waits: true }) // the first was lost
    const refused = once('answer')
    vector.set(7, 7)
    verifier.advanced()
    expect(await refused).toMatchObject({ id: 2, equal: false })
  })

  it('sends nonsense is ignored', async () => {
    const { verifier, held, answers, ask, once } = answering()
    const nonsense = [
      '',
      '{',
      'null',
      '[]',
      '5',
      '{"id":1}',
      '{"id":"1","ask":"compare"}',
      '{"id":1,"ask":"compare"}',
      '{"id":1,"ask":"compare","vector":[[1,1]],"sum":1}',
      JSON.stringify({ ...compare(1), sum: -1 }),
      JSON.stringify({ ...compare(1), vector: 'x' }),
      '{"id":1,"ask":"hold"}',
      '{"id":1,"ask":"end"}',
      '{"re":1,"id":1,"n":0,"equal":true}',
    ]
    for (const text of nonsense) verifier.message(12, Buffer.from(text))
    expect(held.size).toBe(0)
    expect(answers).toMatchObject([{ gone: true }])
    await ask(12, compare(1))
    const closed = once('closed')
    verifier.message(12, Buffer.from('{"id":1,"n":1,"ask":"row","table":"x","row":"y"}'))
    await closed
    expect(held.size).toBe(0) // a question that makes no sense ends the session
  })
})

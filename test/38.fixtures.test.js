// Files and frames of earlier versions, kept as they were (fixtures/make.js): each has to be opened,
// or read, and go on. A folder of fixtures is one version.

import { EventEmitter } from 'node:events'
import { cpSync, existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { withoutSum, withSum } from '../lib/base/sum.js'
import { STEPS } from './fixtures/schema.js'
import { converged, link, openReplica, tempDir } from './helpers.js'

const FOLDER = fileURLToPath(new URL('fixtures', import.meta.url))
const versions = readdirSync(FOLDER).filter((name) => !name.endsWith('.js'))
const withFrames = versions.filter((name) => existsSync(join(FOLDER, name, 'frames.json')))
const read = (version, file) => JSON.parse(readFileSync(join(FOLDER, version, file), 'utf8'))

it('there are fixtures', () => {
  expect(versions).toContain('layout-1')
  expect(withFrames).toContain('0.1.0')
})

const show = (value) => {
  if (typeof value === 'bigint') return `integer ${value}`
  if (typeof value === 'number') return `real ${value}`
  return value instanceof Uint8Array ? `blob ${Buffer.from(value).toString('hex')}` : value
}

async function rowsOf(db, table) {
  const rows = await db.all(`SELECT * FROM ${table} ORDER BY 1`, [], { readBigInts: true })
  return rows.map((row) => Object.entries(row).map(([column, value]) => [column, show(value)]))
}

async function openCopy(version) {
  const folder = join(tempDir(), 'copy')
  cpSync(join(FOLDER, version), folder, { recursive: true })
  return openReplica({ path: join(folder, 'a.db'), ddl: '' })
}

const replicated = ({ tables }) => Object.keys(tables).filter((name) => name !== 'own')

describe.each(versions)('a database of %s', (version) => {
  const expected = read(version, 'expected.json')

  it('is opened with all that it has, as the same peer', async () => {
    const db = await openCopy(version)
    const { peerId, vector, tables } = db.status()
    expect({ peerId, vector }).toEqual({ peerId: 1, vector: expected.vector })
    expect(tables.sort()).toEqual(replicated(expected).sort())
    for (const [name, rows] of Object.entries(expected.tables)) {
      expect(await rowsOf(db, name)).toEqual(rows)
    }
  })

  it('stays opened: the second time there is nothing left to bring up to date', async () => {
    const db = await openCopy(version)
    const { path, peerId } = db.status()
    const state = (of) => of.all('SELECT * FROM sqlite_schema ORDER BY name')
    const before = await state(db)
    await db.close()
    const again = await openReplica({ path, ddl: '' })
    expect(again.status().peerId).toBe(peerId)
    expect(await state(again)).toEqual(before)
    const fresh = await openReplica({ ddl: '' })
    const internal = (of) =>
      of.all(
        "SELECT name FROM sqlite_schema WHERE name LIKE '\\_replic\\_%' ESCAPE '\\' AND type = 'table' ORDER BY name",
      )
    expect(await internal(again)).toEqual(await internal(fresh))
    for (const { name } of await internal(fresh)) {
      const columns = (of) =>
        of.all('SELECT name, type, pk FROM pragma_table_info(?) ORDER BY name', [name])
      expect(await columns(again)).toEqual(await columns(fresh))
    }
  })

  it('knows its migrations, and goes down and up again', async () => {
    const db = await openCopy(version)
    expect(await db.migrate(STEPS)).toEqual({ from: 3, to: 3 })
    expect(await db.migrate(STEPS.slice(0, 1))).toEqual({ from: 3, to: 1 })
    expect(db.status().tables).toEqual(['myTable'])
    expect(await db.migrate(STEPS)).toEqual({ from: 1, to: 3 })
    const changed = STEPS.map((step) => ({ ...step, up: `${step.up} ` }))
    await expect(db.migrate(changed)).rejects.toMatchObject({ code: 'REPLIC_MIGRATION' })
  })

  it('goes on: writes, and brings what it has to a peer of today', async () => {
    const db = await openCopy(version)
    const other = await openReplica({ ddl: '' })
    await other.migrate(STEPS)
    await db.upsert('note', { id: 1, text: 'written later' })
    await other.upsert('myTable', { id: 77, tenantId: 7, name: 'by a peer of today' })
    await link(db, other)
    const tables = await converged(db, other)
    expect(tables.note.join()).toContain('written later')
    expect(tables.myTable.join()).toContain('by a peer of today')
    expect(db.status().vector[1]).toBe(expected.vector[1] + 1)
  })
})

// Frames of before they had a sum, as they would be sent now: lists of linked peers have a number, ACK counts bytes,
// and there is a sum.
const [HELLO, ACK] = [1, 3]
function ofToday(frame) {
  if (withoutSum(frame)) return frame
  let at = 2
  const number = () => {
    let value = 0
    for (let unit = 1; ; unit *= 128) {
      const byte = frame[at++]
      value += (byte % 128) * unit
      if (byte < 128) return value
    }
  }
  const skip = (n) => {
    for (let i = 0; i < n; i++) number()
  }
  const withList = (bytes, rest = at) => [
    frame.subarray(0, at),
    Buffer.from(bytes),
    frame.subarray(rest),
  ]
  let parts = [frame]
  if (frame[1] === HELLO) {
    skip(4)
    skip(4 * number())
    parts = withList([0])
  } else if (frame[1] === ACK) {
    skip(1)
    const clock = frame.subarray(0, at)
    const from = at
    for (let list = 0; list < 3; list++) skip(2 * number())
    const lists = frame.subarray(from, at)
    const rest = frame.subarray(at + 1)
    const changes = frame[at] === 0 ? [0, 0] : [0, 1, 0, frame[at] - 1]
    parts = [clock, Buffer.from([0, 0]), lists, Buffer.from(changes), rest]
  }
  return withSum(Buffer.concat(parts))
}

// Replays what peer 1 had sent, frame by frame.
async function replay(frames) {
  const db = await openReplica({ ddl: '', peerId: 99 })
  await db.migrate(STEPS)
  const errors = []
  db.on('link', ({ state, error }) => {
    if (state === 'down') errors.push(error)
  })
  const socket = new EventEmitter()
  socket.send = () => {}
  socket.close = () => queueMicrotask(() => socket.emit('close'))
  db.addRemotePeer(1, socket)
  for (const text of frames) {
    socket.emit('message', ofToday(Buffer.from(text, 'base64')))
  }
  return { db, errors }
}

describe.each(withFrames)('frames of %s', (version) => {
  const expected = read(version, 'expected.json')
  const { live, jump } = read(version, 'frames.json')

  it('of a log that is whole are read: all that the peer itself had written', async () => {
    const { db, errors } = await replay(live)
    await db.waitFor(`1.${expected.vector[1]}`, 60_000)
    expect(errors).toEqual([])
    expect(db.status().links[0]).toMatchObject({ peerId: 1, state: 'ready' })
    const own = (table) => db.get(`SELECT count(*) AS n FROM ${table}_patches WHERE _peerId = 1`)
    expect([await own('note'), await own('myTable')]).toEqual([{ n: 5 }, { n: 2 }])
    expect(await db.get('SELECT size FROM note WHERE id = 1')).toEqual({ size: -1e300 })
  })

  it('of a jump are read: the tables are as they were there', async () => {
    const { db, errors } = await replay(jump)
    for (const [origin, sequence] of Object.entries(expected.vector)) {
      await db.waitFor(`${origin}.${sequence}`, 60_000)
    }
    expect(errors).toEqual([])
    expect(db.status().counters.jumps).toBe(1)
    for (const name of replicated(expected)) {
      expect(await rowsOf(db, name)).toEqual(expected.tables[name])
    }
  })
})

// What several tests need: directories and replicas that go away with the test, links, and waiting
// for what happens, by events only.

import { spawn } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, vi } from 'vitest'
import { Replica } from '../lib/index.js'
import { connect, listen } from '../lib/transport/tcp.js'

export { bunProgram } from './programs.js'

// Nothing is timed: this only ends a test that hangs, on a slow machine too. (Bun's test runner, for which
// `vitest` is a name of its own, is told on the command line.)
vi.setConfig?.({ testTimeout: 60_000, hookTimeout: 60_000 })

/** The DDL of SEED.md, to the letter. */
export const SEED = `
  /* Your table */
  CREATE TABLE myTable (
    id            INTEGER NOT NULL,
    tenantId      INTEGER NOT NULL,
    name          TEXT,
    deletedAt     INTEGER,
    
    PRIMARY KEY (id, tenantId)
  ) STRICT;

  /* YOU MUST CREATE THE CORRESPONDING TABLE IN YOUR MIGRATIONS */
  CREATE TABLE myTable_patches (
    _patchedAt    INTEGER  NOT NULL,
    _sequenceId   INTEGER  NOT NULL,
    _peerId       INTEGER  NOT NULL,
      
    id            INTEGER NOT NULL,
    tenantId      INTEGER NOT NULL,
    name          TEXT,
    deletedAt     INTEGER
  ) STRICT;
`

/** The same with _nulls: columns can be set to NULL. */
export const SEED_NULLS = SEED.replace(
  '_peerId       INTEGER  NOT NULL,',
  '_peerId       INTEGER  NOT NULL,\n    _nulls        TEXT,',
)

/** The DDL of a table and of its patches, from its columns ("id INTEGER NOT NULL", ...) and key. */
export function tableDdl(name, columns, key, options = '') {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`
  const isKey = (column) => key.split(', ').includes(column.split(' ')[0])
  const carried = columns
    .filter((column) => !column.includes(' AS ('))
    .map((column) => column.replace(/ (DEFAULT|CHECK) .*/, ''))
    .map((column) => (isKey(column) ? column : column.replace(' NOT NULL', '')))
  return `
    CREATE TABLE ${quoted(name)} (${columns.join(', ')}, PRIMARY KEY (${key})) ${options};
    CREATE TABLE ${quoted(`${name}_patches`)} (
      _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
      _nulls TEXT, ${carried.join(', ')}) ${options.includes('STRICT') ? 'STRICT' : ''};`
}

/** A table of notes, for tests that need any table. */
export const NOTES = tableDdl(
  'note',
  ['id INTEGER NOT NULL', 'text TEXT', 'size INTEGER CHECK (size >= 0)', 'deletedAt INTEGER'],
  'id',
)

const remove = (dir) => rmSync(dir, { recursive: true, force: true })
// Bun does what onTestFinished() was given in the order in which that was called: a folder would go before the
// replicas in it are closed, which would be told of as REPLIC_FILE_GONE. So there folders go at the end.
const leavers = process.versions.bun ? [] : undefined
if (leavers) process.on('exit', () => leavers.forEach(remove))

/** A directory that is removed after the test. */
export function tempDir() {
  const dir = mkdtempSync(join(tmpdir(), 'replic-'))
  if (leavers) leavers.push(dir)
  else onTestFinished(() => remove(dir))
  return dir
}

/** A replica in a file of its own with the tables of `ddl`; closed after the test. */
export async function openReplica({ ddl = NOTES, path, ...options } = {}) {
  const db = await Replica.open(path ?? join(tempDir(), 'a.db'), options)
  onTestFinished(() => db.close())
  if (ddl) await db.migrate([{ up: ddl }])
  return db
}

/** Links `from` to `to` over TCP and resolves when both ends are up, with { listener, connection }. */
export async function link(from, to, options) {
  const listener = await listen(to)
  const up = [eventOf(from, 'link', isUp(to)), eventOf(to, 'link', isUp(from))]
  const connection = connect(from, { port: listener.address().port, ...FAST, ...options })
  await Promise.all(up)
  return { listener, connection }
}

/**
 * Links two replicas within the process and resolves when both ends are up, with { hold(), release(),
 * close() }: while held, what `from` sends does not arrive.
 */
export async function linkHeld(from, to) {
  const [near, far] = [new EventEmitter(), new EventEmitter()]
  const up = [eventOf(from, 'link', isUp(to)), eventOf(to, 'link', isUp(from))]
  const close = () => {
    for (const end of [near, far]) queueMicrotask(() => end.emit('close'))
  }
  let holding = false
  const held = []
  const carry = (end) => (frame) => queueMicrotask(() => end.emit('message', frame))
  const deliver = carry(far)
  Object.assign(near, { send: (frame) => (holding ? held.push(frame) : deliver(frame)), close })
  Object.assign(far, { send: carry(near), close })
  from.addRemotePeer(to.status().peerId, near)
  to.addRemotePeer(from.status().peerId, far)
  await Promise.all(up)
  return {
    hold: () => {
      holding = true
    },
    release: () => {
      holding = false
      for (const frame of held.splice(0)) deliver(frame)
    },
    close,
  }
}

/** Dials again soon: for tests that cut connections. */
export const FAST = { retryMinMs: 1, retryMaxMs: 20 }

const isUp = (db) => (event) => event.state === 'up' && event.peerId === db.status().peerId

/** The next event of that name that `wanted` accepts. */
export function eventOf(db, name, wanted = () => true) {
  return new Promise((resolve) => {
    const listener = (event) => {
      if (!wanted(event)) return
      db.off(name, listener)
      resolve(event)
    }
    db.on(name, listener)
  })
}

export { until } from './until.js'

/** Resolves when every replica has all that any of them has now. */
export async function synced(...dbs) {
  const wanted = new Map()
  for (const db of dbs) {
    for (const [origin, sequence] of Object.entries(db.status().vector)) {
      wanted.set(origin, Math.max(sequence, wanted.get(origin) ?? 0))
    }
  }
  const tokens = [...wanted].map(([origin, sequence]) => `${origin}.${sequence}`)
  await Promise.all(dbs.flatMap((db) => tokens.map((token) => db.waitFor(token, 60_000))))
}

/** Waits until all are synced, and asserts that vectors and tables are equal; returns the tables. */
export async function converged(...dbs) {
  await synced(...dbs)
  const [first, ...others] = await Promise.all(dbs.map((db) => contents(db)))
  for (const other of others) expect(other).toEqual(first)
  return first.tables
}

/** Vector and rows of all replicated tables. */
export async function contents(db) {
  const { vector, tables } = db.status()
  const rows = {}
  for (const table of [...tables].sort()) {
    const quoted = `"${table.replaceAll('"', '""')}"`
    const all = await db.all(`SELECT * FROM ${quoted}`, [], { readBigInts: true })
    rows[table] = all.map((row) => stable(row)).sort()
  }
  return { vector, tables: rows }
}

// A row as text in which nothing is lost: the kind of each value, and bytes as hex.
const stable = (row) =>
  JSON.stringify(row, (_, value) => {
    if (typeof value === 'bigint') return `integer ${value}`
    if (Object.is(value, -0)) return 'real -0'
    if (typeof value === 'number') return `real ${value}`
    return value?.type === 'Buffer' ? `blob ${Buffer.from(value.data).toString('hex')}` : value
  })

/** The log of a table as it is in the file, in order of origin and sequence. */
export const log = (db, table) =>
  db.all(`SELECT * FROM "${table}_patches" ORDER BY _peerId, _sequenceId`)

/** Runs a program and resolves with { code, signal, stdout, stderr }. */
export function runProcess(command, args, options) {
  const child = startProcess(command, args, options)
  return child.ended
}

/**
 * Starts a program, which is killed after the test if it still runs. Gives { pid, kill(signal), send(line),
 * end(text), line(), ended }: line() resolves with the next line of its output, or null at its end.
 */
export function startProcess(command, args, options) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options })
  onTestFinished(() => child.kill('SIGKILL'))
  let stdout = ''
  let stderr = ''
  child.stderr.on('data', (data) => {
    stderr += data
  })
  child.stdout.on('data', (data) => {
    stdout += data
  })
  child.stdin.on('error', () => {}) // it was killed while being written to
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    pid: child.pid,
    kill: (signal = 'SIGKILL') => child.kill(signal),
    send: (text) => child.stdin.write(`${text}\n`),
    end: (text) => child.stdin.end(text),
    line: async () => {
      const { value, done } = await lines.next()
      return done ? null : value
    },
    ended: new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
    }),
  }
}

/** Whether this machine has an IPv6 address of its own, ::1. */
export const hasIPv6 = Object.values(networkInterfaces()).some((all) =>
  all.some(({ address }) => address === '::1'),
)

/** The path of a file in test/child. */
export const childPath = (name) => fileURLToPath(new URL(`./child/${name}`, import.meta.url))

/** Asserts that a promise rejects with a ReplicError of this code, whose message has `words`; returns it. */
export async function rejects(promise, code, ...words) {
  const error = await promise.then(
    (value) => expect.fail(`resolved with ${JSON.stringify(value)} instead of ${code}`),
    (reason) => reason,
  )
  expect(error.message).toBeTypeOf('string')
  expect(`${error.name} ${error.code}: ${error.message}`).toContain(`ReplicError ${code}: `)
  for (const word of words) expect(error.message).toContain(word)
  return error
}

/** As rejects(), for what throws at once. */
export function throws(call, code, ...words) {
  return rejects((async () => call())(), code, ...words)
}

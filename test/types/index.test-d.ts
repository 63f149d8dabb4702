// Checked by `tsc -p test/types`, without Node's types: the package's own must do. A wrong use is
// marked; tsc fails where one is accepted.

import {
  type ChangeEvent,
  type Compaction,
  type Counters,
  type Forgotten,
  type LinkEvent,
  type METRICS_CONTENT_TYPE,
  type patchesTable,
  Replica,
  ReplicError,
  type Status,
  type Token,
} from 'replic-sqlite'
import { type Connection, connect, type Listener, listen } from 'replic-sqlite/tcp'

type Equal<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <A, B>(_: Equal<A, B>): void => {}

interface Todo {
  id: number
  title: string | null
  done?: boolean
}

export async function opening(): Promise<void> {
  const db = await Replica.open('app.db')
  same<typeof db, Replica>(true)
  await Replica.open('app.db', { peerId: 7, durability: 'normal', readBigInts: true })
  await Replica.open('app.db', { maxPatchRetentionMs: Infinity })
  await Replica.open('app.db', {
    authorize: (peerId, { tls }) => tls?.certificate?.subject.CN === `peer-${peerId}`,
  })
  // @ts-expect-error an unknown option
  await Replica.open('app.db', { peerID: 7 })
  // @ts-expect-error one of two words
  await Replica.open('app.db', { durability: 'none' })
  // @ts-expect-error the constructor is not public
  new Replica()
  await using disposed = db
  same<typeof disposed, Replica>(true)
}

export async function writing(db: Replica, todos: Todo[], stream: AsyncIterable<Todo>) {
  const todo: Todo = { id: 1, title: null }
  const token = await db.upsert('todo', todo)
  same<typeof token, Token>(true)
  await db.upsert('todo', todos)
  await db.upsert('todo', todo, { acks: 2, timeoutMs: 1_000 })
  await db.delete('todo', { id: 1 }, { acks: 1 })
  await db.batch((tx) => tx.upsert('todo', todo), { acks: 1 })
  // @ts-expect-error: a write takes no signal
  await db.upsert('todo', todo, { signal: AbortSignal.timeout(1) })
  await db.upsert<Todo>('todo', { id: 2, title: 'x' })
  await db.upsert('todo', { id: 2n, bytes: new Uint8Array(3), n: null, missing: undefined })
  // @ts-expect-error a row is an object
  await db.upsert('todo', 'x')
  // @ts-expect-error the row is a Todo
  await db.upsert<Todo>('todo', { id: '2', title: 'x' })
  same<typeof token, Awaited<ReturnType<typeof db.delete>>>(true)
  await db.delete('todo', { id: 1 })
  await db.load('todo', stream, { progress: ({ rows }) => same<typeof rows, number>(true) })
  await db.load('todo', todos.values())
  const { totalPages } = await db.backup('copy.db', {
    progress: ({ remainingPages }) => same<typeof remainingPages, number>(true),
  })
  same<typeof totalPages, number>(true)
  const batched = await db.batch(async (tx) => {
    tx.upsert('todo', todo)
    tx.upsert('todo', todos)
    tx.delete('todo', { id: 1 })
    // @ts-expect-error no reading inside a batch
    tx.get('SELECT 1')
  })
  same<typeof batched, Token>(true)
  const { equal, peers } = await db.verify(12, { timeoutMs: 1000 })
  same<typeof equal, boolean>(true)
  for (const report of peers) if (!report.equal) same<typeof report.table, string>(true)
  await db.verify()
  await db.waitFor(token, 500)
  await db.waitFor(token, { timeoutMs: 500 })
  await db.waitFor('12.34')
}

export async function reading(db: Replica) {
  const one = await db.get<Todo>('SELECT * FROM todo WHERE id = ?', [1])
  same<typeof one, Todo | undefined>(true)
  const all = await db.all<Todo>('SELECT * FROM todo WHERE id = :id', { id: 1n })
  same<typeof all, Todo[]>(true)
  const oneNow = db.getSync<Todo>('SELECT * FROM todo WHERE id = ?', [1])
  same<typeof oneNow, Todo | undefined>(true)
  const allNow = db.allSync<Todo>('SELECT * FROM todo', [], { readBigInts: false })
  same<typeof allNow, Todo[]>(true)
  for await (const row of db.iterate<Todo>('SELECT * FROM todo')) same<typeof row, Todo>(true)
  const plain = await db.get('SELECT 1 AS n', [], { readBigInts: true })
  same<
    NonNullable<typeof plain>[string] | undefined,
    null | number | bigint | string | Uint8Array | undefined
  >(true)
  // @ts-expect-error a single parameter stands in a list
  await db.get('SELECT ?', 1)
  const { changes, lastInsertRowid } = await db.run('INSERT INTO x VALUES (?)', [1])
  same<typeof changes, number>(true)
  same<typeof lastInsertRowid, number | bigint>(true)
  await db.run('DELETE FROM todo', [], { unsafe: true })
  same<Awaited<ReturnType<typeof db.exec>>, { changes: number }>(true)
  const migrated = await db.migrate([{ up: 'CREATE TABLE x (a)', down: 'DROP TABLE x', name: 'x' }])
  same<typeof migrated, { from: number; to: number }>(true)
  const status = db.status()
  same<typeof status, Status>(true)
  same<typeof status.counters, Counters>(true)
  same<typeof status.batches.seconds.sum, number>(true)
  for (const { jump, lagMs } of status.links) {
    same<typeof jump, 'sending' | 'receiving' | null | undefined>(true)
    same<typeof lagMs, number | undefined>(true)
  }
  // @ts-expect-error no such counter
  status.counters.patchesPrunned
  same<ReturnType<typeof db.metrics>, string>(true)
  same<typeof METRICS_CONTENT_TYPE, string>(true)
  same<Awaited<ReturnType<typeof db.explain>>, string>(true)
  const compaction = await db.compact()
  same<typeof compaction, Compaction>(true)
  const { flushed, unacknowledged } = await db.close({ flushMs: 1_000 })
  same<typeof flushed, boolean>(true)
  same<typeof unacknowledged, Record<string, number>>(true)
  await db.compact({ maxPatchRetentionMs: 0 })
  const forgotten = await db.forget({ forks: true, peerId: 7 })
  same<typeof forgotten, Forgotten>(true)
  await db.forget({ origin: 7, after: 12 })
  // @ts-expect-error
  await db.forget()
  // @ts-expect-error
  await db.forget({ links: true })
  // @ts-expect-error no such option
  await db.compact({ olderThanMs: 0 })
}

export function listening(db: Replica) {
  db.on('change', (event) => same<typeof event, ChangeEvent>(true))
  db.once('link', (event) => same<typeof event, LinkEvent>(true))
  db.on('synced', ({ peerId }) => same<typeof peerId, number>(true))
  db.off('error', (error) => same<typeof error, ReplicError>(true))
  // @ts-expect-error no such event
  db.on('changed', () => {})
}

export async function linking(
  db: Replica,
  socket: { send(data: Uint8Array): void; close(): void },
) {
  db.addRemotePeer(7, { ...socket, on: () => {} })
  db.addRemotePeer(null, { ...socket, addEventListener: () => {} })
  // @ts-expect-error a peer is a number
  db.addRemotePeer('7', socket)
  same<ReturnType<typeof db.closeRemotePeer>, boolean>(true)
  await db.setSecrets(['new', new Uint8Array(32)])
  // @ts-expect-error a secret is text or bytes
  await db.setSecrets(5)
  const listener = await listen(db, { port: 0 })
  same<typeof listener, Listener>(true)
  const secure = await listen(db, { tls: { key: 'x', cert: 'y', ca: ['z'], requestCert: true } })
  secure.renew({ key: 'x', cert: 'y' })
  connect(db, { port: 1, tls: {} })
  connect(db, { port: 1, tls: { servername: 'example.com', rejectUnauthorized: false } })
  // @ts-expect-error requestCert is the listener's
  connect(db, { port: 1, tls: { requestCert: true } })
  // @ts-expect-error no such option
  await listen(db, { tls: { requestCerts: true } })
  const connection = connect(db, { port: listener.address().port, peerId: 7 })
  same<typeof connection, Connection>(true)
  // @ts-expect-error the port is required
  connect(db, {})
  await connection.close()
  await db.close({ timeoutMs: 100, flushMs: 1000 })
}

export function errors(error: unknown) {
  if (!(error instanceof ReplicError)) return
  if (error.code === 'REPLIC_BUSY' || error.code === 'SQLITE_CONSTRAINT_CHECK') return
  // @ts-expect-error no such code
  if (error.code === 'REPLIC_BUSSY') return
}

export async function migrating(db: Replica) {
  const result = await db.migrate([{ up: 'SELECT 1', down: 'SELECT 1', name: 'x' }], { to: 1 })
  same<typeof result, { from: number; to: number }>(true)
  const plan = await db.migrate([], { dryRun: true, force: true })
  for (const { version, direction, sql } of plan.steps) {
    same<typeof version, number>(true)
    same<typeof direction, 'up' | 'down' | 'note'>(true)
    same<typeof sql, string | null>(true)
  }
  await db.migrate([
    {
      up: async (tx) => {
        const todos = await tx.all<Todo>('SELECT * FROM todo WHERE id > :id', { id: 1 })
        await tx.upsert('todo', todos)
        await tx.delete('todo', { id: 1 })
        const one = await tx.get<Todo>('SELECT * FROM todo', [], { readBigInts: true })
        same<typeof one, Todo | undefined>(true)
        const { changes, lastInsertRowid } = await tx.run('DELETE FROM own')
        same<typeof changes, number>(true)
        same<typeof lastInsertRowid, number | bigint>(true)
        await tx.exec(await tx.patchesTable('todo'))
        // @ts-expect-error a step is one transaction already
        await tx.batch(() => {})
      },
      down: () => {},
      rename: { 'todo.title': 'todo.name' },
    },
  ])
  // @ts-expect-error a step needs a way up
  await db.migrate([{ down: 'SELECT 1' }])
  // @ts-expect-error an unknown option
  await db.migrate([], { dryrun: true })
  const ddl = await db.patchesTable('todo')
  same<typeof ddl, ReturnType<typeof patchesTable>>(true)
}

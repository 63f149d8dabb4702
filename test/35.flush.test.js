// close({ flushMs }): what peers have when it resolves, when it does not wait any longer, and what it says of both.
// Where it must not wait for the time to pass, that is days.

import { createServer as createHttp } from 'node:http'
import { createServer, connect as netConnect } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocketServer } from 'ws'
import { connect, listen } from '../lib/transport/tcp.js'
import * as websocket from '../lib/transport/websocket.js'
import {
  converged,
  eventOf,
  FAST,
  link,
  linkHeld,
  openReplica,
  rejects,
  synced,
  until,
} from './helpers.js'
import { startProxy } from './proxy.js'

const DAYS = 2 ** 31 - 1
const many = (n, size = 1) => Array.from({ length: n }, (_, id) => ({ id, text: 'x'.repeat(size) }))
const LARGE = 600_000 // two make a frame (1 MiB, docs/architecture.md#groups), and a window one frame
const of = (db) => (event) => event.peerId === db.status().peerId
const isState = (state) => (event) => event.state === state

// A window so small that a peer gets most only after it has acknowledged the rest.
const small = { windowBytes: 1_000, sliceBytes: 500, heartbeatMs: 20 }
const replicas = (n, options) =>
  Promise.all(
    Array.from({ length: n }, (_, i) => openReplica({ peerId: 11 + i, ...small, ...options })),
  )
const has = (db, origin) => db.status().vector[origin] ?? 0
const FLUSHED = { flushed: true, unacknowledged: {}, refusedBy: [] }
const lacks = (unacknowledged) => ({ flushed: false, unacknowledged, refusedBy: [] })
const SLOW = { retryMinMs: DAYS, retryMaxMs: DAYS } // dials again in its own time

/** A port at which nobody listens; listen(db) makes a peer listen there. */
async function freePort() {
  const server = createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return { port, listen: (db) => listen(db, { port }) }
}

/** Serves over a transport; gives the port, and what dials it. */
async function serve(db, transport) {
  if (transport === 'tcp') {
    const listener = await listen(db)
    return { port: listener.address().port, dial: (from, port) => connect(from, { port, ...FAST }) }
  }
  const server = createHttp()
  websocket.attach(db, new WebSocketServer({ server, perMessageDeflate: false }))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => server.close())
  const dial = (from, port) => websocket.connect(from, `ws://127.0.0.1:${port}`, FAST)
  return { port: server.address().port, dial }
}

/** A dialer of `db`'s that has failed to reach `port`, and waits. */
async function waiting(db, port, options) {
  const down = eventOf(db, 'link', isState('down'))
  connect(db, { port, ...SLOW, ...options })
  await down
  expect(db.status().links).toMatchObject([{ state: 'waiting' }])
}

describe('waits', () => {
  it('until linked peers have everything, calls under way included', async () => {
    const [a, b, c] = await replicas(3, { heartbeatMs: 60_000 }) // not with the next heartbeat
    await link(a, b)
    await link(c, a)
    const writes = many(20, LARGE).map((row) => a.upsert('note', row))
    await a.close({ flushMs: DAYS })
    expect(new Set(await Promise.all(writes)).size).toBe(20)
    expect([has(b, 11), has(c, 11)]).toEqual([20, 20])
    expect(await a.close()).toEqual(FLUSHED)
    expect(a.status()).toMatchObject({ state: 'closed', links: [] })
  })

  it('for a peer that is being linked', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    await a.upsert('note', { id: 1 })
    connect(a, { port: listener.address().port })
    expect(await a.close({ flushMs: DAYS })).toEqual(FLUSHED)
    expect(has(b, 11)).toBe(1)
  })

  it('for a peer that waits to dial again, which it does at once, and soon again', async () => {
    const [a, b] = await replicas(2)
    const free = await freePort()
    await a.upsert('note', many(3))
    await waiting(a, free.port)
    const failed = eventOf(a, 'link', isState('down'))
    const closing = a.close({ flushMs: DAYS })
    await failed // at once, although it would have been in days
    await free.listen(b)
    expect(await closing).toEqual(FLUSHED)
    expect(has(b, 11)).toBe(3)
  })

  it('for a dialed peer that is gone in order: its restart', async () => {
    const [a, b] = await replicas(2)
    const free = await freePort()
    await free.listen(b)
    const up = eventOf(a, 'link', isState('up'))
    connect(a, { port: free.port, ...FAST, unref: true })
    await up
    const down = eventOf(a, 'link', isState('down'))
    await b.close()
    await down
    await a.upsert('note', { id: 1 })
    const dialed = eventOf(a, 'link', isState('down'))
    const closing = a.close({ flushMs: DAYS })
    await dialed
    const again = await openReplica({ path: b.status().path, ddl: null })
    await free.listen(again)
    expect(await closing).toEqual(FLUSHED)
    expect(has(again, 11)).toBe(1)
  })

  it('for a peer that has just connected, and has not said who it is', async () => {
    const [a, b] = await replicas(2)
    const { port } = (await listen(a)).address()
    await a.upsert('note', { id: 1 })
    const somebody = netConnect(port, '127.0.0.1')
    await until(() => a.status().links.length > 0)
    const closing = a.close({ flushMs: DAYS })
    const up = eventOf(b, 'link', isState('up'))
    connect(b, { port, ...SLOW })
    await up
    somebody.destroy()
    expect(await closing).toEqual(FLUSHED)
    expect(has(b, 11)).toBe(1)
  })

  it.each(['tcp', 'websocket'])(
    'for a peer that dials this one over %s and whose link breaks',
    async (transport) => {
      const [a, b] = await replicas(2)
      const { port, dial } = await serve(a, transport)
      const proxy = await startProxy(port)
      const ups = [a, b].map((db) => eventOf(db, 'link', isState('up')))
      dial(b, proxy.port)
      await Promise.all(ups)
      const writes = many(40, LARGE).map((row) => a.upsert('note', row))
      const closing = a.close({ flushMs: DAYS })
      await until(() => has(b, 11) > 0)
      const up = eventOf(b, 'link', isState('up'))
      proxy.cut()
      await up
      expect(await closing).toEqual(FLUSHED)
      await Promise.all(writes)
      expect(has(b, 11)).toBe(40)
    },
  )

  it('not without flushMs: a peer gets the rest when it is linked again', async () => {
    const [a, b] = await replicas(2)
    await link(a, b)
    const writes = many(20, LARGE).map((row) => a.upsert('note', row))
    await a.close()
    expect(new Set(await Promise.all(writes)).size).toBe(20)
    expect(has(b, 11)).toBeLessThan(20)
    await link(b, await openReplica({ path: a.status().path, ddl: null }))
    await b.waitFor('11.20', 60_000)
  })

  it('for what it has of other peers too', async () => {
    const [a, b, c] = await replicas(3)
    const links = [await link(c, a), await link(b, a)]
    await Promise.all(many(20, LARGE).map((row) => c.upsert('note', row)))
    await synced(a, c)
    await links[0].connection.close()
    await a.close({ flushMs: DAYS })
    expect(has(b, 13)).toBe(20)
  })

  it('while a link breaks and is dialed again', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    const proxy = await startProxy(listener.address().port)
    const ups = [a, b].map((db) => eventOf(db, 'link', isState('up')))
    connect(a, { port: proxy.port, ...FAST })
    await Promise.all(ups)
    const writes = many(40, LARGE).map((row) => a.upsert('note', row))
    const closing = a.close({ flushMs: DAYS })
    await until(() => has(b, 11) > 0)
    const up = eventOf(b, 'link', isState('up'))
    proxy.cut()
    await up
    expect(a.status().state).toBe('closing')
    await Promise.all([closing, ...writes])
    expect(has(b, 11)).toBe(40)
  })

  it('for acknowledgements, and takes what peers send meanwhile', async () => {
    const [a, b] = await replicas(2)
    const connection = await linkHeld(a, b)
    connection.hold()
    await a.upsert('note', { id: 1 })
    const closing = a.close({ flushMs: DAYS })
    const change = eventOf(a, 'change')
    await b.upsert('note', { id: 2 })
    expect(await change).toMatchObject({ table: 'note', remote: true })
    expect(a.status()).toMatchObject({ state: 'closing', links: [{ lag: 1, state: 'ready' }] })
    await rejects(a.upsert('note', { id: 3 }), 'REPLIC_CLOSED')
    const arrived = eventOf(b, 'change')
    connection.release()
    await Promise.all([arrived, closing])
    expect(has(b, 11)).toBe(1)
    expect(a.status().vector).toEqual({ 11: 1, 12: 1 })
  })
})

describe('does not wait', () => {
  it('where nobody is dialed, and says what nobody has', async () => {
    const [a] = await replicas(1)
    await a.upsert('note', many(2))
    await a.upsert('note', { id: 9 })
    await listen(a) // whether anybody will come nobody can say
    expect(await a.close({ flushMs: DAYS })).toEqual(lacks({ 11: 3 }))
  })

  it('where there is nothing to give', async () => {
    const [a] = await replicas(1)
    await waiting(a, (await freePort()).port)
    expect(await a.close({ flushMs: DAYS })).toEqual(FLUSHED)
  })

  it('where all is acknowledged already, whoever ends first', async () => {
    const [a, b] = await replicas(2)
    await link(a, b)
    await link(b, a)
    await a.upsert('note', many(10))
    await converged(a, b)
    const closing = [a.close({ flushMs: DAYS }), b.close({ flushMs: DAYS })]
    expect(await Promise.all(closing)).toEqual([FLUSHED, FLUSHED])
  })

  it('for a dialed peer that had everything when it was gone', async () => {
    const [a, b, c] = await replicas(3)
    for (const db of [b, c]) {
      const up = eventOf(a, 'link', isState('up'))
      const listener = await listen(db)
      connect(a, { port: listener.address().port, ...SLOW })
      await up
    }
    await a.upsert('note', many(10))
    await converged(a, b, c)
    const down = eventOf(a, 'link', isState('down'))
    await b.close()
    await down
    expect(await a.close({ flushMs: DAYS })).toEqual(FLUSHED)
  })

  it('for a dialer whose peer is linked another way', async () => {
    const [a, b] = await replicas(2)
    const { connection } = await link(b, a)
    const up = eventOf(a, 'link', isState('standby'))
    const listener = await listen(b)
    connect(a, { port: listener.address().port, ...SLOW })
    await up
    await a.upsert('note', { id: 1 })
    const down = eventOf(a, 'link', isState('down'))
    await listener.close()
    await down
    await a.upsert('note', { id: 2 })
    expect(await a.close({ flushMs: DAYS })).toEqual(FLUSHED)
    await connection.close()
  })

  it('for a peer that has left', async () => {
    const [a, b, c] = await replicas(3)
    const held = await linkHeld(a, b)
    held.hold()
    await a.upsert('note', { id: 1 })
    const closing = a.close({ flushMs: DAYS })
    await b.close()
    expect(await closing).toEqual(lacks({ 11: 1 }))

    const { connection } = await link(await openReplica({ peerId: 20, ...small }), c)
    const writes = many(20, LARGE).map((row) => c.upsert('note', row))
    const leaving = c.close({ flushMs: DAYS })
    await connection.close() // it has dialed, and leaves in order
    expect(await leaving).toMatchObject({ flushed: false })
    await Promise.all(writes)
  })

  it('for a peer that is dialed no more', async () => {
    const [a] = await replicas(1)
    await a.upsert('note', { id: 1 })
    const connection = connect(a, { port: (await freePort()).port, ...FAST })
    const failed = eventOf(a, 'link', isState('down'))
    const closing = a.close({ flushMs: DAYS })
    await failed
    await connection.close()
    expect(await closing).toEqual(lacks({ 11: 1 }))
  })

  it('longer than flushMs', async () => {
    const [a, b] = await replicas(2)
    const connection = await linkHeld(a, b)
    connection.hold()
    await a.upsert('note', { id: 1 })
    expect(await a.close({ flushMs: 1 })).toEqual(lacks({ 11: 1 }))
    expect(has(b, 11)).toBe(0)
  })

  it('longer than flushMs for a peer that never answers, although another one has all', async () => {
    const [a, b] = await replicas(2)
    await waiting(a, (await freePort()).port)
    await link(a, b)
    const all = eventOf(a, 'synced')
    await a.upsert('note', { id: 1 })
    await all
    expect(await a.close({ flushMs: 1 })).toEqual(lacks({}))
  })

  it('longer than the most impatient of several calls', async () => {
    const [a, b] = await replicas(2)
    for (const impatient of [{}, { flushMs: 1 }, undefined]) {
      const [from, to] = impatient ? await replicas(2) : [a, b]
      const connection = await linkHeld(from, to)
      connection.hold()
      await from.upsert('note', { id: 1 })
      const calls = [from.close({ flushMs: DAYS }), from.close({ flushMs: DAYS })]
      const third = impatient ? from.close(impatient) : from[Symbol.asyncDispose]()
      expect(await Promise.all(calls)).toEqual([lacks({ 11: 1 }), lacks({ 11: 1 })])
      await third
      expect(from.status().state).toBe('closed')
      expect(has(to, 11)).toBe(0)
      await from.close({ flushMs: DAYS })
    }
  })
})

describe('says what nobody else has', () => {
  it('without flushMs, too: of every origin, since it was opened', async () => {
    const [a, b, c] = await replicas(3)
    const { connection } = await link(c, a)
    const [first, second] = [eventOf(c, 'synced'), eventOf(a, 'synced', of(b))]
    await c.upsert('note', many(4))
    await first
    await connection.close()
    await a.upsert('note', [{ id: 10 }, { id: 11 }])
    await link(a, b)
    await second
    expect(await c.close()).toEqual(FLUSHED) // a has had it
    expect(await a.close()).toEqual(FLUSHED) // c has had its own, b all
    const again = await openReplica({ path: a.status().path, ddl: null })
    expect(await again.close()).toEqual(lacks({ 11: 2, 13: 4 })) // as far as it knows
    expect(await again.close()).toEqual(lacks({ 11: 2, 13: 4 }))
  })

  it('calls under way included, and what only a part of has been acknowledged', async () => {
    const [a, b] = await replicas(2)
    const connection = await linkHeld(a, b)
    const all = eventOf(a, 'synced')
    await a.upsert('note', [{ id: 1 }, { id: 2 }])
    await all
    connection.hold()
    const writes = many(5).map((row) => a.upsert('note', row))
    expect(await a.close()).toEqual(lacks({ 11: 5 }))
    await Promise.all(writes)
  })
})

it('wrong arguments close nothing', async () => {
  const [a] = await replicas(1)
  for (const flushMs of [-1, 0.5, NaN, Infinity, 2 ** 31, '5', null, true]) {
    await rejects(a.close({ flushMs }), 'REPLIC_USAGE', 'close: flushMs', 'from 0 to 2147483647')
  }
  await rejects(a.close({ flushms: 1 }), 'REPLIC_USAGE', "did you mean 'flushMs'?")
  expect(a.status().state).toBe('open')
  await a.upsert('note', { id: 1 })
})

it('what only a peer has that may only read is not flushed', async () => {
  const hub = await openReplica({ peerId: 11, authorize: () => ({ write: false }) })
  const reader = await openReplica({ peerId: 12 })
  await link(reader, hub)
  await hub.upsert('note', { id: 1 })
  await reader.waitFor(hub.token())
  expect(await hub.close({ flushMs: DAYS })).toEqual(lacks({ 11: 1 }))
})

it('a hub that is away, and takes nothing of what is written here, is not waited for', async () => {
  const hub = await openReplica({ peerId: 11, authorize: () => ({ write: false }) })
  const reader = await openReplica({ peerId: 12 })
  await link(reader, hub)
  await hub.close()
  await until(() => reader.status().links[0]?.state === 'waiting')
  await reader.upsert('note', { id: 1 })
  expect(await reader.close({ flushMs: DAYS })).toEqual({ ...lacks({ 12: 1 }), refusedBy: [11] })
})

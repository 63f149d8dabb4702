// close({ flushMs }): what linked peers have when it resolves, and when it does not wait any longer.
// Where it must not wait for the time to pass, that is days.

import { describe, expect, it } from 'vitest'
import { connect, listen } from '../lib/transport/tcp.js'
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
const isState = (state) => (event) => event.state === state

// A window so small that a peer gets most only after it has acknowledged the rest.
const small = { windowBytes: 1_000, sliceBytes: 500, heartbeatMs: 20 }
const replicas = (n, options) =>
  Promise.all(
    Array.from({ length: n }, (_, i) => openReplica({ peerId: 11 + i, ...small, ...options })),
  )
const has = (db, origin) => db.status().vector[origin] ?? 0

describe('waits', () => {
  it('until linked peers have everything, calls under way included', async () => {
    const [a, b, c] = await replicas(3, { heartbeatMs: 60_000 }) // not with the next heartbeat
    await link(a, b)
    await link(c, a)
    const writes = many(20, LARGE).map((row) => a.upsert('note', row))
    await a.close({ flushMs: DAYS })
    expect(new Set(await Promise.all(writes)).size).toBe(20)
    expect([has(b, 11), has(c, 11)]).toEqual([20, 20])
    expect(a.status()).toMatchObject({ state: 'closed', links: [] })
  })

  it('for a peer that is being linked', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    await a.upsert('note', { id: 1 })
    connect(a, { port: listener.address().port })
    await a.close({ flushMs: DAYS })
    expect(has(b, 11)).toBe(1)
  })

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
  it('without links, or for one that never said who it is', async () => {
    const [a, b, c] = await replicas(3)
    await a.close({ flushMs: DAYS })
    await b.upsert('note', { id: 1 })
    const listener = await listen(c)
    connect(b, {
      port: listener.address().port,
      peerId: 99,
      retryMinMs: 60_000,
      retryMaxMs: 60_000,
    })
    await eventOf(b, 'link', isState('down'))
    await b.close({ flushMs: DAYS })
  })

  it('where all is acknowledged already', async () => {
    const [a, b] = await replicas(2)
    await link(a, b)
    await a.upsert('note', many(10))
    await converged(a, b)
    await Promise.all([a.close({ flushMs: DAYS }), b.close({ flushMs: DAYS })])
  })

  it('for a peer that has left', async () => {
    const [a, b, c] = await replicas(3)
    const connection = await linkHeld(a, b)
    connection.hold()
    await a.upsert('note', { id: 1 })
    const closing = a.close({ flushMs: DAYS })
    await b.close()
    await closing

    const { listener } = await link(c, await openReplica({ peerId: 20, ...small }))
    const writes = many(20, LARGE).map((row) => c.upsert('note', row))
    const leaving = c.close({ flushMs: DAYS })
    await listener.close()
    await Promise.all([leaving, ...writes])
  })

  it('longer than flushMs', async () => {
    const [a, b] = await replicas(2)
    const connection = await linkHeld(a, b)
    connection.hold()
    await a.upsert('note', { id: 1 })
    await a.close({ flushMs: 1 })
    expect(has(b, 11)).toBe(0)
  })

  it('longer than the most impatient of several calls', async () => {
    const [a, b] = await replicas(2)
    for (const impatient of [{}, { flushMs: 1 }, undefined]) {
      const [from, to] = impatient ? await replicas(2) : [a, b]
      const connection = await linkHeld(from, to)
      connection.hold()
      await from.upsert('note', { id: 1 })
      const calls = [from.close({ flushMs: DAYS }), from.close({ flushMs: DAYS })]
      calls.push(impatient ? from.close(impatient) : from[Symbol.asyncDispose]())
      await Promise.all(calls)
      expect(from.status().state).toBe('closed')
      expect(has(to, 11)).toBe(0)
      await from.close({ flushMs: DAYS })
    }
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

// The contract: what is carried, and what happens at an orderly end.

import { execPath } from 'node:process'
import { expect, it } from 'vitest'
import {
  bunProgram,
  childPath,
  converged,
  eventOf,
  runProcess,
  synced,
  tempDir,
} from '../helpers.js'
import { isDown, many, open, SECRET } from './contract.js'

export function data(adapter, { linked, listening }) {
  it('links two peers, and says who they are', async () => {
    const [a, b] = [await open(11), await open(12)]
    const { events } = await linked(a, b)
    expect(events).toMatchObject([{ peerId: 12 }, { peerId: 11 }])
    await a.upsert('note', { id: 1, text: 'a' })
    await b.upsert('note', { id: 2, text: 'b' })
    expect((await converged(a, b)).note).toHaveLength(2)
  })

  it('with one secret links', async () => {
    const [a, b] = [await open(11, { secret: SECRET }), await open(12, { secret: SECRET })]
    await linked(a, b)
    await a.upsert('note', { id: 1 })
    expect((await converged(a, b)).note).toHaveLength(1)
  })

  it('carries many patches each way, in order', async () => {
    const [a, b] = [await open(11), await open(12)]
    const n = adapter.patches ?? 100_000
    await linked(a, b)
    await Promise.all([a.load('note', many(n)), b.load('note', many(n, n))])
    await synced(a, b)
    expect(await a.verify(12)).toMatchObject({ equal: true, peers: [{ rows: 2 * n }] })
    const { framesEarly, framesDroppedEarly } = b.status().counters
    if (adapter.isOrdered) expect([framesEarly, framesDroppedEarly]).toEqual([0, 0])
  })

  it('carries a large patch', async () => {
    const [a, b] = [await open(11), await open(12)]
    await linked(a, b)
    const text = 'é'.repeat((adapter.largeBytes ?? 20_000_000) / 2)
    const token = await a.upsert('note', { id: 1, text })
    await b.waitFor(token, 60_000)
    expect((await b.get('SELECT text FROM note')).text === text).toBe(true)
  })

  it('goes on after the listener was closed and opened again', async () => {
    const [a, b] = [await open(11), await open(12)]
    const { listener } = await linked(a, b)
    const down = eventOf(a, 'link', isDown)
    await listener.close()
    await down
    await a.upsert('note', { id: 1 })
    await listening(b, { at: listener.address })
    expect((await converged(a, b)).note).toHaveLength(1)
  })

  it('ends with the replica', async () => {
    const [a, b] = [await open(11), await open(12)]
    await linked(a, b)
    const down = eventOf(a, 'link', isDown)
    await b.close()
    await down
  })

  it.each(['all', 'replicas'])('lets the process end when closed: %s', async (what) => {
    for (const program of new Set([execPath, bunProgram()])) {
      const args = [childPath('transport.js'), adapter.module, tempDir(), what]
      const outcome = { code: 0, signal: null, stdout: 'closed\n', stderr: '' }
      expect(await runProcess(program, args)).toEqual(outcome)
    }
  })
}

import { describe, expect, it } from 'vitest'
import { parseToken, Waiters } from '../lib/waiters.js'
import { link, openReplica, rejects } from './helpers.js'

describe('tokens', () => {
  it.each([
    ['1.0', 1, 0],
    ['1.1', 1, 1],
    ['4294967295.9007199254740991', 2 ** 32 - 1, 2 ** 53 - 1],
  ])('%s', (token, origin, sequence) => {
    expect(parseToken(token)).toEqual({ origin, sequence })
  })

  it.each([
    '',
    '.',
    '1',
    '1.',
    '.1',
    '0.1',
    '01.1',
    '1.01',
    '-1.1',
    '1.-1',
    '1.1.1',
    ' 1.1',
    '1.1\n',
    '1.1e3',
    '1,1',
    '٣.1',
    '4294967296.1',
    '1.9007199254740992',
    '1.99999999999999999',
    '9'.repeat(100_000),
    1.1,
    null,
    undefined,
    {},
    ['1.1'],
    Symbol('1.1'),
  ])('%j is malformed', (token) => {
    expect(() => parseToken(token)).toThrow(
      expect.objectContaining({
        code: 'REPLIC_TOKEN',
        message: expect.stringMatching(/^.{1,200}$/s),
      }),
    )
  })
})

describe('Waiters', () => {
  const options = { timeoutMs: 60_000 }

  it('wakes exactly those that are satisfied, whatever the order', async () => {
    let random = 12345
    const next = (below) => {
      random = (random * 1103515245 + 12345) % 2 ** 31
      return random % below
    }
    const waiters = new Waiters()
    const woken = new Set()
    const all = []
    for (let i = 0; i < 2000; i++) {
      const origin = 1 + next(3)
      const sequence = next(500)
      const entry = { origin, sequence }
      all.push(entry)
      waiters.wait(origin, sequence, options).then(() => woken.add(entry))
    }
    const reached = { 1: -1, 2: -1, 3: -1 }
    for (let step = 0; step < 200; step++) {
      const origin = 1 + next(3)
      reached[origin] += next(12)
      waiters.advance(origin, reached[origin])
      await null
      await null
      const expected = all.filter((entry) => entry.sequence <= reached[entry.origin])
      expect(woken.size).toBe(expected.length)
      for (const entry of expected) expect(woken.has(entry)).toBe(true)
    }
    for (const origin of [1, 2, 3]) waiters.advance(origin, 500)
    await null
    await null
    expect(woken.size).toBe(2000)
  })

  it('takes out those that are aborted, and wakes the others', async () => {
    const waiters = new Waiters()
    const outcomes = []
    const controllers = []
    for (let i = 0; i < 300; i++) {
      const controller = new AbortController()
      controllers.push(controller)
      const sequence = (i * 7919) % 300
      const waiting = waiters.wait(1, sequence, { ...options, signal: controller.signal })
      outcomes.push(
        waiting.then(
          () => 'woken',
          (reason) => reason,
        ),
      )
    }
    for (let i = 0; i < 300; i += 3) controllers[i].abort(`aborted ${i}`)
    waiters.advance(1, 300)
    const results = await Promise.all(outcomes)
    for (const [i, result] of results.entries())
      expect(result).toBe(i % 3 ? 'woken' : `aborted ${i}`)
  })

  it('fails all', async () => {
    const waiters = new Waiters()
    const waiting = [
      waiters.wait(1, 1, options),
      waiters.wait(2, 1, options),
      waiters.wait(2, 9, options),
    ]
    const outcome = Promise.allSettled(waiting)
    waiters.fail(new Error('closed'))
    for (const { reason } of await outcome) expect(reason.message).toBe('closed')
    await Promise.all([waiters.wait(2, 1, options), waiters.advance(2, 1)])
  })
})

describe('waitFor', () => {
  it('resolves at once for what is applied', async () => {
    const db = await openReplica()
    const tokens = []
    for (let id = 1; id <= 3; id++) tokens.push(await db.upsert('note', { id }))
    for (const token of tokens) await db.waitFor(token, 0)
    await db.waitFor(`${db.status().peerId}.0`, 0)
  })

  it('a write is applied once its promise has resolved', async () => {
    const db = await openReplica()
    for (let id = 0; id < 50; id++) await db.waitFor(await db.upsert('note', { id }), 0)
  })

  it('is woken by a write of this replica', async () => {
    const db = await openReplica({ peerId: 5 })
    const waiting = db.waitFor('5.3', 60_000)
    await db.upsert('note', [{ id: 1 }, { id: 2 }, { id: 3 }])
    await waiting
  })

  it('is woken by the arrival from another peer, with the rows visible', async () => {
    const [a, b] = [await openReplica(), await openReplica()]
    await link(a, b)
    for (let id = 0; id < 20; id++) {
      const token = await a.upsert('note', { id, text: `${id}` })
      await b.waitFor(token, 60_000)
      expect(await b.get('SELECT text FROM note WHERE id = ?', [id])).toEqual({ text: `${id}` })
    }
  })

  it('names what is missing when time is up', async () => {
    const db = await openReplica({ peerId: 5 })
    await db.upsert('note', { id: 1 })
    const missing =
      'waitFor: sequence 4 of peer 5 did not arrive within 1 ms; this replica has it up to 1'
    expect((await rejects(db.waitFor('5.4', 1), 'REPLIC_TIMEOUT')).message).toBe(missing)
    await rejects(db.waitFor('5.2', { timeoutMs: 0 }), 'REPLIC_TIMEOUT', 'sequence 2 of peer 5')
  })

  it('never takes an unknown peer for consistent', async () => {
    const db = await openReplica({ peerId: 5 })
    await rejects(db.waitFor('6.1', 1), 'REPLIC_TIMEOUT', 'peer 6', 'nothing')
    await rejects(db.waitFor('6.0', 1), 'REPLIC_TIMEOUT', 'peer 6', 'nothing')
  })

  it('stops on a signal', async () => {
    const db = await openReplica()
    const controller = new AbortController()
    const waiting = db.waitFor('6.1', { signal: controller.signal })
    controller.abort(new Error('gone'))
    await expect(waiting).rejects.toThrow('gone')
    await expect(db.waitFor('6.1', { signal: controller.signal })).rejects.toThrow('gone')
    await expect(db.waitFor('6.1', { signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: 'AbortError',
    })
  })

  it('100,000 waits at once', async () => {
    const db = await openReplica({ peerId: 5 })
    const waiting = Array.from({ length: 100_000 }, (_, i) =>
      db.waitFor(`5.${1 + (i % 1000)}`, 60_000),
    )
    await db.upsert(
      'note',
      Array.from({ length: 1000 }, (_, id) => ({ id })),
    )
    await Promise.all(waiting)
  })
})

import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Waiters } from '../lib/progress/waiters.js'
import { link, openReplica, rejects } from './helpers.js'

/** The timers that are set from now on and have neither fired nor been cleared. */
function watchTimers() {
  const { setTimeout: set, clearTimeout: clear } = globalThis
  const live = new Set()
  onTestFinished(() => vi.restoreAllMocks())
  vi.spyOn(globalThis, 'setTimeout').mockImplementation((fn, ms) => {
    const timer = set(() => {
      live.delete(timer)
      fn()
    }, ms)
    live.add(timer)
    return timer
  })
  vi.spyOn(globalThis, 'clearTimeout').mockImplementation((timer) => {
    live.delete(timer)
    clear(timer)
  })
  return live
}

describe('Waiters', () => {
  const options = { timeoutMs: 60_000 }

  /** A vector and who waits for it. */
  function setUp(max = 100_000) {
    const reached = { 1: -1, 2: -1, 3: -1 }
    const waiters = new Waiters((origin, sequence) => reached[origin] >= sequence, max)
    const advance = (origin, sequence) => {
      reached[origin] = sequence
      waiters.advance(origin, sequence)
    }
    return { reached, waiters, advance }
  }

  it('wakes exactly those that are satisfied, whatever the order', async () => {
    let random = 12345
    const next = (below) => {
      random = (random * 1103515245 + 12345) % 2 ** 31
      return random % below
    }
    const { reached, waiters, advance } = setUp()
    const woken = new Set()
    const all = []
    for (let i = 0; i < 2000; i++) {
      const origins = [1, 2, 3].filter(() => next(2))
      const entries = origins.map((origin) => [origin, next(500)])
      all.push(entries)
      waiters.wait(entries, options).then(() => woken.add(entries))
    }
    for (let step = 0; step < 200; step++) {
      const origin = 1 + next(3)
      advance(origin, reached[origin] + next(12))
      await null
      await null
      const expected = all.filter((entries) => entries.every(([of, n]) => n <= reached[of]))
      expect(woken.size).toBe(expected.length)
      expect(expected.every((entries) => woken.has(entries))).toBe(true)
      expect(waiters.size).toBe(2000 - woken.size)
    }
    for (const origin of [1, 2, 3]) advance(origin, 500)
    await null
    await null
    expect(woken.size).toBe(2000)
    expect(waiters.size).toBe(0)
  })

  it('takes out those that are aborted, and wakes the others', async () => {
    const { waiters, advance } = setUp()
    const outcomes = []
    const controllers = []
    for (let i = 0; i < 300; i++) {
      const controller = new AbortController()
      controllers.push(controller)
      const sequence = (i * 7919) % 300
      const waiting = waiters.wait([[1, sequence]], { ...options, signal: controller.signal })
      outcomes.push(
        waiting.then(
          () => 'woken',
          (reason) => reason,
        ),
      )
    }
    for (let i = 0; i < 300; i += 3) controllers[i].abort(`aborted ${i}`)
    advance(1, 300)
    const results = await Promise.all(outcomes)
    for (const [i, result] of results.entries())
      expect(result).toBe(i % 3 ? 'woken' : `aborted ${i}`)
  })

  it('fails all, and who comes later', async () => {
    const { waiters } = setUp()
    const lists = [
      [[1, 1]],
      [[2, 1]],
      [
        [2, 9],
        [1, 3],
      ],
    ]
    const outcome = Promise.allSettled(lists.map((entries) => waiters.wait(entries, options)))
    waiters.fail(new Error('closed'))
    for (const { reason } of await outcome) expect(reason.message).toBe('closed')
    await expect(waiters.wait([[1, 1]], options)).rejects.toThrow('closed')
    expect(waiters.size).toBe(0)
  })

  it('has one timer, whatever the number waiting, and none when nobody waits', async () => {
    const { waiters, advance } = setUp()
    const timers = watchTimers()
    const late = () => 'late'
    const waiting = Array.from({ length: 10_000 }, (_, i) =>
      waiters.wait([[1 + (i % 3), i]], { timeoutMs: 1_000_000 - i }, late),
    )
    const short = [5, 1, 3].map((timeoutMs) => waiters.wait([[1, 99_999]], { timeoutMs }, late))
    expect(timers.size).toBe(1)
    const outcomes = await Promise.allSettled(short)
    for (const outcome of outcomes) expect(outcome).toEqual({ status: 'rejected', reason: 'late' })
    expect(waiters.size).toBe(10_000)
    expect(timers.size).toBe(1)
    for (const origin of [1, 2, 3]) advance(origin, 10_000)
    await Promise.all(waiting)
    expect(timers.size).toBe(0)
  })

  it('times out in order of deadlines', async () => {
    vi.useFakeTimers()
    onTestFinished(() => vi.useRealTimers())
    const { waiters } = setUp()
    const order = []
    const one = (timeoutMs) =>
      waiters.wait([[1, 1]], { timeoutMs }, () => timeoutMs).catch((reason) => order.push(reason))
    const all = Promise.all([9, 2, 5, 1, 7, 3].map(one))
    vi.advanceTimersByTime(4)
    await Promise.allSettled([]) // what they have settled is heard of
    expect(order).toEqual([1, 2, 3])
    vi.advanceTimersByTime(5)
    await all
    expect(order).toEqual([1, 2, 3, 5, 7, 9])
  })

  it('refuses those beyond its bound at once', async () => {
    const { waiters, advance } = setUp(2)
    const waiting = [waiters.wait([[1, 1]], options), waiters.wait([[2, 1]], options)]
    await rejects(waiters.wait([[1, 5]], options), 'REPLIC_BUSY', '2 calls', 'maxWaits')
    advance(1, 1)
    await waiting[0]
    waiting.push(waiters.wait([[3, 1]], options))
    for (const origin of [2, 3]) advance(origin, 1)
    await Promise.all(waiting)
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
    await db.waitFor('6.0', 0) // asks for nothing
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

  it('holds no reading connection, queues nothing and sets one timer', async () => {
    const db = await openReplica({ peerId: 5, readers: 1 })
    const timers = watchTimers()
    const waiting = Array.from({ length: 1000 }, () => db.waitFor('5.1~6.1', 600_000))
    expect(timers.size).toBe(1)
    expect(db.status().queue).toEqual({ calls: 0, bytes: 0 })
    const outcome = Promise.allSettled(waiting)
    for (let i = 0; i < 100; i++) expect(await db.get('SELECT 1 AS a')).toEqual({ a: 1 }) // by the only one
    expect(timers.size).toBe(1)
    await db.close()
    for (const { reason } of await outcome) expect(reason).toMatchObject({ code: 'REPLIC_CLOSED' })
    expect(timers.size).toBe(0)
  })

  it('names several things that are missing, and what there is of them', async () => {
    const db = await openReplica({ peerId: 5 })
    await db.upsert('note', { id: 1 })
    const token = db.mergeTokens('5.4', '7.2', '6.1', '5.3')
    expect(token).toBe('5.4~6.1~7.2')
    expect((await rejects(db.waitFor(token, 1), 'REPLIC_TIMEOUT')).message).toBe(
      'waitFor: sequence 4 of peer 5, sequence 1 of peer 6, sequence 2 of peer 7 did not arrive within 1 ms; this ' +
        'replica has that of 5 up to 1, nothing of 6 (is there a link that leads to it?), nothing of 7 (is there ' +
        'a link that leads to it?)',
    )
  })

  it('waits for all that a merged token covers', async () => {
    const [a, b, c] = [await openReplica(), await openReplica(), await openReplica()]
    await link(a, b)
    const tokens = [await a.upsert('note', { id: 1 }), await b.upsert('note', { id: 2 })]
    const waiting = c.waitFor(c.mergeTokens(...tokens), 60_000)
    await link(c, b)
    await waiting
    expect(await c.all('SELECT id FROM note ORDER BY id')).toEqual([{ id: 1 }, { id: 2 }])
    await c.waitFor(b.token(), 60_000)
  })

  it('refuses calls beyond maxWaits', async () => {
    const db = await openReplica({ maxWaits: 3 })
    const outcome = Promise.allSettled(['6.1', '6.2', '7.1'].map((token) => db.waitFor(token)))
    await rejects(db.waitFor('6.1'), 'REPLIC_BUSY', '3 calls')
    await db.close()
    await outcome
  })

  it('no query shows what token() does not cover', async () => {
    const db = await openReplica({ peerId: 5, durability: 'normal' })
    let isWriting = true
    const reader = async () => {
      const gaps = []
      while (isWriting) {
        const { n } = await db.get('SELECT count(*) AS n FROM note')
        const [, sequence] = db.token().split('.')
        if (Number(sequence) < n) gaps.push([n, db.token()])
      }
      return gaps
    }
    const readers = Promise.all([reader(), reader(), reader()])
    for (let id = 0; id < 3000; id++) await db.upsert('note', { id })
    isWriting = false
    expect(await readers).toEqual([[], [], []])
  })
})

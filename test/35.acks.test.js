// Writes that resolve when so many peers have them on their disks: { acks, timeoutMs }, and the middleware's option.

import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readYourWrite } from '../lib/middleware/fetch.js'
import { connect, listen } from '../lib/transport/tcp.js'
import { eventOf, FAST, link, openReplica, rejects, tempDir } from './helpers.js'

const MANY = { acks: 2, timeoutMs: 60_000 }

/** A hub and `n` peers that have dialed it. */
async function star(n, options) {
  const hub = await openReplica({ peerId: 100, ...options })
  const leaves = []
  for (let i = 0; i < n; i++) {
    const leaf = await openReplica({ peerId: 101 + i })
    await link(leaf, hub)
    leaves.push(leaf)
  }
  return [hub, ...leaves]
}

/** What `call()` gives within a request that asks for so many acks. */
async function asked(db, acks, call) {
  let called
  const handler = readYourWrite(
    db,
    async () => {
      called = call()
      await called.catch(() => {})
      return new Response('ok')
    },
    { acks, acksTimeoutMs: acks > 1 ? 300 : 60_000 },
  )
  await handler(new Request('http://localhost/'))
  return called
}

describe('acks', () => {
  it('resolves once so many peers have it', async () => {
    const [hub, b, c] = await star(2)
    const writes = [
      hub.upsert('note', [{ id: 1, text: 'a' }], MANY),
      hub.batch((tx) => tx.upsert('note', { id: 2, text: 'b' }), MANY),
      hub.upsert('note', { id: 3, text: 'c' }, { acks: 1 }),
      hub.delete('note', { id: 1 }, MANY),
    ]
    const [first, , , last] = await Promise.all(writes)
    expect(first).not.toBe(last)
    for (const leaf of [b, c]) {
      expect(await leaf.get('SELECT count(*) AS n FROM note')).toEqual({ n: 3 })
      await leaf.waitFor(last, 0) // it is there already
    }
  })

  it('waits for those that link later', async () => {
    const [hub, b] = await star(1)
    const token = hub.upsert('note', { id: 1, text: 'a' }, MANY)
    await b.waitFor(await hub.upsert('note', { id: 2 }))
    const c = await openReplica({ peerId: 103 })
    await link(c, hub)
    await c.waitFor(await token, 0)
  })

  it('counts a peer once, whatever the number of its links', async () => {
    const [hub, b] = await star(1)
    await link(b, hub)
    await hub.upsert('note', { id: 1 }, { acks: 1 })
    await rejects(hub.upsert('note', { id: 1 }, { acks: 2, timeoutMs: 20 }), 'REPLIC_TIMEOUT')
  })

  it('says in time who has it, and undoes nothing', async () => {
    const [hub, b] = await star(1)
    await hub.upsert('note', { id: 1 }, { acks: 1 })
    const late = hub.upsert('note', { id: 2, text: 'b' }, { acks: 3, timeoutMs: 50 })
    const error = await late.catch((error) => error)
    expect(error).toMatchObject({ code: 'REPLIC_TIMEOUT' })
    expect(error.message).toMatch(/written here.* 50 ms 1 of the 3 peers .*\(101\).* 0 more/)
    await b.waitFor(error.token)
    expect(await b.get('SELECT text FROM note WHERE id = 2')).toEqual({ text: 'b' })
    const alone = await openReplica()
    const none = alone.upsert('note', { id: 1 }, { acks: 1, timeoutMs: 0 })
    await rejects(none, 'REPLIC_TIMEOUT', '0 of the 1 peers')
    expect(await alone.get('SELECT count(*) AS n FROM note')).toEqual({ n: 1 })
  })

  it('names who is linked and does not have it', async () => {
    const hub = await openReplica({ peerId: 100, heartbeatMs: 20, linkTimeoutMs: 60_000 })
    const b = await openReplica({ peerId: 101 })
    const [near, far] = [new EventEmitter(), new EventEmitter()]
    let isOpen = true
    near.send = (bytes) => isOpen && queueMicrotask(() => far.emit('message', bytes))
    far.send = (bytes) => queueMicrotask(() => near.emit('message', bytes))
    near.close = far.close = () => {
      for (const each of [near, far]) queueMicrotask(() => each.emit('close'))
    }
    const up = eventOf(hub, 'link', ({ state }) => state === 'up')
    hub.addRemotePeer(null, near)
    b.addRemotePeer(null, far)
    await up
    isOpen = false
    const late = hub.upsert('note', { id: 1 }, { acks: 1, timeoutMs: 20 })
    await rejects(late, 'REPLIC_TIMEOUT', '1 more are linked: 101')
  })

  it('does not count what a peer claims of another history', async () => {
    const path = join(tempDir(), 'other.db')
    const before = await openReplica({ peerId: 100, path })
    await before.upsert('note', [{ id: 7 }, { id: 8 }, { id: 9 }])
    await before.close()
    const other = await openReplica({ peerId: 101, path, ddl: null }) // it has 100.3, of that one
    const hub = await openReplica({ peerId: 100 })
    const forks = eventOf(hub, 'link', ({ code }) => code === 'REPLIC_FORK')
    const late = hub.upsert('note', { id: 1 }, { acks: 1, timeoutMs: 300 }).catch((error) => error)
    const listener = await listen(hub)
    const connection = connect(other, { port: listener.address().port, ...FAST })
    await forks
    await rejects(hub.upsert('note', { id: 2 }, { acks: 1, timeoutMs: 100 }), 'REPLIC_TIMEOUT')
    expect(await late).toMatchObject({ code: 'REPLIC_TIMEOUT' })
    await connection.close()
  })

  it('does not count who may only read', async () => {
    const authorize = (peerId) => ({ write: peerId !== 101 })
    const [hub, reader] = await star(2, { authorize })
    await hub.upsert('note', { id: 1 }, { acks: 1 })
    await reader.waitFor(hub.token())
    const late = hub.upsert('note', { id: 2 }, { acks: 2, timeoutMs: 300 })
    const { code, message } = await late.catch((error) => error)
    expect(code).toBe('REPLIC_TIMEOUT')
    expect(message).not.toContain('101') // neither as one that has it nor as one that lacks it
    await reader.waitFor(hub.token())
  })

  it('of load() are waited for once, when all is stored', async () => {
    const [hub, b] = await star(1)
    const rows = Array.from({ length: 2500 }, (_, id) => ({ id }))
    const all = await asked(hub, 1, () => hub.load('note', rows))
    await b.waitFor(all, 0)
    expect(hub.status().waits).toBe(0)
    const progress = []
    const more = rows.map(({ id }) => ({ id: id + 2500 }))
    const options = { progress: ({ rows: n }) => progress.push(n) }
    const late = asked(hub, 2, () => hub.load('note', more, options)).catch((error) => error)
    const error = await late
    expect(error).toMatchObject({ code: 'REPLIC_TIMEOUT', token: expect.any(String) })
    expect(progress.at(-1)).toBe(2500)
    await b.waitFor(error.token)
    expect(await b.get('SELECT count(*) AS n FROM note')).toEqual({ n: 5000 })
  })

  it('are as many as maxWaits at a time', async () => {
    const [hub] = await star(0, { maxWaits: 2 })
    const acks = { acks: 1, timeoutMs: 300 }
    const late = [1, 2].map((id) => hub.upsert('note', { id }, acks).catch(({ code }) => code))
    await rejects(hub.upsert('note', { id: 3 }, acks), 'REPLIC_BUSY', 'maxWaits')
    expect(hub.status().waits).toBe(2)
    expect(await Promise.all(late)).toEqual(['REPLIC_TIMEOUT', 'REPLIC_TIMEOUT'])
    expect(await hub.get('SELECT count(*) AS n FROM note')).toEqual({ n: 2 })
  })

  it('ends with the replica', async () => {
    const [hub] = await star(1)
    const late = hub.upsert('note', { id: 1 }, { acks: 2, timeoutMs: 60_000 })
    const caught = late.catch((error) => error)
    await hub.close()
    const error = await caught
    expect(error).toMatchObject({ code: 'REPLIC_CLOSED', token: expect.any(String) })
    await rejects(hub.upsert('note', { id: 1 }, MANY), 'REPLIC_CLOSED')
  })

  it('fails as the write does', async () => {
    const [hub] = await star(1)
    await rejects(hub.upsert('note', { id: 'x', text: 1 }, MANY), 'SQLITE_MISMATCH')
    await hub.upsert('note', { id: 1 }, { acks: 1 }) // and others wait as before
  })

  it('refuses what it cannot be', async () => {
    const [hub] = await star(0)
    const row = { id: 1 }
    for (const acks of [-1, 1.5, '1', null, Number.NaN]) {
      await rejects(hub.upsert('note', row, { acks }), 'REPLIC_USAGE', 'acks')
      await rejects(hub.delete('note', row, { acks }), 'REPLIC_USAGE', 'acks')
      await rejects(
        hub.batch(() => {}, { acks }),
        'REPLIC_USAGE',
        'acks',
      )
    }
    await rejects(hub.upsert('note', row, { ack: 1 }), 'REPLIC_USAGE', "'ack'", 'acks')
    await rejects(hub.upsert('note', row, row), 'REPLIC_USAGE', 'one array')
    await rejects(hub.upsert('note', row, { timeoutMs: 1 }), 'REPLIC_USAGE', 'acks')
    await rejects(hub.upsert('note', row, [row]), 'REPLIC_USAGE')
    await hub.upsert('note', row, { acks: 0 })
    await hub.upsert('note', row, {})
  })

  it('costs nothing once nobody waits', async () => {
    const [hub, b] = await star(1)
    await hub.upsert('note', { id: 1 }, { acks: 1 })
    for (let i = 0; i < 100; i++) await hub.upsert('note', { id: i })
    await hub.upsert('note', { id: 1, text: 'last' }, { acks: 1 })
    expect(await b.get('SELECT text FROM note WHERE id = 1')).toEqual({ text: 'last' })
  })
})

describe('the middleware’s acks', () => {
  const request = () => new Request('http://localhost/')

  it('holds the writes of a request until so many have them', async () => {
    const [hub, b, c] = await star(2)
    const seen = []
    const options = { acks: 2, acksTimeoutMs: 60_000 }
    const handler = readYourWrite(
      hub,
      async () => {
        await hub.upsert('note', { id: 1, text: 'a' })
        for (const leaf of [b, c]) seen.push(await leaf.get('SELECT text FROM note'))
        return new Response('ok')
      },
      options,
    )
    const response = await handler(request())
    expect(response.headers.get('x-replic-token')).toBeTruthy()
    expect(seen).toEqual([{ text: 'a' }, { text: 'a' }])
    const one = readYourWrite(hub, async () => new Response(await hub.token()), {
      ...options,
      monotonicReads: false,
    })
    expect((await one(request())).status).toBe(200)
  })

  it('is overruled by what a call says', async () => {
    const [hub] = await star(0)
    const handler = readYourWrite(
      hub,
      async () => {
        await hub.upsert('note', { id: 1 }, { acks: 0 })
        await rejects(hub.upsert('note', { id: 2 }), 'REPLIC_TIMEOUT', '1 peers')
        const sooner = hub.upsert('note', { id: 3 }, { timeoutMs: 2 })
        await rejects(sooner, 'REPLIC_TIMEOUT', 'within 2 ms')
        return new Response('ok')
      },
      { acks: 1, acksTimeoutMs: 1 },
    )
    expect((await handler(request())).status).toBe(200)
  })
})

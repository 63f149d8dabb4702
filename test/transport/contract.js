// What every transport must do, whatever it runs over. A test file calls contract(adapter), where
//
//   name, module             for messages; the adapter's own import.meta.url (a child imports it)
//   listen(db, { at })       -> { address, close() }; `at`: the address of an earlier listener
//   connect(db, address, { peerId }) -> { close() }; dials again soon
//   isOrdered                frames arrive in order, and none is lost while a connection lasts
//   authCodes                of the 'down' event after a wrong secret; default REPLIC_AUTH on both sides
//   patches, largeBytes      per direction; of one patch; defaults 100,000 and 20 MB
//   drops                    connections opened and dropped; default 10,000
//   survivesCuts             a link outlives its connections
//   start(), stop()          of a server in between; optional
//   line(address)            -> { address, cut(), refuse(bool), stall(bool), close() }; optional
//   stranger(address)        -> { write(bytes), ended, destroy() }: below the transport; optional, with
//     garbage, dripping      { name: bytes } that it sends
//   raw(address)             -> { send(frame), next(), ended, destroy() }: the transport, and no peer; optional

import { execPath } from 'node:process'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { Handshake } from '../../lib/handshake.js'
import {
  bunProgram,
  childPath,
  contents,
  converged,
  eventOf,
  openReplica,
  runProcess,
  synced,
  tempDir,
  until,
} from '../helpers.js'

const MiB = 1024 * 1024
const SECRET = 'a secret of more than sixteen bytes'
const isUp = ({ state }) => state === 'up'
const isDown = ({ state }) => state === 'down'
const many = (n, from = 0, text = 'x') =>
  Array.from({ length: n }, (_, i) => ({ id: from + i, text }))
const open = (peerId, options) => openReplica({ peerId, ...options })

export function contract(adapter) {
  const listening = async (db, options) => {
    const listener = await adapter.listen(db, options)
    onTestFinished(() => listener.close())
    return listener
  }
  const connecting = (db, address, options) => {
    const connection = adapter.connect(db, address, options)
    onTestFinished(() => connection.close())
    return connection
  }
  const lineTo = async (address) => {
    const line = await adapter.line(address)
    onTestFinished(() => line.close())
    return line
  }
  const rawTo = async (address) => {
    const raw = await adapter.raw(address)
    onTestFinished(() => raw.destroy())
    return raw
  }
  const linked = async (a, b) => {
    const listener = await listening(b)
    const up = [eventOf(a, 'link', isUp), eventOf(b, 'link', isUp)]
    const connection = connecting(a, listener.address)
    return { listener, connection, events: await Promise.all(up) }
  }
  const stillServes = async (b, address) => {
    const c = await open(13)
    connecting(c, address)
    const token = await c.upsert('note', { id: 1000 })
    await b.waitFor(token, 60_000)
  }

  describe(`${adapter.name} keeps the contract:`, () => {
    beforeAll(() => adapter.start?.())
    afterAll(() => adapter.stop?.())

    it('links two peers, and says who they are', async () => {
      const [a, b] = [await open(11), await open(12)]
      const { events } = await linked(a, b)
      expect(events).toMatchObject([{ peerId: 12 }, { peerId: 11 }])
      await a.upsert('note', { id: 1, text: 'a' })
      await b.upsert('note', { id: 2, text: 'b' })
      expect((await converged(a, b)).note).toHaveLength(2)
    })

    it('carries many patches each way', async () => {
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

    it.each([
      ['another secret', { secret: SECRET }, { secret: `${SECRET}!` }],
      ['no secret where it dials', {}, { secret: SECRET }],
      ['no secret where it listens', { secret: SECRET }, {}],
      ['no authorization', {}, { authorize: () => false }],
    ])('refuses %s', async (name, near, far) => {
      const [a, b] = [await open(11, near), await open(12, far)]
      await a.upsert('note', { id: 1 })
      const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
      const listener = await listening(b)
      connecting(a, listener.address)
      const codes = name === 'no authorization' ? ['REPLIC_AUTH'] : adapter.authCodes
      for (const { code } of await Promise.all(downs)) {
        expect(codes ?? ['REPLIC_AUTH']).toContain(code)
      }
      expect(b.status().vector).toEqual({})
    })

    it('with one secret links', async () => {
      const [a, b] = [await open(11, { secret: SECRET }), await open(12, { secret: SECRET })]
      await linked(a, b)
      await a.upsert('note', { id: 1 })
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
      for (const program of [execPath, bunProgram()]) {
        const args = [childPath('transport.js'), adapter.module, tempDir(), what]
        const outcome = { code: 0, signal: null, stdout: 'closed\n', stderr: '' }
        expect(await runProcess(program, args)).toEqual(outcome)
      }
    })

    if (adapter.line) {
      it('goes on after abrupt cuts', async () => {
        const [a, b] = [await open(11), await open(12)]
        const line = await lineTo((await listening(b)).address)
        connecting(a, line.address)
        await eventOf(a, 'link', isUp)
        for (let round = 0; round < 5; round++) {
          const up = adapter.survivesCuts ? undefined : eventOf(a, 'link', isUp)
          const writes = many(100, round * 100).map((row) => a.upsert('note', row))
          await writes[0]
          line.cut()
          await Promise.all([up, ...writes])
        }
        expect((await converged(a, b)).note).toHaveLength(500)
      })

      it('notices by heartbeats that a connection is half open', async () => {
        const options = { heartbeatMs: 20, linkTimeoutMs: 300 }
        const [a, b] = [await open(11, options), await open(12, options)]
        const line = await lineTo((await listening(b)).address)
        connecting(a, line.address)
        await eventOf(a, 'link', isUp)
        const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
        line.stall(true)
        expect((await Promise.all(downs)).map(({ code }) => code)).toContain('REPLIC_TIMEOUT')
        line.stall(false)
        await a.upsert('note', { id: 1 })
        await converged(a, b)
      })

      it('keeps a bounded amount for a reader that stalls, and serves the others', async () => {
        const limits = { windowBytes: MiB, heartbeatMs: 50, linkTimeoutMs: 60_000 }
        const [a, b, c] = [await open(11, limits), await open(12, limits), await open(13, limits)]
        const { address } = await listening(a)
        const line = await lineTo(address)
        connecting(b, line.address)
        await eventOf(b, 'link', isUp)
        connecting(c, address)
        await eventOf(c, 'link', isUp)
        line.stall(true)
        for (let i = 0; i < 16; i++) await a.upsert('note', many(50, i * 50, 'x'.repeat(20_000)))
        await synced(a, c)
        const { unackedBytes } = a.status().links.find(({ peerId }) => peerId === 12)
        expect(unackedBytes).toBeLessThan(limits.windowBytes + 2 * MiB) // a group is 1 MB
        line.stall(false)
        await converged(a, b, c)
      })

      it('takes over at once where a second link stands by', async () => {
        const options = { heartbeatMs: 60_000, linkTimeoutMs: 600_000 }
        const [a, b] = [await open(11, options), await open(12, options)]
        const line = await lineTo((await listening(b)).address)
        connecting(a, line.address)
        await eventOf(a, 'link', isUp)
        const standby = eventOf(a, 'link', ({ state }) => state === 'standby')
        connecting(a, (await listening(b)).address)
        const { link } = await standby
        line.refuse(true)
        const up = eventOf(a, 'link', isUp)
        line.cut()
        expect(await up).toMatchObject({ link, peerId: 12 })
        await a.upsert('note', { id: 1 })
        await converged(a, b)
      })
    }

    if (adapter.stranger) {
      it.each(Object.keys(adapter.garbage))('ends %s', async (name) => {
        const b = await open(12)
        const { address } = await listening(b)
        const before = await contents(b)
        const stranger = await adapter.stranger(address)
        stranger.write(adapter.garbage[name])
        await stranger.ended
        expect(await contents(b)).toEqual(before)
        await stillServes(b, address)
      })

      it.each(Object.keys(adapter.dripping))('ends who sends slowly %s', async (name) => {
        const b = await open(12, { linkTimeoutMs: 100, heartbeatMs: 20 })
        const { address } = await listening(b)
        const stranger = await adapter.stranger(address)
        let isOver = false
        stranger.ended.then(() => {
          isOver = true
        })
        stranger.write(adapter.dripping[name])
        await until(() => {
          if (!isOver && name.startsWith('within')) stranger.write(Uint8Array.of(1))
          return isOver
        })
        await until(() => b.status().links.length === 0)
      })
    }

    if (adapter.raw) {
      it('ends garbage after authentication', async () => {
        const b = await open(12, { secret: SECRET })
        const { address } = await listening(b)
        const raw = await rawTo(address)
        const send = (frame) => raw.send(frame)
        const proof = new Handshake({ secret: SECRET, peerId: 11, provesFirst: true, send })
        proof.challenge()
        while (proof.peerId === undefined) proof.take(await raw.next())
        const down = eventOf(b, 'link', isDown)
        raw.send(Buffer.from('deadbeef', 'hex'))
        expect((await down).code).toMatch(/^REPLIC_(PROTOCOL|VERSION)$/)
        await raw.ended
      })

      it('is none the worse for connections that were opened and dropped', async () => {
        const b = await open(12)
        const { address } = await listening(b)
        for (let i = 0; i < (adapter.drops ?? 10_000); i += 50) {
          const raws = await Promise.all(Array.from({ length: 50 }, () => adapter.raw(address)))
          for (const raw of raws) raw.destroy()
          await Promise.all(raws.map((raw) => raw.ended))
        }
        await until(() => b.status().links.length === 0)
        await stillServes(b, address)
      })

      it('permits maxPendingLinks strangers', async () => {
        const b = await open(12, { maxPendingLinks: 2 })
        const { address } = await listening(b)
        const pending = [await rawTo(address), await rawTo(address)]
        await until(() => b.status().links.length === 2)
        await (await rawTo(address)).ended
        for (const raw of pending) raw.destroy()
        await stillServes(b, address)
      })
    }
  })
}

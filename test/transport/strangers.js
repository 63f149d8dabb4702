// The contract: what strangers may do, below the transport and above it, in every state of a link.

import { expect, it } from 'vitest'
import { withSum } from '../../lib/base/sum.js'
import { contents, converged, eventOf, until } from '../helpers.js'
import { isDown, many, open, SECRET } from './contract.js'
import { proven, relay } from './raw.js'

const noLinks = (db) => until(() => db.status().links.every(({ state }) => state === 'waiting'))

export function strangers(adapter, tools) {
  const { has, listening, connecting, rawTo, stillServes } = tools

  if (has('stranger')) {
    it.each(Object.keys(adapter.garbage))('ends %s', async (name) => {
      const b = await open(12)
      const listener = await listening(b)
      const before = await contents(b)
      const stranger = await adapter.stranger(listener.address, listener)
      stranger.write(adapter.garbage[name])
      await stranger.ended
      stranger.destroy()
      expect(await contents(b)).toEqual(before)
      await stillServes(b, listener.address)
    })
  }

  if (has('dripping')) {
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
      await noLinks(b)
    })
  }

  const frames = {
    'no frame': Buffer.from('deadbeef', 'hex'),
    'a frame of a type that there is not': Buffer.from('01ff00', 'hex'),
    'a HELLO that ends too early': Buffer.from('010101', 'hex'),
    'a megabyte of noise': Buffer.alloc(1_000_000, 0xa5),
  }
  it.each(Object.keys(frames))('ends who sends %s instead of HELLO', async (name) => {
    const b = await open(12)
    const { address } = await listening(b)
    const raw = await (await rawTo(address))()
    const down = eventOf(b, 'link', isDown)
    raw.send(frames[name])
    expect((await down).code).toMatch(/^REPLIC_(PROTOCOL|VERSION)$/)
    await raw.ended
    await stillServes(b, address)
  })

  it('ends garbage after authentication', async () => {
    const b = await open(12, { secret: SECRET })
    const { address } = await listening(b)
    const raw = await (await rawTo(address, { secret: SECRET }))()
    const down = eventOf(b, 'link', isDown)
    const peer = await proven(raw, SECRET)
    peer.send(Buffer.from('deadbeef', 'hex'))
    expect((await down).code).toMatch(/^REPLIC_(PROTOCOL|VERSION)$/)
    await raw.ended
    await stillServes(b, address, { secret: SECRET })
  })

  it('ends who says nothing', async () => {
    const b = await open(12, { linkTimeoutMs: 100, heartbeatMs: 20 })
    const { address } = await listening(b)
    const down = eventOf(b, 'link', isDown)
    const raw = await (await rawTo(address))()
    raw.send(Buffer.from([1])) // for transports on which nothing comes before the first frame
    expect((await down).code).toMatch(/^REPLIC_(TIMEOUT|PROTOCOL)$/)
    await noLinks(b)
  })

  it('is none the worse for connections that were opened and dropped', async () => {
    const b = await open(12)
    const { address } = await listening(b)
    const dial = await rawTo(address)
    const { drops = 10_000, atOnce = 50 } = adapter
    for (let i = 0; i < drops; i += atOnce) {
      const raws = await Promise.all(Array.from({ length: atOnce }, dial))
      await Promise.all(raws.map((raw) => raw.destroy()))
    }
    await noLinks(b)
    await stillServes(b, address)
  }, 300_000)

  it('permits maxPendingLinks strangers, whose oldest gives way to the next', async () => {
    const b = await open(12, { maxPendingLinks: 2 })
    const { address } = await listening(b)
    const dials = await Promise.all([14, 15, 16].map((peerId) => rawTo(address, { peerId })))
    const isRefused = () => b.status().refusedLinks > 0
    const seen = new Set()
    const isNew = () => b.status().links.some(({ link }) => !seen.has(link) && seen.add(link))
    for (let i = 0; !isRefused(); i++) {
      // on a slow machine the first is gone before the last comes
      const raw = await dials[i % dials.length]()
      raw.send(withSum(Buffer.of(1, 2, 0))) // patches before HELLO: not taken, and no offence
      await until(() => isRefused() || isNew())
    }
    await stillServes(b, address)
  })

  it.each([
    ['without a secret', {}],
    ['with a secret', { secret: SECRET }],
  ])('bears an abrupt end at each frame, %s', async (_, secret) => {
    const options = { heartbeatMs: 20, linkTimeoutMs: 300, ...secret }
    const [a, b] = [await open(11, options), await open(12, options)]
    const { address } = await listening(b)
    const dial = await rawTo(address, options)
    await Promise.all([a.upsert('note', many(50)), b.upsert('note', many(50, 25))])
    const { note } = await contents(b).then(({ tables }) => tables)
    expect(note).toHaveLength(50)
    const isSynced = () => JSON.stringify(a.status().vector) === JSON.stringify(b.status().vector)
    let n = 0
    for (; !isSynced(); n++) {
      const link = relay(a, await dial(), n)
      await until(() => link.isOver || isSynced())
      await link.stop()
      await Promise.all([noLinks(a), noLinks(b)])
    }
    expect(n).toBeGreaterThan(3)
    expect((await converged(a, b)).note).toHaveLength(75)
    connecting(await open(13, options), address)
    await eventOf(b, 'link', ({ state, peerId }) => state === 'up' && peerId === 13)
  })
}

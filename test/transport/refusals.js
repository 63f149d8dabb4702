// The contract: who is refused, and that both sides are told.

import { copyFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { withSum } from '../../lib/base/sum.js'
import { readError } from '../../lib/links/handshake.js'
import { converged, eventOf, openReplica, synced, tempDir, until } from '../helpers.js'
import { isDown, isUp, many, open, SECRET } from './contract.js'
import { proven } from './raw.js'

const HOUR = 3_600_000
const [HELLO, ERROR] = [1, 6]
const hello = (peerId) => withSum(Buffer.of(1, HELLO, 0, peerId, 7, 0, 0, 0, 0))
const withCode = (code) => (event) => event.code === code

export function refusals(adapter, tools) {
  const { linked, listening, connecting, rawTo, stillServes } = tools

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

  it.each([
    ['without a secret', undefined],
    ['with a secret', SECRET],
  ])('tells nothing before authorize() has said yes, %s', async (_, secret) => {
    const asked = []
    const authorize = (peerId) => {
      asked.push(peerId)
      return new Promise(() => {})
    }
    const b = await open(12, { secret, authorize, ...QUICK })
    await b.upsert('note', { id: 1 })
    const { address } = await listening(b)
    const down = eventOf(b, 'link', isDown)
    const peer = await proven(await (await rawTo(address, { secret }))(), secret)
    const told = new Set()
    const listen = async () => {
      for (let frame = await peer.next(); frame; frame = await peer.next()) told.add(frame[1])
    }
    listen()
    let isOver = false
    down.then(() => {
      isOver = true
    })
    peer.send(withSum(Buffer.of(1, 2, 0))) // patches before HELLO are not kept
    await until(() => {
      // On a bus a frame may be lost.
      if (!isOver) peer.send(hello(asked.length === 0 ? 11 : 7))
      return isOver
    })
    expect(await down).toMatchObject({ code: 'REPLIC_PEER' })
    expect([...told].filter((type) => type < 32 && type !== ERROR)).toEqual([])
    expect(new Set(asked)).toEqual(new Set([11])) // where a link comes by itself, once for each
  })

  it.each([
    ['without a secret', undefined],
    ['with a secret', SECRET],
  ])('links nobody but whom authorize() was asked about, %s', async (_, secret) => {
    const asked = []
    const b = await open(12, { secret, authorize: (peerId) => asked.push(peerId), ...QUICK })
    const { address } = await listening(b)
    const down = eventOf(b, 'link', isDown)
    const peer = await proven(await (await rawTo(address, { secret }))(), secret)
    peer.send(hello(11))
    let frame
    do frame = await peer.next()
    while (frame[1] !== HELLO)
    peer.send(hello(7))
    expect(await down).toMatchObject({ code: 'REPLIC_PEER' })
    expect(asked).toEqual([11])
  })

  it('refuses another version of the protocol', async () => {
    const b = await open(12)
    const { address } = await listening(b)
    const down = eventOf(b, 'link', isDown)
    const raw = await (await rawTo(address))()
    raw.send(Buffer.from('0201', 'hex'))
    expect(await down).toMatchObject({ code: 'REPLIC_VERSION' })
    const errors = []
    for (let frame = await raw.next(); frame; frame = await raw.next()) {
      errors.push(readError(frame)?.code)
    }
    expect(errors).toContain('REPLIC_VERSION')
    await stillServes(b, address)
  })

  it('refuses two histories under one peerId', async () => {
    const [path, place] = [join(tempDir(), 'a.db'), join(tempDir(), 'b.db')]
    const first = await openReplica({ path, peerId: 11 })
    await first.upsert('note', { id: 1, text: 'common' })
    await first.close()
    for (const part of ['', '-wal', '-replic']) {
      if (existsSync(path + part)) copyFileSync(path + part, place + part)
    }
    const [a, copy, b] = [
      await openReplica({ path, ddl: null }),
      await openReplica({ path: place, ddl: null }),
      await open(12),
    ]
    await a.upsert('note', { id: 1, text: 'one' })
    const { listener, connection } = await linked(a, b)
    await synced(a, b)
    const gone = eventOf(b, 'link', isDown)
    await connection.close()
    await gone
    const stamped = Date.now() // not before: two patches of one millisecond would be taken for one
    await until(() => Date.now() > stamped)
    await copy.upsert('note', [
      { id: 1, text: 'two' },
      { id: 2, text: 'two' },
    ])
    const isFork = withCode('REPLIC_FORK')
    const told = [eventOf(copy, 'link', isFork), eventOf(b, 'link', isFork)]
    connecting(copy, listener.address)
    for (const { reason } of await Promise.all(told)) expect(reason).toContain('11')
    expect(await b.get('SELECT text FROM note')).toEqual({ text: 'one' })
  })

  it('takes no patch from the future, and says so on both sides', async () => {
    const path = join(tempDir(), 'a.db')
    const writer = await openReplica({ path, peerId: 11 })
    await writer.upsert('note', { id: 1 })
    const sql = `UPDATE note_patches SET _patchedAt = _patchedAt + ${HOUR}`
    await writer.run(sql, [], { unsafe: true })
    await writer.close()
    const [a, b] = [await openReplica({ path, ddl: null }), await open(12)]
    const isSkew = withCode('REPLIC_CLOCK_SKEW')
    const told = [eventOf(a, 'link', isSkew), eventOf(b, 'link', isSkew)]
    await linked(a, b)
    expect(await Promise.all(told)).toMatchObject([{ state: 'error' }, { state: 'error' }])
    await b.upsert('note', { id: 2 })
    await a.waitFor('12.1', 60_000)
    expect(b.status().vector).toEqual({ 12: 1 })
  })

  it('has room for maxLinks, and for the next one when one has left', async () => {
    const [a, b, c] = [await open(11), await open(12, { maxLinks: 1, ...QUICK }), await open(13)]
    const { listener, connection } = await linked(a, b)
    connecting(c, listener.address)
    await until(() => b.status().refusedLinks > 0)
    const ready = () => b.status().links.filter(({ state }) => state === 'ready')
    expect(ready().map(({ peerId }) => peerId)).toEqual([11])
    const up = eventOf(b, 'link', (event) => isUp(event) && event.peerId === 13)
    await connection.close()
    await up
    await c.upsert('note', many(10))
    expect((await converged(b, c)).note).toHaveLength(10)
  })
}

const QUICK = { heartbeatMs: 20 }

// Sessions that have seen what nobody has any more: the disk of its origin is lost.

import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { Replica } from '../lib/index.js'
import { readYourWrite } from '../lib/middleware/fetch.js'
import { link, NOTES, openReplica, rejects, tempDir, until } from './helpers.js'

const HEADER = 'x-replic-token'
const PATCHES = 2
const NONE = { forks: 0, pending: 0, staged: 0, lost: 0 } // that forget() has forgotten

/** A peer with a write that nobody else gets, and the token of that. */
async function lostDisk() {
  const lost = await openReplica({ peerId: 900 })
  const token = await lost.upsert('note', { id: 1, text: 'lost' })
  await lost.close()
  return token
}

/** Asks `db` with a token: { status, lost, token } of the answer. */
async function ask(db, token, options) {
  let lost
  const handler = readYourWrite(
    db,
    (request) => {
      lost = request.replic.lost
      return new Response('ok')
    },
    { timeoutMs: 1, lostAfterMs: 0, ...options },
  )
  const request = new Request('http://localhost/', { headers: { [HEADER]: token } })
  const response = await handler(request)
  return { status: response.status, lost, token: response.headers.get(HEADER) }
}

it('go on once no linked peer has it, and are told', async () => {
  const token = await lostDisk()
  const [b, c] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 12 })]
  await link(b, c)
  await b.upsert('note', { id: 2 })
  const both = b.mergeTokens(token, b.token())
  for (const monotonicReads of [true, false]) {
    const answer = await ask(b, both, { monotonicReads })
    expect(answer).toMatchObject({ status: 200, lost: [{ peerId: 900, sequence: 1 }] })
    expect(answer.token).toBe('11.1') // no word of 900
    expect(await ask(c, answer.token, { timeoutMs: 60_000 })).toMatchObject({
      status: 200,
      lost: [],
    })
  }
})

it('keep what of that origin has come here', async () => {
  const lost = await openReplica({ peerId: 900 })
  const [b, c] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 12 })]
  await b.waitFor(
    await link(b, c)
      .then(() => link(lost, b))
      .then(() => lost.upsert('note', { id: 1 })),
  )
  expect(lost.closeRemotePeer(11)).toBe(true)
  const token = await lost.upsert('note', { id: 2 })
  await lost.close()
  const answer = await ask(b, token, { monotonicReads: false })
  expect(answer).toMatchObject({ status: 200, lost: [{ peerId: 900, sequence: 2 }] })
  expect(b.mergeTokens(answer.token)).toBe('900.1')
})

it('wait where nobody is linked, where the time has not come, or where it is told to', async () => {
  const token = await lostDisk()
  const b = await openReplica({ peerId: 11 })
  expect(await ask(b, token)).toMatchObject({ status: 503 })
  const c = await openReplica({ peerId: 12 })
  await link(b, c)
  expect(await ask(b, token, { lostAfterMs: 3_600_000 })).toMatchObject({ status: 503 })
  expect(await ask(b, token, { lostAfterMs: Infinity })).toMatchObject({ status: 503 })
  expect(await ask(b, token, { onTimeout: 'stale', lostAfterMs: Infinity })).toMatchObject({
    status: 200,
    lost: [],
  })
})

it('wait where a linked peer has it', async () => {
  const origin = await openReplica({ peerId: 900 })
  const [b, c] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 12 })]
  await link(origin, c)
  const token = await origin.upsert('note', { id: 1 })
  await c.waitFor(token)
  await origin.close()
  const [near, far] = [new EventEmitter(), new EventEmitter()] // between b and c, which has it
  let isOpen = false
  far.send = (frame) => {
    if (isOpen || frame[1] !== PATCHES) queueMicrotask(() => near.emit('message', frame))
  }
  near.send = (frame) => queueMicrotask(() => far.emit('message', frame))
  near.close = far.close = () => {
    for (const end of [near, far]) queueMicrotask(() => end.emit('close'))
  }
  b.addRemotePeer(12, near)
  c.addRemotePeer(11, far)
  await until(() => b.status().links.some(({ behind }) => behind === 1))
  expect(await ask(b, token)).toMatchObject({ status: 503 })
  await rejects(b.forget({ origin: 900 }), 'REPLIC_USAGE', 'a linked peer has patches of peer 900')
  isOpen = true
  await b.waitFor(token)
  expect(await ask(b, token)).toMatchObject({ status: 200, lost: [] })
})

it('wait where a linked peer may be sending it, in a frame that takes long', async () => {
  const token = await lostDisk()
  const [b, c] = [
    await openReplica({ peerId: 11, heartbeatMs: 20 }),
    await openReplica({ peerId: 12 }),
  ]
  const [near, far] = [new EventEmitter(), new EventEmitter()]
  far.send = (frame) => isOpen && queueMicrotask(() => near.emit('message', frame))
  near.send = (frame) => queueMicrotask(() => far.emit('message', frame))
  near.close = far.close = () => {
    for (const end of [near, far]) queueMicrotask(() => end.emit('close'))
  }
  let isOpen = true
  b.addRemotePeer(12, near)
  c.addRemotePeer(11, far)
  await until(() => b.status().links.some(({ state }) => state === 'ready'))
  expect((await ask(b, token)).lost).toHaveLength(1)
  isOpen = false
  near.emit('progress')
  await until(async () => (await ask(b, token)).status === 503)
  await rejects(b.forget({ origin: 900 }), 'REPLIC_BUSY', 'peer 12 is sending a frame')
  isOpen = true
  await until(async () => (await ask(b, token)).lost?.length === 1)
})

it('wait from the time on when somebody is linked again', async () => {
  const token = await lostDisk()
  const [b, c] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 12 })]
  expect(await ask(b, token)).toMatchObject({ status: 503 })
  const now = performance.now.bind(performance)
  let hours = 0
  const later = vi.spyOn(performance, 'now').mockImplementation(() => now() + hours * 3_600_000)
  onTestFinished(() => later.mockRestore())
  const options = { lostAfterMs: 3_600_000 }
  hours = 2
  await link(b, c)
  expect(await ask(b, token, options)).toMatchObject({ status: 503 })
  hours = 4
  expect((await ask(b, token, options)).lost).toHaveLength(1)
})

it('are not lost where their origin is linked, nor does a reader keep them', async () => {
  const token = await lostDisk()
  const authorize = (peerId) => ({ write: peerId !== 12 })
  const b = await openReplica({ peerId: 11, authorize })
  const reader = await openReplica({ peerId: 12 })
  const origin = await openReplica({ peerId: 900 })
  const seen = await openReplica({ peerId: 13 })
  await origin.upsert('note', { id: 1 })
  await link(origin, reader)
  await reader.waitFor(token)
  await link(reader, b)
  expect(await ask(b, token)).toMatchObject({ status: 503 }) // nobody is linked of whom it could come
  await link(seen, b)
  expect((await ask(b, token)).lost).toHaveLength(1)
  expect(await b.forget({ origin: 900, after: 0 })).toEqual({ ...NONE, lost: 1 })
  await link(origin, b)
  await b.waitFor(token)
  await rejects(b.forget({ origin: 900 }), 'REPLIC_USAGE', 'peer 900 itself is linked')
})

it('go on at once where it was forgotten, and after a restart', async () => {
  const token = await lostDisk()
  const path = join(tempDir(), 'b.db')
  let b = await Replica.open(path, { peerId: 11 })
  await b.migrate([{ up: NOTES }])
  const [waited, own] = [b.waitFor(token, 60_000), await b.upsert('note', { id: 2 })]
  const never = { timeoutMs: 60_000, lostAfterMs: Infinity }
  expect(await b.forget({ origin: 900, after: 0 })).toEqual({ ...NONE, lost: 1 })
  await waited
  for (let round = 0; round < 2; round++) {
    for (const monotonicReads of [true, false]) {
      const answer = await ask(b, token, { ...never, monotonicReads })
      expect(answer).toMatchObject({ status: 200, lost: [{ peerId: 900, sequence: 1 }] })
      expect(answer.token).toBe('11.1')
    }
    await b.waitFor(token, 60_000)
    expect(b.mergeTokens(token, own)).toBe('11.1')
    expect(b.mergeTokens(token)).toBe('11.1')
    await b.close()
    b = await Replica.open(path, { peerId: 11 })
  }
  await b.close()
})

it('wait for the rest of what they have seen, where one of it was forgotten', async () => {
  const token = await lostDisk()
  const b = await openReplica({ peerId: 11 })
  const [kept, gone] = [b.waitFor('900.1', 200), b.waitFor('900.2', 60_000)]
  await b.forget({ origin: 900, after: 1 })
  await gone
  await rejects(kept, 'REPLIC_TIMEOUT')
  await b.forget({ origin: 900 })
  expect(await ask(b, b.mergeTokens(token, '12.1'), { lostAfterMs: Infinity })).toMatchObject({
    status: 503,
  })
  const both = '12.1~p0.1' // 900 in base 36
  const stale = await ask(b, both, { lostAfterMs: Infinity, onTimeout: 'stale' })
  expect(stale).toMatchObject({
    status: 200,
    lost: [{ peerId: 900, sequence: 1 }],
    token: '11.0~c.1',
  })
})

it('are not forgotten where somebody has it, or where it comes all the same', async () => {
  const [a, b, c] = [
    await openReplica({ peerId: 900 }),
    await openReplica({ peerId: 11 }),
    await openReplica({ peerId: 12 }),
  ]
  await c.forget({ origin: 900, after: 0 })
  await link(a, b)
  const first = await a.upsert('note', { id: 1 })
  await b.waitFor(first)
  await rejects(b.forget({ origin: 900, after: 0 }), 'REPLIC_USAGE', 'up to 1 is here')
  await rejects(b.forget({ origin: 11 }), 'REPLIC_USAGE', 'this peer itself')
  await rejects(b.forget({ forks: true, after: 1 }), 'REPLIC_USAGE', 'origin is missing')
  await link(b, c) // so it was not lost
  await until(() => c.status().vector[900] === 1)
  expect(await ask(c, '900.2', { lostAfterMs: Infinity })).toMatchObject({ status: 503 })
})

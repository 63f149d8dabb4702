// Sessions that have seen what nobody has any more: the disk of its origin is lost.

import { EventEmitter } from 'node:events'
import { expect, it } from 'vitest'
import { readYourWrite } from '../lib/middleware/fetch.js'
import { link, openReplica, until } from './helpers.js'

const HEADER = 'x-replic-token'
const PATCHES = 2

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
  isOpen = true
  await b.waitFor(token)
  expect(await ask(b, token)).toMatchObject({ status: 200, lost: [] })
})

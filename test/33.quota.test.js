// What a peer brings beyond a quota is held: it waits on the other side, both sides are told, and everything else
// goes on. (The rules are tested in test/core/test_hostile.c.)

import { expect, it } from 'vitest'
import { Replica } from '../lib/index.js'
import { eventOf, FAST, link, NOTES, openReplica, tableDdl, until } from './helpers.js'

const OTHER = tableDdl('other', ['id INTEGER NOT NULL', 'text TEXT'], 'id')
const isHeld = (event) => event.code === 'REPLIC_QUOTA'

it('holds what this schema cannot, and takes it once it can', async () => {
  const near = await openReplica({ peerId: 11, maxPendingBytes: 200, heartbeatMs: 20 })
  const far = await openReplica({ peerId: 12, ddl: NOTES + OTHER, heartbeatMs: 20 })
  const third = await openReplica({ peerId: 13, heartbeatMs: 20 })
  const told = [eventOf(near, 'link', isHeld), eventOf(far, 'link', isHeld)]
  await link(near, far, FAST)
  await link(near, third, FAST)
  for (let id = 1; id <= 20; id++) await far.upsert('other', { id, text: 'x'.repeat(50) })
  const [here, there] = await Promise.all(told)
  expect(here.reason).toContain('maxPendingBytes')
  expect(there.reason).toContain('maxPendingBytes')
  const { links } = near.status()
  expect(links.find(({ peerId }) => peerId === 12)).toMatchObject({ state: 'ready' })
  expect(links.find(({ peerId }) => peerId === 12).held).toContain('maxPendingBytes')
  expect(links.find(({ peerId }) => peerId === 13).held).toBe(null)
  await third.upsert('note', { id: 1 })
  await until(async () => (await near.all('SELECT id FROM note')).length === 1, near)
  await near.migrate([{ up: NOTES }, { up: OTHER }])
  await until(async () => (await near.all('SELECT id FROM other')).length === 20, near)
  await until(() => near.status().links.every(({ held }) => held === null)) // status() is told of after the commit
})

it('of two peers the one leaves room for the other, however often it comes', async () => {
  const near = await openReplica({ peerId: 11, maxPendingBytes: 2_000, heartbeatMs: 20 })
  const began = Date.now()
  for (const peerId of [12, 13]) {
    const far = await openReplica({ peerId, ddl: NOTES + OTHER, heartbeatMs: 20 })
    for (let id = 1; id <= 40; id++) await far.upsert('other', { id, text: 'x'.repeat(50) })
    for (let time = 0; time < 2; time++) {
      const told = [eventOf(near, 'link', isHeld), eventOf(far, 'link', isHeld)]
      const { connection, listener } = await link(near, far, FAST)
      for (const { reason } of await Promise.all(told)) {
        expect(reason).toContain(`peer ${peerId} has brought`)
      }
      await connection.close()
      await listener.close()
      await until(() => near.status().links.length === 0, near)
    }
    await far.close()
  }
  const { vector, pending } = near.status()
  expect(vector[12]).toBeGreaterThan(10)
  expect(vector[13]).toBeGreaterThan(5)
  expect(vector[13]).toBeLessThan(vector[12])
  expect(pending).toMatchObject([{ table: 'other', patches: vector[12] + vector[13] }])
  expect(pending[0].oldestAt).toBeGreaterThanOrEqual(began)
  expect(pending[0].oldestAt).toBeLessThanOrEqual(Date.now())
  expect(await near.forget({ pending: true, peerId: 12 })).toMatchObject({ pending: vector[12] })
  await until(() => near.status().pending[0].patches === vector[13], near)
})

it.each(['maxOrigins', 'maxPendingBytes', 'maxStagedBytes', 'maxStagedRetentionMs'])(
  '%s is checked',
  async (name) => {
    const values = [0, -1, 1.5, '1', null, ...(name.endsWith('Ms') ? [] : [Infinity])]
    for (const value of values) {
      await expect(Replica.open('unused.db', { [name]: value })).rejects.toMatchObject({
        code: 'REPLIC_USAGE',
        message: expect.stringContaining(name),
      })
    }
  },
)

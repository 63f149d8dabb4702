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

it.each(['maxOrigins', 'maxPendingBytes', 'maxStagedBytes'])('%s is checked', async (name) => {
  for (const value of [0, -1, 1.5, '1', null, Infinity]) {
    await expect(Replica.open('unused.db', { [name]: value })).rejects.toMatchObject({
      code: 'REPLIC_USAGE',
      message: expect.stringContaining(name),
    })
  }
})

// After a jump: a source that hides rows is found out with the next peer, and what it hides is fetched.

import { join } from 'node:path'
import { expect, it } from 'vitest'
import { link, openReplica, synced, tempDir } from './helpers.js'
import { until } from './until.js'

const ids = async (db) => (await db.all('SELECT id FROM note ORDER BY id')).map(({ id }) => id)
const unchecked = (db) => db.status().uncheckedJumps

/** An honest hub with five notes, and a source which says of two of them that they have not survived. */
async function hubAndLiar() {
  const [author, hub, liar] = [
    await openReplica({ peerId: 7 }),
    await openReplica({ peerId: 77 }),
    await openReplica({ peerId: 666 }),
  ]
  for (let id = 1; id <= 5; id++) await author.upsert('note', { id, text: 'a' })
  const links = [await link(author, hub), await link(author, liar)]
  await synced(author, hub)
  await synced(author, liar)
  for (const { connection, listener } of links) {
    await connection.close()
    await listener.close()
  }
  await author.close()
  for (const table of ['note_patches', 'note'])
    await liar.run(`DELETE FROM ${table} WHERE id IN (2, 4)`, [], { unsafe: true })
  return { hub, liar }
}

/** A newcomer that has jumped from the liar. */
async function misled(liar, path) {
  const newcomer = await openReplica({ path, peerId: 99, heartbeatMs: 100 })
  const up = await link(newcomer, liar)
  await until(() => newcomer.status().vector[7] === 5)
  await until(() => unchecked(newcomer).length === 1)
  expect(await ids(newcomer)).toEqual([1, 3, 5])
  expect(unchecked(newcomer)).toEqual([666])
  return { newcomer, up }
}

it.each(['running on', 'restarted'])('rows that a source hides are fetched: %s', async (how) => {
  const { hub, liar } = await hubAndLiar()
  const path = join(tempDir(), 'newcomer.db')
  let { newcomer } = await misled(liar, path)
  if (how === 'restarted') {
    await newcomer.close()
    newcomer = await openReplica({ path, ddl: null, heartbeatMs: 100 })
    expect(unchecked(newcomer)).toEqual([666])
  }
  const told = []
  newcomer.on('link', (event) => told.push(event))
  await link(newcomer, hub)
  await until(async () => (await ids(newcomer)).length === 5)
  await until(() => unchecked(newcomer).length === 0)
  const event = told.find(({ code }) => code === 'REPLIC_FORK')
  expect(event.reason).toMatch(
    /^after a jump from peer 666 the tables differ from those of peer 77/,
  )
  expect((await newcomer.verify(77)).equal).toBe(true)
})

it('one honest source: nothing is compared with itself, and with a second one once', async () => {
  const { hub, liar: second } = await hubAndLiar()
  await second.close()
  await hub.upsert('note', { id: 1, text: 'b' })
  const third = await openReplica({ peerId: 33 }) // gets every patch: no jump
  await link(third, hub)
  await synced(hub, third)
  await hub.compact({ maxPatchRetentionMs: 0 })
  const newcomer = await openReplica({ peerId: 99 })
  const told = []
  newcomer.on('link', (event) => told.push(event))
  await link(newcomer, hub)
  await until(() => unchecked(newcomer).length === 1)
  await synced(newcomer, hub)
  expect(unchecked(newcomer)).toEqual([77])
  await link(newcomer, third)
  await until(() => unchecked(newcomer).length === 0)
  expect(told.some(({ code }) => code)).toBe(false)
})

it('a peer that has its rows from here is no witness', async () => {
  const { hub, liar } = await hubAndLiar()
  const { newcomer } = await misled(liar)
  const leaf = await openReplica({ peerId: 33, heartbeatMs: 100 })
  await link(leaf, newcomer)
  await until(() => unchecked(leaf).length === 1)
  expect((await newcomer.verify(33)).equal).toBe(true) // after the comparison, which has its turn before
  expect(unchecked(newcomer)).toEqual([666])
  await link(newcomer, hub)
  await until(async () => (await ids(newcomer)).length === 5)
  await until(() => unchecked(newcomer).length === 0)
  expect(unchecked(leaf)).toEqual([99])
  await link(leaf, hub)
  await until(async () => (await ids(leaf)).length === 5)
  await until(() => unchecked(leaf).length === 0)
})

// Clocks that are wrong: peers whose wall clock is an hour or 60 years ahead, or behind. Each is a
// process of its own under libfaketime (Debian: faketime), whose clock can be set while it runs.

import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { expect, it } from 'vitest'
import { childPath, NOTES, startProcess, tempDir } from './helpers.js'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const YEAR = 365 * 24 * HOUR

const library = libfaketime()
function libfaketime() {
  for (const folder of ['/usr/lib', ...folders('/usr/lib')]) {
    if (folders(folder).includes(join(folder, 'faketime'))) {
      return join(folder, 'faketime', 'libfaketimeMT.so.1')
    }
  }
  return null
}
function folders(path) {
  try {
    const entries = readdirSync(path, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(path, name))
  } catch {
    return []
  }
}
if (!library) {
  const text = 'wrong clocks need libfaketime (Debian: faketime) to be tested'
  if (process.env.CI) throw new Error(text)
  console.warn(`NOT TESTED: ${text}`)
}

/** A peer in a process of its own, whose wall clock is `offsetMs` ahead. */
async function startPeer(peerId, offsetMs) {
  const dir = tempDir()
  const file = join(dir, 'offset')
  const set = (ms) => writeFileSync(file, `${ms < 0 ? '' : '+'}${ms / 1000}`)
  set(offsetMs)
  const env = {
    ...process.env,
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    DONT_FAKE_MONOTONIC: '1', // its name before
  }
  const args = [childPath('clock.js'), join(dir, 'a.db'), `${peerId}`, NOTES]
  const child = startProcess(execPath, args, { env })
  const port = Number(await child.line())
  const call = async (...command) => {
    child.send(JSON.stringify(command))
    return JSON.parse(await child.line())
  }
  return { port, call, set }
}

const byPeer = (status, peerId) => status.links.find((link) => link.peerId === peerId)

it.skipIf(!library).each([
  ['an hour ahead, until that hour has passed', HOUR, 0, HOUR],
  ['60 years ahead, until those have passed', 60 * YEAR, 0, 60 * YEAR],
  ['right, and those here are an hour behind, until they are put right', 0, -HOUR, 0],
  ['right, and those here are 30 years behind, until they are put right', 0, -30 * YEAR, 0],
])('the clock of a peer is %s', async (_, ahead, here, then) => {
  const a = await startPeer(11, ahead)
  const [b, c] = [await startPeer(12, here), await startPeer(13, here)]
  const ofA = await a.call('upsert', [
    { id: 1, text: 'of a' },
    { id: 2, text: 'of a' },
  ])
  const ofB = await b.call('upsert', { id: 2, text: 'of b' })
  const ofC = await c.call('upsert', { id: 3, text: 'of c' })
  await b.call('connect', a.port)
  await c.call('connect', b.port)

  // Both sides say so.
  const [atA, atB] = [await a.call('trouble'), await b.call('trouble')]
  expect(atA).toMatchObject({ peerId: 12, state: 'error', code: 'REPLIC_CLOCK_SKEW' })
  expect(atB).toMatchObject({ peerId: 11, state: 'error', code: 'REPLIC_CLOCK_SKEW' })
  const [, stamp, wall] = /stamped (\d+),.* says (\d+):/.exec(atB.reason)
  expect(near(stamp - wall, ahead - here)).toBe(true)
  expect(atA.reason).toContain(atB.reason)

  // All the rest goes on, in both directions and past them.
  for (const token of [ofB, ofC]) for (const peer of [a, b, c]) await peer.call('waitFor', token)
  const again = await b.call('upsert', { id: 3, text: 'of b again' })
  for (const peer of [a, c]) await peer.call('waitFor', again)
  for (const peer of [b, c]) {
    expect(await peer.call('rows')).toEqual([
      { id: 2, text: 'of b' },
      { id: 3, text: 'of b again' },
    ])
    const { vector, clock } = await peer.call('status')
    expect(vector).toEqual({ 12: 2, 13: 1 })
    expect(near(clock, await peer.call('now'))).toBe(true)
  }
  const [statusA, statusB] = [await a.call('status'), await b.call('status')]
  expect(near(byPeer(statusB, 11).skewMs, ahead - here)).toBe(true)
  expect(near(byPeer(statusA, 12).skewMs, here - ahead)).toBe(true)
  expect(byPeer(statusB, 11)).toMatchObject({ state: 'ready', held: atB.reason })
  expect(byPeer(statusA, 12)).toMatchObject({ state: 'ready', lag: 2 })

  // And heals by itself.
  for (const peer of [b, c]) peer.set(then)
  const last = await a.call('upsert', { id: 4, text: 'of a' })
  for (const token of [ofA, last]) for (const peer of [b, c]) await peer.call('waitFor', token)
  const rows = await a.call('rows')
  expect(rows).toEqual([
    { id: 1, text: 'of a' },
    { id: 2, text: 'of a' },
    { id: 3, text: 'of b again' },
    { id: 4, text: 'of a' },
  ])
  for (const peer of [b, c]) expect(await peer.call('rows')).toEqual(rows)
})

it.skipIf(!library)('a clock that is half a minute ahead is named where it has led', async () => {
  const a = await startPeer(11, MINUTE / 2)
  const b = await startPeer(12, 0)
  await b.call('connect', a.port)
  await b.call('waitFor', await a.call('upsert', { id: 1, text: 'of a' }))
  const { clockAheadMs, clockRaisedBy } = await b.call('status')
  expect(clockAheadMs).toBeGreaterThan(0)
  expect(clockAheadMs).toBeLessThanOrEqual(MINUTE / 2)
  expect(clockRaisedBy).toBe(11)
  b.set(MINUTE)
  await b.call('upsert', { id: 1, text: 'of b' })
  expect(await b.call('status')).toMatchObject({ clockAheadMs: 0, clockRaisedBy: null })
})

// A is 59 s ahead, and D 2 s behind: D holds what both A and B have written, though its only link shows 2 s.
it.skipIf(!library)('of differences that add up the text says whose clock it is', async () => {
  const [a, b, d] = [
    await startPeer(11, MINUTE - 1_000),
    await startPeer(12, 0),
    await startPeer(13, -2_000),
  ]
  await b.call('connect', a.port)
  await d.call('connect', b.port)
  await b.call('waitFor', await a.call('upsert', { id: 1, text: 'of a' }))
  const token = await b.call('upsert', { id: 2, text: 'of b' })
  const { reason } = await d.call('trouble')
  expect(reason).toMatch(/^patch 1[12]\.1 is stamped .* of peer 13, .* It adds up: .* peer 12,/)
  expect(reason).toContain('as peer 11 set it. Correct the clock of peer 11:')
  expect((await a.call('error')).message).toMatch(
    /^the clock of this peer \(11\) is 5\d{4} ms ahead/,
  )
  expect((await a.call('status')).clockOffMs).toBeGreaterThan(MINUTE / 2)
  d.set(0)
  await d.call('waitFor', token)
  expect(await d.call('rows')).toHaveLength(2)
})

const near = (a, b) => Math.abs(a - b) < MINUTE

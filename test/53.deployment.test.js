// A rolling deployment of three processes that all write: versions 1 -> 2 -> 1 -> 2, and back to 1 for the check.
// No write is refused, none is lost, and no column of either version. `npm run reliability -- rolling` plays it
// at 1,000 writes a second.

import { expect, it, vi } from 'vitest'
import { newStage, play } from './chaos/play.js'
import * as scenarios from './chaos/scenarios.js'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const writes = { perSecond: 350, atOnce: 32 }

it('a rolling upgrade, downgrade and upgrade loses nothing and refuses nothing', async () => {
  const { faults, refused, acked } = await play(scenarios.rolling, {
    writes,
    during: scenarios.acks(100),
  })
  expect({ faults, refused }).toEqual({ faults: 9, refused: 0 })
  expect(acked).toBeGreaterThanOrEqual(3 * 12 * 100)
})

// What the test above rests on.
it.each([
  ['a column that only the version that is left has', 1, 'note = NULL'],
  ['a column that only the newer version has', 2, 'extra = NULL'],
])('the check finds a lost value of %s', async (_, version, change) => {
  const cluster = await newStage().cluster({ size: 2 })
  await cluster.mesh()
  await cluster.all((peer) => peer.ask('migrate', { to: version }))
  const [one, other] = cluster.peers
  const written = one.acks(50)
  await one.write({ count: 50 })
  await written
  expect((await cluster.finish()).problems).toEqual([])
  await other.ask('spoil', { sql: `UPDATE fact SET ${change} WHERE n = 7` })
  const { problems } = await cluster.finish()
  expect(problems.find((problem) => problem.includes('torn'))).toContain(`peer ${other.peerId}`)
})

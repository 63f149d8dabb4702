// Real processes that are stopped, killed, and whose disk is full, while all write. What is played is in
// chaos/scenarios.js; npm run reliability plays it at full size.

import { describe, expect, it, vi } from 'vitest'
import { randomFrom } from '../examples/demo/random.js'
import { obstacle as obstacleOfDeeds, ROWS } from './chaos/operator.js'
import { isTested, newStage, play, seed } from './chaos/play.js'
import * as scenarios from './chaos/scenarios.js'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const writes = { perSecond: 300 }

describe('processes', () => {
  it('that are stopped (SIGSTOP) are given up, and go on where they were (SIGCONT)', async () => {
    const { faults } = await play(scenarios.stopped, { writes, during: scenarios.acks(100) })
    expect(faults).toBe(3)
  })

  it.each([
    ['tcp', 36],
    ['udp', 12],
  ])(
    'that are killed again and again (SIGKILL), over %s, lose nothing',
    async (transport, times) => {
      const { faults } = await play(scenarios.killed, {
        writes,
        random: randomFrom(seed),
        isEnough: (kills) => kills === times,
        like: { ...scenarios.FAST, transport },
      })
      expect(faults).toBe(times)
    },
  )
})

const mayMount = process.platform === 'linux' && process.getuid() === 0
const obstacle = mayMount ? null : { why: 'only root may mount a tmpfs', isFixable: true }

describe.skipIf(!isTested('a full disk', obstacle))('a disk', () => {
  it('that is full refuses writes and what comes in; with room again all goes on', async () => {
    const { faults, refused } = await play(scenarios.diskFull, { times: 3 })
    expect(faults).toBe(3)
    expect(refused).toBeGreaterThanOrEqual(15)
  })
})

describe.skipIf(!isTested('what is done to files', obstacleOfDeeds()))('files', () => {
  it('to which an operator does what comes to mind lose nothing', async () => {
    // All but what takes 5 s, which test/55 has.
    const rows = ROWS.filter(({ refuses }) => refuses !== 'SQLITE_BUSY')
    const { faults } = await play(scenarios.operatorsDay, {
      rows,
      writes,
      random: randomFrom(seed),
      isEnough: (deeds) => deeds === 8,
    })
    expect(faults).toBe(8)
  })
})

// What all tests of this kind rest on.
describe('the check finds', () => {
  const spoilt = {
    'a write that is not there': ['DELETE FROM fact WHERE n = 7', 'lacks 1 acknowledged writes'],
    'half of a write': ['DELETE FROM fact WHERE n = 9 AND part = 1', 'torn'],
    'a row of another content': ["UPDATE fact SET body = 'x' WHERE n = 5", 'torn'],
    'a cell with an older value': [
      `UPDATE shared SET a = (SELECT a FROM shared_patches p
         WHERE p.id = shared.id AND p.a IS NOT shared.a) WHERE a IS NOT NULL`,
      'cells',
    ],
    'a hole in the log': ['DELETE FROM fact_patches WHERE n = 11', 'holes'],
  }

  it.each(Object.keys(spoilt))('%s', async (name) => {
    const [sql, word] = spoilt[name]
    const cluster = await newStage().cluster({ size: 2 })
    await cluster.mesh()
    const [one, other] = cluster.peers
    const written = one.acks(200)
    await one.write({ count: 200 })
    await written
    expect((await cluster.finish()).problems).toEqual([])
    await other.ask('spoil', { sql })
    const { problems, lost } = await cluster.finish()
    expect(lost).toBe(word.startsWith('lacks') ? 1 : 0)
    expect(problems.find((problem) => problem.includes(word))).toContain(`peer ${other.peerId}`)
    if (!sql.includes('_patches WHERE n')) {
      expect(problems).toContain(`tables of peers ${one.peerId} and ${other.peerId} differ`)
      expect(problems.filter((problem) => problem.includes('verify()'))).toHaveLength(2)
    }
  })
})

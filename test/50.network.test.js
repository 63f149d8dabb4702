// Real processes on a real network: hosts that are cut off, links that go down, connections that only one
// side has. What is played is in chaos/scenarios.js; npm run reliability plays it at full size.

import { execFileSync, spawnSync } from 'node:child_process'
import { execPath } from 'node:process'
import { describe, expect, it, vi } from 'vitest'
import { whyNoNetwork } from './chaos/netns.js'
import { isTested, newStage, play } from './chaos/play.js'
import * as scenarios from './chaos/scenarios.js'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const settings = { during: scenarios.acks(200), writes: { perSecond: 300 } }
const NETNS = new URL('chaos/netns.js', import.meta.url).href
const isHere = isTested('a network of namespaces', await whyNoNetwork())

describe.skipIf(!isHere)('a network', () => {
  it('that is parted: each half agrees, and all do when it is whole again', async () => {
    const { faults, peers } = await play(scenarios.partition, settings)
    expect({ faults, peers }).toEqual({ faults: 1, peers: 4 })
  })

  it('from which a host is cut off: it goes on alone, and comes back', async () => {
    await play(scenarios.cutOff, settings)
  })

  it('of which one cable is cut: what it carried goes round meanwhile', async () => {
    await play(scenarios.roundabout, settings)
  })

  it('that is a chain of five, whose cables go down and up in turn', async () => {
    const { faults } = await play(scenarios.chain, { ...settings, times: 4 })
    expect(faults).toBe(4)
  })

  it('on which a host dies unnoticed: its connections are half-open', async () => {
    await play(scenarios.halfOpenHost, settings)
  })
})

describe.skipIf(!isHere)('the network of the tests', () => {
  const namespaces = () => execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })

  it('is gone afterwards, also after a failure', async () => {
    const mine = `replic-${process.pid}-`
    const stage = newStage()
    await stage.network(2)
    expect(namespaces()).toContain(mine)
    const failure = stage.play(() => Promise.reject(new Error('on purpose')))
    await expect(failure).rejects.toThrow('on purpose')
    await stage.end()
    expect(namespaces()).not.toContain(mine)
  })

  it('of a run that was killed is removed by the next one', async () => {
    const source = `import { Network } from ${JSON.stringify(NETNS)}
      await Network.open(1)
      process.kill(process.pid, 'SIGKILL')`
    const { pid, signal } = spawnSync(execPath, ['--input-type=module', '-e', source])
    expect(signal).toBe('SIGKILL')
    expect(namespaces()).toContain(`replic-${pid}-`)
    await newStage().network(1)
    expect(namespaces()).not.toContain(`replic-${pid}-`)
  })
})

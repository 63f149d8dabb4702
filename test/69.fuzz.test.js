// Decoders in JavaScript, with mutations of a recorded session, from fixed seeds: so a failure is the change's, and not
// luck. `npm run fuzz:js` draws others, for ten minutes, and looks at time and memory too.

import { EventEmitter } from 'node:events'
import { describe, expect, it } from 'vitest'
import { randomFrom } from '../examples/demo/random.js'
import { withoutSum, withSum } from '../lib/base/sum.js'
import { mutatedJson, SECRET } from './fuzz/inputs.js'
import { play } from './fuzz/play.js'
import { DIALS, siege } from './fuzz/siege.js'
import { isOurs, TARGETS } from './fuzz/targets.js'
import {
  childPath,
  eventOf,
  openReplica,
  rejects,
  startProcess,
  synced,
  tempDir,
} from './helpers.js'

const STEPS = 10_000
const MESSAGE = 10
const isUp = ({ state }) => state === 'up'

describe('whatever comes in, only errors of ours come of it:', () => {
  it.each(Object.keys(TARGETS))('%s', async (name) => {
    for (const seed of [1, 2]) await play(name, seed, STEPS)
  })

  it('answers to verify()', async () => {
    const random = randomFrom(1)
    const options = { heartbeatMs: 20 }
    const [a, b] = [
      await openReplica({ peerId: 11, ...options }),
      await openReplica({ peerId: 12, ...options }),
    ]
    await a.upsert('note', [{ id: 1, text: 'one' }, { id: 2 }])
    const up = [eventOf(a, 'link', isUp), eventOf(b, 'link', isUp)]
    linkChanged(a, b, (message) =>
      message.re && random(2) ? mutatedJson(random, message) : message,
    )
    await Promise.all(up)
    await synced(a, b)
    await b.run("UPDATE note SET text = 'other' WHERE id = 1", [], { unsafe: true })
    const outcomes = new Set()
    for (let n = 0; n < 60; n++) {
      const told = (error) => isOurs(error) ?? error.code
      outcomes.add(await a.verify(12, { timeoutMs: 100 }).then(({ equal }) => equal, told))
    }
    for (const outcome of [false, 'REPLIC_PROTOCOL']) expect(outcomes).toContain(outcome)
  })

  it.each([
    ['of another comparison', (message) => ({ ...message, id: message.id + 1 })],
    ['to another question', (message) => ({ ...message, n: message.n + 1 })],
    ['longer than 64 KiB where none may be', (message) => ({ ...message, x: 'x'.repeat(65_536) })],
  ])('answers to verify() %s are none', async (_, change) => {
    const [a, b] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 12 })]
    const up = [eventOf(a, 'link', isUp), eventOf(b, 'link', isUp)]
    linkChanged(a, b, (message) => (message.re ? change(message) : message))
    await Promise.all(up)
    await rejects(a.verify(12, { timeoutMs: 100 }), 'REPLIC_TIMEOUT', 'peer 12')
  })
})

/** Links two replicas; `change(message)` gives what becomes of a message of verify() on its way to `a`. */
function linkChanged(a, b, change) {
  const [near, far] = [new EventEmitter(), new EventEmitter()]
  const changed = (frame) => {
    if (frame[1] !== MESSAGE) return frame
    const message = change(JSON.parse(withoutSum(Buffer.from(frame)).subarray(2).toString()))
    return withSum(Buffer.concat([Buffer.of(1, MESSAGE), Buffer.from(JSON.stringify(message))]))
  }
  const close = () => {
    for (const end of [near, far]) queueMicrotask(() => end.emit('close'))
  }
  Object.assign(near, { close, send: (frame) => queueMicrotask(() => far.emit('message', frame)) })
  Object.assign(far, {
    close,
    send: (frame) => queueMicrotask(() => near.emit('message', changed(frame))),
  })
  a.addRemotePeer(12, near)
  b.addRemotePeer(11, far)
}

describe('a replica that strangers besiege', () => {
  it('goes on, with its honest links, and keeps nothing of them', async () => {
    const given = JSON.stringify({ secret: SECRET })
    const child = startProcess(process.execPath, [
      '--expose-gc',
      childPath('besieged.js'),
      tempDir(),
      given,
    ])
    const ports = JSON.parse(await child.line())
    let asking = Promise.resolve()
    const ask = (question = {}) => {
      asking = asking.then(() => {
        child.send(JSON.stringify(question))
        return child.line().then(JSON.parse)
      })
      return asking
    }
    const ready = async () => (await ask()).links.filter(({ state }) => state === 'ready')
    const honest = []
    for (const [i, dial] of Object.values(DIALS).entries()) {
      const db = await openReplica({ peerId: 20 + i, secret: SECRET })
      const up = eventOf(db, 'link', isUp)
      dial(db, ports)
      await up
      honest.push(db)
    }
    const links = await ready()
    expect(links.map(({ peerId }) => peerId)).toEqual([20, 21, 22, 23])
    const bytes = []
    for (const seed of [1, 2, 3]) {
      await siege(randomFrom(seed), 100, ports, ask)
      let figures = await ask()
      while (figures.guests > 0) figures = await ask()
      bytes.push(figures.bytes)
    }
    expect(bytes[2] - bytes[1]).toBeLessThan(4 * 1024 * 1024)
    expect(await ready()).toEqual(links)
    await honest[0].upsert('note', { id: 1, text: 'still here' })
    await synced(...honest)
  })
})

// The contract: connections that break, stall, and lose what is sent over them.

import { expect, it } from 'vitest'
import { linksOf } from '../../lib/links/registry.js'
import { converged, eventOf, synced, until } from '../helpers.js'
import { isDown, isUp, many, open, SECRET } from './contract.js'

const MiB = 1024 * 1024

export function lines(adapter, tools) {
  const { has } = tools
  if (has('line')) stalls(tools)
  if (has('line') && has('cut')) cuts(adapter, tools)
  if (has('line') && has('standby')) standby(tools)
  if (has('badLine')) chaos(adapter, tools)
}

function cuts(adapter, { listening, connecting, lineTo }) {
  it('goes on after abrupt cuts', async () => {
    const [a, b] = [await open(11), await open(12)]
    const line = await lineTo((await listening(b)).address)
    connecting(a, line.address)
    await eventOf(a, 'link', isUp)
    for (let round = 0; round < 5; round++) {
      const up = adapter.survivesCuts ? undefined : eventOf(a, 'link', isUp)
      const writes = many(100, round * 100).map((row) => a.upsert('note', row))
      await writes[0]
      line.cut()
      await Promise.all([up, ...writes])
    }
    expect((await converged(a, b)).note).toHaveLength(500)
  })
}

function standby({ listening, connecting, lineTo }) {
  it('takes over at once where a second link stands by', async () => {
    const options = { heartbeatMs: 60_000, linkTimeoutMs: 600_000 }
    const [a, b] = [await open(11, options), await open(12, options)]
    const line = await lineTo((await listening(b)).address)
    connecting(a, line.address)
    await eventOf(a, 'link', isUp)
    const standby = eventOf(a, 'link', ({ state }) => state === 'standby')
    connecting(a, (await listening(b)).address)
    const { link } = await standby
    line.refuse(true)
    const up = eventOf(a, 'link', isUp)
    line.cut()
    expect(await up).toMatchObject({ link, peerId: 12 })
    await a.upsert('note', { id: 1 })
    await converged(a, b)
  })
}

function stalls({ listening, connecting, lineTo }) {
  it('notices by heartbeats that a connection is half open', async () => {
    const options = { heartbeatMs: 20, linkTimeoutMs: 300 }
    const [a, b] = [await open(11, options), await open(12, options)]
    const line = await lineTo((await listening(b)).address)
    connecting(a, line.address)
    await eventOf(a, 'link', isUp)
    const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    line.stall(true)
    expect((await Promise.all(downs)).map(({ code }) => code)).toContain('REPLIC_TIMEOUT')
    line.stall(false)
    await a.upsert('note', { id: 1 })
    await converged(a, b)
  })

  // Memory, without a look at the process: what is kept for a reader is what its socket was given and
  // the reader has not acknowledged. After the window is full, nothing is given but heartbeats.
  it('keeps a bounded amount for a reader that stalls, and serves the others', async () => {
    const limits = { windowBytes: MiB, heartbeatMs: 50, linkTimeoutMs: 60_000 }
    const [a, b, c] = [await open(11, limits), await open(12, limits), await open(13, limits)]
    const given = bytesGiven(a)
    const { address } = await listening(a)
    const line = await lineTo(address)
    connecting(b, line.address)
    await eventOf(b, 'link', isUp)
    connecting(c, address)
    await until(() => a.status().links.filter(({ state }) => state === 'ready').length === 2)
    line.stall(true)
    const before = given(12)
    const write = async (from, to) => {
      for (let i = from; i < to; i++) await a.upsert('note', many(50, i * 50, 'x'.repeat(20_000)))
      await synced(a, c)
    }
    await write(0, 8) // 8 MB
    const full = given(12)
    expect(full - before).toBeLessThan(limits.windowBytes + 2 * MiB) // a group is 1 MB
    await write(8, 24)
    expect(given(12) - full).toBeLessThan(64 * 1024) // of 16 MB: heartbeats
    expect(given(13)).toBeGreaterThan(24_000_000)
    const { unackedBytes } = a.status().links.find(({ peerId }) => peerId === 12)
    expect(unackedBytes).toBeLessThan(limits.windowBytes + 2 * MiB)
    line.stall(false)
    await converged(a, b, c)
  })
}

/** Counts what sockets are given from now on: (peerId) => bytes, over all links with that peer. */
function bytesGiven(db) {
  const links = linksOf(db)
  const add = links.add.bind(links)
  const counted = []
  links.add = (socket, info) => {
    const entry = { bytes: 0 }
    const send = socket.send.bind(socket)
    socket.send = (frame) => {
      entry.bytes += frame.length
      return send(frame)
    }
    entry.link = add(socket, info)
    counted.push(entry)
    return entry.link
  }
  return (peerId) =>
    counted.reduce((sum, { link, bytes }) => sum + (link.peerId === peerId ? bytes : 0), 0)
}

function chaos(adapter, { listening, connecting, badLineTo }) {
  const faults = {
    'loses a tenth': { loss: 0.1 },
    'doubles a tenth': { duplicate: 0.1 },
    'takes up to 30 ms': { delayMs: [0, 30] },
    'takes up to 30 ms, and reorders': { delayMs: [0, 30], ordered: false },
    'does all of that': { loss: 0.1, duplicate: 0.1, delayMs: [0, 30], ordered: false },
  }
  const can = (settings) => Object.keys(settings).every((name) => adapter.faults.includes(name))
  const names = Object.keys(faults).filter((name) => can(faults[name]))

  it.each(names)('bears a line that %s', async (name) => {
    const options = { heartbeatMs: 50, sliceBytes: 2_000, secret: SECRET }
    const [a, b] = [await open(11, options), await open(12, options)]
    const { address } = await listening(b)
    const line = await badLineTo(address)
    line.set(faults[name])
    connecting(a, line.address)
    for (let round = 0; round < 20; round++) {
      const [mine, theirs] = [many(100, 100 * round), many(100, 100 * round + 50)]
      await Promise.all([...mine.map((row) => a.upsert('note', row)), b.upsert('note', theirs)])
    }
    expect((await converged(a, b)).note).toHaveLength(2050)
    const { carried, lost, duplicated } = line.counts()
    expect(carried).toBeGreaterThan(5) // a slow line carries much at a time
    if (faults[name].loss) expect(lost).toBeGreaterThan(0)
    if (faults[name].duplicate) expect(duplicated).toBeGreaterThan(0)
  })
}

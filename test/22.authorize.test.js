// authorize(): what is told and kept before it has answered, whom it lets link, and who may only read.

import { EventEmitter } from 'node:events'
import { describe, expect, it } from 'vitest'
import { DEFAULTS } from '../lib/base/options.js'
import { withSum } from '../lib/base/sum.js'
import { errorFrame } from '../lib/links/handshake.js'
import { Links } from '../lib/links/links.js'
import { connect, listen } from '../lib/transport/tcp.js'
import { contents, converged, eventOf, FAST, openReplica, until } from './helpers.js'

const SECRET = 'sixteen bytes or more'
const [HELLO, ERROR, INTRODUCE] = [1, 6, 37]
const isDown = ({ state }) => state === 'down'
const isReadOnly = ({ code }) => code === 'REPLIC_READ_ONLY'
const typesOf = (frames) => frames.map((frame) => frame[1])
const hello = (peerId) => withSum(Buffer.of(1, HELLO, 0, peerId, 7, 0, 0, 0, 0))
const introduce = (peerId) => withSum(Buffer.of(1, INTRODUCE, 0, 0, 0, peerId))

/** A link over a socket that the test holds, with a core that notes what it is told. */
function held(authorize, info, options) {
  const core = { opened: [], taken: [] }
  const native = {
    linkOpen: (...args) => core.opened.push(args.slice(1)),
    linkClose() {},
    tick() {},
    receive: (_, bytes) => core.taken.push(bytes),
  }
  const callbacks = { emit() {}, soon() {}, total: () => 0 }
  const links = new Links(
    native,
    callbacks,
    { ...DEFAULTS, ...options, authorize },
    { peerId: 11, keys: [] },
  )
  const sent = []
  const socket = Object.assign(new EventEmitter(), {
    send: (bytes) => sent.push(bytes),
    close() {},
  })
  const link = links.add(socket, { transport: 'test', ...info })
  const told = (bytes) => socket.emit('message', bytes)
  return { core, sent, link, told, stop: () => links.stop() }
}

/** What authorize() is asked about, and how to answer. */
function asking() {
  const asked = { peerIds: [] }
  asked.authorize = (peerId) => {
    asked.peerIds.push(peerId)
    return new Promise((resolve) => {
      asked.answer = resolve
    })
  }
  return asked
}

describe('before authorize() has said yes', () => {
  it('a side says who it is, at every heartbeat, and nothing else', async () => {
    const asked = asking()
    const { core, sent, link, told, stop } = held(asked.authorize)
    link.beat()
    told(hello(12))
    link.beat()
    expect(sent).toEqual([introduce(11), introduce(11), introduce(11)])
    expect(core).toEqual({ opened: [], taken: [] })
    asked.answer(true)
    await until(() => core.taken.length > 0)
    link.beat()
    expect(sent).toHaveLength(3)
    expect(core).toEqual({ opened: [[12, false]], taken: [hello(12)] })
    stop()
  })

  it('it is asked about who introduces itself', async () => {
    const asked = asking()
    const { core, sent, link, told, stop } = held(asked.authorize, { isAccepted: true })
    link.beat()
    told(introduce(12))
    told(introduce(12))
    link.beat()
    expect(sent).toEqual([introduce(11), introduce(11), introduce(11)])
    expect(asked.peerIds).toEqual([12])
    asked.answer({ write: false })
    await until(() => core.opened.length > 0)
    expect(core).toEqual({ opened: [[12, true]], taken: [] })
    told(introduce(12)) // late
    told(hello(12))
    expect(core.taken).toEqual([hello(12)])
    stop()
  })

  it.each([
    ['another HELLO', hello(7), 'REPLIC_PEER'],
    ['another name', introduce(7), 'REPLIC_PEER'],
    ['a HELLO of nobody', hello(0), 'REPLIC_PROTOCOL'],
    ['the name of nobody', introduce(0), 'REPLIC_PROTOCOL'],
    ['a name that is too short', withSum(Buffer.of(1, INTRODUCE, 0, 0, 12)), 'REPLIC_PROTOCOL'],
    ['a damaged HELLO', Buffer.concat([hello(5), Buffer.of(0)]), 'REPLIC_PROTOCOL'],
    ['a damaged name', Buffer.of(1, INTRODUCE, 0, 0, 0, 5, 0, 0, 0, 0), 'REPLIC_PROTOCOL'],
    ['another version', Buffer.of(2, HELLO), 'REPLIC_VERSION'],
  ])('%s ends the link', async (_, frame, code) => {
    const asked = asking()
    const { core, sent, link, told, stop } = held(asked.authorize, { isAccepted: true })
    told(hello(5))
    told(frame)
    expect(link.error).toMatchObject({ code })
    expect(typesOf(sent)).toEqual([INTRODUCE, ERROR])
    asked.answer(true)
    await new Promise((resolve) => setImmediate(resolve))
    expect(core).toEqual({ opened: [], taken: [] })
    expect(asked.peerIds).toEqual([5])
    stop()
  })

  it('whom it is not asked about is not waited for: another peerId than the expected one', () => {
    const asked = asking()
    const { link, told, stop } = held(asked.authorize, { peerId: 12 })
    told(hello(5))
    expect(link.error).toMatchObject({ code: 'REPLIC_PEER' })
    expect(asked.peerIds).toEqual([])
    stop()
  })

  it('it is blamed for its silence; once it has answered, the other side is for its own', async () => {
    const asked = asking()
    const silent = () => new Promise(() => {})
    const ends = [silent, asked.authorize].map((authorize) =>
      held(authorize, { isAccepted: true }, { linkTimeoutMs: 10 }),
    )
    for (const { told } of ends) told(introduce(12))
    asked.answer(true)
    await until(() => ends.every(({ link }) => link.error))
    expect(ends.map(({ link }) => link.error.message)).toEqual([
      'authorize() has not answered within 10 ms',
      'no HELLO within 10 ms',
    ])
    expect(typesOf(ends[0].sent)).toEqual([INTRODUCE, ERROR])
    expect(typesOf(ends[1].sent)).toEqual([INTRODUCE])
    for (const { stop } of ends) stop()
  })

  it('an ERROR of the other side ends the link', () => {
    const { link, told, stop } = held(() => true)
    told(errorFrame({ code: 'REPLIC_BUSY', message: 'x' }))
    expect(link.error).toMatchObject({ code: 'REPLIC_BUSY' })
    stop()
  })
})

/** Two replicas, the first of which dials the second. */
async function dialing(one, two) {
  const options = { heartbeatMs: 20 }
  const a = await openReplica({ peerId: 11, ...options, ...one })
  const b = await openReplica({ peerId: 12, ...options, ...two })
  const { port } = (await listen(b)).address()
  return { a, b, dial: () => connect(a, { port, ...FAST }) }
}

describe.each([
  ['a secret', SECRET],
  ['no secret', undefined],
])('replicas with %s', (_, secret) => {
  it('link where both ask authorize()', async () => {
    const asked = []
    const authorize = async (peerId) => asked.push(peerId)
    const { a, b, dial } = await dialing({ secret, authorize }, { secret, authorize })
    await Promise.all([a.upsert('note', { id: 1 }), b.upsert('note', { id: 2 })])
    dial()
    expect((await converged(a, b)).note).toHaveLength(2)
    expect(asked.sort()).toEqual([11, 12])
  })

  it('end where authorize() does not answer, and say so on both sides', async () => {
    const options = { secret, linkTimeoutMs: 300, authorize: () => new Promise(() => {}) }
    const { a, b, dial } = await dialing({ secret }, options)
    const isTold = ({ code }) => code === 'REPLIC_TIMEOUT'
    const told = [eventOf(a, 'link', isTold), eventOf(b, 'link', isTold)]
    dial()
    const [there, here] = await Promise.all(told)
    expect(here.reason).toContain('authorize() has not answered within 300 ms')
    expect(there.reason).toContain('authorize() has not answered within 300 ms')
  })

  it.each([
    ['writes: false', { writes: false }],
    ['write: "no"', { write: 'no' }],
    ['nothing', {}],
    ['more than there is', { write: true, delete: false }],
  ])('refuse who is answered with an object that says %s', async (_name, answer) => {
    const { b, dial } = await dialing({ secret }, { secret, authorize: () => answer })
    const down = eventOf(b, 'link', isDown)
    const connection = dial()
    expect(await down).toMatchObject({
      code: 'REPLIC_AUTH',
      reason: expect.stringContaining('{ write: boolean }'),
    })
    await connection.close()
  })

  // The dashboard dials the hub, or the hub the dashboard.
  it.each([
    ['dials', 0],
    ['listens', 1],
  ])('take nothing of who may only read, who %s', async (_name, at) => {
    const rights = { secret, authorize: () => ({ write: false }) }
    const both = at === 0 ? [{ secret }, rights] : [rights, { secret }]
    const { a, b, dial } = await dialing(...both)
    const [board, hub] = at === 0 ? [a, b] : [b, a]
    const [boardId, hubId] = [board, hub].map((db) => db.status().peerId)
    await board.upsert('note', { id: 1, text: 'board' })
    await hub.upsert('note', { id: 1, text: 'hub' })
    await hub.upsert('note', { id: 2, text: 'hub' })
    const before = await contents(hub)
    const said = [eventOf(board, 'link', isReadOnly), eventOf(hub, 'link', isReadOnly)]
    const connection = dial()
    for (const event of await Promise.all(said)) {
      expect(event).toMatchObject({ state: 'error', link: 1 })
      expect(event.reason).toContain(`peer ${boardId} may only read at peer ${hubId}`)
    }
    await board.waitFor(`${hubId}.2`, 60_000)
    await board.upsert('note', { id: 3, text: 'board' })
    await hub.upsert('note', { id: 4, text: 'hub' })
    await board.waitFor(`${hubId}.3`, 60_000)
    const link = (db) => db.status().links[0]
    expect(link(hub)).toMatchObject({ state: 'ready', peerMayWrite: false, selfMayWrite: true })
    expect(link(board)).toMatchObject({ state: 'ready', peerMayWrite: true, selfMayWrite: false })
    await until(() => link(hub).lag === 0 && link(board).lag === 2)
    expect(hub.status().vector).toEqual({ [hubId]: 3 })
    const { tables } = await contents(hub)
    expect(tables.note).toHaveLength(before.tables.note.length + 1)
    expect(await board.close({ flushMs: 600_000 })).toEqual({
      flushed: false,
      unacknowledged: { [boardId]: 2 },
      refusedBy: [hubId],
    })
    expect(await hub.close()).toMatchObject({ flushed: false, refusedBy: [] }) // only who may only read has it
    await connection.close()
  })
})

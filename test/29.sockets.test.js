// Sockets that do anything but what they should: each method and getter, at each moment of a link, throws, rejects, or
// gives a promise that never settles. That ends the link at most; all else goes on, and close() ends.

import { EventEmitter } from 'node:events'
import { describe, expect, it, onTestFinished } from 'vitest'
import { randomFrom } from '../examples/demo/random.js'
import { converged, eventOf, openReplica, rejects, throws, until } from './helpers.js'

const isUp = ({ state }) => state === 'up'
const isDown = ({ state }) => state === 'down'

const FAST = { heartbeatMs: 20, linkTimeoutMs: 2_000 } // as one that swallows what it is given ends by silence

const OUTCOMES = {
  throws: () => {
    throw new Error('as it likes')
  },
  'throws nothing': () => {
    throw undefined
  },
  'throws what cannot be read': () => {
    throw new Proxy(new Error('no'), {
      get() {
        throw new Error('of an error')
      },
    })
  },
  rejects: () => Promise.reject(new Error('as it likes')),
  'is no promise, and calls back twice': () => ({
    // biome-ignore lint/suspicious/noThenProperty: that is what is tested
    then(_, failed) {
      failed(new Error('once'))
      failed(new Error('and again'))
    },
  }),
  'never settles': () => new Promise(() => {}),
}
const METHODS = ['send', 'close', 'closeFor', 'terminate', 'cork', 'uncork', 'pause', 'resume']
const GETTERS = ['readyState', 'isSealed', 'peerId', 'details', 'bufferedAmount']
const CASES = [
  ...METHODS.flatMap((name) => Object.keys(OUTCOMES).map((outcome) => ({ name, outcome }))),
  ...GETTERS.map((name) => ({ name, outcome: 'throws', isGetter: true })),
]

/** Two ends of a connection, of Node's kind. */
class Socket extends EventEmitter {
  static pair() {
    const ends = [new Socket(), new Socket()]
    for (const [i, end] of ends.entries()) {
      end.send = (frame) => queueMicrotask(() => ends[1 - i].emit('message', frame))
      end.close = () => {
        for (const each of ends) queueMicrotask(() => each.emit('close'))
      }
    }
    return ends
  }

  spoil({ name, outcome, isGetter }) {
    const act = OUTCOMES[outcome]
    if (name === 'terminate') this.close = () => {} // so that it is needed
    if (isGetter) Object.defineProperty(this, name, { get: act })
    else this[name] = act
  }
}

/** A socket as browsers have it, for a peer that never answers. */
class Browser extends EventTarget {
  binaryType = 'blob'
  bufferedAmount = 0
  readyState = 1
  send() {}
  close() {
    queueMicrotask(() => this.dispatchEvent(new Event('close')))
  }

  spoil({ name, outcome, isGetter }) {
    const act = OUTCOMES[outcome]
    if (isGetter) Object.defineProperty(this, name, { get: act, set: act })
    else this[name] = act
  }
}

/** Two replicas with a sound link at last, and what is thrown where nobody catches it. */
async function pair() {
  const stray = []
  const note = (error) => stray.push(error)
  for (const name of ['uncaughtException', 'unhandledRejection']) {
    process.on(name, note)
    onTestFinished(() => process.off(name, note))
  }
  const a = await openReplica({ peerId: 11, ...FAST })
  const b = await openReplica({ peerId: 12, ...FAST })
  const downs = []
  a.on('link', (event) => isDown(event) && downs.push(event.link))
  const join = async ([near, far] = Socket.pair()) => {
    const up = eventOf(b, 'link', isUp)
    const id = a.addRemotePeer(null, near)
    b.addRemotePeer(null, far)
    await up
    return id
  }
  return { a, b, downs, join, stray }
}

/** What must still be so: both write, the other has it, and both end. */
async function goOn({ a, b, stray }) {
  await Promise.all([
    a.upsert('note', { id: 1, text: 'a' }),
    b.upsert('note', { id: 2, text: 'b' }),
  ])
  await converged(a, b)
  await Promise.all([a.close(), b.close()])
  expect([a.status().state, b.status().state]).toEqual(['closed', 'closed'])
  await new Promise((resolve) => setImmediate(resolve))
  expect(stray).toEqual([])
}

// Called at once, or with each heartbeat: then the link ends where one fails.
const isUsed = ({ name, outcome }) =>
  ['send', 'cork', 'uncork'].includes(name) && outcome !== 'never settles'

describe('a socket whose method or getter fails', () => {
  it('from the beginning', async () => {
    const all = await pair()
    const ids = []
    for (const each of CASES) {
      const [near] = Socket.pair()
      near.spoil(each)
      const id = all.a.addRemotePeer(null, near)
      if (isUsed(each)) ids.push(id)
      else if (each.name === 'readyState') ids.push(id)
    }
    await until(() => ids.every((id) => all.downs.includes(id)))
    await all.join()
    await goOn(all)
  })

  it('once the link is up', async () => {
    const all = await pair()
    const ids = []
    const spoilers = []
    for (const each of CASES) {
      const sockets = Socket.pair()
      const id = await all.join(sockets)
      spoilers.push(() => sockets[0].spoil(each))
      if (isUsed(each)) ids.push(id)
    }
    for (const spoil of spoilers) spoil()
    await all.join()
    await until(() => ids.every((id) => all.downs.includes(id)))
    await goOn(all)
  })

  it('when it is to end', async () => {
    const all = await pair()
    const spoilers = []
    for (const each of CASES) {
      const sockets = Socket.pair()
      await all.join(sockets)
      spoilers.push(() => sockets[0].spoil(each))
    }
    await all.a.upsert('note', { id: 3 })
    await converged(all.a, all.b)
    for (const spoil of spoilers) spoil()
    await all.a.close()
    expect(all.a.status().state).toBe('closed')
    await all.b.close()
    expect(all.stray).toEqual([])
  })

  it('of a browser’s kind, at each of these moments', async () => {
    const all = await pair()
    const cases = [
      ...CASES.filter(({ name }) => name !== 'bufferedAmount' && name !== 'readyState'),
      { name: 'addEventListener', outcome: 'throws' },
    ]
    const later = []
    for (const each of cases) {
      const [early, late] = [new Browser(), new Browser()]
      early.spoil(each)
      all.a.addRemotePeer(null, early)
      all.a.addRemotePeer(null, late)
      later.push(() => late.spoil(each))
    }
    for (const name of ['bufferedAmount', 'readyState', 'binaryType']) {
      const late = new Browser()
      all.a.addRemotePeer(null, late)
      later.push(() => late.spoil({ name, outcome: 'throws', isGetter: true }))
    }
    for (const spoil of later) spoil()
    await all.join()
    await goOn(all)
  })

  it('is none where it cannot even be looked at', async () => {
    const { a } = await pair()
    for (const name of ['on', 'send', 'close']) {
      const [near] = Socket.pair()
      Object.defineProperty(near, name, { get: OUTCOMES.throws })
      throws(() => a.addRemotePeer(null, near), 'REPLIC_USAGE', 'a socket has')
    }
    const [near] = Socket.pair()
    near.on = OUTCOMES.throws
    const down = eventOf(a, 'link', isDown)
    a.addRemotePeer(null, near)
    expect(await down).toMatchObject({ reason: 'as it likes' })
  })
})

// As over a socket of the application's that has no integrity of its own.
describe('a line that changes bits', () => {
  it.each([
    ['without a secret', 40, {}],
    ['with a secret', 20, { secret: 'a secret of the tests, long enough' }],
  ])('%s ends links, and no changed bit becomes data', async (_, sessions, options) => {
    const random = randomFrom(1)
    const a = await openReplica({ peerId: 11, ...FAST, ...options })
    const b = await openReplica({ peerId: 12, ...FAST, ...options })
    const text = (id) => `row ${id}`
    for (let id = 1; id <= sessions; id++) {
      await a.upsert('note', { id, text: text(id) })
      const [near, far] = Socket.pair()
      const { send } = near
      let sound = random(8) // so many frames come over as they were
      near.send = (frame) => {
        const changed = Buffer.from(frame)
        if (sound-- <= 0) changed[random(frame.length)] ^= 1 << random(8)
        send(changed)
      }
      const downs = [a, b].map((db) => eventOf(db, 'link', isDown))
      a.addRemotePeer(null, near)
      b.addRemotePeer(null, far)
      await Promise.all(downs)
      for (const row of await b.all('SELECT id, text FROM note')) {
        expect(row).toEqual({ id: row.id, text: text(row.id) })
      }
    }
    const up = eventOf(b, 'link', isUp)
    const [near, far] = Socket.pair()
    a.addRemotePeer(null, near)
    b.addRemotePeer(null, far)
    await up
    await converged(a, b)
    expect(await b.get('SELECT count(*) AS n FROM note')).toEqual({ n: sessions })
  })
})

describe('a socket that', () => {
  it('tells everything twice, before it is open and after its end, is heard once', async () => {
    const all = await pair()
    const [near, far] = Socket.pair()
    const emit = near.emit.bind(near)
    near.readyState = 0
    near.emit = (...args) => emit(...args) && emit(...args)
    all.a.addRemotePeer(null, near)
    all.b.addRemotePeer(null, far)
    near.emit('message', Buffer.from([1, 3]))
    near.emit('error', undefined)
    const up = eventOf(all.a, 'link', isUp)
    near.emit('open')
    await up
    far.close()
    await until(() => all.downs.length > 0)
    near.emit('message', Buffer.from([1, 1]))
    near.emit('error', new Error('too late'))
    near.emit('open')
    near.emit('close')
    await all.join()
    await goOn(all)
    expect(all.downs.filter((id) => id === 1)).toHaveLength(1)
  })

  it('fails once the link has ended with a reason does not take its place', async () => {
    const all = await pair()
    const [near, far] = Socket.pair()
    const { close } = near
    near.close = () => {
      near.emit('error', Object.assign(new Error('ended by the other party'), { code: 'EPIPE' }))
      close()
    }
    const down = eventOf(all.a, 'link', isDown)
    all.a.addRemotePeer(13, near)
    all.b.addRemotePeer(null, far)
    expect(await down).toMatchObject({ code: 'REPLIC_PEER' })
    await all.join()
    await goOn(all)
  })

  it('uses its bytes again is understood, also while authorize() runs', async () => {
    let permit
    const asked = new Promise((resolve) => {
      permit = resolve
    })
    const a = await openReplica({ peerId: 11, authorize: () => asked, heartbeatMs: 60_000 })
    const b = await openReplica({ peerId: 12, heartbeatMs: 60_000 })
    const [near, far] = Socket.pair()
    const bytes = Buffer.alloc(4096)
    let frames = 0
    far.send = (frame) => {
      bytes.set(frame)
      near.emit('message', bytes.subarray(0, frame.length))
      bytes.fill(0xff)
      if (++frames === 1) setImmediate(() => permit(true))
    }
    await b.upsert('note', { id: 1, text: 'whole' })
    const up = eventOf(a, 'link', isUp)
    a.addRemotePeer(null, near)
    b.addRemotePeer(null, far)
    await up
    await converged(a, b)
  })
})

describe('authorize() that', () => {
  it.each(Object.keys(OUTCOMES))('%s refuses the link', async (outcome) => {
    const isLate = outcome === 'never settles'
    const options = isLate ? { linkTimeoutMs: 100, heartbeatMs: 20 } : {}
    const a = await openReplica({ peerId: 11, authorize: OUTCOMES[outcome], ...options })
    const b = await openReplica({ peerId: 12 })
    const [near, far] = Socket.pair()
    const down = eventOf(a, 'link', isDown)
    a.addRemotePeer(null, near)
    b.addRemotePeer(null, far)
    expect(await down).toMatchObject({ code: isLate ? 'REPLIC_TIMEOUT' : 'REPLIC_AUTH' })
    await a.upsert('note', { id: 1 })
    await rejects(b.waitFor('11.1', 0), 'REPLIC_TIMEOUT')
    await Promise.all([a.close(), b.close()])
  })
})

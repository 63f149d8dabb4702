// Peers that meet on a bus: any that an application brings, NATS and Redis.

import { connect } from '@nats-io/transport-node'
import { createClient, createCluster } from 'redis'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { linksOf as innards } from '../lib/links/registry.js'
import { keyOf } from '../lib/links/secret.js'
import { bus } from '../lib/transport/bus.js'
import * as format from '../lib/transport/bus-message.js'
import { nats } from '../lib/transport/nats.js'
import { redis } from '../lib/transport/redis.js'
import { isTested } from './chaos/play.js'
import {
  converged,
  eventOf,
  link,
  openReplica,
  rejects,
  synced,
  tableDdl,
  tempDir,
  until,
} from './helpers.js'
import { startNats, startRedis, startRedisCluster, whyNoServer } from './servers.js'

const hasNats = isTested('NATS', whyNoServer('nats-server'))
const hasRedis = isTested('Redis', whyNoServer('redis-server'))

const many = (n, from = 0) => Array.from({ length: n }, (_, i) => ({ id: from + i, text: 'x' }))
const QUICK = { heartbeatMs: 20 }
const SECRET = { secret: 'sixteen bytes or more' }

async function replicas(n, options) {
  const dbs = []
  for (let i = 0; i < n; i++) dbs.push(await openReplica({ peerId: 11 + i, ...QUICK, ...options }))
  return dbs
}

const isUp = ({ state }) => state === 'up'
const isDown = ({ state }) => state === 'down'

const linksOf = (db) => db.status().links.filter(({ state }) => state === 'ready')
const peersOf = (db) => linksOf(db).map(({ peerId }) => peerId)

/** Resolves when each of them has a link to each of the others. */
const meshed = (...dbs) => until(() => dbs.every((db) => linksOf(db).length === dbs.length - 1))

/** A bus within the process. `fate(subject, bytes, deliver)` says what becomes of a message. */
class LocalBus {
  messages = [] // all that was published: { subject, bytes }
  #listeners = new Map() // subject -> Set
  #fate

  constructor(fate = (_subject, _bytes, deliver) => queueMicrotask(deliver)) {
    this.#fate = fate
  }

  publish = (subject, bytes) => {
    this.messages.push({ subject, bytes })
    for (const listener of this.#listeners.get(subject) ?? []) {
      this.#fate(subject, bytes, () => listener(bytes))
    }
  }

  subscribe = (subject, listener) => {
    const listeners = this.#listeners.get(subject) ?? new Set()
    this.#listeners.set(subject, listeners.add(listener))
    return () => listeners.delete(listener)
  }

  join = (db, options) =>
    bus(db, { publish: this.publish, subscribe: this.subscribe, retryMaxMs: 20, ...options })
}

const PATCHES = 2 // type of a frame
const NOTHING = { links: [], waiting: 1 }
const seen = (db) => {
  const { links } = db.status()
  const waiting = links.filter(({ state }) => state === 'waiting').length
  return { links: links.filter(({ state }) => state !== 'waiting'), waiting }
}

/** The messages that carry patches. */
const ofPatches = ({ messages }) =>
  messages
    .map(({ subject, bytes }) => ({ subject, ...format.readMessage(bytes) }))
    .filter(({ kind, body }) => kind === format.FRAME && body[1] === PATCHES)

// Who is linked to whom is told with acknowledgements. Until all know that, writes are relayed, too: the rows from 0 on.
async function acquainted(local, dbs, writers = dbs) {
  for (let id = 0, once = 0; once < 3; id++) {
    local.messages = []
    for (const db of writers) await db.upsert('note', { id, text: `of ${db.status().peerId}` })
    await synced(...dbs)
    once = ofPatches(local).length === writers.length ? once + 1 : 0
  }
  local.messages = []
}

describe('a bus', () => {
  it('links whoever joins, early or late, and unlinks who leaves', async () => {
    const [a, b, c, d] = await replicas(4)
    const local = new LocalBus()
    await Promise.all([a, b, c].map((db) => local.join(db)))
    await Promise.all([a, b, c].map((db, i) => db.upsert('note', many(100, 50 * i))))
    await meshed(a, b, c)
    await converged(a, b, c)
    expect(linksOf(a)[0]).toMatchObject({
      transport: 'bus',
      address: expect.stringMatching(/^replic\.1[23]$/),
    })
    const last = await local.join(d)
    await meshed(a, b, c, d)
    const { note } = await converged(a, b, c, d)
    expect(note).toHaveLength(200)
    const left = [a, b, c].map((db) => eventOf(db, 'link', isDown))
    await last.close()
    expect(await Promise.all(left)).toMatchObject(left.map(() => ({ peerId: 14, code: null })))
    expect(peersOf(d)).toEqual([])
    expect(last.status()).toMatchObject({ isConnected: false, links: 0 })
    await a.upsert('note', { id: 1000 })
    await converged(a, b, c)
    expect(await d.get('SELECT id FROM note WHERE id = 1000')).toBeUndefined()
  })

  it('carries a write once, whatever the number of peers', async () => {
    const dbs = await replicas(5, { heartbeatMs: 60_000 }) // so that nothing is relayed or repeated
    const local = new LocalBus()
    for (const db of dbs) await local.join(db)
    await meshed(...dbs)
    await acquainted(local, dbs)
    for (const row of many(20, 100_000)) {
      await dbs[0].upsert('note', row)
      await synced(...dbs)
    }
    const carried = ofPatches(local)
    expect(carried).toHaveLength(20)
    for (const { subject, to } of carried)
      expect({ subject, to }).toEqual({ subject: 'replic.all', to: [] })
    await converged(...dbs)
  })

  it('names the receivers where they are not all', async () => {
    const dbs = await replicas(4, { heartbeatMs: 60_000 })
    const [a, b] = dbs
    await link(a, b) // the older link carries what a has for b
    const local = new LocalBus()
    const standby = [a, b].map((db) => eventOf(db, 'link', ({ state }) => state === 'standby'))
    for (const db of dbs) await local.join(db)
    await Promise.all(standby)
    await meshed(...dbs)
    await acquainted(local, dbs, [a])
    await a.upsert('note', { id: 100_000 })
    await converged(...dbs)
    expect(ofPatches(local)).toMatchObject([{ subject: 'replic.all', to: [13, 14] }])
  })

  it('keeps prefixes apart', async () => {
    const [a, b] = await replicas(2)
    const local = new LocalBus()
    await local.join(a, { prefix: 'one' })
    await local.join(b, { prefix: 'two' })
    const heard = local.messages.length + 6
    await until(() => local.messages.length > heard)
    expect([seen(a), seen(b)]).toEqual([NOTHING, NOTHING])
    await local.join(b, { prefix: 'one' })
    await meshed(a, b)
  })

  it('links a peer that has started anew at once', async () => {
    const [a, b] = await replicas(2, { heartbeatMs: 1000 })
    const path = `${tempDir()}/c.db`
    const local = new LocalBus()
    const open = () => openReplica({ path, peerId: 13 })
    let crashed = false
    const c = await open()
    for (const db of [a, b]) await local.join(db)
    await local.join(c, { publish: (...args) => crashed || local.publish(...args) })
    await meshed(a, b, c)
    await c.upsert('note', { id: 1 })
    await synced(a, b, c)
    crashed = true
    await c.close()
    expect(peersOf(a)).toContain(13)
    const events = [a, b].map((db) => {
      const of = (wanted) => eventOf(db, 'link', (event) => event.peerId === 13 && wanted(event))
      return Promise.all([of(isDown), of(isUp)])
    })
    const again = await open()
    await local.join(again)
    for (const [down, up] of await Promise.all(events)) {
      expect([down.code, up.state]).toEqual([null, 'up'])
    }
    await again.upsert('note', { id: 2 })
    const { note } = await converged(a, b, again)
    expect(note).toHaveLength(2)
  })

  it('tells two peers with one peerId', async () => {
    const [a] = await replicas(1)
    const other = await openReplica({ peerId: 11, ...QUICK })
    const local = new LocalBus()
    const told = [a, other].map((db) => eventOf(db, 'link'))
    for (const db of [a, other]) await local.join(db)
    for (const event of await Promise.all(told)) {
      expect(event).toMatchObject({ peerId: null, link: null, state: 'down', code: 'REPLIC_PEER' })
    }
  })

  it('is left by closeRemotePeer until either side joins anew', async () => {
    const [a, b, c] = await replicas(3)
    const local = new LocalBus()
    const joined = await local.join(a)
    for (const db of [b, c]) await local.join(db)
    await meshed(a, b, c)
    const down = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    expect(a.closeRemotePeer(12)).toBe(true)
    await Promise.all(down)
    const { sent } = joined.status()
    await until(() => joined.status().sent > sent + 20)
    expect([peersOf(a), peersOf(b)]).toEqual([[13], [13]])
    await a.upsert('note', { id: 1 })
    await converged(a, b, c) // c passes it on
    await joined.close()
    await local.join(a)
    await meshed(a, b, c)
  })

  it('asks authorize()', async () => {
    const asked = []
    const authorize = (peerId, info) => asked.push([peerId, info]) && peerId !== 13
    const [b, c] = [
      await openReplica({ peerId: 12, ...QUICK }),
      await openReplica({ peerId: 13, ...QUICK }),
    ]
    const a = await openReplica({ peerId: 11, authorize, ...QUICK })
    const local = new LocalBus()
    const refused = eventOf(c, 'link', ({ code }) => code === 'REPLIC_AUTH')
    for (const db of [a, b, c]) await local.join(db)
    await refused
    await until(() => peersOf(a).length === 1)
    expect(peersOf(a)).toEqual([12])
    expect(asked[0][1]).toMatchObject({ transport: 'bus', address: 'replic.12', isAccepted: true })
  })

  it('has room for maxLinks', async () => {
    const a = await openReplica({ peerId: 11, maxLinks: 1, ...QUICK })
    const [, b, c] = await replicas(3)
    const local = new LocalBus()
    for (const db of [a, b, c]) await local.join(db)
    await until(() => peersOf(b).includes(13) && peersOf(a).length === 1)
    await a.upsert('note', { id: 1 })
    await converged(a, b, c)
  })
})

describe('what a bus does to messages', () => {
  // Reproducible, unlike Math.random.
  const dice = () => {
    let state = 1
    return (sides) => {
      state = (state * 48271) % 2147483647
      return state % sides
    }
  }
  const fates = {
    'loses every fourth': (roll) => (_subject, _bytes, deliver) => {
      if (roll(4)) queueMicrotask(deliver)
    },
    'delivers twice': () => (_subject, _bytes, deliver) => {
      queueMicrotask(deliver)
      setImmediate(deliver)
    },
    'delivers in any order': (roll) => (_subject, _bytes, deliver) => {
      let turns = roll(5)
      const later = () => (turns-- > 0 ? setImmediate(later) : deliver())
      later()
    },
  }

  it.each(Object.keys(fates))('%s', async (name) => {
    const dbs = await replicas(3, { sliceBytes: 2000, ...SECRET })
    const local = new LocalBus(fates[name](dice()))
    for (const db of dbs) await local.join(db, { maxMessageBytes: 4096 })
    for (let round = 0; round < 10; round++) {
      await Promise.all(dbs.map((db, i) => db.upsert('note', many(200, 100 * (round + i)))))
    }
    const { note } = await converged(...dbs)
    expect(note).toHaveLength(1300)
  })

  it('a group of 20 MB goes in parts; where one is lost, it comes again', async () => {
    const ddl = tableDdl('t', ['id INTEGER NOT NULL', 'v BLOB'], 'id')
    const [a, b] = await replicas(2, { ddl, ...SECRET })
    let parts = 0
    const local = new LocalBus((_subject, bytes, deliver) => {
      const isPart = format.readMessage(bytes).kind === format.PART
      if (isPart && ++parts === 100) return
      expect(bytes.length).toBeLessThanOrEqual(65_536)
      queueMicrotask(deliver)
    })
    for (const db of [a, b]) await local.join(db, { maxMessageBytes: 65_536 })
    await meshed(a, b)
    const bytes = Buffer.alloc(20_000_000, 'replic')
    await a.upsert('t', { id: 1, v: bytes })
    await synced(a, b)
    const { v } = await b.get('SELECT v FROM t')
    expect(bytes.equals(v)).toBe(true)
    expect(parts).toBeGreaterThan(2 * 306 - 2)
  })

  it('it cannot be paused: what a busy peer gets waits, within bounds', async () => {
    const [a, b] = await replicas(2, { maxQueueBytes: 4096, sliceBytes: 1000 })
    const local = new LocalBus()
    for (const db of [a, b]) await local.join(db)
    await meshed(a, b)
    for (let i = 0; i < 30; i++) await a.upsert('note', many(10, 10 * i))
    const { note } = await converged(a, b)
    expect(note).toHaveLength(300)
  })
})

describe('a bus that goes down', () => {
  it('and says so: links end at once, and come back with it', async () => {
    const dbs = await replicas(3, { heartbeatMs: 60_000 })
    const local = new LocalBus()
    const joined = []
    for (const db of dbs) joined.push(await local.join(db))
    await meshed(...dbs)
    for (let round = 0; round < 3; round++) {
      const downs = dbs.map((db) => eventOf(db, 'link', isDown))
      for (const each of joined) each.disconnected()
      expect(await Promise.all(downs)).toMatchObject(dbs.map(() => ({ code: 'ENOTCONN' })))
      await until(() => dbs.every((db) => seen(db).links.length === 0))
      expect(dbs[0].status().links).toMatchObject([
        { state: 'waiting', transport: 'bus', lastError: { code: 'ENOTCONN' } },
      ])
      const before = local.messages.length
      await Promise.all(dbs.map((db, i) => db.upsert('note', many(50, 50 * (round + i)))))
      expect(local.messages).toHaveLength(before)
      for (const each of joined) each.connected()
      await meshed(...dbs)
      await converged(...dbs)
    }
  })

  it('and says so to one of them only', async () => {
    const dbs = await replicas(3)
    const local = new LocalBus()
    const [first] = [await local.join(dbs[0]), await local.join(dbs[1]), await local.join(dbs[2])]
    await meshed(...dbs)
    const down = eventOf(dbs[0], 'link', isDown)
    first.disconnected(Object.assign(new Error('cable'), { code: 'EPIPE' }))
    expect(await down).toMatchObject({ code: 'EPIPE', reason: 'cable' })
    await dbs[0].upsert('note', { id: 1 })
    first.connected()
    await converged(...dbs)
    await meshed(...dbs)
  })

  it.each(['swallows messages', 'refuses them', 'throws'])('and %s', async (how) => {
    const dbs = await replicas(2, { linkTimeoutMs: 200 })
    const local = new LocalBus()
    let isDead = false
    const publish = (subject, bytes) => {
      if (!isDead) return local.publish(subject, bytes)
      const error = new Error('no server')
      if (how === 'throws') throw error
      return how === 'refuses them' ? Promise.reject(error) : undefined
    }
    for (const db of dbs) await local.join(db, { publish })
    await meshed(...dbs)
    const downs = dbs.map((db) => eventOf(db, 'link', isDown))
    isDead = true
    await dbs[0].upsert('note', { id: 1 })
    expect(await Promise.all(downs)).toMatchObject(dbs.map(() => ({ code: 'REPLIC_TIMEOUT' })))
    isDead = false
    await converged(...dbs)
    await meshed(...dbs)
  })
})

describe('who is let in', () => {
  const sealedIn = (message, secret) =>
    format.unsealed(message, format.senderKey(secret, { ...message, prefix: 'replic' }))

  const secrets = {
    'another secret': [
      SECRET.secret,
      'another one of many bytes',
      'another secret',
      'another secret',
    ],
    'no secret': [SECRET.secret, undefined, 'not been given a secret', 'this one has none'],
  }

  it.each(Object.keys(secrets))('nobody with %s', async (name) => {
    const [mine, theirs, nearReason, farReason] = secrets[name]
    const [a, b, c] = [
      await openReplica({ peerId: 11, secret: mine, ...QUICK }),
      await openReplica({ peerId: 12, secret: theirs, ...QUICK }),
      await openReplica({ peerId: 13, secret: mine, ...QUICK }),
    ]
    const local = new LocalBus()
    const told = [a, b].map((db) => eventOf(db, 'link', ({ code }) => code === 'REPLIC_AUTH'))
    const [joined] = [await local.join(a), await local.join(b), await local.join(c)]
    const [near, far] = await Promise.all(told)
    expect(near).toMatchObject({ peerId: null, link: null, state: 'down', transport: 'bus' })
    expect(near.reason).toContain(nearReason)
    expect(far.reason).toContain(farReason)
    await until(() => peersOf(a).length === 1 && joined.status().refused > 3)
    await a.upsert('note', { id: 1 })
    await converged(a, c)
    expect(peersOf(a)).toEqual([13])
    expect(seen(b)).toEqual(NOTHING)
    expect(b.status().links[0].lastError).toMatchObject({ code: 'REPLIC_AUTH' })
  })

  it('no message of which a bit was changed', async () => {
    const [a, b] = await replicas(2, SECRET)
    const local = new LocalBus()
    const [joined] = [await local.join(a), await local.join(b)]
    await meshed(a, b)
    const isFrame = ({ subject, bytes }) =>
      subject === 'replic.11' && format.readMessage(bytes).kind === format.FRAME
    await until(() => local.messages.some(isFrame))
    const { bytes } = local.messages.find(isFrame)
    const { received } = joined.status()
    const key = await keyOf(SECRET.secret)
    const isGenuine = (each, secret) => {
      const message = format.readMessage(each)
      return message && sealedIn(message, secret)
    }
    local.messages = []
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const changed = Buffer.from(bytes)
      changed[bit >> 3] ^= 1 << (bit & 7)
      local.publish('replic.11', changed)
    }
    local.publish('replic.11', bytes) // unchanged, it is a message, though an old one
    const genuine = local.messages.filter(
      ({ subject, bytes: each }) => subject !== 'replic.12' && isGenuine(each, key),
    )
    await until(() => joined.status().received > received)
    expect(genuine.length).toBeGreaterThan(0)
    await a.upsert('note', { id: 1 })
    await converged(a, b)
    expect(linksOf(a)).toHaveLength(1)
  })

  it('no recordings', async () => {
    const [a, b] = await replicas(2, SECRET)
    const path = `${tempDir()}/c.db`
    const c = await openReplica({ path, peerId: 13, ...QUICK, ...SECRET })
    const local = new LocalBus()
    const joined = await local.join(b)
    for (const db of [a, c]) await local.join(db)
    await meshed(a, b, c)
    await a.upsert('note', { id: 1 })
    await synced(a, b, c)
    await a.close()
    await c.close()
    await until(() => seen(b).links.length === 0)
    const recorded = local.messages
    local.messages = []
    const play = async () => {
      const { received } = joined.status()
      for (const { subject, bytes } of recorded) local.publish(subject, bytes)
      await until(() => joined.status().received > received)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await play() // to whom they were meant for
    expect(seen(b)).toEqual(NOTHING)
    const again = await openReplica({ path, peerId: 13, ...QUICK, ...SECRET })
    const anew = await local.join(again)
    await meshed(b, again)
    const { received } = anew.status()
    await play() // and to one that has started anew
    await until(() => anew.status().received > received)
    expect([peersOf(b), peersOf(again)]).toEqual([[13], [12]])
    expect([seen(b).links, seen(again).links]).toMatchObject([[{}], [{}]])
    await b.upsert('note', { id: 2 })
    await converged(b, again)
  })

  it('no recordings of what was for all, from before it joined', async () => {
    const dbs = await replicas(3, { ...SECRET, heartbeatMs: 60_000 })
    const [a, b, c] = dbs
    const local = new LocalBus()
    for (const db of [a, b]) await local.join(db)
    const before = await local.join(c)
    await meshed(...dbs)
    for (const row of many(3)) await a.upsert('note', row)
    await synced(...dbs)
    await before.close()
    await until(() => linksOf(a).length === 1)
    const recorded = local.messages
      .filter(({ subject }) => subject === 'replic.all')
      .map(({ bytes }) => format.readMessage(bytes))
      .filter(({ kind, peerId }) => kind === format.FRAME && peerId === 11)
    const key = await keyOf(SECRET.secret)
    const frames = recorded.map((message) => sealedIn(message, key).toString('hex'))
    expect(frames.length).toBeGreaterThan(0)

    const joined = await local.join(c)
    await meshed(...dbs)
    const core = vi.spyOn(innards(c), 'receive')
    const { received } = joined.status()
    for (const { open, body } of recorded) {
      local.publish('replic.all', Buffer.concat([open, body]))
    }
    await until(() => joined.status().received >= received + recorded.length)
    await a.upsert('note', { id: 4 })
    await converged(...dbs)
    const taken = core.mock.calls.map(([, bytes]) => Buffer.from(bytes).toString('hex'))
    expect(taken.length).toBeGreaterThan(0)
    expect(taken.filter((frame) => frames.includes(frame))).toEqual([])
  })

  it('no recordings of any instance that has been there, however many came after it', async () => {
    const [c] = await replicas(1, SECRET)
    const local = new LocalBus()
    const joined = await local.join(c)
    const { peerId, instance } = format.readMessage(local.messages[0].bytes)
    const secret = await keyOf(SECRET.secret)
    const welcomes = Array.from({ length: 20 }, (_, i) => {
      const self = {
        peerId: 12,
        instance: Buffer.alloc(format.INSTANCE_BYTES, i),
        prefix: 'replic',
      }
      const writer = new format.Writer({ ...self, secret })
      return writer.message(format.WELCOME, { peerId, instance })
    })
    const answered = () =>
      local.messages.map(({ bytes }) => format.readMessage(bytes).to.instance?.[0])
    for (const [i, welcome] of welcomes.entries()) {
      local.publish('replic.11', welcome)
      await until(() => answered().includes(i)) // with HELLO
    }
    local.messages = []
    const { received } = joined.status()
    for (const welcome of welcomes.toReversed()) local.publish('replic.11', welcome)
    await until(() => joined.status().received === received + welcomes.length)
    local.messages = []
    await until(() => answered().some((i) => i !== undefined)) // HELLO again, at the next heartbeat
    expect(new Set(answered().filter((i) => i !== undefined))).toEqual(new Set([19]))
  })

  it('no recording of who has begun is answered twice', async () => {
    const [a, b, c] = await replicas(3, { ...SECRET, heartbeatMs: 60_000 })
    const local = new LocalBus()
    const [, joined] = [await local.join(b), await local.join(c), await local.join(a)]
    await meshed(a, b, c)
    await a.close()
    await until(() => linksOf(b).length === 1 && linksOf(c).length === 1)
    const ofA = local.messages.filter(({ bytes }) => format.readMessage(bytes).peerId === 11)
    const { subject, bytes } = ofA.find(
      (each) => format.readMessage(each.bytes).kind === format.HERE,
    )
    local.messages = []
    const { received } = joined.status()
    for (let i = 0; i < 10; i++) local.publish(subject, bytes)
    await until(() => joined.status().received >= received + 10)
    const kinds = local.messages.map((each) => format.readMessage(each.bytes).kind)
    expect(kinds.filter((kind) => kind === format.WELCOME)).toEqual([])
  })

  it('nobody of another prefix, though the bus mixes them', async () => {
    const [a, b] = await replicas(2, SECRET)
    const local = new LocalBus()
    const mixing = (mine, other) => ({
      prefix: mine,
      publish: (subject, bytes) => {
        local.publish(subject, bytes)
        local.publish(subject.replace(mine, other), bytes)
      },
    })
    const joined = [
      await local.join(a, mixing('one', 'two')),
      await local.join(b, mixing('two', 'one')),
    ]
    await until(() => joined.every(({ status }) => status().refused > 1 || status().links > 0))
    expect([seen(a), seen(b)]).toEqual([NOTHING, NOTHING])
  })

  it('nothing that is no message', async () => {
    const [a, b] = await replicas(2)
    const local = new LocalBus()
    const joined = await local.join(a)
    await local.join(b)
    await meshed(a, b)
    const { bytes } = local.messages.find(({ subject }) => subject === 'replic.11')
    const others = [
      Buffer.alloc(0),
      Buffer.from('{"hello":"world"}'),
      Buffer.alloc(1_000_000, 0x52),
      'a text',
      undefined,
      Buffer.from('52420203', 'hex'),
      Buffer.concat([Buffer.from('52420303', 'hex'), bytes.subarray(4)]), // another version
      Buffer.concat([Buffer.from('52420209', 'hex'), bytes.subarray(4)]), // another kind
      ...Array.from({ length: 32 }, (_, i) => bytes.subarray(0, i)),
      Buffer.concat([
        bytes.subarray(0, 3),
        Buffer.of(3),
        bytes.subarray(4, 30),
        Buffer.of(255, 255),
      ]),
    ]
    const { ignored } = joined.status()
    for (const each of others) for (const whom of ['all', 11]) local.publish(`replic.${whom}`, each)
    await until(() => joined.status().ignored === ignored + 2 * others.length)
    await a.upsert('note', { id: 1 })
    await converged(a, b)
  })
})

describe('using it', () => {
  it('wrongly', async () => {
    const [a] = await replicas(1)
    const local = new LocalBus()
    const { publish, subscribe } = local
    await rejects(bus({}, { publish, subscribe }), 'REPLIC_USAGE', 'Replica')
    await rejects(bus(a, { subscribe }), 'REPLIC_USAGE', 'publish')
    await rejects(bus(a, { publish }), 'REPLIC_USAGE', 'subscribe')
    await rejects(bus(a, { publish, subscribe: 1 }), 'REPLIC_USAGE', 'subscribe', 'a function')
    await rejects(local.join(a, { prefx: 'x' }), 'REPLIC_USAGE', "'prefix'")
    for (const prefix of ['', 'a b', 'a.*', '>', '.a', 'a..b']) {
      await rejects(local.join(a, { prefix }), 'REPLIC_USAGE', 'prefix')
    }
    await rejects(local.join(a, { maxMessageBytes: 100 }), 'REPLIC_USAGE', 'maxMessageBytes')
    await rejects(nats(a, {}), 'REPLIC_USAGE', '@nats-io/transport-node', 'connection')
    await rejects(redis(a, { client: {} }), 'REPLIC_USAGE', 'npm package redis', 'client')
    const client = createClient()
    await rejects(redis(a, { client }), 'REPLIC_USAGE', 'connect()')
    expect(a.status().links).toEqual([])
  })

  it('where subscribing fails, or the replica closes meanwhile', async () => {
    const [a, b] = await replicas(2)
    const local = new LocalBus()
    const subscribe = async () => {
      throw Object.assign(new Error('not permitted'), { code: 'EPERM' })
    }
    await expect(local.join(a, { subscribe })).rejects.toMatchObject({ code: 'EPERM' })
    expect(a.status().links).toEqual([])
    let left = 0
    const slowly = async () => {
      await b.close()
      return () => left++
    }
    await rejects(local.join(b, { subscribe: slowly }), 'REPLIC_CLOSED')
    expect(left).toBe(2)
    await rejects(local.join(b), 'REPLIC_CLOSED')
    expect(local.messages).toEqual([])
  })
})

describe.skipIf(!hasNats)('NATS', () => {
  it('is killed and restarted', async () => {
    const server = await startNats()
    onTestFinished(() => server.close())
    const dbs = await replicas(3)
    for (const db of dbs) {
      const options = { port: server.port, reconnectTimeWait: 20, maxReconnectAttempts: -1 }
      const connection = await connect(options)
      onTestFinished(() => connection.close())
      await nats(db, { connection })
    }
    await meshed(...dbs)
    for (let round = 0; round < 3; round++) {
      const downs = dbs.map((db) => eventOf(db, 'link', isDown))
      await server.kill()
      await Promise.all(downs)
      await Promise.all(dbs.map((db, i) => db.upsert('note', many(50, 50 * (round + i)))))
      await server.restart()
      await meshed(...dbs)
      await converged(...dbs)
    }
  })

  const natsOf = async (server, options) => {
    const connection = await connect({ port: server.port, ...options })
    onTestFinished(() => connection.close())
    return connection
  }

  it('a frame beyond max_payload goes in parts, none of which is', async () => {
    const server = await startNats({ maxPayload: 8192 })
    onTestFinished(() => server.close())
    const dbs = await replicas(2)
    const joined = []
    for (const db of dbs) joined.push(await nats(db, { connection: await natsOf(server) }))
    await meshed(...dbs)
    const { sent } = joined[0].status()
    await dbs[0].upsert('note', { id: 1, text: 'é'.repeat(500_000) })
    await converged(...dbs)
    expect(joined[0].status().sent - sent).toBeGreaterThan(1_000_000 / 8192)
    expect(dbs.map((db) => linksOf(db).length)).toEqual([1, 1])
  })

  it('is drained by the application: links end, and the rest goes on', async () => {
    const server = await startNats()
    onTestFinished(() => server.close())
    const dbs = await replicas(3)
    const connections = []
    for (const db of dbs) {
      connections.push(await natsOf(server))
      await nats(db, { connection: connections.at(-1) })
    }
    await meshed(...dbs)
    const down = eventOf(dbs[0], 'link', isDown)
    await connections[0].drain()
    await down
    await until(() => seen(dbs[0]).links.length === 0)
    await dbs[0].upsert('note', { id: 1 })
    await dbs[1].upsert('note', { id: 2 })
    await converged(dbs[1], dbs[2])
    await nats(dbs[0], { connection: await natsOf(server) })
    const { note } = await converged(...dbs)
    expect(note).toHaveLength(2)
  })
})

describe.skipIf(!hasRedis)('Redis', () => {
  it.each([false, true])('is killed and restarted; sharded: %s', async (sharded) => {
    const server = await startRedis()
    onTestFinished(() => server.close())
    const dbs = await replicas(3)
    for (const db of dbs) {
      const socket = { port: Number(server.port), reconnectStrategy: 20 }
      const client = createClient({ socket }).on('error', () => {})
      await client.connect()
      onTestFinished(() => client.destroy())
      await redis(db, { client, sharded })
    }
    await meshed(...dbs)
    for (let round = 0; round < 3; round++) {
      const downs = dbs.map((db) => eventOf(db, 'link', isDown))
      await server.kill()
      await Promise.all(downs)
      await Promise.all(dbs.map((db, i) => db.upsert('note', many(50, 50 * (round + i)))))
      await server.restart()
      await meshed(...dbs)
      await converged(...dbs)
    }
  })

  it('with a client that subscribes, of the application’s own', async () => {
    const server = await startRedis()
    onTestFinished(() => server.close())
    const dbs = await replicas(2)
    const joined = []
    for (const db of dbs) {
      const clients = ['client', 'subscriber'].map(async (name) => {
        const socket = { port: Number(server.port), reconnectStrategy: 20 }
        const client = await createClient({ socket })
          .on('error', () => {})
          .connect()
        onTestFinished(() => client.destroy())
        return [name, client]
      })
      joined.push(await redis(db, Object.fromEntries(await Promise.all(clients))))
    }
    await meshed(...dbs)
    await dbs[0].upsert('note', { id: 1 })
    await converged(...dbs)
    await Promise.all(joined.map((each) => each.close()))
    await until(() => dbs.every((db) => seen(db).links.length === 0))
  })

  it.each([true, false])('a cluster of three masters; sharded: %s', async (sharded) => {
    const server = await startRedisCluster()
    onTestFinished(() => server.close())
    const dbs = await replicas(3)
    for (const [i, db] of dbs.entries()) {
      const url = `redis://127.0.0.1:${server.ports[i]}`
      const client = createCluster({ rootNodes: [{ url }] }).on('error', () => {})
      await client.connect()
      onTestFinished(() => client.destroy())
      await redis(db, { client, sharded })
    }
    await meshed(...dbs)
    for (let round = 0; round < 3; round++) {
      await Promise.all(dbs.map((db, i) => db.upsert('note', many(50, 50 * (round + i)))))
      await converged(...dbs)
    }
  })
})

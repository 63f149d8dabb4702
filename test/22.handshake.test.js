// The secret that both sides prove, authorize(), and how many may link.

import { EventEmitter } from 'node:events'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { errorFrame, Handshake, peerIdOfHello, readError } from '../lib/handshake.js'
import { Links } from '../lib/link.js'
import { DEFAULTS } from '../lib/options.js'
import { connect, listen } from '../lib/transport/tcp.js'
import { converged, eventOf, FAST, openReplica, rejects, until } from './helpers.js'

const SECRET = 'sixteen bytes or more'
const CHALLENGE = 32
const PROOF = 33
const isDown = ({ state }) => state === 'down'

/** Two sides whose frames go through `carry(frame, deliver)`. */
function pair({
  secrets = [SECRET, SECRET],
  ids = [11, 12],
  carry = (frame, deliver) => deliver(frame),
} = {}) {
  const sides = []
  const errors = []
  const queue = []
  for (const i of [0, 1]) {
    sides[i] = new Handshake({
      secret: secrets[i],
      peerId: ids[i],
      provesFirst: i === 0,
      send: (frame) => queue.push([1 - i, frame]),
    })
  }
  const run = () => {
    while (queue.length > 0) {
      const [to, frame] = queue.shift()
      carry(frame, (bytes) => {
        try {
          sides[to].take(bytes)
        } catch (error) {
          errors.push(error)
        }
      })
    }
  }
  const beat = () => {
    for (const side of sides) side.challenge()
    run()
  }
  return { sides, errors, beat, known: () => sides.map((side) => side.peerId) }
}

describe('what comes from another side may be anything:', () => {
  const frame = (...bytes) => Buffer.from(bytes)

  it('an ERROR is read whole or not at all', () => {
    const whole = errorFrame({ code: 'REPLIC_AUTH', message: 'no' })
    expect(readError(whole)).toMatchObject({
      code: 'REPLIC_AUTH',
      message: 'the other side reports: no',
    })
    for (let i = 2; i < whole.length; i++) {
      const cut = readError(whole.subarray(0, i))
      expect([i, cut.code, cut.message]).toEqual([i, 'REPLIC_PROTOCOL', 'a malformed ERROR frame'])
    }
    const endless = frame(1, 6, ...Array(2000).fill(255))
    expect(readError(endless).message).toBe('a malformed ERROR frame')
    expect(readError(frame(1, 6, 0, 0, 0)).message).toBe('a malformed ERROR frame')
  })

  it('its code is one of the list, its text one short line', () => {
    const message = `a\n2026-01-01 ${'\u202e'}forged\r\x1b[31m${'x'.repeat(100_000)}`
    const error = readError(errorFrame({ code: 'EVIL\n', message }))
    expect(error.code).toBe('REPLIC_PROTOCOL')
    expect(error.message).toMatch(/^the other side reports: a.2026-01-01 .forged..\[31mx+…$/u)
    expect(error.message).toHaveLength(500)
  })

  it('a peerId is 1 to 2^32 - 1', () => {
    const hello = (...id) => peerIdOfHello(frame(1, 1, 0, ...id))
    expect(hello(11)).toBe(11)
    expect(hello(255, 255, 255, 255, 15)).toBe(2 ** 32 - 1)
    for (const id of [[0], [128], [255, 255, 255, 255, 16], Array(9).fill(255), []]) {
      expect([id, hello(...id)]).toEqual([id, undefined])
    }
    const side = new Handshake({ secret: SECRET, peerId: 12, provesFirst: false, send: () => {} })
    const challenge = frame(1, CHALLENGE, 0, 0, 0, 0, ...Array(32).fill(7))
    expect(() => side.take(challenge)).toThrow('malformed')
  })
})

describe('two sides', () => {
  it('with one secret know each other', () => {
    const { known, beat, errors } = pair()
    beat()
    expect(known()).toEqual([12, 11])
    expect(errors).toEqual([])
  })

  it('with two secrets do not', () => {
    const { known, beat, errors } = pair({ secrets: [SECRET, `${SECRET}!`] })
    beat()
    expect(known()).toEqual([undefined, undefined])
    expect(errors[0]).toMatchObject({ code: 'REPLIC_AUTH' })
    expect(errors[0].message).toMatch(/same one on both sides/)
  })

  it('with one peerId do not', () => {
    const { known, beat, errors } = pair({ ids: [11, 11] })
    beat()
    expect(known()).toEqual([undefined, undefined])
    for (const error of errors) expect(error).toMatchObject({ code: 'REPLIC_PEER' })
  })

  // Each frame lost in turn, and pairs of them; each doubled.
  const first = [1, 2, 3, 4, 5, 6]
  it.each(first.flatMap((a) => first.map((b) => [a, b])))(
    'though frames %i and %i are lost, know each other after heartbeats',
    (a, b) => {
      let n = 0
      const { known, beat, errors } = pair({
        carry: (frame, deliver) => {
          n++
          if (n !== a && n !== b) deliver(frame)
        },
      })
      for (let i = 0; i < 6; i++) beat()
      expect(known()).toEqual([12, 11])
      expect(errors).toEqual([])
    },
  )

  it('though all frames come twice', () => {
    const { known, beat, errors } = pair({
      carry: (frame, deliver) => {
        deliver(frame)
        deliver(frame)
      },
    })
    beat()
    expect(known()).toEqual([12, 11])
    expect(errors).toEqual([])
  })
})

describe('an attacker', () => {
  /** A side that has challenged, and what it has sent since. */
  function victim(peerId = 11, provesFirst = true) {
    const sent = []
    const side = new Handshake({
      secret: SECRET,
      peerId,
      provesFirst,
      send: (frame) => sent.push(Buffer.from(frame)),
    })
    side.challenge()
    return { side, sent, nonce: sent[0].subarray(6) }
  }

  const challenge = (peerId, nonce) => {
    const id = Buffer.alloc(4)
    id.writeUInt32BE(peerId)
    return Buffer.concat([Buffer.from([1, CHALLENGE]), id, nonce])
  }
  const proofsOf = ({ sent }) => sent.filter((frame) => frame[1] === PROOF)

  it('who replays a recorded handshake is not believed', () => {
    const recorded = []
    const { beat } = pair({
      carry: (frame, deliver) => {
        recorded.push(Buffer.from(frame))
        deliver(frame)
      },
    })
    beat()
    const { side } = victim(12)
    const from11 = recorded.filter((frame) => frame[1] === PROOF || frame.readUInt32BE(2) === 11)
    expect(() => {
      for (const frame of from11) side.take(frame)
    }).toThrow(expect.objectContaining({ code: 'REPLIC_AUTH' }))
    expect(side.peerId).toBeUndefined()
  })

  it('who sends back what it gets is not believed', () => {
    const { side, sent } = victim()
    expect(() => side.take(sent[0])).toThrow(expect.objectContaining({ code: 'REPLIC_PEER' }))
    expect(sent).toHaveLength(1)
  })

  it('who has one session of the victim prove another is not believed', () => {
    const [one, two] = [victim(), victim()]
    one.side.take(challenge(66, two.nonce)) // each is asked with the other's challenge
    two.side.take(challenge(66, one.nonce))
    for (const [to, from] of [
      [one, two],
      [two, one],
    ]) {
      const [proof] = proofsOf(from)
      expect(() => to.side.take(proof)).toThrow(expect.objectContaining({ code: 'REPLIC_AUTH' }))
      expect(to.side.peerId).toBeUndefined()
    }
  })

  it('who dials gets nothing before it has proven itself', () => {
    const { side, sent } = victim(11, false)
    side.take(challenge(66, Buffer.alloc(32)))
    expect(proofsOf({ sent })).toEqual([])
  })

  it.each([
    ['a short challenge', Buffer.from([1, CHALLENGE, 0, 0]), 'REPLIC_PROTOCOL'],
    ['another version', Buffer.from([2, CHALLENGE]), 'REPLIC_VERSION'],
    ['a HELLO instead', Buffer.from([1, 1, 0, 12]), 'REPLIC_AUTH'],
  ])('who sends %s is refused', (_, bytes, code) => {
    expect(() => victim().side.take(bytes)).toThrow(expect.objectContaining({ code }))
  })

  it.each([0, 31, 33])('who sends a proof of %i bytes is refused', (length) => {
    const { side } = victim()
    side.take(challenge(66, Buffer.alloc(32)))
    const proof = Buffer.concat([Buffer.from([1, PROOF]), Buffer.alloc(length)])
    expect(() => side.take(proof)).toThrow(expect.objectContaining({ code: 'REPLIC_AUTH' }))
  })
})

describe('replicas', () => {
  /** Two of them, the first of which dials the second; their next 'down' events. */
  async function dialing(one, two) {
    const [a, b] = [
      await openReplica({ peerId: 11, ...one }),
      await openReplica({ peerId: 12, ...two }),
    ]
    await a.upsert('note', { id: 1 })
    const downs = Promise.all([eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)])
    const { port } = (await listen(b)).address()
    connect(a, { port, ...FAST })
    return { a, b, downs }
  }

  it('with one secret, text or bytes, replicate', async () => {
    const { a, b } = await dialing({ secret: SECRET }, { secret: Buffer.from(SECRET) })
    await b.upsert('note', { id: 2 })
    expect((await converged(a, b)).note).toHaveLength(2)
  })

  it.each([
    ['another secret', { secret: SECRET }, { secret: `not ${SECRET}` }],
    ['a secret here only', { secret: SECRET }, {}],
    ['a secret there only', {}, { secret: SECRET }],
  ])('with %s are refused on both sides', async (_, one, two) => {
    const { a, b, downs } = await dialing(one, two)
    for (const { code, reason } of await downs) {
      expect(code).toBe('REPLIC_AUTH')
      expect(reason).toMatch(/secret/)
      expect(reason).not.toContain(SECRET)
    }
    expect(b.status().vector).toEqual({})
    for (const db of [a, b]) {
      const shown = inspect(db, { depth: 9, showHidden: true }) + JSON.stringify([db, db.status()])
      expect(shown).not.toContain(SECRET)
    }
  })

  it.each([
    ['a secret', SECRET],
    ['no secret', undefined],
  ])('with authorize() that permits, and %s', async (_, secret) => {
    const asked = []
    const authorize = async (peerId, info) => {
      asked.push([peerId, info.transport, info.isAccepted])
      await new Promise((resolve) => setImmediate(resolve))
      return true
    }
    const { a, b } = await dialing({ secret }, { secret, authorize })
    await b.upsert('note', { id: 2 })
    expect((await converged(a, b)).note).toHaveLength(2)
    expect(asked).toEqual([[11, 'tcp', true]])
  })

  it.each([
    ['says no', () => false],
    ['forgets to answer', () => {}],
    ['throws', () => expect.fail('out of order')],
    ['rejects', () => Promise.reject(new Error('out of order'))],
    ['rejects with nothing', () => Promise.reject()],
    ['throws a text', () => thrown('out of order')],
  ])('with authorize() that %s are refused on both sides', async (_, authorize) => {
    for (const secret of [SECRET, undefined]) {
      const { b, downs } = await dialing({ secret }, { secret, authorize })
      for (const { code } of await downs) expect(code).toBe('REPLIC_AUTH')
      expect(b.status().vector).toEqual({})
    }
  })

  // A stranger must not fill the memory while authorize() thinks.
  it('keep little of what comes in while authorize() thinks', async () => {
    let permit
    const asked = new Promise((resolve) => {
      permit = resolve
    })
    const taken = []
    const native = {
      linkOpen() {},
      linkClose() {},
      tick() {},
      receive: (_, bytes) => taken.push(bytes),
    }
    const options = { ...DEFAULTS, authorize: () => asked }
    const callbacks = { emit() {}, soon() {}, total: () => 0 }
    const links = new Links(native, callbacks, options, 11)
    const socket = Object.assign(new EventEmitter(), { send() {}, close() {} })
    links.add(socket, { peerId: null, transport: 'test' })
    socket.emit('message', Buffer.from([1, 1, 0, 12, 0]))
    for (let i = 0; i < 40; i++) socket.emit('message', Buffer.alloc(1024 * 1024, 1))
    permit(true)
    await until(() => taken.length > 0)
    const bytes = taken.reduce((sum, { length }) => sum + length, 0)
    expect(taken[0]).toHaveLength(5)
    expect(bytes).toBeLessThan(5 * 1024 * 1024)
    links.stop()
  })

  it('link to no more than maxLinks, among whom strangers do not count', async () => {
    const db = await openReplica({ peerId: 12, maxLinks: 1 })
    const stranger = await listenTo(db)
    const [a, b] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 13 })]
    const isUp = eventOf(db, 'link', ({ state }) => state === 'up')
    connect(a, { port: stranger.port, ...FAST })
    expect(await isUp).toMatchObject({ peerId: 11 })
    connect(b, { port: stranger.port, ...FAST })
    await until(() => db.status().refusedLinks > 0)
    const ready = db.status().links.filter(({ state }) => state === 'ready')
    expect(ready).toMatchObject([{ peerId: 11 }])
    stranger.socket.destroy()
  })

  it('let the oldest stranger give way to one more than maxPendingLinks', async () => {
    const db = await openReplica({ maxPendingLinks: 1 })
    const down = eventOf(db, 'link', isDown)
    const first = await listenTo(db)
    const second = await listenTo(db, first.port)
    await first.closed
    expect(await down).toMatchObject({ code: 'REPLIC_BUSY', link: 1 })
    expect(db.status().refusedLinks).toBe(1)
    expect(db.status().links).toMatchObject([{ link: 2 }])
    second.socket.destroy()
  })

  it('wait to dial until there is room', async () => {
    const [a, b, c] = [
      await openReplica({ maxLinks: 1 }),
      await openReplica({ peerId: 12 }),
      await openReplica({ peerId: 13 }),
    ]
    const ports = []
    for (const db of [b, c]) ports.push((await listen(db)).address().port)
    const up = (peerId) =>
      eventOf(a, 'link', (event) => event.state === 'up' && event.peerId === peerId)
    const toB = up(12)
    const connection = connect(a, { port: ports[0], ...FAST })
    await toB
    connect(a, { port: ports[1], ...FAST })
    const waiting = a.status().links.find(({ state }) => state === 'waiting')
    expect(waiting.lastError).toMatchObject({ code: 'REPLIC_BUSY' })
    expect(waiting.lastError.message).toMatch(/maxLinks/)
    const toC = up(13)
    await connection.close()
    await toC
  })

  it.each([
    [{ secret: 'short' }, /at least 16/],
    [{ secret: 5 }, /at least 16/],
    [{ authorize: true }, /authorize must be a function/],
    [{ maxLinks: 0 }, /maxLinks/],
  ])('refuse the options %j', async (options, message) => {
    const error = await rejects(openReplica(options), 'REPLIC_USAGE')
    expect(error.message).toMatch(message)
    expect(error.message).not.toMatch(/short/)
  })
})

const thrown = (what) => {
  throw what
}

/** A stranger's connection to `db`, which listens unless a port is given. */
async function listenTo(db, given) {
  const port = given ?? (await listen(db)).address().port
  const { createConnection } = await import('node:net')
  const socket = createConnection({ port })
  const events = new EventEmitter()
  const closed = new Promise((resolve) => socket.on('close', resolve))
  socket.on('error', () => {})
  socket.on('data', () => events.emit('data'))
  const greeted = new Promise((resolve) => events.once('data', resolve))
  socket.write('REPLIC')
  await Promise.race([greeted, closed])
  return { port, socket, closed }
}

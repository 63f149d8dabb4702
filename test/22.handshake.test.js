// The secret that both sides prove, authorize(), and how many may link.

import { EventEmitter } from 'node:events'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { DEFAULTS } from '../lib/base/options.js'
import { withoutSum, withSum } from '../lib/base/sum.js'
import { errorFrame, Handshake, peerIdOfHello, readError } from '../lib/links/handshake.js'
import { Links } from '../lib/links/links.js'
import { keysOf } from '../lib/links/secret.js'
import { connect, listen } from '../lib/transport/tcp.js'
import { converged, eventOf, FAST, openReplica, rejects, until } from './helpers.js'

const SECRET = 'sixteen bytes or more'
const INITIATE = 32
const isDown = ({ state }) => state === 'down'

/** Two sides whose frames go through `carry(frame, deliver)`. */
async function pair({
  secrets = [SECRET, SECRET],
  ids = [11, 12],
  dials = [true, false],
  wantsSeal = [true, true],
  carry = (frame, deliver) => deliver(frame),
} = {}) {
  const sides = []
  const errors = []
  const queue = []
  for (const i of [0, 1]) {
    sides[i] = new Handshake({
      keys: await keysOf(secrets[i]),
      peerId: ids[i],
      isInitiator: dials[i],
      wantsSeal: wantsSeal[i],
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
    for (const side of sides) side.begin()
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
    for (const bad of [endless, withSum(endless), withSum(frame(1, 6, 0, 0, 0))]) {
      expect(readError(bad).message).toBe('a malformed ERROR frame')
    }
    for (let bit = 16; bit < whole.length * 8; bit++) {
      const flipped = Buffer.from(whole)
      flipped[bit >> 3] ^= 1 << (bit & 7)
      expect([bit, readError(flipped).message]).toEqual([bit, 'a malformed ERROR frame'])
    }
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
  })
})

describe('two sides', () => {
  it.each([
    ['one dials', [true, false]],
    ['both dial', [true, true]],
  ])('with one secret know each other, where %s', async (_, dials) => {
    const { sides, known, beat, errors } = await pair({ dials })
    beat()
    expect(known()).toEqual([12, 11])
    expect(errors).toEqual([])
    const frame = Buffer.from('a frame')
    for (const [from, to] of [sides, sides.toReversed()]) {
      const sealed = from.seal.seal(frame)
      expect(sealed.includes(frame)).toBe(false)
      expect(to.seal.open(sealed)).toEqual(frame)
    }
  })

  it.each([
    [[true, true], true],
    [[true, false], true],
    [[false, true], true],
    [[false, false], false],
  ])('that want what follows to be sealed (%j) have it so: %j', async (wantsSeal, isSealed) => {
    const { sides, beat } = await pair({ wantsSeal })
    beat()
    expect(sides.map(({ seal }) => seal !== undefined)).toEqual([isSealed, isSealed])
  })

  const OTHER = `not ${SECRET}`
  it.each([
    [SECRET, [OTHER, SECRET], true],
    [[OTHER, SECRET], OTHER, true],
    [[SECRET, OTHER], [OTHER, SECRET], true],
    [[SECRET, OTHER], OTHER, false],
    [SECRET, `${SECRET}!`, false],
  ])('with the secrets %j and %j meet: %j', async (one, two, meet) => {
    const { known, beat, errors } = await pair({ secrets: [one, two] })
    beat()
    expect(known()).toEqual(meet ? [12, 11] : [undefined, undefined])
    expect(errors.map(({ code }) => code)).toEqual(meet ? [] : ['REPLIC_AUTH'])
    if (!meet) expect(errors[0].message).toMatch(/same one on both sides/)
  })

  it('with one peerId do not', async () => {
    const { known, beat, errors } = await pair({ ids: [11, 11] })
    beat()
    expect(known()).toEqual([undefined, undefined])
    for (const error of errors) expect(error).toMatchObject({ code: 'REPLIC_PEER' })
  })

  // Each frame lost in turn, and pairs of them; each doubled.
  const first = [1, 2, 3, 4, 5, 6]
  it.each(first.flatMap((a) => first.map((b) => [a, b])))(
    'though frames %i and %i are lost, know each other after heartbeats',
    async (a, b) => {
      for (const dials of [
        [true, false],
        [true, true],
      ]) {
        let n = 0
        const { known, beat, errors } = await pair({
          dials,
          carry: (frame, deliver) => {
            n++
            if (n !== a && n !== b) deliver(frame)
          },
        })
        for (let i = 0; i < 6; i++) beat()
        expect(known()).toEqual([12, 11])
        expect(errors).toEqual([])
      }
    },
  )
})

describe('an attacker', () => {
  /** A side that was dialed or has dialed, and what it has sent since. */
  async function victim(peerId = 11, isInitiator = false) {
    const sent = []
    const side = new Handshake({
      keys: await keysOf(SECRET),
      peerId,
      isInitiator,
      send: (frame) => sent.push(Buffer.from(frame)),
    })
    side.begin()
    return { side, sent }
  }
  const refuses = (code) => expect.objectContaining({ code })

  it('who replays a recorded handshake is not believed', async () => {
    const recorded = []
    const { beat } = await pair({
      carry: (frame, deliver) => {
        recorded.push(Buffer.from(frame))
        deliver(frame)
      },
    })
    beat()
    const { side, sent } = await victim(12)
    const [initiate, respond, confirm] = recorded
    side.take(initiate)
    expect(sent).toHaveLength(1)
    expect(sent[0].equals(respond)).toBe(false)
    expect(() => side.take(confirm)).toThrow(refuses('REPLIC_AUTH'))
    expect(side.peerId).toBeUndefined()
  })

  it('who sends frames again, or more of them, changes nothing and is not answered', async () => {
    const recorded = []
    const { sides, beat, known } = await pair({
      carry: (frame, deliver) => {
        recorded.push(Buffer.from(frame))
        deliver(frame)
      },
    })
    beat()
    const before = sides.map(({ key, seal }) => ({ key, seal }))
    const answers = recorded.length
    // Of a third peer: some of them have the greater key.
    const strangers = await Promise.all(Array.from({ length: 20 }, () => victim(13, true)))
    const frames = [...recorded.slice(0, 2), ...strangers.map(({ sent }) => sent[0])]
    for (const side of sides) for (const frame of frames) side.take(frame)
    beat()
    expect(recorded.length - answers).toBe(1) // the end of the handshake, as the heartbeat has it
    expect(known()).toEqual([12, 11])
    expect(sides.map(({ key, seal }) => ({ key, seal }))).toEqual(before)

    const { side, sent } = await victim(12)
    for (let i = 0; i < 100; i++) side.take(recorded[0])
    expect(sent).toHaveLength(1)
  })

  it('who sends back what it gets is not believed', async () => {
    const dialer = await victim(11, true)
    expect(() => dialer.side.take(dialer.sent[0])).toThrow(refuses('REPLIC_PEER'))
    const dialed = await victim(11)
    expect(() => dialed.side.take(dialer.sent[0])).toThrow(refuses('REPLIC_PEER'))
  })

  it('who passes on what two sides say hears nothing, and is no peer', async () => {
    const heard = []
    const { sides, beat, known } = await pair({
      carry: (frame, deliver) => {
        heard.push(frame)
        deliver(frame)
      },
    })
    beat()
    expect(known()).toEqual([12, 11])
    const frame = Buffer.from('what nobody else reads')
    heard.push(sides[0].seal.seal(frame))
    for (const bytes of heard) expect(bytes.includes(frame)).toBe(false)
    const { side } = await victim(12)
    side.take(heard[0])
    expect(() => side.take(heard[2])).toThrow(refuses('REPLIC_AUTH'))
  })

  it('who does not know the secret gets no answer', async () => {
    const dialer = new Handshake({
      keys: await keysOf(`not ${SECRET}`),
      peerId: 66,
      isInitiator: true,
      send: (frame) => sent.push(frame),
    })
    const sent = []
    dialer.begin()
    const dialed = await victim()
    expect(() => dialed.side.take(sent[0])).toThrow(refuses('REPLIC_AUTH'))
    expect(dialed.sent).toEqual([])
  })

  it('who changes a bit of any frame is found out', async () => {
    const frames = []
    const { beat } = await pair({
      carry: (frame, deliver) => {
        frames.push(frame)
        deliver(frame)
      },
    })
    beat()
    for (const [index, frame] of frames.entries()) {
      for (let bit = 16; bit < 8 * frame.length; bit++) {
        let n = 0
        const changed = await pair({
          carry: (each, deliver) => {
            const bytes = Buffer.from(each)
            if (n++ === index) bytes[bit >> 3] ^= 1 << (bit & 7)
            deliver(bytes)
          },
        })
        changed.beat()
        expect(changed.known()).not.toEqual([12, 11])
      }
    }
  })

  it('who says its peerId is 0 is refused', async () => {
    const { beat, errors } = await pair({ ids: [0, 12] })
    beat()
    expect(errors[0]).toMatchObject({ code: 'REPLIC_PROTOCOL' })
  })

  it.each([
    ['a short message', Buffer.from([1, INITIATE, 0, 0]), 'REPLIC_AUTH'],
    [
      'a key that is none',
      Buffer.concat([Buffer.from([1, INITIATE]), Buffer.alloc(53)]),
      'REPLIC_AUTH',
    ],
    ['another version', Buffer.from([2, INITIATE]), 'REPLIC_VERSION'],
    ['a HELLO instead', Buffer.from([1, 1, 0, 12]), 'REPLIC_AUTH'],
  ])('who sends %s is refused', async (_, bytes, code) => {
    const { side } = await victim()
    expect(() => side.take(bytes)).toThrow(refuses(code))
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

  it('change their secret while they write: new, old; then new alone', async () => {
    const [OLD, NEW] = [SECRET, `not ${SECRET}`]
    const dbs = []
    for (const peerId of [11, 12, 13]) dbs.push(await openReplica({ peerId, secret: OLD }))
    const [hub, ...others] = dbs
    const { port } = (await listen(hub)).address()
    const downs = new Map(others.map((db) => [db, 0]))
    for (const db of others) {
      db.on('link', ({ state }) => downs.set(db, downs.get(db) + (state === 'down')))
      const up = eventOf(db, 'link', ({ state }) => state === 'up')
      connect(db, { port, ...FAST })
      await up
    }
    let id = 0
    for (const secrets of [[OLD, NEW], [NEW, OLD], NEW]) {
      for (const db of dbs) {
        await db.setSecrets(secrets)
        await db.upsert('note', { id: ++id })
      }
    }
    expect((await converged(...dbs)).note).toHaveLength(9)
    for (const db of others) {
      expect(downs.get(db)).toBe(1) // the secret of its link was taken away
      expect(db.status().links).toMatchObject([{ peerId: 11, isEncrypted: true }])
    }
  })

  it('without a secret do not link once they have one', async () => {
    const { a, b } = await dialing({}, {})
    await converged(a, b)
    expect(a.status().links).toMatchObject([{ isEncrypted: false }])
    const down = eventOf(a, 'link', isDown)
    await b.setSecrets(SECRET)
    expect(await down).toMatchObject({ code: 'REPLIC_AUTH' })
    await a.setSecrets(SECRET)
    await b.upsert('note', { id: 2 })
    expect((await converged(a, b)).note).toHaveLength(2)
    expect(a.status().links).toMatchObject([{ isEncrypted: true }])
  })

  it('end a link over which something came that was not sealed', async () => {
    const secret = SECRET
    const [a, b] = [
      await openReplica({ peerId: 11, secret }),
      await openReplica({ peerId: 12, secret }),
    ]
    const sockets = []
    for (const i of [0, 1]) {
      sockets[i] = Object.assign(new EventEmitter(), {
        send: (bytes) => setImmediate(() => sockets[1 - i].emit('message', bytes)),
        close() {
          setImmediate(() => this.emit('close'))
        },
      })
    }
    a.addRemotePeer(12, sockets[0])
    b.addRemotePeer(11, sockets[1])
    await b.upsert('note', { id: 1 })
    await converged(a, b)
    const down = eventOf(a, 'link', isDown)
    sockets[0].emit('message', Buffer.from([1, 3, 0]))
    expect(await down).toMatchObject({
      code: 'REPLIC_AUTH',
      reason: expect.stringContaining('sealed'),
    })
  })

  // A stranger must not fill the memory while authorize() thinks.
  it('keep one HELLO of what comes in while authorize() thinks', async () => {
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
    const links = new Links(native, callbacks, options, { peerId: 11, keys: [] })
    const socket = Object.assign(new EventEmitter(), { send() {}, close() {} })
    links.add(socket, { peerId: null, transport: 'test' })
    const patches = Buffer.alloc(1024 * 1024, 2)
    patches[0] = 1
    const hellos = [0, 1, 2].map((i) => withSum(Buffer.from([1, 1, 0, 12, i])))
    for (const frame of [patches, hellos[0], patches, hellos[1], hellos[2], patches]) {
      socket.emit('message', frame)
    }
    permit(true)
    await until(() => taken.length > 0)
    expect(taken).toEqual([hellos[2]])
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

it('the sum of a frame is CRC-32C', () => {
  const frame = withSum(Buffer.from('123456789')) // the usual check value
  expect(frame.subarray(9).toString('hex')).toBe('839206e3')
  expect(withoutSum(frame).toString()).toBe('123456789')
  for (const at of [0, 8, 9, 12]) {
    const damaged = Buffer.from(frame)
    damaged[at] ^= 1
    expect(withoutSum(damaged)).toBe(undefined)
  }
  expect(withoutSum(Buffer.alloc(3))).toBe(undefined)
})

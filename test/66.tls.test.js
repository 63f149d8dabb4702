// TLS: who is trusted, what authorize() learns of a certificate, and what is told where a handshake fails.

import { once } from 'node:events'
import { createServer, connect as netConnect } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { describe, expect, it, onTestFinished } from 'vitest'
import { connect, listen } from '../lib/transport/tcp.js'
import { authority } from './certificates.js'
import { converged, eventOf, FAST, openReplica, rejects, throws, until } from './helpers.js'
import { contract } from './transport/contract.js'
import { adapter } from './transport/tls.js'

contract(adapter)

const { ca, sign } = authority()
const server = sign({ name: 'server', alt: 'DNS:replic.test,IP:127.0.0.1' })
const client = sign({ name: 'client' })
const stranger = authority()
const strangers = stranger.sign({ name: 'stranger' })

const isUp = ({ state }) => state === 'up'
const isDown = ({ state }) => state === 'down'
const replicas = (n, options) =>
  Promise.all(Array.from({ length: n }, (_, i) => openReplica({ peerId: 11 + i, ...options })))
const listening = async (db, tls = server) => {
  const listener = await listen(db, { tls })
  return { listener, port: listener.address().port }
}

/** Both ends' next event, after `a` has dialed `b`. */
async function dialed(a, b, theirs, mine) {
  const { port } = await listening(b, theirs)
  const events = [eventOf(a, 'link'), eventOf(b, 'link')]
  connect(a, { port, tls: mine, ...FAST })
  return Promise.all(events)
}

describe('TLS', () => {
  it('encrypts: nothing can be read on the way', async () => {
    const [a, b] = await replicas(2, { secret: 'sixteen bytes or more' })
    const { port } = await listening(b)
    const seen = []
    const spy = createServer((near) => {
      const far = netConnect(port, '127.0.0.1')
      for (const [from, to] of [
        [near, far],
        [far, near],
      ]) {
        from.on('data', (bytes) => seen.push(bytes) && to.write(bytes))
        from.on('error', () => {}).on('close', () => to.destroy())
      }
    })
    spy.listen(0, '127.0.0.1')
    await once(spy, 'listening')
    onTestFinished(() => spy.close())
    const up = eventOf(a, 'link', isUp)
    connect(a, { port: spy.address().port, tls: { ca } })
    expect(await up).toMatchObject({ transport: 'tls', peerId: 12 })
    await a.upsert('note', { id: 1, text: 'nobody else may read this' })
    await converged(a, b)
    const bytes = Buffer.concat(seen)
    expect(bytes.length).toBeGreaterThan(1000)
    expect(bytes.includes('may read')).toBe(false)
    expect(bytes.includes('REPLIC')).toBe(false)
  })

  it('with certificates on both sides, of which authorize() decides', async () => {
    const asked = []
    const authorize = (peerId, info) => asked.push({ peerId, ...info })
    const [a, b] = await replicas(2, { authorize })
    const requires = { ...server, ca, requestCert: true }
    expect(await dialed(a, b, requires, { ca, ...client })).toMatchObject([
      { state: 'up', peerId: 12, transport: 'tls' },
      { state: 'up', peerId: 11, transport: 'tls' },
    ])
    const of = (name) => ({ subject: { CN: name }, issuer: { CN: 'authority' } })
    const tls = { isTrusted: true, protocol: 'TLSv1.3' }
    asked.sort((x, y) => x.peerId - y.peerId)
    expect(asked).toMatchObject([
      { peerId: 11, isAccepted: true, tls: { ...tls, certificate: of('client') } },
      { peerId: 12, isAccepted: false, tls: { ...tls, certificate: of('server') } },
    ])
    expect(asked[0].tls.certificate.fingerprint256).toMatch(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/)
  })

  it('leaves it to authorize() where rejectUnauthorized is false', async () => {
    const asked = []
    const [a, c, d] = await Promise.all([11, 13, 14].map((peerId) => openReplica({ peerId })))
    const authorize = (peerId, { tls }) => {
      asked.push([peerId, tls.isTrusted, tls.certificate?.subject.CN ?? null])
      return tls.isTrusted
    }
    const b = await openReplica({ peerId: 12, authorize })
    const { port } = await listening(b, {
      ...server,
      ca,
      requestCert: true,
      rejectUnauthorized: false,
    })
    const refused = [c, d].map((db) => eventOf(db, 'link', isDown))
    const up = eventOf(b, 'link', isUp)
    connect(a, { port, tls: { ca, ...client } })
    connect(c, { port, tls: { ca, ...strangers } })
    connect(d, { port, tls: { ca } })
    expect(await up).toMatchObject({ peerId: 11 })
    for (const { code } of await Promise.all(refused)) expect(code).toBe('REPLIC_AUTH')
    const last = new Map(asked.map((each) => [each[0], each])) // who was refused dials again
    expect([...last.values()].sort()).toEqual([
      [11, true, 'client'],
      [13, false, 'stranger'],
      [14, false, null],
    ])
  })

  it('by name, and renews the certificate for later connections', async () => {
    const [a, b, c] = await replicas(3)
    const { listener, port } = await listening(b, strangers)
    const down = eventOf(a, 'link', isDown)
    connect(a, { port, tls: { ca, servername: 'replic.test' }, ...FAST })
    expect(await down).toMatchObject({ code: 'REPLIC_AUTH' })
    const up = eventOf(a, 'link', isUp)
    listener.renew(server)
    await up
    connect(c, { port, tls: { ca }, ...FAST })
    await a.upsert('note', { id: 1 })
    await converged(a, b, c)
    throws(() => listener.renew({ key: client.key }), 'REPLIC_USAGE', 'belong together')
    const plain = await listen(a)
    throws(() => plain.renew(server), 'REPLIC_USAGE', 'no tls')
  })
})

describe('refused, and both sides say why:', () => {
  const wanted = { ...server, ca, requestCert: true }
  it.each([
    ['no certificate', { ca }, 'has shown no certificate'],
    ['one of another authority', { ca, ...strangers }, 'is not trusted'],
    ['one that has expired', { ca, ...sign({ name: 'old', days: -1 }) }, 'CERT_HAS_EXPIRED'],
  ])('%s', async (_, mine, words) => {
    const [a, b] = await replicas(2)
    await a.upsert('note', { id: 1 })
    const [near, far] = await dialed(a, b, wanted, mine)
    const event = { state: 'down', code: 'REPLIC_AUTH', transport: 'tls', peerId: null }
    expect([near, far]).toMatchObject([event, event])
    for (const { reason } of [near, far]) expect(reason).toContain(words)
    expect(near.reason).toMatch(/^the other side reports: /)
    expect([a.status().vector, b.status().vector]).toEqual([{ 11: 1 }, {}])
  })

  it('who is not trusted sends nothing that is read', async () => {
    const [b] = await replicas(1, { maxPendingLinks: 1 })
    const { port } = await listening(b, wanted)
    const down = eventOf(b, 'link', isDown)
    const socket = tlsConnect({ port, host: '127.0.0.1', ca })
    onTestFinished(() => socket.destroy())
    const got = []
    socket.on('data', (bytes) => got.push(bytes)).on('error', () => {})
    const closed = once(socket, 'close')
    socket.write(Buffer.concat([Buffer.from('REPLIC'), Buffer.alloc(5000)]))
    await down
    await closed
    expect(`${Buffer.concat(got)}`).toContain('REPLIC_AUTH')
  })
})

describe('the side that dials refuses', () => {
  it.each([
    ['an unknown authority', server, {}, 'give the certificate of its authority as tls: { ca }'],
    ['another name', server, { ca, servername: 'other.test' }, 'tls: { servername }'],
    ['what has expired', sign({ name: 'old', days: -1 }), { ca }, 'renewed'],
    ['another authority', strangers, { ca }, '127.0.0.1'],
  ])('%s', async (_, theirs, mine, words) => {
    const [a, b] = await replicas(2)
    await a.upsert('note', { id: 1 })
    const [near, far] = await dialed(a, b, theirs, mine)
    expect(near).toMatchObject({
      state: 'down',
      code: 'REPLIC_AUTH',
      peerId: null,
      transport: 'tls',
    })
    expect(near.reason).toContain(words)
    expect(near.reason).toMatch(/127\.0\.0\.1:\d+/)
    expect(far).toMatchObject({ state: 'down', peerId: null, transport: 'tls' })
    expect(far.reason).toContain('does not trust')
    expect(b.status().vector).toEqual({})
  })
})

describe('only one side speaks TLS:', () => {
  it('the one that listens', async () => {
    const [a, b] = await replicas(2)
    const { port } = await listening(b)
    const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    connect(a, { port, ...FAST })
    const [near, far] = await Promise.all(downs)
    expect(near.reason).toMatch(/tls/i)
    expect(far).toMatchObject({
      code: 'REPLIC_PROTOCOL',
      reason: expect.stringContaining('is tls missing in its connect()?'),
    })
  })

  it('the one that dials', async () => {
    const [a, b] = await replicas(2)
    const listener = await listen(b)
    const { port } = listener.address()
    const downs = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    connect(a, { port, tls: { ca }, ...FAST })
    const [near, far] = await Promise.all(downs)
    expect(near.reason).toContain(`does 127.0.0.1:${port} listen with tls?`)
    expect(far).toMatchObject({ code: 'REPLIC_PROTOCOL', reason: expect.stringContaining('TLS') })
  })

  it('no version in common', async () => {
    const [a, b] = await replicas(2)
    const old = { ...server, maxVersion: 'TLSv1.2' }
    const [near, far] = await dialed(a, b, old, { ca, minVersion: 'TLSv1.3' })
    expect([near.code, far.code]).toEqual(['REPLIC_PROTOCOL', 'REPLIC_PROTOCOL'])
    expect([near.reason, far.reason].join()).toContain('no version')
  })
})

describe('handshakes under way', () => {
  const knocking = async (port) => {
    const socket = netConnect(port, '127.0.0.1')
    onTestFinished(() => socket.destroy())
    socket.on('error', () => {}).resume()
    await once(socket, 'connect')
    return { socket, ended: new Promise((resolve) => socket.on('close', resolve)) }
  }

  it('end after linkTimeoutMs', async () => {
    const [b] = await replicas(1, { linkTimeoutMs: 100 })
    const { port } = await listening(b)
    const down = eventOf(b, 'link', isDown)
    const { ended } = await knocking(port)
    expect(await down).toMatchObject({ code: 'REPLIC_TIMEOUT', link: null })
    await ended
  })

  it('count as pending links, and make room for newer ones', async () => {
    const [a, b] = await replicas(2, { maxPendingLinks: 2 })
    const { port } = await listening(b)
    const [first] = [await knocking(port), await knocking(port)]
    await first.ended
    await until(() => b.status().refusedLinks === 1)
    connect(a, { port, tls: { ca }, ...FAST })
    await a.upsert('note', { id: 1 })
    await converged(a, b)
  })

  it('end with the listener, and with the replica', async () => {
    const [b] = await replicas(1)
    const first = await listening(b)
    const one = await knocking(first.port)
    await first.listener.close()
    const { port } = await listening(b)
    const other = await knocking(port)
    await b.close()
    await Promise.all([one.ended, other.ended])
  })
})

describe('used wrongly', () => {
  it('listen and connect say what is missing', async () => {
    const [a] = await replicas(1)
    const { key, cert } = server
    const refused = (tls, ...words) => rejects(listen(a, { tls }), 'REPLIC_USAGE', 'tls', ...words)
    await refused(true, 'an object')
    await refused({}, 'key and cert')
    await refused({ key, cert, requestCerts: true }, "did you mean 'requestCert'")
    await refused({ key, cert, ca }, 'requestCert: true')
    await refused({ key: client.key, cert }, 'belong together')
    await refused({ key: 'x', cert }, 'PEM')
    await throws(
      () => connect(a, { port: 1, tls: { servrname: 'x' } }),
      'REPLIC_USAGE',
      'servername',
    )
    await throws(() => connect(a, { port: 1, tls: { cert } }), 'REPLIC_USAGE', 'belong together')
    expect(a.status().links).toEqual([])
  })
})

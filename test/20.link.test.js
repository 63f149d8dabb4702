// addRemotePeer: any object that carries messages, here within the process.

import { EventEmitter } from 'node:events'
import { describe, expect, it } from 'vitest'
import { converged, eventOf, openReplica, rejects, synced } from './helpers.js'

const many = (n, from = 0) => Array.from({ length: n }, (_, i) => ({ id: from + i, text: 'x' }))
const isUp = ({ state }) => state === 'up'
const isDown = ({ state }) => state === 'down'

// Two ends of a connection. `carry(message, deliver)` says what becomes of each message.
class NodeSocket extends EventEmitter {
  calls = []
  readyState = 1

  static pair(carry = (message, deliver) => queueMicrotask(() => deliver(message))) {
    const ends = [new this(), new this()]
    for (const [i, end] of ends.entries()) {
      end.send = (message) => carry(message, (data) => ends[1 - i].deliver(data))
      end.close = () => {
        for (const each of ends) queueMicrotask(() => each.closed())
      }
    }
    return ends
  }

  deliver(data) {
    this.emit('message', data)
  }

  closed() {
    this.emit('close', 1000)
  }

  pause() {
    this.calls.push('pause')
  }

  resume() {
    this.calls.push('resume')
  }

  cork() {
    this.calls.push('cork')
  }

  uncork() {
    this.calls.push('uncork')
  }
}

// As a browser has it: events with data, an ArrayBuffer where asked for, 'open' later.
class WebSocketLike extends EventTarget {
  readyState = 0
  binaryType = 'blob'

  open() {
    this.readyState = 1
    this.dispatchEvent(new Event('open'))
  }

  deliver(data) {
    const copy = Uint8Array.from(data).buffer
    const event = new Event('message')
    event.data = this.binaryType === 'arraybuffer' ? copy : new Blob([copy])
    this.dispatchEvent(event)
  }

  closed() {
    this.dispatchEvent(new Event('close'))
  }
}
WebSocketLike.pair = NodeSocket.pair

const replicas = async (options) => [
  await openReplica({ peerId: 11, ...options }),
  await openReplica({ peerId: 12, ...options }),
]

async function linked(a, b, [near, far]) {
  const up = [eventOf(a, 'link', isUp), eventOf(b, 'link', isUp)]
  a.addRemotePeer(12, near)
  b.addRemotePeer(null, far)
  return Promise.all(up)
}

describe('sockets', () => {
  it('of Node’s kind', async () => {
    const [a, b] = await replicas()
    const sockets = NodeSocket.pair()
    const [event] = await linked(a, b, sockets)
    expect(event).toMatchObject({ peerId: 12, transport: 'NodeSocket', address: null })
    await Promise.all([a.upsert('note', many(100)), b.upsert('note', many(100, 50))])
    await converged(a, b)
    const { calls } = sockets[0]
    expect(calls.filter((call) => call === 'cork').length).toBeGreaterThan(0)
    expect(calls.filter((call) => call === 'cork')).toHaveLength(
      calls.filter((call) => call === 'uncork').length,
    )
  })

  it('of a browser’s kind, opened later', async () => {
    const [a, b] = await replicas()
    const sockets = WebSocketLike.pair()
    const up = linked(a, b, sockets)
    expect(a.status().links).toMatchObject([{ peerId: 12, state: 'connecting' }])
    for (const socket of sockets) socket.open()
    await up
    await a.upsert('note', many(100))
    await converged(a, b)
  })

  it('that bring fragments', async () => {
    const [a, b] = await replicas()
    const sockets = NodeSocket.pair((message, deliver) => {
      const middle = message.length >> 1
      queueMicrotask(() => deliver([message.subarray(0, middle), message.subarray(middle)]))
    })
    await linked(a, b, sockets)
    await a.upsert('note', many(100))
    await converged(a, b)
  })

  it('that are closed end the link', async () => {
    const [a, b] = await replicas()
    const [near, far] = NodeSocket.pair()
    await linked(a, b, [near, far])
    const down = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    far.close()
    expect(await Promise.all(down)).toMatchObject([
      { peerId: 12, code: null },
      { peerId: 11, code: null },
    ])
    expect(a.status().links).toEqual([])
    await linked(a, b, NodeSocket.pair())
  })

  it('that bring text', async () => {
    const [a, b] = await replicas()
    const [near, far] = NodeSocket.pair()
    await linked(a, b, [near, far])
    const down = eventOf(a, 'link', isDown)
    near.deliver('{"hello":1}')
    expect(await down).toMatchObject({
      code: 'REPLIC_PROTOCOL',
      reason: expect.stringContaining('string'),
    })
  })

  it('that fail, or cannot send', async () => {
    const [a, b] = await replicas()
    const [near, far] = NodeSocket.pair()
    await linked(a, b, [near, far])
    const down = [eventOf(a, 'link', isDown), eventOf(b, 'link', isDown)]
    near.send = () => {
      throw new Error('it is gone')
    }
    far.emit('error', Object.assign(new Error('broken pipe'), { code: 'EPIPE' }))
    far.closed()
    await a.upsert('note', { id: 1 })
    expect(await Promise.all(down)).toMatchObject([
      { reason: 'it is gone' },
      { code: 'EPIPE', reason: 'broken pipe' },
    ])
  })

  it('that never say that they are closed are given up', async () => {
    const [a] = await replicas()
    const socket = new NodeSocket()
    socket.send = () => {}
    socket.close = () => {}
    a.addRemotePeer(null, socket)
    await a.close()
    expect(a.status().links).toEqual([])
  })
})

describe('a transport that', () => {
  // Reproducible, unlike Math.random.
  const dice = () => {
    let state = 1
    return (sides) => {
      state = (state * 48271) % 2147483647
      return state % sides
    }
  }
  const fates = {
    'loses every third message': (roll) => (message, deliver) => {
      if (roll(3)) queueMicrotask(() => deliver(message))
    },
    'delivers twice': () => (message, deliver) => {
      queueMicrotask(() => deliver(message))
      setImmediate(() => deliver(message))
    },
    'delivers in any order': (roll) => (message, deliver) => {
      let turns = roll(5)
      const later = () => (turns-- > 0 ? setImmediate(later) : deliver(message))
      later()
    },
  }

  it.each(Object.keys(fates))('%s', async (name) => {
    const [a, b] = await replicas({ heartbeatMs: 10 })
    const fate = fates[name](dice())
    let faults = false
    const sockets = NodeSocket.pair((message, deliver) =>
      faults ? fate(message, deliver) : queueMicrotask(() => deliver(message)),
    )
    await linked(a, b, sockets)
    faults = true
    for (let i = 0; i < 50; i++) {
      await Promise.all([
        a.upsert('note', { id: i, text: `a ${i}` }),
        b.upsert('note', { id: i, size: i }),
      ])
    }
    const { note } = await converged(a, b)
    expect(note).toHaveLength(50)
  })
})

describe('backpressure', () => {
  it('pauses the socket while too much waits, and resumes it', async () => {
    const [a, b] = await replicas({ maxQueueBytes: 20_000 })
    const [near, far] = NodeSocket.pair()
    const text = 'x'.repeat(1000)
    await a.load(
      'note',
      Array.from({ length: 1000 }, (_, id) => ({ id, text })),
    )
    await linked(a, b, [near, far])
    await synced(a, b)
    expect(far.calls).toContain('pause')
    expect(far.calls).toContain('resume')
    await b.upsert('note', { id: 1, size: 1 })
    await converged(a, b)
  })
})

describe('peers', () => {
  it('are taken for no one else', async () => {
    const [a, b] = await replicas()
    const down = eventOf(a, 'link', isDown)
    const [near, far] = NodeSocket.pair()
    a.addRemotePeer(13, near)
    b.addRemotePeer(11, far)
    expect(await down).toMatchObject({ code: 'REPLIC_PEER' })
    await rejects(b.waitFor('11.1', 0), 'REPLIC_TIMEOUT')
  })

  it('with the same peerId are refused', async () => {
    const [a, b] = [await openReplica({ peerId: 11 }), await openReplica({ peerId: 11 })]
    await a.upsert('note', { id: 1 })
    const down = eventOf(a, 'link', isDown)
    const [near, far] = NodeSocket.pair()
    a.addRemotePeer(null, near)
    b.addRemotePeer(null, far)
    expect(await down).toMatchObject({ code: 'REPLIC_PEER', reason: expect.stringContaining('11') })
  })
})

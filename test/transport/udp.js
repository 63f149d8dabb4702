// UDP, for the contract.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { bind, peer } from '../../lib/transport/udp.js'
import { UdpProxy } from '../chaos/udp.js'
import { until } from '../until.js'
import { SEED } from './line.js'

const HOST = '127.0.0.1'

export const adapter = {
  name: 'udp',
  module: import.meta.url,
  isOrdered: true, // by its own segments
  faults: ['loss', 'duplicate', 'delayMs', 'ordered'],
  lacks: {
    cut: 'a session has no connection that anybody could reset',
    standby: 'so the first one cannot be cut either',
    dripping: 'a datagram comes whole or not at all',
  },

  async listen(db, { at, ...options } = {}) {
    const endpoint = await bind(db, { port: at?.port, ...options })
    const { port } = endpoint.address()
    return { address: { port }, status: endpoint.status, close: () => endpoint.close() }
  },

  connect: (db, { port }, options) => peer(db, { port, retryMinMs: 1, retryMaxMs: 20, ...options }),

  async line({ port }) {
    const proxy = await UdpProxy.open({ target: { host: HOST, port }, seed: SEED })
    const { address, close } = { address: proxy.address, close: () => proxy.close() }
    return { address, stall: (value) => proxy.cut(value), close }
  },

  async badLine({ port }) {
    const proxy = await UdpProxy.open({ target: { host: HOST, port }, seed: SEED })
    return {
      address: proxy.address,
      counts: () => proxy.counts,
      set: (settings) => proxy.set(settings),
      close: () => proxy.close(),
    }
  },

  /** What it sends has ended when it is counted as what it is. */
  async stranger({ port }, listener) {
    const refusals = () => {
      const { malformed, unknown, badCookies } = listener.status().counters
      return malformed + unknown + badCookies
    }
    const before = refusals()
    const socket = createSocket('udp4')
    socket.bind(0, HOST)
    await once(socket, 'listening')
    return {
      write: (bytes) => socket.send(bytes, port, HOST),
      ended: until(() => refusals() > before),
      destroy: () => socket.close(),
    }
  },
  garbage: {
    'an HTTP request': Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    'one byte': Buffer.of(0x52),
    noise: Buffer.alloc(1200, 0xa5),
    'the largest datagram': Buffer.alloc(65_507, 0x52),
  },
}

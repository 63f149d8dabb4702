// TCP, for the contract. The proxy knows its frames, and loses, doubles and reorders them.

import { connect } from 'node:net'
import { TcpProxy } from '../chaos/proxy.js'
import { SEED } from './line.js'
import { streams } from './stream.js'

export const adapter = {
  ...streams({
    name: 'tcp',
    module: import.meta.url,
    dial: ({ port }) => connect({ port, host: '127.0.0.1', noDelay: true }),
    ready: 'connect',
  }),
  faults: ['loss', 'duplicate', 'delayMs', 'ordered'],

  async badLine({ port }) {
    const proxy = await TcpProxy.open({ target: { host: '127.0.0.1', port }, seed: SEED })
    return {
      address: proxy.address,
      counts: () => proxy.counts,
      set: (settings) => proxy.set(settings),
      close: () => proxy.close(),
    }
  },
}

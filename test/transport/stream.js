// Streams, for the contract: TCP, and TLS over it.

import { connect, listen } from '../../lib/transport/tcp.js'
import { openBadLine, openLine, openStranger } from './line.js'

const GREETING = Buffer.from('REPLIC')

const hex = (bytes) => Buffer.concat([GREETING, Buffer.from(bytes, 'hex')])

/**
 * An adapter. `dial(address)` opens a stream as a stranger does, and `ready` is its event when it is open;
 * `tls()` gives the options of those who listen and dial.
 */
export const streams = ({ name, module, dial, ready, tls }) => ({
  name,
  module,
  isOrdered: true,

  async listen(db, { at, ...options } = {}) {
    const listener = await listen(db, { port: at?.port, tls: tls?.().listen, ...options })
    return { address: { port: listener.address().port }, close: () => listener.close() }
  },

  connect: (db, address, options) =>
    connect(db, {
      port: address.port,
      tls: tls?.().connect,
      retryMinMs: 1,
      retryMaxMs: 20,
      ...options,
    }),

  async line(address) {
    const line = await openLine(address.port)
    return { ...line, address: { ...address, port: line.port } }
  },

  faults: ['loss', 'delayMs'],
  async badLine(address) {
    const line = await openBadLine(address.port)
    return { ...line, address: { port: line.port } }
  },

  stranger: (address) => openStranger(dial(address), ready),
  dripping: { 'before the greeting': Buffer.from('REPL'), 'within a frame': hex('00001000') },
  garbage: {
    'an HTTP request': Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    'a TLS hello': Buffer.from('16030100', 'hex'),
    'a wrong byte at the end of the greeting': Buffer.from('REPLIK'),
    'an empty frame': hex('00000000'),
    'a frame of 4 GiB': hex('ffffffff'),
    'a frame beyond maxFrameBytes': hex('04200001'),
    'a frame of garbage': hex('00000004deadbeef'),
  },
})

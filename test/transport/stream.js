// Streams, for the contract: TCP, and TLS over it.

import { EventEmitter, once } from 'node:events'
import { connect, listen } from '../../lib/transport/tcp.js'
import { openLine, openStranger } from './line.js'

const GREETING = Buffer.from('REPLIC')

const framed = (frame) => {
  const header = Buffer.alloc(4)
  header.writeUInt32BE(frame.length)
  return Buffer.concat([header, frame])
}
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
    connect(db, { ...address, tls: tls?.().connect, retryMinMs: 1, retryMaxMs: 20, ...options }),

  async line(address) {
    const line = await openLine(address.port)
    return { ...line, address: { ...address, port: line.port } }
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

  async raw(address) {
    const socket = dial(address)
    const ended = new Promise((resolve) => socket.on('error', () => {}).on('close', resolve))
    const told = new EventEmitter()
    const frames = []
    let bytes = Buffer.alloc(0)
    let at = GREETING.length
    socket.on('data', (chunk) => {
      bytes = Buffer.concat([bytes, chunk])
      while (bytes.length >= at + 4 && bytes.length >= at + 4 + bytes.readUInt32BE(at)) {
        frames.push(bytes.subarray(at + 4, at + 4 + bytes.readUInt32BE(at)))
        at += 4 + bytes.readUInt32BE(at)
        told.emit('frame')
      }
    })
    await Promise.race([once(socket, ready).catch(() => {}), ended])
    socket.write(GREETING)
    return {
      send: (frame) => !socket.destroyed && socket.write(framed(frame)),
      next: async () => {
        while (frames.length === 0) await once(told, 'frame')
        return frames.shift()
      },
      ended,
      destroy: () => socket.destroy(),
    }
  },
})

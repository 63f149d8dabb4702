// WebSocket, for the contract.

import { once } from 'node:events'
import { connect as netConnect } from 'node:net'
import { WebSocketServer } from 'ws'
import { attach, connect } from '../../lib/transport/websocket.js'
import { openBadLine, openLine, openStranger } from './line.js'

const urlOf = ({ port }) => `ws://127.0.0.1:${port}/`
const request = (...headers) => ['GET / HTTP/1.1', 'host: x', ...headers, '', ''].join('\r\n')
const upgrade = request(
  'connection: upgrade',
  'upgrade: websocket',
  'sec-websocket-version: 13',
  'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==',
)
// What follows the upgrade; a client's frames are masked, here with zeros.
const after = (hex) => Buffer.concat([Buffer.from(upgrade), Buffer.from(hex, 'hex')])

export const adapter = {
  name: 'websocket',
  module: import.meta.url,
  isOrdered: true,

  async listen(db, { at, ...options } = {}) {
    const server = new WebSocketServer({ port: at?.port ?? 0, host: '127.0.0.1', backlog: 1024 })
    await once(server, 'listening')
    const attached = attach(db, server, options)
    server._server.unref() // it is the application's, not the replica's: closing that does not close it
    const close = async () => {
      await attached.close()
      for (const socket of server.clients) socket.terminate()
      server.close()
    }
    return { address: { port: server.address().port }, close }
  },

  connect: (db, address, options) =>
    connect(db, urlOf(address), { retryMinMs: 1, retryMaxMs: 20, ...options }),

  async line(address) {
    const line = await openLine(address.port)
    return { ...line, address: { port: line.port } }
  },

  faults: ['loss', 'delayMs'],
  async badLine(address) {
    const line = await openBadLine(address.port)
    return { ...line, address: { port: line.port } }
  },

  stranger: ({ port }) =>
    openStranger(netConnect({ port, host: '127.0.0.1', noDelay: true }), 'connect'),
  dripping: { 'within a message': after('82fe100000000000'), nothing: after('') },
  garbage: {
    'what is no HTTP': Buffer.from('REPLIC\0\0\0\0'),
    'a request that is no upgrade': Buffer.from(request('connection: close')),
    'a frame that is not masked': after('820401060000'),
    'a frame with reserved bits': after('c28400000000deadbeef'),
    'a message of 2^53 bytes': after('82ff002000000000000000000000'),
    'a text': after('81840000000074657874'),
    'a text that is no UTF-8': after('818400000000deadbeef'),
    'an empty message': after('828000000000'),
    'a message of garbage': after('828400000000deadbeef'),
    'a last part of nothing': after('8282000000000123'),
    'a part of garbage, as the last one': after('8286000000000123deadbeef'),
  },
}

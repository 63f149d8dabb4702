// HTTP, for the contract.

import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect as netConnect } from 'node:net'
import { connect, handler } from '../../lib/transport/http.js'
import { openBadLine, openLine, openStranger } from './line.js'

const TYPE = 'application/vnd.replic-sqlite'
const urlOf = ({ port }) => `http://127.0.0.1:${port}/`
const request = (head) =>
  Buffer.from(`${head.join('\r\n')}\r\nhost: x\r\nconnection: close\r\n\r\n`)

export const adapter = {
  name: 'http',
  module: import.meta.url,
  isOrdered: true,
  survivesCuts: true,

  async listen(db, { at, ...options } = {}) {
    const handle = handler(db, options)
    const server = createServer(handle)
    server.listen(at?.port ?? 0, '127.0.0.1')
    await once(server, 'listening')
    server.unref() // it is the application's, not the replica's: closing that does not close it
    const close = async () => {
      await handle.close()
      if (server.listening) server.close()
      server.closeAllConnections()
    }
    return { address: { port: server.address().port }, close }
  },

  connect: (db, address, options) =>
    connect(db, { url: urlOf(address), retryMinMs: 1, retryMaxMs: 20, ...options }),

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
  dripping: {
    // (Whoever drips the head of a request is node:http's: headersTimeout.)
    'within a body': request([
      'POST / HTTP/1.1',
      `content-type: ${TYPE}`,
      'content-length: 100000',
    ]),
  },
  garbage: {
    'what is no HTTP': Buffer.from('REPLIC\0\0\0\0'),
    'a TLS hello': Buffer.from('16030100', 'hex'),
    'another method': request(['GET / HTTP/1.1']),
    'another content type': request(['POST / HTTP/1.1', 'content-type: text/plain']),
    'a session that is none': request([
      'POST / HTTP/1.1',
      `content-type: ${TYPE}`,
      'replic-session: ../../etc/passwd',
    ]),
    'a body that begins a session': request([
      'POST / HTTP/1.1',
      `content-type: ${TYPE}`,
      'content-length: 99999999999',
    ]),
  },
}

// HTTP, for the contract.

import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import { connect as netConnect } from 'node:net'
import { connect, handler } from '../../lib/transport/http.js'
import { openLine, openStranger } from './line.js'

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

  stranger: ({ port }) =>
    openStranger(netConnect({ port, host: '127.0.0.1', noDelay: true }), 'connect'),
  dripping: {}, // test/62.http.test.js: a body that does not come
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

  async raw(address) {
    const told = new EventEmitter()
    const ending = new AbortController()
    const frames = []
    const post = (headers, body) =>
      fetch(urlOf(address), {
        method: 'POST',
        headers: { 'content-type': TYPE, ...headers },
        body,
        signal: ending.signal,
      })
    const take = async (response) => {
      const bytes = Buffer.from(await response.arrayBuffer())
      for (let at = 0; response.ok && at < bytes.length; at += 4 + bytes.readUInt32BE(at)) {
        frames.push(bytes.subarray(at + 4, at + 4 + bytes.readUInt32BE(at)))
        told.emit('frame')
      }
      return response.ok && !response.headers.has('replic-end')
    }
    const first = await post({})
    const session = { 'replic-session': first.headers.get('replic-session') ?? '' }
    const live = async () => {
      let isOpen = await take(first)
      while (isOpen) isOpen = await take(await post({ ...session, 'replic-poll': '20000' }))
    }
    return {
      send: (frame) => {
        const header = Buffer.alloc(4)
        header.writeUInt32BE(frame.length)
        return post(session, Buffer.concat([header, frame])).catch(() => {})
      },
      next: async () => {
        while (frames.length === 0) await once(told, 'frame')
        return frames.shift()
      },
      ended: live().catch(() => {}),
      destroy: () => ending.abort(),
    }
  },
}

// TCP, and TLS over it: connections that are listened for or dialed. tcp-frames.js has the format.

import { createServer, isIPv6, connect as netConnect } from 'node:net'
import { createServer as createTlsServer, connect as tlsConnect } from 'node:tls'
import { explained, ReplicError, usage } from '../base/errors.js'
import { boolean, host, integer, milliseconds, peerId, readOptions } from '../base/options.js'
import { PROOF_MS } from '../links/guests.js'
import { linksOf } from '../links/registry.js'
import { FrameSocket } from './tcp-frames.js'
import {
  connectTls,
  explainAccepted,
  explainDialed,
  listenTls,
  refusalOf,
  tlsObject,
} from './tls.js'

const LISTEN_DEFAULTS = Object.freeze({
  port: 0, // 0: the system chooses; address() tells
  host: '127.0.0.1',
  maxConnections: 10_000, // further ones are dropped, by the system's order: links are bounded by maxLinks
  tls: undefined, // options of node:tls; undefined: not encrypted
})
const LISTEN_CHECKS = {
  port: integer(0, 65535),
  host,
  maxConnections: integer(1, 1_000_000),
  tls: tlsObject,
}

const CONNECT_DEFAULTS = Object.freeze({
  port: undefined, // required
  host: '127.0.0.1',
  tls: undefined, // options of node:tls; undefined: not encrypted
  peerId: undefined, // who must answer; undefined: whoever does
  retryMinMs: 100,
  retryMaxMs: 10_000,
  unref: false, // true: waiting to dial again does not keep the process alive
})
const CONNECT_CHECKS = {
  port: integer(1, 65535),
  host,
  tls: tlsObject,
  peerId,
  retryMinMs: milliseconds(1),
  retryMaxMs: milliseconds(1),
  unref: boolean,
}

/**
 * Accepts connections from other peers. Resolves once it listens, with { address(), close(), renew(tls) };
 * renew() is for listeners with TLS: later connections get another certificate.
 * Rejects with REPLIC_USAGE, REPLIC_CLOSED, or the system's own error (EADDRINUSE, EACCES, ...).
 */
export async function listen(db, options) {
  const links = linksOf(db)
  const { port, host, maxConnections, tls } = readOptions(
    'listen',
    options,
    LISTEN_DEFAULTS,
    LISTEN_CHECKS,
  )
  const listener = new Listener(links, maxConnections, tls && listenTls(tls))
  await listener.listen(port, host)
  return {
    address: () => listener.address(),
    close: () => listener.close(),
    renew: (tls) => listener.renew(tls),
  }
}

/**
 * Keeps a connection to a listening peer: dials now, and again whenever it ends, until close() or
 * db.closeRemotePeer(). Returns { close() } at once; db.on('link') tells how it goes.
 * Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function connect(db, options) {
  const links = linksOf(db)
  const { port, host, tls, peerId, retryMinMs, retryMaxMs, unref } = readOptions(
    'connect',
    options,
    CONNECT_DEFAULTS,
    CONNECT_CHECKS,
  )
  if (port === undefined) throw new ReplicError('REPLIC_USAGE', 'connect: port is missing')
  const address = join(host, port)
  const { maxFrameBytes } = links.options
  const secure = tls && connectTls(tls)
  const dial = () => {
    if (!secure) return new FrameSocket(netConnect({ port, host }), 'connect', maxFrameBytes)
    const socket = tlsConnect({ ...secure, port, host })
    const explain = (error) => explainDialed(error, socket, address)
    return new FrameSocket(socket, 'secureConnect', maxFrameBytes, explain)
  }
  const dialer = links.dial(
    dial,
    { peerId, transport: tls ? 'tls' : 'tcp', address },
    { retryMinMs, retryMaxMs, unref },
  )
  return { close: () => dialer.close() }
}

class Listener {
  #links
  #server
  #tls
  #transport
  #address // kept: the server forgets it when it is closed
  #accepted = new Set()
  #handshakes = new Map() // address -> { socket, done }: of those whose TLS handshake is under way

  constructor(links, maxConnections, tls) {
    this.#links = links
    this.#tls = tls
    this.#transport = tls ? 'tls' : 'tcp'
    if (tls) this.#secure()
    else this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket))
    this.#server.maxConnections = maxConnections
  }

  // A certificate that is wanted is checked here, after the handshake, and not by node:tls, which ends
  // the connection without a word: so the other side hears why.
  #secure() {
    const handshakeTimeout = Math.min(PROOF_MS, this.#links.options.linkTimeoutMs)
    const options = { ...this.#tls, rejectUnauthorized: false, handshakeTimeout, noDelay: true }
    this.#server = createTlsServer(options, (socket) => {
      this.#handshakes.get(addressOf(socket))?.done()
      this.#accept(socket, refusalOf(socket, this.#tls))
    })
    this.#server.on('connection', (socket) => this.#shake(socket))
    this.#server.on('tlsClientError', (error, socket) => {
      const address = socket.remoteAddress ? addressOf(socket) : null
      const reason = explainAccepted(error, handshakeTimeout)
      socket.destroy()
      if (!this.#links.stopped)
        this.#links.turnedAway({ transport: this.#transport, address }, reason)
    })
  }

  // Who has connected, and has to go through the handshake before there is a link.
  #shake(socket) {
    const address = addressOf(socket)
    if (this.#links.stopped || this.#links.roomError(true)) return socket.destroy()
    const leave = this.#links.admit(socket.remoteAddress, () => socket.destroy())
    const done = () => {
      this.#handshakes.delete(address)
      leave()
    }
    this.#handshakes.set(address, { socket, done })
    socket.on('close', done)
  }

  async listen(port, host) {
    this.#links.addEndpoint(this)
    try {
      await new Promise((resolve, reject) => {
        this.#server.on('error', reject)
        this.#server.listen(port, host, resolve)
      })
      this.#address = this.#server.address()
    } catch (error) {
      this.#links.removeEndpoint(this)
      throw explained(error)
    }
  }

  #accept(socket, refusal) {
    if (this.#links.stopped) return socket.destroy()
    const frames = new FrameSocket(socket, null, this.#links.options.maxFrameBytes)
    try {
      const link = this.#links.add(frames, {
        transport: this.#transport,
        address: addressOf(socket),
        host: socket.remoteAddress,
        isAccepted: true,
        refusal,
        onDown: () => this.#accepted.delete(link),
      })
      this.#accepted.add(link)
    } catch {
      frames.terminate() // no room, which status() counts
    }
  }

  address() {
    return this.#address
  }

  /** Later connections get another certificate. Throws REPLIC_USAGE. */
  renew(tls) {
    if (!this.#tls) throw usage('renew: this listener has no tls')
    this.#server.setSecureContext({ ...this.#tls, ...listenTls({ ...this.#tls, ...tls }) })
  }

  /** Accepts no more. */
  stop() {
    this.#server.close()
    for (const { socket } of this.#handshakes.values()) socket.destroy()
  }

  /** Accepts no more and ends what it accepted; resolves when all of it is gone. */
  async close() {
    this.#links.removeEndpoint(this)
    this.stop()
    await Promise.all([...this.#accepted].map((link) => link.end()))
  }
}

const join = (host, port) => (isIPv6(host ?? '') ? `[${host}]:${port}` : `${host}:${port}`)
const addressOf = ({ remoteAddress, remotePort }) => join(remoteAddress, remotePort)

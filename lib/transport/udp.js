// UDP: sessions between two addresses, over which frames travel in datagrams that the path carries
// whole; and multicast groups, in which peers find each other. The parts are in udp/.

import { lookup } from 'node:dns/promises'
import { isIP, isIPv6 } from 'node:net'
import { usage } from '../base/errors.js'
import {
  boolean,
  integer,
  isPlain,
  milliseconds,
  peerId,
  readOptions,
  text,
} from '../base/options.js'
import { linksOf } from '../links/registry.js'
import { Endpoint } from './udp/endpoint.js'
import { Group } from './udp/group.js'

const MAX_DATAGRAM_BYTES = 65_507
const mtu = integer(576 - 28, MAX_DATAGRAM_BYTES) // what every IPv4 host takes, without IP's and UDP's headers
const ipAddress = {
  accepts: (value) => typeof value === 'string' && isIP(value.split('%')[0]) !== 0,
  wants: 'an IP address',
}

const BIND_DEFAULTS = Object.freeze({
  port: 0, // 0: the system chooses; address() tells
  address: '127.0.0.1',
  mtu: 1200, // bytes of a datagram
  multicast: undefined,
})
const BIND_CHECKS = {
  port: integer(0, 65535),
  address: ipAddress,
  mtu,
  multicast: { accepts: isPlain, wants: 'an object' },
}

const GROUP_DEFAULTS = Object.freeze({
  group: undefined, // required
  port: undefined, // required
  interface: undefined, // undefined: the system chooses
  ttl: 1, // hops: 1 does not leave the local network
  announceMs: 2_000,
})
const GROUP_CHECKS = {
  group: {
    accepts: (value) => ipAddress.accepts(value) && isMulticast(value),
    wants: 'a multicast address: 224.0.0.0 to 239.255.255.255, or ff00::/8',
  },
  port: integer(1, 65535),
  interface: ipAddress,
  ttl: integer(0, 255),
  announceMs: milliseconds(1),
}
const isMulticast = (address) =>
  isIPv6(address.split('%')[0])
    ? /^ff/i.test(address)
    : Number(address.split('.')[0]) >= 224 && Number(address.split('.')[0]) < 240

const PEER_DEFAULTS = Object.freeze({
  port: undefined, // required
  address: '127.0.0.1',
  peerId: undefined, // who must answer; undefined: whoever does
  mtu: 1200,
  retryMinMs: 100,
  retryMaxMs: 10_000,
  unref: false, // true: waiting to dial again does not keep the process alive
})
const PEER_CHECKS = {
  port: integer(1, 65535),
  address: text,
  peerId,
  mtu,
  retryMinMs: milliseconds(1),
  retryMaxMs: milliseconds(1),
  unref: boolean,
}

/**
 * Binds a UDP port at which other peers may dial this one, and joins a multicast group if one is given.
 * Resolves with { address(), status(), close() }. Rejects with REPLIC_USAGE, REPLIC_CLOSED, or the
 * system's own error (EADDRINUSE, EACCES, ...).
 */
export async function bind(db, options) {
  const links = linksOf(db)
  const { port, address, mtu, multicast } = readOptions('bind', options, BIND_DEFAULTS, BIND_CHECKS)
  const settings = multicast && groupOptions(multicast, address)
  const endpoint = new Endpoint(links, { mtu, accepts: true })
  links.addEndpoint(endpoint)
  try {
    await endpoint.open(port, address)
    if (settings) await endpoint.join(new Group(links, endpoint, settings))
  } catch (error) {
    await endpoint.close()
    throw error
  }
  return {
    address: () => endpoint.address(),
    status: () => endpoint.report(),
    close: () => endpoint.close(),
  }
}

function groupOptions(multicast, address) {
  const settings = readOptions('bind: multicast', multicast, GROUP_DEFAULTS, GROUP_CHECKS)
  for (const name of ['group', 'port']) {
    if (settings[name] === undefined) throw usage(`bind: multicast.${name} is missing`)
  }
  if (isIPv6(settings.group.split('%')[0]) !== isIPv6(address.split('%')[0])) {
    throw usage(
      `bind: address ${address} and multicast.group ${settings.group} must both be IPv4 or both IPv6`,
    )
  }
  return settings
}

/**
 * Keeps a session with a peer that has bound a port: dials now, and again whenever it ends, until
 * close() or db.closeRemotePeer(). Returns { status(), close() } at once; db.on('link') tells how it
 * goes. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function peer(db, options) {
  const links = linksOf(db)
  const { port, address, peerId, mtu, retryMinMs, retryMaxMs, unref } = readOptions(
    'peer',
    options,
    PEER_DEFAULTS,
    PEER_CHECKS,
  )
  if (port === undefined) throw usage('peer: port is missing')
  let endpoint
  const connect = () => {
    endpoint = new Endpoint(links, { mtu, accepts: false })
    return dial(endpoint, address, port)
  }
  const info = {
    peerId,
    transport: 'udp',
    address: isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`,
  }
  const dialer = links.dial(connect, info, { retryMinMs, retryMaxMs, unref })
  return { status: () => endpoint.report(), close: () => dialer.close() }
}

// The name may have another address each time.
function dial(endpoint, name, port) {
  const session = endpoint.create(null)
  const start = async () => {
    const { address, family } = await lookup(name)
    await endpoint.open(0, family === 6 ? '::' : '0.0.0.0')
    endpoint.dial(session, { address, port })
  }
  start().catch((error) => session.fail(error))
  return session
}

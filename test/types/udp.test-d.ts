// Types of replic-sqlite/udp: what must compile, and what must not.

import type { Replica } from '../../types/index.js'
import { bind, type Connection, type Endpoint, peer, type UdpStatus } from '../../types/udp.js'

function same<A, B>(
  _: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false,
) {}

export async function binding(db: Replica) {
  const endpoint = await bind(db, { port: 7000, address: '::', mtu: 1200 })
  same<typeof endpoint, Endpoint>(true)
  await bind(db, { multicast: { group: '239.1.2.3', port: 7001, ttl: 1 } })
  const status = endpoint.status()
  same<typeof status, UdpStatus>(true)
  const forged: number = status.counters.forged
  // @ts-expect-error the group is required
  await bind(db, { multicast: { port: 7001 } })
  // @ts-expect-error no such option
  await bind(db, { host: '127.0.0.1' })
  await endpoint.close()
  return forged
}

export async function dialing(db: Replica) {
  const connection = peer(db, { address: 'peer.example.com', port: 7000, peerId: 7 })
  same<typeof connection, Connection>(true)
  // @ts-expect-error the port is required
  peer(db, { address: '192.0.2.1' })
  await connection.close()
}

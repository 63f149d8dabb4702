// Types of replic-sqlite/bus, /nats and /redis: what must compile, and what must not. With the real clients:
// clients/.

import { type Bus, bus, type JoinedBus } from '../../types/bus.js'
import type { Replica } from '../../types/index.js'
import { type NatsClient, nats } from '../../types/nats.js'
import { type RedisClient, redis } from '../../types/redis.js'

function same<A, B>(
  _: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false,
) {}

export async function any(db: Replica) {
  const publish = (_subject: string, _bytes: Uint8Array) => {}
  const subscribe = (_subject: string, onMessage: (bytes: Uint8Array) => void) => {
    onMessage(new Uint8Array())
    return () => {}
  }
  const joined = await bus(db, { publish, subscribe, prefix: 'app' })
  same<typeof joined, Bus>(true)
  joined.disconnected(new Error('gone'))
  const sent: number = joined.status().sent
  await bus(db, { publish, subscribe: async (...args) => subscribe(...args) })
  // @ts-expect-error subscribe is required
  await bus(db, { publish })
  // @ts-expect-error it must return how to unsubscribe
  await bus(db, { publish, subscribe: () => {} })
  return sent
}

export async function others(db: Replica, connection: NatsClient, client: RedisClient) {
  same<Awaited<ReturnType<typeof nats>>, JoinedBus>(true)
  await nats(db, { connection, prefix: 'app' })
  await redis(db, { client, subscriber: client, sharded: true })
  // @ts-expect-error the connection is required
  await nats(db, {})
  // @ts-expect-error the client is required
  await redis(db, { sharded: true })
  // @ts-expect-error no such option
  await redis(db, { client, shard: true })
}

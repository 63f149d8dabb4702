// The real clients of NATS and Redis are what replic-sqlite/nats and /redis take. Apart, because the
// declarations of NATS do not pass all the checks that ours do.

import { connect } from '@nats-io/transport-node'
import { createClient, createCluster } from 'redis'
import type { JoinedBus } from '../../../types/bus.js'
import type { Replica } from '../../../types/index.js'
import { nats } from '../../../types/nats.js'
import { redis } from '../../../types/redis.js'

const same = (_: JoinedBus) => {}

export async function overNats(db: Replica) {
  const joined = await nats(db, { connection: await connect(), prefix: 'app' })
  same(joined)
  // @ts-expect-error not a promise of it
  await nats(db, { connection: connect() })
}

export async function overRedis(db: Replica) {
  const client = await createClient().connect()
  const joined = await redis(db, { client, subscriber: await client.duplicate().connect() })
  same(joined)
  const cluster = createCluster({ rootNodes: [{ url: 'redis://127.0.0.1:7000' }] })
  await redis(db, { client: await cluster.connect(), sharded: true })
  // @ts-expect-error not a promise of it
  await redis(db, { client: createClient().connect() })
}

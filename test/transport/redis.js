// Redis, for the contract: a real server.

import { createClient } from 'redis'
import { redis } from '../../lib/transport/redis.js'
import { startRedis } from '../servers.js'
import { buses, lacks } from './bus.js'
import { openLine } from './line.js'

let server
let client
let subscriber

const dial = (port) =>
  createClient({ socket: { port: Number(port), reconnectStrategy: 20 } })
    .on('error', () => {})
    .connect()

// The application's own client, but for publish().
const through = (line) => ({
  subscriber,
  client: new Proxy(client, {
    get(target, name) {
      const value = target[name]
      if (name === 'publish') {
        return async (subject, bytes) =>
          line.carry(Buffer.from(bytes), (each) => {
            // Nobody awaits what comes late: it is lost with the client, as on any line.
            if (target.isOpen) target.publish(subject, each).catch(() => {})
          })
      }
      return typeof value === 'function' ? value.bind(target) : value
    },
  }),
})

export const adapter = buses({
  name: 'redis',
  module: import.meta.url,
  lacks,
  shared: () => ({ client, subscriber, through, publish: (...args) => client.publish(...args) }),
  join: (db, { client, subscriber }, options) => redis(db, { client, subscriber, ...options }),

  async start() {
    server = await startRedis()
    client = await dial(server.port)
    subscriber = await dial(server.port)
  },
  async stop() {
    for (const each of [client, subscriber]) each.destroy()
    await server.close()
  },

  async line({ prefix }) {
    const line = await openLine(server.port)
    const dialing = [dial(line.port), dial(line.port)]
    const close = async () => {
      line.close()
      for (const each of await Promise.all(dialing)) each.destroy()
    }
    const medium = async () => {
      const [client, subscriber] = await Promise.all(dialing)
      return { client, subscriber }
    }
    return { ...line, address: { prefix, medium }, close }
  },
})

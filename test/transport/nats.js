// NATS, for the contract: a real server.

import { connect } from '@nats-io/transport-node'
import { nats } from '../../lib/transport/nats.js'
import { startNats } from '../servers.js'
import { buses, lacks } from './bus.js'
import { openLine } from './line.js'

let server
let connection

const dial = (port) => connect({ port, reconnectTimeWait: 20, maxReconnectAttempts: -1 })

// The application's own connection, but for publish().
const through = (line) => ({
  connection: new Proxy(connection, {
    get(target, name) {
      const value = target[name]
      if (name === 'publish')
        return (subject, bytes) =>
          line.carry(
            Buffer.from(bytes),
            (each) => target.isClosed() || target.publish(subject, each),
          )
      return typeof value === 'function' ? value.bind(target) : value
    },
  }),
})

export const adapter = buses({
  name: 'nats',
  module: import.meta.url,
  lacks,
  shared: () => ({ connection, through, publish: (...args) => connection.publish(...args) }),
  join: (db, { connection }, options) => nats(db, { connection, ...options }),

  async start() {
    server = await startNats()
    connection = await dial(server.port)
  },
  async stop() {
    await connection.close()
    await server.close()
  },

  async line({ prefix }) {
    const line = await openLine(server.port)
    const dialing = dial(line.port)
    const close = async () => {
      line.close()
      await (await dialing).close()
    }
    const medium = async () => ({ connection: await dialing })
    return { ...line, address: { prefix, medium }, close }
  },
})

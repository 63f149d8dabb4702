// NATS as a bus, over the application's own connection (@nats-io/transport-node or nats-core).

import { usage } from '../base/errors.js'
import { kindOf, readOptions, subject } from '../base/options.js'
import { bus } from './bus.js'

const MiB = 1024 * 1024
const DEFAULTS = Object.freeze({ connection: undefined, prefix: 'replic' })
const CHECKS = { connection: { accepts: () => true }, prefix: subject }
const METHODS = ['publish', 'subscribe', 'flush', 'status', 'closed', 'isClosed']

/**
 * Links to every peer that is on the same NATS with the same prefix. Resolves once this peer is
 * subscribed, with { status(), close() }; the connection stays the application's, which closes it last.
 * Rejects with REPLIC_USAGE, REPLIC_CLOSED, or NATS's own error.
 */
export async function nats(db, options) {
  const { connection, prefix } = readOptions('nats', options, DEFAULTS, CHECKS)
  if (!METHODS.every((name) => typeof connection?.[name] === 'function')) {
    throw usage(
      `nats: connection must be a connected client, as connect() of the npm package @nats-io/transport-node makes it, not ${kindOf(connection)}`,
    )
  }
  const joined = await bus(db, {
    name: 'nats',
    prefix,
    maxMessageBytes: Math.min(connection.info?.max_payload ?? MiB, MiB),
    publish: (subject, bytes) => connection.publish(subject, bytes),
    subscribe: (subject, onMessage) => subscribe(connection, subject, onMessage),
  })
  const statuses = connection.status()
  const gone = (error) => joined.disconnected(error || undefined)
  watch(statuses, joined).catch(gone)
  connection.closed().then(gone, gone)
  const close = async () => {
    await joined.close()
    statuses.stop?.()
    if (!connection.isClosed()) await connection.flush().catch(() => {})
  }
  return { status: joined.status, close }
}

async function subscribe(connection, subject, onMessage) {
  let failed = () => {}
  const refused = new Promise((_, reject) => {
    failed = reject
  })
  refused.catch(() => {}) // after the flush nobody waits for it: status() of the client has it
  const callback = (error, message) => (error ? failed(error) : onMessage(message.data))
  const subscription = connection.subscribe(subject, { callback })
  await Promise.race([connection.flush(), refused]) // from here on, the server knows of it
  return () => {
    if (!connection.isClosed()) subscription.unsubscribe()
  }
}

async function watch(statuses, joined) {
  for await (const { type } of statuses) {
    if (type === 'disconnect') joined.disconnected()
    if (type === 'reconnect') joined.connected()
  }
}

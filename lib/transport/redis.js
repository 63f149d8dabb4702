// Redis as a bus, over the application's own client (the npm package redis, or @redis/client).

import { usage } from '../base/errors.js'
import { boolean, kindOf, readOptions, subject } from '../base/options.js'
import { bus } from './bus.js'

const any = { accepts: () => true }
const DEFAULTS = Object.freeze({
  client: undefined, // required: publishes
  subscriber: undefined, // subscribes; undefined: a duplicate of the client, made and closed here
  prefix: 'replic', // of the channels
  sharded: false, // SPUBLISH and SSUBSCRIBE: in a cluster, each channel is on one shard only
})
const CHECKS = { client: any, subscriber: any, prefix: subject, sharded: boolean }

/**
 * Links to every peer that is on the same Redis with the same prefix. Resolves once this peer is
 * subscribed, with { status(), close() }; the client stays the application's, which closes it last.
 * Rejects with REPLIC_USAGE, REPLIC_CLOSED, or the client's own error.
 */
export async function redis(db, options) {
  const { client, subscriber, prefix, sharded } = readOptions('redis', options, DEFAULTS, CHECKS)
  check('client', client)
  if (subscriber !== undefined) check('subscriber', subscriber)
  // A cluster's client has connections of its own for subscriptions, and tells of no single one: there,
  // links end when nothing comes any more.
  const isCluster = 'masters' in client
  const listening = subscriber ?? (isCluster ? client : await duplicate(client))
  const isOurs = listening !== subscriber && listening !== client
  let unwatch = () => {}
  const release = () => {
    unwatch()
    if (isOurs && listening.isOpen) listening.destroy()
  }
  try {
    const over = medium(client, listening, sharded, release)
    const joined = await bus(db, { name: 'redis', prefix, ...over })
    unwatch = watch(isCluster ? [] : [client, listening], joined)
    return { status: joined.status, close: joined.close }
  } catch (error) {
    release()
    throw error
  }
}

// `release` is called when all subscriptions have ended: as bus() ends them with the replica too.
function medium(client, listening, sharded, release) {
  let subscriptions = 0
  const [publish, subscribe, unsubscribe] = sharded
    ? ['sPublish', 'sSubscribe', 'sUnsubscribe']
    : ['publish', 'subscribe', 'unsubscribe']
  return {
    publish: (channel, bytes) => client[publish](channel, bytes),
    subscribe: async (channel, onMessage) => {
      await listening[subscribe](channel, onMessage, true) // true: as bytes
      subscriptions++
      return async () => {
        try {
          if (listening.isOpen) await listening[unsubscribe](channel, onMessage, true)
        } finally {
          if (--subscriptions === 0) release()
        }
      }
    },
  }
}

async function duplicate(client) {
  const listening = client.duplicate()
  listening.on('error', () => {}) // it connects again; the application hears of its own client's
  await listening.connect()
  return listening
}

// The bus is up while all of the clients are. Returns how to stop watching.
function watch(clients, joined) {
  const listeners = {
    error: (error) => clients.every(({ isReady }) => isReady) || joined.disconnected(error),
    reconnecting: () => joined.disconnected(),
    end: () => joined.disconnected(),
    ready: () => clients.every(({ isReady }) => isReady) && joined.connected(),
  }
  const each = (method) => {
    for (const client of clients) {
      for (const [event, listener] of Object.entries(listeners)) client[method](event, listener)
    }
  }
  each('on')
  return () => each('off')
}

function check(what, client) {
  const methods = ['publish', 'subscribe', 'unsubscribe', 'on', 'off']
  if (methods.every((name) => typeof client?.[name] === 'function') && 'isOpen' in client) {
    if (client.isOpen) return
    throw usage(`redis: ${what} is not connected: await its connect() before`)
  }
  throw usage(
    `redis: ${what} must be a connected client, as createClient() or createCluster() of the npm package redis makes it, not ${kindOf(client)}`,
  )
}

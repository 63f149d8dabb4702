import type { JoinedBus } from './bus.js'
import type { Replica } from './index.js'

/** What is used of a client of the npm package redis. */
export interface RedisClient {
  /** Whether it is connected, or connecting. */
  readonly isOpen: boolean
  /** A message, on a channel; with `sharded` sPublish is used. */
  // biome-ignore lint/suspicious/noExplicitAny: the client's own types are generic
  publish: (...args: any[]) => unknown
  /** To the messages of a channel; with `sharded` sSubscribe. */
  // biome-ignore lint/suspicious/noExplicitAny: likewise
  subscribe: (...args: any[]) => unknown
  /** Likewise. */
  // biome-ignore lint/suspicious/noExplicitAny: likewise
  unsubscribe: (...args: any[]) => unknown
}

/** Options of redis(). */
export interface RedisOptions {
  /** Connected, from createClient() or createCluster(). It stays the application's: close it last. */
  client: RedisClient
  /** Subscribes. Default: a duplicate of the client, made and closed by this adapter. */
  subscriber?: RedisClient | undefined
  /** Of the channels. Default 'replic'. */
  prefix?: string | undefined
  /** Sharded pub/sub (SPUBLISH, SSUBSCRIBE), for a cluster. Default false. */
  sharded?: boolean | undefined
}

/**
 * Links to every peer on the same Redis with the same prefix. Resolves once subscribed. Rejects with REPLIC_USAGE,
 * REPLIC_CLOSED, or the client's own error.
 */
export function redis(db: Replica, options: RedisOptions): Promise<JoinedBus>

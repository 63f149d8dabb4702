import type { JoinedBus } from './bus.js'
import type { Replica } from './index.js'

/** What is used of a NatsConnection. */
export interface NatsClient {
  readonly info?: { max_payload?: number } | undefined
  // biome-ignore lint/suspicious/noExplicitAny: the client's own types are stricter
  subscribe(subject: string, options?: any): { unsubscribe(): void }
  publish(subject: string, payload?: Uint8Array): void
  flush(): Promise<void>
  status(): AsyncIterable<{ type: string }>
  // biome-ignore lint/suspicious/noConfusingVoidType: as the client has it
  closed(): Promise<void | Error>
  isClosed(): boolean
}

export interface NatsOptions {
  /** Connected, from connect() of @nats-io/transport-node. It stays the application's: close it last. */
  connection: NatsClient
  /** Of the subjects. Default 'replic'. */
  prefix?: string | undefined
}

/**
 * Links to every peer on the same NATS with the same prefix. Resolves once subscribed. Rejects with REPLIC_USAGE,
 * REPLIC_CLOSED, or NATS's own error.
 */
export function nats(db: Replica, options: NatsOptions): Promise<JoinedBus>

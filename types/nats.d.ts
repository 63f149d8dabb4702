import type { JoinedBus } from './bus.js'
import type { Replica } from './index.js'

/** What is used of a NatsConnection. */
export interface NatsClient {
  /** What the server has told of itself. */
  readonly info?: { max_payload?: number } | undefined
  /** To the messages of a subject. */
  // biome-ignore lint/suspicious/noExplicitAny: the client's own types are stricter
  subscribe(subject: string, options?: any): { unsubscribe(): void }
  /** A message, on a subject. */
  publish(subject: string, payload?: Uint8Array): void
  /** Resolves when what was published is at the server. */
  flush(): Promise<void>
  /** Tells when it is disconnected, and connected again. */
  status(): AsyncIterable<{ type: string }>
  /** Resolves when it is closed for good. */
  // biome-ignore lint/suspicious/noConfusingVoidType: as the client has it
  closed(): Promise<void | Error>
  /** Whether it is. */
  isClosed(): boolean
}

/** Options of nats(). */
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

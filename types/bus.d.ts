import type { Replica } from './index.js'

/** Options of bus(): what is used of the medium. */
export interface BusOptions {
  /** Publishes a message, to whoever has subscribed to the subject. What it throws or rejects with is a lost message. */
  publish(subject: string, bytes: Uint8Array): unknown
  /** Hands over every message on a subject, until what it returns (or resolves with) is called. */
  subscribe(
    subject: string,
    onMessage: (bytes: Uint8Array) => void,
  ): (() => unknown) | Promise<() => unknown>
  /** What events and status() call it. Default 'bus'. */
  name?: string | undefined
  /** Of the subjects `<prefix>.all` and `<prefix>.<peerId>`: peers with another one do not meet. Default 'replic'. */
  prefix?: string | undefined
  /** Frames that are larger go in parts. 4,096 bytes to 1 GiB; default 1 MiB. */
  maxMessageBytes?: number | undefined
  /** Least delay before a link that has failed is made again, doubled with each failure. Default 100 ms. */
  retryMinMs?: number | undefined
  /** Greatest such delay. Default 10,000 ms. */
  retryMaxMs?: number | undefined
}

/** How a bus is. */
export interface BusStatus {
  /** Whether it can be reached, as far as is known. */
  isConnected: boolean
  /** Peers that are linked, or being linked. */
  links: number
  /** Messages published, and their bytes. */
  sent: number
  /** Bytes of them. */
  sentBytes: number
  /** Messages for this peer. */
  received: number
  /** Messages that are not ours. */
  ignored: number
  /** Messages with a wrong seal, or of a peer with this one's own peerId. */
  refused: number
}

/** A bus that was joined. */
export interface JoinedBus {
  /** How it is. */
  status(): BusStatus
  /** Ends all links, and leaves. Resolves when everything is published, at most after two seconds. */
  close(): Promise<void>
}

/** What bus() resolves with: the application tells it how its medium is. */
export interface Bus extends JoinedBus {
  /** The medium cannot be reached: links end at once. `error` is their reason. */
  disconnected(error?: Error): void
  /** It can be reached again: links come back. */
  connected(): void
}

/**
 * Joins a bus: links to every peer that joins it with the same prefix. Resolves once subscribed. Rejects with
 * REPLIC_USAGE, REPLIC_CLOSED, or what subscribe() throws.
 */
export function bus(db: Replica, options: BusOptions): Promise<Bus>

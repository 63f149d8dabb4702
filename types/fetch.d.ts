/// <reference types="node" />

import type { Replica, SessionOptions } from './index.js'

/** Options of readYourWrite(). */
export interface FetchOptions extends SessionOptions {
  /**
   * Answers for a handler that has thrown; the answer gets the token of what was written before. What it throws
   * itself, the server gets. Default: 500, and the error to console.error.
   */
  onError?: ((error: unknown, request: Request) => Response | Promise<Response>) | undefined
}

/**
 * Read your own write, around a handler that takes a Request and gives a Response: `Bun.serve({ fetch:
 * readYourWrite(db, handler) })`, or `readYourWrite(db, app.fetch)` of Hono. See Replica.readYourWrite().
 * Further arguments are passed on; a handler that gives no Response (Bun: the request became a WebSocket) too.
 * The request that the handler gets has `replic`, a ReplicState. Throws REPLIC_USAGE.
 */
export function readYourWrite<A extends unknown[], R extends Response | undefined>(
  db: Replica,
  handler: (request: Request, ...args: A) => R | Promise<R>,
  options?: FetchOptions,
): (request: Request, ...args: A) => Promise<Response | Extract<R, undefined>>

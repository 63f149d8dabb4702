/// <reference types="node" />

import type { Agent, IncomingMessage, ServerResponse } from 'node:http'
import type { ConnectionOptions } from 'node:tls'
import type { Replica } from './index.js'

/** Options of handler() and fetchHandler(). */
export interface HandlerOptions {
  /**
   * Of pages that may send requests, as ['https://app.example.com']; a request with any other `Origin` is answered 403. Peers send
   * none. Default: no page may.
   */
  origins?: readonly string[] | undefined
  /**
   * Names under which this is reached, without ports; '.example.com' are those below example.com too. Without a secret and without
   * TLS, a request whose `Host` is another name is answered 403, as a page may be behind it that has made its name lead here.
   * Addresses, localhost and names without a dot need not be given. Default: none.
   */
  hosts?: readonly string[] | undefined
  /**
   * The longest that a request waits for frames, 1 to 240,000 ms; a client may ask for less. Less than what
   * any proxy before it waits for an answer. Default 20,000 ms.
   */
  pollMs?: number | undefined
}

/** What handler() returns: a function that serves peers. */
export interface Handler {
  /** Answers one request, whatever its path. For node:http, `app.use(path, handler)` of Express, Fastify's raw. */
  (req: IncomingMessage, res: ServerResponse): Promise<void>
  /** Ends the sessions that it serves; what comes afterwards is answered 503. */
  close(): Promise<void>
}

/** What fetchHandler() returns: a function that serves peers. */
export interface FetchHandler {
  /** Answers one request, whatever its path. Bun.serve's second argument, the server, may be passed on. */
  (request: Request, server?: unknown): Promise<Response>
  /** Ends the sessions that it serves; what comes afterwards is answered 503. */
  close(): Promise<void>
}

type Headers = Record<string, string>

/** Options of connect(). */
export interface ConnectOptions {
  /** Where a handler is mounted: http: or https:. Redirects are not followed. */
  url: string | URL
  /** Who must answer; anyone else is refused with REPLIC_PEER. Default: whoever answers. */
  peerId?: number | undefined
  /** Headers of each request, as { authorization }; or a function that is called for each of them. */
  headers?: Headers | (() => Headers | Promise<Headers>) | undefined
  /** For https: `ca`, `cert`, `key`, `servername`, and what else node:tls's connect() takes. */
  tls?: ConnectionOptions | undefined
  /** Instead of an agent of its own, which keeps connections alive: for a proxy, say. `tls` is then the agent's. */
  agent?: Agent | undefined
  /** The longest that a request asks to wait for frames, 1 to 240,000 ms. Default 20,000 ms. */
  pollMs?: number | undefined
  /** The most bytes in a request; a larger frame goes in several. From 1,024. Default 1,000,000. */
  maxBodyBytes?: number | undefined
  /** Least delay before dialing again, doubled with each failure, of which a random part is waited. Default 100 ms. */
  retryMinMs?: number | undefined
  /** Greatest such delay. Default 10,000 ms. */
  retryMaxMs?: number | undefined
  /** Waiting to dial again does not keep the process alive. Default false. */
  unref?: boolean | undefined
}

/** What connect() returns. */
export interface Connection {
  /** Dials no more, and ends the session. */
  close(): Promise<void>
}

/**
 * Serves peers over node:http and what is built on it. What `authorize(peerId, info)` gets as `info.request`
 * is the IncomingMessage that began the session. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function handler(db: Replica, options?: HandlerOptions): Handler

/**
 * The same for servers that give a Request and take a Response: Bun.serve, Hono, Deno.serve. Then
 * `info.request` is the Request. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function fetchHandler(db: Replica, options?: HandlerOptions): FetchHandler

/**
 * Keeps a session with a serving peer: begins it now, and a new one whenever it ends, until close() of either,
 * or db.closeRemotePeer(). db.on('link') tells how it goes. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function connect(db: Replica, options: ConnectOptions): Connection

/// <reference types="node" />

import type { ConnectionOptions } from 'node:tls'
import type { Replica, WebSocketLike } from './index.js'

/**
 * A message that is not ours: a text as a string, bytes as Uint8Array; with the WebSocket that it came over, as
 * ws, the global WebSocket or Bun.serve knows it. What is not ours: texts, and bytes that do not begin with 1 and
 * then 1 to 11 or 32 to 37. It may come before the other side has proven anything. What the listener throws is not
 * caught.
 */
// biome-ignore lint/suspicious/noExplicitAny: whichever kind of socket it is
export type OnUnknownMessage = (message: string | Uint8Array, socket: any) => void

/** Which requests may come from pages in browsers. */
export interface Browsers {
  /**
   * Of pages that may open a link, as ['https://app.example.com']; a request with any other `Origin` is refused, with 403 where
   * it can be. Peers send none. Default: no page may.
   */
  origins?: readonly string[] | undefined
  /**
   * Names under which this is reached, without ports; '.example.com' are those below example.com too. Without a secret and without
   * TLS, a request whose `Host` is another name is refused likewise, as a page may be behind it that has made its name lead here.
   * Addresses, localhost and names without a dot need not be given. Default: none.
   */
  hosts?: readonly string[] | undefined
}

/** Options of handler(). */
export interface HandlerOptions extends Browsers {
  /** For an application that shares the socket. Default: such a message ends the link with REPLIC_PROTOCOL. */
  onUnknownMessage?: OnUnknownMessage | undefined
}

/** What handler() returns: a function that links sockets. */
export interface Handler {
  /**
   * Links a WebSocket of ws that is open: a listener for 'connection' of a WebSocketServer, or a handler of
   * @fastify/websocket. `request` is what authorize() gets as info.request. Throws REPLIC_USAGE.
   */
  // biome-ignore lint/suspicious/noExplicitAny: IncomingMessage or FastifyRequest
  (socket: WebSocketLike, request: any): void
  /**
   * Why a request is refused, as it may come from a page; null if it is not. To be asked before the upgrade, so that 403 can be
   * answered: what is refused later is closed with 1008.
   */
  // biome-ignore lint/suspicious/noExplicitAny: the same
  refuses(request: any): string | null
  /** Ends its links; a socket that comes afterwards is closed with 1001. */
  close(): Promise<void>
}

/** Options of attach(). */
export interface AttachOptions extends HandlerOptions {
  /** Of the requests whose sockets are linked, without a query; others are left alone. Default: all. */
  path?: string | undefined
}

/** What is used of a WebSocketServer of ws. */
export interface WebSocketServerLike {
  /** To be told of sockets. */
  // biome-ignore lint/suspicious/noExplicitAny: its own types are stricter
  on(name: 'connection', listener: (socket: any, request: any) => void): unknown
  /** Not any more. */
  // biome-ignore lint/suspicious/noExplicitAny: the same
  off(name: 'connection', listener: (socket: any, request: any) => void): unknown
  /** By which such a server is known. */
  handleUpgrade: unknown
}

/** The application's own handlers and limits, as Bun.serve takes them for `websocket`. */
export interface BunWebSocketHandlers {
  /** A socket is open. */
  // biome-ignore lint/suspicious/noExplicitAny: Bun's types are stricter
  open?(socket: any): void | Promise<void>
  /** A message has come. */
  // biome-ignore lint/suspicious/noExplicitAny: the same
  message?(socket: any, message: any): void | Promise<void>
  /** It has ended. */
  // biome-ignore lint/suspicious/noExplicitAny: the same
  close?(socket: any, code: number, reason: string): void | Promise<void>
  /** It can take more. */
  // biome-ignore lint/suspicious/noExplicitAny: the same
  drain?(socket: any): void | Promise<void>
  /** Largest message, bytes. At least 65,538; with handlers of the application's own 16 MiB, if it says nothing. */
  maxPayloadLength?: number
  /** Bytes that wait to be sent before Bun drops messages. At least what a link needs. */
  backpressureLimit?: number
  /** Default 120 seconds. */
  idleTimeout?: number
  /** Default false. Frames are never compressed. */
  perMessageDeflate?: boolean
  /** Whatever else Bun.serve takes. */
  [option: string]: unknown
}

/** Options of bunHandlers(). */
export interface BunHandlersOptions extends HandlerOptions {
  /** For sockets that `upgrade` has not made. */
  others?: BunWebSocketHandlers | undefined
}

/** What bunHandlers() returns: parts of a Bun.serve. */
export interface BunHandlers {
  /** For Bun.serve, under the same name. */
  readonly websocket: BunWebSocketHandlers & {
    // biome-ignore lint/suspicious/noExplicitAny: Bun's types are stricter
    message(socket: any, message: any): void | Promise<void>
    maxPayloadLength: number
    backpressureLimit: number
  }
  /**
   * Upgrades a request, whatever its path, to a socket that is linked. False: it is no upgrade, the replica is
   * closed, or the request is refused, and the application answers. authorize() gets { url, headers } of it as info.request.
   */
  // biome-ignore lint/suspicious/noExplicitAny: Bun's types are stricter
  upgrade(request: Request, server: { upgrade(request: any, options: any): boolean }): boolean
  /** Why a request is refused, as it may come from a page; null if it is not. For an answer with 403. */
  refuses(request: Request): string | null
  /** Ends the links of its sockets, and makes no more. */
  close(): Promise<void>
}

type Headers = Record<string, string>

/** Options of connect(). */
export interface ConnectOptions {
  /** Who must answer; anyone else is refused with REPLIC_PEER. Default: whoever answers. */
  peerId?: number | undefined
  /** Headers of the request, as { authorization }; or a function that is called each time it dials. */
  headers?: Headers | (() => Headers | Promise<Headers>) | undefined
  /** For wss: `ca`, `cert`, `key`, `servername`, and what else node:tls's connect() takes. */
  tls?: ConnectionOptions | undefined
  /**
   * Called as `new WebSocket(url, { headers, tls, …tls, perMessageDeflate, maxPayload })`. Default: the global one;
   * ws where there is none, or where there are headers or TLS options (not on Bun, whose own takes them).
   */
  // biome-ignore lint/suspicious/noExplicitAny: ws, undici, Node and Bun each have options of their own
  WebSocket?: (new (url: string, options: any) => WebSocketLike) | undefined
  /** For an application that shares the socket. Default: such a message ends the link with REPLIC_PROTOCOL. */
  onUnknownMessage?: OnUnknownMessage | undefined
  /** Least delay before dialing again, doubled with each failure, of which a random part is waited. Default 100 ms. */
  retryMinMs?: number | undefined
  /** Greatest such delay. Default 10,000 ms. */
  retryMaxMs?: number | undefined
  /** Waiting to dial again does not keep the process alive. Default false. */
  unref?: boolean | undefined
}

/** What connect() returns. */
export interface Connection {
  /** The WebSocket at present, for messages of the application's; null before the first one is made. */
  // biome-ignore lint/suspicious/noExplicitAny: whichever kind of socket it is
  readonly socket: any
  /** Dials no more, and ends the connection. */
  close(): Promise<void>
}

/**
 * For sockets that ws has accepted: `server.on('connection', handler(db))`, after `handleUpgrade`, or as a handler
 * of @fastify/websocket. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function handler(db: Replica, options?: HandlerOptions): Handler

/**
 * The same for a whole WebSocketServer of ws, or one path of it. close() ends its links; the server stays the
 * application's. Throws REPLIC_USAGE (perMessageDeflate must be off, maxPayload at least 65,538) or REPLIC_CLOSED.
 */
export function attach(
  db: Replica,
  server: WebSocketServerLike,
  options?: AttachOptions,
): { close(): Promise<void> }

/** The same for Bun.serve. Throws REPLIC_USAGE or REPLIC_CLOSED. */
export function bunHandlers(db: Replica, options?: BunHandlersOptions): BunHandlers

/**
 * Keeps a connection to a serving peer at a ws: or wss: URL: dials now, and again whenever it ends, until close()
 * of either, or db.closeRemotePeer(). db.on('link') tells how it goes. Throws REPLIC_CLOSED, or REPLIC_USAGE, which
 * says so where the npm package ws is needed and missing.
 */
export function connect(db: Replica, url: string | URL, options?: ConnectOptions): Connection

/// <reference types="node" />

import type { ConnectionOptions, TlsOptions } from 'node:tls'
import type { Replica } from './index.js'

type Common =
  | 'ca'
  | 'cert'
  | 'key'
  | 'passphrase'
  | 'pfx'
  | 'crl'
  | 'rejectUnauthorized'
  | 'minVersion'
  | 'maxVersion'
  | 'ciphers'
  | 'sigalgs'
  | 'ecdhCurve'

/** Options of node:tls. `cert` and `key`, or `pfx`, are needed; with a `ca`, say what `requestCert` is. */
export type ListenTls = Pick<
  TlsOptions,
  Common | 'requestCert' | 'SNICallback' | 'dhparam' | 'honorCipherOrder'
>

/** Options of node:tls. */
export type ConnectTls = Pick<ConnectionOptions, Common | 'servername' | 'checkServerIdentity'>

/** Options of listen(). */
export interface ListenOptions {
  /** 0 to 65535. Default 0: the system chooses, address() tells. */
  port?: number | undefined
  /** The address to listen on. Default 127.0.0.1: this machine only. */
  host?: string | undefined
  /** Connections beyond this number are dropped, whoever they are; maxLinks bounds links. Default 10,000. */
  maxConnections?: number | undefined
  /** Encrypt. Default: not encrypted. */
  tls?: ListenTls | undefined
}

/** What listen() resolves with. */
export interface Listener {
  /** Where it listens; still the same once closed. */
  address(): { address: string; family: string; port: number }
  /** Accepts no more, and ends what was accepted. */
  close(): Promise<void>
  /**
   * Other certificates, with all else in `tls` as before, for connections that are accepted from now on.
   * Throws REPLIC_USAGE, also where `listen` was given no `tls`.
   */
  renew(tls: ListenTls): void
}

/** Options of connect(). */
export interface ConnectOptions {
  /** 1 to 65535. */
  port: number
  /** Default 127.0.0.1. */
  host?: string | undefined
  /** Encrypt; `{}` trusts what Node trusts. Default: not encrypted. */
  tls?: ConnectTls | undefined
  /** Who must answer; anyone else is refused with REPLIC_PEER. Default: whoever answers. */
  peerId?: number | undefined
  /** Least delay before dialing again, doubled with each failure, of which a random part is waited. Default 100 ms. */
  retryMinMs?: number | undefined
  /** Greatest such delay. Default 10,000 ms. */
  retryMaxMs?: number | undefined
  /** Waiting to dial again does not keep the process alive. Default false. */
  unref?: boolean | undefined
}

/** What connect() returns. */
export interface Connection {
  /** Dials no more, and ends the connection. */
  close(): Promise<void>
}

/**
 * Accepts connections from other peers over TCP, encrypted with `tls`. Authenticated only where the replicas have a
 * `secret`, or `tls` has `requestCert`. Rejects with REPLIC_USAGE, REPLIC_CLOSED, or the system's own error (EADDRINUSE, EACCES, ...).
 */
export function listen(db: Replica, options?: ListenOptions): Promise<Listener>

/**
 * Keeps a connection to a listening peer: dials now, and again whenever it ends, until close() of either, or
 * db.closeRemotePeer(). db.on('link') tells how it goes. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function connect(db: Replica, options: ConnectOptions): Connection

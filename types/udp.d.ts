import type { Replica } from './index.js'

/** A group of bind(). */
export interface MulticastOptions {
  /** A multicast address, of the family of `address`: 224.0.0.0 to 239.255.255.255, or ff00::/8. */
  group: string
  /** The group's port, 1 to 65535, the same for all its peers; another one than that of `bind`. */
  port: number
  /** The address of the network interface to use (IPv6: `::%eth0`). Default: the system chooses. */
  interface?: string | undefined
  /** Hops that announcements may make, 0 to 255. Default 1: they stay in the local network. */
  ttl?: number | undefined
  /** Interval of announcements. Default 2,000 ms. */
  announceMs?: number | undefined
}

/** Options of bind(). */
export interface BindOptions {
  /** 0 to 65535. Default 0: the system chooses, address() tells. */
  port?: number | undefined
  /** The IP address to bind. Default 127.0.0.1: this machine only. */
  address?: string | undefined
  /** Bytes of a datagram at most, 548 to 65,507, without the headers of IP and UDP. Default 1,200. */
  mtu?: number | undefined
  /** A group in which peers find each other. Default: none. */
  multicast?: MulticastOptions | undefined
}

/** A session: who is at the other end, and how the path to it is. */
export interface SessionStatus {
  /** null: not known yet. */
  peerId: number | null
  /** Of the other side; null: not known yet. */
  address: string | null
  /** Likewise. */
  port: number | null
  /** Both sides have proven that they know the secret, and each datagram is checked. */
  isAuthenticated: boolean
  /** Smoothed round trip; null before the first one was measured. */
  rttMs: number | null
  /** Bytes that may be on their way. */
  windowBytes: number
  /** Bytes on their way. */
  flightBytes: number
  /** Bytes of frames that have not been sent yet. */
  queuedBytes: number
  /** Bytes received that wait for something before them. */
  earlyBytes: number
  /** Datagrams of data sent again. */
  retransmitted: number
}

/** Datagrams, since it was bound or dialed. */
export interface UdpCounters {
  /** Received. */
  received: number
  /** Sent. */
  sent: number
  /** Ignored: too short, too long, not of this protocol. */
  malformed: number
  /** Ignored: of no session that there is. */
  unknown: number
  /** Ignored: a wrong tag, or from an address that is not the session's. */
  forged: number
  /** Ignored: came a second time, or much too late. */
  replayed: number
  /** Data for which there was no room: it comes again. */
  noRoom: number
  /** Ignored: handshakes with a cookie that is wrong or old. */
  badCookies: number
  /** Handshakes that were answered with a refusal. */
  refused: number
  /** Sessions of which nothing was heard after the handshake, and whose place others took. */
  evicted: number
  /** Times that the other side's address has changed. */
  moved: number
  /** Not taken by the system, and sent again if they were data. */
  unsent: number
}

/** How an endpoint or a connection is. */
export interface UdpStatus {
  /** Each session. */
  sessions: SessionStatus[]
  /** Sessions of which nothing was heard yet after the handshake; among `sessions`. */
  pending: number
  /** Of all of them. */
  counters: UdpCounters
}

/** What bind() resolves with. */
export interface Endpoint {
  /** Where it is bound; still the same once closed. */
  address(): { address: string; family: string; port: number }
  /** How it is. */
  status(): UdpStatus
  /** Leaves the group, accepts no more, and ends all its sessions. */
  close(): Promise<void>
}

/** Options of peer(). */
export interface PeerOptions {
  /** 1 to 65535. */
  port: number
  /** An IP address or a name. Default 127.0.0.1. */
  address?: string | undefined
  /** Who must answer; anyone else is refused with REPLIC_PEER. Default: whoever answers. */
  peerId?: number | undefined
  /** As in `bind`; each side's own. Default 1,200 bytes. */
  mtu?: number | undefined
  /** Least delay before dialing again, doubled with each failure, of which a random part is waited. Default 100 ms. */
  retryMinMs?: number | undefined
  /** Greatest such delay. Default 10,000 ms. */
  retryMaxMs?: number | undefined
  /** Waiting to dial again does not keep the process alive. Default false. */
  unref?: boolean | undefined
}

/** What peer() returns. */
export interface Connection {
  /** Of the present attempt. */
  status(): UdpStatus
  /** Dials no more, and ends the session. */
  close(): Promise<void>
}

/**
 * Binds a UDP port at which other peers may dial this one; with `multicast` it also joins a group, in which peers
 * find and link each other. With a `secret` its links are authenticated and
 * encrypted, and announcements are authenticated. Rejects with
 * REPLIC_USAGE, REPLIC_CLOSED, or the system's own error (EADDRINUSE, EACCES, ENODEV, ...).
 */
export function bind(db: Replica, options?: BindOptions): Promise<Endpoint>

/**
 * Keeps a session with a peer that has bound a port: dials now, and again whenever it ends, until close() of
 * either, or db.closeRemotePeer(). db.on('link') tells how it goes. Throws REPLIC_USAGE or REPLIC_CLOSED.
 */
export function peer(db: Replica, options: PeerOptions): Connection

/// <reference lib="esnext.disposable" />

/** What a column can hold. `undefined` in a row to write means: this change does not set the column. */
export type Value = null | boolean | number | bigint | string | Uint8Array | ArrayBuffer | DataView

/** What a column is read as. An integer is a bigint with `readBigInts`, else a number. */
export type ReadValue = null | number | bigint | string | Uint8Array

/** A row to write: the primary key and any of the other columns. */
export type Row = { readonly [column: string]: Value | undefined }

/** Parameters of a statement: by position, or by name (without `:`, `@` or `$`). */
export type Params = readonly Value[] | { readonly [name: string]: Value }

/**
 * A session token. That of a write is `'<peerId>.<sequence>'`, and covers it and all earlier ones of that replica;
 * tokens of several origins are longer, 2,030 characters at most; with a `tokenSecret` there is a signature
 * behind. `waitFor` takes it, here or on another peer. A header, a cookie or a URL carries it as it is.
 */
export type Token = `${number}.${string}`

/** The codes of this package; docs/errors.md tells each one's causes and remedies. */
export type ReplicCode =
  | 'REPLIC_AUTH'
  | 'REPLIC_BUSY'
  | 'REPLIC_CLOCK_SKEW'
  | 'REPLIC_CLOSED'
  | 'REPLIC_UNKNOWN_COLUMN'
  | 'REPLIC_DIRECT_WRITE'
  | 'REPLIC_FILE_GONE'
  | 'REPLIC_FORK'
  | 'REPLIC_KEY'
  | 'REPLIC_LOAD'
  | 'REPLIC_LOCKED'
  | 'REPLIC_MIGRATION'
  | 'REPLIC_NO_DELETED_AT'
  | 'REPLIC_NOT_FOUND'
  | 'REPLIC_NULLS'
  | 'REPLIC_OUT_OF_RANGE'
  | 'REPLIC_PEER'
  | 'REPLIC_PROTOCOL'
  | 'REPLIC_QUOTA'
  | 'REPLIC_READ_ONLY'
  | 'REPLIC_RESTORED'
  | 'REPLIC_SCHEMA'
  | 'REPLIC_UNKNOWN_TABLE'
  | 'REPLIC_TIMEOUT'
  | 'REPLIC_TOKEN'
  | 'REPLIC_TOO_LARGE'
  | 'REPLIC_TRANSACTION'
  | 'REPLIC_USAGE'
  | 'REPLIC_VERSION'

/** SQLite's own extended names, such as SQLITE_CONSTRAINT_NOTNULL. */
export type SqliteCode = `SQLITE_${string}`

/** What `code` of a ReplicError is. A `switch` over it knows the names. */
export type ErrorCode = ReplicCode | SqliteCode

/** The Content-Type of metrics(). */
export const METRICS_CONTENT_TYPE: string

/** Every error of this package. */
export class ReplicError extends Error {
  /** Made by this package; an application that wraps calls may make its own. */
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown })
  /** Always 'ReplicError', also across copies of the package, where instanceof fails. */
  readonly name: 'ReplicError'
  /** Stable: one of ReplicCode, or SQLite's own extended name such as SQLITE_CONSTRAINT_NOTNULL. */
  readonly code: ErrorCode
  /** Of a write that was to have `acks` and did not get them: it is written here, and this is its token. */
  readonly token?: string
}

/**
 * Options of Replica.open. One that is left out, or undefined, has its default; an unknown one is
 * REPLIC_USAGE.
 */
export interface OpenOptions {
  /**
   * The number by which this replica is known, 1 to 2^32 - 1, never used by another one. Default: the
   * one kept in the file; drawn at random for a new file, and for one that was copied or restored.
   */
  peerId?: number | undefined
  /**
   * 'full' (default): a write is on the disk before it is acknowledged or sent. 'normal': a power cut
   * may lose the last writes, and others may have seen them.
   */
  durability?: 'full' | 'normal' | undefined
  /**
   * How long a call waits where another program (not a Replica) holds the write lock of the file, in ms: then it fails
   * with SQLITE_BUSY, and so do all that have waited as long. Also for open(). 0: it fails at once. No thread waits, and
   * reads, heartbeats and links go on. What peers send waits as long as it takes. Default 5,000.
   */
  busyTimeoutMs?: number | undefined
  /**
   * How long open() waits, in ms, where another Replica has the file open, in this process or another one: for a
   * predecessor that is about to close it. Then REPLIC_LOCKED. No thread waits. Default 0: not at all.
   */
  lockTimeoutMs?: number | undefined
  /** Read every integer as a bigint. Default false: a number, or REPLIC_OUT_OF_RANGE beyond 2^53. */
  readBigInts?: boolean | undefined
  /** Read-only connections, 1 to 16. Default 2. */
  readers?: number | undefined
  /**
   * How much of the file the writing connection, and each of the `readers`, keeps in memory at the most, 2^16 to 2^40
   * bytes. Default 16 MiB. A loop of iterate keeps 1 MiB beside that, getSync and allSync together 2.
   */
  cacheBytes?: number | undefined
  /**
   * How long a query of get, all, iterate, getSync or allSync may run, in ms, 1 to 2^31 - 1; then it is stopped, with
   * REPLIC_TIMEOUT. What it waits does not count. Default Infinity.
   */
  maxQueryMs?: number | undefined
  /** Calls that may wait to be executed; a further one is REPLIC_BUSY. Default 100,000. */
  maxQueueCalls?: number | undefined
  /** Bytes of values and frames that may wait to be executed. Default 256 MiB. */
  maxQueueBytes?: number | undefined
  /** Changes from further in the future wait until their time has come. Default 60,000 ms. */
  maxClockSkewMs?: number | undefined
  /**
   * Age from which on a patch is removed from the log, in ms, unless it still wins a cell. Default 25 hours; 0:
   * at once; Infinity: nothing is ever removed. Age is counted by the replica's clock.
   */
  maxPatchRetentionMs?: number | undefined
  /**
   * Age from which on it is forgotten, in ms, what a migration of this replica has taken away and a step back
   * could bring back: values of dropped columns, and values as they were before a change of type. Default 720
   * hours, at least `maxPatchRetentionMs`; Infinity: never. What only a newer version knows is never forgotten.
   */
  maxPendingRetentionMs?: number | undefined
  /**
   * How many origins may be known here: peers that ever wrote, linked or not. No peer may have brought more of them
   * than are left for others, so one alone brings half. Patches of one more are held (REPLIC_QUOTA), and everything
   * else goes on. Default 200,000.
   */
  maxOrigins?: number | undefined
  /**
   * Bytes of other peers' patches that this schema cannot hold, and of the definitions of their tables, kept until it
   * can. No peer may have brought more of them than are left for others, so one alone brings half. Patches beyond are
   * held (REPLIC_QUOTA), and taken once there is room. Default 2,048 MiB.
   */
  maxPendingBytes?: number | undefined
  /**
   * Bytes of what peers bring of logs that retention has pruned, kept until it is complete. No peer may have brought
   * more of them than are left for others, so one alone brings half: it must be twice the database of another peer.
   * Pieces beyond are held (REPLIC_QUOTA). Default 32,768 MiB.
   */
  maxStagedBytes?: number | undefined
  /**
   * Time after which such pieces are removed, in ms, when their source has brought nothing more, whether this replica
   * was open or not: they are fetched again when they are needed. Default 24 hours; Infinity: never.
   */
  maxStagedRetentionMs?: number | undefined
  /** Interval of heartbeats on open links. Default 1,000 ms. */
  heartbeatMs?: number | undefined
  /** A link that is silent for longer is closed; so is one without HELLO. Default 10,000 ms. */
  linkTimeoutMs?: number | undefined
  /**
   * Largest group (all changes of one call, encoded), the same at all peers. A group is one transaction at each of them, and
   * their own calls wait for it: that takes about 10 us a row. Default 64 MiB.
   */
  maxFrameBytes?: number | undefined
  /** Bytes sent and not yet acknowledged, per link, at most: less where the line is slow. Default 4 MiB. */
  windowBytes?: number | undefined
  /** Size from which on a frame of patches ends. Default 256 KiB. */
  sliceBytes?: number | undefined
  /** Frames kept that arrived before their predecessors. Default 4 MiB. */
  earlyBytes?: number | undefined
  /** Recent frames kept encoded, so that one encoding serves all links. Default 4 MiB. */
  ringBytes?: number | undefined
  /**
   * What both sides of each link must prove to know before either says anything, and what all that follows is encrypted
   * with: at least 16 bytes, which should be random. Of a list of at most 8 the first is used to dial, each is accepted: see
   * `setSecrets`. Default: none, and everybody who can connect may link, and read the line.
   * So has undefined: see that a variable it is taken from is set.
   */
  secret?: string | Uint8Array | readonly (string | Uint8Array)[] | undefined
  /**
   * With a `secret`, whether what goes over links is encrypted. It is, unless both sides say false, as they may where TLS does
   * that already; a bus always is. Default true.
   */
  encryption?: boolean | undefined
  /**
   * Whether a peer may link; a falsy answer, or an error, refuses it with REPLIC_AUTH. With `{ write: false }` it may only
   * read: it gets everything, and nothing is taken that it or others through it have written (REPLIC_READ_ONLY). Until the
   * answer the other side is told at most this peer's id. Default: all may.
   */
  authorize?: ((peerId: number, info: LinkRequest) => Rights | Promise<Rights>) | undefined
  /** Links beyond it are refused; who is not known yet does not count. Default 1,000. */
  maxLinks?: number | undefined
  /**
   * Accepted connections that are not known yet, half as many from one address; beyond it the oldest of those who come
   * from where most do gives way to the next. Default 100.
   */
  maxPendingLinks?: number | undefined
  /**
   * Signs tokens (HMAC-SHA-256, 128 bits of it), and has all others refused: at least 16 bytes, which should be
   * random, the same on all peers. Of a list the first signs, each is accepted. Default: none.
   */
  tokenSecret?: string | Uint8Array | readonly (string | Uint8Array)[] | undefined
  /**
   * Calls of waitFor, and requests that readYourWrite holds, that may wait, and as many writes with `acks`; beyond it
   * REPLIC_BUSY. Default 100,000.
   */
  maxWaits?: number | undefined
}

/** One step of migrate(): a version of the schema. */
export interface Migration {
  /** SQL that leads to this version, without transaction control; or a function, for changes of data. */
  up: string | ((tx: MigrationTransaction) => unknown)
  /**
   * What leads back. SQL is kept in the database, so that an older application, which does not know this
   * step, can take it back. A function cannot be kept: only an application that has it can step back, with
   * the option `to`.
   */
  down?: string | ((tx: MigrationTransaction) => unknown) | undefined
  /** For messages. A function is known by it: the same name stands for the same function. */
  name?: string | undefined
  /** Columns that the step renames: { 'table.column': 'table.newName' }. Peers on either side are understood. */
  rename?: Record<string, string> | undefined
}

/**
 * What a step that is a function does its work with: all in the step's transaction. A call that fails has
 * changed nothing, and the function may go on. Calls that it does not wait for are waited for.
 */
export interface MigrationTransaction {
  /** One statement; may change any table and the schema. What it changes stays on this peer. */
  run(sql: string, params?: Params): Promise<RunResult>
  /** Any number of statements, likewise. */
  exec(sql: string): Promise<{ changes: number }>
  /** The first row of a query, which sees what the step has done so far; or undefined. */
  get<R extends object = Row>(
    sql: string,
    params?: Params,
    options?: ReadOptions,
  ): Promise<R | undefined>
  /** All rows of a query, likewise. */
  all<R extends object = Row>(sql: string, params?: Params, options?: ReadOptions): Promise<R[]>
  /** Writes rows that are replicated, as Replica.upsert. */
  upsert<R extends object = Row>(table: string, rows: R | readonly R[]): Promise<void>
  /** Deletes a row on every peer, as Replica.delete. */
  delete(table: string, key: Row): Promise<void>
  /** The DDL of the _patches table of a table, as Replica.patchesTable. */
  patchesTable(table: string): Promise<string>
}

/** Options of migrate(). */
export interface MigrateOptions extends CallLimits {
  /** The version to go to, at most the length of the list. Default: its length. */
  to?: number | undefined
  /** Take the texts of the list for what was applied under other ones; nothing of them runs. Default false. */
  force?: boolean | undefined
  /** Run everything in one transaction and undo it: tells what would be done, and finds what would fail. */
  dryRun?: boolean | undefined
}

/** What a dry run would do: one step. */
export interface PlannedStep {
  /** Its position in the list, from 1. */
  version: number
  /** 'note': only the text of an applied step is replaced (option `force`). */
  direction: 'up' | 'down' | 'note'
  /** Its name, or '' where it has none. */
  name: string
  /** null: a function, or nothing runs. */
  sql: string | null
}

/** What ends a call before its end. What it has done so far is undone; once it is committed, it resolves. */
export interface CallLimits {
  /** Stops the call: it rejects with the signal's reason. If it has not begun yet, it never does. */
  signal?: Signal | undefined
  /** How long the call may take, in ms, 1 to 2^31 - 1, the time for which it waits included; then REPLIC_TIMEOUT. */
  timeoutMs?: number | undefined
}

/** Options of one query. */
export interface ReadOptions extends CallLimits {
  /** Overrides the option of `open`. */
  readBigInts?: boolean | undefined
}

/** Options of getSync() and allSync(), which no signal can reach. */
export interface SyncReadOptions {
  /** Overrides the option of `open`. */
  readBigInts?: boolean | undefined
  /** How long the query may run, in ms, 1 to 2^31 - 1; then REPLIC_TIMEOUT. */
  timeoutMs?: number | undefined
}

/** Options of run() and exec(). */
export interface WriteOptions extends CallLimits {
  /** Permit SQL that writes to replicated tables, past replication: peers will differ. */
  unsafe?: boolean | undefined
}

/** Options of load(). */
export interface LoadOptions {
  /** Called after every stored group with the number of rows stored so far. */
  progress?: ((done: { rows: number }) => void) | undefined
  /** Stops the load; it rejects with the signal's reason once what was sent has settled. */
  signal?: Signal | undefined
}

/** In pages of the database, whose size `PRAGMA page_size` tells (4,096 bytes if not set). */
export interface BackupProgress {
  /** Of the database, as it is at this moment of the backup. */
  totalPages: number
  /** Not copied yet; 0 at the end. */
  remainingPages: number
}

/** Options of backup(). */
export interface BackupOptions {
  /** Called after every slice of at most 1,024 pages; what it throws ends the backup. */
  progress?: ((done: BackupProgress) => void) | undefined
  /** Stops the backup; it rejects with the signal's reason, and nothing is left of it. */
  signal?: Signal | undefined
}

/** Options of compact(). */
export interface CompactOptions {
  /** Instead of the option of `open`, for this call: 0 removes all that is superseded now. */
  maxPatchRetentionMs?: number | undefined
  /** Stops it between two transactions; it rejects with the signal's reason. What is removed stays removed. */
  signal?: Signal | undefined
}

/** What compact() has done. */
export interface Compaction {
  /** Patches that came of age since they were last looked at. Each is looked at once. */
  examined: number
  /** Patches removed from the log. */
  removed: number
  /** Patches in the log now. */
  logRows: number
}

/** Options of forget(): at least one of the three kinds, or `origin`. */
export interface ForgetOptions {
  /** Forks in the history of `peerId` that were noted here, and which history of it was given up here. */
  forks?: boolean | undefined
  /** Patches of `peerId` that this schema cannot hold. What of them could be applied stays. */
  pending?: boolean | undefined
  /** What `peerId` has brought for a catch-up that has not been completed. */
  staged?: boolean | undefined
  /** Of this peer only; left out: of all. */
  peerId?: number | undefined
  /** The peer whose disk is lost, with patches that nobody else has. */
  origin?: number | undefined
  /** The last of its patches that anybody has, 0 to 2^53 - 1. Default: the last one that is applied here. */
  after?: number | undefined
}

/** What forget() has forgotten: how many rows of each kind. */
export interface Forgotten {
  /** Forks that were noted, and histories that were given up. */
  forks: number
  /** Patches that were pending. */
  pending: number
  /** Pieces of a catch-up. */
  staged: number
  /** 1: what `origin` has written after `after` counts as lost from now on. */
  lost: number
}

/** Options of close(). */
export interface CloseOptions {
  /**
   * How long to wait at most until the peers that are linked, being linked or dialed have acknowledged everything.
   * Default 0 ms: they get the rest when they are linked again.
   */
  flushMs?: number | undefined
  /** How long closing may take after that. Default 5,000 ms. */
  timeoutMs?: number | undefined
}

/** What close() resolves with. */
export interface CloseResult {
  /**
   * True: `unacknowledged` is empty, and so the file may go. With `flushMs`, moreover, each peer that was waited for
   * has everything: where one of them has not when the time is over, it is false.
   */
  flushed: boolean
  /**
   * Per origin, by its peerId, how many of its patches that are in this file no other peer has acknowledged, as far as
   * this replica was told since it was opened; origins without any are not named. Patches of other peers that it holds
   * count like its own. They are the latest ones of their origin. An acknowledgement counts after its link has ended, too.
   */
  unacknowledged: Record<string, number>
  /**
   * The peers that were linked in the end, or are dialed and were linked before, and take nothing from this one, as it may only
   * read there (REPLIC_READ_ONLY): close() does not wait for them.
   */
  refusedBy: number[]
}

/** Options of waitFor(). */
export interface WaitOptions {
  /** 0 to 2^31 - 1. Default 5,000 ms. */
  timeoutMs?: number | undefined
  /** Stops waiting; the promise rejects with the signal's reason. */
  signal?: Signal | undefined
}

/** What can be asked of a write. */
export interface AckOptions {
  /**
   * How many linked peers must have it on their disks before the promise resolves, 0 to 10,000. Default 0, or what the
   * request's readYourWrite says. Each must be linked directly, and is counted once; one that may only read is not, as
   * nothing would be taken back from it.
   */
  acks?: number | undefined
  /** For how long it waits for them at most, counted from the call, 0 to 2^31 - 1. Default 5,000 ms. */
  timeoutMs?: number | undefined
}

/** How readYourWrite deals with requests. */
export interface SessionOptions {
  /** The header that carries the token, in requests and answers; null: none. Default 'x-replic-token'. */
  header?: string | null | undefined
  /** A cookie that does, instead or as well; null: none. Default null. */
  cookie?: string | null | undefined
  /** What follows the cookie's value. Default 'Path=/; HttpOnly; SameSite=Lax'. */
  cookieAttributes?: string | undefined
  /** How long a request waits at most for what its token asks for, 0 to 2^31 - 1. Default 500 ms. */
  timeoutMs?: number | undefined
  /**
   * What becomes of a request for which it did not come in time, or for which maxWaits has no room. 'refuse'
   * (default): 503 with Retry-After. 'stale': the handler is called all the same, and told.
   */
  onTimeout?: 'refuse' | 'stale' | undefined
  /** The Retry-After, in seconds, 0 to 86,400. Default 1. */
  retryAfterS?: number | undefined
  /**
   * For how long a request's patches must have been waited for in vain before they are lost, in ms: if no linked peer
   * has them then, and one is linked, the handler is called, told (`replic.lost`), and the answer's token asks for them no
   * more. Default 300,000; Infinity: never.
   */
  lostAfterMs?: number | undefined
  /** AckOptions.acks of each write that the request makes and that says none. Default 0. */
  acks?: number | undefined
  /** AckOptions.timeoutMs of those writes. Default 5,000 ms. */
  acksTimeoutMs?: number | undefined
  /**
   * true (default): an answer's token covers all that is applied here, so a session never sees less than it has
   * seen, on whatever peer. false: only what the session has written: shorter waits, and shorter tokens.
   */
  monotonicReads?: boolean | undefined
}

/** What a handler is told of its request, as `replic` of the request. */
export interface ReplicState {
  /** What the request's token asks for is not all here: only with onTimeout: 'stale'. */
  readonly stale: boolean
  /** What the request's token asks for and no peer has any more: up to which sequence, of which peer. See lostAfterMs and forget(). */
  readonly lost: readonly { peerId: number; sequence: number }[]
}

/**
 * What Express calls, and whatever works with node:http's requests and responses. Sets `req.replic`, a
 * ReplicState.
 */
export type Middleware = (
  // biome-ignore lint/suspicious/noExplicitAny: Express' own types, or node:http's
  req: any,
  // biome-ignore lint/suspicious/noExplicitAny: likewise
  res: any,
  next: (error?: unknown) => unknown,
) => void

/** Options of verify(). */
export interface VerifyOptions {
  /** For each peer. Default 30,000 ms. */
  timeoutMs?: number | undefined
}

/** What comparing with one peer has shown. */
export type VerifyReport = VerifyEqual | VerifyDifference

/** A peer whose tables are the same as here. */
export interface VerifyEqual {
  /** With whom it was compared. */
  peerId: number
  /** True: nothing differs. */
  equal: true
  /** Replicated tables, and rows in all of them, that were compared. */
  tables: number
  /** Rows in all of them. */
  rows: number
}

/** A peer whose tables differ, and the first difference. */
export interface VerifyDifference {
  /** With whom it was compared. */
  peerId: number
  /** False: something differs. */
  equal: false
  /** Of this replica. */
  tables: number
  /** Of this replica. */
  rows: number
  /** The first table that differs. */
  table: string
  /**
   * 'schema': the table's columns, or whether it is replicated at all. 'row': a row of it. 'stuck': a
   * row of it that one side has and the other cannot store, see Status.stuck.
   */
  difference: 'schema' | 'row' | 'stuck'
  /** For 'stuck': what SQLite said there. */
  why?: string
  /** The primary key of the row that differs. null for 'schema', or if it could not be found out. */
  key: { [column: string]: ReadValue } | null
  /**
   * What differs, by column: for a row the value as an SQL literal, so that 1, 1.0 and '1' can be told apart
   * (long ones are cut); for 'schema' the declared type. null: there is no such row, or table.
   */
  here: { [column: string]: string } | null
  /** The same columns at the other peer; null: there is no such row, or table. */
  there: { [column: string]: string } | null
}

/** What this package needs of an AbortSignal. */
export interface Signal {
  /** Whether it has been aborted. */
  readonly aborted: boolean
  /** With what; calls that it stops reject with it. */
  readonly reason: unknown
  /** Throws the reason if it has been aborted. */
  throwIfAborted(): void
  /** To be told of it. */
  addEventListener(type: 'abort', listener: () => void): void
  /** Not any more. */
  removeEventListener(type: 'abort', listener: () => void): void
}

/** Collects the changes of a batch. Throws what is wrong with a call at once; REPLIC_USAGE after its function has settled. */
export interface Transaction {
  /** Rows to write, as Replica.upsert. */
  upsert<R extends object = Row>(table: string, rows: R | readonly R[]): void
  /** A row to delete, as Replica.delete. */
  delete<K extends object = Row>(table: string, key: K): void
}

/** What is used of a WebSocket, of ws or of a browser's kind (undici's, Node's, Bun's). */
export interface WebSocketLike {
  /** Set to 'arraybuffer' or, for ws, 'nodebuffer'. */
  binaryType: string
  /** 0: not open yet; 1: open. */
  readonly readyState: number
  /** Bytes that wait to be sent. */
  readonly bufferedAmount: number
  /** Sends a message of bytes. */
  // biome-ignore lint/suspicious/noExplicitAny: each kind has options of its own
  send(data: any): void
  /** Ends it. */
  close(code?: number): void
  /** For 'open', 'message', 'error' and 'close'. */
  // biome-ignore lint/suspicious/noExplicitAny: each kind has events of its own
  addEventListener(name: any, listener: (event: any) => void): void
}

/** What is used of a socket of Bun.serve's, whose `websocket` is that of bunHandlers() of replic-sqlite/websocket. */
export interface BunServerWebSocket {
  /** 1: open. */
  readonly readyState: number
  /** How bytes are handed over. */
  binaryType?: string | undefined
  /** Sends a message of bytes; says how many were sent, -1 for backpressure, 0 for dropped. */
  // biome-ignore lint/suspicious/noExplicitAny: Bun's types are stricter
  send(data: any, compress?: boolean): number
  /** Ends it. */
  close(code?: number): void
  /** Bytes that wait to be sent. */
  getBufferedAmount(): number
}

/** Options of addRemotePeer(). */
export interface SocketOptions {
  /**
   * Of a WebSocket: takes messages that are not ours, so that the application shares it. Default: such a message
   * ends the link with REPLIC_PROTOCOL. See OnUnknownMessage of replic-sqlite/websocket.
   */
  // biome-ignore lint/suspicious/noExplicitAny: whichever kind of socket it is
  onUnknownMessage?: ((message: string | Uint8Array, socket: any) => void) | undefined
}

/** A connection that carries whole messages as bytes. */
export interface MessageSocket {
  /**
   * Sends one message. What this or any other part of a socket throws, or gives a promise for that rejects, ends the
   * link, as its error; nothing of it comes to the application.
   */
  send(data: Uint8Array): unknown
  /** Ends it; a 'close' event follows. */
  close(): unknown
  /** For 'message' with bytes, which the socket may use again once the listener has returned, 'close', and where there are such, 'open', 'drain' and 'error'. */
  on?(name: string, listener: (...args: unknown[]) => void): unknown
  /** The same, of a socket of the browser kind: events have `data`. */
  addEventListener?(name: string, listener: (event: unknown) => void): void
  /** 0: not open yet; an 'open' event follows. */
  readonly readyState?: number
  /** No more messages until resume(): this replica has enough to do. */
  pause?(): void
  /** Goes on after pause(). */
  resume?(): void
  /** Several messages follow, which may go out together. */
  cork?(...args: unknown[]): unknown
  /** They have followed. */
  uncork?(): void
  /** Ends it at once, without waiting for the other side. */
  terminate?(): void
}

/** What run() has done. */
export interface RunResult {
  /** Rows changed. */
  changes: number
  /** Of the last row that was inserted; a bigint beyond 2^53. */
  lastInsertRowid: number | bigint
}

/**
 * `connecting`: the transport is not connected yet. `opening`: the other side has not been accepted yet.
 * `ready`: carries changes. `standby`: another link to the same peer does. `waiting`: until it is dialed
 * again. `closed`: gone.
 */
export type LinkState = 'connecting' | 'opening' | 'ready' | 'standby' | 'waiting' | 'closed'

/** One link, or one attempt to have one. Figures are there once it is known who answers. */
export interface LinkStatus {
  /** null: not known yet. */
  peerId: number | null
  /** The number of this connection; null between two attempts to dial. */
  link: number | null
  /** 'tcp', or the class of the socket given to addRemotePeer. */
  transport: string
  /** Of the other side, as the transport knows it; null: none. */
  address: string | null
  /** See LinkState. */
  state: LinkState
  /** Whether frames are encrypted with the `secret`. (TLS is seen in `transport`.) */
  isEncrypted?: boolean
  /** Patches that this replica has and that one has not acknowledged. */
  lag?: number
  /** How long ago the oldest of those was issued, by its stamp. 0: there is none, or it is not known. */
  lagMs?: number
  /** Patches that it has announced and this replica has not. */
  behind?: number
  /** Bytes of patches sent and not acknowledged. */
  unackedBytes?: number
  /** Its wall clock minus this one's, when its last HELLO or ACK arrived. */
  skewMs?: number
  /** Bytes of frames received, */
  bytesIn?: number
  /** and sent. */
  bytesOut?: number
  /** Frames received, */
  framesIn?: number
  /** and sent. */
  framesOut?: number
  /** Patches sent again because they were asked for. */
  retransmitted?: number
  /** A jump past what was pruned is going on over this link. null: none is. */
  jump?: 'sending' | 'receiving' | null
  /** Patches received over this link for a jump, not visible before its end. */
  staged?: number
  /** What it writes is taken here: it was not `{ write: false }` that this side's authorize() said of it. */
  peerMayWrite?: boolean
  /** What this side writes is taken there. */
  selfMayWrite?: boolean
  /** Its tables, as far as it has sent changes of them: what of each is not the same here, or null. */
  schema?: Record<string, string | null>
  /** Why its changes are not applied at present; null if they are. */
  held?: string | null
  /** The last thing that was wrong on the way to this peer; null: nothing was. */
  lastError: { code: string | null; message: string } | null
}

/** Since open. */
export interface Counters {
  /** Transactions committed. */
  commits: number
  /** Calls that have written: each is one group. */
  groupsWritten: number
  /** Their patches. */
  patchesWritten: number
  /** Of other peers. */
  patchesApplied: number
  /** Received, and there already. */
  patchesDuplicate: number
  /** Of other peers, sent on. */
  patchesRelayed: number
  /** Removed by retention. */
  patchesPruned: number
  /** Received for a jump. */
  patchesStaged: number
  /** Frames that arrived before their predecessors, and those of them that there was no room for. */
  framesEarly: number
  /** Those of them that there was no room for; they are asked for again. */
  framesDroppedEarly: number
  /** Patches sent again because they were asked for. */
  retransmissions: number
  /** Merges that left a row waiting for its NOT NULL columns. */
  rowsWaiting: number
  /** Jumps past what other peers have pruned: completed here; gone on with after an interruption; given up. */
  jumps: number
  /** Gone on with after an interruption. */
  jumpsResumed: number
  /** Given up. */
  jumpsAbandoned: number
  /** Frames held because of a stamp too far ahead. */
  skewRefusals: number
  /** Own patches issued anew under a new peerId. */
  forksHealed: number
}

/** How often something had which size, since open. */
export interface Histogram {
  /** How often. */
  count: number
  /** Of all sizes. */
  sum: number
  /** The greatest size. */
  max: number
  /** How many were not above `le`. */
  buckets: { le: number; count: number }[]
}

/** A row that the schema of this replica cannot store. */
export interface StuckRow {
  /** Of which table. */
  table: string
  /** Its primary key, by column. Blobs, and integers beyond 2^53, as text. */
  key: { [column: string]: string | number }
  /** SQLite's code. */
  code: SqliteCode
  /** What SQLite said. */
  why: string
}

/** What status() tells. */
export interface Status {
  /** The number by which this replica is known. */
  peerId: number
  /** Absolute. */
  path: string
  /** 'closing' from the call of close() on. */
  state: 'open' | 'closing' | 'closed'
  /**
   * Once a file of this replica was removed, renamed or replaced while it was open: which one, and what to do. All
   * that writes rejects with REPLIC_FILE_GONE then. Otherwise null.
   */
  fileGone: string | null
  /** Per origin (a peerId) the sequence up to which everything is applied here. */
  vector: { [origin: string]: number }
  /** The replicated tables. */
  tables: string[]
  /** The highest clock of a patch seen, in ms: the next patch is not stamped below it. */
  clock: number
  /** By how much that is ahead of the wall clock, in ms; 0: it is not. Above 250 a wall clock is wrong. */
  clockAheadMs: number
  /** The peer whose patch set it there, or null. */
  clockRaisedBy: number | null
  /**
   * This machine's wall clock minus those of most linked peers, in ms, as of the last heartbeat: the least by which more
   * than half of them differ, all in one direction; else 0. Beyond a quarter of maxClockSkewMs an 'error' event with
   * REPLIC_CLOCK_SKEW says so.
   */
  clockOffMs: number
  /** Patches in the log. Those that were deleted by hand are counted still. */
  logRows: number
  /**
   * Patches that the schema of this replica cannot hold, or not as they were written: kept, handed
   * on to others, and applied once a migration makes it possible. Per table and reason; `oldestAt`: when
   * the oldest of them was written, by its writer's clock, in Unix ms. As of the last heartbeat, migration
   * or change of a link's state.
   */
  pending: { table: string; why: string; patches: number; oldestAt: number }[]
  /**
   * Rows that others have written and that the schema of this replica cannot store, as an index on
   * an expression or a generated column raises for their values: they are missing here, and handed
   * on to others. Each is tried again with the next change of it, and when the table's schema
   * changes. Whatever else its writer has written is there. How many, and at most 20 of them;
   * `SELECT * FROM _replic_stuck` has all. As of the last heartbeat, migration or change of a link's
   * state.
   */
  stuck: {
    rows: number
    first: StuckRow[]
  }
  /** Size of the database file now, and of its write-ahead log (`<file>-wal`). */
  fileBytes: number
  /** Size of its write-ahead log (`<file>-wal`). */
  walBytes: number
  /** Calls that wait or are executed; bytes of values and received frames that wait. */
  queue: { calls: number; bytes: number }
  /**
   * Since when another program holds the write lock, in Unix ms, while calls or received patches wait for it; null:
   * nothing does. Where it takes longer than busyTimeoutMs, an 'error' event with SQLITE_BUSY tells so, once.
   */
  lockedSince: number | null
  /** Calls of waitFor, and requests held by readYourWrite, that wait. */
  waits: number
  /** Transactions: calls and frames in each, and how long each took, in seconds, its commit included. */
  batches: { calls: Histogram; seconds: Histogram }
  /** As of the last heartbeat, or of the last change of a link's state. */
  links: LinkStatus[]
  /** Connections that were refused because of maxLinks, or gave way because of maxPendingLinks, since open. */
  refusedLinks: number
  /**
   * Peers from which a jump was taken whose rows were not compared yet with those of another linked peer. That is
   * done once, as soon as another one is linked that may write and has no such jump itself; it waits for one where this is
   * not empty. Meanwhile `db.token()` may go back, where rows have to be fetched again.
   */
  uncheckedJumps: number[]
  /** What has happened, since open. */
  counters: Counters
}

/** What a 'change' event tells. */
export interface ChangeEvent {
  /** The name of the table. */
  table: string
  /** Changed by this replica's own writes. */
  local: boolean
  /** Changed by what came from other peers. */
  remote: boolean
}

/** A certificate as Node's getPeerCertificate() gives it; more is in it than what is named here. */
export interface Certificate {
  /** As { CN: 'peer-7', O: 'Example' }. */
  subject: { readonly [name: string]: string | string[] | undefined }
  /** Likewise, of who has signed it. */
  issuer: { readonly [name: string]: string | string[] | undefined }
  /** As 'DNS:example.com, IP Address:192.0.2.1'. */
  subjectaltname?: string | undefined
  /** SHA-256 of the whole, as 'AB:CD:…'. */
  fingerprint256: string
  /** In hex. */
  serialNumber: string
  /** As 'Jan  1 00:00:00 2026 GMT'. */
  valid_from: string
  /** Likewise. */
  valid_to: string
  /** DER. */
  raw: Uint8Array
}

/** What authorize() says of a peer: whether it may link, and write. `true` is `{ write: true }`. */
export type Rights = boolean | { write: boolean }

/** What authorize() is told of a link. */
export interface LinkRequest {
  /** As in status(). */
  transport: string
  /** Of the other side; null: the transport knows none. */
  address: string | null
  /** The other side has dialed. */
  isAccepted: boolean
  /** Over TLS: what the other side has shown. */
  tls?: {
    /** Its certificate is one that this side's `ca` trusts. */
    isTrusted: boolean
    /** null where it has shown none. */
    certificate: Certificate | null
    /** As 'TLSv1.3'. */
    protocol: string | null
  }
  /** What began it, where the other side has dialed over HTTP or WebSocket: a request with `url` and `headers`. */
  // biome-ignore lint/suspicious/noExplicitAny: IncomingMessage, Request or FastifyRequest
  request?: any
}

/** What a 'link' event tells. */
export interface LinkEvent {
  /** Who is at the other side; null: not known, or not yet. */
  peerId: number | null
  /** Its number, as in status(); null where somebody was refused before there was a link. */
  link: number | null
  /** `up`: carries changes. `standby`: another link does. `error`: in trouble, stays. `down`: gone. */
  state: 'up' | 'standby' | 'error' | 'down'
  /** As in status(). */
  transport: string
  /** As in status(). */
  address: string | null
  /** A ReplicError's code, or the system's (ECONNREFUSED); null if nothing was wrong. */
  code: string | null
  /**
   * A sentence: what was wrong, where, and what to do; null if nothing was. One line of at most 500 characters, all of
   * which can be printed.
   */
  reason: string | null
  /**
   * How many events this one stands for: of strangers who were refused, or left, those beyond ten in a second are summed by
   * transport and code at its end, and the last one is told of. Else 1. Of one link's troubles (`error`) 100 are told of
   * between two heartbeats, and no more.
   */
  count: number
}

/** The events of a Replica, by name, with what listeners get. */
export interface Events {
  /** Rows of a table have changed; once per table and commit, after it. */
  change: [event: ChangeEvent]
  /** The state of a link has changed. */
  link: [event: LinkEvent]
  /**
   * Both sides have acknowledged everything that the other had, but what is not taken as who wrote it may only read: when the link has caught up, and again after each
   * change.
   */
  synced: [event: { peerId: number; link: number }]
  /**
   * Something failed that no call waits for, such as a trigger that raised while a change from another
   * peer was merged. Nothing is thrown where nobody listens.
   */
  error: [error: ReplicError]
}

/**
 * The DDL of the _patches table that belongs to a table, from its CREATE TABLE. Synchronous.
 * Errors: REPLIC_USAGE (not exactly one CREATE TABLE), REPLIC_SCHEMA (no primary key), SQLITE_ERROR, ...
 */
export function patchesTable(createTable: string): string

/** What else a Replica has of Node's EventEmitter, so that `events.once(db, 'synced')` and the like take it. */
export interface Emitter {
  /** As in Node's EventEmitter; so are the others. */
  addListener(name: string | symbol, listener: (...args: never[]) => void): this
  /** Before the listeners that there are. */
  prependListener(name: string | symbol, listener: (...args: never[]) => void): this
  /** Likewise, for the next such event only. */
  prependOnceListener(name: string | symbol, listener: (...args: never[]) => void): this
  /** Of one event, or of all. */
  removeAllListeners(name?: string | symbol): this
  /** How many listeners of one event are no sign of a leak yet; 0: any number. Default 10. */
  setMaxListeners(n: number): this
  /** What setMaxListeners has set. */
  getMaxListeners(): number
  /** Those of an event. */
  listeners(name: string | symbol): ((...args: never[]) => void)[]
  /** Those of an event, with the wrappers that once() has made. */
  rawListeners(name: string | symbol): ((...args: never[]) => void)[]
  /** How many an event has. */
  listenerCount(name: string | symbol): number
  /** Calls the listeners of an event, for tests of an application. Returns whether there were any. */
  emit(name: string | symbol, ...args: unknown[]): boolean
  /** The events that have listeners. */
  eventNames(): (string | symbol)[]
}

export interface Replica extends Emitter {}

/**
 * One database file, replicated. All methods are asynchronous unless they return something else than a
 * promise. On a closed replica they reject (or throw) REPLIC_CLOSED. Wrong arguments are REPLIC_USAGE.
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: an Emitter's methods are inherited, from EventEmitter
export class Replica {
  private constructor()

  /**
   * Opens a database file, or creates one. One Replica at a time may have a file open.
   * Errors: REPLIC_LOCKED, REPLIC_RESTORED, REPLIC_SCHEMA, REPLIC_USAGE, SQLITE_CANTOPEN, SQLITE_NOTADB,
   * REPLIC_LOAD (the native addon is missing), ...
   */
  static open(path: string, options?: OpenOptions): Promise<Replica>

  /**
   * Brings the schema to the last of `steps`, up, or down with the scripts kept in the database. A position
   * in the list is a version. Each step is one transaction; the ones before a failing one stay. Reads go on
   * meanwhile; writes wait for the step under way. `signal` and `timeoutMs` stop and undo the step under way. See
   * docs/migrations.md.
   * Errors: REPLIC_MIGRATION, REPLIC_SCHEMA, REPLIC_TRANSACTION, REPLIC_DIRECT_WRITE, SQLite's own.
   */
  migrate(
    steps: readonly Migration[],
    options: MigrateOptions & { dryRun: true },
  ): Promise<{ from: number; to: number; steps: PlannedStep[] }>
  migrate(
    steps: readonly Migration[],
    options?: MigrateOptions,
  ): Promise<{ from: number; to: number }>

  /**
   * Writes one row or many as one group: stored and replicated all or nothing. A row that exists is changed
   * in the columns given. Resolves when it is on the disk; with `acks`, when so many peers have it there, too, or rejects
   * with REPLIC_TIMEOUT, whose `token` is that of the write: it is stored, and goes out to whoever links.
   * Errors: REPLIC_UNKNOWN_TABLE, REPLIC_UNKNOWN_COLUMN, REPLIC_KEY, REPLIC_NULLS, REPLIC_OUT_OF_RANGE,
   * REPLIC_TOO_LARGE (use load), REPLIC_BUSY, SQLITE_CONSTRAINT_...
   */
  upsert<R extends object = Row>(
    table: string,
    rows: R | readonly R[],
    options?: AckOptions,
  ): Promise<Token>

  /**
   * Writes any number of rows, in groups of at most 1,000 rows or about 1 MiB, two of them under way at a
   * time. If it fails, the groups before stay; the message says how many rows, `cause` is the first error.
   */
  load<R extends object = Row>(
    table: string,
    rows: Iterable<R> | AsyncIterable<R>,
    options?: LoadOptions,
  ): Promise<Token>

  /**
   * All changes of `fn(tx)` as one group. Nothing is written if `fn` throws or rejects. Values that are views
   * of memory (Uint8Array) are copied when it has settled. Without changes: the token of the last write, at once.
   */
  batch(fn: (tx: Transaction) => unknown, options?: AckOptions): Promise<Token>

  /**
   * Marks a row as deleted: sets its `deletedAt`. `key` holds exactly the primary key.
   * Errors: REPLIC_KEY, REPLIC_NO_DELETED_AT, REPLIC_NOT_FOUND.
   */
  delete<K extends object = Row>(table: string, key: K, options?: AckOptions): Promise<Token>

  /** The first row of a query, or undefined. Of columns with the same name the last counts. */
  get<R = { [column: string]: ReadValue }>(
    sql: string,
    params?: Params,
    options?: ReadOptions,
  ): Promise<R | undefined>

  /** All rows of a query. Errors of each query: REPLIC_TIMEOUT (timeoutMs, maxQueryMs), REPLIC_OUT_OF_RANGE, SQLite's own. */
  all<R = { [column: string]: ReadValue }>(
    sql: string,
    params?: Params,
    options?: ReadOptions,
  ): Promise<R[]>

  /**
   * As get, on the calling thread, which waits for it: for short queries, by key for instance. Until the
   * application's code lets go of the thread (an await, the end of a callback) all of its synchronous reads see
   * one state of the file, in which nothing is missing that it has awaited. Throws what get rejects with.
   */
  getSync<R = { [column: string]: ReadValue }>(
    sql: string,
    params?: Params,
    options?: SyncReadOptions,
  ): R | undefined

  /** All rows of a query, as getSync. */
  allSync<R = { [column: string]: ReadValue }>(
    sql: string,
    params?: Params,
    options?: SyncReadOptions,
  ): R[]

  /**
   * The rows of a query, read 256 at a time from one snapshot. Leaving the loop ends the query; an iterator
   * that is left without (by calling next() by hand) holds one of 64 connections until return() is called. Leaving
   * stops a query that still looks for its next row. `timeoutMs` and `maxQueryMs` count the time for which it reads,
   * all slices together, and not what the loop does between the rows.
   */
  iterate<R = { [column: string]: ReadValue }>(
    sql: string,
    params?: Params,
    options?: ReadOptions,
  ): AsyncIterableIterator<R>

  /**
   * Runs one statement on the writing connection: for what is not replicated.
   * Errors: REPLIC_DIRECT_WRITE, REPLIC_TRANSACTION, REPLIC_TIMEOUT, SQLite's own.
   */
  run(sql: string, params?: Params, options?: WriteOptions): Promise<RunResult>

  /** Runs any number of statements in one transaction. */
  exec(sql: string, options?: WriteOptions): Promise<{ changes: number }>

  /**
   * Resolves once this replica has applied everything up to `token`. Waits for the arrival, without polling.
   * Errors: REPLIC_TIMEOUT (naming what is missing, and from whom), REPLIC_TOKEN, REPLIC_BUSY (maxWaits),
   * REPLIC_CLOSED.
   */
  waitFor(token: string, options?: number | WaitOptions): Promise<void>

  /**
   * A token of all that is applied here, and of all that any query has shown before: whoever waits for it elsewhere
   * sees nothing older. Synchronous. Errors: REPLIC_TOO_LARGE beyond 100 origins, REPLIC_CLOSED.
   */
  token(): Token

  /**
   * One token that covers all that are given; it begins as the last one does. Synchronous.
   * Errors: REPLIC_TOKEN, REPLIC_TOO_LARGE beyond 100 origins, REPLIC_USAGE, REPLIC_CLOSED.
   */
  mergeTokens(...tokens: string[]): Token

  /**
   * Middleware for Express 5 and 4: `app.use(db.readYourWrite())`. A request waits until this replica has what its
   * token asks for; its answer gets a token, however it is answered. `header`: as in SessionOptions; a number
   * instead of options is `timeoutMs`. A token that is not valid is answered with 400. docs/consistency.md tells
   * what that guarantees. Synchronous. Errors: REPLIC_USAGE, REPLIC_CLOSED.
   */
  readYourWrite(header?: string | null, options?: number | SessionOptions): Middleware

  /**
   * Copies the file to `path`, as it is at this moment, whatever is written and read meanwhile. A database
   * that is there is replaced in the end, in one step; until then, and if anything fails, it stays as it was.
   * Who opens the copy is a new peer with everything that this one had.
   * Errors: REPLIC_USAGE (the database's own path), REPLIC_LOCKED (`path` is open in a Replica, or another
   * backup goes there), SQLITE_NOTADB (what is there is no database), SQLITE_BUSY (another program has it
   * open), SQLITE_CANTOPEN (the folder), SQLITE_FULL, ...
   */
  backup(path: string, options?: BackupOptions): Promise<BackupProgress>

  /**
   * Removes from the log what retention allows to be removed, at once and in slices, beside other calls. This also
   * goes on by itself while the replica is open. Then it makes statistics for SQLite's planner, of tables that need some.
   * Errors: SQLite's own; what was removed before stays removed.
   */
  compact(options?: CompactOptions): Promise<Compaction>

  /**
   * The way back, where another peer has said what is not so (SECURITY.md has what a peer can do), or what it has
   * brought is in the way. Forgets, for good: `forks`, before this file is opened with a new peerId because of a
   * `REPLIC_FORK` that was a lie; `pending`, patches that no schema will ever hold; `staged`, what a source has brought
   * that never finishes. Nothing that is applied is undone, and what other peers have still comes again.
   *
   * With `origin`: its disk is lost, and what it has written after `after` nobody has. From now on, and after a restart,
   * no session waits for that here: middleware calls the handler at once, tells it (`replic.lost`), and drops it from the
   * answer's token; waitFor() takes it for applied, mergeTokens() leaves it out. That ends by itself where something
   * later of that origin is applied here all the same.
   * Errors: REPLIC_USAGE (nothing is named; the origin is this replica; what is beyond `after` is here, or a linked
   * peer has announced it), SQLite's own.
   */
  forget(options: ForgetOptions): Promise<Forgotten>

  /**
   * Compares the replicated tables with those of a linked peer, or of all peers that are linked, one after
   * another. Only states with the same vector are compared, which must be the same: a difference is the
   * consequence of `unsafe`, of a damaged file, or of a bug. Reading and writing goes on at both peers.
   * Errors: REPLIC_NOT_FOUND (not linked), REPLIC_TIMEOUT (naming the peer and what did not happen).
   */
  verify(
    peerId?: number | null,
    options?: VerifyOptions,
  ): Promise<{ equal: boolean; peers: VerifyReport[] }>

  /**
   * Adds a connection to another peer. `peerId`: who must answer (else REPLIC_PEER), null for whoever does.
   * The socket is this replica's until it closes. Give it before a message may have come in. Returns the link's
   * number. Throws REPLIC_USAGE, REPLIC_CLOSED, or REPLIC_BUSY where there is no room. Synchronous.
   */
  addRemotePeer(
    peerId: number | null,
    socket: MessageSocket | WebSocketLike | BunServerWebSocket,
    options?: SocketOptions,
  ): number

  /** Ends all links with a peer, and dials it no more. Returns whether there were any. Synchronous. */
  closeRemotePeer(peerId: number): boolean

  /**
   * Has other secrets from now on: see `secret` of open(). To change one without a gap, give every peer `[old, new]`, then
   * every peer `[new, old]`, then every peer `new`. Links that were made with a secret that is not among them end with
   * REPLIC_AUTH, and are dialed again. Rejects with REPLIC_USAGE or REPLIC_CLOSED.
   */
  setSecrets(secret: string | Uint8Array | readonly (string | Uint8Array)[]): Promise<void>

  /** What it is and how it is. Synchronous; works on a closed replica too. */
  status(): Status

  /**
   * The numbers of status() as OpenMetrics text, for Prometheus and others; to be served with
   * METRICS_CONTENT_TYPE. Synchronous; works on a closed replica too.
   */
  metrics(): string

  /** The SQL that is executed for a replicated table. */
  explain(table: string): Promise<string>

  /**
   * The DDL that the _patches table of a table must have, by the table as it is now.
   * Errors: REPLIC_UNKNOWN_TABLE, REPLIC_SCHEMA (it has no primary key).
   */
  patchesTable(table: string): Promise<string>

  /** Calls the listener at each such event. Of an event that does not exist: REPLIC_USAGE. */
  on<E extends keyof Events>(name: E, listener: (...args: Events[E]) => void): this
  /** Calls the listener at the next such event only. */
  once<E extends keyof Events>(name: E, listener: (...args: Events[E]) => void): this
  /** Calls the listener no more. */
  off<E extends keyof Events>(name: E, listener: (...args: Events[E]) => void): this
  /** As off. */
  removeListener<E extends keyof Events>(name: E, listener: (...args: Events[E]) => void): this

  /**
   * Closes the replica: executes what was called before, sends what that leaves, ends the links, releases
   * the file. Every pending promise settles. With `flushMs` it waits after the first two for at most
   * that long until each peer that is linked, being linked or dialed has acknowledged everything. Whoever is dialed is
   * waited for while there is no connection, too, and dialed at once and at least every second, unless it had
   * everything when its last link ended; so is a peer that has dialed this one, and whose connection broke. Not waited
   * for are peers that have dialed and leave in order, and whoever may yet come to a listener or a bus. New calls are
   * refused meanwhile. Says what nobody else has. After `timeoutMs` connections are cut, and queries, run,
   * exec and migrate are stopped and undone (REPLIC_CLOSED). If something is still being executed 200 ms later, it
   * rejects with REPLIC_TIMEOUT and goes on in the background. Where the file was removed or replaced meanwhile, it closes
   * all, and then rejects with REPLIC_FILE_GONE. Can be called again, and says the same; a second call with a shorter
   * `flushMs` shortens the wait of the first.
   */
  close(options?: CloseOptions): Promise<CloseResult>

  /** What it is, in short: for logs. Synchronous; works on a closed replica too. */
  toJSON(): { peerId: number; path: string; state: string }

  /** close(), for `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

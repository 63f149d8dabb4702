// class Replica: one database file, replicated. It checks arguments, turns rows into flat arrays and
// back, and passes what each batch of the core leaves to whom it concerns. What decides about data is
// in the core; what runs in the background is in the addon.

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { randomInt } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { setTimeout as setTimeoutPromise } from 'node:timers/promises'
import { debuglog } from 'node:util'
import { backup as copyTo } from './backup.js'
import { printable, ReplicError, usage } from './base/errors.js'
import { addon } from './base/load.js'
import * as option from './base/options.js'
import { checkParams, checkSql, flatten, flattenOne, pack, toRows } from './base/rows.js'
import { Stopper } from './base/stop.js'
import { load as loadRows } from './bulk.js'
import { placeWarning } from './file-system.js'
import { checkSocket, Links } from './links/links.js'
import { closed, register } from './links/registry.js'
import { keysOf } from './links/secret.js'
import { toMetrics } from './metrics.js'
import { readYourWrite as expressMiddleware } from './middleware/express.js'
import { migrate as migrateSteps, readMigration } from './migrate.js'
import { Acks, readAcks } from './progress/acks.js'
import { collector, exposeProgress, Progress } from './progress/progress.js'
import { Retention } from './retention.js'
import { poolThreads } from './threads.js'
import { FrameSocket } from './transport/websocket-frames.js'
import { kindOfSocket } from './transport/websocket-kinds.js'
import { Recheck } from './verify/recheck.js'
import { Verifier } from './verify/verifier.js'

const OPTIMIZE_MS = 3_600_000 // from one look for tables that need statistics to the next
const STOPPING_MS = 200 // what is stopped at the deadline of close() may take until it ends
const CURSOR_ROWS = 256 // rows that iterate() fetches at a time
const LOCK_PAUSE_MS = 5 // before the file is tried again, and doubled each time
const MAX_LOCK_PAUSE_MS = 100
const UPSERT = 0 // kinds of changes, as the addon numbers them
const DELETE = 1
const EVENTS = ['change', 'link', 'synced', 'error']
const PRIVATE = Symbol('Replica.open')

// The replica whose migration a function belongs to that runs now.
const migrating = new AsyncLocalStorage()
let functionsUnderWay = 0

const nextTurn = setImmediate // which tests of an application may replace
const debug = debuglog('replic')
const tracing = debug.enabled ?? /\breplic\b/i.test(process.env.NODE_DEBUG) // Bun has no `enabled`

const LIMITS = { signal: undefined, timeoutMs: undefined }
const LIMIT_CHECKS = { signal: option.abortSignal, timeoutMs: option.milliseconds(1) }
const READ_CHECKS = { readBigInts: option.boolean, ...LIMIT_CHECKS }
const READ = { defaults: { readBigInts: false, ...LIMITS }, checks: READ_CHECKS }
const READ_SYNC = {
  defaults: { readBigInts: false, timeoutMs: undefined },
  checks: READ_CHECKS,
}
const STEP_READ = { defaults: { readBigInts: false }, checks: READ_CHECKS }
const NEVER_STOPPED = Object.freeze({ ticket: 0, stopper: undefined })
const MAX_TICKET = 2 ** 32 - 1
const SQL = {
  defaults: { unsafe: false, ...LIMITS },
  checks: { unsafe: option.boolean, ...LIMIT_CHECKS },
}
const LOAD = {
  defaults: { progress: undefined, signal: undefined },
  checks: { progress: option.callback, signal: option.abortSignal },
}
const BACKUP = {
  defaults: { progress: undefined, signal: undefined },
  checks: { progress: option.callback, signal: option.abortSignal },
}
const SOCKET = {
  defaults: { onUnknownMessage: undefined },
  checks: { onUnknownMessage: option.callback },
}
const WAIT = {
  defaults: { timeoutMs: 5_000, signal: undefined },
  checks: { timeoutMs: option.milliseconds(), signal: option.abortSignal },
}
const VERIFY = { defaults: { timeoutMs: 30_000 }, checks: { timeoutMs: option.milliseconds() } }
const COMPACT = {
  defaults: { maxPatchRetentionMs: undefined, signal: undefined },
  checks: { maxPatchRetentionMs: option.retention, signal: option.abortSignal },
}
const FORGET = {
  defaults: {
    forks: false,
    pending: false,
    staged: false,
    peerId: undefined,
    origin: undefined,
    after: undefined,
  },
  checks: {
    forks: option.boolean,
    pending: option.boolean,
    staged: option.boolean,
    peerId: option.peerId,
    origin: option.peerId,
    after: option.integer(0, Number.MAX_SAFE_INTEGER),
  },
}
const OF_THE_DISK = /^SQLITE_(FULL|IOERR|READONLY|CANTOPEN)/
const FORGETTABLE = ['forks', 'pending', 'staged'] // as the core numbers them; 3: what is lost
const CLOSE = {
  defaults: { timeoutMs: 5_000, flushMs: 0 },
  checks: { timeoutMs: option.milliseconds(), flushMs: option.milliseconds() },
}
const read = (where, given, { defaults, checks }) =>
  option.readOptions(where, given, defaults, checks)

export class Replica extends EventEmitter {
  #path
  #options
  #native
  #links
  #pendingPatches = []
  #stuck = { rows: 0, first: [] }
  #verifier
  #recheck
  #retention
  #statistics // a timer
  #progress // what is applied here
  #tickets = 0 // by which calls are stopped
  #state = 'opening' // then 'open', 'closing', 'closed'
  #peerId
  #tables = new Map() // name -> { columns: Set, key: string[], given: string[], names: string }
  #pending = 0 // calls of the writing queue that have not settled
  #turnComes = false // #soon() was called
  #lockTimer // set while another program has the write lock that something waits for
  #toldLockedSince = 0
  #settingSecrets = Promise.resolve() // in the order of the calls
  #changingSchema = 0 // those of them that may change the schema
  #roomWaits = [] // load() and compact() waiting for a pending call to settle
  #migrating = Promise.resolve()
  #inFunction = false // a step of a migration that is a function runs
  #endFunction = () => {}
  #acks
  #closing
  #flushing // a promise while close({ flushMs }) waits for acknowledgements
  #endFlush = () => {}
  #coreClosed = false
  #gone // what has become of the file, as an error
  #readsSync = false
  #endSync = () => {
    this.#readsSync = false
    this.#native.endSync()
  }

  constructor(key, path, options) {
    if (key !== PRIVATE) throw new TypeError('use await Replica.open(path, options)')
    super()
    this.#path = path
    this.#options = options
    this.#progress = new Progress(
      options,
      (error) => this.#emitLater('error', error),
      (origin) => this.#call(this.#native.announced(origin)),
      () => ({ since: this.#links.heardSince, isCarrying: this.#links.carrying().length > 0 }),
    )
  }

  static async open(path, options) {
    checkPath(path)
    const replica = new Replica(PRIVATE, resolve(path), option.openOptions(options))
    try {
      await replica.#open()
    } catch (error) {
      throw explainOpen(error, resolve(path))
    }
    return replica
  }

  async #open() {
    const keys = await keysOf(this.#options.secret)
    const { durability, peerId, readBigInts, ...limits } = addonOptions(this.#options)
    const config = {
      ...limits,
      poolThreads: poolThreads(process.env, process.versions),
      maxQueryMs: limits.maxQueryMs === Infinity ? 0 : limits.maxQueryMs,
      peerId: peerId ?? 0,
      newPeerId: randomInt(1, option.MAX_PEER_ID + 1),
      normalDurability: durability === 'normal',
      maxPendingRetentionMs: Math.min(limits.maxPendingRetentionMs, Number.MAX_SAFE_INTEGER),
      maxStagedRetentionMs: Math.min(limits.maxStagedRetentionMs, Number.MAX_SAFE_INTEGER),
      trace: tracing,
    }
    const opened = await this.#openNative(config)
    const warning = placeWarning(this.#path)
    if (warning) process.emitWarning(warning, 'ReplicWarning')
    this.#peerId = opened.peerId
    this.#setTables(opened.tables)
    this.#pendingPatches = opened.pending
    this.#stuck = opened.stuck
    this.#progress.begin(opened.peerId, opened.vector, opened.lost)
    exposeProgress(this, this.#progress)
    const callbacks = {
      emit: (name, event) => this.#emitLater(name, event),
      soon: () => this.#soon(),
      total: () => this.#progress.total,
    }
    this.#links = new Links(this.#native, callbacks, this.#options, {
      peerId: this.#peerId,
      keys,
    })
    register(this, this.#links)
    this.#verifier = new Verifier(
      this.#native,
      this.#links,
      { vector: () => this.#progress.vector, walBytes: () => this.#native.walBytes() },
      this.#options,
    )
    this.#recheck = new Recheck(
      {
        record: (...args) => this.#call(this.#native.rechecked(...args)),
        compare: (peerId, ms) => this.#verifier.hasEqualRows(peerId, ms),
        peers: () => this.#links.writers(),
      },
      this.#options,
    )
    this.#recheck.begin(opened.unchecked)
    this.#acks = new Acks(
      (on) => this.#native.tellAcks(on),
      () => this.#links.writers(),
      this.#options.maxWaits,
    )
    this.#retention = new Retention(
      (...slice) => this.#call(this.#native.compact(...slice)),
      () => Math.max(Date.now(), this.#native.figures().clock),
      (error) => this.#tellError(retentionError(error)),
      this.#options,
    )
    this.#statistics = setInterval(() => this.#optimize(), OPTIMIZE_MS).unref()
    this.#state = 'open'
    this.#retention.start()
    if (opened.isNewPeer) debug('%s goes on as peer %d', this.#path, this.#peerId)
  }

  // Whoever has the file open tells nobody when it lets go of it, so it is tried again and again.
  async #openNative(config) {
    const { lockTimeoutMs } = this.#options
    const begun = performance.now()
    for (let pauseMs = LOCK_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_LOCK_PAUSE_MS)) {
      this.#native = new (addon().Connection)(this.#path, config, (batch) => this.#onBatch(batch))
      endWithProcess(this.#native)
      try {
        return await this.#native.open()
      } catch (error) {
        const leftMs = lockTimeoutMs - (performance.now() - begun)
        if (error.code !== 'REPLIC_LOCKED' || lockTimeoutMs === 0) throw error
        if (leftMs <= 0) throw stillLocked(error, lockTimeoutMs)
        await setTimeoutPromise(Math.min(pauseMs, leftMs))
      }
    }
  }

  /** Brings the schema to the last of `steps`, up or down; waits for a migrate() under way. */
  async migrate(steps, options) {
    this.#checkWriting('migrate')
    const job = readMigration(steps, options)
    const { ticket, stopper } = this.#stopper('migrate', job)
    const native = this.#native
    const host = {
      stored: () =>
        this.all('SELECT version, up, down, name, hash FROM _replic_migrations ORDER BY version'),
      transaction: (commit, fn) => {
        stopper?.throwIfStopped()
        return this.#schemaCall(this.#transaction(commit, fn, ticket))
      },
      stepBegin: (...args) => native.stepBegin(...args),
      stepRun: (...args) => {
        stopper?.throwIfStopped()
        return native.stepRun(...args, ticket)
      },
      stepEnd: () => native.stepEnd(),
      call: (fn) => this.#callFunction(fn, ticket, stopper),
    }
    const turn = this.#migrating
    const run = turn.then(async () => {
      stopper?.throwIfStopped()
      const outcome = await migrateSteps(job, host)
      if (outcome.from !== outcome.to && !job.dryRun) await this.#optimize()
      return outcome
    })
    this.#migrating = run.catch(() => {})
    if (!stopper) return run
    await Promise.race([stopper.stopped, turn]) // one that waits for another one ends at once
    return stopper.outcome(run)
  }

  // A transaction that other calls wait for, from its first call to its last.
  async #transaction(commit, fn, ticket) {
    this.#check()
    await this.#native.migrationBegin(ticket)
    try {
      await fn()
    } catch (error) {
      this.#setTables((await this.#native.migrationEnd(false)).tables)
      throw error
    }
    this.#setTables((await this.#native.migrationEnd(commit)).tables)
  }

  // Runs fn(calls) as a part of the migration under way, until close() is called at the latest.
  async #callFunction(fn, ticket, stopper) {
    const ended = new Promise((_, reject) => {
      this.#endFunction = () => reject(closed())
    })
    if (this.#state !== 'open') this.#endFunction()
    this.#inFunction = true
    functionsUnderWay++
    try {
      const result = migrating.run(this, fn, this.#stepCalls(ticket, stopper))
      return await Promise.race(stopper ? [ended, stopper.stopped, result] : [ended, result])
    } finally {
      this.#inFunction = false
      if (--functionsUnderWay === 0) migrating.disable() // it costs every promise of the process
    }
  }

  // What a step that is a function can do. Everything but upsert and delete stays local.
  #stepCalls(ticket, stopper) {
    const native = this.#native
    const read = (where, first) => async (sql, params, options) => {
      stopper?.throwIfStopped()
      const { readBigInts } = this.#readArguments(where, sql, params, options, STEP_READ)
      return toRows(await native.stepRead(sql, params, first, readBigInts, ticket))
    }
    const [get, all] = [read('tx.get', true), read('tx.all', false)]
    return {
      run: async (sql, params) => {
        stopper?.throwIfStopped()
        checkSql('tx.run', sql)
        checkParams('tx.run', params)
        return native.stepRun(sql, params, false, ticket)
      },
      exec: async (sql) => {
        stopper?.throwIfStopped()
        checkSql('tx.exec', sql)
        const { changes } = await native.stepRun(sql, undefined, true, ticket)
        return { changes }
      },
      get: async (...args) => (await get(...args))[0],
      all,
      upsert: async (table, rows) => {
        await native.stepWrite(this.#upsertOp('tx.upsert', table, rows))
      },
      delete: async (table, key) => {
        await native.stepWrite(this.#deleteOp('tx.delete', table, key))
      },
      patchesTable: async (table) => {
        checkTable('tx.patchesTable', table)
        return native.stepPatchesTable(table)
      },
    }
  }

  /** The DDL that the _patches table of `table` must have, by the table as it is now. */
  async patchesTable(table) {
    this.#checkWriting('patchesTable')
    checkTable('patchesTable', table)
    return this.#native.patchesTable(table)
  }

  // One promise for each of these two: one more, as an async function has that returns another's, costs as much as
  // the rest of a call of one row.
  upsert(table, rows, more) {
    try {
      this.#checkWriting('upsert')
      return this.#write(this.#upsertOp('upsert', table, rows), this.#readAcks('upsert', more))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  delete(table, key, more) {
    try {
      this.#checkWriting('delete')
      return this.#write(this.#deleteOp('delete', table, key), this.#readAcks('delete', more))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #readAcks(where, more) {
    return readAcks(where, more, () => collector()?.acks.get(this.#progress))
  }

  /** All changes of `fn(tx)` in one group: here and on every peer, all or nothing. */
  async batch(fn, more) {
    this.#checkWriting('batch')
    const acks = this.#readAcks('batch', more)
    if (typeof fn !== 'function')
      throw usage(`batch: a function is needed, not ${option.kindOf(fn)}`)
    const ops = []
    let settled = false
    const add = (makeOp) => {
      if (settled) throw usage('batch: tx was used after its function had settled')
      ops.push(...makeOp())
    }
    const tx = {
      upsert: (table, rows, more) => {
        checkNoMore('tx.upsert', more)
        add(() => this.#upsertOp('tx.upsert', table, rows))
      },
      delete: (table, key, more) => {
        checkNoMore('tx.delete', more)
        add(() => this.#deleteOp('tx.delete', table, key))
      },
    }
    try {
      const result = fn(tx)
      if (typeof result?.then === 'function') await result // else the write keeps its place in order
    } finally {
      settled = true
    }
    this.#check()
    return ops.length > 0 ? this.#write(ops, acks) : this.#progress.own()
  }

  async load(table, rows, options) {
    this.#checkWriting('load')
    if (typeof rows !== 'object' || !(rows?.[Symbol.asyncIterator] ?? rows?.[Symbol.iterator])) {
      throw usage(`load: rows must be iterable objects, not ${option.kindOf(rows)}`)
    }
    const { progress, signal } = read('load', options, LOAD)
    const { maxFrameBytes, maxQueueBytes } = this.#options
    const store = (group) => {
      const op = this.#upsertOp('load', table, group)
      return this.#whenRoom(() => this.#write(op, null))
    }
    const maxBytes = Math.min(maxFrameBytes, maxQueueBytes) / 4
    const settings = { progress, signal, maxBytes }
    const stored = async () => (await loadRows(rows, store, settings)) ?? this.#progress.own()
    const wanted = collector()?.acks.get(this.#progress)
    return wanted ? this.#acknowledgedLoad(stored, wanted) : stored()
  }

  // Once for all groups, after the last of them. Acknowledgements are heard from the first on.
  async #acknowledgedLoad(stored, wanted) {
    const waiter = this.#acks.begin({ ...wanted, timeoutMs: option.MAX_TIMER_MS })
    let token
    try {
      token = await stored()
    } catch (error) {
      this.#acks.drop(waiter)
      throw error
    }
    this.#acks.within(waiter, wanted.timeoutMs)
    return this.#acks.done(waiter, this.#progress.vector.get(this.#peerId) ?? 0, token)
  }

  async get(sql, params, options) {
    return toRows(await this.#query('get', sql, params, options, true))[0]
  }

  async all(sql, params, options) {
    return toRows(await this.#query('all', sql, params, options, false))
  }

  /** get() on the calling thread, which waits for it. */
  getSync(sql, params, options) {
    return toRows(this.#querySync('getSync', sql, params, options, true))[0]
  }

  allSync(sql, params, options) {
    return toRows(this.#querySync('allSync', sql, params, options, false))
  }

  /** A loop over rows. Leaving it ends the query at once, also while it looks for the next row. */
  iterate(sql, params, options) {
    const left = { ticket: this.#newTicket(), isLeft: false }
    const loop = this.#iterate(left, sql, params, options)
    const leave = loop.return
    loop.return = (value) => {
      left.isLeft = true
      this.#native.stop(left.ticket)
      return leave.call(loop, value)
    }
    return loop
  }

  async run(sql, params, options) {
    this.#checkWriting('run')
    checkSql('run', sql)
    checkParams('run', params)
    const { unsafe, ...limits } = read('run', options, SQL)
    const { ticket, stopper } = this.#stopper('run', limits)
    const done = this.#schemaCall(this.#native.run(sql, params, unsafe, ticket))
    return stopper ? stopper.outcome(done) : done
  }

  async exec(sql, options) {
    this.#checkWriting('exec')
    checkSql('exec', sql)
    const { unsafe, ...limits } = read('exec', options, SQL)
    const { ticket, stopper } = this.#stopper('exec', limits)
    const done = this.#schemaCall(this.#native.exec(sql, unsafe, ticket))
    return stopper ? stopper.outcome(done) : done
  }

  /** Resolves once everything up to `token` is applied here. */
  async waitFor(token, options) {
    this.#check()
    const lacking = this.#progress.lacks(this.#progress.parse(token))
    const given = typeof options === 'number' ? { timeoutMs: options } : options
    const wait = read('waitFor', given, WAIT)
    if (lacking.length === 0) return
    wait.signal?.throwIfAborted()
    await this.#progress.wait(lacking, wait)
  }

  /** A token of all that is applied here. */
  token() {
    this.#check()
    return this.#progress.all()
  }

  /** One token that covers all that are given. */
  mergeTokens(...tokens) {
    this.#check()
    if (tokens.length === 0) throw usage('mergeTokens: no tokens given; pass at least one')
    return this.#progress.merge(tokens)
  }

  /** Middleware for Express; see types/index.d.ts. */
  readYourWrite(header, options) {
    this.#check()
    return expressMiddleware(this, header, options)
  }

  /** Copies the file to `path`, a slice at a time, as it is now. */
  async backup(path, options) {
    this.#check()
    return copyTo(this.#native, this.#path, path, read('backup', options, BACKUP))
  }

  /** Retention at once, over all that is of age. */
  async compact(options) {
    this.#checkWriting('compact')
    const { maxPatchRetentionMs, signal } = read('compact', options, COMPACT)
    const slice = (...args) => this.#whenRoom(() => this.#call(this.#native.compact(...args)))
    const outcome = await this.#retention.run(slice, maxPatchRetentionMs, signal)
    await this.#optimize()
    return { ...outcome, logRows: this.#native.figures().logRows }
  }

  /** What others have said of themselves and of each other, and was kept: see types/index.d.ts. */
  async forget(options) {
    this.#checkWriting('forget')
    const { peerId = 0, origin, after, ...wanted } = read('forget', options, FORGET)
    if (!FORGETTABLE.some((what) => wanted[what]) && origin === undefined)
      throw usage(
        `forget: say what, with one or more of ${FORGETTABLE.join(', ')}: true, or origin`,
      )
    if (after !== undefined && origin === undefined)
      throw usage('forget: after which patch of whom? origin is missing')
    const forgotten = { forks: 0, pending: 0, staged: 0, lost: 0 }
    for (const [number, what] of FORGETTABLE.entries())
      if (wanted[what]) forgotten[what] = await this.#call(this.#native.forget(number, peerId, 0))
    if (origin !== undefined) forgotten.lost = await this.#forgetLost(origin, after)
    return forgotten
  }

  async #forgetLost(origin, given) {
    const [carrying] = this.#links.carrying()
    if (carrying !== undefined) throw unknownYet(origin, carrying)
    const after = given ?? this.#progress.vector.get(origin) ?? 0
    const lost = await this.#call(this.#native.forget(FORGETTABLE.length, origin, after))
    this.#progress.lose(origin, after)
    return lost
  }

  addRemotePeer(peerId, socket, options) {
    this.#check()
    if (peerId !== null) checkPeerId('addRemotePeer', peerId, ', or null for whoever answers')
    const { onUnknownMessage } = read('addRemotePeer', options, SOCKET)
    const isWebSocket = kindOfSocket(socket) !== undefined
    if (!isWebSocket) checkSocket('addRemotePeer', socket)
    const full = this.#links.roomError(false)
    if (full) throw full // before anything listens to it
    const frames = isWebSocket
      ? new FrameSocket(this.#links.options, onUnknownMessage).use(socket)
      : socket
    const transport = socket.constructor?.name ?? 'socket'
    return this.#links.add(frames, { peerId, transport }).id
  }

  /** Other secrets from now on: see `secret` of open. Links whose secret is not among them end, and are dialed again. */
  async setSecrets(secret) {
    this.#check()
    option.checkSecret('setSecrets', secret)
    const keys = this.#settingSecrets.then(() => keysOf(secret))
    this.#settingSecrets = keys
    const set = await keys
    this.#check()
    this.#links.setKeys(set)
  }

  closeRemotePeer(peerId) {
    this.#check()
    checkPeerId('closeRemotePeer', peerId, '')
    return this.#links.closePeer(peerId)
  }

  /** Are the replicated tables of linked peers the same as here, at equal vectors? */
  async verify(peerId, options) {
    this.#check()
    const all = peerId === undefined || peerId === null
    if (!all) checkPeerId('verify', peerId, ', or nothing for all that are linked')
    const { timeoutMs } = read('verify', options, VERIFY)
    const linked = this.#links.peers()
    if (linked.length === 0) throw notLinked('no peer is')
    if (!all && !linked.includes(peerId)) throw notLinked(`peer ${peerId} is not`)
    const peers = await this.#verifier.verify(all ? linked : [peerId], timeoutMs)
    return { equal: peers.every(({ equal }) => equal), peers }
  }

  status() {
    const figures = this.#native.figures()
    const { clock, logRows, queueBytes, lockedSince, batchCalls, batchSeconds, counters } = figures
    const clockAheadMs = Math.max(0, clock - Date.now())
    return {
      peerId: this.#peerId,
      path: this.#path,
      state: this.#state,
      fileGone: this.#gone?.message ?? null,
      vector: Object.fromEntries(this.#progress.vector),
      tables: [...this.#tables.keys()],
      clock,
      clockAheadMs,
      clockRaisedBy: clockAheadMs ? figures.clockRaisedBy || null : null,
      clockOffMs: figures.clockOffMs,
      logRows,
      pending: this.#pendingPatches.map(pendingPatch),
      stuck: {
        rows: this.#stuck.rows,
        first: this.#stuck.first.map((row) => ({ ...row, key: JSON.parse(row.key) })),
      },
      fileBytes: sizeOf(this.#path),
      walBytes: sizeOf(`${this.#path}-wal`),
      queue: { calls: this.#pending, bytes: queueBytes },
      lockedSince: lockedSince || null,
      waits: this.#progress.waiting + this.#acks.waiting,
      batches: { calls: histogram(batchCalls), seconds: histogram(batchSeconds) },
      links: this.#links.status(),
      uncheckedJumps: [...this.#recheck.sources],
      refusedLinks: this.#links.refusals,
      counters,
    }
  }

  /** status() as OpenMetrics text. */
  metrics() {
    return toMetrics(this.status())
  }

  async explain(table) {
    this.#checkWriting('explain')
    this.#checkNames('explain', table, [])
    return this.#native.explain(table)
  }

  on(name, listener) {
    this.#checkEvent(name)
    return super.on(name, listener)
  }

  once(name, listener) {
    this.#checkEvent(name)
    return super.once(name, listener)
  }

  off(name, listener) {
    this.#checkEvent(name)
    return super.off(name, listener)
  }

  /** Ends everything in order; see types/index.d.ts. */
  async close(options) {
    const { timeoutMs, flushMs } = read('close', options, CLOSE)
    this.#closing ??= this.#close(flushMs > 0)
    await this.#flushed(flushMs)
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        this.#links.terminate()
        this.#native.stopAll()
        if (this.#native.stopWaiting()) return // for another program: its calls fail now
        timer = setTimeout(() => {
          if (!this.#coreClosed) reject(closeIsLate(timeoutMs))
        }, STOPPING_MS)
      }, timeoutMs)
    })
    try {
      return await Promise.race([this.#closing, late])
    } finally {
      clearTimeout(timer)
    }
  }

  // What was called before is executed, and the frames it leaves are sent, before the links end.
  async #close(flush) {
    this.#state = 'closing'
    this.#retention.stop()
    clearInterval(this.#statistics)
    this.#verifier.stop(closed())
    this.#recheck.stop()
    this.#links.refuse()
    this.#progress.fail(closed())
    this.#endFunction()
    let isInTime = true
    if (flush) {
      this.#flushing = this.#flush()
      isInTime = await this.#flushing
      this.#flushing = undefined
    }
    const refusedBy = this.#links.refusing()
    this.#links.stop()
    this.#acks.fail(closed)
    let outcome
    try {
      const unacknowledged = byOrigin(await this.#native.close())
      const flushed = isInTime && Object.keys(unacknowledged).length === 0
      outcome = { flushed, unacknowledged, refusedBy }
    } finally {
      this.#coreClosed = true
      await this.#links.close()
      this.#state = 'closed'
    }
    if (this.#gone) throw this.#gone
    return outcome
  }

  // Until all peers have acknowledged all (true), or #endFlush() is called (false). Each of several
  // close() calls waits for as long as it allows itself, so the shortest counts.
  async #flush() {
    const enough = new Promise((resolve) => {
      this.#endFlush = () => resolve(false)
    })
    return Promise.race([enough, this.#links.flush().then(() => true)])
  }

  async #flushed(flushMs) {
    const timer = setTimeout(() => this.#endFlush(), flushMs)
    await this.#flushing
    clearTimeout(timer)
  }

  toJSON() {
    return { peerId: this.#peerId, path: this.#path, state: this.#state }
  }

  async [Symbol.asyncDispose]() {
    await this.close()
  }

  // ---- what a batch of the core leaves ----

  #onBatch(report) {
    if (report.lockWaitMs) return this.#waitForLock(report.lockWaitMs, report.lockedSince)
    const { vector, sends, events, links, pending, stuck, tables, frameBytes, unsettled } = report
    if (unsettled) this.#soon()
    if (report.back) this.#progress.goBack(report.back)
    if (vector) this.#advance(vector, sends !== undefined)
    if (vector) this.#links.cannotStore = null
    if (!sends) return // a query has seen the commit of a batch that has not finished yet
    if (tables) this.#setTables(tables)
    if (pending) this.#pendingPatches = pending
    if (stuck) this.#stuck = stuck
    this.#links.deliver(sends)
    for (const event of events) this.#onEvent(event)
    if (links) this.#links.snapshot(links)
    this.#links.drained(frameBytes)
    this.#wakeRoomWaits()
  }

  // Another program has the write lock. It is tried again on a timer: no thread waits, and heartbeats go on.
  #waitForLock(ms, lockedSince) {
    const isLong = Date.now() - lockedSince >= this.#options.busyTimeoutMs
    if (isLong && lockedSince !== this.#toldLockedSince) {
      this.#toldLockedSince = lockedSince
      const error = isLocked(this.#path, lockedSince)
      this.#links.cannotStore = error.message
      this.#emitLater('error', error)
    }
    this.#lockTimer = setTimeout(() => {
      this.#lockTimer = undefined
      this.#native.tryLock()
    }, ms)
    if (this.#pending === 0 && this.#state === 'open') this.#lockTimer.unref() // frames alone wait
  }

  #onEvent(event) {
    if (event.kind === 'trace') debug('%s: %s', this.#path, event.text)
    else if (event.kind === 'error') {
      this.#tellError(new ReplicError(event.code, printable(event.text)))
    } else if (event.kind === 'change') {
      const { text: table, local, remote } = event
      this.#emitLater('change', { table, local, remote })
    } else if (event.kind === 'acked') this.#acks.heard(event.peer, event.sum)
    else if (event.kind === 'jumped') this.#recheck.jumped()
    else if (event.kind === 'message') this.#verifier.message(event.peer, event.bytes)
    else this.#links.event(event)
    if (event.kind === 'synced') this.#recheck.synced()
  }

  // That the file is gone is told once, however much fails of it.
  #tellError(error) {
    const isGone = error.code === 'REPLIC_FILE_GONE'
    if (isGone && this.#gone) return
    if (isGone) {
      this.#gone = error
      this.#verifier.stop(error)
    }
    if (OF_THE_DISK.test(error.code)) this.#links.cannotStore = error.message
    this.#emitLater('error', error)
  }

  #advance(vector, isBatch) {
    this.#progress.advance(vector, isBatch)
    this.#verifier.advanced()
  }

  #setTables(tables) {
    this.#tables = new Map(
      tables.map(({ name, columns }) => [
        name,
        {
          columns: new Set(columns.map((column) => column.name)),
          key: columns.filter((column) => column.key > 0).map((column) => column.name),
          given: [], // the columns that the last call named
          names: '', // the same as the addon takes them
        },
      ]),
    )
  }

  // A listener that throws must not break the batch it hears of: it runs after it.
  #emitLater(name, event) {
    queueMicrotask(() => {
      if (name === 'error' && this.listenerCount('error') === 0) debug('%s: %s', this.#path, event)
      else this.emit(name, event)
    })
  }

  // ---- writing ----

  // The addon takes what one turn of the event loop has for it together: here, or on another thread where that is more
  // than a little.
  #soon() {
    if (this.#turnComes) return
    this.#turnComes = true
    nextTurn(this.#turn)
  }

  // What listeners do then is not the doing of whoever made the first call.
  #turn = AsyncResource.bind(() => {
    this.#turnComes = false
    if (this.#native.turn()) this.#soon()
  }, 'replic-sqlite')

  // As #call() does, with as few promises as can be, and holding nothing that its end does not need: V8 copies all that
  // is alive when it collects its young objects, and while it does, the event loop waits.
  #write(ops, acks) {
    const collected = collector()
    const wanted = acks === undefined ? collected?.acks.get(this.#progress) : acks
    const waiter = wanted && this.#acks.begin(wanted)
    const written = waiter ? this.#writeFor(waiter, ops) : this.#native.write(ops)
    this.#pending++
    this.#lockTimer?.ref()
    this.#soon()
    const then = collected ? (sequence) => this.#written(sequence, collected) : this.#written
    const done = written.then(then, this.#notWritten)
    return waiter ? this.#acknowledged(waiter, written, done) : done
  }

  // Where the addon takes no call at all, nobody is to wait for its acknowledgements.
  #writeFor(waiter, ops) {
    try {
      return this.#native.write(ops)
    } catch (error) {
      this.#acks.drop(waiter)
      throw error
    }
  }

  async #acknowledged(waiter, written, done) {
    try {
      await done
    } catch (error) {
      this.#acks.drop(waiter)
      throw error
    }
    return this.#acks.done(waiter, await written, await done)
  }

  #written = (sequence, collected) => {
    this.#pending--
    this.#wakeRoomWaits()
    return this.#progress.written(sequence, collected)
  }

  #notWritten = (error) => {
    this.#pending--
    if (error.code !== 'REPLIC_BUSY') this.#wakeRoomWaits() // it has not taken any room
    throw error
  }

  // load() and compact() do not compete: while others fill the queue, they wait for room. What fills
  // it is calls, which settle, and frames, which end in a batch: both wake them.
  async #whenRoom(call) {
    for (;;) {
      this.#check()
      try {
        return await call()
      } catch (error) {
        if (error.code !== 'REPLIC_BUSY') throw error
      }
      await new Promise((resolve) => this.#roomWaits.push(resolve))
    }
  }

  #wakeRoomWaits() {
    if (this.#roomWaits.length === 0) return
    for (const wake of this.#roomWaits.splice(0)) wake()
  }

  async #call(promise) {
    this.#pending++
    this.#lockTimer?.ref()
    try {
      const result = await promise
      this.#wakeRoomWaits()
      return result
    } catch (error) {
      if (error.code !== 'REPLIC_BUSY') this.#wakeRoomWaits() // it has not taken any room
      throw error
    } finally {
      this.#pending--
    }
  }

  // Statistics for the planner, table by table. They are no duty: where the disk is full, say, queries go on with what
  // there is.
  async #optimize() {
    try {
      for (let after = ''; after !== null && this.#state === 'open'; ) {
        after = await this.#call(this.#native.optimize(after))
      }
    } catch (error) {
      debug('%s: optimize: %s', this.#path, error)
    }
  }

  async #schemaCall(promise) {
    this.#changingSchema++
    try {
      return await this.#call(promise)
    } finally {
      this.#changingSchema--
    }
  }

  #upsertOp(where, table, rows) {
    checkTable(where, table)
    const { columns, values } = Array.isArray(rows) ? flatten(where, rows) : flattenOne(where, rows)
    return [UPSERT, table, this.#columnNames(where, table, columns), pack(values)]
  }

  // Most calls for a table name the same columns as the last one: then nothing is checked again, and all names
  // go in one string. While the schema may change the core has to read each, whatever it holds.
  #columnNames(where, table, columns) {
    const known = this.#changingSchema > 0 ? undefined : this.#tables.get(table)
    if (known && isSameList(known.given, columns)) return known.names
    this.#checkNames(where, table, columns)
    if (!known) return columns
    known.given = columns
    known.names = columns.join('\0')
    return known.names
  }

  #deleteOp(where, table, key) {
    checkTable(where, table)
    if (!option.isPlain(key)) {
      throw usage(`${where}: a key is an object, as { id: 1 }, not ${option.kindOf(key)}`)
    }
    const { columns, values } = flattenOne(where, key)
    this.#checkNames(where, table, columns)
    const known = this.#changingSchema > 0 ? undefined : this.#tables.get(table)
    const wanted = known?.key ?? columns // if unknown, the core decides
    if (columns.length !== wanted.length || !wanted.every((name) => columns.includes(name))) {
      const names = wanted.join(', ')
      throw new ReplicError(
        'REPLIC_KEY',
        `${where}: the primary key of '${table}' is (${names}); give exactly that`,
      )
    }
    return [DELETE, table, columns, values]
  }

  // The core checks names again, in its turn; here a misspelt one is answered with the right one. Not
  // while a call under way may change the schema: then only the core can know.
  #checkNames(where, table, columns) {
    checkTable(where, table)
    if (this.#changingSchema > 0) return
    const known = this.#tables.get(table)
    if (!known) {
      const names = [...this.#tables.keys()]
      const hint = option.nearest(table, names) || `; ${howToReplicate(names)}`
      const message = `${where}: there is no replicated table '${table}'${hint}`
      throw new ReplicError('REPLIC_UNKNOWN_TABLE', message)
    }
    for (const name of columns) {
      if (known.columns.has(name)) continue
      const message = `${where}: table '${table}' has no column '${name}'`
      const hint = option.nearest(name, known.columns) || `; it has ${listed(known.columns)}`
      throw new ReplicError('REPLIC_UNKNOWN_COLUMN', message + hint)
    }
  }

  // ---- reading ----

  async #query(where, sql, params, options, first) {
    this.#check()
    const given = this.#readArguments(where, sql, params, options, READ)
    const { readBigInts } = given
    const { ticket, stopper } = this.#stopper(where, given)
    const rows = this.#native.query(sql, params, first, readBigInts, ticket)
    if (!stopper) return rows
    // A thread that cannot stop at once has a result that nobody waits for.
    return stopper.outcome(Promise.race([stopper.stopped, rows]))
  }

  // By the ticket the addon stops a call; 0: nothing does.
  #stopper(where, limits) {
    if (limits.signal === undefined && limits.timeoutMs === undefined) return NEVER_STOPPED
    const ticket = this.#newTicket()
    const late = () => {
      const isHeld = !READS.has(where) && this.#native.figures().lockedSince
      return timeIsOver(where, limits.timeoutMs, isHeld ? lockRemedy(this.#path) : PLAN_REMEDY)
    }
    return { ticket, stopper: new Stopper(limits, late, () => this.#native.stop(ticket)) }
  }

  #newTicket() {
    this.#tickets = (this.#tickets % MAX_TICKET) + 1
    return this.#tickets
  }

  // Until the application's code lets go of the thread all of its calls see one state of the file:
  // nothing it has waited for can be missing, and finding the state costs as much as a row.
  #querySync(where, sql, params, options, first) {
    this.#check()
    const { readBigInts, timeoutMs } = this.#readArguments(where, sql, params, options, READ_SYNC)
    if (!this.#readsSync) {
      this.#readsSync = true
      queueMicrotask(this.#endSync)
    }
    return this.#native.querySync(sql, params, first, readBigInts, 0, timeoutMs)
  }

  #readArguments(where, sql, params, options, { defaults, checks }) {
    checkSql(where, sql)
    checkParams(where, params)
    if (options === undefined) return this.#options
    const own = { ...defaults, readBigInts: this.#options.readBigInts }
    return read(where, options, { defaults: own, checks })
  }

  async *#iterate(left, sql, params, options) {
    this.#check()
    const { ticket } = left
    const given = this.#readArguments('iterate', sql, params, options, READ)
    const { readBigInts, signal, timeoutMs } = given
    const stopper = new Stopper({ signal }, undefined, () => this.#native.stop(ticket))
    let cursor
    try {
      cursor = await this.#native.cursorOpen(sql, params, readBigInts, ticket, timeoutMs)
      const goesOn = () => !left.isLeft && !stopper.isStopped
      let next = goesOn() && cursor.next(CURSOR_ROWS)
      while (next) {
        const batch = await next
        next = !batch[1] && goesOn() && cursor.next(CURSOR_ROWS) // fetched while the application takes these
        if (next) next.catch(() => {}) // seen when it is awaited
        for (const row of toRows(batch)) {
          this.#check()
          stopper.throwIfStopped()
          yield row
        }
      }
      stopper.throwIfStopped()
    } catch (error) {
      stopper.throwIfStopped()
      if (error?.code !== 'SQLITE_INTERRUPT') throw error // else return() was called
    } finally {
      stopper.release()
      this.#native.stop(ticket)
      await cursor?.close()
    }
  }

  #check() {
    if (this.#state !== 'open') throw closed()
  }

  // What waits for the migration that it is called from would never return.
  #checkWriting(where) {
    this.#check()
    if (this.#inFunction && migrating.getStore() === this) {
      throw usage(`${where}: in a function of migrate(), use its tx`)
    }
  }

  #checkEvent(name) {
    if (EVENTS.includes(name)) return
    throw usage(`there is no event '${String(name)}'${option.nearest(String(name), EVENTS)}`)
  }
}

function checkPath(path) {
  const isPath = option.text.accepts(path) && !path.includes('\0')
  if (isPath && path !== ':memory:' && !/^file:/i.test(path)) return
  const hint = /^file:/i.test(path) ? '; fileURLToPath() of node:url makes a path of it' : ''
  throw usage(
    `open: path must be the path of a file, or where one can be created, not ${option.show(path)}${hint}`,
  )
}

// What SQLite only calls "unable to open".
function explainOpen(error, path) {
  if (/^SQLITE_/.test(error.code) && isSpecial(path)) {
    const why = 'it is no regular file: give the path of one, or where one can be created'
    return new ReplicError(error.code, `open: ${path}: ${why}`, { cause: error })
  }
  if (!/^SQLITE_CANTOPEN/.test(error.code)) return error
  const folder = dirname(path)
  const why = isFolder(path)
    ? 'it is a folder: give the path of a file'
    : !isFolder(folder) && `the folder ${folder} does not exist: create it first`
  return why ? new ReplicError(error.code, `open: ${path}: ${why}`, { cause: error }) : error
}

// A device, a pipe or a socket.
function isSpecial(path) {
  try {
    const found = statSync(path)
    return !found.isFile() && !found.isDirectory()
  } catch {
    return false
  }
}

function isFolder(path) {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}

const MAX_LISTED = 20

const listed = (names) => {
  const all = [...names]
  return all.slice(0, MAX_LISTED).join(', ') + (all.length > MAX_LISTED ? ', …' : '')
}

const howToReplicate = (names) =>
  names.length === 0
    ? 'no table is replicated yet: create it and its _patches table with migrate(), and await that'
    : `replicated are ${listed(names)}. It needs a _patches table, whose DDL patchesTable() gives; a table that stays local is written with run()`

function checkTable(where, table) {
  if (typeof table === 'string') return
  throw usage(`${where}: the table must be a string, not ${option.kindOf(table)}`)
}

// A second row behind the first one would be lost, and a signal would stop nothing.
function checkNoMore(where, more) {
  if (more === undefined) return
  throw usage(
    `${where}: ${option.kindOf(more)} behind the last argument: several rows are one array of them, and what is ` +
      'asked of a write is asked of its batch',
  )
}

function isSameList(a, b) {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return a.length === b.length
}

// Its names may come from another peer.
const pendingPatch = ({ table, why, patches, oldestAt }) => ({
  table: printable(table),
  why: printable(why),
  patches,
  oldestAt,
})

const sizeOf = (path) => statSync(path, { throwIfNoEntry: false })?.size ?? 0

const isLocked = (path, since) =>
  new ReplicError(
    'SQLITE_BUSY',
    `another program has held the write lock of ${path} since ${new Date(since).toISOString()}: what peers send waits ` +
      'until its transaction ends, and calls fail (fuser or lsof tell which program has the file open)',
  )

const retentionError = (error) =>
  new ReplicError(error.code, `retention: ${error.message}; it is tried again`, { cause: error })

const unknownYet = (origin, peerId) =>
  new ReplicError(
    'REPLIC_BUSY',
    `forget: peer ${peerId} is sending a frame for longer than a heartbeat, and whether it brings patches of peer ` +
      `${origin} is not known: try again once it is here`,
  )

// Flat: origin, patches, and again.
function byOrigin(flat) {
  const counts = {}
  for (let i = 0; i < flat.length; i += 2) counts[flat[i]] = flat[i + 1]
  return counts
}

// The bounds come flat: bound, how many are not above it, and again.
function histogram({ count, sum, max, buckets }) {
  const pairs = buckets.filter((_, i) => i % 2 === 0)
  return {
    count,
    sum,
    max,
    buckets: pairs.map((le, i) => ({ le, count: buckets[2 * i + 1] })),
  }
}

// What only lib/ needs to know: the addon takes no secrets and no functions.
function addonOptions({ secret, authorize, maxLinks, maxPendingLinks, ...others }) {
  const { encryption, lockTimeoutMs, tokenSecret, maxWaits, ...rest } = others
  return rest
}

const stillLocked = (error, ms) =>
  new ReplicError(error.code, `${error.message}. It was so for lockTimeoutMs (${ms} ms)`, {
    cause: error,
  })

const notLinked = (who) =>
  new ReplicError('REPLIC_NOT_FOUND', `verify: ${who} linked and ready; see status().links`)

const timeIsOver = (where, timeoutMs, remedy) =>
  new ReplicError(
    'REPLIC_TIMEOUT',
    `${where}: it had not ended after timeoutMs (${timeoutMs} ms), so it was stopped: ${remedy}, or allow it a longer ` +
      'timeoutMs',
  )

const PLAN_REMEDY = 'EXPLAIN QUERY PLAN says what a statement reads; add an index'
const READS = new Set(['get', 'all', 'iterate']) // they wait for no write lock
const lockRemedy = (path) =>
  `another program holds the write lock of ${path}; end its transaction (fuser or lsof tell which program has the file open)`

// Before a process ends, Node waits for all that its pool has begun.
const natives = new Set()
const forgotten = new FinalizationRegistry((ref) => natives.delete(ref))
let isTold = false

function endWithProcess(native) {
  const ref = new WeakRef(native)
  natives.add(ref)
  forgotten.register(native, ref)
  if (isTold) return
  isTold = true
  process.on('exit', () => {
    for (const each of natives) each.deref()?.end()
  })
}

const closeIsLate = (timeoutMs) =>
  new ReplicError(
    'REPLIC_TIMEOUT',
    `close: calls were still being executed after ${timeoutMs} ms; it goes on in the background`,
  )

function checkPeerId(where, peerId, more) {
  if (option.peerId.accepts(peerId)) return
  throw usage(`${where}: peerId must be ${option.peerId.wants}${more}, not ${option.show(peerId)}`)
}

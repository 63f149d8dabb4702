// The parts of a replica, put together: opens the file, begins what runs in the background, and passes what each batch
// of the core leaves to whom it concerns.

import { printable, ReplicError } from './base/errors.js'
import { Closing } from './closing.js'
import { debug } from './debug.js'
import { placeWarning } from './file-system.js'
import { Links } from './links/links.js'
import { closed, register } from './links/registry.js'
import { keysOf } from './links/secret.js'
import { Migrations } from './migration.js'
import { Names } from './names.js'
import { openConnection } from './open.js'
import { Acks } from './progress/acks.js'
import { exposeProgress, Progress } from './progress/progress.js'
import { Queries } from './query.js'
import { Retention } from './retention.js'
import { Statistics } from './statistics.js'
import { Recheck } from './verify/recheck.js'
import { Verifier } from './verify/verifier.js'
import { Writer } from './writer.js'
import { Writes } from './writes.js'

const OF_THE_DISK = /^SQLITE_(FULL|IOERR|READONLY|CANTOPEN)/

/** Each part is a property, once open() has begun; none changes after that. */
export class Parts {
  #replica
  state = 'opening' // then 'open', 'closing', 'closed'
  names = new Names()
  pendingPatches = []
  stuck = { rows: 0, first: [] }
  gone // what has become of the file, as an error

  /** `replica` emits the events. */
  constructor(replica, path, options) {
    this.#replica = replica
    this.path = path
    this.options = options
    this.progress = new Progress(
      options,
      (error) => this.emitLater('error', error),
      (origin) => this.writer.call(this.native.announced(origin)),
      () => ({ since: this.links.heardSince, isCarrying: this.links.carrying().length > 0 }),
    )
  }

  /** Opens the file and begins all that runs in the background. */
  async open() {
    const keys = await keysOf(this.options.secret)
    const opened = await openConnection(
      this.path,
      this.options,
      (batch) => this.#onBatch(batch),
      (native) => this.#take(native),
    )
    const warning = placeWarning(this.path)
    if (warning) process.emitWarning(warning, 'ReplicWarning')
    this.peerId = opened.peerId
    this.names.set(opened.tables)
    this.pendingPatches = opened.pending
    this.stuck = opened.stuck
    this.progress.begin(opened.peerId, opened.vector, opened.lost)
    exposeProgress(this.#replica, this.progress)
    const callbacks = {
      emit: (name, event) => this.emitLater(name, event),
      soon: () => this.writer.soon(),
      total: () => this.progress.total,
    }
    this.links = new Links(this.native, callbacks, this.options, {
      peerId: this.peerId,
      keys,
    })
    register(this.#replica, this.links)
    this.verifier = new Verifier(
      this.native,
      this.links,
      {
        vector: () => this.progress.vector,
        walBytes: () => this.native.walBytes(),
        isUnsure: () => this.recheck.isUnsure,
      },
      this.options,
    )
    this.recheck = new Recheck(
      {
        record: (...args) => this.writer.call(this.native.rechecked(...args)),
        compare: (peerId, ms) => this.verifier.hasEqualRows(peerId, ms),
        peers: () => this.links.writers(),
      },
      this.options,
    )
    this.recheck.begin(opened.unchecked)
    this.acks = new Acks(
      (on) => this.native.tellAcks(on),
      () => this.links.writers(),
      this.options.maxWaits,
    )
    this.writer.acks = this.acks
    this.retention = new Retention(
      (...slice) => this.writer.call(this.native.compact(...slice)),
      () => Math.max(Date.now(), this.native.figures().clock),
      (error) => this.#tellError(retentionError(error)),
      this.options,
    )
    this.closing = new Closing(this.native, this.links, {
      begin: (error) => this.#beginClose(error),
      fail: (error) => this.acks.fail(error),
      gone: () => this.gone,
      end: () => {
        this.state = 'closed'
      },
    })
    this.state = 'open'
    this.statistics.start()
    this.retention.start()
    if (opened.isNewPeer) debug('%s goes on as peer %d', this.path, this.peerId)
  }

  // The parts that need nothing but the addon's Connection, which may be another one until the file is open.
  #take(native) {
    const check = () => this.check()
    const isOpen = () => this.state === 'open'
    this.native = native
    this.writer = new Writer(native, this.progress, this.names, {
      path: this.path,
      busyTimeoutMs: this.options.busyTimeoutMs,
      check,
      isOpen,
      locked: (error) => {
        this.links.cannotStore = error.message
        this.emitLater('error', error)
      },
    })
    this.writes = new Writes(this.writer, this.names, this.progress, this)
    this.statistics = new Statistics(
      this.path,
      (after) => this.writer.call(native.optimize(after)),
      isOpen,
    )
    this.queries = new Queries(native, this.path, this.options, check)
    this.migrations = new Migrations(native, this.writer, this.names, this.queries, {
      check,
      isOpen,
      optimize: () => this.statistics.run(),
    })
  }

  /** Throws REPLIC_CLOSED unless the replica is open. */
  check() {
    if (this.state !== 'open') throw closed()
  }

  /** The same for what writes, which in a function of migrate() would wait for itself. */
  checkWriting(where) {
    this.check()
    this.migrations.checkOutside(where)
  }

  #beginClose(error) {
    this.state = 'closing'
    this.retention.stop()
    this.statistics.stop()
    this.verifier.stop(error)
    this.recheck.stop()
    this.links.refuse()
    this.progress.fail(error)
    this.migrations.end()
  }

  // What a batch of the core leaves goes to whom it concerns.
  #onBatch(report) {
    if (report.lockWaitMs) return this.writer.waitForLock(report.lockWaitMs, report.lockedSince)
    const { vector, sends, events, links, pending, stuck, tables, frameBytes, unsettled } = report
    if (unsettled) this.writer.soon()
    if (report.back) this.progress.goBack(report.back)
    if (vector) this.#advance(vector, sends !== undefined)
    if (vector) this.links.cannotStore = null
    if (!sends) return // a query has seen the commit of a batch that has not finished yet
    if (tables) this.names.set(tables)
    if (pending) this.pendingPatches = pending
    if (stuck) this.stuck = stuck
    this.links.deliver(sends)
    for (const event of events) this.#onEvent(event)
    if (links) this.links.snapshot(links)
    this.links.drained(frameBytes)
    this.writer.wakeRoomWaits()
  }

  #onEvent(event) {
    if (event.kind === 'trace') debug('%s: %s', this.path, event.text)
    else if (event.kind === 'error') {
      this.#tellError(new ReplicError(event.code, printable(event.text)))
    } else if (event.kind === 'change') {
      const { text: table, local, remote } = event
      this.emitLater('change', { table, local, remote })
    } else if (event.kind === 'acked') this.acks.heard(event.peer, event.sum)
    else if (event.kind === 'jumped') this.recheck.jumped()
    else if (event.kind === 'message') this.verifier.message(event.peer, event.bytes)
    else this.links.event(event)
    if (event.kind === 'synced') this.recheck.synced()
  }

  // That the file is gone is told once, however much fails of it.
  #tellError(error) {
    const isGone = error.code === 'REPLIC_FILE_GONE'
    if (isGone && this.gone) return
    if (isGone) {
      this.gone = error
      this.verifier.stop(error)
    }
    if (OF_THE_DISK.test(error.code)) this.links.cannotStore = error.message
    this.emitLater('error', error)
  }

  #advance(vector, isBatch) {
    this.progress.advance(vector, isBatch)
    this.verifier.advanced()
  }

  // A listener that throws must not break the batch it hears of: it runs after it.
  emitLater(name, event) {
    queueMicrotask(() => {
      if (name === 'error' && this.#replica.listenerCount('error') === 0)
        debug('%s: %s', this.path, event)
      else this.#replica.emit(name, event)
    })
  }
}

const retentionError = (error) =>
  new ReplicError(error.code, `retention: ${error.message}; it is tried again`, { cause: error })

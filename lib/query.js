// Reading: queries and loops over rows, and what stops a call before its end.

import { READ, READ_SYNC, read } from './arguments.js'
import { ReplicError } from './base/errors.js'
import { checkParams, checkSql, toRows } from './base/rows.js'
import { Stopper } from './base/stop.js'

const CURSOR_ROWS = 256 // rows that iterate() fetches at a time
const NEVER_STOPPED = Object.freeze({ ticket: 0, stopper: undefined })
const MAX_TICKET = 2 ** 32 - 1

export class Queries {
  #path
  #options
  #native
  #check
  #tickets = 0 // by which calls are stopped
  #readsSync = false
  #endSync = () => {
    this.#readsSync = false
    this.#native.endSync()
  }

  /** `check()` throws where the replica is not open. `options` are those of Replica.open(). */
  constructor(native, path, options, check) {
    this.#native = native
    this.#path = path
    this.#options = options
    this.#check = check
  }

  async query(where, sql, params, options, first) {
    this.#check()
    const given = this.readArguments(where, sql, params, options, READ)
    const { readBigInts } = given
    const { ticket, stopper } = this.stopper(where, given)
    const rows = this.#native.query(sql, params, first, readBigInts, ticket)
    if (!stopper) return rows
    // A thread that cannot stop at once has a result that nobody waits for.
    return stopper.outcome(Promise.race([stopper.stopped, rows]))
  }

  // By the ticket the addon stops a call; 0: nothing does.
  stopper(where, limits) {
    if (limits.signal === undefined && limits.timeoutMs === undefined) return NEVER_STOPPED
    const ticket = this.newTicket()
    const late = () => {
      const isHeld = !READS.has(where) && this.#native.figures().lockedSince
      return timeIsOver(where, limits.timeoutMs, isHeld ? lockRemedy(this.#path) : PLAN_REMEDY)
    }
    return { ticket, stopper: new Stopper(limits, late, () => this.#native.stop(ticket)) }
  }

  newTicket() {
    this.#tickets = (this.#tickets % MAX_TICKET) + 1
    return this.#tickets
  }

  // Until the application's code lets go of the thread all of its calls see one state of the file:
  // nothing it has waited for can be missing, and finding the state costs as much as a row.
  querySync(where, sql, params, options, first) {
    this.#check()
    const { readBigInts, timeoutMs } = this.readArguments(where, sql, params, options, READ_SYNC)
    if (!this.#readsSync) {
      this.#readsSync = true
      queueMicrotask(this.#endSync)
    }
    return this.#native.querySync(sql, params, first, readBigInts, 0, timeoutMs)
  }

  readArguments(where, sql, params, options, { defaults, checks }) {
    checkSql(where, sql)
    checkParams(where, params)
    if (options === undefined) return this.#options
    const own = { ...defaults, readBigInts: this.#options.readBigInts }
    return read(where, options, { defaults: own, checks })
  }

  /** A loop over rows. Leaving it ends the query at once, also while it looks for the next row. */
  iterate(sql, params, options) {
    const left = { ticket: this.newTicket(), isLeft: false }
    const loop = this.#iterate(left, sql, params, options)
    const leave = loop.return
    loop.return = (value) => {
      left.isLeft = true
      this.#native.stop(left.ticket)
      return leave.call(loop, value)
    }
    return loop
  }

  async *#iterate(left, sql, params, options) {
    this.#check()
    const { ticket } = left
    const given = this.readArguments('iterate', sql, params, options, READ)
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
}

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

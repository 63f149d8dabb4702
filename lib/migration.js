// Migrations of one replica, one after another: what migrate.js decides is done here, in transactions that other calls
// wait for.

import { AsyncLocalStorage } from 'node:async_hooks'
import { checkTable, STEP_READ } from './arguments.js'
import { usage } from './base/errors.js'
import { checkParams, checkSql, toRows } from './base/rows.js'
import { closed } from './links/registry.js'
import { migrate as migrateSteps, readMigration } from './migrate.js'

// The Migrations that a function belongs to that runs now.
const migrating = new AsyncLocalStorage()
let functionsUnderWay = 0

export class Migrations {
  #native
  #writer
  #names
  #queries
  #host
  #turn = Promise.resolve()
  #inFunction = false // a step of a migration that is a function runs
  #endFunction = () => {}

  /** `host`: { check() (throws where the replica is not open), isOpen(), optimize() }. */
  constructor(native, writer, names, queries, host) {
    this.#native = native
    this.#writer = writer
    this.#names = names
    this.#queries = queries
    this.#host = host
  }

  /** Throws REPLIC_USAGE in a function of migrate(): what waits for its migration would never return. */
  checkOutside(where) {
    if (this.#inFunction && migrating.getStore() === this) {
      throw usage(`${where}: in a function of migrate(), use its tx`)
    }
  }

  /** The replica closes: a function that runs is waited for no more. */
  end() {
    this.#endFunction()
  }

  /** See Replica.migrate(). */
  async run(steps, options) {
    const job = readMigration(steps, options)
    const { ticket, stopper } = this.#queries.stopper('migrate', job)
    const native = this.#native
    const host = {
      stored: () =>
        this.#all('SELECT version, up, down, name, hash FROM _replic_migrations ORDER BY version'),
      transaction: (commit, fn) => {
        stopper?.throwIfStopped()
        return this.#writer.schemaCall(this.#transaction(commit, fn, ticket))
      },
      stepBegin: (...args) => native.stepBegin(...args),
      stepRun: (...args) => {
        stopper?.throwIfStopped()
        return native.stepRun(...args, ticket)
      },
      stepEnd: () => native.stepEnd(),
      call: (fn) => this.#callFunction(fn, ticket, stopper),
    }
    const turn = this.#turn
    const run = turn.then(async () => {
      stopper?.throwIfStopped()
      const outcome = await migrateSteps(job, host)
      if (outcome.from !== outcome.to && !job.dryRun) await this.#host.optimize()
      return outcome
    })
    this.#turn = run.catch(() => {})
    if (!stopper) return run
    await Promise.race([stopper.stopped, turn]) // one that waits for another one ends at once
    return stopper.outcome(run)
  }

  async #all(sql) {
    return toRows(await this.#queries.query('all', sql, undefined, undefined, false))
  }

  // A transaction that other calls wait for, from its first call to its last.
  async #transaction(commit, fn, ticket) {
    this.#host.check()
    await this.#native.migrationBegin(ticket)
    try {
      await fn()
    } catch (error) {
      this.#names.set((await this.#native.migrationEnd(false)).tables)
      throw error
    }
    this.#names.set((await this.#native.migrationEnd(commit)).tables)
  }

  // Runs fn(calls) as a part of the migration under way, until close() is called at the latest.
  async #callFunction(fn, ticket, stopper) {
    const ended = new Promise((_, reject) => {
      this.#endFunction = () => reject(closed())
    })
    if (!this.#host.isOpen()) this.#endFunction()
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
      const { readBigInts } = this.#queries.readArguments(where, sql, params, options, STEP_READ)
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
        await native.stepWrite(this.#names.upsertOp('tx.upsert', table, rows))
      },
      delete: async (table, key) => {
        await native.stepWrite(this.#names.deleteOp('tx.delete', table, key))
      },
      patchesTable: async (table) => {
        checkTable('tx.patchesTable', table)
        return native.stepPatchesTable(table)
      },
    }
  }
}

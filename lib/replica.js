// class Replica: one database file, replicated. Each method checks its arguments and hands on to the part that does it
// (parts.js). What decides about data is in the core; what runs in the background is in the addon.

import { EventEmitter } from 'node:events'
import { resolve } from 'node:path'
import { addSocket } from './add-socket.js'
import {
  BACKUP,
  CLOSE,
  COMPACT,
  checkPeerId,
  checkTable,
  read,
  SOCKET,
  SQL,
  VERIFY,
  WAIT,
} from './arguments.js'
import { backup as copyTo } from './backup.js'
import { ReplicError, usage } from './base/errors.js'
import * as option from './base/options.js'
import { checkParams, checkSql, toRows } from './base/rows.js'
import { forget, readForget } from './forget.js'
import { keysOf } from './links/secret.js'
import { toMetrics } from './metrics.js'
import { readYourWrite as expressMiddleware } from './middleware/express.js'
import { checkPath, explainOpen } from './open.js'
import { Parts } from './parts.js'
import { statusOf } from './status.js'

const EVENTS = ['change', 'link', 'synced', 'error']
const PRIVATE = Symbol('Replica.open')

export class Replica extends EventEmitter {
  #parts
  #settingSecrets = Promise.resolve() // in the order of the calls

  constructor(key, path, options) {
    if (key !== PRIVATE) throw new TypeError('use await Replica.open(path, options)')
    super()
    this.#parts = new Parts(this, path, options)
  }

  static async open(path, options) {
    checkPath(path)
    const replica = new Replica(PRIVATE, resolve(path), option.openOptions(options))
    try {
      await replica.#parts.open()
    } catch (error) {
      throw explainOpen(error, resolve(path))
    }
    return replica
  }

  /** Brings the schema to the last of `steps`, up or down; waits for a migrate() under way. */
  async migrate(steps, options) {
    this.#parts.checkWriting('migrate')
    return this.#parts.migrations.run(steps, options)
  }

  /** The DDL that the _patches table of `table` must have, by the table as it is now. */
  async patchesTable(table) {
    this.#parts.checkWriting('patchesTable')
    checkTable('patchesTable', table)
    return this.#parts.native.patchesTable(table)
  }

  // These two return the one promise that there is: one more, as an async function has that returns another's, costs as
  // much as the rest of a call of one row.
  upsert(table, rows, more) {
    return this.#parts.writes.upsert(table, rows, more)
  }

  delete(table, key, more) {
    return this.#parts.writes.delete(table, key, more)
  }

  /** All changes of `fn(tx)` in one group: here and on every peer, all or nothing. */
  async batch(fn, more) {
    return this.#parts.writes.batch(fn, more)
  }

  async load(table, rows, options) {
    return this.#parts.writes.load(table, rows, options)
  }

  async get(sql, params, options) {
    return toRows(await this.#parts.queries.query('get', sql, params, options, true))[0]
  }

  async all(sql, params, options) {
    return toRows(await this.#parts.queries.query('all', sql, params, options, false))
  }

  /** get() on the calling thread, which waits for it. */
  getSync(sql, params, options) {
    return toRows(this.#parts.queries.querySync('getSync', sql, params, options, true))[0]
  }

  allSync(sql, params, options) {
    return toRows(this.#parts.queries.querySync('allSync', sql, params, options, false))
  }

  /** A loop over rows. Leaving it ends the query at once, also while it looks for the next row. */
  iterate(sql, params, options) {
    return this.#parts.queries.iterate(sql, params, options)
  }

  async run(sql, params, options) {
    this.#parts.checkWriting('run')
    checkSql('run', sql)
    checkParams('run', params)
    const { unsafe, ...limits } = read('run', options, SQL)
    const { ticket, stopper } = this.#parts.queries.stopper('run', limits)
    const done = this.#parts.writer.schemaCall(this.#parts.native.run(sql, params, unsafe, ticket))
    return stopper ? stopper.outcome(done) : done
  }

  async exec(sql, options) {
    this.#parts.checkWriting('exec')
    checkSql('exec', sql)
    const { unsafe, ...limits } = read('exec', options, SQL)
    const { ticket, stopper } = this.#parts.queries.stopper('exec', limits)
    const done = this.#parts.writer.schemaCall(this.#parts.native.exec(sql, unsafe, ticket))
    return stopper ? stopper.outcome(done) : done
  }

  /** Resolves once everything up to `token` is applied here. */
  async waitFor(token, options) {
    this.#parts.check()
    const lacking = this.#parts.progress.lacks(this.#parts.progress.parse(token))
    const given = typeof options === 'number' ? { timeoutMs: options } : options
    const wait = read('waitFor', given, WAIT)
    if (lacking.length === 0) return
    wait.signal?.throwIfAborted()
    await this.#parts.progress.wait(lacking, wait)
  }

  /** A token of all that is applied here. */
  token() {
    this.#parts.check()
    return this.#parts.progress.all()
  }

  /** One token that covers all that are given. */
  mergeTokens(...tokens) {
    this.#parts.check()
    if (tokens.length === 0) throw usage('mergeTokens: no tokens given; pass at least one')
    return this.#parts.progress.merge(tokens)
  }

  /** Middleware for Express; see types/index.d.ts. */
  readYourWrite(header, options) {
    this.#parts.check()
    return expressMiddleware(this, header, options)
  }

  /** Copies the file to `path`, a slice at a time, as it is now. */
  async backup(path, options) {
    this.#parts.check()
    return copyTo(this.#parts.native, this.#parts.path, path, read('backup', options, BACKUP))
  }

  /** Retention at once, over all that is of age. */
  async compact(options) {
    this.#parts.checkWriting('compact')
    const { maxPatchRetentionMs, signal } = read('compact', options, COMPACT)
    const slice = (...args) =>
      this.#parts.writer.whenRoom(() =>
        this.#parts.writer.call(this.#parts.native.compact(...args)),
      )
    const outcome = await this.#parts.retention.run(slice, maxPatchRetentionMs, signal)
    await this.#parts.statistics.run()
    return { ...outcome, logRows: this.#parts.native.figures().logRows }
  }

  /** What others have said of themselves and of each other, and was kept: see types/index.d.ts. */
  async forget(options) {
    this.#parts.checkWriting('forget')
    const given = readForget(options)
    return forget(given, this.#parts.native, this.#parts.links, this.#parts.progress, (done) =>
      this.#parts.writer.call(done),
    )
  }

  addRemotePeer(peerId, socket, options) {
    this.#parts.check()
    if (peerId !== null) checkPeerId('addRemotePeer', peerId, ', or null for whoever answers')
    return addSocket(this.#parts.links, peerId, socket, read('addRemotePeer', options, SOCKET)).id
  }

  /** Other secrets from now on: see `secret` of open. Links whose secret is not among them end, and are dialed again. */
  async setSecrets(secret) {
    this.#parts.check()
    option.checkSecret('setSecrets', secret)
    const keys = this.#settingSecrets.then(() => keysOf(secret))
    this.#settingSecrets = keys
    const set = await keys
    this.#parts.check()
    this.#parts.links.setKeys(set)
  }

  closeRemotePeer(peerId) {
    this.#parts.check()
    checkPeerId('closeRemotePeer', peerId, '')
    return this.#parts.links.closePeer(peerId)
  }

  /** Are the replicated tables of linked peers the same as here, at equal vectors? */
  async verify(peerId, options) {
    this.#parts.check()
    const all = peerId === undefined || peerId === null
    if (!all) checkPeerId('verify', peerId, ', or nothing for all that are linked')
    const { timeoutMs } = read('verify', options, VERIFY)
    const linked = this.#parts.links.peers()
    if (linked.length === 0) throw notLinked('no peer is')
    if (!all && !linked.includes(peerId)) throw notLinked(`peer ${peerId} is not`)
    const peers = await this.#parts.verifier.verify(all ? linked : [peerId], timeoutMs)
    return { equal: peers.every(({ equal }) => equal), peers }
  }

  status() {
    return statusOf(this.#parts)
  }

  /** status() as OpenMetrics text. */
  metrics() {
    return toMetrics(this.status())
  }

  async explain(table) {
    this.#parts.checkWriting('explain')
    this.#parts.names.check('explain', table, [])
    return this.#parts.native.explain(table)
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
    return this.#parts.closing.run(read('close', options, CLOSE))
  }

  toJSON() {
    return { peerId: this.#parts.peerId, path: this.#parts.path, state: this.#parts.state }
  }

  async [Symbol.asyncDispose]() {
    await this.close()
  }

  #checkEvent(name) {
    if (EVENTS.includes(name)) return
    throw usage(`there is no event '${String(name)}'${option.nearest(String(name), EVENTS)}`)
  }
}

const notLinked = (who) =>
  new ReplicError('REPLIC_NOT_FOUND', `verify: ${who} linked and ready; see status().links`)

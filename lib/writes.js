// What of a replica changes rows: upsert(), delete(), batch() and load(), as calls of the writing queue.

import { checkNoMore, LOAD, read } from './arguments.js'
import { usage } from './base/errors.js'
import { kindOf } from './base/options.js'
import { load as loadRows } from './bulk.js'
import { readAcks } from './progress/acks.js'
import { collector } from './progress/collected.js'

export class Writes {
  #writer
  #names
  #progress
  #host

  /** `host`: { options (of Replica.open()), check(), checkWriting(where) (throw where that is not possible now) }: the Parts. */
  constructor(writer, names, progress, host) {
    this.#writer = writer
    this.#names = names
    this.#progress = progress
    this.#host = host
  }

  // One promise for each of these two: one more, as an async function has that returns another's, costs as much as
  // the rest of a call of one row.
  upsert(table, rows, more) {
    try {
      this.#host.checkWriting('upsert')
      return this.#writer.write(
        this.#names.upsertOp('upsert', table, rows),
        this.#readAcks('upsert', more),
      )
    } catch (error) {
      return Promise.reject(error)
    }
  }

  delete(table, key, more) {
    try {
      this.#host.checkWriting('delete')
      return this.#writer.write(
        this.#names.deleteOp('delete', table, key),
        this.#readAcks('delete', more),
      )
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #readAcks(where, more) {
    return readAcks(where, more, () => collector()?.acks.get(this.#progress))
  }

  /** All changes of `fn(tx)` in one group: here and on every peer, all or nothing. */
  async batch(fn, more) {
    this.#host.checkWriting('batch')
    const acks = this.#readAcks('batch', more)
    if (typeof fn !== 'function') throw usage(`batch: a function is needed, not ${kindOf(fn)}`)
    const ops = []
    let settled = false
    const add = (makeOp) => {
      if (settled) throw usage('batch: tx was used after its function had settled')
      ops.push(...makeOp())
    }
    const tx = {
      upsert: (table, rows, more) => {
        checkNoMore('tx.upsert', more)
        add(() => this.#names.upsertOp('tx.upsert', table, rows))
      },
      delete: (table, key, more) => {
        checkNoMore('tx.delete', more)
        add(() => this.#names.deleteOp('tx.delete', table, key))
      },
    }
    try {
      const result = fn(tx)
      if (typeof result?.then === 'function') await result // else the write keeps its place in order
    } finally {
      settled = true
    }
    this.#host.check()
    return ops.length > 0 ? this.#writer.write(ops, acks) : this.#progress.own()
  }

  async load(table, rows, options) {
    this.#host.checkWriting('load')
    if (typeof rows !== 'object' || !(rows?.[Symbol.asyncIterator] ?? rows?.[Symbol.iterator])) {
      throw usage(`load: rows must be iterable objects, not ${kindOf(rows)}`)
    }
    const { progress, signal } = read('load', options, LOAD)
    const { maxFrameBytes, maxQueueBytes } = this.#host.options
    const store = (group) => {
      const op = this.#names.upsertOp('load', table, group)
      return this.#writer.whenRoom(() => this.#writer.write(op, null))
    }
    const maxBytes = Math.min(maxFrameBytes, maxQueueBytes) / 4
    const settings = { progress, signal, maxBytes }
    const stored = async () => (await loadRows(rows, store, settings)) ?? this.#progress.own()
    const wanted = collector()?.acks.get(this.#progress)
    return wanted ? this.#writer.acknowledgedLoad(stored, wanted) : stored()
  }
}

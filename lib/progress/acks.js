// Who else has what this replica has written: for writes that resolve only when so many peers have it on their disks.

import { ReplicError, usage } from '../base/errors.js'
import { integer, isPlain, milliseconds, readOptions } from '../base/options.js'

export const MAX_ACKS = 10_000
const SHOWN = 5 // peers that a message names
const DEFAULTS = Object.freeze({ acks: undefined, timeoutMs: 5_000 })
const CHECKS = { acks: integer(0, MAX_ACKS), timeoutMs: milliseconds() }

/**
 * What a write asks for: { acks, timeoutMs }; null: none; undefined: it does not say. `ofRequest()`: what the request asks
 * for, of which timeoutMs may be given alone. Throws REPLIC_USAGE.
 */
export function readAcks(where, given, ofRequest) {
  if (given === undefined) return undefined
  const name = isPlain(given) && Object.keys(given).find((name) => !Object.hasOwn(DEFAULTS, name))
  if (name) throw usage(misplaced(where, name))
  const { acks, timeoutMs } = readOptions(where, given, DEFAULTS, CHECKS)
  if (acks === undefined) {
    if (given.timeoutMs === undefined) return undefined
    const asked = ofRequest?.()
    if (asked) return { ...asked, timeoutMs }
    throw usage(`${where}: timeoutMs is how long to wait for acks, and none are asked for`)
  }
  return acks > 0 ? { acks, timeoutMs } : null
}

// A second row behind the first one would be lost, and a signal would stop nothing.
const misplaced = (where, name) =>
  `${where}: '${name}' behind the last argument: several rows are one array of them, and of a write no more can be ` +
  'asked than { acks, timeoutMs }: no signal'

export class Acks {
  #tell
  #linked
  #maxWaits
  #had = new Map() // peerId -> the sequence of this replica's that it has on its disk, since anybody waits
  #waiters = new Set()
  #isDue = false
  #failed

  /**
   * `tell(on)`: from now on heard() is called, or no more; `linked()`: the peers that are linked and may write;
   * `maxWaits`: how many writes may wait.
   */
  constructor(tell, linked, maxWaits) {
    this.#tell = tell
    this.#linked = linked
    this.#maxWaits = maxWaits
  }

  /** How many writes wait. */
  get waiting() {
    return this.#waiters.size
  }

  /**
   * To be called before the write. Returns a waiter for done(). `acks`: how many peers, at least 1; `timeoutMs` counts
   * from now. Throws REPLIC_BUSY.
   */
  begin({ acks, timeoutMs }) {
    if (this.#waiters.size >= this.#maxWaits) throw tooMany(this.#maxWaits)
    const waiter = { acks, timeoutMs, sequence: Infinity, settle: undefined, timer: undefined }
    waiter.isLate = false
    if (this.#waiters.size === 0) this.#tell(true)
    this.#waiters.add(waiter)
    this.within(waiter, timeoutMs)
    return waiter
  }

  /** It waits for so long at most, from now. */
  within(waiter, timeoutMs) {
    clearTimeout(waiter.timer)
    waiter.timeoutMs = timeoutMs
    waiter.timer = setTimeout(() => this.#expire(waiter), timeoutMs)
  }

  /**
   * It is written here, up to `sequence` of this replica's. Resolves with `token` once enough peers have it. Rejects
   * with REPLIC_TIMEOUT or REPLIC_CLOSED, of which `token` says that it is written.
   */
  done(waiter, sequence, token) {
    return new Promise((resolve, reject) => {
      waiter.sequence = sequence
      waiter.settle = (error) => (error ? reject(Object.assign(error, { token })) : resolve(token))
      if (this.#failed) this.#end(waiter, this.#failed())
      else if (waiter.isLate) this.#expire(waiter)
      else this.#look(waiter)
    })
  }

  /** It could not be written. */
  drop(waiter) {
    this.#end(waiter)
  }

  /** That peer has everything of this replica's up to `sequence`. */
  heard(peerId, sequence) {
    if (sequence <= (this.#had.get(peerId) ?? 0)) return
    this.#had.set(peerId, sequence)
    if (this.#isDue) return
    this.#isDue = true
    queueMicrotask(() => this.#lookAtAll()) // once for all that a batch tells
  }

  /** Nobody hears any more: `failed()` makes the error. */
  fail(failed) {
    this.#failed = failed
    for (const waiter of this.#waiters) if (waiter.settle) this.#end(waiter, failed())
  }

  #who(sequence) {
    return [...this.#had].flatMap(([peerId, had]) => (had >= sequence ? [peerId] : []))
  }

  #look(waiter) {
    if (this.#who(waiter.sequence).length >= waiter.acks) this.#end(waiter)
  }

  #lookAtAll() {
    this.#isDue = false
    const had = [...this.#had.values()].sort((a, b) => b - a)
    for (const waiter of this.#waiters) {
      if (waiter.sequence <= (had[waiter.acks - 1] ?? 0)) this.#end(waiter)
    }
  }

  #expire(waiter) {
    waiter.isLate = true
    if (waiter.settle) this.#end(waiter, this.#late(waiter))
  }

  #end(waiter, error) {
    clearTimeout(waiter.timer)
    this.#waiters.delete(waiter)
    if (this.#waiters.size === 0) {
      this.#had.clear()
      this.#tell(false)
    }
    waiter.settle?.(error)
  }

  #late({ acks, timeoutMs, sequence }) {
    const who = this.#who(sequence)
    const linked = this.#linked().filter((peerId) => !who.includes(peerId))
    return new ReplicError(
      'REPLIC_TIMEOUT',
      `it is written here, and within ${timeoutMs} ms ${who.length} of the ${acks} peers that were to have it have ` +
        `acknowledged it${named(' (', who, ')')}; ${linked.length} more are linked${named(': ', linked, '')}. ` +
        'Nothing is undone: it goes out to whoever links',
    )
  }
}

const named = (before, peers, after) =>
  peers.length === 0
    ? ''
    : `${before}${peers.slice(0, SHOWN).join(', ')}${peers.length > SHOWN ? ', …' : ''}${after}`

const tooMany = (most) =>
  new ReplicError(
    'REPLIC_BUSY',
    `${most} writes wait for acknowledgements already (maxWaits), and this one is not written; see in status().links why ` +
      'none arrive',
  )

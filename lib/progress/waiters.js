// Who waits for which patches. Per origin a binary heap of the sequences waited for, so that a vector that
// advances looks only at those it wakes; a waiter stands in the heap of one thing that it lacks, and moves on
// to the next when that has come. One more heap of all deadlines, and one timer for the nearest: O(log n)
// each, whatever the number waiting. Nothing is polled.

import { ReplicError, usage } from '../base/errors.js'

export class Waiters {
  #applied
  #max
  #heaps = new Map() // origin -> Heap of places
  #deadlines = new Heap()
  #timer
  #armedFor = Infinity // ms, as performance.now()
  #failed

  /** `applied(origin, sequence)`: whether that is applied. `max`: how many may wait at once. */
  constructor(applied, max) {
    this.#applied = applied
    this.#max = max
  }

  get size() {
    return this.#deadlines.size
  }

  /**
   * Resolves when all of `entries`, a list of [origin, sequence], is applied. Rejects after `timeoutMs` with
   * the error that `late()` makes, on `signal` with its reason, and at once with REPLIC_BUSY if too many wait.
   */
  wait(entries, { timeoutMs, signal }, late) {
    return new Promise((resolve, reject) => {
      const waiter = { entries, at: 0, late, place: null, due: null, settle: null }
      if (this.#isDone(waiter)) return resolve()
      if (this.#failed) return reject(this.#failed)
      if (this.size >= this.#max) return reject(tooMany(this.#max))
      const onAbort = () => this.#end(waiter, signal.reason ?? usage('waitFor: aborted'))
      signal?.addEventListener('abort', onAbort)
      waiter.settle = (error) => {
        signal?.removeEventListener('abort', onAbort)
        error === undefined ? resolve() : reject(error)
      }
      waiter.due = { key: performance.now() + timeoutMs, at: -1, waiter }
      this.#deadlines.add(waiter.due)
      this.#queue(waiter)
      this.#arm()
    })
  }

  /** Everything of `origin` up to `sequence` is applied. */
  advance(origin, sequence) {
    const heap = this.#heaps.get(origin)
    while (heap?.size > 0 && heap.least.key <= sequence) {
      const { waiter } = heap.remove(heap.least)
      if (this.#isDone(waiter)) this.#settle(waiter)
      else this.#queue(waiter)
    }
    if (heap?.size === 0) this.#heaps.delete(origin)
  }

  /** Something of `origin` counts as applied that is not: whoever waits for it is looked at once more. */
  again(origin) {
    const heap = this.#heaps.get(origin)
    this.#heaps.delete(origin)
    while (heap?.size > 0) {
      const { waiter } = heap.remove(heap.least)
      if (this.#isDone(waiter)) this.#settle(waiter)
      else this.#queue(waiter)
    }
  }

  /** Rejects all, and whoever would have to wait from now on. */
  fail(error) {
    this.#failed = error
    while (this.size > 0) this.#end(this.#deadlines.least.waiter, error)
  }

  // Passes over what is applied.
  #isDone(waiter) {
    const { entries } = waiter
    while (waiter.at < entries.length && this.#applied(...entries[waiter.at])) waiter.at++
    return waiter.at === entries.length
  }

  #queue(waiter) {
    const [origin, sequence] = waiter.entries[waiter.at]
    waiter.place = { key: sequence, at: -1, waiter }
    if (!this.#heaps.has(origin)) this.#heaps.set(origin, new Heap())
    this.#heaps.get(origin).add(waiter.place)
  }

  // Takes one out that still waits.
  #end(waiter, error) {
    const [origin] = waiter.entries[waiter.at]
    const heap = this.#heaps.get(origin)
    heap.remove(waiter.place)
    if (heap.size === 0) this.#heaps.delete(origin)
    this.#settle(waiter, error)
  }

  #settle(waiter, error) {
    this.#deadlines.remove(waiter.due)
    if (this.size === 0) this.#disarm()
    waiter.settle(error)
  }

  // A timer that is early finds nothing due and is set anew: cheaper than one for each change of the nearest.
  #arm() {
    const { key } = this.#deadlines.least
    if (key >= this.#armedFor) return
    this.#disarm()
    this.#armedFor = key
    this.#timer = setTimeout(() => this.#expire(), Math.ceil(Math.max(0, key - performance.now())))
  }

  #disarm() {
    clearTimeout(this.#timer)
    this.#armedFor = Infinity
  }

  #expire() {
    this.#armedFor = Infinity
    const now = performance.now()
    while (this.size > 0 && this.#deadlines.least.key <= now) {
      const { waiter } = this.#deadlines.least
      this.#end(waiter, waiter.late())
    }
    if (this.size > 0) this.#arm()
  }
}

const tooMany = (max) =>
  new ReplicError(
    'REPLIC_BUSY',
    `waitFor: ${max} calls wait already (maxWaits); see in status().links why nothing arrives`,
  )

// A binary heap of { key, at }: the least key first; `at` is the place in the heap.
class Heap {
  #items = []

  get size() {
    return this.#items.length
  }

  get least() {
    return this.#items[0]
  }

  add(item) {
    this.#items.push(item)
    this.#up(item, this.#items.length - 1)
  }

  remove(item) {
    const last = this.#items.pop()
    if (last !== item) {
      this.#up(last, item.at)
      this.#down(last, last.at)
    }
    return item
  }

  #up(item, at) {
    while (at > 0) {
      const parent = this.#items[(at - 1) >> 1]
      if (parent.key <= item.key) break
      this.#place(parent, at)
      at = (at - 1) >> 1
    }
    this.#place(item, at)
  }

  #down(item, at) {
    const items = this.#items
    for (;;) {
      let child = 2 * at + 1
      if (child >= items.length) break
      if (items[child + 1]?.key < items[child].key) child++
      if (items[child].key >= item.key) break
      this.#place(items[child], at)
      at = child
    }
    this.#place(item, at)
  }

  #place(item, at) {
    this.#items[at] = item
    item.at = at
  }
}

// Who waits for which patch: per origin a binary heap of the sequences waited for, so that a
// vector that advances looks only at those it wakes: O(log n) each, whatever the number waiting.

import { ReplicError, usage } from './errors.js'
import { kindOf, MAX_PEER_ID } from './options.js'

const TOKEN = /^([1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,15})$/

/** Parses '<peerId>.<sequence>'. Throws REPLIC_TOKEN for anything else. */
export function parseToken(token) {
  const match = typeof token === 'string' ? TOKEN.exec(token) : null
  const origin = match ? Number(match[1]) : 0
  const sequence = match ? Number(match[2]) : 0
  if (match && origin <= MAX_PEER_ID && Number.isSafeInteger(sequence)) return { origin, sequence }
  const given = typeof token === 'string' ? `'${token.slice(0, 40)}'` : kindOf(token)
  throw new ReplicError(
    'REPLIC_TOKEN',
    `a token is '<peerId>.<sequence>', as upsert() returns it, not ${given}`,
  )
}

export class Waiters {
  #heaps = new Map() // origin -> Heap

  /**
   * Resolves when advance(origin, sequence or more) is called.
   * Rejects after `timeoutMs` with the error that `late()` makes, and on `signal` with its reason.
   */
  wait(origin, sequence, { timeoutMs, signal }, late) {
    return new Promise((resolve, reject) => {
      const waiter = { sequence, at: -1, settle: null }
      const timer = setTimeout(() => this.#drop(origin, waiter, late()), timeoutMs)
      const onAbort = () => this.#drop(origin, waiter, signal.reason)
      signal?.addEventListener('abort', onAbort)
      waiter.settle = (error) => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
        error === undefined ? resolve() : reject(error)
      }
      if (!this.#heaps.has(origin)) this.#heaps.set(origin, new Heap())
      this.#heaps.get(origin).add(waiter)
    })
  }

  /** Everything of `origin` up to `sequence` is applied. */
  advance(origin, sequence) {
    const heap = this.#heaps.get(origin)
    if (!heap) return
    while (heap.size > 0 && heap.least.sequence <= sequence) heap.remove(heap.least).settle()
    if (heap.size === 0) this.#heaps.delete(origin)
  }

  /** Rejects all. */
  fail(error) {
    const heaps = [...this.#heaps.values()]
    this.#heaps.clear()
    for (const heap of heaps) while (heap.size > 0) heap.remove(heap.least).settle(error)
  }

  #drop(origin, waiter, error) {
    const heap = this.#heaps.get(origin)
    heap.remove(waiter)
    if (heap.size === 0) this.#heaps.delete(origin)
    waiter.settle(error ?? usage('waitFor: aborted without a reason'))
  }
}

// A binary heap of { sequence, at }: the least sequence first; `at` is the place in the heap.
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
      if (parent.sequence <= item.sequence) break
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
      if (items[child + 1]?.sequence < items[child].sequence) child++
      if (items[child].sequence >= item.sequence) break
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

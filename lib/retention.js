// Retention: prunes the log of patches that came of age and win no cell any more, a slice at a time.
// Which patches those are is for the core to say (src/core/data/compact.c); here is when it is asked.

const SLICE_PATCHES = 1000 // looked at in one transaction
const PAUSE_MS = 10 // between two slices in the background: others shall have at least half the time
const LONGEST_MS = 60_000 // between two looks whether anything has come of age

export class Retention {
  #slice
  #clock
  #failed
  #retentionMs
  #firstMs
  #intervalMs
  #timer
  #stopped = false

  /**
   * `slice(olderThanMs, maxPatches)` looks at one, `clock()` is the replica's clock, `failed(error)`
   * is told of a slice in the background that has failed; `options` are those of Replica.open().
   */
  constructor(slice, clock, failed, { maxPatchRetentionMs, heartbeatMs }) {
    this.#slice = slice
    this.#clock = clock
    this.#failed = failed
    this.#retentionMs = maxPatchRetentionMs
    this.#firstMs = heartbeatMs
    this.#intervalMs = Math.min(LONGEST_MS, Math.max(heartbeatMs, maxPatchRetentionMs / 10))
  }

  /** Prunes in the background from now on, without keeping the process alive. */
  start() {
    if (this.#retentionMs !== Infinity) this.#later(this.#firstMs)
  }

  /** Begins no slice any more. */
  stop() {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  /** All that is of age now; resolves with { examined, removed }. `slice` as in the constructor. */
  async run(slice, retentionMs = this.#retentionMs, signal) {
    const olderThanMs = this.#before(retentionMs) // once: what comes of age meanwhile is for the next
    let examined = 0
    let removed = 0
    for (let done = olderThanMs === -Infinity; !done; ) {
      signal?.throwIfAborted()
      const outcome = await slice(olderThanMs, SLICE_PATCHES)
      examined += outcome.examined
      removed += outcome.removed
      done = outcome.done
    }
    return { examined, removed }
  }

  // With a retention of 0 that is after the newest patch, which may be ahead of the wall clock.
  #before(retentionMs) {
    return this.#clock() + 1 - retentionMs
  }

  // A timer between any two slices: a chain of promises would keep the process alive to its end.
  #later(ms) {
    if (!this.#stopped) this.#timer = setTimeout(() => this.#pass(), ms).unref()
  }

  async #pass() {
    let nextMs = this.#intervalMs
    try {
      const { done } = await this.#slice(this.#before(this.#retentionMs), SLICE_PATCHES)
      if (!done) nextMs = PAUSE_MS
    } catch (error) {
      if (!this.#stopped && error.code !== 'REPLIC_BUSY') this.#failed(error)
    }
    this.#later(nextMs)
  }
}

// After a jump: what its source has said is compared once with another peer (src/core/links/recheck.c). A source could
// leave rows out, and nobody would notice. Where the tables differ, the core fetches them once more.
//
// It waits for another peer as long as there is none, which costs nothing. Where a comparison fails, it is tried
// again with the next peer, after ever longer pauses. A peer that has such a word of its own to compare is no witness: it may
// have its rows from here, or from the same source. It is asked again when some time has passed.

import { UNSURE } from './asking.js'

const TIMEOUT_MS = 60_000 // of one comparison
const PAUSE_HEARTBEATS = 3 // after the first one that has failed or differed
const MOST_DOUBLINGS = 8

export class Recheck {
  #record
  #compare
  #peers
  #pauseMs
  #sources = [] // peers whose jumps were not compared yet
  #failures = 0
  #isJumping = 0 // jumps that have happened, and are not in #sources yet
  #unsure = new Set() // peers that were no witnesses
  #isRunning = false
  #isStopped = false
  #timer
  #again // for those that were unsure

  /**
   * `record(peerId, equal)` tells the core and resolves with the sources that are left, with 0 only these;
   * `compare(peerId, timeoutMs)` resolves with whether the rows of tables that both have are the same; `peers()` are
   * those that are linked and may write.
   */
  constructor({ record, compare, peers }, { heartbeatMs }) {
    this.#record = record
    this.#compare = compare
    this.#peers = peers
    this.#pauseMs = PAUSE_HEARTBEATS * heartbeatMs
  }

  /** The peers whose word has not been compared yet with another one's. */
  get sources() {
    return this.#sources
  }

  /** Whether this peer is no witness for another one. */
  get isUnsure() {
    return this.#isJumping > 0 || this.#sources.length > 0
  }

  /** With what is left of an earlier start. */
  begin(sources) {
    this.#sources = sources
  }

  /** A jump has happened. */
  async jumped() {
    this.#isJumping++
    await this.#told(0, true).catch(() => {})
    this.#isJumping--
    this.synced()
  }

  /** Some peer has all that is here, and the other way round. */
  synced() {
    const may = !this.#isRunning && !this.#isStopped && !this.#timer
    if (may && this.#candidates().length > 0) this.#run()
  }

  stop() {
    this.#isStopped = true
    clearTimeout(this.#timer)
    clearTimeout(this.#again)
  }

  #candidates() {
    return this.#peers().filter(
      (peer) => !this.#unsure.has(peer) && this.#sources.some((source) => source !== peer),
    )
  }

  async #told(peerId, equal) {
    this.#sources = await this.#record(peerId, equal)
  }

  async #run() {
    const candidates = this.#candidates()
    const peer = candidates[this.#failures % candidates.length]
    let equal = false
    let isWitness = true
    this.#isRunning = true
    try {
      equal = await this.#compare(peer, TIMEOUT_MS)
      await this.#told(peer, equal)
    } catch (error) {
      isWitness = error !== UNSURE // else it is busy, gone, or never at rest
    }
    this.#isRunning = false
    if (!isWitness) return this.#passOver(peer)
    this.#failures = equal ? 0 : this.#failures + 1
    if (equal) this.synced()
    else this.#pause()
  }

  #passOver(peer) {
    this.#unsure.add(peer)
    this.#again ??= setTimeout(() => {
      this.#again = undefined
      this.#unsure.clear()
      this.synced()
    }, this.#pauseMs).unref()
    this.synced()
  }

  #pause() {
    if (this.#isStopped) return
    const ms = this.#pauseMs * 2 ** Math.min(this.#failures - 1, MOST_DOUBLINGS)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.synced()
    }, ms).unref()
  }
}

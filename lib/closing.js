// The end of a replica: what was called before is executed, and the frames it leaves are sent, before the links end.

import { ReplicError } from './base/errors.js'
import { closed } from './links/registry.js'

const STOPPING_MS = 200 // what is stopped at the deadline of close() may take until it ends

export class Closing {
  #native
  #links
  #host
  #done // a promise, once it has begun
  #flushing // a promise while close({ flushMs }) waits for acknowledgements
  #endFlush = () => {}
  #coreClosed = false

  /** `host`: { begin(), end(), fail(), gone() (what has become of the file, as an error) }. */
  constructor(native, links, host) {
    this.#native = native
    this.#links = links
    this.#host = host
  }

  /** See Replica.close(). Several calls share one end, and each waits for as long as it allows itself. */
  async run({ timeoutMs, flushMs }) {
    this.#done ??= this.#close(flushMs > 0)
    await this.#flushed(flushMs)
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        this.#links.terminate()
        this.#native.stopAll()
        if (this.#native.stopWaiting()) return // for another program: its calls fail now
        timer = setTimeout(() => {
          if (!this.#coreClosed) reject(closeIsLate(timeoutMs))
        }, STOPPING_MS)
      }, timeoutMs)
    })
    try {
      return await Promise.race([this.#done, late])
    } finally {
      clearTimeout(timer)
    }
  }

  async #close(flush) {
    this.#host.begin(closed())
    let isInTime = true
    if (flush) {
      this.#flushing = this.#flush()
      isInTime = await this.#flushing
      this.#flushing = undefined
    }
    const refusedBy = this.#links.refusing()
    this.#links.stop()
    this.#host.fail(closed)
    let outcome
    try {
      const unacknowledged = byOrigin(await this.#native.close())
      const flushed = isInTime && Object.keys(unacknowledged).length === 0
      outcome = { flushed, unacknowledged, refusedBy }
    } finally {
      this.#coreClosed = true
      await this.#links.close()
      this.#host.end()
    }
    const gone = this.#host.gone()
    if (gone) throw gone
    return outcome
  }

  // Until all peers have acknowledged all (true), or #endFlush() is called (false). Each of several
  // close() calls waits for as long as it allows itself, so the shortest counts.
  async #flush() {
    const enough = new Promise((resolve) => {
      this.#endFlush = () => resolve(false)
    })
    return Promise.race([enough, this.#links.flush().then(() => true)])
  }

  async #flushed(flushMs) {
    const timer = setTimeout(() => this.#endFlush(), flushMs)
    await this.#flushing
    clearTimeout(timer)
  }
}

// Flat: origin, patches, and again.
function byOrigin(flat) {
  const counts = {}
  for (let i = 0; i < flat.length; i += 2) counts[flat[i]] = flat[i + 1]
  return counts
}

const closeIsLate = (timeoutMs) =>
  new ReplicError(
    'REPLIC_TIMEOUT',
    `close: calls were still being executed after ${timeoutMs} ms; it goes on in the background`,
  )

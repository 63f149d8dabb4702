// close({ flushMs }): waits until each peer that is linked, being linked or dialed has acknowledged all that this one has.

export class Flush {
  #of
  #awaited = new Set() // peerIds whose links broke, and who have dialed: they dial again
  #isRunning = false
  #done = () => {}

  /** `of`: { links(), endpoints(), refusing(), total() (of all sequences that are applied here) }. */
  constructor(of) {
    this.#of = of
  }

  /** Resolves when it is so; `committed`: a promise of the figures of the last write, which come with its batch. */
  run(committed) {
    this.#isRunning = true
    return new Promise((resolve) => {
      const begin = () => {
        this.#done = resolve
        const acked = this.#settled()
        for (const endpoint of this.#of.endpoints()) {
          if (!this.#hasAll(endpoint, acked)) endpoint.hurry()
        }
        this.check()
      }
      committed.then(begin, begin) // a commit that failed: its calls tell of it
    })
  }

  /** A link is gone. Who has dialed dials again where the connection broke; who has left in order does not. */
  left({ peerId, isAccepted, upMs, error, had, takesNothing }) {
    if (!this.#isRunning || !isAccepted || upMs === 0 || takesNothing) return
    if (error === undefined) this.#awaited.delete(peerId)
    else if (had < this.#of.total()) this.#awaited.add(peerId)
  }

  /** Something has changed. */
  check() {
    if (!this.#isRunning) return
    const acked = this.#settled()
    for (const peerId of acked) this.#awaited.delete(peerId)
    if (this.#awaited.size > 0) return
    for (const link of this.#of.links()) {
      if (!link.isDialed && !acked.has(link.peerId)) return
    }
    for (const endpoint of this.#of.endpoints()) if (!this.#hasAll(endpoint, acked)) return
    this.#done()
  }

  // Who has acknowledged everything, or will not.
  #settled() {
    const links = [...this.#of.links()].filter((link) => link.hasAcknowledged)
    return new Set([...links.map((link) => link.peerId), ...this.#of.refusing()])
  }

  // What only listens waits for nobody.
  #hasAll({ peerId, takesNothing, had = Infinity }, acked) {
    return takesNothing || had >= this.#of.total() || acked.has(peerId)
  }
}

// Statistics for the planner, table by table. They are no duty: where the disk is full, say, queries go on with what
// there is.

import { debug } from './debug.js'

const OPTIMIZE_MS = 3_600_000 // from one look for tables that need statistics to the next

export class Statistics {
  #path
  #look
  #isOpen
  #timer

  /** `look(after)` makes those of the next table behind `after`, and resolves with its name; null: that was the last. */
  constructor(path, look, isOpen) {
    this.#path = path
    this.#look = look
    this.#isOpen = isOpen
  }

  start() {
    this.#timer = setInterval(() => this.run(), OPTIMIZE_MS).unref()
  }

  stop() {
    clearInterval(this.#timer)
  }

  /** Looks at all tables now. Never rejects. */
  async run() {
    try {
      for (let after = ''; after !== null && this.#isOpen(); ) after = await this.#look(after)
    } catch (error) {
      debug('%s: optimize: %s', this.#path, error)
    }
  }
}

// Events of strangers who were refused, or have left: there may be thousands a second. The first few of a second are
// told one by one, what follows is summed at its end.

const SUM_MS = 1_000
const ONE_BY_ONE = 10

export class Refused {
  #emit
  #told = 0 // in this second
  #more = new Map() // transport and code -> the last of these events, with their count
  #timer

  /** `emit(event)` tells the application. */
  constructor(emit) {
    this.#emit = emit
  }

  tell(event) {
    this.#timer ??= setTimeout(() => this.flush(), SUM_MS).unref()
    if (++this.#told <= ONE_BY_ONE) return this.#emit(event)
    const kind = `${event.transport} ${event.code}`
    const count = event.count + (this.#more.get(kind)?.count ?? 0)
    this.#more.set(kind, { ...event, count })
  }

  /** Tells what has been summed. */
  flush() {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#told = 0
    for (const event of this.#more.values()) this.#emit(event)
    this.#more.clear()
  }
}

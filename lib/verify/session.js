// The answering side of verify(): holds a state of the file for a peer that compares itself with this one.

import { BUCKETS, vectorHash } from './digest.js'
import { isHash, isKey, packed, unpacked } from './messages.js'

const MOST_STEPS = 8 // questions of one session; the longest way to a row takes six
const SESSION_MS = 600_000 // no peer makes this one hold a state for longer
const MOST_ANSWER = 3 * 1024 * 1024 // characters; a message is at most 4 MiB

/** One peer that compares itself with this one. */
export class Session {
  #send
  #onEnd
  #isUnsure // whether this peer's own rows rest on one peer's word
  #idle
  #limit
  #snapshot
  #heldAt
  #busy = false
  #ended = false
  #last // { n, message }: an answer may be lost, and is asked for again

  constructor(peerId, id, { vector, sum }, { send, idleMs, isUnsure, onEnd }) {
    this.peerId = peerId
    this.id = id
    this.vector = vector // its hash
    this.sum = sum // how much it has
    this.waits = false // for this peer's vector to become the other's
    this.#send = send
    this.#onEnd = onEnd
    this.#isUnsure = isUnsure
    this.#idle = setTimeout(() => this.end(), idleMs).unref()
    this.#limit = setTimeout(() => this.end(), SESSION_MS).unref()
  }

  wait() {
    if (!this.waits) this.#sayWaits()
    this.waits = true
  }

  #sayWaits() {
    this.#send({ re: 1, id: this.id, n: 0, waits: true })
  }

  refuse() {
    this.#send({ re: 1, id: this.id, n: 0, equal: false })
    this.end()
  }

  get holds() {
    return this.#heldAt !== undefined
  }

  /** For how long it has held a state, in ms. */
  get heldMs() {
    return this.holds ? performance.now() - this.#heldAt : 0
  }

  async hold(openSnapshot) {
    this.waits = false
    this.#heldAt = performance.now()
    const snapshot = await openSnapshot().catch(() => null) // asked again, it may succeed
    const met = snapshot && vectorHash(snapshot.vector) === this.vector
    if (!met || this.#ended) await snapshot?.close()
    if (this.#ended || !snapshot) {
      this.#send({ re: 1, id: this.id, n: 0, equal: false, busy: true })
      return this.end()
    }
    if (!met) return this.refuse()
    this.#snapshot = snapshot
    this.#answer(0, this.#isUnsure() ? { equal: true, unsure: true } : { equal: true })
  }

  #answer(n, content) {
    this.#last = { n, message: { re: 1, id: this.id, n, ...content } }
    this.again(n)
  }

  /** Sends the answer n once more, if that is the last one. */
  again(n) {
    this.#idle.refresh()
    if (this.waits) this.#sayWaits()
    else if (this.#last?.n === n) this.#send(this.#last.message)
  }

  async asked(n, ask, question) {
    this.#idle.refresh()
    if (ask === 'end') return this.end()
    if (ask === 'hold' || this.#busy || !this.#last) return
    if (n !== this.#last.n + 1 || n > MOST_STEPS) return this.again(n)
    this.#busy = true
    const answer = await this.#find(ask, question).catch(() => null)
    this.#busy = false
    if (this.#ended) {
      this.#send({ re: 1, id: this.id, n, gone: true })
      return this.#onEnd()
    }
    if (!answer) return this.end() // closing, or something is wrong with the file: the other times out
    const fits = JSON.stringify(answer).length <= MOST_ANSWER
    this.#answer(n, fits ? answer : { large: true })
  }

  async #find(ask, { table: name, bucket, row, key }) {
    const snapshot = this.#snapshot
    if (ask === 'tables') {
      const digests = await snapshot.digests(() => this.#check())
      return { tables: digests.map((each) => [each.name, each.shape, each.rows, each.digest]) }
    }
    const table = typeof name === 'string' ? snapshot.table(name) : undefined
    if (!table) return null
    if (ask === 'columns') return { columns: table.columns.map((c) => [c.name, c.type, c.key]) }
    if (ask === 'buckets') {
      const { buckets } = await snapshot.buckets(table, () => this.#check())
      return { buckets: buckets.toString('base64') }
    }
    if (ask === 'entries' && Number.isInteger(bucket) && bucket >= 0 && bucket < BUCKETS) {
      return { entries: await snapshot.entries(table, bucket) }
    }
    if (ask === 'stuck' && isKey(key, table)) {
      return { why: await snapshot.stuck(table, key.map(unpacked)) }
    }
    if (ask !== 'row' || !isHash(row)) return null
    const found = await snapshot.row(table, row)
    return { row: found && { key: found.key.map(packed), cells: found.cells } }
  }

  #check() {
    if (this.#ended) throw new Error('the session has ended')
  }

  end() {
    if (this.#ended) return
    this.#ended = true
    this.waits = false
    clearTimeout(this.#idle)
    clearTimeout(this.#limit)
    this.#snapshot?.close().catch(() => {})
    if (!this.#busy) this.#onEnd()
  }
}

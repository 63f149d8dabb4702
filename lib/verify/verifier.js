// verify(): are the replicated tables of a linked peer the same as here? Two peers with equal vectors
// must have equal tables, so each side holds a state of its file whose vector is the other's, and
// sends digests of it; where they differ, ever smaller parts are compared, down to one row. The states
// stay held until it is done, so all that is compared belongs to one vector, whatever is written
// meanwhile. docs/protocol.md, "Verify", has the messages. Any of them may be lost.
//
//   asks    holds a state ── compare(vector) ──> holds one with that vector, or says no
//           tables?, columns?, buckets?, entries?, row? ──> <── the answer     answers

import { Asking } from './asking.js'
import { Snapshot, vectorSum } from './digest.js'
import { isCount, isVectorHash, MOST_QUESTION, parse } from './messages.js'
import { Session } from './session.js'

const MOST_SESSIONS = 4 // peers that are answered at a time: each holds a connection and a WAL
const MOST_WAL = 32 * 1024 * 1024 // bytes, until which a state is held: its bound where nobody holds one

/** The verifying of one replica: its own questions, and the answers to other peers'. */
export class Verifier {
  #native
  #links
  #file
  #options
  #asking = new Map() // peerId -> Asking
  #sessions = new Map() // peerId -> Session
  #resting = new Map() // peerId -> when its next comparison may begin
  #turn = Promise.resolve()
  #stopped

  /**
   * Of the file: `vector()` is what is applied, as a Map; `walBytes()` what is in its WAL, `isUnsure()` whether a
   * jump was not compared yet. `options` are those of Replica.open().
   */
  constructor(native, links, file, options) {
    this.#native = native
    this.#links = links
    this.#file = file
    this.#options = options
  }

  /** Compares with the peers one after another; resolves with a report for each. */
  verify(peerIds, timeoutMs) {
    const result = this.#turn.then(async () => {
      const reports = []
      for (const peerId of peerIds) reports.push(await this.#ask(peerId, timeoutMs))
      return reports
    })
    this.#turn = result.catch(() => {})
    return result
  }

  /**
   * Whether the tables that both have with the same columns have the same rows; rows that one cannot store aside.
   * Rejects with UNSURE where the peer has a jump of its own to compare.
   */
  async hasEqualRows(peerId, timeoutMs) {
    const result = this.#turn.then(() => this.#ask(peerId, timeoutMs, true))
    this.#turn = result.catch(() => {})
    return (await result).equal
  }

  async #ask(peerId, timeoutMs, rowsOnly = false) {
    if (this.#stopped) throw this.#stopped
    const send = (message) => this.#send(peerId, message)
    const asking = new Asking(peerId, send, this.#options.heartbeatMs, timeoutMs, rowsOnly)
    this.#asking.set(peerId, asking)
    try {
      return await asking.run(() => Snapshot.open(this.#native))
    } finally {
      asking.end()
      this.#asking.delete(peerId)
    }
  }

  /** What another peer's verify() has sent. Whatever is not understood is ignored. */
  message(peerId, bytes) {
    const asking = this.#asking.get(peerId)
    if (this.#stopped || (bytes.length > MOST_QUESTION && !asking?.takesLarge())) return
    const message = parse(bytes)
    if (!message) return
    if (message.re) asking?.answered(message)
    else if (message.ask === 'compare') this.#begin(peerId, message)
    else this.#continue(peerId, message)
  }

  /** The vector has advanced. */
  advanced() {
    for (const session of this.#sessions.values()) if (session.waits) this.#meet(session)
    if (this.#asking.size + this.#sessions.size > 0 && this.#isCrowded) this.#letGo()
  }

  // Nothing of the WAL can go into the file, beyond the oldest state that somebody holds.
  get #isCrowded() {
    return this.#file.walBytes() > MOST_WAL
  }

  #letGo() {
    for (const asking of this.#asking.values()) asking.letGo()
    for (const session of this.#sessions.values()) if (session.holds) session.end()
  }

  /** Ends all; calls under way reject with `error`. */
  stop(error) {
    this.#stopped = error
    for (const asking of this.#asking.values()) asking.fail(error)
    for (const session of this.#sessions.values()) session.end()
  }

  #send(peerId, message) {
    this.#links.message(peerId, Buffer.from(JSON.stringify(message)))
  }

  // ---- answering ----

  // A peer may ask for ever, but not have this one hold a state, or compute, all the time: one session at
  // a time, and after one a rest as long as that has held one.
  #begin(peerId, { id, vector, sum }) {
    const earlier = this.#sessions.get(peerId)
    if (earlier?.id === id) return earlier.again(0)
    earlier?.end() // at once, unless it computes
    if (!isVectorHash(vector) || !isCount(sum)) return
    const rests = performance.now() < (this.#resting.get(peerId) ?? 0)
    const isFull = this.#sessions.has(peerId) || this.#sessions.size >= MOST_SESSIONS
    if (rests || isFull || this.#isCrowded) {
      return this.#send(peerId, { re: 1, id, n: 0, equal: false, busy: true })
    }
    this.#resting.delete(peerId)
    const session = new Session(
      peerId,
      id,
      { vector, sum },
      {
        send: (message) => this.#send(peerId, message),
        idleMs: this.#options.linkTimeoutMs,
        isUnsure: () => this.#file.isUnsure(),
        onEnd: () => {
          this.#sessions.delete(peerId)
          const { heldMs } = session
          if (heldMs > 0) this.#resting.set(peerId, performance.now() + heldMs)
        },
      },
    )
    this.#sessions.set(peerId, session)
    this.#meet(session)
  }

  // Holds a state if this peer is where the other one is; waits if it may come there.
  #meet(session) {
    const mine = vectorSum(this.#file.vector())
    if (mine < session.sum) session.wait()
    else if (mine > session.sum) session.refuse()
    else session.hold(() => Snapshot.open(this.#native))
  }

  #continue(peerId, { id, n, ask, ...question }) {
    const session = this.#sessions.get(peerId)
    if (session?.id === id) session.asked(n, ask, question)
    else if (ask !== 'end' && ask !== 'hold') this.#send(peerId, { re: 1, id, n, gone: true })
  }
}

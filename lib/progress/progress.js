// How far this replica has come: what of each origin is applied here, who waits for more, and the tokens that
// say it.

import { ReplicError, usage } from '../base/errors.js'
import { kindOf } from '../base/options.js'
import { MAX_ORIGINS, mergeEntries, Tokens } from './token.js'
import { Waiters } from './waiters.js'

const MAX_LISTED = 16 // tokens in one header
const KEPT_CHARS = 128 * 1024 // of texts whose entries are kept
const NOTHING = Object.freeze([])
const MAX_LACKED = 10_000 // origins of which it is kept since when something is waited for
const SHOWN = 5 // things missing that a message names

const byReplica = new WeakMap()

/** Makes a replica's progress known to progressOf(). */
export function exposeProgress(db, progress) {
  byReplica.set(db, progress)
}

/** How far a replica has come, for middleware. */
export function progressOf(db) {
  const progress = byReplica.get(db)
  if (!progress) throw usage(`a Replica is needed, not ${kindOf(db)}`)
  return progress
}

export class Progress {
  #peerId = 0
  #vector = new Map() // origin -> sequence; what advanced last stands last
  #back = new Set() // origins of which what is applied has once become less
  #all // the token of all that; undefined: to be made
  #answer // the token of answers that lack nothing, made of the same; undefined: to be made
  #read = new Map() // text of a request's tokens -> entries
  #readChars = 0 // in those texts
  #lost = new Map() // origin -> after which patch of it nothing exists any more, as somebody has said here
  #lacked = new Map() // origin -> since when something of it is waited for in vain, in ms of performance.now()
  #tokens
  #waiters
  #onOverflow
  #announced
  #heard

  /**
   * `onOverflow(error)` is told once when there are more origins than a token can hold; `announced(origin)` gives a promise
   * of the greatest sequence of it that a linked peer has said to have, -1 where none is linked; `heard()`: { since, since
   * when whoever is linked could have told what it has, isCarrying, whether somebody is in the middle of a long frame }.
   */
  constructor({ tokenSecret, maxWaits }, onOverflow, announced, heard) {
    this.#announced = announced
    this.#heard = heard
    const secrets = [tokenSecret ?? []].flat()
    this.#tokens = new Tokens(secrets)
    this.#waiters = new Waiters((origin, sequence) => this.has(origin, sequence), maxWaits)
    this.#onOverflow = onOverflow
  }

  /** `vector` is flat, as advance() takes it; `lost` too: origin, sequence, and again, as lose() takes them. */
  begin(peerId, vector, lost = []) {
    this.#peerId = peerId
    for (let i = 0; i < lost.length; i += 2) this.lose(lost[i], lost[i + 1])
    const triples = []
    for (let i = 0; i < vector.length; i += 3) triples.push(vector.slice(i, i + 3))
    this.advance(triples.sort((a, b) => a[2] - b[2]).flat(), true)
  }

  get vector() {
    return this.#vector
  }

  /** The sum of all sequences: it grows with each patch that is applied. */
  get total() {
    let sum = 0
    for (const sequence of this.#vector.values()) sum += sequence
    return sum
  }

  /** The last sequence of this peer's own. */
  get ownSequence() {
    return this.#vector.get(this.#peerId) ?? 0
  }

  get waiting() {
    return this.#waiters.size
  }

  /**
   * Flat: origin, sequence, patchedAt, and again. What is known already changes nothing. `isBatch`: a batch tells it, and
   * not a query, which may have seen an earlier state.
   */
  advance(vector, isBatch) {
    for (let i = 0; i < vector.length; i += 3) {
      const [origin, sequence] = [vector[i], vector[i + 1]]
      if (sequence <= this.#vector.get(origin) || (!isBatch && this.#back.has(origin))) continue
      this.#lacked.delete(origin)
      this.#vector.delete(origin)
      this.#vector.set(origin, sequence)
      this.#all = undefined
      this.#answer = undefined
      this.#waiters.advance(origin, sequence)
    }
  }

  /** Whether that is applied here, or forgotten. Nothing of an origin is applied everywhere. */
  has(origin, sequence) {
    return sequence === 0 || this.#vector.get(origin) >= sequence || this.#isLost(origin, sequence)
  }

  /** The same list, of origins of which less is applied than was said: another peer had told so, and was wrong. */
  goBack(vector) {
    for (let i = 0; i < vector.length; i += 3) {
      const [origin, sequence] = [vector[i], vector[i + 1]]
      this.#back.add(origin)
      if (sequence > 0) this.#vector.set(origin, sequence)
      else this.#vector.delete(origin)
    }
    this.#all = undefined
    this.#answer = undefined
  }

  // ---- patches that are lost ----

  /** Nobody has what that origin has written after `after`: nothing waits for it any more. */
  lose(origin, after) {
    this.#lost.set(origin, after)
    this.#waiters.again(origin)
  }

  // Where something later has come, it was not lost.
  #isLost(origin, sequence) {
    const after = this.#lost.get(origin)
    return after < sequence && (this.#vector.get(origin) ?? 0) <= after
  }

  /** What of `entries` was given to lose(): a list of [origin, sequence]. */
  forgotten(entries) {
    if (this.#lost.size === 0) return NOTHING
    return [...entries].filter(([origin, sequence]) => this.#isLost(origin, sequence))
  }

  #mended(entries) {
    const lost = this.forgotten(entries)
    return lost.length > 0 ? this.without(entries, lost) : entries
  }

  // ---- tokens ----

  /** The token of a write of this replica; noted where the request's writes are collected. */
  written(sequence, collector) {
    collector?.written.set(this, Math.max(sequence, collector.written.get(this) ?? 0))
    return this.#tokens.formatOne(this.#peerId, sequence)
  }

  /** The token of what this replica has written. */
  own() {
    return this.#tokens.formatOne(this.#peerId, this.ownSequence)
  }

  /** The token of all that is applied here. Throws REPLIC_TOO_LARGE. */
  all() {
    this.#all ??= this.#tokens.format(this.#entries())
    return this.#all
  }

  merge(tokens) {
    const merged = mergeEntries(tokens.map((token) => this.#tokens.parse(token)))
    return this.#tokens.format(this.#mended(merged))
  }

  /** What a token asks for: a Map origin -> sequence. Throws REPLIC_TOKEN. */
  parse(token) {
    return this.#tokens.parse(token)
  }

  /**
   * The same of a header's list of tokens. Sessions send the same text again and again, and looking it up takes a
   * hundredth of reading it. Only what was accepted is kept, so that whoever guesses signatures finds nothing, and
   * the whole text has to be known to be found.
   */
  seen(text) {
    const known = this.#read.get(text)
    if (known !== undefined) return known
    const entries = this.#parseList(text)
    this.#readChars += text.length
    if (this.#readChars > KEPT_CHARS) {
      this.#read.clear()
      this.#readChars = text.length
    }
    this.#read.set(text, entries)
    return entries
  }

  #parseList(text) {
    const listed = text.split(',', MAX_LISTED + 1)
    if (listed.length > MAX_LISTED) throw tooManyListed()
    const merged = mergeEntries(listed.map((token) => this.#tokens.parse(token.trim())))
    if (merged.size > MAX_ORIGINS) throw tooManyListed()
    return merged
  }

  /**
   * The token for an answer to a request that came with `seen` (null: with none): of all that is applied
   * here, and of what was seen elsewhere. null: there is nothing yet.
   */
  answer(seen) {
    const lacking = seen ? this.lacks(seen) : NOTHING
    if (lacking.length > 0) return this.#tokens.format(this.#fitting(lacking))
    if (this.#vector.size === 0) return seen && this.#tokens.format(seen)
    this.#answer ??= this.#tokens.format(this.#fitting([]))
    return this.#answer
  }

  /** The same, of what was seen elsewhere and what the request has written here: a sequence, or undefined. */
  answerWritten(seen, sequence) {
    if (sequence === undefined) return seen && this.#tokens.format(seen)
    const written = new Map([[this.#peerId, sequence]])
    const merged = seen ? mergeEntries([seen, written]) : written
    if (merged.size <= MAX_ORIGINS) return this.#tokens.format(merged)
    const others = [...merged].filter(([origin]) => origin !== this.#peerId)
    return this.#tokens.format(this.#fitting(others, written))
  }

  #entries() {
    const mine = this.ownSequence
    return new Map([[this.#peerId, mine], ...this.#vector])
  }

  // At most MAX_ORIGINS: this peer, then what is `wanted`, then what else has advanced here last.
  #fitting(wanted, known = this.#entries()) {
    const [mine] = known
    const recent = [...known].slice(1).reverse()
    const rank = new Map([...this.#vector.keys()].map((origin, i) => [origin, i]))
    wanted.sort(([a], [b]) => (rank.get(b) ?? -1) - (rank.get(a) ?? -1))
    const fitting = new Map([mine])
    let left = 0
    for (const [origin, sequence] of [...wanted, ...recent]) {
      if (fitting.has(origin)) continue
      if (fitting.size < MAX_ORIGINS) fitting.set(origin, sequence)
      else left++
    }
    if (left > 0) this.#overflow()
    return fitting
  }

  #overflow() {
    this.#onOverflow?.(
      new ReplicError(
        'REPLIC_TOO_LARGE',
        `more than ${MAX_ORIGINS} origins are known: answers' tokens leave out those of which nothing came for longest`,
      ),
    )
    this.#onOverflow = undefined
  }

  // ---- waiting ----

  /** What of `entries` is not applied here: a list of [origin, sequence]. */
  lacks(entries) {
    let lacking = NOTHING
    for (const entry of entries) {
      if (this.has(entry[0], entry[1])) continue
      if (lacking === NOTHING) lacking = []
      lacking.push(entry)
    }
    return lacking
  }

  /** Resolves once all of that list is applied. Rejects with REPLIC_TIMEOUT, REPLIC_BUSY or the signal's reason. */
  wait(lacking, options) {
    for (const [origin] of lacking) {
      if (this.#lacked.has(origin) || this.#lacked.size >= MAX_LACKED) continue
      this.#lacked.set(origin, performance.now())
    }
    return this.#waiters.wait(lacking, options, () => this.#late(lacking, options.timeoutMs))
  }

  /**
   * What of that list is lost, as far as can be known: nothing of its origin has come for `afterMs` of waiting while
   * somebody was linked, and no peer that is linked has it. One is linked at least, and none is in the middle of a frame
   * that takes longer than a heartbeat: what that brings is not known.
   */
  async lost(lacking, afterMs) {
    const lost = []
    const { since: heardSince, isCarrying } = this.#heard()
    for (const [origin, sequence] of isCarrying ? NOTHING : lacking) {
      const since = Math.max(this.#lacked.get(origin) ?? Infinity, heardSince)
      if (this.has(origin, sequence) || performance.now() - since < afterMs) continue
      const most = await this.#announced(origin)
      if (most >= 0 && most < sequence) lost.push([origin, sequence])
    }
    return lost
  }

  /** The same entries, with no more of the origins of `lost` than is applied here. */
  without(entries, lost) {
    const mended = new Map(entries)
    for (const [origin] of lost) {
      const here = this.#vector.get(origin) ?? 0
      if (here > 0) mended.set(origin, here)
      else mended.delete(origin)
    }
    if (mended.size === 0) mended.set(this.#peerId, this.ownSequence)
    return mended
  }

  fail(error) {
    this.#waiters.fail(error)
  }

  #late(entries, timeoutMs) {
    const lacking = this.lacks(entries)
    const shown = lacking.slice(0, SHOWN)
    const missing = shown.map(([origin, sequence]) => `sequence ${sequence} of peer ${origin}`)
    const states = shown.map(([origin]) => this.#state(origin, shown.length > 1))
    const more = lacking.length > SHOWN ? ` and of ${lacking.length - SHOWN} more peers` : ''
    const text = `waitFor: ${missing.join(', ')}${more} did not arrive within ${timeoutMs} ms; this replica has `
    return new ReplicError('REPLIC_TIMEOUT', text + states.join(', '))
  }

  #state(origin, isOneOfSeveral) {
    const have = this.#vector.get(origin) ?? (origin === this.#peerId ? 0 : undefined)
    const which = isOneOfSeveral ? `that of ${origin}` : 'it'
    if (have !== undefined) return `${which} up to ${have}`
    const what = isOneOfSeveral ? `nothing of ${origin}` : 'nothing of that peer'
    return `${what} (is there a link that leads to it?)`
  }
}

const tooManyListed = () =>
  new ReplicError(
    'REPLIC_TOKEN',
    `at most ${MAX_LISTED} tokens stand in a header, of ${MAX_ORIGINS} origins together`,
  )

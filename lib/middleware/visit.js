// What every middleware does with a request, whatever the server: read its token, wait for what it asks for,
// and make the token for the answer. Request and response themselves are the middleware's own business.

import { usage } from '../base/errors.js'
import { boolean, integer, milliseconds, oneOf, readOptions, retention } from '../base/options.js'
import { MAX_ACKS, readAcks } from '../progress/acks.js'
import { Collected, collect, collector } from '../progress/collected.js'
import { progressOf } from '../progress/progress.js'

const DEFAULTS = Object.freeze({
  header: 'x-replic-token', // null: none
  cookie: null,
  cookieAttributes: 'Path=/; HttpOnly; SameSite=Lax',
  timeoutMs: 500,
  onTimeout: 'refuse', // 503; 'stale': the handler is called all the same
  retryAfterS: 1,
  lostAfterMs: 300_000, // what nobody who is linked has for so long is lost; Infinity: never
  acks: 0, // peers that must have what a request writes
  acksTimeoutMs: 5_000,
  monotonicReads: true, // false: answers cover what the session has written, not what it has read
})

const NOTHING = Object.freeze([])
const NAME = /^[\w!#$%&'*+.^`|~-]+$/ // of a header or a cookie, as HTTP has it
const name = {
  accepts: (value) => value === null || (typeof value === 'string' && NAME.test(value)),
  wants: "a name as HTTP allows it, or null for 'none'",
}
const attributes = {
  accepts: (value) => typeof value === 'string' && /^[ -~]*$/.test(value),
  wants: "attributes of a cookie, as 'Path=/; Secure'",
}
const CHECKS = {
  header: name,
  cookie: name,
  cookieAttributes: attributes,
  timeoutMs: milliseconds(),
  onTimeout: oneOf('refuse', 'stale'),
  retryAfterS: integer(0, 86_400),
  lostAfterMs: retention,
  acks: integer(0, MAX_ACKS),
  acksTimeoutMs: milliseconds(),
  monotonicReads: boolean,
}

/** One middleware of a replica: makes a Visit of each request. Throws REPLIC_USAGE. */
export class Visits {
  /** `where`: the name of the function that got the options; `more`: defaults and checks of its own. */
  constructor(where, db, given, more) {
    const defaults = { ...DEFAULTS, ...more?.defaults }
    this.progress = progressOf(db)
    this.options = readOptions(where, given, defaults, { ...CHECKS, ...more?.checks })
    const { header, cookie, acks, acksTimeoutMs: timeoutMs } = this.options
    this.acks = readAcks(where, { acks, timeoutMs })
    if (header === null && cookie === null) {
      throw usage(`${where}: a token needs a header or a cookie; give at least one of them a name`)
    }
    this.header = header?.toLowerCase() ?? null
    this.cookie = cookie
  }

  /** `header`, `cookies`: the texts of the token's header and of Cookie, where the request has them. */
  begin(header, cookies) {
    return new Visit(this, header, this.cookie && cookies ? cookieIn(cookies, this.cookie) : null)
  }
}

class Visit {
  /** What the application sees of it: request.replic. */
  state = { stale: false, lost: NOTHING }
  /** The answer instead of the handler's, { status, headers, text }; null: the handler's. */
  refusal = null
  #visits
  #text // of the request's tokens
  #seen = null // what the request's tokens ask for; null: nothing, or nothing that is not here
  #collected = null

  constructor(visits, header, cookie) {
    const { progress, options } = visits
    this.#visits = visits
    if (!options.monotonicReads || visits.acks) this.#collected = collector() ?? new Collected()
    if (visits.acks) this.#collected.acks.set(progress, visits.acks)
    this.#text = header && cookie ? `${header},${cookie}` : header || cookie
    if (!this.#text) return
    try {
      this.#seen = progress.seen(this.#text)
    } catch (error) {
      const headers = cookie ? { 'set-cookie': this.#setCookie('', '; Max-Age=0') } : {}
      this.refusal = { status: 400, headers, text: `${error.code}: the token is not valid here\n` }
    }
  }

  /**
   * null: there is nothing to wait for. Else a promise of whether somebody still waits for the answer, which
   * never rejects: `signalOf(of)` gives the signal of the one that goes away.
   */
  enter(signalOf, of) {
    if (this.#seen === null) return null
    this.#lose(this.#visits.progress.forgotten(this.#seen))
    const lacking = this.#visits.progress.lacks(this.#seen)
    return lacking.length === 0 ? null : this.#wait(lacking, signalOf(of))
  }

  async #wait(lacking, signal) {
    const { progress, options } = this.#visits
    try {
      if (signal?.aborted) return false
      await progress.wait(lacking, { timeoutMs: options.timeoutMs, signal })
    } catch (error) {
      if (signal?.aborted) return false
      if (error.code === 'REPLIC_TIMEOUT' && (await this.#isLost(lacking))) return true
      if (options.onTimeout === 'stale' && error.code !== 'REPLIC_CLOSED') this.state.stale = true
      else this.refusal = this.#unavailable(error)
    }
    return true
  }

  // Whether all that is not here is lost. Then the request goes on without it, and the answer's token is mended.
  async #isLost(waited) {
    const { progress, options } = this.#visits
    const lost = await progress.lost(waited, options.lostAfterMs).catch(() => NOTHING) // it closes, say
    if (lost.length === 0 || progress.lacks(waited).length > lost.length) return false
    this.#lose(lost)
    return true
  }

  #lose(lost) {
    if (lost.length === 0) return
    this.#text = null
    this.#seen = this.#visits.progress.without(this.#seen, lost)
    const told = lost.map(([peerId, sequence]) => ({ peerId, sequence }))
    this.state.lost = [...this.state.lost, ...told]
  }

  #unavailable(error) {
    return {
      status: 503,
      headers: { 'retry-after': `${this.#visits.options.retryAfterS}` },
      text: `${error.code}: this server has not received yet what you have seen; try again\n`,
    }
  }

  /** Whether run() has to be around whatever the handler does. */
  get collects() {
    return this.#collected !== null
  }

  /** Calls the handler so that its writes are collected. */
  run(fn) {
    return this.#collected ? collect(this.#collected, fn) : fn()
  }

  /** The token of an answer that begins now; null: none. */
  token() {
    const { progress, options } = this.#visits
    if (options.monotonicReads) return progress.answer(this.#seen)
    const written = this.#collected.written.get(progress)
    const isUnchanged =
      this.#seen && this.#text && written === undefined && !this.#text.includes(',')
    return isUnchanged ? this.#text : progress.answerWritten(this.#seen, written)
  }

  /** That token as a Set-Cookie; null: it goes into no cookie. */
  cookie(token) {
    return this.#visits.cookie && this.#setCookie(token, '')
  }

  #setCookie(token, more) {
    const { cookie, cookieAttributes } = this.#visits.options
    return `${cookie}=${token}${cookieAttributes && `; ${cookieAttributes}`}${more}`
  }
}

// The first one of that name, as browsers send the most specific first.
function cookieIn(cookies, wanted) {
  for (const pair of cookies.split(';')) {
    const equals = pair.indexOf('=')
    if (equals > 0 && pair.slice(0, equals).trim() === wanted) return pair.slice(equals + 1).trim()
  }
  return null
}

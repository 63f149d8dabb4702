// A dialer: keeps one connection to another peer up, for every transport that dials.

import { describe } from '../base/errors.js'

const SOON_MS = 1_000 // the most between two attempts while close() waits for them

/**
 * Keeps one connection up. `connect()` makes a socket that is on its way. After a connection has
 * ended it dials again, after a random part ("full jitter") of a delay that doubles from
 * `retryMinMs` to `retryMaxMs` and starts anew once a link was up for longer than that.
 */
export class Dialer {
  #links
  #connect
  #info
  #options
  #link
  #timer
  #failures = 0
  #stopped = false
  #isHurried = false
  #error
  #peerId
  #tookNothing = false // there, as long as the last link was up
  had = 0 // the peer had everything up to this sum of sequences when a link to it ended last

  constructor(links, connect, info, options) {
    this.#links = links
    this.#connect = connect
    this.#info = info
    this.#options = options
    this.#peerId = info.peerId ?? null
  }

  /** Who is at the other end: as far as is known. */
  get peerId() {
    return this.#link?.peerId ?? this.#peerId
  }

  /** As far as is known, nothing is taken there of what this side writes. */
  get takesNothing() {
    return this.#link?.isReady ? this.#link.takesNothing : this.#tookNothing
  }

  /** Dials for the first time. Throws what the application's own part in it throws, and then that is all. */
  begin() {
    const full = this.#links.roomError(false)
    if (full) return this.#later(full, 0)
    this.#link = this.#links.add(this.#connect(), {
      ...this.#info,
      isDialed: true,
      onDown: (link) => this.#again(link),
    })
  }

  #dial() {
    this.#timer = undefined
    try {
      this.begin()
    } catch (error) {
      this.#links.turnedAway(this.#info, error)
      this.#later(error, 0)
    }
  }

  #again(link) {
    this.#link = undefined
    this.#peerId = link.peerId ?? this.#peerId
    this.had = Math.max(this.had, link.had)
    if (link.upMs > 0) this.#tookNothing = link.takesNothing
    this.#later(link.error, link.upMs)
  }

  #later(error, upMs) {
    this.#error = error
    if (this.#stopped) return
    const { retryMinMs, retryMaxMs, unref } = this.#options
    this.#failures = upMs > retryMaxMs ? 0 : this.#failures + 1
    const most = this.#isHurried ? Math.min(SOON_MS, retryMaxMs) : retryMaxMs
    const delay = Math.random() * Math.min(most, retryMinMs * 2 ** (this.#failures - 1))
    this.#timer = setTimeout(() => this.#dial(), delay)
    if (unref) this.#timer.unref()
  }

  /** close() waits for it: dials at once where it waits, and soon again. */
  hurry() {
    if (this.#stopped) return
    this.#isHurried = true
    this.#failures = 0
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#dial()
  }

  /** Dials no more. */
  stop() {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  /** Dials no more and ends the connection; resolves when it is gone. */
  close() {
    this.stop()
    this.#links.removeEndpoint(this)
    return this.#link?.end() ?? Promise.resolve()
  }

  /** Between two attempts: what status() shows instead of a link. */
  status() {
    if (this.#link) return []
    const { transport, address = null } = this.#info
    const lastError = describe(this.#error)
    return [{ peerId: this.peerId, link: null, transport, address, state: 'waiting', lastError }]
  }
}

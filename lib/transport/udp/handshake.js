// The handshake:
//
//   dialer                                      accepter
//   INIT (padded)            ──────────────>                       keeps nothing
//                            <──────────────    COOKIE             HMAC(key, dialer's address, id, time)
//   CONNECT cookie, nonce,   ──────────────>                       the address is real: keeps a session,
//     proof                                                        pending
//                            <──────────────    ACCEPT nonce, tag  proves the accepter
//   DATA …, tag              ──────────────>                       proves that the dialer is there now:
//                                                                  the link begins
//
// The cookie is fresh and in what the dialer's proof covers, so a proof cannot be used later; keys come
// from both nonces. Nothing that depends on the secret is sent to whom has not shown to know it.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { ReplicError } from '../../base/errors.js'
import * as datagram from './datagram.js'
import { ACCEPT, COOKIE, COOKIE_BYTES, NONCE_BYTES, REFUSE } from './datagram.js'

const SLOT_MS = 10_000 // a cookie is good for one to two of them
const FIRST_WAIT_MS = 200
const MAX_WAIT_MS = 2_000
const COOKIE_USES = 4 // CONNECTs without an answer: then a new cookie is asked for

/** Cookies: they need no memory. */
export class Cookies {
  #key = randomBytes(32)

  make(id, sender, age = 0) {
    const slot = Math.floor(performance.now() / SLOT_MS) - age
    const hmac = createHmac('sha256', this.#key).update(id)
    return hmac
      .update(`${slot} ${sender.port} ${sender.address}`)
      .digest()
      .subarray(0, COOKIE_BYTES)
  }

  isValid(cookie, id, sender) {
    return [0, 1].some((age) => timingSafeEqual(this.make(id, sender, age), cookie))
  }
}

export const NEEDS_SECRET = 1
export const OTHER_SECRET = 2
export const HAS_NO_SECRET = 3
export const NO_ROOM = 4
const REASONS = {
  [NEEDS_SECRET]: [
    'REPLIC_AUTH',
    'the other side wants to see that this one knows its secret, and none is set here: give both the same `secret`',
  ],
  [OTHER_SECRET]: [
    'REPLIC_AUTH',
    'the other side has another secret: set the same one on both sides',
  ],
  [HAS_NO_SECRET]: [
    'REPLIC_AUTH',
    'the other side has not been given a secret: set the same one on both sides',
  ],
  [NO_ROOM]: ['REPLIC_BUSY', 'the other side reports: its limits permit no more links'],
}
// The same, as the side that refuses tells it.
const OBJECTIONS = {
  [NEEDS_SECRET]: [
    'REPLIC_AUTH',
    'the side that dials has not been given a secret: set it there too',
  ],
  [OTHER_SECRET]: REASONS[OTHER_SECRET],
  [HAS_NO_SECRET]: [
    'REPLIC_AUTH',
    'the side that dials has a secret and this one has none: set it here too',
  ],
  [NO_ROOM]: ['REPLIC_BUSY', 'maxLinks permits no more links'],
}
export const objection = (reason) => new ReplicError(...OBJECTIONS[reason])

export const refusal = (reason) =>
  new ReplicError(
    ...(REASONS[reason] ?? ['REPLIC_PROTOCOL', `the other side refuses: reason ${reason}`]),
  )

/** The dialer's side: asks, again and again, until it is answered or stopped. */
export class Initiator {
  #session
  #secret
  #self
  #transmit
  #counters
  #maxInits
  #cookie
  #asked = 0
  #timer

  /** `peerId`: this side's. `maxInits`: how many INITs it sends before a cookie comes. */
  constructor(session, { secret, peerId, transmit, counters, maxInits = Infinity }) {
    this.#session = session
    this.#secret = secret
    this.#self = { id: session.id, peerId, nonce: randomBytes(NONCE_BYTES) }
    this.#transmit = transmit
    this.#counters = counters
    this.#maxInits = maxInits
  }

  start() {
    if (!this.#cookie && this.#asked === this.#maxInits) {
      return this.#session.fail(new ReplicError('REPLIC_TIMEOUT', 'nobody answers'))
    }
    if (this.#cookie && this.#asked === COOKIE_USES) {
      this.#cookie = undefined
      this.#asked = 0
    }
    const { remote } = this.#session
    const question = this.#cookie
      ? datagram.connect({ ...this.#self, cookie: this.#cookie }, this.#secret)
      : datagram.init(this.#self.id)
    this.#transmit([question], remote)
    const wait = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#asked++)
    this.#timer = setTimeout(() => this.start(), wait).unref()
  }

  stop() {
    clearTimeout(this.#timer)
  }

  take(type, bytes) {
    if (type === COOKIE) this.#takeCookie(bytes)
    else if (type === ACCEPT) this.#takeAccept(bytes)
    else if (type === REFUSE) this.#takeRefuse(bytes)
    else this.#counters.unknown++ // of the session, before its ACCEPT: it will come again
  }

  #takeCookie(bytes) {
    const cookie = datagram.readCookie(bytes)
    if (!cookie) this.#counters.malformed++
    if (!cookie || this.#cookie) return
    this.#cookie = cookie
    this.#asked = 0
    this.stop()
    this.start()
  }

  #takeAccept(bytes) {
    const theirs = datagram.readAccept(bytes, this.#secret !== undefined)
    if (!theirs) return void this.#counters.malformed++
    const seal = datagram.sealOf(this.#secret, this.#self, theirs, true)
    if (!seal.open(bytes)) return void this.#counters.forged++
    this.stop()
    this.#session.open({ remoteId: theirs.id, peerId: theirs.peerId, seal })
  }

  #takeRefuse(bytes) {
    const reason = datagram.readRefuse(bytes)
    if (reason === undefined) return void this.#counters.malformed++
    this.stop()
    this.#session.fail(refusal(reason))
  }
}

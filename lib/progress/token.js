// Tokens: what a session has seen, as text for a header or a cookie.
//
//   12.345~7a.9x~1z141z3.k-q83vASNFZ4mrze8BI0VniQ
//   └─┬──┘ └──┬─┘          └──────── signature ───┘   only with a tokenSecret
//    first  the others
//
// Each entry is an origin and the sequence up to which its patches were seen. The first is that of the peer
// that answered last, in decimal, so that a token of one entry is what a write returns, and the map of a
// reverse proxy can read it. The others follow in order of origin, in base 36, which is shorter. There is
// one way to write a token: whatever is not exactly that is malformed.

import { createHmac, createSecretKey, timingSafeEqual } from 'node:crypto'
import { ReplicError } from '../base/errors.js'
import { kindOf, MAX_PEER_ID } from '../base/options.js'

/** The most origins in a token. */
export const MAX_ORIGINS = 100
/** So no token is longer: 27 for the first entry, 20 for each other, 23 for the signature. */
export const MAX_TOKEN_CHARS = 27 + (MAX_ORIGINS - 1) * 20 + 23

const FIRST = /^([1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,15})$/
const OTHER = /^([1-9a-z][0-9a-z]{0,6})\.([1-9a-z][0-9a-z]{0,10})$/
const MAC_BYTES = 16
const PURPOSE = 'replic-sqlite token\n' // a secret that signs something else as well signs no token with it

/** Writes, reads and merges tokens. */
export class Tokens {
  #keys

  /** `secrets`: the first signs, each is accepted; none: tokens are not signed. */
  constructor(secrets) {
    this.#keys = secrets.map((secret) => createSecretKey(Buffer.from(secret)))
  }

  /**
   * The token of a Map origin -> sequence, whose first entry is the token's, too. Other entries of
   * sequence 0 say nothing and are left out. Throws REPLIC_TOO_LARGE beyond MAX_ORIGINS.
   */
  format(entries) {
    const [[origin, sequence], ...others] = entries
    const said = others.filter(([, seen]) => seen > 0).sort(([a], [b]) => a - b)
    if (said.length >= MAX_ORIGINS) throw tooMany(said.length + 1)
    let body = `${origin}.${sequence}`
    for (const [other, seen] of said) body += `~${other.toString(36)}.${seen.toString(36)}`
    return this.#signed(body)
  }

  /** The same of one entry. */
  formatOne(origin, sequence) {
    return this.#signed(`${origin}.${sequence}`)
  }

  #signed(body) {
    if (this.#keys.length === 0) return body
    return `${body}-${mac(this.#keys[0], body).toString('base64url')}`
  }

  /** A Map origin -> sequence. Throws REPLIC_TOKEN for what is malformed, not signed, or altered. */
  parse(token) {
    if (typeof token !== 'string') throw malformed(kindOf(token))
    if (token.length > MAX_TOKEN_CHARS) throw malformed(`one of ${token.length} characters`)
    const end = token.indexOf('-')
    const body = end < 0 ? token : token.slice(0, end)
    const entries = read(body)
    if (!entries) throw malformed(`'${token.slice(0, 40)}'`)
    this.#check(body, end < 0 ? null : token.slice(end + 1))
    return entries
  }

  #check(body, signature) {
    if (this.#keys.length === 0) {
      if (signature === null) return
      throw refused('it is signed, and no tokenSecret is set here')
    }
    if (signature === null) throw refused('it is not signed, and a tokenSecret is set here')
    const given = Buffer.from(signature, 'base64url')
    const isWhole = given.length === MAC_BYTES && given.toString('base64url') === signature
    const signs = (key) => timingSafeEqual(mac(key, body), given)
    if (!isWhole || !this.#keys.some(signs)) {
      throw refused('its signature is not of a tokenSecret that is set here')
    }
  }
}

/** The greatest sequence of each origin in any of the Maps; the first entry is that of the last Map. */
export function mergeEntries(maps) {
  const last = maps.at(-1)
  const [[origin, sequence]] = last
  const merged = new Map([[origin, sequence]])
  for (const map of maps) {
    for (const [other, seen] of map) if (seen >= (merged.get(other) ?? 0)) merged.set(other, seen)
  }
  return merged
}

function read(body) {
  const [first, ...others] = body.split('~', MAX_ORIGINS + 1)
  if (others.length >= MAX_ORIGINS) return null
  const entries = new Map()
  let before = 0
  const add = (match, base) => {
    const [origin, sequence] = match ? [parseInt(match[1], base), parseInt(match[2], base)] : []
    const fits = match && origin <= MAX_PEER_ID && Number.isSafeInteger(sequence)
    if (!fits || entries.has(origin)) return false
    entries.set(origin, sequence)
    return true
  }
  if (!add(FIRST.exec(first), 10)) return null
  for (const other of others) {
    const match = OTHER.exec(other)
    if (!add(match, 36)) return null
    const origin = parseInt(match[1], 36)
    if (origin <= before) return null
    before = origin
  }
  return entries
}

// By way of a string, as that takes the least time: half of what a request with a signed token costs is this.
function mac(key, body) {
  const digest = createHmac('sha256', key).update(`${PURPOSE}${body}`).digest('latin1')
  return Buffer.from(digest.slice(0, MAC_BYTES), 'latin1')
}

const malformed = (given) =>
  new ReplicError(
    'REPLIC_TOKEN',
    `a token is '<peerId>.<sequence>', as upsert() returns it, or several merged, not ${given}`,
  )
const refused = (why) => new ReplicError('REPLIC_TOKEN', `the token is refused: ${why}`)
const tooMany = (n) =>
  new ReplicError(
    'REPLIC_TOO_LARGE',
    `a token can hold ${MAX_ORIGINS} origins, and this would be one of ${n}; merge fewer, or use tokens of single writes`,
  )

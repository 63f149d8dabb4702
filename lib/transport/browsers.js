// Pages in browsers. Whatever listens where a browser of somebody's can reach it (a loopback address, an office
// network) can be reached by every page that he looks at, wherever that page is from:
//
// - A WebSocket may be opened by a page of another origin, and read; a POST may be sent. Browsers tell its origin in both
//   cases, and in a POST to its own origin. Peers do not: so a request with an Origin is refused unless that is named.
// - A page whose name resolves to 127.0.0.1 by now (DNS rebinding) is of the same origin, and its GET has no Origin.
//   But its Host is that name: names that somebody could have registered are refused unless they are named. Not over
//   TLS, where the certificate tells, and not where there is a secret, which no page knows.

import { isIPv4 } from 'node:net'
import { printable, ReplicError } from '../base/errors.js'

const NAME = /^\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/i
const isList = (value, accepts) => Array.isArray(value) && value.every(accepts)

/** Options of everything that serves over HTTP. */
export const BROWSERS_DEFAULTS = Object.freeze({
  origins: Object.freeze([]),
  hosts: Object.freeze([]),
})
export const BROWSERS_CHECKS = {
  origins: {
    accepts: (value) => isList(value, isOrigin),
    wants: "a list of origins, as ['https://app.example.com']",
  },
  hosts: {
    accepts: (value) => isList(value, isName),
    wants: "a list of names without ports, as ['replic.example.com', '.example.org']",
  },
}

export function isOrigin(text) {
  return typeof text === 'string' && URL.canParse(text) && new URL(text).origin === text
}

export function isName(text) {
  return typeof text === 'string' && NAME.test(text)
}

/** Which requests may come from a page. */
export class Browsers {
  #origins
  #hosts
  #hasSecret

  /** `origins`, `hosts`: as options have them. `hasSecret()`: only who knows the secret gets to see anything. */
  constructor({ origins, hosts }, hasSecret) {
    this.#origins = new Set(origins)
    this.#hosts = hosts.map((name) => name.toLowerCase())
    this.#hasSecret = hasSecret
  }

  /** Why a request is refused: a REPLIC_AUTH; undefined if it is not. `header(name)`, of a request that came over TLS or not. */
  refusal({ header, isTls = false }) {
    const origin = header('origin')
    if (origin !== undefined && !this.#origins.has(origin)) {
      return refused(`a page of ${origin} in a browser, which \`origins\` does not name`)
    }
    if (isTls || this.#hasSecret()) return undefined
    const host = header('host') ?? header(':authority')
    if (host === undefined || this.#isKnown(nameOf(host))) return undefined
    return refused(
      `a request for ${host}, which \`hosts\` does not name, so that a page may be behind it`,
    )
  }

  #isKnown(name) {
    if (name.startsWith('[') || isIPv4(name)) return true
    if (!name.includes('.') || name.endsWith('.localhost')) return true // which nobody can have registered
    return this.#hosts.some((host) =>
      host.startsWith('.') ? `.${name}`.endsWith(host) : name === host,
    )
  }
}

const nameOf = (host) =>
  host
    .replace(/:[0-9]*$/, '')
    .replace(/\.$/, '')
    .toLowerCase()

const refused = (what) => new ReplicError('REPLIC_AUTH', printable(`refused: ${what}`))

/** The headers of a request as node:http, Fastify, Bun or fetch know it: (name) => text, or undefined. */
export function headersOf({ headers }) {
  if (typeof headers.get === 'function') return (name) => readHeader(headers, name)
  return (name) => headers[name]
}

// Headers of fetch have no pseudo-headers, and throw where they are asked for one.
const readHeader = (headers, name) =>
  name.startsWith(':') ? undefined : (headers.get(name) ?? undefined)

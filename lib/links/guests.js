// Who has connected and has not shown yet that it is a peer: strangers, most of them. They keep nobody out, as the
// oldest of them gives way to the newest, and what is kept for them is bounded.

import { isIPv4, isIPv6 } from 'node:net'
import { ReplicError } from '../base/errors.js'

const MiB = 1024 * 1024

/** How long one may take to prove the secret; where there is none, to say anything. In ms. */
export const PROOF_MS = 3_000

/** The most bytes that are kept of frames from one that has still to prove the secret. */
export const GUEST_BYTES = 4096

// Where there is no secret, a first frame may be longer, as a HELLO names all origins: for what exceeds GUEST_BYTES
// they share this.
const SHARED_BYTES = 8 * MiB

export class Guests {
  #max
  #bySource = new Map() // network -> Set of { network, leave }, the oldest first
  #size = 0
  #keptBytes = 0

  /** `max`: how many there may be at a time; from one network half as many. */
  constructor(max) {
    this.#max = max
  }

  /**
   * One more, from `address` (an IP address, or any other name of where it is; null if that is unknown). `leave()` is
   * called when it has to give way. Returns how to say that it is known now, or gone.
   */
  admit(address, leave) {
    const guest = { network: networkOf(address), leave }
    const neighbours = this.#bySource.get(guest.network) ?? new Set()
    this.#bySource.set(guest.network, neighbours.add(guest))
    this.#size++
    if (neighbours.size > Math.ceil(this.#max / 2)) this.#dismiss(neighbours)
    else if (this.#size > this.#max) this.#dismiss(this.#mostFromOne())
    return () => this.#remove(guest)
  }

  #mostFromOne() {
    let most = new Set()
    for (const neighbours of this.#bySource.values()) {
      if (neighbours.size > most.size) most = neighbours
    }
    return most
  }

  #dismiss(neighbours) {
    const [oldest] = neighbours
    this.#remove(oldest)
    oldest.leave()
  }

  #remove(guest) {
    const neighbours = this.#bySource.get(guest.network)
    if (!neighbours?.delete(guest)) return
    this.#size--
    if (neighbours.size === 0) this.#bySource.delete(guest.network)
  }

  /** Whether one may keep `bytes` where it kept `before`, of what all share; if not, it is as before. */
  keep(before, bytes) {
    const all = this.#keptBytes - before + bytes
    if (bytes > before && all > SHARED_BYTES) return false
    this.#keptBytes = all
    return true
  }
}

/** Whom an address belongs to: of IPv6 the first 64 bits, as everybody has at least that many of his own. */
export function networkOf(address) {
  const text = (address ?? '').split('%')[0]
  if (!isIPv6(text)) return text
  const mapped = text.slice(text.lastIndexOf(':') + 1)
  if (isIPv4(mapped)) return mapped
  const [head, tail] = text.split('::').map((half) => half.split(':').filter(Boolean))
  const zeros = tail ? Array(8 - head.length - tail.length).fill('0') : []
  const groups = [...head, ...zeros, ...(tail ?? [])].slice(0, 4)
  return groups.map((group) => Number.parseInt(group, 16).toString(16)).join(':')
}

/** Why one of them had to leave. */
export const gaveWay = (most) =>
  new ReplicError(
    'REPLIC_BUSY',
    `a newer connection took its place, as it had not shown who it is: maxPendingLinks (${most}), half as many from one address`,
  )

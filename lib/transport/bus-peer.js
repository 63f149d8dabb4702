// What a bus remembers of a remote peer: its instances, which numbers of theirs have come, and when it may be linked to.

import { ReplayWindow } from '../base/replay.js'
import * as format from './bus-message.js'

const MAX_INSTANCES = 16 // whose messages of each may come
const MAX_FORMER = 4096 // whose messages of each may not come any more

/** What is known of a remote peer. */
export class Peer {
  #windows = new Map() // instance, in hex -> ReplayWindow; the current one is the last
  #former = new Set() // instances that had a window
  #current // Buffer
  #keys = new Map() // secret -> what the current instance seals with
  #failures = 0
  #quietUntil = 0
  socket
  isLeft = false // closed by the application: not linked to again while it is the same instance

  constructor(peerId) {
    this.peerId = peerId
  }

  get instance() {
    return this.#current
  }

  /** The key with which it seals under a secret; made once. undefined where the sender is another instance. */
  keyOf(sender, secret) {
    if (!this.isCurrent(sender.instance)) return undefined
    const key = this.#keys.get(secret) ?? format.senderKey(secret, sender)
    this.#keys.set(secret, key)
    return key
  }

  isCurrent(instance) {
    return this.#current?.equals(instance) ?? false
  }

  /** Whether a message is no recording: each number of an instance passes once. */
  pass(instance, number) {
    const key = instance.toString('hex')
    if (this.#former.has(key)) return false
    const window = this.#windows.get(key) ?? new ReplayWindow(format.WINDOW, number)
    this.#windows.set(key, window)
    if (this.#windows.size > MAX_INSTANCES) {
      const current = this.#current?.toString('hex')
      this.#forget([...this.#windows.keys()].find((each) => each !== current && each !== key))
    }
    return window.take(number)
  }

  // Without its window all recordings of it would be new.
  #forget(instance) {
    this.#windows.delete(instance)
    this.#former.add(instance)
    if (this.#former.size > MAX_FORMER) this.#former.delete(this.#former.values().next().value)
  }

  forgetKeys() {
    this.#keys.clear()
  }

  startsAnew(instance) {
    this.#current = Buffer.alloc(instance.length) // of its own: a small copy would keep all that it was cut from
    this.#current.set(instance)
    this.#keys.clear()
    this.#failures = 0
    this.#quietUntil = 0
    this.isLeft = false
  }

  /** Its link has failed: the next one may come after a while that grows, as in a Dialer. */
  failed(upMs, { retryMinMs, retryMaxMs }) {
    this.#failures = upMs > retryMaxMs ? 0 : this.#failures + 1
    const delay = Math.min(retryMaxMs, retryMinMs * 2 ** (this.#failures - 1))
    this.#quietUntil = performance.now() + Math.random() * delay
  }

  isQuiet(instance) {
    return this.isCurrent(instance) && (this.isLeft || performance.now() < this.#quietUntil)
  }
}

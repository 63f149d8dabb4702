// What a bus sends: the frames that its sockets are given in one turn, each published once, and messages of its own.

import { randomBytes } from 'node:crypto'
import * as format from './bus-message.js'

const MAX_LISTED = 256 // receivers named in a message; where there are more, it is for all

export class BusSender {
  #options
  #sockets
  #failed
  #writer
  #batch = new Map() // frame -> Set of the sockets that were given it in this turn
  #publishing = new Set() // promises
  instance = randomBytes(format.INSTANCE_BYTES) // which of a peer's processes, or bus()es, this is
  isUp = true // else nothing is published
  sent = 0
  sentBytes = 0

  /** `sockets`: the Set of those that are linked; `failed(error)` hears why something could not be published. */
  constructor(peerId, secret, options, sockets, failed) {
    this.#options = options
    this.#sockets = sockets
    this.#failed = failed
    this.#writer = new format.Writer({
      peerId,
      instance: this.instance,
      prefix: options.prefix,
      secret,
    })
  }

  /** The subject on which a peer, or 'all', listens. */
  subject(whom) {
    return `${this.#options.prefix}.${whom}`
  }

  setSecret(secret) {
    this.#writer.setSecret(secret)
  }

  /** A socket was given a frame: it goes out with those of the same turn. */
  collect(socket, frame) {
    if (this.#batch.size === 0) queueMicrotask(() => this.flush())
    const sockets = this.#batch.get(frame)
    if (sockets) sockets.add(socket)
    else this.#batch.set(frame, new Set([socket]))
  }

  /** Publishes what has been collected. */
  flush() {
    const batch = this.#batch
    this.#batch = new Map()
    for (const [frame, given] of batch) {
      const sockets = [...given].filter((socket) => this.#sockets.has(socket))
      if (sockets.length === 0) continue
      const to = sockets.length === 1 ? sockets[0].remote : this.#listed(sockets)
      const { maxMessageBytes } = this.#options
      for (const message of this.#writer.frame(to, frame, maxMessageBytes))
        this.#publish(to, message)
    }
  }

  #listed(sockets) {
    const isAll = sockets.length === this.#sockets.size || sockets.length > MAX_LISTED
    return isAll ? [] : sockets.map(({ remote }) => remote.peerId)
  }

  /** Publishes a message without a body. */
  post(kind, to) {
    this.#publish(to, this.#writer.message(kind, to))
  }

  // What cannot be published is lost; the links end when too much is.
  #publish(to, message) {
    if (!this.isUp) return
    this.sent++
    this.sentBytes += message.length
    try {
      const subject = this.subject(Array.isArray(to) ? 'all' : to.peerId)
      const published = this.#options.publish(subject, message)
      if (typeof published?.then !== 'function') return
      const done = () => this.#publishing.delete(settled)
      const settled = published.then(undefined, this.#failed).then(done)
      this.#publishing.add(settled)
    } catch (error) {
      this.#failed(error)
    }
  }

  /** Resolves when all that is being published is. */
  settled() {
    return Promise.allSettled(this.#publishing)
  }
}

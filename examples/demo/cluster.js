// The parent's side of the peers: one child process each, what it was asked, what it told.

import { fork } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const PEER = fileURLToPath(new URL('peer.js', import.meta.url))

/** One peer, through all lives of its process. Emits 'told', and 'failed' with an Error. */
export class Peer extends EventEmitter {
  #child
  #asked = new Map() // id -> { resolve, reject }
  #lastId = 0
  #life = 0
  #given
  #ended
  #expectEnd = false

  state = 'starting' // a word for the display
  peerId
  port = 0
  acked = 0 // the highest sequence it has acknowledged
  vector = {} // as it was last told
  rows = 0
  linksUp = 0

  constructor(index, { dir, peers, rows, seed }) {
    super()
    this.index = index
    this.name = `peer ${index}`
    this.#given = { index, peers, rows, seed, path: join(dir, `peer-${index}.db`) }
  }

  /** Starts the process, the first time or again, on its file and port. */
  async start() {
    this.#expectEnd = false
    this.#child = fork(PEER)
    this.#child.on('message', (message) => this.#onMessage(message))
    this.#child.on('error', (error) => this.#fail(error))
    this.#ended = new Promise((resolve) => {
      this.#child.on('exit', (code, signal) => {
        resolve(signal)
        const error = new Error(`${this.name} ended with ${signal ?? `status ${code}`}`)
        for (const { reject } of this.#asked.values()) reject(error)
        this.#asked.clear()
        if (!this.#expectEnd) this.#fail(error)
      })
    })
    const given = { ...this.#given, port: this.port, life: this.#life++ }
    const { peerId, port, vector } = await this.ask('open', given)
    this.#checkIdentity(peerId, vector[peerId] ?? 0)
    Object.assign(this, { peerId, port, state: 'up' })
  }

  // What it acknowledged before it died it must have issued: the same sequences, as the same peer.
  #checkIdentity(peerId, issued) {
    if (this.peerId !== undefined && peerId !== this.peerId) {
      throw new Error(`${this.name} was ${this.peerId} and came back as ${peerId}`)
    }
    if (issued < this.acked) {
      throw new Error(`${this.name} had acknowledged ${this.acked} and came back with ${issued}`)
    }
  }

  /** Resolves with the answer; rejects if the process ends before. */
  ask(what, args) {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject })
      this.#child.send({ id, ask: what, ...args }, (error) => error && reject(error))
    })
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill() {
    if (!this.#child) return
    this.#expectEnd = true
    this.#child.kill('SIGKILL')
    await this.#ended
    Object.assign(this, { state: 'killed', linksUp: 0 })
  }

  /** Closes the replica and ends the process in order. */
  async close() {
    this.#expectEnd = true
    await this.ask('close')
    await this.#ended
  }

  #onMessage({ id, failed, ...told }) {
    if (failed !== undefined) return this.#fail(new Error(`${this.name}: ${failed}`))
    const { acked = 0, vector, linksUp, rows } = told
    this.acked = Math.max(this.acked, acked)
    if (vector) this.vector = vector
    if (linksUp !== undefined) Object.assign(this, { linksUp, rows })
    this.emit('told')
    this.#asked.get(id)?.resolve(told)
    this.#asked.delete(id)
  }

  #fail(error) {
    this.emit('failed', error)
  }
}

/** The highest sequence of each origin that any of the peers has or has acknowledged. */
export function highest(peers) {
  const vector = {}
  const raise = (origin, sequence) => {
    vector[origin] = Math.max(vector[origin] ?? 0, sequence)
  }
  for (const peer of peers) {
    for (const [origin, sequence] of Object.entries(peer.vector)) raise(origin, sequence)
    if (peer.acked > 0) raise(peer.peerId, peer.acked)
  }
  return vector
}

/** How many patches of `wanted` a peer lacks. */
export function lag(peer, wanted) {
  let missing = 0
  for (const [origin, sequence] of Object.entries(wanted)) {
    missing += Math.max(0, sequence - (peer.vector[origin] ?? 0))
  }
  return missing
}

/** The number of patches in a vector. */
export const size = (vector) => Object.values(vector).reduce((sum, sequence) => sum + sequence, 0)

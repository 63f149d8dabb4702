// The link to one remote peer of a bus, as a socket of frames.

import { EventEmitter } from 'node:events'
import * as format from './bus-message.js'

/** The link to one remote peer, as a socket of frames. */
export class BusSocket extends EventEmitter {
  #bus
  #parts
  #held = null // frames that came while it was paused
  #heldBytes = 0
  #maxHeldBytes
  #ended = false
  readyState = 1
  checkKept = null // (bytes): throws where so many must not be kept of frames that are not whole
  isEndedHere = false

  constructor(bus, peer, { isSealed, maxFrameBytes, maxHeldBytes }) {
    super()
    this.#bus = bus
    this.peer = peer
    this.remote = { peerId: peer.peerId, instance: peer.instance }
    this.isSealed = isSealed // the seals of its messages prove the secret, and who it is
    this.peerId = isSealed ? peer.peerId : null
    this.#parts = new format.Parts(maxFrameBytes)
    this.#maxHeldBytes = maxHeldBytes
  }

  send(frame) {
    if (!this.#ended) this.#bus.collect(this, frame)
  }

  /** The body of a message. */
  take(kind, body) {
    const frame = kind === format.PART ? this.#part(body) : kind === format.FRAME ? body : null
    if (!frame?.length) return
    if (!this.#held) this.emit('message', frame)
    else if (this.#heldBytes + frame.length <= this.#maxHeldBytes) {
      this.#held.push(Buffer.from(frame)) // a copy: what it is a view of is the client's
      this.#heldBytes += frame.length
    }
  }

  // The frame, if that was the last that lacked.
  #part(body) {
    const frame = this.#parts.take(body)
    try {
      this.checkKept?.(this.#parts.keptBytes)
    } catch (error) {
      this.emit('error', error)
      this.end()
    }
    return frame
  }

  // A bus cannot be paused for one of its peers. It sends no more than its window without an
  // acknowledgement, which fits here; what does not is lost, and repaired.
  pause() {
    this.#held ??= []
  }

  resume() {
    const held = this.#held ?? []
    this.#held = null
    this.#heldBytes = 0
    for (const frame of held) this.emit('message', frame)
  }

  /** Ended by this side: the other one is told. */
  close() {
    this.isEndedHere = true
    this.end()
  }

  end() {
    this.#end(true)
  }

  /** Ended by the other side, or by the medium. */
  lost(error) {
    if (error && !this.#ended) this.emit('error', error)
    this.#end(false)
  }

  #end(isOurs) {
    if (this.#ended) return
    this.#bus.remove(this, isOurs)
    this.#ended = true
    queueMicrotask(() => this.emit('close'))
  }
}

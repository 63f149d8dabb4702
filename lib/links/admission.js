// What comes before a link is open: the proof of a secret or an introduction, authorize(), and what is kept until then
// for one who is not known yet. The link (link.js) has the state; here is what the first three of them do.

import { ReplicError } from '../base/errors.js'
import { introduction, isHello, rightsOf, senderOf } from './authorization.js'
import { GUEST_BYTES } from './guests.js'
import { Handshake, isOfHandshake, readError } from './handshake.js'
import { isSealed } from './seal.js'

const MAX_HELLO_BYTES = 4 * 1024 * 1024
const FRAME_COST = 200 // bytes, about, that a frame takes beside its own

export class Admission {
  #links
  #link
  #socket
  #details
  #handshake
  #seal // of all that is sent and received after the handshake
  #isTrusted = false // nothing of what is kept for it is counted any more
  #hello // of whom authorize() is asked about; it waits for the answer
  #keptBytes = 0 // of this and of frames that are not whole, as the guests' account has them

  /** `details` of the other side, for authorize(). */
  constructor(links, link, socket, details) {
    this.#links = links
    this.#link = link
    this.#socket = socket
    this.#details = details
  }

  get isEncrypted() {
    return this.#seal !== undefined || this.#socket.look('isSealed') === true
  }

  get needsProof() {
    return this.#links.keys.length > 0 && !this.#socket.look('isSealed')
  }

  /** A frame as it is sent. */
  wrap(frame) {
    return this.#seal?.seal(frame) ?? frame
  }

  /** The socket is open: says who this side is, as far as it may. */
  begin() {
    const { keys, options, peerId } = this.#links
    if (this.#socket.look('isSealed')) return this.#proven(this.#socket.look('peerId'))
    if (keys.length === 0) return options.authorize ? this.#introduce() : this.#link.enter()
    this.#handshake = new Handshake({
      keys,
      peerId,
      isInitiator: !this.#link.isAccepted,
      wantsSeal: options.encryption,
      send: (bytes) => this.#link.put(bytes),
    })
    this.#handshake.begin()
  }

  // Where both sides ask authorize() first, one has to say who it is; and on a bus one that lacks the other's greeting
  // has to hear of it again.
  #introduce() {
    this.#link.put(introduction(this.#links.peerId))
  }

  /** A heartbeat: what this side has said first may be lost. */
  again(isInCore) {
    if (this.#handshake) this.#handshake.begin()
    else if (!isInCore && !this.#socket.look('isSealed')) this.#introduce()
  }

  /** The frame in a message; undefined where it is of the handshake, or where its seal is broken. */
  unwrap(bytes) {
    const isShaking = this.#handshake && this.#handshake.peerId === undefined
    if (isShaking || isOfHandshake(bytes)) return this.#shake(bytes)
    return this.#handshake ? this.#unsealed(bytes) : bytes
  }

  // Before the core hears of the link. Returns the frame that came with the end of the handshake, if one did.
  #shake(bytes) {
    try {
      this.checkKept(bytes.length)
      const error = readError(bytes)
      if (error) return void this.#link.end(error)
      if (!this.#handshake) throw wantsSecret()
      const wasProven = this.#handshake.peerId !== undefined
      const frame = this.#handshake.take(bytes)
      const { peerId, seal } = this.#handshake
      if (wasProven || peerId === undefined) return undefined
      this.#seal = seal
      this.#proven(peerId)
      return frame
    } catch (error) {
      this.#link.refuse(error)
    }
  }

  // After the handshake.
  #unsealed(bytes) {
    const isSealedOne = isSealed(bytes)
    if (!this.#seal) return isSealedOne ? undefined : bytes // the end of the handshake, come twice
    const frame = isSealedOne ? this.#seal.open(bytes) : undefined
    if (frame === undefined) this.#link.end(tamperedWith())
    return frame?.length ? frame : undefined
  }

  /** A frame before authorize() has said yes. What is not kept is lost, and repaired. */
  early(bytes) {
    try {
      const error = readError(bytes)
      if (error) return this.#link.end(error)
      const peerId = senderOf(bytes)
      if (peerId === undefined) return
      this.#checkPeer(peerId)
      if (isHello(bytes)) this.#hold(bytes)
      this.#authorize(peerId)
    } catch (error) {
      this.#link.refuse(error)
    }
  }

  #checkPeer(peerId) {
    const { expected } = this.#link
    if (expected !== null && peerId !== expected) throw otherPeer(expected, peerId)
  }

  #hold(hello) {
    const bytes = hello.length + FRAME_COST
    if (bytes > MAX_HELLO_BYTES || !this.#account(bytes)) return
    this.#hello = Buffer.from(hello) // a copy: what it is a view of may be large
  }

  /** The HELLO that was kept, if there is one; it is kept no more. */
  takeHello() {
    const hello = this.#hello
    this.#hello = undefined
    return hello
  }

  // The other side has shown who it is, here or to the transport.
  #proven(peerId) {
    const link = this.#link
    try {
      this.#checkPeer(peerId)
    } catch (error) {
      return link.refuse(error)
    }
    link.peerId = link.expected = peerId // as proven, so it must not say another one in its HELLO
    if (!link.becomesKnown()) return
    const { authorize, linkTimeoutMs } = this.#links.options
    if (link.isAccepted) link.wait(linkTimeoutMs)
    if (authorize) this.#authorize(peerId)
    else link.enter()
  }

  async #authorize(peerId) {
    const link = this.#link
    if (!link.asks()) return
    link.expected = peerId // whom it is asked about is the only one that may come
    const { transport, address, isAccepted } = link
    try {
      const info = { ...this.#details, ...this.#socket.details, transport, address, isAccepted }
      const { write } = rightsOf(await this.#links.options.authorize(peerId, info), peerId)
      link.isReader = !write
    } catch (error) {
      return link.refuse(error)
    }
    link.enter()
  }

  /** There are other secrets now. */
  keysChanged() {
    if (this.#socket.look('isSealed')) return
    const key = this.#handshake?.key
    if (key && this.#links.keys.some((each) => each.equals(key))) return
    this.#link.refuse(
      new ReplicError('REPLIC_AUTH', 'the secret of this link is no longer accepted here'),
    )
  }

  /** What was kept for it is not counted any more. */
  trust() {
    this.#isTrusted = true
    this.#account(0)
    this.#socket.trust()
  }

  /** Throws if bytes of frames that are not whole are more than may be kept for one who is not known. */
  checkKept(bytes) {
    if (this.#account(bytes + this.#helloBytes)) return
    const message = `more than ${GUEST_BYTES} bytes of frames before it is known who sends them`
    throw new ReplicError(this.needsProof ? 'REPLIC_TOO_LARGE' : 'REPLIC_BUSY', message)
  }

  get #helloBytes() {
    return this.#hello ? this.#hello.length + FRAME_COST : 0
  }

  #account(bytes) {
    if (this.needsProof && !this.#isTrusted) return bytes <= GUEST_BYTES
    const kept = this.#isTrusted ? 0 : Math.max(0, bytes - GUEST_BYTES)
    if (!this.#links.guests.keep(this.#keptBytes, kept)) return false
    this.#keptBytes = kept
    return true
  }
}

const otherPeer = (expected, peerId) =>
  new ReplicError(
    'REPLIC_PEER',
    `peer ${expected} was expected, and peer ${peerId} answered: correct the address or the peerId`,
  )

const tamperedWith = () =>
  new ReplicError(
    'REPLIC_AUTH',
    'a frame came in that the other side has not sealed: somebody in between changes what is sent',
  )

const wantsSecret = () =>
  new ReplicError(
    'REPLIC_AUTH',
    'the other side wants to see that this one knows its secret, and none is set here: give both the same `secret`',
  )

// What a link runs over: a socket of frames, which may be others' code.
//
// A socket has send(bytes), close(), and 'message', 'close' and 'error' events, by on() or by
// addEventListener(). It may have 'progress' events (a part of a frame has come in: over a slow line a
// whole one may take longer than linkTimeoutMs), readyState (0: not open yet, then an 'open' event follows), cork()
// and uncork() around the frames of one batch, pause() and resume(), terminate(), which closes without
// waiting, and closeFor(error), which tells the other side why. Where its transport itself proves the secret
// and encrypts with it, it has isSealed, and peerId. What it knows of the other side, for authorize(), is in
// details. Where it has checkKept, that is called with the bytes that it keeps of frames that are not whole,
// and throws where they are too many for one who is not known yet.
//
// Whatever a socket throws, rejects or tells is that link's affair, and at most its end. Bytes of a message are read
// until its listener returns; a socket may use them for its next one.

import { usage } from '../base/errors.js'
import { guarded } from '../base/guard.js'
import { kindOf } from '../base/options.js'

export const CONNECTING = 0 // readyState

/** A socket, of which nothing is thrown: `broke(error)` hears of it. */
export class Socket {
  #raw
  #broke

  constructor(raw, broke) {
    this.#raw = raw
    this.#broke = broke
  }

  /** What it knows of the other side, for authorize(). May throw. */
  get details() {
    return this.#raw.details
  }

  /** Calls a method, if it has it; whether that was possible. (Asks for it each time: it may come later.) */
  call(name, ...args) {
    return guarded(() => this.#raw[name]?.(...args), this.#broke)
  }

  /** Whether it has such a method, which was called without throwing. */
  callIf(name, ...args) {
    let has = false
    const call = () => {
      const method = this.#raw[name]
      has = typeof method === 'function'
      return has ? method.call(this.#raw, ...args) : undefined
    }
    return guarded(call, this.#broke) && has
  }

  /** A property; undefined where it cannot be read. */
  look(name) {
    let value
    const read = () => {
      value = this.#raw[name]
    }
    guarded(read, () => {})
    return value
  }

  /** Hears events: { message, progress, error, close }, and open() as soon as it is open; checkKept: see above. */
  hear({ checkKept, opened, ...events }) {
    guarded(() => {
      if ('checkKept' in this.#raw) this.#raw.checkKept = checkKept
      for (const [name, listener] of Object.entries(events)) this.#listen(name, listener)
      if (this.#raw.readyState === CONNECTING) this.#listen('open', opened)
      else opened()
    }, this.#broke)
  }

  #listen(name, listener) {
    listen(this.#raw, name, listener, this.#broke)
  }

  /** The other side is known: what is kept of its frames is checked no more. */
  trust() {
    guarded(() => {
      if ('checkKept' in this.#raw) this.#raw.checkKept = null
    }, this.#broke)
  }
}

/** Checks that `socket` is one, before anything is done with it. */
export function checkSocket(where, socket) {
  let isOne = false
  const look = () => {
    const emits = [socket?.on, socket?.addEventListener].some((each) => typeof each === 'function')
    isOne = emits && typeof socket.send === 'function' && typeof socket.close === 'function'
  }
  guarded(look, () => {}) // one that cannot be looked at is none
  if (isOne) return
  throw usage(
    `${where}: a socket has send(), close() and on() or addEventListener(), not ${kindOf(socket)}`,
  )
}

/**
 * Node's emitters give the data itself, browser-style sockets an event around it. What cannot be read of that, or what
 * the listener throws, `failed(error)` is told: it is not for whoever emits.
 */
export function listen(socket, name, listener, failed) {
  const safely = (call) => (event) => {
    try {
      call(event)
    } catch (error) {
      failed(error)
    }
  }
  if (typeof socket.on === 'function') return socket.on(name, safely(listener))
  if (name === 'message') socket.binaryType = 'arraybuffer' // else a Blob may come
  const take = (event) => listener(event?.data ?? event?.error ?? event)
  socket.addEventListener(name, safely(take))
}

/** A message as bytes; null if it is something else. */
export function asBytes(data) {
  if (data instanceof Uint8Array) return data
  if (data instanceof ArrayBuffer) return new Uint8Array(data)
  if (Array.isArray(data) && data.every((part) => part instanceof Uint8Array)) {
    return Buffer.concat(data) // ws with binaryType 'fragments'
  }
  return null
}

// Writing: the calls of the writing queue, what of them waits for room, for acknowledgements, or for another program's
// lock, and when the addon takes them.

import { AsyncResource } from 'node:async_hooks'
import { ReplicError } from './base/errors.js'
import { MAX_TIMER_MS } from './base/options.js'
import { collector } from './progress/collected.js'

const nextTurn = setImmediate // which tests of an application may replace

export class Writer {
  #native
  #progress
  #names
  #host
  #pending = 0 // calls of the writing queue that have not settled
  #turnComes = false // soon() was called
  #lockTimer // set while another program has the write lock that something waits for
  #toldLockedSince = 0
  #roomWaits = [] // load() and compact() waiting for a pending call to settle
  acks // writes that wait for acknowledgements

  /**
   * `host`: { path, busyTimeoutMs, check() (throws where the replica is not open), isOpen(), locked(error) (another
   * program holds the write lock for longer than busyTimeoutMs) }.
   */
  constructor(native, progress, names, host) {
    this.#native = native
    this.#progress = progress
    this.#names = names
    this.#host = host
  }

  /** How many calls have not settled. */
  get pending() {
    return this.#pending
  }

  // The addon takes what one turn of the event loop has for it together: here, or on another thread where that is more
  // than a little.
  soon() {
    if (this.#turnComes) return
    this.#turnComes = true
    nextTurn(this.#turn)
  }

  // What listeners do then is not the doing of whoever made the first call.
  #turn = AsyncResource.bind(() => {
    this.#turnComes = false
    if (this.#native.turn()) this.soon()
  }, 'replic-sqlite')

  // As call() does, with as few promises as can be, and holding nothing that its end does not need: V8 copies all that
  // is alive when it collects its young objects, and while it does, the event loop waits.
  write(ops, acks) {
    const collected = collector()
    const wanted = acks === undefined ? collected?.acks.get(this.#progress) : acks
    const waiter = wanted && this.acks.begin(wanted)
    const written = waiter ? this.#writeFor(waiter, ops) : this.#native.write(ops)
    this.#pending++
    this.#lockTimer?.ref()
    this.soon()
    const then = collected ? (sequence) => this.#written(sequence, collected) : this.#written
    const done = written.then(then, this.#notWritten)
    return waiter ? this.#acknowledged(waiter, written, done) : done
  }

  // Where the addon takes no call at all, nobody is to wait for its acknowledgements.
  #writeFor(waiter, ops) {
    try {
      return this.#native.write(ops)
    } catch (error) {
      this.acks.drop(waiter)
      throw error
    }
  }

  async #acknowledged(waiter, written, done) {
    try {
      await done
    } catch (error) {
      this.acks.drop(waiter)
      throw error
    }
    return this.acks.done(waiter, await written, await done)
  }

  #written = (sequence, collected) => {
    this.#pending--
    this.wakeRoomWaits()
    return this.#progress.written(sequence, collected)
  }

  #notWritten = (error) => {
    this.#pending--
    if (error.code !== 'REPLIC_BUSY') this.wakeRoomWaits() // it has not taken any room
    throw error
  }

  // load() and compact() do not compete: while others fill the queue, they wait for room. What fills
  // it is calls, which settle, and frames, which end in a batch: both wake them.
  async whenRoom(call) {
    for (;;) {
      this.#host.check()
      try {
        return await call()
      } catch (error) {
        if (error.code !== 'REPLIC_BUSY') throw error
      }
      await new Promise((resolve) => this.#roomWaits.push(resolve))
    }
  }

  wakeRoomWaits() {
    if (this.#roomWaits.length === 0) return
    for (const wake of this.#roomWaits.splice(0)) wake()
  }

  async call(promise) {
    this.#pending++
    this.#lockTimer?.ref()
    try {
      const result = await promise
      this.wakeRoomWaits()
      return result
    } catch (error) {
      if (error.code !== 'REPLIC_BUSY') this.wakeRoomWaits() // it has not taken any room
      throw error
    } finally {
      this.#pending--
    }
  }

  // Once for all groups, after the last of them. Acknowledgements are heard from the first on.
  async acknowledgedLoad(stored, wanted) {
    const waiter = this.acks.begin({ ...wanted, timeoutMs: MAX_TIMER_MS })
    let token
    try {
      token = await stored()
    } catch (error) {
      this.acks.drop(waiter)
      throw error
    }
    this.acks.within(waiter, wanted.timeoutMs)
    return this.acks.done(waiter, this.#progress.ownSequence, token)
  }

  async schemaCall(promise) {
    this.#names.changing++
    try {
      return await this.call(promise)
    } finally {
      this.#names.changing--
    }
  }

  // Another program has the write lock. It is tried again on a timer: no thread waits, and heartbeats go on.
  waitForLock(ms, lockedSince) {
    const isLong = Date.now() - lockedSince >= this.#host.busyTimeoutMs
    if (isLong && lockedSince !== this.#toldLockedSince) {
      this.#toldLockedSince = lockedSince
      this.#host.locked(isLocked(this.#host.path, lockedSince))
    }
    this.#lockTimer = setTimeout(() => {
      this.#lockTimer = undefined
      this.#native.tryLock()
    }, ms)
    if (this.#pending === 0 && this.#host.isOpen()) this.#lockTimer.unref() // frames alone wait
  }
}

const isLocked = (path, since) =>
  new ReplicError(
    'SQLITE_BUSY',
    `another program has held the write lock of ${path} since ${new Date(since).toISOString()}: what peers send waits ` +
      'until its transaction ends, and calls fail (fuser or lsof tell which program has the file open)',
  )

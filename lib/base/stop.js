// Calls that can be stopped: by an AbortSignal, or because their time is over.

/**
 * Why a call is to end before its end, once there is a reason. `stop()` is called then. Without limits it is
 * never stopped.
 */
export class Stopper {
  isStopped = false
  reason
  stopped // a promise that rejects with the reason
  #signal
  #timer
  #end
  #onAbort = () => this.stop(this.#signal.reason)

  /** Throws what an aborted signal gives as its reason. `late()`: the error where `timeoutMs` is over. */
  constructor({ signal, timeoutMs }, late, stop) {
    signal?.throwIfAborted()
    this.#signal = signal
    this.stopped = new Promise((_, reject) => {
      this.#end = (reason) => {
        reject(reason)
        stop()
      }
    })
    this.stopped.catch(() => {}) // of those who wait for it
    signal?.addEventListener('abort', this.#onAbort)
    if (timeoutMs !== undefined) this.#timer = setTimeout(() => this.stop(late()), timeoutMs)
  }

  stop(reason) {
    if (this.isStopped) return
    this.isStopped = true
    this.reason = reason
    this.release()
    this.#end(reason)
  }

  throwIfStopped() {
    if (this.isStopped) throw this.reason
  }

  /** The call has ended: nothing stops it any more. */
  release() {
    clearTimeout(this.#timer)
    this.#signal?.removeEventListener('abort', this.#onAbort)
  }

  /** What `result` resolves with; where it rejects because of the stop, the reason. */
  async outcome(result) {
    try {
      return await result
    } catch (error) {
      this.throwIfStopped()
      throw error
    } finally {
      this.release()
    }
  }
}

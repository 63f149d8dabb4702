// What others' code may do to us: sockets, clients and functions of the application's that throw, reject, or give what
// cannot be read. It is told to whoever asks, and goes no further.

import { explained } from './errors.js'

/**
 * Calls `call`. What it throws, or rejects with later, is given to `failed(error)`, which must not throw. Returns
 * whether it has not thrown.
 */
export function guarded(call, failed) {
  try {
    const result = call()
    if (typeof result?.then === 'function') result.then(undefined, failed)
    return true
  } catch (error) {
    failed(error)
    return false
  }
}

/** What was thrown, if it is an error that can be read; else one that says `otherwise`. */
export function asError(thrown, otherwise) {
  try {
    if (typeof thrown === 'string') return new Error(thrown)
    const error = thrown instanceof Error ? explained(thrown) : undefined
    if (error && typeof error.message === 'string' && error.code !== null) return error
  } catch {
    // it cannot be read
  }
  return new Error(otherwise)
}

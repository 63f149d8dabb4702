// The writes that are made on the way of one request.

import { AsyncLocalStorage } from 'node:async_hooks'

// Who collects the writes made on the way of one request: see Collected.
const collectors = new AsyncLocalStorage()

/** The writes made on the way of one request, and what is asked of each. */
export class Collected {
  written = new Map() // a replica's Progress -> greatest sequence
  acks = new Map() // a replica's Progress -> as readAcks() gives it
}

/** Who collects the writes made here and now, if anybody does. */
export const collector = () => collectors.getStore()

/** Calls `fn()` so that `collected` gets the writes made in it and on what it leaves waiting. */
export const collect = (collected, fn) => collectors.run(collected, fn)

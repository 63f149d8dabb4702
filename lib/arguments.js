// What the methods of a Replica are given: the options of each, and checks of what stands before them.

import { usage } from './base/errors.js'
import * as option from './base/options.js'

const LIMITS = { signal: undefined, timeoutMs: undefined }
const LIMIT_CHECKS = { signal: option.abortSignal, timeoutMs: option.milliseconds(1) }
const READ_CHECKS = { readBigInts: option.boolean, ...LIMIT_CHECKS }
export const READ = { defaults: { readBigInts: false, ...LIMITS }, checks: READ_CHECKS }
export const READ_SYNC = {
  defaults: { readBigInts: false, timeoutMs: undefined },
  checks: READ_CHECKS,
}
export const STEP_READ = { defaults: { readBigInts: false }, checks: READ_CHECKS }
export const SQL = {
  defaults: { unsafe: false, ...LIMITS },
  checks: { unsafe: option.boolean, ...LIMIT_CHECKS },
}
export const LOAD = {
  defaults: { progress: undefined, signal: undefined },
  checks: { progress: option.callback, signal: option.abortSignal },
}
export const BACKUP = {
  defaults: { progress: undefined, signal: undefined },
  checks: { progress: option.callback, signal: option.abortSignal },
}
export const SOCKET = {
  defaults: { onUnknownMessage: undefined },
  checks: { onUnknownMessage: option.callback },
}
export const WAIT = {
  defaults: { timeoutMs: 5_000, signal: undefined },
  checks: { timeoutMs: option.milliseconds(), signal: option.abortSignal },
}
export const VERIFY = {
  defaults: { timeoutMs: 30_000 },
  checks: { timeoutMs: option.milliseconds() },
}
export const COMPACT = {
  defaults: { maxPatchRetentionMs: undefined, signal: undefined },
  checks: { maxPatchRetentionMs: option.retention, signal: option.abortSignal },
}
export const FORGET = {
  defaults: {
    forks: false,
    pending: false,
    staged: false,
    peerId: undefined,
    origin: undefined,
    after: undefined,
  },
  checks: {
    forks: option.boolean,
    pending: option.boolean,
    staged: option.boolean,
    peerId: option.peerId,
    origin: option.peerId,
    after: option.integer(0, Number.MAX_SAFE_INTEGER),
  },
}
export const CLOSE = {
  defaults: { timeoutMs: 5_000, flushMs: 0 },
  checks: { timeoutMs: option.milliseconds(), flushMs: option.milliseconds() },
}

/** The options that a method was given, with what it takes for those that are missing. Throws REPLIC_USAGE. */
export const read = (where, given, { defaults, checks }) =>
  option.readOptions(where, given, defaults, checks)

export function checkTable(where, table) {
  if (typeof table === 'string') return
  throw usage(`${where}: the table must be a string, not ${option.kindOf(table)}`)
}

// A second row behind the first one would be lost, and a signal would stop nothing.
export function checkNoMore(where, more) {
  if (more === undefined) return
  throw usage(
    `${where}: ${option.kindOf(more)} behind the last argument: several rows are one array of them, and what is ` +
      'asked of a write is asked of its batch',
  )
}

export function checkPeerId(where, peerId, more) {
  if (option.peerId.accepts(peerId)) return
  throw usage(`${where}: peerId must be ${option.peerId.wants}${more}, not ${option.show(peerId)}`)
}

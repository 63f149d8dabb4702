// Options: every default in one place, every option checked, a misspelt one answered with the
// nearest valid name.

import { usage } from './errors.js'

const KiB = 1024
const MiB = 1024 * KiB
const HOUR = 3_600_000 // ms

/** What Replica.open() uses where the application says nothing. */
export const DEFAULTS = Object.freeze({
  peerId: undefined, // 1 to 2^32 - 1; undefined: the one kept in the file, random for a new file
  busyTimeoutMs: 5_000, // a call waits so long for the write lock while another program has it
  durability: 'full', // 'full': every commit is synced to disk; 'normal': see docs/architecture.md
  readBigInts: false, // true: every integer is read as a bigint
  lockTimeoutMs: 0, // how long open waits for another Replica to let go of the file
  readers: 2, // read-only connections
  cacheBytes: 16 * MiB, // of the file, in memory: the writing connection's, and each reader's
  maxQueryMs: Infinity, // a query that runs for longer is stopped
  maxQueueCalls: 100_000, // calls waiting to be executed
  maxQueueBytes: 256 * MiB, // values of calls waiting to be executed
  maxClockSkewMs: 60_000, // patches from further in the future wait
  maxPatchRetentionMs: 25 * HOUR, // after that a patch that wins no cell any more is removed
  maxPendingRetentionMs: 30 * 24 * HOUR, // after that what a step up has taken away here is removed
  // Of these three what one peer has brought may not be more than what is left free; what is beyond is held:
  maxOrigins: 200_000, // that are known
  maxPendingBytes: 2 * 1024 * MiB, // of patches that this schema cannot hold
  maxStagedBytes: 32 * 1024 * MiB, // of what is fetched of a pruned log
  maxStagedRetentionMs: 24 * HOUR, // after that pieces of a source that has brought nothing more are removed
  heartbeatMs: 1_000,
  linkTimeoutMs: 10_000, // a link that is silent for longer is closed
  maxFrameBytes: 64 * MiB, // largest group
  windowBytes: 4 * MiB, // sent and not acknowledged, per link
  sliceBytes: 256 * KiB, // a frame of patches ends at the first group boundary beyond it
  earlyBytes: 4 * MiB, // frames kept that arrived before their predecessors, per replica
  ringBytes: 4 * MiB, // recent frames kept encoded, per replica
  secret: undefined, // what both sides of each link must know; at least 16 bytes, or a list: the first is used to dial, each is accepted
  encryption: true, // with a secret, what goes over a link is encrypted; false: unless the other side wants it
  authorize: undefined, // (peerId, info) => whether this peer may link
  maxLinks: 1_000, // connections beyond it are refused
  maxPendingLinks: 100, // accepted ones that have not said HELLO yet, likewise
  tokenSecret: undefined, // signs tokens; at least 16 bytes, or a list: the first signs, each is accepted
  maxWaits: 100_000, // calls of waitFor that wait
})

export const MAX_PEER_ID = 2 ** 32 - 1
const MAX_CLOCK = 2 ** 53 - 1 // ms, of a patch
export const MAX_TIMER_MS = 2 ** 31 - 1 // a longer setTimeout fires at once
const MIN_SECRET_BYTES = 16
const MAX_BYTES = 1024 * MiB // frames and values are Buffers, whose lengths are 32-bit in places

/** A check: is the value acceptable, and what would be. */
export const integer = (min, max) => ({
  accepts: (value) => Number.isInteger(value) && value >= min && value <= max,
  wants: `an integer from ${min} to ${max}`,
})
export const oneOf = (...values) => ({
  accepts: (value) => values.includes(value),
  wants: values.map((value) => `'${value}'`).join(' or '),
})
export const boolean = { accepts: (value) => typeof value === 'boolean', wants: 'true or false' }
export const callback = { accepts: (value) => typeof value === 'function', wants: 'a function' }
export const text = {
  accepts: (value) => typeof value === 'string' && value !== '',
  wants: 'a string that is not empty',
}
export const host = {
  accepts: (value) => text.accepts(value) && !/[/\s]/.test(value) && !/^[^:]*:\d+$/.test(value),
  wants: 'the name or the IP address of a machine; the port is an option of its own',
}
export const subject = {
  accepts: (value) => typeof value === 'string' && /^[\w:-]+(\.[\w:-]+)*$/.test(value),
  wants: "letters, digits, '_', '-' and ':', in parts joined by '.'",
}
export const abortSignal = {
  accepts: (value) => typeof value?.addEventListener === 'function' && 'aborted' in value,
  wants: 'an AbortSignal',
}
export const milliseconds = (min = 0) => integer(min, MAX_TIMER_MS)
export const retention = {
  accepts: (value) =>
    value === Infinity || (Number.isInteger(value) && value >= 0 && value <= MAX_CLOCK),
  wants: `an integer from 0 to ${MAX_CLOCK}, or Infinity`,
}
const positiveRetention = {
  accepts: (value) => retention.accepts(value) && value > 0,
  wants: `an integer from 1 to ${MAX_CLOCK}, or Infinity`,
}
export const bytes = (min) => integer(min, MAX_BYTES)
export const peerId = integer(1, MAX_PEER_ID)

const isSecret = (value) =>
  (typeof value === 'string' || value instanceof Uint8Array) &&
  Buffer.byteLength(value) >= MIN_SECRET_BYTES

// While one replaces another there are two; each costs some 0.1 s to stretch, and a try with each stranger.
const MAX_SECRETS = 8

/** A secret, or several: the first is used, each is accepted. */
export const secretOrList = {
  accepts: (value) =>
    Array.isArray(value)
      ? value.length > 0 && value.length <= MAX_SECRETS && value.every(isSecret)
      : isSecret(value),
  wants: `a string or Uint8Array of at least ${MIN_SECRET_BYTES} random bytes, or a list of at most ${MAX_SECRETS} such`,
  isHidden: true,
}

/** Throws REPLIC_USAGE where a value is no secret, nor a list of some. */
export function checkSecret(where, value) {
  if (secretOrList.accepts(value)) return
  throw usage(`${where}: a secret must be ${secretOrList.wants}`)
}

const CHECKS = {
  peerId,
  busyTimeoutMs: milliseconds(),
  durability: oneOf('full', 'normal'),
  readBigInts: boolean,
  lockTimeoutMs: milliseconds(),
  readers: integer(1, 16),
  cacheBytes: integer(64 * KiB, 1024 * 1024 * MiB),
  maxQueryMs: {
    accepts: (value) => value === Infinity || milliseconds(1).accepts(value),
    wants: `an integer from 1 to ${MAX_TIMER_MS}, or Infinity`,
  },
  maxQueueCalls: integer(1, 10_000_000),
  maxQueueBytes: integer(1, 64 * 1024 * MiB),
  maxClockSkewMs: milliseconds(1),
  maxPatchRetentionMs: retention,
  maxPendingRetentionMs: positiveRetention,
  maxOrigins: integer(1, MAX_PEER_ID),
  maxPendingBytes: integer(1, MAX_CLOCK),
  maxStagedBytes: integer(1, MAX_CLOCK),
  maxStagedRetentionMs: positiveRetention,
  heartbeatMs: milliseconds(1),
  linkTimeoutMs: milliseconds(1),
  maxFrameBytes: bytes(64),
  windowBytes: bytes(1),
  sliceBytes: bytes(1),
  earlyBytes: bytes(1),
  ringBytes: bytes(1),
  secret: secretOrList,
  encryption: boolean,
  authorize: callback,
  maxLinks: integer(1, 1_000_000),
  maxPendingLinks: integer(1, 1_000_000),
  tokenSecret: secretOrList,
  maxWaits: integer(1, 10_000_000),
}

export const openOptions = (given) => readOptions('open', given, DEFAULTS, CHECKS)

/**
 * The options given, over the defaults. `defaults` also says which names exist.
 * Throws REPLIC_USAGE, naming the option, the nearest valid name, what is wanted and what was given.
 */
export function readOptions(where, given, defaults, checks) {
  if (given === undefined) return { ...defaults }
  if (!isPlain(given)) {
    const [first] = Object.keys(defaults)
    throw usage(`${where}: options must be an object, as { ${first}: … }, not ${kindOf(given)}`)
  }
  const options = { ...defaults }
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(defaults, name)) {
      const names = Object.keys(defaults)
      const hint = nearest(name, names) || `; there are ${names.join(', ')}`
      throw usage(`${where}: unknown option '${name}'${hint}`)
    }
    if (value === undefined) continue
    if (!checks[name].accepts(value)) {
      const shown = checks[name].isHidden ? 'this' : show(value)
      throw usage(`${where}: ${name} must be ${checks[name].wants}, not ${shown}`)
    }
    options[name] = value
  }
  if (given.retryMinMs > given.retryMaxMs) {
    const shown = `${given.retryMinMs} and ${given.retryMaxMs}`
    throw usage(`${where}: retryMinMs must not be more than retryMaxMs, not ${shown}`)
  }
  return options
}

/** An object that is a record of names and values: no array, no view of memory, no class of the language's own. */
export function isPlain(value) {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return false
  return Object.prototype.toString.call(value) === '[object Object]'
}

/** What a value is, for messages. */
export function kindOf(value) {
  if (value === null) return 'null'
  if (typeof value !== 'object') return typeof value
  if (Array.isArray(value)) return 'an array'
  const name = value.constructor?.name || 'Object'
  if (name === 'Promise') return 'a Promise: await it'
  return name === 'Object' ? 'an object' : `a ${name}`
}

/** A value, for messages: short. */
export function show(value) {
  if (typeof value === 'string') return `'${value.length > 40 ? `${value.slice(0, 40)}…` : value}'`
  return typeof value === 'number' || typeof value === 'boolean' ? `${value}` : kindOf(value)
}

/** `; did you mean 'x'?` for the most similar of the names, or nothing if none is similar. */
export function nearest(name, names) {
  let best = ''
  let least = Math.max(2, Math.floor(name.length / 3)) + 1
  for (const candidate of names) {
    const edits = distance(name.toLowerCase(), candidate.toLowerCase(), least)
    if (edits < least) {
      least = edits
      best = candidate
    }
  }
  return best && `; did you mean '${best}'?`
}

// Levenshtein's distance, row by row; at least `limit` when the lengths alone say so.
function distance(a, b, limit) {
  if (Math.abs(a.length - b.length) >= limit) return limit
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, row[j] + 1, next[j - 1] + 1))
    }
    row = next
  }
  return row[b.length]
}

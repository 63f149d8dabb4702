// How a file is opened: is its path one, what the addon is told, waiting for whoever has it open, and why it failed.

import { randomInt } from 'node:crypto'
import { statSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as setTimeoutPromise } from 'node:timers/promises'
import { ReplicError, usage } from './base/errors.js'
import { addon } from './base/load.js'
import * as option from './base/options.js'
import { tracing } from './debug.js'
import { poolThreads } from './threads.js'

const LOCK_PAUSE_MS = 5 // before the file is tried again, and doubled each time
const MAX_LOCK_PAUSE_MS = 100

/**
 * Opens a Connection to the file. Whoever has it open tells nobody when it lets go of it, so it is tried again and again,
 * each time with a new one, which `made(native)` is given before. `onBatch(report)` hears of each batch of the core's.
 */
export async function openConnection(path, options, onBatch, made) {
  const { lockTimeoutMs } = options
  const config = configOf(options)
  const begun = performance.now()
  for (let pauseMs = LOCK_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_LOCK_PAUSE_MS)) {
    const native = new (addon().Connection)(path, config, onBatch)
    made(native)
    endWithProcess(native)
    try {
      return await native.open()
    } catch (error) {
      const leftMs = lockTimeoutMs - (performance.now() - begun)
      if (error.code !== 'REPLIC_LOCKED' || lockTimeoutMs === 0) throw error
      if (leftMs <= 0) throw stillLocked(error, lockTimeoutMs)
      await setTimeoutPromise(Math.min(pauseMs, leftMs))
    }
  }
}

function configOf(options) {
  const { durability, peerId, readBigInts, ...limits } = addonOptions(options)
  return {
    ...limits,
    poolThreads: poolThreads(process.env, process.versions),
    maxQueryMs: limits.maxQueryMs === Infinity ? 0 : limits.maxQueryMs,
    peerId: peerId ?? 0,
    newPeerId: randomInt(1, option.MAX_PEER_ID + 1),
    normalDurability: durability === 'normal',
    maxPendingRetentionMs: Math.min(limits.maxPendingRetentionMs, Number.MAX_SAFE_INTEGER),
    maxStagedRetentionMs: Math.min(limits.maxStagedRetentionMs, Number.MAX_SAFE_INTEGER),
    trace: tracing,
  }
}

export function checkPath(path) {
  const isPath = option.text.accepts(path) && !path.includes('\0')
  if (isPath && path !== ':memory:' && !/^file:/i.test(path)) return
  const hint = /^file:/i.test(path) ? '; fileURLToPath() of node:url makes a path of it' : ''
  throw usage(
    `open: path must be the path of a file, or where one can be created, not ${option.show(path)}${hint}`,
  )
}

/** Why a file could not be opened, where SQLite only says "unable to open". */
export function explainOpen(error, path) {
  if (/^SQLITE_/.test(error.code) && isSpecial(path)) {
    const why = 'it is no regular file: give the path of one, or where one can be created'
    return new ReplicError(error.code, `open: ${path}: ${why}`, { cause: error })
  }
  if (!/^SQLITE_CANTOPEN/.test(error.code)) return error
  const folder = dirname(path)
  const why = isFolder(path)
    ? 'it is a folder: give the path of a file'
    : !isFolder(folder) && `the folder ${folder} does not exist: create it first`
  return why ? new ReplicError(error.code, `open: ${path}: ${why}`, { cause: error }) : error
}

// A device, a pipe or a socket.
function isSpecial(path) {
  try {
    const found = statSync(path)
    return !found.isFile() && !found.isDirectory()
  } catch {
    return false
  }
}

function isFolder(path) {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}

// What only lib/ needs to know: the addon takes no secrets and no functions.
function addonOptions({ secret, authorize, maxLinks, maxPendingLinks, ...others }) {
  const { encryption, lockTimeoutMs, tokenSecret, maxWaits, ...rest } = others
  return rest
}

const stillLocked = (error, ms) =>
  new ReplicError(error.code, `${error.message}. It was so for lockTimeoutMs (${ms} ms)`, {
    cause: error,
  })

// Before a process ends, Node waits for all that its pool has begun.
const natives = new Set()
const forgotten = new FinalizationRegistry((ref) => natives.delete(ref))
let isTold = false

function endWithProcess(native) {
  const ref = new WeakRef(native)
  natives.add(ref)
  forgotten.register(native, ref)
  if (isTold) return
  isTold = true
  process.on('exit', () => {
    for (const each of natives) each.deref()?.end()
  })
}

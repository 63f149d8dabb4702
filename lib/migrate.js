// Migrations: which steps to take, in which order. A position in the list is a version; what was
// applied is kept in _replic_migrations, with the script that undoes it, so that an older version of
// the application can step back. The core applies each step in a transaction of its own.

import { ReplicError, usage } from './errors.js'
import { kindOf, readOptions, text } from './options.js'

const STEP = Object.freeze({ up: undefined, down: '', name: '' })
const STRING = { accepts: (value) => typeof value === 'string', wants: 'a string' }
const CHECKS = { up: text, down: STRING, name: STRING }

/**
 * Brings the database to the last version of `list`, up or down. `stored`: the rows of
 * _replic_migrations by version; `apply(version, script, down | null)` takes one step in the core.
 * Returns { from, to }. Throws REPLIC_USAGE, REPLIC_MIGRATION, or what SQLite says of a script; the
 * steps before the failing one stay.
 */
export async function migrate(list, stored, apply) {
  if (!Array.isArray(list)) throw usage(`migrate: a list is needed, not ${kindOf(list)}`)
  const steps = list.map((step, i) => readStep(step ?? null, i + 1))
  for (const [i, { version, up, down }] of stored.entries()) {
    if (version !== i + 1) throw broken(`_replic_migrations lacks version ${i + 1}`)
    if (i < steps.length && up !== steps[i].up) {
      throw broken(`${title(steps, i)} was changed after it was applied; append a new one instead`)
    }
    if (i >= steps.length && !down) {
      throw broken(`${title(steps, i)} has no down script: the list cannot end before it`)
    }
  }
  for (let i = stored.length - 1; i >= steps.length; i--) {
    await take(() => apply(i + 1, stored[i].down, null), title(steps, i))
  }
  for (let i = stored.length; i < steps.length; i++) {
    await take(() => apply(i + 1, steps[i].up, steps[i].down), title(steps, i))
  }
  return { from: stored.length, to: steps.length }
}

function readStep(step, version) {
  const read = readOptions(`migrate: step ${version}`, step, STEP, CHECKS)
  if (read.up === undefined) throw usage(`migrate: step ${version} has no up script`)
  return read
}

async function take(apply, name) {
  try {
    await apply()
  } catch (error) {
    throw new ReplicError(error.code, `migrate: ${name}: ${error.message}`, { cause: error })
  }
}

const title = (steps, i) => `migration ${i + 1}${steps[i]?.name ? ` (${steps[i].name})` : ''}`
const broken = (message) => new ReplicError('REPLIC_MIGRATION', `migrate: ${message}`)

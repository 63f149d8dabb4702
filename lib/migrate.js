// Migrations: which steps to take, in which order. A position in the list is a version; what was
// applied is kept in _replic_migrations, with the script that undoes it, so that an older version of
// the application can step back. The core applies each step in a transaction of its own.

import { createHash } from 'node:crypto'
import { ReplicError, usage } from './base/errors.js'
import {
  abortSignal,
  boolean,
  integer,
  isPlain,
  kindOf,
  milliseconds,
  readOptions,
} from './base/options.js'

const UP = 0 // kinds of steps, as the core numbers them
const DOWN = 1
const NOTE = 2
const DIRECTIONS = ['up', 'down', 'note']

const STEP = Object.freeze({ up: undefined, down: '', name: '', rename: undefined })
const SCRIPT = {
  accepts: (value) => typeof value === 'string' || typeof value === 'function',
  wants: 'a string or a function',
}
const CHECKS = {
  up: { accepts: (up) => up !== '' && SCRIPT.accepts(up), wants: 'SQL text or a function' },
  down: SCRIPT,
  name: { accepts: (value) => typeof value === 'string', wants: 'a string' },
  rename: { accepts: isPlain, wants: "an object { 'table.column': 'table.newName' }" },
}
const OPTIONS = Object.freeze({
  force: false,
  dryRun: false,
  to: undefined,
  signal: undefined,
  timeoutMs: undefined,
})

/** What is asked for: the arguments of migrate(), checked. Throws REPLIC_USAGE. */
export function readMigration(list, given) {
  if (!Array.isArray(list))
    throw usage(
      `migrate: a list of steps is needed, [{ up: 'CREATE TABLE …' }], not ${kindOf(list)}`,
    )
  const steps = Array.from(list, (step, i) => readStep(step ?? null, i + 1))
  const checks = {
    force: boolean,
    dryRun: boolean,
    to: integer(0, steps.length),
    signal: abortSignal,
    timeoutMs: milliseconds(1),
  }
  return { steps, ...readOptions('migrate', given, OPTIONS, checks) }
}

/**
 * Brings the database to version `to` of `steps`, by default the last one, up or down. `host`: what the
 * replica lends:
 *   stored()                       the rows of _replic_migrations by version
 *   transaction(commit, fn)        runs fn; commits what it has done, or undoes it: also where it throws
 *   stepBegin, stepRun, stepEnd    the core's calls, within a transaction
 *   call(fn)                       runs a step that is a function; rejects when the replica is closed
 * Returns { from, to }, and with dryRun the steps. Throws REPLIC_USAGE, REPLIC_MIGRATION, what the core
 * says of a step, or what a function has thrown; the steps before the failing one stay.
 */
export async function migrate({ steps, force, dryRun, to = steps.length }, host) {
  const stored = await host.stored()
  const plan = makePlan(steps, stored, to, force)
  if (!dryRun) {
    for (const item of plan) await host.transaction(true, () => take(item, host))
    return { from: stored.length, to }
  }
  await host.transaction(false, async () => {
    for (const item of plan) await take(item, host)
  })
  return { from: stored.length, to, steps: plan.map(show) }
}

// ---- the list -----------------------------------------------------------------------------------

function readStep(given, version) {
  const where = `migrate: step ${version}`
  if (!isPlain(given))
    throw usage(`${where} must be { up: 'CREATE TABLE …' }, not ${kindOf(given)}`)
  const { up, down, name, rename } = readOptions(where, given, STEP, CHECKS)
  if (up === undefined) throw usage(`${where} has no up script: { up: 'CREATE TABLE …' }`)
  const renames = rename ? JSON.stringify(readRenames(where, rename)) : ''
  const hash = hashOf([identity(up, name), identity(down, ''), renames])
  return { up, down, name, renames, hash }
}

/** Of { 'todo.title': 'todo.name' }: [['todo', 'title', 'name']]. */
function readRenames(where, rename) {
  return Object.entries(rename).map(([from, to]) => {
    const [table, column, ...more] = from.split('.')
    const [newTable, newColumn, ...others] = typeof to === 'string' ? to.split('.') : []
    const complete = table && column && newColumn && more.length + others.length === 0
    if (!complete || table !== newTable || column === newColumn) {
      const what = `'${from}': ${typeof to === 'string' ? `'${to}'` : kindOf(to)}`
      throw usage(`${where}: rename must be { 'table.column': 'table.newName' }, not { ${what} }`)
    }
    return [table, column, newColumn]
  })
}

// A function's text depends on what has compiled it, so its name stands for it.
const identity = (script, name) => (typeof script === 'function' ? { function: name } : script)
const hashOf = (parts) => createHash('sha256').update(JSON.stringify(parts)).digest('hex')
const textOf = (script) => (typeof script === 'function' ? '' : script)

// ---- the plan -----------------------------------------------------------------------------------

// What is wrong with the list is found before anything is done.
function makePlan(steps, stored, to, force) {
  const plan = []
  for (const [i, row] of stored.entries()) {
    const step = steps[i]
    if (row.version !== i + 1) throw broken(`_replic_migrations lacks version ${i + 1}`)
    if (!step || isSame(step, row)) continue
    if (!force) {
      throw broken(
        `${title(i, step)} was changed after it was applied; append a new one instead ` +
          '({ force: true } takes the new text for what was applied, and runs nothing)',
      )
    }
    plan.push({ kind: NOTE, version: i + 1, step })
  }
  for (let i = stored.length - 1; i >= to; i--) plan.push(wayDown(i, steps[i], stored[i], force))
  for (let i = stored.length; i < to; i++) {
    plan.push({ kind: UP, version: i + 1, step: steps[i], script: steps[i].up })
  }
  return plan
}

// A database of the first layout has no hashes, and compared `up` only.
const isSame = (step, row) => (row.hash ? row.hash === step.hash : row.up === textOf(step.up))

function wayDown(i, step, row, force) {
  const stored = force && step ? textOf(step.down) : row.down
  const script = stored || (typeof step?.down === 'function' ? step.down : '')
  const named = step ?? row
  if (!script) {
    throw broken(
      `${title(i, named)} has no down script in the database: there was none, or it was a function, ` +
        'which cannot be kept there. The list cannot end before it; use an application that knows it',
    )
  }
  return { kind: DOWN, version: i + 1, step: named, script }
}

const show = ({ kind, version, step, script }) => ({
  version,
  direction: DIRECTIONS[kind],
  name: step.name,
  sql: typeof script === 'string' ? script : null,
})

const title = (i, { name }) => `migration ${i + 1}${name ? ` (${name})` : ''}`
const broken = (message) => new ReplicError('REPLIC_MIGRATION', `migrate: ${message}`)

// ---- a step -------------------------------------------------------------------------------------

async function take({ kind, version, step, script }, host) {
  const { up = '', down = '', name = '', hash = '', renames = '' } = step
  try {
    await host.stepBegin(kind, version, textOf(up), textOf(down), name, hash, renames)
    if (typeof script === 'function') await host.call((calls) => callStep(script, calls))
    else if (script) await host.stepRun(script, undefined, true)
    await host.stepEnd()
  } catch (error) {
    const code = error instanceof ReplicError ? error.code : 'REPLIC_MIGRATION'
    const where = `${title(version - 1, step)}${kind === DOWN ? ', going down' : ''}`
    throw new ReplicError(code, `migrate: ${where}: ${error?.message ?? error}`, { cause: error })
  }
}

// Runs a function of the application's with a `tx` of these calls, and waits for those that it has
// not waited for itself: one that fails must not go unseen.
async function callStep(fn, calls) {
  const underWay = new Set()
  let settled = false
  const guarded =
    (call) =>
    (...args) => {
      if (settled) {
        return Promise.reject(usage('migrate: tx was used after its function had settled'))
      }
      const running = call(...args)
      const result = running.then((value) => value) // so that only who was given it handles it
      underWay.add(result)
      const over = () => underWay.delete(result)
      running.then(over, over)
      return result
    }
  const tx = {}
  for (const [name, call] of Object.entries(calls)) tx[name] = guarded(call)
  try {
    await fn(Object.freeze(tx))
  } finally {
    settled = true
  }
  await Promise.all(underWay)
}

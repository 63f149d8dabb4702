// npm run sessions: the session test at any length; the status is 0 only if nothing was violated.
//   npm run sessions -- --operations 100000 --sessions 400 --seed 1 [--off]

import { execPath } from 'node:process'
import { parseArgs } from 'node:util'
import { bunProgram, slowClock } from '../programs.js'
import { check } from './checker.js'
import { play } from './play.js'

const number = (value) => ({ type: 'string', default: `${value}` })
const { values } = parseArgs({
  options: {
    operations: number(100_000),
    sessions: number(400),
    seed: number(1),
    off: { type: 'boolean', default: false },
  },
})
const began = performance.now()
const { history, finals, failures, cuts } = await play({
  programs: { node: execPath, bun: bunProgram() },
  clock: slowClock(),
  guarded: !values.off,
  operations: Number(values.operations),
  sessions: Number(values.sessions),
  seed: Number(values.seed),
})
const { violations, checked } = check(history, finals)
const kinds = {}
for (const { kind } of violations) kinds[kind] = (kinds[kind] ?? 0) + 1
const seconds = ((performance.now() - began) / 1000).toFixed(0)
console.log(
  `${values.operations} operations of ${values.sessions} sessions, seed ${values.seed}: ${seconds} s`,
)
console.log(`${cuts} links cut; ${failures.length} requests failed`, failures.slice(0, 3))
console.log('checked:', checked)
console.log('violations:', kinds, violations.slice(0, 5))
process.exitCode = violations.length || failures.length ? 1 : 0

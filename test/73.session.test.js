// Read your own write, as a whole: three processes that serve a replica with Express, Fastify and Bun.serve,
// nginx before them, which gives each request to the next one, lines between them that delay everything by 0 to
// 500 ms and break. One clock is 2 s behind. Sessions write and read, and a checker judges what they have seen.
// The same at any length: npm run sessions; docs/reliability.md has what came of it.

import { execPath } from 'node:process'
import { expect, it } from 'vitest'
import { bunProgram, slowClock } from './programs.js'
import { NGINX } from './servers.js'
import { check } from './session/checker.js'
import { play } from './session/play.js'

const clock = slowClock()
const missing = [!NGINX && 'nginx (nginx-light)', !clock && 'libfaketime (faketime)'].filter(
  Boolean,
)
if (missing.length && process.env.CI) throw new Error(`not installed: ${missing}`)
if (missing.length) console.warn(`SKIPPED: sessions behind nginx: ${missing} is not installed`)

const programs = { node: execPath, bun: bunProgram() }
const options = { programs, clock, seed: 1 }
const MINUTES = 60_000

it.skipIf(missing.length)(
  'no session misses what it has written or seen',
  async () => {
    const { history, finals, failures, cuts } = await play({
      ...options,
      guarded: true,
      operations: 20_000,
      sessions: 400, // most of them wait for what is on its way
    })
    const { violations, checked } = check(history, finals)
    expect(violations).toEqual([])
    expect(failures).toEqual([])
    expect(cuts).toBeGreaterThan(60)
    for (const n of Object.values(checked)) expect(n).toBeGreaterThan(0)
  },
  10 * MINUTES,
)

it.skipIf(missing.length)(
  'without readYourWrite they do, and the checker sees it',
  async () => {
    const { history, finals } = await play({
      ...options,
      guarded: false,
      operations: 4_000,
      sessions: 50,
    })
    const kinds = new Set(check(history, finals).violations.map(({ kind }) => kind))
    for (const kind of [
      'readYourWrites',
      'monotonicReads',
      'writesFollowReads',
      'monotonicWrites',
    ]) {
      expect(kinds).toContain(kind)
    }
    // What holds without tokens.
    expect(kinds).not.toContain('atomicGroups')
    expect(kinds).not.toContain('convergence')
  },
  10 * MINUTES,
)

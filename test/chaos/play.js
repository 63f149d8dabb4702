// Scenarios as tests.

import { randomInt } from 'node:crypto'
import { expect, onTestFinished } from 'vitest'
import { Stage } from './stage.js'

/** All chances come from it. */
export const seed = Number(process.env.CHAOS_SEED ?? randomInt(2 ** 31))
console.info(`all chances come from CHAOS_SEED=${seed}`)

/** A stage that is cleared after the test. */
export function newStage() {
  const stage = new Stage(seed)
  onTestFinished(() => stage.end())
  return stage
}

/** Plays a scenario, and asserts that nothing acknowledged is lost and all have converged. */
export async function play(scenario, settings) {
  const result = await newStage().play(scenario, settings)
  expect({ problems: result.problems, lost: result.lost }).toEqual({ problems: [], lost: 0 })
  expect(result.acked).toBeGreaterThan(0)
  return result
}

/**
 * Whether what needs something of the machine is tested here: if `obstacle` ({ why, isFixable }) is null. Says
 * loudly what is not tested; in CI, what could be put right is an error.
 */
export function isTested(what, obstacle) {
  if (!obstacle) return true
  const text = `NOT TESTED: ${what}: ${obstacle.why}`
  if (process.env.CI && obstacle.isFixable) throw new Error(text)
  console.warn(text)
  return false
}

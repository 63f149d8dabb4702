// Plays a target: so many steps from one seed. What fails names the target, the seed and the step.

import { randomFrom } from '../../examples/demo/random.js'
import { isOurs, TARGETS } from './targets.js'

/**
 * Runs `steps` steps. `clock()`, where it is given, tells processor time in ms: none may take longer than `mostMs`.
 * Now and then the event loop has its turn, for what a step has left for later.
 */
export async function play(name, seed, steps, { clock = () => 0, mostMs = Infinity } = {}) {
  const step = TARGETS[name](randomFrom(seed))
  for (let n = 0; n < steps; n++) {
    const begun = clock()
    try {
      await step()
    } catch (error) {
      failed(() => isOurs(error), name, seed, n)
    }
    const took = clock() - begun
    if (took > mostMs) throw new Error(`${name}, seed ${seed}, step ${n} took ${took} ms`)
    if (n % 500 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
}

function failed(judge, name, seed, n) {
  try {
    judge()
  } catch (error) {
    throw new Error(`${name}, seed ${seed}, step ${n}: ${error?.stack ?? error}`, { cause: error })
  }
}

// Rounds, medians, tables. Two sides are measured in turn (A B A B ...), so that whatever else the
// machine does meets both; a figure is the median of the rounds, a ratio the quotient of two medians.

import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

// Beside the build and not in a temporary directory, which may be in memory, where FULL costs nothing.
export const DIR = fileURLToPath(new URL('../build/bench/db', import.meta.url))
const ROUNDS = 5

let files = 0

/** Calls `use(path)` with the path of a database file that is not there yet, and removes it afterwards. */
export async function withFile(use) {
  const dir = join(DIR, `${process.pid}-${++files}`)
  mkdirSync(dir, { recursive: true })
  try {
    return await use(join(dir, 'bench.db'))
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Seconds that `work()` takes. */
export async function seconds(work) {
  const began = performance.now()
  await work()
  return (performance.now() - began) / 1000
}

/** Keeps `inFlight` calls of `work(i)` under way until all of 0 to count - 1 are done. */
export async function concurrently(count, inFlight, work) {
  let next = 0
  const one = async () => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: inFlight }, one))
}

/**
 * Measures the sides of a benchmark in turn. `sides`: name -> async function giving a figure (an operation
 * rate, or an object of figures). Gives name -> list of figures, one per round.
 */
export async function inTurn(sides, rounds = ROUNDS) {
  const figures = Object.fromEntries(Object.keys(sides).map((name) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const [name, measure] of Object.entries(sides)) figures[name].push(await measure())
  }
  return figures
}

export function median(list) {
  const sorted = [...list].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Lines of a table from rows of texts; the columns listed in `left` are aligned to the left. */
export function table(rows, left) {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)))
  const cell = (text, i) => (left.includes(i) ? text.padEnd(widths[i]) : text.padStart(widths[i]))
  return rows.map((row) => row.map(cell).join('  ').trimEnd())
}

// Rounds, medians, tables. The sides of a benchmark are measured in turn (A B C A B C ...), so that whatever
// else the machine does meets all of them; a figure is the median of the rounds, a ratio the quotient of two.

import { execFile } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

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
 * Measures the sides of a benchmark in turn. `sides`: name -> async function giving a figure (a number, or an
 * object of numbers). Gives name -> list of figures, one per round.
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

const FLOOR = fileURLToPath(new URL('../build/bench/floor', import.meta.url))

/** Runs floor.c on a new file; the numbers of its last line. See there for the arguments. */
export const floor = (work, layout, order, synchronous, rows, perTransaction) =>
  withFile(async (path) => {
    const args = [work, layout, order, synchronous, `${rows}`, `${perTransaction}`, path]
    const { stdout } = await promisify(execFile)(FLOOR, args)
    return stdout
      .trim()
      .split('\n')
      .map((line) => line.split(' ').map(Number))
  })

/** The one figure of it. */
export const floorRate = async (...args) => (await floor(...args)).at(-1).at(-1)

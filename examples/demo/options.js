// The options of `npm run demo`.

import { parseArgs } from 'node:util'

export const HELP = `npm run demo -- [options]

Several processes, each with its own SQLite file, linked over TCP on this machine, load the cities of
the world and edit them, all at the same time. One of them is killed and restarted on the way, another
is cut off for a while. In the end all files must hold the same. Exit status: 0 if they do, 1 if not
or if anything failed, 2 for wrong options.

  --peers N     processes, 2 to 16 (default 3)
  --rows N      how many of the cities at most (default: all, about 170,000)
  --seconds N   how long they edit, 1 to 3600 (default 10)
  --seed N      start of the random choices, 0 to 4294967295 (default: random; it is printed)
  --keep        keep the files, and print where they are
  --help        this text
`

const NUMBERS = {
  peers: { min: 2, max: 16, default: () => 3 },
  rows: { min: 1, max: 2 ** 32 - 1, default: () => 2 ** 32 - 1 },
  seconds: { min: 1, max: 3600, default: () => 10 },
  seed: { min: 0, max: 2 ** 32 - 1, default: () => Math.floor(Math.random() * 2 ** 32) },
}

/** { peers, rows, seconds, seed, keep, help }. Throws an Error that says what is wrong with which option. */
export function readOptions(args) {
  const options = Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, { type: 'string' }]))
  options.keep = options.help = { type: 'boolean', default: false }
  const { values } = parseArgs({ args, options })
  const numbers = Object.entries(NUMBERS).map(([name, limits]) => [
    name,
    readNumber(name, values[name], limits),
  ])
  return { ...values, ...Object.fromEntries(numbers) }
}

function readNumber(name, given, { min, max, default: byDefault }) {
  if (given === undefined) return byDefault()
  const value = /^\d+$/.test(given) ? Number(given) : NaN
  if (value >= min && value <= max) return value
  throw new Error(`--${name} must be an integer from ${min} to ${max}, not '${given}'`)
}

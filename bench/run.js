// npm run bench [-- NAME ...]: all benchmarks, or those whose names begin so. README.md tells how to read
// the output. Leaves every round's figures in build/bench.json.

import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { benches as applying } from './apply.js'
import { prepareBetter } from './better.js'
import { DIR, inTurn, median, table } from './harness.js'
import { benches as loop } from './loop.js'
import { benches as reading } from './read.js'
import { benches as writing } from './write.js'

const BUILD = fileURLToPath(new URL('../build', import.meta.url))
const ALL = [...writing, ...applying, ...reading, ...loop]
const DELAYS = ['p50', 'p99', 'max']

const number = (n) => n.toLocaleString('en-US', { maximumSignificantDigits: 3 })
const ms = (n) => n.toFixed(1)

async function run({ name, title, against, sides, around, unit = 'per second' }) {
  const figures = sides ? await inTurn(sides) : await around((these) => inTurn(these))
  console.error(`${name}: measured`)
  return { name, title, against, unit, figures }
}

function rateRow({ title, against, figures: { replic, better } }) {
  const [ours, theirs] = [median(replic), median(better)]
  return [title, against, number(ours), number(theirs), (ours / theirs).toFixed(2)]
}

function delayRow({ title, figures: { replic, better } }) {
  const of = (rounds) => DELAYS.map((name) => ms(median(rounds.map((round) => round[name]))))
  return [title, ...of(replic), ...of(better)]
}

function print(results) {
  const rates = results.filter(({ unit }) => unit === 'per second').map(rateRow)
  const delays = results.filter(({ unit }) => unit === 'ms').map(delayRow)
  if (rates.length > 0) {
    const head = ['rows per second', 'against', 'replic-sqlite', 'better-sqlite3', 'ratio']
    console.log(`\n${table([head, ...rates], [0, 1]).join('\n')}`)
  }
  if (delays.length > 0) {
    const head = ['event loop delay, ms', ...DELAYS, ...DELAYS.map((name) => `better ${name}`)]
    console.log(`\n${table([head, ...delays], [0]).join('\n')}`)
  }
}

const names = process.argv.slice(2)
const chosen = ALL.filter(
  ({ name }) => names.length === 0 || names.some((begin) => name.startsWith(begin)),
)
const unknown = names.filter((begin) => !ALL.some(({ name }) => name.startsWith(begin)))
if (unknown.length > 0) {
  console.error(`bench: there is no ${unknown.join(', ')}; there are:`)
  for (const { name, title } of ALL) console.error(`  ${name.padEnd(18)} ${title}`)
  process.exitCode = 2
} else {
  prepareBetter()
  rmSync(DIR, { recursive: true, force: true }) // of a run that was interrupted
  const results = []
  for (const bench of chosen) results.push(await run(bench))
  print(results)
  mkdirSync(BUILD, { recursive: true })
  const machine = { node: process.version, arch: process.arch, cores: availableParallelism() }
  const json = JSON.stringify({ machine, results }, null, 2)
  writeFileSync(`${BUILD}/bench.json`, `${json}\n`)
}

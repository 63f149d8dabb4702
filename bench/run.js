// npm run bench [-- NAME ...]: all benchmarks, or those whose names begin so. README.md tells how to read
// the output. Leaves every round's figures in build/bench.json, and a chart of the ratios in build/bench.svg.

import { execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { platform } from 'node:process'
import { fileURLToPath } from 'node:url'
import { chart } from './chart.js'
import { DIR, inTurn, median, table } from './harness.js'
import { prepare } from './prepare.js'

const BUILD = fileURLToPath(new URL('../build', import.meta.url))
const PROGRAM = fileURLToPath(import.meta.url)
const OURS = 'replic-sqlite'
const MEASURE = '--measure' // NAME: what run() starts

if (process.argv[2] !== MEASURE) prepare() // before anything loads a peer
const { ALL } = await import('./suite.js')

const number = (n) =>
  n.toLocaleString('en-US', { maximumSignificantDigits: 3, minimumSignificantDigits: 1 })

/** Measures one, and gives what the table and the chart say of it. */
async function measured(bench) {
  const { name, title, sides, around, rounds, unit = 'per second', reach = {} } = bench
  const measure = (these) => inTurn(these, rounds)
  const figures = sides ? await measure(sides) : await around(measure)
  const medians = Object.fromEntries(
    Object.entries(figures).map(([side, list]) => [side, middle(list)]),
  )
  return { name, title, unit, reach, medians, figures }
}

/** The same in a process of its own, and when the disk has nothing to do: none shall pay for one before it. */
async function run({ name }) {
  if (platform !== 'win32') execFileSync('sync') // which Windows lacks
  const child = fork(PROGRAM, [MEASURE, name])
  const [[result]] = await Promise.all([
    Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(([code]) => Promise.reject(new Error(`${name}: status ${code}`))),
    ]),
    once(child, 'exit'),
  ])
  console.error(`${name}: measured`)
  return result
}

/** The median; of objects, of each of their numbers. */
function middle(list) {
  if (typeof list[0] === 'number') return median(list)
  return Object.fromEntries(
    Object.keys(list[0]).map((key) => [key, median(list.map((round) => round[key]))]),
  )
}

/** [what, figure, ratio, reach] of each side; a ratio is ours : theirs. */
function lines({ title, unit, reach, medians }) {
  const ours = medians[OURS]
  return Object.entries(medians).flatMap(([side, figure]) => {
    const isOurs = side === OURS
    const isPlain = typeof figure === 'number'
    const parts = isPlain ? [['', figure]] : Object.entries(figure)
    return parts.map(([key, value], i) => {
      const mine = isPlain ? ours : ours[key]
      const goal = reach[key ? `${side} ${key}` : side]
      return [
        isOurs && i === 0 ? title : '',
        `${side}${key && ` ${key}`}`,
        number(value),
        isOurs && i === 0 ? unit : '',
        isOurs ? '' : (mine / value).toFixed(2),
        goal === undefined ? '' : unit === 'per second' ? `>= ${goal}` : `<= ${goal}`,
      ]
    })
  })
}

const names = process.argv.slice(2)
const chosen = ALL.filter(({ name, onlyByName }) =>
  names.length === 0 ? !onlyByName : names.some((begin) => name.startsWith(begin)),
)
const unknown = names.filter((begin) => !ALL.some(({ name }) => name.startsWith(begin)))
if (names[0] === MEASURE) {
  process.send(await measured(ALL.find(({ name }) => name === names[1])))
  process.disconnect()
} else if (unknown.length > 0) {
  console.error(`bench: there is no ${unknown.join(', ')}; there are:`)
  for (const { name, title } of ALL) console.error(`  ${name.padEnd(18)} ${title}`)
  process.exitCode = 2
} else {
  rmSync(DIR, { recursive: true, force: true }) // of a run that was interrupted
  const results = []
  for (const bench of chosen) results.push(await run(bench))
  const head = ['', '', 'figure', 'unit', 'ratio', 'reach']
  console.log(`\n${table([head, ...results.flatMap(lines)], [0, 1, 3]).join('\n')}`)
  mkdirSync(BUILD, { recursive: true })
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim()
  const program = process.versions.bun ? `Bun ${process.versions.bun}` : `Node ${process.version}`
  const machine = { program, commit, arch: process.arch, cores: availableParallelism() }
  writeFileSync(`${BUILD}/bench.json`, `${JSON.stringify({ machine, results }, null, 2)}\n`)
  writeFileSync(`${BUILD}/bench.svg`, chart(results, machine))
}

// npm run reliability [-- --seed N] [NAME ...]: the scenarios of the tests at full size, with the default
// options: minutes instead of moments. All of them, or those whose name or title begins so. Prints a table; its
// figures are in docs/reliability.md. Exit status: 0 if nothing was lost and all converged.

import { randomInt } from 'node:crypto'
import { availableParallelism, constants } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { table } from '../../bench/harness.js'
import { randomFrom } from '../../examples/demo/random.js'
import { whyNoNetwork } from './netns.js'
import * as scenarios from './scenarios.js'
import { Stage } from './stage.js'

const AS_IT_COMES = {} // the defaults of replic-sqlite
const seconds = (n) => () => delay(n * 1000)
const NETWORK = 'network'
const ROOT = 'root'

const LOSSY = { line: { loss: 0.2 }, during: seconds(45) }
const WILD = {
  line: { loss: 0.2, duplicate: 0.2, delayMs: [100, 500], ordered: false },
  during: seconds(45),
}
const UDP = { like: { transport: 'udp' } }

const STORIES = [
  [
    scenarios.partition,
    'a mesh of 4 parted in two, 2 × 15 s',
    { times: 2, during: seconds(15) },
    NETWORK,
  ],
  [scenarios.cutOff, 'a host of a mesh cut off for a minute', { during: seconds(60) }, NETWORK],
  [
    scenarios.roundabout,
    'a cable of a mesh cut, 3 × 12 s',
    { times: 3, during: seconds(12) },
    NETWORK,
  ],
  [
    scenarios.chain,
    'cables of a chain of 5 down, 4 × 15 s',
    { times: 4, during: seconds(15) },
    NETWORK,
  ],
  [
    scenarios.halfOpenHost,
    'a host dies unnoticed, 2 × 15 s',
    { times: 2, during: seconds(15) },
    NETWORK,
  ],
  [scenarios.lineDown, 'a line down for a minute', { during: seconds(60) }],
  [scenarios.forgotten, 'half-open connections, 3 × 15 s', { times: 3, during: seconds(15) }],
  [scenarios.oneWay, 'one direction stalled, 2 × 15 s', { times: 2, during: seconds(15) }],
  [scenarios.badLines, '20 % of all frames lost', LOSSY],
  [scenarios.badLines, '300 ± 200 ms', { line: { delayMs: [100, 500] }, during: seconds(45) }],
  [scenarios.badLines, '20 % lost, 20 % doubled, 300 ± 200 ms, any order', WILD],
  [
    scenarios.slowLine,
    '64 kbit/s, and a backlog',
    {
      backlog: 6000,
      line: { kbit: 64 },
      during: seconds(60),
      writes: { perSecond: 10 },
    },
  ],
  [scenarios.badLines, 'UDP: 20 % of all datagrams lost', { ...LOSSY, ...UDP }],
  [
    scenarios.badLines,
    'UDP: 20 % lost, 20 % doubled, 300 ± 200 ms, any order',
    { ...WILD, ...UDP },
  ],
  [scenarios.killed, 'UDP: kill -9 in a loop, for a minute', { isEnough: isOver(60), ...UDP }],
  [scenarios.stopped, 'SIGSTOP, 3 × 15 s', { times: 3, during: seconds(15) }],
  [scenarios.killed, 'kill -9 in a loop, for 3 minutes', { isEnough: isOver(180) }],
  [
    scenarios.rolling,
    'a rolling upgrade, downgrade, upgrade, 1,000 writes/s',
    { during: seconds(5), writes: { perSecond: 350, atOnce: 64 } },
  ],
  [scenarios.operatorsDay, "an operator's day, 3 minutes", { isEnough: isOver(180) }, ROOT],
  [scenarios.diskFull, 'a disk full, 10 times', { times: 10, writes: { perSecond: 1000 } }, ROOT],
]

// n seconds after it was first asked.
function isOver(n) {
  let end
  return () => {
    end ??= performance.now() + n * 1000
    return performance.now() > end
  }
}

/** The figures of one story, or why it failed. */
async function tell([scenario, title, settings], seed, until) {
  console.error(`${title} ...`)
  const stage = new Stage(seed)
  const began = performance.now()
  try {
    const all = {
      writes: { perSecond: 200 },
      random: randomFrom(seed),
      like: AS_IT_COMES,
      ...settings,
    }
    const result = await Promise.race([stage.play(scenario, all), until])
    return { title, ...result, tookMs: performance.now() - began }
  } catch (error) {
    return { title, problems: [error.stack] }
  } finally {
    await stage.end()
  }
}

const HEAD = ['', 'peers', 'faults', 'writes', 'patches', 'lost', 'healed', 'converged', 'took']
const number = (n) => n.toLocaleString('en-US')
const duration = (ms) => `${(ms / 1000).toFixed(1)} s`

function row({ title, peers, faults, acked, patches, lost, problems, ...times }) {
  if (acked === undefined) return [title, ...Array(7).fill(''), 'FAILED']
  const figures = [peers, faults, acked, patches, lost].map(number)
  const healed = times.healedMs === undefined ? '' : duration(times.healedMs)
  const end = problems.length > 0 ? 'FAILED' : duration(times.tookMs)
  return [title, ...figures, healed, duration(times.convergedMs), end]
}

function choose(names) {
  const begins = (text) => names.some((begin) => text.startsWith(begin))
  if (names.length === 0) return STORIES
  return STORIES.filter(([{ name }, title]) => begins(name) || begins(title))
}

/** Says which stories cannot be told here, and gives the others. */
async function possible(stories) {
  const noNetwork = await whyNoNetwork()
  const isRoot = process.getuid?.() === 0
  return stories.filter(([, title, , needs]) => {
    const why =
      needs === NETWORK ? noNetwork?.why : needs === ROOT && !isRoot && 'only root may mount'
    if (why) console.error(`NOT TOLD: ${title}: ${why}`)
    return !why
  })
}

async function main() {
  const { values, positionals } = parseArgs({
    options: { seed: { type: 'string', default: `${randomInt(2 ** 31)}` } },
    allowPositionals: true,
  })
  const seed = Number(values.seed)
  console.error(`--seed ${seed} repeats the choices; ${availableParallelism()} cores`)
  let interrupt
  const until = new Promise((_, reject) => {
    interrupt = reject
  })
  until.catch(() => {})
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(name, () => {
      process.exitCode = 128 + constants.signals[name]
      interrupt(new Error(name))
    })
  }
  const results = []
  for (const story of await possible(choose(positionals))) {
    if (process.exitCode) break
    results.push(await tell(story, seed, until))
    for (const problem of results.at(-1).problems) console.error(problem)
  }
  console.log(table([HEAD, ...results.map(row)], [0]).join('\n'))
  if (results.some(({ problems }) => problems.length > 0)) process.exitCode ||= 1
}

await main()

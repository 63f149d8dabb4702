// npm run fuzz:js [-- SECONDS [SEED]]: all decoders in JavaScript, and a replica that strangers besiege, for ten minutes,
// from seeds that it draws and prints. Ends with 1 where an exception is not one of ours, a turn of the event loop
// takes more than 50 ms of processor time, memory grows, or an honest link ends.

import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { randomFrom } from '../../examples/demo/random.js'
import { Replica } from '../../lib/index.js'
import { SECRET } from './inputs.js'
import { play } from './play.js'
import { DIALS, siege } from './siege.js'
import { TARGETS } from './targets.js'

const MOST_MS = 50
const MOST_GROWTH = 8 * 1024 * 1024
const STEPS = 2000
const STRANGERS = 200
const [seconds = 600, given = randomInt(2 ** 31)] = process.argv.slice(2).map(Number)
const until = performance.now() + seconds * 1000
const spent = () => Number(readFileSync('/proc/self/schedstat', 'latin1').split(' ')[0]) / 1e6

const folder = mkdtempSync(join(tmpdir(), 'replic-'))
const child = spawn(
  process.execPath,
  [
    '--expose-gc',
    fileURLToPath(new URL('../child/besieged.js', import.meta.url)),
    folder,
    JSON.stringify({ secret: SECRET }),
  ],
  { env: { ...process.env, TURNS: '1' }, stdio: ['pipe', 'pipe', 'inherit'] },
)
const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
const line = async () => {
  const { value, done } = await lines.next()
  if (done) throw new Error('the besieged process has ended')
  return JSON.parse(value)
}
let asking = Promise.resolve()
const ask = (question = {}) => {
  asking = asking.then(() => {
    child.stdin.write(`${JSON.stringify(question)}\n`)
    return line()
  })
  return asking
}
const ports = await line()

const honest = []
for (const [i, dial] of Object.values(DIALS).entries()) {
  const db = await Replica.open(join(folder, `${20 + i}.db`), { peerId: 20 + i, secret: SECRET })
  dial(db, ports)
  await new Promise((resolve) => db.on('link', ({ state }) => state === 'up' && resolve()))
  honest.push(db)
}
const linked = async () => {
  const { links } = await ask()
  return JSON.stringify(links.filter(({ state }) => state === 'ready'))
}

async function round(seed, before) {
  for (const name of Object.keys(TARGETS))
    await play(name, seed, STEPS, { clock: spent, mostMs: MOST_MS })
  await ask()
  await siege(randomFrom(seed), STRANGERS, ports, ask)
  let figures = await ask()
  const { worst } = figures
  while (figures.guests > 0) figures = await ask()
  if (worst > MOST_MS) throw new Error(`a turn of the event loop took ${worst} ms`)
  if (before && figures.bytes > before + MOST_GROWTH) {
    throw new Error(`memory has grown from ${before} to ${figures.bytes} bytes`)
  }
  return figures.bytes
}

let code = 0
let before
let seed = given
const links = await linked()
try {
  for (let n = 0; performance.now() < until; n++, seed = n === 0 ? given : randomInt(2 ** 31)) {
    console.log(`seed ${seed}`)
    const bytes = await round(seed, before)
    if (n === 1) before = bytes // by then all code is warm
    if ((await linked()) !== links) throw new Error(`${links} were linked, now ${await linked()}`)
  }
} catch (error) {
  console.error(`FAILED with seed ${seed}: npm run fuzz:js -- 1 ${seed}\n${error.stack}`)
  code = 1
}
await Promise.all(honest.map((db) => db.close()))
child.stdin.end()
await once(child, 'exit')
rmSync(folder, { recursive: true })
process.exit(code)

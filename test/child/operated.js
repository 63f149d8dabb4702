// Writes without end while somebody does things to its file, and does some itself, when told. Prints with a system
// call of its own for each line: what is printed was so, whatever happens next.
//   "+ <n>"         row n was acknowledged
//   "- <code> <n>"  row n was refused
//   "! <code>"      an 'error' event
//   "= <JSON>"      the answer to a line of input: [name of what, …arguments] as JSON; the first one: { pid }
//   node operated.js <file> <options of open, as JSON>

import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { Replica } from '../../lib/index.js'
import { DEEDS } from './deeds.js'

const [file, options] = process.argv.slice(2)
const AT_ONCE = 4 // writes under way
const NOTES = `
  CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, text TEXT) STRICT;
  CREATE TABLE note_patches (
    _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
    id INTEGER NOT NULL, text TEXT) STRICT`
const say = (line) => writeSync(1, `${line}\n`)

const asks = {
  /** The number of the next write: those from there on begin after this. */
  next: () => next,
  status: () => db.status(),
  /** How many rows a query finds. */
  count: async () => (await db.get('SELECT count(*) AS n FROM note')).n,
  deed: (name, ...args) => DEEDS[name](file, ...args),
}

const db = await Replica.open(file, JSON.parse(options))
db.on('error', ({ code }) => say(`! ${code}`))
await db.migrate([{ up: NOTES }])
let next = 1

async function write() {
  for (;;) {
    const n = next++
    try {
      await db.upsert('note', { id: n, text: `of ${n}` })
      say(`+ ${n}`)
    } catch ({ code }) {
      say(`- ${code} ${n}`)
      await delay(5)
    }
  }
}
say(`= ${JSON.stringify({ pid: process.pid })}`)
for (let i = 0; i < AT_ONCE; i++) write()

for await (const line of createInterface({ input: process.stdin })) {
  const [ask, ...args] = JSON.parse(line)
  try {
    say(`= ${JSON.stringify((await asks[ask](...args)) ?? null)}`)
  } catch ({ code, message }) {
    say(`= ${JSON.stringify({ failed: `${code}: ${message}` })}`)
  }
}
process.exit() // its parent has died

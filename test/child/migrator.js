// Migrates a file up, and down again, and says where it is: before it goes on from a point it waits
// for a line of input, so that it can be killed just there. A line that begins with "!" it does not
// wait at: what follows is one long SQL text.
//   node migrator.js <file> <version to go to first> <version to go to then>

import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { Replica } from '../../lib/index.js'
import { makeSteps } from './migrator-steps.js'

const [file, first, then] = process.argv.slice(2)
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

async function point(name) {
  writeSync(1, `${name}\n`)
  if (!name.startsWith('!')) await lines.next()
}

const db = await Replica.open(file, { peerId: 5 })
await point('opened')
await db.migrate(makeSteps(point), { to: Number(first) })
await point('there')
await db.migrate(makeSteps(point), { to: Number(then) })
await point('back')
await db.close()
writeSync(1, 'done\n')
process.exit()

// A peer of a rolling deployment: it writes without end, whatever version it is told to be at.
//   node roller.js <file> <peerId>
// Prints its port. Then answers each line of input with a line:
//   dial PORT    dials another peer
//   go           begins to write; the answer comes when 50 writes are acknowledged
//   migrate V    goes to that version meanwhile; the answer comes 50 acknowledged writes later
//   stop         ends writing: "<token> <writes> <refused>"
//   wait TOKEN   until it has that
//   tables       what it has: the vector, a sum over all rows, and how many of its own are missing

import { createInterface } from 'node:readline'
import { Replica } from '../../lib/index.js'
import { connect, listen } from '../../lib/transport/tcp.js'

const STEPS = [
  {
    up: `CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT);
      CREATE TABLE note_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        id INTEGER, text TEXT);`,
  },
  {
    name: 'colour',
    up: `ALTER TABLE note ADD COLUMN colour TEXT;
      ALTER TABLE note_patches ADD COLUMN colour TEXT;
      UPDATE note SET text = text;`,
    down: `ALTER TABLE note DROP COLUMN colour;
      ALTER TABLE note_patches DROP COLUMN colour;`,
  },
]
const AT_ONCE = 16 // writes under way
const MORE = 50

const [file, peer] = process.argv.slice(2)
const db = await Replica.open(file, { peerId: Number(peer) })
await db.migrate(STEPS, { to: 1 })
const { port } = (await listen(db, { port: 0 })).address()
console.log(port)

let version = 1
let writing = false
let token = `${peer}.0`
let refused = 0
let wake = () => {}
const written = new Map() // id -> row
let writers = []

async function write() {
  while (writing) {
    const id = Number(peer) * 1e9 + written.size + 1
    const text = `${peer} wrote ${id}`
    const row = version > 1 ? { id, text, colour: `red ${id}` } : { id, text }
    written.set(id, row)
    try {
      token = await db.upsert('note', row)
      wake()
    } catch (error) {
      refused++
      console.error(error)
    }
  }
}

async function more(count) {
  for (let i = 0; i < count; i++) {
    await new Promise((resolve) => {
      wake = resolve
    })
  }
}

// Ends at version 2, which has all columns.
async function missing() {
  const rows = new Map()
  for await (const row of db.iterate('SELECT id, text, colour FROM note')) rows.set(row.id, row)
  return [...written].filter(([id, { text, colour = null }]) => {
    const row = rows.get(id)
    return row?.text !== text || row.colour !== colour
  }).length
}

const answers = {
  dial: (to) => void connect(db, { port: Number(to), retryMinMs: 1, retryMaxMs: 20 }),
  go: async () => {
    writing = true
    writers = Array.from({ length: AT_ONCE }, write)
    await more(MORE)
  },
  migrate: async (to) => {
    if (Number(to) < version) version = Number(to) // an older application knows no newer column
    await db.migrate(STEPS, { to: Number(to) })
    version = Number(to)
    await more(MORE)
  },
  stop: async () => {
    writing = false
    await Promise.all(writers)
    return [token, written.size, refused].join(' ')
  },
  wait: async (wanted) => void (await db.waitFor(wanted, 60_000)),
  tables: async () => {
    const sum =
      'SELECT count(*) AS n, sum(id) AS ids, sum(length(text)) AS bytes, count(colour) AS colours FROM note'
    const { vector } = db.status()
    return JSON.stringify({ vector, ...(await db.get(sum)), missing: await missing() })
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const [what, argument] = line.split(' ')
  console.log((await answers[what](argument)) ?? 'done')
}
await db.close()

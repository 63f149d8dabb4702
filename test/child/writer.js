// Opens a replica, dials a peer, and writes without end. Prints "<token> <id>" for every write that
// was acknowledged, with a system call of its own: what is printed was acknowledged, whatever happens
// next.
//   node writer.js <file> <peerId> <port> <first id>

import { writeSync } from 'node:fs'
import { Replica } from '../../lib/index.js'
import { connect } from '../../lib/transport/tcp.js'

const [file, peerId, port, first] = process.argv.slice(2)
const AT_ONCE = 8 // writes under way

const db = await Replica.open(file, { peerId: Number(peerId) })
connect(db, { port: Number(port), retryMinMs: 1, retryMaxMs: 20 })
let id = Number(first)

async function write() {
  for (;;) {
    const mine = id++
    // Every second group has three rows: a group is stored whole or not at all.
    const rows = mine % 2 ? [mine] : [mine, mine + 0.25, mine + 0.5]
    const token = await db.upsert(
      'note',
      rows.map((rowId) => ({ id: rowId, text: `of ${mine}` })),
    )
    writeSync(1, `${token} ${mine}\n`)
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, write))

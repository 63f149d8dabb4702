// A replica in a process of its own, so that its clock can be another one. Takes a file and a peerId;
// prints the port it listens on; then for each line [name, ...arguments] the result of that command.

import { createInterface } from 'node:readline'
import { Replica } from '../../lib/index.js'
import { connect, listen } from '../../lib/transport/tcp.js'

const [path, peerId, ddl] = process.argv.slice(2)
const db = await Replica.open(path, { peerId: Number(peerId), heartbeatMs: 20 })
await db.migrate([{ up: ddl }])
const troubles = []
let tell = () => {}
db.on('link', (event) => {
  if (event.state !== 'error') return
  troubles.push(event)
  tell()
})

const errors = []
let tellError = () => {}
db.on('error', ({ code, message }) => {
  errors.push({ code, message })
  tellError()
})

const commands = {
  /** The first 'error' event. */
  error: async () => {
    if (errors.length === 0) await new Promise((resolve) => (tellError = resolve))
    return errors[0]
  },
  connect: (port) => connect(db, { port }) && null,
  upsert: (row) => db.upsert('note', row),
  waitFor: (token) => db.waitFor(token, 60_000).then(() => null),
  rows: () => db.all('SELECT id, text FROM note ORDER BY id'),
  status: () => db.status(),
  now: () => Date.now(),
  /** The first trouble of a link. */
  trouble: async () => {
    if (troubles.length === 0) await new Promise((resolve) => (tell = resolve))
    return troubles[0]
  },
}

const listener = await listen(db)
console.log(listener.address().port)
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line)
  console.log(JSON.stringify(await commands[name](...args)))
}
await db.close()

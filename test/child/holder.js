// Has a replica open, and does what it is told, until it is killed.
//   node holder.js <file> <options of open, as JSON>
// Prints "open", or the error. Then each line of input is [function, …arguments] as JSON: it is called with
// `tools` and the arguments, and its result, or error, is the answer.

import fs from 'node:fs'
import { createInterface } from 'node:readline'
import { Replica } from '../../lib/index.js'
import { connect, listen } from '../../lib/transport/tcp.js'

const [file, options] = process.argv.slice(2)
const told = ({ code, message }) => ({ error: { code, message } })
const events = []
const load = (module) => import(module)
const tools = { Replica, listen, connect, fs, load, events, db: undefined }

try {
  tools.db = await Replica.open(file, JSON.parse(options))
  tools.db.on('error', (event) => events.push(told(event).error))
  console.log('open')
} catch (error) {
  console.log(JSON.stringify(told(error)))
  process.exit()
}

for await (const line of createInterface({ input: process.stdin })) {
  const [text, ...args] = JSON.parse(line)
  const call = new Function(`return ${text}`)()
  const answer = await Promise.resolve(call(tools, ...args)).then((result) => ({ result }), told)
  console.log(JSON.stringify(answer))
}

// Dials where the npm package ws is not installed, and says how it goes.
//   node test/child/websocket.js <url> <folder> <plain|headers>

import Module from 'node:module'
import { join } from 'node:path'
import { Replica } from '../../lib/index.js'
import { connect } from '../../lib/transport/websocket.js'

const { _resolveFilename: resolveFilename } = Module
Module._resolveFilename = (name, ...rest) =>
  resolveFilename(name === 'ws' ? 'not-there' : name, ...rest)

const [url, folder, what] = process.argv.slice(2)
const db = await Replica.open(join(folder, 'a.db'))
try {
  const linked = new Promise((resolve) => db.on('link', ({ state }) => state === 'up' && resolve()))
  connect(db, url, what === 'headers' ? { headers: { authorization: 'x' } } : {})
  await linked
  console.log('linked')
} catch ({ code, message }) {
  console.log(code, message)
}
await db.close()

// The hub of links.js that is killed. Its argument is JSON: path of its file, and the port to listen at, 0 for any.
// Sends the port when it listens.

import { listen } from '../lib/transport/tcp.js'
import { openReplic } from './replic.js'

const { path, port } = JSON.parse(process.argv[2])
const db = await openReplic(path, 'NORMAL', 1)
const { address } = await listen(db, { port })
process.on('disconnect', () => process.exit())
process.send(address().port)

// One peer of the demo: a process with a database file of its own. It does what its parent asks for
// ({ id, ask, ... } over IPC, answered by { id, ... }), and tells by itself what it has
// acknowledged ({ acked }) and how it stands ({ vector, linksUp, rows }).

import { Replica } from 'replic-sqlite'
import { connect, listen } from 'replic-sqlite/tcp'
import { MIGRATIONS, readCities } from './cities.js'
import { digestAll } from './digest.js'
import { editor } from './edit.js'

const IN_FLIGHT = 32 // edits under way at a time
const STATE_MS = 100 // a state that has changed is told at most this often
const ROWS_MS = 500 // how often rows are counted
const REDIAL = { retryMinMs: 50, retryMaxMs: 500 }

let db
let config
let listener
let dialers = []
let editing = null // while it edits: a promise of its end
let stopping = false

const asks = {
  async open(given) {
    config = given
    db = await Replica.open(config.path)
    db.on('error', fail)
    await db.migrate(MIGRATIONS)
    const { port } = await startListening(config.port)
    tellStates()
    const { peerId, vector } = db.status()
    return { peerId, port, vector }
  },

  /** Dials the peers before this one; those behind dial it. */
  link({ ports }) {
    config.ports = ports
    dialAll()
  },

  async load() {
    const cities = readCities(config.rows)
    const mine = cities.filter(({ id }) => id % config.peers === config.index)
    acknowledge(await db.load('city', mine))
    const codes = [...new Set(mine.map(({ country }) => country))]
    const countries = codes.map((code) => ({ code, edits: 0 }))
    acknowledge(await db.load('country', countries))
    return { mine: mine.length, all: cities.length }
  },

  async edit() {
    const cities = await db.all('SELECT country, id, name FROM city ORDER BY id')
    const edit = editor(db, cities, config)
    const work = async () => {
      while (!stopping) acknowledge(await edit())
    }
    editing = Promise.all(Array.from({ length: IN_FLIGHT }, work))
    editing.catch(fail)
  },

  async stop() {
    stopping = true
    await editing
    return { acked: lastAcked, vector: db.status().vector }
  },

  /** Off the network: no link, none accepted, none dialed. */
  async cut() {
    await Promise.all([listener, ...dialers].map((endpoint) => endpoint.close()))
    dialers = []
  },

  async heal() {
    await startListening(config.port)
    dialAll()
  },

  async digest() {
    const tables = await digestAll(db)
    return { tables, vector: db.status().vector }
  },

  async close() {
    clearInterval(statesTimer)
    await db.close()
  },
}

async function startListening(port) {
  listener = await listen(db, { port })
  config.port = listener.address().port
  return { port: config.port }
}

function dialAll() {
  dialers = config.ports.map((port) => connect(db, { port, ...REDIAL }))
}

// ---- what it tells by itself ----

let lastAcked = 0
let ackIsDue = false

// At once, so that a kill finds little untold; but once for all that one commit acknowledges.
function acknowledge(token) {
  lastAcked = Math.max(lastAcked, Number(token.split('.')[1]))
  if (ackIsDue) return
  ackIsDue = true
  setImmediate(() => {
    ackIsDue = false
    tell({ acked: lastAcked })
  })
}

let statesTimer
let counted = 0
let stateIsDue = false

function tellStates() {
  const count = async () => {
    counted = (await db.get('SELECT count(*) AS n FROM city WHERE deletedAt IS NULL')).n
    tellState()
  }
  statesTimer = setInterval(() => count().catch(failUnlessClosed), ROWS_MS)
  db.on('change', stateChanged)
  db.on('synced', stateChanged)
  db.on('link', stateChanged)
}

function stateChanged() {
  if (stateIsDue) return
  stateIsDue = true
  setTimeout(() => {
    stateIsDue = false
    tellState()
  }, STATE_MS)
}

function tellState() {
  const { vector, links } = db.status()
  const linksUp = links.filter(({ state }) => state === 'ready').length
  tell({ vector, linksUp, rows: counted })
}

function tell(message) {
  if (process.connected) process.send(message)
}

// ---- the parent's side of it ----

function fail(error) {
  tell({ failed: error?.stack ?? String(error) })
}

function failUnlessClosed(error) {
  if (error.code !== 'REPLIC_CLOSED') fail(error)
}

process.on('message', async ({ id, ask, ...args }) => {
  try {
    tell({ id, ...(await asks[ask](args)) })
    if (ask === 'close') process.disconnect()
  } catch (error) {
    fail(error)
  }
})
process.on('disconnect', () => process.exit()) // the parent has died, or all is done
process.on('SIGINT', () => {}) // Ctrl-C reaches the whole group: the parent ends its children

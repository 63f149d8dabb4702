// One peer of the chaos tests: a process with a database file of its own, which its parent starts, stops,
// kills and asks ({ id, ask, ... } over IPC, answered by { id, ... }). It writes without end, and records
// every write on its output, with a system call of its own for each: '+ <token> <n>' if it was
// acknowledged, '- <code> <n>' if it was refused. What has been recorded was so, whatever happens next.

import { writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { digestAll } from '../../examples/demo/digest.js'
import { randomFrom } from '../../examples/demo/random.js'
import { Replica } from '../../lib/index.js'
import { connect, listen } from '../../lib/transport/tcp.js'
import { bind, peer } from '../../lib/transport/udp.js'
import { DEEDS } from '../child/deeds.js'

// What a write may be refused with, and go on.
const REFUSALS = ['SQLITE_FULL', 'SQLITE_BUSY', 'REPLIC_BUSY', 'REPLIC_FILE_GONE']
const SHARED_ROWS = 32
const LONG_MS = 600_000

// fact: a key for every write, never written again. shared: few keys, written by all. Version 2 has another
// column of each fact, and has lost one; and what is called c in version 1 is called see.
const both = (table, change) =>
  `ALTER TABLE ${table} ${change}; ALTER TABLE ${table}_patches ${change};`
const MIGRATIONS = [
  {
    up: `
      CREATE TABLE fact (
        writer INTEGER NOT NULL, life INTEGER NOT NULL, n INTEGER NOT NULL, part INTEGER NOT NULL,
        body TEXT NOT NULL, note TEXT,
        PRIMARY KEY (writer, life, n, part)
      ) STRICT;
      CREATE TABLE fact_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        writer INTEGER NOT NULL, life INTEGER NOT NULL, n INTEGER NOT NULL, part INTEGER NOT NULL,
        body TEXT, note TEXT
      ) STRICT;
      CREATE TABLE shared (
        id INTEGER NOT NULL PRIMARY KEY, a TEXT, b TEXT, c TEXT
      ) STRICT;
      CREATE TABLE shared_patches (
        _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL,
        id INTEGER NOT NULL, a TEXT, b TEXT, c TEXT
      ) STRICT;`,
  },
  {
    name: 'see',
    up: `${both('fact', 'ADD COLUMN extra TEXT')}
      ${both('fact', 'DROP COLUMN note')}
      ${both('shared', 'RENAME COLUMN c TO see')}`,
    down: `${both('shared', 'RENAME COLUMN see TO c')}
      ${both('fact', 'ADD COLUMN note TEXT')}
      ${both('fact', 'DROP COLUMN extra')}`,
    rename: { 'shared.c': 'shared.see' },
  },
]
const COLUMN_OF_VERSION = { 1: 'note', 2: 'extra' } // of fact, which only that version has
const THIRD_SHARED = { 1: ['c'], 2: ['see'] }
const sharedColumns = () => ['a', 'b', ...(THIRD_SHARED[version] ?? [])]

// Which writes of which process are here, as ranges of n.
const WRITTEN = `
  WITH writes AS (SELECT DISTINCT writer, life, n FROM fact),
    islands AS (
      SELECT writer, life, n, n - row_number() OVER (PARTITION BY writer, life ORDER BY n) AS island
      FROM writes
    ),
    ranges AS (
      SELECT writer, life, min(n) AS low, max(n) AS high FROM islands GROUP BY writer, life, island
      ORDER BY writer, life, low
    )
  SELECT writer, life, json_group_array(json_array(low, high)) AS ranges
  FROM ranges GROUP BY writer, life`

// Writes that are not whole (every third has three rows), or have another content than was written: the body
// ends with the version that its writer was at, and that version's column has the body again.
const torn = () => `
  SELECT writer, life, n FROM fact GROUP BY writer, life, n
  HAVING count(*) <> iif(n % 3, 1, 3)
    OR sum(body NOT GLOB format('%d/%d/%d/%d v[0-2]', writer, life, n, part)) > 0
    OR sum(${COLUMN_OF_VERSION[version]} IS NOT iif(body LIKE '% v${version}', body, NULL)) > 0
  LIMIT 5`

// Origins whose patches in the log are not 1 to the vector's, each once.
const HOLES = `
  WITH log AS (
    SELECT _peerId AS origin, _sequenceId AS sequence FROM fact_patches
    UNION ALL SELECT _peerId, _sequenceId FROM shared_patches
  )
  SELECT v.origin, v.sequence, count(DISTINCT log.sequence) AS n, max(log.sequence) AS last
  FROM _replic_vector v LEFT JOIN log ON log.origin = v.origin
  GROUP BY v.origin
  HAVING v.sequence > 0 AND (n <> v.sequence OR last <> v.sequence)`

// Cells that do not have the value with the greatest clock in the log.
const cells = () =>
  sharedColumns()
    .map(
      (name) => `
  SELECT id, '${name}' AS name, "${name}" AS value FROM shared WHERE "${name}" IS NOT (
    SELECT "${name}" FROM shared_patches p WHERE p.id = shared.id AND "${name}" IS NOT NULL
    ORDER BY _patchedAt DESC, _peerId DESC, _sequenceId DESC LIMIT 1)`,
    )
    .join(' UNION ALL ')

// Both with { host, port }: one that others dial, and dialing one.
const TRANSPORTS = {
  tcp: { listen, dial: connect },
  udp: {
    listen: (db, { host, ...options }) => bind(db, { address: host, ...options }),
    dial: (db, { host, ...options }) => peer(db, { address: host, ...options }),
  },
}

let db
let config
let version = 1
let stopping = false
let writing = Promise.resolve()

const asks = {
  /** Opens the file, and listens. */
  async open(given) {
    config = given
    db = await Replica.open(config.path, config.options)
    db.on('link', (event) => tell({ event: { name: 'link', ...event } }))
    db.on('error', ({ code, message }) => tell({ event: { name: 'error', code, message } }))
    await db.migrate(MIGRATIONS, { to: version })
    const listener = await TRANSPORTS[config.transport].listen(db, config.listen)
    const { peerId, vector } = db.status()
    return { peerId, vector, port: listener.address().port }
  },

  /** Goes to that version of the schema while it writes: meanwhile what both versions have. */
  async migrate({ to }) {
    version = 0
    await db.migrate(MIGRATIONS, { to })
    version = to
  },

  link({ dials }) {
    for (const dial of dials) TRANSPORTS[config.transport].dial(db, { ...config.dial, ...dial })
  },

  /**
   * Begins to write: `atOnce` writes under way, `perSecond` of them a second (0: as fast as it goes), until
   * stop(), or `count` of them.
   */
  write({ atOnce = 4, perSecond = 0, count = Infinity }) {
    stopping = false
    const random = randomFrom(config.seed + config.life)
    const pauseMs = perSecond > 0 ? (1000 * atOnce) / perSecond : 0
    const next = counter(count)
    writing = Promise.all(Array.from({ length: atOnce }, () => writeOn(next, random, pauseMs)))
    writing.catch(fail)
  },

  async stop() {
    stopping = true
    await writing
  },

  /** Resolves when all tokens are applied here. */
  async wait({ tokens }) {
    await Promise.all(tokens.map((token) => db.waitFor(token, LONG_MS)))
  },

  status: () => db.status(),

  /** All that the ledger's check needs. */
  async state() {
    const [written, ...found] = await Promise.all(
      [WRITTEN, torn(), HOLES, cells()].map((sql) => db.all(sql)),
    )
    const tables = await digestAll(db)
    const { peerId, vector } = db.status()
    const [tornWrites, holes, wrongCells] = found
    return { peerId, vector, tables, written, torn: tornWrites, holes, cells: wrongCells }
  },

  /** Past the replica, to its file: see deeds.js. */
  deed: ({ name, args }) => DEEDS[name](config.path, ...args),

  verify: () => db.verify(undefined, { timeoutMs: LONG_MS }),

  /** Past the replica's back: to see that the check finds it. */
  spoil: ({ sql }) => db.run(sql, [], { unsafe: true }),
}

// The numbers of the writes of one write(): 1, 2, 3, ... over all calls of it in this process.
let lastN = 0
function counter(count) {
  const end = lastN + count
  return () => (lastN < end ? ++lastN : undefined)
}

async function writeOn(next, random, pauseMs) {
  while (!stopping) {
    const n = next()
    if (n === undefined) return
    await writeOne(n, random)
    if (pauseMs > 0) await delay(pauseMs)
  }
}

async function writeOne(n, random) {
  const { life } = config
  const writer = db.toJSON().peerId
  const facts = Array.from({ length: n % 3 ? 1 : 3 }, (_, part) => {
    const body = `${writer}/${life}/${n}/${part} v${version}`
    const own = COLUMN_OF_VERSION[version]
    return { writer, life, n, part, body, ...(own && { [own]: body }) }
  })
  const columns = sharedColumns()
  const column = columns[random(columns.length)]
  const shared = { id: random(SHARED_ROWS), [column]: `${writer} ${life} ${n}` }
  try {
    const token = await db.batch((tx) => {
      tx.upsert('fact', facts)
      tx.upsert('shared', shared)
    })
    writeSync(1, `+ ${token} ${n}\n`)
  } catch (error) {
    if (!REFUSALS.includes(error.code)) throw error
    writeSync(1, `- ${error.code} ${n}\n`)
  }
}

// ---- the parent's side of it ----

function tell(message) {
  if (process.connected) process.send(message)
}

function fail(error) {
  tell({ failed: `${error?.code} ${error?.stack ?? error}` })
}

process.on('message', async ({ id, ask, ...args }) => {
  try {
    tell({ id, answer: (await asks[ask](args)) ?? {} })
  } catch (error) {
    tell({ id, failed: error?.stack ?? String(error) })
  }
})
process.on('disconnect', () => process.exit()) // the parent has died
process.on('SIGINT', () => {}) // Ctrl-C reaches the whole group: the parent ends its children

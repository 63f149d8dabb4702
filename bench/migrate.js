// npm run bench:migrate [-- ROWS]: a replica serves 1,000 writes a second and one read after another while
// a migration rewrites all of 1,000,000 rows. How long does the longest write wait, and how long do reads
// take: in turn without and with a migration, five times each, on one file.

import { Replica } from '../lib/index.js'
import { inTurn, median, seconds, table, withFile } from './harness.js'

const ROWS = Number(process.argv[2] ?? 1_000_000)
const WRITES_PER_MS = 1
const QUIET_MS = 2_000 // how long a round without a migration serves

const ITEMS = `
  CREATE TABLE item (id INTEGER PRIMARY KEY, text TEXT, size INTEGER, deletedAt INTEGER);
  CREATE TABLE item_patches (
    _patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls TEXT,
    id INTEGER, text TEXT, size INTEGER, deletedAt INTEGER);`
const FILL = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
  INSERT INTO item (id, text, size) SELECT i, printf('%0100d', i), i FROM n;`
const REWRITE = "UPDATE item SET size = size + 1, text = text || '!'"
const steps = [{ up: ITEMS }, { up: FILL }]

const turn = () => new Promise((resolve) => setImmediate(resolve))
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Writes at WRITES_PER_MS and reads all the time, until `work` is done; the latencies in ms. */
async function serve(db, work) {
  const began = performance.now()
  const writes = []
  const reads = []
  const calls = []
  let refused = 0
  let done = false
  const write = async () => {
    const called = performance.now()
    const id = 1 + (calls.length % ROWS)
    try {
      await db.upsert('item', { id, size: calls.length })
      writes.push(performance.now() - called)
    } catch {
      refused++
    }
  }
  const writing = async () => {
    while (!done) {
      const due = (performance.now() - began) * WRITES_PER_MS
      while (calls.length < due) calls.push(write())
      await turn()
    }
  }
  const reading = async () => {
    for (let i = 0; !done; i++) {
      const called = performance.now()
      await db.get('SELECT * FROM item WHERE id = ?', [1 + ((i * 7919) % ROWS)])
      reads.push(performance.now() - called)
    }
  }
  const serving = [writing(), reading()]
  const took = await seconds(work)
  done = true
  await Promise.all([...serving, ...calls])
  return { seconds: took, writes, reads, refused, written: calls.length }
}

const quantile = (list, q) => {
  const sorted = [...list].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]
}

function figures({ seconds: took, writes, reads, refused, written }) {
  return {
    'seconds that it took': took,
    'writes per second': written / took,
    'writes refused': refused,
    'write, median, ms': quantile(writes, 0.5),
    'write, longest, ms': quantile(writes, 1),
    'read, median, ms': quantile(reads, 0.5),
    'read, 99 %, ms': quantile(reads, 0.99),
    'read, longest, ms': quantile(reads, 1),
    'reads per second': reads.length / took,
  }
}

const measured = await withFile(async (path) => {
  const db = await Replica.open(path)
  await db.migrate(steps)
  const rewrite = () => {
    steps.push({ name: 'rewrite', up: REWRITE })
    return db.migrate(steps)
  }
  const result = await inTurn({
    without: async () => figures(await serve(db, () => pause(QUIET_MS))),
    with: async () => figures(await serve(db, rewrite)),
  })
  await db.close()
  return result
})

const show = (n) => (n >= 100 ? n.toFixed(0) : n.toFixed(2))
const rows = Object.keys(measured.with[0]).map((name) => {
  const [quiet, during] = [measured.without, measured.with].map((rounds) =>
    median(rounds.map((round) => round[name])),
  )
  return [name, show(quiet), show(during), quiet > 0 ? (during / quiet).toFixed(2) : '-']
})
console.log(
  table([[`${ROWS} rows`, 'no migration', 'migration', 'ratio'], ...rows], [0]).join('\n'),
)

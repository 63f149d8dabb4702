// Applying what another process has written, over TCP on this machine, from the dial until everything is
// applied and committed; against the floor, which has the rows at hand, and against inserting the same rows into
// a plain table.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { connect } from '../lib/transport/tcp.js'
import { makeRows } from './data.js'
import { floor, floorRate, seconds, withFile } from './harness.js'
import { MAIN, openMain } from './peers.js'
import { closeReplic, openReplic } from './replic.js'

const PATCHES = 200_000
const HOT_KEYS = 10_000
const PER_TRANSACTION = 1000
const LONG_MS = 600_000
const SOURCE = fileURLToPath(new URL('source.js', import.meta.url))
const FLOOR = 'C, same b-tree writes'

/** Runs a source, see there, and `use({ port, peerId, token })` meanwhile. */
export function withSource(options, use) {
  const given = { rows: PATCHES, perGroup: PER_TRANSACTION, keys: 2 ** 32, order: 'up', ...options }
  return withFile(async (path) => {
    const child = fork(SOURCE, [JSON.stringify({ ...given, path })])
    const [source] = await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(() => Promise.reject(new Error('the source of patches has died'))),
    ])
    try {
      return await use(source)
    } finally {
      const ended = once(child, 'exit')
      child.disconnect()
      await ended
    }
  })
}

/** Seconds until an empty peer has all of a source. `before(db)`: what it does first. */
export const secondsToApply = ({ port, token }, mode, rows, before) =>
  withFile(async (path) => {
    const db = await openReplic(path, mode)
    await before?.(db)
    const time = await seconds(() => {
      connect(db, { port })
      return db.waitFor(token, LONG_MS)
    })
    await closeReplic(db, rows)
    return time
  })

const insertAll = (mode) =>
  withFile(async (path) => {
    const db = openMain(path, mode)
    const rows = makeRows(PATCHES)
    const time = await seconds(() => {
      for (let i = 0; i < PATCHES; i += PER_TRANSACTION)
        db.putMany(rows.slice(i, i + PER_TRANSACTION))
    })
    db.close(PATCHES)
    return PATCHES / time
  })

// FULL is the default. There the inserts pay one sync per transaction, and applying fewer, since a commit
// covers all frames that have arrived; NORMAL leaves the syncs away, and shows the work itself.
const applying = (perGroup, mode) => ({
  name: `apply-${perGroup}-${mode}`,
  title: `apply 200,000 inserts, groups of ${perGroup.toLocaleString('en-US')}, ${mode}`,
  around: (measure) =>
    withSource({ perGroup }, (source) =>
      measure({
        'replic-sqlite': async () => PATCHES / (await secondsToApply(source, mode, PATCHES)),
        [MAIN]: () => insertAll(mode),
        [FLOOR]: () => floorRate('apply', 'key', 'up', mode, PATCHES, PER_TRANSACTION),
      }),
    ),
  reach: { [FLOOR]: 0.75 },
})

const updating = {
  name: 'apply-updates',
  title: 'apply 200,000 updates of 10,000 rows, NORMAL',
  around: (measure) =>
    withSource({ keys: HOT_KEYS }, (source) =>
      measure({
        'replic-sqlite': async () => PATCHES / (await secondsToApply(source, 'NORMAL', HOT_KEYS)),
        [FLOOR]: () => floorRate('update', 'key', 'up', 'NORMAL', PATCHES, PER_TRANSACTION),
      }),
    ),
}

const beingLate = {
  name: 'apply-late',
  title: 'apply 200,000 patches to rows that all have newer ones, NORMAL',
  around: (measure) =>
    withSource({}, (source) =>
      measure({
        'replic-sqlite': async () =>
          PATCHES /
          (await secondsToApply(source, 'NORMAL', PATCHES, (db) =>
            db.load('item', makeRows(PATCHES)),
          )),
        [FLOOR]: () => floorRate('apply', 'key', 'up', 'NORMAL', PATCHES, PER_TRANSACTION),
      }),
    ),
  rounds: 3,
}

const jumping = {
  name: 'apply-jump',
  title: 'jump over 200,000 patches of a pruned log, NORMAL',
  around: (measure) =>
    withSource({ pruned: true }, (source) =>
      measure({
        'replic-sqlite': async () => PATCHES / (await secondsToApply(source, 'NORMAL', PATCHES)),
        [FLOOR]: () => floorRate('apply', 'key', 'up', 'NORMAL', PATCHES, PER_TRANSACTION),
      }),
    ),
}

// ---- as the log grows ----

/** Up to which numbers of rows a rate is measured, each from the one before. */
function sizes(rows) {
  const list = []
  for (let size = 10_000; size < rows; size *= 10) list.push(size)
  return [...list, rows]
}

const label = (size) => `to ${size.toLocaleString('en-US')}`

const applyGrowing = ({ port, peerId }, rows) =>
  withFile(async (path) => {
    const db = await openReplic(path, 'NORMAL')
    const rates = {}
    let [last, at] = [0, performance.now()]
    connect(db, { port })
    for (const size of sizes(rows)) {
      await db.waitFor(`${peerId}.${size}`, LONG_MS)
      const now = performance.now()
      rates[label(size)] = ((size - last) / (now - at)) * 1000
      ;[last, at] = [size, now]
    }
    await closeReplic(db, rows)
    return rates
  })

const growing = (order, rows, extra) => ({
  name: `grow-${order}-${rows}`,
  title: `apply as the log grows, keys ${order === 'up' ? 'in order' : 'in random order'}, NORMAL`,
  around: (measure) =>
    withSource({ order, rows }, (source) =>
      measure({
        'replic-sqlite': () => applyGrowing(source, rows),
        [FLOOR]: async () => {
          const lines = await floor('grow', 'key', order, 'NORMAL', rows, PER_TRANSACTION)
          return Object.fromEntries(lines.map(([size, rate]) => [label(size), rate]))
        },
      }),
    ),
  rounds: 1,
  ...extra,
})

export const benches = [
  applying(1, 'NORMAL'),
  applying(PER_TRANSACTION, 'NORMAL'),
  applying(PER_TRANSACTION, 'FULL'),
  updating,
  beingLate,
  jumping,
  growing('up', 1_000_000),
  growing('random', 100_000),
  growing('up', 10_000_000, { onlyByName: true }),
  growing('random', 1_000_000, { onlyByName: true }),
]

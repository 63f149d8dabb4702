// Applying what another process has written, over TCP on this machine, from the dial until everything is
// applied and durable; against inserting the same rows into a plain table.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { connect } from 'replic-sqlite/tcp'
import { closeBetter, openBetter } from './better.js'
import { makeRows } from './data.js'
import { seconds, withFile } from './harness.js'
import { closeReplic, openReplic } from './replic.js'

const PATCHES = 200_000
const PER_TRANSACTION = 1000
const LONG_MS = 120_000
const SOURCE = fileURLToPath(new URL('source.js', import.meta.url))

/**
 * Runs a source with a log of `perGroup` rows a group, and `use({ port, token })` meanwhile. `log`: 'whole',
 * or 'pruned', so that an empty peer has to jump.
 */
export function withSource(perGroup, use, log = 'whole') {
  return withFile(async (path) => {
    const child = fork(SOURCE, [path, `${PATCHES}`, `${perGroup}`, log])
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

const applyAll = ({ port, token }, mode) =>
  withFile(async (path) => {
    const db = await openReplic(path, mode)
    const time = await seconds(() => {
      connect(db, { port })
      return db.waitFor(token, LONG_MS)
    })
    await closeReplic(db, PATCHES)
    return PATCHES / time
  })

const insertAll = (mode) =>
  withFile(async (path) => {
    const { db, insertMany } = openBetter(path, mode)
    const rows = makeRows(PATCHES)
    const time = await seconds(() => {
      for (let i = 0; i < PATCHES; i += PER_TRANSACTION) {
        insertMany(rows.slice(i, i + PER_TRANSACTION))
      }
    })
    closeBetter(db, PATCHES)
    return PATCHES / time
  })

// FULL is the default. There the inserts pay one sync per transaction, and applying fewer, since a commit
// covers all frames that have arrived; NORMAL leaves the syncs away, and shows the work itself.
const applying = (perGroup, mode) => ({
  name: `apply-${perGroup}-${mode}`,
  title: `apply 200,000 patches, groups of ${perGroup.toLocaleString('en-US')}, ${mode}`,
  against: 'inserts, transactions of 1,000 rows',
  around: (measure) =>
    withSource(perGroup, (source) =>
      measure({ replic: () => applyAll(source, mode), better: () => insertAll(mode) }),
    ),
})

const jumping = {
  name: 'apply-jump-NORMAL',
  title: 'jump over 200,000 patches of a pruned log, NORMAL',
  against: 'inserts, transactions of 1,000 rows',
  around: (measure) =>
    withSource(
      PER_TRANSACTION,
      (source) =>
        measure({ replic: () => applyAll(source, 'NORMAL'), better: () => insertAll('NORMAL') }),
      'pruned',
    ),
}

export const benches = [
  applying(1, 'NORMAL'),
  applying(1, 'FULL'),
  applying(PER_TRANSACTION, 'FULL'),
  jumping,
]

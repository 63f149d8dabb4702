// What status() shows, made of what each part of a replica tells.

import { statSync } from 'node:fs'
import { printable } from './base/errors.js'

/** What status() returns; `parts` as in parts.js. */
export function statusOf(parts) {
  const figures = parts.native.figures()
  const { clock, logRows, queueBytes, lockedSince, batchCalls, batchSeconds, counters } = figures
  const clockAheadMs = Math.max(0, clock - Date.now())
  return {
    peerId: parts.peerId,
    path: parts.path,
    state: parts.state,
    fileGone: parts.gone?.message ?? null,
    vector: Object.fromEntries(parts.progress.vector),
    tables: parts.names.list(),
    clock,
    clockAheadMs,
    clockRaisedBy: clockAheadMs ? figures.clockRaisedBy || null : null,
    clockOffMs: figures.clockOffMs,
    logRows,
    pending: parts.pendingPatches.map(pendingPatch),
    stuck: {
      rows: parts.stuck.rows,
      first: parts.stuck.first.map((row) => ({ ...row, key: JSON.parse(row.key) })),
    },
    fileBytes: sizeOf(parts.path),
    walBytes: sizeOf(`${parts.path}-wal`),
    queue: { calls: parts.writer.pending, bytes: queueBytes },
    lockedSince: lockedSince || null,
    waits: parts.progress.waiting + parts.acks.waiting,
    batches: { calls: histogram(batchCalls), seconds: histogram(batchSeconds) },
    links: parts.links.status(),
    uncheckedJumps: [...parts.recheck.sources],
    refusedLinks: parts.links.refusals,
    counters,
  }
}

// Its names may come from another peer.
const pendingPatch = ({ table, why, patches, oldestAt }) => ({
  table: printable(table),
  why: printable(why),
  patches,
  oldestAt,
})

const sizeOf = (path) => statSync(path, { throwIfNoEntry: false })?.size ?? 0

// The bounds come flat: bound, how many are not above it, and again.
function histogram({ count, sum, max, buckets }) {
  const pairs = buckets.filter((_, i) => i % 2 === 0)
  return {
    count,
    sum,
    max,
    buckets: pairs.map((le, i) => ({ le, count: buckets[2 * i + 1] })),
  }
}

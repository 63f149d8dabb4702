// The verdict: per peer the vector, the rows and a digest of every replicated table; whether they are
// equal; and whether every write that was acknowledged is there.

import { number, table } from './ui.js'

/**
 * Lines to print, and whether all is well. `peers`: [{ name, peerId, acked, vector, tables }] with
 * tables: [{ name, rows, digest }].
 */
export function report(peers) {
  const verdicts = peers.map((peer) => acknowledged(peer, peers))
  const equal = peers.every((peer) => isEqual(peer, peers[0]))
  const lines = [
    ...summary(peers),
    '',
    ...verdicts.map(({ line }) => line),
    `vectors and tables of all ${peers.length} peers: ${equal ? 'equal' : 'NOT EQUAL'}`,
  ]
  return { lines, ok: equal && verdicts.every(({ ok }) => ok) }
}

function summary(peers) {
  const origins = peers.map(({ peerId }) => peerId)
  const ofVector = origins.map((_, i) => `vector[${i}]`)
  const rows = peers.flatMap(({ name, peerId, vector, tables }) =>
    tables.map((each, i) => {
      const peer = [name, `${peerId}`, ...origins.map((origin) => number(vector[origin] ?? 0))]
      return [
        ...(i === 0 ? peer : peer.map(() => '')),
        each.name,
        number(each.rows),
        each.digest.slice(0, 16),
      ]
    }),
  )
  const head = ['peer', 'peerId', ...ofVector, 'table', 'rows', 'sha256']
  return table([head, ...rows], [0, head.indexOf('table')])
}

function acknowledged({ name, peerId, acked }, peers) {
  const lacking = peers.filter(({ vector }) => (vector[peerId] ?? 0) < acked)
  const where = lacking.map((peer) => peer.name).join(', ')
  const verdict = where ? `MISSING on ${where}` : 'present on every peer'
  const line = `${name} acknowledged its patches up to ${number(acked)}: ${verdict}`
  return { line, ok: lacking.length === 0 }
}

// Vectors as they are when the tables are read; in which order the origins were heard of is no matter.
function isEqual(one, other) {
  const text = ({ vector, tables }) => JSON.stringify([Object.entries(vector).sort(), tables])
  return text(one) === text(other)
}

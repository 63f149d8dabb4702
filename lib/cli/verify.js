// replic-sqlite verify FILE [FILE|URL]

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Replica } from '../replica.js'
import { listen } from '../transport/tcp.js'
import { copy, EXIT, integer, isUrl, Peek, print, toJson } from './command.js'
import * as peers from './peers.js'
import { linked } from './status.js'

export const help = `replic-sqlite verify FILE [FILE|URL] [options]

Of one file: is it sound? SQLite's own check, and whether the log has what the vector claims.
With another file, or the URL of a running peer (tcp://, tls://, ws://, wss://, http://, https://, udp://):
are the replicated tables equal? Works on copies in the system's folder for temporary files, so neither file is
changed, both may be in use, and there must be room. The copies are linked first, so that one that is
merely behind is no difference. A running peer sees a new peer for as long as it takes.

  --timeout-ms N       how long to wait for the other side (default 60000)
${peers.LINK_HELP}  --json

Exit code 3: a difference, or damage.
`
export const options = { 'timeout-ms': { type: 'string' }, ...peers.LINK_OPTIONS }
export const files = [1, 2]

export async function run({ values, files: [file, other], json }) {
  const timeoutMs = integer('verify', 'timeout-ms', values['timeout-ms'], 1, 2 ** 31 - 1) ?? 60_000
  const peek = new Peek('verify', file)
  if (other === undefined) return ofFile(peek, json)
  const secret = peers.secretOf('verify', values)
  const link = isUrl(other)
    ? {
        url: peers.parseUrl('verify', 'URL', other, peers.DIALED),
        tls: peers.tlsOf('verify', values),
      }
    : { peek: new Peek('verify', other) }
  const folder = mkdtempSync(join(tmpdir(), 'replic-verify-'))
  const open = []
  try {
    const { report, behind } = await compare({ peek, link, folder, open, secret, timeoutMs })
    print(json ? toJson({ ...report, behind }) : asText(report, behind, file, other))
    return report.equal ? EXIT.done : EXIT.different
  } finally {
    await Promise.all(open.map((db) => db.close()))
    rmSync(folder, { recursive: true, force: true })
  }
}

// ---- one file ----

function ofFile(peek, json) {
  const problems = peek
    .all('PRAGMA integrity_check')
    .map(({ integrity_check: text }) => text)
    .filter((text) => text !== 'ok')
    .concat(holes(peek))
  print(
    json
      ? toJson({ file: peek.path, sound: problems.length === 0, problems })
      : problems.length === 0
        ? `${peek.path} is sound`
        : `${peek.path} is damaged:\n  ${problems.join('\n  ')}`,
  )
  return problems.length === 0 ? EXIT.done : EXIT.different
}

// An origin's patches have no holes above its floor, and none is beyond the vector. Those that the
// schema cannot hold are in _replic_pending.
function holes(peek) {
  const logs = peek
    .all(
      `SELECT p.name FROM sqlite_schema AS t JOIN sqlite_schema AS p ON p.name = t.name || '_patches'
       WHERE t.type = 'table' AND p.type = 'table'`,
    )
    .map(
      ({ name }) =>
        `SELECT _peerId AS origin, _sequenceId AS sequence FROM "${name.replaceAll('"', '""')}"`,
    )
  const kept = peek.has('_replic_pending') ? ['SELECT origin, sequence FROM _replic_pending'] : []
  const all = [...logs, ...kept].join(' UNION ') || 'SELECT 0 AS origin, 0 AS sequence'
  const rows = peek.all(
    `SELECT v.origin, v.sequence, v.floor, count(l.sequence) AS n, max(l.sequence) AS last
     FROM _replic_vector AS v LEFT JOIN (${all}) AS l ON l.origin = v.origin AND l.sequence > v.floor
     GROUP BY v.origin ORDER BY v.origin`,
  )
  return rows.flatMap(({ origin, sequence, floor, n, last }) => {
    if (last !== null && last > sequence) {
      return [`the log has patch ${origin}.${last}, and the vector says ${sequence}`]
    }
    const missing = sequence - floor - n
    return missing > 0n
      ? [`${missing} of peer ${origin}'s patches ${floor + 1n} to ${sequence} are not in the log`]
      : []
  })
}

// ---- two ----

async function openCopy(peek, folder, name, open, secret) {
  const path = join(folder, name)
  copy('verify', peek.path, path)
  const db = await Replica.open(path, { secret, maxPatchRetentionMs: Infinity })
  open.push(db)
  return db
}

async function compare({ peek, link, folder, open, secret, timeoutMs }) {
  const db = await openCopy(peek, folder, 'a.db', open, secret)
  let { url, tls } = link
  let behind
  if (link.peek) {
    const other = await openCopy(link.peek, folder, 'b.db', open, secret)
    behind = differences(db.status().vector, other.status().vector)
    const listener = await listen(other)
    url = new URL(`tcp://127.0.0.1:${listener.address().port}`)
    tls = {}
  }
  await linked('verify', db, url, { tls, secret }, timeoutMs)
  behind ??= db.status().links[0].behind
  return { report: await db.verify(null, { timeoutMs }), behind }
}

// Per origin, what one side has and the other has not.
function differences(mine, theirs) {
  const origins = [...new Set([...Object.keys(mine), ...Object.keys(theirs)])].sort((a, b) => a - b)
  return origins
    .map((origin) => ({
      origin: Number(origin),
      first: mine[origin] ?? 0,
      second: theirs[origin] ?? 0,
    }))
    .filter(({ first, second }) => first !== second)
}

function asText({ equal, peers: [report] }, behind, file, other) {
  const lines = [`${file} and ${other}: ${equal ? 'equal' : 'NOT equal'}`]
  if (Array.isArray(behind)) {
    for (const { origin, first, second } of behind) {
      lines.push(
        `  of peer ${origin} the first has ${first} patches and the second ${second}; compared after an exchange`,
      )
    }
  } else if (behind > 0)
    lines.push(`  the file was ${behind} patches behind; compared after an exchange`)
  if (!equal) lines.push(toJson(report, 2))
  return lines.join('\n')
}

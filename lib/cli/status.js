// replic-sqlite status FILE|URL

import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ReplicError } from '../base/errors.js'
import { Replica } from '../replica.js'
import { integer, isUrl, Peek, print, toJson } from './command.js'
import * as peers from './peers.js'

export const help = `replic-sqlite status FILE|URL [options]

Of a file: its peerId, tables, and what it has of every peer. Reads it as it is, also while a process
has it open, and changes nothing. (It counts rows: large tables take a while.)
Of tcp://, tls://, ws://, wss://, udp://: whether a peer answers there, who it is, and how its clock is.
Joins as a peer of its own for a moment.
Of http://, https://: what /status or /metrics of a running peer say ('serve --metrics'), or the same of
a peer that is served there.

  --timeout-ms N       how long to wait for an answer (default 10000)
${peers.LINK_HELP}  --json
`
export const options = { 'timeout-ms': { type: 'string' }, ...peers.LINK_OPTIONS }
export const files = [1, 1]

export async function run({ values, files: [target], json }) {
  const timeoutMs = integer('status', 'timeout-ms', values['timeout-ms'], 1, 2 ** 31 - 1) ?? 10_000
  if (!isUrl(target)) return ofFile(target, json)
  const url = peers.parseUrl('status', 'URL', target, peers.DIALED)
  if (url.protocol.startsWith('http')) return ofPage(url, values, timeoutMs, json)
  return ofPeer(url, values, timeoutMs, json)
}

// ---- a file ----

const quoted = (name) => `"${name.replaceAll('"', '""')}"`

function ofFile(file, json) {
  const peek = new Peek('status', file)
  const status = readFile(peek)
  print(json ? toJson(status) : asText(status))
}

function readFile(peek) {
  const meta = Object.fromEntries(
    peek.all('SELECT key, value FROM _replic_meta').map(({ key, value }) => [key, value]),
  )
  const tables = peek
    .all(
      `SELECT t.name FROM sqlite_schema AS t JOIN sqlite_schema AS p ON p.name = t.name || '_patches'
       WHERE t.type = 'table' AND p.type = 'table' ORDER BY t.name`,
    )
    .map(({ name }) => ({
      name,
      rows: count(peek, name),
      patches: count(peek, `${name}_patches`),
    }))
  const pending = peek.has('_replic_pending') ? count(peek, '_replic_pending') : 0n
  const stuck = peek.has('_replic_stuck') ? count(peek, '_replic_stuck') : 0n
  const migrations = peek
    .all('SELECT * FROM _replic_migrations ORDER BY version')
    .map(({ version, name = '', appliedAt = 0n }) => ({ version, name, appliedAt }))
  const size = (path) => statSync(path, { throwIfNoEntry: false })?.size ?? 0
  return {
    file: peek.path,
    peerId: meta.peerId,
    layout: meta.layout,
    fileBytes: size(peek.path),
    walBytes: size(`${peek.path}-wal`),
    tables,
    origins: peek.all(
      'SELECT origin, sequence, patchedAt, floor FROM _replic_vector WHERE sequence > 0 ORDER BY origin',
    ),
    pending,
    stuck,
    migrations,
  }
}

const count = (peek, table) => peek.all(`SELECT count(*) AS n FROM ${quoted(table)}`)[0].n

const time = (ms) => new Date(Number(ms)).toISOString()

function asText({
  file,
  peerId,
  fileBytes,
  walBytes,
  tables,
  origins,
  pending,
  stuck,
  migrations,
}) {
  const at = migrations.at(-1)
  return [
    `file        ${file} (${fileBytes} bytes, and ${walBytes} in its WAL)`,
    `peerId      ${peerId}`,
    `schema      version ${at ? `${at.version}${at.name ? ` (${at.name})` : ''}` : 0}`,
    ...tables.map(
      ({ name, rows, patches }) => `table       ${name}: ${rows} rows, ${patches} patches`,
    ),
    ...(tables.length === 0 ? ['table       none is replicated'] : []),
    ...origins.map(
      ({ origin, sequence, patchedAt, floor }) =>
        `has         ${origin === peerId ? 'its own' : `peer ${origin}'s`} patches up to ${sequence}` +
        `${patchedAt > 0n ? `, of ${time(patchedAt)}` : ''}${floor > 0n ? `; pruned up to ${floor}` : ''}`,
    ),
    ...(stuck > 0n
      ? [`stuck       ${stuck} rows that its schema cannot store: SELECT * FROM _replic_stuck`]
      : []),
    ...(pending > 0n ? [`pending     ${pending} patches that its schema cannot hold`] : []),
  ].join('\n')
}

// ---- a peer ----

async function ofPeer(url, values, timeoutMs, json) {
  const secret = peers.secretOf('status', values)
  const tls = peers.tlsOf('status', values)
  const folder = mkdtempSync(join(tmpdir(), 'replic-status-'))
  let db
  try {
    db = await Replica.open(join(folder, 'status.db'), { secret })
    await linked('status', db, url, { tls, secret }, timeoutMs)
    const { peerId, transport, address, skewMs, behind } = db.status().links[0]
    const status = { url: url.href, peerId, transport, address, skewMs, patches: behind }
    print(
      json
        ? toJson(status)
        : `peer ${peerId} answers at ${url.href}; its clock differs by ${skewMs} ms`,
    )
  } finally {
    await db?.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Dials `url` once and resolves when the link is up. Rejects with what is in the way, as soon as that is known. */
export async function linked(name, db, url, { tls, secret }, timeoutMs) {
  let timer
  const up = new Promise((resolve, reject) => {
    db.on('link', (event) => {
      if (event.state === 'up') resolve()
      if (event.state === 'down') reject(noLink(name, url, secret, event))
    })
    timer = setTimeout(() => {
      const message = `${name}: no peer has answered at ${url.href} within ${timeoutMs} ms`
      reject(new ReplicError('REPLIC_TIMEOUT', message))
    }, timeoutMs)
  })
  up.catch(() => {}) // also where dialing fails first
  const connection = await peers.dial(db, url, tls, {})
  try {
    await up
  } catch (error) {
    await connection.close()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

function noLink(name, url, secret, { code, reason }) {
  const hint = code === 'REPLIC_AUTH' && !secret ? '; here by --secret-env or --secret-file' : ''
  const message = `${name}: no link with ${url.href}: ${reason ?? 'the other side has ended it'}${hint}`
  return new ReplicError(code ?? 'REPLIC_CLOSED', message)
}

// ---- a page ----

async function ofPage(url, values, timeoutMs, json) {
  const { status, type, body } = await peers.page(
    'status',
    url,
    peers.tlsOf('status', values),
    timeoutMs,
  )
  if (status === 405) return ofPeer(url, values, timeoutMs, json) // it takes what a peer sends
  if (status !== 200) throw noFigures(url, `answers ${status}`)
  const figures = type.startsWith('application/json') ? readJson(body) : readMetrics(body)
  if (Object.keys(figures ?? {}).length === 0)
    throw noFigures(url, 'serves no figures of a replica')
  if (json) print(toJson(figures))
  else if (type.startsWith('application/json')) print(toJson(figures, 2))
  else for (const [name, value] of Object.entries(figures)) print(`${name} ${value}`)
}

function noFigures(url, does) {
  const message = `status: ${url.href} ${does}: name the path of db.metrics(), or the /status or /metrics of 'serve --metrics'`
  return new ReplicError('REPLIC_NOT_FOUND', message)
}

function readJson(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

// Of OpenMetrics: what is ours, without the buckets of histograms.
function readMetrics(text) {
  const lines = text
    .split('\n')
    .filter((line) => /^replic_/.test(line) && !line.includes('_bucket'))
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.lastIndexOf(' ')
      return [line.slice(0, at), Number(line.slice(at + 1))]
    }),
  )
}

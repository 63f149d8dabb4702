// replic-sqlite decode [FILE]

import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { ReplicError } from '../base/errors.js'
import { MAX_PEER_ID } from '../base/options.js'
import { EXIT, existing, integer, Mistake, Peek, print, toJson } from './command.js'
import { Decoder } from './frames.js'

export const help = `replic-sqlite decode [FILE] [options]

Of a database file: the rows of its log (T_patches), one line each, in order of origin and sequence.
Of anything else, or of stdin: frames of docs/protocol.md, one line each. What it is, is seen from its
first bytes: one direction of a TCP stream ("REPLIC", then each frame after its length), or hexadecimal
text ('#' begins a comment, an empty line ends a frame), or one frame as it is.

  --table NAME         of a log: only this table
  --origin N           only patches of this peer
  --after N            of a log: only sequences after this one
  --limit N            of a log: at most N rows (default 1000)
  --json               objects, one per line
`
export const options = {
  table: { type: 'string' },
  origin: { type: 'string' },
  after: { type: 'string' },
  limit: { type: 'string' },
}
export const files = [0, 1]

const SQLITE = 'SQLite format 3\0'
const STREAM = 'REPLIC'
const MOST = Number.MAX_SAFE_INTEGER

export function run({ values, files: [file], json }) {
  const origin = integer('decode', 'origin', values.origin, 1, MAX_PEER_ID)
  if (file !== undefined && file !== '-' && begins(existing('decode', file)) === SQLITE) {
    return ofLog(new Peek('decode', file), values, origin, json)
  }
  for (const option of ['table', 'after', 'limit']) {
    if (values[option] !== undefined) {
      throw new Mistake(`decode: --${option} is for the log of a database file, and this is none`)
    }
  }
  const name = file === undefined || file === '-' ? 'stdin' : file
  return ofFrames(name, readFileSync(name === 'stdin' ? 0 : file), origin, json)
}

function begins(path) {
  const bytes = Buffer.alloc(SQLITE.length)
  try {
    const file = openSync(path)
    readSync(file, bytes, 0, bytes.length, 0)
    closeSync(file)
  } catch ({ code }) {
    const message = `decode: ${path} cannot be opened (${code}): check the rights of the file and of its folder`
    throw new ReplicError('SQLITE_CANTOPEN', message)
  }
  return bytes.toString('latin1')
}

// ---- the log ----

const quoted = (name) => `"${name.replaceAll('"', '""')}"`

function ofLog(peek, values, origin, json) {
  const after = integer('decode', 'after', values.after, 0, MOST) ?? 0
  const limit = integer('decode', 'limit', values.limit, 1, MOST) ?? 1000
  const tables = logTables(peek, values.table)
  const rows = tables
    .flatMap((table) =>
      peek
        .all(
          `SELECT * FROM ${quoted(`${table}_patches`)}
           WHERE _sequenceId > ? AND (? IS NULL OR _peerId = ?) ORDER BY _peerId, _sequenceId LIMIT ?`,
          [after, origin ?? null, origin ?? null, limit],
        )
        .map((row) => logRow(peek, table, row)),
    )
    .sort((a, b) => a.origin - b.origin || a.sequence - b.sequence)
  for (const row of rows.slice(0, limit)) print(json ? toJson(row) : patchText(row, row.origin))
}

function logTables(peek, wanted) {
  const names = peek
    .all(
      `SELECT t.name FROM sqlite_schema AS t JOIN sqlite_schema AS p ON p.name = t.name || '_patches'
       WHERE t.type = 'table' AND p.type = 'table' ORDER BY t.name`,
    )
    .map(({ name }) => name)
  if (wanted === undefined) return names
  if (names.includes(wanted)) return [wanted]
  const message = `decode: ${peek.path} has no replicated table '${wanted}'; there are: ${names.join(', ') || 'none'}`
  throw new ReplicError('REPLIC_UNKNOWN_TABLE', message)
}

const keysOf = new Map() // table -> names of its key's columns

function logRow(peek, table, { _patchedAt, _sequenceId, _peerId, _nulls, ...columns }) {
  if (!keysOf.has(table)) {
    const sql = 'SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk'
    keysOf.set(
      table,
      peek.all(sql, [table]).map(({ name }) => name),
    )
  }
  const keys = keysOf.get(table)
  const nulls = _nulls ? JSON.parse(_nulls) : []
  const set = Object.entries(columns).filter(
    ([name, value]) => !keys.includes(name) && (value !== null || nulls.includes(name)),
  )
  return {
    origin: Number(_peerId),
    sequence: Number(_sequenceId),
    patchedAt: Number(_patchedAt),
    table,
    key: Object.fromEntries(keys.map((name) => [name, columns[name]])),
    set: Object.fromEntries(set),
  }
}

const time = (ms) => new Date(ms).toISOString()
const literal = (value) => (typeof value === 'string' ? JSON.stringify(value) : showBytes(value))
const showBytes = (value) =>
  value instanceof Uint8Array ? `x'${Buffer.from(value).toString('hex')}'` : String(value)
const pairs = (object) =>
  Object.entries(object)
    .map(([name, value]) => `${name}=${literal(value)}`)
    .join(' ')

function patchText({ sequence, patchedAt, table, tableId, unread, key, set }, origin) {
  const head = `${origin}.${sequence} ${time(patchedAt)}`
  if (unread !== undefined)
    return `${head} table id ${tableId}: ${unread} bytes; its SCHEMA is not here`
  return `${head} ${table} (${pairs(key)}) ${pairs(set)}`.trimEnd()
}

// ---- frames ----

function ofFrames(name, bytes, origin, json) {
  const decoder = new Decoder()
  let number = 0
  for (const frame of framesOf(name, bytes)) {
    number++
    let decoded
    try {
      decoded = decoder.decode(frame)
    } catch (error) {
      throw new ReplicError(error.code, `decode: ${name}: frame ${number}: ${error.message}`)
    }
    if (decoded && (origin === undefined || decoded.origin === origin)) {
      print(json ? toJson(decoded) : frameText(decoded))
    }
  }
  if (number > 0) return EXIT.done
  throw new ReplicError('REPLIC_PROTOCOL', `decode: ${name} holds no frame`)
}

function framesOf(name, bytes) {
  if (bytes.subarray(0, STREAM.length).toString('latin1') === STREAM) return streamed(name, bytes)
  return bytes[0] === 1 ? [bytes] : hexadecimal(name, bytes.toString())
}

function* streamed(name, bytes) {
  for (let at = STREAM.length; at < bytes.length; ) {
    const length = bytes.length - at < 4 ? -1 : bytes.readUInt32BE(at)
    if (length < 0 || length > bytes.length - at - 4) {
      const message = `decode: ${name} ends in the middle of a frame, which begins at byte ${at}`
      throw new ReplicError('REPLIC_PROTOCOL', message)
    }
    yield bytes.subarray(at + 4, at + 4 + length)
    at += 4 + length
  }
}

function hexadecimal(name, text) {
  const frames = []
  text.split('\n').forEach((line, i) => {
    const digits = line.replace(/#.*/, '').replace(/\s/g, '')
    if (digits === '') {
      if (line.trim() === '') frames.push('') // an empty line ends a frame
      return
    }
    if (!/^([0-9a-f]{2})+$/i.test(digits)) {
      const message = `decode: ${name}: line ${i + 1} is neither hexadecimal nor a frame: '${line.slice(0, 40)}'`
      throw new ReplicError('REPLIC_PROTOCOL', message)
    }
    if (frames.length === 0) frames.push('')
    frames.push(frames.pop() + digits)
  })
  return frames.filter((frame) => frame !== '').map((frame) => Buffer.from(frame, 'hex'))
}

function frameText({ frame, patches, ...rest }) {
  const head = `${frame} ${toJson(rest)}`
  if (!patches || frame === 'FORK')
    return patches ? `${frame} ${toJson({ ...rest, patches })}` : head
  return [head, ...patches.map((patch) => `  ${patchText(patch, rest.origin)}`)].join('\n')
}

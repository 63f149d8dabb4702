// What the commands share: arguments, output, and files that are looked at without being opened.

import { existsSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { ReplicError } from '../base/errors.js'
import { addon } from '../base/load.js'
import { nearest } from '../base/options.js'
import { toRows } from '../base/rows.js'

export const EXIT = Object.freeze({ done: 0, failed: 1, usage: 2, different: 3 })

/** Wrong arguments: exit code 2. `usage`: text to show below. */
export class Mistake extends ReplicError {
  constructor(message, usage) {
    super('REPLIC_USAGE', message)
    this.usage = usage
  }
}

const COMMON = { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } }

/**
 * The arguments of a command: { help }, or { values, files, json }.
 * @param {string} name of the command
 * @param {string[]} args
 * @param {{ options: object, files: [number, number] }} command `options` as parseArgs takes them;
 *   `files`: how many positional arguments at least and at most
 * @throws {Mistake}
 */
export function parse(name, args, { options: own, files: [least, most] }) {
  const options = { ...own, ...COMMON }
  const { values, positionals, tokens } = parseArgs({
    args,
    options,
    allowPositionals: true,
    strict: false,
    tokens: true,
  })
  if (values.help) return { help: true }
  for (const token of tokens) if (token.kind === 'option') checkOption(name, token, options)
  if (positionals.length < least || positionals.length > most) {
    const wanted = least === most ? `${least}` : `${least} or ${most}`
    throw new Mistake(
      `${name}: ${wanted} argument${most > 1 ? 's are' : ' is'} wanted, not ${positionals.length}; see '${name} --help'`,
    )
  }
  return { values, files: positionals, json: values.json === true }
}

function checkOption(name, { name: option, rawName, value }, options) {
  const known = options[option]
  if (!Object.hasOwn(options, option)) {
    const hint =
      nearest(option, Object.keys(options)).replace("'", "'--") || `; see '${name} --help'`
    throw new Mistake(`${name}: there is no option ${rawName}${hint}`)
  }
  if (known.type === 'string' && (value === undefined || value === '')) {
    throw new Mistake(`${name}: ${rawName} needs a value; see '${name} --help'`)
  }
  if (known.type === 'boolean' && value !== undefined) {
    throw new Mistake(`${name}: ${rawName} takes no value`)
  }
}

/** An option that is a whole number; undefined where it is not given. */
export function integer(name, option, text, min, max) {
  if (text === undefined) return undefined
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= min && value <= max) return value
  throw new Mistake(`${name}: --${option} must be an integer from ${min} to ${max}, not '${text}'`)
}

/** A line of output. */
export function print(text) {
  process.stdout.write(`${text}\n`)
}

/** What is done when nobody reads it any more (head, less): that is no failure. */
export const output = { ended: () => process.exit(EXIT.done) }

/** JSON in which 64-bit integers and bytes survive: as decimal text, and as hex. */
export const toJson = (value, indent) => JSON.stringify(value, plain, indent)

function plain(_, value) {
  if (typeof value === 'bigint') {
    return value <= Number.MAX_SAFE_INTEGER && value >= Number.MIN_SAFE_INTEGER
      ? Number(value)
      : `${value}`
  }
  return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value
}

export const isUrl = (text) => /^[a-z][a-z0-9+.-]*:\/\//i.test(text)

/** The absolute path of what must be the name of a file. Throws a Mistake. */
export function pathOf(name, file) {
  if (!isUrl(file)) return resolve(file)
  throw new Mistake(`${name}: a file is wanted where '${file}' stands; see '${name} --help'`)
}

/** The absolute path of a file that must be there. Throws what is wrong with it. */
export function existing(name, file) {
  const path = pathOf(name, file)
  if (!existsSync(path)) {
    throw new ReplicError('SQLITE_CANTOPEN', `${name}: there is no file ${path}; check the path`)
  }
  if (!statSync(path).isFile()) {
    throw new ReplicError('SQLITE_CANTOPEN', `${name}: ${path} is no file; name a database file`)
  }
  return path
}

/** Reads a database file as it is, also while a process has it open; changes nothing of it. */
export class Peek {
  #name
  #path

  /** Throws where it is not there, or no database of a replica. */
  constructor(name, file) {
    this.#name = name
    this.#path = existing(name, file)
    if (this.has('_replic_meta')) return
    throw new ReplicError(
      'REPLIC_NOT_FOUND',
      `${name}: ${this.#path} is a SQLite database that no Replica has opened yet (it has no table _replic_meta)`,
    )
  }

  get path() {
    return this.#path
  }

  /** Whether it has that table: a file of an earlier layout has fewer of the engine's. */
  has(table) {
    return this.all('SELECT 1 FROM sqlite_schema WHERE name = ?', [table]).length > 0
  }

  /** All rows; integers as bigints. */
  all(sql, params) {
    return explained(this.#name, this.#path, () =>
      toRows(addon().offlineQuery(sql, params, false, true, this.#path)),
    )
  }
}

/** Copies a database as it is now; see Replica's backup(). */
export function copy(name, from, to) {
  explained(name, from, () => addon().offlineCopy(from, to))
}

const MEANINGS = {
  SQLITE_NOTADB: 'is no SQLite database (or is encrypted): name a database file',
  SQLITE_CANTOPEN: 'cannot be opened: check the rights of the file and of its folder',
  SQLITE_CORRUPT: 'is damaged: restore a backup, or start from a copy of another peer',
  SQLITE_BUSY: 'is locked by another program: try again when that has ended',
}

function explained(name, path, call) {
  try {
    return call()
  } catch (error) {
    const meaning = MEANINGS[error.code]
    const known = meaning && !error.message.includes('backup')
    const text = known ? `${path} ${meaning}` : `${path}: ${error.message}`
    if (error.code === undefined) throw error
    throw new ReplicError(error.code, `${name}: ${text}`, { cause: error })
  }
}

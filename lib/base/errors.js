// Every error of this package has a stable `code`: one of `codes`, or SQLite's own extended name
// such as SQLITE_CONSTRAINT_NOTNULL. src/core/errors.h, this list, types/ and docs/errors.md name
// the same codes; test/10.errors.test.js compares them.

export const codes = Object.freeze([
  'REPLIC_AUTH',
  'REPLIC_BUSY',
  'REPLIC_CLOCK_SKEW',
  'REPLIC_CLOSED',
  'REPLIC_UNKNOWN_COLUMN',
  'REPLIC_DIRECT_WRITE',
  'REPLIC_FILE_GONE',
  'REPLIC_FORK',
  'REPLIC_KEY',
  'REPLIC_LOAD',
  'REPLIC_LOCKED',
  'REPLIC_MIGRATION',
  'REPLIC_NO_DELETED_AT',
  'REPLIC_NOT_FOUND',
  'REPLIC_NULLS',
  'REPLIC_OUT_OF_RANGE',
  'REPLIC_PEER',
  'REPLIC_PROTOCOL',
  'REPLIC_QUOTA',
  'REPLIC_READ_ONLY',
  'REPLIC_RESTORED',
  'REPLIC_SCHEMA',
  'REPLIC_UNKNOWN_TABLE',
  'REPLIC_TIMEOUT',
  'REPLIC_TOKEN',
  'REPLIC_TOO_LARGE',
  'REPLIC_TRANSACTION',
  'REPLIC_USAGE',
  'REPLIC_VERSION',
])

export class ReplicError extends Error {
  /**
   * @param {string} code
   * @param {string} message what, where and the remedy
   * @param {{ cause?: unknown }} [options]
   */
  constructor(code, message, options) {
    super(message, options)
    this.code = code
  }
}
Object.defineProperty(ReplicError.prototype, 'name', {
  value: 'ReplicError',
  configurable: true,
  writable: true,
})

const SYSTEM = {
  EADDRINUSE: 'another socket is bound there; choose another port, or 0 for any free one',
  EADDRNOTAVAIL: 'this machine has no such address; 0.0.0.0 stands for all that it has',
  EACCES: 'the system does not permit it; ports below 1024 need rights',
  ECONNREFUSED: 'nobody listens there; does the other peer run, and listen at this address?',
  ENOTFOUND: 'there is no such host; correct the name',
}

/** A socket's error, whose message also says what to do. The same object: its code and stack are the system's. */
export function explained(error) {
  const hint = SYSTEM[error?.code]
  if (hint === undefined || error.message.endsWith(hint)) return error
  // Of a name with several addresses each has an error of its own.
  const reason = error.message || error.errors?.map(({ message }) => message).join(', ')
  error.message = `${reason || error.code}: ${hint}`
  return error
}

const MAX_TEXT = 500 // characters
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu // also what turns a line around, or ends one

/** A text from another side, for messages and logs: one line that shows all that is in it, of at most `max` characters. */
export function printable(text, max = MAX_TEXT) {
  const start = text.length > max ? `${text.slice(0, max - 1)}…` : text
  return start.replace(UNPRINTABLE, '\u{fffd}')
}

/** The error of a wrong call. */
export const usage = (message) => new ReplicError('REPLIC_USAGE', message)

/** What an error says, which may come from another side. */
export const said = (error) => printable(`${error.message}`)

/** An error as status() shows it. */
export const describe = (error) =>
  error ? { code: error.code ?? null, message: said(error) } : null

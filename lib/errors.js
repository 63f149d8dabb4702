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

/** The error of a wrong call. */
export const usage = (message) => new ReplicError('REPLIC_USAGE', message)

// patchesTable(): the DDL of the T_patches table that belongs to a table. The core knows the rules.

import { ReplicError } from './base/errors.js'
import { addon } from './base/load.js'
import { checkSql } from './base/rows.js'

/**
 * `createTable`: one CREATE TABLE statement. Returns a CREATE TABLE for the patches.
 * Throws REPLIC_USAGE where it is another statement, REPLIC_SCHEMA where it has no primary key, or what
 * SQLite says of it.
 */
export function patchesTable(createTable) {
  checkSql('patchesTable', createTable)
  try {
    return addon().patchesTable(createTable)
  } catch (error) {
    const { code, message } = error
    if (code !== 'SQLITE_ERROR' && code !== 'REPLIC_USAGE') throw error
    // SQLite keeps a table of its own for it, which is then one too many.
    const hint = /\bAUTOINCREMENT\b/i.test(createTable)
      ? 'leave AUTOINCREMENT out: the values of a key always come from you'
      : "give the text of one, as in 'CREATE TABLE todo (id TEXT NOT NULL PRIMARY KEY, title TEXT)'"
    throw new ReplicError(code, `${message}; ${hint}`, { cause: error })
  }
}

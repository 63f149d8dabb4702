// patchesTable(): the DDL of the T_patches table that belongs to a table. The core knows the rules.

import { addon } from './load.js'
import { checkSql } from './rows.js'

/**
 * `createTable`: one CREATE TABLE statement. Returns a CREATE TABLE for the patches.
 * Throws REPLIC_USAGE where it is another statement, REPLIC_SCHEMA where it has no primary key, or what
 * SQLite says of it.
 */
export function patchesTable(createTable) {
  checkSql('patchesTable', createTable)
  return addon().patchesTable(createTable)
}

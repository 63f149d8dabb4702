/* db.c - the few calls of SQLite that everything else is written with, on the writing connection:
 * each sets the error where it fails. */
#include "base/base.h"
#include "state.h"

int replic__prepare(replic *r, const char *sql, sqlite3_stmt **slot) {
  if (*slot) return REPLIC_OK;
  return replic__fail_db(r,
                         sqlite3_prepare_v3(r->db, sql, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL));
}

int replic__step(replic *r, sqlite3_stmt *stmt) {
  int rc;
  while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) continue;
  rc = rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(stmt);
  return rc;
}

int replic__exec(replic *r, const char *sql) {
  return replic__fail_db(r, sqlite3_exec(r->db, sql, NULL, NULL, NULL));
}

int replic__int(replic *r, const char *sql, int64_t *out) {
  sqlite3_stmt *stmt = NULL;
  *out = 0;
  int rc = replic__prepare(r, sql, &stmt);
  if (rc == REPLIC_OK) rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW) *out = sqlite3_column_int64(stmt, 0);
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

int replic__run_kept(replic *r, const char *sql, sqlite3_stmt **slot) {
  int rc = replic__prepare(r, sql, slot);
  return rc == REPLIC_OK ? replic__step(r, *slot) : rc;
}

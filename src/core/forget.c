/* forget.c - the way back from what others have said: notes of forks, pending patches, pieces of a
 * jump. All of it was taken in good faith, and kept. When an operator has found that it was wrong,
 * or is in the way, it goes, and nothing else. */
#include "sync.h"

/* Deletes the rows of a table that `column` says are of `peer`, 0: of any. */
static int delete_of(replic *r, const char *table, const char *column, uint32_t peer, int64_t *n) {
  char *sql = sqlite3_mprintf("DELETE FROM main.%s WHERE %u IN (0, %s)", table, peer, column);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (rc == REPLIC_OK) *n += sqlite3_changes64(r->db);
  return rc;
}

static int forget_forks(replic *r, uint32_t peer, int64_t *n) {
  int rc = delete_of(r, "_replic_forks", "origin", peer, n);
  if (rc == REPLIC_OK) rc = delete_of(r, "_replic_dropped", "origin", peer, n);
  r->sync->dropped_changed = 1;
  return rc;
}

static int forget_staged(replic *r, uint32_t peer, int64_t *n) {
  int rc = delete_of(r, "_replic_staged", "source", peer, n);
  const link *source = replic__link_find(r, r->sync->jump_link);
  if (rc == REPLIC_OK && (!peer || (source && source->peer == peer))) replic__jump_over(r->sync);
  return rc;
}

int replic_forget(replic *r, int what, uint32_t peer, int64_t *forgotten) {
  replic__savepoint save;
  *forgotten = 0;
  int rc = replic__savepoint_open(r, 0, &save);
  if (rc != REPLIC_OK) return rc;
  if (what == REPLIC_FORGET_FORKS)
    rc = forget_forks(r, peer, forgotten);
  else if (what == REPLIC_FORGET_PENDING)
    rc = replic__forget_pending(r, peer, forgotten);
  else
    rc = forget_staged(r, peer, forgotten);
  return replic__savepoint_end(r, &save, rc);
}

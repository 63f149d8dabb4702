/* forget.c - the way back from what others have said: notes of forks, pending patches, pieces of a
 * jump. All of it was taken in good faith, and kept. When an operator has found that it was wrong,
 * or is in the way, it goes, and nothing else. */
#include "links/links.h"

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
  if (r->is_ahead) return REPLIC_OK; /* a jump is being merged, and then they are gone */
  int rc = delete_of(r, "_replic_staged", "source", peer, n);
  r->staged_changed = STAGED_UNKNOWN;
  const link *source = replic__link_find(r, r->sync->jump_link);
  if (rc == REPLIC_OK && (!peer || (source && source->peer == peer))) replic__jump_over(r->sync);
  return rc;
}

/* Who has it has not lost it, and who is linked sends it. */
static int check_lost(replic *r, uint32_t origin, int64_t after) {
  int64_t here = replic__vector_sequence(r, origin), there = replic_announced(r, origin);
  if (!origin || origin == r->peer_id)
    return replic__fail(r, REPLIC_EUSAGE,
                        "what this peer itself has written is not lost: name "
                        "another origin");
  if (here > after)
    return replic__fail(r, REPLIC_EUSAGE,
                        "of peer %u everything up to %lld is here: say after %lld or more", origin,
                        here, here);
  if (replic__is_linked(r, origin))
    return replic__fail(r, REPLIC_EUSAGE,
                        "peer %u itself is linked: what it has is not lost, and on its way",
                        origin);
  if (there > after)
    return replic__fail(r, REPLIC_EUSAGE,
                        "a linked peer has patches of peer %u up to %lld: nothing of those is "
                        "lost, and they are on their way",
                        origin, there);
  return REPLIC_OK;
}

static int forget_lost(replic *r, uint32_t origin, int64_t after, int64_t *n) {
  int rc = check_lost(r, origin, after);
  if (rc != REPLIC_OK) return rc;
  char *sql =
      sqlite3_mprintf("INSERT OR REPLACE INTO main._replic_lost VALUES(%u, %lld)", origin, after);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  *n += rc == REPLIC_OK;
  return rc;
}

const replic_position *replic_lost(replic *r, size_t *n) {
  sqlite3_stmt *stmt = NULL;
  static const char SQL[] = "SELECT origin, after FROM main._replic_lost ORDER BY origin";
  *n = 0;
  if (replic__prepare(r, SQL, &stmt) != REPLIC_OK) return r->positions;
  while (sqlite3_step(stmt) == SQLITE_ROW) {
    replic_position *grown = sqlite3_realloc64(r->positions, (*n + 1) * sizeof *grown);
    if (!grown) break;
    r->positions = grown;
    grown[(*n)++] = (replic_position){.origin = (uint32_t)sqlite3_column_int64(stmt, 0),
                                      .sequence = sqlite3_column_int64(stmt, 1)};
  }
  sqlite3_finalize(stmt);
  return r->positions;
}

int replic_forget(replic *r, int what, uint32_t peer, int64_t after, int64_t *forgotten) {
  replic__savepoint save;
  *forgotten = 0;
  int rc = replic__savepoint_open(r, 0, &save);
  if (rc != REPLIC_OK) return rc;
  if (what == REPLIC_FORGET_FORKS)
    rc = forget_forks(r, peer, forgotten);
  else if (what == REPLIC_FORGET_PENDING)
    rc = replic__forget_pending(r, peer, forgotten);
  else if (what == REPLIC_FORGET_LOST)
    rc = forget_lost(r, peer, after, forgotten);
  else
    rc = forget_staged(r, peer, forgotten);
  return replic__savepoint_end(r, &save, rc);
}

/* recheck.c - a jump is looked at once more, with another peer than its source.
 *
 * A jump rests on its source's word: which patches have survived retention there. A source that
 * leaves some out hides rows, and nobody would notice: the vector says that they are here. So
 * _replic_jumped has, of each origin that a jump has moved, where the vector stood before and who
 * was the source, until the layer above has compared the tables with another peer's at equal
 * vectors (lib/verify/recheck.js) and says what came of it:
 *
 *   1. equal: that is forgotten
 *   2. they differ: the vector goes back to before the jump, and what there is from there on is
 *      fetched once more, from the peer that was compared with. No patch leaves the log for that:
 *      what comes is added, and the greatest clock decides, as ever (I2)
 *   3. they differ after that was done RECHECKS times: an event says so, and it is forgotten. The
 *      source has made up patches, or the other peer hides some; which of them, nobody here can say
 *
 * While it is fetched again, the log has patches beyond the vector, as while a jump is merged: so
 * retention waits until the vector is where it was, and what is written here is stamped after them,
 * also after a restart. Rejected: to delete what the source has brought. What it has superseded may
 * be pruned already. */
#include "links/links.h"

enum { RECHECKS = 2 };

static int run_sql(replic *r, char *sql) {
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

int replic__recheck_load(replic *r) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, "SELECT origin, upTo, upToAt FROM main._replic_jumped WHERE upTo > 0",
                           &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    const replic_position to = {.origin = (uint32_t)sqlite3_column_int64(stmt, 0),
                                .sequence = sqlite3_column_int64(stmt, 1),
                                .patched_at = sqlite3_column_int64(stmt, 2)};
    replic__clock_seen(&r->clock, r->now_ms, &to, 0);
    replic__is_newest(r, &to);
    rc = REPLIC_OK;
  }
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

/* ---- the next of those that the peer can be asked about ---- */

typedef struct noted {
  uint32_t source;
  replic_position before;
} noted;

/* The next origin after out->before.origin. *found: there is one. */
static int next_noted(replic *r, uint32_t peer, noted *out, int *found) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r,
                           "SELECT origin, source, min(sequence), patchedAt FROM "
                           "main._replic_jumped WHERE source <> ?1 AND origin > ?2 AND origin <> "
                           "?3 AND again < ?4 GROUP BY origin ORDER BY origin LIMIT 1",
                           &stmt);
  *found = 0;
  if (rc != REPLIC_OK) return rc;
  const int64_t values[] = {peer, out->before.origin, r->peer_id, RECHECKS};
  for (int i = 0; i < 4; i++) sqlite3_bind_int64(stmt, i + 1, values[i]);
  rc = sqlite3_step(stmt);
  if ((*found = rc == SQLITE_ROW) != 0)
    *out = (noted){(uint32_t)sqlite3_column_int64(stmt, 1),
                   {.origin = (uint32_t)sqlite3_column_int64(stmt, 0),
                    .sequence = sqlite3_column_int64(stmt, 2),
                    .patched_at = sqlite3_column_int64(stmt, 3)}};
  sqlite3_finalize(stmt);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

/* ---- what comes of it ---- */

static int go_back(replic *r, const noted *n) {
  uint32_t origin = n->before.origin;
  replic__entry *entry = replic__vector_entry(r, origin);
  if (!entry) return SQLITE_NOMEM;
  int rc = run_sql(r, sqlite3_mprintf("UPDATE main._replic_jumped SET again = again + 1, upTo = "
                                      "max(upTo, %lld), upToAt = max(upToAt, %lld) WHERE origin = "
                                      "%u; DELETE FROM main._replic_told WHERE origin = %u",
                                      entry->now.sequence, entry->now.patched_at, origin, origin));
  if (entry->now.sequence <= n->before.sequence) return rc; /* its history is another one now */
  if (rc == REPLIC_OK && !n->before.sequence)
    rc = replic__bring(r, entry->source, BROUGHT_ORIGINS, -1);
  if (rc != REPLIC_OK) return rc;
  return replic__origin_back(r, origin, n->before.sequence, n->before.patched_at);
}

static int all_back(replic *r, uint32_t peer, uint32_t *source) {
  noted n = {0};
  for (int found = 1;;) {
    int rc = next_noted(r, peer, &n, &found);
    if (rc != REPLIC_OK || !found) return rc;
    *source = n.source;
    rc = go_back(r, &n);
    if (rc != REPLIC_OK) return rc;
  }
}

static int source_of_any(replic *r, uint32_t peer, int64_t *source) {
  char *sql = sqlite3_mprintf(
      "SELECT coalesce(max(source), 0) FROM main._replic_jumped WHERE source <> %u", peer);
  int rc = sql ? replic__int(r, sql, source) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

static int forget(replic *r, uint32_t peer) {
  return run_sql(r, sqlite3_mprintf("DELETE FROM main._replic_jumped WHERE source <> %u", peer));
}

static void tell(replic *r, const link *l, uint32_t source, const char *what) {
  replic__event(
      r,
      (replic_event){
          .kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = REPLIC_EFORK},
      "after a jump from peer %u the tables differ from those of peer %u, at equal vectors: %s",
      source, l->peer, what);
}

static int fetch_again(replic *r, link *l) {
  uint32_t from = 0;
  int64_t source = 0;
  int rc = source_of_any(r, l->peer, &source);
  if (rc == REPLIC_OK && source) rc = all_back(r, l->peer, &from);
  if (rc == REPLIC_OK && source && !from) rc = forget(r, l->peer);
  if (rc != REPLIC_OK || !source) return rc;
  if (from) {
    replic__jump_prefer(r, l);
    replic__void_told(r);
    tell(r, l, from, "what the jump has brought is fetched once more, from that peer");
  } else {
    tell(r, l, (uint32_t)source,
         "to fetch it once more has not mended that. One of the two says what is not so: find out "
         "which with db.verify(), and replace a file that has it from there by a copy of one that "
         "is right");
  }
  return rc;
}

static link *link_to(const replic *r, uint32_t peer) {
  for (size_t i = 0; i < r->sync->n_links; i++) {
    link *l = r->sync->links[i];
    if (l->peer == peer && l->ready && !l->closing && !l->reader) return l;
  }
  return NULL;
}

int replic_rechecked(replic *r, uint32_t peer, int equal) {
  replic__savepoint save;
  link *l = link_to(r, peer);
  int is_ahead, rc = replic__log_is_ahead(r, &is_ahead);
  if (rc != REPLIC_OK || !l || is_ahead) return rc; /* asked again later */
  rc = replic__savepoint_open(r, 0, &save);
  if (rc != REPLIC_OK) return rc;
  save.share = replic__share_of(r, peer);
  rc = equal ? forget(r, peer) : fetch_again(r, l);
  return replic__savepoint_end(r, &save, rc);
}

const replic_position *replic_unchecked(replic *r, size_t *n) {
  sqlite3_stmt *stmt = NULL;
  static const char SQL[] = "SELECT DISTINCT source FROM main._replic_jumped ORDER BY source";
  *n = 0;
  if (replic__prepare(r, SQL, &stmt) != REPLIC_OK) return r->positions;
  while (sqlite3_step(stmt) == SQLITE_ROW) {
    replic_position *grown = sqlite3_realloc64(r->positions, (*n + 1) * sizeof *grown);
    if (!grown) break;
    r->positions = grown;
    grown[(*n)++] = (replic_position){.origin = (uint32_t)sqlite3_column_int64(stmt, 0)};
  }
  sqlite3_finalize(stmt);
  return r->positions;
}

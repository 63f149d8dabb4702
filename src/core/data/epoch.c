/* epoch.c - in which opening of its origin's file each patch was issued.
 *
 * Each opening of a file draws a number, its epoch. _replic_epochs has one row per origin and
 * opening that issued patches: from `sequence` on, up to the next row. A patch is (origin,
 * sequence) as long as each origin has one history; where a file was copied and both copies go on,
 * their patches have the same sequences, and may have the same clocks, but never the same epoch: so
 * fork.c can tell them apart, those too that were pruned long ago. (test/model/forks.py shows each
 * rule to be needed.) Every peer knows the epochs of all patches up to its vector. */
#include "data/data.h"
#include "state.h"

int replic__epochs_load(replic *r) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(
      r,
      "SELECT e.origin, max(e.sequence), e.epoch FROM main._replic_epochs e JOIN "
      "main._replic_vector v ON v.origin = e.origin AND v.sequence >= e.sequence GROUP BY e.origin",
      &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    replic__entry *entry = replic__vector_entry(r, (uint32_t)sqlite3_column_int64(stmt, 0));
    rc = entry ? REPLIC_OK : SQLITE_NOMEM;
    if (!entry) break;
    entry->epoch_from = sqlite3_column_int64(stmt, 1);
    entry->now.epoch = entry->committed.epoch = (uint32_t)sqlite3_column_int64(stmt, 2);
  }
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

int replic__epoch_store(replic *r, uint32_t origin, int64_t from, uint32_t epoch) {
  int rc = replic__prepare(
      r, "INSERT OR REPLACE INTO main._replic_epochs(origin, sequence, epoch) VALUES(?1, ?2, ?3)",
      &r->epoch_sql);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(r->epoch_sql, 1, origin);
  sqlite3_bind_int64(r->epoch_sql, 2, from);
  sqlite3_bind_int64(r->epoch_sql, 3, epoch);
  return replic__step(r, r->epoch_sql);
}

int replic__epoch_note(replic *r, uint32_t origin, int64_t from, uint32_t epoch) {
  replic__entry *entry = replic__vector_entry(r, origin);
  if (!entry) return SQLITE_NOMEM;
  if (entry->now.epoch == epoch) return REPLIC_OK;
  int rc = replic__epoch_store(r, origin, from, epoch);
  if (rc != REPLIC_OK) return rc;
  entry->now.epoch = epoch;
  entry->epoch_from = from; /* too high after a rollback: then the table is asked, no more */
  return REPLIC_OK;
}

int replic__epoch_latest(replic *r, replic__entry *entry) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r,
                           "SELECT sequence, epoch FROM main._replic_epochs WHERE origin = ?1 "
                           "ORDER BY sequence DESC LIMIT 1",
                           &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, entry->now.origin);
  if (sqlite3_step(stmt) == SQLITE_ROW) {
    entry->epoch_from = sqlite3_column_int64(stmt, 0);
    entry->now.epoch = (uint32_t)sqlite3_column_int64(stmt, 1);
  }
  return replic__fail_db(r, sqlite3_finalize(stmt));
}

int replic__epochs_read(replic *r, uint32_t origin, int64_t after, int64_t up_to,
                        int (*each)(void *ctx, int64_t from, uint32_t epoch), void *ctx) {
  const replic__entry *entry = replic__vector_entry(r, origin);
  if (!entry) return SQLITE_NOMEM;
  if (after >= entry->epoch_from) return after ? each(ctx, after, entry->now.epoch) : REPLIC_OK;
  int rc = replic__prepare(
      r,
      "SELECT sequence, epoch FROM main._replic_epochs WHERE origin = ?1 AND sequence <= ?3 AND "
      "sequence >= coalesce((SELECT max(sequence) FROM main._replic_epochs WHERE origin = ?1 AND "
      "sequence <= ?2), 0) ORDER BY sequence",
      &r->epochs_sql);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(r->epochs_sql, 1, origin);
  sqlite3_bind_int64(r->epochs_sql, 2, after);
  sqlite3_bind_int64(r->epochs_sql, 3, up_to);
  while (rc == REPLIC_OK && (rc = sqlite3_step(r->epochs_sql)) == SQLITE_ROW)
    rc = each(ctx, sqlite3_column_int64(r->epochs_sql, 0),
              (uint32_t)sqlite3_column_int64(r->epochs_sql, 1));
  rc = rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(r->epochs_sql);
  return rc;
}

int replic__epochs_end(replic *r, uint32_t origin, int64_t after, int64_t most, int64_t *up_to) {
  int64_t end = 0;
  const replic__entry *entry = replic__vector_entry(r, origin);
  if (!entry) return SQLITE_NOMEM;
  if (after >= entry->epoch_from) return REPLIC_OK;
  char *sql = sqlite3_mprintf("SELECT sequence - 1 FROM main._replic_epochs WHERE origin = %u AND "
                              "sequence > %lld ORDER BY sequence LIMIT 1 OFFSET %lld",
                              origin, after, most);
  int rc = sql ? replic__int(r, sql, &end) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (rc == REPLIC_OK && end && end < *up_to) *up_to = end;
  return rc;
}

static int take_epoch(void *ctx, int64_t from, uint32_t epoch) {
  (void)from;
  *(uint32_t *)ctx = epoch;
  return REPLIC_OK;
}

int replic__epoch_at(replic *r, uint32_t origin, int64_t sequence, uint32_t *epoch) {
  *epoch = 0;
  return replic__epochs_read(r, origin, sequence, sequence, take_epoch, epoch);
}

int replic__epochs_cut(replic *r, uint32_t origin, int64_t after) {
  replic__entry *entry = replic__vector_entry(r, origin);
  if (!entry) return SQLITE_NOMEM;
  uint32_t epoch;
  int rc = replic__epoch_at(r, origin, after, &epoch);
  entry->now.epoch = epoch;
  entry->epoch_from = after;
  char *sql = sqlite3_mprintf(
      "DELETE FROM main._replic_epochs WHERE origin = %u AND sequence > %lld", origin, after);
  if (rc == REPLIC_OK) rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

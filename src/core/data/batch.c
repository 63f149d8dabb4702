/* batch.c - batches: one transaction for many calls, and a savepoint for each.
 *
 * A batch is one transaction. It begins on disk only when a call of it first touches the disk, so
 * a batch of mere acknowledgements takes no lock. Each call stands in a savepoint, which also
 * remembers the clock and the vector entry that the call moves; so a call that fails leaves nothing
 * behind, on disk or in memory, and its neighbours go on.
 *
 * In a savepoint of SQLite's, each page that the call changes first is copied. So it is not asked
 * for where the transaction begins with the call: then all of it is the call's, and can be undone.
 * And local writes that follow each other share one (replic_together): where one of them fails, all
 * are undone, and made again one by one. */
#include <string.h>

#include "data/mixed.h"
#include "file/file.h"
#include "state.h"

int replic_begin(replic *r, int64_t now_ms) {
  if (r->in_batch) return replic__fail(r, REPLIC_EUSAGE, "replic_begin: a batch is open already");
  if (now_ms < 0 || now_ms >= REPLIC_MAX_CLOCK)
    return replic__fail(r, REPLIC_ERANGE, "the wall clock says %lld ms: set the system's time",
                        now_ms);
  r->in_batch = 1;
  r->is_busy = 0;
  r->clock.is_hurried = 0;
  r->now_ms = now_ms;
  return REPLIC_OK;
}

int replic__fail_busy(replic *r) {
  r->is_busy = 1;
  return replic__fail(r, SQLITE_BUSY,
                      "another program holds the write lock of %s: end its transaction (fuser or "
                      "lsof tell which program has the file open), and call again",
                      r->path);
}

/* Whoever waits does so outside of here, where no thread is kept from other work. */
static int begin_transaction(replic *r) {
  int rc = r->is_busy ? SQLITE_BUSY : replic__run_kept(r, "BEGIN IMMEDIATE", &r->begin_sql);
  r->open_tx = rc == REPLIC_OK;
  r->changes_before = sqlite3_total_changes64(r->db);
  return (rc & 0xff) == SQLITE_BUSY ? replic__fail_busy(r) : rc;
}

int replic_begin_now(replic *r, int64_t now_ms) {
  int rc = replic_begin(r, now_ms);
  if (rc != REPLIC_OK) return rc;
  rc = begin_transaction(r);
  r->in_batch = r->is_first = rc == REPLIC_OK;
  return rc;
}

int replic_begin_busy(replic *r, int64_t now_ms) {
  int rc = replic_begin(r, now_ms);
  r->is_busy = rc == REPLIC_OK;
  return rc;
}

int replic_is_busy(const replic *r) {
  return r->is_busy;
}

int replic__fail_lost(replic *r) {
  return replic__fail(r, SQLITE_ABORT_ROLLBACK,
                      "another call of the same batch made SQLite undo all of it: call again");
}

int replic__savepoint_open(replic *r, uint32_t origin, replic__savepoint *save) {
  *save = (replic__savepoint){0};
  if (!r->in_batch)
    return replic__fail(r, REPLIC_EUSAGE, "no batch is open: call replic_begin first");
  if (r->lost) return replic__fail_lost(r);
  if (r->gone) return replic__fail_gone(r);
  if (origin) {
    const replic__entry *entry = replic__vector_entry(r, origin);
    if (!entry) return SQLITE_NOMEM;
    save->position = entry->now;
  } else {
    save->n_all = r->n_vector;
    save->all = sqlite3_malloc64((r->n_vector + 1) * sizeof *save->all);
    if (!save->all) return SQLITE_NOMEM;
    memcpy(save->all, r->vector, r->n_vector * sizeof *save->all);
  }
  save->clock = r->clock;
  save->counters = r->counters;
  memcpy(save->brought, r->brought, sizeof save->brought);
  int rc = REPLIC_OK;
  save->whole = !r->open_tx || r->is_first;
  if (!r->open_tx)
    rc = begin_transaction(r);
  else if (!r->is_first)
    rc = replic__run_kept(r, "SAVEPOINT call", &r->savepoint_sql);
  r->is_first = 0;
  if (rc == REPLIC_OK) return REPLIC_OK;
  sqlite3_free(save->all); /* the caller ends no savepoint that was not opened */
  save->all = NULL;
  return rc;
}

/* Deferred foreign keys are due at the end of the call: at COMMIT they would fail its neighbours
 * too. */
int replic__check_deferred(replic *r) {
  sqlite3_int64 unresolved = 0, unused = 0;
  sqlite3_db_status64(r->db, SQLITE_DBSTATUS_DEFERRED_FKS, &unresolved, &unused, 0);
  return unresolved ? replic__fail(r, SQLITE_CONSTRAINT_FOREIGNKEY, "FOREIGN KEY constraint failed")
                    : REPLIC_OK;
}

/* Entries that were added since stay: with nothing in them they say nothing. */
static void restore_vector(replic *r, const replic__savepoint *save) {
  if (save->position.origin) replic__vector_entry(r, save->position.origin)->now = save->position;
  for (size_t i = 0; save->all && i < r->n_vector; i++) {
    replic__entry *entry = &r->vector[i];
    size_t k = 0;
    while (k < save->n_all && save->all[k].now.origin != entry->now.origin) k++;
    if (k < save->n_all)
      *entry = save->all[k];
    else
      *entry =
          (replic__entry){.now.origin = entry->now.origin, .committed.origin = entry->now.origin};
  }
}

/* On disk; what fails here loses the batch. Where all of the transaction is undone, the next call
 * begins another one: it may find the write lock taken. After some errors SQLite itself undoes all
 * of it: what else there was is then lost. */
static int undo(replic *r, const replic__savepoint *save) {
  int is_undone = sqlite3_get_autocommit(r->db), rc = REPLIC_OK;
  if (is_undone && (!save->whole || save == &r->together)) return SQLITE_ABORT_ROLLBACK;
  if (!is_undone)
    rc = save->whole ? replic__run_kept(r, "ROLLBACK", &r->rollback_sql)
                     : replic__run_kept(r, "ROLLBACK TO call", &r->rollback_to_sql);
  if (rc == REPLIC_OK && save->whole) r->open_tx = 0;
  return rc == REPLIC_OK && !save->whole ? replic__run_kept(r, "RELEASE call", &r->release_sql)
                                         : rc;
}

int replic__savepoint_end(replic *r, replic__savepoint *save, int rc) {
  if (rc == REPLIC_OK) rc = replic__check_deferred(r);
  if (rc == REPLIC_OK && !save->whole) rc = replic__run_kept(r, "RELEASE call", &r->release_sql);
  for (size_t i = 0; i < replic_table_count(r); i++) {
    replic__table *t = r->schema->tables[i];
    if (rc == REPLIC_OK) t->changed |= t->touched;
    t->touched = 0;
  }
  if (rc != REPLIC_OK) restore_vector(r, save);
  replic__pending_settle(r, rc == REPLIC_OK);
  if (rc != REPLIC_OK && r->counted) r->recount = 1;
  if (rc != REPLIC_OK && r->stuck_changed) r->stuck_recount = 1;
  sqlite3_free(save->all);
  save->all = NULL;
  if (rc == REPLIC_OK) return REPLIC_OK;
  char *text = r->error; /* of the failure, not of its undoing */
  r->error = NULL;
  r->clock = save->clock;
  r->counters = save->counters;
  replic__share_restore(r, &save->share, save->brought);
  if (undo(r, save) != REPLIC_OK) r->lost = 1;
  sqlite3_free(r->error);
  r->error = text;
  return rc;
}

/* ---- calls that share a savepoint ---- */

int replic_together(replic *r) {
  if (r->is_together)
    return replic__fail(r, REPLIC_EUSAGE, "replic_together: it is under way already");
  int rc = replic__savepoint_open(r, r->peer_id, &r->together);
  if (rc == REPLIC_OK) r->is_together = 1;
  return rc;
}

int replic_apart(replic *r, int code) {
  if (!r->is_together) return replic__fail(r, REPLIC_EUSAGE, "replic_apart: nothing is under way");
  r->is_together = 0;
  int rc = replic__savepoint_end(r, &r->together, code);
  return r->lost ? SQLITE_ABORT_ROLLBACK : rc;
}

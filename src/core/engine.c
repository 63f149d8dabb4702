/* engine.c - where the floors meet: a commit or rollback of all of them, the schema in use, local
 * writes. How a batch is made: data/batch.c. */
#include "core.h"

/* ---- the schema in use ---- */

int replic__reload_schema(replic *r) {
  replic__schema *fresh, *old = r->schema;
  int rc = replic__schema_load(r, &fresh);
  if (rc != REPLIC_OK) return rc;
  r->schema = fresh;
  r->auth.schema = fresh;
  r->swapped = 1;
  r->stale = 0;
  replic__schema_free(old);
  replic__sync_schema_changed(r);
  return replic__stuck_mark(r);
}

/* The authorizer refuses CREATE and DROP; of ALTER TABLE … RENAME TO it is not told the
 * new name. */
static const char INTERNAL[] =
    "SELECT count(*) FROM main.sqlite_schema WHERE type IN ('table', 'view') "
    "AND name LIKE '\\_replic\\_%' ESCAPE '\\'";

int replic__internal_count(replic *r, int64_t *count) {
  return replic__int(r, INTERNAL, count);
}

int replic__schema_changed(replic *r) {
  int64_t internal;
  int rc = replic__internal_count(r, &internal);
  if (rc == REPLIC_OK && internal != r->n_internal)
    rc = replic__fail(r, REPLIC_EDIRECT,
                      "names that begin with _replic_ belong to the engine: rename it otherwise");
  if (rc == REPLIC_OK) rc = replic__pending_schema_changed(r);
  return rc == REPLIC_OK ? replic__stuck_settle(r) : rc;
}

/* ---- the end of a batch ---- */

void replic_rollback(replic *r) {
  char *text = r->error;
  r->error = NULL;
  if (!sqlite3_get_autocommit(r->db)) replic__exec(r, "ROLLBACK");
  replic__vector_revert(r);
  r->clock = r->clock_committed;
  for (size_t i = 0; i < replic_table_count(r); i++) r->schema->tables[i]->changed = 0;
  if (r->swapped && replic__reload_schema(r) != REPLIC_OK)
    replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = REPLIC_ESCHEMA}, "%s",
                  replic_error_text(r));
  replic__pending_settle(r, 0);
  replic__pending_recount(r);
  r->staged_changed = STAGED_UNKNOWN;
  replic__jump_reverted(r);
  if (r->stuck_changed) replic__stuck_note(r, 1);
  r->in_batch = r->open_tx = r->is_first = r->swapped = r->lost = r->stale = r->is_together = 0;
  r->step = 0;
  replic__claims_settle(r);
  sqlite3_free(r->error);
  r->error = text;
}

int replic_commit(replic *r) {
  if (!r->in_batch) return replic__fail(r, REPLIC_EUSAGE, "replic_commit: no batch is open");
  int rc = r->lost ? replic__fail_lost(r) : REPLIC_OK;
  if (rc == REPLIC_OK && r->open_tx && r->gone) rc = replic__fail_gone(r);
  if (rc == REPLIC_OK && r->open_tx) rc = replic__vector_store(r);
  if (rc == REPLIC_OK && r->open_tx) rc = replic__run_kept(r, "COMMIT", &r->commit_sql);
  /* Only now is it known that what was committed has a name. Where it has none, memory stays as it
   * was before this batch, which is nobody's; no other one follows. */
  if (rc == REPLIC_OK && r->open_tx) rc = replic__claims_look(r, 0);
  if (rc != REPLIC_OK) {
    replic_rollback(r);
    return rc;
  }
  r->counters.commits += r->open_tx && sqlite3_total_changes64(r->db) != r->changes_before;
  r->clock_committed = r->clock;
  if (r->open_tx) replic__vector_settle(r);
  r->in_batch = r->open_tx = r->is_first = r->swapped = 0;
  r->step = 0;
  for (size_t i = 0; i < replic_table_count(r); i++) {
    replic__table *t = r->schema->tables[i];
    if (t->changed)
      replic__event(r, (replic_event){.kind = REPLIC_EVENT_CHANGE, .code = t->changed}, "%s",
                    t->name);
    t->changed = 0;
  }
  if (r->recount) replic__pending_recount(r);
  r->counted = 0;
  if (r->stuck_changed) replic__stuck_note(r, r->stuck_recount);
  if (!r->gone) replic__identity_witness(r);
  replic__sync_flush(r);
  replic__claims_settle(r);
  return REPLIC_OK;
}

/* ---- local writes ---- */

int replic_write(replic *r, const replic_change *changes, size_t n_changes, int64_t *sequence) {
  replic__savepoint save;
  int was_stale = r->stale;
  *sequence = 0;
  int rc = REPLIC_OK;
  if (!r->is_together) rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = replic__merge_mode(r, 0);
  if (rc == REPLIC_OK && r->stale) rc = replic__reload_schema(r);
  replic__group g = {replic__vector_entry(r, r->peer_id), replic__clock_next(&r->clock, r->now_ms),
                     0};
  for (size_t i = 0; rc == REPLIC_OK && i < n_changes; i++)
    rc = replic__write_change(r, &changes[i], &g);
  r->counters.groups_written++;
  if (!r->is_together)
    rc = replic__savepoint_end(r, &save, rc);
  else if (rc == REPLIC_OK)
    rc = replic__check_deferred(r);
  if (rc != REPLIC_OK) r->stale = was_stale; /* what registering had created is undone */
  if (rc == REPLIC_OK) *sequence = g.self->now.sequence;
  if (rc == REPLIC_OK)
    replic__trace(r, "written %u.%lld, clock %lld", r->peer_id, *sequence, g.patched_at);
  return rc;
}

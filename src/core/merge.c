/* merge.c - one patch into the log and into its table, so that the cell rule holds (I2):
 *
 *   a cell's value is the one set by the patch with the greatest clock among all that set it
 *
 *   1. append the patch to the log; a duplicate ends here
 *   2. a patch from elsewhere may be late: drop the columns that a newer patch of the same key sets
 *      (a local patch is newer than everything applied, see clock.c; so is one from elsewhere whose
 *      clock is above all in the log, which is most of what a peer catches up with)
 *   3. write the remaining columns to the row
 *      - in a table without required columns (NOT NULL, no constant DEFAULT) one upsert does
 *      - otherwise the row may be missing because an earlier patch of the key could not create it:
 *        update it, and if there is none insert the fold of the key's whole log
 *      - where a required column is still missing the patch waits in the log, and the next one of
 *        that key comes back to step 3
 *
 * Nothing here depends on the order of arrival or on one peer's policy: CHECKs and foreign keys are
 * off while merging, and a trigger that raises is reported and the write repeated without triggers.
 * (Rejected: a clock per cell kept in a shadow table. It needs no step 2, but doubles the writes of
 * every patch, the late ones being rare.) */
#include <string.h>

#include "core.h"

/* PRAGMA and db_config make SQLite compile statements anew, so they are touched only where a
 * constraint is declared, and only when the kind of work changes within a batch. */
int replic__merge_mode(replic *r, int merging) {
  if (r->merging == merging || !r->schema->constrained) return REPLIC_OK;
  int rc = replic__exec(r, merging ? "PRAGMA ignore_check_constraints = 1"
                                   : "PRAGMA ignore_check_constraints = 0");
  if (rc == REPLIC_OK)
    rc = replic__fail_db(r, sqlite3_db_config(r->db, SQLITE_DBCONFIG_ENABLE_FKEY, !merging, NULL));
  if (rc == REPLIC_OK) r->merging = merging;
  return rc;
}

/* A failure that a trigger may have caused. */
static int is_local_policy(int rc) {
  int primary = rc & 0xff;
  return rc > 0 && (primary == SQLITE_CONSTRAINT || primary == SQLITE_ERROR ||
                    primary == SQLITE_MISMATCH || primary == SQLITE_TOOBIG);
}

static int write_without_triggers(replic *r, sqlite3_stmt *stmt, int *changed) {
  sqlite3_db_config(r->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
  int rc = replic__step(r, stmt);
  *changed = rc == REPLIC_OK && sqlite3_changes64(r->db) > 0;
  sqlite3_db_config(r->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, NULL);
  return rc;
}

/* Runs a write of `values` where `take` says so; `*changed`: rows touched. */
static int write_row(replic *r, replic__table *t, const replic_value *values,
                     const unsigned char *take, int update, int local, int *changed) {
  sqlite3_stmt *stmt;
  int rc = replic__sql_row(r, t, take, update, &stmt);
  for (int i = 0; rc == REPLIC_OK && i < t->n_fields; i++)
    if (i < t->n_keys || take[i]) rc = replic__fail_db(r, replic__bind(stmt, i + 1, &values[i]));
  if (rc != REPLIC_OK) return rc;
  if (!local && t->muted) return write_without_triggers(r, stmt, changed);
  rc = replic__step(r, stmt);
  *changed = rc == REPLIC_OK && sqlite3_changes64(r->db) > 0;
  int sets = memchr(take + t->n_keys, 1, (size_t)(t->n_fields - t->n_keys)) != NULL;
  int skipped =
      rc == REPLIC_OK && !*changed && !update && sets && t->has_triggers; /* RAISE(IGNORE) */
  if (local && skipped)
    return replic__fail(r, SQLITE_CONSTRAINT_TRIGGER,
                        "a trigger on %s skipped the write with RAISE(IGNORE)", t->name);
  if (local || !t->has_triggers || !(skipped || is_local_policy(rc))) return rc;
  int failure = rc ? rc : SQLITE_CONSTRAINT_TRIGGER;
  char *text = sqlite3_mprintf("%s", rc ? replic_error_text(r) : "RAISE(IGNORE)");
  t->muted = sqlite3_get_autocommit(r->db); /* it rolled the batch back: next time without it */
  if (!t->muted) rc = write_without_triggers(r, stmt, changed);
  if (rc == REPLIC_OK)
    replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = failure},
                  "a trigger on %s failed while merging a patch, which was merged without it: %s",
                  t->name, text);
  sqlite3_free(text);
  return rc;
}

int replic__row_exists(replic *r, replic__table *t, const replic_value *values, int *exists) {
  sqlite3_stmt *stmt;
  int rc = replic__sql_get(r, t, ROW_EXISTS, &stmt);
  for (int i = 0; rc == REPLIC_OK && i < t->n_keys; i++) rc = replic__bind(stmt, i + 1, &values[i]);
  if (rc == REPLIC_OK) rc = sqlite3_step(stmt);
  *exists = rc == SQLITE_ROW;
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(stmt);
  return rc;
}

/* Step 3. */
static int put_row(replic *r, const replic__patch *p, const unsigned char *take, int local) {
  replic__table *t = p->table;
  int done, rc;
  if (!t->n_required) return write_row(r, t, p->values, take, 0, local, &done);
  if (memchr(take + t->n_keys, 1, (size_t)(t->n_fields - t->n_keys)))
    rc = write_row(r, t, p->values, take, 1, local, &done);
  else
    rc = replic__row_exists(r, t, p->values, &done);
  if (rc != REPLIC_OK || done) return rc;
  rc = replic__log_fold(r, p);
  if (rc != REPLIC_OK) return rc;
  rc = write_row(r, t, t->fold, t->fold_take, 0, local, &done);
  replic__log_fold_free(t);
  if (rc != SQLITE_CONSTRAINT_NOTNULL || local) return rc;
  r->counters.rows_waiting++;
  return REPLIC_OK;
}

/* DEFAULTs that are not constants are evaluated once, where the row is created, and carried from
 * there. The values are borrowed from the DEFAULTS statement until the patch is merged. */
static int set_defaults(replic *r, const replic__patch *p) {
  replic__table *t = p->table;
  sqlite3_stmt *stmt;
  int exists, rc = replic__row_exists(r, t, p->values, &exists);
  if (rc != REPLIC_OK || exists) return rc;
  rc = replic__sql_get(r, t, DEFAULTS, &stmt);
  if (rc == REPLIC_OK && sqlite3_step(stmt) != SQLITE_ROW)
    rc = replic__fail_db(r, sqlite3_reset(stmt));
  for (int i = t->n_keys; rc == REPLIC_OK && i < t->n_fields; i++) {
    if (!t->fields[i].default_sql || p->values[i].type != REPLIC_UNSET) continue;
    replic__column(stmt, i, &p->values[i]);
    if (p->values[i].type == REPLIC_NULL) p->values[i].type = REPLIC_UNSET; /* NULL anyway */
  }
  return rc;
}

int replic__is_newest(replic *r, const replic_position *at) {
  const replic_position *high = &r->newest;
  int64_t by = at->patched_at - high->patched_at;
  if (!by) by = (int64_t)at->origin - (int64_t)high->origin;
  if (!by) by = at->sequence - high->sequence;
  if (by > 0) r->newest = *at;
  return by > 0;
}

static int merge_patch(replic *r, const replic__patch *p, int local) {
  replic__table *t = p->table;
  int duplicate = 0, newer = 0, rc = REPLIC_OK;
  if (local && t->n_dynamic) rc = set_defaults(r, p);
  if (rc == REPLIC_OK) rc = replic__log_insert(r, p, &duplicate);
  if (rc != REPLIC_OK || duplicate) {
    r->counters.patches_duplicate += rc == REPLIC_OK;
    return rc;
  }
  for (int i = 0; i < t->n_fields; i++) t->take[i] = p->values[i].type != REPLIC_UNSET;
  replic_position at = {.origin = p->origin, .sequence = p->sequence, .patched_at = p->patched_at};
  int newest = replic__is_newest(r, &at);
  if (!local && !newest) rc = replic__log_newer(r, p, t->take, &newer);
  t->touched |= local ? 1 : 2;
  if (rc != REPLIC_OK) return rc;
  if (newer && !memchr(t->take + t->n_keys, 1, (size_t)(t->n_fields - t->n_keys))) return REPLIC_OK;
  return put_row(r, p, t->take, local);
}

int replic__merge_again(replic *r, const replic__patch *p) {
  replic__table *t = p->table;
  int done, rc = replic__log_fold(r, p);
  if (rc != REPLIC_OK) return rc;
  rc = write_row(r, t, t->fold, t->fold_take, 0, 0, &done);
  replic__log_fold_free(t);
  return rc == SQLITE_CONSTRAINT_NOTNULL ? REPLIC_OK : rc;
}

int replic__merge(replic *r, const replic__patch *p, int local) {
  int rc = merge_patch(r, p, local);
  sqlite3_reset(p->table->sql[DEFAULTS]); /* not before: values are borrowed from it */
  return rc;
}

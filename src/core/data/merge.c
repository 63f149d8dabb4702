/* merge.c - one patch into the log and into its table, so that the cell rule holds (I2):
 *
 *   a cell's value is the one set by the patch with the greatest clock among all that set it
 *
 *   1. append the patch to the log; a duplicate ends here
 *   2. a patch from elsewhere may be late: drop the columns that a newer patch of the same key sets
 *      (a local patch is newer than everything applied, see clock.c; so is one from elsewhere whose
 *      clock is above all in the log, which is most of what a peer catches up with)
 *   3. write the remaining columns to the row
 *      - where every key that has patches has its row, one upsert does
 *      - otherwise, or where SQLite refuses the upsert (it checks the row that it would insert,
 * also if there is one to update): update the row, and if there is none insert the fold of the
 *        key's whole log
 *      - where a required column (NOT NULL, no constant DEFAULT) is still missing, the patch waits
 * in the log, and the next one of that key comes back to step 3
 *      - where SQLite refuses the row for what is in it, a local write fails; a patch from
 * elsewhere stays in the log, and the table has no such row until the fold can be stored (stuck.c)
 *
 * Nothing here depends on the order of arrival or on one peer's policy: CHECKs and foreign keys are
 * off while merging, and a trigger that raises is reported and the write repeated without triggers.
 * (Rejected: a clock per cell kept in a shadow table. It needs no step 2, but doubles the writes of
 * every patch, the late ones being rare.) */
#include <string.h>

#include "data/data.h"
#include "state.h"

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

static int write_without_triggers(replic *r, sqlite3_stmt *stmt, int *changed) {
  sqlite3_db_config(r->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
  int rc = replic__step(r, stmt);
  *changed = rc == REPLIC_OK && sqlite3_changes64(r->db) > 0;
  sqlite3_db_config(r->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, NULL);
  return rc;
}

/* Runs a write that a trigger may have made fail (rc), or skip, once more without triggers. */
static int write_past_triggers(replic *r, replic__table *t, sqlite3_stmt *stmt, int rc,
                               int *changed) {
  int failure = rc ? rc : SQLITE_CONSTRAINT_TRIGGER;
  char *text = sqlite3_mprintf("%s", rc ? replic_error_text(r) : "RAISE(IGNORE)");
  t->muted = sqlite3_get_autocommit(r->db); /* it rolled the batch back: next time without it */
  if (!t->muted) rc = write_without_triggers(r, stmt, changed);
  if (rc == REPLIC_OK)
    rc = replic__event(
        r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = failure},
        "a trigger on %s failed while merging a patch, which was merged without it: %s", t->name,
        text);
  sqlite3_free(text);
  return rc;
}

/* Runs a write of `values` where `take` says so; `*changed`: rows touched. */
static int write_row(replic *r, replic__table *t, const replic_value *values,
                     const unsigned char *take, int update, int local, int *changed) {
  sqlite3_stmt *stmt;
  int rc = replic__sql_row(r, t, take, update, &stmt);
  *changed = 0;
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
  if (local || !t->has_triggers || !(skipped || replic__lies_in_data(rc))) return rc;
  return write_past_triggers(r, t, stmt, rc, changed);
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

/* ---- step 3 ---- */

static int sets_any(const replic__table *t, const unsigned char *take) {
  return memchr(take + t->n_keys, 1, (size_t)(t->n_fields - t->n_keys)) != NULL;
}

static int lacks_required(const replic__table *t) {
  for (int i = t->n_keys; i < t->n_fields; i++)
    if (t->fields[i].required && (!t->fold_take[i] || t->fold[i].type == REPLIC_NULL)) return 1;
  return 0;
}

/* Updates the row; where no column is given, looks whether it is there. `*done`: it is. */
static int update_row(replic *r, replic__table *t, const replic_value *values,
                      const unsigned char *take, int local, int *done) {
  if (sets_any(t, take)) return write_row(r, t, values, take, 1, local, done);
  return replic__row_exists(r, t, values, done);
}

/* No row: what can be stored of the key's log is none. A trigger's objection, or that SQLite cannot
 * compile it, changes nothing. */
static int delete_row(replic *r, replic__table *t, const replic_value *key) {
  sqlite3_stmt *stmt;
  int changed, rc = replic__sql_get(r, t, ROW_DELETE, &stmt);
  for (int i = 0; rc == REPLIC_OK && i < t->n_keys; i++)
    rc = replic__fail_db(r, replic__bind(stmt, i + 1, &key[i]));
  if (rc == REPLIC_OK && t->muted)
    rc = write_without_triggers(r, stmt, &changed);
  else if (rc == REPLIC_OK)
    rc = replic__step(r, stmt);
  if (t->has_triggers && !t->muted && replic__lies_in_data(rc))
    rc = write_past_triggers(r, t, stmt, rc, &changed);
  return replic__lies_in_data(rc) ? REPLIC_OK : rc;
}

int replic__set_aside(replic *r, replic__table *t, const replic_value *key, int code) {
  char *why = sqlite3_mprintf("%s", replic_error_text(r));
  int rc = why ? delete_row(r, t, key) : SQLITE_NOMEM;
  if (rc == REPLIC_OK) rc = replic__stuck_add(r, t, key, code, why);
  sqlite3_free(why);
  return rc;
}

/* What the log has beyond the patch at hand may be what is refused: its writer has not seen it. */
static int fail_stuck(replic *r, const replic__table *t, int code) {
  return replic__fail(r, code,
                      "%s. Rows of %s that others have written cannot be stored here, perhaps this "
                      "one (status().stuck): set those columns too, or change the schema",
                      replic_error_text(r), t->name);
}

/* Whether an upsert is refused for the row that it would insert, where an update may do: a
 * trigger's RAISE(FAIL) also leaves behind what it refuses. */
static int may_update(int rc) {
  return replic__lies_in_data(rc) && rc != SQLITE_CONSTRAINT_TRIGGER;
}

/* A row that is there may have more than the log says: a migration has set it. */
static int write_fold(replic *r, replic__table *t, int local) {
  int done, rc = write_row(r, t, t->fold, t->fold_take, 0, local, &done);
  if (!may_update(rc)) return rc;
  char *text = sqlite3_mprintf("%s", replic_error_text(r));
  int updated = update_row(r, t, t->fold, t->fold_take, local, &done);
  if (updated != REPLIC_OK || done)
    rc = updated;
  else
    rc = replic__fail(r, rc, "%s", text ? text : "out of memory");
  sqlite3_free(text);
  return rc;
}

/* The row becomes what the whole log of its key says. `absent`: there is none. */
static int put_fold(replic *r, const replic__patch *p, int local, int absent) {
  replic__table *t = p->table;
  int rc = replic__log_fold(r, p);
  if (rc != REPLIC_OK) return rc;
  int lacks = !local && lacks_required(t);
  if (!lacks || !absent) rc = write_fold(r, t, local);
  replic__log_fold_free(t);
  if (lacks && (absent || replic__lies_in_data(rc))) {
    r->counters.rows_waiting += absent;
    return REPLIC_OK;
  }
  if (rc == REPLIC_OK) return t->has_stuck ? replic__stuck_remove(r, t, p->values) : rc;
  if (!replic__lies_in_data(rc)) return rc;
  if (local) return t->has_stuck ? fail_stuck(r, t, rc) : rc;
  return replic__set_aside(r, t, p->values, rc);
}

static int put_row(replic *r, const replic__patch *p, const unsigned char *take, int local) {
  replic__table *t = p->table;
  int done, rc;
  if (!t->may_lack_rows) {
    rc = write_row(r, t, p->values, take, 0, local, &done);
    if (!may_update(rc)) return rc;
  }
  rc = update_row(r, t, p->values, take, local, &done);
  if (!local && replic__lies_in_data(rc)) return replic__set_aside(r, t, p->values, rc);
  return rc != REPLIC_OK || done ? rc : put_fold(r, p, local, 1);
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
  return put_fold(r, p, 0, 0);
}

int replic__merge(replic *r, const replic__patch *p, int local) {
  int rc = merge_patch(r, p, local);
  sqlite3_reset(p->table->sql[DEFAULTS]); /* not before: values are borrowed from it */
  return rc;
}

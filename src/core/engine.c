/* engine.c - batches and local writes: what ties the parts together.
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
#include <math.h>
#include <string.h>

#include "core.h"

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

/* ---- batches ---- */

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

static int fail_lost(replic *r) {
  return replic__fail(r, SQLITE_ABORT_ROLLBACK,
                      "another call of the same batch made SQLite undo all of it: call again");
}

int replic__savepoint_open(replic *r, uint32_t origin, replic__savepoint *save) {
  *save = (replic__savepoint){0};
  if (!r->in_batch)
    return replic__fail(r, REPLIC_EUSAGE, "no batch is open: call replic_begin first");
  if (r->lost) return fail_lost(r);
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
static int check_deferred(replic *r) {
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
  if (rc == REPLIC_OK) rc = check_deferred(r);
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
  int rc = r->lost ? fail_lost(r) : REPLIC_OK;
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

typedef struct group {
  replic__entry *self;
  int64_t patched_at, bytes;
} group;

/* Which field each column of the change is. *map: caller frees. */
static int map_columns(replic *r, const replic__table *t, const replic_change *change, int **map) {
  *map = sqlite3_malloc64((change->n_columns + 1) * sizeof **map);
  if (!*map) return SQLITE_NOMEM;
  for (size_t c = 0; c < change->n_columns; c++) {
    int i = 0;
    while (i < t->n_fields && sqlite3_stricmp(t->fields[i].name, change->columns[c]) != 0) i++;
    if (i == t->n_fields)
      return replic__fail(r, REPLIC_ECOLUMN, "table %s has no column %s that can be written",
                          t->name, change->columns[c]);
    for (size_t other = 0; other < c; other++)
      if ((*map)[other] == i)
        return replic__fail(r, REPLIC_ECOLUMN, "column %s of %s is given twice", change->columns[c],
                            t->name);
    (*map)[c] = i;
  }
  return REPLIC_OK;
}

static int check_keys(replic *r, const replic__table *t) {
  for (int i = 0; i < t->n_keys; i++) {
    replic_value *key = &t->values[i];
    if (key->type <= REPLIC_NULL)
      return replic__fail(
          r, REPLIC_EKEY,
          "%s.%s is part of the primary key and needs a value (NaN is NULL): keys are made by the "
          "application, for example with randomUUID()",
          t->name, t->fields[i].name);
    /* 1 and 1.0 are one key, and shall be the same bytes on every peer */
    if (t->fields[i].untyped && key->type == REPLIC_REAL && key->d >= -9223372036854775808.0 &&
        key->d < 9223372036854775808.0 && floor(key->d) == key->d) {
      key->type = REPLIC_INT;
      key->i = (int64_t)key->d;
    }
  }
  return REPLIC_OK;
}

static int write_row(replic *r, replic__table *t, int kind, group *g) {
  int rc = check_keys(r, t), exists;
  int64_t bytes = 24 + t->n_fields / 8;
  if (rc == REPLIC_OK && kind == REPLIC_DELETE) {
    rc = replic__row_exists(r, t, t->values, &exists);
    if (rc == REPLIC_OK && !exists)
      rc = replic__fail(r, REPLIC_ENOTFOUND,
                        "%s has no row with this primary key: if another peer has written it, "
                        "waitFor() its token "
                        "first",
                        t->name);
    t->values[t->deleted_at] = (replic_value){.type = REPLIC_INT, .i = g->patched_at};
  }
  if (rc != REPLIC_OK) return rc;
  for (int i = 0; i < t->n_fields; i++) /* at least what wire.c makes of it */
    if (t->values[i].type != REPLIC_UNSET) bytes += 11 + (int64_t)t->values[i].len;
  g->bytes += bytes;
  if (g->bytes > (int64_t)r->config.max_frame_bytes)
    return replic__fail(r, REPLIC_ETOOLARGE,
                        "the group exceeds maxFrameBytes (%lld): write fewer rows at once, or use "
                        "load, which splits them",
                        (int64_t)r->config.max_frame_bytes);
  if (g->self->now.sequence >= REPLIC_MAX_SEQUENCE || g->patched_at > REPLIC_MAX_CLOCK)
    return replic__fail(r, REPLIC_ERANGE, "peer %u has used up its sequences or its clock",
                        r->peer_id);
  if (g->self->now.epoch != r->config.new_peer_id)
    rc = replic__epoch_note(r, r->peer_id, g->self->now.sequence + 1, r->config.new_peer_id);
  if (rc != REPLIC_OK) return rc;
  g->self->now.sequence++;
  g->self->now.patched_at = g->patched_at;
  replic__clock_issued(&r->clock, bytes);
  r->counters.patches_written++;
  replic__patch p = {t, r->peer_id, g->self->now.sequence, g->patched_at, t->values, NULL};
  return replic__merge(r, &p, 1);
}

static int write_change(replic *r, const replic_change *change, group *g) {
  replic__table *t = replic__schema_find(r->schema, change->table);
  if (!t)
    return replic__fail(r, REPLIC_ETABLE,
                        "there is no replicated table %s (one that has a %s_patches)",
                        change->table, change->table);
  if (change->kind == REPLIC_DELETE && t->deleted_at < 0)
    return replic__fail(
        r, REPLIC_ENODELETE,
        "%s has no column deletedAt, so its rows cannot be deleted: add one to %s and %s_patches",
        t->name, t->name, t->name);
  int *map, rc = map_columns(r, t, change, &map);
  const replic_value *value = change->values;
  for (size_t row = 0; rc == REPLIC_OK && row < change->n_rows; row++) {
    for (int i = 0; i < t->n_fields; i++) t->values[i].type = REPLIC_UNSET;
    for (size_t c = 0; c < change->n_columns; c++, value++) {
      t->values[map[c]] = *value;
      if (value->type == REPLIC_REAL && isnan(value->d)) t->values[map[c]].type = REPLIC_NULL;
    }
    for (int i = 0; i < t->n_fields; i++)
      if (t->values[i].type < REPLIC_TEXT) t->values[i].len = 0;
    rc = write_row(r, t, change->kind, g);
  }
  sqlite3_free(map);
  return rc;
}

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

int replic_write(replic *r, const replic_change *changes, size_t n_changes, int64_t *sequence) {
  replic__savepoint save;
  int was_stale = r->stale;
  *sequence = 0;
  int rc = REPLIC_OK;
  if (!r->is_together) rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = replic__merge_mode(r, 0);
  if (rc == REPLIC_OK && r->stale) rc = replic__reload_schema(r);
  group g = {replic__vector_entry(r, r->peer_id), replic__clock_next(&r->clock, r->now_ms), 0};
  for (size_t i = 0; rc == REPLIC_OK && i < n_changes; i++) rc = write_change(r, &changes[i], &g);
  r->counters.groups_written++;
  if (!r->is_together)
    rc = replic__savepoint_end(r, &save, rc);
  else if (rc == REPLIC_OK)
    rc = check_deferred(r);
  if (rc != REPLIC_OK) r->stale = was_stale; /* what registering had created is undone */
  if (rc == REPLIC_OK) *sequence = g.self->now.sequence;
  if (rc == REPLIC_OK)
    replic__trace(r, "written %u.%lld, clock %lld", r->peer_id, *sequence, g.patched_at);
  return rc;
}

int replic_run(replic *r, const char *sql, size_t len, int many, int unsafe,
               const replic_param *params, size_t n_params, int64_t *changes, int64_t *rowid) {
  replic__savepoint save;
  const replic__schema *before = r->schema;
  *changes = *rowid = 0;
  int rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = replic__merge_mode(r, 0);
  r->auth.schema_changed = 0;
  replic__script script = {.mode = unsafe ? AUTH_UNSAFE : AUTH_USER,
                           .many = many,
                           .sql = sql,
                           .len = len,
                           .params = params,
                           .n_params = n_params};
  if (rc == REPLIC_OK) rc = replic__guard_exec(r, &script);
  if (rc == REPLIC_OK) rc = check_deferred(r);
  if (rc == REPLIC_OK && r->auth.schema_changed) rc = replic__reload_schema(r);
  if (rc == REPLIC_OK && r->auth.schema_changed) rc = replic__schema_changed(r);
  *changes = script.changes;
  *rowid = script.rowid;
  rc = replic__savepoint_end(r, &save, rc);
  if (rc != REPLIC_OK && r->schema != before && !r->lost) { /* what was registered is undone */
    char *text = r->error;
    r->error = NULL;
    if (replic__reload_schema(r) != REPLIC_OK) r->lost = 1;
    sqlite3_free(r->error);
    r->error = text;
  }
  return rc;
}

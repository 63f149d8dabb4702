/* translate.c - patches that this schema cannot hold: of a table or column that is not known here,
 * or not any more; of a column that has another type here, so that SQLite may convert the value;
 * with a value that a NOT NULL or STRICT column cannot hold.
 *
 * Such a patch is kept in _replic_pending as it was received, and whatever of it can be held is
 * merged as usual. It counts as applied, is handed on as it was received, and stays as long as
 * something of it cannot be held. After each change of the schema
 *
 *   1. what the change has lost is kept, too (schema_change.c);
 *   2. names of renamed columns are followed in _nulls (schema_change.c);
 *   3. everything that is kept is merged again, with its own clock, into what can be held now.
 *
 * Patches of tables as they were here before steps up (_replic_past) are forgotten when they are
 * older than max_pending_retention_ms (compact.c); what is not known here yet never is.
 *
 * So tables are again what vector and schema say, whichever way they came there (I1), and what any
 * version has written comes back with that version. _replic_definitions has one row per table
 * definition received, with a fingerprint of how this schema mapped it last time. If the
 * fingerprint is unchanged, its patches need no second look. */
#include <string.h>

#include "data/mixed.h"
#include "state.h"

/* ---- a patch that has arrived ---- */

/* T_patches itself refuses it, by a STRICT key or an index of the application's: to be tried
 * whatever changes in the schema, so its definition is taken as nothing yet. */
static int keep_refused(replic *r, uint32_t source, const remote_table *t, const replic__patch *p,
                        const void *fields, size_t len, int *kept) {
  char *why = sqlite3_mprintf("%s cannot store it: %s", t->table->patches, replic_error_text(r));
  int rc = replic__keep_as(r, source, t, p, fields, len, why, kept);
  sqlite3_free(why);
  if (rc != REPLIC_OK) return rc;
  char *sql = sqlite3_mprintf(
      "UPDATE main._replic_definitions SET taken = NULL WHERE id = (SELECT definition FROM "
      "main._replic_pending WHERE origin = %u AND sequence = %lld)",
      p->origin, p->sequence);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

/* What a peer brings; what a change of the schema here takes away is always kept. */
int replic__check_pending(replic *r, uint32_t source, const remote_table *t, size_t len) {
  if (r->is_admitted || !replic__brings_too_much(r, source, BROUGHT_PENDING, (int64_t)len))
    return REPLIC_OK;
  char *text = replic__quota_text(r, source, BROUGHT_PENDING, (int64_t)len);
  int rc = replic__fail(r, REPLIC_EQUOTA, "%s is pending (%s). %s", t->name,
                        t->why ? t->why : "a value does not fit", text ? text : "");
  sqlite3_free(text);
  return rc;
}

/* Before, which costs nothing; and after, as its definition counts if it is the first of it. */
static int keep_brought(replic *r, uint32_t source, const remote_table *t, const replic__patch *p,
                        const void *fields, size_t len, int is_refused, int *kept) {
  int rc = replic__check_pending(r, source, t, len);
  if (rc == REPLIC_OK)
    rc = is_refused ? keep_refused(r, source, t, p, fields, len, kept)
                    : replic__keep_as(r, source, t, p, fields, len, NULL, kept);
  return rc == REPLIC_OK && *kept ? replic__check_pending(r, source, t, 0) : rc;
}

int replic__apply_patch(replic *r, uint32_t source, remote_table *t, const replic_position *at,
                        const uint8_t *fields, size_t len) {
  int rc = REPLIC_OK, kept = 1;
  replic__patch patch = {t->table, at->origin, at->sequence, at->patched_at, NULL, NULL};
  int whole = t->table && replic__map_values(r, t);
  replic__clock_seen(&r->clock, r->now_ms, at, r->peer_id);
  if (!whole) rc = keep_brought(r, source, t, &patch, fields, len, 0, &kept);
  if (rc != REPLIC_OK) return rc;
  if (!t->table) {
    r->counters.patches_duplicate += !kept;
    return rc;
  }
  patch.values = t->table->values;
  rc = replic__merge(r, &patch, 0);
  if (!replic__lies_in_data(rc)) return rc;
  rc = keep_brought(r, source, t, &patch, fields, len, 1, &kept);
  r->counters.patches_duplicate += whole && rc == REPLIC_OK && !kept;
  return rc;
}

/* ---- after a change of the schema: 3. what can be held now ---- */

typedef struct settling {
  replic *r;
  remote_table *t; /* the definition at hand */
  int64_t id;      /* its */
  int64_t left;    /* how many of its patches stay */
  int refused;     /* T_patches refuses some: to be tried at each change, as its DDL is not noted */
} settling;

/* Rewrites the patch's log row with everything the new schema can store, then recomputes the
 * affected cells. */
static int hold_anew(settling *s, const replic__patch *p) {
  replic_position at = {.origin = p->origin, .sequence = p->sequence, .patched_at = p->patched_at};
  replic__is_newest(s->r, &at); /* older ones that come later have to look for it */
  int duplicate, rc = replic__log_delete(s->r, p);
  if (rc == REPLIC_OK) rc = replic__log_insert(s->r, p, &duplicate);
  if (rc == REPLIC_OK) rc = replic__merge_again(s->r, p);
  s->t->table->touched |= 2;
  return rc;
}

/* What the log has of it is all from now on, and may be pruned like any other. */
static int forget(replic *r, uint32_t origin, int64_t sequence) {
  replic__entry *entry = replic__vector_entry(r, origin);
  if (!entry) return SQLITE_NOMEM;
  if (entry->pruned.cursor >= sequence) entry->pruned.cursor = sequence - 1;
  entry->due = 0;
  return replic__pending_forget(r, origin, sequence);
}

static int corrupt(replic *r) {
  return replic__fail(r, SQLITE_CORRUPT, "_replic_pending holds what is no patch");
}

static int settle_patch(settling *s, sqlite3_stmt *stmt) {
  replic *r = s->r;
  const uint8_t *bytes = sqlite3_column_blob(stmt, 3);
  size_t len = (size_t)sqlite3_column_bytes(stmt, 3);
  if (!bytes) return SQLITE_NOMEM;
  replic__reader fields = {bytes, bytes + len, 0};
  replic__get_fields(&fields, s->t->n_keys, s->t->n_fields, r->values);
  if (fields.failed) return corrupt(r);
  int whole = replic__map_values(r, s->t);
  replic__patch p = {s->t->table,
                     (uint32_t)sqlite3_column_int64(stmt, 0),
                     sqlite3_column_int64(stmt, 1),
                     sqlite3_column_int64(stmt, 2),
                     s->t->table->values,
                     NULL};
  int rc = hold_anew(s, &p);
  if (replic__lies_in_data(rc)) { /* the log keeps nothing of it */
    s->refused = 1;
    return REPLIC_OK;
  }
  s->left -= whole;
  return rc == REPLIC_OK && whole ? forget(r, p.origin, p.sequence) : rc;
}

static int settle_patches(settling *s) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(s->r,
                           "SELECT origin, sequence, patchedAt, patch FROM main._replic_pending "
                           "WHERE definition = ?1 ORDER BY patchedAt, origin, sequence",
                           &stmt);
  if (rc == REPLIC_OK) sqlite3_bind_int64(stmt, 1, s->id);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) rc = settle_patch(s, stmt);
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(s->r, rc);
}

/* Fingerprint of the mapping of the definition to our table. The caller frees; NULL: out of memory.
 */
static char *taken_as(const remote_table *t) {
  sqlite3_str *out = sqlite3_str_new(NULL);
  if (t->table)
    sqlite3_str_appendf(out, "%Q %d %d", t->name, t->table->strict, t->table->has_nulls);
  for (int i = 0; t->table && i < t->n_fields; i++) {
    const replic__field *f = t->map[i] < 0 ? NULL : &t->table->fields[t->map[i]];
    if (f)
      sqlite3_str_appendf(out, ", %Q %Q %d", f->name, f->type, f->not_null);
    else
      sqlite3_str_appendall(out, ", -");
  }
  sqlite3_str_appendall(out, ";");
  return sqlite3_str_finish(out);
}

static int note_taken(settling *s, const char *taken) {
  char *sql = sqlite3_mprintf("UPDATE main._replic_definitions SET taken = %Q WHERE id = %lld",
                              s->refused ? "" : taken, s->id);
  int rc = sql ? replic__exec(s->r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

static int settle_definition(settling *s, const char *before) {
  char *taken = taken_as(s->t);
  int rc = taken ? REPLIC_OK : SQLITE_NOMEM;
  if (rc == REPLIC_OK && strcmp(before, taken) != 0) {
    if (s->t->table) rc = settle_patches(s);
    if (rc == REPLIC_OK) rc = note_taken(s, taken);
  }
  sqlite3_free(taken);
  return rc;
}

/* `row`: id, definition, taken, number of patches, and the oldest one's clock. */
static int look_at_definition(replic *r, sqlite3_stmt *row, int apply) {
  const uint8_t *bytes = sqlite3_column_blob(row, 1);
  size_t len = (size_t)sqlite3_column_bytes(row, 1);
  const char *before = (const char *)sqlite3_column_text(row, 2);
  if (!bytes) return SQLITE_NOMEM;
  replic__reader in = {bytes, bytes + len, 0};
  settling s = {r, replic__read_definition(&in), sqlite3_column_int64(row, 0),
                sqlite3_column_int64(row, 3), 0};
  if (!s.t) return in.failed ? corrupt(r) : SQLITE_NOMEM;
  int rc = replic__resolve(r, s.t);
  if (rc == REPLIC_OK) rc = replic__reserve_values(r, s.t->n_fields);
  if (rc == REPLIC_OK && apply) rc = settle_definition(&s, before ? before : "");
  if (rc == REPLIC_OK && s.left)
    replic__pending_count(r, s.t, s.left, sqlite3_column_int64(row, 4));
  replic__free_remote_table(s.t);
  return rc;
}

static int see_whether_any(replic *r) {
  int64_t any;
  int rc = replic__int(r, "SELECT EXISTS (SELECT 1 FROM main._replic_pending)", &any);
  r->has_pending = rc != REPLIC_OK || any;
  return rc != REPLIC_OK
             ? rc
             : replic__bring_again(
                   r, BROUGHT_PENDING,
                   "SELECT source, sum(n) FROM (SELECT source, length(patch) AS n FROM "
                   "main._replic_pending UNION ALL SELECT source, length(definition) FROM "
                   "main._replic_definitions) WHERE source > 0 GROUP BY source");
}

/* Nothing is pending, so nobody looks how definitions are taken now. A patch that comes later is
 * to be tried at the next change, whatever they were taken as before this one. */
static int forget_taken(replic *r) {
  return replic__exec(r,
                      "UPDATE main._replic_definitions SET taken = NULL WHERE taken IS NOT NULL");
}

/* Counts what is pending and, if `apply`, merges before what can be held now. */
static int look_at_all(replic *r, int apply) {
  sqlite3_stmt *stmt = NULL;
  replic__pending_uncount(r);
  int rc = see_whether_any(r);
  if (rc != REPLIC_OK) return rc;
  if (!r->has_pending) return apply ? forget_taken(r) : REPLIC_OK;
  /* sorted, and so read to its end before rows are changed on the way */
  rc = replic__prepare(r,
                       "SELECT id, definition, taken, (SELECT count(*) FROM main._replic_pending "
                       "WHERE definition = d.id) AS n, (SELECT min(patchedAt) FROM "
                       "main._replic_pending WHERE definition = d.id) FROM "
                       "main._replic_definitions d ORDER BY n, id",
                       &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW)
    rc = look_at_definition(r, stmt, apply);
  sqlite3_finalize(stmt);
  rc = rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  return rc == REPLIC_OK && apply ? see_whether_any(r) : rc;
}

void replic__pending_recount(replic *r) {
  r->recount = 0;
  if (look_at_all(r, 0) != REPLIC_OK) r->recount = 1;
}

int replic__pending_load(replic *r) {
  int rc = replic__merge_mode(r, 1);
  if (rc == REPLIC_OK) rc = look_at_all(r, 1);
  int mode = replic__merge_mode(r, 0);
  return rc == REPLIC_OK ? mode : rc;
}

/* pending.c - patches that this schema cannot hold: of a table or column that is not known here, or
 * not any more; of a column that has another type here, so that SQLite may convert the value; with
 * a value that a NOT NULL or STRICT column cannot hold.
 *
 * Such a patch is kept in _replic_pending as it was received, and whatever of it can be held is
 * merged as usual. It counts as applied, is handed on as it was received, and stays as long as
 * something of it cannot be held. After each change of the schema
 *
 *   1. what the change has lost is kept, too: a second connection still sees the database as it was
 *      before, and so the log's values of columns that are gone or have another type now;
 *   2. names of renamed columns are followed in _nulls;
 *   3. everything that is kept is merged anew, with its own clock, into what can be held now.
 *
 * Patches of tables as they were here before steps up (_replic_past) are forgotten when they are
 * older than max_pending_retention_ms (compact.c); what is not known here yet never is.
 *
 * So tables are again what vector and schema say, whichever way they came there (I1), and what any
 * version has written comes back with that version. _replic_definitions has each table as those saw
 * it who wrote to it, and as what it was taken here last: what has not changed is not looked at. */
#include <string.h>

#include "sync.h"

/* ---- the store ---- */

/* Statements that a patch needs are prepared once. */
enum { READ, KEEP, FORGET, FIND_DEFINITION, KEEP_DEFINITION, FORGET_DEFINITION, OLDEST };

static int get_sql(replic *r, int which, sqlite3_stmt **out) {
  static const char *const SQL[REPLIC__N_PENDING_SQL] = {
      [READ] = "SELECT p.sequence, p.patchedAt, d.definition, p.patch FROM main._replic_pending p "
               "JOIN main._replic_definitions d ON d.id = p.definition WHERE p.origin = ?1 AND "
               "p.sequence > ?2 AND p.sequence <= ?3 ORDER BY p.sequence",
      [KEEP] = "INSERT OR IGNORE INTO main._replic_pending(origin, sequence, patchedAt, "
               "definition, source, patch) VALUES(?1, ?2, ?3, ?4, ?6, ?5)",
      [FORGET] = "DELETE FROM main._replic_pending WHERE origin = ?1 AND sequence = ?2 RETURNING "
                 "source, length(patch), definition",
      [FIND_DEFINITION] = "SELECT id FROM main._replic_definitions WHERE definition = ?1",
      [KEEP_DEFINITION] = "INSERT INTO main._replic_definitions(definition, source) VALUES(?1, ?2)",
      [FORGET_DEFINITION] =
          "DELETE FROM main._replic_definitions WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM "
          "main._replic_pending WHERE definition = ?1) AND NOT EXISTS (SELECT 1 FROM "
          "main._replic_past WHERE definition = ?1) RETURNING source, length(definition)",
      [OLDEST] = "SELECT p.origin, p.sequence FROM main._replic_past q CROSS JOIN "
                 "main._replic_pending p ON p.definition = q.definition WHERE p.patchedAt < ?1 "
                 "LIMIT 1"};
  int rc = replic__prepare(r, SQL[which], &r->pending_sql[which]);
  *out = r->pending_sql[which];
  return rc;
}

static int bind_definition(replic *r, int which, const replic_frame *definition,
                           sqlite3_stmt **stmt) {
  int rc = get_sql(r, which, stmt);
  if (rc != REPLIC_OK) return rc;
  return replic__fail_db(
      r, sqlite3_bind_blob64(*stmt, 1, definition->data, definition->len, SQLITE_STATIC));
}

static int definition_id(replic *r, uint32_t source, const replic_frame *definition, int64_t *id) {
  sqlite3_stmt *stmt;
  *id = 0;
  int rc = bind_definition(r, FIND_DEFINITION, definition, &stmt);
  if (rc != REPLIC_OK) return rc;
  rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW) *id = sqlite3_column_int64(stmt, 0);
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(stmt);
  if (rc != REPLIC_OK || *id) return rc;
  rc = bind_definition(r, KEEP_DEFINITION, definition, &stmt);
  if (rc == REPLIC_OK) sqlite3_bind_int64(stmt, 2, source);
  if (rc == REPLIC_OK) rc = replic__step(r, stmt);
  *id = sqlite3_last_insert_rowid(r->db);
  if (rc == REPLIC_OK && source)
    rc = replic__bring(r, source, BROUGHT_PENDING, (int64_t)definition->len);
  return rc;
}

/* `row`: source and length, of what is gone. */
static int credit(replic *r, sqlite3_stmt *row) {
  uint32_t source = (uint32_t)sqlite3_column_int64(row, 0);
  return source ? replic__bring(r, source, BROUGHT_PENDING, -sqlite3_column_int64(row, 1))
                : REPLIC_OK;
}

static int forget_definition(replic *r, int64_t id) {
  sqlite3_stmt *stmt;
  int rc = get_sql(r, FORGET_DEFINITION, &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, id);
  if (sqlite3_step(stmt) == SQLITE_ROW) rc = credit(r, stmt);
  int done = replic__fail_db(r, sqlite3_reset(stmt));
  return rc == REPLIC_OK ? done : rc;
}

/* ---- what is pending, per table and reason ---- */

typedef struct tally {
  replic_pending **at;
  size_t *n;
} tally;

static int compare_count(const replic_pending *one, const char *table, const char *why) {
  int order = strcmp(one->table, table);
  return order ? order : strcmp(one->why, why);
}

static size_t find_count(tally in, const char *table, const char *why) {
  size_t low = 0, high = *in.n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (compare_count(&(*in.at)[middle], table, why) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* 0: out of memory. */
static int add_count(tally to, size_t at, replic_pending one) {
  replic_pending *grown = sqlite3_realloc64(*to.at, (*to.n + 1) * sizeof *grown);
  if (!grown) return 0;
  *to.at = grown;
  one.table = sqlite3_mprintf("%s", one.table);
  one.why = sqlite3_mprintf("%s", one.why);
  if (one.table && one.why) {
    memmove(&grown[at + 1], &grown[at], (*to.n - at) * sizeof one);
    grown[at] = one;
    ++*to.n;
    return 1;
  }
  sqlite3_free((char *)one.table);
  sqlite3_free((char *)one.why);
  return 0;
}

/* Of more tables and reasons than are shown, what is left is counted under no name. A
 * figure that is lost for want of memory is no patch: all is counted again later. */
static void count(replic *r, tally to, replic_pending one) {
  for (;;) {
    size_t at = find_count(to, one.table, one.why);
    replic_pending *same = at < *to.n ? &(*to.at)[at] : NULL;
    if (same && !compare_count(same, one.table, one.why)) {
      same->patches += one.patches;
      if (one.oldest_at < same->oldest_at) same->oldest_at = one.oldest_at;
      return;
    }
    if (*to.n < REPLIC_PENDING_SHOWN || !*one.table) {
      if (!add_count(to, at, one)) r->recount = 1;
      return;
    }
    one.table = "";
    one.why = "of further tables, or for further reasons";
  }
}

/* `why`: NULL: what the definition says, or else its values. */
static replic_pending counted(const remote_table *t, const char *why, int64_t patches,
                              int64_t oldest_at) {
  if (!why) why = t->why ? t->why : "a column here cannot hold the value";
  return (replic_pending){t->name, why, patches, oldest_at};
}

static tally all_of(replic *r) {
  return (tally){&r->pending, &r->n_pending};
}

static tally fresh_of(replic *r) {
  return (tally){&r->fresh, &r->n_fresh};
}

static void forget_counts(tally of) {
  for (size_t i = 0; i < *of.n; i++) {
    sqlite3_free((char *)(*of.at)[i].table);
    sqlite3_free((char *)(*of.at)[i].why);
  }
  *of.n = 0;
}

void replic__pending_settle(replic *r, int is_kept) {
  for (size_t i = 0; is_kept && i < r->n_fresh; i++) count(r, all_of(r), r->fresh[i]);
  forget_counts(fresh_of(r));
}

void replic__pending_close(replic *r) {
  forget_counts(all_of(r));
  forget_counts(fresh_of(r));
  sqlite3_free(r->pending);
  sqlite3_free(r->fresh);
  for (int i = 0; i < REPLIC__N_PENDING_SQL; i++) sqlite3_finalize(r->pending_sql[i]);
}

size_t replic_pending_count(const replic *r) {
  return r->n_pending;
}

const replic_pending *replic_pending_at(const replic *r, size_t index) {
  return index < r->n_pending ? &r->pending[index] : NULL;
}

/* *kept: 0 where it was kept before. */
static int keep(replic *r, uint32_t source, const replic_frame *definition, const replic__patch *p,
                const void *fields, size_t len, int *kept) {
  sqlite3_stmt *stmt;
  int64_t id;
  *kept = 0;
  int rc = definition ? definition_id(r, source, definition, &id) : SQLITE_NOMEM;
  if (rc == REPLIC_OK) rc = get_sql(r, KEEP, &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, p->origin);
  sqlite3_bind_int64(stmt, 2, p->sequence);
  sqlite3_bind_int64(stmt, 3, p->patched_at);
  sqlite3_bind_int64(stmt, 4, id);
  sqlite3_bind_int64(stmt, 6, source);
  rc = replic__fail_db(r, sqlite3_bind_blob64(stmt, 5, fields, len, SQLITE_STATIC));
  if (rc == REPLIC_OK) rc = replic__step(r, stmt);
  *kept = rc == REPLIC_OK && sqlite3_changes64(r->db) > 0;
  r->has_pending |= *kept;
  return *kept && source ? replic__bring(r, source, BROUGHT_PENDING, (int64_t)len) : rc;
}

static int insert(replic *r, uint32_t source, const remote_table *t, const replic__patch *p,
                  const void *fields, size_t len, const char *why, int *kept) {
  replic__writer w = {0};
  replic__put_definition(&w, 0, t);
  replic_frame *definition = replic__finish(&w);
  int rc = keep(r, source, definition, p, fields, len, kept);
  replic__frame_release(definition);
  if (*kept) count(r, fresh_of(r), counted(t, why, 1, p->patched_at));
  return rc;
}

int replic__pending_exists(replic *r, uint32_t origin, int64_t sequence, int *exists) {
  int64_t patched_at;
  int rc = replic__pending_clock(r, origin, sequence, 0, &patched_at);
  *exists = patched_at > 0;
  return rc;
}

int replic__pending_clock(replic *r, uint32_t origin, int64_t sequence, int step,
                          int64_t *patched_at) {
  *patched_at = 0;
  if (!r->has_pending) return REPLIC_OK;
  char *sql = sqlite3_mprintf(
      "SELECT patchedAt FROM main._replic_pending WHERE origin = %u AND sequence %s %lld ORDER BY "
      "sequence %s LIMIT 1",
      origin,
      step < 0   ? "<="
      : step > 0 ? ">="
                 : "=",
      sequence, step < 0 ? "DESC" : "ASC");
  int rc = sql ? replic__int(r, sql, patched_at) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

int replic__pending_move(replic *r, const replic__patch *p, const replic__patch *to) {
  char *sql = sqlite3_mprintf("UPDATE main._replic_pending SET origin = %u, sequence = %lld, "
                              "patchedAt = %lld WHERE origin = %u AND sequence = %lld",
                              to->origin, to->sequence, to->patched_at, p->origin, p->sequence);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

int replic__pending_oldest(replic *r, int64_t older_than_ms, uint32_t *origin, int64_t *sequence) {
  sqlite3_stmt *stmt;
  *origin = 0;
  if (!r->has_pending) return REPLIC_OK;
  int rc = get_sql(r, OLDEST, &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, older_than_ms);
  rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW) {
    *origin = (uint32_t)sqlite3_column_int64(stmt, 0);
    *sequence = sqlite3_column_int64(stmt, 1);
  }
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(stmt);
  return rc;
}

/* ---- its cursor for the log ---- */

int replic__pending_open(replic *r, uint32_t origin, int64_t after, int64_t up_to) {
  sqlite3_stmt *stmt;
  int rc = get_sql(r, READ, &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, origin);
  sqlite3_bind_int64(stmt, 2, after);
  sqlite3_bind_int64(stmt, 3, up_to);
  return REPLIC_OK;
}

static void read_raw(sqlite3_stmt *stmt, int column, replic__raw *raw) {
  raw->definition = sqlite3_column_blob(stmt, column);
  raw->definition_len = (size_t)sqlite3_column_bytes(stmt, column);
  raw->fields = sqlite3_column_blob(stmt, column + 1);
  raw->fields_len = (size_t)sqlite3_column_bytes(stmt, column + 1);
}

int replic__pending_next(replic *r, int64_t *sequence, int64_t *patched_at, replic__raw *raw) {
  sqlite3_stmt *stmt = r->pending_sql[READ];
  int rc = sqlite3_step(stmt);
  *raw = (replic__raw){0};
  if (rc == SQLITE_DONE) return REPLIC_OK;
  if (rc != SQLITE_ROW) return replic__fail_db(r, rc);
  *sequence = sqlite3_column_int64(stmt, 0);
  *patched_at = sqlite3_column_int64(stmt, 1);
  read_raw(stmt, 2, raw);
  return raw->definition && raw->fields ? REPLIC_OK : SQLITE_NOMEM;
}

void replic__pending_reset(replic *r) {
  sqlite3_reset(r->pending_sql[READ]);
}

/* ---- a patch that has arrived ---- */

/* T_patches itself refuses it, by a STRICT key or an index of the application's: to be tried
 * whatever changes in the schema, so its definition is taken as nothing yet. */
static int keep_refused(replic *r, uint32_t source, const remote_table *t, const replic__patch *p,
                        const void *fields, size_t len, int *kept) {
  char *why = sqlite3_mprintf("%s cannot store it: %s", t->table->patches, replic_error_text(r));
  int rc = insert(r, source, t, p, fields, len, why, kept);
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
  if (r->sync->is_admitted || !replic__brings_too_much(r, source, BROUGHT_PENDING, (int64_t)len))
    return REPLIC_OK;
  char *text = replic__quota_text(r, source, BROUGHT_PENDING);
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
                    : insert(r, source, t, p, fields, len, NULL, kept);
  return rc == REPLIC_OK && *kept ? replic__check_pending(r, source, t, 0) : rc;
}

int replic__apply_patch(replic *r, uint32_t source, remote_table *t, const replic__patches *p,
                        const uint8_t *fields) {
  int rc = REPLIC_OK, kept = 1;
  size_t len = (size_t)(p->in.at - fields);
  replic__patch patch = {t->table, p->origin, p->sequence, p->clock, NULL, NULL};
  int whole = t->table && replic__map_values(r, t);
  const replic_position at = {.origin = p->origin, .sequence = p->sequence, .patched_at = p->clock};
  replic__clock_seen(&r->clock, r->now_ms, &at, r->peer_id);
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

/* Another row of the log: with all that can be held of the patch, and its cells anew. */
static int hold_anew(settling *s, const replic__patch *p) {
  replic_position at = {.origin = p->origin, .sequence = p->sequence, .patched_at = p->patched_at};
  replic__is_newest(s->r, &at); /* older ones that come later have to look for it */
  int duplicate, rc = replic__log_delete(s->r, p);
  if (rc == REPLIC_OK) rc = replic__log_insert(s->r, p, &duplicate);
  if (rc == REPLIC_OK) rc = replic__merge_again(s->r, p);
  s->t->table->touched |= 2;
  return rc;
}

int replic__pending_forget(replic *r, uint32_t origin, int64_t sequence) {
  sqlite3_stmt *stmt;
  int rc = get_sql(r, FORGET, &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, origin);
  sqlite3_bind_int64(stmt, 2, sequence);
  int64_t definition = 0;
  if (sqlite3_step(stmt) == SQLITE_ROW) {
    definition = sqlite3_column_int64(stmt, 2);
    rc = credit(r, stmt);
  }
  int done = replic__fail_db(r, sqlite3_reset(stmt));
  if (rc == REPLIC_OK) rc = done;
  r->counted |= definition != 0;
  return rc == REPLIC_OK && definition ? forget_definition(r, definition) : rc;
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
  replic__get_fields(&fields, s->t->n_keys, s->t->n_fields, r->sync->values);
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

/* As what the definition is taken here: NULL: out of memory. */
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
  if (rc == REPLIC_OK) rc = replic__reserve_values(r->sync, s.t->n_fields);
  if (rc == REPLIC_OK && apply) rc = settle_definition(&s, before ? before : "");
  if (rc == REPLIC_OK && s.left)
    count(r, all_of(r), counted(s.t, NULL, s.left, sqlite3_column_int64(row, 4)));
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

/* Counts what is pending and, if `apply`, merges before what can be held now. */
static int look_at_all(replic *r, int apply) {
  sqlite3_stmt *stmt = NULL;
  forget_counts(all_of(r));
  forget_counts(fresh_of(r));
  int rc = see_whether_any(r);
  if (rc != REPLIC_OK || !r->has_pending) return rc;
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

/* ---- 1. what the change has lost, 2. renamed columns ---- */

typedef struct before {
  replic *r;
  sqlite3 *db;     /* sees the database as it was before the change */
  remote_table *t; /* one of its tables */
  int has_nulls, strict;
  int *not_null, *required; /* of its fields */
} before;

static int fail_before(const before *b, int rc) {
  return rc == SQLITE_OK || rc == SQLITE_DONE
             ? REPLIC_OK
             : replic__fail(b->r, rc, "the database as it was before the change cannot be read: %s",
                            sqlite3_errmsg(b->db));
}

static int read_table(before *b, const char *name) {
  sqlite3_stmt *stmt = NULL;
  int n = 0, rc = sqlite3_prepare_v3(b->db,
                                     "SELECT name, type, pk, \"notnull\", count(*) OVER (), "
                                     "dflt_value IS NULL FROM pragma_table_xinfo(?1, "
                                     "'main') WHERE hidden = 0 ORDER BY pk = 0, pk, cid",
                                     -1, 0, &stmt, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
  remote_table *t = b->t = sqlite3_malloc64(sizeof *t);
  if (!t) rc = SQLITE_NOMEM;
  if (t) *t = (remote_table){.name = sqlite3_mprintf("%s", name)};
  while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    size_t all = (size_t)sqlite3_column_int(stmt, 4);
    if (!t->texts) t->texts = sqlite3_malloc64(2 * all * sizeof *t->texts);
    if (!b->not_null) b->not_null = sqlite3_malloc64(2 * all * sizeof *b->not_null);
    if (b->not_null) b->required = b->not_null + all;
    rc = SQLITE_NOMEM;
    if (!t->name || !t->texts || !b->not_null) break;
    char *column = sqlite3_mprintf("%s", sqlite3_column_text(stmt, 0));
    char *type = sqlite3_mprintf("%s", sqlite3_column_text(stmt, 1));
    t->texts[2 * n] = column;
    t->texts[2 * n + 1] = type;
    b->not_null[n] = sqlite3_column_int(stmt, 3);
    b->required[n] = b->not_null[n] && sqlite3_column_int(stmt, 5);
    t->n_keys += sqlite3_column_int(stmt, 2) > 0;
    t->n_fields = ++n;
    if (column && type) rc = SQLITE_OK;
  }
  sqlite3_finalize(stmt);
  return fail_before(b, rc);
}

/* May a patch of it hold something that cannot be held any more? */
static int may_have_lost(const before *b) {
  const remote_table *t = b->t;
  if (!t->table || t->n_same < t->n_fields || t->table->strict != b->strict) return 1;
  for (int i = 0; b->not_null && i < t->n_fields; i++)
    if (t->table->fields[t->map[i]].not_null && !b->not_null[i]) return 1;
  return 0;
}

static int keep_row(before *b, sqlite3_stmt *stmt) {
  replic *r = b->r;
  const remote_table *t = b->t;
  replic__patch p = {t->table,
                     (uint32_t)sqlite3_column_int64(stmt, 0),
                     sqlite3_column_int64(stmt, 1),
                     sqlite3_column_int64(stmt, 2),
                     NULL,
                     NULL};
  for (int i = 0; i < t->n_fields; i++) {
    replic__column(stmt, 3 + 2 * i, &r->sync->values[i]);
    if (r->sync->values[i].type == REPLIC_NULL && !sqlite3_column_int(stmt, 4 + 2 * i))
      r->sync->values[i].type = REPLIC_UNSET;
  }
  if (t->table && replic__map_values(r, t)) return REPLIC_OK;
  replic__writer w = {0};
  int kept;
  replic__put_fields(&w, t->n_keys, t->n_fields, r->sync->values);
  replic_frame *fields = replic__finish(&w);
  if (!fields) return SQLITE_NOMEM;
  int rc = insert(r, 0, t, &p, fields->data, fields->len, NULL, &kept);
  replic__frame_release(fields);
  return rc;
}

static int keep_lost(before *b) {
  sqlite3_str *sql = sqlite3_str_new(NULL);
  sqlite3_str_appendall(sql, "SELECT _peerId, _sequenceId, _patchedAt");
  for (int i = 0; i < b->t->n_fields; i++) {
    const char *name = b->t->texts[2 * i];
    sqlite3_str_appendf(sql, ", \"%w\", ", name);
    if (b->has_nulls)
      sqlite3_str_appendf(sql, "coalesce(instr(_nulls, json_quote(%Q)), 0)", name);
    else
      sqlite3_str_appendall(sql, "0");
  }
  sqlite3_str_appendf(sql, " FROM \"%w_patches\"", b->t->name);
  char *text = sqlite3_str_finish(sql);
  sqlite3_stmt *stmt = NULL;
  int rc = text ? sqlite3_prepare_v3(b->db, text, -1, 0, &stmt, NULL) : SQLITE_NOMEM;
  sqlite3_free(text);
  rc = fail_before(b, rc);
  if (rc == REPLIC_OK) rc = replic__reserve_values(b->r->sync, b->t->n_fields);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) rc = keep_row(b, stmt);
  if (rc == SQLITE_DONE) rc = REPLIC_OK;
  sqlite3_finalize(stmt);
  return rc;
}

/* ---- what a step up has left behind: the definition, and names of columns ---- */

static int is_gone(const before *b, int field) {
  return !replic__schema_find(b->r->schema, b->t->name) || b->t->map[field] < 0;
}

static int differs(const before *b) {
  const remote_table *t = b->t;
  return !t->table || t->n_same < t->n_fields || t->n_fields != t->table->n_fields;
}

static int note_dropped(const before *b) {
  int rc = REPLIC_OK;
  for (int i = 0; rc == REPLIC_OK && i < b->t->n_fields; i++) {
    if (!is_gone(b, i)) continue;
    char *sql =
        sqlite3_mprintf("INSERT OR IGNORE INTO main._replic_renames(version, tableName, oldColumn, "
                        "newColumn) VALUES(%lld, %Q, %Q, %Q)",
                        b->r->step, b->t->name, b->t->texts[2 * i], b->t->texts[2 * i]);
    rc = sql ? replic__exec(b->r, sql) : SQLITE_NOMEM;
    sqlite3_free(sql);
  }
  return rc;
}

static int note_past(const before *b) {
  replic *r = b->r;
  if (!r->step || r->step_kind != REPLIC_STEP_UP || !differs(b)) return REPLIC_OK;
  replic__writer w = {0};
  int64_t id;
  replic__put_definition(&w, 0, b->t);
  replic_frame *definition = replic__finish(&w);
  int rc = definition ? definition_id(r, 0, definition, &id) : SQLITE_NOMEM;
  replic__frame_release(definition);
  if (rc != REPLIC_OK) return rc;
  char *sql =
      sqlite3_mprintf("INSERT OR IGNORE INTO main._replic_past(definition) VALUES(%lld)", id);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc == REPLIC_OK ? note_dropped(b) : rc;
}

/* A table that is again as it was. */
static int forget_past(replic *r) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r,
                           "DELETE FROM main._replic_past WHERE definition = (SELECT id FROM "
                           "main._replic_definitions WHERE definition = ?1)",
                           &stmt);
  for (size_t i = 0; rc == REPLIC_OK && i < r->schema->n_tables; i++) {
    replic__writer w = {0};
    replic__put_own_definition(&w, 0, r->schema->tables[i]);
    replic_frame *own = replic__finish(&w);
    rc = own ? sqlite3_bind_blob64(stmt, 1, own->data, own->len, SQLITE_STATIC) : SQLITE_NOMEM;
    rc = rc == REPLIC_OK ? replic__step(r, stmt) : replic__fail_db(r, rc);
    replic__frame_release(own);
  }
  sqlite3_finalize(stmt);
  return rc;
}

/* The names in _nulls are those of the columns. */
static int follow_renames(const before *b) {
  const replic__table *ours = b->t->table;
  int rc = REPLIC_OK;
  for (int i = 0; rc == REPLIC_OK && ours && ours->has_nulls && i < b->t->n_fields; i++) {
    const char *from = b->t->texts[2 * i];
    const replic__field *to = b->t->map[i] < 0 ? NULL : &ours->fields[b->t->map[i]];
    if (!to || !strcmp(to->name, from)) continue;
    char *sql = sqlite3_mprintf(
        "UPDATE main.\"%w\" SET _nulls = replace(_nulls, json_quote(%Q), %Q) WHERE instr(_nulls, "
        "json_quote(%Q))",
        ours->patches, from, to->json_name, from);
    rc = sql ? replic__exec(b->r, sql) : SQLITE_NOMEM;
    sqlite3_free(sql);
  }
  return rc;
}

/* Rows that were waiting for a required column may exist now. */
static int may_let_in(const before *b) {
  const remote_table *t = b->t;
  for (int i = t->n_keys; t->table && b->required && i < t->n_fields; i++)
    if (b->required[i] && (t->map[i] < 0 || !t->table->fields[t->map[i]].required)) return 1;
  return 0;
}

/* ---- what the transaction itself has written ---- */

static int keep_written(void *ctx, const replic__patch *p) {
  replic *r = ctx;
  const replic__table *t = p->table;
  if (p->raw) return REPLIC_OK; /* it is kept already */
  replic__writer definition = {0}, fields = {0};
  replic__put_own_definition(&definition, 0, t);
  replic__put_fields(&fields, t->n_keys, t->n_fields, p->values);
  replic_frame *d = replic__finish(&definition), *f = replic__finish(&fields);
  int kept, rc = f ? keep(r, 0, d, p, f->data, f->len, &kept) : SQLITE_NOMEM;
  replic__frame_release(d);
  replic__frame_release(f);
  return rc;
}

int replic__pending_keep_written(replic *r) {
  int rc = REPLIC_OK;
  for (size_t i = 0; rc == REPLIC_OK && i < r->n_vector; i++) {
    const replic__entry *entry = &r->vector[i];
    if (entry->now.sequence > entry->committed.sequence)
      rc = replic__log_read(r, entry->now.origin, entry->committed.sequence, entry->now.sequence,
                            keep_written, r);
  }
  return rc;
}

static int look_at_table(before *b, const char *name) {
  int rc = read_table(b, name);
  if (rc == REPLIC_OK) rc = replic__resolve(b->r, b->t);
  if (rc == REPLIC_OK) rc = follow_renames(b);
  if (rc == REPLIC_OK) rc = note_past(b);
  if (rc == REPLIC_OK && may_have_lost(b)) rc = keep_lost(b);
  if (rc == REPLIC_OK && may_let_in(b)) rc = replic__merge_missing(b->r, b->t->table);
  replic__free_remote_table(b->t);
  sqlite3_free(b->not_null);
  b->t = NULL;
  b->not_null = NULL;
  return rc;
}

static int look_at_tables(before *b) {
  sqlite3_stmt *stmt = NULL;
  int rc = sqlite3_prepare_v3(
      b->db,
      "SELECT t.name, EXISTS (SELECT 1 FROM pragma_table_xinfo(p.name, 'main') WHERE name = "
      "'_nulls' COLLATE NOCASE), t.strict OR p.strict FROM pragma_table_list t JOIN "
      "pragma_table_list p ON "
      "p.name = "
      "t.name || '_patches' COLLATE NOCASE WHERE t.schema = 'main' AND p.schema = 'main' AND "
      "t.type = 'table'",
      -1, 0, &stmt, NULL);
  rc = fail_before(b, rc);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    const char *name = (const char *)sqlite3_column_text(stmt, 0);
    b->has_nulls = sqlite3_column_int(stmt, 1);
    b->strict = sqlite3_column_int(stmt, 2);
    rc = name ? look_at_table(b, name) : SQLITE_NOMEM;
  }
  if (rc == SQLITE_DONE) rc = REPLIC_OK;
  sqlite3_finalize(stmt);
  return rc;
}

int replic__pending_schema_changed(replic *r) {
  before b = {.r = r};
  int rc = sqlite3_open_v2(
      r->path, &b.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
  rc = fail_before(&b, rc);
  if (rc == REPLIC_OK) sqlite3_db_config(b.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  if (rc == REPLIC_OK) rc = replic__claims_look(r, 1); /* it may be another file by now */
  if (rc == REPLIC_OK) rc = replic__merge_mode(r, 1);
  if (rc == REPLIC_OK) rc = look_at_tables(&b);
  if (rc == REPLIC_OK) rc = forget_past(r);
  sqlite3_close(b.db);
  return rc == REPLIC_OK ? replic__pending_load(r) : rc;
}

/* kept.c - the store of patches that this schema cannot hold, as they were received
 * (_replic_pending), and of the definitions of their tables (_replic_definitions): to keep, to find
 * and to forget them, and how many there are. What can be held of them translate.c says. */
#include <string.h>

#include "data/mixed.h"
#include "state.h"

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

int replic__kept_definition(replic *r, uint32_t source, const replic_frame *definition,
                            int64_t *id) {
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

void replic__pending_count(replic *r, const remote_table *t, int64_t patches, int64_t oldest_at) {
  count(r, all_of(r), counted(t, NULL, patches, oldest_at));
}

void replic__pending_uncount(replic *r) {
  forget_counts(all_of(r));
  forget_counts(fresh_of(r));
}

void replic__pending_settle(replic *r, int is_kept) {
  for (size_t i = 0; is_kept && i < r->n_fresh; i++) count(r, all_of(r), r->fresh[i]);
  forget_counts(fresh_of(r));
}

void replic__pending_close(replic *r) {
  replic__pending_uncount(r);
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

int replic__keep(replic *r, uint32_t source, const replic_frame *definition, const replic__patch *p,
                 const void *fields, size_t len, int *kept) {
  sqlite3_stmt *stmt;
  int64_t id;
  *kept = 0;
  int rc = definition ? replic__kept_definition(r, source, definition, &id) : SQLITE_NOMEM;
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

int replic__keep_as(replic *r, uint32_t source, const remote_table *t, const replic__patch *p,
                    const void *fields, size_t len, const char *why, int *kept) {
  replic__writer w = {0};
  replic__put_definition(&w, 0, t);
  replic_frame *definition = replic__finish(&w);
  int rc = replic__keep(r, source, definition, p, fields, len, kept);
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

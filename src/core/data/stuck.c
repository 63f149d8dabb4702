/* stuck.c - rows that the log has, and that this schema cannot store: an index on an expression
 * that raises for their values, a generated column that raises, or is NOT NULL, or has another type
 * in a STRICT table, a key that is no rowid.
 *
 *   a table is the fold of its log; where SQLite refuses the fold of a key there is no row
 *
 * What is refused follows from the fold and the schema alone, so two peers that have both in common
 * have the same rows, in whatever order the patches came. Such a key is noted in _replic_stuck,
 * with what SQLite said. Its patches are in the log like any other's, so they count as applied, are
 * acknowledged, handed on and pruned. It is tried again
 *
 *   1. with each patch of that key (merge.c)
 *   2. when the table's DDL, or SQLite's version, is another than it was when all of its rows were
 *      tried last (_replic_settled): at the end of a migration or of DDL, and at open. Then also
 *      rows that are there are looked at: a generated column that is added may raise for them.
 *
 * (Rejected: to leave the row as it was when it could be stored last. Then tables would tell the
 * order in which patches came; a newcomer would have no such row; and a row that is deleted in the
 * same patch, or a later one, would stay for ever.) */
#include <string.h>

#include "data/data.h"
#include "state.h"

/* ---- in memory ---- */

static void forget_shown(replic *r) {
  for (size_t i = 0; i < r->n_stuck_shown; i++) {
    sqlite3_free((char *)r->stuck_shown[i].table);
    sqlite3_free((char *)r->stuck_shown[i].key);
    sqlite3_free((char *)r->stuck_shown[i].why);
  }
  r->n_stuck_shown = 0;
}

void replic__stuck_close(replic *r) {
  forget_shown(r);
}

int64_t replic_stuck_rows(const replic *r) {
  return r->n_stuck;
}

size_t replic_stuck_count(const replic *r) {
  return r->n_stuck_shown;
}

const replic_stuck *replic_stuck_at(const replic *r, size_t index) {
  return index < r->n_stuck_shown ? &r->stuck_shown[index] : NULL;
}

int replic__stuck_mark(replic *r) {
  int rc = REPLIC_OK;
  for (size_t i = 0; rc == REPLIC_OK && i < replic_table_count(r); i++) {
    replic__table *t = r->schema->tables[i];
    int64_t any = 1;
    char *sql = sqlite3_mprintf(
        "SELECT EXISTS (SELECT 1 FROM main._replic_stuck WHERE tableName = %Q)", t->name);
    rc = sql ? replic__int(r, sql, &any) : SQLITE_NOMEM;
    sqlite3_free(sql);
    t->has_stuck = rc != REPLIC_OK || any;
    t->may_lack_rows = t->has_stuck || t->n_required > 0;
    t->is_ddl_compared = 0;
  }
  return rc;
}

static int show(replic *r) {
  sqlite3_stmt *stmt = NULL;
  forget_shown(r);
  int rc = replic__prepare(r, "SELECT tableName, key, why, code FROM main._replic_stuck LIMIT ?1",
                           &stmt);
  if (rc == REPLIC_OK) sqlite3_bind_int(stmt, 1, REPLIC_STUCK_SHOWN);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    replic_stuck *one = &r->stuck_shown[r->n_stuck_shown++];
    *one = (replic_stuck){sqlite3_mprintf("%s", sqlite3_column_text(stmt, 0)),
                          sqlite3_mprintf("%s", sqlite3_column_text(stmt, 1)),
                          sqlite3_mprintf("%s", sqlite3_column_text(stmt, 2)),
                          sqlite3_column_int(stmt, 3)};
    rc = one->table && one->key && one->why ? REPLIC_OK : SQLITE_NOMEM;
  }
  sqlite3_finalize(stmt);
  if (rc == SQLITE_NOMEM) forget_shown(r);
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

void replic__stuck_note(replic *r, int recount) {
  int rc = REPLIC_OK;
  if (recount) rc = replic__int(r, "SELECT count(*) FROM main._replic_stuck", &r->n_stuck);
  if (rc == REPLIC_OK) rc = replic__stuck_mark(r);
  if (rc == REPLIC_OK) rc = show(r);
  r->stuck_changed = rc != REPLIC_OK; /* once more after the next commit */
  r->stuck_recount = rc != REPLIC_OK && recount;
}

/* ---- one key ---- */

/* What decides which rows the table can store; ?1 is its name. */
#define DDL                                                                                        \
  "(SELECT sqlite_version() || char(10) || group_concat(sql, char(10)) FROM (SELECT sql FROM "     \
  "main.sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('table', 'index') AND sql "  \
  "IS NOT NULL ORDER BY name))"

static int run(replic *r, replic__table *t, int which, const replic_value *key, int code,
               const char *why) {
  sqlite3_stmt *stmt;
  int rc = replic__sql_get(r, t, which, &stmt);
  for (int i = 0; rc == REPLIC_OK && i < t->n_keys; i++)
    rc = replic__fail_db(r, replic__bind(stmt, i + 1, &key[i]));
  if (rc == REPLIC_OK && why) sqlite3_bind_int(stmt, t->n_keys + 1, code);
  if (rc == REPLIC_OK && why)
    rc = replic__fail_db(r, sqlite3_bind_text(stmt, t->n_keys + 2, why, -1, SQLITE_STATIC));
  return rc == REPLIC_OK ? replic__step(r, stmt) : rc;
}

/* Another program may have changed the table's DDL meanwhile, and may change it back: then what is
 * noted does not say under which one the row was tried. */
static int forget_settled(replic *r, replic__table *t) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(
      r, "DELETE FROM main._replic_settled WHERE tableName = ?1 AND ddl IS NOT " DDL, &stmt);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 1, t->name, -1, SQLITE_STATIC);
  if (rc == REPLIC_OK) rc = replic__step(r, stmt);
  sqlite3_finalize(stmt);
  t->is_ddl_compared = rc == REPLIC_OK;
  return rc;
}

int replic__stuck_add(replic *r, replic__table *t, const replic_value *key, int code,
                      const char *why) {
  int rc = run(r, t, STUCK_ADD, key, code, why);
  if (rc != REPLIC_OK) return rc;
  int is_new = sqlite3_changes64(r->db) > 0;
  if (!t->is_ddl_compared) rc = forget_settled(r, t);
  if (rc != REPLIC_OK) return rc;
  r->n_stuck += is_new;
  r->stuck_changed = 1;
  if (!t->has_stuck)
    rc = replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = code},
                       "a row of %s cannot be stored here, and is pending (status().stuck): %s",
                       t->name, why);
  t->has_stuck = t->may_lack_rows = 1;
  return is_new || rc != REPLIC_OK ? rc : run(r, t, STUCK_AGAIN, key, code, why);
}

int replic__stuck_remove(replic *r, replic__table *t, const replic_value *key) {
  int rc = run(r, t, STUCK_REMOVE, key, 0, NULL);
  int64_t removed = rc == REPLIC_OK ? sqlite3_changes64(r->db) : 0;
  r->n_stuck -= removed;
  r->stuck_changed |= removed > 0;
  return rc;
}

/* ---- after a change of the schema ---- */

/* Writes anew, from the log, the row of each key that `sql` yields. */
static int merge_keys(replic *r, replic__table *t, char *sql) {
  sqlite3_stmt *stmt = NULL;
  int rc = sql ? replic__prepare(r, sql, &stmt) : SQLITE_NOMEM;
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    for (int i = 0; i < t->n_keys; i++) replic__column(stmt, i, &t->values[i]);
    replic__patch key = {.table = t, .values = t->values};
    rc = replic__merge_again(r, &key);
  }
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

int replic__merge_missing(replic *r, replic__table *t) {
  sqlite3_str *sql = sqlite3_str_new(NULL);
  sqlite3_str_appendall(sql, "SELECT DISTINCT ");
  for (int i = 0; i < t->n_keys; i++)
    sqlite3_str_appendf(sql, "%s\"%w\"", i ? ", " : "", t->fields[i].name);
  sqlite3_str_appendf(sql,
                      " FROM main.\"%w\" p WHERE NOT EXISTS (SELECT 1 FROM main.\"%w\" t WHERE ",
                      t->patches, t->name);
  for (int i = 0; i < t->n_keys; i++)
    sqlite3_str_appendf(sql, "%st.\"%w\" = p.\"%w\"", i ? " AND " : "", t->fields[i].name,
                        t->fields[i].name);
  sqlite3_str_appendall(sql, ")");
  char *text = sqlite3_str_finish(sql);
  int rc = merge_keys(r, t, text);
  sqlite3_free(text);
  return rc;
}

/* Columns that are computed when they are read, as `count(a), count(b)`; NULL, REPLIC_OK: none. */
static int computed_columns(replic *r, const replic__table *t, char **out) {
  sqlite3_stmt *stmt = NULL;
  *out = NULL;
  int rc = replic__prepare(r,
                           "SELECT group_concat(printf('count(\"%w\")', name), ', ') FROM "
                           "pragma_table_xinfo(?1, 'main') WHERE hidden = 2",
                           &stmt);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 1, t->name, -1, SQLITE_STATIC);
  if (rc == REPLIC_OK) rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
    *out = sqlite3_mprintf("%s", sqlite3_column_text(stmt, 0));
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

static void append_keys(sqlite3_str *sql, const replic__table *t, const char *format,
                        const char *between) {
  for (int i = 0; i < t->n_keys; i++) {
    if (i) sqlite3_str_appendall(sql, between);
    sqlite3_str_appendf(sql, format, t->fields[i].name);
  }
}

/* Ends `text`. */
static int prepare_built(replic *r, sqlite3_str *text, sqlite3_stmt **stmt) {
  char *sql = sqlite3_str_finish(text);
  int rc = sql ? replic__prepare(r, sql, stmt) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

/* The row of the key that t->values hold: a code that lies in data where it cannot be computed. */
static int compute_row(replic *r, const replic__table *t, sqlite3_stmt *computed) {
  int rc = REPLIC_OK;
  for (int i = 0; rc == REPLIC_OK && i < t->n_keys; i++)
    rc = replic__fail_db(r, replic__bind(computed, i + 1, &t->values[i]));
  return rc == REPLIC_OK ? replic__step(r, computed) : rc;
}

/* What the log says may be no less than what is there: of a row that has its DEFAULTs, say. */
static int look_at_row(replic *r, replic__table *t, sqlite3_stmt *computed) {
  replic__patch key = {.table = t, .values = t->values};
  int rc = compute_row(r, t, computed);
  if (!replic__lies_in_data(rc)) return rc;
  rc = replic__merge_again(r, &key);
  if (rc == REPLIC_OK) rc = compute_row(r, t, computed);
  return replic__lies_in_data(rc) ? replic__set_aside(r, t, t->values, rc) : rc;
}

static int look_at_each(replic *r, replic__table *t, const char *columns) {
  sqlite3_stmt *keys = NULL, *computed = NULL;
  sqlite3_str *one = sqlite3_str_new(NULL), *all = sqlite3_str_new(NULL);
  sqlite3_str_appendf(one, "SELECT %s FROM main.\"%w\" WHERE ", columns, t->name);
  append_keys(one, t, "\"%w\" = ?", " AND ");
  sqlite3_str_appendall(all, "SELECT ");
  append_keys(all, t, "\"%w\"", ", ");
  sqlite3_str_appendf(all, " FROM main.\"%w\"", t->name);
  int rc = prepare_built(r, one, &computed), prepared = prepare_built(r, all, &keys);
  if (rc == REPLIC_OK) rc = prepared;
  while (rc == REPLIC_OK && (rc = sqlite3_step(keys)) == SQLITE_ROW) {
    for (int i = 0; i < t->n_keys; i++) replic__column(keys, i, &t->values[i]);
    rc = look_at_row(r, t, computed);
  }
  if (rc != SQLITE_DONE) rc = replic__fail_db(r, rc);
  sqlite3_finalize(keys);
  sqlite3_finalize(computed);
  return rc == SQLITE_DONE ? REPLIC_OK : rc;
}

/* SQLite adds a generated column without computing it for the rows that are there: those for which
 * it raises are none that the log could make now. */
static int look_at_rows(replic *r, replic__table *t) {
  char *columns;
  int64_t any;
  int rc = computed_columns(r, t, &columns);
  if (rc != REPLIC_OK || !columns) return rc;
  char *sql = sqlite3_mprintf("SELECT %s FROM main.\"%w\"", columns, t->name);
  rc = sql ? replic__int(r, sql, &any) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (replic__lies_in_data(rc)) rc = look_at_each(r, t, columns);
  sqlite3_free(columns);
  return rc;
}

static int settle_table(replic *r, replic__table *t) {
  char *sql = sqlite3_mprintf("DELETE FROM main._replic_stuck WHERE tableName = %Q", t->name);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (rc == REPLIC_OK) rc = look_at_rows(r, t);
  return rc == REPLIC_OK ? replic__merge_missing(r, t) : rc;
}

/* Rows of a table without any of this, and of which none is stuck, can all be stored. */
#define GUARDED                                                                                    \
  "(EXISTS (SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE hidden IN (2, 3)) OR EXISTS "       \
  "(SELECT 1 FROM pragma_index_list(?1, 'main') l WHERE l.partial OR EXISTS (SELECT 1 FROM "       \
  "pragma_index_xinfo(l.name, 'main') WHERE cid = -2)))"

static int note_settled(replic *r, const replic__table *t) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(
      r, "INSERT OR REPLACE INTO main._replic_settled(tableName, ddl) VALUES(?1, " DDL ")", &stmt);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 1, t->name, -1, SQLITE_STATIC);
  rc = rc == REPLIC_OK ? replic__step(r, stmt) : rc;
  sqlite3_finalize(stmt);
  return rc;
}

/* *stmt is prepared at the first table. */
static int look_at_table(replic *r, replic__table *t, sqlite3_stmt **stmt) {
  static const char SQL[] =
      "SELECT (SELECT ddl FROM main._replic_settled WHERE tableName = ?1) IS " DDL ", " GUARDED;
  int rc = replic__prepare(r, SQL, stmt), settled = 0, guarded = 0;
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_text(*stmt, 1, t->name, -1, SQLITE_STATIC);
  if (sqlite3_step(*stmt) == SQLITE_ROW) {
    settled = sqlite3_column_int(*stmt, 0);
    guarded = sqlite3_column_int(*stmt, 1);
  }
  rc = replic__fail_db(r, sqlite3_reset(*stmt));
  if (rc != REPLIC_OK || settled) return rc;
  if (guarded || t->has_stuck) rc = settle_table(r, t);
  return rc == REPLIC_OK ? note_settled(r, t) : rc;
}

static const char FORGET_GONE[] =
    "DELETE FROM main._replic_stuck WHERE NOT EXISTS (SELECT 1 FROM pragma_table_list t WHERE "
    "t.schema = 'main' AND t.name = tableName || '_patches' COLLATE NOCASE);"
    "DELETE FROM main._replic_settled WHERE NOT EXISTS (SELECT 1 FROM pragma_table_list t WHERE "
    "t.schema = 'main' AND t.name = tableName || '_patches' COLLATE NOCASE)";

int replic__stuck_settle(replic *r) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__exec(r, FORGET_GONE);
  if (rc == REPLIC_OK) rc = replic__stuck_mark(r);
  if (rc == REPLIC_OK) rc = replic__merge_mode(r, 1);
  for (size_t i = 0; rc == REPLIC_OK && i < replic_table_count(r); i++)
    rc = look_at_table(r, r->schema->tables[i], &stmt);
  sqlite3_finalize(stmt);
  r->stuck_changed = r->stuck_recount = 1;
  int mode = replic__merge_mode(r, 0);
  return rc == REPLIC_OK ? mode : rc;
}

/* sql.c - the statements of one table: their text, and prepared once per table and set of columns.
 *
 * Parameter i + 1 is always field i, so that one loop binds any of them; the clock follows the
 * fields. */
#include <string.h>

#include "state.h"
#include "tables/tables.h"

/* ---- text ---- */

enum { NAME, PARAMETER, EQUALS, EXCLUDED };

/* Fields [from, to) that `take` permits (NULL: all), comma-separated, or with AND. Parameter i + 1
 * is field i. */
static void append(sqlite3_str *sql, const replic__table *t, int from, int to,
                   const unsigned char *take, int form, const char *separator) {
  int n = 0;
  for (int i = from; i < to; i++) {
    if (take && i >= t->n_keys && !take[i]) continue;
    const char *name = t->fields[i].name;
    if (n++) sqlite3_str_appendall(sql, separator);
    if (form == PARAMETER) sqlite3_str_appendf(sql, "?%d", i + 1);
    if (form == NAME) sqlite3_str_appendf(sql, "\"%w\"", name);
    if (form == EQUALS) sqlite3_str_appendf(sql, "\"%w\" = ?%d", name, i + 1);
    if (form == EXCLUDED) sqlite3_str_appendf(sql, "\"%w\" = excluded.\"%w\"", name, name);
  }
}

static void append_log_insert(sqlite3_str *sql, const replic__table *t) {
  int n = t->n_fields;
  sqlite3_str_appendf(sql, "INSERT OR ABORT INTO main.\"%w\"(", t->patches);
  append(sql, t, 0, n, NULL, NAME, ", ");
  sqlite3_str_appendf(sql, ", _patchedAt, _peerId, _sequenceId%s) VALUES(",
                      t->has_nulls ? ", _nulls" : "");
  append(sql, t, 0, n, NULL, PARAMETER, ", ");
  sqlite3_str_appendf(sql, ", ?%d, ?%d, ?%d", n + 1, n + 2, n + 3);
  if (t->has_nulls) sqlite3_str_appendf(sql, ", ?%d", n + 4);
  sqlite3_str_appendall(sql, ") ON CONFLICT(_peerId, _sequenceId) DO NOTHING");
}

/* SELECT of all fields in order, then _nulls, then the clock's three parts. */
static void append_log_select(sqlite3_str *sql, const replic__table *t, int which) {
  int n = t->n_fields;
  sqlite3_str_appendall(sql, "SELECT ");
  append(sql, t, 0, n, NULL, NAME, ", ");
  sqlite3_str_appendf(sql, ", %s, _patchedAt, _peerId, _sequenceId FROM main.\"%w\" WHERE ",
                      t->has_nulls ? "_nulls" : "NULL", t->patches);
  if (which == LOG_READ) {
    sqlite3_str_appendall(
        sql, "_peerId = ?1 AND _sequenceId > ?2 AND _sequenceId <= ?3 ORDER BY _sequenceId");
    return;
  }
  append(sql, t, 0, t->n_keys, NULL, EQUALS, " AND ");
  if (which == LOG_NEWER)
    sqlite3_str_appendf(sql, " AND (_patchedAt, _peerId, _sequenceId) > (?%d, ?%d, ?%d)", n + 1,
                        n + 2, n + 3);
  if (which == LOG_OLDER)
    sqlite3_str_appendf(sql, " AND (_patchedAt, _peerId, _sequenceId) < (?%d, ?%d, ?%d)", n + 1,
                        n + 2, n + 3);
  if (which != LOG_NEWER)
    sqlite3_str_appendall(sql, " ORDER BY _patchedAt DESC, _peerId DESC, _sequenceId DESC");
}

/* The key as the log's columns hold it, so that one row has one name: `as_id` tells apart what
 * SQLite does; else it is JSON, to be read, where
 * what JSON has not is a string. */
static void append_stuck_key(sqlite3_str *sql, const replic__table *t, int as_id) {
  sqlite3_str_appendall(sql, as_id ? "" : "json_object(");
  for (int i = 0; i < t->n_keys; i++) {
    const char *name = t->fields[i].name;
    if (as_id)
      sqlite3_str_appendf(sql,
                          "%stypeof(\"%w\") || quote(iif(typeof(\"%w\") = 'text', CAST(\"%w\" "
                          "AS BLOB), \"%w\"))",
                          i ? " || ' ' || " : "", name, name, name, name);
    else
      sqlite3_str_appendf(sql,
                          "%s%Q, CASE typeof(\"%w\") WHEN 'blob' THEN quote(\"%w\") WHEN 'integer' "
                          "THEN iif(abs(\"%w\" / 2) < 4503599627370496, \"%w\", '' || \"%w\") ELSE "
                          "\"%w\" END",
                          i ? ", " : "", name, name, name, name, name, name, name);
  }
  sqlite3_str_appendall(sql, as_id ? "" : ")");
}

static void append_key_in_log(sqlite3_str *sql, const replic__table *t) {
  sqlite3_str_appendf(sql, " FROM main.\"%w\" WHERE ", t->patches);
  append(sql, t, 0, t->n_keys, NULL, EQUALS, " AND ");
  sqlite3_str_appendall(sql, " LIMIT 1");
}

static void append_stuck(sqlite3_str *sql, const replic__table *t, int which) {
  int n = t->n_keys;
  if (which == STUCK_ADD) {
    sqlite3_str_appendf(sql,
                        "INSERT OR IGNORE INTO main._replic_stuck(tableName, id, key, code, why) "
                        "SELECT %Q, ",
                        t->name);
    append_stuck_key(sql, t, 1);
    sqlite3_str_appendall(sql, ", ");
    append_stuck_key(sql, t, 0);
    sqlite3_str_appendf(sql, ", ?%d, ?%d", n + 1, n + 2);
    append_key_in_log(sql, t);
    return;
  }
  if (which == STUCK_AGAIN)
    sqlite3_str_appendf(sql, "UPDATE main._replic_stuck SET code = ?%d, why = ?%d", n + 1, n + 2);
  else
    sqlite3_str_appendall(sql, "DELETE FROM main._replic_stuck");
  sqlite3_str_appendf(sql, " WHERE tableName = %Q AND id = (SELECT ", t->name);
  append_stuck_key(sql, t, 1);
  append_key_in_log(sql, t);
  sqlite3_str_appendall(sql, ")");
}

char *replic__sql_text(const replic__table *t, int which) {
  sqlite3_str *sql = sqlite3_str_new(NULL);
  if (which == LOG_INSERT) {
    append_log_insert(sql, t);
  } else if (which == STUCK_ADD || which == STUCK_AGAIN || which == STUCK_REMOVE) {
    append_stuck(sql, t, which);
  } else if (which == LOG_CLOCK || which == LOG_BELOW || which == LOG_ABOVE) {
    sqlite3_str_appendf(
        sql, "SELECT _patchedAt FROM main.\"%w\" WHERE _peerId = ?1 AND _sequenceId %s ?2",
        t->patches,
        which == LOG_BELOW   ? "<="
        : which == LOG_ABOVE ? ">="
                             : "=");
    if (which != LOG_CLOCK)
      sqlite3_str_appendf(sql, " ORDER BY _sequenceId %s LIMIT 1",
                          which == LOG_BELOW ? "DESC" : "ASC");
  } else if (which == LOG_DELETE) {
    sqlite3_str_appendf(sql, "DELETE FROM main.\"%w\" WHERE _peerId = ?1 AND _sequenceId = ?2",
                        t->patches);
  } else if (which == ROW_EXISTS || which == ROW_DELETE) {
    sqlite3_str_appendf(sql, "%s FROM main.\"%w\" WHERE ",
                        which == ROW_EXISTS ? "SELECT 1" : "DELETE", t->name);
    append(sql, t, 0, t->n_keys, NULL, EQUALS, " AND ");
  } else if (which == DEFAULTS) {
    for (int i = 0; i < t->n_fields; i++) {
      const char *expression = t->fields[i].default_sql;
      sqlite3_str_appendf(sql, "%s(%s)", i ? ", " : "SELECT ", expression ? expression : "NULL");
    }
  } else {
    append_log_select(sql, t, which);
  }
  return sqlite3_str_finish(sql);
}

/* Columns whose DEFAULT is no constant, and that the patches do not set: each peer would compute
 * its own. */
static void append_unset(sqlite3_str *sql, const replic__table *t, const unsigned char *take,
                         int names) {
  for (int i = t->n_keys; i < t->n_fields; i++)
    if (!take[i] && t->fields[i].default_sql && names)
      sqlite3_str_appendf(sql, ", \"%w\"", t->fields[i].name);
    else if (!take[i] && t->fields[i].default_sql)
      sqlite3_str_appendall(sql, ", NULL");
}

/* OR ABORT overrides conflict clauses of the user's DDL, which could roll back or skip. */
char *replic__sql_row_text(const replic__table *t, const unsigned char *take, int update) {
  sqlite3_str *sql = sqlite3_str_new(NULL);
  int n = t->n_fields, n_keys = t->n_keys,
      sets = memchr(take + n_keys, 1, (size_t)(n - n_keys)) != NULL;
  if (update) {
    sqlite3_str_appendf(sql, "UPDATE OR ABORT main.\"%w\" SET ", t->name);
    append(sql, t, n_keys, n, take, EQUALS, ", ");
    sqlite3_str_appendall(sql, " WHERE ");
    append(sql, t, 0, n_keys, NULL, EQUALS, " AND ");
    return sqlite3_str_finish(sql);
  }
  sqlite3_str_appendf(sql, "INSERT OR ABORT INTO main.\"%w\"(", t->name);
  append(sql, t, 0, n, take, NAME, ", ");
  append_unset(sql, t, take, 1);
  sqlite3_str_appendall(sql, ") VALUES(");
  append(sql, t, 0, n, take, PARAMETER, ", ");
  append_unset(sql, t, take, 0);
  sqlite3_str_appendall(sql, ") ON CONFLICT(");
  append(sql, t, 0, n_keys, NULL, NAME, ", ");
  sqlite3_str_appendall(sql, sets ? ") DO UPDATE SET " : ") DO NOTHING");
  append(sql, t, n_keys, n, take, EXCLUDED, ", ");
  return sqlite3_str_finish(sql);
}

/* ---- prepared ---- */

static void free_row_sql(replic__row_sql *row) {
  sqlite3_free(row->take);
  sqlite3_finalize(row->upsert);
  sqlite3_finalize(row->update);
}

void replic__sql_free(replic__table *t) {
  for (int i = 0; i < N_TABLE_SQL; i++) sqlite3_finalize(t->sql[i]);
  for (int i = 0; i < t->n_rows; i++) free_row_sql(&t->rows[i]);
}

static int prepare_owned(replic *r, char *sql, sqlite3_stmt **slot) {
  int rc = sql ? replic__prepare(r, sql, slot) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

int replic__sql_get(replic *r, replic__table *t, int which, sqlite3_stmt **out) {
  int rc = t->sql[which] ? REPLIC_OK : prepare_owned(r, replic__sql_text(t, which), &t->sql[which]);
  *out = t->sql[which];
  return rc;
}

/* One pair of statements per set of columns, most recently used first; the last one makes room. */
int replic__sql_row(replic *r, replic__table *t, const unsigned char *take, int update,
                    sqlite3_stmt **out) {
  size_t n = (size_t)t->n_fields;
  int i = 0;
  while (i < t->n_rows && memcmp(t->rows[i].take, take, n) != 0) i++;
  if (i == t->n_rows) {
    replic__row_sql fresh = {.take = sqlite3_malloc64(n)};
    if (!fresh.take) return SQLITE_NOMEM;
    memcpy(fresh.take, take, n);
    if (t->n_rows == REPLIC__ROW_SQL_MAX)
      free_row_sql(&t->rows[--i]);
    else
      t->n_rows++;
    t->rows[i] = fresh;
  }
  if (i > 0) {
    replic__row_sql found = t->rows[i];
    memmove(&t->rows[1], &t->rows[0], (size_t)i * sizeof found);
    t->rows[0] = found;
  }
  sqlite3_stmt **slot = update ? &t->rows[0].update : &t->rows[0].upsert;
  int rc = *slot ? REPLIC_OK : prepare_owned(r, replic__sql_row_text(t, take, update), slot);
  *out = *slot;
  return rc;
}

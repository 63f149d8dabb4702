/* schema.c - which tables are replicated, the checks of DESIGN §2, and the SQL for each.
 *
 * T is replicated exactly when T_patches exists. Registration reads SQLite's own catalogue
 * (pragma_table_list, pragma_table_xinfo, pragma_index_xinfo), builds a complete new schema aside
 * and hands it over only when every table passed every check; the old one serves until then. */
#include <stdlib.h>
#include <string.h>

#include "core.h"

static const char *const RESERVED[] = {"_patchedAt", "_sequenceId", "_peerId", "_nulls"};

/* ---- small helpers ---- */

static char *copy_text(const char *text) {
  return sqlite3_mprintf("%s", text ? text : "");
}

static const char *text_at(sqlite3_stmt *stmt, int i) {
  const char *text = (const char *)sqlite3_column_text(stmt, i);
  return text ? text : "";
}

/* Steps through `format`, a query with one or two texts to bind. */
static int query(replic *r, sqlite3_stmt **stmt, const char *sql, const char *a, const char *b) {
  *stmt = NULL;
  int rc = replic__prepare(r, sql, stmt);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(*stmt, 1, a, -1, SQLITE_STATIC);
  if (rc == REPLIC_OK && b) rc = sqlite3_bind_text(*stmt, 2, b, -1, SQLITE_STATIC);
  return rc;
}

/* A DEFAULT is constant if it is one literal: then every peer has the same. */
static int is_constant(const char *sql) {
  if (*sql == '\'' || ((*sql == 'x' || *sql == 'X') && sql[1] == '\'')) {
    const char *at = strchr(sql, '\'') + 1;
    while (*at && (at[0] != '\'' || at[1] == '\'')) at += at[0] == '\'' ? 2 : 1;
    return *at == '\'' && at[1] == 0;
  }
  if (strspn(sql, "+-.0123456789abcdefABCDEFxX_ ") == strlen(sql) && strpbrk(sql, "0123456789"))
    return 1;
  return !sqlite3_stricmp(sql, "NULL") || !sqlite3_stricmp(sql, "TRUE") ||
         !sqlite3_stricmp(sql, "FALSE");
}

/* Affinity by SQLite's rules (https://sqlite.org/datatype3.html §3.1): only "no affinity" matters
 * here. */
static int is_untyped(const char *type, int strict) {
  if (!*type || (strict && !sqlite3_stricmp(type, "ANY"))) return 1;
  return sqlite3_strlike("%INT%", type, 0) && sqlite3_strlike("%CHAR%", type, 0) &&
         sqlite3_strlike("%CLOB%", type, 0) && sqlite3_strlike("%TEXT%", type, 0) &&
         !sqlite3_strlike("%BLOB%", type, 0);
}

static void free_row_sql(replic__row_sql *row) {
  sqlite3_free(row->take);
  sqlite3_finalize(row->upsert);
  sqlite3_finalize(row->update);
}

static void free_table(replic__table *t) {
  for (size_t i = 0; i < t->info.n_columns; i++) {
    sqlite3_free((char *)t->columns[i].name);
    sqlite3_free((char *)t->columns[i].type);
  }
  for (int i = 0; i < t->n_fields; i++) {
    sqlite3_free(t->fields[i].name);
    sqlite3_free(t->fields[i].type);
    sqlite3_free(t->fields[i].json_name);
    sqlite3_free(t->fields[i].default_sql);
  }
  for (int i = 0; i < N_TABLE_SQL; i++) sqlite3_finalize(t->sql[i]);
  for (int i = 0; i < t->n_rows; i++) free_row_sql(&t->rows[i]);
  sqlite3_free(t->columns);
  sqlite3_free(t->fields);
  sqlite3_free(t->take);
  sqlite3_free(t->values);
  sqlite3_free(t->name);
  sqlite3_free(t);
}

void replic__schema_free(replic__schema *schema) {
  if (!schema) return;
  for (size_t i = 0; i < schema->n_tables; i++) free_table(schema->tables[i]);
  sqlite3_free(schema->tables);
  sqlite3_free(schema);
}

/* ---- reading one table ---- */

static int read_columns(replic *r, replic__table *t, int strict) {
  static const char SQL[] =
      "SELECT name, type, \"notnull\", dflt_value, pk, hidden, json_quote(name), count(*) OVER () "
      "FROM pragma_table_xinfo(?1, 'main')";
  sqlite3_stmt *stmt;
  int rc = query(r, &stmt, SQL, t->name, NULL);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    size_t n = (size_t)sqlite3_column_int(stmt, 7);
    if (!t->columns) {
      t->columns = sqlite3_malloc64(n * sizeof *t->columns);
      t->fields = sqlite3_malloc64(n * sizeof *t->fields);
    }
    if (!t->columns || !t->fields) {
      rc = SQLITE_NOMEM;
      break;
    }
    const char *default_sql = (const char *)sqlite3_column_text(stmt, 3);
    replic_column *column = &t->columns[t->info.n_columns];
    memset(column, 0, sizeof *column);
    column->name = copy_text(text_at(stmt, 0));
    column->type = copy_text(text_at(stmt, 1));
    column->key = sqlite3_column_int(stmt, 4);
    column->not_null = sqlite3_column_int(stmt, 2);
    column->carried = sqlite3_column_int(stmt, 5) == 0;
    t->info.n_columns++;
    rc = column->name && column->type ? REPLIC_OK : SQLITE_NOMEM;
    if (!column->carried) continue;
    replic__field *field = &t->fields[t->n_fields++];
    memset(field, 0, sizeof *field);
    field->name = copy_text(column->name);
    field->type = copy_text(column->type);
    field->json_name = copy_text(text_at(stmt, 6));
    field->key = column->key;
    field->required = column->not_null && !column->key && !default_sql;
    field->untyped = is_untyped(column->type, strict);
    if (default_sql && !is_constant(default_sql)) field->default_sql = copy_text(default_sql);
    t->n_keys += column->key > 0;
    t->n_required += field->required;
    t->n_dynamic += field->default_sql != NULL;
    if (!field->name || !field->type || !field->json_name) rc = SQLITE_NOMEM;
  }
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

/* Keys first, in the order of the primary key; the others keep their declared order. */
static void order_fields(replic__table *t) {
  for (int i = 1; i < t->n_fields; i++) /* a stable insertion sort: fields are few */
    for (int j = i; j > 0; j--) {
      int a = t->fields[j - 1].key, b = t->fields[j].key;
      if (b == 0 || (a != 0 && a <= b)) break;
      replic__field swap = t->fields[j];
      t->fields[j] = t->fields[j - 1];
      t->fields[j - 1] = swap;
    }
  t->deleted_at = -1;
  for (int i = t->n_keys; i < t->n_fields; i++)
    if (!sqlite3_stricmp(t->fields[i].name, "deletedAt")) t->deleted_at = i;
}

/* ---- checks ---- */

static int check_reserved(replic *r, const replic__table *t) {
  if (!t->n_keys)
    return replic__fail(r, REPLIC_ESCHEMA,
                        "table %s has no PRIMARY KEY: declare one, so that peers mean the same row",
                        t->name);
  for (int i = 0; i < t->n_fields; i++)
    for (size_t k = 0; k < sizeof RESERVED / sizeof *RESERVED; k++)
      if (!sqlite3_stricmp(t->fields[i].name, RESERVED[k]))
        return replic__fail(r, REPLIC_ESCHEMA,
                            "table %s: the name of column %s is reserved for %s_patches", t->name,
                            RESERVED[k], t->name);
  return REPLIC_OK;
}

/* One column of T_patches against T. `*found` counts what T and the reserved names have to match.
 */
static int check_patch_column(replic *r, replic__table *t, sqlite3_stmt *stmt, int *found) {
  const char *name = text_at(stmt, 0), *type = text_at(stmt, 1);
  int not_null = sqlite3_column_int(stmt, 2), hidden = sqlite3_column_int(stmt, 5);
  for (int k = 0; k < 4; k++)
    if (!sqlite3_stricmp(name, RESERVED[k])) {
      t->has_nulls |= k == 3;
      *found += k < 3;
      return REPLIC_OK;
    }
  for (int i = 0; i < t->n_fields; i++) {
    if (sqlite3_stricmp(name, t->fields[i].name) != 0) continue;
    if (sqlite3_stricmp(type, t->fields[i].type) != 0)
      return replic__fail(
          r, REPLIC_ESCHEMA,
          "column %s is \"%s\" in %s and \"%s\" in %s_patches: declare the same type", name,
          t->fields[i].type, t->name, type, t->name);
    if (hidden)
      return replic__fail(r, REPLIC_ESCHEMA,
                          "column %s of %s_patches is generated: declare it as a plain column",
                          name, t->name);
    if (not_null && i >= t->n_keys)
      return replic__fail(r, REPLIC_ESCHEMA,
                          "column %s of %s_patches is NOT NULL, but NULL means there \"not set by "
                          "this patch\": remove NOT NULL",
                          name, t->name);
    ++*found;
    return REPLIC_OK;
  }
  for (size_t i = 0; i < t->info.n_columns; i++)
    if (!t->columns[i].carried && !sqlite3_stricmp(name, t->columns[i].name)) return REPLIC_OK;
  return replic__fail(r, REPLIC_ESCHEMA,
                      "%s_patches has a column %s that %s has not: drop it, or add it to %s",
                      t->name, name, t->name, t->name);
}

static int name_missing(replic *r, const replic__table *t, const char *patches) {
  for (int i = 0; i < t->n_fields + 3; i++) {
    const char *name = i < 3 ? RESERVED[i] : t->fields[i - 3].name,
               *type = i < 3 ? "INTEGER NOT NULL" : t->fields[i - 3].type;
    if (sqlite3_table_column_metadata(r->db, "main", patches, name, NULL, NULL, NULL, NULL, NULL) !=
        SQLITE_OK)
      return replic__fail(r, REPLIC_ESCHEMA,
                          "%s has no column %s: ALTER TABLE \"%w\" ADD COLUMN \"%w\" %s", patches,
                          name, patches, name, type);
  }
  return SQLITE_CORRUPT;
}

static int check_patches(replic *r, replic__table *t, const char *patches) {
  sqlite3_stmt *stmt;
  int found = 0, rc = query(r, &stmt,
                            "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM "
                            "pragma_table_xinfo(?1, 'main')",
                            patches, NULL);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW)
    rc = check_patch_column(r, t, stmt, &found);
  sqlite3_finalize(stmt);
  if (rc != SQLITE_DONE) return replic__fail_db(r, rc);
  return found == t->n_fields + 3 ? REPLIC_OK : name_missing(r, t, patches);
}

/* Keys are equal on all peers exactly when their bytes are: no other collation, in neither table.
 */
static int check_collations(replic *r, const replic__table *t, const char *patches) {
  for (int i = 0; i < 2 * t->n_keys; i++) {
    const char *table = i % 2 ? patches : t->name, *name = t->fields[i / 2].name,
               *collation = "BINARY";
    int rc = sqlite3_table_column_metadata(r->db, "main", table, name, NULL, &collation, NULL, NULL,
                                           NULL);
    if (rc != SQLITE_OK) return replic__fail_db(r, rc);
    if (sqlite3_stricmp(collation, "BINARY") != 0)
      return replic__fail(r, REPLIC_ESCHEMA,
                          "key column %s of %s has the collation %s: keys that are equal could "
                          "differ in bytes between peers. "
                          "Use BINARY for the key",
                          name, table, collation);
  }
  return REPLIC_OK;
}

/* Unique indexes: none on T but the primary key; on T_patches only such that contain (_peerId,
 * _sequenceId). */
static int check_unique(replic *r, const replic__table *t, const char *patches) {
  static const char SQL[] = "SELECT l.name, (SELECT count(*) FROM pragma_index_xinfo(l.name) x "
                            "WHERE x.key AND x.name COLLATE NOCASE IN "
                            "('_peerId', '_sequenceId')) = 2 OR ?2 = 'T' AND l.origin = 'pk', "
                            "(SELECT group_concat(x.coll) FROM pragma_index_xinfo(l.name) x WHERE "
                            "x.key AND x.coll <> 'BINARY' AND l.origin = 'pk') "
                            "FROM pragma_index_list(?1) l WHERE l.\"unique\"";
  for (int i = 0; i < 2; i++) {
    sqlite3_stmt *stmt;
    int rc = query(r, &stmt, SQL, i ? patches : t->name, i ? "P" : "T");
    while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
      rc = REPLIC_OK;
      if (!sqlite3_column_int(stmt, 1))
        rc = replic__fail(r, REPLIC_ESCHEMA,
                          "%s has a UNIQUE constraint or index (%s) beyond %s: peers that write "
                          "independently cannot keep it",
                          i ? patches : t->name, text_at(stmt, 0),
                          i ? "(_peerId, _sequenceId)" : "its primary key");
      else if (*text_at(stmt, 2))
        rc = replic__fail(r, REPLIC_ESCHEMA,
                          "the primary key of %s has the collation %s: use BINARY",
                          i ? patches : t->name, text_at(stmt, 2));
    }
    sqlite3_finalize(stmt);
    if (rc != SQLITE_DONE) return replic__fail_db(r, rc);
  }
  int pk = 0,
      rc = REPLIC_OK; /* an INTEGER PRIMARY KEY is no index, and would allow one patch per row */
  for (int i = 0; rc == REPLIC_OK && i < t->n_keys; i++)
    rc = sqlite3_table_column_metadata(r->db, "main", patches, t->fields[i].name, NULL, NULL, NULL,
                                       pk ? NULL : &pk, NULL);
  int with_sequence = 0;
  if (rc == REPLIC_OK)
    rc = sqlite3_table_column_metadata(r->db, "main", patches, "_sequenceId", NULL, NULL, NULL,
                                       &with_sequence, NULL);
  if (rc != REPLIC_OK) return replic__fail_db(r, rc);
  return pk && !with_sequence ? replic__fail(r, REPLIC_ESCHEMA,
                                             "the primary key of %s allows one patch per row: "
                                             "remove PRIMARY KEY there, or make it "
                                             "(_peerId, _sequenceId)",
                                             patches)
                              : REPLIC_OK;
}

/* ---- indexes ---- */

/* Creates an index on `columns` of T_patches unless one begins with them ("unique": is exactly
 * them). */
static int ensure_index(replic *r, const char *patches, const char *suffix, const char *columns,
                        const char *plain, int unique) {
  static const char SQL[] =
      "SELECT 1 FROM (SELECT l.\"unique\" AS u, (SELECT group_concat(name, char(10)) || char(10) "
      "FROM "
      "(SELECT x.name FROM pragma_index_xinfo(l.name) x WHERE x.coll = 'BINARY' AND (x.key OR NOT "
      "?3) ORDER BY x.seqno)) AS c "
      "FROM pragma_index_list(?1) l WHERE NOT l.partial) "
      "WHERE iif(?3, u AND c = ?2 COLLATE NOCASE, substr(c, 1, length(?2)) = ?2 COLLATE NOCASE)";
  sqlite3_stmt *stmt = NULL;
  int rc = query(r, &stmt, SQL, patches, plain);
  if (rc == REPLIC_OK) rc = sqlite3_bind_int(stmt, 3, unique);
  if (rc == REPLIC_OK) rc = sqlite3_step(stmt);
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  if (rc != SQLITE_DONE) return rc == SQLITE_ROW ? REPLIC_OK : rc;
  char *sql = sqlite3_mprintf("CREATE %s INDEX main.\"_replic_%w_%s\" ON \"%w\"(%s)",
                              unique ? "UNIQUE" : "", patches, suffix, patches, columns);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

static int ensure_indexes(replic *r, const replic__table *t, const char *patches) {
  char *columns = sqlite3_mprintf(""), *plain = sqlite3_mprintf("");
  for (int i = 0; i < t->n_keys; i++) {
    columns = sqlite3_mprintf("%z\"%w\", ", columns, t->fields[i].name);
    plain = sqlite3_mprintf("%z%s\n", plain, t->fields[i].name);
  }
  columns = sqlite3_mprintf("%z_patchedAt, _peerId, _sequenceId", columns);
  plain = sqlite3_mprintf("%z_patchedAt\n_peerId\n_sequenceId\n", plain);
  int rc = columns && plain ? ensure_index(r, patches, "origin", "_peerId, _sequenceId",
                                           "_peerId\n_sequenceId\n", 1)
                            : SQLITE_NOMEM;
  if (rc == REPLIC_OK) rc = ensure_index(r, patches, "key", columns, plain, 0);
  sqlite3_free(columns);
  sqlite3_free(plain);
  return rc;
}

/* ---- triggers ---- */

static int check_triggers(replic *r, replic__table *t) {
  static const char SQL[] = "SELECT name, sql LIKE '%ROLLBACK%' FROM main.sqlite_schema WHERE type "
                            "= 'trigger' AND tbl_name = ?1 COLLATE NOCASE";
  sqlite3_stmt *stmt;
  int rc = query(r, &stmt, SQL, t->name, NULL);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    rc = REPLIC_OK;
    t->has_triggers = 1;
    if (sqlite3_column_int(stmt, 1))
      rc = replic__fail(
          r, REPLIC_ESCHEMA,
          "trigger %s on %s uses ROLLBACK, which would undo other calls too: use RAISE(ABORT)",
          text_at(stmt, 0), t->name);
  }
  sqlite3_finalize(stmt);
  if (rc != SQLITE_DONE) return replic__fail_db(r, rc);
  if (!t->has_triggers) return REPLIC_OK;
  memset(t->take, 1,
         (size_t)t->n_fields); /* preparing an upsert compiles every INSERT and UPDATE trigger */
  r->auth.mode = AUTH_TRIGGERS;
  rc = replic__schema_row_sql(r, t, t->take, 0, &stmt);
  r->auth.mode = AUTH_ENGINE;
  return rc != REPLIC_OK && r->auth.denied ? replic__fail(r, REPLIC_ESCHEMA, "%s", r->auth.what)
                                           : rc;
}

/* ---- SQL ---- */

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
  sqlite3_str_appendf(sql, "INSERT OR ABORT INTO main.\"%w_patches\"(", t->name);
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
  sqlite3_str_appendf(sql, ", %s, _patchedAt, _peerId, _sequenceId FROM main.\"%w_patches\" WHERE ",
                      t->has_nulls ? "_nulls" : "NULL", t->name);
  if (which == LOG_READ) {
    sqlite3_str_appendall(
        sql, "_peerId = ?1 AND _sequenceId > ?2 AND _sequenceId <= ?3 ORDER BY _sequenceId");
    return;
  }
  append(sql, t, 0, t->n_keys, NULL, EQUALS, " AND ");
  if (which == LOG_NEWER)
    sqlite3_str_appendf(sql, " AND (_patchedAt, _peerId, _sequenceId) > (?%d, ?%d, ?%d)", n + 1,
                        n + 2, n + 3);
  else
    sqlite3_str_appendall(sql, " ORDER BY _patchedAt DESC, _peerId DESC, _sequenceId DESC");
}

char *replic__schema_text(const replic__table *t, int which) {
  sqlite3_str *sql = sqlite3_str_new(NULL);
  if (which == LOG_INSERT) {
    append_log_insert(sql, t);
  } else if (which == LOG_CLOCK) {
    sqlite3_str_appendf(
        sql, "SELECT _patchedAt FROM main.\"%w_patches\" WHERE _peerId = ?1 AND _sequenceId = ?2",
        t->name);
  } else if (which == ROW_EXISTS) {
    sqlite3_str_appendf(sql, "SELECT 1 FROM main.\"%w\" WHERE ", t->name);
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

/* OR ABORT overrides conflict clauses of the user's DDL, which could roll back or skip. */
char *replic__schema_row_text(const replic__table *t, const unsigned char *take, int update) {
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
  sqlite3_str_appendall(sql, ") VALUES(");
  append(sql, t, 0, n, take, PARAMETER, ", ");
  sqlite3_str_appendall(sql, ") ON CONFLICT(");
  append(sql, t, 0, n_keys, NULL, NAME, ", ");
  sqlite3_str_appendall(sql, sets ? ") DO UPDATE SET " : ") DO NOTHING");
  append(sql, t, n_keys, n, take, EXCLUDED, ", ");
  return sqlite3_str_finish(sql);
}

static int prepare_owned(replic *r, char *sql, sqlite3_stmt **slot) {
  int rc = sql ? replic__prepare(r, sql, slot) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

int replic__schema_sql(replic *r, replic__table *t, int which, sqlite3_stmt **out) {
  int rc =
      t->sql[which] ? REPLIC_OK : prepare_owned(r, replic__schema_text(t, which), &t->sql[which]);
  *out = t->sql[which];
  return rc;
}

/* One pair of statements per set of columns, most recently used first; the last one makes room. */
int replic__schema_row_sql(replic *r, replic__table *t, const unsigned char *take, int update,
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
  int rc = *slot ? REPLIC_OK : prepare_owned(r, replic__schema_row_text(t, take, update), slot);
  *out = *slot;
  return rc;
}

/* ---- the whole schema ---- */

static int load_table(replic *r, replic__table *t, int strict, int patches_strict) {
  char *patches = sqlite3_mprintf("%s_patches", t->name);
  int rc = patches ? read_columns(r, t, strict) : SQLITE_NOMEM;
  size_t n = (size_t)t->n_fields;
  if (rc == REPLIC_OK) {
    order_fields(t);
    t->take = sqlite3_malloc64(2 * n + 2);
    t->values = sqlite3_malloc64((2 * n + 2) * sizeof *t->values);
    if (!t->take || !t->values) rc = SQLITE_NOMEM;
  }
  if (rc == REPLIC_OK) {
    t->fold_take = t->take + n;
    t->fold = t->values + n;
    memset(t->values, 0, 2 * n * sizeof *t->values);
    rc = check_reserved(r, t);
  }
  if (rc == REPLIC_OK) rc = check_patches(r, t, patches);
  if (rc == REPLIC_OK && strict != patches_strict)
    for (int i = 0; i < t->n_fields; i++)
      if (!sqlite3_stricmp(t->fields[i].type, "ANY"))
        rc = replic__fail(
            r, REPLIC_ESCHEMA,
            "column %s is ANY, which means something else in a table that is not STRICT: declare "
            "%s and %s alike",
            t->fields[i].name, t->name, patches);
  if (rc == REPLIC_OK) rc = check_collations(r, t, patches);
  if (rc == REPLIC_OK) rc = check_unique(r, t, patches);
  if (rc == REPLIC_OK) rc = ensure_indexes(r, t, patches);
  if (rc == REPLIC_OK)
    t->info =
        (replic_table){t->name, t->info.n_columns, t->columns, t->has_nulls, t->deleted_at >= 0};
  sqlite3_free(patches);
  return rc;
}

/* The names first: preparing and creating indexes while reading the catalogue would disturb it. */
static int find_tables(replic *r, replic__schema *schema, int **strict) {
  static const char SQL[] =
      "SELECT t.name, t.strict, p.strict, t.type, coalesce(s.sql LIKE '%CHECK%' OR s.sql LIKE "
      "'%REFERENCES%', 0), "
      "count(*) OVER () FROM pragma_table_list t JOIN pragma_table_list p ON p.name = t.name || "
      "'_patches' COLLATE NOCASE "
      "LEFT JOIN main.sqlite_schema s ON s.name = t.name "
      "WHERE t.schema = 'main' AND p.schema = 'main' AND t.type <> 'shadow' ORDER BY t.name";
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, SQL, &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    size_t n = (size_t)sqlite3_column_int(stmt, 5);
    if (!schema->tables) {
      schema->tables = sqlite3_malloc64(n * sizeof *schema->tables);
      *strict = sqlite3_malloc64(2 * n * sizeof **strict);
    }
    replic__table *t = schema->tables && *strict ? sqlite3_malloc64(sizeof *t) : NULL;
    if (!t) {
      rc = SQLITE_NOMEM;
      break;
    }
    memset(t, 0, sizeof *t);
    (*strict)[2 * schema->n_tables] = sqlite3_column_int(stmt, 1);
    (*strict)[2 * schema->n_tables + 1] = sqlite3_column_int(stmt, 2);
    schema->tables[schema->n_tables++] = t;
    t->name = copy_text(text_at(stmt, 0));
    schema->constrained |= sqlite3_column_int(stmt, 4);
    rc = t->name ? REPLIC_OK : SQLITE_NOMEM;
    if (strcmp(text_at(stmt, 3), "table") != 0)
      rc = replic__fail(r, REPLIC_ESCHEMA,
                        "%s is a %s: only tables can be replicated; rename %s_patches", t->name,
                        text_at(stmt, 3), t->name);
  }
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

int replic__schema_load(replic *r, replic__schema **out) {
  replic__schema *schema = sqlite3_malloc64(sizeof *schema);
  int *strict = NULL;
  *out = NULL;
  if (!schema) return SQLITE_NOMEM;
  memset(schema, 0, sizeof *schema);
  schema->base_id = r->schema ? r->schema->base_id + (uint32_t)r->schema->n_tables : 1;
  int rc = find_tables(r, schema, &strict);
  for (size_t i = 0; rc == REPLIC_OK && i < schema->n_tables; i++)
    rc = load_table(r, schema->tables[i], strict[2 * i], strict[2 * i + 1]);
  r->auth.schema = schema;
  for (size_t i = 0; rc == REPLIC_OK && i < schema->n_tables; i++)
    rc = check_triggers(r, schema->tables[i]);
  r->auth.schema = r->schema;
  sqlite3_free(strict);
  if (rc == REPLIC_OK)
    *out = schema;
  else
    replic__schema_free(schema);
  return rc;
}

replic__table *replic__schema_find(const replic__schema *schema, const char *name) {
  for (size_t i = 0; schema && i < schema->n_tables; i++)
    if (!sqlite3_stricmp(schema->tables[i]->name, name)) return schema->tables[i];
  return NULL;
}

size_t replic_table_count(const replic *r) {
  return r->schema ? r->schema->n_tables : 0;
}

const replic_table *replic_table_at(const replic *r, size_t index) {
  return index < replic_table_count(r) ? &r->schema->tables[index]->info : NULL;
}

int replic_explain(replic *r, const char *table, char **out) {
  *out = NULL;
  replic__table *t = replic__schema_find(r->schema, table);
  if (!t) return replic__fail(r, REPLIC_ETABLE, "there is no replicated table %s", table);
  sqlite3_str *text = sqlite3_str_new(NULL);
  for (int i = 0; i < N_TABLE_SQL + 2; i++) {
    memset(t->take, 1, (size_t)t->n_fields);
    char *sql = i < N_TABLE_SQL ? replic__schema_text(t, i)
                : i == N_TABLE_SQL && t->n_fields == t->n_keys
                    ? NULL
                    : replic__schema_row_text(t, t->take, i == N_TABLE_SQL);
    if (sql) sqlite3_str_appendf(text, "%s;\n", sql);
    sqlite3_free(sql);
  }
  *out = sqlite3_str_finish(text);
  return *out ? REPLIC_OK : SQLITE_NOMEM;
}

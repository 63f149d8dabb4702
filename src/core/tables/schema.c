/* schema.c - which tables are replicated, with which columns and indexes.
 *
 * T is replicated exactly when T_patches exists. Registration reads SQLite's own catalogue
 * (pragma_table_list, pragma_table_xinfo, pragma_index_xinfo), builds a complete new schema aside
 * and hands it over only when every table passed every check; the old one serves until then. */
#include <stdlib.h>
#include <string.h>

#include "state.h"
#include "tables/tables.h"

/* ---- small helpers ---- */

/* A copy, "" for NULL; NULL: out of memory. */
static char *column_text(sqlite3_stmt *stmt, int i) {
  replic_value value;
  replic__column(stmt, i, &value);
  return sqlite3_mprintf("%.*s", (int)value.len, value.len ? value.data : "");
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
  if (*sql == '"' || *sql == '`' || *sql == '[') return 1; /* a name, which stands for its text */
  static const char WORD[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
  return strspn(sql, WORD) == strlen(sql) && sqlite3_strnicmp(sql, "CURRENT_", 8) != 0;
}

/* Affinity by SQLite's rules (https://sqlite.org/datatype3.html §3.1): only "no affinity" matters
 * here. */
static int is_untyped(const char *type, int strict) {
  if (!*type || (strict && !sqlite3_stricmp(type, "ANY"))) return 1;
  return sqlite3_strlike("%INT%", type, 0) && sqlite3_strlike("%CHAR%", type, 0) &&
         sqlite3_strlike("%CLOB%", type, 0) && sqlite3_strlike("%TEXT%", type, 0) &&
         !sqlite3_strlike("%BLOB%", type, 0);
}

/* The empty value of the type's affinity (https://sqlite.org/datatype3.html §3.1). */
static const char *empty_of(const replic__field *f) {
  if (!sqlite3_strlike("%INT%", f->type, 0)) return "0";
  if (!sqlite3_strlike("%CHAR%", f->type, 0) || !sqlite3_strlike("%CLOB%", f->type, 0) ||
      !sqlite3_strlike("%TEXT%", f->type, 0))
    return "''";
  return sqlite3_strlike("%BLOB%", f->type, 0) ? "0" : "x''";
}

/* A value that the column cannot hold counts as its constant DEFAULT; without one as NULL or, where
 * it may not be NULL, as empty. */
static int set_fallback(replic *r, const replic__table *t, replic__field *f, const char *constant) {
  int nullable = !f->not_null && t->has_nulls;
  f->fallback.type = nullable ? REPLIC_NULL : REPLIC_UNSET;
  if (!constant && !f->not_null) return REPLIC_OK;
  /* a name stands for its text */
  char *sql = constant && strchr("\"`[", *constant)
                  ? sqlite3_mprintf("SELECT %.*Q", (int)strlen(constant) - 2, constant + 1)
                  : sqlite3_mprintf("SELECT %s", constant ? constant : empty_of(f));
  sqlite3_stmt *stmt = NULL;
  int rc = sql ? sqlite3_prepare_v3(r->db, sql, -1, 0, &stmt, NULL) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (rc == SQLITE_ERROR) return REPLIC_OK; /* a bare word: none */
  if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    rc = REPLIC_OK;
    replic__column(stmt, 0, &f->fallback);
    if (f->fallback.type == REPLIC_NULL && !nullable) f->fallback.type = REPLIC_UNSET;
    if (f->fallback.type >= REPLIC_TEXT) rc = replic__own(&f->fallback);
  }
  sqlite3_finalize(stmt);
  return replic__fail_db(r, rc);
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
    sqlite3_free(t->fields[i].rules);
    sqlite3_free((void *)t->fields[i].fallback.data);
  }
  replic__sql_free(t);
  sqlite3_free(t->columns);
  sqlite3_free(t->fields);
  sqlite3_free(t->by_name);
  sqlite3_free(t->take);
  sqlite3_free(t->values);
  sqlite3_free(t->name);
  sqlite3_free(t->patches);
  sqlite3_free(t);
}

void replic__foreign_free(replic__schema *schema) {
  for (size_t i = 0; i < schema->n_foreign; i++) sqlite3_free(schema->foreign[i].bytes);
  sqlite3_free(schema->foreign);
  sqlite3_free(schema->foreign_by);
  schema->foreign = NULL;
  schema->foreign_by = NULL;
  schema->n_foreign = schema->cap_foreign = schema->foreign_bytes = 0;
}

void replic__schema_free(replic__schema *schema) {
  if (!schema) return;
  for (size_t i = 0; i < schema->n_tables; i++) free_table(schema->tables[i]);
  replic__foreign_free(schema);
  sqlite3_free(schema->tables);
  sqlite3_free(schema);
}

/* ---- reading one table ---- */

/* A key may never be NULL, whatever is declared. */
static char *rules_of(const replic_column *column, const char *default_sql) {
  const char *not_null = column->not_null && !column->key ? "NOT NULL " : "";
  if (default_sql) return sqlite3_mprintf("%sDEFAULT %s", not_null, default_sql);
  return sqlite3_mprintf("%s", *not_null ? "NOT NULL" : "");
}

/* One row of pragma_table_xinfo. Unless memory is short, all texts of the column and the field are
 * set. */
static int read_column(replic *r, replic__table *t, sqlite3_stmt *stmt) {
  replic_column *column = &t->columns[t->info.n_columns++];
  *column = (replic_column){.name = column_text(stmt, 0),
                            .type = column_text(stmt, 1),
                            .not_null = sqlite3_column_int(stmt, 2),
                            .key = sqlite3_column_int(stmt, 4),
                            .carried = sqlite3_column_int(stmt, 5) == 0};
  if (!column->name || !column->type) return SQLITE_NOMEM;
  if (!column->carried) return REPLIC_OK;
  char *default_sql = column_text(stmt, 3);
  int has_default = sqlite3_column_type(stmt, 3) != SQLITE_NULL;
  int constant = has_default && default_sql && is_constant(default_sql);
  replic__field *field = &t->fields[t->n_fields++];
  *field = (replic__field){.name = column_text(stmt, 0),
                           .type = column_text(stmt, 1),
                           .json_name = column_text(stmt, 6),
                           .key = column->key,
                           .required = column->not_null && !column->key &&
                                       (!constant || !sqlite3_stricmp(default_sql, "NULL")),
                           .untyped = is_untyped(column->type, t->strict),
                           .rules = rules_of(column, has_default ? default_sql : NULL),
                           .not_null = column->not_null};
  int rc = field->type ? set_fallback(r, t, field, constant ? default_sql : NULL) : SQLITE_NOMEM;
  if (has_default && !constant)
    field->default_sql = default_sql;
  else
    sqlite3_free(default_sql);
  t->n_keys += column->key > 0;
  t->n_required += field->required;
  t->n_dynamic += has_default && !constant;
  return field->name && field->json_name && field->rules && default_sql ? rc : SQLITE_NOMEM;
}

static int read_columns(replic *r, replic__table *t) {
  static const char SQL[] =
      "SELECT name, type, \"notnull\", dflt_value, pk, hidden, json_quote(name), count(*) OVER () "
      "FROM pragma_table_xinfo(?1, 'main')";
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, SQL, &stmt);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 1, t->name, -1, SQLITE_STATIC);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    size_t n = (size_t)sqlite3_column_int(stmt, 7);
    if (!t->columns) t->columns = sqlite3_malloc64(n * sizeof *t->columns);
    if (!t->fields) t->fields = sqlite3_malloc64(n * sizeof *t->fields);
    rc = t->columns && t->fields ? read_column(r, t, stmt) : SQLITE_NOMEM;
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

static int sort_names(replic__table *t) {
  t->by_name = sqlite3_malloc64((size_t)(t->n_fields + 1) * sizeof *t->by_name);
  if (!t->by_name) return SQLITE_NOMEM;
  for (int i = 0; i < t->n_fields; i++) {
    int j = i;
    for (; j > 0 && sqlite3_stricmp(t->fields[t->by_name[j - 1]].name, t->fields[i].name) > 0; j--)
      t->by_name[j] = t->by_name[j - 1];
    t->by_name[j] = i;
  }
  return REPLIC_OK;
}

/* ---- indexes ---- */

/* An index keeps its name when its table is renamed: then it is not free for the table that has the
 * old name now, and a number follows it. */
static int index_name(replic *r, const replic__table *t, const char *suffix, char **out) {
  for (int n = 0;; n++) {
    char *name = n ? sqlite3_mprintf("_replic_%s_%s_%d", t->patches, suffix, n)
                   : sqlite3_mprintf("_replic_%s_%s", t->patches, suffix);
    char *find = sqlite3_mprintf(
        "SELECT count(*) FROM main.sqlite_schema WHERE name = %Q COLLATE NOCASE", name);
    int64_t taken = 0;
    int rc = name && find ? replic__int(r, find, &taken) : SQLITE_NOMEM;
    sqlite3_free(find);
    *out = name;
    if (rc != REPLIC_OK || !taken) return rc;
    sqlite3_free(name);
  }
}

/* Creates an index of T_patches on `columns` unless the user's DDL has one: for the unique one
 * exactly these columns, for the other one that begins with them. `names` is what
 * pragma_index_xinfo says of it, a name a line. */
static int ensure_index(replic *r, const replic__table *t, const char *suffix, const char *columns,
                        const char *names, int unique) {
  static const char FIND[] =
      "SELECT 1 FROM (SELECT l.\"unique\" AS u, (SELECT group_concat(n, char(10)) || char(10) FROM "
      "(SELECT iif(coll = 'BINARY', coalesce(name, '?'), '?') AS n FROM pragma_index_xinfo(l.name, "
      "'main') "
      "WHERE key OR NOT ?3 ORDER BY seqno)) AS c FROM pragma_index_list(?1, 'main') l WHERE NOT "
      "l.partial) "
      "WHERE iif(?3, u AND c = ?2 COLLATE NOCASE, substr(c, 1, length(?2)) = ?2 COLLATE NOCASE)";
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, FIND, &stmt);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 1, t->patches, -1, SQLITE_STATIC);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 2, names, -1, SQLITE_STATIC);
  if (rc == REPLIC_OK) rc = sqlite3_bind_int(stmt, 3, unique);
  if (rc == REPLIC_OK) rc = sqlite3_step(stmt);
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  if (rc != SQLITE_DONE) return rc == SQLITE_ROW ? REPLIC_OK : rc;
  char *name, *sql = NULL;
  rc = index_name(r, t, suffix, &name);
  if (rc == REPLIC_OK) {
    sql = sqlite3_mprintf("CREATE %s INDEX main.\"%w\" ON \"%w\"(%s)", unique ? "UNIQUE" : "", name,
                          t->patches, columns);
    rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  }
  sqlite3_free(name);
  sqlite3_free(sql);
  return rc;
}

static int ensure_indexes(replic *r, const replic__table *t) {
  sqlite3_str *columns = sqlite3_str_new(NULL), *names = sqlite3_str_new(NULL);
  for (int i = 0; i < t->n_keys; i++) {
    sqlite3_str_appendf(columns, "\"%w\", ", t->fields[i].name);
    sqlite3_str_appendf(names, "%s\n", t->fields[i].name);
  }
  sqlite3_str_appendall(columns, "_patchedAt, _peerId, _sequenceId");
  sqlite3_str_appendall(names, "_patchedAt\n_peerId\n_sequenceId\n");
  char *key = sqlite3_str_finish(columns), *lines = sqlite3_str_finish(names);
  int rc = key && lines
               ? ensure_index(r, t, "origin", "_peerId, _sequenceId", "_peerId\n_sequenceId\n", 1)
               : SQLITE_NOMEM;
  if (rc == REPLIC_OK) rc = ensure_index(r, t, "key", key, lines, 0);
  sqlite3_free(key);
  sqlite3_free(lines);
  return rc;
}

/* ---- the whole schema ---- */

static int load_table(replic *r, replic__table *t) {
  int rc = read_columns(r, t);
  if (rc != REPLIC_OK) return rc;
  order_fields(t);
  rc = sort_names(t);
  if (rc != REPLIC_OK) return rc;
  size_t n = (size_t)t->n_fields;
  t->take = sqlite3_malloc64(2 * n + 2);
  t->values = sqlite3_malloc64((2 * n + 2) * sizeof *t->values);
  if (!t->take || !t->values) return SQLITE_NOMEM;
  memset(t->values, 0, 2 * n * sizeof *t->values);
  t->fold_take = t->take + n;
  t->fold = t->values + n;
  t->info =
      (replic_table){t->name, t->info.n_columns, t->columns, t->has_nulls, t->deleted_at >= 0};
  return REPLIC_OK;
}

/* All names first: creating indexes while the catalogue is read would disturb it. */
static int find_tables(replic *r, replic__schema *schema) {
  static const char SQL[] =
      "SELECT t.name, p.name, t.strict OR p.strict, t.type, count(*) OVER (), "
      "EXISTS (SELECT 1 FROM pragma_table_xinfo(p.name, 'main') WHERE name = '_nulls' COLLATE "
      "NOCASE), "
      "EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = t.name "
      "COLLATE NOCASE) "
      "FROM pragma_table_list t JOIN pragma_table_list p ON p.name = t.name || '_patches' COLLATE "
      "NOCASE "
      "WHERE t.schema = 'main' AND p.schema = 'main' AND t.type <> 'shadow' ORDER BY t.name "
      "COLLATE NOCASE";
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, SQL, &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    size_t n = (size_t)sqlite3_column_int(stmt, 4);
    if (!schema->tables) schema->tables = sqlite3_malloc64(n * sizeof(replic__table *));
    replic__table *t = schema->tables ? sqlite3_malloc64(sizeof *t) : NULL;
    rc = SQLITE_NOMEM;
    if (!t) break;
    memset(t, 0, sizeof *t);
    t->index = (uint32_t)schema->n_tables;
    schema->tables[schema->n_tables++] = t;
    t->name = column_text(stmt, 0);
    t->patches = column_text(stmt, 1);
    t->strict = sqlite3_column_int(stmt, 2);
    t->has_nulls = sqlite3_column_int(stmt, 5);
    t->has_triggers = sqlite3_column_int(stmt, 6);
    char *type = column_text(stmt, 3);
    if (t->name && t->patches && type) rc = REPLIC_OK;
    if (rc == REPLIC_OK && strcmp(type, "table") != 0)
      rc = replic__fail(r, REPLIC_ESCHEMA, "%s is a %s: only tables can be replicated; rename %s",
                        t->name, type, t->patches);
    sqlite3_free(type);
  }
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

/* Where the ids of tables begin in this opening: at a number drawn for it, so that a late frame of
 * an earlier one names no table. Among two millions, as an id stands in each patch: three bytes. */
static uint32_t first_id(const replic *r) {
  enum { LEAST = 1 << 14, MOST = 1 << 21, ROOM = 1 << 16 };
  if (r->config.first_table_id) return r->config.first_table_id;
  uint32_t mixed = r->config.new_peer_id * 2654435761u; /* near numbers become far ones */
  return LEAST + (uint32_t)(((uint64_t)mixed * (MOST - ROOM - LEAST)) >> 32);
}

int replic__schema_load(replic *r, replic__schema **out) {
  replic__schema *schema = sqlite3_malloc64(sizeof *schema);
  int64_t constrained;
  *out = NULL;
  if (!schema) return SQLITE_NOMEM;
  memset(schema, 0, sizeof *schema);
  schema->generation = r->schema ? r->schema->generation + 1 : 1;
  schema->base_id =
      r->schema ? r->schema->base_id + (uint32_t)(r->schema->n_tables + r->schema->n_foreign)
                : first_id(r);
  int rc = find_tables(r, schema);
  for (size_t i = 0; rc == REPLIC_OK && i < schema->n_tables; i++)
    rc = load_table(r, schema->tables[i]);
  if (rc == REPLIC_OK) rc = replic__check(r, schema);
  for (size_t i = 0; rc == REPLIC_OK && i < schema->n_tables; i++)
    rc = ensure_indexes(r, schema->tables[i]);
  if (rc == REPLIC_OK)
    rc = replic__int(r,
                     "SELECT count(*) FROM main.sqlite_schema WHERE sql LIKE '%CHECK%' OR sql LIKE "
                     "'%REFERENCES%'",
                     &constrained);
  if (rc != REPLIC_OK) {
    replic__schema_free(schema);
    return rc;
  }
  schema->constrained = constrained > 0;
  *out = schema;
  return REPLIC_OK;
}

replic__table *replic__schema_find(const replic__schema *schema, const char *name) {
  size_t low = 0, high = schema ? schema->n_tables : 0;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = sqlite3_stricmp(schema->tables[middle]->name, name);
    if (!order) return schema->tables[middle];
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}

size_t replic_table_count(const replic *r) {
  return r->schema ? r->schema->n_tables : 0;
}

const replic_table *replic_table_at(const replic *r, size_t index) {
  return index < replic_table_count(r) ? &r->schema->tables[index]->info : NULL;
}

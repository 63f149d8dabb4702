/* sim_schemas.c - peers with different versions of one application, which migrate up and down at
 * random moments, each on its own, and write all the time.
 *
 * The seed draws five versions of a schema. From one to the next, columns and tables come and go,
 * columns are renamed, change their type, or must suddenly not be NULL, tables become STRICT or get
 * another key; and each step has a way back. What a peer cannot hold at its version, must not be
 * lost to those that can, nor to itself when it has migrated, whoever dies in between, or comes
 * back from a backup, or goes on in two copies, which migrate apart from each other, until one of
 * them is opened with a new peerId.
 *
 * Some versions have DDL that refuses rows for their values: there a row is missing as long as its
 * newest values are refused, and nothing else is.
 *
 * The model knows nothing of versions but what a column is called: a cell's value is the one with
 * the greatest clock among all that were written at any version and that a column of the last
 * version can hold, as this column stores it. A table with another key is another table.
 *
 * Parts: the versions; their SQL; what is written; migrating; what must hold; lives; the end; one
 * seed. */
#include "sim_schemas.h"

#include <stdio.h>
#include <string.h>

#include "memvfs.h"

enum {
  N_VERSIONS = 5,
  N_TABLES = 4,
  N_COLUMNS = 6, /* besides the key; the first one is deletedAt, which only comes and goes */
  N_ROWS = 5,
  MAX_PATCHES = 4000,
  MAX_PEERS_OF_SEED = 9
};

enum { INTEGER, TEXT, REAL, N_TYPES };
static const char *const TYPES[N_TYPES] = {"INTEGER", "TEXT", "REAL"};

/* What a column does with NULL; DEFAULTED: NOT NULL DEFAULT 'x'; REQUIRED: NOT NULL. */
enum { NULLABLE, DEFAULTED, REQUIRED };

typedef struct column {
  bool there;
  char *name;
  int type, null;
} column;

/* What refuses some rows for a value of one column: indexes on an expression, or that are partial,
 * and generated columns that raise, or that are NOT NULL. */
enum { UNGUARDED, INDEXED, PARTLY_INDEXED, GENERATED, GENERATED_NOT_NULL, N_GUARDS };

typedef struct table {
  bool there, strict, has_compound_key;
  int guard, guarded; /* `guarded`: the column */
  column columns[N_COLUMNS];
} table;

typedef struct version {
  table tables[N_TABLES];
  char *up, *down, *renames; /* of the step that leads here */
} version;

typedef struct patch {
  int table, row;
  bool has_compound_key, is_of_copy;
  uint32_t origin;
  int64_t sequence, patched_at;
  replic_value values[N_COLUMNS]; /* as the writer's columns have stored them */
} patch;

typedef struct schemas {
  sim *s;
  world_report *report;
  version at[N_VERSIONS + 1];            /* 0: an empty file */
  bool has_default[N_TABLES][N_COLUMNS]; /* at all versions */
  bool may_require[N_TABLES][N_COLUMNS]; /* it has no DEFAULT at any */
  patch *patches;
  size_t n_patches;
  bool is_forking, guards;
} schemas;

typedef struct mind {
  int version, highest; /* where it is, and where it has been */
  bool has_backup;
  int highest_of_backup;
  bool has_forked; /* once: the one that keeps its peerId takes the place for known for ever */
  bool may_fork;   /* its -replic may lag, so that a restored backup would not be noticed */
} mind;

static schemas *world_of(const sim_peer *p) {
  return p->sim->mind;
}

static mind *mind_of(const sim_peer *p) {
  return p->mind;
}

/* ---- the versions ---- */

static const char *keys_of(const table *table) {
  return table->has_compound_key ? "k, n" : "id";
}

static char *table_name(int t) {
  return test_format("t%d", t);
}

/* A column that was not there, or that comes back. */
static void draw_column(schemas *w, int t, int c, column *to) {
  rng *g = &w->s->g;
  to->there = true;
  if (!to->name) to->name = c ? test_format("c%d", c) : "deletedAt";
  to->type = c ? (int)rng_below(g, N_TYPES) : INTEGER;
  to->null = w->has_default[t][c] && rng_chance(g, 30) ? DEFAULTED : NULLABLE;
}

static void draw_guard(schemas *w, table *to) {
  rng *g = &w->s->g;
  to->guard = rng_chance(g, 50) ? UNGUARDED : (int)rng_below(g, N_GUARDS);
  to->guarded = 1 + (int)rng_below(g, N_COLUMNS - 1);
}

static void draw_table(schemas *w, int t, table *to) {
  rng *g = &w->s->g;
  if (w->guards) draw_guard(w, to);
  to->there = true;
  to->strict = rng_chance(g, 25);
  to->has_compound_key = rng_chance(g, 90) ? t % 2 == 1 : t % 2 == 0;
  for (int c = 0; c < N_COLUMNS; c++) {
    if (!rng_chance(g, c ? 60 : 85)) continue;
    draw_column(w, t, c, &to->columns[c]);
    if (w->may_require[t][c] && rng_chance(g, 50)) to->columns[c].null = REQUIRED;
  }
}

static int n_tables(const version *v) {
  int n = 0;
  for (int t = 0; t < N_TABLES; t++) n += v->tables[t].there;
  return n;
}

static void change_null(schemas *w, int t, int c, column *to) {
  if (to->null != NULLABLE)
    to->null = NULLABLE;
  else
    to->null = w->may_require[t][c] ? REQUIRED : DEFAULTED;
}

/* One difference to the version before. */
static void change(schemas *w, int v) {
  rng *g = &w->s->g;
  version *to = &w->at[v];
  int t = (int)rng_below(g, N_TABLES), c = (int)rng_below(g, N_COLUMNS);
  table *changed = &to->tables[t];
  column *column = &changed->columns[c];
  if (!changed->there) {
    draw_table(w, t, changed);
  } else if (rng_chance(g, 8)) {
    changed->there = n_tables(to) == 1;
  } else if (w->guards && rng_chance(g, 25)) {
    draw_guard(w, changed);
  } else if (rng_chance(g, 8)) {
    changed->strict = !changed->strict;
  } else if (rng_chance(g, 5)) {
    changed->has_compound_key = !changed->has_compound_key;
  } else if (!column->there) {
    draw_column(w, t, c, column);
  } else if (rng_chance(g, 25)) {
    column->there = false;
  } else if (c > 0 && rng_chance(g, 40)) {
    column->name = rng_chance(g, 20) ? test_format("c%d", c) : test_format("c%d_%d", c, v);
  } else if (c > 0 && rng_chance(g, 50)) {
    column->type = (int)rng_below(g, N_TYPES);
  } else if (c > 0) {
    change_null(w, t, c, column);
  }
}

static bool is_one_table(const table *from, const table *to) {
  return from->there && to->there && from->has_compound_key == to->has_compound_key;
}

/* What no step can do: rename what is not there on both sides of it, or fill a REQUIRED column that
 * was not there. */
static void make_possible(const table *from, table *to) {
  for (int c = 0; c < N_COLUMNS; c++) {
    const column *old = &from->columns[c];
    column *new = &to->columns[c];
    bool both_tables = is_one_table(from, to);
    if (both_tables && old->there && old->null == REQUIRED) new->there = true;
    if (both_tables && !old->there && new->null == REQUIRED) new->null = NULLABLE;
    if (old->name && !(both_tables && old->there && new->there)) new->name = old->name;
  }
}

/* A row that never had a value shows the DEFAULT, wherever it has been: a column that had one while
 * it was NOT NULL, and is not so any more, has one at all versions. */
static void settle_default(schemas *w, int t, int c) {
  const column *last = &w->at[N_VERSIONS].tables[t].columns[c];
  if (last->there && last->null == DEFAULTED) return;
  for (int v = 1; v <= N_VERSIONS; v++)
    if (w->at[v].tables[t].columns[c].null == DEFAULTED) w->has_default[t][c] = true;
}

/* A STRICT column can show no DEFAULT of another type. */
static void settle_strict(const schemas *w, int t, table *to) {
  for (int c = 1; c < N_COLUMNS; c++)
    if (to->columns[c].there && to->columns[c].type != TEXT &&
        (w->has_default[t][c] || to->columns[c].null == DEFAULTED))
      to->strict = false;
}

static void draw_versions(schemas *w) {
  rng *g = &w->s->g;
  bool requires = rng_chance(g, 30);
  w->guards = rng_chance(g, 50);
  for (int t = 0; t < N_TABLES; t++)
    for (int c = 1; c < N_COLUMNS; c++) {
      w->has_default[t][c] = rng_chance(g, 40);
      w->may_require[t][c] = requires && !w->has_default[t][c] && rng_chance(g, 30);
    }
  for (int n = 2 + (int)rng_below(g, 2); n > 0;) {
    int t = (int)rng_below(g, N_TABLES);
    n -= !w->at[1].tables[t].there;
    draw_table(w, t, &w->at[1].tables[t]);
  }
  for (int v = 2; v <= N_VERSIONS; v++) {
    memcpy(w->at[v].tables, w->at[v - 1].tables, sizeof w->at[v].tables);
    for (int n = 1 + (int)rng_below(g, 4); n > 0; n--) change(w, v);
    for (int t = 0; t < N_TABLES; t++) make_possible(&w->at[v - 1].tables[t], &w->at[v].tables[t]);
  }
  for (int t = 0; t < N_TABLES; t++)
    for (int c = 1; c < N_COLUMNS; c++) settle_default(w, t, c);
  for (int v = 1; v <= N_VERSIONS; v++)
    for (int t = 0; t < N_TABLES; t++) settle_strict(w, t, &w->at[v].tables[t]);
  for (int v = 1; v <= N_VERSIONS; v++)
    for (int t = 0; t < N_TABLES; t++) {
      table *guarded = &w->at[v].tables[t];
      if (!guarded->columns[guarded->guarded].there) guarded->guard = UNGUARDED;
    }
}

/* ---- their SQL ---- */

/* Of texts only, as what a number is follows from the column's type. */
static char *refusing(const table *table) {
  const char *name = table->columns[table->guarded].name;
  if (table->guard == GENERATED_NOT_NULL) return test_format("nullif(typeof(%s), 'text')", name);
  return test_format("CASE typeof(%s) WHEN 'text' THEN json(%s) ELSE 1 END", name, name);
}

static char *refused(const table *table) {
  const char *name = table->columns[table->guarded].name;
  return test_format(
      "typeof(%s) = 'text'%s", name,
      table->guard == GENERATED_NOT_NULL ? "" : test_format(" AND NOT json_valid(%s, 2)", name));
}

static char *guard_ddl(const table *table, const char *name) {
  const char *key = table->has_compound_key ? "k" : "id";
  switch (table->guard) {
  case INDEXED:
    return test_format(" CREATE INDEX guard_%s ON %s(%s);", name, name, refusing(table));
  case PARTLY_INDEXED:
    return test_format(" CREATE INDEX guard_%s ON %s(%s) WHERE %s = 1;", name, name, key,
                       refusing(table));
  case GENERATED:
    return test_format(" ALTER TABLE %s ADD COLUMN guard ANY AS (%s);", name, refusing(table));
  case GENERATED_NOT_NULL:
    return test_format(" ALTER TABLE %s ADD COLUMN guard ANY NOT NULL AS (%s);", name,
                       refusing(table));
  default: return "";
  }
}

static char *column_ddl(const schemas *w, int t, int c, const column *column, bool in_patches) {
  static const char *const NULLS[] = {"", " NOT NULL", " NOT NULL"};
  bool has_default = w->has_default[t][c] || column->null == DEFAULTED;
  if (in_patches) return test_format("%s %s", column->name, TYPES[column->type]);
  return test_format("%s %s%s%s", column->name, TYPES[column->type], NULLS[column->null],
                     has_default ? " DEFAULT 'x'" : "");
}

static char *create(const schemas *w, int t, const table *to, bool is_patches, const char *name) {
  char *columns = "";
  for (int c = 0; c < N_COLUMNS; c++)
    if (to->columns[c].there)
      columns = test_format("%s, %s", columns, column_ddl(w, t, c, &to->columns[c], is_patches));
  const char *keys = to->has_compound_key ? "k TEXT NOT NULL, n INTEGER NOT NULL" : "id INTEGER";
  if (is_patches)
    return test_format("CREATE TABLE %s(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, "
                       "_peerId INTEGER NOT NULL, _nulls TEXT, %s%s)%s;",
                       name, keys, columns, to->strict ? " STRICT" : "");
  if (to->has_compound_key)
    return test_format("CREATE TABLE %s(%s%s, PRIMARY KEY(k, n)) WITHOUT ROWID%s;", name, keys,
                       columns, to->strict ? ", STRICT" : "");
  return test_format("CREATE TABLE %s(id INTEGER PRIMARY KEY%s)%s;", name, columns,
                     to->strict ? " STRICT" : "");
}

static bool in_both(const table *from, const table *to, int c) {
  return from->columns[c].there && to->columns[c].there;
}

/* What a new column takes of an old one. What a STRICT one cannot hold, the engine stores anew from
 * the patches: until then anything that is allowed stands there. */
static char *copied(const table *to, const column *old, const column *new, bool is_patches) {
  static const char *const FITTING[N_TYPES] = {"'integer'", "'integer', 'real', 'text'",
                                               "'integer', 'real'"};
  char *value = old->name;
  if (to->strict)
    value =
        test_format("CASE WHEN typeof(%s) IN (%s) THEN %s END", value, FITTING[new->type], value);
  bool fills = !is_patches && new->null != NULLABLE && (to->strict || new->null == DEFAULTED);
  if (!fills) return value;
  const char *filling = new->null == DEFAULTED ? "'x'" : new->type == TEXT ? "''" : "0";
  return test_format("coalesce(%s, %s)", value, filling);
}

/* The rows that the new table cannot have must go first, but where SQLite does not look. */
static char *guard(const schemas *w, int t, const table *to) {
  bool looks = to->guard != GENERATED || to->strict || rng_chance(&w->s->g, 50);
  char *name = table_name(t), *goes = "";
  if (to->guard != UNGUARDED && looks)
    goes = test_format(" DELETE FROM %s WHERE %s;", name, refused(to));
  return test_format("%s%s", goes, guard_ddl(to, name));
}

/* A new table, the rows of the old one, and its name. */
static char *rebuild(const schemas *w, int t, const table *from, const table *to, bool is_patches) {
  char *name = test_format("%s%s", table_name(t), is_patches ? "_patches" : ""),
       *made = test_format("%s_new", name),
       *into = test_format("%s%s", is_patches ? "_patchedAt, _sequenceId, _peerId, _nulls, " : "",
                           keys_of(to)),
       *values = into, *where = "";
  for (int c = 0; c < N_COLUMNS; c++) {
    const column *old = &from->columns[c], *new = &to->columns[c];
    if (!in_both(from, to, c)) continue;
    into = test_format("%s, %s", into, new->name);
    values = test_format("%s, %s", values, copied(to, old, new, is_patches));
    if (!is_patches && new->null == REQUIRED && old->null == NULLABLE)
      where = test_format("%s %s %s IS NOT NULL", where, *where ? "AND" : "WHERE", old->name);
  }
  return test_format("%s INSERT INTO %s(%s) SELECT %s FROM %s%s; DROP TABLE %s; "
                     "ALTER TABLE %s RENAME TO %s;",
                     create(w, t, to, is_patches, made), made, into, values, name, where, name,
                     made, name);
}

static char *alter(const schemas *w, int t, const table *from, const table *to, bool is_patches) {
  char *name = test_format("%s%s", table_name(t), is_patches ? "_patches" : ""), *sql = "";
  for (int c = 0; c < N_COLUMNS; c++) {
    const column *old = &from->columns[c], *new = &to->columns[c];
    if (in_both(from, to, c) && strcmp(old->name, new->name) != 0)
      sql =
          test_format("%s ALTER TABLE %s RENAME COLUMN %s TO %s;", sql, name, old->name, new->name);
    else if (old->there && !new->there)
      sql = test_format("%s ALTER TABLE %s DROP COLUMN %s;", sql, name, old->name);
    else if (new->there && !old->there)
      sql = test_format("%s ALTER TABLE %s ADD COLUMN %s;", sql, name,
                        column_ddl(w, t, c, new, is_patches));
  }
  return sql;
}

static bool needs_rebuild(const table *from, const table *to) {
  if (from->strict != to->strict) return true;
  for (int c = 0; c < N_COLUMNS; c++)
    if (in_both(from, to, c) && (from->columns[c].type != to->columns[c].type ||
                                 from->columns[c].null != to->columns[c].null))
      return true;
  return false;
}

static bool is_same(const table *from, const table *to) {
  for (int c = 0; c < N_COLUMNS; c++) {
    if (from->columns[c].there != to->columns[c].there) return false;
    if (in_both(from, to, c) && strcmp(from->columns[c].name, to->columns[c].name) != 0)
      return false;
  }
  if (from->guard != to->guard || (to->guard && from->guarded != to->guarded)) return false;
  return !needs_rebuild(from, to);
}

static char *script(const schemas *w, const version *from, const version *to) {
  char *sql = "SELECT 1;"; /* there may be no difference */
  for (int t = 0; t < N_TABLES; t++) {
    const table *old = &from->tables[t], *new = &to->tables[t];
    char *name = table_name(t);
    bool rebuilds = needs_rebuild(old, new) || old->guard || new->guard || rng_chance(&w->s->g, 20);
    bool is_another = old->there && new->there && !is_one_table(old, new);
    if (old->there && (is_another || !new->there))
      sql = test_format("%s DROP TABLE %s; DROP TABLE %s_patches;", sql, name, name);
    if (new->there && (is_another || !old->there)) {
      sql = test_format("%s %s %s%s", sql, create(w, t, new, false, name),
                        create(w, t, new, true, test_format("%s_patches", name)),
                        guard_ddl(new, name));
    } else if (old->there && new->there && !is_same(old, new)) {
      for (int is_patches = 0; is_patches < 2; is_patches++)
        sql = test_format("%s %s", sql,
                          rebuilds ? rebuild(w, t, old, new, is_patches)
                                   : alter(w, t, old, new, is_patches));
      sql = test_format("%s%s", sql, guard(w, t, new));
    }
  }
  return sql;
}

static char *renames(const version *from, const version *to) {
  char *list = "";
  for (int t = 0; t < N_TABLES; t++) {
    const table *old = &from->tables[t], *new = &to->tables[t];
    for (int c = 0; c < N_COLUMNS; c++)
      if (old->there && new->there && in_both(old, new, c) &&
          strcmp(old->columns[c].name, new->columns[c].name) != 0)
        list = test_format("%s%s[\"%s\",\"%s\",\"%s\"]", list, *list ? "," : "", table_name(t),
                           old->columns[c].name, new->columns[c].name);
  }
  return *list ? test_format("[%s]", list) : "";
}

static void write_scripts(schemas *w) {
  for (int v = 1; v <= N_VERSIONS; v++) {
    version *to = &w->at[v];
    to->up = script(w, to - 1, to);
    to->down = script(w, to, to - 1);
    to->renames = renames(to - 1, to);
    if (!w->s->trace) continue;
    printf("#   to %d:%s\n#   back from %d:%s\n", v, to->up, v, to->down);
    if (*to->renames) printf("#   renamed: %s\n", to->renames);
  }
}

/* ---- what is written ---- */

static int bind(sqlite3_stmt *stmt, const replic_value *value) {
  int len = (int)value->len;
  switch (value->type) {
  case REPLIC_INT: return sqlite3_bind_int64(stmt, 1, value->i);
  case REPLIC_REAL: return sqlite3_bind_double(stmt, 1, value->d);
  case REPLIC_TEXT: return sqlite3_bind_text(stmt, 1, value->data, len, SQLITE_TRANSIENT);
  case REPLIC_BLOB: return sqlite3_bind_blob(stmt, 1, value->data, len, SQLITE_TRANSIENT);
  default: return sqlite3_bind_null(stmt, 1);
  }
}

static replic_value read(sqlite3_stmt *stmt) {
  static const int KINDS[] = {0, REPLIC_INT, REPLIC_REAL, REPLIC_TEXT, REPLIC_BLOB, REPLIC_NULL};
  replic_value value = {.type = KINDS[sqlite3_column_type(stmt, 0)],
                        .i = sqlite3_column_int64(stmt, 0),
                        .d = sqlite3_column_double(stmt, 0)};
  if (value.type != REPLIC_TEXT && value.type != REPLIC_BLOB) return value;
  const void *bytes = sqlite3_column_blob(stmt, 0);
  value.len = (size_t)sqlite3_column_bytes(stmt, 0);
  void *copy = test_alloc(value.len + 1);
  if (value.len) memcpy(copy, bytes, value.len);
  value.data = copy;
  return value;
}

/* What a column of this type makes of a value: SQLite says it. */
static replic_value as_stored(int type, replic_value value) {
  static sqlite3 *db;
  static sqlite3_stmt *put[N_TYPES], *get[N_TYPES];
  for (int i = 0; !put[N_TYPES - 1] && i < N_TYPES; i++) {
    if (!db) CHECK_INT(sqlite3_open(":memory:", &db), SQLITE_OK);
    sql_exec(db, test_format("CREATE TABLE x%d(v %s); INSERT INTO x%d VALUES(0)", i, TYPES[i], i));
    const char *update = test_format("UPDATE x%d SET v = ?1", i),
               *select = test_format("SELECT v FROM x%d", i);
    CHECK_INT(sqlite3_prepare_v2(db, update, -1, &put[i], NULL), SQLITE_OK);
    CHECK_INT(sqlite3_prepare_v2(db, select, -1, &get[i], NULL), SQLITE_OK);
  }
  CHECK_INT(bind(put[type], &value), SQLITE_OK);
  CHECK_INT(sqlite3_step(put[type]), SQLITE_DONE);
  sqlite3_reset(put[type]);
  CHECK_INT(sqlite3_step(get[type]), SQLITE_ROW);
  value = read(get[type]);
  sqlite3_reset(get[type]);
  return value;
}

/* Many that not every type gives back as they were. */
static replic_value any_value(rng *g) {
  static const char *const TEXTS[] = {
      "007", "1e3", " 12 ", "", "abc", "1.0", "9007199254740993", "\xc3\xa9"};
  static const double REALS[] = {0.1, 1.0 / 3, 1.5, 5.0, 1e300};
  static const int64_t INTEGERS[] = {0, 7, -3, 9007199254740993};
  uint32_t kind = rng_below(g, 100);
  return kind < 45   ? v_text(TEXTS[rng_below(g, COUNT(TEXTS))])
         : kind < 70 ? v_real(REALS[rng_below(g, COUNT(REALS))])
         : kind < 90 ? v_int(INTEGERS[rng_below(g, COUNT(INTEGERS))])
                     : v_blob("7\0", rng_below(g, 3));
}

/* Of a value as its writer's column has stored it. */
static bool can_hold(const table *table, const column *column, const replic_value *value) {
  if (value->type == REPLIC_NULL) return column->null == NULLABLE;
  if (!table->strict) return true;
  if (value->type == REPLIC_INT) return true;
  if (value->type == REPLIC_REAL) return column->type != INTEGER;
  return value->type == REPLIC_TEXT && column->type == TEXT;
}

/* Whether SQLite takes it. */
static bool can_be_written(const table *table, const column *column, const replic_value *value) {
  static const int KINDS[N_TYPES] = {REPLIC_INT, REPLIC_TEXT, REPLIC_REAL};
  if (value->type == REPLIC_NULL || !table->strict) return can_hold(table, column, value);
  return as_stored(column->type, *value).type == KINDS[column->type];
}

/* What stands for NULL where it cannot be held, and there is no DEFAULT. */
static replic_value empty_of(int type) {
  return strcmp(TYPES[type], "TEXT") == 0 ? v_text("") : v_int(0);
}

static size_t put_keys(const patch *to, const char **columns, replic_value *values) {
  static const char *const NAMES[] = {"a", "b"};
  if (!to->has_compound_key) {
    columns[0] = "id";
    values[0] = v_int(to->row);
    return 1;
  }
  columns[0] = "k";
  values[0] = v_text(NAMES[to->row % 2]);
  columns[1] = "n";
  values[1] = v_int(to->row / 2);
  return 2;
}

/* A row in the columns that this peer's version has. `to` gets what the model has to know of it. */
static replic_change any_change(schemas *w, const sim_peer *p, patch *to) {
  rng *g = &w->s->g;
  const version *v = &w->at[mind_of(p)->version];
  const char **columns = test_alloc((N_COLUMNS + 2) * sizeof *columns);
  replic_value *values = test_alloc((N_COLUMNS + 2) * sizeof *values);
  *to = (patch){.table = (int)rng_below(g, N_TABLES), .row = (int)rng_below(g, N_ROWS)};
  while (!v->tables[to->table].there) to->table = (to->table + 1) % N_TABLES;
  const table *table = &v->tables[to->table];
  to->has_compound_key = table->has_compound_key;
  size_t n = put_keys(to, columns, values);
  bool erases = table->columns[0].there && rng_chance(g, 10);
  for (int c = 0; c < N_COLUMNS; c++) {
    const column *column = &table->columns[c];
    if (erases || !column->there || rng_chance(g, c ? 50 : 90)) continue;
    replic_value value = c == 0 || rng_chance(g, 15) ? v_null() : any_value(g);
    if (!can_be_written(table, column, &value)) continue;
    to->values[c] = as_stored(column->type, value);
    columns[n] = column->name;
    values[n++] = value;
  }
  if (erases) to->values[0].type = REPLIC_INT; /* its value is the patch's clock */
  return (replic_change){.kind = erases ? REPLIC_DELETE : REPLIC_UPSERT,
                         .table = table_name(to->table),
                         .n_columns = n,
                         .columns = columns,
                         .n_rows = 1,
                         .values = values};
}

static const replic_position *position_of(const sim_peer *p, uint32_t origin) {
  const replic_position *vector = replic_vector(p->r);
  for (size_t i = 0, n = replic_vector_count(p->r); i < n; i++)
    if (vector[i].origin == origin) return &vector[i];
  return NULL;
}

/* One group of up to three rows. */
static void write(schemas *w, sim_peer *p) {
  replic_change changes[3];
  size_t n = 1 + rng_below(&w->s->g, COUNT(changes));
  int64_t last;
  CHECK(w->n_patches + n <= MAX_PATCHES);
  patch *to = &w->patches[w->n_patches];
  for (size_t i = 0; i < n; i++) changes[i] = any_change(w, p, &to[i]);
  sim_begin(p);
  int rc = replic_write(p->r, changes, n, &last);
  bool refused = rc == SQLITE_CONSTRAINT_NOTNULL || rc == REPLIC_ENOTFOUND;
  for (size_t i = 0; rc == SQLITE_ERROR && i < n; i++)
    refused |= w->at[mind_of(p)->version].tables[to[i].table].guard != UNGUARDED;
  if (!refused) CHECK_OK(p->r, rc);
  CHECK_INT(sim_commit(p), REPLIC_OK);
  if (refused) return;
  for (size_t i = 0; i < n; i++) {
    to[i].origin = p->id;
    to[i].sequence = last - (int64_t)(n - 1 - i);
    to[i].patched_at = position_of(p, p->id)->patched_at;
    if (to[i].values[0].type == REPLIC_INT) to[i].values[0] = v_int(to[i].patched_at);
    sim_trace(w->s, "peer %d, version %d, writes %u.%lld: row %d of t%d", p->index,
              mind_of(p)->version, (unsigned)p->id, (long long)to[i].sequence, to[i].row,
              to[i].table);
    for (int c = 0; c < N_COLUMNS; c++)
      if (to[i].values[c].type != REPLIC_UNSET)
        sim_trace(w->s, "  c%d = %s", c, show_value(&to[i].values[c]));
  }
  w->n_patches += n;
  w->report->groups++;
}

/* ---- migrating ---- */

static void note_version(sim_peer *p) {
  mind *mine = mind_of(p);
  mine->version =
      (int)sql_int(sim_sql(p), "SELECT coalesce(max(version), 0) FROM _replic_migrations");
  if (mine->version > mine->highest) mine->highest = mine->version;
}

/* The disk of a step that fails: either once, and the step can be tried again, or for good, and a
 * restart shows the version before or the one after. */
static void migrate(schemas *w, sim_peer *p, bool up, bool may_fail) {
  rng *g = &w->s->g;
  mind *mine = mind_of(p);
  int to = mine->version + (up ? 1 : -1);
  const version *changed = &w->at[up ? to : to + 1];
  const replic_step step = {.kind = up ? REPLIC_STEP_UP : REPLIC_STEP_DOWN,
                            .version = up ? to : to + 1,
                            .up = changed->up,
                            .down = changed->down,
                            .renames = changed->renames};
  if (may_fail) memvfs_arm(p->disk, 1 + rng_below(g, 80), rng_chance(g, 50));
  int rc = replic_migrate_step(p->r, sim_peer_now(p), &step, up ? changed->up : changed->down);
  bool failed = may_fail && memvfs_has_failed(p->disk),
       is_dead = failed && memvfs_is_frozen(p->disk);
  if (may_fail) memvfs_arm(p->disk, 0, false);
  if (!failed) CHECK_OK(p->r, rc);
  sim_trace(w->s, "peer %d migrates from %d to %d%s", p->index, mine->version, to,
            is_dead   ? ", and dies of it"
            : rc != 0 ? ", and cannot"
                      : "");
  w->report->steps_up += up && rc == REPLIC_OK;
  w->report->steps_down += !up && rc == REPLIC_OK;
  w->report->steps_failed += failed;
  if (is_dead) {
    mine->may_fork = true;
    sim_stop(p, rng_chance(g, 50) ? SIM_KILL : SIM_POWER_CUT, rng_chance(g, 30));
    return;
  }
  note_version(p);
  CHECK_INT(mine->version, rc == REPLIC_OK ? to : to + (up ? -1 : 1));
  sim_begin(p);
  CHECK_INT(sim_commit(p), REPLIC_OK);
}

/* ---- what must hold ---- */

static bool is_newer(const patch *a, const patch *b) {
  if (a->patched_at != b->patched_at) return a->patched_at > b->patched_at;
  if (a->origin != b->origin) return a->origin > b->origin;
  return a->sequence > b->sequence;
}

/* A table as it is seen: which columns, and what of the log. */
typedef struct view {
  int t;
  const table *table;
  bool shown[N_COLUMNS];
  const sim_peer *peer; /* what it has; NULL: everything */
} view;

/* Whether the table's guard refuses the value: SQLite says it. */
static bool is_refused(const table *table, const replic_value *value) {
  static sqlite3 *db;
  static sqlite3_stmt *is_json;
  if (value->type != REPLIC_TEXT) return false;
  if (table->guard == GENERATED_NOT_NULL) return true;
  if (!db) CHECK_INT(sqlite3_open(":memory:", &db), SQLITE_OK);
  if (!is_json) CHECK_INT(sqlite3_prepare_v2(db, "SELECT json(?1)", -1, &is_json, NULL), SQLITE_OK);
  CHECK_INT(bind(is_json, value), SQLITE_OK);
  int rc = sqlite3_step(is_json);
  sqlite3_reset(is_json);
  return rc != SQLITE_ROW;
}

/* The row as a dump shows it; NULL: it is not there. */
static char *model_row(const schemas *w, const view *as, int row) {
  const patch *winner[N_COLUMNS] = {NULL};
  patch key = {.table = as->t, .row = row, .has_compound_key = as->table->has_compound_key};
  const char *names[2];
  replic_value keys[2];
  bool exists = false;
  for (size_t i = 0; i < w->n_patches; i++) {
    const patch *p = &w->patches[i];
    if (p->table != as->t || p->row != row) continue;
    if (p->has_compound_key != key.has_compound_key) continue;
    if (as->peer && sim_at(as->peer, p->origin) < p->sequence) continue;
    exists = true;
    for (int c = 0; c < N_COLUMNS; c++)
      if (p->values[c].type != REPLIC_UNSET && (!winner[c] || is_newer(p, winner[c])))
        winner[c] = p;
  }
  if (!exists) return NULL;
  char *line = "";
  for (size_t i = 0, n = put_keys(&key, names, keys); i < n; i++)
    line = test_format("%s%s%s", line, i ? "|" : "", show_value(&keys[i]));
  for (int c = 0; c < N_COLUMNS; c++) {
    const column *column = &as->table->columns[c];
    if (!column->there) continue;
    if (!winner[c] && column->null == REQUIRED) return NULL;
    if (!as->shown[c]) continue;
    bool has_default = w->has_default[as->t][c] || column->null == DEFAULTED;
    replic_value value = winner[c] ? winner[c]->values[c] : has_default ? v_text("x") : v_null();
    if (!can_hold(as->table, column, &value))
      value = has_default                ? v_text("x")
              : column->null == NULLABLE ? v_null()
                                         : empty_of(column->type);
    value = as_stored(column->type, value);
    if (as->table->guard && c == as->table->guarded && is_refused(as->table, &value)) return NULL;
    line = test_format("%s|%s", line, show_value(&value));
  }
  return line;
}

static void check_table(const schemas *w, sim_peer *p, const view *as) {
  char *lines[N_ROWS], *columns = test_format("%s", keys_of(as->table));
  size_t n = 0;
  for (int row = 0; row < N_ROWS; row++) {
    char *line = model_row(w, as, row);
    if (line) lines[n++] = line;
  }
  for (int c = 0; c < N_COLUMNS; c++)
    if (as->shown[c]) columns = test_format("%s, %s", columns, as->table->columns[c].name);
  char *seen = sql_dump(sim_sql(p), test_format("SELECT %s FROM %s", columns, table_name(as->t))),
       *wanted = join_sorted(lines, n);
  if (strcmp(seen, wanted) != 0)
    check_failed(__FILE__, __LINE__, "t%d(%s) of peer %d, version %d, is\n%s# the model has\n%s",
                 as->t, columns, p->index, mind_of(p)->version, seen, wanted);
}

/* Whether a peer that has been at `highest` knows all names of a column. */
static bool knows_names(const schemas *w, int highest, int t, int c) {
  const char *name = w->at[highest].tables[t].columns[c].name;
  for (int v = highest + 1; name && v <= N_VERSIONS; v++)
    if (strcmp(w->at[v].tables[t].columns[c].name, name) != 0) return false;
  return true;
}

/* At any moment the tables are what the vector says, in the columns of the peer's version (I1):
 * except columns that get a name later of which it has not heard, and those with a DEFAULT at some
 * versions only, where rows tell the way they came; and while a jump is being merged (of that
 * sim_world.c knows what must hold). */
static void check_tables(const schemas *w, sim_peer *p) {
  if (sql_int(sim_sql(p), "SELECT count(*) FROM _replic_jump") > 0) return;
  const mind *mine = mind_of(p);
  for (int t = 0; t < N_TABLES; t++) {
    view as = {.t = t, .table = &w->at[mine->version].tables[t], .peer = p};
    bool is_known = as.table->there;
    for (int c = 0; c < N_COLUMNS; c++) {
      const column *column = &as.table->columns[c];
      as.shown[c] = column->there && knows_names(w, mine->highest, t, c);
      if (column->there && column->null == REQUIRED && !as.shown[c]) is_known = false;
      for (int v = 1; v <= N_VERSIONS; v++)
        if (w->at[v].tables[t].columns[c].null == DEFAULTED && !w->has_default[t][c])
          as.shown[c] = false;
      if (as.table->guard && c == as.table->guarded && !as.shown[c]) is_known = false;
    }
    if (is_known) check_table(w, p, &as);
  }
}

static void check_end(schemas *w) {
  sim *s = w->s;
  for (int t = 0; t < N_TABLES; t++) {
    view as = {.t = t, .table = &w->at[N_VERSIONS].tables[t]};
    for (int c = 0; c < N_COLUMNS; c++) as.shown[c] = as.table->columns[c].there;
    for (int i = 0; as.table->there && i < s->n_peers; i++)
      if (!s->peers[i]->gone) check_table(w, s->peers[i], &as);
  }
}

/* ---- lives ---- */

static void bury(sim_peer *p) {
  replic_counters c;
  replic_get_counters(p->r, &c);
  world_report *to = world_of(p)->report;
  to->applied += c.patches_applied;
  to->pruned += c.patches_pruned;
  to->relayed += c.patches_relayed;
  to->jumps += c.jumps;
  to->forks_healed += c.forks_healed;
}

static void start(schemas *w, sim_peer *p) {
  CHECK_INT(sim_start(p), REPLIC_OK);
  note_version(p);
  sim_trace(w->s, "peer %d is at version %d", p->index, mind_of(p)->version);
}

static void stop(sim_peer *p, int how, bool silent) {
  bury(p);
  mind_of(p)->may_fork |= how == SIM_POWER_CUT;
  sim_stop(p, how, silent);
}

static sim_quality any_quality(rng *g) {
  uint32_t delay = rng_below(g, 50);
  return (sim_quality){.delay_min_ms = delay,
                       .delay_max_ms = delay + rng_below(g, rng_chance(g, 20) ? 2000 : 100),
                       .loss = rng_chance(g, 40) ? rng_below(g, 30) : 0,
                       .duplication = rng_chance(g, 30) ? rng_below(g, 30) : 0,
                       .ordered = rng_chance(g, 40)};
}

static sim_peer *any_peer(schemas *w, bool up) {
  sim_peer *found[MAX_PEERS_OF_SEED];
  uint32_t n = 0;
  for (int i = 0; i < w->s->n_peers; i++) {
    sim_peer *p = w->s->peers[i];
    if (!p->gone && (p->r != NULL) == up) found[n++] = p;
  }
  return n ? found[rng_below(&w->s->g, n)] : NULL;
}

static void add(schemas *w) {
  static const size_t SLICES[] = {1, 200, 0}, WINDOWS[] = {1, 1000, 0};
  sim *s = w->s;
  rng *g = &s->g;
  sim_peer *p = sim_add(s);
  p->mind = test_alloc(sizeof(mind));
  p->config.slice_bytes = SLICES[rng_below(g, COUNT(SLICES))];
  p->config.window_bytes = WINDOWS[rng_below(g, COUNT(WINDOWS))];
  static const int64_t UNITS[] = {0, 70, 1, 70};
  p->config.work_units = UNITS[s->n_peers % 4]; /* frames and jumps in parts, or whole */
  p->config.trace = s->trace && env_number("TRACE", 0) > 1;
  start(w, p);
  for (int n = 1 + (int)rng_below(g, N_VERSIONS); n > 0; n--) migrate(w, p, true, false);
  int nearest = p->index - 1;
  while (nearest > 0 && s->peers[nearest]->gone) nearest--;
  for (int i = 0; i <= nearest; i++)
    if (!s->peers[i]->gone && (i == nearest || rng_chance(g, 40)))
      sim_connect(s, i, p->index, any_quality(g));
}

/* Whether each patch that it has, is at another running peer, too. */
static bool is_spared(const schemas *w, const sim_peer *p) {
  const replic_position *vector = replic_vector(p->r);
  bool is_alone = true;
  for (int i = 0; i < w->s->n_peers; i++) is_alone &= i == p->index || !w->s->peers[i]->r;
  for (size_t i = 0, n = replic_vector_count(p->r); i < n; i++) {
    bool found = false;
    for (int k = 0; k < w->s->n_peers; k++) {
      const sim_peer *other = w->s->peers[k];
      if (other != p && other->r && sim_at(other, vector[i].origin) >= vector[i].sequence)
        found = true;
    }
    if (!found) return false;
  }
  return !is_alone;
}

/* Its files as they are now; or as they were then: it goes on as a new peer, at that version. */
static void back_up(schemas *w, sim_peer *p) {
  static const char *const SUFFIXES[] = {"", "-wal"};
  sim *s = w->s;
  mind *mine = mind_of(p);
  if (!mine->has_backup) {
    sim_trace(s, "peer %d is backed up", p->index);
    for (size_t i = 0; i < COUNT(SUFFIXES); i++)
      sim_copy_file(s, sim_file(p, SUFFIXES[i]),
                    sim_file(p, test_format(".backup%s", SUFFIXES[i])));
    mine->highest_of_backup = mine->highest;
    mine->has_backup = true;
  } else if (is_spared(w, p)) {
    bool moved = mine->may_fork || rng_chance(&s->g, 40);
    sim_trace(s, "peer %d is restored%s", p->index, moved ? ", as a moved file" : "");
    stop(p, rng_chance(&s->g, 50) ? SIM_KILL : SIM_CLOSE, false);
    for (size_t i = 0; i < COUNT(SUFFIXES); i++)
      sim_copy_file(s, sim_file(p, test_format(".backup%s", SUFFIXES[i])),
                    sim_file(p, SUFFIXES[i]));
    if (moved) sim_remove_file(s, sim_file(p, "-replic"));
    mine->highest = mine->highest_of_backup;
    mine->has_backup = false;
    w->report->restored++;
    start(w, p);
  }
}

static bool is_in_log(sim_peer *p, const patch *written) {
  const version *v = &world_of(p)->at[mind_of(p)->version];
  char *sql = test_format("SELECT count(*) FROM _replic_pending WHERE origin = %u AND sequence = "
                          "%lld",
                          (unsigned)written->origin, (long long)written->sequence);
  for (int t = 0; t < N_TABLES; t++)
    if (v->tables[t].there)
      sql = test_format("%s UNION ALL SELECT count(*) FROM t%d_patches WHERE _peerId = %u AND "
                        "_sequenceId = %lld",
                        sql, t, (unsigned)written->origin, (long long)written->sequence);
  return sql_int(sim_sql(p), test_format("WITH n(n) AS (%s) SELECT sum(n) FROM n", sql)) > 0;
}

/* The copy is opened with a new peerId, and issues anew what it has beyond what both are known to
 * have in common. `first`: of the patches that it alone has written. */
static void heal_fork(schemas *w, sim_peer *copy, size_t first, int64_t forked_at) {
  uint32_t old = copy->id;
  size_t n_written = w->n_patches;
  int64_t common = sql_int(sim_sql(copy), test_format("SELECT common FROM _replic_forks WHERE "
                                                      "origin = %u",
                                                      (unsigned)old)),
          issued = 0;
  bool *is_there = test_alloc(n_written * sizeof *is_there);
  for (size_t i = 0; i < first; i++)
    is_there[i] = w->patches[i].origin == old && w->patches[i].sequence > common &&
                  w->patches[i].sequence <= forked_at && is_in_log(copy, &w->patches[i]);
  stop(copy, SIM_CLOSE, false);
  copy->config.peer_id = w->s->next_id;
  start(w, copy);
  copy->config.peer_id = 0;
  CHECK(w->n_patches + n_written <= MAX_PATCHES);
  for (size_t i = 0; i < n_written; i++) {
    patch *to = &w->patches[i];
    if (i >= first && to->is_of_copy) {
      to->is_of_copy = false;
    } else if (i < first && is_there[i]) {
      to = &w->patches[w->n_patches++]; /* once more: others have it as the old peer's */
      *to = w->patches[i];
    } else {
      continue;
    }
    to->origin = copy->id;
    to->sequence = ++issued;
  }
  CHECK_INT(sim_at(copy, copy->id), issued);
}

/* The files of a peer are copied, both go on, and meet. */
static void fork_peer(schemas *w, sim_peer *p) {
  static const char *const SUFFIXES[] = {"", "-wal", "-replic"};
  sim *s = w->s;
  rng *g = &s->g;
  sim_peer *copy = sim_add(s);
  const replic_position *at;
  stop(p, rng_chance(g, 50) ? SIM_CLOSE : SIM_KILL, false);
  for (size_t i = 0; i < COUNT(SUFFIXES); i++)
    sim_copy_file(s, sim_file(p, SUFFIXES[i]), sim_file(copy, SUFFIXES[i]));
  copy->mind = test_alloc(sizeof(mind));
  mind_of(copy)->highest = mind_of(p)->highest;
  mind_of(copy)->may_fork = true;
  start(w, p);
  start(w, copy);
  CHECK_INT(copy->id, p->id);
  sim_trace(s, "peer %d is a copy of peer %d", copy->index, p->index);
  size_t first = w->n_patches, n_own = 0, n_of_copy = 0;
  int64_t forked_at = (at = position_of(p, p->id)) ? at->sequence : 0;
  w->is_forking = true;
  mind_of(p)->has_forked = true;
  w->report->forks++;
  for (int i = 0; i < 60 && (i < 4 || !n_own || !n_of_copy); i++) {
    bool by_copy = rng_chance(g, 50);
    sim_peer *who = by_copy ? copy : p;
    size_t from = w->n_patches;
    write(w, who);
    *(by_copy ? &n_of_copy : &n_own) += w->n_patches - from;
    for (size_t k = from; k < w->n_patches; k++) w->patches[k].is_of_copy = by_copy;
    if (rng_chance(g, 30)) {
      int version = mind_of(who)->version;
      migrate(w, who, version == 1 || (version < N_VERSIONS && rng_chance(g, 50)), false);
    }
    if (rng_chance(g, 50)) sim_run_until(s, s->now_ms + rng_below(g, 300));
  }
  CHECK(n_own && n_of_copy);
  int e =
      sim_connect(s, p->index, copy->index, (sim_quality){.delay_min_ms = 1, .delay_max_ms = 9});
  sim_run_until(s, s->now_ms + 15000);
  sim_remove_edge(s, e);
  heal_fork(w, copy, first, forked_at);
  w->is_forking = false;
  for (int i = 0; i < copy->index; i++)
    if (!s->peers[i]->gone && (i == p->index || rng_chance(g, 40)))
      sim_connect(s, i, copy->index, any_quality(g));
}

static void leave(schemas *w, sim_peer *p) {
  sim *s = w->s;
  int neighbours[64], n = 0;
  if (!is_spared(w, p)) return;
  sim_trace(s, "peer %d leaves for ever", p->index);
  stop(p, SIM_KILL, rng_chance(&s->g, 50));
  p->gone = true;
  w->report->left++;
  for (int e = 0, n_edges = s->n_edges; e < n_edges; e++) {
    const int *peers = s->edges[e].peers;
    if (s->edges[e].is_removed || (peers[0] != p->index && peers[1] != p->index)) continue;
    if (n < (int)COUNT(neighbours)) neighbours[n++] = peers[peers[0] == p->index];
    sim_remove_edge(s, e);
  }
  for (int i = 1; i < n; i++)
    if (neighbours[i - 1] != neighbours[i])
      sim_connect(s, neighbours[i - 1], neighbours[i], any_quality(&s->g));
}

static void compact(schemas *w, sim_peer *p) {
  static const int64_t AGES[] = {0, 100, 3000, 20000};
  rng *g = &w->s->g;
  replic_compaction out;
  sim_begin(p);
  CHECK_OK(p->r, replic_compact(p->r, sim_peer_now(p) - AGES[rng_below(g, COUNT(AGES))],
                                1 + rng_below(g, 100), &out));
  CHECK_INT(sim_commit(p), REPLIC_OK);
  w->report->compactions++;
}

static void trouble_edge(schemas *w) {
  sim *s = w->s;
  if (!s->n_edges) return;
  int e = (int)rng_below(&s->g, (uint32_t)s->n_edges);
  if (s->edges[e].is_removed) return;
  switch (rng_below(&s->g, 3)) {
  case 0: sim_close_edge(s, e); break;
  case 1: s->edges[e].quality = any_quality(&s->g); break;
  default: sim_cut(s, e, !s->edges[e].cut); break;
  }
}

static void step(schemas *w) {
  rng *g = &w->s->g;
  sim_peer *down = any_peer(w, false), *p = any_peer(w, true);
  if (down && (!p || rng_chance(g, 20))) {
    start(w, down);
    return;
  }
  uint32_t what = rng_below(g, 100);
  if (what < 50) {
    write(w, p);
  } else if (what < 66) {
    bool up = mind_of(p)->version == 1 || (mind_of(p)->version < N_VERSIONS && rng_chance(g, 50));
    migrate(w, p, up, rng_chance(g, 20));
  } else if (what < 74) {
    compact(w, p);
  } else if (what < 84) {
    trouble_edge(w);
  } else if (what < 87) {
    back_up(w, p);
  } else if (what < 91) {
    stop(p, (int)rng_below(g, 3), rng_chance(g, 30));
  } else if (what < 94) {
    if (w->s->n_peers < MAX_PEERS_OF_SEED) add(w);
  } else if (what < 96) {
    leave(w, p);
  } else if (what < 97) {
    if (w->s->n_peers < MAX_PEERS_OF_SEED && !mind_of(p)->has_forked) fork_peer(w, p);
  } else {
    p->clock_offset_ms = (int64_t)rng_below(g, 40000) - 20000;
  }
}

static void live(schemas *w, int n_steps) {
  sim *s = w->s;
  for (int i = 0; i < n_steps; i++) {
    step(w);
    sim_run_until(s, s->now_ms + rng_below(&s->g, rng_chance(&s->g, 70) ? 100 : 3000));
    sim_peer *p = any_peer(w, true);
    if (p && rng_chance(&s->g, 20)) check_tables(w, p);
  }
}

/* ---- the end ---- */

static void heal(schemas *w) {
  sim *s = w->s;
  sim_trace(s, "everything heals");
  sim_lift_quotas(s);
  for (int e = 0; e < s->n_edges; e++) {
    if (s->edges[e].is_removed) continue;
    s->edges[e].quality = (sim_quality){.delay_min_ms = 1, .delay_max_ms = 20, .ordered = true};
    if (s->edges[e].cut) sim_cut(s, e, false);
  }
  for (int i = 0; i < s->n_peers; i++) {
    s->peers[i]->clock_offset_ms = 0;
    if (!s->peers[i]->gone && !s->peers[i]->r) start(w, s->peers[i]);
  }
}

/* One step of one peer after another, and now and then somebody writes. */
static void bring_all_to(schemas *w, int version) {
  sim *s = w->s;
  for (bool done = false; !done;) {
    done = true;
    for (int i = 0; i < s->n_peers; i++) {
      sim_peer *p = s->peers[i];
      if (p->gone) continue;
      if (rng_chance(&s->g, 30)) write(w, p);
      if (mind_of(p)->version == version) continue;
      done = false;
      if (rng_chance(&s->g, 60)) migrate(w, p, mind_of(p)->version < version, false);
    }
    sim_run_until(s, s->now_ms + rng_below(&s->g, 1000));
  }
}

static bool is_settled(const schemas *w) {
  const sim_peer *first = NULL;
  for (int i = 0; i < w->s->n_peers; i++) {
    const sim_peer *p = w->s->peers[i];
    if (p->gone) continue;
    if (!first) first = p;
    for (size_t k = 0; k < w->n_patches; k++) /* the last patch of each origin is among them */
      if (sim_at(p, w->patches[k].origin) < w->patches[k].sequence) return false;
  }
  return true;
}

static void settle(schemas *w) {
  sim *s = w->s;
  for (int i = 0; i < 400 && !is_settled(w); i++) sim_run_until(s, s->now_ms + 1000);
  if (is_settled(w)) return;
  for (int i = 0; i < s->n_peers; i++) {
    sim_peer *p = s->peers[i];
    replic_link_info info;
    for (size_t k = 0; p->r && replic_link_at(p->r, k, &info); k++)
      printf("# peer %d, version %d, link %u: lag %lld, behind %lld, %s\n", i, mind_of(p)->version,
             (unsigned)info.link, (long long)info.lag, (long long)info.behind,
             info.held ? info.held : "not held");
  }
  check_failed(__FILE__, __LINE__, "the peers do not converge");
}

/* ---- one seed ---- */

static void on_event(sim_peer *p, const replic_event *event) {
  schemas *w = world_of(p);
  if (event->kind == REPLIC_EVENT_LINK_ERROR && event->code == REPLIC_EQUOTA) w->report->quotas++;
  if (event->kind == REPLIC_EVENT_ERROR && event->text && strstr(event->text, "-replic: "))
    mind_of(p)->may_fork = true;
  if (event->kind == REPLIC_EVENT_LINK_CLOSE) {
    w->report->timeouts += event->code == REPLIC_ETIMEOUT;
    w->report->forks_refused += w->is_forking && event->code == REPLIC_EPEER;
    if (event->code != REPLIC_ETIMEOUT && event->code != REPLIC_EPEER &&
        !(w->is_forking && event->code == REPLIC_EFORK))
      check_failed(__FILE__, __LINE__, "peer %d closes a link: %s", p->index, event->text);
  }
  if (event->kind == REPLIC_EVENT_ERROR && strstr(event->text, "cannot be stored here"))
    w->report->rows_stuck++;
  else if (event->kind == REPLIC_EVENT_ERROR && event->code != REPLIC_ECLOCKSKEW)
    check_failed(__FILE__, __LINE__, "peer %d reports: %s", p->index, event->text);
}

void schemas_run(uint64_t seed, bool trace, world_report *report) {
  schemas *w = test_alloc(sizeof *w);
  sim *s = w->s = sim_new(seed, false);
  s->mind = w;
  s->trace = trace;
  s->hooks = (sim_hooks){.event = on_event};
  w->report = report;
  w->patches = test_alloc(MAX_PATCHES * sizeof *w->patches);
  draw_versions(w);
  write_scripts(w);
  sim_draw_quotas(s);
  for (int n = 2 + (int)rng_below(&s->g, 5); n > 0; n--) add(w);
  live(w, 40 + (int)rng_below(&s->g, 120));
  heal(w);
  if (rng_chance(&s->g, 50)) {
    bring_all_to(w, 1);
    if (rng_chance(&s->g, 50)) settle(w);
  }
  bring_all_to(w, N_VERSIONS);
  settle(w);
  sim_run_until(s, s->now_ms + 15000);
  check_end(w);
  for (int i = 0; i < s->n_peers; i++)
    if (s->peers[i]->r) bury(s->peers[i]);
  report->trace_hash = s->trace_hash;
  sim_free(s);
}

/* definition.c - what a table of another peer's is here: peers may be at different versions of the
 * schema. A field is the same here if it has the same name, or one that a migration has renamed it
 * to or from, and the same declared type. */
#include <string.h>

#include "data/mixed.h"
#include "state.h"

void replic__free_remote_table(remote_table *t) {
  if (!t) return;
  for (int i = 0; t->texts && i < 2 * t->n_fields; i++) sqlite3_free(t->texts[i]);
  for (int i = 0; t->rules && i < t->n_fields; i++) sqlite3_free(t->rules[i]);
  sqlite3_free(t->texts);
  sqlite3_free(t->rules);
  sqlite3_free(t->map);
  sqlite3_free(t->why);
  sqlite3_free(t->name);
  sqlite3_free(t);
}

/* NULL: out of memory, or a NUL in it, which is a failure of the reader. */
char *replic__copy_text(replic__reader *in) {
  size_t len;
  const char *text = replic__get_text(in, &len);
  if (!memchr(text, 0, len)) return sqlite3_mprintf("%.*s", (int)len, text);
  in->failed = 1;
  return NULL;
}

/* What stands behind the fields in SCHEMA; what is stored ends with the fields. 0: out of memory,
 * or malformed. */
static int read_rules(remote_table *t, replic__reader *in) {
  if (in->at == in->end) return 1;
  t->strict = (int)replic__get_varint(in, 1);
  t->rules = sqlite3_malloc64((size_t)t->n_fields * sizeof *t->rules);
  if (!t->rules) return 0;
  memset(t->rules, 0, (size_t)t->n_fields * sizeof *t->rules);
  for (int i = 0; i < t->n_fields; i++)
    if (!(t->rules[i] = replic__copy_text(in))) return 0;
  return 1;
}

/* NULL: malformed (in->failed), or out of memory. */
remote_table *replic__read_definition(replic__reader *in) {
  remote_table *t = sqlite3_malloc64(sizeof *t);
  size_t len = (size_t)(in->end - in->at);
  if (!t) return NULL;
  *t = (remote_table){.id = (uint32_t)replic__get_varint(in, UINT32_MAX)};
  t->name = replic__copy_text(in);
  t->n_keys = (int)replic__get_varint(in, FIELDS_MAX);
  int n_fields = (int)replic__get_varint(in, FIELDS_MAX);
  if (!t->n_keys || n_fields < t->n_keys || n_fields > in->end - in->at) in->failed = 1;
  if (t->name && !in->failed) t->texts = sqlite3_malloc64(2 * (size_t)n_fields * sizeof *t->texts);
  int complete = t->texts != NULL;
  for (int i = 0; t->texts && i < 2 * n_fields; i++) {
    t->texts[i] = replic__copy_text(in);
    complete &= t->texts[i] != NULL;
    t->n_fields += i % 2;
  }
  if (complete && !in->failed) complete = read_rules(t, in);
  t->bytes = DEFINITION_BYTES(len, t->n_fields);
  if (complete && in->at != in->end) in->failed = 1;
  if (complete && !in->failed) return t;
  replic__free_remote_table(t);
  return NULL;
}

void replic__put_definition(replic__writer *w, uint32_t id, const remote_table *t) {
  replic__put_varint(w, id);
  replic__put_text(w, t->name);
  replic__put_varint(w, (uint64_t)t->n_keys);
  replic__put_varint(w, (uint64_t)t->n_fields);
  for (int f = 0; f < 2 * t->n_fields; f++) replic__put_text(w, t->texts[f]);
}

void replic__put_own_definition(replic__writer *w, uint32_t id, const replic__table *t) {
  replic__put_varint(w, id);
  replic__put_text(w, t->name);
  replic__put_varint(w, (uint64_t)t->n_keys);
  replic__put_varint(w, (uint64_t)t->n_fields);
  for (int f = 0; f < t->n_fields; f++) {
    replic__put_text(w, t->fields[f].name);
    replic__put_text(w, t->fields[f].type);
  }
}

void replic__put_rules(replic__writer *w, const replic__table *t) {
  replic__put_varint(w, (uint64_t)t->strict);
  for (int f = 0; f < t->n_fields; f++) replic__put_text(w, t->fields[f].rules);
}

/* ---- which of our tables, and fields ---- */

/* A definition may have more fields than any table here, so none is looked for in a list that is
 * not sorted, and SQLite is asked about the names that migrations have changed here, never about
 * each of the fields. */

static int field_of(const replic__table *ours, const char *name) {
  int low = 0, high = ours->n_fields;
  while (low < high) {
    int middle = low + (high - low) / 2, at = ours->by_name[middle];
    int order = sqlite3_stricmp(ours->fields[at].name, name);
    if (!order) return at;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return -1;
}

/* A name that a column has had here, or has now, and the column that it is or was renamed to or
 * from; -1: none. */
typedef struct former {
  char *name;
  int field;
} former;

typedef struct resolving {
  replic *r;
  remote_table *t;
  const replic__table *ours;
  former *names; /* sorted */
  size_t n_names;
  unsigned char *is_taken; /* of our fields: the definition has one of that name */
} resolving;

/* The one that `name` was renamed to or from, in however many steps. */
static int renamed_field(replic *r, const replic__table *ours, const char *name, int *field) {
  static const char SQL[] =
      "WITH RECURSIVE names(name) AS (VALUES(?2) "
      "UNION SELECT newColumn FROM names JOIN main._replic_renames ON oldColumn = name AND "
      "tableName = ?1 "
      "UNION SELECT oldColumn FROM names JOIN main._replic_renames ON newColumn = name AND "
      "tableName = ?1) SELECT name FROM names";
  sqlite3_stmt *stmt = NULL;
  *field = -1;
  int rc = replic__prepare(r, SQL, &stmt);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 1, ours->name, -1, SQLITE_STATIC);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 2, name, -1, SQLITE_STATIC);
  while (rc == REPLIC_OK && *field < 0 && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    const char *other = (const char *)sqlite3_column_text(stmt, 0);
    rc = other ? REPLIC_OK : SQLITE_NOMEM;
    if (other) *field = field_of(ours, other);
  }
  rc = rc == SQLITE_DONE || rc == REPLIC_OK ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

static int add_name(resolving *s, const char *name) {
  former *grown = sqlite3_realloc64(s->names, (s->n_names + 1) * sizeof *grown);
  if (!grown) return SQLITE_NOMEM;
  s->names = grown;
  former *one = &grown[s->n_names];
  *one = (former){.name = sqlite3_mprintf("%s", name)};
  if (!one->name) return SQLITE_NOMEM;
  s->n_names++;
  return renamed_field(s->r, s->ours, one->name, &one->field);
}

static int read_names(resolving *s) {
  static const char SQL[] =
      "SELECT oldColumn AS name FROM main._replic_renames WHERE tableName = ?1 UNION SELECT "
      "newColumn FROM main._replic_renames WHERE tableName = ?1 ORDER BY name COLLATE NOCASE";
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(s->r, SQL, &stmt);
  if (rc == REPLIC_OK) rc = sqlite3_bind_text(stmt, 1, s->ours->name, -1, SQLITE_STATIC);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    const char *name = (const char *)sqlite3_column_text(stmt, 0);
    rc = name ? add_name(s, name) : SQLITE_NOMEM;
  }
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE || rc == REPLIC_OK ? REPLIC_OK : replic__fail_db(s->r, rc);
}

static int former_field(const resolving *s, const char *name) {
  size_t low = 0, high = s->n_names;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = sqlite3_stricmp(s->names[middle].name, name);
    if (!order) return s->names[middle].field;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return -1;
}

static void free_resolving(resolving *s) {
  for (size_t i = 0; i < s->n_names; i++) sqlite3_free(s->names[i].name);
  sqlite3_free(s->names);
  sqlite3_free(s->is_taken);
}

/* The first reason is kept. */
static int differs(remote_table *t, char *why) {
  if (t->why)
    sqlite3_free(why);
  else
    t->why = why;
  return t->why ? REPLIC_OK : SQLITE_NOMEM;
}

/* Has it two fields of one name, the second is none of ours. Those of our names come first: has it
 * our name and a former one of the same column, ours is the one of that name. */
static int find_fields(resolving *s) {
  remote_table *t = s->t;
  int missing = 0;
  s->is_taken = sqlite3_malloc64((sqlite3_uint64)s->ours->n_fields);
  if (!s->is_taken) return SQLITE_NOMEM;
  memset(s->is_taken, 0, (size_t)s->ours->n_fields);
  for (int i = 0; i < t->n_fields; i++) {
    int f = field_of(s->ours, t->texts[2 * i]);
    t->map[i] = f >= 0 && !s->is_taken[f] ? f : -1;
    if (f >= 0) s->is_taken[f] = 1;
    missing += f < 0;
  }
  int rc = missing ? read_names(s) : REPLIC_OK;
  for (int i = 0; rc == REPLIC_OK && s->n_names && i < t->n_fields; i++) {
    if (t->map[i] >= 0 || field_of(s->ours, t->texts[2 * i]) >= 0) continue;
    int f = former_field(s, t->texts[2 * i]);
    if (f >= 0 && !s->is_taken[f]) t->map[i] = f;
  }
  return rc;
}

static int compare_field(remote_table *t, const replic__table *ours, int i) {
  const char *name = t->texts[2 * i], *type = t->texts[2 * i + 1];
  int f = t->map[i], same = f >= 0 && !sqlite3_stricmp(ours->fields[f].type, type);
  t->n_same += same;
  if (same || t->why) return REPLIC_OK;
  return differs(t, f < 0 ? sqlite3_mprintf("table %s has no column %s here", t->name, name)
                          : sqlite3_mprintf("column %s of table %s is \"%s\" there and \"%s\" here",
                                            name, t->name, type, ours->fields[f].type));
}

/* Values are stored as they are, so this is for people: with other rules what a row has where
 * nobody has set anything may be another. */
static int compare_rules(remote_table *t, const replic__table *ours) {
  if (t->strict != ours->strict)
    return differs(t, sqlite3_mprintf("table %s is %sSTRICT there and %sSTRICT here", t->name,
                                      t->strict ? "" : "not ", ours->strict ? "" : "not "));
  for (int i = 0; i < t->n_fields; i++) {
    const replic__field *f = t->map[i] < 0 ? NULL : &ours->fields[t->map[i]];
    if (!f || !strcmp(f->rules, t->rules[i])) continue;
    return differs(t, sqlite3_mprintf("column %s of table %s is declared \"%s\" there and \"%s\" "
                                      "here, beside its type",
                                      t->texts[2 * i], t->name, t->rules[i], f->rules));
  }
  return REPLIC_OK;
}

static int compare_fields(replic *r, remote_table *t, const replic__table *ours) {
  resolving s = {.r = r, .t = t, .ours = ours};
  int rc = find_fields(&s);
  for (int i = 0; rc == REPLIC_OK && i < t->n_fields; i++) rc = compare_field(t, ours, i);
  free_resolving(&s);
  return rc;
}

/* The keys are the same, in the same order. */
static int has_keys_of(const remote_table *t, const replic__table *ours) {
  int same = t->n_keys == ours->n_keys;
  for (int i = 0; same && i < t->n_keys; i++)
    same = t->map[i] == i && !sqlite3_stricmp(ours->fields[i].type, t->texts[2 * i + 1]);
  for (int i = t->n_keys; same && i < t->n_fields; i++)
    same = t->map[i] < 0 || t->map[i] >= t->n_keys;
  return same;
}

int replic__resolve(replic *r, remote_table *t) {
  int rc = REPLIC_OK;
  if (t->generation == r->schema->generation) return REPLIC_OK;
  sqlite3_free(t->why);
  sqlite3_free(t->map);
  t->why = NULL;
  t->table = NULL;
  t->n_same = 0;
  t->map = sqlite3_malloc64((size_t)t->n_fields * sizeof *t->map);
  if (!t->map) return SQLITE_NOMEM;
  replic__table *ours = replic__schema_find(r->schema, t->name);
  if (!ours) rc = differs(t, sqlite3_mprintf("table %s is not replicated here", t->name));
  if (rc == REPLIC_OK && ours) rc = compare_fields(r, t, ours);
  if (rc != REPLIC_OK) return rc;
  if (ours && has_keys_of(t, ours))
    t->table = ours;
  else if (ours)
    rc = differs(t, sqlite3_mprintf("table %s has another primary key here", t->name));
  if (rc == REPLIC_OK && t->table && t->rules && !t->why) rc = compare_rules(t, ours);
  if (rc == REPLIC_OK) t->generation = r->schema->generation;
  return rc;
}

/* ---- values ---- */

/* Can the column hold it, after SQLite's conversion by affinity? Whether it can must follow from
 * the value and the schema alone, so that all peers with that schema agree. */
static int is_storable(const replic__table *t, const replic__field *f, const replic_value *v) {
  if (v->type == REPLIC_NULL) return t->has_nulls && !f->not_null;
  if (!t->strict || !sqlite3_stricmp(f->type, "ANY")) return 1;
  switch (v->type) { /* https://sqlite.org/stricttables.html: without a look into texts */
  case REPLIC_INT: return sqlite3_stricmp(f->type, "BLOB") != 0;
  case REPLIC_REAL: return !sqlite3_stricmp(f->type, "REAL") || !sqlite3_stricmp(f->type, "TEXT");
  case REPLIC_TEXT: return !sqlite3_stricmp(f->type, "TEXT");
  default: return !sqlite3_stricmp(f->type, "BLOB");
  }
}

int replic__reserve_values(replic *r, int n) {
  if (n <= r->cap_values) return REPLIC_OK;
  replic_value *grown = sqlite3_realloc64(r->values, (size_t)n * sizeof *grown);
  if (!grown) return SQLITE_NOMEM;
  r->values = grown;
  r->cap_values = n;
  return REPLIC_OK;
}

int replic__map_values(replic *r, const remote_table *t) {
  const replic__table *ours = t->table;
  int whole = 1;
  for (int i = 0; i < ours->n_fields; i++) ours->values[i].type = REPLIC_UNSET;
  for (int i = 0; i < t->n_fields; i++) {
    const replic_value *value = &r->values[i];
    if (value->type == REPLIC_UNSET) continue;
    const replic__field *f = t->map[i] < 0 ? NULL : &ours->fields[t->map[i]];
    int same = t->n_same == t->n_fields || (f && !sqlite3_stricmp(f->type, t->texts[2 * i + 1]));
    int storable = f && (i < t->n_keys || is_storable(ours, f, value));
    if (f) ours->values[t->map[i]] = storable ? *value : f->fallback;
    whole &= same && storable;
  }
  return whole;
}

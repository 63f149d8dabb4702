/* schema_change.c - what a change of the schema takes away is kept, in its transaction: a second
 * connection still sees the database as it was before, and so the log's values of columns that are
 * gone or have another type now. Names of renamed columns are followed in _nulls. Then translate.c
 * merges what can be held. */
#include <string.h>

#include "data/mixed.h"
#include "file/file.h"
#include "state.h"

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
    replic__column(stmt, 3 + 2 * i, &r->values[i]);
    if (r->values[i].type == REPLIC_NULL && !sqlite3_column_int(stmt, 4 + 2 * i))
      r->values[i].type = REPLIC_UNSET;
  }
  if (t->table && replic__map_values(r, t)) return REPLIC_OK;
  replic__writer w = {0};
  int kept;
  replic__put_fields(&w, t->n_keys, t->n_fields, r->values);
  replic_frame *fields = replic__finish(&w);
  if (!fields) return SQLITE_NOMEM;
  int rc = replic__keep_as(r, 0, t, &p, fields->data, fields->len, NULL, &kept);
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
  if (rc == REPLIC_OK) rc = replic__reserve_values(b->r, b->t->n_fields);
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
  int rc = definition ? replic__kept_definition(r, 0, definition, &id) : SQLITE_NOMEM;
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
  int kept, rc = f ? replic__keep(r, 0, d, p, f->data, f->len, &kept) : SQLITE_NOMEM;
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

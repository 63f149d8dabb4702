/* log.c - the T_patches tables: append a patch, find newer ones, fold a key.
 *
 * A NULL in a patch row means "not set by this patch"; the columns that a patch sets *to* NULL
 * stand in `_nulls`, a JSON array of their names, written and compared in the one form that
 * SQLite's json_quote gives (field->json_name). */
#include <string.h>

#include "data/data.h"
#include "state.h"

/* ---- _nulls ---- */

/* *text: NULL where no column is set to NULL; freed by the caller. */
static int nulls_text(const replic__patch *p, char **text) {
  sqlite3_str *out = NULL;
  *text = NULL;
  for (int i = 0; i < p->table->n_fields; i++) {
    if (p->values[i].type != REPLIC_NULL) continue;
    if (!out) out = sqlite3_str_new(NULL);
    sqlite3_str_appendf(out, "%s%s", sqlite3_str_length(out) ? "," : "[",
                        p->table->fields[i].json_name);
  }
  if (!out) return REPLIC_OK;
  sqlite3_str_appendchar(out, 1, ']');
  *text = sqlite3_str_finish(out);
  return *text ? REPLIC_OK : SQLITE_NOMEM;
}

static int nulls_contain(const replic_value *nulls, const char *json_name) {
  size_t len = strlen(json_name);
  const char *at = nulls->data, *end = at ? at + nulls->len : at;
  while (at < end && (at = memchr(at, '"', (size_t)(end - at))) != NULL) {
    const char *close = at + 1;
    while (close < end && *close != '"') close += *close == '\\' ? 2 : 1;
    if (close >= end) return 0;
    if ((size_t)(close - at) + 1 == len && memcmp(at, json_name, len) == 0) return 1;
    at = close + 1;
  }
  return 0;
}

/* Field i of a row that LOG_NEWER, LOG_FOLD or LOG_READ stands on; `nulls` is its _nulls. */
static void read_field(const replic__table *t, sqlite3_stmt *stmt, int i, const replic_value *nulls,
                       replic_value *value) {
  replic__column(stmt, i, value);
  if (value->type == REPLIC_NULL && !nulls_contain(nulls, t->fields[i].json_name))
    value->type = REPLIC_UNSET;
}

void replic__log_fields(const replic__table *t, sqlite3_stmt *stmt, replic_value *values) {
  replic_value nulls;
  replic__column(stmt, t->n_fields, &nulls);
  for (int i = 0; i < t->n_fields; i++) read_field(t, stmt, i, &nulls, &values[i]);
}

/* ---- append, newer, fold ---- */

static int bind_patch(sqlite3_stmt *stmt, const replic__patch *p, int n_fields) {
  int rc = SQLITE_OK, n = p->table->n_fields;
  for (int i = 0; rc == SQLITE_OK && i < n_fields; i++)
    rc = replic__bind(stmt, i + 1, &p->values[i]);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int64(stmt, n + 1, p->patched_at);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int64(stmt, n + 2, p->origin);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int64(stmt, n + 3, p->sequence);
  return rc;
}

int replic__log_insert(replic *r, const replic__patch *p, int *duplicate) {
  replic__table *t = p->table;
  sqlite3_stmt *stmt;
  int rc = replic__sql_get(r, t, LOG_INSERT, &stmt);
  if (rc != REPLIC_OK) return rc;
  char *nulls;
  rc = nulls_text(p, &nulls);
  if (rc != REPLIC_OK) return rc;
  if (nulls && !t->has_nulls) {
    int i = 0;
    while (p->values[i].type != REPLIC_NULL) i++;
    sqlite3_free(nulls);
    return replic__fail(r, REPLIC_ENULLS,
                        "column %s of %s cannot be set to NULL: %s_patches has no column for it. "
                        "ALTER TABLE \"%w_patches\" ADD COLUMN _nulls TEXT",
                        t->fields[i].name, t->name, t->name, t->name);
  }
  rc = bind_patch(stmt, p, t->n_fields);
  if (rc == SQLITE_OK && t->has_nulls)
    rc = sqlite3_bind_text(stmt, t->n_fields + 4, nulls, -1, SQLITE_STATIC);
  rc = rc == SQLITE_OK ? replic__step(r, stmt) : replic__fail_db(r, rc);
  *duplicate = rc == REPLIC_OK && sqlite3_changes64(r->db) == 0;
  sqlite3_free(nulls);
  return rc;
}

int replic__log_newer(replic *r, const replic__patch *p, unsigned char *take, int *newer) {
  replic__table *t = p->table;
  sqlite3_stmt *stmt;
  int left = 0;
  *newer = 0;
  for (int i = t->n_keys; i < t->n_fields; i++) left += take[i];
  int rc = replic__sql_get(r, t, LOG_NEWER, &stmt);
  if (rc == REPLIC_OK) rc = bind_patch(stmt, p, t->n_keys);
  /* a hot row may have thousands: nothing more is asked once every column is spoken for */
  while (rc == SQLITE_OK && (left || !*newer) && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    rc = SQLITE_OK;
    *newer = 1;
    replic__log_fields(t, stmt, t->fold);
    for (int i = t->n_keys; i < t->n_fields; i++) {
      if (!take[i] || t->fold[i].type == REPLIC_UNSET) continue;
      take[i] = 0;
      left--;
    }
  }
  rc = rc == SQLITE_DONE || rc == SQLITE_OK ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(stmt);
  return rc;
}

void replic__log_fold_free(replic__table *t) {
  for (int i = t->n_keys; i < t->n_fields; i++) {
    if (t->fold_take[i]) sqlite3_free((void *)t->fold[i].data);
    t->fold_take[i] = 0;
  }
}

int replic__log_fold(replic *r, const replic__patch *p) {
  replic__table *t = p->table;
  sqlite3_stmt *stmt;
  int rc = replic__sql_get(r, t, LOG_FOLD, &stmt);
  memset(t->fold_take, 0, (size_t)t->n_fields);
  for (int i = 0; rc == REPLIC_OK && i < t->n_keys; i++) {
    rc = replic__bind(stmt, i + 1, &p->values[i]);
    t->fold[i] = p->values[i];
  }
  for (int missing = t->n_fields - t->n_keys;
       rc == SQLITE_OK && missing && (rc = sqlite3_step(stmt)) == SQLITE_ROW;) {
    rc = SQLITE_OK;
    replic_value nulls;
    replic__column(stmt, t->n_fields, &nulls);
    for (int i = t->n_keys; rc == SQLITE_OK && i < t->n_fields; i++) {
      if (t->fold_take[i]) continue; /* a newer patch has set it */
      read_field(t, stmt, i, &nulls, &t->fold[i]);
      if (t->fold[i].type == REPLIC_UNSET) continue;
      t->fold_take[i] = 1;
      missing--;
      rc = replic__own(&t->fold[i]);
    }
  }
  rc = rc == SQLITE_DONE || rc == SQLITE_OK ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(stmt);
  if (rc != REPLIC_OK) replic__log_fold_free(t);
  return rc;
}

int replic__log_older(replic *r, const replic__patch *p,
                      int (*each)(void *ctx, const replic__patch *older), void *ctx) {
  replic__table *t = p->table;
  sqlite3_stmt *stmt;
  int rc = replic__sql_get(r, t, LOG_OLDER, &stmt);
  if (rc == REPLIC_OK) rc = bind_patch(stmt, p, t->n_keys);
  while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    replic__log_fields(t, stmt, t->fold);
    replic__patch older = {t,
                           (uint32_t)sqlite3_column_int64(stmt, t->n_fields + 2),
                           sqlite3_column_int64(stmt, t->n_fields + 3),
                           sqlite3_column_int64(stmt, t->n_fields + 1),
                           t->fold,
                           NULL};
    rc = each(ctx, &older);
  }
  rc = rc == SQLITE_DONE || rc == SQLITE_OK ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(stmt);
  return rc;
}

int replic__log_delete(replic *r, const replic__patch *p) {
  sqlite3_stmt *stmt;
  int rc = replic__sql_get(r, p->table, LOG_DELETE, &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, p->origin);
  sqlite3_bind_int64(stmt, 2, p->sequence);
  return replic__step(r, stmt);
}

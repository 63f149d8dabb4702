/* value.c - values: from and to SQLite's statements. */
#include <string.h>

#include "base/base.h"

int replic__bind(sqlite3_stmt *stmt, int index, const replic_value *value) {
  if (value->type >= REPLIC_TEXT && value->len && !value->data) return SQLITE_NOMEM;
  switch (value->type) {
  case REPLIC_INT: return sqlite3_bind_int64(stmt, index, value->i);
  case REPLIC_REAL: return sqlite3_bind_double(stmt, index, value->d);
  case REPLIC_TEXT:
    return sqlite3_bind_text64(stmt, index, value->len ? value->data : "", value->len,
                               SQLITE_STATIC, SQLITE_UTF8);
  case REPLIC_BLOB:
    return value->len ? sqlite3_bind_blob64(stmt, index, value->data, value->len, SQLITE_STATIC)
                      : sqlite3_bind_zeroblob(stmt, index, 0);
  default: return sqlite3_bind_null(stmt, index);
  }
}

/* Text is fetched as a blob: that gives the same bytes, and needs no memory for a terminator. */
void replic__column(sqlite3_stmt *stmt, int index, replic_value *value) {
  static const int TYPES[] = {REPLIC_UNSET, REPLIC_INT,  REPLIC_REAL,
                              REPLIC_TEXT,  REPLIC_BLOB, REPLIC_NULL};
  *value = (replic_value){
      .type = TYPES[sqlite3_column_type(stmt, index)]}; /* SQLITE_INTEGER is 1 … SQLITE_NULL is 5 */
  if (value->type == REPLIC_INT) value->i = sqlite3_column_int64(stmt, index);
  if (value->type == REPLIC_REAL) value->d = sqlite3_column_double(stmt, index);
  if (value->type < REPLIC_TEXT) return;
  value->data = sqlite3_column_blob(stmt, index);
  value->len = (size_t)sqlite3_column_bytes(stmt, index);
}

int replic__own(replic_value *value) {
  const void *borrowed = value->data;
  value->data = NULL;
  if (!value->len) return REPLIC_OK;
  void *copy = borrowed ? sqlite3_malloc64(value->len) : NULL;
  if (copy) memcpy(copy, borrowed, value->len);
  value->data = copy;
  return copy ? REPLIC_OK : SQLITE_NOMEM;
}

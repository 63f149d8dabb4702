/* reader.c - what every file of a reading connection needs: its errors, and result rows.
 *
 * Packed rows: a type byte, then 8 bytes for REPLIC_INT and REPLIC_REAL, or a size_t and that many
 * bytes for REPLIC_TEXT and REPLIC_BLOB. One buffer per result is one allocation to hand to another
 * thread, whatever the number of values. */
#include <stdarg.h>
#include <string.h>

#include "file/file.h"

/* ---- errors ---- */

int replic__reader_fail(replic_reader *reader, int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  char *text = sqlite3_vmprintf(format, args);
  va_end(args);
  sqlite3_free(reader->error);
  reader->error = text;
  return code;
}

static int fail_open(replic_reader *reader, int code) {
  const char *path = reader->db ? sqlite3_db_filename(reader->db, "main") : NULL;
  char *why = replic__trouble(path ? path : ""); /* "": it was not opened at all */
  replic__reader_fail(reader, code, "%s", why ? why : sqlite3_errstr(code));
  sqlite3_free(why);
  return code;
}

int replic__reader_fail_db(replic_reader *reader, int code) {
  if ((code & 0xff) == SQLITE_CANTOPEN) return fail_open(reader, code);
  if ((code & 0xff) == SQLITE_BUSY && reader->gave_up)
    return replic__reader_fail(reader, SQLITE_INTERRUPT, "%s", sqlite3_errstr(SQLITE_INTERRUPT));
  int extended = reader->db ? sqlite3_extended_errcode(reader->db) : SQLITE_OK;
  if (code == SQLITE_NOMEM || (extended & 0xff) != (code & 0xff))
    return replic__reader_fail(reader, code, "%s", sqlite3_errstr(code));
  return replic__reader_fail(reader, extended, "%s", sqlite3_errmsg(reader->db));
}

const char *replic_reader_error_text(const replic_reader *reader) {
  return reader && reader->error ? reader->error : "out of memory";
}

void replic_reader_reset(replic_reader *reader) {
  if (!reader->current) return;
  sqlite3_reset(reader->current);
  sqlite3_clear_bindings(reader->current);
  reader->current = NULL;
}

/* ---- rows ---- */

static int rows_reserve(replic_rows *rows, size_t more) {
  if (rows->cap - rows->len >= more) return REPLIC_OK;
  size_t cap = rows->cap ? rows->cap * 2 : 1024;
  while (cap - rows->len < more) cap *= 2;
  unsigned char *grown = sqlite3_realloc64(rows->data, cap);
  if (!grown) return SQLITE_NOMEM;
  rows->data = grown;
  rows->cap = cap;
  return REPLIC_OK;
}

static void rows_put(replic_rows *rows, const void *bytes, size_t len) {
  if (len) memcpy(rows->data + rows->len, bytes, len);
  rows->len += len;
}

static int append_text(replic_rows *rows, unsigned char type, const void *bytes, size_t len) {
  if (rows_reserve(rows, 1 + sizeof len + len) != REPLIC_OK) return SQLITE_NOMEM;
  rows_put(rows, &type, 1);
  rows_put(rows, &len, sizeof len);
  rows_put(rows, bytes, len);
  return REPLIC_OK;
}

static int rows_append(replic_rows *rows, sqlite3_stmt *stmt, int column) {
  static const unsigned char TYPES[] = {/* by SQLITE_INTEGER … SQLITE_NULL */
                                        0,           REPLIC_INT,  REPLIC_REAL,
                                        REPLIC_TEXT, REPLIC_BLOB, REPLIC_NULL};
  unsigned char type = TYPES[sqlite3_column_type(stmt, column)];
  if (type == REPLIC_TEXT || type == REPLIC_BLOB) {
    const void *bytes = type == REPLIC_TEXT ? (const void *)sqlite3_column_text(stmt, column)
                                            : sqlite3_column_blob(stmt, column);
    size_t len = (size_t)sqlite3_column_bytes(stmt, column);
    if (!bytes && (len || type == REPLIC_TEXT)) return SQLITE_NOMEM;
    return append_text(rows, type, bytes, len);
  }
  int64_t i = type == REPLIC_INT ? sqlite3_column_int64(stmt, column) : 0;
  double d = type == REPLIC_REAL ? sqlite3_column_double(stmt, column) : 0;
  if (rows_reserve(rows, 1 + sizeof i) != REPLIC_OK) return SQLITE_NOMEM;
  rows_put(rows, &type, 1);
  if (type == REPLIC_INT) rows_put(rows, &i, sizeof i);
  if (type == REPLIC_REAL) rows_put(rows, &d, sizeof d);
  return REPLIC_OK;
}

int replic__rows_add(replic_rows *rows, sqlite3_stmt *stmt) {
  int rc = REPLIC_OK;
  rows->n_columns = (size_t)sqlite3_column_count(stmt);
  for (int i = 0; rc == REPLIC_OK && i < (int)rows->n_columns; i++) rc = rows_append(rows, stmt, i);
  rows->n_rows += rc == REPLIC_OK;
  return rc;
}

int replic__rows_add_names(replic_rows *rows, sqlite3_stmt *stmt) {
  int rc = REPLIC_OK;
  rows->n_columns = (size_t)sqlite3_column_count(stmt);
  for (int i = 0; rc == REPLIC_OK && i < (int)rows->n_columns; i++) {
    const char *name = sqlite3_column_name(stmt, i);
    rc = name ? append_text(rows, REPLIC_TEXT, name, strlen(name)) : SQLITE_NOMEM;
  }
  rows->n_rows += rc == REPLIC_OK;
  return rc;
}

size_t replic_rows_value(const replic_rows *rows, size_t at, replic_value *out) {
  const unsigned char *bytes = rows->data + at;
  *out = (replic_value){.type = *bytes++};
  switch (out->type) {
  case REPLIC_INT: memcpy(&out->i, bytes, sizeof out->i); return at + 1 + sizeof out->i;
  case REPLIC_REAL: memcpy(&out->d, bytes, sizeof out->d); return at + 1 + sizeof out->d;
  case REPLIC_TEXT:
  case REPLIC_BLOB:
    memcpy(&out->len, bytes, sizeof out->len);
    out->data = bytes + sizeof out->len;
    return at + 1 + sizeof out->len + out->len;
  default: return at + 1;
  }
}

void replic_rows_free(replic_rows *rows) {
  sqlite3_free(rows->data);
  memset(rows, 0, sizeof *rows);
}

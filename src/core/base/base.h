/* base.h - floor 0 of the core: SQLite and bytes. It knows of no table, no patch and no link.
 *
 *   db.c      statements on the writing connection
 *   value.c   values from and to a statement
 *   params.c  the parameters of a statement, by position or by name
 *   codec.c   numbers, texts and values as bytes
 *   crc.c     the sum of bytes
 *   error.c   texts and names of codes
 *   outbox.c  what a call leaves for its caller
 *
 * For src/core and its tests. Functions that return int give REPLIC_OK, a REPLIC_E… code or one of
 * SQLite's. Memory comes from sqlite3_malloc, so that one failure shim covers SQLite and core. */
#ifndef REPLIC_BASE_H
#define REPLIC_BASE_H

#include <sqlite3.h>

#include "replic.h"

/* ---- db.c: the connection is open. Each sets the error text where it fails. ---- */

/* Runs the text, of one statement or several. Only for the core's own SQL. */
int replic__exec(replic *r, const char *sql);
/* Prepares `sql` into *slot, unless that has a statement already. The caller keeps it, and
 * finalizes it before the connection closes. */
int replic__prepare(replic *r, const char *sql, sqlite3_stmt **slot);
/* Runs a bound statement to its end and resets it, also after a failure. Rows are passed over. */
int replic__step(replic *r, sqlite3_stmt *stmt);
/* replic__prepare, then replic__step: for a statement without parameters that is used again. */
int replic__run_kept(replic *r, const char *sql, sqlite3_stmt **slot);
/* Sets *out to the first column of the first row; to 0 where there is no row. */
int replic__int(replic *r, const char *sql, int64_t *out);

/* ---- value.c ---- */

/* Binds a value. Text and blob are borrowed until the statement is reset. Codes of SQLite's. */
int replic__bind(sqlite3_stmt *stmt, int index, const replic_value *value);
/* Reads a column of the row that `stmt` stands on. Text and blob are borrowed until the next step.
 * Without memory their `data` is NULL. */
void replic__column(sqlite3_stmt *stmt, int index, replic_value *value);
/* Copies what the value has borrowed. The caller frees `data`. SQLITE_NOMEM: it is NULL. */
int replic__own(replic_value *value);

/* ---- params.c ---- */

/* The names of a statement's parameters, found by their text. */
typedef struct replic__names replic__names;

/* Binds `params` to `stmt`: all by position or all by name. `lives`: SQLITE_STATIC where the values
 * outlive the next reset of the statement, else SQLITE_TRANSIENT. `*names` belongs to the
 * statement: NULL at first, kept and freed (sqlite3_free) by the caller with it; it is only made
 * where there are names. Errors: REPLIC_EUSAGE with the reason in `*why` (the caller frees it;
 * NULL: out of memory), SQLITE_… */
int replic__bind_params(sqlite3_stmt *stmt, const replic_param *params, size_t n_params,
                        sqlite3_destructor_type lives, replic__names **names, char **why);

/* ---- codec.c, writing: a frame that grows. The first failure (memory) sticks; finish then gives
 * NULL. Begin with a zeroed writer. ---- */

typedef struct replic__writer {
  replic_frame *frame; /* owned until replic__finish */
  size_t cap;
  int failed;
} replic__writer;

void replic__put_varint(replic__writer *w, uint64_t value);
void replic__put_bytes(replic__writer *w, const void *bytes, size_t len);
void replic__put_text(replic__writer *w, const char *text);
void replic__put_value(replic__writer *w, const replic_value *value);
/* Puts the keys, a bitmap of the other fields, and the values of those that are set. */
void replic__put_fields(replic__writer *w, int n_keys, int n_fields, const replic_value *values);
/* Returns the bytes, with refs 1. The caller owns the reference. NULL: out of memory. */
replic_frame *replic__finish(replic__writer *w);
/* Gives up one reference; the last one frees. NULL is allowed. */
void replic__frame_release(replic_frame *frame);

/* ---- codec.c, reading: one bounds-checked cursor over untrusted bytes. The first failure sticks;
 * every later get gives 0. What is read is borrowed from the bytes. ---- */

typedef struct replic__reader {
  const uint8_t *at, *end;
  int failed;
} replic__reader;

/* Marks the bytes as malformed and stands at their end. Returns 0. */
uint64_t replic__unreadable(replic__reader *in);
uint64_t replic__get_varint(replic__reader *in, uint64_t max);
/* Reads a count of things that take at least `min_bytes` each. More than fit into the rest is a
 * failure. */
size_t replic__get_count(replic__reader *in, size_t min_bytes);
/* Returns a text that is not terminated, never NULL; sets *len. */
const char *replic__get_text(replic__reader *in, size_t *len);
void replic__get_value(replic__reader *in, replic_value *value);
/* Reads what replic__put_fields has put. values: n_fields of them; REPLIC_UNSET where a field is
 * not set. */
void replic__get_fields(replic__reader *in, int n_keys, int n_fields, replic_value *values);
uint32_t replic__get_epoch(replic__reader *in);
uint32_t replic__get_peer(replic__reader *in); /* never 0, but after a failure */
int64_t replic__get_sequence(replic__reader *in);
int64_t replic__get_clock(replic__reader *in);

/* ---- crc.c ---- */

/* Returns the CRC-32C of the bytes. */
uint32_t replic__crc32c(const void *bytes, size_t len);
/* The same where the processor has no instruction for it. */
uint32_t replic__crc32c_by_tables(const void *bytes, size_t len);

/* ---- error.c ---- */

/* Sets the error text and returns `code`. Arguments may point into the text before. */
int replic__fail(replic *r, int code, const char *format, ...);
/* Sets the text that SQLite has for `code`, and returns the extended code. REPLIC_OK and codes of
 * our own change nothing. */
int replic__fail_db(replic *r, int code);
/* Whether a failure of SQLite's with this (extended) code lies in the data and the schema, so that
 * the same write fails on every machine. 0: in this machine, or in a rule that was broken here, so
 * that it may succeed later. REPLIC_OK and codes of our own: 0. */
int replic__lies_in_data(int code);

/* ---- outbox.c: SQLITE_NOMEM where the event is lost ---- */

/* Adds an event. Its text is made of `format`, NULL: it has none. */
int replic__event(replic *r, replic_event event, const char *format, ...);
/* Adds an event whose text the caller has made. Owns event.text, also on failure. */
int replic__event_take(replic *r, replic_event event);
/* Adds an event of tracing; does nothing unless the configuration asks for it. */
void replic__trace(replic *r, const char *format, ...);

#endif

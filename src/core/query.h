/* query.h - a connection that only reads.
 *
 * Reads never wait for the writing connection: in WAL mode each one sees the last commit. A reader
 * is a second SQLite connection to the same file, opened read-only, with a few prepared statements
 * kept. It knows nothing of replication.
 *
 *   replic_reader_open
 *     replic_reader_start, replic_reader_rows (until rows.done, or as far as wanted),
 * replic_reader_reset   (any number) replic_reader_close
 *
 * One thread at a time per reader. Results and texts as in replic.h. Pointers handed in are
 * borrowed until the call returns. */
#ifndef REPLIC_QUERY_H
#define REPLIC_QUERY_H

#include "replic.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct replic_reader replic_reader;

/* Result rows, packed one value after another. Zero it before the first use; replic_rows_free frees
 * it. */
typedef struct replic_rows {
  unsigned char *data;
  size_t len, cap;
  size_t n_columns; /* of each row; known after replic_reader_rows */
  size_t n_rows;
  int done; /* 1: the statement has no further rows */
} replic_rows;

/* Opens an existing database file. `*out` is set even on failure (except when memory is exhausted:
 * NULL), so that its error text can be read; it must then be closed all the same. */
int replic_reader_open(const char *path, replic_reader **out);
/* Frees everything. NULL is allowed. Never fails. */
void replic_reader_close(replic_reader *reader);
/* The text of the last error. Borrowed until the next call on `reader`. Never NULL. */
const char *replic_reader_error_text(const replic_reader *reader);
/* Interrupts a running statement from any thread: the one call that may overlap another. */
void replic_reader_interrupt(replic_reader *reader);

/* Prepares exactly one statement that does not write, and binds copies of the parameters: all by
 * position or all by name. Errors: SQLITE_READONLY (it would write), REPLIC_ETRANSACTION,
 * REPLIC_EUSAGE (parameters, number of statements), REPLIC_ETOOLARGE, SQLITE_… */
int replic_reader_start(replic_reader *reader, const char *sql, size_t len,
                        const replic_param *params, size_t n_params);
/* Appends rows of the started statement to `*rows` until it ends, `max_rows` were appended, or
 * those take `max_bytes` or more. On failure the statement is reset and `*rows` must not be read.
 */
int replic_reader_rows(replic_reader *reader, size_t max_rows, size_t max_bytes, replic_rows *rows);
/* The name of a result column, after replic_reader_rows. Borrowed until the next call. NULL: out of
 * memory. */
const char *replic_reader_column_name(const replic_reader *reader, size_t index);
/* Ends the started statement, and with it the snapshot it reads. Never fails; without one it does
 * nothing. */
void replic_reader_reset(replic_reader *reader);

/* Reads the value at offset `at` (0, then what the last call returned) into `*out`, borrowed from
 * `rows`; returns the offset of the next. There are n_rows * n_columns of them. */
size_t replic_rows_value(const replic_rows *rows, size_t at, replic_value *out);
/* Never fails; may be called again. */
void replic_rows_free(replic_rows *rows);

#ifdef __cplusplus
}
#endif
#endif

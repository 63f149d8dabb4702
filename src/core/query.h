/* query.h - a connection that only reads.
 *
 * Reads never wait for the writing connection: in WAL mode each one sees the last commit. A reader
 * is a second SQLite connection to the same file, opened read-only, with a few prepared statements
 * kept. It knows nothing of replication.
 *
 *   replic_reader_open
 *     replic_reader_hold                         (if all that follows shall see one state)
 *     replic_reader_start                        (any number of times)
 *       replic_reader_rows or replic_reader_sum  (until it is done, or as far as wanted)
 *       replic_reader_reset
 *     replic_reader_vector                       (for what the results may hold)
 *     replic_reader_backup, replic_reader_copy (until nothing remains), replic_reader_copied,
 *       then the caller renames, then replic_reader_backed_up
 *   replic_reader_close
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
/* The same for looking at a file once, which may lie where nothing can be written (peek.c). */
int replic_reader_peek(const char *path, replic_reader **out);
/* How much of the file it keeps in memory at the most, in KiB. Default: SQLite's, 16,000. */
int replic_reader_cache(replic_reader *reader, int kib);
/* After opening: whether it is the file of replic_file_id. REPLIC_EGONE: another one lies there by
 * now, or none, and the reader must be closed. */
int replic_reader_check(replic_reader *reader, uint64_t file_id);
/* Frees everything. NULL is allowed. Never fails. */
void replic_reader_close(replic_reader *reader);
/* The text of the last error. Borrowed until the next call on `reader`. Never NULL. */
const char *replic_reader_error_text(const replic_reader *reader);
/* Interrupts a running statement from any thread: the one call that may overlap another. */
void replic_reader_interrupt(replic_reader *reader);
/* Has `stop(ctx)` called every REPLIC_STOP_STEPS steps of a statement, and while it waits for a
 * lock, on the thread that runs it. Where it returns other than 0 the statement fails with
 * SQLITE_INTERRUPT. `ctx` is borrowed until the reader is closed. It is not asked while SQLite
 * sorts, or within one call of a function. */
void replic_reader_on_steps(replic_reader *reader, int (*stop)(void *ctx), void *ctx);

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

/* If a commit has come between this call and the last one: appends rows of (origin, sequence,
 * patchedAt) to `*rows`, a vector that covers whatever was read on this connection until now. A
 * commit is visible to readers a little before the writing connection's owner hears of it. May be
 * called while a statement is started, too. On failure `*rows` must not be read. */
int replic_reader_vector(replic_reader *reader, replic_rows *rows);

/* Keeps the snapshot of the next read until the reader is closed: every later statement and a
 * backup see that state, whatever is written meanwhile. Once per reader. The file's WAL cannot be
 * reused as long as a snapshot is held: it grows with what is written. */
int replic_reader_hold(replic_reader *reader);

/* Statements between these two see one state of the file, that of the first one; and only that one
 * pays for finding it. Nothing may be held or started. They do not fail: without memory each
 * statement finds its own state, and one begun twice is begun once. */
void replic_reader_begin(replic_reader *reader);
void replic_reader_end(replic_reader *reader);

/* ---- digests (digest.c) ---- */

#define REPLIC_BUCKETS 4096

typedef struct replic_sums {
  uint64_t bucket[REPLIC_BUCKETS]; /* modulo 2^64 */
  int64_t rows;
  int done;
} replic_sums;

/* Sums up rows of the started statement, whose columns are a hash of the key and one of the row:
 * the latter is added to the bucket that the former's 12 top bits name, so the order of the rows is
 * of no importance. Takes at most `max_rows` rows. `*out` is what has been summed since the start,
 * borrowed until the next call. Statements have the function _replic_hash(value, …) for such
 * hashes, SipHash-2-4 over types and bytes; docs/protocol.md describes it. */
int replic_reader_sum(replic_reader *reader, size_t max_rows, const replic_sums **out);

/* ---- backups (backup.c) ---- */

/* Begins to copy the database as the held snapshot shows it, to be put at `path`. The copy is made
 * beside it; `*copy` gets its name, borrowed until the reader is closed. Nothing of what is at
 * `path` is touched before replic_reader_copied. Errors: REPLIC_EUSAGE (it is the database itself
 * or a file of it), REPLIC_ELOCKED (it is open in a Replica, or another backup goes there),
 * SQLITE_BUSY (it is open in another program), SQLITE_NOTADB (it is there and no database),
 * SQLITE_CANTOPEN (folder). */
int replic_reader_backup(replic_reader *reader, const char *path, const char **copy);
/* Copies at most `max_pages` pages. `*total`, `*remaining`: in pages. */
int replic_reader_copy(replic_reader *reader, int max_pages, int64_t *total, int64_t *remaining);
/* All is copied: syncs the copy, and prepares `path` to be replaced. The caller then renames
 * `*from` to `*to`, both borrowed: that is the one thing SQLite's file layer cannot do. */
int replic_reader_copied(replic_reader *reader, const char **from, const char **to);
/* It is renamed. Never fails. A reader that is closed without it removes the copy. */
void replic_reader_backed_up(replic_reader *reader);

/* Reads the value at offset `at` (0, then what the last call returned) into `*out`, borrowed from
 * `rows`; returns the offset of the next. There are n_rows * n_columns of them. */
size_t replic_rows_value(const replic_rows *rows, size_t at, replic_value *out);
/* Never fails; may be called again. */
void replic_rows_free(replic_rows *rows);

#ifdef __cplusplus
}
#endif
#endif

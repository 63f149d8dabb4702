/* reader.h - what the files of a reading connection share: query.c, peek.c, digest.c, backup.c.
 * Not for use outside src/core. */
#ifndef REPLIC_READER_H
#define REPLIC_READER_H

#include "base/base.h"
#include "query.h"

enum { REPLIC__CACHE_SIZE = 32 };

/* A prepared statement that is kept. */
typedef struct replic__cached {
  char *sql;
  size_t len;
  sqlite3_stmt *stmt;
  replic__names *names; /* NULL: not bound by name yet */
  int64_t used;         /* the reader's tick when it was last started */
} replic__cached;

typedef struct replic__backup replic__backup;

struct replic_reader {
  sqlite3 *db;
  sqlite3_stmt *current; /* started and not reset; owned by the cache */
  replic__cached cache[REPLIC__CACHE_SIZE];
  int64_t tick;
  sqlite3_stmt *vector;         /* NULL: not prepared yet */
  unsigned data_version;        /* SQLite's, when the vector was last read */
  sqlite3_stmt *begin, *commit; /* NULL: not needed yet */
  int trusted;                  /* the SQL that is prepared is our own */
  int denied;                   /* by the authorizer: a REPLIC_E… code */
  int (*stop)(void *ctx);       /* NULL: nobody may stop it */
  void *stop_ctx;
  int gave_up; /* the last wait for a lock: it was stopped */
  char *error;
  replic_sums *sums;      /* NULL: nothing was summed yet */
  replic__backup *backup; /* NULL: none under way */
};

/* Notes the text; returns `code`. */
int replic__reader_fail(replic_reader *reader, int code, const char *format, ...);
/* The same with SQLite's text. */
int replic__reader_fail_db(replic_reader *reader, int code);
/* Appends the current row of `stmt`, or the names of its columns as if they were one. SQLITE_NOMEM:
 * `rows` must not be read. */
int replic__rows_add(replic_rows *rows, sqlite3_stmt *stmt);
int replic__rows_add_names(replic_rows *rows, sqlite3_stmt *stmt);
/* Opens `name` with these flags beside those of every reader, in `vfs` (NULL: the default one); the
 * connection before it is closed. */
int replic__reader_connect(replic_reader *reader, const char *name, int flags, const char *vfs);
/* Makes _replic_hash known. */
int replic__digest_open(replic_reader *reader);
/* Undoes a backup that is not complete. Never fails; without one it does nothing. */
void replic__backup_drop(replic_reader *reader);

#endif

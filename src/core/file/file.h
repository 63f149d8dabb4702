/* file.h - floor 1 of the core: connections, and the files beside the database. It knows of no
 * replicated table and no patch.
 *
 *   wal_file.c    the VFS of the writing connection: a commit in two writes
 *   checkpoint.c  from the WAL into the file, while the writing goes on
 *   claim.c       what keeps the file ours while it is open
 *   lock.c        <file>-replic: lock and witness
 *   reader.c      errors and rows of a reading connection
 *   digest.c      hashes of rows and their sums, on a reading connection
 *   backup.c      a copy of the file as one snapshot shows it
 *   query.c       reading connections
 *   peek.c        the same where nothing can be written
 *
 * For src/core and its tests. */
#ifndef REPLIC_FILE_H
#define REPLIC_FILE_H

#include "base/base.h"
#include "query.h"

/* ---- wal_file.c, checkpoint.c ---- */

/* Returns the VFS to open the writing connection with; NULL: SQLite's default. Any thread. */
const char *replic__wal_vfs(void);
/* Sets how long the WAL becomes: SQLite makes its checkpoints in the commits, and shortens a longer
 * WAL when it begins it again. The file is in WAL mode. Errors: SQLITE_… */
int replic__limit_wal(replic *r);
/* From here on SQLite makes no checkpoints of its own in the commits. */
void replic__checkpoint_by_caller(replic *r);

/* ---- claim.c ---- */

typedef struct replic__claims replic__claims;

/* Makes SQLite's locks on -shm such ones that survive a foreign close() in this process. To be
 * called before the first file is opened; any thread. Returns 1 where the VFS has what is needed
 * for it. */
int replic__claim_ready(void);
/* Takes the lock that says whose `path` is; the file must exist. `*fd`: to be given to
 * replic__unclaim, -1 if there is none. SQLITE_BUSY: another one has it, in any process.
 * SQLITE_CANTOPEN: errno says why. Closing `*fd` drops all POSIX locks that this process has on the
 * file, so first ask SQLite's own lock, which knows those of this process. */
int replic__claim(const char *path, int *fd);
void replic__unclaim(int *fd);
/* Takes the same lock of the replica's database, before anything is read of it. */
int replic__claims_open(replic *r);
/* To be called once the file is in WAL mode: from here on nobody else can be the last one, and
 * remove the WAL. */
int replic__claims_share(replic *r);
/* Looks whether the files still have their names. To be called after a commit, and `thorough` at
 * heartbeats and where the file was opened once more. REPLIC_EGONE: they have not; r->gone is set,
 * and there is an event. */
int replic__claims_look(replic *r, int thorough);
/* Sets the error, of r->gone, and returns REPLIC_EGONE. */
int replic__fail_gone(replic *r);
/* Returns why `path`, or what lies beside it, cannot be opened, read or written: whose a file is,
 * or that file descriptors are used up, and what to do. `path` "": only the latter. NULL: neither.
 * The caller frees. */
char *replic__trouble(const char *path);
/* Once r->gone is set, between batches: moves the WAL into the database. Never fails; to be called
 * again at the next heartbeat. */
void replic__claims_settle(replic *r);
/* To be called before the last connection closes, which then removes the WAL. */
void replic__claims_release(replic *r);
void replic__claims_close(replic *r); /* after it. Frees */

/* ---- lock.c ---- */

/* The file is locked, and its witness read: which peer has written the database, and how many
 * patches it had issued. */
typedef struct replic__identity {
  const char *name; /* sqlite3_create_filename; owned */
  uint32_t peer_id; /* 0: no witness */
  int64_t sequence;
  int claim;            /* of replic__claim */
  sqlite3_file file[1]; /* szOsFile bytes follow */
} replic__identity;

/* Locks, and reads the witness into r->identity. The database is open. REPLIC_ELOCKED: it is open
 * in another Replica. */
int replic__lock_open(replic *r);
/* Writes the witness: `peer_id` has issued `sequence`. A new peerId is synced. Codes of SQLite's;
 * the witness in memory then stays as it was. */
int replic__witness_write(replic__identity *id, uint32_t peer_id, int64_t sequence);
/* Gives the lock up and frees r->identity. The database is closed, so that the next opener finds a
 * quiet file. */
void replic__lock_close(replic *r);

/* ---- reading connections ---- */

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

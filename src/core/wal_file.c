/* wal_file.c - the writing connection's WAL: few writes of the system's for a commit.
 *
 * SQLite writes each page of a commit with two calls, a header of 24 bytes and the page: eight
 * calls for one row, and each costs about as much as inserting it. So the writing connection has a
 * VFS that opens the WAL with methods of our own; all else is the default VFS's.
 *
 *   xWrite   header page header page header page header            page
 *            └────────── buffer ─────────────────┴──> one write    └──> another
 *
 * The header of a commit's last page says so (https://sqlite.org/fileformat2.html#walformat). From
 * it on every write goes through, up to the next header that does not. So when SQLite publishes the
 * commit to other connections, which is after its last write and its sync, all of it is in the
 * file, and no failure is told late. What is in the buffer belongs to an open transaction, so
 * nobody else reads it; it goes into the file before this connection reads, syncs, measures or cuts
 * that.
 *
 * And where each commit is synced, a small one that makes the file longer makes it longer by some
 * more, with zeros: a sync that has to note another size of the file takes half as long again.
 * Behind the last commit there is nothing that anybody reads, and zeros are no frame of a WAL, as
 * its salts are not. */
#include <string.h>

#include "core.h"

#define VFS_NAME "replic"

enum { HEADER = 24, ENDS_COMMIT = 4, BUFFER = 64 * 1024, SPARE = 4 * BUFFER };
enum { ALWAYS = 2 }; /* without FULL it is synced when it begins anew, and then not for long */

typedef struct wal_file {
  sqlite3_file base;
  sqlite3_file *inner; /* the default VFS's, behind this struct */
  uint8_t *buffer;     /* BUFFER bytes; NULL: everything goes through */
  sqlite3_int64 at;    /* where in the file its first byte belongs */
  int n;
  int through;         /* a commit ends */
  int is_synced;       /* the one before, before this one began */
  int synced;          /* so many in a row, up to ALWAYS */
  sqlite3_int64 since; /* bytes written since the one before */
  sqlite3_int64 size;  /* of the file, at least */
} wal_file;

static wal_file *wal_of(sqlite3_file *file) {
  return (wal_file *)(void *)file;
}

/* Afterwards the buffer is empty, also where it fails: then the transaction is undone. */
static int flush(wal_file *f) {
  int n = f->n;
  f->n = 0;
  return n ? f->inner->pMethods->xWrite(f->inner, f->buffer, n, f->at) : SQLITE_OK;
}

/* Behind the commit that ends at `end`. What fails here is left to the writes to come. */
static void grow(wal_file *f, sqlite3_int64 end) {
  static const uint8_t ZEROS[BUFFER];
  if (f->inner->pMethods->xFileSize(f->inner, &f->size) != SQLITE_OK || f->size > end) return;
  f->size = end;
  for (int rc = SQLITE_OK; rc == SQLITE_OK && f->size < end + SPARE;) {
    rc = f->inner->pMethods->xWrite(f->inner, ZEROS, BUFFER, f->size);
    if (rc == SQLITE_OK) f->size += BUFFER;
  }
}

static int write_buffered(wal_file *f, const void *bytes, int n, sqlite3_int64 at) {
  static const uint8_t GOES_ON[4];
  if (n == HEADER)
    f->through = memcmp((const uint8_t *)bytes + ENDS_COMMIT, GOES_ON, sizeof GOES_ON) != 0;
  int fits = f->buffer && (f->n == 0 || (at >= f->at && at <= f->at + f->n));
  if (fits && f->n == 0) f->at = at;
  if (!fits || at - f->at + n > BUFFER) {
    int rc = flush(f);
    if (rc != SQLITE_OK) return rc;
    f->at = at;
  }
  if (!f->buffer || n > BUFFER || (f->through && !f->n))
    return f->inner->pMethods->xWrite(f->inner, bytes, n, at);
  int from = (int)(at - f->at);
  memcpy(f->buffer + from, bytes, (size_t)n);
  if (f->n < from + n) f->n = from + n;
  return f->through ? flush(f) : SQLITE_OK;
}

static int wal_write(sqlite3_file *file, const void *bytes, int n, sqlite3_int64 at) {
  wal_file *f = wal_of(file);
  int rc = write_buffered(f, bytes, n, at);
  f->since += n;
  if (rc != SQLITE_OK || !f->buffer || !f->through || n == HEADER) return rc;
  f->synced = !f->is_synced ? 0 : f->synced < ALWAYS ? f->synced + 1 : ALWAYS;
  if (f->synced == ALWAYS && f->since <= BUFFER && at + n > f->size) grow(f, at + n);
  f->is_synced = 0;
  f->since = 0;
  return SQLITE_OK;
}

static int wal_close(sqlite3_file *file) {
  wal_file *f = wal_of(file);
  f->n = 0; /* of a transaction that was not committed */
  sqlite3_free(f->buffer);
  f->buffer = NULL;
  return f->inner->pMethods->xClose(f->inner);
}

static int wal_read(sqlite3_file *file, void *out, int n, sqlite3_int64 at) {
  wal_file *f = wal_of(file);
  int rc = flush(f);
  return rc == SQLITE_OK ? f->inner->pMethods->xRead(f->inner, out, n, at) : rc;
}

static int wal_truncate(sqlite3_file *file, sqlite3_int64 size) {
  wal_file *f = wal_of(file);
  int rc = flush(f);
  f->size = 0;
  return rc == SQLITE_OK ? f->inner->pMethods->xTruncate(f->inner, size) : rc;
}

static int wal_sync(sqlite3_file *file, int flags) {
  wal_file *f = wal_of(file);
  int rc = flush(f);
  if (rc == SQLITE_OK) rc = f->inner->pMethods->xSync(f->inner, flags);
  f->is_synced = rc == SQLITE_OK;
  return rc;
}

static int wal_size(sqlite3_file *file, sqlite3_int64 *size) {
  wal_file *f = wal_of(file);
  int rc = flush(f);
  return rc == SQLITE_OK ? f->inner->pMethods->xFileSize(f->inner, size) : rc;
}

/* ---- the rest as it is ---- */

static int wal_lock(sqlite3_file *file, int level) {
  wal_file *f = wal_of(file);
  return f->inner->pMethods->xLock(f->inner, level);
}

static int wal_unlock(sqlite3_file *file, int level) {
  wal_file *f = wal_of(file);
  return f->inner->pMethods->xUnlock(f->inner, level);
}

static int wal_reserved(sqlite3_file *file, int *out) {
  wal_file *f = wal_of(file);
  return f->inner->pMethods->xCheckReservedLock(f->inner, out);
}

static int wal_control(sqlite3_file *file, int op, void *argument) {
  wal_file *f = wal_of(file);
  return f->inner->pMethods->xFileControl(f->inner, op, argument);
}

static int wal_sector(sqlite3_file *file) {
  wal_file *f = wal_of(file);
  return f->inner->pMethods->xSectorSize(f->inner);
}

static int wal_device(sqlite3_file *file) {
  wal_file *f = wal_of(file);
  return f->inner->pMethods->xDeviceCharacteristics(f->inner);
}

/* Version 1: shared memory and mappings are the database file's. */
static const sqlite3_io_methods METHODS = {.iVersion = 1,
                                           .xClose = wal_close,
                                           .xRead = wal_read,
                                           .xWrite = wal_write,
                                           .xTruncate = wal_truncate,
                                           .xSync = wal_sync,
                                           .xFileSize = wal_size,
                                           .xLock = wal_lock,
                                           .xUnlock = wal_unlock,
                                           .xCheckReservedLock = wal_reserved,
                                           .xFileControl = wal_control,
                                           .xSectorSize = wal_sector,
                                           .xDeviceCharacteristics = wal_device};

/* ---- the VFS ---- */

static sqlite3_vfs ours;         /* a copy of the default one, but for the name and xOpen */
static sqlite3_vfs *default_vfs; /* as of that */

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
  (void)vfs;
  if (!(flags & SQLITE_OPEN_WAL)) return default_vfs->xOpen(default_vfs, name, file, flags, out);
  wal_file *f = wal_of(file);
  *f = (wal_file){.inner = (sqlite3_file *)(void *)(f + 1)};
  int rc = default_vfs->xOpen(default_vfs, name, f->inner, flags, out);
  f->base.pMethods = f->inner->pMethods ? &METHODS : NULL;
  if (rc != SQLITE_OK || !f->inner->pMethods) return rc; /* SQLite closes what has methods */
  /* Without this property SQLite parts the writes at the ends of sectors, headers and all. */
  if (wal_device(file) & SQLITE_IOCAP_POWERSAFE_OVERWRITE) f->buffer = sqlite3_malloc64(BUFFER);
  return SQLITE_OK;
}

const char *replic__wal_vfs(void) {
  if (sqlite3_initialize() != SQLITE_OK) return NULL;
  sqlite3_mutex *mutex = sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_APP1);
  sqlite3_vfs *found = sqlite3_vfs_find(NULL);
  int rc = found ? SQLITE_OK : SQLITE_ERROR;
  sqlite3_mutex_enter(mutex);
  if (found && found != default_vfs) {
    default_vfs = found;
    ours = *found;
    ours.pNext = NULL;
    ours.zName = VFS_NAME;
    ours.szOsFile += (int)sizeof(wal_file);
    ours.xOpen = open_file;
    rc = sqlite3_vfs_register(&ours, 0);
  }
  sqlite3_mutex_leave(mutex);
  return rc == SQLITE_OK ? VFS_NAME : NULL;
}

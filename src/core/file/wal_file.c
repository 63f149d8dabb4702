/* wal_file.c - the writing connection's WAL: few writes of the system's for a commit.
 *
 * SQLite writes each page of a commit with two calls, a header of 24 bytes and the page: eight
 * calls for one row, and each costs about as much as inserting it. So the writing connection has a
 * VFS in which some methods of the WAL are our own; all else is the default VFS's.
 *
 *   xWrite   header page header page header page header            page
 *            └────────── buffer ─────────────────┴──> one write    └──> another
 *
 * Why that is right:
 *
 * 1. What is in the buffer belongs to the transaction that is open. Whoever writes to a WAL holds
 *    its write lock, which SQLite takes and releases by the database file's xShmLock: that one is
 *    ours, too. When the lock is released, the buffer is dropped, and the failure of 4. A
 *    transaction that was undone leaves nothing that could be written over another program's.
 * 2. Nobody needs the bytes before they are in the file. Other connections read what is committed.
 *    The header of a commit's last page says so (https://sqlite.org/fileformat2.html#walformat):
 *    from it on everything goes through. So when SQLite publishes the commit, which is after its
 *    last write and its sync, all of it is in the file.
 * 3. The file is written to in xWrite and xSync alone, as SQLite expects it: where those fail, it
 *    undoes the transaction. (Where a read fails it undoes a statement, and goes on.) Reading and
 *    measuring see the buffer over the file, and cutting the file cuts the buffer.
 * 4. A failure is told in a later call than the one that brought the bytes. So it stays: until the
 *    lock is released, every write and sync fails, and the transaction cannot be committed.
 * 5. SQLite writes again what it has written before: a page in its place, the headers of the
 *    commit's frames, and frames in the place of those that a savepoint has undone. The first lies
 *    in the buffer, or before it and goes into the file. The second comes when everything goes
 *    through. The third begins with a header: what the buffer has from there on is dropped.
 *
 * Without a lock that is seen (locking_mode = EXCLUSIVE) everything goes through.
 *
 * And where each commit is synced, a small one that makes the file longer makes it longer by some
 * more, with zeros: a sync that has to note another size of the file takes half as long again.
 * Behind the last commit there is nothing that anybody reads, and zeros are no frame of a WAL, as
 * its salts are not. */
#include <string.h>

#include "file/file.h"

#define VFS_NAME "replic"

enum { HEADER = 24, ENDS_COMMIT = 4, BUFFER = 64 * 1024, SPARE = 4 * BUFFER };
enum { ALWAYS = 2 };     /* without FULL it is synced when it begins anew, and then not for long */
enum { WRITE_LOCK = 0 }; /* of the locks of a WAL's shared memory */

/* What we know of a file lies behind the default VFS's own. The file's methods are copies of that
 * one's, but for some: they lie in front, so that they lead here. */
typedef struct wal_file {
  sqlite3_io_methods methods;
  const sqlite3_io_methods *inner; /* the default VFS's */
  struct db_file *db;
  uint8_t *buffer;     /* BUFFER bytes; NULL: everything goes through */
  sqlite3_int64 at;    /* where in the file its first byte belongs */
  int n;               /* bytes of a transaction; 0 unless `locked` */
  int locked;          /* this connection holds the write lock */
  int failed;          /* a write or sync, since then */
  int through;         /* a commit ends */
  int is_synced;       /* the one before, before this one began */
  int synced;          /* so many in a row, up to ALWAYS */
  sqlite3_int64 since; /* bytes written since the one before */
  sqlite3_int64 size;  /* of the file, at least */
} wal_file;

typedef struct db_file {
  sqlite3_io_methods methods;
  const sqlite3_io_methods *inner;
  wal_file *wal; /* NULL: none is open */
} db_file;

static wal_file *wal_of(sqlite3_file *file) {
  return (wal_file *)(void *)file->pMethods;
}

static db_file *db_of(sqlite3_file *file) {
  return (db_file *)(void *)file->pMethods;
}

/* ---- the transaction ---- */

static void end_transaction(wal_file *f) {
  f->locked = f->n = f->through = 0;
  f->failed = SQLITE_OK;
}

static int db_shm_lock(sqlite3_file *file, int offset, int n, int flags) {
  db_file *db = db_of(file);
  wal_file *wal = offset == WRITE_LOCK ? db->wal : NULL;
  if (wal && flags & SQLITE_SHM_UNLOCK) end_transaction(wal);
  int rc = db->inner->xShmLock(file, offset, n, flags);
  if (wal && flags & SQLITE_SHM_LOCK) wal->locked = rc == SQLITE_OK;
  return rc;
}

/* ---- writing ---- */

static int note_failure(wal_file *f, int rc) {
  if (f->locked && rc != SQLITE_OK) f->failed = rc;
  return rc;
}

static int write_out(sqlite3_file *file, const void *bytes, int n, sqlite3_int64 at) {
  wal_file *f = wal_of(file);
  return note_failure(f, f->inner->xWrite(file, bytes, n, at));
}

/* Where it fails, the bytes stay, for reading. */
static int flush(sqlite3_file *file) {
  wal_file *f = wal_of(file);
  if (f->failed != SQLITE_OK || f->n == 0) return f->failed;
  int rc = write_out(file, f->buffer, f->n, f->at);
  if (rc == SQLITE_OK) f->n = 0;
  return rc;
}

/* Drops what the buffer has from `at` on. */
static void cut(wal_file *f, sqlite3_int64 at) {
  if (at < f->at + f->n) f->n = at > f->at ? (int)(at - f->at) : 0;
}

static int gather(sqlite3_file *file, const void *bytes, int n, sqlite3_int64 at) {
  wal_file *f = wal_of(file);
  if (n == HEADER) cut(f, at);
  if (f->n && at + n <= f->at) return write_out(file, bytes, n, at);
  if (f->n == 0 || at < f->at || at > f->at + f->n || at - f->at + n > BUFFER) {
    int rc = flush(file);
    if (rc != SQLITE_OK) return rc;
    f->at = at;
  }
  int from = (int)(at - f->at);
  memcpy(f->buffer + from, bytes, (size_t)n);
  if (f->n < from + n) f->n = from + n;
  return SQLITE_OK;
}

static int put(sqlite3_file *file, const void *bytes, int n, sqlite3_int64 at) {
  static const uint8_t GOES_ON[4];
  wal_file *f = wal_of(file);
  if (f->failed != SQLITE_OK) return f->failed;
  if (!f->locked || !f->buffer || f->through || n > BUFFER) {
    int rc = flush(file);
    return rc == SQLITE_OK ? write_out(file, bytes, n, at) : rc;
  }
  int rc = gather(file, bytes, n, at);
  f->through = n == HEADER && memcmp((const uint8_t *)bytes + ENDS_COMMIT, GOES_ON, 4) != 0;
  return rc == SQLITE_OK && f->through ? flush(file) : rc;
}

/* Behind the commit that ends at `end`. What fails here is left to the writes to come. */
static void grow(sqlite3_file *file, sqlite3_int64 end) {
  static const uint8_t ZEROS[BUFFER];
  wal_file *f = wal_of(file);
  if (f->inner->xFileSize(file, &f->size) != SQLITE_OK || f->size > end) return;
  f->size = end;
  for (int rc = SQLITE_OK; rc == SQLITE_OK && f->size < end + SPARE;) {
    rc = f->inner->xWrite(file, ZEROS, BUFFER, f->size);
    if (rc == SQLITE_OK) f->size += BUFFER;
  }
}

static int wal_write(sqlite3_file *file, const void *bytes, int n, sqlite3_int64 at) {
  wal_file *f = wal_of(file);
  int rc = put(file, bytes, n, at);
  f->since += n;
  if (rc != SQLITE_OK || !f->through || n == HEADER) return rc;
  f->synced = !f->is_synced ? 0 : f->synced < ALWAYS ? f->synced + 1 : ALWAYS;
  if (f->synced == ALWAYS && f->since <= BUFFER && at + n > f->size) grow(file, at + n);
  f->is_synced = 0;
  f->since = 0;
  return SQLITE_OK;
}

static int wal_sync(sqlite3_file *file, int flags) {
  wal_file *f = wal_of(file);
  int rc = flush(file);
  if (rc == SQLITE_OK) rc = note_failure(f, f->inner->xSync(file, flags));
  f->is_synced = rc == SQLITE_OK;
  return rc;
}

/* ---- the rest, which writes nothing ---- */

static int wal_read(sqlite3_file *file, void *out, int n, sqlite3_int64 at) {
  const wal_file *f = wal_of(file);
  sqlite3_int64 end = f->at + f->n;
  if (f->n == 0 || at >= end || at + n <= f->at) return f->inner->xRead(file, out, n, at);
  int before = at < f->at ? (int)(f->at - at) : 0, behind = at + n > end ? (int)(at + n - end) : 0;
  uint8_t *to = out;
  memcpy(to + before, f->buffer + (at + before - f->at), (size_t)(n - before - behind));
  int rc = before ? f->inner->xRead(file, to, before, at) : SQLITE_OK;
  int rest = behind ? f->inner->xRead(file, to + n - behind, behind, end) : SQLITE_OK;
  return rc == SQLITE_OK ? rest : rc;
}

static int wal_size(sqlite3_file *file, sqlite3_int64 *size) {
  const wal_file *f = wal_of(file);
  int rc = f->inner->xFileSize(file, size);
  if (rc == SQLITE_OK && f->n && *size < f->at + f->n) *size = f->at + f->n;
  return rc;
}

static int wal_truncate(sqlite3_file *file, sqlite3_int64 size) {
  wal_file *f = wal_of(file);
  cut(f, size);
  f->size = 0;
  return f->inner->xTruncate(file, size);
}

static int wal_close(sqlite3_file *file) {
  wal_file *f = wal_of(file);
  if (f->db) f->db->wal = NULL;
  sqlite3_free(f->buffer);
  return f->inner->xClose(file);
}

/* ---- the VFS ---- */

static sqlite3_vfs ours;         /* a copy of the default one, but for the name and xOpen */
static sqlite3_vfs *default_vfs; /* as of that */

static size_t inner_size(void) {
  return ((size_t)default_vfs->szOsFile + 7) / 8 * 8;
}

static void take_db(sqlite3_file *file, db_file *db) {
  *db = (db_file){.methods = *file->pMethods, .inner = file->pMethods};
  if (db->methods.iVersion < 2) return; /* no shared memory */
  db->methods.xShmLock = db_shm_lock;
  file->pMethods = &db->methods;
}

static void take_wal(sqlite3_file *file, wal_file *f, sqlite3_file *db) {
  *f = (wal_file){.methods = *file->pMethods, .inner = file->pMethods};
  f->methods.iVersion = 1; /* shared memory and mappings are the database file's */
  f->methods.xClose = wal_close;
  f->methods.xRead = wal_read;
  f->methods.xWrite = wal_write;
  f->methods.xTruncate = wal_truncate;
  f->methods.xSync = wal_sync;
  f->methods.xFileSize = wal_size;
  file->pMethods = &f->methods;
  if (db->pMethods->iVersion < 2 || db->pMethods->xShmLock != db_shm_lock) return;
  f->db = db_of(db);
  f->db->wal = f;
  /* Without this property SQLite parts the writes at the ends of sectors, headers and all. */
  if (f->inner->xDeviceCharacteristics(file) & SQLITE_IOCAP_POWERSAFE_OVERWRITE)
    f->buffer = sqlite3_malloc64(BUFFER);
}

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
  (void)vfs;
  int is_new = (flags & SQLITE_OPEN_URI) && sqlite3_uri_boolean(name, "exclusive", 0);
  if (is_new) flags |= SQLITE_OPEN_EXCLUSIVE; /* for backup.c: what SQLite passes on only here */
  int rc = default_vfs->xOpen(default_vfs, name, file, flags, out);
  void *behind = (uint8_t *)file + inner_size();
  if (rc != SQLITE_OK) return rc;
  if (flags & SQLITE_OPEN_MAIN_DB) take_db(file, behind);
  if (flags & SQLITE_OPEN_WAL) take_wal(file, behind, sqlite3_database_file_object(name));
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
    ours.szOsFile = (int)(inner_size() + sizeof(wal_file));
    ours.xOpen = open_file;
    rc = sqlite3_vfs_register(&ours, 0);
  }
  sqlite3_mutex_leave(mutex);
  return rc == SQLITE_OK ? VFS_NAME : NULL;
}

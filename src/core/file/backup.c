/* backup.c - copies the database as one snapshot shows it, while others write.
 *
 * SQLite's online backup starts again whenever another connection has written, unless its source
 * holds a read transaction: so it copies from a reader that holds one (replic_reader_hold).
 *
 * Beside the target T lie, as long as it takes:
 *   T-backup   the copy. It becomes T by being renamed, which happens whole or not at all
 *   T-replic   locked, so that no Replica opens T, and no second backup goes there
 * What belongs to an earlier file at T must not outlive it: SQLite would take a T-wal or T-journal
 * for the new one's, and a T-replic would let the copy go on under a peerId that is in use. So that
 * no crash meets half of that, SQLite itself first brings the earlier file to rest (a WAL goes into
 * the file, a journal is rolled back), T-replic is emptied, and only then T is replaced. The copy
 * has no witness, so whoever opens it goes on as a new peer (identity.c). */
#include <string.h>

#include "file/file.h"

struct replic__backup {
  sqlite3 *copy; /* NULL: not open */
  sqlite3_backup *copying;
  char *path;                        /* T, as SQLite resolves it */
  const char *copy_name, *lock_name; /* of sqlite3_create_filename */
  int all_copied;
  int locked, lock_is_new; /* T-replic: by this backup; there was none before */
  int claim;               /* the same lock, of replic__claim */
  sqlite3_file *lock;      /* the last member's room */
};

/* ---- names ---- */

static const char *beside(const char *path, const char *suffix) {
  char *name = sqlite3_mprintf("%s%s", path, suffix);
  const char *made = name ? sqlite3_create_filename(name, "", "", 0, NULL) : NULL;
  sqlite3_free(name);
  return made;
}

/* One path for all spellings, symbolic links resolved. */
static int resolve(replic_reader *reader, const char *path, char **out) {
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  size_t size = (size_t)vfs->mxPathname + 1;
  *out = sqlite3_malloc64(size);
  if (!*out) return replic__reader_fail_db(reader, SQLITE_NOMEM);
  int rc = vfs->xFullPathname(vfs, path, (int)size, *out);
  if (rc == SQLITE_OK || rc == SQLITE_OK_SYMLINK) return REPLIC_OK;
  return replic__reader_fail(reader, rc, "%s: this is no path for a file (%s)", path,
                             sqlite3_errstr(rc));
}

/* Is `path` the database itself, or a file that belongs to it? */
static int is_own(const replic_reader *reader, const char *path) {
  static const char *const SUFFIXES[] = {"", "-wal", "-shm", "-journal", "-replic"};
  const char *own = sqlite3_db_filename(reader->db, "main");
  size_t len = strlen(own);
  if (strncmp(path, own, len) != 0) return 0;
  for (size_t i = 0; i < sizeof SUFFIXES / sizeof *SUFFIXES; i++)
    if (strcmp(path + len, SUFFIXES[i]) == 0) return 1;
  return 0;
}

/* ---- what is at the target ---- */

static int exists(const char *name) {
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  int found = 0; /* not, if it cannot be told: then opening or renaming fails, and says why */
  return vfs->xAccess(vfs, name, SQLITE_ACCESS_EXISTS, &found) == SQLITE_OK && found;
}

static int lock_target(replic_reader *reader, replic__backup *b) {
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  sqlite3_file *file = b->lock;
  const int locks[] = {SQLITE_LOCK_SHARED, SQLITE_LOCK_RESERVED, SQLITE_LOCK_EXCLUSIVE};
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MAIN_DB;
  b->lock_is_new = !exists(b->lock_name);
  int rc = vfs->xOpen(vfs, b->lock_name, file, flags, NULL);
  if (rc != SQLITE_OK)
    return replic__reader_fail(reader, rc,
                               "the backup cannot be written to %s (%s): the folder must exist "
                               "and be writable",
                               b->path, sqlite3_errstr(rc));
  for (size_t i = 0; rc == SQLITE_OK && i < sizeof locks / sizeof *locks; i++)
    rc = file->pMethods->xLock(file, locks[i]);
  if (rc == SQLITE_OK) rc = replic__claim(b->lock_name, &b->claim);
  b->locked = rc == SQLITE_OK;
  if (b->locked) return REPLIC_OK;
  if ((rc & 0xff) == SQLITE_BUSY)
    return replic__reader_fail(reader, REPLIC_ELOCKED,
                               "%s is open in a Replica, or another backup is being written there: "
                               "close it, wait, or choose another path",
                               b->path);
  return replic__reader_fail(reader, rc, "%s: cannot be locked (%s)", b->lock_name,
                             sqlite3_errstr(rc));
}

/* A file at the target is brought to rest, so that it is whole without -wal and -journal. */
static int settle_target(replic_reader *reader, const replic__backup *b) {
  /* -shm first: where another program has the file open, nothing must be deleted */
  static const char *const SUFFIXES[] = {"-shm", "-wal", "-journal"};
  int replaces = exists(b->path), rc = REPLIC_OK;
  if (replaces) {
    sqlite3 *db;
    rc = sqlite3_open_v2(b->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc == SQLITE_OK)
      rc = sqlite3_exec(db, "SELECT count(*) FROM main.sqlite_schema", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
      replic__reader_fail(reader, rc,
                          "%s is there and cannot be replaced (%s): a backup replaces SQLite "
                          "databases only, and only such that nobody has open",
                          b->path, db ? sqlite3_errmsg(db) : "out of memory");
    sqlite3_close(db);
  }
  for (size_t i = 0; rc == REPLIC_OK && i < sizeof SUFFIXES / sizeof *SUFFIXES; i++) {
    const char *name = beside(b->path, SUFFIXES[i]);
    if (!name) return replic__reader_fail_db(reader, SQLITE_NOMEM);
    if (replaces && exists(name))
      rc = replic__reader_fail(reader, SQLITE_BUSY,
                               "%s is open in another program, as %s shows: close it there, or "
                               "delete both files",
                               b->path, name);
    else
      sqlite3_vfs_find(NULL)->xDelete(sqlite3_vfs_find(NULL), name, 0);
    sqlite3_free_filename(name);
  }
  return rc;
}

/* ---- the steps ---- */

static void append_escaped(sqlite3_str *out, const char *text) {
  static const char PLAIN[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-";
  for (; *text; text++) {
    int is_plain = strchr(PLAIN, *text) != NULL;
    sqlite3_str_appendf(out, is_plain ? "%c" : "%%%02X", (unsigned char)*text);
  }
}

/* The copy has the mode of the source from its first byte, as nobody may read there who may not
 * read here. It is new: what lies at its name, or is a link to elsewhere, is never written to
 * (wal_file.c: O_EXCL | O_NOFOLLOW). */
static char *uri_of_copy(const replic_reader *reader, const replic__backup *b) {
  sqlite3_str *out = sqlite3_str_new(NULL);
  sqlite3_str_appendall(out, "file:");
  append_escaped(out, b->copy_name);
  sqlite3_str_appendall(out, "?exclusive=1&modeof=");
  append_escaped(out, sqlite3_db_filename(reader->db, "main"));
  return sqlite3_str_finish(out);
}

static int open_copy(replic_reader *reader, replic__backup *b) {
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
              SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_URI;
  char *uri = uri_of_copy(reader, b);
  sqlite3_vfs_find(NULL)->xDelete(sqlite3_vfs_find(NULL), b->copy_name,
                                  0); /* of one that crashed */
  int rc = uri ? sqlite3_open_v2(uri, &b->copy, flags, replic__wal_vfs()) : SQLITE_NOMEM;
  sqlite3_free(uri);
  /* There is no earlier state to go back to; one sync, at the end. */
  if (rc == SQLITE_OK)
    rc = sqlite3_exec(b->copy, "PRAGMA journal_mode = OFF; PRAGMA synchronous = FULL", NULL, NULL,
                      NULL);
  if (rc == SQLITE_OK) b->copying = sqlite3_backup_init(b->copy, "main", reader->db, "main");
  if (b->copying) return REPLIC_OK;
  if (rc == SQLITE_OK) rc = sqlite3_extended_errcode(b->copy);
  return replic__reader_fail(reader, rc, "%s: cannot be written (%s)", b->copy_name,
                             b->copy ? sqlite3_errmsg(b->copy) : sqlite3_errstr(rc));
}

int replic_reader_backup(replic_reader *reader, const char *path, const char **copy) {
  if (reader->backup || sqlite3_get_autocommit(reader->db))
    return replic__reader_fail(reader, REPLIC_EUSAGE, "a backup needs a held reader of its own");
  size_t size = sizeof(replic__backup), lock_size = (size_t)sqlite3_vfs_find(NULL)->szOsFile;
  replic__backup *b = sqlite3_malloc64(size + lock_size);
  if (!b) return replic__reader_fail_db(reader, SQLITE_NOMEM);
  memset(b, 0, size + lock_size);
  b->lock = (sqlite3_file *)(b + 1);
  b->claim = -1;
  reader->backup = b;
  int rc = resolve(reader, path, &b->path);
  if (rc == REPLIC_OK && is_own(reader, b->path))
    rc = replic__reader_fail(reader, REPLIC_EUSAGE,
                             "%s belongs to the database itself: choose another path", b->path);
  if (rc == REPLIC_OK) {
    b->copy_name = beside(b->path, "-backup");
    b->lock_name = beside(b->path, "-replic");
    if (!b->copy_name || !b->lock_name) rc = replic__reader_fail_db(reader, SQLITE_NOMEM);
  }
  if (rc == REPLIC_OK) rc = lock_target(reader, b);
  if (rc == REPLIC_OK) rc = settle_target(reader, b);
  if (rc == REPLIC_OK) rc = open_copy(reader, b);
  if (rc != REPLIC_OK) replic__backup_drop(reader);
  *copy = rc == REPLIC_OK ? b->copy_name : NULL;
  return rc;
}

static int fail_copy(replic_reader *reader, int code) {
  return replic__reader_fail(reader, code, "the backup cannot be written to %s (%s)",
                             reader->backup->path, sqlite3_errstr(code));
}

int replic_reader_copy(replic_reader *reader, int max_pages, int64_t *total, int64_t *remaining) {
  replic__backup *b = reader->backup;
  if (!b || !b->copying)
    return replic__reader_fail(reader, REPLIC_EUSAGE, "no backup is under way");
  int rc = sqlite3_backup_step(b->copying, max_pages);
  if (rc != SQLITE_OK && rc != SQLITE_DONE) return fail_copy(reader, rc);
  b->all_copied = rc == SQLITE_DONE;
  *total = sqlite3_backup_pagecount(b->copying);
  *remaining = sqlite3_backup_remaining(b->copying);
  return REPLIC_OK;
}

int replic_reader_copied(replic_reader *reader, const char **from, const char **to) {
  replic__backup *b = reader->backup;
  if (!b || !b->copying || !b->all_copied)
    return replic__reader_fail(reader, REPLIC_EUSAGE, "the backup is not complete");
  int rc = sqlite3_backup_finish(b->copying);
  b->copying = NULL;
  if (rc == SQLITE_OK) rc = sqlite3_close(b->copy);
  if (rc != SQLITE_OK) return fail_copy(reader, rc);
  b->copy = NULL;
  rc = settle_target(reader, b);
  if (rc != REPLIC_OK) return rc;
  rc = b->lock->pMethods->xTruncate(b->lock, 0);
  if (rc == SQLITE_OK) rc = b->lock->pMethods->xSync(b->lock, SQLITE_SYNC_NORMAL);
  *from = b->copy_name;
  *to = b->path;
  return rc == SQLITE_OK ? REPLIC_OK : fail_copy(reader, rc);
}

void replic_reader_backed_up(replic_reader *reader) {
  reader->backup->lock_is_new =
      1; /* goes, whoever made it; that syncs the folder, and the rename */
  replic__backup_drop(reader);
}

void replic__backup_drop(replic_reader *reader) {
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  replic__backup *b = reader->backup;
  if (!b) return;
  sqlite3_backup_finish(b->copying);
  sqlite3_close(b->copy);
  if (b->locked) { /* else both files are another's */
    vfs->xDelete(vfs, b->copy_name, 0);
    if (b->lock_is_new) vfs->xDelete(vfs, b->lock_name, 1);
  }
  if (b->lock->pMethods) {
    b->lock->pMethods->xUnlock(b->lock, SQLITE_LOCK_NONE);
    b->lock->pMethods->xClose(b->lock);
  }
  replic__unclaim(&b->claim);
  sqlite3_free_filename(b->lock_name);
  sqlite3_free_filename(b->copy_name);
  sqlite3_free(b->path);
  sqlite3_free(b);
  reader->backup = NULL;
}

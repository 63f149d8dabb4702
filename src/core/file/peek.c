/* peek.c - reads a database file where nothing can be written: a read-only medium or mount, a
 * folder or file of somebody else's.
 *
 * SQLite reads a file in WAL mode with the help of -shm, and makes that where it is missing. Where
 * it cannot, what is possible depends on what lies there: -shm            SQLite itself reads with
 * it, and without writing to it -wal, no -shm   nobody has the file open (who has it keeps -shm).
 * Its WAL is read with an index in memory: SQLite has that for a connection that is the only one,
 * and a VFS that takes no locks lets a file be locked so which is open for reading only neither all
 * is in the file, which is read as one that does not change So this is for looking at a file once,
 * not for a connection that stays. */
#include <string.h>

#include "file/file.h"

static int exists_beside(const char *path, const char *suffix, int *out) {
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  char *name = sqlite3_mprintf("%s%s", path, suffix);
  *out = 0;
  int rc = name ? vfs->xAccess(vfs, name, SQLITE_ACCESS_EXISTS, out) : SQLITE_NOMEM;
  sqlite3_free(name);
  return rc;
}

/* "file:<path>?immutable=1", with all but the plainest characters of the path as %XX. */
static char *immutable_uri(const char *path) {
  sqlite3_str *uri = sqlite3_str_new(NULL);
  sqlite3_str_appendall(uri, "file:");
  for (const unsigned char *at = (const unsigned char *)path; *at; at++)
    if (*at == '/' || (*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9'))
      sqlite3_str_appendchar(uri, 1, (char)*at);
    else
      sqlite3_str_appendf(uri, "%%%02X", *at);
  sqlite3_str_appendall(uri, "?immutable=1");
  return sqlite3_str_finish(uri);
}

static int open_immutable(replic_reader *reader, const char *path) {
  char *uri = immutable_uri(path);
  int rc = uri ? replic__reader_connect(reader, uri, SQLITE_OPEN_URI, NULL) : SQLITE_NOMEM;
  sqlite3_free(uri);
  return rc == SQLITE_NOMEM ? replic__reader_fail_db(reader, rc) : rc;
}

static int open_alone(replic_reader *reader, const char *path) {
  char *vfs = sqlite3_mprintf("%s-none", sqlite3_vfs_find(NULL)->zName);
  int rc = vfs ? replic__reader_connect(reader, path, 0, vfs) : SQLITE_NOMEM;
  sqlite3_free(vfs);
  if (rc == SQLITE_NOMEM) return replic__reader_fail_db(reader, rc);
  if (rc != REPLIC_OK) return rc;
  /* where -wal could be written after all, closing would move it into the file */
  sqlite3_db_config(reader->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  reader->trusted = 1;
  rc = sqlite3_exec(reader->db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL);
  reader->trusted = 0;
  return rc == SQLITE_OK ? REPLIC_OK : replic__reader_fail_db(reader, rc);
}

static int look(replic_reader *reader) {
  int rc = sqlite3_exec(reader->db, "SELECT 1 FROM main.sqlite_schema", NULL, NULL, NULL);
  return rc == SQLITE_OK ? REPLIC_OK : replic__reader_fail_db(reader, rc);
}

static int needs_to_write(int code) {
  return (code & 0xff) == SQLITE_CANTOPEN || (code & 0xff) == SQLITE_READONLY;
}

int replic_reader_peek(const char *path, replic_reader **out) {
  int has_shm, has_wal;
  int rc = replic_reader_open(path, out);
  if (rc == REPLIC_OK) rc = look(*out);
  if (!needs_to_write(rc)) return rc;
  if (exists_beside(path, "-shm", &has_shm) || has_shm) return rc;
  if (exists_beside(path, "-wal", &has_wal)) return rc;
  rc = has_wal ? open_alone(*out, path) : open_immutable(*out, path);
  return rc == REPLIC_OK ? look(*out) : rc;
}

/* lock.c - <file>-replic: the lock, and the witness that a peerId belongs to one history.
 *
 * The file is opened and locked through SQLite's own VFS, which knows how to lock between processes
 * and between two connections of one process alike, and once more as claim.c says. It holds 24
 * bytes, little-endian:
 *
 *   0 … 7    "REPLICID"
 *   8 … 11   peerId
 *   12 … 15  zero
 *   16 … 23  the last sequence issued
 *
 * A new peerId is written before the commit that keeps it, and synced; the sequence after each
 * commit, without a sync. So it may lag behind the database, and leads it only where the database
 * was taken back to an earlier state. */
#include <string.h>

#include "file/file.h"
#include "state.h"

#define WITNESS_LEN 24

static uint64_t read_le(const unsigned char *at, int n) {
  uint64_t value = 0;
  while (n--) value = value << 8 | at[n];
  return value;
}

static void write_le(unsigned char *at, int n, uint64_t value) {
  for (int i = 0; i < n; i++, value >>= 8) at[i] = (unsigned char)(value & 0xff);
}

int replic__lock_open(replic *r) {
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  /* the path as SQLite resolved it, so that two spellings of one file meet at one lock */
  const char *main_path = sqlite3_db_filename(r->db, "main");
  char *path = sqlite3_mprintf("%s-replic", main_path);
  replic__identity *id = sqlite3_malloc64(sizeof *id + (size_t)vfs->szOsFile);
  if (!path || !id) goto no_memory;
  memset(id, 0, sizeof *id + (size_t)vfs->szOsFile);
  id->claim = -1;
  id->name = sqlite3_create_filename(path, "", "", 0, NULL);
  if (!id->name) goto no_memory;
  sqlite3_free(path);
  r->identity = id;

  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MAIN_DB, opened = flags;
  int rc = vfs->xOpen(vfs, id->name, id->file, flags, &opened);
  if (rc == SQLITE_OK && (opened & SQLITE_OPEN_READONLY)) rc = SQLITE_READONLY;
  if (rc != SQLITE_OK)
    return replic__fail(r, rc, "%s: cannot be opened (%s); its folder must be writable", id->name,
                        sqlite3_errstr(rc));
  const int locks[] = {SQLITE_LOCK_SHARED, SQLITE_LOCK_RESERVED, SQLITE_LOCK_EXCLUSIVE};
  for (size_t i = 0; rc == SQLITE_OK && i < sizeof locks / sizeof *locks; i++)
    rc = id->file->pMethods->xLock(id->file, locks[i]);
  if (rc == SQLITE_OK) rc = replic__claim(id->name, &id->claim);
  if ((rc & 0xff) == SQLITE_BUSY)
    return replic__fail(r, REPLIC_ELOCKED,
                        "%s is open in another Replica, in this process or another one: close that "
                        "one first, share it "
                        "within the process, or give this process a file and a link of its own",
                        main_path);
  if (rc != SQLITE_OK)
    return replic__fail(r, rc, "%s: cannot be locked (%s)", id->name, sqlite3_errstr(rc));

  unsigned char bytes[WITNESS_LEN];
  rc = id->file->pMethods->xRead(id->file, bytes, WITNESS_LEN, 0);
  if (rc == SQLITE_OK && memcmp(bytes, "REPLICID", 8) == 0) {
    id->peer_id = (uint32_t)read_le(bytes + 8, 4);
    id->sequence = (int64_t)read_le(bytes + 16, 8);
  } else if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) {
    return replic__fail(r, rc, "%s: cannot be read (%s)", id->name, sqlite3_errstr(rc));
  }
  return REPLIC_OK;

no_memory:
  sqlite3_free(path);
  sqlite3_free(id);
  return SQLITE_NOMEM;
}

/* Sequence 0 goes first: if the next write is torn, the witness must not be ahead of the database.
 */
int replic__witness_write(replic__identity *id, uint32_t peer_id, int64_t sequence) {
  unsigned char bytes[WITNESS_LEN] = "REPLICID";
  write_le(bytes + 8, 4, peer_id);
  write_le(bytes + 16, 8, (uint64_t)sequence);
  int rc = SQLITE_OK, is_new = id->peer_id != peer_id;
  if (is_new) rc = id->file->pMethods->xWrite(id->file, "\0\0\0\0\0\0\0", 8, 16);
  if (rc == SQLITE_OK) rc = id->file->pMethods->xWrite(id->file, bytes, WITNESS_LEN, 0);
  if (rc == SQLITE_OK && is_new) rc = id->file->pMethods->xSync(id->file, SQLITE_SYNC_NORMAL);
  if (rc != SQLITE_OK) return rc;
  id->peer_id = peer_id;
  id->sequence = sequence;
  return SQLITE_OK;
}

void replic__lock_close(replic *r) {
  replic__identity *id = r->identity;
  if (!id) return;
  if (id->file->pMethods) {
    id->file->pMethods->xUnlock(id->file, SQLITE_LOCK_NONE);
    id->file->pMethods->xClose(id->file);
  }
  replic__unclaim(&id->claim);
  sqlite3_free_filename(id->name);
  sqlite3_free(id);
  r->identity = NULL;
}

/* identity.c - <file>-replic: the lock, and the witness that a peerId belongs to one history
 * (DESIGN §3).
 *
 * The file is opened and locked through SQLite's own VFS, which knows how to lock between processes
 * and between two connections of one process alike, and once more as claim.c says. It holds 24
 * bytes, little-endian: 0 … 7   "REPLICID" 8 … 11  peerId 12 … 15  zero 16 … 23  the last sequence
 * issued A new peerId is written before the commit that keeps it, and synced; the sequence after
 * each commit, without a sync. So it may lag behind the database, and leads it only where the
 * database was taken back to an earlier state. At open: no witness, or another peerId in it   the
 * file was copied or moved: goes on as a new peer witness ahead of the database         a backup
 * was restored:        goes on as a new peer A peerId that the application fixed cannot be changed,
 * so then both are REPLIC_RESTORED. */
#include <string.h>

#include "core.h"

#define WITNESS_LEN 24

struct replic__identity {
  const char *name; /* sqlite3_create_filename */
  uint32_t peer_id; /* 0: no witness */
  int64_t sequence;
  int claim;            /* of replic__claim */
  sqlite3_file file[1]; /* szOsFile bytes follow */
};

static uint64_t read_le(const unsigned char *at, int n) {
  uint64_t value = 0;
  while (n--) value = value << 8 | at[n];
  return value;
}

static void write_le(unsigned char *at, int n, uint64_t value) {
  for (int i = 0; i < n; i++, value >>= 8) at[i] = (unsigned char)(value & 0xff);
}

int replic__identity_open(replic *r) {
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

int replic__identity_settle(replic *r) {
  const replic__identity *id = r->identity;
  uint32_t wanted = r->config.peer_id;
  int64_t kept;
  int rc = replic__int(r, "SELECT value FROM main._replic_meta WHERE key = 'peerId'", &kept);
  if (rc != REPLIC_OK) return rc;
  uint32_t stored = (uint32_t)kept, self = wanted ? wanted : stored;
  int64_t issued = self ? replic__vector_sequence(r, self) : 0;
  int restored = self && id->peer_id == self && id->sequence > issued;
  int copied = self && self == stored && id->peer_id != self;

  if (wanted && restored)
    return replic__fail(
        r, REPLIC_ERESTORED,
        "%s holds %lld patches of peer %u, which has issued %lld: it was restored from a backup. "
        "Open it "
        "without peerId or with a new one; the lost patches come back from the other peers",
        r->path, issued, self, id->sequence);
  if (wanted && copied)
    return replic__fail(
        r, REPLIC_ERESTORED,
        "%s belongs to peer %u, but %s does not: the file was copied or moved without it. Open it "
        "without peerId or with a new one, or move both files together",
        r->path, self, id->name);
  if (wanted && wanted != stored && issued)
    return replic__fail(r, REPLIC_ERESTORED,
                        "%s already holds patches of a peer %u, which is not the one it was "
                        "written by (%u): choose a "
                        "peerId that was never used",
                        r->path, wanted, stored);
  r->peer_id = wanted ? wanted : stored && !restored && !copied ? stored : r->config.new_peer_id;
  r->is_new_peer = stored && r->peer_id != stored;
  /* a crash may have left the witness of the new peerId beside the database of the old one */
  int moved = id->peer_id != stored && id->peer_id != wanted;
  int behind = id->peer_id == stored && id->sequence > replic__vector_sequence(r, stored);
  r->yields = r->is_new_peer && wanted && !moved && !behind;
  if (!r->peer_id)
    return replic__fail(r, REPLIC_EUSAGE, "a new peerId is needed, and none was given");
  if (!replic__vector_entry(r, r->peer_id)) return SQLITE_NOMEM;
  if (r->peer_id == stored) return REPLIC_OK;
  char *sql = sqlite3_mprintf(
      "INSERT OR REPLACE INTO main._replic_meta(key, value) VALUES('peerId', %u)", r->peer_id);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

int replic__identity_witness(replic *r) {
  replic__identity *id = r->identity;
  int64_t issued = replic__vector_entry(r, r->peer_id)->committed.sequence;
  if (id->peer_id == r->peer_id && id->sequence == issued) return REPLIC_OK;
  unsigned char bytes[WITNESS_LEN] = "REPLICID";
  write_le(bytes + 8, 4, r->peer_id);
  write_le(bytes + 16, 8, (uint64_t)issued);
  int rc = SQLITE_OK;
  if (id->peer_id != r->peer_id) /* should the next write end in its midst: no sequence is led */
    rc = id->file->pMethods->xWrite(id->file, "\0\0\0\0\0\0\0", 8, 16);
  if (rc == SQLITE_OK) rc = id->file->pMethods->xWrite(id->file, bytes, WITNESS_LEN, 0);
  if (rc == SQLITE_OK && id->peer_id != r->peer_id)
    rc = id->file->pMethods->xSync(id->file, SQLITE_SYNC_NORMAL);
  if (rc != SQLITE_OK) { /* lagging is allowed; the next commit or the close tries again */
    replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = rc},
                  "%s: cannot be written (%s)", id->name, sqlite3_errstr(rc));
    if (id->peer_id == r->peer_id) return REPLIC_OK;
    return replic__fail(r, rc, "%s: cannot be written (%s)", id->name, sqlite3_errstr(rc));
  }
  id->peer_id = r->peer_id;
  id->sequence = issued;
  return REPLIC_OK;
}

void replic__identity_leave(replic *r) {
  if (r->identity && r->identity->peer_id == r->peer_id && r->peer_id && !r->gone)
    replic__identity_witness(r);
}

void replic__identity_close(replic *r) {
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

/* checkpoint.c - what the WAL holds goes into the database file, while the writing goes on.
 *
 * SQLite makes its checkpoints in the commit that makes the WAL long: that one then waits for the
 * disk twice. Here the caller has them made on a thread and a connection of its own, and
 *
 *   1. a checkpointer moves what is in the WAL when it begins (SQLite's PASSIVE: it stops before
 *      what a reader still needs, and waits for nobody), and syncs the file
 *   2. meanwhile the writer has added to the WAL; when that is little, it moves it itself, between
 *      two batches. Now all of the WAL is in the file, so the next commit begins it anew
 *
 * Nothing of what SQLite does for durability is left out: it syncs the WAL before the first page
 * goes into the file, and the file before the WAL begins anew. A crash at any point leaves a WAL
 * that says everything. As with SQLite's own, a checkpoint that fails is no failure of a call: what
 * it has not moved stays in the WAL, and it is tried again. */
#include <string.h>

#include "file/file.h"
#include "state.h"

enum { HEADER = 32, FRAME_HEADER = 24 }; /* https://sqlite.org/fileformat2.html#walformat */

struct replic_checkpointer {
  sqlite3 *db;
  int page_size;
  int moved; /* frames, as of the last run */
};

static int64_t bytes_of(int64_t frames, int64_t page_size) {
  return frames > 0 ? HEADER + frames * (FRAME_HEADER + page_size) : 0;
}

/* ---- the writing connection ---- */

int replic__limit_wal(replic *r) {
  int rc = replic__int(r, "SELECT page_size FROM pragma_page_size", &r->page_size);
  if (rc != REPLIC_OK) return rc;
  char *sql =
      sqlite3_mprintf("PRAGMA wal_autocheckpoint = %lld; PRAGMA main.journal_size_limit = %d",
                      REPLIC_WAL_LONG / (FRAME_HEADER + r->page_size), REPLIC_WAL_MOST);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

static int note_frames(void *ctx, sqlite3 *db, const char *name, int frames) {
  (void)db, (void)name;
  ((replic *)ctx)->wal_frames = frames;
  return SQLITE_OK;
}

void replic__checkpoint_by_caller(replic *r) {
  sqlite3_wal_hook(r->db, note_frames, r); /* in the place of SQLite's own, which checkpoints */
}

int64_t replic_wal_bytes(const replic *r) {
  return bytes_of(r->wal_frames, r->page_size);
}

void replic_checkpoint(replic *r, int wait_ms) {
  int mode = wait_ms > 0 ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE;
  if (r->in_batch || replic__claims_look(r, 1) != REPLIC_OK) return;
  sqlite3_busy_timeout(r->db, wait_ms); /* of which PASSIVE makes no use */
  sqlite3_wal_checkpoint_v2(r->db, "main", mode, NULL, NULL);
  sqlite3_busy_timeout(r->db, 0);
}

/* ---- the other one ---- */

/* Also the read that tells SQLite that there is a WAL. */
static int read_page_size(replic_checkpointer *c) {
  static const char SQL[] = "SELECT max(page_size) FROM pragma_page_size, main.sqlite_schema";
  sqlite3_stmt *stmt = NULL;
  int rc = sqlite3_prepare_v3(c->db, SQL, -1, 0, &stmt, NULL);
  if (rc == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW)
    c->page_size = sqlite3_column_int(stmt, 0);
  return rc == SQLITE_OK ? sqlite3_finalize(stmt) : rc;
}

int replic_checkpointer_open(const char *path, replic_checkpointer **out) {
  replic_checkpointer *c = *out = sqlite3_malloc64(sizeof *c);
  if (!c) return SQLITE_NOMEM;
  memset(c, 0, sizeof *c);
  int rc = sqlite3_open_v2(
      path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
  /* should the path be another file's by now: what is in our WAL is not for that */
  if (rc == SQLITE_OK) sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  return rc == SQLITE_OK ? read_page_size(c) : rc;
}

int replic_checkpointer_run(replic_checkpointer *c, int64_t *bytes, int64_t *moved) {
  int in_wal = 0, in_file = 0;
  sqlite3_file *file = NULL;
  int rc = sqlite3_wal_checkpoint_v2(c->db, "main", SQLITE_CHECKPOINT_PASSIVE, &in_wal, &in_file);
  /* SQLite syncs the file only where nothing was added to the WAL meanwhile. The writer, when it
   * moves the rest, shall find little to sync. */
  if (rc == SQLITE_OK && in_file > 0 && in_file != c->moved)
    rc = sqlite3_file_control(c->db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
  if (rc == SQLITE_OK && file) rc = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
  if (rc == SQLITE_OK) c->moved = in_file;
  *bytes = bytes_of(in_wal, c->page_size);
  *moved = rc == SQLITE_OK ? bytes_of(in_file, c->page_size) : 0;
  return rc;
}

void replic_checkpointer_interrupt(replic_checkpointer *c) {
  if (c->db) sqlite3_interrupt(c->db);
}

void replic_checkpointer_close(replic_checkpointer *c) {
  if (!c) return;
  sqlite3_close(c->db);
  sqlite3_free(c);
}

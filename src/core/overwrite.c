/* overwrite.c - what somebody has written into the open files past the engine.
 *
 * The files keep their names and numbers, so claim.c sees nothing. Three things are looked at:
 *
 *   the WAL       is as long as the index (-shm) says, and its header is the one that the index was
 *                 made from. `> app.db-wal`, `truncate`. A commit sees its length too (wal_file.c)
 *   the database  in WAL mode a checkpoint alone writes to it. That moves its counters in the
 *                 index, before the first page and after the last one. So while they stand still,
 *                 page 1, the vector's and the size are what they were. `cp backup.db app.db`
 *   the vector    nobody else writes it. Where another program has committed something, it still is
 *                 the one in memory. `sqlite3 app.db ".restore old.db"`
 *
 * The vector is looked at when a transaction begins, all at heartbeats and around checkpoints. What
 * is found is REPLIC_EGONE, and final. What cannot be read is no finding. Unlike where a file has
 * lost its name, nothing is moved into the database then: it may not be what the WAL is for.
 *
 * The index: https://sqlite.org/walformat.html#the_wal_index_file_format. */
#include <string.h>

#include "core.h"

enum { WAL_HEADER = 32, FRAME_HEADER = 24, SALTS_AT = 16, SALTS = 8 };
enum { REGION = 32768, HEADER_COPY = 48, MODE_AT = 18 };
enum { INDEX_MAX_FRAME = 4, INDEX_SALTS = 8, INDEX_BACKFILLED = 24, INDEX_ATTEMPTED = 32 };
enum { INDEX_WORDS = 34 };      /* of 4 bytes, that are of use */
enum { STRETCH = 1024 * 1024 }; /* of the WAL: after each a commit looks */

static const char MAGIC[18] = "SQLite format 3";

/* What the index says at one moment. */
typedef struct moment {
  uint32_t max_frame, backfilled, attempted;
  uint8_t salts[SALTS];
} moment;

struct replic__seen {
  const volatile uint32_t *index; /* a mapping of SQLite's; NULL: not asked for yet */
  sqlite3_file *database;
  int64_t vector_page;
  moment at;       /* as of the last look */
  int is_set;      /* and no checkpoint was under way */
  int was_wal;     /* page 1 said so */
  int64_t stretch; /* so many are in the WAL */
  sqlite3_int64 size;
  uint8_t *pages, *again; /* page 1 and the vector's, then and now */
};

/* ---- the index ---- */

static int read_index(const replic__seen *seen, moment *out) {
  uint32_t words[INDEX_WORDS];
  if (!seen->index) return 0;
  seen->database->pMethods->xShmBarrier(
      seen->database); /* what is read in front of it, and after */
  for (int i = 0; i < INDEX_WORDS; i++) words[i] = seen->index[i];
  seen->database->pMethods->xShmBarrier(seen->database);
  if (memcmp(words, words + HEADER_COPY / 4, HEADER_COPY) != 0) return 0; /* in the middle of it */
  out->max_frame = words[INDEX_MAX_FRAME];
  out->backfilled = words[INDEX_BACKFILLED];
  out->attempted = words[INDEX_ATTEMPTED];
  memcpy(out->salts, words + INDEX_SALTS, SALTS);
  return 1;
}

static int is_at_rest(const moment *at) {
  return at->backfilled == at->attempted;
}

static int is_same_wal(const moment *a, const moment *b) {
  return memcmp(a->salts, b->salts, SALTS) == 0;
}

/* 1: nothing was written to the database between them. */
static int is_same_content(const moment *a, const moment *b) {
  return is_at_rest(a) && is_at_rest(b) && is_same_wal(a, b) && a->backfilled == b->backfilled;
}

/* ---- beginning ---- */

static void map_index(replic__seen *seen) {
  const sqlite3_io_methods *methods = seen->database ? seen->database->pMethods : NULL;
  void volatile *region = NULL;
  if (methods && methods->iVersion >= 2 &&
      methods->xShmMap(seen->database, 0, REGION, 0, &region) == SQLITE_OK)
    seen->index = region;
}

int replic__look_open(replic *r) {
  replic__seen *seen = r->seen = sqlite3_malloc64(sizeof *seen);
  if (!seen) return SQLITE_NOMEM;
  *seen = (replic__seen){0};
  seen->pages = sqlite3_malloc64(2 * (sqlite3_uint64)r->page_size);
  seen->again = sqlite3_malloc64(2 * (sqlite3_uint64)r->page_size);
  if (!seen->pages || !seen->again) return SQLITE_NOMEM;
  sqlite3_file_control(r->db, "main", SQLITE_FCNTL_FILE_POINTER, &seen->database);
  map_index(seen);
  return replic__int(r, "SELECT rootpage FROM main.sqlite_schema WHERE name = '_replic_vector'",
                     &seen->vector_page);
}

void replic__look_close(replic *r) {
  if (!r->seen) return;
  sqlite3_free(r->seen->pages);
  sqlite3_free(r->seen->again);
  sqlite3_free(r->seen);
  r->seen = NULL;
}

/* ---- what is found ---- */

static int note_overwritten(replic *r, const char *suffix, const char *fate) {
  r->gone = sqlite3_mprintf("%s%s %s while it was open: what is written from here on would be "
                            "lost, so nothing is. Close the Replica, see to its files, and open it "
                            "again",
                            r->path, suffix, fate);
  if (!r->gone) return SQLITE_NOMEM;
  r->is_overwritten = 1;
  sqlite3_db_config(r->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = REPLIC_EGONE}, "%s", r->gone);
  return replic__fail_gone(r);
}

/* ---- the WAL ---- */

/* 1: read; bytes behind the end of the file are zeros. */
static int read_file(sqlite3_file *file, uint8_t *out, int n, sqlite3_int64 at) {
  int rc = file->pMethods->xRead(file, out, n, at);
  return rc == SQLITE_OK || rc == SQLITE_IOERR_SHORT_READ;
}

/* Of what the index knows. While that is the same one, none of it can go. */
static int is_wal_torn(replic *r) {
  moment before, after;
  sqlite3_file *wal = NULL;
  uint8_t header[WAL_HEADER], last;
  if (replic__wal_is_cut(r)) return 1;
  sqlite3_file_control(r->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
  if (!read_index(r->seen, &before) || before.max_frame == 0 || !wal || !wal->pMethods) return 0;
  int64_t end = WAL_HEADER + before.max_frame * (FRAME_HEADER + r->page_size);
  if (!read_file(wal, header, WAL_HEADER, 0)) return 0;
  int is_short = wal->pMethods->xRead(wal, &last, 1, end - 1) == SQLITE_IOERR_SHORT_READ;
  int is_another = memcmp(header + SALTS_AT, before.salts, SALTS) != 0;
  return read_index(r->seen, &after) && is_same_wal(&before, &after) && (is_short || is_another);
}

/* ---- the database ---- */

static int read_pages(replic *r, uint8_t *out, sqlite3_int64 *size) {
  sqlite3_file *file = r->seen->database;
  int n = (int)r->page_size;
  return file->pMethods->xFileSize(file, size) == SQLITE_OK && read_file(file, out, n, 0) &&
         read_file(file, out + n, n, (r->seen->vector_page - 1) * r->page_size);
}

/* Also in the middle of a checkpoint: this stays, whatever is written. */
static int says_wal(const uint8_t *page) {
  return memcmp(page, MAGIC, 16) == 0 && page[MODE_AT] == 2 && page[MODE_AT + 1] == 2;
}

static int differs(replic *r) {
  replic__seen *seen = r->seen;
  moment before, after = {0};
  sqlite3_int64 size;
  if (!read_index(seen, &before) || !read_pages(r, seen->again, &size)) return 0;
  int is_wal = says_wal(seen->again), had_wal = seen->was_wal;
  seen->was_wal = had_wal || is_wal;
  if (had_wal && !is_wal) return 1;
  int can_tell = read_index(seen, &after) && is_same_content(&before, &after);
  int is_another =
      can_tell && seen->is_set && is_same_content(&seen->at, &after) &&
      (size != seen->size || memcmp(seen->pages, seen->again, 2 * (size_t)r->page_size) != 0);
  if (is_another) return 1;
  uint8_t *pages = seen->pages;
  seen->pages = seen->again;
  seen->again = pages;
  seen->size = size;
  seen->at = after;
  seen->is_set = can_tell;
  return 0;
}

/* ---- the vector ---- */

static unsigned data_version(replic *r) {
  unsigned version = 0;
  sqlite3_file_control(r->db, "main", SQLITE_FCNTL_DATA_VERSION, &version);
  return version;
}

int replic__look_at_vector(replic *r) {
  unsigned version = data_version(r);
  int is_ours = 1;
  if (version == r->data_version) return REPLIC_OK;
  int rc = replic__vector_compare(r, &is_ours);
  if (rc != REPLIC_OK) return rc;
  if (!is_ours) return note_overwritten(r, "", "has been overwritten with another state of it");
  r->data_version = version;
  return REPLIC_OK;
}

/* Where nothing is written: a read shows SQLite what others have committed. */
static void read_vector(replic *r) {
  int64_t one;
  if (replic__int(r, "SELECT 1 FROM main.sqlite_schema LIMIT 1", &one) == REPLIC_OK)
    replic__look_at_vector(r);
}

/* ---- all of it ---- */

static void look_at_files(replic *r) {
  /* once more: a finding is final */
  if (is_wal_torn(r) && is_wal_torn(r))
    note_overwritten(r, "-wal", "has been cut or overwritten");
  else if (differs(r) && differs(r))
    note_overwritten(r, "", "has been overwritten");
}

int replic__look(replic *r) {
  if (r->gone) return replic__fail_gone(r);
  if (r->seen) look_at_files(r);
  if (r->seen && !r->gone && sqlite3_get_autocommit(r->db)) read_vector(r);
  return r->gone ? REPLIC_EGONE : REPLIC_OK; /* without memory for it, the next look finds it */
}

/* 1: no checkpoint was made since the last look, or one is under way. */
static int is_unmoved(const replic__seen *seen) {
  uint32_t backfilled, salts[SALTS / 4];
  if (!seen->index) return 1;
  backfilled = seen->index[INDEX_BACKFILLED];
  for (int i = 0; i < SALTS / 4; i++) salts[i] = seen->index[INDEX_SALTS + i];
  return backfilled != seen->index[INDEX_ATTEMPTED] ||
         (seen->is_set && backfilled == seen->at.backfilled &&
          memcmp(salts, seen->at.salts, SALTS) == 0);
}

int replic__look_behind(replic *r) {
  int64_t stretch = replic_wal_bytes(r) / STRETCH;
  if (!r->seen || r->gone || (is_unmoved(r->seen) && stretch == r->seen->stretch)) return REPLIC_OK;
  r->seen->stretch = stretch;
  look_at_files(r);
  return r->gone ? replic__fail_gone(r) : REPLIC_OK;
}

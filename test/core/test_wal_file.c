/* test_wal_file.c - the WAL that is written in few pieces: what was committed is what another
 * connection sees and what a crash leaves, whatever SQLite does in between: pages that are written
 * early and again, savepoints, checkpoints, writes that fail, other programs that write. (Power
 * cuts are the simulator's.) */
#include <string.h>

#include "core.h"
#include "harness.h"
#include "memvfs.h"

static const char FILE_NAME[] = "/1/a.db", COPY[] = "/2/a.db";
static const char CONTENT[] = "SELECT id, hex(v) FROM t ORDER BY id";

/* A cache of a few pages: SQLite has to write them before the commit. */
static sqlite3 *open_db(const char *path, const char *vfs, int synchronous) {
  sqlite3 *db = NULL;
  CHECK_INT(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs), SQLITE_OK);
  sql_exec(db, "PRAGMA page_size = 512; PRAGMA journal_mode = WAL; PRAGMA cache_size = 5");
  sql_exec(db, test_format("PRAGMA synchronous = %d", synchronous));
  return db;
}

static sqlite3 *open_writer(int synchronous) {
  memvfs_reset();
  const char *vfs = replic__wal_vfs();
  CHECK(vfs != NULL);
  sqlite3 *db = open_db(FILE_NAME, vfs, synchronous);
  sql_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)");
  return db;
}

static void check_copy(const char *wanted) {
  memvfs_copy(FILE_NAME, COPY);
  memvfs_copy(test_format("%s-wal", FILE_NAME), test_format("%s-wal", COPY));
  sqlite3 *db = open_db(COPY, NULL, 1);
  CHECK_TEXT(sql_dump(db, CONTENT), wanted);
  CHECK_TEXT(sql_text(db, "PRAGMA integrity_check"), "ok");
  sqlite3_close(db);
  memvfs_remove_disk(2);
}

static void change_rows(sqlite3 *db, rng *g) {
  for (uint32_t n = rng_below(g, 40); n > 0; n--) {
    uint32_t id = rng_below(g, 60);
    if (rng_chance(g, 20))
      sql_exec(db, test_format("DELETE FROM t WHERE id = %u", id));
    else
      sql_exec(db, test_format("REPLACE INTO t VALUES(%u, zeroblob(%u) || %u)", id,
                               rng_below(g, 700), rng_below(g, 1000)));
  }
}

static void transaction(sqlite3 *db, rng *g) {
  sql_exec(db, "BEGIN IMMEDIATE");
  change_rows(db, g);
  for (uint32_t n = rng_below(g, 3); n > 0; n--) {
    sql_exec(db, "SAVEPOINT s");
    change_rows(db, g);
    if (rng_chance(g, 50)) sql_exec(db, "ROLLBACK TO s");
    sql_exec(db, "RELEASE s");
    change_rows(db, g);
  }
  sql_exec(db, rng_chance(g, 70) ? "COMMIT" : "ROLLBACK");
}

static void others_see_what_was_committed(void) {
  for (int64_t seed = 1, last = env_number("SEEDS", 20); seed <= last; seed++) {
    rng g = {(uint64_t)seed};
    test_note("seed %lld", (long long)seed);
    memvfs_powersafe(rng_chance(&g, 70));
    sqlite3 *writer = open_writer(1 + (int)rng_below(&g, 2)), *reader = open_db(FILE_NAME, NULL, 1);
    sql_exec(writer, test_format("PRAGMA wal_autocheckpoint = %u", rng_below(&g, 200)));
    for (int i = 0; i < 15; i++) {
      transaction(writer, &g);
      char *seen = sql_dump(reader, CONTENT);
      CHECK_TEXT(sql_dump(writer, CONTENT), seen);
      if (rng_chance(&g, 30)) check_copy(seen);
      if (rng_chance(&g, 10))
        sql_exec(rng_chance(&g, 50) ? writer : reader, "PRAGMA wal_checkpoint");
    }
    sqlite3_close(reader);
    sqlite3_close(writer);
    test_release();
  }
  memvfs_powersafe(true);
}

/* Every write, sync and truncation of a transaction fails once. */
static void a_write_that_fails_undoes_the_transaction(void) {
  static const char CHANGES[] = "BEGIN; REPLACE INTO t SELECT id, zeroblob(600) FROM t; UPDATE t "
                                "SET v = 'again' WHERE id % 3; "
                                "UPDATE t SET v = zeroblob(900) WHERE id % 2; COMMIT";
  int64_t failures = 0;
  for (int way = 0; way < 4; way++) {
    int synchronous = 1 + way % 2;
    memvfs_powersafe(way < 2);
    for (int64_t n = 1;; n++) {
      test_note("way %d, change %lld", way, (long long)n);
      sqlite3 *writer = open_writer(synchronous), *reader = open_db(FILE_NAME, NULL, 1);
      sql_exec(writer, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                       "30) INSERT INTO t SELECT i, zeroblob(300) FROM n");
      char *before = sql_dump(reader, CONTENT);
      memvfs_arm(1, n, false);
      int rc = sqlite3_exec(writer, CHANGES, NULL, NULL, NULL);
      bool has_failed = memvfs_has_failed(1);
      memvfs_arm(1, 0, false);
      CHECK((rc != SQLITE_OK) == has_failed);
      if (!sqlite3_get_autocommit(writer)) sql_exec(writer, "ROLLBACK");
      if (has_failed) CHECK_TEXT(sql_dump(reader, CONTENT), before);
      if (has_failed) sql_exec(writer, CHANGES);
      char *after = sql_dump(writer, CONTENT);
      CHECK(strcmp(before, after) != 0);
      CHECK_TEXT(sql_dump(reader, CONTENT), after);
      check_copy(after);
      sqlite3_close(reader);
      sqlite3_close(writer);
      test_release();
      if (!has_failed) break;
      failures++;
    }
  }
  memvfs_powersafe(true);
  CHECK(failures > 8); /* pages were written early */
}

/* ---- against plain SQLite ----
 *
 * A transaction of several calls, each in a savepoint of its own, as the engine makes them: a call
 * that fails is undone alone. What was acknowledged (the calls that succeeded, where the commit
 * did) is then executed by plain SQLite on a disk that never fails. Both must have the same rows,
 * and so must another connection and, after a commit, what a crash leaves. */

typedef struct world {
  sqlite3 *writer, *foreign, *model; /* the first two have one file */
} world;

#define MARK "UPDATE mark SET n = n + 1"

static world open_world(int synchronous) {
  static const char TABLE[] =
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB, n INTEGER CHECK(n < 1000));"
      "CREATE TABLE mark(n); INSERT INTO mark VALUES(0)";
  memvfs_reset();
  world w = {.writer = open_db(FILE_NAME, replic__wal_vfs(), synchronous)};
  sql_exec(w.writer, TABLE);
  w.foreign = open_db(FILE_NAME, NULL, synchronous);
  w.model = open_db("/3/a.db", NULL, 1);
  sql_exec(w.model, TABLE);
  return w;
}

static void close_world(world *w) {
  sqlite3_close(w->foreign);
  sqlite3_close(w->writer);
  sqlite3_close(w->model);
}

/* Whether it succeeded. Where it fails, the transaction goes on, unless SQLite has ended it. */
static bool call(sqlite3 *db, const char *sql) {
  sql_exec(db, "SAVEPOINT call");
  if (sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK)
    return sqlite3_exec(db, "RELEASE call", NULL, NULL, NULL) == SQLITE_OK;
  if (!sqlite3_get_autocommit(db))
    sqlite3_exec(db, "ROLLBACK TO call; RELEASE call", NULL, NULL, NULL);
  return false;
}

static bool commit(sqlite3 *db) {
  if (sqlite3_get_autocommit(db)) return false; /* SQLite has undone it */
  if (sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK) return true;
  if (!sqlite3_get_autocommit(db)) sql_exec(db, "ROLLBACK");
  return false;
}

/* Returns whether it was committed. `calls` ends with NULL. Behind them something is always
 * written: what could not be synced, and was undone, is there after a crash if nobody has written
 * since. So it is with plain SQLite. */
static bool write_calls(world *w, const char *const *calls) {
  bool done[16] = {false};
  int n = 0;
  sql_exec(w->writer, "BEGIN IMMEDIATE");
  for (; calls[n] && !sqlite3_get_autocommit(w->writer); n++) done[n] = call(w->writer, calls[n]);
  bool marked = !sqlite3_get_autocommit(w->writer) && call(w->writer, MARK);
  if (!commit(w->writer)) return false;
  CHECK(marked);
  sql_exec(w->model, "BEGIN");
  for (int i = 0; i < n; i++)
    if (done[i]) sql_exec(w->model, calls[i]);
  sql_exec(w->model, MARK "; COMMIT");
  return true;
}

static void undo_calls(sqlite3 *db, const char *const *calls) {
  sql_exec(db, "BEGIN IMMEDIATE");
  for (; *calls && !sqlite3_get_autocommit(db); calls++) call(db, *calls);
  if (!sqlite3_get_autocommit(db)) sql_exec(db, "ROLLBACK");
}

static void write_foreign(world *w, const char *sql) {
  sql_exec(w->foreign, sql);
  sql_exec(w->model, sql);
}

static void check_world(world *w, bool committed) {
  char *wanted = sql_dump(w->model, "SELECT id, hex(v), n FROM t");
  CHECK_TEXT(sql_dump(w->foreign, "SELECT id, hex(v), n FROM t"), wanted);
  CHECK_TEXT(sql_text(w->foreign, "PRAGMA integrity_check"), "ok");
  CHECK_TEXT(sql_dump(w->writer, "SELECT id, hex(v), n FROM t"), wanted);
  CHECK_TEXT(sql_text(w->writer, "PRAGMA integrity_check"), "ok");
  if (committed) check_copy(sql_dump(w->model, CONTENT));
}

/* Rows of so many bytes, from id `first` on; the last one has n = `last`, of which the CHECK
 * refuses 1000. And an update of every so-many-th, which is undone if the last one of them is
 * refused. */
#define ROWS(first, count, bytes, last)                                                            \
  "WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < " #count ") REPLACE "  \
  "INTO t SELECT " #first " + i * 7 % " #count ", zeroblob(" #bytes ") || i, iif(i = " #count      \
  ", " #last ", i % 900) FROM i"
#define UPDATE(step, bytes, n)                                                                     \
  "UPDATE t SET v = zeroblob(" #bytes ") || id, n = " n " WHERE id % " #step " = 0"
#define REFUSED "n + 2000 * (id > (SELECT max(id) FROM t) - 10)"

/* Three transactions: one of this connection's that is undone, one of another program's, and one
 * that has to be right whatever these have left. */
typedef struct scenario {
  const char *what;
  const char *undone[4], *foreign, *calls[6];
} scenario;

/* Large values take new pages, which SQLite writes early and without reading any. */
static const scenario SCENARIOS[] = {
    {.what = "a statement that is undone, behind a call that has spilled",
     .calls = {ROWS(100, 1, 40000, 0), UPDATE(2, 400, REFUSED), ROWS(200, 1, 20000, 0),
               UPDATE(5, 100, "n")}},
    {.what = "savepoints that are undone, behind a call that has spilled",
     .calls = {ROWS(100, 5, 20000, 0), ROWS(103, 4, 9000, 1000),
               "SAVEPOINT s; UPDATE t SET v = 1 WHERE id % 3; ROLLBACK TO s; RELEASE s",
               UPDATE(2, 50, "n")}},
    {.what = "another program's writer, behind a transaction that has spilled",
     .undone = {ROWS(100, 5, 20000, 1000), ROWS(100, 1, 20000, 0)},
     .foreign = ROWS(10, 80, 200, 0),
     .calls = {UPDATE(3, 300, "n"), ROWS(0, 10, 100, 1000)}},
};

/* Returns whether something has failed: in the transaction `before`, or the one behind it. */
static bool fails_once(const scenario *s, int synchronous, bool before, int64_t n, bool all_after) {
  char *note =
      sqlite3_mprintf("%s, synchronous %d, change %lld%s%s", s->what, synchronous, n,
                      before ? " of the one before" : "", all_after ? " and after it" : "");
  test_note("%s", note);
  sqlite3_free(note);
  world w = open_world(synchronous);
  const char *const first[] = {ROWS(0, 20, 300, 0), NULL}, *const last[] = {ROWS(5, 8, 90, 0),
                                                                            NULL};
  CHECK(write_calls(&w, first));
  sql_exec(w.writer, "PRAGMA wal_checkpoint(TRUNCATE)"); /* so that ROLLBACK reads no frame */
  if (before) memvfs_arm(1, n, all_after);
  if (s->undone[0]) undo_calls(w.writer, s->undone);
  bool has_failed = memvfs_has_failed(1);
  memvfs_thaw(1);
  if (s->foreign) write_foreign(&w, s->foreign);
  if (!before) memvfs_arm(1, n, all_after);
  bool committed = write_calls(&w, s->calls);
  has_failed = has_failed || memvfs_has_failed(1);
  memvfs_thaw(1);
  check_world(&w, committed);
  CHECK(write_calls(&w, last));
  check_world(&w, true);
  close_world(&w);
  test_release();
  return has_failed;
}

/* Every write, sync and truncation fails once; of the other ways every so-many-th. */
static void what_was_acknowledged_is_there(void) {
  for (size_t i = 0; i < COUNT(SCENARIOS); i++) {
    const scenario *s = &SCENARIOS[i];
    rng g = {i};
    for (int way = 0; way < 8; way++) {
      int64_t n = 1;
      if (way & 4 && !s->undone[0]) continue;
      while (fails_once(s, 1 + (way & 1), way & 4, n, way & 2))
        n += way ? 1 + rng_below(&g, 15) : 1;
      CHECK(n > 1);
    }
  }
}

static const char *any_call(rng *g) {
  uint32_t first = rng_below(g, 200), count = 1 + rng_below(g, 30), step = 2 + rng_below(g, 6);
  uint32_t bytes = rng_chance(g, 60) ? rng_below(g, 600) : rng_below(g, 40000) / count;
  uint32_t last = rng_chance(g, 40) ? 1000 : 0;
  switch (rng_below(g, 5)) {
  case 0: return test_format("DELETE FROM t WHERE id %% %u = 0 OR id > %u", step, 40 + first);
  case 1:
    return test_format("UPDATE t SET v = zeroblob(%u), n = n + %u * (id > %u) WHERE id %% %u",
                       bytes, last, first, step);
  case 2:
    return test_format("SAVEPOINT s; UPDATE t SET v = v || %u; ROLLBACK TO s; INSERT INTO t "
                       "VALUES(NULL, zeroblob(%u), 1); RELEASE s",
                       first, bytes);
  case 3: return "SELECT sum(length(v)) FROM t";
  default:
    return test_format("WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < "
                       "%u) REPLACE INTO t SELECT %u + i * 7 %% %u, zeroblob(%u) || i, iif(i = %u, "
                       "%u, i) FROM i",
                       count, first, count, bytes, count, last);
  }
}

/* One that succeeds. */
static const char *any_foreign(rng *g) {
  return test_format("WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < %u) "
                     "REPLACE INTO t SELECT %u + i, zeroblob(%u), i FROM i",
                     1 + rng_below(g, 60), rng_below(g, 200), rng_below(g, 700));
}

static void any_transaction(world *w, rng *g) {
  const char *calls[6] = {NULL};
  for (uint32_t n = 1 + rng_below(g, COUNT(calls) - 1); n > 0; n--) calls[n - 1] = any_call(g);
  if (rng_chance(g, 40)) memvfs_arm(1, 1 + rng_below(g, 60), rng_chance(g, 30));
  bool committed = false;
  if (rng_chance(g, 25))
    undo_calls(w->writer, calls);
  else
    committed = write_calls(w, calls);
  memvfs_thaw(1);
  if (committed || rng_chance(g, 50)) check_world(w, committed); /* else what is left stays */
}

static void as_plain_sqlite_has_it(void) {
  static const char *const CHECKPOINTS[] = {"PASSIVE", "RESTART", "TRUNCATE"};
  for (int64_t seed = 1, last = env_number("SEEDS", 60); seed <= last; seed++) {
    rng g = {(uint64_t)seed};
    test_note("seed %lld", (long long)seed);
    world w = open_world(1 + (int)rng_below(&g, 2));
    sql_exec(w.writer, test_format("PRAGMA wal_autocheckpoint = %u", rng_below(&g, 400)));
    for (int i = 0; i < 12; i++) {
      any_transaction(&w, &g);
      if (rng_chance(&g, 40)) write_foreign(&w, any_foreign(&g));
      if (rng_chance(&g, 20))
        sql_exec(rng_chance(&g, 50) ? w.writer : w.foreign,
                 test_format("PRAGMA wal_checkpoint(%s)", CHECKPOINTS[rng_below(&g, 3)]));
    }
    check_world(&w, false);
    close_world(&w);
    test_release();
  }
}

/* The methods as SQLite calls them: bytes that are not in the file yet, and a failure that stays.
 */

static sqlite3_file *wal_of(sqlite3 *db) {
  sqlite3_file *file = NULL;
  CHECK_INT(sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file), SQLITE_OK);
  return file;
}

static int wal_write(sqlite3_file *file, const uint8_t *bytes, int64_t from, int64_t to) {
  return file->pMethods->xWrite(file, bytes + from, (int)(to - from), from);
}

/* Every part of it, and of what is behind its end. */
static void check_wal(sqlite3_file *file, const uint8_t *bytes, int64_t len) {
  sqlite3_int64 size;
  CHECK_INT(file->pMethods->xFileSize(file, &size), SQLITE_OK);
  CHECK_INT(size, len);
  for (int64_t from = 0; from < len; from += 97) {
    for (int64_t to = from + 61; to < len + 200; to += 211) {
      int64_t there = to < len ? to - from : len - from;
      uint8_t *out = test_alloc((size_t)(to - from));
      memset(out, 0xee, (size_t)(to - from));
      CHECK_INT(file->pMethods->xRead(file, out, (int)(to - from), from),
                to > len ? SQLITE_IOERR_SHORT_READ : SQLITE_OK);
      CHECK(memcmp(out, bytes + from, (size_t)there) == 0);
      for (int64_t i = there; i < to - from; i++) CHECK_INT(out[i], 0);
    }
  }
}

/* A WAL of which `len` bytes are in the file, and a transaction has begun. */
static uint8_t *begin_on_wal(sqlite3 *writer, sqlite3_int64 *len) {
  sql_exec(writer, "INSERT INTO t VALUES(1, 1)");
  sql_exec(writer, "BEGIN IMMEDIATE");
  sqlite3_file *file = wal_of(writer);
  CHECK_INT(file->pMethods->xFileSize(file, len), SQLITE_OK);
  uint8_t *bytes = test_alloc((size_t)*len + 4096);
  for (int64_t i = 0; i < *len + 4096; i++) bytes[i] = (uint8_t)(i * 7 + i / 256);
  CHECK_INT(file->pMethods->xRead(file, bytes, (int)*len, 0), SQLITE_OK);
  return bytes;
}

static void the_file_reads_as_if_all_were_written(void) {
  sqlite3 *writer = open_writer(1);
  sqlite3_int64 len;
  uint8_t *bytes = begin_on_wal(writer, &len);
  sqlite3_file *file = wal_of(writer);
  int64_t on_disk = memvfs_size(1);
  CHECK_INT(wal_write(file, bytes, len, len + 700), SQLITE_OK);
  memset(bytes + len + 100, 3, 512);
  CHECK_INT(wal_write(file, bytes, len + 100, len + 612), SQLITE_OK); /* a page once more */
  CHECK_INT(wal_write(file, bytes, len + 700, len + 900), SQLITE_OK);
  check_wal(file, bytes, len + 900);
  CHECK_INT(memvfs_size(1), on_disk); /* and nothing is */
  memset(bytes + len + 500, 0, 24);
  CHECK_INT(wal_write(file, bytes, len + 500, len + 524), SQLITE_OK); /* what was there is undone */
  check_wal(file, bytes, len + 524);
  CHECK_INT(file->pMethods->xTruncate(file, len + 300), SQLITE_OK);
  CHECK_INT(file->pMethods->xTruncate(file, len), SQLITE_OK);
  check_wal(file, bytes, len);
  CHECK_INT(wal_write(file, bytes, len, len + 300), SQLITE_OK);
  CHECK_INT(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), SQLITE_OK);
  CHECK_INT(memvfs_size(1), on_disk + 300);
  check_wal(file, bytes, len + 300);
  sql_exec(writer, "ROLLBACK");
  sqlite3_close(writer);
}

static void a_failure_stays_until_the_transaction_is_gone(void) {
  for (int way = 0; way < 2; way++) {
    sqlite3 *writer = open_writer(1);
    sqlite3_int64 len;
    uint8_t *bytes = begin_on_wal(writer, &len);
    sqlite3_file *file = wal_of(writer);
    CHECK_INT(wal_write(file, bytes, len, len + 700), SQLITE_OK);
    memvfs_arm(1, 1 + way, false); /* the write, or the sync */
    int rc = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
    CHECK_INT(rc, way ? SQLITE_IOERR_FSYNC : SQLITE_FULL);
    CHECK_INT(wal_write(file, bytes, len + 700, len + 800), rc);
    CHECK_INT(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), rc);
    uint8_t out[700];
    CHECK_INT(file->pMethods->xRead(file, out, sizeof out, len), SQLITE_OK);
    CHECK(memcmp(out, bytes + len, sizeof out) == 0);
    CHECK_INT(sqlite3_exec(writer, "INSERT INTO t VALUES(2, 2); COMMIT", NULL, NULL, NULL),
              rc & 0xff);
    if (!sqlite3_get_autocommit(writer)) sql_exec(writer, "ROLLBACK");
    sql_exec(writer, "INSERT INTO t VALUES(3, 3)");
    check_copy(sql_dump(writer, CONTENT));
    CHECK_INT(sql_int(writer, "SELECT count(*) FROM t"), 2);
    sqlite3_close(writer);
  }
}

/* What it is for: SQLite makes eight writes of a commit of four pages. */
static void a_commit_is_two_writes(void) {
  sqlite3 *writer = open_writer(1);
  sql_exec(writer, "PRAGMA cache_size = 100");
  for (int i = 0; i < 3; i++) sql_exec(writer, test_format("CREATE TABLE other%d(n)", i));
  sql_exec(writer, "INSERT INTO t VALUES(1, 1)");
  memvfs_arm(1, 3, false);
  sql_exec(writer, "BEGIN; INSERT INTO t VALUES(2, 2); INSERT INTO other0 VALUES(1); "
                   "INSERT INTO other1 VALUES(1); INSERT INTO other2 VALUES(1); COMMIT");
  CHECK(!memvfs_has_failed(1));
  sql_exec(writer, "PRAGMA synchronous = FULL");
  memvfs_arm(1, 4, false); /* and the sync */
  sql_exec(writer, "INSERT INTO t VALUES(3, 3)");
  CHECK(!memvfs_has_failed(1));
  memvfs_arm(1, 0, false);
  sqlite3_close(writer);
}

/* How often the disk got larger, with as many commits of a row. */
static int growths(sqlite3 *writer, int commits, int bytes) {
  int count = 0;
  for (int i = 0; i < commits; i++) {
    int64_t before = memvfs_size(1);
    sql_exec(writer, test_format("REPLACE INTO t VALUES(1, zeroblob(%d))", bytes));
    count += memvfs_size(1) > before;
    check_copy(sql_dump(writer, CONTENT));
  }
  return count;
}

static void synced_commits_find_room(void) {
  sqlite3 *writer = open_writer(2);
  sql_exec(writer, "PRAGMA wal_autocheckpoint = 0");
  growths(writer, 3, 100); /* before the first syncs, and after */
  CHECK_INT(growths(writer, 50, 100), 0);
  int64_t before = memvfs_size(1);
  CHECK_INT(growths(writer, 1000, 100), 2); /* of at most three pages each */
  CHECK(memvfs_size(1) - before < 1024 * 1024);
  sql_exec(writer, "PRAGMA wal_checkpoint(TRUNCATE)");
  CHECK(memvfs_size(1) < 100 * 1024);
  CHECK(growths(writer, 100, 100) < 3);
  sqlite3_close(writer);
}

/* What a large commit makes longer is about as long as itself. */
static void no_room_for_large_commits_and_unsynced_ones(void) {
  sqlite3 *writer = open_writer(2);
  sql_exec(writer, "PRAGMA wal_autocheckpoint = 0");
  int64_t before = memvfs_size(1);
  growths(writer, 1, 100 * 1024);
  CHECK(memvfs_size(1) - before < 150 * 1024);
  sqlite3_close(writer);
  writer = open_writer(1);
  sql_exec(writer, "PRAGMA wal_autocheckpoint = 0");
  CHECK_INT(growths(writer, 50, 100), 50);
  sqlite3_close(writer);
}

static void room_that_cannot_be_had_is_no_failure(void) {
  int64_t failures = 0;
  for (int64_t n = 1;; n++) {
    sqlite3 *writer = open_writer(2);
    memvfs_arm(1, n, false);
    int rc = sqlite3_exec(writer, "REPLACE INTO t VALUES(1, 'new')", NULL, NULL, NULL);
    bool has_failed = memvfs_has_failed(1);
    memvfs_arm(1, 0, false);
    failures += has_failed && rc == SQLITE_OK;
    if (rc == SQLITE_OK) CHECK_TEXT(sql_text(writer, "SELECT v FROM t"), "new");
    growths(writer, 20, 100);
    sqlite3_close(writer);
    test_release();
    if (!has_failed) break;
  }
  CHECK_INT(failures, 4);
}

static void no_room_where_syncs_fail(void) {
  static const char CHANGE[] = "REPLACE INTO t VALUES(1, zeroblob(100))";
  sqlite3 *writer = open_writer(1);
  sql_exec(writer, "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0");
  for (int i = 0; i < 10; i++) {
    memvfs_arm(1, 3, false); /* after two writes */
    CHECK(sqlite3_exec(writer, CHANGE, NULL, NULL, NULL) != SQLITE_OK);
    CHECK(memvfs_has_failed(1));
    memvfs_arm(1, 0, false);
    sql_exec(writer, CHANGE);
  }
  CHECK(memvfs_size(1) < 100 * 1024);
  sqlite3_close(writer);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(others_see_what_was_committed),
                               TEST(a_write_that_fails_undoes_the_transaction),
                               TEST(what_was_acknowledged_is_there),
                               TEST(as_plain_sqlite_has_it),
                               TEST(the_file_reads_as_if_all_were_written),
                               TEST(a_failure_stays_until_the_transaction_is_gone),
                               TEST(a_commit_is_two_writes),
                               TEST(synced_commits_find_room),
                               TEST(no_room_for_large_commits_and_unsynced_ones),
                               TEST(room_that_cannot_be_had_is_no_failure),
                               TEST(no_room_where_syncs_fail)};
  memvfs_install();
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

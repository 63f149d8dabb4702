/* test_wal_file.c - the WAL that is written in few pieces: what was committed is what another
 * connection sees and what a crash leaves, whatever SQLite does in between: pages that are written
 * early and again, savepoints, checkpoints, writes that fail. (Power cuts are the simulator's.) */
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
                               TEST(a_commit_is_two_writes),
                               TEST(synced_commits_find_room),
                               TEST(no_room_for_large_commits_and_unsynced_ones),
                               TEST(room_that_cannot_be_had_is_no_failure),
                               TEST(no_room_where_syncs_fail)};
  memvfs_install();
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

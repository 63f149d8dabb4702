/* test_checkpoint.c - checkpoints that the caller has made: commits make none, nothing is lost, and
 * the WAL begins anew. (The simulator has power cuts and kills around them, test_ioerr and
 * test_nomem every failure inside.) */
#include <sys/stat.h>

#include "harness.h"
#include "query.h"

enum { PAGE = 4096 };

#define DDL                                                                                        \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL," \
  "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER, v);"

static peer *start(void) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  p->config.calls_checkpoint = 1;
  peer_start(p);
  CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  return p;
}

/* Rows until the WAL has `bytes`; the last id. */
static int64_t fill(peer *p, int64_t id, int64_t bytes) {
  while (replic_wal_bytes(p->r) < bytes) upsert(p, "t", ROW({"id", v_int(++id)}, {"v", v_int(1)}));
  return id;
}

static void run(peer *p, int64_t *bytes, int64_t *moved) {
  replic_checkpointer *c;
  CHECK_INT(replic_checkpointer_open(p->config.path, &c), REPLIC_OK);
  CHECK_INT(replic_checkpointer_run(c, bytes, moved), REPLIC_OK);
  replic_checkpointer_close(c);
}

static void check_rows(peer *p, int64_t rows) {
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), rows);
  CHECK_TEXT(sql_text(peer_sql(p), "PRAGMA integrity_check"), "ok");
}

static void a_commit_makes_none(void) {
  peer *p = start();
  int64_t bytes, moved,
      rows = fill(p, 0, REPLIC_WAL_LONG * 9 / 8); /* SQLite alone would have made one */
  run(p, &bytes, &moved);
  CHECK_INT(bytes, replic_wal_bytes(p->r));
  CHECK_INT(moved, bytes);
  upsert(p, "t", ROW({"id", v_int(++rows)}));
  CHECK(replic_wal_bytes(p->r) <
        20 * PAGE); /* all was in the file, so this commit has begun it anew */
  check_rows(p, rows);
  peer_stop(p);
  peer_start(p);
  check_rows(p, rows);
}

static void what_was_added_meanwhile_is_moved_by_the_writer(void) {
  peer *p = start();
  int64_t bytes, moved, rows = fill(p, 0, 300 * PAGE);
  replic_checkpointer *c;
  CHECK_INT(replic_checkpointer_open(p->config.path, &c), REPLIC_OK);
  replic_reader *reader;
  CHECK_INT(replic_reader_open(p->config.path, &reader), REPLIC_OK);
  CHECK_INT(replic_reader_hold(reader), REPLIC_OK); /* as if the checkpoint had begun here */
  int64_t held = replic_wal_bytes(p->r);
  rows = fill(p, rows, 600 * PAGE);
  CHECK_INT(replic_checkpointer_run(c, &bytes, &moved), REPLIC_OK);
  CHECK_INT(moved, held);
  CHECK_INT(bytes, replic_wal_bytes(p->r));
  for (int wait_ms = 0; wait_ms < 2; wait_ms++) { /* the reader does not go */
    replic_checkpoint(p->r, wait_ms);
    int64_t before = replic_wal_bytes(p->r);
    upsert(p, "t", ROW({"id", v_int(++rows)}));
    CHECK(replic_wal_bytes(p->r) > before);
  }
  replic_reader_close(reader);
  peer_begin(p);
  replic_checkpoint(p->r, 0); /* not inside of a batch */
  peer_rollback(p);
  int64_t before = replic_wal_bytes(p->r);
  upsert(p, "t", ROW({"id", v_int(++rows)}));
  CHECK(replic_wal_bytes(p->r) > before);
  replic_checkpoint(p->r, 0);
  upsert(p, "t", ROW({"id", v_int(++rows)}));
  CHECK(replic_wal_bytes(p->r) < 20 * PAGE);
  CHECK_INT(replic_checkpointer_run(c, &bytes, &moved), REPLIC_OK); /* the same one, of a new WAL */
  CHECK_INT(bytes, replic_wal_bytes(p->r));
  CHECK_INT(moved, bytes);
  replic_checkpointer_close(c);
  check_rows(p, rows);
}

/* A replica on a file of such pages. */
static peer *start_on(int page_size, int calls_checkpoint) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  p->config.calls_checkpoint = calls_checkpoint;
  p->config.normal_durability = 1;
  sqlite3 *db;
  CHECK_INT(sqlite3_open(p->config.path, &db), SQLITE_OK);
  sql_exec(db, test_format("PRAGMA page_size = %d; CREATE TABLE x(y)", page_size));
  sqlite3_close(db);
  peer_start(p);
  CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  CHECK_INT(sql_int(peer_sql(p), "PRAGMA page_size"), page_size);
  return p;
}

static int64_t wal_size(peer *p) {
  struct stat wal;
  CHECK_INT(stat(test_format("%s-wal", p->config.path), &wal), 0);
  return wal.st_size;
}

static void write_blob(peer *p, int64_t id, size_t len) {
  upsert(p, "t", ROW({"id", v_int(id)}, {"v", v_blob(test_alloc(len), len)}));
}

static void bounds_are_bytes(void) {
  static const int PAGE_SIZES[] = {512, 65536};
  for (size_t i = 0; i < COUNT(PAGE_SIZES); i++) {
    test_note("pages of %d bytes", PAGE_SIZES[i]);
    peer *p = start_on(PAGE_SIZES[i], 0);                          /* SQLite's own */
    for (int id = 0; id < 60; id++) write_blob(p, id % 2, 300000); /* 36 MB and more */
    CHECK(wal_size(p) > REPLIC_WAL_LONG * 7 / 8);
    CHECK(wal_size(p) < REPLIC_WAL_LONG * 9 / 8);
    p = start_on(PAGE_SIZES[i], 1);
    for (int id = 0; id < 9; id++) write_blob(p, id, 300000);
    int64_t bytes, moved;
    CHECK_INT(replic_wal_bytes(p->r), wal_size(p));
    run(p, &bytes, &moved);
    CHECK_INT(bytes, wal_size(p));
    CHECK_INT(moved, bytes);
    test_release();
  }
}

static void a_wal_that_a_long_reader_made_longer_is_cut(void) {
  peer *p = start_on(PAGE, 1);
  sql_exec(peer_sql(p), "BEGIN; SELECT * FROM t");
  int64_t bytes, moved;
  int id = 0;
  for (; replic_wal_bytes(p->r) <= REPLIC_WAL_MOST * 5 / 4; id++) write_blob(p, id, 300000);
  run(p, &bytes, &moved);
  CHECK(moved < bytes);
  write_blob(p, id++, 300000);
  CHECK(wal_size(p) > REPLIC_WAL_MOST * 5 / 4);
  sql_exec(peer_sql(p), "COMMIT");
  run(p, &bytes, &moved);
  CHECK_INT(moved, bytes);
  write_blob(p, id++, 10);
  CHECK(replic_wal_bytes(p->r) < 20 * PAGE);
  CHECK_INT(wal_size(p), REPLIC_WAL_MOST);
  check_rows(p, id);
}

static void a_file_that_is_not_there(void) {
  replic_checkpointer *c;
  CHECK_INT(replic_checkpointer_open(test_path("none.db"), &c) & 0xff, SQLITE_CANTOPEN);
  replic_checkpointer_interrupt(c);
  replic_checkpointer_close(c);
  replic_checkpointer_close(NULL);
}

int main(int argc, char **argv) {
  static const test tests[] = {
      TEST(a_commit_makes_none),      TEST(what_was_added_meanwhile_is_moved_by_the_writer),
      TEST(bounds_are_bytes),         TEST(a_wal_that_a_long_reader_made_longer_is_cut),
      TEST(a_file_that_is_not_there),
  };
  return run_tests(argc, argv, tests, COUNT(tests));
}

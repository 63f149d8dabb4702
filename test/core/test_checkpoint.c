/* test_checkpoint.c - checkpoints that the caller has made: commits make none, nothing is lost, and
 * the WAL begins anew. (The simulator has power cuts and kills around them, test_ioerr and
 * test_nomem every failure inside.) */
#include "harness.h"
#include "query.h"

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

/* Rows until the WAL has `pages`; the last id. */
static int64_t fill(peer *p, int64_t id, int64_t pages) {
  while (replic_wal_pages(p->r) < pages) upsert(p, "t", ROW({"id", v_int(++id)}, {"v", v_int(1)}));
  return id;
}

static void run(peer *p, int64_t *pages, int64_t *moved) {
  replic_checkpointer *c;
  CHECK_INT(replic_checkpointer_open(p->config.path, &c), REPLIC_OK);
  CHECK_INT(replic_checkpointer_run(c, pages, moved), REPLIC_OK);
  replic_checkpointer_close(c);
}

static void check_rows(peer *p, int64_t rows) {
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), rows);
  CHECK_TEXT(sql_text(peer_sql(p), "PRAGMA integrity_check"), "ok");
}

static void a_commit_makes_none(void) {
  peer *p = start();
  int64_t pages, moved, rows = fill(p, 0, 4500); /* SQLite alone would have made one at 4,000 */
  run(p, &pages, &moved);
  CHECK_INT(pages, replic_wal_pages(p->r));
  CHECK_INT(moved, pages);
  upsert(p, "t", ROW({"id", v_int(++rows)}));
  CHECK(replic_wal_pages(p->r) < 20); /* all was in the file, so this commit has begun it anew */
  check_rows(p, rows);
  peer_stop(p);
  peer_start(p);
  check_rows(p, rows);
}

static void what_was_added_meanwhile_is_moved_by_the_writer(void) {
  peer *p = start();
  int64_t pages, moved, rows = fill(p, 0, 300);
  replic_checkpointer *c;
  CHECK_INT(replic_checkpointer_open(p->config.path, &c), REPLIC_OK);
  replic_reader *reader;
  CHECK_INT(replic_reader_open(p->config.path, &reader), REPLIC_OK);
  CHECK_INT(replic_reader_hold(reader), REPLIC_OK); /* as if the checkpoint had begun here */
  int64_t held = replic_wal_pages(p->r);
  rows = fill(p, rows, 600);
  CHECK_INT(replic_checkpointer_run(c, &pages, &moved), REPLIC_OK);
  CHECK_INT(moved, held);
  CHECK_INT(pages, replic_wal_pages(p->r));
  for (int wait_ms = 0; wait_ms < 2; wait_ms++) { /* the reader does not go */
    replic_checkpoint(p->r, wait_ms);
    int64_t before = replic_wal_pages(p->r);
    upsert(p, "t", ROW({"id", v_int(++rows)}));
    CHECK(replic_wal_pages(p->r) > before);
  }
  replic_reader_close(reader);
  peer_begin(p);
  replic_checkpoint(p->r, 0); /* not inside of a batch */
  peer_rollback(p);
  int64_t before = replic_wal_pages(p->r);
  upsert(p, "t", ROW({"id", v_int(++rows)}));
  CHECK(replic_wal_pages(p->r) > before);
  replic_checkpoint(p->r, 0);
  upsert(p, "t", ROW({"id", v_int(++rows)}));
  CHECK(replic_wal_pages(p->r) < 20);
  CHECK_INT(replic_checkpointer_run(c, &pages, &moved), REPLIC_OK); /* the same one, of a new WAL */
  CHECK_INT(pages, replic_wal_pages(p->r));
  CHECK_INT(moved, pages);
  replic_checkpointer_close(c);
  check_rows(p, rows);
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
      TEST(a_commit_makes_none),
      TEST(what_was_added_meanwhile_is_moved_by_the_writer),
      TEST(a_file_that_is_not_there),
  };
  return run_tests(argc, argv, tests, COUNT(tests));
}

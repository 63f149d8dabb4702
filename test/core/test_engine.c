/* test_engine.c - batches, savepoints, limits, SQL of the application's own, migrations, and who a
 * file is (identity). Again and again: after a failure memory is what the disk is (I3). */
#define _XOPEN_SOURCE 700
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core.h"
#include "harness.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
#define DDL                                                                                        \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n INTEGER CHECK (n < 100), deletedAt INTEGER);"  \
  "CREATE TABLE t_patches(" CLOCK                                                                  \
  "_nulls TEXT, id INTEGER, v TEXT, n INTEGER, deletedAt INTEGER);"                                \
  "CREATE TABLE plain(id INTEGER PRIMARY KEY, v TEXT);"

static cluster *single(void) {
  return cluster_start(1, DDL);
}

/* What memory says is what the file says, now and after a restart (I3). */
static void check_memory_is_disk(peer *p) {
  for (int restarted = 0; restarted < 2; restarted++) {
    sqlite3 *db = peer_sql(p);
    CHECK_INT(sql_int(db, "SELECT count(*) FROM t_patches WHERE _peerId = 101"), peer_at(p, 101));
    CHECK_INT(
        sql_int(db, "SELECT coalesce(max(_sequenceId), 0) FROM t_patches WHERE _peerId = 101"),
        peer_at(p, 101));
    CHECK_INT(
        sql_int(db, "SELECT coalesce(max(sequence), 0) FROM _replic_vector WHERE origin = 101"),
        peer_at(p, 101));
    CHECK_TEXT(sql_text(db, "PRAGMA integrity_check"), "ok");
    if (restarted) break;
    peer_stop(p);
    peer_start(p);
  }
}

static int64_t put(peer *p, int64_t id, const char *v) {
  return upsert(p, "t", ROW({"id", v_int(id)}, {"v", v_text(v)}));
}

/* Inside an open batch. */
static int put_in_batch(peer *p, int64_t id, int64_t n, int64_t *sequence) {
  static const char *const COLUMNS[] = {"id", "n"};
  const replic_value values[] = {v_int(id), v_int(n)};
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, 1, values};
  return replic_write(p->r, &change, 1, sequence);
}

/* ---- batches ---- */

static void a_batch_commits_together(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence;
  peer_begin(p);
  for (int64_t i = 1; i <= 3; i++) {
    CHECK_OK(p->r, put_in_batch(p, i, i, &sequence));
    CHECK_INT(sequence, i);
  }
  CHECK_INT(peer_at(p, 101), 0); /* nobody may see it before the commit */
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 0);
  peer_forget_events(p);
  CHECK_OK(p->r, peer_commit(p));
  CHECK_INT(peer_at(p, 101), 3);
  CHECK_INT(event_count(p, REPLIC_EVENT_VECTOR), 1);
  CHECK_INT(event_last(p, REPLIC_EVENT_VECTOR)->a, 3);
  CHECK_INT(event_last(p, REPLIC_EVENT_VECTOR)->b, c->now_ms);
  CHECK_INT(event_last(p, REPLIC_EVENT_VECTOR)->origin, 101);
  CHECK_INT(event_count(p, REPLIC_EVENT_CHANGE), 1);
  CHECK_TEXT(event_last(p, REPLIC_EVENT_CHANGE)->text, "t");
  CHECK_INT(event_last(p, REPLIC_EVENT_CHANGE)->code, 1);
  check_memory_is_disk(p);
}

static void a_rollback_leaves_no_hole(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence;
  put(p, 1, "kept");
  for (int i = 0; i < 3; i++) {
    peer_forget_events(p);
    peer_begin(p);
    CHECK_OK(p->r, put_in_batch(p, 2, i, &sequence));
    CHECK_INT(sequence, 2);
    peer_rollback(p);
    CHECK_INT(event_count(p, REPLIC_EVENT_VECTOR) + event_count(p, REPLIC_EVENT_CHANGE), 0);
  }
  CHECK_INT(put(p, 3, "next"), 2);
  check_memory_is_disk(p);
}

static void a_call_that_fails_fails_alone(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence, changes, rowid;
  peer_begin(p);
  CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
  CHECK_CODE(p->r, put_in_batch(p, 2, 100, &sequence), SQLITE_CONSTRAINT_CHECK);
  CHECK_INT(sequence, 0);
  CHECK_OK(p->r, put_in_batch(p, 3, 3, &sequence));
  CHECK_INT(sequence, 2);
  static const char TWO[] = "INSERT INTO plain VALUES(1, 'a'); INSERT INTO plain VALUES(1, 'b')";
  CHECK_CODE(p->r, replic_run(p->r, TWO, strlen(TWO), 1, 0, NULL, 0, &changes, &rowid),
             SQLITE_CONSTRAINT_PRIMARYKEY);
  CHECK_OK(p->r, put_in_batch(p, 4, 4, &sequence));
  CHECK_INT(sequence, 3);
  CHECK_OK(p->r, peer_commit(p));
  CHECK_TEXT(peer_dump(p, "t"), "i1|n|i1|n\ni3|n|i3|n\ni4|n|i4|n\n");
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM plain"), 0);
  check_memory_is_disk(p);
}

/* The first call of a transaction has no savepoint of SQLite's; the others have. */
static void a_first_call_that_fails_leaves_nothing(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence;
  replic_counters before, after;
  peer_forget_events(p);
  replic_get_counters(p->r, &before);
  peer_begin(p);
  CHECK_CODE(p->r, put_in_batch(p, 1, 100, &sequence), SQLITE_CONSTRAINT_CHECK);
  CHECK(sqlite3_get_autocommit(p->r->db)); /* the next call begins another transaction */
  CHECK_CODE(p->r, put_in_batch(p, 2, 100, &sequence), SQLITE_CONSTRAINT_CHECK);
  CHECK_OK(p->r, peer_commit(p));
  replic_get_counters(p->r, &after);
  before.commits = after.commits;
  CHECK(memcmp(&before, &after, sizeof before) == 0);
  CHECK_INT(p->n_events, 0);
  check_memory_is_disk(p);
  peer_begin(p);
  CHECK_CODE(p->r, put_in_batch(p, 1, 100, &sequence), SQLITE_CONSTRAINT_CHECK);
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence));
  CHECK_INT(sequence, 1);
  CHECK_OK(p->r, peer_commit(p));
  CHECK_TEXT(peer_dump(p, "t"), "i2|n|i2|n\n");
  check_memory_is_disk(p);
}

/* The same where the lock was taken before the first call; and with no call at all. */
static void a_batch_that_begins_now(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence;
  CHECK_OK(p->r, replic_begin_now(p->r, c->now_ms));
  CHECK(!sqlite3_get_autocommit(p->r->db));
  CHECK_CODE(p->r, put_in_batch(p, 1, 100, &sequence), SQLITE_CONSTRAINT_CHECK);
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence));
  CHECK_CODE(p->r, put_in_batch(p, 3, 100, &sequence), SQLITE_CONSTRAINT_CHECK);
  CHECK_OK(p->r, put_in_batch(p, 4, 4, &sequence));
  CHECK_INT(sequence, 2);
  CHECK_OK(p->r, peer_commit(p));
  CHECK_TEXT(peer_dump(p, "t"), "i2|n|i2|n\ni4|n|i4|n\n");
  check_memory_is_disk(p);
  replic_counters before, after;
  replic_get_counters(p->r, &before);
  CHECK_OK(p->r, replic_begin_now(p->r, c->now_ms));
  CHECK_CODE(p->r, replic_begin_now(p->r, c->now_ms), REPLIC_EUSAGE);
  CHECK_OK(p->r, peer_commit(p));
  replic_get_counters(p->r, &after);
  CHECK_INT(after.commits, before.commits);
  CHECK(sqlite3_get_autocommit(p->r->db));
  CHECK_OK(p->r, replic_begin_now(p->r, c->now_ms));
  peer_rollback(p);
  CHECK(sqlite3_get_autocommit(p->r->db));
  check_memory_is_disk(p);
}

/* Calls as the binding makes them: together up to one that fails, then again one by one. */
static void put_together(peer *p, const int64_t *n, size_t count, int *codes, int64_t *sequences) {
  for (size_t first = 0, i; first < count; first = i) {
    int rc = REPLIC_OK;
    CHECK_OK(p->r, replic_together(p->r));
    for (i = first; i < count && rc == REPLIC_OK; i++)
      codes[i] = rc = put_in_batch(p, (int64_t)i, n[i], &sequences[i]);
    CHECK_CODE(p->r, replic_apart(p->r, rc), rc);
    for (size_t k = first; k < i && rc != REPLIC_OK; k++)
      codes[k] = put_in_batch(p, (int64_t)k, n[k], &sequences[k]);
  }
}

static void calls_made_together_are_as_calls_made_alone(void) {
  static const int64_t N[] = {1, 2, 100, 3, 100, 100, 4, 5, 100};
  enum { COUNT_N = COUNT(N) };
  char *seen[2];
  replic_counters counters[2];
  for (int together = 0; together < 2; together++) {
    cluster *c = single();
    peer *p = &c->peers[0];
    int codes[COUNT_N];
    int64_t sequences[COUNT_N];
    char *text = test_format("%s", "");
    peer_forget_events(p);
    for (int first = 0; first < 2; first++) { /* once with a call before them */
      peer_begin(p);
      if (first) CHECK_OK(p->r, put_in_batch(p, 1000, 1, sequences));
      if (together)
        put_together(p, N, COUNT_N, codes, sequences);
      else
        for (size_t i = 0; i < COUNT_N; i++)
          codes[i] = put_in_batch(p, (int64_t)i, N[i], &sequences[i]);
      CHECK_OK(p->r, peer_commit(p));
      for (size_t i = 0; i < COUNT_N; i++)
        text = test_format("%s%d:%lld ", text, codes[i], (long long)sequences[i]);
    }
    for (size_t i = 0; i < p->n_events; i++)
      text = test_format("%s%d:%lld ", text, p->events[i].kind, (long long)p->events[i].a);
    seen[together] = test_format("%s\n%s%s%lld", text, peer_dump(p, "t"), peer_dump(p, "t_patches"),
                                 (long long)replic_clock_high(p->r));
    replic_get_counters(p->r, &counters[together]);
    check_memory_is_disk(p);
  }
  CHECK_TEXT(seen[1], seen[0]);
  CHECK(memcmp(&counters[0], &counters[1], sizeof counters[0]) == 0);
}

static void a_batch_that_is_undone_as_a_whole_is_lost_together(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence;
  /* as another program would: registering refuses it */
  sql_exec(p->r->db, "CREATE TRIGGER g BEFORE INSERT ON t WHEN new.n = 13 BEGIN SELECT "
                     "RAISE(ROLLBACK, 'all'); END");
  peer_begin(p);
  CHECK_INT(replic_apart(p->r, REPLIC_OK), REPLIC_EUSAGE);
  CHECK_OK(p->r, replic_together(p->r));
  CHECK_INT(replic_together(p->r), REPLIC_EUSAGE);
  CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
  CHECK_CODE(p->r, put_in_batch(p, 2, 13, &sequence), SQLITE_CONSTRAINT_TRIGGER);
  CHECK_INT(replic_apart(p->r, SQLITE_CONSTRAINT_TRIGGER), SQLITE_ABORT_ROLLBACK);
  CHECK_INT(replic_together(p->r), SQLITE_ABORT_ROLLBACK);
  CHECK_CODE(p->r, put_in_batch(p, 3, 3, &sequence), SQLITE_ABORT_ROLLBACK);
  CHECK_CODE(p->r, peer_commit(p), SQLITE_ABORT_ROLLBACK);
  CHECK_TEXT(peer_dump(p, "t"), "");
  sql_exec(p->r->db, "DROP TRIGGER g");
  check_memory_is_disk(p);
  peer_begin(p);
  CHECK_OK(p->r, replic_together(p->r));
  CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
  peer_rollback(p); /* in the midst of it */
  put(p, 2, "goes on");
  check_memory_is_disk(p);
}

static int stop_sql(void *ctx, int is_sql) {
  return is_sql && *(int *)ctx;
}

#define COUNT_TO(n)                                                                                \
  "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < " #n ") "

/* SQLite undoes the transaction of a write that is stopped: the first call of a batch is all of it,
 * and its neighbours go on. A read undoes nothing. What is not the application's is not stopped. */
static void a_call_that_is_stopped(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int stop = 1;
  int64_t sequence, changes, rowid;
  static const char FILL[] =
      "INSERT INTO plain SELECT i, i FROM (" COUNT_TO(100000) "SELECT i FROM k)";
  static const char READ[] = COUNT_TO(100000) "SELECT count(*) FROM k";
  replic_on_steps(p->r, stop_sql, &stop);
  peer_begin(p);
  CHECK_CODE(p->r, replic_run(p->r, FILL, strlen(FILL), 0, 0, NULL, 0, &changes, &rowid),
             SQLITE_INTERRUPT);
  CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
  CHECK_INT(sequence, 1);
  CHECK_CODE(p->r, replic_run(p->r, READ, strlen(READ), 0, 0, NULL, 0, &changes, &rowid),
             SQLITE_INTERRUPT);
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence));
  CHECK_OK(p->r, peer_commit(p));
  CHECK_TEXT(peer_dump(p, "plain"), "");
  check_memory_is_disk(p);

  replic_on_steps(p->r, stop_sql, &stop); /* it has been opened again */
  peer_begin(p);
  CHECK_OK(p->r, put_in_batch(p, 3, 3, &sequence));
  CHECK_CODE(p->r, replic_run(p->r, FILL, strlen(FILL), 0, 0, NULL, 0, &changes, &rowid),
             SQLITE_INTERRUPT);
  CHECK_CODE(p->r, put_in_batch(p, 4, 4, &sequence), SQLITE_ABORT_ROLLBACK);
  CHECK_CODE(p->r, peer_commit(p), SQLITE_ABORT_ROLLBACK);
  check_memory_is_disk(p);
  CHECK_INT(replic__vector_sequence(p->r, p->r->peer_id), 2);

  replic_on_steps(p->r, stop_sql, &stop);
  stop = 0;
  run_sql(p, FILL);
  put(p, 5, "goes on");
  check_memory_is_disk(p);
}

static void a_group_is_all_or_nothing(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  static const char *const COLUMNS[] = {"id", "n"};
  const replic_value good[] = {v_int(1), v_int(1), v_int(2), v_int(2)};
  const replic_value bad[] = {v_int(3), v_int(3), v_int(4), v_int(400)};
  const replic_change changes[] = {{REPLIC_UPSERT, "t", 2, COLUMNS, 2, good},
                                   {REPLIC_UPSERT, "t", 2, COLUMNS, 2, bad}};
  int64_t sequence;
  CHECK_CODE(p->r, try_write(p, changes, 2, &sequence), SQLITE_CONSTRAINT_CHECK);
  CHECK_CONTAINS(replic_error_text(p->r), "CHECK");
  CHECK_INT(sequence, 0);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 0);
  CHECK_OK(p->r, try_write(p, changes, 1, &sequence));
  CHECK_INT(sequence, 2);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(DISTINCT _patchedAt) FROM t_patches"), 1);
  check_memory_is_disk(p);
}

static void a_group_of_no_rows_issues_nothing(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence;
  put(p, 1, "x");
  const replic_change none = {REPLIC_UPSERT, "t", 0, NULL, 0, NULL};
  CHECK_OK(p->r, try_write(p, &none, 1, &sequence));
  CHECK_INT(sequence, 1); /* what to wait for: all that came before */
  CHECK_OK(p->r, try_write(p, NULL, 0, &sequence));
  CHECK_INT(put(p, 2, "y"), 2);
  check_memory_is_disk(p);
}

static int refuse_commit(void *context) {
  (void)context;
  return 1;
}

static void a_commit_that_fails_undoes_memory_too(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence;
  put(p, 1, "kept");
  peer_forget_events(p);
  peer_begin(p);
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence));
  sqlite3_commit_hook(p->r->db, refuse_commit, NULL);
  CHECK_CODE(p->r, peer_commit(p), SQLITE_CONSTRAINT_COMMITHOOK);
  sqlite3_commit_hook(p->r->db, NULL, NULL);
  CHECK_INT(peer_at(p, 101), 1);
  CHECK_INT(event_count(p, REPLIC_EVENT_VECTOR) + event_count(p, REPLIC_EVENT_CHANGE), 0);
  CHECK_INT(put(p, 2, "again"), 2);
  check_memory_is_disk(p);
}

static void a_full_disk_undoes_what_did_not_fit(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "kept");
  sql_exec(p->r->db, test_format("PRAGMA max_page_count = %lld",
                                 (long long)sql_int(p->r->db, "PRAGMA page_count") + 2));
  char *big = test_alloc(300001);
  memset(big, 'x', 300000);
  int64_t sequence;
  peer_begin(p);
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence));
  static const char *const COLUMNS[] = {"id", "v"};
  const replic_value values[] = {v_int(3), v_text(big)};
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, 1, values};
  CHECK_CODE(p->r, replic_write(p->r, &change, 1, &sequence), SQLITE_FULL);
  CHECK_INT(sequence, 0);
  int rc = put_in_batch(
      p, 4, 4, &sequence); /* whether SQLite could undo the one statement alone is its affair: */
  int committed = peer_commit(p); /* but both calls must hear the same */
  CHECK_INT(rc == REPLIC_OK, committed == REPLIC_OK);
  CHECK_INT(peer_at(p, 101), committed == REPLIC_OK ? 3 : 1);
  sql_exec(p->r->db, "PRAGMA max_page_count = 1000000");
  check_memory_is_disk(p);
  put(p, 5, "goes on");
  check_memory_is_disk(p);
}

static void a_locked_database_delays_and_loses_nothing(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  sql_exec(peer_sql(p), "BEGIN IMMEDIATE");
  int64_t sequence;
  peer_begin(p);
  CHECK_CODE(p->r, put_in_batch(p, 1, 1, &sequence), SQLITE_BUSY);
  CHECK(strstr(replic_error_text(p->r), p->r->path) != NULL);
  CHECK(strstr(replic_error_text(p->r), "another program holds the write lock") != NULL);
  sql_exec(peer_sql(p), "COMMIT"); /* met once per batch */
  CHECK_CODE(p->r, put_in_batch(p, 1, 1, &sequence), SQLITE_BUSY);
  CHECK(replic_is_busy(p->r));
  CHECK_OK(p->r, peer_commit(p));
  CHECK(replic_is_busy(p->r));
  sql_exec(peer_sql(p), "BEGIN IMMEDIATE");
  CHECK_CODE(p->r, replic_begin_now(p->r, c->now_ms), SQLITE_BUSY);
  sql_exec(peer_sql(p), "COMMIT");
  CHECK_OK(p->r, replic_begin_busy(p->r, c->now_ms)); /* which does not even try */
  CHECK_CODE(p->r, put_in_batch(p, 1, 1, &sequence), SQLITE_BUSY);
  CHECK_OK(p->r, peer_commit(p));
  peer_begin(p);
  CHECK(!replic_is_busy(p->r));
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence));
  CHECK_INT(sequence, 1);
  CHECK_OK(p->r, peer_commit(p));
  check_memory_is_disk(p);
}

/* What fails first is undone with its transaction, and the lock may be gone when the next begins.
 */
static void a_lock_that_is_lost_within_a_batch(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence, changes, rowid;
  static const char BAD[] = "INSERT INTO nowhere VALUES(1)";
  peer_begin(p);
  CHECK_CODE(p->r, replic_run(p->r, BAD, strlen(BAD), 0, 0, NULL, 0, &changes, &rowid),
             SQLITE_ERROR);
  sql_exec(peer_sql(p), "BEGIN IMMEDIATE");
  CHECK_CODE(p->r, put_in_batch(p, 1, 1, &sequence), SQLITE_BUSY);
  CHECK_OK(p->r, peer_commit(p));
  sql_exec(peer_sql(p), "COMMIT");
  check_memory_is_disk(p);
  peer_begin(p);
  CHECK_CODE(p->r, replic_run(p->r, BAD, strlen(BAD), 0, 0, NULL, 0, &changes, &rowid),
             SQLITE_ERROR);
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence));
  CHECK_INT(sequence, 1);
  CHECK_OK(p->r, peer_commit(p));
  check_memory_is_disk(p);
}

/* A deferred foreign key fails at the end of the call, not at the commit of everybody's batch. */
static void a_deferred_foreign_key_fails_its_own_call(void) {
  cluster *c = cluster_start(1, DDL "CREATE TABLE child(id INTEGER PRIMARY KEY, up INTEGER "
                                    "REFERENCES plain(id) DEFERRABLE INITIALLY "
                                    "DEFERRED);");
  peer *p = &c->peers[0];
  static const char BAD[] = "INSERT INTO child VALUES(1, 7)",
                    GOOD[] = "INSERT INTO child VALUES(2, 8); INSERT INTO plain VALUES(8, 'x')";
  int64_t sequence, changes, rowid;
  peer_begin(p);
  CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
  CHECK_CODE(p->r, replic_run(p->r, BAD, strlen(BAD), 1, 0, NULL, 0, &changes, &rowid),
             SQLITE_CONSTRAINT_FOREIGNKEY);
  CHECK_OK(p->r, replic_run(p->r, GOOD, strlen(GOOD), 1, 0, NULL, 0, &changes, &rowid));
  CHECK_INT(changes, 2);
  CHECK_OK(p->r, peer_commit(p));
  CHECK_TEXT(peer_dump(p, "child"), "i2|i8\n");
  check_memory_is_disk(p);
}

static void calls_out_of_order_are_refused(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t sequence, changes, rowid;
  CHECK_CODE(p->r, replic_commit(p->r), REPLIC_EUSAGE);
  CHECK_CODE(p->r, put_in_batch(p, 1, 1, &sequence), REPLIC_EUSAGE);
  CHECK_CODE(p->r, replic_run(p->r, "SELECT 1", 8, 0, 0, NULL, 0, &changes, &rowid), REPLIC_EUSAGE);
  replic_rollback(p->r);
  peer_begin(p);
  CHECK_CODE(p->r, replic_begin(p->r, c->now_ms), REPLIC_EUSAGE);
  CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
  CHECK_CODE(p->r, try_migrate(p, 2, "CREATE TABLE x(a)", ""), REPLIC_EUSAGE);
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence)); /* the open batch is untouched */
  CHECK_OK(p->r, peer_commit(p));
  CHECK_INT(peer_at(p, 101), 2);
  check_memory_is_disk(p);
}

/* ---- interruption ---- */

static int interrupt_now(void *r) {
  replic_interrupt(r); /* as another thread may, while this statement runs */
  return 0;
}

static int run_interrupted(peer *p, const char *sql) {
  int64_t changes, rowid;
  sqlite3_progress_handler(p->r->db, 1000, interrupt_now, p->r);
  int rc = replic_run(p->r, sql, strlen(sql), 0, 0, NULL, 0, &changes, &rowid);
  sqlite3_progress_handler(p->r->db, 0, NULL, NULL);
  return rc;
}

/* An interrupted query fails alone; an interrupted write may cost its batch, which then says so. */
static void an_interrupted_statement_undoes_itself(void) {
  static const char *const LONG[] = {
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000000) SELECT "
      "max(i) FROM n",
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000000) INSERT INTO "
      "plain SELECT i, i FROM n",
  };
  for (size_t i = 0; i < COUNT(LONG); i++) {
    test_note("%s", LONG[i]);
    cluster *c = single();
    peer *p = &c->peers[0];
    int64_t sequence;
    peer_begin(p);
    CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
    CHECK_CODE(p->r, run_interrupted(p, LONG[i]), SQLITE_INTERRUPT);
    bool goes_on = put_in_batch(p, 2, 2, &sequence) == REPLIC_OK;
    CHECK_INT(peer_commit(p) == REPLIC_OK, goes_on);
    if (i == 0) CHECK(goes_on);
    CHECK_INT(peer_at(p, 101), goes_on ? 2 : 0);
    CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM plain"), 0);
    check_memory_is_disk(p);
    CHECK_INT(put(p, 3, "afterwards"), goes_on ? 3 : 1);
    replic_interrupt(p->r); /* nothing runs: it interrupts nothing, and nothing later */
    CHECK_INT(put(p, 4, "afterwards"), goes_on ? 4 : 2);
    test_release();
  }
}

/* The process dies between two commits: what was committed is there, the open batch is not. */
static void a_process_that_dies_loses_only_its_open_batch(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "before");
  peer_stop(p);
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    int64_t sequence;
    replic *r = NULL;
    bool ok = replic_open(&p->config, c->now_ms, &r) == REPLIC_OK;
    p->r = r;
    for (int64_t i = 2; ok && i <= 4; i++) {
      ok = replic_begin(r, c->now_ms) == REPLIC_OK &&
           put_in_batch(p, i, i, &sequence) == REPLIC_OK && replic_commit(r) == REPLIC_OK;
    }
    ok = ok && replic_begin(r, c->now_ms) == REPLIC_OK &&
         put_in_batch(p, 5, 5, &sequence) == REPLIC_OK;
    _exit(ok ? 7 : 8);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  peer_start(p);
  CHECK(!replic_is_new_peer(p->r));
  CHECK_INT(peer_at(p, 101), 4);
  CHECK_INT(put(p, 6, "after"), 5);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t WHERE id = 5"), 0);
  check_memory_is_disk(p);
}

/* ---- wrong writes ---- */

static void wrong_writes_name_what_is_wrong(void) {
  cluster *c =
      cluster_start(1, DDL "CREATE TABLE nodel(a TEXT, b TEXT, v TEXT NOT NULL, PRIMARY KEY(a, b));"
                           "CREATE TABLE nodel_patches(" CLOCK "a TEXT, b TEXT, v TEXT);");
  peer *p = &c->peers[0];
  put(p, 1, "x");
  CHECK_CODE(p->r, try_upsert(p, "absent", ROW({"id", v_int(1)})), REPLIC_ETABLE);
  CHECK_CONTAINS(replic_error_text(p->r), "absent");
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_int(1)}, {"vv", v_int(1)})), REPLIC_ECOLUMN);
  CHECK_CONTAINS(replic_error_text(p->r), "vv");
  CHECK_CONTAINS(replic_error_text(p->r), "t");
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_int(1)}, {"_peerId", v_int(1)})),
             REPLIC_ECOLUMN);
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_int(1)}, {"V", v_int(1)})),
             REPLIC_ECOLUMN);
  CHECK_CONTAINS(replic_error_text(p->r), "twice");
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"v", v_text("x")})), REPLIC_EKEY);
  CHECK_CONTAINS(replic_error_text(p->r), "id");
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_null()}, {"v", v_text("x")})), REPLIC_EKEY);
  CHECK_CODE(p->r, try_upsert(p, "nodel", ROW({"a", v_text("x")}, {"v", v_text("x")})),
             REPLIC_EKEY);
  CHECK_CONTAINS(replic_error_text(p->r), "nodel.b");
  CHECK_CODE(p->r, try_upsert(p, "nodel", ROW({"a", v_text("x")}, {"b", v_text("x")})),
             SQLITE_CONSTRAINT_NOTNULL);
  CHECK_CONTAINS(replic_error_text(p->r), "nodel.v");
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_text("not a number")}, {"v", v_text("x")})),
             SQLITE_MISMATCH);
  CHECK_CODE(p->r, try_erase(p, "nodel", ROW({"a", v_text("x")}, {"b", v_text("y")})),
             REPLIC_ENODELETE);
  CHECK_CONTAINS(replic_error_text(p->r), "nodel");
  CHECK_CONTAINS(replic_error_text(p->r), "deletedAt");
  CHECK_CODE(p->r, try_erase(p, "t", ROW({"id", v_int(99)})), REPLIC_ENOTFOUND);
  CHECK_CODE(p->r, try_erase(p, "t", ROW({"v", v_text("x")})), REPLIC_EKEY);
  CHECK_INT(peer_at(p, 101), 1);
  CHECK_TEXT(peer_dump(p, "t"), "i1|t78|n|n\n");
  check_memory_is_disk(p);
}

static void a_deletion_sets_deletedAt_to_its_clock(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "x");
  c->now_ms += 5;
  CHECK_INT(erase(p, "t", ROW({"id", v_int(1)})), 2);
  CHECK_INT(sql_int(peer_sql(p), "SELECT deletedAt FROM t"), c->now_ms);
  CHECK_INT(
      sql_int(peer_sql(p),
              "SELECT deletedAt = _patchedAt AND v IS NULL FROM t_patches WHERE _sequenceId = 2"),
      1);
}

static void a_group_beyond_the_limit_is_refused(void) {
  cluster *c = cluster_new();
  for (int i = 0; i < 2; i++) {
    peer *p = cluster_add(c);
    p->config.max_frame_bytes = 10000;
    peer_start(p);
    CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  }
  wire_open(c, 0, 1);
  peer *p = &c->peers[0];
  char *text = test_alloc(20001);
  memset(text, 'x', 9900);
  put(p, 1, text);
  memset(text, 'x', 10001);
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_int(2)}, {"v", v_text(text)})),
             REPLIC_ETOOLARGE);
  CHECK_CONTAINS(replic_error_text(p->r), "10000");
  CHECK_CONTAINS(replic_error_text(p->r), "load");
  enum { N = 2000 };
  static const char *const COLUMNS[] = {"id"};
  replic_value *values = test_alloc(N * sizeof *values);
  for (int i = 0; i < N; i++) values[i] = v_int(i);
  const replic_change change = {REPLIC_UPSERT, "t", 1, COLUMNS, N, values};
  int64_t sequence;
  CHECK_CODE(p->r, try_write(p, &change, 1, &sequence), REPLIC_ETOOLARGE);
  CHECK_INT(put(p, 2, "small"), 2);
  cluster_settle(c);
  cluster_same(c, "t");
  check_memory_is_disk(p);
}

/* The largest group that is accepted must also fit the other side's frame limit, whatever it is
 * made of. */
static void the_largest_group_reaches_the_other_peer(void) {
  enum { N_COLUMNS = 100 };
  char *columns = "id INTEGER PRIMARY KEY", *plain = "id INTEGER";
  for (int i = 0; i < N_COLUMNS; i++) {
    columns = test_format("%s, c%d INTEGER", columns, i);
    plain = test_format("%s, c%d INTEGER", plain, i);
  }
  cluster *c = cluster_new();
  for (int i = 0; i < 2; i++) {
    peer *p = cluster_add(c);
    p->config.max_frame_bytes = 24 << 20;
    peer_start(p);
    CHECK_OK(p->r, try_migrate(p, 1,
                               test_format("CREATE TABLE wide(%s); CREATE TABLE wide_patches(" CLOCK
                                           "%s);",
                                           columns, plain),
                               ""));
  }
  const char **names = test_alloc((N_COLUMNS + 1) * sizeof *names);
  for (int i = 0; i < N_COLUMNS; i++) names[i + 1] = test_format("c%d", i);
  names[0] = "id";
  int64_t sequence = 0;
  for (size_t n = (24 << 20) / (10 * (N_COLUMNS + 1)); !sequence;
       n -= n / 20) { /* the most rows that are accepted */
    replic_value *values = test_alloc(n * (N_COLUMNS + 1) * sizeof *values);
    for (size_t i = 0; i < n * (N_COLUMNS + 1); i++) values[i] = v_int(INT64_MIN + (int64_t)i);
    const replic_change change = {REPLIC_UPSERT, "wide", N_COLUMNS + 1, names, n, values};
    int rc = try_write(&c->peers[0], &change, 1, &sequence);
    if (rc != REPLIC_ETOOLARGE) CHECK_OK(c->peers[0].r, rc);
    CHECK(n > 1000);
  }
  wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK_INT(event_count(&c->peers[1], REPLIC_EVENT_LINK_CLOSE), 0);
  CHECK_INT(sql_int(peer_sql(&c->peers[1]), "SELECT count(*) FROM wide"), sequence);
}

/* ---- SQL of the application's own ---- */

static void direct_writes_are_refused(void) {
  static const char *const REFUSED[] = {
      "INSERT INTO t(id) VALUES(9)",
      "INSERT OR REPLACE INTO T(id) VALUES(1)",
      "UPDATE t SET v = 'y'",
      "UPDATE main.t SET v = 'y' WHERE id = 1",
      "DELETE FROM t",
      "WITH x AS (SELECT 1) DELETE FROM t WHERE id IN x",
      "INSERT INTO t(id) SELECT 5 ON CONFLICT DO UPDATE SET v = 'z'",
      "DELETE FROM t_patches",
      "INSERT INTO T_PATCHES(_patchedAt, _sequenceId, _peerId, id) VALUES(1, 2, 3, 4)",
      "INSERT INTO plain VALUES(1, 'fires')",
      "INSERT INTO v_t(id) VALUES(7)",
      "ALTER TABLE t ADD COLUMN x",
      "ALTER TABLE t_patches ADD COLUMN x",
      "ALTER TABLE t RENAME TO s",
      "ALTER TABLE plain RENAME TO t_patches_old; ALTER TABLE t_patches RENAME TO x",
      "DROP TABLE t",
      "DROP TABLE t_patches",
      "CREATE INDEX i ON t(v)",
      "DROP INDEX _replic_t_patches_key",
      "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
      "CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t_patches; END",
      "CREATE TEMP TRIGGER g AFTER INSERT ON main.t BEGIN SELECT RAISE(ABORT, 'no'); END",
      "DELETE FROM _replic_vector",
      "UPDATE _replic_meta SET value = 5",
      "DROP TABLE _replic_meta",
      "CREATE TABLE _replic_mine(x)",
  };
  cluster *c = cluster_start(
      1, DDL "CREATE TRIGGER fires AFTER INSERT ON plain BEGIN UPDATE t SET v = 'z'; END;"
             "CREATE VIEW v_t AS SELECT id FROM t;"
             "CREATE TRIGGER v_into INSTEAD OF INSERT ON v_t BEGIN INSERT INTO t(id) "
             "VALUES(new.id); END;");
  peer *p = &c->peers[0];
  put(p, 1, "x");
  for (size_t i = 0; i < COUNT(REFUSED); i++) {
    test_note("%s", REFUSED[i]);
    CHECK_CODE(p->r, try_run(p, REFUSED[i], 0), REPLIC_EDIRECT);
  }
  CHECK_CODE(p->r, try_run(p, "UPDATE t SET v = 'y'", 0), REPLIC_EDIRECT);
  CHECK_CONTAINS(replic_error_text(p->r),
                 "t is replicated: use upsert, delete or batch. { unsafe: true }");
  for (size_t i = COUNT(REFUSED) - 4; i < COUNT(REFUSED); i++) {
    test_note("unsafe: %s", REFUSED[i]);
    CHECK_CODE(p->r, try_run(p, REFUSED[i], 1), REPLIC_EDIRECT);
  }
  CHECK_TEXT(peer_dump(p, "t"), "i1|t78|n|n\n");
  run_sql(p, "UPDATE t SET v = 'unsafe'; DELETE FROM t_patches WHERE 0");
  CHECK_CONTAINS(peer_dump(p, "t"), "t756e73616665");
  put(p, 2, "y");
  check_memory_is_disk(p);
}

static void transactions_belong_to_the_engine(void) {
  static const char *const REFUSED[] = {
      "BEGIN",
      "BEGIN IMMEDIATE",
      "COMMIT",
      "END",
      "ROLLBACK",
      "SAVEPOINT a",
      "RELEASE call",
      "ROLLBACK TO call",
      "ATTACH ':memory:' AS other",
      "ATTACH 'x.db' AS y",
      "DETACH main",
      "VACUUM",
      "/* all */ VACUUM INTO 'x.db'",
      "PRAGMA journal_mode = DELETE",
      "PRAGMA main.journal_mode = OFF",
      "PRAGMA synchronous = OFF",
      "PRAGMA synchronous(0)",
      "PRAGMA locking_mode = EXCLUSIVE",
      "PRAGMA foreign_keys = 0",
      "PRAGMA ignore_check_constraints = 1",
      "PRAGMA writable_schema = 1",
      "PRAGMA query_only = 1",
      "PRAGMA schema_version = 7",
      "PRAGMA recursive_triggers = 1",
      "PRAGMA wal_autocheckpoint = 0",
      "PRAGMA defer_foreign_keys = 1",
      "PRAGMA busy_timeout = 0",
      "PRAGMA case_sensitive_like = 1",
  };
  cluster *c = single();
  peer *p = &c->peers[0];
  for (size_t i = 0; i < COUNT(REFUSED); i++) {
    test_note("%s", REFUSED[i]);
    CHECK_CODE(p->r, try_run(p, test_format("INSERT INTO plain VALUES(1, 'x'); %s", REFUSED[i]), 0),
               REPLIC_ETRANSACTION);
    CHECK_CODE(p->r, try_run(p, REFUSED[i], 1), REPLIC_ETRANSACTION);
    CHECK_CODE(p->r, try_migrate(p, 2, REFUSED[i], ""), REPLIC_ETRANSACTION);
    CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM plain"), 0);
  }
  CHECK_CODE(p->r, try_run(p, "COMMIT", 0), REPLIC_ETRANSACTION);
  CHECK_CONTAINS(replic_error_text(p->r), "batch()");
  CHECK_OK(
      p->r,
      try_run(p,
              "PRAGMA journal_mode; PRAGMA user_version = 5; PRAGMA table_list; ANALYZE; REINDEX",
              0));
  CHECK_INT(sql_int(peer_sql(p), "PRAGMA user_version"), 5);
  put(p, 1, "x");
  check_memory_is_disk(p);
}

static int run_with(peer *p, const char *sql, const replic_param *params, size_t n,
                    int64_t *changes, int64_t *rowid) {
  peer_begin(p);
  int rc = replic_run(p->r, sql, strlen(sql), 0, 0, params, n, changes, rowid);
  if (rc == REPLIC_OK) return peer_commit(p);
  peer_rollback(p);
  return rc;
}

static void parameters_of_run(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  int64_t changes, rowid;
  const replic_param two[] = {{NULL, v_int(7)}, {NULL, v_text("seven")}};
  CHECK_OK(p->r, run_with(p, "INSERT INTO plain VALUES(?, ?)", two, 2, &changes, &rowid));
  CHECK_INT(changes, 1);
  CHECK_INT(rowid, 7);
  const replic_param named[] = {{"v", v_text("named")}, {"id", v_int(7)}};
  CHECK_OK(p->r, run_with(p, "UPDATE plain SET v = :v WHERE id = @id", named, 2, &changes, &rowid));
  CHECK_INT(changes, 1);
  CHECK_TEXT(peer_dump(p, "plain"), "i7|t6e616d6564\n");
  CHECK_CODE(p->r,
             run_with(p, "UPDATE plain SET v = $v WHERE id = $no", named, 2, &changes, &rowid),
             REPLIC_EUSAGE);
  CHECK_CONTAINS(replic_error_text(p->r), "$no was not given");
  CHECK_CODE(p->r, run_with(p, "INSERT INTO plain VALUES(?, ?)", two, 1, &changes, &rowid),
             REPLIC_EUSAGE);
  CHECK_CONTAINS(replic_error_text(p->r), "2 parameters, 1");
  CHECK_CODE(p->r, run_with(p, "DELETE FROM plain", two, 2, &changes, &rowid), REPLIC_EUSAGE);
  CHECK_CODE(p->r, run_with(p, "SELECT 1; SELECT 2", NULL, 0, &changes, &rowid), REPLIC_EUSAGE);
  CHECK_CONTAINS(replic_error_text(p->r), "exec");
  CHECK_CODE(p->r, run_with(p, "", NULL, 0, &changes, &rowid), REPLIC_EUSAGE);
  CHECK_CODE(p->r, run_with(p, " -- nothing", NULL, 0, &changes, &rowid), REPLIC_EUSAGE);
  CHECK_CODE(p->r, run_with(p, "SELEC 1", NULL, 0, &changes, &rowid), SQLITE_ERROR);
  CHECK_CONTAINS(replic_error_text(p->r), "SELEC");
  CHECK_OK(p->r, run_with(p, "SELECT count(*) FROM plain;  -- trailing comment", NULL, 0, &changes,
                          &rowid));
  CHECK_INT(changes, 0);
  CHECK_OK(p->r, run_with(p, "INSERT INTO plain SELECT value, value FROM json_each('[1,2,3]')",
                          NULL, 0, &changes, &rowid));
  CHECK_INT(changes, 3);
  CHECK_OK(p->r, run_with(p, "CREATE TABLE other(x)", NULL, 0, &changes, &rowid));
  CHECK_INT(changes, 0);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM plain"), 4);
}

/* ---- migrations ---- */

static void migrations_go_up_and_down(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "x");
  static const char UP[] = "ALTER TABLE t ADD COLUMN w INTEGER; ALTER TABLE t_patches ADD COLUMN w "
                           "INTEGER; UPDATE plain SET v = 1";
  static const char DOWN[] = "ALTER TABLE t DROP COLUMN w; ALTER TABLE t_patches DROP COLUMN w";
  CHECK_OK(p->r, try_migrate(p, 2, UP, DOWN));
  CHECK_TEXT(sql_text(peer_sql(p), "SELECT up FROM _replic_migrations WHERE version = 2"), UP);
  CHECK_TEXT(sql_text(peer_sql(p), "SELECT down FROM _replic_migrations WHERE version = 2"), DOWN);
  upsert(p, "t", ROW({"id", v_int(1)}, {"w", v_int(5)}));
  CHECK_TEXT(peer_dump(p, "t"), "i1|t78|n|n|i5\n");
  peer_stop(p);
  peer_start(p);
  upsert(p, "t", ROW({"id", v_int(1)}, {"w", v_int(6)}));
  CHECK_OK(p->r, try_migrate(p, 2, DOWN, NULL));
  CHECK_INT(sql_int(peer_sql(p), "SELECT max(version) FROM _replic_migrations"), 1);
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_int(1)}, {"w", v_int(7)})), REPLIC_ECOLUMN);
  CHECK_TEXT(peer_dump(p, "t"), "i1|t78|n|n\n");
  CHECK_OK(p->r, try_migrate(p, 1, "DROP TABLE t; DROP TABLE t_patches; DROP TABLE plain", NULL));
  CHECK_INT(replic_table_count(p->r), 0);
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_int(1)})), REPLIC_ETABLE);
}

static void a_migration_that_fails_changes_nothing(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "x");
  static const char *const BAD[] = {
      "CREATE TABLE more(x); INSERT INTO nothing VALUES(1)",
      "CREATE TABLE more(x); SELEC",
      "CREATE TABLE more(x); DELETE FROM _replic_meta",
      "ALTER TABLE t ADD COLUMN w INTEGER",
      "DROP TABLE t_patches; CREATE TABLE t_patches(x)",
      "CREATE TABLE more(x); INSERT INTO t VALUES(1, 'dup', 1, 1)",
  };
  char *before = sql_dump(peer_sql(p), "SELECT * FROM sqlite_schema");
  for (size_t i = 0; i < COUNT(BAD); i++) {
    test_note("%s", BAD[i]);
    CHECK(try_migrate(p, 2, BAD[i], "SELECT 1") != REPLIC_OK);
    CHECK(strlen(replic_error_text(p->r)) > 10);
    CHECK_TEXT(sql_dump(peer_sql(p), "SELECT * FROM sqlite_schema"), before);
    CHECK_INT(put(p, 2, "y"), 2 + (int64_t)i);
  }
  CHECK_CODE(p->r, try_migrate(p, 3, "SELECT 1", ""), REPLIC_EMIGRATION);
  CHECK_CONTAINS(replic_error_text(p->r), "version 1");
  CHECK_CODE(p->r, try_migrate(p, 1, "SELECT 1", ""), REPLIC_EMIGRATION);
  CHECK_CODE(p->r, try_migrate(p, 2, "SELECT 1", NULL), REPLIC_EMIGRATION);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_migrations"), 1);
  check_memory_is_disk(p);
}

static int run_step(peer *p, const char *sql) {
  int64_t changes, rowid;
  return replic_step_run(p->r, sql, strlen(sql), 1, NULL, 0, &changes, &rowid);
}

static void the_calls_of_a_step(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  const replic_step second = {.kind = REPLIC_STEP_UP, .version = 2, .name = "second"},
                    third = {.kind = REPLIC_STEP_UP, .version = 3},
                    anew = {.kind = REPLIC_STEP_NOTE, .version = 1, .up = "other text"},
                    beyond = {.kind = REPLIC_STEP_NOTE, .version = 4};
  replic_rows rows = {0};
  int64_t sequence;
  peer_begin(p);
  CHECK_CODE(p->r, run_step(p, "SELECT 1"), REPLIC_EUSAGE);
  CHECK_CODE(p->r, replic_step_read(p->r, "SELECT 1", 8, NULL, 0, 1, &rows), REPLIC_EUSAGE);
  CHECK_CODE(p->r, replic_step_end(p->r), REPLIC_EUSAGE);
  CHECK_CODE(p->r, replic_step_begin(p->r, &third), REPLIC_EMIGRATION);
  CHECK_CODE(p->r, replic_step_begin(p->r, &beyond), REPLIC_EMIGRATION);
  CHECK_OK(p->r, replic_step_begin(p->r, &second));
  CHECK_CODE(p->r, replic_step_begin(p->r, &third), REPLIC_EUSAGE);
  /* T and T_patches may differ between two calls, but not where patches are written */
  CHECK_OK(p->r, run_step(p, "ALTER TABLE t ADD COLUMN w INTEGER"));
  CHECK_CODE(p->r, put_in_batch(p, 1, 1, &sequence), REPLIC_ESCHEMA);
  CHECK_CODE(p->r, put_in_batch(p, 1, 1, &sequence), REPLIC_ESCHEMA);
  CHECK_OK(p->r, run_step(p, "ALTER TABLE t_patches ADD COLUMN w INTEGER"));
  CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
  static const char READ[] = "SELECT id, w FROM t UNION ALL SELECT 2, 3";
  replic_value value;
  CHECK_OK(p->r, replic_step_read(p->r, READ, strlen(READ), NULL, 0, 1, &rows));
  CHECK_INT(rows.n_rows, 2);
  CHECK_INT(rows.n_columns, 2);
  size_t at = replic_rows_value(&rows, 0, &value);
  CHECK(value.type == REPLIC_TEXT && value.len == 2 && !memcmp(value.data, "id", 2));
  at = replic_rows_value(&rows, at, &value);
  CHECK_INT(replic_rows_value(&rows, at, &value) > at && value.i == 1, 1);
  replic_rows_free(&rows);
  CHECK_OK(p->r, replic_step_end(p->r));
  CHECK_OK(p->r, replic_step_begin(p->r, &third)); /* several steps, one transaction */
  CHECK_OK(p->r, replic_step_end(p->r));
  CHECK_OK(p->r, replic_step_begin(p->r, &anew));
  CHECK_OK(p->r, replic_step_end(p->r));
  CHECK_INT(sql_int(p->r->db, "SELECT count(*) FROM _replic_migrations"), 3);
  CHECK_TEXT(sql_text(p->r->db, "SELECT up FROM _replic_migrations WHERE version = 1"),
             "other text");
  peer_rollback(p);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_migrations"), 1);
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_int(1)}, {"w", v_int(5)})), REPLIC_ECOLUMN);
  CHECK_INT(put(p, 1, "x"), 1);
  check_memory_is_disk(p);
}

static void run_may_change_the_schema_of_other_tables(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  CHECK_OK(p->r,
           try_run(p,
                   "CREATE TABLE o(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE o_patches(" CLOCK
                   "id INTEGER, v TEXT)",
                   0));
  CHECK_INT(replic_table_count(p->r), 2);
  CHECK_INT(upsert(p, "o", ROW({"id", v_int(1)}, {"v", v_text("x")})), 1);
  /* a batch that is rolled back takes the registration back with it */
  int64_t changes, rowid, sequence;
  static const char MORE[] =
      "CREATE TABLE q(id INTEGER PRIMARY KEY); CREATE TABLE q_patches(" CLOCK "id INTEGER)";
  peer_begin(p);
  CHECK_OK(p->r, put_in_batch(p, 1, 1, &sequence));
  CHECK_OK(p->r, replic_run(p->r, MORE, strlen(MORE), 1, 0, NULL, 0, &changes, &rowid));
  CHECK_INT(replic_table_count(p->r), 3);
  CHECK_OK(p->r, put_in_batch(p, 2, 2, &sequence));
  peer_rollback(p);
  CHECK_INT(replic_table_count(p->r), 2);
  CHECK_CODE(p->r, try_upsert(p, "q", ROW({"id", v_int(1)})), REPLIC_ETABLE);
  CHECK_INT(put(p, 1, "x"), 2);
}

/* ---- identity ---- */

static void copy_file(const char *from, const char *to) {
  FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
  char bytes[4096];
  CHECK(in && out);
  for (size_t n; (n = fread(bytes, 1, sizeof bytes, in)) > 0;) CHECK(fwrite(bytes, 1, n, out) == n);
  fclose(in);
  CHECK(fclose(out) == 0);
}

static char *witness_of(const peer *p) {
  return test_format("%s-replic", p->config.path);
}

static void a_file_is_open_once(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  peer *again = cluster_add(c);
  again->config.path = p->config.path;
  CHECK_CODE(again->r, peer_try_start(again), REPLIC_ELOCKED);
  CHECK_CONTAINS(replic_error_text(again->r), p->config.path);
  peer_stop(again);
  char *linked = test_path("other-name.db");
  CHECK(symlink(p->config.path, linked) == 0);
  again->config.path = linked;
  CHECK_CODE(again->r, peer_try_start(again), REPLIC_ELOCKED);
  peer_stop(again);
  put(p, 1, "the first one goes on");
  peer_stop(p);
  CHECK_OK(again->r, peer_try_start(again));
  CHECK_INT(again->id, 101);
  CHECK_INT(peer_at(again, 101), 1);
}

static void a_file_is_open_in_one_process(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    replic *r;
    _exit(replic_open(&p->config, c->now_ms, &r) == REPLIC_ELOCKED ? 7 : 8);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  put(p, 1, "x");
  check_memory_is_disk(p);
}

static void a_peer_keeps_its_id(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "x");
  for (int i = 0; i < 2; i++) {
    peer_stop(p);
    p->config.new_peer_id = 999;
    p->config.peer_id = i ? 101 : 0;
    peer_start(p);
    CHECK_INT(p->id, 101);
    CHECK(!replic_is_new_peer(p->r));
    CHECK_INT(put(p, 1, "y"), i + 2);
  }
}

static void a_peer_that_never_wrote_keeps_its_id(void) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  peer_start(p);
  peer_stop(p);
  p->config.new_peer_id = 999;
  peer_start(p);
  CHECK_INT(p->id, 101);
  CHECK(!replic_is_new_peer(p->r));
}

static void a_fixed_id_is_taken(void) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  p->config.peer_id = UINT32_MAX;
  p->config.new_peer_id = 0;
  peer_start(p);
  CHECK_INT(p->id, UINT32_MAX);
  CHECK(!replic_is_new_peer(p->r));
  CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  CHECK_INT(put(p, 1, "x"), 1);
  peer_stop(p);
  p->config.peer_id = 5; /* a new one: the file goes on as another peer */
  peer_start(p);
  CHECK_INT(p->id, 5);
  CHECK_INT(put(p, 2, "x"), 1);
  CHECK_INT(peer_at(p, UINT32_MAX), 1);
  peer_stop(p);
  p->config.peer_id =
      UINT32_MAX; /* the old one has a history that ends here: nobody may continue it */
  CHECK_CODE(p->r, peer_try_start(p), REPLIC_ERESTORED);
  peer_stop(p);
  p->config.peer_id = 0;
  CHECK_OK(p->r, peer_try_start(p));
  CHECK_INT(p->id, 5);
}

/* Everything is kept, the lost tail comes back from the peers, and no sequence is issued twice. */
static void check_goes_on_as_new_peer(peer *p, uint32_t id) {
  p->config.new_peer_id = id;
  peer_start(p);
  CHECK_INT(p->id, id);
  CHECK(replic_is_new_peer(p->r));
  CHECK_INT(put(p, 50, "as a new peer"), 1);
  peer_stop(p);
  p->config.new_peer_id = 7777;
  peer_start(p);
  CHECK_INT(p->id, id);
  CHECK(!replic_is_new_peer(p->r));
}

static void a_copied_file_is_a_new_peer(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "x");
  peer_stop(p);
  peer *copy = cluster_add(c);
  copy_file(p->config.path, copy->config.path);
  check_goes_on_as_new_peer(copy, 202);
  CHECK_INT(peer_at(copy, 101), 1);
  peer_start(p);
  CHECK_INT(p->id, 101);
  CHECK_INT(put(p, 2, "y"), 2);
  wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK_CONTAINS(cluster_same(c, "t"), "i50|");
}

static void a_moved_file_is_a_new_peer(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "x");
  peer_stop(p);
  char *moved = test_path("moved.db");
  CHECK(rename(p->config.path, moved) == 0);
  p->config.path = moved;
  check_goes_on_as_new_peer(p, 202);
}

static void both_files_moved_together_are_the_same_peer(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "x");
  peer_stop(p);
  char *moved = test_path("moved.db");
  CHECK(rename(p->config.path, moved) == 0);
  CHECK(rename(witness_of(p), test_format("%s-replic", moved)) == 0);
  p->config.path = moved;
  peer_start(p);
  CHECK_INT(p->id, 101);
  CHECK_INT(put(p, 2, "y"), 2);
}

static void a_restored_backup_is_a_new_peer(void) {
  cluster *c = cluster_start(2, DDL);
  peer *p = &c->peers[0];
  wire_open(c, 0, 1);
  put(p, 1, "in the backup");
  cluster_settle(c);
  peer_stop(p);
  char *backup = test_path("backup.db");
  copy_file(p->config.path, backup);
  peer_start(p);
  wire_open(c, 0, 1);
  CHECK_INT(put(p, 2, "after the backup"), 2);
  cluster_settle(c);
  peer_stop(p);
  copy_file(backup, p->config.path);
  check_goes_on_as_new_peer(p, 202);
  wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK_INT(peer_at(p, 101), 2);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 3);
  cluster_same(c, "t");
}

static void a_fixed_id_cannot_be_continued_from_a_backup(void) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  p->config.peer_id = 101;
  peer_start(p);
  CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  put(p, 1, "in the backup");
  peer_stop(p);
  char *backup = test_path("backup.db");
  copy_file(p->config.path, backup);
  peer_start(p);
  put(p, 2, "after the backup");
  peer_stop(p);
  copy_file(backup, p->config.path);
  CHECK_CODE(p->r, peer_try_start(p), REPLIC_ERESTORED);
  CHECK_CONTAINS(replic_error_text(p->r), p->config.path);
  CHECK_CONTAINS(replic_error_text(p->r), "101");
  CHECK_CONTAINS(replic_error_text(p->r), "without peerId");
  peer_stop(p);
  CHECK(unlink(witness_of(p)) == 0); /* no way out: then the file has no witness at all */
  CHECK_CODE(p->r, peer_try_start(p), REPLIC_ERESTORED);
  CHECK_CONTAINS(replic_error_text(p->r), "copied or moved");
  peer_stop(p);
  p->config.peer_id = 303;
  CHECK_OK(p->r, peer_try_start(p));
  CHECK(replic_is_new_peer(p->r));
}

static void a_lost_database_with_a_fixed_id_is_noticed(void) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  p->config.peer_id = 101;
  peer_start(p);
  CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  put(p, 1, "lost");
  peer_stop(p);
  CHECK(unlink(p->config.path) == 0);
  CHECK_CODE(p->r, peer_try_start(p),
             REPLIC_ERESTORED); /* 101.1 has been seen: it must not be issued again */
}

/* The witness is written after the commit, unsynced: it may lag. */
static void a_witness_that_lags_is_no_reason(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  put(p, 1, "x");
  char *kept = test_path("witness");
  copy_file(witness_of(p), kept);
  put(p, 2, "y");
  peer_stop(p);
  copy_file(kept, witness_of(p));
  peer_start(p);
  CHECK_INT(p->id, 101);
  CHECK_INT(put(p, 3, "z"), 3);
}

static void a_damaged_witness_is_none(void) {
  static const char *const BYTES[] = {"", "REPLI", "garbage garbage garbage garbage",
                                      "REPLICID\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"};
  for (size_t i = 0; i < COUNT(BYTES); i++) {
    test_note("witness %zu", i);
    cluster *c = single();
    peer *p = &c->peers[0];
    put(p, 1, "x");
    peer_stop(p);
    FILE *file = fopen(witness_of(p), "wb");
    CHECK(file != NULL);
    CHECK_INT(fwrite(BYTES[i], 1, i == 3 ? 24 : strlen(BYTES[i]), file),
              i == 3 ? 24 : strlen(BYTES[i]));
    CHECK(fclose(file) == 0);
    check_goes_on_as_new_peer(p, 202);
    test_release();
  }
}

static void files_that_cannot_be_opened(void) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  const char *path = p->config.path;
  static const char *const NO_FILE[] = {"", ":memory:", NULL};
  for (size_t i = 0; i < COUNT(NO_FILE); i++) {
    p->config.path = NO_FILE[i];
    CHECK_CODE(p->r, peer_try_start(p), REPLIC_EUSAGE);
    peer_stop(p);
  }
  p->config.path = test_path("no/such/folder.db");
  int rc = peer_try_start(p);
  CHECK_INT(rc & 0xff, SQLITE_CANTOPEN);
  CHECK_CONTAINS(replic_error_text(p->r), "no/such/folder.db");
  peer_stop(p);
  p->config.path = test_path("folder");
  CHECK(mkdir(p->config.path, 0700) == 0);
  rc = peer_try_start(p);
  CHECK_INT(rc & 0xff, SQLITE_CANTOPEN);
  peer_stop(p);
  p->config.path = path;
  FILE *file = fopen(path, "wb");
  CHECK(file != NULL);
  for (int i = 0; i < 1000; i++) fputs("this is no database ", file);
  CHECK(fclose(file) == 0);
  CHECK_CODE(p->r, peer_try_start(p), SQLITE_NOTADB);
  CHECK_CONTAINS(replic_error_text(p->r), path);
  peer_stop(p);
  CHECK(unlink(path) == 0);
  sqlite3 *db;
  CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
  sql_exec(db, "PRAGMA encoding = 'UTF-16'; CREATE TABLE x(a)");
  sqlite3_close(db);
  CHECK_CODE(p->r, peer_try_start(p), REPLIC_ESCHEMA);
  CHECK_CONTAINS(replic_error_text(p->r), "UTF-8");
  peer_stop(p);
  CHECK(unlink(path) == 0);
  p->config.new_peer_id = 0;
  CHECK_CODE(p->r, peer_try_start(p), REPLIC_EUSAGE);
}

static void a_layout_from_the_future_is_refused(void) {
  cluster *c = single();
  peer *p = &c->peers[0];
  peer_stop(p);
  sql_exec(peer_sql(p), "UPDATE _replic_meta SET value = 99 WHERE key = 'layout'");
  CHECK_CODE(p->r, peer_try_start(p), REPLIC_EVERSION);
  CHECK_CONTAINS(replic_error_text(p->r), "update");
}

/* A file that an application had before: its rows stay, and are its own until somebody writes them.
 */
static void a_file_with_tables_of_its_own(void) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  sqlite3 *db;
  CHECK_INT(sqlite3_open(p->config.path, &db), SQLITE_OK);
  sql_exec(db, DDL "INSERT INTO t VALUES(1, 'old', 1, NULL); INSERT INTO plain VALUES(1, 'old')");
  sqlite3_close(db);
  peer_start(p);
  CHECK_INT(replic_table_count(p->r), 1);
  CHECK_INT(put(p, 1, "new"), 1);
  CHECK_TEXT(peer_dump(p, "t"), "i1|t6e6577|i1|n\n");
  CHECK_TEXT(sql_text(peer_sql(p), "PRAGMA journal_mode"), "wal");
}

/* ---- names of codes ---- */

static void codes_have_names(void) {
  CHECK_TEXT(replic_code_name(REPLIC_EBUSY), "REPLIC_BUSY");
  CHECK_TEXT(replic_code_name(REPLIC_EVERSION), "REPLIC_VERSION");
  CHECK_TEXT(replic_code_name(SQLITE_CONSTRAINT_NOTNULL), "SQLITE_CONSTRAINT_NOTNULL");
  CHECK_TEXT(replic_code_name(SQLITE_IOERR_WRITE), "SQLITE_IOERR_WRITE");
  CHECK_TEXT(replic_code_name(SQLITE_IOERR | (99 << 8)), "SQLITE_IOERR");
  CHECK_TEXT(replic_code_name(12345 << 8 | 0xfe), "SQLITE_ERROR");
  CHECK_TEXT(replic_code_name(REPLIC_ERROR_BASE), "SQLITE_ERROR");
  CHECK_TEXT(replic_code_name(INT32_MIN), "SQLITE_ERROR");
#define NAMED(id, name, meaning)                                                                   \
  CHECK_TEXT(replic_code_name(id), name);                                                          \
  CHECK(strncmp(name, "REPLIC_", 7) == 0);                                                         \
  CHECK(strlen(meaning) > 5);
  REPLIC_ERRORS(NAMED)
#undef NAMED
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(a_batch_commits_together),
      TEST(a_rollback_leaves_no_hole),
      TEST(a_call_that_fails_fails_alone),
      TEST(a_first_call_that_fails_leaves_nothing),
      TEST(a_batch_that_begins_now),
      TEST(calls_made_together_are_as_calls_made_alone),
      TEST(a_batch_that_is_undone_as_a_whole_is_lost_together),
      TEST(a_call_that_is_stopped),
      TEST(a_group_is_all_or_nothing),
      TEST(a_group_of_no_rows_issues_nothing),
      TEST(a_commit_that_fails_undoes_memory_too),
      TEST(a_full_disk_undoes_what_did_not_fit),
      TEST(a_locked_database_delays_and_loses_nothing),
      TEST(a_lock_that_is_lost_within_a_batch),
      TEST(a_deferred_foreign_key_fails_its_own_call),
      TEST(calls_out_of_order_are_refused),
      TEST(an_interrupted_statement_undoes_itself),
      TEST(a_process_that_dies_loses_only_its_open_batch),
      TEST(wrong_writes_name_what_is_wrong),
      TEST(a_deletion_sets_deletedAt_to_its_clock),
      TEST(a_group_beyond_the_limit_is_refused),
      TEST(the_largest_group_reaches_the_other_peer),
      TEST(direct_writes_are_refused),
      TEST(transactions_belong_to_the_engine),
      TEST(parameters_of_run),
      TEST(migrations_go_up_and_down),
      TEST(a_migration_that_fails_changes_nothing),
      TEST(the_calls_of_a_step),
      TEST(run_may_change_the_schema_of_other_tables),
      TEST(a_file_is_open_once),
      TEST(a_file_is_open_in_one_process),
      TEST(a_peer_keeps_its_id),
      TEST(a_peer_that_never_wrote_keeps_its_id),
      TEST(a_fixed_id_is_taken),
      TEST(a_copied_file_is_a_new_peer),
      TEST(a_moved_file_is_a_new_peer),
      TEST(both_files_moved_together_are_the_same_peer),
      TEST(a_restored_backup_is_a_new_peer),
      TEST(a_fixed_id_cannot_be_continued_from_a_backup),
      TEST(a_lost_database_with_a_fixed_id_is_noticed),
      TEST(a_witness_that_lags_is_no_reason),
      TEST(a_damaged_witness_is_none),
      TEST(files_that_cannot_be_opened),
      TEST(a_layout_from_the_future_is_refused),
      TEST(a_file_with_tables_of_its_own),
      TEST(codes_have_names),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

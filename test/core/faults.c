/* faults.c - see faults.h */
#include "faults.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core.h"
#include "query.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls "   \
  "TEXT, "
#define DDL                                                                                        \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n INTEGER, at TEXT DEFAULT (char(65, 66)), "     \
  "deletedAt INTEGER);"                                                                            \
  "CREATE TABLE t_patches(" CLOCK "id INTEGER, v TEXT, n INTEGER, at TEXT, deletedAt INTEGER);"    \
  "CREATE TABLE r(k TEXT NOT NULL, j BLOB NOT NULL, must TEXT NOT NULL, v TEXT, PRIMARY KEY(k, "   \
  "j));"                                                                                           \
  "CREATE TABLE r_patches(" CLOCK "k TEXT, j BLOB, must TEXT, v TEXT);"                            \
  "CREATE TABLE plain(x);"

/* ---- the call that fails ---- */

static int64_t countdown; /* the call that fails; 0: none */
static bool for_good;     /* and all after it */
static bool has_failed;
static bool paused; /* while peer 1 is at work */

bool fault_hits(void) {
  if (paused) return false;
  if (has_failed && for_good) return true;
  if (countdown == 0 || --countdown > 0) return false;
  return has_failed = true;
}

static void fault_arm(int64_t n, bool all_after) {
  countdown = n;
  for_good = all_after;
  has_failed = false;
}

/* From here on nothing fails; has_failed still tells whether something did. */
static void fault_disarm(void) {
  countdown = 0;
  for_good = false;
}

/* ---- the pieces ---- */

static void prepare_nothing(cluster *c) {
  (void)c;
}

/* One batch on peer 0: `call` and the commit, or a rollback. */
static int batch(cluster *c, int (*call)(peer *p)) {
  peer *p = &c->peers[0];
  int rc = replic_begin(p->r, peer_now(p));
  if (rc == REPLIC_OK) rc = call(p);
  if (rc == REPLIC_OK)
    rc = replic_commit(p->r);
  else
    replic_rollback(p->r);
  fault_disarm();
  peer_take_outbox(p);
  return rc;
}

static int call_write(peer *p) {
  static const char *const T_COLUMNS[] = {"id", "v", "n"}, *const R_COLUMNS[] = {"k", "j", "must"};
  const replic_value t[] = {v_int(1),   v_text("a value that is long enough to be copied"),
                            v_null(),   v_int(2),
                            v_text(""), v_int(3)};
  const replic_value r[] = {v_text("key"), v_blob("\0\1", 2), v_text("must")};
  const replic_change changes[] = {{REPLIC_UPSERT, "t", 3, T_COLUMNS, 2, t},
                                   {REPLIC_UPSERT, "r", 3, R_COLUMNS, 1, r}};
  int64_t sequence;
  return replic_write(p->r, changes, 2, &sequence);
}

static int run_write(cluster *c) {
  return batch(c, call_write);
}

/* Together, and where that fails, once more alone. */
static int call_together(peer *p) {
  int rc = replic_together(p->r);
  if (rc != REPLIC_OK) return rc;
  rc = call_write(p);
  int apart = replic_apart(p->r, rc);
  CHECK(rc == REPLIC_OK || apart == rc || apart == SQLITE_ABORT_ROLLBACK);
  return apart == REPLIC_OK || apart == SQLITE_ABORT_ROLLBACK ? apart : call_write(p);
}

static int run_together(cluster *c) {
  return batch(c, call_together);
}

static void check_written(cluster *c) {
  CHECK_TEXT(sql_text(peer_sql(&c->peers[1]),
                      "SELECT group_concat(id || coalesce(v, '-') || coalesce(n, "
                      "'-') || at) FROM (SELECT * FROM t ORDER BY id)"),
             "1a value that is long enough to be copied-AB,23AB");
}

static int call_delete(peer *p) {
  static const char *const COLUMNS[] = {"id"};
  const replic_value id = v_int(1);
  const replic_change change = {REPLIC_DELETE, "t", 1, COLUMNS, 1, &id};
  int64_t sequence;
  return replic_write(p->r, &change, 1, &sequence);
}

static void prepare_row(cluster *c) {
  CHECK_OK(c->peers[0].r, run_write(c));
  cluster_settle(c);
}

static int run_delete(cluster *c) {
  return batch(c, call_delete);
}

static void check_deleted(cluster *c) {
  CHECK_INT(sql_int(peer_sql(&c->peers[1]), "SELECT count(*) FROM t WHERE deletedAt > 0"), 1);
}

/* Everything that is on its way to peer 0, each frame in a batch of its own; what fails is lost. */
static int run_receive(cluster *c) {
  peer *p = &c->peers[0];
  int result = REPLIC_OK;
  for (int w = 0; w < c->n_wires; w++) {
    packet_queue *queue = &c->wires[w].to[0];
    while (queue->n > 0 && c->wires[w].open[0]) {
      int rc = replic_begin(p->r, peer_now(p));
      if (rc == REPLIC_OK)
        rc =
            replic_receive(p->r, c->wires[w].number, queue->packets[0].data, queue->packets[0].len);
      if (rc == REPLIC_OK)
        rc = replic_commit(p->r);
      else
        replic_rollback(p->r);
      if (result == REPLIC_OK) result = rc;
      wire_drop(c, w, 0, 0);
      peer_take_outbox(p);
    }
  }
  return result;
}

static void prepare_receive(cluster *c) {
  peer *q = &c->peers[1];
  upsert(q, "t", ROW({"id", v_int(1)}, {"v", v_text("first")}, {"n", v_int(1)}));
  upsert(q, "r", ROW({"k", v_text("a")}, {"j", v_blob("b", 1)}, {"must", v_text("m")}));
  c->now_ms += 1;
  upsert(q, "t",
         ROW({"id", v_int(1)}, {"v", v_text("a longer text, longer than any small buffer")},
             {"n", v_null()}));
  size_t n = c->wires[0].to[0].n;
  if (n > 1) wire_swap(c, 0, 0, n - 2, n - 1); /* one comes early */
}

static void check_received(cluster *c) {
  CHECK_INT(peer_at(&c->peers[0], 102), 3);
  CHECK_INT(sql_int(peer_sql(&c->peers[0]), "SELECT n IS NULL AND v LIKE 'a longer%' FROM t"), 1);
}

/* A link comes up: HELLO out and in, then definitions, catch-up, acknowledgements. */
static void prepare_link(cluster *c) {
  wire_cut(c, 0);
  prepare_receive(c);
  CHECK_OK(c->peers[0].r, run_write(c));
  int w = wire_add(c, 0, 1);
  c->wires[w].open[0] = true;
  wire_open_side(c, w, 1);
}

static int call_open_link(peer *p) {
  return replic_link_count(p->r) ? REPLIC_OK
                                 : replic_link_open(p->r, p->cluster->wires[1].number, 102, 0);
}

static int run_link(cluster *c) {
  peer *p = &c->peers[0];
  int rc = replic_begin(p->r, peer_now(p));
  if (rc == REPLIC_OK) rc = call_open_link(p);
  if (rc == REPLIC_OK)
    rc = replic_commit(p->r);
  else
    replic_rollback(p->r);
  peer_take_outbox(p);
  int received = run_receive(c);
  return rc == REPLIC_OK ? received : rc;
}

static void check_linked(cluster *c) {
  check_received(c);
  CHECK_INT(peer_at(&c->peers[1], 101), 3);
}

static int call_tick(peer *p) {
  return replic_tick(p->r);
}

static int run_tick(cluster *c) {
  c->now_ms += 1000;
  return batch(c, call_tick);
}

static int call_sql(peer *p) {
  static const char SQL[] = "INSERT INTO plain VALUES(:value)";
  const replic_param param = {"value", v_text("a parameter, bound by its name")};
  int64_t changes, rowid;
  return replic_run(p->r, SQL, strlen(SQL), 0, 0, &param, 1, &changes, &rowid);
}

static int run_sql_of_the_application(cluster *c) {
  return batch(c, call_sql);
}

static void check_one_row(cluster *c) {
  CHECK_INT(sql_int(peer_sql(&c->peers[0]), "SELECT count(*) FROM plain"), 1);
}

/* All calls of a step: DDL, a rename, patches of a table as the step has made it, a read. */
static int call_step(peer *p) {
  static const char SQL[] =
      "ALTER TABLE t ADD COLUMN x; ALTER TABLE t_patches ADD COLUMN x;"
      "CREATE TABLE s(id INTEGER PRIMARY KEY); CREATE TABLE s_patches(" CLOCK "id INTEGER);"
      "ALTER TABLE t DROP COLUMN x; ALTER TABLE t_patches DROP COLUMN x;"
      "ALTER TABLE plain RENAME COLUMN x TO w";
  static const char READ[] = "SELECT id FROM t";
  static const char *const COLUMNS[] = {"id"};
  const replic_step step = {.kind = REPLIC_STEP_UP,
                            .version = 2,
                            .up = SQL,
                            .name = "second",
                            .renames = "[[\"plain\", \"x\", \"w\"]]"};
  const replic_value id = v_int(7);
  const replic_change row = {REPLIC_UPSERT, "t", 1, COLUMNS, 1, &id};
  replic_rows rows = {0};
  int64_t changes, rowid, sequence;
  int rc = replic_step_begin(p->r, &step);
  if (rc == REPLIC_OK) rc = replic_step_run(p->r, SQL, strlen(SQL), 1, NULL, 0, &changes, &rowid);
  if (rc == REPLIC_OK) rc = replic_write(p->r, &row, 1, &sequence);
  if (rc == REPLIC_OK) rc = replic_step_read(p->r, READ, strlen(READ), NULL, 0, 10, &rows);
  replic_rows_free(&rows);
  return rc == REPLIC_OK ? replic_step_end(p->r) : rc;
}

static int run_migrate(cluster *c) {
  return batch(c, call_step);
}

static void check_migrated(cluster *c) {
  sqlite3 *db = peer_sql(&c->peers[0]);
  CHECK_INT(replic_table_count(c->peers[0].r), 3);
  CHECK_INT(sql_int(db, "SELECT max(version) FROM _replic_migrations"), 2);
  CHECK_TEXT(sql_text(db, "SELECT newColumn FROM _replic_renames WHERE version = 2"), "w");
  CHECK_INT(sql_int(db, "SELECT id FROM t"), 7);
  CHECK_INT(sql_int(peer_sql(&c->peers[1]), "SELECT id FROM t"), 7);
}

/* Peer 1 is at a version that peer 0 does not know, and has written at it. */
#define NEXT "ALTER TABLE t ADD COLUMN x TEXT; ALTER TABLE t_patches ADD COLUMN x TEXT"
#define BACK "ALTER TABLE t DROP COLUMN x; ALTER TABLE t_patches DROP COLUMN x"
static void prepare_unknown(cluster *c) {
  peer *q = &c->peers[1];
  CHECK_OK(q->r, try_migrate(q, 2, NEXT, BACK));
  for (int i = 0; i < 3; i++)
    upsert(q, "t",
           ROW({"id", v_int(i % 2)}, {"v", v_text("a value that is long enough to be copied")},
               {"x", i ? v_text("another one, which peer 0 has no column for") : v_null()}));
}

static void check_pending(cluster *c) {
  peer *p = &c->peers[0];
  CHECK_INT(replic_pending_at(p->r, 0)->patches, 3);
  CHECK_OK(p->r, try_migrate(p, 2, NEXT, BACK));
  CHECK_INT(replic_pending_count(p->r), 0);
}

static void prepare_pending(cluster *c) {
  prepare_unknown(c);
  cluster_settle(c);
}

/* What is pending can be held. */
static int run_up(cluster *c) {
  const replic_step step = {.kind = REPLIC_STEP_UP, .version = 2, .up = NEXT, .down = BACK};
  peer *p = &c->peers[0];
  int rc = replic_migrate_step(p->r, peer_now(p), &step, NEXT);
  fault_disarm();
  peer_take_outbox(p);
  return rc;
}

static void check_up(cluster *c) {
  CHECK_INT(replic_pending_count(c->peers[0].r), 0);
}

static void prepare_down(cluster *c) {
  prepare_pending(c);
  CHECK_OK(c->peers[0].r, run_up(c));
}

/* What cannot be held any more becomes pending. */
static int run_down(cluster *c) {
  const replic_step step = {.kind = REPLIC_STEP_DOWN, .version = 2};
  peer *p = &c->peers[0];
  int rc = replic_migrate_step(p->r, peer_now(p), &step, BACK);
  fault_disarm();
  peer_take_outbox(p);
  return rc;
}

/* Peer 0 has an index that refuses the row 1, which was there, and takes 2 and 3. */
#define REFUSES "CREATE INDEX x ON t(json_extract(v, '$.x'))"
static void prepare_refused(cluster *c) {
  static const char LONG[] = "{\"x\": \"long enough to be copied, and not where it is short\"}";
  peer *q = &c->peers[1];
  CHECK_OK(c->peers[0].r, try_migrate(&c->peers[0], 2, REFUSES, ""));
  upsert(q, "t", ROW({"id", v_int(1)}, {"v", v_text("[]")}));
  cluster_settle(c);
  upsert(q, "t", ROW({"id", v_int(1)}, {"v", v_text("no json")}));
  upsert(q, "t", ROW({"id", v_int(2)}, {"v", v_text("none")}, {"n", v_int(1)}));
  upsert(q, "t", ROW({"id", v_int(3)}, {"v", v_text(LONG)}));
  upsert(q, "t", ROW({"id", v_int(2)}, {"v", v_text(LONG)}));
}

static int run_let_in(cluster *c) {
  const replic_step step = {.kind = REPLIC_STEP_UP, .version = 3, .up = "DROP INDEX x"};
  peer *p = &c->peers[0];
  int rc = replic_migrate_step(p->r, peer_now(p), &step, step.up);
  fault_disarm();
  peer_take_outbox(p);
  return rc;
}

static void check_let_in(cluster *c) {
  CHECK_INT(replic_stuck_rows(c->peers[0].r), 0);
  CHECK_INT(sql_int(peer_sql(&c->peers[0]), "SELECT count(*) FROM t WHERE id < 4"), 3);
}

static void check_refused(cluster *c) {
  peer *p = &c->peers[0];
  cluster_beat(c, 1); /* where there was no memory for what is shown, the next commit has it */
  CHECK_INT(replic_stuck_rows(p->r), 1);
  CHECK_TEXT(replic_stuck_at(p->r, 0)->key, "{\"id\":1}");
  CHECK_CONTAINS(replic_stuck_at(p->r, 0)->why, "malformed JSON");
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t WHERE id < 4"), 2);
  CHECK_OK(p->r, run_let_in(c));
  check_let_in(c);
}

static void prepare_stuck(cluster *c) {
  prepare_refused(c);
  cluster_settle(c);
}

static void prepare_stopped(cluster *c) {
  prepare_row(c);
  peer_stop(&c->peers[0]);
}

/* A file as the first release has left it. */
static void prepare_layout_1(cluster *c) {
  prepare_stopped(c);
  sql_exec(peer_sql(&c->peers[0]),
           "ALTER TABLE _replic_migrations DROP COLUMN name;"
           "ALTER TABLE _replic_migrations DROP COLUMN hash;"
           "ALTER TABLE _replic_migrations DROP COLUMN rename;"
           "ALTER TABLE _replic_migrations DROP COLUMN appliedAt;"
           "DROP TABLE _replic_renames; DROP TABLE _replic_epochs; DROP TABLE _replic_dropped;"
           "DROP TABLE _replic_pending; DROP TABLE _replic_definitions;"
           "DROP TABLE _replic_sources; ALTER TABLE _replic_vector DROP COLUMN source;"
           "CREATE TABLE _replic_dropped(origin INTEGER NOT NULL, sequence INTEGER NOT NULL, "
           "patchedAt INTEGER NOT NULL, PRIMARY KEY(origin, sequence, patchedAt)) WITHOUT ROWID;"
           "UPDATE _replic_meta SET value = 1 WHERE key = 'layout'");
}

static int run_open(cluster *c) {
  peer *p = &c->peers[0];
  int rc = replic_open(&p->config, peer_now(p), &p->r);
  fault_disarm();
  if (rc == REPLIC_OK) return rc;
  replic_close(p->r);
  p->r = NULL;
  return rc;
}

static void check_same_peer(cluster *c) {
  CHECK(!replic_is_new_peer(c->peers[0].r));
  CHECK_INT(replic_peer_id(c->peers[0].r), 101);
  check_written(c);
}

static void check_upgraded(cluster *c) {
  sqlite3 *db = peer_sql(&c->peers[0]);
  check_same_peer(c);
  CHECK(sql_int(db, "SELECT value FROM _replic_meta WHERE key = 'layout'") > 1);
  CHECK_INT(sql_int(db, "SELECT count(*) FROM _replic_migrations WHERE hash = ''"), 1);
  CHECK_INT(sql_int(db, "SELECT count(*) FROM _replic_renames"), 0);
}

/* A backup replaces an earlier one, or leaves it as it was, and leaves nothing else. */
static char *backup_path(cluster *c) {
  return test_format("%s.copy", c->peers[0].config.path);
}

static int back_up(replic_reader *reader, const char *path) {
  const char *copy, *from, *to;
  int64_t total, remaining = 1;
  int rc = replic_reader_hold(reader);
  if (rc == REPLIC_OK) rc = replic_reader_backup(reader, path, &copy);
  while (rc == REPLIC_OK && remaining > 0) rc = replic_reader_copy(reader, 5, &total, &remaining);
  if (rc == REPLIC_OK) rc = replic_reader_copied(reader, &from, &to);
  if (rc != REPLIC_OK) return rc;
  CHECK_INT(rename(from, to), 0);
  replic_reader_backed_up(reader);
  return REPLIC_OK;
}

static int run_backup(cluster *c) {
  replic_reader *reader;
  char *path = backup_path(c);
  int rc = replic_reader_open(c->peers[0].config.path, &reader);
  if (rc == REPLIC_OK) rc = back_up(reader, path);
  replic_reader_close(reader);
  fault_disarm();
  /* An empty -replic, or what SQLite could not remove when it closed the earlier file, is no harm.
   */
  CHECK(access(test_format("%s-backup", path), F_OK) != 0);
  sqlite3 *db;
  CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
  CHECK_TEXT(sql_text(db, "PRAGMA integrity_check"), "ok");
  CHECK_INT(sql_int(db, "SELECT count(*) FROM t"), rc == REPLIC_OK ? 2 : 0);
  CHECK_INT(sql_int(db, "SELECT count(*) FROM _replic_vector"), rc == REPLIC_OK ? 1 : 0);
  sqlite3_close(db);
  /* SQLite does not tell that it could not bring the earlier file to rest: it looks as if in use */
  return rc == SQLITE_BUSY && has_failed ? SQLITE_IOERR : rc;
}

static void prepare_backup(cluster *c) {
  replic_reader *reader;
  CHECK_INT(replic_reader_open(c->peers[0].config.path, &reader), REPLIC_OK);
  CHECK_INT(back_up(reader, backup_path(c)), REPLIC_OK);
  replic_reader_close(reader);
  prepare_row(c);
}

/* Sums of a snapshot. */
static int sum_up(replic_reader *reader, const replic_sums **sums) {
  static const char SQL[] = "SELECT _replic_hash(id), _replic_hash(id, v) FROM t";
  int rc = replic_reader_hold(reader);
  if (rc == REPLIC_OK) rc = replic_reader_start(reader, SQL, strlen(SQL), NULL, 0);
  if (rc == REPLIC_OK) rc = replic_reader_sum(reader, 10, sums);
  return rc;
}

static int run_sums(cluster *c) {
  replic_reader *reader;
  const replic_sums *sums = NULL;
  int rc = replic_reader_open(c->peers[0].config.path, &reader);
  replic_rows vector = {0};
  if (rc == REPLIC_OK) rc = sum_up(reader, &sums);
  if (rc == REPLIC_OK) rc = replic_reader_vector(reader, &vector);
  fault_disarm();
  if (rc == REPLIC_OK) CHECK(sums->done && sums->rows == 2);
  if (rc == REPLIC_OK) CHECK_INT(vector.n_rows, 1);
  replic_rows_free(&vector);
  replic_reader_close(reader);
  return rc;
}

/* ---- checkpoints ---- */

/* From here on peer 0 makes none in its commits. */
static void prepare_checkpoint(cluster *c) {
  peer *p = &c->peers[0];
  CHECK_OK(p->r, run_write(c));
  cluster_settle(c);
  peer_stop(p);
  p->config.calls_checkpoint = 1;
  peer_start(p);
  upsert(p, "t", ROW({"id", v_int(1)}, {"at", v_text("AB")}));
}

/* The writer's own never fails: what it could not move is in the WAL. */
static int run_checkpoint(cluster *c) {
  peer *p = &c->peers[0];
  replic_checkpointer *checkpointer;
  int64_t bytes = 0, moved = 0;
  int rc = replic_checkpointer_open(p->config.path, &checkpointer);
  if (rc == REPLIC_OK) rc = replic_checkpointer_run(checkpointer, &bytes, &moved);
  replic_checkpointer_close(checkpointer);
  if (rc == REPLIC_OK) CHECK(bytes > 0 && moved == bytes);
  replic_checkpoint(p->r, 0);
  fault_disarm();
  return rc;
}

/* ---- calls that SQLite writes before their commit (wal_file.c) ---- */

#define BIG(id, bytes) "REPLACE INTO big VALUES(" #id ", zeroblob(" #bytes "), 1)"
static const char ACKNOWLEDGED[] = "SELECT count(*) || ' ' || sum(length(v)) FROM big";

static void copy_files(const char *from, const char *to) {
  static const char *const SUFFIXES[] = {"", "-wal", "-replic"};
  for (size_t i = 0; i < COUNT(SUFFIXES); i++) {
    FILE *in = fopen(test_format("%s%s", from, SUFFIXES[i]), "rb");
    remove(test_format("%s%s", to, SUFFIXES[i]));
    if (!in) continue;
    FILE *out = fopen(test_format("%s%s", to, SUFFIXES[i]), "wb");
    char data[4096];
    for (size_t n; (n = fread(data, 1, sizeof data, in)) > 0;) CHECK(fwrite(data, 1, n, out) == n);
    fclose(in);
    CHECK(fclose(out) == 0);
  }
}

/* The cache is small, and the WAL empty: undoing a transaction then reads none of it. */
static void prepare_spilled(cluster *c) {
  peer *p = &c->peers[0];
  run_sql(p, "CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB, n INTEGER CHECK(n < 1000));" BIG(
                 1, 9000));
  for (int i = 0; i < 40; i++) run_sql(p, test_format(BIG(% d, 300), 100 + i));
  sql_exec(p->r->db, "PRAGMA cache_size = 5; PRAGMA wal_checkpoint(TRUNCATE)");
}

static int run_one(peer *p, const char *sql) {
  int64_t changes, rowid;
  return replic_run(p->r, sql, strlen(sql), 0, 0, NULL, 0, &changes, &rowid);
}

/* A transaction that is undone; what another program writes meanwhile; and a batch of which the
 * second call is undone alone. */
static void undo_spilled(peer *p) {
  if (replic_begin(p->r, peer_now(p)) == REPLIC_OK) run_one(p, BIG(2, 40000));
  replic_rollback(p->r);
  paused = true;
  sql_exec(peer_sql(p), "UPDATE big SET v = zeroblob(300), n = n + 1 WHERE id >= 100");
  paused = false;
}

static int call_spilled(peer *p, bool *first, bool *last) {
  static const char REFUSED[] = "UPDATE big SET v = v || 'b', n = n + 2000 * (id > 130)";
  int rc = run_one(p, BIG(1, 100000));
  *first = rc == REPLIC_OK;
  int refused = run_one(p, REFUSED);
  CHECK(refused != REPLIC_OK);
  int rest = run_one(p, BIG(3, 10000));
  *last = rest == REPLIC_OK;
  if (rc == REPLIC_OK && (refused & 0xff) != SQLITE_CONSTRAINT) rc = refused;
  return rc == REPLIC_OK ? rest : rc;
}

static void check_acknowledged(peer *p, bool first, bool last) {
  int64_t rows = 41 + last, bytes = 40 * 300 + (first ? 100000 : 9000) + (last ? 10000 : 0);
  char *wanted = test_format("%lld %lld", (long long)rows, (long long)bytes);
  copy_files(p->config.path, test_path("crash"));
  sqlite3 *crashed;
  CHECK_INT(sqlite3_open(test_path("crash"), &crashed), SQLITE_OK);
  for (int i = 0; i < 2; i++) {
    sqlite3 *db = i ? crashed : peer_sql(p);
    CHECK_TEXT(sql_text(db, ACKNOWLEDGED), wanted);
    CHECK_TEXT(sql_text(db, "PRAGMA integrity_check"), "ok");
  }
  sqlite3_close(crashed);
}

static int run_spilled(cluster *c) {
  static bool is_first, is_last; /* acknowledged, also by an earlier run */
  peer *p = &c->peers[0];
  bool first = false, last = false;
  if (!has_failed) is_first = is_last = false;
  undo_spilled(p);
  int rc = replic_begin(p->r, peer_now(p)), calls = rc;
  if (rc == REPLIC_OK) calls = call_spilled(p, &first, &last);
  if (rc == REPLIC_OK) rc = replic_commit(p->r);
  if (rc != REPLIC_OK) replic_rollback(p->r);
  fault_disarm();
  peer_take_outbox(p);
  if (rc != REPLIC_OK) return rc;
  check_acknowledged(p, is_first |= first, is_last |= last);
  return calls;
}

/* ---- retention, jumps, forks ---- */

static void put_row(peer *p, int64_t id, const char *v) {
  upsert(p, "t", ROW({"id", v_int(id)}, {"v", v_text(v)}));
  upsert(p, "r",
         ROW({"k", v_text(v)}, {"j", v_blob("b", 1)}, {"must", v_text("m")}, {"v", v_text(v)}));
  p->cluster->now_ms++;
}

static void prune(peer *p) {
  CHECK(peer_compact(p, peer_now(p) + 1000, 1000).done);
}

static void prepare_compaction(cluster *c) {
  for (int i = 0; i < 6; i++) put_row(&c->peers[i % 2], i % 3 / 2, "same");
  cluster_settle(c);
}

static int call_compact(peer *p) {
  replic_compaction done = {0};
  int rc = REPLIC_OK; /* in two slices of one batch */
  for (int i = 0; rc == REPLIC_OK && i < 2; i++)
    rc = replic_compact(p->r, peer_now(p) + 1000, i ? 1000 : 5, &done);
  return rc;
}

static int run_compaction(cluster *c) {
  return batch(c, call_compact);
}

static void check_compacted(cluster *c) {
  prune(&c->peers[1]);
  CHECK(replic_log_rows(c->peers[0].r) < 8);
  CHECK_INT(replic_log_rows(c->peers[0].r), replic_log_rows(c->peers[1].r));
}

/* Peer `source` has what it has pruned, the other one nothing; a link comes up. */
static void prepare_jump(cluster *c, int source) {
  wire_cut(c, 0);
  for (int i = 0; i < 12; i++) put_row(&c->peers[source], i % 4, i % 2 ? "odd" : "even");
  prune(&c->peers[source]);
  for (int i = 0; i < 2; i++) c->peers[i].r->config.slice_bytes = 100;
  wire_open(c, 0, 1);
}

static void prepare_jump_here(cluster *c) {
  prepare_jump(c, 1);
}

static void prepare_jump_there(cluster *c) {
  prepare_jump(c, 0);
}

/* Frames in both directions until there are none; only peer 0 is unlucky. */
static int run_jump(cluster *c) {
  int result = REPLIC_OK;
  for (bool moved = true; moved;) {
    int rc = run_receive(c);
    if (result == REPLIC_OK) result = rc;
    moved = false;
    paused = true;
    for (int w = 0; w < c->n_wires; w++) {
      for (; c->wires[w].to[1].n > 0; moved = true) wire_deliver(c, w, 1, 0);
    }
    paused = false;
  }
  return result;
}

static void check_jumped(cluster *c) {
  for (int i = 0; i < 2; i++)
    CHECK_INT(sql_int(peer_sql(&c->peers[i]), "SELECT count(*) FROM t"), 4);
  prune(&c->peers[0]);
  prune(&c->peers[1]);
  cluster_beat(c, 1);
  for (int i = 0; i < 2; i++)
    CHECK_INT(sql_int(peer_sql(&c->peers[i]), "SELECT count(*) FROM _replic_staged"), 0);
}

/* Peer 0 was put back to a backup of all its files, and has written since; both know where the
 * histories part, and it is about to be opened with a new peerId. */
static void prepare_fork(cluster *c) {
  peer *p = &c->peers[0];
  put_row(p, 0, "common");
  cluster_settle(c);
  peer_stop(p);
  copy_files(p->config.path, test_path("backup"));
  peer_start(p);
  wire_open(c, 0, 1);
  put_row(p, 1, "lost");
  cluster_settle(c);
  peer_stop(p);
  copy_files(test_path("backup"), p->config.path);
  peer_start(p);
  put_row(p, 2, "written since");
  put_row(p, 2, "again");
  prune(p);
  wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EFORK);
  peer_stop(p);
  p->config.peer_id = 301;
}

static void check_healed(cluster *c) {
  CHECK_INT(peer_at(&c->peers[1], 301), 4);
  CHECK_INT(peer_at(&c->peers[0], 101), 4);
  CHECK_TEXT(sql_text(peer_sql(&c->peers[1]), "SELECT group_concat(v) FROM (SELECT v FROM t ORDER "
                                              "BY id)"),
             "common,lost,again");
  prune(&c->peers[0]);
  prune(&c->peers[1]);
}

const work FAULT_SPILLED = {prepare_spilled, run_spilled, prepare_nothing};
const work FAULT_COMPACTION = {prepare_compaction, run_compaction, check_compacted};
const work FAULT_JUMP = {prepare_jump_here, run_jump, check_jumped};
const work FAULT_SOURCE = {prepare_jump_there, run_jump, check_jumped};
const work FAULT_HEALING = {prepare_fork, run_open, check_healed};
const work FAULT_WRITE = {prepare_nothing, run_write, check_written};
const work FAULT_TOGETHER = {prepare_nothing, run_together, check_written};
const work FAULT_DELETION = {prepare_row, run_delete, check_deleted};
const work FAULT_RECEIVE = {prepare_receive, run_receive, check_received};
const work FAULT_LINK = {prepare_link, run_link, check_linked};
const work FAULT_HEARTBEAT = {prepare_row, run_tick, check_written};
const work FAULT_SQL = {prepare_nothing, run_sql_of_the_application, check_one_row};
const work FAULT_MIGRATION = {prepare_nothing, run_migrate, check_migrated};
const work FAULT_BACKUP = {prepare_backup, run_backup, check_written};
const work FAULT_CHECKPOINT = {prepare_checkpoint, run_checkpoint, check_written};
const work FAULT_SUMS = {prepare_row, run_sums, check_written};
const work FAULT_UPGRADE = {prepare_layout_1, run_open, check_upgraded};
const work FAULT_UNKNOWN = {prepare_unknown, run_receive, check_pending};
const work FAULT_UP = {prepare_pending, run_up, check_up};
const work FAULT_DOWN = {prepare_down, run_down, check_pending};
const work FAULT_REFUSED = {prepare_refused, run_receive, check_refused};
const work FAULT_LET_IN = {prepare_stuck, run_let_in, check_let_in};
const work FAULT_OPENING = {prepare_stopped, run_open, check_same_peer};

/* ---- one round, and all of them ---- */

static void check_memory_is_disk(peer *p) {
  for (size_t i = 0; i < p->r->n_vector; i++) {
    const replic__entry *entry = &p->r->vector[i];
    unsigned long origin = entry->now.origin;
    CHECK_INT(sql_int(peer_sql(p),
                      test_format("SELECT count(*) FROM (SELECT _sequenceId FROM t_patches WHERE "
                                  "_peerId = %lu UNION SELECT _sequenceId FROM r_patches WHERE "
                                  "_peerId = %lu UNION SELECT sequence FROM _replic_pending WHERE "
                                  "origin = %lu)",
                                  origin, origin, origin)),
              entry->now.sequence - entry->pruned.missing);
    CHECK_TEXT(sql_text(peer_sql(p),
                        test_format("SELECT coalesce((SELECT sequence || ' ' || floor || ' ' || "
                                    "cursor || ' ' || missing FROM _replic_vector WHERE origin = "
                                    "%lu), '0 0 0 0')",
                                    origin)),
               test_format("%lld %lld %lld %lld", (long long)entry->now.sequence,
                           (long long)entry->pruned.floor, (long long)entry->pruned.cursor,
                           (long long)entry->pruned.missing));
  }
}

/* Where even the news of a link's end was lost, the other side's patience ends it. */
static void settle(cluster *c) {
  for (int beat = 0; beat < 14; beat++) {
    bool equal = true;
    for (int i = 0; i < 2; i++) {
      const replic_position *vector = replic_vector(c->peers[i].r);
      for (size_t k = 0; k < replic_vector_count(c->peers[i].r); k++)
        equal = equal && peer_at(&c->peers[!i], vector[k].origin) == vector[k].sequence;
    }
    if (equal) return;
    cluster_beat(c, 1);
  }
  if (replic_link_count(c->peers[0].r) == 0) wire_open(c, 0, 1);
  cluster_settle(c);
}

static cluster *cluster_of_two(const fault_kind *kind) {
  cluster *c = cluster_new();
  for (int i = 0; i < 2; i++) {
    peer *p = cluster_add(c);
    p->config.normal_durability = !kind->full_durability;
    peer_start(p);
    CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  }
  wire_open(c, 0, 1);
  cluster_settle(c);
  return c;
}

/* Returns false once the work got through without any failure. */
static bool fail_once(const fault_kind *kind, const work *work, int64_t n, bool all_after) {
  fault_arm(0, false);
  test_note("%s %lld%s", kind->what, (long long)n, all_after ? " and all after it" : "");
  cluster *c = cluster_of_two(kind);
  work->prepare(c);
  peer *p = &c->peers[0];
  fault_arm(n, all_after);
  int rc = work->run(c);
  fault_disarm();
  if (!has_failed || !kind->is_expected(rc)) CHECK_OK(p->r, rc);
  if (rc != REPLIC_OK) {
    if (p->r) check_memory_is_disk(p);
    CHECK_OK(p->r, work->run(c)); /* now it can be done */
  }
  check_memory_is_disk(p);
  p->id = replic_peer_id(p->r);
  if (replic_link_count(p->r) == 0) wire_open(c, 0, 1);
  cluster_deliver(c);
  settle(c);
  work->check(c);
  check_memory_is_disk(p);
  cluster_same(c, "t");
  cluster_same(c, "r");
  cluster_same(c, "t_patches");
  CHECK_TEXT(sql_text(peer_sql(p), "PRAGMA integrity_check"), "ok");
  bool failed = has_failed;
  test_release();
  return failed;
}

void fault_everywhere(const fault_kind *kind, const work *work, uint32_t step) {
  step *= (uint32_t)env_number("STRIDE", 1);
  fail_once(kind, work, 0, false);
  const int64_t before = kind->held();
  for (int all_after = 0; all_after < 2; all_after++) {
    rng g = {1};
    for (int64_t n = 1; fail_once(kind, work, n, all_after);) {
      CHECK_INT(kind->held(), before);
      CHECK(n < 100000);
      uint32_t stride = all_after ? 7 * step : step;
      n += stride == 1 ? 1 : 1 + rng_below(&g, 2 * stride - 1);
    }
  }
}

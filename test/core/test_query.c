/* test_query.c - reading connections: what they return, what they refuse, and that they neither
 * wait for the writer nor change anything; digests and backups. */
#define _XOPEN_SOURCE 700 /* links and modes of files */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "query.h"

#define DDL                                                                                        \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL," \
  "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER, v);"

static replic_reader *open_reader(peer *p) {
  replic_reader *reader;
  CHECK_INT(replic_reader_open(p->config.path, &reader), REPLIC_OK);
  return reader;
}

static int start(replic_reader *reader, const char *sql) {
  return replic_reader_start(reader, sql, strlen(sql), NULL, 0);
}

/* All rows of a query, values joined by "|", rows by newlines. */
static char *ask(replic_reader *reader, const char *sql, const replic_param *params, size_t n) {
  replic_rows rows = {0};
  char *text = test_format("%s", "");
  CHECK_INT(replic_reader_start(reader, sql, strlen(sql), params, n), REPLIC_OK);
  CHECK_INT(replic_reader_rows(reader, 1000, 1 << 20, &rows), REPLIC_OK);
  CHECK(rows.done);
  size_t at = 0;
  for (size_t i = 0; i < rows.n_rows * rows.n_columns; i++) {
    replic_value value;
    at = replic_rows_value(&rows, at, &value);
    text = test_format("%s%s%s", text, show_value(&value), (i + 1) % rows.n_columns ? "|" : "\n");
  }
  CHECK_INT(at, rows.len);
  replic_rows_free(&rows);
  replic_reader_reset(reader);
  return text;
}

static void every_type_of_value(void) {
  cluster *c = cluster_start(1, DDL);
  replic_reader *reader = open_reader(&c->peers[0]);
  CHECK_TEXT(ask(reader, "SELECT NULL, -9223372036854775808, 1.5, 'a', x'00ff', '', x''", NULL, 0),
             "n|i-9223372036854775808|r3ff8000000000000|t61|b00ff|t|b\n");
  CHECK_TEXT(ask(reader, "SELECT 1 WHERE 0", NULL, 0), "");
  replic_reader_close(reader);
}

static void parameters_by_position_and_by_name(void) {
  cluster *c = cluster_start(1, DDL);
  replic_reader *reader = open_reader(&c->peers[0]);
  const replic_param positional[] = {{NULL, v_int(7)}, {NULL, v_text("x")}};
  CHECK_TEXT(ask(reader, "SELECT ?, ?", positional, 2), "i7|t78\n");
  const replic_param named[] = {{"b", v_int(2)}, {"a", v_int(1)}};
  CHECK_TEXT(
      ask(reader, "SELECT :a, @b, $a", (const replic_param[]){{"b", v_int(2)}, {"a", v_int(1)}}, 2),
      "i1|i2|i1\n");
  const char *sql = "SELECT :a";
  CHECK_INT(replic_reader_start(reader, sql, strlen(sql), named, 2), REPLIC_EUSAGE);
  CHECK_INT(replic_reader_start(reader, sql, strlen(sql), NULL, 0), REPLIC_EUSAGE);
  CHECK_TEXT(ask(reader, "SELECT ?, ?", positional, 2), "i7|t78\n"); /* still usable */
  replic_reader_close(reader);
}

/* Given in the opposite order. Where each name is looked for among all, this takes minutes. */
static void very_many_names(void) {
  enum { N = 10000, ROUNDS = 20 };
  cluster *c = cluster_start(1, DDL);
  replic_reader *reader = open_reader(&c->peers[0]);
  sqlite3_str *sql = sqlite3_str_new(NULL);
  replic_param *params = test_alloc(N * sizeof *params);
  for (int i = 0; i < N; i++) {
    sqlite3_str_appendf(sql, "%s:p%d", i ? ", " : "SELECT max(", i);
    if (i % 100 == 99) sqlite3_str_appendall(sql, i + 1 < N ? ") + max(0" : ")");
    params[i] = (replic_param){test_format("p%d", N - 1 - i), v_int(N - 1 - i)};
  }
  char *text = sqlite3_str_finish(sql);
  for (int i = 0; i < ROUNDS; i++)
    CHECK_TEXT(ask(reader, text, params, N), test_format("i%d\n", 99 * 100 + 99 * 100 / 2 * 100));
  params[N / 2].name = "other";
  CHECK_INT(replic_reader_start(reader, text, strlen(text), params, N), REPLIC_EUSAGE);
  CHECK_CONTAINS(replic_reader_error_text(reader), ":p4999 was not given");
  CHECK_INT(replic_reader_start(reader, text, strlen(text), params, N - 1), REPLIC_EUSAGE);
  sqlite3_free(text);
  replic_reader_close(reader);
}

static void names_outlive_a_change_of_the_schema(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  replic_reader *reader = open_reader(p);
  const replic_param named[] = {{"b", v_int(2)}, {"a", v_int(1)}};
  const char *sql = "SELECT :a, :b, count(*) FROM t";
  CHECK_TEXT(ask(reader, sql, named, 2), "i1|i2|i0\n");
  run_sql(p, "CREATE TABLE other(x)");
  CHECK_TEXT(ask(reader, sql, named, 2), "i1|i2|i0\n"); /* SQLite prepares it again */
  CHECK_TEXT(ask(reader, sql, named, 2), "i1|i2|i0\n");
  replic_reader_close(reader);
}

static int stop_now(void *ctx) {
  return *(int *)ctx;
}

static int third_time(void *ctx) {
  return ++*(int *)ctx == 3;
}

static void a_query_that_is_stopped(void) {
  cluster *c = cluster_start(1, DDL);
  replic_reader *reader = open_reader(&c->peers[0]);
  static const char ENDLESS[] =
      "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k) SELECT max(i) FROM k";
  int stop = 1;
  replic_rows rows = {0};
  replic_reader_on_steps(reader, stop_now, &stop);
  CHECK_INT(start(reader, ENDLESS), REPLIC_OK);
  CHECK_INT(replic_reader_rows(reader, 1, 1, &rows), SQLITE_INTERRUPT);
  replic_rows_free(&rows);
  stop = 0;
  CHECK_TEXT(ask(reader, "SELECT 1", NULL, 0), "i1\n");
  replic_reader_close(reader);
}

/* Another program has the file for itself: 5 s at most, and less for one that must stop. */
static void a_query_that_is_stopped_while_it_waits(void) {
  cluster *c = cluster_start(1, DDL);
  replic_reader *reader = open_reader(&c->peers[0]);
  CHECK_TEXT(ask(reader, "SELECT 1", NULL, 0), "i1\n");
  peer_stop(&c->peers[0]);
  sqlite3 *other;
  CHECK_INT(sqlite3_open(c->peers[0].config.path, &other), SQLITE_OK);
  replic_reader_close(reader);
  sql_exec(other, "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE");
  reader = open_reader(&c->peers[0]);
  int asked = 0;
  replic_reader_on_steps(reader, third_time, &asked);
  CHECK_INT(start(reader, "SELECT count(*) FROM t"), SQLITE_INTERRUPT);
  CHECK_INT(asked, 3);
  sqlite3_close(other);
  CHECK_TEXT(ask(reader, "SELECT count(*) FROM t", NULL, 0), "i0\n");
  replic_reader_close(reader);
}

static void what_is_refused(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_text("kept")}));
  replic_reader *reader = open_reader(p);
  CHECK_INT(start(reader, "DELETE FROM t"), SQLITE_READONLY);
  CHECK_CONTAINS(replic_reader_error_text(reader), "run");
  CHECK_INT(start(reader, "INSERT INTO t VALUES(2, 2) RETURNING id"), SQLITE_READONLY);
  CHECK_INT(start(reader, "BEGIN"), REPLIC_ETRANSACTION);
  CHECK_INT(start(reader, "ATTACH 'x' AS x"), REPLIC_ETRANSACTION);
  CHECK_INT(start(reader, "SELECT 1; SELECT 2"), REPLIC_EUSAGE);
  CHECK_INT(start(reader, "  -- nothing"), REPLIC_EUSAGE);
  CHECK_INT(start(reader, "SELECT nonsense FROM t"), SQLITE_ERROR);
  CHECK_CONTAINS(replic_reader_error_text(reader), "nonsense");
  CHECK_TEXT(ask(reader, "SELECT * FROM t", NULL, 0), "i1|t6b657074\n");
  replic_reader_close(reader);
}

static void rows_come_in_pieces_of_one_snapshot(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  for (int i = 1; i <= 5; i++) upsert(p, "t", ROW({"id", v_int(i)}, {"v", v_text("abcdef")}));
  replic_reader *reader = open_reader(p);
  replic_rows rows = {0};
  CHECK_INT(start(reader, "SELECT id FROM t ORDER BY id"), REPLIC_OK);
  CHECK_INT(replic_reader_rows(reader, 2, 1 << 20, &rows), REPLIC_OK);
  CHECK_INT(rows.n_rows, 2);
  CHECK_INT(rows.n_columns, 1);
  CHECK_TEXT(replic_reader_column_name(reader, 0), "id");
  CHECK(!rows.done);
  upsert(p, "t", ROW({"id", v_int(6)}, {"v", v_text("later")}));    /* the writer does not wait */
  CHECK_INT(replic_reader_rows(reader, 1000, 1, &rows), REPLIC_OK); /* at least one row a piece */
  CHECK_INT(rows.n_rows, 3);
  CHECK_INT(replic_reader_rows(reader, 1000, 1 << 20, &rows), REPLIC_OK);
  CHECK(rows.done);
  CHECK_INT(rows.n_rows, 5);
  replic_rows_free(&rows);
  replic_reader_reset(reader);
  CHECK_TEXT(ask(reader, "SELECT count(*) FROM t", NULL, 0), "i6\n");
  replic_reader_close(reader);
}

static void a_schema_change_is_followed(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  replic_reader *reader = open_reader(p);
  upsert(p, "t", ROW({"id", v_int(1)}));
  CHECK_TEXT(ask(reader, "SELECT * FROM t", NULL, 0), "i1|n\n");
  CHECK_OK(p->r,
           try_migrate(p, 2, "ALTER TABLE t ADD COLUMN w; ALTER TABLE t_patches ADD COLUMN w", ""));
  CHECK_TEXT(ask(reader, "SELECT * FROM t", NULL, 0), "i1|n|n\n");
  replic_reader_close(reader);
}

static void more_statements_than_are_kept(void) {
  cluster *c = cluster_start(1, DDL);
  replic_reader *reader = open_reader(&c->peers[0]);
  for (int round = 0; round < 2; round++)
    for (int i = 0; i < 100; i++)
      CHECK_TEXT(ask(reader, test_format("SELECT %d", i), NULL, 0), test_format("i%d\n", i));
  replic_reader_close(reader);
}

static void a_file_that_is_not_there(void) {
  replic_reader *reader;
  CHECK_INT(replic_reader_open(test_path("missing.db"), &reader) & 0xff, SQLITE_CANTOPEN);
  CHECK(strlen(replic_reader_error_text(reader)) > 0);
  replic_reader_close(reader);
  replic_reader_close(NULL);
}

/* ---- digests ---- */

/* From an independent implementation: SipHash-2-4, key zero, over type, length, bytes. */
static void hashes_of_values(void) {
  cluster *c = cluster_start(1, DDL);
  replic_reader *reader = open_reader(&c->peers[0]);
  CHECK_TEXT(ask(reader,
                 "SELECT _replic_hash(), _replic_hash(1), _replic_hash(1.0), _replic_hash('1'), "
                 "_replic_hash(x'31'), _replic_hash(NULL), _replic_hash(-2, 'abcdefgh', NULL, x'')",
                 NULL, 0),
             "i2202906307356721367|i5936902883735199192|i-2382545012309986334|"
             "i-4306079867660673001|i8235809750995428059|i-7909996605348306699|"
             "i-2831983962555641638\n");
  replic_reader_close(reader);
}

static void sum_up(replic_reader *reader, const char *sql, size_t at_once, replic_sums *sums) {
  const replic_sums *so_far = NULL;
  CHECK_INT(start(reader, sql), REPLIC_OK);
  do CHECK_INT(replic_reader_sum(reader, at_once, &so_far), REPLIC_OK);
  while (!so_far->done);
  *sums = *so_far;
}

static void sums_do_not_depend_on_the_order(void) {
#define HASHES "SELECT _replic_hash(id), _replic_hash(id, v) FROM t ORDER BY id "
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  for (int i = 1; i <= 50; i++) upsert(p, "t", ROW({"id", v_int(i)}, {"v", v_int(i)}));
  replic_reader *reader = open_reader(p);
  replic_sums *up = test_alloc(sizeof *up), *down = test_alloc(sizeof *down);
  const replic_sums *part;
  sum_up(reader, HASHES, 1000, up);
  CHECK_INT(up->rows, 50);
  CHECK_INT(start(reader, HASHES), REPLIC_OK);
  CHECK_INT(replic_reader_sum(reader, 20, &part), REPLIC_OK); /* left in the middle */
  CHECK_INT(part->rows, 20);
  sum_up(reader, HASHES "DESC", 7, down);
  CHECK(memcmp(up, down, sizeof *up) == 0);
  size_t used = 0;
  for (size_t i = 0; i < REPLIC_BUCKETS; i++) used += up->bucket[i] != 0;
  CHECK(used > 40);
  run_sql(p, "UPDATE t SET v = 7.0 WHERE id = 7");
  sum_up(reader, HASHES, 1000, down);
  CHECK(memcmp(up, down, sizeof *up) != 0);
  CHECK_INT(replic_reader_sum(reader, 1, &part), REPLIC_EUSAGE);
  CHECK_INT(start(reader, "SELECT nonsense"), SQLITE_ERROR);
  CHECK_INT(start(reader, "SELECT 1, abs(-9223372036854775807 - id) FROM t"), REPLIC_OK);
  CHECK_INT(replic_reader_sum(reader, 1, &part), SQLITE_ERROR);
  replic_reader_close(reader);
}

static void a_held_snapshot_stays(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  replic_reader *reader = open_reader(p);
  CHECK_INT(replic_reader_hold(reader), REPLIC_OK);
  upsert(p, "t", ROW({"id", v_int(1)}));
  CHECK_TEXT(ask(reader, "SELECT count(*) FROM t", NULL, 0), "i0\n");
  CHECK_INT(start(reader, "COMMIT"), REPLIC_ETRANSACTION);
  upsert(p, "t", ROW({"id", v_int(2)}));
  CHECK_TEXT(ask(reader, "SELECT count(*) FROM t", NULL, 0), "i0\n");
  replic_reader_close(reader);
}

/* The vector as "origin:sequence"; "" if it is no news. */
static char *news(replic_reader *reader) {
  replic_rows rows = {0};
  char *text = test_format("%s", "");
  CHECK_INT(replic_reader_vector(reader, &rows), REPLIC_OK);
  size_t at = 0;
  for (size_t i = 0; i < rows.n_rows; i++) {
    replic_value origin, sequence, clock;
    at = replic_rows_value(&rows, at, &origin);
    at = replic_rows_value(&rows, at, &sequence);
    at = replic_rows_value(&rows, at, &clock);
    CHECK(clock.i > 0);
    text = test_format("%s%lld:%lld ", text, (long long)origin.i, (long long)sequence.i);
  }
  replic_rows_free(&rows);
  return text;
}

static void the_vector_is_told_once_after_each_commit(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  replic_reader *reader = open_reader(p);
  upsert(p, "t", ROW({"id", v_int(1)}));
  CHECK_TEXT(ask(reader, "SELECT count(*) FROM t", NULL, 0), "i1\n");
  CHECK_TEXT(news(reader), "101:1 ");
  CHECK_TEXT(news(reader), "");
  upsert(p, "t", ROW({"id", v_int(2)}));
  CHECK_TEXT(news(reader), ""); /* nothing of it was read yet */
  CHECK_INT(start(reader, "SELECT id FROM t ORDER BY id"), REPLIC_OK);
  replic_rows rows = {0};
  CHECK_INT(replic_reader_rows(reader, 1, 1000, &rows), REPLIC_OK);
  CHECK_TEXT(news(reader), "101:2 ");
  CHECK_INT(replic_reader_rows(reader, 1, 1000, &rows), REPLIC_OK); /* it goes on */
  CHECK_INT(rows.n_rows, 2);
  replic_rows_free(&rows);
  CHECK_TEXT(news(reader), "");
  replic_reader_close(reader);
}

/* ---- backups ---- */

static replic_reader *open_held(peer *p) {
  replic_reader *reader = open_reader(p);
  CHECK_INT(replic_reader_hold(reader), REPLIC_OK);
  return reader;
}

/* The code of a backup, all of it. */
static int try_backup(peer *p, const char *path) {
  replic_reader *reader = open_held(p);
  const char *copy, *from, *to;
  int64_t total, remaining = 1;
  int rc = replic_reader_backup(reader, path, &copy);
  while (rc == REPLIC_OK && remaining > 0) rc = replic_reader_copy(reader, 10, &total, &remaining);
  if (rc == REPLIC_OK) rc = replic_reader_copied(reader, &from, &to);
  if (rc == REPLIC_OK) {
    CHECK_INT(rename(from, to), 0);
    replic_reader_backed_up(reader);
  } else {
    CHECK_CONTAINS(replic_reader_error_text(reader), path);
  }
  replic_reader_close(reader);
  return rc;
}

static char *look(const char *path, const char *sql) {
  sqlite3 *db;
  CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
  char *text = sql_text(db, sql);
  sqlite3_close(db);
  return text;
}

static bool is_there(const char *path, const char *suffix) {
  return access(test_format("%s%s", path, suffix), F_OK) == 0;
}

static void check_nothing_beside(const char *path) {
  static const char *const SUFFIXES[] = {"-backup", "-replic", "-wal", "-shm", "-journal"};
  for (size_t i = 0; i < COUNT(SUFFIXES); i++)
    if (is_there(path, SUFFIXES[i])) check_failed(__FILE__, __LINE__, "%s is there", SUFFIXES[i]);
}

static void put_file(const char *path, const char *suffix, const void *bytes, size_t len) {
  FILE *file = fopen(test_format("%s%s", path, suffix), "wb");
  CHECK(file && fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

static void copy_file(const char *from, const char *to) {
  static char bytes[4 << 20];
  FILE *file = fopen(from, "rb");
  CHECK(file != NULL);
  size_t len = fread(bytes, 1, sizeof bytes, file);
  CHECK(len < sizeof bytes && fclose(file) == 0);
  put_file(to, "", bytes, len);
}

static void fill(peer *p, int from, int to) {
  for (int i = from; i <= to; i++)
    upsert(p, "t", ROW({"id", v_int(i)}, {"v", v_text(test_format("%0500d", i))}));
}

static int mode_of(const char *path) {
  struct stat found;
  CHECK_INT(stat(path, &found), 0);
  return found.st_mode & 0777;
}

/* Before the first page is copied, whatever the mask is, and whatever lay there before. */
static void a_backup_has_the_mode_of_its_source(void) {
  static const mode_t MODES[] = {0600, 0640, 0666, 0400};
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  const char *path = test_path("m%o 1?2#3.db"), *copy, *elsewhere = test_path("elsewhere");
  const char *own = p->config.path, *name = test_format("%s-backup", path);
  mode_t mask = umask(0);
  fill(p, 1, 10);
  for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
    CHECK_INT(chmod(own, MODES[i]), 0);
    unlink(name);
    CHECK_INT(symlink(elsewhere, name), 0);
    replic_reader *reader = open_held(p);
    CHECK_INT(replic_reader_backup(reader, path, &copy), REPLIC_OK);
    CHECK_INT(mode_of(copy), MODES[i]);
    CHECK_INT(access(elsewhere, F_OK), -1); /* where the link leads to */
    replic_reader_close(reader);
    CHECK_INT(chmod(own, 0600), 0);
  }
  umask(mask);
}

static void a_backup_is_one_snapshot(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  const char *path = test_path("copy.db"), *copy, *from, *to;
  fill(p, 1, 100);
  replic_reader *reader = open_held(p);
  int64_t total = 0, remaining = 1, slices = 0, first_total = 0;
  CHECK_INT(replic_reader_backup(reader, path, &copy), REPLIC_OK);
  CHECK_TEXT(copy, test_format("%s-backup", path));
  CHECK_INT(replic_reader_copied(reader, &from, &to), REPLIC_EUSAGE);
  for (; remaining > 0; slices++) {
    CHECK_INT(replic_reader_copy(reader, 1, &total, &remaining), REPLIC_OK);
    if (slices == 0) first_total = total;
    CHECK_INT(total, first_total);
    CHECK_INT(remaining, total - slices - 1); /* it never starts again */
    upsert(p, "t", ROW({"id", v_int(1 + slices)}, {"v", v_text("later")}));
  }
  CHECK(slices > 20);
  CHECK_INT(replic_reader_copied(reader, &from, &to), REPLIC_OK);
  CHECK(!is_there(path, ""));
  CHECK_INT(rename(from, to), 0);
  replic_reader_backed_up(reader);
  replic_reader_close(reader);
  check_nothing_beside(path);
  CHECK_TEXT(look(path, "PRAGMA integrity_check"), "ok");
  CHECK_TEXT(look(path, "SELECT count(*) || ' ' || max(length(v)) || ' ' || min(length(v)) FROM t"),
             "100 500 500");
  CHECK_TEXT(look(path, "SELECT sequence FROM _replic_vector"), "100");
}

static void a_backup_that_is_left_leaves_nothing(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  const char *path = test_path("copy.db"), *copy;
  int64_t total, remaining;
  fill(p, 1, 50);
  CHECK_INT(try_backup(p, path), REPLIC_OK);
  put_file(path, "-replic", "a witness", 9);
  fill(p, 51, 60);
  replic_reader *reader = open_held(p), *other = open_held(p);
  CHECK_INT(replic_reader_backup(reader, path, &copy), REPLIC_OK);
  CHECK_INT(replic_reader_copy(reader, 5, &total, &remaining), REPLIC_OK);
  CHECK(remaining > 0);
  CHECK_INT(replic_reader_backup(reader, test_path("b"), &copy), REPLIC_EUSAGE); /* one at a time */
  CHECK_INT(replic_reader_backup(other, path, &copy), REPLIC_ELOCKED);
  replic_reader_close(other);
  CHECK(is_there(path, "-backup") && is_there(path, "-replic")); /* not the other's to remove */
  replic_reader_close(reader);
  CHECK(!is_there(path, "-backup") && is_there(path, "-replic"));
  CHECK_TEXT(look(path, "SELECT count(*) FROM t"), "50");
  put_file(path, "-backup", "what a crash has left", 21);
  CHECK_INT(try_backup(p, path), REPLIC_OK);
  check_nothing_beside(path);
  CHECK_TEXT(look(path, "SELECT count(*) FROM t"), "60");
}

static void what_an_earlier_file_leaves_is_not_taken_for_the_new_ones(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  const char *path = test_path("copy.db"), *own = p->config.path;
  fill(p, 1, 50);
  /* as a crash leaves it: part of it in the WAL */
  for (int with_file = 1; with_file >= 0; with_file--) {
    copy_file(test_format("%s-wal", own), test_format("%s-wal", path));
    if (with_file)
      copy_file(own, path);
    else
      remove(path);
    copy_file(test_format("%s-shm", own), test_format("%s-shm", path));
    put_file(path, "-replic", "a witness", 9);
    if (with_file) fill(p, 51, 60);
    CHECK_INT(try_backup(p, path), REPLIC_OK);
    check_nothing_beside(path);
    CHECK_TEXT(look(path, "SELECT count(*) FROM t"), "60");
    CHECK_TEXT(look(path, "PRAGMA integrity_check"), "ok");
  }
}

static void what_a_backup_refuses(void) {
  cluster *c = cluster_start(2, DDL);
  peer *p = &c->peers[0];
  const char *own = p->config.path, *text = test_path("a.txt"), *db = test_path("other.db");
  CHECK_INT(try_backup(p, own), REPLIC_EUSAGE);
  CHECK_INT(try_backup(p, test_format("%s-wal", own)), REPLIC_EUSAGE);
  CHECK_INT(try_backup(p, test_format("%s-replic", own)), REPLIC_EUSAGE);
  CHECK_INT(try_backup(p, c->peers[1].config.path), REPLIC_ELOCKED);
  CHECK_INT(try_backup(p, test_path("missing/copy.db")) & 0xff, SQLITE_CANTOPEN);
  put_file(text, "", "Dear diary, this is not a database, and shall stay.", 51);
  CHECK_INT(try_backup(p, text), SQLITE_NOTADB);
  check_nothing_beside(text);

  sqlite3 *program;
  CHECK_INT(sqlite3_open(db, &program), SQLITE_OK);
  sql_exec(program, "PRAGMA journal_mode = WAL; CREATE TABLE kept(x)");
  CHECK_INT(try_backup(p, db), SQLITE_BUSY);
  sql_exec(program, "INSERT INTO kept VALUES(1)");
  sqlite3_close(program);
  CHECK_TEXT(look(db, "SELECT count(*) FROM kept"), "1");
  check_nothing_beside(db);
  CHECK_INT(try_backup(p, db), REPLIC_OK);

  replic_reader *reader = open_reader(p);
  const char *copy;
  int64_t n;
  CHECK_INT(replic_reader_backup(reader, db, &copy), REPLIC_EUSAGE); /* not held */
  CHECK_INT(replic_reader_copy(reader, 1, &n, &n), REPLIC_EUSAGE);
  replic_reader_close(reader);
}

/* ---- where nothing can be written ---- */

static int open_to_read(const char *path, int flags, int mode) {
  if (!(flags & (O_RDWR | O_CREAT))) return open(path, flags, mode);
  errno = EROFS;
  return -1;
}

static void mount_read_only(int yes) {
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  vfs->xSetSystemCall(vfs, "open", yes ? (sqlite3_syscall_ptr)open_to_read : NULL);
}

/* Runs `sql` and closes the file without moving its WAL into it. */
static void leave_wal(const char *path, const char *sql) {
  sqlite3 *db;
  CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
  sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  CHECK_INT(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
}

static void check_count(const char *path, const char *wanted) {
  replic_reader *reader;
  mount_read_only(1);
  CHECK_INT(replic_reader_peek(path, &reader), REPLIC_OK);
  CHECK_TEXT(ask(reader, "SELECT count(*) FROM t", NULL, 0), wanted);
  replic_reader_close(reader);
  mount_read_only(0);
}

static void a_file_where_nothing_can_be_written(void) {
  const char *path = test_path("a ?#%41.db");
  sqlite3 *db;
  CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
  const char *sql = "PRAGMA journal_mode = WAL; CREATE TABLE t(v); INSERT INTO t VALUES(1)";
  CHECK_INT(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  check_count(path, "i1\n"); /* at rest */
  leave_wal(path, "INSERT INTO t VALUES(2)");
  check_count(path, "i2\n"); /* with -shm */
  CHECK_INT(unlink(test_format("%s-shm", path)), 0);
  check_count(path, "i2\n"); /* with the WAL alone */
  CHECK_INT(access(test_format("%s-wal", path), F_OK), 0);
  replic_reader *reader;
  mount_read_only(1);
  CHECK_INT(replic_reader_open(path, &reader), REPLIC_OK); /* as a connection that stays would */
  CHECK_INT(start(reader, "SELECT count(*) FROM t") & 0xff, SQLITE_CANTOPEN);
  replic_reader_close(reader);
  CHECK_INT(replic_reader_peek(test_path("missing.db"), &reader) & 0xff, SQLITE_CANTOPEN);
  replic_reader_close(reader);
  mount_read_only(0);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(every_type_of_value),
                               TEST(parameters_by_position_and_by_name),
                               TEST(very_many_names),
                               TEST(names_outlive_a_change_of_the_schema),
                               TEST(a_query_that_is_stopped),
                               TEST(a_query_that_is_stopped_while_it_waits),
                               TEST(what_is_refused),
                               TEST(rows_come_in_pieces_of_one_snapshot),
                               TEST(a_schema_change_is_followed),
                               TEST(more_statements_than_are_kept),
                               TEST(a_file_that_is_not_there),
                               TEST(hashes_of_values),
                               TEST(sums_do_not_depend_on_the_order),
                               TEST(a_held_snapshot_stays),
                               TEST(the_vector_is_told_once_after_each_commit),
                               TEST(a_backup_has_the_mode_of_its_source),
                               TEST(a_backup_is_one_snapshot),
                               TEST(a_backup_that_is_left_leaves_nothing),
                               TEST(what_an_earlier_file_leaves_is_not_taken_for_the_new_ones),
                               TEST(what_a_backup_refuses),
                               TEST(a_file_where_nothing_can_be_written)};
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

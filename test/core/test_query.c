/* test_query.c - reading connections: what they return, what they refuse, and that they neither
 * wait for the writer nor change anything. */
#include <string.h>

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

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(every_type_of_value),
                               TEST(parameters_by_position_and_by_name),
                               TEST(what_is_refused),
                               TEST(rows_come_in_pieces_of_one_snapshot),
                               TEST(a_schema_change_is_followed),
                               TEST(more_statements_than_are_kept),
                               TEST(a_file_that_is_not_there)};
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

/* test_seed.c - the declarations and values that must replicate: SEED.md to the letter, and what
 * SQLite allows beyond. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "harness.h"

#define SEED_TABLE                                                                                 \
  "CREATE TABLE myTable ("                                                                         \
  "  id            INTEGER NOT NULL,"                                                              \
  "  tenantId      INTEGER NOT NULL,"                                                              \
  "  name          TEXT,"                                                                          \
  "  deletedAt     INTEGER,"                                                                       \
  "  PRIMARY KEY (id, tenantId)"                                                                   \
  ") STRICT;"
#define SEED_PATCHES(more)                                                                         \
  "CREATE TABLE myTable_patches ("                                                                 \
  "  _patchedAt    INTEGER  NOT NULL,"                                                             \
  "  _sequenceId   INTEGER  NOT NULL,"                                                             \
  "  _peerId       INTEGER  NOT NULL," more "  id            INTEGER NOT NULL,"                    \
  "  tenantId      INTEGER NOT NULL,"                                                              \
  "  name          TEXT,"                                                                          \
  "  deletedAt     INTEGER"                                                                        \
  ") STRICT;"

static cluster *linked_pair(const char *ddl) {
  cluster *c = cluster_start(2, ddl);
  wire_open(c, 0, 1);
  cluster_settle(c);
  return c;
}

static void seed_ddl_replicates_both_ways(void) {
  cluster *c = linked_pair(SEED_TABLE SEED_PATCHES(""));
  CHECK_INT(upsert(&c->peers[0], "myTable",
                   ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_text("one")})),
            1);
  CHECK_INT(upsert(&c->peers[1], "myTable",
                   ROW({"id", v_int(2)}, {"tenantId", v_int(7)}, {"name", v_text("two")})),
            1);
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "myTable"), "i1|i7|t6f6e65|n\ni2|i7|t74776f|n\n");
  upsert(&c->peers[1], "myTable",
         ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_text("uno")}));
  c->now_ms += 5;
  erase(&c->peers[0], "myTable", ROW({"id", v_int(2)}, {"tenantId", v_int(7)}));
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "myTable"),
             test_format("i1|i7|t756e6f|n\ni2|i7|t74776f|i%lld\n",
                         (long long)sql_int(peer_sql(&c->peers[0]),
                                            "SELECT deletedAt FROM myTable WHERE id = 2")));
  cluster_same(c, "myTable_patches");
}

static void seed_patches_hold_the_mandatory_columns(void) {
  cluster *c = linked_pair(SEED_TABLE SEED_PATCHES(""));
  c->now_ms = 1700000000123;
  upsert(&c->peers[0], "myTable",
         ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_text("one")}));
  upsert(&c->peers[0], "myTable", ROW({"tenantId", v_int(7)}, {"id", v_int(1)}));
  cluster_settle(c);
  const char *wanted = "i1700000000123|i1|i101|i1|i7|t6f6e65|n\ni1700000000123|i2|i101|i1|i7|n|n\n";
  CHECK_TEXT(peer_dump(&c->peers[0], "myTable_patches"), wanted);
  CHECK_TEXT(peer_dump(&c->peers[1], "myTable_patches"), wanted);
}

static void setting_null_needs_the_nulls_column(void) {
  cluster *c = linked_pair(SEED_TABLE SEED_PATCHES(""));
  peer *p = &c->peers[0];
  upsert(p, "myTable", ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_text("one")}));
  CHECK_CODE(
      p->r,
      try_upsert(p, "myTable", ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_null()})),
      REPLIC_ENULLS);
  CHECK_CONTAINS(replic_error_text(p->r), "myTable_patches");
  CHECK_CONTAINS(replic_error_text(p->r), "name");
  CHECK_CONTAINS(replic_error_text(p->r), "_nulls");
  CHECK_CODE(p->r,
             try_upsert(p, "myTable",
                        ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"deletedAt", v_real(NAN)})),
             REPLIC_ENULLS);
  CHECK_CONTAINS(replic_error_text(p->r), "deletedAt");
  CHECK_INT(
      upsert(p, "myTable", ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_text("uno")})),
      2);
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "myTable"), "i1|i7|t756e6f|n\n");
}

static void null_reaches_the_other_peer(void) {
  cluster *c = linked_pair(SEED_TABLE SEED_PATCHES("_nulls TEXT,"));
  upsert(&c->peers[0], "myTable",
         ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_text("one")}));
  cluster_settle(c);
  upsert(&c->peers[1], "myTable",
         ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_null()}));
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "myTable"), "i1|i7|n|n\n");
  CHECK_TEXT(
      sql_text(peer_sql(&c->peers[0]), "SELECT _nulls FROM myTable_patches WHERE _peerId = 102"),
      "[\"name\"]");
  CHECK_INT(sql_int(peer_sql(&c->peers[0]),
                    "SELECT count(*) FROM myTable_patches WHERE _nulls IS NOT NULL"),
            1);

  erase(&c->peers[0], "myTable", ROW({"id", v_int(1)}, {"tenantId", v_int(7)}));
  c->now_ms += 1;
  upsert(
      &c->peers[0], "myTable",
      ROW({"id", v_int(1)}, {"tenantId", v_int(7)}, {"name", v_null()}, {"deletedAt", v_null()}));
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "myTable"), "i1|i7|n|n\n");
  CHECK_INT(sql_int(peer_sql(&c->peers[1]),
                    "SELECT count(*) FROM myTable_patches p, json_each(p._nulls) "
                    "WHERE _peerId = 101 AND _sequenceId = 3"),
            2);
}

/* One table per kind of declaration; every one carries rows both ways, a change and a deletion. */
static void every_kind_of_key_and_table(void) {
  static const char *const KINDS[][2] = {
      /* columns of the key and how the table ends; columns of T_patches */
      {"k INTEGER PRIMARY KEY, v, d, deletedAt)", "k INTEGER NOT NULL, v, d, deletedAt)"},
      {"k INTEGER PRIMARY KEY, v TEXT, d REAL, deletedAt INT) STRICT",
       "k INTEGER, v TEXT, d REAL, deletedAt INT) STRICT"},
      {"k INTEGER NOT NULL, v, d, deletedAt, PRIMARY KEY(k)) WITHOUT ROWID",
       "k INTEGER, v, d, deletedAt)"},
      {"k INT PRIMARY KEY, v BLOB, d ANY, deletedAt ANY) STRICT, WITHOUT ROWID",
       "k INT, v BLOB, d ANY, deletedAt ANY) STRICT"},
      {"k INTEGER PRIMARY KEY DESC, v, d, deletedAt)", "k INTEGER, v, d, deletedAt)"},
      {"k NUMERIC, v VARCHAR(20), d DOUBLE, deletedAt DATETIME, PRIMARY KEY(k))",
       "k NUMERIC, v VARCHAR(20), d DOUBLE, deletedAt DATETIME)"},
  };
  for (size_t i = 0; i < COUNT(KINDS); i++) {
    test_note("kind %zu", i);
    cluster *c = linked_pair(
        test_format("CREATE TABLE t(%s; CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, "
                    "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, %s;",
                    KINDS[i][0], KINDS[i][1]));
    bool blob = i == 3;
    for (int k = 0; k < 6; k++) {
      replic_value v = blob ? v_blob("ab\0c", 4) : v_text("x");
      upsert(&c->peers[k % 2], "t",
             ROW({"k", v_int(k * 10 - 30)}, {"v", v}, {"d", v_real(k + 0.5)}));
    }
    cluster_settle(c);
    upsert(&c->peers[0], "t", ROW({"d", v_real(9.25)}, {"k", v_int(20)}));
    erase(&c->peers[1], "t", ROW({"k", v_int(-30)}));
    cluster_settle(c);
    cluster_same(c, "t");
    CHECK_INT(sql_int(peer_sql(&c->peers[0]), "SELECT count(*) FROM t"), 6);
    CHECK_INT(sql_int(peer_sql(&c->peers[1]), "SELECT count(*) FROM t WHERE deletedAt IS NOT NULL"),
              1);
    CHECK_INT(sql_int(peer_sql(&c->peers[1]),
                      "SELECT count(*) FROM t WHERE d = 9.25 AND k = 20 AND v IS NOT NULL"),
              1);
    test_release();
  }
}

static void text_blob_and_composite_keys(void) {
  cluster *c = linked_pair("CREATE TABLE t(b BLOB NOT NULL, s TEXT NOT NULL, n INTEGER NOT NULL, v "
                           "TEXT, PRIMARY KEY(s, n, b)) WITHOUT ROWID;"
                           "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId "
                           "INTEGER NOT NULL, _peerId INTEGER NOT NULL,"
                           "  b BLOB NOT NULL, s TEXT NOT NULL, n INTEGER NOT NULL, v TEXT);");
  const replic_value blobs[] = {v_blob("", 0), v_blob("\0", 1), v_blob("\0\0", 2), v_blob("a", 1)};
  const replic_value texts[] = {
      v_text(""), {.type = REPLIC_TEXT, .data = "a\0b", .len = 3}, v_text("a"), v_text("A")};
  const replic_value numbers[] = {v_int(INT64_MAX), v_int(INT64_MIN), v_int(0)};
  int n = 0;
  for (size_t i = 0; i < COUNT(blobs); i++) {
    for (size_t j = 0; j < COUNT(texts); j++) {
      for (size_t k = 0; k < COUNT(numbers); k++, n++) {
        upsert(&c->peers[n % 2], "t",
               ROW({"b", blobs[i]}, {"s", texts[j]}, {"n", numbers[k]}, {"v", v_text("old")}));
      }
    }
  }
  cluster_settle(c);
  c->now_ms += 10;
  for (size_t i = 0; i < COUNT(blobs); i++) {
    upsert(&c->peers[1], "t",
           ROW({"s", texts[1]}, {"b", blobs[i]}, {"n", numbers[0]}, {"v", v_text("new")}));
  }
  cluster_settle(c);
  cluster_same(c, "t");
  CHECK_INT(sql_int(peer_sql(&c->peers[0]), "SELECT count(*) FROM t"), n);
  CHECK_INT(sql_int(peer_sql(&c->peers[0]), "SELECT count(*) FROM t WHERE v = 'new'"),
            COUNT(blobs));
  CHECK_INT(sql_int(peer_sql(&c->peers[0]),
                    "SELECT count(*) FROM t WHERE v = 'new' AND CAST(s AS BLOB) = x'610062'"),
            COUNT(blobs));
}

static void sixty_tables(void) {
  char *ddl = "";
  for (int i = 0; i < 60; i++) {
    ddl = test_format(
        "%sCREATE TABLE t%d(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE t%d_patches(_patchedAt "
        "INTEGER NOT "
        "NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER, v TEXT);",
        ddl, i, i);
  }
  cluster *c = linked_pair(ddl);
  CHECK_INT(replic_table_count(c->peers[0].r), 60);
  for (int i = 0; i < 180; i++) {
    upsert(&c->peers[i % 2], test_format("t%d", (i * 7) % 60),
           ROW({"id", v_int(i % 3)}, {"v", v_text(test_format("%d", i))}));
  }
  cluster_settle(c);
  int64_t rows = 0;
  for (int i = 0; i < 60; i++) {
    cluster_same(c, test_format("t%d", i));
    rows += sql_int(peer_sql(&c->peers[1]), test_format("SELECT count(*) FROM t%d_patches", i));
  }
  CHECK_INT(rows, 180);
  CHECK_INT(peer_at(&c->peers[0], 102), 90);
}

static void two_hundred_columns(void) {
  char *columns = "id INTEGER PRIMARY KEY";
  for (int i = 0; i < 200; i++) columns = test_format("%s, c%d", columns, i);
  cluster *c = linked_pair(
      test_format("CREATE TABLE t(%s); CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, "
                  "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls TEXT, %s);",
                  columns, test_format("id INTEGER%s", strchr(columns, ','))));
  cell *row = test_alloc(202 * sizeof *row);
  row[0] = (cell){"id", v_int(1)};
  for (int i = 0; i < 200; i++) row[i + 1] = (cell){test_format("c%d", i), v_int(i)};
  upsert(&c->peers[0], "t", row);
  cluster_settle(c);
  for (int i = 0; i < 200; i++) { /* far more sets of columns than statements are kept */
    peer *p = &c->peers[i % 2];
    upsert(p, "t",
           ROW({"id", v_int(1)}, {test_format("c%d", i), v_text("x")},
               {test_format("c%d", 199 - i), v_null()}));
    c->now_ms += 1;
    if (i % 10 == 0) cluster_settle(c);
  }
  cluster_settle(c);
  CHECK_CONTAINS(cluster_same(c, "t"), "i1|n|n|n|");
  CHECK_INT(sql_int(peer_sql(&c->peers[0]),
                    "SELECT count(*) FROM t WHERE c199 = 'x' AND c0 IS NULL AND c100 = 'x'"),
            1);
}

static void awkward_names(void) {
  cluster *c = linked_pair("CREATE TABLE \"or\"\"der by\"(\"select\" INTEGER PRIMARY KEY, "
                           "\"order\" TEXT, \"a\"\"b\" TEXT, \"\xc3\xa9\" TEXT, "
                           "\"it's\" TEXT, \"%s%d\" TEXT, \"a b\" TEXT, \"[x]\" TEXT, \"\\\" TEXT, "
                           "\"deletedAt\" INTEGER);"
                           "CREATE TABLE \"or\"\"der by_patches\"(_patchedAt INTEGER NOT NULL, "
                           "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT "
                           "NULL, _nulls TEXT, \"select\" INTEGER, \"order\" TEXT, \"a\"\"b\" "
                           "TEXT, \"\xc3\xa9\" TEXT, \"it's\" TEXT, \"%s%d\" TEXT, "
                           "\"a b\" TEXT, \"[x]\" TEXT, \"\\\" TEXT, \"deletedAt\" INTEGER);");
  static const char *const NAMES[] = {"order", "a\"b", "\xc3\xa9", "it's",
                                      "%s%d",  "a b",  "[x]",      "\\"};
  cell *row = test_alloc((COUNT(NAMES) + 2) * sizeof *row);
  for (size_t set_null = 0; set_null < 2; set_null++) {
    row[0] = (cell){"select", v_int(1)};
    for (size_t i = 0; i < COUNT(NAMES); i++)
      row[i + 1] = (cell){NAMES[i], set_null ? v_null() : v_text(NAMES[i])};
    upsert(&c->peers[set_null], "or\"der by", row);
    cluster_settle(c);
    const char *values = "t6f72646572|t612262|tc3a9|t69742773|t25732564|t612062|t5b785d|t5c";
    CHECK_TEXT(cluster_same(c, "or\"der by"),
               test_format("i1|%s|n\n", set_null ? "n|n|n|n|n|n|n|n" : values));
  }
  erase(&c->peers[0], "or\"der by", ROW({"select", v_int(1)}));
  cluster_settle(c);
  CHECK_INT(
      sql_int(peer_sql(&c->peers[1]), "SELECT count(*) FROM \"or\"\"der by\" WHERE deletedAt > 0"),
      1);
}

static void generated_columns_are_computed_by_every_peer(void) {
  cluster *c = linked_pair("CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, twice INTEGER AS (a "
                           "* 2) VIRTUAL, b TEXT, kept TEXT AS (b || a) STORED);"
                           "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId "
                           "INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER,"
                           " a INTEGER, b TEXT);");
  upsert(&c->peers[0], "t", ROW({"id", v_int(1)}, {"a", v_int(21)}));
  upsert(&c->peers[1], "t", ROW({"id", v_int(1)}, {"b", v_text("x")}));
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "t"), "i1|i21|i42|t78|t783231\n");
  CHECK_CODE(c->peers[0].r,
             try_upsert(&c->peers[0], "t", ROW({"id", v_int(1)}, {"twice", v_int(2)})),
             REPLIC_ECOLUMN);
  CHECK_CONTAINS(replic_error_text(c->peers[0].r), "twice");
}

/* What plain SQLite keeps when this value is bound to a column of this type. */
static char *as_sqlite_keeps(const char *type, const replic_value *v) {
  sqlite3 *db;
  sqlite3_stmt *stmt;
  CHECK_INT(sqlite3_open(":memory:", &db), SQLITE_OK);
  sql_exec(db, test_format("CREATE TABLE t(v %s)", type));
  CHECK_INT(sqlite3_prepare_v2(db, "INSERT INTO t VALUES(?)", -1, &stmt, NULL), SQLITE_OK);
  switch (v->type) {
  case REPLIC_INT: sqlite3_bind_int64(stmt, 1, v->i); break;
  case REPLIC_REAL: sqlite3_bind_double(stmt, 1, v->d); break;
  case REPLIC_TEXT:
    sqlite3_bind_text64(stmt, 1, v->len ? v->data : "", v->len, SQLITE_STATIC, SQLITE_UTF8);
    break;
  case REPLIC_BLOB:
    sqlite3_bind_blob64(stmt, 1, v->len ? v->data : "", v->len, SQLITE_STATIC);
    break;
  default: break;
  }
  CHECK_INT(sqlite3_step(stmt), SQLITE_DONE);
  sqlite3_finalize(stmt);
  char *dump = sql_dump(db, "SELECT v FROM t");
  sqlite3_close(db);
  return dump;
}

static void values_at_their_limits(void) {
  static const char INVALID[] = "\xff\xc0\x80\xed\xa0\x80\0\xfe";
  const int64_t exact = (int64_t)1 << 53;
  const replic_value values[] = {v_int(INT64_MAX),
                                 v_int(INT64_MIN),
                                 v_int(exact - 1),
                                 v_int(exact),
                                 v_int(exact + 1),
                                 v_int(-exact - 1),
                                 v_int(0),
                                 v_int(-1),
                                 v_real(0.1),
                                 v_real(-0.0),
                                 v_real(0.0),
                                 v_real(1.0),
                                 v_real(1e300),
                                 v_real(DBL_MAX),
                                 v_real(-DBL_MIN),
                                 v_real(5e-324),
                                 v_real(HUGE_VAL),
                                 v_real(-HUGE_VAL),
                                 v_real(9007199254740993.0),
                                 v_real(-9223372036854775808.0),
                                 v_text(""),
                                 v_text("0"),
                                 v_text("1e3"),
                                 v_text("\xf0\x9f\x98\x80 \xc3\xa9"),
                                 v_text("12345678901234567890"),
                                 {.type = REPLIC_TEXT, .data = "a\0b\0", .len = 4},
                                 {.type = REPLIC_TEXT, .data = NULL, .len = 0},
                                 {.type = REPLIC_BLOB, .data = NULL, .len = 0},
                                 v_blob("", 0),
                                 v_blob("\0", 1),
                                 v_blob(INVALID, sizeof INVALID),
                                 v_blob("123", 3)};
  static const char *const TYPES[] = {"", "INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC"};
  for (size_t k = 0; k < COUNT(TYPES); k++) {
    cluster *c = linked_pair(test_format(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v %s); CREATE TABLE t_patches(_patchedAt INTEGER "
        "NOT NULL, "
        "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls TEXT, id INTEGER, v %s);",
        TYPES[k], TYPES[k]));
    for (size_t i = 0; i < COUNT(values); i++) {
      upsert(&c->peers[i % 2], "t", ROW({"id", v_int((int64_t)i)}, {"v", values[i]}));
    }
    cluster_settle(c);
    cluster_same(c, "t");
    for (size_t i = 0; i < COUNT(values); i++) {
      test_note("value %zu as \"%s\"", i, TYPES[k]);
      char *select = test_format("SELECT v FROM t WHERE id = %zu", i);
      CHECK_TEXT(sql_dump(peer_sql(&c->peers[0]), select), as_sqlite_keeps(TYPES[k], &values[i]));
      CHECK_TEXT(sql_dump(peer_sql(&c->peers[1]), select), as_sqlite_keeps(TYPES[k], &values[i]));
    }
    test_release();
  }
}

/* Catch-up reads the values back from the log, where live frames may have them from the caller:
 * both must agree. */
static void values_survive_the_log(void) {
  cluster *c = cluster_start(
      2,
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v, r REAL); CREATE TABLE t_patches(_patchedAt "
      "INTEGER "
      "NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER, v, r REAL);");
  const replic_value values[] = {v_int(INT64_MIN), v_real(-0.0),  v_real(3.0),
                                 v_text(""),       v_blob("", 0), v_text("3")};
  for (size_t i = 0; i < COUNT(values); i++) {
    upsert(&c->peers[0], "t",
           ROW({"id", v_int((int64_t)i)}, {"v", values[i]}, {"r", v_int((int64_t)i)}));
  }
  wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK_CONTAINS(cluster_same(c, "t"), "i0|i-9223372036854775808|r0000000000000000\n");
  CHECK_CONTAINS(cluster_same(c, "t"),
                 "i3|t|r4008000000000000\ni4|b|r4010000000000000\ni5|t33|r4014000000000000\n");
}

static void nan_is_null(void) {
  cluster *c = linked_pair("CREATE TABLE t(id INTEGER PRIMARY KEY, v REAL, must REAL NOT NULL); "
                           "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, "
                           "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls TEXT, "
                           "id INTEGER, v REAL, must REAL);");
  peer *p = &c->peers[0];
  upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_real(1.5)}, {"must", v_real(1)}));
  cluster_settle(c);
  upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_real(NAN)}));
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "t"), "i1|n|r3ff0000000000000\n");
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_int(1)}, {"must", v_real(NAN)})),
             SQLITE_CONSTRAINT_NOTNULL);
  CHECK_CODE(p->r, try_upsert(p, "t", ROW({"id", v_real(NAN)}, {"must", v_real(1)})), REPLIC_EKEY);
  cluster_settle(c);
  CHECK_INT(peer_at(&c->peers[1], 101), 2);
}

static void a_blob_of_twenty_megabytes(void) {
  cluster *c =
      linked_pair("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); CREATE TABLE "
                  "t_patches(_patchedAt INTEGER NOT NULL, "
                  "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER, v BLOB);");
  const size_t len = 20u << 20;
  uint64_t *blob = test_alloc(len);
  rng g = {42};
  for (size_t i = 0; i < len / sizeof *blob; i++) blob[i] = rng_next(&g);
  replic_value value = v_blob(blob, len);
  upsert(&c->peers[0], "t", ROW({"id", v_int(1)}, {"v", value}));
  upsert(&c->peers[0], "t", ROW({"id", v_int(2)}, {"v", v_text("small")}));
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "t"), test_format("i1|%s\ni2|t736d616c6c\n", show_value(&value)));
  peer *late = cluster_add(c);
  peer_start(late);
  CHECK_OK(late->r, try_migrate(late, 1,
                                sql_text(peer_sql(&c->peers[0]),
                                         "SELECT group_concat(sql, ';') FROM sqlite_schema "
                                         "WHERE name IN ('t', 't_patches')"),
                                ""));
  wire_open(c, 0, 2);
  cluster_settle(c);
  cluster_same(c, "t");
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(seed_ddl_replicates_both_ways),
      TEST(seed_patches_hold_the_mandatory_columns),
      TEST(setting_null_needs_the_nulls_column),
      TEST(null_reaches_the_other_peer),
      TEST(every_kind_of_key_and_table),
      TEST(text_blob_and_composite_keys),
      TEST(sixty_tables),
      TEST(two_hundred_columns),
      TEST(awkward_names),
      TEST(generated_columns_are_computed_by_every_peer),
      TEST(values_at_their_limits),
      TEST(values_survive_the_log),
      TEST(nan_is_null),
      TEST(a_blob_of_twenty_megabytes),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

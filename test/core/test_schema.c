/* test_schema.c - registration: which tables are replicated, what is refused and in which words,
 * and that a refusal leaves everything as it was. */
#include <string.h>

#include "harness.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
#define GOOD                                                                                       \
  "CREATE TABLE good(id INTEGER PRIMARY KEY, v TEXT);"                                             \
  "CREATE TABLE good_patches(" CLOCK "id INTEGER, v TEXT);"
#define PATCHES_OF_T "CREATE TABLE t_patches(" CLOCK "id INTEGER, v TEXT);"
#define T "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);"

typedef struct refusal {
  const char *ddl;
  const char *text; /* part of the error text, up to all of it */
} refusal;

/* Each DDL is refused in a migration beside a good table that must go on working, in run, and at
 * open. */
static void refused(const refusal *cases, size_t n) {
  for (size_t i = 0; i < n; i++) {
    test_note("%s", cases[i].ddl);
    cluster *c = cluster_start(1, GOOD);
    peer *p = &c->peers[0];
    upsert(p, "good", ROW({"id", v_int(1)}, {"v", v_text("kept")}));
    CHECK_CODE(p->r, try_migrate(p, 2, cases[i].ddl, "-- down"), REPLIC_ESCHEMA);
    CHECK_CONTAINS(replic_error_text(p->r), cases[i].text);
    CHECK_CODE(p->r, try_run(p, cases[i].ddl, 1), REPLIC_ESCHEMA);
    CHECK_CONTAINS(replic_error_text(p->r), cases[i].text);
    CHECK_INT(replic_table_count(p->r), 1);
    CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM sqlite_schema WHERE name LIKE 't%'"), 0);
    CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_migrations"), 1);
    CHECK_INT(upsert(p, "good", ROW({"id", v_int(2)}, {"v", v_text("more")})), 2);

    peer_stop(p);
    sqlite3 *db = peer_sql(p);
    sql_exec(db, cases[i].ddl);
    CHECK_CODE(p->r, peer_try_start(p), REPLIC_ESCHEMA);
    CHECK_CONTAINS(replic_error_text(p->r), cases[i].text);
    CHECK_INT(
        sql_int(
            db,
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_replic\\_t\\_%' ESCAPE '\\'"),
        0);
    test_release();
  }
}

static void keys_and_reserved_names(void) {
  static const refusal CASES[] = {
      {"CREATE TABLE t(id INTEGER, v TEXT);" PATCHES_OF_T,
       "table t has no PRIMARY KEY: declare one, so that peers mean the same row"},
      {"CREATE TABLE t(id INTEGER PRIMARY KEY, _peerId INTEGER, v TEXT);" PATCHES_OF_T,
       "column _peerId of table t has a name that is reserved for t_patches"},
      {"CREATE TABLE t(id INTEGER PRIMARY KEY, _NULLS TEXT);" PATCHES_OF_T,
       "column _NULLS of table t has a name that is reserved for t_patches"},
      {"CREATE TABLE t(_sequenceId INTEGER PRIMARY KEY, v TEXT);" PATCHES_OF_T,
       "column _sequenceId of table t has a name that is reserved for t_patches"},
  };
  refused(CASES, COUNT(CASES));
}

static void columns_that_do_not_match(void) {
  static const refusal CASES[] = {
      {T "CREATE TABLE t_patches(_sequenceId INTEGER, _peerId INTEGER, id INTEGER, v TEXT);",
       "t_patches has no column _patchedAt INTEGER NOT NULL: declare it"},
      {T "CREATE TABLE t_patches(_patchedAt INTEGER, _peerId INTEGER, id INTEGER, v TEXT);",
       "t_patches has no column _sequenceId"},
      {T "CREATE TABLE t_patches(_patchedAt INTEGER, _sequenceId INTEGER, id INTEGER, v TEXT);",
       "t_patches has no column _peerId"},
      {T "CREATE TABLE t_patches(" CLOCK "id INTEGER);",
       "t_patches has no column v: ALTER TABLE \"t_patches\" ADD COLUMN \"v\" TEXT"},
      {T "CREATE TABLE t_patches(" CLOCK "v TEXT);", "t_patches has no column id"},
      {T "CREATE TABLE t_patches(" CLOCK "id INTEGER, v BLOB);",
       "column v is \"TEXT\" in t and \"BLOB\" in t_patches: ALTER TABLE \"t_patches\" RENAME "
       "COLUMN "
       "\"v\" TO \"v_was\"; ALTER TABLE \"t_patches\" ADD COLUMN \"v\" TEXT; UPDATE \"t_patches\" "
       "SET \"v\" = \"v_was\"; ALTER TABLE \"t_patches\" DROP COLUMN \"v_was\""},
      {T "CREATE TABLE t_patches(" CLOCK "id TEXT, v TEXT);",
       "column id is \"INTEGER\" in t and \"TEXT\" in t_patches: declare the same type"},
      {T "CREATE TABLE t_patches(" CLOCK "id INTEGER, v);",
       "column v is \"TEXT\" in t and \"\" in t_patches"},
      {T "CREATE TABLE t_patches(" CLOCK "id INTEGER, v TEXT, w TEXT);",
       "t_patches has a column w that t has not: ALTER TABLE \"t_patches\" DROP COLUMN \"w\""},
      {"CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, a, \"b c\" VARCHAR(9));" PATCHES_OF_T,
       "t_patches has no column a, b c: ALTER TABLE \"t_patches\" ADD COLUMN \"a\"; ALTER TABLE "
       "\"t_patches\" ADD COLUMN \"b c\" VARCHAR(9)"},
      {"CREATE TABLE t(id INTEGER PRIMARY KEY, title TEXT);" PATCHES_OF_T,
       "t_patches has the column v, where t has title: ALTER TABLE \"t_patches\" RENAME COLUMN "
       "\"v\" TO \"title\""},
      {"CREATE TABLE t(id INTEGER PRIMARY KEY, size INTEGER);" PATCHES_OF_T,
       "t_patches has no column size: ALTER TABLE \"t_patches\" ADD COLUMN \"size\" INTEGER"},
      {T "CREATE TABLE t_patches(" CLOCK "id INTEGER, v TEXT NOT NULL);",
       "column v of t_patches is NOT NULL, but NULL means there \"not set by this patch\": remove "
       "NOT NULL"},
      {T "CREATE TABLE t_patches(" CLOCK "id INTEGER, v TEXT AS ('x'));",
       "column v of t_patches is generated: declare it as a plain column"},
      {"CREATE TABLE t(id INTEGER PRIMARY KEY, v ANY) STRICT; CREATE TABLE t_patches(" CLOCK
       "id INTEGER, v ANY);",
       "column v is ANY, which means something else in a table that is not STRICT: declare t and "
       "t_patches alike"},
      {T "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId TEXT NOT NULL, _peerId "
         "INTEGER NOT NULL, id INTEGER, v TEXT);",
       "column _sequenceId of t_patches is \"TEXT\": declare it INTEGER"},
      {T "CREATE TABLE t_patches(_patchedAt TEXT NOT NULL, _sequenceId INTEGER NOT NULL, _peerId "
         "INTEGER NOT NULL, id INTEGER, v TEXT);",
       "column _patchedAt of t_patches is \"TEXT\": declare it INTEGER"},
      {T "CREATE TABLE t_patches(" CLOCK "_nulls TEXT NOT NULL, id INTEGER, v TEXT);",
       "column _nulls of t_patches is NOT NULL"},
      {T "CREATE VIEW t_patches AS SELECT 1 AS _patchedAt, 1 AS _sequenceId, 1 AS _peerId, id, v "
         "FROM t;",
       "t_patches"},
      {"CREATE VIEW t AS SELECT 1 AS id, 'x' AS v;" PATCHES_OF_T,
       "t is a view: only tables can be replicated; rename t_patches"},
  };
  refused(CASES, COUNT(CASES));
}

static void uniqueness_that_peers_cannot_keep(void) {
  static const refusal CASES[] = {
      {"CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE);" PATCHES_OF_T,
       "t has a UNIQUE constraint or index (sqlite_autoindex_t_1) beyond its primary key: peers "
       "that write independently cannot keep it"},
      {T "CREATE UNIQUE INDEX t_v ON t(v);" PATCHES_OF_T,
       "t has a UNIQUE constraint or index (t_v) beyond its primary key"},
      {T "CREATE UNIQUE INDEX t_v ON t(v) WHERE v > 'a';" PATCHES_OF_T,
       "t has a UNIQUE constraint or index (t_v)"},
      {T "CREATE UNIQUE INDEX t_v ON t(lower(v));" PATCHES_OF_T,
       "t has a UNIQUE constraint or index (t_v)"},
      {T PATCHES_OF_T "CREATE UNIQUE INDEX t_p ON t_patches(_sequenceId);",
       "t_patches has a UNIQUE index (t_p) without _peerId and _sequenceId: late patches could not "
       "be kept"},
      {T PATCHES_OF_T "CREATE UNIQUE INDEX t_p ON t_patches(id, _patchedAt);",
       "t_patches has a UNIQUE index (t_p) without _peerId and _sequenceId"},
      {T "CREATE TABLE t_patches(" CLOCK "id INTEGER PRIMARY KEY, v TEXT);",
       "the primary key of t_patches allows one patch per row: remove it, or make it (_peerId, "
       "_sequenceId)"},
      {T "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER PRIMARY KEY, "
         "_peerId INTEGER NOT NULL, id INTEGER, v TEXT);",
       "the primary key of t_patches allows one patch per row: remove it, or make it (_peerId, "
       "_sequenceId)"},
      {T "CREATE TABLE t_patches(_patchedAt INTEGER PRIMARY KEY, _sequenceId INTEGER NOT NULL, "
         "_peerId INTEGER NOT NULL, id INTEGER, v TEXT);",
       "the primary key of t_patches allows one patch per row: remove it, or make it (_peerId, "
       "_sequenceId)"},
      {T "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, "
         "_peerId INTEGER PRIMARY KEY, id INTEGER, v TEXT);",
       "the primary key of t_patches allows one patch per row: remove it, or make it (_peerId, "
       "_sequenceId)"},
      {T "CREATE TABLE t_patches(" CLOCK
         "id INTEGER, v TEXT, PRIMARY KEY(_sequenceId, id)) WITHOUT ROWID;",
       "the primary key of t_patches allows one patch per row: remove it, or make it (_peerId, "
       "_sequenceId)"},
  };
  refused(CASES, COUNT(CASES));
}

static void collations_of_keys(void) {
  static const refusal CASES[] = {
      {"CREATE TABLE t(id TEXT COLLATE NOCASE PRIMARY KEY, v TEXT); CREATE TABLE t_patches(" CLOCK
       "id TEXT, v TEXT);",
       "the primary key of t has the collation NOCASE: keys that are equal could differ in bytes "
       "between peers. Use BINARY"},
      {"CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT); CREATE TABLE t_patches(" CLOCK
       "id TEXT COLLATE RTRIM, v TEXT);",
       "key column id of t_patches has the collation RTRIM"},
      {"CREATE TABLE t(a TEXT, id TEXT, v TEXT, PRIMARY KEY(a, id COLLATE NOCASE)); CREATE TABLE "
       "t_patches(" CLOCK "a TEXT, id TEXT, v TEXT);",
       "the primary key of t has the collation NOCASE: keys that are equal could differ in bytes "
       "between peers. Use BINARY"},
  };
  refused(CASES, COUNT(CASES));
}

static void triggers_that_write_to_replicated_tables(void) {
  static const refusal CASES[] = {
      {T PATCHES_OF_T
       "CREATE TRIGGER t_a AFTER INSERT ON t BEGIN INSERT INTO good VALUES(new.id, 'x'); END;",
       "trigger t_a writes to the replicated table good: every peer would repeat it. Write both "
       "rows with batch()"},
      {T PATCHES_OF_T
       "CREATE TRIGGER t_a BEFORE UPDATE OF v ON t BEGIN UPDATE good SET v = 'x'; END;",
       "trigger t_a writes to the replicated table good"},
      {T PATCHES_OF_T
       "CREATE TRIGGER t_a AFTER UPDATE ON t BEGIN UPDATE t SET v = 'x' WHERE id = new.id; END;",
       "trigger t_a writes to the replicated table t"},
      {T PATCHES_OF_T "CREATE TRIGGER t_a AFTER INSERT ON t BEGIN DELETE FROM t_patches; END;",
       "trigger t_a writes to the replicated table t_patches"},
      {T PATCHES_OF_T "CREATE TABLE tmid(x); CREATE TRIGGER t_a AFTER INSERT ON t BEGIN INSERT "
                      "INTO tmid VALUES(1); END;CREATE TRIGGER t_b AFTER INSERT ON tmid BEGIN "
                      "INSERT INTO good VALUES(1, 'x'); END;",
       "trigger t_b writes to the replicated table good"},
      {T PATCHES_OF_T "CREATE TABLE tlog(x); CREATE TRIGGER t_a AFTER INSERT ON t BEGIN INSERT OR "
                      "ROLLBACK INTO tlog VALUES(1); END;",
       "trigger t_a on t uses ROLLBACK, which would undo other calls too: use RAISE(ABORT)"},
      {T PATCHES_OF_T
       "CREATE TRIGGER t_a BEFORE INSERT ON t_patches BEGIN SELECT RAISE(IGNORE); END;",
       "trigger t_a is on t_patches, which only the engine writes to: drop it"},
  };
  refused(CASES, COUNT(CASES));
  cluster *c = cluster_start(1, GOOD);
  peer *p = &c->peers[0];
  CHECK_CODE(
      p->r,
      try_migrate(p, 2,
                  T PATCHES_OF_T
                  "CREATE TRIGGER t_a AFTER INSERT ON t BEGIN DELETE FROM _replic_vector; END;",
                  ""),
      REPLIC_ESCHEMA);
  CHECK_CONTAINS(replic_error_text(p->r), "_replic_vector");
  CHECK_OK(p->r, try_migrate(p, 2,
                             T PATCHES_OF_T "CREATE TABLE seen(x); CREATE TRIGGER t_a AFTER INSERT "
                                            "ON t BEGIN INSERT INTO seen SELECT v FROM good; END;",
                             ""));
}

/* A trigger that is added later, to a table that is already replicated. */
static void a_bad_trigger_added_later(void) {
  cluster *c = cluster_start(1, GOOD T PATCHES_OF_T);
  peer *p = &c->peers[0];
  static const char BAD[] =
      "CREATE TRIGGER t_a AFTER INSERT ON t BEGIN UPDATE good SET v = new.v; END";
  CHECK_CODE(p->r, try_migrate(p, 2, BAD, ""), REPLIC_ESCHEMA);
  CHECK_CONTAINS(replic_error_text(p->r), "trigger t_a writes to the replicated table good");
  CHECK_CODE(p->r, try_run(p, BAD, 1),
             REPLIC_EDIRECT); /* a trigger on a replicated table is a matter of migrate */
  upsert(p, "good", ROW({"id", v_int(1)}, {"v", v_text("kept")}));
  upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_text("x")}));
  CHECK_TEXT(peer_dump(p, "good"), "i1|t6b657074\n");
}

static int64_t own_indexes(peer *p) {
  return sql_int(peer_sql(p), "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name "
                              "LIKE '\\_replic\\_%' ESCAPE '\\' AND tbl_name NOT LIKE "
                              "'\\_%' ESCAPE '\\'");
}

static void missing_indexes_are_created(void) {
  cluster *c = cluster_start(1, T PATCHES_OF_T);
  CHECK_INT(own_indexes(&c->peers[0]), 2);
  sqlite3 *db = peer_sql(&c->peers[0]);
  CHECK_TEXT(sql_text(db, "SELECT group_concat(x.name) FROM pragma_index_list('t_patches') l, "
                          "pragma_index_xinfo(l.name) x WHERE l.\"unique\" AND x.key"),
             "_peerId,_sequenceId");
  CHECK_TEXT(sql_text(db, "SELECT group_concat(x.name) FROM pragma_index_list('t_patches') l, "
                          "pragma_index_xinfo(l.name) x WHERE NOT l.\"unique\" AND x.key"),
             "id,_patchedAt,_peerId,_sequenceId");
}

static void equivalent_indexes_are_recognised(void) {
  static const char *const EQUIVALENT[] = {
      "CREATE TABLE t_patches(" CLOCK
      "id INTEGER, v TEXT, PRIMARY KEY(_peerId, _sequenceId));CREATE INDEX t_key ON t_patches(id, "
      "_patchedAt, _peerId, _sequenceId);",
      "CREATE TABLE t_patches(" CLOCK
      "id INTEGER, v TEXT, UNIQUE(_peerId, _sequenceId));CREATE INDEX t_key ON t_patches(id, "
      "_patchedAt, _peerId, _sequenceId, v);",
      "CREATE TABLE t_patches(" CLOCK
      "id INTEGER, v TEXT, PRIMARY KEY(_peerId, _sequenceId)) WITHOUT ROWID;CREATE UNIQUE INDEX "
      "t_key ON t_patches(id, _patchedAt, _peerId, _sequenceId);",
      "CREATE TABLE t_patches(" CLOCK
      "id INTEGER, v TEXT); CREATE UNIQUE INDEX t_o ON t_patches(_peerId, _sequenceId);CREATE "
      "INDEX t_key ON t_patches(id, _patchedAt, _peerId, _sequenceId);",
  };
  for (size_t i = 0; i < COUNT(EQUIVALENT); i++) {
    test_note("%s", EQUIVALENT[i]);
    cluster *c = cluster_start(1, test_format("%s%s", T, EQUIVALENT[i]));
    CHECK_INT(own_indexes(&c->peers[0]), 0);
    CHECK_INT(upsert(&c->peers[0], "t", ROW({"id", v_int(1)}, {"v", v_text("x")})), 1);
    test_release();
  }
}

/* What looks like the needed index and is none must not be taken for it: writing would fail, or not
 * find patches. */
static void near_misses_are_not_taken_for_indexes(void) {
  static const char *const NEAR[] = {
      "CREATE UNIQUE INDEX n ON t_patches(lower(v), _peerId, _sequenceId);",
      "CREATE UNIQUE INDEX n ON t_patches(v COLLATE NOCASE, _peerId, _sequenceId);",
      "CREATE UNIQUE INDEX n ON t_patches(_peerId, _sequenceId) WHERE v IS NOT NULL;",
      "CREATE UNIQUE INDEX n ON t_patches(_peerId, _sequenceId, id);",
      "CREATE UNIQUE INDEX n ON t_patches(_sequenceId, _peerId);",
      "CREATE INDEX n ON t_patches(_peerId, _sequenceId);",
      "CREATE INDEX n ON t_patches(lower(v), id, _patchedAt, _peerId, _sequenceId);",
      "CREATE INDEX n ON t_patches(v COLLATE NOCASE, id, _patchedAt, _peerId, _sequenceId);",
      "CREATE INDEX n ON t_patches(id, _patchedAt, _peerId, _sequenceId) WHERE id > 5;",
      "CREATE INDEX n ON t_patches(id, _patchedAt);",
  };
  for (size_t i = 0; i < COUNT(NEAR); i++) {
    test_note("%s", NEAR[i]);
    cluster *c = cluster_start(2, test_format("%s%s%s", T, PATCHES_OF_T, NEAR[i]));
    CHECK_INT(own_indexes(&c->peers[0]), 2);
    wire_open(c, 0, 1);
    upsert(&c->peers[0], "t", ROW({"id", v_int(1)}, {"v", v_text("x")}));
    upsert(&c->peers[1], "t", ROW({"id", v_int(1)}, {"v", v_text("y")}));
    cluster_settle(c);
    CHECK_TEXT(cluster_same(c, "t"), "i1|t79\n");
    test_release();
  }
}

static void names_are_found_in_any_case(void) {
  cluster *c = cluster_start(
      1, "CREATE TABLE Todo(Id INTEGER PRIMARY KEY, Title TEXT, DELETEDAT INTEGER);CREATE TABLE "
         "todo_PATCHES(_patchedat INTEGER NOT NULL, _SEQUENCEID INTEGER NOT NULL, _peerid INTEGER "
         "NOT NULL, _Nulls TEXT, id INTEGER, TITLE text, deletedAt integer);");
  peer *p = &c->peers[0];
  CHECK_INT(replic_table_count(p->r), 1);
  CHECK_INT(upsert(p, "TODO", ROW({"ID", v_int(1)}, {"title", v_text("x")})), 1);
  CHECK_INT(upsert(p, "todo", ROW({"id", v_int(1)}, {"TITLE", v_null()})), 2);
  CHECK_INT(erase(p, "Todo", ROW({"id", v_int(1)})), 3);
  CHECK_TEXT(sql_text(peer_sql(p), "SELECT title IS NULL AND deletedAt > 0 FROM todo"), "1");
}

static void only_pairs_of_tables_are_replicated(void) {
  cluster *c =
      cluster_start(1, GOOD "CREATE TABLE plain(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE "
                            "widow_patches(x);CREATE TABLE _patches(x); CREATE TABLE patches(x);");
  peer *p = &c->peers[0];
  CHECK_INT(replic_table_count(p->r), 1);
  CHECK_CODE(p->r, try_upsert(p, "plain", ROW({"id", v_int(1)})), REPLIC_ETABLE);
  CHECK_CONTAINS(replic_error_text(p->r), "plain");
  CHECK_CODE(p->r, try_upsert(p, "good_patches", ROW({"id", v_int(1)})), REPLIC_ETABLE);
  CHECK_OK(p->r,
           try_run(p, "INSERT INTO plain VALUES(1, 'x'); INSERT INTO widow_patches VALUES(1)", 0));
}

static void the_description_of_a_table(void) {
  cluster *c = cluster_start(
      1, "CREATE TABLE t(b TEXT NOT NULL, gone AS (v || b), a BLOB, v VARCHAR(9) NOT NULL DEFAULT "
         "'x', w, deletedAt INTEGER, PRIMARY KEY(a, b)); CREATE TABLE t_patches(" CLOCK
         "_nulls TEXT, a BLOB, b TEXT, v VARCHAR(9), w, deletedAt INTEGER);" GOOD);
  CHECK_INT(replic_table_count(c->peers[0].r), 2);
  CHECK(replic_table_at(c->peers[0].r, 2) == NULL);
  const replic_table *good = replic_table_at(c->peers[0].r, 0),
                     *t = replic_table_at(c->peers[0].r, 1);
  CHECK_TEXT(good->name, "good");
  CHECK(!good->has_nulls && !good->has_deleted_at);
  CHECK_TEXT(t->name, "t");
  CHECK(t->has_nulls && t->has_deleted_at);
  static const replic_column WANTED[] = {{"b", "TEXT", 2, 1, 1}, {"gone", "", 0, 0, 0},
                                         {"a", "BLOB", 1, 0, 1}, {"v", "VARCHAR(9)", 0, 1, 1},
                                         {"w", "", 0, 0, 1},     {"deletedAt", "INTEGER", 0, 0, 1}};
  CHECK_INT(t->n_columns, COUNT(WANTED));
  for (size_t i = 0; i < COUNT(WANTED); i++) {
    test_note("column %zu", i);
    CHECK_TEXT(t->columns[i].name, WANTED[i].name);
    CHECK_TEXT(t->columns[i].type, WANTED[i].type);
    CHECK_INT(t->columns[i].key, WANTED[i].key);
    CHECK_INT(t->columns[i].not_null, WANTED[i].not_null);
    CHECK_INT(t->columns[i].carried, WANTED[i].carried);
  }
}

/* Every line that explain gives is SQL that SQLite accepts, and none of it scans a whole table. */
static void explain_gives_the_sql_that_runs(void) {
  cluster *c =
      cluster_start(1, "CREATE TABLE \"a\"\"b\"(x TEXT, \"or\"\"der\" TEXT, k BLOB, must TEXT NOT "
                       "NULL, PRIMARY KEY(k, x));CREATE TABLE \"a\"\"b_patches\"(" CLOCK
                       "k BLOB, x TEXT, \"or\"\"der\" TEXT, must TEXT);CREATE TABLE keys(id "
                       "INTEGER PRIMARY KEY); CREATE TABLE keys_patches(" CLOCK "id INTEGER);");
  peer *p = &c->peers[0];
  static const char *const TABLES[] = {"a\"b", "keys"};
  for (size_t i = 0; i < COUNT(TABLES); i++) {
    char *text;
    CHECK_OK(p->r, replic_explain(p->r, TABLES[i], &text));
    char *copy = test_format("%s", text);
    sqlite3_free(text);
    CHECK_CONTAINS(copy, "INSERT");
    int lines = 0;
    for (char *line = copy, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, lines++) {
      *end = 0;
      test_note("%s", line);
      CHECK(end > line && end[-1] == ';');
      sqlite3_stmt *stmt = NULL;
      CHECK_INT(sqlite3_prepare_v2(peer_sql(p), test_format("EXPLAIN QUERY PLAN %s", line), -1,
                                   &stmt, NULL),
                SQLITE_OK);
      bool scans = false;
      while (sqlite3_step(stmt) == SQLITE_ROW) {
        const char *step = (const char *)sqlite3_column_text(stmt, 3);
        scans = scans || (strncmp(step, "SCAN ", 5) == 0 && strcmp(step, "SCAN CONSTANT ROW") != 0);
      }
      sqlite3_finalize(stmt);
      CHECK(!scans);
    }
    CHECK(lines >= 4);
  }
  char *text;
  CHECK_CODE(p->r, replic_explain(p->r, "nothing", &text), REPLIC_ETABLE);
  CHECK(text == NULL);
  CHECK_CONTAINS(replic_error_text(p->r), "nothing");
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(keys_and_reserved_names),
      TEST(columns_that_do_not_match),
      TEST(uniqueness_that_peers_cannot_keep),
      TEST(collations_of_keys),
      TEST(triggers_that_write_to_replicated_tables),
      TEST(a_bad_trigger_added_later),
      TEST(missing_indexes_are_created),
      TEST(equivalent_indexes_are_recognised),
      TEST(near_misses_are_not_taken_for_indexes),
      TEST(names_are_found_in_any_case),
      TEST(only_pairs_of_tables_are_replicated),
      TEST(the_description_of_a_table),
      TEST(explain_gives_the_sql_that_runs),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

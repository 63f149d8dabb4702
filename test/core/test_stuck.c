/* test_stuck.c - rows that one peer's DDL cannot store: what is refused for its data and what for
 * the machine; that nothing but the row waits; that the row is there as soon as it can be, by
 * whatever way; and partial updates, which SQLite checks as if they were rows. (That tables are
 * what log and schema say at any moment, whoever has which DDL, is in the simulator:
 * sim_schemas.c.) */
#include <string.h>

#include "core.h"
#include "frames.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls "   \
  "TEXT, "
#define PATCHES "CREATE TABLE t_patches(" CLOCK "id TEXT, a TEXT, b TEXT, n INTEGER);"
#define COLUMNS "id TEXT PRIMARY KEY, a TEXT, b TEXT, n INTEGER"
#define PLAIN "CREATE TABLE t(" COLUMNS ");" PATCHES

/* ---- every result code ---- */

static void every_code_lies_in_data_or_in_the_machine(void) {
  static const int DATA[] = {SQLITE_ERROR,
                             SQLITE_ERROR_MISSING_COLLSEQ,
                             SQLITE_ERROR_RESERVESIZE,
                             SQLITE_ERROR_KEY,
                             SQLITE_ERROR_UNABLE,
                             SQLITE_TOOBIG,
                             SQLITE_MISMATCH,
                             SQLITE_RANGE,
                             SQLITE_AUTH,
                             SQLITE_AUTH_USER,
                             SQLITE_CORRUPT_VTAB,
                             SQLITE_CONSTRAINT,
                             SQLITE_CONSTRAINT_CHECK,
                             SQLITE_CONSTRAINT_COMMITHOOK,
                             SQLITE_CONSTRAINT_DATATYPE,
                             SQLITE_CONSTRAINT_FOREIGNKEY,
                             SQLITE_CONSTRAINT_FUNCTION,
                             SQLITE_CONSTRAINT_NOTNULL,
                             SQLITE_CONSTRAINT_PINNED,
                             SQLITE_CONSTRAINT_PRIMARYKEY,
                             SQLITE_CONSTRAINT_ROWID,
                             SQLITE_CONSTRAINT_TRIGGER,
                             SQLITE_CONSTRAINT_UNIQUE,
                             SQLITE_CONSTRAINT_VTAB};
  static const int MACHINE[] = {SQLITE_OK,
                                SQLITE_INTERNAL,
                                SQLITE_PERM,
                                SQLITE_ABORT,
                                SQLITE_BUSY,
                                SQLITE_LOCKED,
                                SQLITE_NOMEM,
                                SQLITE_READONLY,
                                SQLITE_INTERRUPT,
                                SQLITE_IOERR,
                                SQLITE_CORRUPT,
                                SQLITE_NOTFOUND,
                                SQLITE_FULL,
                                SQLITE_CANTOPEN,
                                SQLITE_PROTOCOL,
                                SQLITE_EMPTY,
                                SQLITE_SCHEMA,
                                SQLITE_MISUSE,
                                SQLITE_NOLFS,
                                SQLITE_FORMAT,
                                SQLITE_NOTADB,
                                SQLITE_NOTICE,
                                SQLITE_WARNING,
                                SQLITE_ROW,
                                SQLITE_DONE,
                                SQLITE_ERROR_RETRY,
                                SQLITE_ERROR_SNAPSHOT,
                                SQLITE_ABORT_ROLLBACK,
                                SQLITE_BUSY_RECOVERY,
                                SQLITE_BUSY_SNAPSHOT,
                                SQLITE_BUSY_TIMEOUT,
                                SQLITE_LOCKED_SHAREDCACHE,
                                SQLITE_LOCKED_VTAB,
                                SQLITE_CORRUPT_INDEX,
                                SQLITE_CORRUPT_SEQUENCE};
  static const int KINDS[] = {SQLITE_IOERR, SQLITE_CANTOPEN, SQLITE_READONLY, SQLITE_NOTICE,
                              SQLITE_WARNING};
  for (size_t i = 0; i < COUNT(DATA); i++) {
    test_note("code %d", DATA[i]);
    CHECK_INT(replic__lies_in_data(DATA[i]), 1);
  }
  for (size_t i = 0; i < COUNT(MACHINE); i++) {
    test_note("code %d", MACHINE[i]);
    CHECK_INT(replic__lies_in_data(MACHINE[i]), 0);
  }
  for (size_t i = 0; i < COUNT(KINDS); i++) /* all extended ones that there are or may be */
    for (int extended = 0; extended < 64; extended++)
      CHECK_INT(replic__lies_in_data(KINDS[i] | (extended << 8)), 0);
  for (int code = REPLIC_ERROR_BASE; code < 0; code++) CHECK_INT(replic__lies_in_data(code), 0);
}

/* ---- one peer that cannot ---- */

/* DDL under which `bad` as the column a cannot be stored, and `good` can. */
typedef struct kind {
  const char *table, *more, *good, *bad, *says;
  bool is_index; /* which DROP INDEX removes */
} kind;

static const kind KINDS[] = {
    {"CREATE TABLE t(" COLUMNS ");", "CREATE INDEX x ON t(json_extract(a, '$.x'))", "{\"x\":1}",
     "not json", "malformed JSON", true},
    {"CREATE TABLE t(" COLUMNS ");", "CREATE INDEX x ON t(b) WHERE json_extract(a, '$.x') > 0",
     "{\"x\":1}", "not json", "malformed JSON", true},
    {"CREATE TABLE t(" COLUMNS ", g TEXT AS (a -> '$.x'));", "", "{}", "not json", "malformed JSON",
     false},
    {"CREATE TABLE t(" COLUMNS ", g TEXT AS (a -> '$.x') STORED);", "", "{}", "not json",
     "malformed JSON", false},
    {"CREATE TABLE t(" COLUMNS ", g TEXT NOT NULL AS (nullif(a, 'none')));", "", "some", "none",
     "NOT NULL constraint failed: t.g", false},
    {"CREATE TABLE t(" COLUMNS ", g INTEGER AS (a)) STRICT;", "", "12", "twelve",
     "cannot store TEXT value in INTEGER column t.g", false},
    {"CREATE TABLE t(" COLUMNS ", g INTEGER AS (abs(CAST(a AS INTEGER))));", "", "5",
     "-9223372036854775808", "integer overflow", false},
    {"CREATE TABLE t(" COLUMNS ", g BLOB AS (zeroblob(CAST(a AS INTEGER))) STORED);", "", "5",
     "2000000000", "string or blob too big", false},
};

typedef struct scene {
  cluster *c;
  peer *p, *q, *z; /* writes ── cannot store what is bad ── learns all from q */
} scene;

static scene scene_of(const kind *k) {
  scene x = {cluster_new(), NULL, NULL, NULL};
  const char *const ddl[] = {PLAIN, test_format("%s" PATCHES "%s", k->table, k->more), PLAIN};
  test_note("%s %s", k->table, k->more);
  for (int i = 0; i < 3; i++) {
    peer *p = cluster_add(x.c);
    peer_start(p);
    CHECK_INT(try_migrate(p, 1, ddl[i], "DROP TABLE t; DROP TABLE t_patches"), REPLIC_OK);
  }
  x.p = &x.c->peers[0];
  x.q = &x.c->peers[1];
  x.z = &x.c->peers[2];
  wire_open(x.c, 0, 1);
  wire_open(x.c, 1, 2);
  cluster_settle(x.c);
  return x;
}

static void put(peer *p, const char *id, const char *a) {
  upsert(p, "t", ROW({"id", v_text(id)}, {"a", v_text(a)}, {"b", v_text("b")}));
}

static void put_n(peer *p, const char *id, int64_t n) {
  upsert(p, "t", ROW({"id", v_text(id)}, {"n", v_int(n)}));
}

static const char ROWS[] = "SELECT id || ':' || a || ':' || coalesce(n, '-') FROM t";

static char *rows_of(peer *p) {
  return sql_text(peer_sql(p),
                  test_format("SELECT coalesce(group_concat(r, ' '), '') FROM (%s AS r "
                              "ORDER BY id)",
                              "SELECT id || ':' || coalesce(n, '-')"
                              " AS r FROM t"));
}

static void check_stuck(peer *p, const char *id, const char *says) {
  CHECK_INT(replic_stuck_rows(p->r), 1);
  CHECK_INT(replic_stuck_count(p->r), 1);
  const replic_stuck *one = replic_stuck_at(p->r, 0);
  CHECK_TEXT(one->table, "t");
  CHECK_TEXT(one->key, test_format("{\"id\":\"%s\"}", id));
  CHECK_CONTAINS(one->why, says);
  CHECK(replic__lies_in_data(one->code));
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_stuck"), 1);
}

static void check_none_is_stuck(peer *p) {
  CHECK_INT(replic_stuck_rows(p->r), 0);
  CHECK_INT(replic_stuck_count(p->r), 0);
  CHECK_TEXT(peer_dump(p, "_replic_stuck"), "");
}

static void nothing_but_the_row_waits(void) {
  for (size_t i = 0; i < COUNT(KINDS); i++) {
    const kind *k = &KINDS[i];
    scene x = scene_of(k);
    put(x.p, "before", k->good);
    put(x.p, "bad", k->bad);
    put(x.p, "after", k->good);
    cluster_settle(x.c);
    CHECK_TEXT(rows_of(x.q), "after:- before:-");
    CHECK_TEXT(rows_of(x.p), "after:- bad:- before:-");
    CHECK_TEXT(sql_dump(peer_sql(x.z), ROWS), sql_dump(peer_sql(x.p), ROWS));
    check_stuck(x.q, "bad", k->says);
    check_none_is_stuck(x.z);
    CHECK_INT(event_count(x.q, REPLIC_EVENT_ERROR), 1);
    CHECK_CONTAINS(event_last(x.q, REPLIC_EVENT_ERROR)->text, k->says);
    CHECK_INT(event_count(x.q, REPLIC_EVENT_LINK_ERROR), 0);

    put_n(x.p, "bad", 7); /* what is refused stays: still no row, and not one of n alone */
    cluster_settle(x.c);
    CHECK_TEXT(rows_of(x.q), "after:- before:-");
    check_stuck(x.q, "bad", k->says);
    peer_stop(x.q);
    peer_start(x.q);
    check_stuck(x.q, "bad", k->says);
    wire_open(x.c, 0, 1);
    wire_open(x.c, 1, 2);

    put(x.p, "bad", k->good);
    cluster_settle(x.c);
    CHECK_TEXT(rows_of(x.q), "after:- bad:7 before:-");
    check_none_is_stuck(x.q);
    cluster_beat(x.c, 2);
    test_release();
  }
}

/* A row that was there goes, and comes back. */
static void a_row_that_was_there(void) {
  for (size_t i = 0; i < COUNT(KINDS); i++) {
    const kind *k = &KINDS[i];
    scene x = scene_of(k);
    put(x.p, "it", k->good);
    put_n(x.p, "it", 1);
    cluster_settle(x.c);
    CHECK_TEXT(rows_of(x.q), "it:1");
    put(x.p, "it", k->bad);
    put_n(x.p, "it", 2);
    cluster_settle(x.c);
    CHECK_TEXT(rows_of(x.q), "");
    check_stuck(x.q, "it", k->says);
    CHECK_TEXT(rows_of(x.z), "it:2");
    put(x.z, "it", k->good);
    cluster_settle(x.c);
    CHECK_TEXT(rows_of(x.q), "it:2");
    check_none_is_stuck(x.q);
    test_release();
  }
}

/* What the schema here refuses, a write here does not do: it fails, and is nowhere. */
static void a_write_of_its_own_fails(void) {
  for (size_t i = 0; i < COUNT(KINDS); i++) {
    const kind *k = &KINDS[i];
    scene x = scene_of(k);
    const cell *bad = ROW({"id", v_text("it")}, {"a", v_text(k->bad)}, {"b", v_text("b")});
    int rc = try_upsert(x.q, "t", bad);
    CHECK(replic__lies_in_data(rc));
    CHECK_CONTAINS(replic_error_text(x.q->r), k->says);
    CHECK_TEXT(peer_dump(x.q, "t_patches"), "");
    check_none_is_stuck(x.q);
    put(x.q, "it", k->good);
    CHECK(replic__lies_in_data(try_upsert(x.q, "t", bad)));
    put_n(x.q, "it", 3);
    CHECK_TEXT(rows_of(x.q), "it:3");

    put(x.p, "other", k->bad);
    cluster_settle(x.c);
    const cell *n = ROW({"id", v_text("other")}, {"n", v_int(1)});
    CHECK(replic__lies_in_data(try_upsert(x.q, "t", n)));
    CHECK_CONTAINS(replic_error_text(x.q->r), k->says);
    CHECK_CONTAINS(replic_error_text(x.q->r), "status().stuck");
    CHECK_CODE(x.q->r, try_erase(x.q, "t", ROW({"id", v_text("other")})), REPLIC_ENODELETE);
    put(x.q, "other", k->good); /* it mends it for all */
    check_none_is_stuck(x.q);
    put_n(x.q, "other", 4);
    cluster_settle(x.c);
    cluster_same(x.c, k->table[0] && strstr(k->table, "g ") ? "t_patches" : "t");
    CHECK_TEXT(rows_of(x.q), "it:3 other:4");
    test_release();
  }
}

/* ---- the schema changes ---- */

static void a_migration_lets_it_in(void) {
  for (size_t i = 0; i < COUNT(KINDS); i++) {
    const kind *k = &KINDS[i];
    scene x = scene_of(k);
    put(x.p, "good", k->good);
    put(x.p, "bad", k->bad);
    cluster_settle(x.c);
    check_stuck(x.q, "bad", k->says);
    CHECK_INT(try_migrate(x.q, 2, k->is_index ? "DROP INDEX x" : "ALTER TABLE t DROP COLUMN g", ""),
              REPLIC_OK);
    peer_begin(x.q);
    CHECK_OK(x.q->r, peer_commit(x.q));
    check_none_is_stuck(x.q);
    cluster_same(x.c, "t");
    test_release();
  }
}

/* Whoever has the schema first, and whoever the patches. */
static void a_generated_column_that_is_added_refuses_rows_that_are_there(void) {
  cluster *c = cluster_start(1, PLAIN);
  peer *p = &c->peers[0];
  put(p, "good", "{}");
  put(p, "bad", "not json");
  CHECK_INT(try_migrate(p, 2, "ALTER TABLE t ADD COLUMN g TEXT AS (a -> '$.x')", ""), REPLIC_OK);
  CHECK_TEXT(rows_of(p), "good:-");
  check_stuck(p, "bad", "malformed JSON");
  CHECK_INT(try_migrate(p, 3, "ALTER TABLE t DROP COLUMN g", ""), REPLIC_OK);
  CHECK_TEXT(rows_of(p), "bad:- good:-");
  check_none_is_stuck(p);
}

/* The log says nothing of it but that it is there, and its DEFAULTs raise. */
static void a_row_of_nothing_but_its_key(void) {
  cluster *c = cluster_start(1, PLAIN);
  peer *p = &c->peers[0];
  upsert(p, "t", ROW({"id", v_text("k")}));
  CHECK_INT(try_migrate(p, 2,
                        "ALTER TABLE t ADD COLUMN c REAL DEFAULT 'x';"
                        "ALTER TABLE t_patches ADD COLUMN c REAL;"
                        "ALTER TABLE t ADD COLUMN g AS (CASE typeof(c) WHEN 'text' THEN json(c) "
                        "ELSE 1 END)",
                        ""),
            REPLIC_OK);
  CHECK_TEXT(rows_of(p), "");
  check_stuck(p, "k", "malformed JSON");
  upsert(p, "t", ROW({"id", v_text("k")}, {"c", v_real(1.5)}));
  CHECK_TEXT(rows_of(p), "k:-");
  check_none_is_stuck(p);
}

static void ddl_that_is_undone_lets_nothing_in(void) {
  scene x = scene_of(&KINDS[0]);
  put(x.p, "bad", "not json");
  cluster_settle(x.c);
  CHECK(try_migrate(x.q, 2, "DROP INDEX x; SELECT no such", "") != REPLIC_OK);
  check_stuck(x.q, "bad", "malformed JSON");
  put_n(x.p, "bad", 1);
  cluster_settle(x.c);
  CHECK_TEXT(rows_of(x.q), "");
  check_stuck(x.q, "bad", "malformed JSON");
}

/* Another program changes the DDL while the replica is closed; a table that has no other column is
 * tried, too. */
static void opened_with_another_schema(void) {
  scene x = scene_of(&KINDS[0]);
  put(x.p, "bad", "not json");
  cluster_settle(x.c);
  for (int round = 0; round < 2; round++) {
    peer_stop(x.q);
    sqlite3 *db;
    CHECK_INT(sqlite3_open(x.q->config.path, &db), SQLITE_OK);
    sql_exec(db,
             round ? "DELETE FROM t; CREATE INDEX x ON t(json_extract(a, '$.x'))" : "DROP INDEX x");
    sqlite3_close(db);
    peer_start(x.q);
    CHECK_TEXT(rows_of(x.q), round ? "" : "bad:-");
    CHECK_INT(replic_stuck_rows(x.q->r), round);
  }
}

static void a_table_that_is_gone_has_none(void) {
  scene x = scene_of(&KINDS[0]);
  put(x.p, "bad", "not json");
  cluster_settle(x.c);
  check_stuck(x.q, "bad", "malformed JSON");
  CHECK_INT(try_migrate(x.q, 2, "DROP TABLE t; DROP TABLE t_patches", KINDS[0].table), REPLIC_OK);
  check_none_is_stuck(x.q);
  CHECK_INT(try_migrate(x.q, 3, test_format("%s" PATCHES "%s", KINDS[0].table, KINDS[0].more), ""),
            REPLIC_OK);
  check_stuck(x.q, "bad", "malformed JSON");
}

/* ---- what else is there ---- */

static void retention_and_a_jump(void) {
  scene x = scene_of(&KINDS[0]);
  wire_cut(x.c, 0);
  put(x.p, "it", "{}");
  for (int i = 0; i < 5; i++) put_n(x.p, "it", i);
  put(x.p, "it", "not json");
  put(x.p, "other", "{}");
  put(x.p, "other", "[]");
  CHECK(peer_compact(x.p, x.c->now_ms + 1, 1000).removed > 0);
  wire_open(x.c, 0, 1);
  cluster_settle(x.c);
  replic_counters counters;
  replic_get_counters(x.q->r, &counters);
  CHECK_INT(counters.jumps, 1);
  CHECK_TEXT(rows_of(x.q), "other:-");
  check_stuck(x.q, "it", "malformed JSON");
  CHECK_TEXT(rows_of(x.z), "it:4 other:-");
  peer_compact(x.q, x.c->now_ms + 1, 1000);
  put(x.p, "it", "{}");
  cluster_settle(x.c);
  CHECK_TEXT(rows_of(x.q), "it:4 other:-");
  check_none_is_stuck(x.q);
}

static void a_batch_that_is_undone(void) {
  scene x = scene_of(&KINDS[0]);
  put(x.p, "it", "not json");
  peer_begin(x.q);
  const packet_queue *to = &x.c->wires[0].to[1];
  CHECK(to->n > 0);
  CHECK_OK(x.q->r,
           replic_receive(x.q->r, x.c->wires[0].number, to->packets[0].data, to->packets[0].len));
  peer_rollback(x.q);
  check_none_is_stuck(x.q);
  cluster_settle(x.c);
  check_stuck(x.q, "it", "malformed JSON");
  /* and a write that mends it, undone alone */
  const char *columns[] = {"id", "a", "nope"};
  const replic_value values[] = {v_text("it"), v_text("{}"), v_int(1)};
  const replic_change changes[] = {{REPLIC_UPSERT, "t", 2, columns, 1, values},
                                   {REPLIC_UPSERT, "t", 3, columns, 1, values}};
  int64_t sequence;
  peer_begin(x.q);
  CHECK_CODE(x.q->r, replic_write(x.q->r, changes, 2, &sequence), REPLIC_ECOLUMN);
  CHECK_OK(x.q->r, peer_commit(x.q));
  check_stuck(x.q, "it", "malformed JSON");
  put_n(x.p, "it", 5);
  cluster_settle(x.c);
  CHECK_TEXT(rows_of(x.q), "");
}

/* Where the row goes and comes, what hangs on it by triggers does so, too. */
static void triggers_see_it_go(void) {
  kind k = KINDS[0];
  k.more = "CREATE INDEX x ON t(json_extract(a, '$.x')); CREATE TABLE seen(id TEXT PRIMARY KEY);"
           "CREATE TRIGGER comes AFTER INSERT ON t BEGIN INSERT INTO seen VALUES(NEW.id); END;"
           "CREATE TRIGGER goes AFTER DELETE ON t BEGIN DELETE FROM seen WHERE id = OLD.id; END;";
  scene x = scene_of(&k);
  put(x.p, "it", "{}");
  cluster_settle(x.c);
  CHECK_TEXT(peer_dump(x.q, "seen"), "t6974\n");
  put(x.p, "it", "not json");
  cluster_settle(x.c);
  CHECK_TEXT(peer_dump(x.q, "seen"), "");
  put(x.p, "it", "{}");
  cluster_settle(x.c);
  CHECK_TEXT(peer_dump(x.q, "seen"), "t6974\n");
}

static void a_trigger_that_keeps_it_from_going_is_reported(void) {
  kind k = KINDS[0];
  k.more = "CREATE INDEX x ON t(json_extract(a, '$.x'));"
           "CREATE TRIGGER g BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'stay'); END;";
  scene x = scene_of(&k);
  put(x.p, "it", "{}");
  put(x.p, "it", "not json");
  cluster_settle(x.c);
  CHECK_TEXT(rows_of(x.q), "");
  check_stuck(x.q, "it", "malformed JSON");
  CHECK_INT(event_count(x.q, REPLIC_EVENT_ERROR), 2);
}

static void a_deletion_trigger_may_not_write_to_what_is_replicated(void) {
  cluster *c = cluster_start(1, NULL);
  peer *p = &c->peers[0];
  int rc = try_migrate(
      p, 1, PLAIN "CREATE TRIGGER g AFTER DELETE ON t BEGIN UPDATE t SET n = 1; END", "");
  CHECK_CODE(p->r, rc, REPLIC_ESCHEMA);
  CHECK_CONTAINS(replic_error_text(p->r), "trigger g writes to the replicated table t");
}

/* A key that is no rowid; keys of all kinds have names of their own. */
static void keys_of_all_kinds(void) {
  cluster *c = cluster_new();
  static const char *const DDL[] = {"CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT) WITHOUT ROWID;",
                                    "CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT);"};
  for (int i = 0; i < 2; i++) {
    peer *p = cluster_add(c);
    peer_start(p);
    CHECK_INT(
        try_migrate(
            p, 1, test_format("%sCREATE TABLE t_patches(" CLOCK "k INTEGER, a TEXT);", DDL[i]), ""),
        REPLIC_OK);
  }
  peer *p = &c->peers[0], *q = &c->peers[1];
  const replic_value keys[] = {v_text("x"),
                               v_blob("\0", 1),
                               v_blob("\0\1", 2),
                               {REPLIC_TEXT, 0, 0, "x\0y", 3},
                               {REPLIC_TEXT, 0, 0, "x\0z", 3},
                               v_real(0.5),
                               v_text(""),
                               v_blob("x", 1)};
  for (size_t i = 0; i < COUNT(keys); i++) upsert(p, "t", ROW({"k", keys[i]}, {"a", v_text("a")}));
  upsert(p, "t", ROW({"k", v_text("7")}, {"a", v_text("a")}));
  wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK_TEXT(sql_dump(peer_sql(q), "SELECT k FROM t"), "i7\n");
  CHECK_INT(replic_stuck_rows(q->r), COUNT(keys));
  CHECK_CONTAINS(replic_stuck_at(q->r, 0)->why, "datatype mismatch");
  CHECK_INT(sql_int(peer_sql(q), "SELECT count(*) FROM _replic_stuck WHERE json_valid(key)"),
            COUNT(keys));
  upsert(p, "t", ROW({"k", keys[0]}, {"a", v_text("again")}));
  cluster_settle(c);
  CHECK_INT(replic_stuck_rows(q->r), COUNT(keys));
}

/* T_patches itself refuses: the patch is kept as it was received, and handed on. */
static void the_log_refuses(void) {
  cluster *c = cluster_new();
  static const char *const MORE[] = {"", "CREATE INDEX x ON t_patches(json_extract(a, '$.x'));",
                                     ""};
  for (int i = 0; i < 3; i++) {
    peer *p = cluster_add(c);
    peer_start(p);
    CHECK_INT(try_migrate(p, 1, test_format(PLAIN "%s", MORE[i]), ""), REPLIC_OK);
  }
  peer *p = &c->peers[0], *q = &c->peers[1], *z = &c->peers[2];
  wire_open(c, 0, 1);
  wire_open(c, 1, 2);
  put(p, "bad", "not json");
  put(p, "good", "{}");
  cluster_settle(c);
  CHECK_TEXT(rows_of(q), "good:-");
  CHECK_TEXT(rows_of(z), "bad:- good:-");
  CHECK_INT(replic_pending_count(q->r), 1);
  CHECK_CONTAINS(replic_pending_at(q->r, 0)->why, "t_patches cannot store it: malformed JSON");
  peer_stop(q);
  peer_start(q);
  CHECK_INT(try_migrate(q, 2, "DROP INDEX x", ""), REPLIC_OK);
  CHECK_TEXT(rows_of(q), "bad:- good:-");
  CHECK_INT(replic_pending_count(q->r), 0);
}

/* ---- SQL that does not compile: another program has dropped what is needed ---- */

static void a_table_that_another_program_breaks(void) {
  scene x = scene_of(&KINDS[0]);
  upsert(x.p, "t", ROW({"id", v_text("a")}, {"n", v_int(1)}));
  cluster_settle(x.c);
  sqlite3 *db;
  CHECK_INT(sqlite3_open(x.q->config.path, &db), SQLITE_OK);
  sql_exec(db, "ALTER TABLE t RENAME COLUMN n TO m");
  put_n(x.p, "a", 2);
  cluster_settle(x.c);
  check_stuck(x.q, "a", "no such column: n");
  CHECK_INT(peer_at(x.q, x.p->id), peer_at(x.p, x.p->id));
  peer_stop(x.q);
  sql_exec(db, "ALTER TABLE t RENAME COLUMN m TO n");
  sqlite3_close(db);
  peer_start(x.q);
  CHECK_TEXT(rows_of(x.q), "a:2");
  check_none_is_stuck(x.q);
}

/* ---- partial updates ---- */

/* Each of these rows is legal, and the columns given alone would make none. */
static void a_partial_update_of_a_row_that_is_there(void) {
  static const char *const DDL[] = {
      "CREATE TABLE t(" COLUMNS ", g TEXT NOT NULL AS (a || b));",
      "CREATE TABLE t(" COLUMNS ", g TEXT NOT NULL AS (a || b) STORED);",
      "CREATE TABLE t(" COLUMNS ", CHECK (a IS NOT NULL AND b IS NOT NULL));",
      "CREATE TABLE t(" COLUMNS ", CHECK (coalesce(a <> b, 0)));",
      "CREATE TABLE t(" COLUMNS ", g TEXT AS (coalesce(a || b, 5)) CHECK (typeof(g) = 'text' AND "
      "length(g) > 1));",
      "CREATE TABLE t(" COLUMNS ", g INTEGER AS (coalesce(length(a || b), 'none'))) STRICT;",
      "CREATE TABLE t(" COLUMNS ", g AS (json(coalesce('\"' || a || b || '\"', 'none'))) STORED);",
      "CREATE TABLE t(" COLUMNS "); CREATE INDEX x ON t(json(coalesce('\"' || a || b || '\"', "
      "'none')));",
      "CREATE TABLE t(" COLUMNS "); CREATE INDEX x ON t(n) WHERE json(coalesce('\"' || a || b || "
      "'\"', 'none')) <> 'x';",
  };
  for (size_t i = 0; i < COUNT(DDL); i++) {
    test_note("%s", DDL[i]);
    cluster *c = cluster_start(2, test_format("%s" PATCHES, DDL[i]));
    peer *p = &c->peers[0];
    wire_open(c, 0, 1);
    const cell *partial = ROW({"id", v_text("k")}, {"a", v_text("x")});
    CHECK(replic__lies_in_data(try_upsert(p, "t", partial))); /* it makes no row */
    CHECK_TEXT(peer_dump(p, "t_patches"), "");
    put(p, "k", "a");
    CHECK_OK(p->r, try_upsert(p, "t", partial));
    put_n(p, "k", 1);
    CHECK_OK(p->r, try_upsert(p, "t", ROW({"id", v_text("k")})));
    cluster_settle(c);
    CHECK_TEXT(sql_text(peer_sql(p), "SELECT id || a || b || n FROM t"), "kxb1");
    cluster_same(c, "t");
    check_none_is_stuck(&c->peers[1]);
    test_release();
  }
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(every_code_lies_in_data_or_in_the_machine),
      TEST(nothing_but_the_row_waits),
      TEST(a_row_that_was_there),
      TEST(a_write_of_its_own_fails),
      TEST(a_migration_lets_it_in),
      TEST(a_generated_column_that_is_added_refuses_rows_that_are_there),
      TEST(a_row_of_nothing_but_its_key),
      TEST(ddl_that_is_undone_lets_nothing_in),
      TEST(opened_with_another_schema),
      TEST(a_table_that_is_gone_has_none),
      TEST(retention_and_a_jump),
      TEST(a_batch_that_is_undone),
      TEST(triggers_see_it_go),
      TEST(a_trigger_that_keeps_it_from_going_is_reported),
      TEST(a_deletion_trigger_may_not_write_to_what_is_replicated),
      TEST(keys_of_all_kinds),
      TEST(the_log_refuses),
      TEST(a_table_that_another_program_breaks),
      TEST(a_partial_update_of_a_row_that_is_there),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

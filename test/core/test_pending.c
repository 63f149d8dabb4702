/* test_pending.c - what migrations keep of patches, for how long, and which they refuse because
 * peers at different versions could not tell columns apart. (What peers at different versions make
 * of each other's patches is in test_sync.c, and in the simulator: sim_schemas.c.) */
#include <string.h>

#include "frames.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls "   \
  "TEXT, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT);"                                        \
  "CREATE TABLE t_patches(" CLOCK "id INTEGER, a TEXT, b TEXT);"
#define U                                                                                          \
  "CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT);"                                                \
  "CREATE TABLE u_patches(" CLOCK "id INTEGER, w TEXT);"
#define BOTH(before, after) before " t " after "; " before " t_patches " after ";"
#define DROP_B BOTH("ALTER TABLE", "DROP COLUMN b")
#define ADD_B BOTH("ALTER TABLE", "ADD COLUMN b TEXT")
#define RENAME(from, to) BOTH("ALTER TABLE", "RENAME COLUMN " from " TO " to)

static int64_t put(peer *p, int64_t id, const char *a, const char *b) {
  return upsert(p, "t", ROW({"id", v_int(id)}, {"a", v_text(a)}, {"b", v_text(b)}));
}

static int64_t n_pending(const peer *p) {
  int64_t n = 0;
  for (size_t i = 0; i < replic_pending_count(p->r); i++) n += replic_pending_at(p->r, i)->patches;
  return n;
}

static int try_step(peer *p, bool up, int64_t version, const char *sql, const char *renames) {
  const replic_step step = {.kind = up ? REPLIC_STEP_UP : REPLIC_STEP_DOWN,
                            .version = version,
                            .up = sql,
                            .down = "-- the test has it",
                            .renames = renames};
  int rc = replic_migrate_step(p->r, peer_now(p), &step, sql);
  peer_take_outbox(p);
  return rc;
}

static void step(peer *p, bool up, int64_t version, const char *sql) {
  CHECK_OK(p->r, try_step(p, up, version, sql, NULL));
}

/* ---- what a step has written itself ---- */

static void run_in_step(peer *p, const char *sql) {
  int64_t changes, rowid;
  CHECK_OK(p->r, replic_step_run(p->r, sql, strlen(sql), 1, NULL, 0, &changes, &rowid));
}

static int write_in_step(peer *p, int64_t id, const char *a, const char *b) {
  const char *columns[] = {"id", "a", "b"};
  const replic_value values[] = {v_int(id), v_text(a), v_text(b ? b : "")};
  const replic_change change = {REPLIC_UPSERT, "t", b ? 3 : 2, columns, 1, values};
  int64_t sequence;
  return replic_write(p->r, &change, 1, &sequence);
}

static void what_a_step_writes_before_it_drops_a_column_is_kept(void) {
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0], *q = &c->peers[1];
  wire_open(c, 0, 1);
  cluster_settle(c);
  put(p, 1, "a1", "b1");
  const replic_step drops = {.kind = REPLIC_STEP_UP, .version = 2, .up = "", .down = ADD_B};
  peer_begin(p);
  CHECK_OK(p->r, replic_step_begin(p->r, &drops));
  CHECK_OK(p->r, write_in_step(p, 2, "a2", "b2"));
  run_in_step(p, "CREATE TABLE own(x)"); /* changes the schema, too */
  CHECK_OK(p->r, write_in_step(p, 3, "a3", "b3"));
  run_in_step(p, "INSERT INTO own VALUES(1); ALTER TABLE t DROP COLUMN b; CREATE TABLE more(x)");
  run_in_step(p, "ALTER TABLE t_patches DROP COLUMN b");
  CHECK_OK(p->r, write_in_step(p, 4, "a4", NULL));
  CHECK_OK(p->r, replic_step_end(p->r));
  CHECK_OK(p->r, peer_commit(p));
  CHECK_INT(n_pending(p), 3);
  CHECK_TEXT(sql_dump(peer_sql(p), "SELECT a FROM t WHERE id < 9"), "t6131\nt6132\nt6133\nt6134\n");
  cluster_settle(c);
  CHECK_TEXT(sql_dump(peer_sql(q), "SELECT b FROM t WHERE id < 9"), "n\nt6231\nt6232\nt6233\n");
  step(p, false, 2, ADD_B);
  CHECK_INT(n_pending(p), 0);
  cluster_same(c, "t");
}

static void what_is_whole_does_not_stay_pending(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  const replic_step adds = {.kind = REPLIC_STEP_UP, .version = 2, .up = "", .down = ""};
  peer_begin(p);
  CHECK_OK(p->r, replic_step_begin(p->r, &adds));
  CHECK_OK(p->r, write_in_step(p, 1, "a", "b"));
  run_in_step(p, BOTH("ALTER TABLE", "ADD COLUMN c TEXT"));
  CHECK_OK(p->r, write_in_step(p, 1, "newer", NULL));
  CHECK_OK(p->r, replic_step_end(p->r));
  CHECK_OK(p->r, peer_commit(p));
  CHECK_INT(n_pending(p), 0);
  CHECK_TEXT(peer_dump(p, "_replic_pending"), "");
  CHECK_TEXT(peer_dump(p, "t"), "i1|t6e65776572|t62|n\n");
}

/* A write that fails undoes only what it has registered itself: the patches before it are kept. */
static void a_write_that_fails_in_between(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  const replic_step drops = {.kind = REPLIC_STEP_UP, .version = 2, .up = "", .down = ADD_B};
  const char *columns[] = {"nope"};
  const replic_value values[] = {v_int(1)};
  const replic_change wrong = {REPLIC_UPSERT, "t", 1, columns, 1, values};
  int64_t sequence;
  peer_begin(p);
  CHECK_OK(p->r, replic_step_begin(p->r, &drops));
  CHECK_OK(p->r, write_in_step(p, 1, "a", "b"));
  CHECK_CODE(p->r, replic_write(p->r, &wrong, 1, &sequence), REPLIC_ECOLUMN);
  run_in_step(p, DROP_B);
  CHECK_CODE(p->r, replic_write(p->r, &wrong, 1, &sequence), REPLIC_ECOLUMN);
  CHECK_OK(p->r, write_in_step(p, 2, "a", NULL));
  CHECK_OK(p->r, replic_step_end(p->r));
  CHECK_OK(p->r, peer_commit(p));
  step(p, false, 2, ADD_B);
  CHECK_TEXT(peer_dump(p, "t"), "i1|t61|t62\ni2|t61|n\n");
}

/* ---- for how long ---- */

#define DAY ((int64_t)86400000)

static void what_a_step_up_has_taken_away_is_kept_for_a_time(void) {
  cluster *c = cluster_start(1, T U);
  peer *p = &c->peers[0];
  put(p, 1, "a", "b");
  upsert(p, "u", ROW({"id", v_int(1)}, {"w", v_text("w")}));
  c->now_ms += DAY;
  put(p, 2, "a", "b");
  step(p, true, 2, DROP_B "DROP TABLE u; DROP TABLE u_patches");
  CHECK_INT(n_pending(p), 3);
  c->now_ms += 29 * DAY; /* the first two are 30 days old, to the millisecond */
  CHECK_INT(peer_compact(p, c->now_ms, 1000).removed, 0);
  CHECK_INT(n_pending(p), 3);
  c->now_ms += 1;
  CHECK_INT(peer_compact(p, c->now_ms - 40 * DAY, 1000).removed, 0);
  CHECK_INT(n_pending(p), 3); /* not before patches are of age at all */
  replic_compaction first = peer_compact(p, c->now_ms, 1), done = peer_compact(p, c->now_ms, 1000);
  CHECK(!first.done && done.done);
  CHECK_INT(first.removed + done.removed, 1); /* of u: nothing holds it any more */
  CHECK_INT(n_pending(p), 1);
  CHECK_INT(sql_int(peer_sql(p), "SELECT floor FROM _replic_vector WHERE origin = 101"), 2);
  CHECK_INT(sql_int(peer_sql(p), "SELECT missing FROM _replic_vector WHERE origin = 101"), 1);
  step(p, false, 2, ADD_B U);
  CHECK_INT(n_pending(p), 0);
  CHECK_TEXT(peer_dump(p, "t"), "i1|t61|n\ni2|t61|t62\n");
  CHECK_TEXT(peer_dump(p, "u"), "");
  cluster_add(c); /* a new peer has to jump */
  peer_start(&c->peers[1]);
  CHECK_OK(c->peers[1].r, try_migrate(&c->peers[1], 1, T U, ""));
  wire_open(c, 0, 1);
  cluster_settle(c);
  cluster_same(c, "t");
}

/* What a newer version has sent is kept, however old: this peer will get there. And so is what a
 * step back has taken away: it will be there again. */
static void what_is_ahead_is_kept_for_ever(void) {
  cluster *c = cluster_start(2, T);
  peer *q = &c->peers[1];
  wire_open(c, 0, 1);
  step(q, true, 2, BOTH("ALTER TABLE", "ADD COLUMN c TEXT"));
  upsert(q, "t", ROW({"id", v_int(1)}, {"c", v_text("c")}));
  cluster_settle(c);
  step(q, false, 2, BOTH("ALTER TABLE", "DROP COLUMN c"));
  c->now_ms += 1000 * DAY;
  for (int i = 0; i < 2; i++) {
    CHECK_INT(n_pending(&c->peers[i]), 1);
    peer_compact(&c->peers[i], c->now_ms, 1000);
    CHECK_INT(n_pending(&c->peers[i]), 1);
    step(&c->peers[i], true, 2, BOTH("ALTER TABLE", "ADD COLUMN c TEXT"));
    CHECK_TEXT(peer_dump(&c->peers[i], "t"), "i1|n|n|t63\n");
  }
}

/* A table that is again as it was: what comes of it then is not past. What comes late of one that
 * is, is. */
static void what_is_past_depends_on_where_the_peer_is(void) {
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0], *q = &c->peers[1];
  wire_open(c, 0, 1);
  step(p, true, 2, DROP_B);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_past"), 1);
  put(q, 1, "a", "b");
  cluster_settle(c);
  CHECK_INT(n_pending(p), 1);
  c->now_ms += 31 * DAY;
  peer_compact(p, c->now_ms, 1000);
  CHECK_INT(n_pending(p), 0);
  CHECK_TEXT(peer_dump(p, "t"), "i1|t61\n");
  step(p, false, 2, ADD_B);
  CHECK_TEXT(peer_dump(p, "_replic_past"), "");
  CHECK_TEXT(peer_dump(p, "_replic_pending"), "");
  put(q, 1, "a", "newer");
  cluster_settle(c);
  cluster_same(c, "t");
}

/* What the log has of a patch is looked at again when nothing of it is pending any more. */
static void what_was_pending_is_pruned_like_any_other(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  p->config.max_pending_retention_ms = 10;
  peer_stop(p);
  peer_start(p);
  put(p, 1, "older", "b");
  upsert(p, "t", ROW({"id", v_int(1)}, {"a", v_text("newer")}));
  step(p, true, 2, DROP_B);
  c->now_ms += 5;
  CHECK_INT(peer_compact(p, c->now_ms, 1000).removed, 0);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t_patches"), 2);
  c->now_ms += 10;
  CHECK_INT(peer_compact(p, c->now_ms, 1000).removed, 1);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t_patches"), 1);
}

/* ---- one name, one column ---- */

typedef struct naming {
  const char *sql[3], *renames[3]; /* of the versions 2, 3 and 4 */
  const char *text;                /* the last one is refused with; NULL: none is */
} naming;

static void a_name_stands_for_one_column(void) {
  static const naming CASES[] = {
      {{RENAME("a", "x") RENAME("b", "a") RENAME("x", "b")},
       {"[[\"t\",\"a\",\"b\"],[\"t\",\"b\",\"a\"]]"},
       "rename: t.a cannot be called b: another column is called so"},
      {{RENAME("b", "c") RENAME("a", "b")},
       {"[[\"t\",\"a\",\"b\"],[\"t\",\"b\",\"c\"]]"},
       "rename: t.a cannot be called b: another column is called so"},
      {{RENAME("a", "x"), RENAME("b", "a")},
       {"[[\"t\",\"a\",\"x\"]]", "[[\"t\",\"b\",\"a\"]]"},
       "rename: t.b cannot be called a: another column is called so"},
      {{DROP_B, RENAME("a", "b")},
       {NULL, "[[\"t\",\"a\",\"b\"]]"},
       "rename: t.a cannot be called b: another column is called so"},
      {{RENAME("a", "x"), BOTH("ALTER TABLE", "ADD COLUMN a TEXT")},
       {"[[\"t\",\"a\",\"x\"]]"},
       "t.a cannot be called so: the column x is called so in another version"},
      {{RENAME("a", "x"), RENAME("x", "y"), RENAME("y", "a")},
       {"[[\"t\",\"a\",\"x\"]]", "[[\"t\",\"x\",\"y\"]]", "[[\"t\",\"y\",\"a\"]]"},
       NULL},
      {{DROP_B, ADD_B, RENAME("b", "c")}, {NULL, NULL, "[[\"t\",\"b\",\"c\"]]"}, NULL},
  };
  for (size_t i = 0; i < COUNT(CASES); i++) {
    test_note("case %d", (int)i);
    cluster *c = cluster_start(1, T);
    peer *p = &c->peers[0];
    put(p, 1, "a", "b");
    int v = 0;
    for (; v < 2 && CASES[i].sql[v + 1]; v++)
      CHECK_OK(p->r, try_step(p, true, v + 2, CASES[i].sql[v], CASES[i].renames[v]));
    char *before = peer_dump(p, "t"), *schema = peer_dump(p, "sqlite_schema");
    int rc = try_step(p, true, v + 2, CASES[i].sql[v], CASES[i].renames[v]);
    CHECK_INT(rc, CASES[i].text ? REPLIC_EMIGRATION : REPLIC_OK);
    if (!CASES[i].text) continue;
    CHECK_CONTAINS(replic_error_text(p->r), CASES[i].text);
    CHECK_CONTAINS(replic_error_text(p->r), "choose a name that the table has never had");
    CHECK_TEXT(peer_dump(p, "t"), before);
    CHECK_TEXT(peer_dump(p, "sqlite_schema"), schema);
    upsert(p, "t", ROW({"id", v_int(2)})); /* and goes on */
    test_release();
  }
}

/* Going up again, later versions that were there already do not count. */
static void names_of_later_versions_are_free(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  for (int i = 0; i < 2; i++) {
    CHECK_OK(p->r, try_step(p, true, 2, RENAME("b", "c"), "[[\"t\",\"b\",\"c\"]]"));
    step(p, true, 3, BOTH("ALTER TABLE", "DROP COLUMN c"));
    step(p, false, 3, BOTH("ALTER TABLE", "ADD COLUMN c TEXT"));
    step(p, false, 2, RENAME("c", "b"));
  }
}

/* ---- what it costs, and what is told ---- */

static bool looks_at_pending(peer *p) {
  for (size_t i = 0; i < p->n_events; i++)
    if (p->events[i].kind == REPLIC_EVENT_TRACE &&
        strstr(p->events[i].text, "FROM main._replic_pending p JOIN"))
      return true;
  return false;
}

/* Reading the log looks at what is pending only where something is. */
static void what_is_not_there_costs_nothing(void) {
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0], *q = &c->peers[1];
  peer_stop(p);
  p->config.trace = 1;
  peer_start(p);
  wire_open(c, 0, 1);
  cluster_settle(c);
  peer_begin(p);
  peer_rollback(p);
  peer_forget_events(p);
  put(p, 1, "a", "b");
  cluster_settle(c);
  CHECK(!looks_at_pending(p));
  step(q, true, 2, BOTH("ALTER TABLE", "ADD COLUMN c TEXT"));
  upsert(q, "t", ROW({"id", v_int(1)}, {"c", v_text("c")}));
  cluster_settle(c);
  put(p, 2, "a", "b");
  cluster_settle(c);
  CHECK(looks_at_pending(p));
  step(p, true, 2, BOTH("ALTER TABLE", "ADD COLUMN c TEXT"));
  peer_forget_events(p);
  put(p, 3, "a", "b");
  cluster_settle(c);
  CHECK(!looks_at_pending(p));
  cluster_same(c, "t");
}

/* Without a patch: both sides know from the beginning how their tables differ. */
static void schemas_are_told_when_a_link_begins(void) {
  cluster *c = cluster_start(2, T);
  replic_link_info info = {0};
  step(&c->peers[1], true, 2, BOTH("ALTER TABLE", "ADD COLUMN c TEXT") U);
  wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK(replic_link_at(c->peers[0].r, 0, &info));
  CHECK_CONTAINS(info.schema, "t\ttable t has no column c here");
  CHECK_CONTAINS(info.schema, "u\ttable u is not replicated here");
  step(&c->peers[0], true, 2, BOTH("ALTER TABLE", "ADD COLUMN c TEXT") U);
  CHECK(replic_link_at(c->peers[0].r, 0, &info));
  CHECK(!strstr(info.schema, "has no column") && !strstr(info.schema, "not replicated"));
  step(&c->peers[1], true, 3, "DROP TABLE u; DROP TABLE u_patches");
  step(&c->peers[1], true, 4, BOTH("ALTER TABLE", "DROP COLUMN c"));
  cluster_deliver(c);
  CHECK(replic_link_at(c->peers[1].r, 0, &info));
  CHECK_CONTAINS(info.schema, "t\ttable t has no column c here");
}

/* Values are carried as they are, so nothing is pending for it. */
static void rules_of_columns_are_told(void) {
  static const struct {
    const char *here, *there, *text;
  } CASES[] = {
      {"n TEXT DEFAULT 'a'", "n TEXT DEFAULT 'b'",
       "\"DEFAULT 'b'\" there and \"DEFAULT 'a'\" here"},
      {"n TEXT", "n TEXT DEFAULT (random())", "\"DEFAULT random()\" there and \"\" here"},
      {"n TEXT NOT NULL DEFAULT ''", "n TEXT DEFAULT ''", "\"NOT NULL DEFAULT ''\" here"},
      {"n TEXT NOT NULL DEFAULT ''", "n TEXT NOT NULL DEFAULT ''", NULL},
  };
  for (size_t i = 0; i < COUNT(CASES) + 2; i++) {
    cluster *c = cluster_start(2, T);
    replic_link_info info = {0};
    for (int p = 0; p < 2; p++) {
      int is_strict = i >= COUNT(CASES) && p == (int)(i - COUNT(CASES));
      const char *column = i >= COUNT(CASES) ? "n TEXT" : (p ? CASES[i].there : CASES[i].here);
      char *ddl = sqlite3_mprintf("CREATE TABLE d(id INTEGER PRIMARY KEY, %s)%s; CREATE TABLE "
                                  "d_patches(" CLOCK "id INTEGER, n TEXT)%s;",
                                  column, is_strict ? " STRICT" : "", is_strict ? " STRICT" : "");
      step(&c->peers[p], true, 2, ddl);
      sqlite3_free(ddl);
    }
    wire_open(c, 0, 1);
    cluster_deliver(c);
    CHECK(replic_link_at(c->peers[0].r, 0, &info));
    if (i >= COUNT(CASES))
      CHECK_CONTAINS(info.schema, i > COUNT(CASES) ? "d is STRICT there and not STRICT here"
                                                   : "d is not STRICT there and STRICT here");
    else if (CASES[i].text)
      CHECK_CONTAINS(info.schema, CASES[i].text);
    else
      CHECK_CONTAINS(info.schema, "d\t\n");
    upsert(&c->peers[1], "d", ROW({"id", v_int(1)}, {"n", v_text("x")}));
    cluster_settle(c);
    CHECK_INT(replic_pending_count(c->peers[0].r), 0);
  }
}

/* A definition is known, and was taken as a table of here. That table goes without leaving anything
 * pending, a patch of the definition comes, and the table comes back as it was. */
static void a_table_that_goes_while_nothing_is_pending(void) {
  static const char GOES[] = "DROP TABLE u; DROP TABLE u_patches;";
  static const char W[] =
      "CREATE TABLE w(id INTEGER PRIMARY KEY, x); CREATE TABLE w_patches(" CLOCK "id INTEGER, x);";
  cluster *c = cluster_new();
  peer *p = cluster_add(c), *q = cluster_add(c);
  peer_start(p);
  peer_start(q);
  step(p, true, 1, T U);
  CHECK_OK(q->r, try_migrate(q, 1, test_format("%s%s%s", T, U, W), ""));
  step(p, true, 2, GOES); /* notes the definition */
  wire_open(c, 0, 1);
  upsert(q, "w", ROW({"id", v_int(1)}, {"x", v_int(1)}));
  cluster_settle(c);
  CHECK_INT(n_pending(p), 1);
  step(p, false, 2, U); /* takes it as u */
  step(p, true, 2, W);
  CHECK_INT(n_pending(p), 0);
  step(p, true, 3, GOES);
  upsert(q, "u", ROW({"id", v_int(1)}, {"w", v_text("x")}));
  cluster_settle(c);
  CHECK_INT(n_pending(p), 1);
  step(p, false, 3, U);
  CHECK_INT(n_pending(p), 0);
  cluster_same(c, "u");
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(a_table_that_goes_while_nothing_is_pending),
                               TEST(rules_of_columns_are_told),
                               TEST(what_a_step_writes_before_it_drops_a_column_is_kept),
                               TEST(what_is_whole_does_not_stay_pending),
                               TEST(a_write_that_fails_in_between),
                               TEST(what_a_step_up_has_taken_away_is_kept_for_a_time),
                               TEST(what_is_ahead_is_kept_for_ever),
                               TEST(what_is_past_depends_on_where_the_peer_is),
                               TEST(what_was_pending_is_pruned_like_any_other),
                               TEST(a_name_stands_for_one_column),
                               TEST(names_of_later_versions_are_free),
                               TEST(what_is_not_there_costs_nothing),
                               TEST(schemas_are_told_when_a_link_begins)};
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

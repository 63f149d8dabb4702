/* test_compact.c - retention by supersession: what is deleted from the log wins no cell and never
 * will, whatever comes late, and what does win is never deleted. The naive model says which these
 * are (model_fold's `wins`). */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "orders.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls "   \
  "TEXT, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c); CREATE TABLE t_patches(" CLOCK "id INTEGER, "  \
  "a, b, c);"
#define U                                                                                          \
  "CREATE TABLE u(x TEXT NOT NULL, y INTEGER NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID;"          \
  "CREATE TABLE u_patches(" CLOCK "x TEXT, y INTEGER);"

enum { ALL = 1000000 };

static void put(peer *p, int64_t id, const char *columns, int64_t value) {
  cell row[5] = {{"id", v_int(id)}};
  static const char *const NAMES[] = {"a", "b", "c"};
  for (int i = 0; columns[i]; i++) row[i + 1] = (cell){NAMES[columns[i] - 'a'], v_int(value)};
  upsert(p, "t", row);
  p->cluster->now_ms++;
}

/* The sequences of an origin that the log of t has, as "1 3 4". */
static char *log_of(peer *p, uint32_t origin) {
  return sql_text(peer_sql(p),
                  test_format("SELECT group_concat(_sequenceId, ' ') FROM (SELECT _sequenceId FROM "
                              "t_patches WHERE _peerId = %lu ORDER BY _sequenceId)",
                              (unsigned long)origin));
}

/* floor, cursor, missing */
static char *pruned_of(peer *p, uint32_t origin) {
  return sql_text(peer_sql(p), test_format("SELECT floor || ' ' || cursor || ' ' || missing FROM "
                                           "_replic_vector WHERE origin = %lu",
                                           (unsigned long)origin));
}

static replic_counters counters_of(const peer *p) {
  replic_counters counters;
  replic_get_counters(p->r, &counters);
  return counters;
}

/* What memory says of retention is what the disk says (I3). */
static void check_memory_is_disk(peer *p) {
  for (size_t i = 0; i < p->r->n_vector; i++) {
    const replic__entry *entry = &p->r->vector[i];
    if (!entry->committed.sequence) continue;
    CHECK_TEXT(pruned_of(p, entry->now.origin),
               test_format("%lld %lld %lld", (long long)entry->pruned.floor,
                           (long long)entry->pruned.cursor, (long long)entry->pruned.missing));
  }
  int64_t rows = sql_int(peer_sql(p), "SELECT count(*) FROM t_patches");
  if (sql_int(peer_sql(p), "SELECT count(*) FROM pragma_table_list WHERE name = 'u'"))
    rows += sql_int(peer_sql(p), "SELECT count(*) FROM u_patches");
  CHECK_INT(replic_log_rows(p->r), rows);
}

/* ---- the rule ---- */

static void what_wins_nothing_goes(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  put(p, 1, "ab", 1);
  put(p, 1, "a", 2);
  put(p, 1, "bc", 3);
  put(p, 1, "b", 4);
  put(p, 2, "a", 5);
  put(p, 1, "", 6);
  char *before = peer_dump(p, "t");
  peer_forget_events(p);
  replic_compaction done = peer_compact(p, c->now_ms, ALL);
  CHECK_INT(done.examined, 6);
  CHECK_INT(done.removed, 1);
  CHECK_INT(done.done, 1);
  /* 2 has a, 3 has c, 4 has b, 6 is the newest of its row though it sets nothing */
  CHECK_TEXT(log_of(p, 101), "2 3 4 5 6");
  CHECK_TEXT(pruned_of(p, 101), "1 6 1");
  CHECK_INT(counters_of(p).patches_pruned, 1);
  CHECK_TEXT(peer_dump(p, "t"), before);
  CHECK_INT(p->n_events, 0); /* nothing that anybody could see has changed */
  check_memory_is_disk(p);
  put(p, 1, "abc", 7);
  done = peer_compact(p, c->now_ms, ALL);
  CHECK_INT(done.examined, 1);
  CHECK_INT(done.removed, 4);
  CHECK_TEXT(log_of(p, 101), "5 7");
  CHECK_TEXT(pruned_of(p, 101), "6 7 5");
  CHECK_INT(counters_of(p).patches_pruned, 5);
  check_memory_is_disk(p);
  done = peer_compact(p, c->now_ms, ALL);
  CHECK_INT(done.examined + done.removed, 0);
}

/* Only what came of age is deleted, but what supersedes it may be young. */
static void what_is_young_stays(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  for (int i = 1; i <= 5; i++) put(p, 1, "a", i);
  int64_t third = c->now_ms - 3; /* the stamp of 3 */
  replic_compaction done = peer_compact(p, third, ALL);
  CHECK_INT(done.examined, 2);
  CHECK_INT(done.removed, 2);
  CHECK_INT(done.done, 1);
  CHECK_TEXT(log_of(p, 101), "3 4 5");
  CHECK_TEXT(pruned_of(p, 101), "2 2 2");
  CHECK_INT(peer_compact(p, third, ALL).examined, 0);
  CHECK_INT(peer_compact(p, third + 1, ALL).removed, 1);
  CHECK_TEXT(log_of(p, 101), "4 5");
}

static void tables_of_keys_alone(void) {
  cluster *c = cluster_start(1, T U);
  peer *p = &c->peers[0];
  for (int i = 0; i < 6; i++) {
    upsert(p, "u", ROW({"x", v_text(i % 2 ? "odd" : "even")}, {"y", v_int(1)}));
    c->now_ms++;
  }
  CHECK_INT(peer_compact(p, c->now_ms, ALL).removed, 4);
  CHECK_TEXT(peer_dump(p, "u"), "t6576656e|i1\nt6f6464|i1\n");
  CHECK_TEXT(sql_dump(peer_sql(p), "SELECT _sequenceId FROM u_patches"), "i5\ni6\n");
  put(p, 1, "a", 1);
  check_memory_is_disk(p);
}

/* A deletion is a patch like any other: the row stays, and so does who has deleted it. */
static void deleted_rows_stay_deleted(void) {
  cluster *c = cluster_start(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, deletedAt INTEGER);"
                                "CREATE TABLE t_patches(" CLOCK "id INTEGER, a, deletedAt "
                                "INTEGER);");
  peer *p = &c->peers[0];
  upsert(p, "t", ROW({"id", v_int(1)}, {"a", v_int(1)}));
  c->now_ms++;
  erase(p, "t", ROW({"id", v_int(1)}));
  c->now_ms++;
  upsert(p, "t", ROW({"id", v_int(1)}, {"a", v_int(2)}));
  CHECK_INT(peer_compact(p, c->now_ms + 1, ALL).removed, 1);
  CHECK_TEXT(log_of(p, 101), "2 3");
  wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK_INT(sql_int(peer_sql(&c->peers[1]), "SELECT deletedAt > 0 FROM t"), 1);
  cluster_same(c, "t");
}

/* ---- every order, compaction at every point ---- */

typedef struct variant {
  int after;       /* so many arrivals comes the first slice; -1: after each of them */
  int64_t aged;    /* what is stamped below it is of age */
  int64_t patches; /* in a slice */
} variant;

static const variant *now; /* what play_with_compaction is to do */

/* Of those applied and stamped below `aged`: which win a cell among themselves? */
static void wins_among(scene *x, int64_t aged, bool *wins) {
  const model_column columns[] = {{"k", true, false, "n"},
                                  {"a", false, false, "n"},
                                  {"b", false, false, "n"},
                                  {"c", false, false, "n"},
                                  {"d", false, false, "n"}};
  const model_table table = {"t", COUNT(columns), columns};
  model m = {0};
  int numbers[MAX_PATCHES];
  bool of_them[MAX_PATCHES] = {false};
  memset(wins, 0, MAX_PATCHES * sizeof *wins);
  for (int i = 0; i < x->set->n; i++) {
    const patch *p = &x->set->patches[i];
    if (p->sequence > peer_at(x->p, round_origin(x, p->origin)) || p->patched_at >= aged) continue;
    numbers[m.n] = i;
    model_add(&m, &table, (uint32_t)p->origin + 1, p->sequence, p->patched_at, p->row);
  }
  model_fold(&m, &table, NULL, 0, of_them);
  for (size_t i = 0; i < m.n; i++) wins[numbers[i]] = of_them[i];
}

static bool is_in_log(scene *x, int i) {
  const patch *p = &x->set->patches[i];
  return sql_int(peer_sql(x->p), test_format("SELECT count(*) FROM t_patches WHERE _peerId = %lu "
                                             "AND _sequenceId = %lld",
                                             (unsigned long)round_origin(x, p->origin),
                                             (long long)p->sequence)) == 1;
}

/* `pruned`: what was seen to be gone. `complete`: all of age has been looked at. */
static void check_log(scene *x, int64_t aged, bool complete, bool *pruned) {
  bool wins[MAX_PATCHES];
  wins_among(x, aged, wins);
  for (int i = 0; i < x->set->n; i++) {
    const patch *p = &x->set->patches[i];
    bool is_applied = p->sequence <= peer_at(x->p, round_origin(x, p->origin));
    bool is_there = is_in_log(x, i);
    if (!is_applied) {
      CHECK(!is_there);
      continue;
    }
    if (!is_there) {
      CHECK(p->patched_at < aged);
      CHECK(!round_expected(x)->wins[i]);
      pruned[i] = true;
    }
    CHECK(!is_there || !pruned[i]); /* nothing comes back */
    if (complete && p->patched_at < aged && !wins[i]) CHECK(!is_there);
  }
}

static void compact_fully(scene *x, int64_t aged, int64_t patches, bool *pruned) {
  int64_t removed = 0, before = counters_of(x->p).patches_pruned;
  for (replic_compaction done = {0}; !done.done;) {
    done = peer_compact(x->p, aged, patches);
    CHECK(done.examined <= patches);
    removed += done.removed;
    check_log(x, aged, done.done, pruned);
    round_check(x);
  }
  CHECK_INT(counters_of(x->p).patches_pruned - before, removed);
}

static void play_with_compaction(scene *x, const int *order) {
  bool pruned[MAX_PATCHES] = {false};
  round_begin(x, order,
              test_format(", compacted after %d up to %lld, %lld a slice", now->after,
                          (long long)now->aged, (long long)now->patches));
  int64_t aged = 0;
  for (int i = 0; i <= x->n_arrivals; i++) {
    if (now->after < 0) aged = now->aged * i / x->n_arrivals;
    if (now->after == i) aged = now->aged;
    if (now->after < 0 || now->after == i) compact_fully(x, aged, now->patches, pruned);
    if (i == x->n_arrivals) break;
    const bytes *frame = round_frame(x, order[i]);
    peer_receive(x->p, x->c->wires[x->w].number, frame->data, frame->len);
    check_log(x, aged, false, pruned);
    round_check(x);
  }
  compact_fully(x, 1000, now->patches, pruned);
  for (int i = 0; i < x->set->n; i++) CHECK_INT(is_in_log(x, i), round_expected(x)->wins[i]);
  CHECK_INT(replic_log_rows(x->p->r), sql_int(peer_sql(x->p), "SELECT count(*) FROM t_patches"));
  round_end(x);
}

/* Every order, and every point of it; or, of the larger sets, a random choice of these points. */
static void compacted(const char *const *lines, int n, int of_hundred) {
  rng g = {(uint64_t)env_number("SEED", 11)};
  for (int after = -1; after <= n; after++) {
    for (int k = 0; k < n; k++) { /* at each stamp: below it, or including it */
      int64_t stamp = strtoll(lines[k] + 2, NULL, 10);
      for (int including = 0; including < 2; including++) {
        variant each = {after, stamp + including, 1 + rng_below(&g, 3)};
        if (!rng_chance(&g, (uint32_t)of_hundred)) continue;
        now = &each;
        in_every_order_and_kind(lines, n, NULL, play_with_compaction);
      }
    }
  }
}

#define COMPACTED(of_hundred, ...)                                                                 \
  do {                                                                                             \
    static const char *const LINES[] = {__VA_ARGS__};                                              \
    compacted(LINES, COUNT(LINES), of_hundred);                                                    \
  } while (0)

static void compaction_at_every_point_of_every_order(void) {
  COMPACTED(100, "0@10 a1 b1", "1@20 b2", "2@30 a3");
  COMPACTED(40, "0@10 a1 b1", "1@10 a2", "1@11", "0@12 b3");
  COMPACTED(40, "0@10 a1", "2@20 c2 d1", "1@20 aN", "0@30 c4");
}

static void compaction_of_larger_sets(void) {
  COMPACTED(3, "0@10 a1 b1 c1", "1@20 b2", "2@30 c3", "0@40 b4", "1@50 a5");
  COMPACTED(3, "0@10 a1", "0@10 k1 a2", "1@20 c2", "2@30 b3", "2@30 k1");
  COMPACTED(3, "0@10 a1 b1", "1@20 d9", "2@15 a2", "0@25 a3", "2@30 d2");
}

enum { N_RANDOM = 80, N_RANDOM_ORIGINS = 4 };
static const model_column RANDOM_COLUMNS[] = {{"id", true, false, "n"},
                                              {"a", false, false, "n"},
                                              {"b", false, false, "n"},
                                              {"c", false, false, "n"}};
static const model_table RANDOM_TABLE = {"t", COUNT(RANDOM_COLUMNS), RANDOM_COLUMNS};

/* Frames of one patch each, in the order of their clocks within an origin; the model learns them.
 */
static void random_patches(rng *g, model *m, const bytes **frames) {
  int64_t sequences[N_RANDOM_ORIGINS] = {0}, clocks[N_RANDOM_ORIGINS] = {0};
  for (int i = 0; i < N_RANDOM; i++) {
    uint32_t o = rng_below(g, N_RANDOM_ORIGINS);
    clocks[o] += 1 + rng_below(g, 8);
    cell row[5] = {{"id", v_int(rng_below(g, 3))}};
    replic_value values[4] = {row[0].value};
    for (size_t k = 1, cells = 1; k < 4; k++) {
      if (rng_chance(g, 60)) continue;
      values[k] = rng_chance(g, 20) ? v_null() : v_int(i);
      row[cells++] = (cell){RANDOM_COLUMNS[k].name, values[k]};
    }
    bytes *frame = patches_frame(1000 + o, sequences[o], sequences[o] + 1);
    sequences[o]++;
    add_patch(frame, 1, true, (uint64_t)clocks[o], 1, 1, 4, values);
    model_add(m, &RANDOM_TABLE, 1000 + o, sequences[o], clocks[o], row);
    frames[i] = frame;
  }
}

/* In the end exactly what wins is left. */
static void check_what_is_left(peer *p, const model *m) {
  bool *wins = test_alloc(m->n);
  model_check(m, &RANDOM_TABLE, p);
  model_fold(m, &RANDOM_TABLE, NULL, 0, wins);
  for (size_t i = 0; i < m->n; i++)
    CHECK_INT(sql_int(peer_sql(p), test_format("SELECT count(*) FROM t_patches WHERE _peerId = "
                                               "%lu AND _sequenceId = %lld",
                                               (unsigned long)m->patches[i].origin,
                                               (long long)m->patches[i].sequence)),
              wins[i]);
  check_memory_is_disk(p);
}

/* Many patches of a few rows, in any order, with slices of any size in between. */
static void random_histories(void) {
  static const char *const FIELDS[] = {"id", "INTEGER", "a", "", "b", "", "c", ""};
  int64_t seed = env_number("SEED", 1);
  for (int64_t round = 0, n = env_number("ROUNDS", 25); round < n; round++) {
    test_note("SEED=%lld", (long long)(seed + round));
    rng g = {(uint64_t)(seed + round)};
    cluster *c = cluster_start(1, T);
    peer *p = &c->peers[0];
    int w = wire_open_test(c, 0);
    play(c, w, hello_frame(900, c->now_ms, NULL, 0));
    play(c, w, schema_frame(1, "t", 1, 4, FIELDS));
    model m = {0};
    const bytes *frames[N_RANDOM];
    random_patches(&g, &m, frames);
    int64_t aged = 0;
    for (int left = N_RANDOM; left > 0; left--) {
      uint32_t i = rng_below(&g, rng_chance(&g, 70) && left > 5 ? 5 : (uint32_t)left);
      play(c, w, frames[i]);
      memmove(&frames[i], &frames[i + 1], (size_t)(left - 1 - (int)i) * sizeof *frames);
      if (rng_chance(&g, 40)) continue;
      aged = rng_chance(&g, 80) ? aged + rng_below(&g, 10) : rng_below(&g, 200);
      peer_compact(p, aged, 1 + rng_below(&g, 10));
      model_check(&m, &RANDOM_TABLE, p);
      check_memory_is_disk(p);
    }
    CHECK(peer_compact(p, 1000, ALL).done);
    check_what_is_left(p, &m);
    test_release();
  }
}

/* ---- slices ---- */

static void slices_go_on_where_they_stopped(void) {
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0], *q = &c->peers[1];
  wire_open(c, 0, 1);
  for (int i = 0; i < 20; i++) put(&c->peers[i % 2], i % 3, "a", i);
  cluster_settle(c);
  int64_t examined = 0, removed = 0;
  int slices = 0;
  for (replic_compaction done = {0}; !done.done; slices++) {
    done = peer_compact(p, c->now_ms, 3);
    CHECK(done.examined <= 3);
    CHECK_INT(done.done, done.examined < 3);
    examined += done.examined;
    removed += done.removed;
    check_memory_is_disk(p);
    peer_stop(p); /* the cursor survives */
    peer_start(p);
    check_memory_is_disk(p);
  }
  CHECK(examined <= 20); /* none twice; what a newer one takes with it, not at all */
  CHECK_INT(removed, 17);
  CHECK_INT(slices, examined / 3 + 1);
  CHECK_INT(peer_compact(p, c->now_ms + 100000, ALL).examined, 0);
  CHECK_INT(peer_compact(q, c->now_ms, ALL).removed, 17); /* the same on every peer */
  CHECK_TEXT(peer_dump(p, "t_patches"), peer_dump(q, "t_patches"));
  wire_open(c, 0, 1);
  cluster_settle(c);
  cluster_same(c, "t");
}

/* A row that is written again and again is as cheap to keep as any other: per patch a few steps of
 * the queries for what is newer and older, however many there are. */
static void a_hot_row_costs_no_more(void) {
  static const char *const SETS[] = {"a", "ab", "b", "c", ""};
  int64_t steps[2];
  for (int size = 0; size < 2; size++) {
    const int n = size ? 1600 : 400;
    cluster *c = cluster_start(1, T);
    peer *p = &c->peers[0];
    put(p, 1, "abc", -1);
    for (int i = 0; i < n; i++) put(p, 1, SETS[i % 4], i);
    put(p, 1, "", 0);
    int64_t removed = 0;
    for (replic_compaction done = {0}; !done.done; removed += done.removed)
      done = peer_compact(p, c->now_ms, 100);
    CHECK_INT(removed, n + 2 - 4); /* a, b, c and the last one are left */
    const replic__table *t = p->r->schema->tables[0];
    steps[size] = 0;
    for (int which = LOG_NEWER; which <= LOG_OLDER; which++)
      steps[size] += sqlite3_stmt_status(t->sql[which], SQLITE_STMTSTATUS_VM_STEP, 0);
    CHECK(steps[size] > n);
    test_note("%lld steps for %d patches", (long long)steps[size], n);
    test_release();
  }
  CHECK(steps[1] < 5 * steps[0]);
}

static void a_batch_that_is_undone_undoes_its_slice(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  for (int i = 0; i < 10; i++) put(p, i % 2, "a", i);
  replic_compaction done;
  for (int rounds = 0; rounds < 2; rounds++) {
    peer_begin(p);
    CHECK_OK(p->r, replic_compact(p->r, c->now_ms - 1, rounds ? ALL : 5, &done));
    CHECK_INT(done.removed, rounds ? 8 : 5);
    peer_rollback(p);
    CHECK_TEXT(log_of(p, 101), "1 2 3 4 5 6 7 8 9 10");
    CHECK_TEXT(pruned_of(p, 101), "0 0 0");
    check_memory_is_disk(p);
  }
  CHECK_INT(peer_compact(p, c->now_ms - 1, ALL).removed, 8); /* 10 is young */
  CHECK_TEXT(log_of(p, 101), "9 10");
  check_memory_is_disk(p);
}

/* Nothing is left behind by a slice that cannot even begin. */
static void a_locked_file_delays_a_slice(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  for (int i = 0; i < 4; i++) put(p, 1, "a", i);
  replic_compaction done;
  int64_t held = 0;
  for (int rounds = 0; rounds < 3; rounds++) {
    sql_exec(peer_sql(p), "BEGIN IMMEDIATE");
    peer_begin(p);
    CHECK_CODE(p->r, replic_compact(p->r, c->now_ms - 1, ALL, &done), SQLITE_BUSY);
    peer_rollback(p);
    sql_exec(peer_sql(p), "COMMIT");
    if (rounds == 1) held = sqlite3_memory_used();
  }
  CHECK_INT(sqlite3_memory_used(), held);
  CHECK_INT(peer_compact(p, c->now_ms - 1, ALL).removed, 3); /* all but the newest */
}

static int refuse(void *context) {
  (void)context;
  return 1;
}

static void a_commit_that_fails_undoes_the_slice(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  for (int i = 0; i < 10; i++) put(p, i % 2, "a", i);
  replic_compaction done;
  peer_begin(p);
  CHECK_OK(p->r, replic_compact(p->r, c->now_ms, ALL, &done));
  sqlite3_commit_hook(p->r->db, refuse, NULL);
  CHECK_CODE(p->r, peer_commit(p), SQLITE_CONSTRAINT_COMMITHOOK);
  sqlite3_commit_hook(p->r->db, NULL, NULL);
  check_memory_is_disk(p);
  CHECK_INT(replic_log_rows(p->r), 10);
  CHECK_INT(peer_compact(p, c->now_ms, ALL).removed, 8);
  check_memory_is_disk(p);
  CHECK_CODE(p->r, replic_compact(p->r, c->now_ms, ALL, &done), REPLIC_EUSAGE); /* no batch */
}

/* A slice that fails takes nothing else of its batch with it. */
static void a_slice_that_fails_fails_alone(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  for (int i = 0; i < 6; i++) put(p, 1, "a", i);
  sql_exec(peer_sql(p), "CREATE TRIGGER stop BEFORE DELETE ON t_patches WHEN old._sequenceId = 4 "
                        "BEGIN SELECT raise(ABORT, 'no'); END");
  static const char *const COLUMNS[] = {"id"};
  const replic_value id = v_int(77);
  const replic_change change = {REPLIC_UPSERT, "t", 1, COLUMNS, 1, &id};
  replic_compaction done;
  int64_t sequence;
  peer_begin(p);
  CHECK_OK(p->r, replic_write(p->r, &change, 1, &sequence));
  CHECK_CODE(p->r, replic_compact(p->r, c->now_ms, ALL, &done), SQLITE_CONSTRAINT_TRIGGER);
  CHECK_OK(p->r, peer_commit(p));
  CHECK_TEXT(log_of(p, 101), "1 2 3 4 5 6 7");
  CHECK_INT(counters_of(p).patches_pruned, 0);
  check_memory_is_disk(p);
  CHECK_INT(peer_compact(p, c->now_ms, 3).removed, 3);
  sql_exec(peer_sql(p), "DROP TRIGGER stop");
  CHECK_INT(peer_compact(p, c->now_ms, ALL).removed, 2);
  check_memory_is_disk(p);
}

/* ---- time ---- */

static void the_clock_is_set_back_and_forth(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  for (int i = 0; i < 4; i++) put(p, 1, "a", i);
  c->now_ms -= 3600000; /* what is written now is stamped as late as the last one */
  for (int i = 0; i < 4; i++) put(p, 1, "a", i);
  CHECK_INT(peer_compact(p, c->now_ms, ALL).examined, 0);
  CHECK_TEXT(log_of(p, 101), "1 2 3 4 5 6 7 8");
  c->now_ms += 3600000;
  CHECK_INT(peer_compact(p, c->now_ms + 1000000000, ALL).removed, 7); /* in the future */
  CHECK_TEXT(log_of(p, 101), "8");
  put(p, 1, "a", 9);
  CHECK_INT(peer_compact(p, c->now_ms - 10, ALL).examined, 0); /* the cursor stands behind it */
  CHECK_INT(peer_compact(p, c->now_ms, ALL).removed, 1);
  CHECK_TEXT(log_of(p, 101), "9");
  CHECK_INT(peer_compact(p, 0, ALL).examined, 0);
  CHECK_INT(peer_compact(p, REPLIC_MAX_CLOCK, ALL).examined, 0);
  check_memory_is_disk(p);
}

/* ---- what else the log is there for ---- */

/* The columns of a row that cannot exist yet are nowhere but in the log. */
static void a_row_that_waits_is_not_forgotten(void) {
  cluster *c = cluster_start(
      1, "CREATE TABLE t(id INTEGER PRIMARY KEY, a NOT NULL, b, c); CREATE TABLE t_patches(" CLOCK
         "id INTEGER, a, b, c);");
  peer *p = &c->peers[0];
  static const char *const FIELDS[] = {"id", "INTEGER", "a", "", "b", "", "c", ""};
  int w = wire_open_test(c, 0);
  play(c, w, hello_frame(900, c->now_ms, NULL, 0));
  play(c, w, schema_frame(1, "t", 1, 4, FIELDS));
  const replic_value unset = {0, 0, 0, NULL, 0};
  for (int i = 1; i <= 4; i++) {
    bytes *frame = patches_frame(900, i - 1, i);
    const replic_value values[] = {v_int(1), i == 4 ? v_text("at last") : unset,
                                   i == 2 ? unset : v_int(i), i == 2 ? v_int(i) : unset};
    add_patch(frame, 1, true, (uint64_t)i, 1, 1, 4, values);
    play(c, w, frame);
    peer_compact(p, 1000, ALL);
  }
  CHECK_TEXT(peer_dump(p, "t"), "i1|t6174206c617374|i4|i2\n");
  CHECK_TEXT(log_of(p, 900), "2 4");
}

/* A patch that comes late finds what is newer, though most of that is gone. */
static void late_patches_are_merged_as_if_nothing_were_gone(void) {
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0], *q = &c->peers[1];
  put(q, 1, "abc", 1); /* nobody gets it for now */
  for (int i = 2; i < 9; i++) put(p, 1, i % 2 ? "a" : "b", i);
  peer_compact(p, c->now_ms, ALL);
  CHECK_TEXT(log_of(p, 101), "6 7");
  wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK_TEXT(cluster_same(c, "t"), "i1|i7|i8|i1\n");
  CHECK_INT(peer_compact(p, c->now_ms, ALL).removed, 0); /* it has c */
  put(q, 1, "c", 9);
  cluster_settle(c);
  CHECK_INT(peer_compact(p, c->now_ms, ALL).removed, 1);
  CHECK_TEXT(log_of(p, 102), "2");
  CHECK_TEXT(pruned_of(p, 102), "1 2 1");
}

/* Somebody has deleted rows of the log by hand: what is left is looked at as ever. */
static void rows_that_are_gone_already(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  for (int i = 1; i <= 8; i++) put(p, i % 2, "a", i);
  run_sql(p, "DELETE FROM t_patches WHERE _sequenceId IN (1, 2, 8)");
  replic_compaction done = peer_compact(p, c->now_ms, ALL);
  CHECK_INT(done.examined, 5);
  CHECK_INT(done.removed, 3);
  CHECK_TEXT(log_of(p, 101), "6 7");
  CHECK_INT(done.done, 1);
  CHECK_INT(peer_compact(p, c->now_ms, ALL).examined, 0);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(what_wins_nothing_goes),
      TEST(what_is_young_stays),
      TEST(tables_of_keys_alone),
      TEST(deleted_rows_stay_deleted),
      TEST(compaction_at_every_point_of_every_order),
      TEST(compaction_of_larger_sets),
      TEST(random_histories),
      TEST(slices_go_on_where_they_stopped),
      TEST(a_hot_row_costs_no_more),
      TEST(a_batch_that_is_undone_undoes_its_slice),
      TEST(a_commit_that_fails_undoes_the_slice),
      TEST(a_slice_that_fails_fails_alone),
      TEST(the_clock_is_set_back_and_forth),
      TEST(a_row_that_waits_is_not_forgotten),
      TEST(late_patches_are_merged_as_if_nothing_were_gone),
      TEST(a_locked_file_delays_a_slice),
      TEST(rows_that_are_gone_already),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

/* test_random.c - whole clusters under random schedules, each from one seed that replays exactly:
 *
 *   SEED=7 runs that one seed; SEEDS=5000 runs so many instead of 300; TRACE=1 prints what happens
 *
 * 2 to 5 peers, tiny limits, a topology that changes all the time. Peers write groups of rows on
 * few keys (values, NULLs, deletions), batches are rolled back or lost in a crash, frames are lost,
 * doubled and reordered, clocks are set forward and back. After every step, of the peers in it:
 *
 * - the log holds each origin's patches from 1 to the vector, without a hole (I1, I5);
 * - no vector ever falls, not even over a crash (I4), and it stands between two groups;
 * - now and then: the tables are what the model makes of the patches up to the vector (I1, I2).
 *
 * In the end all is linked up, and all tables and logs must be equal, and equal to the model of all
 * patches. */
#include <stdio.h>
#include <string.h>

#include "model.h"

enum { N_TABLES = 3, N_STEPS = 160, MAX_SEQUENCE = 2048 };

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
static const char DDL[] =
    "CREATE TABLE note(id INTEGER PRIMARY KEY, a TEXT, b INTEGER, c BLOB, deletedAt INTEGER);"
    "CREATE TABLE note_patches(" CLOCK
    "_nulls TEXT, id INTEGER, a TEXT, b INTEGER, c BLOB, deletedAt INTEGER);"
    "CREATE TABLE task(must TEXT NOT NULL, k TEXT NOT NULL, also INTEGER NOT NULL, n INTEGER NOT "
    "NULL,"
    " v REAL DEFAULT 1.5, w TEXT NOT NULL DEFAULT 'x', deletedAt INTEGER, PRIMARY KEY(k, n)) "
    "WITHOUT ROWID;"
    "CREATE TABLE task_patches(" CLOCK
    "_nulls TEXT, must TEXT, k TEXT NOT NULL, also INTEGER, n INTEGER NOT NULL, v REAL,"
    " w TEXT, deletedAt INTEGER);"
    "CREATE INDEX task_must ON task(must); CREATE INDEX task_p ON task_patches(must, k);"
    "CREATE TABLE seed(id BLOB NOT NULL PRIMARY KEY, name TEXT, deletedAt INTEGER) STRICT;"
    "CREATE TABLE seed_patches(" CLOCK "id BLOB NOT NULL, name TEXT, deletedAt INTEGER) STRICT;";

static const model_column NOTE[] = {{"id", true, false, "n"},
                                    {"a", false, false, "n"},
                                    {"b", false, false, "n"},
                                    {"c", false, false, "n"},
                                    {"deletedAt", false, false, "n"}};
static const model_column TASK[] = {{"must", false, true, "n"},
                                    {"k", true, true, "n"},
                                    {"also", false, true, "n"},
                                    {"n", true, true, "n"},
                                    {"v", false, false, "r3ff8000000000000"},
                                    {"w", false, true, "t78"},
                                    {"deletedAt", false, false, "n"}};
static const model_column SEED[] = {
    {"id", true, true, "n"}, {"name", false, false, "n"}, {"deletedAt", false, false, "n"}};
static const model_table TABLES[N_TABLES] = {
    {"note", COUNT(NOTE), NOTE}, {"task", COUNT(TASK), TASK}, {"seed", COUNT(SEED), SEED}};

typedef struct world {
  rng g;
  cluster *c;
  model m;
  int64_t seen[MAX_PEERS]
              [MAX_PEERS];   /* the highest vector entry that peer i has shown for peer k */
  int64_t issued[MAX_PEERS]; /* what the model knows of peer i */
  bool group_end[MAX_PEERS][MAX_SEQUENCE];
  bool trace;
} world;

#define TRACE(w, ...) ((w)->trace ? (void)(printf("#   " __VA_ARGS__), printf("\n")) : (void)0)

/* ---- what is written ---- */

static replic_value random_value(rng *g, char type) {
  static const char *const TEXTS[] = {"", "one", "two", "three", "\xc3\xa9"};
  switch (type) {
  case 't': return v_text(TEXTS[rng_below(g, COUNT(TEXTS))]);
  case 'i': return v_int((int64_t)rng_below(g, 7) - 3);
  case 'r': return v_real(rng_below(g, 9) / 4.0 + 0.125);
  default: return v_blob("\0\1\2\3", rng_below(g, 4));
  }
}

/* Keys and a random choice of the other columns; `only_keys` for a deletion. */
static cell *random_row(rng *g, int table, bool only_keys) {
  static const char *const COLUMNS[N_TABLES][6] = {
      {"id", "a", "b", "c", NULL}, {"k", "n", "must", "also", "v", "w"}, {"id", "name", NULL}};
  static const char *const TYPES[N_TABLES] = {"itib", "titirt", "bt"};
  static const size_t N_KEYS[N_TABLES] = {1, 2, 1};
  cell *row = test_alloc(8 * sizeof *row);
  size_t n = 0;
  for (size_t i = 0; i < 6 && COLUMNS[table][i]; i++) {
    if (i >= N_KEYS[table] && (only_keys || rng_chance(g, 40))) continue;
    replic_value value = random_value(g, TYPES[table][i]);
    if (i < N_KEYS[table] && TYPES[table][i] == 'i') value = v_int(rng_below(g, 2));
    if (i < N_KEYS[table] && TYPES[table][i] == 't') value = v_text(rng_chance(g, 50) ? "p" : "q");
    if (i >= N_KEYS[table] && table != 2 && rng_chance(g, 15)) value = v_null();
    row[n++] = (cell){COLUMNS[table][i], value};
  }
  if (!only_keys && table != 2 && rng_chance(g, 5)) row[n++] = (cell){"deletedAt", v_null()};
  return row;
}

typedef struct planned {
  int table;
  bool erase;
  cell *row;
} planned;

/* Writes one group of up to four rows; the code is returned, *sequence set. */
static int write_group(world *w, peer *p, planned *plan, size_t *n_plan, int64_t *sequence) {
  replic_change changes[4];
  size_t n = 1 + rng_below(&w->g, 4);
  for (size_t i = 0; i < n; i++) {
    plan[i].table = (int)rng_below(&w->g, N_TABLES);
    plan[i].erase = rng_chance(&w->g, 12);
    plan[i].row = random_row(&w->g, plan[i].table, plan[i].erase);
    size_t width = row_width(plan[i].row);
    const char **columns = test_alloc(width * sizeof *columns);
    replic_value *values = test_alloc(width * sizeof *values);
    for (size_t k = 0; k < width; k++) {
      columns[k] = plan[i].row[k].column;
      values[k] = plan[i].row[k].value;
    }
    changes[i] = (replic_change){.kind = plan[i].erase ? REPLIC_DELETE : REPLIC_UPSERT,
                                 .table = TABLES[plan[i].table].name,
                                 .n_columns = width,
                                 .columns = columns,
                                 .n_rows = 1,
                                 .values = values};
  }
  *n_plan = n;
  return replic_write(p->r, changes, n, sequence);
}

/* The model learns what was committed; the log says when. */
static void note_group(world *w, peer *p, const planned *plan, size_t n, int64_t last) {
  for (size_t i = 0; i < n; i++) {
    int64_t sequence = last - (int64_t)(n - 1 - i);
    int64_t patched_at = sql_int(
        peer_sql(p),
        test_format("SELECT _patchedAt FROM %s_patches WHERE _peerId = %lu AND _sequenceId = %lld",
                    TABLES[plan[i].table].name, (unsigned long)p->id, (long long)sequence));
    cell *row = plan[i].row;
    if (plan[i].erase) row[row_width(row)] = (cell){"deletedAt", v_int(patched_at)};
    model_add(&w->m, &TABLES[plan[i].table], p->id, sequence, patched_at, row);
    CHECK_INT(sequence, w->issued[p->index] + 1);
    w->issued[p->index] = sequence;
  }
  CHECK(last < MAX_SEQUENCE);
  w->group_end[p->index][last] = true;
}

/* A batch of up to three groups, which is committed, rolled back, or lost in a crash. */
static void step_write(world *w, peer *p) {
  planned plans[3][4];
  size_t n_rows[3] = {0}, n = 1 + rng_below(&w->g, 3);
  int64_t last[3] = {0};
  peer_begin(p);
  for (size_t i = 0; i < n; i++) {
    int rc = write_group(w, p, plans[i], &n_rows[i], &last[i]);
    if (rc == SQLITE_CONSTRAINT_NOTNULL || rc == REPLIC_ENOTFOUND)
      n_rows[i] = 0;
    else
      CHECK_OK(p->r, rc);
  }
  uint32_t end = rng_below(&w->g, 100);
  TRACE(w, "peer %d writes %zu groups, %s", p->index, n,
        end < 6    ? "crash"
        : end < 12 ? "rollback"
                   : "commit");
  if (end < 3) {
    peer_stop(p);
    return;
  }
  if (end < 12) {
    peer_rollback(p);
    return;
  }
  CHECK_OK(p->r, peer_commit(p));
  for (size_t i = 0; i < n; i++) {
    if (n_rows[i]) note_group(w, p, plans[i], n_rows[i], last[i]);
  }
}

/* ---- what happens to frames, links, peers, clocks ---- */

static void step_frame(world *w) {
  cluster *c = w->c;
  int busy[2 * MAX_WIRES], n = 0;
  for (int i = 0; i < 2 * c->n_wires; i++) {
    if (c->wires[i / 2].to[i % 2].n > 0) busy[n++] = i;
  }
  if (!n) return;
  int pick = busy[rng_below(&w->g, (uint32_t)n)], x = pick / 2, side = pick % 2;
  size_t length = c->wires[x].to[side].n;
  size_t i = rng_chance(&w->g, 75) ? 0 : rng_below(&w->g, (uint32_t)length);
  uint32_t what = rng_below(&w->g, 100);
  TRACE(w, "wire %d to peer %d, frame %zu of %zu: %s", x, c->wires[x].peers[side], i, length,
        what < 8    ? "dropped"
        : what < 16 ? "doubled"
                    : "delivered");
  if (what < 8)
    wire_drop(c, x, side, i);
  else if (what < 16)
    wire_duplicate(c, x, side, i);
  else
    wire_deliver(c, x, side, i);
}

static void step_link(world *w, int a, int b) {
  cluster *c = w->c;
  if (a == b || !c->peers[a].r || !c->peers[b].r) return;
  int found = -1;
  for (int i = 0; i < c->n_wires; i++) {
    const wire *x = &c->wires[i];
    bool between = (x->peers[0] == a && x->peers[1] == b) || (x->peers[0] == b && x->peers[1] == a);
    if (between && x->open[0] && x->open[1]) found = i;
  }
  uint32_t what = rng_below(&w->g, 100);
  if (found >= 0 && what < 25) {
    TRACE(w, "wire %d is cut", found);
    wire_cut(c, found);
  } else if ((found < 0 || what > 95) && c->n_wires < MAX_WIRES - 16) {
    TRACE(w, "wire %d between %d and %d", c->n_wires, a, b);
    wire_open(c, a, b);
  }
}

static void step_clock(world *w, peer *p) {
  static const int64_t STEPS[] = {-100000, -5000, -1, 0, 1, 700, 30000, 59000, 200000};
  p->clock_step_ms = STEPS[rng_below(&w->g, COUNT(STEPS))];
  TRACE(w, "the clock of peer %d is off by %lld", p->index, (long long)p->clock_step_ms);
}

static void step(world *w, peer *p) {
  uint32_t what = rng_below(&w->g, 100);
  w->c->now_ms += rng_below(&w->g, 4) == 0 ? rng_below(&w->g, 1500) : 0;
  if (!p->r) {
    if (rng_chance(&w->g, 60)) {
      TRACE(w, "peer %d starts", p->index);
      peer_start(p);
    }
    return;
  }
  if (what < 22) {
    step_write(w, p);
  } else if (what < 68) {
    for (uint32_t i = 0, n = 1 + rng_below(&w->g, 10); i < n; i++) step_frame(w);
  } else if (what < 82) {
    step_link(w, p->index, (int)rng_below(&w->g, (uint32_t)w->c->n_peers));
  } else if (what < 92) {
    TRACE(w, "peer %d ticks", p->index);
    tick(p);
  } else if (what < 98) {
    step_clock(w, p);
  } else {
    TRACE(w, "peer %d crashes", p->index);
    peer_stop(p);
  }
}

/* ---- what must hold ---- */

static void check_peer(world *w, peer *p) {
  static const char SQL[] = "SELECT count(*), max(_sequenceId), _peerId FROM (SELECT _peerId, "
                            "_sequenceId FROM note_patches "
                            "UNION ALL SELECT _peerId, _sequenceId FROM task_patches UNION ALL "
                            "SELECT _peerId, _sequenceId "
                            "FROM seed_patches) GROUP BY _peerId";
  char *wanted = "";
  for (int k = 0; k < w->c->n_peers; k++) {
    uint32_t origin = w->c->peers[k].id;
    int64_t at = peer_at(p, origin);
    CHECK(at >= w->seen[p->index][k]);
    CHECK(at <= w->issued[k]);
    CHECK(at == 0 || w->group_end[k][at]);
    w->seen[p->index][k] = at;
    if (at)
      wanted = test_format("%si%lld|i%lld|i%lu\n", wanted, (long long)at, (long long)at,
                           (unsigned long)origin);
  }
  CHECK_INT(peer_at(p, p->id), w->issued[p->index]);
  char *seen = sql_dump(peer_sql(p), SQL);
  if (strcmp(seen, wanted) != 0) { /* both are sorted, but by text: compare as sets */
    CHECK_INT(strlen(seen), strlen(wanted));
    for (char *line = wanted; *line; line = strchr(line, '\n') + 1) {
      CHECK_CONTAINS(seen, test_format("%.*s\n", (int)strcspn(line, "\n"), line));
    }
  }
}

static void heal(world *w) {
  cluster *c = w->c;
  for (int i = 0; i < c->n_wires; i++) wire_cut(c, i);
  for (int i = 0; i < c->n_peers; i++) c->peers[i].clock_step_ms = 0;
  c->now_ms += 400000; /* beyond the furthest clock */
  for (int i = 0; i < c->n_peers; i++) {
    if (!c->peers[i].r) peer_start(&c->peers[i]);
  }
  bool mesh = rng_chance(&w->g, 30);
  for (int i = 1; i < c->n_peers; i++) {
    int to = (int)rng_below(&w->g, (uint32_t)i);
    for (int k = 0; k < i; k++) {
      if (mesh || k == to) wire_open(c, k, i);
    }
  }
  cluster_settle(c);
}

static void limits_for(world *w, peer *p) {
  static const size_t SLICES[] = {1, 40, 200, 0}, WINDOWS[] = {1, 100, 1000, 0},
                      EARLY[] = {1, 200, 2000, 0}, RINGS[] = {1, 300, 0};
  p->config.work_units = p->index % 2 ? 70 : 0;
  p->config.slice_bytes = SLICES[rng_below(&w->g, COUNT(SLICES))];
  p->config.window_bytes = WINDOWS[rng_below(&w->g, COUNT(WINDOWS))];
  p->config.early_bytes = EARLY[rng_below(&w->g, COUNT(EARLY))];
  p->config.ring_bytes = RINGS[rng_below(&w->g, COUNT(RINGS))];
}

static void run_seed(uint64_t seed) {
  world *w = test_alloc(sizeof *w);
  w->g.state = seed;
  w->trace = env_number("TRACE", 0) != 0;
  w->c = cluster_new();
  int n = 2 + (int)rng_below(&w->g, 4);
  for (int i = 0; i < n; i++) {
    peer *p = cluster_add(w->c);
    limits_for(w, p);
    peer_start(p);
    CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  }
  for (int i = 0; i < N_STEPS; i++) {
    peer *p = &w->c->peers[rng_below(&w->g, (uint32_t)n)];
    step(w, p);
    for (int k = 0; k < n; k++) {
      if (w->c->peers[k].r && (k == p->index || rng_chance(&w->g, 10)))
        check_peer(w, &w->c->peers[k]);
    }
    if (p->r && rng_chance(&w->g, 8)) model_check(&w->m, &TABLES[rng_below(&w->g, N_TABLES)], p);
  }
  heal(w);
  for (int t = 0; t < N_TABLES; t++) {
    cluster_same(w->c, TABLES[t].name);
    cluster_same(w->c, test_format("%s_patches", TABLES[t].name));
    model_check(&w->m, &TABLES[t], &w->c->peers[0]);
  }
  for (int i = 0; i < n; i++) {
    CHECK_INT(peer_at(&w->c->peers[0], w->c->peers[i].id), w->issued[i]);
    CHECK_TEXT(sql_text(peer_sql(&w->c->peers[i]), "PRAGMA integrity_check"), "ok");
  }
}

static void random_schedules_converge(void) {
  int64_t first = env_number("SEED", -1), n = first >= 0 ? 1 : env_number("SEEDS", 300);
  if (first < 0) first = 1;
  for (int64_t seed = first; seed < first + n; seed++) {
    test_note("SEED=%lld replays it", (long long)seed);
    run_seed((uint64_t)seed);
    test_release();
  }
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(random_schedules_converge)};
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

/* sim_world.c - see sim_world.h
 *
 * Parts: what is written; what must hold; the steps; healing; one seed. */
#include "sim_world.h"

#include <stdio.h>
#include <string.h>

#include "memvfs.h"
#include "model.h"

enum {
  N_TABLES = 3,
  MAX_ORIGINS = 96,
  MAX_SEQUENCE = 2048,
  FIRST_ID = 101,
  MAX_PEERS_OF_SEED = 14
};

const char *const TOPOLOGY_NAMES[N_TOPOLOGIES] = {"any",  "mesh", "hub",   "chain",
                                                  "ring", "hubs", "random"};

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
static const char DDL[] =
    "CREATE TABLE note(id INTEGER PRIMARY KEY, a TEXT, b INTEGER, c BLOB, deletedAt INTEGER);"
    "CREATE TABLE note_patches(" CLOCK
    "_nulls TEXT, id INTEGER, a TEXT, b INTEGER, c BLOB, deletedAt INTEGER);"
    "CREATE TABLE task(must TEXT NOT NULL, k TEXT NOT NULL, n INTEGER NOT NULL, v REAL DEFAULT 1.5,"
    " w TEXT NOT NULL DEFAULT 'x', deletedAt INTEGER, PRIMARY KEY(k, n)) WITHOUT ROWID;"
    "CREATE TABLE task_patches(" CLOCK
    "_nulls TEXT, must TEXT, k TEXT NOT NULL, n INTEGER NOT NULL, v REAL, w TEXT,"
    " deletedAt INTEGER);"
    "CREATE TABLE seed(id BLOB NOT NULL PRIMARY KEY, name TEXT, deletedAt INTEGER) STRICT;"
    "CREATE TABLE seed_patches(" CLOCK "id BLOB NOT NULL, name TEXT, deletedAt INTEGER) STRICT;";

static const model_column NOTE[] = {{"id", true, false, "n"},
                                    {"a", false, false, "n"},
                                    {"b", false, false, "n"},
                                    {"c", false, false, "n"},
                                    {"deletedAt", false, false, "n"}};
static const model_column TASK[] = {
    {"must", false, true, "n"}, {"k", true, true, "n"},
    {"n", true, true, "n"},     {"v", false, false, "r3ff8000000000000"},
    {"w", false, true, "t78"},  {"deletedAt", false, false, "n"}};
static const model_column SEED[] = {
    {"id", true, true, "n"}, {"name", false, false, "n"}, {"deletedAt", false, false, "n"}};
static const model_table TABLES[N_TABLES] = {
    {"note", COUNT(NOTE), NOTE}, {"task", COUNT(TASK), TASK}, {"seed", COUNT(SEED), SEED}};

typedef struct planned {
  int table;
  bool erase;
  cell *row;
} planned;

typedef struct group {
  planned rows[4];
  size_t n;
  int64_t last; /* its sequence */
} group;

/* Groups of one batch, whose commit is not yet known to have succeeded. */
typedef struct batch {
  uint32_t origin;
  group groups[3];
  size_t n;
} batch;

/* What is known of a peer, across its lives. */
typedef struct mind {
  int64_t seen[MAX_ORIGINS]; /* its vector, which never falls */
  int64_t clock_high;
  batch open;      /* in the batch that is open */
  batch uncertain; /* its commit failed, or the process was killed in it: a restart tells */
  bool wants_write;
  bool may_fork; /* its -replic may lag, so that a restored backup would not be noticed */
  replic_counters counters; /* of this life */
  int64_t backup_seen[MAX_ORIGINS], backup_high;
  bool has_backup;
} mind;

/* What this seed does, besides writing. */
typedef struct features {
  bool faults, kills, power, inside, partitions, stalls, clocks, far_clocks, restores, joins,
      leaves, compacts, swallows;
} features;

typedef struct world {
  sim *s;
  model m;
  world_report *report;
  features may;
  int topology;
  sim_quality quality;
  int64_t issued[MAX_ORIGINS];
  int64_t stamped[MAX_ORIGINS]; /* the last _patchedAt */
  bool group_end[MAX_ORIGINS][MAX_SEQUENCE];
  bool healing, has_lines;
} world;

static world *world_of(const sim_peer *p) {
  return p->sim->mind;
}

static mind *mind_of(const sim_peer *p) {
  return p->mind;
}

static int origin_index(uint32_t origin) {
  CHECK(origin >= FIRST_ID && origin < FIRST_ID + MAX_ORIGINS);
  return (int)(origin - FIRST_ID);
}

static bool disk_failed(const sim_peer *p) {
  return !p->sim->on_disk && memvfs_has_failed(p->disk);
}

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

/* Keys, and a random choice of the other columns unless it is a deletion. */
static cell *random_row(rng *g, int table, bool erase) {
  static const char *const COLUMNS[N_TABLES][5] = {
      {"id", "a", "b", "c", NULL}, {"k", "n", "must", "v", "w"}, {"id", "name", NULL}};
  static const char *const TYPES[N_TABLES] = {"itib", "titrt", "bt"};
  static const size_t N_KEYS[N_TABLES] = {1, 2, 1};
  cell *row = test_alloc(8 * sizeof *row);
  size_t n = 0;
  for (size_t i = 0; i < 5 && COLUMNS[table][i]; i++) {
    bool key = i < N_KEYS[table];
    if (!key && (erase || rng_chance(g, 40))) continue;
    replic_value value = random_value(g, TYPES[table][i]);
    if (key && TYPES[table][i] == 'i') value = v_int(rng_below(g, 2));
    if (key && TYPES[table][i] == 't') value = v_text(rng_chance(g, 50) ? "p" : "q");
    if (!key && table != 2 && rng_chance(g, 15)) value = v_null();
    row[n++] = (cell){COLUMNS[table][i], value};
  }
  if (!erase && table != 2 && rng_chance(g, 5)) row[n++] = (cell){"deletedAt", v_null()};
  return row;
}

/* One group of up to four rows, in the open batch. */
static void write_group(sim_peer *p) {
  sim *s = p->sim;
  batch *b = &mind_of(p)->open;
  if (b->n == COUNT(b->groups)) return;
  group *to = &b->groups[b->n];
  replic_change changes[4];
  to->n = 1 + rng_below(&s->g, 4);
  for (size_t i = 0; i < to->n; i++) {
    planned *plan = &to->rows[i];
    plan->table = (int)rng_below(&s->g, N_TABLES);
    plan->erase = rng_chance(&s->g, 12);
    plan->row = random_row(&s->g, plan->table, plan->erase);
    size_t width = row_width(plan->row);
    const char **columns = test_alloc(width * sizeof *columns);
    replic_value *values = test_alloc(width * sizeof *values);
    for (size_t k = 0; k < width; k++) {
      columns[k] = plan->row[k].column;
      values[k] = plan->row[k].value;
    }
    changes[i] = (replic_change){.kind = plan->erase ? REPLIC_DELETE : REPLIC_UPSERT,
                                 .table = TABLES[plan->table].name,
                                 .n_columns = width,
                                 .columns = columns,
                                 .n_rows = 1,
                                 .values = values};
  }
  /* some as a call that shares its savepoint, and some of those as one of them that is undone */
  int together = p->id % 3 == 0 && replic_together(p->r) == REPLIC_OK;
  int rc = replic_write(p->r, changes, to->n, &to->last);
  if (together && (rc != REPLIC_OK || b->n % 2)) {
    if (replic_apart(p->r, SQLITE_ERROR) == SQLITE_ERROR)
      rc = replic_write(p->r, changes, to->n, &to->last);
  } else if (together) {
    rc = replic_apart(p->r, REPLIC_OK);
  }
  sim_trace(s, "peer %d writes %zu rows up to %u.%lld: %s", p->index, to->n, (unsigned)p->id,
            (long long)to->last, rc ? replic_code_name(rc) : "OK");
  b->origin = p->id;
  if (rc == REPLIC_OK)
    b->n++;
  else if (rc != SQLITE_CONSTRAINT_NOTNULL && rc != REPLIC_ENOTFOUND && !disk_failed(p))
    CHECK_OK(p->r, rc);
}

/* The groups of a batch are committed, at this one stamp: the model learns them. */
static void note_batch(world *w, const batch *b, int64_t patched_at) {
  int origin = origin_index(b->origin);
  CHECK(patched_at >= w->stamped[origin]);
  w->stamped[origin] = patched_at;
  for (size_t i = 0; i < b->n; i++) {
    const group *g = &b->groups[i];
    for (size_t k = 0; k < g->n; k++) {
      cell *row = g->rows[k].row;
      if (g->rows[k].erase) row[row_width(row)] = (cell){"deletedAt", v_int(patched_at)};
      model_add(&w->m, &TABLES[g->rows[k].table], b->origin, ++w->issued[origin], patched_at, row);
    }
    CHECK_INT(w->issued[origin], g->last);
    CHECK(g->last < MAX_SEQUENCE);
    w->group_end[origin][g->last] = true;
    w->report->groups++;
  }
}

/* ---- what must hold ---- */

static const replic_position *vector_entry(const sim_peer *p, uint32_t origin) {
  const replic_position *vector = replic_vector(p->r);
  for (size_t i = 0, n = replic_vector_count(p->r); i < n; i++)
    if (vector[i].origin == origin) return &vector[i];
  return NULL;
}

/* No vector falls, none covers what was never issued, each stands between two groups. And the clock
 * goes on. */
static void check_vector(sim_peer *p) {
  world *w = world_of(p);
  mind *mine = mind_of(p);
  const replic_position *vector = replic_vector(p->r);
  size_t n = replic_vector_count(p->r);
  int64_t at[MAX_ORIGINS] = {0}, high = 0;
  for (size_t i = 0; i < n; i++) {
    int origin = origin_index(vector[i].origin);
    at[origin] = vector[i].sequence;
    if (vector[i].sequence > w->issued[origin])
      check_failed(__FILE__, __LINE__, "peer %d claims %u.%lld, and %lld were issued", p->index,
                   (unsigned)vector[i].origin, (long long)at[origin], (long long)w->issued[origin]);
    if (!w->group_end[origin][at[origin]])
      check_failed(__FILE__, __LINE__, "peer %d stands at %u.%lld, within a group", p->index,
                   (unsigned)vector[i].origin, (long long)at[origin]);
    if (vector[i].patched_at > high) high = vector[i].patched_at;
  }
  for (int i = 0; i < MAX_ORIGINS; i++) {
    if (at[i] < mine->seen[i])
      check_failed(__FILE__, __LINE__, "the vector of peer %d has fallen: %d is %lld, was %lld",
                   p->index, FIRST_ID + i, (long long)at[i], (long long)mine->seen[i]);
    mine->seen[i] = at[i];
  }
  CHECK(high >= mine->clock_high);
  mine->clock_high = high;
  int own = origin_index(p->id);
  if (at[own] != w->issued[own])
    check_failed(__FILE__, __LINE__,
                 "peer %d has issued %lld patches, and its own vector says %lld", p->index,
                 (long long)w->issued[own], (long long)at[own]);
}

static const char LOG[] = "SELECT _peerId, _sequenceId FROM note_patches UNION ALL "
                          "SELECT _peerId, _sequenceId FROM task_patches UNION ALL "
                          "SELECT _peerId, _sequenceId FROM seed_patches";

/* Up to where the log may have patches of an origin: a jump that is being merged is ahead of the
 * vector. */
static int64_t reach(sim_peer *p, int origin) {
  int64_t jump = sql_int(sim_sql(p), test_format("SELECT coalesce((SELECT sequence FROM "
                                                 "_replic_jump WHERE origin = %d), 0)",
                                                 FIRST_ID + origin));
  int64_t seen = mind_of(p)->seen[origin];
  return jump > seen ? jump : seen;
}

static bool is_ahead(sim_peer *p) {
  return sql_int(sim_sql(p), "SELECT count(*) FROM _replic_jump") > 0;
}

/* The file, as any other program reads it: the vector is that of the memory (I3), and the log is
 * complete up to it and has nothing beyond; what is missing, wins nothing. */
static void check_file(sim_peer *p) {
  world *w = world_of(p);
  sqlite3 *db = sim_sql(p);
  sqlite3_stmt *stmt = NULL;
  size_t n = replic_vector_count(p->r), n_disk = 0;
  const replic_position *vector = replic_vector(p->r);
  CHECK_INT(sqlite3_prepare_v2(db,
                               "SELECT origin, sequence FROM _replic_vector WHERE sequence > 0 "
                               "ORDER BY origin",
                               -1, &stmt, NULL),
            SQLITE_OK);
  bool same = true;
  while (sqlite3_step(stmt) == SQLITE_ROW && n_disk < n) {
    same = same && sqlite3_column_int64(stmt, 0) == vector[n_disk].origin &&
           sqlite3_column_int64(stmt, 1) == vector[n_disk].sequence;
    n_disk++;
  }
  sqlite3_finalize(stmt);
  if (!same || n_disk != n)
    check_failed(__FILE__, __LINE__, "the vector of peer %d is not the one on its disk", p->index);

  int64_t n_rows = 0;
  uint8_t(*has)[MAX_SEQUENCE] = test_alloc(MAX_ORIGINS * sizeof *has);
  bool ahead = is_ahead(p);
  w->report->looks_ahead += ahead;
  CHECK_INT(sqlite3_prepare_v2(db, LOG, -1, &stmt, NULL), SQLITE_OK);
  while (sqlite3_step(stmt) == SQLITE_ROW) {
    int origin = origin_index((uint32_t)sqlite3_column_int64(stmt, 0));
    int64_t sequence = sqlite3_column_int64(stmt, 1);
    if (sequence < 1 || sequence > (ahead ? reach(p, origin) : mind_of(p)->seen[origin])) {
      sqlite3_finalize(stmt);
      check_failed(__FILE__, __LINE__, "the log of peer %d has %d.%lld, beyond its vector",
                   p->index, FIRST_ID + origin, (long long)sequence);
    }
    has[origin][sequence] = 1;
    n_rows++;
  }
  CHECK_INT(sqlite3_finalize(stmt), SQLITE_OK);
  if (!ahead) CHECK_INT(n_rows, replic_log_rows(p->r));
  bool *wins = NULL;
  for (size_t i = 0; i < w->m.n; i++) {
    const model_patch *patch = &w->m.patches[i];
    int origin = origin_index(patch->origin);
    if (patch->sequence > mind_of(p)->seen[origin] || has[origin][patch->sequence]) continue;
    if (!wins) {
      wins = test_alloc(w->m.n * sizeof *wins);
      for (int t = 0; t < N_TABLES; t++) model_fold(&w->m, &TABLES[t], vector, n, wins);
    }
    if (!w->may.compacts || wins[i])
      check_failed(__FILE__, __LINE__, "the log of peer %d lacks %u.%lld%s", p->index,
                   (unsigned)patch->origin, (long long)patch->sequence,
                   wins[i] ? ", which wins a cell" : "");
  }
}

/* What is in the log, of all that was written. */
static model log_of(sim_peer *p) {
  const model *all = &world_of(p)->m;
  model in_log = *all;
  uint8_t(*has)[MAX_SEQUENCE] = test_alloc(MAX_ORIGINS * sizeof *has);
  sqlite3_stmt *stmt = NULL;
  CHECK_INT(sqlite3_prepare_v2(sim_sql(p), LOG, -1, &stmt, NULL), SQLITE_OK);
  while (sqlite3_step(stmt) == SQLITE_ROW)
    has[origin_index((uint32_t)sqlite3_column_int64(stmt, 0))][sqlite3_column_int64(stmt, 1)] = 1;
  CHECK_INT(sqlite3_finalize(stmt), SQLITE_OK);
  in_log.patches = test_alloc((all->n + 1) * sizeof *in_log.patches);
  in_log.n = 0;
  for (size_t i = 0; i < all->n; i++)
    if (has[origin_index(all->patches[i].origin)][all->patches[i].sequence])
      in_log.patches[in_log.n++] = all->patches[i];
  return in_log;
}

/* The fold of what the vector covers (I1); while a jump is being merged, of the log (I6). */
static void check_tables(sim_peer *p) {
  world *w = world_of(p);
  bool ahead = is_ahead(p);
  model in_log = ahead ? log_of(p) : w->m;
  size_t n = replic_vector_count(p->r);
  const replic_position *vector = ahead ? NULL : replic_vector(p->r);
  for (int t = 0; t < N_TABLES; t++) {
    char *seen = sql_dump(sim_sql(p), test_format("SELECT * FROM %s", TABLES[t].name));
    char *wanted = model_fold(&in_log, &TABLES[t], vector, n, NULL);
    if (strcmp(seen, wanted) != 0)
      check_failed(__FILE__, __LINE__, "%s of peer %d is\n%s# the model has\n%s", TABLES[t].name,
                   p->index, seen, wanted);
  }
}

/* ---- the hooks ---- */

static void on_committed(sim_peer *p, int rc) {
  world *w = world_of(p);
  mind *mine = mind_of(p);
  replic_counters counters;
  replic_get_counters(p->r, &counters);
  if (rc != REPLIC_OK) {
    w->report->failed_commits++;
    if (mine->open.n) mine->uncertain = mine->open;
  } else {
    if (mine->open.n) {
      note_batch(w, &mine->open, vector_entry(p, p->id)->patched_at);
      /* What a failed transaction has left in the WAL is overwritten. (Another one that counts as a
       * commit may have written nothing, as its only write was undone.) */
      mine->uncertain.n = 0;
    }
    check_vector(p);
  }
  mine->open.n = 0;
  mine->counters = counters;
}

/* Nothing that is sent covers what its sender has not committed (I4, I5). */
static void on_sent(sim_peer *p, uint32_t link, const uint8_t *frame, size_t len) {
  (void)link;
  const uint8_t *at = frame + 2, *end = frame + len;
  uint64_t n = 1;
  if (frame[1] == 1) { /* HELLO */
    for (int i = 0; i < 4; i++) sim_read_varint(&at, end);
    n = sim_read_varint(&at, end);
  } else if (frame[1] == 8) { /* JUMP */
    n = sim_read_varint(&at, end);
  } else if (frame[1] == 3) { /* ACK */
    for (int i = 0; i < 3; i++) sim_read_varint(&at, end);
    n = sim_read_varint(&at, end);
  } else if (frame[1] != 2) {
    return;
  }
  for (; n > 0; n--) {
    uint32_t origin = (uint32_t)sim_read_varint(&at, end);
    if (frame[1] == 2) sim_read_varint(&at, end); /* PATCHES: after */
    int64_t sequence = (int64_t)sim_read_varint(&at, end);
    for (int i = frame[1] == 1 ? 2 : frame[1] == 8 ? 3 : 0; i > 0; i--) sim_read_varint(&at, end);
    if (sequence > mind_of(p)->seen[origin_index(origin)])
      check_failed(__FILE__, __LINE__, "peer %d sends %u up to %lld, and has %lld", p->index,
                   (unsigned)origin, (long long)sequence,
                   (long long)mind_of(p)->seen[origin_index(origin)]);
  }
}

static void on_event(sim_peer *p, const replic_event *event) {
  world *w = world_of(p);
  if (event->kind == REPLIC_EVENT_ERROR && event->text && strstr(event->text, "-replic: "))
    mind_of(p)->may_fork = true;
  if (event->kind == REPLIC_EVENT_LINK_CLOSE) {
    w->report->timeouts += event->code == REPLIC_ETIMEOUT;
    bool expected = event->code == REPLIC_ETIMEOUT || event->code == REPLIC_EPEER;
    if (!expected)
      check_failed(__FILE__, __LINE__, "peer %d closes a link: %s", p->index,
                   event->text ? event->text : "");
  }
  if (event->kind == REPLIC_EVENT_LINK_ERROR && event->code == REPLIC_ECLOCKSKEW)
    w->report->skew_refusals++;
  if (event->kind == REPLIC_EVENT_LINK_ERROR && event->code == REPLIC_ETIMEOUT)
    w->report->carried++;
  if (event->kind == REPLIC_EVENT_LINK_ERROR && event->code == REPLIC_EQUOTA) w->report->quotas++;
  /* a clock that is off says so */
  if (event->kind == REPLIC_EVENT_ERROR && event->code < 0 && event->code != REPLIC_ECLOCKSKEW)
    check_failed(__FILE__, __LINE__, "peer %d reports %s: %s", p->index,
                 replic_code_name(event->code), event->text ? event->text : "");
}

static void on_batch(sim_peer *p) {
  mind *mine = mind_of(p);
  if (!mine->wants_write) return;
  mine->wants_write = false;
  write_group(p);
}

/* A life has ended: what its core has counted. */
static void bury(sim_peer *p) {
  world_report *to = world_of(p)->report;
  replic_counters *c = &mind_of(p)->counters;
  to->applied += c->patches_applied;
  to->early += c->frames_early;
  to->early_dropped += c->frames_dropped_early;
  to->retransmissions += c->retransmissions;
  to->rows_waiting += c->rows_waiting;
  to->relayed += c->patches_relayed;
  to->pruned += c->patches_pruned;
  to->staged += c->patches_staged;
  to->jumps += c->jumps;
  to->jumps_resumed += c->jumps_resumed;
  to->jumps_abandoned += c->jumps_abandoned;
  *c = (replic_counters){0};
  mind_of(p)->wants_write = false;
}

static void on_killed(sim_peer *p) {
  mind *mine = mind_of(p);
  if (mine->open.n) mine->uncertain = mine->open;
  mine->open.n = 0;
  world_of(p)->report->kills_inside++;
  bury(p);
}

/* ---- lives ---- */

static void stop(sim_peer *p, int how, bool silent) {
  world *w = world_of(p);
  w->report->kills += how == SIM_KILL;
  w->report->power_cuts += how == SIM_POWER_CUT;
  sim_stop(p, how, silent);
  bury(p);
}

static void start(sim_peer *p) {
  world *w = world_of(p);
  mind *mine = mind_of(p);
  int rc = sim_start(p);
  if (rc == REPLIC_ERESTORED && p->config.peer_id) {
    w->report->refused_opens++;
    p->config.peer_id = 0;
    rc = sim_start(p);
  }
  CHECK_INT(rc, REPLIC_OK);
  w->report->new_peers += replic_is_new_peer(p->r);
  w->report->starts_ahead += is_ahead(p);
  if (mine->uncertain.n) {
    const replic_position *entry = vector_entry(p, mine->uncertain.origin);
    if (entry && entry->sequence >= mine->uncertain.groups[mine->uncertain.n - 1].last) {
      w->report->revived++;
      note_batch(w, &mine->uncertain, entry->patched_at);
    }
    mine->uncertain.n = 0;
  }
  check_vector(p);
}

static sim_peer *add_peer(world *w) {
  static const size_t SLICES[] = {1, 40, 200, 0}, WINDOWS[] = {1, 100, 1000, 0},
                      EARLY[] = {1, 200, 2000, 0}, RINGS[] = {1, 300, 0};
  sim *s = w->s;
  sim_peer *p = sim_add(s);
  p->mind = test_alloc(sizeof(mind));
  p->config.slice_bytes = SLICES[rng_below(&s->g, COUNT(SLICES))];
  p->config.window_bytes = WINDOWS[rng_below(&s->g, COUNT(WINDOWS))];
  p->config.early_bytes = EARLY[rng_below(&s->g, COUNT(EARLY))];
  p->config.ring_bytes = RINGS[rng_below(&s->g, COUNT(RINGS))];
  static const int64_t UNITS[] = {0, 70, 1, 70};
  p->config.work_units = UNITS[s->n_peers % 4]; /* frames and jumps in parts, or whole */
  p->config.trace = s->trace && env_number("TRACE", 0) > 1;
  p->config.calls_checkpoint = s->next_id % 2;
  if (rng_chance(&s->g, 15)) p->config.peer_id = s->next_id; /* an application that gives its own */
  start(p);
  CHECK_OK(p->r, replic_migrate(p->r, sim_peer_now(p), 1, DDL, ""));
  sim_begin(p);
  sim_commit(p);
  return p;
}

static sim_peer *random_peer(world *w, bool up) {
  sim_peer *found[MAX_PEERS_OF_SEED];
  uint32_t n = 0;
  for (int i = 0; i < w->s->n_peers; i++) {
    sim_peer *p = w->s->peers[i];
    if (!p->gone && (p->r != NULL) == up) found[n++] = p;
  }
  return n ? found[rng_below(&w->s->g, n)] : NULL;
}

static int n_living(const world *w) {
  int n = 0;
  for (int i = 0; i < w->s->n_peers; i++) n += !w->s->peers[i]->gone;
  return n;
}

/* ---- topology ---- */

static sim_quality random_quality(world *w) {
  rng *g = &w->s->g;
  sim_quality q = {.delay_min_ms = rng_below(g, 20), .ordered = rng_chance(g, 40)};
  q.delay_max_ms = q.delay_min_ms + (rng_chance(g, 20) ? rng_below(g, 3000) : rng_below(g, 60));
  if (w->may.faults && rng_chance(g, 60)) q.loss = rng_below(g, 40);
  if (w->may.faults && rng_chance(g, 40)) q.duplication = rng_below(g, 30);
  return q;
}

static void connect_peers(world *w, int a, int b) {
  if (a != b) sim_connect(w->s, a, b, random_quality(w));
}

/* Adds the edges of peer i, whose predecessors have theirs. */
static void attach(world *w, int i) {
  rng *g = &w->s->g;
  int living[MAX_PEERS_OF_SEED], n = 0;
  for (int k = 0; k < i; k++)
    if (!w->s->peers[k]->gone) living[n++] = k;
  if (n == 0) return;
  switch (w->topology) {
  case TOPOLOGY_MESH:
    for (int k = 0; k < n; k++) connect_peers(w, living[k], i);
    break;
  case TOPOLOGY_HUB: connect_peers(w, living[0], i); break;
  case TOPOLOGY_CHAIN: connect_peers(w, living[n - 1], i); break;
  case TOPOLOGY_RING: /* the last one closes it */
    connect_peers(w, living[n - 1], i);
    if (n > 1 && rng_chance(g, 70)) connect_peers(w, living[0], i);
    break;
  case TOPOLOGY_HUBS:
    if (n < 3)
      for (int k = 0; k < n; k++) connect_peers(w, living[k], i);
    else
      connect_peers(w, living[rng_below(g, 3)], i);
    break;
  default:
    connect_peers(w, living[rng_below(g, (uint32_t)n)], i);
    while (rng_chance(g, 40)) connect_peers(w, living[rng_below(g, (uint32_t)n)], i);
    break;
  }
}

/* ---- the steps ---- */

/* One of its next changes of the disk will fail, or kill it. Not while one such commit is
 * uncertain: two would leave two possible histories. */
static void arm(sim_peer *p, uint32_t within) {
  rng *g = &p->sim->g;
  if (p->sim->on_disk || mind_of(p)->uncertain.n) return;
  memvfs_arm(p->disk, 1 + rng_below(g, within), rng_chance(g, 50));
}

static void step_write(world *w, sim_peer *p) {
  rng *g = &w->s->g;
  if (rng_chance(g, 25)) {
    mind_of(p)->wants_write = true;
    return;
  }
  if (w->may.inside && rng_chance(g, 15)) arm(p, 12);
  sim_begin(p);
  for (uint32_t n = 1 + rng_below(g, 3); n > 0; n--) write_group(p);
  uint32_t end = rng_below(g, 100);
  if (end < 8) {
    w->report->rollbacks++;
    sim_trace(w->s, "peer %d rolls back", p->index);
    mind_of(p)->open.n = 0;
    sim_rollback(p);
  } else if (end < 11 && w->may.kills) {
    mind_of(p)->open.n = 0; /* an open transaction leaves nothing */
    stop(p, SIM_KILL, false);
  } else {
    sim_commit(p);
  }
  if (p->r && !w->s->on_disk) memvfs_arm(p->disk, 0, false);
}

/* Another edge between the same two peers that swallows nothing; -1: none. */
static int sound_twin(const world *w, int edge) {
  const int *peers = w->s->edges[edge].peers;
  for (int e = 0; e < w->s->n_edges; e++) {
    const sim_edge *other = &w->s->edges[e];
    bool same = (other->peers[0] == peers[0] && other->peers[1] == peers[1]) ||
                (other->peers[0] == peers[1] && other->peers[1] == peers[0]);
    if (e != edge && same && !other->is_removed && !other->swallows[0] && !other->swallows[1])
      return e;
  }
  return -1;
}

static void swallow(world *w, int edge) {
  sim_edge *e = &w->s->edges[edge];
  for (int side = 0; side < 2; side++) {
    e->swallows[side] = (int)rng_below(&w->s->g, 3);
    sim_trace(w->s, "edge %d to side %d swallows %d", edge, side, e->swallows[side]);
  }
}

/* In the end only what has a sound twin swallows; it is as old as that, or older. */
static void heal_swallowing(world *w) {
  int n_edges = w->s->n_edges;
  for (int e = 0; e < n_edges; e++) {
    sim_edge *edge = &w->s->edges[e];
    edge->swallows[0] = edge->swallows[1] = 0;
    if (!w->may.swallows || edge->is_removed || rng_chance(&w->s->g, 60)) continue;
    if (sound_twin(w, e) < 0) connect_peers(w, edge->peers[0], edge->peers[1]);
    swallow(w, e);
  }
}

/* Bandwidths, of which these small rows soon fill some, and directions that bring nothing for a
 * while. */
static void step_line(world *w) {
  static const int64_t BYTES_PER_MS[] = {0, 0, 1, 3, 8, 64};
  sim *s = w->s;
  rng *g = &s->lines;
  if (!w->has_lines || !s->n_edges || !rng_chance(g, 15)) return;
  int e = (int)rng_below(g, (uint32_t)s->n_edges), side = (int)rng_below(g, 2);
  if (s->edges[e].is_removed) return;
  if (rng_chance(g, 50)) {
    sim_set_lines(s, e, BYTES_PER_MS[rng_below(g, COUNT(BYTES_PER_MS))],
                  BYTES_PER_MS[rng_below(g, COUNT(BYTES_PER_MS))]);
  } else {
    w->report->mutes += !s->edges[e].mute[side];
    sim_mute(s, e, side, !s->edges[e].mute[side]);
  }
}

static void step_edge(world *w) {
  rng *g = &w->s->g;
  if (!w->s->n_edges) return;
  int e = (int)rng_below(g, (uint32_t)w->s->n_edges);
  sim_edge *edge = &w->s->edges[e];
  if (edge->is_removed) return;
  switch (rng_below(g, w->may.swallows ? 4 : 3)) {
  case 0: sim_close_edge(w->s, e); break;
  case 3: swallow(w, e); break;
  case 1: edge->quality = random_quality(w); break;
  default: {
    int side = (int)rng_below(g, 2);
    if (!w->may.stalls && !edge->stalled[side]) break;
    w->report->stalls += !edge->stalled[side];
    sim_trace(w->s, "edge %d side %d %s", e, side, edge->stalled[side] ? "flows" : "stalls");
    sim_stall(w->s, e, side, !edge->stalled[side]);
    break;
  }
  }
}

static void step_partition(world *w) {
  rng *g = &w->s->g;
  bool in_a[MAX_PEERS_OF_SEED];
  if (rng_chance(g, 50)) {
    for (int e = 0; e < w->s->n_edges; e++)
      if (w->s->edges[e].cut) sim_cut(w->s, e, false);
    sim_trace(w->s, "no partition");
    return;
  }
  for (int i = 0; i < w->s->n_peers; i++) in_a[i] = rng_chance(g, 50);
  w->report->partitions++;
  sim_trace(w->s, "partition");
  for (int e = 0; e < w->s->n_edges; e++) {
    const int *peers = w->s->edges[e].peers;
    if (in_a[peers[0]] != in_a[peers[1]]) sim_cut(w->s, e, true);
  }
}

static void step_clock(world *w, sim_peer *p) {
  static const int64_t STEPS[] = {-100000, -5000, -1, 0, 0, 1, 700, 30000, 59000, 200000, 3600000};
  rng *g = &w->s->g;
  p->clock_offset_ms = STEPS[rng_below(g, COUNT(STEPS))];
  if (w->may.far_clocks && rng_chance(g, 10))
    p->clock_offset_ms = rng_chance(g, 50) ? 1893456000000 : -1700000000000 + 86400000;
  w->report->clock_steps++;
  sim_trace(w->s, "the clock of peer %d is off by %lld", p->index, (long long)p->clock_offset_ms);
}

static void step_end(world *w, sim_peer *p) {
  rng *g = &w->s->g;
  bool silent = rng_chance(g, 30);
  if (w->may.power && rng_chance(g, 50)) {
    mind_of(p)->may_fork = true;
    stop(p, SIM_POWER_CUT, silent);
  } else {
    stop(p, rng_chance(g, 70) ? SIM_KILL : SIM_CLOSE, silent);
  }
}

/* A snapshot of the files while the peer runs, or puts it back: with the -replic that is there,
 * which is newer, or without it, as if the file had come from elsewhere. */
/* By another program, or by the caller, on the connection that writes or beside it. */
static void step_checkpoint(sim_peer *p, int mode) {
  replic_checkpointer *c;
  int64_t bytes, moved;
  if (!p->config.calls_checkpoint) {
    sqlite3_wal_checkpoint_v2(sim_sql(p), "main", mode, NULL, NULL);
  } else if (mode % 2) {
    replic_checkpoint(p->r, mode / 2);
  } else {
    if (replic_checkpointer_open(p->config.path, &c) == REPLIC_OK)
      replic_checkpointer_run(c, &bytes, &moved);
    replic_checkpointer_close(c);
  }
  if (disk_failed(p)) stop(p, SIM_KILL, false);
}

static void step_backup(world *w, sim_peer *p) {
  static const char *const SUFFIXES[] = {"", "-wal"};
  mind *mine = mind_of(p);
  sim *s = w->s;
  if (!mine->has_backup) {
    if (mine->uncertain.n) return; /* the WAL may hold what will never have happened */
    for (size_t i = 0; i < COUNT(SUFFIXES); i++)
      sim_copy_file(s, sim_file(p, SUFFIXES[i]),
                    sim_file(p, test_format(".backup%s", SUFFIXES[i])));
    memcpy(mine->backup_seen, mine->seen, sizeof mine->seen);
    mine->backup_high = mine->clock_high;
    mine->has_backup = true;
    sim_trace(s, "peer %d is backed up", p->index);
    return;
  }
  bool moved = rng_chance(&s->g, 40);
  if (mine->may_fork && !moved) return;
  sim_trace(s, "peer %d is restored from its backup%s", p->index, moved ? ", as a moved file" : "");
  stop(p, rng_chance(&s->g, 50) ? SIM_KILL : SIM_CLOSE, false);
  for (size_t i = 0; i < COUNT(SUFFIXES); i++)
    sim_copy_file(s, sim_file(p, test_format(".backup%s", SUFFIXES[i])), sim_file(p, SUFFIXES[i]));
  if (moved) sim_remove_file(s, sim_file(p, "-replic"));
  memcpy(mine->seen, mine->backup_seen, sizeof mine->seen);
  mine->clock_high = mine->backup_high;
  mine->uncertain.n = 0;
  mine->has_backup = false;
  w->report->restored++;
  start(p);
}

static void step_compact(world *w, sim_peer *p) {
  static const int64_t AGES[] = {0, 0, 1, 100, 3000, 20000};
  rng *g = &w->s->g;
  replic_compaction out;
  int64_t older_than = sim_peer_now(p) - AGES[rng_below(g, COUNT(AGES))];
  sim_begin(p);
  int rc = replic_compact(p->r, older_than, 1 + rng_below(g, 60), &out);
  if (!disk_failed(p)) CHECK_OK(p->r, rc);
  sim_trace(w->s, "peer %d compacts: looks at %lld, removes %lld", p->index,
            (long long)out.examined, (long long)out.removed);
  w->report->compactions++;
  sim_commit(p);
}

static void step_leave(world *w, sim_peer *p) {
  sim *s = w->s;
  int neighbours[64], n = 0;
  if (n_living(w) <= 2) return;
  sim_trace(s, "peer %d leaves for ever", p->index);
  if (p->r) stop(p, SIM_KILL, rng_chance(&s->g, 50));
  p->gone = true;
  w->report->left++;
  for (int e = 0, n_edges = s->n_edges; e < n_edges; e++) {
    const int *peers = s->edges[e].peers;
    if (s->edges[e].is_removed || (peers[0] != p->index && peers[1] != p->index)) continue;
    if (n < (int)COUNT(neighbours)) neighbours[n++] = peers[peers[0] == p->index];
    sim_remove_edge(s, e);
  }
  for (int i = 1; i < n; i++) connect_peers(w, neighbours[i - 1], neighbours[i]);
}

static void step_join(world *w) {
  if (w->s->n_peers == MAX_PEERS_OF_SEED) return;
  w->report->joined++;
  attach(w, add_peer(w)->index);
}

/* One that merges a jump at present. */
static sim_peer *merging_peer(const world *w) {
  for (int i = 0; i < w->s->n_peers; i++)
    if (w->s->peers[i]->r && replic_has_work(w->s->peers[i]->r) == REPLIC_WORK_BESIDE)
      return w->s->peers[i];
  return NULL;
}

static void step(world *w) {
  rng *g = &w->s->g;
  sim_peer *down = random_peer(w, false), *p = random_peer(w, true);
  if (merging_peer(w) && rng_chance(g, 70)) p = merging_peer(w);
  if (down && (!p || rng_chance(g, 20))) {
    start(down);
    return;
  }
  if (!p) return;
  uint32_t what = rng_below(g, 100);
  if (what < 50) {
    step_write(w, p);
  } else if (what < 55) {
    if (w->may.compacts)
      step_compact(w, p);
    else
      step_write(w, p);
  } else if (what < 70) {
    step_edge(w);
  } else if (what < 75) {
    if (w->may.partitions) step_partition(w);
  } else if (what < 80) {
    if (w->may.clocks) step_clock(w, p);
  } else if (what < 85) {
    if (w->may.kills) step_end(w, p);
  } else if (what < 88) {
    if (w->may.inside) arm(p, 60);
  } else if (what < 91) {
    if (w->may.restores) step_backup(w, p);
  } else if (what < 93) {
    if (w->may.joins) step_join(w);
  } else if (what < 94) {
    if (w->may.leaves) step_leave(w, rng_chance(g, 30) && down ? down : p);
  } else {
    step_checkpoint(p, (int)rng_below(g, 4));
  }
}

/* ---- healing ---- */

static char *show_vector(const sim_peer *p) {
  char *text = "";
  const replic_position *vector = replic_vector(p->r);
  for (size_t i = 0, n = replic_vector_count(p->r); i < n; i++)
    if (vector[i].sequence > 0)
      text = test_format("%s %u:%lld", text, (unsigned)vector[i].origin,
                         (long long)vector[i].sequence);
  return text;
}

static bool is_settled(const world *w) {
  const char *first = NULL;
  for (int i = 0; i < w->s->n_peers; i++) {
    const sim_peer *p = w->s->peers[i];
    if (p->gone) continue;
    if (!p->r) return false;
    char *vector = show_vector(p);
    if (!first) first = vector;
    if (strcmp(first, vector) != 0) return false;
  }
  return true;
}

static void settle(world *w) {
  for (int beats = 0; beats < 400 && !is_settled(w); beats++)
    sim_run_until(w->s, w->s->now_ms + 1000);
  if (is_settled(w)) return;
  char *all = "";
  for (int i = 0; i < w->s->n_peers; i++)
    if (w->s->peers[i]->r)
      all = test_format("%s\n#   peer %d:%s", all, i, show_vector(w->s->peers[i]));
  check_failed(__FILE__, __LINE__, "the peers do not converge:%s", all);
}

/* When all that has been written is no longer ahead of the time. */
static int64_t latest_stamp(const world *w) {
  int64_t latest = w->s->now_ms;
  for (size_t i = 0; i < w->m.n; i++)
    if (w->m.patches[i].patched_at > latest) latest = w->m.patches[i].patched_at;
  return latest;
}

static void heal(world *w) {
  sim *s = w->s;
  w->healing = true;
  sim_trace(s, "everything heals");
  sim_lift_quotas(s);
  bool afresh = rng_chance(&s->g, 50) || latest_stamp(w) > s->now_ms + 60000;
  heal_swallowing(w);
  for (int e = 0; e < s->n_edges; e++) {
    sim_edge *edge = &s->edges[e];
    if (edge->is_removed) continue;
    if (w->has_lines) sim_set_lines(s, e, 0, 0);
    for (int side = 0; side < 2; side++) sim_mute(s, e, side, false);
    edge->quality = (sim_quality){.delay_min_ms = 1, .delay_max_ms = 20, .ordered = true};
    edge->last_arrival[0] = edge->last_arrival[1] = s->now_ms;
    if (edge->cut) sim_cut(s, e, false);
    sim_stall(s, e, 0, false);
    sim_stall(s, e, 1, false);
    if (afresh) sim_close_edge(s, e);
  }
  for (int i = 0; i < s->n_peers; i++) {
    sim_peer *p = s->peers[i];
    if (!s->on_disk) memvfs_arm(p->disk, 0, false);
    p->clock_offset_ms = 0;
    mind_of(p)->wants_write = false;
    if (!p->gone && !p->r) start(p);
  }
  sim_run_until(s, s->now_ms + 3000);
  /* the time that some clocks had shown too early; a restart may have brought back a failed commit
   */
  s->now_ms = latest_stamp(w);
  for (int e = 0; e < s->n_edges; e++)
    if (!s->edges[e].is_removed && !sim_is_linked(s, e)) sim_redial(s, e, 100);
  settle(w);
}

/* Nobody waits for anything. */
static void check_links(sim_peer *p) {
  replic_link_info info;
  for (size_t i = 0; replic_link_at(p->r, i, &info); i++) {
    if (info.state != REPLIC_LINK_READY) continue;
    CHECK_INT(info.lag, 0);
    CHECK_INT(info.behind, 0);
    CHECK(!info.held);
  }
}

static void check_end(world *w) {
  sim *s = w->s;
  char *first[N_TABLES] = {NULL};
  sim_run_until(s, s->now_ms + 15000); /* links that only one side still holds end, too */
  CHECK(is_settled(w));
  for (int i = 0; i < s->n_peers; i++) {
    sim_peer *p = s->peers[i];
    if (p->gone) continue;
    check_file(p);
    check_links(p);
    for (int t = 0; t < N_TABLES; t++) {
      char *dump = sql_dump(sim_sql(p), test_format("SELECT * FROM %s", TABLES[t].name));
      if (!first[t]) first[t] = dump;
      if (strcmp(first[t], dump) != 0)
        check_failed(__FILE__, __LINE__, "%s differs: one peer has\n%s# and peer %d has\n%s",
                     TABLES[t].name, first[t], i, dump);
    }
    if (i % 4 == 0) CHECK_TEXT(sql_text(sim_sql(p), "PRAGMA integrity_check"), "ok");
  }
  for (int i = 0; i < s->n_peers; i++) {
    if (s->peers[i]->gone) continue;
    check_tables(s->peers[i]);
    break;
  }
}

/* ---- one seed ---- */

static features draw_features(rng *g) {
  features may;
  bool *each = (bool *)&may;
  for (size_t i = 0; i < sizeof may / sizeof *each; i++) each[i] = rng_chance(g, 60);
  may.far_clocks = may.far_clocks && rng_chance(g, 30);
  return may;
}

static uint32_t random_pause(rng *g) {
  uint32_t kind = rng_below(g, 100);
  return kind < 55   ? rng_below(g, 30)
         : kind < 85 ? rng_below(g, 300)
         : kind < 97 ? rng_below(g, 3000)
                     : rng_below(g, 15000);
}

void world_run(const world_options *options, world_report *report) {
  world *w = test_alloc(sizeof *w);
  sim *s = w->s = sim_new(options->seed, options->on_disk);
  s->mind = w;
  s->trace = options->trace;
  s->hooks = (sim_hooks){on_batch, on_committed, on_sent, on_event, on_killed, NULL};
  w->report = report;
  w->may = draw_features(&s->g);
  sim_draw_quotas(s);
  w->has_lines = rng_chance(&s->lines, 25);
  w->topology = 1 + (int)rng_below(&s->g, N_TOPOLOGIES - 1);
  int n_peers = 2 + (int)rng_below(&s->g, 5), n_steps = 60 + (int)rng_below(&s->g, 140);
  if (options->topology) w->topology = options->topology;
  if (options->peers) n_peers = options->peers;
  if (options->steps) n_steps = options->steps;
  for (int i = 0; i < MAX_ORIGINS; i++) w->group_end[i][0] = true;
  for (int i = 0; i < n_peers; i++) attach(w, add_peer(w)->index);
  for (int i = 0; i < n_steps; i++) {
    step(w);
    step_line(w);
    sim_run_until(s, s->now_ms + random_pause(&s->g));
    sim_peer *p = merging_peer(w) ? merging_peer(w) : random_peer(w, true);
    if (p && rng_chance(&s->g, 25)) check_file(p);
    if (p && rng_chance(&s->g, 6)) check_tables(p);
  }
  heal(w);
  check_end(w);
  for (int i = 0; i < s->n_peers; i++)
    if (s->peers[i]->r) bury(s->peers[i]);
  report->frames += s->frames_sent;
  report->lost += s->frames_lost;
  report->swallowed += s->frames_swallowed;
  report->queued += s->frames_queued;
  report->trace_hash = s->trace_hash;
  sim_free(s);
}

void world_print(const world_report *report) {
#define X(name, text) printf("# %9lld %s\n", (long long)report->name, text);
  WORLD_COUNTERS(X)
#undef X
}

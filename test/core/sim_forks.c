/* sim_forks.c - a peer's database and its -replic are copied together, up to three times, copies
 * too; all go on under one peerId, and others hear of the one history or of another.
 *
 * Then somebody does what the error says: one file keeps the peerId, and every file with another
 * history is opened with a new one. Later, somebody may open a file with a new one for another
 * reason. Nothing that was written at any of them may be lost: each cell must be what the patch
 * with the greatest clock has set, by whomever it was written. This model knows no origins: where
 * two patches have one clock, either may have won, but everywhere the same.
 *
 * In half of the seeds retention is at work while histories differ. What it has pruned cannot be
 * compared, so that more is issued anew, and 1 ms later (docs/protocol.md). */
#include "sim_forks.h"

#include <stdio.h>
#include <string.h>

enum { N_ROWS = 10, N_COLUMNS = 3, MAX_WRITES = 8000, MAX_ROUNDS = 20, MAX_FILES = 4 };

static const char DDL[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c);"
    "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,"
    " _peerId INTEGER NOT NULL, id INTEGER, a, b, c);";
static const char *const COLUMNS[] = {"id", "a", "b", "c"};

typedef struct forks {
  sim *s;
  world_report *report;
  uint32_t origin;   /* whose file was copied */
  bool prunes;       /* also while histories differ */
  int64_t n_written; /* the value of each cell is its number */
  int64_t stamp[MAX_WRITES];
  int row[MAX_WRITES], column[MAX_WRITES];
} forks;

static void on_event(sim_peer *p, const replic_event *event) {
  forks *f = p->sim->mind;
  if (event->kind == REPLIC_EVENT_LINK_CLOSE) {
    f->report->forks_refused += event->code == REPLIC_EFORK;
    if (event->code != REPLIC_EFORK && event->code != REPLIC_EPEER &&
        event->code != REPLIC_ETIMEOUT)
      check_failed(__FILE__, __LINE__, "peer %d closes a link: %s", p->index, event->text);
  }
  if (event->kind == REPLIC_EVENT_ERROR)
    check_failed(__FILE__, __LINE__, "peer %d reports: %s", p->index, event->text);
}

static sim_quality any_quality(rng *g) {
  uint32_t delay = rng_below(g, 50);
  return (sim_quality){.delay_min_ms = delay,
                       .delay_max_ms = delay + rng_below(g, 100),
                       .loss = rng_chance(g, 30) ? rng_below(g, 20) : 0,
                       .ordered = rng_chance(g, 60)};
}

static void start(sim_peer *p) {
  forks *f = p->sim->mind;
  replic_counters counters;
  CHECK_INT(sim_start(p), REPLIC_OK);
  replic_get_counters(p->r, &counters);
  f->report->forks_healed += counters.forks_healed;
}

static sim_peer *add(forks *f) {
  sim *s = f->s;
  sim_peer *p = sim_add(s);
  start(p);
  CHECK_OK(p->r, replic_migrate(p->r, sim_peer_now(p), 1, DDL, ""));
  if (p->index > 0)
    sim_connect(s, (int)rng_below(&s->g, (uint32_t)p->index), p->index, any_quality(&s->g));
  while (p->index > 1 && rng_chance(&s->g, 40))
    sim_connect(s, (int)rng_below(&s->g, (uint32_t)p->index), p->index, any_quality(&s->g));
  return p;
}

static void write(forks *f, sim_peer *p) {
  rng *g = &f->s->g;
  const char *columns[1 + N_COLUMNS] = {COLUMNS[0]};
  replic_value values[1 + N_COLUMNS] = {v_int(rng_below(g, N_ROWS))};
  size_t n = 1;
  int64_t first = f->n_written, sequence;
  CHECK(f->n_written + N_COLUMNS <= MAX_WRITES);
  for (int i = 1; i <= N_COLUMNS; i++) {
    if (rng_chance(g, 50)) continue;
    f->row[f->n_written] = (int)values[0].i;
    f->column[f->n_written] = i;
    columns[n] = COLUMNS[i];
    values[n++] = v_int(f->n_written++);
  }
  const replic_change change = {REPLIC_UPSERT, "t", n, columns, 1, values};
  sim_begin(p);
  CHECK_OK(p->r, replic_write(p->r, &change, 1, &sequence));
  CHECK_INT(sim_commit(p), REPLIC_OK);
  const replic_position *vector = replic_vector(p->r);
  while (vector->origin != p->id) vector++;
  for (int64_t i = first; i < f->n_written; i++) f->stamp[i] = vector->patched_at;
  f->report->groups++;
}

static void live(forks *f, int n_steps, bool prunes) {
  sim *s = f->s;
  for (int i = 0; i < n_steps; i++) {
    sim_peer *p = s->peers[rng_below(&s->g, (uint32_t)s->n_peers)];
    if (prunes && rng_chance(&s->g, 10)) {
      replic_compaction out;
      sim_begin(p);
      CHECK_OK(p->r, replic_compact(p->r, sim_peer_now(p) - rng_below(&s->g, 3000), 100, &out));
      sim_commit(p);
    } else if (rng_chance(&s->g, 15) && s->n_edges > 0) {
      sim_close_edge(s, (int)rng_below(&s->g, (uint32_t)s->n_edges));
    } else {
      write(f, p);
    }
    sim_run_until(s, s->now_ms + 1 + rng_below(&s->g, rng_chance(&s->g, 80) ? 100 : 3000));
  }
}

/* The files of a peer, in a second place. */
static sim_peer *copy_peer(forks *f, sim_peer *p) {
  static const char *const SUFFIXES[] = {"", "-wal", "-replic"};
  sim *s = f->s;
  sim_stop(p, rng_chance(&s->g, 50) ? SIM_CLOSE : SIM_KILL, false);
  sim_peer *copy = sim_add(s);
  for (size_t i = 0; i < COUNT(SUFFIXES); i++)
    sim_copy_file(s, sim_file(p, SUFFIXES[i]), sim_file(copy, SUFFIXES[i]));
  start(p);
  start(copy);
  CHECK_INT(copy->id, p->id);
  for (int links = 1 + (int)rng_below(&s->g, 2); links > 0; links--)
    sim_connect(s, (int)rng_below(&s->g, (uint32_t)copy->index), copy->index, any_quality(&s->g));
  f->report->forks++;
  for (int i = (int)rng_below(&s->g, 4); i > 0; i--) { /* in the same milliseconds */
    write(f, p);
    write(f, copy);
  }
  return copy;
}

/* Has it another history of the origin than the one that is kept, or refuses it that one? */
static bool differs(const forks *f, sim_peer *kept, sim_peer *p) {
  unsigned origin = (unsigned)f->origin;
  if (p == kept) return false;
  if (kept->id == f->origin &&
      (p->id == f->origin || sim_at(p, f->origin) > sim_at(kept, f->origin)))
    return true;
  sqlite3 *db = sim_sql(kept);
  sql_exec(db, test_format("ATTACH '%s' AS other", p->path));
  int64_t most = sim_at(p, f->origin), here = sim_at(kept, f->origin);
  if (most > here) most = here;
  bool found =
      sql_int(db,
              test_format("WITH a AS (SELECT sequence, epoch FROM _replic_epochs WHERE origin = "
                          "%u), b AS (SELECT sequence, epoch FROM other._replic_epochs WHERE "
                          "origin = %u), c AS (SELECT * FROM (SELECT * FROM a EXCEPT SELECT * "
                          "FROM b) UNION ALL SELECT * FROM (SELECT * FROM b EXCEPT SELECT * "
                          "FROM a)) SELECT count(*) FROM c WHERE sequence <= %lld",
                          origin, origin, (long long)most)) > 0;
  found |= sql_int(db, test_format("SELECT count(*) FROM other._replic_dropped d JOIN "
                                   "_replic_vector v USING (origin) WHERE origin = %u AND "
                                   "d.sequence <= v.sequence AND d.sequence > (SELECT sequence "
                                   "FROM other._replic_vector o WHERE o.origin = d.origin) AND "
                                   "d.epoch = (SELECT epoch FROM "
                                   "_replic_epochs e WHERE e.origin = d.origin AND e.sequence <= "
                                   "d.sequence ORDER BY e.sequence DESC LIMIT 1)",
                                   origin)) > 0;
  sql_exec(db, "DETACH other");
  return found;
}

static bool is_settled(const sim *s) {
  const sim_peer *first = s->peers[0];
  for (int i = 1; i < s->n_peers; i++) {
    const replic_position *vector = replic_vector(first->r);
    for (size_t k = 0; k < replic_vector_count(first->r); k++)
      if (sim_at(s->peers[i], vector[k].origin) != vector[k].sequence) return false;
    vector = replic_vector(s->peers[i]->r);
    for (size_t k = 0; k < replic_vector_count(s->peers[i]->r); k++)
      if (sim_at(first, vector[k].origin) != vector[k].sequence) return false;
  }
  return true;
}

static void open_anew(forks *f, sim_peer *p) {
  p->config.peer_id = f->s->next_id;
  start(p);
}

/* The peers with another history are closed, and opened one at a time, each under a new peerId:
 * one that has been refused before issues anew what it holds, one that has not is refused now, and
 * comes back in the next round. */
static int heal_once(forks *f, sim_peer *kept) {
  sim *s = f->s;
  int n = 0;
  for (int i = 0; i < s->n_peers; i++)
    if (s->peers[i]->r && differs(f, kept, s->peers[i])) sim_stop(s->peers[i], SIM_CLOSE, false);
  for (int i = 0; i < s->n_peers; i++) {
    sim_peer *p = s->peers[i];
    if (p->r) continue;
    open_anew(f, p);
    sim_run_until(s, s->now_ms + 15000);
    if (!differs(f, kept, p)) continue;
    sim_stop(p, SIM_CLOSE, false);
    n++;
  }
  return n;
}

static void heal(forks *f, sim_peer *kept) {
  sim *s = f->s;
  int n = 1;
  for (int e = 0; e < s->n_edges; e++)
    s->edges[e].quality = (sim_quality){.delay_min_ms = 1, .delay_max_ms = 20, .ordered = true};
  sim_run_until(s, s->now_ms + 20000);
  for (int round = 0; round < MAX_ROUNDS && n > 0; round++) n = heal_once(f, kept);
  CHECK_INT(n, 0);
}

/* What is noted there may be of the fork that has been settled. */
static void open_for_another_reason(forks *f) {
  sim *s = f->s;
  uint32_t n = (uint32_t)s->n_peers, i = rng_below(&s->g, n);
  sim_stop(s->peers[i], SIM_CLOSE, false);
  open_anew(f, s->peers[i]);
  live(f, (int)rng_below(&s->g, 10), f->prunes);
  heal(f, s->peers[(i + 1 + rng_below(&s->g, n - 1)) % n]);
}

static void check_end(forks *f) {
  sim *s = f->s;
  for (int i = 0; i < 100 && !is_settled(s); i++) sim_run_until(s, s->now_ms + 1000);
  CHECK(is_settled(s));
  char *first = sql_dump(sim_sql(s->peers[0]), "SELECT * FROM t");
  for (int i = 1; i < s->n_peers; i++)
    CHECK_TEXT(sql_dump(sim_sql(s->peers[i]), "SELECT * FROM t"), first);
  int64_t newest[N_ROWS][1 + N_COLUMNS] = {{0}};
  for (int64_t i = 0; i < f->n_written; i++)
    if (f->stamp[i] > newest[f->row[i]][f->column[i]])
      newest[f->row[i]][f->column[i]] = f->stamp[i];
  for (int row = 0; row < N_ROWS; row++)
    for (int i = 1; i <= N_COLUMNS; i++) {
      if (!newest[row][i]) continue;
      int64_t value =
          sql_int(sim_sql(s->peers[0]),
                  test_format("SELECT coalesce(%s, -1) FROM t WHERE id = %d", COLUMNS[i], row));
      CHECK(value >= 0 && value < f->n_written);
      if (f->row[value] != row || f->column[value] != i || f->stamp[value] > newest[row][i] ||
          f->stamp[value] < newest[row][i] - f->prunes)
        check_failed(__FILE__, __LINE__,
                     "%s of row %d is write %lld, stamped %lld, and one was stamped %lld",
                     COLUMNS[i], row, (long long)value, (long long)f->stamp[value],
                     (long long)newest[row][i]);
    }
}

void forks_run(uint64_t seed, bool trace, world_report *report) {
  forks *f = test_alloc(sizeof *f);
  sim *s = f->s = sim_new(seed, false);
  s->mind = f;
  s->trace = trace;
  s->hooks = (sim_hooks){.event = on_event};
  f->report = report;
  f->prunes = rng_chance(&s->g, 50);
  for (int n = 2 + (int)rng_below(&s->g, 4); n > 0; n--) add(f);
  live(f, (int)rng_below(&s->g, 30), true);
  sim_peer *files[MAX_FILES] = {s->peers[rng_below(&s->g, (uint32_t)s->n_peers)]};
  uint32_t n_files = 1;
  f->origin = files[0]->id;
  do {
    sim_peer *copy = copy_peer(f, files[rng_below(&s->g, n_files)]);
    files[n_files++] = copy;
    live(f, (int)rng_below(&s->g, 60), f->prunes);
  } while (n_files < MAX_FILES && rng_chance(&s->g, 40));
  heal(f, files[rng_below(&s->g, n_files)]);
  if (rng_chance(&s->g, 40)) open_for_another_reason(f);
  live(f, (int)rng_below(&s->g, 30), true);
  check_end(f);
  report->trace_hash = s->trace_hash;
  sim_free(s);
}

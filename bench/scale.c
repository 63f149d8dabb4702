/* scale.c - how replication grows with the number of peers: npm run bench:scale [-- [scale|churn]
 * PEERS…]
 *
 * Simulated clusters (test/core/sim.h) on a network that needs 10 ms for each frame and loses
 * nothing. Each peer has written one row before the links come up. Then:
 *
 *   join    all learn of all: peers x peers patches. Time, and CPU per patch applied
 *   patch   one peer writes one row: until the last peer has it, in round trips of 20 ms; frames
 * and bytes per receiving peer, acknowledgements included rest    nothing is written: what
 * heartbeats (every second) cost, in all and at the busiest peer memory  of SQLite and core, per
 * peer, and of the busiest peer's links
 *
 * Then a hub of which one leaf goes each second, and comes again within two:
 *
 *   KB/s    over all links, while nobody writes
 *   upsert  at the hub, ten a second: until its batch has ended. What comes while the hub computes
 * waits, and how long that takes is measured
 *
 * CPU times are of this machine; all else is the same on every machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "memvfs.h"
#include "sim.h"

enum { DELAY_MS = 10, ROUNDS = 20, REST_S = 10 };

static const char DDL[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, deletedAt INTEGER);"
    "CREATE TABLE t_patches(_patchedAt INTEGER, _sequenceId INTEGER, _peerId INTEGER, id INTEGER,"
    " v TEXT, deletedAt INTEGER);";

static int sizes[8];
static int n_sizes;

/* Positions that were reached, each once: a peer at the last sequence of an origin. */
static int64_t n_reached, last_reached_ms;

static void on_event(sim_peer *p, const replic_event *event) {
  if (event->kind != REPLIC_EVENT_VECTOR || event->origin == p->id) return;
  n_reached++;
  last_reached_ms = p->sim->now_ms;
}

static void write_row(sim_peer *p, int64_t id) {
  static const char *const COLUMNS[] = {"id", "v"};
  const replic_value values[] = {v_int(id), v_text("twenty bytes of text")};
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, 1, values};
  int64_t sequence;
  sim_begin(p);
  CHECK_OK(p->r, replic_write(p->r, &change, 1, &sequence));
  sim_commit(p);
}

static void connect_peers(sim *s, int a, int b) {
  sim_connect(s, a, b, (sim_quality){DELAY_MS, DELAY_MS, 0, 0, true});
}

/* The number of links of the busiest peer. */
static int build(sim *s, const char *topology, int n) {
  int degree[1001] = {0}, most = 0, hubs = n < 30 ? 3 : 10;
  for (int i = 1; i < n; i++) {
    int to = 0;
    if (!strcmp(topology, "random")) to = (int)rng_below(&s->g, (uint32_t)i);
    if (!strcmp(topology, "hubs")) to = i % hubs;
    if (strcmp(topology, "hubs") != 0 || i >= hubs) {
      connect_peers(s, to, i);
      degree[to]++, degree[i]++;
    }
    for (int k = 0; !strcmp(topology, "hubs") && i < hubs && k < i; k++) {
      connect_peers(s, k, i);
      degree[k]++, degree[i]++;
    }
    if (strcmp(topology, "random") != 0 || i < 3) continue;
    to = (int)rng_below(&s->g, (uint32_t)i); /* four links per peer, on average */
    connect_peers(s, to, i);
    degree[to]++, degree[i]++;
  }
  for (int i = 0; i < n; i++)
    if (degree[i] > most) most = degree[i];
  return most;
}

static double cpu_s(void) {
  return (double)clock() / CLOCKS_PER_SEC;
}

static void run_until_reached(sim *s, int64_t wanted) {
  for (int64_t limit = s->now_ms + 600000; n_reached < wanted && s->now_ms < limit;)
    sim_run_until(s, s->now_ms + 1);
  CHECK_INT(n_reached, wanted);
}

static void measure(const char *topology, int n) {
  int64_t memory = sqlite3_memory_used();
  sim *s = sim_new((uint64_t)n, false);
  s->hooks.event = on_event;
  memvfs_keep_synced(false);
  for (int i = 0; i < n; i++) {
    sim_peer *p = sim_add(s);
    CHECK_INT(sim_start(p), REPLIC_OK);
    CHECK_OK(p->r, replic_migrate(p->r, sim_peer_now(p), 1, DDL, ""));
    write_row(p, i);
  }
  int most = build(s, topology, n);
  n_reached = 0;
  double cpu = cpu_s();
  int64_t start = s->now_ms;
  run_until_reached(s, (int64_t)n * (n - 1));
  cpu = cpu_s() - cpu;
  printf("%-7s %5d %6d | %7.1f %8.1f |", topology, n, most,
         (double)(last_reached_ms - start) / 1000, cpu * 1e6 / n / (n - 1));

  sim_run_until(s, s->now_ms + 5000);
  int64_t frames = 0, bytes = 0, patches = 0, time = 0, worst = 0;
  for (int i = 0; i < ROUNDS; i++) {
    sim_run_until(s, s->now_ms + 2000);
    /* at the same time nothing beats: what is counted belongs to the patch */
    int64_t frames_0 = s->frames_sent, bytes_0 = s->bytes_sent, patches_0 = s->patches_sent;
    n_reached = 0;
    start = s->now_ms;
    write_row(s->peers[rng_below(&s->g, (uint32_t)n)], 1000000 + i);
    run_until_reached(s, n - 1);
    int64_t took = last_reached_ms - start;
    time += took;
    if (took > worst) worst = took;
    frames += s->frames_sent - frames_0;
    bytes += s->bytes_sent - bytes_0;
    patches += s->patches_sent - patches_0;
  }
  double receivers = (double)ROUNDS * (n - 1);
  printf(" %5.1f %5.1f %6.2f %6.2f %6.0f |", (double)time / ROUNDS / (2 * DELAY_MS),
         (double)worst / (2 * DELAY_MS), (double)patches / receivers, (double)frames / receivers,
         (double)bytes / receivers);

  sim_run_until(s, s->now_ms + 5000);
  frames = s->frames_sent;
  bytes = s->bytes_sent;
  cpu = cpu_s();
  sim_run_until(s, s->now_ms + REST_S * 1000);
  cpu = cpu_s() - cpu;
  double beats = (double)REST_S * n;
  printf(" %6.1f %7.0f %7.1f |", (double)(s->frames_sent - frames) / beats,
         (double)(s->bytes_sent - bytes) / beats, cpu * 1e6 / beats);
  printf(" %6.0f\n", (double)(sqlite3_memory_used() - memory) / 1024 / n);
  sim_free(s);
  memvfs_keep_synced(true);
}

/* ---- a hub whose leaves come and go ---- */

enum { WRITTEN_MAX = 300 }; /* leaves that have all rows: 20 MB each */
enum { CHURN_S = 30, UPSERT_MS = 100, CHURN_UPSERTS = CHURN_S * 1000 / UPSERT_MS };

/* The hub does one batch after the other: what comes while it is busy waits. */
static struct {
  const sim_peer *hub;
  double began, free_at; /* s of processor time; ms of the simulation's */
} work;

static void on_begin(sim_peer *p) {
  if (p == work.hub) work.began = cpu_s();
}

static void on_committed(sim_peer *p, int rc) {
  (void)rc;
  if (p != work.hub) return;
  double now = (double)p->sim->now_ms, took = (cpu_s() - work.began) * 1000;
  work.free_at = (work.free_at > now ? work.free_at : now) + took;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void make_hub(sim *s, int n, bool have_written) {
  for (int i = 0; i <= n; i++) {
    sim_peer *p = sim_add(s);
    CHECK_INT(sim_start(p), REPLIC_OK);
    CHECK_OK(p->r, replic_migrate(p->r, sim_peer_now(p), 1, DDL, ""));
    if (!i || have_written) write_row(p, i);
    if (i) connect_peers(s, 0, i);
  }
  n_reached = 0;
  run_until_reached(s, have_written ? (int64_t)n * (n + 1) : n);
  sim_run_until(s, s->now_ms + 5000);
}

/* Bytes per second over all links, while one leaf at random goes each second and nobody writes. */
static double churn_bytes(sim *s, int n) {
  int64_t bytes = s->bytes_sent;
  for (int i = 0; i < CHURN_S; i++) {
    sim_close_edge(s, (int)rng_below(&s->g, (uint32_t)n));
    sim_run_until(s, s->now_ms + 1000);
  }
  return (double)(s->bytes_sent - bytes) / CHURN_S;
}

/* How long upserts at the hub take meanwhile, in ms, in ascending order. */
static void churn_upserts(sim *s, int n, double took[CHURN_UPSERTS]) {
  for (int i = 0; i < CHURN_UPSERTS; i++) {
    int64_t next = s->now_ms + UPSERT_MS, at = s->now_ms + rng_below(&s->g, UPSERT_MS);
    if (i % (1000 / UPSERT_MS) == 0) sim_close_edge(s, (int)rng_below(&s->g, (uint32_t)n));
    sim_run_until(s, at);
    write_row(s->peers[0], 1000000 + i);
    took[i] = work.free_at - (double)at;
    sim_run_until(s, next);
  }
  qsort(took, CHURN_UPSERTS, sizeof *took, by_size);
}

/* A hub with n leaves: each second one goes, and comes again within two. */
static void churn(int n, bool have_written) {
  static double took[CHURN_UPSERTS];
  sim *s = sim_new((uint64_t)n, false);
  s->hooks = (sim_hooks){.event = on_event, .begins = on_begin, .committed = on_committed};
  memvfs_keep_synced(false);
  make_hub(s, n, have_written);
  work.hub = s->peers[0];
  work.free_at = 0;
  double bytes = churn_bytes(s, n);
  churn_upserts(s, n, took);
  printf("%5d leaves%-15s | %6.1f | %10.1f %5.1f %6.1f\n", n, have_written ? ", all writers" : "",
         bytes / 1000, took[CHURN_UPSERTS / 2], took[CHURN_UPSERTS * 99 / 100],
         took[CHURN_UPSERTS - 1]);
  sim_free(s);
  memvfs_keep_synced(true);
}

static void churns(void) {
  printf("\nhub, a leaf goes each second |   KB/s | upsert p50   p99    max ms\n");
  for (int i = 0; i < n_sizes; i++) {
    churn(sizes[i], false);
    if (sizes[i] <= WRITTEN_MAX) churn(sizes[i], true);
  }
}

static void scale(void) {
  static const char *const TOPOLOGIES[] = {"hubs", "hub", "random"};
  printf("                      |       join       |             one patch             |     rest, "
         "per "
         "peer      |\n"
         "topology peers  links |       s us/patch |   RTT worst  sends frames  bytes | frames "
         "bytes/s    us/s | KiB/peer\n");
  for (int i = 0; i < n_sizes; i++)
    for (size_t t = 0; t < COUNT(TOPOLOGIES); t++) measure(TOPOLOGIES[t], sizes[i]);
}

int main(int argc, char **argv) {
  static const test RUN[] = {TEST(scale), TEST(churns)};
  static const int DEFAULT[] = {10, 100, 1000};
  int names = argc > 1 && (argv[1][0] == 's' || argv[1][0] == 'c');
  for (int i = 1 + names; i < argc && n_sizes < 8; i++) {
    int n = atoi(argv[i]);
    if (n < 2 || n > 1000) return printf("numbers of peers, 2 to 1000, not \"%s\"\n", argv[i]), 2;
    sizes[n_sizes++] = n;
  }
  for (size_t i = 0; !n_sizes && i < COUNT(DEFAULT); i++) sizes[n_sizes++] = DEFAULT[i];
  return run_tests(1 + names, argv, RUN, COUNT(RUN));
}

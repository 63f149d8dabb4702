/* test_sim.c - the cluster simulator: thousands of seeds, each a whole cluster in trouble
 * (docs/simulator.md).
 *
 *   test_sim                         the tests; SEEDS=100 runs so many, FIRST=5000 begins there;
 *                                    fewer, and others, under ASan, which is slower
 *   test_sim --run [--seed N] …      npm run sim: one seed, or --seeds COUNT of them from it */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memvfs.h"
#include "sim_fair.h"
#include "sim_forks.h"
#include "sim_schemas.h"
#include "sim_world.h"

#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLOW 1
#endif
#endif
#ifdef SLOW
enum { FIRST_SEED = 1000001, N_SEEDS = 100, N_FORKS = 15, N_SCHEMAS = 15, N_FAIR = 10 };
#else
enum { FIRST_SEED = 1, N_SEEDS = 2000, N_FORKS = 400, N_SCHEMAS = 300, N_FAIR = 300 };
#endif

static world_options options; /* of the command line */
static int64_t n_seeds;
static bool only_forks, only_schemas, only_fair;
static world_report total;

static void run_seeds(world_options each, int64_t n) {
  char given[160] = "";
  if (each.peers) snprintf(given + strlen(given), 40, " --peers %d", each.peers);
  if (each.steps) snprintf(given + strlen(given), 40, " --steps %d", each.steps);
  if (each.topology)
    snprintf(given + strlen(given), 40, " --topology %s", TOPOLOGY_NAMES[each.topology]);
  if (each.on_disk) snprintf(given + strlen(given), 40, " --disk");
  for (int64_t i = 0; i < n; i++, each.seed++) {
    test_note("replay: npm run sim -- --seed %llu%s --trace", (unsigned long long)each.seed, given);
    world_run(&each, &total);
    test_release();
  }
}

static void clusters_converge(void) {
  run_seeds((world_options){.seed = (uint64_t)env_number("FIRST", FIRST_SEED)},
            env_number("SEEDS", N_SEEDS));
  world_print(&total);
}

static void clusters_on_disk_converge(void) {
  run_seeds((world_options){.seed = 1, .on_disk = true}, N_SEEDS / 100);
}

static void a_seed_has_one_trace(void) {
  world_report report = {0};
  for (uint64_t seed = 1; seed <= 10; seed++) {
    world_options each = {.seed = seed};
    world_run(&each, &report);
    uint64_t first = report.trace_hash;
    test_release();
    each.seed = seed + 1000; /* something else in between */
    world_run(&each, &report);
    CHECK(report.trace_hash != first);
    test_release();
    each.seed = seed;
    world_run(&each, &report);
    CHECK(report.trace_hash == first);
    test_release();
  }
}

static void run_forks(uint64_t seed, int64_t n, bool trace) {
  for (int64_t i = 0; i < n; i++, seed++) {
    test_note("replay: npm run sim -- --forks --seed %llu --trace", (unsigned long long)seed);
    forks_run(seed, trace, &total);
    test_release();
  }
}

static void forks_heal(void) {
  run_forks((uint64_t)env_number("FIRST", FIRST_SEED), env_number("SEEDS", N_FORKS), false);
}

static void run_schemas(uint64_t seed, int64_t n, bool trace) {
  for (int64_t i = 0; i < n; i++, seed++) {
    test_note("replay: npm run sim -- --schemas --seed %llu --trace", (unsigned long long)seed);
    schemas_run(seed, trace, &total);
    test_release();
  }
}

static void schemas_converge(void) {
  run_schemas((uint64_t)env_number("FIRST", FIRST_SEED), env_number("SEEDS", N_SCHEMAS), false);
}

static void run_fair(uint64_t seed, int64_t n, bool trace) {
  for (int64_t i = 0; i < n; i++, seed++) {
    test_note("replay: npm run sim -- --fair --seed %llu --trace", (unsigned long long)seed);
    fair_run(seed, trace, &total);
    test_release();
  }
}

static void nobody_waits(void) {
  run_fair((uint64_t)env_number("FIRST", FIRST_SEED), env_number("SEEDS", N_FAIR), false);
  printf("# the slowest row has taken %lld %% of its bound\n", (long long)total.served_most);
}

static void the_rare_paths_ran(void) {
#define X(name, text)                                                                              \
  if (total.name == 0) check_failed(__FILE__, __LINE__, "no %s in all these seeds", text);
  if (env_number("SEEDS", N_SEEDS) >= 500) {
    WORLD_COUNTERS(X)
  }
#undef X
}

static const char DDL[] = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
                          "CREATE TABLE t_patches(_patchedAt INTEGER, _sequenceId INTEGER,"
                          " _peerId INTEGER, id INTEGER, v);";

static sim_peer *start_peer(sim *s) {
  sim_peer *p = sim_add(s);
  CHECK_INT(sim_start(p), REPLIC_OK);
  CHECK_OK(p->r, replic_migrate(p->r, sim_peer_now(p), 1, DDL, ""));
  return p;
}

static void write_row(sim_peer *p, int64_t id, int64_t v) {
  static const char *const COLUMNS[] = {"id", "v"};
  const replic_value values[] = {v_int(id), v_int(v)};
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, 1, values};
  int64_t sequence;
  sim_begin(p);
  CHECK_OK(p->r, replic_write(p->r, &change, 1, &sequence));
}

/* A process is killed in a commit, between any two changes of the disk. What it shows when it has
 * started again, others may see: a power cut must not take it back (I4). */
static void what_a_kill_leaves_is_durable(void) {
  int64_t survived = 0;
  for (int change = 1; change <= 20; change++) {
    for (uint64_t seed = 1; seed <= 8; seed++) {
      sim *s = sim_new(seed, false);
      sim_peer *p = start_peer(s);
      write_row(p, 1, 1);
      CHECK_INT(sim_commit(p), REPLIC_OK);
      write_row(p, 2, 2);
      memvfs_arm(p->disk, change, true);
      replic_commit(p->r);
      sim_stop(p, SIM_KILL, false);
      CHECK_INT(sim_start(p), REPLIC_OK);
      int64_t shown = sim_at(p, p->id);
      CHECK(shown >= 1);
      survived += shown == 2;
      sim_stop(p, SIM_POWER_CUT, false);
      CHECK_INT(sim_start(p), REPLIC_OK);
      CHECK_INT(sim_at(p, p->id), shown);
      sim_free(s);
    }
  }
  CHECK(survived > 0);
}

/* Ten peers, each linked to each: nine transmissions would do for the nine that have not made the
 * patch. */
static void a_mesh_carries_each_patch_once(void) {
  enum { N = 10, ROUNDS = 100 };
  sim *s = sim_new(1, false);
  for (int i = 0; i < N; i++) {
    start_peer(s);
    for (int k = 0; k < i; k++) sim_connect(s, k, i, (sim_quality){5, 40, 0, 0, true});
  }
  sim_run_until(s, s->now_ms + 3000);
  s->patches_sent = 0;
  for (int i = 0; i < ROUNDS; i++) {
    sim_peer *p = s->peers[rng_below(&s->g, N)];
    write_row(p, rng_below(&s->g, 20), i);
    sim_commit(p);
    sim_run_until(s, s->now_ms + rng_below(&s->g, 200));
  }
  sim_run_until(s, s->now_ms + 10000);
  for (int i = 0; i < N; i++)
    CHECK_INT(sql_int(sim_sql(s->peers[i]), "SELECT count(*) FROM t_patches"), ROUNDS);
  printf("# %lld transmissions of %d patches to %d peers each\n", (long long)s->patches_sent,
         ROUNDS, N - 1);
  CHECK(10 * s->patches_sent <= 12 * ROUNDS * (N - 1));
  sim_free(s);
}

static void run(void) {
  if (only_forks)
    run_forks(options.seed, n_seeds, options.trace);
  else if (only_fair)
    run_fair(options.seed, n_seeds, options.trace);
  else if (only_schemas)
    run_schemas(options.seed, n_seeds, options.trace);
  else
    run_seeds(options, n_seeds);
  printf("# trace %016llx\n", (unsigned long long)total.trace_hash);
  world_print(&total);
}

static int usage(const char *what) {
  printf("%s\nnpm run sim -- [--seed N] [--seeds COUNT] [--peers 2..8] [--steps S] [--disk] "
         "[--trace]\n"
         "               [--topology mesh|hub|chain|ring|hubs|random] [--forks | --schemas | "
         "--fair]\n",
         what);
  return 2;
}

static int command_line(int argc, char **argv) {
  options.seed = 1;
  n_seeds = 1;
  for (int i = 2; i < argc; i++) {
    const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(name, "--disk")) {
      options.on_disk = true;
      continue;
    }
    if (!strcmp(name, "--forks")) {
      only_forks = true;
      continue;
    }
    if (!strcmp(name, "--schemas")) {
      only_schemas = true;
      continue;
    }
    if (!strcmp(name, "--fair")) {
      only_fair = true;
      continue;
    }
    if (!strcmp(name, "--trace")) {
      options.trace = true;
      continue;
    }
    char *end;
    long long number = strtoll(value, &end, 10);
    bool is_number = *value && !*end && number >= 0;
    i++;
    if (!strcmp(name, "--topology")) {
      while (options.topology < N_TOPOLOGIES &&
             strcmp(TOPOLOGY_NAMES[options.topology], value) != 0)
        options.topology++;
      if (options.topology == N_TOPOLOGIES) return usage("there is no such topology");
    } else if (!is_number) {
      return usage(test_format("%s: a number was expected, not \"%s\"", name, value));
    } else if (!strcmp(name, "--seed")) {
      options.seed = (uint64_t)number;
    } else if (!strcmp(name, "--seeds")) {
      n_seeds = number;
    } else if (!strcmp(name, "--peers") && number >= 2 && number <= 8) {
      options.peers = (int)number;
    } else if (!strcmp(name, "--steps")) {
      options.steps = (int)number;
    } else {
      return usage(test_format("%s %s: not known, or out of range", name, value));
    }
  }
  static const test RUN[] = {TEST(run)};
  return run_tests(1, argv, RUN, COUNT(RUN));
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(a_seed_has_one_trace),
                               TEST(what_a_kill_leaves_is_durable),
                               TEST(a_mesh_carries_each_patch_once),
                               TEST(clusters_converge),
                               TEST(forks_heal),
                               TEST(schemas_converge),
                               TEST(nobody_waits),
                               TEST(the_rare_paths_ran),
                               TEST(clusters_on_disk_converge)};
  int status = argc > 1 && !strcmp(argv[1], "--run") ? command_line(argc, argv)
                                                     : run_tests(argc, argv, TESTS, COUNT(TESTS));
  sim_free(NULL);
  return status;
}

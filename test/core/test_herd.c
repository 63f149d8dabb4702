/* test_herd.c - a hub that comes back, and everybody with it: backlogs, jumps and HELLOs of all at
 * the same time, in the simulator's time. */
#include "memvfs.h"
#include "sim.h"

static const char DDL[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, deletedAt INTEGER);"
    "CREATE TABLE t_patches(_patchedAt INTEGER, _sequenceId INTEGER, _peerId INTEGER, id INTEGER,"
    " v TEXT, deletedAt INTEGER);";

enum { LEAVES = 59, BACKLOG = 20 };

static void put(sim_peer *p, int64_t id) {
  static const char *const COLUMNS[] = {"id", "v"};
  const replic_value values[] = {v_int(id), v_text("twenty bytes of text")};
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, 1, values};
  int64_t sequence;
  sim_begin(p);
  CHECK_OK(p->r, replic_write(p->r, &change, 1, &sequence));
  sim_commit(p);
}

/* Each patch that was superseded goes from the log: who lacks it has to jump. */
static void prune(sim_peer *p) {
  replic_compaction done;
  sim_begin(p);
  CHECK_OK(p->r, replic_compact(p->r, sim_peer_now(p) + 1000, 10000, &done));
  sim_commit(p);
}

static bool all_have(const sim *s, uint32_t origin, int64_t sequence) {
  for (int i = 0; i < s->n_peers; i++)
    if (s->peers[i]->r && sim_at(s->peers[i], origin) < sequence) return false;
  return true;
}

static void wait_for_all(sim *s, uint32_t origin, int64_t sequence, int64_t most_ms) {
  int64_t began = s->now_ms;
  while (!all_have(s, origin, sequence)) {
    if (s->now_ms - began > most_ms)
      check_failed(__FILE__, __LINE__, "not everybody has %u.%lld after %lld ms", (unsigned)origin,
                   (long long)sequence, (long long)most_ms);
    sim_run_until(s, s->now_ms + 10);
  }
}

/* The hub is killed, all leaves write meanwhile, half of them the same row again and again, and
 * prune; when it is back, a row that is written then is everywhere within 5 s, and so is each
 * backlog; each one that is pruned takes a jump of the hub's, and so a heartbeat more. */
static void a_herd_is_served(void) {
  sim *s = sim_new(60, false);
  memvfs_keep_synced(false);
  for (int i = 0; i <= LEAVES; i++) {
    sim_peer *p = sim_add(s);
    CHECK_INT(sim_start(p), REPLIC_OK);
    CHECK_OK(p->r, replic_migrate(p->r, sim_peer_now(p), 1, DDL, ""));
    put(p, i);
    if (i) sim_connect(s, 0, i, (sim_quality){20, 40, 0, 0, true});
  }
  for (int i = 0; i <= LEAVES; i++) wait_for_all(s, s->peers[i]->id, 1, 20000);
  sim_stop(s->peers[0], SIM_KILL, false);
  for (int i = 1; i <= LEAVES; i++) {
    for (int k = 1; k <= BACKLOG; k++, s->now_ms++)
      put(s->peers[i], i % 2 ? 1000 * i + k : 1000 * i);
    prune(s->peers[i]);
  }
  sim_run_until(s, s->now_ms + 30000);
  CHECK_INT(sim_start(s->peers[0]), REPLIC_OK);
  int64_t back_ms = s->now_ms;
  sim_run_until(s, s->now_ms + 200);
  put(s->peers[LEAVES], 7);
  wait_for_all(s, s->peers[LEAVES]->id, BACKLOG + 2, 5000);
  test_note("a new row is everywhere after %lld ms", (long long)(s->now_ms - back_ms));
  for (int i = 1; i <= LEAVES; i += 2)
    wait_for_all(s, s->peers[i]->id, BACKLOG + 1, back_ms + 5000 - s->now_ms);
  for (int i = 2; i <= LEAVES; i += 2) /* the hub jumps over them one after the other */
    wait_for_all(s, s->peers[i]->id, BACKLOG + 1, back_ms + 5000 + LEAVES / 2 * 1000 - s->now_ms);
  test_note("all is everywhere after %lld ms", (long long)(s->now_ms - back_ms));
  sim_free(s);
  memvfs_keep_synced(true);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(a_herd_is_served)};
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

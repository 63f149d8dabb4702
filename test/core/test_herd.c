/* test_herd.c - a hub that comes back, and everybody with it: backlogs, jumps and HELLOs of all at
 * the same time, in the simulator's time. */
#include "memvfs.h"
#include "sim.h"

static const char DDL[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, deletedAt INTEGER);"
    "CREATE TABLE t_patches(_patchedAt INTEGER, _sequenceId INTEGER, _peerId INTEGER, id INTEGER,"
    " v TEXT, deletedAt INTEGER);";

enum { BACKLOG = 20, MOST_MS = 5000 };

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

/* `hubs` hubs, linked to each other, and `leaves` leaves, each with links to `links` of them; the
 * hubs come first. Each has written a row, which is everywhere. */
static sim *herd(int hubs, int leaves, int links) {
  sim *s = sim_new(60, false);
  const sim_quality line = {20, 40, 0, 0, true};
  memvfs_keep_synced(false);
  for (int i = 0; i < hubs + leaves; i++) {
    sim_peer *p = sim_add(s);
    CHECK_INT(sim_start(p), REPLIC_OK);
    CHECK_OK(p->r, replic_migrate(p->r, sim_peer_now(p), 1, DDL, ""));
    put(p, i);
    for (int k = 0; k < (i < hubs ? i : links); k++)
      sim_connect(s, i < hubs ? k : (i + k) % hubs, i, line);
  }
  for (int i = 0; i < s->n_peers; i++) wait_for_all(s, s->peers[i]->id, 1, 20000);
  return s;
}

/* Half of the leaves write the same row again and again, and prune. */
static void write_backlogs(sim *s, int hubs) {
  for (int i = hubs; i < s->n_peers; i++) {
    for (int k = 1; k <= BACKLOG; k++, s->now_ms++)
      put(s->peers[i], i % 2 ? 1000 * i + k : 1000 * i);
    prune(s->peers[i]);
  }
}

/* All hubs are killed, all leaves write meanwhile; when the hubs are back, a row that is written
 * then is everywhere within 5 s, and so is each backlog, also those that were pruned. */
static void comes_back(int hubs, int leaves, int links) {
  sim *s = herd(hubs, leaves, links);
  sim_peer *last = s->peers[s->n_peers - 1];
  for (int i = 0; i < hubs; i++) sim_stop(s->peers[i], SIM_KILL, false);
  write_backlogs(s, hubs);
  sim_run_until(s, s->now_ms + 30000);
  for (int i = 0; i < hubs; i++) CHECK_INT(sim_start(s->peers[i]), REPLIC_OK);
  int64_t back_ms = s->now_ms;
  sim_run_until(s, s->now_ms + 200);
  put(last, 7);
  wait_for_all(s, last->id, BACKLOG + 2, back_ms + MOST_MS - s->now_ms);
  test_note("a new row is everywhere after %lld ms", (long long)(s->now_ms - back_ms));
  for (int i = hubs; i < s->n_peers; i++)
    wait_for_all(s, s->peers[i]->id, BACKLOG + 1, back_ms + MOST_MS - s->now_ms);
  test_note("all is everywhere after %lld ms", (long long)(s->now_ms - back_ms));
  sim_free(s);
  memvfs_keep_synced(true);
}

static void a_herd_is_served(void) {
  comes_back(1, 59, 1);
}

static void so_is_one_of_several_hubs(void) {
  comes_back(2, 20, 2);
  comes_back(3, 20, 2);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(a_herd_is_served), TEST(so_is_one_of_several_hubs)};
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

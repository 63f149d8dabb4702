/* test_liar.c - one peer among honest ones speaks for others: it may link, and says of their
 * patches what is not so. What the honest ones have must be right in the end. (protocol.md,
 * Speaking for others) */
#include <string.h>

#include "core.h"
#include "frames.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls "   \
  "TEXT, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE t_patches(" CLOCK "id INTEGER, a, "  \
  "b);"

enum { LIAR = 900, HUB = 101, VICTIM = 102, OTHER = 103 };
#define MOST ((1LL << 53) - 1)

static void put(peer *p, int64_t id, const char *column, int64_t value) {
  upsert(p, "t", ROW({"id", v_int(id)}, {column, v_int(value)}));
  p->cluster->now_ms++;
}

static void put_many(peer *p, int64_t first, int n, int64_t value) {
  for (int i = 0; i < n; i++) put(p, first + i, "a", value);
}

/* The hub, with the victim and another one; all have some rows of each. */
static cluster *three(void) {
  cluster *c = cluster_start(3, T);
  for (int i = 0; i < 3; i++) put_many(&c->peers[i], 10 * i, 5, 0);
  wire_open(c, 0, 1);
  wire_open(c, 0, 2);
  cluster_settle(c);
  return c;
}

static void check_same(cluster *c) {
  cluster_settle(c);
  cluster_same(c, "t");
  for (int i = 0; i < c->n_peers; i++)
    if (c->peers[i].r)
      CHECK_INT(sql_int(peer_sql(&c->peers[i]), "SELECT count(*) FROM t_patches JOIN "
                                                "_replic_vector ON origin = _peerId WHERE "
                                                "_sequenceId > sequence"),
                0);
}

/* The liar links to a peer, under an id and with a vector. */
static int link_as(cluster *c, int to, uint32_t id, const replic_position *vector, size_t n) {
  int w = wire_open_test(c, to);
  play(c, w, hello_frame(id, c->now_ms, vector, n));
  return w;
}

static int64_t notes(peer *p) {
  return sql_int(peer_sql(p), "SELECT count(*) FROM _replic_forks");
}

static void open_as(peer *p, uint32_t id) {
  peer_stop(p);
  p->config.peer_id = id;
  peer_start(p);
  CHECK_INT(p->id, id);
}

static replic_counters counters_of(const peer *p) {
  replic_counters counters;
  replic_get_counters(p->r, &counters);
  return counters;
}

/* ---- FORK: the remedy turned against who uses it ---- */

/* All that the victim has issued is other patches, says the liar. */
static bytes *lying_fork(cluster *c) {
  replic_position probes[5];
  for (int i = 0; i < 5; i++) probes[i] = (replic_position){VICTIM, i + 1, c->now_ms, 777};
  return fork_frame(VICTIM, 5, probes, COUNT(probes));
}

/* The hub is opened with a new peerId, and goes on with the others as before. */
static void check_remedy(cluster *c) {
  peer *hub = &c->peers[0];
  CHECK_INT(notes(hub), 0);
  open_as(hub, 301);
  CHECK_INT(counters_of(hub).forks_healed, 0);
  wire_open(c, 0, 1);
  wire_open(c, 0, 2);
  put(hub, 40, "a", 1);
  put(&c->peers[1], 41, "a", 1);
  check_same(c);
  for (int i = 0; i < 3; i++)
    for (size_t k = 0; k < c->peers[i].n_events; k++)
      CHECK(c->peers[i].events[k].code != REPLIC_EFORK || i == 0);
}

/* There is nothing in it that the hub could look at; the victim is away, so that nobody denies it.
 */
static void a_fork_without_evidence_is_not_noted(void) {
  cluster *c = three();
  peer_stop(&c->peers[1]);
  for (int i = 0; i < 2; i++) {
    int w = link_as(c, 0, LIAR, NULL, 0);
    play(c, w, fork_frame(VICTIM, i, NULL, 0));
    CHECK(!c->wires[w].open[0]);
  }
  peer_start(&c->peers[1]);
  check_remedy(c);
}

/* The victim is linked, and has what the hub has of it. */
static void a_fork_that_its_origin_denies_is_not_noted(void) {
  cluster *c = three();
  for (int i = 0; i < 2; i++) {
    int w = link_as(c, 0, LIAR, NULL, 0);
    play(c, w, lying_fork(c));
    CHECK(!c->wires[w].open[0]);
  }
  check_remedy(c);
}

/* The lie is noted, as a copy of the victim's file would look alike; it goes when the victim comes.
 */
static void a_note_gives_way_to_its_origin(void) {
  cluster *c = three();
  peer_stop(&c->peers[1]);
  int w = link_as(c, 0, LIAR, NULL, 0);
  play(c, w, lying_fork(c));
  CHECK_INT(notes(&c->peers[0]), 1);
  peer_start(&c->peers[1]);
  wire_open(c, 0, 1);
  cluster_beat(c, 2);
  check_remedy(c);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(a_fork_without_evidence_is_not_noted),
      TEST(a_fork_that_its_origin_denies_is_not_noted),
      TEST(a_note_gives_way_to_its_origin),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

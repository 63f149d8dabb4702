/* test_scenes.c - what peers say to each other, as text: ten conversations to read before the code
 * of the links, and the same that docs/protocol.md shows (test/40.docs compares them). A change of
 * the protocol changes them: look at each line before you take it over. */
#include <string.h>

#include "scene.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE t_patches(" CLOCK                  \
  "id INTEGER, v TEXT);"
#define U                                                                                          \
  "CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE TABLE u_patches(" CLOCK                  \
  "id INTEGER, w TEXT);"

enum { A, B, C };

static void put(peer *p, int64_t first, int n) {
  for (int64_t id = first; id < first + n; id++) {
    upsert(p, "t", ROW({"id", v_int(id)}, {"v", v_text("a value")}));
    p->cluster->now_ms++;
  }
}

static void write_rows(scene *s, peer *p, int64_t first, int n) {
  put(p, first, n);
  scene_say(s, "%c writes %d row%s", 'A' + p->index, n, n > 1 ? "s" : "");
}

static void hello_and_catch_up(void) {
  cluster *c = cluster_start(2, T);
  put(&c->peers[A], 1, 3);
  scene *s = scene_begin(c);
  wire_open(c, A, B);
  scene_deliver(s);
  scene_events(s);
  write_rows(s, &c->peers[B], 9, 1);
  scene_deliver(s);
  scene_is(s, "[  10] A > B  HELLO has A 3\n"
              "[  10] B > A  HELLO has nothing\n"
              "[  20] A > B  SCHEMA t\n"
              "[  20] A > B  PATCHES A (0, 3]\n"
              "[  20] B > A  SCHEMA t\n"
              "[  30] B > A  ACK applied A 3\n"
              "[  30] A: link to B is ready\n"
              "[  30] A: in step with B\n"
              "[  30] B: link to A is ready\n"
              "[  30] B: in step with A\n"
              "[  31] B writes 1 row\n"
              "[  41] B > A  PATCHES B (0, 1]\n"
              "[  51] A > B  ACK applied B 1\n");
}

static void a_loss_is_noticed_and_mended(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, A, B);
  cluster_settle(c);
  scene *s = scene_begin(c);
  write_rows(s, &c->peers[A], 1, 1);
  while (c->wires[w].to[1].n > 0) scene_lose(s, w, 1);
  write_rows(s, &c->peers[A], 2, 1);
  scene_deliver(s);
  scene_is(s, "[   1] A writes 1 row\n"
              "[   1] A > B  PATCHES A (0, 1]   (lost)\n"
              "[   2] A writes 1 row\n"
              "[  12] A > B  PATCHES A (1, 2]\n"
              "[  22] B > A  NEED A after 0\n"
              "[  22] B > A  ACK\n"
              "[  32] A > B  SCHEMA t\n"
              "[  32] A > B  PATCHES A (0, 1]\n"
              "[  32] A > B  PATCHES A (1, 2]\n"
              "[  42] B > A  ACK applied A 2\n"
              "[  42] B > A  ACK\n");
}

/* A and C are linked, but nothing of A's comes to C: B sees it, as C's ACKs tell, and helps. */
static void a_relay_helps_after_the_grace(void) {
  cluster *c = cluster_start(3, T);
  int direct = wire_open(c, A, C);
  wire_open(c, A, B);
  wire_open(c, B, C);
  cluster_settle(c);
  cluster_beat(c, 3);
  c->now_ms += 1;
  scene *s = scene_begin(c);
  write_rows(s, &c->peers[A], 1, 1);
  while (c->wires[direct].to[1].n > 0) scene_lose(s, direct, 1);
  scene_deliver(s);
  for (int i = 0; i < 6 && peer_at(&c->peers[C], 101) == 0; i++) {
    c->now_ms += 1000 - (c->now_ms % 1000);
    for (int k = 0; k < 3; k++) tick(&c->peers[k]);
    while (c->wires[direct].to[1].n > 0) wire_drop(c, direct, 1, 0);
    scene_without_acks(s);
    scene_deliver(s);
  }
  scene_is(s, "[   1] A writes 1 row\n"
              "[   1] A > C  PATCHES A (0, 1]   (lost)\n"
              "[  11] A > B  PATCHES A (0, 1]\n"
              "[  21] B > A  ACK applied A 1\n"
              "[4009] B > C  PATCHES A (0, 1]\n");
}

static void the_standby_takes_over(void) {
  cluster *c = cluster_start(2, T);
  int first = wire_open(c, A, B);
  wire_open(c, A, B);
  cluster_settle(c);
  scene *s = scene_begin(c);
  write_rows(s, &c->peers[A], 1, 1);
  scene_say(s, "the first link breaks, and what was on its way is lost");
  wire_cut(c, first);
  write_rows(s, &c->peers[A], 2, 1);
  scene_beat(s);
  scene_is(s, "[   1] A writes 1 row\n"
              "[   1] the first link breaks, and what was on its way is lost\n"
              "[   2] A writes 1 row\n"
              "[1010] A > B  PATCHES A (0, 1]\n"
              "[1010] A > B  PATCHES A (1, 2]\n"
              "[1010] A > B  ACK applied A 2; sent A 2\n"
              "[1010] B > A  ACK\n"
              "[1020] B > A  ACK applied A 1\n"
              "[1020] B > A  ACK applied A 2\n"
              "[1020] B > A  ACK applied A 2\n");
}

static cluster *with_small_pieces(void) {
  cluster *c = cluster_new();
  for (int i = 0; i < 2; i++) {
    peer *p = cluster_add(c);
    p->config.slice_bytes = 60;
    p->config.window_bytes = 120;
    peer_start(p);
    CHECK_OK(p->r, try_migrate(p, 1, T, ""));
  }
  return c;
}

/* A has written each row twice, and pruned what the second write replaced. */
static void write_and_prune(peer *p, int n_rows) {
  put(p, 1, n_rows);
  put(p, 1, n_rows);
  CHECK(peer_compact(p, peer_now(p), 1000000).done);
}

static void a_jump(void) {
  cluster *c = cluster_start(2, T);
  write_and_prune(&c->peers[A], 3);
  scene *s = scene_begin(c);
  wire_open(c, A, B);
  scene_deliver(s);
  cluster_same(c, "t");
  scene_is(s, "[  10] A > B  HELLO has A 6\n"
              "[  10] B > A  HELLO has nothing\n"
              "[  20] A > B  SCHEMA t\n"
              "[  20] A > B  JUMP to A 6 (floor 3)\n"
              "[  20] B > A  SCHEMA t\n"
              "[  30] B > A  TAKE staged nothing; go on from here\n"
              "[  40] A > B  SCHEMA t\n"
              "[  40] A > B  STAGE A (0, 6]: 3 left\n"
              "[  40] A > B  JUMP to A 6 (floor 3)\n"
              "[  50] B > A  ACK applied A 6\n"
              "[  50] B > A  ACK applied A 6\n");
}

static void a_jump_goes_on_where_it_was(void) {
  cluster *c = with_small_pieces();
  write_and_prune(&c->peers[A], 12);
  scene *s = scene_begin(c);
  int w = wire_open(c, A, B);
  for (int i = 0; i < 4; i++) scene_round(s);
  scene_say(s, "the link breaks; B is killed and starts");
  wire_cut(c, w);
  peer_stop(&c->peers[B]);
  peer_start(&c->peers[B]);
  wire_open(c, A, B);
  scene_deliver(s);
  cluster_same(c, "t");
  scene_is(s, "[  10] A > B  HELLO has A 24\n"
              "[  10] B > A  HELLO has nothing\n"
              "[  20] A > B  SCHEMA t\n"
              "[  20] A > B  JUMP to A 24 (floor 12)\n"
              "[  20] B > A  SCHEMA t\n"
              "[  30] B > A  TAKE staged nothing; go on from here\n"
              "[  40] A > B  SCHEMA t\n"
              "[  40] A > B  STAGE A (0, 14]: 2 left\n"
              "[  40] A > B  STAGE A (14, 17]: 3 left\n"
              "[  40] the link breaks; B is killed and starts\n"
              "[  50] A > B  HELLO has A 24\n"
              "[  50] B > A  HELLO has nothing\n"
              "[  60] A > B  SCHEMA t\n"
              "[  60] A > B  JUMP to A 24 (floor 12)\n"
              "[  60] B > A  SCHEMA t\n"
              "[  70] B > A  TAKE staged A 17; go on from here\n"
              "[  80] A > B  SCHEMA t\n"
              "[  80] A > B  STAGE A (17, 20]: 3 left\n"
              "[  80] A > B  STAGE A (20, 23]: 3 left\n"
              "[  90] B > A  TAKE staged A 20\n"
              "[  90] B > A  ACK\n"
              "[  90] B > A  TAKE staged A 23\n"
              "[  90] B > A  ACK\n"
              "[ 100] A > B  STAGE A (23, 24]: 1 left\n"
              "[ 100] A > B  JUMP to A 24 (floor 12)\n"
              "[ 110] B > A  ACK applied A 24\n"
              "[ 110] B > A  ACK applied A 24\n");
}

static void a_fork_is_found_and_healed(void) {
  cluster *c = cluster_start(1, T);
  put(&c->peers[A], 1, 2);
  peer *copy = peer_fork(&c->peers[A]);
  scene *s = scene_begin(c);
  scene_say(s, "B is a copy of A's files; both go on as A");
  write_rows(s, &c->peers[A], 3, 1);
  write_rows(s, copy, 4, 1);
  wire_open(c, A, B);
  scene_deliver(s);
  scene_events(s);
  peer_stop(copy);
  copy->config.peer_id = 102;
  peer_start(copy);
  scene_say(s, "B is opened with a peerId of its own, and issues its row anew");
  wire_open(c, A, B);
  scene_deliver(s);
  cluster_same(c, "t");
  scene_is(s, "[   0] B is a copy of A's files; both go on as A\n"
              "[   1] A writes 1 row\n"
              "[   2] B writes 1 row\n"
              "[  12] A > B  HELLO has A 3\n"
              "[  12] B > A  HELLO has A 3\n"
              "[  22] A > B  FORK its A ends at 3\n"
              "[  22] B > A  FORK its A ends at 3\n"
              "[  22] A: link to A ends\n"
              "[  22] B: link to A ends\n"
              "[  22] B is opened with a peerId of its own, and issues its row anew\n"
              "[  32] A > B  HELLO has A 3\n"
              "[  32] B > A  HELLO has A 2, B 1\n"
              "[  42] A > B  SCHEMA t\n"
              "[  42] A > B  PATCHES A (2, 3]\n"
              "[  42] B > A  SCHEMA t\n"
              "[  42] B > A  PATCHES B (0, 1]\n"
              "[  52] A > B  ACK applied A 3, B 1; sent A 3\n"
              "[  52] B > A  ACK applied A 3, B 1; sent B 1\n"
              "[  62] A > B  ACK applied B 1\n"
              "[  62] B > A  ACK applied A 3\n");
}

static void a_clock_ahead_is_held(void) {
  cluster *c = cluster_start(2, T);
  c->peers[A].clock_step_ms = 62000;
  scene *s = scene_begin(c);
  scene_say(s, "A's clock is 62 s ahead; B permits 60");
  write_rows(s, &c->peers[A], 1, 1);
  wire_open(c, A, B);
  scene_deliver(s);
  scene_events(s);
  c->peers[A].clock_step_ms = 0;
  scene_say(s, "A's clock is corrected; heartbeats go on");
  scene_without_acks(s);
  for (int i = 0; i < 8 && peer_at(&c->peers[B], 101) == 0; i++) scene_beat(s);
  scene_is(s, "[   0] A's clock is 62 s ahead; B permits 60\n"
              "[   1] A writes 1 row\n"
              "[  11] A > B  HELLO has A 1\n"
              "[  11] B > A  HELLO has nothing\n"
              "[  21] A > B  SCHEMA t\n"
              "[  21] A > B  PATCHES A (0, 1]\n"
              "[  21] B > A  SCHEMA t\n"
              "[  31] B > A  ERROR REPLIC_CLOCK_SKEW holds A after 0\n"
              "[  31] B > A  ACK\n"
              "[  31] A: link to B is ready\n"
              "[  31] A: REPLIC_CLOCK_SKEW\n"
              "[  31] B: link to A is ready\n"
              "[  31] B: REPLIC_CLOCK_SKEW\n"
              "[  31] A's clock is corrected; heartbeats go on\n"
              "[6010] B > A  NEED A after 0\n"
              "[6020] A > B  SCHEMA t\n"
              "[6020] A > B  PATCHES A (0, 1]\n");
}

static void a_table_that_is_not_there_yet(void) {
  cluster *c = cluster_start(2, T);
  CHECK_OK(c->peers[A].r, try_migrate(&c->peers[A], 2, U, ""));
  wire_open(c, A, B);
  cluster_settle(c);
  scene *s = scene_begin(c);
  upsert(&c->peers[A], "u", ROW({"id", v_int(1)}, {"w", v_text("new")}));
  scene_say(s, "A writes a row of u, which B does not have");
  scene_deliver(s);
  scene_say(s, "B keeps %lld patch for a schema to come",
            (long long)replic_pending_at(c->peers[B].r, 0)->patches);
  CHECK_OK(c->peers[B].r, try_migrate(&c->peers[B], 2, U, ""));
  scene_say(s, "B migrates, and has %lld row of u",
            (long long)sql_int(peer_sql(&c->peers[B]), "SELECT count(*) FROM u"));
  scene_deliver(s);
  scene_is(s, "[   0] A writes a row of u, which B does not have\n"
              "[  10] A > B  PATCHES A (0, 1]\n"
              "[  20] B > A  ACK applied A 1\n"
              "[  20] B keeps 1 patch for a schema to come\n"
              "[  20] B migrates, and has 1 row of u\n"
              "[  30] B > A  SCHEMA t\n"
              "[  30] B > A  SCHEMA u\n");
}

static void a_late_joiner_gets_everything_once(void) {
  cluster *c = cluster_start(3, T);
  wire_open(c, A, B);
  put(&c->peers[A], 1, 2);
  put(&c->peers[B], 5, 2);
  cluster_deliver(c);
  cluster_beat(c, 1);
  scene *s = scene_begin(c);
  scene_say(s, "C is linked to both");
  wire_open(c, A, C);
  wire_open(c, B, C);
  scene_deliver(s);
  cluster_same(c, "t");
  scene_is(s, "[   0] C is linked to both\n"
              "[  10] A > C  HELLO has A 2, B 2\n"
              "[  10] C > A  HELLO has nothing\n"
              "[  10] B > C  HELLO has A 2, B 2\n"
              "[  10] C > B  HELLO has nothing\n"
              "[  20] A > C  SCHEMA t\n"
              "[  20] A > C  PATCHES A (0, 2]\n"
              "[  20] A > C  PATCHES B (0, 2]\n"
              "[  20] C > A  SCHEMA t\n"
              "[  20] B > C  SCHEMA t\n"
              "[  20] B > C  PATCHES A (0, 2]\n"
              "[  20] B > C  PATCHES B (0, 2]\n"
              "[  20] C > B  SCHEMA t\n"
              "[  30] C > A  ACK applied A 2\n"
              "[  30] C > A  ACK applied B 2\n"
              "[  30] C > B  ACK applied A 2, B 2\n"
              "[  30] C > B  ACK\n"
              "[  40] A > C  ACK applied B 2; sent B 2; linked to C\n"
              "[  40] B > C  ACK applied A 2; linked to C\n"
              "[  50] C > A  ACK applied B 2; linked to A B\n"
              "[  50] C > B  ACK linked to A B\n");
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(hello_and_catch_up),
      TEST(a_loss_is_noticed_and_mended),
      TEST(a_relay_helps_after_the_grace),
      TEST(the_standby_takes_over),
      TEST(a_jump),
      TEST(a_jump_goes_on_where_it_was),
      TEST(a_fork_is_found_and_healed),
      TEST(a_clock_ahead_is_held),
      TEST(a_table_that_is_not_there_yet),
      TEST(a_late_joiner_gets_everything_once),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

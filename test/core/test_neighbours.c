/* test_neighbours.c - the lists of linked peers: what is told of them, and that losses are mended.
 */
#include "frames.h"
#include "sim.h"

#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE t_patches(_patchedAt INTEGER NOT " \
  "NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER, v TEXT);"

enum { LISTENER = 100, OTHER = 110 }; /* 64 and 6e in the frames */

/* What the last ACK of those on their way to the test's side of `w` says of lists. */
static char *told(cluster *c, int w) {
  packet_queue *queue = &c->wires[w].to[1];
  char *text = "nothing";
  for (; queue->n > 0; wire_drop(c, w, 1, 0)) {
    const packet *frame = &queue->packets[0];
    const uint8_t *at = frame->data + 2, *end = frame->data + frame->len - 4;
    if (frame->data[1] != ACK) continue;
    for (int i = 0; i < 3; i++) sim_read_varint(&at, end); /* the time, and bytes */
    for (int list = 0; list < 3; list++)
      for (uint64_t n = 2 * sim_read_varint(&at, end); n > 0; n--) sim_read_varint(&at, end);
    text = show_hex(at, (size_t)(end - at));
  }
  return text;
}

static char *told_at_next_beat(cluster *c, int w) {
  c->now_ms += 1000;
  tick(&c->peers[0]);
  return told(c, w);
}

static int link_up(cluster *c, uint32_t peer) {
  int w = wire_open_test(c, 0);
  play(c, w, hello_frame(peer, c->now_ms, NULL, 0));
  return w;
}

/* An ACK that ends so. */
static void say(cluster *c, int w, const uint8_t *end, size_t len) {
  bytes *ack = ack_frame(c->now_ms);
  for (int list = 0; list < 3; list++) add_positions(ack, NULL, 0);
  for (size_t i = 0; i < len; i++) add_u8(ack, end[i]);
  play(c, w, ack);
}

#define SAY(c, w, ...) say(c, w, (const uint8_t[]){__VA_ARGS__}, sizeof(uint8_t[]){__VA_ARGS__})

static void who_needs_no_list_is_told_none(void) {
  cluster *c = cluster_start(1, T);
  int w = link_up(c, LISTENER);
  CHECK_TEXT(told_at_next_beat(c, w), "00 00"); /* nor does the hub, which has no other link */
  for (int i = 0; i < 4; i++) {
    int other = link_up(c, OTHER);
    CHECK_TEXT(told_at_next_beat(c, w), "01 00");
    wire_cut(c, other);
    CHECK_TEXT(told_at_next_beat(c, w), "00 00");
  }
}

static void who_needs_it_is_told_what_has_changed(void) {
  cluster *c = cluster_start(1, T);
  int w = link_up(c, LISTENER), other = link_up(c, OTHER);
  told(c, w);
  SAY(c, w, 1, 0); /* needs it, and has it up to 0 */
  CHECK_TEXT(told(c, w), "01 02 00 02 02 64 01 6e 01");
  CHECK_TEXT(told_at_next_beat(c, w), "01 02 00 02 02 64 01 6e 01"); /* nothing was heard */
  SAY(c, w, 3, 0);
  CHECK_TEXT(told_at_next_beat(c, w), "01 00");
  wire_cut(c, other);
  CHECK_TEXT(told_at_next_beat(c, w), "00 02 02 03 01 6e 00");
  other = link_up(c, OTHER);
  CHECK_TEXT(told_at_next_beat(c, w), "01 02 02 04 01 6e 01"); /* since what it has said */
  SAY(c, w, 0, 0);                                             /* needs none any more */
  wire_cut(c, other);
  CHECK_TEXT(told_at_next_beat(c, w), "00 00");
}

/* Of LISTENER's own, the one that follows `after`. */
static void play_patch(cluster *c, int w, int64_t after) {
  bytes *frame = patches_frame(LISTENER, after, after + 1);
  const replic_value values[] = {v_int(1), v_text("x")};
  add_patch(frame, 1, true, (uint64_t)(c->now_ms + after), 1, 1, 2, values);
  play(c, w, frame);
}

/* Once per change, and once per heartbeat until it is heard, however many ACKs there are. */
static void a_change_is_not_in_every_ack(void) {
  static const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  cluster *c = cluster_start(1, T);
  int w = link_up(c, LISTENER);
  link_up(c, OTHER);
  SAY(c, w, 1, 0);
  told(c, w);
  play(c, w, schema_frame(1, "t", 1, 2, FIELDS));
  for (int i = 0; i < 5; i++) {
    SAY(c, w, 1, 0);
    play_patch(c, w, i); /* it is acknowledged at once */
    CHECK_TEXT(told(c, w), "01 00");
  }
  CHECK_TEXT(told_at_next_beat(c, w), "01 02 00 02 02 64 01 6e 01");
}

static void who_lacks_too_much_is_told_all(void) {
  cluster *c = cluster_start(1, T);
  int w = link_up(c, LISTENER);
  SAY(c, w, 0x81, 0x80, 0x04, 0); /* up to 65,536, of which there are 2 */
  link_up(c, OTHER);
  CHECK_TEXT(told_at_next_beat(c, w), "01 01 02 02 64 6e");
  SAY(c, w, 3, 0);
  for (int i = 0; i < 2; i++) { /* more changes than there are peers */
    int third = link_up(c, 120);
    CHECK_TEXT(told_at_next_beat(c, w), i ? "01 02 02 05 01 78 01" : "01 02 02 03 01 78 01");
    wire_cut(c, third);
    CHECK_TEXT(told_at_next_beat(c, w), i ? "01 01 06 02 64 6e" : "01 02 02 04 01 78 00");
  }
}

/* OTHER writes a row: whether it is relayed to LISTENER at once. */
static bool is_relayed(cluster *c, int w, int other, int64_t n) {
  static const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  if (n == 1) play(c, other, schema_frame(1, "t", 1, 2, FIELDS));
  bytes *b = patches_on(OTHER, n - 1, n > 1 ? 1000 + n - 1 : 0, n);
  add_patch(b, 1, true, n > 1 ? 1 : 1001, 1, 1, 2, (replic_value[]){v_int(n), v_text("x")});
  take_frames(c, w, 0);
  play(c, other, b);
  CHECK_INT(peer_at(&c->peers[0], OTHER), n);
  c->now_ms++;
  return take_frames(c, w, PATCHES) > 0;
}

static void changes_are_taken_in_order(void) {
  cluster *c = cluster_start(1, T);
  int w = link_up(c, LISTENER), other = link_up(c, OTHER);
  CHECK(is_relayed(c, w, other, 1));
  SAY(c, w, 0, 2, 0, 5, 1, OTHER, 1);
  CHECK(!is_relayed(c, w, other, 2));
  SAY(c, w, 0, 2, 0, 3, 1, OTHER, 0); /* late */
  CHECK(!is_relayed(c, w, other, 3));
  SAY(c, w, 0, 2, 7, 9, 1, OTHER, 0); /* those from 5 to 7 are missing */
  CHECK(!is_relayed(c, w, other, 4));
  CHECK_TEXT(told_at_next_beat(c, w), "06 00");
  SAY(c, w, 0, 2, 4, 6, 1, OTHER, 0);
  CHECK(is_relayed(c, w, other, 5));
  SAY(c, w, 0, 1, 8, 2, 50, OTHER);
  CHECK(!is_relayed(c, w, other, 6));
  SAY(c, w, 0, 2, 8, 9, 3, 40, 1, OTHER, 0, 120, 1);
  CHECK(is_relayed(c, w, other, 7));
  CHECK_TEXT(told_at_next_beat(c, w), "0a 00");
}

static void lose_half(cluster *c, rng *g) {
  for (int w = 0; w < c->n_wires; w++)
    for (int side = 0; side < 2; side++)
      while (c->wires[w].to[side].n > 0)
        if (rng_chance(g, 50))
          wire_drop(c, w, side, 0);
        else
          wire_deliver(c, w, side, 0);
}

static int64_t relayed(const cluster *c) {
  int64_t sum = 0;
  for (int i = 0; i < c->n_peers; i++) {
    replic_counters counters;
    replic_get_counters(c->peers[i].r, &counters);
    sum += counters.patches_relayed;
  }
  return sum;
}

/* Links come and go, and frames are lost: once they stay, each patch goes once to each peer. */
static void a_mesh_knows_in_the_end_who_is_linked(void) {
  enum { N = 5, EDGES = N * (N - 1) / 2 };
  cluster *c = cluster_start(N, T);
  rng g = {7};
  int live[EDGES], n = 0;
  for (int i = 0; i < N; i++)
    for (int k = 0; k < i; k++) live[n++] = wire_open(c, k, i);
  cluster_settle(c);
  for (int round = 0; round < 40; round++) {
    int edge = (int)rng_below(&g, EDGES);
    wire_cut(c, live[edge]);
    cluster_beat(c, round % 2);
    lose_half(c, &g);
    const int *ends = c->wires[live[edge]].peers;
    live[edge] = wire_open(c, ends[0], ends[1]);
    c->now_ms += 1000;
    for (int i = 0; i < N; i++) tick(&c->peers[i]);
    lose_half(c, &g);
  }
  cluster_settle(c);
  cluster_beat(c, 6);
  for (int i = 0; i < N; i++) {
    int64_t before = relayed(c);
    upsert(&c->peers[i], "t", ROW({"id", v_int(i)}));
    cluster_beat(c, 1);
    CHECK_INT(relayed(c) - before, 0);
  }
  cluster_same(c, "t");
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(who_needs_no_list_is_told_none), TEST(who_needs_it_is_told_what_has_changed),
      TEST(a_change_is_not_in_every_ack),   TEST(who_lacks_too_much_is_told_all),
      TEST(changes_are_taken_in_order),     TEST(a_mesh_knows_in_the_end_who_is_linked),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

/* test_rights.c - links over which one side may only read: it gets everything, and nothing that it
 * sends changes anything, nor what is kept about anybody. */
#include "frames.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE t_patches(" CLOCK                  \
  "id INTEGER, v TEXT);"

static const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};

static void put(peer *p, int64_t id, const char *v) {
  p->cluster->now_ms++;
  upsert(p, "t", ROW({"id", v_int(id)}, {"v", v_text(v)}));
}

static replic_link_info info_of(const peer *p, size_t index) {
  replic_link_info info = {0};
  CHECK(replic_link_at(p->r, index, &info));
  return info;
}

static int said(const peer *p) {
  int n = 0;
  for (size_t i = 0; i < p->n_events; i++)
    n += p->events[i].kind == REPLIC_EVENT_LINK_ERROR && p->events[i].code == REPLIC_EREADONLY;
  return n;
}

/* Delivers all, and counts the frames to a side that would bring something. */
static size_t deliver_counting(cluster *c, int w, int to_side) {
  size_t n = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (int side = 0; side < 2; side++) {
      const packet_queue *queue = &c->wires[w].to[side];
      if (queue->n == 0) continue;
      int type = queue->packets[0].data[1];
      n += side == to_side && (type == PATCHES || type == SCHEMA || type == STAGE || type == JUMP);
      wire_deliver(c, w, side, 0);
      moved = true;
    }
  }
  return n;
}

static int64_t kept(peer *p) {
  return sql_int(peer_sql(p),
                 "SELECT (SELECT count(*) FROM _replic_pending) + (SELECT count(*) FROM "
                 "_replic_definitions) + (SELECT count(*) FROM _replic_staged) + (SELECT count(*) "
                 "FROM _replic_forks) + (SELECT count(*) FROM t_patches WHERE _peerId <> 101)");
}

static void a_reader_gets_everything_and_sends_nothing(void) {
  cluster *c = cluster_start(2, T);
  peer *hub = &c->peers[0], *board = &c->peers[1];
  put(hub, 1, "hub");
  put(board, 2, "board");
  put(board, 1, "board");
  int w = wire_open_reader(c, 0, 1);
  CHECK_INT(deliver_counting(c, w, 0), 0);
  for (int i = 0; i < 10; i++) {
    put(hub, 10 + i, "hub");
    put(board, 20 + i, "board");
    c->now_ms += 1000;
    tick(hub);
    tick(board);
    CHECK_INT(deliver_counting(c, w, 0), 0);
  }
  CHECK_INT(peer_at(board, 101), 11);
  CHECK_INT(peer_at(hub, 102), 0);
  CHECK_INT(kept(hub), 0);
  CHECK_INT(said(hub), 1);
  CHECK_INT(said(board), 1);
  CHECK_CONTAINS(event_last(board, REPLIC_EVENT_LINK_ERROR)->text, "peer 102 may only read");
  CHECK_INT(event_count(hub, REPLIC_EVENT_LINK_CLOSE), 0);
  replic_link_info at_hub = info_of(hub, 0), at_board = info_of(board, 0);
  CHECK(at_hub.reader && !at_hub.muted && !at_board.reader && at_board.muted);
  CHECK_INT(at_hub.lag, 0);
  CHECK_INT(at_hub.behind, 12);
  CHECK_CONTAINS(at_hub.held, "may only read");
  CHECK_INT(at_board.lag, 12);
  CHECK_INT(at_board.unacked_bytes, 0);
  CHECK_INT(event_count(board, REPLIC_EVENT_SYNCED), event_count(hub, REPLIC_EVENT_SYNCED));
  size_t n;
  const replic_position *left = replic_unacknowledged(board->r, &n);
  CHECK(left && n == 1 && left->origin == 102 && left->sequence == 12);
}

/* A dashboard that writes nothing is no trouble to anybody. */
static void a_reader_that_only_reads_is_not_complained_of(void) {
  cluster *c = cluster_start(2, T);
  put(&c->peers[0], 1, "hub");
  wire_open_reader(c, 0, 1);
  cluster_deliver(c);
  cluster_beat(c, 10);
  CHECK_INT(peer_at(&c->peers[1], 101), 1);
  CHECK_INT(said(&c->peers[0]) + said(&c->peers[1]), 0);
  CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_SYNCED), 1);
  CHECK_INT(event_count(&c->peers[1], REPLIC_EVENT_SYNCED), 1);
}

static bytes *one_patch(uint32_t origin, int64_t after) {
  bytes *frame = patches_frame(origin, after, after + 1);
  add_patch(frame, 1, true, 5, 7, 1, 2, (const replic_value[]){v_int(after), v_text("x")});
  return frame;
}

/* Frames of every kind, from one who does not keep to it. */
static void whatever_a_reader_sends_changes_nothing(void) {
  cluster *c = cluster_start(1, T);
  peer *hub = &c->peers[0];
  put(hub, 1, "hub");
  int64_t changes = sql_int(peer_sql(hub), "PRAGMA data_version");
  int w = wire_open_test_as(c, 0, true);
  const replic_position ahead[] = {{102, 9, 50, 1}, {103, REPLIC_MAX_SEQUENCE, 60, 1}};
  const int64_t floors[] = {5, 5};
  play(c, w, hello_frame(102, c->now_ms, ahead, 2));
  play(c, w, schema_frame(7, "t", 1, 2, FIELDS));
  play(c, w, schema_frame(8, "unknown", 1, 2, FIELDS));
  play(c, w, one_patch(102, 0));
  play(c, w, one_patch(102, 5)); /* early */
  play(c, w, one_patch(103, 0));
  play(c, w, one_patch(101, 1)); /* of the hub's own */
  play(c, w, jump_frame(ahead, floors, 2));
  play(c, w, stage_frame(30, 103, 0, 1, 0));
  play(c, w, fork_frame(101, 9, ahead, 0));
  bytes *ack = ack_frame(c->now_ms);
  add_positions(ack, ahead, 2);
  add_positions(ack, ahead, 2);
  add_positions(ack, ahead, 2);
  add_no_list(ack);
  play(c, w, ack);
  cluster_beat(c, 10);
  CHECK_INT(event_count(hub, REPLIC_EVENT_LINK_CLOSE), 0);
  CHECK_INT(event_count(hub, REPLIC_EVENT_ERROR), 0);
  CHECK_INT(said(hub), 1);
  CHECK_INT(kept(hub), 0);
  CHECK_INT(peer_at(hub, 102) + peer_at(hub, 103), 0);
  CHECK_INT(sql_int(peer_sql(hub), "PRAGMA data_version"), changes); /* no commit at all */
  CHECK(!info_of(hub, 0).schema);
  replic_counters counters;
  replic_get_counters(hub->r, &counters);
  CHECK_INT(counters.frames_early + counters.frames_dropped_early + counters.patches_staged, 0);
  size_t asked = 0;
  for (size_t i = 0; i < c->wires[w].to[1].n; i++) {
    int type = c->wires[w].to[1].packets[i].data[1];
    asked += type == NEED || type == TAKE || type == FORK;
  }
  CHECK_INT(asked, 0);
  CHECK_INT(take_frames(c, w, ERROR), 1);
}

/* It tells at each heartbeat that it has more, and that nothing is on its way. */
static void nothing_is_asked_of_a_reader(void) {
  cluster *c = cluster_start(1, T);
  int w = wire_open_test_as(c, 0, true);
  play(c, w, hello_frame(102, c->now_ms, &(replic_position){103, 9, 50, 1}, 1));
  for (int i = 0; i < 20; i++) {
    bytes *ack = ack_frame(c->now_ms);
    for (int list = 0; list < 3; list++) add_positions(ack, NULL, 0);
    add_no_list(ack);
    play(c, w, ack);
    cluster_beat(c, 1);
  }
  CHECK_INT(take_frames(c, w, NEED), 0);
}

static void a_reader_asks_and_is_answered(void) {
  cluster *c = cluster_start(1, T);
  put(&c->peers[0], 1, "hub");
  int w = wire_open_test_as(c, 0, true);
  play(c, w, hello_frame(102, c->now_ms, NULL, 0));
  CHECK_INT(take_frames(c, w, PATCHES), 1);
  bytes *need = frame_new(NEED);
  add_varint(need, 101);
  add_varint(need, 0);
  play(c, w, need);
  CHECK_INT(take_frames(c, w, PATCHES), 1);
  bytes *ack = ack_frame(c->now_ms);
  add_positions(ack, &(replic_position){101, 1, 0, 0}, 1);
  add_positions(ack, NULL, 0);
  add_positions(ack, NULL, 0);
  add_no_list(ack);
  play(c, w, ack);
  CHECK_INT(info_of(&c->peers[0], 0).lag, 0);
}

/* hub <-reader- board - writer: nothing comes through the board, and it is said after the grace;
 * what comes another way comes at once, since nobody waits for it to come from the board. */
static void what_comes_through_a_reader_is_not_taken(void) {
  cluster *c = cluster_start(3, T);
  peer *hub = &c->peers[0], *board = &c->peers[1], *writer = &c->peers[2];
  wire_open_reader(c, 0, 1);
  wire_open(c, 1, 2);
  cluster_deliver(c);
  put(writer, 1, "writer");
  cluster_deliver(c);
  CHECK_INT(peer_at(board, 103), 1);
  CHECK_INT(said(hub), 0); /* it may come another way */
  cluster_beat(c, 5);
  CHECK_INT(peer_at(hub, 103), 0);
  CHECK_INT(said(hub), 1);
  CHECK_INT(said(board), 1);
  wire_open(c, 0, 2);
  cluster_beat(c, 1);
  put(board, 2, "board");
  cluster_deliver(c); /* by way of the writer, at once */
  CHECK_INT(peer_at(hub, 102), 1);
  cluster_same(c, "t");
}

static void a_fork_of_a_reader_is_not_noted(void) {
  cluster *c = cluster_start(1, T);
  peer *hub = &c->peers[0];
  put(hub, 1, "hub");
  int w = wire_open_test_as(c, 0, true);
  play(c, w, hello_frame(102, c->now_ms, &(replic_position){101, 5, c->now_ms, 1}, 1));
  CHECK_INT(event_last(hub, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EFORK);
  CHECK_INT(take_frames(c, w, FORK), 1); /* so that it can heal */
  CHECK_INT(kept(hub), 0);
}

static void prune(peer *p) {
  p->cluster->now_ms += 1000;
  peer_compact(p, p->cluster->now_ms, 1000);
}

static void a_reader_jumps_and_is_no_source(void) {
  cluster *c = cluster_start(2, T);
  peer *hub = &c->peers[0], *board = &c->peers[1];
  for (int i = 0; i < 5; i++) put(hub, 1, "hub");
  for (int i = 0; i < 5; i++) put(board, 2, "board");
  prune(hub);
  prune(board);
  int w = wire_open_reader(c, 0, 1);
  size_t n = deliver_counting(c, w, 0);
  cluster_beat(c, 5);
  CHECK_INT(n + deliver_counting(c, w, 0), 0);
  CHECK_INT(peer_at(board, 101), 5);
  CHECK_INT(kept(hub), 0);
  CHECK_INT(info_of(board, 0).jump, REPLIC_JUMP_NONE);
}

/* A reader under the peerId of another: that one is neither kept from its patches nor shut out. */
static void a_reader_takes_nobodys_place(void) {
  cluster *c = cluster_start(2, T);
  peer *hub = &c->peers[0], *writer = &c->peers[1];
  int w = wire_open_test_as(c, 0, true);
  play(c, w, hello_of(102, 7, c->now_ms, NULL, 0));
  wire_open(c, 0, 1);
  cluster_deliver(c);
  c->now_ms += 5000;
  bytes *ack = ack_frame(c->now_ms); /* later than the HELLO of the second instance */
  for (int list = 0; list < 3; list++) add_positions(ack, NULL, 0);
  add_no_list(ack);
  play(c, w, ack);
  put(hub, 1, "hub");
  put(writer, 2, "writer");
  cluster_deliver(c);
  CHECK_INT(peer_at(writer, 101), 1);
  CHECK_INT(peer_at(hub, 102), 1);
  CHECK_INT(event_count(hub, REPLIC_EVENT_LINK_CLOSE), 0);
  CHECK_INT(info_of(hub, 1).state, REPLIC_LINK_READY);
}

static void a_link_that_writes_is_none_that_reads(void) {
  cluster *c = cluster_start(2, T);
  peer *hub = &c->peers[0], *board = &c->peers[1];
  wire_open_reader(c, 0, 1);
  cluster_deliver(c);
  put(board, 1, "board");
  cluster_deliver(c);
  CHECK_INT(peer_at(hub, 102), 0);
  wire_open(c, 0, 1); /* the same peer, under other rights */
  cluster_deliver(c);
  CHECK_INT(peer_at(hub, 102), 1);
}

/* Nor does it become this peer itself, and so one that has a fork of it to tell. */
static void a_link_is_of_one_peer(void) {
  const uint32_t others[] = {101, 103};
  for (size_t i = 0; i < COUNT(others); i++) {
    cluster *c = cluster_start(1, T);
    int w = wire_open_test(c, 0);
    play(c, w, hello_frame(102, c->now_ms, NULL, 0));
    play(c, w, hello_frame(others[i], c->now_ms, NULL, 0));
    CHECK_INT(event_last(&c->peers[0], REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPEER);
    CHECK_INT(take_frames(c, w, FORK), 0);
  }
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(a_reader_gets_everything_and_sends_nothing),
      TEST(a_reader_that_only_reads_is_not_complained_of),
      TEST(whatever_a_reader_sends_changes_nothing),
      TEST(nothing_is_asked_of_a_reader),
      TEST(a_reader_asks_and_is_answered),
      TEST(what_comes_through_a_reader_is_not_taken),
      TEST(a_fork_of_a_reader_is_not_noted),
      TEST(a_reader_jumps_and_is_no_source),
      TEST(a_reader_takes_nobodys_place),
      TEST(a_link_that_writes_is_none_that_reads),
      TEST(a_link_is_of_one_peer),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

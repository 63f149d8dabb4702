/* test_links.c - when things arrive: lines of a bandwidth and a latency, in virtual time. */
#include <string.h>

#include "frames.h"

#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); CREATE TABLE t_patches(_patchedAt INTEGER NOT " \
  "NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER, v BLOB);"
#define MAX_LINES 16
#define ROW_BYTES 1000
#define UNBOUND INT64_MAX

/* One direction of a wire. A frame has left after its bytes, and arrives a latency later. */
typedef struct line {
  int64_t bytes_per_ms, latency_ms, free_ms; /* free_ms: when all that was put on it has left */
  int64_t due_ms[4096];                      /* of the frames on their way, oldest first */
  size_t n_due, bytes, acks;                 /* bytes, acks: that have ever been put on it */
} line;

typedef struct net {
  cluster *c;
  line lines[MAX_LINES][2];
} net;

static net *net_start(int n_peers) {
  net *it = test_alloc(sizeof *it);
  memset(it, 0, sizeof *it);
  it->c = cluster_start(n_peers, T);
  return it;
}

static int join(net *it, int a, int b, int64_t bytes_per_ms, int64_t latency_ms) {
  int w = wire_open(it->c, a, b);
  CHECK(w < MAX_LINES);
  for (int side = 0; side < 2; side++)
    it->lines[w][side] = (line){.bytes_per_ms = bytes_per_ms, .latency_ms = latency_ms};
  return w;
}

/* What was sent since the last time goes onto its line. */
static void put_on_lines(net *it) {
  for (int w = 0; w < it->c->n_wires; w++) {
    for (int side = 0; side < 2; side++) {
      packet_queue *queue = &it->c->wires[w].to[side];
      line *l = &it->lines[w][side];
      for (; l->n_due < queue->n; l->n_due++) {
        size_t len = queue->packets[l->n_due].len;
        if (l->free_ms < it->c->now_ms) l->free_ms = it->c->now_ms;
        if (l->bytes_per_ms != UNBOUND) l->free_ms += (int64_t)len / l->bytes_per_ms;
        CHECK(l->n_due < COUNT(l->due_ms));
        l->due_ms[l->n_due] = l->free_ms + l->latency_ms;
        l->bytes += len;
        l->acks += queue->packets[l->n_due].data[1] == ACK;
      }
    }
  }
}

static bool deliver_due(net *it) {
  bool moved = false;
  put_on_lines(it);
  for (int w = 0; w < it->c->n_wires; w++) {
    for (int side = 0; side < 2; side++) {
      line *l = &it->lines[w][side];
      while (l->n_due > 0 && l->due_ms[0] <= it->c->now_ms) {
        memmove(l->due_ms, l->due_ms + 1, --l->n_due * sizeof *l->due_ms);
        wire_deliver(it->c, w, side, 0);
        moved = true;
      }
    }
  }
  return moved;
}

/* A part of a frame has come in: that the transport tells, at each heartbeat. */
static void tell_progress(net *it) {
  for (int w = 0; w < it->c->n_wires; w++) {
    const wire *x = &it->c->wires[w];
    for (int side = 0; side < 2; side++)
      if (it->lines[w][side].n_due > 0 && x->open[side])
        peer_receive(&it->c->peers[x->peers[side]], x->number, "", 0);
  }
}

static void run_ms(net *it, int64_t ms) {
  for (; ms > 0; ms--) {
    while (deliver_due(it)) {
    }
    if (++it->c->now_ms % 1000) continue;
    tell_progress(it);
    for (int i = 0; i < it->c->n_peers; i++) tick(&it->c->peers[i]);
  }
}

static void put(peer *p, int64_t id, size_t len) {
  uint8_t *bytes = test_alloc(len);
  memset(bytes, 'x', len);
  upsert(p, "t", ROW({"id", v_int(id)}, {"v", v_blob(bytes, len)}));
}

/* n rows of ROW_BYTES, each of which may travel by itself. */
static void put_backlog(cluster *c, peer *p, int n) {
  for (int i = 0; i < n; i++, c->now_ms++) put(p, 1000 * p->index + i, ROW_BYTES);
}

/* Milliseconds until the first row of `from` is at `at`. */
static int64_t ms_until(net *it, const peer *at, uint32_t from, int64_t sequence, int64_t most) {
  int64_t began = it->c->now_ms;
  while (peer_at(at, from) < sequence) {
    CHECK(it->c->now_ms - began < most);
    run_ms(it, 1);
  }
  return it->c->now_ms - began;
}

/* 0 and 3 write, 1 is the hub, 2 is at the end of the slow line. */
static int64_t behind_a_backlog(int busy, int quiet, int64_t bytes_per_ms, int rows) {
  net *it = net_start(4);
  cluster *c = it->c;
  join(it, busy, 1, UNBOUND, 0);
  join(it, quiet, 1, UNBOUND, 0);
  join(it, 1, 2, bytes_per_ms, 5);
  run_ms(it, 3000);
  put_backlog(c, &c->peers[busy], rows);
  run_ms(it, 3000);
  put(&c->peers[quiet], 1, 10);
  int64_t ms = ms_until(it, &c->peers[2], c->peers[quiet].id, 1, 120000);
  test_note("%lld ms", (long long)ms);
  return ms;
}

static void a_small_write_does_not_wait_for_a_backlog(void) {
  CHECK(behind_a_backlog(0, 3, 1000, 9000) <= 1000);
  CHECK(behind_a_backlog(3, 0, 1000, 9000) <= 1000);
  CHECK(behind_a_backlog(0, 3, 8, 200) <= 3000);
  CHECK(behind_a_backlog(3, 0, 8, 200) <= 3000);
}

/* How much longer a backlog takes than its bytes would. */
static int64_t percent_of_ideal(int64_t bytes_per_ms, int64_t latency_ms, int rows) {
  net *it = net_start(2);
  cluster *c = it->c;
  put_backlog(c, &c->peers[0], rows);
  int w = join(it, 1, 0, bytes_per_ms, latency_ms);
  line *l = &it->lines[w][0];
  int64_t ms = ms_until(it, &c->peers[1], 101, rows, 600000);
  return ms * 100 / ((int64_t)l->bytes / bytes_per_ms);
}

static void a_backlog_fills_the_line(void) {
  CHECK(percent_of_ideal(1000, 1, 9000) <= 105);
  CHECK(percent_of_ideal(1000, 100, 9000) <= 125);
  CHECK(percent_of_ideal(100, 400, 3000) <= 130);
  CHECK(percent_of_ideal(8, 50, 300) <= 110);
}

/* C - A - D: A has written 8 MB while its clock was an hour ahead. What C writes is at D at once,
 * and little is sent of what D holds. */
static void a_hold_stops_nobody_else(void) {
  net *it = net_start(3);
  cluster *c = it->c;
  peer *a = &c->peers[0];
  a->clock_step_ms = 3600000;
  for (int i = 0; i < 80; i++) put(a, i, 100000);
  join(it, 1, 0, 10000, 5);
  int w = join(it, 2, 0, 10000, 5);
  run_ms(it, 5000);
  a->clock_step_ms = 0;
  put(&c->peers[1], 5000, 10);
  CHECK(ms_until(it, &c->peers[2], 102, 1, 10000) <= 40);
  size_t before = it->lines[w][0].bytes;
  run_ms(it, 60000);
  CHECK(it->lines[w][0].bytes - before <= 64 << 10);
  run_ms(it, 3600000 - 55000);
  run_ms(it, 60000);
  CHECK_INT(peer_at(&c->peers[2], 101), 80);
}

/* The frame that was timed is the one that is held: the next one is timed. */
static void a_hold_does_not_narrow_the_line(void) {
  net *it = net_start(3);
  cluster *c = it->c;
  join(it, 1, 0, UNBOUND, 0);
  put_backlog(c, &c->peers[1], 9000);
  run_ms(it, 3000);
  c->peers[0].clock_step_ms = 3600000;
  put(&c->peers[0], 1, 10);
  int w = join(it, 2, 0, 1000, 100);
  int64_t ms = ms_until(it, &c->peers[2], 102, 9000, 120000);
  CHECK(ms * 100 / ((int64_t)it->lines[w][0].bytes / 1000) <= 130);
}

/* What is held at D was superseded at A meanwhile, and pruned there: it comes by a jump, in time.
 */
static void what_is_held_may_be_pruned(void) {
  net *it = net_start(2);
  cluster *c = it->c;
  peer *a = &c->peers[0], *d = &c->peers[1];
  put(a, 1, 10);
  join(it, 1, 0, 1000, 5);
  run_ms(it, 2000);
  CHECK_INT(peer_at(d, 101), 1);
  a->clock_step_ms = 3600000;
  for (int i = 0; i < 50; i++, c->now_ms++) put(a, i % 2, 10);
  run_ms(it, 3000);
  CHECK_INT(peer_at(d, 101), 1);
  CHECK(peer_compact(a, peer_now(a) + 1000, 1000).removed >= 48);
  a->clock_step_ms = 0;
  c->now_ms += 3540000;
  run_ms(it, 40000);
  CHECK_INT(peer_at(d, 101), 51);
  cluster_same(c, "t");
}

/* What a slow line carries while peer 1 sends 400 rows, for each hundred bytes of them. `held`:
 * peer 2 holds a row of peer 0's, and asks for it time and again. */
static int64_t percent_beside_a_hold(bool held) {
  enum { ROWS = 400 };
  net *it = net_start(3);
  cluster *c = it->c;
  peer *a = &c->peers[0];
  if (held) a->clock_step_ms = 3600000;
  put(a, 1, 10);
  a->clock_step_ms = 0;
  join(it, 1, 0, 10000, 5);
  int w = join(it, 2, 0, 16, 5);
  run_ms(it, 3000);
  put_backlog(c, &c->peers[1], ROWS);
  ms_until(it, &c->peers[2], 102, ROWS, 60000);
  int64_t percent = (int64_t)it->lines[w][0].bytes * 100 / (ROWS * ROW_BYTES);
  test_note("%lld %%", (long long)percent);
  return percent;
}

/* Asking for what is held is not asking for what is on its way. */
static void a_hold_sends_nothing_twice(void) {
  CHECK(percent_beside_a_hold(true) <= percent_beside_a_hold(false) + 1);
}

/* Peer 0 writes while its clock is half a minute behind the clocks of others that it has heard. */
static void a_clock_that_is_behind_makes_no_backlog_one_group(void) {
  net *it = net_start(3);
  cluster *c = it->c;
  join(it, 0, 1, 10000, 5);
  join(it, 1, 2, 16, 5);
  put(&c->peers[1], 5000, 10);
  run_ms(it, 3000);
  c->peers[0].clock_step_ms = -30000;
  for (int i = 0; i < 900; i++, run_ms(it, 1)) put(&c->peers[0], i, ROW_BYTES);
  for (int i = 2; i < 12; i++) {
    put(&c->peers[1], 5000 + i, 10);
    int64_t ms = ms_until(it, &c->peers[2], 102, i, 120000);
    test_note("%lld ms", (long long)ms);
    CHECK(ms <= 3000);
    run_ms(it, 2000);
  }
}

static int64_t acks_of(const net *it, int w) {
  return (int64_t)(it->lines[w][0].acks + it->lines[w][1].acks);
}

/* Each side has always something on its way: an acknowledgement of that is all that is to be said,
 * beside the heartbeat's, and one that answers such, at most one in 3/4 of a heartbeat. */
static void acknowledgements_are_not_answered(void) {
  enum { MS = 10000, EVERY_MS = 20 };
  net *it = net_start(2);
  int w = join(it, 0, 1, 10000, 40);
  run_ms(it, 3000);
  int64_t before = acks_of(it, w), written = 0;
  for (int64_t ms = 0; ms < MS; ms++, run_ms(it, 1)) {
    if (ms % EVERY_MS) continue;
    put(&it->c->peers[0], ms, 10);
    put(&it->c->peers[1], MS + ms, 10);
    written += 2;
  }
  int64_t acks = acks_of(it, w) - before;
  test_note("%lld acknowledgements of %lld patches", (long long)acks, (long long)written);
  CHECK(acks <= written + 2 * 3 * MS / 1000);
}

/* A - C carries half of what A writes, A - B - C all of it. The patch that C lacks is sent by B
 * when it has been there for the grace, however much comes directly meanwhile: the longest time
 * from the writing of a row until it is at C. */
static int64_t longest_beside_a_slow_link(int64_t bytes_per_ms) {
  enum { ROWS = 1600, EVERY_MS = 25 };
  net *it = net_start(3);
  cluster *c = it->c;
  peer *a = &c->peers[0], *there = &c->peers[2];
  int64_t written_ms[ROWS], longest = 0, n = 0;
  join(it, 0, 1, 10000, 5);
  join(it, 1, 2, 10000, 5);
  join(it, 0, 2, bytes_per_ms, 5);
  run_ms(it, 3000);
  for (int64_t ms = 0; n < ROWS; ms++, run_ms(it, 1)) {
    CHECK(ms < ROWS * EVERY_MS + 20000);
    for (; n < peer_at(there, a->id); n++)
      if (c->now_ms - written_ms[n] > longest) longest = c->now_ms - written_ms[n];
    int64_t i = ms / EVERY_MS;
    if (ms % EVERY_MS || i >= ROWS) continue;
    put(a, i, ROW_BYTES);
    written_ms[i] = c->now_ms;
  }
  test_note("%lld ms", (long long)longest);
  return longest;
}

static void a_slow_link_is_helped_after_the_grace(void) {
  CHECK(longest_beside_a_slow_link(20) <= 4100);
  CHECK(longest_beside_a_slow_link(36) <= 4100);
}

/* Milliseconds that what is put on the line now waits until it has left. */
static int64_t queue_ms(const net *it, int w, int side) {
  int64_t ms = it->lines[w][side].free_ms - it->c->now_ms;
  return ms > 0 ? ms : 0;
}

/* 0 - 1 - 2 with a slow line to 2, and 0 - 3 - 2 beside it: 2 has all by the other way, and says
 * so to 1, before it has left the slow line. The longest queue there. */
static void what_comes_another_way_is_still_on_the_line(void) {
  net *it = net_start(4);
  int64_t longest = 0;
  join(it, 0, 1, 10000, 5);
  int slow = join(it, 1, 2, 16, 5);
  join(it, 0, 3, 10000, 5);
  join(it, 3, 2, 10000, 5);
  run_ms(it, 3000);
  for (int64_t ms = 0; ms < 40000; ms++, run_ms(it, 1)) {
    if (ms % 25 == 0) put(&it->c->peers[0], ms / 25, ROW_BYTES);
    if (queue_ms(it, slow, 1) > longest) longest = queue_ms(it, slow, 1);
  }
  test_note("%lld ms", (long long)longest);
  CHECK(longest <= 2200); /* as sim_fair.c bounds it: the first window, doubled once */
}

/* A line of 1,000 bytes a ms has a backlog; then its way back, which is slow, gets one, too. The
 * bytes that the line carries in the 20 s from there on. */
static size_t bytes_beside_a_way_back(int rows_back) {
  net *it = net_start(2);
  put_backlog(it->c, &it->c->peers[0], 30000);
  int w = join(it, 0, 1, 16, 5);
  it->lines[w][1].bytes_per_ms = 1000;
  run_ms(it, 2000);
  for (int i = 0; i < rows_back; i++, run_ms(it, 1)) put(&it->c->peers[1], i, ROW_BYTES);
  size_t before = it->lines[w][1].bytes;
  run_ms(it, 20000);
  test_note("%zu bytes", it->lines[w][1].bytes - before);
  return it->lines[w][1].bytes - before;
}

static void a_full_way_back_narrows_nothing(void) {
  CHECK(bytes_beside_a_way_back(0) >= 18000000);
  CHECK(bytes_beside_a_way_back(1500) >= 15000000);
}

/* C - A - D, slow to D, which holds what A has written: that leaves the window at once, and is on
 * the line still. How long what C has written waits there, when the line is known. */
static void a_hold_is_no_measure_of_the_line(void) {
  net *it = net_start(3);
  cluster *c = it->c;
  peer *a = &c->peers[0];
  int64_t longest = 0;
  join(it, 1, 0, UNBOUND, 0);
  put_backlog(c, &c->peers[1], 1000);
  run_ms(it, 3000);
  a->clock_step_ms = 3600000;
  put_backlog(c, a, 60);
  int w = join(it, 2, 0, 16, 5);
  run_ms(it, 5000);
  for (int64_t ms = 0; ms < 20000; ms++, run_ms(it, 1))
    if (queue_ms(it, w, 0) > longest) longest = queue_ms(it, w, 0);
  test_note("%lld ms", (long long)longest);
  CHECK(peer_at(&c->peers[2], 102) > 200);
  CHECK(longest <= 800);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(a_small_write_does_not_wait_for_a_backlog),
      TEST(a_backlog_fills_the_line),
      TEST(a_hold_stops_nobody_else),
      TEST(a_hold_does_not_narrow_the_line),
      TEST(what_is_held_may_be_pruned),
      TEST(a_hold_sends_nothing_twice),
      TEST(a_clock_that_is_behind_makes_no_backlog_one_group),
      TEST(acknowledgements_are_not_answered),
      TEST(a_slow_link_is_helped_after_the_grace),
      TEST(what_comes_another_way_is_still_on_the_line),
      TEST(a_full_way_back_narrows_nothing),
      TEST(a_hold_is_no_measure_of_the_line),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

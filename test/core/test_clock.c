/* test_clock.c - _patchedAt: monotonic whatever the wall clock does, and never led astray by a peer
 * whose clock is wrong. */
#include <string.h>

#include "frames.h"

#define DDL                                                                                        \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE t_patches(_patchedAt INTEGER NOT " \
  "NULL, "                                                                                         \
  "_sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, id INTEGER, v TEXT);"

/* Writes one row, of so many bytes, and returns the clock that it got. */
static int64_t stamp_row(peer *p, size_t len) {
  char *text = test_alloc(len + 1);
  memset(text, 'x', len);
  text[len] = 0;
  int64_t sequence = upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_text(text)}));
  return sql_int(
      peer_sql(p),
      test_format("SELECT _patchedAt FROM t_patches WHERE _peerId = %lu AND _sequenceId = %lld",
                  (unsigned long)p->id, (long long)sequence));
}

static int64_t stamp(peer *p) {
  return stamp_row(p, 1);
}

static void the_wall_clock_is_taken(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  CHECK_INT(stamp(p), c->now_ms);
  CHECK_INT(stamp(p), c->now_ms); /* the same moment: the sequence keeps them apart */
  c->now_ms += 1;
  CHECK_INT(stamp(p), c->now_ms);
  c->now_ms += 86400000;
  CHECK_INT(stamp(p), c->now_ms);
}

static void steps_back_do_not_show(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  int64_t high = stamp(p);
  c->now_ms -= 3600000;
  CHECK_INT(stamp(p), high);
  c->now_ms += 10;
  CHECK_INT(stamp(p), high);
  c->now_ms += 3600000;
  CHECK_INT(stamp(p), high + 10);
}

static void a_restart_keeps_the_high_water(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  int64_t high = stamp(p);
  peer_stop(p);
  c->now_ms -= 3600000;
  peer_start(p);
  int64_t next = stamp(p);
  CHECK(next >= high && next <= high + 1);
  c->now_ms = high + 500;
  CHECK_INT(stamp(p), high + 500);
}

static void a_patch_from_elsewhere_moves_it_by_one(void) {
  cluster *c = cluster_start(2, DDL);
  wire_open(c, 0, 1);
  cluster_settle(c);
  c->peers[1].clock_step_ms = 5000;
  int64_t theirs = stamp(&c->peers[1]);
  CHECK_INT(theirs, c->now_ms + 5000);
  cluster_settle(c);
  CHECK_INT(stamp(&c->peers[0]), theirs + 1);
  CHECK_INT(stamp(&c->peers[0]), theirs + 1);
  cluster_settle(c);
  c->peers[1].clock_step_ms = 0;
  CHECK_INT(stamp(&c->peers[1]), theirs + 1); /* of the same clock the greater peerId comes later */
  CHECK_INT(replic_clock_raised_by(c->peers[1].r), 101);
  cluster_settle(c);
  peer_stop(&c->peers[0]);
  peer_start(&c->peers[0]);
  CHECK_INT(stamp(&c->peers[0]), theirs + 2);
}

/* How far the clock of `n` peers gets ahead, each of which answers what the one before it has
 * written: `hops` of them, of which `per_ms` happen in a millisecond, each with two rows of `len`.
 */
static int64_t lead_of_a_chain(int n, int hops, int per_ms, int64_t ahead, size_t len) {
  cluster *c = cluster_start(n, DDL);
  for (int i = 0; i < n; i++) wire_open(c, i, (i + 1) % n);
  cluster_settle(c);
  c->peers[n - 1].clock_step_ms = ahead;
  int64_t lead = 0;
  for (int i = 0; i < hops; i++) {
    peer *p = &c->peers[i % n];
    stamp_row(p, len);
    c->now_ms += replic_must_wait(p->r);
    int64_t lag = stamp_row(p, len) - c->now_ms;
    if (lag > lead) lead = lag;
    c->now_ms += replic_must_wait(p->r) || i % per_ms == 0;
    cluster_deliver(c);
  }
  cluster_settle(c);
  cluster_same(c, "t");
  return lead;
}

/* Without a bound they would be 1 ms ahead for every hop or two. */
static void peers_that_answer_each_other_stay_near_time(void) {
  CHECK(lead_of_a_chain(2, 2000, 50, 0, 1) <= 250);
  CHECK(lead_of_a_chain(3, 2000, 50, 0, 1) <= 250);
  CHECK(lead_of_a_chain(5, 1500, 30, 3, 1) <= 250);
  CHECK(lead_of_a_chain(3, 1500, 50, 0, 3000) <= 250);  /* a row ends a group */
  CHECK(lead_of_a_chain(2, 2000, 50, 5000, 1) <= 5250); /* nor where a clock is wrong */
}

static void what_is_rolled_back_leaves_no_trace(void) {
  cluster *c = cluster_start(2, DDL);
  peer *p = &c->peers[0];
  int64_t high = stamp(p);
  static const char *const COLUMNS[] = {"id"};
  const replic_value id = v_int(1);
  const replic_change change = {REPLIC_UPSERT, "t", 1, COLUMNS, 1, &id};
  int64_t sequence;
  c->now_ms += 1000;
  peer_begin(p);
  CHECK_OK(p->r, replic_write(p->r, &change, 1, &sequence));
  peer_rollback(p);
  c->now_ms -= 1000;
  CHECK_INT(stamp(p), high);
}

/* A local call that fails does not move the clock. A received patch does, also one that this schema
 * cannot store: it is kept, and counts as applied. */
static void what_fails_in_a_batch_leaves_no_trace(void) {
  cluster *c = cluster_start(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT; "
                                "CREATE TABLE t_patches(_patchedAt "
                                "INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER "
                                "NOT NULL, id INTEGER, v TEXT) STRICT;");
  peer *p = &c->peers[0];
  int64_t high = stamp(p);
  static const char *const COLUMNS[] = {"id"}, *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  const replic_value id = v_int(2), wrong[] = {v_text("no number"), v_text("v")};
  const replic_change incomplete = {REPLIC_UPSERT, "t", 1, COLUMNS, 1, &id};
  int64_t sequence;
  int w = wire_open_test(c, 0);
  play(c, w, hello_frame(900, c->now_ms, NULL, 0));
  play(c, w, schema_frame(1, "t", 1, 2, FIELDS));
  bytes *frame = patches_frame(900, 0, 1);
  add_patch(frame, 1, true, (uint64_t)c->now_ms + 30000, 1, 1, 2, wrong);
  frame = whole(frame->data, frame->len);
  c->now_ms += 1000;
  peer_begin(p);
  CHECK_CODE(p->r, replic_write(p->r, &incomplete, 1, &sequence), SQLITE_CONSTRAINT_NOTNULL);
  CHECK_OK(p->r, peer_commit(p));
  c->now_ms -= 1000;
  CHECK_INT(stamp(p), high);
  peer_begin(p);
  CHECK_OK(p->r, replic_receive(p->r, c->wires[w].number, frame->data, frame->len));
  CHECK_OK(p->r, peer_commit(p));
  CHECK_INT(peer_at(p, 900), 1);
  CHECK_INT(stamp(p), c->now_ms + 30001); /* the patch came from 30,000 ms ahead */
}

/* A group has one clock; many patches at one moment are split into runs, so that what is read from
 * the log stays small. */
static void runs_of_one_clock_are_bounded(void) {
  cluster *c = cluster_start(2, DDL);
  peer *p = &c->peers[0];
  static const char *const COLUMNS[] = {"id", "v"};
  enum { N = 3000 };
  replic_value *values = test_alloc(2 * N * sizeof *values);
  for (int i = 0; i < N; i++) {
    values[2 * i] = v_int(i);
    values[2 * i + 1] = v_text("v");
  }
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, N, values};
  int64_t sequence;
  CHECK_OK(p->r, try_write(p, &change, 1, &sequence));
  CHECK_INT(sequence, N);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(DISTINCT _patchedAt) FROM t_patches"), 1);
  peer_begin(p);
  for (int i = 0; i < 2500; i++) {
    const replic_change one = {REPLIC_UPSERT, "t", 2, COLUMNS, 1, values + 2 * i};
    CHECK_OK(p->r, replic_write(p->r, &one, 1, &sequence));
  }
  CHECK_OK(p->r, peer_commit(p));
  CHECK(sql_int(peer_sql(p), "SELECT max(n) FROM (SELECT count(*) AS n FROM t_patches WHERE "
                             "_sequenceId > 3000 GROUP BY _patchedAt)") <= 1000);
  CHECK_INT(
      sql_int(
          peer_sql(p),
          "SELECT count(*) FROM t_patches a JOIN t_patches b ON b._sequenceId = a._sequenceId + 1 "
          "WHERE b._patchedAt < a._patchedAt"),
      0);
  wire_open(c, 0, 1);
  cluster_settle(c);
  cluster_same(c, "t_patches");
}

/* Peer 1's clock is `ahead` of peer 0's; both write. */
static cluster *skewed(int64_t ahead) {
  cluster *c = cluster_start(2, DDL);
  c->peers[1].clock_step_ms = ahead;
  wire_open(c, 0, 1);
  cluster_deliver(c);
  stamp(&c->peers[1]);
  upsert(&c->peers[0], "t", ROW({"id", v_int(2)}, {"v", v_text("mine")}));
  cluster_deliver(c);
  return c;
}

static const char *held(const peer *p) {
  replic_link_info info;
  CHECK(replic_link_at(p->r, 0, &info));
  return info.held;
}

static void the_largest_skew_is_accepted(void) {
  cluster *c = skewed(60000);
  CHECK_INT(peer_at(&c->peers[0], 102), 1);
  CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_LINK_ERROR), 0);
}

static void skew_beyond_the_limit_is_held_and_reported(void) {
  cluster *c = skewed(60001);
  peer *p = &c->peers[0], *q = &c->peers[1];
  CHECK_INT(peer_at(p, 102), 0);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 1);
  CHECK_INT(peer_at(q, 101), 1); /* the other way is open: only future skew is checked */
  const replic_event *mine = event_last(p, REPLIC_EVENT_LINK_ERROR),
                     *theirs = event_last(q, REPLIC_EVENT_LINK_ERROR);
  CHECK_INT(mine->code, REPLIC_ECLOCKSKEW);
  CHECK_INT(theirs->code, REPLIC_ECLOCKSKEW);
  replic_counters counters[2];
  replic_get_counters(p->r, &counters[0]);
  replic_get_counters(q->r, &counters[1]);
  CHECK_INT(counters[0].skew_refusals, 1);
  CHECK_INT(counters[1].skew_refusals, 0);
  CHECK_INT(mine->peer, 102);
  CHECK_INT(theirs->peer, 101);
  CHECK_CONTAINS(mine->text, test_format("%lld", (long long)c->now_ms));
  CHECK_CONTAINS(mine->text, test_format("%lld", (long long)c->now_ms + 60001));
  CHECK_CONTAINS(theirs->text, test_format("%lld", (long long)c->now_ms + 60001));
  CHECK_CONTAINS(held(p), "60000");
  CHECK(held(q) == NULL);
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE) + event_count(q, REPLIC_EVENT_LINK_CLOSE), 0);
  replic_link_info info;
  CHECK(replic_link_at(q->r, 0, &info));
  CHECK_INT(info.lag, 1); /* not acknowledged (I5) */

  c->now_ms += 7;
  CHECK_INT(stamp(p), c->now_ms); /* the clock has not been moved */
}

static void held_patches_are_applied_once_the_time_has_come(void) {
  cluster *c = skewed(90000);
  peer *p = &c->peers[0], *q = &c->peers[1];
  q->clock_step_ms = 0; /* corrected; what it has written stays ahead for half a minute */
  cluster_beat(c, 20);
  CHECK_INT(peer_at(p, 102), 0);
  cluster_beat(c, 20);
  CHECK_INT(peer_at(p, 102), 1);
  CHECK(held(p) == NULL);
  cluster_settle(c);
  cluster_same(c, "t");
}

/* A peer that goes on writing with a wrong clock is refused in few words. */
static void a_held_link_stays_quiet(void) {
  cluster *c = skewed(3600000);
  peer *p = &c->peers[0], *q = &c->peers[1];
  cluster_beat(c, 1);
  replic_counters before, after;
  replic_get_counters(q->r, &before);
  peer_forget_events(p);
  peer_forget_events(q);
  for (int beat = 0; beat < 30; beat++) {
    for (int i = 0; i < 20; i++) stamp(q);
    cluster_beat(c, 1);
  }
  replic_get_counters(q->r, &after);
  CHECK_INT(peer_at(p, 102), 0);
  CHECK(event_count(p, REPLIC_EVENT_LINK_ERROR) <= 7); /* one per attempt */
  CHECK(event_count(q, REPLIC_EVENT_LINK_ERROR) <= 7);
  CHECK(after.retransmissions - before.retransmissions <= 7 * 600);
}

/* Only the patches that are too far ahead wait; what the same origin wrote before is applied. */
static void patches_before_the_skew_are_applied(void) {
  cluster *c = cluster_start(2, DDL);
  peer *q = &c->peers[1];
  for (int i = 1; i <= 3; i++) {
    upsert(q, "t", ROW({"id", v_int(i)}, {"v", v_text("early")}));
    c->now_ms += 1;
  }
  q->clock_step_ms = 100000;
  for (int i = 1; i <= 3; i++) upsert(q, "t", ROW({"id", v_int(i)}, {"v", v_text("late")}));
  wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[0], 102), 3);
  CHECK_INT(sql_int(peer_sql(&c->peers[0]), "SELECT count(*) FROM t WHERE v = 'early'"), 3);
  cluster_settle(c);
  cluster_same(c, "t");
}

/* A is 59 s ahead and D 2 s behind, B between them is right: D holds what both have written, though
 * its only link differs by 2 s. The text says what adds up, and names A. */
static void skew_that_adds_up_is_explained(void) {
  cluster *c = cluster_start(3, DDL);
  peer *a = &c->peers[0], *b = &c->peers[1], *d = &c->peers[2];
  a->clock_step_ms = 59000;
  d->clock_step_ms = -2000;
  wire_open(c, 0, 1);
  wire_open(c, 1, 2);
  cluster_deliver(c);
  stamp(a);
  cluster_deliver(c);
  peer_forget_events(d);
  CHECK_INT(stamp(b), c->now_ms + 59000);
  cluster_deliver(c);
  CHECK_INT(peer_at(d, 101) + peer_at(d, 102), 0);
  const replic_event *mine = event_last(d, REPLIC_EVENT_LINK_ERROR),
                     *theirs = event_last(b, REPLIC_EVENT_LINK_ERROR);
  CHECK_CONTAINS(mine->text,
                 test_format("patch 102.1 is stamped %lld, 61000 ms ahead of peer 103, whose clock "
                             "says %lld",
                             (long long)c->now_ms + 59000, (long long)c->now_ms - 2000));
  CHECK_CONTAINS(mine->text, "the clock of peer 102, which brings it, is 2000 ms ahead of peer "
                             "103, and the stamp 59000 ms ahead of peer 102, as peer 101 set it");
  CHECK_CONTAINS(mine->text, "Correct the clock of peer 101");
  CHECK_CONTAINS(theirs->text, mine->text);
}

/* The same where the receiver is what is wrong, and where a stamp is left of a clock that is right
 * by now. */
static void either_part_of_a_skew_may_be_none(void) {
  const char *const AGREES = "the clock of peer 102, which brings it, is 60001 ms ahead of peer "
                             "101, and the stamp is not ahead of peer 102. Correct the clock of "
                             "peer 101 or of peer 102";
  CHECK_CONTAINS(event_last(&skewed(60001)->peers[0], REPLIC_EVENT_LINK_ERROR)->text, AGREES);
  test_release();
  cluster *c = cluster_start(2, DDL);
  c->peers[1].clock_step_ms = 90000;
  stamp(&c->peers[1]);
  c->peers[1].clock_step_ms = -10;
  wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK_CONTAINS(event_last(&c->peers[0], REPLIC_EVENT_LINK_ERROR)->text,
                 "is 10 ms behind peer 101, and the stamp 90010 ms ahead of peer 102, as peer 102 "
                 "set it");
}

/* Who answers at once is a little further ahead each time, and leads nobody. */
static void who_follows_is_not_named(void) {
  cluster *c = cluster_start(4, DDL);
  for (int i = 1; i < 4; i++) wire_open(c, i - 1, i);
  cluster_settle(c);
  c->peers[0].clock_step_ms = 30000;
  stamp(&c->peers[0]);
  cluster_deliver(c);
  for (int i = 1; i < 9; i++) {
    stamp(&c->peers[1 + i % 2]);
    cluster_deliver(c);
  }
  for (int i = 1; i < 4; i++) CHECK_INT(replic_clock_raised_by(c->peers[i].r), 101);
  c->peers[2].clock_step_ms = 31000;
  stamp(&c->peers[2]);
  cluster_deliver(c);
  CHECK_INT(replic_clock_raised_by(c->peers[3].r), 103);
}

/* ---- the clock of this machine, against those of others ---- */

static size_t warnings(const peer *p) {
  return event_count(p, REPLIC_EVENT_ERROR);
}

/* A hub and three more: one of them is a quarter of maxClockSkewMs off, and says so, once; the
 * others and the hub are right, as most of those that they are linked to. */
static void who_is_off_says_so_itself(void) {
  for (int sign = -1; sign <= 1; sign += 2) {
    cluster *c = cluster_start(4, DDL);
    for (int i = 0; i < 4; i++)
      for (int k = 0; k < i; k++) wire_open(c, i, k);
    cluster_beat(c, 1);
    peer *p = &c->peers[2];
    p->clock_step_ms = sign * 15001;
    cluster_beat(c, 6);
    for (int i = 0; i < 4; i++) CHECK_INT(warnings(&c->peers[i]), i == 2);
    const replic_event *event = event_last(p, REPLIC_EVENT_ERROR);
    CHECK_INT(event->code, REPLIC_ECLOCKSKEW);
    CHECK_CONTAINS(event->text,
                   test_format("the clock of this peer (103) is 15001 ms %s most of the 3 peers",
                               sign > 0 ? "ahead of" : "behind"));
    CHECK_INT(replic_clock_off(p->r), sign * 15001);
    CHECK_INT(replic_clock_off(c->peers[0].r), 0);
    p->clock_step_ms = sign * 14000; /* not told again while it is about there */
    cluster_beat(c, 3);
    p->clock_step_ms = sign * 16000;
    cluster_beat(c, 3);
    CHECK_INT(warnings(p), 1);
    p->clock_step_ms = 0;
    cluster_beat(c, 3);
    CHECK_INT(replic_clock_off(p->r), 0);
    p->clock_step_ms = sign * 16000;
    cluster_beat(c, 3);
    CHECK_INT(warnings(p), 2);
    test_release();
  }
}

/* Of two nobody can tell. */
static void two_that_differ_both_say_so(void) {
  cluster *c = cluster_start(2, DDL);
  c->peers[1].clock_step_ms = 20000;
  wire_open(c, 0, 1);
  wire_open(c, 0, 1); /* counts once */
  cluster_beat(c, 3);
  for (int i = 0; i < 2; i++) CHECK_INT(warnings(&c->peers[i]), 1);
  CHECK_CONTAINS(event_last(&c->peers[0], REPLIC_EVENT_ERROR)->text,
                 "is 20000 ms behind peer 102, the only one");
  wire_cut(c, 0);
  wire_cut(c, 1);
  cluster_beat(c, 1);
  CHECK_INT(replic_clock_off(c->peers[0].r), 0);
}

static void an_impossible_time_is_refused(void) {
  cluster *c = cluster_start(1, DDL);
  peer *p = &c->peers[0];
  CHECK_CODE(p->r, replic_begin(p->r, -1), REPLIC_ERANGE);
  CHECK_CODE(p->r, replic_begin(p->r, REPLIC_MAX_CLOCK), REPLIC_ERANGE);
  CHECK_CONTAINS(replic_error_text(p->r), "set the system's time");
  CHECK_INT(stamp(p), c->now_ms);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(the_wall_clock_is_taken),
      TEST(steps_back_do_not_show),
      TEST(a_restart_keeps_the_high_water),
      TEST(a_patch_from_elsewhere_moves_it_by_one),
      TEST(peers_that_answer_each_other_stay_near_time),
      TEST(what_is_rolled_back_leaves_no_trace),
      TEST(what_fails_in_a_batch_leaves_no_trace),
      TEST(runs_of_one_clock_are_bounded),
      TEST(the_largest_skew_is_accepted),
      TEST(skew_beyond_the_limit_is_held_and_reported),
      TEST(held_patches_are_applied_once_the_time_has_come),
      TEST(a_held_link_stays_quiet),
      TEST(patches_before_the_skew_are_applied),
      TEST(skew_that_adds_up_is_explained),
      TEST(either_part_of_a_skew_may_be_none),
      TEST(who_follows_is_not_named),
      TEST(who_is_off_says_so_itself),
      TEST(two_that_differ_both_say_so),
      TEST(an_impossible_time_is_refused),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

/* test_jump.c - past what a log has pruned: the source's surviving patches are staged, and when all
 * are there the vector is set to the source's. Whatever breaks, dies, gets lost or goes on being
 * written meanwhile, it goes on from where it was, and everybody has the same in the end. */
#include <stdio.h>
#include <string.h>

#include "core.h"
#include "frames.h"
#include "model.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls "   \
  "TEXT, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE t_patches(" CLOCK "id INTEGER, a, "  \
  "b);"
#define S                                                                                          \
  "CREATE TABLE s(k TEXT NOT NULL PRIMARY KEY, must TEXT NOT NULL, n INTEGER) WITHOUT ROWID;"      \
  "CREATE TABLE s_patches(" CLOCK "k TEXT, must TEXT, n INTEGER);"
#define U                                                                                          \
  "CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE TABLE u_patches(" CLOCK                  \
  "id INTEGER, w TEXT);"

enum { ALL = 1000000, N_FRAMES = FORK + 1 };

static void put(peer *p, int64_t id, const char *column, int64_t value) {
  upsert(p, "t", ROW({"id", v_int(id)}, {column, v_int(value)}));
  p->cluster->now_ms++;
}

/* `n` rows, each written `times` times. */
static void put_rows(peer *p, int64_t first, int64_t n, int times) {
  for (int i = 0; i < times; i++)
    for (int64_t id = first; id < first + n; id++) put(p, id, i % 2 ? "a" : "b", i);
}

static void prune(peer *p) {
  CHECK(peer_compact(p, peer_now(p), ALL).done);
}

static replic_link_info info_of(const peer *p, size_t index) {
  replic_link_info info = {0};
  CHECK(replic_link_at(p->r, index, &info));
  return info;
}

static replic_counters counters_of(const peer *p) {
  replic_counters counters;
  replic_get_counters(p->r, &counters);
  return counters;
}

/* Pieces of a few patches, and few of them on their way. */
static cluster *small_pieces(int n, const char *ddl) {
  cluster *c = cluster_new();
  for (int i = 0; i < n; i++) {
    peer *p = cluster_add(c);
    p->config.slice_bytes = 60;
    p->config.window_bytes = 200;
    peer_start(p);
    CHECK_OK(p->r, try_migrate(p, 1, ddl, ""));
  }
  return c;
}

/* The next frame on its way, or false: a wire and a side. Sides take turns. */
static bool next_frame(const cluster *c, int *w, int *side) {
  for (int i = 0; i < c->n_wires; i++)
    for (int k = 0; k < 2; k++) {
      int s = (int)(c->frames_delivered + k) % 2;
      if (c->wires[i].peers[s] < 0 || c->wires[i].to[s].n == 0) continue;
      *w = i;
      *side = s;
      return true;
    }
  return false;
}

/* Delivers at most n frames; counts[type] grows. Returns how many there were. */
static int deliver(cluster *c, int n, int *counts) {
  int delivered = 0, w, side;
  for (; delivered < n && next_frame(c, &w, &side); delivered++) {
    if (counts) counts[c->wires[w].to[side].packets[0].data[1]]++;
    wire_deliver(c, w, side, 0);
  }
  return delivered;
}

static int64_t staged(peer *p) {
  return sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged");
}

static int64_t staged_from(peer *p, uint32_t source) {
  return sql_int(peer_sql(p), test_format("SELECT count(*) FROM _replic_staged WHERE source = %lu",
                                          (unsigned long)source));
}

/* Until so many pieces are staged. */
static void deliver_until_staged(cluster *c, peer *p, int64_t n) {
  for (int i = 0; staged(p) < n; i++) {
    CHECK(i < 1000);
    CHECK_INT(deliver(c, 1, NULL), 1);
  }
}

/* Memory is disk (I3), the counts agree with the log, nothing is staged any more. */
static void check_settled(cluster *c) {
  for (int i = 0; i < c->n_peers; i++) {
    peer *p = &c->peers[i];
    if (!p->r) continue;
    int64_t rows = 0;
    for (size_t t = 0; t < replic_table_count(p->r); t++)
      rows += sql_int(peer_sql(p), test_format("SELECT count(*) FROM %s_patches",
                                               replic_table_at(p->r, t)->name));
    CHECK_INT(replic_log_rows(p->r), rows);
    CHECK_INT(staged(p), 0);
    for (size_t k = 0; k < p->r->n_vector; k++) {
      const replic__entry *entry = &p->r->vector[k];
      CHECK_TEXT(sql_text(peer_sql(p),
                          test_format("SELECT coalesce((SELECT sequence || ' ' || floor || ' ' || "
                                      "missing FROM _replic_vector WHERE origin = %lu), '0 0 0')",
                                      (unsigned long)entry->now.origin)),
                 test_format("%lld %lld %lld", (long long)entry->now.sequence,
                             (long long)entry->pruned.floor, (long long)entry->pruned.missing));
    }
  }
  cluster_same(c, "t");
}

/* ---- the plain case ---- */

static void an_empty_peer_gets_past_a_pruned_log(void) {
  cluster *c = small_pieces(3, T S);
  peer *p = &c->peers[0], *q = &c->peers[1];
  put_rows(p, 0, 30, 5);
  upsert(p, "s", ROW({"k", v_text("k")}, {"must", v_text("must")}, {"n", v_null()}));
  upsert(p, "s", ROW({"k", v_text("k")}, {"n", v_int(1)}));
  c->now_ms++;
  prune(p);
  CHECK_INT(replic_log_rows(p->r), 62);
  wire_open(c, 0, 1);
  int counts[N_FRAMES] = {0};
  deliver_until_staged(c, q, 2);
  CHECK_INT(info_of(p, 0).jump, REPLIC_JUMP_SENDING);
  CHECK_INT(info_of(q, 0).jump, REPLIC_JUMP_RECEIVING);
  CHECK(info_of(q, 0).staged > 0);
  CHECK_INT(info_of(q, 0).behind, 152);
  CHECK_INT(info_of(p, 0).lag, 152);
  CHECK_TEXT(peer_dump(q, "t"), ""); /* nothing is visible before all is there */
  CHECK_INT(peer_at(q, 101), 0);
  CHECK_INT(sql_int(peer_sql(q), "SELECT count(*) FROM t_patches"), 0);
  deliver(c, ALL, counts); /* no heartbeat is needed */
  CHECK_INT(peer_at(q, 101), 152);
  CHECK(counts[STAGE] >= 3);
  CHECK_INT(counts[PATCHES], 0);
  CHECK_INT(counters_of(q).jumps, 1);
  CHECK_INT(counters_of(q).patches_applied, replic_log_rows(p->r));
  CHECK_INT(counters_of(q).patches_staged, replic_log_rows(p->r));
  CHECK_INT(counters_of(q).jumps_abandoned + counters_of(q).jumps_resumed, 0);
  CHECK_INT(counters_of(p).retransmissions, 0);
  CHECK_INT(info_of(p, 0).jump + info_of(q, 0).jump, REPLIC_JUMP_NONE);
  CHECK_INT(info_of(p, 0).lag + info_of(q, 0).behind + info_of(p, 0).unacked_bytes, 0);
  CHECK_INT(event_count(p, REPLIC_EVENT_SYNCED), 1);
  CHECK_INT(event_count(q, REPLIC_EVENT_SYNCED), 1);
  CHECK_INT(event_last(q, REPLIC_EVENT_VECTOR)->a, 152);
  cluster_beat(c, 3);
  CHECK_INT(event_count(p, REPLIC_EVENT_ERROR) + event_count(q, REPLIC_EVENT_ERROR), 0);
  put(q, 3, "a", 77); /* and life goes on */
  put(p, 4, "a", 78);
  wire_open(c, 1, 2); /* who has jumped is a source in turn */
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[2], 101), 153);
  CHECK_INT(counters_of(&c->peers[2]).jumps, 1);
  check_settled(c);
  cluster_same(c, "s");
  cluster_same(c, "t_patches");
  cluster_same(c, "s_patches");
  CHECK_INT(peer_compact(q, c->now_ms, ALL).removed,
            2); /* the cursor of q begins at the beginning */
}

static void a_peer_away_for_longer_than_the_retention(void) {
  cluster *c = small_pieces(2, T);
  peer *p = &c->peers[0], *q = &c->peers[1];
  int w = wire_open(c, 0, 1);
  put_rows(p, 0, 4, 2);
  put_rows(q, 4, 4, 2);
  cluster_settle(c);
  wire_cut(c, w);
  put_rows(p, 2, 4, 6);
  put_rows(q, 0, 3, 2); /* not pruned: goes by plain frames */
  prune(p);
  wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK_INT(peer_at(q, 101), 32);
  CHECK_INT(peer_at(p, 102), 14);
  CHECK_INT(counters_of(q).jumps, 1);
  CHECK_INT(counters_of(p).jumps, 0);
  check_settled(c);
}

/* Two groups that have not heard of each other for longer than the retention: each side jumps. */
static void two_groups_find_each_other_again(void) {
  cluster *c = small_pieces(6, T);
  for (int i = 0; i < 6; i += 3) {
    wire_open(c, i, i + 1);
    wire_open(c, i + 1, i + 2);
  }
  int between = wire_open(c, 2, 3);
  for (int i = 0; i < 6; i++) put_rows(&c->peers[i], i, 2, 1);
  cluster_settle(c);
  wire_cut(c, between);
  for (int round = 0; round < 5; round++)
    for (int i = 0; i < 6; i++) put_rows(&c->peers[i], (i + round) % 7, 2, 2);
  cluster_beat(c, 5);
  for (int i = 0; i < 6; i++) prune(&c->peers[i]);
  wire_open(c, 0, 5); /* not where they were linked before */
  cluster_settle(c);
  for (int i = 0; i < 6; i++) CHECK(counters_of(&c->peers[i]).jumps >= 1);
  check_settled(c);
}

static void a_chain_of_empty_peers(void) {
  cluster *c = small_pieces(4, T);
  put_rows(&c->peers[0], 0, 6, 5);
  prune(&c->peers[0]);
  for (int i = 3; i > 0; i--) wire_open(c, i - 1, i);
  cluster_settle(c);
  for (int i = 1; i < 4; i++) CHECK_INT(counters_of(&c->peers[i]).jumps, 1);
  check_settled(c);
}

/* Of many peers that could be the source, one is: not everything from each. */
static void one_source_at_a_time(void) {
  enum { N = 5 };
  cluster *c = small_pieces(N, T);
  for (int i = 1; i < N - 1; i++) wire_open(c, 0, i);
  put_rows(&c->peers[0], 0, 20, 3);
  cluster_deliver(c);
  for (int i = 0; i < N - 1; i++) prune(&c->peers[i]);
  for (int i = 0; i < N - 1; i++) wire_open(c, i, N - 1);
  int counts[N_FRAMES] = {0};
  deliver(c, ALL, counts);
  peer *q = &c->peers[N - 1];
  CHECK_INT(peer_at(q, 101), 60);
  CHECK_INT(counters_of(q).patches_staged, replic_log_rows(q->r));
  check_settled(c);
}

/* A group is one piece, however large it is. */
static void a_group_larger_than_window_and_slice(void) {
  enum { N = 500 };
  cluster *c = small_pieces(2, T);
  static const char *const COLUMNS[] = {"id", "a"};
  replic_value *values = test_alloc(2 * N * sizeof *values);
  for (int i = 0; i < N; i++) {
    values[2 * i] = v_int(i);
    values[2 * i + 1] = v_int(1);
  }
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, N, values};
  int64_t sequence;
  CHECK_OK(c->peers[0].r, try_write(&c->peers[0], &change, 1, &sequence));
  c->now_ms++;
  put_rows(&c->peers[0], 0, 3, 2);
  prune(&c->peers[0]);
  wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[1], 101), N + 6);
  check_settled(c);
}

/* ---- links break, peers start anew, sources change ---- */

/* A link that breaks after k frames, for every k, and perhaps somebody starts anew; then one that
 * lasts. */
static void a_link_that_breaks_once_anywhere(void) {
  enum { NOBODY = -1, SOURCE, RECEIVER };
  int whole = 0;
  for (int who = NOBODY; who <= RECEIVER; who++) {
    for (int k = 0; k == 0 || k <= whole; k++) {
      test_note("cut after %d frames, %d starts anew", k, who);
      cluster *c = small_pieces(2, T);
      put_rows(&c->peers[0], 0, 8, 3);
      prune(&c->peers[0]);
      int counts[N_FRAMES] = {0};
      int w = wire_open(c, 0, 1);
      if (k == 0) { /* the uninterrupted one, for comparison */
        whole = deliver(c, ALL, counts);
        test_release();
        continue;
      }
      deliver(c, k, counts);
      wire_cut(c, w);
      if (who != NOBODY) {
        peer_stop(&c->peers[who]);
        peer_start(&c->peers[who]);
      }
      int64_t kept = staged(&c->peers[1]);
      wire_open(c, 0, 1);
      int again[N_FRAMES] = {0};
      deliver(c, ALL, again);
      CHECK_INT(peer_at(&c->peers[1], 101), 24);
      if (kept) CHECK_INT(counters_of(&c->peers[1]).jumps_resumed, 1);
      if (who != RECEIVER) CHECK_INT(counters_of(&c->peers[1]).jumps, 1);
      CHECK_INT(counters_of(&c->peers[1]).jumps_abandoned, 0);
      check_settled(c);
      test_release();
    }
  }
}

static cluster *long_jump(void) {
  cluster *c = small_pieces(2, T);
  put_rows(&c->peers[0], 0, 100, 3);
  prune(&c->peers[0]);
  return c;
}

/* Every link breaks after k frames, and now and then somebody starts anew: HELLO and TAKE go again,
 * what is staged does not. */
static void links_that_break_every_few_frames(void) {
  int whole[N_FRAMES] = {0};
  cluster *c = long_jump();
  wire_open(c, 0, 1);
  deliver(c, ALL, whole);
  CHECK(whole[STAGE] > 20);
  test_release();
  for (int k = 9; k < 40; k += 3) {
    test_note("every link breaks after %d frames", k);
    c = long_jump();
    int counts[N_FRAMES] = {0}, links = 0;
    for (; peer_at(&c->peers[1], 101) < 300; links++) {
      CHECK(links < 100);
      int w = wire_open(c, 0, 1);
      deliver(c, k, counts);
      wire_cut(c, w);
      peer *starts_anew = &c->peers[links % 2];
      if (links % 3 == 2) {
        peer_stop(starts_anew);
        peer_start(starts_anew);
      }
      c->now_ms += 3000;
    }
    CHECK_INT(counts[PATCHES], 0);
    CHECK(counts[STAGE] <= whole[STAGE] + links); /* what has arrived is not sent again */
    test_note("%d links of %d frames: %d pieces instead of %d", links, k, counts[STAGE],
              whole[STAGE]);
    wire_open(c, 0, 1);
    cluster_settle(c);
    check_settled(c);
    test_release();
  }
}

/* Peers 0 and 1 have everything, and have pruned it; what 0 has staged at 2 is half of it. */
static cluster *half_jumped(int *w) {
  cluster *c = small_pieces(3, T);
  int between = wire_open(c, 0, 1);
  put_rows(&c->peers[0], 0, 10, 3);
  put_rows(&c->peers[1], 5, 10, 3);
  cluster_deliver(c);
  wire_cut(c, between);
  prune(&c->peers[0]);
  prune(&c->peers[1]);
  *w = wire_open(c, 0, 2);
  deliver_until_staged(c, &c->peers[2], 4);
  CHECK_INT(peer_at(&c->peers[2], 101) + peer_at(&c->peers[2], 102), 0);
  return c;
}

static void the_source_changes_in_the_middle(void) {
  for (int more = 0; more < 3;
       more++) { /* the second one is as the first, ahead of it, behind it */
    test_note("case %d", more);
    int w;
    cluster *c = half_jumped(&w);
    peer *q = &c->peers[2];
    wire_cut(c, w);
    if (more) put_rows(&c->peers[more == 1 ? 1 : 0], 3, 8, 2);
    prune(&c->peers[more == 1 ? 1 : 0]);
    w = wire_open(c, 1, 2);
    for (int i = 0; staged_from(q, 102) == 0; i++) {
      CHECK(i < 100);
      deliver(c, 1, NULL);
    }
    CHECK(staged_from(q, 101) >= 4); /* it counts for nothing here, but the first may come back */
    deliver(c, ALL, NULL);
    CHECK_INT(staged(q), 0);
    CHECK_INT(peer_at(q, 101), 30);
    CHECK_INT(peer_at(q, 102), more == 1 ? 46 : 30);
    CHECK_INT(counters_of(q).jumps, 1);
    CHECK_INT(counters_of(q).jumps_abandoned, 1);
    CHECK_TEXT(peer_dump(q, "t"), peer_dump(&c->peers[1], "t"));
    wire_open(c, 0, 1);
    cluster_settle(c);
    check_settled(c);
    test_release();
  }
}

/* The source is dead, and with it what only it had; or it comes back at last. */
static void the_source_is_gone_in_the_middle(void) {
  for (int back = 0; back < 2; back++) {
    int w;
    cluster *c = half_jumped(&w);
    peer *q = &c->peers[2];
    put(&c->peers[0], 99, "a", 1); /* nobody else has it */
    peer_stop(&c->peers[0]);
    CHECK(staged_from(q, 101) >= 4);
    cluster_beat(c, 30); /* it stays */
    CHECK(staged_from(q, 101) >= 4);
    if (back) {
      peer_start(&c->peers[0]);
      wire_open(c, 0, 2);
      cluster_deliver(c);
      CHECK_INT(counters_of(q).jumps_resumed, 1);
      CHECK_INT(peer_at(q, 101), 31);
      wire_open(c, 1, 2);
    } else {
      wire_open(c, 1, 2);
      cluster_deliver(c);
      CHECK_INT(peer_at(q, 101), 30);
      CHECK_INT(counters_of(q).jumps_abandoned, 1);
    }
    CHECK_INT(counters_of(q).jumps, 1);
    cluster_settle(c);
    check_settled(c);
    test_release();
  }
}

/* The source falls silent, and its link lasts: another one is taken after a few heartbeats. */
static void a_silent_source_is_left(void) {
  int w;
  cluster *c = half_jumped(&w);
  peer *q = &c->peers[2];
  wire_open(c, 1, 2);
  for (int beat = 0; beat < 9; beat++) {
    while (c->wires[w].to[1].n) wire_drop(c, w, 1, 0); /* nothing of 0 comes through */
    while (c->wires[w].to[0].n) wire_drop(c, w, 0, 0);
    deliver(c, ALL, NULL);
    c->now_ms += 1000;
    for (int i = 0; i < 3; i++) {
      tick(&c->peers[i]);
      while (c->wires[w].to[1].n) wire_drop(c, w, 1, 0);
      while (c->wires[w].to[0].n) wire_drop(c, w, 0, 0);
    }
  }
  CHECK_INT(counters_of(q).jumps, 1);
  CHECK_INT(peer_at(q, 101), 30);
  CHECK_INT(event_count(q, REPLIC_EVENT_LINK_CLOSE), 0);
}

/* What was staged comes another way, from somebody who has not pruned: it is let go. */
static void what_came_another_way_is_let_go(void) {
  cluster *c = small_pieces(3, T);
  int between = wire_open(c, 0, 1);
  put_rows(&c->peers[0], 0, 10, 3);
  cluster_deliver(c);
  wire_cut(c, between);
  prune(&c->peers[0]);
  peer *q = &c->peers[2];
  int w = wire_open(c, 0, 2);
  deliver_until_staged(c, q, 2);
  wire_cut(c, w);
  w = wire_open(c, 1, 2);
  for (int i = 0; peer_at(q, 101) == 0; i++) {
    CHECK(i < 100);
    deliver(c, 1, NULL);
  }
  CHECK(peer_at(q, 101) < 30);
  cluster_deliver(c);
  CHECK_INT(peer_at(q, 101), 30);
  CHECK_INT(counters_of(q).jumps, 0);
  CHECK(staged(q) > 0);
  cluster_beat(c, 1);
  CHECK_INT(staged(q), 0);
  CHECK_INT(counters_of(q).jumps_abandoned, 1);
  cluster_beat(c, 3);
  CHECK_INT(counters_of(q).jumps_abandoned, 1);
  wire_open(c, 0, 2);
  cluster_settle(c);
  check_settled(c);
}

static void a_tick_without_pieces_touches_no_disk(void) {
  int w;
  cluster *c = half_jumped(&w);
  peer *q = &c->peers[2];
  int64_t open[2];
  for (int done = 0; done < 2; done++) {
    if (done) {
      deliver(c, ALL, NULL);
      tick(q);
    }
    peer_begin(q);
    CHECK_OK(q->r, replic_tick(q->r));
    open[done] = q->r->open_tx;
    CHECK_OK(q->r, peer_commit(q));
  }
  CHECK_INT(open[0], 1); /* it looks whether they have come another way */
  CHECK_INT(open[1], 0);
  peer_stop(q);
  peer_start(q);
  peer_begin(q);
  CHECK_OK(q->r, replic_tick(q->r));
  CHECK_INT(q->r->open_tx, 0);
  CHECK_OK(q->r, peer_commit(q));
}

/* ---- loss, duplication, disorder ---- */

/* The only frame that is lost is of one type: a few heartbeats repair it. */
static void one_lost_frame_of_each_type(void) {
  static const int TYPES[] = {HELLO, ACK, SCHEMA, STAGE, JUMP, TAKE};
  for (size_t t = 0; t < COUNT(TYPES); t++) {
    for (int lost = 0; lost < 6; lost++) {
      test_note("frame %d of type %d is lost", lost, TYPES[t]);
      cluster *c = small_pieces(3, T);
      put_rows(&c->peers[0], 0, 8, 3);
      prune(&c->peers[0]);
      wire_open(c, 0, 1);
      wire_open(c, 1, 2);
      int seen = 0, w, side;
      for (int beat = 0; beat < 8; beat++) {
        while (next_frame(c, &w, &side)) {
          if (c->wires[w].to[side].packets[0].data[1] == TYPES[t] && seen++ == lost)
            wire_drop(c, w, side, 0);
          else
            wire_deliver(c, w, side, 0);
        }
        c->now_ms += 1000;
        for (int i = 0; i < 3; i++) tick(&c->peers[i]);
      }
      cluster_deliver(c);
      CHECK_INT(peer_at(&c->peers[1], 101), 24);
      CHECK_INT(peer_at(&c->peers[2], 101), 24);
      check_settled(c);
      test_release();
    }
  }
}

static void every_frame_twice(void) {
  cluster *c = small_pieces(3, T);
  put_rows(&c->peers[0], 0, 10, 3);
  prune(&c->peers[0]);
  wire_open(c, 0, 1);
  wire_open(c, 1, 2);
  int w, side;
  for (int n = 0; next_frame(c, &w, &side); n++) {
    CHECK(n < 10000);
    packet first = c->wires[w].to[side].packets[0];
    bytes *again = test_alloc(sizeof *again);
    add_raw(again, first.data, first.len);
    wire_deliver(c, w, side, 0);
    if (c->wires[w].open[side])
      peer_receive(&c->peers[c->wires[w].peers[side]], c->wires[w].number, again->data, again->len);
  }
  for (int i = 1; i < 3; i++) {
    CHECK_INT(peer_at(&c->peers[i], 101), 30);
    CHECK_INT(counters_of(&c->peers[i]).jumps, 1);
  }
  cluster_beat(c, 1);
  check_settled(c);
}

/* Half of everything is lost, some of it comes twice, and late; the source goes on writing and
 * pruning. */
static void heavy_loss_and_disorder(void) {
  int64_t seed = env_number("SEED", 1), jumps = 0;
  for (int64_t round = 0, n = env_number("ROUNDS", 30); round < n; round++) {
    test_note("SEED=%lld", (long long)(seed + round));
    rng g = {(uint64_t)(seed + round)};
    cluster *c = small_pieces(3, T);
    for (int i = 0; i < 3; i++) c->peers[i].r->config.link_timeout_ms = 1000000;
    put_rows(&c->peers[0], 0, 8, 3);
    prune(&c->peers[0]);
    int wires[] = {wire_open(c, 0, 1), wire_open(c, 1, 2), wire_open(c, 0, 2)};
    uint32_t loss = rng_below(&g, 60);
    for (int step = 0; step < 250; step++) {
      int w = wires[rng_below(&g, 3)], side = (int)rng_below(&g, 2);
      size_t queued = c->wires[w].to[side].n;
      if (queued && rng_chance(&g, loss))
        wire_drop(c, w, side, rng_below(&g, (uint32_t)queued));
      else if (queued && rng_chance(&g, 15))
        wire_duplicate(c, w, side, rng_below(&g, (uint32_t)queued));
      else if (queued)
        wire_deliver(c, w, side, rng_chance(&g, 70) ? 0 : rng_below(&g, (uint32_t)queued));
      peer *p = &c->peers[rng_below(&g, 3)];
      if (rng_chance(&g, 10)) put(p, rng_below(&g, 8), rng_chance(&g, 50) ? "a" : "b", step);
      if (rng_chance(&g, 5)) peer_compact(p, c->now_ms, rng_below(&g, 30));
      c->now_ms += rng_below(&g, 200);
      if (rng_chance(&g, 10)) tick(p);
    }
    cluster_settle(c);
    cluster_beat(c, 1);
    check_settled(c);
    for (int i = 0; i < 3; i++) jumps += counters_of(&c->peers[i]).jumps;
    test_release();
  }
  CHECK(jumps >= 30 || env_number("ROUNDS", 30) < 30);
}

/* ---- the source goes on ---- */

/* The tables of the one that jumps are at every moment what its vector says (I1), while the source
 * writes and prunes between any two frames. */
static void the_source_goes_on_writing_and_pruning(void) {
  static const model_column COLUMNS[] = {
      {"id", true, false, "n"}, {"a", false, false, "n"}, {"b", false, false, "n"}};
  static const model_table TABLE = {"t", COUNT(COLUMNS), COLUMNS};
  for (int every = 1; every < 12; every++) {
    test_note("a write after %d frames", every);
    cluster *c = small_pieces(2, T);
    peer *p = &c->peers[0], *q = &c->peers[1];
    model m = {0};
    int writes = 0;
    for (int i = 0; i < 500 && (i < 30 || peer_at(q, 101) < writes); i++) {
      if (i < 30 || (i % every == 0 && writes < 100)) {
        const cell *row = i % 3 ? ROW({"id", v_int(i % 7)}, {"a", v_int(i)})
                                : ROW({"id", v_int(i % 7)}, {"b", v_int(i)});
        model_add(&m, &TABLE, 101, ++writes, c->now_ms, row);
        CHECK_INT(upsert(p, "t", row), writes);
        c->now_ms++;
      }
      if (i == 29) wire_open(c, 0, 1);
      if (i >= 29 && i % 2) peer_compact(p, c->now_ms, 3);
      if (i == 29) prune(p);
      deliver(c, 1, NULL);
      if (i >= 29) {
        model_check(&m, &TABLE, q);
      }
    }
    cluster_settle(c);
    model_check(&m, &TABLE, q);
    model_check(&m, &TABLE, p);
    CHECK(counters_of(q).jumps >= 1);
    cluster_beat(c, 1);
    check_settled(c);
    test_release();
  }
}

/* ---- the rules, by hand ---- */

static const char *const FIELDS[] = {"id", "INTEGER", "a", "", "b", ""};

static int test_source(cluster *c, uint32_t id) {
  int w = wire_open_test(c, 0);
  play(c, w, hello_frame(id, c->now_ms, NULL, 0));
  play(c, w, schema_frame(1, "t", 1, 3, FIELDS));
  take_frames(c, w, 0);
  return w;
}

/* A piece with the one patch `sequence` of 900. */
static bytes *piece(int64_t age, int64_t after, int64_t up_to, int64_t sequence, int64_t clock) {
  const replic_value values[] = {v_int(sequence), v_int(clock), {0, 0, 0, NULL, 0}};
  bytes *frame = stage_frame(age, 900, after, up_to, 1);
  add_patch(frame, sequence - after, true, (uint64_t)clock, 1, 1, 3, values);
  return frame;
}

static bytes *jump_of_900(int64_t sequence, int64_t clock, int64_t floor) {
  return jump_frame(&(replic_position){900, sequence, clock, 0}, &floor, 1);
}

/* A piece may be older than the JUMP that it serves, and must not be newer. */
static void a_jump_older_than_its_pieces_waits(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = test_source(c, 901);
  play(c, w, jump_of_900(5, 50, 3)); /* age 8 */
  CHECK_INT(take_frames(c, w, TAKE), 1);
  play(c, w, piece(6, 0, 4, 4, 40));
  play(c, w, piece(10, 4, 6, 5, 50)); /* 5 is there, but others may not be any more */
  CHECK_INT(peer_at(p, 900), 0);
  CHECK_INT(staged(p), 2);
  play(c, w, jump_of_900(5, 50, 4)); /* age 9 */
  CHECK_INT(peer_at(p, 900), 0);
  play(c, w, jump_of_900(7, 50, 4)); /* age 11, but 7 is missing */
  CHECK_INT(peer_at(p, 900), 0);
  play(c, w, jump_of_900(6, 60, 4)); /* age 10 */
  CHECK_INT(peer_at(p, 900), 6);
  CHECK_TEXT(peer_dump(p, "t"), "i4|i40|n\ni5|i50|n\n");
  CHECK_TEXT(sql_dump(peer_sql(p), "SELECT floor, missing, patchedAt FROM _replic_vector WHERE "
                                   "origin = 900"),
             "i4|i4|i60\n");
  CHECK_INT(staged(p), 0);
}

/* Of a piece that reaches further than the JUMP only what the JUMP covers is merged. */
static void a_piece_may_reach_beyond_its_jump(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = test_source(c, 901);
  const replic_value values[] = {v_int(1), v_int(1), {0, 0, 0, NULL, 0}};
  bytes *frame = stage_frame(1, 900, 0, 9, 3);
  add_patch(frame, 4, true, 40, 1, 1, 3, values);
  add_patch(frame, 1, false, 0, 1, 1, 3, values);
  add_patch(frame, 3, true, 10, 1, 1, 3, values);
  play(c, w, frame);
  play(c, w, jump_of_900(5, 40, 3));
  CHECK_INT(peer_at(p, 900), 5);
  CHECK_TEXT(sql_dump(peer_sql(p), "SELECT _sequenceId FROM t_patches"), "i4\ni5\n");
  CHECK_INT(replic_log_rows(p->r), 2);
}

/* What one source has sent says nothing about another one's vector. */
static void pieces_of_two_sources_are_not_mixed(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int one = test_source(c, 901), other = test_source(c, 902);
  play(c, one, jump_of_900(5, 50, 3));
  CHECK_INT(take_frames(c, one, TAKE), 1);
  play(c, other, jump_of_900(5, 50, 3));
  CHECK_INT(take_frames(c, other, TAKE), 0); /* one source at a time */
  play(c, one, piece(6, 0, 4, 4, 40));
  play(c, other, piece(6, 0, 5, 3, 30));
  CHECK_INT(peer_at(p, 900), 0);
  play(c, one, piece(6, 4, 5, 5, 50));
  CHECK_INT(peer_at(p, 900), 5);
  CHECK_TEXT(sql_dump(peer_sql(p), "SELECT _sequenceId FROM t_patches"), "i4\ni5\n");
  CHECK_INT(counters_of(p).jumps_abandoned, 1);
  CHECK_INT(staged(p), 0);
  take_frames(c, other, 0);
  play(c, other, jump_of_900(5, 50, 3)); /* which we have: it must have missed that */
  CHECK_INT(take_frames(c, other, TAKE), 0);
}

/* Pieces out of order are asked for again, at most once a heartbeat; twice is once. */
static void pieces_come_in_order(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = test_source(c, 901);
  play(c, w, piece(6, 4, 5, 5, 50));
  CHECK_INT(staged(p), 0);
  CHECK_TEXT(peer_dump(p, "t"), "");
  packet asked = c->wires[w].to[1].packets[0];
  CHECK(asked.len == 8 && memcmp(asked.data, "\1\11\1\0", 4) == 0); /* TAKE, from the beginning */
  take_frames(c, w, 0);
  play(c, w, piece(6, 5, 6, 6, 60));
  asked = c->wires[w].to[1].packets[0];
  CHECK(memcmp(asked.data, "\1\11\0\0", 4) == 0);
  play(c, w, piece(6, 0, 4, 4, 40));
  play(c, w, piece(6, 0, 4, 4, 40));
  play(c, w, piece(6, 0, 3, 3, 30));
  CHECK_INT(staged(p), 1);
  play(c, w, piece(6, 2, 5, 5, 50)); /* overlaps: what is missing may come in other slices */
  CHECK_INT(staged(p), 2);
  play(c, w, jump_of_900(5, 50, 3));
  CHECK_INT(peer_at(p, 900), 5);
}

/* What was lost may come again in other slices, which hold some of what is staged: that is no
 * second history. */
static void pieces_may_overlap(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  const replic_value values[] = {v_int(4), v_int(40), {0, 0, 0, NULL, 0}};
  const replic_value last[] = {v_int(6), v_int(60), {0, 0, 0, NULL, 0}};
  int w = test_source(c, 901);
  play(c, w, jump_of_900(6, 60, 3));
  play(c, w, piece(6, 0, 5, 5, 50));
  bytes *again = stage_frame(6, 900, 3, 6, 2);
  add_patch(again, 1, true, 40, 1, 1, 3, values);
  add_patch(again, 2, true, 20, 1, 1, 3, last);
  play(c, w, again);
  CHECK_INT(peer_at(p, 900), 6);
  CHECK(c->wires[w].open[0]);
  CHECK_TEXT(peer_dump(p, "t"), "i5|i50|n\ni6|i60|n\n");
  check_settled(c);
}

/* The source has sent as much as the window takes, and all of it is staged; then it is told so by a
 * TAKE 1, as when one comes twice. Nothing is on its way any more, and it goes on. */
static void all_that_fills_the_window_is_staged(void) {
  cluster *c = small_pieces(1, T);
  peer *p = &c->peers[0];
  enum { WINDOW = 60 };
  p->r->config.window_bytes = WINDOW;
  put_rows(p, 0, 10, 3);
  prune(p);
  int w = wire_open_test(c, 0), rounds = 0;
  play(c, w, hello_frame(900, c->now_ms, NULL, 0));
  CHECK_INT(take_frames(c, w, JUMP), 1);
  replic_position at = {101, 0, 0, 0};
  for (play(c, w, staged_frame(true, NULL, 0)); at.sequence < 30; rounds++) {
    int64_t before = at.sequence;
    for (size_t i = 0; i < c->wires[w].to[1].n; i++) {
      const uint8_t *frame = c->wires[w].to[1].packets[i].data; /* age, origin, after, upTo */
      if (frame[1] == STAGE) at.sequence = frame[5];
    }
    CHECK(at.sequence > before);
    CHECK_INT(info_of(p, 0).unacked_bytes >= WINDOW, at.sequence < 30);
    take_frames(c, w, 0);
    bytes *ack = ack_frame(c->now_ms);
    for (int i = 0; i < 3; i++) add_varint(ack, 0);
    add_no_list(ack);
    play(c, w, ack);
    c->now_ms += 1000; /* one is answered per heartbeat */
    play(c, w, staged_frame(true, &at, 1));
  }
  CHECK(rounds > 2);
  CHECK_INT(take_frames(c, w, JUMP), 1); /* after the last piece */
  CHECK_INT(info_of(p, 0).unacked_bytes, 0);
}

/* It has them, and would never say that it has got them: they would stay in the window. (Over this
 * link it has told nothing of them, as it sent them over another one.) */
static void a_jump_brings_nobody_its_own(void) {
  cluster *c = small_pieces(1, T);
  peer *p = &c->peers[0];
  put_rows(p, 0, 10, 3);
  prune(p);
  const replic_value row[] = {v_int(99), v_int(1), v_int(1)};
  int first = test_source(c, 900), second = test_source(c, 900), n = 0;
  bytes *own = patches_frame(900, 0, 1);
  add_patch(own, 1, true, (uint64_t)c->now_ms, 1, 1, 3, row);
  play(c, first, own);
  CHECK_INT(peer_at(p, 900), 1);
  wire_cut(c, first);
  take_frames(c, second, 0);
  play(c, second, staged_frame(true, NULL, 0));
  for (size_t i = 0; i < c->wires[second].to[1].n; i++)
    n += c->wires[second].to[1].packets[i].data[1] == STAGE;
  CHECK(n > 0);
  CHECK_INT(take_frames(c, second, PATCHES), 0);
}

/* Within one history the clocks never fall: where those of the pieces do, after what has come
 * another way meanwhile, there are two, and nothing is joined. */
static void pieces_stamped_before_what_is_known(void) {
  for (int empty = 0; empty < 2; empty++) {
    cluster *c = cluster_start(1, T);
    peer *p = &c->peers[0];
    int w = test_source(c, 901), other = test_source(c, 902);
    const replic_value values[] = {v_int(1), v_int(1), {0, 0, 0, NULL, 0}};
    play(c, w, jump_of_900(5, 50, 3));
    play(c, w, empty ? stage_frame(6, 900, 0, 4, 0) : piece(6, 0, 4, 4, 50));
    bytes *known = patches_frame(900, 0, 1);
    add_patch(known, 1, true, 60, 1, 1, 3, values);
    play(c, other, known);
    CHECK_INT(peer_at(p, 900), 1);
    CHECK_INT(staged(p), 1);
    take_frames(c, w, 0);
    play(c, w, stage_frame(6, 900, 4, 5, 0));
    CHECK_INT(peer_at(p, 900), 1);
    CHECK_TEXT(sql_dump(peer_sql(p), "SELECT _sequenceId FROM t_patches"), "i1\n");
    CHECK_INT(staged(p), 0);
    CHECK_INT(take_frames(c, w, FORK), 1);
    test_release();
  }
}

/* A piece may hold patches that are applied here already, and perhaps pruned again. */
static void what_is_known_is_skipped(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = test_source(c, 901);
  const replic_value values[] = {v_int(1), v_int(1), {0, 0, 0, NULL, 0}};
  for (int i = 1; i <= 3; i++) {
    bytes *frame = patches_frame(900, i - 1, i);
    add_patch(frame, 1, true, (uint64_t)i, 1, 1, 3, values);
    play(c, w, frame);
  }
  prune(p);
  CHECK_INT(replic_log_rows(p->r), 1);
  bytes *frame = stage_frame(1, 900, 0, 6, 2);
  add_patch(frame, 2, true, 2, 1, 1, 3, values);
  add_patch(frame, 4, true, 4, 1, 1, 3, values);
  play(c, w, frame);
  play(c, w, jump_of_900(6, 6, 5));
  CHECK_INT(peer_at(p, 900), 6);
  CHECK_TEXT(sql_dump(peer_sql(p), "SELECT _sequenceId FROM t_patches"), "i3\ni6\n");
  CHECK_INT(replic_log_rows(p->r), 2);
}

/* Numbers at their limits, and more origins than any sum can hold. */
static void huge_sums_are_no_danger(void) {
  enum { N = 2000 };
  const int64_t most = REPLIC_MAX_SEQUENCE;
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0];
  put(p, 1, "a", 1);
  int w = test_source(c, 901);
  replic_position *vector = test_alloc(N * sizeof *vector);
  int64_t *floors = test_alloc(N * sizeof *floors);
  for (uint32_t i = 0; i < N; i++) {
    vector[i] = (replic_position){1000 + i, most, 1, 0};
    floors[i] = most;
    play(c, w, stage_frame(INT64_MAX, 1000 + i, 0, most, 0));
  }
  replic_link_info info = info_of(p, 0);
  CHECK(info.behind >= 0);
  play(c, w, jump_frame(vector, floors, N));
  CHECK_INT(peer_at(p, 1000), most);
  CHECK_INT(peer_at(p, 1000 + N - 1), most);
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 0);
  CHECK_INT(replic_log_rows(p->r), 1);
  play(c, w, hello_frame(901, c->now_ms, NULL, 0));
  CHECK(info_of(p, 0).lag >= 0);
  wire_cut(c, w);
  wire_open(c, 0, 1); /* and it can hand them on */
  cluster_settle(c);
  CHECK_INT(peer_at(&c->peers[1], 1000 + N - 1), most);
  CHECK_INT(peer_at(&c->peers[1], 101), 1);
  cluster_same(c, "t");
  prune(p);
  for (int i = 0; i < 2; i++) CHECK_INT(event_count(&c->peers[i], REPLIC_EVENT_LINK_CLOSE), 0);
}

/* What an ACK claims adds up, too. */
static void huge_claims_are_no_danger(void) {
  enum { N = 3000 };
  cluster *c = cluster_start(1, T);
  int w = test_source(c, 901);
  replic_position *claims = test_alloc(N * sizeof *claims);
  for (uint32_t i = 0; i < N; i++)
    claims[i] = (replic_position){1000 + i, REPLIC_MAX_SEQUENCE, 1, 0};
  bytes *ack = ack_frame(c->now_ms);
  add_positions(ack, claims, N);
  add_positions(ack, claims, N);
  add_positions(ack, claims, N);
  add_no_list(ack);
  play(c, w, ack);
  CHECK(info_of(&c->peers[0], 0).behind > 0);
  CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_LINK_CLOSE), 0);
}

/* ---- schemas and clocks that differ ---- */

/* It is kept, handed on in the next jump, and there once a migration knows it. */
static void a_jump_brings_what_is_not_known(void) {
  static const char *const OTHERS[] = {
      "CREATE TABLE other(x)", /* u is unknown */
      "CREATE TABLE u(id INTEGER PRIMARY KEY); CREATE TABLE u_patches(" CLOCK "id INTEGER)",
      "CREATE TABLE u(id INTEGER PRIMARY KEY, w BLOB); CREATE TABLE u_patches(" CLOCK
      "id INTEGER, w BLOB)"};
  static const char *const MENDED[] = {
      U, "ALTER TABLE u ADD COLUMN w TEXT; ALTER TABLE u_patches ADD COLUMN w TEXT",
      "DROP TABLE u; DROP TABLE u_patches; " U};
  static const char *const TEXTS[] = {"table u", "column w", "\"TEXT\" there and \"BLOB\" here"};
  for (size_t i = 0; i < COUNT(OTHERS); i++) {
    test_note("%s", TEXTS[i]);
    cluster *c = small_pieces(3, T);
    peer *p = &c->peers[0], *q = &c->peers[1], *third = &c->peers[2];
    CHECK_OK(p->r, try_migrate(p, 2, U, ""));
    CHECK_OK(q->r, try_migrate(q, 2, OTHERS[i], ""));
    CHECK_OK(third->r, try_migrate(third, 2, U, ""));
    put_rows(p, 0, 10, 3);
    upsert(p, "u", ROW({"id", v_int(1)}, {"w", v_text("w")}));
    c->now_ms++;
    put_rows(p, 0, 3, 3);
    prune(p);
    int w = wire_open(c, 0, 1);
    int counts[N_FRAMES] = {0};
    deliver(c, ALL, counts);
    cluster_beat(c, 3);
    CHECK(counts[STAGE] >= 3);
    CHECK_INT(peer_at(q, 101), 40);
    CHECK_TEXT(peer_dump(q, "t"), peer_dump(p, "t"));
    CHECK_INT(replic_pending_at(q->r, 0)->patches, 1);
    CHECK_CONTAINS(replic_pending_at(q->r, 0)->why, TEXTS[i]);
    wire_cut(c, w);
    prune(q); /* what is pending stays */
    wire_open(c, 1, 2);
    cluster_settle(c);
    CHECK_INT(peer_at(third, 101), 40);
    CHECK_TEXT(peer_dump(third, "u"), peer_dump(p, "u"));
    CHECK_OK(q->r, try_migrate(q, 3, MENDED[i], ""));
    CHECK_INT(replic_pending_count(q->r), 0);
    wire_open(c, 0, 1);
    check_settled(c);
    cluster_same(c, "u");
    test_release();
  }
}

/* The one source has a table that is not known here, the other one does not know it either: that
 * one helps as far as it can. */

/* A value that this peer's STRICT table cannot hold. */
static void a_jump_brings_what_does_not_fit(void) {
  cluster *c =
      cluster_start(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b ANY) STRICT;"
                       "CREATE TABLE t_patches(" CLOCK "id INTEGER, a INTEGER, b ANY) STRICT;");
  static const char *const STRICT[] = {"id", "INTEGER", "a", "INTEGER", "b", "ANY"};
  peer *p = &c->peers[0];
  int w = wire_open_test(c, 0);
  play(c, w, hello_frame(901, c->now_ms, NULL, 0));
  play(c, w, schema_frame(1, "t", 1, 3, STRICT));
  const replic_value good[] = {v_int(1), v_int(1), {0, 0, 0, NULL, 0}},
                     bad[] = {v_int(2), v_text("no number"), {0, 0, 0, NULL, 0}};
  bytes *frame = stage_frame(4, 900, 0, 3, 2);
  add_patch(frame, 2, true, 10, 1, 1, 3, good);
  add_patch(frame, 1, true, 10, 1, 1, 3, bad);
  play(c, w, frame);
  play(c, w, jump_of_900(3, 20, 2));
  CHECK_INT(peer_at(p, 900), 3);
  CHECK_TEXT(peer_dump(p, "t"), "i1|i1|n\ni2|n|n\n");
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t_patches"), 2);
  CHECK_INT(replic_log_rows(p->r), 2);
  CHECK_INT(replic_pending_at(p->r, 0)->patches, 1);
  CHECK_INT(staged(p), 0);
}

/* The source's clock is wrong from the beginning, or goes wrong in the middle of the jump. */
static void skew_within_a_piece_is_held(void) {
  for (int in_the_middle = 0; in_the_middle < 2; in_the_middle++) {
    test_note("case %d", in_the_middle);
    cluster *c = small_pieces(2, T);
    peer *p = &c->peers[0], *q = &c->peers[1];
    for (int side = 0; side < 2; side++) c->peers[side].r->config.link_timeout_ms = 100000000;
    put_rows(p, 0, 40, 3);
    if (in_the_middle) {
      prune(p);
      wire_open(c, 0, 1);
      deliver_until_staged(c, q, 2);
    }
    p->clock_step_ms = 3600000;
    put_rows(p, 30, 40, 3);
    prune(p);
    if (!in_the_middle) wire_open(c, 0, 1);
    cluster_beat(c, 1);
    for (int side = 0; side < 2; side++)
      CHECK_INT(event_last(&c->peers[side], REPLIC_EVENT_LINK_ERROR)->code, REPLIC_ECLOCKSKEW);
    CHECK_INT(peer_at(q, 101), 0);
    int counts[N_FRAMES] = {0};
    for (int beat = 0; beat < 30; beat++) {
      c->now_ms += 1000;
      tick(p);
      tick(q);
      deliver(c, ALL, counts);
    }
    CHECK(info_of(q, 0).held != NULL);
    test_note("case %d, %d pieces", in_the_middle, counts[STAGE]);
    CHECK(counts[STAGE] <= 7 * 5); /* few words: a window every five heartbeats */
    CHECK_INT(event_count(q, REPLIC_EVENT_LINK_ERROR), 1);
    CHECK(replic_clock_high(q->r) < c->now_ms + 60000);
    p->clock_step_ms = 0;
    c->now_ms += 3600000;
    cluster_beat(c, 8);
    CHECK_INT(peer_at(q, 101), 240);
    cluster_beat(c, 1);
    CHECK(info_of(q, 0).held == NULL);
    check_settled(c);
    test_release();
  }
}

/* The stamp of the vector itself: of a patch that was pruned. */
static void skew_of_the_vector_is_held(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = test_source(c, 901);
  play(c, w, piece(9, 0, 5, 4, c->now_ms + 60001)); /* what the vector's own stamp does not tell */
  play(c, w, jump_of_900(5, c->now_ms, 3));
  CHECK_INT(staged(p), 0);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_ERROR)->code, REPLIC_ECLOCKSKEW);
  CHECK_CONTAINS(info_of(p, 0).held, "900.4");
  play(c, w, piece(9, 0, 5, 4, c->now_ms));
  CHECK(info_of(p, 0).held == NULL);
  peer_forget_events(p);
  play(c, w, jump_of_900(5, c->now_ms + 60001, 5));
  CHECK_INT(peer_at(p, 900), 0);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_ERROR)->code, REPLIC_ECLOCKSKEW);
  CHECK_CONTAINS(info_of(p, 0).held, "900.5");
  CHECK(replic_clock_high(p->r) < c->now_ms);
  CHECK_INT(staged(p), 1);
  c->now_ms++;
  play(c, w, jump_of_900(5, c->now_ms + 60000, 5));
  CHECK_INT(peer_at(p, 900), 5);
  CHECK(info_of(p, 0).held == NULL);
  CHECK_INT(replic_clock_high(p->r), c->now_ms + 60000);
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 0);
}

/* ---- rows of the log that were deleted by hand ---- */

static void rows_deleted_by_hand_count_as_pruned(void) {
  cluster *c = small_pieces(3, T);
  peer *p = &c->peers[0];
  for (int i = 1; i <= 10; i++) put(p, i, "a", i);
  run_sql(p, "DELETE FROM t_patches WHERE _sequenceId IN (3, 4, 7, 10)");
  wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[1], 101), 10);
  CHECK_INT(event_count(p, REPLIC_EVENT_ERROR), 1);
  CHECK_INT(event_last(p, REPLIC_EVENT_ERROR)->code, REPLIC_ENOTFOUND);
  CHECK_CONTAINS(event_last(p, REPLIC_EVENT_ERROR)->text, "101.3 to 4");
  CHECK_TEXT(sql_dump(peer_sql(&c->peers[1]), "SELECT id FROM t"), "i1\ni2\ni5\ni6\ni8\ni9\n");
  put(p, 3, "b", 11); /* the next patch of a row brings only what it sets */
  cluster_deliver(c);
  CHECK_TEXT(sql_dump(peer_sql(&c->peers[1]), "SELECT * FROM t WHERE id = 3"), "i3|n|i11\n");
  wire_open(c, 0, 2);
  cluster_settle(c);
  CHECK_INT(peer_at(&c->peers[2], 101), 11);
  CHECK_TEXT(peer_dump(&c->peers[1], "t"), peer_dump(&c->peers[2], "t"));
}

/* What is found missing is known after the next start, too: `age` never falls. */
static void a_hole_is_not_forgotten(void) {
  cluster *c = small_pieces(3, T);
  peer *p = &c->peers[0], *q = &c->peers[1], *late = &c->peers[2];
  int w = wire_open(c, 0, 1);
  for (int i = 0; i < 3; i++) put(p, 0, "a", i);
  put(p, 1, "a", 1);
  cluster_deliver(c);
  wire_cut(c, w);
  prune(p);
  for (int i = 2; i < 38; i++) put(p, i, "a", i);
  run_sql(p, "DELETE FROM t_patches WHERE _sequenceId = 30");
  wire_open(c, 0, 1); /* finds the hole */
  cluster_deliver(c);
  CHECK_INT(peer_at(q, 101), 40);
  cluster_beat(c, 1);
  w = wire_open(c, 0, 2);
  deliver_until_staged(c, late, 3);
  CHECK_INT(peer_at(late, 101), 0);
  wire_cut(c, w);
  peer_stop(p);
  peer_start(p);
  wire_open(c, 0, 2);
  cluster_settle(c);
  CHECK_INT(peer_at(late, 101), 40);
  CHECK_TEXT(peer_dump(q, "t"), peer_dump(late, "t"));
}

/* ---- failures ---- */

static int refuse(void *context) {
  (void)context;
  return 1;
}

/* The commit of any batch of a jump may fail: memory is then what the disk is, and it is tried
 * again. */
static void a_commit_that_fails_costs_time_only(void) {
  for (int fails = 1;; fails++) {
    test_note("the commit of frame %d fails", fails);
    cluster *c = small_pieces(2, T);
    peer *p = &c->peers[0], *q = &c->peers[1];
    put_rows(p, 0, 8, 3);
    prune(p);
    wire_open(c, 0, 1);
    int w, side, n = 0;
    bool failed = false;
    while (next_frame(c, &w, &side)) {
      if (side == 0 || ++n != fails) {
        wire_deliver(c, w, side, 0);
        continue;
      }
      packet frame = c->wires[w].to[1].packets[0];
      sqlite3_commit_hook(q->r->db, refuse, NULL);
      peer_begin(q);
      CHECK_OK(q->r, replic_receive(q->r, c->wires[w].number, frame.data, frame.len));
      failed = peer_commit(q) != REPLIC_OK;
      sqlite3_commit_hook(q->r->db, NULL, NULL);
      wire_drop(c, w, 1, 0);
      CHECK_INT(replic_log_rows(q->r), sql_int(peer_sql(q), "SELECT count(*) FROM t_patches"));
      CHECK_INT(peer_at(q, 101),
                sql_int(peer_sql(q), "SELECT coalesce(max(sequence), 0) FROM _replic_vector"));
    }
    cluster_settle(c);
    cluster_beat(c, 1);
    CHECK_INT(peer_at(q, 101), 24);
    CHECK_INT(counters_of(q).jumps_abandoned, 0);
    check_settled(c);
    test_release();
    if (n < fails) break;
    (void)failed;
  }
}

/* The commit of the jump itself fails, and then everything comes another way: the pieces go. */
static void pieces_of_a_failed_jump_are_let_go(void) {
  cluster *c = small_pieces(3, T);
  peer *p = &c->peers[0], *q = &c->peers[2];
  int between = wire_open(c, 0, 1);
  put_rows(p, 0, 10, 3);
  cluster_deliver(c);
  wire_cut(c, between);
  prune(p);
  int w = wire_open(c, 0, 2);
  for (int rc = REPLIC_OK; rc == REPLIC_OK;) {
    int at, side;
    CHECK(next_frame(c, &at, &side));
    if (side == 0) {
      wire_deliver(c, at, side, 0);
      continue;
    }
    packet frame = c->wires[at].to[1].packets[0];
    peer_begin(q);
    CHECK_OK(q->r, replic_receive(q->r, c->wires[at].number, frame.data, frame.len));
    if (counters_of(q).jumps) sqlite3_commit_hook(q->r->db, refuse, NULL);
    rc = peer_commit(q);
    sqlite3_commit_hook(q->r->db, NULL, NULL);
    wire_drop(c, at, 1, 0);
  }
  CHECK_INT(peer_at(q, 101), 0);
  CHECK(staged(q) > 0);
  wire_cut(c, w);
  wire_open(c, 1, 2); /* has pruned nothing */
  cluster_deliver(c);
  CHECK_INT(peer_at(q, 101), 30);
  CHECK(staged(q) > 0);
  peer_begin(q);
  CHECK_OK(q->r, replic_tick(q->r));
  sqlite3_commit_hook(q->r->db, refuse, NULL); /* and this one fails, too */
  CHECK_CODE(q->r, peer_commit(q), SQLITE_CONSTRAINT_COMMITHOOK);
  sqlite3_commit_hook(q->r->db, NULL, NULL);
  CHECK(staged(q) > 0);
  tick(q);
  CHECK_INT(staged(q), 0);
}

/* ---- merged in slices ---- */

static bool is_merging(const peer *p) {
  return replic_has_work(p->r) == REPLIC_WORK_BESIDE;
}

static int64_t ahead(peer *p) {
  return sql_int(peer_sql(p), "SELECT count(*) FROM _replic_jump");
}

/* One slice, in a batch of its own. */
static void merge_slice(peer *p) {
  peer_begin(p);
  CHECK_OK(p->r, replic_work(p->r));
  CHECK_OK(p->r, peer_commit(p));
}

/* What arrives at q is no more than a batch each time, which the harness would go on after. */
static void receive_once(cluster *c, peer *q) {
  int w, side;
  CHECK(next_frame(c, &w, &side));
  wire *x = &c->wires[w];
  if (x->peers[side] != q->index) {
    wire_deliver(c, w, side, 0);
    return;
  }
  packet frame = x->to[side].packets[0];
  peer_begin(q);
  CHECK_OK(q->r, replic_receive(q->r, x->number, frame.data, frame.len));
  CHECK_OK(q->r, peer_commit(q));
  wire_drop(c, w, side, 0);
}

/* Peer 0 has 40 rows of its own and 40 of peer 1's, each pruned; peer 2 has begun to merge them. */
static cluster *begin_merging(int64_t units) {
  cluster *c = small_pieces(3, T);
  int between = wire_open(c, 0, 1);
  put_rows(&c->peers[1], 20, 40, 3);
  put_rows(&c->peers[0], 0, 40, 3);
  cluster_deliver(c);
  wire_cut(c, between);
  for (int i = 0; i < 2; i++) prune(&c->peers[i]);
  c->peers[2].config.work_units = c->peers[2].r->config.work_units = units;
  wire_open(c, 0, 2);
  for (int i = 0; !is_merging(&c->peers[2]); i++) {
    CHECK(i < 1000);
    receive_once(c, &c->peers[2]);
  }
  return c;
}

static int merge_all(peer *p) {
  int slices = 0;
  for (; is_merging(p); slices++) {
    CHECK(slices < 10000);
    merge_slice(p);
  }
  return slices;
}

/* Nothing is taken in one transaction that is longer than work_units says; the vector moves with
 * the last one. */
static void a_jump_is_merged_in_slices(void) {
  cluster *c = begin_merging(100);
  peer *q = &c->peers[2];
  int slices = 0, partly = 0;
  for (int64_t rows = 0, before = 0; is_merging(q); slices++, before = rows) {
    CHECK(slices < 1000);
    CHECK_INT(peer_at(q, 101) + peer_at(q, 102), 0);
    merge_slice(q);
    rows = sql_int(peer_sql(q), "SELECT count(*) FROM t_patches");
    CHECK(rows - before <= 10);
    partly += ahead(q) > 0;
  }
  CHECK(slices > 10 && partly > 10);
  CHECK_INT(peer_at(q, 101), 120);
  CHECK_INT(peer_at(q, 102), 120);
  CHECK_INT(ahead(q), 0);
  CHECK_INT(counters_of(q).jumps, 1);
  CHECK_INT(counters_of(q).patches_applied, counters_of(q).patches_staged);
  cluster_settle(c);
  CHECK_INT(counters_of(&c->peers[0]).retransmissions, 0);
  CHECK_INT(event_count(q, REPLIC_EVENT_ERROR), 0);
  wire_open(c, 1, 2);
  cluster_settle(c);
  check_settled(c);
}

/* Frames are taken in between, and heartbeats kept: the link lives for as long as it takes. */
static void a_link_lives_while_a_jump_is_merged(void) {
  cluster *c = begin_merging(1);
  peer *p = &c->peers[0], *q = &c->peers[2];
  int64_t sent = c->frames_delivered, beats = 0;
  p->r->config.link_timeout_ms = q->r->config.link_timeout_ms = 3000;
  for (; is_merging(q); beats++) {
    CHECK(beats < 1000);
    c->now_ms += 1000;
    tick(p);
    tick(q);
    for (int w, side; next_frame(c, &w, &side);) receive_once(c, q);
    CHECK_INT(info_of(p, 0).state + info_of(q, 0).state, 2 * REPLIC_LINK_READY);
  }
  CHECK(beats > 6); /* twice as long as a link may be silent */
  CHECK(c->frames_delivered > sent);
  CHECK_INT(counters_of(p).retransmissions, 0); /* what is merged is not asked for */
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE) + event_count(q, REPLIC_EVENT_LINK_CLOSE), 0);
  cluster_settle(c);
  CHECK_INT(peer_at(q, 101), 120);
}

/* A process ends after k slices, with its last commit or without it; source and link are gone. */
static void a_restart_between_any_two_slices(void) {
  int whole = 0;
  for (int k = 0; k <= whole; k++) {
    test_note("ends after %d slices of %d", k, whole);
    cluster *c = begin_merging(100);
    peer *q = &c->peers[2];
    if (k == 0) {
      whole = merge_all(q);
      CHECK(whole > 10);
      test_release();
      continue;
    }
    for (int i = 1; i < k; i++) merge_slice(q);
    int64_t merged = sql_int(peer_sql(q), "SELECT count(*) FROM t_patches");
    wire_cut(c, 1);
    peer_begin(q);
    CHECK_OK(q->r, replic_work(q->r)); /* never committed */
    peer_stop(q);
    peer_stop(&c->peers[0]);
    q->clock_step_ms = -30000; /* what comes after all that was seen is not what the wall says */
    peer_start(q);
    CHECK_INT(peer_at(q, 101), 0);
    CHECK_INT(sql_int(peer_sql(q), "SELECT count(*) FROM t_patches"), merged);
    if (k > 1) {                 /* what is merged does not need its source any more */
      put(q, 10, "a", 1000 + k); /* after all that the log has, also beyond its vector */
      CHECK_TEXT(sql_text(peer_sql(q), "SELECT a FROM t WHERE id = 10"),
                 test_format("%d", 1000 + k));
      CHECK_INT(merge_all(q), whole - k + 1);
      CHECK_INT(peer_at(q, 101), 120);
      CHECK_INT(peer_at(q, 102), 120);
      CHECK_TEXT(sql_text(peer_sql(q), "SELECT a FROM t WHERE id = 10"),
                 test_format("%d", 1000 + k));
    }
    peer_start(&c->peers[0]);
    wire_open(c, 0, 2);
    wire_open(c, 0, 1);
    cluster_settle(c);
    cluster_beat(c, 1);
    check_settled(c);
    test_release();
  }
}

/* The commit of any slice fails: it is merged again. */
static void a_slice_that_fails_is_merged_again(void) {
  for (int fails = 1;; fails++) {
    test_note("commit %d fails", fails);
    cluster *c = begin_merging(100);
    peer *q = &c->peers[2];
    int slices = 0;
    for (; is_merging(q); slices++) {
      peer_begin(q);
      CHECK_OK(q->r, replic_work(q->r));
      if (slices + 1 == fails) sqlite3_commit_hook(q->r->db, refuse, NULL);
      CHECK_INT(peer_commit(q) == REPLIC_OK, slices + 1 != fails);
      sqlite3_commit_hook(q->r->db, NULL, NULL);
    }
    cluster_settle(c);
    CHECK_INT(peer_at(q, 101), 120);
    wire_open(c, 1, 2);
    cluster_settle(c);
    check_settled(c);
    test_release();
    if (slices < fails) break;
  }
}

/* Of a key: who writes it, and how that is stamped, beside a naive oracle: after all that had been
 * seen there, it wins; before what comes later in the jump, it loses. */
static void what_is_written_between_slices(void) {
  for (uint64_t seed = 1; seed <= 40; seed++) {
    test_note("seed %llu", (unsigned long long)seed);
    rng g = {seed};
    cluster *c = begin_merging(40 + rng_below(&g, 200));
    peer *q = &c->peers[2], *other = &c->peers[1];
    int w = -1;
    for (int64_t i = 0; is_merging(q); i++) {
      CHECK(i < 10000);
      merge_slice(q);
      int64_t id = rng_below(&g, 60);
      uint32_t what = rng_below(&g, 10);
      if (what < 3) {
        put(q, id, rng_chance(&g, 50) ? "a" : "b", 5000 + i);
      } else if (what == 3 && w < 0) {
        w = wire_open(c, 1, 2);
      } else if (what == 4) {
        put(other, id, "a", 9000 + i); /* of an origin that is being merged */
        for (int at, side; next_frame(c, &at, &side);) receive_once(c, q);
      } else if (what == 5 && w >= 0) {
        wire_cut(c, w);
        w = -1;
      } else if (what == 6) {
        CHECK(!peer_compact(q, peer_now(q), ALL).done || !is_merging(q));
      } else if (what == 7 && rng_chance(&g, 30)) {
        for (int k = 0; k < c->n_wires; k++) wire_cut(c, k);
        w = -1;
        peer_stop(q);
        peer_start(q);
      }
      CHECK(peer_at(q, 101) == 0 || !is_merging(q));
      /* a table is the fold of its log, also now: the last that has set a column (I6) */
      CHECK_TEXT(
          peer_dump(q, "t"),
          sql_dump(peer_sql(q),
                   "SELECT k.id, (SELECT a FROM t_patches p WHERE p.id = k.id AND a IS NOT NULL "
                   "ORDER BY _patchedAt DESC, _peerId DESC, _sequenceId DESC LIMIT 1), (SELECT b "
                   "FROM t_patches p WHERE p.id = k.id AND b IS NOT NULL ORDER BY _patchedAt DESC, "
                   "_peerId DESC, _sequenceId DESC LIMIT 1) FROM (SELECT DISTINCT id FROM "
                   "t_patches) k"));
    }
    wire_open(c, 0, 2);
    wire_open(c, 0, 1);
    cluster_settle(c);
    cluster_beat(c, 2);
    CHECK_INT(event_count(q, REPLIC_EVENT_ERROR), 0);
    check_settled(c);
    test_release();
  }
}

/* Others get the state at the vector from it, and not what is ahead of that. */
static void who_merges_is_a_source_too(void) {
  cluster *c = begin_merging(1);
  peer *q = &c->peers[2], *n;
  put_rows(q, 0, 3, 2);
  while (ahead(q) == 0) merge_slice(q);
  CHECK(!peer_compact(q, peer_now(q), ALL).done); /* nothing is pruned meanwhile, */
  CHECK_INT(peer_compact(q, peer_now(q), ALL).removed, 0);
  wire_cut(c, 1);
  n = cluster_add(c);
  peer_start(n);
  CHECK_OK(n->r, try_migrate(n, 1, T, ""));
  q = &c->peers[2];
  wire_open(c, 2, 3);
  for (int w, side; next_frame(c, &w, &side);) receive_once(c, q);
  n = &c->peers[3];
  CHECK(is_merging(q));
  CHECK_INT(peer_at(n, 103), 6);
  CHECK_INT(peer_at(n, 101) + peer_at(n, 102), 0);
  CHECK_INT(sql_int(peer_sql(n), "SELECT count(*) FROM t_patches WHERE _peerId <> 103"), 0);
  merge_all(q);
  CHECK(peer_compact(q, peer_now(q), ALL).removed > 0); /* but then */
  wire_open(c, 0, 2);
  wire_open(c, 0, 1);
  cluster_settle(c);
  cluster_beat(c, 1);
  check_settled(c);
}

/* A migration in between sees the log as it is, and what follows is merged under the new schema. */
static void a_migration_between_slices(void) {
  cluster *c = begin_merging(100);
  peer *q = &c->peers[2];
  for (int i = 0; i < 4; i++) merge_slice(q);
  CHECK_OK(q->r, try_migrate(q, 2,
                             "ALTER TABLE t ADD COLUMN c; ALTER TABLE t_patches ADD COLUMN c; "
                             "ALTER TABLE t DROP COLUMN b; ALTER TABLE t_patches DROP COLUMN b;",
                             ""));
  merge_all(q);
  CHECK_INT(peer_at(q, 101), 120);
  CHECK_INT(peer_at(q, 102), 120);
  CHECK_OK(q->r, try_migrate(q, 3,
                             "ALTER TABLE t ADD COLUMN b; ALTER TABLE t_patches ADD COLUMN b; "
                             "ALTER TABLE t DROP COLUMN c; ALTER TABLE t_patches DROP COLUMN c;",
                             ""));
  wire_open(c, 0, 1);
  cluster_settle(c);
  for (int i = 0; i < 3; i++) {
    peer *p = &c->peers[i];
    CHECK_TEXT(sql_dump(peer_sql(p), "SELECT id, a, b FROM t"),
               sql_dump(peer_sql(&c->peers[0]), "SELECT id, a, b FROM t"));
  }
}

/* Pieces of other sources go in slices as well, and an operator's wish to have room waits. */
static void pieces_that_are_merged_are_not_forgotten(void) {
  cluster *c = begin_merging(100);
  peer *q = &c->peers[2];
  for (int i = 0; i < 3; i++) merge_slice(q);
  int64_t left = staged(q), forgotten;
  peer_begin(q);
  CHECK_OK(q->r, replic_forget(q->r, REPLIC_FORGET_STAGED, 0, 0, &forgotten));
  CHECK_OK(q->r, peer_commit(q));
  CHECK_INT(forgotten, 0);
  CHECK_INT(staged(q), left);
  merge_all(q);
  CHECK_INT(staged(q), 0);
  CHECK_INT(peer_at(q, 101), 120);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(an_empty_peer_gets_past_a_pruned_log),
      TEST(a_peer_away_for_longer_than_the_retention),
      TEST(two_groups_find_each_other_again),
      TEST(a_chain_of_empty_peers),
      TEST(one_source_at_a_time),
      TEST(a_group_larger_than_window_and_slice),
      TEST(a_link_that_breaks_once_anywhere),
      TEST(links_that_break_every_few_frames),
      TEST(the_source_changes_in_the_middle),
      TEST(the_source_is_gone_in_the_middle),
      TEST(a_silent_source_is_left),
      TEST(what_came_another_way_is_let_go),
      TEST(a_tick_without_pieces_touches_no_disk),
      TEST(one_lost_frame_of_each_type),
      TEST(every_frame_twice),
      TEST(heavy_loss_and_disorder),
      TEST(the_source_goes_on_writing_and_pruning),
      TEST(a_jump_older_than_its_pieces_waits),
      TEST(a_piece_may_reach_beyond_its_jump),
      TEST(pieces_of_two_sources_are_not_mixed),
      TEST(pieces_come_in_order),
      TEST(pieces_may_overlap),
      TEST(all_that_fills_the_window_is_staged),
      TEST(a_jump_brings_nobody_its_own),
      TEST(pieces_stamped_before_what_is_known),
      TEST(what_is_known_is_skipped),
      TEST(huge_sums_are_no_danger),
      TEST(huge_claims_are_no_danger),
      TEST(a_jump_brings_what_is_not_known),
      TEST(a_jump_brings_what_does_not_fit),
      TEST(skew_within_a_piece_is_held),
      TEST(skew_of_the_vector_is_held),
      TEST(rows_deleted_by_hand_count_as_pruned),
      TEST(a_hole_is_not_forgotten),
      TEST(a_commit_that_fails_costs_time_only),
      TEST(pieces_of_a_failed_jump_are_let_go),
      TEST(a_jump_is_merged_in_slices),
      TEST(a_link_lives_while_a_jump_is_merged),
      TEST(a_restart_between_any_two_slices),
      TEST(a_slice_that_fails_is_merged_again),
      TEST(what_is_written_between_slices),
      TEST(who_merges_is_a_source_too),
      TEST(a_migration_between_slices),
      TEST(pieces_that_are_merged_are_not_forgotten),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

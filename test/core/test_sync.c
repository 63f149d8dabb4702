/* test_sync.c - links between peers: catch-up, live frames, relays, repair, refusals. No clock runs
 * by itself: what takes a heartbeat says so with cluster_beat, and what must happen at once uses
 * cluster_deliver alone. */
#include <string.h>

#include "frames.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE t_patches(" CLOCK                  \
  "id INTEGER, v TEXT);"
#define U                                                                                          \
  "CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE TABLE u_patches(" CLOCK                  \
  "_nulls TEXT, id INTEGER, w TEXT);"

static void put(peer *p, int64_t id, const char *v) {
  upsert(p, "t", ROW({"id", v_int(id)}, {"v", v_text(v)}));
}

static void put_many(peer *p, int64_t first, int64_t n) {
  for (int64_t i = first; i < first + n; i++) {
    put(p, i, "some value");
    p->cluster->now_ms += 1;
  }
}

static replic_link_info info_of(const peer *p, size_t index) {
  replic_link_info info = {0};
  CHECK(replic_link_at(p->r, index, &info));
  return info;
}

/* Peers with their own limits. */
static cluster *tuned(int n, const char *ddl, const replic_config *limits) {
  cluster *c = cluster_new();
  for (int i = 0; i < n; i++) {
    peer *p = cluster_add(c);
    const replic_config own = p->config;
    p->config = *limits;
    p->config.path = own.path;
    p->config.new_peer_id = own.new_peer_id;
    p->config.normal_durability = 1;
    peer_start(p);
    CHECK_OK(p->r, try_migrate(p, 1, ddl, ""));
  }
  return c;
}

/* How many of the frames on their way to a side are of this type. */
static size_t queued(const cluster *c, int w, int to_side, int type) {
  size_t n = 0;
  for (size_t i = 0; i < c->wires[w].to[to_side].n; i++)
    n += c->wires[w].to[to_side].packets[i].data[1] == type;
  return n;
}

/* Delivers everything as cluster_deliver does, and counts the frames of a type on the way to peer
 * `to` over wire w. */
static size_t deliver_counting(cluster *c, int type) {
  size_t n = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (int w = 0; w < c->n_wires; w++) {
      for (int side = 0; side < 2; side++) {
        if (c->wires[w].to[side].n == 0) continue;
        n += c->wires[w].to[side].packets[0].data[1] == type;
        wire_deliver(c, w, side, 0);
        moved = true;
      }
    }
  }
  return n;
}

/* ---- the plain case ---- */

static void a_link_becomes_ready_on_both_sides(void) {
  cluster *c = cluster_start(2, T);
  c->peers[1].clock_step_ms = 1500;
  wire_open(c, 0, 1);
  CHECK_INT(info_of(&c->peers[0], 0).state, REPLIC_LINK_OPENING);
  CHECK_INT(info_of(&c->peers[0], 0).peer, 0);
  cluster_deliver(c);
  for (int i = 0; i < 2; i++) {
    peer *p = &c->peers[i];
    CHECK_INT(event_count(p, REPLIC_EVENT_LINK_READY), 1);
    CHECK_INT(event_last(p, REPLIC_EVENT_LINK_READY)->peer, 102 - i);
    CHECK_INT(event_count(p, REPLIC_EVENT_SYNCED), 1); /* nothing to send is in step too */
    replic_link_info info = info_of(p, 0);
    CHECK_INT(info.state, REPLIC_LINK_READY);
    CHECK_INT(info.peer, 102 - i);
    CHECK_INT(info.lag + info.behind + info.unacked_bytes, 0);
    CHECK_INT(info.skew_ms, i ? -1500 : 1500);
    CHECK(info.held == NULL);
    CHECK(info.frames_in >= 1 && info.frames_out >= 1 && info.bytes_in > 0 && info.bytes_out > 0);
  }
  CHECK(!replic_link_at(c->peers[0].r, 1, &(replic_link_info){0}));
}

static void a_write_goes_out_at_once_and_once(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  for (int i = 0; i < 5; i++) {
    put(&c->peers[0], i, "x");
    CHECK_INT(queued(c, w, 1, PATCHES), 1);
    CHECK_INT(deliver_counting(c, PATCHES), 1);
    CHECK_INT(peer_at(&c->peers[1], 101), i + 1);
    CHECK_INT(info_of(&c->peers[0], 0).lag, 0); /* acknowledged at once */
    CHECK_INT(event_last(&c->peers[1], REPLIC_EVENT_CHANGE)->code, 2);
  }
  cluster_same(c, "t");
  cluster_beat(c, 3);
  c->now_ms += 1000;
  tick(&c->peers[0]); /* at rest a heartbeat is one small frame */
  CHECK_INT(c->wires[w].to[1].n, 1);
  CHECK(c->wires[w].to[1].packets[0].len < 20);
}

static void one_batch_is_one_frame(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  static const char *const COLUMNS[] = {"id"};
  int64_t sequence;
  peer_begin(&c->peers[0]);
  for (int64_t i = 0; i < 50; i++) {
    const replic_value id = v_int(i);
    const replic_change change = {REPLIC_UPSERT, "t", 1, COLUMNS, 1, &id};
    CHECK_OK(c->peers[0].r, replic_write(c->peers[0].r, &change, 1, &sequence));
  }
  CHECK_OK(c->peers[0].r, peer_commit(&c->peers[0]));
  CHECK_INT(queued(c, w, 1, PATCHES), 1);
  cluster_settle(c);
  cluster_same(c, "t");
}

static void catch_up_after_a_long_absence(void) {
  cluster *c = tuned(2, T, &(replic_config){.slice_bytes = 500, .window_bytes = 2000});
  put_many(&c->peers[0], 0, 500);
  put_many(&c->peers[1], 250, 500);
  wire_open(c, 0, 1);
  cluster_deliver(c); /* acknowledgements open the window: no heartbeat is needed */
  CHECK_INT(peer_at(&c->peers[0], 102), 500);
  CHECK_INT(peer_at(&c->peers[1], 101), 500);
  cluster_same(c, "t");
  cluster_same(c, "t_patches");
  for (int i = 0; i < 2; i++) CHECK(event_count(&c->peers[i], REPLIC_EVENT_SYNCED) >= 1);
  replic_counters counters;
  replic_get_counters(c->peers[0].r, &counters);
  CHECK_INT(counters.retransmissions, 0);
  CHECK_INT(counters.patches_applied, 500);
}

static void synced_is_told_once_per_change(void) {
  cluster *c = cluster_start(2, T);
  wire_open(c, 0, 1);
  cluster_settle(c);
  cluster_beat(c, 5);
  for (int round = 0; round < 3; round++) {
    peer_forget_events(&c->peers[0]);
    put(&c->peers[0], 1, "x");
    CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_SYNCED), 0);
    cluster_deliver(c);
    CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_SYNCED), 1);
    cluster_beat(c, 5);
    CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_SYNCED), 1);
  }
}

/* ---- durable before visible, applied before acknowledged (I4, I5) ---- */

static size_t outbox_frames(peer *p, int type) {
  replic_outbox box;
  size_t n = 0;
  replic_take_outbox(p->r, &box);
  for (size_t i = 0; i < box.n_sends; i++) n += box.sends[i].frame->data[1] == type;
  replic_outbox_free(&box);
  return n;
}

static void nothing_leaves_before_the_commit(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  peer *p = &c->peers[0];
  static const char *const COLUMNS[] = {"id"};
  const replic_value id = v_int(1);
  const replic_change change = {REPLIC_UPSERT, "t", 1, COLUMNS, 1, &id};
  int64_t sequence;
  peer_begin(p);
  CHECK_OK(p->r, replic_write(p->r, &change, 1, &sequence));
  CHECK_OK(p->r, replic_tick(p->r));
  CHECK_INT(outbox_frames(p, PATCHES), 0);
  replic_rollback(p->r);
  CHECK_INT(outbox_frames(p, PATCHES), 0);
  put(p, 2, "committed");
  CHECK_INT(queued(c, w, 1, PATCHES), 1);

  peer *q = &c->peers[1]; /* it receives, and its commit fails */
  packet frame = c->wires[w].to[1].packets[c->wires[w].to[1].n - 1];
  peer_begin(q);
  CHECK_OK(q->r, replic_receive(q->r, c->wires[w].number, frame.data, frame.len));
  CHECK_INT(outbox_frames(q, ACK), 0);
  replic_rollback(q->r);
  CHECK_INT(outbox_frames(q, ACK), 0);
  CHECK_INT(peer_at(q, 101), 0);
  wire_drop(c, w, 1, c->wires[w].to[1].n - 1);
  cluster_settle(c); /* the next heartbeat repairs it */
  CHECK_INT(peer_at(q, 101), 1);
  cluster_same(c, "t");
}

/* ---- topologies ---- */

static void a_chain_relays_at_once_and_never_back(void) {
  enum { N = 6 };
  cluster *c = cluster_start(N, T);
  for (int i = 1; i < N; i++) wire_open(c, i - 1, i);
  cluster_settle(c);
  cluster_beat(c, 6);
  put(&c->peers[0], 1, "from the left");
  CHECK_INT(deliver_counting(c, PATCHES), N - 1); /* one hop each, and no echo */
  put(&c->peers[N - 1], 2, "from the right");
  CHECK_INT(deliver_counting(c, PATCHES), N - 1);
  put(&c->peers[2], 3, "from the middle");
  CHECK_INT(deliver_counting(c, PATCHES), N - 1);
  for (int i = 0; i < N; i++)
    CHECK_INT(sql_int(peer_sql(&c->peers[i]), "SELECT count(*) FROM t"), 3);
  cluster_beat(c, 10);
  CHECK_INT(deliver_counting(c, PATCHES), 0);
  cluster_same(c, "t");
}

static void a_star_relays_through_its_hub(void) {
  enum { N = 6 };
  cluster *c = cluster_start(N, T);
  for (int i = 1; i < N; i++) wire_open(c, 0, i);
  cluster_settle(c);
  cluster_beat(c, 6);
  for (int i = 0; i < N; i++) put(&c->peers[i], i, "x");
  CHECK_INT(deliver_counting(c, PATCHES), N * (N - 1));
  cluster_same(c, "t");
}

static void a_full_mesh_carries_each_patch_once_per_peer(void) {
  enum { N = 5 };
  cluster *c = cluster_start(N, T);
  for (int i = 0; i < N; i++) {
    for (int k = 0; k < i; k++) wire_open(c, k, i);
  }
  cluster_settle(c);
  cluster_beat(c, 6);
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < N; i++) {
      put(&c->peers[i], i, "x");
      CHECK_INT(deliver_counting(c, PATCHES), N - 1);
    }
  }
  cluster_same(c, "t");
  size_t more = 0;
  for (int i = 0; i < 10; i++) { /* nor does anybody repeat it later */
    c->now_ms += 1000;
    for (int k = 0; k < N; k++) tick(&c->peers[k]);
    more += deliver_counting(c, PATCHES);
  }
  CHECK_INT(more, 0);
}

/* Delivers everything but what is on a dead wire, which swallows it. */
static void deliver_without(cluster *c, int dead) {
  for (bool moved = true; moved;) {
    moved = false;
    for (int w = 0; w < c->n_wires; w++) {
      for (int side = 0; side < 2; side++) {
        if (c->wires[w].to[side].n == 0) continue;
        if (w == dead)
          wire_drop(c, w, side, 0);
        else
          wire_deliver(c, w, side, 0);
        moved = true;
      }
    }
  }
}

/* One link of a triangle swallows everything: after a grace the third peer relays, though both
 * are linked to the origin. */
static void a_mesh_gets_round_a_dead_link(void) {
  cluster *c = cluster_start(3, T);
  int dead = wire_open(c, 0, 1);
  wire_open(c, 0, 2);
  wire_open(c, 1, 2);
  cluster_settle(c);
  cluster_beat(c, 2);
  put(&c->peers[0], 1, "x");
  int beats = 0;
  for (; peer_at(&c->peers[1], 101) == 0; beats++) {
    CHECK(beats < 8);
    deliver_without(c, dead);
    c->now_ms += 1000;
    for (int i = 0; i < 3; i++) tick(&c->peers[i]);
  }
  CHECK(beats >= 3); /* the grace */
  CHECK_INT(event_count(&c->peers[1], REPLIC_EVENT_LINK_CLOSE), 0);
}

/* Of what 0 writes, 4 patches a heartbeat, the wire to 1 carries 1; all of it comes by way of 2. */
static void a_mesh_gets_round_a_slow_link(void) {
  cluster *c = cluster_start(3, T);
  int slow = wire_open(c, 0, 1);
  wire_open(c, 0, 2);
  wire_open(c, 1, 2);
  cluster_settle(c);
  cluster_beat(c, 2);
  int64_t most = 0;
  for (int beat = 0; beat < 40; beat++) {
    for (int i = 0; i < 4; i++) put(&c->peers[0], 4 * beat + i, "x");
    packet_queue *way = &c->wires[slow].to[1];
    for (bool moved = true, first = true; moved; first = false) {
      moved = false;
      if (first && way->n > 0) wire_deliver(c, slow, 1, 0);
      for (int w = 0; w < c->n_wires; w++) {
        for (int side = 0; side < 2; side++) {
          if ((w == slow && side == 1) || c->wires[w].to[side].n == 0) continue;
          wire_deliver(c, w, side, 0);
          moved = true;
        }
      }
    }
    int64_t lag = peer_at(&c->peers[0], 101) - peer_at(&c->peers[1], 101);
    if (lag > most) most = lag;
    c->now_ms += 1000;
    for (int i = 0; i < 3; i++) tick(&c->peers[i]);
  }
  CHECK(most <= 4 * 6); /* the grace, and what is written in a heartbeat or two */
  cluster_settle(c);
  cluster_same(c, "t");
}

/* A link that is known to be gone needs no grace. */
static void a_mesh_relays_at_once_where_a_link_is_gone(void) {
  cluster *c = cluster_start(3, T);
  int gone = wire_open(c, 0, 1);
  wire_open(c, 0, 2);
  wire_open(c, 1, 2);
  cluster_settle(c);
  cluster_beat(c, 2);
  wire_cut(c, gone);
  cluster_beat(c, 1); /* the others hear of it */
  put(&c->peers[0], 1, "x");
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[1], 101), 1);
}

static void what_a_dead_peer_has_written_comes_from_the_others(void) {
  cluster *c = cluster_start(3, T);
  wire_open(c, 0, 1);
  put_many(&c->peers[0], 0, 50);
  cluster_deliver(c);
  peer_stop(&c->peers[0]);
  wire_open(c, 1, 2);
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[2], 101), 50);
  cluster_same(c, "t");
}

static void one_encoding_serves_all_links(void) {
  enum { N = 5 };
  cluster *c = cluster_start(N, T);
  for (int i = 1; i < N; i++) wire_open(c, 0, i);
  cluster_settle(c);
  put(&c->peers[0], 1, "the tables are known now");
  cluster_settle(c);
  peer *hub = &c->peers[0];
  static const char *const COLUMNS[] = {"id"};
  const replic_value id = v_int(9);
  const replic_change change = {REPLIC_UPSERT, "t", 1, COLUMNS, 1, &id};
  int64_t sequence;
  peer_begin(hub);
  CHECK_OK(hub->r, replic_write(hub->r, &change, 1, &sequence));
  CHECK_OK(hub->r, replic_commit(hub->r));
  replic_outbox box;
  replic_take_outbox(hub->r, &box);
  size_t n = box.n_sends, same = 0;
  for (size_t i = 0; i < n; i++) same += box.sends[i].frame == box.sends[0].frame;
  replic_outbox_free(&box);
  CHECK_INT(n, N - 1);
  CHECK_INT(same, n);
}

/* ---- loss, duplication, disorder ---- */

static void every_frame_twice(void) {
  cluster *c = tuned(2, T U, &(replic_config){.slice_bytes = 100, .window_bytes = 800});
  int w = wire_open(c, 0, 1);
  for (int round = 0; round < 40; round++) {
    put(&c->peers[round % 2], round % 7, test_format("%d", round));
    for (int side = 0; side < 2; side++) {
      for (size_t i = 0, n = c->wires[w].to[side].n; i < n; i++) wire_duplicate(c, w, side, i);
    }
    cluster_deliver(c);
  }
  cluster_settle(c);
  cluster_same(c, "t");
  replic_counters counters;
  replic_get_counters(c->peers[1].r, &counters);
  CHECK_INT(counters.patches_applied, 20);
}

/* Frames in any order, with and without room for the early ones. */
static void frames_in_any_order(void) {
  static const size_t ROOM[] = {0, 300, 1};
  for (size_t k = 0; k < COUNT(ROOM); k++) {
    test_note("early_bytes %zu", ROOM[k]);
    cluster *c = tuned(2, T, &(replic_config){.slice_bytes = 1, .early_bytes = ROOM[k]});
    rng g = {k + 1};
    put_many(&c->peers[0], 0, 60);
    int w = wire_open(c, 0, 1);
    for (int round = 0; round < 400; round++) {
      for (int side = 0; side < 2; side++) {
        size_t n = c->wires[w].to[side].n;
        if (n > 0) wire_deliver(c, w, side, rng_below(&g, (uint32_t)n));
      }
      if (round % 50 == 49) cluster_beat(c, 1);
    }
    cluster_settle(c);
    cluster_same(c, "t");
    replic_counters counters;
    replic_get_counters(c->peers[1].r, &counters);
    CHECK_INT(counters.patches_applied, 60);
    CHECK((counters.frames_early > 0) == (ROOM[k] != 1));
    replic_get_counters(c->peers[0].r, &counters);
    if (ROOM[k] == 0) CHECK(counters.retransmissions < 60 * 8); /* what waited was not sent again */
    replic_get_counters(c->peers[1].r, &counters);
    CHECK((counters.frames_dropped_early > 0) == (ROOM[k] != 0));
    test_release();
  }
}

/* The only frame that is lost is of one type; all the same the peers converge, within a few
 * heartbeats. */
static void one_lost_frame_of_each_type(void) {
  for (int type = HELLO; type <= SCHEMA; type++) {
    for (int lost = 0; lost < 3; lost++) {
      test_note("frame %d of type %d is lost", lost, type);
      cluster *c = tuned(3, T U, &(replic_config){.slice_bytes = 1, .window_bytes = 200});
      for (int i = 0; i < 3; i++) put_many(&c->peers[i], 10 * i, 6);
      wire_open(c, 0, 1);
      wire_open(c, 1, 2);
      int seen = 0;
      for (int beat = 0; beat < 12; beat++) {
        for (bool moved = true; moved;) {
          moved = false;
          for (int w = 0; w < c->n_wires; w++) {
            for (int side = 0; side < 2; side++) {
              if (c->wires[w].to[side].n == 0) continue;
              moved = true;
              bool drop = c->wires[w].to[side].packets[0].data[1] == type && seen++ == lost;
              if (drop)
                wire_drop(c, w, side, 0);
              else
                wire_deliver(c, w, side, 0);
            }
          }
        }
        c->now_ms += 1000;
        for (int i = 0; i < 3; i++) tick(&c->peers[i]);
        if (beat == 4) put(&c->peers[0], 77, "later");
      }
      for (int i = 0; i < 3; i++) {
        CHECK_INT(peer_at(&c->peers[i], 101), 7);
        CHECK_INT(peer_at(&c->peers[i], 102), 6);
        CHECK_INT(peer_at(&c->peers[i], 103), 6);
      }
      cluster_same(c, "t");
      test_release();
    }
  }
}

/* The only trace of a lost acknowledgement is what the sender believes; the next heartbeat sets it
 * right. */
static void a_lost_acknowledgement_is_repeated(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  put(&c->peers[0], 1, "x");
  wire_deliver(c, w, 1, 0);
  while (c->wires[w].to[1].n > 0) wire_deliver(c, w, 1, 0);
  CHECK_INT(queued(c, w, 0, ACK), 1);
  while (c->wires[w].to[0].n > 0) wire_drop(c, w, 0, 0);
  cluster_beat(c, 1);
  CHECK_INT(info_of(&c->peers[0], 0).lag, 0);
  CHECK_INT(info_of(&c->peers[0], 0).unacked_bytes, 0);
  replic_counters counters;
  replic_get_counters(c->peers[0].r, &counters);
  CHECK_INT(counters.retransmissions, 0); /* it was not the patch that was lost */
}

/* Half of everything is lost for a while. */
static void heavy_loss_is_repaired(void) {
  cluster *c = tuned(3, T, &(replic_config){.slice_bytes = 60, .link_timeout_ms = 100000});
  rng g = {5};
  int wires[] = {wire_open(c, 0, 1), wire_open(c, 1, 2)};
  for (int round = 0; round < 60; round++) {
    put(&c->peers[round % 3], round, "x");
    for (int k = 0; k < 2; k++) {
      for (int side = 0; side < 2; side++) {
        while (c->wires[wires[k]].to[side].n > 0) {
          if (rng_chance(&g, 50))
            wire_drop(c, wires[k], side, 0);
          else
            wire_deliver(c, wires[k], side, 0);
        }
      }
    }
    c->now_ms += 300;
    if (round % 3 == 0) tick(&c->peers[round % 9 / 3]);
  }
  cluster_settle(c);
  cluster_same(c, "t");
}

/* On a link that is merely slow, three heartbeats each way, nothing is sent twice. */
static void a_slow_link_causes_no_repetition(void) {
  cluster *c = tuned(2, T, &(replic_config){.slice_bytes = 200, .window_bytes = 1000});
  put_many(&c->peers[0], 0, 300);
  int w = wire_open(c, 0, 1);
  size_t older[2][3] = {{0}};
  for (int beat = 0; peer_at(&c->peers[1], 101) < 300; beat++) {
    CHECK(beat < 1000);
    for (int side = 0; side < 2; side++) {
      for (; older[side][0] > 0; older[side][0]--) {
        wire_deliver(c, w, side, 0);
        older[side][1]--;
        older[side][2]--;
      }
      older[side][0] = older[side][1];
      older[side][1] = older[side][2];
    }
    c->now_ms += 1000;
    for (int side = 0; side < 2; side++) tick(&c->peers[side]);
    for (int side = 0; side < 2; side++) older[side][2] = c->wires[w].to[side].n;
  }
  replic_counters counters;
  replic_get_counters(c->peers[0].r, &counters);
  CHECK_INT(counters.retransmissions, 0);
  replic_get_counters(c->peers[1].r, &counters);
  CHECK_INT(counters.frames_early, 0);
}

/* ---- windows and bounds ---- */

static void the_window_bounds_what_is_on_its_way(void) {
  cluster *c = tuned(2, T, &(replic_config){.slice_bytes = 300, .window_bytes = 1000});
  put_many(&c->peers[0], 0, 400);
  int w = wire_open(c, 0, 1);
  peer *p = &c->peers[0];
  while (c->wires[w].to[0].n > 0)
    wire_deliver(c, w, 0, 0); /* HELLO; from here on nothing is acknowledged */
  for (int beat = 0; beat < 5; beat++) {
    size_t bytes = 0;
    for (size_t i = 0; i < c->wires[w].to[1].n; i++) {
      if (c->wires[w].to[1].packets[i].data[1] == PATCHES)
        bytes += c->wires[w].to[1].packets[i].len;
    }
    CHECK(bytes > 1000 - 400 && bytes <= 1000 + 100);
    CHECK_INT(info_of(p, 0).unacked_bytes, bytes);
    CHECK_INT(info_of(p, 0).lag, 400);
    c->now_ms += 1000;
    tick(p);
  }
  cluster_settle(c);
  cluster_beat(c, 1);
  CHECK_INT(info_of(p, 0).unacked_bytes, 0);
  cluster_same(c, "t");
}

/* What a thread asks that must not wait. */
static void how_much_there_is_to_do(void) {
  cluster *c = tuned(2, T, &(replic_config){.slice_bytes = 300, .window_bytes = 1000});
  peer *p = &c->peers[0], *q = &c->peers[1];
  CHECK_INT(replic_is_calm(p->r), 1);
  int w = wire_open(c, 0, 1);
  cluster_deliver(c);
  put_many(p, 0, 3);
  CHECK_INT(replic_is_calm(p->r), 1); /* all of it is on its way */
  wire_swap(c, w, 1, 0, 1);
  wire_deliver(c, w, 1, 0);
  CHECK_INT(replic_is_calm(q->r), 0); /* one waits for the one before it */
  put_many(p, 3, 60);
  CHECK_INT(replic_is_calm(p->r), 0); /* the rest has to be read from the log */
  cluster_deliver(c);
  CHECK_INT(replic_is_calm(p->r), 1);
  CHECK_INT(replic_is_calm(q->r), 1);
  const uint8_t ack[] = {1, ACK}, patches[] = {1, PATCHES}, jump[] = {1, JUMP};
  CHECK_INT(replic_frame_takes(ack, 2), REPLIC_TAKES_MEMORY);
  CHECK_INT(replic_frame_takes(ack, 0), REPLIC_TAKES_MEMORY); /* a sign of life */
  CHECK_INT(replic_frame_takes(patches, 2), REPLIC_TAKES_WRITE_LOCK);
  CHECK_INT(replic_frame_takes(jump, 2), REPLIC_TAKES_LONGER);
  CHECK_INT(replic_frame_takes(ack, 1), REPLIC_TAKES_LONGER);
}

static void a_slow_peer_does_not_slow_the_others(void) {
  cluster *c = tuned(
      3, T, &(replic_config){.slice_bytes = 300, .window_bytes = 1000, .link_timeout_ms = 1000000});
  int slow = wire_open(c, 0, 1), fast = wire_open(c, 0, 2);
  cluster_settle(c);
  for (int64_t i = 0; i < 200; i++) {
    put(&c->peers[0], i, "some value");
    for (int side = 0; side < 2; side++) {
      while (c->wires[fast].to[side].n > 0) wire_deliver(c, fast, side, 0);
    }
  }
  CHECK_INT(peer_at(&c->peers[2], 101), 200);
  CHECK_INT(peer_at(&c->peers[1], 101), 0);
  CHECK(info_of(&c->peers[0], 0).unacked_bytes <= 1400);
  CHECK(c->wires[slow].to[1].n < 60);
  cluster_settle(c);
  cluster_same(c, "t");
}

static void a_group_larger_than_every_buffer(void) {
  cluster *c = tuned(
      2, T,
      &(replic_config){.slice_bytes = 10, .window_bytes = 10, .early_bytes = 10, .ring_bytes = 10});
  static const char *const COLUMNS[] = {"id", "v"};
  enum { N = 3000 };
  replic_value *values = test_alloc(2 * N * sizeof *values);
  for (int i = 0; i < N; i++) {
    values[2 * i] = v_int(i);
    values[2 * i + 1] = v_text("x");
  }
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, N, values};
  int64_t sequence;
  CHECK_OK(c->peers[0].r, try_write(&c->peers[0], &change, 1, &sequence));
  put(&c->peers[0], 1, "after it");
  int w = wire_open(c, 0, 1);
  while (peer_at(&c->peers[1], 101) == 0) {
    for (int side = 0; side < 2; side++) {
      if (c->wires[w].to[side].n > 0) wire_deliver(c, w, side, 0);
    }
  }
  CHECK(peer_at(&c->peers[1], 101) >= N); /* whole or not at all */
  cluster_settle(c);
  cluster_same(c, "t");
}

static void early_frames_are_bounded(void) {
  cluster *c = tuned(1, T, &(replic_config){.early_bytes = 1000});
  peer *p = &c->peers[0];
  int w = wire_open_test(c, 0);
  static const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  play(c, w, hello_frame(900, c->now_ms, NULL, 0));
  play(c, w, schema_frame(1, "t", 1, 2, FIELDS));
  for (int64_t sequence = 1000; sequence > 1; sequence--) {
    bytes *frame = patches_frame(900, sequence - 1, sequence);
    add_patch(frame, 1, true, (uint64_t)(c->now_ms - 1000 + sequence), 1, 1, 2,
              (const replic_value[]){v_int(sequence), v_text("x")});
    play(c, w, frame);
  }
  replic_counters counters;
  replic_get_counters(p->r, &counters);
  CHECK_INT(counters.frames_early + counters.frames_dropped_early, 999);
  CHECK(counters.frames_early >= 20 && counters.frames_early <= 60);
  CHECK_INT(info_of(p, 0).behind, 1000);
  CHECK(take_frames(c, w, NEED) <= 2); /* asked once, not once per frame */
  bytes *frame = patches_frame(900, 0, 1);
  add_patch(frame, 1, true, (uint64_t)(c->now_ms - 999), 1, 1, 2,
            (const replic_value[]){v_int(1), v_text("x")});
  play(c, w, frame);
  CHECK_INT(peer_at(p, 900), 1); /* the early ones that were kept are the last ones */
  wire_cut(c, w);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 1);
}

/* A bad early frame of one link must not cost another link its life. */
static void an_early_frame_is_its_own_links_affair(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  static const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  int good = wire_open_test(c, 0), bad = wire_open_test(c, 0);
  play(c, good, hello_frame(900, c->now_ms, NULL, 0));
  play(c, good, schema_frame(1, "t", 1, 2, FIELDS));
  play(c, bad, hello_frame(901, c->now_ms, NULL, 0));
  play(c, bad, schema_frame(1, "t", 1, 2, FIELDS));
  bytes *garbage = patches_frame(900, 1, 2);
  add_u8(garbage, 0xff);
  play(c, bad, garbage); /* early: not looked into yet */
  bytes *frame = patches_frame(900, 0, 1);
  add_patch(frame, 1, true, (uint64_t)c->now_ms, 1, 1, 2,
            (const replic_value[]){v_int(1), v_text("x")});
  play(c, good, frame);
  CHECK_INT(peer_at(p, 900), 1);
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 1);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->peer, 901);
  CHECK(c->wires[good].open[0] && !c->wires[bad].open[0]);
}

/* ---- interruptions ---- */

static void a_cut_in_the_middle_goes_on_where_it_was(void) {
  cluster *c = tuned(2, T, &(replic_config){.slice_bytes = 200, .window_bytes = 500});
  put_many(&c->peers[0], 0, 300);
  for (int cuts = 0; peer_at(&c->peers[1], 101) < 300; cuts++) {
    CHECK(cuts < 300);
    int w = wire_open(c, 0, 1);
    for (int i = 0; i < 25; i++) {
      if (c->wires[w].to[i % 2].n > 0) wire_deliver(c, w, i % 2, 0);
    }
    wire_cut(c, w);
  }
  wire_open(c, 0, 1);
  cluster_settle(c);
  cluster_same(c, "t");
  replic_counters counters;
  replic_get_counters(c->peers[1].r, &counters);
  CHECK_INT(counters.patches_applied, 300);
}

static void a_peer_restarts_in_the_middle(void) {
  for (int who = 0; who < 2; who++) {
    cluster *c = tuned(2, T, &(replic_config){.slice_bytes = 200, .window_bytes = 500});
    put_many(&c->peers[0], 0, 200);
    for (int restarts = 0; restarts < 10; restarts++) {
      int w = wire_open(c, 0, 1);
      for (int i = 0; i < 12; i++) {
        if (c->wires[w].to[i % 2].n > 0) wire_deliver(c, w, i % 2, 0);
      }
      peer_stop(&c->peers[who]);
      peer_start(&c->peers[who]);
      put(&c->peers[who], 1000 + restarts, "between");
    }
    wire_open(c, 0, 1);
    cluster_settle(c);
    cluster_same(c, "t");
    CHECK_INT(peer_at(&c->peers[1], 101), who ? 200 : 210);
    test_release();
  }
}

/* Beats `n` times without a frame from the other side; whether the link is still there. */
static bool outlives(peer *p, int w, int n, bool in_parts) {
  for (int beat = 0; beat < n && p->cluster->wires[w].open[0]; beat++) {
    p->cluster->now_ms += 1000;
    if (in_parts) peer_receive(p, p->cluster->wires[w].number, "", 0);
    tick(p);
  }
  return p->cluster->wires[w].open[0];
}

static void a_part_of_a_frame_is_a_sign_of_life(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK(outlives(&c->peers[0], w, 60, true));
  CHECK(!outlives(&c->peers[0], w, 11, false));
}

/* Or the wall clock was set forward: then nobody could be heard in the time that seems to have
 * passed. */
static void who_did_not_run_takes_nobody_for_silent(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  tick(&c->peers[0]);
  c->now_ms += 3600000;
  CHECK(outlives(&c->peers[0], w, 10, false));
  CHECK(!outlives(&c->peers[0], w, 2, false));
}

static void a_silent_link_is_closed(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  peer *p = &c->peers[0];
  for (int beat = 1; beat <= 11; beat++) {
    CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 0);
    c->now_ms += 1000;
    tick(p);
  }
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_ETIMEOUT);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->peer, 102);
  CHECK_CONTAINS(event_last(p, REPLIC_EVENT_LINK_CLOSE)->text, "10000");
  CHECK(!c->wires[w].open[0]);

  cluster *d = cluster_start(1, T); /* also one that never says HELLO */
  wire_open_test(d, 0);
  for (int beat = 1; beat <= 11; beat++) {
    d->now_ms += 1000;
    tick(&d->peers[0]);
  }
  CHECK_INT(event_last(&d->peers[0], REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_ETIMEOUT);
}

/* A wall clock that is set back is no silence, and what was held meanwhile comes once it is right
 * again. */
static void a_clock_that_is_set_back_keeps_the_link(void) {
  cluster *c = cluster_start(2, T);
  wire_open(c, 0, 1);
  cluster_settle(c);
  c->peers[0].clock_step_ms = -7200000;
  cluster_beat(c, 3);
  put(&c->peers[1], 1, "its clock is two hours ahead of ours now");
  cluster_beat(c, 30);
  CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_LINK_CLOSE), 0);
  CHECK_INT(peer_at(&c->peers[0], 102), 0);
  c->peers[0].clock_step_ms =
      0; /* two hours of silence, as it looks: a link that is closed for it is opened again */
  cluster_beat(c, 1);
  if (replic_link_count(c->peers[0].r) == 0) wire_open(c, 0, 1);
  cluster_settle(c);
  cluster_same(c, "t");
}

/* ---- refusals ---- */

static void both_sides_must_be_who_they_should_be(void) {
  cluster *c = cluster_start(3, T);
  int w = wire_open_test(c, 0);
  wire_cut(c, w);
  c->peers[1].id = 999; /* what peer 0 will expect; it is 102 */
  w = wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK_INT(event_last(&c->peers[0], REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPEER);
  CHECK_CONTAINS(event_last(&c->peers[0], REPLIC_EVENT_LINK_CLOSE)->text, "999");
  CHECK_CONTAINS(event_last(&c->peers[0], REPLIC_EVENT_LINK_CLOSE)->text, "102");
  CHECK_INT(event_last(&c->peers[1], REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPEER);
  CHECK(!c->wires[w].open[0] && !c->wires[w].open[1]);
}

static void two_peers_of_one_id_refuse_each_other(void) {
  cluster *c = cluster_new();
  for (int i = 0; i < 2; i++) {
    peer *p = cluster_add(c);
    p->config.peer_id = 7;
    peer_start(p);
  }
  wire_open(c, 0, 1);
  cluster_deliver(c);
  for (int i = 0; i < 2; i++) {
    CHECK_INT(event_last(&c->peers[i], REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPEER);
    CHECK_CONTAINS(event_last(&c->peers[i], REPLIC_EVENT_LINK_CLOSE)->text, "7");
  }
}

static void links_are_known_by_their_number(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  peer *p = &c->peers[0];
  peer_begin(p);
  CHECK_CODE(p->r, replic_link_open(p->r, c->wires[w].number, 0, 0), REPLIC_EUSAGE);
  replic_link_close(p->r, 12345);
  CHECK_OK(p->r, replic_receive(p->r, 12345, (const uint8_t *)"\1\1", 2));
  CHECK_OK(p->r, peer_commit(p));
  CHECK_INT(replic_link_count(p->r), 1);
  cluster_settle(c);
  CHECK_INT(info_of(p, 0).state, REPLIC_LINK_READY);
}

/* ---- schemas that differ ---- */

static void what_a_peer_does_not_know_is_kept(void) {
  cluster *c = cluster_start(3, T);
  peer *p = &c->peers[0], *q = &c->peers[1], *behind = &c->peers[2];
  wire_open(c, 0, 1);
  wire_open(c, 1, 2); /* hears of it through one that does not know the table */
  cluster_settle(c);
  CHECK_OK(p->r, try_migrate(p, 2, U, ""));
  CHECK_OK(behind->r, try_migrate(behind, 2, U, ""));
  put(p, 1, "known");
  upsert(p, "u", ROW({"id", v_int(1)}, {"w", v_text("unknown")}));
  put(p, 2, "after it");
  put(q, 3, "the other way is free");
  cluster_settle(c);
  CHECK_INT(peer_at(q, 101), 3);
  CHECK_INT(peer_at(behind, 101), 3);
  CHECK_TEXT(peer_dump(behind, "u"), peer_dump(p, "u"));
  CHECK_INT(event_count(q, REPLIC_EVENT_LINK_ERROR), 0);
  CHECK(info_of(q, 0).held == NULL);
  CHECK_INT(replic_pending_count(q->r), 1);
  CHECK_TEXT(replic_pending_at(q->r, 0)->table, "u");
  CHECK_CONTAINS(replic_pending_at(q->r, 0)->why, "table u is not replicated here");
  CHECK_INT(replic_pending_at(q->r, 0)->patches, 1);
  CHECK(!replic_pending_at(q->r, 1));
  peer_stop(q);
  peer_start(q);
  CHECK_INT(replic_pending_at(q->r, 0)->patches, 1);
  CHECK_OK(q->r, try_migrate(q, 2, U, ""));
  CHECK_INT(replic_pending_count(q->r), 0);
  CHECK_TEXT(peer_dump(q, "_replic_pending"), "");
  CHECK_TEXT(peer_dump(q, "_replic_definitions"), "");
  wire_open(c, 0, 1);
  wire_open(c, 1, 2);
  cluster_settle(c);
  cluster_same(c, "t");
  cluster_same(c, "u");
}

typedef struct difference {
  const char *ours, *theirs; /* the DDL of u */
  const char *text;          /* why a patch of `theirs` is pending here */
  const char *mend;          /* what we migrate */
  const char *meanwhile;     /* what we hold of it before */
} difference;

static void tables_may_differ(void) {
  static const difference CASES[] = {
      {"CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE TABLE u_patches(" CLOCK
       "id INTEGER, w TEXT);",
       "CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT, x TEXT); CREATE TABLE u_patches(" CLOCK
       "id INTEGER, w TEXT, x TEXT);",
       "table u has no column x",
       "ALTER TABLE u ADD COLUMN x TEXT; ALTER TABLE u_patches ADD COLUMN x TEXT", "i1|t77\n"},
      {"CREATE TABLE u(id INTEGER PRIMARY KEY, w INTEGER); CREATE TABLE u_patches(" CLOCK
       "id INTEGER, w INTEGER);",
       "CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE TABLE u_patches(" CLOCK
       "id INTEGER, w TEXT);",
       "column w of table u is \"TEXT\" there and \"INTEGER\" here",
       "DROP TABLE u; DROP TABLE u_patches; CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE "
       "TABLE u_patches(" CLOCK "id INTEGER, w TEXT)",
       "i1|t77\n"},
      {"CREATE TABLE u(id INTEGER, w TEXT, PRIMARY KEY(id, w)); CREATE TABLE u_patches(" CLOCK
       "id INTEGER, w TEXT);",
       "CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE TABLE u_patches(" CLOCK
       "id INTEGER, w TEXT);",
       "table u has another primary key here",
       "DROP TABLE u; DROP TABLE u_patches; CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE "
       "TABLE u_patches(" CLOCK "id INTEGER, w TEXT)",
       ""},
      {"CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE TABLE u_patches(" CLOCK
       "id INTEGER, w TEXT);",
       "CREATE TABLE u(id INTEGER PRIMARY KEY, w TEXT); CREATE TABLE u_patches(" CLOCK
       "_nulls TEXT, id INTEGER, w TEXT);",
       "a column here cannot hold the value", "ALTER TABLE u_patches ADD COLUMN _nulls TEXT",
       "i1|n\n"},
  };
  for (size_t i = 0; i < COUNT(CASES); i++) {
    test_note("%s", CASES[i].text);
    cluster *c = cluster_start(2, T);
    peer *p = &c->peers[0], *q = &c->peers[1];
    CHECK_OK(p->r, try_migrate(p, 2, CASES[i].ours, ""));
    CHECK_OK(q->r, try_migrate(q, 2, CASES[i].theirs, ""));
    wire_open(c, 0, 1);
    cluster_settle(c);
    put(q, 1, "common");
    if (i == 0)
      upsert(q, "u", ROW({"id", v_int(1)}, {"w", v_text("w")}, {"x", v_text("x")}));
    else if (i == 3)
      upsert(q, "u", ROW({"id", v_int(1)}, {"w", v_null()}));
    else
      upsert(q, "u", ROW({"id", v_int(1)}, {"w", v_text("w")}));
    put(q, 2, "behind");
    cluster_settle(c);
    CHECK_INT(peer_at(p, 102), 3);
    CHECK_INT(event_count(p, REPLIC_EVENT_LINK_ERROR), 0);
    CHECK_INT(replic_pending_count(p->r), 1);
    CHECK_INT(replic_pending_at(p->r, 0)->patches, 1);
    CHECK_CONTAINS(replic_pending_at(p->r, 0)->why, CASES[i].text);
    CHECK_TEXT(peer_dump(p, "u"), CASES[i].meanwhile);
    CHECK_OK(p->r, try_migrate(p, 3, CASES[i].mend, ""));
    CHECK_INT(replic_pending_count(p->r), 0);
    cluster_settle(c);
    cluster_same(c, "t");
    cluster_same(c, "u");
    test_release();
  }
}

/* Fewer columns there than here is no obstacle, nor is another order of them. */
static void a_peer_may_know_fewer_columns(void) {
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0], *q = &c->peers[1];
  CHECK_OK(
      p->r,
      try_migrate(
          p, 2,
          "CREATE TABLE u(x TEXT, w TEXT, b TEXT NOT NULL, a TEXT NOT NULL, PRIMARY KEY(a, b));"
          "CREATE TABLE u_patches(" CLOCK "x TEXT, w TEXT, b TEXT, a TEXT)",
          ""));
  CHECK_OK(q->r, try_migrate(
                     q, 2,
                     "CREATE TABLE u(a TEXT NOT NULL, b TEXT NOT NULL, w TEXT, PRIMARY KEY(a, b));"
                     "CREATE TABLE u_patches(w TEXT, " CLOCK "b TEXT, a TEXT)",
                     ""));
  wire_open(c, 0, 1);
  upsert(q, "u", ROW({"a", v_text("a")}, {"b", v_text("b")}, {"w", v_text("w")}));
  cluster_settle(c);
  CHECK_TEXT(peer_dump(p, "u"), "n|t77|t62|t61\n");
}

/* A patch that comes late, for a row that a migration has just let in, is not taken for the newest.
 */
static void what_a_migration_lets_in_is_found_by_older_ones(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  static const char *const FIELDS[] = {"id", "INTEGER", "w", "TEXT"};
  int w = wire_open_test(c, 0);
  play(c, w, hello_frame(900, c->now_ms, NULL, 0));
  play(c, w, schema_frame(1, "u", 1, 2, FIELDS));
  bytes *newer = patches_frame(901, 0, 1), *older = patches_frame(902, 0, 1);
  add_patch(newer, 1, true, (uint64_t)c->now_ms + 10, 1, 1, 2,
            (const replic_value[]){v_int(1), v_text("newer")});
  add_patch(older, 1, true, (uint64_t)c->now_ms + 5, 1, 1, 2,
            (const replic_value[]){v_int(1), v_text("older")});
  play(c, w, newer);
  CHECK_OK(p->r, try_migrate(p, 2, U, ""));
  play(c, w, older);
  CHECK_TEXT(sql_text(peer_sql(p), "SELECT w FROM u"), "newer");
}

static void what_is_unknown_stops_nothing(void) {
  cluster *c = cluster_start(3, T);
  wire_open(c, 0, 1);
  wire_open(c, 1, 2);
  cluster_settle(c);
  CHECK_OK(c->peers[0].r, try_migrate(&c->peers[0], 2, U, ""));
  CHECK_OK(c->peers[1].r, try_migrate(&c->peers[1], 2, U, ""));
  upsert(&c->peers[0], "u", ROW({"id", v_int(1)}, {"w", v_text("unknown to peer 2")}));
  put(&c->peers[1], 1, "known to all");
  cluster_beat(c, 2);
  CHECK_INT(peer_at(&c->peers[2], 101), 1);
  CHECK_INT(peer_at(&c->peers[2], 102), 1);
  CHECK_INT(replic_pending_at(c->peers[2].r, 0)->patches, 1);
  CHECK_OK(c->peers[2].r, try_migrate(&c->peers[2], 2, U, ""));
  cluster_settle(c);
  cluster_same(c, "u");
}

/* A value that this peer's STRICT table cannot hold: the rest of the patch is there. */
static void a_value_that_does_not_fit_is_kept(void) {
  cluster *c = cluster_start(1, T "CREATE TABLE s(id INTEGER PRIMARY KEY, n INTEGER) STRICT;"
                                  "CREATE TABLE s_patches(" CLOCK "id INTEGER, n INTEGER) STRICT;");
  peer *p = &c->peers[0];
  int w = wire_open_test(c, 0);
  static const char *const FIELDS[] = {"id", "INTEGER", "n", "INTEGER"};
  play(c, w, hello_frame(900, c->now_ms, NULL, 0));
  play(c, w, schema_frame(1, "s", 1, 2, FIELDS));
  bytes *frame = patches_frame(900, 0, 3);
  add_patch(frame, 1, true, (uint64_t)c->now_ms - 10, 1, 1, 2,
            (const replic_value[]){v_int(1), v_int(1)});
  add_patch(frame, 1, true, 5, 1, 1, 2, (const replic_value[]){v_int(2), v_int(2)});
  add_patch(frame, 1, false, 0, 1, 1, 2, (const replic_value[]){v_int(3), v_text("no number")});
  play(c, w, frame);
  CHECK_INT(peer_at(p, 900), 3);
  CHECK_TEXT(peer_dump(p, "s"), "i1|i1\ni2|i2\ni3|n\n");
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM s_patches"), 3);
  CHECK_INT(replic_pending_at(p->r, 0)->patches, 1);
  CHECK_CONTAINS(replic_pending_at(p->r, 0)->why, "cannot hold the value");
  CHECK(c->wires[w].open[0]);
  CHECK_OK(p->r,
           try_migrate(p, 2,
                       "ALTER TABLE s RENAME TO old; ALTER TABLE s_patches RENAME TO old_patches;"
                       "CREATE TABLE s(id INTEGER PRIMARY KEY, n TEXT) STRICT;"
                       "CREATE TABLE s_patches(" CLOCK "id INTEGER, n TEXT) STRICT;"
                       "INSERT INTO s SELECT * FROM old; INSERT INTO s_patches SELECT * FROM "
                       "old_patches; DROP TABLE old; DROP TABLE old_patches",
                       ""));
  CHECK_TEXT(peer_dump(p, "s"), "i1|t31\ni2|t32\ni3|t6e6f206e756d626572\n");
  put(p, 1, "goes on");
}

/* Frames that were encoded before a migration are of no use to a link that comes after it. */
static void a_migration_between_two_links(void) {
  cluster *c = cluster_start(3, T);
  wire_open(c, 0, 1);
  cluster_deliver(c);
  put(&c->peers[0], 1, "before");
  cluster_deliver(c);
  for (int i = 0; i < 3; i++) CHECK_OK(c->peers[i].r, try_migrate(&c->peers[i], 2, U, ""));
  put(&c->peers[0], 2, "after");
  wire_open(c, 0, 2);
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[2], 101), 2);
  CHECK_INT(peer_at(&c->peers[1], 101), 2);
  replic_counters counters;
  replic_get_counters(c->peers[0].r, &counters);
  CHECK_INT(counters.retransmissions, 0);
}

/* ---- two links to one peer ---- */

static void of_two_links_one_stands_by(void) {
  cluster *c = cluster_start(2, T);
  int first = wire_open(c, 0, 1), second = wire_open(c, 0, 1);
  cluster_settle(c);
  CHECK_INT(info_of(&c->peers[0], 0).state, REPLIC_LINK_READY);
  CHECK_INT(info_of(&c->peers[0], 1).state, REPLIC_LINK_STANDBY);
  put(&c->peers[0], 1, "x");
  CHECK_INT(queued(c, first, 1, PATCHES), 1);
  CHECK_INT(queued(c, second, 1, PATCHES), 0);
  CHECK_INT(deliver_counting(c, PATCHES), 1);

  put(&c->peers[0], 2, "lost with the first link");
  wire_cut(c, first);
  CHECK_INT(info_of(&c->peers[0], 0).state, REPLIC_LINK_READY);
  cluster_beat(c, 1);
  CHECK_INT(peer_at(&c->peers[1], 101), 2);
  put(&c->peers[1], 3, "and back");
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[0], 102), 1);
  cluster_same(c, "t");
}

/* The two sides may not agree which of the links is older: one opened them in the other order. */
static void two_links_in_opposite_order(void) {
  cluster *c = cluster_start(2, T);
  int a = wire_open_test(c, 0), b = wire_open_test(c, 0);
  for (int i = 0; i < 2; i++) { /* peer 1 opens its ends the other way round */
    int w = i ? a : b;
    peer *q = &c->peers[1];
    c->wires[w].peers[1] = 1;
    peer_begin(q);
    CHECK_OK(q->r, replic_link_open(q->r, c->wires[w].number, 101, 0));
    CHECK_OK(q->r, peer_commit(q));
  }
  cluster_settle(c);
  for (int i = 0; i < 10; i++) put(&c->peers[i % 2], i, "x");
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[0], 102), 5);
  CHECK_INT(peer_at(&c->peers[1], 101), 5);
  wire_cut(c, a);
  put(&c->peers[0], 20, "x");
  put(&c->peers[1], 21, "x");
  cluster_beat(c, 1);
  cluster_same(c, "t");
}

/* ---- what nobody else has ---- */

/* "101 3, 102 1": origins and how many of their patches. */
static const char *nowhere_else(const peer *p) {
  size_t n = 0;
  const replic_position *all = replic_unacknowledged(p->r, &n);
  char *text = "";
  CHECK(all);
  for (size_t i = 0; i < n; i++)
    text =
        test_format("%s%s%u %lld", text, i ? ", " : "", all[i].origin, (long long)all[i].sequence);
  return text;
}

static void what_nobody_else_has_is_counted(void) {
  cluster *c = cluster_start(3, T);
  peer *p = &c->peers[0];
  CHECK_TEXT(nowhere_else(p), "");
  put_many(p, 1, 3);
  CHECK_TEXT(nowhere_else(p), "101 3");
  int w = wire_open(c, 0, 1);
  CHECK_TEXT(nowhere_else(p), "101 3"); /* on its way is not acknowledged */
  cluster_beat(c, 2);
  CHECK_TEXT(nowhere_else(p), "");
  put(p, 4, "x");
  put(&c->peers[1], 5, "x");
  wire_cut(c, w);
  CHECK_TEXT(nowhere_else(p), "101 1"); /* what it had stays known */
  CHECK_TEXT(nowhere_else(&c->peers[1]), "102 1");
  wire_open(c, 1, 2);
  cluster_beat(c, 2);
  CHECK_TEXT(nowhere_else(&c->peers[1]), "");
  peer_stop(&c->peers[1]);
  peer_start(&c->peers[1]);
  CHECK_TEXT(nowhere_else(&c->peers[1]), "101 3, 102 1"); /* until somebody says so again */
  wire_open(c, 2, 1);
  cluster_beat(c, 2);
  CHECK_TEXT(nowhere_else(&c->peers[1]), "");
}

/* 102 has the first patch, 103 all: of each origin the greatest counts. */
static void what_nobody_else_has_is_found_over_all_peers(void) {
  cluster *c = cluster_start(3, T);
  put(&c->peers[0], 1, "x");
  int first = wire_open(c, 0, 1);
  cluster_beat(c, 2);
  put(&c->peers[1], 2, "x");
  cluster_beat(c, 2);
  wire_cut(c, first);
  wire_open(c, 0, 2);
  put_many(&c->peers[0], 3, 2);
  cluster_beat(c, 2);
  put(&c->peers[2], 9, "x");
  CHECK_TEXT(nowhere_else(&c->peers[0]), "");
  cluster_beat(c, 2);
  CHECK_TEXT(nowhere_else(&c->peers[0]), ""); /* 103 has its own */
  CHECK_TEXT(nowhere_else(&c->peers[2]), "");
}

static void who_leaves_with_everything_is_told(void) {
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0], *q = &c->peers[1];
  int w = wire_open(c, 0, 1);
  put_many(p, 1, 3);
  cluster_settle(c);
  put(q, 4, "x");
  cluster_settle(c);
  wire_cut(c, w);
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_LEFT), 1);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_LEFT)->peer, 102);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_LEFT)->a, 4);
  w = wire_open(c, 0, 1);
  wire_cut(c, w); /* before its HELLO */
  w = wire_open(c, 0, 1);
  cluster_settle(c);
  put(p, 5, "x");
  wire_cut(c, w); /* before it could say that it has that */
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_LEFT), 1);
  CHECK_INT(event_count(q, REPLIC_EVENT_LINK_LEFT), 2); /* of what it knew p had all */
  CHECK_INT(event_last(q, REPLIC_EVENT_LINK_LEFT)->a, 4);
}

/* A file that was copied: the other one says the same numbers of other patches. */
static void what_a_fork_has_is_no_acknowledgement(void) {
  cluster *c = cluster_start(3, T);
  for (int i = 0; i < 2; i++) {
    peer *p = &c->peers[i];
    peer_stop(p);
    p->config.peer_id = 7;
    peer_start(p);
    put(p, 1, i ? "one" : "another");
  }
  int w = wire_open(c, 1, 2);
  cluster_settle(c);
  wire_cut(c, w);
  wire_open(c, 0, 2);
  cluster_deliver(c);
  CHECK(event_count(&c->peers[0], REPLIC_EVENT_LINK_CLOSE) > 0);
  CHECK_TEXT(nowhere_else(&c->peers[0]), "7 1");
}

/* ---- what is shown ---- */

static void tracing_tells_what_happens(void) {
  cluster *c = tuned(2, T, &(replic_config){.trace = 1});
  wire_open(c, 0, 1);
  cluster_settle(c);
  peer_forget_events(&c->peers[0]);
  peer_forget_events(&c->peers[1]);
  put(&c->peers[0], 1, "x");
  cluster_deliver(c);
  char *told = "";
  for (int i = 0; i < 2; i++) {
    for (size_t k = 0; k < c->peers[i].n_events; k++) {
      if (c->peers[i].events[k].kind == REPLIC_EVENT_TRACE)
        told = test_format("%s%s\n", told, c->peers[i].events[k].text);
    }
  }
  CHECK_CONTAINS(told, "written 101.1");
  CHECK_CONTAINS(told, "sent");
  CHECK_CONTAINS(told, "received");
  CHECK_CONTAINS(told, "applied 101.1");
  cluster *quiet = cluster_start(1, T);
  put(&quiet->peers[0], 1, "x");
  CHECK_INT(event_count(&quiet->peers[0], REPLIC_EVENT_TRACE), 0);
}

static void the_vector_is_told_as_it_moves(void) {
  cluster *c = cluster_start(3, T);
  wire_open(c, 0, 1);
  wire_open(c, 1, 2);
  cluster_settle(c);
  for (int i = 0; i < 3; i++) put(&c->peers[i], i, "x");
  cluster_settle(c);
  const replic_position *vector = replic_vector(c->peers[2].r);
  CHECK_INT(replic_vector_count(c->peers[2].r), 3);
  for (uint32_t i = 0; i < 3; i++) {
    CHECK_INT(vector[i].origin, 101 + i);
    CHECK_INT(vector[i].sequence, 1);
    CHECK_INT(vector[i].patched_at, c->now_ms);
  }
  CHECK_INT(event_count(&c->peers[2], REPLIC_EVENT_VECTOR), 3);
  peer_stop(&c->peers[2]);
  peer_start(&c->peers[2]);
  CHECK_INT(replic_vector_count(c->peers[2].r), 3);
}

/* A batch of a peer that does not get the write lock: everything on its way to it, and a heartbeat.
 */
static void locked_beat(cluster *c, int w) {
  peer *p = &c->peers[1];
  c->now_ms += 1000;
  tick(&c->peers[0]);
  CHECK_OK(p->r, replic_begin_busy(p->r, peer_now(p)));
  for (size_t i = 0; i < c->wires[w].to[1].n; i++) {
    const packet *frame = &c->wires[w].to[1].packets[i];
    int rc = replic_receive(p->r, c->wires[w].number, frame->data, frame->len);
    if (rc != SQLITE_BUSY || !replic_frame_brings(frame->data, frame->len)) CHECK_OK(p->r, rc);
  }
  while (c->wires[w].to[1].n) wire_drop(c, w, 1, 0);
  CHECK_OK(p->r, replic_tick(p->r));
  CHECK_OK(p->r, peer_commit(p));
  CHECK_INT(queued(c, w, 0, NEED) + queued(c, w, 0, ERROR), 0);
  while (c->wires[w].to[0].n) wire_deliver(c, w, 0, 0);
}

/* Another program writes for longer than a link may be silent. What came meanwhile is not asked for
 * before it can be stored, not acknowledged, and not lost. */
static void a_locked_file_ends_no_link(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  for (int i = 0; i < 2; i++) peer_forget_events(&c->peers[i]);
  sql_exec(peer_sql(&c->peers[1]), "BEGIN IMMEDIATE");
  for (int i = 0; i < 15; i++) {
    put(&c->peers[0], i, "x");
    locked_beat(c, w);
  }
  CHECK_INT(peer_at(&c->peers[1], 101), 0);
  CHECK_INT(info_of(&c->peers[0], 0).lag, 15);
  sql_exec(peer_sql(&c->peers[1]), "COMMIT");
  cluster_beat(c, 2);
  CHECK_INT(peer_at(&c->peers[1], 101), 15);
  cluster_same(c, "t");
  for (int i = 0; i < 2; i++) {
    CHECK_INT(info_of(&c->peers[i], 0).state, REPLIC_LINK_READY);
    CHECK_INT(event_count(&c->peers[i], REPLIC_EVENT_LINK_CLOSE), 0);
    CHECK_INT(event_count(&c->peers[i], REPLIC_EVENT_ERROR), 0);
  }
}

/* All on its way arrives, but for what wire w swallows on the way to `side`: PATCHES, or everything
 * that is no heartbeat. */
static void deliver_swallowing(cluster *c, int w, int side, bool all) {
  for (bool moved = true; moved;) {
    moved = false;
    for (int i = 0; i < 2 * c->n_wires; i++) {
      packet_queue *way = &c->wires[i / 2].to[i % 2];
      if (!way->n) continue;
      int type = way->packets[0].data[1];
      moved = true;
      if (i == 2 * w + side && (type == PATCHES || (all && type != HELLO && type != ACK)))
        wire_drop(c, w, side, 0);
      else
        wire_deliver(c, i / 2, i % 2, 0);
    }
  }
}

static void beat_swallowing(cluster *c, int w, int side, bool all) {
  c->now_ms += 1000;
  for (int i = 0; i < c->n_peers; i++) tick(&c->peers[i]);
  deliver_swallowing(c, w, side, all);
  if (all) deliver_swallowing(c, w, !side, all);
}

/* The oldest link lets heartbeats pass and no patches: after some askings in vain the other one
 * carries, and goes on to. */
static void a_link_that_swallows_patches_carries_no_more(void) {
  for (int all = 0; all < 2; all++) {
    cluster *c = cluster_start(2, T);
    int w = wire_open(c, 0, 1);
    wire_open(c, 0, 1);
    cluster_settle(c);
    put(&c->peers[0], 1, "x");
    deliver_swallowing(c, w, 1, all);
    for (int beats = 0; beats < 4; beats++) beat_swallowing(c, w, 1, all);
    CHECK_INT(peer_at(&c->peers[1], 101), 0); /* it may be mere loss */
    for (int beats = 0; beats < 4; beats++) beat_swallowing(c, w, 1, all);
    CHECK_INT(peer_at(&c->peers[1], 101), 1);
    for (int i = 0; i < 2; i++) {
      CHECK_INT(event_count(&c->peers[i], REPLIC_EVENT_LINK_ERROR), 1);
      const replic_event *event = event_last(&c->peers[i], REPLIC_EVENT_LINK_ERROR);
      CHECK_INT(event->link, c->wires[w].number);
      CHECK_INT(event->code, REPLIC_ETIMEOUT);
      CHECK_CONTAINS(event->text, "link 2 carries them");
    }
    CHECK_INT(info_of(&c->peers[0], 0).link, c->wires[1].number);
    CHECK_INT(info_of(&c->peers[0], 0).state, REPLIC_LINK_READY);
    CHECK_INT(info_of(&c->peers[0], 1).state, REPLIC_LINK_STANDBY);
    put(&c->peers[0], 2, "y"); /* at once */
    deliver_swallowing(c, w, 1, all);
    CHECK_INT(peer_at(&c->peers[1], 101), 2);
    if (!all) put(&c->peers[1], 3, "z"); /* the other way nothing was lost */
    for (int beats = 0; beats < 10; beats++) beat_swallowing(c, w, 1, all);
    cluster_same(c, "t");
    for (int i = 0; i < 2; i++) CHECK_INT(event_count(&c->peers[i], REPLIC_EVENT_LINK_ERROR), 1);
    wire_cut(c, 1); /* the last one carries, whatever it is */
    put(&c->peers[0], 4, "x");
    cluster_settle(c);
  }
}

/* A frame that takes thirty heartbeats, and what was sent behind it. Heartbeats come the other way.
 */
static void a_slow_link_goes_on_carrying(void) {
  cluster *c = cluster_start(2, T);
  int w = wire_open(c, 0, 1);
  wire_open(c, 0, 1);
  cluster_settle(c);
  put(&c->peers[0], 1, "x");
  for (int beats = 0; beats < 30; beats++) {
    c->now_ms += 1000;
    for (int i = 0; i < 2; i++) tick(&c->peers[i]);
    peer_receive(&c->peers[1], c->wires[w].number, "", 0); /* a part of the frame */
    while (c->wires[w].to[0].n) wire_deliver(c, w, 0, 0);
    for (int i = 0; i < 2; i++)
      while (c->wires[1].to[i].n) wire_deliver(c, 1, i, 0);
  }
  CHECK_INT(peer_at(&c->peers[1], 101), 0);
  cluster_settle(c);
  for (int i = 0; i < 2; i++) CHECK_INT(event_count(&c->peers[i], REPLIC_EVENT_LINK_ERROR), 0);
  CHECK_INT(info_of(&c->peers[0], 0).retransmitted, 0);
  CHECK_INT(info_of(&c->peers[0], 1).frames_out < 40, 1);
}

/* A frame that an earlier opening of its sender has sent comes late, over a link to the next one,
 * whose tables are others. Their ids are others, too: so it is asked for, and not taken for a frame
 * of another table. */
static void a_late_frame_of_an_earlier_opening_names_no_table(void) {
  static const char S[] = "CREATE TABLE s(id INTEGER PRIMARY KEY, v TEXT);"
                          "CREATE TABLE s_patches(" CLOCK "id INTEGER, v TEXT);";
  cluster *c = tuned(2, T, &(replic_config){.first_table_id = 0});
  peer *a = &c->peers[0], *b = &c->peers[1];
  int w = wire_open(c, 0, 1);
  cluster_settle(c);
  put(a, 1, "x");
  const packet *sent = &c->wires[w].to[1].packets[c->wires[w].to[1].n - 1];
  CHECK_INT(sent->data[1], PATCHES);
  bytes *late = frame_new(PATCHES);
  add_raw(late, sent->data + 2, sent->len - 6);
  wire_cut(c, w);
  for (int i = 0; i < 2; i++) CHECK_OK(c->peers[i].r, try_migrate(&c->peers[i], 2, S, ""));
  peer_stop(a);
  a->config.new_peer_id++; /* drawn for each opening */
  peer_start(a);
  w = wire_open(c, 0, 1);
  wire_deliver(c, w, 1, 0);
  wire_deliver(c, w, 0, 0); /* both HELLOs */
  while (c->wires[w].to[1].n)
    if (c->wires[w].to[1].packets[0].data[1] == PATCHES)
      wire_drop(c, w, 1, 0);
    else
      wire_deliver(c, w, 1, 0);
  late = whole(late->data, late->len);
  wire_put(c, w, 1, late->data, late->len);
  wire_deliver(c, w, 1, 0);
  CHECK_TEXT(peer_dump(b, "s"), "");
  CHECK_INT(peer_at(b, 101), 0);
  CHECK(queued(c, w, 0, NEED) > 0);
  cluster_settle(c);
  CHECK_TEXT(peer_dump(b, "s"), "");
  CHECK_TEXT(cluster_same(c, "t"), "i1|t78\n");
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(a_link_that_swallows_patches_carries_no_more),
      TEST(a_slow_link_goes_on_carrying),
      TEST(a_late_frame_of_an_earlier_opening_names_no_table),
      TEST(a_link_becomes_ready_on_both_sides),
      TEST(a_locked_file_ends_no_link),
      TEST(a_write_goes_out_at_once_and_once),
      TEST(one_batch_is_one_frame),
      TEST(catch_up_after_a_long_absence),
      TEST(synced_is_told_once_per_change),
      TEST(nothing_leaves_before_the_commit),
      TEST(a_chain_relays_at_once_and_never_back),
      TEST(a_star_relays_through_its_hub),
      TEST(a_full_mesh_carries_each_patch_once_per_peer),
      TEST(a_mesh_gets_round_a_dead_link),
      TEST(a_mesh_gets_round_a_slow_link),
      TEST(a_mesh_relays_at_once_where_a_link_is_gone),
      TEST(what_a_dead_peer_has_written_comes_from_the_others),
      TEST(one_encoding_serves_all_links),
      TEST(every_frame_twice),
      TEST(frames_in_any_order),
      TEST(one_lost_frame_of_each_type),
      TEST(a_lost_acknowledgement_is_repeated),
      TEST(heavy_loss_is_repaired),
      TEST(a_slow_link_causes_no_repetition),
      TEST(the_window_bounds_what_is_on_its_way),
      TEST(how_much_there_is_to_do),
      TEST(a_slow_peer_does_not_slow_the_others),
      TEST(a_group_larger_than_every_buffer),
      TEST(early_frames_are_bounded),
      TEST(an_early_frame_is_its_own_links_affair),
      TEST(a_cut_in_the_middle_goes_on_where_it_was),
      TEST(a_peer_restarts_in_the_middle),
      TEST(a_silent_link_is_closed),
      TEST(a_clock_that_is_set_back_keeps_the_link),
      TEST(both_sides_must_be_who_they_should_be),
      TEST(two_peers_of_one_id_refuse_each_other),
      TEST(links_are_known_by_their_number),
      TEST(what_a_peer_does_not_know_is_kept),
      TEST(tables_may_differ),
      TEST(a_peer_may_know_fewer_columns),
      TEST(what_is_unknown_stops_nothing),
      TEST(what_a_migration_lets_in_is_found_by_older_ones),
      TEST(a_value_that_does_not_fit_is_kept),
      TEST(a_migration_between_two_links),
      TEST(what_nobody_else_has_is_counted),
      TEST(what_nobody_else_has_is_found_over_all_peers),
      TEST(who_leaves_with_everything_is_told),
      TEST(what_a_fork_has_is_no_acknowledgement),
      TEST(of_two_links_one_stands_by),
      TEST(a_part_of_a_frame_is_a_sign_of_life),
      TEST(who_did_not_run_takes_nobody_for_silent),
      TEST(two_links_in_opposite_order),
      TEST(tracing_tells_what_happens),
      TEST(the_vector_is_told_as_it_moves),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

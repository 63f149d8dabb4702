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

/* ---- patches and jumps in another one's name ---- */

static void define_t(cluster *c, int w) {
  static const char *const FIELDS[] = {"id", "INTEGER", "a", "", "b", ""};
  play(c, w, schema_frame(7, "t", 1, 3, FIELDS));
}

/* (5, up_to] of the victim, made up. Its instance is its peerId in these tests. */
static bytes *forged(const cluster *c, int64_t up_to) {
  bytes *b = frame_new(PATCHES);
  const uint64_t head[] = {VICTIM, 5, (uint64_t)up_to, 0, VICTIM, 0};
  for (size_t i = 0; i < COUNT(head); i++) add_varint(b, head[i]);
  for (int64_t i = 6; i <= up_to; i++) {
    const replic_value values[] = {v_int(60 + i), v_text("forged"), {0, 0, 0, NULL, 0}};
    add_patch(b, 1, true, i == 6 ? (uint64_t)c->now_ms : 1, 7, 1, 3, values);
  }
  return b;
}

static void check_no_fork(const cluster *c) {
  for (int i = 0; i < c->n_peers; i++)
    CHECK_INT(event_count(&c->peers[i], REPLIC_EVENT_LINK_CLOSE), 0);
}

/* The victim is linked to the hub and has not issued them: they are not taken, and it is said who
 * sends them. When it has issued as many, it is its own that count. */
static void patches_in_anothers_name_are_not_taken(void) {
  cluster *c = three();
  int w = link_as(c, 0, LIAR, NULL, 0);
  define_t(c, w);
  for (int i = 0; i < 8; i++) {
    play(c, w, forged(c, 8));
    play(c, w, forged(c, 6));
    cluster_beat(c, 1);
    CHECK_INT(peer_at(&c->peers[0], VICTIM), 5);
  }
  const replic_event *told = event_last(&c->peers[0], REPLIC_EVENT_LINK_ERROR);
  CHECK_INT(told->code, REPLIC_EFORK);
  CHECK_INT(told->peer, LIAR);
  CHECK_CONTAINS(told->text, "peer 900 has patches of peer 102 up to 8, it says");
  CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_LINK_ERROR), 1);
  put_many(&c->peers[1], 12, 3, 1);
  cluster_deliver(c);
  play(c, w, forged(c, 8));
  check_same(c);
  check_no_fork(c);
  CHECK_INT(sql_int(peer_sql(&c->peers[2]), "SELECT count(*) FROM t WHERE a = 'forged'"), 0);
}

/* Patches of an honest peer that is faster than the victim's own link: its whole groups up to what
 * the victim has told are taken at once, the rest with the victim's next heartbeat. */
static void who_is_ahead_of_the_origin_is_believed_in_time(void) {
  cluster *c = cluster_start(3, T);
  int slow = wire_open(c, 0, 1);
  wire_open(c, 1, 2);
  wire_open(c, 2, 0);
  put_many(&c->peers[1], 0, 3, 0);
  cluster_settle(c);
  put_many(&c->peers[1], 3, 3, 1);
  for (int i = 0; i < 6; i++) { /* what it sends of patches is lost on the link to peer 0 */
    while (c->wires[slow].to[0].n > 0)
      if (c->wires[slow].to[0].packets[0].data[1] == PATCHES)
        wire_drop(c, slow, 0, 0);
      else
        wire_deliver(c, slow, 0, 0);
    cluster_beat(c, 1);
  }
  CHECK_INT(peer_at(&c->peers[0], VICTIM), 6);
  check_same(c);
  CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_LINK_ERROR), 0);
}

/* "Nothing of the victim has survived, up to the greatest number there is." */
static void lie_of(cluster *c, int w, int64_t from, int64_t up_to, uint32_t epoch) {
  const replic_position vector = {VICTIM, up_to, c->now_ms, epoch};
  const int64_t floor = up_to;
  bytes *stage = frame_new(STAGE);
  const uint64_t head[] = {1, VICTIM, (uint64_t)from, (uint64_t)up_to, 0, from ? VICTIM : 0};
  for (size_t i = 0; i < COUNT(head); i++) add_varint(stage, head[i]);
  add_varint(stage, from ? 0 : 1);
  if (!from) add_varint(stage, 1), add_varint(stage, epoch);
  add_varint(stage, 0);
  bytes *jump = jump_frame(&vector, &floor, 1);
  play(c, w, jump);
  play(c, w, stage);
  play(c, w, jump);
}

static void lie_by_jump(cluster *c, int w, int64_t from, int64_t up_to) {
  lie_of(c, w, from, up_to, VICTIM);
}

static void a_jump_that_the_origin_denies_is_not_made(void) {
  cluster *c = three();
  int w = link_as(c, 0, LIAR, NULL, 0);
  for (int i = 0; i < 8; i++) {
    lie_by_jump(c, w, 5, MOST);
    cluster_beat(c, 1);
  }
  CHECK_INT(peer_at(&c->peers[0], VICTIM), 5);
  CHECK_CONTAINS(event_last(&c->peers[0], REPLIC_EVENT_LINK_ERROR)->text,
                 "peer 102, which is linked here, says that it has issued 5");
  put(&c->peers[1], 15, "a", 1);
  check_same(c);
  check_no_fork(c);
}

/* The hub opens the link again, as dialers do. */
static void link_again(cluster *c, int with) {
  wire_open(c, 0, with);
  cluster_beat(c, 2);
}

static void check_told_gave_way(const peer *p, uint32_t who) {
  const char *part = test_format("peer %lu has told of", (unsigned long)who);
  int found = 0;
  for (size_t i = 0; i < p->n_events; i++)
    found |=
        p->events[i].code == REPLIC_EFORK && p->events[i].text && strstr(p->events[i].text, part);
  CHECK(found);
}

/* While the victim is away: nobody denies it, and others jump in turn. Then the victim comes: what
 * was only told gives way, at the hub and at who has it from there, and nobody is expelled. */
static void what_was_only_told_gives_way(void) {
  for (int restart = 0; restart < 2; restart++) {
    cluster *c = three();
    peer *hub = &c->peers[0], *other = &c->peers[2];
    peer_stop(&c->peers[1]);
    int w = link_as(c, 0, LIAR, NULL, 0);
    lie_by_jump(c, w, 5, MOST);
    cluster_beat(c, 3);
    CHECK_INT(peer_at(hub, VICTIM), MOST);
    CHECK_INT(peer_at(other, VICTIM), MOST);
    wire_cut(c, w);
    if (restart) {
      peer_stop(hub);
      peer_start(hub);
      wire_open(c, 0, 2);
      cluster_beat(c, 2);
    }
    peer_start(&c->peers[1]);
    put(&c->peers[1], 15, "a", 1);
    for (int i = 0; i < 3; i++) link_again(c, 1);
    cluster_beat(c, 20);
    CHECK_INT(peer_at(hub, VICTIM), 6);
    CHECK_INT(peer_at(other, VICTIM), 6);
    check_told_gave_way(hub, LIAR);
    check_told_gave_way(other, HUB);
    for (int i = 0; i < 3; i++) CHECK_INT(notes(&c->peers[i]), 0);
    check_same(c);
    replic_link_info info;
    for (size_t i = 0; replic_link_at(hub->r, i, &info); i++) {
      test_note("restart %d, link to %lu", restart, (unsigned long)info.peer);
      CHECK_INT(info.behind, 0);
    }
    CHECK_INT(replic_log_rows(hub->r), sql_int(peer_sql(hub), "SELECT count(*) FROM t_patches"));
    test_release();
  }
}

/* Nothing of the victim has come yet, and what is told is of another opening of its file, maybe. */
static void all_of_it_may_give_way(void) {
  for (int other_epoch = 0; other_epoch < 2; other_epoch++) {
    cluster *c = cluster_start(2, T);
    peer *hub = &c->peers[0];
    put_many(&c->peers[1], 10, 3, 0);
    int w = link_as(c, 0, LIAR, NULL, 0);
    lie_of(c, w, 0, MOST, other_epoch ? 777 : VICTIM);
    CHECK_INT(peer_at(hub, VICTIM), MOST);
    wire_cut(c, w);
    for (int i = 0; i < 2; i++) link_again(c, 1);
    CHECK_INT(peer_at(hub, VICTIM), 3);
    check_told_gave_way(hub, LIAR);
    CHECK_INT(notes(hub), 0);
    CHECK_INT(notes(&c->peers[1]), other_epoch); /* a copy of its file would look alike */
    check_same(c);
    test_release();
  }
}

/* "What I have told is void", again and again, has nothing sent again and again. */
static void void_is_heard_now_and_then(void) {
  cluster *c = cluster_start(1, T);
  peer *hub = &c->peers[0];
  char *text = test_alloc(1001);
  memset(text, 'x', 1000);
  for (int i = 0; i < 100; i++) upsert(hub, "t", ROW({"id", v_int(i)}, {"a", v_text(text)}));
  int w = link_as(c, 0, LIAR, NULL, 0);
  for (int i = 0; i < 200; i++) {
    bytes *hello = hello_frame(LIAR, c->now_ms, NULL, 0);
    hello->data[2] |= 4;
    play(c, w, hello);
    c->now_ms += 10;
  }
  replic_link_info info;
  CHECK(replic_link_at(hub->r, 0, &info));
  CHECK_INT(info.state, REPLIC_LINK_READY);
  CHECK(info.bytes_out < 250000); /* twice */
}

/* A patch of what was told is there: then it is a fork as any other, and nothing of it is lost. */
static void what_has_come_does_not_give_way(void) {
  cluster *c = three();
  peer *hub = &c->peers[0];
  peer_stop(&c->peers[1]);
  int w = link_as(c, 0, LIAR, NULL, 0);
  define_t(c, w);
  lie_by_jump(c, w, 5, 7);
  cluster_beat(c, 1);
  bytes *later = frame_new(PATCHES);
  const uint64_t head[] = {VICTIM, 7, 8, 0, VICTIM, 0};
  for (size_t i = 0; i < COUNT(head); i++) add_varint(later, head[i]);
  const replic_value values[] = {v_int(66), v_text("forged"), {0, 0, 0, NULL, 0}};
  add_patch(later, 1, true, (uint64_t)c->now_ms, 7, 1, 3, values);
  play(c, w, later);
  CHECK_INT(peer_at(hub, VICTIM), 8);
  wire_cut(c, w);
  peer_start(&c->peers[1]);
  link_again(c, 1);
  CHECK_INT(peer_at(hub, VICTIM), 8);
  CHECK_INT(event_last(hub, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EFORK);
  CHECK_INT(notes(hub), 1);
}

/* ---- in the way of others ---- */

/* A pair of frames every 250 ms of each liar, in which hardly anything is: the newcomer takes the
 * honest source that offers itself, too, and not one liar after the other. */
static void sources_without_progress(int liars) {
  cluster *c = three();
  for (int i = 0; i < 5; i++) put_many(&c->peers[0], 0, 5, i);
  cluster_settle(c);
  CHECK(peer_compact(&c->peers[0], c->now_ms, 1000000).removed > 0);
  for (int i = 1; i < 3; i++) peer_stop(&c->peers[i]);
  peer *newcomer = cluster_add(c);
  peer_start(newcomer);
  CHECK_OK(newcomer->r, try_migrate(newcomer, 1, T, ""));
  int w[2];
  for (int i = 0; i < liars; i++) w[i] = link_as(c, 3, LIAR + (uint32_t)i, NULL, 0);
  wire_open(c, 0, 3);
  for (int quarter = 0; quarter < 200 && peer_at(newcomer, HUB) == 0; quarter++) {
    c->now_ms += 250;
    for (int i = 0; i < liars; i++) {
      const replic_position vector = {LIAR + (uint32_t)i, MOST, c->now_ms, 0};
      const int64_t floor = MOST;
      play(c, w[i], jump_frame(&vector, &floor, 1));
      play(c, w[i], stage_frame(1, vector.origin, quarter, quarter + 1, 0));
    }
    if (quarter % 4) continue;
    c->now_ms -= 1000; /* which the beat adds: the liars are always the first */
    cluster_beat(c, 1);
  }
  CHECK_INT(peer_at(newcomer, HUB), peer_at(&c->peers[0], HUB));
  check_same(c);
}

static void a_source_without_progress_gives_way(void) {
  for (int liars = 1; liars <= 2; liars++) sources_without_progress(liars);
}

/* The liar is linked first, as the victim: it takes all that is sent, and says nothing, or that it
 * has applied it. */
static void who_links_first_under_an_id_starves_nobody(void) {
  for (int acks = 0; acks < 2; acks++) {
    cluster *c = three();
    peer *hub = &c->peers[0];
    peer_stop(&c->peers[1]);
    put_many(hub, 40, 3, 1);
    peer_start(&c->peers[1]);
    const replic_position has[] = {{HUB, 5, 0, HUB}, {VICTIM, 5, 0, VICTIM}, {OTHER, 5, 0, OTHER}};
    int w = link_as(c, 0, VICTIM, has, COUNT(has));
    wire_open(c, 0, 1);
    for (int beat = 0; beat < 12; beat++) {
      bytes *ack = ack_frame(c->now_ms);
      const replic_position all = {HUB, peer_at(hub, HUB), 0, 0};
      add_positions(ack, &all, (size_t)acks);
      for (int i = 0; i < 4; i++) add_varint(ack, 0);
      play(c, w, ack);
      cluster_beat(c, 1);
    }
    CHECK_INT(peer_at(&c->peers[1], HUB), 8);
    put(hub, 44, "a", 2); /* and from here on at once */
    cluster_deliver(c);
    CHECK_INT(peer_at(&c->peers[1], HUB), 9);
    check_same(c);
    test_release();
  }
}

/* Of two processes under one peerId the one stays that has issued the latest patches of it. */
static void who_has_written_under_an_id_stays(void) {
  for (int first = 0; first < 2; first++) {
    test_note("the liar is linked %s", first ? "first" : "second");
    cluster *c = three();
    int w = wire_open_test(c, 0);
    if (first) wire_cut(c, 0);
    play(c, w, hello_of(VICTIM, 555, c->now_ms, NULL, 0));
    if (first) wire_open(c, 0, 1);
    for (int beat = 0; beat < 3 && c->wires[w].open[0]; beat++) {
      cluster_beat(c, 1);
      bytes *ack = ack_frame(c->now_ms);
      for (int i = 0; i < 5; i++) add_varint(ack, 0);
      play(c, w, ack);
    }
    CHECK(!c->wires[w].open[0]);
    CHECK_INT(event_count(&c->peers[0], REPLIC_EVENT_LINK_CLOSE), 1);
    CHECK_INT(event_last(&c->peers[0], REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPEER);
    CHECK_INT(replic_link_count(c->peers[0].r), 2);
    put(&c->peers[0], 44, "a", 2);
    check_same(c);
    test_release();
  }
}

/* ---- a jump is looked at once more ---- */

static size_t unchecked(const peer *p) {
  size_t n;
  CHECK(replic_unchecked(p->r, &n) || !n);
  return n;
}

static void compared(peer *p, uint32_t with, int equal) {
  peer_begin(p);
  CHECK_OK(p->r, replic_rechecked(p->r, with, equal));
  CHECK_INT(peer_commit(p), REPLIC_OK);
}

/* "Nothing of the victim has survived", up to what it has issued indeed: nobody can deny that. */
static void hide_rows(cluster *c, int w) {
  peer *victim = &c->peers[1];
  const int64_t clock = sql_int(peer_sql(victim), "SELECT patchedAt FROM _replic_vector WHERE "
                                                  "origin = 102");
  const replic_position vector = {VICTIM, peer_at(victim, VICTIM), clock, VICTIM};
  bytes *stage = frame_new(STAGE);
  const uint64_t head[] = {1, VICTIM, 0, (uint64_t)vector.sequence, 0, 0, 1, 1, VICTIM, 0};
  for (size_t i = 0; i < COUNT(head); i++) add_varint(stage, head[i]);
  bytes *jump = jump_frame(&vector, &vector.sequence, 1);
  play(c, w, jump);
  play(c, w, stage);
  play(c, w, jump);
}

/* The newcomer has jumped from the liar, and is linked to the hub. */
static peer *misled(cluster *c, int *w) {
  peer *newcomer = cluster_add(c);
  peer_start(newcomer);
  CHECK_OK(newcomer->r, try_migrate(newcomer, 1, T, ""));
  *w = link_as(c, 3, LIAR, NULL, 0);
  hide_rows(c, *w);
  CHECK_INT(peer_at(newcomer, VICTIM), 5);
  CHECK_INT(unchecked(newcomer), 1);
  put(&c->peers[1], 15, "a", 1); /* comes after the jump, in the usual way */
  wire_open(c, 0, 3);
  cluster_settle(c);
  return newcomer;
}

static int64_t rows_of_victim(peer *p) {
  return sql_int(peer_sql(p), "SELECT count(*) FROM t WHERE id BETWEEN 10 AND 19");
}

static void restart(cluster *c, peer *p) {
  peer_stop(p);
  peer_start(p);
  wire_open(c, 0, 3);
}

enum { AFTER_JUMP = 1, AFTER_BACK = 2, PRUNED = 4, STAGED = 8, ALL = 16 };

/* A piece of a jump from the hub that was not completed: what is to come before it was here then.
 */
static void leave_a_piece(peer *p) {
  sql_exec(
      peer_sql(p),
      test_format("INSERT INTO _replic_staged(source, origin, upTo, age, definitions, patches) "
                  "VALUES(%d, %d, 5, 1, x'', x'')",
                  HUB, VICTIM));
}

static void rows_that_a_source_hides(int how) {
  cluster *c = three();
  peer *hub = &c->peers[0];
  int w;
  if (how & PRUNED) {
    put(hub, 10, "a", 9);
    cluster_settle(c);
    CHECK(peer_compact(hub, c->now_ms, 1000000).removed > 0);
  }
  peer *newcomer = misled(c, &w);
  CHECK_INT(rows_of_victim(newcomer), how & PRUNED ? 2 : 1);
  if (how & STAGED) leave_a_piece(newcomer);
  if (how & (AFTER_JUMP | STAGED)) restart(c, newcomer);
  cluster_deliver(c);
  put(newcomer, 15, "b", 5); /* newer than what is ahead, also after the next restart */
  compared(newcomer, HUB, 0);
  CHECK_INT(peer_at(newcomer, VICTIM), 0);
  CHECK_INT(sql_int(peer_sql(newcomer), "SELECT count(*) FROM _replic_staged"), 0);
  CHECK_INT(peer_compact(newcomer, c->now_ms, 1000000).examined, 0);
  CHECK_INT(unchecked(newcomer), 1);
  if (how & AFTER_BACK) {
    restart(c, newcomer);
    c->now_ms -= 500; /* what is ahead of the vector is earlier all the same */
    upsert(newcomer, "t", ROW({"id", v_int(15)}, {"a", v_int(77)}));
    c->now_ms += 500;
  }
  cluster_settle(c);
  CHECK_INT(rows_of_victim(newcomer), 6);
  check_same(c);
  CHECK_INT(sql_int(peer_sql(hub), "SELECT a FROM t WHERE id = 15"), how & AFTER_BACK ? 77 : 1);
  CHECK_INT(replic_log_rows(newcomer->r),
            sql_int(peer_sql(newcomer), "SELECT count(*) FROM t_patches"));
  check_no_fork(c);
  compared(newcomer, LIAR, 1); /* its own word says nothing */
  CHECK_INT(unchecked(newcomer), 1);
  compared(newcomer, HUB, 1);
  CHECK_INT(unchecked(newcomer), 0);
  CHECK(peer_compact(newcomer, c->now_ms, 1000000).examined > 0);
}

static void rows_that_a_source_hides_are_fetched(void) {
  for (int how = 0; how < ALL; how++) {
    test_note("how: %d", how);
    rows_that_a_source_hides(how);
    test_release();
  }
}

/* Two that contradict each other for ever: it ends, and nothing is lost. */
static void who_contradicts_for_ever_is_told_of(void) {
  cluster *c = three();
  int w;
  peer *newcomer = misled(c, &w);
  for (int i = 0; i < 2; i++) {
    compared(newcomer, HUB, 0);
    CHECK_INT(peer_at(newcomer, VICTIM), 0);
    CHECK_CONTAINS(event_last(newcomer, REPLIC_EVENT_LINK_ERROR)->text, "is fetched once more");
    compared(newcomer, HUB, 0); /* it is under way */
    cluster_settle(c);
    CHECK_INT(unchecked(newcomer), 1);
  }
  compared(newcomer, HUB, 0);
  CHECK_CONTAINS(event_last(newcomer, REPLIC_EVENT_LINK_ERROR)->text,
                 "after a jump from peer 900 the tables differ from those of peer 101");
  CHECK_CONTAINS(event_last(newcomer, REPLIC_EVENT_LINK_ERROR)->text, "has not mended that");
  CHECK_INT(unchecked(newcomer), 0);
  check_same(c);
}

/* ---- the way back ---- */

static int64_t forget(peer *p, int what, uint32_t peer_id) {
  int64_t forgotten;
  peer_begin(p);
  CHECK_OK(p->r, replic_forget(p->r, what, peer_id, 0, &forgotten));
  CHECK_INT(peer_commit(p), REPLIC_OK);
  return forgotten;
}

/* The remedy was used on a lie: the hub refuses what all others have, until it forgets that. */
static void a_fork_is_forgotten(void) {
  for (int after = 0; after < 2; after++) {
    test_note("forgotten %s the file has a new peerId", after ? "after" : "before");
    cluster *c = three();
    peer *hub = &c->peers[0];
    peer_stop(&c->peers[1]);
    int w = link_as(c, 0, LIAR, NULL, 0);
    play(c, w, lying_fork(c));
    CHECK_INT(notes(hub), 1);
    if (!after) CHECK_INT(forget(hub, REPLIC_FORGET_FORKS, OTHER), 0);
    if (!after) CHECK_INT(forget(hub, REPLIC_FORGET_FORKS, VICTIM), 1);
    open_as(hub, 301);
    CHECK_INT(counters_of(hub).forks_healed, after ? 5 : 0);
    if (after) {
      wire_open(c, 0, 2);
      cluster_deliver(c);
      CHECK_INT(event_last(hub, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EFORK);
      CHECK_INT(forget(hub, REPLIC_FORGET_FORKS, 0), 2); /* that it refuses them, and was refused */
      CHECK_INT(forget(&c->peers[2], REPLIC_FORGET_FORKS, 0), 1); /* which was told so by the hub */
    }
    peer_start(&c->peers[1]);
    wire_open(c, 0, 1);
    wire_open(c, 0, 2);
    put(&c->peers[1], 41, "a", 1);
    check_same(c);
    CHECK_INT(sql_int(peer_sql(hub), "SELECT count(*) FROM _replic_dropped"), 0);
    test_release();
  }
}

static void pieces_are_forgotten(void) {
  cluster *c = three();
  peer *hub = &c->peers[0];
  int w = link_as(c, 0, LIAR, NULL, 0);
  lie_by_jump(c, w, 5, MOST);
  CHECK_INT(sql_int(peer_sql(hub), "SELECT count(*) FROM _replic_staged"), 1);
  CHECK_INT(forget(hub, REPLIC_FORGET_STAGED, VICTIM), 0);
  CHECK_INT(forget(hub, REPLIC_FORGET_STAGED, LIAR), 1);
  CHECK_INT(sql_int(peer_sql(hub), "SELECT count(*) FROM _replic_staged"), 0);
  wire_cut(c, w);
  put(&c->peers[1], 15, "a", 1);
  check_same(c);
}

/* Patches of a table that there will never be. They count as applied, as before, and no peer lacks
 * anything of others; a newcomer gets past them by a jump. */
static void pending_patches_are_forgotten(void) {
  static const char *const FIELDS[] = {"id", "INTEGER", "x", ""};
  cluster *c = three();
  int w = link_as(c, 0, LIAR, NULL, 0);
  play(c, w, schema_frame(8, "never", 1, 2, FIELDS));
  bytes *patches = patches_frame(LIAR, 0, 3);
  for (int i = 0; i < 3; i++) {
    const replic_value values[] = {v_int(i), v_text("x")};
    add_patch(patches, 1, true, i ? 1 : (uint64_t)c->now_ms, 8, 1, 2, values);
  }
  play(c, w, patches);
  wire_cut(c, w);
  check_same(c);
  for (int i = 0; i < 3; i++) {
    peer *p = &c->peers[i];
    CHECK_INT(forget(p, REPLIC_FORGET_PENDING, VICTIM), 0);
    CHECK_INT(replic_pending_count(p->r), 1);
    CHECK_INT(forget(p, REPLIC_FORGET_PENDING, LIAR), 3);
    CHECK_INT(replic_pending_count(p->r), 0);
    CHECK_INT(replic_log_rows(p->r), sql_int(peer_sql(p), "SELECT count(*) FROM t_patches"));
    peer_stop(p);
    peer_start(p);
  }
  peer *newcomer = cluster_add(c);
  peer_start(newcomer);
  CHECK_OK(newcomer->r, try_migrate(newcomer, 1, T, ""));
  for (int i = 1; i < 4; i++) wire_open(c, 0, i);
  check_same(c);
  CHECK_INT(peer_at(newcomer, LIAR), 3);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(a_fork_without_evidence_is_not_noted),
      TEST(a_fork_that_its_origin_denies_is_not_noted),
      TEST(a_note_gives_way_to_its_origin),
      TEST(patches_in_anothers_name_are_not_taken),
      TEST(who_is_ahead_of_the_origin_is_believed_in_time),
      TEST(a_jump_that_the_origin_denies_is_not_made),
      TEST(what_was_only_told_gives_way),
      TEST(all_of_it_may_give_way),
      TEST(void_is_heard_now_and_then),
      TEST(what_has_come_does_not_give_way),
      TEST(a_source_without_progress_gives_way),
      TEST(who_links_first_under_an_id_starves_nobody),
      TEST(who_has_written_under_an_id_stays),
      TEST(rows_that_a_source_hides_are_fetched),
      TEST(who_contradicts_for_ever_is_told_of),
      TEST(a_fork_is_forgotten),
      TEST(pieces_are_forgotten),
      TEST(pending_patches_are_forgotten),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

/* test_fork.c - two histories under one peerId: they are found wherever they meet, both sides learn
 * where they part, and a file that is opened with a new peerId issues anew what only it has, so
 * that nothing is lost and everybody has the same. */
#include <stdio.h>
#include <string.h>

#include "core.h"
#include "frames.h"
#include "memvfs.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls "   \
  "TEXT, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE t_patches(" CLOCK "id INTEGER, a, "  \
  "b);"

enum { ALL = 1000000 };

static void put(peer *p, int64_t id, const char *column, int64_t value) {
  upsert(p, "t", ROW({"id", v_int(id)}, {column, v_int(value)}));
  p->cluster->now_ms++;
}

static void put_many(peer *p, int64_t first, int n, int64_t value) {
  for (int i = 0; i < n; i++) put(p, first + i, "a", value);
}

/* What somebody does who has read the error: the file is opened with a new peerId. */
static void open_as(peer *p, uint32_t id) {
  peer_stop(p);
  p->config.peer_id = id;
  peer_start(p);
  CHECK_INT(p->id, id);
  CHECK(replic_is_new_peer(p->r));
}

/* "origin: common, parted" of all forks that are noted. */
static char *noted(peer *p) {
  return sql_text(peer_sql(p), "SELECT coalesce(group_concat(origin || ': ' || common || ', ' || "
                               "parted, '; '), '') FROM _replic_forks");
}

static void check_refused(const peer *p, int code) {
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, code);
  CHECK_CONTAINS(event_last(p, REPLIC_EVENT_LINK_CLOSE)->text, "new peerId");
}

static replic_counters counters_of(const peer *p) {
  replic_counters counters;
  replic_get_counters(p->r, &counters);
  return counters;
}

/* All running peers have the same, and memory is disk. */
static void check_same(cluster *c) {
  cluster_settle(c);
  cluster_same(c, "t");
  for (int i = 0; i < c->n_peers; i++) {
    peer *p = &c->peers[i];
    if (!p->r) continue;
    CHECK_INT(replic_log_rows(p->r), sql_int(peer_sql(p), "SELECT count(*) FROM t_patches"));
    CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t_patches JOIN _replic_vector ON origin = "
                                   "_peerId WHERE _sequenceId > sequence"),
              0);
    CHECK_TEXT(sql_text(peer_sql(p), "PRAGMA integrity_check"), "ok");
  }
}

/* ---- found ---- */

/* Are they refused when they are linked? */
static bool meet(cluster *c, peer *a, peer *b) {
  int w = wire_open(c, a->index, b->index);
  cluster_deliver(c);
  cluster_beat(c, 1);
  bool refused = !c->wires[w].open[0];
  if (!refused) wire_cut(c, w);
  return refused;
}

/* The copy writes as much, more, less, nothing; and not even the original writes. */
static const int WRITES[][2] = {{2, 2}, {2, 4}, {3, 1}, {2, 0}, {0, 2}, {0, 0}, {90, 70}, {1, 99}};

/* The two copies themselves meet. */
static void copies_that_meet_know_where_they_part(void) {
  for (size_t i = 0; i < COUNT(WRITES); i++) {
    test_note("case %zu", i);
    cluster *c = cluster_start(1, T);
    peer *p = &c->peers[0];
    put_many(p, 0, 3, 0);
    peer *copy = peer_fork(p);
    put_many(p, 3, WRITES[i][0], 1);
    put_many(copy, 3, WRITES[i][1], 2);
    wire_open(c, 0, 1);
    cluster_deliver(c);
    int least = WRITES[i][0] < WRITES[i][1] ? WRITES[i][0] : WRITES[i][1];
    for (int k = 0; k < 2; k++) {
      check_refused(&c->peers[k], REPLIC_EPEER);
      int64_t common = sql_int(peer_sql(&c->peers[k]), "SELECT common FROM _replic_forks");
      CHECK(common <= 3 && common >= (i < 6 ? 3 : 0)); /* or a lower bound of it */
      int64_t parted = sql_int(peer_sql(&c->peers[k]), "SELECT parted FROM _replic_forks");
      if (least > 0)
        CHECK_INT(parted > common, 1);
      else if (WRITES[i][k] > 0)
        CHECK_INT(parted, 4); /* which the other one never had */
    }
    CHECK_INT(peer_at(p, 101), 3 + WRITES[i][0]); /* nobody has taken anything */
    CHECK_INT(peer_at(copy, 101), 3 + WRITES[i][1]);
    test_release();
  }
}

/* A third peer knows one history, and meets the other one. */
static void a_third_peer_finds_the_fork(void) {
  for (size_t i = 0; i < COUNT(WRITES); i++) {
    if (!WRITES[i][0] || !WRITES[i][1]) continue;
    test_note("case %zu", i);
    cluster *c = cluster_start(2, T);
    peer *p = &c->peers[0], *witness = &c->peers[1];
    put_many(p, 0, 3, 0);
    peer *copy = peer_fork(p);
    put_many(p, 3, WRITES[i][0], 1);
    put_many(copy, 3, WRITES[i][1], 2);
    wire_open(c, 0, 1);
    cluster_deliver(c);
    CHECK_INT(peer_at(witness, 101), 3 + WRITES[i][0]);
    wire_open(c, 2, 1);
    cluster_deliver(c);
    CHECK_TEXT(noted(witness), ""); /* as the original, which is linked, has what the witness has */
    for (int k = 1; k < 3; k++) {
      check_refused(&c->peers[k], REPLIC_EFORK);
      CHECK_CONTAINS(event_last(&c->peers[k], REPLIC_EVENT_LINK_CLOSE)->text, "101");
      if (k == 1) continue;
      int64_t common = sql_int(peer_sql(&c->peers[k]), "SELECT common FROM _replic_forks");
      CHECK(common <= 3 && common >= (i < 6 ? 3 : 0));
      CHECK(sql_int(peer_sql(&c->peers[k]), "SELECT parted FROM _replic_forks") > common);
    }
    CHECK_INT(peer_at(witness, 101), 3 + WRITES[i][0]);
    CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 0); /* and goes on with the one it knows */
    put(p, 99, "a", 1);
    cluster_deliver(c);
    CHECK_INT(peer_at(witness, 101), 4 + WRITES[i][0]);
    peer_stop(p);
    CHECK(meet(c, copy, witness)); /* once nobody denies it */
    CHECK(sql_int(peer_sql(witness), "SELECT parted FROM _replic_forks") > 3);
    test_release();
  }
}

/* The hub knows the original, which has issued less than what another peer has of the copy, or
 * nothing at all: that hears of it, and once it is opened with a new peerId both go on. */
static void who_holds_more_than_was_issued_is_advised(void) {
  for (int common = 0; common < 3; common += 2) {
    cluster *c = cluster_start(3, T);
    peer *p = &c->peers[0], *other = &c->peers[2];
    put_many(p, 0, common, 0);
    peer *copy = peer_fork(p);
    put_many(copy, 10, 2, 1);
    wire_open(c, 3, 2);
    cluster_deliver(c);
    CHECK_INT(peer_at(other, 101), common + 2);
    peer_stop(copy);
    wire_open(c, 0, 1);
    cluster_deliver(c);
    int w = wire_open(c, 1, 2);
    cluster_beat(c, 12);
    CHECK(c->wires[w].open[0]);
    CHECK_INT(peer_at(&c->peers[1], 101), common);
    CHECK_TEXT(noted(other), test_format("101: %d, %d", common, common + 1));
    CHECK_CONTAINS(event_last(other, REPLIC_EVENT_LINK_ERROR)->text, "open one of the files");
    open_as(other, 300);
    wire_open(c, 1, 2);
    cluster_deliver(c);
    CHECK_INT(peer_at(p, 300), 2);
    CHECK_INT(peer_at(other, 101), common);
    check_same(c);
    test_release();
  }
}

/* Far from the origin, and only in the middle of a link's life. */
static void a_fork_that_arrives_later_is_found(void) {
  cluster *c = cluster_start(4, T);
  peer *p = &c->peers[0];
  put_many(p, 0, 3, 0);
  wire_open(c, 0, 1);
  cluster_deliver(c);
  peer *copy = peer_fork(p); /* index 4 */
  wire_open(c, 1, 2);
  wire_open(c, 2, 3);
  cluster_deliver(c);
  put_many(p, 3, 3, 1);
  put_many(copy, 3, 4, 2);
  int w = wire_open(c, 4, 3); /* 3 has the common part, and gets 2's of the copy */
  cluster_deliver(c);
  CHECK_INT(peer_at(&c->peers[2], 101), 7);
  wire_cut(c, w);
  wire_open(c, 0, 1); /* which the copy's history has reached by now */
  cluster_deliver(c);
  check_refused(p, REPLIC_EFORK);
  check_refused(&c->peers[1], REPLIC_EFORK);
  CHECK_TEXT(noted(p), "101: 3, 4");
}

/* A FORK that is lost is sent again at every heartbeat; where none ever comes, patience ends. */
static void a_fork_that_is_lost(void) {
  for (int answers = 0; answers < 2; answers++) {
    cluster *c = cluster_start(2, T);
    peer *p = &c->peers[0], *witness = &c->peers[1];
    put_many(p, 0, 3, 0);
    peer *copy = peer_fork(p);
    put_many(p, 3, 2, 1);
    put_many(copy, 3, 2, 2);
    wire_open(c, 0, 1);
    cluster_deliver(c);
    int w = wire_open(c, 2, 1);
    int lost = 0;
    for (int beat = 0; beat < 14 && c->wires[w].open[0]; beat++) {
      for (int side = 0; side < 2; side++)
        while (c->wires[w].to[side].n > 0) {
          bool is_fork = c->wires[w].to[side].packets[0].data[1] == FORK;
          if (is_fork && (!answers || lost < 6)) {
            wire_drop(c, w, side, 0);
            lost++;
          } else {
            wire_deliver(c, w, side, 0);
          }
        }
      CHECK_INT(event_count(copy, REPLIC_EVENT_LINK_CLOSE), c->wires[w].open[0] ? 0 : 1);
      c->now_ms += 1000;
      for (int i = 0; i < 3; i++) tick(&c->peers[i]);
    }
    cluster_deliver(c);
    check_refused(copy, REPLIC_EFORK);
    check_refused(witness, REPLIC_EFORK);
    CHECK(lost >= 6);
    if (answers)
      CHECK(lost < 9);
    else
      CHECK(lost > 15);
    CHECK_INT(peer_at(witness, 101), 5);
    test_release();
  }
}

/* ---- healed ---- */

/* Both histories, and somebody else's writes between them; whoever is opened anew, nothing is lost,
 * and each cell is what was written last. */
static void opened_with_a_new_id_it_issues_anew(void) {
  for (int who = 0; who < 2; who++) {
    for (uint32_t id = 50; id < 300; id += 200) { /* below and above the old one */
      test_note("file %d becomes %lu", who, (unsigned long)id);
      cluster *c = cluster_start(2, T);
      peer *p = &c->peers[0], *other = &c->peers[1];
      wire_open(c, 0, 1);
      put_many(p, 0, 4, 0);
      cluster_settle(c);
      peer *copy = peer_fork(p), *again = who ? copy : p;
      put(p, 0, "a", 1);
      put(copy, 0, "a", 2);
      put(copy, 1, "a", 3);
      put(p, 1, "a", 4);
      put(p, 1, "b", 5);
      put(copy, 2, "a", 6);
      put(other, 2, "a", 7); /* later than both copies' */
      put(other, 3, "a", 8);
      put(p, 3, "a", 9);
      put(copy, 9, "a", 10); /* this row is nowhere else */
      wire_open(c, 0, 1);
      wire_open(c, 2, 1);
      cluster_deliver(c);
      check_refused(copy, REPLIC_EFORK);
      wire_open(c, 0, 2);
      cluster_deliver(c);
      check_refused(p, REPLIC_EPEER); /* so both know where they part */
      const int64_t clocks = sql_int(peer_sql(again), "SELECT sum(_patchedAt) FROM t_patches");
      open_as(again, id);
      CHECK_INT(peer_at(again, 101), 4);
      CHECK_INT(peer_at(again, id), 4);
      CHECK_INT(counters_of(again).forks_healed, 4);
      CHECK_INT(sql_int(peer_sql(again), "SELECT sum(_patchedAt) FROM t_patches"), clocks);
      CHECK_TEXT(noted(again), "");
      if (who == 0) { /* the one that keeps its id has to be known to its peer */
        CHECK(meet(c, copy, other));
        open_as(other, 400);
        wire_open(c, 2, 1);
      } else {
        wire_open(c, 0, 1);
      }
      wire_open(c, again->index, 1);
      check_same(c);
      CHECK_TEXT(peer_dump(p, "t"), "i0|i2|n\ni1|i4|i5\ni2|i7|n\ni3|i9|n\ni9|i10|n\n");
      put(again, 4, "a", 11);
      put(copy, 5, "b", 12);
      put(p, 5, "b", 13);
      check_same(c);
      CHECK_INT(sql_int(peer_sql(other), "SELECT b FROM t WHERE id = 5"), 13);
      for (int i = 0; i < c->n_peers; i++) /* and after a restart nothing is done again */
        peer_stop(&c->peers[i]);
      for (int i = 0; i < c->n_peers; i++) {
        peer_start(&c->peers[i]);
        CHECK(!replic_is_new_peer(c->peers[i].r));
        CHECK_INT(counters_of(&c->peers[i]).forks_healed, 0);
      }
      cluster_same(c, "t");
      test_release();
    }
  }
}

/* A file that is moved later goes on as a new peer by itself: that is no reason to issue anything
 * anew. */
static void only_an_id_of_the_applications_heals(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  put_many(p, 0, 3, 0);
  peer *copy = peer_fork(p);
  put_many(p, 3, 2, 1);
  put_many(copy, 3, 2, 2);
  wire_open(c, 0, 1);
  cluster_deliver(c);
  CHECK_TEXT(noted(copy), "101: 3, 4");
  peer_stop(copy);
  remove(test_format("%s-replic", copy->config.path));
  copy->config.new_peer_id = 150;
  peer_start(copy);
  CHECK_INT(copy->id, 150);
  CHECK_INT(peer_at(copy, 101), 5);
  CHECK_INT(counters_of(copy).forks_healed, 0);
  CHECK_TEXT(noted(copy), "101: 3, 4");
  wire_open(c, 0, 1); /* they still differ */
  cluster_deliver(c);
  check_refused(copy, REPLIC_EFORK);
  open_as(copy, 160);
  CHECK_INT(peer_at(copy, 160), 2);
  wire_open(c, 0, 1);
  check_same(c);
}

/* Retention goes on while nobody notices: the copy prunes what its own patches supersede, and those
 * of one moment are on the same side of each other afterwards. */
static void pruned_in_between(void) {
  for (uint32_t id = 90; id < 400; id += 17) { /* below, between and above the others */
    test_note("as %lu", (unsigned long)id);
    cluster *c = cluster_new();
    for (int i = 0; i < 2; i++) {
      peer *p = cluster_add(c);
      p->config.peer_id = i ? 150 : 200;
      peer_start(p);
      CHECK_OK(p->r, try_migrate(p, 1, T, ""));
    }
    peer *p = &c->peers[0], *other = &c->peers[1];
    wire_open(c, 0, 1);
    put_many(p, 0, 3, 0);
    cluster_settle(c);
    peer *copy = peer_fork(p);
    put(copy, 0, "a", 2);
    upsert(other, "t", ROW({"id", v_int(1)}, {"a", v_int(3)}));
    upsert(copy, "t", ROW({"id", v_int(1)}, {"a", v_int(4)})); /* at the same moment */
    c->now_ms++;
    put(other, 2, "a", 5);
    put(copy, 2, "a", 6);
    int w = wire_open(c, 2, 1);
    while (c->wires[w].to[0].n + c->wires[w].to[1].n >
           0) /* the other's come here, not ours there */
      for (int side = 0; side < 2; side++)
        if (c->wires[w].to[side].n > 0) {
          bool ours = side == 1 && c->wires[w].to[1].packets[0].data[1] == PATCHES;
          if (ours)
            wire_drop(c, w, 1, 0);
          else
            wire_deliver(c, w, side, 0);
        }
    wire_cut(c, w);
    CHECK_INT(peer_at(copy, 150), 2);
    CHECK_INT(peer_at(other, 200), 3);
    CHECK_INT(peer_compact(copy, c->now_ms, ALL).removed, 5);
    CHECK_INT(sql_int(peer_sql(copy), "SELECT count(*) FROM t_patches WHERE _peerId = 150"), 0);
    put(p, 7, "a", 1);
    wire_open(c, 0, 2);
    cluster_deliver(c);
    check_refused(copy, REPLIC_EPEER);
    open_as(copy, id);
    wire_open(c, 0, 1);
    wire_open(c, 2, 1);
    check_same(c);
    CHECK_TEXT(peer_dump(p, "t"), "i0|i2|n\ni1|i4|n\ni2|i6|n\ni7|i1|n\n");
    for (int i = 0; i < 3; i++) peer_compact(&c->peers[i], c->now_ms, ALL);
    put(p, 7, "b", 9);
    check_same(c);
    test_release();
  }
}

/* Two peers were put back to a backup, each with its witness; a third one holds what both have
 * lost. Under a new peerId it issues anew the patches of both, in the order of their clocks. */
static void two_histories_that_parted(void) {
  cluster *c = cluster_start(3, T);
  peer *p = &c->peers[0], *q = &c->peers[1], *third = &c->peers[2];
  put(p, 0, "a", 0);
  put(q, 0, "b", 0);
  wire_open(c, 0, 1);
  wire_open(c, 0, 2);
  cluster_settle(c);
  peer_stop(p);
  peer_stop(q);
  files_copy(p->config.path, test_path("p"));
  files_copy(q->config.path, test_path("q"));
  peer_start(p);
  peer_start(q);
  wire_open(c, 0, 2);
  wire_open(c, 1, 2);
  for (int i = 1; i <= 6; i++) put(i % 2 ? p : q, 1, "a", i); /* in turns, the last one is of q */
  for (int i = 1; i <= 5; i++) put(i % 2 ? p : q, 2, "a", i); /* of p */
  put(q, 3, "a", 7);
  put(p, 3, "a", 8);
  cluster_deliver(c);
  peer_stop(p);
  peer_stop(q);
  files_copy(test_path("p"), p->config.path);
  files_copy(test_path("q"), q->config.path);
  peer_start(p);
  peer_start(q);
  put(p, 4, "a", 9);
  put(q, 5, "a", 10);
  wire_open(c, 0, 2);
  wire_open(c, 1, 2);
  cluster_deliver(c);
  CHECK_TEXT(noted(third), "101: 1, 2; 102: 1, 2");
  char *before = peer_dump(third, "t");
  open_as(third, 90);
  CHECK_TEXT(peer_dump(third, "t"), before);
  CHECK_INT(peer_at(third, 90), 13);
  CHECK_INT(sql_int(peer_sql(third), "SELECT count(*) FROM t_patches a JOIN t_patches b ON "
                                     "b._sequenceId = a._sequenceId + 1 AND b._peerId = a._peerId "
                                     "WHERE b._patchedAt <= a._patchedAt"),
            0); /* each has its own clock */
  wire_open(c, 0, 2);
  wire_open(c, 1, 2);
  check_same(c);
  CHECK_TEXT(peer_dump(p, "t"), "i0|i0|i0\ni1|i6|n\ni2|i5|n\ni3|i8|n\ni4|i9|n\ni5|i10|n\n");
}

/* ---- a backup of both files ---- */

/* The witness was restored with the database, so nothing local tells. Whoever has the lost tail
 * does. */
static void a_backup_of_both_files(void) {
  for (int writes = 0; writes < 2; writes++) {
    test_note("case %d", writes);
    cluster *c = cluster_start(2, T);
    peer *p = &c->peers[0];
    put_many(p, 0, 3, 0);
    peer_stop(p);
    files_copy(p->config.path, test_path("backup"));
    peer_start(p);
    wire_open(c, 0, 1);
    put_many(p, 3, 3, 1); /* the tail */
    cluster_deliver(c);
    peer_stop(p);
    files_copy(test_path("backup"), p->config.path);
    peer_start(p);
    CHECK_INT(p->id, 101);
    CHECK_INT(peer_at(p, 101), 3);
    if (writes) put_many(p, 4, 4, 2);
    wire_open(c, 0, 1);
    cluster_deliver(c);
    for (int i = 0; i < 2; i++) check_refused(&c->peers[i], REPLIC_EFORK);
    CHECK_TEXT(noted(p), writes ? "101: 3, 4" : "101: 3, 0");
    peer_stop(p);
    peer_start(p); /* as it was: refused again */
    wire_open(c, 0, 1);
    cluster_deliver(c);
    check_refused(p, REPLIC_EFORK);
    open_as(p, 300);
    CHECK_INT(peer_at(p, 300), writes ? 4 : 0);
    wire_open(c, 0, 1);
    check_same(c);
    CHECK_INT(peer_at(p, 101), 6);
    CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), writes ? 8 : 6);
    put(p, 20, "a", 3);
    check_same(c);
    test_release();
  }
}

/* ---- contamination ---- */

/* X has the one history, Y the other; neither has made it. */
static void others_that_hold_one_history_each(void) {
  cluster *c = cluster_start(3, T);
  peer *p = &c->peers[0], *x = &c->peers[1], *y = &c->peers[2];
  wire_open(c, 0, 1);
  wire_open(c, 0, 2);
  put_many(p, 0, 3, 0);
  cluster_settle(c);
  peer *copy = peer_fork(p); /* index 3; its links have ended */
  put_many(p, 3, 3, 1);
  put_many(copy, 3, 4, 2);
  wire_open(c, 0, 1);
  wire_open(c, 3, 2);
  cluster_deliver(c);
  put(x, 20, "a", 3);
  put(y, 21, "a", 4);
  wire_open(c, 1, 2);
  cluster_deliver(c);
  check_refused(x, REPLIC_EFORK);
  check_refused(y, REPLIC_EFORK);
  CHECK_INT(peer_at(x, 101), 6);
  CHECK_INT(peer_at(y, 101), 7);
  CHECK_INT(peer_at(x, 103) + peer_at(y, 102), 0); /* nothing else either: the link is refused */
  peer_stop(p);                                    /* its file is lost; X has what it wrote */
  CHECK(meet(c, x, y));
  open_as(x, 201);
  CHECK_INT(peer_at(x, 101), 3);
  CHECK_INT(peer_at(x, 201), 3);
  wire_open(c, 1, 2);
  check_same(c);
  CHECK_INT(peer_at(x, 101), 7);
  CHECK_INT(sql_int(peer_sql(y), "SELECT count(*) FROM t"), 9);
  /* now the lost file is found: its history was given up, and it is told */
  peer_start(p);
  wire_open(c, 0, 1);
  cluster_deliver(c);
  check_refused(p, REPLIC_EFORK);
  check_refused(x, REPLIC_EFORK);
  open_as(p, 202);
  wire_open(c, 0, 1);
  check_same(c);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 9); /* it has brought nothing new */
}

/* Who has given a history up does not take it again, by whatever way it comes: also not after a
 * restart, also not by a jump. */
static void what_was_given_up_is_not_taken_again(void) {
  enum { PATCHES_BRING_IT, HELLO_NAMES_IT, A_JUMP_BRINGS_IT, N };
  for (int how = 0; how < N; how++) {
    test_note("case %d", how);
    cluster *c = cluster_start(3, T);
    peer *p = &c->peers[0], *x = &c->peers[1];
    wire_open(c, 0, 1);
    put_many(p, 0, 3, 0);
    cluster_deliver(c);
    peer *copy = peer_fork(p);
    put_many(copy, 2, 3, 2);
    put(p, 1, "a", 1);
    for (int i = 0; i < 2 && how != HELLO_NAMES_IT; i++) put(p, 0, "a", 1);
    int64_t last = peer_at(p, 101);
    wire_open(c, 0, 1); /* X has 101.4 of the original, and perhaps 5 and 6 */
    cluster_deliver(c);
    wire_open(c, 3, 0);
    cluster_deliver(c);
    open_as(p, 201); /* gives the original's up */
    CHECK_INT(peer_at(p, 101), 3);
    peer_stop(p);
    peer_start(p);
    if (how == A_JUMP_BRINGS_IT) {
      peer_compact(x, c->now_ms, ALL);
      CHECK_TEXT(sql_text(peer_sql(x), "SELECT floor FROM _replic_vector"), "5");
    }
    CHECK_INT(peer_at(x, 101), last);
    wire_open(c, 0, 1);
    cluster_deliver(c);
    check_refused(p, REPLIC_EFORK);
    check_refused(x, REPLIC_EFORK);
    CHECK_INT(peer_at(p, 101), 3);
    open_as(x, 202);
    wire_open(c, 0, 1);
    wire_open(c, 3, 0);
    peer_stop(&c->peers[2]);
    check_same(c);
    CHECK_TEXT(peer_dump(x, "t"), test_format("i0|i%d|n\ni1|i1|n\ni2|i2|n\ni3|i2|n\ni4|i2|n\n",
                                              how != HELLO_NAMES_IT));
    test_release();
  }
}

/* Both copies have stamped the same sequences in the same millisecond; what differs is the last
 * patch, or one that was pruned, or only what follows the one that is pruned. */
static void stamped_in_the_same_millisecond(void) {
  for (int how = 0; how < 6; how++) {
    test_note("case %d", how);
    cluster *c = cluster_start(2, T);
    peer *p = &c->peers[0], *other = &c->peers[1];
    wire_open(c, 0, 1);
    put_many(p, 0, 3, 0);
    cluster_settle(c);
    peer *copy = peer_fork(p);
    for (int k = 0; k <= how / 2; k++) {
      upsert(p, "t", ROW({"id", v_int(10)}, {"a", v_int(k)}));
      upsert(copy, "t", ROW({"id", v_int(20)}, {"a", v_int(k)}));
      c->now_ms++;
    }
    if (how % 2) {
      peer_compact(p, c->now_ms, ALL);
      peer_compact(copy, c->now_ms, ALL);
    }
    wire_open(c, 0, 1);
    cluster_settle(c);
    CHECK_INT(peer_at(other, 101), 3 + how / 2 + 1);
    wire_open(c, 2, 1);
    cluster_deliver(c);
    check_refused(other, REPLIC_EFORK);
    check_refused(copy, REPLIC_EFORK);
    CHECK_INT(peer_at(other, 101), 3 + how / 2 + 1);
    open_as(copy, 50);
    wire_open(c, 2, 1);
    check_same(c);
    CHECK_TEXT(peer_dump(other, "t"),
               test_format("i0|i0|n\ni10|i%d|n\ni1|i0|n\ni20|i%d|n\ni2|i0|n\n", how / 2, how / 2));
    test_release();
  }
}

/* Of all that is said about one origin the greatest bounds count: what is at the greatest `parted`
 * is in no other history. */
static void the_most_that_is_common_is_noted(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  put_many(p, 0, 5, 0);
  static const int COMMON[] = {1, 0, 3, 2, 4};
  static const char *const NOTED[] = {"101: 1, 2", "101: 1, 2", "101: 3, 4", "101: 3, 4",
                                      "101: 4, 5"};
  for (size_t i = 0; i < COUNT(COMMON); i++) {
    int w = wire_open_test(c, 0);
    play(c, w, hello_frame(900, c->now_ms, NULL, 0));
    replic_position probes[5];
    for (int k = 0; k < 5; k++)
      probes[k] = (replic_position){0, k + 1, c->now_ms - 5 + k + (k >= COMMON[i] ? 1 : 0), 101};
    play(c, w, fork_frame(101, 5, probes, 5));
    CHECK_TEXT(noted(p), NOTED[i]);
    CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EFORK);
  }
  int w = wire_open_test(c, 0); /* of an origin that nobody here has heard of */
  play(c, w, hello_frame(900, c->now_ms, NULL, 0));
  play(c, w, fork_frame(777, 5, &(replic_position){0, 1, 1, 0}, 1));
  CHECK(c->wires[w].open[0]);
  CHECK_TEXT(noted(p), "101: 4, 5");
}

/* ---- more than two histories ---- */

/* What somebody does who has chosen the history to keep: every file that is refused where it is, is
 * opened with a new peerId. How often that was. */
static int yield_to(cluster *c, peer *kept, peer *p, uint32_t *next_id) {
  int n = 0;
  while (meet(c, kept, p)) {
    CHECK(n++ < 3);
    open_as(p, (*next_id)++);
  }
  return n;
}

/* A is copied to B at 3, and at 6 to C; or B is copied to C when it has gone on alone. X, Y and Z
 * hold the history of one each. Whichever is kept, whoever has met whom before, and in whatever
 * order the others yield: nothing is lost, all have the same, and nobody is opened more than twice.
 */
static void three_histories_of_one_file(void) {
  static const int MEETINGS[][3][2] = {
      {{0, 1}, {0, 2}, {1, 2}}, {{0, 1}, {0, 1}, {0, 1}}, {{3, 4}, {4, 5}, {3, 5}}};
  for (int n = 0; n < 2 * 3 * (int)COUNT(MEETINGS); n++) {
    int of_fork = n % 2, keep = n / 2 % 3, met = n / 6, below = (keep + met) % 2;
    test_note("case %d: C is of %s, %d is kept, meetings %d", n, of_fork ? "B" : "A", keep, met);
    cluster *c = cluster_start(4, T);
    peer *all[6] = {&c->peers[0], NULL, NULL, &c->peers[1], &c->peers[2], &c->peers[3]};
    uint32_t next_id = below ? 40 : 400;
    put_many(all[0], 0, 3, 0);
    all[1] = peer_fork(all[0]);
    put_many(all[0], 3, 3, 1);
    put_many(all[1], 10, 3, 2);
    all[2] = peer_fork(all[of_fork ? 1 : 0]);
    put(all[2], 20, "a", 3);
    put(all[0], 3, "b", 4);
    put(all[1], 10, "b", 5);
    for (int i = 0; i < 3; i++) {
      CHECK(!meet(c, all[i], all[3 + i]));
      put(all[i], 30, "a", i);
      put(all[3 + i], 40 + i, "a", i);
    }
    for (int i = 0; i < 3; i++) CHECK(meet(c, all[MEETINGS[met][i][0]], all[MEETINGS[met][i][1]]));
    for (int i = 0; i < 6; i++) {
      peer *p = all[met % 4 < 2 ? i : 5 - i];
      if (p != all[keep]) CHECK(yield_to(c, all[keep], p, &next_id) <= 2);
    }
    for (int i = 0; i < 6; i++) /* what came last goes round */
      if (i != keep) CHECK(!meet(c, all[keep], all[i]));
    check_same(c);
    for (int i = 0; i < 6; i++)
      if (i != keep) wire_open(c, all[keep]->index, all[i]->index);
    check_same(c);
    CHECK_TEXT(peer_dump(all[0], "t"),
               "i0|i0|n\ni10|i2|i5\ni11|i2|n\ni12|i2|n\ni1|i0|n\ni20|i3|n\ni2|i0|n\ni30|i2|n\n"
               "i3|i1|i4\ni40|i0|n\ni41|i1|n\ni42|i2|n\ni4|i1|n\ni5|i1|n\n");
    test_release();
  }
}

/* C has met A and B, which part from it at 6 and at 3; A is kept. So C must not refuse what it has
 * in common with A. */
static void what_is_in_the_history_kept_is_not_given_up(void) {
  cluster *c = cluster_start(1, T);
  peer *a = &c->peers[0];
  put_many(a, 0, 3, 0);
  peer *b = peer_fork(a);
  put_many(b, 10, 2, 2);
  put_many(a, 3, 3, 1);
  peer *copy = peer_fork(a);
  put_many(a, 6, 2, 1);
  put_many(copy, 20, 2, 3);
  CHECK(meet(c, copy, a));
  CHECK(meet(c, copy, b));
  CHECK_TEXT(noted(copy), "101: 6, 7");
  open_as(copy, 300);
  CHECK_INT(peer_at(copy, 101), 6); /* what A has too, is not issued anew */
  CHECK_INT(peer_at(copy, 300), 2);
  CHECK(!meet(c, copy, a));
  CHECK_INT(peer_at(copy, 101), 8);
  CHECK(meet(c, copy, b));
  open_as(b, 301);
  CHECK(!meet(c, copy, b));
  CHECK(!meet(c, copy, a));
  check_same(c);
}

/* What is noted outlives the fork: with a new peerId for another reason, a file gives up what
 * everybody keeps, and refuses them all; opened anew once more, it forgets that. */
static void a_note_outlives_its_fork(void) {
  for (int common = 0; common < 4; common += 3) { /* also where nothing is left of it */
    cluster *c = cluster_start(3, T);
    peer *p = &c->peers[0], *x = &c->peers[1], *y = &c->peers[2];
    put_many(p, 0, common, 0);
    peer *copy = peer_fork(p);
    put_many(p, 3, 2, 1);
    put_many(copy, 5, 2, 2);
    CHECK(!meet(c, p, x));
    CHECK(!meet(c, p, y));
    CHECK(meet(c, copy, x));
    open_as(copy, 300);
    CHECK(!meet(c, copy, x)); /* healed */
    CHECK_TEXT(noted(x), test_format("101: %d, %d", common, common + 1));
    open_as(x, 301);
    CHECK_INT(peer_at(x, 301), 2);
    CHECK(meet(c, x, p));
    CHECK(meet(c, x, y));
    check_refused(x, REPLIC_EFORK);
    CHECK_CONTAINS(event_last(x, REPLIC_EVENT_LINK_CLOSE)->text, "was given up");
    CHECK_INT(peer_at(x, 101), common);
    open_as(x, 302);
    CHECK_INT(peer_at(x, 302), 0); /* nothing is issued once more */
    CHECK(!meet(c, x, p));
    CHECK(!meet(c, x, y));
    peer_stop(x);
    peer_start(x);
    CHECK(!meet(c, x, copy));
    check_same(c);
    CHECK_INT(sql_int(peer_sql(x), "SELECT count(*) FROM t"), common + 4);
    test_release();
  }
}

/* A file that was put back gets a new peerId because of that, and not to yield. */
static void a_file_that_was_restored_does_not_yield(void) {
  for (int how = 0; how < 2; how++) {
    test_note("case %d", how);
    cluster *c = cluster_start(2, T);
    peer *p = &c->peers[0], *other = &c->peers[1];
    put_many(p, 0, 3, 0);
    peer *copy = peer_fork(p);
    put_many(p, 3, 2, 1);
    put_many(copy, 5, 2, 2);
    CHECK(meet(c, p, copy));
    open_as(copy, 300);
    CHECK(!meet(c, p, copy));
    CHECK(!meet(c, p, other));
    CHECK_TEXT(noted(p), "101: 3, 4");
    peer_stop(p);
    file_copy(p->config.path, test_path("backup"));
    file_copy(test_format("%s-wal", p->config.path), test_path("backup-wal"));
    peer_start(p);
    put_many(p, 8, 2, 3);
    CHECK(!meet(c, p, other));
    peer_stop(p);
    file_copy(test_path("backup"), p->config.path);
    file_copy(test_path("backup-wal"), test_format("%s-wal", p->config.path));
    if (how) remove(test_format("%s-replic", p->config.path));
    p->config.peer_id = 101;
    CHECK_INT(peer_try_start(p), REPLIC_ERESTORED);
    replic_close(p->r);
    p->r = NULL;
    open_as(p, 301);
    CHECK_INT(peer_at(p, 101), 5);
    CHECK_INT(peer_at(p, 301), 0);
    CHECK(!meet(c, p, other));
    CHECK_INT(peer_at(p, 101), 7);
    CHECK(!meet(c, p, copy));
    check_same(c);
    test_release();
  }
}

/* All that is beyond the fork is pruned at one of the two. Its epochs tell where they part, so that
 * the one which yields refuses the history, and who else holds it hears of it; also one that has
 * pruned just the patch by which it is known. */
static void pruned_where_they_part(void) {
  for (int prunes = 0; prunes < 2; prunes++) {
    test_note("case %d", prunes);
    cluster *c = cluster_start(3, T);
    peer *p = &c->peers[0], *x = &c->peers[1], *y = &c->peers[2];
    put_many(p, 0, 3, 0);
    peer *copy = peer_fork(p);
    put(p, 7, "a", 1);
    for (int i = 0; i < 3; i++) put(copy, 8, "a", i);
    CHECK(!meet(c, copy, x));
    CHECK(!meet(c, copy, y));
    put(p, 7, "a", 3);
    put(p, 7, "a", 4);
    CHECK_INT(peer_compact(p, c->now_ms, ALL).removed, 2);
    if (prunes) CHECK_INT(peer_compact(y, c->now_ms, ALL).removed, 2);
    CHECK(meet(c, p, x));
    CHECK_TEXT(noted(x), "101: 3, 4");
    CHECK_TEXT(noted(p), "101: 3, 4");
    open_as(x, 300);
    CHECK_INT(peer_at(x, 101), 3);
    CHECK(meet(c, x, y)); /* which has met nobody else */
    CHECK_INT(peer_at(x, 101), 3);
    open_as(y, 301);
    CHECK(!meet(c, x, y));
    CHECK(!meet(c, p, x));
    CHECK(!meet(c, x, y));
    CHECK(meet(c, p, copy));
    open_as(copy, 302);
    for (int i = 1; i < 4; i++) CHECK(!meet(c, p, &c->peers[i]));
    CHECK(!meet(c, p, x));
    for (int i = 1; i < 4; i++) wire_open(c, 0, i);
    check_same(c);
    CHECK_TEXT(peer_dump(y, "t"), "i0|i0|n\ni1|i0|n\ni2|i0|n\ni7|i4|n\ni8|i2|n\n");
    test_release();
  }
}

/* Pieces of a jump follow what was given up since: they are let go. */
static void what_was_staged_is_let_go(void) {
  cluster *c = cluster_start(2, T);
  peer *p = &c->peers[0], *x = &c->peers[1];
  put_many(p, 0, 3, 0);
  peer *copy = peer_fork(p);
  put_many(p, 3, 3, 1);
  CHECK(!meet(c, p, x));
  put_many(copy, 10, 2, 2);
  for (int i = 0; i < 5; i++) put_many(p, 7, 2, i);
  CHECK(peer_compact(p, c->now_ms, ALL).removed > 0);
  p->r->config.slice_bytes = 1; /* more than one piece */
  int w = wire_open(c, 0, 1);
  for (int i = 0; !sql_int(peer_sql(x), "SELECT count(*) FROM _replic_staged"); i++) {
    CHECK(i < 100);
    if (c->wires[w].to[i % 2].n > 0) wire_deliver(c, w, i % 2, 0);
  }
  wire_cut(c, w);
  CHECK_INT(peer_at(x, 101), 6);
  CHECK(meet(c, copy, x));
  open_as(x, 300);
  CHECK_INT(sql_int(peer_sql(x), "SELECT count(*) FROM _replic_staged"), 0);
  CHECK_INT(peer_at(x, 101), 3);
  CHECK(meet(c, p, x)); /* whose history it has given up */
  CHECK_INT(peer_at(x, 101), 3);
  CHECK(!meet(c, copy, x));
  CHECK(meet(c, copy, p));
  open_as(p, 301);
  CHECK(!meet(c, copy, p));
  CHECK(!meet(c, copy, x));
  check_same(c);
}

/* ---- two that live ---- */

/* A hub sees two processes with one peerId: both are refused, but for one that has issued the
 * latest patches of that peer. */
static void two_live_peers_with_one_id(void) {
  for (int writes = 0; writes < 2; writes++) {
    cluster *c = cluster_start(2, T);
    peer *hub = &c->peers[0], *p = &c->peers[1];
    put_many(p, 0, 3, 0);
    wire_open(c, 0, 1);
    cluster_settle(c);
    peer *copy = peer_fork(p);
    p->config.new_peer_id = 66; /* drawn anew at every open */
    copy->config.new_peer_id = 77;
    peer_stop(p);
    peer_stop(copy);
    peer_start(p);
    peer_start(copy);
    if (writes) put(p, 7, "a", 1);
    wire_open(c, 0, 1);
    cluster_deliver(c);
    cluster_beat(c, 2);
    CHECK_INT(event_count(hub, REPLIC_EVENT_LINK_CLOSE), 0);
    wire_open(c, 0, 2);
    cluster_beat(c, 2);
    CHECK_INT(replic_link_count(hub->r), writes);
    CHECK_INT(event_count(hub, REPLIC_EVENT_LINK_CLOSE), 2 - writes);
    check_refused(copy, writes ? REPLIC_EFORK : REPLIC_EPEER);
    if (!writes) check_refused(p, REPLIC_EPEER);
    if (writes) CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 0);
    test_release();
  }
}

/* A process that starts anew while the hub still holds the old link to it is no second one. */
static void a_restart_is_no_second_process(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int old = wire_open_test(c, 0);
  play(c, old, hello_of(900, 1, c->now_ms, NULL, 0));
  for (int beat = 0; beat < 3; beat++) {
    c->now_ms += 1000;
    bytes *ack = ack_frame(c->now_ms);
    for (int i = 0; i < 5; i++) add_varint(ack, 0);
    play(c, old, ack);
    tick(p);
  }
  int fresh = wire_open_test(c, 0); /* it has restarted; the old link is only half dead */
  c->now_ms += 2000;
  play(c, fresh, hello_of(900, 2, c->now_ms, NULL, 0));
  bytes *late = ack_frame(c->now_ms - 1500); /* was on its way all the time */
  for (int i = 0; i < 5; i++) add_varint(late, 0);
  play(c, old, late);
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 0);
  put(p, 1, "a", 1); /* the new one carries at once, though the old one seems to be up */
  CHECK_INT(take_frames(c, fresh, PATCHES), 1);
  CHECK_INT(take_frames(c, old, PATCHES), 0);
  for (int beat = 0; beat < 11; beat++) {
    c->now_ms += 1000;
    bytes *ack = ack_frame(c->now_ms);
    for (int i = 0; i < 5; i++) add_varint(ack, 0);
    play(c, fresh, ack);
    tick(p);
  }
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 1); /* of the old one, which fell silent */
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_ETIMEOUT);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->link, c->wires[old].number);
  CHECK(c->wires[fresh].open[0]);
  int third = wire_open_test(c, 0); /* but if the one that was there says something later … */
  play(c, third, hello_of(900, 3, c->now_ms, NULL, 0));
  c->now_ms += 1000;
  bytes *ack = ack_frame(c->now_ms);
  for (int i = 0; i < 5; i++) add_varint(ack, 0);
  play(c, fresh, ack);
  CHECK_INT(replic_link_count(p->r), 0);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPEER);
}

/* The same process on a second link is none either. */
static void two_links_of_one_process(void) {
  cluster *c = cluster_start(2, T);
  wire_open(c, 0, 1);
  wire_open(c, 0, 1);
  cluster_beat(c, 5);
  CHECK_INT(replic_link_count(c->peers[0].r), 2);
}

/* ---- crashes ---- */

/* In the healing open any change of the disk fails: alone, or as the end of the process, which is
 * killed then, or loses its power. The next open with the same peerId does it. */
static void crashes_while_it_heals(bool for_good) {
  rng g = {(uint64_t)env_number("SEED", 1)};
  int n = 1;
  for (bool failed = true; failed; n++) {
    memvfs_reset();
    test_note("change %d%s", n, for_good ? " and all after it" : "");
    cluster *c = cluster_start(2, T);
    peer *p = &c->peers[0], *copy = &c->peers[1];
    put_many(p, 0, 3, 0);
    peer_stop(p);
    peer_stop(copy);
    static const char *const SUFFIXES[] = {"", "-wal", "-replic"};
    for (size_t i = 0; i < COUNT(SUFFIXES); i++)
      memvfs_copy(test_format("%s%s", p->config.path, SUFFIXES[i]),
                  test_format("%s%s", copy->config.path, SUFFIXES[i]));
    peer_start(p);
    peer_start(copy);
    put_many(p, 3, 3, 1);
    put_many(copy, 2, 3, 2);
    wire_open(c, 0, 1);
    cluster_deliver(c);
    peer_stop(copy);
    peer_stop(p);
    copy->config.peer_id = 300;
    copy->config.normal_durability = 0;
    memvfs_arm(0, n, for_good);
    int rc = peer_try_start(copy);
    failed = memvfs_has_failed(0);
    if (failed) memvfs_freeze(0); /* also where it has coped: it is killed soon after */
    replic_close(copy->r);
    copy->r = NULL;
    memvfs_thaw(0);
    if (!failed) CHECK_INT(rc, REPLIC_OK);
    if (failed && n % 2) memvfs_cut_power(0, &g);
    peer_start(copy);
    CHECK_INT(copy->id, 300);
    CHECK_INT(peer_at(copy, 101), 3);
    CHECK_INT(peer_at(copy, 300), 3);
    peer_start(p);
    wire_open(c, 0, 1);
    check_same(c);
    CHECK_TEXT(peer_dump(p, "t"), "i0|i0|n\ni1|i0|n\ni2|i2|n\ni3|i2|n\ni4|i2|n\ni5|i1|n\n");
    test_release();
  }
  CHECK(n > 8);
}

static void a_crash_while_it_heals(void) {
  memvfs_install();
  crashes_while_it_heals(true);
  crashes_while_it_heals(false);
  memvfs_uninstall();
}

/* The disk is full when a commit tells the witness, and nothing is written until the close: a
 * backup that is put back then is noticed still. */
static void a_witness_that_lags_is_told_by_the_close(void) {
  static const char *const SUFFIXES[] = {"", "-wal"};
  memvfs_install();
  bool has_lagged = false;
  for (int n = 1, failed = 1; failed; n++) {
    memvfs_reset();
    cluster *c = cluster_start(1, T);
    peer *p = &c->peers[0];
    put_many(p, 0, 3, 0);
    for (size_t i = 0; i < COUNT(SUFFIXES); i++)
      memvfs_copy(test_format("%s%s", p->config.path, SUFFIXES[i]),
                  test_format("/0/backup%s", SUFFIXES[i]));
    memvfs_arm(0, n, false);
    cell row[] = {{"id", v_int(3)}, {"a", v_int(0)}, {NULL, v_null()}};
    int rc = try_upsert(p, "t", row);
    failed = memvfs_has_failed(0);
    bool lags = failed && rc == REPLIC_OK;
    if (lags) CHECK_CONTAINS(event_last(p, REPLIC_EVENT_ERROR)->text, "-replic: cannot be written");
    has_lagged |= lags;
    peer_stop(p);
    for (size_t i = 0; i < COUNT(SUFFIXES); i++)
      memvfs_copy(test_format("/0/backup%s", SUFFIXES[i]),
                  test_format("%s%s", p->config.path, SUFFIXES[i]));
    p->config.new_peer_id = 300;
    peer_start(p);
    CHECK_INT(p->id, rc == REPLIC_OK ? 300 : 101);
    test_release();
  }
  CHECK(has_lagged);
  memvfs_uninstall();
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(copies_that_meet_know_where_they_part),
      TEST(a_third_peer_finds_the_fork),
      TEST(who_holds_more_than_was_issued_is_advised),
      TEST(a_fork_that_arrives_later_is_found),
      TEST(a_fork_that_is_lost),
      TEST(opened_with_a_new_id_it_issues_anew),
      TEST(only_an_id_of_the_applications_heals),
      TEST(pruned_in_between),
      TEST(two_histories_that_parted),
      TEST(a_backup_of_both_files),
      TEST(others_that_hold_one_history_each),
      TEST(what_was_given_up_is_not_taken_again),
      TEST(stamped_in_the_same_millisecond),
      TEST(the_most_that_is_common_is_noted),
      TEST(three_histories_of_one_file),
      TEST(what_is_in_the_history_kept_is_not_given_up),
      TEST(a_note_outlives_its_fork),
      TEST(a_file_that_was_restored_does_not_yield),
      TEST(pruned_where_they_part),
      TEST(what_was_staged_is_let_go),
      TEST(two_live_peers_with_one_id),
      TEST(a_restart_is_no_second_process),
      TEST(two_links_of_one_process),
      TEST(a_crash_while_it_heals),
      TEST(a_witness_that_lags_is_told_by_the_close),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

/* test_hostile.c - a linked peer that sends whatever costs most. What is counted is work: answers,
 * bytes sent, statements, what is kept; never time. (How long local writes wait meanwhile is in
 * bench/hostile.js.) */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "frames.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
#define T                                                                                          \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE t_patches(" CLOCK                  \
  "id INTEGER, v TEXT);"

enum { HOSTILE = 900 };

static int hostile_as(cluster *c, uint32_t id) {
  int w = wire_open_test(c, 0);
  play(c, w, hello_frame(id, c->now_ms, NULL, 0));
  take_frames(c, w, 0);
  return w;
}

static int hostile(cluster *c) {
  return hostile_as(c, HOSTILE);
}

static replic_link_info info_of(const peer *p) {
  replic_link_info info = {0};
  CHECK(replic_link_at(p->r, 0, &info));
  return info;
}

static bytes *need(uint32_t origin, int64_t after) {
  bytes *b = frame_new(NEED);
  add_varint(b, origin);
  add_varint(b, (uint64_t)after);
  return b;
}

/* How many frames of `type` come back for `n` of `frame`, one each 10 ms, without a heartbeat. */
static size_t answers(cluster *c, int w, const bytes *frame, int n, int type) {
  size_t count = 0;
  for (int i = 0; i < n; i++) {
    c->now_ms += 10;
    play(c, w, frame);
    count += take_frames(c, w, type);
  }
  return count;
}

static void what_is_asked_for_comes_once_per_heartbeat(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_text("some value")}));
  int w = hostile(c);
  CHECK_INT(answers(c, w, need(101, 0), 50, PATCHES), 1);
  CHECK_INT(answers(c, w, need(101, 0), 1, SCHEMA), 0);
  cluster_beat(c, 1); /* the last of them waited for that */
  CHECK_INT(take_frames(c, w, PATCHES), 1);
  CHECK_INT(answers(c, w, need(101, 0), 50, PATCHES), 0);
}

static void all_definitions_come_once_per_heartbeat(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  int w = hostile(c);
  play(c, w, schema_frame(1, "t", 1, 2, FIELDS));
  for (uint32_t origin = 1000; origin < 1040; origin++) {
    const replic_value values[] = {v_int(origin), v_text("x")};
    bytes *b = patches_frame(origin, 0, 1);
    add_patch(b, 1, true, 10, 1, 1, 2, values);
    play(c, w, b);
  }
  CHECK_INT(replic_vector_count(p->r), 40);
  cluster_beat(c, 1);
  take_frames(c, w, 0);
  size_t n = 0;
  for (uint32_t origin = 1000; origin < 1040; origin++) {
    play(c, w, need(origin, 0)); /* each for the first time */
    n += take_frames(c, w, SCHEMA);
  }
  CHECK_INT(n, 1);
}

/* A peer may claim to have sent patches of very many origins. */
static void needs_are_bounded(void) {
  cluster *c = cluster_start(1, T);
  int w = hostile(c);
  bytes *ack = ack_frame(c->now_ms);
  add_positions(ack, NULL, 0);
  add_varint(ack, 5000);
  for (uint64_t k = 0; k < 5000; k++) {
    add_varint(ack, 1000 + k);
    add_varint(ack, 7);
  }
  add_positions(ack, NULL, 0);
  add_no_list(ack);
  CHECK_INT(answers(c, w, ack, 10, NEED), 1000);
  c->now_ms += 1000;
  CHECK_INT(answers(c, w, ack, 1, NEED), 1000);
}

static void a_hello_is_answered_once_per_heartbeat(void) {
  cluster *c = cluster_start(1, T);
  int w = hostile(c);
  bytes *asks = hello_frame(HOSTILE, c->now_ms, NULL, 0);
  asks->data[2] = 1;
  CHECK_INT(answers(c, w, asks, 50, HELLO), 1);
}

static void a_list_of_peers_is_bounded_and_in_order(void) {
  static const struct {
    uint64_t n, step;
    bool open;
  } LISTS[] = {{16384, 1, true}, {16385, 1, false}, {2, 0, false}};
  for (size_t i = 0; i < sizeof LISTS / sizeof *LISTS; i++) {
    cluster *c = cluster_start(1, T);
    int w = hostile(c);
    bytes *ack = ack_frame(c->now_ms);
    for (int k = 0; k < 3; k++) add_positions(ack, NULL, 0);
    add_varint(ack, 0);
    add_varint(ack, 1);
    add_varint(ack, i);
    add_varint(ack, LISTS[i].n);
    for (uint64_t k = 0; k < LISTS[i].n; k++) add_varint(ack, 1000 + k * LISTS[i].step);
    play(c, w, ack);
    CHECK_INT(c->wires[w].open[0], LISTS[i].open);
  }
}

static void probes_of_a_fork_are_bounded(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  replic_position probes[91];
  upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_text("some value")}));
  for (int i = 0; i < 91; i++) probes[i] = (replic_position){.sequence = i + 1, .patched_at = 5};
  int w = hostile(c);
  play(c, w, fork_frame(101, 100, probes, 91));
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPROTOCOL);
}

/* Of what is defined and not used the oldest gives way: whoever migrates for years keeps its link.
 */
static void definitions_give_way_to_later_ones(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  int w = hostile(c);
  for (uint32_t id = 1; id <= 17000; id++) play(c, w, schema_frame(id, "t", 1, 2, FIELDS));
  const replic_value values[] = {v_int(1), v_text("x")};
  bytes *b = patches_frame(HOSTILE, 0, 1);
  add_patch(b, 1, true, 10, 17000, 1, 2, values);
  play(c, w, b);
  CHECK_INT(peer_at(p, HOSTILE), 1);
  b = patches_on(HOSTILE, 1, 10, 2);
  add_patch(b, 1, true, 10, 1, 1, 2, values); /* the one that gave way */
  play(c, w, b);
  CHECK_INT(peer_at(p, HOSTILE), 1);
  CHECK(c->wires[w].open[0]);
  CHECK(strlen(info_of(p).schema) < 10);
}

static size_t lines_of(const char *text) {
  size_t n = 0;
  for (; *text; text++) n += *text == '\n';
  return n;
}

static void what_is_told_of_definitions_is_bounded(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  int w = hostile(c);
  for (uint32_t id = 1; id <= 3000; id++) {
    const replic_value values[] = {v_int(id), v_text("x")};
    char name[20];
    sqlite3_snprintf(sizeof name, name, "u%04u", 3001 - id);
    play(c, w, schema_frame(id, name, 1, 2, FIELDS));
    bytes *b = patches_on(HOSTILE, id - 1, id > 1 ? 10 : 0, id);
    add_patch(b, 1, true, id > 1 ? 0 : 10, id, 1, 2, values);
    play(c, w, b);
  }
  CHECK_INT(peer_at(p, HOSTILE), 3000);
  CHECK_INT((int64_t)lines_of(info_of(p).schema), 1000);
  CHECK(strncmp(info_of(p).schema, "u0001\t", 6) == 0); /* by name */
  int64_t patches = 0;
  for (size_t i = 0; i < replic_pending_count(p->r); i++)
    patches += replic_pending_at(p->r, i)->patches;
  CHECK_INT(patches, 3000);                  /* all are counted, */
  CHECK(replic_pending_count(p->r) <= 1001); /* and not all named */
}

static int count_statement(unsigned type, void *ctx, void *stmt, void *sql) {
  (void)type, (void)stmt, (void)sql;
  ++*(int64_t *)ctx;
  return 0;
}

/* A definition may have all the columns that SQLite knows, none of which is known here. */
static void fields_are_not_asked_for_one_by_one(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = hostile(c);
  bytes *b = frame_new(SCHEMA);
  add_varint(b, 1);
  add_text(b, "t");
  add_varint(b, 1);
  add_varint(b, 20000);
  add_text(b, "id");
  add_text(b, "INTEGER");
  for (int i = 1; i < 20000; i++) {
    char name[12];
    sqlite3_snprintf(sizeof name, name, "f%d", i);
    add_text(b, name);
    add_u8(b, 0);
  }
  int64_t statements = 0;
  sqlite3_trace_v2(p->r->db, SQLITE_TRACE_STMT, count_statement, &statements);
  play(c, w, b);
  CHECK_TEXT(info_of(p).schema, "t\ttable t has no column f1 here\n");
  CHECK(statements > 0 && statements < 10);
}

/* Patches 1 … n of HOSTILE, each a group of its own. */
static bytes *many(int64_t n) {
  bytes *b = patches_frame(HOSTILE, 0, n);
  for (int64_t i = 1; i <= n; i++) {
    const replic_value values[] = {v_int(i), v_text("x")};
    add_patch(b, 1, true, i == 1 ? 10 : 0, 1, 1, 2, values);
  }
  return b;
}

static int64_t receive(peer *p, cluster *c, int w, const bytes *b) {
  const bytes *frame = whole(b->data, b->len);
  peer_begin(p);
  CHECK_OK(p->r, replic_receive(p->r, c->wires[w].number, frame->data, frame->len));
  CHECK_OK(p->r, peer_commit(p));
  return peer_at(p, HOSTILE);
}

static int64_t work(peer *p) {
  peer_begin(p);
  CHECK_OK(p->r, replic_work(p->r));
  CHECK_OK(p->r, peer_commit(p));
  return peer_at(p, HOSTILE);
}

static int with_t_as(cluster *c, uint32_t id) {
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  int w = hostile_as(c, id);
  play(c, w, schema_frame(1, "t", 1, 2, FIELDS));
  return w;
}

static int with_t(cluster *c) {
  return with_t_as(c, HOSTILE);
}

static void a_large_frame_is_taken_in_in_parts(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c), parts = 0;
  int64_t at = receive(p, c, w, many(20000)), before;
  CHECK(at > 0 && at < 5000);
  for (; replic_has_work(p->r); parts++) {
    upsert(p, "t", ROW({"id", v_int(1)}, {"v", v_text("mine")})); /* in between */
    before = at;
    at = work(p);
    CHECK(at > before && at - before < 5000);
  }
  CHECK_INT(at, 20000);
  CHECK(parts >= 4);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 20000);
  CHECK_TEXT(sql_text(peer_sql(p), "SELECT v FROM t WHERE id = 1"), "mine");
}

static void whoever_knows_no_parts_has_it_whole(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c);
  CHECK(receive(p, c, w, many(20000)) < 5000);
  receive(p, c, w, need(101, 0)); /* any frame */
  CHECK_INT(peer_at(p, HOSTILE), 20000);
}

static void a_part_whose_commit_fails_is_asked_for(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c);
  int64_t at = receive(p, c, w, many(20000));
  peer_begin(p);
  CHECK_OK(p->r, replic_work(p->r));
  replic_rollback(p->r);
  CHECK(replic_has_work(p->r));
  take_frames(c, w, 0);
  CHECK_INT(work(p), at);
  CHECK(!replic_has_work(p->r));
  CHECK_INT(take_frames(c, w, NEED), 1);
  CHECK(c->wires[w].open[0]);
  receive(p, c, w, many(20000));
  while (replic_has_work(p->r)) work(p);
  CHECK_INT(peer_at(p, HOSTILE), 20000);
}

static void a_link_that_ends_takes_the_rest_with_it(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c);
  int64_t at = receive(p, c, w, many(20000));
  peer_begin(p);
  replic_link_close(p->r, c->wires[w].number);
  CHECK_OK(p->r, peer_commit(p));
  CHECK(!replic_has_work(p->r));
  CHECK_INT(peer_at(p, HOSTILE), at);
}

/* It is read to its end before anything of it is applied, however many parts that takes. */
static void a_large_frame_that_is_malformed_changes_nothing(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  p->r->config.work_units = 1000;
  int w = with_t(c);
  bytes *b = many(20000);
  b->data[b->len - 3] = 7; /* no type of a value */
  CHECK_INT(receive(p, c, w, b), 0);
  CHECK(replic_has_work(p->r));
  while (replic_has_work(p->r)) CHECK_INT(work(p), 0);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPROTOCOL);
}

static void a_table_defined_anew_in_between(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c);
  receive(p, c, w, many(20000));
  CHECK_OK(p->r, try_migrate(p, 2, "ALTER TABLE t ADD COLUMN x; ALTER TABLE t_patches ADD x", ""));
  while (replic_has_work(p->r)) work(p);
  CHECK_INT(peer_at(p, HOSTILE), 20000);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 20000);
}

static void early_frames_are_taken_in_in_parts(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c);
  for (int64_t n = 20; n-- > 0;) {
    bytes *b =
        n ? patches_on(HOSTILE, n * 1000, 10, n * 1000 + 1000) : patches_frame(HOSTILE, 0, 1000);
    for (int64_t i = 1; i <= 1000; i++) {
      const replic_value values[] = {v_int(n * 1000 + i), v_text("x")};
      add_patch(b, 1, true, i == 1 && !n ? 10 : 0, 1, 1, 2, values);
    }
    receive(p, c, w, b);
  }
  CHECK(peer_at(p, HOSTILE) > 0 && peer_at(p, HOSTILE) < 6000);
  while (replic_has_work(p->r)) {
    int64_t before = peer_at(p, HOSTILE);
    CHECK(work(p) - before < 6000);
  }
  CHECK_INT(peer_at(p, HOSTILE), 20000);
}

/* ---- quotas: what is beyond is held, and everything else goes on ---- */

static cluster *with_quotas(const replic_config *quotas) {
  cluster *c = cluster_new();
  peer *p = cluster_add(c);
  p->config.max_origins = quotas->max_origins;
  p->config.max_pending_bytes = quotas->max_pending_bytes;
  p->config.max_staged_bytes = quotas->max_staged_bytes;
  peer_start(p);
  CHECK_OK(p->r, try_migrate(p, 1, T, ""));
  return c;
}

static bytes *one_of(uint32_t origin, int64_t after, uint32_t table, const char *v) {
  const replic_value values[] = {v_int(after + 1), v_text(v)};
  bytes *b = patches_on(origin, after, after ? 10 : 0, after + 1);
  add_patch(b, 1, true, after ? 0 : 10, table, 1, 2, values);
  return b;
}

static void check_held(cluster *c, int w) {
  CHECK_INT(event_last(&c->peers[0], REPLIC_EVENT_LINK_ERROR)->code, REPLIC_EQUOTA);
  CHECK(info_of(&c->peers[0]).held != NULL);
  CHECK(c->wires[w].open[0]);
  CHECK_INT(take_frames(c, w, ERROR), 1);
}

static void origins_beyond_the_quota_are_held(void) {
  cluster *c = with_quotas(&(replic_config){.max_origins = 5});
  peer *p = &c->peers[0];
  int w = with_t(c);
  upsert(p, "t", ROW({"id", v_int(9)}, {"v", v_text("x")}));
  play(c, w, one_of(1000, 0, 1, "x"));
  play(c, w, one_of(1001, 0, 1, "x"));
  take_frames(c, w, 0);
  play(c, w, one_of(1002, 0, 1, "x"));
  CHECK_INT(peer_at(p, 1002), 0);
  check_held(c, w);
  play(c, w, one_of(1001, 1, 1, "y")); /* others go on */
  CHECK_INT(peer_at(p, 1001), 2);
  p->r->config.max_origins = 7;
  cluster_beat(c, 6);
  CHECK(take_frames(c, w, NEED) > 0); /* it is asked for again */
  play(c, w, one_of(1002, 0, 1, "x"));
  CHECK_INT(peer_at(p, 1002), 1);
  CHECK(info_of(p).held == NULL);
}

static void pending_beyond_the_quota_is_held(void) {
  cluster *c = with_quotas(&(replic_config){.max_pending_bytes = 160});
  peer *p = &c->peers[0];
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  int w = with_t(c);
  play(c, w, schema_frame(2, "u", 1, 2, FIELDS));
  play(c, w, one_of(HOSTILE, 0, 2, "twenty bytes of text"));
  play(c, w, one_of(HOSTILE, 1, 2, "twenty bytes of text"));
  CHECK_INT(peer_at(p, HOSTILE), 2);
  take_frames(c, w, 0);
  play(c, w, one_of(HOSTILE, 2, 2, "twenty bytes of text"));
  CHECK_INT(peer_at(p, HOSTILE), 2);
  check_held(c, w);
  play(c, w, one_of(1001, 0, 1, "x"));
  CHECK_INT(peer_at(p, 1001), 1);
  peer_stop(p);
  peer_start(p); /* what is there is counted */
  w = with_t(c);
  play(c, w, schema_frame(2, "u", 1, 2, FIELDS));
  play(c, w, one_of(HOSTILE, 2, 2, "twenty bytes of text"));
  CHECK_INT(peer_at(p, HOSTILE), 2);
  CHECK_OK(p->r, try_migrate(
                     p, 2,
                     "CREATE TABLE u(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE u_patches(" CLOCK
                     "id INTEGER, v TEXT);",
                     ""));
  play(c, w, one_of(HOSTILE, 2, 2, "twenty bytes of text"));
  CHECK_INT(peer_at(p, HOSTILE), 3);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM u"), 3);
}

static bytes *piece_of(uint32_t origin, int64_t up_to) {
  const replic_value values[] = {v_int(up_to), v_text("twenty bytes of text")};
  bytes *b = stage_frame(up_to, origin, 0, up_to, 1);
  add_patch(b, up_to, true, 10, 1, 1, 2, values);
  return b;
}

static void pieces_beyond_the_quota_are_held(void) {
  cluster *c = with_quotas(&(replic_config){.max_staged_bytes = 300});
  peer *p = &c->peers[0];
  int w = with_t(c);
  play(c, w, piece_of(1000, 5));
  play(c, w, piece_of(1001, 5));
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged"), 2);
  take_frames(c, w, 0);
  play(c, w, piece_of(1002, 5));
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged"), 2);
  check_held(c, w);
  p->r->config.max_staged_bytes = 1000;
  play(c, w, piece_of(1002, 5));
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged"), 3);
  CHECK(info_of(p).held == NULL);
}

/* ---- and one peer leaves room for the others ---- */

/* How many of `frames` a new link of that peer brings, until one is held. */
static int brought(cluster *c, uint32_t id, bytes *(*frame)(uint32_t origin), uint32_t first,
                   uint32_t n) {
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  peer *p = &c->peers[0];
  int w = with_t_as(c, id), taken = 0;
  play(c, w, schema_frame(2, "u", 1, 2, FIELDS));
  for (uint32_t origin = first; origin < first + n; origin++) {
    play(c, w, frame(origin));
    taken += peer_at(p, origin) > 0;
    taken +=
        sql_int(peer_sql(p), test_format("SELECT count(*) FROM _replic_staged WHERE origin = %u",
                                         (unsigned)origin)) > 0;
  }
  CHECK_INT(info_of(p).held != NULL, taken < (int)n);
  if (taken < (int)n) {
    CHECK_INT(event_last(p, REPLIC_EVENT_LINK_ERROR)->code, REPLIC_EQUOTA);
    CHECK_CONTAINS(info_of(p).held, test_format("peer %u has brought", (unsigned)id));
    CHECK(take_frames(c, w, ERROR) > 0);
  }
  CHECK(c->wires[w].open[0]);
  CHECK_INT(event_count(p, REPLIC_EVENT_ERROR), 0);
  wire_cut(c, w);
  return taken;
}

static bytes *of_t(uint32_t origin) {
  return one_of(origin, 0, 1, "x");
}

static bytes *of_u(uint32_t origin) {
  return one_of(origin, 0, 2, "twenty bytes of text");
}

static bytes *of_jump(uint32_t origin) {
  return piece_of(origin, 5);
}

static const struct {
  replic_config quotas;
  bytes *(*frame)(uint32_t origin);
  int first; /* that one peer may bring */
} KINDS[] = {{{.max_origins = 40}, of_t, 20},
             {{.max_pending_bytes = 1000}, of_u, 20},
             {{.max_staged_bytes = 2000}, of_jump, 16}};

/* Whoever comes first, comes again, or comes after a restart: there is room for the next one. */
static void one_peer_leaves_room_for_others(void) {
  for (size_t i = 0; i < COUNT(KINDS); i++) {
    cluster *c = with_quotas(&KINDS[i].quotas);
    peer *p = &c->peers[0];
    int first = brought(c, HOSTILE, KINDS[i].frame, 1000, 100);
    CHECK_INT(first, KINDS[i].first);
    CHECK_INT(brought(c, HOSTILE, KINDS[i].frame, 2000, 100), 0);
    int second = brought(c, 901, KINDS[i].frame, 3000, 100);
    CHECK(second >= first / 2 - 1 && second <= first / 2 + 1);
    peer_stop(p);
    peer_start(p);
    CHECK_INT(brought(c, HOSTILE, KINDS[i].frame, 4000, 100), 0);
    CHECK_INT(brought(c, 901, KINDS[i].frame, 5000, 100), 0);
    int third = brought(c, 902, KINDS[i].frame, 6000, 100);
    CHECK(third >= second / 2 - 1 && third <= second / 2 + 1);
    CHECK(brought(c, 903, KINDS[i].frame, 7000, 1) == 1);
  }
}

static void set_quotas(peer *p, int64_t most) {
  p->r->config.max_origins = p->r->config.max_pending_bytes = p->r->config.max_staged_bytes = most;
}

/* The text says how much would do for what comes next: not 1 less. */
static void who_is_held_is_told_what_would_do(void) {
  static const char *const BEFORE = "comes next to ";
  for (size_t i = 0; i < COUNT(KINDS); i++) {
    test_note("kind %zu", i);
    cluster *c = with_quotas(&KINDS[i].quotas);
    peer *p = &c->peers[0];
    CHECK_INT(brought(c, HOSTILE, KINDS[i].frame, 1000, 100), KINDS[i].first);
    const char *told = strstr(event_last(p, REPLIC_EVENT_LINK_ERROR)->text, BEFORE);
    CHECK(told != NULL);
    int64_t enough = strtoll(told + strlen(BEFORE), NULL, 10);
    set_quotas(p, enough - 1);
    CHECK_INT(brought(c, HOSTILE, KINDS[i].frame, 2000, 1), 0);
    set_quotas(p, enough);
    CHECK_INT(brought(c, HOSTILE, KINDS[i].frame, 3000, 1), 1);
    test_release();
  }
}

/* Times that were noted before lie in the future then. */
static void what_is_held_is_asked_for_though_the_clock_was_set_back(void) {
  cluster *c = with_quotas(&(replic_config){.max_origins = 1});
  peer *p = &c->peers[0], *q = cluster_add(c);
  peer_start(q);
  CHECK_OK(q->r, try_migrate(q, 1, T, ""));
  p->clock_step_ms = 3600000;
  upsert(q, "t", ROW({"id", v_int(1)}));
  wire_open(c, 0, 1);
  cluster_beat(c, 2);
  CHECK_INT(peer_at(p, q->id), 0);
  CHECK_CONTAINS(event_last(p, REPLIC_EVENT_LINK_ERROR)->text, "maxOrigins");
  p->r->config.max_origins = 100;
  p->clock_step_ms = 0;
  cluster_beat(c, 7);
  CHECK_INT(peer_at(p, q->id), 1);
}

/* What fails in its midst counts for nobody. */
static void what_is_undone_counts_for_nobody(void) {
  cluster *c = with_quotas(&(replic_config){.max_pending_bytes = 1000});
  peer *p = &c->peers[0];
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  char *large = test_format("%0400d", 7);
  const replic_value small[] = {v_int(1), v_text("x")}, big[] = {v_int(2), v_text(large)};
  int w = with_t(c);
  play(c, w, schema_frame(2, "u", 1, 2, FIELDS));
  for (int round = 0; round < 20; round++) {
    bytes *b = patches_frame(HOSTILE, 0, 3); /* one group: its last patch is too much */
    add_patch(b, 1, true, 10, 2, 1, 2, big);
    add_patch(b, 1, false, 0, 2, 1, 2, small);
    add_patch(b, 1, false, 0, 2, 1, 2, big);
    play(c, w, b);
    CHECK_INT(peer_at(p, HOSTILE), 0);
  }
  CHECK_INT(replic_pending_count(p->r), 0);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_definitions"), 0);
  CHECK(brought(c, HOSTILE, of_u, 1000, 100) >= 19);
}

static void a_definition_counts_with_its_patches(void) {
  cluster *c = with_quotas(&(replic_config){.max_pending_bytes = 1000});
  peer *p = &c->peers[0];
  int w = with_t(c);
  const char *const FIELDS[] = {"id", "INTEGER", test_format("%0200d", 7), "TEXT"};
  for (uint32_t id = 2; id < 12; id++) {
    play(c, w, schema_frame(id, test_format("u%u", (unsigned)id), 1, 2, FIELDS));
    play(c, w, one_of(1000 + id, 0, id, "x"));
  }
  CHECK_INT(replic_vector_count(p->r), 2); /* of 200 bytes each */
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_definitions"), 2);
}

/* A jump that would bring too many is held as a whole, and what needs none goes on. */
static void origins_of_a_jump_count(void) {
  cluster *c = with_quotas(&(replic_config){.max_origins = 10});
  peer *p = &c->peers[0];
  int w = with_t(c);
  replic_position to[8];
  int64_t floors[8];
  for (int i = 0; i < 8; i++) {
    to[i] = (replic_position){.origin = 1000 + (uint32_t)i, .sequence = 5, .patched_at = 10};
    floors[i] = 5;
    play(c, w, piece_of(to[i].origin, 5));
  }
  take_frames(c, w, 0);
  play(c, w, jump_frame(to, floors, 8));
  CHECK_INT(replic_vector_count(p->r), 0);
  check_held(c, w);
  play(c, w, one_of(HOSTILE, 0, 1, "x"));
  CHECK_INT(peer_at(p, HOSTILE), 1);
  p->r->config.max_origins = 20;
  play(c, w, jump_frame(to, floors, 8));
  CHECK_INT(replic_vector_count(p->r), 9);
  CHECK(info_of(p).held == NULL);
  wire_cut(c, w);
  CHECK_INT(brought(c, HOSTILE, of_t, 2000, 100), 1); /* nine of them are its */
}

/* ---- definitions that one peer brings, on the link between two others ---- */

static cluster *with_two(int *w) {
  cluster *c = cluster_start(2, T);
  *w = hostile(c);
  return c;
}

static bytes *large_schema(uint32_t id, char first, size_t name_bytes) {
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  char *name = test_alloc(name_bytes + 1);
  memset(name, 'u', name_bytes);
  name[0] = first;
  return schema_frame(id, name, 1, 2, FIELDS);
}

/* More than a link keeps, so what was defined first is not known there any more. */
static void definitions_of_others_are_defined_again(void) {
  for (int joins_late = 0; joins_late < 2; joins_late++) {
    int w;
    cluster *c = with_two(&w);
    if (!joins_late) wire_open(c, 0, 1);
    for (uint32_t i = 0; i < 12; i++) {
      char first = (char)('a' + i % 6);
      play(c, w, large_schema(2 + i, first, 3 << 20));
      const replic_value values[] = {v_int(i), v_text("x")};
      bytes *b = patches_on(HOSTILE, i, 10 * i, i + 1);
      add_patch(b, 1, true, 10, 2 + i, 1, 2, values); /* a group of its own */
      play(c, w, b);
      if (!joins_late) cluster_beat(c, 1);
    }
    wire_cut(c, w);
    if (joins_late) wire_open(c, 0, 1);
    cluster_settle(c);
    peer *q = &c->peers[1];
    CHECK_INT(peer_at(q, HOSTILE), 12);
    CHECK_INT(sql_int(peer_sql(q), "SELECT count(*) FROM _replic_definitions"), 6);
    CHECK_INT(event_count(q, REPLIC_EVENT_LINK_ERROR), 0);
  }
}

/* Its id is longer there. */
static void a_definition_that_just_fits_is_handed_on(void) {
  enum { MOST = 4 << 20, ROOM = 64, SUM = 4 };
  for (size_t less = 0; less <= ROOM; less += ROOM / 2) {
    int w;
    cluster *c = with_two(&w);
    int between = wire_open(c, 0, 1);
    size_t other = large_schema(2, 'u', 3 << 20)->len - (3 << 20) + SUM;
    play(c, w, large_schema(2, 'u', MOST - less - other));
    play(c, w, one_of(HOSTILE, 0, 2, "x"));
    cluster_beat(c, 2);
    CHECK(c->wires[between].open[0] && c->wires[between].open[1]);
    CHECK_INT(c->wires[w].open[0], less == ROOM);
    CHECK_INT(peer_at(&c->peers[1], HOSTILE), less == ROOM);
    test_release();
  }
}

/* ---- what nobody needs any more goes ---- */

static int64_t definitions(peer *p) {
  return sql_int(peer_sql(p), "SELECT count(*) FROM _replic_definitions");
}

static int64_t forget(peer *p, int what) {
  int64_t forgotten;
  peer_begin(p);
  CHECK_OK(p->r, replic_forget(p->r, what, 0, 0, &forgotten));
  CHECK_OK(p->r, peer_commit(p));
  return forgotten;
}

static void definitions_go_with_the_last_patch(void) {
  for (int migrates = 0; migrates < 2; migrates++) {
    cluster *c = with_quotas(&(replic_config){.max_pending_bytes = 1000});
    peer *p = &c->peers[0];
    int first = brought(c, HOSTILE, of_u, 1000, 100);
    CHECK_INT(definitions(p), 1);
    if (!migrates)
      CHECK_INT(forget(p, REPLIC_FORGET_PENDING), first);
    else
      CHECK_OK(p->r, try_migrate(p, 2,
                                 "CREATE TABLE u(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE "
                                 "u_patches(" CLOCK "id INTEGER, v TEXT);",
                                 "DROP TABLE u; DROP TABLE u_patches"));
    CHECK_INT(definitions(p), 0);
    CHECK_INT(replic_pending_count(p->r), 0);
    if (!migrates) CHECK_INT(brought(c, HOSTILE, of_u, 2000, 100), first); /* and count no more */
  }
}

/* The vector stays, so it never comes again; who lacks it gets past it, also in its midst, and
 * has the same then. */
static void what_was_forgotten_keeps_nobody_from_joining(void) {
  cluster *c = with_quotas(&(replic_config){0});
  peer *p = &c->peers[0];
  for (int i = 0; i < 2; i++) {
    peer *q = cluster_add(c);
    peer_start(q);
    CHECK_OK(q->r, try_migrate(q, 1, T, ""));
  }
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  int w = with_t(c), to_q = wire_open(c, 0, 1);
  play(c, w, schema_frame(2, "u", 1, 2, FIELDS));
  for (int64_t after = 0; after < 9; after++) {
    play(c, w, one_of(HOSTILE, after, after % 3 == 2 ? 1 : 2, "x"));
    cluster_beat(c, 1);
    if (after == 4) wire_cut(c, to_q);
  }
  CHECK_INT(peer_at(&c->peers[1], HOSTILE), 5);
  wire_cut(c, w);
  CHECK_INT(forget(p, REPLIC_FORGET_PENDING), 6);
  wire_open(c, 0, 1);
  wire_open(c, 0, 2);
  cluster_settle(c);
  CHECK_INT(peer_at(&c->peers[2], HOSTILE), 9);
  CHECK_INT(replic_pending_count(c->peers[2].r), 0);
  CHECK_INT(replic_pending_at(c->peers[1].r, 0)->patches, 4); /* it had them before */
  cluster_same(c, "t");
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM t"), 3);
}

static void the_oldest_that_is_pending_is_told(void) {
  cluster *c = with_quotas(&(replic_config){0});
  peer *p = &c->peers[0];
  brought(c, HOSTILE, of_u, 1000, 3);
  int w = with_t(c);
  const char *const FIELDS[] = {"id", "INTEGER", "v", "TEXT"};
  const replic_value values[] = {v_int(1), v_text("x")};
  for (int64_t clock = 9; clock > 5; clock--) {
    bytes *b = patches_frame(2000 + (uint32_t)clock, 0, 1);
    add_patch(b, 1, true, (uint64_t)clock, 2, 1, 2, values);
    play(c, w, schema_frame(2, "u", 1, 2, FIELDS));
    play(c, w, b);
    CHECK_INT(replic_pending_at(p->r, 0)->oldest_at, clock);
  }
  peer_stop(p);
  peer_start(p);
  CHECK_INT(replic_pending_at(p->r, 0)->oldest_at, 6);
  CHECK_INT(replic_pending_at(p->r, 0)->patches, 7);
}

/* What a source has staged goes when nothing has come of it for long, also over a restart. */
static void pieces_of_who_comes_no_more_expire(void) {
  enum { HOUR = 3600000 };
  cluster *c = with_quotas(&(replic_config){.max_staged_bytes = 2000});
  peer *p = &c->peers[0];
  CHECK_INT(brought(c, HOSTILE, of_jump, 1000, 100), 16);
  c->now_ms += 12 * HOUR;
  cluster_beat(c, 1);
  CHECK_INT(brought(c, 901, of_jump, 3000, 2), 2);
  c->now_ms += 11 * HOUR;
  cluster_beat(c, 1);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged"), 18);
  peer_stop(p);
  c->now_ms += 2 * HOUR;
  peer_start(p);
  cluster_beat(c, 1);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged WHERE source = 901"), 2);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged"), 2);
  CHECK_INT(brought(c, HOSTILE, of_jump, 2000, 100), 15); /* there is room for its own again */
  c->now_ms += 25 * HOUR;
  cluster_beat(c, 2);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged"), 0);
  CHECK_INT(sql_int(peer_sql(p), "SELECT count(*) FROM _replic_sources"), 0);
}

/* ---- more origins than one link keeps track of ---- */

static cluster *with_crowded_links(int n, size_t max) {
  cluster *c = cluster_new();
  for (int i = 0; i < n; i++) {
    peer *p = cluster_add(c);
    p->config.max_link_origins = max;
    peer_start(p);
    CHECK_OK(p->r, try_migrate(p, 1, T, ""));
  }
  return c;
}

static void check_crowded(const peer *p, size_t told) {
  size_t n = 0;
  for (size_t i = 0; i < p->n_events; i++) {
    n += p->events[i].kind == REPLIC_EVENT_LINK_ERROR && p->events[i].code == REPLIC_EQUOTA;
    CHECK(p->events[i].kind != REPLIC_EVENT_ERROR);
  }
  CHECK_INT(n, told);
  CHECK_CONTAINS(info_of(p).held, "more than 5 origins");
}

/* Whatever kind of frame names one too many: the link goes on, and so do all others. */
static void a_frame_of_one_origin_too_many(void) {
  for (int kind = HELLO; kind <= TAKE; kind++) {
    if (kind == SCHEMA || kind == ERROR) continue;
    cluster *c = with_crowded_links(1, 3);
    peer *p = &c->peers[0];
    int w = with_t(c);
    upsert(p, "t", ROW({"id", v_int(9)}, {"v", v_text("mine")}));
    for (uint32_t origin = 1000; origin < 1003; origin++) play(c, w, one_of(origin, 0, 1, "x"));
    const replic_position more = {.origin = 1003, .sequence = 1, .patched_at = 10};
    int64_t floor = 1;
    bytes *b = NULL;
    take_frames(c, w, 0);
    p->n_events = 0;
    switch (kind) {
    case HELLO: b = hello_frame(HOSTILE, c->now_ms, &more, 1); break;
    case PATCHES: b = one_of(1003, 0, 1, "x"); break;
    case ACK:
      b = ack_frame(c->now_ms);
      for (int i = 0; i < 3; i++) add_positions(b, &more, i == 1);
      add_no_list(b);
      break;
    case NEED: b = need(1003, 0); break;
    case STAGE: b = piece_of(1003, 5); break;
    case JUMP: b = jump_frame(&more, &floor, 1); break;
    default: b = staged_frame(false, &more, 1); break;
    }
    play(c, w, b);
    play(c, w, b);
    CHECK(c->wires[w].open[0]);
    CHECK_INT(peer_at(p, 1003), 0);
    if (kind == NEED) continue; /* of what is not here */
    check_crowded(p, 1);
    CHECK_INT(take_frames(c, w, ERROR), 1);
    play(c, w, one_of(1002, 1, 1, "y"));
    CHECK_INT(peer_at(p, 1002), 2);
    play(c, w, need(101, 0)); /* what is made here goes on, too */
    CHECK_INT(take_frames(c, w, PATCHES), 1);
  }
}

/* Two honest peers, of which one knows too many: what there is room for is exchanged in both
 * directions, both say what is not, and another link with more room brings it. */
static void more_origins_than_a_link_has_room_for(void) {
  cluster *c = with_crowded_links(2, 3);
  peer *p = &c->peers[0], *q = &c->peers[1];
  p->r->config.max_link_origins = 100;
  int w = with_t(c);
  for (uint32_t origin = 1000; origin < 1005; origin++) play(c, w, one_of(origin, 0, 1, "x"));
  wire_cut(c, w);
  p->r->config.max_link_origins = 3;
  p->n_events = 0;
  w = wire_open(c, 0, 1);
  cluster_beat(c, 3);
  upsert(p, "t", ROW({"id", v_int(8)}, {"v", v_text("of p")}));
  upsert(q, "t", ROW({"id", v_int(9)}, {"v", v_text("of q")}));
  cluster_beat(c, 3);
  CHECK_INT(peer_at(p, q->id), 1);
  CHECK_INT(peer_at(q, p->id), 1);
  CHECK_INT(replic_vector_count(q->r), 5); /* its own, p's, and three of the five */
  CHECK_CONTAINS(info_of(p).held, "more than 5 origins");
  CHECK_CONTAINS(event_last(q, REPLIC_EVENT_LINK_ERROR)->text, "more than 5 origins");
  CHECK_INT(event_count(p, REPLIC_EVENT_ERROR) + event_count(q, REPLIC_EVENT_ERROR), 0);
  wire_cut(c, w);
  p->r->config.max_link_origins = q->r->config.max_link_origins = 100;
  wire_open(c, 0, 1);
  cluster_settle(c);
}

static int64_t events_of(const peer *p, int kind) {
  int64_t n = 0;
  for (size_t i = 0; i < p->n_events; i++) n += p->events[i].kind == kind;
  return n;
}

static void the_application_hears_of_some_troubles(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c);
  bytes *error = frame_new(ERROR);
  char *text = sqlite3_mprintf("%.*c", 1000000, 'x');
  add_text(error, "REPLIC_SCHEMA");
  add_text(error, text);
  sqlite3_free(text);
  for (int i = 0; i < 1000; i++) play(c, w, error);
  CHECK_INT(events_of(p, REPLIC_EVENT_LINK_ERROR), 100);
  CHECK(strlen(event_last(p, REPLIC_EVENT_LINK_ERROR)->text) < 3000);
  for (int64_t i = 0; i < 1000;
       i++) { /* each stands at another patch, and the next one is ahead of time */
    const replic_value values[] = {v_int(i), v_text("x")};
    bytes *b = patches_on(HOSTILE, i, i ? 10 : 0, i + 2);
    add_patch(b, 1, true, i ? 0 : 10, 1, 1, 2, values);
    add_patch(b, 1, true, (uint64_t)c->now_ms * 2, 1, 1, 2, values);
    play(c, w, b);
  }
  CHECK_INT(peer_at(p, HOSTILE), 1000);
  CHECK_INT(events_of(p, REPLIC_EVENT_LINK_ERROR), 100);
  c->now_ms += 1000;
  play(c, w, error);
  CHECK_INT(events_of(p, REPLIC_EVENT_LINK_ERROR), 101);
  CHECK(c->wires[w].open[0]);
}

/* The frame of `type` that the peer has sent last, without its sum. */
static bytes last_frame(cluster *c, int w, int type) {
  const packet_queue *queue = &c->wires[w].to[1];
  for (size_t i = queue->n; i-- > 0;)
    if (queue->packets[i].data[1] == type)
      return (bytes){.data = queue->packets[i].data, .len = queue->packets[i].len - 4};
  CHECK_INT(type, 0); /* there is none */
  return (bytes){0};
}

static void check_take(cluster *c, int w, bool again, const replic_position *staged, size_t n) {
  const bytes *want = staged_frame(again, staged, n);
  bytes got = last_frame(c, w, TAKE);
  CHECK_INT((int64_t)got.len, (int64_t)want->len);
  CHECK(!memcmp(got.data, want->data, want->len));
  take_frames(c, w, 0);
}

/* It is no sum over all pieces that each commit makes. */
static void what_is_staged_is_told_where_it_is_new(void) {
  cluster *c = cluster_start(1, T);
  int w = with_t(c);
  const replic_position all[] = {{.origin = 1000, .sequence = 5}, {.origin = 1001, .sequence = 5}};
  take_frames(c, w, 0);
  play(c, w, piece_of(1000, 5));
  check_take(c, w, false, all, 1);
  play(c, w, piece_of(1001, 5));
  check_take(c, w, false, all + 1, 1);
  const replic_position vector[] = {{.origin = 1000, .sequence = 9, .patched_at = 10}};
  const int64_t floors[] = {3};
  cluster_beat(c, 1);
  play(c, w, jump_frame(vector, floors, 1));
  check_take(c, w, true, all, 2);
  bytes *ack = ack_frame(c->now_ms);
  for (int i = 0; i < 2; i++) add_positions(ack, NULL, 0);
  add_positions(ack, all + 1, 1);
  add_no_list(ack);
  cluster_beat(c, 1);
  take_frames(c, w, 0);
  play(c, w, ack); /* the first of them was lost */
  check_take(c, w, false, all + 1, 1);
}

static void pieces_are_let_go_in_slices(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c);
  for (uint32_t i = 0; i < 2500; i++) play(c, w, piece_of(1000 + i, 1));
  for (uint32_t i = 0; i < 2500; i++) play(c, w, one_of(1000 + i, 0, 1, "x"));
  int64_t staged = 2500;
  for (int64_t left = 1500; staged > 0; left = left > 1000 ? left - 1000 : 0) {
    CHECK_OK(p->r, (peer_begin(p), replic_tick(p->r)));
    CHECK_OK(p->r, peer_commit(p));
    staged = sql_int(peer_sql(p), "SELECT count(*) FROM _replic_staged");
    CHECK_INT(staged, left);
  }
}

static int count_sums(unsigned type, void *ctx, void *stmt, void *sql) {
  (void)type, (void)stmt;
  *(int64_t *)ctx += strstr(sql, "length(patches))") != NULL;
  return 0;
}

static void pieces_are_not_counted_with_each(void) {
  cluster *c = with_quotas(&(replic_config){.max_staged_bytes = 300});
  peer *p = &c->peers[0];
  int w = with_t(c);
  int64_t sums = 0;
  for (uint32_t i = 0; i < 20; i++) play(c, w, piece_of(1000 + i, 1));
  sqlite3_trace_v2(p->r->db, SQLITE_TRACE_STMT, count_sums, &sums);
  for (uint32_t i = 0; i < 50; i++) play(c, w, piece_of(1002 + i, 5));
  CHECK_INT(sums, 0); /* nothing has been taken away */
  play(c, w, one_of(1000, 0, 1, "x"));
  cluster_beat(c, 1);
  for (uint32_t i = 0; i < 50; i++) play(c, w, piece_of(2000 + i, 5));
  CHECK_INT(sums, 1);
}

/* Patches (after, after + n] of HOSTILE, all of one row, each of another epoch than the one before.
 */
static bytes *of_epochs(int64_t after, int64_t n) {
  bytes *b = frame_new(PATCHES);
  add_varint(b, HOSTILE);
  add_varint(b, (uint64_t)after);
  add_varint(b, (uint64_t)(after + n));
  add_varint(b, after ? 10 : 0);
  add_varint(b, after ? (uint64_t)(7 + after % 2) : 0);
  add_varint(b, (uint64_t)n);
  for (int64_t i = 1; i <= n; i++) {
    add_varint(b, 1);
    add_varint(b, (uint64_t)(7 + (after + i) % 2));
  }
  for (int64_t i = 1; i <= n; i++) {
    const replic_value values[] = {v_int(1), v_text("x")};
    add_patch(b, 1, true, after + i == 1 ? 10 : 0, 1, 1, 2, values);
  }
  return b;
}

static void take_in(cluster *c, int w, const bytes *b) {
  receive(&c->peers[0], c, w, b);
  while (replic_has_work(c->peers[0].r)) work(&c->peers[0]);
}

static void epochs_of_a_frame_are_bounded(void) {
  for (int more = 0; more < 2; more++) {
    cluster *c = cluster_start(1, T);
    int w = with_t(c);
    take_in(c, w, of_epochs(0, 4096 + more));
    CHECK_INT(peer_at(&c->peers[0], HOSTILE), more ? 0 : 4096);
    CHECK_INT(c->wires[w].open[0], !more);
  }
}

/* An origin that is opened for each of its writes: its patches go on, and the pruned ones as well.
 */
static void very_many_epochs_go_on(void) {
  for (int pruned = 0; pruned < 2; pruned++) {
    cluster *c = cluster_start(2, T);
    peer *p = &c->peers[0], *q = &c->peers[1];
    int w = with_t(c);
    p->r->config.slice_bytes = 1 << 20;
    p->r->config.window_bytes = 4 << 20;
    for (int64_t after = 0; after < 9000; after += 3000) take_in(c, w, of_epochs(after, 3000));
    CHECK_INT(peer_at(p, HOSTILE), 9000);
    if (pruned) peer_compact(p, c->now_ms, 10000);
    CHECK_INT(replic_log_rows(p->r), pruned ? 1 : 9000);
    wire_open(c, 0, 1);
    cluster_settle(c);
    while (replic_has_work(q->r)) work(q);
    cluster_settle(c);
    CHECK_INT(peer_at(q, HOSTILE), 9000);
    CHECK_INT(sql_int(peer_sql(q), "SELECT count(*) FROM _replic_epochs"), 9000);
  }
}

/* By the bytes that its writer counts: tiny patches are as many as that one could write. */
static void a_group_is_as_large_as_one_may_be_written(void) {
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  const int64_t N = 70000;
  int w = with_t(c);
  p->r->config.max_frame_bytes = 10000;
  bytes *b = patches_frame(HOSTILE, 0, N);
  for (int64_t i = 1; i <= N; i++) {
    const replic_value values[] = {v_int(i), {.type = REPLIC_UNSET}};
    add_patch(b, 1, i == 1, 10, 1, 1, 2, values);
  }
  CHECK(b->len < 1000000);
  take_in(c, w, b);
  CHECK_INT(peer_at(p, HOSTILE), 0);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_ETOOLARGE);
}

static void wide_patches_count_for_more(void) {
  enum { FIELDS = 20000 };
  cluster *c = cluster_start(1, T);
  peer *p = &c->peers[0];
  int w = with_t(c);
  bytes *b = frame_new(SCHEMA);
  add_varint(b, 2);
  add_text(b, "wide");
  add_varint(b, 1);
  add_varint(b, FIELDS);
  for (int i = 0; i < FIELDS; i++) {
    char name[12];
    sqlite3_snprintf(sizeof name, name, "f%d", i);
    add_text(b, name);
    add_u8(b, 0);
  }
  play(c, w, b);
  replic_value *values = test_alloc(FIELDS * sizeof *values);
  for (int i = 1; i < FIELDS; i++) values[i].type = REPLIC_UNSET;
  b = patches_frame(HOSTILE, 0, 30);
  for (int64_t i = 1; i <= 30; i++) {
    values[0] = v_int(i);
    add_patch(b, 1, true, i == 1 ? 10 : 0, 2, 1, FIELDS, values);
  }
  int64_t at = receive(p, c, w, b);
  CHECK(at < 10);
  while (replic_has_work(p->r)) {
    int64_t next = work(p);
    CHECK(next - at < 10);
    at = next;
  }
  CHECK_INT(at, 30);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(what_is_asked_for_comes_once_per_heartbeat),
                               TEST(all_definitions_come_once_per_heartbeat),
                               TEST(needs_are_bounded),
                               TEST(a_hello_is_answered_once_per_heartbeat),
                               TEST(a_list_of_peers_is_bounded_and_in_order),
                               TEST(probes_of_a_fork_are_bounded),
                               TEST(definitions_give_way_to_later_ones),
                               TEST(what_is_told_of_definitions_is_bounded),
                               TEST(fields_are_not_asked_for_one_by_one),
                               TEST(a_large_frame_is_taken_in_in_parts),
                               TEST(whoever_knows_no_parts_has_it_whole),
                               TEST(a_part_whose_commit_fails_is_asked_for),
                               TEST(a_link_that_ends_takes_the_rest_with_it),
                               TEST(a_large_frame_that_is_malformed_changes_nothing),
                               TEST(a_table_defined_anew_in_between),
                               TEST(early_frames_are_taken_in_in_parts),
                               TEST(origins_beyond_the_quota_are_held),
                               TEST(pending_beyond_the_quota_is_held),
                               TEST(pieces_beyond_the_quota_are_held),
                               TEST(the_application_hears_of_some_troubles),
                               TEST(what_is_staged_is_told_where_it_is_new),
                               TEST(pieces_are_let_go_in_slices),
                               TEST(pieces_are_not_counted_with_each),
                               TEST(one_peer_leaves_room_for_others),
                               TEST(who_is_held_is_told_what_would_do),
                               TEST(what_is_held_is_asked_for_though_the_clock_was_set_back),
                               TEST(what_is_undone_counts_for_nobody),
                               TEST(a_definition_counts_with_its_patches),
                               TEST(origins_of_a_jump_count),
                               TEST(definitions_of_others_are_defined_again),
                               TEST(a_definition_that_just_fits_is_handed_on),
                               TEST(definitions_go_with_the_last_patch),
                               TEST(what_was_forgotten_keeps_nobody_from_joining),
                               TEST(the_oldest_that_is_pending_is_told),
                               TEST(pieces_of_who_comes_no_more_expire),
                               TEST(epochs_of_a_frame_are_bounded),
                               TEST(very_many_epochs_go_on),
                               TEST(a_group_is_as_large_as_one_may_be_written),
                               TEST(wide_patches_count_for_more),
                               TEST(a_frame_of_one_origin_too_many),
                               TEST(more_origins_than_a_link_has_room_for)};
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

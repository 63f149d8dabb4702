/* duel.c - see duel.h */
#include "duel.h"

#include <string.h>

#include "frames.h"
#include "memvfs.h"

static const char DDL[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INTEGER, deletedAt INTEGER);"
    "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId "
    "INTEGER NOT NULL, _nulls TEXT, id INTEGER, a TEXT, b INTEGER, deletedAt INTEGER);"
    "CREATE TABLE s(k TEXT NOT NULL PRIMARY KEY, must TEXT NOT NULL, n REAL);"
    "CREATE TABLE s_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId "
    "INTEGER NOT NULL, k TEXT NOT NULL, must TEXT, n REAL);";

enum { HOSTILE = 900 };

typedef struct input {
  const uint8_t *at, *end;
} input;

typedef struct duel {
  cluster *c;
  int honest, hostile; /* wires */
} duel;

static unsigned next(input *in) {
  return in->at < in->end ? *in->at++ : 0;
}

/* ---- the honest ones ---- */

/* The files are made once, and copied. */
static cluster *start(void) {
  static const char *const SUFFIXES[] = {"", "-wal", "-replic"};
  static bool made;
  cluster *c = made ? cluster_new() : cluster_start(2, DDL);
  for (int i = 0; i < 2; i++) {
    if (made)
      cluster_add(c);
    else
      peer_stop(&c->peers[i]);
    for (size_t k = 0; k < COUNT(SUFFIXES); k++) {
      char *live = test_format("%s%s", c->peers[i].config.path, SUFFIXES[k]);
      char *kept = test_format("/1/%d%s", i, SUFFIXES[k]);
      memvfs_copy(made ? kept : live, made ? live : kept);
    }
  }
  made = true;
  for (int i = 0; i < 2; i++) peer_start(&c->peers[i]);
  return c;
}

static void write_row(duel *d, input *in) {
  peer *p = &d->c->peers[next(in) & 1];
  int64_t key = next(in) % 3;
  unsigned what = next(in);
  replic_value text = what & 1 ? v_text("x") : v_text("another");
  if (!p->r) return;
  if (what & 128)
    try_upsert(p, "s",
               ROW({"k", v_text(key ? "p" : "q")},
                   {what & 2 ? "must" : "n", what & 2 ? text : v_real(0.5)}));
  else if (what & 64)
    try_erase(p, "t", ROW({"id", v_int(key)}));
  else
    upsert(p, "t",
           ROW({"id", v_int(key)}, {what & 2 ? "a" : "b", what & 4   ? v_null()
                                                          : what & 2 ? text
                                                                     : v_int(what)}));
}

static void compact(duel *d, input *in) {
  peer *p = &d->c->peers[next(in) & 1];
  int64_t older_than_ms = d->c->now_ms - 1000 * (int64_t)next(in);
  int64_t n = next(in);
  if (p->r) peer_compact(p, older_than_ms, n);
}

static void relink(duel *d) {
  cluster *c = d->c;
  if (c->n_wires >= MAX_WIRES - 4) return;
  wire_cut(c, d->honest);
  if (c->peers[0].r && c->peers[1].r) d->honest = wire_open(c, 0, 1);
}

static bool pick(const duel *d, input *in, int *side, size_t *index) {
  *side = (int)next(in) & 1;
  size_t n = d->c->wires[d->honest].to[*side].n;
  *index = next(in);
  if (n) *index %= n;
  return n > 0;
}

/* ---- the hostile one ---- */

/* Whoever may link up is trusted to relay truly: patches of the honest ones that it makes up, or
 * gives another meaning, are no matter of robustness, and nothing could tell them from true ones.
 */
static bool is_forged(const uint8_t *frame, size_t len) {
  if (len < 3 || (frame[1] != PATCHES && frame[1] != STAGE)) return false;
  size_t i = 2;
  if (frame[1] == STAGE) /* its age comes first */
    while (i < len && frame[i++] >= 128) continue;
  uint64_t origin = 0;
  for (size_t shift = 0; i < len && shift < 64; i++, shift += 7) {
    origin |= (uint64_t)(frame[i] & 127) << shift;
    if (frame[i] < 128) break;
  }
  return origin == 101 || origin == 102;
}

static void attack(duel *d, const uint8_t *frame, size_t len) {
  cluster *c = d->c;
  if (d->hostile < 0 || !c->wires[d->hostile].open[0] || is_forged(frame, len)) return;
  take_frames(c, d->hostile, 0);
  const bytes *sent = whole(frame, len);
  wire_put(c, d->hostile, 0, sent->data, sent->len);
  wire_deliver(c, d->hostile, 0, c->wires[d->hostile].to[0].n - 1);
}

static void attack_hello(duel *d, input *in) {
  unsigned flags = next(in);
  cluster *c = d->c;
  if (!c->peers[0].r || c->n_wires >= MAX_WIRES - 4) return;
  if (d->hostile >= 0) wire_cut(c, d->hostile);
  d->hostile = wire_open_test(c, 0);
  const replic_position vector[] = {{101, flags & 1, c->now_ms, 101},
                                    {102, flags & 30, c->now_ms, 102},
                                    {HOSTILE, flags & 224, c->now_ms, 0}};
  bytes *hello = hello_frame(HOSTILE, c->now_ms, vector, flags ? 3 : 0);
  attack(d, hello->data, hello->len);
}

static void attack_raw(duel *d, input *in) {
  size_t len = next(in);
  if (len > (size_t)(in->end - in->at)) len = (size_t)(in->end - in->at);
  attack(d, in->at, len);
  in->at += len;
}

/* Numbers at which something begins or ends: peers, sequences, sizes, times. */
static uint64_t next_number(duel *d, input *in) {
  const uint64_t now = (uint64_t)d->c->now_ms;
  const uint64_t numbers[] = {0,           1,
                              2,           3,
                              9,           101,
                              102,         HOSTILE,
                              HOSTILE + 1, UINT32_MAX,
                              1ull << 32,  now,
                              now - 1000,  now + 30000,
                              now + 90000, REPLIC_MAX_SEQUENCE - 1,
                              1ull << 52,  REPLIC_MAX_SEQUENCE,
                              1ull << 53,  INT64_MAX,
                              1ull << 63,  UINT64_MAX};
  return numbers[next(in) % COUNT(numbers)];
}

static void attack_forged(duel *d, input *in) {
  static const struct {
    int type;
    unsigned n; /* numbers */
  } FORGED[] = {{PATCHES, 4}, {ACK, 10}, {NEED, 2}, {STAGE, 6}, {JUMP, 5},
                {JUMP, 9},    {TAKE, 4}, {TAKE, 6}, {FORK, 5},  {MESSAGE, 1}};
  size_t which = next(in) % COUNT(FORGED);
  bytes *frame = frame_new(FORGED[which].type);
  for (unsigned i = 0; i < FORGED[which].n; i++) add_varint(frame, next_number(d, in));
  attack(d, frame->data, frame->len);
}

/* Definitions that fit, that differ in a key, a type or a column, and of no table at all. */
static void attack_definition(duel *d, input *in) {
  static const struct {
    const char *name;
    size_t n_keys, n_fields;
    const char *fields[8];
  } TABLES[] = {
      {"t", 1, 3, {"id", "INTEGER", "a", "TEXT", "b", "INTEGER"}},
      {"T", 1, 2, {"ID", "integer", "A", "text"}},
      {"t", 2, 3, {"id", "INTEGER", "a", "TEXT", "b", "INTEGER"}},
      {"t", 1, 2, {"a", "TEXT", "id", "INTEGER"}},
      {"t", 1, 2, {"id", "INTEGER", "a", "BLOB"}},
      {"t", 1, 2, {"id", "INTEGER", "none", "TEXT"}},
      {"t", 1, 3, {"id", "INTEGER", "a", "TEXT", "a", "TEXT"}},
      {"t_patches", 1, 2, {"id", "INTEGER", "_peerId", "INTEGER"}},
      {"s", 1, 3, {"k", "TEXT", "must", "TEXT", "n", "REAL"}},
      {"", 1, 1, {"", ""}},
  };
  size_t i = next(in) % COUNT(TABLES);
  int64_t sequence = 1 + next(in) % 4, now = d->c->now_ms, floor = sequence;
  unsigned value = next(in);
  bytes *schema =
      schema_frame(1, TABLES[i].name, TABLES[i].n_keys, TABLES[i].n_fields, TABLES[i].fields);
  replic_value values[4];
  for (size_t k = 0; k < COUNT(values); k++)
    values[k] = value >> k & 1 ? v_int(value) : k ? v_text("text") : v_blob("k", 1);
  bytes *frames[] = {patches_frame(HOSTILE, sequence - 1, sequence),
                     stage_frame(0, HOSTILE, 0, sequence, 1),
                     jump_frame(&(replic_position){HOSTILE, sequence, now, 0}, &floor, 1)};
  add_patch(frames[0], 1, true, (uint64_t)now, 1, TABLES[i].n_keys, TABLES[i].n_fields, values);
  add_patch(frames[1], sequence, true, (uint64_t)now, 1, TABLES[i].n_keys, TABLES[i].n_fields,
            values);
  attack(d, schema->data, schema->len);
  for (size_t k = value & 64 ? 1 : 0; k < COUNT(frames); k++)
    attack(d, frames[k]->data, frames[k]->len);
}

static void attack_changed(duel *d, input *in) {
  int side;
  size_t index;
  bool found = pick(d, in, &side, &index);
  unsigned place = next(in), byte = next(in);
  if (!found) return;
  const packet *source = &d->c->wires[d->honest].to[side].packets[index];
  size_t len = source->len - 4; /* it gets another sum */
  uint8_t *copy = test_alloc(len);
  memcpy(copy, source->data, len);
  copy[place % len] = (uint8_t)byte;
  attack(d, copy, len);
}

/* ---- playing ---- */

static void play_one(duel *d, input *in) {
  cluster *c = d->c;
  int side;
  size_t index;
  switch (next(in) % DUEL_N) {
  case DUEL_WRITE: write_row(d, in); break;
  case DUEL_DELIVER:
    if (pick(d, in, &side, &index)) wire_deliver(c, d->honest, side, index);
    break;
  case DUEL_DROP:
    if (pick(d, in, &side, &index)) wire_drop(c, d->honest, side, index);
    break;
  case DUEL_DOUBLE:
    if (pick(d, in, &side, &index)) wire_duplicate(c, d->honest, side, index);
    break;
  case DUEL_TICK:
    c->now_ms += 1000;
    tick(&c->peers[0]);
    tick(&c->peers[1]);
    break;
  case DUEL_RELINK: relink(d); break;
  case DUEL_RESTART: {
    peer *p = &c->peers[next(in) & 1];
    peer_stop(p);
    peer_start(p);
    relink(d);
    break;
  }
  case DUEL_HELLO: attack_hello(d, in); break;
  case DUEL_RAW: attack_raw(d, in); break;
  case DUEL_CHANGED: attack_changed(d, in); break;
  case DUEL_FORGED: attack_forged(d, in); break;
  case DUEL_DEFINE: attack_definition(d, in); break;
  case DUEL_COMPACT: compact(d, in); break;
  default: c->now_ms += 1000 * (int64_t)next(in); break;
  }
}

static void check_log(peer *p) {
  static const char HOLES[] =
      "WITH log AS (SELECT _peerId AS o, _sequenceId AS s FROM t_patches UNION SELECT _peerId, "
      "_sequenceId FROM s_patches UNION SELECT origin, sequence FROM _replic_pending) SELECT "
      "(SELECT count(*) FROM _replic_vector v WHERE sequence - "
      "missing <> (SELECT count(*) FROM log WHERE o = origin AND s BETWEEN 1 AND sequence) OR "
      "(origin IN (101, 102) AND sequence - floor <> (SELECT count(*) FROM log WHERE o = origin "
      "AND s > floor))) + (SELECT count(*) FROM log WHERE s > coalesce((SELECT sequence FROM "
      "_replic_vector WHERE origin = o), 0))";
  CHECK_INT(sql_int(peer_sql(p), HOLES), 0);
  CHECK_TEXT(sql_text(peer_sql(p), "PRAGMA integrity_check"), "ok");
}

int64_t duel_run(const uint8_t *data, size_t len) {
  input in = {data, data + len};
  duel d = {.c = start(), .hostile = -1};
  d.honest = wire_open(d.c, 0, 1);
  for (int i = 0; i < 400 && in.at < in.end; i++) play_one(&d, &in);
  if (d.hostile >= 0) wire_cut(d.c, d.hostile);
  cluster_deliver(d.c);
  if (!d.c->wires[d.honest].open[0] || !d.c->wires[d.honest].open[1]) relink(&d);
  d.c->now_ms += 120000; /* what was stamped ahead is due */
  relink(&d);
  cluster_settle(d.c);
  cluster_same(d.c, "t");
  cluster_same(d.c, "s");
  check_log(&d.c->peers[0]);
  check_log(&d.c->peers[1]);
  replic_counters counters[2];
  for (int i = 0; i < 2; i++) replic_get_counters(d.c->peers[i].r, &counters[i]);
  test_release();
  return counters[0].jumps + counters[1].jumps;
}

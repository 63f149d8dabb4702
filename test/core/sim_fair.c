/* sim_fair.c - nobody who could be served waits longer than the bound.
 *
 * Links have a bandwidth for each direction, and a latency; in some seeds clocks are off. Some
 * peers write a backlog, or so many bytes each second that some links do not carry them; the others
 * write a small row now and then. The cluster is a tree of links. Or it is a tree of fast ones, and
 * beside these are bad ones: slow, or of which a direction brings nothing for a while. One peer's
 * clock may be an hour ahead: what that writes is held by all others.
 *
 * The bound of a row is that of the best way from its origin to a peer, over the tree. A link u - v
 * adds (docs/protocol.md, Relay and grace)
 *
 *   1. its latency, and ODD_MS for its own frames,
 *   2. the queue: the window, which is what it carries in half a second, or the first one, doubled
 *      once before the queue is noticed; and a group, which is never divided,
 *   3. the room: where the window is full, an acknowledgement makes some, within a round trip,
 *      queues included; and of each other origin that writes much a slice may come first, a quarter
 *      of the window, and a group,
 *   4. a heartbeat, where patches that u relays may be ahead of their origin's own word at v: they
 *      fill the window until that is there,
 *   5. the grace, where v is linked to the origin, and that is not u: four heartbeats, and one
 *      until the origin's own word is there, or counts no more.
 *
 * Rows of those who write much count on ways that carry three times as much as all of them write.
 * Beside all that, no line has a queue that is much longer than 2. */
#include "sim_fair.h"

#include <stdio.h>
#include <string.h>

enum {
  MAX_PEERS_OF_FAIR = 8,
  MAX_PROBES = 64,
  WARM_UP_MS = 4000,
  WRITING_MS = 20000,
  STEP_MS = 5,
  MOST_OFF_MS = 20000,
  GROUP = 3800, /* bytes of the largest row, with what a frame adds, behind a run of 2 KiB
                   of a clock that is behind (clock.c) */
  FIRST_WINDOW = 32 << 10, /* 16 KiB, doubled once before the queue is noticed */
  QUEUE_MS = 600,          /* half a second, and what a window grows by at once */
  HEARTBEAT_MS = 1000,
  GRACE_MS = 5 * HEARTBEAT_MS,
  FAST = 250,  /* bytes a ms */
  ODD_MS = 100 /* frames of links themselves, and rounding; per link */
};
#define NEVER (INT64_MAX / 4)

enum { QUIET, BURST, STREAM };

static const char DDL[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);"
    "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL,"
    " _peerId INTEGER NOT NULL, id INTEGER, v BLOB);";

typedef struct writer {
  int kind;
  int64_t bytes_left;   /* BURST: of its backlog */
  int64_t bytes_per_ms; /* STREAM */
  int64_t due_ms, n;    /* of its next row, and how many it has written */
} writer;

typedef struct probe {
  int origin; /* the peer's index; its row is the sequence */
  int64_t sequence, written_ms;
  int64_t bound_ms[MAX_PEERS_OF_FAIR]; /* NEVER: no way, or it is there */
  int n_open;
} probe;

typedef struct fair {
  sim *s;
  world_report *report;
  writer writers[MAX_PEERS_OF_FAIR];
  bool unsound[64]; /* edges that do not count, */
  bool mutes[64];   /* and of which a direction brings nothing now and then */
  bool is_off;      /* clocks are */
  int far;          /* whose clock is an hour ahead; -1: nobody's */
  probe probes[MAX_PROBES];
  int n_probes;
} fair;

/* ---- the bound ---- */

static int64_t greater(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static int n_busy(const fair *f) {
  int n = 0;
  for (int i = 0; i < f->s->n_peers; i++) n += f->writers[i].kind != QUIET;
  return n;
}

/* Of what is on the line to a side when a frame is put on it. */
static int64_t queue_ms(const sim_edge *e, int side) {
  int64_t rate = e->bytes_per_ms[side];
  if (!rate) return 0;
  return greater((FIRST_WINDOW + GROUP) / rate, QUEUE_MS + e->quality.delay_max_ms + GROUP / rate);
}

static bool is_direct(const fair *f, int a, int b) {
  for (int i = 0; i < f->s->n_edges; i++) {
    const int *peers = f->s->edges[i].peers;
    if ((peers[0] == a && peers[1] == b) || (peers[0] == b && peers[1] == a)) return true;
  }
  return false;
}

/* What is relayed to `to` may be ahead of the origin's own word there, and fills the window until
 * that comes. */
static bool may_be_early(const fair *f, int from, int to) {
  for (int i = 0; i < f->s->n_peers; i++)
    if (i != from && i != to && f->writers[i].kind != QUIET && is_direct(f, i, to)) return true;
  return false;
}

static int64_t link_ms(const fair *f, const sim_edge *e, int side) {
  int64_t rate = e->bytes_per_ms[side], latency = e->quality.delay_max_ms;
  int64_t round_trip = 2 * latency + queue_ms(e, side) + queue_ms(e, !side);
  int64_t slice = rate ? GROUP / rate : 0;
  int64_t turns = n_busy(f) > 1 ? (n_busy(f) - 1) * (round_trip / 4 + slice) : 0;
  bool is_early = may_be_early(f, e->peers[!side], e->peers[side]);
  return latency + queue_ms(e, side) + round_trip + turns + (is_early ? HEARTBEAT_MS : 0) + ODD_MS;
}

/* All that it writes. */
static bool carries(const fair *f, const sim_edge *e, int side, const writer *w) {
  int64_t rate = e->bytes_per_ms[side];
  return w->kind == QUIET || !rate || rate >= 3 * n_busy(f) * w->bytes_per_ms;
}

/* From one peer to each: the best way, as of Bellman and Ford. */
static void bounds(const fair *f, int origin, int64_t ms[MAX_PEERS_OF_FAIR]) {
  const sim *s = f->s;
  for (int i = 0; i < MAX_PEERS_OF_FAIR; i++) ms[i] = i == origin ? 0 : NEVER;
  for (int round = 0; round < s->n_peers; round++) {
    for (int i = 0; i < 2 * s->n_edges; i++) {
      const sim_edge *e = &s->edges[i / 2];
      int side = i % 2, from = e->peers[!side], to = e->peers[side];
      if (f->unsound[i / 2] || !carries(f, e, side, &f->writers[origin])) continue;
      bool has_grace = from != origin && is_direct(f, origin, to);
      int64_t here = ms[from] + link_ms(f, e, side) + (has_grace ? GRACE_MS : 0);
      if (here < ms[to]) ms[to] = here;
    }
  }
}

/* ---- what is written, and when it is where ---- */

static void write_row(fair *f, sim_peer *p, size_t len) {
  static const char *const COLUMNS[] = {"id", "v"};
  static const uint8_t BYTES[2000];
  writer *w = &f->writers[p->index];
  const replic_value values[] = {v_int(1000 * p->index + w->n % 1000), v_blob(BYTES, len)};
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, 1, values};
  int64_t sequence;
  sim_begin(p);
  CHECK_OK(p->r, replic_write(p->r, &change, 1, &sequence));
  w->n++;
  sim_commit(p);
}

static void ask_for(fair *f, sim_peer *p) {
  if (f->n_probes == MAX_PROBES || p->index == f->far) return;
  probe *one = &f->probes[f->n_probes++];
  *one = (probe){.origin = p->index, .sequence = sim_at(p, p->id), .written_ms = f->s->now_ms};
  bounds(f, p->index, one->bound_ms);
  one->bound_ms[p->index] = NEVER;
  for (int i = 0; i < f->s->n_peers; i++) one->n_open += one->bound_ms[i] < NEVER;
}

static void check_bound(const fair *f, const probe *one, int at) {
  int64_t ms = f->s->now_ms - one->written_ms;
  if (ms > one->bound_ms[at])
    check_failed(__FILE__, __LINE__,
                 "peer %d waits for %u.%lld of peer %d for %lld ms, and a way takes %lld", at,
                 (unsigned)f->s->peers[one->origin]->id, (long long)one->sequence, one->origin,
                 (long long)ms, (long long)one->bound_ms[at]);
}

static void note(fair *f, probe *one, int at) {
  check_bound(f, one, at);
  int64_t percent = 100 * (f->s->now_ms - one->written_ms) / one->bound_ms[at];
  if (percent > f->report->served_most) f->report->served_most = percent;
  one->bound_ms[at] = NEVER;
  one->n_open--;
  f->report->served++;
}

static void on_committed(sim_peer *p, int rc) {
  fair *f = p->sim->mind;
  if (rc != REPLIC_OK) return;
  for (int i = 0; i < f->n_probes; i++) {
    probe *one = &f->probes[i];
    if (one->bound_ms[p->index] < NEVER && sim_at(p, f->s->peers[one->origin]->id) >= one->sequence)
      note(f, one, p->index);
  }
}

static void check_waiting(fair *f) {
  int n = 0;
  for (int i = 0; i < f->n_probes; i++) {
    probe *one = &f->probes[i];
    for (int at = 0; at < f->s->n_peers; at++) check_bound(f, one, at);
    if (one->n_open) f->probes[n++] = *one;
  }
  f->n_probes = n;
}

/* Also where rows come another way. Not more than four times what 2. says: a window that grows
 * while the way back is long grows for longer. */
static void check_queues(const fair *f) {
  for (int i = 0; i < 2 * f->s->n_edges; i++) {
    const sim_edge *e = &f->s->edges[i / 2];
    int64_t ms = e->free_us[i % 2] / 1000 - f->s->now_ms, most = 4 * queue_ms(e, i % 2);
    if (e->bytes_per_ms[i % 2] && ms > most)
      check_failed(__FILE__, __LINE__, "the queue to peer %d is %lld ms long, and %lld are allowed",
                   e->peers[i % 2], (long long)ms, (long long)most);
  }
}

static void on_event(sim_peer *p, const replic_event *event) {
  if (event->kind == REPLIC_EVENT_LINK_CLOSE && event->code != REPLIC_ETIMEOUT)
    check_failed(__FILE__, __LINE__, "peer %d closes a link: %s", p->index, event->text);
  if (event->kind == REPLIC_EVENT_ERROR && event->code != REPLIC_ECLOCKSKEW)
    check_failed(__FILE__, __LINE__, "peer %d reports: %s", p->index, event->text);
}

/* ---- one seed ---- */

static sim_peer *add(fair *f) {
  sim_peer *p = sim_add(f->s);
  if (f->is_off) p->clock_offset_ms = (int64_t)rng_below(&f->s->g, 2 * MOST_OFF_MS) - MOST_OFF_MS;
  CHECK_INT(sim_start(p), REPLIC_OK);
  CHECK_OK(p->r, replic_migrate(p->r, sim_peer_now(p), 1, DDL, ""));
  return p;
}

static int64_t draw_rate(rng *g, bool fast) {
  static const int64_t BYTES_PER_MS[] = {0, FAST, 1000, 8, 16, 32, 64};
  return BYTES_PER_MS[rng_below(g, fast ? 3 : COUNT(BYTES_PER_MS))];
}

static void join(fair *f, int a, int b, bool fast, bool unsound) {
  rng *g = &f->s->g;
  if (a == b || is_direct(f, a, b)) return;
  uint32_t latency = rng_chance(g, 20) ? rng_below(g, 300) : rng_below(g, 30);
  int e = sim_connect(f->s, a, b, (sim_quality){latency, latency + rng_below(g, 20), 0, 0, true});
  int64_t to_a = draw_rate(g, fast);
  sim_set_lines(f->s, e, to_a, draw_rate(g, fast));
  f->unsound[e] = unsound;
  f->mutes[e] = unsound && rng_chance(g, 60);
}

/* A chain, a hub, or any tree; a tree of fast links with bad ones beside; any tree, and more. */
static void draw_links(fair *f) {
  enum { CHAIN, HUB, TREE, BESIDE, CIRCLES };
  rng *g = &f->s->g;
  uint32_t kind = rng_below(g, 5), n = (uint32_t)f->s->n_peers;
  for (int i = 1; i < (int)n; i++)
    join(f,
         kind == CHAIN ? i - 1
         : kind == HUB ? 0
                       : (int)rng_below(g, (uint32_t)i),
         i, kind == BESIDE, false);
  uint32_t more = kind >= BESIDE ? 1 + rng_below(g, 4) : 0;
  for (; more > 0; more--) {
    int a = (int)rng_below(g, n);
    join(f, a, (int)rng_below(g, n), false, kind == BESIDE);
  }
}

static void draw_writers(fair *f) {
  rng *g = &f->s->g;
  for (int n = 1 + (int)rng_below(g, 3); n > 0; n--) {
    writer *w = &f->writers[rng_below(g, (uint32_t)f->s->n_peers)];
    w->kind = rng_chance(g, 50) ? BURST : STREAM;
    w->bytes_left = 20000 + rng_below(g, 150000);
    w->bytes_per_ms = w->kind == STREAM ? 1 + rng_below(g, 30) : NEVER / 1000;
  }
  f->far = rng_chance(g, 50) ? (int)rng_below(g, (uint32_t)f->s->n_peers) : -1;
  if (f->far >= 0) f->s->peers[f->far]->clock_offset_ms = 3600000;
}

static void write_due(fair *f, int i) {
  sim *s = f->s;
  writer *w = &f->writers[i];
  if (s->now_ms < w->due_ms) return;
  size_t len = w->kind == QUIET ? 10 : 300 + rng_below(&s->g, 1300);
  if (w->kind == BURST) {
    if (w->bytes_left <= 0) return;
    w->bytes_left -= (int64_t)len;
  }
  write_row(f, s->peers[i], len);
  if (w->kind == QUIET) w->due_ms = s->now_ms + 2000 + rng_below(&s->g, 4000);
  if (w->kind == STREAM) w->due_ms = s->now_ms + (int64_t)len / w->bytes_per_ms;
  if (w->kind == QUIET || (w->kind == STREAM && w->n % 16 == 0)) ask_for(f, s->peers[i]);
}

static void mute_some(fair *f) {
  sim *s = f->s;
  for (int e = 0; e < s->n_edges; e++) {
    int side = (int)rng_below(&s->g, 2);
    if (!f->mutes[e] || !rng_chance(&s->g, 10)) continue;
    f->report->mutes += !s->edges[e].mute[side];
    sim_mute(s, e, side, !s->edges[e].mute[side]);
  }
}

static void live(fair *f) {
  sim *s = f->s;
  int64_t begins = s->now_ms;
  for (int i = 0; i < s->n_peers; i++)
    f->writers[i].due_ms = begins + (f->writers[i].kind == QUIET ? rng_below(&s->g, 4000) : 0);
  while (s->now_ms < begins + WRITING_MS) {
    for (int i = 0; i < s->n_peers; i++) write_due(f, i);
    if (s->now_ms % 500 < STEP_MS) mute_some(f);
    sim_run_until(s, s->now_ms + STEP_MS);
    check_waiting(f);
    check_queues(f);
  }
  while (f->n_probes > 0) {
    sim_run_until(s, s->now_ms + 50);
    check_waiting(f);
  }
}

static bool is_settled(const sim *s) {
  for (int i = 1; i < s->n_peers; i++)
    for (int k = 0; k < s->n_peers; k++)
      if (sim_at(s->peers[i], s->peers[k]->id) != sim_at(s->peers[0], s->peers[k]->id))
        return false;
  return true;
}

static void check_end(fair *f) {
  sim *s = f->s;
  for (int e = 0; e < s->n_edges; e++) {
    sim_set_lines(s, e, 0, 0);
    sim_mute(s, e, 0, false);
    sim_mute(s, e, 1, false);
  }
  if (f->far >= 0) {
    s->peers[f->far]->clock_offset_ms = 0;
    sim_run_until(s, s->now_ms + 1000);
    s->now_ms += 3600000;
  }
  for (int i = 0; i < 200 && !is_settled(s); i++) sim_run_until(s, s->now_ms + 1000);
  CHECK(is_settled(s));
  char *first = sql_dump(sim_sql(s->peers[0]), "SELECT * FROM t");
  for (int i = 1; i < s->n_peers; i++)
    CHECK_TEXT(sql_dump(sim_sql(s->peers[i]), "SELECT * FROM t"), first);
}

void fair_run(uint64_t seed, bool trace, world_report *report) {
  fair *f = test_alloc(sizeof *f);
  sim *s = f->s = sim_new(seed, false);
  s->mind = f;
  s->trace = trace;
  s->hooks = (sim_hooks){.committed = on_committed, .event = on_event};
  f->report = report;
  f->is_off = rng_chance(&s->g, 30);
  for (int n = 3 + (int)rng_below(&s->g, 4); n > 0; n--) add(f);
  draw_links(f);
  draw_writers(f);
  sim_run_until(s, s->now_ms + WARM_UP_MS);
  live(f);
  check_end(f);
  report->queued += s->frames_queued;
  report->trace_hash = s->trace_hash;
  sim_free(s);
}

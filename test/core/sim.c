/* sim.c - see sim.h */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "memvfs.h"

struct sim_packet {
  sim_packet *next; /* while it waits at a side that is stalled */
  int link, side;   /* to which it goes */
  size_t len;
  uint8_t data[];
};

enum { ARRIVAL, END, TICK, DIAL };

typedef struct sim_event {
  int64_t at;
  uint64_t order; /* events at one time happen in the order of their scheduling */
  int kind;
  int a, b; /* END: link, side; TICK: peer; DIAL: edge */
  uint32_t life;
  sim_packet *packet;
} sim_event;

static const char *const SUFFIXES[] = {"", "-wal", "-replic"};

static void *grow(void *old, size_t size) {
  void *grown = realloc(old, size);
  if (!grown) abort();
  return grown;
}

/* ---- trace ---- */

void sim_trace(sim *s, const char *format, ...) {
  char line[512];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  s->trace_hash = (s->trace_hash ^ (uint64_t)s->now_ms) * 0x100000001b3u;
  for (const char *c = line; *c; c++)
    s->trace_hash = (s->trace_hash ^ (uint8_t)*c) * 0x100000001b3u;
  if (s->trace) printf("#   %lld %s\n", (long long)(s->now_ms - 1700000000000), line);
}

static unsigned hash_bytes(const uint8_t *data, size_t len) {
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < len; i++) hash = (hash ^ data[i]) * 16777619u;
  return hash;
}

static const char *frame_name(const uint8_t *frame, size_t len) {
  static const char *const NAMES[] = {"?",      "HELLO", "PATCHES", "ACK", "NEED",
                                      "SCHEMA", "ERROR", "STAGE",   "JUMP"};
  return len > 1 && frame[1] < COUNT(NAMES) ? NAMES[frame[1]] : "?";
}

/* ---- events ---- */

static bool is_earlier(const sim_event *a, const sim_event *b) {
  return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void schedule(sim *s, int64_t at, sim_event event) {
  if (s->n_events == s->cap_events) {
    s->cap_events = s->cap_events ? 2 * s->cap_events : 256;
    s->events = grow(s->events, s->cap_events * sizeof *s->events);
  }
  event.at = at < s->now_ms ? s->now_ms : at;
  event.order = s->n_scheduled++;
  size_t i = s->n_events++;
  while (i > 0 && is_earlier(&event, &s->events[(i - 1) / 2])) {
    s->events[i] = s->events[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  s->events[i] = event;
}

static sim_event next_event(sim *s) {
  sim_event first = s->events[0], last = s->events[--s->n_events];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= s->n_events) break;
    if (child + 1 < s->n_events && is_earlier(&s->events[child + 1], &s->events[child])) child++;
    if (!is_earlier(&s->events[child], &last)) break;
    s->events[i] = s->events[child];
    i = child;
  }
  s->events[i] = last;
  return first;
}

/* ---- the simulation ---- */

static sim *open_sims; /* one at a time; what a failed check left is freed by the next */

sim *sim_new(uint64_t seed, bool on_disk) {
  if (open_sims) sim_free(open_sims);
  sim *s = grow(NULL, sizeof *s);
  *s = (sim){.g = {seed},
             .quotas = {seed ^ 0x9e3779b97f4a7c15u},
             .lines = {seed ^ 0x2545f4914f6cdd1du},
             .now_ms = 1700000000000, /* November 2023 */
             .on_disk = on_disk,
             .trace_hash = 0xcbf29ce484222325u,
             .next_id = 101};
  open_sims = s;
  if (!on_disk) memvfs_install();
  return s;
}

static void free_waiting(sim_edge *e, int side) {
  while (e->waiting[side]) {
    sim_packet *next = e->waiting[side]->next;
    free(e->waiting[side]);
    e->waiting[side] = next;
  }
  e->waiting_end[side] = &e->waiting[side];
}

void sim_free(sim *s) {
  if (!s) s = open_sims;
  if (!s) return;
  for (int i = 0; i < s->n_peers; i++) {
    sqlite3_close(s->peers[i]->reader);
    replic_close(s->peers[i]->r);
    free(s->peers[i]->path);
    free(s->peers[i]);
  }
  for (size_t i = 0; i < s->n_events; i++) free(s->events[i].packet);
  for (int i = 0; i < s->n_edges; i++) {
    free_waiting(&s->edges[i], 0);
    free_waiting(&s->edges[i], 1);
  }
  if (!s->on_disk) memvfs_uninstall();
  free(s->events);
  free(s->links);
  free(s->edges);
  free(s->peers);
  free(s);
  open_sims = NULL;
}

/* ---- files ---- */

char *sim_file(const sim_peer *p, const char *suffix) {
  return test_format("%s%s", p->path, suffix);
}

void sim_remove_file(sim *s, const char *path) {
  if (s->on_disk)
    remove(path);
  else
    memvfs_remove(path);
}

void sim_copy_file(sim *s, const char *from, const char *to) {
  if (!s->on_disk) {
    memvfs_copy(from, to);
    return;
  }
  char block[4096];
  size_t n;
  FILE *in = fopen(from, "rb");
  remove(to);
  if (!in) return;
  FILE *out = fopen(to, "wb");
  while (out && (n = fread(block, 1, sizeof block, in)) > 0) fwrite(block, 1, n, out);
  fclose(in);
  CHECK(out && fclose(out) == 0);
}

/* ---- quotas ---- */

void sim_draw_quotas(sim *s) {
  s->has_quotas = rng_chance(&s->quotas, 25);
  s->has_crowds = s->has_quotas && rng_chance(&s->quotas, 30);
}

static void draw_quotas(sim *s, replic_config *config) {
  static const int64_t ORIGINS[] = {0, 1, 3, 6, 12}, PENDING[] = {0, 1, 100, 1000, 10000},
                       STAGED[] = {0, 1, 300, 3000}, RETENTION[] = {0, 2000, 20000};
  config->max_origins = ORIGINS[rng_below(&s->quotas, COUNT(ORIGINS))];
  config->max_pending_bytes = PENDING[rng_below(&s->quotas, COUNT(PENDING))];
  config->max_staged_bytes = STAGED[rng_below(&s->quotas, COUNT(STAGED))];
  config->max_staged_retention_ms = RETENTION[rng_below(&s->quotas, COUNT(RETENTION))];
  if (s->has_crowds) config->max_link_origins = 1 + rng_below(&s->quotas, 6);
}

static void lift_quotas(replic_config *config) {
  config->max_origins = config->max_pending_bytes = config->max_staged_bytes = 1LL << 40;
  config->max_link_origins = 1000;
}

void sim_lift_quotas(sim *s) {
  if (!s->has_quotas) return;
  s->has_quotas = false;
  sim_trace(s, "the quotas are lifted");
  for (int i = 0; i < s->n_peers; i++) {
    lift_quotas(&s->peers[i]->config);
    if (s->peers[i]->r) lift_quotas(&s->peers[i]->r->config);
  }
  for (int e = 0; s->has_crowds && e < s->n_edges; e++)
    if (!s->edges[e].is_removed) sim_close_edge(s, e);
}

/* ---- peers ---- */

sim_peer *sim_add(sim *s) {
  if (s->n_peers == s->cap_peers) {
    s->cap_peers = s->cap_peers ? 2 * s->cap_peers : 16;
    s->peers = grow(s->peers, (size_t)s->cap_peers * sizeof(sim_peer *));
  }
  sim_peer *p = grow(NULL, sizeof *p);
  *p = (sim_peer){.sim = s, .index = s->n_peers, .disk = s->n_peers + 1};
  const char *path =
      s->on_disk ? test_path(test_format("peer%d.db", p->index)) : test_format("/%d/a.db", p->disk);
  p->path = grow(NULL, strlen(path) + 1);
  memcpy(p->path, path, strlen(path) + 1);
  p->config.path = p->path;
  if (s->has_quotas) draw_quotas(s, &p->config);
  s->peers[s->n_peers++] = p;
  return p;
}

int64_t sim_peer_now(const sim_peer *p) {
  return p->sim->now_ms + p->clock_offset_ms;
}

int64_t sim_at(const sim_peer *p, uint32_t origin) {
  size_t n = replic_vector_count(p->r);
  const replic_position *vector = replic_vector(p->r);
  for (size_t i = 0; i < n; i++) {
    if (vector[i].origin == origin) return vector[i].sequence;
  }
  return 0;
}

sqlite3 *sim_sql(sim_peer *p) {
  if (!p->reader)
    CHECK_INT(sqlite3_open_v2(p->path, &p->reader, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
  return p->reader;
}

static int64_t heartbeat(const sim_peer *p) {
  return p->config.heartbeat_ms ? p->config.heartbeat_ms : 1000;
}

static void take_outbox(sim_peer *p);

int sim_start(sim_peer *p) {
  sim *s = p->sim;
  CHECK(!p->r && !p->gone);
  p->config.new_peer_id = s->next_id++; /* drawn anew at every open */
  int rc = replic_open(&p->config, sim_peer_now(p), &p->r);
  if (rc != REPLIC_OK) {
    sim_trace(s, "peer %d cannot start: %s: %s", p->index, replic_code_name(rc),
              p->r ? replic_error_text(p->r) : "");
    replic_close(p->r);
    p->r = NULL;
    return rc;
  }
  p->id = replic_peer_id(p->r);
  if (p->id >= s->next_id) s->next_id = p->id + 1;
  p->life++;
  sim_trace(s, "peer %d starts as %u%s", p->index, (unsigned)p->id,
            replic_is_new_peer(p->r) ? ", a new peer" : "");
  take_outbox(p);
  schedule(s, s->now_ms + rng_below(&s->g, (uint32_t)heartbeat(p)),
           (sim_event){.kind = TICK, .a = p->index, .life = p->life});
  for (int e = 0; e < s->n_edges; e++) {
    const int *peers = s->edges[e].peers;
    if (peers[0] == p->index || peers[1] == p->index) sim_redial(s, e, 100);
  }
  return rc;
}

static int side_of(const sim *s, int link, const sim_peer *p) {
  return s->edges[s->links[link].edge].peers[0] == p->index ? 0 : 1;
}

/* When what was sent to that side has left. */
static int64_t free_ms(const sim *s, const sim_edge *e, int side) {
  int64_t ms = (e->free_us[side] + 999) / 1000;
  return ms > s->now_ms ? ms : s->now_ms;
}

/* The other side hears of it after all frames that were sent before. */
static void tell_end(sim *s, int link, int side) {
  sim_edge *e = &s->edges[s->links[link].edge];
  if (!s->links[link].open[side] || e->cut || e->mute[side]) return;
  int64_t at = free_ms(s, e, side) + e->quality.delay_max_ms;
  if (at < e->last_arrival[side]) at = e->last_arrival[side];
  schedule(s, at, (sim_event){.kind = END, .a = link, .b = side});
}

/* A real file shows no difference between a kill and a power cut: its content is put back to what
 * it was before the close tidied up. */
static void kill_on_disk(sim_peer *p) {
  sim *s = p->sim;
  for (size_t i = 0; i < COUNT(SUFFIXES); i++)
    sim_copy_file(s, sim_file(p, SUFFIXES[i]), sim_file(p, test_format("%s.kept", SUFFIXES[i])));
  replic_close(p->r);
  sqlite3_close(p->reader);
  for (size_t i = 0; i < COUNT(SUFFIXES); i++) {
    char *kept = sim_file(p, test_format("%s.kept", SUFFIXES[i]));
    sim_copy_file(s, kept, sim_file(p, SUFFIXES[i]));
    sim_remove_file(s, kept);
  }
}

void sim_stop(sim_peer *p, int how, bool silent) {
  static const char *const HOW[] = {"closes", "is killed", "loses its power"};
  sim *s = p->sim;
  sim_trace(s, "peer %d %s%s", p->index, HOW[how], silent ? ", silently" : "");
  if (how == SIM_CLOSE) {
    sqlite3_close(p->reader);
    replic_close(p->r);
    if (!s->on_disk) memvfs_thaw(p->disk); /* its disk may have failed in the closing */
  } else if (s->on_disk) {
    kill_on_disk(p);
  } else {
    memvfs_freeze(p->disk);
    sqlite3_close(p->reader);
    replic_close(p->r);
    memvfs_thaw(p->disk);
    if (how == SIM_POWER_CUT) memvfs_cut_power(p->disk, &s->g);
  }
  p->r = NULL;
  p->reader = NULL;
  for (int l = 0; l < s->n_links; l++) {
    if (!s->links[l].open[0] && !s->links[l].open[1]) continue;
    const int *peers = s->edges[s->links[l].edge].peers;
    if (peers[0] != p->index && peers[1] != p->index) continue;
    int side = side_of(s, l, p);
    if (!s->links[l].open[side]) continue;
    s->links[l].open[side] = false;
    if (!silent) tell_end(s, l, !side);
  }
}

/* ---- batches ---- */

static void send(sim_peer *p, uint32_t number, const replic_frame *frame);

static void close_side(sim *s, int link, int side) {
  sim_link *l = &s->links[link];
  if (!l->open[side]) return;
  l->open[side] = false;
  int edge = l->edge;
  sim_peer *p = s->peers[s->edges[edge].peers[side]];
  sim_trace(s, "link %d ends at peer %d", link + 1, p->index);
  tell_end(s, link, !side);
  sim_begin(p);
  replic_link_close(p->r, (uint32_t)link + 1);
  sim_commit(p);
  sim_redial(s, edge, 2000);
}

static void take_outbox(sim_peer *p) {
  sim *s = p->sim;
  replic_outbox outbox;
  uint32_t life = p->life;
  replic_take_outbox(p->r, &outbox);
  for (size_t i = 0; i < outbox.n_events; i++) {
    const replic_event *event = &outbox.events[i];
    if (event->text && event->kind != REPLIC_EVENT_TRACE)
      sim_trace(s, "peer %d says %d, link %u: %s", p->index, event->kind, (unsigned)event->link,
                event->text);
    if (s->hooks.event) s->hooks.event(p, event);
  }
  for (size_t i = 0; i < outbox.n_sends; i++) send(p, outbox.sends[i].link, outbox.sends[i].frame);
  for (size_t i = 0; i < outbox.n_events; i++) {
    const replic_event *event = &outbox.events[i];
    if (event->kind == REPLIC_EVENT_LINK_CLOSE && p->r && p->life == life)
      close_side(s, (int)event->link - 1, side_of(s, (int)event->link - 1, p));
  }
  replic_outbox_free(&outbox);
}

void sim_begin(sim_peer *p) {
  if (p->sim->hooks.begins) p->sim->hooks.begins(p);
  CHECK_OK(p->r, replic_begin(p->r, sim_peer_now(p)));
}

static bool has_failed(const sim_peer *p) {
  return !p->sim->on_disk && memvfs_has_failed(p->disk);
}

/* The end of a batch. Where its disk failed, that was one change and the disk is good again, or it
 * is gone for good, and the process with it. */
static void end_batch(sim_peer *p) {
  sim *s = p->sim;
  bool is_dead = has_failed(p) && memvfs_is_frozen(p->disk);
  if (has_failed(p)) memvfs_arm(p->disk, 0, false);
  if (!is_dead) {
    take_outbox(p);
    return;
  }
  sim_stop(p, rng_chance(&s->g, 50) ? SIM_KILL : SIM_POWER_CUT, rng_chance(&s->g, 30));
  if (s->hooks.killed) s->hooks.killed(p);
}

int sim_commit(sim_peer *p) {
  sim *s = p->sim;
  int rc = replic_commit(p->r);
  if (rc != REPLIC_OK) sim_trace(s, "peer %d cannot commit: %s", p->index, replic_code_name(rc));
  if (!has_failed(p)) CHECK_OK(p->r, rc);
  if (s->hooks.committed) s->hooks.committed(p, rc);
  end_batch(p);
  return rc;
}

void sim_rollback(sim_peer *p) {
  replic_rollback(p->r);
  end_batch(p);
}

/* ---- network ---- */

uint64_t sim_read_varint(const uint8_t **at, const uint8_t *end) {
  uint64_t value = 0;
  for (int shift = 0; *at < end && shift < 64; shift += 7) {
    uint8_t byte = *(*at)++;
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return value;
  }
  check_failed(__FILE__, __LINE__, "a frame ends within a number");
}

static int64_t count_patches(const replic_frame *frame) {
  if (frame->data[1] != 2) return 0; /* PATCHES */
  const uint8_t *at = frame->data + 2, *end = frame->data + frame->len;
  sim_read_varint(&at, end); /* origin */
  int64_t after = (int64_t)sim_read_varint(&at, end);
  return (int64_t)sim_read_varint(&at, end) - after;
}

static bool is_swallowed(const sim_edge *e, int side, int type) {
  bool patches = type == 2 || type == 7;                /* PATCHES, STAGE */
  bool heartbeat = type == 1 || type == 3 || type == 8; /* HELLO, ACK, and the offer of a JUMP */
  return e->swallows[side] == SIM_PATCHES ? patches : e->swallows[side] && !heartbeat;
}

/* Puts so many bytes on the line to a side, and returns when they have left. */
static int64_t leave_ms(sim *s, sim_edge *e, int side, size_t len) {
  if (!e->bytes_per_ms[side]) return s->now_ms;
  s->frames_queued += e->free_us[side] > s->now_ms * 1000;
  if (e->free_us[side] < s->now_ms * 1000) e->free_us[side] = s->now_ms * 1000;
  e->free_us[side] += (int64_t)len * 1000 / e->bytes_per_ms[side];
  return free_ms(s, e, side);
}

static void send(sim_peer *p, uint32_t number, const replic_frame *frame) {
  sim *s = p->sim;
  CHECK(number >= 1 && number <= (uint32_t)s->n_links);
  int link = (int)number - 1;
  if (s->hooks.sent) s->hooks.sent(p, number, frame->data, frame->len);
  int side = !side_of(s, link, p);
  sim_edge *e = &s->edges[s->links[link].edge];
  const sim_quality *q = &e->quality;
  s->frames_sent++;
  s->bytes_sent += (int64_t)frame->len;
  s->patches_sent += count_patches(frame);
  int copies = q->duplication && rng_chance(&s->g, q->duplication) ? 2 : 1;
  bool swallowed = is_swallowed(e, side, frame->data[1]);
  bool lost = e->cut || e->mute[side] || swallowed || (q->loss && rng_chance(&s->g, q->loss));
  s->frames_swallowed += swallowed;
  sim_trace(s, "link %u to peer %d: %s, %zu bytes %08x%s", (unsigned)number, e->peers[side],
            frame_name(frame->data, frame->len), frame->len, hash_bytes(frame->data, frame->len),
            lost         ? ", lost"
            : copies > 1 ? ", doubled"
                         : "");
  if (lost) {
    s->frames_lost++;
    return;
  }
  while (copies-- > 0) {
    sim_packet *packet = grow(NULL, sizeof *packet + frame->len);
    *packet = (sim_packet){.link = link, .side = side, .len = frame->len};
    memcpy(packet->data, frame->data, frame->len);
    int64_t at = leave_ms(s, e, side, frame->len) + q->delay_min_ms +
                 rng_below(&s->g, q->delay_max_ms - q->delay_min_ms + 1);
    if (q->ordered && at < e->last_arrival[side]) at = e->last_arrival[side];
    if (q->ordered) e->last_arrival[side] = at;
    schedule(s, at, (sim_event){.kind = ARRIVAL, .packet = packet});
  }
}

static sim_peer *target(const sim *s, const sim_packet *packet) {
  return s->peers[s->edges[s->links[packet->link].edge].peers[packet->side]];
}

static bool is_taken(sim *s, sim_packet *packet) {
  sim_edge *e = &s->edges[s->links[packet->link].edge];
  if (!s->links[packet->link].open[packet->side]) {
    free(packet);
    return false;
  }
  if (!e->stalled[packet->side]) return true;
  packet->next = NULL;
  *e->waiting_end[packet->side] = packet;
  e->waiting_end[packet->side] = &packet->next;
  return false;
}

static void receive(sim *s, sim_peer *p, sim_packet *packet) {
  s->frames_arrived++;
  int rc = replic_receive(p->r, (uint32_t)packet->link + 1, packet->data, packet->len);
  free(packet);
  if (!has_failed(p)) CHECK_OK(p->r, rc);
}

/* What is left of a frame, or of a jump, in batches of their own; or later. */
static void work(sim *s, sim_peer *p) {
  while (p->r && replic_has_work(p->r) &&
         rng_chance(&s->g, replic_has_work(p->r) == REPLIC_WORK_FIRST ? 80 : 10)) {
    sim_begin(p);
    int rc = replic_work(p->r);
    if (!has_failed(p)) CHECK_OK(p->r, rc);
    if (s->hooks.in_batch) s->hooks.in_batch(p);
    sim_commit(p);
  }
}

/* What arrives at one time may be one batch. */
static void arrive(sim *s, sim_packet *packet) {
  if (!is_taken(s, packet)) return;
  sim_peer *p = target(s, packet);
  sim_begin(p);
  receive(s, p, packet);
  while (s->n_events && s->events[0].kind == ARRIVAL && s->events[0].at == s->now_ms &&
         target(s, s->events[0].packet) == p && rng_chance(&s->g, 80)) {
    packet = next_event(s).packet;
    if (is_taken(s, packet)) receive(s, p, packet);
  }
  if (s->hooks.in_batch) s->hooks.in_batch(p);
  sim_commit(p);
  work(s, p);
}

/* A part of a frame has come in: that the transport tells, at each heartbeat. */
static void tell_progress(sim *s, sim_peer *p) {
  for (int i = 0; i < s->n_edges; i++) {
    const sim_edge *e = &s->edges[i];
    int side = e->peers[0] == p->index ? 0 : 1;
    if (e->peers[side] != p->index || e->cut || e->mute[side] || e->stalled[side]) continue;
    if (e->link < 0 || !s->links[e->link].open[side] || e->free_us[side] <= s->now_ms * 1000)
      continue;
    int rc = replic_receive(p->r, (uint32_t)e->link + 1, (const uint8_t *)"", 0);
    if (!has_failed(p)) CHECK_OK(p->r, rc);
  }
}

static void tick_peer(sim *s, const sim_event *event) {
  sim_peer *p = s->peers[event->a];
  if (!p->r || p->life != event->life) return;
  schedule(s, s->now_ms + heartbeat(p), *event);
  sim_begin(p);
  tell_progress(s, p);
  int rc = replic_tick(p->r);
  if (!has_failed(p)) CHECK_OK(p->r, rc);
  if (s->hooks.in_batch) s->hooks.in_batch(p);
  sim_commit(p);
  work(s, p);
}

bool sim_is_linked(const sim *s, int edge) {
  int link = s->edges[edge].link;
  return link >= 0 && s->links[link].open[0] && s->links[link].open[1];
}

static void dial(sim *s, int edge) {
  sim_edge *e = &s->edges[edge];
  e->is_dialing = false;
  sim_peer *a = s->peers[e->peers[0]], *b = s->peers[e->peers[1]];
  if (e->is_removed || e->cut || !a->r || !b->r || sim_is_linked(s, edge)) return;
  if (s->n_links == s->cap_links) {
    s->cap_links = s->cap_links ? 2 * s->cap_links : 32;
    s->links = grow(s->links, (size_t)s->cap_links * sizeof *s->links);
  }
  int link = s->n_links++;
  s->links[link] = (sim_link){.edge = edge, .open = {true, true}};
  e->link = link;
  e->last_arrival[0] = e->last_arrival[1] = e->free_us[0] = e->free_us[1] = 0;
  sim_trace(s, "link %d: peers %d and %d", link + 1, a->index, b->index);
  uint32_t expected[2] = {0, 0};
  if (rng_chance(&s->g, 30)) {
    expected[0] = b->id;
    expected[1] = a->id;
  }
  for (int side = 0; side < 2; side++) {
    sim_peer *p = side ? b : a;
    if (!p->r || !s->links[link].open[side]) continue;
    sim_begin(p);
    CHECK_OK(p->r, replic_link_open(p->r, (uint32_t)link + 1, expected[side], 0));
    sim_commit(p);
  }
}

int sim_connect(sim *s, int a, int b, sim_quality quality) {
  if (s->n_edges == s->cap_edges) {
    int cap = s->cap_edges ? 2 * s->cap_edges : 16;
    sim_edge *more = grow(NULL, (size_t)cap * sizeof *more);
    for (int e = 0; e < s->n_edges; e++) {
      more[e] = s->edges[e];
      for (int side = 0; side < 2; side++)
        if (!more[e].waiting[side]) more[e].waiting_end[side] = &more[e].waiting[side];
    }
    free(s->edges);
    s->edges = more;
    s->cap_edges = cap;
  }
  sim_edge *e = &s->edges[s->n_edges];
  *e = (sim_edge){.peers = {a, b}, .quality = quality, .link = -1};
  e->waiting_end[0] = &e->waiting[0];
  e->waiting_end[1] = &e->waiting[1];
  sim_redial(s, s->n_edges, 10);
  return s->n_edges++;
}

void sim_close_edge(sim *s, int edge) {
  int link = s->edges[edge].link;
  if (link < 0) return;
  sim_trace(s, "edge %d breaks", edge);
  for (int side = 0; side < 2; side++) {
    free_waiting(&s->edges[edge], side);
    close_side(s, link, side);
  }
}

void sim_remove_edge(sim *s, int edge) {
  s->edges[edge].is_removed = true;
  sim_close_edge(s, edge);
}

void sim_cut(sim *s, int edge, bool cut) {
  s->edges[edge].cut = cut;
  if (!cut) sim_redial(s, edge, 500);
}

void sim_stall(sim *s, int edge, int side, bool stalled) {
  sim_edge *e = &s->edges[edge];
  e->stalled[side] = stalled;
  while (!stalled && e->waiting[side]) {
    sim_packet *packet = e->waiting[side];
    e->waiting[side] = packet->next;
    schedule(s, s->now_ms, (sim_event){.kind = ARRIVAL, .packet = packet});
  }
  if (!stalled) e->waiting_end[side] = &e->waiting[side];
}

void sim_mute(sim *s, int edge, int side, bool mute) {
  sim_edge *e = &s->edges[edge];
  if (e->mute[side] == mute) return;
  e->mute[side] = mute;
  sim_trace(s, "edge %d %s peer %d", edge, mute ? "brings nothing to" : "brings again to",
            e->peers[side]);
}

void sim_set_lines(sim *s, int edge, int64_t to_0, int64_t to_1) {
  sim_edge *e = &s->edges[edge];
  e->bytes_per_ms[0] = to_0;
  e->bytes_per_ms[1] = to_1;
  if (!to_0) e->free_us[0] = 0;
  if (!to_1) e->free_us[1] = 0;
  sim_trace(s, "edge %d carries %lld and %lld bytes a ms", edge, (long long)to_0, (long long)to_1);
}

void sim_redial(sim *s, int edge, uint32_t after_ms) {
  if (s->edges[edge].is_dialing) return;
  s->edges[edge].is_dialing = true;
  schedule(s, s->now_ms + 1 + rng_below(&s->g, after_ms), (sim_event){.kind = DIAL, .a = edge});
}

void sim_run_until(sim *s, int64_t until_ms) {
  while (s->n_events && s->events[0].at <= until_ms) {
    sim_event event = next_event(s);
    if (event.at > s->now_ms) s->now_ms = event.at; /* a test may have put the time forward */
    switch (event.kind) {
    case ARRIVAL: arrive(s, event.packet); break;
    case END: close_side(s, event.a, event.b); break;
    case TICK: tick_peer(s, &event); break;
    default: dial(s, event.a); break;
    }
  }
  s->now_ms = until_ms;
}

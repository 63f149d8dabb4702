/* sync.c - links: who lacks what, and the frames that mend it. Everything follows from comparing
 * vectors.
 *
 * What a link knows about its peer is one `position` per origin:
 *
 *        acked ────────── sent ─────────── mine (the vector)
 *          │ it has applied │ on its way     │ still to be sent
 *
 *   acked      what it has reported as applied (HELLO, ACK). Never guessed.
 *   sent       frames up to here are on their way on this link. NEED takes it back.
 *   announced  what it is known to have, or to have seen; more than mine means that I lack it
 *   told       what I have reported to it
 *
 * After a commit, and when an ACK opens the window again, patches are read from the log at `sent`
 * and put on the way. A patch of a third peer is relayed at once to a peer that has no link to its
 * origin, and after a grace to one that has: so a full mesh carries each patch once, and a broken
 * link is still got round.
 *
 * Nothing relies on a frame's arrival. An ACK also says up to where patches were sent to its
 * receiver: on an ordered link that position has then arrived, so whoever has not applied it has
 * lost it, and asks (NEED). If it has, the sender has missed an ACK, and is told again. So one
 * heartbeat repairs either loss, and on a slow link nothing is sent twice.
 *
 * Where the same peer is reached over several links, the oldest one carries the patches and the
 * others stand by. */
#include <string.h>

#include "wire.h"

#define GRACE_HEARTBEATS 3 /* before relaying to a peer that is linked to the origin itself */
#define HELD_HEARTBEATS 5  /* between two attempts at what could not be applied */
#define RING_MAX 256       /* frames kept encoded */
#define FRAME_SLACK                                                                                \
  (2 << 20) /* a group may end beyond max_frame_bytes by a run of earlier patches (clock.c) */
#define CONTROL_MAX (4 << 20) /* bytes of a frame that is not PATCHES */
#define EARLY_MAX 1024        /* frames kept that arrived before their predecessors */
#define SCHEMA_MAX (16 << 20) /* bytes of definitions that one link may send */
#define FIELDS_MAX 32767      /* columns of a table in SQLite */
#define ORIGINS_MAX 16384     /* that one link may speak of */

typedef struct position {
  uint32_t origin;
  int64_t acked, sent, announced, told;
  int64_t unacked;      /* bytes on their way */
  int64_t lag_since_ms; /* since when it has made no progress though it lacks something; 0: it does
                           not */
  int64_t need_ms;      /* when it was last asked for */
  int held;             /* a code: what follows `acked` there cannot be applied here at present */
  int64_t held_after;
} position;

typedef struct remote_table {
  uint32_t id;
  char *name;
  int n_keys, n_fields;
  char **texts;         /* name and type of each field */
  uint32_t generation;  /* of the schema it was last compared with */
  replic__table *table; /* the one of ours that it is; NULL: see `why` */
  int *map;             /* its field -> ours */
  char *why;
} remote_table;

typedef struct link {
  uint32_t id, expected, peer; /* peer: 0 until its HELLO */
  int ready, closing, synced, dirty, ack_due;
  position *at; /* sorted by origin */
  size_t n_at, cap_at;
  uint32_t *direct; /* the peers that it is linked to itself */
  size_t n_direct;
  uint32_t direct_told; /* generation of our own list that it knows */
  uint32_t schema_sent; /* ids below are defined on its side */
  remote_table **tables;
  size_t n_tables;
  int64_t unacked, last_in_ms, skew_ms, held_ms;
  size_t schema_bytes, n_held; /* n_held: positions that are held */
  int64_t bytes_in, bytes_out, frames_in, frames_out;
  char *held;
} link;

typedef struct early {
  uint32_t link, origin;
  int64_t after;
  size_t len;
  uint8_t *bytes;
} early;

typedef struct ring_entry {
  uint32_t origin;
  int64_t after, up_to;
  replic_frame *frame;
} ring_entry;

struct replic__sync {
  link **links; /* in the order of opening */
  size_t n_links;
  early early[EARLY_MAX];
  size_t n_early, early_bytes;
  ring_entry ring[RING_MAX]; /* [ring_from, ring_from + n_ring) modulo RING_MAX */
  size_t ring_from, n_ring, ring_bytes;
  uint32_t generation;        /* of the schema */
  uint32_t direct_generation; /* of the list of linked peers */
  uint32_t hole_origin;
  int64_t hole;         /* the last one reported */
  replic_value *values; /* scratch for one remote patch */
  int cap_values;
};

/* ---- links and positions ---- */

static link *find_link(const replic *r, uint32_t id) {
  for (size_t i = 0; i < r->sync->n_links; i++)
    if (r->sync->links[i]->id == id) return r->sync->links[i];
  return NULL;
}

/* Finds or adds. NULL: out of memory, or more origins than a link may speak of. */
static position *find_position(link *l, uint32_t origin) {
  size_t low = 0, high = l->n_at;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (l->at[middle].origin < origin)
      low = middle + 1;
    else
      high = middle;
  }
  if (low < l->n_at && l->at[low].origin == origin) return &l->at[low];
  if (l->n_at == ORIGINS_MAX) return NULL;
  if (l->n_at == l->cap_at) {
    size_t cap = l->cap_at ? l->cap_at * 2 : 8;
    position *grown = sqlite3_realloc64(l->at, cap * sizeof *grown);
    if (!grown) return NULL;
    l->at = grown;
    l->cap_at = cap;
  }
  memmove(&l->at[low + 1], &l->at[low], (l->n_at - low) * sizeof *l->at);
  l->n_at++;
  l->at[low] = (position){.origin = origin};
  return &l->at[low];
}

static int is_active(const replic *r, const link *l) {
  if (!l->ready || l->closing) return 0;
  for (size_t i = 0; r->sync->links[i] != l; i++)
    if (r->sync->links[i]->ready && !r->sync->links[i]->closing &&
        r->sync->links[i]->peer == l->peer)
      return 0;
  return 1;
}

static int is_direct(const link *l, uint32_t peer) {
  for (size_t i = 0; i < l->n_direct; i++)
    if (l->direct[i] == peer) return 1;
  return 0;
}

static void free_remote_table(remote_table *t) {
  if (!t) return;
  for (int i = 0; t->texts && i < 2 * t->n_fields; i++) sqlite3_free(t->texts[i]);
  sqlite3_free(t->texts);
  sqlite3_free(t->map);
  sqlite3_free(t->why);
  sqlite3_free(t->name);
  sqlite3_free(t);
}

static void free_link(link *l) {
  for (size_t i = 0; i < l->n_tables; i++) free_remote_table(l->tables[i]);
  sqlite3_free(l->tables);
  sqlite3_free(l->at);
  sqlite3_free(l->direct);
  sqlite3_free(l->held);
  sqlite3_free(l);
}

/* ---- sending ---- */

/* Takes over the caller's reference. */
static void send_frame(replic *r, link *l, replic_frame *frame) {
  replic_outbox *box = &r->outbox;
  if (frame && box->n_sends == box->cap_sends) {
    size_t cap = box->cap_sends ? box->cap_sends * 2 : 16;
    replic_send *grown = sqlite3_realloc64(box->sends, cap * sizeof *grown);
    if (grown) {
      box->sends = grown;
      box->cap_sends = cap;
    }
  }
  if (!frame || l->closing ||
      box->n_sends == box->cap_sends) { /* lost: the next heartbeat repairs it */
    replic__frame_release(frame);
    return;
  }
  box->sends[box->n_sends++] = (replic_send){l->id, frame};
  l->frames_out++;
  l->bytes_out += (int64_t)frame->len;
  replic__trace(r, "sent frame %d, %lld bytes, link %u, peer %u", frame->data[1],
                (int64_t)frame->len, l->id, l->peer);
}

static void put_direct(const replic *r, replic__writer *w, uint64_t extra) {
  uint64_t n = 0;
  for (size_t i = 0; i < r->sync->n_links; i++) n += (uint64_t)is_active(r, r->sync->links[i]);
  replic__put_varint(w, n + extra);
  for (size_t i = 0; i < r->sync->n_links; i++)
    if (is_active(r, r->sync->links[i])) replic__put_varint(w, r->sync->links[i]->peer);
}

static void send_hello(replic *r, link *l, int please_answer) {
  replic__writer w;
  replic__put_frame(&w, FRAME_HELLO);
  replic__put_varint(&w, (uint64_t)please_answer);
  replic__put_varint(&w, r->peer_id);
  replic__put_varint(&w, (uint64_t)r->now_ms);
  replic__put_varint(&w, replic_vector_count(r));
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic_position *p = &r->vector[i].committed;
    if (!p->sequence) continue;
    replic__put_varint(&w, p->origin);
    replic__put_varint(&w, (uint64_t)p->sequence);
    replic__put_varint(&w, (uint64_t)p->patched_at);
  }
  put_direct(r, &w, 0);
  send_frame(r, l, replic__finish(&w));
}

/* What it does not know yet of our vector, and up to where we have sent. */
static void send_ack(replic *r, link *l) {
  replic__writer w;
  replic__put_frame(&w, FRAME_ACK);
  replic__put_varint(&w, (uint64_t)r->now_ms);
  uint64_t n = 0, n_sent = 0;
  for (size_t i = 0; i < r->n_vector; i++) {
    const position *at = find_position(l, r->vector[i].committed.origin);
    n += at && r->vector[i].committed.sequence > at->told;
  }
  replic__put_varint(&w, n);
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    position *at = find_position(l, mine->origin);
    if (!at || mine->sequence <= at->told) continue;
    replic__put_varint(&w, mine->origin);
    replic__put_varint(&w, (uint64_t)mine->sequence);
    at->told = mine->sequence;
  }
  for (size_t i = 0; i < l->n_at; i++) n_sent += l->at[i].sent > l->at[i].acked;
  replic__put_varint(&w, n_sent);
  for (size_t i = 0; i < l->n_at; i++) {
    if (l->at[i].sent <= l->at[i].acked) continue;
    replic__put_varint(&w, l->at[i].origin);
    replic__put_varint(&w, (uint64_t)l->at[i].sent);
  }
  if (l->direct_told != r->sync->direct_generation)
    put_direct(r, &w, 1);
  else
    replic__put_varint(&w, 0);
  l->direct_told = r->sync->direct_generation;
  l->ack_due = 0;
  send_frame(r, l, replic__finish(&w));
}

static void send_need(replic *r, link *l, position *at) {
  if (at->need_ms && r->now_ms - at->need_ms < r->config.heartbeat_ms && r->now_ms >= at->need_ms)
    return;
  at->need_ms = r->now_ms;
  replic__writer w;
  replic__put_frame(&w, FRAME_NEED);
  replic__put_varint(&w, at->origin);
  replic__put_varint(&w, (uint64_t)replic__vector_sequence(r, at->origin));
  send_frame(r, l, replic__finish(&w));
}

/* Asks for all that it is known to have and we lack. */
static void send_needs(replic *r, link *l) {
  for (size_t i = 0; i < l->n_at; i++)
    if (l->at[i].announced > replic__vector_sequence(r, l->at[i].origin)) {
      l->at[i].need_ms = 0;
      send_need(r, l, &l->at[i]);
    }
}

static void send_error(replic *r, link *l, int code, const char *text) {
  replic__writer w;
  replic__put_frame(&w, FRAME_ERROR);
  replic__put_text(&w, replic_code_name(code));
  replic__put_text(&w, text);
  send_frame(r, l, replic__finish(&w));
}

static void send_schema(replic *r, link *l) {
  const replic__schema *schema = r->schema;
  for (size_t i = 0; i < schema->n_tables; i++) {
    uint32_t id = schema->base_id + (uint32_t)i;
    if (id < l->schema_sent) continue;
    const replic__table *t = schema->tables[i];
    replic__writer w;
    replic__put_frame(&w, FRAME_SCHEMA);
    replic__put_varint(&w, id);
    replic__put_text(&w, t->name);
    replic__put_varint(&w, (uint64_t)t->n_keys);
    replic__put_varint(&w, (uint64_t)t->n_fields);
    for (int f = 0; f < t->n_fields; f++) {
      replic__put_text(&w, t->fields[f].name);
      replic__put_text(&w, t->fields[f].type);
    }
    send_frame(r, l, replic__finish(&w));
  }
  l->schema_sent = schema->base_id + (uint32_t)schema->n_tables;
}

/* ---- frames of patches: from the ring, or encoded from the log ---- */

typedef struct encoder {
  replic *r;
  replic__writer w;
  int64_t previous, clock;
  int full; /* stopped before a group, because the slice is large enough */
  int hole; /* stopped before a sequence that the log has not */
} encoder;

static int encode_patch(void *ctx, const replic__patch *p) {
  encoder *e = ctx;
  const replic__schema *schema = e->r->schema;
  int begins = p->patched_at != e->clock || !e->clock;
  if (p->sequence != e->previous + 1) {
    e->hole = 1;
    return SQLITE_DONE;
  }
  if (begins && e->clock && e->w.frame && e->w.frame->len >= e->r->config.slice_bytes) {
    e->full = 1;
    return SQLITE_DONE;
  }
  uint32_t i = 0;
  while (schema->tables[i] != p->table) i++;
  replic__put_patch(&e->w, p, schema->base_id + i, e->previous, e->clock, begins);
  e->previous = p->sequence;
  e->clock = p->patched_at;
  return e->w.failed ? SQLITE_NOMEM : REPLIC_OK;
}

/* Rows of the log were deleted by hand. Told once a position, or every flush would say it again. */
static void report_hole(replic *r, uint32_t origin, int64_t sequence) {
  if (r->sync->hole_origin == origin && r->sync->hole == sequence) return;
  r->sync->hole_origin = origin;
  r->sync->hole = sequence;
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = REPLIC_ENOTFOUND},
                "the log has no patch %u.%lld any more: it was deleted with { unsafe: true }, so "
                "peers that lack it cannot get it here",
                origin, sequence);
}

/* The frame's upTo stands before its patches, but is known only after them: it is written last. */
static replic_frame *encode_patches(replic *r, uint32_t origin, int64_t after, int64_t *up_to) {
  encoder e = {.r = r, .previous = after};
  replic__writer head;
  replic__put_frame(&e.w, FRAME_PATCHES);
  int rc = replic__log_read(r, origin, after, *up_to, encode_patch, &e);
  if (rc != REPLIC_OK && rc != SQLITE_DONE) {
    replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = rc},
                  "the log cannot be read: %s", replic_error_text(r));
    e.w.failed = 1;
  }
  if (!e.w.failed && !e.full && e.previous != *up_to) report_hole(r, origin, e.previous + 1);
  *up_to = e.previous;
  if (*up_to == after) e.w.failed = 1;
  replic__put_frame(&head, FRAME_PATCHES);
  replic__put_varint(&head, origin);
  replic__put_varint(&head, (uint64_t)after);
  replic__put_varint(&head, (uint64_t)*up_to);
  replic_frame *body = replic__finish(&e.w);
  if (!body) head.failed = 1;
  if (body) replic__put_bytes(&head, body->data + 2, body->len - 2);
  replic__frame_release(body);
  return replic__finish(&head);
}

static void ring_drop(replic__sync *s) {
  ring_entry *oldest = &s->ring[s->ring_from];
  s->ring_bytes -= oldest->frame->len;
  replic__frame_release(oldest->frame);
  s->ring_from = (s->ring_from + 1) % RING_MAX;
  s->n_ring--;
}

/* The patches of `origin` after `after`, at most up to *up_to, which becomes the frame's own. The
 * caller gets a reference. */
static replic_frame *patches_frame(replic *r, uint32_t origin, int64_t after, int64_t *up_to) {
  replic__sync *s = r->sync;
  for (size_t i = s->n_ring; i-- > 0;) { /* the newest first: live links all ask for that */
    ring_entry *entry = &s->ring[(s->ring_from + i) % RING_MAX];
    if (entry->origin != origin || entry->after != after) continue;
    *up_to = entry->up_to;
    entry->frame->refs++;
    return entry->frame;
  }
  replic_frame *frame = encode_patches(r, origin, after, up_to);
  if (!frame || frame->len > r->config.ring_bytes) return frame;
  while (s->n_ring == RING_MAX || s->ring_bytes + frame->len > r->config.ring_bytes) ring_drop(s);
  s->ring[(s->ring_from + s->n_ring++) % RING_MAX] = (ring_entry){origin, after, *up_to, frame};
  s->ring_bytes += frame->len;
  frame->refs++;
  return frame;
}

/* ---- flushing ---- */

static int may_relay(const replic *r, const link *l, const position *at) {
  if (at->origin == l->peer) return 0;
  if (at->origin == r->peer_id || !is_direct(l, at->origin)) return 1;
  return r->now_ms - at->lag_since_ms >= GRACE_HEARTBEATS * r->config.heartbeat_ms ||
         r->now_ms < at->lag_since_ms;
}

static void flush_origin(replic *r, link *l, const replic_position *mine) {
  position *at = find_position(l, mine->origin);
  if (!at) return;
  if (at->sent < at->acked) at->sent = at->acked;
  if (mine->sequence > at->acked && !at->lag_since_ms) at->lag_since_ms = r->now_ms;
  while (at->sent < mine->sequence && l->unacked < (int64_t)r->config.window_bytes &&
         may_relay(r, l, at)) {
    int64_t up_to = mine->sequence;
    if (l->schema_sent != r->schema->base_id + r->schema->n_tables) send_schema(r, l);
    replic_frame *frame = patches_frame(r, mine->origin, at->sent, &up_to);
    if (!frame) return;
    at->unacked += (int64_t)frame->len;
    l->unacked += (int64_t)frame->len;
    at->sent = up_to;
    send_frame(r, l, frame);
  }
}

/* Both sides have all that the other has, as far as this side knows. */
static int is_synced(const replic *r, link *l) {
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    const position *at = find_position(l, mine->origin);
    if (!at || (mine->origin != l->peer && at->acked < mine->sequence)) return 0;
  }
  for (size_t i = 0; i < l->n_at; i++)
    if (l->at[i].announced > replic__vector_sequence(r, l->at[i].origin)) return 0;
  return 1;
}

void replic__sync_flush(replic *r) {
  for (size_t k = 0; k < r->sync->n_links; k++) {
    link *l = r->sync->links[k];
    if (!l->ready || l->closing) continue;
    if (is_active(r, l))
      for (size_t i = 0; i < r->n_vector; i++) {
        const replic_position *mine = &r->vector[i].committed;
        if (mine->sequence) flush_origin(r, l, mine);
      }
    if (l->ack_due) send_ack(r, l);
    int synced = is_synced(r, l);
    if (synced && !l->synced)
      replic__event(r, (replic_event){.kind = REPLIC_EVENT_SYNCED, .link = l->id, .peer = l->peer},
                    NULL);
    l->synced = synced;
  }
}

/* ---- receiving: refusals ---- */

/* What cannot be applied now is asked for again later; both sides are told once. */
static void hold(replic *r, link *l, position *at, int code, int64_t after, const char *text) {
  l->held_ms = r->now_ms;
  if (at->held == code && at->held_after == after) return;
  l->n_held += !at->held;
  at->held = code;
  at->held_after = after;
  send_error(r, l, code, text);
  replic__event(
      r,
      (replic_event){.kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = code},
      "%s", text);
  sqlite3_free(l->held);
  l->held = sqlite3_mprintf("%s", text);
}

static void release(link *l, position *at) {
  if (!at->held) return;
  at->held = 0;
  if (--l->n_held > 0) return;
  sqlite3_free(l->held);
  l->held = NULL;
}

static void refuse(replic *r, link *l, int code, const char *text) {
  send_error(r, l, code, text);
  replic__event(
      r,
      (replic_event){.kind = REPLIC_EVENT_LINK_CLOSE, .link = l->id, .peer = l->peer, .code = code},
      "%s", text);
  l->closing = 1;
  r->sync->direct_generation++;
}

static int malformed(replic *r, const link *l, const char *frame) {
  return replic__fail(r, REPLIC_EPROTOCOL, "peer %u sent a malformed %s frame", l->peer, frame);
}

/* ---- receiving: HELLO, ACK, NEED, SCHEMA, ERROR ---- */

static int get_direct(replic__reader *in, link *l, size_t n) {
  uint32_t *direct = sqlite3_malloc64((n + 1) * sizeof *direct);
  if (!direct) return SQLITE_NOMEM;
  for (size_t i = 0; i < n; i++) direct[i] = replic__get_peer(in);
  sqlite3_free(l->direct);
  l->direct = direct;
  l->n_direct = n;
  return REPLIC_OK;
}

static int forked(replic *r, const link *l, uint32_t origin, int64_t sequence, const char *how) {
  return replic__fail(
      r, REPLIC_EFORK,
      "peers %u and %u have different histories of peer %u at sequence %lld (%s): "
      "a file was copied together with "
      "its -replic file. Keep one of the two copies, and start the other peer from an empty file",
      r->peer_id, l->peer, origin, sequence, how);
}

/* One history per peerId: nobody knows more of mine than I do, and one (origin, sequence) has one
 * clock. */
static int check_fork(replic *r, const link *l, const replic_position *theirs) {
  int64_t mine = replic__vector_sequence(r, theirs->origin), patched_at = 0;
  if (theirs->sequence > mine)
    return theirs->origin == r->peer_id
               ? forked(r, l, theirs->origin, mine + 1, "it holds more than was issued here")
               : REPLIC_OK;
  if (theirs->sequence == mine)
    patched_at = replic__vector_entry(r, theirs->origin)->now.patched_at;
  else if (theirs->sequence > 0) {
    int rc = replic__log_clock(r, theirs->origin, theirs->sequence, &patched_at);
    if (rc != REPLIC_OK) return rc;
  }
  return patched_at && patched_at != theirs->patched_at
             ? forked(r, l, theirs->origin, theirs->sequence, "the clocks differ")
             : REPLIC_OK;
}

static void learn(replic *r, link *l, position *at, int64_t applied) {
  if (applied > at->announced) at->announced = applied;
  if (applied <= at->acked) return;
  int64_t unacked =
      applied >= at->sent ? 0 : at->unacked / (at->sent - at->acked) * (at->sent - applied);
  l->unacked -= at->unacked - unacked;
  at->unacked = unacked;
  at->acked = applied;
  at->lag_since_ms = applied < replic__vector_sequence(r, at->origin) ? r->now_ms : 0;
}

/* Origins come in ascending order: so a list of them is read in linear time. */
static uint32_t get_next_origin(replic__reader *in, uint32_t *last) {
  uint32_t origin = replic__get_peer(in);
  if (origin <= *last) in->failed = 1;
  return *last = origin;
}

static int on_hello(replic *r, link *l, replic__reader *in) {
  uint64_t flags = replic__get_varint(in, 1);
  uint32_t peer = replic__get_peer(in);
  int64_t wall = replic__get_clock(in);
  size_t n = replic__get_count(in, 3);
  if (in->failed) return malformed(r, l, "HELLO");
  if (peer == r->peer_id)
    return replic__fail(r, REPLIC_EPEER,
                        "the other side has this peer's own peerId %u: every peer needs its own",
                        peer);
  if ((l->expected && peer != l->expected) || (l->peer && peer != l->peer))
    return replic__fail(r, REPLIC_EPEER, "peer %u was expected, and peer %u answered",
                        l->peer ? l->peer : l->expected, peer);
  l->peer = peer;
  for (uint32_t last = 0; n > 0; n--) {
    replic_position theirs = {get_next_origin(in, &last), replic__get_sequence(in),
                              replic__get_clock(in)};
    if (in->failed) return malformed(r, l, "HELLO");
    int rc = check_fork(r, l, &theirs);
    if (rc != REPLIC_OK) return rc;
    position *at = find_position(l, theirs.origin);
    if (!at) return SQLITE_NOMEM;
    learn(r, l, at, theirs.sequence);
  }
  int rc = get_direct(in, l, replic__get_count(in, 1));
  if (rc != REPLIC_OK || in->failed || in->at != in->end) return rc ? rc : malformed(r, l, "HELLO");
  l->skew_ms = wall - r->now_ms;
  if (flags) send_hello(r, l, 0);
  if (l->ready) return REPLIC_OK;
  l->ready = 1;
  r->sync->direct_generation++;
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_LINK_READY, .link = l->id, .peer = peer},
                NULL);
  return REPLIC_OK;
}

static int on_ack(replic *r, link *l, replic__reader *in) {
  l->skew_ms = replic__get_clock(in) - r->now_ms;
  for (int section = 0; section < 2; section++) {
    uint32_t last = 0;
    for (size_t n = replic__get_count(in, 2); n > 0; n--) {
      uint32_t origin = get_next_origin(in, &last);
      int64_t sequence = replic__get_sequence(in), mine = replic__vector_sequence(r, origin);
      position *at = in->failed ? NULL : find_position(l, origin);
      if (!at) return in->failed ? malformed(r, l, "ACK") : SQLITE_NOMEM;
      if (origin == r->peer_id && sequence > mine)
        return forked(r, l, origin, sequence, "it holds more than was issued here");
      if (section == 0) {
        learn(r, l, at, sequence);
      } else if (sequence > mine) {
        if (sequence > at->announced) at->announced = sequence;
        if (!at->held) send_need(r, l, at);
      } else {
        at->told = 0;
        l->ack_due = 1;
      }
    }
  }
  size_t n = replic__get_count(in, 1);
  if (!in->failed && n > (size_t)(in->end - in->at) + 1) in->failed = 1;
  int rc = n && !in->failed ? get_direct(in, l, n - 1) : REPLIC_OK;
  return rc != REPLIC_OK                   ? rc
         : in->failed || in->at != in->end ? malformed(r, l, "ACK")
                                           : REPLIC_OK;
}

static int on_need(replic *r, link *l, replic__reader *in) {
  uint32_t origin = replic__get_peer(in);
  int64_t after = replic__get_sequence(in);
  if (in->failed || in->at != in->end) return malformed(r, l, "NEED");
  if (after >= replic__vector_sequence(r, origin)) return REPLIC_OK; /* someone else has to help */
  position *at = find_position(l, origin);
  if (!at) return SQLITE_NOMEM;
  if (at->sent > after) r->counters.retransmissions += at->sent - after;
  l->unacked -= at->unacked;
  at->unacked = 0;
  at->sent = at->acked = after;
  l->schema_sent = 0;   /* it may have missed a definition */
  at->lag_since_ms = 1; /* asked for: no grace */
  return REPLIC_OK;
}

static remote_table *find_remote_table(const link *l, uint32_t id) {
  for (size_t i = 0; i < l->n_tables; i++)
    if (l->tables[i]->id == id) return l->tables[i];
  return NULL;
}

/* NULL: out of memory, or a NUL in it, which is a failure of the reader. */
static char *copy_text(replic__reader *in) {
  size_t len;
  const char *text = replic__get_text(in, &len);
  if (!memchr(text, 0, len)) return sqlite3_mprintf("%.*s", (int)len, text);
  in->failed = 1;
  return NULL;
}

/* NULL: malformed (in->failed), or out of memory. */
static remote_table *read_schema(replic__reader *in) {
  remote_table *t = sqlite3_malloc64(sizeof *t);
  if (!t) return NULL;
  *t = (remote_table){.id = (uint32_t)replic__get_varint(in, UINT32_MAX)};
  t->name = copy_text(in);
  t->n_keys = (int)replic__get_varint(in, FIELDS_MAX);
  int n_fields = (int)replic__get_varint(in, FIELDS_MAX);
  if (!t->n_keys || n_fields < t->n_keys || n_fields > in->end - in->at) in->failed = 1;
  if (t->name && !in->failed) t->texts = sqlite3_malloc64(2 * (size_t)n_fields * sizeof *t->texts);
  int complete = t->texts != NULL;
  for (int i = 0; t->texts && i < 2 * n_fields; i++) {
    t->texts[i] = copy_text(in);
    complete &= t->texts[i] != NULL;
    t->n_fields += i % 2;
  }
  if (complete && in->at != in->end) in->failed = 1;
  if (complete && !in->failed) return t;
  free_remote_table(t);
  return NULL;
}

static int on_schema(replic *r, link *l, replic__reader *in) {
  size_t len = (size_t)(in->end - in->at);
  remote_table *t = read_schema(in);
  if (!t) return in->failed ? malformed(r, l, "SCHEMA") : SQLITE_NOMEM;
  remote_table *known = find_remote_table(l, t->id);
  if (known) { /* sent again */
    remote_table swap = *known;
    *known = *t;
    *t = swap;
    free_remote_table(t);
    return REPLIC_OK;
  }
  l->schema_bytes += sizeof *t + len + 64 * (size_t)t->n_fields;
  remote_table **grown = sqlite3_realloc64(l->tables, (l->n_tables + 1) * sizeof(remote_table *));
  if (grown) l->tables = grown;
  if (!grown || l->schema_bytes > SCHEMA_MAX) {
    free_remote_table(t);
    return grown ? malformed(r, l, "SCHEMA (too many tables)") : SQLITE_NOMEM;
  }
  l->tables[l->n_tables++] = t;
  return REPLIC_OK;
}

static int error_by_name(const char *name) {
  for (int code = REPLIC_ERROR_BASE + 1; code <= REPLIC_EVERSION; code++)
    if (!strcmp(name, replic_code_name(code))) return code;
  return REPLIC_EPROTOCOL;
}

static int on_error(replic *r, link *l, replic__reader *in) {
  char *name = copy_text(in), *text = copy_text(in);
  int complete = name && text && !in->failed;
  if (complete) {
    int code = error_by_name(name), stays = code == REPLIC_ECLOCKSKEW || code == REPLIC_ESCHEMA;
    replic__event(r,
                  (replic_event){.kind = stays ? REPLIC_EVENT_LINK_ERROR : REPLIC_EVENT_LINK_CLOSE,
                                 .link = l->id,
                                 .peer = l->peer,
                                 .code = code},
                  "the other side reports: %s", text);
    if (!stays) l->closing = 1;
    r->sync->direct_generation += !stays;
  }
  sqlite3_free(name);
  sqlite3_free(text);
  return complete ? REPLIC_OK : in->failed ? malformed(r, l, "ERROR") : SQLITE_NOMEM;
}

/* ---- receiving: PATCHES ---- */

/* Fills t->map, or t->why. 1: the definition is that of `ours`. */
static int resolve_fields(remote_table *t, const replic__table *ours) {
  for (int i = 0; i < t->n_fields; i++) {
    const char *name = t->texts[2 * i], *type = t->texts[2 * i + 1];
    int f = 0;
    while (f < ours->n_fields && sqlite3_stricmp(ours->fields[f].name, name) != 0) f++;
    if (f == ours->n_fields)
      t->why = sqlite3_mprintf("table %s has no column %s here: migrate this peer", t->name, name);
    else if (sqlite3_stricmp(ours->fields[f].type, type) != 0)
      t->why = sqlite3_mprintf(
          "column %s of table %s is \"%s\" there and \"%s\" here: migrate one of the two", name,
          t->name, type, ours->fields[f].type);
    else if (i < t->n_keys ? f != i : f < ours->n_keys)
      t->why =
          sqlite3_mprintf("table %s has another primary key here: migrate one of the two", t->name);
    if (t->why) return 0;
    t->map[i] = f;
  }
  if (t->n_keys == ours->n_keys) return 1;
  t->why =
      sqlite3_mprintf("table %s has another primary key here: migrate one of the two", t->name);
  return 0;
}

/* Which of our tables the definition is; `why` not, compared anew after each change of our schema.
 */
static int resolve(replic *r, remote_table *t) {
  replic__sync *s = r->sync;
  if (t->generation == s->generation) return REPLIC_OK;
  sqlite3_free(t->why);
  sqlite3_free(t->map);
  t->why = NULL;
  t->table = NULL;
  t->map = sqlite3_malloc64((size_t)t->n_fields * sizeof *t->map);
  if (!t->map) return SQLITE_NOMEM;
  replic__table *ours = replic__schema_find(r->schema, t->name);
  if (!ours)
    t->why = sqlite3_mprintf("table %s is not replicated here: migrate this peer", t->name);
  else if (resolve_fields(t, ours) && !t->why)
    t->table = ours;
  if (!t->table && !t->why) return SQLITE_NOMEM;
  t->generation = s->generation;
  return REPLIC_OK;
}

static int reserve_values(replic__sync *s, int n) {
  if (n <= s->cap_values) return REPLIC_OK;
  replic_value *grown = sqlite3_realloc64(s->values, (size_t)n * sizeof *grown);
  if (!grown) return SQLITE_NOMEM;
  s->values = grown;
  s->cap_values = n;
  return REPLIC_OK;
}

typedef struct verdict {
  int64_t up_to; /* can be applied */
  int code;      /* why not the rest; REPLIC_OK: all of it */
  char *text;    /* owned */
  int undefined; /* a table id that was never defined: the definition is lost or late */
} verdict;

static void stop_at(verdict *v, int64_t up_to, int code, char *text) {
  if (v->code != REPLIC_OK) {
    sqlite3_free(text);
    return;
  }
  v->up_to = up_to;
  v->code = code;
  v->text = text;
}

/* Reads the whole frame before anything is applied: is it well formed, and up to where can it be
 * applied? */
static int examine(replic *r, link *l, replic__patches p, verdict *v) {
  int64_t known = replic__vector_sequence(r, p.origin), whole = p.after,
          limit = r->now_ms + r->config.max_clock_skew_ms;
  *v = (verdict){.up_to = p.up_to};
  for (int64_t last = p.after; replic__next_patch(&p); last = p.sequence) {
    if (p.begins_group) whole = last;
    remote_table *t = find_remote_table(l, p.table_id);
    if (!t) {
      v->undefined = 1;
      return REPLIC_OK;
    }
    int rc = reserve_values(r->sync, t->n_fields);
    if (rc == REPLIC_OK) rc = resolve(r, t);
    if (rc != REPLIC_OK) return rc;
    replic__get_fields(&p, t->n_keys, t->n_fields, r->sync->values);
    if (p.sequence <= known) continue;
    if (p.clock > limit)
      stop_at(v, whole, REPLIC_ECLOCKSKEW,
              sqlite3_mprintf("patch %u.%lld is stamped %lld, and the clock of peer %u says %lld: "
                              "that is more than maxClockSkewMs "
                              "(%lld) ahead. Correct the clock that is wrong",
                              p.origin, p.sequence, p.clock, r->peer_id, r->now_ms,
                              r->config.max_clock_skew_ms));
    if (!t->table)
      stop_at(v, whole, REPLIC_ESCHEMA,
              sqlite3_mprintf("patch %u.%lld waits at peer %u: %s", p.origin, p.sequence,
                              r->peer_id, t->why));
  }
  return p.in.failed ? malformed(r, l, "PATCHES") : REPLIC_OK;
}

/* Applies what is new up to `up_to`, in one savepoint. `*whole`: the end of the last group before a
 * failure. */
static int apply(replic *r, link *l, replic__patches p, int64_t up_to, int64_t *whole) {
  replic__savepoint save;
  int rc = replic__savepoint_open(r, p.origin, &save);
  if (rc != REPLIC_OK) return rc;
  rc = replic__merge_mode(r, 1);
  int64_t known = save.position.sequence, patched_at = save.position.patched_at, last = p.after,
          applied = 0;
  while (rc == REPLIC_OK && replic__next_patch(&p) && p.sequence <= up_to) {
    if (p.begins_group) *whole = last;
    last = p.sequence;
    remote_table *t = find_remote_table(l, p.table_id);
    replic__get_fields(&p, t->n_keys, t->n_fields, r->sync->values);
    if (p.sequence <= known) continue;
    replic_value *values = t->table->values;
    for (int i = 0; i < t->table->n_fields; i++) values[i].type = REPLIC_UNSET;
    for (int i = 0; i < t->n_fields; i++) values[t->map[i]] = r->sync->values[i];
    replic__patch patch = {t->table, p.origin, p.sequence, p.clock, values};
    rc = replic__merge(r, &patch, 0);
    replic__clock_seen(&r->clock, p.clock);
    patched_at = p.clock;
    applied++;
  }
  replic__entry *entry = replic__vector_entry(r, p.origin);
  if (rc == REPLIC_OK) {
    entry->now.sequence = up_to;
    entry->now.patched_at = patched_at;
    r->counters.patches_applied += applied;
  }
  return replic__savepoint_end(r, &save, rc);
}

/* A failure that lies in the patch, and not in this machine's disk or memory. */
static int lies_in_data(int rc) {
  return rc < 0 || (rc & 0xff) == SQLITE_CONSTRAINT || (rc & 0xff) == SQLITE_MISMATCH ||
         (rc & 0xff) == SQLITE_TOOBIG;
}

static void keep_early(replic *r, link *l, const replic__patches *p, const uint8_t *bytes,
                       size_t len) {
  replic__sync *s = r->sync;
  for (size_t i = 0; i < s->n_early; i++)
    if (s->early[i].origin == p->origin && s->early[i].after == p->after) return;
  int fits = s->n_early < EARLY_MAX && s->early_bytes + len <= r->config.early_bytes;
  uint8_t *copy = fits ? sqlite3_malloc64(len) : NULL;
  if (!copy) {
    r->counters.frames_dropped_early++;
    return;
  }
  memcpy(copy, bytes, len);
  s->early[s->n_early++] = (early){l->id, p->origin, p->after, len, copy};
  s->early_bytes += len;
  r->counters.frames_early++;
}

static void drop_early(replic__sync *s, size_t i) {
  s->early_bytes -= s->early[i].len;
  sqlite3_free(s->early[i].bytes);
  s->early[i] = s->early[--s->n_early];
}

static int on_patches(replic *r, link *l, const uint8_t *bytes, size_t len) {
  replic__reader in = {bytes + 2, bytes + len, 0};
  replic__patches p;
  verdict v;
  if (!replic__get_patches(&in, &p)) return malformed(r, l, "PATCHES");
  int64_t known = replic__vector_sequence(r, p.origin);
  position *at = find_position(l, p.origin);
  if (!at) return SQLITE_NOMEM;
  if (p.origin == r->peer_id)
    return p.up_to > known ? forked(r, l, p.origin, p.up_to, "it holds more than was issued here")
                           : REPLIC_OK;
  learn(r, l, at, p.up_to); /* it sends only what it has applied */
  if (p.up_to > known) l->synced = 0;
  l->ack_due = 1;
  if (p.after > known) {
    if (!at->held) send_need(r, l, at);
    keep_early(r, l, &p, bytes, len);
    return REPLIC_OK;
  }
  int rc = examine(r, l, p, &v);
  if (rc == REPLIC_OK && v.undefined) {
    r->counters.frames_dropped_early++;
    send_need(r, l, at);
    v.up_to = known;
    v.code = REPLIC_OK;
  }
  while (rc == REPLIC_OK && v.up_to > known) {
    int64_t whole = p.after;
    rc = apply(r, l, p, v.up_to, &whole);
    if (rc == REPLIC_OK || !lies_in_data(rc)) break;
    stop_at(&v, whole, REPLIC_ESCHEMA,
            sqlite3_mprintf("a patch of %u after %lld cannot be applied at peer %u: %s", p.origin,
                            whole, r->peer_id, replic_error_text(r)));
    v.up_to = whole;
    rc = REPLIC_OK;
  }
  if (rc == REPLIC_OK && v.code != REPLIC_OK) {
    hold(r, l, at, v.code, v.up_to, v.text ? v.text : "");
  } else if (rc == REPLIC_OK && v.up_to > known) {
    release(l, at);
    replic__trace(r, "applied %u.%lld, link %u", p.origin, v.up_to, l->id);
  }
  sqlite3_free(v.text);
  return rc;
}

/* What a frame's failure means: the peer is refused, or the frame is lost and asked for at the next
 * heartbeat. */
static void conclude(replic *r, link *l, int rc) {
  if (rc < 0)
    refuse(r, l, rc, replic_error_text(r));
  else if (rc != REPLIC_OK)
    replic__event(
        r, (replic_event){.kind = REPLIC_EVENT_ERROR, .link = l->id, .peer = l->peer, .code = rc},
        "a received frame was dropped: %s", replic_error_text(r));
}

/* Frames that waited for what was just applied. */
static void apply_early(replic *r) {
  replic__sync *s = r->sync;
  for (size_t i = 0; i < s->n_early;) {
    early e = s->early[i];
    link *l = find_link(r, e.link);
    if (e.after > replic__vector_sequence(r, e.origin)) {
      i++;
      continue;
    }
    s->early_bytes -= e.len;
    s->early[i] = s->early[--s->n_early];
    if (l && !l->closing) conclude(r, l, on_patches(r, l, e.bytes, e.len));
    sqlite3_free(e.bytes);
    i = 0;
  }
}

/* ---- the caller's side ---- */

static int dispatch(replic *r, link *l, const uint8_t *bytes, size_t len) {
  if (len < 2) return malformed(r, l, "empty");
  replic__reader in = {bytes + 2, bytes + len, 0};
  if (len > (bytes[1] == FRAME_PATCHES ? r->config.max_frame_bytes + FRAME_SLACK : CONTROL_MAX))
    return replic__fail(
        r, REPLIC_ETOOLARGE,
        "peer %u sent a frame of %lld bytes: raise maxFrameBytes here, or lower it there", l->peer,
        (int64_t)len);
  if (bytes[0] != REPLIC_PROTOCOL_VERSION)
    return bytes[1] == FRAME_HELLO ? replic__fail(r, REPLIC_EVERSION,
                                                  "the other side speaks version %d of the "
                                                  "protocol, this one %d: update the older one",
                                                  bytes[0], REPLIC_PROTOCOL_VERSION)
                                   : malformed(r, l, "unknown");
  if (bytes[1] == FRAME_HELLO) return on_hello(r, l, &in);
  if (bytes[1] == FRAME_ERROR) return on_error(r, l, &in);
  if (!l->ready) { /* overtook its HELLO */
    if (bytes[1] < FRAME_HELLO || bytes[1] > FRAME_ERROR) return malformed(r, l, "unknown");
    return REPLIC_OK;
  }
  switch (bytes[1]) {
  case FRAME_PATCHES: return on_patches(r, l, bytes, len);
  case FRAME_ACK: return on_ack(r, l, &in);
  case FRAME_NEED: return on_need(r, l, &in);
  case FRAME_SCHEMA: return on_schema(r, l, &in);
  default: return malformed(r, l, "unknown");
  }
}

int replic_receive(replic *r, uint32_t id, const uint8_t *bytes, size_t len) {
  link *l = find_link(r, id);
  if (!l || l->closing) return REPLIC_OK;
  l->last_in_ms = r->now_ms;
  l->frames_in++;
  l->bytes_in += (int64_t)len;
  replic__trace(r, "received frame %d, %lld bytes, link %u, peer %u", len > 1 ? bytes[1] : 0,
                (int64_t)len, id, l->peer);
  conclude(r, l, dispatch(r, l, bytes, len));
  apply_early(r);
  return REPLIC_OK;
}

int replic_link_open(replic *r, uint32_t id, uint32_t expected_peer) {
  replic__sync *s = r->sync;
  if (find_link(r, id)) return replic__fail(r, REPLIC_EUSAGE, "link %u is open already", id);
  link **grown = sqlite3_realloc64(s->links, (s->n_links + 1) * sizeof *grown);
  if (!grown) return SQLITE_NOMEM;
  s->links = grown;
  link *l = sqlite3_malloc64(sizeof *l);
  if (!l) return SQLITE_NOMEM;
  *l = (link){.id = id, .expected = expected_peer, .last_in_ms = r->now_ms};
  s->links[s->n_links++] = l;
  send_hello(r, l, 0);
  return REPLIC_OK;
}

void replic_link_close(replic *r, uint32_t id) {
  replic__sync *s = r->sync;
  link *l = find_link(r, id);
  if (!l) return;
  size_t i = 0;
  while (s->links[i] != l) i++;
  memmove(&s->links[i], &s->links[i + 1], (s->n_links - i - 1) * sizeof *s->links);
  s->n_links--;
  for (size_t k = s->n_early; k-- > 0;)
    if (s->early[k].link == id) drop_early(s, k);
  s->direct_generation++;
  free_link(l);
}

int replic_tick(replic *r) {
  replic__sync *s = r->sync;
  for (size_t i = 0; i < s->n_links; i++) {
    link *l = s->links[i];
    if (l->closing) continue;
    if (r->now_ms < l->last_in_ms) l->last_in_ms = r->now_ms; /* the wall clock was set back */
    if (r->now_ms - l->last_in_ms > r->config.link_timeout_ms) {
      char *text = sqlite3_mprintf("peer %u was silent for more than linkTimeoutMs (%lld)", l->peer,
                                   r->config.link_timeout_ms);
      refuse(r, l, REPLIC_ETIMEOUT, text ? text : "silent");
      sqlite3_free(text);
    } else if (!l->ready) {
      send_hello(r, l, 1);
    } else {
      for (size_t p = 0; l->n_held && p < l->n_at; p++) /* another link may have brought it */
        if (replic__vector_sequence(r, l->at[p].origin) > l->at[p].held_after)
          release(l, &l->at[p]);
      if (l->n_held && r->now_ms - l->held_ms >= HELD_HEARTBEATS * r->config.heartbeat_ms) {
        l->held_ms = r->now_ms;
        send_needs(r, l);
      }
      l->ack_due = 1;
    }
  }
  return REPLIC_OK;
}

int replic__sync_open(replic *r) {
  r->sync = sqlite3_malloc64(sizeof *r->sync);
  if (!r->sync) return SQLITE_NOMEM;
  memset(r->sync, 0, sizeof *r->sync);
  r->sync->generation = 1;
  return REPLIC_OK;
}

void replic__sync_close(replic *r) {
  replic__sync *s = r->sync;
  if (!s) return;
  for (size_t i = 0; i < s->n_links; i++) free_link(s->links[i]);
  while (s->n_early) drop_early(s, 0);
  while (s->n_ring) ring_drop(s);
  sqlite3_free(s->links);
  sqlite3_free(s->values);
  sqlite3_free(s);
  r->sync = NULL;
}

void replic__sync_schema_changed(replic *r) {
  replic__sync *s = r->sync;
  s->generation++;
  while (s->n_ring) ring_drop(s); /* they speak of the old table ids */
  for (size_t i = 0; i < s->n_links; i++)
    if (s->links[i]->ready && s->links[i]->n_held) send_needs(r, s->links[i]);
}

size_t replic_link_count(const replic *r) {
  return r->sync->n_links;
}

int replic_link_at(const replic *r, size_t index, replic_link_info *info) {
  if (index >= r->sync->n_links) return 0;
  link *l = r->sync->links[index];
  *info = (replic_link_info){.link = l->id,
                             .peer = l->peer,
                             .state = !l->ready         ? REPLIC_LINK_OPENING
                                      : is_active(r, l) ? REPLIC_LINK_READY
                                                        : REPLIC_LINK_STANDBY,
                             .unacked_bytes = l->unacked,
                             .skew_ms = l->skew_ms,
                             .bytes_in = l->bytes_in,
                             .bytes_out = l->bytes_out,
                             .frames_in = l->frames_in,
                             .frames_out = l->frames_out,
                             .held = l->held};
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    const position *at = find_position(l, mine->origin);
    if (at && mine->origin != l->peer && mine->sequence > at->acked)
      info->lag += mine->sequence - at->acked;
  }
  for (size_t i = 0; i < l->n_at; i++) {
    int64_t mine = replic__vector_sequence(r, l->at[i].origin);
    if (l->at[i].announced > mine) info->behind += l->at[i].announced - mine;
  }
  return 1;
}

void replic_take_outbox(replic *r, replic_outbox *out) {
  *out = r->outbox;
  r->outbox = (replic_outbox){0};
}

void replic_outbox_free(replic_outbox *out) {
  for (size_t i = 0; i < out->n_sends; i++) replic__frame_release(out->sends[i].frame);
  for (size_t i = 0; i < out->n_events; i++) sqlite3_free(out->events[i].text);
  sqlite3_free(out->sends);
  sqlite3_free(out->events);
  *out = (replic_outbox){0};
}

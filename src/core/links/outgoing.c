/* outgoing.c - patches from the log to the links: frames are read and encoded once and shared by
 * all links that stand at the same place; what the window does not take stays in the log. */
#include <string.h>

#include "links/links.h"

#define ONE_MORE 65536 /* bytes: a slice ends behind the group that fills it */

/* ---- frames of patches: from the ring, or encoded from the log ---- */

typedef struct encoder {
  replic *r;
  uint32_t origin;
  replic__writer w;
  int64_t after, after_clock; /* of the patch before the frame's first; 0 where it is pruned */
  int64_t previous, clock, n, slice; /* slice: the bytes that are enough */
  int full;                          /* stopped before a group, because the slice is large enough */
  int has_holes;                     /* STAGE: sequences may be missing */
  int64_t hole_ends; /* stopped before a hole in the log, whose last sequence is this */
  size_t n_foreign, foreign_bytes; /* that were there when it began */
  uint32_t after_epoch;
  replic__writer epochs; /* that begin after `after` */
  int64_t epoch_from;
  uint64_t n_epochs;
} encoder;

static int encode_epoch(void *ctx, int64_t from, uint32_t epoch) {
  encoder *e = ctx;
  if (from <= e->after) {
    e->after_epoch = epoch;
    return REPLIC_OK;
  }
  replic__put_varint(&e->epochs, (uint64_t)(from - e->epoch_from));
  replic__put_varint(&e->epochs, epoch);
  e->epoch_from = from;
  e->n_epochs++;
  return REPLIC_OK;
}

static int encode_patch(void *ctx, const replic__patch *p) {
  encoder *e = ctx;
  replic__schema *schema = e->r->schema;
  if (p->sequence == e->after) {
    e->after_clock = e->clock = p->patched_at;
    return REPLIC_OK;
  }
  int begins = p->patched_at != e->clock || !e->n;
  if (p->sequence != e->previous + 1 && !e->has_holes) {
    e->hole_ends = p->sequence - 1;
    return SQLITE_DONE;
  }
  int is_lot =
      replic__is_a_lot(schema->n_foreign - e->n_foreign, schema->foreign_bytes - e->foreign_bytes);
  if (begins && e->n && e->w.frame && (is_lot || (int64_t)e->w.frame->len >= e->slice)) {
    e->full = 1;
    return SQLITE_DONE;
  }
  if (p->raw) {
    uint32_t id = replic__foreign_id(schema, p->raw);
    replic__put_raw_patch(&e->w, p, id, e->previous, e->clock, begins);
    if (!id) e->w.failed = 1;
  } else {
    replic__put_patch(&e->w, p, schema->base_id + p->table->index, e->previous, e->clock, begins);
  }
  e->previous = p->sequence;
  e->clock = p->patched_at;
  e->n++;
  return e->w.failed ? SQLITE_NOMEM : REPLIC_OK;
}

/* Rows of the log were deleted by hand: that counts as pruned, so peers that lack them jump. */
static void note_hole(replic *r, uint32_t origin, int64_t from, int64_t up_to) {
  replic__entry *entry = replic__vector_entry(r, origin);
  if (!entry || up_to <= entry->pruned.floor) return;
  entry->pruned.floor = up_to; /* on disk with the next heartbeat */
  r->vector_changes++;
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = REPLIC_ENOTFOUND},
                "the log has no patches %u.%lld to %lld any more: they were deleted with { unsafe: "
                "true }, so peers that lack them will not get what they set",
                origin, from, up_to);
}

static int put_epochs(replic__writer *head, encoder *e, int64_t up_to) {
  e->epoch_from = e->after;
  int rc = replic__epochs_read(e->r, e->origin, e->after, up_to, encode_epoch, e);
  replic_frame *list = replic__finish(&e->epochs);
  replic__put_varint(head, e->after_epoch);
  replic__put_varint(head, e->n_epochs);
  if (list) replic__put_bytes(head, list->data, list->len);
  if (e->epochs.failed) rc = SQLITE_NOMEM;
  replic__frame_release(list);
  return rc;
}

/* The frame's upTo stands before its patches, but is known only after them: it is written last.
 * NULL: there is nothing to send, or it cannot be read. */
static replic_frame *encode(replic *r, int type, uint32_t origin, int64_t after, int64_t slice,
                            int64_t *up_to) {
  replic__begin_lot(r);
  encoder e = {.r = r,
               .origin = origin,
               .n_foreign = r->schema->n_foreign,
               .foreign_bytes = r->schema->foreign_bytes,
               .slice = slice,
               .after = after,
               .previous = after,
               .has_holes = type == FRAME_STAGE};
  replic__writer head;
  replic__put_frame(&e.w, type);
  int rc = replic__epochs_end(r, origin, after, EPOCHS_MAX, up_to);
  if (rc == REPLIC_OK)
    rc = replic__log_read(r, origin, after ? after - 1 : 0, *up_to, encode_patch, &e);
  if (rc != REPLIC_OK && rc != SQLITE_DONE) {
    replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = rc},
                  "the log cannot be read: %s", replic_error_text(r));
    e.w.failed = 1;
  }
  if (rc == REPLIC_OK && !e.has_holes && e.previous != *up_to) e.hole_ends = *up_to;
  if (e.hole_ends) note_hole(r, origin, e.previous + 1, e.hole_ends);
  if (!e.has_holes || e.full) *up_to = e.previous;
  if (*up_to == after) e.w.failed = 1;
  replic__put_frame(&head, type);
  if (e.has_holes) replic__put_varint(&head, (uint64_t)replic__age(r));
  replic__put_varint(&head, origin);
  replic__put_varint(&head, (uint64_t)after);
  replic__put_varint(&head, (uint64_t)*up_to);
  replic__put_varint(&head, (uint64_t)e.after_clock);
  if (put_epochs(&head, &e, *up_to) != REPLIC_OK) head.failed = 1;
  if (e.has_holes) replic__put_varint(&head, (uint64_t)e.n);
  replic_frame *body = replic__finish(&e.w);
  if (!body) head.failed = 1;
  if (body) replic__put_bytes(&head, body->data + FRAME_HEAD, body->len - FRAME_HEAD);
  replic__frame_release(body);
  return replic__finish_frame(&head);
}

/* The patches of `origin` after `after`, about `slice` bytes, at most up to *up_to, which becomes
 * the frame's own. The caller gets a reference. */
static replic_frame *patches_frame(replic *r, uint32_t origin, int64_t after, int64_t slice,
                                   int64_t *up_to) {
  replic__sync *s = r->sync;
  for (size_t i = s->n_ring; i-- > 0;) { /* the newest first: live links all ask for that */
    ring_entry *entry = &s->ring[(s->ring_from + i) % RING_MAX];
    if (entry->origin != origin || entry->after != after) continue;
    if ((int64_t)entry->frame->len > slice + slice / 4 + ONE_MORE) continue; /* for a faster link */
    *up_to = entry->up_to;
    entry->frame->refs++;
    return entry->frame;
  }
  int64_t wanted = *up_to;
  replic_frame *frame = encode(r, FRAME_PATCHES, origin, after, slice, up_to);
  if (!frame || frame->len > r->config.ring_bytes) return frame;
  if (*up_to < wanted && slice < (int64_t)r->config.slice_bytes)
    return frame; /* cut for this link */
  while (s->n_ring == RING_MAX || s->ring_bytes + frame->len > r->config.ring_bytes)
    replic__ring_drop(s);
  s->ring[(s->ring_from + s->n_ring++) % RING_MAX] = (ring_entry){origin, after, *up_to, frame};
  s->ring_bytes += frame->len;
  frame->refs++;
  return frame;
}

/* ---- flushing ---- */

/* `ms` may lie ahead of a clock that was set back. */
static int is_grace_over(const replic *r, int64_t ms) {
  return r->now_ms - ms >= GRACE_HEARTBEATS * r->config.heartbeat_ms || r->now_ms < ms;
}

static void mark(const replic *r, replic__entry *entry) {
  replic__mark *marks = entry->marks;
  int64_t since_ms = r->now_ms - marks->ms;
  if (entry->committed.sequence <= marks->sequence ||
      (since_ms >= 0 && since_ms < r->config.heartbeat_ms))
    return;
  memmove(marks + 1, marks, (REPLIC__MARKS - 1) * sizeof *marks);
  *marks = (replic__mark){entry->committed.sequence, r->now_ms};
}

/* Whether the oldest patch that it lacks has been here for longer than the grace: progress with
 * others does not count, or a link that is slower than what is written would never be helped. */
static int lacks_what_is_old(const replic *r, const replic__entry *entry, const position *at) {
  for (int i = 0; i < REPLIC__MARKS; i++)
    if (is_grace_over(r, entry->marks[i].ms)) return at->acked < entry->marks[i].sequence;
  return 0;
}

/* Of a backlog, which takes its time on a sound link as well, any progress counts. */
static int may_relay(const replic *r, const link *l, const replic__entry *entry,
                     const position *at) {
  if (at->origin == r->peer_id || !replic__link_direct(l, at->origin) || at->must_relay) return 1;
  return at->acked < at->backlog ? is_grace_over(r, at->lag_since_ms)
                                 : lacks_what_is_old(r, entry, at);
}

/* STAGE may have fewer than sequences. */
static int64_t count_patches(const replic_frame *frame, int64_t after, int64_t up_to) {
  replic__reader in = {frame->data + FRAME_HEAD, frame->data + frame->len - FRAME_SUM, 0};
  replic__patches p;
  if (frame->data[1] != FRAME_STAGE || !replic__get_patches(&in, FRAME_STAGE, &p))
    return up_to - after;
  return (int64_t)p.left;
}

/* What is on its way is counted anew from where the cursor now stands. */
static void set_cursor(link *l, position *at, int staging) {
  l->unacked -= at->unacked;
  at->unacked = 0;
  at->staging = staging;
  at->sent = at->acked;
}

/* Whether there is something to send, and from where. */
static int is_due(replic *r, link *l, replic__entry *entry, position *at) {
  const replic_position *mine = &entry->committed;
  mark(r, entry);
  if (at->origin == l->peer) return 0; /* it has these, and acknowledges none of them */
  if (at->backlog < 0) at->backlog = mine->sequence;
  if (mine->sequence > at->acked && !at->lag_since_ms) at->lag_since_ms = r->now_ms;
  if (at->acked >= mine->sequence || !(l->taking || may_relay(r, l, entry, at))) return 0;
  int below = at->acked < entry->pruned.floor;
  l->below |= below;
  l->is_behind |= below;
  if (below != at->staging) set_cursor(l, at, below);
  if (below ? !l->taking : at->stopped && !at->probe) return 0;
  int64_t from = below && at->staged > at->acked ? at->staged : at->acked;
  if (at->sent < from) at->sent = from;
  return at->sent < mine->sequence;
}

/* Of what the other side holds, to see whether it still does: it is no part of the window. */
static int send_probe(replic *r, link *l, const replic__due *due) {
  position *at = due->at;
  int64_t up_to = due->entry->committed.sequence;
  at->probe = 0;
  replic_frame *frame = encode(r, FRAME_PATCHES, at->origin, at->sent, 1, &up_to);
  if (!frame) return 0;
  if (l->schema_sent != replic__ids_end(r->schema)) replic__send_schema(r, l);
  replic__pace_sent(r, l, frame);
  replic__send(r, l, frame);
  return 0;
}

/* The next frame of an origin. 0: it cannot be read, or there is no more. */
static int send_next(replic *r, link *l, const replic__due *due) {
  position *at = due->at;
  int64_t up_to = due->entry->committed.sequence, slice = replic__slice(r, l);
  int stopped = at->stopped && !at->staging;
  if (at->sent >= up_to || (stopped && !at->probe)) return 0;
  if (stopped) return send_probe(r, l, due);
  replic_frame *frame = at->staging ? encode(r, FRAME_STAGE, at->origin, at->sent, slice, &up_to)
                                    : patches_frame(r, at->origin, at->sent, slice, &up_to);
  if (!frame) return 0;
  if (l->schema_sent != replic__ids_end(r->schema)) replic__send_schema(r, l);
  l->jump_due |= at->staging;
  at->unacked += (int64_t)frame->len;
  l->unacked += (int64_t)frame->len;
  if (at->origin != r->peer_id)
    r->counters.patches_relayed += count_patches(frame, at->sent, up_to);
  at->sent = up_to;
  replic__pace_sent(r, l, frame);
  replic__send(r, l, frame);
  return 1;
}

/* The origins of which there is something to send: r->sync->due. */
static void find_due(replic *r, link *l) {
  replic__sync *s = r->sync;
  size_t p = 0;
  s->n_due = 0;
  for (size_t i = 0; i < r->n_vector; i++) {
    replic__entry *entry = &r->vector[i];
    if (!entry->committed.sequence) continue;
    position *at = replic__next_position(l, entry->now.origin, &p);
    if (!at) replic__no_position(r, l, entry->now.origin);
    if (!at || !is_due(r, l, entry, at)) continue;
    if (s->n_due == s->cap_due) {
      size_t cap = s->cap_due ? 2 * s->cap_due : 16;
      replic__due *grown = sqlite3_realloc64(s->due, cap * sizeof *grown);
      l->is_behind |= !grown;
      if (!grown) break;
      s->due = grown;
      s->cap_due = cap;
    }
    s->due[s->n_due++] = (replic__due){entry, NULL};
  }
  for (size_t i = 0; i < s->n_due; i++) /* none is added to the link any more */
    s->due[i].at = replic__position(l, s->due[i].entry->now.origin);
}

/* By turns, a frame of each: so what is little is not behind what is much. */
void replic__flush_origins(replic *r, link *l) {
  replic__sync *s = r->sync;
  find_due(r, l);
  size_t first = 0, idle = 0, n = s->n_due;
  while (first < n && s->due[first].at->origin < l->turn) first++;
  for (size_t k = first; idle < n && replic__has_room(r, l); k++) {
    const replic__due *due = &s->due[k % n];
    idle = send_next(r, l, due) ? 0 : idle + 1;
    l->turn = due->at->origin + 1;
  }
  for (size_t i = 0; i < n; i++) {
    const position *at = s->due[i].at;
    if (at->sent >= s->due[i].entry->committed.sequence || (at->stopped && !at->staging)) continue;
    l->is_behind = 1;
    replic__pace_full(l);
  }
}

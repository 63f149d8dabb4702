/* outgoing.c - patches from the log to the links: frames are read and encoded once and shared by
 * all links that stand at the same place; what the window does not take stays in the log. */
#include <string.h>

#include "links/links.h"

#define ONE_MORE 65536      /* bytes: a slice ends behind the group that fills it */
#define CALM_POSITIONS 1000 /* that a flush looks at: some ten microseconds */

/* Ids below are those of our tables, and of tables as others have them. */
static uint32_t ids_end(const replic__schema *schema) {
  return schema->base_id + (uint32_t)(schema->n_tables + schema->n_foreign);
}

static void send_definition(replic *r, link *l, uint32_t id) {
  const replic__schema *schema = r->schema;
  size_t i = id - schema->base_id;
  replic__writer w;
  replic__put_frame(&w, FRAME_SCHEMA);
  if (i < schema->n_tables) {
    replic__put_own_definition(&w, id, schema->tables[i]);
    replic__put_rules(&w, schema->tables[i]);
  } else {
    const replic__foreign *foreign = &schema->foreign[i - schema->n_tables];
    replic__put_varint(&w, id);
    replic__put_bytes(&w, foreign->bytes + 1, foreign->len - 1); /* without its id, 0 */
  }
  replic__send(r, l, replic__finish_frame(&w));
}

static void send_schema(replic *r, link *l) {
  uint32_t id = l->schema_sent > r->schema->base_id ? l->schema_sent : r->schema->base_id;
  l->schema_sent = ids_end(r->schema);
  for (; id < l->schema_sent; id++) send_definition(r, l, id);
}

/* Where it is in `foreign_by`, or belongs. */
static size_t find_foreign(const replic__schema *schema, const replic__raw *raw, int *found) {
  size_t low = 0, high = schema->n_foreign;
  *found = 0;
  while (low < high) {
    size_t middle = low + (high - low) / 2, len = raw->definition_len;
    const replic__foreign *one = &schema->foreign[schema->foreign_by[middle]];
    int order =
        one->len != len ? (one->len < len ? -1 : 1) : memcmp(one->bytes, raw->definition, len);
    *found |= !order;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static int reserve_foreign(replic__schema *schema) {
  if (schema->n_foreign < schema->cap_foreign) return 1;
  size_t cap = schema->cap_foreign ? 2 * schema->cap_foreign : 16;
  replic__foreign *grown = sqlite3_realloc64(schema->foreign, cap * sizeof *grown);
  if (grown) schema->foreign = grown;
  uint32_t *by = grown ? sqlite3_realloc64(schema->foreign_by, cap * sizeof *by) : NULL;
  if (!by) return 0;
  schema->foreign_by = by;
  schema->cap_foreign = cap;
  return 1;
}

/* As its receiver counts it. */
static size_t bytes_there(const replic__raw *raw) {
  replic__reader in = {raw->definition, raw->definition + raw->definition_len, 0};
  size_t len;
  replic__get_varint(&in, UINT32_MAX);
  replic__get_text(&in, &len);
  replic__get_varint(&in, FIELDS_MAX);
  return DEFINITION_BYTES(raw->definition_len, replic__get_varint(&in, FIELDS_MAX));
}

/* A link keeps so much of definitions and forgets what was defined first. So there are never more
 * than half of that in use: before a frame all are given up that are more than a lot, and frames
 * end when they bring another lot. What is used again is defined again, under a new id. */
#define LOT_TABLES (TABLES_MAX / 4)
#define LOT_BYTES (SCHEMA_MAX / 4)

static int is_a_lot(size_t n, size_t bytes) {
  return n > LOT_TABLES || bytes > LOT_BYTES;
}

static void begin_lot(replic *r) {
  replic__schema *schema = r->schema;
  if (!is_a_lot(schema->n_foreign, schema->foreign_bytes)) return;
  schema->base_id = ids_end(schema);
  replic__foreign_free(schema);
  while (r->sync->n_ring) replic__ring_drop(r->sync); /* they speak of the former ids */
  replic__stir(r);
}

/* The id of a table as another peer has it; 0: out of memory. */
static uint32_t foreign_id(replic__schema *schema, const replic__raw *raw) {
  int found;
  size_t at = find_foreign(schema, raw, &found);
  uint32_t first = schema->base_id + (uint32_t)schema->n_tables;
  if (found) return first + schema->foreign_by[at];
  if (!reserve_foreign(schema)) return 0;
  uint8_t *copy = sqlite3_malloc64(raw->definition_len);
  if (!copy) return 0;
  memcpy(copy, raw->definition, raw->definition_len);
  uint32_t i = (uint32_t)schema->n_foreign;
  memmove(&schema->foreign_by[at + 1], &schema->foreign_by[at],
          (i - at) * sizeof *schema->foreign_by);
  schema->foreign_by[at] = i;
  schema->foreign[schema->n_foreign++] = (replic__foreign){copy, raw->definition_len};
  schema->foreign_bytes += bytes_there(raw);
  return first + i;
}

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
  int is_lot = is_a_lot(schema->n_foreign - e->n_foreign, schema->foreign_bytes - e->foreign_bytes);
  if (begins && e->n && e->w.frame && (is_lot || (int64_t)e->w.frame->len >= e->slice)) {
    e->full = 1;
    return SQLITE_DONE;
  }
  if (p->raw) {
    uint32_t id = foreign_id(schema, p->raw);
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
  begin_lot(r);
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

void replic__ring_drop(replic__sync *s) {
  ring_entry *oldest = &s->ring[s->ring_from];
  s->ring_bytes -= oldest->frame->len;
  replic__frame_release(oldest->frame);
  s->ring_from = (s->ring_from + 1) % RING_MAX;
  s->n_ring--;
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

position *replic__next_position(link *l, uint32_t origin, size_t *at) {
  while (*at < l->n_at && l->at[*at].origin < origin) ++*at;
  return *at < l->n_at && l->at[*at].origin == origin ? &l->at[*at] : replic__position(l, origin);
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
  if (l->schema_sent != ids_end(r->schema)) send_schema(r, l);
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
  if (l->schema_sent != ids_end(r->schema)) send_schema(r, l);
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
static void flush_origins(replic *r, link *l) {
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

/* Both sides have all that the other has, and takes, as far as this side knows. */
static int is_synced(const replic *r, link *l) {
  size_t p = 0;
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    const position *at = replic__next_position(l, mine->origin, &p);
    if (!at || (mine->origin != l->peer && !l->muted && at->acked < mine->sequence)) return 0;
  }
  for (size_t i = 0, v = 0; !l->reader && i < l->n_at; i++) {
    while (v < r->n_vector && r->vector[v].now.origin < l->at[i].origin) v++;
    int is_mine = v < r->n_vector && r->vector[v].now.origin == l->at[i].origin;
    if (l->at[i].announced > (is_mine ? r->vector[v].now.sequence : 0)) return 0;
  }
  return 1;
}

int replic_is_calm(const replic *r) {
  const replic__sync *s = r->sync;
  return !s->is_behind && !s->n_early && !s->rest.link && !s->jump &&
         s->n_links * r->n_vector <= CALM_POSITIONS;
}

/* What a link has to do follows from the vector and from what it has received; in between, time
 * matters to the heartbeat. So what one link receives is no work for the others. */
static int is_still(const replic *r, const link *l) {
  return !l->stirred && l->seen_changes == r->vector_changes && !l->ack_due && !l->take_due &&
         (l->muted || l->schema_sent == ids_end(r->schema));
}

static void flush_link(replic *r, link *l) {
  l->below = l->is_behind = l->stirred = 0;
  l->seen_changes = r->vector_changes;
  if (l->void_hellos == VOID_HELLOS) replic__tell_void(r, l); /* the others with the heartbeats */
  if (!l->muted && l->schema_sent != ids_end(r->schema)) send_schema(r, l);
  if (!l->muted && replic__link_active(r, l)) flush_origins(r, l);
  replic__flush_jump(r, l);
  if (l->ack_due) replic__send_ack(r, l);
  int synced = is_synced(r, l);
  if (synced && !l->synced)
    replic__event(r, (replic_event){.kind = REPLIC_EVENT_SYNCED, .link = l->id, .peer = l->peer},
                  NULL);
  l->synced = synced;
}

/* Before others hold what is stamped so: they can say then who it was. */
static void tell_leader(replic *r) {
  replic__sync *s = r->sync;
  uint32_t leader = replic__clock_leader(r);
  if (!leader || leader == s->leader_told) return;
  s->leader_told = leader;
  for (size_t k = 0; k < s->n_links; k++) s->links[k]->ack_due = 1;
}

void replic__sync_flush(replic *r) {
  r->sync->is_behind = 0;
  replic__jump_settle(r);
  tell_leader(r);
  if (r->sync->dropped_changed) replic__fork_load(r);
  for (size_t k = 0; k < r->sync->n_links; k++) {
    link *l = r->sync->links[k];
    if (!l->ready || l->closing || l->fork_text) continue;
    if (!is_still(r, l)) flush_link(r, l);
    r->sync->is_behind |= l->is_behind;
  }
}

/* incoming.c - patches from the links to the log: whether a frame can be applied, and up to where;
 * frames that came before their predecessors. */
#include <string.h>

#include "links/links.h"

static void stop_at(replic__verdict *v, int64_t up_to, int code, char *text) {
  if (v->code != REPLIC_OK) {
    sqlite3_free(text);
    return;
  }
  v->up_to = up_to;
  v->code = code;
  v->text = text;
}

/* ---- a frame, in parts ----
 *
 * A frame may have very many patches, and local writes wait for the batch that it is in. So it is
 * taken in in parts, each as large as s->units allow: first it is read to its end, then applied,
 * and what is left of it is s->rest until the caller calls replic_work, or replic_receive. */

/* Counts a patch as its writer does (data/write.c), so that no group is refused that one could
 * write.
 */
static int exceeds_group(const replic *r, replic__rest *t, const remote_table *m) {
  if (t->p.begins_group) t->group_bytes = 0;
  t->group_bytes += 24 + m->n_fields / 8;
  for (int i = 0; i < m->n_fields; i++)
    if (r->values[i].type != REPLIC_UNSET) t->group_bytes += 11 + (int64_t)r->values[i].len;
  return t->group_bytes > (int64_t)r->config.max_frame_bytes + FRAME_SLACK;
}

static int fail_group(replic *r, const link *l) {
  return replic__fail(r, REPLIC_ETOOLARGE,
                      "peer %u sent a group of more than maxFrameBytes (%lld): raise that here, or "
                      "lower it there",
                      l->peer, (int64_t)r->config.max_frame_bytes);
}

/* Reads the whole frame before anything is applied: is it well formed, and up to where can it be
 * applied? *done: it is read to its end. */
static int examine(replic *r, link *l, replic__rest *t, int *done) {
  replic__patches *p = &t->p;
  replic__verdict *v = &t->verdict;
  int64_t known = replic__vector_sequence(r, p->origin),
          limit = r->now_ms + r->config.max_clock_skew_ms,
          believed = replic__believed(r, l, p->origin);
  int64_t last_clock = known ? replic__vector_entry(r, p->origin)->now.patched_at : 0;
  for (*done = 0; !*done && r->sync->units > 0;) {
    int64_t last = p->sequence;
    *done = !replic__next_patch(p);
    if (*done) break;
    if (p->begins_group) t->whole = last;
    remote_table *m = replic__table_by_id(&l->tables, p->table_id);
    if (!m) {
      v->undefined = *done = 1;
      return REPLIC_OK;
    }
    int rc = replic__reserve_values(r, m->n_fields);
    if (rc == REPLIC_OK) rc = replic__resolve(r, m);
    if (rc != REPLIC_OK) return rc;
    r->sync->units -= replic__units_of_reading(m);
    replic__get_fields(&p->in, m->n_keys, m->n_fields, r->values);
    if (exceeds_group(r, t, m)) return fail_group(r, l);
    if (replic__brings_dropped(r, p)) return replic__forked(r, l, p->origin, p->sequence, GIVEN_UP);
    if (p->sequence == known && last_clock && p->clock != last_clock)
      return replic__forked(r, l, p->origin, known, ISSUED_TWICE);
    if (p->sequence <= known || v->doubted) continue;
    if (p->sequence > believed) {
      v->doubted = 1;
      if (v->code == REPLIC_OK) v->up_to = t->whole;
    } else if (p->clock > limit) {
      if (v->code == REPLIC_OK) v->until_ms = p->clock - r->config.max_clock_skew_ms;
      stop_at(v, t->whole, REPLIC_ECLOCKSKEW,
              replic__skew_text(r, l, p->origin, p->sequence, p->clock));
    }
  }
  return p->in.failed ? replic__malformed(r, l, "PATCHES") : REPLIC_OK;
}

static int is_lost(replic *r) {
  return replic__fail(r, REPLIC_ENOTFOUND, "a part of it was undone, or what it speaks of");
}

/* Merges what is new up to `*up_to`, whole groups, as much as the units allow: *up_to is then how
 * far it has come, and t->p stands there. */
static int merge_part(replic *r, link *l, replic__rest *t, int64_t known, int64_t *up_to,
                      int64_t *patched_at) {
  replic__patches *p = &t->p, before;
  int64_t last = p->sequence, applied = 0, duplicates = r->counters.patches_duplicate;
  int rc = REPLIC_OK;
  for (;;) {
    before = *p;
    if (!replic__next_patch(p) || p->sequence > *up_to) break;
    if (p->begins_group) t->whole = last;
    if (p->begins_group && r->sync->units <= 0) break;
    last = p->sequence;
    remote_table *m = replic__table_by_id(&l->tables, p->table_id);
    if (!m) return is_lost(r);
    rc = replic__resolve(r, m);
    if (rc == REPLIC_OK) rc = replic__reserve_values(r, m->n_fields);
    if (rc != REPLIC_OK) return rc;
    const uint8_t *fields = p->in.at;
    replic__get_fields(&p->in, m->n_keys, m->n_fields, r->values);
    if (p->in.failed) return is_lost(r); /* its table has been defined in another way since */
    r->sync->units -=
        p->sequence <= known ? replic__units_of_reading(m) : replic__units_of_applying(m);
    if (p->sequence <= known) continue;
    const replic_position at = {p->origin, p->sequence, p->clock, 0};
    rc = replic__apply_patch(r, l->peer, m, &at, fields, (size_t)(p->in.at - fields));
    if (rc != REPLIC_OK) return rc;
    *patched_at = p->clock;
    applied++;
  }
  *p = before;
  *up_to = last;
  r->counters.patches_applied += applied;
  /* the log has some already where the vector has gone back (recheck.c) */
  replic__vector_entry(r, p->origin)->pruned.missing += r->counters.patches_duplicate - duplicates;
  return REPLIC_OK;
}

/* One part, in one savepoint. Where it fails, t->whole is the end of the last whole group before
 * the failure, and t->p stands where it stood. */
static int apply_part(replic *r, link *l, replic__rest *t, int64_t up_to) {
  replic__savepoint save;
  const replic__patches from = t->p;
  int rc = replic__savepoint_open(r, from.origin, &save);
  if (rc != REPLIC_OK) return rc;
  save.share = replic__share_of(r, l->peer);
  int64_t known = save.position.sequence, patched_at = save.position.patched_at;
  rc = replic__merge_mode(r, 1);
  if (rc == REPLIC_OK) rc = merge_part(r, l, t, known, &up_to, &patched_at);
  if (rc == REPLIC_OK) rc = replic__note_epochs(r, t->p, up_to);
  replic__entry *entry = replic__vector_entry(r, from.origin);
  if (rc == REPLIC_OK && up_to > known) {
    entry->now.sequence = up_to;
    entry->now.patched_at = patched_at;
  }
  if (rc == REPLIC_OK && up_to > known && !known) rc = replic__bring_origin(r, l->peer, entry);
  rc = replic__savepoint_end(r, &save, rc);
  if (rc != REPLIC_OK) t->p = from;
  return rc;
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

void replic__drop_early(replic__sync *s, size_t i) {
  s->early_bytes -= s->early[i].len;
  sqlite3_free(s->early[i].bytes);
  s->early[i] = s->early[--s->n_early];
}

/* Applies parts as long as there are units. *done: there is nothing left to do. */
static int apply(replic *r, link *l, replic__rest *t, int *done) {
  replic__verdict *v = &t->verdict;
  for (*done = 0; !*done && r->sync->units > 0;) {
    int64_t known = replic__vector_sequence(r, t->p.origin);
    if (t->p.sequence >= v->up_to || v->up_to <= known) {
      *done = 1;
      break;
    }
    if (t->p.sequence > known) return is_lost(r); /* its commit has failed */
    int64_t from = t->p.sequence;
    int rc = apply_part(r, l, t, v->up_to);
    if (rc == REPLIC_OK && t->p.sequence == from) return is_lost(r); /* defined anew since */
    if (rc == REPLIC_OK) continue;
    if (rc == REPLIC_ENOTFOUND || !(rc < 0 || replic__lies_in_data(rc))) return rc;
    v->code = REPLIC_OK;
    stop_at(v, t->whole, rc == REPLIC_EQUOTA ? rc : REPLIC_ESCHEMA,
            sqlite3_mprintf("a patch of %u after %lld cannot be applied at peer %u: %s",
                            t->p.origin, t->whole, r->peer_id, replic_error_text(r)));
  }
  return REPLIC_OK;
}

static void hold_quota(replic *r, link *l, position *at, char *text) {
  replic__hold(r, l, at, REPLIC_EQUOTA, replic__vector_sequence(r, at->origin), 0,
               text ? text : "");
  sqlite3_free(text);
}

static void hold_undefined(replic *r, link *l, position *at) {
  hold_quota(
      r, l, at,
      sqlite3_mprintf("patches of %u speak of a table that peer %u has defined too long ago: "
                      "of one link %d definitions are kept at peer %u",
                      at->origin, l->peer, TABLES_MAX, r->peer_id));
}

static void conclude_patches(replic *r, link *l, position *at, const replic__rest *t) {
  const replic__verdict *v = &t->verdict;
  if (v->undefined) {
    r->counters.frames_dropped_early++;
    if (l->n_forgotten)
      hold_undefined(r, l, at);
    else
      replic__send_need(r, l, at);
  } else if (v->code != REPLIC_OK) {
    replic__hold(r, l, at, v->code, v->up_to, v->until_ms, v->text ? v->text : "");
  } else if (v->up_to > t->known) {
    replic__release(l, at);
    replic__trace(r, "applied %u.%lld, link %u", t->p.origin, v->up_to, l->id);
  }
}

/* As far as the units allow. *done: it has come to its end, or failed. */
static int take_in(replic *r, link *l, replic__rest *t, int *done) {
  int rc = REPLIC_OK;
  if (!t->is_read) {
    rc = examine(r, l, t, &t->is_read);
    *done = rc != REPLIC_OK || t->verdict.undefined;
    if (!t->is_read && rc == REPLIC_OK) return rc;
    if (!*done) t->p = t->start;
    t->whole = t->p.after;
  }
  if (rc == REPLIC_OK && !t->verdict.undefined) rc = apply(r, l, t, done);
  if (rc == REPLIC_OK && !*done) return rc;
  *done = (rc & 0xff) != SQLITE_BUSY;
  position *at = *done ? replic__position(l, t->p.origin) : NULL;
  if (rc == REPLIC_ENOTFOUND) {
    if (at) replic__send_need(r, l, at);
    return REPLIC_OK;
  }
  if (rc == REPLIC_OK && at) conclude_patches(r, l, at, t);
  return rc;
}

static void free_rest(replic__rest *t) {
  sqlite3_free(t->verdict.text);
  sqlite3_free(t->owned);
  *t = (replic__rest){0};
}

/* Where its bytes are, in a copy of them. */
static void move_reader(replic__reader *in, const uint8_t *from, const uint8_t *to) {
  in->at = to + (in->at - from);
  in->end = to + (in->end - from);
}

static void move_patches(replic__patches *p, const uint8_t *from, const uint8_t *to) {
  move_reader(&p->in, from, to);
  move_reader(&p->epochs, from, to);
  p->first = to + (p->first - from);
}

/* Without memory for it the frame is lost from there on, and asked for again. */
static void keep_rest(replic__sync *s, replic__rest *t) {
  if (!t->owned) {
    t->owned = sqlite3_malloc64(t->len);
    if (t->owned) {
      memcpy(t->owned, t->bytes, t->len);
      move_patches(&t->p, t->bytes, t->owned);
      move_patches(&t->start, t->bytes, t->owned);
      t->bytes = t->owned;
    }
  }
  if (t->owned)
    s->rest = *t;
  else
    free_rest(t);
}

static int begin_patches(replic *r, link *l, replic__rest *t) {
  replic__patches p = t->start;
  t->known = replic__vector_sequence(r, p.origin);
  t->p = p;
  t->whole = p.after;
  t->verdict = (replic__verdict){.up_to = p.up_to};
  int done = 1, rc = replic__parts(r, &p) ? replic__forked(r, l, p.origin, t->known, ISSUED_TWICE)
                                          : take_in(r, l, t, &done);
  if (done || (rc & 0xff) == SQLITE_BUSY)
    free_rest(t);
  else
    keep_rest(r->sync, t);
  return rc;
}

static int on_patches(replic *r, link *l, replic__rest *t) {
  replic__reader in = {t->bytes + FRAME_HEAD, t->bytes + t->len, 0};
  if (!replic__get_patches(&in, FRAME_PATCHES, &t->start))
    return replic__malformed(r, l, "PATCHES");
  const replic__patches *p = &t->start;
  int64_t known = replic__vector_sequence(r, p->origin);
  position *at = replic__position(l, p->origin);
  if (!at) return replic__no_position(r, l, p->origin);
  if (p->origin == r->peer_id)
    return p->up_to > known
               ? replic__forked(r, l, p->origin, p->up_to, "it holds more than was issued here")
               : REPLIC_OK;
  l->unheard = at->asked = 0;
  replic__learn(r, l, at, p->up_to); /* it sends only what it has applied */
  replic__doubt(r, l, at, p->up_to);
  if (p->up_to > known) l->synced = 0;
  if (r->gone) {
    replic__hold(r, l, at, REPLIC_EGONE, known, 0, r->gone);
    return REPLIC_OK;
  }
  if (!known && replic__brings_too_much(r, l->peer, BROUGHT_ORIGINS, 1)) {
    hold_quota(r, l, at, replic__quota_text(r, l->peer, BROUGHT_ORIGINS, 1));
    return REPLIC_OK;
  }
  if (p->after > known || replic__is_jumping(r, p->origin)) {
    if (!at->held) replic__send_need(r, l, at);
    keep_early(r, l, p, t->bytes, t->len);
    return REPLIC_OK;
  }
  return begin_patches(r, l, t);
}

int replic__on_patches(replic *r, link *l, const uint8_t *bytes, size_t len) {
  replic__rest t = {.link = l->id, .bytes = bytes, .len = len};
  return on_patches(r, l, &t);
}

/* Owns the bytes. */
static void take_early(replic *r, const early *e) {
  replic__rest t = {.link = e->link, .owned = e->bytes, .bytes = e->bytes, .len = e->len};
  link *l = replic__link_find(r, e->link);
  int rc = l && !l->closing ? on_patches(r, l, &t) : REPLIC_OK;
  if (l && !l->closing) replic__conclude(r, l, rc);
  if (r->sync->rest.owned != e->bytes && t.owned) free_rest(&t);
}

/* Frames that waited for what was just applied, as many as the units allow. */
void replic__apply_early(replic *r) {
  replic__sync *s = r->sync;
  s->is_early_due = 0;
  for (size_t i = 0; i < s->n_early && !s->rest.link;) {
    early e = s->early[i];
    if (e.after > replic__vector_sequence(r, e.origin) || replic__is_jumping(r, e.origin)) {
      i++;
      continue;
    }
    if (s->units <= 0) {
      s->is_early_due = 1;
      return;
    }
    s->early_bytes -= e.len;
    s->early[i] = s->early[--s->n_early];
    take_early(r, &e);
    i = 0;
  }
}

int replic_has_work(const replic *r) {
  if (r->sync->rest.link || r->sync->is_early_due) return REPLIC_WORK_FIRST;
  return replic__has_jump(r) ? REPLIC_WORK_BESIDE : REPLIC_NO_WORK;
}

static int go_on(replic *r) {
  replic__sync *s = r->sync;
  replic__rest t = s->rest;
  link *l = replic__link_find(r, t.link);
  int done = 1, rc = REPLIC_OK;
  s->rest = (replic__rest){0};
  if (l && !l->closing && !r->gone) rc = take_in(r, l, &t, &done);
  if (done)
    free_rest(&t);
  else
    s->rest = t;
  if (!l || (rc & 0xff) == SQLITE_BUSY) return rc;
  l->stirred = l->ack_due = 1;
  replic__conclude(r, l, rc);
  return REPLIC_OK;
}

int replic_work(replic *r) {
  r->sync->units = r->config.work_units;
  int rc = r->sync->rest.link ? go_on(r) : REPLIC_OK;
  if (rc != REPLIC_OK) return rc;
  replic__apply_early(r);
  return replic__try_jump(r);
}

void replic__drop_rest(replic__sync *s) {
  free_rest(&s->rest);
}

/* incoming.c - patches from the links to the log: whether a frame can be applied, and up to where;
 * frames that came before their predecessors. */
#include <string.h>

#include "sync.h"

remote_table *replic__remote_table(const link *l, uint32_t id) {
  for (size_t i = 0; i < l->n_tables; i++)
    if (l->tables[i]->id == id) return l->tables[i];
  return NULL;
}

int replic__on_schema(replic *r, link *l, replic__reader *in) {
  size_t len = (size_t)(in->end - in->at);
  remote_table *t = replic__read_definition(in);
  if (!t) return in->failed ? replic__malformed(r, l, "SCHEMA") : SQLITE_NOMEM;
  remote_table *known = replic__remote_table(l, t->id);
  if (known) { /* sent again */
    remote_table swap = *known;
    *known = *t;
    *t = swap;
    replic__free_remote_table(t);
    return REPLIC_OK;
  }
  l->schema_bytes += sizeof *t + len + 64 * (size_t)t->n_fields;
  remote_table **grown = sqlite3_realloc64(l->tables, (l->n_tables + 1) * sizeof(remote_table *));
  if (grown) l->tables = grown;
  if (!grown || l->schema_bytes > SCHEMA_MAX) {
    replic__free_remote_table(t);
    return grown ? replic__malformed(r, l, "SCHEMA (too many tables)") : SQLITE_NOMEM;
  }
  l->tables[l->n_tables++] = t;
  return REPLIC_OK;
}

/* ---- receiving: PATCHES ---- */

int replic__reserve_values(replic__sync *s, int n) {
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
  int doubted;   /* the origin itself, linked here, has not issued the rest */
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

char *replic__skew_text(const replic *r, uint32_t origin, int64_t sequence, int64_t patched_at) {
  return sqlite3_mprintf(
      "patch %u.%lld is stamped %lld, and the clock of peer %u says %lld: that "
      "is more than maxClockSkewMs (%lld) ahead. Correct the clock that is wrong",
      origin, sequence, patched_at, r->peer_id, r->now_ms, r->config.max_clock_skew_ms);
}

/* Each frame names the clock and the epoch of the patch that it follows: so histories that have
 * parted are never joined, whichever way they come. */
int replic__parts(replic *r, const replic__patches *p) {
  int64_t known = replic__vector_sequence(r, p->origin);
  if (!known || p->after > known || p->up_to < known) return 0;
  const replic_position *mine = &replic__vector_entry(r, p->origin)->now;
  if (mine->epoch != replic__epoch_in(p, known)) return 1;
  return p->after == known && p->after_clock && mine->patched_at &&
         mine->patched_at != p->after_clock;
}

int replic__note_epochs(replic *r, replic__patches p, int64_t up_to) {
  int64_t known = replic__vector_sequence(r, p.origin), from = p.after;
  uint32_t epoch;
  int rc = REPLIC_OK;
  while (rc == REPLIC_OK && replic__next_epoch(&p, &from, &epoch) && from <= up_to)
    if (from > known) rc = replic__epoch_note(r, p.origin, from, epoch);
  return rc;
}

/* Reads the whole frame before anything is applied: is it well formed, and up to where can it be
 * applied? */
static int examine(replic *r, link *l, replic__patches p, verdict *v) {
  int64_t known = replic__vector_sequence(r, p.origin), whole = p.after,
          limit = r->now_ms + r->config.max_clock_skew_ms,
          believed = replic__believed(r, l, p.origin);
  int64_t last_clock = known ? replic__vector_entry(r, p.origin)->now.patched_at : 0;
  *v = (verdict){.up_to = p.up_to};
  if (replic__parts(r, &p)) return replic__forked(r, l, p.origin, known, ISSUED_TWICE);
  for (int64_t last = p.after; replic__next_patch(&p); last = p.sequence) {
    if (p.begins_group) whole = last;
    remote_table *t = replic__remote_table(l, p.table_id);
    if (!t) {
      v->undefined = 1;
      return REPLIC_OK;
    }
    int rc = replic__reserve_values(r->sync, t->n_fields);
    if (rc == REPLIC_OK) rc = replic__resolve(r, t);
    if (rc != REPLIC_OK) return rc;
    replic__get_fields(&p, t->n_keys, t->n_fields, r->sync->values);
    if (replic__brings_dropped(r, &p)) return replic__forked(r, l, p.origin, p.sequence, GIVEN_UP);
    if (p.sequence == known && last_clock && p.clock != last_clock)
      return replic__forked(r, l, p.origin, known, ISSUED_TWICE);
    if (p.sequence <= known || v->doubted) continue;
    if (p.sequence > believed) {
      v->doubted = 1;
      if (v->code == REPLIC_OK) v->up_to = whole;
    } else if (p.clock > limit)
      stop_at(v, whole, REPLIC_ECLOCKSKEW, replic__skew_text(r, p.origin, p.sequence, p.clock));
  }
  return p.in.failed ? replic__malformed(r, l, "PATCHES") : REPLIC_OK;
}

/* Applies what is new up to `up_to`, in one savepoint. `*whole`: the end of the last group before a
 * failure. */
static int apply(replic *r, link *l, replic__patches p, int64_t up_to, int64_t *whole) {
  replic__savepoint save;
  int rc = replic__savepoint_open(r, p.origin, &save);
  if (rc != REPLIC_OK) return rc;
  rc = replic__merge_mode(r, 1);
  if (rc == REPLIC_OK) rc = replic__note_epochs(r, p, up_to);
  int64_t known = save.position.sequence, patched_at = save.position.patched_at, last = p.after,
          applied = 0;
  while (rc == REPLIC_OK && replic__next_patch(&p) && p.sequence <= up_to) {
    if (p.begins_group) *whole = last;
    last = p.sequence;
    remote_table *t = replic__remote_table(l, p.table_id);
    const uint8_t *fields = p.in.at;
    replic__get_fields(&p, t->n_keys, t->n_fields, r->sync->values);
    if (p.sequence <= known) continue;
    rc = replic__apply_patch(r, t, &p, fields);
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

int replic__on_patches(replic *r, link *l, const uint8_t *bytes, size_t len) {
  replic__reader in = {bytes + FRAME_HEAD, bytes + len, 0};
  replic__patches p;
  verdict v;
  if (!replic__get_patches(&in, FRAME_PATCHES, &p)) return replic__malformed(r, l, "PATCHES");
  int64_t known = replic__vector_sequence(r, p.origin);
  position *at = replic__position(l, p.origin);
  if (!at) return SQLITE_NOMEM;
  if (p.origin == r->peer_id)
    return p.up_to > known
               ? replic__forked(r, l, p.origin, p.up_to, "it holds more than was issued here")
               : REPLIC_OK;
  l->unheard = at->asked = 0;
  replic__learn(r, l, at, p.up_to); /* it sends only what it has applied */
  replic__doubt(r, l, at, p.up_to);
  if (p.up_to > known) l->synced = 0;
  l->ack_due = 1;
  if (r->gone) {
    replic__hold(r, l, at, REPLIC_EGONE, known, r->gone);
    return REPLIC_OK;
  }
  if (p.after > known) {
    if (!at->held) replic__send_need(r, l, at);
    keep_early(r, l, &p, bytes, len);
    return REPLIC_OK;
  }
  int rc = examine(r, l, p, &v);
  if (rc == REPLIC_OK && v.undefined) {
    r->counters.frames_dropped_early++;
    replic__send_need(r, l, at);
    v.up_to = known;
    v.code = REPLIC_OK;
  }
  while (rc == REPLIC_OK && v.up_to > known) {
    int64_t whole = p.after;
    rc = apply(r, l, p, v.up_to, &whole);
    if (rc == REPLIC_OK || !(rc < 0 || replic__lies_in_data(rc))) break;
    stop_at(&v, whole, REPLIC_ESCHEMA,
            sqlite3_mprintf("a patch of %u after %lld cannot be applied at peer %u: %s", p.origin,
                            whole, r->peer_id, replic_error_text(r)));
    v.up_to = whole;
    rc = REPLIC_OK;
  }
  if (rc == REPLIC_OK && v.code != REPLIC_OK) {
    replic__hold(r, l, at, v.code, v.up_to, v.text ? v.text : "");
  } else if (rc == REPLIC_OK && v.up_to > known) {
    replic__release(l, at);
    replic__trace(r, "applied %u.%lld, link %u", p.origin, v.up_to, l->id);
  }
  sqlite3_free(v.text);
  return rc;
}

/* What a frame's failure means: the peer is refused, or the frame is lost and asked for at the next
 * heartbeat. */
void replic__conclude(replic *r, link *l, int rc) {
  if (rc == REPLIC_EFORK || (rc == REPLIC_EPEER && l->fork_origin))
    replic__fork_found(r, l, rc);
  else if (rc < 0)
    replic__refuse(r, l, rc, replic_error_text(r));
  else if (rc != REPLIC_OK && (rc & 0xff) != SQLITE_BUSY)
    replic__event(
        r, (replic_event){.kind = REPLIC_EVENT_ERROR, .link = l->id, .peer = l->peer, .code = rc},
        "a received frame was dropped: %s", replic_error_text(r));
}

/* Frames that waited for what was just applied. */
void replic__apply_early(replic *r) {
  replic__sync *s = r->sync;
  for (size_t i = 0; i < s->n_early;) {
    early e = s->early[i];
    link *l = replic__link_find(r, e.link);
    if (e.after > replic__vector_sequence(r, e.origin)) {
      i++;
      continue;
    }
    s->early_bytes -= e.len;
    s->early[i] = s->early[--s->n_early];
    if (l && !l->closing) replic__conclude(r, l, replic__on_patches(r, l, e.bytes, e.len));
    sqlite3_free(e.bytes);
    i = 0;
  }
}

/* jump.c - how a peer gets past what the log of another one has pruned.
 *
 * A pruned log knows the state at its own vector, not at the vectors in between: so it cannot serve
 * frames of PATCHES to a peer that stands below a floor. That peer jumps, from its vector to the
 * source's:
 *
 *   source                                   the one that jumps
 *     JUMP vector, floors      ──────────>   is it covered? no: take it from this source
 *                              <──────────   TAKE (origin, staged up to): go on from there
 *     STAGE STAGE STAGE …      ──────────>   each into _replic_staged, invisible, committed
 *                              <──────────   TAKE as an acknowledgement: the window opens
 *     JUMP vector, floors      ──────────>   covered: merge what is staged, slice by slice; with
 *                                            the last one set vector and floors
 *
 * A JUMP is covered when, for every origin in it, what is applied and what is staged from the same
 * source reaches its sequence. A piece may be older than the JUMP: it then holds patches that have
 * been pruned since, which does no harm. It must not be newer: of what it lacks, a part may have
 * been superseded by patches beyond the JUMP's vector. `age`, the sum of a peer's vector and
 * floors, says which of two of its frames is the older one. (test/model/protocol.py shows each of
 * these rules to be needed.)
 *
 * What is staged stays until a jump has happened or the vector has passed it: so a link that
 * breaks, a crash, or a change of the source costs nothing that had arrived from that source
 * before.
 *
 * A log may be long, so a jump is merged in slices, each in a transaction of its own, as many
 * pieces as s->units allow, and local writes go in between:
 *
 *   1. it is read to its end: whatever may refuse it (a fork, a quota, bytes that are no piece)
 *      does so now. From here on it needs neither the source nor its link
 *   2. pieces are merged and deleted, the oldest first. _replic_jump says where the jump ends and
 *      how many patches are new, so a restart goes on (replic__jump_load)
 *   3. with the last slice the vector moves, and epochs and floors with it
 *
 * Between 2 and 3 the log has patches that the vector does not cover (r->is_ahead). Tables are the
 * fold of the log at any time (I6), so what is written or comes of other origins meanwhile wins or
 * loses by its clock as ever. But what is ahead must not be counted on: nothing of it is sent, as
 * that is read up to the vector; retention waits, or what it removed would be missing in the state
 * at the vector that this peer gives others; and of the origins that jump nothing is taken another
 * way. (test/model/slices.py shows that. Rejected: to roll back a jump that cannot
 * be finished. It would have to be done in slices, too, so nothing that can fail is left to 2.) */
#include <string.h>

#include "links/links.h"

/* After so many without a slice's bytes another source is taken; twice as many after each. */
#define JUMP_HEARTBEATS 5

/* One that brings hardly anything keeps nobody from joining. */
static int is_idle(const replic *r) {
  const replic__sync *s = r->sync;
  int64_t patience = (JUMP_HEARTBEATS * r->config.heartbeat_ms)
                     << (s->jump_passed < 6 ? s->jump_passed : 6);
  return r->now_ms < s->jump_ms || r->now_ms - s->jump_ms >= patience;
}

/* ---- JUMP ---- */

/* ---- whose turn it is ---- */

/* `lacks`: of what its JUMP has, one that is below a floor here. */
static void wait_for_turn(replic *r, link *l, const target *lacks) {
  if (!l->waits) l->waits = ++r->sync->jumps_waited;
  l->waits_origin = lacks->to.origin;
  l->waits_floor = lacks->floor;
}

/* Who waits longest and is of use yet. NULL: nobody. */
static link *next_in_turn(const replic *r) {
  link *next = NULL;
  for (size_t i = 0; i < r->sync->n_links; i++) {
    link *l = r->sync->links[i];
    if (l->waits && replic__vector_sequence(r, l->waits_origin) >= l->waits_floor) l->waits = 0;
    if (!l->waits || l->closing || l->fork_text || l->reader) continue;
    if (!next || l->waits < next->waits) next = l;
  }
  return next;
}

static void begin_turn(replic *r, link *l) {
  replic__sync *s = r->sync;
  replic__jump_over(s);
  l->waits = 0;
  s->jump_link = l->id;
  s->jump_ms = r->now_ms;
  s->jump_bytes = 0;
  char *sql =
      sqlite3_mprintf("SELECT count(*) FROM main._replic_staged WHERE source = %u", l->peer);
  int64_t staged = 0;
  if (s->staged && sql) replic__int(r, sql, &staged);
  sqlite3_free(sql);
  r->counters.jumps_resumed += staged > 0;
}

void replic__jump_prefer(replic *r, link *l) {
  begin_turn(r, l);
}

/* At once: else a jump would take a heartbeat, until the next JUMP comes. Where it is not asked
 * now, it is when that comes. */
static void ask_next(replic *r) {
  link *next = next_in_turn(r);
  if (!next) return;
  begin_turn(r, next);
  replic__want_take(r, next, TAKE_AGAIN);
}

/* One source at a time, or a new peer would get everything from each of its peers; and by turns, or
 * who offers itself most often would have most of them. */
static int choose_source(replic *r, link *l) {
  replic__sync *s = r->sync;
  const link *current = s->jump_link ? replic__link_find(r, s->jump_link) : NULL;
  int lives = current && !current->closing && !is_idle(r);
  if (lives && current->peer != l->peer) return 0;
  link *next = lives ? NULL : next_in_turn(r);
  if (!next || next->peer == l->peer) next = l;
  s->jump_passed += current && !lives && current->peer != next->peer;
  if (current != next) begin_turn(r, next);
  if (next != l) replic__want_take(r, next, TAKE_AGAIN);
  return next == l;
}

static void rewind_jump(replic__sync *s) {
  replic__reader in = {s->jump + FRAME_HEAD, s->jump + s->jump_len, 0};
  s->jump_left = replic__get_count(&in, 5);
  s->jump_at = (size_t)(in.at - s->jump);
  s->jump_last = 0;
  s->jump_age = 0;
}

static void keep_jump(replic__sync *s, uint8_t *bytes, size_t len) {
  sqlite3_free(s->jump);
  s->jump = bytes;
  s->jump_len = len;
  rewind_jump(s);
}

int replic__on_jump(replic *r, link *l, const uint8_t *bytes, size_t len) {
  replic__sync *s = r->sync;
  replic__reader in = {bytes + FRAME_HEAD, bytes + len, 0};
  size_t n = replic__get_count(&in, 5);
  uint32_t last = 0;
  target t, lacks = {0};
  int64_t n_new = 0;
  uint32_t new = 0;
  int below = 0, left = replic__check_budget(r);
  for (; n > 0 && replic__next_target(&in, &last, &t); n--) {
    int64_t mine = replic__vector_sequence(r, t.to.origin);
    position *at = replic__position(l, t.to.origin);
    if (!at && t.to.sequence <= mine) continue;
    if (!at) return replic__no_position(r, l, t.to.origin);
    int rc = replic__check_claim(r, l, at, &t.to, &left);
    if (rc != REPLIC_OK) return rc;
    replic__learn(r, l, at, t.to.sequence);
    replic__doubt(r, l, at, t.to.sequence);
    if (t.to.sequence <= mine) continue;
    l->synced = 0;
    if (mine < t.floor) {
      below = 1;
      lacks = t;
    }
    if (!mine && !n_new++) new = t.to.origin;
    if (t.to.patched_at > r->now_ms + r->config.max_clock_skew_ms) {
      char *text = replic__skew_text(r, l, t.to.origin, t.to.sequence, t.to.patched_at);
      replic__hold(r, l, at, REPLIC_ECLOCKSKEW, mine, OF_A_JUMP, text ? text : "");
      sqlite3_free(text);
      below = 0;
      break;
    }
  }
  if (in.failed || (!n && in.at != in.end)) return replic__malformed(r, l, "JUMP");
  if (below && n_new && replic__brings_too_much(r, l->peer, BROUGHT_ORIGINS, n_new)) {
    replic__hold_jump(r, l, replic__position(l, new), BROUGHT_ORIGINS, n_new);
    below = 0;
  }
  int failed_lately = s->jump_failed_link == l->id &&
                      s->jump_failed_generation == r->schema->generation &&
                      s->jump_failed_ms <= r->now_ms &&
                      r->now_ms - s->jump_failed_ms < HELD_HEARTBEATS * r->config.heartbeat_ms;
  if (!below) { /* it has missed what it was told, as it offers what is not needed */
    for (size_t i = 0; i < l->n_at; i++) l->at[i].told = 0;
    l->ack_due = 1;
  }
  if (!below || failed_lately) {
    l->waits = 0;
    return REPLIC_OK;
  }
  if (s->merging || !choose_source(r, l)) {
    wait_for_turn(r, l, &lacks);
    return REPLIC_OK;
  }
  uint8_t *copy = sqlite3_malloc64(len);
  if (!copy) return SQLITE_NOMEM;
  memcpy(copy, bytes, len);
  keep_jump(s, copy, len);
  if (replic__try_jump(r) == REPLIC_OK && s->jump) replic__want_take(r, l, TAKE_AGAIN);
  return REPLIC_OK;
}

/* Each origin in the JUMP once: what it looks for next is the first that was not reached, for what
 * is applied or staged is not less later; or one that denies it. */
static int is_reached(replic *r, const link *l, int *rc) {
  replic__sync *s = r->sync;
  target t;
  for (; s->jump_left > 0; s->jump_left--) {
    int64_t staged;
    replic__reader in = {s->jump + s->jump_at, s->jump + s->jump_len, 0};
    uint32_t last = s->jump_last;
    if (!replic__next_target(&in, &last, &t)) return 0;
    if (replic__vector_sequence(r, t.to.origin) < t.to.sequence) {
      if (t.to.sequence > replic__believed(r, l, t.to.origin)) return 0;
      *rc = replic__staged_up_to(r, l->peer, t.to.origin, &staged);
      if (*rc != REPLIC_OK || staged < t.to.sequence) return 0;
    }
    s->jump_age = replic__sum(s->jump_age, t.to.sequence + t.floor);
    s->jump_at = (size_t)(in.at - s->jump);
    s->jump_last = last;
  }
  return 1;
}

static int is_newer(replic *r, uint32_t source, int64_t age, int *rc) {
  int64_t newest = 0;
  char *sql = sqlite3_mprintf("SELECT max(age) FROM main._replic_staged WHERE source = %u", source);
  *rc = sql ? replic__int(r, sql, &newest) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return *rc != REPLIC_OK || newest > age;
}

/* 1: what is applied and staged reaches it, and nothing of it is newer. Once it seems so it is
 * looked at from the beginning, as something may have been undone since. */
static int is_covered(replic *r, const link *l, int *rc) {
  replic__sync *s = r->sync;
  if (!is_reached(r, l, rc) || is_newer(r, l->peer, s->jump_age, rc)) return 0;
  rewind_jump(s);
  return is_reached(r, l, rc);
}

/* ---- slice by slice (merging.c) ---- */

static void end_merging(replic *r) {
  replic__sync *s = r->sync;
  for (size_t k = 0; k < s->n_links; k++) {
    link *l = s->links[k];
    for (size_t i = 0; i < s->merging->n; i++) {
      position *at = l->n_held ? replic__position(l, s->merging->targets[i].to.origin) : NULL;
      if (at) replic__release(l, at);
    }
    l->ack_due = l->stirred = 1;
    l->take_due = 0;
  }
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_JUMPED, .peer = s->merging->source}, NULL);
  replic__trace(r, "jumped past %d floors, from peer %u", (int)s->merging->n, s->merging->source);
  replic__free_merging(s);
  replic__jump_over(s);
  s->jump_passed = 0;
  s->is_early_due = s->n_early > 0;
  r->is_ahead = 0;
  ask_next(r);
}

/* The pieces contradict what is known, and what is found is told: they would contradict it for
 * ever, also when the source has healed. */
static void forget_pieces(replic *r, link *l) {
  replic__savepoint save;
  if (replic__savepoint_open(r, r->peer_id, &save) != REPLIC_OK) return;
  char *sql = sqlite3_mprintf("DELETE FROM main._replic_staged WHERE source = %u", l->peer);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  r->staged_changed = STAGED_UNKNOWN;
  replic__savepoint_end(r, &save, rc);
}

/* It cannot be merged, as reading it has shown: nothing has been. */
static void refuse_jump(replic *r, link *l, uint32_t origin, int rc) {
  replic__sync *s = r->sync;
  position *at = origin ? replic__position(l, origin) : NULL;
  replic__jump_over(s); /* another source may try now, and this one later */
  s->jump_failed_ms = r->now_ms;
  s->jump_failed_generation = r->schema->generation;
  s->jump_failed_link = l->id;
  if (rc == REPLIC_EFORK) {
    replic__fork_found(r, l, rc);
    forget_pieces(r, l);
  } else if (at && (rc < 0 || replic__lies_in_data(rc))) {
    replic__hold(r, l, at, rc == REPLIC_EQUOTA ? rc : REPLIC_ESCHEMA,
                 replic__vector_sequence(r, at->origin), OF_A_JUMP, replic_error_text(r));
  } else {
    replic__conclude(r, l, rc < 0 ? SQLITE_ERROR : rc);
  }
  ask_next(r);
}

/* It needs nothing but this machine: what fails is tried again. Of one that has not begun, another
 * source may try. */
static void fail_slice(replic *r, uint32_t origin, int rc) {
  replic__sync *s = r->sync;
  link *l = replic__link_find(r, s->jump_link);
  if (s->merging) {
    s->merging->again_ms = r->now_ms + HELD_HEARTBEATS * r->config.heartbeat_ms;
    replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = rc},
                  "what a jump has brought cannot be merged now, and is tried again: %s",
                  replic_error_text(r));
  } else if (l) {
    refuse_jump(r, l, origin, rc);
  }
}

static int next_slice(replic *r) {
  replic__sync *s = r->sync;
  replic__savepoint save;
  uint32_t origin = s->merging->n ? s->merging->targets[0].to.origin : 0;
  int done = 0, rc = replic__savepoint_open(r, 0, &save);
  if (rc == REPLIC_OK) {
    save.share = replic__share_of(r, s->merging->source);
    s->has_merged = 1;
    rc = replic__merge_slice(r, &done);
    rc = replic__savepoint_end(r, &save, rc);
    if (rc == REPLIC_OK) r->is_ahead = 1;
    if (rc != REPLIC_OK && !r->lost) replic__reload_merging(r);
  }
  if ((rc & 0xff) == SQLITE_BUSY) return rc;
  if (rc != REPLIC_OK)
    fail_slice(r, origin, rc);
  else if (done)
    end_merging(r);
  return REPLIC_OK;
}

/* Looks whether the JUMP is covered, and reads on. *may_merge: all of it has been read. */
static int read_on(replic *r, link *l, int *may_merge) {
  replic__sync *s = r->sync;
  int rc = REPLIC_OK;
  if (!s->merging) {
    if (!is_covered(r, l, &rc) || rc != REPLIC_OK) return rc;
    rc = replic__read_targets(r, l->peer);
    s->has_merged = 1; /* pieces of this batch are undone with it */
  }
  if (rc == REPLIC_OK) rc = replic__read_pieces(r, l, may_merge);
  return rc;
}

static int is_waiting(const replic *r) {
  const replic__merging *m = r->sync->merging;
  int64_t left = m ? m->again_ms - r->now_ms : 0;
  return left > 0 && left <= HELD_HEARTBEATS * r->config.heartbeat_ms;
}

int replic__has_jump(const replic *r) {
  const replic__sync *s = r->sync;
  return (s->merging || s->is_merging_unknown || s->is_jump_due) && !r->step && !r->gone &&
         !is_waiting(r);
}

int replic__try_jump(replic *r) {
  replic__sync *s = r->sync;
  int may_merge = 0, rc = REPLIC_OK;
  s->is_jump_due = s->jump && (s->rest.link || s->units <= 0);
  if (r->step || r->gone || r->lost || s->rest.link || s->units <= 0 || is_waiting(r)) return rc;
  if (s->is_merging_unknown && replic__load_merging(r) != REPLIC_OK) return rc;
  if (s->merging && s->merging->is_read) return next_slice(r);
  if (!s->jump) return rc;
  link *l = replic__link_find(r, s->jump_link);
  if (!l || l->closing) {
    replic__jump_over(s);
    return rc;
  }
  rc = read_on(r, l, &may_merge);
  if ((rc & 0xff) == SQLITE_BUSY) return rc;
  if (rc != REPLIC_OK && s->merging)
    refuse_jump(r, l, s->merging->n ? s->merging->targets[0].to.origin : 0, rc);
  else if (rc != REPLIC_OK)
    replic__conclude(r, l, rc);
  if (rc != REPLIC_OK || !may_merge) return REPLIC_OK;
  s->merging->is_read = 1;
  return s->units > 0 ? next_slice(r) : rc;
}

int replic__jump_finish(replic *r) {
  int done, rc = REPLIC_OK;
  if (!r->sync->merging) return rc;
  r->sync->units = INT64_MAX;
  rc = replic__merge_slice(r, &done);
  if (rc == REPLIC_OK) end_merging(r);
  return rc;
}

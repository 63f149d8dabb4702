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

int64_t replic__age(const replic *r) {
  int64_t age = 0;
  for (size_t i = 0; i < r->n_vector; i++)
    age = replic__sum(age, r->vector[i].committed.sequence + r->vector[i].pruned.floor);
  return age;
}

/* ---- _replic_staged ---- */

static int staged_up_to(replic *r, uint32_t source, uint32_t origin, int64_t *up_to) {
  sqlite3_stmt **slot = &r->sync->staged_sql;
  int rc = replic__prepare(
      r, "SELECT max(upTo) FROM main._replic_staged WHERE source = ?1 AND origin = ?2", slot);
  *up_to = 0;
  if (rc != REPLIC_OK || !r->sync->staged) return rc;
  sqlite3_bind_int64(*slot, 1, source);
  sqlite3_bind_int64(*slot, 2, origin);
  rc = sqlite3_step(*slot);
  if (rc == SQLITE_ROW) *up_to = sqlite3_column_int64(*slot, 0);
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(*slot);
  return rc;
}

static int note_source(replic *r, uint32_t source) {
  char *sql = sqlite3_mprintf("INSERT OR REPLACE INTO main._replic_sources(source, progressAt) "
                              "VALUES(%u, %lld)",
                              source, r->now_ms);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

/* The tables that a piece speaks of: table ids mean something only on the link it came by. */
static void put_definitions(replic__writer *w, const table_list *used) {
  for (size_t i = 0; i < used->n; i++) {
    replic__writer one = {0};
    replic__put_definition(&one, used->at[i]->id, used->at[i]);
    replic_frame *frame = replic__finish(&one);
    if (frame) replic__put_varint(w, frame->len);
    if (frame) replic__put_bytes(w, frame->data, frame->len);
    if (!frame) w->failed = 1;
    replic__frame_release(frame);
  }
}

static int insert_piece(replic *r, uint32_t source, const replic__patches *p, const uint8_t *body,
                        size_t len, const replic_frame *definitions) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r,
                           "INSERT INTO main._replic_staged(source, origin, upTo, age, "
                           "definitions, patches) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                           &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, source);
  sqlite3_bind_int64(stmt, 2, p->origin);
  sqlite3_bind_int64(stmt, 3, p->up_to);
  sqlite3_bind_int64(stmt, 4, p->age);
  size_t n = definitions ? definitions->len : 0;
  rc = sqlite3_bind_blob64(stmt, 5, n ? definitions->data : (const uint8_t *)"", n, SQLITE_STATIC);
  if (rc == SQLITE_OK) rc = sqlite3_bind_blob64(stmt, 6, body, len, SQLITE_STATIC);
  rc = rc == SQLITE_OK ? replic__step(r, stmt) : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

/* ---- STAGE ---- */

/* Reads the whole frame. *used: which of the link's tables it speaks of; *undefined: one that was
 * never defined; *skewed: the text where a patch is stamped too far ahead. */
static int examine(replic *r, link *l, replic__patches p, table_list *used, int *undefined,
                   char **skewed, int64_t *n) {
  uint64_t piece = ++r->sync->pieces;
  int64_t limit = r->now_ms + r->config.max_clock_skew_ms;
  if (replic__parts(r, &p)) return replic__forked(r, l, p.origin, p.after, ISSUED_TWICE);
  int64_t last = p.after;
  for (; replic__next_patch(&p); last = p.sequence) {
    remote_table *t = replic__table_by_id(&l->tables, p.table_id);
    *undefined = !t;
    if (!t) return REPLIC_OK;
    int rc = t->piece != piece ? replic__table_add(used, t) : REPLIC_OK;
    t->piece = piece;
    if (rc == REPLIC_OK) rc = replic__reserve_values(r, t->n_fields);
    if (rc != REPLIC_OK) return rc;
    replic__get_fields(&p.in, t->n_keys, t->n_fields, r->values);
    if (p.clock > limit && !*skewed)
      *skewed = replic__skew_text(r, l, p.origin, p.sequence, p.clock);
    if (replic__brings_dropped(r, &p) || replic__skips_dropped(r, &p, last, p.sequence))
      return replic__forked(r, l, p.origin, p.sequence, GIVEN_UP);
    ++*n;
  }
  if (p.in.failed) return replic__malformed(r, l, "STAGE");
  return replic__skips_dropped(r, &p, last, p.up_to + 1)
             ? replic__forked(r, l, p.origin, p.up_to, GIVEN_UP)
             : REPLIC_OK;
}

static int count_staged(replic *r) {
  r->sync->staged_ms = r->now_ms;
  int rc = replic__bring_again(r, BROUGHT_STAGED,
                               "SELECT source, sum(length(definitions) + length(patches)) FROM "
                               "main._replic_staged GROUP BY source");
  if (rc == REPLIC_OK) r->staged_changed = 0;
  return rc;
}

/* Summed up; counted where that is too much and pieces have been taken away, once per heartbeat. */
static int exceeds_staged(replic *r, const link *l, size_t len) {
  int is_unknown = r->staged_changed == STAGED_UNKNOWN;
  int exceeds = replic__brings_too_much(r, l->peer, BROUGHT_STAGED, (int64_t)len);
  int may_count = exceeds && r->staged_changed && replic__is_heartbeat_past(r, r->sync->staged_ms);
  if (!is_unknown && !may_count) return exceeds;
  return count_staged(r) != REPLIC_OK ||
         replic__brings_too_much(r, l->peer, BROUGHT_STAGED, (int64_t)len);
}

static void hold_jump(replic *r, link *l, position *at, int what, int64_t n) {
  char *text = replic__quota_text(r, l->peer, what, n);
  replic__hold(r, l, at, REPLIC_EQUOTA, replic__vector_sequence(r, at->origin), OF_A_JUMP,
               text ? text : "");
  sqlite3_free(text);
}

/* REPLIC_EQUOTA: there is no room for it, and it is held. */
static int stage(replic *r, link *l, const replic__patches *p, const uint8_t *body, size_t len,
                 const table_list *used, int64_t n) {
  replic__savepoint save;
  replic__writer w = {0};
  put_definitions(&w, used);
  replic_frame *definitions = replic__finish(&w);
  if (w.failed) return SQLITE_NOMEM;
  size_t all = len + (definitions ? definitions->len : 0);
  int rc = exceeds_staged(r, l, all) ? REPLIC_EQUOTA : replic__savepoint_open(r, p->origin, &save);
  if (rc == REPLIC_EQUOTA)
    hold_jump(r, l, replic__position(l, p->origin), BROUGHT_STAGED, (int64_t)all);
  if (rc == REPLIC_OK) {
    save.share = replic__share_of(r, l->peer);
    rc = insert_piece(r, l->peer, p, body, len, definitions);
    if (rc == REPLIC_OK) rc = note_source(r, l->peer);
    if (rc == REPLIC_OK) rc = replic__bring(r, l->peer, BROUGHT_STAGED, (int64_t)all);
    if (rc == REPLIC_OK) r->counters.patches_staged += n;
    rc = replic__savepoint_end(r, &save, rc);
  }
  replic__frame_release(definitions);
  if (rc != REPLIC_OK) return rc;
  l->n_staged += n;
  r->sync->staged = 1;
  return rc;
}

enum { TAKE_TOLD = 1, TAKE_AGAIN }; /* link.take_due */

/* As with NEED: counted against each link. */
static link *take_over(replic *r, link *l) {
  for (;;) {
    l->taken = l->taken_at != l->n_staged ? 1 : l->taken + 1;
    l->taken_at = l->n_staged;
    link *next = replic__ask_over(r, l, l->taken);
    if (next == l) return l;
    l = next;
  }
}

static void want_take(replic *r, link *l, int due) {
  if (r->is_busy || r->sync->merging) return; /* as with NEED */
  if (l->take_ms && r->now_ms - l->take_ms < r->config.heartbeat_ms && r->now_ms >= l->take_ms)
    return;
  l->take_ms = r->now_ms;
  link *over = take_over(r, l);
  if (over != l) due = TAKE_AGAIN; /* from the beginning: what was sent over l may be lost */
  if (over->take_due < due) over->take_due = due;
}

int replic__check_staged(replic *r, link *l, position *at, int64_t sent) {
  int64_t staged;
  if (r->sync->merging) return REPLIC_OK; /* it tells by ACK where that ends */
  int rc = staged_up_to(r, l->peer, at->origin, &staged);
  if (rc != REPLIC_OK) return rc;
  if (replic__vector_sequence(r, at->origin) >= sent) {
    at->told = 0;
    l->ack_due = 1;
  } else if (staged >= sent) {
    at->take_due = 1;
    if (!l->take_due) l->take_due = TAKE_TOLD;
    want_take(r, l, TAKE_TOLD);
  } else if (!at->held) { /* else it is asked for now and then (replic_tick) */
    want_take(r, l, TAKE_AGAIN);
  }
  return REPLIC_OK;
}

/* One that brings hardly anything keeps nobody from joining. */
static int is_idle(const replic *r) {
  const replic__sync *s = r->sync;
  int64_t patience = (JUMP_HEARTBEATS * r->config.heartbeat_ms)
                     << (s->jump_passed < 6 ? s->jump_passed : 6);
  return r->now_ms < s->jump_ms || r->now_ms - s->jump_ms >= patience;
}

static void note_progress(replic *r, const link *l, size_t len) {
  replic__sync *s = r->sync;
  if (l->id != s->jump_link) return;
  s->jump_bytes += len;
  if (s->jump_bytes < r->config.slice_bytes) return;
  s->jump_bytes = 0;
  s->jump_ms = r->now_ms;
}

int replic__on_stage(replic *r, link *l, const uint8_t *bytes, size_t len) {
  replic__reader in = {bytes + FRAME_HEAD, bytes + len, 0};
  replic__patches p;
  int undefined = 0;
  char *skewed = NULL;
  int64_t staged, n = 0, known;
  if (!replic__get_patches(&in, FRAME_STAGE, &p)) return replic__malformed(r, l, "STAGE");
  position *at = replic__position(l, p.origin);
  table_list used = {0}; /* borrowed */
  if (!at) return replic__no_position(r, l, p.origin);
  l->unheard = 0;
  if (r->sync->merging)
    return REPLIC_OK; /* as if it were lost on its way: what is lacking after
                         the jump is asked for then */
  int rc = examine(r, l, p, &used, &undefined, &skewed, &n);
  if (rc == REPLIC_OK) rc = staged_up_to(r, l->peer, p.origin, &staged);
  if (rc == REPLIC_OK) {
    known = replic__vector_sequence(r, p.origin);
    if (known < staged) known = staged;
    at->take_due = 1;
    if (!l->take_due) l->take_due = TAKE_TOLD;
    if (p.after > known || undefined) {
      if (undefined || !at->held) want_take(r, l, TAKE_AGAIN);
    } else if (skewed) {
      replic__hold(r, l, at, REPLIC_ECLOCKSKEW, replic__vector_sequence(r, p.origin), OF_A_JUMP,
                   skewed);
    } else if (p.up_to > known && p.origin != r->peer_id) {
      rc = stage(r, l, &p, bytes + FRAME_HEAD, len - FRAME_HEAD, &used, n);
      if (rc == REPLIC_OK) note_progress(r, l, len);
      if (rc == REPLIC_OK && (at->held == REPLIC_ECLOCKSKEW || at->held == REPLIC_EQUOTA))
        replic__release(l, at);
    }
  }
  sqlite3_free(skewed);
  sqlite3_free(used.at);
  return rc == REPLIC_EQUOTA ? REPLIC_OK : rc;
}

/* ---- JUMP ---- */

static int next_target(replic__reader *in, uint32_t *last, target *t) {
  replic__get_position(in, last, &t->to);
  t->floor = replic__get_sequence(in);
  if (t->floor > t->to.sequence) in->failed = 1;
  return !in->failed;
}

static void free_merging(replic__sync *s) {
  if (s->merging) sqlite3_free(s->merging->targets);
  sqlite3_free(s->merging);
  s->merging = NULL;
}

/* What has begun to be merged goes on without it. */
void replic__jump_over(replic__sync *s) {
  if (s->merging && !s->merging->is_read) free_merging(s);
  sqlite3_free(s->jump);
  s->jump = NULL;
  s->jump_len = 0;
  s->jump_link = 0;
}

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
  want_take(r, next, TAKE_AGAIN);
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
  if (next != l) want_take(r, next, TAKE_AGAIN);
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
  for (; n > 0 && next_target(&in, &last, &t); n--) {
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
    hold_jump(r, l, replic__position(l, new), BROUGHT_ORIGINS, n_new);
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
  if (replic__try_jump(r) == REPLIC_OK && s->jump) want_take(r, l, TAKE_AGAIN);
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
    if (!next_target(&in, &last, &t)) return 0;
    if (replic__vector_sequence(r, t.to.origin) < t.to.sequence) {
      if (t.to.sequence > replic__believed(r, l, t.to.origin)) return 0;
      *rc = staged_up_to(r, l->peer, t.to.origin, &staged);
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

/* ---- the jump itself: 1. it is read ---- */

/* A piece that is staged, until its statement is finalized. */
typedef struct piece {
  int64_t id;
  replic_value definitions, body;
  replic__patches p;
  table_list tables;
} piece;

/* Of the origins that are lacking; they ascend. */
static int read_targets(replic *r, uint32_t source) {
  replic__sync *s = r->sync;
  replic__reader in = {s->jump + FRAME_HEAD, s->jump + s->jump_len, 0};
  uint32_t last = 0;
  size_t n = replic__get_count(&in, 5);
  s->merging = sqlite3_malloc64(sizeof *s->merging);
  if (!s->merging) return SQLITE_NOMEM;
  *s->merging = (replic__merging){.source = source};
  s->merging->targets = sqlite3_malloc64((n + 1) * sizeof *s->merging->targets);
  if (!s->merging->targets) return SQLITE_NOMEM;
  for (target t = {0}; n > 0 && next_target(&in, &last, &t); n--) {
    int64_t known = replic__vector_sequence(r, t.to.origin);
    if (t.to.sequence <= known) continue;
    t.read = t.merged = known;
    t.clock = known ? replic__vector_entry(r, t.to.origin)->now.patched_at : 0;
    t.inserted = t.stored = 0;
    s->merging->targets[s->merging->n++] = t;
  }
  return REPLIC_OK;
}

static target *find_target(const replic__merging *m, uint32_t origin) {
  size_t low = 0, high = m->n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (m->targets[middle].to.origin < origin)
      low = middle + 1;
    else
      high = middle;
  }
  return low < m->n && m->targets[low].to.origin == origin ? &m->targets[low] : NULL;
}

int replic__is_jumping(const replic *r, uint32_t origin) {
  const replic__sync *s = r->sync;
  return s->is_merging_unknown || (s->merging && find_target(s->merging, origin));
}

static int corrupt(replic *r) {
  return replic__fail(r, SQLITE_CORRUPT,
                      "_replic_staged holds what is no STAGE frame: delete its rows");
}

static int read_definitions(replic *r, piece *at) {
  const uint8_t *bytes = at->definitions.data;
  if (!at->definitions.len) return REPLIC_OK; /* a piece without patches */
  replic__reader in = {bytes, bytes + at->definitions.len, 0};
  while (in.at != in.end && !in.failed) {
    size_t n = replic__get_count(&in, 1);
    replic__reader one = {in.at, in.at + n, 0};
    in.at += n;
    remote_table *t = replic__read_definition(&one);
    if (!t) return one.failed ? corrupt(r) : SQLITE_NOMEM;
    int rc = replic__table_add(&at->tables, t);
    if (rc != REPLIC_OK) replic__free_remote_table(t);
    if (rc == REPLIC_OK) rc = replic__resolve(r, t);
    if (rc != REPLIC_OK) return rc;
  }
  return in.failed ? corrupt(r) : REPLIC_OK;
}

/* Calls `each` for the pieces of the source after `after`, until the units are used up or it fails.
 * *done: there are no more. Each is read by a statement of its own, as `each` may delete it. (The +
 * keeps SQLite from sorting all that are left for each of them.) */
static int for_pieces(replic *r, int64_t after, int (*each)(replic *r, piece *at), int *done) {
  replic__sync *s = r->sync;
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r,
                           "SELECT id, definitions, patches FROM main._replic_staged WHERE id > ?1 "
                           "AND +source = ?2 ORDER BY id LIMIT 1",
                           &stmt);
  for (*done = 0; rc == REPLIC_OK && !*done && s->units > 0;) {
    piece at = {0};
    sqlite3_bind_int64(stmt, 1, after);
    sqlite3_bind_int64(stmt, 2, s->merging->source);
    rc = sqlite3_step(stmt);
    *done = rc == SQLITE_DONE;
    if (rc != SQLITE_ROW) break;
    at.id = after = sqlite3_column_int64(stmt, 0);
    replic__column(stmt, 1, &at.definitions);
    replic__column(stmt, 2, &at.body);
    const uint8_t *bytes = at.body.data;
    replic__reader in = {bytes, bytes + at.body.len, 0};
    rc = replic__get_patches(&in, FRAME_STAGE, &at.p) ? REPLIC_OK : corrupt(r);
    if (rc == REPLIC_OK && find_target(s->merging, at.p.origin)) rc = read_definitions(r, &at);
    if (rc == REPLIC_OK) rc = each(r, &at);
    replic__tables_free(&at.tables);
    sqlite3_reset(stmt);
  }
  if (*done) rc = REPLIC_OK;
  rc = replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

/* The next patch of a piece, up to the goal, and its fields. NULL: there is none, or *rc. */
static remote_table *next_patch(replic *r, piece *at, const target *goal, const uint8_t **fields,
                                int *rc) {
  replic__patches *p = &at->p;
  *rc = REPLIC_OK;
  if (!replic__next_patch(p) || p->sequence > goal->to.sequence) {
    if (p->in.failed) *rc = corrupt(r);
    return NULL;
  }
  remote_table *t = replic__table_by_id(&at->tables, p->table_id);
  if (!t) *rc = corrupt(r);
  if (t) *rc = replic__reserve_values(r, t->n_fields);
  if (!t || *rc != REPLIC_OK) return NULL;
  *fields = p->in.at;
  replic__get_fields(&p->in, t->n_keys, t->n_fields, r->values);
  if (p->in.failed) *rc = corrupt(r);
  return p->in.failed ? NULL : t;
}

static int read_piece(replic *r, piece *at) {
  replic__sync *s = r->sync;
  replic__merging *m = s->merging;
  target *goal = find_target(m, at->p.origin);
  const uint8_t *fields;
  remote_table *t;
  int rc = REPLIC_OK, is_pending = 0;
  while (goal && (t = next_patch(r, at, goal, &fields, &rc))) {
    s->units -= replic__units_of_reading(t);
    if (at->p.sequence <= goal->read) continue; /* pieces may overlap */
    if (at->p.clock < goal->clock)
      return replic__forked(r, replic__link_find(r, s->jump_link), goal->to.origin, goal->read,
                            FALLS);
    goal->read = at->p.sequence;
    goal->clock = at->p.clock;
    if (t->table && replic__map_values(r, t)) continue;
    if (!is_pending) m->pending_bytes += (int64_t)at->definitions.len; /* once would be exact */
    is_pending = 1;
    m->pending_bytes += at->p.in.at - fields;
    rc = replic__check_pending(r, m->source, t, (size_t)m->pending_bytes);
    if (rc != REPLIC_OK) return rc;
  }
  m->piece = at->id;
  return rc;
}

/* *done: all of it has been read, and may be merged. */
static int read_pieces(replic *r, link *l, int *done) {
  replic__merging *m = r->sync->merging;
  int rc = for_pieces(r, m->piece, read_piece, done);
  for (size_t i = 0; rc == REPLIC_OK && *done && i < m->n; i++) {
    const target *t = &m->targets[i];
    if (t->to.patched_at < t->clock)
      rc = replic__forked(r, l, t->to.origin, replic__vector_sequence(r, t->to.origin), FALLS);
  }
  return rc;
}

/* ---- 2. it is merged ---- */

static int note_epochs(replic *r, replic__patches p, const target *goal) {
  int64_t known = replic__vector_sequence(r, p.origin), from = p.after;
  uint32_t epoch;
  int rc = REPLIC_OK;
  while (rc == REPLIC_OK && replic__next_epoch(&p, &from, &epoch) && from <= goal->to.sequence)
    if (from > known) {
      rc = replic__epoch_store(r, p.origin, from, epoch);
      r->sync->units -= UNITS_OF_APPLYING;
    }
  return rc;
}

static int delete_piece(replic *r, int64_t id, size_t len) {
  char *sql = sqlite3_mprintf("DELETE FROM main._replic_staged WHERE id = %lld", id);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  r->staged_changed = STAGED_UNKNOWN;
  r->sync->units -= 1 + (int64_t)(len / BYTES_OF_UNIT);
  return rc;
}

static int merge_piece(replic *r, piece *at) {
  target *goal = find_target(r->sync->merging, at->p.origin);
  const uint8_t *fields;
  remote_table *t;
  int rc = goal ? note_epochs(r, at->p, goal) : REPLIC_OK;
  while (goal && rc == REPLIC_OK && (t = next_patch(r, at, goal, &fields, &rc))) {
    if (at->p.sequence <= goal->merged) continue; /* pieces may overlap */
    goal->merged = at->p.sequence;
    int64_t duplicates = r->counters.patches_duplicate;
    const replic_position patch = {at->p.origin, at->p.sequence, at->p.clock, 0};
    rc = replic__apply_patch(r, r->sync->merging->source, t, &patch, fields,
                             (size_t)(at->p.in.at - fields));
    r->sync->units -= replic__units_of_applying(t);
    if (rc == REPLIC_OK && r->counters.patches_duplicate == duplicates) goal->inserted++;
  }
  return rc == REPLIC_OK ? delete_piece(r, at->id, at->body.len) : rc;
}

/* What other sources have brought is of no use any more. */
static int delete_others(replic *r, int *done) {
  int rc = REPLIC_OK;
  for (*done = 0; rc == REPLIC_OK && !*done && r->sync->units > 0;) {
    sqlite3_stmt *stmt = NULL;
    rc = replic__prepare(r, "SELECT id, length(patches) FROM main._replic_staged LIMIT 1", &stmt);
    if (rc != REPLIC_OK) break;
    int has_one = sqlite3_step(stmt) == SQLITE_ROW;
    int64_t id = sqlite3_column_int64(stmt, 0), len = sqlite3_column_int64(stmt, 1);
    rc = replic__fail_db(r, sqlite3_finalize(stmt));
    *done = rc == REPLIC_OK && !has_one;
    if (rc == REPLIC_OK && has_one) rc = delete_piece(r, id, (size_t)len);
  }
  return rc;
}

static int count_others(replic *r, uint32_t source) {
  int64_t others;
  char *sql = sqlite3_mprintf(
      "SELECT count(DISTINCT source) FROM main._replic_staged WHERE source <> %u", source);
  int rc = sql ? replic__int(r, sql, &others) : SQLITE_NOMEM;
  sqlite3_free(sql);
  r->counters.jumps_abandoned += rc == REPLIC_OK ? others : 0;
  return rc;
}

/* Where it ends, and how far it is: of all at first, then of what has changed. */
static int store_targets(replic *r) {
  replic__merging *m = r->sync->merging;
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(
      r,
      "INSERT OR REPLACE INTO main._replic_jump(origin, source, sequence, "
      "patchedAt, floor, inserted, last, lastAt) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
      &stmt);
  for (size_t i = 0; rc == REPLIC_OK && i < m->n; i++) {
    target *t = &m->targets[i];
    if (m->is_stored && t->stored == t->inserted) continue;
    sqlite3_bind_int64(stmt, 1, t->to.origin);
    sqlite3_bind_int64(stmt, 2, m->source);
    sqlite3_bind_int64(stmt, 3, t->to.sequence);
    sqlite3_bind_int64(stmt, 4, t->to.patched_at);
    sqlite3_bind_int64(stmt, 5, t->floor);
    sqlite3_bind_int64(stmt, 6, t->inserted);
    sqlite3_bind_int64(stmt, 7, t->read);
    sqlite3_bind_int64(stmt, 8, t->clock);
    rc = replic__step(r, stmt);
    t->stored = t->inserted;
  }
  sqlite3_finalize(stmt);
  m->is_stored = 1;
  return rc;
}

/* ---- 3. the vector moves ---- */

static int set_vector(replic *r) {
  const replic__merging *m = r->sync->merging;
  int rc = REPLIC_OK;
  for (size_t i = 0; rc == REPLIC_OK && i < m->n; i++) {
    const target *t = &m->targets[i];
    replic__entry *entry = replic__vector_entry(r, t->to.origin);
    if (!entry) return SQLITE_NOMEM;
    entry->pruned.missing += t->to.sequence - entry->now.sequence - t->inserted;
    if (!entry->now.sequence) rc = replic__bring_origin(r, m->source, entry);
    if (rc == REPLIC_OK) rc = replic__told_note(r, m->source, &t->to, t->read, t->clock);
    if (rc == REPLIC_OK) rc = replic__recheck_note(r, m->source, &entry->now);
    if (rc != REPLIC_OK) return rc;
    entry->now.sequence = t->to.sequence;
    entry->now.patched_at = t->to.patched_at;
    if (t->floor > entry->pruned.floor) entry->pruned.floor = t->floor;
    entry->due = 0;
    replic__clock_seen(&r->clock, r->now_ms, &t->to, r->peer_id);
    r->counters.patches_applied += t->inserted;
    rc = replic__epoch_latest(r, entry);
  }
  r->counters.jumps++;
  return rc == REPLIC_OK ? replic__exec(r, "DELETE FROM main._replic_jump") : rc;
}

/* As much as the units allow. *done: all of it. */
static int merge_slice(replic *r, int *done) {
  replic__sync *s = r->sync;
  int rc = replic__merge_mode(r, 1);
  if (rc == REPLIC_OK && !s->merging->is_stored) rc = count_others(r, s->merging->source);
  r->is_admitted = 1; /* by read_piece */
  if (rc == REPLIC_OK) rc = for_pieces(r, 0, merge_piece, done);
  r->is_admitted = 0;
  if (rc == REPLIC_OK && *done) rc = delete_others(r, done);
  if (rc == REPLIC_OK) rc = *done ? set_vector(r) : store_targets(r);
  return rc;
}

/* What memory knows of it, from the disk: after an undoing, too. */
static int load_merging(replic *r) {
  replic__sync *s = r->sync;
  sqlite3_stmt *stmt = NULL;
  int64_t n;
  free_merging(s);
  s->is_merging_unknown = r->is_ahead = 1;
  int rc = replic__int(r, "SELECT count(*) FROM main._replic_jump", &n);
  if (rc == REPLIC_OK && n) {
    s->merging = sqlite3_malloc64(sizeof *s->merging);
    if (!s->merging) return SQLITE_NOMEM;
    *s->merging = (replic__merging){.is_read = 1, .is_stored = 1};
    s->merging->targets = sqlite3_malloc64((size_t)n * sizeof *s->merging->targets);
    if (!s->merging->targets) return SQLITE_NOMEM;
    rc = replic__prepare(
        r,
        "SELECT origin, source, sequence, patchedAt, floor, inserted, last, lastAt FROM "
        "main._replic_jump ORDER BY origin",
        &stmt);
  }
  while (stmt && s->merging->n < (size_t)n && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    target *t = &s->merging->targets[s->merging->n++];
    *t = (target){.to = {.origin = (uint32_t)sqlite3_column_int64(stmt, 0),
                         .sequence = sqlite3_column_int64(stmt, 2),
                         .patched_at = sqlite3_column_int64(stmt, 3)},
                  .floor = sqlite3_column_int64(stmt, 4),
                  .inserted = sqlite3_column_int64(stmt, 5),
                  .read = sqlite3_column_int64(stmt, 6),
                  .clock = sqlite3_column_int64(stmt, 7)};
    s->merging->source = (uint32_t)sqlite3_column_int64(stmt, 1);
    t->merged = replic__vector_sequence(r, t->to.origin);
    t->stored = t->inserted;
  }
  sqlite3_finalize(stmt);
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  s->is_merging_unknown = rc != REPLIC_OK;
  r->is_ahead = s->merging != NULL || s->is_merging_unknown;
  return rc;
}

/* The text of a failure stays that of the failure. */
static void reload_merging(replic *r) {
  char *text = r->error;
  r->error = NULL;
  load_merging(r);
  sqlite3_free(r->error);
  r->error = text;
}

void replic__jump_reverted(replic *r) {
  if (r->sync->has_merged || r->sync->is_merging_unknown) reload_merging(r);
  r->sync->has_merged = 0;
}

void replic__jump_settle(replic *r) {
  r->sync->has_merged = 0;
}

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
  free_merging(s);
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
    rc = merge_slice(r, &done);
    rc = replic__savepoint_end(r, &save, rc);
    if (rc == REPLIC_OK) r->is_ahead = 1;
    if (rc != REPLIC_OK && !r->lost) reload_merging(r);
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
    rc = read_targets(r, l->peer);
    s->has_merged = 1; /* pieces of this batch are undone with it */
  }
  if (rc == REPLIC_OK) rc = read_pieces(r, l, may_merge);
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
  if (s->is_merging_unknown && load_merging(r) != REPLIC_OK) return rc;
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
  rc = merge_slice(r, &done);
  if (rc == REPLIC_OK) end_merging(r);
  return rc;
}

/* ---- sending ---- */

static void send_jump(replic *r, link *l) {
  replic__writer w;
  uint64_t n = 0;
  replic__put_frame(&w, FRAME_JUMP);
  for (size_t i = 0; i < r->n_vector; i++) n += r->vector[i].committed.sequence > 0;
  replic__put_varint(&w, n);
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic__entry *entry = &r->vector[i];
    if (!entry->committed.sequence) continue;
    replic__put_varint(&w, entry->committed.origin);
    replic__put_varint(&w, (uint64_t)entry->committed.sequence);
    replic__put_varint(&w, (uint64_t)entry->committed.patched_at);
    replic__put_varint(&w, entry->committed.epoch);
    replic__put_varint(&w, (uint64_t)entry->pruned.floor);
  }
  l->jump_due = 0;
  l->jump_ms = r->now_ms;
  replic__send(r, l, replic__finish_frame(&w));
}

/* What is staged from the link's peer: of each origin, (origin, staged up to). */
static int put_staged(replic *r, const link *l, replic__writer *list, uint64_t *n) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r,
                           "SELECT origin, max(upTo) FROM main._replic_staged WHERE source = ?1 "
                           "GROUP BY origin ORDER BY origin",
                           &stmt);
  if (rc == REPLIC_OK) sqlite3_bind_int64(stmt, 1, l->peer);
  for (; rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW; ++*n, rc = REPLIC_OK) {
    replic__put_varint(list, (uint64_t)sqlite3_column_int64(stmt, 0));
    replic__put_varint(list, (uint64_t)sqlite3_column_int64(stmt, 1));
  }
  sqlite3_finalize(stmt);
  return rc == SQLITE_DONE ? REPLIC_OK : rc;
}

/* The same, but only of those that a piece has come of since that was told last. */
static int put_news(replic *r, const link *l, replic__writer *list, uint64_t *n) {
  int rc = REPLIC_OK;
  for (size_t i = 0; rc == REPLIC_OK && i < l->n_at; i++) {
    int64_t staged;
    if (!l->at[i].take_due) continue;
    rc = staged_up_to(r, l->peer, l->at[i].origin, &staged);
    if (rc != REPLIC_OK || !staged) continue;
    replic__put_varint(list, l->at[i].origin);
    replic__put_varint(list, (uint64_t)staged);
    ++*n;
  }
  return rc;
}

/* Who asks for more tells all, so that one that arrives makes up for those that did not. */
static void send_take(replic *r, link *l) {
  replic__writer w, list = {0};
  uint64_t n = 0;
  int again = l->take_due == TAKE_AGAIN;
  int rc = again ? put_staged(r, l, &list, &n) : put_news(r, l, &list, &n);
  replic_frame *entries = replic__finish(&list);
  if (rc == REPLIC_OK && !list.failed) {
    replic__put_frame(&w, FRAME_TAKE);
    replic__put_varint(&w, (uint64_t)again);
    replic__put_varint(&w, n);
    if (entries) replic__put_bytes(&w, entries->data, entries->len);
    l->take_due = 0; /* else with the next flush */
    for (size_t i = 0; i < l->n_at; i++) l->at[i].take_due = 0;
    replic__send(r, l, replic__finish_frame(&w));
  }
  replic__frame_release(entries);
}

static void send_on_from_there(replic *r, link *l) {
  for (size_t i = 0; i < l->n_at; i++) {
    position *at = &l->at[i];
    int64_t from = at->staged > at->acked ? at->staged : at->acked;
    if (!at->staging) continue;
    l->unacked -= at->unacked; /* nothing is on its way any more, also where all is staged */
    at->unacked = 0;
    if (at->sent <= from) continue;
    replic__count_again(r, l, at->sent - from);
    at->sent = from;
  }
  replic__define_again(r, l);
  l->jump_due = 1;
}

void replic__take_again(replic *r, link *l) {
  if (!l->wants_again || !replic__is_heartbeat_past(r, l->again_ms)) return;
  l->wants_again = 0;
  l->again_ms = r->now_ms;
  replic__carry_over(r, l);
  send_on_from_there(r, l);
}

/* It has no more than that: what is not in the list, nothing of. */
static void set_back(link *l, replic__reader list) {
  uint32_t last = 0;
  size_t i = 0;
  for (size_t n = replic__get_count(&list, 2); n > 0; n--) {
    uint32_t origin = replic__get_origin(&list, &last);
    int64_t staged = replic__get_sequence(&list);
    for (; i < l->n_at && l->at[i].origin < origin; i++) l->at[i].staged = 0;
    if (i == l->n_at || l->at[i].origin > origin) continue;
    if (l->at[i].staged > staged) l->at[i].staged = staged;
    i++;
  }
  for (; i < l->n_at; i++) l->at[i].staged = 0;
}

int replic__on_take(replic *r, link *l, replic__reader *in) {
  int wants_again = (int)replic__get_varint(in, 1);
  const replic__reader list = *in;
  uint32_t last = 0;
  l->taking = 1;
  for (size_t n = replic__get_count(in, 2); n > 0 && !in->failed; n--) {
    uint32_t origin = replic__get_origin(in, &last);
    int64_t staged = replic__get_sequence(in);
    if (in->failed) return replic__malformed(r, l, "TAKE");
    position *at = replic__position(l, origin);
    int rc = at ? REPLIC_OK : replic__no_position(r, l, origin);
    if (rc != REPLIC_OK) return rc;
    if (!at) continue;
    if (staged > replic__vector_sequence(r, origin) || staged <= at->staged) continue;
    int64_t from = at->staged > at->acked ? at->staged : at->acked;
    if (at->staging && at->sent > from && staged > from) {
      int64_t unacked =
          staged >= at->sent ? 0 : at->unacked / (at->sent - from) * (at->sent - staged);
      l->unacked -= at->unacked - unacked;
      at->unacked = unacked;
    }
    at->staged = staged;
  }
  if (in->failed || in->at != in->end) return replic__malformed(r, l, "TAKE");
  if (wants_again) set_back(l, list);
  l->wants_again |= wants_again;
  replic__take_again(r, l);
  return REPLIC_OK;
}

/* Everything that the peer lacks is on its way. */
static int all_sent(const replic *r, link *l) {
  for (size_t i = 0, p = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    const position *at = replic__next_position(l, mine->origin, &p);
    if (!at || (mine->origin != l->peer && at->acked < mine->sequence && at->sent < mine->sequence))
      return 0;
  }
  return 1;
}

void replic__flush_jump(replic *r, link *l) {
  if (l->take_due && !r->sync->merging) send_take(r, l);
  if (!l->below) {
    l->taking = l->jump_due = 0;
    return;
  }
  int due =
      l->jump_due || r->now_ms < l->jump_ms || r->now_ms - l->jump_ms >= r->config.heartbeat_ms;
  if (due && (!l->taking || all_sent(r, l))) send_jump(r, l);
}

int replic__jump_load(replic *r) {
  int64_t n;
  int rc = load_merging(r);
  for (size_t i = 0; r->sync->merging && i < r->sync->merging->n; i++) {
    const replic_position *to = &r->sync->merging->targets[i].to; /* no patch of it is later */
    replic__clock_seen(&r->clock, r->now_ms, to, 0);
    replic__is_newest(r, to);
  }
  if (rc == REPLIC_OK) rc = replic__int(r, "SELECT count(*) FROM main._replic_staged", &n);
  if (rc != REPLIC_OK) return rc;
  r->sync->staged = n > 0;
  r->staged_changed = n > 0 ? STAGED_UNKNOWN : 0;
  return rc;
}

/* Of so many pieces a heartbeat. */
enum { STAGED_LOOKED_AT = 1000 };

/* Of the next ones: those that have come another way. */
static int let_go(replic *r, int64_t *removed) {
  replic__sync *s = r->sync;
  int64_t last = 0;
  char *sql = sqlite3_mprintf("SELECT coalesce((SELECT id FROM main._replic_staged WHERE id > %lld "
                              "ORDER BY id LIMIT 1 OFFSET %d), 0)",
                              s->staged_at, STAGED_LOOKED_AT - 1);
  int rc = sql ? replic__int(r, sql, &last) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (rc != REPLIC_OK) return rc;
  sql =
      sqlite3_mprintf("DELETE FROM main._replic_staged WHERE id > %lld AND id <= %lld AND upTo <= "
                      "(SELECT sequence FROM main._replic_vector AS v WHERE v.origin = "
                      "_replic_staged.origin)",
                      s->staged_at, last ? last : INT64_MAX);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  *removed = sqlite3_changes64(r->db);
  s->staged_at = last; /* 0: these were the last ones */
  return rc;
}

/* Of sources that have brought nothing more for long. */
static int expire_staged(replic *r, int64_t *removed) {
  int64_t before_ms = r->now_ms - r->config.max_staged_retention_ms;
  char *sql =
      sqlite3_mprintf("DELETE FROM main._replic_sources WHERE progressAt < %lld OR NOT EXISTS "
                      "(SELECT 1 FROM main._replic_staged AS s WHERE s.source = "
                      "_replic_sources.source)",
                      before_ms);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (rc != REPLIC_OK || !sqlite3_changes64(r->db)) return rc;
  rc = replic__exec(r, "DELETE FROM main._replic_staged WHERE source NOT IN (SELECT source FROM "
                       "main._replic_sources)");
  if (sqlite3_changes64(r->db)) replic__jump_over(r->sync); /* it rests on what was there */
  *removed += sqlite3_changes64(r->db);
  return rc;
}

/* What was staged, and has come another way, or comes no more, is let go. */
int replic__tick_jump(replic *r) {
  replic__sync *s = r->sync;
  replic__savepoint save;
  int64_t left = 0, removed = 0;
  if (!s->staged || s->merging) return REPLIC_OK;
  int rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = let_go(r, &removed);
  if (rc == REPLIC_OK) rc = expire_staged(r, &removed);
  if (removed && !r->staged_changed) r->staged_changed = STAGED_LESS;
  if (rc == REPLIC_OK)
    rc = replic__int(r, "SELECT EXISTS (SELECT 1 FROM main._replic_staged)", &left);
  rc = replic__savepoint_end(r, &save, rc);
  if (rc != REPLIC_OK || left > 0) return rc;
  s->staged = removed > 0; /* a commit that fails leaves them for the next tick */
  if (!removed) return rc; /* a jump has taken them */
  r->counters.jumps_abandoned++;
  replic__jump_over(s);
  return rc;
}

/* staging.c - STAGE and TAKE: pieces of a jump are kept in _replic_staged, invisible, until it is
 * covered, and the source is told of them. See jump.c. */
#include "links/links.h"

/* ---- _replic_staged ---- */

int replic__staged_up_to(replic *r, uint32_t source, uint32_t origin, int64_t *up_to) {
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

/* ---- asking for more ---- */

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

void replic__want_take(replic *r, link *l, int due) {
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
  int rc = replic__staged_up_to(r, l->peer, at->origin, &staged);
  if (rc != REPLIC_OK) return rc;
  if (replic__vector_sequence(r, at->origin) >= sent) {
    at->told = 0;
    l->ack_due = 1;
  } else if (staged >= sent) {
    at->take_due = 1;
    if (!l->take_due) l->take_due = TAKE_TOLD;
    replic__want_take(r, l, TAKE_TOLD);
  } else if (!at->held) { /* else it is asked for now and then (replic_tick) */
    replic__want_take(r, l, TAKE_AGAIN);
  }
  return REPLIC_OK;
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
    replic__hold_jump(r, l, replic__position(l, p->origin), BROUGHT_STAGED, (int64_t)all);
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

static void note_progress(replic *r, const link *l, size_t len) {
  replic__sync *s = r->sync;
  if (l->id != s->jump_link) return;
  s->jump_bytes += len;
  if (s->jump_bytes < r->config.slice_bytes) return;
  s->jump_bytes = 0;
  s->jump_ms = r->now_ms;
}

void replic__hold_jump(replic *r, link *l, position *at, int what, int64_t n) {
  char *text = replic__quota_text(r, l->peer, what, n);
  replic__hold(r, l, at, REPLIC_EQUOTA, replic__vector_sequence(r, at->origin), OF_A_JUMP,
               text ? text : "");
  sqlite3_free(text);
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
  if (rc == REPLIC_OK) rc = replic__staged_up_to(r, l->peer, p.origin, &staged);
  if (rc == REPLIC_OK) {
    known = replic__vector_sequence(r, p.origin);
    if (known < staged) known = staged;
    at->take_due = 1;
    if (!l->take_due) l->take_due = TAKE_TOLD;
    if (p.after > known || undefined) {
      if (undefined || !at->held) replic__want_take(r, l, TAKE_AGAIN);
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

/* ---- TAKE ---- */

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
    rc = replic__staged_up_to(r, l->peer, l->at[i].origin, &staged);
    if (rc != REPLIC_OK || !staged) continue;
    replic__put_varint(list, l->at[i].origin);
    replic__put_varint(list, (uint64_t)staged);
    ++*n;
  }
  return rc;
}

/* Who asks for more tells all, so that one that arrives makes up for those that did not. */
void replic__send_take(replic *r, link *l) {
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

/* ---- what comes no more ---- */

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

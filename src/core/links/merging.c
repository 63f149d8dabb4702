/* merging.c - a jump that is covered is read, then merged, as far as the units allow. The three
 * steps stand on top of jump.c. */
#include <string.h>

#include "links/links.h"

/* ---- 1. it is read ---- */

/* A piece that is staged, until its statement is finalized. */
typedef struct piece {
  int64_t id;
  replic_value definitions, body;
  replic__patches p;
  table_list tables;
} piece;

int replic__next_target(replic__reader *in, uint32_t *last, target *t) {
  replic__get_position(in, last, &t->to);
  t->floor = replic__get_sequence(in);
  if (t->floor > t->to.sequence) in->failed = 1;
  return !in->failed;
}

/* Of the origins that are lacking; they ascend. */
int replic__read_targets(replic *r, uint32_t source) {
  replic__sync *s = r->sync;
  replic__reader in = {s->jump + FRAME_HEAD, s->jump + s->jump_len, 0};
  uint32_t last = 0;
  size_t n = replic__get_count(&in, 5);
  s->merging = sqlite3_malloc64(sizeof *s->merging);
  if (!s->merging) return SQLITE_NOMEM;
  *s->merging = (replic__merging){.source = source};
  s->merging->targets = sqlite3_malloc64((n + 1) * sizeof *s->merging->targets);
  if (!s->merging->targets) return SQLITE_NOMEM;
  for (target t = {0}; n > 0 && replic__next_target(&in, &last, &t); n--) {
    int64_t known = replic__vector_sequence(r, t.to.origin);
    if (t.to.sequence <= known) continue;
    t.read = t.merged = known;
    t.clock = known ? replic__vector_entry(r, t.to.origin)->now.patched_at : 0;
    t.inserted = t.stored = 0;
    s->merging->targets[s->merging->n++] = t;
  }
  return REPLIC_OK;
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
    if (rc == REPLIC_OK && replic__find_target(s->merging, at.p.origin))
      rc = read_definitions(r, &at);
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
  target *goal = replic__find_target(m, at->p.origin);
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
int replic__read_pieces(replic *r, link *l, int *done) {
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
  target *goal = replic__find_target(r->sync->merging, at->p.origin);
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

/* Each is noted until it was compared with another peer (recheck.c). While an origin is fetched
 * again, what comes of it is no other jump. */
static int note_jump(replic *r, uint32_t source, const replic_position *before) {
  if (source == before->origin) return REPLIC_OK; /* it knows best */
  char *sql =
      sqlite3_mprintf("INSERT OR IGNORE INTO main._replic_jumped(origin, source, "
                      "sequence, patchedAt) SELECT %u, %u, %lld, %lld WHERE NOT EXISTS "
                      "(SELECT 1 FROM main._replic_jumped WHERE origin = %u AND again)",
                      before->origin, source, before->sequence, before->patched_at, before->origin);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

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
    if (rc == REPLIC_OK) rc = note_jump(r, m->source, &entry->now);
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
int replic__merge_slice(replic *r, int *done) {
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

/* ---- what memory knows of it ---- */

/* What memory knows of it, from the disk: after an undoing, too. */
int replic__load_merging(replic *r) {
  replic__sync *s = r->sync;
  sqlite3_stmt *stmt = NULL;
  int64_t n;
  replic__free_merging(s);
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
void replic__reload_merging(replic *r) {
  char *text = r->error;
  r->error = NULL;
  replic__load_merging(r);
  sqlite3_free(r->error);
  r->error = text;
}

void replic__jump_reverted(replic *r) {
  if (r->sync->has_merged || r->sync->is_merging_unknown) replic__reload_merging(r);
  r->sync->has_merged = 0;
}

void replic__jump_settle(replic *r) {
  r->sync->has_merged = 0;
}

int replic__jump_load(replic *r) {
  int64_t n;
  int rc = replic__load_merging(r);
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

/* heal.c - this file yields: it goes back to what a forked origin has in common with everybody, and
 * issues what it alone may have of it under its own new peerId. When that is done, and why it ends,
 * fork.c says. It runs at open, before there are links. */
#include "data/mixed.h"
#include "state.h"

/* ---- the vector goes back ---- */

static int count_patch(void *ctx, const replic__patch *p) {
  (void)p;
  ++*(int64_t *)ctx;
  return REPLIC_OK;
}

int replic__vector_back(replic *r, uint32_t origin, int64_t to, int64_t patched_at) {
  int64_t kept = 0;
  int rc = replic__log_read(r, origin, 0, REPLIC_MAX_SEQUENCE, count_patch, &kept);
  replic__entry *entry = rc == REPLIC_OK ? replic__vector_entry(r, origin) : NULL;
  if (!entry) return rc == REPLIC_OK ? SQLITE_NOMEM : rc;
  replic__pruned *pruned = &entry->pruned;
  entry->now.sequence = to;
  entry->now.patched_at = patched_at;
  entry->due = 0;
  if (entry->elsewhere > to) entry->elsewhere = to;
  for (int i = 0; i < REPLIC__MARKS; i++)
    if (entry->marks[i].sequence > to) entry->marks[i].sequence = to;
  if (pruned->floor > to) pruned->floor = to;
  if (pruned->cursor > to) pruned->cursor = to;
  pruned->missing = to - kept;
  return replic__epochs_cut(r, origin, to);
}

/* ---- what is issued again ---- */

typedef struct history {
  uint32_t origin;
  replic_position common;
  int64_t parted;
  int64_t issued, last; /* issued anew up to here, of so many */
  int64_t clock;        /* of the next one; 0: not known yet */
} history;

typedef struct healing {
  replic *r;
  replic_position to; /* what this peer has issued anew */
  int64_t pruned;     /* no patch that is stamped later has been pruned here */
  history *histories;
  size_t n;
  history *at;   /* whose patches are issued at present, */
  int64_t limit; /* as long as they are not stamped later */
} healing;

static int issue_anew(void *ctx, const replic__patch *p) {
  healing *h = ctx;
  replic *r = h->r;
  int duplicate;
  h->at->clock = p->patched_at;
  if (p->patched_at > h->limit) return SQLITE_DONE;
  h->at->issued = p->sequence;
  /* Of patches with one clock the greater peerId wins. Where the new one is the lesser, others that
   * were superseded here, and are gone, would win everywhere else. */
  int64_t patched_at = p->patched_at + (r->peer_id < p->origin && p->patched_at <= h->pruned);
  if (patched_at > h->to.patched_at) h->to.patched_at = patched_at;
  h->to.sequence++;
  replic__patch anew = *p;
  int rc = REPLIC_OK;
  anew.origin = r->peer_id;
  anew.sequence = h->to.sequence;
  anew.patched_at = h->to.patched_at;
  replic__is_newest(r, &h->to);
  if (p->raw) rc = replic__pending_move(r, p, &anew);
  if (rc == REPLIC_OK && p->table) rc = replic__log_insert(r, &anew, &duplicate);
  if (rc == REPLIC_OK && p->table) rc = replic__log_delete(r, p);
  if (rc == REPLIC_OK && p->table) rc = replic__merge_again(r, &anew);
  r->counters.forks_healed++;
  return rc;
}

/* A merge of the histories in the order of their clocks, as within an origin these never fall. */
static int issue_all(healing *h) {
  for (;;) {
    h->at = NULL;
    h->limit = REPLIC_MAX_CLOCK;
    for (size_t i = 0; i < h->n; i++) {
      history *one = &h->histories[i];
      if (one->issued >= one->last) continue;
      if (!h->at || one->clock < h->at->clock) {
        if (h->at) h->limit = h->at->clock;
        h->at = one;
      } else if (one->clock < h->limit) {
        h->limit = one->clock;
      }
    }
    if (!h->at) return REPLIC_OK;
    int rc = replic__log_read(h->r, h->at->origin, h->at->issued, h->at->last, issue_anew, h);
    if (rc == REPLIC_OK) h->at->issued = h->at->last;
    if (rc != REPLIC_OK && rc != SQLITE_DONE) return rc;
  }
}

static int take_first(void *ctx, const replic__patch *p) {
  replic_position *first = ctx;
  first->sequence = p->sequence;
  first->patched_at = p->patched_at;
  return SQLITE_DONE;
}

/* What it has refused so far may be what everybody else keeps. From now on it is the history that
 * is given up here: the first patch of it that the others have not, and that is not pruned. */
static int drop(replic *r, const history *one) {
  uint32_t origin = one->origin;
  replic_position at = {.sequence = one->last,
                        .patched_at = replic__vector_entry(r, origin)->now.patched_at};
  char *sql = sqlite3_mprintf("DELETE FROM main._replic_dropped WHERE origin = %u", origin);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (rc != REPLIC_OK || one->parted <= one->common.sequence || one->parted > one->last) return rc;
  rc = replic__log_read(r, origin, one->parted - 1, one->last, take_first, &at);
  if (rc == REPLIC_OK || rc == SQLITE_DONE)
    rc = replic__epoch_at(r, origin, at.sequence, &at.epoch);
  if (rc != REPLIC_OK) return rc;
  sql = sqlite3_mprintf("INSERT INTO main._replic_dropped(origin, sequence, patchedAt, epoch) "
                        "VALUES(%u, %lld, %lld, %u)",
                        origin, at.sequence, at.patched_at, at.epoch);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

/* The vector goes back to what is common. */
static int set_back(replic *r, const history *one) {
  if (one->last <= one->common.sequence) return REPLIC_OK;
  return replic__vector_back(r, one->origin, one->common.sequence, one->common.patched_at);
}

static int read_histories(healing *h) {
  replic *r = h->r;
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(
      r, "SELECT origin, common, patchedAt, parted FROM main._replic_forks ORDER BY origin", &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    history one = {.origin = (uint32_t)sqlite3_column_int64(stmt, 0),
                   .common = {.sequence = sqlite3_column_int64(stmt, 1),
                              .patched_at = sqlite3_column_int64(stmt, 2)},
                   .parted = sqlite3_column_int64(stmt, 3)};
    one.issued = one.common.sequence;
    one.last = replic__vector_sequence(r, one.origin);
    history *grown = sqlite3_realloc64(h->histories, (h->n + 1) * sizeof *grown);
    rc = grown ? REPLIC_OK : SQLITE_NOMEM;
    if (!grown) break;
    h->histories = grown;
    h->histories[h->n++] = one;
  }
  if (rc == SQLITE_DONE) rc = REPLIC_OK;
  rc = replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

/* The latest stamp that retention has reached. */
static int find_pruned(healing *h) {
  for (size_t i = 0; i < h->r->n_vector; i++) {
    const replic__entry *entry = &h->r->vector[i];
    int64_t low, high, cursor = entry->pruned.cursor;
    if (!entry->pruned.floor) continue;
    int rc = replic__log_bounds(h->r, entry->now.origin, cursor, &low, &high);
    if (rc != REPLIC_OK) return rc;
    if (high > entry->now.patched_at) high = entry->now.patched_at;
    if (high > h->pruned) h->pruned = high;
  }
  return REPLIC_OK;
}

int replic__fork_heal(replic *r) {
  healing h = {.r = r, .to = replic__vector_entry(r, r->peer_id)->now};
  int rc = replic__merge_mode(r, 1);
  if (rc == REPLIC_OK) rc = find_pruned(&h);
  if (rc == REPLIC_OK) rc = read_histories(&h);
  for (size_t i = 0; rc == REPLIC_OK && i < h.n; i++) rc = drop(r, &h.histories[i]);
  if (rc == REPLIC_OK) rc = issue_all(&h);
  for (size_t i = 0; rc == REPLIC_OK && i < h.n; i++) rc = set_back(r, &h.histories[i]);
  sqlite3_free(h.histories);
  if (rc != REPLIC_OK) return rc;
  replic__entry *self = replic__vector_entry(r, r->peer_id);
  if (h.to.sequence > self->now.sequence)
    rc = replic__epoch_note(r, r->peer_id, self->now.sequence + 1, r->config.new_peer_id);
  if (rc != REPLIC_OK) return rc;
  self->now.sequence = h.to.sequence;
  self->now.patched_at = h.to.patched_at;
  /* what was staged follows what was given up */
  rc = replic__exec(r, "DELETE FROM main._replic_forks; DELETE FROM main._replic_staged");
  return rc == REPLIC_OK ? replic__vector_store(r) : rc;
}

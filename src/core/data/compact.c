/* compact.c - retention by supersession (docs/architecture.md, Retention): which patches the log
 * needs no more.
 *
 *   a patch that came of age is deleted when it wins no cell any more
 *   that a row exists counts as a cell: the newest patch of a key stays
 *
 * So the log goes on describing the whole state: whatever arrives later, however old, is merged as
 * if nothing had been deleted. Within an origin clocks grow with the sequence, so per origin a
 * cursor says up to where patches have come of age and been looked at; no patch is looked at twice.
 * What is looked at is one key of the log:
 *
 *   1. newer patches set all that this one sets: delete it. Together with the older ones it can
 *      supersede nothing that the newer ones do not supersede by themselves.
 *   2. otherwise go through the older ones, the newest first, and delete those whose columns are
 * all set by what is newer. They are of age, as they are older than one that is.
 *
 * Whichever of the patches that supersede another one together is looked at last, finds it. A hot
 * key is cheap: step 1 ends at the first newer patch that sets the same columns.
 *
 * What is pending (kept.c) stays, unless a step up has taken it away here more than
 * max_pending_retention_ms ago.
 *
 * The highest sequence deleted of an origin is its floor: below it plain frames cannot serve a peer
 * any more (jump.c). */
#include <string.h>

#include "data/mixed.h"
#include "state.h"

typedef struct slice {
  replic *r;
  replic_compaction *out;
  int64_t older_than_ms, left;
  unsigned char *covered; /* per field: a newer patch sets it */
  int found;              /* by look_again */
} slice;

static void note_removed(slice *s, uint32_t origin, int64_t sequence) {
  replic__entry *entry = replic__vector_entry(s->r, origin);
  if (sequence > entry->pruned.floor) entry->pruned.floor = sequence;
  entry->pruned.missing++;
  s->r->counters.patches_pruned++;
  s->out->removed++;
}

static int delete_patch(slice *s, const replic__patch *p) {
  int pending, rc = replic__pending_exists(s->r, p->origin, p->sequence, &pending);
  if (rc != REPLIC_OK || pending) return rc; /* somebody may need what this schema cannot hold */
  note_removed(s, p->origin, p->sequence);
  return replic__log_delete(s->r, p);
}

/* Step 2, for one of them. */
static int look_at_older(void *ctx, const replic__patch *older) {
  slice *s = ctx;
  int wins = 0;
  for (int i = older->table->n_keys; i < older->table->n_fields; i++) {
    if (older->values[i].type == REPLIC_UNSET || s->covered[i]) continue;
    s->covered[i] = 1;
    wins = 1;
  }
  return wins ? REPLIC_OK : delete_patch(s, older);
}

static int prune_key(slice *s, const replic__patch *p) {
  const replic__table *t = p->table;
  unsigned char *take = t->take;
  size_t n_cells = (size_t)(t->n_fields - t->n_keys);
  int newer;
  for (int i = 0; i < t->n_fields; i++) take[i] = p->values[i].type != REPLIC_UNSET;
  int rc = replic__log_newer(s->r, p, take, &newer);
  if (rc != REPLIC_OK) return rc;
  if (newer && !memchr(take + t->n_keys, 1, n_cells)) return delete_patch(s, p);

  memset(take, 1, (size_t)t->n_fields);
  if (newer) rc = replic__log_newer(s->r, p, take, &newer);
  if (rc != REPLIC_OK) return rc;
  for (int i = t->n_keys; i < t->n_fields; i++)
    take[i] = !take[i] || p->values[i].type != REPLIC_UNSET;
  s->covered = take;
  return replic__log_older(s->r, p, look_at_older, s);
}

static int look_at(void *ctx, const replic__patch *p) {
  slice *s = ctx;
  if (p->patched_at >= s->older_than_ms) {
    replic__vector_entry(s->r, p->origin)->due = p->patched_at;
    return SQLITE_DONE;
  }
  if (!s->left) return SQLITE_DONE;
  s->left--;
  s->out->examined++;
  replic__vector_entry(s->r, p->origin)->pruned.cursor = p->sequence;
  return p->table ? prune_key(s, p) : REPLIC_OK; /* none: it is pending */
}

static int look_again(void *ctx, const replic__patch *p) {
  slice *s = ctx;
  s->found = 1;
  return p->table && !s->r->is_ahead ? prune_key(s, p) : REPLIC_OK;
}

static int forget_one(slice *s, uint32_t origin, int64_t sequence) {
  int rc = replic__pending_forget(s->r, origin, sequence);
  s->found = 0;
  if (rc == REPLIC_OK) rc = replic__log_read(s->r, origin, sequence - 1, sequence, look_again, s);
  if (rc != REPLIC_OK) return rc;
  if (!s->found) note_removed(s, origin, sequence);
  return rc;
}

/* What steps up have taken away, and what is old enough, is not pending any more: what the log has
 * of such a patch is all, and is looked at once more. */
static int forget_past(slice *s) {
  int64_t cutoff = s->r->now_ms - s->r->config.max_pending_retention_ms, sequence;
  if (cutoff > s->older_than_ms) cutoff = s->older_than_ms;
  for (; s->left > 0; s->left--, s->out->examined++) {
    uint32_t origin;
    int rc = replic__pending_oldest(s->r, cutoff, &origin, &sequence);
    if (rc != REPLIC_OK) return rc;
    if (!origin) { /* counted once they are all gone */
      s->r->recount |= s->r->forgotten;
      s->r->forgotten = 0;
      return REPLIC_OK;
    }
    rc = forget_one(s, origin, sequence);
    if (rc != REPLIC_OK) return rc;
    s->r->forgotten = 1;
  }
  return REPLIC_OK;
}

int replic__forget_pending(replic *r, uint32_t origin, int64_t *n) {
  replic_compaction out = {0};
  slice s = {.r = r, .out = &out};
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r,
                           "SELECT origin, sequence FROM main._replic_pending WHERE ?1 IN (0, "
                           "origin) LIMIT 1",
                           &stmt);
  if (rc == REPLIC_OK) sqlite3_bind_int64(stmt, 1, origin);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    uint32_t of = (uint32_t)sqlite3_column_int64(stmt, 0);
    int64_t sequence = sqlite3_column_int64(stmt, 1);
    sqlite3_reset(stmt);
    rc = forget_one(&s, of, sequence);
    ++*n;
  }
  rc = rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  r->recount |= *n > 0;
  return rc;
}

static int compact_origin(slice *s, uint32_t origin) {
  const replic__entry *entry = replic__vector_entry(s->r, origin);
  int64_t up_to = entry->now.sequence;
  if (entry->pruned.cursor >= up_to || entry->due >= s->older_than_ms) return REPLIC_OK;
  int rc = replic__log_read(s->r, origin, entry->pruned.cursor, up_to, look_at, s);
  if (rc == REPLIC_OK) /* none is left, though some may have been deleted by hand */
    replic__vector_entry(s->r, origin)->pruned.cursor = up_to;
  return rc == SQLITE_DONE ? REPLIC_OK : rc;
}

int replic__log_is_ahead(replic *r, int *is) {
  static const char SQL[] =
      "SELECT EXISTS (SELECT 1 FROM main._replic_jumped AS j WHERE upTo > coalesce((SELECT "
      "sequence FROM main._replic_vector AS v WHERE v.origin = j.origin), 0))";
  int64_t found = 0;
  int rc = r->is_ahead ? REPLIC_OK : replic__int(r, SQL, &found);
  *is = r->is_ahead || found;
  return rc;
}

int replic_compact(replic *r, int64_t older_than_ms, int64_t max_patches, replic_compaction *out) {
  replic__savepoint save;
  *out = (replic_compaction){0};
  int is_ahead, rc = replic__log_is_ahead(r, &is_ahead);
  if (rc != REPLIC_OK || is_ahead) return rc; /* what is beyond must supersede nothing yet */
  slice s = {.r = r, .out = out, .older_than_ms = older_than_ms, .left = max_patches};
  rc = replic__savepoint_open(r, 0, &save);
  if (rc != REPLIC_OK) return rc;
  rc = forget_past(&s);
  for (size_t i = 0; rc == REPLIC_OK && i < r->n_vector; i++)
    rc = compact_origin(&s, r->vector[i].now.origin);
  out->done = s.left > 0;
  return replic__savepoint_end(r, &save, rc);
}

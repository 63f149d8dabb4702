/* compact.c - retention by supersession (DESIGN §3): which patches the log needs no more.
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
 * The highest sequence deleted of an origin is its floor: below it plain frames cannot serve a peer
 * any more (jump.c). */
#include <string.h>

#include "core.h"

typedef struct slice {
  replic *r;
  replic_compaction *out;
  int64_t older_than_ms, left;
  unsigned char *covered; /* per field: a newer patch sets it */
} slice;

static int delete_patch(slice *s, const replic__patch *p) {
  replic__entry *entry = replic__vector_entry(s->r, p->origin);
  int pending, rc = replic__pending_exists(s->r, p->origin, p->sequence, &pending);
  if (!entry) return SQLITE_NOMEM;
  if (rc != REPLIC_OK || pending) return rc; /* somebody may need what this schema cannot hold */
  if (p->sequence > entry->pruned.floor) entry->pruned.floor = p->sequence;
  entry->pruned.missing++;
  s->r->counters.patches_pruned++;
  s->out->removed++;
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

static int look_at(void *ctx, const replic__patch *p) {
  slice *s = ctx;
  const replic__table *t = p->table;
  if (p->patched_at >= s->older_than_ms) {
    replic__vector_entry(s->r, p->origin)->due = p->patched_at;
    return SQLITE_DONE;
  }
  if (!s->left) return SQLITE_DONE;
  s->left--;
  s->out->examined++;
  replic__vector_entry(s->r, p->origin)->pruned.cursor = p->sequence;
  if (!t) return REPLIC_OK; /* pending */

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

static int compact_origin(slice *s, uint32_t origin) {
  const replic__entry *entry = replic__vector_entry(s->r, origin);
  int64_t up_to = entry->now.sequence;
  if (entry->pruned.cursor >= up_to || entry->due >= s->older_than_ms) return REPLIC_OK;
  int rc = replic__log_read(s->r, origin, entry->pruned.cursor, up_to, look_at, s);
  if (rc == REPLIC_OK) /* none is left, though some may have been deleted by hand */
    replic__vector_entry(s->r, origin)->pruned.cursor = up_to;
  return rc == SQLITE_DONE ? REPLIC_OK : rc;
}

int replic_compact(replic *r, int64_t older_than_ms, int64_t max_patches, replic_compaction *out) {
  replic__savepoint save;
  *out = (replic_compaction){0};
  slice s = {.r = r, .out = out, .older_than_ms = older_than_ms, .left = max_patches};
  int rc = replic__savepoint_open(r, 0, &save);
  if (rc != REPLIC_OK) return rc;
  for (size_t i = 0; rc == REPLIC_OK && i < r->n_vector; i++)
    rc = compact_origin(&s, r->vector[i].now.origin);
  out->done = s.left > 0;
  return replic__savepoint_end(r, &save, rc);
}

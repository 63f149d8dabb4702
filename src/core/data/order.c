/* order.c - the log in the order of sequences: an origin's patches from all tables, and the clocks
 * of single ones. */
#include "data/mixed.h"
#include "state.h"

/* Steps one table's cursor; `*sequence` is its head, 0 at its end. */
static int advance(replic *r, replic__table *t, sqlite3_stmt *stmt, int64_t *sequence) {
  int rc = sqlite3_step(stmt);
  *sequence = rc == SQLITE_ROW ? sqlite3_column_int64(stmt, t->n_fields + 3) : 0;
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

/* The head of what is pending, which is one more cursor. */
typedef struct pending_head {
  int64_t sequence, patched_at; /* 0: at its end */
  replic__raw raw;
} pending_head;

static int next_pending(replic *r, pending_head *head) {
  int rc = replic__pending_next(r, &head->sequence, &head->patched_at, &head->raw);
  if (rc == REPLIC_OK && !head->raw.fields) head->sequence = 0;
  return rc;
}

/* A merge of one cursor per table on (_peerId, _sequenceId): the cost does not grow with the log,
 * and a run of patches of one table, the usual case, costs no comparison beyond its own. A patch of
 * which something is pending comes once, with what the log holds of it and as it was received. */
int replic__log_read(replic *r, uint32_t origin, int64_t after, int64_t up_to,
                     int (*each)(void *ctx, const replic__patch *p), void *ctx) {
  size_t n = replic_table_count(r);
  int64_t *heads = sqlite3_malloc64((n + 1) * sizeof *heads);
  int rc = heads ? REPLIC_OK : SQLITE_NOMEM;
  for (size_t i = 0; rc == REPLIC_OK && i < n; i++) {
    replic__table *t = r->schema->tables[i];
    sqlite3_stmt *stmt;
    rc = replic__sql_get(r, t, LOG_READ, &stmt);
    if (rc != REPLIC_OK) break;
    sqlite3_bind_int64(stmt, 1, origin);
    sqlite3_bind_int64(stmt, 2, after);
    sqlite3_bind_int64(stmt, 3, up_to);
    rc = advance(r, t, stmt, &heads[i]);
  }
  pending_head pending = {0};
  if (rc == REPLIC_OK && r->has_pending) rc = replic__pending_open(r, origin, after, up_to);
  if (rc == REPLIC_OK && r->has_pending) rc = next_pending(r, &pending);
  size_t least = 0;
  int64_t last = after;
  while (rc == REPLIC_OK) {
    if (!n || heads[least] != last + 1)
      for (size_t i = 0; i < n; i++)
        if (heads[i] && (!heads[least] || heads[i] < heads[least])) least = i;
    int64_t head = n ? heads[least] : 0;
    if (!head && !pending.sequence) break;
    int raw = pending.sequence && (!head || pending.sequence <= head);
    int held = head && (!pending.sequence || head <= pending.sequence);
    replic__patch p = {.origin = origin,
                       .sequence = raw ? pending.sequence : head,
                       .patched_at = pending.patched_at,
                       .raw = raw ? &pending.raw : NULL};
    if (held) {
      p.table = r->schema->tables[least];
      p.values = p.table->values;
      p.patched_at = sqlite3_column_int64(p.table->sql[LOG_READ], p.table->n_fields + 1);
      replic__log_fields(p.table, p.table->sql[LOG_READ], p.values);
    }
    last = p.sequence;
    rc = each(ctx, &p);
    if (rc == REPLIC_OK && held) rc = advance(r, p.table, p.table->sql[LOG_READ], &heads[least]);
    if (rc == REPLIC_OK && raw) rc = next_pending(r, &pending);
  }
  replic__pending_reset(r);
  for (size_t i = 0; i < n; i++) sqlite3_reset(r->schema->tables[i]->sql[LOG_READ]);
  sqlite3_free(heads);
  return rc;
}

/* _patchedAt of the row that `which` finds in a table; 0: none. */
static int find_clock(replic *r, replic__table *t, int which, uint32_t origin, int64_t sequence,
                      int64_t *patched_at) {
  sqlite3_stmt *stmt;
  *patched_at = 0;
  int rc = replic__sql_get(r, t, which, &stmt);
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, origin);
  sqlite3_bind_int64(stmt, 2, sequence);
  rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW) *patched_at = sqlite3_column_int64(stmt, 0);
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_reset(stmt);
  return rc;
}

int replic__log_clock(replic *r, uint32_t origin, int64_t sequence, int64_t *patched_at) {
  int rc = REPLIC_OK;
  *patched_at = 0;
  for (size_t i = 0; rc == REPLIC_OK && !*patched_at && i < replic_table_count(r); i++)
    rc = find_clock(r, r->schema->tables[i], LOG_CLOCK, origin, sequence, patched_at);
  if (rc == REPLIC_OK && !*patched_at)
    rc = replic__pending_clock(r, origin, sequence, 0, patched_at);
  return rc;
}

int replic__log_bounds(replic *r, uint32_t origin, int64_t sequence, int64_t *low, int64_t *high) {
  int rc = REPLIC_OK;
  *low = 0;
  *high = REPLIC_MAX_CLOCK;
  size_t n = replic_table_count(r);
  for (size_t i = 0; rc == REPLIC_OK && i <= n; i++) {
    replic__table *t = i < n ? r->schema->tables[i] : NULL;
    int64_t below, above = 0;
    rc = t ? find_clock(r, t, LOG_BELOW, origin, sequence, &below)
           : replic__pending_clock(r, origin, sequence, -1, &below);
    if (rc == REPLIC_OK)
      rc = t ? find_clock(r, t, LOG_ABOVE, origin, sequence, &above)
             : replic__pending_clock(r, origin, sequence, 1, &above);
    if (below > *low) *low = below;
    if (above && above < *high) *high = above;
  }
  return rc;
}

/* vector.c - per origin, the sequence up to which everything is applied (I1), and what pruning has
 * done to its patches (compact.c), in memory and in _replic_vector.
 *
 * Every entry knows two positions: `now`, inside the open batch, and `committed`. They differ only
 * during a batch, so that a failed commit leaves memory as it was (I3). Entries are sorted by
 * origin. */
#include "data/data.h"
#include "state.h"

#include <string.h>

static size_t find_slot(const replic *r, uint32_t origin) {
  size_t low = 0, high = r->n_vector;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (r->vector[middle].now.origin < origin)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

replic__entry *replic__vector_entry(replic *r, uint32_t origin) {
  size_t slot = find_slot(r, origin);
  if (slot < r->n_vector && r->vector[slot].now.origin == origin) return &r->vector[slot];
  if (r->n_vector == r->cap_vector) {
    size_t cap = r->cap_vector ? r->cap_vector * 2 : 16;
    replic__entry *grown = sqlite3_realloc64(r->vector, cap * sizeof *grown);
    if (!grown) return NULL;
    r->vector = grown;
    r->cap_vector = cap;
  }
  memmove(&r->vector[slot + 1], &r->vector[slot], (r->n_vector - slot) * sizeof *r->vector);
  r->n_vector++;
  memset(&r->vector[slot], 0, sizeof r->vector[slot]);
  r->vector[slot].now.origin = r->vector[slot].committed.origin = origin;
  return &r->vector[slot];
}

int64_t replic__vector_sequence(const replic *r, uint32_t origin) {
  size_t slot = find_slot(r, origin);
  return slot < r->n_vector && r->vector[slot].now.origin == origin ? r->vector[slot].now.sequence
                                                                    : 0;
}

int64_t replic__vector_floor(const replic *r, uint32_t origin) {
  size_t slot = find_slot(r, origin);
  return slot < r->n_vector && r->vector[slot].now.origin == origin ? r->vector[slot].pruned.floor
                                                                    : 0;
}

int64_t replic__vector_denied(const replic *r, uint32_t origin, int64_t since_ms) {
  size_t slot = find_slot(r, origin);
  if (slot == r->n_vector || r->vector[slot].now.origin != origin) return -1;
  const replic__entry *entry = &r->vector[slot];
  return entry->denied_ms && entry->denied_ms >= since_ms ? entry->denied : -1;
}

void replic__vector_elsewhere(replic *r, uint32_t origin, int64_t sequence) {
  size_t slot = find_slot(r, origin);
  if (slot == r->n_vector || r->vector[slot].now.origin != origin) return;
  if (sequence > r->vector[slot].elsewhere) r->vector[slot].elsewhere = sequence;
}

/* Who has brought how many, as in the open batch. Without memory for it some are not counted. */
static void count_origins(replic *r) {
  replic__bring_nothing(r, BROUGHT_ORIGINS);
  for (size_t i = 0; i < r->n_vector; i++)
    if (r->vector[i].now.sequence) replic__bring(r, r->vector[i].source, BROUGHT_ORIGINS, 1);
}

int replic__vector_load(replic *r) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(
      r,
      "SELECT origin, sequence, patchedAt, floor, cursor, missing, source FROM main._replic_vector",
      &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    replic__entry *entry = replic__vector_entry(r, (uint32_t)sqlite3_column_int64(stmt, 0));
    if (!entry) {
      rc = SQLITE_NOMEM;
      break;
    }
    entry->now.sequence = sqlite3_column_int64(stmt, 1);
    entry->now.patched_at = sqlite3_column_int64(stmt, 2);
    entry->committed = entry->now;
    entry->pruned.floor = sqlite3_column_int64(stmt, 3);
    entry->pruned.cursor = sqlite3_column_int64(stmt, 4);
    entry->pruned.missing = sqlite3_column_int64(stmt, 5);
    entry->source = (uint32_t)sqlite3_column_int64(stmt, 6);
    entry->pruned_committed = entry->pruned;
    replic__clock_seen(&r->clock, r->now_ms, &entry->now, 0);
    rc = REPLIC_OK;
  }
  sqlite3_finalize(stmt);
  count_origins(r);
  r->clock_committed = r->clock;
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

static int is_pruned_anew(const replic__entry *entry) {
  const replic__pruned *now = &entry->pruned, *then = &entry->pruned_committed;
  return now->floor != then->floor || now->cursor != then->cursor || now->missing != then->missing;
}

int replic__vector_is_pruned_anew(const replic *r) {
  for (size_t i = 0; i < r->n_vector; i++)
    if (is_pruned_anew(&r->vector[i])) return 1;
  return 0;
}

int replic__vector_store(replic *r) {
  int rc = replic__prepare(
      r,
      "INSERT INTO main._replic_vector(origin, sequence, patchedAt, floor, cursor, missing, "
      "source) "
      "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(origin) DO UPDATE SET sequence = ?2, "
      "patchedAt = ?3, floor = ?4, cursor = ?5, missing = ?6",
      &r->vector_sql);
  for (size_t i = 0; rc == REPLIC_OK && i < r->n_vector; i++) {
    const replic__entry *entry = &r->vector[i];
    if (entry->now.sequence == entry->committed.sequence && !is_pruned_anew(entry)) continue;
    sqlite3_bind_int64(r->vector_sql, 1, entry->now.origin);
    sqlite3_bind_int64(r->vector_sql, 2, entry->now.sequence);
    sqlite3_bind_int64(r->vector_sql, 3, entry->now.patched_at);
    sqlite3_bind_int64(r->vector_sql, 4, entry->pruned.floor);
    sqlite3_bind_int64(r->vector_sql, 5, entry->pruned.cursor);
    sqlite3_bind_int64(r->vector_sql, 6, entry->pruned.missing);
    sqlite3_bind_int64(r->vector_sql, 7, entry->source);
    rc = replic__step(r, r->vector_sql);
  }
  return rc;
}

void replic__vector_settle(replic *r) {
  r->brought[BROUGHT_ORIGINS] = 0;
  for (size_t i = 0; i < r->n_vector; i++) {
    replic__entry *entry = &r->vector[i];
    int pruned = is_pruned_anew(entry);
    r->brought[BROUGHT_ORIGINS] += entry->now.sequence > 0;
    r->vector_changes += (uint64_t)(pruned || entry->now.sequence != entry->committed.sequence);
    entry->pruned_committed = entry->pruned;
    if (entry->now.sequence == entry->committed.sequence) continue;
    int is_back = entry->now.sequence < entry->committed.sequence;
    entry->committed = entry->now;
    replic__event(r,
                  (replic_event){.kind = is_back ? REPLIC_EVENT_BACK : REPLIC_EVENT_VECTOR,
                                 .origin = entry->now.origin,
                                 .a = entry->now.sequence,
                                 .b = entry->now.patched_at},
                  NULL);
  }
}

void replic__vector_revert(replic *r) {
  for (size_t i = 0; i < r->n_vector; i++) {
    r->vector[i].now = r->vector[i].committed;
    r->vector[i].pruned = r->vector[i].pruned_committed;
    r->vector[i].due = 0;
  }
  count_origins(r);
}

int64_t replic_log_rows(const replic *r) {
  int64_t rows = 0;
  for (size_t i = 0; i < r->n_vector; i++)
    rows += r->vector[i].committed.sequence - r->vector[i].pruned_committed.missing;
  return rows;
}

size_t replic_vector_count(const replic *r) {
  size_t n = 0;
  for (size_t i = 0; i < r->n_vector; i++) n += r->vector[i].committed.sequence > 0;
  return n;
}

const replic_position *replic__vector_nowhere_else(replic *r, size_t *n) {
  replic_position *grown = sqlite3_realloc64(r->positions, (r->n_vector + 1) * sizeof *grown);
  if (!grown) return NULL;
  r->positions = grown;
  *n = 0;
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic__entry *entry = &r->vector[i];
    int64_t more = entry->committed.sequence - entry->elsewhere;
    if (more > 0)
      grown[(*n)++] = (replic_position){.origin = entry->committed.origin, .sequence = more};
  }
  return grown;
}

const replic_position *replic_vector(const replic *r) {
  replic *self = (replic *)r; /* the scratch array is no part of the state */
  replic_position *grown = sqlite3_realloc64(self->positions, (r->n_vector + 1) * sizeof *grown);
  if (!grown) return NULL;
  self->positions = grown;
  size_t n = 0;
  for (size_t i = 0; i < r->n_vector; i++)
    if (r->vector[i].committed.sequence > 0) grown[n++] = r->vector[i].committed;
  return grown;
}

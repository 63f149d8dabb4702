/* vector.c - per origin, the sequence up to which everything is applied (I1), in memory and in
 * _replic_vector.
 *
 * Every entry knows two positions: `now`, inside the open batch, and `committed`. They differ only
 * during a batch, so that a failed commit leaves memory as it was (I3). Entries are sorted by
 * origin. */
#include "core.h"

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

int replic__vector_load(replic *r) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, "SELECT origin, sequence, patchedAt FROM main._replic_vector", &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    replic__entry *entry = replic__vector_entry(r, (uint32_t)sqlite3_column_int64(stmt, 0));
    if (!entry) {
      rc = SQLITE_NOMEM;
      break;
    }
    entry->now.sequence = sqlite3_column_int64(stmt, 1);
    entry->now.patched_at = sqlite3_column_int64(stmt, 2);
    entry->committed = entry->now;
    replic__clock_seen(&r->clock, entry->now.patched_at);
    rc = REPLIC_OK;
  }
  sqlite3_finalize(stmt);
  r->clock_committed = r->clock;
  return rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
}

int replic__vector_store(replic *r) {
  int rc = replic__prepare(
      r,
      "INSERT INTO main._replic_vector(origin, sequence, patchedAt) VALUES(?1, ?2, ?3) "
      "ON CONFLICT(origin) DO UPDATE SET sequence = ?2, patchedAt = ?3",
      &r->vector_sql);
  for (size_t i = 0; rc == REPLIC_OK && i < r->n_vector; i++) {
    const replic__entry *entry = &r->vector[i];
    if (entry->now.sequence == entry->committed.sequence) continue;
    sqlite3_bind_int64(r->vector_sql, 1, entry->now.origin);
    sqlite3_bind_int64(r->vector_sql, 2, entry->now.sequence);
    sqlite3_bind_int64(r->vector_sql, 3, entry->now.patched_at);
    rc = replic__step(r, r->vector_sql);
  }
  return rc;
}

void replic__vector_settle(replic *r) {
  for (size_t i = 0; i < r->n_vector; i++) {
    replic__entry *entry = &r->vector[i];
    if (entry->now.sequence == entry->committed.sequence) continue;
    entry->committed = entry->now;
    replic__event(r,
                  (replic_event){.kind = REPLIC_EVENT_VECTOR,
                                 .origin = entry->now.origin,
                                 .a = entry->now.sequence,
                                 .b = entry->now.patched_at},
                  NULL);
  }
}

void replic__vector_revert(replic *r) {
  for (size_t i = 0; i < r->n_vector; i++) r->vector[i].now = r->vector[i].committed;
}

size_t replic_vector_count(const replic *r) {
  size_t n = 0;
  for (size_t i = 0; i < r->n_vector; i++) n += r->vector[i].committed.sequence > 0;
  return n;
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

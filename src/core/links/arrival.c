/* arrival.c - what every frame with patches needs, of PATCHES as of STAGE: the tables that it
 * speaks of, and what it says beside its patches. */
#include <string.h>

#include "links/links.h"

/* ---- tables of the other side, and SCHEMA ---- */

/* Where a table with that id is, or belongs. */
static size_t find_table(const table_list *list, uint32_t id) {
  size_t low = 0, high = list->n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (list->at[middle]->id < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

remote_table *replic__table_by_id(const table_list *list, uint32_t id) {
  size_t i = find_table(list, id);
  return i < list->n && list->at[i]->id == id ? list->at[i] : NULL;
}

int replic__table_add(table_list *list, remote_table *t) {
  if (list->n == list->cap) {
    size_t cap = list->cap ? 2 * list->cap : 16;
    remote_table **grown = sqlite3_realloc64(list->at, cap * sizeof(remote_table *));
    if (!grown) return SQLITE_NOMEM;
    list->at = grown;
    list->cap = cap;
  }
  size_t i = find_table(list, t->id);
  memmove(&list->at[i + 1], &list->at[i], (list->n - i) * sizeof(remote_table *));
  list->at[i] = t;
  list->n++;
  return REPLIC_OK;
}

void replic__tables_free(table_list *list) {
  for (size_t i = 0; i < list->n; i++) replic__free_remote_table(list->at[i]);
  sqlite3_free(list->at);
  *list = (table_list){0};
}

/* The oldest one, as its sender only ever draws greater ids. Where it is used again, it is asked
 * for. */
static void forget_first(link *l) {
  remote_table *first = l->tables.at[0];
  l->schema_bytes -= first->bytes;
  memmove(l->tables.at, l->tables.at + 1, --l->tables.n * sizeof(remote_table *));
  replic__free_remote_table(first);
  l->n_forgotten++;
}

int replic__on_schema(replic *r, link *l, replic__reader *in) {
  if (in->end - in->at > CONTROL_MAX - SCHEMA_SLACK - FRAME_HEAD - FRAME_SUM)
    return replic__fail(r, REPLIC_ETOOLARGE,
                        "peer %u has a table whose definition takes %lld bytes: others could not "
                        "hand it on. Shorten the names of its columns",
                        l->peer, (int64_t)(in->end - in->at));
  remote_table *t = replic__read_definition(in);
  if (!t) return in->failed ? replic__malformed(r, l, "SCHEMA") : SQLITE_NOMEM;
  l->schema_changes++;
  l->schema_bytes += t->bytes;
  remote_table *known = replic__table_by_id(&l->tables, t->id);
  if (known) { /* sent again */
    remote_table swap = *known;
    *known = *t;
    *t = swap;
  }
  if (known || replic__table_add(&l->tables, t) != REPLIC_OK) {
    l->schema_bytes -= t->bytes;
    replic__free_remote_table(t);
    return known ? REPLIC_OK : SQLITE_NOMEM;
  }
  while (l->tables.n > 1 && (l->tables.n > TABLES_MAX || l->schema_bytes > SCHEMA_MAX))
    forget_first(l);
  return REPLIC_OK;
}

/* ---- beside the patches ---- */

/* Each frame names the clock and the epoch of the patch that it follows: so histories that have
 * parted are never joined, whichever way they come. */
int replic__parts(replic *r, const replic__patches *p) {
  int64_t known = replic__vector_sequence(r, p->origin);
  if (!known || p->after > known || p->up_to < known) return 0;
  const replic_position *mine = &replic__vector_entry(r, p->origin)->now;
  if (mine->epoch != replic__epoch_in(p, known)) return 1;
  return p->after == known && p->after_clock && mine->patched_at &&
         mine->patched_at != p->after_clock;
}

int replic__note_epochs(replic *r, replic__patches p, int64_t up_to) {
  int64_t known = replic__vector_sequence(r, p.origin), from = p.after;
  uint32_t epoch;
  int rc = REPLIC_OK;
  while (rc == REPLIC_OK && replic__next_epoch(&p, &from, &epoch) && from <= up_to)
    if (from > known) {
      rc = replic__epoch_note(r, p.origin, from, epoch);
      r->sync->units -= UNITS_OF_APPLYING;
    }
  return rc;
}

/* Of one patch. It may have very many fields, and with each one that is kept its definition is put
 * together and looked for. */
int64_t replic__units_of_reading(const remote_table *t) {
  return 1 + t->n_fields / 8;
}

int64_t replic__units_of_applying(const remote_table *t) {
  int is_same = t->table && t->n_same == t->n_fields;
  return UNITS_OF_APPLYING + t->n_fields / 4 + (is_same ? 0 : (int64_t)t->bytes / 64);
}

int replic__bring_origin(replic *r, uint32_t source, replic__entry *entry) {
  entry->source = source;
  return replic__bring(r, source, BROUGHT_ORIGINS, 1);
}

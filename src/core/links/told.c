/* told.c - what is known here of an origin by another one's word alone.
 *
 * A jump takes the vector over from its source, with those patches that have survived there:
 *
 *      before ──── patches that came ──── merged ──── none came ──── up to
 *                                                     "nothing of it has survived"
 *
 * What lies between `merged` and `up to` was only told. Where the origin itself denies it, or who
 * is linked to the origin says so, it gives way: the vector goes back to `merged`, and what there
 * is beyond it is fetched once more. That does no harm where the source was right, for no patch is
 * lost. Once a later patch of the origin is applied it is told no more: it is its history. And for
 * some heartbeats nobody else is believed in that again, until the origin is linked: its link is
 * refused first, for both sides had found that they differ (fork.c). */
#include "links/links.h"

typedef struct told {
  uint32_t source;
  int64_t merged, merged_at, up_to; /* up_to 0: there is nothing */
} told;

int replic__told_note(replic *r, uint32_t source, const replic_position *to, int64_t merged,
                      int64_t merged_at) {
  sqlite3_stmt **slot = &r->sync->told_sql;
  if (source == to->origin || merged >= to->sequence) return REPLIC_OK;
  int rc = replic__prepare(r,
                           "INSERT OR REPLACE INTO main._replic_told(origin, merged, mergedAt, "
                           "upTo, source) VALUES(?1, ?2, ?3, ?4, ?5)",
                           slot);
  if (rc != REPLIC_OK) return rc;
  const int64_t values[] = {to->origin, merged, merged_at, to->sequence, source};
  for (int i = 0; i < 5; i++) sqlite3_bind_int64(*slot, i + 1, values[i]);
  return replic__step(r, *slot);
}

static int find_told(replic *r, uint32_t origin, told *out) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(
      r, "SELECT source, merged, mergedAt, upTo FROM main._replic_told WHERE origin = ?1", &stmt);
  *out = (told){0};
  if (rc != REPLIC_OK) return rc;
  sqlite3_bind_int64(stmt, 1, origin);
  rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW)
    *out = (told){(uint32_t)sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1),
                  sqlite3_column_int64(stmt, 2), sqlite3_column_int64(stmt, 3)};
  rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

/* What was told others of the vector is void. (Said more than once, as it may be lost.) */
void replic__void_told(replic *r) {
  for (size_t i = 0; i < r->sync->n_links; i++) r->sync->links[i]->void_hellos = VOID_HELLOS;
  replic__stir(r);
}

/* ---- a vector goes back: what reckons with where it was ends ---- */

void replic__free_merging(replic__sync *s) {
  if (s->merging) sqlite3_free(s->merging->targets);
  sqlite3_free(s->merging);
  s->merging = NULL;
}

/* What has begun to be merged goes on without it. */
void replic__jump_over(replic__sync *s) {
  if (s->merging && !s->merging->is_read) replic__free_merging(s);
  sqlite3_free(s->jump);
  s->jump = NULL;
  s->jump_len = 0;
  s->jump_link = 0;
}

int replic__origin_back(replic *r, uint32_t origin, int64_t to, int64_t patched_at) {
  char *sql = sqlite3_mprintf("DELETE FROM main._replic_staged WHERE origin = %u", origin);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  r->staged_changed = STAGED_UNKNOWN;
  replic__jump_over(r->sync); /* one that is being read reckons with where the vector was */
  return rc == REPLIC_OK ? replic__vector_back(r, origin, to, patched_at) : rc;
}

static int go_back(replic *r, uint32_t origin, const told *t) {
  replic__savepoint save;
  int rc = replic__savepoint_open(r, 0, &save);
  if (rc != REPLIC_OK) return rc;
  uint32_t source = replic__vector_entry(r, origin)->source;
  save.share = replic__share_of(r, source);
  rc = replic__origin_back(r, origin, t->merged, t->merged_at);
  if (rc == REPLIC_OK && !t->merged) rc = replic__bring(r, source, BROUGHT_ORIGINS, -1);
  char *sql = sqlite3_mprintf("DELETE FROM main._replic_told WHERE origin = %u", origin);
  if (rc == REPLIC_OK) rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return replic__savepoint_end(r, &save, rc);
}

int replic__told_gives_way(replic *r, link *l, uint32_t origin, int64_t denied) {
  told t;
  if (replic__is_jumping(r, origin)) return REPLIC_OK; /* after that it is looked at again */
  int rc = find_told(r, origin, &t);
  if (rc != REPLIC_OK || !t.up_to || t.merged >= t.up_to || t.merged > denied ||
      replic__vector_sequence(r, origin) != t.up_to)
    return rc;
  rc = go_back(r, origin, &t);
  if (rc != REPLIC_OK) return rc;
  replic__entry *entry = replic__vector_entry(r, origin);
  entry->denied = denied;
  entry->denied_ms = r->now_ms;
  replic__void_told(r);
  replic__event(
      r,
      (replic_event){
          .kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = REPLIC_EFORK},
      "peer %u has told of patches of peer %u up to %lld, of which none has come, and peer %u %s "
      "it: they are not believed any more, and what there is after %lld is fetched once more. Look "
      "at peer %u",
      t.source, origin, t.up_to, l->peer, l->peer == origin ? "itself denies" : "denies", t.merged,
      t.source);
  return REPLIC_OK;
}

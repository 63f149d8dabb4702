/* flush.c - after a commit: each link gets what there is for it, in one order. Patches first, then
 * the pieces of a jump, then the acknowledgement. */
#include "links/links.h"

#define CALM_POSITIONS 1000 /* that a flush looks at: some ten microseconds */

/* Both sides have all that the other has, and takes, as far as this side knows. */
static int is_synced(const replic *r, link *l) {
  size_t p = 0;
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    const position *at = replic__next_position(l, mine->origin, &p);
    if (!at || (mine->origin != l->peer && !l->muted && at->acked < mine->sequence)) return 0;
  }
  for (size_t i = 0, v = 0; !l->reader && i < l->n_at; i++) {
    while (v < r->n_vector && r->vector[v].now.origin < l->at[i].origin) v++;
    int is_mine = v < r->n_vector && r->vector[v].now.origin == l->at[i].origin;
    if (l->at[i].announced > (is_mine ? r->vector[v].now.sequence : 0)) return 0;
  }
  return 1;
}

int replic_is_calm(const replic *r) {
  const replic__sync *s = r->sync;
  return !s->is_behind && !s->n_early && !s->rest.link && !s->jump &&
         s->n_links * r->n_vector <= CALM_POSITIONS;
}

/* What a link has to do follows from the vector and from what it has received; in between, time
 * matters to the heartbeat. So what one link receives is no work for the others. */
static int is_still(const replic *r, const link *l) {
  return !l->stirred && l->seen_changes == r->vector_changes && !l->ack_due && !l->take_due &&
         (l->muted || l->schema_sent == replic__ids_end(r->schema));
}

static void flush_link(replic *r, link *l) {
  l->below = l->is_behind = l->stirred = 0;
  l->seen_changes = r->vector_changes;
  if (l->void_hellos == VOID_HELLOS) replic__tell_void(r, l); /* the others with the heartbeats */
  if (!l->muted && l->schema_sent != replic__ids_end(r->schema)) replic__send_schema(r, l);
  if (!l->muted && replic__link_active(r, l)) replic__flush_origins(r, l);
  replic__flush_jump(r, l);
  if (l->ack_due) replic__send_ack(r, l);
  int synced = is_synced(r, l);
  if (synced && !l->synced)
    replic__event(r, (replic_event){.kind = REPLIC_EVENT_SYNCED, .link = l->id, .peer = l->peer},
                  NULL);
  l->synced = synced;
}

/* Before others hold what is stamped so: they can say then who it was. */
static void tell_leader(replic *r) {
  replic__sync *s = r->sync;
  uint32_t leader = replic__clock_leader(r);
  if (!leader || leader == s->leader_told) return;
  s->leader_told = leader;
  for (size_t k = 0; k < s->n_links; k++) s->links[k]->ack_due = 1;
}

void replic__sync_flush(replic *r) {
  r->sync->is_behind = 0;
  replic__jump_settle(r);
  tell_leader(r);
  if (r->sync->dropped_changed) replic__fork_load(r);
  for (size_t k = 0; k < r->sync->n_links; k++) {
    link *l = r->sync->links[k];
    if (!l->ready || l->closing || l->fork_text) continue;
    if (!is_still(r, l)) flush_link(r, l);
    r->sync->is_behind |= l->is_behind;
  }
}

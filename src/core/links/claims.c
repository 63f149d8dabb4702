/* claims.c - what a peer says that it has: is it of the history that is here, and is it believed?
 */
#include "links/links.h"

int replic__check_fork(replic *r, link *l, const replic_position *theirs) {
  if (replic__was_dropped(r, theirs))
    return replic__forked(r, l, theirs->origin, theirs->sequence, GIVEN_UP);
  int64_t mine = replic__vector_sequence(r, theirs->origin), low, high;
  if (theirs->sequence > mine)
    return theirs->origin == r->peer_id ? replic__forked(r, l, theirs->origin, mine + 1,
                                                         "it holds more than was issued here")
                                        : REPLIC_OK;
  uint32_t epoch;
  int found = replic__epoch_at(r, theirs->origin, theirs->sequence, &epoch);
  if (found != REPLIC_OK) return found;
  if (epoch != theirs->epoch)
    return replic__forked(r, l, theirs->origin, theirs->sequence, ISSUED_TWICE);
  if (!theirs->sequence || !theirs->patched_at) return REPLIC_OK;
  low = high = replic__vector_entry(r, theirs->origin)->now.patched_at;
  if (theirs->sequence < mine) {
    int rc = replic__log_bounds(r, theirs->origin, theirs->sequence, &low, &high);
    if (rc != REPLIC_OK) return rc;
  }
  return high && (theirs->patched_at < low || theirs->patched_at > high)
             ? replic__forked(r, l, theirs->origin, theirs->sequence, ISSUED_TWICE)
             : REPLIC_OK;
}

#define LOOKUPS_MAX 5000 /* in the log, for one frame or heartbeat: some ten milliseconds */
#define CLAIMS_MIN 16

int replic__check_budget(const replic *r) {
  int each = 2 * ((int)replic_table_count(r) + 1), claims = LOOKUPS_MAX / each;
  return claims < CLAIMS_MIN ? CLAIMS_MIN : claims;
}

int replic__check_claim(replic *r, link *l, position *at, const replic_position *theirs,
                        int *left) {
  int is_looked_up = theirs->sequence < replic__vector_sequence(r, theirs->origin);
  l->n_claims -= at->claimed > 0;
  at->claimed = 0;
  *left -= is_looked_up;
  if (*left >= 0 || !is_looked_up) return replic__check_fork(r, l, theirs);
  l->n_claims += theirs->sequence > 0;
  at->claimed = theirs->sequence;
  at->claimed_clock = theirs->patched_at;
  at->claimed_epoch = theirs->epoch;
  return REPLIC_OK;
}

/* What a frame had no room for. */
void replic__check_claims(replic *r, link *l) {
  int left = replic__check_budget(r), rc = REPLIC_OK;
  for (size_t i = 0; l->n_claims && left > 0 && rc == REPLIC_OK && i < l->n_at; i++) {
    position *at = &l->at[i];
    if (!at->claimed) continue;
    const replic_position theirs = {at->origin, at->claimed, at->claimed_clock, at->claimed_epoch};
    rc = replic__check_claim(r, l, at, &theirs, &left);
  }
  replic__conclude(r, l, rc);
}

/* ---- more than its origin says ---- */

static void tell_doubt(replic *r, const link *l, const position *at, int64_t claimed) {
  replic__event(
      r,
      (replic_event){
          .kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = REPLIC_EFORK},
      "peer %u has patches of peer %u up to %lld, it says, and peer %u, which is linked here, says "
      "that it has issued %lld: what is beyond them is not taken. If the file of peer %u was "
      "copied "
      "or restored, open one of the files with a new peerId",
      l->peer, at->origin, claimed, at->origin, at->doubted_at, at->origin);
}

void replic__doubt(replic *r, link *l, position *at, int64_t claimed) {
  int64_t word = replic__believed(r, l, at->origin);
  if (claimed <= word) {
    at->doubted_ms = at->doubt_told = 0;
    return;
  }
  if (!at->doubted_ms || r->now_ms < at->doubted_ms || at->doubted_at != word)
    at->doubted_ms = r->now_ms;
  at->doubted_at = word;
  if (r->now_ms - at->doubted_ms < HELD_HEARTBEATS * r->config.heartbeat_ms) return;
  at->doubted_ms = r->now_ms;
  replic__advise(r, l, at->origin);
  if (!at->doubt_told) tell_doubt(r, l, at, claimed);
  at->doubt_told = 1;
}

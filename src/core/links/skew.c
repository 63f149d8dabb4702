/* skew.c - clocks that are wrong: what to say of what is held because of one, and whether it is the
 * one of this machine.
 *
 * A stamp is too far ahead of the wall clock here, and this link shows a part of it only:
 *
 *      here ── skew of the link ── peer's wall clock ── its lead ── stamp
 *
 * The lead has come with a patch of some origin, maybe of another one than stamps now. Each side
 * tells who that was (HELLO, ACK), as long as its clock is ahead. */
#include "links/links.h"

#define CLOSE_MS 250 /* as far apart as clocks that are right may seem to be */

static const char *side_of(int64_t ms) {
  return ms < 0 ? "behind" : "ahead of";
}

static int64_t absolute(int64_t ms) {
  return ms < 0 ? -ms : ms;
}

/* How the stamp differs from the wall clock of the peer of `l`, and which clock to look at. */
static char *explain_lead(const replic *r, const link *l, uint32_t origin, int64_t lead) {
  uint32_t leader = l->leader ? l->leader : origin;
  if (absolute(lead) <= CLOSE_MS)
    return sqlite3_mprintf(
        "the stamp is not ahead of peer %u. Correct the clock of peer %u or of peer %u", l->peer,
        r->peer_id, l->peer);
  if (absolute(lead) < absolute(l->skew_ms))
    return sqlite3_mprintf("the stamp %lld ms %s peer %u, as peer %u set it. Correct the clock of "
                           "peer %u, of peer %u or of peer %u",
                           absolute(lead), side_of(lead), l->peer, leader, r->peer_id, l->peer,
                           leader);
  return sqlite3_mprintf("the stamp %lld ms %s peer %u, as peer %u set it. Correct the clock of "
                         "peer %u: what was stamped with it waits until that time has come",
                         absolute(lead), side_of(lead), l->peer, leader, leader);
}

char *replic__skew_text(const replic *r, const link *l, uint32_t origin, int64_t sequence,
                        int64_t patched_at) {
  int64_t ahead = patched_at - r->now_ms;
  char *lead = explain_lead(r, l, origin, ahead - l->skew_ms);
  char *text = sqlite3_mprintf(
      "patch %u.%lld is stamped %lld, %lld ms ahead of peer %u, whose clock says %lld: "
      "maxClockSkewMs permits %lld. It adds up: the clock of peer %u, which brings it, is %lld ms "
      "%s peer %u, and %s",
      origin, sequence, patched_at, ahead, r->peer_id, r->now_ms, r->config.max_clock_skew_ms,
      l->peer, absolute(l->skew_ms), side_of(l->skew_ms), r->peer_id, lead ? lead : "no memory");
  sqlite3_free(lead);
  return text;
}

/* ---- the clock of this machine ---- */

static int64_t count_skews(const replic *r, int64_t most) {
  int64_t n = 0;
  for (size_t i = 0; i < r->sync->n_links; i++) {
    link *l = r->sync->links[i];
    n += replic__link_first(r, l) && l->skew_ms <= most;
  }
  return n;
}

/* The k-th smallest of the skews, k from 1. */
static int64_t nth_skew(const replic *r, int64_t k) {
  int64_t low = -REPLIC_MAX_CLOCK, high = REPLIC_MAX_CLOCK;
  while (low < high) {
    int64_t middle = low + (high - low) / 2 - (high - low < 0);
    if (count_skews(r, middle) >= k)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

/* What more than half of the peers differ by at the least: 0, or all of these are on one side. */
static int64_t skew_of_most(const replic *r, int64_t n) {
  int64_t low = nth_skew(r, n / 2 + n % 2), high = nth_skew(r, n / 2 + 1);
  return low > 0 ? low : high < 0 ? high : 0;
}

static void tell_off(replic *r, int64_t n, uint32_t only) {
  int64_t off = r->sync->clock_off_ms;
  char *whom = n == 1 ? sqlite3_mprintf("peer %u, the only one that is", only)
                      : sqlite3_mprintf("most of the %lld peers that are", n);
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = REPLIC_ECLOCKSKEW},
                "the clock of this peer (%u) is %lld ms %s %s linked: beyond maxClockSkewMs (%lld) "
                "what the one writes is held by the other. Correct the clock that is wrong%s",
                r->peer_id, absolute(off), side_of(off), whom ? whom : "peers",
                r->config.max_clock_skew_ms, n == 1 ? "" : ": it seems to be the one here");
  sqlite3_free(whom);
}

void replic__tick_skew(replic *r) {
  replic__sync *s = r->sync;
  int64_t n = count_skews(r, REPLIC_MAX_CLOCK), limit = r->config.max_clock_skew_ms / OFF_PART;
  s->clock_off_ms = n ? -skew_of_most(r, n) : 0;
  int64_t off = absolute(s->clock_off_ms);
  if (off <= limit / 2) s->off_told = 0;
  if (off <= limit || s->off_told) return;
  s->off_told = 1;
  uint32_t only = 0;
  for (size_t i = 0; i < s->n_links; i++)
    if (replic__link_first(r, s->links[i])) only = s->links[i]->peer;
  tell_off(r, n, only);
}

int64_t replic_clock_off(const replic *r) {
  return r->sync->clock_off_ms;
}

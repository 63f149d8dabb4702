/* quota.c - what each peer has brought here, and how much more it may: so that no quota can be used
 * up by one of them.
 *
 *      |<------------------- the quota ------------------->|
 *      [ brought by others | by this peer |      free      ]
 *                          |<- at most ->|<- as much as ->|
 *
 * What a peer has brought may never be more than what is left free then. So one alone gets half of
 * the quota, a second one half of what is left, and there is room for the next one whoever came
 * before. It is counted by peer and not by link, and kept on disk with what was brought: to come
 * again, or a restart, gives nobody more. What is gone (applied, forgotten, expired) counts no
 * more; an origin never goes. Nobody is charged for what was made here. */
#include <string.h>

#include "data/data.h"
#include "state.h"

static size_t find_share(const replic *r, uint32_t peer) {
  size_t low = 0, high = r->n_shares;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (r->shares[middle].peer < peer)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

replic__share replic__share_of(const replic *r, uint32_t peer) {
  size_t at = find_share(r, peer);
  return at < r->n_shares && r->shares[at].peer == peer ? r->shares[at]
                                                        : (replic__share){.peer = peer};
}

/* Finds or adds. NULL: out of memory. */
static replic__share *share_of(replic *r, uint32_t peer) {
  size_t at = find_share(r, peer);
  if (at < r->n_shares && r->shares[at].peer == peer) return &r->shares[at];
  replic__share *grown = sqlite3_realloc64(r->shares, (r->n_shares + 1) * sizeof *grown);
  if (!grown) return NULL;
  r->shares = grown;
  memmove(&grown[at + 1], &grown[at], (r->n_shares++ - at) * sizeof *grown);
  grown[at] = (replic__share){.peer = peer};
  return &grown[at];
}

int replic__bring(replic *r, uint32_t peer, int what, int64_t n) {
  replic__share *share = peer ? share_of(r, peer) : NULL;
  if (peer && !share) return SQLITE_NOMEM;
  if (share) share->brought[what] += n;
  if (share || what == BROUGHT_ORIGINS) r->brought[what] += n;
  return REPLIC_OK;
}

void replic__share_restore(replic *r, const replic__share *share, const int64_t *brought) {
  size_t at = find_share(r, share->peer);
  if (share->peer && at < r->n_shares && r->shares[at].peer == share->peer) r->shares[at] = *share;
  memcpy(r->brought, brought, sizeof r->brought);
}

void replic__bring_nothing(replic *r, int what) {
  r->brought[what] = 0;
  for (size_t i = 0; i < r->n_shares; i++) r->shares[i].brought[what] = 0;
}

int replic__brings_too_much(const replic *r, uint32_t peer, int what, int64_t n) {
  const int64_t max[] = {[BROUGHT_ORIGINS] = r->config.max_origins,
                         [BROUGHT_PENDING] = r->config.max_pending_bytes,
                         [BROUGHT_STAGED] = r->config.max_staged_bytes};
  int64_t its = replic__share_of(r, peer).brought[what] + n;
  return its > max[what] - r->brought[what] - n;
}

char *replic__quota_text(const replic *r, uint32_t peer, int what, int64_t n) {
  static const struct {
    const char *name, *what, *remedy;
  } QUOTAS[] = {[BROUGHT_ORIGINS] = {"maxOrigins", "origins", "see who makes so many"},
                [BROUGHT_PENDING] = {"maxPendingBytes", "bytes of patches that are pending",
                                     "migrate to what the others have"},
                [BROUGHT_STAGED] = {"maxStagedBytes", "bytes of jumps",
                                    "let db.forget({ staged: true }) make room"}};
  int64_t all = r->brought[what], its = replic__share_of(r, peer).brought[what];
  return sqlite3_mprintf("%s of peer %u permits no more %s: %lld are here, of which peer %u has "
                         "brought %lld, and what one peer brings may not be more than what is left "
                         "for others. Raise %s, for what comes next to %lld or more, or %s",
                         QUOTAS[what].name, r->peer_id, QUOTAS[what].what, all, peer, its,
                         QUOTAS[what].name, all + its + 2 * n, QUOTAS[what].remedy);
}

/* `sql`: peer and number. */
int replic__bring_again(replic *r, int what, const char *sql) {
  sqlite3_stmt *stmt = NULL;
  replic__bring_nothing(r, what);
  int rc = replic__prepare(r, sql, &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW)
    rc = replic__bring(r, (uint32_t)sqlite3_column_int64(stmt, 0), what,
                       sqlite3_column_int64(stmt, 1));
  rc = rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

/* neighbours.c - to whom a peer is linked itself: who relays to it holds back what it gets there
 * directly (outgoing.c).
 *
 *   mine    2 5 9        9 changes so far, of which the last DIRECT_KEPT are kept
 *   theirs  a copy per link, and at which of the other side's changes it is
 *
 * HELLO has the whole list. After that who needs it says in each ACK up to which change it has it,
 * and gets the peers that have come or gone since: so what a peer that comes and goes costs does
 * not grow with the number of links, and a loss is made up for with the next ACK. Who has no other
 * link relays to nobody, and needs no list: as the leaves of a hub. test/model/lists.py. */
#include <string.h>

#include "links/links.h"

static size_t place_of(const uint32_t *list, size_t n, uint32_t peer) {
  size_t low = 0, high = n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (list[middle] < peer)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static int has(const uint32_t *list, size_t n, uint32_t peer) {
  size_t at = place_of(list, n, peer);
  return at < n && list[at] == peer;
}

int replic__link_direct(const link *l, uint32_t peer) {
  return has(l->direct, l->n_direct, peer);
}

/* ---- our own list ---- */

/* The linked peers from whom patches of their own come here, each once. */
static size_t gather(const replic__sync *s, uint32_t *list) {
  size_t n = 0;
  for (size_t i = 0; i < s->n_links; i++) {
    const link *l = s->links[i];
    if (!l->ready || l->closing || l->fork_text || l->reader) continue;
    size_t at = place_of(list, n, l->peer);
    if (at < n && list[at] == l->peer) continue;
    memmove(&list[at + 1], &list[at], (n++ - at) * sizeof *list);
    list[at] = l->peer;
  }
  return n;
}

static void note_change(replic__sync *s, uint32_t peer) {
  s->direct_changed[s->direct_at++ % DIRECT_KEPT] = peer;
}

static void note_changes(replic__sync *s, const uint32_t *now, size_t n) {
  size_t k = 0;
  for (size_t i = 0; i < n; i++) {
    while (k < s->n_direct && s->direct[k] < now[i]) note_change(s, s->direct[k++]);
    if (k < s->n_direct && s->direct[k] == now[i])
      k++;
    else
      note_change(s, now[i]);
  }
  while (k < s->n_direct) note_change(s, s->direct[k++]);
}

/* Without memory the list stays as it was, and the next frame tries again. */
static void look(replic__sync *s) {
  if (s->direct_looked == s->links_changed) return;
  uint32_t *list = sqlite3_malloc64((s->n_links + 1) * sizeof *list);
  if (!list) return;
  size_t n = gather(s, list);
  note_changes(s, list, n);
  sqlite3_free(s->direct);
  s->direct = list;
  s->n_direct = n;
  s->direct_looked = s->links_changed;
}

static void put_list(const replic__sync *s, replic__writer *w) {
  replic__put_varint(w, (uint64_t)s->direct_at);
  replic__put_varint(w, s->n_direct);
  for (size_t i = 0; i < s->n_direct; i++) replic__put_varint(w, s->direct[i]);
}

void replic__put_neighbours(replic *r, replic__writer *w) {
  look(r->sync);
  put_list(r->sync, w);
}

/* Those that have come or gone since that change, and whether they are linked now. */
static void put_changes(const replic__sync *s, replic__writer *w, int64_t since) {
  uint32_t list[DIRECT_KEPT];
  size_t n = 0;
  for (int64_t i = since; i < s->direct_at; i++) {
    uint32_t peer = s->direct_changed[i % DIRECT_KEPT];
    size_t at = place_of(list, n, peer);
    if (at < n && list[at] == peer) continue;
    memmove(&list[at + 1], &list[at], (n++ - at) * sizeof *list);
    list[at] = peer;
  }
  replic__put_varint(w, (uint64_t)since);
  replic__put_varint(w, (uint64_t)s->direct_at);
  replic__put_varint(w, n);
  for (size_t i = 0; i < n; i++) {
    replic__put_varint(w, list[i]);
    replic__put_varint(w, (uint64_t)has(s->direct, s->n_direct, list[i]));
  }
}

static int relays_to(const replic__sync *s, const link *l) {
  return !l->muted && s->n_direct > (size_t)has(s->direct, s->n_direct, l->peer);
}

void replic__put_neighbour_changes(replic *r, link *l, replic__writer *w) {
  replic__sync *s = r->sync;
  look(s);
  replic__put_varint(w, relays_to(s, l) ? 1 + (uint64_t)l->direct_at : 0);
  int is_new = l->direct_sent != s->direct_at || replic__is_heartbeat_past(r, l->direct_ms);
  if (l->direct_known < 0 || l->direct_known == s->direct_at || !is_new) {
    replic__put_varint(w, LIST_SAME);
    return;
  }
  int64_t since = l->direct_known, n = s->direct_at - since;
  int is_kept = n > 0 && n <= DIRECT_KEPT && n <= (int64_t)s->n_direct;
  l->direct_sent = s->direct_at;
  l->direct_ms = r->now_ms;
  replic__put_varint(w, is_kept ? LIST_CHANGES : LIST_WHOLE);
  if (is_kept)
    put_changes(s, w, since);
  else
    put_list(s, w);
}

/* ---- the other side's ---- */

static void take_list(link *l, uint32_t *list, size_t n, int64_t at) {
  sqlite3_free(l->direct);
  l->direct = list;
  l->n_direct = n;
  l->direct_at = at;
}

int replic__get_neighbours(link *l, replic__reader *in) {
  int64_t at = replic__get_sequence(in);
  size_t n = replic__get_count(in, 1);
  if (n > DIRECT_MAX) in->failed = 1;
  if (in->failed) return REPLIC_OK;
  uint32_t *list = sqlite3_malloc64((n + 1) * sizeof *list), last = 0;
  if (!list) return SQLITE_NOMEM;
  for (size_t i = 0; i < n; i++) list[i] = replic__get_origin(in, &last);
  take_list(l, list, n, at);
  return REPLIC_OK;
}

/* The list here with the changes that follow. */
static size_t merge(const link *l, replic__reader *in, size_t n_changes, uint32_t *list) {
  size_t k = 0, n = 0;
  uint32_t last = 0;
  for (; n_changes > 0 && !in->failed; n_changes--) {
    uint32_t peer = replic__get_origin(in, &last);
    while (k < l->n_direct && l->direct[k] < peer) list[n++] = l->direct[k++];
    k += k < l->n_direct && l->direct[k] == peer;
    if (replic__get_varint(in, 1)) list[n++] = peer;
  }
  while (k < l->n_direct) list[n++] = l->direct[k++];
  return n;
}

/* Late ones, and those that others have not come before, change nothing: what is here is told with
 * the next ACK. */
static int get_changes(link *l, replic__reader *in) {
  int64_t since = replic__get_sequence(in), at = replic__get_sequence(in);
  size_t n = replic__get_count(in, 2);
  if (n > DIRECT_KEPT || since > at) in->failed = 1;
  if (in->failed) return REPLIC_OK;
  uint32_t *list = sqlite3_malloc64((l->n_direct + n + 1) * sizeof *list);
  if (!list) return SQLITE_NOMEM;
  n = merge(l, in, n, list);
  if (n > DIRECT_MAX) in->failed = 1;
  if (in->failed || since > l->direct_at || at <= l->direct_at)
    sqlite3_free(list);
  else
    take_list(l, list, n, at);
  return REPLIC_OK;
}

int replic__get_neighbour_changes(link *l, replic__reader *in) {
  int64_t known = (int64_t)replic__get_varint(in, REPLIC_MAX_SEQUENCE) - 1;
  if (l->direct_known < 0 && known >= 0) l->ack_due = 1;
  l->direct_known = known;
  uint64_t kind = replic__get_varint(in, LIST_CHANGES);
  if (kind == LIST_WHOLE) return replic__get_neighbours(l, in);
  return kind == LIST_CHANGES ? get_changes(l, in) : REPLIC_OK;
}

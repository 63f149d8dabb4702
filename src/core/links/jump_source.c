/* jump_source.c - the side whose log is pruned: JUMP says where it ends and what is pruned, TAKE
 * says what the other side has staged. See jump.c. */
#include "links/links.h"

int64_t replic__age(const replic *r) {
  int64_t age = 0;
  for (size_t i = 0; i < r->n_vector; i++)
    age = replic__sum(age, r->vector[i].committed.sequence + r->vector[i].pruned.floor);
  return age;
}

static void send_jump(replic *r, link *l) {
  replic__writer w;
  uint64_t n = 0;
  replic__put_frame(&w, FRAME_JUMP);
  for (size_t i = 0; i < r->n_vector; i++) n += r->vector[i].committed.sequence > 0;
  replic__put_varint(&w, n);
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic__entry *entry = &r->vector[i];
    if (!entry->committed.sequence) continue;
    replic__put_varint(&w, entry->committed.origin);
    replic__put_varint(&w, (uint64_t)entry->committed.sequence);
    replic__put_varint(&w, (uint64_t)entry->committed.patched_at);
    replic__put_varint(&w, entry->committed.epoch);
    replic__put_varint(&w, (uint64_t)entry->pruned.floor);
  }
  l->jump_due = 0;
  l->jump_ms = r->now_ms;
  replic__send(r, l, replic__finish_frame(&w));
}

static void send_on_from_there(replic *r, link *l) {
  for (size_t i = 0; i < l->n_at; i++) {
    position *at = &l->at[i];
    int64_t from = at->staged > at->acked ? at->staged : at->acked;
    if (!at->staging) continue;
    l->unacked -= at->unacked; /* nothing is on its way any more, also where all is staged */
    at->unacked = 0;
    if (at->sent <= from) continue;
    replic__count_again(r, l, at->sent - from);
    at->sent = from;
  }
  replic__define_again(r, l);
  l->jump_due = 1;
}

void replic__take_again(replic *r, link *l) {
  if (!l->wants_again || !replic__is_heartbeat_past(r, l->again_ms)) return;
  l->wants_again = 0;
  l->again_ms = r->now_ms;
  replic__carry_over(r, l);
  send_on_from_there(r, l);
}

/* It has no more than that: what is not in the list, nothing of. */
static void set_back(link *l, replic__reader list) {
  uint32_t last = 0;
  size_t i = 0;
  for (size_t n = replic__get_count(&list, 2); n > 0; n--) {
    uint32_t origin = replic__get_origin(&list, &last);
    int64_t staged = replic__get_sequence(&list);
    for (; i < l->n_at && l->at[i].origin < origin; i++) l->at[i].staged = 0;
    if (i == l->n_at || l->at[i].origin > origin) continue;
    if (l->at[i].staged > staged) l->at[i].staged = staged;
    i++;
  }
  for (; i < l->n_at; i++) l->at[i].staged = 0;
}

int replic__on_take(replic *r, link *l, replic__reader *in) {
  int wants_again = (int)replic__get_varint(in, 1);
  const replic__reader list = *in;
  uint32_t last = 0;
  l->taking = 1;
  for (size_t n = replic__get_count(in, 2); n > 0 && !in->failed; n--) {
    uint32_t origin = replic__get_origin(in, &last);
    int64_t staged = replic__get_sequence(in);
    if (in->failed) return replic__malformed(r, l, "TAKE");
    position *at = replic__position(l, origin);
    int rc = at ? REPLIC_OK : replic__no_position(r, l, origin);
    if (rc != REPLIC_OK) return rc;
    if (!at) continue;
    if (staged > replic__vector_sequence(r, origin) || staged <= at->staged) continue;
    int64_t from = at->staged > at->acked ? at->staged : at->acked;
    if (at->staging && at->sent > from && staged > from) {
      int64_t unacked =
          staged >= at->sent ? 0 : at->unacked / (at->sent - from) * (at->sent - staged);
      l->unacked -= at->unacked - unacked;
      at->unacked = unacked;
    }
    at->staged = staged;
  }
  if (in->failed || in->at != in->end) return replic__malformed(r, l, "TAKE");
  if (wants_again) set_back(l, list);
  l->wants_again |= wants_again;
  replic__take_again(r, l);
  return REPLIC_OK;
}

/* Everything that the peer lacks is on its way. */
static int all_sent(const replic *r, link *l) {
  for (size_t i = 0, p = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    const position *at = replic__next_position(l, mine->origin, &p);
    if (!at || (mine->origin != l->peer && at->acked < mine->sequence && at->sent < mine->sequence))
      return 0;
  }
  return 1;
}

void replic__flush_jump(replic *r, link *l) {
  if (l->take_due && !r->sync->merging) replic__send_take(r, l);
  if (!l->below) {
    l->taking = l->jump_due = 0;
    return;
  }
  int due =
      l->jump_due || r->now_ms < l->jump_ms || r->now_ms - l->jump_ms >= r->config.heartbeat_ms;
  if (due && (!l->taking || all_sent(r, l))) send_jump(r, l);
}

/* asking.c - NEED: what is lacking is asked for, over the link that brings it. */
#include <string.h>

#include "links/links.h"

/* A link to ask over: nothing is asked of who may only read. */
static link *heard_link(const replic *r, uint32_t peer) {
  for (size_t i = 0; i < r->sync->n_links; i++) {
    link *l = r->sync->links[i];
    if (replic__reaches(l, peer) && !l->unheard && !l->reader) return l;
  }
  return NULL;
}

static void trouble(replic *r, const link *l, const link *next, const char *what) {
  replic__event(
      r,
      (replic_event){
          .kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = REPLIC_ETIMEOUT},
      "heartbeats of peer %u come over this link, but %s: link %u carries them from here "
      "on. Look at what lies between the two peers",
      l->peer, what, next->id);
}

/* Nobody is left to ask over: all are tried again. */
static void hear_all(const replic *r, uint32_t peer) {
  for (size_t i = 0; i < r->sync->n_links; i++) {
    link *l = r->sync->links[i];
    if (l->peer != peer) continue;
    l->unheard = l->taken = 0;
    for (size_t k = 0; k < l->n_at; k++) l->at[k].asked = 0;
  }
}

/* A heartbeat says what was sent, on an ordered link behind it: so on a slow one nothing is asked
 * for while it is on its way. What is lost five times in a row, on a link that loses a fifth of its
 * frames, is one in 3,000; and asking elsewhere does no harm where another link is there. */
link *replic__ask_over(replic *r, link *l, int asked) {
  if (asked <= UNHEARD_MAX && !l->unheard) return l;
  int was_unheard = l->unheard;
  l->unheard = 1;
  link *other = heard_link(r, l->peer);
  if (other && !was_unheard) trouble(r, l, other, "what it has sent of patches does not");
  if (other) return other;
  hear_all(r, l->peer);
  return l;
}

/* Where it goes to and fro between two links, both carry: the other side of one of them may be
 * somebody else, who takes what it can get. */
void replic__carry_over(replic *r, link *l) {
  link **links = r->sync->links;
  size_t at = 0;
  if (replic__link_active(r, l)) return;
  for (size_t i = 0; i < r->sync->n_links; i++) {
    link *other = links[i];
    if (other == l) at = i;
    if (other == l || !replic__reaches(other, l->peer) || !replic__same_rights(other, l)) continue;
    if (replic__link_active(r, other)) trouble(r, other, l, "no patches arrive there");
    for (size_t k = 0; k < other->n_at; k++) { /* nothing is on its way there any more */
      other->unacked -= other->at[k].unacked;
      other->at[k].unacked = 0;
      other->at[k].sent = other->at[k].acked;
    }
  }
  memmove(links + 1, links, at * sizeof *links);
  links[0] = l;
  r->sync->links_changed++;
  replic__stir(r);
  l->carried++;
}

/* Counts what is asked for in vain against each link that it is asked for over. */
static link *need_over(replic *r, link *l, uint32_t origin, int64_t known) {
  for (;;) {
    position *at = replic__position(l, origin);
    if (!at) return l;
    at->asked = at->asked_at != known ? 1 : at->asked + 1;
    at->asked_at = known;
    link *next = replic__ask_over(r, l, at->asked);
    if (next == l) return l;
    l = next;
  }
}

void replic__send_need(replic *r, link *l, position *at) {
  int64_t known = replic__vector_sequence(r, at->origin);
  if (at->need_ms && r->now_ms - at->need_ms < r->config.heartbeat_ms && r->now_ms >= at->need_ms)
    return;
  if (r->is_busy) return; /* it could not be stored, and may be waiting already */
  if (replic__is_jumping(r, at->origin)) return; /* what is lacking after that is asked for then */
  if (replic__is_heartbeat_past(r, l->needs_ms)) {
    l->needs_ms = r->now_ms;
    l->n_needs = 0;
  }
  if (l->n_needs++ >= NEEDS_MAX) return;
  at->need_ms = r->now_ms;
  replic__writer w;
  replic__put_frame(&w, FRAME_NEED);
  replic__put_varint(&w, at->origin);
  replic__put_varint(&w, (uint64_t)known);
  replic__send(r, need_over(r, l, at->origin, known), replic__finish_frame(&w));
}

static void ask_again(replic *r, link *l, position *at) {
  if (at->announced <= replic__vector_sequence(r, at->origin)) return;
  if (at->held && r->now_ms < at->held_until) return;
  at->need_ms = 0;
  replic__send_need(r, l, at);
}

/* Asks for all that it is known to have and we lack. */
static void send_needs(replic *r, link *l) {
  for (size_t i = 0; i < l->n_at; i++) ask_again(r, l, &l->at[i]);
}

/* The rest may be on its way, and would come twice. */
void replic__ask_for_held(replic *r, link *l) {
  for (size_t i = 0; i < l->n_at; i++)
    if (l->at[i].held) ask_again(r, l, &l->at[i]);
}

/* The peer has told in so many heartbeats that it has what is lacking here, and that nothing of it
 * is on its way. So it takes another link for the one to this peer, or is wrong about what is here.
 */
void replic__look_for_idleness(replic *r, link *l, int is_idle) {
  int lacks = 0, links = 0;
  for (size_t i = 0; i < l->n_at; i++)
    lacks |= l->at[i].origin != r->peer_id && !l->at[i].held &&
             l->at[i].announced > replic__vector_sequence(r, l->at[i].origin);
  for (size_t i = 0; i < r->sync->n_links; i++)
    links +=
        replic__reaches(r->sync->links[i], l->peer) && replic__same_rights(r->sync->links[i], l);
  if (!is_idle || !lacks || links > 1 || !l->idle_ms || r->now_ms < l->idle_ms)
    l->idle_ms = r->now_ms;
  if (r->now_ms - l->idle_ms < HELD_HEARTBEATS * r->config.heartbeat_ms) return;
  l->idle_ms = 0;
  send_needs(r, l);
}

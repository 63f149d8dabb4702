/* rights.c - links over which one side may only read (protocol.md, Rights).
 *
 *      hub ── link->reader ─────────── link->muted ── dashboard
 *       │  HELLO with FLAG_READER ──>                    │
 *       │  all patches ──────────────>                   │
 *       │  <────────────────────────── HELLO, ACK, NEED, TAKE, MESSAGE; never what would bring
 *
 * The side that lets the other one read says so in its HELLO, and so before anything is sent: the
 * other side keeps its patches, definitions and offers of a jump, and nothing fills its window.
 * Whatever it sends of these nevertheless is not looked at. Patches that it has and that are
 * missing here are told of once: at once where it made them itself, else when they have not come
 * another way after the grace of relays. */
#include "links/links.h"

int replic__brings(int frame_type) {
  return frame_type == FRAME_PATCHES || frame_type == FRAME_STAGE || frame_type == FRAME_JUMP ||
         frame_type == FRAME_SCHEMA || frame_type == FRAME_FORK;
}

void replic__tell_reader(replic *r, link *l) {
  if (l->reader_told) return;
  l->reader_told = 1;
  char *text =
      sqlite3_mprintf("peer %u may only read at peer %u: what it or others through it have written "
                      "is not taken over "
                      "this link. If it is to write, let authorize() of peer %u permit that",
                      l->peer, r->peer_id, r->peer_id);
  if (!text) return;
  replic__send_error(r, l, REPLIC_EREADONLY, text);
  replic__event(r,
                (replic_event){.kind = REPLIC_EVENT_LINK_ERROR,
                               .link = l->id,
                               .peer = l->peer,
                               .code = REPLIC_EREADONLY},
                "%s", text);
  sqlite3_free(l->held);
  l->held = text;
}

void replic__reader_has(replic *r, link *l, uint32_t origin, int64_t sequence) {
  if (l->reader && origin == l->peer && sequence > replic__vector_sequence(r, origin))
    replic__tell_reader(r, l);
}

static int has_more(const replic *r, const link *l) {
  for (size_t i = 0; i < l->n_at; i++)
    if (l->at[i].announced > replic__vector_sequence(r, l->at[i].origin)) return 1;
  return 0;
}

void replic__tick_reader(replic *r, link *l) {
  if (!l->reader || l->reader_told) return;
  l->reader_beats = has_more(r, l) ? l->reader_beats + 1 : 0;
  if (l->reader_beats > GRACE_HEARTBEATS) replic__tell_reader(r, l);
}

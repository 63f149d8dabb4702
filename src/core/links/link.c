/* link.c - the links, what each knows of its peer, and what is said over one: the bottom of this
 * floor. */
#include <string.h>

#include "links/links.h"

/* ---- positions ---- */

int64_t replic__sum(int64_t a, int64_t b) {
  return a > INT64_MAX - b ? INT64_MAX : a + b;
}

link *replic__link_find(const replic *r, uint32_t id) {
  for (size_t i = 0; i < r->sync->n_links; i++)
    if (r->sync->links[i]->id == id) return r->sync->links[i];
  return NULL;
}

/* Where the entry of that origin is, or belongs. */
static size_t place_of(const link *l, uint32_t origin) {
  size_t low = 0, high = l->n_at;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (l->at[middle].origin < origin)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

position *replic__find_position(const link *l, uint32_t origin) {
  size_t at = place_of(l, origin);
  return at < l->n_at && l->at[at].origin == origin ? &l->at[at] : NULL;
}

position *replic__position(link *l, uint32_t origin) {
  size_t low = place_of(l, origin);
  if (low < l->n_at && l->at[low].origin == origin) return &l->at[low];
  if (l->n_at >= l->max_at) return NULL;
  if (l->n_at == l->cap_at) {
    size_t cap = l->cap_at ? l->cap_at * 2 : 8;
    position *grown = sqlite3_realloc64(l->at, cap * sizeof *grown);
    if (!grown) return NULL;
    l->at = grown;
    l->cap_at = cap;
  }
  memmove(&l->at[low + 1], &l->at[low], (l->n_at - low) * sizeof *l->at);
  l->n_at++;
  l->at[low] = (position){.origin = origin, .backlog = -1, .wants = -1};
  return &l->at[low];
}

position *replic__next_position(link *l, uint32_t origin, size_t *at) {
  while (*at < l->n_at && l->at[*at].origin < origin) ++*at;
  return *at < l->n_at && l->at[*at].origin == origin ? &l->at[*at] : replic__position(l, origin);
}

int replic__no_position(replic *r, link *l, uint32_t origin) {
  if (l->n_at < l->max_at) return SQLITE_NOMEM;
  if (l->crowded) return REPLIC_OK;
  l->crowded = sqlite3_mprintf(
      "peers %u and %u know more than %d origins: patches of peer %u and further ones are not "
      "exchanged over this link. Whatever opens a new file at each start is a new origin each "
      "time: "
      "let it keep its file",
      r->peer_id, l->peer, (int)l->max_at, origin);
  if (!l->crowded) return SQLITE_NOMEM;
  replic__send_error(r, l, REPLIC_EQUOTA, l->crowded);
  replic__event(
      r,
      (replic_event){
          .kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = REPLIC_EQUOTA},
      "%s", l->crowded);
  return REPLIC_OK;
}

void replic__learn(replic *r, link *l, position *at, int64_t applied) {
  if (applied > at->announced) at->announced = applied;
  if (applied <= at->acked) return;
  int64_t unacked =
      applied >= at->sent ? 0 : at->unacked / (at->sent - at->acked) * (at->sent - applied);
  l->unacked -= at->unacked - unacked;
  at->unacked = unacked;
  at->acked = applied;
  at->must_relay = at->stopped = at->probe = 0;
  at->lag_since_ms = applied < replic__vector_sequence(r, at->origin) ? r->now_ms : 0;
}

/* ---- which link carries ---- */

int replic__same_rights(const link *a, const link *b) {
  return a->reader == b->reader && a->muted == b->muted;
}

int replic__reaches(const link *l, uint32_t peer) {
  return l->ready && !l->closing && !l->fork_text && l->peer == peer;
}

int replic__is_linked(const replic *r, uint32_t peer) {
  int n = 0;
  for (size_t i = 0; i < r->sync->n_links; i++) n += replic__reaches(r->sync->links[i], peer);
  return n > 0;
}

/* A later process of the peer's has come. The former one has most likely ended, though its link may
 * seem to be up for long; if not, both links end (check_rival). */
static int is_superseded(const replic *r, const link *l) {
  const link *rival = l->rival ? replic__link_find(r, l->rival) : NULL;
  return rival && replic__reaches(rival, l->peer);
}

static int look_for_first(const replic *r, const link *l) {
  if (!replic__reaches(l, l->peer) || is_superseded(r, l)) return 0;
  for (size_t i = 0; r->sync->links[i] != l; i++) {
    const link *other = r->sync->links[i];
    if (replic__reaches(other, l->peer) && replic__same_rights(other, l) &&
        !is_superseded(r, other))
      return 0;
  }
  return 1;
}

/* Of several links to one peer the first that is ready, of its latest process. It is looked for
 * once for each change of the links: among thousands it is asked for at every flush of each. */
int replic__link_first(const replic *r, link *l) {
  if (l->first_looked != r->sync->links_changed) {
    l->is_first = look_for_first(r, l);
    l->first_looked = r->sync->links_changed;
  }
  return l->is_first;
}

int replic__link_active(const replic *r, link *l) {
  return replic__link_first(r, l) || (l->carried > 1 && replic__reaches(l, l->peer));
}

void replic__stir(replic *r) {
  for (size_t i = 0; i < r->sync->n_links; i++) r->sync->links[i]->stirred = 1;
}

/* ---- whose word counts ---- */

/* What the peer has told was true when it was sent. By a link that is slow it comes late, and
 * patches come faster another way: so it counts only where it was on its way for hardly longer than
 * others were (the clocks may differ). */
void replic__note_word(const replic *r, link *l) {
  if (!l->word_ms || l->skew_ms > l->most_skew_ms) l->most_skew_ms = l->skew_ms;
  if (l->most_skew_ms - l->skew_ms < r->config.heartbeat_ms) l->word_ms = r->now_ms;
}

/* Else its patches come by others, after the same time (may_relay). */
static int is_heard(const replic *r, const link *l) {
  return r->now_ms >= l->word_ms &&
         r->now_ms - l->word_ms < GRACE_HEARTBEATS * r->config.heartbeat_ms;
}

int64_t replic__own_word(const replic *r, const link *l, uint32_t origin) {
  int64_t word = NO_WORD;
  for (size_t i = 0; i < r->sync->n_links; i++) {
    const link *own = r->sync->links[i];
    if (own == l || own->reader || !replic__reaches(own, origin) || !is_heard(r, own)) continue;
    const position *at = replic__find_position(own, origin);
    if (at && at->announced > word) word = at->announced;
  }
  return word >= replic__vector_sequence(r, origin) ? word : NO_WORD;
}

int64_t replic__believed(const replic *r, const link *l, uint32_t origin) {
  int64_t word = l->peer == origin ? NO_WORD : replic__own_word(r, l, origin);
  if (word == NO_WORD && l->peer != origin)
    word = replic__vector_denied(r, origin, r->now_ms - DENIED_HEARTBEATS * r->config.heartbeat_ms);
  return word == NO_WORD ? INT64_MAX : word;
}

/* ---- a jump that is being merged ---- */

target *replic__find_target(const replic__merging *m, uint32_t origin) {
  size_t low = 0, high = m->n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (m->targets[middle].to.origin < origin)
      low = middle + 1;
    else
      high = middle;
  }
  return low < m->n && m->targets[low].to.origin == origin ? &m->targets[low] : NULL;
}

int replic__is_jumping(const replic *r, uint32_t origin) {
  const replic__sync *s = r->sync;
  return s->is_merging_unknown || (s->merging && replic__find_target(s->merging, origin));
}

/* ---- sending ---- */

/* Takes over the caller's reference. */
void replic__send(replic *r, link *l, replic_frame *frame) {
  replic_outbox *box = &r->outbox;
  if (frame && box->n_sends == box->cap_sends) {
    size_t cap = box->cap_sends ? box->cap_sends * 2 : 16;
    replic_send *grown = sqlite3_realloc64(box->sends, cap * sizeof *grown);
    if (grown) {
      box->sends = grown;
      box->cap_sends = cap;
    }
  }
  if (!frame || l->closing ||
      box->n_sends == box->cap_sends) { /* lost: the next heartbeat repairs it */
    replic__frame_release(frame);
    return;
  }
  box->sends[box->n_sends++] = (replic_send){l->id, frame};
  l->frames_out++;
  l->bytes_out += (int64_t)frame->len;
  replic__trace(r, "sent frame %d, %lld bytes, link %u, peer %u", frame->data[1],
                (int64_t)frame->len, l->id, l->peer);
}

/* Of patches of `origin` that are held: from where on. 0: of none. */
static void send_error(replic *r, link *l, int code, const char *text, uint32_t origin,
                       int64_t after) {
  replic__writer w;
  replic__put_frame(&w, FRAME_ERROR);
  replic__put_text(&w, replic_code_name(code));
  replic__put_text(&w, text);
  if (origin) replic__put_varint(&w, origin);
  if (origin) replic__put_varint(&w, (uint64_t)after);
  replic__send(r, l, replic__finish_frame(&w));
}

void replic__send_error(replic *r, link *l, int code, const char *text) {
  send_error(r, l, code, text, 0, 0);
}

void replic__count_again(replic *r, link *l, int64_t patches) {
  r->counters.retransmissions = replic__sum(r->counters.retransmissions, patches);
  l->sent_again = replic__sum(l->sent_again, patches);
}

int replic__is_heartbeat_past(const replic *r, int64_t since_ms) {
  int64_t passed = r->now_ms - since_ms;
  return !since_ms || passed < 0 || passed >= r->config.heartbeat_ms / 4 * 3;
}

void replic__define_again(replic *r, link *l) {
  if (!replic__is_heartbeat_past(r, l->schema_ms)) return;
  l->schema_ms = r->now_ms;
  l->schema_sent = 0;
}

/* ---- holding and refusing ---- */

/* The application hears of so many troubles of a link in a heartbeat, and of no more. */
int replic__may_tell(const replic *r, link *l) {
  if (replic__is_heartbeat_past(r, l->troubles_ms)) {
    l->troubles_ms = r->now_ms;
    l->n_troubles = 0;
  }
  return l->n_troubles++ < TROUBLES_MAX;
}

/* What cannot be applied now is asked for again later; both sides are told once. */
void replic__hold(replic *r, link *l, position *at, int code, int64_t after, int64_t until_ms,
                  const char *text) {
  l->held_ms = r->now_ms;
  at->held_until = until_ms == OF_A_JUMP ? 0 : until_ms;
  if (at->held == code && at->held_after == after) return;
  l->n_held += !at->held;
  r->counters.skew_refusals += code == REPLIC_ECLOCKSKEW;
  at->held = code;
  at->held_after = after;
  send_error(r, l, code, text, until_ms == OF_A_JUMP ? 0 : at->origin, after);
  if (replic__may_tell(r, l))
    replic__event(
        r,
        (replic_event){
            .kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = code},
        "%s", text);
  sqlite3_free(l->held);
  l->held = sqlite3_mprintf("%s", text);
}

void replic__release(link *l, position *at) {
  if (!at->held) return;
  at->held = 0;
  if (--l->n_held > 0) return;
  sqlite3_free(l->held);
  l->held = NULL;
}

void replic__refuse(replic *r, link *l, int code, const char *text) {
  replic__send_error(r, l, code, text);
  replic__event(
      r,
      (replic_event){.kind = REPLIC_EVENT_LINK_CLOSE, .link = l->id, .peer = l->peer, .code = code},
      "%s", text);
  l->closing = 1;
  r->sync->links_changed++;
  replic__stir(r);
}

int replic__malformed(replic *r, const link *l, const char *frame) {
  return replic__fail(r, REPLIC_EPROTOCOL, "peer %u sent a malformed %s frame", l->peer, frame);
}

int replic__forked(replic *r, link *l, uint32_t origin, int64_t sequence, const char *how) {
  l->fork_origin = origin;
  return replic__fail(
      r, REPLIC_EFORK,
      "peers %u and %u have different histories of peer %u at sequence %lld (%s): "
      "a file was copied together with its -replic file. Open one of the two files with a new "
      "peerId: it issues anew what only it has",
      r->peer_id, l->peer, origin, sequence, how);
}

/* ---- lists of origins ---- */

/* Origins come in ascending order: so a list of them is read in linear time. */
uint32_t replic__get_origin(replic__reader *in, uint32_t *last) {
  uint32_t origin = replic__get_peer(in);
  if (origin <= *last) in->failed = 1;
  return *last = origin;
}

void replic__get_position(replic__reader *in, uint32_t *last, replic_position *out) {
  out->origin = replic__get_origin(in, last);
  out->sequence = replic__get_sequence(in);
  out->patched_at = replic__get_clock(in);
  out->epoch = replic__get_epoch(in);
}

/* sync.c - links: who lacks what, and the frames that mend it. Everything follows from comparing
 * vectors.
 *
 * What a link knows about its peer is one `position` per origin:
 *
 *        acked ────────── sent ─────────── mine (the vector)
 *          │ it has applied │ on its way     │ still to be sent
 *
 *   acked      what it has reported as applied (HELLO, ACK). Never guessed.
 *   sent       frames up to here are on their way on this link. NEED takes it back.
 *   announced  what it is known to have, or to have seen; more than mine means that I lack it
 *   told       what I have reported to it
 *
 * After a commit, and when an ACK opens the window again, patches are read from the log at `sent`
 * and put on the way. A patch of a third peer is relayed at once to a peer that has no link to its
 * origin, and after a grace to one that has: so a full mesh carries each patch once, and a broken
 * link is still got round.
 *
 * Nothing relies on a frame's arrival. An ACK also says up to where patches were sent to its
 * receiver: on an ordered link that position has then arrived, so whoever has not applied it has
 * lost it, and asks (NEED). If it has, the sender has missed an ACK, and is told again. So one
 * heartbeat repairs either loss, and on a slow link nothing is sent twice.
 *
 * Where the same peer is reached over several links, the oldest one carries the patches and the
 * others stand by. Should it let heartbeats pass and no patches, who lacks them notices that its
 * asking brings nothing, and asks over another link: that one carries from then on. */
#include <string.h>

#include "links/links.h"

/* ---- links and positions ---- */

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

static position *find_position(const link *l, uint32_t origin) {
  size_t at = place_of(l, origin);
  return at < l->n_at && l->at[at].origin == origin ? &l->at[at] : NULL;
}

int64_t replic_announced(const replic *r, uint32_t origin) {
  int64_t most = -1;
  for (size_t i = 0; i < r->sync->n_links; i++) {
    const link *l = r->sync->links[i];
    if (!l->ready || l->closing || l->reader) continue;
    const position *at = find_position(l, origin);
    int64_t announced = at ? at->announced : 0;
    if (announced > most) most = announced;
  }
  return most;
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

static int reaches(const link *l, uint32_t peer) {
  return l->ready && !l->closing && !l->fork_text && l->peer == peer;
}

int replic__is_linked(const replic *r, uint32_t peer) {
  int n = 0;
  for (size_t i = 0; i < r->sync->n_links; i++) n += reaches(r->sync->links[i], peer);
  return n > 0;
}

/* A later process of the peer's has come. The former one has most likely ended, though its link may
 * seem to be up for long; if not, both links end (check_rival). */
static int is_superseded(const replic *r, const link *l) {
  const link *rival = l->rival ? replic__link_find(r, l->rival) : NULL;
  return rival && reaches(rival, l->peer);
}

static int look_for_first(const replic *r, const link *l) {
  if (!reaches(l, l->peer) || is_superseded(r, l)) return 0;
  for (size_t i = 0; r->sync->links[i] != l; i++) {
    const link *other = r->sync->links[i];
    if (reaches(other, l->peer) && replic__same_rights(other, l) && !is_superseded(r, other))
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
  return replic__link_first(r, l) || (l->carried > 1 && reaches(l, l->peer));
}

/* What the peer has told was true when it was sent. By a link that is slow it comes late, and
 * patches come faster another way: so it counts only where it was on its way for hardly longer than
 * others were (the clocks may differ). */
static void note_word(const replic *r, link *l) {
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
    if (own == l || own->reader || !reaches(own, origin) || !is_heard(r, own)) continue;
    const position *at = find_position(own, origin);
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

/* How many patches the other side has not acknowledged, but for its own. `*most`: what it has of
 * the origin that it lacks most of; origin 0: it lacks nothing. (Vector and positions are in
 * order.) */
static int64_t lag_of(const replic *r, const link *l, position *most) {
  int64_t lag = 0, largest = 0;
  *most = (position){0};
  for (size_t i = 0, p = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].now;
    while (p < l->n_at && l->at[p].origin < mine->origin) p++;
    int64_t acked = p < l->n_at && l->at[p].origin == mine->origin ? l->at[p].acked : 0;
    int64_t lacks = mine->origin == l->peer ? 0 : mine->sequence - acked;
    if (lacks <= 0) continue;
    lag = replic__sum(lag, lacks);
    if (lacks <= largest) continue;
    largest = lacks;
    *most = (position){.origin = mine->origin, .acked = acked};
  }
  return lag;
}

static void free_link(link *l) {
  replic__tables_free(&l->tables);
  sqlite3_free(l->at);
  sqlite3_free(l->direct);
  sqlite3_free(l->held);
  sqlite3_free(l->crowded);
  sqlite3_free(l->schema);
  sqlite3_free(l->fork_text);
  sqlite3_free(l);
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

/* Who has set the clock here ahead: nothing, where none has. */
static void put_leader(const replic *r, replic__writer *w) {
  uint32_t leader = replic__clock_leader(r);
  if (leader) replic__put_varint(w, leader);
}

static void send_hello(replic *r, link *l, int flags) {
  replic__writer w;
  replic__put_frame(&w, FRAME_HELLO);
  replic__put_varint(&w, (uint64_t)(flags | (l->reader ? FLAG_READER : 0)));
  replic__put_varint(&w, r->peer_id);
  replic__put_varint(&w, r->config.new_peer_id);
  replic__put_varint(&w, (uint64_t)r->now_ms);
  replic__put_varint(&w, replic_vector_count(r));
  for (size_t i = 0; i < r->n_vector; i++) {
    const replic_position *p = &r->vector[i].committed;
    if (!p->sequence) continue;
    replic__put_varint(&w, p->origin);
    replic__put_varint(&w, (uint64_t)p->sequence);
    replic__put_varint(&w, (uint64_t)p->patched_at);
    replic__put_varint(&w, p->epoch);
  }
  replic__put_neighbours(r, &w);
  put_leader(r, &w);
  replic__send(r, l, replic__finish_frame(&w));
}

void replic__send_void(replic *r, link *l) {
  send_hello(r, l, FLAG_VOID);
}

/* What the other side holds counts, though nothing of it is: so it tells when it has it. */
static int is_on_its_way(const position *at, int staging) {
  if (!staging && !at->staging && at->stopped) return 1;
  return at->staging == staging && at->sent > at->acked && (!staging || at->sent > at->staged);
}

static void put_sent(replic__writer *w, const link *l, int staging) {
  uint64_t n = 0;
  for (size_t i = 0; i < l->n_at; i++) n += (uint64_t)is_on_its_way(&l->at[i], staging);
  replic__put_varint(w, n);
  for (size_t i = 0; i < l->n_at; i++) {
    if (!is_on_its_way(&l->at[i], staging)) continue;
    replic__put_varint(w, l->at[i].origin);
    replic__put_varint(w, (uint64_t)l->at[i].sent);
  }
}

/* What it may not know yet. Of our own patches it gets told until it has them: nobody else is
 * believed in that (replic__believed), and an ACK may be lost. */
static int is_untold(const replic *r, const replic_position *mine, const position *at) {
  return at && mine->sequence > (mine->origin == r->peer_id ? at->acked : at->told);
}

/* What it does not know yet of our vector, and up to where we have sent. */
void replic__send_ack(replic *r, link *l) {
  replic__writer w;
  replic__put_frame(&w, FRAME_ACK);
  replic__put_varint(&w, (uint64_t)r->now_ms);
  replic__pace_put(l, &w);
  uint64_t n = 0;
  for (size_t i = 0, p = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    n += (uint64_t)is_untold(r, mine, replic__next_position(l, mine->origin, &p));
  }
  replic__put_varint(&w, n);
  for (size_t i = 0, p = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].committed;
    position *at = replic__next_position(l, mine->origin, &p);
    if (!is_untold(r, mine, at)) continue;
    replic__put_varint(&w, mine->origin);
    replic__put_varint(&w, (uint64_t)mine->sequence);
    at->told = mine->sequence;
  }
  put_sent(&w, l, 0);
  put_sent(&w, l, 1);
  replic__put_neighbour_changes(r, l, &w);
  put_leader(r, &w);
  l->ack_due = 0;
  replic__send(r, l, replic__finish_frame(&w));
}

/* A link to ask over: nothing is asked of who may only read. */
static link *heard_link(const replic *r, uint32_t peer) {
  for (size_t i = 0; i < r->sync->n_links; i++) {
    link *l = r->sync->links[i];
    if (reaches(l, peer) && !l->unheard && !l->reader) return l;
  }
  return NULL;
}

void replic__stir(replic *r) {
  for (size_t i = 0; i < r->sync->n_links; i++) r->sync->links[i]->stirred = 1;
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
    if (other == l || !reaches(other, l->peer) || !replic__same_rights(other, l)) continue;
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
static void ask_for_held(replic *r, link *l) {
  for (size_t i = 0; i < l->n_at; i++)
    if (l->at[i].held) ask_again(r, l, &l->at[i]);
}

/* The peer has told in so many heartbeats that it has what is lacking here, and that nothing of it
 * is on its way. So it takes another link for the one to this peer, or is wrong about what is here.
 */
static void look_for_idleness(replic *r, link *l, int is_idle) {
  int lacks = 0, links = 0;
  for (size_t i = 0; i < l->n_at; i++)
    lacks |= l->at[i].origin != r->peer_id && !l->at[i].held &&
             l->at[i].announced > replic__vector_sequence(r, l->at[i].origin);
  for (size_t i = 0; i < r->sync->n_links; i++)
    links += reaches(r->sync->links[i], l->peer) && replic__same_rights(r->sync->links[i], l);
  if (!is_idle || !lacks || links > 1 || !l->idle_ms || r->now_ms < l->idle_ms)
    l->idle_ms = r->now_ms;
  if (r->now_ms - l->idle_ms < HELD_HEARTBEATS * r->config.heartbeat_ms) return;
  l->idle_ms = 0;
  send_needs(r, l);
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

/* ---- receiving: refusals ---- */

/* The application hears of so many troubles of a link in a heartbeat, and of no more. */
static int may_tell(const replic *r, link *l) {
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
  if (may_tell(r, l))
    replic__event(
        r,
        (replic_event){
            .kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = code},
        "%s", text);
  sqlite3_free(l->held);
  l->held = sqlite3_mprintf("%s", text);
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

/* ---- receiving: HELLO, ACK, NEED, SCHEMA, ERROR ---- */

/* Origins come in ascending order: so a list of them is read in linear time. */
uint32_t replic__get_origin(replic__reader *in, uint32_t *last) {
  uint32_t origin = replic__get_peer(in);
  if (origin <= *last) in->failed = 1;
  return *last = origin;
}

static void get_leader(replic__reader *in, link *l) {
  l->leader = in->failed || in->at == in->end ? 0 : replic__get_peer(in);
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
static void check_claims(replic *r, link *l) {
  int left = replic__check_budget(r), rc = REPLIC_OK;
  for (size_t i = 0; l->n_claims && left > 0 && rc == REPLIC_OK && i < l->n_at; i++) {
    position *at = &l->at[i];
    if (!at->claimed) continue;
    const replic_position theirs = {at->origin, at->claimed, at->claimed_clock, at->claimed_epoch};
    rc = replic__check_claim(r, l, at, &theirs, &left);
  }
  replic__conclude(r, l, rc);
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

/* What it has of this peer's own. Who may only read could not give it back. */
static void tell_acked(replic *r, const link *l) {
  const position *at = r->sync->tells_acks && !l->reader ? find_position(l, r->peer_id) : NULL;
  if (!at || !at->acked) return;
  replic__event(
      r, (replic_event){.kind = REPLIC_EVENT_ACKED, .link = l->id, .peer = l->peer, .a = at->acked},
      NULL);
}

void replic__get_position(replic__reader *in, uint32_t *last, replic_position *out) {
  out->origin = replic__get_origin(in, last);
  out->sequence = replic__get_sequence(in);
  out->patched_at = replic__get_clock(in);
  out->epoch = replic__get_epoch(in);
}

/* A second process says HELLO under a peerId. Usually the first one has ended, and its link will,
 * too. If something comes from it that is later than that HELLO, both live. */
static void find_rivals(replic *r, const link *l, int64_t wall) {
  for (size_t i = 0; i < r->sync->n_links; i++) {
    link *other = r->sync->links[i];
    if (other == l || other->peer != l->peer || !other->ready || other->instance == l->instance ||
        other->reader != l->reader)
      continue;
    other->rival = l->id;
    other->rival_ms = wall;
  }
}

/* Did it issue the latest patches of its peer's that are here? */
static int is_author(replic *r, const link *l) {
  if (!replic__vector_sequence(r, l->peer)) return 0;
  return l->instance && replic__vector_entry(r, l->peer)->now.epoch == l->instance;
}

static int check_rival(replic *r, const link *l, int64_t wall) {
  link *rival = l->rival && wall > l->rival_ms ? replic__link_find(r, l->rival) : NULL;
  if (!rival || rival->closing) return REPLIC_OK;
  char *text = sqlite3_mprintf("two peers that run now have the peerId %u: every peer needs its "
                               "own. Open one of the two files with a new peerId",
                               l->peer);
  int rc = REPLIC_OK;
  if (!is_author(r, rival))
    replic__refuse(r, rival, REPLIC_EPEER, text ? text : "two peers have one peerId");
  if (!is_author(r, l)) rc = replic__fail(r, REPLIC_EPEER, "%s", text ? text : "no memory");
  sqlite3_free(text);
  return rc;
}

static int on_hello(replic *r, link *l, replic__reader *in) {
  uint64_t flags = replic__get_varint(in, FLAG_ANSWER | FLAG_READER | FLAG_VOID);
  uint32_t peer = replic__get_peer(in), instance = (uint32_t)replic__get_varint(in, UINT32_MAX);
  int64_t wall = replic__get_clock(in);
  size_t n = replic__get_count(in, 4);
  if (in->failed) return replic__malformed(r, l, "HELLO");
  int own = peer == r->peer_id;
  if ((l->expected && peer != l->expected) || (l->peer && peer != l->peer))
    return replic__fail(
        r, REPLIC_EPEER,
        "peer %u was expected, and peer %u answered: correct the address or the peerId",
        l->peer ? l->peer : l->expected, peer);
  l->peer = peer;
  l->instance = instance;
  if (flags & FLAG_VOID) replic__hear_void(r, l);
  if (!replic__position(l, peer)) return SQLITE_NOMEM; /* before there is no room for it */
  int left = replic__check_budget(r);
  for (uint32_t last = 0; n > 0; n--) {
    replic_position theirs;
    replic__get_position(in, &last, &theirs);
    if (in->failed) return replic__malformed(r, l, "HELLO");
    position *at = replic__position(l, theirs.origin);
    if (at)
      replic__learn(r, l, at, theirs.sequence); /* of a fork, too: what both have, FORK says */
    int rc = !at   ? replic__no_position(r, l, theirs.origin)
             : own ? REPLIC_OK
                   : replic__check_claim(r, l, at, &theirs, &left);
    if (rc != REPLIC_OK) return rc;
  }
  if (own) {
    l->fork_origin = instance == r->config.new_peer_id ? 0 : peer; /* 0: it is this very peer */
    return replic__fail(r, REPLIC_EPEER,
                        "the other side has this peer's own peerId %u: every peer needs its own. "
                        "If a file was copied together with its -replic file, open one of the two "
                        "with a new peerId",
                        peer);
  }
  int rc = replic__get_neighbours(l, in);
  get_leader(in, l);
  if (rc != REPLIC_OK || in->failed || in->at != in->end)
    return rc ? rc : replic__malformed(r, l, "HELLO");
  l->skew_ms = wall - r->now_ms;
  l->muted = (flags & FLAG_READER) != 0;
  r->sync->links_changed++;
  if (flags & FLAG_ANSWER && replic__is_heartbeat_past(r, l->hello_ms)) {
    l->hello_ms = r->now_ms;
    send_hello(r, l, 0);
  }
  note_word(r, l);
  tell_acked(r, l); /* not before all that it claims was checked */
  if (l->ready) return REPLIC_OK;
  l->ready = 1;
  find_rivals(r, l, wall);
  r->sync->links_changed++;
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_LINK_READY, .link = l->id, .peer = peer},
                NULL);
  position *own_at = replic__position(l, peer);
  if (own_at) replic__reader_has(r, l, peer, own_at->announced);
  return REPLIC_OK;
}

static int on_ack(replic *r, link *l, replic__reader *in) {
  int64_t wall = replic__get_clock(in);
  int rival = check_rival(r, l, wall);
  if (rival != REPLIC_OK) return rival;
  if (!replic__pace_get(r, l, wall, in)) return replic__malformed(r, l, "ACK");
  l->skew_ms = wall - r->now_ms;
  note_word(r, l);
  enum { APPLIED, SENT, STAGED };
  int is_idle = 1, is_answer_due = replic__is_heartbeat_past(r, l->answer_ms);
  for (int section = APPLIED; section <= STAGED; section++) {
    uint32_t last = 0;
    for (size_t n = replic__get_count(in, 2); n > 0; n--) {
      is_idle &= section == APPLIED;
      uint32_t origin = replic__get_origin(in, &last);
      int64_t sequence = replic__get_sequence(in), mine = replic__vector_sequence(r, origin);
      if (in->failed) return replic__malformed(r, l, "ACK");
      position *at = replic__position(l, origin);
      int rc = at ? REPLIC_OK : replic__no_position(r, l, origin);
      if (rc != REPLIC_OK) return rc;
      if (!at) continue;
      if (origin == r->peer_id && sequence > mine)
        return replic__forked(r, l, origin, sequence, "it holds more than was issued here");
      if (section == APPLIED) {
        int64_t acked = at->acked;
        replic__learn(r, l, at, sequence);
        if (origin == r->peer_id && at->acked > acked) tell_acked(r, l);
        replic__reader_has(r, l, origin, sequence);
      } else if (l->reader) {
        replic__tell_reader(r, l);
      } else if (section == STAGED) {
        rc = replic__check_staged(r, l, at, sequence);
        if (rc != REPLIC_OK) return rc;
      } else if (sequence > mine) {
        if (sequence > at->announced) at->announced = sequence;
        if (!at->held) replic__send_need(r, l, at);
      } else {
        at->told = 0; /* unless it is on its way: two sides that send would answer each ACK */
        l->ack_due |= is_answer_due;
        if (is_answer_due) l->answer_ms = r->now_ms;
      }
    }
  }
  if (!l->reader) look_for_idleness(r, l, is_idle);
  int rc = replic__get_neighbour_changes(l, in);
  get_leader(in, l);
  return rc != REPLIC_OK                   ? rc
         : in->failed || in->at != in->end ? replic__malformed(r, l, "ACK")
                                           : REPLIC_OK;
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

static void answer_need(replic *r, link *l, position *at, int64_t after) {
  replic__carry_over(r, l);
  if (at->sent > after) replic__count_again(r, l, at->sent - after);
  replic__pace_lost(l);
  l->unacked -= at->unacked;
  at->unacked = 0;
  at->sent = at->acked = after;
  at->must_relay = 1; /* without grace */
  at->probe = at->stopped;
  at->answered_ms = r->now_ms;
  replic__define_again(r, l);
}

/* It may ask for the same as often as it likes, and gets it once per heartbeat. */
static int on_need(replic *r, link *l, replic__reader *in) {
  uint32_t origin = replic__get_peer(in);
  int64_t after = replic__get_sequence(in);
  if (in->failed || in->at != in->end) return replic__malformed(r, l, "NEED");
  if (after >= replic__vector_sequence(r, origin)) return REPLIC_OK; /* someone else has to help */
  position *at = replic__position(l, origin);
  if (!at) return replic__no_position(r, l, origin);
  if (replic__is_heartbeat_past(r, at->answered_ms)) {
    answer_need(r, l, at, after);
  } else {
    l->n_wants += at->wants < 0;
    at->wants = after;
  }
  return REPLIC_OK;
}

static void answer_needs(replic *r, link *l) {
  for (size_t i = 0; l->n_wants && i < l->n_at; i++) {
    position *at = &l->at[i];
    if (at->wants < 0 || !replic__is_heartbeat_past(r, at->answered_ms)) continue;
    answer_need(r, l, at, at->wants);
    at->wants = -1;
    l->n_wants--;
  }
}

static int error_by_name(const char *name) {
  for (int code = REPLIC_ERROR_BASE + 1; code <= REPLIC_EVERSION; code++)
    if (!strcmp(name, replic_code_name(code))) return code;
  return REPLIC_EPROTOCOL;
}

static int leaves_link(int code) {
  return code == REPLIC_ECLOCKSKEW || code == REPLIC_ESCHEMA || code == REPLIC_EREADONLY ||
         code == REPLIC_EQUOTA;
}

/* What the other side holds is not on its way: the window is for the rest. */
static void stop_sending(replic *r, link *l, replic__reader *in) {
  uint32_t origin = replic__get_peer(in);
  int64_t after = replic__get_sequence(in);
  if (in->failed || after >= replic__vector_sequence(r, origin)) return;
  position *at = replic__position(l, origin);
  if (!at || after < at->acked) return; /* it has come another way meanwhile */
  l->unacked -= at->unacked;
  at->unacked = 0;
  at->sent = at->acked = after;
  at->stopped = 1;
  at->probe = 0;
}

static int on_error(replic *r, link *l, replic__reader *in) {
  char *name = replic__copy_text(in), *text = replic__copy_text(in);
  int complete = name && text && !in->failed;
  if (complete) {
    int code = error_by_name(name), stays = leaves_link(code);
    if (!stays || may_tell(r, l))
      replic__event(
          r,
          (replic_event){.kind = stays ? REPLIC_EVENT_LINK_ERROR : REPLIC_EVENT_LINK_CLOSE,
                         .link = l->id,
                         .peer = l->peer,
                         .code = code},
          "the other side reports: %.*s", TROUBLE_TEXT_MAX, text);
    if (!stays) l->closing = 1;
    r->sync->links_changed += !stays;
    if (!stays) replic__stir(r);
    if (stays && in->at != in->end) stop_sending(r, l, in);
  }
  sqlite3_free(name);
  sqlite3_free(text);
  return complete ? REPLIC_OK : in->failed ? replic__malformed(r, l, "ERROR") : SQLITE_NOMEM;
}

static int on_message(replic *r, const link *l, const replic__reader *in) {
  size_t len = (size_t)(in->end - in->at);
  char *copy = sqlite3_malloc64(len + 1);
  if (!copy) return SQLITE_NOMEM;
  if (len) memcpy(copy, in->at, len);
  return replic__event_take(r, (replic_event){.kind = REPLIC_EVENT_MESSAGE,
                                              .link = l->id,
                                              .peer = l->peer,
                                              .a = (int64_t)len,
                                              .text = copy});
}

/* ---- the caller's side ---- */

static int damaged(replic *r, const link *l) {
  return replic__fail(
      r, REPLIC_EPROTOCOL,
      "a frame of peer %u came in damaged: what lies between the two peers changes "
      "bits. Give both a `secret`, or use a transport that protects what it carries",
      l->peer);
}

static int is_patches(const uint8_t *bytes, size_t len) {
  return len > 1 && (bytes[1] == FRAME_PATCHES || bytes[1] == FRAME_STAGE);
}

static int dispatch(replic *r, link *l, const uint8_t *bytes, size_t len) {
  if (len < FRAME_HEAD) return replic__malformed(r, l, "empty");
  if (len > (is_patches(bytes, len) ? r->config.max_frame_bytes + FRAME_SLACK : CONTROL_MAX))
    return replic__fail(
        r, REPLIC_ETOOLARGE,
        "peer %u sent a frame of %lld bytes: raise maxFrameBytes here, or lower it there", l->peer,
        (int64_t)len);
  if (bytes[0] != REPLIC_PROTOCOL_VERSION)
    return bytes[1] == FRAME_HELLO ? replic__fail(r, REPLIC_EVERSION,
                                                  "the other side speaks version %d of the "
                                                  "protocol, this one %d: update the older one",
                                                  bytes[0], REPLIC_PROTOCOL_VERSION)
                                   : replic__malformed(r, l, "unknown");
  if (!replic__is_whole(bytes, len)) return damaged(r, l);
  len -= FRAME_SUM;
  replic__reader in = {bytes + FRAME_HEAD, bytes + len, 0};
  if (l->reader && replic__brings(bytes[1])) {
    if (l->ready) replic__tell_reader(r, l);
    return REPLIC_OK;
  }
  if (bytes[1] == FRAME_FORK && l->peer) return replic__on_fork(r, l, &in);
  if (l->fork_text && bytes[1] != FRAME_ERROR) return REPLIC_OK;
  if (bytes[1] == FRAME_HELLO) return on_hello(r, l, &in);
  if (bytes[1] == FRAME_ERROR) return on_error(r, l, &in);
  if (!l->ready) { /* overtook its HELLO */
    if (bytes[1] < FRAME_HELLO || bytes[1] > FRAME_LAST) return replic__malformed(r, l, "unknown");
    return REPLIC_OK;
  }
  int stages = bytes[1] == FRAME_STAGE || bytes[1] == FRAME_JUMP;
  if (stages && r->gone) return REPLIC_OK; /* as if it were lost on its way */
  switch (bytes[1]) {
  case FRAME_PATCHES: return replic__on_patches(r, l, bytes, len);
  case FRAME_ACK: return on_ack(r, l, &in);
  case FRAME_NEED: return on_need(r, l, &in);
  case FRAME_SCHEMA: return replic__on_schema(r, l, &in);
  case FRAME_STAGE: return replic__on_stage(r, l, bytes, len);
  case FRAME_JUMP: return replic__on_jump(r, l, bytes, len);
  case FRAME_TAKE: return replic__on_take(r, l, &in);
  case FRAME_MESSAGE: return on_message(r, l, &in);
  default: return replic__malformed(r, l, "unknown");
  }
}

int replic_frame_takes(const uint8_t *bytes, size_t len) {
  int type = len > 1 ? bytes[1] : 0;
  if (!len || type == FRAME_ACK) return REPLIC_TAKES_MEMORY;
  return type == FRAME_PATCHES ? REPLIC_TAKES_WRITE_LOCK : REPLIC_TAKES_LONGER;
}

int replic_frame_brings(const uint8_t *bytes, size_t len) {
  int type = len > 1 ? bytes[1] : 0;
  return type == FRAME_PATCHES || type == FRAME_STAGE || type == FRAME_JUMP;
}

uint32_t replic_frame_sum(const uint8_t *bytes, size_t len) {
  return replic__crc32c(bytes, len);
}

int replic_receive(replic *r, uint32_t id, const uint8_t *bytes, size_t len) {
  while (len && replic_has_work(r) == REPLIC_WORK_FIRST) {
    int rc = replic_work(r);
    if (rc != REPLIC_OK) return rc;
  }
  r->sync->units = r->config.work_units;
  link *l = replic__link_find(r, id);
  if (!l || l->closing) return REPLIC_OK;
  l->last_in_ms = r->now_ms;
  if (!len) return REPLIC_OK;
  l->stirred = 1;
  replic__trace(r, "received frame %d, %lld bytes, link %u, peer %u", len > 1 ? bytes[1] : 0,
                (int64_t)len, id, l->peer);
  int rc = dispatch(r, l, bytes, len);
  if ((rc & 0xff) == SQLITE_BUSY) return rc;
  if (is_patches(bytes, len) && !l->reader) replic__pace_arrived(l, len);
  l->frames_in++;
  l->bytes_in += (int64_t)len;
  replic__conclude(r, l, rc);
  replic__apply_early(r);
  replic__try_jump(r);
  return REPLIC_OK;
}

int replic_link_message(replic *r, uint32_t id, const void *bytes, size_t len) {
  link *l = replic__link_find(r, id);
  if (!l || !l->ready || l->closing)
    return replic__fail(r, REPLIC_ENOTFOUND, "link %u is not ready", id);
  if (len > MESSAGE_MAX)
    return replic__fail(r, REPLIC_ETOOLARGE, "a message of %lld bytes: at most %d are possible",
                        (int64_t)len, MESSAGE_MAX);
  replic__writer w;
  replic__put_frame(&w, FRAME_MESSAGE);
  replic__put_bytes(&w, bytes, len);
  replic__send(r, l, replic__finish_frame(&w));
  return REPLIC_OK;
}

int replic_link_open(replic *r, uint32_t id, uint32_t expected_peer, int only_reads) {
  replic__sync *s = r->sync;
  if (replic__link_find(r, id))
    return replic__fail(r, REPLIC_EUSAGE, "link %u is open already", id);
  link **grown = sqlite3_realloc64(s->links, (s->n_links + 1) * sizeof *grown);
  if (!grown) return SQLITE_NOMEM;
  s->links = grown;
  link *l = sqlite3_malloc64(sizeof *l);
  if (!l) return SQLITE_NOMEM;
  *l = (link){.id = id,
              .expected = expected_peer,
              .last_in_ms = r->now_ms,
              .reader = only_reads != 0,
              .direct_known = -1,
              .first_looked = s->links_changed - 1};
  l->max_at = r->config.max_link_origins + 2; /* the peers' own are among them */
  if (!replic__position(l, r->peer_id)) {
    free_link(l);
    return SQLITE_NOMEM;
  }
  s->links[s->n_links++] = l;
  send_hello(r, l, 0);
  return REPLIC_OK;
}

/* What the peer has is known beyond its link. Of a fork it is another history that it has, and from
 * who may only read nothing is taken back. */
static void keep_acked(replic *r, const link *l) {
  if (!l->ready || l->fork_text || l->reader) return;
  for (size_t i = 0; i < l->n_at; i++) replic__vector_elsewhere(r, l->at[i].origin, l->at[i].acked);
}

static void tell_left(replic *r, const link *l) {
  position most;
  int64_t sum = 0;
  for (size_t i = 0; i < r->n_vector; i++) sum = replic__sum(sum, r->vector[i].now.sequence);
  if (!l->ready || l->fork_text || lag_of(r, l, &most) > 0) return;
  replic__event(
      r, (replic_event){.kind = REPLIC_EVENT_LINK_LEFT, .link = l->id, .peer = l->peer, .a = sum},
      NULL);
}

void replic_link_close(replic *r, uint32_t id) {
  replic__sync *s = r->sync;
  link *l = replic__link_find(r, id);
  if (!l) return;
  keep_acked(r, l);
  tell_left(r, l);
  size_t i = 0;
  while (s->links[i] != l) i++;
  memmove(&s->links[i], &s->links[i + 1], (s->n_links - i - 1) * sizeof *s->links);
  s->n_links--;
  for (size_t k = s->n_early; k-- > 0;)
    if (s->early[k].link == id) replic__drop_early(s, k);
  if (s->rest.link == id) replic__drop_rest(s);
  if (s->jump_link == id) replic__jump_over(s);
  s->links_changed++;
  free_link(l);
  replic__stir(r);
}

/* What heartbeats store; with a later one, where another program has the write lock. */
static int store(replic *r) {
  replic__savepoint save;
  int rc = replic__tick_jump(r);
  if (rc == REPLIC_OK) rc = replic__tick_notes(r);
  if (rc != REPLIC_OK || !replic__vector_is_pruned_anew(r)) return rc;
  rc = replic__savepoint_open(r, r->peer_id, &save); /* so that the commit stores it */
  return rc == REPLIC_OK ? replic__savepoint_end(r, &save, rc) : rc;
}

int replic_tick(replic *r) {
  replic__sync *s = r->sync;
  int64_t silent_ms = r->now_ms - s->tick_ms;
  /* the wall clock was set, or this process did not run: nobody could be heard meanwhile */
  replic__claims_look(r, 1);
  int deaf = s->tick_ms && (silent_ms < 0 || silent_ms > r->config.link_timeout_ms);
  s->tick_ms = r->now_ms;
  replic__stir(r);
  for (size_t i = 0; i < s->n_links; i++) {
    link *l = s->links[i];
    if (l->closing) continue;
    if (deaf || replic_has_work(r) == REPLIC_WORK_FIRST || r->now_ms < l->last_in_ms)
      l->last_in_ms = r->now_ms;
    if (l->fork_text) {
      replic__tick_fork(r, l);
    } else if (r->now_ms - l->last_in_ms > r->config.link_timeout_ms) {
      char *text = sqlite3_mprintf("peer %u was silent for more than linkTimeoutMs (%lld)", l->peer,
                                   r->config.link_timeout_ms);
      replic__refuse(r, l, REPLIC_ETIMEOUT, text ? text : "silent");
      sqlite3_free(text);
    } else if (!l->ready) {
      send_hello(r, l, FLAG_ANSWER);
    } else {
      for (size_t p = 0; l->n_held && p < l->n_at; p++) /* another link may have brought it */
        if (replic__vector_sequence(r, l->at[p].origin) > l->at[p].held_after)
          replic__release(l, &l->at[p]);
      if (r->now_ms < l->held_ms) l->held_ms = r->now_ms; /* the wall clock was set back */
      if (l->n_held && r->now_ms - l->held_ms >= HELD_HEARTBEATS * r->config.heartbeat_ms) {
        l->held_ms = r->now_ms;
        ask_for_held(r, l);
      }
      replic__tell_void(r, l);
      answer_needs(r, l);
      replic__take_again(r, l);
      check_claims(r, l);
      l->ack_due = 1;
      replic__tick_reader(r, l);
    }
  }
  replic__tick_skew(r);
  int rc = store(r);
  return (rc & 0xff) == SQLITE_BUSY ? REPLIC_OK : rc;
}

int replic__sync_open(replic *r) {
  r->sync = sqlite3_malloc64(sizeof *r->sync);
  if (!r->sync) return SQLITE_NOMEM;
  memset(r->sync, 0, sizeof *r->sync);
  return REPLIC_OK;
}

void replic__sync_close(replic *r) {
  replic__sync *s = r->sync;
  if (!s) return;
  for (size_t i = 0; i < s->n_links; i++) free_link(s->links[i]);
  while (s->n_early) replic__drop_early(s, 0);
  replic__drop_rest(s);
  while (s->n_ring) replic__ring_drop(s);
  if (s->merging) s->merging->is_read = 0;
  replic__jump_over(s);
  sqlite3_finalize(s->staged_sql);
  sqlite3_finalize(s->told_sql);
  sqlite3_free(s->links);
  sqlite3_free(s->due);
  sqlite3_free(s->dropped);
  sqlite3_free(s->direct);
  sqlite3_free(s);
  r->sync = NULL;
}

void replic__sync_schema_changed(replic *r) {
  replic__sync *s = r->sync;
  while (s->n_ring) replic__ring_drop(s); /* they speak of the old table ids */
  for (size_t i = 0; i < s->n_links; i++)
    if (s->links[i]->ready && s->links[i]->n_held) ask_for_held(r, s->links[i]);
}

const replic_position *replic_unacknowledged(replic *r, size_t *n) {
  for (size_t i = 0; i < r->sync->n_links; i++) keep_acked(r, r->sync->links[i]);
  return replic__vector_nowhere_else(r, n);
}

size_t replic_link_count(const replic *r) {
  return r->sync->n_links;
}

/* A name may be anything; what is made of it is read line by line. */
static void append_line(sqlite3_str *out, const char *name, const char *why) {
  const char *const PARTS[] = {name, "\t", why, "\n"};
  for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
    for (const char *at = PARTS[i]; *at; at++) {
      int is_kept = i % 2 != 0 || ((unsigned char)*at >= ' ' && *at != 0x7f);
      sqlite3_str_append(out, is_kept ? at : "?", 1);
    }
}

/* The latest definition of a name stands first: its sender draws ever greater ids. */
static int comes_after(const remote_table *a, const remote_table *b) {
  int order = sqlite3_stricmp(a->name, b->name);
  return order ? order > 0 : a->id < b->id;
}

/* The first `n` are a heap from `i` on. */
static void sift(remote_table **heap, size_t i, size_t n) {
  for (size_t child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && comes_after(heap[child + 1], heap[child])) child++;
    if (!comes_after(heap[child], heap[i])) return;
    remote_table *swap = heap[i];
    heap[i] = heap[child];
    heap[child] = swap;
  }
}

static void sort_by_name(remote_table **tables, size_t n) {
  for (size_t i = n / 2; i-- > 0;) sift(tables, i, n);
  for (size_t last = n; last-- > 1;) {
    remote_table *swap = tables[0];
    tables[0] = tables[last];
    tables[last] = swap;
    sift(tables, 0, last);
  }
}

/* Of each name the latest definition counts. */
static char *list_tables(replic *r, const link *l) {
  size_t n = l->tables.n, shown = 0;
  remote_table **sorted = sqlite3_malloc64((n + 1) * sizeof(remote_table *));
  if (!sorted) return NULL;
  if (n) memcpy(sorted, l->tables.at, n * sizeof(remote_table *));
  sort_by_name(sorted, n);
  sqlite3_str *out = sqlite3_str_new(NULL);
  for (size_t i = 0; i < n && shown < TABLES_SHOWN; i++) {
    if (i > 0 && !sqlite3_stricmp(sorted[i]->name, sorted[i - 1]->name)) continue;
    if (replic__resolve(r, sorted[i]) != REPLIC_OK) continue;
    append_line(out, sorted[i]->name, sorted[i]->why ? sorted[i]->why : "");
    shown++;
  }
  sqlite3_free(sorted);
  return sqlite3_str_finish(out);
}

static const char *link_schema(replic *r, link *l) {
  if (l->schema && l->schema_generation == r->schema->generation &&
      l->schema_shown == l->schema_changes)
    return l->schema;
  sqlite3_free(l->schema);
  l->schema = list_tables(r, l);
  l->schema_generation = r->schema->generation;
  l->schema_shown = l->schema_changes;
  return l->schema;
}

void replic_tell_acks(replic *r, int on) {
  r->sync->tells_acks = on;
}

int replic_link_at(replic *r, size_t index, replic_link_info *info) {
  if (index >= r->sync->n_links) return 0;
  link *l = r->sync->links[index];
  *info = (replic_link_info){.link = l->id,
                             .peer = l->peer,
                             .state = !l->ready                   ? REPLIC_LINK_OPENING
                                      : replic__link_active(r, l) ? REPLIC_LINK_READY
                                                                  : REPLIC_LINK_STANDBY,
                             .unacked_bytes = l->unacked,
                             .skew_ms = l->skew_ms,
                             .bytes_in = l->bytes_in,
                             .bytes_out = l->bytes_out,
                             .frames_in = l->frames_in,
                             .frames_out = l->frames_out,
                             .staged = l->n_staged,
                             .jump = l->below                      ? REPLIC_JUMP_SENDING
                                     : r->sync->jump_link == l->id ? REPLIC_JUMP_RECEIVING
                                                                   : REPLIC_JUMP_NONE,
                             .retransmitted = l->sent_again,
                             .reader = l->reader,
                             .muted = l->muted,
                             .schema = link_schema(r, l),
                             .held = l->held ? l->held : l->crowded};
  position most;
  info->lag = lag_of(r, l, &most);
  int64_t stamped = 0;
  if (most.origin) replic__log_clock(r, most.origin, most.acked + 1, &stamped);
  if (stamped && r->now_ms > stamped) info->lag_ms = r->now_ms - stamped;
  for (size_t i = 0; i < l->n_at; i++) {
    int64_t mine = replic__vector_sequence(r, l->at[i].origin);
    if (l->at[i].announced > mine)
      info->behind = replic__sum(info->behind, l->at[i].announced - mine);
  }
  return 1;
}

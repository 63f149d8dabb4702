/* hello.c - HELLO and ACK: each side says what it has, what it has sent, and to whom it is linked.
 */
#include "links/links.h"

/* ---- telling ---- */

/* Who has set the clock here ahead: nothing, where none has. */
static void put_leader(const replic *r, replic__writer *w) {
  uint32_t leader = replic__clock_leader(r);
  if (leader) replic__put_varint(w, leader);
}

void replic__send_hello(replic *r, link *l, int flags) {
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

/* ---- the vector has gone back (told.c) ---- */

/* What was sent of it, and is not here any more, is not on its way either. */
static void take_back(const replic *r, link *l, position *at) {
  int64_t mine = replic__vector_sequence(r, at->origin);
  at->told = 0;
  if (at->sent <= mine || at->sent <= at->acked) return;
  l->unacked -= at->unacked;
  at->unacked = 0;
  at->sent = mine > at->acked ? mine : at->acked;
  if (at->staged > at->sent) at->staged = at->sent;
}

void replic__tell_void(replic *r, link *l) {
  if (!l->void_hellos || !l->ready) return;
  l->void_hellos--;
  for (size_t i = 0; i < l->n_at; i++) take_back(r, l, &l->at[i]);
  replic__send_hello(r, l, FLAG_VOID);
}

/* As if the link had begun now, with the HELLO that follows. It comes several times, and what is on
 * its way is sent again: so not each time, and who says it for ever gets little. */
void replic__hear_void(const replic *r, link *l) {
  int64_t passed = r->now_ms - l->void_ms;
  if (l->void_ms && passed >= 0 && passed < VOID_HEARTBEATS * r->config.heartbeat_ms * 3 / 4)
    return;
  l->void_ms = r->now_ms;
  for (size_t i = 0; i < l->n_at; i++) replic__release(l, &l->at[i]);
  l->n_at = 0;
  l->unacked = 0;
  l->n_wants = l->n_claims = 0;
  l->synced = 0;
}

/* ---- being told ---- */

static void get_leader(replic__reader *in, link *l) {
  l->leader = in->failed || in->at == in->end ? 0 : replic__get_peer(in);
}

/* What it has of this peer's own. Who may only read could not give it back. */
static void tell_acked(replic *r, const link *l) {
  const position *at =
      r->sync->tells_acks && !l->reader ? replic__find_position(l, r->peer_id) : NULL;
  if (!at || !at->acked) return;
  replic__event(
      r, (replic_event){.kind = REPLIC_EVENT_ACKED, .link = l->id, .peer = l->peer, .a = at->acked},
      NULL);
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

int replic__on_hello(replic *r, link *l, replic__reader *in) {
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
    replic__send_hello(r, l, 0);
  }
  replic__note_word(r, l);
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

int replic__on_ack(replic *r, link *l, replic__reader *in) {
  int64_t wall = replic__get_clock(in);
  int rival = check_rival(r, l, wall);
  if (rival != REPLIC_OK) return rival;
  if (!replic__pace_get(r, l, wall, in)) return replic__malformed(r, l, "ACK");
  l->skew_ms = wall - r->now_ms;
  replic__note_word(r, l);
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
  if (!l->reader) replic__look_for_idleness(r, l, is_idle);
  int rc = replic__get_neighbour_changes(l, in);
  get_leader(in, l);
  return rc != REPLIC_OK                   ? rc
         : in->failed || in->at != in->end ? replic__malformed(r, l, "ACK")
                                           : REPLIC_OK;
}

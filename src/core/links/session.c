/* session.c - links: who lacks what, and the frames that mend it. Everything follows from comparing
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

/* ---- NEED, ERROR, MESSAGE ---- */

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
    if (!stays || replic__may_tell(r, l))
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
  if (bytes[1] == FRAME_HELLO) return replic__on_hello(r, l, &in);
  if (bytes[1] == FRAME_ERROR) return on_error(r, l, &in);
  if (!l->ready) { /* overtook its HELLO */
    if (bytes[1] < FRAME_HELLO || bytes[1] > FRAME_LAST) return replic__malformed(r, l, "unknown");
    return REPLIC_OK;
  }
  int stages = bytes[1] == FRAME_STAGE || bytes[1] == FRAME_JUMP;
  if (stages && r->gone) return REPLIC_OK; /* as if it were lost on its way */
  switch (bytes[1]) {
  case FRAME_PATCHES: return replic__on_patches(r, l, bytes, len);
  case FRAME_ACK: return replic__on_ack(r, l, &in);
  case FRAME_NEED: return on_need(r, l, &in);
  case FRAME_SCHEMA: return replic__on_schema(r, l, &in);
  case FRAME_STAGE: return replic__on_stage(r, l, bytes, len);
  case FRAME_JUMP: return replic__on_jump(r, l, bytes, len);
  case FRAME_TAKE: return replic__on_take(r, l, &in);
  case FRAME_MESSAGE: return on_message(r, l, &in);
  default: return replic__malformed(r, l, "unknown");
  }
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
  replic__send_hello(r, l, 0);
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
  if (!l->ready || l->fork_text || replic__lag_of(r, l, &most) > 0) return;
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
      replic__send_hello(r, l, FLAG_ANSWER);
    } else {
      for (size_t p = 0; l->n_held && p < l->n_at; p++) /* another link may have brought it */
        if (replic__vector_sequence(r, l->at[p].origin) > l->at[p].held_after)
          replic__release(l, &l->at[p]);
      if (r->now_ms < l->held_ms) l->held_ms = r->now_ms; /* the wall clock was set back */
      if (l->n_held && r->now_ms - l->held_ms >= HELD_HEARTBEATS * r->config.heartbeat_ms) {
        l->held_ms = r->now_ms;
        replic__ask_for_held(r, l);
      }
      replic__tell_void(r, l);
      answer_needs(r, l);
      replic__take_again(r, l);
      replic__check_claims(r, l);
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
    if (s->links[i]->ready && s->links[i]->n_held) replic__ask_for_held(r, s->links[i]);
}

const replic_position *replic_unacknowledged(replic *r, size_t *n) {
  for (size_t i = 0; i < r->sync->n_links; i++) keep_acked(r, r->sync->links[i]);
  return replic__vector_nowhere_else(r, n);
}

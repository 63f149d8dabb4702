/* clang-format off */
/* fork.c - two histories under one peerId, and the way back to one history each (docs/protocol.md).
 *
 * A database that was copied together with its -replic file goes on as the same peer in two places.
 * Nothing local can tell; it is found when the histories meet, at the two copies or at any peers
 * that got their patches from different ones: more patches of an origin than that origin has
 * issued, or one (origin, sequence) that was issued twice. Patches stop, and each side tells the other
 * what its history looks like:
 *
 *      A: 1 2 3 4 | 5a 6a           FORK of A:  6a 5a 4 3 …
 *      B: 1 2 3 4 | 5b 6b 7b        FORK of B:  6b 5b 4 3 …
 *
 * as (sequence, _patchedAt, epoch): the last ones, then ones at distances that double; and how many it
 * has. One patch has one clock and one epoch (epoch.c); of a pruned one only the epoch is known.
 *
 * The greatest of them that both have is `common`, a lower bound of where the histories part, and
 * the least that differs is `parted`: the other history has not that patch, nor any after it. They
 * are kept in _replic_forks, unless this side sees nothing that differs, or the origin is linked here
 * and has what is here (is_evident). Then both refuse the link (REPLIC_FORK). Nothing else happens until
 * somebody opens one of the two files with a new peerId of the application's. (A file that was moved
 * or restored does not count: the histories may have been settled long ago.) That file *yields*: it
 * takes everything of the forked origin beyond `common` out of its log and issues it anew as its
 * own: with its clocks, so that each value stands where it stood among all others, and where it was
 * common after all, is the same patch twice. The vector goes back to `common`, and what the other
 * history has beyond it comes from the peers. The patch at `parted` is remembered in
 * _replic_dropped: whoever still brings that history is refused, and so learns of it.
 *
 * Where a file was copied more than once, or a copy again, there are more than two histories:
 *
 *      A: 1 … 10 | 11a … 20a | 21a         To A and C, which part at 20, B parts at 10. Whoever has
 *      B: 1 … 10 | 11b                     met both notes the greatest `common` and the greatest
 *      C: 1 … 10 | 11a … 20a | 21c         `parted`: 20 and 21.
 *
 * What is at the greatest `parted` is in none of the histories met: so no file refuses one that may
 * be kept. If B's is kept, C parts from it still when it has gone back to 20; it is refused again,
 * and yields again. Notes are not told when a fork has ended, so a file may yield what everybody
 * else keeps; then it refuses all of them, until it yields once more: in that it forgets what it
 * refused before. (test/model/heals.py shows that every order of this ends, and which rules it
 * needs.) */
/* clang-format on */
#include <string.h>

#include "links/links.h"

#define PROBES 90 /* the last ones, and one for each power of two */
#define DENSE 32

typedef struct probe {
  int64_t sequence, patched_at;
  uint32_t epoch;
} probe;

/* p->patched_at is 0 where the patch is pruned, or has not come. */
static int take_probe(replic *r, uint32_t origin, int64_t sequence, probe *p) {
  int64_t last = replic__vector_sequence(r, origin);
  *p = (probe){.sequence = sequence};
  if (!sequence || sequence > last) return REPLIC_OK;
  int rc = replic__epoch_at(r, origin, sequence, &p->epoch);
  if (sequence == last) p->patched_at = replic__vector_entry(r, origin)->now.patched_at;
  return rc != REPLIC_OK || p->patched_at ? rc
                                          : replic__log_clock(r, origin, sequence, &p->patched_at);
}

static void put_probe(replic__writer *w, const probe *p) {
  replic__put_varint(w, (uint64_t)p->sequence);
  replic__put_varint(w, (uint64_t)p->patched_at);
  replic__put_varint(w, p->epoch);
}

static probe get_probe(replic__reader *in) {
  probe p;
  p.sequence = replic__get_sequence(in);
  p.patched_at = replic__get_clock(in);
  p.epoch = replic__get_epoch(in);
  return p;
}

/* Has this peer come past it in another history, that one tells who brings it. */
static int is_refused(const replic *r, const replic_position *dropped, uint32_t origin) {
  return dropped->origin == origin && dropped->sequence > replic__vector_sequence(r, origin);
}

/* The patch by which the history that was given up here is known; NULL: there is none. */
static const replic_position *find_dropped(const replic *r, uint32_t origin) {
  for (size_t i = 0; i < r->sync->n_dropped; i++)
    if (is_refused(r, &r->sync->dropped[i], origin)) return &r->sync->dropped[i];
  return NULL;
}

/* ---- telling ---- */

static void tell_fork(replic *r, link *l, uint32_t origin, int is_advice) {
  probe probes[PROBES];
  size_t n = 0;
  int64_t top = replic__vector_sequence(r, origin);
  const position *at = replic__position(l, origin);
  if (at && at->announced && at->announced < top)
    top = at->announced; /* it has no more than that */
  for (int64_t distance = 0; distance < top && n < PROBES;
       distance = distance < DENSE ? distance + 1 : 2 * distance)
    if (take_probe(r, origin, top - distance, &probes[n]) == REPLIC_OK) n++;
  replic__writer w;
  replic__put_frame(&w, FRAME_FORK);
  replic__put_varint(&w, origin);
  replic__put_varint(&w, (uint64_t)replic__vector_sequence(r, origin));
  replic__put_varint(&w, n);
  while (n-- > 0) put_probe(&w, &probes[n]);
  const replic_position *dropped = find_dropped(r, origin);
  probe given_up = {0};
  if (dropped) given_up = (probe){dropped->sequence, dropped->patched_at, dropped->epoch};
  put_probe(&w, &given_up);
  replic__put_varint(&w, (uint64_t)is_advice);
  replic__send(r, l, replic__finish_frame(&w));
}

void replic__send_fork(replic *r, link *l) {
  tell_fork(r, l, l->fork_origin, 0);
}

void replic__advise(replic *r, link *l, uint32_t origin) {
  tell_fork(r, l, origin, 1);
}

void replic__fork_found(replic *r, link *l, int code) {
  l->fork_code = code;
  l->fork_text = sqlite3_mprintf("%s", replic_error_text(r));
  l->fork_ms = r->now_ms;
  r->sync->links_changed++;
  replic__stir(r);
  if (l->fork_text) replic__send_fork(r, l);
  if (l->reader || !l->fork_text) /* of what a reader answers nothing is noted */
    replic__refuse(r, l, code, l->fork_text ? l->fork_text : replic_error_text(r));
}

/* What a frame's failure means: the peer is refused, or the frame is lost and asked for at the next
 * heartbeat. */
void replic__conclude(replic *r, link *l, int rc) {
  if (rc == REPLIC_EFORK || (rc == REPLIC_EPEER && l->fork_origin))
    replic__fork_found(r, l, rc);
  else if (rc < 0)
    replic__refuse(r, l, rc, replic_error_text(r));
  else if (rc != REPLIC_OK && (rc & 0xff) != SQLITE_BUSY)
    replic__event(
        r, (replic_event){.kind = REPLIC_EVENT_ERROR, .link = l->id, .peer = l->peer, .code = rc},
        "a received frame was dropped: %s", replic_error_text(r));
}

/* ---- being told ---- */

/* A FORK, compared with the history here. */
typedef struct comparison {
  uint32_t origin;
  int64_t theirs_last, mine_last;
  probe common;
  int64_t parted;  /* 0: nothing that differs is known */
  probe given_up;  /* the other side refuses the history that has it; sequence 0: none */
  int gave_way;    /* here: it had only been told */
  int contradicts; /* a patch that both have is not the same */
  int agrees;      /* the last one there is the same here */
  int is_advice;   /* the other side has found nothing that is wrong: it knows the origin's own word
                    */
} comparison;

static int compare_probe(replic *r, comparison *c, const probe *theirs) {
  probe mine;
  int rc = take_probe(r, c->origin, theirs->sequence, &mine);
  if (rc != REPLIC_OK || theirs->sequence > c->mine_last) return rc;
  int known = mine.patched_at && theirs->patched_at;
  if (mine.epoch != theirs->epoch || (known && mine.patched_at != theirs->patched_at)) {
    c->contradicts = 1;
    if (!c->parted) c->parted = theirs->sequence;
  } else if (known) {
    c->common = *theirs;
    c->parted = 0;
  }
  c->agrees = !c->contradicts && theirs->sequence == c->theirs_last;
  return rc;
}

static int compare(replic *r, replic__reader *in, comparison *c) {
  int64_t last = 0;
  size_t n = replic__get_count(in, 3);
  if (n > PROBES) in->failed = 1;
  for (; n > 0 && !in->failed; n--) {
    probe theirs = get_probe(in);
    if (theirs.sequence <= last) in->failed = 1;
    last = theirs.sequence;
    int rc = in->failed ? REPLIC_OK : compare_probe(r, c, &theirs);
    if (rc != REPLIC_OK) return rc;
  }
  c->given_up = get_probe(in);
  c->is_advice = (int)replic__get_varint(in, 1);
  if (!c->parted && c->theirs_last < c->mine_last) c->parted = c->theirs_last + 1;
  return REPLIC_OK;
}

/* Is the patch that the other side has given up the one that is here? */
static int holds(replic *r, uint32_t origin, const probe *theirs, int *found) {
  probe mine;
  *found = 0;
  if (!theirs->sequence || theirs->sequence > replic__vector_sequence(r, origin)) return REPLIC_OK;
  int rc = take_probe(r, origin, theirs->sequence, &mine);
  *found = rc == REPLIC_OK && mine.epoch == theirs->epoch &&
           (!mine.patched_at || mine.patched_at == theirs->patched_at);
  return rc;
}

/* protocol.md, Speaking for others: what is said of an origin's history by others counts for as
 * much as this side can see for itself, and for nothing where the origin is linked here and says
 * otherwise. */
static int is_denied(const replic *r, const link *l, const comparison *c) {
  return c->mine_last > c->common.sequence &&
         replic__own_word(r, l, c->origin) > c->common.sequence;
}

static int is_evident(replic *r, const link *l, const comparison *c, int *evident) {
  int given_up;
  int rc = holds(r, c->origin, &c->given_up, &given_up);
  int found = c->contradicts || given_up || (l->fork_text && l->fork_origin == c->origin);
  int of_its_own = l->peer == c->origin && c->theirs_last < c->mine_last;
  int is_mine = c->origin == r->peer_id, of_mine = is_mine && c->theirs_last > c->mine_last;
  int agrees = c->agrees || !c->theirs_last;
  int is_taken_back = c->gave_way || (is_mine && l->peer != c->origin && agrees && !given_up);
  *evident = (found || of_its_own || of_mine) && !is_taken_back && !is_denied(r, l, c);
  return rc;
}

/* Of several notes the greatest counts, of each. Both are of the history here, so that the greater
 * `common` has the later clock. */
static int note(replic *r, const comparison *c) {
  replic__savepoint save;
  sqlite3_stmt *stmt = NULL;
  int rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = replic__prepare(r,
                       "INSERT INTO main._replic_forks(origin, common, patchedAt, parted) "
                       "VALUES(?1, ?2, ?3, ?4) ON CONFLICT(origin) DO UPDATE SET common = "
                       "max(common, ?2), patchedAt = max(patchedAt, ?3), parted = max(parted, ?4)",
                       &stmt);
  if (rc == REPLIC_OK) {
    sqlite3_bind_int64(stmt, 1, c->origin);
    sqlite3_bind_int64(stmt, 2, c->common.sequence);
    sqlite3_bind_int64(stmt, 3, c->common.patched_at);
    sqlite3_bind_int64(stmt, 4, c->parted);
    rc = replic__step(r, stmt);
  }
  sqlite3_finalize(stmt);
  r->sync->has_notes = 1;
  return replic__savepoint_end(r, &save, rc);
}

/* The origin, which is linked there, has issued less than is here. Nothing can be seen of that
 * here, so the link stays. */
static int take_advice(replic *r, link *l, const comparison *c) {
  int agrees = c->agrees || !c->theirs_last; /* it may have issued nothing */
  if (!agrees || c->theirs_last >= c->mine_last || is_denied(r, l, c)) return REPLIC_OK;
  int rc = note(r, c);
  if (rc != REPLIC_OK || l->advised == c->origin) return rc;
  l->advised = c->origin;
  return replic__event(
      r,
      (replic_event){
          .kind = REPLIC_EVENT_LINK_ERROR, .link = l->id, .peer = l->peer, .code = REPLIC_EFORK},
      "peer %u, which is linked to peer %u, says there that it has issued %lld patches, and here "
      "are "
      "%lld of it. If its file was copied or restored, open one of the files with a new peerId; so "
      "does peer %u, where it is to keep the history that peer %u has",
      c->origin, l->peer, c->theirs_last, c->mine_last, r->peer_id, l->peer);
}

/* What was only told here, the origin, or who is linked to it, denies. */
static int give_way(replic *r, link *l, comparison *c) {
  int denies = c->contradicts || c->theirs_last < c->mine_last;
  if (!denies || l->reader || (l->peer != c->origin && !c->is_advice)) return REPLIC_OK;
  int rc = replic__told_gives_way(r, l, c->origin, c->theirs_last);
  int64_t last = replic__vector_sequence(r, c->origin);
  c->gave_way = last < c->mine_last;
  c->mine_last = last;
  return rc;
}

int replic__on_fork(replic *r, link *l, replic__reader *in) {
  comparison c = {.origin = replic__get_peer(in), .theirs_last = replic__get_sequence(in)};
  int evident;
  c.mine_last = replic__vector_sequence(r, c.origin);
  int rc = in->failed ? REPLIC_OK : compare(r, in, &c);
  if (rc != REPLIC_OK) return rc;
  if (in->failed || in->at != in->end) return replic__malformed(r, l, "FORK");
  if (!c.mine_last && !find_dropped(r, c.origin)) { /* nothing of it here */
    if (l->fork_text) replic__refuse(r, l, l->fork_code, l->fork_text);
    return REPLIC_OK;
  }
  rc = give_way(r, l, &c);
  if (rc != REPLIC_OK) return rc;
  if (c.is_advice && !c.contradicts) return take_advice(r, l, &c);
  rc = is_evident(r, l, &c, &evident);
  if (rc == REPLIC_OK && evident) rc = note(r, &c);
  if (rc != REPLIC_OK) return rc;
  if (!l->fork_text) {
    replic__forked(r, l, c.origin, c.common.sequence + 1, "as the other side has found");
    l->fork_code = REPLIC_EFORK;
    l->fork_text = sqlite3_mprintf("%s", replic_error_text(r));
    r->sync->links_changed++;
    replic__send_fork(r, l);
  }
  replic__refuse(r, l, l->fork_code, l->fork_text ? l->fork_text : "fork");
  return REPLIC_OK;
}

/* Answers may be lost. */
void replic__tick_fork(replic *r, link *l) {
  if (r->now_ms < l->fork_ms) l->fork_ms = r->now_ms; /* the wall clock was set back */
  if (r->now_ms - l->fork_ms > r->config.link_timeout_ms)
    replic__refuse(r, l, l->fork_code, l->fork_text);
  else
    replic__send_fork(r, l);
}

/* What was noted of an origin gives way when the origin itself, linked here, goes on with the
 * history that is here. (test/model/heals.py: every fork ends still.) A heartbeat later, as a FORK
 * of its own may be on its way behind its HELLO. */
int replic__tick_notes(replic *r) {
  replic__savepoint save;
  uint32_t confirmed = 0; /* one a heartbeat will do */
  sqlite3_stmt *stmt = NULL;
  if (!r->sync->has_notes) return REPLIC_OK;
  int rc = replic__prepare(r, "SELECT origin, common FROM main._replic_forks", &stmt);
  while (rc == REPLIC_OK && !confirmed && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    uint32_t origin = (uint32_t)sqlite3_column_int64(stmt, 0);
    int64_t mine = replic__vector_sequence(r, origin);
    rc = REPLIC_OK;
    if (sqlite3_column_int64(stmt, 1) < mine && replic__own_word(r, NULL, origin) != NO_WORD)
      confirmed = origin;
  }
  sqlite3_finalize(stmt);
  if (rc == SQLITE_DONE) rc = REPLIC_OK;
  if (rc != REPLIC_OK || !confirmed) return replic__fail_db(r, rc);
  char *sql = sqlite3_mprintf("DELETE FROM main._replic_forks WHERE origin = %u", confirmed);
  rc = sql ? replic__savepoint_open(r, r->peer_id, &save) : SQLITE_NOMEM;
  if (rc == REPLIC_OK) rc = replic__savepoint_end(r, &save, replic__exec(r, sql));
  sqlite3_free(sql);
  return rc;
}

/* ---- refusing a history that was dropped here ---- */

int replic__fork_load(replic *r) {
  replic__sync *s = r->sync;
  sqlite3_stmt *stmt = NULL;
  s->has_notes = 1;
  s->n_dropped = 0;
  s->dropped_changed = 0;
  int rc = replic__prepare(r, "SELECT origin, sequence, patchedAt, epoch FROM main._replic_dropped",
                           &stmt);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    replic_position *grown = sqlite3_realloc64(s->dropped, (s->n_dropped + 1) * sizeof *grown);
    rc = grown ? REPLIC_OK : SQLITE_NOMEM;
    if (!grown) break;
    s->dropped = grown;
    s->dropped[s->n_dropped++] =
        (replic_position){(uint32_t)sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1),
                          sqlite3_column_int64(stmt, 2), (uint32_t)sqlite3_column_int64(stmt, 3)};
  }
  if (rc == SQLITE_DONE) rc = REPLIC_OK;
  rc = replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

int replic__was_dropped(const replic *r, const replic_position *patch) {
  for (size_t i = 0; i < r->sync->n_dropped; i++) {
    const replic_position *dropped = &r->sync->dropped[i];
    if (is_refused(r, dropped, patch->origin) && dropped->sequence == patch->sequence &&
        dropped->patched_at == patch->patched_at && dropped->epoch == patch->epoch)
      return 1;
  }
  return 0;
}

/* The frame is asked for an epoch only where the rest is the same. */
int replic__brings_dropped(const replic *r, const replic__patches *p) {
  for (size_t i = 0; i < r->sync->n_dropped; i++) {
    const replic_position *dropped = &r->sync->dropped[i];
    if (is_refused(r, dropped, p->origin) && dropped->sequence == p->sequence &&
        dropped->patched_at == p->clock && dropped->epoch == replic__epoch_in(p, p->sequence))
      return 1;
  }
  return 0;
}

int replic__skips_dropped(const replic *r, const replic__patches *p, int64_t from, int64_t to) {
  for (size_t i = 0; i < r->sync->n_dropped; i++) {
    const replic_position *dropped = &r->sync->dropped[i];
    if (is_refused(r, dropped, p->origin) && dropped->sequence > from && dropped->sequence < to &&
        dropped->epoch && dropped->epoch == replic__epoch_in(p, dropped->sequence))
      return 1;
  }
  return 0;
}

/* links.h - floor 4 of the core: who lacks what, and the frames that mend it. Here is what its
 * files share: a link, and what it knows of its peer.
 *
 *   wire.c        bytes and frames; the layout on top
 *   link.c        the links, what each knows of its peer, what is said over one
 *   claims.c      what a peer says that it has: is it believed?
 *   asking.c      NEED: what is lacking is asked for
 *   hello.c       HELLO and ACK: what each side has
 *   definitions.c SCHEMA: which table an id stands for
 *   outgoing.c    patches from the log to the links
 *   incoming.c    patches from the links to the log
 *   flush.c       after a commit: each link gets what there is for it
 *   session.c     a frame comes in, a heartbeat, a link begins or ends
 *   report.c      links, for the caller
 *   pace.c        how much may be on its way over a link
 *   arrival.c     what every frame with patches needs
 *   jump_source.c the side whose log is pruned
 *   staging.c     pieces of a jump are kept until it is covered
 *   merging.c     a jump that is covered is merged
 *   jump.c        whose turn it is, when it is covered, slice by slice
 *   fork.c        two histories under one peerId
 *   told.c        what is known of an origin by the word of another, and how that gives way
 *   skew.c        clocks that are wrong
 *   recheck.c     a jump is looked at once more, with another peer
 *   neighbours.c  to whom each peer is linked itself
 *   rights.c      links over which one side only reads
 *   forget.c      forgets what others have said
 *
 * For src/core only: `link` is also a function of unistd.h's. */
#ifndef REPLIC_LINKS_H
#define REPLIC_LINKS_H

#include "data/mixed.h"
#include "links/session.h"
#include "links/wire.h"
#include "state.h"

#define GRACE_HEARTBEATS 3   /* before relaying to a peer that is linked to the origin itself */
#define DENIED_HEARTBEATS 60 /* for so long an origin is believed that has gone since */
#define VOID_HEARTBEATS 3    /* between two that are heard */
#define VOID_HELLOS 4        /* that say that the vector has gone back */
#define OFF_PART 4           /* a clock that is off by so much of max_clock_skew_ms is told of */
#define HELD_HEARTBEATS 5    /* between two attempts at what could not be applied */
#define UNHEARD_MAX 5 /* askings, one a heartbeat, that may bring nothing: see replic__ask_over */
#define RING_MAX 256  /* frames kept encoded */
#define FRAME_SLACK                                                                                \
  (2 << 20) /* a group may end beyond max_frame_bytes by a run of earlier patches (clock.c) */
#define CONTROL_MAX (4 << 20) /* bytes of a frame that carries no patches */
#define MESSAGE_MAX (CONTROL_MAX - FRAME_HEAD - FRAME_SUM)
#define EARLY_MAX 1024        /* frames kept that arrived before their predecessors */
#define SCHEMA_MAX (16 << 20) /* bytes of definitions that are kept of one link, */
#define TABLES_MAX 16384      /* and how many: of more the oldest are forgotten */
#define SCHEMA_SLACK 64       /* less than CONTROL_MAX: others hand it on under longer ids */
#define NEEDS_MAX 1000        /* origins that are asked for over one link in a heartbeat */
#define TABLES_SHOWN 1000     /* of them, by replic_link_at */
#define TROUBLES_MAX 100      /* events of one link in a heartbeat that say what is wrong, */
#define TROUBLE_TEXT_MAX 2000 /* bytes of what the other side says in one */
#define UNITS_OF_APPLYING 32  /* of work: a patch, or an epoch; reading a patch is about one */
#define BYTES_OF_UNIT 64      /* of a piece of a jump that is merged */
#define DIRECT_MAX 16384      /* peers that one may be linked to, */
#define DIRECT_KEPT 256       /* and changes of these that are kept */

typedef struct position {
  uint32_t origin;
  int64_t acked, sent, announced, told;
  int64_t unacked;      /* bytes on their way */
  int64_t lag_since_ms; /* since when it has made no progress though it lacks something; 0: it does
                           not */
  int64_t backlog;      /* what was there when the link began to carry; -1: it has not yet */
  int must_relay;       /* it has asked for what follows `acked` */
  int64_t need_ms;      /* when it was last asked for */
  int64_t asked_at;     /* up to where it was applied then */
  int asked;            /* how often it was asked for there */
  int64_t staged;       /* it has staged up to here of what we sent it (jump.c) */
  int staging;          /* `sent` counts frames of STAGE */
  int take_due;         /* what is staged here of it is to be told */
  int64_t answered_ms;  /* when its last NEED was answered; later ones within a heartbeat wait */
  int64_t wants;        /* what waits: from where it wants them, -1: nothing */
  int64_t claimed, claimed_clock; /* what it says that it has, and is not compared yet */
  uint32_t claimed_epoch;
  int held; /* a code: what follows `acked` there cannot be applied here at present */
  int64_t held_after;
  int64_t held_until; /* the time from which on it may be applied; 0: not known */
  int stopped;        /* the other side holds what follows `acked`: it gets it when it asks, */
  int probe;          /* one group each time */
  /* It says more of the origin than that does itself: since when (0: it does not), and what that
   * said then. */
  int64_t doubted_ms, doubted_at;
  int doubt_told;
} position;

/* How long a frame takes, and so how much may be on its way: pace.c. */
typedef struct replic__pace {
  int64_t sent, arrived_there;   /* bytes of patches: ever sent, and of these there; */
  int64_t arrived;               /* of the other side's, here */
  int64_t window;                /* bytes; 0: not known yet */
  int64_t timed, sent_ms;        /* the frame that is timed ends behind so many bytes; 0: none is */
  int was_full;                  /* since then the window was */
  int64_t least_ms, least_at_ms; /* the shortest way there, which includes what the clocks differ,
                                    and when that was measured; 0: never */
  int is_measuring;              /* it is measured again */
} replic__pace;

typedef struct table_list {
  remote_table **at; /* sorted by id */
  size_t n, cap;
} table_list;

typedef struct link {
  uint32_t id, expected, peer; /* peer: 0 until its HELLO */
  int ready, closing, synced, ack_due;
  int stirred;           /* something has come in, or a heartbeat: there may be something to send */
  int is_behind;         /* as of the last flush: more is to be read for it */
  uint32_t turn;         /* the first origin of the next flush */
  uint64_t seen_changes; /* of the vector, as of then */
  position *at;          /* sorted by origin */
  size_t n_at, cap_at, max_at;
  char *crowded; /* there is no room for a further position: what is said of that; else NULL */
  /* neighbours.c: */
  uint32_t *direct; /* the peers that it is linked to itself, in ascending order, */
  size_t n_direct;
  int64_t direct_at;              /* as of this change of its list */
  int64_t direct_known;           /* up to which change it has our list; -1: it does not need it */
  int64_t direct_sent, direct_ms; /* up to which one it was sent last, and when */
  uint32_t schema_sent;           /* ids below are defined on its side */
  table_list tables;
  uint64_t schema_changes; /* definitions that came in */
  uint64_t n_forgotten;    /* definitions, as there were too many */
  int64_t unacked, last_in_ms, skew_ms, held_ms;
  uint32_t leader; /* who has set the peer's clock ahead of its wall clock; 0: it is not */
  replic__pace pace;
  int64_t hello_ms, schema_ms, again_ms; /* when it last got, as it asked for it: HELLO, all
                                            definitions, pieces of a jump once more */
  int wants_again;                       /* of these the last, within a heartbeat */
  int64_t answer_ms;                     /* when an ACK was last answered with one */
  size_t schema_bytes, n_held;           /* n_held: positions that are held */
  size_t n_wants, n_claims;              /* positions with such */
  int64_t needs_ms;                      /* since then so many origins were asked for */
  int n_needs;
  int64_t troubles_ms; /* the same of events */
  int n_troubles;
  uint32_t schema_generation;
  char *schema; /* for replic_link_at: as of that generation, and so many definitions */
  uint64_t schema_shown;
  int64_t bytes_in, bytes_out, frames_in, frames_out, sent_again;
  char *held;
  uint32_t instance, rival; /* of the process at the other end; the link of a second one */
  int64_t rival_ms;         /* its wall clock when that said HELLO */
  /* rights.c: */
  int reader; /* the peer may only read: nothing is taken that comes over this link */
  int muted;  /* this side may only read there */
  int reader_told,
      reader_beats; /* for so many heartbeats it has had patches that are missing here */
  /* fork.c: */
  uint32_t fork_origin;
  uint32_t advised; /* the origin that it has advised about last */
  int fork_code;
  char *fork_text; /* why the link will be refused, once both know where the histories part */
  int64_t fork_ms;
  /* jump.c, as the source: */
  int64_t jump_ms;
  int below;    /* the peer lacks what our log has pruned; found anew in each flush */
  int taking;   /* it has asked for the pieces */
  int jump_due; /* pieces were sent after the last JUMP */
  /* jump.c, as the one that jumps: */
  int take_due; /* 1: tell what is staged; 2: and have it sent on from there */
  int64_t take_ms;
  int64_t waits;         /* its JUMP was turned away: the place among those; 0: it does not wait */
  uint32_t waits_origin; /* of what it offers, one that is below */
  int64_t waits_floor;   /* this floor */
  int64_t n_staged;
  int64_t taken_at;      /* n_staged when pieces were last asked for, */
  int taken;             /* and how often they were, there */
  int unheard;           /* it brings heartbeats and nothing that is asked for */
  int64_t word_ms;       /* when it last told in time what the peer has, */
  int64_t most_skew_ms;  /* and the greatest skew_ms, which is that of the fastest frame */
  int64_t void_ms;       /* when it was last heard that what had been told is void */
  int void_hellos;       /* so many are to be sent yet: see told.c */
  int is_first;          /* replic__link_first, */
  uint32_t first_looked; /* as of links_changed */
  int carried;           /* how often it was asked for over it while another one carried */
  int64_t idle_ms; /* since when the peer tells that it sends nothing of what is lacking here */
} link;

typedef struct early {
  uint32_t link, origin;
  int64_t after;
  size_t len;
  uint8_t *bytes;
} early;

typedef struct replic__verdict {
  int64_t up_to;    /* can be applied */
  int code;         /* why not the rest; REPLIC_OK: all of it */
  char *text;       /* owned */
  int64_t until_ms; /* the time from which on the rest can be; 0: not known */
  int undefined;    /* a table id that was never defined: the definition is lost or late */
  int doubted;      /* the origin itself, linked here, has not issued the rest */
} replic__verdict;

/* A frame of patches that is being taken in (incoming.c). */
typedef struct replic__rest {
  uint32_t link; /* 0: there is none */
  uint8_t *owned;
  const uint8_t *bytes;
  size_t len;
  int is_read;              /* to its end: then it is applied */
  replic__patches start, p; /* p: up to where it was read, or applied */
  int64_t whole;            /* the end of the last whole group before that */
  int64_t group_bytes;      /* of the group at hand, while it is read */
  int64_t known;            /* what was applied when it came */
  replic__verdict verdict;
} replic__rest;

typedef struct ring_entry {
  uint32_t origin;
  int64_t after, up_to;
  replic_frame *frame;
} ring_entry;

/* Something is to be sent of an origin over the link that is being flushed. */
typedef struct replic__due {
  replic__entry *entry;
  position *at;
} replic__due;

/* One origin of a jump (jump.c). */
typedef struct target {
  replic_position to;
  int64_t floor;
  int64_t read, clock;      /* sequence and clock of the last patch that was read */
  int64_t merged;           /* the last one that was merged in this opening */
  int64_t inserted, stored; /* how many were new to the log; as _replic_jump says */
} target;

typedef struct replic__merging {
  uint32_t source; /* the peer whose pieces they are */
  target *targets; /* by origin */
  size_t n;
  int64_t piece;         /* the last one that was read */
  int64_t pending_bytes; /* so many would be pending, of those that were read */
  int is_read;           /* all; it is merged */
  int is_stored;         /* in _replic_jump */
  int64_t again_ms;      /* a slice has failed: when it is tried again */
} replic__merging;

struct replic__sync {
  link **links; /* of several to one peer the first that is ready carries: the oldest, or one that
                   the peer has asked over (replic__carry_over) */
  size_t n_links;
  early early[EARLY_MAX];
  size_t n_early, early_bytes;
  int is_early_due;          /* some of them could be applied now */
  int is_behind;             /* some link, as of the last flush: more is to be read for it */
  replic__rest rest;         /* what is left of a frame */
  int64_t units;             /* of work that may still be done in this call */
  ring_entry ring[RING_MAX]; /* [ring_from, ring_from + n_ring) modulo RING_MAX */
  size_t ring_from, n_ring, ring_bytes;
  uint32_t
      links_changed; /* how often a link has become ready, has ended, or took another's place */
  /* neighbours.c: */
  uint32_t *direct; /* the linked peers, in ascending order */
  size_t n_direct;
  uint32_t direct_looked; /* links_changed as of that */
  int64_t direct_at;      /* how many changes of the list there were, and the last of them */
  uint32_t direct_changed[DIRECT_KEPT];
  int64_t tick_ms;      /* the last replic_tick */
  uint32_t jump_link;   /* over which a jump is under way; 0: none */
  int jump_passed;      /* how often another source was taken since the last jump */
  int64_t jumps_waited; /* how many were turned away to wait */
  int64_t jump_ms;      /* since then it has staged */
  size_t jump_bytes;    /* so many bytes, which are less than a slice */
  uint8_t *jump;        /* its latest JUMP, which is not covered yet */
  size_t jump_len;
  size_t jump_at,
      jump_left;      /* the first of its positions that is not reached, and how many are left; */
  uint32_t jump_last; /* the origin before that */
  int64_t jump_age;   /* of those before */
  replic__merging *merging; /* a JUMP that is covered: it is read, then merged; NULL: none is */
  int has_merged;           /* `merging` has changed in this batch */
  int is_merging_unknown;   /* it was undone, and could not be read */
  int is_jump_due;          /* there was no time to look whether the latest JUMP is covered */
  int64_t jump_failed_ms;   /* what came over this link could not be merged, under this schema */
  uint32_t jump_failed_generation, jump_failed_link;
  replic_position *dropped; /* patches of histories that were given up here (fork.c) */
  size_t n_dropped;
  int dropped_changed; /* on disk: read again after the commit */
  int tells_acks;
  uint32_t leader_told; /* who was said to have set the clock ahead */
  int64_t clock_off_ms; /* the wall clock here minus those of most peers, */
  int off_told;         /* and that this is too much */
  uint64_t pieces;      /* of jumps that were looked at */
  replic__due *due;
  size_t n_due, cap_due;
  int staged;        /* there are rows in _replic_staged, or there were */
  int64_t staged_ms; /* when they were last counted; */
  int64_t staged_at; /* up to which of them was looked at whether it may go */
  int has_notes;     /* the same of _replic_forks */
  sqlite3_stmt *staged_sql, *told_sql;
};

#define GIVEN_UP "that history was given up here"
#define ISSUED_TWICE "it was issued twice"
#define FALLS "a later patch is stamped earlier"

/* ---- link.c ---- */

/* Returns a + b, at most INT64_MAX: sums of what peers claim may exceed any number. */
int64_t replic__sum(int64_t a, int64_t b);
/* Returns the link of that id; NULL: there is none. */
link *replic__link_find(const replic *r, uint32_t id);
/* Returns the position of an origin, borrowed until one is added; NULL: there is none. */
position *replic__find_position(const link *l, uint32_t origin);
/* The same, added where there is none. NULL: there is no room, see replic__no_position. */
position *replic__position(link *l, uint32_t origin);
/* The same, of ascending origins: *at is where to look on, at first 0. */
position *replic__next_position(link *l, uint32_t origin, size_t *at);
/* Says what it means that there is none: SQLITE_NOMEM; or REPLIC_OK, where the link knows as many
 * origins as it may. Both sides are told of that once, and whatever concerns the origin is passed
 * over. The peers' own positions are there from the beginning. */
int replic__no_position(replic *r, link *l, uint32_t origin);
/* Notes that the peer has applied an origin up to there. */
void replic__learn(replic *r, link *l, position *at, int64_t applied);
/* Whether the link is ready, leads to that peer, and is neither ending nor of a fork. */
int replic__reaches(const link *l, uint32_t peer);
/* Whether there is such a link, which carries what that peer sends. */
int replic__is_linked(const replic *r, uint32_t peer);
/* Whether both links give the same rights: only such stand in for each other. */
int replic__same_rights(const link *a, const link *b);
/* Whether it is the first one to its peer. */
int replic__link_first(const replic *r, link *l);
/* Whether it carries patches: of several links to one peer only the first does. */
int replic__link_active(const replic *r, link *l);
/* Lets the next flush look at all links. */
void replic__stir(replic *r);
/* Notes that the peer has told what it has. l->skew_ms is that of this frame. */
void replic__note_word(const replic *r, link *l);
/* Returns how many patches `origin` has issued, as it says itself on a link of its own other than
 * `l`. NO_WORD: it is not linked here, or says less than what is applied here (then its history is
 * another one, and fork.c has to find out). */
#define NO_WORD (-1)
int64_t replic__own_word(const replic *r, const link *l, uint32_t origin);
/* Returns up to which patch of `origin` it is believed what comes over `l`. */
int64_t replic__believed(const replic *r, const link *l, uint32_t origin);
/* Returns the origin's end in a jump; NULL: it is none of its. */
target *replic__find_target(const replic__merging *m, uint32_t origin);
/* Whether the origin belongs to a jump that is being merged: nothing of that is taken another way.
 */
int replic__is_jumping(const replic *r, uint32_t origin);
/* Puts a frame into the outbox. Takes over the caller's reference. NULL, or without memory: lost,
 * and repaired like any loss. */
void replic__send(replic *r, link *l, replic_frame *frame);
void replic__send_error(replic *r, link *l, int code, const char *text);
/* Counts patches that are sent once more. */
void replic__count_again(replic *r, link *l, int64_t patches);
/* Whether a heartbeat has passed since then. Almost: who asks once per heartbeat is not always as
 * late. */
int replic__is_heartbeat_past(const replic *r, int64_t since_ms);
/* Sends definitions again, as one may have been lost. */
void replic__define_again(replic *r, link *l);
/* Whether the application may hear of one more trouble of the link in this heartbeat. */
int replic__may_tell(const replic *r, link *l);
/* Holds what follows `after`: it cannot be applied before `until_ms`, 0: nobody knows when. It is
 * asked for again later, and both sides are told once. The other side is told to send no more of it
 * than it is asked for; of a jump it is asked for all. */
enum { OF_A_JUMP = -1 };
void replic__hold(replic *r, link *l, position *at, int code, int64_t after, int64_t until_ms,
                  const char *text);
void replic__release(link *l, position *at);
/* Ends the link and tells both sides why. */
void replic__refuse(replic *r, link *l, int code, const char *text);
/* Set the error; return REPLIC_EPROTOCOL, and REPLIC_EFORK with l->fork_origin. */
int replic__malformed(replic *r, const link *l, const char *frame);
int replic__forked(replic *r, link *l, uint32_t origin, int64_t sequence, const char *how);
/* Read an origin, or a position, of a list in ascending order: anything else fails the reader.
 * *last: at first 0. */
uint32_t replic__get_origin(replic__reader *in, uint32_t *last);
void replic__get_position(replic__reader *in, uint32_t *last, replic_position *position);

/* ---- claims.c ---- */

/* Fails with REPLIC_EFORK where it is of another history. One history per peerId: nobody knows more
 * of mine than I do, and one (origin, sequence) has one epoch and one clock. Where it is pruned
 * here, its neighbours say between which ones it lies. */
int replic__check_fork(replic *r, link *l, const replic_position *theirs);
/* Compares what the peer says that it has of one origin, or notes it for a later heartbeat where
 * *left, the look-ups that may still be made, is used up. */
int replic__check_claim(replic *r, link *l, position *at, const replic_position *theirs, int *left);
int replic__check_budget(const replic *r); /* look-ups of one frame */
/* With a heartbeat: compares what was noted. */
void replic__check_claims(replic *r, link *l);
/* `l` says that there are patches up to `claimed` of an origin that denies it. That it is ahead of
 * the origin's own link for a moment is usual, so it is told when it goes on. */
void replic__doubt(replic *r, link *l, position *at, int64_t claimed);

/* ---- asking.c ---- */

/* Sends NEED, at most once per heartbeat. */
void replic__send_need(replic *r, link *l, position *at);
/* Asks again for what is held: the rest may be on its way, and would come twice. */
void replic__ask_for_held(replic *r, link *l);
/* Returns over which link to ask for what is to come over `l`, which has been asked for `asked`
 * times in vain: l, or another one to the same peer. */
link *replic__ask_over(replic *r, link *l, int asked);
/* What the peer lacks was asked for over `l`: from here on that carries. */
void replic__carry_over(replic *r, link *l);
/* After an ACK. is_idle: it says that nothing is on its way. */
void replic__look_for_idleness(replic *r, link *l, int is_idle);

/* ---- hello.c ---- */

/* flags: FLAG_… */
void replic__send_hello(replic *r, link *l, int flags);
/* The vector has gone back: tells so, where it is due; the other side has told it. */
void replic__tell_void(replic *r, link *l);
void replic__hear_void(const replic *r, link *l);
void replic__send_ack(replic *r, link *l);
/* A frame that has come; `in` stands behind its head. */
int replic__on_hello(replic *r, link *l, replic__reader *in);
int replic__on_ack(replic *r, link *l, replic__reader *in);

/* ---- report.c ---- */

/* Returns how many patches the other side has not acknowledged, but for its own. *most: what it has
 * of the origin that it lacks most of; origin 0: it lacks nothing. */
int64_t replic__lag_of(const replic *r, const link *l, position *most);

/* ---- pace.c ---- */

/* Whether one more frame may be on its way over the link, and after how many bytes it is to end. */
int replic__has_room(const replic *r, const link *l);
int64_t replic__slice(const replic *r, const link *l);
/* A frame of patches goes out; one has come in. */
void replic__pace_sent(const replic *r, link *l, const replic_frame *frame);
void replic__pace_arrived(link *l, size_t len);
/* What an ACK says of both; 0: malformed. `wall_ms`: the other side's clock. */
void replic__pace_put(const link *l, replic__writer *w);
int replic__pace_get(const replic *r, link *l, int64_t wall_ms, replic__reader *in);
/* Something is lost, and sent again. */
void replic__pace_lost(link *l);
/* There is more to send than the window takes. */
void replic__pace_full(link *l);

/* ---- neighbours.c ---- */

/* What an ACK says of the list of linked peers. */
enum { LIST_SAME, LIST_WHOLE, LIST_CHANGES };

int replic__link_direct(const link *l, uint32_t peer); /* it says that it is linked to `peer` */
void replic__put_neighbours(replic *r, replic__writer *w);
/* Up to where the other side's list is here, if it is needed, and what is not there of ours. */
void replic__put_neighbour_changes(replic *r, link *l, replic__writer *w);
/* What these have put; in->failed: malformed. */
int replic__get_neighbours(link *l, replic__reader *in);
int replic__get_neighbour_changes(link *l, replic__reader *in);

/* ---- rights.c ---- */

int replic__brings(int frame_type); /* it would change what is here, or what is known of it */
/* Tells both sides, once per link, that something of the peer is not taken. */
void replic__tell_reader(replic *r, link *l);
/* The peer has the origin up to `sequence`. */
void replic__reader_has(replic *r, link *l, uint32_t origin, int64_t sequence);
void replic__tick_reader(replic *r, link *l);

/* ---- arrival.c ---- */

/* Returns the table with that id; NULL: there is none. */
remote_table *replic__table_by_id(const table_list *list, uint32_t id);
/* Adds a table. The list owns it, unless it fails: SQLITE_NOMEM. */
int replic__table_add(table_list *list, remote_table *t);
void replic__tables_free(table_list *list);
/* SCHEMA has come. */
int replic__on_schema(replic *r, link *l, replic__reader *in);
/* Whether the frame says of the last patch applied here that it is another one. */
int replic__parts(replic *r, const replic__patches *p);
/* Notes the epochs that the frame tells of patches up to `up_to` that are not applied yet. Inside a
 * savepoint. */
int replic__note_epochs(replic *r, replic__patches p, int64_t up_to);
/* Return the work that one patch is: see replic_config.work_units. */
int64_t replic__units_of_reading(const remote_table *t);
int64_t replic__units_of_applying(const remote_table *t);
/* To be called when the first patch of an origin is applied, inside a savepoint that has the peer's
 * share. */
int replic__bring_origin(replic *r, uint32_t source, replic__entry *entry);

/* ---- incoming.c ---- */

/* PATCHES has come. What is more than the units allow is kept, and gone on with later. */
int replic__on_patches(replic *r, link *l, const uint8_t *bytes, size_t len);
void replic__apply_early(replic *r); /* frames that waited for what was just applied */
void replic__drop_rest(replic__sync *s);
void replic__drop_early(replic__sync *s, size_t i);

/* ---- told.c ---- */

/* Lets all links tell that the vector has gone back (replic__tell_void). */
void replic__void_told(replic *r);

/* Inside the savepoint of a jump, before the vector follows it: of what comes, `merged` is the last
 * patch. */
int replic__told_note(replic *r, uint32_t source, const replic_position *to, int64_t merged,
                      int64_t merged_at);
/* The peer of `l`, which is that origin, or is linked to it, says that there are `denied` patches
 * of it. Where more was only told, the vector goes back. */
int replic__told_gives_way(replic *r, link *l, uint32_t origin, int64_t denied);

/* ---- skew.c ---- */

/* Why a patch that comes over `l` is too far ahead, and whose clock is to be corrected. The caller
 * frees it; NULL: out of memory. */
char *replic__skew_text(const replic *r, const link *l, uint32_t origin, int64_t sequence,
                        int64_t patched_at);
void replic__tick_skew(replic *r); /* is it the clock of this machine that is off? */

/* ---- definitions.c ---- */

/* Returns the id of a table that is not ours, as a patch was received with it; 0: out of memory. */
uint32_t replic__foreign_id(replic__schema *schema, const replic__raw *raw);
/* Whether so many definitions are more than one frame is to bring. */
int replic__is_a_lot(size_t n, size_t bytes);
/* Forgets the oldest of the frames that are kept encoded: they speak of ids. */
void replic__ring_drop(replic__sync *s);
/* Before a frame: gives up the ids of others' tables where they are a lot. */
void replic__begin_lot(replic *r);
/* Returns the id behind the last one of a table here. */
uint32_t replic__ids_end(const replic__schema *schema);
/* Sends the definitions that the other side has not. */
void replic__send_schema(replic *r, link *l);

/* ---- outgoing.c ---- */

/* Sends patches, as far as the window allows. The link carries. */
void replic__flush_origins(replic *r, link *l);
/* ---- fork.c ---- */

/* Says what a frame's failure means: the peer is refused, or the frame is lost and asked for again.
 */
void replic__conclude(replic *r, link *l, int rc);
/* After a failure with `code`, about l->fork_origin. */
void replic__fork_found(replic *r, link *l, int code);
void replic__send_fork(replic *r, link *l);
/* Tells what is known here of an origin that has issued less than the other side has. */
void replic__advise(replic *r, link *l, uint32_t origin);
int replic__on_fork(replic *r, link *l, replic__reader *in);
int replic__was_dropped(const replic *r, const replic_position *patch);
/* The same of the patch that `p` stands on. */
int replic__brings_dropped(const replic *r, const replic__patches *p);
/* It is one that is pruned at the sender, between `from` and `to`, as the epochs tell. */
int replic__skips_dropped(const replic *r, const replic__patches *p, int64_t from, int64_t to);
void replic__tick_fork(replic *r, link *l);
int replic__tick_notes(replic *r); /* forgets notes of origins that deny them */

/* ---- jump_source.c ---- */

/* Grows with all that is applied and pruned. */
int64_t replic__age(const replic *r);
/* TAKE has come. */
int replic__on_take(replic *r, link *l, replic__reader *in);
void replic__take_again(replic *r, link *l); /* once per heartbeat, where it was asked for */
void replic__flush_jump(replic *r, link *l); /* sends JUMP and TAKE where they are due */

/* ---- staging.c ---- */

enum { TAKE_TOLD = 1, TAKE_AGAIN }; /* link.take_due */

/* STAGE has come. */
int replic__on_stage(replic *r, link *l, const uint8_t *bytes, size_t len);
/* The peer has sent pieces up to here: is one lost, or what we told of them? */
int replic__check_staged(replic *r, link *l, position *at, int64_t sent);
/* Sets *up_to to where an origin is staged from that source; to 0 where nothing is. */
int replic__staged_up_to(replic *r, uint32_t source, uint32_t origin, int64_t *up_to);
/* Lets TAKE be sent, at most once per heartbeat. due: TAKE_… */
void replic__want_take(replic *r, link *l, int due);
void replic__send_take(replic *r, link *l);
/* Holds an origin, as the peer may not bring `n` more of `what`, BROUGHT_…. */
void replic__hold_jump(replic *r, link *l, position *at, int what, int64_t n);
/* Forgets the latest JUMP and its link. What has begun to be merged goes on without it. */
void replic__jump_over(replic__sync *s);
void replic__free_merging(replic__sync *s);
/* With a heartbeat: what was staged, and has come another way, or comes no more, is let go. */
int replic__tick_jump(replic *r);

/* ---- merging.c ---- */

/* Reads one position of a JUMP. 0: the reader has failed. */
int replic__next_target(replic__reader *in, uint32_t *last, target *t);
/* Makes s->merging of the latest JUMP, which is covered: of the origins that are lacking. */
int replic__read_targets(replic *r, uint32_t source);
/* Reads on, as far as the units allow. *done: all of it has been read, and may be merged. */
int replic__read_pieces(replic *r, link *l, int *done);
/* Merges as much as the units allow. *done: all of it. Inside a savepoint of all origins that has
 * the share of the source. */
int replic__merge_slice(replic *r, int *done);
/* Reads what memory knows of it from the disk, also after an undoing. */
int replic__load_merging(replic *r);
void replic__reload_merging(replic *r); /* the same; an error is passed over */
void replic__jump_settle(replic *r);    /* after a commit */

/* ---- jump.c ---- */

/* JUMP has come. */
int replic__on_jump(replic *r, link *l, const uint8_t *bytes, size_t len);
/* Takes the next jump from here, as long as this link makes progress. */
void replic__jump_prefer(replic *r, link *l);
/* After something was applied or staged: is the latest JUMP covered now? Then it is read and merged
 * as far as the units allow. REPLIC_OK or SQLITE_BUSY. */
int replic__try_jump(replic *r);
int replic__has_jump(const replic *r); /* a jump is being merged: to be gone on with */

#endif

/* link.h - a link, and what it knows of its peer; what all links share; limits. See links.h. */
#ifndef REPLIC_LINK_H
#define REPLIC_LINK_H

#include "data/mixed.h"
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
  uint32_t direct_looked; /* links_changed as of `direct` */
  /* neighbours.c: */
  uint32_t *direct; /* the linked peers, in ascending order */
  size_t n_direct;
  int64_t direct_at; /* how many changes of the list there were, and the last of them */
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
  int is_jump_due;    /* there was no time to look whether the latest JUMP is covered */
  int64_t jump_age;   /* of those before */
  replic__merging *merging; /* a JUMP that is covered: it is read, then merged; NULL: none is */
  int has_merged;           /* `merging` has changed in this batch */
  int is_merging_unknown;   /* it was undone, and could not be read */
  int64_t jump_failed_ms;   /* what came over this link could not be merged, under this schema */
  uint32_t jump_failed_generation, jump_failed_link;
  replic_position *dropped; /* patches of histories that were given up here (fork.c) */
  size_t n_dropped;
  int dropped_changed; /* on disk: read again after the commit */
  int tells_acks;
  int64_t clock_off_ms; /* the wall clock here minus those of most peers, */
  int off_told;         /* and that this is too much */
  uint32_t leader_told; /* who was said to have set the clock ahead */
  uint64_t pieces;      /* of jumps that were looked at */
  replic__due *due;
  size_t n_due, cap_due;
  int staged;        /* there are rows in _replic_staged, or there were */
  int has_notes;     /* the same of _replic_forks */
  int64_t staged_ms; /* when they were last counted; */
  int64_t staged_at; /* up to which of them was looked at whether it may go */
  sqlite3_stmt *staged_sql, *told_sql;
};

#define GIVEN_UP "that history was given up here"
#define ISSUED_TWICE "it was issued twice"
#define FALLS "a later patch is stamped earlier"

#endif

/* wire.h - bytes <-> frames. The layout stands on top of wire.c. For src/core and its tests only.
 */
#ifndef REPLIC_WIRE_H
#define REPLIC_WIRE_H

#include "data/data.h"

enum {
  FRAME_HELLO = 1,
  FRAME_PATCHES,
  FRAME_ACK,
  FRAME_NEED,
  FRAME_SCHEMA,
  FRAME_ERROR,
  FRAME_STAGE,
  FRAME_JUMP,
  FRAME_TAKE,
  FRAME_MESSAGE,
  FRAME_FORK,
  FRAME_LAST = FRAME_FORK
};

enum { FLAG_ANSWER = 1, FLAG_READER = 2, FLAG_VOID = 4 }; /* of HELLO */

/* ---- writing ---- */

void replic__put_frame(replic__writer *w, int type); /* begins: version and type */
/* One patch after `previous` (its sequence) and `clock` (its group's clock); begin_group: 1 if it
 * begins a group. */
void replic__put_patch(replic__writer *w, const replic__patch *p, uint32_t table_id,
                       int64_t previous, int64_t clock, int begin_group);
/* The same of a patch that is handed on as it was received. */
void replic__put_raw_patch(replic__writer *w, const replic__patch *p, uint32_t table_id,
                           int64_t previous, int64_t clock, int begin_group);
/* The frame, with the sum of its bytes behind them. refs is 1; NULL: out of memory. */
replic_frame *replic__finish_frame(replic__writer *w);
/* ---- the sum that a frame ends with ---- */

enum { FRAME_HEAD = 2, FRAME_SUM = 4 }; /* bytes before the body, and behind it */

/* Whether the bytes are whole: they are those that were summed. */
int replic__is_whole(const uint8_t *bytes, size_t len);

/* ---- reading ---- */

#define EPOCHS_MAX 4096 /* that may begin in one frame */

/* The patches of a PATCHES or STAGE frame, one after another. */
typedef struct replic__patches {
  replic__reader in;
  int has_holes; /* STAGE: sequences may be missing */
  int64_t age;   /* STAGE: of the state that it was read from */
  size_t left;   /* STAGE: patches to come; in PATCHES upTo says when they are complete */
  uint32_t origin;
  int64_t after, up_to;
  int64_t after_clock;   /* of the patch `after`; 0: not known */
  uint32_t after_epoch;  /* the same */
  replic__reader epochs; /* those that begin in this frame: replic__next_epoch */
  size_t n_epochs;
  int64_t sequence, clock; /* of the patch that replic__next_patch stands on */
  int begins_group;
  uint32_t table_id;
  const uint8_t *first; /* where the patches begin */
} replic__patches;

/* The header of a frame of `type`, FRAME_PATCHES or FRAME_STAGE; 0: malformed. */
int replic__get_patches(replic__reader *in, int type, replic__patches *out);
/* The epochs that begin in the frame, in order, from p->epochs and p->n_epochs. *from: in (after,
 * up_to], where it begins; pass `after` first. 0: no more, or malformed (p->epochs.failed). */
int replic__next_epoch(replic__patches *p, int64_t *from, uint32_t *epoch);
/* In which epoch the frame says that `sequence`, in [after, up_to], was issued. */
uint32_t replic__epoch_in(const replic__patches *p, int64_t sequence);
int replic__next_patch(replic__patches *p); /* 0: end or malformed (in.failed) */

#endif

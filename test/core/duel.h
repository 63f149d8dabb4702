/* duel.h - two honest peers and a hostile one, which do what a string of bytes says: what fuzz_sync
 * drives, and test_duel with its seeds.
 *
 *   peer 101 ═══ honest wire ═══ peer 102
 *      ╚════ hostile wire, whose other end is the input
 *
 * The input chooses what the honest ones write, what happens to the frames between them (any loss,
 * duplication and order), when they tick, restart and link up anew, and what the hostile one sends:
 * raw bytes, frames of numbers that lie at limits, or what one of them has just sent, changed. The
 * honest ones prune, so they jump, too. */
#ifndef DUEL_H
#define DUEL_H

#include <stddef.h>
#include <stdint.h>

/* Plays the input, then lets the hostile link end and the honest ones settle. A failed check (of
 * the test, or abort() where none is running) unless they have converged: one vector, equal tables,
 * logs without holes but what was pruned, sound files. SQLite's default VFS must be memvfs. Returns
 * how often the honest ones have jumped. */
int64_t duel_run(const uint8_t *data, size_t len);

enum {             /* what a byte means, modulo DUEL_N; bytes that follow it */
       DUEL_WRITE, /* peer, key, value: peer & 1 writes a row, all of whose columns value chooses */
       DUEL_DELIVER, /* side, index: a frame of the honest wire arrives */
       DUEL_DROP,    /* side, index */
       DUEL_DOUBLE,  /* side, index */
       DUEL_TICK,    /* a second passes, both tick */
       DUEL_RELINK,  /* the honest wire breaks, and another comes up */
       DUEL_RESTART, /* peer: it is killed, starts, and is linked again */
       DUEL_HELLO,   /* flags: the hostile link breaks, comes up, and says HELLO */
       DUEL_RAW,     /* length, as many bytes: one hostile frame */
       DUEL_CHANGED, /* side, index, place, byte: a frame on its way is sent by the hostile one,
                        changed */
       DUEL_TIME,    /* seconds: time passes without a tick */
       DUEL_COMPACT, /* peer, seconds, patches: it prunes what is older, looking at so many patches
                      */
       DUEL_FORGED,  /* type, then as many bytes as it has numbers, each the index of one that is at
                        some limit: a hostile frame with these numbers */
       DUEL_DEFINE, /* definition, sequence, value: the hostile one defines a table, rightly or not,
                       and sends one patch of it, as PATCHES and in pieces with a JUMP */
       DUEL_N
};

#endif

/* data.h - floor 3 of the core: what is true. Which value stands in a cell, what is applied, and
 * the transaction that changes it. It knows of no link.
 *
 *   clock.c     the next _patchedAt
 *   quota.c     what each peer has brought here, and how much more it may
 *   vector.c    what is applied (I1)
 *   epoch.c     in which opening of its file a patch was issued
 *   log.c       the T_patches tables: append, find newer patches, fold a key
 *   order.c     the same in the order of sequences
 *   merge.c     one patch into log and table (I2)
 *   stuck.c     rows that this schema cannot store
 *   batch.c     one transaction for many calls, a savepoint for each
 *   write.c     a call of the application's becomes patches
 *   compact.c   which patches the log needs no more
 *   optimize.c  statistics for SQLite's planner
 *   heal.c      a fork ends: what this file alone has is issued again
 *   kept.c, definition.c, translate.c, schema_change.c: other versions of the schema, see mixed.h
 *
 * For src/core and its tests. Functions that return int give REPLIC_OK, a REPLIC_E… code or one of
 * SQLite's, and have set the error. Those that change rows are called inside a savepoint, or in
 * open's transaction. */
#ifndef REPLIC_DATA_H
#define REPLIC_DATA_H

#include "base/base.h"
#include "tables/tables.h"

/* ---- a patch ---- */

/* A patch as it was received: its table's definition, and its fields as in a frame. Borrowed. */
typedef struct replic__raw {
  const uint8_t *definition, *fields;
  size_t definition_len, fields_len;
} replic__raw;

typedef struct replic__patch {
  replic__table *table; /* NULL: it is none of ours, and stands in `raw` alone */
  uint32_t origin;
  int64_t sequence, patched_at;
  replic_value *values;   /* n_fields; REPLIC_UNSET where the patch does not set the column */
  const replic__raw *raw; /* what of it is pending; NULL: nothing, `values` is all */
} replic__patch;

/* ---- clock.c ---- */

typedef struct replic__clock {
  int64_t high;   /* highest _patchedAt seen */
  int is_passed;  /* the next patch needs a greater one, to come after all that was seen */
  int is_hurried; /* the batch was stamped further ahead of the wall clock than it may be at once */
  uint32_t raised_by;  /* the origin whose patch set it ahead of the wall clock; 0: none did */
  int64_t run_patches; /* own patches at `high`: they travel as one group, so their number */
  int64_t run_bytes;   /* and size are bounded; */
  int64_t run_ms;      /* the wall clock of the last call that asked for a stamp */
} replic__clock;

/* Returns the stamp of the next own patches, above all that was seen. */
int64_t replic__clock_next(replic__clock *clock, int64_t now_ms);
/* Notes that an own patch of so many bytes was stamped with it. */
void replic__clock_issued(replic__clock *clock, int64_t bytes);
/* Notes that a patch was applied here, where `self` is. self 0: it was in the file at the start. */
void replic__clock_seen(replic__clock *clock, int64_t now_ms, const replic_position *at,
                        uint32_t self);
/* Returns who has set the clock further ahead of the wall clock than it ever is where all are
 * right; 0: it is not. */
uint32_t replic__clock_leader(const replic *r);

/* ---- quota.c: as in the open batch ---- */

/* Pieces of jumps are gone; or nothing is known of them. */
enum { STAGED_LESS = 1, STAGED_UNKNOWN };
enum { BROUGHT_ORIGINS, BROUGHT_PENDING, BROUGHT_STAGED, REPLIC__N_BROUGHT };

/* What a peer has brought that is here now: a number of origins, and bytes. */
typedef struct replic__share {
  uint32_t peer;
  int64_t brought[REPLIC__N_BROUGHT];
} replic__share;

/* Returns what the peer has brought. */
replic__share replic__share_of(const replic *r, uint32_t peer);
/* Counts `n` more, or less. Nobody is charged for what peer 0 brings. SQLITE_NOMEM: nothing is
 * counted. */
int replic__bring(replic *r, uint32_t peer, int what, int64_t n);
/* Counts from 0 again, which never fails; or as `sql` gives it, rows of (peer, number). */
void replic__bring_nothing(replic *r, int what);
int replic__bring_again(replic *r, int what, const char *sql);
/* Sets one share, and the sums over all, to what they were. */
void replic__share_restore(replic *r, const replic__share *share, const int64_t *brought);
/* Returns 1 where `n` more would be more than the peer may bring. */
int replic__brings_too_much(const replic *r, uint32_t peer, int what, int64_t n);
/* Returns why not, and what the quota would have to be. The caller frees; NULL: out of memory. */
char *replic__quota_text(const replic *r, uint32_t peer, int what, int64_t n);

/* ---- vector.c ---- */

/* What pruning has done to an origin's part of the log. */
typedef struct replic__pruned {
  int64_t floor;   /* above it the log has every patch; at or below, only what still wins a cell */
  int64_t cursor;  /* up to here patches have come of age and been looked at */
  int64_t missing; /* how many patches up to the vector the log has not */
} replic__pruned;

/* Up to where an origin was applied at a time: what is below it has been here since then at least.
 */
typedef struct replic__mark {
  int64_t sequence, ms;
} replic__mark;

/* They are a heartbeat apart at least, so the last one is three old (outgoing.c). */
#define REPLIC__MARKS 4

typedef struct replic__entry {
  replic_position now;       /* in the open batch */
  replic_position committed; /* on disk; sequence 0: nothing yet */
  replic__pruned pruned, pruned_committed;
  int64_t epoch_from; /* now.epoch holds from here on at the latest (epoch.c) */
  int64_t due;        /* no patch after `pruned.cursor` is stamped below it: no need to look */
  uint32_t source;    /* the peer that has brought its first patch here; 0: not known */
  int64_t elsewhere;  /* up to here some other peer has reported it as applied since replic_open,
                         as far as replic__vector_elsewhere was told */
  int64_t denied, denied_ms; /* the origin has denied to have issued more, told.c; 0: it has not */
  replic__mark marks[REPLIC__MARKS]; /* the latest first */
} replic__entry;

/* Reads it. Once, at open. */
int replic__vector_load(replic *r);
/* Returns the entry of an origin, added where there is none. NULL: out of memory. Valid until the
 * next call that adds. */
replic__entry *replic__vector_entry(replic *r, uint32_t origin);
/* Return 0 where nothing is applied. As in the open batch. */
int64_t replic__vector_sequence(const replic *r, uint32_t origin);
int64_t replic__vector_floor(const replic *r, uint32_t origin);
/* Returns how many patches the origin has, as it said when it denied others, not before `since_ms`;
 * -1: it did not. */
int64_t replic__vector_denied(const replic *r, uint32_t origin, int64_t since_ms);
/* Notes that some other peer has reported it as applied. Origins that are not known here are
 * ignored. */
void replic__vector_elsewhere(replic *r, uint32_t origin, int64_t sequence);
/* See replic_unacknowledged. */
const replic_position *replic__vector_nowhere_else(replic *r, size_t *n);
int replic__vector_store(replic *r);   /* before the commit: writes what changed in this batch */
void replic__vector_settle(replic *r); /* after the commit: memory follows */
void replic__vector_revert(replic *r); /* after a rollback */
/* Whether pruning has changed what is not on the disk yet: holes are found after a commit. */
int replic__vector_is_pruned_anew(const replic *r);

/* ---- epoch.c ---- */

int replic__epochs_load(replic *r); /* after the vector */
/* The patches of `origin` from `from` on, the latest that is known, were issued in `epoch`. */
int replic__epoch_note(replic *r, uint32_t origin, int64_t from, uint32_t epoch);
/* Calls `each` with the epoch of `after`, unless that is 0, and with those that begin in (after,
 * up_to], in order. `from` of the first is where it begins, or any later sequence up to `after`. */
int replic__epochs_read(replic *r, uint32_t origin, int64_t after, int64_t up_to,
                        int (*each)(void *ctx, int64_t from, uint32_t epoch), void *ctx);
/* *up_to becomes less where more than `most` epochs begin in (after, *up_to]. */
int replic__epochs_end(replic *r, uint32_t origin, int64_t after, int64_t most, int64_t *up_to);
int replic__epoch_at(replic *r, uint32_t origin, int64_t sequence, uint32_t *epoch);
/* Of a patch beyond the vector: only on disk, until the vector has moved past it and memory follows
 * (replic__epoch_latest). */
int replic__epoch_store(replic *r, uint32_t origin, int64_t from, uint32_t epoch);
int replic__epoch_latest(replic *r, replic__entry *entry);
/* Forgets those that begin later. */
int replic__epochs_cut(replic *r, uint32_t origin, int64_t after);

/* ---- log.c ---- */

/* Appends a patch. *duplicate: it is there already, and nothing was done. REPLIC_ENULLS: the table
 * has no _nulls, and the patch sets a column to NULL. */
int replic__log_insert(replic *r, const replic__patch *p, int *duplicate);
int replic__log_delete(replic *r, const replic__patch *p);
/* Clears take[i] where a newer patch of the same key sets field i. *newer: 1 where there is one.
 * Uses t->fold. */
int replic__log_newer(replic *r, const replic__patch *p, unsigned char *take, int *newer);
/* Sets t->fold and t->fold_take to the winning cells of the patch's key over the whole log. The
 * caller frees the values with replic__log_fold_free; after a failure there are none. */
int replic__log_fold(replic *r, const replic__patch *p);
void replic__log_fold_free(replic__table *t);
/* Calls `each` for the older patches of the same key; of `values` only the types are set. `each`
 * may delete the patch. */
int replic__log_older(replic *r, const replic__patch *p,
                      int (*each)(void *ctx, const replic__patch *older), void *ctx);
/* Sets values to the fields of the row that a statement of the log stands on. Borrowed until its
 * next step. */
void replic__log_fields(const replic__table *t, sqlite3_stmt *stmt, replic_value *values);

/* ---- order.c ---- */

/* Calls `each` for the patches of `origin` in (after, up_to], in order. A nonzero result stops, and
 * is returned. The patch is borrowed; its values are in the table's scratch. Not to be nested. */
int replic__log_read(replic *r, uint32_t origin, int64_t after, int64_t up_to,
                     int (*each)(void *ctx, const replic__patch *p), void *ctx);
/* Sets *patched_at to _patchedAt of one patch; to 0 where the log has none. */
int replic__log_clock(replic *r, uint32_t origin, int64_t sequence, int64_t *patched_at);
/* Sets bounds for the clock of a patch, from its nearest neighbours in the log. They are equal
 * where the log has the patch itself. */
int replic__log_bounds(replic *r, uint32_t origin, int64_t sequence, int64_t *low, int64_t *high);

/* ---- merge.c ---- */

/* Merges a patch into log and table (I2). A duplicate changes nothing. */
int replic__merge(replic *r, const replic__patch *p, int local);
/* Returns whether a patch stands above all that the log has, and moves r->newest there. That never
 * goes back: after a rollback it is higher than need be, and a search is made that finds nothing.
 */
int replic__is_newest(replic *r, const replic_position *at);
/* Writes the row of the patch's key again, from the whole log. */
int replic__merge_again(replic *r, const replic__patch *p);
/* Sets *exists to whether the table has a row of that key. */
int replic__row_exists(replic *r, replic__table *t, const replic_value *key, int *exists);
/* Turns CHECKs and foreign keys off (1), as nothing may depend on one peer's policy, or on (0). */
int replic__merge_mode(replic *r, int merging);

/* ---- stuck.c ---- */

void replic__stuck_close(replic *r); /* frees what memory has of it */
/* Sets has_stuck and may_lack_rows of all tables, which have been registered anew. */
int replic__stuck_mark(replic *r);
/* After a commit or rollback: what memory says of _replic_stuck. `recount`: n_stuck, too. */
void replic__stuck_note(replic *r, int recount);
/* SQLite has refused the row of that key, with `code`, and the error says why: there is no row. */
int replic__set_aside(replic *r, replic__table *t, const replic_value *key, int code);
/* Notes that the row of that key cannot be stored; `why` is what SQLite said. The log has the key.
 */
int replic__stuck_add(replic *r, replic__table *t, const replic_value *key, int code,
                      const char *why);
/* Forgets it, if it is noted. */
int replic__stuck_remove(replic *r, replic__table *t, const replic_value *key);
/* Writes the rows that the log has and the table has not. CHECKs are off (replic__merge_mode). */
int replic__merge_missing(replic *r, replic__table *t);
/* At open, and after a change of the schema, when nothing else is to be merged: tries the rows of
 * tables whose DDL has changed. The transaction is open. */
int replic__stuck_settle(replic *r);

/* ---- batch.c ---- */

/* A savepoint also remembers one vector entry, or all of them, the clock and the counters; and the
 * share of one peer, where the caller has set it. */
typedef struct replic__savepoint {
  replic_position position;
  replic__entry *all; /* a copy of the vector; NULL where one entry does */
  size_t n_all;
  int whole; /* the transaction began with it, so there is none of SQLite's */
  replic__clock clock;
  replic_counters counters;
  replic__share share;
  int64_t brought[REPLIC__N_BROUGHT];
} replic__savepoint;

/* Opens a savepoint, and the transaction where there is none. `origin`: whose entry the work may
 * change, 0 for any. A batch is open. Where it fails there is nothing to end. */
int replic__savepoint_open(replic *r, uint32_t origin, replic__savepoint *save);
/* Releases it if rc is REPLIC_OK, else rolls back to it, on disk and in memory. Returns rc. */
int replic__savepoint_end(replic *r, replic__savepoint *save, int rc);
/* Fails where a deferred foreign key is unresolved: at COMMIT it would fail the neighbours too. */
int replic__check_deferred(replic *r);
/* Sets the error: another connection has the write lock. Returns SQLITE_BUSY. */
int replic__fail_busy(replic *r);
/* Sets the error: the transaction is gone. Returns SQLITE_ABORT_ROLLBACK. */
int replic__fail_lost(replic *r);

/* ---- write.c ---- */

/* The patches of one call, which travel together. */
typedef struct replic__group {
  replic__entry *self;
  int64_t patched_at, bytes;
} replic__group;

/* Merges one change, of any number of rows, as patches of `g`. Inside a savepoint. */
int replic__write_change(replic *r, const replic_change *change, replic__group *g);

/* ---- compact.c ---- */

/* Forgets what is pending of one origin, or (0) of all, as if it were of age. *n: so many more. */
int replic__forget_pending(replic *r, uint32_t origin, int64_t *n);

/* *is 1: the log has, or may have, patches beyond the vector: a jump is being merged, or
 * what one has brought is fetched once more. They must supersede nothing yet. */
int replic__log_is_ahead(replic *r, int *is);

/* ---- heal.c ---- */

/* The application has opened this file with a new peerId: issues again, under that, what it alone
 * may have. In open's transaction; after it the vector has to be settled. */
int replic__fork_heal(replic *r);
/* Takes the vector of an origin back to `to`, which is stamped `patched_at`. What the log has
 * beyond it stays. Inside a savepoint of all origins. */
int replic__vector_back(replic *r, uint32_t origin, int64_t to, int64_t patched_at);

#endif

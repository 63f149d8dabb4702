/* core.h - what the core's files share. Not for use outside src/core.
 *
 * What each file is for: docs/architecture.md. What decides the data knows nothing of links:
 * engine.c calls replic__sync_flush after a commit, replic__sync_schema_changed after a change of
 * the schema. */
#ifndef REPLIC_CORE_H
#define REPLIC_CORE_H

#include "base/base.h"
#include "file/file.h"
#include "tables/tables.h"

/* ---- patches ----------------------------------------------------------------------------------------------- */

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

int replic__log_insert(replic *r, const replic__patch *p, int *duplicate);
/* Clears take[i] where a newer patch of the same key sets field i. `*newer`: how many there are. */
int replic__log_newer(replic *r, const replic__patch *p, unsigned char *take, int *newer);
/* The winning cells of the patch's key over the whole log into t->fold / t->fold_take; values are
 * owned (fold_free). */
int replic__log_fold(replic *r, const replic__patch *p);
void replic__log_fold_free(replic__table *t);
/* Calls `each` for the patches of `origin` in (after, up_to], in order. A nonzero result stops, and
 * is returned. */
int replic__log_read(replic *r, uint32_t origin, int64_t after, int64_t up_to,
                     int (*each)(void *ctx, const replic__patch *p), void *ctx);
/* Calls `each` for the older patches of the same key; of `values` only the types are set. `each`
 * may delete the patch. */
int replic__log_older(replic *r, const replic__patch *p,
                      int (*each)(void *ctx, const replic__patch *older), void *ctx);
int replic__log_delete(replic *r, const replic__patch *p);
/* _patchedAt of one patch, 0 if the log has none. */
int replic__log_clock(replic *r, uint32_t origin, int64_t sequence, int64_t *patched_at);
/* Between which clocks that patch must lie, by what the log has of its neighbours; equal where it
 * has the patch itself. */
int replic__log_bounds(replic *r, uint32_t origin, int64_t sequence, int64_t *low, int64_t *high);

int replic__merge(replic *r, const replic__patch *p, int local);
/* Whether a patch stands above all that the log has; moves `r->newest` there. That never goes back:
 * after a rollback it is higher than need be, and a search is made that finds nothing. */
int replic__is_newest(replic *r, const replic_position *at);
/* Writes the row of the patch's key anew, from the whole log. */
int replic__merge_again(replic *r, const replic__patch *p);
int replic__row_exists(replic *r, replic__table *t, const replic_value *key, int *exists);
int replic__merge_mode(replic *r, int merging);

/* ---- clock and vector -------------------------------------------------------------------------------------- */

typedef struct replic__clock {
  int64_t high;   /* highest _patchedAt seen */
  int is_passed;  /* the next patch needs a greater one, to come after all that was seen */
  int is_hurried; /* the batch was stamped further ahead of the wall clock than it may be at once */
  uint32_t raised_by;  /* the origin whose patch set it ahead of the wall clock; 0: none did */
  int64_t run_patches; /* own patches at `high`: they travel as one group, so their number */
  int64_t run_bytes;   /* and size are bounded; */
  int64_t run_ms;      /* the wall clock of the last call that asked for a stamp */
} replic__clock;

int64_t replic__clock_next(replic__clock *clock, int64_t now_ms);
void replic__clock_issued(replic__clock *clock, int64_t bytes);
/* A patch of `origin` was applied here, where `self` is. self 0: it was in the file at the start.
 */
void replic__clock_seen(replic__clock *clock, int64_t now_ms, const replic_position *at,
                        uint32_t self);
/* Who has set the clock further ahead of the wall clock than it ever is where all are right; 0: it
 * is not. */
uint32_t replic__clock_leader(const replic *r);

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

int replic__vector_load(replic *r);
/* Finds or adds. NULL: out of memory. Valid until the next call that adds. */
replic__entry *replic__vector_entry(replic *r, uint32_t origin);
int64_t replic__vector_sequence(const replic *r, uint32_t origin); /* as in the open batch */
int64_t replic__vector_floor(const replic *r, uint32_t origin);    /* as in the open batch */
/* How many patches it has, as it said when it denied others, not before `since_ms`; -1: it did not.
 */
int64_t replic__vector_denied(const replic *r, uint32_t origin, int64_t since_ms);
/* Some other peer has reported it as applied; of origins that are not known here it is ignored. */
void replic__vector_elsewhere(replic *r, uint32_t origin, int64_t sequence);
/* See replic_unacknowledged. */
const replic_position *replic__vector_nowhere_else(replic *r, size_t *n);
int replic__vector_store(replic *r);   /* writes what changed in this batch */
void replic__vector_settle(replic *r); /* after the commit: memory follows */
void replic__vector_revert(replic *r);
/* Whether pruning has changed what is not on the disk yet: holes are found after a commit. */
int replic__vector_is_pruned_anew(const replic *r);

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

/* ---- engine ------------------------------------------------------------------------------------------------ */

typedef struct replic__sync replic__sync;

/* ---- quota.c ----------------------------------------------------------------------------------------------- */

/* Pieces of jumps are gone; or nothing is known of them. */
enum { STAGED_LESS = 1, STAGED_UNKNOWN };
enum { BROUGHT_ORIGINS, BROUGHT_PENDING, BROUGHT_STAGED, REPLIC__N_BROUGHT };

/* What a peer has brought that is here now: a number of origins, and bytes. */
typedef struct replic__share {
  uint32_t peer;
  int64_t brought[REPLIC__N_BROUGHT];
} replic__share;

/* As in the open batch. */
replic__share replic__share_of(const replic *r, uint32_t peer);
/* `n` more, or less. Nobody is charged for what peer 0 brings. SQLITE_NOMEM: nothing is counted. */
int replic__bring(replic *r, uint32_t peer, int what, int64_t n);
/* What was brought is counted from 0: never fails; or as `sql` gives it, rows of (peer, number). */
void replic__bring_nothing(replic *r, int what);
int replic__bring_again(replic *r, int what, const char *sql);
/* One share, and the sums over all, as they were. */
void replic__share_restore(replic *r, const replic__share *share, const int64_t *brought);
/* 1: `n` more would be more than the peer may bring. */
int replic__brings_too_much(const replic *r, uint32_t peer, int what, int64_t n);
/* Why not. Caller frees; NULL: out of memory. */
char *replic__quota_text(const replic *r, uint32_t peer, int what);

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

#define REPLIC__N_PENDING_SQL 7

struct replic {
  sqlite3 *db;
  replic_config config;
  char *path;
  uint32_t peer_id;
  int is_new_peer;
  int yields; /* with a peerId that the application has changed on purpose (fork.c) */
  int64_t now_ms;
  int in_batch;
  int is_together; /* local writes share one savepoint, which is: */
  replic__savepoint together;
  int open_tx;  /* BEGIN has run: only a batch that touches the disk takes the write lock */
  int is_first; /* open_tx, and no call has changed anything yet */
  int is_busy;  /* another connection has the write lock: nothing of this batch tries it again */
  int64_t changes_before; /* of sqlite3_total_changes64, at BEGIN */
  int swapped;            /* the schema was registered anew in this batch */
  int64_t step;           /* the version whose step is under way in this batch, 0: none */
  int step_kind;          /* REPLIC_STEP_… */
  int stale;              /* the step has changed the schema, and it is not registered anew yet */
  int lost; /* SQLite rolled the batch's transaction back on its own: nothing more can be done in it
             */
  int merging;        /* CHECKs and foreign keys are off */
  int64_t wal_frames; /* checkpoint.c: after the last commit */
  int64_t page_size;  /* bytes */
  int64_t n_internal; /* tables of the engine's own; all are created at open */
  char *error;
  replic__auth auth;
  int (*stop)(void *ctx, int is_sql); /* replic_on_steps */
  void *stop_ctx;
  replic__identity *identity;
  replic__claims *claims; /* NULL: the VFS has no calls of the system for it */
  char *gone; /* what has become of the file: nothing is written any more; NULL: it is there */
  replic__clock clock, clock_committed;
  replic__entry *vector;
  size_t n_vector, cap_vector;
  uint64_t vector_changes; /* commits that have changed it, and holes that were found */
  int is_ahead; /* the log has patches beyond the vector: a jump is being merged (jump.c) */
  replic_position newest;     /* no patch in the log has a greater clock */
  replic_position *positions; /* what replic_vector returned last */
  sqlite3_stmt *vector_sql, *epoch_sql, *epochs_sql, *begin_sql, *commit_sql, *savepoint_sql,
      *release_sql, *rollback_to_sql, *rollback_sql;
  replic__schema *schema;
  sqlite3_stmt *pending_sql[REPLIC__N_PENDING_SQL];
  int has_pending;         /* rows in _replic_pending; also where that cannot be read */
  int counted;             /* some of it was forgotten in this batch */
  int recount;             /* and something of the batch was undone: `pending` may be wrong */
  int forgotten;           /* some were, and are counted still */
  replic_pending *pending; /* per table and reason, for the caller */
  size_t n_pending;
  replic_pending *fresh; /* what the call under way adds to it */
  size_t n_fresh;
  replic__share *shares; /* by peer (quota.c) */
  size_t n_shares;
  int64_t brought[REPLIC__N_BROUGHT]; /* by all; origins: that are known here */
  int staged_changed;                 /* since they were counted: STAGED_…, 0 */
  int64_t n_stuck;                    /* rows in _replic_stuck */
  replic_stuck stuck_shown[REPLIC_STUCK_SHOWN];
  size_t n_stuck_shown;
  int stuck_changed; /* _replic_stuck has, in this batch */
  int stuck_recount; /* and something of the batch was undone */
  replic__sync *sync;
  replic_counters counters;
  replic_outbox outbox;
};

/* Builds the schema aside, then swaps it in. */
int replic__reload_schema(replic *r);
/* migrate.c: the tables have just been registered as they are now, at the end of a step or of SQL
 * that changes the schema; the transaction is open. What follows from a new schema belongs here. An
 * error undoes the step, or the call. */
int replic__schema_changed(replic *r);
/* How many tables and views there are whose names begin with _replic_. */
int replic__internal_count(replic *r, int64_t *count);
/* Begins the transaction, too. `origin`: whose entry the work may change, 0 for any. */
int replic__savepoint_open(replic *r, uint32_t origin, replic__savepoint *save);
/* Releases it if rc is REPLIC_OK, else rolls back to it; returns rc. */
int replic__savepoint_end(replic *r, replic__savepoint *save, int rc);

/* ---- pending.c --------------------------------------------------------------------------------------------- */

void replic__pending_close(replic *r);
int replic__pending_load(replic *r); /* after the schema: applies what it can hold by now */
/* After a change of the schema, in its transaction: keeps what was lost by it, applies what can be
 * held now. */
int replic__pending_schema_changed(replic *r);
/* Before a statement of a step that changes the schema: what was written or received in the same
 * transaction is kept, as nobody sees it as it was before the change. */
int replic__pending_keep_written(replic *r);
/* After a rollback: what memory says of it. */
void replic__pending_recount(replic *r);
int replic__pending_exists(replic *r, uint32_t origin, int64_t sequence, int *exists);
/* One that may be forgotten if it is older; *origin 0: there is none. */
int replic__pending_oldest(replic *r, int64_t older_than_ms, uint32_t *origin, int64_t *sequence);
/* And its definition, if nothing else needs that. */
int replic__pending_forget(replic *r, uint32_t origin, int64_t sequence);
/* At the end of a call: what it has added to what is pending counts, or (0) is undone. */
void replic__pending_settle(replic *r, int is_kept);
/* compact.c: all of one origin, or (0) of all, as if they were of age. */
int replic__forget_pending(replic *r, uint32_t origin, int64_t *n);
/* The patch is issued anew as another one. */
int replic__pending_move(replic *r, const replic__patch *p, const replic__patch *to);
/* A cursor over what is pending of `origin` in (after, up_to], as the log's own; raw->fields NULL:
 * its end. */
int replic__pending_open(replic *r, uint32_t origin, int64_t after, int64_t up_to);
int replic__pending_next(replic *r, int64_t *sequence, int64_t *patched_at, replic__raw *raw);
void replic__pending_reset(replic *r);
/* _patchedAt of the patch that is at `sequence`, or next before (step -1) or after it (1); 0: none.
 */
int replic__pending_clock(replic *r, uint32_t origin, int64_t sequence, int step,
                          int64_t *patched_at);

/* ---- stuck.c ----------------------------------------------------------------------------------------------- */

void replic__stuck_close(replic *r);
/* Sets has_stuck and may_lack_rows of all tables, which have been registered anew. */
int replic__stuck_mark(replic *r);
/* After a commit or rollback: what memory says of _replic_stuck. `recount`: n_stuck, too. */
void replic__stuck_note(replic *r, int recount);
/* The row of that key cannot be stored; `why` is what SQLite said. The log has the key. */
/* SQLite has refused the row of that key, with `code`, and the error says why: there is no row. */
int replic__set_aside(replic *r, replic__table *t, const replic_value *key, int code);
int replic__stuck_add(replic *r, replic__table *t, const replic_value *key, int code,
                      const char *why);
int replic__stuck_remove(replic *r, replic__table *t, const replic_value *key); /* if it is */
/* Writes the rows that the log has and the table has not. Merging. */
int replic__merge_missing(replic *r, replic__table *t);
/* At open, and after a change of the schema, when nothing else is to be merged: tries the rows of
 * tables whose DDL has changed. The transaction is open. */
int replic__stuck_settle(replic *r);

/* ---- run.c --------------------------------------------------------------------------------------- */

/* SQL of the application's. What it is given is borrowed. */
typedef struct replic__script {
  int mode; /* AUTH_… */
  int many; /* 1: all statements of the text; 0: exactly one */
  const char *sql;
  size_t len;
  const replic_param *params;
  size_t n_params;
  replic_rows *rows; /* NULL: none are wanted. Else: only reads, and the first row has the names */
  size_t max_rows;   /* of them, without the names */
  int64_t changes, rowid; /* results */
} replic__script;
/* Runs it; the text of a refusal or failure is set. */
int replic__guard_exec(replic *r, replic__script *script);

/* ---- identity.c ---- */

/* Decides who this is. The vector is loaded, the transaction open. REPLIC_ERESTORED: the file was
 * copied or restored, and the application has fixed the peerId. */
int replic__identity_settle(replic *r);
/* After each commit: writes the last own sequence into the witness, which may lag. A failure: the
 * peerId is not kept. */
int replic__identity_witness(replic *r);
void replic__identity_leave(replic *r); /* before the close: what no commit could write */

/* engine.c: another connection has the write lock. Returns SQLITE_BUSY. */
int replic__fail_busy(replic *r);
/* ---- sync.c ------------------------------------------------------------------------------------------------ */

int replic__sync_open(replic *r);
void replic__sync_close(replic *r);
/* fork.c: the application has opened this file with a new peerId; what it alone may have, it issues
 * anew. In open's transaction; after it the vector has to be settled. */
int replic__fork_heal(replic *r);
int replic__fork_load(replic *r);
int replic__jump_load(replic *r); /* jump.c: what an earlier start has staged, and merged of it */
/* Merges all that is left of a jump, in open's transaction. */
int replic__jump_finish(replic *r);
/* After a rollback: what memory says of it. */
void replic__jump_reverted(replic *r);
void replic__sync_flush(
    replic *r); /* after a commit: frames and acknowledgements into the outbox */
void replic__sync_schema_changed(replic *r); /* ask again for what was held */

#endif

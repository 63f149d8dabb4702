/* state.h - one replica. Every floor still reaches into it, so it is put together here, above data
 * and below links, and files of the floors base, file and tables include it against the rule: the
 * gate lists them (test/core/arrows.txt). For src/core and its tests. */
#ifndef REPLIC_STATE_H
#define REPLIC_STATE_H

#include "data/data.h"
#include "file/file.h"

typedef struct replic__sync replic__sync;

#define REPLIC__N_PENDING_SQL 7

struct replic {
  sqlite3 *db;
  replic_config config;
  char *path;
  uint32_t peer_id;
  int is_new_peer;
  int yields; /* with a peerId that the application has changed on purpose (data/heal.c) */
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
  replic_value *values; /* scratch for one remote patch (data/definition.c) */
  int cap_values;
  sqlite3_stmt *pending_sql[REPLIC__N_PENDING_SQL];
  int is_admitted;         /* what is merged was looked at before: no quota stops it */
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

#endif

/* replic.h - the core of replic-sqlite: one database file, replicated.
 *
 *   write ──┐                       ┌── frames for the links
 *   receive ┼─> [ one transaction ] ┤
 *   tick  ──┘                       └── events for the application
 *
 * The core owns the writing SQLite connection and nothing else of the world: time, randomness,
 * sockets and threads belong to the caller. It takes changes, received bytes and the time, and
 * leaves frames and events in an outbox that the caller takes after the commit.
 *
 * Order of calls:
 *   replic_open
 *     replic_begin
 *       any of replic_write, replic_run, replic_receive, replic_link_open, replic_link_close,
 *       replic_tick
 *     replic_commit, replic_take_outbox      (any number of such batches)
 *     replic_migrate, replic_migrate_step    (between two batches)
 *   replic_close
 *
 * One thread at a time: calls on one `replic` may come from different threads, but never two at
 * once. Every int result is REPLIC_OK, a REPLIC_E… code (errors.h) or an extended SQLite result
 * code; replic_error_text() then says what, where and the remedy. Strings are UTF-8. Pointers
 * handed in are borrowed until the call returns and copied where they are kept. */
#ifndef REPLIC_H
#define REPLIC_H

#include <stddef.h>
#include <stdint.h>

#include "errors.h"

#ifdef __cplusplus
extern "C" {
#endif

#define REPLIC_PROTOCOL_VERSION 1
#define REPLIC_MAX_SEQUENCE 9007199254740991 /* 2^53 - 1: exact in a JavaScript number */
#define REPLIC_MAX_CLOCK 9007199254740991    /* _patchedAt is a 53-bit number (SEED) */

typedef struct replic replic;

/* A value of a cell or of a parameter. UNSET: the column is not part of the change. */
enum { REPLIC_UNSET, REPLIC_NULL, REPLIC_INT, REPLIC_REAL, REPLIC_TEXT, REPLIC_BLOB };
typedef struct replic_value {
  int type;
  int64_t i; /* REPLIC_INT */
  double d;  /* REPLIC_REAL; NaN is taken for NULL, as SQLite does */
  const void
      *data; /* REPLIC_TEXT (UTF-8, embedded NUL allowed), REPLIC_BLOB; may be NULL when len is 0 */
  size_t len; /* bytes */
} replic_value;

/* Every limit has a default (0 takes it), and tests set them small. */
typedef struct replic_config {
  const char *path; /* the database file; created if absent */
  uint32_t peer_id; /* fixed by the application; 0: the one kept in the file */
  uint32_t
      new_peer_id; /* drawn at random by the caller: taken where a new peerId is needed; not 0 */
  int cache_kib; /* of the file, kept in memory by the writing connection at the most; 0: 16 MiB */
  int normal_durability;     /* 0: synchronous=FULL (I4); 1: NORMAL */
  int64_t max_clock_skew_ms; /* 60 000 */
  uint32_t first_table_id;   /* 1 to 2^31: by which number links know the first table; 0: one that
                                follows from new_peer_id, and so is another in each opening */
  int64_t max_pending_retention_ms; /* 30 days: see replic_compact */
  /* What peers may bring: what is beyond is held, with REPLIC_EQUOTA. What one of them has brought
   * may not be more than what is left free (quota.c): one alone gets half. */
  int64_t max_origins;             /* 200 000: that are known here */
  int64_t max_pending_bytes;       /* 2 GiB: of patches that this schema cannot hold, and of the
                                      definitions of their tables */
  int64_t max_staged_bytes;        /* 32 GiB: of jumps under way */
  int64_t max_staged_retention_ms; /* 1 day: of a jump that has made no progress since */
  int64_t heartbeat_ms;            /* 1 000: interval at which the caller calls replic_tick */
  int64_t link_timeout_ms;         /* 10 000: a link that is silent for longer is closed */
  size_t max_frame_bytes;          /* 64 MiB: largest group; a received frame may be 2 MiB larger */
  size_t window_bytes;             /* 4 MiB: sent and not yet acknowledged, per link */
  size_t slice_bytes;      /* 256 KiB: a PATCHES frame ends at the first group boundary beyond it */
  size_t early_bytes;      /* 4 MiB: frames kept that arrived before their predecessors */
  size_t max_link_origins; /* 16 384: of which one link keeps what its peer has of them */
  int64_t work_units; /* 100 000: of work on received frames in one call, see replic_has_work; a
                         patch     that is applied is 32 of them, one that is read 1 */
  size_t ring_bytes;  /* 4 MiB: recent frames kept encoded, so that one encoding serves all links */
  int calls_checkpoint; /* 1: the caller sees to checkpoints (replic_checkpointer_run), and no
                           commit waits for one; 0: SQLite makes them in the commits, at
                           REPLIC_WAL_LONG */
  int trace; /* 1: REPLIC_EVENT_TRACE events tell what is written, sent, received, applied */
} replic_config;

/* Opens or creates the database, takes the lock, settles the identity and registers the
 * replicated tables.
 * `*out` is set even on failure (except when memory is exhausted: NULL), so that its error text can
 * be read; it must then be closed all the same. Errors: REPLIC_ELOCKED, REPLIC_ERESTORED,
 * REPLIC_ESCHEMA, REPLIC_EUSAGE, SQLITE_CANTOPEN, SQLITE_NOTADB, SQLITE_BUSY (another
 * program holds a lock of the file; opening can be tried again), … */
int replic_open(const replic_config *config, int64_t now_ms, replic **out);

/* Rolls an open batch back, closes the connection, releases the lock and frees everything. NULL is
 * allowed. Never fails. */
void replic_close(replic *r);

/* Why nothing is written any more (REPLIC_EGONE). It lives as long as `r`. NULL: the files are
 * there. From then on each end of a batch moves the WAL into the database, if no reader needs an
 * older state than the last one: all of it or nothing, for the WAL may have no name any more. */
const char *replic_gone(const replic *r);

/* Which file it has open, for connections that open it by its path on their own: an inode, or 0
 * where that cannot be told. */
uint64_t replic_file_id(const replic *r);
/* After having opened `path`: whether it is that file still. Any thread. */
int replic_file_is(const char *path, uint64_t id);

uint32_t replic_peer_id(const replic *r);
/* 1 when this open went on as a new peer, because the file had been copied, moved or restored. */
int replic_is_new_peer(const replic *r);
/* The text of the last error. Borrowed until the next call on `r`. Never NULL. */
const char *replic_error_text(const replic *r);
/* "REPLIC_LOCKED", "SQLITE_CONSTRAINT_NOTNULL", … Static. Unknown codes give "SQLITE_ERROR". */
const char *replic_code_name(int code);
/* Interrupts a running statement from any thread (sqlite3_interrupt): the one call that may overlap
 * another. */
void replic_interrupt(replic *r);
/* Has `stop(ctx, is_sql)` called every REPLIC_STOP_STEPS steps of a statement, on the thread that
 * runs it; `is_sql`: it is one of replic_run or of a migration's, and not the engine's own. Where
 * it returns other than 0 the statement fails with SQLITE_INTERRUPT. If that one writes, SQLite
 * undoes all of the transaction: the first call of a batch is then undone alone, any other one
 * fails the batch. `ctx` is borrowed until replic_close. */
void replic_on_steps(replic *r, int (*stop)(void *ctx, int is_sql), void *ctx);
#define REPLIC_STOP_STEPS 2000 /* of SQLite's virtual machine: some tens of microseconds */

/* ---- a batch: one transaction, one commit ----------------------------------------------------------------- */

/* Opens the transaction. `now_ms`: Unix time in milliseconds, used for every call of this batch. */
int replic_begin(replic *r, int64_t now_ms);

/* The same, and takes the write lock at once. SQLITE_BUSY where another connection has it: then no
 * batch is open. */
int replic_begin_now(replic *r, int64_t now_ms);

/* The same where another connection is known to have the write lock: what needs it fails with
 * SQLITE_BUSY, and what would only be of use with it is not asked for. */
int replic_begin_busy(replic *r, int64_t now_ms);

/* Nothing here waits for a lock. A call of a batch that finds the write lock taken by another
 * connection fails with SQLITE_BUSY, and so does each later one of that batch that needs it; all
 * of them can be made again in a later batch. 1: that has happened, in the batch that is open or
 * was the last one. */
int replic_is_busy(const replic *r);

/* 1 where a batch of a few small calls takes little more than its statements: no link waits for
 * what has to be read from the log, and links and known origins are few. */
int replic_is_calm(const replic *r);

/* What replic_receive of a frame will take, as its first bytes say. Anything may be in it. */
enum { REPLIC_TAKES_MEMORY, REPLIC_TAKES_WRITE_LOCK, REPLIC_TAKES_LONGER };
int replic_frame_takes(const uint8_t *bytes, size_t len);
/* 1: it brings what is to be stored, so that it is of no use while the write lock is taken. */
int replic_frame_brings(const uint8_t *bytes, size_t len);
/* The sum that a frame ends with whose other bytes these are. Any thread. */
uint32_t replic_frame_sum(const uint8_t *bytes, size_t len);

/* Commits everything since replic_begin (I3). On success the memory follows the disk, and the
 * frames that the links can take are put into the outbox. On failure all of the batch is undone on
 * disk and in memory. */
int replic_commit(replic *r);

/* Undoes everything since replic_begin. Never fails. */
void replic_rollback(replic *r);

enum { REPLIC_UPSERT, REPLIC_DELETE };
/* Rows of one table. `values` holds n_rows * n_columns values, row by row, in the order of
 * `columns`. */
typedef struct replic_change {
  int kind; /* REPLIC_UPSERT; REPLIC_DELETE: the columns are the primary key, deletedAt is set */
  const char *table;
  size_t n_columns;
  const char *const *columns;
  size_t n_rows;
  const replic_value *values;
} replic_change;

/* Writes one group: all changes or none (a savepoint). `*sequence` gets the group's last sequence,
 * the vector entry that a reader waits for. Errors: REPLIC_ETABLE, ECOLUMN, EKEY, ENULLS,
 * ENODELETE, ENOTFOUND, ETOOLARGE, SQLITE_CONSTRAINT_… */
int replic_write(replic *r, const replic_change *changes, size_t n_changes, int64_t *sequence);

/* Calls of replic_write from here to replic_apart share one savepoint, which costs less than one
 * each. Nothing else may be called in between but replic_rollback. Where one of them fails, call
 * replic_apart with its code: all of them are undone, on disk and in memory, as if they had not
 * been made, and the ones to be kept are made again, without replic_together. */
int replic_together(replic *r);
/* `code`: REPLIC_OK, or that of the call that failed. The result: `code`; SQLITE_ABORT_ROLLBACK,
 * where SQLite has undone the whole batch, so that nothing more can be made in it; or another
 * reason for which all of them are undone. */
int replic_apart(replic *r, int code);

/* A parameter of a statement. */
typedef struct replic_param {
  const char *name; /* without its prefix; NULL: positional */
  replic_value value;
} replic_param;

/* Runs SQL of the application's on the writing connection, inside the batch (a savepoint). `many`:
 * all statements of the text, without parameters; else exactly one. `unsafe` permits direct writes
 * to replicated tables.
 * `*changes` and `*rowid` as sqlite3_changes64 and sqlite3_last_insert_rowid; `*changes` is the sum
 * for `many`. Errors: REPLIC_EDIRECT, REPLIC_ETRANSACTION, REPLIC_EUSAGE (parameters), SQLITE_… */
int replic_run(replic *r, const char *sql, size_t len, int many, int unsafe,
               const replic_param *params, size_t n_params, int64_t *changes, int64_t *rowid);

/* ---- migrations and schema -------------------------------------------------------------------------------- */

enum {
  REPLIC_STEP_UP,   /* applies `version`, which must be the next one */
  REPLIC_STEP_DOWN, /* takes it back: it must be the last one */
  REPLIC_STEP_NOTE  /* only writes down anew what an applied version was; no SQL follows */
};
/* A step, as it is kept in _replic_migrations. Going down, of what follows `version` nothing
 * counts. A text that is NULL is kept as "". */
typedef struct replic_step {
  int kind;
  int64_t version; /* position in the list of migrations, from 1 */
  const char *up, *down, *name, *hash;
  /* Columns that the step renames: JSON, [["table", "old name", "new name"], …]. They are kept in
   * _replic_renames(version, tableName, oldColumn, newColumn), also when the step is taken back,
   * until another step takes its place. */
  const char *renames;
} replic_step;

/* A step of a migration takes a batch of its own:
 *   replic_begin
 *     replic_step_begin
 *       any of replic_step_run, replic_step_read, replic_write
 *     replic_step_end          (several steps may follow each other)
 *   replic_commit
 * If any of these fails, or the step shall not be after all: replic_rollback, which leaves database
 * and registration as they were. A failed run, read or write by itself leaves no trace; the step
 * may go on.
 *
 * Errors: REPLIC_EMIGRATION (the version is not the next one or the last one; a column that is to
 * be renamed is not there), REPLIC_EUSAGE (another step is under way). */
int replic_step_begin(replic *r, const replic_step *step);
/* SQL of the step: as replic_run, but may change the schema and the data of all tables except the
 * engine's own. What it changes in replicated tables stays local. The text of an error names the
 * statement. */
int replic_step_run(replic *r, const char *sql, size_t len, int many, const replic_param *params,
                    size_t n_params, int64_t *changes, int64_t *rowid);
struct replic_rows; /* query.h */
/* One statement that only reads, and sees what the step has done so far. Appends to `rows` the
 * names of the columns, as if they were the first row, and then at most `max_rows` rows. */
int replic_step_read(replic *r, const char *sql, size_t len, const replic_param *params,
                     size_t n_params, size_t max_rows, struct replic_rows *rows);
/* Registers the tables as they are now, with all checks. Errors: REPLIC_ESCHEMA, REPLIC_EMIGRATION
 * (renames), REPLIC_EDIRECT (a table was given a name of the engine's). */
int replic_step_end(replic *r);

/* All of the above at once, for a step that is one SQL text. On failure everything is as before. */
int replic_migrate_step(replic *r, int64_t now_ms, const replic_step *step, const char *sql);
/* The same without names, hashes and renames. Going up: down_of_step != NULL, what takes the step
 * back. Going down: down_of_step == NULL, and `sql` is the stored script. */
int replic_migrate(replic *r, int64_t now_ms, int64_t version, const char *sql,
                   const char *down_of_step);

/* The DDL that T_patches of table `table` must have. `*out`: caller frees with sqlite3_free. Inside
 * a step or between batches. Errors: REPLIC_ETABLE, REPLIC_ESCHEMA (no primary key). */
int replic_patches_table(replic *r, const char *table, char **out);
/* The same of the one table that `create_table` creates, without a database. `*out` is the error
 * text where the result is not REPLIC_OK; freed likewise. Errors: REPLIC_EUSAGE (it is no CREATE
 * TABLE), REPLIC_ESCHEMA, SQLITE_… */
int replic_patches_table_of(const char *create_table, char **out);

typedef struct replic_column {
  const char *name;
  const char *type; /* as declared, "" if none */
  int key;          /* 0, or its position in the primary key from 1 */
  int not_null;
  int carried; /* 0: generated, computed by every peer */
} replic_column;
typedef struct replic_table {
  const char *name;
  size_t n_columns;
  const replic_column *columns;
  int has_nulls;      /* T_patches has _nulls: columns can be set to NULL */
  int has_deleted_at; /* replic_change.REPLIC_DELETE works */
} replic_table;
size_t replic_table_count(const replic *r);
/* Borrowed until the next replic_migrate, replic_run or replic_close. */
const replic_table *replic_table_at(const replic *r, size_t index);
/* The SQL that the core runs for a table, one statement a line, each ended by ";". *out: caller
 * frees with sqlite3_free. */
int replic_explain(replic *r, const char *table, char **out);

/* ---- vector ----------------------------------------------------------------------------------------------- */

typedef struct replic_position {
  uint32_t origin;
  int64_t sequence;   /* everything of `origin` up to here is applied */
  int64_t patched_at; /* _patchedAt of that patch */
  uint32_t epoch;     /* the opening of its origin's file in which that was issued; 0: before the
                         first one that is known */
} replic_position;
size_t replic_vector_count(const replic *r);
/* Sorted by origin. Borrowed until the next call. */
const replic_position *replic_vector(const replic *r);

/* ---- pending ---------------------------------------------------------------------------------------------- */

/* Patches that this peer's schema cannot hold, or not as they were written: kept, and applied with
 * their own clocks once a migration makes it possible. One entry per definition of a table. */
typedef struct replic_pending {
  const char *table, *why; /* the first reason */
  int64_t patches;
  int64_t oldest_at; /* when the oldest of them was written, by its clock: Unix time in ms */
} replic_pending;
/* Of more tables and reasons the rest is counted in one more, whose table is "". */
enum { REPLIC_PENDING_SHOWN = 1000 };
/* Sorted by table and reason. Borrowed until the next call that changes the database. */
size_t replic_pending_count(const replic *r);
const replic_pending *replic_pending_at(const replic *r, size_t index);

/* Rows that this peer's schema cannot store, as an index on an expression or a generated column
 * raises: the log has their patches, the table has no row. Tried again with the next patch of the
 * key, and when the schema changes. */
typedef struct replic_stuck {
  const char *table, *key, *why; /* key: a JSON object; why: what SQLite said */
  int code;                      /* SQLite's */
} replic_stuck;
enum { REPLIC_STUCK_SHOWN = 20 };
int64_t replic_stuck_rows(const replic *r); /* how many there are */
/* At most REPLIC_STUCK_SHOWN of them; SELECT … FROM _replic_stuck has all. Borrowed until the next
 * call that changes the database. */
size_t replic_stuck_count(const replic *r);
const replic_stuck *replic_stuck_at(const replic *r, size_t index);

/* ---- retention -------------------------------------------------------------------------------------------- */

typedef struct replic_compaction {
  int64_t examined; /* patches that came of age and were looked at */
  int64_t removed;  /* patches deleted from the log: they won no cell any more */
  int done;         /* 1: nothing further has come of age; 0: call again for the next slice */
} replic_compaction;

/* Inside a batch: one slice of retention by supersession. Looks at the patches stamped
 * before `older_than_ms` that no earlier call has looked at, at most `max_patches` of them, and
 * deletes those of the same keys that win no cell any more. What wins a cell stays, and the newest
 * patch of a key. Errors: SQLITE_… (nothing of this slice is done). */
int replic_compact(replic *r, int64_t older_than_ms, int64_t max_patches, replic_compaction *out);

/* Inside a batch: forgets one kind of what others have said, of one peer or (0) of all.
 * `*forgotten`: how many rows that were.
 *
 *   FORKS    what was noted of forks in the history of `peer`, and which history of it was given up
 *   PENDING  its patches that this schema cannot hold; of each, what could be applied stays
 *   STAGED   what it has brought of a jump that is not made yet
 *   LOST     its patches after `after`, which nobody has any more: this is noted for replic_lost.
 *            `peer` is not 0
 *
 * Errors: REPLIC_EUSAGE (LOST: the patches are this peer's own, are here, or a linked peer has
 * said to have them), SQLITE_… Nothing is forgotten then. */
enum { REPLIC_FORGET_FORKS, REPLIC_FORGET_PENDING, REPLIC_FORGET_STAGED, REPLIC_FORGET_LOST };
int replic_forget(replic *r, int what, uint32_t peer, int64_t after, int64_t *forgotten);
/* What was forgotten as LOST, ever: `*n` origins, sorted, and in `sequence` after which patch.
 * Where something later is applied or announced all the same, it is not lost. Without memory: a
 * part. Borrowed until the next call of this or of replic_vector. */
const replic_position *replic_lost(replic *r, size_t *n);

/* Peers that were the source of a jump and whose word was not compared with another peer's since:
 * `*n` of them, ascending, as `origin`. Without memory: a part. Borrowed until the next call of
 * this, of replic_lost or of replic_vector. */
const replic_position *replic_unchecked(replic *r, size_t *n);
/* Inside a batch: the replicated tables were compared with those of `peer`, which is linked, at
 * equal vectors. `equal`: all jumps from other peers were right, and this is noted. Else what they
 * have brought is fetched once more, from that peer: the vector goes back. (After two times an
 * event says that they still differ, and it is given up.) Does nothing where the peer is not
 * linked, or a jump is under way. Errors: SQLITE_… (nothing is changed). */
int replic_rechecked(replic *r, uint32_t peer, int equal);

/* Inside a batch: statistics for SQLite's planner, of the next table that needs them. `after`: ""
 * at first, then what the last call has given. `*done`: what names that table, NULL where there is
 * none; the caller frees it (sqlite3_free). Errors: SQLITE_… */
int replic_optimize(replic *r, const char *after, char **done);

/* ---- checkpoints ------------------------------------------------------------------------------------------ */

/* Bytes: from the first on a checkpoint is due, and a WAL longer than the second, as a long reader
 * leaves it, is cut to that by the commit that begins it anew. */
enum { REPLIC_WAL_LONG = 16 * 1024 * 1024, REPLIC_WAL_MOST = 2 * REPLIC_WAL_LONG };

/* Where config.calls_checkpoint is set. How many bytes the WAL had at the end of the last commit.
 * They become few again when a commit has begun the WAL anew. */
int64_t replic_wal_bytes(const replic *r);
/* Between two batches: moves what is left of the WAL into the file, so that the next commit begins
 * it anew. Not where a reader needs it; above 0, it waits for readers, at most `wait_ms`. While a
 * checkpointer runs, or in a batch, it does nothing. Never fails: what is not moved stays in the
 * WAL. */
void replic_checkpoint(replic *r, int wait_ms);

/* A connection that only moves pages from the WAL into the file, on a thread of its own, at any
 * time between replic_open and replic_close. */
typedef struct replic_checkpointer replic_checkpointer;
/* `*out` is set even on failure (except when memory is exhausted: NULL), and must then be closed
 * all the same. */
int replic_checkpointer_open(const char *path, replic_checkpointer **out);
/* Moves what the WAL holds now, as far as no reader needs it, and syncs the file; commits go on
 * meanwhile. `*bytes`: how many the WAL held, `*moved`: how many of them are in the file by now.
 * Errors: SQLITE_BUSY (another program makes a checkpoint), SQLITE_INTERRUPT, SQLITE_… (disk). */
int replic_checkpointer_run(replic_checkpointer *c, int64_t *bytes, int64_t *moved);
/* From any thread: the one call that may overlap another. */
void replic_checkpointer_interrupt(replic_checkpointer *c);
/* NULL is allowed. Never fails. */
void replic_checkpointer_close(replic_checkpointer *c);

/* ---- links ------------------------------------------------------------------------------------------------ */

/* A connection has come up. `link`: a number of the caller's choosing, not in use. `expected_peer`:
 * the peerId that must answer, 0 for any. `only_reads` 1: that peer gets everything, and nothing is
 * taken that comes over this link; both sides are told (REPLIC_EREADONLY) where it has something
 * that is missing here. Puts HELLO into the outbox. */
int replic_link_open(replic *r, uint32_t link, uint32_t expected_peer, int only_reads);
/* The connection is gone. Unknown links are ignored. */
void replic_link_close(replic *r, uint32_t link);
/* What nobody else is known to have: per origin in `origin`, sorted, how many of its patches are
 * here, in `sequence`, that no peer which was linked since replic_open has acknowledged. They are
 * the latest ones, committed; who made them does not matter. `*n` entries, borrowed until the next
 * call of this or of replic_vector. NULL: out of memory. */
const replic_position *replic_unacknowledged(replic *r, size_t *n);
/* One whole frame came in over `link`. `bytes` are untrusted. `len` 0: a part of one did, which is
 * a sign of life. A frame that is corrupt, hostile or not acceptable leaves the database untouched,
 * puts an ERROR frame and a REPLIC_EVENT_LINK_CLOSE into the outbox, and is no failure of the
 * batch: the result is REPLIC_OK. Or SQLITE_BUSY (replic_is_busy): nothing of it is applied; the
 * caller hands it in again, or drops it, and it is asked for like any frame that is lost. */
int replic_receive(replic *r, uint32_t link, const uint8_t *bytes, size_t len);
/* A frame with very many patches is taken in in parts, and what a jump has brought is merged in
 * slices; replic_work goes on with it, best in a later batch, so that others need not wait.
 * REPLIC_WORK_FIRST: some of a frame is left, and who calls replic_receive has it wait for all of
 * them. REPLIC_WORK_BESIDE: of a jump, and frames may come in between. */
enum { REPLIC_NO_WORK, REPLIC_WORK_BESIDE, REPLIC_WORK_FIRST };
int replic_has_work(const replic *r);
/* REPLIC_OK, or SQLITE_BUSY, as of replic_receive: to be called again. */
int replic_work(replic *r);
/* Heartbeats, acknowledgements, repair of stalled links. Call it every heartbeat_ms while links are
 * open. */
int replic_tick(replic *r);

enum { REPLIC_LINK_OPENING, REPLIC_LINK_READY, REPLIC_LINK_STANDBY };
enum { REPLIC_JUMP_NONE, REPLIC_JUMP_SENDING, REPLIC_JUMP_RECEIVING };
typedef struct replic_link_info {
  uint32_t link;
  uint32_t peer;  /* 0 until its HELLO */
  int state;      /* REPLIC_LINK_… ; STANDBY: another link to the same peer carries the patches */
  int64_t lag;    /* patches that this peer has and that one has not acknowledged */
  int64_t behind; /* patches that it announced and this peer has not */
  int64_t unacked_bytes; /* sent, not acknowledged: at most window_bytes plus one frame */
  int64_t skew_ms;       /* its wall clock minus ours when its last HELLO or ACK arrived */
  int64_t bytes_in, bytes_out, frames_in, frames_out;
  int64_t lag_ms;        /* how long ago the oldest of those `lag` patches was issued, by its stamp;
                            0: none, or not known */
  int64_t staged;        /* patches of a jump that this peer has staged from it */
  int jump;              /* REPLIC_JUMP_… */
  int64_t retransmitted; /* patches sent again because they were asked for */
  int reader;            /* the peer may only read here: nothing is taken over this link, */
  int muted;             /* and this side there */
  const char *schema;    /* what it has sent of its tables: a line each, of the table's name, a tab,
                            and    what is not the same here; borrowed like `held` */
  const char
      *held; /* why its patches are not applied at present (schema, skew); NULL if they are */
} replic_link_info;
/* The greatest sequence of `origin` that a linked peer has said to have; -1: no peer is linked.
 * Those that may only read here do not count: nothing comes from them. */
int64_t replic_announced(const replic *r, uint32_t origin);
/* on 1: from now on each acknowledgement of patches that were written here is a
 * REPLIC_EVENT_ACKED, but those of peers that may only read here. At first they are not. */
void replic_tell_acks(replic *r, int on);
size_t replic_link_count(const replic *r);
/* `*info` is filled; `held` is borrowed until the next call. 0 when there is no such index. */
int replic_link_at(replic *r, size_t index, replic_link_info *info);

typedef struct replic_counters {
  int64_t commits; /* transactions that have changed the file */
  int64_t groups_written, patches_written, patches_applied, patches_duplicate;
  int64_t frames_early, frames_dropped_early, retransmissions, rows_waiting;
  int64_t patches_relayed; /* frames' patches sent that were another peer's */
  int64_t patches_pruned;  /* removed by replic_compact */
  int64_t patches_staged;  /* received for a jump, not yet visible */
  int64_t jumps;           /* completed here */
  int64_t jumps_resumed;   /* gone on with what was staged before a link or the process ended */
  int64_t jumps_abandoned; /* staged patches given up, because they came another way */
  int64_t skew_refusals;   /* frames held because of a stamp too far ahead */
  int64_t forks_healed;    /* own patches issued anew under a new peerId */
} replic_counters;
void replic_get_counters(const replic *r, replic_counters *out);
/* The highest _patchedAt seen and committed, in ms: the next patch is not stamped below it. */
int64_t replic_clock_high(const replic *r);
/* The origin whose patch set that ahead of the wall clock of the batch; 0: none did. */
uint32_t replic_clock_raised_by(const replic *r);
/* This machine's wall clock minus those of most peers that are linked, in ms, as of the last
 * heartbeat: the least by which more than half of them differ, all in one direction; 0: there is no
 * such half. Beyond a quarter of max_clock_skew_ms a REPLIC_EVENT_ERROR says so. */
int64_t replic_clock_off(const replic *r);
/* 1: the batch that was committed last has moved the clock on while that was far ahead of the wall
 * clock. Wait for 1 ms before anything of its outbox is sent, or the clocks of peers that answer
 * each other run away from time (clock.c). */
int replic_must_wait(const replic *r);
/* Rows of all T_patches tables, by count of what was applied and pruned. Rows deleted by hand are
 * counted still. */
int64_t replic_log_rows(const replic *r);

/* Sends bytes of the caller's own to the peer of a link that is ready; there they are a
 * REPLIC_EVENT_MESSAGE. The link may lose them. At most 4 MiB. Inside a batch.
 * Errors: REPLIC_ENOTFOUND (no such link, or not ready), REPLIC_ETOOLARGE. */
int replic_link_message(replic *r, uint32_t link, const void *bytes, size_t len);

/* ---- outbox ----------------------------------------------------------------------------------------------- */

typedef struct replic_frame { /* refs: ring + outboxes; changed only inside calls on the core's one
                                 thread */
  size_t refs;
  size_t len;
  uint8_t data[1]; /* len bytes; immutable */
} replic_frame;

typedef struct replic_send {
  uint32_t link;
  replic_frame *frame; /* the same frame may stand for several links, one after another */
} replic_send;

enum {
  REPLIC_EVENT_VECTOR, /* origin, a = sequence, b = _patchedAt: applied and committed, own writes
                          too */
  REPLIC_EVENT_BACK,   /* the same, where that is less than before: what another peer had only told
                          of was denied */
  REPLIC_EVENT_CHANGE, /* text = table: its rows changed in this commit; code: 1 local, 2 remote, 3
                          both */
  REPLIC_EVENT_LINK_READY, /* link, peer: HELLO accepted */
  REPLIC_EVENT_LINK_CLOSE, /* link, peer, code, text: the caller sends what is in the outbox, then
                              closes the connection */
  REPLIC_EVENT_LINK_ERROR, /* link, peer, code, text: reported by this side or the other; the link
                              stays */
  REPLIC_EVENT_LINK_LEFT, /* link, peer: it was closed with everything acknowledged that was here in
                             this batch; a = the sum of all sequences then */
  REPLIC_EVENT_ACKED,     /* link, peer, a: it has what was written here up to that sequence; see
                             replic_tell_acks */
  REPLIC_EVENT_SYNCED, /* link, peer: both have acknowledged everything that the other had; once per
                          change */
  REPLIC_EVENT_ERROR,  /* code, text: not tied to a link (a trigger that raised during a merge) */
  REPLIC_EVENT_MESSAGE, /* link, peer, text = a bytes, not terminated: what the other side gave to
                           replic_link_message */
  REPLIC_EVENT_JUMPED,  /* peer: a jump from there is over; see replic_unchecked */
  REPLIC_EVENT_TRACE    /* text */
};
typedef struct replic_event {
  int kind;
  uint32_t link, peer, origin;
  int code;
  int64_t a, b;
  char *text; /* NULL, or owned by the outbox */
} replic_event;

typedef struct replic_outbox {
  replic_send *sends;
  size_t n_sends, cap_sends;
  replic_event *events;
  size_t n_events, cap_events;
} replic_outbox;

/* Moves what has gathered into `*out` (caller owns it). Call it after replic_commit or
 * replic_rollback. Frames are put there only after their patches are durable (I4). */
void replic_take_outbox(replic *r, replic_outbox *out);
/* Frees an outbox's content. On the core's thread only (never while another call on the same
 * `replic` runs). */
void replic_outbox_free(replic_outbox *out);

#ifdef __cplusplus
}
#endif
#endif

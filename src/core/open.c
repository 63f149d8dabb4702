/* open.c - opening and closing: configuration, connection, internal tables, identity, registration.
 *
 * The internal tables are few and readable:
 *   _replic_meta        key, value         peerId, layout of these tables
 *   _replic_vector      origin, sequence, patchedAt; floor, cursor, missing (compact.c); source
 * (quota.c) _replic_epochs      origin, sequence, epoch: issued from here on in that opening
 * (epoch.c) _replic_definitions, _replic_pending, _replic_past  patches that the schema cannot hold
 *                       (data/kept.c)
 *   _replic_stuck, _replic_settled  rows that the schema cannot store, and as what tables were
 * tried (stuck.c) _replic_staged      what a jump has brought so far, invisible (jump.c)
 *   _replic_sources     when each peer has brought the last of that
 *   _replic_jump        where a jump that is being merged ends (jump.c)
 *   _replic_forks       up to where two histories of an origin are one (fork.c)
 *   _replic_dropped     patches at which histories part that were given up here (fork.c)
 *   _replic_jumped      of jumps that were not compared with another peer: where each began
 *   _replic_told        of what no patch has come of in a jump: up to where, and who said so
 * (told.c) _replic_lost        origins whose patches after that one nobody has any more (forget.c)
 *   _replic_migrations  what was applied, and how to step back (migrate.c)
 *   _replic_renames     columns that migrations have renamed, or dropped (migrate.c)
 *
 * `layout` in _replic_meta counts their versions. An older one is brought up to date at open, in
 * open's transaction, by UPGRADES; test/fixtures has files of every layout there was. */
#include <string.h>

#include "core.h"

#define ORIGINS_MAX 16384 /* of which a link keeps what its peer has of them */

#define MIB (1024 * 1024)
#define LAYOUT 4 /* of the internal tables */
#define ONE_DAY_MS 86400000
#define THIRTY_DAYS_MS (30LL * ONE_DAY_MS)

/* ---- opening and closing ---- */

static int take_defaults(replic *r, const replic_config *config) {
  replic_config *c = &r->config;
  *c = *config;
  if (!c->max_clock_skew_ms) c->max_clock_skew_ms = 60000;
  if (!c->max_pending_retention_ms) c->max_pending_retention_ms = THIRTY_DAYS_MS;
  if (!c->max_origins) c->max_origins = 200000;
  if (!c->max_pending_bytes) c->max_pending_bytes = 2 * 1024LL * MIB;
  if (!c->max_staged_bytes) c->max_staged_bytes = 32 * 1024LL * MIB;
  if (!c->max_staged_retention_ms) c->max_staged_retention_ms = ONE_DAY_MS;
  if (!c->heartbeat_ms) c->heartbeat_ms = 1000;
  if (!c->link_timeout_ms) c->link_timeout_ms = 10000;
  if (!c->cache_kib) c->cache_kib = 16 * 1024;
  if (!c->max_frame_bytes) c->max_frame_bytes = 64 * MIB;
  if (!c->window_bytes) c->window_bytes = 4 * MIB;
  if (!c->slice_bytes) c->slice_bytes = 256 * 1024;
  if (!c->early_bytes) c->early_bytes = 4 * MIB;
  if (!c->max_link_origins) c->max_link_origins = ORIGINS_MAX;
  if (!c->work_units) c->work_units = 100000;
  if (!c->ring_bytes) c->ring_bytes = 4 * MIB;
  r->path = sqlite3_mprintf("%s", config->path ? config->path : "");
  c->path = r->path;
  if (!r->path) return SQLITE_NOMEM;
  if (!*r->path || !strcmp(r->path, ":memory:"))
    return replic__fail(r, REPLIC_EUSAGE, "a replica needs a file; \"%s\" is none", r->path);
  return REPLIC_OK;
}

/* The text is cut: a traced blob would be written out in hexadecimal digits. */
static int trace_sql(unsigned type, void *ctx, void *stmt, void *text) {
  (void)type; /* SQLITE_TRACE_STMT, the only one asked for */
  const char *comment = text;
  char *sql = strncmp(comment, "--", 2) != 0 ? sqlite3_expanded_sql(stmt) : NULL;
  replic__trace(ctx, "sql %.1000s", sql ? sql : comment);
  sqlite3_free(sql);
  return 0;
}

static int open_database(replic *r) {
  int flags =
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  replic__claim_ready();
  int rc = sqlite3_open_v2(r->path, &r->db, flags, replic__wal_vfs());
  if (rc != SQLITE_OK)
    return replic__fail(r, rc, "%s: %s. The folder must exist and be writable", r->path,
                        r->db ? sqlite3_errmsg(r->db) : "no memory");
  if (sqlite3_db_readonly(r->db, "main") == 1)
    return replic__fail(r, SQLITE_READONLY, "%s cannot be written: change its permissions",
                        r->path);
  if (r->config.trace) sqlite3_trace_v2(r->db, SQLITE_TRACE_STMT, trace_sql, r);
  rc = replic__lock_open(r);
  return rc == REPLIC_OK ? replic__claims_open(r) : rc;
}

#define DROPPED                                                                                    \
  "(origin INTEGER NOT NULL, sequence INTEGER NOT NULL, patchedAt INTEGER NOT NULL, epoch "        \
  "INTEGER "                                                                                       \
  "NOT NULL, PRIMARY KEY(origin, sequence, patchedAt, epoch)) WITHOUT ROWID;"

#define DEFINITIONS                                                                                \
  "(id INTEGER PRIMARY KEY, definition BLOB NOT NULL, taken TEXT, source INTEGER NOT NULL);"
#define DEFINITIONS_BY                                                                             \
  "CREATE UNIQUE INDEX IF NOT EXISTS main._replic_definitions_by ON "                              \
  "_replic_definitions(definition);"
/* `source` before `patch`, which may fill pages of its own. */
#define PENDING                                                                                    \
  "(origin INTEGER NOT NULL, sequence INTEGER NOT NULL, patchedAt INTEGER NOT NULL, definition "   \
  "INTEGER NOT NULL, source INTEGER NOT NULL, patch BLOB NOT NULL, PRIMARY KEY(origin, "           \
  "sequence)) "                                                                                    \
  "WITHOUT ROWID;"
#define PENDING_BY                                                                                 \
  "CREATE INDEX IF NOT EXISTS main._replic_pending_by ON _replic_pending(definition, patchedAt, "  \
  "origin, sequence);"

/* From layout i + 1 to the next. Tables that are new altogether are created already. */
static const char *const UPGRADES[] = {
    /* patches that were issued before there were epochs have the epoch 0, on every peer */
    "CREATE TABLE main._replic_was AS SELECT origin, sequence, patchedAt FROM main._replic_dropped;"
    "DROP TABLE main._replic_dropped; CREATE TABLE main._replic_dropped" DROPPED
    "INSERT INTO main._replic_dropped SELECT origin, sequence, patchedAt, 0 FROM main._replic_was;"
    "DROP TABLE main._replic_was;"
    "ALTER TABLE main._replic_migrations ADD COLUMN name TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE main._replic_migrations ADD COLUMN hash TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE main._replic_migrations ADD COLUMN rename TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE main._replic_migrations ADD COLUMN appliedAt INTEGER NOT NULL DEFAULT 0;"
    "DELETE FROM main._replic_staged;", /* its frames name no epochs: it is fetched anew */
    "", /* tables that are new altogether; an older program would not know why rows are missing */
    "ALTER TABLE main._replic_vector ADD COLUMN source INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE main._replic_definitions RENAME TO _replic_was; CREATE TABLE "
    "main._replic_definitions" DEFINITIONS
    "INSERT INTO main._replic_definitions SELECT id, definition, "
    "taken, 0 FROM main._replic_was; DROP TABLE main._replic_was;" DEFINITIONS_BY
    "ALTER TABLE main._replic_pending RENAME TO _replic_was; CREATE TABLE "
    "main._replic_pending" PENDING "INSERT INTO main._replic_pending SELECT origin, sequence, "
    "patchedAt, definition, 0, patch FROM main._replic_was; DROP TABLE main._replic_was;" PENDING_BY
    "DELETE FROM main._replic_definitions WHERE id NOT IN (SELECT definition FROM "
    "main._replic_pending UNION ALL SELECT definition FROM main._replic_past);"
    "DELETE FROM main._replic_staged;", /* nobody knows since when it is there */
};

static int upgrade_layout(replic *r) {
  int64_t layout = 0;
  int rc = replic__int(r, "SELECT value FROM main._replic_meta WHERE key = 'layout'", &layout);
  if (rc == REPLIC_OK && (layout < 1 || layout > LAYOUT))
    return replic__fail(
        r, REPLIC_EVERSION,
        "%s was written by a newer replic-sqlite (layout %lld, this one knows %d): update", r->path,
        layout, LAYOUT);
  if (rc != REPLIC_OK || layout == LAYOUT) return rc;
  for (; rc == REPLIC_OK && layout < LAYOUT; layout++) rc = replic__exec(r, UPGRADES[layout - 1]);
  char *sql =
      sqlite3_mprintf("UPDATE main._replic_meta SET value = %d WHERE key = 'layout'", LAYOUT);
  if (rc == REPLIC_OK) rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

static int check_encoding(replic *r) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, "SELECT encoding FROM pragma_encoding", &stmt);
  int utf8 = rc == REPLIC_OK && sqlite3_step(stmt) == SQLITE_ROW &&
             !strcmp((const char *)sqlite3_column_text(stmt, 0), "UTF-8");
  if (rc == REPLIC_OK) rc = replic__fail_db(r, sqlite3_reset(stmt));
  sqlite3_finalize(stmt);
  if (rc != REPLIC_OK || utf8) return rc;
  return replic__fail(r, REPLIC_ESCHEMA,
                      "%s is not encoded in UTF-8: copy it with the sqlite3 shell's .dump",
                      r->path);
}

static const char CREATE_TABLES[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE IF NOT EXISTS main._replic_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS main._replic_vector(origin INTEGER PRIMARY KEY, sequence "
    "INTEGER NOT NULL, "
    "patchedAt INTEGER NOT NULL, floor INTEGER NOT NULL DEFAULT 0, cursor INTEGER NOT NULL "
    "DEFAULT 0, missing INTEGER NOT NULL DEFAULT 0, source INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE IF NOT EXISTS main._replic_epochs(origin INTEGER NOT NULL, sequence INTEGER "
    "NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY(origin, sequence)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS main._replic_staged(id INTEGER PRIMARY KEY, source INTEGER NOT "
    "NULL, origin INTEGER NOT NULL, upTo INTEGER NOT NULL, age INTEGER NOT NULL, definitions "
    "BLOB NOT NULL, patches BLOB NOT NULL);"
    "CREATE INDEX IF NOT EXISTS main._replic_staged_by ON _replic_staged(source, origin, upTo, "
    "age);"
    "CREATE INDEX IF NOT EXISTS main._replic_staged_age ON _replic_staged(source, age);"
    "CREATE TABLE IF NOT EXISTS main._replic_sources(source INTEGER PRIMARY KEY, progressAt "
    "INTEGER "
    "NOT NULL);"
    "CREATE TABLE IF NOT EXISTS main._replic_jump(origin INTEGER PRIMARY KEY, source INTEGER NOT "
    "NULL, sequence INTEGER NOT NULL, patchedAt INTEGER NOT NULL, floor INTEGER NOT NULL, inserted "
    "INTEGER NOT NULL, last INTEGER NOT NULL, lastAt INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS main._replic_forks(origin INTEGER PRIMARY KEY, common INTEGER "
    "NOT NULL, patchedAt INTEGER NOT NULL, parted INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS main._replic_dropped" DROPPED
    "CREATE TABLE IF NOT EXISTS main._replic_told(origin INTEGER PRIMARY KEY, merged INTEGER NOT "
    "NULL, mergedAt INTEGER NOT NULL, upTo INTEGER NOT NULL, source INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS main._replic_jumped(origin INTEGER NOT NULL, source INTEGER NOT "
    "NULL, sequence INTEGER NOT NULL, patchedAt INTEGER NOT NULL, again INTEGER NOT NULL DEFAULT "
    "0, upTo INTEGER NOT NULL DEFAULT 0, upToAt INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(origin, "
    "source)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS main._replic_lost(origin INTEGER PRIMARY KEY, after INTEGER NOT "
    "NULL);"
    "CREATE TABLE IF NOT EXISTS main._replic_migrations(version INTEGER PRIMARY KEY, up TEXT "
    "NOT NULL, down TEXT NOT NULL, name TEXT NOT NULL DEFAULT '', hash TEXT NOT NULL DEFAULT "
    "'', rename TEXT NOT NULL DEFAULT '', appliedAt INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE IF NOT EXISTS main._replic_renames(version INTEGER NOT NULL, tableName TEXT "
    "NOT NULL COLLATE NOCASE, oldColumn TEXT NOT NULL COLLATE NOCASE, newColumn TEXT NOT NULL "
    "COLLATE NOCASE, PRIMARY KEY(version, tableName, oldColumn)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS main._replic_definitions" DEFINITIONS DEFINITIONS_BY
    "CREATE TABLE IF NOT EXISTS main._replic_pending" PENDING PENDING_BY
    "CREATE TABLE IF NOT EXISTS main._replic_past(definition INTEGER PRIMARY KEY);"
    "CREATE TABLE IF NOT EXISTS main._replic_stuck(tableName TEXT NOT NULL COLLATE NOCASE, id TEXT "
    "NOT NULL, key TEXT NOT NULL, code INTEGER NOT NULL, why TEXT NOT NULL, PRIMARY KEY(tableName, "
    "id)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS main._replic_settled(tableName TEXT PRIMARY KEY COLLATE NOCASE, "
    "ddl "
    "TEXT NOT NULL) WITHOUT ROWID;"
    "INSERT OR IGNORE INTO main._replic_meta(key, value) VALUES('layout', 4)";

static int set_cache(replic *r) {
  char *sql = sqlite3_mprintf("PRAGMA main.cache_size = -%d", r->config.cache_kib);
  int rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

static int set_up(replic *r) {
  int rc = check_encoding(r);
  if (rc == REPLIC_OK) rc = set_cache(r);
  if (rc == REPLIC_OK)
    rc = replic__exec(
        r, "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY");
  if (rc == REPLIC_OK) rc = replic__limit_wal(r);
  if (rc == REPLIC_OK)
    rc = replic__exec(r, r->config.normal_durability ? "PRAGMA synchronous = NORMAL"
                                                     : "PRAGMA synchronous = FULL");
  if (rc == REPLIC_OK) rc = replic__exec(r, CREATE_TABLES);
  if (rc == REPLIC_OK) rc = replic__claims_share(r);
  if (rc == REPLIC_OK) rc = upgrade_layout(r);
  if (rc == REPLIC_OK) rc = replic__internal_count(r, &r->n_internal);
  if (rc == REPLIC_OK) rc = replic__vector_load(r);
  if (rc == REPLIC_OK) rc = replic__epochs_load(r);
  if (rc == REPLIC_OK) rc = replic__identity_settle(r);
  if (rc == REPLIC_OK) rc = replic__reload_schema(r);
  if (rc == REPLIC_OK) rc = replic__pending_load(r);
  if (rc == REPLIC_OK) rc = replic__stuck_settle(r);
  if (rc == REPLIC_OK) rc = replic__jump_load(r);
  if (rc == REPLIC_OK) rc = replic__recheck_load(r);
  if (rc == REPLIC_OK && r->yields) rc = replic__jump_finish(r);
  if (rc == REPLIC_OK && r->yields) rc = replic__fork_heal(r);
  if (rc == REPLIC_OK) rc = replic__fork_load(r);
  /* first: a crash in between must not make this file look copied */
  if (rc == REPLIC_OK) rc = replic__identity_witness(r);
  if (rc == REPLIC_OK) rc = replic__exec(r, "COMMIT");
  if (rc == REPLIC_OK) replic__vector_settle(r);
  if (rc == REPLIC_OK) replic__stuck_note(r, 1);
  if (rc == REPLIC_OK) rc = replic__identity_witness(r); /* what heal.c has issued */
  r->clock_committed = r->clock;
  if (rc == REPLIC_OK && r->config.calls_checkpoint) replic__checkpoint_by_caller(r);
  /* what a killed process had written to the WAL and not synced counts as committed now (I4) */
  return rc == REPLIC_OK ? replic__exec(r, "PRAGMA wal_checkpoint") : rc;
}

/* What of the system's lies behind a code of SQLite's. */
static void explain(replic *r, int rc) {
  static const int OF_SYSTEM[] = {SQLITE_CANTOPEN, SQLITE_READONLY, SQLITE_IOERR, SQLITE_PERM,
                                  SQLITE_AUTH};
  char *why = NULL;
  for (size_t i = 0; !why && i < sizeof OF_SYSTEM / sizeof *OF_SYSTEM; i++)
    if (rc > 0 && (rc & 0xff) == OF_SYSTEM[i]) why = replic__trouble(r->path);
  if (why) replic__fail(r, rc, "%s", why);
  sqlite3_free(why);
}

int replic_open(const replic_config *config, int64_t now_ms, replic **out) {
  int rc = sqlite3_initialize();
  replic *r = *out = rc == SQLITE_OK ? sqlite3_malloc64(sizeof *r) : NULL;
  if (!r) return SQLITE_NOMEM;
  memset(r, 0, sizeof *r);
  r->now_ms = now_ms;
  rc = take_defaults(r, config);
  if (rc == REPLIC_OK) rc = replic__sync_open(r);
  if (rc == REPLIC_OK) rc = open_database(r);
  if (rc == REPLIC_OK)
    rc = replic__fail_db(r, sqlite3_set_authorizer(r->db, replic__guard, &r->auth));
  if (rc == REPLIC_OK) rc = set_up(r);
  if ((rc & 0xff) == SQLITE_BUSY) rc = replic__fail_busy(r);
  explain(r, rc);
  if (rc > 0 && rc != REPLIC_OK && !strstr(replic_error_text(r), r->path ? r->path : ""))
    rc = replic__fail(r, rc, "%s: %s", r->path, replic_error_text(r));
  if (rc != REPLIC_OK) return rc;
  /* within an origin clocks grow with the sequence, so its last patch is its newest */
  for (size_t i = 0; i < r->n_vector; i++) replic__is_newest(r, &r->vector[i].now);
  r->swapped = 0;
  return REPLIC_OK;
}

void replic_close(replic *r) {
  if (!r) return;
  if (r->in_batch) replic_rollback(r);
  replic__identity_leave(r);
  replic__claims_settle(r);
  replic__sync_close(r);
  replic__schema_free(r->schema);
  replic__pending_close(r);
  replic__stuck_close(r);
  sqlite3_stmt *kept[] = {r->vector_sql,  r->epoch_sql,       r->epochs_sql,
                          r->begin_sql,   r->commit_sql,      r->savepoint_sql,
                          r->release_sql, r->rollback_to_sql, r->rollback_sql};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) sqlite3_finalize(kept[i]);
  replic__claims_release(r);
  sqlite3_close(r->db); /* before the lock is released: the next opener finds a quiet file */
  replic__claims_close(r);
  replic__lock_close(r);
  replic_outbox_free(&r->outbox);
  sqlite3_free(r->auth.what);
  sqlite3_free(r->gone);
  sqlite3_free(r->vector);
  sqlite3_free(r->values);
  sqlite3_free(r->shares);
  sqlite3_free(r->positions);
  sqlite3_free(r->error);
  sqlite3_free(r->path);
  sqlite3_free(r);
}

uint32_t replic_peer_id(const replic *r) {
  return r->peer_id;
}

int replic_is_new_peer(const replic *r) {
  return r->is_new_peer;
}

void replic_get_counters(const replic *r, replic_counters *out) {
  *out = r->counters;
}

static int ask_to_stop(void *ctx) {
  replic *r = ctx;
  return r->stop(r->stop_ctx, r->auth.mode != AUTH_ENGINE && r->auth.mode != AUTH_TRIGGERS);
}

void replic_on_steps(replic *r, int (*stop)(void *ctx, int is_sql), void *ctx) {
  r->stop = stop;
  r->stop_ctx = ctx;
  sqlite3_progress_handler(r->db, REPLIC_STOP_STEPS, ask_to_stop, r);
}

void replic_interrupt(replic *r) {
  if (r->db) sqlite3_interrupt(r->db);
}

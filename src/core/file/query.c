/* query.c - read-only connections.
 *
 * What a statement may do is decided by SQLite, not by its text: the file is opened read-only, a
 * statement that SQLite does not call read-only is refused, and an authorizer refuses what would
 * outlive the statement on a connection that many queries share (transactions, attached files,
 * settings). */
#include <string.h>

#include "file/file.h"

enum { BUSY_TIMEOUT_MS = 5000, BUSY_SLEEP_MS = 5 };

static const char *const READING_PRAGMAS[] = {
    /* those that take an argument and change nothing */
    "foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo",
    "integrity_check",   "quick_check",      "table_info", "table_list", "table_xinfo",
};

/* ---- errors ---- */

static int fail_prepare(replic_reader *reader, int code) {
  return reader->denied ? reader->denied
                        : replic__reader_fail_db(reader, code); /* a refusal has set its text */
}

/* ---- what a statement may do ---- */

static int deny(replic_reader *reader, int code, const char *format, const char *what) {
  reader->denied = replic__reader_fail(reader, code, format, what);
  return SQLITE_DENY;
}

static int authorize_pragma(replic_reader *reader, const char *name, const char *argument) {
  if (!argument) return SQLITE_OK;
  for (size_t i = 0; i < sizeof READING_PRAGMAS / sizeof *READING_PRAGMAS; i++)
    if (sqlite3_stricmp(name, READING_PRAGMAS[i]) == 0) return SQLITE_OK;
  return deny(reader, REPLIC_EUSAGE,
              "PRAGMA %s: queries share their connections, so none may change a setting", name);
}

static int authorize(void *ctx, int action, const char *a, const char *b, const char *db,
                     const char *trigger) {
  replic_reader *reader = ctx;
  (void)db, (void)trigger;
  if (reader->trusted) return SQLITE_OK;
  switch (action) {
  case SQLITE_TRANSACTION:
  case SQLITE_SAVEPOINT:
    return deny(reader, REPLIC_ETRANSACTION,
                "%s: the engine owns transactions; one SELECT reads one state", a);
  case SQLITE_ATTACH:
  case SQLITE_DETACH:
    return deny(reader, REPLIC_ETRANSACTION,
                "%s: a replica is one file; open the other one by itself",
                action == SQLITE_ATTACH ? "ATTACH" : "DETACH");
  case SQLITE_PRAGMA: return authorize_pragma(reader, a, b);
  default: return SQLITE_OK;
  }
}

/* ---- statements ---- */

static int prepare_one(replic_reader *reader, const char *sql, size_t len, sqlite3_stmt **out) {
  const char *at = sql, *end = sql + len;
  *out = NULL;
  if (len > INT32_MAX)
    return replic__reader_fail(reader, REPLIC_ETOOLARGE, "the SQL text is longer than 2 GiB");
  if (len && memchr(sql, 0, len))
    return replic__reader_fail(reader, REPLIC_EUSAGE, "the SQL text holds a NUL");
  while (at < end) {
    sqlite3_stmt *stmt;
    int rc =
        sqlite3_prepare_v3(reader->db, at, (int)(end - at), SQLITE_PREPARE_PERSISTENT, &stmt, &at);
    if (rc == SQLITE_OK && stmt && *out)
      rc = replic__reader_fail(reader, REPLIC_EUSAGE,
                               "a query is one statement; the SQL text holds several");
    else if (rc == SQLITE_OK && stmt && !sqlite3_stmt_readonly(stmt) &&
             !sqlite3_stmt_isexplain(stmt))
      rc = replic__reader_fail(
          reader, SQLITE_READONLY,
          "this statement writes, and queries only read: use db.upsert or db.delete for replicated "
          "tables, db.run for others");
    else if (rc != SQLITE_OK)
      rc = fail_prepare(reader, rc);
    if (rc != SQLITE_OK) {
      sqlite3_finalize(stmt);
      sqlite3_finalize(*out);
      *out = NULL;
      return rc;
    }
    if (stmt) *out = stmt;
  }
  return *out ? REPLIC_OK
              : replic__reader_fail(reader, REPLIC_EUSAGE, "the SQL text holds no statement");
}

static void drop_cached(replic__cached *entry) {
  sqlite3_finalize(entry->stmt);
  sqlite3_free(entry->names);
  sqlite3_free(entry->sql);
  memset(entry, 0, sizeof *entry);
}

/* The statement for `sql`: a kept one, or a new one in place of that which was not used for
 * longest. */
static int find_statement(replic_reader *reader, const char *sql, size_t len,
                          replic__cached **out) {
  replic__cached *oldest = reader->cache;
  reader->tick++;
  for (replic__cached *entry = reader->cache; entry < reader->cache + REPLIC__CACHE_SIZE; entry++) {
    if (entry->stmt && entry->len == len && memcmp(entry->sql, sql, len) == 0) {
      entry->used = reader->tick;
      *out = entry;
      return REPLIC_OK;
    }
    if (entry->used < oldest->used) oldest = entry;
  }
  sqlite3_stmt *stmt;
  int rc = prepare_one(reader, sql, len, &stmt);
  if (rc != REPLIC_OK) return rc;
  char *copy = sqlite3_malloc64(len);
  if (!copy) {
    sqlite3_finalize(stmt);
    return replic__reader_fail_db(reader, SQLITE_NOMEM);
  }
  memcpy(copy, sql, len);
  drop_cached(oldest);
  *oldest = (replic__cached){.sql = copy, .len = len, .stmt = stmt, .used = reader->tick};
  *out = oldest;
  return REPLIC_OK;
}

/* ---- parameters ---- */

static int bind_all(replic_reader *reader, replic__cached *entry, const replic_param *params,
                    size_t n_params) {
  char *why;
  int rc =
      replic__bind_params(entry->stmt, params, n_params, SQLITE_TRANSIENT, &entry->names, &why);
  if (rc == REPLIC_OK) return REPLIC_OK;
  if (!why) return replic__reader_fail_db(reader, rc == REPLIC_EUSAGE ? SQLITE_NOMEM : rc);
  replic__reader_fail(reader, rc, "%s", why);
  sqlite3_free(why);
  return rc;
}

int replic_reader_start(replic_reader *reader, const char *sql, size_t len,
                        const replic_param *params, size_t n_params) {
  replic_reader_reset(reader);
  reader->denied = 0;
  if (reader->sums) reader->sums->done = 1; /* sums of another statement */
  replic__cached *entry = NULL;
  int rc = find_statement(reader, sql, len, &entry);
  if (rc != REPLIC_OK) return rc;
  reader->current = entry->stmt;
  rc = bind_all(reader, entry, params, n_params);
  if (rc != REPLIC_OK) replic_reader_reset(reader);
  return rc;
}

/* ---- rows ---- */

int replic_reader_rows(replic_reader *reader, size_t max_rows, size_t max_bytes,
                       replic_rows *rows) {
  size_t first_row = rows->n_rows, first_byte = rows->len;
  if (!reader->current)
    return replic__reader_fail(reader, REPLIC_EUSAGE, "no statement is started");
  while (rows->n_rows - first_row < max_rows && rows->len - first_byte < max_bytes) {
    int rc = sqlite3_step(reader->current);
    /* Only now: the first step prepares anew where the schema has changed. */
    rows->n_columns = (size_t)sqlite3_column_count(reader->current);
    if (rc == SQLITE_DONE) {
      rows->done = 1;
      return REPLIC_OK;
    }
    if (rc != SQLITE_ROW)
      rc = fail_prepare(reader, rc);
    else if (replic__rows_add(rows, reader->current) != REPLIC_OK)
      rc = replic__reader_fail_db(reader, SQLITE_NOMEM);
    if (rc != SQLITE_ROW) {
      replic_reader_reset(reader);
      return rc;
    }
  }
  return REPLIC_OK;
}

static unsigned data_version(replic_reader *reader) {
  unsigned version = 0;
  sqlite3_file_control(reader->db, "main", SQLITE_FCNTL_DATA_VERSION, &version);
  return version;
}

int replic_reader_vector(replic_reader *reader, replic_rows *rows) {
  if (data_version(reader) == reader->data_version) return REPLIC_OK;
  const char *sql = "SELECT origin, sequence, patchedAt FROM main._replic_vector";
  int rc = SQLITE_OK;
  if (!reader->vector)
    rc = sqlite3_prepare_v3(reader->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &reader->vector, NULL);
  rows->n_columns = 3;
  while (rc == SQLITE_OK && (rc = sqlite3_step(reader->vector)) == SQLITE_ROW) {
    rc = replic__rows_add(rows, reader->vector);
  }
  if (rc != SQLITE_DONE) rc = replic__reader_fail_db(reader, rc);
  sqlite3_reset(reader->vector);
  if (rc != SQLITE_DONE) return rc;
  reader->data_version = data_version(reader);
  return REPLIC_OK;
}

const char *replic_reader_column_name(const replic_reader *reader, size_t index) {
  return sqlite3_column_name(reader->current, (int)index);
}

/* ---- open and close ---- */

/* Somebody has the file for himself (a recovery, the last close). What must stop does not wait. */
static int wait_for_lock(void *ctx, int times) {
  replic_reader *reader = ctx;
  reader->gave_up =
      sqlite3_is_interrupted(reader->db) || (reader->stop && reader->stop(reader->stop_ctx));
  if (reader->gave_up || times >= BUSY_TIMEOUT_MS / BUSY_SLEEP_MS) return 0;
  sqlite3_sleep(BUSY_SLEEP_MS);
  return 1;
}

int replic__reader_connect(replic_reader *reader, const char *name, int flags, const char *vfs) {
  sqlite3_close(reader->db);
  flags |= SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  replic__claim_ready();
  int rc = sqlite3_open_v2(name, &reader->db, flags, vfs);
  if (rc == SQLITE_OK) rc = sqlite3_busy_handler(reader->db, wait_for_lock, reader);
  if (rc == SQLITE_OK) rc = sqlite3_exec(reader->db, "PRAGMA query_only = 1", NULL, NULL, NULL);
  if (rc == SQLITE_OK) rc = replic__digest_open(reader);
  if (rc == SQLITE_OK) rc = sqlite3_set_authorizer(reader->db, authorize, reader);
  return rc == SQLITE_OK ? REPLIC_OK : replic__reader_fail_db(reader, rc);
}

int replic_reader_open(const char *path, replic_reader **out) {
  replic_reader *reader = *out = sqlite3_malloc64(sizeof *reader);
  if (!reader) return SQLITE_NOMEM;
  memset(reader, 0, sizeof *reader);
  return replic__reader_connect(reader, path, 0, NULL);
}

int replic_reader_cache(replic_reader *reader, int kib) {
  char *sql = sqlite3_mprintf("PRAGMA main.cache_size = -%d", kib);
  reader->trusted = 1;
  int rc = sql ? sqlite3_exec(reader->db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
  reader->trusted = 0;
  sqlite3_free(sql);
  return rc == SQLITE_OK ? REPLIC_OK : replic__reader_fail_db(reader, rc);
}

int replic_reader_check(replic_reader *reader, uint64_t file_id) {
  const char *path = sqlite3_db_filename(reader->db, "main");
  if (replic_file_is(path, file_id)) return REPLIC_OK;
  return replic__reader_fail(reader, REPLIC_EGONE,
                             "%s has been removed, renamed or replaced: reading goes on only over "
                             "the connections that have it open. Close the Replica, see to its "
                             "files, and open it again",
                             path);
}

void replic_reader_close(replic_reader *reader) {
  if (!reader) return;
  replic__backup_drop(reader);
  for (int i = 0; i < REPLIC__CACHE_SIZE; i++) drop_cached(&reader->cache[i]);
  sqlite3_finalize(reader->vector);
  sqlite3_finalize(reader->begin);
  sqlite3_finalize(reader->commit);
  sqlite3_close(reader->db);
  sqlite3_free(reader->sums);
  sqlite3_free(reader->error);
  sqlite3_free(reader);
}

int replic_reader_hold(replic_reader *reader) {
  reader->trusted = 1;
  int rc = sqlite3_exec(reader->db, "BEGIN; SELECT 1 FROM main.sqlite_schema", NULL, NULL, NULL);
  reader->trusted = 0;
  return rc == SQLITE_OK ? REPLIC_OK : replic__reader_fail_db(reader, rc);
}

static void run_own(replic_reader *reader, const char *sql, sqlite3_stmt **slot) {
  reader->trusted = 1;
  if (!*slot) sqlite3_prepare_v3(reader->db, sql, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
  if (*slot) sqlite3_step(*slot);
  sqlite3_reset(*slot); /* NULL is allowed */
  reader->trusted = 0;
}

void replic_reader_begin(replic_reader *reader) {
  if (sqlite3_get_autocommit(reader->db)) run_own(reader, "BEGIN", &reader->begin);
}

void replic_reader_end(replic_reader *reader) {
  if (!sqlite3_get_autocommit(reader->db)) run_own(reader, "COMMIT", &reader->commit);
}

void replic_reader_on_steps(replic_reader *reader, int (*stop)(void *ctx), void *ctx) {
  reader->stop = stop;
  reader->stop_ctx = ctx;
  if (reader->db) sqlite3_progress_handler(reader->db, REPLIC_STOP_STEPS, stop, ctx);
}

void replic_reader_interrupt(replic_reader *reader) {
  if (reader->db) sqlite3_interrupt(reader->db);
}

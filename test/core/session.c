/* session.c - see session.h. One replica serves all sessions: a session that commits nothing is
 * rolled back, one that does is followed by a fresh copy of the files. */
#define _XOPEN_SOURCE 700
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "links/wire.h"

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, "
static const char DDL[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, r REAL, b BLOB, n INTEGER);"
    "CREATE TABLE t_patches(" CLOCK "_nulls TEXT, id INTEGER, v TEXT, r REAL, b BLOB, n INTEGER);"
    "CREATE TABLE s(k TEXT NOT NULL, j BLOB NOT NULL, must INTEGER NOT NULL, PRIMARY KEY(k, j)) "
    "STRICT, WITHOUT ROWID;"
    "CREATE TABLE s_patches(" CLOCK "k TEXT NOT NULL, j BLOB NOT NULL, must INTEGER) STRICT;";
static const char MORE[] =
    "CREATE TABLE u(id PRIMARY KEY NOT NULL, w); CREATE TABLE u_patches(" CLOCK
    "_nulls TEXT, id, w);";

static const char *const SUFFIXES[] = {"", "-wal", "-shm", "-replic"};
#define BASE_TIME 1000000
#define MEMORY_MAX (128 << 20)

static struct {
  char folder[256];
  char path[300];
  uint8_t *kept[4]; /* the files as they are at the beginning */
  size_t kept_len[4];
  replic *r;
  int64_t now_ms;
  uint32_t link;
  bool committed;
  int64_t sessions;
} at;

static void demand(bool ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "%s: %s\n", what, at.r ? replic_error_text(at.r) : "");
  abort();
}

static void path_of(char *path, size_t len, size_t i) {
  snprintf(path, len, "%s%s", at.path, SUFFIXES[i]);
}

static void open_replica(void) {
  const replic_config config = {.path = at.path,
                                .new_peer_id = 101,
                                .normal_durability = 1,
                                .max_frame_bytes = 4096,
                                .slice_bytes = 64,
                                .window_bytes = 512,
                                .early_bytes = 512,
                                .ring_bytes = 512};
  demand(replic_open(&config, at.now_ms, &at.r) == REPLIC_OK, "open");
}

static void take_outbox(void) {
  replic_outbox box;
  replic_take_outbox(at.r, &box);
  replic_outbox_free(&box);
}

static void write_row(void) {
  static const char *const COLUMNS[] = {"id", "n"};
  const replic_value values[] = {{REPLIC_INT, 1, 0, NULL, 0}, {REPLIC_INT, at.now_ms, 0, NULL, 0}};
  const replic_change change = {REPLIC_UPSERT, "t", 2, COLUMNS, 1, values};
  int64_t sequence;
  replic_write(at.r, &change, 1,
               &sequence); /* may fail: a received patch can have used up the clock */
}

static void keep_files(void) {
  for (size_t i = 0; i < 4; i++) {
    char path[320];
    path_of(path, sizeof path, i);
    FILE *file = fopen(path, "rb");
    if (!file) continue;
    at.kept[i] = malloc(1 << 20);
    demand(at.kept[i] != NULL, "memory");
    at.kept_len[i] = fread(at.kept[i], 1, 1 << 20, file);
    fclose(file);
  }
}

static void restore_files(void) {
  for (size_t i = 0; i < 4; i++) {
    char path[320];
    path_of(path, sizeof path, i);
    unlink(path);
    if (!at.kept[i]) continue;
    FILE *file = fopen(path, "wb");
    demand(file && fwrite(at.kept[i], 1, at.kept_len[i], file) == at.kept_len[i] &&
               fclose(file) == 0,
           "restore");
  }
}

static void first_session(void) {
  snprintf(at.folder, sizeof at.folder, "%s/replic-session-XXXXXX", temporary_base());
  demand(mkdtemp(at.folder) != NULL, at.folder);
  snprintf(at.path, sizeof at.path, "%s/a.db", at.folder);
  at.now_ms = BASE_TIME;
  open_replica();
  demand(replic_migrate(at.r, at.now_ms, 1, DDL, "") == REPLIC_OK, "migrate");
  demand(replic_begin(at.r, at.now_ms) == REPLIC_OK, "begin");
  write_row();
  demand(replic_commit(at.r) == REPLIC_OK, "commit");
  replic_close(at.r);
  keep_files();
  open_replica();
  atexit(session_end);
}

static void begin(void) {
  demand(replic_begin(at.r, at.now_ms) == REPLIC_OK, "begin");
}

static void commit(void) {
  replic_commit(at.r); /* may fail as any commit may; then memory is what the disk is */
  take_outbox();
  at.committed = true;
}

static void compact(void) {
  replic_compaction done;
  demand(replic_compact(at.r, at.now_ms, 1000, &done) == REPLIC_OK, "compact");
}

static void operate(unsigned what) {
  switch (what) {
  case SESSION_COMMIT:
    commit();
    begin();
    break;
  case SESSION_TICK:
    commit();
    at.now_ms += 1000;
    begin();
    demand(replic_tick(at.r) == REPLIC_OK, "tick");
    break;
  case SESSION_WRITE: write_row(); break;
  case SESSION_REOPEN:
    replic_link_close(at.r, at.link);
    demand(replic_link_open(at.r, ++at.link, 0, 0) == REPLIC_OK, "link");
    break;
  case SESSION_MIGRATE:
    commit();
    replic_migrate(at.r, at.now_ms, 2, MORE, "");
    take_outbox();
    begin();
    break;
  case SESSION_COMPACT: compact(); break;
  case SESSION_MESSAGE:
    replic_link_message(at.r, at.link, "a message", 9); /* fails where the link is not ready */
    break;
  default: break;
  }
}

static int64_t number(sqlite3 *db, const char *sql) {
  sqlite3_stmt *stmt = NULL;
  demand(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
             sqlite3_step(stmt) == SQLITE_ROW,
         sql);
  int64_t value = sqlite3_column_int64(stmt, 0);
  sqlite3_finalize(stmt);
  return value;
}

/* The file, as another program sees it: whole; every origin's log up to the vector and not beyond,
 * without what was pruned (I1). Only of its own patches a peer knows which these are: of the others
 * it believes whoever sends them. */
static void check_file(void) {
  static const char HOLES[] =
      "WITH log AS (SELECT _peerId AS o, _sequenceId AS s FROM t_patches UNION SELECT _peerId, "
      "_sequenceId FROM s_patches UNION SELECT origin, sequence FROM _replic_pending) SELECT "
      "(SELECT count(*) FROM _replic_vector v WHERE sequence - "
      "missing <> (SELECT count(*) FROM log WHERE o = origin AND s BETWEEN 1 AND sequence) OR "
      "(origin = 101 AND sequence - floor <> (SELECT count(*) FROM log WHERE o = 101 AND s > "
      "floor))) + (SELECT count(*) FROM log WHERE s > coalesce((SELECT sequence FROM "
      "_replic_vector WHERE origin = o), 0))";
  sqlite3 *db;
  demand(sqlite3_open_v2(at.path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK, "open to look");
  if (number(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'u'") == 0)
    demand(number(db, HOLES) == 0, "holes in the log");
  demand(number(db, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'") ==
             0,
         "integrity");
  sqlite3_close(db);
}

void session_run(const uint8_t *data, size_t len) {
  if (!at.r) first_session();
  at.now_ms = BASE_TIME;
  at.committed = false;
  begin();
  demand(replic_link_open(at.r, ++at.link, 0, 0) == REPLIC_OK, "link");
  while (len >= 2) {
    unsigned n = data[0] + 256u * data[1];
    data += 2;
    len -= 2;
    if (n >= SESSION_COMMIT) {
      operate(n);
      continue;
    }
    if (n > len) n = (unsigned)len;
    uint8_t *frame = malloc(n + 4); /* of its own size: a read beyond it is seen */
    demand(frame != NULL, "memory");
    if (n) memcpy(frame, data, n);
    uint32_t sum = replic__crc32c(frame, n); /* else nothing would come as far as the decoders */
    for (int i = 0; i < 4; i++) frame[n + (size_t)i] = (uint8_t)(sum >> 8 * i);
    demand(replic_receive(at.r, at.link, frame, n + 4) == REPLIC_OK, "receive");
    free(frame);
    data += n;
    len -= n;
  }
  demand(sqlite3_memory_used() < MEMORY_MAX, "too much memory");
  replic_rollback(at.r);
  replic_link_close(at.r, at.link);
  take_outbox();
  if (!at.committed && ++at.sessions % 5000 != 0) return;
  if (at.committed) check_file();
  replic_close(at.r);
  restore_files();
  open_replica();
}

void session_end(void) {
  if (!at.r) return;
  replic_close(at.r);
  at.r = NULL;
  for (size_t i = 0; i < 4; i++) {
    char path[320];
    path_of(path, sizeof path, i);
    unlink(path);
    free(at.kept[i]);
    at.kept[i] = NULL;
  }
  rmdir(at.folder);
}

/* floor.c - what SQLite itself needs for the b-tree writes that replication asks of it: the floor
 * under every figure of ours. It is linked with the very SQLite of the addon (bench/floor.js).
 *
 *   floor write LAYOUT ORDER SYNC ROWS PER_TX FILE       rows a second
 *   floor apply LAYOUT ORDER SYNC ROWS PER_TX FILE       the same, with the look for newer patches
 *   floor update LAYOUT ORDER SYNC ROWS PER_TX FILE      rows a second, all of them of 10,000 keys
 *   floor grow LAYOUT ORDER SYNC ROWS PER_TX FILE        apply: lines "up to how many rows, rows a
 *                                                        second from the last one to there"
 *   floor copy LAYOUT ORDER SYNC ROWS PER_TX FILE        seconds of INSERT ... SELECT into another
 *   floor get LAYOUT ORDER SYNC ROWS READS FILE          rows a second, by key
 *
 * LAYOUT  plain   the table alone
 *         log     with a row in T_patches, which has no index
 *         seed    with both indexes that the engine makes where the DDL names none
 *         key     T_patches PRIMARY KEY(_peerId, _sequenceId) WITHOUT ROWID, and an index on
 *                 (id, _patchedAt), which ends in the primary key by itself
 *         turned  T_patches PRIMARY KEY(id, _patchedAt, _peerId, _sequenceId) WITHOUT ROWID, and a
 *                 UNIQUE index on (_peerId, _sequenceId)
 * ORDER   up | random: of the keys;  SYNC  NORMAL | FULL
 *
 * The rows are those of bench/data.js. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HOT_KEYS = 10000 };

static const char TABLE[] =
    "CREATE TABLE item(id INTEGER NOT NULL PRIMARY KEY, tenantId INTEGER, name TEXT, mail TEXT,"
    " body TEXT, updatedAt INTEGER) STRICT;"
    "CREATE TABLE vector(origin INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, patchedAt INTEGER"
    " NOT NULL);";
#define LOG                                                                                        \
  "CREATE TABLE item_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId"   \
  " INTEGER NOT NULL, _nulls TEXT, id INTEGER NOT NULL, tenantId INTEGER, name TEXT, mail TEXT,"   \
  " body TEXT, updatedAt INTEGER"

static const struct {
  const char *name, *ddl;
} LAYOUTS[] = {
    {"plain", ""},
    {"log", LOG ") STRICT"},
    {"seed", LOG ") STRICT; CREATE UNIQUE INDEX o ON item_patches(_peerId, _sequenceId);"
                 "CREATE INDEX k ON item_patches(id, _patchedAt, _peerId, _sequenceId)"},
    {"key", LOG ", PRIMARY KEY(_peerId, _sequenceId)) STRICT, WITHOUT ROWID;"
                "CREATE INDEX k ON item_patches(id, _patchedAt)"},
    {"turned", LOG ", PRIMARY KEY(id, _patchedAt, _peerId, _sequenceId)) STRICT, WITHOUT ROWID;"
                   "CREATE UNIQUE INDEX o ON item_patches(_peerId, _sequenceId)"},
};

static const char PUT[] =
    "INSERT INTO item(id, tenantId, name, mail, body, updatedAt) VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
    " ON CONFLICT(id) DO UPDATE SET tenantId = ?2, name = ?3, mail = ?4, body = ?5, updatedAt = ?6";
static const char APPEND[] = "INSERT INTO item_patches(id, tenantId, name, mail, body, updatedAt,"
                             " _patchedAt, _peerId, _sequenceId, _nulls)"
                             " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL)";
static const char NEWER[] =
    "SELECT id, tenantId, name, mail, body, updatedAt FROM item_patches WHERE id = ?1 AND"
    " (_patchedAt, _peerId, _sequenceId) > (?7, ?8, ?9)";
static const char ADVANCE[] =
    "INSERT INTO vector VALUES(?1, ?2, ?3) ON CONFLICT(origin) DO UPDATE SET sequence = ?2,"
    " patchedAt = ?3";

typedef struct floor_run {
  sqlite3 *db;
  sqlite3_stmt *begin, *commit, *put, *append, *newer, *advance;
  int random;
  sqlite3_int64 per_tx, keys, done;
} floor_run;

static void fail(sqlite3 *db, const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, db ? sqlite3_errmsg(db) : "unknown");
  exit(1);
}

static void check(sqlite3 *db, int rc, const char *what) {
  if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW) fail(db, what);
}

static void exec(sqlite3 *db, const char *sql) {
  check(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql) {
  sqlite3_stmt *stmt;
  check(db, sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL), sql);
  return stmt;
}

static void run(sqlite3_stmt *stmt) {
  int rc;
  while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) continue;
  check(sqlite3_db_handle(stmt), rc, sqlite3_sql(stmt));
  sqlite3_reset(stmt);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A permutation of 0 ... 2^32 - 1 is enough to spread keys. */
static sqlite3_int64 spread(sqlite3_int64 i) {
  unsigned h = (unsigned)i * 2654435769U;
  return (sqlite3_int64)(h ^ h >> 15) + 1;
}

static int has_log(const char *layout) {
  return strcmp(layout, "plain") != 0;
}

static void open_file(floor_run *f, const char *file, const char *layout, const char *sync) {
  char *pragma = sqlite3_mprintf(
      "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 4000; PRAGMA synchronous = %s", sync);
  check(NULL, sqlite3_open(file, &f->db), file);
  exec(f->db, pragma);
  sqlite3_free(pragma);
  exec(f->db, TABLE);
  for (size_t i = 0; i < sizeof LAYOUTS / sizeof *LAYOUTS; i++)
    if (!strcmp(LAYOUTS[i].name, layout)) exec(f->db, LAYOUTS[i].ddl);
  f->begin = prepare(f->db, "BEGIN IMMEDIATE");
  f->commit = prepare(f->db, "COMMIT");
  f->put = prepare(f->db, PUT);
  if (!has_log(layout)) return;
  f->append = prepare(f->db, APPEND);
  f->newer = prepare(f->db, NEWER);
  f->advance = prepare(f->db, ADVANCE);
}

/* "<before><number><after>" into `to`; its length. No printf: it would cost as much as the row. */
static int make_text(char *to, const char *before, sqlite3_int64 number, const char *after) {
  char digits[24];
  int n = 0;
  size_t len = strlen(before), end = strlen(after);
  memcpy(to, before, len);
  do digits[n++] = (char)('0' + number % 10);
  while (number /= 10);
  while (n > 0) to[len++] = digits[--n];
  memcpy(to + len, after, end);
  return (int)(len + end);
}

static void bind_row(sqlite3_stmt *stmt, sqlite3_int64 id) {
  static char name[64], mail[64], tenant[64], body[128];
  int len = make_text(tenant, "@tenant-", id % 97, ".example.org");
  tenant[len] = 0;
  sqlite3_bind_int64(stmt, 1, id);
  sqlite3_bind_int64(stmt, 2, id % 97);
  len = make_text(name, "name of item number ", id, "");
  sqlite3_bind_text(stmt, 3, name, len, SQLITE_STATIC);
  len = make_text(mail, "item.", id, tenant);
  sqlite3_bind_text(stmt, 4, mail, len, SQLITE_STATIC);
  len = make_text(
      body, "The quick brown fox jumps over the lazy dog, and the dog looks up, and sleeps on. ",
      id, "");
  sqlite3_bind_text(stmt, 5, body, len, SQLITE_STATIC);
  sqlite3_bind_int64(stmt, 6, 1700000000000 + id);
}

static void bind_clock(sqlite3_stmt *stmt, sqlite3_int64 sequence) {
  sqlite3_bind_int64(stmt, 7, 1700000000000 + sequence / 100);
  sqlite3_bind_int64(stmt, 8, 3000000001);
  sqlite3_bind_int64(stmt, 9, sequence);
}

/* The next `rows`; seconds. */
__attribute__((noinline)) static double write_rows(floor_run *f, sqlite3_int64 rows, int look) {
  double began = now();
  for (sqlite3_int64 end = f->done + rows; f->done < end;) {
    run(f->begin);
    for (sqlite3_int64 last = f->done + f->per_tx; f->done < last && f->done < end; f->done++) {
      sqlite3_int64 i = f->keys ? f->done % f->keys : f->done, id = f->random ? spread(i) : i + 1;
      if (f->append) {
        bind_row(f->append, id);
        bind_clock(f->append, f->done + 1);
        run(f->append);
      }
      if (look && f->newer) {
        sqlite3_bind_int64(f->newer, 1, id);
        bind_clock(f->newer, f->done + 1);
        run(f->newer);
      }
      bind_row(f->put, id);
      run(f->put);
    }
    if (f->advance) {
      sqlite3_bind_int64(f->advance, 1, 3000000001);
      sqlite3_bind_int64(f->advance, 2, f->done);
      sqlite3_bind_int64(f->advance, 3, 1700000000000 + f->done);
      run(f->advance);
    }
    run(f->commit);
  }
  return now() - began;
}

/* Up to 10,000 rows, from there to 100,000, and so on. */
static void grow(floor_run *f, sqlite3_int64 rows) {
  for (sqlite3_int64 size = 10000; f->done < rows; size *= 10) {
    sqlite3_int64 part = (size < rows ? size : rows) - f->done;
    double took = write_rows(f, part, 1);
    printf("%lld %.0f\n", (long long)f->done, (double)part / took);
    fflush(stdout);
  }
}

static double copy(floor_run *f, const char *file, const char *layout, const char *sync) {
  floor_run to = {0};
  char *name = sqlite3_mprintf("%s-copy", file);
  open_file(&to, name, layout, sync);
  exec(f->db, "PRAGMA wal_checkpoint(TRUNCATE)");
  char *attach = sqlite3_mprintf("ATTACH %Q AS source", file);
  exec(to.db, attach);
  double began = now();
  exec(to.db, "BEGIN; INSERT INTO item SELECT * FROM source.item");
  if (to.append) exec(to.db, "INSERT INTO item_patches SELECT * FROM source.item_patches");
  exec(to.db, "COMMIT");
  double took = now() - began;
  sqlite3_free(attach);
  sqlite3_free(name);
  return took;
}

static double get_rows(floor_run *f, sqlite3_int64 rows, sqlite3_int64 reads) {
  sqlite3_stmt *get = prepare(f->db, "SELECT * FROM item WHERE id = ?1");
  sqlite3_int64 found = 0;
  double began = now();
  for (sqlite3_int64 i = 0; i < reads; i++) {
    sqlite3_bind_int64(get, 1, i * 7919 % rows + 1);
    if (sqlite3_step(get) != SQLITE_ROW) fail(f->db, "a row is missing");
    for (int column = 0; column < 6; column++) found += sqlite3_column_bytes(get, column);
    sqlite3_reset(get);
  }
  double took = now() - began;
  sqlite3_finalize(get);
  return found ? took : 0;
}

int main(int argc, char **argv) {
  if (argc != 8) {
    fprintf(stderr, "floor: WORK LAYOUT ORDER SYNC ROWS PER_TX FILE\n");
    return 2;
  }
  const char *work = argv[1], *layout = argv[2], *sync = argv[4], *file = argv[7];
  sqlite3_int64 rows = atoll(argv[5]), per_tx = atoll(argv[6]);
  floor_run f = {.random = !strcmp(argv[3], "random"), .per_tx = per_tx};
  open_file(&f, file, layout, sync);
  if (!strcmp(work, "write")) printf("%.0f\n", (double)rows / write_rows(&f, rows, 0));
  if (!strcmp(work, "apply")) printf("%.0f\n", (double)rows / write_rows(&f, rows, 1));
  if (!strcmp(work, "update")) {
    f.keys = HOT_KEYS;
    write_rows(&f, HOT_KEYS, 0);
    printf("%.0f\n", (double)rows / write_rows(&f, rows, 1));
  }
  if (!strcmp(work, "grow")) grow(&f, rows);
  f.per_tx = 1000;
  if (!strcmp(work, "copy") || !strcmp(work, "get")) write_rows(&f, rows, 0);
  if (!strcmp(work, "copy")) printf("%.3f\n", copy(&f, file, layout, sync));
  if (!strcmp(work, "get")) printf("%.0f\n", (double)per_tx / get_rows(&f, rows, per_tx));
  return 0;
}

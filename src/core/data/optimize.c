/* optimize.c - statistics for SQLite's planner, which it keeps in sqlite_stat1 and sqlite_stat4.
 *
 * Which tables need them is SQLite's to say (PRAGMA optimize): those with indexes of which there
 * are none yet, or that have become ten times as large or small. Here each is a transaction of its
 * own, so that writes go on between two, and those of the log and of the engine are left out: their
 * statements were made for the indexes that they have.
 *
 * Other connections read the statistics with the schema. So its version goes up, and all of them
 * prepare their statements again. */
#include <string.h>

#include "data/data.h"
#include "state.h"

enum {
  ALL_TABLES = 0x10000 | 2 | 1, /* of PRAGMA optimize: also those not read here; only tell */
  FEW_ROWS = 100,               /* fewer are read at once, by whatever plan */
  WHOLE_ROWS = 50000,           /* up to so many, all rows are looked at, and sampled (STAT4) */
  LIMIT_ROWS = 1000             /* else so many of each index */
};

static int is_left_out(const replic *r, const char *analyze) {
  static const char OWN[] = "ANALYZE \"main\".\"_replic_";
  if (sqlite3_strnicmp(analyze, OWN, sizeof OWN - 1) == 0) return 1;
  size_t len = strlen(analyze), suffix = strlen("_patches\"");
  if (len <= suffix || sqlite3_stricmp(analyze + len - suffix, "_patches\"") != 0) return 0;
  for (size_t i = 0; i < replic_table_count(r); i++) {
    char *log = sqlite3_mprintf("ANALYZE \"main\".\"%w\"", r->schema->tables[i]->patches);
    int same = log && sqlite3_stricmp(analyze, log) == 0;
    sqlite3_free(log);
    if (same) return 1;
  }
  return 0;
}

/* Rows of the table, `most` where it has more. */
static int count_rows(replic *r, const char *statement, int most, int64_t *rows) {
  const char *table = statement + strlen("ANALYZE ");
  char *sql = sqlite3_mprintf("SELECT count(*) FROM (SELECT 1 FROM %s LIMIT %d)", table, most);
  int rc = sql ? replic__int(r, sql, rows) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

/* The least of SQLite's statements that is greater than `after`; *next NULL: none. */
static int find_next(replic *r, const char *after, char **next) {
  sqlite3_stmt *stmt = NULL;
  char *sql = sqlite3_mprintf("PRAGMA main.optimize(%d)", ALL_TABLES);
  int rc = sql ? replic__prepare(r, sql, &stmt) : SQLITE_NOMEM;
  sqlite3_free(sql);
  while (rc == REPLIC_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    const char *text = (const char *)sqlite3_column_text(stmt, 0);
    rc = text ? REPLIC_OK : SQLITE_NOMEM;
    if (!text || strncmp(text, "ANALYZE ", 8) != 0 || is_left_out(r, text)) continue;
    if (strcmp(text, after) <= 0 || (*next && strcmp(text, *next) >= 0)) continue;
    int64_t rows;
    rc = count_rows(r, text, FEW_ROWS, &rows);
    if (rc != REPLIC_OK) break;
    if (rows < FEW_ROWS) continue;
    sqlite3_free(*next);
    *next = sqlite3_mprintf("%s", text);
    if (!*next) rc = SQLITE_NOMEM;
  }
  if (rc == SQLITE_DONE) rc = REPLIC_OK;
  rc = replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

static int analyze(replic *r, const char *statement) {
  int64_t rows, version = 0;
  int rc = count_rows(r, statement, WHOLE_ROWS + 1, &rows);
  if (rc == REPLIC_OK) rc = replic__int(r, "PRAGMA main.schema_version", &version);
  if (rc != REPLIC_OK) return rc;
  char *sql = sqlite3_mprintf("PRAGMA analysis_limit = %d; %s; PRAGMA main.schema_version = %d",
                              rows > WHOLE_ROWS ? LIMIT_ROWS : 0, statement,
                              (int)(version % INT32_MAX) + 1);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

int replic_optimize(replic *r, const char *after, char **done) {
  replic__savepoint save;
  *done = NULL;
  int rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = find_next(r, after, done);
  if (rc == REPLIC_OK && *done) rc = analyze(r, *done);
  rc = replic__savepoint_end(r, &save, rc);
  if (rc != REPLIC_OK) {
    sqlite3_free(*done);
    *done = NULL;
  }
  return rc;
}

/* patches.c - the DDL of T_patches, from T.
 *
 * The same rules as check.c's, the other way round: the reserved columns, then the columns of T
 * that are carried, with their types, NOT NULL only where T's primary key is, STRICT where T is.
 * Indexes are made at registration. */
#include <string.h>

#include "state.h"
#include "tables/tables.h"

/* ?1 is T. No row: there is no such table. */
static const char DDL[] =
    "SELECT printf('CREATE TABLE \"%w_patches\" (' || char(10) || "
    "'  _patchedAt INTEGER NOT NULL,' || char(10) || '  _sequenceId INTEGER NOT NULL,' || char(10) "
    "|| '  _peerId INTEGER NOT NULL,' || char(10) || '  _nulls TEXT,' || char(10) || '%s' || "
    "char(10) || ')%s;', t.name, (SELECT group_concat(line, ',' || char(10)) FROM (SELECT "
    "printf('  \"%w\"%s%s%s', name, iif(type = '', '', ' '), type, iif(pk, ' NOT NULL', '')) AS "
    "line "
    "FROM pragma_table_xinfo(t.name, 'main') WHERE hidden = 0 ORDER BY cid)), iif(t.strict, ' "
    "STRICT', '')), (SELECT sum(pk > 0) FROM pragma_table_xinfo(t.name, 'main')), t.name "
    "FROM pragma_table_list t WHERE t.schema = 'main' AND t.type = 'table' AND t.name = ?1 COLLATE "
    "NOCASE";

/* `*out`: the DDL or, where the result is above or below REPLIC_OK, why there is none. */
static int patches_ddl(sqlite3 *db, const char *table, char **out) {
  sqlite3_stmt *stmt = NULL;
  *out = NULL;
  int rc = sqlite3_prepare_v3(db, DDL, -1, 0, &stmt, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_bind_text(stmt, 1, table, -1, SQLITE_STATIC);
  if (rc == SQLITE_OK) rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW) {
    rc = sqlite3_column_int(stmt, 1) ? REPLIC_OK : REPLIC_ESCHEMA;
    *out = rc == REPLIC_OK
               ? sqlite3_mprintf("%s", sqlite3_column_text(stmt, 0))
               : sqlite3_mprintf("table %s has no PRIMARY KEY: declare one, so that peers mean the "
                                 "same row",
                                 sqlite3_column_text(stmt, 2));
  } else if (rc == SQLITE_DONE) {
    rc = REPLIC_ETABLE;
    *out = sqlite3_mprintf("there is no table %s", table);
  } else {
    *out = sqlite3_mprintf("%s", sqlite3_errmsg(db));
  }
  sqlite3_finalize(stmt);
  return *out ? rc : SQLITE_NOMEM;
}

int replic_patches_table(replic *r, const char *table, char **out) {
  int rc = patches_ddl(r->db, table, out);
  if (rc == REPLIC_OK) return rc;
  rc = replic__fail(r, rc, "%s", *out ? *out : "out of memory");
  sqlite3_free(*out);
  *out = NULL;
  return rc;
}

/* Nothing but CREATE TABLE: the text may come from anywhere. */
static int only_create(void *ctx, int action, const char *a, const char *b, const char *db,
                       const char *trigger) {
  (void)ctx, (void)a, (void)b, (void)db, (void)trigger;
  switch (action) {
  case SQLITE_CREATE_TABLE:
  case SQLITE_CREATE_INDEX:
  case SQLITE_INSERT:
  case SQLITE_UPDATE:
  case SQLITE_READ:
  case SQLITE_FUNCTION:
  case SQLITE_REINDEX:
  case SQLITE_SELECT: return SQLITE_OK; /* sqlite_schema, and what expressions of the DDL name */
  default: return SQLITE_DENY;
  }
}

int replic_patches_table_of(const char *create_table, char **out) {
  sqlite3 *db = NULL;
  sqlite3_stmt *stmt = NULL;
  *out = NULL;
  int rc = sqlite3_initialize();
  if (rc == SQLITE_OK) rc = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_set_authorizer(db, only_create, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_exec(db, create_table, NULL, NULL, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_set_authorizer(db, NULL, NULL);
  if (rc == SQLITE_OK)
    rc =
        sqlite3_prepare_v3(db, "SELECT max(name), count(*) FROM sqlite_schema WHERE type = 'table'",
                           -1, 0, &stmt, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW && sqlite3_column_int(stmt, 1) == 1) {
    rc = patches_ddl(db, (const char *)sqlite3_column_text(stmt, 0), out);
  } else if (rc == SQLITE_ROW) {
    rc = REPLIC_EUSAGE;
    *out = sqlite3_mprintf("exactly one CREATE TABLE is needed");
  } else {
    *out = sqlite3_mprintf("%s", sqlite3_errmsg(db));
    if (rc == SQLITE_AUTH) rc = REPLIC_EUSAGE;
  }
  sqlite3_finalize(stmt);
  sqlite3_close(db);
  return *out ? rc : SQLITE_NOMEM;
}

/* run.c - SQL of the application's on the writing connection, one statement or a script. What it
 * may not do the authorizer refuses (tables/authorizer.c), before anything has happened. */
#include <string.h>

#include "core.h"

static int bind_params(replic *r, sqlite3_stmt *stmt, const replic_param *params, size_t n_params) {
  replic__names *names = NULL;
  char *why;
  int rc = replic__bind_params(stmt, params, n_params, SQLITE_STATIC, &names, &why);
  sqlite3_free(names);
  if (rc != REPLIC_EUSAGE) return replic__fail_db(r, rc);
  rc = why ? replic__fail(r, rc, "%s", why) : replic__fail_db(r, SQLITE_NOMEM);
  sqlite3_free(why);
  return rc;
}

/* Takes what the authorizer refused for the error, where that was the reason. It is not asked about
 * VACUUM, which SQLite itself refuses inside of a transaction. */
static int explain_failure(replic *r, int rc) {
  if (rc == SQLITE_ERROR && strncmp(sqlite3_errmsg(r->db), "cannot VACUUM", 13) == 0)
    return replic__fail(r, REPLIC_ETRANSACTION,
                        "VACUUM: it cannot run in a transaction, and the engine owns those; leave "
                        "it out: free pages are used again");
  if (!r->auth.denied) return replic__fail_db(r, rc);
  return replic__fail(r, r->auth.denied, "%s", r->auth.what ? r->auth.what : "not authorized");
}

/* Adds to the error which statement it was: the text from its first word up to where SQLite has
 * read it, at most 200 bytes. Scripts of migrations are long, and written long ago. */
static int name_statement(replic *r, int rc, const char *at, const char *end) {
  size_t len;
  while (at < end && strchr(" \t\r\n;", *at)) at++;
  while (end > at && strchr(" \t\r\n;", end[-1])) end--;
  len = end - at > 200 ? 200 : (size_t)(end - at);
  if (len == 200)
    while (len > 0 && ((unsigned char)at[len] & 0xc0) == 0x80) len--; /* no half characters */
  return len ? replic__fail(r, rc, "%s, in: %.*s%s", replic_error_text(r), (int)len, at,
                            len < (size_t)(end - at) ? "…" : "")
             : rc;
}

static int run_statement(replic *r, sqlite3_stmt *stmt, replic__script *script) {
  int64_t total = sqlite3_total_changes64(r->db); /* DDL leaves sqlite3_changes as it was */
  size_t n_rows = 0;
  if (script->rows && !sqlite3_stmt_readonly(stmt))
    return replic__fail(r, SQLITE_READONLY, "this statement writes: use run, upsert or delete");
  int rc = bind_params(r, stmt, script->params, script->n_params);
  if (rc != REPLIC_OK) return rc;
  for (;;) {
    rc = sqlite3_step(stmt);
    int added = REPLIC_OK;
    /* the names only now: the first step prepares anew where the schema has changed */
    if (script->rows && n_rows == 0 && (rc == SQLITE_ROW || rc == SQLITE_DONE))
      added = replic__rows_add_names(script->rows, stmt);
    if (rc == SQLITE_ROW && script->rows && added == REPLIC_OK)
      added = replic__rows_add(script->rows, stmt);
    if (added != REPLIC_OK) return replic__fail_db(r, added);
    if (rc != SQLITE_ROW || (script->rows && ++n_rows == script->max_rows)) break;
  }
  if (rc != SQLITE_DONE && rc != SQLITE_ROW) return explain_failure(r, rc);
  if (sqlite3_total_changes64(r->db) != total) script->changes += sqlite3_changes64(r->db);
  return REPLIC_OK;
}

int replic__guard_exec(replic *r, replic__script *script) {
  const char *at = script->sql, *end = at + script->len;
  int rc = REPLIC_OK, n_statements = 0, kept = script->mode != AUTH_MIGRATION || r->stale;
  if (script->len > INT32_MAX)
    return replic__fail(r, REPLIC_ETOOLARGE, "SQL text of %lld bytes", (int64_t)script->len);
  sqlite3_set_last_insert_rowid(r->db, 0); /* not one of the engine's own */
  r->auth.mode = script->mode;
  r->auth.denied = 0;
  while (rc == REPLIC_OK && at < end) {
    const char *begin = at;
    sqlite3_stmt *stmt = NULL;
    rc = sqlite3_prepare_v3(r->db, at, (int)(end - at), 0, &stmt, &at);
    if (rc != SQLITE_OK)
      rc = explain_failure(r, rc);
    else if (stmt && ++n_statements > 1 && !script->many)
      rc = replic__fail(r, REPLIC_EUSAGE, "run takes one statement; exec takes several");
    else if (stmt && !kept && r->auth.schema_changed) {
      kept = 1;
      r->auth.mode = AUTH_ENGINE;
      rc = replic__pending_keep_written(r);
      r->auth.mode = script->mode;
    }
    if (rc == REPLIC_OK && stmt) rc = run_statement(r, stmt, script);
    sqlite3_finalize(stmt);
    if (rc != REPLIC_OK && script->mode == AUTH_MIGRATION) rc = name_statement(r, rc, begin, at);
  }
  if (rc == REPLIC_OK && !n_statements)
    rc = replic__fail(r, REPLIC_EUSAGE, "the SQL text holds no statement");
  if (rc == REPLIC_OK) script->rowid = sqlite3_last_insert_rowid(r->db);
  r->auth.mode = AUTH_ENGINE;
  return rc;
}

int replic_run(replic *r, const char *sql, size_t len, int many, int unsafe,
               const replic_param *params, size_t n_params, int64_t *changes, int64_t *rowid) {
  replic__savepoint save;
  const replic__schema *before = r->schema;
  *changes = *rowid = 0;
  int rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = replic__merge_mode(r, 0);
  r->auth.schema_changed = 0;
  replic__script script = {.mode = unsafe ? AUTH_UNSAFE : AUTH_USER,
                           .many = many,
                           .sql = sql,
                           .len = len,
                           .params = params,
                           .n_params = n_params};
  if (rc == REPLIC_OK) rc = replic__guard_exec(r, &script);
  if (rc == REPLIC_OK) rc = replic__check_deferred(r);
  if (rc == REPLIC_OK && r->auth.schema_changed) rc = replic__reload_schema(r);
  if (rc == REPLIC_OK && r->auth.schema_changed) rc = replic__schema_changed(r);
  *changes = script.changes;
  *rowid = script.rowid;
  rc = replic__savepoint_end(r, &save, rc);
  if (rc != REPLIC_OK && r->schema != before && !r->lost) { /* what was registered is undone */
    char *text = r->error;
    r->error = NULL;
    if (replic__reload_schema(r) != REPLIC_OK) r->lost = 1;
    sqlite3_free(r->error);
    r->error = text;
  }
  return rc;
}

/* guard.c - SQL of the application's own on the writing connection, and what it may not do.
 *
 * SQLite's authorizer is asked while a statement is prepared
 * (https://sqlite.org/c3ref/set_authorizer.html), so a refusal comes before anything has happened,
 * and nothing is guessed from the text of the SQL. The authorizer is set once; `auth.mode` says for
 * whom it speaks at the moment:
 *   ENGINE     the core's own statements: everything
 *   USER       run, exec: not the replicated tables, not transactions, no settings
 *   UNSAFE     the same, and replicated tables may be written directly
 *   MIGRATION  DDL and data of every table but the internal ones
 *   TRIGGERS   registration: finds triggers that write to a replicated table */
#include <string.h>

#include "core.h"
#include "reader.h"

/* With an argument, these read or are harmless; without one, every pragma only reads. */
static const char *const FREE_PRAGMAS[] = {
    "analysis_limit", "application_id", "foreign_key_check", "foreign_key_list", "function_list",
    "index_info",     "index_list",     "index_xinfo",       "integrity_check",  "optimize",
    "quick_check",    "table_info",     "table_list",        "table_xinfo",      "user_version",
};

static int is_internal(const char *table) {
  return sqlite3_strnicmp(table, "_replic_", 8) == 0;
}

static int is_replicated(const replic__schema *schema, const char *table) {
  if (!schema) return 0;
  if (replic__schema_find(schema, table)) return 1;
  size_t len = strlen(table), suffix = strlen("_patches");
  if (len <= suffix || sqlite3_stricmp(table + len - suffix, "_patches") != 0) return 0;
  for (size_t i = 0; i < schema->n_tables; i++) {
    const char *name = schema->tables[i]->name;
    if (strlen(name) == len - suffix && sqlite3_strnicmp(name, table, (int)strlen(name)) == 0)
      return 1;
  }
  return 0;
}

static int deny(replic__auth *auth, int code, const char *format, const char *what,
                const char *detail) {
  sqlite3_free(auth->what);
  auth->denied = code;
  auth->what = sqlite3_mprintf(format, what, detail);
  return SQLITE_DENY;
}

static int guard_pragma(replic__auth *auth, const char *name, const char *argument) {
  if (!argument) return SQLITE_OK;
  for (size_t i = 0; i < sizeof FREE_PRAGMAS / sizeof *FREE_PRAGMAS; i++)
    if (sqlite3_stricmp(name, FREE_PRAGMAS[i]) == 0) return SQLITE_OK;
  return deny(
      auth, REPLIC_ETRANSACTION,
      "PRAGMA %s = %s: settings of the connection belong to the engine; see the options of open",
      name, argument);
}

static int guard_write(replic__auth *auth, const char *table, const char *trigger) {
  if (auth->mode == AUTH_TRIGGERS) {
    if (trigger && (is_internal(table) || is_replicated(auth->schema, table)))
      return deny(auth, REPLIC_ESCHEMA,
                  "trigger %s writes to the replicated table %s: every peer would repeat it. Write "
                  "both rows with batch()",
                  trigger, table);
    return SQLITE_OK;
  }
  if (is_internal(table))
    return deny(auth, REPLIC_EDIRECT, "%s belongs to the engine%s", table, "");
  if (auth->mode == AUTH_USER && is_replicated(auth->schema, table))
    return deny(auth, REPLIC_EDIRECT,
                "%s is replicated: use upsert, delete or batch. { unsafe: true } writes to this "
                "peer's copy only%s",
                table, "");
  return SQLITE_OK;
}

static int guard_ddl(replic__auth *auth, const char *table) {
  auth->schema_changed = 1;
  if (is_internal(table))
    return deny(auth, REPLIC_EDIRECT, "%s belongs to the engine%s", table, "");
  if (auth->mode != AUTH_MIGRATION && is_replicated(auth->schema, table))
    return deny(auth, REPLIC_EDIRECT, "%s is replicated: change its schema with migrate%s", table,
                "");
  return SQLITE_OK;
}

int replic__guard(void *ctx, int action, const char *a, const char *b, const char *db,
                  const char *trigger) {
  replic__auth *auth = ctx;
  if (auth->mode == AUTH_ENGINE) return SQLITE_OK;
  switch (action) {
  case SQLITE_TRANSACTION:
  case SQLITE_SAVEPOINT:
    return deny(auth, REPLIC_ETRANSACTION, "%s: the engine owns transactions; batch() makes one%s",
                a, "");
  case SQLITE_ATTACH:
    return deny(auth, REPLIC_ETRANSACTION,
                "ATTACH%s%s: a replica is one file; open the other one by itself", " ", a ? a : "");
  case SQLITE_DETACH:
    return deny(auth, REPLIC_ETRANSACTION, "DETACH%s%s: nothing can be attached", " ", a ? a : "");
  case SQLITE_PRAGMA: return guard_pragma(auth, a, b);
  case SQLITE_INSERT:
  case SQLITE_UPDATE:
  case SQLITE_DELETE:
    return db && sqlite3_stricmp(db, "main") == 0 ? guard_write(auth, a, trigger) : SQLITE_OK;
  case SQLITE_CREATE_TABLE:
  case SQLITE_DROP_TABLE:
  case SQLITE_CREATE_VIEW:
  case SQLITE_DROP_VIEW: return guard_ddl(auth, a);
  case SQLITE_CREATE_TEMP_TRIGGER:
    return deny(auth, REPLIC_EDIRECT,
                "CREATE TEMP TRIGGER %s: it would fire in the engine's own writes; create it with "
                "migrate%s",
                a, "");
  case SQLITE_ALTER_TABLE:
  case SQLITE_CREATE_INDEX:
  case SQLITE_DROP_INDEX:
  case SQLITE_CREATE_TRIGGER:
  case SQLITE_DROP_TRIGGER:
  case SQLITE_CREATE_VTABLE:
  case SQLITE_DROP_VTABLE: return guard_ddl(auth, b && action < SQLITE_CREATE_VTABLE ? b : a);
  default: return SQLITE_OK;
  }
}

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

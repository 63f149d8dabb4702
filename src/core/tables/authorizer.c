/* authorizer.c - what SQL of the application's may not do on the writing connection.
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

#include "tables/tables.h"

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

/* migrate.c - the steps of a migration.
 *
 * A step is a batch of its own, so one transaction: the row in _replic_migrations, the SQL, the
 * registration of the tables, and what follows from it. Steps that are functions of the
 * application's come as many calls; each is a savepoint, so one that fails leaves nothing behind
 * and the function may go on. Between two DDL statements T and T_patches need not fit each other:
 * tables are registered anew when the step ends, or when it writes patches.
 *
 * Which steps to take, and in which order, is for the caller to decide (lib/migrate.js). */
#include <string.h>

#include "core.h"

/* ---- _replic_migrations, _replic_renames ---- */

static int check_version(replic *r, const replic_step *step) {
  int64_t last;
  int rc = replic__int(r, "SELECT max(version) FROM main._replic_migrations", &last);
  if (rc != REPLIC_OK) return rc;
  int64_t expected = step->kind == REPLIC_STEP_UP ? last + 1 : last;
  if (step->kind == REPLIC_STEP_NOTE && step->version > 0 && step->version < last)
    expected = step->version;
  if (step->version == expected && expected > 0) return REPLIC_OK;
  return replic__fail(r, REPLIC_EMIGRATION,
                      "the database is at version %lld, so version %lld cannot %s", last,
                      step->version,
                      step->kind == REPLIC_STEP_UP     ? "go up"
                      : step->kind == REPLIC_STEP_DOWN ? "go down"
                                                       : "be noted anew");
}

/* Runs one statement with what the step says as its parameters: all, or the version alone. */
static int note(replic *r, const replic_step *step, const char *sql) {
  const char *const texts[] = {step->up, step->down, step->name, step->hash, step->renames};
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, sql, &stmt);
  int n = rc == REPLIC_OK ? sqlite3_bind_parameter_count(stmt) : 0;
  if (rc == REPLIC_OK) rc = sqlite3_bind_int64(stmt, 1, step->version);
  if (rc == REPLIC_OK && n > 1) rc = sqlite3_bind_int64(stmt, 2, r->now_ms);
  for (int i = 0; rc == REPLIC_OK && i + 2 < n; i++)
    rc = sqlite3_bind_text(stmt, i + 3, texts[i] ? texts[i] : "", -1, SQLITE_STATIC);
  rc = rc == REPLIC_OK ? replic__step(r, stmt) : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

/* The renames of a step that is taken back stay: peers that have taken it go on using the new
 * names. They end when another step takes its place. */
static int note_step(replic *r, const replic_step *step) {
  if (step->kind == REPLIC_STEP_DOWN)
    return note(r, step, "DELETE FROM main._replic_migrations WHERE version = ?1");
  int rc = note(
      r, step,
      step->kind == REPLIC_STEP_UP
          ? "INSERT INTO main._replic_migrations(version, appliedAt, up, down, name, hash, rename) "
            "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
          : "UPDATE main._replic_migrations SET up = ?3, down = ?4, name = ?5, hash = ?6, "
            "rename = ?7 WHERE version = ?1");
  if (rc == REPLIC_OK) rc = note(r, step, "DELETE FROM main._replic_renames WHERE version = ?1");
  if (rc != REPLIC_OK || !step->renames || !*step->renames) return rc;
  return note(r, step,
              "INSERT INTO main._replic_renames(version, tableName, oldColumn, newColumn) "
              "SELECT ?1, value ->> 0, value ->> 1, value ->> 2 FROM json_each(?7)");
}

/* ---- what must hold ---- */

/* `sql` yields a sentence per problem; ?1 is the version. The first one is the error. */
static int check(replic *r, int code, const char *sql, int64_t version) {
  sqlite3_stmt *stmt = NULL;
  int rc = replic__prepare(r, sql, &stmt);
  if (rc == REPLIC_OK && sqlite3_bind_parameter_count(stmt))
    rc = replic__fail_db(r, sqlite3_bind_int64(stmt, 1, version));
  if (rc == REPLIC_OK) rc = sqlite3_step(stmt);
  if (rc == SQLITE_ROW)
    rc = replic__fail(r, code, "%s", sqlite3_column_text(stmt, 0));
  else
    rc = rc == SQLITE_DONE ? REPLIC_OK : replic__fail_db(r, rc);
  sqlite3_finalize(stmt);
  return rc;
}

#define HAS_COLUMN(column)                                                                         \
  "EXISTS (SELECT 1 FROM pragma_table_xinfo(n.tableName, 'main') WHERE name = " column             \
  " COLLATE NOCASE)"

/* Before a step that renames. */
static const char RENAMED_FROM[] =
    "SELECT printf('rename: %s has no column %s before this step', tableName, oldColumn) "
    "FROM main._replic_renames n WHERE version = ?1 AND NOT " HAS_COLUMN("oldColumn");

/* After it. */
static const char RENAMED_TO[] = "SELECT printf(iif(" HAS_COLUMN(
    "newColumn") ", 'rename: %s still has the column %s after this "
                 "step', 'rename: %s has no column %s after this step'), tableName, "
                 "iif(" HAS_COLUMN("newColumn") ", oldColumn, newColumn)) FROM "
                                                "main._replic_renames n WHERE version = ?1 AND "
                                                "(NOT " HAS_COLUMN("newColumn") " OR " HAS_COLUMN(
                                                    "oldColumn") ")";

/* A name stands for one column, in all versions: patches of peers that know another one by it could
 * not be told apart. All names that the column `name` of the table `t` has had, but for those of
 * the rows `m` that `but` leaves out: */
#define NAMES_OF(t, name, but)                                                                     \
  "(WITH RECURSIVE names(name) AS (VALUES(" name ") UNION SELECT newColumn FROM names JOIN "       \
  "main._replic_renames m ON oldColumn = names.name AND m.tableName = " t but                      \
  " UNION SELECT oldColumn FROM names JOIN main._replic_renames m ON newColumn = names.name AND "  \
  "m.tableName = " t but ") SELECT name FROM names)"
#define OF_ANOTHER                                                                                 \
  " in another version, and peers at that version could not tell the two apart: choose a name "    \
  "that the table has never had"

/* Before a step, whose own renames do not count yet. */
static const char TAKEN[] =
    "SELECT printf('rename: %s.%s cannot be called %s: another column is called so" OF_ANOTHER
    "', tableName, oldColumn, newColumn) FROM main._replic_renames n WHERE version = ?1 AND "
    "EXISTS (SELECT 1 FROM main._replic_renames m WHERE m.tableName = n.tableName AND "
    "(m.version < ?1 AND n.newColumn IN (m.oldColumn, m.newColumn) OR m.version = ?1 AND "
    "m.oldColumn = n.newColumn)) AND "
    "n.newColumn NOT IN " NAMES_OF("n.tableName", "n.oldColumn", " AND m.version < ?1");

/* After it. */
static const char SHARED[] =
    "SELECT printf('%s.%s cannot be called so: the column %s is called so" OF_ANOTHER
    "', n.t, b.name, a.name) FROM (SELECT tableName AS t, newColumn AS c FROM main._replic_renames "
    "WHERE newColumn <> oldColumn UNION SELECT tableName, oldColumn FROM main._replic_renames "
    "WHERE newColumn <> oldColumn) n "
    "JOIN pragma_table_xinfo(n.t, 'main') a ON a.name = n.c "
    "JOIN pragma_table_xinfo(n.t, 'main') b ON b.cid > a.cid "
    "WHERE b.name COLLATE NOCASE IN " NAMES_OF("n.t", "a.name", "");

/* A T_patches whose T is gone: the step has forgotten it, or its name is misspelt. */
static const char ORPHANS[] =
    "SELECT printf('there is no table %s, but there is %s: DROP TABLE \"%w\", or create the other "
    "one', substr(p.name, 1, length(p.name) - 8), p.name, p.name) "
    "FROM pragma_table_list p WHERE p.schema = 'main' AND p.type = 'table' "
    "AND p.name LIKE '%\\_patches' ESCAPE '\\' "
    "AND 3 = (SELECT count(*) FROM pragma_table_xinfo(p.name, 'main') WHERE name COLLATE NOCASE IN "
    "('_patchedAt', '_sequenceId', '_peerId')) "
    "AND NOT EXISTS (SELECT 1 FROM pragma_table_list t WHERE t.schema = 'main' "
    "AND t.name || '_patches' = p.name COLLATE NOCASE)";

/* ---- a step ---- */

static int no_step(replic *r, const char *call) {
  return replic__fail(r, REPLIC_EUSAGE, "%s: no step is under way", call);
}

int replic_step_begin(replic *r, const replic_step *step) {
  replic__savepoint save;
  if (r->step) return replic__fail(r, REPLIC_EUSAGE, "step %lld is under way", r->step);
  int rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = check_version(r, step);
  if (rc == REPLIC_OK) rc = note_step(r, step);
  if (rc == REPLIC_OK && step->kind == REPLIC_STEP_UP)
    rc = check(r, REPLIC_EMIGRATION, RENAMED_FROM, step->version);
  if (rc == REPLIC_OK && step->kind == REPLIC_STEP_UP)
    rc = check(r, REPLIC_EMIGRATION, TAKEN, step->version);
  rc = replic__savepoint_end(r, &save, rc);
  if (rc == REPLIC_OK) r->step = step->version;
  r->step_kind = step->kind;
  return rc;
}

static int run_script(replic *r, replic__script *script) {
  replic__savepoint save;
  int rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = replic__merge_mode(r, 0);
  script->mode = AUTH_MIGRATION;
  r->auth.schema_changed = 0;
  if (rc == REPLIC_OK) rc = replic__guard_exec(r, script);
  if (rc == REPLIC_OK && r->auth.schema_changed) r->stale = 1;
  return replic__savepoint_end(r, &save, rc);
}

int replic_step_run(replic *r, const char *sql, size_t len, int many, const replic_param *params,
                    size_t n_params, int64_t *changes, int64_t *rowid) {
  replic__script script = {
      .many = many, .sql = sql, .len = len, .params = params, .n_params = n_params};
  int rc = r->step ? run_script(r, &script) : no_step(r, "replic_step_run");
  *changes = script.changes;
  *rowid = script.rowid;
  return rc;
}

int replic_step_read(replic *r, const char *sql, size_t len, const replic_param *params,
                     size_t n_params, size_t max_rows, replic_rows *rows) {
  replic__script script = {.sql = sql,
                           .len = len,
                           .params = params,
                           .n_params = n_params,
                           .rows = rows,
                           .max_rows = max_rows};
  return r->step ? run_script(r, &script) : no_step(r, "replic_step_read");
}

int replic_step_end(replic *r) {
  replic__savepoint save;
  if (!r->step) return no_step(r, "replic_step_end");
  int rc = replic__savepoint_open(r, r->peer_id, &save);
  if (rc != REPLIC_OK) return rc;
  rc = check(r, REPLIC_ESCHEMA, ORPHANS, 0);
  if (rc == REPLIC_OK) rc = replic__reload_schema(r);
  if (rc == REPLIC_OK && r->step_kind == REPLIC_STEP_UP)
    rc = check(r, REPLIC_EMIGRATION, RENAMED_TO, r->step);
  if (rc == REPLIC_OK && r->step_kind == REPLIC_STEP_UP)
    rc = check(r, REPLIC_EMIGRATION, SHARED, 0);
  if (rc == REPLIC_OK) rc = replic__schema_changed(r);
  if (rc == REPLIC_OK) r->step = 0;
  return replic__savepoint_end(r, &save, rc);
}

int replic_migrate(replic *r, int64_t now_ms, int64_t version, const char *sql,
                   const char *down_of_step) {
  const replic_step step = {.kind = down_of_step ? REPLIC_STEP_UP : REPLIC_STEP_DOWN,
                            .version = version,
                            .up = sql,
                            .down = down_of_step};
  return replic_migrate_step(r, now_ms, &step, sql);
}

int replic_migrate_step(replic *r, int64_t now_ms, const replic_step *step, const char *sql) {
  int64_t changes, rowid;
  int rc = replic_begin(r, now_ms);
  if (rc != REPLIC_OK) return rc;
  rc = replic_step_begin(r, step);
  if (rc == REPLIC_OK) rc = replic_step_run(r, sql, strlen(sql), 1, NULL, 0, &changes, &rowid);
  if (rc == REPLIC_OK) rc = replic_step_end(r);
  if (rc == REPLIC_OK) return replic_commit(r);
  replic_rollback(r);
  return rc;
}

/* check.c - may this table be replicated? The checks, as queries that yield a
 * sentence per problem, with the very ALTER TABLE that is missing where one is.
 *
 * ?1 is T, ?2 is T_patches. Column names compare without case, as in SQLite. Catalogue functions:
 * https://sqlite.org/pragma.html. Collations of columns and what triggers write to are not in the
 * catalogue: they follow in C. */
#include <string.h>

#include "state.h"
#include "tables/tables.h"

/* What the two tables have. */
#define SHAPES                                                                                     \
  "WITH t AS MATERIALIZED (SELECT name COLLATE NOCASE AS name, type, pk, hidden FROM "             \
  "pragma_table_xinfo(?1, 'main')),"                                                               \
  "p AS MATERIALIZED (SELECT name COLLATE NOCASE AS name, type, \"notnull\" AS nn, pk, hidden "    \
  "  FROM pragma_table_xinfo(?2, 'main')),"                                                        \
  "reserved(name) AS MATERIALIZED (VALUES ('_patchedAt'), ('_sequenceId'), ('_peerId')),"          \
  "missing AS MATERIALIZED (SELECT name, type FROM t WHERE hidden = 0 "                            \
  "  AND name NOT IN (SELECT name FROM p)),"                                                       \
  "extra AS MATERIALIZED (SELECT name, type FROM p WHERE name NOT IN (SELECT name FROM t) "        \
  "  AND name NOT IN reserved AND name <> '_nulls'),"                                              \
  "renamed AS MATERIALIZED (SELECT extra.name AS was, missing.name AS name FROM missing, extra "   \
  "  WHERE missing.type = extra.type COLLATE NOCASE AND 1 = (SELECT count(*) FROM missing) "       \
  "  AND 1 = (SELECT count(*) FROM extra)) "

static const char *const PROBLEMS[] = {
    SHAPES
    "SELECT printf('table %s has no PRIMARY KEY: declare one, so that peers mean the same row', "
    "?1) "
    "  WHERE NOT EXISTS (SELECT 1 FROM t WHERE pk) "
    "UNION ALL SELECT printf('column %s of table %s has a name that is reserved for %s', name, ?1, "
    "?2) "
    "  FROM t WHERE name = '_nulls' OR name IN reserved "
    "UNION ALL SELECT printf('%s has no column %s INTEGER NOT NULL: declare it', ?2, name) "
    "  FROM reserved WHERE name COLLATE NOCASE NOT IN (SELECT name FROM p) "
    "UNION ALL SELECT printf('column %s of %s is \"%s\": declare it INTEGER', name, ?2, type) "
    "  FROM p WHERE name IN reserved AND type NOT LIKE '%INT%' "
    "UNION ALL SELECT printf('%s has the column %s, where %s has %s: ALTER TABLE \"%w\" RENAME "
    "COLUMN \"%w\" TO \"%w\"', ?2, was, ?1, name, ?2, was, name) FROM renamed "
    "UNION ALL SELECT printf('%s has no column %s: %s', ?2, group_concat(name, ', '), "
    "  group_concat(printf('ALTER TABLE \"%w\" ADD COLUMN \"%w\"%s%s', ?2, name, "
    "  iif(type = '', '', ' '), type), '; ')) FROM missing HAVING count(*) > 0 "
    "UNION ALL SELECT printf('%s has a column %s that %s has not: %s', ?2, "
    "  group_concat(name, ', '), ?1, "
    "  group_concat(printf('ALTER TABLE \"%w\" DROP COLUMN \"%w\"', ?2, name), '; ')) "
    "  FROM extra HAVING count(*) > 0 "
    "UNION ALL SELECT printf('column %s is \"%s\" in %s and \"%s\" in %s: ', "
    "  name, t.type, ?1, p.type, ?2) || iif(t.pk, 'declare the same type', "
    "  printf('ALTER TABLE \"%w\" RENAME COLUMN \"%w\" TO \"%w_was\"; ', ?2, name, name) || "
    "  printf('ALTER TABLE \"%w\" ADD COLUMN \"%w\"%s%s; ', ?2, name, "
    "  iif(t.type = '', '', ' '), t.type) || "
    "  printf('UPDATE \"%w\" SET \"%w\" = \"%w_was\"; ', ?2, name, name) || "
    "  printf('ALTER TABLE \"%w\" DROP COLUMN \"%w_was\"', ?2, name)) "
    "  FROM t JOIN p USING (name) WHERE t.hidden = 0 AND t.type <> p.type COLLATE NOCASE ",

    SHAPES
    "SELECT printf('column %s of %s is generated: declare it as a plain column', name, "
    "?2) "
    "  FROM t JOIN p USING (name) WHERE t.hidden = 0 AND p.hidden "
    "UNION ALL SELECT printf('column %s of %s is NOT NULL, but NULL means there \"not set by this "
    "patch\": remove NOT NULL', "
    "  name, ?2) FROM p LEFT JOIN t USING (name) WHERE p.nn AND coalesce(t.pk, 0) = 0 AND name NOT "
    "IN reserved "
    "UNION ALL SELECT printf('column %s is ANY, which means something else in a table that is not "
    "STRICT: declare %s and %s alike',"
    "  name, ?1, ?2) FROM t WHERE type = 'ANY' COLLATE NOCASE AND 1 = (SELECT sum(strict) FROM "
    "pragma_table_list "
    "  WHERE schema = 'main' AND name COLLATE NOCASE IN (?1, ?2)) "
    "UNION ALL SELECT printf('the primary key of %s allows one patch per row: remove it, or make "
    "it (_peerId, _sequenceId)', ?2) "
    "  WHERE (SELECT count(*) FROM p WHERE pk) > 0 "
    "  AND (SELECT count(*) FROM p WHERE pk AND name IN ('_peerId', '_sequenceId')) < 2 "
    "UNION ALL SELECT printf('%s has a UNIQUE constraint or index (%s) beyond its primary key: "
    "peers that write independently "
    "cannot keep it: remove it, or make it the primary key', ?1, l.name) FROM "
    "pragma_index_list(?1, 'main') l WHERE l.\"unique\" AND "
    "l.origin <> 'pk' "
    "UNION ALL SELECT printf('%s has a UNIQUE index (%s) without _peerId and _sequenceId: late "
    "patches could not be kept', ?2, "
    "  l.name) FROM pragma_index_list(?2, 'main') l WHERE l.\"unique\" AND 2 > (SELECT count(*) "
    "FROM "
    "  pragma_index_xinfo(l.name, 'main') x WHERE x.key AND x.name COLLATE NOCASE IN ('_peerId', "
    "'_sequenceId')) "
    "UNION ALL SELECT printf('the primary key of %s has the collation %s: keys that are equal "
    "could differ in bytes between peers. "
    "Use BINARY', ?1, x.coll) FROM pragma_index_list(?1, 'main') l JOIN pragma_index_xinfo(l.name, "
    "'main') x "
    "  WHERE l.origin = 'pk' AND x.key AND x.coll <> 'BINARY' "
    "UNION ALL SELECT printf('trigger %s is on %s, which only the engine writes to: drop it', "
    "name, ?2) "
    "  FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?2 COLLATE NOCASE "
    "UNION ALL SELECT printf('trigger %s on %s uses ROLLBACK, which would undo other calls too: "
    "use RAISE(ABORT)', name, ?1) "
    "  FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE AND sql "
    "LIKE '%ROLLBACK%'"};

/* Keys are equal on all peers exactly when their bytes are: no other collation, in neither table.
 */
static int check_collations(replic *r, const replic__table *t) {
  for (int i = 0; i < 2 * t->n_keys; i++) {
    const char *table = i % 2 ? t->patches : t->name, *name = t->fields[i / 2].name, *collation;
    int rc = sqlite3_table_column_metadata(r->db, "main", table, name, NULL, &collation, NULL, NULL,
                                           NULL);
    if (rc != SQLITE_OK) return replic__fail_db(r, rc);
    if (sqlite3_stricmp(collation, "BINARY") != 0)
      return replic__fail(r, REPLIC_ESCHEMA,
                          "key column %s of %s has the collation %s: keys that are equal could "
                          "differ in bytes between "
                          "peers. Use BINARY",
                          name, table, collation);
  }
  return REPLIC_OK;
}

/* Preparing an upsert of all columns and a deletion compiles every trigger: the authorizer sees
 * what they write to. */
static int check_triggers(replic *r, replic__table *t) {
  sqlite3_stmt *stmt;
  memset(t->take, 1, (size_t)t->n_fields);
  r->auth.mode = AUTH_TRIGGERS;
  r->auth.denied = 0;
  int rc = replic__sql_row(r, t, t->take, 0, &stmt);
  if (rc == REPLIC_OK) rc = replic__sql_get(r, t, ROW_DELETE, &stmt);
  r->auth.mode = AUTH_ENGINE;
  return rc != REPLIC_OK && r->auth.denied ? replic__fail(r, r->auth.denied, "%s", r->auth.what)
                                           : rc;
}

/* The first sentence that the query yields for the table. */
static int check_shape(replic *r, const replic__table *t, sqlite3_stmt *stmt) {
  int rc = REPLIC_OK;
  sqlite3_bind_text(stmt, 1, t->name, -1, SQLITE_STATIC);
  sqlite3_bind_text(stmt, 2, t->patches, -1, SQLITE_STATIC);
  if (sqlite3_step(stmt) == SQLITE_ROW)
    rc = replic__fail(r, REPLIC_ESCHEMA, "%s", sqlite3_column_text(stmt, 0));
  int reset = sqlite3_reset(stmt);
  return rc == REPLIC_OK ? replic__fail_db(r, reset) : rc;
}

int replic__check(replic *r, const replic__schema *schema) {
  enum { N_QUERIES = sizeof PROBLEMS / sizeof *PROBLEMS };
  sqlite3_stmt *stmts[N_QUERIES] = {NULL};
  int rc = REPLIC_OK;
  for (int q = 0; rc == REPLIC_OK && schema->n_tables && q < N_QUERIES; q++)
    rc = replic__prepare(r, PROBLEMS[q], &stmts[q]);
  r->auth.schema = schema;
  for (size_t i = 0; rc == REPLIC_OK && i < schema->n_tables; i++) {
    replic__table *t = schema->tables[i];
    for (int q = 0; rc == REPLIC_OK && q < N_QUERIES; q++) rc = check_shape(r, t, stmts[q]);
    if (rc == REPLIC_OK) rc = check_collations(r, t);
    if (rc == REPLIC_OK && t->has_triggers) rc = check_triggers(r, t);
  }
  r->auth.schema = r->schema;
  for (int q = 0; q < N_QUERIES; q++) sqlite3_finalize(stmts[q]);
  return rc;
}

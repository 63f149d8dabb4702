/* explain.c - the statements of a table, for people. */
#include <string.h>

#include "state.h"
#include "tables/tables.h"

int replic_explain(replic *r, const char *table, char **out) {
  *out = NULL;
  replic__table *t = replic__schema_find(r->schema, table);
  if (!t) return replic__fail(r, REPLIC_ETABLE, "there is no replicated table %s", table);
  sqlite3_str *text = sqlite3_str_new(NULL);
  for (int i = 0; i < N_TABLE_SQL + 2; i++) {
    memset(t->take, 1, (size_t)t->n_fields);
    char *sql = i < N_TABLE_SQL ? replic__sql_text(t, i)
                : i == N_TABLE_SQL && t->n_fields == t->n_keys
                    ? NULL
                    : replic__sql_row_text(t, t->take, i == N_TABLE_SQL);
    if (sql) sqlite3_str_appendf(text, "%s;\n", sql);
    sqlite3_free(sql);
  }
  *out = sqlite3_str_finish(text);
  return *out ? REPLIC_OK : SQLITE_NOMEM;
}

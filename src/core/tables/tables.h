/* tables.h - floor 2 of the core: which tables are replicated, and their statements. It knows the
 * catalogue of SQLite, and of patches only their columns.
 *
 *   schema.c      reads the catalogue into a schema; makes missing indexes
 *   check.c       may a table be replicated? One sentence per problem
 *   sql.c         the statements of a table, prepared once per set of columns
 *   explain.c     the same for people
 *   patches.c     the DDL of T_patches
 *   authorizer.c  what SQL of the application's may not do
 *
 * For src/core and its tests. */
#ifndef REPLIC_TABLES_H
#define REPLIC_TABLES_H

#include "base/base.h"

/* A field is a column that patches carry. Keys come first, in the order of the primary key. */
typedef struct replic__field {
  char *name;
  char *type;        /* as declared, "" if none */
  char *json_name;   /* as it stands in _nulls, with its quotes */
  char *default_sql; /* a DEFAULT that is not a constant: evaluated by the peer that creates the
                        row; else NULL */
  int key;           /* position in the primary key from 1, else 0 */
  int required; /* NOT NULL, and no constant DEFAULT: without it a merge cannot create the row */
  int untyped;  /* no affinity: 1 and 1.0 are kept apart, though they are equal as keys */
  int not_null;
  char *rules; /* what else is declared: NOT NULL, DEFAULT; "" if nothing */
  replic_value
      fallback; /* what stands for a value that the column cannot hold; owned; UNSET: none */
} replic__field;

/* A cached pair of statements for one set of columns. */
typedef struct replic__row_sql {
  unsigned char *take; /* n_fields bytes: 1 where the column is set */
  sqlite3_stmt *upsert, *update;
} replic__row_sql;

#define REPLIC__ROW_SQL_MAX 32

enum {
  LOG_INSERT,
  LOG_NEWER,
  LOG_OLDER,
  LOG_FOLD,
  LOG_READ,
  LOG_CLOCK,
  LOG_BELOW,
  LOG_ABOVE,
  LOG_DELETE,
  ROW_EXISTS,
  ROW_DELETE,
  DEFAULTS,
  STUCK_ADD,
  STUCK_AGAIN,
  STUCK_REMOVE,
  N_TABLE_SQL
};

typedef struct replic__table {
  char *name, *patches; /* T, T_patches */
  replic_table info;    /* for the caller: all columns in declared order */
  replic_column *columns;
  replic__field *fields;
  int *by_name;   /* the fields, sorted by name */
  uint32_t index; /* in the schema's list */
  int n_fields, n_keys, n_required, n_dynamic;
  int strict, has_nulls, has_triggers;
  int is_ddl_compared; /* data/stuck.c: in this batch */
  int has_stuck;       /* perhaps: some of its rows are in _replic_stuck */
  int may_lack_rows;   /* a key with patches may have no row: one waits for a required column, or is
                          stuck */
  int muted;           /* a trigger rolled a merge back: merge without triggers */
  int deleted_at;      /* index of the field, -1 if there is none */
  sqlite3_stmt *sql[N_TABLE_SQL];
  replic__row_sql rows[REPLIC__ROW_SQL_MAX];
  int n_rows;
  int touched, changed; /* in this call, in this batch: bit 0 locally, bit 1 by a merge */
  unsigned char *take, *fold_take; /* scratch, n_fields each */
  replic_value *values, *fold;     /* scratch, n_fields each */
} replic__table;

/* A table's definition as in a SCHEMA frame, with the id 0. */
typedef struct replic__foreign {
  uint8_t *bytes;
  size_t len;
} replic__foreign;

typedef struct replic__schema {
  replic__table **tables; /* sorted by name, whatever its case */
  size_t n_tables;
  uint32_t generation; /* grows with every load: who keeps something of a schema compares it */
  uint32_t base_id;    /* table i is known to the links as base_id + i; never used again for another
                          table */
  replic__foreign *foreign; /* tables as others have them, of which something is pending: known to
                               the links by the ids after those of `tables` */
  size_t n_foreign, cap_foreign, foreign_bytes; /* foreign_bytes: as who gets them counts */
  uint32_t *foreign_by;                         /* their places, sorted by length and bytes */
  int constrained;                              /* a CHECK or a foreign key is declared somewhere */
} replic__schema;

/* ---- schema.c ---- */

/* Registers the tables as they are now, aside: the schema in use is not touched. Creates missing
 * indexes, so the transaction is open. The caller owns *out. REPLIC_ESCHEMA and why. */
int replic__schema_load(replic *r, replic__schema **out);
/* Frees it with all its statements. NULL is allowed. */
void replic__schema_free(replic__schema *schema);
/* Forgets the tables of others; the links are told none of their ids any more. */
void replic__foreign_free(replic__schema *schema);
/* Returns the table of that name, whatever its case; borrowed from the schema. NULL: there is none.
 */
replic__table *replic__schema_find(const replic__schema *schema, const char *name);

/* ---- check.c ---- */

/* Checks all tables of a schema that is being loaded. REPLIC_ESCHEMA: the text names each problem.
 */
int replic__check(replic *r, const replic__schema *schema);

/* ---- sql.c ---- */

/* Sets *out to a statement of the table, LOG_… to STUCK_…, which is reset and belongs to the table.
 */
int replic__sql_get(replic *r, replic__table *t, int which, sqlite3_stmt **out);
/* Sets *out to the statement that writes the columns that `take` permits: an upsert, or an update.
 */
int replic__sql_row(replic *r, replic__table *t, const unsigned char *take, int update,
                    sqlite3_stmt **out);
/* Finalizes all statements of the table. */
void replic__sql_free(replic__table *t);
/* The texts of the two. The caller frees; NULL: out of memory. */
char *replic__sql_text(const replic__table *t, int which);
char *replic__sql_row_text(const replic__table *t, const unsigned char *take, int update);

/* ---- authorizer.c ---- */

enum { AUTH_ENGINE, AUTH_USER, AUTH_UNSAFE, AUTH_MIGRATION, AUTH_TRIGGERS };
typedef struct replic__auth {
  int mode;
  const replic__schema *schema; /* AUTH_TRIGGERS: the one being registered */
  int denied;                   /* a REPLIC_E… code */
  char *what;                   /* what was refused; owned */
  int schema_changed;           /* the statement changes the schema */
} replic__auth;

/* SQLite's authorizer; ctx: a replic__auth. */
int replic__guard(void *ctx, int action, const char *a, const char *b, const char *db,
                  const char *trigger);

#endif

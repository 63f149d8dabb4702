/* model.h - a table that always tells the truth: it keeps every patch, and works out each cell anew
 * by the cell rule (I2) whenever it is asked. No index, no state, nothing incremental. Tests
 * compare replicas with it. */
#ifndef MODEL_H
#define MODEL_H

#include "harness.h"

typedef struct model_column {
  const char *name;
  bool key;
  bool not_null;
  const char *
      initial; /* what the cell shows (as show_value) where no patch sets it: "n", or its DEFAULT */
} model_column;

typedef struct model_table {
  const char *name;
  size_t n_columns; /* in the order of the table */
  const model_column *columns;
} model_table;

typedef struct model_patch {
  const model_table *table;
  uint32_t origin;
  int64_t sequence, patched_at;
  const char **shown; /* n_columns; NULL where the patch does not set the column */
  size_t key;         /* equal for patches of one row */
} model_patch;

typedef struct model {
  model_patch *patches;
  size_t n, cap, n_keys;
} model;

/* Notes a patch. `row` is copied. The same (origin, sequence) twice is one patch. */
void model_add(model *m, const model_table *table, uint32_t origin, int64_t sequence,
               int64_t patched_at, const cell *row);
/* The table as a dump of it shows it, folded from all patches that `vector` covers (NULL: from
 * all). `wins` may be NULL; else wins[i] is set where patch i is one of them and must be kept: it
 * wins a cell, or is the newest of its row (m->n of them, of all tables together). */
char *model_fold(const model *m, const model_table *table, const replic_position *vector,
                 size_t n_vector, bool *wins);
/* The same, seen by a peer (NULL: by somebody who has everything). */
char *model_dump(const model *m, const model_table *table, const peer *view);
/* Fails the test unless the peer's table is what its vector says: the patches up to there, and
 * nothing else (I1). */
void model_check(const model *m, const model_table *table, peer *p);

#endif

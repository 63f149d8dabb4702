/* params.h - the parameters of a statement. Not for use outside src/core. */
#ifndef REPLIC_PARAMS_H
#define REPLIC_PARAMS_H

#include <sqlite3.h>

#include "replic.h"

/* The names of a statement's parameters, found by their text. */
typedef struct replic__names replic__names;

/* Binds `params` to `stmt`: all by position or all by name. `lives`: SQLITE_STATIC where the values
 * outlive the next reset of the statement, else SQLITE_TRANSIENT. `*names` belongs to the
 * statement: NULL at first, kept and freed (sqlite3_free) by the caller with it; it is only made
 * where there are names. Errors: REPLIC_EUSAGE with the reason in `*why` (the caller frees it;
 * NULL: out of memory), SQLITE_… */
int replic__bind_params(sqlite3_stmt *stmt, const replic_param *params, size_t n_params,
                        sqlite3_destructor_type lives, replic__names **names, char **why);

#endif

/* mixed.h - the part of floor 3 that is there because peers may be at different versions of the
 * schema: what this one cannot hold of a patch is kept, and merged when it can.
 *
 *   definition.c     what a table of another peer's is here
 *   kept.c           the store of patches that this schema cannot hold
 *   translate.c      of one patch: what is merged, what is kept; and again, under a new schema
 *   schema_change.c  what a change of the schema takes away
 *
 * For src/core and its tests. */
#ifndef REPLIC_MIXED_H
#define REPLIC_MIXED_H

#include "data/data.h"

#define FIELDS_MAX 32767 /* columns of a table in SQLite */

/* A table as another peer has it. */
typedef struct remote_table {
  uint32_t id;
  size_t bytes; /* that it takes, about */
  char *name;
  int n_keys, n_fields;
  char **texts;         /* name and type of each field */
  char **rules;         /* what else is declared of each; NULL: not told */
  int strict;           /* if rules are told */
  uint32_t generation;  /* of the schema it was last compared with */
  replic__table *table; /* the one of ours that it is; NULL: see `why` */
  int *map;             /* its field -> ours; -1: none */
  int n_same;           /* how many of its fields are the same here, by name or rename, and type */
  char *why;            /* what is not the same; NULL: nothing */
  uint64_t piece;       /* the last piece of a jump that speaks of it (jump.c) */
} remote_table;

/* About what a definition takes in memory: so many bytes on the wire, so many fields. */
#define DEFINITION_BYTES(len, n_fields) (sizeof(remote_table) + (len) + 64 * (size_t)(n_fields))

/* ---- definition.c ---- */

/* Reads a text. The caller frees. NULL: out of memory, or a NUL in it (in->failed). */
char *replic__copy_text(replic__reader *in);
/* Reads a definition. The caller frees with replic__free_remote_table. NULL: malformed
 * (in->failed), or out of memory. */
remote_table *replic__read_definition(replic__reader *in);
void replic__free_remote_table(remote_table *t);
/* Put what replic__read_definition reads; the rules may follow. */
void replic__put_definition(replic__writer *w, uint32_t id, const remote_table *t);
void replic__put_own_definition(replic__writer *w, uint32_t id, const replic__table *t);
void replic__put_rules(replic__writer *w, const replic__table *t);
/* Finds which of our tables the definition is (t->table, t->map), and what of it is not the same
 * here (t->why). Does so again after each change of our schema. */
int replic__resolve(replic *r, remote_table *t);
/* Makes room for n values in r->values. */
int replic__reserve_values(replic *r, int n);
/* Sets t->table->values to what this schema can hold of r->values, the fields of a patch: what a
 * column cannot hold counts as the column's fallback, so that by its clock it wins or loses as ever
 * (I2). The definition is resolved, and a table of ours. Returns 1: all of it, and as it was
 * written. */
int replic__map_values(replic *r, const remote_table *t);

/* ---- kept.c ---- */

/* Finds or adds the row of a definition. `source`: who brings it, 0: nobody is charged for it. */
int replic__kept_definition(replic *r, uint32_t source, const replic_frame *definition,
                            int64_t *id);
/* Keeps a patch: its table's definition, and its fields as in a frame. *kept: 0 where it was kept
 * before. NULL for the definition: out of memory. */
int replic__keep(replic *r, uint32_t source, const replic_frame *definition, const replic__patch *p,
                 const void *fields, size_t len, int *kept);
/* The same, and counts it. `why`: NULL: what the definition says, or else its values. */
int replic__keep_as(replic *r, uint32_t source, const remote_table *t, const replic__patch *p,
                    const void *fields, size_t len, const char *why, int *kept);
/* Counts that so many patches of the definition are pending. */
void replic__pending_count(replic *r, const remote_table *t, int64_t patches, int64_t oldest_at);
void replic__pending_uncount(replic *r); /* counts begin at 0 */
void replic__pending_close(replic *r);
int replic__pending_exists(replic *r, uint32_t origin, int64_t sequence, int *exists);
/* One that may be forgotten if it is older; *origin 0: there is none. */
int replic__pending_oldest(replic *r, int64_t older_than_ms, uint32_t *origin, int64_t *sequence);
/* And its definition, if nothing else needs that. */
int replic__pending_forget(replic *r, uint32_t origin, int64_t sequence);
/* At the end of a call: what it has added to what is pending counts, or (0) is undone. */
void replic__pending_settle(replic *r, int is_kept);
/* The patch is issued anew as another one. */
int replic__pending_move(replic *r, const replic__patch *p, const replic__patch *to);
/* A cursor over what is pending of `origin` in (after, up_to], as the log's own; raw->fields NULL:
 * its end. */
int replic__pending_open(replic *r, uint32_t origin, int64_t after, int64_t up_to);
int replic__pending_next(replic *r, int64_t *sequence, int64_t *patched_at, replic__raw *raw);
void replic__pending_reset(replic *r);
/* _patchedAt of the patch that is at `sequence`, or next before (step -1) or after it (1); 0: none.
 */
int replic__pending_clock(replic *r, uint32_t origin, int64_t sequence, int step,
                          int64_t *patched_at);

/* ---- translate.c ---- */

/* Merges a patch that has come from another peer: its fields are in r->values, and as bytes. What
 * this schema cannot hold is kept. Inside a savepoint that has the share of `source`.
 * REPLIC_EQUOTA: `source`, the peer that brings it, may bring no more of that. */
int replic__apply_patch(replic *r, uint32_t source, remote_table *t, const replic_position *at,
                        const uint8_t *fields, size_t len);
/* May so many bytes of patches that `source` brings be pending, beside those that are? Else
 * REPLIC_EQUOTA. */
int replic__check_pending(replic *r, uint32_t source, const remote_table *t, size_t len);
/* Merges what the schema can hold by now. To be called when a schema was registered. */
int replic__pending_load(replic *r);
/* After a rollback: counts what is pending. Never fails: then it is due again. */
void replic__pending_recount(replic *r);

/* ---- schema_change.c ---- */

/* After a change of the schema, in its transaction: keeps what was lost by it, applies what can be
 * held now. */
int replic__pending_schema_changed(replic *r);
/* Before a statement of a step that changes the schema: what was written or received in the same
 * transaction is kept, as nobody sees it as it was before the change. */
int replic__pending_keep_written(replic *r);

#endif

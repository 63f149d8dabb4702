/* core.h - floor 5 of the core: where the floors meet, under what the caller may ask (replic.h).
 * Not for use outside src/core.
 *
 * What each file is for: docs/architecture.md. What decides the data knows nothing of links:
 * engine.c calls replic__sync_flush after a commit, replic__sync_schema_changed after a change of
 * the schema. */
#ifndef REPLIC_CORE_H
#define REPLIC_CORE_H

#include "data/mixed.h"
#include "file/file.h"
#include "links/session.h"
#include "state.h"

/* ---- engine.c ---- */

/* Builds the schema aside, then swaps it in, and tells the links. The old one is freed. */
int replic__reload_schema(replic *r);
/* To be called when the tables were registered as they are now, at the end of a step or of SQL that
 * changes the schema; the transaction is open. What follows from a new schema belongs here. An
 * error undoes the step, or the call. */
int replic__schema_changed(replic *r);
/* Counts the tables and views whose names begin with _replic_. */
int replic__internal_count(replic *r, int64_t *count);

/* ---- run.c ---- */

/* SQL of the application's. What it is given is borrowed. */
typedef struct replic__script {
  int mode; /* AUTH_… */
  int many; /* 1: all statements of the text; 0: exactly one */
  const char *sql;
  size_t len;
  const replic_param *params;
  size_t n_params;
  replic_rows *rows; /* NULL: none are wanted. Else: only reads, and the first row has the names */
  size_t max_rows;   /* of them, without the names */
  int64_t changes, rowid; /* results */
} replic__script;
/* Runs it; the text of a refusal or failure is set. */
int replic__guard_exec(replic *r, replic__script *script);

/* ---- identity.c ---- */

/* Decides who this is. The vector is loaded, the transaction open. REPLIC_ERESTORED: the file was
 * copied or restored, and the application has fixed the peerId. */
int replic__identity_settle(replic *r);
/* After each commit: writes the last own sequence into the witness, which may lag. A failure: the
 * peerId is not kept. */
int replic__identity_witness(replic *r);
void replic__identity_leave(replic *r); /* before the close: what no commit could write */

#endif

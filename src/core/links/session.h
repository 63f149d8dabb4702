/* session.h - what the top may ask of floor 4, links (links.h), beside what the caller may
 * (replic.h). */
#ifndef REPLIC_SESSION_H
#define REPLIC_SESSION_H

#include "replic.h"

/* ---- session.c ---- */

/* Makes r->sync, without links. Before anything else of this floor. SQLITE_NOMEM. */
int replic__sync_open(replic *r);
/* Frees r->sync with all links; the peers are told nothing. NULL is allowed. */
void replic__sync_close(replic *r);
/* To be called when another schema is in use: asks again for what was held. */
void replic__sync_schema_changed(replic *r);

/* ---- flush.c ---- */

/* After a commit: puts frames and acknowledgements into the outbox. Never fails: what is lost for
 * want of memory a heartbeat repairs. */
void replic__sync_flush(replic *r);

/* ---- fork.c ---- */

/* Reads which histories were given up here. */
int replic__fork_load(replic *r);

/* ---- jump.c, merging.c ---- */

/* Reads what an earlier start has staged, and merged of it. In open's transaction, after the
 * schema. */
int replic__jump_load(replic *r);
/* Merges all that is left of a jump, in open's transaction. */
int replic__jump_finish(replic *r);
/* recheck.c: stamps here come after what the log once had. In open's transaction. */
int replic__recheck_load(replic *r);
/* After a rollback: what memory says of a jump is read again. */
void replic__jump_reverted(replic *r);

#endif

/* faults.h - pieces of work on a cluster of two, each done again and again while the n-th call
 * below fails: an allocation (test_nomem), an input or output (test_ioerr). Each time:
 *
 * - the work says so or copes, and never crashes;
 * - memory is what the disk is (I3), and the work succeeds when it is repeated;
 * - nothing is leaked, and the peers still converge. */
#ifndef FAULTS_H
#define FAULTS_H

#include "harness.h"

typedef struct work {
  void (*prepare)(cluster *c); /* on a fresh cluster of two, before anything fails */
  int (*run)(cluster *c);      /* on peer 0; the code */
  void (*check)(cluster *c);   /* after it has succeeded, on the settled cluster */
} work;

extern const work FAULT_WRITE, FAULT_TOGETHER, FAULT_DELETION, FAULT_RECEIVE, FAULT_LINK,
    FAULT_HEARTBEAT, FAULT_SQL, FAULT_MIGRATION, FAULT_OPENING, FAULT_UPGRADE, FAULT_BACKUP,
    FAULT_CHECKPOINT, FAULT_SUMS, FAULT_COMPACTION, FAULT_JUMP, FAULT_SOURCE, FAULT_HEALING,
    FAULT_UNKNOWN, FAULT_UP, FAULT_DOWN, FAULT_SPILLED, FAULT_REFUSED, FAULT_LET_IN;

typedef struct fault_kind {
  const char *what;            /* for messages: "allocation" */
  bool (*is_expected)(int rc); /* codes that such a failure may give */
  int64_t (*held)(void);       /* what must be as before after each round */
  int full_durability;         /* the peers pay for synchronous=FULL */
} fault_kind;

/* The shim asks for every call that could fail whether this one does. */
bool fault_hits(void);

/* Runs the work with each call failing once: alone, and every 7th time with all that follow.
 * `step`: 1, or the average distance between two that are tried, where there are thousands. The
 * environment's STRIDE multiplies it. */
void fault_everywhere(const fault_kind *kind, const work *work, uint32_t step);

#endif

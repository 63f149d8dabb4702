/* orders.h - sets of patches, written as text, in every order on a replica: what test_merge and
 * test_compact share.
 *
 * A set has one line per patch: "origin@clock" and what it sets; k is the key (k0 if it is not
 * given), d is deletedAt, N is NULL. Sequences follow from the order within an origin. Every patch
 * is one frame, and frames are delivered in every order: those that come before their predecessors
 * wait in the early buffer.
 *
 *     "0@10 k1 a1 bN"    origin 0, clock 10, key 1, a = 1, b = NULL
 *
 * One replica serves many rounds, each with origins and keys of its own. */
#ifndef ORDERS_H
#define ORDERS_H

#include "frames.h"
#include "model.h"

enum { MAX_PATCHES = 6, N_ORIGINS = 3 };

typedef struct kind {
  const char *ddl; /* of the table t(k, a, b, c, d) */
  bool required;   /* a and b are NOT NULL */
} kind;
extern const kind KINDS[];
extern const size_t N_KINDS;

typedef struct patch {
  int origin, key;
  int64_t sequence, patched_at;
  cell row[6];
  replic_value values[5]; /* k, a, b, c, d */
} patch;

typedef struct set {
  patch patches[MAX_PATCHES];
  int n;
} set;

typedef struct expectation { /* what the model makes of the first patches of each origin */
  const char *table;
  bool wins[MAX_PATCHES]; /* which of them must be kept */
} expectation;

typedef struct scene scene;
struct scene {
  cluster *c;
  peer *p;
  int w;
  const kind *kind;
  const set *set;
  int arrivals[MAX_PATCHES]; /* indexes of patches, in the order to be permuted; may repeat */
  int n_arrivals;
  int round;
  void (*play)(scene *x, const int *order);
  expectation *known[7][7][7];
};

void set_parse(set *s, const char *const *lines, int n);
/* Calls `play` for all orders of `arrivals` (NULL: each patch once). */
void every_order(const kind *kind, const set *s, const char *arrivals,
                 void (*play)(scene *x, const int *order));
/* The same for every kind of table that can hold the set. */
void in_every_order_and_kind(const char *const *lines, int n, const char *arrivals,
                             void (*play)(scene *x, const int *order));

/* Within `play`: begins a round, on a fresh replica where the last one has had enough of them. */
void round_begin(scene *x, const int *order, const char *note);
/* The frame of patch i as it is in this round. */
bytes *round_frame(const scene *x, int i);
/* The origin in this round. */
uint32_t round_origin(const scene *x, int origin);
/* What must be there now, by the replica's vector. */
const expectation *round_expected(scene *x);
void round_check(scene *x);
/* Everything has been applied. */
void round_end(scene *x);

#endif

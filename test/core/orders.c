/* orders.c - see orders.h */
#include "orders.h"

#include <stdlib.h>
#include <string.h>

#define CLOCK                                                                                      \
  "_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId INTEGER NOT NULL, _nulls "   \
  "TEXT, "

enum { REMOTE = 900, ROUNDS_PER_REPLICA = 60 };

const kind KINDS[] = {
    {"CREATE TABLE t(k INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, d INTEGER);"
     "CREATE TABLE t_patches(" CLOCK "k INTEGER, a INTEGER, b INTEGER, c INTEGER, d INTEGER);",
     false},
    {"CREATE TABLE t(k INTEGER NOT NULL PRIMARY KEY, a INTEGER NOT NULL, b INTEGER NOT NULL, c "
     "INTEGER, d INTEGER) WITHOUT ROWID;"
     "CREATE TABLE t_patches(" CLOCK "k INTEGER, a INTEGER, b INTEGER, c INTEGER, d INTEGER);",
     true},
    {"CREATE TABLE t(k INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, d INTEGER);"
     "CREATE TABLE t_patches(" CLOCK
     "k INTEGER, a INTEGER, b INTEGER, c INTEGER, d INTEGER, PRIMARY KEY(_peerId, _sequenceId)) "
     "WITHOUT ROWID;"
     "CREATE INDEX t_a ON t(a); CREATE INDEX t_abc ON t(c DESC, b); CREATE INDEX p_a ON "
     "t_patches(a, k);"
     "CREATE INDEX p_c ON t_patches(_patchedAt); CREATE INDEX p_k ON t_patches(k);",
     false},
    {"CREATE TABLE t(k INTEGER PRIMARY KEY, a INTEGER NOT NULL CHECK (a > 1000), b INTEGER NOT "
     "NULL, c INTEGER, d INTEGER);"
     "CREATE TABLE t_patches(" CLOCK
     "k INTEGER, a INTEGER CHECK (a < 0), b INTEGER, c INTEGER, d INTEGER);"
     "CREATE INDEX t_a ON t(a) WHERE d IS NULL; CREATE INDEX p_a ON t_patches(k, a) WHERE a IS NOT "
     "NULL;",
     true},
};

const size_t N_KINDS = COUNT(KINDS);

void set_parse(set *s, const char *const *lines, int n) {
  static const char *const NAMES[] = {"k", "a", "b", "c", "d"};
  int64_t sequences[N_ORIGINS] = {0};
  s->n = n;
  for (int i = 0; i < n; i++) {
    patch *p = &s->patches[i];
    char *at;
    *p = (patch){.origin = lines[i][0] - '0'};
    p->sequence = ++sequences[p->origin];
    p->patched_at = strtoll(lines[i] + 2, &at, 10);
    for (; *at; at += 3) { /* " a1" */
      int column = at[1] == 'k' ? 0 : at[1] - 'a' + 1;
      p->values[column] = at[2] == 'N' ? v_null() : v_int(at[2] - '0');
    }
    if (p->values[0].type == REPLIC_UNSET) p->values[0] = v_int(0);
    p->key = (int)p->values[0].i;
    for (int column = 0, cells = 0; column < 5; column++) {
      if (p->values[column].type != REPLIC_UNSET)
        p->row[cells++] = (cell){NAMES[column], p->values[column]};
    }
  }
}

/* ---- a round ---- */

uint32_t round_origin(const scene *x, int origin) {
  return (uint32_t)(1000 + N_ORIGINS * x->round + origin);
}

/* A replica for the next rounds; the old one, whose vector has grown with every round, is stopped.
 */
static void set_the_scene(scene *x) {
  static const char *const FIELDS[] = {"k",       "INTEGER", "a",       "INTEGER", "b",
                                       "INTEGER", "c",       "INTEGER", "d",       "INTEGER"};
  if (x->c) peer_stop(x->p);
  x->c = cluster_start(1, x->kind->ddl);
  x->p = &x->c->peers[0];
  x->w = wire_open_test(x->c, 0);
  play(x->c, x->w, hello_frame(REMOTE, x->c->now_ms, NULL, 0));
  play(x->c, x->w, schema_frame(7, "t", 1, 5, FIELDS));
}

void round_begin(scene *x, const int *order, const char *note) {
  char shown[MAX_PATCHES + 1] = "";
  for (int i = 0; i < x->n_arrivals; i++) shown[i] = (char)('0' + order[i]);
  test_note("patches in the order %s, round %d%s", shown, x->round, note);
  if (x->round % ROUNDS_PER_REPLICA == 0) set_the_scene(x);
}

bytes *round_frame(const scene *x, int i) {
  const patch *p = &x->set->patches[i];
  replic_value values[5];
  memcpy(values, p->values, sizeof values);
  values[0] = v_int(2 * x->round + p->key);
  bytes *frame = patches_frame(round_origin(x, p->origin), p->sequence - 1, p->sequence);
  add_patch(frame, 1, true, (uint64_t)p->patched_at, 7, 1, 5, values);
  return whole(frame->data, frame->len);
}

/* Worked out once per vector. */
const expectation *round_expected(scene *x) {
  int64_t counts[N_ORIGINS];
  for (int i = 0; i < N_ORIGINS; i++) counts[i] = peer_at(x->p, round_origin(x, i));
  expectation **known = &x->known[counts[0]][counts[1]][counts[2]];
  if (*known) return *known;
  const model_column columns[] = {{"k", true, false, "n"},
                                  {"a", false, x->kind->required, "n"},
                                  {"b", false, x->kind->required, "n"},
                                  {"c", false, false, "n"},
                                  {"d", false, false, "n"}};
  const model_table table = {"t", COUNT(columns), columns};
  model m = {0};
  int numbers[MAX_PATCHES];
  bool wins[MAX_PATCHES] = {false};
  *known = test_alloc(sizeof **known);
  for (int i = 0; i < x->set->n; i++) {
    const patch *p = &x->set->patches[i];
    if (p->sequence > counts[p->origin]) continue;
    numbers[m.n] = i;
    model_add(&m, &table, (uint32_t)p->origin + 1, p->sequence, p->patched_at, p->row);
  }
  (*known)->table = model_fold(&m, &table, NULL, 0, wins);
  for (size_t i = 0; i < m.n; i++) (*known)->wins[numbers[i]] = wins[i];
  return *known;
}

void round_check(scene *x) {
  char *seen = sql_dump(peer_sql(x->p),
                        test_format("SELECT k - %d, a, b, c, d FROM t WHERE k BETWEEN %d AND %d",
                                    2 * x->round, 2 * x->round, 2 * x->round + 1));
  CHECK_TEXT(seen, round_expected(x)->table);
}

void round_end(scene *x) {
  for (int i = 0; i < x->set->n; i++) {
    const patch *p = &x->set->patches[i];
    CHECK(peer_at(x->p, round_origin(x, p->origin)) >= p->sequence);
  }
  round_check(x);
  take_frames(x->c, x->w, 0);
  x->round++;
}

/* ---- every order ---- */

static void permute(scene *x, int *order, int fixed) {
  if (fixed == x->n_arrivals) {
    x->play(x, order);
    return;
  }
  for (int i = fixed; i < x->n_arrivals; i++) {
    int kept = order[fixed];
    order[fixed] = order[i];
    order[i] = kept;
    permute(x, order, fixed + 1);
    order[i] = order[fixed];
    order[fixed] = kept;
  }
}

void every_order(const kind *kind, const set *s, const char *arrivals,
                 void (*play)(scene *x, const int *order)) {
  scene *x = test_alloc(sizeof *x);
  x->kind = kind;
  x->set = s;
  x->play = play;
  x->n_arrivals = arrivals ? (int)strlen(arrivals) : s->n;
  for (int i = 0; i < x->n_arrivals; i++) x->arrivals[i] = arrivals ? arrivals[i] - '0' : i;
  permute(x, x->arrivals, 0);
  test_release();
}

void in_every_order_and_kind(const char *const *lines, int n, const char *arrivals,
                             void (*play)(scene *x, const int *order)) {
  for (size_t i = 0; i < N_KINDS; i++) {
    bool sets_null = false;
    for (int k = 0; k < n; k++)
      sets_null = sets_null || strstr(lines[k], "aN") || strstr(lines[k], "bN");
    if (KINDS[i].required && sets_null) continue; /* no peer writes NULL where NULL may not be */
    set s;
    set_parse(&s, lines, n);
    every_order(&KINDS[i], &s, arrivals, play);
  }
}

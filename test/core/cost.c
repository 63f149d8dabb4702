/* cost.c - what a row costs in instructions: run by cost.sh under callgrind, which counts only what
 * happens inside measured().
 *
 *   cost write   calls of 1,000 rows, a commit each
 *   cost single  calls of one row, a commit each
 *   cost flight  the same, 100 of them a commit, as the binding makes calls that wait together
 *   cost apply   the frames that 1,000 rows of another peer make, a commit for each frame
 *   cost late    the same, where all patches meet newer ones of the same keys
 *
 * The rows and the layout are those of bench/floor.c. */
#include <stdio.h>
#include <string.h>

#include "harness.h"

enum { ROWS_PER_CALL = 1000, WARM = 5, CALLS = 20, N_COLUMNS = 6, IN_FLIGHT = 100 };

static const char DDL[] =
    "CREATE TABLE item(id INTEGER NOT NULL PRIMARY KEY, tenantId INTEGER, name TEXT, mail TEXT,"
    " body TEXT, updatedAt INTEGER) STRICT;"
    "CREATE TABLE item_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId"
    " INTEGER NOT NULL, _nulls TEXT, id INTEGER NOT NULL, tenantId INTEGER, name TEXT, mail TEXT,"
    " body TEXT, updatedAt INTEGER, PRIMARY KEY(_peerId, _sequenceId)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX item_patches_key ON item_patches(id, _patchedAt);";
static const char *const COLUMNS[] = {"id", "tenantId", "name", "mail", "body", "updatedAt"};
static const char *work;

static replic_change make_rows(int64_t first, size_t n) {
  replic_value *values = test_alloc(n * N_COLUMNS * sizeof *values), *at = values;
  for (size_t i = 0; i < n; i++, at += N_COLUMNS) {
    long long id = (long long)first + (long long)i;
    at[0] = v_int(id);
    at[1] = v_int(id % 97);
    at[2] = v_text(test_format("name of item number %lld", id));
    at[3] = v_text(test_format("item.%lld@tenant-%lld.example.org", id, id % 97));
    at[4] = v_text(test_format(
        "The quick brown fox jumps over the lazy dog, and the dog looks up, and sleeps on. %lld",
        id));
    at[5] = v_int(1700000000000 + id);
  }
  return (replic_change){REPLIC_UPSERT, "item", N_COLUMNS, COLUMNS, n, values};
}

static void write_change(peer *p, const replic_change *change) {
  int64_t sequence;
  peer_begin(p);
  CHECK_OK(p->r, replic_write(p->r, change, 1, &sequence));
  CHECK_OK(p->r, peer_commit(p));
}

static void write_together(peer *p, const replic_change *rows) {
  int64_t sequence;
  peer_begin(p);
  CHECK_OK(p->r, replic_together(p->r));
  for (int i = 0; i < IN_FLIGHT; i++) CHECK_OK(p->r, replic_write(p->r, &rows[i], 1, &sequence));
  CHECK_OK(p->r, replic_apart(p->r, REPLIC_OK));
  CHECK_OK(p->r, peer_commit(p));
}

/* callgrind looks for this name. Writes `change`, or delivers the frame that is next at peer 1. */
__attribute__((noinline)) static void measured(peer *p, const replic_change *change) {
  if (change && !strcmp(work, "flight"))
    write_together(p, change);
  else if (change)
    write_change(p, change);
  else
    wire_deliver(p->cluster, 0, 1, 0);
}

static void write_rows(peer *p, size_t per_call) {
  for (int i = 0; i < WARM + CALLS; i++)
    for (size_t done = 0; done < ROWS_PER_CALL; done += per_call) {
      replic_change change = make_rows(1 + i * (int64_t)ROWS_PER_CALL + (int64_t)done, per_call);
      p->cluster->now_ms++;
      if (i < WARM)
        write_change(p, &change);
      else
        measured(p, &change);
    }
}

static void write_flights(peer *p) {
  for (int64_t done = 0; done < (WARM + CALLS) * ROWS_PER_CALL; done += IN_FLIGHT) {
    replic_change rows[IN_FLIGHT];
    for (int i = 0; i < IN_FLIGHT; i++) rows[i] = make_rows(1 + done + i, 1);
    p->cluster->now_ms++;
    if (done < WARM * ROWS_PER_CALL)
      write_together(p, rows);
    else
      measured(p, rows);
  }
}

/* Peer 0 has written what peer 1 applies. `late`: it has newer patches of the same keys. */
static void apply_rows(cluster *c, int late) {
  packet_queue *queues = NULL;
  for (int i = 0; i < CALLS; i++) {
    replic_change change = make_rows(1 + i * (int64_t)ROWS_PER_CALL, ROWS_PER_CALL);
    c->now_ms++;
    write_change(&c->peers[0], &change);
    c->peers[1].clock_step_ms = 1000;
    if (late) write_change(&c->peers[1], &change);
  }
  wire_open(c, 0, 1);
  queues = c->wires[0].to;
  while (queues[0].n + queues[1].n > 0)
    if (queues[1].n > 0)
      measured(&c->peers[1], NULL);
    else
      wire_deliver(c, 0, 0, 0);
  CHECK_INT(peer_at(&c->peers[1], c->peers[0].id), CALLS * ROWS_PER_CALL);
}

static void cost(void) {
  cluster *c = cluster_start(2, DDL);
  if (!strcmp(work, "write")) write_rows(&c->peers[0], ROWS_PER_CALL);
  if (!strcmp(work, "single")) write_rows(&c->peers[0], 1);
  if (!strcmp(work, "flight")) write_flights(&c->peers[0]);
  if (!strcmp(work, "apply")) apply_rows(c, 0);
  if (!strcmp(work, "late")) apply_rows(c, 1);
}

int main(int argc, char **argv) {
  static const test tests[] = {TEST(cost)};
  work = argc == 2 ? argv[1] : "";
  return run_tests(1, argv, tests, 1);
}

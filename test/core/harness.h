/* harness.h - what the tests of the core share:
 *
 * - a list of tests, and checks that say what they saw;
 * - a temporary folder per test;
 * - plain SQL on the side, to see the files as any other program would;
 * - a cluster: replicas on temporary files, joined by queues in memory. The test decides what
 *   happens to every frame.
 *
 *     peer 0 ──[ to side 1: frame, frame, … ]──> peer 1        one `wire` per connection,
 *            <─[ to side 0: frame, … ]──────────               one queue per direction
 *
 * Nothing sleeps and nothing reads the clock: cluster->now_ms is the time, and only the test moves
 * it. A failed check ends its test; everything that a test has opened or allocated here is released
 * when it ends. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

#include "replic.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- tests and checks --------------------------------------------------------------------------------------- */

typedef struct test {
  const char *name;
  void (*run)(void);
} test;
#define TEST(function)                                                                             \
  { #function, function }

/* Runs the tests whose name starts with argv[1] (all, without). Prints "ok name" or "not ok name"
 * for each and "N passed, N failed" at the end. Returns the exit status. */
int run_tests(int argc, char **argv, const test *tests, size_t n_tests);

/* A line that is printed if this test fails (the seed, the permutation). Replaces the former one.
 */
void test_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Zeroed memory that lives until the test ends. Never NULL. */
void *test_alloc(size_t size);
char *test_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Releases everything that this test has so far, files too: for a test that makes many rounds. */
void test_release(void);
/* Where temporary folders go: $TMPDIR; else in memory, where there is a large enough folder. */
const char *temporary_base(void);
/* A path in this test's folder. It lives until the test ends, and so do the files. */
char *test_path(const char *name);

_Noreturn void check_failed(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void check_int(const char *file, int line, const char *what, int64_t seen, int64_t wanted);
void check_text(const char *file, int line, const char *what, const char *seen, const char *wanted);
void check_contains(const char *file, int line, const char *what, const char *text,
                    const char *part);
void check_code(const char *file, int line, const char *what, const replic *r, int seen,
                int wanted);

#define CHECK(expr) ((expr) ? (void)0 : check_failed(__FILE__, __LINE__, "%s", #expr))
#define CHECK_INT(expr, wanted)                                                                    \
  check_int(__FILE__, __LINE__, #expr, (int64_t)(expr), (int64_t)(wanted))
#define CHECK_TEXT(expr, wanted) check_text(__FILE__, __LINE__, #expr, (expr), (wanted))
#define CHECK_CONTAINS(expr, part) check_contains(__FILE__, __LINE__, #expr, (expr), (part))
/* The result code of a call on `r`; prints both names and r's error text. */
#define CHECK_CODE(r, expr, wanted) check_code(__FILE__, __LINE__, #expr, (r), (expr), (wanted))
#define CHECK_OK(r, expr) CHECK_CODE(r, expr, REPLIC_OK)

/* ---- random numbers ------------------------------------------------------------------------------------------ */

typedef struct rng {
  uint64_t state; /* the seed: any value */
} rng;
uint64_t rng_next(rng *g);
/* 0 … n - 1; n > 0 */
uint32_t rng_below(rng *g, uint32_t n);
bool rng_chance(rng *g, uint32_t percent);
/* An environment variable as a number, or `fallback` where it is not set. */
int64_t env_number(const char *name, int64_t fallback);

/* ---- values, as they are written and as they are shown -------------------------------------------------------- */

replic_value v_null(void);
replic_value v_int(int64_t i);
replic_value v_real(double d);
replic_value v_text(const char *text);
replic_value v_blob(const void *data, size_t len);

typedef struct cell {
  const char *column;
  replic_value value;
} cell;
/* ROW({"id", v_int(1)}, {"name", v_text("x")}): a row, ended by a cell without a column */
#define ROW(...)                                                                                   \
  (const cell[]) {                                                                                 \
    __VA_ARGS__, {                                                                                 \
      NULL, {                                                                                      \
        0, 0, 0, NULL, 0                                                                           \
      }                                                                                            \
    }                                                                                              \
  }
size_t row_width(const cell *row);

/* One text for one value, exact to the bit: "n", "i-5", "r3ff0000000000000", "t6162", "b00ff"; text
 * and blobs beyond 64 bytes as length and hash. Lives until the test ends. */
char *show_value(const replic_value *value);

/* ---- plain SQL ------------------------------------------------------------------------------------------------ */

/* Runs SQL on a plain connection, and fails the test on an error. */
void sql_exec(sqlite3 *db, const char *sql);
/* First column of the first row; the test fails where there is none. Text: "" for NULL. */
int64_t sql_int(sqlite3 *db, const char *sql);
char *sql_text(sqlite3 *db, const char *sql);
/* Every row of a query as values joined by "|", the lines sorted by their bytes: equal texts mean
 * equal tables. */
char *sql_dump(sqlite3 *db, const char *sql);
/* Sorts `lines` and joins them, each ended by a newline. */
char *join_sorted(char **lines, size_t n_lines);
/* "…" as an identifier in SQL */
char *quote_name(const char *name);

/* ---- cluster -------------------------------------------------------------------------------------------------- */

enum { MAX_PEERS = 8, MAX_WIRES = 256 };

typedef struct cluster cluster;

typedef struct peer {
  cluster *cluster;
  int index;
  replic *r;             /* NULL while the peer is down */
  uint32_t id;           /* its peerId; stays while it is down */
  replic_config config;  /* used at every start */
  int64_t clock_step_ms; /* its wall clock minus the cluster's */
  sqlite3 *reader;       /* a plain connection, opened by peer_sql */
  replic_event *events;  /* all events since the start or peer_forget_events */
  size_t n_events, cap_events;
} peer;

typedef struct packet {
  uint8_t *data;
  size_t len;
} packet;

typedef struct packet_queue {
  packet *packets;
  size_t n, cap;
} packet_queue;

typedef struct wire {
  int peers[2];       /* indexes; -1: the test itself plays this side */
  uint32_t number;    /* the `link` of both cores */
  bool open[2];       /* whether that side still holds its link */
  bool reads[2];      /* that side may only read at the other one */
  packet_queue to[2]; /* frames on their way to that side, oldest first */
} wire;

struct cluster {
  int64_t now_ms;
  int n_peers;
  peer peers[MAX_PEERS];
  int n_wires;
  wire wires[MAX_WIRES];
  int64_t frames_delivered;
};

/* A cluster without peers, released when the test ends. */
cluster *cluster_new(void);
/* A cluster of n running peers with the ids 101, 102, …, whose tables `ddl` (may be NULL) has made
 * (migration 1). */
cluster *cluster_start(int n, const char *ddl);
/* Adds a peer that is not yet running. Its config may be changed before peer_start. */
peer *cluster_add(cluster *c);

/* Opens the replica; the test fails if that fails. */
void peer_start(peer *p);
int peer_try_start(peer *p); /* the code; p->r is set for its error text, and must be stopped */
/* Closes it as a crash would: an open batch and an outbox that was not taken are lost, its wires
 * are cut. */
void peer_stop(peer *p);
/* Copies one file; from none there is none to. */
void file_copy(const char *from, const char *to);
/* Copies all files of a peer that is down, by their path, to another place or back. */
void files_copy(const char *from, const char *to);
/* Stops the peer and copies it with all its files: both go on, with one peerId. */
peer *peer_fork(peer *p);
int64_t peer_now(const peer *p);
sqlite3 *peer_sql(peer *p);
/* Everything that decides the state: the rows of a table. */
char *peer_dump(peer *p, const char *table);
int64_t peer_at(const peer *p, uint32_t origin); /* its vector */

/* One batch. peer_commit and peer_rollback move the outbox into the wires and the events. */
void peer_begin(peer *p);
int peer_commit(peer *p);
void peer_rollback(peer *p);
void peer_take_outbox(peer *p);

/* Batches of one call. The ones without try_ fail the test on an error; the others give the code,
 * rolled back. */
int64_t upsert(peer *p, const char *table, const cell *row);
int try_upsert(peer *p, const char *table, const cell *row);
int64_t erase(peer *p, const char *table, const cell *key);
int try_erase(peer *p, const char *table, const cell *key);
int try_write(peer *p, const replic_change *changes, size_t n_changes, int64_t *sequence);
void run_sql(peer *p, const char *sql); /* any number of statements, `unsafe` */
int try_run(peer *p, const char *sql, int unsafe);
int try_migrate(peer *p, int64_t version, const char *up, const char *down);
void tick(peer *p);
/* One slice of retention, which must not fail. */
replic_compaction peer_compact(peer *p, int64_t older_than_ms, int64_t max_patches);

/* Connects two peers (each gets its number from the cluster) and returns the wire's index. The
 * HELLOs are queued. */
int wire_open(cluster *c, int a, int b);
/* b may only read at a. */
int wire_open_reader(cluster *c, int a, int b);
/* The same in steps: a wire whose ends are closed, and opening one of them. */
int wire_add(cluster *c, int a, int b);
void wire_open_side(cluster *c, int w, int side);
/* Connects a peer to the test itself: frames to side 1 stay in the queue until the test takes them.
 */
int wire_open_test(cluster *c, int a);
int wire_open_test_as(cluster *c, int a, bool reads); /* as one that may only read */
/* Closes both ends; what was on its way is lost. */
void wire_cut(cluster *c, int w);
/* Delivers frame i of those on their way to a side, in a batch of its own. */
void wire_deliver(cluster *c, int w, int to_side, size_t i);
void wire_drop(cluster *c, int w, int to_side, size_t i);
void wire_duplicate(cluster *c, int w, int to_side, size_t i);
void wire_swap(cluster *c, int w, int to_side, size_t i, size_t j);
/* Puts bytes on their way to a side (copied). */
void wire_put(cluster *c, int w, int to_side, const void *bytes, size_t len);
/* Hands bytes to a peer as one frame, in a batch of its own; the batch itself must not fail. */
void peer_receive(peer *p, uint32_t link, const void *bytes, size_t len);

/* Delivers all that is on its way, oldest first, until nothing is. */
void cluster_deliver(cluster *c);
/* `n` heartbeats: time passes, every peer ticks, all is delivered. */
void cluster_beat(cluster *c, int n);
/* Beats until all running peers have one vector; the test fails if they never do. */
void cluster_settle(cluster *c);
/* Fails the test unless every running peer shows the same rows of this table. Returns them. */
char *cluster_same(cluster *c, const char *table);

/* Events that a peer has given since its start or peer_forget_events. */
size_t event_count(const peer *p, int kind);
/* The last one of a kind; the test fails where there is none. Borrowed until the peer's next call.
 */
const replic_event *event_last(const peer *p, int kind);
void peer_forget_events(peer *p);

#endif

/* harness.c - see harness.h. What a test acquires hangs on two lists, clusters and memory, so that
 * it is released when the test ends, also when a failed check has jumped out of it. */
#define _XOPEN_SOURCE 700
#include "harness.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- tests and checks --------------------------------------------------------------------------------------- */

typedef union held {
  union held *next;
  max_align_t align;
} held;

static jmp_buf failed_check;
static held *test_memory;
static cluster *test_clusters[64];
static size_t n_test_clusters;
static char root_path[512];
static char test_folder[640];
static char note[512];

static void out_of_memory(void) {
  fprintf(stderr, "the test program is out of memory\n");
  exit(2);
}

void *test_alloc(size_t size) {
  held *node = calloc(1, sizeof(held) + size);
  if (!node) out_of_memory();
  node->next = test_memory;
  test_memory = node;
  return node + 1;
}

static char *format_list(const char *format, va_list args) {
  va_list again;
  va_copy(again, args);
  int len = vsnprintf(NULL, 0, format, args);
  char *text = test_alloc((size_t)len + 1);
  vsnprintf(text, (size_t)len + 1, format, again);
  va_end(again);
  return text;
}

char *test_format(const char *format, ...) {
  va_list args;
  va_start(args, format);
  char *text = format_list(format, args);
  va_end(args);
  return text;
}

char *test_path(const char *name) {
  return test_format("%s/%s", test_folder, name);
}

void test_note(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(note, sizeof note, format, args);
  va_end(args);
}

_Noreturn void check_failed(const char *file, int line, const char *format, ...) {
  va_list args;
  printf("# %s:%d: ", file, line);
  va_start(args, format);
  vprintf(format, args);
  va_end(args);
  if (note[0]) printf("\n# (%s)", note);
  printf("\n");
  fflush(stdout);
  if (!test_folder[0]) abort(); /* no test is running: a fuzzer is */
  longjmp(failed_check, 1);
}

void check_int(const char *file, int line, const char *what, int64_t seen, int64_t wanted) {
  if (seen != wanted)
    check_failed(file, line, "%s is %lld, not %lld", what, (long long)seen, (long long)wanted);
}

void check_text(const char *file, int line, const char *what, const char *seen,
                const char *wanted) {
  if (strcmp(seen, wanted) != 0)
    check_failed(file, line, "%s is\n%s\n# and not\n%s", what, seen, wanted);
}

void check_contains(const char *file, int line, const char *what, const char *text,
                    const char *part) {
  if (!text || !strstr(text, part)) {
    check_failed(file, line, "%s is \"%s\" and does not contain \"%s\"", what,
                 text ? text : "(null)", part);
  }
}

void check_code(const char *file, int line, const char *what, const replic *r, int seen,
                int wanted) {
  if (seen == wanted) return;
  check_failed(file, line, "%s gives %s (%d) and not %s (%d): %s", what,
               seen ? replic_code_name(seen) : "OK", seen, wanted ? replic_code_name(wanted) : "OK",
               wanted, r ? replic_error_text(r) : "(no replica)");
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place) {
  (void)status, (void)kind, (void)place;
  return remove(path);
}

static void remove_tree(const char *path) {
  nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void queue_clear(packet_queue *queue) {
  for (size_t i = 0; i < queue->n; i++) free(queue->packets[i].data);
  free(queue->packets);
  *queue = (packet_queue){0};
}

static void release_cluster(cluster *c) {
  for (int i = 0; i < c->n_peers; i++) {
    sqlite3_close(c->peers[i].reader);
    replic_close(c->peers[i].r);
  }
  for (int w = 0; w < c->n_wires; w++) {
    queue_clear(&c->wires[w].to[0]);
    queue_clear(&c->wires[w].to[1]);
  }
}

void test_release(void) {
  while (n_test_clusters > 0) release_cluster(test_clusters[--n_test_clusters]);
  while (test_memory) {
    held *next = test_memory->next;
    free(test_memory);
    test_memory = next;
  }
  note[0] = 0;
  if (!test_folder[0]) return;
  remove_tree(test_folder);
  if (mkdir(test_folder, 0700) != 0) {
    fprintf(stderr, "%s: %s\n", test_folder, strerror(errno));
    exit(2);
  }
}

const char *temporary_base(void) {
  const char *base = getenv("TMPDIR");
  struct statvfs room;
  if (base && *base) return base;
  if (access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &room) == 0 &&
      room.f_bavail * room.f_frsize >= 512u << 20) {
    return "/dev/shm";
  }
  return "/tmp";
}

static bool run_one(const test *t) {
  snprintf(test_folder, sizeof test_folder, "%s/%s", root_path, t->name);
  test_release();
  volatile bool passed = false;
  if (setjmp(failed_check) == 0) {
    t->run();
    passed = true;
  }
  test_release();
  remove_tree(test_folder);
  return passed;
}

int run_tests(int argc, char **argv, const test *tests, size_t n_tests) {
  const char *prefix = argc > 1 ? argv[1] : "";
  int passed = 0, failed = 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  snprintf(root_path, sizeof root_path, "%s/replic-test-XXXXXX", temporary_base());
  if (!mkdtemp(root_path)) {
    printf("# %s: %s\n", root_path, strerror(errno));
    return 2;
  }
  for (size_t i = 0; i < n_tests; i++) {
    if (strncmp(tests[i].name, prefix, strlen(prefix)) != 0) continue;
    bool ok = run_one(&tests[i]);
    printf("%s %s\n", ok ? "ok" : "not ok", tests[i].name);
    if (ok)
      passed++;
    else
      failed++;
  }
  remove_tree(root_path);
  if (passed + failed == 0) printf("# no test is named %s…\n", prefix);
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || passed == 0;
}

/* ---- random numbers ------------------------------------------------------------------------------------------ */

uint64_t rng_next(rng *g) { /* splitmix64 */
  uint64_t z = (g->state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint32_t rng_below(rng *g, uint32_t n) {
  return (uint32_t)((rng_next(g) >> 32) * n >> 32);
}

bool rng_chance(rng *g, uint32_t percent) {
  return rng_below(g, 100) < percent;
}

int64_t env_number(const char *name, int64_t fallback) {
  const char *text = getenv(name);
  return text && *text ? strtoll(text, NULL, 10) : fallback;
}

/* ---- values -------------------------------------------------------------------------------------------------- */

replic_value v_null(void) {
  return (replic_value){.type = REPLIC_NULL};
}

replic_value v_int(int64_t i) {
  return (replic_value){.type = REPLIC_INT, .i = i};
}

replic_value v_real(double d) {
  return (replic_value){.type = REPLIC_REAL, .d = d};
}

replic_value v_text(const char *text) {
  return (replic_value){.type = REPLIC_TEXT, .data = text, .len = strlen(text)};
}

replic_value v_blob(const void *data, size_t len) {
  return (replic_value){.type = REPLIC_BLOB, .data = data, .len = len};
}

size_t row_width(const cell *row) {
  size_t n = 0;
  while (row[n].column) n++;
  return n;
}

static char *show_bytes(char kind, const uint8_t *data, size_t len) {
  if (len > 64) {
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < len; i++) hash = (hash ^ data[i]) * 0x100000001b3u;
    return test_format("%c[%zu]%016llx", kind, len, (unsigned long long)hash);
  }
  char *text = test_alloc(2 * len + 2);
  text[0] = kind;
  for (size_t i = 0; i < len; i++) snprintf(text + 1 + 2 * i, 3, "%02x", data[i]);
  return text;
}

char *show_value(const replic_value *value) {
  uint64_t bits;
  switch (value->type) {
  case REPLIC_INT: return test_format("i%lld", (long long)value->i);
  case REPLIC_REAL:
    memcpy(&bits, &value->d, sizeof bits);
    return test_format("r%016llx", (unsigned long long)bits);
  case REPLIC_TEXT: return show_bytes('t', value->data, value->len);
  case REPLIC_BLOB: return show_bytes('b', value->data, value->len);
  default: return test_format("n");
  }
}

/* ---- plain SQL ----------------------------------------------------------------------------------------------- */

static replic_value column_value(sqlite3_stmt *stmt, int i) {
  switch (sqlite3_column_type(stmt, i)) {
  case SQLITE_INTEGER: return v_int(sqlite3_column_int64(stmt, i));
  case SQLITE_FLOAT: return v_real(sqlite3_column_double(stmt, i));
  case SQLITE_TEXT: {
    const void *text = sqlite3_column_text(stmt, i);
    return (replic_value){
        .type = REPLIC_TEXT, .data = text, .len = (size_t)sqlite3_column_bytes(stmt, i)};
  }
  case SQLITE_BLOB: {
    const void *data = sqlite3_column_blob(stmt, i);
    return v_blob(data, (size_t)sqlite3_column_bytes(stmt, i));
  }
  default: return v_null();
  }
}

void sql_exec(sqlite3 *db, const char *sql) {
  char *message = NULL;
  if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) {
    char *copy = test_format("%s", message ? message : "?");
    sqlite3_free(message);
    check_failed(__FILE__, __LINE__, "%s: %s", sql, copy);
  }
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql) {
  sqlite3_stmt *stmt = NULL;
  if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
    check_failed(__FILE__, __LINE__, "%s: %s", sql, sqlite3_errmsg(db));
  }
  return stmt;
}

int64_t sql_int(sqlite3 *db, const char *sql) {
  sqlite3_stmt *stmt = prepare(db, sql);
  bool found = sqlite3_step(stmt) == SQLITE_ROW;
  int64_t value = found ? sqlite3_column_int64(stmt, 0) : 0;
  sqlite3_finalize(stmt);
  if (!found) check_failed(__FILE__, __LINE__, "%s: no row (%s)", sql, sqlite3_errmsg(db));
  return value;
}

char *sql_text(sqlite3 *db, const char *sql) {
  sqlite3_stmt *stmt = prepare(db, sql);
  bool found = sqlite3_step(stmt) == SQLITE_ROW;
  const char *text = found ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
  char *copy = test_format("%s", text ? text : "");
  sqlite3_finalize(stmt);
  if (!found) check_failed(__FILE__, __LINE__, "%s: no row (%s)", sql, sqlite3_errmsg(db));
  return copy;
}

static int compare_lines(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

char *join_sorted(char **lines, size_t n_lines) {
  size_t len = 1;
  if (n_lines) qsort(lines, n_lines, sizeof *lines, compare_lines);
  for (size_t i = 0; i < n_lines; i++) len += strlen(lines[i]) + 1;
  char *text = test_alloc(len), *end = text;
  for (size_t i = 0; i < n_lines; i++) {
    size_t line_len = strlen(lines[i]);
    memcpy(end, lines[i], line_len);
    end += line_len;
    *end++ = '\n';
  }
  return text;
}

static char *show_row(sqlite3_stmt *stmt) {
  int n = sqlite3_column_count(stmt);
  size_t len = 1;
  char **values = test_alloc((size_t)n * sizeof *values);
  for (int i = 0; i < n; i++) {
    replic_value value = column_value(stmt, i);
    values[i] = show_value(&value);
    len += strlen(values[i]) + 1;
  }
  char *line = test_alloc(len), *end = line;
  for (int i = 0; i < n; i++)
    end += snprintf(end, len - (size_t)(end - line), "%s%s", i ? "|" : "", values[i]);
  return line;
}

char *sql_dump(sqlite3 *db, const char *sql) {
  sqlite3_stmt *stmt = prepare(db, sql);
  size_t n = 0, cap = 64;
  char **lines = test_alloc(cap * sizeof *lines);
  int rc;
  while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    if (n == cap) {
      char **more = test_alloc(2 * cap * sizeof *lines);
      memcpy(more, lines, cap * sizeof *lines);
      lines = more;
      cap *= 2;
    }
    lines[n++] = show_row(stmt);
  }
  sqlite3_finalize(stmt);
  if (rc != SQLITE_DONE) check_failed(__FILE__, __LINE__, "%s: %s", sql, sqlite3_errmsg(db));
  return join_sorted(lines, n);
}

char *quote_name(const char *name) {
  char *quoted = sqlite3_mprintf("\"%w\"", name);
  char *copy = test_format("%s", quoted);
  sqlite3_free(quoted);
  return copy;
}

/* ---- cluster: peers ------------------------------------------------------------------------------------------ */

cluster *cluster_new(void) {
  CHECK(n_test_clusters < COUNT(test_clusters));
  cluster *c = test_alloc(sizeof *c);
  c->now_ms = 1000000000000; /* September 2001 */
  test_clusters[n_test_clusters++] = c;
  return c;
}

peer *cluster_add(cluster *c) {
  CHECK(c->n_peers < MAX_PEERS);
  peer *p = &c->peers[c->n_peers];
  p->cluster = c;
  p->index = c->n_peers++;
  p->id = (uint32_t)(101 + p->index);
  p->config.path = test_path(test_format("c%zu-peer%d.db", n_test_clusters, p->index));
  p->config.new_peer_id = p->id;
  p->config.first_table_id = 1; /* as the frames that tests write by hand have it */
  p->config.normal_durability =
      1; /* nobody cuts the power here, and a test makes thousands of commits */
  return p;
}

cluster *cluster_start(int n, const char *ddl) {
  cluster *c = cluster_new();
  for (int i = 0; i < n; i++) {
    peer *p = cluster_add(c);
    peer_start(p);
    if (ddl) CHECK_OK(p->r, try_migrate(p, 1, ddl, ""));
  }
  return c;
}

void file_copy(const char *from, const char *to) {
  FILE *in = fopen(from, "rb");
  remove(to);
  if (!in) return;
  FILE *out = fopen(to, "wb");
  char data[4096];
  CHECK(out);
  for (size_t n; (n = fread(data, 1, sizeof data, in)) > 0;) CHECK(fwrite(data, 1, n, out) == n);
  fclose(in);
  CHECK(fclose(out) == 0);
}

void files_copy(const char *from, const char *to) {
  static const char *const SUFFIXES[] = {"", "-wal", "-replic"};
  for (size_t i = 0; i < COUNT(SUFFIXES); i++)
    file_copy(test_format("%s%s", from, SUFFIXES[i]), test_format("%s%s", to, SUFFIXES[i]));
}

peer *peer_fork(peer *p) {
  peer *copy = cluster_add(p->cluster);
  peer_stop(p);
  files_copy(p->config.path, copy->config.path);
  peer_start(p);
  peer_start(copy);
  CHECK_INT(copy->id, p->id);
  return copy;
}

int64_t peer_now(const peer *p) {
  return p->cluster->now_ms + p->clock_step_ms;
}

int peer_try_start(peer *p) {
  CHECK(!p->r);
  int rc = replic_open(&p->config, peer_now(p), &p->r);
  if (rc == REPLIC_OK) p->id = replic_peer_id(p->r);
  return rc;
}

void peer_start(peer *p) {
  CHECK_OK(p->r, peer_try_start(p));
  peer_take_outbox(p);
}

void peer_stop(peer *p) {
  cluster *c = p->cluster;
  replic *r = p->r;
  p->r = NULL;
  for (int w = 0; w < c->n_wires; w++) {
    wire *x = &c->wires[w];
    if (x->peers[0] != p->index && x->peers[1] != p->index) continue;
    x->open[x->peers[1] == p->index] = false;
    wire_cut(c, w);
  }
  sqlite3_close(p->reader);
  p->reader = NULL;
  replic_close(r);
  peer_forget_events(p);
}

sqlite3 *peer_sql(peer *p) {
  if (!p->reader)
    CHECK_INT(sqlite3_open_v2(p->config.path, &p->reader, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
  return p->reader;
}

char *peer_dump(peer *p, const char *table) {
  return sql_dump(peer_sql(p), test_format("SELECT * FROM %s", quote_name(table)));
}

int64_t peer_at(const peer *p, uint32_t origin) {
  size_t n = replic_vector_count(p->r);
  const replic_position *vector = replic_vector(p->r);
  for (size_t i = 0; i < n; i++) {
    if (vector[i].origin == origin) return vector[i].sequence;
  }
  return 0;
}

/* ---- cluster: outbox and events ------------------------------------------------------------------------------ */

size_t event_count(const peer *p, int kind) {
  size_t n = 0;
  for (size_t i = 0; i < p->n_events; i++) n += p->events[i].kind == kind;
  return n;
}

const replic_event *event_last(const peer *p, int kind) {
  for (size_t i = p->n_events; i > 0; i--) {
    if (p->events[i - 1].kind == kind) return &p->events[i - 1];
  }
  check_failed(__FILE__, __LINE__, "peer %d has given no event of kind %d", p->index, kind);
}

void peer_forget_events(peer *p) {
  p->n_events = 0;
}

static void keep_event(peer *p, const replic_event *event) {
  if (p->n_events == p->cap_events) {
    size_t cap = p->cap_events ? 2 * p->cap_events : 32;
    replic_event *more = test_alloc(cap * sizeof *more);
    if (p->n_events) memcpy(more, p->events, p->n_events * sizeof *more);
    p->events = more;
    p->cap_events = cap;
  }
  p->events[p->n_events] = *event;
  if (event->kind == REPLIC_EVENT_MESSAGE) { /* bytes, not terminated */
    p->events[p->n_events].text = test_alloc((size_t)event->a + 1);
    memcpy(p->events[p->n_events].text, event->text, (size_t)event->a);
  } else if (event->text) {
    p->events[p->n_events].text = test_format("%s", event->text);
  }
  p->n_events++;
}

static void queue_push(packet_queue *queue, const void *bytes, size_t len) {
  if (queue->n == queue->cap) {
    size_t cap = queue->cap ? 2 * queue->cap : 16;
    packet *more = realloc(queue->packets, cap * sizeof *more);
    if (!more) out_of_memory();
    queue->packets = more;
    queue->cap = cap;
  }
  packet *packet = &queue->packets[queue->n++];
  packet->len = len;
  packet->data =
      malloc(len ? len : 1); /* of its own size, so that a sanitizer sees a read beyond its end */
  if (!packet->data) out_of_memory();
  if (len) memcpy(packet->data, bytes, len);
}

static packet queue_take(packet_queue *queue, size_t i) {
  CHECK(i < queue->n);
  packet taken = queue->packets[i];
  memmove(&queue->packets[i], &queue->packets[i + 1], (queue->n - i - 1) * sizeof taken);
  queue->n--;
  return taken;
}

static int find_wire(const cluster *c, uint32_t number) {
  CHECK(number >= 1 && number <= (uint32_t)c->n_wires);
  return (int)number - 1;
}

static int side_of(const wire *x, const peer *p) {
  return x->peers[0] == p->index ? 0 : 1;
}

/* A side that has closed its link sends nothing any more; the other side hears of it once its queue
 * is empty. */
static void close_side(cluster *c, int w, int side) {
  wire *x = &c->wires[w];
  if (!x->open[side]) return;
  x->open[side] = false;
  queue_clear(&x->to[side]);
  peer *p = x->peers[side] < 0 ? NULL : &c->peers[x->peers[side]];
  if (p && p->r) {
    peer_begin(p);
    replic_link_close(p->r, x->number);
    CHECK_OK(p->r, peer_commit(p));
  }
  if (x->to[!side].n == 0) close_side(c, w, !side);
}

void peer_take_outbox(peer *p) {
  cluster *c = p->cluster;
  replic_outbox outbox;
  replic_take_outbox(p->r, &outbox);
  for (size_t i = 0; i < outbox.n_sends; i++) {
    wire *x = &c->wires[find_wire(c, outbox.sends[i].link)];
    int other = !side_of(x, p);
    if (x->open[other])
      queue_push(&x->to[other], outbox.sends[i].frame->data, outbox.sends[i].frame->len);
  }
  size_t first = p->n_events;
  for (size_t i = 0; i < outbox.n_events; i++) keep_event(p, &outbox.events[i]);
  replic_outbox_free(&outbox);
  for (size_t i = first; i < p->n_events; i++) {
    if (p->events[i].kind != REPLIC_EVENT_LINK_CLOSE) continue;
    int w = find_wire(c, p->events[i].link);
    close_side(c, w, side_of(&c->wires[w], p));
  }
}

void peer_begin(peer *p) {
  CHECK_OK(p->r, replic_begin(p->r, peer_now(p)));
}

int peer_commit(peer *p) {
  int rc = replic_commit(p->r);
  peer_take_outbox(p);
  return rc;
}

void peer_rollback(peer *p) {
  replic_rollback(p->r);
  peer_take_outbox(p);
}

static int end_batch(peer *p, int rc) {
  if (rc == REPLIC_OK) return peer_commit(p);
  peer_rollback(p);
  return rc;
}

/* ---- cluster: batches of one call ----------------------------------------------------------------------------- */

int try_write(peer *p, const replic_change *changes, size_t n_changes, int64_t *sequence) {
  peer_begin(p);
  return end_batch(p, replic_write(p->r, changes, n_changes, sequence));
}

static int write_row(peer *p, int kind, const char *table, const cell *row, int64_t *sequence) {
  size_t n = row_width(row);
  const char **columns = test_alloc((n + 1) * sizeof *columns);
  replic_value *values = test_alloc((n + 1) * sizeof *values);
  for (size_t i = 0; i < n; i++) {
    columns[i] = row[i].column;
    values[i] = row[i].value;
  }
  const replic_change change = {.kind = kind,
                                .table = table,
                                .n_columns = n,
                                .columns = columns,
                                .n_rows = 1,
                                .values = values};
  return try_write(p, &change, 1, sequence);
}

int64_t upsert(peer *p, const char *table, const cell *row) {
  int64_t sequence = 0;
  CHECK_OK(p->r, write_row(p, REPLIC_UPSERT, table, row, &sequence));
  return sequence;
}

int try_upsert(peer *p, const char *table, const cell *row) {
  int64_t sequence;
  return write_row(p, REPLIC_UPSERT, table, row, &sequence);
}

int64_t erase(peer *p, const char *table, const cell *key) {
  int64_t sequence = 0;
  CHECK_OK(p->r, write_row(p, REPLIC_DELETE, table, key, &sequence));
  return sequence;
}

int try_erase(peer *p, const char *table, const cell *key) {
  int64_t sequence;
  return write_row(p, REPLIC_DELETE, table, key, &sequence);
}

int try_run(peer *p, const char *sql, int unsafe) {
  int64_t changes, rowid;
  peer_begin(p);
  return end_batch(p, replic_run(p->r, sql, strlen(sql), 1, unsafe, NULL, 0, &changes, &rowid));
}

void run_sql(peer *p, const char *sql) {
  CHECK_OK(p->r, try_run(p, sql, 1));
}

int try_migrate(peer *p, int64_t version, const char *up, const char *down) {
  int rc = replic_migrate(p->r, peer_now(p), version, up, down);
  peer_take_outbox(p);
  return rc;
}

void tick(peer *p) {
  peer_begin(p);
  CHECK_OK(p->r, replic_tick(p->r));
  CHECK_OK(p->r, peer_commit(p));
}

replic_compaction peer_compact(peer *p, int64_t older_than_ms, int64_t max_patches) {
  replic_compaction done;
  peer_begin(p);
  CHECK_OK(p->r, replic_compact(p->r, older_than_ms, max_patches, &done));
  CHECK_OK(p->r, peer_commit(p));
  return done;
}

/* ---- cluster: wires ------------------------------------------------------------------------------------------- */

void wire_open_side(cluster *c, int w, int side) {
  wire *x = &c->wires[w];
  x->open[side] = true;
  peer *p = &c->peers[x->peers[side]];
  uint32_t expected = x->peers[!side] < 0 ? 0 : c->peers[x->peers[!side]].id;
  peer_begin(p);
  CHECK_OK(p->r, replic_link_open(p->r, x->number, expected, x->reads[!side]));
  CHECK_OK(p->r, peer_commit(p));
}

int wire_add(cluster *c, int a, int b) {
  CHECK(c->n_wires < MAX_WIRES);
  int w = c->n_wires++;
  c->wires[w] = (wire){.peers = {a, b}, .number = (uint32_t)w + 1};
  return w;
}

static int open_both(cluster *c, int w) {
  c->wires[w].open[1] = true; /* so that the first HELLO finds its way */
  wire_open_side(c, w, 0);
  wire_open_side(c, w, 1);
  return w;
}

int wire_open(cluster *c, int a, int b) {
  return open_both(c, wire_add(c, a, b));
}

int wire_open_reader(cluster *c, int a, int b) {
  int w = wire_add(c, a, b);
  c->wires[w].reads[1] = true;
  return open_both(c, w);
}

int wire_open_test(cluster *c, int a) {
  return wire_open_test_as(c, a, false);
}

int wire_open_test_as(cluster *c, int a, bool reads) {
  int w = wire_add(c, a, -1);
  c->wires[w].reads[1] = reads;
  c->wires[w].open[1] = true;
  wire_open_side(c, w, 0);
  return w;
}

void wire_cut(cluster *c, int w) {
  for (int side = 0; side < 2; side++) {
    close_side(c, w, side);
    queue_clear(&c->wires[w].to[side]);
  }
}

void peer_receive(peer *p, uint32_t link, const void *bytes, size_t len) {
  peer_begin(p);
  CHECK_OK(p->r, replic_receive(p->r, link, bytes, len));
  CHECK_OK(p->r, peer_commit(p));
  while (replic_has_work(p->r)) {
    peer_begin(p);
    CHECK_OK(p->r, replic_work(p->r));
    CHECK_OK(p->r, peer_commit(p));
  }
}

void wire_deliver(cluster *c, int w, int to_side, size_t i) {
  wire *x = &c->wires[w];
  packet packet = queue_take(&x->to[to_side], i);
  uint8_t *kept = test_alloc(packet.len); /* on the test's list: a failed check must not lose it */
  memcpy(kept, packet.data, packet.len);
  free(packet.data);
  c->frames_delivered++;
  if (x->open[to_side]) peer_receive(&c->peers[x->peers[to_side]], x->number, kept, packet.len);
  if (x->to[to_side].n == 0 && !x->open[!to_side]) close_side(c, w, to_side);
}

void wire_drop(cluster *c, int w, int to_side, size_t i) {
  free(queue_take(&c->wires[w].to[to_side], i).data);
}

void wire_duplicate(cluster *c, int w, int to_side, size_t i) {
  packet_queue *queue = &c->wires[w].to[to_side];
  CHECK(i < queue->n);
  queue_push(queue, queue->packets[i].data, queue->packets[i].len);
}

void wire_swap(cluster *c, int w, int to_side, size_t i, size_t j) {
  packet_queue *queue = &c->wires[w].to[to_side];
  CHECK(i < queue->n && j < queue->n);
  packet kept = queue->packets[i];
  queue->packets[i] = queue->packets[j];
  queue->packets[j] = kept;
}

void wire_put(cluster *c, int w, int to_side, const void *bytes, size_t len) {
  queue_push(&c->wires[w].to[to_side], bytes, len);
}

void cluster_deliver(cluster *c) {
  bool moved = true;
  int64_t limit = c->frames_delivered + 1000000;
  while (moved) {
    moved = false;
    for (int w = 0; w < c->n_wires; w++) {
      for (int side = 0; side < 2; side++) {
        wire *x = &c->wires[w];
        if (x->peers[side] < 0 || x->to[side].n == 0) continue;
        wire_deliver(c, w, side, 0);
        moved = true;
      }
    }
    if (c->frames_delivered > limit)
      check_failed(__FILE__, __LINE__, "the peers never stop talking");
  }
}

void cluster_beat(cluster *c, int n) {
  for (int i = 0; i < n; i++) {
    c->now_ms += 1000;
    for (int k = 0; k < c->n_peers; k++) {
      if (c->peers[k].r) tick(&c->peers[k]);
    }
    cluster_deliver(c);
  }
}

static char *show_vector(const peer *p) {
  char *text = "";
  const replic_position *vector = replic_vector(p->r);
  for (size_t i = 0, n = replic_vector_count(p->r); i < n; i++) {
    if (vector[i].sequence > 0) {
      text = test_format("%s %lu:%lld", text, (unsigned long)vector[i].origin,
                         (long long)vector[i].sequence);
    }
  }
  return text;
}

void cluster_settle(cluster *c) {
  cluster_deliver(c);
  for (int beats = 0; beats < 200; beats++) {
    const char *first = NULL;
    bool equal = true;
    for (int i = 0; i < c->n_peers; i++) {
      if (!c->peers[i].r) continue;
      char *vector = show_vector(&c->peers[i]);
      if (!first) first = vector;
      equal = equal && strcmp(first, vector) == 0;
    }
    if (equal) return;
    cluster_beat(c, 1);
  }
  char *all = "";
  for (int i = 0; i < c->n_peers; i++) {
    if (c->peers[i].r) all = test_format("%s\n#   peer %d:%s", all, i, show_vector(&c->peers[i]));
  }
  check_failed(__FILE__, __LINE__, "the peers do not converge:%s", all);
}

char *cluster_same(cluster *c, const char *table) {
  char *first = NULL;
  for (int i = 0; i < c->n_peers; i++) {
    if (!c->peers[i].r) continue;
    char *dump = peer_dump(&c->peers[i], table);
    if (!first)
      first = dump;
    else if (strcmp(first, dump) != 0) {
      check_failed(__FILE__, __LINE__, "%s differs; the first peer has\n%s# and peer %d has\n%s",
                   table, first, i, dump);
    }
  }
  CHECK(first);
  return first;
}

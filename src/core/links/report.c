/* report.c - links, for the caller: state, figures, the tables of the other side. */
#include <string.h>

#include "links/links.h"

int64_t replic_announced(const replic *r, uint32_t origin) {
  int64_t most = -1;
  for (size_t i = 0; i < r->sync->n_links; i++) {
    const link *l = r->sync->links[i];
    if (!l->ready || l->closing || l->reader) continue;
    const position *at = replic__find_position(l, origin);
    int64_t announced = at ? at->announced : 0;
    if (announced > most) most = announced;
  }
  return most;
}

/* How many patches the other side has not acknowledged, but for its own. `*most`: what it has of
 * the origin that it lacks most of; origin 0: it lacks nothing. (Vector and positions are in
 * order.) */
int64_t replic__lag_of(const replic *r, const link *l, position *most) {
  int64_t lag = 0, largest = 0;
  *most = (position){0};
  for (size_t i = 0, p = 0; i < r->n_vector; i++) {
    const replic_position *mine = &r->vector[i].now;
    while (p < l->n_at && l->at[p].origin < mine->origin) p++;
    int64_t acked = p < l->n_at && l->at[p].origin == mine->origin ? l->at[p].acked : 0;
    int64_t lacks = mine->origin == l->peer ? 0 : mine->sequence - acked;
    if (lacks <= 0) continue;
    lag = replic__sum(lag, lacks);
    if (lacks <= largest) continue;
    largest = lacks;
    *most = (position){.origin = mine->origin, .acked = acked};
  }
  return lag;
}

/* A name may be anything; what is made of it is read line by line. */
static void append_line(sqlite3_str *out, const char *name, const char *why) {
  const char *const PARTS[] = {name, "\t", why, "\n"};
  for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
    for (const char *at = PARTS[i]; *at; at++) {
      int is_kept = i % 2 != 0 || ((unsigned char)*at >= ' ' && *at != 0x7f);
      sqlite3_str_append(out, is_kept ? at : "?", 1);
    }
}

/* The latest definition of a name stands first: its sender draws ever greater ids. */
static int comes_after(const remote_table *a, const remote_table *b) {
  int order = sqlite3_stricmp(a->name, b->name);
  return order ? order > 0 : a->id < b->id;
}

/* The first `n` are a heap from `i` on. */
static void sift(remote_table **heap, size_t i, size_t n) {
  for (size_t child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && comes_after(heap[child + 1], heap[child])) child++;
    if (!comes_after(heap[child], heap[i])) return;
    remote_table *swap = heap[i];
    heap[i] = heap[child];
    heap[child] = swap;
  }
}

static void sort_by_name(remote_table **tables, size_t n) {
  for (size_t i = n / 2; i-- > 0;) sift(tables, i, n);
  for (size_t last = n; last-- > 1;) {
    remote_table *swap = tables[0];
    tables[0] = tables[last];
    tables[last] = swap;
    sift(tables, 0, last);
  }
}

/* Of each name the latest definition counts. */
static char *list_tables(replic *r, const link *l) {
  size_t n = l->tables.n, shown = 0;
  remote_table **sorted = sqlite3_malloc64((n + 1) * sizeof(remote_table *));
  if (!sorted) return NULL;
  if (n) memcpy(sorted, l->tables.at, n * sizeof(remote_table *));
  sort_by_name(sorted, n);
  sqlite3_str *out = sqlite3_str_new(NULL);
  for (size_t i = 0; i < n && shown < TABLES_SHOWN; i++) {
    if (i > 0 && !sqlite3_stricmp(sorted[i]->name, sorted[i - 1]->name)) continue;
    if (replic__resolve(r, sorted[i]) != REPLIC_OK) continue;
    append_line(out, sorted[i]->name, sorted[i]->why ? sorted[i]->why : "");
    shown++;
  }
  sqlite3_free(sorted);
  return sqlite3_str_finish(out);
}

static const char *link_schema(replic *r, link *l) {
  if (l->schema && l->schema_generation == r->schema->generation &&
      l->schema_shown == l->schema_changes)
    return l->schema;
  sqlite3_free(l->schema);
  l->schema = list_tables(r, l);
  l->schema_generation = r->schema->generation;
  l->schema_shown = l->schema_changes;
  return l->schema;
}

size_t replic_link_count(const replic *r) {
  return r->sync->n_links;
}

int replic_link_at(replic *r, size_t index, replic_link_info *info) {
  if (index >= r->sync->n_links) return 0;
  link *l = r->sync->links[index];
  *info = (replic_link_info){.link = l->id,
                             .peer = l->peer,
                             .state = !l->ready                   ? REPLIC_LINK_OPENING
                                      : replic__link_active(r, l) ? REPLIC_LINK_READY
                                                                  : REPLIC_LINK_STANDBY,
                             .unacked_bytes = l->unacked,
                             .skew_ms = l->skew_ms,
                             .bytes_in = l->bytes_in,
                             .bytes_out = l->bytes_out,
                             .frames_in = l->frames_in,
                             .frames_out = l->frames_out,
                             .staged = l->n_staged,
                             .jump = l->below                      ? REPLIC_JUMP_SENDING
                                     : r->sync->jump_link == l->id ? REPLIC_JUMP_RECEIVING
                                                                   : REPLIC_JUMP_NONE,
                             .retransmitted = l->sent_again,
                             .reader = l->reader,
                             .muted = l->muted,
                             .schema = link_schema(r, l),
                             .held = l->held ? l->held : l->crowded};
  position most;
  info->lag = replic__lag_of(r, l, &most);
  int64_t stamped = 0;
  if (most.origin) replic__log_clock(r, most.origin, most.acked + 1, &stamped);
  if (stamped && r->now_ms > stamped) info->lag_ms = r->now_ms - stamped;
  for (size_t i = 0; i < l->n_at; i++) {
    int64_t mine = replic__vector_sequence(r, l->at[i].origin);
    if (l->at[i].announced > mine)
      info->behind = replic__sum(info->behind, l->at[i].announced - mine);
  }
  return 1;
}

void replic_tell_acks(replic *r, int on) {
  r->sync->tells_acks = on;
}

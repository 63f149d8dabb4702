/* model.c - see model.h */
#include "model.h"

#include <string.h>

void model_add(model *m, const model_table *table, uint32_t origin, int64_t sequence,
               int64_t patched_at, const cell *row) {
  for (size_t i = 0; i < m->n; i++) {
    if (m->patches[i].origin == origin && m->patches[i].sequence == sequence) return;
  }
  if (m->n == m->cap) {
    m->cap = m->cap ? 2 * m->cap : 64;
    model_patch *more = test_alloc(m->cap * sizeof *more);
    if (m->n) memcpy(more, m->patches, m->n * sizeof *more);
    m->patches = more;
  }
  model_patch *patch = &m->patches[m->n++];
  *patch = (model_patch){table, origin, sequence, patched_at,
                         test_alloc(table->n_columns * sizeof(char *))};
  for (const cell *c = row; c->column; c++) {
    size_t i = 0;
    while (i < table->n_columns && strcmp(table->columns[i].name, c->column) != 0) i++;
    CHECK(i < table->n_columns);
    if (c->value.type != REPLIC_UNSET) patch->shown[i] = show_value(&c->value);
  }
}

static bool is_newer(const model_patch *a, const model_patch *b) {
  if (a->patched_at != b->patched_at) return a->patched_at > b->patched_at;
  if (a->origin != b->origin) return a->origin > b->origin;
  return a->sequence > b->sequence;
}

static bool same_row(const model_patch *a, const model_patch *b) {
  if (a->table != b->table) return false;
  for (size_t i = 0; i < a->table->n_columns; i++) {
    if (a->table->columns[i].key && strcmp(a->shown[i], b->shown[i]) != 0) return false;
  }
  return true;
}

/* The row that `first` belongs to; NULL where a column that must not be NULL is missing. */
static char *fold_row(const model_patch *patches, size_t n, const model_patch *first) {
  const model_table *table = first->table;
  char *line = "";
  for (size_t i = 0; i < table->n_columns; i++) {
    const model_patch *winner = NULL;
    for (size_t k = 0; k < n; k++) {
      const model_patch *patch = &patches[k];
      if (!same_row(first, patch) || !patch->shown[i]) continue;
      if (!winner || is_newer(patch, winner)) winner = patch;
    }
    const char *shown = winner ? winner->shown[i] : table->columns[i].initial;
    if (table->columns[i].not_null && strcmp(shown, "n") == 0) return NULL;
    line = test_format("%s%s%s", line, i ? "|" : "", shown);
  }
  return line;
}

char *model_dump(const model *m, const model_table *table, const peer *view) {
  model_patch *patches = test_alloc((m->n + 1) * sizeof *patches);
  char **lines = test_alloc((m->n + 1) * sizeof *lines);
  size_t n = 0, n_lines = 0;
  for (size_t k = 0; k < m->n; k++) {
    const model_patch *patch = &m->patches[k];
    if (patch->table != table) continue;
    if (!view || patch->sequence <= peer_at(view, patch->origin)) patches[n++] = *patch;
  }
  for (size_t k = 0; k < n; k++) {
    bool seen = false;
    for (size_t j = 0; j < k && !seen; j++) seen = same_row(&patches[j], &patches[k]);
    char *line = seen ? NULL : fold_row(patches, n, &patches[k]);
    if (line) lines[n_lines++] = line;
  }
  return join_sorted(lines, n_lines);
}

void model_check(const model *m, const model_table *table, peer *p) {
  char *seen = peer_dump(p, table->name), *wanted = model_dump(m, table, p);
  if (strcmp(seen, wanted) != 0) {
    check_failed(__FILE__, __LINE__, "%s of peer %d is\n%s# the model has\n%s", table->name,
                 p->index, seen, wanted);
  }
}

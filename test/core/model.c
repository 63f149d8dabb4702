/* model.c - see model.h */
#include "model.h"

#include <string.h>

static bool same_row(const model_patch *a, const model_patch *b) {
  if (a->table != b->table) return false;
  for (size_t i = 0; i < a->table->n_columns; i++) {
    if (a->table->columns[i].key && strcmp(a->shown[i], b->shown[i]) != 0) return false;
  }
  return true;
}

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
  model_patch *patch = &m->patches[m->n];
  *patch = (model_patch){
      table,    origin, sequence, patched_at, test_alloc(table->n_columns * sizeof(char *)),
      m->n_keys};
  for (const cell *c = row; c->column; c++) {
    size_t i = 0;
    while (i < table->n_columns && strcmp(table->columns[i].name, c->column) != 0) i++;
    CHECK(i < table->n_columns);
    if (c->value.type != REPLIC_UNSET) patch->shown[i] = show_value(&c->value);
  }
  size_t k = 0;
  while (k < m->n && !same_row(&m->patches[k], patch)) k++;
  if (k < m->n)
    patch->key = m->patches[k].key;
  else
    m->n_keys++;
  m->n++;
}

static bool is_newer(const model_patch *a, const model_patch *b) {
  if (a->patched_at != b->patched_at) return a->patched_at > b->patched_at;
  if (a->origin != b->origin) return a->origin > b->origin;
  return a->sequence > b->sequence;
}

static void challenge(const model_patch **champion, const model_patch *patch) {
  if (!*champion || is_newer(patch, *champion)) *champion = patch;
}

static bool covers(const replic_position *vector, size_t n, const model_patch *patch) {
  if (!vector) return true;
  for (size_t i = 0; i < n; i++) {
    if (vector[i].origin == patch->origin) return patch->sequence <= vector[i].sequence;
  }
  return false;
}

/* `winners`: one per column. NULL where a column that must not be NULL is missing. */
static char *show_row(const model_table *table, const model_patch *const *winners) {
  char *line = "";
  for (size_t i = 0; i < table->n_columns; i++) {
    const char *shown = winners[i] ? winners[i]->shown[i] : table->columns[i].initial;
    if (table->columns[i].not_null && strcmp(shown, "n") == 0) return NULL;
    line = test_format("%s%s%s", line, i ? "|" : "", shown);
  }
  return line;
}

char *model_fold(const model *m, const model_table *table, const replic_position *vector,
                 size_t n_vector, bool *wins) {
  size_t width = table->n_columns + 1, n_lines = 0; /* the last one: the newest of the row */
  const model_patch **winners = test_alloc((m->n_keys * width + 1) * sizeof(model_patch *));
  char **lines = test_alloc((m->n_keys + 1) * sizeof *lines);
  for (size_t k = 0; k < m->n; k++) {
    const model_patch *patch = &m->patches[k], **row = &winners[patch->key * width];
    if (patch->table != table || !covers(vector, n_vector, patch)) continue;
    for (size_t i = 0; i < table->n_columns; i++)
      if (patch->shown[i]) challenge(&row[i], patch);
    challenge(&row[table->n_columns], patch);
  }
  for (size_t i = 0; i < m->n_keys; i++) {
    const model_patch **row = &winners[i * width];
    char *line = row[table->n_columns] ? show_row(table, row) : NULL;
    if (line) lines[n_lines++] = line;
    for (size_t c = 0; wins && c < width; c++)
      if (row[c] && (c == table->n_columns || !table->columns[c].key))
        wins[row[c] - m->patches] = true;
  }
  return join_sorted(lines, n_lines);
}

char *model_dump(const model *m, const model_table *table, const peer *view) {
  return model_fold(m, table, view ? replic_vector(view->r) : NULL,
                    view ? replic_vector_count(view->r) : 0, NULL);
}

void model_check(const model *m, const model_table *table, peer *p) {
  char *seen = peer_dump(p, table->name), *wanted = model_dump(m, table, p);
  if (strcmp(seen, wanted) != 0) {
    check_failed(__FILE__, __LINE__, "%s of peer %d is\n%s# the model has\n%s", table->name,
                 p->index, seen, wanted);
  }
}

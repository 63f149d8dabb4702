/* write.c - a call of the application's becomes patches: each row takes the next sequence, and is
 * merged like any other. */
#include <math.h>
#include <string.h>

#include "data/data.h"
#include "state.h"

/* Which field each column of the change is. *map: caller frees. */
static int map_columns(replic *r, const replic__table *t, const replic_change *change, int **map) {
  *map = sqlite3_malloc64((change->n_columns + 1) * sizeof **map);
  if (!*map) return SQLITE_NOMEM;
  for (size_t c = 0; c < change->n_columns; c++) {
    int i = 0;
    while (i < t->n_fields && sqlite3_stricmp(t->fields[i].name, change->columns[c]) != 0) i++;
    if (i == t->n_fields)
      return replic__fail(r, REPLIC_ECOLUMN, "table %s has no column %s that can be written",
                          t->name, change->columns[c]);
    for (size_t other = 0; other < c; other++)
      if ((*map)[other] == i)
        return replic__fail(r, REPLIC_ECOLUMN, "column %s of %s is given twice", change->columns[c],
                            t->name);
    (*map)[c] = i;
  }
  return REPLIC_OK;
}

static int check_keys(replic *r, const replic__table *t) {
  for (int i = 0; i < t->n_keys; i++) {
    replic_value *key = &t->values[i];
    if (key->type <= REPLIC_NULL)
      return replic__fail(
          r, REPLIC_EKEY,
          "%s.%s is part of the primary key and needs a value (NaN is NULL): keys are made by the "
          "application, for example with randomUUID()",
          t->name, t->fields[i].name);
    /* 1 and 1.0 are one key, and shall be the same bytes on every peer */
    if (t->fields[i].untyped && key->type == REPLIC_REAL && key->d >= -9223372036854775808.0 &&
        key->d < 9223372036854775808.0 && floor(key->d) == key->d) {
      key->type = REPLIC_INT;
      key->i = (int64_t)key->d;
    }
  }
  return REPLIC_OK;
}

static int write_row(replic *r, replic__table *t, int kind, replic__group *g) {
  int rc = check_keys(r, t), exists;
  int64_t bytes = 24 + t->n_fields / 8;
  if (rc == REPLIC_OK && kind == REPLIC_DELETE) {
    rc = replic__row_exists(r, t, t->values, &exists);
    if (rc == REPLIC_OK && !exists)
      rc = replic__fail(r, REPLIC_ENOTFOUND,
                        "%s has no row with this primary key: if another peer has written it, "
                        "waitFor() its token "
                        "first",
                        t->name);
    t->values[t->deleted_at] = (replic_value){.type = REPLIC_INT, .i = g->patched_at};
  }
  if (rc != REPLIC_OK) return rc;
  for (int i = 0; i < t->n_fields; i++) /* at least what wire.c makes of it */
    if (t->values[i].type != REPLIC_UNSET) bytes += 11 + (int64_t)t->values[i].len;
  g->bytes += bytes;
  if (g->bytes > (int64_t)r->config.max_frame_bytes)
    return replic__fail(r, REPLIC_ETOOLARGE,
                        "the group exceeds maxFrameBytes (%lld): write fewer rows at once, or use "
                        "load, which splits them",
                        (int64_t)r->config.max_frame_bytes);
  if (g->self->now.sequence >= REPLIC_MAX_SEQUENCE || g->patched_at > REPLIC_MAX_CLOCK)
    return replic__fail(r, REPLIC_ERANGE, "peer %u has used up its sequences or its clock",
                        r->peer_id);
  if (g->self->now.epoch != r->config.new_peer_id)
    rc = replic__epoch_note(r, r->peer_id, g->self->now.sequence + 1, r->config.new_peer_id);
  if (rc != REPLIC_OK) return rc;
  g->self->now.sequence++;
  g->self->now.patched_at = g->patched_at;
  replic__clock_issued(&r->clock, bytes);
  r->counters.patches_written++;
  replic__patch p = {t, r->peer_id, g->self->now.sequence, g->patched_at, t->values, NULL};
  return replic__merge(r, &p, 1);
}

int replic__write_change(replic *r, const replic_change *change, replic__group *g) {
  replic__table *t = replic__schema_find(r->schema, change->table);
  if (!t)
    return replic__fail(r, REPLIC_ETABLE,
                        "there is no replicated table %s (one that has a %s_patches)",
                        change->table, change->table);
  if (change->kind == REPLIC_DELETE && t->deleted_at < 0)
    return replic__fail(
        r, REPLIC_ENODELETE,
        "%s has no column deletedAt, so its rows cannot be deleted: add one to %s and %s_patches",
        t->name, t->name, t->name);
  int *map, rc = map_columns(r, t, change, &map);
  const replic_value *value = change->values;
  for (size_t row = 0; rc == REPLIC_OK && row < change->n_rows; row++) {
    for (int i = 0; i < t->n_fields; i++) t->values[i].type = REPLIC_UNSET;
    for (size_t c = 0; c < change->n_columns; c++, value++) {
      t->values[map[c]] = *value;
      if (value->type == REPLIC_REAL && isnan(value->d)) t->values[map[c]].type = REPLIC_NULL;
    }
    for (int i = 0; i < t->n_fields; i++)
      if (t->values[i].type < REPLIC_TEXT) t->values[i].len = 0;
    rc = write_row(r, t, change->kind, g);
  }
  sqlite3_free(map);
  return rc;
}

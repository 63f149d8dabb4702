/* definitions.c - SCHEMA: which table an id stands for, of ours, and of others' of which something
 * is pending here. */
#include <string.h>

#include "links/links.h"

/* A link keeps so much of definitions and forgets what was defined first. So there are never more
 * than half of that in use: before a frame all are given up that are more than a lot, and frames
 * end when they bring another lot. What is used again is defined again, under a new id. */
#define LOT_TABLES (TABLES_MAX / 4)
#define LOT_BYTES (SCHEMA_MAX / 4)

/* Ids below are those of our tables, and of tables as others have them. */
uint32_t replic__ids_end(const replic__schema *schema) {
  return schema->base_id + (uint32_t)(schema->n_tables + schema->n_foreign);
}

static void send_definition(replic *r, link *l, uint32_t id) {
  const replic__schema *schema = r->schema;
  size_t i = id - schema->base_id;
  replic__writer w;
  replic__put_frame(&w, FRAME_SCHEMA);
  if (i < schema->n_tables) {
    replic__put_own_definition(&w, id, schema->tables[i]);
    replic__put_rules(&w, schema->tables[i]);
  } else {
    const replic__foreign *foreign = &schema->foreign[i - schema->n_tables];
    replic__put_varint(&w, id);
    replic__put_bytes(&w, foreign->bytes + 1, foreign->len - 1); /* without its id, 0 */
  }
  replic__send(r, l, replic__finish_frame(&w));
}

void replic__send_schema(replic *r, link *l) {
  uint32_t id = l->schema_sent > r->schema->base_id ? l->schema_sent : r->schema->base_id;
  l->schema_sent = replic__ids_end(r->schema);
  for (; id < l->schema_sent; id++) send_definition(r, l, id);
}

/* Where it is in `foreign_by`, or belongs. */
static size_t find_foreign(const replic__schema *schema, const replic__raw *raw, int *found) {
  size_t low = 0, high = schema->n_foreign;
  *found = 0;
  while (low < high) {
    size_t middle = low + (high - low) / 2, len = raw->definition_len;
    const replic__foreign *one = &schema->foreign[schema->foreign_by[middle]];
    int order =
        one->len != len ? (one->len < len ? -1 : 1) : memcmp(one->bytes, raw->definition, len);
    *found |= !order;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static int reserve_foreign(replic__schema *schema) {
  if (schema->n_foreign < schema->cap_foreign) return 1;
  size_t cap = schema->cap_foreign ? 2 * schema->cap_foreign : 16;
  replic__foreign *grown = sqlite3_realloc64(schema->foreign, cap * sizeof *grown);
  if (grown) schema->foreign = grown;
  uint32_t *by = grown ? sqlite3_realloc64(schema->foreign_by, cap * sizeof *by) : NULL;
  if (!by) return 0;
  schema->foreign_by = by;
  schema->cap_foreign = cap;
  return 1;
}

/* As its receiver counts it. */
static size_t bytes_there(const replic__raw *raw) {
  replic__reader in = {raw->definition, raw->definition + raw->definition_len, 0};
  size_t len;
  replic__get_varint(&in, UINT32_MAX);
  replic__get_text(&in, &len);
  replic__get_varint(&in, FIELDS_MAX);
  return DEFINITION_BYTES(raw->definition_len, replic__get_varint(&in, FIELDS_MAX));
}

int replic__is_a_lot(size_t n, size_t bytes) {
  return n > LOT_TABLES || bytes > LOT_BYTES;
}

void replic__ring_drop(replic__sync *s) {
  ring_entry *oldest = &s->ring[s->ring_from];
  s->ring_bytes -= oldest->frame->len;
  replic__frame_release(oldest->frame);
  s->ring_from = (s->ring_from + 1) % RING_MAX;
  s->n_ring--;
}

void replic__begin_lot(replic *r) {
  replic__schema *schema = r->schema;
  if (!replic__is_a_lot(schema->n_foreign, schema->foreign_bytes)) return;
  schema->base_id = replic__ids_end(schema);
  replic__foreign_free(schema);
  while (r->sync->n_ring) replic__ring_drop(r->sync); /* they speak of the former ids */
  replic__stir(r);
}

/* The id of a table as another peer has it; 0: out of memory. */
uint32_t replic__foreign_id(replic__schema *schema, const replic__raw *raw) {
  int found;
  size_t at = find_foreign(schema, raw, &found);
  uint32_t first = schema->base_id + (uint32_t)schema->n_tables;
  if (found) return first + schema->foreign_by[at];
  if (!reserve_foreign(schema)) return 0;
  uint8_t *copy = sqlite3_malloc64(raw->definition_len);
  if (!copy) return 0;
  memcpy(copy, raw->definition, raw->definition_len);
  uint32_t i = (uint32_t)schema->n_foreign;
  memmove(&schema->foreign_by[at + 1], &schema->foreign_by[at],
          (i - at) * sizeof *schema->foreign_by);
  schema->foreign_by[at] = i;
  schema->foreign[schema->n_foreign++] = (replic__foreign){copy, raw->definition_len};
  schema->foreign_bytes += bytes_there(raw);
  return first + i;
}

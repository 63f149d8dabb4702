/* frames.c - see frames.h */
#include "frames.h"

#include <string.h>

void add_raw(bytes *b, const void *data, size_t len) {
  if (b->len + len > b->cap) {
    uint8_t *more = test_alloc(2 * (b->len + len) + 64);
    if (b->len) memcpy(more, b->data, b->len);
    b->data = more;
    b->cap = 2 * (b->len + len) + 64;
  }
  if (len) memcpy(b->data + b->len, data, len);
  b->len += len;
}

void add_u8(bytes *b, unsigned value) {
  const uint8_t byte = (uint8_t)value;
  add_raw(b, &byte, 1);
}

void add_varint(bytes *b, uint64_t value) {
  while (value > 127) {
    add_u8(b, (unsigned)(value % 128) + 128);
    value /= 128;
  }
  add_u8(b, (unsigned)value);
}

void add_text(bytes *b, const char *text) {
  add_varint(b, strlen(text));
  add_raw(b, text, strlen(text));
}

static void add_typed(bytes *b, unsigned type, uint64_t number) {
  if (number < 31) {
    add_u8(b, type + 8 * (unsigned)number);
    return;
  }
  add_u8(b, type + 8 * 31);
  add_varint(b, number);
}

void add_value(bytes *b, const replic_value *value) {
  uint64_t bits;
  switch (value->type) {
  case REPLIC_NULL: add_u8(b, 1); break;
  case REPLIC_INT:
    add_typed(b, 2, value->i >= 0 ? 2 * (uint64_t)value->i : 2 * (uint64_t) - (value->i + 1) + 1);
    break;
  case REPLIC_REAL:
    add_u8(b, 3);
    memcpy(&bits, &value->d, sizeof bits);
    for (int i = 0; i < 8; i++) add_u8(b, (unsigned)(bits >> (8 * i)) & 0xff);
    break;
  case REPLIC_TEXT:
  case REPLIC_BLOB:
    add_typed(b, value->type == REPLIC_TEXT ? 4 : 5, value->len);
    add_raw(b, value->data, value->len);
    break;
  default: CHECK(false);
  }
}

bytes *frame_new(int type) {
  bytes *b = test_alloc(sizeof *b);
  add_u8(b, 1);
  add_u8(b, (unsigned)type);
  return b;
}

bytes *hello_of(uint32_t peer, uint32_t instance, int64_t wall_ms, const replic_position *vector,
                size_t n_vector) {
  bytes *b = frame_new(HELLO);
  add_varint(b, 0);
  add_varint(b, peer);
  add_varint(b, instance);
  add_varint(b, (uint64_t)wall_ms);
  add_varint(b, n_vector);
  for (size_t i = 0; i < n_vector; i++) {
    add_varint(b, vector[i].origin);
    add_varint(b, (uint64_t)vector[i].sequence);
    add_varint(b, (uint64_t)vector[i].patched_at);
    add_varint(b, vector[i].epoch);
  }
  add_varint(b, 0);
  add_varint(b, 0);
  return b;
}

bytes *hello_frame(uint32_t peer, int64_t wall_ms, const replic_position *vector, size_t n_vector) {
  return hello_of(peer, peer, wall_ms, vector, n_vector);
}

bytes *ack_frame(int64_t wall_ms) {
  bytes *b = frame_new(ACK);
  add_varint(b, (uint64_t)wall_ms);
  add_varint(b, 0);
  add_varint(b, REPLIC_MAX_SEQUENCE); /* all that was sent to it has come */
  return b;
}

void add_no_list(bytes *ack) {
  add_varint(ack, 0);
  add_varint(ack, 0);
}

void add_positions(bytes *b, const replic_position *positions, size_t n) {
  add_varint(b, n);
  for (size_t i = 0; i < n; i++) {
    add_varint(b, positions[i].origin);
    add_varint(b, (uint64_t)positions[i].sequence);
  }
}

bytes *schema_frame(uint32_t id, const char *table, size_t n_keys, size_t n_fields,
                    const char *const *fields) {
  bytes *b = frame_new(SCHEMA);
  add_varint(b, id);
  add_text(b, table);
  add_varint(b, n_keys);
  add_varint(b, n_fields);
  for (size_t i = 0; i < 2 * n_fields; i++) add_text(b, fields[i]);
  return b;
}

bytes *patches_frame(uint32_t origin, int64_t after, int64_t up_to) {
  return patches_on(origin, after, 0, up_to);
}

bytes *patches_on(uint32_t origin, int64_t after, int64_t clock, int64_t up_to) {
  bytes *b = frame_new(PATCHES);
  add_varint(b, origin);
  add_varint(b, (uint64_t)after);
  add_varint(b, (uint64_t)up_to);
  add_varint(b, (uint64_t)clock);
  add_varint(b, 0);
  add_varint(b, 0);
  return b;
}

bytes *patches_in(uint32_t origin, int64_t up_to, uint32_t epoch) {
  bytes *b = frame_new(PATCHES);
  add_varint(b, origin);
  add_varint(b, 0);
  add_varint(b, (uint64_t)up_to);
  for (int i = 0; i < 2; i++) add_varint(b, 0); /* clock, epoch of patch 0 */
  add_varint(b, 1);
  add_varint(b, 1);
  add_varint(b, epoch);
  return b;
}

bytes *stage_frame(int64_t age, uint32_t origin, int64_t after, int64_t up_to, size_t n_patches) {
  bytes *b = frame_new(STAGE);
  add_varint(b, (uint64_t)age);
  add_varint(b, origin);
  add_varint(b, (uint64_t)after);
  add_varint(b, (uint64_t)up_to);
  for (int i = 0; i < 3; i++) add_varint(b, 0); /* clock, epoch, epochs */
  add_varint(b, n_patches);
  return b;
}

bytes *jump_frame(const replic_position *vector, const int64_t *floors, size_t n) {
  bytes *b = frame_new(JUMP);
  add_varint(b, n);
  for (size_t i = 0; i < n; i++) {
    add_varint(b, vector[i].origin);
    add_varint(b, (uint64_t)vector[i].sequence);
    add_varint(b, (uint64_t)vector[i].patched_at);
    add_varint(b, vector[i].epoch);
    add_varint(b, (uint64_t)floors[i]);
  }
  return b;
}

bytes *staged_frame(bool again, const replic_position *staged, size_t n) {
  bytes *b = frame_new(TAKE);
  add_varint(b, again);
  add_positions(b, staged, n);
  return b;
}

bytes *fork_frame(uint32_t origin, int64_t last, const replic_position *probes, size_t n) {
  bytes *b = frame_new(FORK);
  add_varint(b, origin);
  add_varint(b, (uint64_t)last);
  add_varint(b, n);
  for (size_t i = 0; i < n; i++) {
    add_varint(b, (uint64_t)probes[i].sequence);
    add_varint(b, (uint64_t)probes[i].patched_at);
    add_varint(b, probes[i].epoch);
  }
  for (int i = 0; i < 4; i++) add_varint(b, 0); /* no history is given up; no advice */
  return b;
}

void add_patch(bytes *b, int64_t step, bool begins_group, uint64_t clock_delta, uint32_t table,
               size_t n_keys, size_t n_fields, const replic_value *values) {
  add_varint(b, 2 * (uint64_t)(step - 1) + (begins_group ? 1 : 0));
  if (begins_group) add_varint(b, clock_delta);
  add_varint(b, table);
  for (size_t i = 0; i < n_keys; i++) add_value(b, &values[i]);
  uint8_t *bitmap = test_alloc((n_fields + 7) / 8);
  for (size_t i = n_keys; i < n_fields; i++) {
    if (values[i].type != REPLIC_UNSET)
      bitmap[(i - n_keys) / 8] |= (uint8_t)(1 << (i - n_keys) % 8);
  }
  add_raw(b, bitmap, (n_fields - n_keys + 7) / 8);
  for (size_t i = n_keys; i < n_fields; i++) {
    if (values[i].type != REPLIC_UNSET) add_value(b, &values[i]);
  }
}

char *show_hex(const uint8_t *data, size_t len) {
  char *text = test_alloc(3 * len + 1), *end = text;
  for (size_t i = 0; i < len; i++) {
    *end++ = "0123456789abcdef"[data[i] >> 4];
    *end++ = "0123456789abcdef"[data[i] & 15];
    *end++ = ' ';
  }
  if (len) end[-1] = 0;
  return text;
}

bytes *whole(const void *frame, size_t len) {
  bytes *b = test_alloc(sizeof *b);
  uint32_t rest = UINT32_MAX;
  add_raw(b, frame, len);
  for (size_t bit = 0; bit < 8 * len; bit++) {
    rest ^= (uint32_t)b->data[bit / 8] >> bit % 8 & 1;
    rest = rest >> 1 ^ (rest & 1 ? 0x82f63b78 : 0);
  }
  for (int i = 0; i < 4; i++) add_u8(b, ~rest >> 8 * i & 255);
  return b;
}

void play(cluster *c, int w, const bytes *frame) {
  const bytes *sent = whole(frame->data, frame->len);
  wire_put(c, w, 0, sent->data, sent->len);
  wire_deliver(c, w, 0, c->wires[w].to[0].n - 1);
}

size_t take_frames(cluster *c, int w, int type) {
  packet_queue *queue = &c->wires[w].to[1];
  size_t n = 0;
  while (queue->n > 0) {
    n += type == 0 || queue->packets[0].data[1] == type;
    wire_drop(c, w, 1, 0);
  }
  return n;
}

/* codec.c - numbers, texts and values as bytes, and back. The layout stands on top of wire.c. */
#include <math.h>
#include <string.h>

#include "base/base.h"

enum { INLINE_MAX = 30, FOLLOWS = 31 };

/* ---- writing ---- */

static uint8_t *reserve(replic__writer *w, size_t n) {
  size_t len = w->frame ? w->frame->len : 0;
  if (w->failed) return NULL;
  if (!w->frame || n > w->cap - len) {
    size_t cap = (len + n) * 2 < 128 ? 128 : (len + n) * 2;
    replic_frame *grown = sqlite3_realloc64(w->frame, offsetof(replic_frame, data) + cap);
    if (!grown) {
      w->failed = 1;
      return NULL;
    }
    if (!w->frame) *grown = (replic_frame){.refs = 1};
    w->frame = grown;
    w->cap = cap;
  }
  w->frame->len = len + n;
  return w->frame->data + len;
}

static void put_u8(replic__writer *w, unsigned value) {
  uint8_t *at = reserve(w, 1);
  if (at) *at = (uint8_t)value;
}

void replic__put_bytes(replic__writer *w, const void *bytes, size_t len) {
  uint8_t *at = reserve(w, len);
  if (at && len) memcpy(at, bytes, len);
}

void replic__put_varint(replic__writer *w, uint64_t value) {
  uint8_t bytes[10];
  size_t n = 0;
  for (; value >= 0x80; value >>= 7) bytes[n++] = (uint8_t)(value | 0x80);
  bytes[n++] = (uint8_t)value;
  replic__put_bytes(w, bytes, n);
}

void replic__put_text(replic__writer *w, const char *text) {
  size_t len = strlen(text);
  replic__put_varint(w, len);
  replic__put_bytes(w, text, len);
}

static void put_head(replic__writer *w, int type, uint64_t number) {
  put_u8(w, (unsigned)type | (number <= INLINE_MAX ? (unsigned)number : FOLLOWS) << 3);
  if (number > INLINE_MAX) replic__put_varint(w, number);
}

static void put_real(replic__writer *w, double value) {
  uint64_t bits;
  uint8_t bytes[8];
  memcpy(&bits, &value, sizeof bits);
  for (int i = 0; i < 8; i++, bits >>= 8) bytes[i] = (uint8_t)bits;
  put_u8(w, REPLIC_REAL);
  replic__put_bytes(w, bytes, sizeof bytes);
}

void replic__put_value(replic__writer *w, const replic_value *value) {
  switch (value->type) {
  case REPLIC_INT:
    put_head(w, REPLIC_INT, (uint64_t)value->i << 1 ^ (uint64_t)(value->i < 0 ? -1 : 0));
    break;
  case REPLIC_REAL: put_real(w, value->d); break;
  case REPLIC_TEXT:
  case REPLIC_BLOB:
    put_head(w, value->type, value->len);
    replic__put_bytes(w, value->data, value->len);
    break;
  default: put_u8(w, REPLIC_NULL);
  }
}

void replic__put_fields(replic__writer *w, int n_keys, int n, const replic_value *values) {
  for (int i = 0; i < n_keys; i++) replic__put_value(w, &values[i]);
  for (int i = n_keys; i < n; i += 8) {
    unsigned bits = 0;
    for (int b = 0; b < 8 && i + b < n; b++)
      bits |= (values[i + b].type != REPLIC_UNSET ? 1U : 0U) << b;
    put_u8(w, bits);
  }
  for (int i = n_keys; i < n; i++)
    if (values[i].type != REPLIC_UNSET) replic__put_value(w, &values[i]);
}

replic_frame *replic__finish(replic__writer *w) {
  if (!w->failed) return w->frame;
  sqlite3_free(w->frame);
  return NULL;
}

void replic__frame_release(replic_frame *frame) {
  if (frame && --frame->refs == 0) sqlite3_free(frame);
}

/* ---- reading ---- */

uint64_t replic__unreadable(replic__reader *in) {
  in->failed = 1;
  in->at = in->end;
  return 0;
}

static unsigned get_u8(replic__reader *in) {
  return in->at < in->end ? *in->at++ : (unsigned)replic__unreadable(in);
}

static const uint8_t *get_bytes(replic__reader *in, uint64_t len) {
  if (len > (uint64_t)(in->end - in->at)) {
    replic__unreadable(in);
    return NULL;
  }
  in->at += len;
  return in->at - len;
}

uint64_t replic__get_varint(replic__reader *in, uint64_t max) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    uint64_t byte = get_u8(in);
    if ((shift == 63 && byte > 1) || (shift && !byte)) break; /* too large; longer than need be */
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return in->failed || value > max ? replic__unreadable(in) : value;
  }
  return replic__unreadable(in);
}

size_t replic__get_count(replic__reader *in, size_t min_bytes) {
  return (size_t)replic__get_varint(in, (uint64_t)(in->end - in->at) / min_bytes);
}

const char *replic__get_text(replic__reader *in, size_t *len) {
  *len = (size_t)replic__get_varint(in, (uint64_t)(in->end - in->at));
  const char *text = (const char *)get_bytes(in, *len);
  if (!text) *len = 0;
  return text ? text : "";
}

uint32_t replic__get_epoch(replic__reader *in) {
  return (uint32_t)replic__get_varint(in, UINT32_MAX);
}

uint32_t replic__get_peer(replic__reader *in) {
  uint32_t peer = replic__get_epoch(in);
  return peer ? peer : (uint32_t)replic__unreadable(in);
}

int64_t replic__get_sequence(replic__reader *in) {
  return (int64_t)replic__get_varint(in, REPLIC_MAX_SEQUENCE);
}

int64_t replic__get_clock(replic__reader *in) {
  return (int64_t)replic__get_varint(in, REPLIC_MAX_CLOCK);
}

static double get_real(replic__reader *in) {
  const uint8_t *bytes = get_bytes(in, 8);
  uint64_t bits = 0;
  double value;
  for (int i = 7; bytes && i >= 0; i--) bits = bits << 8 | bytes[i];
  memcpy(&value, &bits, sizeof value);
  if (isnan(value)) replic__unreadable(in);
  return value;
}

void replic__get_value(replic__reader *in, replic_value *value) {
  unsigned head = get_u8(in);
  uint64_t number = head >> 3;
  *value = (replic_value){.type = (int)(head & 7)};
  if (number == FOLLOWS && (number = replic__get_varint(in, UINT64_MAX)) <= INLINE_MAX)
    replic__unreadable(in);
  if ((value->type == REPLIC_NULL || value->type == REPLIC_REAL) && number) replic__unreadable(in);
  switch (value->type) {
  case REPLIC_INT: value->i = (int64_t)(number >> 1 ^ (0 - (number & 1))); break;
  case REPLIC_REAL: value->d = get_real(in); break;
  case REPLIC_TEXT:
  case REPLIC_BLOB:
    value->data = get_bytes(in, number);
    value->len = value->data ? (size_t)number : 0;
    break;
  case REPLIC_NULL: break;
  default: replic__unreadable(in);
  }
  if (in->failed) value->type = REPLIC_NULL;
}

void replic__get_fields(replic__reader *in, int n_keys, int n_fields, replic_value *values) {
  for (int i = 0; i < n_keys; i++) {
    replic__get_value(in, &values[i]);
    if (values[i].type == REPLIC_NULL) replic__unreadable(in); /* a key is never NULL */
  }
  int n = n_fields - n_keys;
  const uint8_t *bitmap = get_bytes(in, (uint64_t)(n + 7) / 8);
  if (bitmap && n % 8 && bitmap[n / 8] >> (n % 8)) replic__unreadable(in); /* bits of no field */
  for (int i = n_keys; i < n_fields; i++) {
    int bit = i - n_keys;
    values[i] = (replic_value){.type = REPLIC_UNSET};
    if (bitmap && bitmap[bit / 8] >> (bit % 8) & 1) replic__get_value(in, &values[i]);
  }
}

/* clang-format off */
/* wire.c - the binary format, version 1.
 *
 *   frame    version u8 = 1, type u8, body, sum: CRC-32C of all before it, four bytes, little-endian
 *   varint   LEB128: seven bits a byte, low ones first, as few bytes as possible
 *   text     varint length, bytes
 *   value    u8 = type | n << 3; n < 31 is the number itself, 31 means that it follows as a varint
 *              type 1 NULL  n = 0
 *              type 2 INT   number = zigzag(value)
 *              type 3 REAL  n = 0, then eight bytes, IEEE 754, little-endian; never NaN
 *              type 4 TEXT  number = length, then the bytes
 *              type 5 BLOB  number = length, then the bytes
 *
 *   HELLO 1    flags (1: please answer with a HELLO), peerId, instance, wall clock in ms,
 *              count, count * (origin, sequence, _patchedAt, epoch),
 *              list: its number, count, count * directly linked peerId, ascending as the origins
 *   PATCHES 2  origin, after, upTo, _patchedAt of the patch `after` (0: pruned, or after is 0),
 *              its epoch, count, count * (distance, epoch): the epochs that begin after it, at how
 *              many sequences from the one before (at first, from `after`),
 *              then the patches after + 1 … upTo
 *     patch    (sequence - previous - 1) << 1 | begins a group; in PATCHES the former is 0, as there
 *              are no holes
 *              if it begins a group: its clock minus the previous group's (at first, minus that of `after`)
 *              table id, the key's values, a bitmap of the other fields (bit 0 of byte 0 first),
 *              the values of those that are set
 *   ACK 3      wall clock in ms,
 *              count, count * (origin, sequence applied),
 *              count, count * (origin, sequence sent to you),
 *              count, count * (origin, sequence sent to you in STAGE),
 *              0, or 1 + the number of your list that is here,
 *              0, or 1, list, or 2, number since, number, count, count * (peerId, 1 linked, 0 not)
 *   NEED 4     origin, after
 *   SCHEMA 5   table id, table name, number of keys, number of fields,
 *              fields * (name, declared type), keys first
 *   ERROR 6    code text, message text
 *   STAGE 7    age, then as PATCHES, but with the number of patches before them, as sequences may
 *              be missing
 *   JUMP 8     count, count * (origin, sequence, _patchedAt, epoch, floor)
 *   TAKE 9     flags (1: go on from here), count, count * (origin, staged up to)
 *   MESSAGE 10 bytes of the application's
 *   FORK 11    origin, its last sequence here, count, count * (sequence, _patchedAt, epoch)
 *
 * Numbers without a type are varints. There is one encoding per content, and another one is refused.
 * Nothing is allocated by a length that the rest of the frame cannot hold. */
/* clang-format on */
#include "wire.h"

#include <math.h>
#include <string.h>

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

void replic__put_frame(replic__writer *w, int type) {
  *w = (replic__writer){0};
  put_u8(w, REPLIC_PROTOCOL_VERSION);
  put_u8(w, (unsigned)type);
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

static void put_patch_head(replic__writer *w, const replic__patch *p, uint32_t table_id,
                           int64_t previous, int64_t clock, int begin_group) {
  replic__put_varint(w, (uint64_t)(p->sequence - previous - 1) << 1 | (uint64_t)begin_group);
  if (begin_group) replic__put_varint(w, (uint64_t)(p->patched_at - clock));
  replic__put_varint(w, table_id);
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

void replic__put_patch(replic__writer *w, const replic__patch *p, uint32_t table_id,
                       int64_t previous, int64_t clock, int begin_group) {
  put_patch_head(w, p, table_id, previous, clock, begin_group);
  replic__put_fields(w, p->table->n_keys, p->table->n_fields, p->values);
}

void replic__put_raw_patch(replic__writer *w, const replic__patch *p, uint32_t table_id,
                           int64_t previous, int64_t clock, int begin_group) {
  put_patch_head(w, p, table_id, previous, clock, begin_group);
  replic__put_bytes(w, p->raw->fields, p->raw->fields_len);
}

replic_frame *replic__finish(replic__writer *w) {
  if (!w->failed) return w->frame;
  sqlite3_free(w->frame);
  return NULL;
}

replic_frame *replic__finish_frame(replic__writer *w) {
  uint32_t sum = w->failed ? 0 : replic__crc32c(w->frame->data, w->frame->len);
  for (int i = 0; i < FRAME_SUM; i++, sum >>= 8) put_u8(w, sum & 255);
  return replic__finish(w);
}

void replic__frame_release(replic_frame *frame) {
  if (frame && --frame->refs == 0) sqlite3_free(frame);
}

/* ---- reading ---- */

int replic__is_whole(const uint8_t *bytes, size_t len) {
  if (len < FRAME_HEAD + FRAME_SUM) return 0;
  const uint8_t *at = bytes + len;
  uint32_t sum = 0;
  for (int i = 0; i < FRAME_SUM; i++) sum = sum << 8 | *--at;
  return replic__crc32c(bytes, len - FRAME_SUM) == sum;
}

static uint64_t fail(replic__reader *in) {
  in->failed = 1;
  in->at = in->end;
  return 0;
}

static unsigned get_u8(replic__reader *in) {
  return in->at < in->end ? *in->at++ : (unsigned)fail(in);
}

static const uint8_t *get_bytes(replic__reader *in, uint64_t len) {
  if (len > (uint64_t)(in->end - in->at)) {
    fail(in);
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
    if (byte < 0x80) return in->failed || value > max ? fail(in) : value;
  }
  return fail(in);
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
  return peer ? peer : (uint32_t)fail(in);
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
  if (isnan(value)) fail(in);
  return value;
}

void replic__get_value(replic__reader *in, replic_value *value) {
  unsigned head = get_u8(in);
  uint64_t number = head >> 3;
  *value = (replic_value){.type = (int)(head & 7)};
  if (number == FOLLOWS && (number = replic__get_varint(in, UINT64_MAX)) <= INLINE_MAX) fail(in);
  if ((value->type == REPLIC_NULL || value->type == REPLIC_REAL) && number) fail(in);
  switch (value->type) {
  case REPLIC_INT: value->i = (int64_t)(number >> 1 ^ (0 - (number & 1))); break;
  case REPLIC_REAL: value->d = get_real(in); break;
  case REPLIC_TEXT:
  case REPLIC_BLOB:
    value->data = get_bytes(in, number);
    value->len = value->data ? (size_t)number : 0;
    break;
  case REPLIC_NULL: break;
  default: fail(in);
  }
  if (in->failed) value->type = REPLIC_NULL;
}

int replic__get_patches(replic__reader *in, int type, replic__patches *out) {
  int staged = type == FRAME_STAGE;
  int64_t age = staged ? (int64_t)replic__get_varint(in, INT64_MAX) : 0;
  *out = (replic__patches){.has_holes = staged, .age = age};
  out->origin = replic__get_peer(in);
  out->after = replic__get_sequence(in);
  out->up_to = replic__get_sequence(in);
  out->after_clock = out->clock = replic__get_clock(in);
  out->after_epoch = replic__get_epoch(in);
  out->n_epochs = replic__get_count(in, 2);
  if (out->n_epochs > EPOCHS_MAX) in->failed = 1;
  out->epochs = *in;
  replic__patches epochs = *out;
  uint32_t epoch = out->after_epoch, next;
  for (int64_t from = out->after; replic__next_epoch(&epochs, &from, &next); epoch = next)
    if (next == epoch) epochs.epochs.failed = 1; /* it does not begin here */
  *in = epochs.epochs;
  if (!out->after && out->after_epoch) in->failed = 1;
  if (staged) out->left = replic__get_count(in, 3);
  out->sequence = out->after;
  out->in = *in;
  out->first = in->at;
  return !in->failed && out->up_to > out->after;
}

int replic__next_epoch(replic__patches *p, int64_t *from, uint32_t *epoch) {
  if (!p->n_epochs || p->epochs.failed) return 0;
  p->n_epochs--;
  uint64_t most = p->up_to > *from ? (uint64_t)(p->up_to - *from) : 0;
  uint64_t distance = replic__get_varint(&p->epochs, most);
  if (!distance) p->epochs.failed = 1;
  *from += (int64_t)distance;
  *epoch = replic__get_epoch(&p->epochs);
  return !p->epochs.failed;
}

uint32_t replic__epoch_in(const replic__patches *p, int64_t sequence) {
  replic__patches rest = *p;
  int64_t from = p->after;
  uint32_t epoch = p->after_epoch, next;
  while (replic__next_epoch(&rest, &from, &next) && from <= sequence) epoch = next;
  return epoch;
}

int replic__next_patch(replic__patches *p) {
  replic__reader *in = &p->in;
  if (in->at == in->end) {
    if (p->has_holes ? p->left > 0 : p->sequence != p->up_to)
      fail(in); /* cut off between two patches */
    return 0;
  }
  if (p->has_holes && !p->left--) fail(in);
  int first = in->at == p->first;
  uint64_t head = replic__get_varint(in, (uint64_t)REPLIC_MAX_SEQUENCE << 1);
  int64_t step = (int64_t)(head >> 1) + 1;
  p->begins_group = (int)(head & 1);
  if (step > (p->has_holes ? p->up_to - p->sequence : p->sequence < p->up_to) ||
      (first && !p->begins_group))
    fail(in);
  if (p->begins_group)
    p->clock += (int64_t)replic__get_varint(in, (uint64_t)(REPLIC_MAX_CLOCK - p->clock));
  p->table_id = (uint32_t)replic__get_varint(in, UINT32_MAX);
  if (!in->failed) p->sequence += step;
  return !in->failed;
}

void replic__get_fields(replic__patches *p, int n_keys, int n_fields, replic_value *values) {
  replic__reader *in = &p->in;
  for (int i = 0; i < n_keys; i++) {
    replic__get_value(in, &values[i]);
    if (values[i].type == REPLIC_NULL) fail(in); /* a key is never NULL */
  }
  int n = n_fields - n_keys;
  const uint8_t *bitmap = get_bytes(in, (uint64_t)(n + 7) / 8);
  if (bitmap && n % 8 && bitmap[n / 8] >> (n % 8)) fail(in); /* bits of no field */
  for (int i = n_keys; i < n_fields; i++) {
    int bit = i - n_keys;
    values[i] = (replic_value){.type = REPLIC_UNSET};
    if (bitmap && bitmap[bit / 8] >> (bit % 8) & 1) replic__get_value(in, &values[i]);
  }
}

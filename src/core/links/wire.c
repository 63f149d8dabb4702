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
#include "links/wire.h"

/* ---- writing ---- */

void replic__put_frame(replic__writer *w, int type) {
  const uint8_t head[FRAME_HEAD] = {REPLIC_PROTOCOL_VERSION, (uint8_t)type};
  *w = (replic__writer){0};
  replic__put_bytes(w, head, sizeof head);
}

static void put_patch_head(replic__writer *w, const replic__patch *p, uint32_t table_id,
                           int64_t previous, int64_t clock, int begin_group) {
  replic__put_varint(w, (uint64_t)(p->sequence - previous - 1) << 1 | (uint64_t)begin_group);
  if (begin_group) replic__put_varint(w, (uint64_t)(p->patched_at - clock));
  replic__put_varint(w, table_id);
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

replic_frame *replic__finish_frame(replic__writer *w) {
  uint32_t sum = w->failed ? 0 : replic__crc32c(w->frame->data, w->frame->len);
  uint8_t bytes[FRAME_SUM];
  for (int i = 0; i < FRAME_SUM; i++, sum >>= 8) bytes[i] = (uint8_t)sum;
  replic__put_bytes(w, bytes, sizeof bytes);
  return replic__finish(w);
}

/* ---- reading ---- */

int replic__is_whole(const uint8_t *bytes, size_t len) {
  if (len < FRAME_HEAD + FRAME_SUM) return 0;
  const uint8_t *at = bytes + len;
  uint32_t sum = 0;
  for (int i = 0; i < FRAME_SUM; i++) sum = sum << 8 | *--at;
  return replic__crc32c(bytes, len - FRAME_SUM) == sum;
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
      replic__unreadable(in); /* cut off between two patches */
    return 0;
  }
  if (p->has_holes && !p->left--) replic__unreadable(in);
  int first = in->at == p->first;
  uint64_t head = replic__get_varint(in, (uint64_t)REPLIC_MAX_SEQUENCE << 1);
  int64_t step = (int64_t)(head >> 1) + 1;
  p->begins_group = (int)(head & 1);
  if (step > (p->has_holes ? p->up_to - p->sequence : p->sequence < p->up_to) ||
      (first && !p->begins_group))
    replic__unreadable(in);
  if (p->begins_group)
    p->clock += (int64_t)replic__get_varint(in, (uint64_t)(REPLIC_MAX_CLOCK - p->clock));
  p->table_id = (uint32_t)replic__get_varint(in, UINT32_MAX);
  if (!in->failed) p->sequence += step;
  return !in->failed;
}

/* ---- a frame that nobody has looked at yet ---- */

int replic_frame_takes(const uint8_t *bytes, size_t len) {
  int type = len > 1 ? bytes[1] : 0;
  if (!len || type == FRAME_ACK) return REPLIC_TAKES_MEMORY;
  return type == FRAME_PATCHES ? REPLIC_TAKES_WRITE_LOCK : REPLIC_TAKES_LONGER;
}

int replic_frame_brings(const uint8_t *bytes, size_t len) {
  int type = len > 1 ? bytes[1] : 0;
  return type == FRAME_PATCHES || type == FRAME_STAGE || type == FRAME_JUMP;
}

uint32_t replic_frame_sum(const uint8_t *bytes, size_t len) {
  return replic__crc32c(bytes, len);
}

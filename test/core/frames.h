/* frames.h - the protocol a second time, written from the layout on top of src/core/wire.c and not
 * from its code: the tests make frames with it and play a peer, so that a mistake in wire.c cannot
 * cancel itself out. */
#ifndef FRAMES_H
#define FRAMES_H

#include "harness.h"

enum { HELLO = 1, PATCHES, ACK, NEED, SCHEMA, ERROR };

/* Bytes that grow; they live until the test ends. */
typedef struct bytes {
  uint8_t *data;
  size_t len, cap;
} bytes;

bytes *frame_new(int type);
void add_u8(bytes *b, unsigned value);
void add_varint(bytes *b, uint64_t value);
void add_raw(bytes *b, const void *data, size_t len);
void add_text(bytes *b, const char *text);
void add_value(bytes *b, const replic_value *value);

bytes *hello_frame(uint32_t peer, int64_t wall_ms, const replic_position *vector, size_t n_vector);
/* `fields`: name, type, name, type …; keys first */
bytes *schema_frame(uint32_t id, const char *table, size_t n_keys, size_t n_fields,
                    const char *const *fields);
/* A PATCHES frame without its patches. */
bytes *patches_frame(uint32_t origin, int64_t after, int64_t up_to);
/* `step`: its sequence minus the one before; `clock_delta` is written where it begins a group. */
void add_patch(bytes *b, int64_t step, bool begins_group, uint64_t clock_delta, uint32_t table,
               size_t n_keys, size_t n_fields, const replic_value *values);

/* Hands a frame to the peer at side 0 of a wire to the test. */
void play(cluster *c, int w, const bytes *frame);
/* Forgets what that peer has sent, and returns how many of its frames were of `type` (0: of any).
 */
size_t take_frames(cluster *c, int w, int type);

#endif

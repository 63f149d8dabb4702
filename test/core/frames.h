/* frames.h - the protocol a second time, written from the layout on top of src/core/links/wire.c
 * and not from its code: the tests make frames with it and play a peer, so that a mistake in wire.c
 * cannot cancel itself out. */
#ifndef FRAMES_H
#define FRAMES_H

#include "harness.h"

enum { HELLO = 1, PATCHES, ACK, NEED, SCHEMA, ERROR, STAGE, JUMP, TAKE, MESSAGE, FORK };

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
/* The same of a certain process: hello_frame's instance is its peerId. */
bytes *hello_of(uint32_t peer, uint32_t instance, int64_t wall_ms, const replic_position *vector,
                size_t n_vector);
/* An ACK begins with the time; then come three lists (applied, sent, staged), then what it
 * says of lists of linked peers. */
bytes *ack_frame(int64_t wall_ms);
void add_no_list(bytes *ack); /* nothing of these */
/* A list of (origin, sequence). */
void add_positions(bytes *b, const replic_position *positions, size_t n);
/* `fields`: name, type, name, type …; keys first */
bytes *schema_frame(uint32_t id, const char *table, size_t n_keys, size_t n_fields,
                    const char *const *fields);
/* A PATCHES or STAGE frame without its patches. It does not know the clock of the patch `after`. */
bytes *patches_frame(uint32_t origin, int64_t after, int64_t up_to);
bytes *patches_on(uint32_t origin, int64_t after, int64_t clock, int64_t up_to);
bytes *patches_in(uint32_t origin, int64_t up_to, uint32_t epoch); /* from the first one on */
bytes *stage_frame(int64_t age, uint32_t origin, int64_t after, int64_t up_to, size_t n_patches);
/* `floors`: one per position of the vector. */
bytes *jump_frame(const replic_position *vector, const int64_t *floors, size_t n);
/* TAKE: what is staged. */
bytes *staged_frame(bool again, const replic_position *staged, size_t n);
/* `probes`: of each the sequence and the clock. */
bytes *fork_frame(uint32_t origin, int64_t last, const replic_position *probes, size_t n);
/* `step`: its sequence minus the one before; `clock_delta` is written where it begins a group. */
void add_patch(bytes *b, int64_t step, bool begins_group, uint64_t clock_delta, uint32_t table,
               size_t n_keys, size_t n_fields, const replic_value *values);

char *show_hex(const uint8_t *data, size_t len); /* "01 0a"; lives until the test ends */

/* A frame as it goes over the line: with its sum, CRC-32C by its definition. */
bytes *whole(const void *frame, size_t len);

/* Hands a frame, without its sum, to the peer at side 0 of a wire to the test. */
void play(cluster *c, int w, const bytes *frame);
/* Forgets what that peer has sent, and returns how many of its frames were of `type` (0: of any).
 */
size_t take_frames(cluster *c, int w, int type);

#endif

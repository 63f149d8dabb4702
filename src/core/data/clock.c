/* clock.c - the hybrid logical clock: the next _patchedAt, in Unix milliseconds.
 *
 * The wall clock if it is greater than the highest seen; else the highest seen, plus 1 where the
 * order needs it: if a peer with a greater peerId has stamped that. So a local patch is always
 * greater, as (_patchedAt, _peerId, _sequenceId), than all that this peer has applied, and within
 * an origin clocks grow with the sequence. (Kulkarni et al., "Logical Physical Clocks", 2014,
 * without its separate counter: the sequence is that.)
 *
 * Peers that answer each other's patches faster than one in a millisecond would drive the clock
 * away from time, 1 at each answer. So beyond MAX_LEAD_MS what a batch that adds 1 has written
 * goes out 1 ms later (replic_must_wait): every 1 of such a chain then costs a millisecond of time,
 * whatever the number of peers. Where a wall clock is wrong nobody waits for longer than that.
 *
 * Consecutive patches of one origin with the same _patchedAt are read from the log as one group
 * (order.c, links/outgoing.c): that keeps every transaction whole without a column for it. The plus
 * 1 after a full run keeps such groups small while the wall clock stands still. Where the wall
 * clock runs, but behind what was seen, a run is full sooner: with the next millisecond, as where
 * it is not behind, so that links have what they can divide. */
#include "data/data.h"
#include "state.h"

#define RUN_PATCHES 1000
#define RUN_BYTES (1 << 20)
#define SLICE_BYTES 2048 /* enough for a frame of the slowest link (pace.c) */
#define MAX_LEAD_MS 240
#define LEADS_MS 250  /* ahead of the wall clock by more: a clock somewhere is wrong */
#define FOLLOWS_MS 10 /* whoever answers what is ahead is ahead of it by less */

static int is_run_full(const replic__clock *clock, int64_t now_ms) {
  return clock->run_patches >= RUN_PATCHES || clock->run_bytes >= RUN_BYTES ||
         (clock->run_bytes >= SLICE_BYTES && now_ms != clock->run_ms);
}

int64_t replic__clock_next(replic__clock *clock, int64_t now_ms) {
  int is_full = is_run_full(clock, now_ms);
  clock->run_ms = now_ms;
  if (now_ms > clock->high) {
    clock->high = now_ms;
    clock->raised_by = 0;
  } else if (clock->is_passed || is_full) {
    clock->high++;
    if (clock->high > now_ms + MAX_LEAD_MS) clock->is_hurried = 1;
  } else {
    return clock->high;
  }
  clock->is_passed = 0;
  clock->run_patches = clock->run_bytes = 0;
  return clock->high;
}

void replic__clock_issued(replic__clock *clock, int64_t bytes) {
  clock->run_patches++;
  clock->run_bytes += bytes;
}

/* It is ahead because that origin is: what only follows names nobody. */
static int has_led(const replic__clock *clock, const replic_position *at, int64_t now_ms) {
  return clock->high <= now_ms || at->patched_at > clock->high + FOLLOWS_MS;
}

void replic__clock_seen(replic__clock *clock, int64_t now_ms, const replic_position *at,
                        uint32_t self) {
  int is_greater = at->origin >= self;
  if (at->patched_at > clock->high) {
    if (has_led(clock, at, now_ms)) clock->raised_by = at->origin;
    clock->high = at->patched_at;
    clock->is_passed = is_greater;
    clock->run_patches = clock->run_bytes = 0;
  } else if (at->patched_at == clock->high && is_greater) {
    clock->is_passed = 1;
  }
}

int64_t replic_clock_high(const replic *r) {
  return r->clock_committed.high;
}

uint32_t replic_clock_raised_by(const replic *r) {
  return r->clock_committed.raised_by;
}

uint32_t replic__clock_leader(const replic *r) {
  const replic__clock *clock = &r->clock_committed;
  if (clock->high <= r->now_ms + LEADS_MS) return 0;
  return clock->raised_by ? clock->raised_by : r->peer_id;
}

int replic_must_wait(const replic *r) {
  return r->clock_committed.is_hurried;
}

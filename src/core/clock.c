/* clock.c - the hybrid logical clock: the next _patchedAt, in Unix milliseconds.
 *
 * The wall clock if it is greater than the highest seen; else the highest seen, plus 1 if that came
 * from another peer. So a local patch is always greater, as (_patchedAt, _peerId, _sequenceId),
 * than all that this peer has applied, and within an origin clocks grow with the sequence.
 * (Kulkarni et al., "Logical Physical Clocks", 2014, without its separate counter: the sequence is
 * that.)
 *
 * Consecutive patches of one origin with the same _patchedAt are read from the log as one group
 * (log.c, sync.c): that keeps every transaction whole without a column for it. The plus 1 after a
 * full run keeps such groups small while the wall clock stands still, as after a step back; it
 * moves the clock by less than real time passes. */
#include "core.h"

#define RUN_PATCHES 1000
#define RUN_BYTES (1 << 20)

int64_t replic__clock_next(replic__clock *clock, int64_t now_ms) {
  if (now_ms > clock->high) {
    clock->high = now_ms;
  } else if (clock->foreign || clock->run_patches >= RUN_PATCHES || clock->run_bytes >= RUN_BYTES) {
    clock->high++;
  } else {
    return clock->high;
  }
  clock->foreign = 0;
  clock->run_patches = clock->run_bytes = 0;
  return clock->high;
}

void replic__clock_issued(replic__clock *clock, int64_t bytes) {
  clock->run_patches++;
  clock->run_bytes += bytes;
}

void replic__clock_seen(replic__clock *clock, int64_t patched_at) {
  if (patched_at < clock->high) return;
  clock->high = patched_at;
  clock->foreign = 1;
}

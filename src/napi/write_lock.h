// write_lock.h - waiting for the write lock of the file while another program has it: on no thread.
//
//   a Batch finds the lock taken   its calls go back to the head of their queue, and so do the
//                                  frames that bring patches (`held`); lib is asked for a timer
//   meanwhile                      Batches of heartbeats, acknowledgements and the like
//   the timer ends: try_lock()     the next Batch has all that waits, and tries again
//
// Each call waits for so long as Limits::busy_timeout_ms says, and then fails, as all others that
// have been waiting since then. Frames wait as long as it takes; those beyond a bound are dropped,
// and asked for like any frame that is lost.
#pragma once

#include <napi.h>

#include <cstdint>

struct State;
struct WriteJob;
struct Batch;
template <typename J> class JobList;

int64_t steady_ms(); // never goes back; any thread

// Main thread only.
class WriteLock {
public:
  // Something waits for it.
  bool is_awaited() const {
    return since_ms_ != 0;
  }
  // Whether a Batch may try it now.
  bool is_due() const {
    return !is_awaited() || is_due_;
  }
  int64_t since_ms() const { // Unix time; 0: nothing waits
    return wall_since_ms_;
  }
  // A call that comes while others wait.
  void note(WriteJob *call) const;
  void begin(Batch &batch, int64_t timeout_ms); // which tries it, or is to leave it alone
  void after_batch(State &state, Batch &batch);
  void try_now();
  void give_up(); // calls wait no longer
  // Whether there is room for one more frame.
  bool has_room(const State &state, const WriteJob *frame) const;

private:
  void wait(State &state);
  void ask_for_timer(State &state);

  int64_t since_ms_ = 0, wall_since_ms_ = 0;
  size_t tries_ = 0;
  bool is_due_ = false, has_timer_ = false, gives_up_ = false;
};

#include "read_threads.h"

#include <algorithm>

#include "queue.h"

// Never ends, as threads may outlive statics. Not one of a function: its guard is the C++
// runtime's, which published binaries do without.
static ReadThreads *const threads = new ReadThreads;

ReadThreads &ReadThreads::all() {
  return *threads;
}

void ReadThreads::set_pool(size_t n_threads) {
  std::lock_guard<std::mutex> lock(mutex_);
  most_ = n_threads > 1 ? n_threads - 1 : 1;
}

bool ReadThreads::take(State &state) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (state.read_threads_handed > 0) {
    state.read_threads_handed--;
    return true;
  }
  if (taken_ < most_ && line_.empty()) {
    taken_++;
    return true;
  }
  if (std::find(line_.begin(), line_.end(), &state) == line_.end()) {
    line_.push_back(&state);
    state.keep_loop(true); // nothing else may: what it waits for can be another thread's
  }
  return false;
}

void ReadThreads::give_back() {
  std::lock_guard<std::mutex> lock(mutex_);
  taken_--;
  if (line_.empty() || taken_ >= most_) return;
  State *next = line_.front();
  line_.pop_front();
  taken_++;
  next->read_threads_handed++;
  next->wake();
}

void ReadThreads::settle(State &state) {
  size_t unused;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    unused = state.read_threads_handed;
    state.read_threads_handed = 0;
    if (std::find(line_.begin(), line_.end(), &state) == line_.end()) state.keep_loop(false);
  }
  while (unused-- > 0) give_back();
}

void ReadThreads::forget(State &state) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    line_.erase(std::remove(line_.begin(), line_.end(), &state), line_.end());
  }
  settle(state);
}

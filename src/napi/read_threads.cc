#include "read_threads.h"

#include <algorithm>

#include "lifetime.h"

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

bool ReadThreads::take(Lifetime &life) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (life.threads_handed > 0) {
    life.threads_handed--;
    return true;
  }
  if (taken_ < most_ && line_.empty()) {
    taken_++;
    return true;
  }
  if (std::find(line_.begin(), line_.end(), &life) == line_.end()) {
    line_.push_back(&life);
    life.keep_loop(true); // nothing else may: what it waits for can be another thread's
  }
  return false;
}

void ReadThreads::give_back() {
  std::lock_guard<std::mutex> lock(mutex_);
  taken_--;
  if (line_.empty() || taken_ >= most_) return;
  Lifetime *next = line_.front();
  line_.pop_front();
  taken_++;
  next->threads_handed++;
  next->wake();
}

void ReadThreads::settle(Lifetime &life) {
  size_t unused;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    unused = life.threads_handed;
    life.threads_handed = 0;
    if (std::find(line_.begin(), line_.end(), &life) == line_.end()) life.keep_loop(false);
  }
  while (unused-- > 0) give_back();
}

void ReadThreads::forget(Lifetime &life) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    line_.erase(std::remove(line_.begin(), line_.end(), &life), line_.end());
  }
  settle(life);
}

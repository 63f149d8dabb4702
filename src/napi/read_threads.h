// read_threads.h - how many threads of the pool may read at a time: all but one, so that writes,
// frames and whatever else the application has there always find a thread, however long queries
// run.
//
// The pool is the process's, and so is this: all replicas of all its threads share it. A Lifetime
// that finds none free waits in line, and is called when one is handed to it.
#pragma once

#include <deque>
#include <mutex>

class Lifetime;

class ReadThreads {
public:
  static ReadThreads &all();

  void set_pool(size_t n_threads); // as lib knows it; the last one counts
  // ---- main thread of `life`
  bool take(Lifetime &life);   // false: it is in line now
  void settle(Lifetime &life); // gives back what was handed to it and not taken
  void forget(Lifetime &life); // it ends: nothing of it is left in line

  // ---- any thread
  void give_back();

private:
  std::mutex mutex_;
  size_t taken_ = 0, most_ = 3;
  std::deque<Lifetime *> line_;
};

// watch.h - what may end a statement before its end.
//
// SQLite asks every few thousand steps (query.h, replic.h), on the thread that runs the statement.
// Each job has its own flag, so that what is stopped is that job and no other: sqlite3_interrupt
// would hit whatever the connection does by then.
#pragma once

#include <chrono>

#include "job.h"

class Lifetime;

// How long a query may run, in ms; 0: as long as it likes.
struct Limit {
  double max_query_ms = 0; // the replica's
  double timeout_ms = 0;   // the call's
};

// Of one connection. The thread that runs a job on it; the main thread when none does.
class Watch {
public:
  // Until end() `job` can be stopped. `goes_on`: it continues what the last one did, whose time
  // counts.
  void begin(Job &job, const Limit &limit, bool goes_on);
  void begin(Job &job) {
    begin(job, Limit(), false);
  }
  // Says why, where it was stopped.
  void end(const Lifetime &life);
  bool must_stop(Lifetime &life, bool is_sql);
  bool calls_itself = false; // the main thread runs the statements of this connection

private:
  using Clock = std::chrono::steady_clock;
  Job *job_ = nullptr;
  Limit limit_;
  Clock::time_point begun_, due_, wake_;
  Clock::duration spent_{0};
  bool is_late_ = false;
};

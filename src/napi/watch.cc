#include "watch.h"

#include <sqlite3.h>

#include "lifetime.h"

// A thread whose environment ends waits for what runs, before it tells anybody (Node). So what runs
// for long asks whether it still lives: by a call of its event loop's, or of a function of its own
// where it runs the statement itself.
static const auto ASK_AGAIN = std::chrono::milliseconds(50);

static double least(const Limit &limit) {
  if (limit.timeout_ms <= 0) return limit.max_query_ms;
  if (limit.max_query_ms <= 0) return limit.timeout_ms;
  return limit.timeout_ms < limit.max_query_ms ? limit.timeout_ms : limit.max_query_ms;
}

void Watch::begin(Job &job, const Limit &limit, bool goes_on) {
  double ms = least(limit);
  job_ = &job;
  limit_ = limit;
  is_late_ = false;
  begun_ = Clock::now();
  wake_ = begun_ + ASK_AGAIN;
  if (!goes_on) spent_ = Clock::duration(0);
  auto whole = std::chrono::duration<double, std::milli>(ms);
  due_ = ms > 0 ? begun_ + std::chrono::duration_cast<Clock::duration>(whole) - spent_
                : Clock::time_point::max();
}

bool Watch::must_stop(Lifetime &life, bool is_sql) {
  if (life.dying) return true;
  if (!job_ || !is_sql) return false;
  if (job_->stop != Stop::no) return true;
  Clock::time_point now = Clock::now();
  is_late_ = is_late_ || now >= due_;
  if (now >= wake_) {
    wake_ = now + ASK_AGAIN;
    if (calls_itself)
      life.feel_pulse();
    else
      life.wake();
  }
  return is_late_ || life.dying;
}

void Watch::end(const Lifetime &life) {
  Failure &failure = job_->failure;
  bool was_stopped = failure.code() == SQLITE_INTERRUPT;
  spent_ += Clock::now() - begun_;
  Stop why = job_->stop;
  if (was_stopped && (why == Stop::closing || why == Stop::gone)) {
    failure.clear();
    life.set_stopped(failure, why);
  } else if (was_stopped && is_late_) {
    bool own = limit_.timeout_ms > 0 && least(limit_) == limit_.timeout_ms;
    const char *name = own ? "timeoutMs" : "maxQueryMs";
    failure.clear();
    failure.set(REPLIC_ETIMEOUT,
                "the query has run for %.0f ms, which is its %s, and was stopped: EXPLAIN QUERY "
                "PLAN says what it reads; add an index, or allow it a longer %s",
                least(limit_), name, name);
  }
  job_ = nullptr;
}

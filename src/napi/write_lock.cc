#include "write_lock.h"

#include <algorithm>

#include "queue.h"
#include <sqlite3.h>

static const size_t MOST_HELD_BYTES = 8 << 20; // of frames; less than lib pauses its sockets at

int64_t steady_ms() {
  auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since).count() + 1; // never 0
}

// ---- the Batch, on its own thread ---------------------------------------------------------------

static bool is_busy(const WriteJob *job) {
  return job->failure.code() > 0 && (job->failure.code() & 0xff) == SQLITE_BUSY;
}

static bool has_waited(const WriteJob *call, int64_t now_ms, int64_t gives_up_before) {
  return (call->waits_since_ms ? call->waits_since_ms : now_ms) <= gives_up_before;
}

// Behind a call that goes back all others do, so that they stay in order. None of them has done
// anything: what needs the lock has failed, too.
void Batch::put_back() {
  bool goes_back = false;
  int64_t now_ms = steady_ms();
  if (in_step || (state->writer.core && !replic_is_busy(state->writer.core))) return;
  JobList<WriteJob> all;
  std::lock_guard<std::mutex> lock(state->mutex); // the main thread may look for one to stop
  while (WriteJob *job = jobs.pop()) all.push(job);
  while (WriteJob *job = all.pop()) {
    met_lock = met_lock || is_busy(job);
    if (job->deferred && is_busy(job) && !has_waited(job, now_ms, gives_up_before))
      goes_back = true;
    bool stays = job->deferred ? !goes_back : !is_busy(job);
    if (!stays) job->failure.clear();
    if (!stays && !job->waits_since_ms) job->waits_since_ms = now_ms;
    (stays ? jobs : job->deferred ? back : back_frames).push(job);
  }
}

// ---- the main thread ----------------------------------------------------------------------------

void WriteLock::note(WriteJob *call) const {
  if (is_awaited()) call->waits_since_ms = steady_ms();
}

void WriteLock::begin(Batch &batch, int64_t timeout_ms) {
  batch.leaves_lock = !is_due();
  batch.gives_up_before = gives_up_ ? INT64_MAX : steady_ms() - timeout_ms;
  is_due_ = false;
}

bool WriteLock::has_room(const State &state, const WriteJob *frame) const {
  size_t bytes = state.held.bytes(), most = state.limits.max_queue_bytes / 4;
  return !bytes || bytes + frame->arena.bytes() <= std::min(most, MOST_HELD_BYTES);
}

void WriteLock::after_batch(State &state, Batch &batch) {
  if (batch.back.first() && batch.back.first()->order() == WriteJob::Order::opens)
    state.migrating = false;
  state.writes.prepend(batch.back);
  state.held.prepend(batch.back_frames);
  if (batch.leaves_lock) return;
  if (batch.met_lock && (state.writes.first() || state.held.first())) return wait(state);
  since_ms_ = wall_since_ms_ = 0;
  tries_ = 0;
}

// Calls that were made before the lock was found taken begin to wait now, and come first.
void WriteLock::wait(State &state) {
  if (!is_awaited()) {
    since_ms_ = steady_ms();
    wall_since_ms_ = wall_clock_ms();
    for (WriteJob *call = state.writes.first(); call; call = call->next)
      if (!call->waits_since_ms) call->waits_since_ms = since_ms_;
  }
  if (!gives_up_) ask_for_timer(state);
  is_due_ = gives_up_;
}

// As SQLite's own waiting does, but no later than the first call gives up.
void WriteLock::ask_for_timer(State &state) {
  static const int DELAYS_MS[] = {1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100};
  static const size_t LAST = sizeof DELAYS_MS / sizeof *DELAYS_MS - 1;
  int64_t delay_ms = DELAYS_MS[std::min(tries_++, LAST)];
  if (const WriteJob *first = state.writes.first())
    delay_ms =
        std::min(delay_ms, first->waits_since_ms + state.limits.busy_timeout_ms - steady_ms());
  if (has_timer_) return;
  has_timer_ = true;
  Napi::HandleScope scope(state.env);
  Napi::Object report = Napi::Object::New(state.env);
  report.Set("lockWaitMs", static_cast<double>(std::max<int64_t>(delay_ms, 1)));
  report.Set("lockedSince", static_cast<double>(wall_since_ms_));
  state.tell(report);
}

void WriteLock::try_now() {
  has_timer_ = false;
  is_due_ = true;
}

void WriteLock::give_up() {
  gives_up_ = is_due_ = true;
}

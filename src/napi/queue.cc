#include "queue.h"

#include <new>

#include <sqlite3.h>

#include "read_threads.h"

// A batch ends with the call that reaches one of these: more calls would save little. Received
// frames have bounds of their own: local writes share their batch, and shall not wait for all that
// a fast peer has sent, or for what takes it least and this side most.
static const size_t BATCH_CALLS = 512, BATCH_BYTES = 8 << 20, BATCH_FRAME_BYTES = 256 << 10;
static const size_t SETTLED_AT_ONCE = 128; // promises in a turn of the event loop
// What the main thread runs itself: a tenth of a millisecond or so.
static const size_t LITTLE_CALLS = 4, LITTLE_BYTES = 4 << 10;

// ---- state ---------------------------------------------------------------------------------------

State::~State() {
  Batch::free_list(spent);
}

bool State::begin_life() {
  if (!reads.create(this, limits.readers) || !begin()) return false;
  phase = Phase::opening;
  return true;
}

void State::end_life() {
  phase = Phase::closed;
  frames.clear(); // what came in after the last batch is asked for again
  held.clear();
  ReadThreads::all().forget(*this);
  end();
}

void State::woken() {
  reads.relieve();
  pump();
}

// Not Napi::Promise::Deferred: what that gives where the environment ends is not even null.
Napi::Value resolved_promise(Napi::Env env) {
  napi_deferred deferred;
  napi_value promise;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok ||
      napi_resolve_deferred(env, deferred, env.Undefined()) != napi_ok)
    return Napi::Value();
  return Napi::Value(env, promise);
}

napi_value State::make_promise(Job *job) {
  napi_value promise = nullptr;
  napi_create_promise(env, &job->deferred, &promise);
  return promise;
}

bool State::check_open(Failure &failure) const {
  if (phase == Phase::open) return true;
  bool early = phase == Phase::created || phase == Phase::opening;
  return failure.set(REPLIC_ECLOSED,
                     early ? "the replica is not open yet" : "the replica is closed");
}

// A single call is always taken: how large it may be is for the core to say (maxFrameBytes).
bool State::check_room(size_t calls, size_t bytes, size_t more, Failure &failure) const {
  if (calls < limits.max_queue_calls && bytes + more <= limits.max_queue_bytes) return true;
  if (calls == 0) return true;
  return failure.set(REPLIC_EBUSY,
                     "the queue is full: %zu calls of %zu bytes wait (maxQueueCalls is %zu, "
                     "maxQueueBytes %zu); await earlier calls first",
                     calls, bytes, limits.max_queue_calls, limits.max_queue_bytes);
}

void State::push(WriteJob *job) {
  if (!job) return;
  if (phase != Phase::open) {
    delete job; // a link that ends after close()
    return;
  }
  bool waits = lock.is_awaited() && job->brings();
  if (waits && !lock.has_room(*this, job)) {
    delete job;
    return;
  }
  (waits ? held : frames).push(job);
  added();
}

// Moves grouped jobs until one more would exceed BATCH_CALLS, or `bytes` are reached. One that may
// be stopped comes first: SQLite then undoes the transaction, so it must be alone in it by then.
static void take(JobList<WriteJob> &from, JobList<WriteJob> &to, size_t bytes) {
  size_t calls = to.calls() + BATCH_CALLS;
  bytes += to.bytes();
  while (from.first() && from.first()->order() == WriteJob::Order::grouped && to.calls() < calls &&
         to.bytes() < bytes && !(to.calls() && from.first()->ticket))
    to.push(from.pop());
}

void State::pump() {
  if (dying) return;
  if (settles_ && !reads.hold_older() && !checkpoints.busy()) settle_wal();
  if (!batch) start_batch();
  reads.pump();
}

// What waits for the write lock stays where it is until that is tried again.
Batch *State::next_batch() {
  WriteJob *first = migrating ? steps.first() : lock.is_due() ? writes.first() : nullptr;
  if (migrating && !first) return nullptr;
  // the core is gone once close has run
  bool has_frames = phase == Phase::open && checkpoints.takes_frames() &&
                    (frames.first() || (lock.is_due() && held.first()));
  if (!first && !has_frames) return nullptr;
  if (!migrating && checkpoints.must_wait()) return nullptr;
  if (first && first->order() == WriteJob::Order::last && !(reads.idle() && !checkpoints.busy()))
    return nullptr;
  Batch *next = new (std::nothrow) Batch(this);
  if (!next) return nullptr;
  fill(next, first);
  if (!migrating) next->rest_ms = checkpoints.take_rest();
  std::swap(next->spent, spent);
  return batch = next;
}

void State::fill(Batch *next, WriteJob *first) {
  bool is_due = lock.is_due();
  if (migrating) {
    next->in_step = true;
    next->jobs.push(steps.pop());
    return;
  }
  lock.begin(*next, limits.busy_timeout_ms);
  if (first && first->order() != WriteJob::Order::grouped) {
    migrating = first->order() == WriteJob::Order::opens;
    next->jobs.push(writes.pop());
    return;
  }
  if (is_due) take(writes, next->jobs, BATCH_BYTES);
  if (phase != Phase::open || !checkpoints.takes_frames()) return;
  auto is_tick = [](const WriteJob &job) { return job.is_tick(); };
  if (held.first() && held.first()->is_work())
    if (WriteJob *tick = frames.take(is_tick)) next->jobs.push(tick); // it is not to wait for all
  if (is_due) take(held, next->jobs, BATCH_FRAME_BYTES);
  if (!is_due || !held.first()) take(frames, next->jobs, BATCH_FRAME_BYTES);
}

void State::start_batch() {
  if (Batch *next = next_batch()) next->start();
}

void State::added() {
  if (!batch && is_little())
    reads.pump();
  else
    pump();
}

static bool is_light(const JobList<WriteJob> &list, int most) {
  for (WriteJob *job = list.first(); job; job = job->next)
    if (job->takes() > most) return false;
  return true;
}

bool State::is_little() const {
  if (phase != Phase::open || migrating || lock.is_awaited() || held.first() ||
      writes.calls() + frames.calls() > LITTLE_CALLS ||
      writes.bytes() + frames.bytes() > LITTLE_BYTES)
    return false;
  int most = config.normal_durability ? REPLIC_TAKES_WRITE_LOCK : REPLIC_TAKES_MEMORY;
  return is_light(writes, most) && is_light(frames, most);
}

void State::settle_some() {
  bool all = phase == Phase::closed;
  for (size_t n = 0; over.first() && (all || n < SETTLED_AT_ONCE); n++)
    if (!settle(env, over.pop())) die();
}

bool State::turn() {
  settle_some();
  start_turn();
  return over.first();
}

void State::start_turn() {
  if (dying || batch) return; // its end starts what waits
  bool here = is_little() && replic_is_calm(writer.core) && !checkpoints.has_rest();
  Batch *next = here ? next_batch() : nullptr;
  if (!next) return pump();
  if (!enter()) return next->start(); // which ends it
  bool done = next->run_here();
  leave(); // JavaScript may end the environment, and that waits for all who have entered
  if (!done) return next->start();
  retain();
  next->finish(env);
  release();
}

// ---- stopping ----

void State::refuse_stopped() {
  auto is_stopped = [](const WriteJob &job) { return job.stop != Stop::no; };
  while (WriteJob *job = writes.take(is_stopped)) refuse(job, job->stop);
}

void State::stop(uint32_t ticket) {
  auto has_it = [ticket](const Job &job) { return job.ticket == ticket; };
  while (WriteJob *job = writes.take(has_it)) refuse(job, Stop::caller);
  while (WriteJob *job = steps.take(has_it)) refuse(job, Stop::caller);
  if (batch) batch->stop(Stop::caller, has_it);
  reads.stop(*this, ticket);
  pump();
}

void State::stop_all() {
  auto is_sql = [](const WriteJob &job) { return job.is_sql(); };
  while (WriteJob *job = writes.take(is_sql)) refuse(job, Stop::closing);
  while (WriteJob *job = steps.take(is_sql)) refuse(job, Stop::closing);
  if (batch) batch->stop(Stop::closing, is_sql);
  reads.stop_all(*this);
  pump();
}

// Nothing is written any more, so calls that begin from now on see the last state.
void State::note_gone(const char *why) {
  gone.set(REPLIC_EGONE, "%s", why);
  settles_ = true;
  reads.end_states(*this);
}

namespace {
// The end of its Batch is what it is for: replic_gone.
struct SettleJob : Void<WriteJob> {
  void run(Batch &) override {}
};
} // namespace

void State::settle_wal() {
  settles_ = false;
  if (SettleJob *job = phase == Phase::open ? new (std::nothrow) SettleJob : nullptr)
    frames.push(job);
}

// ---- between threads ----------------------------------------------------------------------------

void State::set_core(replic *opened) {
  std::lock_guard<std::mutex> lock(mutex);
  writer.core = opened;
}

void State::close_core() {
  replic *closing = writer.core;
  set_core(nullptr); // interrupted no more
  replic_close(closing);
}

void State::interrupt() {
  if (writer.core) replic_interrupt(writer.core);
  reads.interrupt();
  checkpoints.interrupt();
}

// Frees everything but what JavaScript objects and Works still point to. Nothing runs, and nothing
// will.
void State::dispose() {
  if (batch) batch->discard();
  Batch::free_list(spent);
  spent = nullptr;
  writes.clear();
  frames.clear();
  held.clear();
  steps.clear();
  over.clear();
  ReadThreads::all().forget(*this);
  reads.discard();
  checkpoints.discard(*this);
  close_core();
}

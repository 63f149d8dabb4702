#include "queue.h"

#include <chrono>
#include <new>

#include <sqlite3.h>

#include "env.h"
#include "read_threads.h"
#include "write_jobs.h"

// A batch ends with the call that reaches one of these: more calls would save little. Received
// frames have bounds of their own: local writes share their batch, and shall not wait for all that
// a fast peer has sent, or for what takes it least and this side most.
static const size_t BATCH_CALLS = 512, BATCH_BYTES = 8 << 20, BATCH_FRAME_BYTES = 256 << 10;
static const auto BATCH_FRAME_TIME = std::chrono::milliseconds(20);
static const size_t SETTLED_AT_ONCE = 128; // promises in a turn of the event loop
// What the main thread runs itself: a tenth of a millisecond or so.
static const size_t LITTLE_CALLS = 4, LITTLE_BYTES = 4 << 10;
static const auto INTERRUPT_AGAIN = std::chrono::milliseconds(20);

int64_t wall_clock_ms() {
  auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
}

// ---- jobs ---------------------------------------------------------------------------------------

bool settle(napi_env env, Job *job) {
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return false;
  napi_status status = napi_ok;
  if (job->deferred) {
    napi_value value = job->failure ? nullptr : job->result(env);
    if (value) {
      status = napi_resolve_deferred(env, job->deferred, value);
    } else {
      napi_value thrown; // what JavaScript cannot hold may have been thrown as well
      napi_get_and_clear_last_exception(env, &thrown);
      job->failure.set_no_memory(); // unless it says more
      status = napi_reject_deferred(env, job->deferred, job->failure.to_js(env));
    }
  }
  napi_close_handle_scope(env, scope);
  delete job;
  return status == napi_ok;
}

bool WriteJob::check(Batch &batch, int code) {
  return code == REPLIC_OK || failure.set(code, "%s", replic_error_text(batch.state->core));
}

bool WriteJob::begin_sql(Batch &batch) {
  if (stop != Stop::no) batch.state->set_stopped(failure, stop);
  if (failure) return false;
  batch.state->watch.begin(*this);
  return true;
}

// ---- work ---------------------------------------------------------------------------------------

void Work::start() {
  napi_handle_scope scope;
  napi_value name;
  state->retain();
  napi_open_handle_scope(state->env, &scope);
  napi_status status = napi_create_string_utf8(state->env, "replic", NAPI_AUTO_LENGTH, &name);
  if (status == napi_ok)
    status = napi_create_async_work(state->env, nullptr, name, execute, complete, this, &handle_);
  if (status == napi_ok) status = napi_queue_async_work(state->env, handle_);
  napi_close_handle_scope(state->env, scope);
  if (status != napi_ok) complete(state->env, napi_cancelled, this); // the environment ends
}

void Work::execute(napi_env, void *data) {
  Work *work = static_cast<Work *>(data);
  if (!work->state->enter()) return work->skip();
  work->run();
  work->state->leave();
}

// False: the environment is being torn down (a worker was terminated), though its cleanup hook has
// not run yet.
static bool can_call(napi_env env) {
  napi_value undefined;
  bool equal;
  return napi_get_undefined(env, &undefined) == napi_ok &&
         napi_strict_equals(env, undefined, undefined, &equal) == napi_ok;
}

void Work::complete(napi_env env, napi_status status, void *data) {
  Work *work = static_cast<Work *>(data);
  State *state = work->state;
  if (work->handle_) napi_delete_async_work(env, work->handle_);
  if (status != napi_ok || (!state->dying && !can_call(env))) state->die();
  if (state->dying) {
    work->discard();
    delete work;
  } else {
    work->finish(env);
  }
  state->release();
}

// ---- batches ------------------------------------------------------------------------------------

void Batch::run() {
  bool was_open = state->core;
  free_list(spent);
  spent = nullptr;
  if (rest_ms >= 0 && was_open) replic_checkpoint(state->core, rest_ms);
  if (!in_step && jobs.first()->order() == WriteJob::Order::grouped)
    run_transaction();
  else
    jobs.first()->run(*this);
  after_jobs(was_open);
}

bool Batch::run_here() {
  bool writes = false;
  for (WriteJob *job = jobs.first(); job; job = job->next)
    writes = writes || job->takes() == REPLIC_TAKES_WRITE_LOCK;
  int64_t now_ms = wall_clock_ms();
  int code = writes ? replic_begin_now(state->core, now_ms) : replic_begin(state->core, now_ms);
  if (code != REPLIC_OK) return false; // start() will tell why
  free_list(spent);
  spent = nullptr;
  run_begun(std::chrono::steady_clock::now());
  after_jobs(true);
  return true;
}

static bool is_stopped(const WriteJob *job) {
  return job->failure && job->stop == Stop::closing;
}

// SQLite undoes all of a transaction in which close() stops a call that writes, and so what other
// calls have done in it. Those go back and are made again: none that is stopped is among them then.
void Batch::redo_lost() {
  const WriteJob *culprit = in_step ? nullptr : jobs.first(); // a step is alone
  while (culprit && !is_stopped(culprit)) culprit = culprit->next;
  if (!culprit) return;
  JobList<WriteJob> all;
  std::lock_guard<std::mutex> lock(state->mutex); // the main thread may look for one to stop
  while (WriteJob *job = jobs.pop()) all.push(job);
  while (WriteJob *job = all.pop()) {
    bool is_lost = job->deferred && job->failure.code() == SQLITE_ABORT_ROLLBACK;
    if (is_lost) job->failure.clear();
    (is_lost ? back : jobs).push(job);
  }
}

void Batch::after_jobs(bool was_open) {
  redo_lost();
  put_back();
  for (WriteJob *job = jobs.first(); job; job = job->next)
    if (job->failure && !job->deferred) report.lost.set(job->failure);
  if (!state->core) return;
  report.links_changed = report.links_changed || state->tell_links;
  if (was_open) report.collect(state->core, state->tables);
  state->tally.read(state->core);
  wal_bytes = replic_wal_bytes(state->core);
  gone = replic_gone(state->core);
  has_work = replic_has_work(state->core);
}

// Changes that follow each other: in one savepoint, and if one of them fails, once more up to that
// one, each in a savepoint of its own. So each is made twice at the most. Returns what follows.
WriteJob *Batch::run_together(WriteJob *first) {
  replic *core = state->core;
  WriteJob *job = first;
  int code = state->config.trace ? REPLIC_EUSAGE : replic_together(core); // would be told twice
  if (code == REPLIC_OK) {
    for (; job && job->is_change() && !state->dying; job = job->next) {
      job->run(*this);
      if (job->failure) break;
    }
    bool failed = job && job->failure;
    code = replic_apart(core, failed ? SQLITE_ERROR : REPLIC_OK);
    if (code == REPLIC_OK) return job;
    if (code == SQLITE_ABORT_ROLLBACK) return failed ? job->next : job; // so the commit fails, too
    if (failed) job->failure.clear();
    if (failed) job = job->next;
  } else {
    while (job && job->is_change()) job = job->next;
  }
  for (; first != job && !state->dying; first = first->next) first->run(*this);
  return job;
}

void Batch::run_transaction() {
  auto begun = std::chrono::steady_clock::now();
  auto begin = leaves_lock ? replic_begin_busy : replic_begin;
  int code = begin(state->core, wall_clock_ms());
  if (code != REPLIC_OK) return fail_all(code, replic_error_text(state->core));
  run_begun(begun);
}

// Whether frames behind this one wait for another batch.
bool Batch::is_over(const WriteJob *job, std::chrono::steady_clock::time_point begun) const {
  if (job->brings() && replic_has_work(state->core) == REPLIC_WORK_FIRST) return true;
  return std::chrono::steady_clock::now() - begun > BATCH_FRAME_TIME;
}

void Batch::put_off(const WriteJob *last) {
  JobList<WriteJob> all;
  std::lock_guard<std::mutex> lock(state->mutex); // the main thread may look for one to stop
  while (WriteJob *job = jobs.pop()) all.push(job);
  bool is_later = false;
  while (WriteJob *job = all.pop()) {
    (is_later ? later : jobs).push(job);
    is_later = is_later || job == last;
  }
}

void Batch::run_begun(std::chrono::steady_clock::time_point begun) {
  replic_tell_acks(state->core, state->tell_acks);
  std::chrono::steady_clock::time_point first_frame{};
  for (WriteJob *job = jobs.first(); job && !state->dying;) {
    if (job->is_change() && job->next && job->next->is_change()) {
      job = run_together(job);
      continue;
    }
    bool is_frame = !job->deferred;
    if (is_frame && first_frame.time_since_epoch().count() == 0)
      first_frame = std::chrono::steady_clock::now();
    job->run(*this);
    if (is_frame && job->next && is_over(job, first_frame)) put_off(job);
    job = job->next;
  }
  if (state->dying) {
    replic_rollback(state->core);
    return fail_all(SQLITE_INTERRUPT, "the environment ends");
  }
  int code = replic_commit(state->core);
  if (code != REPLIC_OK) return fail_all(code, replic_error_text(state->core));
  if (replic_must_wait(state->core)) sqlite3_sleep(1);
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  state->tally.add_batch(state->core, jobs.calls(), took.count());
}

void Batch::fail_all(int code, const char *text) {
  for (WriteJob *job = jobs.first(); job; job = job->next) job->failure.set(code, "%s", text);
}

void Batch::free_list(Batch *list) {
  while (Batch *first = list) {
    list = first->spent;
    first->report.free_outbox();
    delete first;
  }
}

static bool has_job(const JobList<WriteJob> &list) {
  for (WriteJob *job = list.first(); job; job = job->next)
    if (job->is_work()) return true;
  return false;
}

// What is left of a frame comes first, then those behind it.
void Batch::keep_frames() {
  bool is_first = has_work == REPLIC_WORK_FIRST && !has_job(back_frames);
  state->held.prepend(later);
  WorkJob *work = is_first ? new (std::nothrow) WorkJob : nullptr;
  if (!work) return;
  later.push(work);
  state->held.prepend(later);
}

// The next slice of a jump takes its turn among the frames. False: there is none to be taken now.
bool Batch::keep_jump() {
  if (has_work != REPLIC_WORK_BESIDE || has_job(state->frames) || has_job(state->held))
    return false;
  WorkJob *work = new (std::nothrow) WorkJob;
  if (work) state->frames.push(work);
  return work;
}

void Batch::finish(napi_env env) {
  state->batch = nullptr;
  state->figures = state->tally;
  if (gone && !state->gone) state->note_gone(gone);
  state->checkpoints.after_batch(*state, wal_bytes);
  bool goes_back = back.first();
  keep_frames();
  state->lock.after_batch(*state, *this);
  if (goes_back) state->refuse_stopped();
  bool jumps = keep_jump();
  state->pump();
  while (WriteJob *job = jobs.pop()) {
    job->done(*state);
    if (job->deferred)
      state->over.push(job);
    else
      delete job; // nobody waits behind it
  }
  if (jumps) state->pump(); // where this batch has opened the file, nothing else would
  state->settle_some();
  if (state->on_batch && (report.worth_telling() || state->over.first())) {
    Napi::HandleScope scope(env);
    state->tell(
        report.to_js(env, state->frames.bytes() + state->held.bytes(), state->over.first()));
  }
  spent = state->spent;
  state->spent = this;
}

void Batch::discard() {
  if (state->batch == this) state->batch = nullptr;
  jobs.clear();
  back.clear();
  back_frames.clear();
  later.clear();
  free_list(spent);
  spent = nullptr;
  report.free_outbox();
}

// ---- state --------------------------------------------------------------------------------------

State::State(napi_env owner, const std::string &file, const replic_config &options,
             const Limits &limit)
    : env(owner), path(file), config(options), limits(limit) {
  config.path = path.c_str();
}

State::~State() {
  Batch::free_list(spent);
}

void State::retain() {
  refs++;
}

void State::release() {
  if (--refs == 0) delete this;
}

bool State::make_waker() {
  napi_value name;
  auto forget = [](napi_env, void *state, void *) { static_cast<State *>(state)->release(); };
  if (napi_create_string_utf8(env, "replic", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, this, forget, this, woken,
                                      &waker_) != napi_ok)
    return false;
  retain();
  napi_unref_threadsafe_function(env, waker_);
  return true;
}

bool State::begin_life() {
  if (!reads.create(this, limits.readers)) return false;
  // Before the hook: they run in the opposite order, and what runs until then may call it.
  if (!make_waker()) return false;
  if (napi_add_env_cleanup_hook(env, teardown, this) != napi_ok) {
    napi_release_threadsafe_function(waker_, napi_tsfn_abort);
    return false;
  }
  phase = Phase::opening;
  retain();
  return true;
}

void State::end_life() {
  phase = Phase::closed;
  frames.clear(); // what came in after the last batch is asked for again
  held.clear();
  forget_callback();
  napi_remove_env_cleanup_hook(env, teardown, this);
  ReadThreads::all().forget(*this);
  napi_release_threadsafe_function(waker_, napi_tsfn_abort);
  release();
}

void State::tell(napi_value report) {
  napi_value callback, global;
  if (!on_batch) return;
  napi_get_reference_value(env, on_batch, &callback);
  napi_get_global(env, &global);
  napi_call_function(env, global, callback, 1, &report, nullptr);
}

void State::forget_callback() {
  if (on_batch) napi_delete_reference(env, on_batch);
  on_batch = nullptr;
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
  bool here = is_little() && replic_is_calm(core) && !checkpoints.has_rest();
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

// Its thread may move them meanwhile: put_back().
template <typename Wanted> void Batch::stop(Stop why, Wanted wanted) {
  std::lock_guard<std::mutex> lock(state->mutex);
  for (JobList<WriteJob> *list : {&jobs, &back})
    for (WriteJob *job = list->first(); job; job = job->next)
      if (wanted(*job)) job->stop = why;
}

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

void State::settle_wal() {
  settles_ = false;
  if (SettleJob *job = phase == Phase::open ? new (std::nothrow) SettleJob : nullptr)
    frames.push(job);
}

void State::set_stopped(Failure &failure, Stop why) const {
  if (why == Stop::closing) failure.set_closing();
  if (why == Stop::gone) failure.set(gone);
  failure.set_stopped(); // unless it says more
}

void State::feel_pulse() {
  Napi::HandleScope scope(env);
  Napi::FunctionReference &pulse = addon_data(env).pulse;
  napi_value global, result;
  if (pulse.IsEmpty() || napi_get_global(env, &global) != napi_ok) return;
  if (napi_call_function(env, global, pulse.Value(), 0, nullptr, &result) != napi_ok) die();
}

void State::wake() {
  napi_call_threadsafe_function(waker_, nullptr, napi_tsfn_nonblocking);
}

void State::woken(napi_env env, napi_value, void *data, void *) {
  State *state = static_cast<State *>(data);
  if (!env || state->dying) return;
  if (!can_call(env)) return state->die();
  state->reads.relieve();
  state->pump();
}

void State::keep_loop(bool keep) {
  if (keep == keeps_loop_) return;
  keeps_loop_ = keep;
  if (keep)
    napi_ref_threadsafe_function(env, waker_);
  else
    napi_unref_threadsafe_function(env, waker_);
}

// ---- between threads ----------------------------------------------------------------------------

bool State::enter() {
  std::lock_guard<std::mutex> lock(mutex);
  if (dying) return false;
  running++;
  return true;
}

void State::leave() {
  std::lock_guard<std::mutex> lock(mutex);
  if (--running == 0) left.notify_all();
}

void State::set_core(replic *opened) {
  std::lock_guard<std::mutex> lock(mutex);
  core = opened;
}

void State::close_core() {
  replic *closing = core;
  set_core(nullptr); // interrupted no more
  replic_close(closing);
}

void State::interrupt() {
  if (core) replic_interrupt(core);
  reads.interrupt();
  checkpoints.interrupt();
}

void State::die() {
  std::lock_guard<std::mutex> lock(mutex);
  dying = true;
  interrupt();
}

// The cleanup hook. Main thread, perhaps while Works run. An interrupt between two statements hits
// neither, hence again.
void State::teardown(void *data) {
  State *state = static_cast<State *>(data);
  {
    std::unique_lock<std::mutex> lock(state->mutex);
    state->dying = true;
    while (state->running > 0) {
      state->interrupt();
      state->left.wait_for(lock, INTERRUPT_AGAIN);
    }
  }
  state->dispose();
  state->release();
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

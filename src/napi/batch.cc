#include <chrono>
#include <new>

#include <sqlite3.h>

#include "queue.h"

// As long as a batch takes frames: local writes share it, and are not to wait for what takes the
// sender least and this side most.
static const auto FRAME_TIME = std::chrono::milliseconds(20);

int64_t wall_clock_ms() {
  auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
}

// ---- jobs ---------------------------------------------------------------------------------------

bool WriteJob::check(Batch &batch, int code) {
  return code == REPLIC_OK || failure.set(code, "%s", replic_error_text(batch.state->writer.core));
}

bool WriteJob::begin_sql(Batch &batch) {
  if (stop != Stop::no) batch.state->set_stopped(failure, stop);
  if (failure) return false;
  batch.state->writer.watch.begin(*this);
  return true;
}

// ---- batches ------------------------------------------------------------------------------------

Batch::Batch(State *owner) : Work(owner), state(owner) {}

void Batch::run() {
  bool was_open = state->writer.core;
  free_list(spent);
  spent = nullptr;
  if (rest_ms >= 0 && was_open) replic_checkpoint(state->writer.core, rest_ms);
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
  int code = writes ? replic_begin_now(state->writer.core, now_ms)
                    : replic_begin(state->writer.core, now_ms);
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
  if (!state->writer.core) return;
  report.links_changed = report.links_changed || state->writer.tell_links;
  if (was_open) report.collect(state->writer.core, state->writer.told);
  state->writer.tally.read(state->writer.core);
  wal_bytes = replic_wal_bytes(state->writer.core);
  gone = replic_gone(state->writer.core);
  has_work = replic_has_work(state->writer.core);
}

// Changes that follow each other: in one savepoint, and if one of them fails, once more up to that
// one, each in a savepoint of its own. So each is made twice at the most. Returns what follows.
WriteJob *Batch::run_together(WriteJob *first) {
  replic *core = state->writer.core;
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
  int code = begin(state->writer.core, wall_clock_ms());
  if (code != REPLIC_OK) return fail_all(code, replic_error_text(state->writer.core));
  run_begun(begun);
}

// Whether frames behind this one wait for another batch.
bool Batch::is_over(const WriteJob *job, std::chrono::steady_clock::time_point begun) const {
  if (job->brings() && replic_has_work(state->writer.core) == REPLIC_WORK_FIRST) return true;
  return std::chrono::steady_clock::now() - begun > FRAME_TIME;
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
  replic_tell_acks(state->writer.core, state->writer.tell_acks);
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
    replic_rollback(state->writer.core);
    return fail_all(SQLITE_INTERRUPT, "the environment ends");
  }
  int code = replic_commit(state->writer.core);
  if (code != REPLIC_OK) return fail_all(code, replic_error_text(state->writer.core));
  if (replic_must_wait(state->writer.core)) sqlite3_sleep(1);
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  state->writer.tally.add_batch(state->writer.core, jobs.calls(), took.count());
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

namespace {
// What is left of a frame that is taken in in parts, or the next slice of a jump.
struct WorkJob : Void<WriteJob> {
  bool brings() const override {
    return true;
  }
  bool is_work() const override {
    return true;
  }
  void run(Batch &batch) override {
    batch.report.drained = true;
    check(batch, replic_work(batch.state->writer.core));
  }
};
} // namespace

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
  state->figures = state->writer.tally;
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

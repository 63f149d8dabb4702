// queue.h - the state behind a Connection, and the hand-over between its threads.
//
//   main thread                                         a thread of Node's pool, one at a time
//
//   calls ──> writes ──> Batch ──napi_queue_async_work──> run: free what is spent, begin,
//                          ^                              each job, commit, take the outbox
//   promises, onBatch <──finish <───────────────────────────┘
//        │                 │
//        └──> spent ───────┘   (the core counts who holds a frame, so only its thread frees them)
//
// Where a few small calls are all there is, and nothing of it waits for the disk, the main thread
// runs the Batch itself: the way to another thread and back takes it as long as the calls do. Not
// at once, but when lib says that this turn of the event loop has made its calls: turn().
//
// At most one Batch is under way. Its finish() starts the next one before it settles anything, so
// that the disk works while JavaScript does. It settles some promises, and each turn() some more:
// what the application does then shall not keep the event loop. Reads go the same way, over a few
// connections of their own: reader.h. So do checkpoints: checkpoints.h.
//
// Nothing is locked on these ways: a Batch and its jobs belong to one thread at a time. The mutex
// is for the one who may come in between, the end of the environment: lifetime.h.
#pragma once

#include <napi.h>

#include <atomic>
#include <chrono>
#include <type_traits>

#include "checkpoints.h"
#include "job.h"
#include "lifetime.h"
#include "reader.h"
#include "report.h"
#include "watch.h"
#include "write_lock.h"

struct State;
struct Batch;

int64_t wall_clock_ms(); // any thread

// A call on the writing connection.
struct WriteJob : Job {
  enum class Order {
    grouped, // shares a transaction with its neighbours
    alone,   // outside of a transaction
    opens,   // the same; from here on only State::steps run, until one of them ends it
    last,    // alone, when all reads have ended
  };
  WriteJob *next = nullptr;   // in its JobList
  int64_t waits_since_ms = 0; // for the write lock, by steady_ms(); 0: not yet
  virtual Order order() const {
    return Order::grouped;
  }
  // One that only writes, and leaves nothing behind where it fails: it can be made again.
  virtual bool is_change() const {
    return false;
  }
  // SQL of the application's, which may take as long as it likes, and be stopped.
  virtual bool is_sql() const {
    return false;
  }
  // REPLIC_TAKES_...; what is not LONGER may run on the main thread.
  virtual int takes() const {
    return REPLIC_TAKES_LONGER;
  }
  // A frame that brings what is to be stored.
  virtual bool brings() const {
    return false;
  }
  virtual bool is_work() const { // WorkJob
    return false;
  }
  virtual bool is_tick() const { // TickJob
    return false;
  }
  virtual void run(Batch &batch) = 0;
  // Main thread, before the promise is settled: what the outcome means for the connection.
  virtual void done(State &) {}

protected:
  bool check(Batch &batch, int code); // notes a failure of the core's; false if it is one
  // Before its SQL, until State::watch.end(). False: it has been stopped already.
  bool begin_sql(Batch &batch);
};

// One transaction's worth of jobs, or one job that runs alone.
struct Batch : Work {
  explicit Batch(State *owner);
  State *const state;
  JobList<WriteJob> jobs;
  bool in_step = false;                // one job of State::steps
  bool leaves_lock = false;            // another program is known to have the write lock
  bool met_lock = false;               // it was found to have it
  int64_t gives_up_before = 0;         // calls that have waited since then fail
  JobList<WriteJob> back, back_frames; // what goes back into the queues
  JobList<WriteJob> later;             // frames that another batch has time for
  int has_work = REPLIC_NO_WORK;       // replic_has_work
  int rest_ms = -1;                    // Checkpoints::take_rest
  const char *gone = nullptr;          // replic_gone
  int64_t wal_bytes = 0;
  Report report;
  Batch *spent = nullptr; // batches whose outboxes are to be freed
  void discard() override;
  template <typename Wanted> void stop(Stop why, Wanted wanted); // main thread, while it runs
  static void free_list(Batch *list); // linked by `spent`; the core's thread
  // Main thread: as run(). False: another connection writes, so it would have to wait; nothing has
  // been done.
  bool run_here();
  void finish(napi_env env) override;

protected:
  void run() override;

private:
  void run_transaction();
  void run_begun(std::chrono::steady_clock::time_point begun);
  void after_jobs(bool was_open);
  void put_back(); // write_lock.cc
  bool is_over(const WriteJob *job, std::chrono::steady_clock::time_point begun) const;
  void put_off(const WriteJob *last);
  void keep_frames();
  bool keep_jump();
  void redo_lost();
  WriteJob *run_together(WriteJob *first);
  void fail_all(int code, const char *text);
};

enum class Phase { created, opening, open, closing, closed };

// The connection that writes, for the Work that runs; for the main thread when none does.
struct Writer {
  replic *core = nullptr;             // set under the mutex: set_core
  Told told;                          // as JavaScript knows it
  Figures tally;                      // what is being counted
  std::atomic<bool> tell_acks{false}; // the main thread sets it, the Work reads it
  bool tell_links = false;            // each report has the state of the links
  Watch watch;                        // of the job that executes SQL of the application's
};

// What a Connection has under way. The main thread's, but for `writer` and what Lifetime says.
struct State : Lifetime {
  using Lifetime::Lifetime;
  Phase phase = Phase::created;
  JobList<WriteJob> writes; // calls
  JobList<WriteJob> frames; // what links bring: received frames, their coming and going, heartbeats
  JobList<WriteJob> held;   // frames that came before those: they wait for the write lock, or a
                            // batch had no time for them
  JobList<WriteJob> steps;  // calls of the migration under way
  bool migrating = false;   // from the start of its first job to the end of its last: step_jobs.h
  JobList<WriteJob> over;   // their promises are to be settled, in this order
  Batch *batch = nullptr;   // under way
  Batch *spent = nullptr;   // finished, their outboxes not freed yet
  bool tick_waits = false;
  Figures figures; // as of the last batch that has finished
  ReadPool reads;
  Checkpoints checkpoints;
  WriteLock lock;
  Writer writer;

  bool begin_life(); // before the OpenJob; false: out of memory
  void end_life();   // after the job that has closed everything
  // Ends a call: takes the job over, and returns the promise of its outcome; empty with an
  // exception pending. `job` is null where memory was exhausted. `given`: its arguments could be
  // read. Refuses what is too early, late or much.
  template <typename J> Napi::Value submit(J *job, bool given, JobList<J> &list);
  // The same, in every phase and without bounds.
  template <typename J> Napi::Value accept(J *job, JobList<J> &list);
  bool check_open(Failure &failure) const; // false: `failure` says why not
  // The same for what has no promise and is never refused.
  void push(WriteJob *job);
  void pump() override;
  // Starts what waited for the end of this turn of the event loop, or runs it here. True: call it
  // once more after the next turn.
  bool turn();
  void stop(uint32_t ticket); // the calls that have it: they fail with SQLITE_INTERRUPT
  void refuse_stopped();      // that have gone back into the queue
  void stop_all();            // all queries, and all SQL on the writing connection: it closes
  void note_gone(const char *why);
  void settle_some();            // of `over`; all of it where turn() will not be called again
  void set_core(replic *opened); // any thread
  void close_core();             // any thread, while nothing else runs

protected:
  void interrupt() override;
  void woken() override;
  void dispose() override;

private:
  ~State() override;
  void added(); // a call; starts it, unless it may wait for turn()
  bool is_little() const;
  void start_turn();
  void settle_wal();
  Batch *next_batch(); // nullptr: none can begin
  void fill(Batch *next, WriteJob *first);
  void start_batch();
  bool check_room(size_t calls, size_t bytes, size_t more, Failure &failure) const;
  napi_value make_promise(Job *job);
  bool settles_ = false; // once nothing needs the WAL any more, it is moved into the database
};

// Its thread may move them meanwhile: put_back().
template <typename Wanted> void Batch::stop(Stop why, Wanted wanted) {
  std::lock_guard<std::mutex> lock(state->mutex);
  for (JobList<WriteJob> *list : {&jobs, &back})
    for (WriteJob *job = list->first(); job; job = job->next)
      if (wanted(*job)) job->stop = why;
}

template <typename J> Napi::Value State::submit(J *job, bool given, JobList<J> &list) {
  if (job && !given)
    job->failure.set(REPLIC_EUSAGE, "the arguments cannot be read"); // unless it says more
  else if (job && !job->failure && check_open(job->failure))
    check_room(list.calls(), list.bytes(), job->arena.bytes(), job->failure);
  return accept(job, list);
}

template <typename J> Napi::Value State::accept(J *job, JobList<J> &list) {
  Napi::Env owner(env);
  if (!job) Napi::Error::New(owner, "out of memory").ThrowAsJavaScriptException();
  napi_value promise = job && !owner.IsExceptionPending() ? make_promise(job) : nullptr;
  if (!promise) {
    delete job;
    return Napi::Value();
  }
  if (job->failure) {
    settle(env, job);
  } else {
    if constexpr (std::is_same_v<J, WriteJob>) lock.note(job);
    list.push(job);
    added();
  }
  return Napi::Value(env, promise);
}

Napi::Value resolved_promise(Napi::Env env);

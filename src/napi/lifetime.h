// lifetime.h - what everything that one Connection has under way shares: its environment, the file
// and the limits, and its end.
//
// The end of the environment may come while other threads work: teardown() waits until no Work is
// within run(), and one that has not begun by then does nothing. On Node complete() has been called
// for all of them by then; on Bun it may come afterwards or never, so a Work keeps the Lifetime
// alive and touches neither JavaScript nor the core once `dying` is set.
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>

#include "job.h"
#include "replic.h"

struct Limits {
  size_t max_queue_calls, max_queue_bytes;
  uint32_t readers;
  int cache_kib;           // of each of them
  double max_query_ms;     // 0: as long as they like
  int64_t busy_timeout_ms; // write_lock.h
};

class Lifetime {
public:
  Lifetime(napi_env owner, const std::string &file, const replic_config &options,
           const Limits &limit);
  Lifetime(const Lifetime &) = delete;
  Lifetime &operator=(const Lifetime &) = delete;

  // ---- fixed
  const napi_env env;
  const std::string path;
  replic_config config;
  const Limits limits;
  uint64_t file_id = 0; // which file `path` is, from its opening on

  // ---- main thread only
  napi_ref on_batch = nullptr; // until all is closed
  Failure gone;                // the file is; set before anything is stopped with Stop::gone
  size_t threads_handed = 0;   // guarded by ReadThreads
  // The Connection object, each Cursor object, the cleanup hook, each Work from start() to
  // complete() hold it.
  void retain();
  void release();          // the last one deletes it
  virtual void pump() = 0; // starts whatever can be started
  void forget_callback();
  void tell(napi_value report); // calls onBatch
  // Ends a call that will not run.
  template <typename J> void refuse(J *job, Stop why) {
    set_stopped(job->failure, why);
    if (!settle(env, job)) die();
  }
  void keep_loop(bool keep); // what wake() calls keeps the event loop
  void feel_pulse();         // within a statement: notices the end before the cleanup hook runs

  // ---- any thread
  std::mutex mutex;               // guards running, dying, and the handles that interrupt() uses
  std::atomic<bool> dying{false}; // the environment ends: nothing new is begun
  void set_stopped(Failure &failure, Stop why) const;
  void die();  // main thread, where the end is noticed before the cleanup hook runs
  void wake(); // the main thread: by a call of its event loop's it notices the end
  // A Work runs between the two. False: the environment ends, it must not.
  bool enter();
  void leave();

protected:
  virtual ~Lifetime() = default;
  bool begin(); // false: out of memory
  void end();
  virtual void interrupt() = 0; // any thread, under the mutex: whatever runs ends soon
  virtual void woken() = 0;     // main thread, after wake()
  // Main thread, while nothing runs and nothing will: frees all but what JavaScript objects and
  // Works still point to.
  virtual void dispose() = 0;

private:
  bool make_waker();
  static void call_woken(napi_env env, napi_value, void *life, void *);
  static void teardown(void *life);
  int refs_ = 1;
  int running_ = 0;                          // Works between enter() and leave()
  std::condition_variable left_;             // running_ has become 0
  napi_threadsafe_function waker_ = nullptr; // holds the Lifetime
  bool keeps_loop_ = false;
};

// Something that runs on another thread, once.
class Work {
public:
  explicit Work(Lifetime *owner) : life(owner) {}
  Work(const Work &) = delete;
  Work &operator=(const Work &) = delete;
  virtual ~Work() = default;
  // Main thread. From here on it deletes itself.
  void start();
  // Main thread, while nothing runs: frees what it holds without JavaScript. May be called twice.
  virtual void discard() = 0;

  Lifetime *const life;

protected:
  virtual void run() = 0;                // the other thread
  virtual void skip() {}                 // the same, instead: the environment ends
  virtual void finish(napi_env env) = 0; // main thread, afterwards; deletes this, or gives it away

private:
  static void execute(napi_env env, void *data);
  static void complete(napi_env env, napi_status status, void *data);
  napi_async_work handle_ = nullptr;
};

// False: the environment is being torn down (a worker was terminated), though its cleanup hook has
// not run yet.
bool can_call(napi_env env);

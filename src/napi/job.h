// job.h - a call that waits, runs, and settles its promise.
#pragma once

#include <napi.h>

#include <atomic>

#include "error.h"
#include "values.h"

// Whether a call is to end before its end, and who says so. gone: the file is.
enum class Stop { no, caller, closing, gone };

// One struct per kind of call: derived from WriteJob (queue.h) on the writing connection, from
// ReadJob (reader.h) on a reading one. Made and destroyed on the main thread; in between, the
// thread that runs it is the only one to touch it.
struct Job {
  size_t size = 0;                  // as counted in its JobList
  uint32_t ticket = 0;              // by which lib stops it; 0: it does not
  std::atomic<Stop> stop{Stop::no}; // set by the main thread while another one may run it
  napi_deferred deferred = nullptr; // nullptr: nobody waits for it
  Arena arena;                      // what the call was given, and what it results in
  Failure failure;                  // set: the promise is rejected
  virtual ~Job() = default;
  // Main thread: what the promise resolves with. nullptr: there is no such value after all;
  // rejected with `failure`, or as out of memory.
  virtual napi_value result(napi_env env) = 0;
};

// A kind of call that resolves with undefined.
template <typename J> struct Void : J {
  using J::J;
  napi_value result(napi_env env) override {
    return Napi::Env(env).Undefined();
  }
};

// The one place where promises are settled. Main thread; deletes the job. False: the environment
// takes no more calls.
bool settle(napi_env env, Job *job);

// First in, first out. Owns its jobs.
template <typename J> class JobList {
public:
  JobList() = default;
  JobList(const JobList &) = delete;
  JobList &operator=(const JobList &) = delete;
  ~JobList() {
    clear();
  }

  void push(J *job) {
    job->next = nullptr;
    *last_ = job;
    last_ = &job->next;
    job->size = sizeof(J) + job->arena.bytes();
    calls_++;
    bytes_ += job->size;
  }
  J *pop() { // nullptr if empty; the caller owns it
    J *job = first_;
    if (!job) return nullptr;
    first_ = job->next;
    if (!first_) last_ = &first_;
    calls_--;
    bytes_ -= job->size;
    return job;
  }
  // Moves what `list` has before what is here.
  void prepend(JobList &list) {
    if (!list.first_) return;
    *list.last_ = first_;
    if (!first_) last_ = list.last_;
    first_ = list.first_;
    calls_ += list.calls_;
    bytes_ += list.bytes_;
    list.first_ = nullptr;
    list.last_ = &list.first_;
    list.calls_ = list.bytes_ = 0;
  }
  template <typename Wanted> J *take(Wanted wanted) { // the first such one, as pop()
    for (J **at = &first_; J *job = *at; at = &job->next) {
      if (!wanted(*job)) continue;
      *at = job->next;
      if (!*at) last_ = at;
      calls_--;
      bytes_ -= job->size;
      return job;
    }
    return nullptr;
  }
  void clear() {
    while (J *job = pop()) delete job;
  }
  J *first() const {
    return first_;
  }
  size_t calls() const {
    return calls_;
  }
  size_t bytes() const { // of memory, as they were when pushed
    return bytes_;
  }

private:
  J *first_ = nullptr, **last_ = &first_;
  size_t calls_ = 0, bytes_ = 0;
};

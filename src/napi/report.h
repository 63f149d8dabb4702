// report.h - what a batch tells: gathered on the core's thread after the commit, handed to
// JavaScript on the main one.
#pragma once

#include <napi.h>

#include "error.h"
#include "replic.h"
#include "values.h"

// A copy of the core's list of tables, packed: it can be compared, and read without the core.
class Tables {
public:
  Tables() = default;
  ~Tables();
  Tables(const Tables &) = delete;
  Tables &operator=(const Tables &) = delete;

  bool read(const replic *core);  // the core's thread; false: out of memory
  bool copy(const Tables &other); // false: out of memory
  bool equals(const Tables &other) const;
  Napi::Value to_js(Napi::Env env) const; // main thread, after read() or copy() has succeeded

private:
  bool put(const void *bytes, size_t len);
  bool put_number(size_t number);
  bool put_text(const char *text);
  bool put_table(const replic_table *table);

  char *data_ = nullptr;
  size_t len_ = 0, cap_ = 0;
};

// How large a thing was, each time it happened: OpenMetrics' histogram, and the largest.
struct Histogram {
  static const size_t N_BOUNDS = 5;
  explicit Histogram(const double (&upper)[N_BOUNDS]);
  void add(double value);
  Napi::Object to_js(Napi::Env env) const;

  double bounds[N_BOUNDS];
  int64_t at_most[N_BOUNDS] = {}; // values that are not above the bound
  int64_t count = 0;
  double sum = 0, max = 0;
};

// What a replica counts. The core's thread counts and reads; the main thread has a copy, as of the
// last batch that has finished.
struct Figures {
  Figures();
  void read(const replic *core);
  // A batch of so many calls is over. It counts if it was a transaction on disk.
  void add_batch(const replic *core, size_t calls, double seconds);
  Napi::Object to_js(Napi::Env env) const;

  replic_counters counters = {};
  int64_t clock_ms = 0, clock_off_ms = 0, log_rows = 0;
  uint32_t clock_raised_by = 0;
  Histogram batch_calls, batch_seconds;
};

// What the core keeps because its schema cannot hold it.
class Pending {
public:
  void read(const replic *core, Arena &arena);
  explicit operator bool() const {
    return list_ != nullptr;
  } // has been read
  Napi::Value to_js(Napi::Env env) const;

private:
  replic_pending *list_ = nullptr;
  size_t count_ = 0;
};

// Rows that the schema of the core cannot store: how many, and the first ones.
class Stuck {
public:
  void read(const replic *core, Arena &arena);
  explicit operator bool() const {
    return list_ != nullptr;
  } // has been read
  Napi::Value to_js(Napi::Env env) const;

private:
  replic_stuck *list_ = nullptr;
  size_t count_ = 0;
  int64_t rows_ = 0;
};

// What JavaScript has been told, so that it is told again only where it is news.
struct Told {
  Tables tables;
  bool pending = true, stuck = true; // there were some
};

class Report {
public:
  Report() = default;
  Report(const Report &) = delete;
  Report &operator=(const Report &) = delete;

  // ---- the core's thread: what the jobs of the batch ask for
  bool links_changed = false;  // the state of the links
  bool tables_changed = false; // the tables, if they are others than before
  bool drained = false;        // the length of the queue, even if there is nothing else
  Failure lost;                // an 'error' event: what failed and has no promise

  // ---- the core's thread, after a commit or rollback
  void collect(replic *core, Told &told); // and brings `told` up to date
  void free_outbox();

  // ---- main thread
  bool worth_telling() const;
  // frame_bytes: received and waiting. unsettled: turn() is to be called, for promises that wait.
  Napi::Value to_js(Napi::Env env, size_t frame_bytes, bool unsettled) const;

private:
  void collect_links(replic *core);
  void collect_rest(const replic *core, Told &told);
  void collect_tables(const replic *core, Tables &known);

  Arena arena_;
  replic_outbox outbox_ = {};
  replic_link_info *links_ = nullptr; // nullptr: nothing to tell
  size_t n_links_ = 0;
  Pending pending_;
  Stuck stuck_;
  Tables tables_;
};

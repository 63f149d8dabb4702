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
  void collect(replic *core, Tables &known); // known: as JavaScript knows them; brought up to date
  void free_outbox();

  // ---- main thread
  bool worth_telling() const;
  Napi::Value to_js(Napi::Env env, size_t call_bytes, size_t frame_bytes) const;

private:
  void collect_links(replic *core);
  void collect_tables(const replic *core, Tables &known);

  Arena arena_;
  replic_outbox outbox_ = {};
  replic_link_info *links_ = nullptr; // nullptr: nothing to tell
  size_t n_links_ = 0;
  replic_counters counters_ = {};
  Tables tables_;
};

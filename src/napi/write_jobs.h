// write_jobs.h - the calls on the writing connection. given(): reads the arguments, on the main
// thread; false: `failure` is set, or a JavaScript exception pending.
#pragma once

#include <napi.h>

#include "queue.h"
#include "statement.h"

// The sources of jumps that were compared with nobody yet.
class Sources {
public:
  void read(replic *core, Arena &arena);
  Napi::Array to_js(Napi::Env env) const;

private:
  replic_position *at_ = nullptr; // in the arena
  size_t n_ = 0;
};

// () -> { peerId, isNewPeer, tables, vector, lost, unchecked, pending, stuck }
struct OpenJob : WriteJob {
  Order order() const override {
    return Order::alone;
  }
  void run(Batch &batch) override;
  void done(State &state) override;
  napi_value result(napi_env env) override;

private:
  uint32_t peer_id_ = 0;
  bool is_new_peer_ = false;
  Tables tables_;
  replic_position *vector_ = nullptr, *lost_ = nullptr;
  Pending pending_;
  Stuck stuck_;
  size_t n_vector_ = 0, n_lost_ = 0;
  Sources sources_;
};

// (ops) -> sequence. ops: flat [kind, table, columns, values, ...], values row by row
struct ChangeJob : WriteJob {
  bool given(const Napi::CallbackInfo &info);
  bool is_change() const override {
    return true;
  }
  int takes() const override {
    return REPLIC_TAKES_WRITE_LOCK;
  }
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

private:
  bool read_change(napi_env env, napi_value ops, uint32_t at, replic_change *change);
  bool read_columns(napi_env env, napi_value columns, replic_change *change);
  bool split_columns(napi_env env, napi_value columns, replic_change *change);
  bool read_rows(napi_env env, napi_value values, replic_change *change);

  replic_change *changes_ = nullptr;
  size_t n_changes_ = 0;
  int64_t sequence_ = 0;
};

// run: (sql, params, unsafe, ticket) -> { changes, lastInsertRowid }; exec: (sql, unsafe, ticket)
// -> { changes }
struct SqlJob : WriteJob {
  bool is_sql() const override {
    return true;
  }
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

protected:
  explicit SqlJob(bool many) : many_(many) {}
  Statement statement_;
  int64_t changes_ = 0, rowid_ = 0;

  bool unsafe_ = false;

private:
  const bool many_;
};
struct RunJob : SqlJob {
  RunJob() : SqlJob(false) {}
  bool given(const Napi::CallbackInfo &info);
};
struct ExecJob : SqlJob {
  ExecJob() : SqlJob(true) {}
  bool given(const Napi::CallbackInfo &info);
};

// (table) -> SQL text
struct TextJob : WriteJob {
  ~TextJob() override;
  bool given(const Napi::CallbackInfo &info);
  Order order() const override {
    return Order::alone;
  }
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

protected:
  using Call = int (*)(replic *core, const char *table, char **out);
  explicit TextJob(Call call) : call_(call) {}

private:
  const Call call_;
  const char *table_ = nullptr;
  char *text_ = nullptr; // sqlite3_malloc
};
struct ExplainJob : TextJob {
  ExplainJob() : TextJob(replic_explain) {}
};
struct PatchesTableJob : TextJob {
  PatchesTableJob() : TextJob(replic_patches_table) {}
};

// One slice of retention. (olderThanMs, maxPatches) -> { examined, removed, done }
struct CompactJob : WriteJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

private:
  int64_t older_than_ms_ = 0, max_patches_ = 0;
  replic_compaction outcome_ = {};
};

// (what, peerId or 0 for all, after) -> how much was forgotten
struct ForgetJob : WriteJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

private:
  int32_t what_ = 0;
  uint32_t peer_ = 0;
  int64_t after_ = 0, forgotten_ = 0;
};

// (after) -> the name of the table that has got statistics, for the next call; null: none needs any
struct OptimizeJob : WriteJob {
  ~OptimizeJob() override;
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

private:
  const char *after_ = nullptr;
  char *done_ = nullptr; // sqlite3_malloc
};

// (origin) -> the greatest sequence of it that a linked peer has said to have; -1: no peer is
// linked
struct AnnouncedJob : WriteJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

private:
  uint32_t origin_ = 0;
  int64_t most_ = 0;
};

// (peerId, or 0 for nobody; equal) -> the sources of jumps that were compared with nobody yet
struct RecheckedJob : WriteJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

private:
  uint32_t peer_ = 0;
  bool equal_ = false;
  Sources sources_;
};

// () -> undefined, when all calls before it are committed. From then on each report has the links,
// so that lib sees every acknowledgement at once.
struct FlushJob : Void<WriteJob> {
  void run(Batch &batch) override;
};

// () -> what nobody else is known to have: flat [origin, patches, ...]. Ends the life of the
// connection, also where there is no memory to say that
struct CloseJob : WriteJob {
  Order order() const override {
    return Order::last;
  }
  void run(Batch &batch) override;
  void done(State &state) override;
  napi_value result(napi_env env) override;

private:
  replic_position *unacknowledged_ = nullptr;
  size_t n_unacknowledged_ = 0;
};

// What concerns links has no promise, and is never refused.
using LinkJob = Void<WriteJob>;
struct LinkOpenJob : LinkJob {
  LinkOpenJob(uint32_t link, uint32_t expected, bool only_reads)
      : link_(link), expected_(expected), only_reads_(only_reads) {}
  void run(Batch &batch) override;

private:
  const uint32_t link_, expected_;
  const bool only_reads_;
};
struct LinkCloseJob : LinkJob {
  explicit LinkCloseJob(uint32_t link) : link_(link) {}
  void run(Batch &batch) override;

private:
  const uint32_t link_;
};
struct BytesJob : LinkJob {
  bool copy(const void *bytes, size_t len); // false: out of memory

protected:
  explicit BytesJob(uint32_t link) : link_(link) {}
  const uint32_t link_;
  const uint8_t *bytes_ = nullptr;
  size_t len_ = 0;
};
struct ReceiveJob : BytesJob {
  explicit ReceiveJob(uint32_t link) : BytesJob(link) {}
  int takes() const override {
    return replic_frame_takes(bytes_, len_);
  }
  bool brings() const override {
    return replic_frame_brings(bytes_, len_);
  }
  void run(Batch &batch) override;
};
struct MessageJob : BytesJob {
  explicit MessageJob(uint32_t link) : BytesJob(link) {}
  void run(Batch &batch) override;
};
struct TickJob : LinkJob {
  bool is_tick() const override {
    return true;
  }
  void run(Batch &batch) override;
  void done(State &state) override;
};

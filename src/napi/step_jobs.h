// step_jobs.h - the calls of a migration, on the writing connection. given() as in write_jobs.h.
//
// A migration is a transaction that stays open from one job to the next: from MigrationBeginJob to
// MigrationEndJob only jobs of State::steps run, one at a time; writes and frames wait in their
// queues. Steps may be functions of the application's, so what comes next is known in JavaScript
// only.
#pragma once

#include <napi.h>

#include "queue.h"
#include "read_jobs.h"
#include "write_jobs.h"

// () -> undefined
struct MigrationBeginJob : Void<WriteJob> {
  Order order() const override {
    return Order::opens;
  }
  void run(Batch &batch) override;
  void done(State &state) override;
};

// (kind, version, up, down, name, hash, renames) -> undefined
struct StepBeginJob : Void<WriteJob> {
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;

private:
  replic_step step_ = {};
};

// (sql, params, many, ticket) -> { changes, lastInsertRowid }
struct StepRunJob : SqlJob {
  StepRunJob() : SqlJob(false) {}
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;

private:
  bool all_ = false;
};

// (sql, params, first, readBigInts, ticket) -> { columns, values }
struct StepReadJob : WriteJob, RowsResult {
  bool is_sql() const override {
    return true;
  }
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;
  napi_value result(napi_env env) override;

private:
  Statement statement_;
  bool first_ = false;
};

// () -> undefined
struct StepEndJob : Void<WriteJob> {
  bool given(const Napi::CallbackInfo &) {
    return true;
  }
  void run(Batch &batch) override;
};

// (commit) -> { tables }; false: all is undone
struct MigrationEndJob : WriteJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Batch &batch) override;
  void done(State &state) override;
  napi_value result(napi_env env) override;

private:
  bool commit_ = false;
  Tables tables_;
};

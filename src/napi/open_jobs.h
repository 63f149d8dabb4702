// open_jobs.h - the calls that give a Cursor. given() as in write_jobs.h.
#pragma once

#include <napi.h>

#include "reader.h"
#include "statement.h"

struct State;

// (sql, params, readBigInts, ticket, timeoutMs) -> Cursor, whose calls have the same ticket, and
// the time together
struct CursorOpenJob : ReadJob {
  static const bool IS_LIMITED = true; // by maxQueryMs
  ~CursorOpenJob() override;
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;
  napi_value result(napi_env env) override;
  State *state = nullptr;
  Reader *cursor = nullptr; // held until a Cursor holds it

private:
  Statement statement_;
  bool big_ints_ = false;
};

// () -> Cursor, all of whose calls see one state of the file
struct SnapshotOpenJob : CursorOpenJob {
  static const bool IS_LIMITED = false;
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;
};

// cursor.h - the JavaScript class Cursor: a reading connection of its own. It serves the rows of
// one query, a part at a time; or it holds one state of the file, for queries, digests and a
// backup. What its methods take and give stands beside the jobs, in read_jobs.h.
#pragma once

#include <napi.h>

#include "watch.h"

struct ReadJob;
struct Reader;
struct State;

// What a Cursor is made of.
struct CursorParts {
  State *state = nullptr;
  Reader *reader = nullptr;
  bool big_ints = false;
  uint32_t ticket = 0; // of each of its calls
  Limit limit;
};

class Cursor : public Napi::ObjectWrap<Cursor> {
public:
  static const napi_type_tag TAG;
  static Napi::Function define(Napi::Env env);
  // Takes over the hold on the reader. nullptr: it could not be made, an exception may be pending.
  static napi_value make(napi_env env, const CursorParts &parts);

  explicit Cursor(const Napi::CallbackInfo &info);
  ~Cursor() override; // one that was forgotten is closed by ReadPool::sweep

private:
  Napi::Value next(const Napi::CallbackInfo &info);
  template <typename J> Napi::Value read(const Napi::CallbackInfo &info);
  Napi::Value submit(ReadJob *job, bool given);
  Napi::Value close(const Napi::CallbackInfo &info);

  State *state_ = nullptr; // keeps it alive
  CursorParts parts_;      // its reader is held; nullptr after close()
};

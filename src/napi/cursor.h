// cursor.h - the JavaScript class Cursor: a reading connection of its own. It serves the rows of
// one query, a part at a time; or it holds one state of the file, for queries, digests and a
// backup. What its methods take and give stands beside the jobs, in read_jobs.h.
#pragma once

#include <napi.h>

struct ReadJob;
struct Reader;
struct State;

class Cursor : public Napi::ObjectWrap<Cursor> {
public:
  static const napi_type_tag TAG;
  static Napi::Function define(Napi::Env env);
  // Takes over the hold on `reader`. nullptr: it could not be made, an exception may be pending.
  static napi_value make(napi_env env, Reader *reader, bool big_ints);

  explicit Cursor(const Napi::CallbackInfo &info);
  ~Cursor() override; // one that was forgotten is closed by ReadPool::sweep

private:
  Napi::Value next(const Napi::CallbackInfo &info);
  template <typename J> Napi::Value read(const Napi::CallbackInfo &info);
  Napi::Value submit(ReadJob *job, bool given);
  Napi::Value close(const Napi::CallbackInfo &info);

  State *state_ = nullptr;   // keeps it alive
  Reader *reader_ = nullptr; // held; nullptr after close()
  bool big_ints_ = false;
};

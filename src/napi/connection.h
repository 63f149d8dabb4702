// connection.h - the JavaScript class Connection: arguments in, promises out. What its methods take
// and give stands beside the jobs, in write_jobs.h and read_jobs.h.
#pragma once

#include <napi.h>

struct State;

class Connection : public Napi::ObjectWrap<Connection> {
public:
  static const napi_type_tag TAG;
  static Napi::Function define(Napi::Env env);

  // (path, config, onBatch)
  explicit Connection(const Napi::CallbackInfo &info);
  ~Connection()
      override; // an open connection stays open: until close(), or until its environment ends

private:
  Napi::Value open(const Napi::CallbackInfo &info);
  template <typename J> Napi::Value write(const Napi::CallbackInfo &info);
  template <typename J> Napi::Value step(const Napi::CallbackInfo &info);
  template <typename J> Napi::Value read(const Napi::CallbackInfo &info);
  Napi::Value query_sync(const Napi::CallbackInfo &info);
  Napi::Value sync_ended(const Napi::CallbackInfo &info);
  void end_sync();
  template <typename J> Napi::Value open_cursor(const Napi::CallbackInfo &info);
  Napi::Value migration_begin(const Napi::CallbackInfo &info);
  Napi::Value link_open(const Napi::CallbackInfo &info);
  Napi::Value link_close(const Napi::CallbackInfo &info);
  Napi::Value link_message(const Napi::CallbackInfo &info);
  Napi::Value receive(const Napi::CallbackInfo &info);
  Napi::Value tick(const Napi::CallbackInfo &info);
  Napi::Value turn(const Napi::CallbackInfo &info);
  Napi::Value try_lock(const Napi::CallbackInfo &info);
  Napi::Value stop_waiting(const Napi::CallbackInfo &info);
  Napi::Value stop(const Napi::CallbackInfo &info);
  Napi::Value stop_all(const Napi::CallbackInfo &info);
  Napi::Value end(const Napi::CallbackInfo &info);
  Napi::Value figures(const Napi::CallbackInfo &info);
  Napi::Value wal_bytes(const Napi::CallbackInfo &info);
  Napi::Value flush(const Napi::CallbackInfo &info);
  Napi::Value tell_acks(const Napi::CallbackInfo &info);
  Napi::Value close(const Napi::CallbackInfo &info);

  State *state_ = nullptr;        // refers to it
  Napi::ObjectReference closing_; // the promise of close()
};

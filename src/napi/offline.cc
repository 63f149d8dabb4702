#include "offline.h"

#include "read_jobs.h"

Napi::Value offline_query(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  QueryJob job;
  Reader reader;
  napi_value rows = nullptr;
  const char *path = read_string(env, info[4], "path", job.arena, job.failure, nullptr);
  if (path && job.given(info)) {
    if (job.check(reader, replic_reader_peek(path, &reader.db))) job.run(reader);
    replic_reader_close(reader.db);
    rows = job.failure ? nullptr : job.result(env);
  }
  if (rows || env.IsExceptionPending()) return Napi::Value(env, rows);
  job.failure.set_no_memory(); // unless it says more
  napi_throw(env, job.failure.to_js(env));
  return Napi::Value();
}

static int copy_pages(replic_reader *reader, const char *to) {
  static const int SLICE_PAGES = 1024;
  const char *copy;
  int64_t total, remaining = 1;
  int code = replic_reader_hold(reader);
  if (code == REPLIC_OK) code = replic_reader_backup(reader, to, &copy);
  while (code == REPLIC_OK && remaining > 0)
    code = replic_reader_copy(reader, SLICE_PAGES, &total, &remaining);
  return code;
}

Napi::Value offline_copy(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  Arena arena;
  Failure failure;
  const char *from = read_string(env, info[0], "from", arena, failure, nullptr);
  const char *to = from ? read_string(env, info[1], "to", arena, failure, nullptr) : nullptr;
  if (env.IsExceptionPending()) return Napi::Value();
  if (to) {
    replic_reader *reader;
    int code = replic_reader_peek(from, &reader);
    if (code == REPLIC_OK) code = copy_pages(reader, to);
    if (code == REPLIC_OK)
      put_backup(reader, failure);
    else
      failure.set(code, "%s", replic_reader_error_text(reader));
    replic_reader_close(reader);
  }
  if (failure) napi_throw(env, failure.to_js(env));
  return env.Undefined();
}

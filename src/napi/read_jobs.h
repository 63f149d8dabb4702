// read_jobs.h - the calls on a reading connection. given() as in write_jobs.h.
#pragma once

#include <napi.h>

#include "reader.h"
#include "statement.h"

// Rows, for whatever job results in some.
class RowsResult {
public:
  RowsResult() = default;
  RowsResult(const RowsResult &) = delete;
  RowsResult &operator=(const RowsResult &) = delete;
  ~RowsResult();

protected:
  // Where the first row holds the names of the columns, and is none. False: `failure` is set.
  bool take_names(Arena &arena, Failure &failure);
  // [columns, done, value, ...], row by row; nullptr: JavaScript cannot hold them, and `failure`
  // says why, or an exception is pending.
  napi_value rows_to_js(napi_env env, Failure &failure);
  replic_rows rows_ = {};
  char *names_ = nullptr; // of the columns, each ended by a NUL, in the arena
  size_t names_len_ = 0;
  bool big_ints_ = false;

private:
  napi_value columns_to_js(napi_env env);
  bool set_values(napi_env env, napi_value array, Failure &failure);
  napi_value next_to_js(napi_env env, size_t index, size_t *at, Failure &failure);
  size_t skip_ = 0; // values that are names
};

// All is copied: puts the copy in its place. Any thread that has the reader.
void put_backup(replic_reader *reader, Failure &failure);

struct RowsJob : ReadJob, RowsResult {
protected:
  bool take_rows(Reader &reader, size_t max_rows, size_t max_bytes);
};

// (sql, params, first, readBigInts, ticket, timeoutMs) -> [columns, done, value, ...]. The last two
// may be left out, here as below; timeoutMs counts while it runs
struct QueryJob : RowsJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;
  napi_value result(napi_env env) override;

private:
  Statement statement_;
  bool first_ = false;
};

// (maxRows) -> [columns, done, value, ...]
struct CursorNextJob : RowsJob {
  CursorNextJob(bool big_ints) {
    big_ints_ = big_ints;
  }
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;
  napi_value result(napi_env env) override;

private:
  uint32_t max_rows_ = 0;
};

// (sql) -> undefined. Starts a statement for SumJob
struct SumStartJob : Void<ReadJob> {
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;

private:
  Statement statement_;
};

// (maxRows) -> { rows, buckets }. buckets: null until all rows are summed up, then a Buffer of
// 64-bit numbers, little-endian
struct SumJob : ReadJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;
  napi_value result(napi_env env) override;

private:
  uint32_t max_rows_ = 0;
  int64_t rows_ = 0;
  uint8_t *buckets_ = nullptr; // in the arena
};

// (path) -> the name of the copy
struct BackupStartJob : ReadJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;
  napi_value result(napi_env env) override;

private:
  const char *path_ = nullptr, *copy_ = nullptr;
};

// (maxPages) -> { totalPages, remainingPages }
struct BackupCopyJob : ReadJob {
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;
  napi_value result(napi_env env) override;

private:
  uint32_t max_pages_ = 0;
  int64_t total_ = 0, remaining_ = 0;
};

// () -> undefined. Puts the complete copy in its place
struct BackupEndJob : Void<ReadJob> {
  bool given(const Napi::CallbackInfo &info);
  void run(Reader &reader) override;
};

#include "read_jobs.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#ifdef _WIN32
#include <filesystem>
#endif

#include <sqlite3.h>

#include "env.h"

static const size_t CURSOR_BYTES = 4 << 20; // one next() brings no more rows when it has that much

// ---- rows ---------------------------------------------------------------------------------------

RowsResult::~RowsResult() {
  replic_rows_free(&rows_);
}

// A copy with its NUL at `to`; where that ends.
static char *put_name(char *to, const char *name) {
  size_t size = strlen(name) + 1;
  memcpy(to, name, size);
  return to + size;
}

bool RowsJob::take_rows(Reader &reader, size_t max_rows, size_t max_bytes) {
  if (!check(reader, replic_reader_rows(reader.db, max_rows, max_bytes, &rows_))) return false;
  for (size_t i = 0; i < rows_.n_columns; i++) {
    const char *name = replic_reader_column_name(reader.db, i);
    if (!name) return failure.set_no_memory();
    names_len_ += strlen(name) + 1;
  }
  char *at = names_ = static_cast<char *>(arena.take(names_len_));
  for (size_t i = 0; at && i < rows_.n_columns; i++)
    at = put_name(at, replic_reader_column_name(reader.db, i));
  return at || failure.set_no_memory();
}

bool RowsResult::take_names(Arena &arena, Failure &failure) {
  replic_value name;
  size_t offset = 0;
  for (skip_ = 0; skip_ < rows_.n_columns; skip_++) {
    offset = replic_rows_value(&rows_, offset, &name);
    names_len_ += name.len + 1;
  }
  char *at = names_ = static_cast<char *>(arena.take(names_len_));
  offset = 0;
  for (size_t i = 0; at && i < skip_; i++) {
    offset = replic_rows_value(&rows_, offset, &name);
    memcpy(at, name.data, name.len);
    at[name.len] = 0;
    at += name.len + 1;
  }
  return at || failure.set_no_memory();
}

// The value at offset `*at`, which is number `index`.
napi_value RowsResult::next_to_js(napi_env env, size_t index, size_t *at, Failure &failure) {
  replic_value value;
  *at = replic_rows_value(&rows_, *at, &value);
  napi_value result = value_to_js(env, value, big_ints_);
  if (result) return result;
  const char *column = names_;
  for (size_t i = index % rows_.n_columns; i > 0; i--) column += strlen(column) + 1;
  size_t row = (index - skip_) / rows_.n_columns;
  if (value.type == REPLIC_INT)
    failure.set(REPLIC_ERANGE,
                "column %s of row %zu holds %lld, which a number cannot hold exactly: read it with "
                "{ readBigInts: true }",
                column, row, static_cast<long long>(value.i));
  else
    failure.set(REPLIC_ERANGE, "column %s of row %zu holds %zu bytes, more than JavaScript can",
                column, row, value.len);
  return nullptr;
}

// Sets the values of the array from element 2 on. Of many, each 1,024 with one call of
// Array.prototype.push: fewer and cheaper calls than setting them one by one.
bool RowsResult::set_values(napi_env env, napi_value array, Failure &failure) {
  static const size_t FEW = 32, AT_ONCE = 1024;
  size_t count = rows_.n_rows * rows_.n_columns, offset = 0;
  napi_value values[AT_ONCE], push = addon_data(env).array_push.Value();
  replic_value name;
  for (size_t i = 0; i < skip_; i++) offset = replic_rows_value(&rows_, offset, &name);
  for (size_t done = skip_; done < count;) {
    Napi::HandleScope scope(env);
    size_t n = 0;
    for (; n < AT_ONCE && done < count; n++, done++) {
      values[n] = next_to_js(env, done, &offset, failure);
      if (!values[n]) return false;
    }
    if (count - skip_ > FEW) {
      if (napi_call_function(env, array, push, n, values, nullptr) != napi_ok) return false;
      continue;
    }
    for (uint32_t i = 0; i < n; i++)
      if (napi_set_element(env, array, i + 2, values[i]) != napi_ok) return false;
  }
  return true;
}

napi_value RowsResult::columns_to_js(napi_env env) {
  static const size_t MOST = 1000; // lists that are kept
  AddonData &data = addon_data(env);
  std::string key(names_, names_len_);
  auto known = data.column_index.find(key);
  if (known != data.column_index.end()) return data.columns.Get(known->second);
  if (data.columns.IsEmpty() || data.column_index.size() == MOST) {
    data.column_index.clear();
    data.columns = Napi::Persistent(Napi::Array::New(env).As<Napi::Object>());
  }
  Napi::Array columns = Napi::Array::New(env, rows_.n_columns);
  const char *name = names_;
  for (uint32_t i = 0; i < rows_.n_columns; i++, name += strlen(name) + 1) columns.Set(i, name);
  uint32_t index = static_cast<uint32_t>(data.column_index.size());
  data.columns.Set(index, columns);
  data.column_index.emplace(std::move(key), index);
  return columns;
}

// One array and no object around it: that would cost a small result as much again.
napi_value RowsResult::rows_to_js(napi_env env, Failure &failure) {
  napi_value result, done, columns = columns_to_js(env);
  if (!columns || napi_create_array_with_length(env, 2, &result) != napi_ok ||
      napi_get_boolean(env, rows_.done, &done) != napi_ok ||
      napi_set_element(env, result, 0, columns) != napi_ok ||
      napi_set_element(env, result, 1, done) != napi_ok)
    return nullptr;
  return set_values(env, result, failure) ? result : nullptr;
}

// ---- query --------------------------------------------------------------------------------------

bool QueryJob::given(const Napi::CallbackInfo &info) {
  first_ = is_true(info.Env(), info[2]);
  big_ints_ = is_true(info.Env(), info[3]);
  ticket = ticket_of(info.Env(), info[4]);
  limit.timeout_ms = number_or_0(info.Env(), info[5]);
  return statement_.given(info, *this);
}

void QueryJob::run(Reader &reader) {
  if (check(reader, statement_.start(reader.db)))
    take_rows(reader, first_ ? 1 : SIZE_MAX, SIZE_MAX);
  replic_reader_reset(reader.db);
}

napi_value QueryJob::result(napi_env env) {
  return rows_to_js(env, failure);
}

// ---- cursors ------------------------------------------------------------------------------------

static bool read_most(const Napi::CallbackInfo &info, uint32_t *most) {
  if (napi_get_value_uint32(info.Env(), info[0], most) == napi_ok && *most && *most <= INT32_MAX)
    return true;
  napi_throw_type_error(info.Env(), nullptr, "how many at most must be a positive number");
  return false;
}

bool CursorNextJob::given(const Napi::CallbackInfo &info) {
  return read_most(info, &max_rows_);
}

void CursorNextJob::run(Reader &reader) {
  if (!take_rows(reader, max_rows_, CURSOR_BYTES)) return;
  if (rows_.done) replic_reader_reset(reader.db); // lets go of the snapshot
}

napi_value CursorNextJob::result(napi_env env) {
  return rows_to_js(env, failure);
}

// ---- digests ------------------------------------------------------------------------------------

bool SumStartJob::given(const Napi::CallbackInfo &info) {
  return statement_.given(info, *this);
}

void SumStartJob::run(Reader &reader) {
  check(reader, statement_.start(reader.db));
}

bool SumJob::given(const Napi::CallbackInfo &info) {
  return read_most(info, &max_rows_);
}

void SumJob::run(Reader &reader) {
  const replic_sums *sums;
  if (!check(reader, replic_reader_sum(reader.db, max_rows_, &sums))) return;
  rows_ = sums->rows;
  if (!sums->done) return;
  buckets_ = arena.array<uint8_t>(sizeof sums->bucket);
  if (!buckets_) failure.set_no_memory();
  for (size_t i = 0; buckets_ && i < sizeof sums->bucket; i++)
    buckets_[i] = static_cast<uint8_t>(sums->bucket[i / 8] >> 8 * (i % 8));
}

napi_value SumJob::result(napi_env env) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("rows", Napi::Number::New(env, static_cast<double>(rows_)));
  result.Set("buckets", buckets_ ? Napi::Value(Napi::Buffer<uint8_t>::Copy(
                                       env, buckets_, REPLIC_BUCKETS * sizeof(uint64_t)))
                                 : Napi::Env(env).Null());
  return result;
}

// ---- backups ------------------------------------------------------------------------------------

bool BackupStartJob::given(const Napi::CallbackInfo &info) {
  path_ = read_string(info.Env(), info[0], "path", arena, failure, nullptr);
  return path_;
}

void BackupStartJob::run(Reader &reader) {
  const char *copy;
  if (!check(reader, replic_reader_backup(reader.db, path_, &copy))) return;
  copy_ = arena.copy(copy);
  if (!copy_) failure.set_no_memory();
}

napi_value BackupStartJob::result(napi_env env) {
  return Napi::String::New(env, copy_);
}

bool BackupCopyJob::given(const Napi::CallbackInfo &info) {
  return read_most(info, &max_pages_);
}

void BackupCopyJob::run(Reader &reader) {
  int most = static_cast<int>(max_pages_);
  check(reader, replic_reader_copy(reader.db, most, &total_, &remaining_));
}

napi_value BackupCopyJob::result(napi_env env) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("totalPages", Napi::Number::New(env, static_cast<double>(total_)));
  result.Set("remainingPages", Napi::Number::New(env, static_cast<double>(remaining_)));
  return result;
}

bool BackupEndJob::given(const Napi::CallbackInfo &) {
  return true;
}

// Puts a file in the place of another one; 0, or why not. (std::filesystem would do, but elsewhere
// than on Windows it is the only thing that needs a large C++ runtime.)
static int replace_file(const char *from, const char *to) {
#ifdef _WIN32
  using std::filesystem::u8path;
  std::error_code error;
  std::filesystem::rename(u8path(from), u8path(to), error);
  return error ? error.default_error_condition().value() : 0;
#else
  return rename(from, to) == 0 ? 0 : errno;
#endif
}

void put_backup(replic_reader *reader, Failure &failure) {
  const char *from, *to;
  int code = replic_reader_copied(reader, &from, &to);
  if (code != REPLIC_OK) {
    failure.set(code, "%s", replic_reader_error_text(reader));
    return;
  }
  int error = replace_file(from, to);
  if (error == 0) return replic_reader_backed_up(reader);
  failure.set(SQLITE_IOERR, "%s cannot be replaced by the backup (%s)", to, strerror(error));
}

void BackupEndJob::run(Reader &reader) {
  put_backup(reader.db, failure);
}

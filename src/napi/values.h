// values.h - values between JavaScript and C. Main thread only, except Arena.
#pragma once

#include <napi.h>

#include "error.h"
#include "query.h"
#include "replic.h"

// Memory that is freed all at once. Owned by one job: filled on the main thread, then used by the
// one that runs it.
class Arena {
public:
  Arena() = default;
  ~Arena();
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  // Aligned for any value. nullptr: out of memory.
  void *take(size_t size);
  template <typename T> T *array(size_t count) {
    return count > SIZE_MAX / sizeof(T) ? nullptr : static_cast<T *>(take(count * sizeof(T)));
  }
  // A copy with a NUL behind it. nullptr: out of memory.
  char *copy(const char *text);
  // The UTF-8 of a JavaScript string with a NUL behind it. nullptr: out of memory.
  char *string(napi_env env, napi_value value, size_t *len);
  // Has room for so many bytes in one piece. False: out of memory.
  bool reserve(size_t size);
  // All that was taken from the system.
  size_t bytes() const {
    return bytes_;
  }

private:
  struct Chunk;
  struct Kept;
  static thread_local Kept kept_;
  bool grow(size_t least);

  Chunk *chunks_ = nullptr;
  char *at_ = nullptr, *end_ = nullptr;
  size_t bytes_ = 0;
};

enum class Reading { ok, wrong_type, out_of_range, no_memory };
// Copies a value into `*out` and `arena`; undefined becomes REPLIC_UNSET.
Reading read_value(napi_env env, napi_value value, Arena &arena, replic_value *out);

// A list of values: an Array, or many of them as pack() in lib/base/rows.js packs them, which takes
// a third of the time, since each crossing into the engine costs as much as a value.
class ValueList {
public:
  // False: an exception is pending.
  bool open(napi_env env, napi_value list);
  uint32_t count() const {
    return count_;
  }
  // The next one, as read_value reads it, into the same `arena` each time, which outlives what is
  // read; `*value` is it where it is not ok.
  Reading next(napi_env env, Arena &arena, replic_value *out, napi_value *value);

private:
  bool open_packed(napi_env env, napi_value packed);
  Reading next_texts(napi_env env, Arena &arena);
  Reading next_text(napi_env env, Arena &arena, double units, replic_value *out);
  napi_value list_ = nullptr;       // of all, or of those that are not packed
  uint32_t count_ = 0, listed_ = 0; // taken from it
  uint32_t at_ = 0;
  napi_value texts_ = nullptr;     // of the packed ones, many in one
  uint32_t n_texts_ = 0;           // taken from it
  const uint8_t *kinds_ = nullptr; // nullptr: nothing is packed
  const double *numbers_ = nullptr;
  const char *text_ = nullptr, *text_end_ = nullptr;
  bool is_ascii_ = false;
};

// Notes why read_value refused `value`; `where` names the column or parameter.
bool refuse_value(napi_env env, Reading reading, napi_value value, const char *where,
                  Failure &failure);

// Whether an argument is `true`. (Not Napi::Value::ToBoolean(): a conversion is refused where the
// environment ends, and what node-addon-api then gives ends the process when it is looked at.)
bool is_true(napi_env env, napi_value value);
// A number that may be left out; 0 then, and for what is none.
double number_or_0(napi_env env, napi_value value);
uint32_t ticket_of(napi_env env, napi_value value);
// A string argument. Throws a TypeError naming `what` and returns nullptr if it is none; nullptr
// with `failure` set if memory is exhausted or, with `len` nullptr (the core takes it as a C
// string), it holds a NUL.
const char *read_string(napi_env env, napi_value value, const char *what, Arena &arena,
                        Failure &failure, size_t *len);
// The parameters of a statement: undefined, an array, or an object by name. False: `failure` is
// set, or an exception pending (a TypeError, or what a getter of the caller's threw).
bool read_params(napi_env env, napi_value value, Arena &arena, Failure &failure,
                 replic_param **params, size_t *n_params);

// An integer: a number where that holds it exactly, else a bigint.
napi_value integer_to_js(napi_env env, int64_t value);
// A value of a result row; nullptr: an integer beyond what a number holds, and `big_ints` is not
// set.
napi_value value_to_js(napi_env env, const replic_value &value, bool big_ints);

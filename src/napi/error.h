// error.h - what went wrong: noted on any thread, turned into a JavaScript error on the main
// thread.
#pragma once

#include <napi.h>

#include "errors.h"

// A code and its text. The first one noted stays.
class Failure {
public:
  Failure() = default;
  ~Failure();
  Failure(const Failure &) = delete;
  Failure &operator=(const Failure &) = delete;

  explicit operator bool() const {
    return code_ != REPLIC_OK;
  }
  // Returns false, so that "return failure.set(...)" ends a function that says whether it
  // succeeded.
  bool set(int code, const char *format, ...)
#if defined(__GNUC__)
      __attribute__((format(printf, 3, 4)))
#endif
      ;
  bool set_no_memory();
  bool set_stopped(); // lib has stopped it, and knows why
  bool set_closing(); // close() has stopped it
  void set(const Failure &other);
  void clear(); // nothing has failed after all
  int code() const {
    return code_;
  }
  const char *code_name() const;
  const char *text() const; // never null

  // Main thread only. An instance of the error class that lib has set, else an Error with a code.
  napi_value to_js(napi_env env) const;

private:
  int code_ = REPLIC_OK;
  char *text_ = nullptr; // malloc; null if memory was exhausted
};

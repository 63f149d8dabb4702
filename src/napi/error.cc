#include "error.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "env.h"
#include "replic.h"
#include <sqlite3.h>

Failure::~Failure() {
  free(text_);
}

bool Failure::set(int code, const char *format, ...) {
  if (code_ != REPLIC_OK) return false;
  code_ = code;
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int len = vsnprintf(nullptr, 0, format, args);
  va_end(args);
  if (len >= 0) text_ = static_cast<char *>(malloc(static_cast<size_t>(len) + 1));
  if (text_) vsnprintf(text_, static_cast<size_t>(len) + 1, format, again);
  va_end(again);
  return false;
}

bool Failure::set_no_memory() {
  return set(SQLITE_NOMEM, "out of memory");
}

bool Failure::set_stopped() {
  return set(SQLITE_INTERRUPT, "stopped");
}

bool Failure::set_closing() {
  return set(REPLIC_ECLOSED, "the replica is closed: the timeoutMs of close() was over before this "
                             "call had ended, so it was stopped and undone");
}

void Failure::set(const Failure &other) {
  set(other.code_, "%s", other.text());
}

void Failure::clear() {
  free(text_);
  text_ = nullptr;
  code_ = REPLIC_OK;
}

const char *Failure::code_name() const {
  return replic_code_name(code_);
}

const char *Failure::text() const {
  return text_ ? text_ : "out of memory";
}

napi_value Failure::to_js(napi_env env) const {
  Napi::String code = Napi::String::New(env, code_name()), message = Napi::String::New(env, text());
  Napi::FunctionReference &error_class = addon_data(env).error_class;
  if (!error_class.IsEmpty()) return error_class.New({code, message});
  napi_value error = nullptr;
  napi_create_error(env, code, message, &error);
  return error;
}

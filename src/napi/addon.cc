// addon.cc - what the addon exports: see docs/architecture.md for the layers around it.
#include <sqlite3.h>

#include "connection.h"
#include "cursor.h"
#include "env.h"
#include "error.h"
#include "offline.h"
#include "replic.h"
#include "values.h"

static Napi::Value set_error_class(const Napi::CallbackInfo &info) {
  if (!info[0].IsFunction()) {
    Napi::TypeError::New(info.Env(), "setErrorClass: a constructor(code, message) is needed")
        .ThrowAsJavaScriptException();
    return Napi::Value();
  }
  addon_data(info.Env()).error_class = Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

// (function) -> undefined. It does nothing: whether it can be called is what is asked.
static Napi::Value set_pulse(const Napi::CallbackInfo &info) {
  if (info[0].IsFunction())
    addon_data(info.Env()).pulse = Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

// (CREATE TABLE …) -> the DDL of its T_patches
static Napi::Value patches_table(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  Arena arena;
  Failure failure;
  char *text = nullptr;
  const char *sql = read_string(env, info[0], "sql", arena, failure, nullptr);
  if (env.IsExceptionPending()) return Napi::Value();
  int code = sql ? replic_patches_table_of(sql, &text) : REPLIC_OK;
  if (code != REPLIC_OK) failure.set(code, "patchesTable: %s", text ? text : "out of memory");
  Napi::Value result = sql && !failure ? Napi::String::New(env, text) : Napi::Value();
  sqlite3_free(text);
  if (failure) napi_throw(env, failure.to_js(env));
  return result;
}

// (bytes) -> the sum that a frame with these bytes ends with
static Napi::Value frame_sum(const Napi::CallbackInfo &info) {
  if (!info[0].IsTypedArray()) {
    Napi::TypeError::New(info.Env(), "frameSum: bytes are needed").ThrowAsJavaScriptException();
    return Napi::Value();
  }
  Napi::Uint8Array bytes = info[0].As<Napi::Uint8Array>();
  return Napi::Number::New(info.Env(), replic_frame_sum(bytes.Data(), bytes.ByteLength()));
}

static Napi::Array error_codes(Napi::Env env) {
  static const char *const NAMES[] = {
#define REPLIC_ERROR_NAME(id, name, meaning) name,
      REPLIC_ERRORS(REPLIC_ERROR_NAME)
#undef REPLIC_ERROR_NAME
  };
  Napi::Array codes = Napi::Array::New(env);
  uint32_t count = 0;
  for (const char *name : NAMES) codes.Set(count++, name);
  return codes;
}

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonData());
  Napi::Function cursor = Cursor::define(env);
  Napi::Value push = Napi::Array::New(env).Get("push");
  if (cursor.IsEmpty() || push.IsEmpty()) return exports; // the environment ends
  addon_data(env).cursor_class = Napi::Persistent(cursor);
  addon_data(env).array_push = Napi::Persistent(push.As<Napi::Function>());
  exports.Set("Connection", Connection::define(env));
  exports.Set("codes", error_codes(env));
  exports.Set("setErrorClass", Napi::Function::New(env, set_error_class, "setErrorClass"));
  exports.Set("setPulse", Napi::Function::New(env, set_pulse, "setPulse"));
  exports.Set("offlineQuery", Napi::Function::New(env, offline_query, "offlineQuery"));
  exports.Set("offlineCopy", Napi::Function::New(env, offline_copy, "offlineCopy"));
  exports.Set("frameSum", Napi::Function::New(env, frame_sum, "frameSum"));
  exports.Set("patchesTable", Napi::Function::New(env, patches_table, "patchesTable"));
  exports.Set("sqliteVersion", sqlite3_libversion());
  return exports;
}

NODE_API_MODULE(replic_sqlite, init)

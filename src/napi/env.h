// env.h - what belongs to one environment: the main thread of the process, or one worker thread.
#pragma once

#include <napi.h>

#include <string>
#include <unordered_map>

struct CursorParts;

// Nothing is global in the process: each environment has its own.
struct AddonData {
  Napi::FunctionReference
      error_class;               // constructor(code, message), from setErrorClass; may be empty
  Napi::FunctionReference pulse; // from setPulse; may be empty
  Napi::FunctionReference cursor_class; // made by the addon only, see Cursor::make
  Napi::FunctionReference array_push;   // Array.prototype.push, as it was when the addon was loaded
  const CursorParts *new_cursor = nullptr; // for the Cursor that is being made
  // Arrays of column names, one for each list of names that results had: a query that is made again
  // makes no strings. By the names, each ended by a NUL, where it stands in `columns`.
  std::unordered_map<std::string, uint32_t> column_index;
  Napi::ObjectReference columns;
};

inline AddonData &addon_data(napi_env env) {
  return *Napi::Env(env).GetInstanceData<AddonData>();
}

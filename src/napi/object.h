// object.h - methods of JavaScript classes that check their receiver, on Node and Bun alike.
#pragma once

#include <napi.h>

// Each class T has a TAG of its own: without it, Connection.prototype.close.call(cursor) would take
// one for the other.
template <typename T> T *receiver(const Napi::CallbackInfo &info) {
  Napi::Value self = info.This();
  if (self.IsObject() && self.As<Napi::Object>().CheckTypeTag(&T::TAG))
    return T::Unwrap(self.As<Napi::Object>());
  Napi::TypeError::New(info.Env(), "the receiver of this method is not of its class")
      .ThrowAsJavaScriptException();
  return nullptr;
}

template <typename T, Napi::Value (T::*method)(const Napi::CallbackInfo &)>
napi_value checked_call(napi_env env, napi_callback_info raw) {
  Napi::CallbackInfo info(env, raw);
  T *object = receiver<T>(info);
  return object ? static_cast<napi_value>((object->*method)(info)) : nullptr;
}

template <typename T, Napi::Value (T::*method)(const Napi::CallbackInfo &)>
Napi::ClassPropertyDescriptor<T> checked_method(const char *name) {
  napi_property_descriptor property = {};
  property.utf8name = name;
  property.method = checked_call<T, method>;
  property.attributes = napi_default_method;
  return Napi::ClassPropertyDescriptor<T>(property);
}

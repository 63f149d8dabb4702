/* ending.c - lets the environment of the addon end at a call of Node-API that is chosen: linked
 * between the two (--wrap), it holds the thread there until Node refuses to run JavaScript.
 *
 * A worker that is terminated finds that between any two calls: first nothing can run JavaScript
 * any more, and only then is the JavaScript that runs interrupted. (NAPI_PREAMBLE of
 * src/js_native_api_v8.h, Environment::ExitEnv.)
 *
 * Places are counted, not calls: a function that is called a thousand times from one is one place.
 * At the place REPLIC_ENDING a byte goes into the pipe REPLIC_ENDING_PIPE, whose reader terminates
 * the worker. */
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <node_api.h>

enum { MOST = 4096 };
static _Thread_local const void *known[MOST];
static _Thread_local int n_known;

static void tell(void) {
  int file = open(getenv("REPLIC_ENDING_PIPE"), O_WRONLY);
  if (file < 0 || write(file, "", 1) != 1) abort();
  close(file);
}

napi_status __real_napi_strict_equals(napi_env env, napi_value lhs, napi_value rhs, bool *result);

static void wait_for_end(napi_env env) {
  napi_value any;
  bool is_equal;
  if (napi_get_undefined(env, &any) != napi_ok) abort();
  while (__real_napi_strict_equals(env, any, any, &is_equal) == napi_ok) sched_yield();
}

static void visit(napi_env env, const void *place) {
  for (int i = 0; i < n_known; i++)
    if (known[i] == place) return;
  if (n_known == MOST) abort();
  known[n_known++] = place;
  if (n_known != atoi(getenv("REPLIC_ENDING"))) return;
  tell();
  wait_for_end(env);
}

/* Node leaves what it would have given as it was: unset, that is no value that one may look at. */
static void leave_unset(napi_value *given) {
  if (given && *given) *given = (napi_value)(uintptr_t)-8;
}

#define ENDS(name, given, parameters, arguments)                                                   \
  napi_status __real_napi_##name parameters;                                                       \
  napi_status __wrap_napi_##name parameters;                                                       \
  napi_status __wrap_napi_##name parameters {                                                      \
    visit(env, __builtin_return_address(0));                                                       \
    napi_status status = __real_napi_##name arguments;                                             \
    if (status != napi_ok) leave_unset(given);                                                     \
    return status;                                                                                 \
  }

ENDS(call_function, result,
     (napi_env env, napi_value recv, napi_value func, size_t argc, const napi_value *argv,
      napi_value *result),
     (env, recv, func, argc, argv, result))
ENDS(check_object_type_tag, NULL,
     (napi_env env, napi_value value, const napi_type_tag *type_tag, bool *result),
     (env, value, type_tag, result))
ENDS(coerce_to_bool, result, (napi_env env, napi_value value, napi_value *result),
     (env, value, result))
ENDS(create_arraybuffer, result,
     (napi_env env, size_t byte_length, void **data, napi_value *result),
     (env, byte_length, data, result))
ENDS(create_buffer_copy, result,
     (napi_env env, size_t length, const void *data, void **result_data, napi_value *result),
     (env, length, data, result_data, result))
ENDS(create_function, result,
     (napi_env env, const char *utf8name, size_t length, napi_callback cb, void *data,
      napi_value *result),
     (env, utf8name, length, cb, data, result))
ENDS(create_promise, promise, (napi_env env, napi_deferred *deferred, napi_value *promise),
     (env, deferred, promise))
ENDS(create_typedarray, result,
     (napi_env env, napi_typedarray_type type, size_t length, napi_value arraybuffer,
      size_t byte_offset, napi_value *result),
     (env, type, length, arraybuffer, byte_offset, result))
ENDS(define_class, result,
     (napi_env env, const char *utf8name, size_t length, napi_callback constructor, void *data,
      size_t property_count, const napi_property_descriptor *properties, napi_value *result),
     (env, utf8name, length, constructor, data, property_count, properties, result))
ENDS(define_properties, NULL,
     (napi_env env, napi_value object, size_t property_count,
      const napi_property_descriptor *properties),
     (env, object, property_count, properties))
ENDS(get_all_property_names, result,
     (napi_env env, napi_value object, napi_key_collection_mode key_mode,
      napi_key_filter key_filter, napi_key_conversion key_conversion, napi_value *result),
     (env, object, key_mode, key_filter, key_conversion, result))
ENDS(get_element, result, (napi_env env, napi_value object, uint32_t index, napi_value *result),
     (env, object, index, result))
ENDS(get_named_property, result,
     (napi_env env, napi_value object, const char *utf8name, napi_value *result),
     (env, object, utf8name, result))
ENDS(get_property, result, (napi_env env, napi_value object, napi_value key, napi_value *result),
     (env, object, key, result))
ENDS(has_property, NULL, (napi_env env, napi_value object, napi_value key, bool *result),
     (env, object, key, result))
ENDS(new_instance, result,
     (napi_env env, napi_value constructor, size_t argc, const napi_value *argv,
      napi_value *result),
     (env, constructor, argc, argv, result))
ENDS(reject_deferred, NULL, (napi_env env, napi_deferred deferred, napi_value rejection),
     (env, deferred, rejection))
ENDS(remove_wrap, NULL, (napi_env env, napi_value js_object, void **result),
     (env, js_object, result))
ENDS(resolve_deferred, NULL, (napi_env env, napi_deferred deferred, napi_value resolution),
     (env, deferred, resolution))
ENDS(set_element, NULL, (napi_env env, napi_value object, uint32_t index, napi_value value),
     (env, object, index, value))
ENDS(set_named_property, NULL,
     (napi_env env, napi_value object, const char *utf8name, napi_value value),
     (env, object, utf8name, value))
ENDS(strict_equals, NULL, (napi_env env, napi_value lhs, napi_value rhs, bool *result),
     (env, lhs, rhs, result))
ENDS(throw, NULL, (napi_env env, napi_value error), (env, error))
ENDS(throw_type_error, NULL, (napi_env env, const char *code, const char *msg), (env, code, msg))
ENDS(type_tag_object, NULL, (napi_env env, napi_value value, const napi_type_tag *type_tag),
     (env, value, type_tag))
ENDS(unwrap, NULL, (napi_env env, napi_value js_object, void **result), (env, js_object, result))
ENDS(wrap, NULL,
     (napi_env env, napi_value js_object, void *native_object, napi_finalize finalize_cb,
      void *finalize_hint, napi_ref *result),
     (env, js_object, native_object, finalize_cb, finalize_hint, result))

/* What else the addon calls Node answers to the end, as it runs no JavaScript:
 * add_env_cleanup_hook add_finalizer async_destroy call_threadsafe_function
 * close_callback_scope close_escapable_handle_scope close_handle_scope create_array
 * create_array_with_length create_async_work create_bigint_int64 create_double create_error
 * create_int64 create_object create_reference create_string_utf8 create_threadsafe_function
 * create_type_error delete_async_work delete_reference escape_handle fatal_error
 * get_and_clear_last_exception get_array_length get_arraybuffer_info get_boolean get_cb_info
 * get_dataview_info get_global get_instance_data get_last_error_info get_new_target get_null
 * get_reference_value get_typedarray_info get_undefined get_value_bigint_int64 get_value_bool
 * get_value_double get_value_int32 get_value_int64 get_value_string_utf16
 * get_value_string_utf8 get_value_uint32 is_array is_arraybuffer is_dataview is_date
 * is_exception_pending is_typedarray open_escapable_handle_scope open_handle_scope
 * queue_async_work ref_threadsafe_function release_threadsafe_function remove_env_cleanup_hook
 * set_instance_data typeof unref_threadsafe_function */

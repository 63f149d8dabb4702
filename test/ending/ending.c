/* ending.c - Node-API as the addon finds it where its environment ends: linked between the two
 * (--wrap), so that each function which Node refuses from then on fails for a whole thread, from
 * the place on that REPLIC_ENDING tells.
 *
 * Node does so between any two calls when a worker is terminated: first nothing can run JavaScript
 * any more, and only then is the JavaScript that runs interrupted. (NAPI_PREAMBLE of
 * src/js_native_api_v8.h, Worker::Exit.)
 *
 * Places are counted, not calls: a function that is called a thousand times from one is one place.
 * When the count is reached, a byte goes into the pipe REPLIC_ENDING_PIPE. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <node_api.h>

enum { MOST = 4096 };
static _Thread_local const void *known[MOST];
static _Thread_local int n_known, has_ended;

static void tell(void) {
  int file = open(getenv("REPLIC_ENDING_PIPE"), O_WRONLY);
  if (file < 0 || write(file, "", 1) != 1) abort();
  close(file);
}

static int ended(const void *place) {
  if (has_ended) return 1;
  for (int i = 0; i < n_known; i++)
    if (known[i] == place) return 0;
  if (n_known == MOST) abort();
  known[n_known++] = place;
  has_ended = n_known == atoi(getenv("REPLIC_ENDING"));
  if (has_ended) tell();
  return has_ended;
}

#define FAILS(name, parameters, arguments)                                                         \
  napi_status __real_napi_##name parameters;                                                       \
  napi_status __wrap_napi_##name parameters;                                                       \
  napi_status __wrap_napi_##name parameters {                                                      \
    return ended(__builtin_return_address(0)) ? napi_pending_exception                             \
                                              : __real_napi_##name arguments;                      \
  }

FAILS(call_function,
      (napi_env env, napi_value recv, napi_value func, size_t argc, const napi_value *argv,
       napi_value *result),
      (env, recv, func, argc, argv, result))
FAILS(check_object_type_tag,
      (napi_env env, napi_value value, const napi_type_tag *type_tag, bool *result),
      (env, value, type_tag, result))
FAILS(coerce_to_bool, (napi_env env, napi_value value, napi_value *result), (env, value, result))
FAILS(create_arraybuffer, (napi_env env, size_t byte_length, void **data, napi_value *result),
      (env, byte_length, data, result))
FAILS(create_buffer_copy,
      (napi_env env, size_t length, const void *data, void **result_data, napi_value *result),
      (env, length, data, result_data, result))
FAILS(create_function,
      (napi_env env, const char *utf8name, size_t length, napi_callback cb, void *data,
       napi_value *result),
      (env, utf8name, length, cb, data, result))
FAILS(create_promise, (napi_env env, napi_deferred *deferred, napi_value *promise),
      (env, deferred, promise))
FAILS(create_typedarray,
      (napi_env env, napi_typedarray_type type, size_t length, napi_value arraybuffer,
       size_t byte_offset, napi_value *result),
      (env, type, length, arraybuffer, byte_offset, result))
FAILS(define_class,
      (napi_env env, const char *utf8name, size_t length, napi_callback constructor, void *data,
       size_t property_count, const napi_property_descriptor *properties, napi_value *result),
      (env, utf8name, length, constructor, data, property_count, properties, result))
FAILS(define_properties,
      (napi_env env, napi_value object, size_t property_count,
       const napi_property_descriptor *properties),
      (env, object, property_count, properties))
FAILS(get_all_property_names,
      (napi_env env, napi_value object, napi_key_collection_mode key_mode,
       napi_key_filter key_filter, napi_key_conversion key_conversion, napi_value *result),
      (env, object, key_mode, key_filter, key_conversion, result))
FAILS(get_element, (napi_env env, napi_value object, uint32_t index, napi_value *result),
      (env, object, index, result))
FAILS(get_named_property,
      (napi_env env, napi_value object, const char *utf8name, napi_value *result),
      (env, object, utf8name, result))
FAILS(get_property, (napi_env env, napi_value object, napi_value key, napi_value *result),
      (env, object, key, result))
FAILS(has_property, (napi_env env, napi_value object, napi_value key, bool *result),
      (env, object, key, result))
FAILS(new_instance,
      (napi_env env, napi_value constructor, size_t argc, const napi_value *argv,
       napi_value *result),
      (env, constructor, argc, argv, result))
FAILS(reject_deferred, (napi_env env, napi_deferred deferred, napi_value rejection),
      (env, deferred, rejection))
FAILS(remove_wrap, (napi_env env, napi_value js_object, void **result), (env, js_object, result))
FAILS(resolve_deferred, (napi_env env, napi_deferred deferred, napi_value resolution),
      (env, deferred, resolution))
FAILS(set_element, (napi_env env, napi_value object, uint32_t index, napi_value value),
      (env, object, index, value))
FAILS(set_named_property, (napi_env env, napi_value object, const char *utf8name, napi_value value),
      (env, object, utf8name, value))
FAILS(strict_equals, (napi_env env, napi_value lhs, napi_value rhs, bool *result),
      (env, lhs, rhs, result))
FAILS(throw, (napi_env env, napi_value error), (env, error))
FAILS(throw_type_error, (napi_env env, const char *code, const char *msg), (env, code, msg))
FAILS(type_tag_object, (napi_env env, napi_value value, const napi_type_tag *type_tag),
      (env, value, type_tag))
FAILS(unwrap, (napi_env env, napi_value js_object, void **result), (env, js_object, result))
FAILS(wrap,
      (napi_env env, napi_value js_object, void *native_object, napi_finalize finalize_cb,
       void *finalize_hint, napi_ref *result),
      (env, js_object, native_object, finalize_cb, finalize_hint, result))

/* What else the addon calls Node answers to the end, as it runs no JavaScript:
 * add_env_cleanup_hook add_finalizer async_destroy close_callback_scope
 * close_escapable_handle_scope close_handle_scope create_array create_array_with_length
 * create_async_work create_bigint_int64 create_double create_error create_int64 create_object
 * create_reference create_string_utf8 create_type_error delete_async_work delete_reference
 * escape_handle fatal_error get_and_clear_last_exception get_array_length get_arraybuffer_info
 * get_boolean get_cb_info get_dataview_info get_global get_instance_data get_last_error_info
 * get_new_target get_null get_reference_value get_typedarray_info get_undefined
 * get_value_bigint_int64 get_value_bool get_value_double get_value_int32 get_value_int64
 * get_value_string_utf16 get_value_string_utf8 get_value_uint32 is_array is_arraybuffer
 * is_dataview is_date is_exception_pending is_typedarray open_escapable_handle_scope
 * open_handle_scope queue_async_work remove_env_cleanup_hook set_instance_data typeof */

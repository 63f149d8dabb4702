// values.cc - raw napi_* calls: each value of a bulk write passes through here.
#include "values.h"

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>

// ---- arena --------------------------------------------------------------------------------------

struct Arena::Chunk {
  Chunk *next;
  size_t size; // of data
  max_align_t data[1];
};

static const size_t FIRST_CHUNK = 512, LARGEST_CHUNK = 1 << 20;
static const size_t KEPT_CHUNK = 32 << 10, KEPT_BYTES = 2 << 20;

// Large chunks that a thread keeps for its next calls. The system would take them back with every
// call that has a thousand rows, and give each page anew, zeroed, when it is touched: a sixth of
// such a call.
struct Arena::Kept {
  Chunk *chunks = nullptr;
  size_t bytes = 0;
  ~Kept() {
    while (Chunk *chunk = chunks) {
      chunks = chunk->next;
      free(chunk);
    }
  }
  bool put(Chunk *chunk) {
    if (chunk->size < KEPT_CHUNK || bytes + chunk->size > KEPT_BYTES) return false;
    chunk->next = chunks;
    chunks = chunk;
    bytes += chunk->size;
    return true;
  }
  Chunk *take(size_t size) { // at least as large; nullptr: there is none
    for (Chunk **at = &chunks; size >= KEPT_CHUNK && *at; at = &(*at)->next) {
      Chunk *chunk = *at;
      if (chunk->size < size) continue;
      *at = chunk->next;
      bytes -= chunk->size;
      return chunk;
    }
    return nullptr;
  }
};
thread_local Arena::Kept Arena::kept_;

Arena::~Arena() {
  while (Chunk *chunk = chunks_) {
    chunks_ = chunk->next;
    if (!kept_.put(chunk)) free(chunk);
  }
}

// A new chunk with room for `least` bytes. What was left of the last one is given up.
bool Arena::grow(size_t least) {
  size_t size = bytes_ < FIRST_CHUNK     ? FIRST_CHUNK
                : bytes_ > LARGEST_CHUNK ? LARGEST_CHUNK
                                         : bytes_;
  if (size < least) size = least;
  if (size > SIZE_MAX - sizeof(Chunk)) return false;
  Chunk *chunk = kept_.take(size);
  if (!chunk) {
    chunk = static_cast<Chunk *>(malloc(offsetof(Chunk, data) + size));
    if (!chunk) return false;
    chunk->size = size;
  }
  size = chunk->size;
  chunk->next = chunks_;
  chunks_ = chunk;
  at_ = reinterpret_cast<char *>(chunk->data);
  end_ = at_ + size;
  bytes_ += size;
  return true;
}

void *Arena::take(size_t size) {
  if (size == 0) size = 1; // never nullptr for nothing
  size_t align = alignof(max_align_t),
         padding = (align - reinterpret_cast<uintptr_t>(at_) % align) % align;
  if (static_cast<size_t>(end_ - at_) < padding || end_ - at_ - padding < size) {
    if (!grow(size)) return nullptr;
    padding = 0;
  }
  void *taken = at_ + padding;
  at_ += padding + size;
  return taken;
}

bool Arena::reserve(size_t size) {
  return static_cast<size_t>(end_ - at_) >= size || grow(size);
}

char *Arena::copy(const char *text) {
  size_t size = strlen(text) + 1;
  void *taken = take(size);
  return taken ? static_cast<char *>(memcpy(taken, text, size)) : nullptr;
}

// One call for most strings: straight into what is left of the chunk. Only a string that may have
// been cut there is measured, and read again into a chunk that holds it.
char *Arena::string(napi_env env, napi_value value, size_t *len) {
  size_t room = static_cast<size_t>(end_ - at_), longest_character = 4;
  if (room > longest_character) {
    if (napi_get_value_string_utf8(env, value, at_, room, len) != napi_ok) return nullptr;
    if (*len < room - longest_character) {
      char *text = at_;
      at_ += *len + 1;
      return text;
    }
  }
  if (napi_get_value_string_utf8(env, value, nullptr, 0, len) != napi_ok) return nullptr;
  if (static_cast<size_t>(end_ - at_) <= *len && !grow(*len + 1)) return nullptr;
  char *text = at_;
  if (napi_get_value_string_utf8(env, value, text, *len + 1, len) != napi_ok) return nullptr;
  at_ += *len + 1;
  return text;
}

// ---- JavaScript to C ----------------------------------------------------------------------------

static const double MAX_SAFE_INTEGER = 9007199254740991.0;

static void read_number(double number, replic_value *out) {
  bool integral = std::fabs(number) <= MAX_SAFE_INTEGER && number == std::trunc(number);
  if (integral && !(number == 0 && std::signbit(number))) {
    out->type = REPLIC_INT;
    out->i = static_cast<int64_t>(number);
  } else {
    out->type = std::isnan(number) ? REPLIC_NULL : REPLIC_REAL;
    out->d = number;
  }
}

// The memory behind a Uint8Array, ArrayBuffer or DataView; false for any other object.
static bool find_bytes(napi_env env, napi_value value, void **data, size_t *len) {
  bool is = false;
  napi_typedarray_type type;
  if (napi_is_typedarray(env, value, &is) == napi_ok && is)
    return napi_get_typedarray_info(env, value, &type, len, data, nullptr, nullptr) == napi_ok &&
           type == napi_uint8_array;
  if (napi_is_arraybuffer(env, value, &is) == napi_ok && is)
    return napi_get_arraybuffer_info(env, value, data, len) == napi_ok;
  if (napi_is_dataview(env, value, &is) == napi_ok && is)
    return napi_get_dataview_info(env, value, len, data, nullptr, nullptr) == napi_ok;
  return false;
}

static Reading read_blob(napi_env env, napi_value value, Arena &arena, replic_value *out) {
  void *data = nullptr;
  if (!find_bytes(env, value, &data, &out->len)) return Reading::wrong_type;
  void *copy = arena.take(out->len);
  if (!copy) return Reading::no_memory;
  if (out->len) memcpy(copy, data, out->len);
  out->type = REPLIC_BLOB;
  out->data = copy;
  return Reading::ok;
}

Reading read_value(napi_env env, napi_value value, Arena &arena, replic_value *out) {
  napi_valuetype type;
  *out = replic_value();
  if (napi_typeof(env, value, &type) != napi_ok) return Reading::wrong_type;
  switch (type) {
  case napi_undefined: out->type = REPLIC_UNSET; return Reading::ok;
  case napi_null: out->type = REPLIC_NULL; return Reading::ok;
  case napi_number: {
    double number;
    napi_get_value_double(env, value, &number);
    read_number(number, out);
    return Reading::ok;
  }
  case napi_string:
    out->type = REPLIC_TEXT;
    out->data = arena.string(env, value, &out->len);
    return out->data ? Reading::ok : Reading::no_memory;
  case napi_boolean: {
    bool truth;
    napi_get_value_bool(env, value, &truth);
    out->type = REPLIC_INT;
    out->i = truth;
    return Reading::ok;
  }
  case napi_bigint: {
    bool lossless;
    out->type = REPLIC_INT;
    napi_get_value_bigint_int64(env, value, &out->i, &lossless);
    return lossless ? Reading::ok : Reading::out_of_range;
  }
  case napi_object: return read_blob(env, value, arena, out);
  default: return Reading::wrong_type;
  }
}

// ---- packed values ------------------------------------------------------------------------------

// As in lib/base/rows.js.
enum Kind : uint8_t { KIND_LISTED, KIND_UNSET, KIND_NULL, KIND_NUMBER, KIND_TEXT };

bool ValueList::open(napi_env env, napi_value list) {
  bool is_array = false;
  napi_is_array(env, list, &is_array);
  if (!is_array) return open_packed(env, list);
  list_ = list;
  return napi_get_array_length(env, list, &count_) == napi_ok;
}

static bool not_packed(napi_env env) {
  napi_throw_type_error(env, nullptr, "the values of a change must be an array, or packed");
  return false;
}

// { kinds, numbers, texts, listed }: a Uint8Array and a Float64Array with an entry per value, an
// Array of strings that have many texts each, a NUL behind each, and an Array of what is neither.
// What of numbers belongs to a text is its length in units of UTF-16, which are bytes where all is
// ASCII.
bool ValueList::open_packed(napi_env env, napi_value packed) {
  napi_value kinds, numbers;
  napi_typedarray_type type_of_kinds, type_of_numbers;
  size_t n_kinds, n_numbers;
  void *data_of_kinds, *data_of_numbers;
  if (napi_get_named_property(env, packed, "kinds", &kinds) != napi_ok ||
      napi_get_named_property(env, packed, "numbers", &numbers) != napi_ok ||
      napi_get_named_property(env, packed, "texts", &texts_) != napi_ok ||
      napi_get_named_property(env, packed, "listed", &list_) != napi_ok ||
      napi_get_typedarray_info(env, kinds, &type_of_kinds, &n_kinds, &data_of_kinds, nullptr,
                               nullptr) != napi_ok ||
      napi_get_typedarray_info(env, numbers, &type_of_numbers, &n_numbers, &data_of_numbers,
                               nullptr, nullptr) != napi_ok ||
      type_of_kinds != napi_uint8_array || type_of_numbers != napi_float64_array ||
      n_kinds != n_numbers || n_kinds > UINT32_MAX)
    return not_packed(env);
  count_ = static_cast<uint32_t>(n_kinds);
  kinds_ = static_cast<const uint8_t *>(data_of_kinds);
  numbers_ = static_cast<const double *>(data_of_numbers);
  return true;
}

// Each character is one unit, but those of four bytes, which are two.
static const char *skip_units(const char *at, const char *end, size_t units) {
  while (units > 0 && at < end) {
    unsigned char lead = static_cast<unsigned char>(*at);
    size_t bytes = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (static_cast<size_t>(end - at) < bytes) return end;
    at += bytes;
    units -= bytes == 4 && units > 1 ? 2 : 1;
  }
  return at;
}

Reading ValueList::next_texts(napi_env env, Arena &arena) {
  napi_value texts;
  size_t units, len;
  const size_t beyond = 8; // what Arena::string() wants to see free behind a text
  if (napi_get_element(env, texts_, n_texts_++, &texts) != napi_ok ||
      napi_get_value_string_utf16(env, texts, nullptr, 0, &units) != napi_ok)
    return Reading::wrong_type;
  text_ = arena.reserve(units + beyond) ? arena.string(env, texts, &len) : nullptr;
  if (!text_) return Reading::no_memory;
  text_end_ = text_ + len;
  is_ascii_ = len == units;
  return Reading::ok;
}

Reading ValueList::next_text(napi_env env, Arena &arena, double number, replic_value *out) {
  if (text_ == text_end_) {
    Reading reading = next_texts(env, arena);
    if (reading != Reading::ok) return reading;
  }
  size_t left = static_cast<size_t>(text_end_ - text_);
  if (!(number >= 0 && number < static_cast<double>(left))) return Reading::wrong_type;
  size_t units = static_cast<size_t>(number);
  const char *end = is_ascii_ ? text_ + units : skip_units(text_, text_end_, units);
  if (end >= text_end_ || *end) return Reading::wrong_type;
  out->type = REPLIC_TEXT;
  out->data = text_;
  out->len = static_cast<size_t>(end - text_);
  text_ = end + 1;
  return Reading::ok;
}

Reading ValueList::next(napi_env env, Arena &arena, replic_value *out, napi_value *value) {
  uint32_t at = at_++;
  *out = replic_value();
  switch (kinds_ ? kinds_[at] : static_cast<uint8_t>(KIND_LISTED)) {
  case KIND_UNSET: out->type = REPLIC_UNSET; return Reading::ok;
  case KIND_NULL: out->type = REPLIC_NULL; return Reading::ok;
  case KIND_NUMBER: read_number(numbers_[at], out); return Reading::ok;
  case KIND_TEXT: *value = list_; return next_text(env, arena, numbers_[at], out);
  default: break;
  }
  if (napi_get_element(env, list_, listed_++, value) != napi_ok) {
    *value = list_;
    return Reading::wrong_type;
  }
  return read_value(env, *value, arena, out);
}

static const char *type_name(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  bool is = false;
  napi_typeof(env, value, &type);
  switch (type) {
  case napi_undefined: return "undefined";
  case napi_function: return "function";
  case napi_symbol: return "symbol";
  default: break;
  }
  if (napi_is_array(env, value, &is) == napi_ok && is) return "Array";
  if (napi_is_date(env, value, &is) == napi_ok && is) return "Date";
  if (napi_is_typedarray(env, value, &is) == napi_ok && is)
    return "typed array other than Uint8Array";
  return "object";
}

bool refuse_value(napi_env env, Reading reading, napi_value value, const char *where,
                  Failure &failure) {
  if (reading == Reading::no_memory) return failure.set_no_memory();
  if (reading == Reading::out_of_range)
    return failure.set(REPLIC_ERANGE, "%s: the bigint is beyond 64 bits (-2^63 to 2^63 - 1)",
                       where);
  return failure.set(
      REPLIC_EUSAGE,
      "%s: a value of type %s cannot be taken; give null, a number, bigint, boolean, "
      "string or Uint8Array",
      where, type_name(env, value));
}

bool is_true(napi_env env, napi_value value) {
  bool truth = false;
  return napi_get_value_bool(env, value, &truth) == napi_ok && truth;
}

double number_or_0(napi_env env, napi_value value) {
  double number;
  return napi_get_value_double(env, value, &number) == napi_ok ? number : 0;
}

uint32_t ticket_of(napi_env env, napi_value value) {
  uint32_t ticket;
  return napi_get_value_uint32(env, value, &ticket) == napi_ok ? ticket : 0;
}

const char *read_string(napi_env env, napi_value value, const char *what, Arena &arena,
                        Failure &failure, size_t *len) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env, value, &type);
  if (type != napi_string) {
    std::string message = std::string(what) + " must be a string";
    napi_throw_type_error(env, nullptr, message.c_str());
    return nullptr;
  }
  size_t own_len;
  const char *text = arena.string(env, value, &own_len);
  if (!text) {
    failure.set_no_memory();
  } else if (len) {
    *len = own_len;
  } else if (strlen(text) != own_len) {
    failure.set(REPLIC_EUSAGE, "%s holds a NUL character", what);
    return nullptr;
  }
  return text;
}

// One parameter; `name` or, for positional ones, its number says which.
static bool read_param(napi_env env, napi_value value, const char *name, uint32_t number,
                       Arena &arena, Failure &failure, replic_param *param) {
  param->name = name;
  Reading reading = read_value(env, value, arena, &param->value);
  if (reading == Reading::ok && param->value.type == REPLIC_UNSET) reading = Reading::wrong_type;
  if (reading == Reading::ok) return true;
  std::string where = "parameter " + (name ? name : std::to_string(number));
  return refuse_value(env, reading, value, where.c_str(), failure);
}

bool read_params(napi_env env, napi_value value, Arena &arena, Failure &failure,
                 replic_param **params, size_t *n_params) {
  napi_valuetype type = napi_undefined;
  bool is_array = false;
  uint32_t count = 0;
  napi_value keys = nullptr;
  *params = nullptr;
  *n_params = 0;
  napi_typeof(env, value, &type);
  if (type == napi_undefined) return true;
  if (type != napi_object) {
    napi_throw_type_error(env, nullptr, "params must be an array or an object");
    return false;
  }
  napi_is_array(env, value, &is_array);
  if (!is_array && napi_get_all_property_names(
                       env, value, napi_key_own_only,
                       static_cast<napi_key_filter>(napi_key_enumerable | napi_key_skip_symbols),
                       napi_key_numbers_to_strings, &keys) != napi_ok)
    return false;
  if (napi_get_array_length(env, is_array ? value : keys, &count) != napi_ok) return false;
  *params = arena.array<replic_param>(count);
  if (!*params) return failure.set_no_memory();
  for (uint32_t i = 0; i < count; i++) {
    Napi::HandleScope scope(env);
    napi_value key = nullptr, item;
    const char *name = nullptr;
    if (keys) {
      if (napi_get_element(env, keys, i, &key) != napi_ok) return false;
      name = read_string(env, key, "the name of a parameter", arena, failure, nullptr);
      if (!name) return false;
    }
    napi_status got =
        keys ? napi_get_property(env, value, key, &item) : napi_get_element(env, value, i, &item);
    if (got != napi_ok) return false;
    if (!read_param(env, item, name, i + 1, arena, failure, &(*params)[i])) return false;
  }
  *n_params = count;
  return true;
}

// ---- C to JavaScript ----------------------------------------------------------------------------

static const int64_t MAX_SAFE = 9007199254740991;

napi_value integer_to_js(napi_env env, int64_t value) {
  napi_value result = nullptr;
  if (value < -MAX_SAFE || value > MAX_SAFE)
    napi_create_bigint_int64(env, value, &result);
  else
    napi_create_int64(env, value, &result);
  return result;
}

static napi_value bytes_to_js(napi_env env, const void *data, size_t len) {
  void *copy = nullptr;
  napi_value buffer, result = nullptr;
  if (napi_create_arraybuffer(env, len, &copy, &buffer) != napi_ok) return nullptr;
  if (len) memcpy(copy, data, len);
  napi_create_typedarray(env, napi_uint8_array, len, buffer, 0, &result);
  return result;
}

napi_value value_to_js(napi_env env, const replic_value &value, bool big_ints) {
  napi_value result = nullptr;
  switch (value.type) {
  case REPLIC_INT:
    if (big_ints)
      napi_create_bigint_int64(env, value.i, &result);
    else if (value.i >= -MAX_SAFE && value.i <= MAX_SAFE)
      napi_create_int64(env, value.i, &result);
    break;
  case REPLIC_REAL: napi_create_double(env, value.d, &result); break;
  case REPLIC_TEXT:
    napi_create_string_utf8(env, static_cast<const char *>(value.data), value.len, &result);
    break;
  case REPLIC_BLOB: result = bytes_to_js(env, value.data, value.len); break;
  default: napi_get_null(env, &result); break;
  }
  return result;
}

#include "write_jobs.h"

#include <cstring>

#include <sqlite3.h>

// ---- open ---------------------------------------------------------------------------------------

void Sources::read(replic *core, Arena &arena) {
  const replic_position *all = replic_unchecked(core, &n_);
  at_ = arena.array<replic_position>(n_ + 1);
  if (!at_) n_ = 0; // the next look has them
  if (n_) memcpy(at_, all, n_ * sizeof *at_);
}

Napi::Array Sources::to_js(Napi::Env env) const {
  Napi::Array sources = Napi::Array::New(env, n_);
  for (uint32_t i = 0; i < n_; i++) sources.Set(i, Napi::Number::New(env, at_[i].origin));
  return sources;
}

void OpenJob::run(Batch &batch) {
  State &state = *batch.state;
  replic *core = nullptr;
  int code = replic_open(&state.config, wall_clock_ms(), &core);
  if (code != REPLIC_OK) {
    failure.set(code, "%s", replic_error_text(core));
    replic_close(core);
    return;
  }
  state.set_core(core);
  replic_on_steps(
      core,
      [](void *data, int is_sql) -> int {
        State *watched = static_cast<State *>(data);
        return watched->writer.watch.must_stop(*watched, is_sql);
      },
      &state);
  state.file_id = replic_file_id(core);
  peer_id_ = replic_peer_id(core);
  is_new_peer_ = replic_is_new_peer(core);
  n_vector_ = replic_vector_count(core);
  vector_ = arena.array<replic_position>(n_vector_);
  if (!vector_ || !tables_.read(core) || !state.writer.told.tables.copy(tables_)) {
    failure.set_no_memory();
    return state.close_core();
  }
  pending_.read(core, arena);
  stuck_.read(core, arena);
  if (n_vector_) memcpy(vector_, replic_vector(core), n_vector_ * sizeof *vector_);
  const replic_position *lost = replic_lost(core, &n_lost_);
  lost_ = arena.array<replic_position>(n_lost_);
  if (!lost_) n_lost_ = 0;
  if (n_lost_) memcpy(lost_, lost, n_lost_ * sizeof *lost_);
  sources_.read(core, arena);
}

void OpenJob::done(State &state) {
  if (failure)
    state.end_life();
  else if (state.phase == Phase::opening)
    state.phase = Phase::open;
}

napi_value OpenJob::result(napi_env env) {
  Napi::Object result = Napi::Object::New(env);
  Napi::Array vector = Napi::Array::New(env, n_vector_ * 3);
  for (uint32_t i = 0; i < n_vector_; i++) {
    vector.Set(i * 3, Napi::Number::New(env, vector_[i].origin));
    vector.Set(i * 3 + 1, Napi::Number::New(env, static_cast<double>(vector_[i].sequence)));
    vector.Set(i * 3 + 2, Napi::Number::New(env, static_cast<double>(vector_[i].patched_at)));
  }
  result.Set("peerId", Napi::Number::New(env, peer_id_));
  result.Set("isNewPeer", is_new_peer_);
  result.Set("tables", tables_.to_js(env));
  result.Set("vector", vector);
  Napi::Array lost = Napi::Array::New(env, n_lost_ * 2);
  for (uint32_t i = 0; i < n_lost_; i++) {
    lost.Set(i * 2, Napi::Number::New(env, lost_[i].origin));
    lost.Set(i * 2 + 1, Napi::Number::New(env, static_cast<double>(lost_[i].sequence)));
  }
  result.Set("lost", lost);
  result.Set("unchecked", sources_.to_js(env));
  result.Set("pending", pending_.to_js(env));
  result.Set("stuck", stuck_.to_js(env));
  return result;
}

// ---- changes ------------------------------------------------------------------------------------

static const uint32_t ITEMS_PER_CHANGE = 4, HANDLES_PER_SCOPE = 1024;

static bool throw_type_error(napi_env env, const char *message) {
  napi_throw_type_error(env, nullptr, message);
  return false;
}

static bool array_length(napi_env env, napi_value value, const char *what, uint32_t *len) {
  bool is_array = false;
  napi_is_array(env, value, &is_array);
  if (is_array) return napi_get_array_length(env, value, len) == napi_ok;
  std::string message = std::string(what) + " must be an array";
  return throw_type_error(env, message.c_str());
}

bool ChangeJob::given(const Napi::CallbackInfo &info) {
  napi_env env = info.Env();
  uint32_t count;
  if (!array_length(env, info[0], "ops", &count)) return false;
  if (count % ITEMS_PER_CHANGE)
    return throw_type_error(env, "ops must be [kind, table, columns, values, ...]");
  changes_ = arena.array<replic_change>(count / ITEMS_PER_CHANGE);
  if (!changes_) return failure.set_no_memory();
  for (uint32_t at = 0; at < count; at += ITEMS_PER_CHANGE, n_changes_++)
    if (!read_change(env, info[0], at, &changes_[n_changes_])) return false;
  return true;
}

bool ChangeJob::read_change(napi_env env, napi_value ops, uint32_t at, replic_change *change) {
  Napi::HandleScope scope(env);
  napi_value items[ITEMS_PER_CHANGE];
  uint32_t kind = 0;
  for (uint32_t i = 0; i < ITEMS_PER_CHANGE; i++)
    if (napi_get_element(env, ops, at + i, &items[i]) != napi_ok) return false;
  if (napi_get_value_uint32(env, items[0], &kind) != napi_ok || kind > REPLIC_DELETE)
    return throw_type_error(env, "the kind of a change must be 0 or 1");
  change->kind = static_cast<int>(kind);
  change->table = read_string(env, items[1], "the name of a table", arena, failure, nullptr);
  return change->table && read_columns(env, items[2], change) && read_rows(env, items[3], change);
}

// An array of names, or the same ones in one string with NULs between: a crossing instead of one
// for each, where lib knows that they are names of columns.
bool ChangeJob::read_columns(napi_env env, napi_value columns, replic_change *change) {
  napi_valuetype type = napi_undefined;
  uint32_t count;
  napi_typeof(env, columns, &type);
  if (type == napi_string) return split_columns(env, columns, change);
  if (!array_length(env, columns, "the columns of a change", &count)) return false;
  if (count == 0) return throw_type_error(env, "a change must have columns");
  const char **names = arena.array<const char *>(count);
  if (!names) return failure.set_no_memory();
  for (uint32_t i = 0; i < count; i++) {
    Napi::HandleScope scope(env);
    napi_value name;
    if (napi_get_element(env, columns, i, &name) != napi_ok) return false;
    names[i] = read_string(env, name, "the name of a column", arena, failure, nullptr);
    if (!names[i]) return false;
  }
  change->n_columns = count;
  change->columns = names;
  return true;
}

bool ChangeJob::split_columns(napi_env env, napi_value columns, replic_change *change) {
  size_t len, count = 1;
  const char *at = read_string(env, columns, "the columns of a change", arena, failure, &len);
  if (!at) return false;
  for (size_t i = 0; i < len; i++) count += at[i] == 0;
  const char **names = arena.array<const char *>(count);
  if (!names) return failure.set_no_memory();
  for (size_t i = 0; i < count; i++, at += strlen(at) + 1) names[i] = at;
  change->n_columns = count;
  change->columns = names;
  return true;
}

bool ChangeJob::read_rows(napi_env env, napi_value list, replic_change *change) {
  ValueList values;
  if (!values.open(env, list)) return false;
  uint32_t count = values.count(), n_columns = static_cast<uint32_t>(change->n_columns);
  if (count % n_columns) return throw_type_error(env, "a change must have whole rows");
  replic_value *out = arena.array<replic_value>(count);
  if (!out) return failure.set_no_memory();
  change->n_rows = count / n_columns;
  change->values = out;
  for (uint32_t i = 0; i < count;) {
    Napi::HandleScope scope(env); // one for many values: opening it costs as much as reading one
    for (uint32_t end = i + HANDLES_PER_SCOPE; i < end && i < count; i++) {
      napi_value value;
      Reading reading = values.next(env, arena, &out[i], &value);
      if (reading == Reading::ok) continue;
      std::string where = std::string(change->table) + "." + change->columns[i % n_columns] +
                          " in row " + std::to_string(i / n_columns);
      return refuse_value(env, reading, value, where.c_str(), failure);
    }
  }
  return true;
}

void ChangeJob::run(Batch &batch) {
  check(batch, replic_write(batch.state->writer.core, changes_, n_changes_, &sequence_));
}

napi_value ChangeJob::result(napi_env env) {
  return integer_to_js(env, sequence_);
}

// ---- SQL ----------------------------------------------------------------------------------------

bool RunJob::given(const Napi::CallbackInfo &info) {
  unsafe_ = is_true(info.Env(), info[2]);
  ticket = ticket_of(info.Env(), info[3]);
  return statement_.given(info, *this);
}

bool ExecJob::given(const Napi::CallbackInfo &info) {
  unsafe_ = is_true(info.Env(), info[1]);
  ticket = ticket_of(info.Env(), info[2]);
  return statement_.given_sql(info, *this);
}

void SqlJob::run(Batch &batch) {
  batch.report.tables_changed = true; // perhaps: they are compared after the commit
  if (!begin_sql(batch)) return;
  const Statement &s = statement_;
  check(batch, replic_run(batch.state->writer.core, s.sql, s.len, many_, unsafe_, s.params,
                          s.n_params, &changes_, &rowid_));
  batch.state->writer.watch.end(*batch.state);
}

napi_value SqlJob::result(napi_env env) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("changes", integer_to_js(env, changes_));
  if (!many_) result.Set("lastInsertRowid", integer_to_js(env, rowid_));
  return result;
}

// ---- schema -------------------------------------------------------------------------------------

TextJob::~TextJob() {
  sqlite3_free(text_);
}

bool TextJob::given(const Napi::CallbackInfo &info) {
  table_ = read_string(info.Env(), info[0], "table", arena, failure, nullptr);
  return table_;
}

void TextJob::run(Batch &batch) {
  check(batch, call_(batch.state->writer.core, table_, &text_));
}

napi_value TextJob::result(napi_env env) {
  return Napi::String::New(env, text_);
}

// ---- retention ----------------------------------------------------------------------------------

bool CompactJob::given(const Napi::CallbackInfo &info) {
  napi_env env = info.Env();
  if (napi_get_value_int64(env, info[0], &older_than_ms_) != napi_ok)
    return throw_type_error(env, "olderThanMs must be a number");
  if (napi_get_value_int64(env, info[1], &max_patches_) != napi_ok || max_patches_ < 1)
    return throw_type_error(env, "maxPatches must be a number above 0");
  return true;
}

void CompactJob::run(Batch &batch) {
  check(batch, replic_compact(batch.state->writer.core, older_than_ms_, max_patches_, &outcome_));
  if (outcome_.examined) batch.report.tables_changed = true; // what is pending, perhaps
}

napi_value CompactJob::result(napi_env env) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("examined", integer_to_js(env, outcome_.examined));
  result.Set("removed", integer_to_js(env, outcome_.removed));
  result.Set("done", outcome_.done != 0);
  return result;
}

bool ForgetJob::given(const Napi::CallbackInfo &info) {
  napi_env env = info.Env();
  if (napi_get_value_int32(env, info[0], &what_) != napi_ok || what_ < REPLIC_FORGET_FORKS ||
      what_ > REPLIC_FORGET_LOST)
    return throw_type_error(env, "what must be 0, 1, 2 or 3");
  if (napi_get_value_uint32(env, info[1], &peer_) != napi_ok)
    return throw_type_error(env, "peerId must be a number");
  if (napi_get_value_int64(env, info[2], &after_) != napi_ok)
    return throw_type_error(env, "after must be a number");
  return true;
}

void ForgetJob::run(Batch &batch) {
  check(batch, replic_forget(batch.state->writer.core, what_, peer_, after_, &forgotten_));
  if (forgotten_) batch.report.tables_changed = true; // what is pending, perhaps
}

napi_value ForgetJob::result(napi_env env) {
  return integer_to_js(env, forgotten_);
}

// ---- statistics ---------------------------------------------------------------------------------

OptimizeJob::~OptimizeJob() {
  sqlite3_free(done_);
}

bool OptimizeJob::given(const Napi::CallbackInfo &info) {
  after_ = read_string(info.Env(), info[0], "after", arena, failure, nullptr);
  return after_;
}

void OptimizeJob::run(Batch &batch) {
  check(batch, replic_optimize(batch.state->writer.core, after_, &done_));
}

napi_value OptimizeJob::result(napi_env env) {
  return done_ ? Napi::Value(Napi::String::New(env, done_)) : Napi::Env(env).Null();
}

bool AnnouncedJob::given(const Napi::CallbackInfo &info) {
  return napi_get_value_uint32(info.Env(), info[0], &origin_) == napi_ok ||
         throw_type_error(info.Env(), "origin must be a number");
}

void AnnouncedJob::run(Batch &batch) {
  most_ = replic_announced(batch.state->writer.core, origin_);
}

napi_value AnnouncedJob::result(napi_env env) {
  return integer_to_js(env, most_);
}

// ---- jumps that are looked at once more ---------------------------------------------------------

bool RecheckedJob::given(const Napi::CallbackInfo &info) {
  if (napi_get_value_uint32(info.Env(), info[0], &peer_) != napi_ok)
    return throw_type_error(info.Env(), "peerId must be a number");
  return napi_get_value_bool(info.Env(), info[1], &equal_) == napi_ok ||
         throw_type_error(info.Env(), "equal must be a boolean");
}

void RecheckedJob::run(Batch &batch) {
  replic *core = batch.state->writer.core;
  if (peer_) check(batch, replic_rechecked(core, peer_, equal_));
  sources_.read(core, arena);
}

napi_value RecheckedJob::result(napi_env env) {
  return sources_.to_js(env);
}

// ---- close --------------------------------------------------------------------------------------

void FlushJob::run(Batch &batch) {
  batch.state->writer.tell_links = true;
}

void CloseJob::run(Batch &batch) {
  const replic_position *all = replic_unacknowledged(batch.state->writer.core, &n_unacknowledged_);
  unacknowledged_ = all ? arena.array<replic_position>(n_unacknowledged_ + 1) : nullptr;
  if (!unacknowledged_)
    failure.set_no_memory();
  else if (n_unacknowledged_)
    memcpy(unacknowledged_, all, n_unacknowledged_ * sizeof *all);
  batch.state->reads.close();
  batch.state->checkpoints.close(*batch.state);
  batch.state->close_core();
}

void CloseJob::done(State &state) {
  if (state.phase != Phase::closed) state.end_life(); // unless open has failed
}

napi_value CloseJob::result(napi_env env) {
  Napi::Array result = Napi::Array::New(env, n_unacknowledged_ * 2);
  for (uint32_t i = 0; i < n_unacknowledged_; i++) {
    result.Set(i * 2, Napi::Number::New(env, unacknowledged_[i].origin));
    result.Set(i * 2 + 1, integer_to_js(env, unacknowledged_[i].sequence));
  }
  return result;
}

// ---- links --------------------------------------------------------------------------------------

void LinkOpenJob::run(Batch &batch) {
  batch.report.links_changed = true;
  check(batch, replic_link_open(batch.state->writer.core, link_, expected_, only_reads_));
}

void LinkCloseJob::run(Batch &batch) {
  batch.report.links_changed = true;
  replic_link_close(batch.state->writer.core, link_);
}

bool BytesJob::copy(const void *bytes, size_t len) {
  void *taken = arena.take(len);
  if (!taken) return false;
  if (len) memcpy(taken, bytes, len);
  bytes_ = static_cast<const uint8_t *>(taken);
  len_ = len;
  return true;
}

void ReceiveJob::run(Batch &batch) {
  batch.report.drained = true;
  check(batch, replic_receive(batch.state->writer.core, link_, bytes_, len_));
}

void MessageJob::run(Batch &batch) {
  int code = replic_link_message(batch.state->writer.core, link_, bytes_, len_);
  if (code != REPLIC_ENOTFOUND) check(batch, code); // else the link is gone: lost on its way
}

void TickJob::run(Batch &batch) {
  batch.report.links_changed = true;
  check(batch, replic_tick(batch.state->writer.core));
}

void TickJob::done(State &state) {
  state.tick_waits = false;
}

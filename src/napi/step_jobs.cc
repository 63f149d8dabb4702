#include "step_jobs.h"

#include <cstring>

// ---- the transaction ----------------------------------------------------------------------------

// What waits may run now. Batch::finish has looked for it before this was known.
static void go_on(State &state) {
  state.migrating = false;
  state.pump();
}

void MigrationBeginJob::run(Batch &batch) {
  check(batch, replic_begin_now(batch.state->writer.core, wall_clock_ms()));
}

void MigrationBeginJob::done(State &state) {
  if (failure) go_on(state);
}

bool MigrationEndJob::given(const Napi::CallbackInfo &info) {
  commit_ = is_true(info.Env(), info[0]);
  return true;
}

void MigrationEndJob::run(Batch &batch) {
  replic *core = batch.state->writer.core;
  batch.report.tables_changed = true;
  if (commit_)
    check(batch, replic_commit(core));
  else
    replic_rollback(core);
  if (!failure && !tables_.read(core)) failure.set_no_memory();
}

void MigrationEndJob::done(State &state) {
  go_on(state);
}

napi_value MigrationEndJob::result(napi_env env) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("tables", tables_.to_js(env));
  return result;
}

// ---- a step -------------------------------------------------------------------------------------

bool StepBeginJob::given(const Napi::CallbackInfo &info) {
  napi_env env = info.Env();
  if (napi_get_value_int32(env, info[0], &step_.kind) != napi_ok ||
      napi_get_value_int64(env, info[1], &step_.version) != napi_ok) {
    napi_throw_type_error(env, nullptr, "kind and version must be numbers");
    return false;
  }
  const char **const texts[] = {&step_.up, &step_.down, &step_.name, &step_.hash, &step_.renames};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    *texts[i] = read_string(env, info[i + 2], "a text of a migration", arena, failure, nullptr);
    if (!*texts[i]) return false;
  }
  return true;
}

void StepBeginJob::run(Batch &batch) {
  check(batch, replic_step_begin(batch.state->writer.core, &step_));
}

void StepEndJob::run(Batch &batch) {
  check(batch, replic_step_end(batch.state->writer.core));
}

// ---- SQL ----------------------------------------------------------------------------------------

bool StepRunJob::given(const Napi::CallbackInfo &info) {
  all_ = is_true(info.Env(), info[2]);
  ticket = ticket_of(info.Env(), info[3]);
  return statement_.given(info, *this);
}

void StepRunJob::run(Batch &batch) {
  if (!begin_sql(batch)) return;
  const Statement &s = statement_;
  check(batch, replic_step_run(batch.state->writer.core, s.sql, s.len, all_, s.params, s.n_params,
                               &changes_, &rowid_));
  batch.state->writer.watch.end(*batch.state);
}

bool StepReadJob::given(const Napi::CallbackInfo &info) {
  first_ = is_true(info.Env(), info[2]);
  big_ints_ = is_true(info.Env(), info[3]);
  ticket = ticket_of(info.Env(), info[4]);
  return statement_.given(info, *this);
}

void StepReadJob::run(Batch &batch) {
  if (!begin_sql(batch)) return;
  const Statement &s = statement_;
  if (check(batch, replic_step_read(batch.state->writer.core, s.sql, s.len, s.params, s.n_params,
                                    first_ ? 1 : SIZE_MAX, &rows_)))
    take_names(arena, failure);
  batch.state->writer.watch.end(*batch.state);
}

napi_value StepReadJob::result(napi_env env) {
  return rows_to_js(env, failure);
}

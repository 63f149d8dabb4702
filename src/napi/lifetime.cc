#include "lifetime.h"

#include <chrono>

#include "env.h"

static const auto INTERRUPT_AGAIN = std::chrono::milliseconds(20);

Lifetime::Lifetime(napi_env owner, const std::string &file, const replic_config &options,
                   const Limits &limit)
    : env(owner), path(file), config(options), limits(limit) {
  config.path = path.c_str();
}

bool Lifetime::begin() {
  // Before the hook: they run in the opposite order, and what runs until then may call it.
  if (!make_waker()) return false;
  if (napi_add_env_cleanup_hook(env, teardown, this) != napi_ok) {
    napi_release_threadsafe_function(waker_, napi_tsfn_abort);
    return false;
  }
  retain();
  return true;
}

void Lifetime::end() {
  forget_callback();
  napi_remove_env_cleanup_hook(env, teardown, this);
  napi_release_threadsafe_function(waker_, napi_tsfn_abort);
  release();
}

bool Lifetime::make_waker() {
  napi_value name;
  auto forget = [](napi_env, void *life, void *) { static_cast<Lifetime *>(life)->release(); };
  if (napi_create_string_utf8(env, "replic", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, this, forget, this,
                                      call_woken, &waker_) != napi_ok)
    return false;
  retain();
  napi_unref_threadsafe_function(env, waker_);
  return true;
}

void Lifetime::call_woken(napi_env env, napi_value, void *data, void *) {
  Lifetime *life = static_cast<Lifetime *>(data);
  if (!env || life->dying) return;
  if (!can_call(env)) return life->die();
  life->woken();
}

void Lifetime::retain() {
  refs_++;
}

void Lifetime::release() {
  if (--refs_ == 0) delete this;
}

void Lifetime::tell(napi_value report) {
  napi_value callback, global;
  if (!on_batch) return;
  napi_get_reference_value(env, on_batch, &callback);
  napi_get_global(env, &global);
  napi_call_function(env, global, callback, 1, &report, nullptr);
}

void Lifetime::forget_callback() {
  if (on_batch) napi_delete_reference(env, on_batch);
  on_batch = nullptr;
}

void Lifetime::set_stopped(Failure &failure, Stop why) const {
  if (why == Stop::closing) failure.set_closing();
  if (why == Stop::gone) failure.set(gone);
  failure.set_stopped(); // unless it says more
}

void Lifetime::feel_pulse() {
  Napi::HandleScope scope(env);
  Napi::FunctionReference &pulse = addon_data(env).pulse;
  napi_value global, result;
  if (pulse.IsEmpty() || napi_get_global(env, &global) != napi_ok) return;
  if (napi_call_function(env, global, pulse.Value(), 0, nullptr, &result) != napi_ok) die();
}

void Lifetime::wake() {
  napi_call_threadsafe_function(waker_, nullptr, napi_tsfn_nonblocking);
}

void Lifetime::keep_loop(bool keep) {
  if (keep == keeps_loop_) return;
  keeps_loop_ = keep;
  if (keep)
    napi_ref_threadsafe_function(env, waker_);
  else
    napi_unref_threadsafe_function(env, waker_);
}

bool Lifetime::enter() {
  std::lock_guard<std::mutex> lock(mutex);
  if (dying) return false;
  running_++;
  return true;
}

void Lifetime::leave() {
  std::lock_guard<std::mutex> lock(mutex);
  if (--running_ == 0) left_.notify_all();
}

void Lifetime::die() {
  std::lock_guard<std::mutex> lock(mutex);
  dying = true;
  interrupt();
}

// The cleanup hook. Main thread, perhaps while Works run. An interrupt between two statements hits
// neither, hence again.
void Lifetime::teardown(void *data) {
  Lifetime *life = static_cast<Lifetime *>(data);
  {
    std::unique_lock<std::mutex> lock(life->mutex);
    life->dying = true;
    while (life->running_ > 0) {
      life->interrupt();
      life->left_.wait_for(lock, INTERRUPT_AGAIN);
    }
  }
  life->dispose();
  life->release();
}

// ---- promises -----------------------------------------------------------------------------------

bool settle(napi_env env, Job *job) {
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return false;
  napi_status status = napi_ok;
  if (job->deferred) {
    napi_value value = job->failure ? nullptr : job->result(env);
    if (value) {
      status = napi_resolve_deferred(env, job->deferred, value);
    } else {
      napi_value thrown; // what JavaScript cannot hold may have been thrown as well
      napi_get_and_clear_last_exception(env, &thrown);
      job->failure.set_no_memory(); // unless it says more
      status = napi_reject_deferred(env, job->deferred, job->failure.to_js(env));
    }
  }
  napi_close_handle_scope(env, scope);
  delete job;
  return status == napi_ok;
}

// ---- work ---------------------------------------------------------------------------------------

void Work::start() {
  napi_handle_scope scope;
  napi_value name;
  life->retain();
  napi_open_handle_scope(life->env, &scope);
  napi_status status = napi_create_string_utf8(life->env, "replic", NAPI_AUTO_LENGTH, &name);
  if (status == napi_ok)
    status = napi_create_async_work(life->env, nullptr, name, execute, complete, this, &handle_);
  if (status == napi_ok) status = napi_queue_async_work(life->env, handle_);
  napi_close_handle_scope(life->env, scope);
  if (status != napi_ok) complete(life->env, napi_cancelled, this); // the environment ends
}

void Work::execute(napi_env, void *data) {
  Work *work = static_cast<Work *>(data);
  if (!work->life->enter()) return work->skip();
  work->run();
  work->life->leave();
}

bool can_call(napi_env env) {
  napi_value undefined;
  bool equal;
  return napi_get_undefined(env, &undefined) == napi_ok &&
         napi_strict_equals(env, undefined, undefined, &equal) == napi_ok;
}

void Work::complete(napi_env env, napi_status status, void *data) {
  Work *work = static_cast<Work *>(data);
  Lifetime *life = work->life;
  if (work->handle_) napi_delete_async_work(env, work->handle_);
  if (status != napi_ok || (!life->dying && !can_call(env))) life->die();
  if (life->dying) {
    work->discard();
    delete work;
  } else {
    work->finish(env);
  }
  life->release();
}

#include "cursor.h"

#include <new>

#include "env.h"
#include "object.h"
#include "queue.h"
#include "read_jobs.h"

namespace {
// () -> undefined
struct CursorCloseJob : Void<ReadJob> {
  explicit CursorCloseJob(Reader *held) : cursor_(held) {}
  ~CursorCloseJob() override {
    cursor_->held = false;
  }
  bool may_be_refused() const override {
    return false;
  }
  void run(Reader &reader) override {
    reader.close();
  }

private:
  Reader *const cursor_; // held until here
};
} // namespace

const napi_type_tag Cursor::TAG = {0x5c1a3f0b7e2d4c61, 0x9d84e6f2130b7a55};

Napi::Function Cursor::define(Napi::Env env) {
  return DefineClass(env, "Cursor",
                     {
                         checked_method<Cursor, &Cursor::next>("next"),
                         checked_method<Cursor, &Cursor::read<QueryJob>>("query"),
                         checked_method<Cursor, &Cursor::read<SumStartJob>>("sumStart"),
                         checked_method<Cursor, &Cursor::read<SumJob>>("sum"),
                         checked_method<Cursor, &Cursor::read<BackupStartJob>>("backupStart"),
                         checked_method<Cursor, &Cursor::read<BackupCopyJob>>("backupCopy"),
                         checked_method<Cursor, &Cursor::read<BackupEndJob>>("backupEnd"),
                         checked_method<Cursor, &Cursor::close>("close"),
                     });
}

napi_value Cursor::make(napi_env env, const CursorParts &parts) {
  AddonData &data = addon_data(env);
  data.new_cursor = &parts;
  Napi::Value made = data.cursor_class.New({});
  bool taken = !data.new_cursor;
  data.new_cursor = nullptr;
  return taken ? static_cast<napi_value>(made) : nullptr;
}

Cursor::Cursor(const Napi::CallbackInfo &info) : Napi::ObjectWrap<Cursor>(info) {
  const CursorParts *&parts = addon_data(info.Env()).new_cursor;
  if (!parts) {
    Napi::TypeError::New(info.Env(), "a Cursor comes from cursorOpen").ThrowAsJavaScriptException();
    return;
  }
  info.This().As<Napi::Object>().TypeTag(&TAG);
  parts_ = *parts;
  parts = nullptr;
  state_ = parts_.state;
  state_->retain();
}

Cursor::~Cursor() {
  if (parts_.reader) parts_.reader->held = false;
  if (state_) state_->release();
}

Napi::Value Cursor::next(const Napi::CallbackInfo &info) {
  CursorNextJob *job = new (std::nothrow) CursorNextJob(parts_.big_ints);
  if (job) job->ticket = parts_.ticket;
  if (job) job->limit = parts_.limit;
  return submit(job, job && job->given(info));
}

template <typename J> Napi::Value Cursor::read(const Napi::CallbackInfo &info) {
  J *job = new (std::nothrow) J;
  return submit(job, job && job->given(info));
}

Napi::Value Cursor::submit(ReadJob *job, bool given) {
  Reader *reader = parts_.reader;
  if (given && !reader) job->failure.set(REPLIC_ECLOSED, "the cursor is closed");
  if (given && reader && reader->is_over) job->failure.set(state_->gone);
  return state_->submit<ReadJob>(job, given, reader ? reader->own : state_->reads.queue);
}

Napi::Value Cursor::close(const Napi::CallbackInfo &info) {
  Reader *reader = parts_.reader;
  if (!reader || state_->phase != Phase::open) return resolved_promise(info.Env());
  CursorCloseJob *job = new (std::nothrow) CursorCloseJob(reader);
  if (job) parts_.reader = nullptr; // the job holds it
  return state_->accept<ReadJob>(job, reader->own);
}

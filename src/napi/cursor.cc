#include "cursor.h"

#include <new>

#include "addon.h"
#include "object.h"
#include "queue.h"
#include "read_jobs.h"

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

napi_value Cursor::make(napi_env env, Reader *reader, bool big_ints) {
  AddonData &data = addon_data(env);
  data.new_cursor = reader;
  Napi::Value made = data.cursor_class.New({Napi::Boolean::New(env, big_ints)});
  bool taken = !data.new_cursor;
  data.new_cursor = nullptr;
  return taken ? static_cast<napi_value>(made) : nullptr;
}

Cursor::Cursor(const Napi::CallbackInfo &info) : Napi::ObjectWrap<Cursor>(info) {
  Reader *&reader = addon_data(info.Env()).new_cursor;
  if (!reader) {
    Napi::TypeError::New(info.Env(), "a Cursor comes from cursorOpen").ThrowAsJavaScriptException();
    return;
  }
  info.This().As<Napi::Object>().TypeTag(&TAG);
  big_ints_ = is_true(info.Env(), info[0]);
  std::swap(reader_, reader);
  state_ = reader_->state;
  state_->retain();
}

Cursor::~Cursor() {
  if (reader_) reader_->held = false;
  if (state_) state_->release();
}

Napi::Value Cursor::next(const Napi::CallbackInfo &info) {
  CursorNextJob *job = new (std::nothrow) CursorNextJob(big_ints_);
  return submit(job, job && job->given(info));
}

template <typename J> Napi::Value Cursor::read(const Napi::CallbackInfo &info) {
  J *job = new (std::nothrow) J;
  return submit(job, job && job->given(info));
}

Napi::Value Cursor::submit(ReadJob *job, bool given) {
  if (given && !reader_) job->failure.set(REPLIC_ECLOSED, "the cursor is closed");
  return state_->submit<ReadJob>(job, given, reader_ ? reader_->own : state_->reads.queue);
}

Napi::Value Cursor::close(const Napi::CallbackInfo &info) {
  Reader *reader = reader_;
  if (!reader || state_->phase != Phase::open) return resolved_promise(info.Env());
  CursorCloseJob *job = new (std::nothrow) CursorCloseJob(reader);
  if (job) reader_ = nullptr; // the job holds it
  return state_->accept<ReadJob>(job, reader->own);
}

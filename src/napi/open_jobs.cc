#include "open_jobs.h"

#include "cursor.h"

CursorOpenJob::~CursorOpenJob() {
  if (cursor) cursor->held = false;
}

bool CursorOpenJob::given(const Napi::CallbackInfo &info) {
  big_ints_ = is_true(info.Env(), info[2]);
  ticket = ticket_of(info.Env(), info[3]);
  limit.timeout_ms = number_or_0(info.Env(), info[4]);
  return statement_.given(info, *this);
}

void CursorOpenJob::run(Reader &reader) {
  if (!check(reader, statement_.start(reader.db))) reader.close();
}

napi_value CursorOpenJob::result(napi_env env) {
  napi_value made = Cursor::make(env, {state, cursor, big_ints_, ticket, limit});
  if (made) cursor = nullptr; // the Cursor holds it
  return made;
}

bool SnapshotOpenJob::given(const Napi::CallbackInfo &) {
  return true;
}

void SnapshotOpenJob::run(Reader &reader) {
  if (!check(reader, replic_reader_hold(reader.db))) reader.close();
}

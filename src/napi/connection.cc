#include "connection.h"

#include <cstring>
#include <new>

#include "object.h"
#include "open_jobs.h"
#include "queue.h"
#include "read_jobs.h"
#include "read_threads.h"
#include "step_jobs.h"
#include "write_jobs.h"

const napi_type_tag Connection::TAG = {0x1f0e6b7c94d84a3d, 0xa2b85e0d63c1f974};

Napi::Function Connection::define(Napi::Env env) {
  return DefineClass(
      env, "Connection",
      {
          checked_method<Connection, &Connection::open>("open"),
          checked_method<Connection, &Connection::write<ChangeJob>>("write"),
          checked_method<Connection, &Connection::write<RunJob>>("run"),
          checked_method<Connection, &Connection::write<ExecJob>>("exec"),
          checked_method<Connection, &Connection::write<ExplainJob>>("explain"),
          checked_method<Connection, &Connection::write<PatchesTableJob>>("patchesTable"),
          checked_method<Connection, &Connection::migration_begin>("migrationBegin"),
          checked_method<Connection, &Connection::step<StepBeginJob>>("stepBegin"),
          checked_method<Connection, &Connection::step<StepRunJob>>("stepRun"),
          checked_method<Connection, &Connection::step<StepReadJob>>("stepRead"),
          checked_method<Connection, &Connection::step<ChangeJob>>("stepWrite"),
          checked_method<Connection, &Connection::step<PatchesTableJob>>("stepPatchesTable"),
          checked_method<Connection, &Connection::step<StepEndJob>>("stepEnd"),
          checked_method<Connection, &Connection::step<MigrationEndJob>>("migrationEnd"),
          checked_method<Connection, &Connection::write<CompactJob>>("compact"),
          checked_method<Connection, &Connection::write<ForgetJob>>("forget"),
          checked_method<Connection, &Connection::write<RecheckedJob>>("rechecked"),
          checked_method<Connection, &Connection::write<OptimizeJob>>("optimize"),
          checked_method<Connection, &Connection::write<AnnouncedJob>>("announced"),
          checked_method<Connection, &Connection::read<QueryJob>>("query"),
          checked_method<Connection, &Connection::query_sync>("querySync"),
          checked_method<Connection, &Connection::sync_ended>("endSync"),
          checked_method<Connection, &Connection::open_cursor<CursorOpenJob>>("cursorOpen"),
          checked_method<Connection, &Connection::open_cursor<SnapshotOpenJob>>("snapshotOpen"),
          checked_method<Connection, &Connection::link_open>("linkOpen"),
          checked_method<Connection, &Connection::link_close>("linkClose"),
          checked_method<Connection, &Connection::link_message>("linkMessage"),
          checked_method<Connection, &Connection::receive>("receive"),
          checked_method<Connection, &Connection::tick>("tick"),
          checked_method<Connection, &Connection::turn>("turn"),
          checked_method<Connection, &Connection::try_lock>("tryLock"),
          checked_method<Connection, &Connection::stop_waiting>("stopWaiting"),
          checked_method<Connection, &Connection::stop>("stop"),
          checked_method<Connection, &Connection::stop_all>("stopAll"),
          checked_method<Connection, &Connection::end>("end"),
          checked_method<Connection, &Connection::figures>("figures"),
          checked_method<Connection, &Connection::wal_bytes>("walBytes"),
          checked_method<Connection, &Connection::flush>("flush"),
          checked_method<Connection, &Connection::tell_acks>("tellAcks"),
          checked_method<Connection, &Connection::close>("close"),
      });
}

static Napi::Value throw_type_error(Napi::Env env, const std::string &message) {
  Napi::TypeError::New(env, message).ThrowAsJavaScriptException();
  return Napi::Value();
}

// ---- construction -------------------------------------------------------------------------------

namespace {
// Numbers and booleans of an object. The first one that is missing throws a TypeError; the rest are
// 0.
class ConfigReader {
public:
  explicit ConfigReader(Napi::Object from) : from_(from) {}
  bool ok() const {
    return !from_.Env().IsExceptionPending();
  }
  double number(const char *name) {
    Napi::Value value = get(name);
    if (ok() && value.IsNumber()) return value.As<Napi::Number>().DoubleValue();
    return refuse(name, "a number"), 0;
  }
  size_t size(const char *name) {
    return static_cast<size_t>(number(name));
  }
  bool truth(const char *name) {
    Napi::Value value = get(name);
    if (ok() && value.IsBoolean()) return value.As<Napi::Boolean>();
    return refuse(name, "a boolean"), false;
  }

private:
  Napi::Value get(const char *name) {
    return ok() ? from_.Get(name) : Napi::Value();
  }
  void refuse(const char *name, const char *wanted) {
    if (ok()) throw_type_error(from_.Env(), std::string("config.") + name + " must be " + wanted);
  }
  Napi::Object from_;
};
} // namespace

static bool read_config(Napi::Object from, replic_config *config, Limits *limits) {
  ConfigReader reader(from);
  config->peer_id = static_cast<uint32_t>(reader.number("peerId"));
  config->new_peer_id = static_cast<uint32_t>(reader.number("newPeerId"));
  config->normal_durability = reader.truth("normalDurability");
  config->max_clock_skew_ms = static_cast<int64_t>(reader.number("maxClockSkewMs"));
  config->max_pending_retention_ms = static_cast<int64_t>(reader.number("maxPendingRetentionMs"));
  config->max_origins = static_cast<int64_t>(reader.number("maxOrigins"));
  config->max_pending_bytes = static_cast<int64_t>(reader.number("maxPendingBytes"));
  config->max_staged_bytes = static_cast<int64_t>(reader.number("maxStagedBytes"));
  config->max_staged_retention_ms = static_cast<int64_t>(reader.number("maxStagedRetentionMs"));
  config->heartbeat_ms = static_cast<int64_t>(reader.number("heartbeatMs"));
  config->link_timeout_ms = static_cast<int64_t>(reader.number("linkTimeoutMs"));
  config->max_frame_bytes = reader.size("maxFrameBytes");
  config->window_bytes = reader.size("windowBytes");
  config->slice_bytes = reader.size("sliceBytes");
  config->early_bytes = reader.size("earlyBytes");
  config->ring_bytes = reader.size("ringBytes");
  config->calls_checkpoint = 1; // checkpoints.h
  config->trace = reader.truth("trace");
  limits->max_queue_calls = reader.size("maxQueueCalls");
  limits->max_queue_bytes = reader.size("maxQueueBytes");
  config->cache_kib = limits->cache_kib = static_cast<int>(reader.number("cacheBytes") / 1024);
  limits->readers = static_cast<uint32_t>(reader.number("readers"));
  limits->busy_timeout_ms = static_cast<int64_t>(reader.number("busyTimeoutMs"));
  ReadThreads::all().set_pool(reader.size("poolThreads"));
  limits->max_query_ms = reader.number("maxQueryMs");
  return reader.ok();
}

Connection::Connection(const Napi::CallbackInfo &info) : Napi::ObjectWrap<Connection>(info) {
  Napi::Env env = info.Env();
  replic_config config = {};
  Limits limits = {};
  if (!info[0].IsString() || !info[1].IsObject() || !info[2].IsFunction()) {
    throw_type_error(env,
                     "new Connection(path, config, onBatch): a string, an object and a function");
    return;
  }
  std::string path = info[0].As<Napi::String>();
  if (path.find('\0') != std::string::npos) {
    throw_type_error(env, "path holds a NUL character");
    return;
  }
  if (!read_config(info[1].As<Napi::Object>(), &config, &limits)) return;
  info.This().As<Napi::Object>().TypeTag(&TAG);
  state_ = new State(env, path, config, limits);
  napi_create_reference(env, info[2], 1, &state_->on_batch);
}

Connection::~Connection() {
  if (!state_) return;
  if (state_->phase == Phase::created) state_->forget_callback();
  state_->release();
}

// ---- calls with a promise -----------------------------------------------------------------------

Napi::Value Connection::open(const Napi::CallbackInfo &) {
  OpenJob *job = new (std::nothrow) OpenJob;
  if (job && state_->phase != Phase::created)
    job->failure.set(REPLIC_EUSAGE, "open is called once per Connection");
  else if (job && !state_->begin_life())
    job->failure.set_no_memory();
  return state_->accept<WriteJob>(job, state_->writes);
}

template <typename J> Napi::Value Connection::write(const Napi::CallbackInfo &info) {
  J *job = new (std::nothrow) J;
  bool given = job && job->given(info);
  return state_->submit<WriteJob>(job, given, state_->writes);
}

// (ticket) -> undefined. Taken even if the queue is full: what comes between two steps must not end
// a migration. The ticket stops it while it waits, for the write lock say.
Napi::Value Connection::migration_begin(const Napi::CallbackInfo &info) {
  MigrationBeginJob *job = new (std::nothrow) MigrationBeginJob;
  if (job) job->ticket = ticket_of(info.Env(), info[0]);
  if (state_->phase == Phase::open) return state_->accept<WriteJob>(job, state_->writes);
  return state_->submit<WriteJob>(job, true, state_->writes);
}

// The calls of a migration are taken while the connection closes, too: that waits for its end.
template <typename J> Napi::Value Connection::step(const Napi::CallbackInfo &info) {
  J *job = new (std::nothrow) J;
  bool given = job && job->given(info);
  if (given && !state_->migrating)
    job->failure.set(REPLIC_EUSAGE, "no migration is under way");
  else if (job && !given)
    job->failure.set(REPLIC_EUSAGE, "the arguments cannot be read"); // unless it says more
  return state_->accept<WriteJob>(job, state_->steps);
}

template <typename J> Napi::Value Connection::read(const Napi::CallbackInfo &info) {
  J *job = new (std::nothrow) J;
  bool given = job && job->given(info);
  if (job) job->limit.max_query_ms = state_->limits.max_query_ms;
  return state_->submit<ReadJob>(job, given, state_->reads.queue);
}

// As query, on this thread and on a connection of its own: gives the rows, or throws. What follows
// until endSync() sees the same state of the file.
Napi::Value Connection::query_sync(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  QueryJob job;
  Reader &reader = state_->reads.calling;
  napi_value rows = nullptr;
  job.limit.max_query_ms = state_->limits.max_query_ms;
  if (state_->check_open(job.failure) && job.given(info)) {
    if (job.check(reader, reader.open())) {
      replic_rows vector = {};
      replic_reader_begin(reader.db);
      job.execute(reader);
      job.check(reader, replic_reader_vector(reader.db, &vector));
      if (vector.n_rows && !job.failure) tell_vector(*state_, vector);
      replic_rows_free(&vector);
    } else {
      reader.close(); // the next call tries again
    }
    rows = job.failure ? nullptr : job.result(env);
  }
  if (rows || env.IsExceptionPending()) return Napi::Value(env, rows);
  job.failure.set_no_memory(); // unless it says more
  napi_throw(env, job.failure.to_js(env));
  return Napi::Value();
}

void Connection::end_sync() {
  if (state_->phase == Phase::open && state_->reads.calling.db)
    replic_reader_end(state_->reads.calling.db);
}

Napi::Value Connection::sync_ended(const Napi::CallbackInfo &info) {
  end_sync();
  return info.Env().Undefined();
}

template <typename J> Napi::Value Connection::open_cursor(const Napi::CallbackInfo &info) {
  J *job = new (std::nothrow) J;
  bool given = job && job->given(info);
  if (job) job->state = state_;
  if (job && J::IS_LIMITED) job->limit.max_query_ms = state_->limits.max_query_ms;
  if (given && state_->gone) job->failure.set(state_->gone); // by its path it may be another file
  if (given && !job->failure) job->cursor = state_->reads.add_cursor(state_, job->failure);
  Reader *cursor = job ? job->cursor : nullptr;
  return state_->submit<ReadJob>(job, given, cursor ? cursor->own : state_->reads.queue);
}

Napi::Value Connection::flush(const Napi::CallbackInfo &info) {
  if (state_->phase != Phase::open) return resolved_promise(info.Env());
  return state_->accept<WriteJob>(new (std::nothrow) FlushJob, state_->writes);
}

// (on) -> undefined. From the next batch on an event tells each acknowledgement of own patches, or
// no more.
Napi::Value Connection::tell_acks(const Napi::CallbackInfo &info) {
  state_->writer.tell_acks = is_true(info.Env(), info[0]);
  return info.Env().Undefined();
}

// ---- stopping ----

// (ticket) -> undefined. The calls that have it reject with SQLITE_INTERRUPT: those that wait at
// once, one that runs as soon as SQLite asks. One that is done resolves.
Napi::Value Connection::stop(const Napi::CallbackInfo &info) {
  uint32_t ticket = ticket_of(info.Env(), info[0]);
  if (ticket && state_->phase != Phase::closed) state_->stop(ticket);
  return info.Env().Undefined();
}

// () -> undefined. After close(): all queries and SQL that run or wait reject with REPLIC_CLOSED.
Napi::Value Connection::stop_all(const Napi::CallbackInfo &info) {
  if (state_->phase != Phase::closed) state_->stop_all();
  return info.Env().Undefined();
}

// () -> undefined. The process ends: interrupts whatever runs, and nothing runs any more.
Napi::Value Connection::end(const Napi::CallbackInfo &info) {
  if (state_->phase != Phase::closed) state_->die();
  return info.Env().Undefined();
}

// () -> what has been counted up to the last batch that has finished, and the bytes that wait now.
// In every phase.
Napi::Value Connection::figures(const Napi::CallbackInfo &info) {
  Napi::Object result = state_->figures.to_js(info.Env());
  result.Set("queueBytes", static_cast<double>(state_->writes.bytes() + state_->frames.bytes() +
                                               state_->held.bytes()));
  result.Set("lockedSince", static_cast<double>(state_->lock.since_ms()));
  return result;
}

// () -> bytes in the WAL after the last batch; its file may be longer.
Napi::Value Connection::wal_bytes(const Napi::CallbackInfo &info) {
  return Napi::Number::New(info.Env(), static_cast<double>(state_->checkpoints.bytes()));
}

Napi::Value Connection::close(const Napi::CallbackInfo &info) {
  if (!closing_.IsEmpty()) return closing_.Value();
  if (state_->phase == Phase::created) {
    state_->phase = Phase::closed;
    state_->forget_callback();
  }
  if (state_->phase == Phase::closed) return resolved_promise(info.Env());
  state_->lock.try_now();
  end_sync(); // from here on that connection is the CloseJob's
  Napi::Value promise = state_->accept<WriteJob>(new (std::nothrow) CloseJob, state_->writes);
  if (promise.IsEmpty()) return promise;
  state_->phase = Phase::closing;
  closing_ = Napi::Persistent(promise.As<Napi::Object>());
  return promise;
}

// ---- links --------------------------------------------------------------------------------------

static bool is_number(const Napi::CallbackInfo &info, size_t index, uint32_t *number) {
  if (napi_get_value_uint32(info.Env(), info[index], number) == napi_ok) return true;
  throw_type_error(info.Env(), "argument " + std::to_string(index + 1) + " must be a number");
  return false;
}

Napi::Value Connection::link_open(const Napi::CallbackInfo &info) {
  uint32_t link, expected;
  if (!is_number(info, 0, &link) || !is_number(info, 1, &expected)) return Napi::Value();
  bool only_reads = is_true(info.Env(), info[2]);
  state_->push(new (std::nothrow) LinkOpenJob(link, expected, only_reads));
  return info.Env().Undefined();
}

Napi::Value Connection::link_close(const Napi::CallbackInfo &info) {
  uint32_t link;
  if (!is_number(info, 0, &link)) return Napi::Value();
  state_->push(new (std::nothrow) LinkCloseJob(link));
  return info.Env().Undefined();
}

static bool is_bytes(const Napi::CallbackInfo &info, size_t index) {
  if (info[index].IsTypedArray() &&
      info[index].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array)
    return true;
  throw_type_error(info.Env(), "argument " + std::to_string(index + 1) + " must be a Uint8Array");
  return false;
}

// (link, Uint8Array) -> undefined. It may be lost.
Napi::Value Connection::link_message(const Napi::CallbackInfo &info) {
  uint32_t link;
  if (!is_number(info, 0, &link) || !is_bytes(info, 1)) return Napi::Value();
  Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
  MessageJob *job = new (std::nothrow) MessageJob(link);
  if (job && job->copy(bytes.Data(), bytes.ByteLength()))
    state_->push(job);
  else
    delete job;
  return info.Env().Undefined();
}

// (link, Uint8Array) -> bytes that wait now. A frame that memory does not suffice for is lost, as
// one can be on the way: the core asks for it again.
Napi::Value Connection::receive(const Napi::CallbackInfo &info) {
  uint32_t link;
  if (!is_number(info, 0, &link) || !is_bytes(info, 1)) return Napi::Value();
  Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
  ReceiveJob *job = new (std::nothrow) ReceiveJob(link);
  if (job && job->copy(bytes.Data(), bytes.ByteLength()))
    state_->push(job);
  else
    delete job;
  return Napi::Number::New(info.Env(),
                           static_cast<double>(state_->frames.bytes() + state_->held.bytes()));
}

// One waiting heartbeat is as good as several.
Napi::Value Connection::tick(const Napi::CallbackInfo &info) {
  TickJob *job = state_->tick_waits ? nullptr : new (std::nothrow) TickJob;
  if (job) state_->tick_waits = state_->phase == Phase::open;
  state_->push(job);
  return info.Env().Undefined();
}

// In a turn of the event loop of its own, after those of the calls above that have been made.
Napi::Value Connection::turn(const Napi::CallbackInfo &info) {
  return Napi::Boolean::New(info.Env(), state_->turn());
}

// The time that onBatch({ lockWaitMs }) has named is over.
Napi::Value Connection::try_lock(const Napi::CallbackInfo &info) {
  state_->lock.try_now();
  state_->pump();
  return info.Env().Undefined();
}

// While closing: calls wait for the write lock no longer. True: they did, and nothing is executed.
Napi::Value Connection::stop_waiting(const Napi::CallbackInfo &info) {
  bool waits = state_->lock.is_awaited();
  state_->lock.give_up();
  state_->pump();
  return Napi::Boolean::New(info.Env(), waits);
}

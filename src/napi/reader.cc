#include "reader.h"

#include <new>

#include "queue.h"

static const size_t READ_SHARE = 32; // calls that one connection takes at a time, at most
static const size_t MAX_CURSORS = 64;

// What one connection does at a time.
class ReadGo : public Work {
public:
  ReadGo(State *owner, Reader &on, bool shares) : Work(owner), reader(on), one_state(shares) {}
  Reader &reader;
  const bool one_state; // for all jobs: each was called before this began, so it is new enough
  JobList<ReadJob> jobs;
  void discard() override;
  ~ReadGo() override {
    replic_rows_free(&vector_);
  }

protected:
  void run() override;
  void finish(napi_env env) override;

private:
  void read_vector();
  replic_rows vector_ = {}; // of all that the jobs may have seen, if it is news
};

void ReadGo::run() {
  for (ReadJob *job = jobs.first(); job && !state->dying; job = job->next) {
    if (!job->check(reader, reader.open())) {
      reader.close(); // the next one tries again
      continue;
    }
    if (one_state) replic_reader_begin(reader.db);
    job->execute(reader);
  }
  if (reader.db && !state->dying) read_vector();
  if (one_state && reader.db) replic_reader_end(reader.db);
}

// What was read shall not be ahead of what JavaScript takes for applied here.
void ReadGo::read_vector() {
  int code = replic_reader_vector(reader.db, &vector_);
  for (ReadJob *job = jobs.first(); job && code != REPLIC_OK; job = job->next)
    if (!job->failure) job->check(reader, code);
  if (code != REPLIC_OK) replic_rows_free(&vector_);
}

void tell_vector(State &state, const replic_rows &rows) {
  Napi::Env env = state.env;
  Napi::HandleScope scope(env);
  Napi::Object report = Napi::Object::New(env);
  Napi::Array vector = Napi::Array::New(env);
  size_t at = 0;
  for (uint32_t i = 0; i < rows.n_rows * rows.n_columns; i++) {
    replic_value value;
    at = replic_rows_value(&rows, at, &value);
    vector.Set(i, static_cast<double>(value.i)); // all below 2^53
  }
  report.Set("vector", vector);
  state.tell(report);
}

void ReadGo::finish(napi_env env) {
  reader.go = nullptr;
  state->pump();
  if (vector_.n_rows) tell_vector(*state, vector_);
  while (ReadJob *job = jobs.pop())
    if (!settle(env, job)) state->die();
  delete this;
}

void ReadGo::discard() {
  if (reader.go == this) reader.go = nullptr;
  jobs.clear();
}

// ---- one connection -----------------------------------------------------------------------------

void ReadJob::execute(Reader &reader) {
  if (stop != Stop::no) {
    if (stop == Stop::closing) failure.set_closing();
    failure.set_stopped(); // unless it says more
    return;
  }
  reader.watch.begin(*this, limit, reader.is_cursor);
  run(reader);
  reader.watch.end();
}

bool ReadJob::check(Reader &reader, int code) {
  return code == REPLIC_OK || failure.set(code, "%s", replic_reader_error_text(reader.db));
}

int Reader::open() {
  if (db) return REPLIC_OK;
  replic_reader *opened;
  int code = replic_reader_open(state->path.c_str(), &opened);
  if (code == REPLIC_OK)
    replic_reader_on_steps(
        opened,
        [](void *data) -> int {
          Reader *reader = static_cast<Reader *>(data);
          return reader->watch.must_stop(*reader->state, true);
        },
        this);
  std::lock_guard<std::mutex> lock(state->mutex);
  db = opened;
  return code;
}

void Reader::close() {
  replic_reader *closing = db;
  {
    std::lock_guard<std::mutex> lock(state->mutex);
    db = nullptr; // interrupted no more
  }
  replic_reader_close(closing);
}

// ---- the pool -----------------------------------------------------------------------------------

ReadPool::~ReadPool() {
  delete[] readers_;
  while (Reader *first = cursors_) {
    cursors_ = first->next;
    delete first;
  }
}

bool ReadPool::create(State *state, uint32_t n_readers) {
  readers_ = new (std::nothrow) Reader[n_readers];
  if (!readers_) return false;
  n_readers_ = n_readers;
  for (uint32_t i = 0; i < n_readers; i++) readers_[i].state = state;
  calling.state = state;
  calling.watch.calls_itself = true;
  return true;
}

Reader *ReadPool::add_cursor(State *state, Failure &failure) {
  sweep();
  if (n_cursors_ == MAX_CURSORS) {
    failure.set(REPLIC_EBUSY, "%zu cursors are open, and there can be no more; end one first",
                n_cursors_);
    return nullptr;
  }
  Reader *reader = new (std::nothrow) Reader;
  if (!reader) {
    failure.set_no_memory();
    return nullptr;
  }
  reader->state = state;
  reader->is_cursor = reader->held = true;
  reader->next = cursors_;
  cursors_ = reader;
  n_cursors_++;
  return reader;
}

void ReadPool::start(Reader &reader, JobList<ReadJob> &from, size_t share) {
  bool shares = &from == &queue && share > 1;
  ReadGo *go = new (std::nothrow) ReadGo(reader.state, reader, shares);
  if (!go) return; // with the next pump
  while (share-- > 0) go->jobs.push(from.pop());
  reader.go = go;
  go->start();
}

void ReadPool::pump() {
  size_t n_idle = 0;
  for (uint32_t i = 0; i < n_readers_; i++) n_idle += !readers_[i].go;
  for (uint32_t i = 0; i < n_readers_ && queue.first(); i++) {
    if (readers_[i].go) continue;
    size_t fair = queue.calls() / n_idle + 1, share = fair < READ_SHARE ? fair : READ_SHARE;
    start(readers_[i], queue, share < queue.calls() ? share : queue.calls());
    n_idle--;
  }
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next)
    if (!cursor->go && cursor->own.first()) start(*cursor, cursor->own, cursor->own.calls());
  sweep();
}

// Drops the cursors that nothing refers to any more. One that was forgotten rather than closed is
// closed here.
void ReadPool::sweep() {
  for (Reader **at = &cursors_; *at;) {
    Reader *cursor = *at;
    if (cursor->held || cursor->go || cursor->own.first()) {
      at = &cursor->next;
      continue;
    }
    *at = cursor->next;
    n_cursors_--;
    cursor->close();
    delete cursor;
  }
}

template <typename Wanted> void ReadPool::stop_those(State &state, Wanted wanted, Stop why) {
  auto stop = [&](const Reader &reader) {
    for (ReadJob *job = reader.go ? reader.go->jobs.first() : nullptr; job; job = job->next)
      if (wanted(*job)) job->stop = why;
  };
  while (ReadJob *job = queue.take(wanted)) state.refuse(job, why);
  for (uint32_t i = 0; i < n_readers_; i++) stop(readers_[i]);
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next) {
    while (ReadJob *job = cursor->own.take(wanted)) state.refuse(job, why);
    stop(*cursor);
  }
}

void ReadPool::stop(State &state, uint32_t ticket) {
  stop_those(
      state, [ticket](const ReadJob &job) { return job.ticket == ticket; }, Stop::caller);
}

void ReadPool::stop_all(State &state) {
  stop_those(
      state, [](const ReadJob &job) { return job.may_be_refused(); }, Stop::closing);
}

bool ReadPool::idle() const {
  bool idle = !queue.first();
  for (uint32_t i = 0; i < n_readers_; i++) idle = idle && !readers_[i].go;
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next)
    idle = idle && !cursor->go && !cursor->own.first();
  return idle;
}

void ReadPool::interrupt() {
  for (uint32_t i = 0; i < n_readers_; i++)
    if (readers_[i].db) replic_reader_interrupt(readers_[i].db);
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next)
    if (cursor->db) replic_reader_interrupt(cursor->db);
}

void ReadPool::close() {
  calling.close();
  for (uint32_t i = 0; i < n_readers_; i++) readers_[i].close();
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next) cursor->close();
}

void ReadPool::discard() {
  queue.clear();
  for (uint32_t i = 0; i < n_readers_; i++)
    if (readers_[i].go) readers_[i].go->discard();
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next) {
    cursor->own.clear();
    if (cursor->go) cursor->go->discard();
  }
  close();
}

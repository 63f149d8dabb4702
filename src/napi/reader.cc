#include "reader.h"

#include <new>

#include "lifetime.h"
#include "read_threads.h"

static const size_t READ_SHARE = 32; // calls that one connection takes at a time, at most
static const size_t MAX_CURSORS = 64;
// Of the file, in memory: small where there can be many, and where queries are to be short.
static const int CURSOR_CACHE_KIB = 1024, CALLING_CACHE_KIB = 2048;

// What one connection does at a time.
class ReadGo : public Work {
public:
  ReadGo(Lifetime *owner, Reader &on, bool shares) : Work(owner), reader(on), one_state(shares) {}
  Reader &reader;
  const bool one_state; // for all jobs: each was called before this began, so it is new enough

  // ---- under Lifetime::mutex while it runs
  JobList<ReadJob> waiting, done;
  ReadJob *running = nullptr;

  bool is_older = false;   // main thread only: what it sees may be older than the last state
  bool has_thread = false; // of ReadThreads
  void discard() override;
  ~ReadGo() override {
    give_back();
    replic_rows_free(&vector_);
  }

protected:
  void run() override;
  void skip() override {
    give_back();
  }
  void finish(napi_env env) override;

private:
  ReadJob *next();
  void give_back();
  void read_vector();
  replic_rows vector_ = {}; // of all that the jobs may have seen, if it is news
};

// Ends the job that has run, and begins another one.
ReadJob *ReadGo::next() {
  std::lock_guard<std::mutex> lock(life->mutex);
  if (running) done.push(running);
  return running = life->dying ? nullptr : waiting.pop();
}

void ReadGo::give_back() {
  if (has_thread) ReadThreads::all().give_back();
  has_thread = false;
}

void ReadGo::run() {
  while (ReadJob *job = next()) {
    if (job->may_be_refused() && !job->check(reader, reader.open())) {
      reader.close(); // the next one tries again
      continue;
    }
    if (one_state) replic_reader_begin(reader.db);
    job->execute(reader);
  }
  if (reader.db && !life->dying) read_vector();
  if (one_state && reader.db) replic_reader_end(reader.db);
  give_back();
}

// What was read shall not be ahead of what JavaScript takes for applied here.
void ReadGo::read_vector() {
  int code = replic_reader_vector(reader.db, &vector_);
  for (ReadJob *job = done.first(); job && code != REPLIC_OK; job = job->next)
    if (!job->failure) job->check(reader, code);
  if (code != REPLIC_OK) replic_rows_free(&vector_);
}

void tell_vector(Lifetime &life, const replic_rows &rows) {
  Napi::Env env = life.env;
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
  life.tell(report);
}

void ReadGo::finish(napi_env env) {
  reader.go = nullptr;
  if (reader.is_over) reader.close();
  life->pump();
  if (vector_.n_rows) tell_vector(*life, vector_);
  while (ReadJob *job = done.pop())
    if (!settle(env, job)) life->die();
  delete this;
}

void ReadGo::discard() {
  if (reader.go == this) reader.go = nullptr;
  waiting.clear();
  done.clear();
}

// ---- one connection -----------------------------------------------------------------------------

void ReadJob::execute(Reader &reader) {
  if (stop != Stop::no) {
    reader.life->set_stopped(failure, stop);
    return;
  }
  reader.watch.begin(*this, limit, reader.is_cursor);
  run(reader);
  reader.watch.end(*reader.life);
}

bool ReadJob::check(Reader &reader, int code) {
  return code == REPLIC_OK || failure.set(code, "%s", replic_reader_error_text(reader.db));
}

int Reader::open() {
  if (db) return REPLIC_OK;
  replic_reader *opened;
  int code = replic_reader_open(life->path.c_str(), &opened);
  if (code == REPLIC_OK) code = replic_reader_cache(opened, cache_kib);
  if (code == REPLIC_OK)
    replic_reader_on_steps(
        opened,
        [](void *data) -> int {
          Reader *reader = static_cast<Reader *>(data);
          return reader->watch.must_stop(*reader->life, true);
        },
        this);
  if (code == REPLIC_OK) code = replic_reader_check(opened, life->file_id);
  std::lock_guard<std::mutex> lock(life->mutex);
  db = opened;
  return code;
}

void Reader::close() {
  replic_reader *closing = db;
  {
    std::lock_guard<std::mutex> lock(life->mutex);
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

bool ReadPool::create(Lifetime *life, uint32_t n_readers) {
  readers_ = new (std::nothrow) Reader[n_readers];
  if (!readers_) return false;
  n_readers_ = n_readers;
  for (uint32_t i = 0; i < n_readers; i++) {
    readers_[i].life = life;
    readers_[i].cache_kib = life->limits.cache_kib;
  }
  calling.life = life;
  calling.cache_kib = CALLING_CACHE_KIB;
  calling.watch.calls_itself = true;
  return true;
}

Reader *ReadPool::add_cursor(Lifetime *life, Failure &failure) {
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
  reader->life = life;
  reader->cache_kib = CURSOR_CACHE_KIB;
  reader->is_cursor = reader->held = true;
  reader->next = cursors_;
  cursors_ = reader;
  n_cursors_++;
  return reader;
}

bool ReadPool::start(Reader &reader, JobList<ReadJob> &from, size_t share) {
  Lifetime &life = *reader.life;
  bool shares = &from == &queue && share > 1;
  bool must_end = !from.first()->may_be_refused(); // at once, and soon done
  if (!must_end && !ReadThreads::all().take(life)) return false;
  ReadGo *go = new (std::nothrow) ReadGo(&life, reader, shares);
  if (!go) { // with the next pump
    if (!must_end) ReadThreads::all().give_back();
    return false;
  }
  go->has_thread = !must_end;
  while (share-- > 0) go->waiting.push(from.pop());
  reader.go = go;
  go->start();
  return true;
}

void ReadPool::pump_queue() {
  size_t n_idle = 0;
  for (uint32_t i = 0; i < n_readers_; i++) n_idle += !readers_[i].go;
  for (uint32_t i = 0; i < n_readers_ && queue.first(); i++) {
    if (readers_[i].go) continue;
    size_t fair = queue.calls() / n_idle + 1, share = fair < READ_SHARE ? fair : READ_SHARE;
    if (!start(readers_[i], queue, share < queue.calls() ? share : queue.calls())) return;
    n_idle--;
  }
}

void ReadPool::pump_cursors() {
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next)
    if (!cursor->go && cursor->own.first()) start(*cursor, cursor->own, cursor->own.calls());
}

void ReadPool::pump() {
  if (!n_readers_) return;
  cursors_first_ = !cursors_first_;
  if (cursors_first_) pump_cursors();
  pump_queue();
  if (!cursors_first_) pump_cursors();
  ReadThreads::all().settle(*calling.life);
  sweep();
}

void ReadPool::relieve() {
  JobList<ReadJob> back;
  {
    std::lock_guard<std::mutex> lock(calling.life->mutex);
    for (uint32_t i = 0; i < n_readers_; i++)
      for (ReadGo *go = readers_[i].go; go && go->running && go->waiting.first();)
        back.push(go->waiting.pop());
  }
  queue.prepend(back);
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

// Those that are not in the queue.
template <typename Wanted> void ReadPool::stop_begun(Lifetime &life, Wanted wanted, Stop why) {
  JobList<ReadJob> found;
  auto look = [&](ReadGo *go) {
    if (!go) return;
    std::lock_guard<std::mutex> lock(life.mutex);
    if (go->running && wanted(*go->running)) go->running->stop = why;
    while (ReadJob *job = go->waiting.take(wanted)) found.push(job);
  };
  for (uint32_t i = 0; i < n_readers_; i++) look(readers_[i].go);
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next) {
    while (ReadJob *job = cursor->own.take(wanted)) found.push(job);
    look(cursor->go);
  }
  while (ReadJob *job = found.pop()) life.refuse(job, why);
}

template <typename Wanted> void ReadPool::stop_those(Lifetime &life, Wanted wanted, Stop why) {
  while (ReadJob *job = queue.take(wanted)) life.refuse(job, why);
  stop_begun(life, wanted, why);
}

void ReadPool::stop(Lifetime &life, uint32_t ticket) {
  stop_those(
      life, [ticket](const ReadJob &job) { return job.ticket == ticket; }, Stop::caller);
}

void ReadPool::stop_all(Lifetime &life) {
  stop_those(
      life, [](const ReadJob &job) { return job.may_be_refused(); }, Stop::closing);
}

void ReadPool::end_states(Lifetime &life) {
  relieve(); // what has not begun will see the last state
  for (uint32_t i = 0; i < n_readers_; i++)
    if (readers_[i].go) readers_[i].go->is_older = true;
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next) {
    cursor->is_over = true;
    if (!cursor->go) cursor->close();
  }
  stop_begun(
      life, [](const ReadJob &job) { return job.may_be_refused(); }, Stop::gone);
}

bool ReadPool::hold_older() const {
  bool held = false;
  for (uint32_t i = 0; i < n_readers_; i++)
    held = held || (readers_[i].go && readers_[i].go->is_older);
  for (Reader *cursor = cursors_; cursor; cursor = cursor->next) held = held || cursor->go;
  return held;
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

#include "checkpoints.h"

#include <new>

#include "lifetime.h"

class Checkpoints::Pass : public Work {
public:
  Pass(Lifetime *owner, Checkpoints &of) : Work(owner), checkpoints_(of) {}
  void discard() override {
    if (checkpoints_.pass_ == this) checkpoints_.pass_ = nullptr;
  }

protected:
  void run() override;
  void finish(napi_env env) override;

private:
  Checkpoints &checkpoints_;
  int code_ = REPLIC_OK;
  int64_t bytes_ = 0, moved_ = 0;
};

void Checkpoints::Pass::run() {
  replic_checkpointer *opened = checkpoints_.db_;
  if (!opened) {
    code_ = replic_checkpointer_open(life->path.c_str(), &opened);
    if (code_ == REPLIC_OK && !replic_file_is(life->path.c_str(), life->file_id))
      code_ = REPLIC_EGONE; // it is another file by now
    if (code_ != REPLIC_OK) return replic_checkpointer_close(opened);
    std::lock_guard<std::mutex> lock(life->mutex);
    checkpoints_.db_ = opened;
  }
  code_ = replic_checkpointer_run(opened, &bytes_, &moved_);
}

void Checkpoints::Pass::finish(napi_env) {
  Checkpoints &all = checkpoints_;
  int64_t rest = all.bytes_ - moved_;
  bool stopped = moved_ < bytes_; // by a reader
  all.pass_ = nullptr;
  all.next_ = all.bytes_ + EACH;
  if (all.bytes_ >= LONG) {
    // should only this connection fail, the writing one does it
    all.has_rest_ = rest <= REST || code_ != REPLIC_OK;
    if (!all.has_rest_ && !stopped) all.start(*life);
  }
  life->pump();
  delete this;
}

void Checkpoints::start(Lifetime &life) {
  if (life.gone) return; // what it moved would not be all
  pass_ = new (std::nothrow) Pass(&life, *this);
  if (pass_) pass_->start(); // else after the next Batch
}

void Checkpoints::after_batch(Lifetime &life, int64_t bytes) {
  // With FULL the commits have synced the WAL, and a Pass has little to do before it is long.
  if (bytes < bytes_ || bytes_ == 0) next_ = life.config.normal_durability ? EACH : LONG;
  bytes_ = bytes;
  if (bytes_ >= next_ && !pass_ && !has_rest_) start(life);
}

bool Checkpoints::must_wait() const {
  return pass_ && bytes_ >= MOST_OF_CALLS;
}

bool Checkpoints::takes_frames() const {
  return !pass_ || bytes_ < MOST;
}

int Checkpoints::take_rest() {
  int wait_ms = !has_rest_ ? -1 : bytes_ >= MOST ? READERS_MS : 0;
  has_rest_ = false;
  return wait_ms;
}

void Checkpoints::close(Lifetime &life) {
  replic_checkpointer *closing = db_;
  {
    std::lock_guard<std::mutex> lock(life.mutex);
    db_ = nullptr; // interrupted no more
  }
  replic_checkpointer_close(closing);
}

void Checkpoints::discard(Lifetime &life) {
  pass_ = nullptr;
  close(life);
}

void Checkpoints::interrupt() {
  if (db_) replic_checkpointer_interrupt(db_);
}

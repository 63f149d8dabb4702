// checkpoints.h - when the WAL goes into the database file, and on which thread (checkpoint.c).
//
//   a Batch ends:  the WAL has become long               -> a Pass, while further Batches run
//   a Pass ends:   what has been added meanwhile is little -> the next Batch moves it and begins
//                  it is not                             -> another Pass
//   the WAL is at its bound, and a Pass under way          -> no frames are taken before that has
//   ended the same, and local calls have added a bit             -> no Batch begins before that
//
// So what peers send does not let local calls wait for the disk. And the WAL exceeds its bound by
// no more than two Batches, unless a reader holds a snapshot: then nothing can be moved, and it
// grows with what is written. Without writing nothing is done here, and what is left in the WAL
// goes into the file when that is closed.
#pragma once

#include <napi.h>

#include <cstdint>

#include "replic.h"

class Lifetime;

class Checkpoints {
public:
  // ---- main thread only
  void after_batch(Lifetime &life, int64_t bytes); // `bytes`: in the WAL
  bool must_wait() const;                          // no Batch may begin now
  bool takes_frames() const;                       // a Batch that begins now may take frames
  int64_t bytes() const {                          // in the WAL, not in its file
    return bytes_;
  }
  // The Batch that begins now is to move the rest, and to wait so long for readers: -1: it is not.
  int take_rest();
  bool has_rest() const {
    return has_rest_;
  }
  bool busy() const {
    return pass_;
  }
  void discard(Lifetime &life); // while nothing runs

  // ---- the thread of the CloseJob, while not busy
  void close(Lifetime &life);

  // ---- any thread, under Lifetime::mutex
  void interrupt();

private:
  class Pass;
  void start(Lifetime &life);

  // In bytes: 16 MiB are long, 1 MiB is little, 32 MiB is the bound; 4 MiB more for local calls.
  static const int64_t REST = 1024 * 1024, EACH = 4 * REST, LONG = REPLIC_WAL_LONG,
                       MOST = REPLIC_WAL_MOST, MOST_OF_CALLS = MOST + EACH;
  static const int READERS_MS = 10; // at the bound: one that reads all the time shall not keep it

  Pass *pass_ = nullptr;  // under way
  int64_t bytes_ = 0;     // in the WAL after the last Batch
  int64_t next_ = EACH;   // so many make a Pass due
  bool has_rest_ = false; // little is left to move

  // ---- the Pass under way; the CloseJob; the main thread while nothing runs
  replic_checkpointer *db_ = nullptr; // set under Lifetime::mutex
};

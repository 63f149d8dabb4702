// reader.h - reads: a few read-only connections that share a queue, and one for each cursor.
#pragma once

#include <napi.h>

#include "job.h"
#include "query.h"
#include "watch.h"

class ReadGo;
struct Reader;
class Lifetime;

// A call on a reading connection.
struct ReadJob : Job {
  ReadJob *next = nullptr; // in its JobList
  Limit limit;
  // False: only the connection's end, which must come.
  virtual bool may_be_refused() const {
    return true;
  }
  void execute(Reader &reader); // run(), which may be stopped
  virtual void run(Reader &reader) = 0;
  bool check(Reader &reader, int code); // notes a failure of the reader's; false if it is one
};

// One read-only connection, opened when it is first needed.
struct Reader {
  // ---- main thread only
  Lifetime *life = nullptr;
  ReadGo *go = nullptr;   // under way
  int cache_kib = 0;      // fixed
  bool is_cursor = false; // fixed
  bool is_over = false;   // cursors: ReadPool::end_states
  bool held = false;      // cursors: by a Cursor object, or by the job that opens or closes it
  JobList<ReadJob> own;   // cursors: calls that wait
  Reader *next = nullptr; // cursors: in the pool's list

  // ---- the ReadGo under way; the main thread when there is none
  replic_reader *db = nullptr; // set under Lifetime::mutex
  Watch watch;
  int open(); // REPLIC_OK, or a failure with its text in `db`; then close() is due
  void close();
};

// Tells JavaScript what is applied: rows of replic_reader_vector. Main thread.
void tell_vector(Lifetime &life, const replic_rows &rows);

class ReadPool {
public:
  ReadPool() = default;
  ~ReadPool(); // after close() or discard()
  ReadPool(const ReadPool &) = delete;
  ReadPool &operator=(const ReadPool &) = delete;

  // ---- main thread only
  JobList<ReadJob> queue;
  Reader calling;                                       // for reads on the main thread itself
  bool create(Lifetime *life, uint32_t n_readers);      // false: out of memory
  Reader *add_cursor(Lifetime *life, Failure &failure); // held; nullptr: `failure` says why not
  void pump();                                          // not while a CloseJob is under way
  void relieve(); // takes back what waits behind a query that runs for long
  void stop(Lifetime &life, uint32_t ticket);
  void stop_all(Lifetime &life);
  // The file is gone: what sees a state of it that may not be the last one ends. Cursors do for
  // good.
  void end_states(Lifetime &life);
  bool hold_older() const; // some of that has not ended yet
  bool idle() const;       // nothing waits, nothing is under way
  void discard();          // frees all jobs and closes all connections, while nothing runs

  // ---- the thread of the CloseJob, while idle
  void close();

  // ---- any thread, under Lifetime::mutex
  void interrupt();

private:
  bool start(Reader &reader, JobList<ReadJob> &from, size_t share); // false: no thread is free
  void pump_queue();
  void pump_cursors();
  template <typename Wanted> void stop_begun(Lifetime &life, Wanted wanted, Stop why);
  template <typename Wanted> void stop_those(Lifetime &life, Wanted wanted, Stop why);
  void sweep();

  Reader *readers_ = nullptr;
  uint32_t n_readers_ = 0;
  Reader *cursors_ = nullptr;
  size_t n_cursors_ = 0;
  bool cursors_first_ = false; // they take turns
};

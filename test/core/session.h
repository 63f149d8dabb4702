/* session.h - a peer whose other side is a file of bytes: what the fuzzer drives, and what the
 * tests run its seeds through. */
#ifndef SESSION_H
#define SESSION_H

#include <stddef.h>
#include <stdint.h>

/* Opens a link and plays a session on it. `data` is a series of records, each a number n of two
 * bytes (little-endian):
 *
 *   n < 0xfff0      a frame of n bytes, which follow (fewer, where the session ends before)
 *   n = SESSION_…   an operation, see below
 *
 * Afterwards the replica is as it was. Aborts where something is wrong that no received byte may
 * bring about. */
void session_run(const uint8_t *data, size_t len);

enum {
  SESSION_COMMIT =
      0xfff0,      /* commits the batch and begins another; without it everything is rolled back */
  SESSION_TICK,    /* a second passes */
  SESSION_WRITE,   /* a local write */
  SESSION_REOPEN,  /* the link is closed and opened again */
  SESSION_MIGRATE, /* another replicated table appears */
  SESSION_COMPACT, /* what is older than this moment is pruned */
  SESSION_MESSAGE  /* sends one */
};

/* Closes the replica and removes its files. */
void session_end(void);

#endif

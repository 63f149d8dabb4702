/* errors.h - the one table of error codes: C, JavaScript, types and docs list the same names (a
 * test compares them). X(enum, value, "code seen by the application", "one-line meaning") */
#ifndef REPLIC_ERRORS_H
#define REPLIC_ERRORS_H

#define REPLIC_ERRORS(X)                                                                           \
  X(REPLIC_EAUTH, "REPLIC_AUTH", "the other side may not link")                                    \
  X(REPLIC_EBUSY, "REPLIC_BUSY", "the queue is full")                                              \
  X(REPLIC_ECLOCKSKEW, "REPLIC_CLOCK_SKEW", "a peer's clock is too far ahead")                     \
  X(REPLIC_ECLOSED, "REPLIC_CLOSED", "the replica is closed or not yet open")                      \
  X(REPLIC_ECOLUMN, "REPLIC_UNKNOWN_COLUMN", "the table has no such column")                       \
  X(REPLIC_EDIRECT, "REPLIC_DIRECT_WRITE", "SQL that writes to a replicated table")                \
  X(REPLIC_EGONE, "REPLIC_FILE_GONE", "the file was removed, renamed or replaced")                 \
  X(REPLIC_EFORK, "REPLIC_FORK", "two histories under one peerId")                                 \
  X(REPLIC_EKEY, "REPLIC_KEY", "a primary key value is missing or NULL")                           \
  X(REPLIC_ELOAD, "REPLIC_LOAD", "the native addon cannot be loaded")                              \
  X(REPLIC_ELOCKED, "REPLIC_LOCKED", "the file is open in another Replica")                        \
  X(REPLIC_EMIGRATION, "REPLIC_MIGRATION", "a migration cannot be applied")                        \
  X(REPLIC_ENODELETE, "REPLIC_NO_DELETED_AT", "the table has no deletedAt column")                 \
  X(REPLIC_ENOTFOUND, "REPLIC_NOT_FOUND", "a row, patch or peer that is needed does not exist")    \
  X(REPLIC_ENULLS, "REPLIC_NULLS", "T_patches has no _nulls column")                               \
  X(REPLIC_ERANGE, "REPLIC_OUT_OF_RANGE", "a value does not fit")                                  \
  X(REPLIC_EPEER, "REPLIC_PEER", "the other side is not the expected peer")                        \
  X(REPLIC_EPROTOCOL, "REPLIC_PROTOCOL", "a frame is corrupt or not understood")                   \
  X(REPLIC_EQUOTA, "REPLIC_QUOTA", "a peer brings more than a quota permits")                      \
  X(REPLIC_EREADONLY, "REPLIC_READ_ONLY", "a peer that may only read has written")                 \
  X(REPLIC_ERESTORED, "REPLIC_RESTORED", "the file is older than what its peer has issued")        \
  X(REPLIC_ESCHEMA, "REPLIC_SCHEMA", "a table cannot be replicated as it is declared")             \
  X(REPLIC_ETABLE, "REPLIC_UNKNOWN_TABLE", "there is no such replicated table")                    \
  X(REPLIC_ETIMEOUT, "REPLIC_TIMEOUT", "it did not happen in time")                                \
  X(REPLIC_ETOKEN, "REPLIC_TOKEN", "a session token is malformed")                                 \
  X(REPLIC_ETOOLARGE, "REPLIC_TOO_LARGE", "a group or frame exceeds its limit")                    \
  X(REPLIC_ETRANSACTION, "REPLIC_TRANSACTION", "transaction control belongs to the engine")        \
  X(REPLIC_EUSAGE, "REPLIC_USAGE", "a call or option is wrong")                                    \
  X(REPLIC_EVERSION, "REPLIC_VERSION", "the other side speaks another protocol version")

enum {
  REPLIC_OK = 0,
  REPLIC_ERROR_BASE = -1000, /* below zero, so that SQLite's positive codes stay as they are */
#define REPLIC_ERROR_ENUM(id, name, meaning) id,
  REPLIC_ERRORS(REPLIC_ERROR_ENUM)
#undef REPLIC_ERROR_ENUM
};

#endif

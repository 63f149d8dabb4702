/* error.c - texts and names of codes: what went wrong last. */
#include <stdarg.h>

#include "base/base.h"
#include "state.h"

#define NAME(code)                                                                                 \
  { code, #code }
static const struct {
  int code;
  const char *name;
} SQLITE_NAMES[] = {
    NAME(SQLITE_ERROR),
    NAME(SQLITE_INTERNAL),
    NAME(SQLITE_PERM),
    NAME(SQLITE_ABORT),
    NAME(SQLITE_BUSY),
    NAME(SQLITE_LOCKED),
    NAME(SQLITE_NOMEM),
    NAME(SQLITE_READONLY),
    NAME(SQLITE_INTERRUPT),
    NAME(SQLITE_IOERR),
    NAME(SQLITE_CORRUPT),
    NAME(SQLITE_NOTFOUND),
    NAME(SQLITE_FULL),
    NAME(SQLITE_CANTOPEN),
    NAME(SQLITE_PROTOCOL),
    NAME(SQLITE_SCHEMA),
    NAME(SQLITE_TOOBIG),
    NAME(SQLITE_CONSTRAINT),
    NAME(SQLITE_MISMATCH),
    NAME(SQLITE_MISUSE),
    NAME(SQLITE_NOLFS),
    NAME(SQLITE_AUTH),
    NAME(SQLITE_RANGE),
    NAME(SQLITE_NOTADB),
    NAME(SQLITE_ABORT_ROLLBACK),
    NAME(SQLITE_BUSY_RECOVERY),
    NAME(SQLITE_BUSY_SNAPSHOT),
    NAME(SQLITE_BUSY_TIMEOUT),
    NAME(SQLITE_CANTOPEN_ISDIR),
    NAME(SQLITE_CANTOPEN_FULLPATH),
    NAME(SQLITE_CANTOPEN_SYMLINK),
    NAME(SQLITE_CONSTRAINT_CHECK),
    NAME(SQLITE_CONSTRAINT_DATATYPE),
    NAME(SQLITE_CONSTRAINT_FOREIGNKEY),
    NAME(SQLITE_CONSTRAINT_FUNCTION),
    NAME(SQLITE_CONSTRAINT_NOTNULL),
    NAME(SQLITE_CONSTRAINT_PRIMARYKEY),
    NAME(SQLITE_CONSTRAINT_ROWID),
    NAME(SQLITE_CONSTRAINT_TRIGGER),
    NAME(SQLITE_CONSTRAINT_UNIQUE),
    NAME(SQLITE_CONSTRAINT_VTAB),
    NAME(SQLITE_CORRUPT_INDEX),
    NAME(SQLITE_CORRUPT_SEQUENCE),
    NAME(SQLITE_IOERR_ACCESS),
    NAME(SQLITE_IOERR_CLOSE),
    NAME(SQLITE_IOERR_DELETE),
    NAME(SQLITE_IOERR_FSTAT),
    NAME(SQLITE_IOERR_FSYNC),
    NAME(SQLITE_IOERR_LOCK),
    NAME(SQLITE_IOERR_MMAP),
    NAME(SQLITE_IOERR_NOMEM),
    NAME(SQLITE_IOERR_READ),
    NAME(SQLITE_IOERR_SHMMAP),
    NAME(SQLITE_IOERR_SHMOPEN),
    NAME(SQLITE_IOERR_SHMSIZE),
    NAME(SQLITE_IOERR_SHORT_READ),
    NAME(SQLITE_IOERR_TRUNCATE),
    NAME(SQLITE_IOERR_WRITE),
    NAME(SQLITE_READONLY_CANTINIT),
    NAME(SQLITE_READONLY_CANTLOCK),
    NAME(SQLITE_READONLY_DBMOVED),
    NAME(SQLITE_READONLY_DIRECTORY),
    NAME(SQLITE_READONLY_RECOVERY),
    NAME(SQLITE_READONLY_ROLLBACK),
    NAME(SQLITE_ERROR_SNAPSHOT),
};

/* What to do, behind SQLite's own text. */
static const struct {
  int code;
  const char *text;
} HINTS[] = {
    {SQLITE_CONSTRAINT_NOTNULL, ": give it a value where the row is created"},
    {SQLITE_CONSTRAINT_DATATYPE, ": a STRICT table takes values of the declared type only"},
    {SQLITE_CONSTRAINT_CHECK, ": correct the row, or the CHECK in a migration"},
    {SQLITE_CONSTRAINT_FOREIGNKEY, ": write the row that it refers to first, or in the same batch"},
    {SQLITE_NOTADB, ": give another path, or restore a backup; the file was left as it is"},
    {SQLITE_FULL, ": make room; nothing of this call was written"},
};

static const struct {
  int code;
  const char *name;
} REPLIC_NAMES[] = {
#define REPLIC_ERROR_NAME(id, name, meaning) {id, name},
    REPLIC_ERRORS(REPLIC_ERROR_NAME)
#undef REPLIC_ERROR_NAME
};

const char *replic_code_name(int code) {
  for (size_t i = 0; code < 0 && i < sizeof REPLIC_NAMES / sizeof *REPLIC_NAMES; i++)
    if (REPLIC_NAMES[i].code == code) return REPLIC_NAMES[i].name;
  for (int pass = 0; pass < 2;
       pass++, code &= 0xff) /* an extended code without a name has its primary one */
    for (size_t i = 0; i < sizeof SQLITE_NAMES / sizeof *SQLITE_NAMES; i++)
      if (SQLITE_NAMES[i].code == code) return SQLITE_NAMES[i].name;
  return "SQLITE_ERROR";
}

const char *replic_error_text(const replic *r) {
  return r && r->error ? r->error : "no error";
}

int replic__fail(replic *r, int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  char *text = sqlite3_vmprintf(format, args);
  va_end(args);
  sqlite3_free(r->error); /* only now: an argument may point into it */
  r->error = text;
  return code;
}

int replic__fail_db(replic *r, int code) {
  if (code == REPLIC_OK || code < 0) return code;
  int extended = r->db ? sqlite3_extended_errcode(r->db) : code;
  if ((extended & 0xff) != (code & 0xff)) extended = code;
  const char *text =
      r->db && extended != SQLITE_NOMEM ? sqlite3_errmsg(r->db) : sqlite3_errstr(code);
  const char *hint = "";
  for (size_t i = 0; i < sizeof HINTS / sizeof *HINTS; i++)
    if (HINTS[i].code == extended) hint = HINTS[i].text;
  return replic__fail(r, extended, "%s%s", text, hint);
}

/* https://sqlite.org/rescode.html. Of SQLITE_ERROR most is what a function or an expression has
 * raised; the rest is SQL that cannot be compiled under this schema, which no other attempt mends
 * either. A corrupt virtual table is content of the application's; a corrupt file is not. */
int replic__lies_in_data(int code) {
  if (code == SQLITE_CORRUPT_VTAB) return 1;
  if (code == SQLITE_ERROR_SNAPSHOT || code == SQLITE_ERROR_RETRY) return 0;
  switch (code > 0 ? code & 0xff : REPLIC_OK) {
  case SQLITE_ERROR:
  case SQLITE_TOOBIG:
  case SQLITE_CONSTRAINT:
  case SQLITE_MISMATCH:
  case SQLITE_RANGE:
  case SQLITE_AUTH: return 1;
  default: return 0;
  }
}

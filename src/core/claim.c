/* claim.c - what keeps the file ours while it is open.
 *
 * SQLite locks with fcntl's POSIX locks. Those belong to the process, and any close() of the file
 * in it drops them all: a readFileSync of the application's, another SQLite library, a second copy
 * of this package. Then another program takes itself for the only one, removes the WAL, and what is
 * committed from then on is in a file without a name. Locks of an open file description
 * (F_OFD_SETLK, Linux and macOS) end with their own descriptor only, and conflict with POSIX locks,
 * those of the same process too. So there are four of them:
 *
 *   T-replic   write, on OURS       whoever has it has the file; beside SQLite's own lock, which is
 *   T          write, on OURS       all there is elsewhere. Of T itself too: its names may be many
 *   T          read, on SHARED      as SQLite's own; nobody else can believe to be the last one
 *   T-shm      whatever SQLite does there: it uses one descriptor per file and process
 *
 * The lock on SHARED conflicts with what our own SQLite takes to remove the WAL, or to leave its
 * mode. So it is taken when that mode is there, and released before the last connection closes.
 *
 * The core does no I/O but SQLite's: the calls are those of its VFS (xGetSystemCall). A VFS without
 * them (Windows, where locks belong to a handle anyway; tests) has none of this. */
#ifndef _WIN32
/* for F_OFD_SETLK, and as SQLite has it */
#define _GNU_SOURCE 1        /* NOLINT(bugprone-reserved-identifier) */
#define _FILE_OFFSET_BITS 64 /* NOLINT(bugprone-reserved-identifier) */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#endif

#include <stdarg.h>
#include <string.h>

#include "core.h"

#ifdef _WIN32

int replic__claim_ready(void) {
  return 0;
}

int replic__claim(const char *path, int *fd) {
  (void)path;
  *fd = -1;
  return REPLIC_OK;
}

void replic__unclaim(int *fd) {
  *fd = -1;
}

int replic__claims_open(replic *r) {
  (void)r;
  return REPLIC_OK;
}

int replic__claims_share(replic *r) {
  (void)r;
  return REPLIC_OK;
}

void replic__claims_release(replic *r) {
  (void)r;
}

void replic__claims_close(replic *r) {
  (void)r;
}

#else

#ifndef F_OFD_SETLK
#define F_OFD_SETLK (-1) /* fcntl refuses it, as an old kernel does */
#define F_OFD_GETLK (-1)
#endif

enum {
  SHM_END = 0x1000, /* SQLite's locks on -shm lie below it, those on databases far above */
  SHARED = 0x40000002,
  SHARED_SIZE = 510,
  OURS = 0x50000000, /* SQLite locks nothing there */
  FIRST_FD = 3       /* below it an application may print into it */
};

static struct {
  int (*open)(const char *, int, int);
  int (*close)(int);
  int (*fcntl)(int, int, ...);
  int (*fstat)(int, struct stat *);
  int (*stat)(const char *, struct stat *);
} sys; /* fixed once it is filled */

/* ---- the system's calls ---- */

/* `op`: F_OFD_SETLK or F_OFD_GETLK. The system's result; -1: errno says why. */
static int ofd_lock(int fd, int op, struct flock *lock) {
  struct flock asked = *lock;
  asked.l_pid = 0; /* or it is refused */
  int result = sys.fcntl(fd, op, &asked);
  if (result == 0 && op == F_OFD_GETLK) *lock = asked;
  return result;
}

static int is_of_shm(const struct flock *lock) {
  return lock->l_whence == SEEK_SET && lock->l_start < SHM_END;
}

/* SQLite's fcntl. Where the system has no such locks, it is asked as ever. */
static int sqlite_fcntl(int fd, int op, ...) {
  va_list args;
  va_start(args, op);
  int is_lock = op == F_SETLK || op == F_SETLKW || op == F_GETLK;
  struct flock *lock = is_lock ? va_arg(args, struct flock *) : NULL;
  int value = is_lock ? 0 : va_arg(args, int), result = -1;
  va_end(args);
  if (!is_lock) return sys.fcntl(fd, op, value);
  int is_ours = op != F_SETLKW && is_of_shm(lock);
  if (is_ours) result = ofd_lock(fd, op == F_GETLK ? F_OFD_GETLK : F_OFD_SETLK, lock);
  return is_ours && (result == 0 || errno != EINVAL) ? result : sys.fcntl(fd, op, lock);
}

static int take_calls(sqlite3_vfs *vfs) {
  sys.open = (int (*)(const char *, int, int))vfs->xGetSystemCall(vfs, "open");
  sys.close = (int (*)(int))vfs->xGetSystemCall(vfs, "close");
  sys.fstat = (int (*)(int, struct stat *))vfs->xGetSystemCall(vfs, "fstat");
  sys.stat = (int (*)(const char *, struct stat *))vfs->xGetSystemCall(vfs, "stat");
  int (*found)(int, int, ...) = (int (*)(int, int, ...))vfs->xGetSystemCall(vfs, "fcntl");
  if (!sys.open || !sys.close || !sys.fstat || !sys.stat || !found) return 0;
  sys.fcntl = found;
  return F_OFD_SETLK == -1 ||
         vfs->xSetSystemCall(vfs, "fcntl", (sqlite3_syscall_ptr)sqlite_fcntl) == SQLITE_OK;
}

int replic__claim_ready(void) {
  if (sqlite3_initialize() != SQLITE_OK) return 0;
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  if (!vfs || vfs->iVersion < 3 || !vfs->xGetSystemCall) return 0;
  sqlite3_mutex *mutex = sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_APP2);
  sqlite3_mutex_enter(mutex);
  int is_ready = sys.fcntl || take_calls(vfs);
  sqlite3_mutex_leave(mutex);
  return is_ready;
}

/* ---- locks ---- */

/* Closing one also drops what this process has of POSIX locks on the file: see replic__claim. */
static int open_own(const char *path, int flags) {
  int fd, low = -1;
  do {
    fd = sys.open(path, flags | O_CLOEXEC, 0);
  } while (fd < 0 && errno == EINTR);
  if (fd >= 0 && fd < FIRST_FD) {
    low = fd;
    fd = sys.fcntl(low, F_DUPFD_CLOEXEC, FIRST_FD);
    sys.close(low);
  }
  return fd;
}

/* 1: another descriptor has it. A system that has no such locks has none that conflict. */
static int is_taken(int fd, int type, int64_t start, int64_t len) {
  struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET};
  lock.l_start = start;
  lock.l_len = len;
  if (ofd_lock(fd, F_OFD_SETLK, &lock) == 0) return 0;
  return errno == EAGAIN || errno == EACCES;
}

int replic__claim(const char *path, int *fd) {
  *fd = -1;
  if (!replic__claim_ready()) return REPLIC_OK;
  *fd = open_own(path, O_RDWR);
  if (*fd < 0) return SQLITE_CANTOPEN;
  if (!is_taken(*fd, F_WRLCK, OURS, 1)) return REPLIC_OK;
  replic__unclaim(fd);
  return SQLITE_BUSY;
}

void replic__unclaim(int *fd) {
  if (*fd >= 0) sys.close(*fd);
  *fd = -1;
}

/* ---- a replica's ---- */

struct replic__claims {
  int database; /* a descriptor of our own */
};

static int fail_taken(replic *r, const char *path) {
  return replic__fail(r, REPLIC_ELOCKED,
                      "%s is open in another Replica under another name (a hard link or a mount): "
                      "close that one first, or give this process a file and a link of its own",
                      path);
}

int replic__claims_open(replic *r) {
  const char *path = sqlite3_db_filename(r->db, "main");
  if (!replic__claim_ready()) return REPLIC_OK;
  replic__claims *claims = r->claims = sqlite3_malloc64(sizeof *claims);
  if (!claims) return SQLITE_NOMEM;
  *claims = (replic__claims){.database = -1};
  int rc = replic__claim(path, &claims->database);
  if (rc == SQLITE_BUSY) return fail_taken(r, path);
  return rc == REPLIC_OK ? rc : replic__fail(r, rc, "%s: cannot be opened", path);
}

int replic__claims_share(replic *r) {
  replic__claims *claims = r->claims;
  if (!claims || !is_taken(claims->database, F_RDLCK, SHARED, SHARED_SIZE)) return REPLIC_OK;
  return replic__fail(
      r, SQLITE_BUSY,
      "%s is locked by another program, which does not use it in WAL mode: end that "
      "one first",
      r->path);
}

void replic__claims_release(replic *r) {
  struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = SHARED};
  lock.l_len = SHARED_SIZE;
  if (r->claims) ofd_lock(r->claims->database, F_OFD_SETLK, &lock);
}

void replic__claims_close(replic *r) {
  if (r->claims) replic__unclaim(&r->claims->database);
  sqlite3_free(r->claims);
  r->claims = NULL;
}

#endif

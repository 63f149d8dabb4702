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
 * No lock keeps an operator from removing, renaming or replacing the files. So after each commit it
 * is looked at whether their folder has changed (a call of fstat); where it has, and at each
 * heartbeat, whether each file is still the one of its name. Once one is not, nothing more is
 * written: r->gone says why, savepoints are refused with it, and so is the commit that has found
 * it. What is in the WAL is moved into the database: the WAL may be the file that has lost its
 * name, or lie beside another database by now, which must not take it for its own.
 *
 * The core does no I/O but SQLite's: the calls are those of its VFS (xGetSystemCall). A VFS without
 * them (Windows, where locks belong to a handle anyway, and open files keep their names; tests) has
 * none of this. */
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

#include "file/file.h"
#include "state.h"

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

char *replic__trouble(const char *path) {
  (void)path;
  return NULL;
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

int replic__claims_look(replic *r, int thorough) {
  (void)r, (void)thorough;
  return REPLIC_OK;
}

void replic__claims_settle(replic *r) {
  (void)r;
}

int replic__fail_gone(replic *r) {
  return replic__fail(r, REPLIC_EGONE, "%s", r->gone);
}

const char *replic_gone(const replic *r) {
  return r->gone;
}

uint64_t replic_file_id(const replic *r) {
  (void)r;
  return 0;
}

int replic_file_is(const char *path, uint64_t id) {
  (void)path, (void)id;
  return 1;
}

#else

#ifndef F_OFD_SETLK
#define F_OFD_SETLK (-1) /* fcntl refuses it, as an old kernel does */
#define F_OFD_GETLK (-1)
#endif

#ifdef __APPLE__
#define st_MTIM st_mtimespec
#define st_CTIM st_ctimespec
#else
#define st_MTIM st_mtim
#define st_CTIM st_ctim
#endif

#ifdef O_PATH
#define OPEN_TO_LOOK O_PATH /* needs no permission to read */
#else
#define OPEN_TO_LOOK O_RDONLY
#endif

enum {
  SHM_IN_USE = 128, /* a byte of -shm that SQLite locks as long as it has it open */
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
  int (*access)(const char *, int);
  uid_t (*geteuid)(void);
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
  sys.access = (int (*)(const char *, int))vfs->xGetSystemCall(vfs, "access");
  sys.geteuid = (uid_t(*)(void))vfs->xGetSystemCall(vfs, "geteuid");
  int (*found)(int, int, ...) = (int (*)(int, int, ...))vfs->xGetSystemCall(vfs, "fcntl");
  if (!sys.open || !sys.close || !sys.fstat || !sys.stat || !sys.access || !sys.geteuid || !found)
    return 0;
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

/* ---- why a file cannot be opened ---- */

/* Of an absolute path; the caller frees. */
static char *folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return sqlite3_mprintf("%.*s", slash && slash > path ? (int)(slash - path) : 1, path);
}

enum { MAY_READ_AND_WRITE = 4 | 2, MAY_MAKE_FILES = 2 | 1 }; /* of access() */

/* NULL: this process may do that, or the file is not there. */
static char *denied(const char *path, int mode, const char *what) {
  struct stat found;
  if (sys.stat(path, &found) != 0 || sys.access(path, mode) == 0) return NULL;
  if (errno == EROFS)
    return sqlite3_mprintf("%s lies on a file system that is mounted read-only: mount it for "
                           "writing (mount -o remount,rw), or use another folder",
                           path);
  if (errno != EACCES) return NULL;
  if (found.st_uid == sys.geteuid())
    return sqlite3_mprintf(
        "%s has mode %03o, so that not even user %u, whose it is, may %s: change "
        "its mode (chmod u+rwX)",
        path, (unsigned)found.st_mode & 0777, (unsigned)found.st_uid, what);
  return sqlite3_mprintf(
      "%s belongs to user %u and group %u, with mode %03o, and this process runs as user %u, which "
      "may not %s: run it as user %u, or give the file to user %u (chown)",
      path, (unsigned)found.st_uid, (unsigned)found.st_gid, (unsigned)found.st_mode & 0777,
      (unsigned)sys.geteuid(), what, (unsigned)found.st_uid, (unsigned)sys.geteuid());
}

static int are_used_up(void) {
  int fd = sys.open("/", O_RDONLY | O_CLOEXEC, 0);
  if (fd >= 0) sys.close(fd);
  return fd < 0 && (errno == EMFILE || errno == ENFILE);
}

char *replic__trouble(const char *path) {
  static const char *const WHOSE[] = {"", "-wal", "-shm", "-journal", "-replic"};
  if (!replic__claim_ready()) return NULL;
  if (are_used_up())
    return sqlite3_mprintf("this process has as many files and sockets open as it may: raise the "
                           "limit (ulimit -n, LimitNOFILE of systemd), or close some");
  char *why = NULL;
  for (size_t i = 0; *path && !why && i < sizeof WHOSE / sizeof *WHOSE; i++) {
    char *name = sqlite3_mprintf("%s%s", path, WHOSE[i]);
    if (name) why = denied(name, MAY_READ_AND_WRITE, "read and write it");
    sqlite3_free(name);
  }
  char *folder = why || !*path ? NULL : folder_of(path);
  if (folder) why = denied(folder, MAY_MAKE_FILES, "make files there");
  sqlite3_free(folder);
  return why;
}

/* ---- a replica's ---- */

enum { DATABASE, WAL, SHM, WITNESS, GIVEN, N_FILES }; /* GIVEN: the path, perhaps of a link */
enum { SETTLED_MS = 100 }; /* a file system's times are a few milliseconds coarse */
static const char *const SUFFIXES[N_FILES] = {"", "-wal", "-shm", "-replic", ""};

struct replic__claims {
  int database, folder; /* descriptors of our own; -1: none */
  uint64_t inode;       /* of `database` */
  int counts_links;     /* and st_nlink of it means something */
  int is_elsewhere; /* than `folder`, which tells nothing of it: the file is a mount by itself */
  int is_watching;
  char *names[N_FILES];
  uint64_t inodes[N_FILES]; /* by their names; 0: it cannot be told */
  int64_t changed[4];       /* when `folder` was: seconds and nanoseconds, twice */
  int is_settled;     /* so long before it was looked at that the next change has another time */
  int64_t written[2]; /* when `database` was, by nobody else: seconds, nanoseconds */
  int is_at_rest;     /* r->gone, and the WAL is empty */
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
  *claims = (replic__claims){.database = -1, .folder = -1};
  int rc = replic__claim(path, &claims->database);
  if (rc == SQLITE_BUSY) return fail_taken(r, path);
  return rc == REPLIC_OK ? rc : replic__fail(r, rc, "%s: cannot be opened once more", path);
}

static int share(replic *r) {
  if (!is_taken(r->claims->database, F_RDLCK, SHARED, SHARED_SIZE)) return REPLIC_OK;
  return replic__fail(
      r, SQLITE_BUSY,
      "%s is locked by another program, which does not use it in WAL mode: end that "
      "one first",
      r->path);
}

/* ---- what has become of the files ---- */

static uint64_t inode_of(const char *path) {
  struct stat found;
  return sys.stat(path, &found) == 0 ? (uint64_t)found.st_ino : 0;
}

/* Without it changes are found by heartbeats. */
static int open_folder(const char *path) {
  char *folder = folder_of(path);
  int fd = folder ? open_own(folder, O_DIRECTORY | OPEN_TO_LOOK) : -1;
  sqlite3_free(folder);
  return fd;
}

static void note_written(replic__claims *claims, const struct stat *own) {
  claims->written[0] = own->st_MTIM.tv_sec;
  claims->written[1] = own->st_MTIM.tv_nsec;
}

static int watch(replic *r) {
  replic__claims *claims = r->claims;
  const char *path = sqlite3_db_filename(r->db, "main");
  struct stat own, folder;
  int moved = 0;
  for (int i = 0; i < N_FILES; i++) {
    claims->names[i] = sqlite3_mprintf("%s%s", i == GIVEN ? r->path : path, SUFFIXES[i]);
    if (!claims->names[i]) return SQLITE_NOMEM;
    claims->inodes[i] = inode_of(claims->names[i]);
  }
  claims->folder = open_folder(path);
  if (sys.fstat(claims->database, &own) != 0) return REPLIC_OK;
  claims->inode = (uint64_t)own.st_ino;
  claims->counts_links = own.st_nlink > 0;
  note_written(claims, &own);
  claims->is_elsewhere =
      claims->folder < 0 || sys.fstat(claims->folder, &folder) != 0 || folder.st_dev != own.st_dev;
  claims->is_watching = 1;
  /* where a file has other numbers by its name than by its descriptor, they say nothing */
  if (claims->inode == claims->inodes[DATABASE])
    sqlite3_file_control(r->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
  else
    memset(claims->inodes, 0, sizeof claims->inodes);
  return moved ? replic__fail(r, REPLIC_EGONE, "%s was replaced while it was opened: open it again",
                              r->path)
               : REPLIC_OK;
}

int replic__claims_share(replic *r) {
  if (!r->claims) return REPLIC_OK;
  int rc = share(r);
  return rc == REPLIC_OK ? watch(r) : rc;
}

/* What has become of one of them; NULL: nothing, or it cannot be told. `tells`: numbers say whether
 * it is the same one. */
static const char *fate(const replic__claims *claims, int which, int tells) {
  struct stat found;
  if (!claims->inodes[which]) return NULL;
  if (sys.stat(claims->names[which], &found) != 0)
    return errno == ENOENT || errno == ENOTDIR ? "has been removed or renamed" : NULL;
  return !tells || found.st_ino == claims->inodes[which] ? NULL
                                                         : "has been replaced by another file";
}

static int has_changed(replic__claims *claims, int64_t now_ms) {
  struct stat folder;
  if (claims->folder < 0 || sys.fstat(claims->folder, &folder) != 0) return 0;
  int64_t times[] = {folder.st_MTIM.tv_sec, folder.st_MTIM.tv_nsec, folder.st_CTIM.tv_sec,
                     folder.st_CTIM.tv_nsec};
  int64_t modified_ms = times[0] * 1000 + times[1] / 1000000,
          changed_ms = times[2] * 1000 + times[3] / 1000000;
  int changed = !claims->is_settled || memcmp(times, claims->changed, sizeof times) != 0;
  memcpy(claims->changed, times, sizeof times);
  claims->is_settled = now_ms - modified_ms >= SETTLED_MS && now_ms - changed_ms >= SETTLED_MS;
  return changed;
}

static int note_gone(replic *r, int which, const char *fate_of_it) {
  r->gone = sqlite3_mprintf(
      "%s %s while %s was open: what is written from here on would be lost, so nothing is. Close "
      "the Replica, see to its files, and open it again",
      r->claims->names[which], fate_of_it, r->path);
  if (!r->gone) return SQLITE_NOMEM;
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = REPLIC_EGONE}, "%s", r->gone);
  return replic__fail_gone(r);
}

int replic__fail_gone(replic *r) {
  return replic__fail(r, REPLIC_EGONE, "%s", r->gone);
}

int replic__claims_look(replic *r, int thorough) {
  replic__claims *claims = r->claims;
  struct stat own = {.st_ino = 0};
  if (r->gone) return replic__fail_gone(r);
  if (!claims || !claims->is_watching) return REPLIC_OK;
  int names_too = has_changed(claims, r->now_ms) || thorough;
  if (!names_too && !claims->is_elsewhere) return REPLIC_OK;
  if (sys.fstat(claims->database, &own) != 0) return REPLIC_OK;
  int is_nameless = claims->counts_links && own.st_nlink == 0;
  for (int i = 0; names_too && i < N_FILES; i++) {
    const char *fate_of_it = fate(claims, i, (uint64_t)own.st_ino == claims->inode);
    if (fate_of_it) return note_gone(r, i, fate_of_it);
  }
  if (is_nameless) return note_gone(r, DATABASE, "has been removed where it was mounted from");
  note_written(claims, &own);
  return REPLIC_OK;
}

/* 1: nobody else has put a file of that name there. */
static int is_free(const replic__claims *claims, int which) {
  uint64_t inode = inode_of(claims->names[which]);
  return !inode || inode == claims->inodes[which];
}

/* 1: nobody has written by the WAL that lies there in place of ours. One that is empty may have
 * been moved into the database already. */
static int is_blank(const replic__claims *claims) {
  struct stat wal, own;
  return sys.stat(claims->names[WAL], &wal) == 0 && wal.st_size == 0 &&
         sys.fstat(claims->database, &own) == 0 && own.st_MTIM.tv_sec == claims->written[0] &&
         own.st_MTIM.tv_nsec == claims->written[1];
}

/* 1: nobody else reads or writes by that -shm, nor will until `fd` of it is closed. */
static int keep_others_off(int fd) {
  return fd >= 0 && !is_taken(fd, F_WRLCK, SHM_IN_USE, 1);
}

/* SQLite asks before it moves anything. Without it, it would go on as far as it can. */
static int give_up(void *db, int n) {
  (void)n;
  sqlite3_interrupt(db);
  return 0;
}

/* All of it, or nothing: in a file of which some pages are newer than others, and whose WAL ends
 * with this process, an index would not fit its table. */
static int empty_wal(replic *r) {
  struct stat own;
  sqlite3_busy_handler(r->db, give_up, r->db);
  int rc = sqlite3_wal_checkpoint_v2(r->db, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
  sqlite3_busy_handler(r->db, NULL, NULL);
  if (sys.fstat(r->claims->database, &own) == 0) note_written(r->claims, &own);
  return rc == SQLITE_OK;
}

/* Who has looked at the database since its WAL was removed has left another one, which is empty,
 * and an index (-shm). */
static int settle_beside(replic *r) {
  const replic__claims *claims = r->claims;
  if (is_free(claims, SHM)) return is_blank(claims) && empty_wal(r);
  int fd = open_own(claims->names[SHM], O_RDWR);
  int done = keep_others_off(fd) && is_blank(claims) && empty_wal(r);
  replic__unclaim(&fd);
  return done;
}

void replic__claims_settle(replic *r) {
  replic__claims *claims = r->claims;
  if (!r->gone || claims->is_at_rest) return;
  if (!is_free(claims, WAL))
    claims->is_at_rest = settle_beside(r);
  else if (is_free(claims, SHM))
    claims->is_at_rest = empty_wal(r);
}

const char *replic_gone(const replic *r) {
  return r->gone;
}

/* ---- connections of others ---- */

uint64_t replic_file_id(const replic *r) {
  return r->claims ? r->claims->inodes[DATABASE] : 0;
}

int replic_file_is(const char *path, uint64_t id) {
  return !id || inode_of(path) == id;
}

/* ---- the end ---- */

void replic__claims_release(replic *r) {
  struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = SHARED};
  lock.l_len = SHARED_SIZE;
  if (r->claims) ofd_lock(r->claims->database, F_OFD_SETLK, &lock);
}

void replic__claims_close(replic *r) {
  replic__claims *claims = r->claims;
  if (!claims) return;
  replic__unclaim(&claims->database);
  replic__unclaim(&claims->folder);
  for (int i = 0; i < N_FILES; i++) sqlite3_free(claims->names[i]);
  sqlite3_free(claims);
  r->claims = NULL;
}

#endif

/* memvfs.c - see memvfs.h */
#include "memvfs.h"

#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, N_SHM_LOCKS = 8, MAX_REGIONS = 64 };

typedef struct content {
  uint8_t *data;
  int64_t len, cap;
} content;

typedef struct handle handle;

typedef struct file {
  struct file *next;
  char *path;
  int disk;
  content written, synced;
  int64_t changed_from, changed_to; /* what differs lies in here; from >= to: nothing does */
  bool deleted;                     /* its name is gone, and handles still hold it */
  bool was_synced;                  /* else a power cut may take its name, too */
  handle *handles;
  uint8_t *regions[MAX_REGIONS]; /* the shared memory of WAL */
  int n_regions;
} file;

struct handle {
  sqlite3_file base;
  handle *next;
  file *file;
  int level; /* SQLITE_LOCK_… */
  bool has_shm;
  unsigned shm_shared, shm_exclusive; /* bit per lock */
};

typedef struct disk {
  file *files;
  bool frozen, for_good, has_failed;
  int64_t countdown;
} disk;

static disk *disks;
static int n_disks;
static bool keeps_synced = true;
static bool is_powersafe = true;
static sqlite3_vfs *former;

static void *grow(void *old, size_t size) {
  void *grown = realloc(old, size);
  if (!grown) abort();
  return grown;
}

static disk *disk_at(int number) {
  if (number >= n_disks) {
    int n = 2 * number + 8;
    disks = grow(disks, (size_t)n * sizeof *disks);
    memset(disks + n_disks, 0, (size_t)(n - n_disks) * sizeof *disks);
    n_disks = n;
  }
  return &disks[number];
}

static int disk_of(const char *path) {
  return path[0] == '/' ? (int)strtol(path + 1, NULL, 10) : 0;
}

/* ---- content ---- */

static void resize(content *c, int64_t len) {
  if (len > c->cap) {
    c->cap = len > 2 * c->cap ? len : 2 * c->cap;
    c->data = grow(c->data, (size_t)c->cap);
  }
  if (len > c->len) memset(c->data + c->len, 0, (size_t)(len - c->len));
  c->len = len;
}

static void assign(content *to, const content *from) {
  resize(to, from->len);
  if (from->len) memcpy(to->data, from->data, (size_t)from->len);
}

static void note_change(file *f, int64_t from, int64_t to) {
  if (f->changed_from >= f->changed_to) {
    f->changed_from = from;
    f->changed_to = to;
    return;
  }
  if (from < f->changed_from) f->changed_from = from;
  if (to > f->changed_to) f->changed_to = to;
}

static void make_durable(file *f) {
  f->was_synced = true;
  if (!keeps_synced) return;
  int64_t from = f->changed_from, to = f->changed_to;
  resize(&f->synced, f->written.len);
  if (to > f->written.len) to = f->written.len;
  if (from < to) memcpy(f->synced.data + from, f->written.data + from, (size_t)(to - from));
  f->changed_from = f->changed_to = 0;
}

/* ---- files ---- */

static file *find_file(const char *path) {
  for (file *f = disk_at(disk_of(path))->files; f; f = f->next) {
    if (!f->deleted && strcmp(f->path, path) == 0) return f;
  }
  return NULL;
}

static file *make_file(const char *path) {
  file *f = grow(NULL, sizeof *f);
  *f = (file){.disk = disk_of(path)};
  size_t len = strlen(path) + 1;
  f->path = grow(NULL, len);
  memcpy(f->path, path, len);
  disk *d = disk_at(f->disk);
  f->next = d->files;
  d->files = f;
  return f;
}

static void drop_regions(file *f) {
  while (f->n_regions > 0) free(f->regions[--f->n_regions]);
}

static void free_file(file *f) {
  file **at = &disk_at(f->disk)->files;
  while (*at != f) at = &(*at)->next;
  *at = f->next;
  drop_regions(f);
  free(f->written.data);
  free(f->synced.data);
  free(f->path);
  free(f);
}

static void delete_file(file *f) {
  f->deleted = true;
  if (!f->handles) free_file(f);
}

/* ---- failures ---- */

static bool is_frozen(const file *f) {
  return disk_at(f->disk)->frozen;
}

/* Whether a change of this disk fails. */
static bool change_fails(int number) {
  disk *d = disk_at(number);
  if (d->frozen) return true;
  if (d->countdown == 0 || --d->countdown > 0) return false;
  d->has_failed = true;
  d->frozen = d->for_good;
  return true;
}

/* ---- methods of a file ---- */

static int vfs_read(sqlite3_file *base, void *out, int n, sqlite3_int64 from) {
  const file *f = ((handle *)base)->file;
  if (is_frozen(f)) return SQLITE_IOERR_READ;
  int64_t there = f->written.len - from;
  if (there > n) there = n;
  if (there > 0) memcpy(out, f->written.data + from, (size_t)there);
  if (there == n) return SQLITE_OK;
  if (there < 0) there = 0;
  memset((uint8_t *)out + there, 0, (size_t)(n - there));
  return SQLITE_IOERR_SHORT_READ;
}

static void put(file *f, const void *data, int64_t n, int64_t from) {
  int64_t len = f->written.len;
  if (from + n > len) resize(&f->written, from + n);
  memcpy(f->written.data + from, data, (size_t)n);
  note_change(f, from < len ? from : len, from + n);
}

static int vfs_write(sqlite3_file *base, const void *data, int n, sqlite3_int64 from) {
  file *f = ((handle *)base)->file;
  if (is_frozen(f)) return SQLITE_IOERR_WRITE;
  if (!change_fails(f->disk)) {
    put(f, data, n, from);
    return SQLITE_OK;
  }
  put(f, data, n / 2, from); /* it ends in the midst of it */
  return SQLITE_FULL;
}

static int vfs_truncate(sqlite3_file *base, sqlite3_int64 len) {
  file *f = ((handle *)base)->file;
  if (change_fails(f->disk)) return SQLITE_IOERR_TRUNCATE;
  note_change(f, len < f->written.len ? len : f->written.len,
              f->written.len > len ? f->written.len : len);
  resize(&f->written, len);
  return SQLITE_OK;
}

static int vfs_sync(sqlite3_file *base, int flags) {
  (void)flags;
  file *f = ((handle *)base)->file;
  if (change_fails(f->disk)) return SQLITE_IOERR_FSYNC;
  make_durable(f);
  return SQLITE_OK;
}

static int vfs_file_size(sqlite3_file *base, sqlite3_int64 *len) {
  const file *f = ((handle *)base)->file;
  if (is_frozen(f)) return SQLITE_IOERR_FSTAT;
  *len = f->written.len;
  return SQLITE_OK;
}

/* The highest level that another handle holds. */
static int level_of_others(const handle *h) {
  int level = SQLITE_LOCK_NONE;
  for (const handle *other = h->file->handles; other; other = other->next) {
    if (other != h && other->level > level) level = other->level;
  }
  return level;
}

static int vfs_lock(sqlite3_file *base, int level) {
  handle *h = (handle *)base;
  if (is_frozen(h->file)) return SQLITE_IOERR_LOCK;
  if (h->level >= level) return SQLITE_OK;
  int others = level_of_others(h);
  if (level == SQLITE_LOCK_SHARED && others >= SQLITE_LOCK_PENDING) return SQLITE_BUSY;
  if (level >= SQLITE_LOCK_RESERVED && others >= SQLITE_LOCK_RESERVED) return SQLITE_BUSY;
  if (level == SQLITE_LOCK_EXCLUSIVE && others >= SQLITE_LOCK_SHARED) {
    h->level = SQLITE_LOCK_PENDING; /* no new readers, until those there are gone */
    return SQLITE_BUSY;
  }
  h->level = level;
  return SQLITE_OK;
}

static int vfs_unlock(sqlite3_file *base, int level) {
  handle *h = (handle *)base;
  if (h->level > level) h->level = level;
  return SQLITE_OK;
}

static int vfs_check_reserved(sqlite3_file *base, int *is_reserved) {
  *is_reserved = level_of_others((handle *)base) >= SQLITE_LOCK_RESERVED;
  return SQLITE_OK;
}

static int vfs_file_control(sqlite3_file *base, int op, void *arg) {
  (void)base, (void)op, (void)arg;
  return SQLITE_NOTFOUND;
}

static int vfs_sector_size(sqlite3_file *base) {
  (void)base;
  return SECTOR;
}

static int vfs_characteristics(sqlite3_file *base) {
  (void)base;
  return is_powersafe ? SQLITE_IOCAP_POWERSAFE_OVERWRITE : 0;
}

static int vfs_shm_map(sqlite3_file *base, int i, int size, int extend, void volatile **out) {
  handle *h = (handle *)base;
  file *f = h->file;
  *out = NULL;
  if (is_frozen(f)) return SQLITE_IOERR_SHMMAP;
  h->has_shm = true;
  if (i >= MAX_REGIONS) return SQLITE_IOERR_SHMSIZE;
  while (extend && f->n_regions <= i) {
    f->regions[f->n_regions] = grow(NULL, (size_t)size);
    memset(f->regions[f->n_regions++], 0, (size_t)size);
  }
  if (i < f->n_regions) *out = f->regions[i];
  return SQLITE_OK;
}

static int vfs_shm_lock(sqlite3_file *base, int offset, int n, int flags) {
  handle *h = (handle *)base;
  unsigned mask = ((1u << n) - 1) << offset, shared = 0, exclusive = 0;
  if (flags & SQLITE_SHM_UNLOCK) {
    h->shm_shared &= ~mask;
    h->shm_exclusive &= ~mask;
    return SQLITE_OK;
  }
  if (is_frozen(h->file)) return SQLITE_IOERR_SHMLOCK;
  for (const handle *other = h->file->handles; other; other = other->next) {
    if (other == h) continue;
    shared |= other->shm_shared;
    exclusive |= other->shm_exclusive;
  }
  if (exclusive & mask) return SQLITE_BUSY;
  if (flags & SQLITE_SHM_EXCLUSIVE) {
    if (shared & mask) return SQLITE_BUSY;
    h->shm_exclusive |= mask;
  } else {
    h->shm_shared |= mask;
  }
  return SQLITE_OK;
}

static void vfs_shm_barrier(sqlite3_file *base) {
  (void)base;
}

/* The last one takes the shared memory with it: the next connection recovers from the WAL, as it
 * does after a crash of all processes. */
static int vfs_shm_unmap(sqlite3_file *base, int delete_it) {
  (void)delete_it;
  handle *h = (handle *)base;
  h->has_shm = false;
  h->shm_shared = h->shm_exclusive = 0;
  for (const handle *other = h->file->handles; other; other = other->next) {
    if (other->has_shm) return SQLITE_OK;
  }
  drop_regions(h->file);
  return SQLITE_OK;
}

static int vfs_close(sqlite3_file *base) {
  handle *h = (handle *)base;
  file *f = h->file;
  if (h->has_shm) vfs_shm_unmap(base, 0);
  handle **at = &f->handles;
  while (*at != h) at = &(*at)->next;
  *at = h->next;
  if (f->deleted && !f->handles) free_file(f);
  return SQLITE_OK;
}

static const sqlite3_io_methods METHODS = {
    .iVersion = 2,
    .xClose = vfs_close,
    .xRead = vfs_read,
    .xWrite = vfs_write,
    .xTruncate = vfs_truncate,
    .xSync = vfs_sync,
    .xFileSize = vfs_file_size,
    .xLock = vfs_lock,
    .xUnlock = vfs_unlock,
    .xCheckReservedLock = vfs_check_reserved,
    .xFileControl = vfs_file_control,
    .xSectorSize = vfs_sector_size,
    .xDeviceCharacteristics = vfs_characteristics,
    .xShmMap = vfs_shm_map,
    .xShmLock = vfs_shm_lock,
    .xShmBarrier = vfs_shm_barrier,
    .xShmUnmap = vfs_shm_unmap,
};

/* ---- methods of the VFS ---- */

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags, int *out) {
  (void)vfs;
  static int n_temporary;
  char temporary[32];
  handle *h = (handle *)base;
  *h = (handle){0};
  if (!path) { /* SQLite wants a file of its own, gone at its close */
    sqlite3_snprintf(sizeof temporary, temporary, "/0/temporary-%d", n_temporary++);
    path = temporary;
    flags |= SQLITE_OPEN_DELETEONCLOSE;
  }
  if (disk_at(disk_of(path))->frozen) return SQLITE_CANTOPEN;
  file *f = find_file(path);
  if (!f && !(flags & SQLITE_OPEN_CREATE)) return SQLITE_CANTOPEN;
  if (!f) f = make_file(path);
  if (flags & SQLITE_OPEN_DELETEONCLOSE) f->deleted = true;
  h->base.pMethods = &METHODS;
  h->file = f;
  h->next = f->handles;
  f->handles = h;
  if (out) *out = flags;
  return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_folder) {
  (void)vfs, (void)sync_folder;
  if (change_fails(disk_of(path))) return SQLITE_IOERR_DELETE;
  file *f = find_file(path);
  if (!f) return SQLITE_IOERR_DELETE_NOENT;
  delete_file(f);
  return SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *vfs, const char *path, int flags, int *out) {
  (void)vfs, (void)flags;
  if (disk_at(disk_of(path))->frozen) return SQLITE_IOERR_ACCESS;
  *out = find_file(path) != NULL;
  return SQLITE_OK;
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *path, int n, char *out) {
  (void)vfs;
  sqlite3_snprintf(n, out, "%s", path);
  return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *vfs, int n, char *out) {
  (void)vfs;
  memset(out, 1, (size_t)n);
  return n;
}

/* Whoever waits here waits for a lock, and in one thread nobody will release it. */
static int vfs_sleep(sqlite3_vfs *vfs, int microseconds) {
  (void)vfs;
  return microseconds;
}

static int vfs_current_time(sqlite3_vfs *vfs, sqlite3_int64 *out) {
  (void)vfs;
  *out = 212810760000000; /* Julian day in milliseconds, some day in 2031 */
  return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int n, char *out) {
  (void)vfs, (void)n, (void)out;
  return 0;
}

static sqlite3_vfs MEMORY = {
    .iVersion = 2,
    .szOsFile = sizeof(handle),
    .mxPathname = 128,
    .zName = "memvfs",
    .xOpen = vfs_open,
    .xDelete = vfs_delete,
    .xAccess = vfs_access,
    .xFullPathname = vfs_full_pathname,
    .xRandomness = vfs_randomness,
    .xSleep = vfs_sleep,
    .xGetLastError = vfs_last_error,
    .xCurrentTimeInt64 = vfs_current_time,
};

/* ---- what the tests do ---- */

void memvfs_install(void) {
  memvfs_reset();
  former = sqlite3_vfs_find(NULL);
  sqlite3_vfs_register(&MEMORY, 1);
}

void memvfs_uninstall(void) {
  memvfs_reset();
  free(disks);
  disks = NULL;
  n_disks = 0;
  sqlite3_vfs_unregister(&MEMORY);
  sqlite3_vfs_register(former, 1);
}

void memvfs_reset(void) {
  for (int i = 0; i < n_disks; i++) {
    memvfs_remove_disk(i);
    CHECK(!disks[i].files);
    disks[i] = (disk){0};
  }
  sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, 1, (sqlite3 *)NULL);
}

void memvfs_keep_synced(bool keep) {
  keeps_synced = keep;
}

void memvfs_powersafe(bool is) {
  is_powersafe = is;
}

void memvfs_arm(int number, int64_t n, bool for_good) {
  disk *d = disk_at(number);
  d->countdown = n;
  d->for_good = for_good;
  d->has_failed = false;
}

bool memvfs_has_failed(int number) {
  return disk_at(number)->has_failed;
}

void memvfs_freeze(int number) {
  disk_at(number)->frozen = true;
}

void memvfs_thaw(int number) {
  disk *d = disk_at(number);
  d->frozen = d->has_failed = false;
  d->countdown = 0;
}

bool memvfs_is_frozen(int number) {
  return disk_at(number)->frozen;
}

static void cut_power(file *f, rng *g) {
  CHECK(!f->handles);
  if (!f->was_synced && rng_chance(g, 50)) {
    free_file(f);
    return;
  }
  int64_t len = rng_chance(g, 50) ? f->written.len : f->synced.len;
  resize(&f->written, len);
  for (int64_t at = f->changed_from / SECTOR * SECTOR; at < f->changed_to && at < len;
       at += SECTOR) {
    int64_t end = at + SECTOR < len ? at + SECTOR : len;
    if (rng_chance(g, 50)) continue;
    memset(f->written.data + at, 0, (size_t)(end - at));
    if (end > f->synced.len) end = f->synced.len;
    if (end > at) memcpy(f->written.data + at, f->synced.data + at, (size_t)(end - at));
  }
  make_durable(f);
  assign(&f->synced, &f->written);
}

void memvfs_cut_power(int number, rng *g) {
  if (!keeps_synced) return;
  for (file *f = disk_at(number)->files, *next; f; f = next) {
    next = f->next;
    cut_power(f, g);
  }
}

bool memvfs_exists(const char *path) {
  return find_file(path) != NULL;
}

void memvfs_remove(const char *path) {
  file *f = find_file(path);
  if (!f) return;
  CHECK(!f->handles);
  delete_file(f);
}

void memvfs_copy(const char *from, const char *to) {
  const file *source = find_file(from);
  memvfs_remove(to);
  if (!source) return;
  file *target = make_file(to);
  assign(&target->written, &source->written);
  note_change(target, 0, target->written.len);
  make_durable(target);
}

void memvfs_remove_disk(int number) {
  for (file *f = disk_at(number)->files, *next; f; f = next) {
    next = f->next;
    if (!f->deleted) delete_file(f);
  }
}

int64_t memvfs_size(int number) {
  int64_t size = 0;
  for (const file *f = disk_at(number)->files; f; f = f->next) size += f->written.len;
  return size;
}

/* test_ioerr.c - every input and output fails once (faults.h): a VFS that hands everything on to
 * the real one, but for the call that is to fail. */
#include "faults.h"

#include <string.h>

static sqlite3_vfs *below;

typedef struct shim_file {
  sqlite3_file base;
  sqlite3_file *real; /* behind this struct */
} shim_file;

static sqlite3_file *real_of(sqlite3_file *file) {
  return ((shim_file *)file)->real;
}

/* ---- calls that may fail ---- */

static int shim_read(sqlite3_file *file, void *to, int n, sqlite3_int64 at) {
  if (fault_hits()) return SQLITE_IOERR_READ;
  return real_of(file)->pMethods->xRead(real_of(file), to, n, at);
}

static int shim_write(sqlite3_file *file, const void *from, int n, sqlite3_int64 at) {
  if (fault_hits()) return at % 2 ? SQLITE_IOERR_WRITE : SQLITE_FULL;
  return real_of(file)->pMethods->xWrite(real_of(file), from, n, at);
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size) {
  if (fault_hits()) return SQLITE_IOERR_TRUNCATE;
  return real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int shim_sync(sqlite3_file *file, int flags) {
  if (fault_hits()) return SQLITE_IOERR_FSYNC;
  return real_of(file)->pMethods->xSync(real_of(file), flags);
}

static int shim_size(sqlite3_file *file, sqlite3_int64 *size) {
  if (fault_hits()) return SQLITE_IOERR_FSTAT;
  return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int shim_lock(sqlite3_file *file, int level) {
  if (fault_hits()) return SQLITE_IOERR_LOCK;
  return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int shim_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out) {
  if (fault_hits()) return SQLITE_IOERR_SHMMAP;
  return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, out);
}

/* ---- calls that do not ---- */

static int shim_close(sqlite3_file *file) {
  return real_of(file)->pMethods->xClose(real_of(file));
}

static int shim_unlock(sqlite3_file *file, int level) {
  return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int shim_reserved(sqlite3_file *file, int *out) {
  return real_of(file)->pMethods->xCheckReservedLock(real_of(file), out);
}

static int shim_control(sqlite3_file *file, int what, void *data) {
  return real_of(file)->pMethods->xFileControl(real_of(file), what, data);
}

static int shim_sector(sqlite3_file *file) {
  return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int shim_device(sqlite3_file *file) {
  return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int shim_shm_lock(sqlite3_file *file, int offset, int n, int flags) {
  return real_of(file)->pMethods->xShmLock(real_of(file), offset, n, flags);
}

static void shim_shm_barrier(sqlite3_file *file) {
  real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int shim_shm_unmap(sqlite3_file *file, int drop) {
  return real_of(file)->pMethods->xShmUnmap(real_of(file), drop);
}

static const sqlite3_io_methods METHODS = {
    .iVersion = 2,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_device,
    .xShmMap = shim_shm_map,
    .xShmLock = shim_shm_lock,
    .xShmBarrier = shim_shm_barrier,
    .xShmUnmap = shim_shm_unmap,
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
  shim_file *shim = (shim_file *)file;
  (void)vfs;
  shim->base.pMethods = NULL;
  shim->real = (sqlite3_file *)(shim + 1);
  if (fault_hits()) return SQLITE_CANTOPEN;
  int rc = below->xOpen(below, name, shim->real, flags, out);
  if (rc == SQLITE_OK) shim->base.pMethods = &METHODS;
  return rc;
}

/* Everything else of the VFS (names, time, randomness) is the real one's, which ignores its first
 * argument or needs only its own fields. */
static void install_shim(void) {
  static sqlite3_vfs shim;
  sqlite3_initialize();
  below = sqlite3_vfs_find(NULL);
  shim = *below;
  shim.zName = "failing";
  shim.pNext = NULL;
  shim.szOsFile = (int)sizeof(shim_file) + below->szOsFile;
  shim.xOpen = shim_open;
  sqlite3_vfs_register(&shim, 1);
}

static bool is_io_error(int rc) {
  return (rc & 0xff) == SQLITE_IOERR || rc == SQLITE_FULL || (rc & 0xff) == SQLITE_CANTOPEN ||
         rc == SQLITE_ABORT_ROLLBACK;
}

static int64_t memory_in_use(void) {
  return sqlite3_memory_used();
}

static const fault_kind INPUT_OUTPUT = {"input or output", is_io_error, memory_in_use, 1};

static void a_write(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_WRITE, 1);
}

static void calls_made_together(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_TOGETHER, 1);
}

static void a_deletion(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_DELETION, 1);
}

static void received_patches(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_RECEIVE, 1);
}

static void a_link_that_comes_up(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_LINK, 1);
}

static void sql_of_the_application(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_SQL, 1);
}

static void calls_that_are_written_before_the_commit(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_SPILLED, 2);
}

static void a_migration(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_MIGRATION, 1);
}

static void opening(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_OPENING, 1);
}

static void opening_a_file_of_an_earlier_layout(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_UPGRADE, 1);
}

static void a_backup(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_BACKUP, 1);
}

static void checkpoints_of_the_callers(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_CHECKPOINT, 1);
}

static void sums_of_a_snapshot(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_SUMS, 1);
}

static void retention(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_COMPACTION, 1);
}

static void a_jump(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_JUMP, 1);
}

static void the_source_of_a_jump(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_SOURCE, 1);
}

static void a_fork_that_is_healed(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_HEALING, 1);
}

static void patches_of_another_version(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_UNKNOWN, 1);
}

static void a_step_that_knows_what_is_pending(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_UP, 1);
}

static void rows_that_the_schema_refuses(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_REFUSED, 1);
}

static void a_step_that_lets_rows_in(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_LET_IN, 1);
}

static void a_step_back_that_keeps_what_is_lost(void) {
  fault_everywhere(&INPUT_OUTPUT, &FAULT_DOWN, 1);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(a_write),
      TEST(calls_made_together),
      TEST(a_deletion),
      TEST(received_patches),
      TEST(a_link_that_comes_up),
      TEST(sql_of_the_application),
      TEST(calls_that_are_written_before_the_commit),
      TEST(a_migration),
      TEST(opening),
      TEST(opening_a_file_of_an_earlier_layout),
      TEST(a_backup),
      TEST(checkpoints_of_the_callers),
      TEST(sums_of_a_snapshot),
      TEST(retention),
      TEST(a_jump),
      TEST(the_source_of_a_jump),
      TEST(a_fork_that_is_healed),
      TEST(patches_of_another_version),
      TEST(a_step_that_knows_what_is_pending),
      TEST(a_step_back_that_keeps_what_is_lost),
      TEST(rows_that_the_schema_refuses),
      TEST(a_step_that_lets_rows_in),
  };
  install_shim();
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

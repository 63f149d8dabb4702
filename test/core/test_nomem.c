/* test_nomem.c - every allocation fails once (faults.h). One shim below sqlite3_malloc covers
 * SQLite and core, and counts what is not freed. */
#include "faults.h"

static sqlite3_mem_methods below;
static int64_t live; /* allocations that are not yet freed */

static void *shim_malloc(int size) {
  void *memory = fault_hits() ? NULL : below.xMalloc(size);
  live += memory != NULL;
  return memory;
}

static void shim_free(void *memory) {
  live -= memory != NULL;
  below.xFree(memory);
}

static void *shim_realloc(void *memory, int size) {
  return fault_hits() ? NULL : below.xRealloc(memory, size);
}

static void install_shim(void) {
  sqlite3_config(SQLITE_CONFIG_GETMALLOC, &below);
  sqlite3_mem_methods shim = below;
  shim.xMalloc = shim_malloc;
  shim.xFree = shim_free;
  shim.xRealloc = shim_realloc;
  sqlite3_config(SQLITE_CONFIG_MALLOC, &shim);
}

/* ABORT_ROLLBACK: SQLite undid the whole batch for want of memory, and this is a later call of it,
 * or its commit. */
static bool is_no_memory(int rc) {
  return rc == SQLITE_NOMEM || rc == SQLITE_IOERR_NOMEM || rc == SQLITE_ABORT_ROLLBACK;
}

static int64_t count_live(void) {
  return live;
}

static const fault_kind ALLOCATION = {"allocation", is_no_memory, count_live, 0};

static void a_write(void) {
  fault_everywhere(&ALLOCATION, &FAULT_WRITE, 1);
}

static void calls_made_together(void) {
  fault_everywhere(&ALLOCATION, &FAULT_TOGETHER, 5);
}

static void a_deletion(void) {
  fault_everywhere(&ALLOCATION, &FAULT_DELETION, 1);
}

static void received_patches(void) {
  fault_everywhere(&ALLOCATION, &FAULT_RECEIVE, 1);
}

static void a_link_that_comes_up(void) {
  fault_everywhere(&ALLOCATION, &FAULT_LINK, 1);
}

static void heartbeats(void) {
  fault_everywhere(&ALLOCATION, &FAULT_HEARTBEAT, 1);
}

static void sql_of_the_application(void) {
  fault_everywhere(&ALLOCATION, &FAULT_SQL, 1);
}

static void a_migration(void) {
  fault_everywhere(&ALLOCATION, &FAULT_MIGRATION, 25);
}

static void opening(void) {
  fault_everywhere(&ALLOCATION, &FAULT_OPENING, 25);
}

static void opening_a_file_of_an_earlier_layout(void) {
  fault_everywhere(&ALLOCATION, &FAULT_UPGRADE, 25);
}

static void a_backup(void) {
  fault_everywhere(&ALLOCATION, &FAULT_BACKUP, 3);
}

static void checkpoints_of_the_callers(void) {
  fault_everywhere(&ALLOCATION, &FAULT_CHECKPOINT, 1);
}

static void sums_of_a_snapshot(void) {
  fault_everywhere(&ALLOCATION, &FAULT_SUMS, 2);
}

static void retention(void) {
  fault_everywhere(&ALLOCATION, &FAULT_COMPACTION, 4);
}

static void a_jump(void) {
  fault_everywhere(&ALLOCATION, &FAULT_JUMP, 6);
}

static void the_source_of_a_jump(void) {
  fault_everywhere(&ALLOCATION, &FAULT_SOURCE, 1);
}

static void a_fork_that_is_healed(void) {
  fault_everywhere(&ALLOCATION, &FAULT_HEALING, 50);
}

static void patches_of_another_version(void) {
  fault_everywhere(&ALLOCATION, &FAULT_UNKNOWN, 8);
}

static void a_step_that_knows_what_is_pending(void) {
  fault_everywhere(&ALLOCATION, &FAULT_UP, 15);
}

static void rows_that_the_schema_refuses(void) {
  fault_everywhere(&ALLOCATION, &FAULT_REFUSED, 30);
}

static void a_step_that_lets_rows_in(void) {
  fault_everywhere(&ALLOCATION, &FAULT_LET_IN, 300);
}

static void a_step_back_that_keeps_what_is_lost(void) {
  fault_everywhere(&ALLOCATION, &FAULT_DOWN, 15);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(a_write),
      TEST(calls_made_together),
      TEST(a_deletion),
      TEST(received_patches),
      TEST(a_link_that_comes_up),
      TEST(heartbeats),
      TEST(sql_of_the_application),
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

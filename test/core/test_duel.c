/* test_duel.c - two honest peers and a hostile one (duel.h): the fuzzer's seeds, and random bytes
 * in the hands of a machine that has no fuzzer.
 *
 * WRITE_CORPUS=1 writes the seeds anew. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "duel.h"
#include "frames.h"
#include "memvfs.h"

static void play_bytes(const bytes *b) {
  uint8_t *copy = malloc(b->len + 1); /* duel_run releases all that is the test's */
  size_t len = b->len;
  CHECK(copy);
  memcpy(copy, b->data, len);
  duel_run(copy, len);
  free(copy);
}

static void add_ops(bytes *b, const char *ops) {
  for (; *ops; ops++) add_u8(b, (unsigned)(*ops - (*ops >= 'a' ? 'a' - 10 : '0')));
}

static void add_frame(bytes *b, const bytes *frame) {
  CHECK(frame->len < 256);
  add_u8(b, DUEL_RAW);
  add_u8(b, (unsigned)frame->len);
  add_raw(b, frame->data, frame->len);
}

/* ---- the seeds: each operation a digit as in duel.h, 'a' for 10 ---- */

static void seed_quiet(bytes *b) {
  add_ops(b, "001"
             "2"
             "012"
             "3"
             "110"
             "100"
             "110"
             "100"
             "4"
             "110"
             "100");
}

static void seed_lossy(bytes *b) {
  add_ops(b, "110"
             "100"
             "0010"
             "0013"
             "0022"
             "210"
             "300"
             "110"
             "0116"
             "4"
             "110"
             "100"
             "202"
             "4"
             "5"
             "0103"
             "110"
             "100"
             "61"
             "4"
             "110"
             "0001");
}

static void seed_hostile_patches(bytes *b) {
  static const char *const FIELDS[] = {"id", "INTEGER", "a", "TEXT", "b", "INTEGER"};
  const replic_value values[] = {v_int(1), v_text("of a third one"), {0, 0, 0, NULL, 0}};
  add_ops(b, "70");
  add_frame(b, schema_frame(1, "t", 1, 3, FIELDS));
  bytes *patches = patches_frame(900, 0, 2);
  add_patch(patches, 1, true, 1000000000000, 1, 1, 3, values);
  add_patch(patches, 1, true, 5, 1, 1, 3, values);
  add_frame(b, patches);
  add_frame(b, patches);
  add_ops(b, "110"
             "100"
             "0021"
             "4");
}

static void seed_hostile_claims(bytes *b) {
  add_u8(b, DUEL_HELLO);
  add_u8(b, 62);
  bytes *ack = frame_new(ACK);
  add_varint(ack, 1000000000000);
  add_varint(ack, 2); /* has applied 101.0, 102.7 */
  add_varint(ack, 101), add_varint(ack, 0);
  add_varint(ack, 102), add_varint(ack, 7);
  add_varint(ack, 1); /* has sent 900.9 */
  add_varint(ack, 900), add_varint(ack, 9);
  add_varint(ack, 0);
  add_frame(b, ack);
  bytes *need = frame_new(NEED);
  add_varint(need, 102), add_varint(need, 0);
  add_ops(b, "0012"
             "110"
             "100");
  add_frame(b, need);
  add_ops(b, "4"
             "91012"
             "900a3");
}

static const struct seed {
  const char *name;
  void (*write)(bytes *b);
} SEEDS[] = {{"quiet", seed_quiet},
             {"lossy", seed_lossy},
             {"hostile-patches", seed_hostile_patches},
             {"hostile-claims", seed_hostile_claims}};

static void seeds_converge(void) {
  for (size_t i = 0; i < COUNT(SEEDS); i++) {
    bytes *b = test_alloc(sizeof *b);
    SEEDS[i].write(b);
    if (env_number("WRITE_CORPUS", 0)) {
      FILE *file = fopen(test_format("corpus/fuzz_sync/%s", SEEDS[i].name), "wb");
      CHECK(file && fwrite(b->data, 1, b->len, file) == b->len && fclose(file) == 0);
    }
    play_bytes(b);
  }
}

/* Those written above, and what the fuzzer has once found. */
static void the_corpus_converges(void) {
  DIR *folder = opendir("corpus/fuzz_sync");
  CHECK(folder);
  size_t n = 0;
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    test_note("corpus/fuzz_sync/%s", entry->d_name);
    bytes *b = test_alloc(sizeof *b);
    uint8_t content[4096];
    FILE *file = fopen(test_format("corpus/fuzz_sync/%s", entry->d_name), "rb");
    CHECK(file);
    add_raw(b, content, fread(content, 1, sizeof content, file));
    fclose(file);
    play_bytes(b);
    n++;
  }
  closedir(folder);
  CHECK(n >= COUNT(SEEDS));
}

static void random_bytes_converge(void) {
  rng g = {(uint64_t)env_number("SEED", 1)};
  for (int round = 0, n = (int)env_number("ROUNDS", 300); round < n; round++) {
    bytes *b = test_alloc(sizeof *b);
    test_note("round %d", round);
    for (uint32_t left = rng_below(&g, 300); left > 0; left--)
      add_u8(b, rng_below(&g, rng_chance(&g, 30) ? 256 : DUEL_N));
    play_bytes(b);
  }
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(seeds_converge), TEST(the_corpus_converges),
                               TEST(random_bytes_converge)};
  memvfs_install();
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

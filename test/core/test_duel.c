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

static int64_t play_bytes(const bytes *b) {
  uint8_t *copy = malloc(b->len + 1); /* duel_run releases all that is the test's */
  size_t len = b->len;
  CHECK(copy);
  if (len) memcpy(copy, b->data, len);
  int64_t jumps = duel_run(copy, len);
  free(copy);
  return jumps;
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
  bytes *ack = ack_frame(1000000000000);
  add_positions(ack, (const replic_position[]){{101, 0, 0, 0}, {102, 7, 0, 0}},
                2);                                        /* has applied */
  add_positions(ack, &(replic_position){900, 9, 0, 0}, 1); /* has sent */
  add_positions(ack, &(replic_position){901, 3, 0, 0}, 1); /* has staged */
  add_no_list(ack);
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

/* What is left of three patches of one row, to a peer that has none of them. */
static void seed_jump(bytes *b) {
  add_ops(b, "0012"
             "a1"
             "0012"
             "a1"
             "0016"
             "a1"
             "b009"
             "5");
  for (int i = 0; i < 6; i++)
    add_ops(b, "110"
               "100");
}

/* Of the frames of a jump each kind is lost once; both sides start anew in its middle. */
static void seed_broken_jump(bytes *b) {
  add_ops(b, "0012"
             "a2"
             "0012"
             "0022"
             "a2"
             "0026"
             "0116"
             "a2"
             "b009"
             "b109"
             "5"
             "110"
             "100"
             "210"
             "4"
             "110"
             "100"
             "61"
             "110"
             "100"
             "0012"
             "200"
             "4"
             "110"
             "210"
             "60"
             "110"
             "100"
             "b009"
             "210"
             "4");
}

static void seed_hostile_jumps(bytes *b) {
  static const char *const FIELDS[] = {"id", "INTEGER", "a", "TEXT", "b", "INTEGER"};
  const replic_value values[] = {v_int(1), v_text("of a third one"), {0, 0, 0, NULL, 0}};
  const int64_t most = REPLIC_MAX_SEQUENCE, floors[] = {0, most};
  add_ops(b, "0012"
             "70");
  add_frame(b, schema_frame(1, "t", 1, 3, FIELDS));
  add_frame(b, jump_frame((const replic_position[]){{101, 0, 0, 0}, {900, most, 999999999000, 0}},
                          floors, 2));
  bytes *stage = stage_frame(0, 900, 0, most, 1);
  add_patch(stage, 5, true, 999999999000, 1, 1, 3, values);
  add_frame(b, stage);
  add_frame(b, jump_frame((const replic_position[]){{102, 0, 0, 0}, {900, most, 999999999000, 0}},
                          floors, 2));
  add_frame(b, staged_frame(true, &(replic_position){101, 1, 0, 0}, 1));
  add_frame(b, stage_frame(1, 901, 3, 9, 0));
  bytes *message = frame_new(MESSAGE);
  add_text(message, "for nobody");
  add_frame(b, message);
  add_frame(b, fork_frame(102, 3, &(replic_position){0, 1, 1000000000000, 0}, 1));
  add_ops(b, "4"
             "110"
             "100");
}

/* Each definition, as patches and as pieces. */
static void seed_hostile_definitions(bytes *b) {
  add_ops(b, "001270");
  for (unsigned definition = 0; definition < 10; definition++)
    for (unsigned pieces = 0; pieces < 2; pieces++) {
      add_u8(b, DUEL_DEFINE);
      add_u8(b, definition);
      add_u8(b, 0);
      add_u8(b, 1 + 64 * pieces);
      add_ops(b, "4"
                 "70");
    }
  add_ops(b, "110"
             "100");
}

static const struct seed {
  const char *name;
  void (*write)(bytes *b);
} SEEDS[] = {{"quiet", seed_quiet},
             {"lossy", seed_lossy},
             {"hostile-patches", seed_hostile_patches},
             {"hostile-claims", seed_hostile_claims},
             {"jump", seed_jump},
             {"broken-jump", seed_broken_jump},
             {"hostile-jumps", seed_hostile_jumps},
             {"hostile-definitions", seed_hostile_definitions}};

static void seeds_converge(void) {
  for (size_t i = 0; i < COUNT(SEEDS); i++) {
    bytes *b = test_alloc(sizeof *b);
    SEEDS[i].write(b);
    if (env_number("WRITE_CORPUS", 0)) {
      FILE *file = fopen(test_format("corpus/fuzz_sync/%s", SEEDS[i].name), "wb");
      CHECK(file && fwrite(b->data, 1, b->len, file) == b->len && fclose(file) == 0);
    }
    int64_t jumps = play_bytes(b);
    CHECK((strstr(SEEDS[i].name, "jump") != NULL) == (jumps > 0));
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
  int64_t n = env_number("ROUNDS", 300), jumps = 0;
  for (int64_t round = 0; round < n; round++) {
    bytes *b = test_alloc(sizeof *b);
    test_note("round %lld", (long long)round);
    for (uint32_t left = rng_below(&g, 300); left > 0; left--)
      add_u8(b, rng_below(&g, rng_chance(&g, 30) ? 256 : DUEL_N));
    jumps += play_bytes(b);
  }
  printf("# %lld rounds with %lld jumps\n", (long long)n, (long long)jumps);
  CHECK(n < 300 || jumps > 0);
}

int main(int argc, char **argv) {
  static const test TESTS[] = {TEST(seeds_converge), TEST(the_corpus_converges),
                               TEST(random_bytes_converge)};
  memvfs_install();
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

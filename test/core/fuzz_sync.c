/* fuzz_sync.c - libFuzzer against the whole state machine of links: what it writes decides what two
 * honest peers do, what happens to the frames between them, and what a hostile third one sends
 * (duel.h). They must converge all the same. Seeds: corpus/fuzz_sync, written by test_duel. */
#include "duel.h"
#include "memvfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static bool installed;
  if (!installed) memvfs_install();
  installed = true;
  duel_run(data, size);
  return 0;
}

/* fuzz_wire.c - libFuzzer against everything behind replic_receive: decoder, links, merge, log. The
 * input is a session (session.h), so that HELLO, SCHEMA and PATCHES can follow one another. Seeds:
 * corpus/fuzz_wire, written by test_wire. */
#include "session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  session_run(data, size);
  return 0;
}

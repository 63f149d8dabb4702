/* crc.c - CRC-32C (Castagnoli; RFC 3720, appendix B.4), of which every frame carries one.
 *
 * Processors have an instruction for it. Where the compiler may use that, or can ask at runtime
 * whether it is there, it is used; else eight bytes go at a time through eight tables. A table is
 * linear: each of its entries is the sum (XOR) of the entries of its bits, so eight numbers are all
 * of it. */
#include <string.h>

#include "base/base.h"

/* ---- by tables ---- */

/* clang-format off */
#define BIT(i, bit, x) ((i) >> (bit) & 1 ? (x) : 0U)
#define ENTRY(i, a, b, c, d, e, f, g, h) \
  (BIT(i, 0, a) ^ BIT(i, 1, b) ^ BIT(i, 2, c) ^ BIT(i, 3, d) ^ \
   BIT(i, 4, e) ^ BIT(i, 5, f) ^ BIT(i, 6, g) ^ BIT(i, 7, h))
#define ENTRIES_4(i, ...) \
  ENTRY(i, __VA_ARGS__), ENTRY((i) + 1, __VA_ARGS__), ENTRY((i) + 2, __VA_ARGS__), ENTRY((i) + 3, __VA_ARGS__)
#define ENTRIES_16(i, ...) \
  ENTRIES_4(i, __VA_ARGS__), ENTRIES_4((i) + 4, __VA_ARGS__), ENTRIES_4((i) + 8, __VA_ARGS__), ENTRIES_4((i) + 12, __VA_ARGS__)
#define ENTRIES_64(i, ...) \
  ENTRIES_16(i, __VA_ARGS__), ENTRIES_16((i) + 16, __VA_ARGS__), ENTRIES_16((i) + 32, __VA_ARGS__), ENTRIES_16((i) + 48, __VA_ARGS__)
#define TABLE(...) \
  { ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__), ENTRIES_64(192, __VA_ARGS__) }

/* TABLES[n][byte]: what a byte does to the sum when n bytes follow it. */
static const uint32_t TABLES[8][256] = {
  TABLE(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f, 0x20bd8ede, 0x417b1dbc, 0x82f63b78),
  TABLE(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181, 0x7f8be302, 0xff17c604, 0xfbc3faf9),
  TABLE(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a, 0xe144fb14, 0xc76580d9, 0x8b277743),
  TABLE(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d, 0xd725148b, 0xaba65fe7, 0x52a0c93f),
  TABLE(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91, 0x8f2261d3, 0x1ba8b557, 0x37516aae, 0x6ea2d55c),
  TABLE(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f, 0xc00c303e, 0x85f4168d, 0x0e045beb, 0x1c08b7d6),
  TABLE(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53, 0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a, 0xf56e0ef4),
  TABLE(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da, 0x847609b4, 0x0d006599, 0x1a00cb32, 0x34019664),
};
/* clang-format on */

static uint32_t by_tables(uint32_t crc, const uint8_t *at, size_t len) {
  for (; len >= 8; at += 8, len -= 8) {
    const uint32_t first = crc ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
                                  (uint32_t)at[3] << 24);
    crc = TABLES[7][first & 255] ^ TABLES[6][first >> 8 & 255] ^ TABLES[5][first >> 16 & 255] ^
          TABLES[4][first >> 24] ^ TABLES[3][at[4]] ^ TABLES[2][at[5]] ^ TABLES[1][at[6]] ^
          TABLES[0][at[7]];
  }
  for (; len; at++, len--) crc = crc >> 8 ^ TABLES[0][(crc ^ *at) & 255];
  return crc;
}

/* ---- by the processor ---- */

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <stdatomic.h>

#define WITH_CRC __attribute__((target("sse4.2")))
#define CRC_64(crc, word) ((uint32_t)__builtin_ia32_crc32di(crc, word))
#define CRC_8(crc, byte) __builtin_ia32_crc32qi(crc, byte)

/* The question takes longer than a small frame's sum: it is asked once. */
static int has_instruction(void) {
  enum { NOT_ASKED, NO, YES };
  static atomic_int known = NOT_ASKED;
  int answer = atomic_load_explicit(&known, memory_order_relaxed);
  if (answer == NOT_ASKED) {
    unsigned a, b, c = 0, d;
    answer = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) ? YES : NO;
    atomic_store_explicit(&known, answer, memory_order_relaxed);
  }
  return answer == YES;
}
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

#define WITH_CRC
#define CRC_64(crc, word) __crc32cd(crc, word)
#define CRC_8(crc, byte) __crc32cb(crc, byte)

static int has_instruction(void) {
  return 1;
}
#endif

#ifdef WITH_CRC
WITH_CRC static uint32_t by_instruction(uint32_t crc, const uint8_t *at, size_t len) {
  for (; len >= 8; at += 8, len -= 8) {
    uint64_t word; /* little-endian, as both kinds of processors are */
    memcpy(&word, at, sizeof word);
    crc = CRC_64(crc, word);
  }
  for (; len; at++, len--) crc = CRC_8(crc, *at);
  return crc;
}
#endif

uint32_t replic__crc32c_by_tables(const void *bytes, size_t len) {
  return ~by_tables(UINT32_MAX, bytes, len);
}

uint32_t replic__crc32c(const void *bytes, size_t len) {
#ifdef WITH_CRC
  if (has_instruction()) return ~by_instruction(UINT32_MAX, bytes, len);
#endif
  return replic__crc32c_by_tables(bytes, len);
}

/* digest.c - hashes of rows, and sums of them that do not depend on the order of the rows.
 *
 * A hash is SipHash-2-4 (Aumasson, Bernstein 2012) with the key zero. Per value it takes a byte for
 * the type, then 8 bytes little-endian for an INTEGER or REAL, or 8 for the length and then the
 * bytes of a TEXT or BLOB: so 1, 1.0, '1', x'31' and NULL are five things, and no two lists of
 * values give the same bytes. */
#include <string.h>

#include "file/file.h"

/* ---- SipHash-2-4 ---- */

typedef struct sip {
  uint64_t v[4], word; /* `word` gathers bytes until there are eight */
  uint64_t len;
} sip;

static uint64_t rotate(uint64_t x, int n) {
  return x << n | x >> (64 - n);
}

static void sip_rounds(uint64_t v[4], int n) {
  while (n--) {
    v[0] += v[1], v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
  }
}

static void sip_word(sip *s, uint64_t word) {
  s->v[3] ^= word;
  sip_rounds(s->v, 2);
  s->v[0] ^= word;
}

static void sip_put(sip *s, const unsigned char *bytes, size_t len) {
  for (size_t i = 0; i < len; i++) {
    s->word |= (uint64_t)bytes[i] << 8 * (s->len++ & 7);
    if ((s->len & 7) != 0) continue;
    sip_word(s, s->word);
    s->word = 0;
  }
}

static void sip_put_u64(sip *s, uint64_t value) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; i++, value >>= 8) bytes[i] = (unsigned char)(value & 0xff);
  sip_put(s, bytes, sizeof bytes);
}

static uint64_t sip_end(sip *s) {
  sip_word(s, s->word | s->len << 56);
  s->v[2] ^= 0xff;
  sip_rounds(s->v, 4);
  return s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}

/* ---- _replic_hash(value, …) ---- */

static int put_value(sip *s, sqlite3_value *value) {
  unsigned char type = (unsigned char)sqlite3_value_type(value); /* SQLITE_INTEGER is 1, … */
  sip_put(s, &type, 1);
  if (type == SQLITE_INTEGER) sip_put_u64(s, (uint64_t)sqlite3_value_int64(value));
  if (type == SQLITE_FLOAT) {
    double real = sqlite3_value_double(value);
    uint64_t bits;
    memcpy(&bits, &real, sizeof bits);
    sip_put_u64(s, bits);
  }
  if (type == SQLITE_TEXT || type == SQLITE_BLOB) {
    const void *bytes = sqlite3_value_blob(value); /* of a TEXT its UTF-8, as it is stored */
    size_t len = (size_t)sqlite3_value_bytes(value);
    if (!bytes && len) return SQLITE_NOMEM;
    sip_put_u64(s, len);
    sip_put(s, bytes, len);
  }
  return SQLITE_OK;
}

static void hash_values(sqlite3_context *ctx, int n, sqlite3_value **values) {
  sip s = {{0x736f6d6570736575, 0x646f72616e646f6d, 0x6c7967656e657261, 0x7465646279746573}, 0, 0};
  int rc = SQLITE_OK;
  for (int i = 0; rc == SQLITE_OK && i < n; i++) rc = put_value(&s, values[i]);
  if (rc == SQLITE_OK)
    sqlite3_result_int64(ctx, (sqlite3_int64)sip_end(&s));
  else
    sqlite3_result_error_code(ctx, rc);
}

int replic__digest_open(replic_reader *reader) {
  int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY;
  return sqlite3_create_function_v2(reader->db, "_replic_hash", -1, flags, NULL, hash_values, NULL,
                                    NULL, NULL);
}

/* ---- sums ---- */

int replic_reader_sum(replic_reader *reader, size_t max_rows, const replic_sums **out) {
  if (!reader->sums) {
    reader->sums = sqlite3_malloc64(sizeof *reader->sums);
    if (!reader->sums) return replic__reader_fail_db(reader, SQLITE_NOMEM);
    reader->sums->done = 1;
  }
  replic_sums *sums = reader->sums;
  if (!reader->current)
    return replic__reader_fail(reader, REPLIC_EUSAGE, "no statement is started");
  if (sums->done) memset(sums, 0, sizeof *sums);
  int rc = SQLITE_ROW;
  for (size_t i = 0; i < max_rows && (rc = sqlite3_step(reader->current)) == SQLITE_ROW; i++) {
    uint64_t key = (uint64_t)sqlite3_column_int64(reader->current, 0);
    sums->bucket[key / (UINT64_MAX / REPLIC_BUCKETS + 1)] +=
        (uint64_t)sqlite3_column_int64(reader->current, 1);
    sums->rows++;
  }
  sums->done = rc != SQLITE_ROW;
  *out = sums;
  if (rc == SQLITE_ROW) return REPLIC_OK;
  if (rc != SQLITE_DONE) rc = replic__reader_fail_db(reader, rc);
  replic_reader_reset(reader);
  return rc == SQLITE_DONE ? REPLIC_OK : rc;
}

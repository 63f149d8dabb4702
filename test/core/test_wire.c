/* test_wire.c - the bytes of every frame, written by hand from the layout on top of
 * src/core/links/wire.c; and what happens to frames that are cut off, damaged or hostile. Nothing
 * of those may ever reach the database. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"
#include "links/wire.h"
#include "session.h"

#define DDL                                                                                        \
  "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, r REAL, b BLOB, n INTEGER);"                     \
  "CREATE TABLE t_patches(_patchedAt INTEGER NOT NULL, _sequenceId INTEGER NOT NULL, _peerId "     \
  "INTEGER NOT NULL,"                                                                              \
  " _nulls TEXT, id INTEGER, v TEXT, r REAL, b BLOB, n INTEGER);"

/* The frames of peer 101 (0x65), which speaks to peer 102 (0x66) at the time 1000 (e8 07). The
 * instance of 101 is 101, that of 102 is 17 (0x11). */
#define HELLO_101 "01 01 00 65 65 e8 07 00 00 00"
#define HELLO_102 "01 01 00 66 11 e8 07 00 00 00"
#define HELLO_102_ASKS "01 01 01 66 11 e8 07 00 00 00"
/* two positions: 101 at 2, 102 at 1, both at the clock 1000; directly linked to 300 (ac 02), its
 * list is at 5 */
#define HELLO_102_FULL "01 01 00 66 11 e8 07 02 65 02 e8 07 65 66 01 e8 07 00 05 01 ac 02"
#define INTEGER_HEX "07 49 4e 54 45 47 45 52"
/* table 1, "t", one key, five fields: id INTEGER, v TEXT, r REAL, b BLOB, n INTEGER */
#define SCHEMA_T                                                                                   \
  "01 05 01 01 74 01 05 02 69 64 " INTEGER_HEX                                                     \
  " 01 76 04 54 45 58 54 01 72 04 52 45 41 4c 01 62 04 42 4c "                                     \
  "4f 42 01 6e " INTEGER_HEX
#define SCHEMA_T_RULES                                                                             \
  " 00 00 00 00 00 00" /* it is not STRICT; nothing is declared of its fields */
/* (0, 2] in one group at 1000: id 1 with "hi", 1.5, x'00ff', NULL; id -1 with n = 1000 */
#define PATCHES_AT(origin, epochs, clock)                                                          \
  "01 02 " origin " 00 02 00 00 " epochs " 01 " clock                                              \
  " 01 12 0f 14 68 69 03 00 00 00 00 00 00 f8 3f 15 00 ff 01 "                                     \
  "00 01 0a 08 fa d0 0f"
#define EPOCH_101 "01 01 65" /* one begins, one after `after`: 101 */
#define PATCHES_OF(origin) PATCHES_AT(origin, "00", "e8 07")
/* table 5 is t as a peer sees it that has only id and n; one patch of 102: id 3, n = 0 */
#define SCHEMA_SMALL "01 05 05 01 74 01 02 02 69 64 " INTEGER_HEX " 01 6e " INTEGER_HEX
#define PATCHES_SMALL "01 02 66 00 01 00 00 00 01 e8 07 05 32 01 02"
/* what is left of (0, 3] of 102, as somebody of age 5 has it: 102.3, whose id is 3 and whose n is 0
 */
#define STAGE_SMALL "01 07 05 66 00 03 00 00 00 01 05 e8 07 05 32 01 02"
/* 102 up to 3, of which all up to 2 may be pruned: age 3 + 2 */
#define JUMP_SMALL "01 08 01 66 03 e8 07 00 02"
/* has 101 up to 2: 101.1 and 101.2, both at the clock 1000 */
#define FORK_101 "01 0b 65 02 02 01 e8 07 65 02 e8 07 65 00 00 00 00"

static bytes *hex(const char *text) {
  bytes *b = test_alloc(sizeof *b);
  for (; *text; text++) {
    if (*text == ' ') continue;
    static const char DIGITS[] = "0123456789abcdef";
    CHECK(text[0] && strchr(DIGITS, text[0]) && text[1] && strchr(DIGITS, text[1]));
    add_u8(b, (unsigned)(strchr(DIGITS, text[0]) - DIGITS) * 16 +
                  (unsigned)(strchr(DIGITS, text[1]) - DIGITS));
    text++;
  }
  return b;
}

/* A peer 101 at the time 1000, and a wire on which the test plays the other side. */
static cluster *scene(void) {
  cluster *c = cluster_new();
  c->now_ms = 1000;
  peer *p = cluster_add(c);
  p->config.max_frame_bytes = 1000;
  peer_start(p);
  CHECK_OK(p->r, try_migrate(p, 1, DDL, ""));
  return c;
}

/* The next frame on its way to the test, without its sum, which is right. */
static char *next_frame(cluster *c, int w) {
  packet_queue *queue = &c->wires[w].to[1];
  CHECK(queue->n > 0);
  const packet *frame = &queue->packets[0];
  CHECK(frame->len > 4);
  char *text = show_hex(frame->data, frame->len - 4);
  const bytes *right = whole(frame->data, frame->len - 4);
  CHECK_TEXT(show_hex(frame->data, frame->len), show_hex(right->data, right->len));
  wire_drop(c, w, 1, 0);
  return text;
}

static void write_two_rows(peer *p) {
  static const char *const ALL[] = {"id", "v", "r", "b", "n"}, *const ONE[] = {"id", "n"};
  const replic_value first[] = {v_int(1), v_text("hi"), v_real(1.5), v_blob("\0\xff", 2), v_null()};
  const replic_value second[] = {v_int(-1), v_int(1000)};
  const replic_change changes[] = {{REPLIC_UPSERT, "t", 5, ALL, 1, first},
                                   {REPLIC_UPSERT, "t", 2, ONE, 1, second}};
  int64_t sequence;
  CHECK_OK(p->r, try_write(p, changes, 2, &sequence));
  CHECK_INT(sequence, 2);
}

static void receive(cluster *c, int w, const bytes *frame) {
  const bytes *sent = whole(frame->data, frame->len);
  peer_receive(&c->peers[0], c->wires[w].number, sent->data, sent->len);
}

static char *state_of(peer *p) {
  char *vector = "";
  const replic_position *at = replic_vector(p->r);
  for (size_t i = 0; i < replic_vector_count(p->r); i++)
    vector =
        test_format("%s %lu:%lld", vector, (unsigned long)at[i].origin, (long long)at[i].sequence);
  return test_format("%s\n%s%s%s%s%s", vector, peer_dump(p, "t"), peer_dump(p, "t_patches"),
                     peer_dump(p, "_replic_vector"), peer_dump(p, "_replic_staged"),
                     peer_dump(p, "_replic_forks"));
}

/* ---- golden bytes ---- */

static void frames_are_written_as_specified(void) {
  cluster *c = scene();
  peer *p = &c->peers[0];
  int w = wire_open_test(c, 0);
  CHECK_TEXT(next_frame(c, w), HELLO_101);
  play(c, w, hex(HELLO_102));
  write_two_rows(p);
  CHECK_TEXT(next_frame(c, w), SCHEMA_T SCHEMA_T_RULES);
  CHECK_TEXT(next_frame(c, w), PATCHES_AT("65", EPOCH_101, "e8 07"));
  play(c, w, hex(SCHEMA_SMALL));
  play(c, w, hex(PATCHES_SMALL));
  /* 43 bytes sent, 19 have come; applied: 101 up to 2, 102 up to 1; sent: 101 up to 2,
     unacknowledged */
  CHECK_TEXT(next_frame(c, w), "01 03 e8 07 2b 13 02 65 02 66 01 01 65 02 00 00 00");
  play(c, w, hex("01 02 66 05 06 00 00 00 01 e8 07 05 32 01 02")); /* early: (5, 6] */
  CHECK_TEXT(next_frame(c, w), "01 04 66 01");
  CHECK_TEXT(next_frame(c, w), "01 03 e8 07 2b 26 01 65 02 01 65 02 00 00 00");
  c->now_ms++;
  upsert(p, "t", ROW({"id", v_int(0)}));
  /* (2, 3] after the clock 1000 and the epoch 101; one later, no column but the key */
  CHECK_TEXT(next_frame(c, w), "01 02 65 02 03 e8 07 65 00 01 01 01 02 00");
  play(c, w, hex("01 04 66"));
  /* "REPLIC_PROTOCOL", "peer 102 sent a malformed NEED frame" */
  CHECK_TEXT(next_frame(c, w), "01 06 0f 52 45 50 4c 49 43 5f 50 52 4f 54 4f 43 4f 4c 24 70 65 65 "
                               "72 20 31 30 32 20 73 65 6e 74 20 "
                               "61 20 6d 61 6c 66 6f 72 6d 65 64 20 4e 45 45 44 20 66 72 61 6d 65");
  CHECK_INT(c->wires[w].to[1].n, 0);
  w = wire_open_test(c, 0);
  CHECK_TEXT(next_frame(c, w), "01 01 00 65 65 e9 07 02 65 03 e9 07 65 66 01 e8 07 00 02 00");
  tick(p); /* nobody has answered */
  CHECK_TEXT(next_frame(c, w), "01 01 01 65 65 e9 07 02 65 03 e9 07 65 66 01 e8 07 00 02 00");
  play(c, w, hex(HELLO_102_ASKS));
  CHECK_TEXT(next_frame(c, w), "01 01 00 65 65 e9 07 02 65 03 e9 07 65 66 01 e8 07 00 02 00");
}

static void frames_are_read_as_specified(void) {
  cluster *c = scene();
  peer *p = &c->peers[0];
  int w = wire_open_test(c, 0);
  play(c, w, hex(HELLO_102));
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_READY)->peer, 102);
  play(c, w, hex(SCHEMA_T));
  play(c, w, hex(PATCHES_OF("66")));
  CHECK_TEXT(peer_dump(p, "t"), "i-1|n|n|n|i1000\ni1|t6869|r3ff8000000000000|b00ff|n\n");
  CHECK_TEXT(
      sql_dump(peer_sql(p), "SELECT _patchedAt, _sequenceId, _peerId, _nulls FROM t_patches"),
      "i1000|i1|i102|t5b226e225d\ni1000|i2|i102|n\n"); /* ["n"] */
  CHECK_INT(peer_at(p, 102), 2);
  CHECK_INT(event_last(p, REPLIC_EVENT_VECTOR)->b, 1000);
  CHECK_INT(event_last(p, REPLIC_EVENT_CHANGE)->code, 2);

  write_two_rows(p);
  replic_link_info info;
  CHECK(replic_link_at(p->r, 0, &info));
  CHECK_INT(info.lag, 2);
  CHECK_INT(info.behind, 0);
  /* wall clock 3000; no bytes sent, and none have come; 101 applied up to 2; 103 sent up to 9 */
  play(c, w, hex("01 03 b8 17 00 00 01 65 02 01 67 09 00 00 00"));
  CHECK(replic_link_at(p->r, 0, &info));
  CHECK_INT(info.lag, 0);
  CHECK_INT(info.behind, 9);
  CHECK_INT(info.skew_ms, 2000);
  take_frames(c, w, 0);
  play(c, w, hex("01 04 65 00"));
  CHECK_TEXT(next_frame(c, w), SCHEMA_T SCHEMA_T_RULES);
  CHECK_TEXT(next_frame(c, w), PATCHES_AT("65", EPOCH_101, "e9 07")); /* 1001: 102's was at 1000 */
  play(
      c, w,
      hex("01 06 11 52 45 50 4c 49 43 5f 43 4c 4f 43 4b 5f 53 4b 45 57 04 74 65 78 74")); /* REPLIC_CLOCK_SKEW,
                                                                                             text */
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_ERROR)->code, REPLIC_ECLOCKSKEW);
  CHECK_CONTAINS(event_last(p, REPLIC_EVENT_LINK_ERROR)->text, "text");
  play(c, w,
       hex("01 06 0b 52 45 50 4c 49 43 5f 46 4f 52 4b 04 74 65 78 74")); /* REPLIC_FORK, text */
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EFORK);

  w = wire_open_test(c, 0);
  play(c, w, hex("01 01 00 66 11 e8 07 02 65 02 e9 07 65 66 01 e8 07 00 05 01 ac 02"));
  CHECK_INT(event_count(p, REPLIC_EVENT_LINK_READY), 2);
  CHECK(replic_link_at(p->r, 0, &info));
  CHECK_INT(info.lag, 0);
}

/* Of the three patches of one row, which 101 has written at 1000, 1001 and 1002, only the last one
 * is left. */
static void jumps_are_written_as_specified(void) {
  cluster *c = scene();
  peer *p = &c->peers[0];
  for (int i = 1; i <= 3; i++, c->now_ms++) upsert(p, "t", ROW({"id", v_int(1)}, {"n", v_int(i)}));
  c->now_ms = 1000;
  peer_compact(p, 5000, 1000);
  int w = wire_open_test(c, 0);
  take_frames(c, w, 0);
  play(c, w, hex(HELLO_102));
  CHECK_TEXT(next_frame(c, w), SCHEMA_T SCHEMA_T_RULES);
  CHECK_TEXT(next_frame(c, w), "01 08 01 65 03 ea 07 65 02"); /* 101 up to 3 at 1002, floor 2 */
  CHECK_INT(c->wires[w].to[1].n, 0);                          /* the pieces wait to be asked for */
  play(c, w, hex("01 09 01 00"));
  CHECK_TEXT(next_frame(c, w), SCHEMA_T SCHEMA_T_RULES);
  /* age 3 + 2; (0, 3] of 101; one patch: the third, at 1002, id 1, of the four others the last, 3
   */
  CHECK_TEXT(next_frame(c, w), "01 07 05 65 00 03 00 00 01 01 65 01 05 ea 07 01 12 08 32");
  CHECK_TEXT(next_frame(c, w), "01 08 01 65 03 ea 07 65 02");
  tick(p);
  CHECK_TEXT(next_frame(c, w), "01 03 e8 07 17 00 01 65 03 00 01 65 03 00 00"); /* the third list */
  play(c, w, hex("01 09 00 01 65 03")); /* 102 has staged it */
  tick(p);
  CHECK_TEXT(next_frame(c, w), "01 03 e8 07 17 00 01 65 03 00 00 00 00");
  CHECK_INT(c->wires[w].to[1].n, 0);
}

/* What a peer knows of epochs it tells in the same way. */
static void epochs_are_handed_on(void) {
  cluster *c = scene();
  peer *p = &c->peers[0];
  int w = wire_open_test(c, 0);
  play(c, w, hex(HELLO_102));
  play(c, w, hex(SCHEMA_SMALL));
  /* (0, 2] of 103: 103.1 in epoch 300 (ac 02), 103.2 in epoch 9; then (2, 3] in epoch 9 */
  play(c, w, hex("01 02 67 00 02 00 00 02 01 ac 02 01 09 01 e8 07 05 32 01 02 01 00 05 32 01 02"));
  play(c, w, hex("01 02 67 02 03 e8 07 09 00 01 00 05 32 01 02"));
  CHECK_TEXT(peer_dump(p, "_replic_epochs"), "i103|i1|i300\ni103|i2|i9\n");
  for (int i = 0; i < 2; i++) {
    take_frames(c, w, 0);
    play(c, w, hex("01 04 67 00"));
    CHECK_INT(take_frames(c, w, SCHEMA), 1);
    w = wire_open_test(c, 0);
    CHECK_TEXT(next_frame(c, w), "01 01 00 65 65 e8 07 01 67 03 e8 07 09 01 01 66");
    peer_stop(p);
    peer_start(p);
    w = wire_open_test(c, 0);
    CHECK_TEXT(next_frame(c, w), "01 01 00 65 65 e8 07 01 67 03 e8 07 09 00 00");
    play(c, w, hex(HELLO_102));
    take_frames(c, w, 0);
    play(c, w, hex("01 04 67 00"));
    CHECK_TEXT(next_frame(c, w), SCHEMA_T SCHEMA_T_RULES);
    CHECK_TEXT(next_frame(c, w), "01 02 67 00 03 00 00 02 01 ac 02 01 09 01 e8 07 01 32 08 02 00 "
                                 "01 32 08 02 00 01 32 08 02");
    c->now_ms += 1000; /* one NEED is answered in a heartbeat */
    play(c, w, hex("01 04 67 01"));
    c->now_ms -= 1000;
    CHECK_TEXT(next_frame(c, w), SCHEMA_T SCHEMA_T_RULES);
    CHECK_TEXT(next_frame(c, w),
               "01 02 67 01 03 e8 07 ac 02 01 01 09 01 00 01 32 08 02 00 01 32 08 02");
  }
}

static void jumps_are_read_as_specified(void) {
  cluster *c = scene();
  peer *p = &c->peers[0];
  int w = wire_open_test(c, 0);
  play(c, w, hex(HELLO_102));
  play(c, w, hex(SCHEMA_SMALL));
  take_frames(c, w, 0);
  play(c, w, hex(JUMP_SMALL));
  CHECK_TEXT(next_frame(c, w), "01 09 01 00"); /* nothing is staged: from the beginning */
  /* as STAGE_SMALL, but of somebody whose age is 6: it is newer than the JUMP, so that waits */
  play(c, w, hex("01 07 06 66 00 03 00 00 00 01 05 e8 07 05 32 01 02"));
  CHECK_TEXT(next_frame(c, w), "01 09 00 01 66 03");
  CHECK_TEXT(next_frame(c, w), "01 03 e8 07 00 15 00 00 00 00 00"); /* its 21 bytes have come */
  CHECK_INT(peer_at(p, 102), 0);
  CHECK_TEXT(peer_dump(p, "t"), "");
  play(c, w,
       hex("01 03 e8 07 00 00 00 00 01 66 03 00 00")); /* it has missed that we have staged it */
  CHECK_TEXT(next_frame(c, w), "01 09 00 01 66 03");
  c->now_ms += 1000;
  play(c, w, hex("01 03 e8 07 00 00 00 00 01 66 04 00 00")); /* and we have missed a piece */
  CHECK_TEXT(next_frame(c, w), "01 09 01 01 66 03");
  play(c, w, hex("01 08 01 66 03 e8 07 00 03")); /* age 6, too */
  CHECK_TEXT(next_frame(c, w), "01 03 d0 0f 00 00 01 66 03 00 00 00 00");
  CHECK_INT(peer_at(p, 102), 3);
  CHECK_TEXT(peer_dump(p, "t"), "i3|n|n|n|i0\n");
  CHECK_TEXT(peer_dump(p, "_replic_vector"), "i102|i3|i1000|i3|i0|i2|i102\n");
  CHECK_TEXT(peer_dump(p, "_replic_staged"), "");
  CHECK_INT(c->wires[w].to[1].n, 0);
}

/* Who finds a fork says what its history looks like, waits for the same of the other side, and
 * takes nothing else. */
static void forks_are_told_as_specified(void) {
  static const char *const FOUND[] = {
      "01 01 00 66 11 e8 07 01 65 03 e8 07 65 00 00", /* knows more of 101 than 101 */
      "01 01 00 66 11 e8 07 01 65 02 e9 07 65 00 00", /* another clock for 101.2 */
      "01 01 00 66 11 e8 07 01 65 01 e9 07 65 00 00", /* and for 101.1 */
      "01 01 00 65 11 e8 07 01 65 02 e8 07 65 00 00", /* another process of this peerId */
      "01 02 65 02 03 e8 07 65 00 01 00 05 32 01 02", /* 101 has issued only two */
      "01 03 e8 07 00 00 01 65 03 00 00 00 00",       /* has applied three */
      "01 03 e8 07 00 00 00 01 65 03 00 00 00",       /* sends three */
      "01 08 01 65 03 e8 07 65 00",                   /* jumps to three */
      "01 08 01 65 02 e9 07 65 00 00",                /* another clock for 101.2 */
      "01 02 67 01 02 e9 07 00 00 01 00 05 32 01 02", /* 103.1 has another clock */
      "01 02 67 00 02 00 00 00 01 e9 07 05 32 01 02 01 00 05 32 01 02",
      "01 07 05 67 01 03 e9 07 00 00 00",
      "01 01 00 66 11 e8 07 01 65 02 e8 07 66 00 00", /* 101.2 has another epoch */
      "01 08 01 65 02 e8 07 66 00 00",                /* the same */
      "01 02 67 01 02 e8 07 02 00 01 00 05 32 01 02", /* 103.1 has another epoch */
      "01 02 67 00 02 00 00 01 01 02 01 e8 07 05 32 01 02 00 05 32 01 02",
      "01 07 05 67 00 03 00 00 02 01 02 01 03 00", /* in a piece without patches */
  };
  for (size_t i = 0; i < COUNT(FOUND); i++) {
    test_note("%s", FOUND[i]);
    cluster *c = scene();
    peer *p = &c->peers[0];
    write_two_rows(p);
    int w = wire_open_test(c, 0);
    const bytes *found = hex(FOUND[i]);
    bool of_103 = found->data[2] == 0x67 || found->data[3] == 0x67;
    if (found->data[1] != HELLO) {
      play(c, w, hex(HELLO_102));
      play(c, w, hex(SCHEMA_SMALL));
      play(c, w, hex("01 02 67 00 01 00 00 00 01 e8 07 05 32 01 02")); /* 103.1 at 1000 */
    }
    take_frames(c, w, 0);
    peer_forget_events(p);
    char *before = state_of(p);
    play(c, w, found);
    const char *fork =
        of_103   ? "01 0b 67 01 01 01 e8 07 00 00 00 00 00"
        : i == 2 ? "01 0b 65 02 01 01 e8 07 65 00 00 00 00" /* the other side has no more */
                 : FORK_101;
    CHECK_TEXT(next_frame(c, w), fork);
    CHECK_INT(c->wires[w].to[1].n, 0);
    play(c, w, hex(SCHEMA_SMALL));
    play(c, w, hex(PATCHES_SMALL));
    tick(p);
    CHECK_TEXT(next_frame(c, w), fork);
    CHECK_INT(c->wires[w].to[1].n, 0);
    CHECK_TEXT(state_of(p), before);
    CHECK(c->wires[w].open[0]);
    upsert(p, "t", ROW({"id", v_int(7)}));
    CHECK_INT(c->wires[w].to[1].n, 0);
    play(c, w,
         hex(of_103 ? "01 0b 67 02 01 02 e8 07 00 00 00 00 00"
                    : "01 0b 65 03 01 01 e8 07 65 00 00 00 00"));
    CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, i == 3 ? REPLIC_EPEER : REPLIC_EFORK);
    CHECK_INT(take_frames(c, w, ERROR), 1);
    test_release();
  }
}

/* Bytes of the application's own, none of them or as many as a frame may have. */
static void messages_are_handed_on(void) {
  cluster *c = scene();
  peer *p = &c->peers[0];
  int w = wire_open_test(c, 0);
  peer_begin(p);
  CHECK_CODE(p->r, replic_link_message(p->r, c->wires[w].number, "x", 1), REPLIC_ENOTFOUND);
  CHECK_CODE(p->r, replic_link_message(p->r, 77, "x", 1), REPLIC_ENOTFOUND);
  CHECK_OK(p->r, peer_commit(p));
  play(c, w, hex("01 0a 68 69")); /* before its HELLO: lost */
  CHECK_INT(event_count(p, REPLIC_EVENT_MESSAGE), 0);
  play(c, w, hex(HELLO_102));
  take_frames(c, w, 0);
  play(c, w, hex("01 0a 68 00 69"));
  CHECK_INT(event_last(p, REPLIC_EVENT_MESSAGE)->a, 3);
  CHECK_INT(event_last(p, REPLIC_EVENT_MESSAGE)->peer, 102);
  CHECK_INT(event_last(p, REPLIC_EVENT_MESSAGE)->link, c->wires[w].number);
  CHECK(memcmp(event_last(p, REPLIC_EVENT_MESSAGE)->text, "h\0i", 3) == 0);
  play(c, w, hex("01 0a"));
  CHECK_INT(event_last(p, REPLIC_EVENT_MESSAGE)->a, 0);
  CHECK_INT(event_count(p, REPLIC_EVENT_MESSAGE), 2);

  const size_t most = ((size_t)4 << 20) - 6;
  uint8_t *big = test_alloc(most + 1);
  peer_begin(p);
  CHECK_OK(p->r, replic_link_message(p->r, c->wires[w].number, "hi", 2));
  CHECK_OK(p->r, replic_link_message(p->r, c->wires[w].number, big, most));
  CHECK_CODE(p->r, replic_link_message(p->r, c->wires[w].number, big, most + 1), REPLIC_ETOOLARGE);
  CHECK_OK(p->r, peer_commit(p));
  CHECK_TEXT(next_frame(c, w), "01 0a 68 69");
  bytes *same = test_alloc(sizeof *same);
  add_raw(same, c->wires[w].to[1].packets[0].data, c->wires[w].to[1].packets[0].len - 4);
  wire_drop(c, w, 1, 0);
  CHECK_INT(c->wires[w].to[1].n, 0);
  play(c, w, same); /* what one side may send, the other takes */
  CHECK_INT(event_last(p, REPLIC_EVENT_MESSAGE)->a, most);
  add_u8(same, 0);
  play(c, w, same);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_ETOOLARGE);
}

/* The tests' own encoder writes the same bytes. */
static void the_encoder_of_the_tests_agrees(void) {
  static const char *const FIELDS[] = {"id",   "INTEGER", "v",    "TEXT", "r",
                                       "REAL", "b",       "BLOB", "n",    "INTEGER"};
  bytes *b = hello_of(102, 17, 1000, NULL, 0);
  CHECK_TEXT(show_hex(b->data, b->len), HELLO_102);
  b = schema_frame(1, "t", 1, 5, FIELDS);
  CHECK_TEXT(show_hex(b->data, b->len), SCHEMA_T);
  const replic_value first[] = {v_int(1), v_text("hi"), v_real(1.5), v_blob("\0\xff", 2), v_null()};
  const replic_value second[] = {
      v_int(-1), {0, 0, 0, NULL, 0}, {0, 0, 0, NULL, 0}, {0, 0, 0, NULL, 0}, v_int(1000)};
  b = patches_frame(102, 0, 2);
  add_patch(b, 1, true, 1000, 1, 1, 5, first);
  add_patch(b, 1, false, 0, 1, 1, 5, second);
  CHECK_TEXT(show_hex(b->data, b->len), PATCHES_OF("66"));
  const replic_value small[] = {v_int(3), v_int(0)};
  b = stage_frame(5, 102, 0, 3, 1);
  add_patch(b, 3, true, 1000, 5, 1, 2, small);
  CHECK_TEXT(show_hex(b->data, b->len), STAGE_SMALL);
  const int64_t floor = 2;
  b = jump_frame(&(replic_position){102, 3, 1000, 0}, &floor, 1);
  CHECK_TEXT(show_hex(b->data, b->len), JUMP_SMALL);
  b = fork_frame(101, 2, (const replic_position[]){{0, 1, 1000, 101}, {0, 2, 1000, 101}}, 2);
  CHECK_TEXT(show_hex(b->data, b->len), FORK_101);
}

static void values_have_one_encoding(void) {
  static const struct {
    replic_value value;
    const char *hex;
  } VALUES[] = {
      {{REPLIC_NULL, 0, 0, NULL, 0}, "01"},
      {{REPLIC_INT, 0, 0, NULL, 0}, "02"},
      {{REPLIC_INT, 15, 0, NULL, 0}, "f2"},
      {{REPLIC_INT, -15, 0, NULL, 0}, "ea"},
      {{REPLIC_INT, -16, 0, NULL, 0}, "fa 1f"},
      {{REPLIC_INT, 16, 0, NULL, 0}, "fa 20"},
      {{REPLIC_INT, INT64_MAX, 0, NULL, 0}, "fa fe ff ff ff ff ff ff ff ff 01"},
      {{REPLIC_INT, INT64_MIN, 0, NULL, 0}, "fa ff ff ff ff ff ff ff ff ff 01"},
      {{REPLIC_REAL, 0, -0.0, NULL, 0}, "03 00 00 00 00 00 00 00 80"},
      {{REPLIC_REAL, 0, 1e300, NULL, 0}, "03 9c 75 00 88 3c e4 37 7e"},
      {{REPLIC_TEXT, 0, 0, NULL, 0}, "04"},
      {{REPLIC_TEXT, 0, 0, "a\0b", 3}, "1c 61 00 62"},
      {{REPLIC_BLOB, 0, 0, NULL, 0}, "05"},
      {{REPLIC_BLOB, 0, 0, "\xff", 1}, "0d ff"},
      {{REPLIC_TEXT, 0, 0, "0123456789012345678901234567890", 31},
       "fc 1f 30 31 32 33 34 35 36 37 38 39 30 31 32 33 34 35 36 37 38 39 30 31 32 33 34 35 36 37 "
       "38 39 30"},
  };
  for (size_t i = 0; i < COUNT(VALUES); i++) {
    test_note("%s", VALUES[i].hex);
    replic__writer w = {0};
    replic__put_value(&w, &VALUES[i].value);
    replic_frame *frame = replic__finish(&w);
    CHECK(frame != NULL);
    char *written = show_hex(frame->data, frame->len);
    replic__frame_release(frame);
    CHECK_TEXT(written, VALUES[i].hex);
    bytes *b = hex(VALUES[i].hex), *own = test_alloc(sizeof *own);
    add_value(own, &VALUES[i].value);
    CHECK_TEXT(show_hex(own->data, own->len), VALUES[i].hex);
    replic__reader in = {b->data, b->data + b->len, 0};
    replic_value value;
    replic__get_value(&in, &value);
    CHECK(!in.failed && in.at == in.end);
    CHECK_TEXT(show_value(&value), show_value(&VALUES[i].value));
  }
}

static void varints(void) {
  static const struct {
    const char *hex;
    uint64_t max, value;
    int ok;
  } CASES[] = {
      {"00", 0, 0, 1},
      {"7f", 127, 127, 1},
      {"80 01", 128, 128, 1},
      {"80 01", 127, 0, 0},
      {"80 00", 127, 0, 0},
      {"81 00", 127, 0, 0},
      {"ff 80 00", UINT64_MAX, 0, 0},
      {"ff ff ff ff ff ff ff ff ff 01", UINT64_MAX, UINT64_MAX, 1},
      {"ff ff ff ff ff ff ff ff ff 02", UINT64_MAX, 0, 0},
      {"80 80 80 80 80 80 80 80 80 80 00", UINT64_MAX, 0, 0},
      {"ff ff ff ff ff ff ff ff ff ff ff ff", UINT64_MAX, 0, 0},
      {"80", UINT64_MAX, 0, 0},
      {"", UINT64_MAX, 0, 0},
      {"ff ff ff ff ff ff ff 0f", REPLIC_MAX_CLOCK, REPLIC_MAX_CLOCK, 1},
      {"80 80 80 80 80 80 80 10", REPLIC_MAX_CLOCK, 0, 0},
  };
  for (size_t i = 0; i < COUNT(CASES); i++) {
    test_note("%s", CASES[i].hex);
    bytes *b = hex(CASES[i].hex);
    static const uint8_t NOTHING;
    replic__reader in = {b->len ? b->data : &NOTHING, b->len ? b->data + b->len : &NOTHING, 0};
    CHECK(replic__get_varint(&in, CASES[i].max) == CASES[i].value);
    CHECK_INT(!in.failed, CASES[i].ok);
    if (!CASES[i].ok)
      CHECK(replic__get_varint(&in, UINT64_MAX) == 0 && in.failed); /* the first failure sticks */
  }
}

/* ---- frames that are refused ---- */

/* A ready link to 102 that has defined tables 1 and 5. */
static int ready_wire(cluster *c) {
  int w = wire_open_test(c, 0);
  play(c, w, hex(HELLO_102));
  play(c, w, hex(SCHEMA_T));
  play(c, w, hex(SCHEMA_SMALL));
  take_frames(c, w, 0);
  return w;
}

/* After some hundred wires the cluster is full: then a fresh one. */
static cluster *roomy(cluster *c) {
  if (c && c->n_wires < MAX_WIRES - 2) return c;
  if (c) test_release();
  c = scene();
  write_two_rows(&c->peers[0]);
  return c;
}

typedef struct refusal {
  const char *hex;
  int code;
} refusal;

static void refused(const refusal *cases, size_t n, bool before_hello) {
  cluster *c = roomy(NULL);
  peer *p = &c->peers[0];
  char *before = state_of(p);
  for (size_t i = 0; i < n; i++) {
    test_note("%s", cases[i].hex);
    int w = before_hello ? wire_open_test(c, 0) : ready_wire(c);
    take_frames(c, w, 0);
    peer_forget_events(p);
    receive(c, w, hex(cases[i].hex));
    CHECK_INT(event_count(p, REPLIC_EVENT_LINK_CLOSE), 1);
    const replic_event *closed = event_last(p, REPLIC_EVENT_LINK_CLOSE);
    CHECK_TEXT(replic_code_name(closed->code), replic_code_name(cases[i].code));
    CHECK_INT(closed->link, c->wires[w].number);
    CHECK(strlen(closed->text) > 10);
    CHECK_INT(take_frames(c, w, ERROR), 1); /* and the other side hears why */
    CHECK_TEXT(state_of(p), before);
    CHECK_INT(replic_link_count(p->r), 0);
  }
}

static void malformed_headers_and_hellos(void) {
  static const refusal BEFORE_HELLO[] = {
      {"01", REPLIC_EPROTOCOL},
      {"01 00", REPLIC_EPROTOCOL},
      {"01 0c", REPLIC_EPROTOCOL},
      {"01 ff 00 00", REPLIC_EPROTOCOL},
      {"47 45 54 20 2f", REPLIC_EPROTOCOL}, /* GET / */
      {"02 02 66 00", REPLIC_EPROTOCOL},
      {"02 01 00 66 11 e8 07 00 00 00", REPLIC_EVERSION},
      {"00 01", REPLIC_EVERSION},
      {"01 01", REPLIC_EPROTOCOL},
      {"01 01 08 66 11 e8 07 00 00 00", REPLIC_EPROTOCOL},                   /* flags */
      {"01 01 00 00 11 e8 07 00 00 00", REPLIC_EPROTOCOL},                   /* peer 0 */
      {"01 01 00 80 80 80 80 10 11 e8 07 00 00 00", REPLIC_EPROTOCOL},       /* peer 2^32 */
      {"01 01 00 66 80 80 80 80 10 e8 07 00 00 00", REPLIC_EPROTOCOL},       /* instance 2^32 */
      {"01 01 00 65 65 e8 07 00 00 00", REPLIC_EPEER},                       /* this very peer */
      {"01 01 00 66 11 80 80 80 80 80 80 80 10 00 00 00", REPLIC_EPROTOCOL}, /* wall clock 2^53 */
      {"01 01 00 66 11 e8 07 01 00", REPLIC_EPROTOCOL}, /* a position is missing */
      {"01 01 00 66 11 e8 07 ff ff ff ff 0f 00", REPLIC_EPROTOCOL},
      {"01 01 00 66 11 e8 07 01 00 01 01 00 00 00", REPLIC_EPROTOCOL}, /* origin 0 */
      {"01 01 00 66 11 e8 07 01 66 80 80 80 80 80 80 80 10 01 00 00 00", REPLIC_EPROTOCOL},
      {"01 01 00 66 11 e8 07 01 66 01 80 80 80 80 80 80 80 10 00 00 00", REPLIC_EPROTOCOL},
      {"01 01 00 66 11 e8 07 00 00", REPLIC_EPROTOCOL},
      {"01 01 00 66 11 e8 07 00 00 02 67", REPLIC_EPROTOCOL}, /* direct peers */
      {"01 01 00 66 11 e8 07 00 00 01 00", REPLIC_EPROTOCOL},
      {"01 01 00 66 11 e8 07 00 80 80 80 80 80 80 80 10 00", REPLIC_EPROTOCOL}, /* 2^53 */
      {"01 01 00 66 11 e8 07 00 00 00 00", REPLIC_EPROTOCOL}, /* more than there should be */
  };
  refused(BEFORE_HELLO, COUNT(BEFORE_HELLO), true);
  static const refusal SECOND_HELLO[] = {{"01 01 00 67 11 e8 07 00 00 00", REPLIC_EPEER}};
  refused(SECOND_HELLO, COUNT(SECOND_HELLO), false);
}

static void malformed_patches(void) {
  static const refusal CASES[] = {
      {"01 02", REPLIC_EPROTOCOL},
      {"01 02 00 00 01 00 00 00 01 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* origin 0 */
      {"01 02 66 01 01 00 00 00", REPLIC_EPROTOCOL}, /* nothing between after and upTo */
      {"01 02 66 02 01 00 00 00", REPLIC_EPROTOCOL},
      {"01 02 66 00 80 80 80 80 80 80 80 10 00 00 00 01 e8 07 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 80 80 80 80 10 00 01 e8 07 05 32 01 02",
       REPLIC_EPROTOCOL},                                                 /* epoch 2^32 */
      {"01 02 66 00 01 00 01 00 01 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* an epoch of patch 0 */
      {"01 02 66 00 01 00 00 ff ff ff ff 0f 01 01 01 e8 07 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 01 00 01 01 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* distance 0 */
      {"01 02 66 00 01 00 00 01 02 01 01 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* beyond upTo */
      {"01 02 66 00 01 00 00 01 01 00 01 e8 07 05 32 01 02",
       REPLIC_EPROTOCOL}, /* it begins again */
      {"01 02 66 00 02 00 00 02 01 07 01 07 01 e8 07 05 32 01 02 00 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 01 01 80 80 80 80 10 01 e8 07 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 01 01", REPLIC_EPROTOCOL},
      /* the clock of the patch before: 2^53 */
      {"01 02 66 00 01 80 80 80 80 80 80 80 10 00 00 01 00 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00", REPLIC_EPROTOCOL}, /* no patch, but one was promised */
      {"01 02 66 00 02 00 00 00 01 e8 07 05 32 01 02",
       REPLIC_EPROTOCOL}, /* the second is missing */
      {"01 02 66 00 02 00 00 00 03 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* the first is missing */
      {"01 02 66 00 01 00 00 00 00 05 32 01 02", REPLIC_EPROTOCOL}, /* does not begin a group */
      {"01 02 66 00 01 00 00 00 03 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* beyond upTo */
      {"01 02 66 00 01 00 00 00 01 80 80 80 80 80 80 80 10 05 32 01 02",
       REPLIC_EPROTOCOL}, /* clock 2^53 */
      {"01 02 66 00 02 00 00 00 01 e8 07 05 32 01 02 01 ff ff ff ff ff ff ff 0f 05 32 01 02",
       REPLIC_EPROTOCOL}, /* the sum is beyond it */
      {"01 02 66 00 01 01 00 00 01 ff ff ff ff ff ff ff 0f 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 80 80 80 80 10 32 01 02",
       REPLIC_EPROTOCOL}, /* table 2^32 */
      {"01 02 66 00 01 00 00 00 01 e8 07 05", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 01 01 02", REPLIC_EPROTOCOL}, /* the key is NULL */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 00 01 02", REPLIC_EPROTOCOL}, /* value types 0, 6, 7 */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 06 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 07 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 09", REPLIC_EPROTOCOL}, /* NULL with a number */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 0b 00 00 00 00 00 00 f8 3f",
       REPLIC_EPROTOCOL}, /* REAL with a number */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 03 00 00 00 00 00 00 f8 7f",
       REPLIC_EPROTOCOL}, /* NaN */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 03 01 00 00 00 00 00 f0 7f", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 03 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 fa", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 fa ff ff ff ff ff ff ff ff ff 02",
       REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 1c 61 61",
       REPLIC_EPROTOCOL}, /* text longer than the frame */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 fc ff ff ff ff ff ff ff ff ff 01 61",
       REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 fd 80 80 80 80 80 80 80 80 80 01 61",
       REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32", REPLIC_EPROTOCOL}, /* no bitmap */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 02 00",
       REPLIC_EPROTOCOL}, /* more than there should be */
  };
  refused(CASES, COUNT(CASES), false);
}

static void malformed_acks_needs_schemas_errors(void) {
  static const refusal CASES[] = {
      {"01 03", REPLIC_EPROTOCOL},
      {"01 03 e8 07", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 80 80 80 80 80 80 80 10 00 00 00 00 00", REPLIC_EPROTOCOL}, /* 2^53 */
      {"01 03 80 80 80 80 80 80 80 10 00 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 00", REPLIC_EPROTOCOL}, /* the linked peers are missing */
      {"01 03 e8 07 00 00 01 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 ff ff ff ff 0f 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 ff ff ff ff 0f 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 01 00 01 00 00 00 00", REPLIC_EPROTOCOL}, /* origin 0 */
      {"01 03 e8 07 00 00 00 00 01 00 01 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 01 66 80 80 80 80 80 80 80 10 00 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 01 66 80 80 80 80 80 80 80 10 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 00 00 00 00", REPLIC_EPROTOCOL}, /* more than there should be */
      {"01 03 e8 07 00 00 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 00 00 03", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 00 ff ff ff ff ff ff ff 1f 00", REPLIC_EPROTOCOL}, /* 1 + 2^53 */
      {"01 03 e8 07 00 00 00 00 00 00 01 01 02 66", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 00 00 01 01 01 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 00 00 02 00 01 01 66", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 00 00 02 00 01 01 66 02", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 00 00 02 02 01 01 66 01", REPLIC_EPROTOCOL}, /* from 2 to 1 */
      {"01 03 e8 07 00 00 00 00 00 00 02 00 01 02 67 01 66 01", REPLIC_EPROTOCOL},
      {"01 04", REPLIC_EPROTOCOL},
      {"01 04 66", REPLIC_EPROTOCOL},
      {"01 04 00 00", REPLIC_EPROTOCOL},
      {"01 04 66 00 00", REPLIC_EPROTOCOL},
      {"01 04 66 80 80 80 80 80 80 80 10", REPLIC_EPROTOCOL},
      {"01 05", REPLIC_EPROTOCOL},
      {"01 05 80 80 80 80 10 01 74 01 01 02 69 64 00", REPLIC_EPROTOCOL}, /* id 2^32 */
      {"01 05 09 01 74 00 01 02 69 64 00", REPLIC_EPROTOCOL},             /* no key */
      {"01 05 09 01 74 02 01 02 69 64 00", REPLIC_EPROTOCOL}, /* more keys than fields */
      {"01 05 09 01 74 01 02 02 69 64 00", REPLIC_EPROTOCOL}, /* a field is missing */
      {"01 05 09 01 74 01 ff ff ff ff 0f 02 69 64 00", REPLIC_EPROTOCOL},
      {"01 05 09 01 74 01 01 02 69 64 00 00", REPLIC_EPROTOCOL},
      {"01 05 09 01 00 01 01 02 69 64 00", REPLIC_EPROTOCOL}, /* NUL in a name */
      {"01 05 09 01 74 01 01 02 69 00 00", REPLIC_EPROTOCOL},
      {"01 05 09 7f 74 01 01 02 69 64 00", REPLIC_EPROTOCOL}, /* a name longer than the frame */
      {"01 06", REPLIC_EPROTOCOL},
      {"01 06 02 41", REPLIC_EPROTOCOL},
      {"01 06 01 41 02 42", REPLIC_EPROTOCOL},
      {"01 06 01 00 01 42", REPLIC_EPROTOCOL},
  };
  refused(CASES, COUNT(CASES), false);
}

static void malformed_stages_jumps_takes_forks(void) {
  static const refusal CASES[] = {
      {"01 07", REPLIC_EPROTOCOL},
      {"01 07 80 80 80 80 80 80 80 80 80 01 66 00 03 00 00 00 00", REPLIC_EPROTOCOL}, /* age 2^63 */
      {"01 07 05 00 00 03 00 00 00 01 05 e8 07 05 32 01 02", REPLIC_EPROTOCOL},       /* origin 0 */
      {"01 07 05 66 03 03 00 00 00 00", REPLIC_EPROTOCOL}, /* nothing between after and upTo */
      {"01 07 05 66 04 03 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 07 05 66 00 80 80 80 80 80 80 80 10 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 07 05 66 00 03 80 80 80 80 80 80 80 10 00 00 00",
       REPLIC_EPROTOCOL},                               /* clock before: 2^53 */
      {"01 07 05 66 00 03 00 00 00", REPLIC_EPROTOCOL}, /* no number of patches */
      {"01 07 05 66 00 03 00 00 00 7f 05 e8 07 05 32 01 02",
       REPLIC_EPROTOCOL}, /* more than can be */
      {"01 07 05 66 00 03 00 00 00 02 05 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* one is missing */
      {"01 07 05 66 00 03 00 00 00 00 05 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* one too many */
      {"01 07 05 66 00 03 00 00 00 01 04 05 32 01 02", REPLIC_EPROTOCOL}, /* begins no group */
      {"01 07 05 66 00 03 00 00 00 01 07 e8 07 05 32 01 02", REPLIC_EPROTOCOL}, /* beyond upTo */
      {"01 07 05 66 00 03 00 00 00 02 05 e8 07 05 32 01 02 00 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 07 05 66 00 03 00 00 00 01 fd ff ff ff ff ff ff 1f e8 07 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 07 05 66 00 03 00 00 00 01 05 80 80 80 80 80 80 80 10 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 07 05 66 00 03 00 00 00 01 05 e8 07 05 01 01 02",
       REPLIC_EPROTOCOL}, /* the key is NULL */
      {"01 07 05 66 00 03 00 00 00 01 05 e8 07 05 32 01 02 00", REPLIC_EPROTOCOL},
      {"01 08", REPLIC_EPROTOCOL},
      {"01 08 01", REPLIC_EPROTOCOL},
      {"01 08 01 67 03 e8 07 00", REPLIC_EPROTOCOL},    /* no floor */
      {"01 08 01 67 03 e8 07 00 04", REPLIC_EPROTOCOL}, /* it lies beyond the sequence */
      {"01 08 01 67 03 e8 07 00 02 00", REPLIC_EPROTOCOL},
      {"01 08 01 00 03 e8 07 00 02", REPLIC_EPROTOCOL},
      {"01 08 01 67 80 80 80 80 80 80 80 10 e8 07 00 02", REPLIC_EPROTOCOL},
      {"01 08 01 67 03 80 80 80 80 80 80 80 10 00 02", REPLIC_EPROTOCOL},
      {"01 08 01 67 03 e8 07 00 80 80 80 80 80 80 80 10", REPLIC_EPROTOCOL},
      {"01 08 ff ff ff ff 0f 67 03 e8 07 02", REPLIC_EPROTOCOL},
      {"01 09", REPLIC_EPROTOCOL},
      {"01 09 02 00", REPLIC_EPROTOCOL}, /* flags */
      {"01 09 00", REPLIC_EPROTOCOL},
      {"01 09 00 01 65", REPLIC_EPROTOCOL},
      {"01 09 00 01 00 01", REPLIC_EPROTOCOL},
      {"01 09 00 01 65 80 80 80 80 80 80 80 10", REPLIC_EPROTOCOL},
      {"01 09 00 00 00", REPLIC_EPROTOCOL},
      {"01 09 01 ff ff ff ff 0f 65 01", REPLIC_EPROTOCOL},
      {"01 0b", REPLIC_EPROTOCOL},
      {"01 0b 00 02 00 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 0b 65", REPLIC_EPROTOCOL},
      {"01 0b 65 02", REPLIC_EPROTOCOL},
      {"01 0b 65 80 80 80 80 80 80 80 10 00", REPLIC_EPROTOCOL},
      {"01 0b 65 02 01 01", REPLIC_EPROTOCOL},
      {"01 0b 65 02 01 00 e8 07 65", REPLIC_EPROTOCOL}, /* sequence 0 */
      {"01 0b 65 02 01 80 80 80 80 80 80 80 10 e8 07 65", REPLIC_EPROTOCOL},
      {"01 0b 65 02 01 01 80 80 80 80 80 80 80 10 65", REPLIC_EPROTOCOL},
      {"01 0b 65 02 00 00 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 0b 65 02 ff ff ff ff 0f 01 e8 07", REPLIC_EPROTOCOL},
  };
  refused(CASES, COUNT(CASES), false);
}

/* One encoding per content: what could have been written otherwise is refused. */
static void other_encodings_of_the_same(void) {
  static const refusal CASES[] = {
      {"01 04 e6 00 00", REPLIC_EPROTOCOL}, /* a longer varint than it takes */
      {"01 02 66 00 01 00 00 00 01 e8 87 00 05 32 01 02", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 fa 00",
       REPLIC_EPROTOCOL}, /* INT 0 with a number that follows */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 fa 1e", REPLIC_EPROTOCOL},
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 01 fc 01 61",
       REPLIC_EPROTOCOL}, /* a text of one byte likewise */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 03 02",
       REPLIC_EPROTOCOL}, /* a bit beyond the last field */
      {"01 02 66 00 01 00 00 00 01 e8 07 05 32 81 02", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 02 67 01 66 01 00 00 00 00",
       REPLIC_EPROTOCOL}, /* origins that do not ascend */
      {"01 03 e8 07 00 00 02 66 01 66 02 00 00 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 02 68 01 67 01 00 00 00", REPLIC_EPROTOCOL},
      {"01 03 e8 07 00 00 00 00 02 68 01 67 01 00 00", REPLIC_EPROTOCOL},
      {"01 01 00 66 11 e8 07 02 67 01 01 00 66 01 01 00 00 00", REPLIC_EPROTOCOL},
      {"01 08 02 68 03 e8 07 00 02 67 03 e8 07 00 02", REPLIC_EPROTOCOL},
      {"01 09 00 02 65 01 65 02", REPLIC_EPROTOCOL},
      {"01 0b 65 02 02 02 e8 07 65 01 e8 07 65 00 00 00 00",
       REPLIC_EPROTOCOL}, /* sequences that do not */
      {"01 0b 65 02 02 02 e8 07 65 02 e8 07 65 00 00 00 00", REPLIC_EPROTOCOL},
  };
  refused(CASES, COUNT(CASES), false);
}

static void frames_beyond_their_limits(void) {
  cluster *c = roomy(NULL);
  peer *p = &c->peers[0];
  char *before = state_of(p);
  const size_t len = (size_t)5 << 20; /* max_frame_bytes is 1000 here */
  uint8_t *big = test_alloc(len);
  for (int type = HELLO; type <= FORK; type++) {
    test_note("a frame of type %d", type);
    int w = ready_wire(c);
    big[0] = 1;
    big[1] = (uint8_t)type;
    peer_forget_events(p);
    peer_receive(p, c->wires[w].number, big, len);
    CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_ETOOLARGE);
  }
  int w = ready_wire(c);
  bytes *wide = frame_new(SCHEMA); /* more columns than a table can have */
  add_varint(wide, 9);
  add_text(wide, "t");
  add_varint(wide, 1);
  add_varint(wide, 40000);
  for (int i = 0; i < 80000; i++) add_u8(wide, 0);
  play(c, w, wide);
  CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPROTOCOL);
  CHECK_TEXT(state_of(p), before);
}

/* What a link can make this side keep is bounded: definitions, origins. */
static void a_link_cannot_fill_the_memory(void) {
  cluster *c = roomy(NULL);
  peer *p = &c->peers[0];
  int w = ready_wire(c);
  sqlite3_int64 used = sqlite3_memory_used();
  for (uint32_t id = 10; id < 60; id++) {
    bytes *schema = frame_new(SCHEMA);
    add_varint(schema, id);
    add_text(schema, "t");
    add_varint(schema, 1);
    add_varint(schema, 30000);
    for (int i = 0; i < 60000; i++) add_u8(schema, 0);
    play(c, w, schema);
  }
  CHECK(sqlite3_memory_highwater(0) - used < 200 << 20);
  w = ready_wire(c);
  for (uint32_t origin = 1000; origin < 300000;) {
    bytes *ack = frame_new(ACK);
    for (int i = 0; i < 3; i++) add_varint(ack, 1000);
    add_varint(ack, 20000);
    for (int i = 0; i < 20000; i++) {
      add_varint(ack, origin++);
      add_varint(ack, 1);
    }
    for (int i = 0; i < 4; i++) add_varint(ack, 0);
    play(c, w, ack);
  }
  CHECK(sqlite3_memory_used() - used < 32 << 20);
  upsert(p, "t", ROW({"id", v_int(77)}, {"n", v_int(1)}));
  CHECK_INT(peer_at(p, 101), 3);
}

/* ---- damage ---- */

static const char *const GOLDEN[] = {
    HELLO_102_FULL,
    SCHEMA_T,
    PATCHES_OF("66"),
    "01 03 e8 07 00 00 01 65 02 01 67 09 01 68 05 06 02 05 07 01 66 01",
    "01 04 65 00",
    "01 06 11 52 45 50 4c 49 43 5f 43 4c 4f 43 4b 5f 53 4b 45 57 04 74 65 78 74",
    "01 07 05 66 00 04 00 00 00 02 03 e8 07 05 32 01 02 02 05 32 01 02",
    "01 08 02 66 03 e8 07 00 02 67 05 e8 07 00 05",
    "01 09 01 01 65 02",
    FORK_101,
};

static void a_frame_cut_off_anywhere_changes_nothing(void) {
  cluster *c = NULL;
  for (size_t i = 0; i < COUNT(GOLDEN); i++) {
    const size_t len = hex(GOLDEN[i])->len;
    for (size_t cut = 1; cut < len; cut++) { /* nothing at all is a sign of life */
      c = roomy(c);
      peer *p = &c->peers[0];
      bytes *b = hex(GOLDEN[i]);
      char *before = state_of(p);
      test_note("%zu bytes of %s", cut, GOLDEN[i]);
      int w = ready_wire(c);
      b->len = cut;
      receive(c, w, b);
      CHECK_TEXT(state_of(p), before);
      CHECK(!c->wires[w].open[0]);
      CHECK_INT(event_last(p, REPLIC_EVENT_LINK_CLOSE)->code, REPLIC_EPROTOCOL);
    }
  }
}

static void the_sum_is_crc_32c(void) {
  rng g = {(uint64_t)env_number("SEED", 5)};
  const bytes *digits = whole("123456789", 9);
  CHECK_TEXT(show_hex(digits->data + 9, 4), "83 92 06 e3"); /* 0xe3069283: the published check */
  for (size_t len = 0; len < 300; len++) {
    uint8_t *data = test_alloc(len);
    for (size_t i = 0; i < len; i++) data[i] = (uint8_t)rng_next(&g);
    const uint8_t *sum = whole(data, len)->data + len;
    uint32_t expected =
        (uint32_t)sum[0] | (uint32_t)sum[1] << 8 | (uint32_t)sum[2] << 16 | (uint32_t)sum[3] << 24;
    CHECK_INT(replic__crc32c(data, len), expected);
    CHECK_INT(replic__crc32c_by_tables(data, len), expected);
  }
}

static cluster *damaged(cluster *c, const char *golden, size_t bit, size_t cut) {
  c = roomy(c);
  peer *p = &c->peers[0];
  bytes *b = hex(golden);
  b = whole(b->data, b->len);
  b->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
  b->len -= cut;
  char *before = state_of(p);
  int w = ready_wire(c);
  peer_receive(p, c->wires[w].number, b->data, b->len);
  CHECK_TEXT(state_of(p), before);
  CHECK(!c->wires[w].open[0]);
  int code = event_last(p, REPLIC_EVENT_LINK_CLOSE)->code;
  CHECK(code == REPLIC_EPROTOCOL || (code == REPLIC_EVERSION && b->data[0] != 1));
  return c;
}

/* Not one is taken for data, nor for anything else: the link ends. */
static void a_flipped_bit_is_noticed(void) {
  cluster *c = NULL;
  for (size_t i = 0; i < COUNT(GOLDEN); i++) {
    const size_t len = hex(GOLDEN[i])->len + 4;
    for (size_t bit = 0; bit < 8 * len; bit++) {
      test_note("bit %zu of %s", bit, GOLDEN[i]);
      c = damaged(c, GOLDEN[i], bit, 0);
    }
    for (size_t cut = 1; cut + 1 < len; cut++) c = damaged(c, GOLDEN[i], 8 * len - 1, cut);
  }
}

/* ---- garbage ---- */

static void random_bytes_do_no_harm(void) {
  cluster *c = roomy(NULL);
  rng g = {(uint64_t)env_number("SEED", 1)};
  char *before = state_of(&c->peers[0]);
  int w = ready_wire(c);
  for (int i = 0; i < 3000; i++) {
    if (!c->wires[w].open[0]) {
      wire_cut(c, w);
      if (c->n_wires >= MAX_WIRES - 2) c->n_wires = 0; /* all are closed */
      w = ready_wire(c);
    }
    uint8_t data[64];
    size_t len = rng_below(&g, sizeof data);
    for (size_t k = 0; k < len; k++) data[k] = (uint8_t)rng_next(&g);
    data[0] = 1;
    data[1] = (uint8_t)rng_below(&g, FORK + 2);
    receive(c, w, &(bytes){data, len, len});
    take_frames(c, w, 0);
    if (i % 500 == 0) test_note("round %d", i);
  }
  CHECK_TEXT(sql_text(peer_sql(&c->peers[0]), "PRAGMA integrity_check"), "ok");
  CHECK_INT(peer_at(&c->peers[0], 101), 2);
  CHECK(strlen(before) > 0);
}

/* ---- seeds of the fuzzer ---- */

enum { MAX_RECORDS = 12 };

typedef struct seed {
  const char *name;
  const char
      *records[MAX_RECORDS]; /* a frame in hex, or a SESSION_… operation: "commit", "tick" … */
} seed;

#define PATCH_OF_102(after, up_to, clock)                                                          \
  "01 02 66 " after " " up_to " 00 00 00 01 " clock " 05 32 01 02"
/* table 6 is s: two keys k TEXT, j BLOB, and must INTEGER; one patch ("a", x'', 7) */
#define SCHEMA_S                                                                                   \
  "01 05 06 01 73 02 03 01 6b 04 54 45 58 54 01 6a 04 42 4c 4f 42 04 6d 75 73 74 " INTEGER_HEX
#define PATCH_OF_S "01 02 67 00 01 00 00 00 01 e8 07 06 0c 61 05 01 72"
#define SCHEMA_U "01 05 07 01 75 01 02 02 69 64 00 01 77 00"

static const seed SEEDS[] = {
    {"hello", {HELLO_102_FULL}},
    {"hello-asks", {HELLO_102_ASKS, "tick", "tick"}},
    {"patches", {HELLO_102, SCHEMA_T, PATCHES_OF("66"), "commit"}},
    {"not-committed", {HELLO_102, SCHEMA_T, PATCHES_OF("66"), SCHEMA_S, PATCH_OF_S}},
    {"two-tables", {HELLO_102, SCHEMA_S, SCHEMA_SMALL, PATCH_OF_S, PATCHES_SMALL, "tick"}},
    {"early",
     {HELLO_102, SCHEMA_SMALL, PATCH_OF_102("01", "02", "e9 07"), PATCH_OF_102("00", "01", "e8 07"),
      "commit"}},
    {"twice",
     {HELLO_102, SCHEMA_SMALL, PATCHES_SMALL, PATCHES_SMALL, "commit", PATCHES_SMALL, "tick"}},
    {"undefined", {HELLO_102, PATCHES_SMALL, "commit", SCHEMA_SMALL, PATCHES_SMALL, "commit"}},
    {"skewed",
     {HELLO_102, SCHEMA_SMALL, PATCH_OF_102("00", "01", "80 80 80 80 10"), "tick", "tick", "tick"}},
    {"unknown-table",
     {HELLO_102, SCHEMA_U, "01 02 66 00 01 00 00 00 01 e8 07 07 0a 00", "commit", "migrate",
      "01 02 66 00 01 00 00 00 01 e8 07 07 0a 00", "tick"}},
    {"wrong-type",
     {HELLO_102, SCHEMA_S, "01 02 67 00 01 00 00 00 01 e8 07 06 0c 61 05 01 0c 61", "commit"}},
    {"written",
     {HELLO_102, "write", "commit", "01 03 e8 07 00 00 01 65 02 00 00 00 00", "01 04 65 00",
      "commit"}},
    {"relayed",
     {HELLO_102, SCHEMA_S, PATCH_OF_S, "commit", "reopen", HELLO_102_FULL, "commit", "01 04 67 00",
      "tick"}},
    {"pruned",
     {HELLO_102, "write", "tick", "compact", "01 09 01 00", "commit", "01 09 00 01 65 01", "tick"}},
    {"jump",
     {HELLO_102, SCHEMA_SMALL, JUMP_SMALL, "01 07 06 66 00 03 00 00 00 01 05 e8 07 05 32 01 02",
      "commit", "01 03 e8 07 00 00 00 00 01 66 04 00 00", "01 08 01 66 03 e8 07 00 03", "commit"}},
    {"jump-of-an-unknown-table",
     {HELLO_102, SCHEMA_U, JUMP_SMALL, "01 07 05 66 00 03 00 00 00 01 05 e8 07 07 0a 00", "commit",
      "migrate", "tick", "tick", "tick", "tick", "tick", JUMP_SMALL}},
    {"abandoned",
     {HELLO_102, SCHEMA_SMALL, STAGE_SMALL, "commit", PATCHES_SMALL,
      "01 02 66 01 03 e8 07 00 00 01 00 05 32 01 02 00 05 32 01 02", "commit", "tick"}},
    {"fork",
     {"01 01 00 66 11 e8 07 01 65 09 e8 07 65 00 00", "commit", "tick", FORK_101, "commit"}},
    {"messages", {HELLO_102, "message", "01 0a 68 69", "commit"}},
    {"error", {HELLO_102, "01 06 0b 52 45 50 4c 49 43 5f 46 4f 52 4b 04 74 65 78 74"}},
};

static bytes *record_session(const seed *seed) {
  static const char *const OPERATIONS[] = {"commit",  "tick",    "write",  "reopen",
                                           "migrate", "compact", "message"};
  bytes *session = test_alloc(sizeof *session);
  for (size_t i = 0; i < MAX_RECORDS && seed->records[i]; i++) {
    size_t operation = 0;
    while (operation < COUNT(OPERATIONS) && strcmp(OPERATIONS[operation], seed->records[i]) != 0)
      operation++;
    const bytes *frame = operation < COUNT(OPERATIONS) ? NULL : hex(seed->records[i]);
    size_t n = frame ? frame->len : SESSION_COMMIT + operation;
    add_u8(session, (unsigned)(n & 0xff));
    add_u8(session, (unsigned)(n >> 8));
    if (frame) add_raw(session, frame->data, frame->len);
  }
  return session;
}

/* The files are made of the frames above: WRITE_SEEDS=1 writes them anew (from the folder
 * test/core). */
static void the_seeds_of_the_fuzzer_are_current(void) {
  for (size_t i = 0; i < COUNT(SEEDS); i++) {
    char *path = test_format("corpus/fuzz_wire/%s", SEEDS[i].name);
    const bytes *session = record_session(&SEEDS[i]);
    test_note("%s; WRITE_SEEDS=1 writes it", path);
    if (env_number("WRITE_SEEDS", 0)) {
      FILE *out = fopen(path, "wb");
      CHECK(out && fwrite(session->data, 1, session->len, out) == session->len && fclose(out) == 0);
    }
    uint8_t data[1024];
    FILE *in = fopen(path, "rb");
    CHECK(in != NULL);
    size_t len = fread(data, 1, sizeof data, in);
    fclose(in);
    CHECK_TEXT(show_hex(data, len), show_hex(session->data, session->len));
  }
}

/* Each seed as it is, and with a few bytes changed: a small fuzzer that runs everywhere. */
static void sessions_do_no_harm(void) {
  rng g = {(uint64_t)env_number("SEED", 3)};
  for (size_t i = 0; i < COUNT(SEEDS); i++) {
    const bytes *session = record_session(&SEEDS[i]);
    session_run(session->data, session->len);
    for (int64_t round = 0, n = env_number("ROUNDS", 150); round < n; round++) {
      uint8_t *changed = malloc(session->len);
      CHECK(changed != NULL);
      memcpy(changed, session->data, session->len);
      for (uint32_t k = 0, times = 1 + rng_below(&g, 3); k < times; k++) {
        changed[rng_below(&g, (uint32_t)session->len)] = (uint8_t)rng_next(&g);
      }
      session_run(changed,
                  session->len - (rng_chance(&g, 20) ? rng_below(&g, 10) % session->len : 0));
      free(changed);
    }
  }
  session_end();
}

int main(int argc, char **argv) {
  static const test TESTS[] = {
      TEST(frames_are_written_as_specified),
      TEST(frames_are_read_as_specified),
      TEST(epochs_are_handed_on),
      TEST(jumps_are_written_as_specified),
      TEST(jumps_are_read_as_specified),
      TEST(forks_are_told_as_specified),
      TEST(messages_are_handed_on),
      TEST(the_encoder_of_the_tests_agrees),
      TEST(values_have_one_encoding),
      TEST(varints),
      TEST(malformed_headers_and_hellos),
      TEST(malformed_patches),
      TEST(malformed_acks_needs_schemas_errors),
      TEST(malformed_stages_jumps_takes_forks),
      TEST(other_encodings_of_the_same),
      TEST(frames_beyond_their_limits),
      TEST(a_link_cannot_fill_the_memory),
      TEST(a_frame_cut_off_anywhere_changes_nothing),
      TEST(the_sum_is_crc_32c),
      TEST(a_flipped_bit_is_noticed),
      TEST(random_bytes_do_no_harm),
      TEST(the_seeds_of_the_fuzzer_are_current),
      TEST(sessions_do_no_harm),
  };
  return run_tests(argc, argv, TESTS, COUNT(TESTS));
}

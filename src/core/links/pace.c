/* pace.c - how much may be on its way over a link: what it carries in half a second, at most
 * windowBytes. More would only wait in buffers, before whatever is written later.
 *
 * Bytes of PATCHES and STAGE are counted on both sides, and each ACK says how many were sent on
 * this link, and how many have come: what a peer has applied may have come another way, and what it
 * holds has come, too. What was lost counts as come with the next ACK, which was sent behind it.
 *
 * One frame at a time is timed, from its sending until its bytes have come, by the clock of the
 * other side: the way back may have a queue of its own. How far the two clocks are apart does not
 * matter, as it is in the shortest time as well. What a frame takes longer than that it has waited:
 * the window becomes what would have waited for TARGET_MS, or twice as large at most, where it was
 * full. (As LEDBAT does, RFC 6817.) No wait is longer than the whole way there and back, so a clock
 * that was set ahead costs little. The shortest time is measured again after LEAST_MS of a queue:
 * with a small window, until one frame has come, or a way that became longer would be taken for a
 * queue. (As BBR does.) */
#include "links/links.h"

#define MIN_WINDOW (8 << 10)
#define FIRST_WINDOW (16 << 10)
#define TARGET_MS 500
#define LEAST_MS 30000
#define LOST_MS 30000 /* a frame that has not come for so long is timed no more */

static int64_t window_of(const replic *r, const link *l) {
  int64_t most = (int64_t)r->config.window_bytes;
  int64_t window = l->pace.is_measuring ? MIN_WINDOW : l->pace.window;
  if (!window) window = FIRST_WINDOW;
  return window < most ? window : most;
}

int64_t replic__slice(const replic *r, const link *l) {
  int64_t most = (int64_t)r->config.slice_bytes, slice = window_of(r, l) / 4;
  return slice < most ? slice : most;
}

int replic__has_room(const replic *r, const link *l) {
  int64_t on_line = l->pace.sent - l->pace.arrived_there;
  int64_t on_way = l->unacked > on_line ? l->unacked : on_line;
  return !on_way || on_way + replic__slice(r, l) <= window_of(r, l);
}

void replic__pace_sent(const replic *r, link *l, const replic_frame *frame) {
  replic__pace *pace = &l->pace;
  int64_t since_ms = r->now_ms - pace->sent_ms;
  pace->sent += (int64_t)frame->len;
  if (pace->timed && since_ms >= 0 && since_ms < LOST_MS) return;
  pace->timed = pace->sent;
  pace->sent_ms = r->now_ms;
  pace->was_full = 0;
}

/* What was lost cannot be timed. */
void replic__pace_lost(link *l) {
  l->pace.timed = 0;
}

void replic__pace_full(link *l) {
  l->pace.was_full = 1;
}

/* Milliseconds for which a frame that took `took_ms` has waited in the queue to the other side. */
static int64_t queued_ms(const replic *r, replic__pace *pace, int64_t took_ms, int64_t there_ms) {
  if (pace->is_measuring || !pace->least_at_ms || there_ms <= pace->least_ms) {
    pace->least_ms = there_ms;
    pace->least_at_ms = r->now_ms;
    pace->is_measuring = 0;
  }
  int64_t ms = there_ms - pace->least_ms;
  return ms < took_ms ? ms : took_ms;
}

static void measured(const replic *r, replic__pace *pace, int64_t took_ms, int64_t there_ms) {
  int64_t most = (int64_t)r->config.window_bytes;
  int64_t window = pace->window ? pace->window : FIRST_WINDOW;
  int64_t queued = queued_ms(r, pace, took_ms, there_ms);
  int64_t limit = pace->was_full ? 2 * window : window;
  if (took_ms) window = window * (took_ms - queued + TARGET_MS) / took_ms;
  if (window > limit || !took_ms) window = limit;
  if (window > most) window = most;
  pace->window = window > MIN_WINDOW ? window : MIN_WINDOW;
  if (queued > TARGET_MS / 2 && r->now_ms - pace->least_at_ms >= LEAST_MS) pace->is_measuring = 1;
}

void replic__pace_put(const link *l, replic__writer *w) {
  replic__put_varint(w, (uint64_t)l->pace.sent);
  replic__put_varint(w, (uint64_t)l->pace.arrived);
}

int replic__pace_get(const replic *r, link *l, int64_t wall_ms, replic__reader *in) {
  replic__pace *pace = &l->pace;
  int64_t sent = replic__get_sequence(in), arrived_there = replic__get_sequence(in);
  if (in->failed) return 0;
  l->ack_due |= sent > pace->arrived; /* the rest is lost: it is told that its line is free */
  pace->arrived = sent;
  pace->arrived_there = arrived_there < pace->sent ? arrived_there : pace->sent;
  if (!pace->timed || pace->arrived_there < pace->timed) return 1;
  int64_t took_ms = r->now_ms - pace->sent_ms;
  pace->timed = 0;
  if (took_ms >= 0 && took_ms < LOST_MS) measured(r, pace, took_ms, wall_ms - pace->sent_ms);
  return 1;
}

void replic__pace_arrived(link *l, size_t len) {
  l->pace.arrived += (int64_t)len;
  l->ack_due = 1;
}

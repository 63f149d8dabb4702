/* pace.c - how much may be on its way over a link: what it carries in half a second, at most
 * windowBytes. More would only wait in buffers, before whatever is written later.
 *
 * One frame at a time is timed, from its sending until it is acknowledged. While that takes hardly
 * longer than the shortest time known, the window doubles, if it was full; where it takes longer by
 * more than TARGET_MS, the window shrinks to what would have taken that long. (As LEDBAT does, RFC
 * 6817.) The shortest time is measured again after LEAST_MS of a window that was always full: with
 * a small window, until one frame is acknowledged, or a way that became longer would be taken for a
 * queue. (As BBR does.) */
#include "sync.h"

#define MIN_WINDOW (8 << 10)
#define FIRST_WINDOW (16 << 10)
#define TARGET_MS 500
#define LEAST_MS 30000
#define LOST_MS 30000 /* a frame that was not acknowledged for so long is timed no more */

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
  return !l->unacked || l->unacked + replic__slice(r, l) <= window_of(r, l);
}

void replic__pace_sent(const replic *r, link *l, const position *at) {
  replic__pace *pace = &l->pace;
  int64_t since_ms = r->now_ms - pace->sent_ms;
  if (pace->sequence && since_ms >= 0 && since_ms < LOST_MS) return;
  pace->origin = at->origin;
  pace->sequence = at->sent;
  pace->sent_ms = r->now_ms;
  pace->was_full = 0;
}

/* What is sent twice cannot be timed, as nobody knows which one is acknowledged (Karn's algorithm,
 * RFC 6298). */
void replic__pace_again(link *l, const position *at) {
  if (l->pace.origin == at->origin) l->pace.sequence = 0;
}

void replic__pace_full(link *l) {
  l->pace.was_full = 1;
}

static void measured(const replic *r, replic__pace *pace, int64_t ms) {
  if (pace->is_measuring || !pace->least_at_ms || ms <= pace->least_ms) {
    pace->least_ms = ms;
    pace->least_at_ms = r->now_ms;
    pace->is_measuring = 0;
  }
}

void replic__pace_acked(const replic *r, link *l, const position *at, int64_t applied) {
  replic__pace *pace = &l->pace;
  if (at->origin != pace->origin || applied < pace->sequence || !pace->sequence) return;
  int64_t ms = r->now_ms - pace->sent_ms, most = (int64_t)r->config.window_bytes;
  pace->sequence = 0;
  if (ms < 0) return; /* the clock was set back */
  measured(r, pace, ms);
  int64_t window = pace->window ? pace->window : FIRST_WINDOW;
  int64_t queued_ms = ms - pace->least_ms;
  if (queued_ms > TARGET_MS)
    window = window * (pace->least_ms + TARGET_MS) / ms;
  else if (pace->was_full)
    window += queued_ms <= TARGET_MS / 2 ? window : window / 8;
  if (window > most) window = most;
  pace->window = window > MIN_WINDOW ? window : MIN_WINDOW;
  if (queued_ms > TARGET_MS / 2 && r->now_ms - pace->least_at_ms >= LEAST_MS)
    pace->is_measuring = 1;
}

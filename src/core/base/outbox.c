/* outbox.c - what a call leaves for its caller: events, and frames to be sent. */
#include <stdarg.h>

#include "base/base.h"
#include "state.h"

int replic__event_take(replic *r, replic_event event) {
  replic_outbox *box = &r->outbox;
  if (box->n_events == box->cap_events) {
    size_t cap = box->cap_events ? box->cap_events * 2 : 16;
    replic_event *grown = sqlite3_realloc64(box->events, cap * sizeof *grown);
    if (!grown) {
      sqlite3_free(event.text);
      return SQLITE_NOMEM;
    }
    box->events = grown;
    box->cap_events = cap;
  }
  box->events[box->n_events++] = event;
  return REPLIC_OK;
}

int replic__event(replic *r, replic_event event, const char *format, ...) {
  if (format) {
    va_list args;
    va_start(args, format);
    event.text = sqlite3_vmprintf(format, args);
    va_end(args);
  }
  return replic__event_take(r, event);
}

void replic__trace(replic *r, const char *format, ...) {
  if (!r->config.trace) return;
  va_list args;
  va_start(args, format);
  replic_event event = {.kind = REPLIC_EVENT_TRACE, .text = sqlite3_vmprintf(format, args)};
  va_end(args);
  replic__event_take(r, event);
}

void replic_take_outbox(replic *r, replic_outbox *out) {
  *out = r->outbox;
  r->outbox = (replic_outbox){0};
}

void replic_outbox_free(replic_outbox *out) {
  for (size_t i = 0; i < out->n_sends; i++) replic__frame_release(out->sends[i].frame);
  for (size_t i = 0; i < out->n_events; i++) sqlite3_free(out->events[i].text);
  sqlite3_free(out->sends);
  sqlite3_free(out->events);
  *out = (replic_outbox){0};
}

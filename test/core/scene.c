/* scene.c - see scene.h. */
#include "scene.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "frames.h"

struct scene {
  cluster *c;
  int64_t begun_ms;
  char *text;
  bool without_acks;
  size_t told[MAX_PEERS]; /* events that have their line */
};

scene *scene_begin(cluster *c) {
  scene *s = test_alloc(sizeof *s);
  s->c = c;
  s->begun_ms = c->now_ms;
  s->text = "";
  for (int i = 0; i < c->n_peers; i++) s->told[i] = c->peers[i].n_events;
  return s;
}

void scene_say(scene *s, const char *format, ...) {
  char line[1000];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  s->text = test_format("%s[%4lld] %s\n", s->text, (long long)(s->c->now_ms - s->begun_ms), line);
}

/* ---- names ---- */

static const char *name_of(const scene *s, uint64_t id) {
  for (int i = 0; i < s->c->n_peers; i++)
    if (s->c->peers[i].id == id) return test_format("%c", 'A' + i);
  return test_format("%llu", (unsigned long long)id);
}

static const char *end_of(const wire *w, int side) {
  return w->peers[side] < 0 ? "?" : test_format("%c", 'A' + w->peers[side]);
}

/* ---- frames ---- */

typedef struct input {
  const uint8_t *at, *end;
} input;

static uint64_t take(input *in) {
  uint64_t value = 0;
  CHECK(in->at < in->end);
  for (int shift = 0; in->at < in->end; shift += 7) {
    uint8_t byte = *in->at++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) break;
  }
  return value;
}

static char *take_text(input *in) {
  size_t len = (size_t)take(in);
  CHECK(len <= (size_t)(in->end - in->at));
  char *text = test_format("%.*s", (int)len, (const char *)in->at);
  in->at += len;
  return text;
}

/* A list of origins, each with `n` numbers, of which the first is shown, and the last if it is a
 * floor. */
static char *positions(const scene *s, input *in, int n, bool has_floor) {
  char *text = "";
  for (uint64_t count = take(in); count > 0; count--) {
    uint64_t origin = take(in), sequence = take(in), last = 0;
    for (int i = 1; i < n; i++) last = take(in);
    text = test_format("%s%s%s %llu", text, *text ? ", " : "", name_of(s, origin),
                       (unsigned long long)sequence);
    if (has_floor && last) text = test_format("%s (floor %llu)", text, (unsigned long long)last);
  }
  return text;
}

/* A list of peers that are linked directly, and the leader of the clock behind it. */
static char *peers(const scene *s, input *in, bool with_flags) {
  char *text = "";
  for (uint64_t count = take(in); count > 0; count--) {
    uint64_t peer = take(in);
    bool is_gone = with_flags && take(in) == 0;
    text = test_format("%s %s%s", text, is_gone ? "not " : "", name_of(s, peer));
  }
  return text;
}

static char *hello(const scene *s, input *in) {
  uint64_t flags = take(in);
  take(in); /* peerId: the line has it */
  take(in); /* instance */
  take(in); /* wall clock */
  char *has = positions(s, in, 3, false);
  return test_format("HELLO has %s%s%s", *has ? has : "nothing", flags & 1 ? "; answer" : "",
                     flags & 2 ? "; only reads" : "");
}

static char *ack(const scene *s, input *in) {
  char *text = "ACK";
  take(in); /* wall clock */
  take(in); /* bytes sent on this link */
  take(in); /* and arrived over it */
  static const char *const NAMES[] = {"applied", "sent", "staged"};
  for (int i = 0; i < 3; i++) {
    char *list = positions(s, in, 1, false);
    if (*list) text = test_format("%s%s %s %s", text, strlen(text) > 3 ? ";" : "", NAMES[i], list);
  }
  take(in); /* the number of the list that is here */
  uint64_t kind = take(in);
  for (uint64_t i = 0; i < kind; i++) take(in);
  if (kind == 0) return text;
  char *list = peers(s, in, kind == 2);
  return test_format("%s%s linked to%s", text, strlen(text) > 3 ? ";" : "",
                     *list ? list : " nobody");
}

static char *range(const scene *s, input *in, const char *type) {
  uint64_t origin = take(in), after = take(in), up_to = take(in);
  return test_format("%s %s (%llu, %llu]", type, name_of(s, origin), (unsigned long long)after,
                     (unsigned long long)up_to);
}

static char *stage(const scene *s, input *in) {
  take(in); /* age */
  char *text = range(s, in, "STAGE");
  take(in); /* clock */
  take(in); /* epoch */
  for (uint64_t n = 2 * take(in); n > 0; n--) take(in);
  return test_format("%s: %llu left", text, (unsigned long long)take(in));
}

static char *error(const scene *s, input *in) {
  char *code = take_text(in);
  take_text(in); /* its text is for people, and tested elsewhere */
  if (in->at == in->end) return test_format("ERROR %s", code);
  uint64_t origin = take(in), after = take(in);
  return test_format("ERROR %s holds %s after %llu", code, name_of(s, origin),
                     (unsigned long long)after);
}

static char *fork(const scene *s, input *in) {
  uint64_t origin = take(in), last = take(in);
  return test_format("FORK its %s ends at %llu", name_of(s, origin), (unsigned long long)last);
}

static char *show(const scene *s, const packet *p) {
  input in = {p->data + 2, p->data + p->len - 4};
  switch (p->data[1]) {
  case HELLO: return hello(s, &in);
  case PATCHES: return range(s, &in, "PATCHES");
  case ACK: return ack(s, &in);
  case NEED: {
    uint64_t origin = take(&in);
    return test_format("NEED %s after %llu", name_of(s, origin), (unsigned long long)take(&in));
  }
  case SCHEMA: take(&in); return test_format("SCHEMA %s", take_text(&in));
  case ERROR: return error(s, &in);
  case STAGE: return stage(s, &in);
  case JUMP: return test_format("JUMP to %s", positions(s, &in, 4, true));
  case TAKE: {
    bool resumes = take(&in) == 1;
    char *staged = positions(s, &in, 1, false);
    return test_format("TAKE staged %s%s", *staged ? staged : "nothing",
                       resumes ? "; go on from here" : "");
  }
  case FORK: return fork(s, &in);
  default: return test_format("frame %d", p->data[1]);
  }
}

/* ---- rounds ---- */

static void say_frame(scene *s, int w, int side, const char *what) {
  const wire *x = &s->c->wires[w];
  const packet *p = &x->to[side].packets[0];
  if (s->without_acks && p->data[1] == ACK) return;
  scene_say(s, "%s > %s  %s%s", end_of(x, !side), end_of(x, side), show(s, p), what);
}

bool scene_round(scene *s) {
  size_t due[MAX_WIRES][2];
  bool moved = false;
  int n_wires = s->c->n_wires;
  for (int w = 0; w < n_wires; w++)
    for (int side = 0; side < 2; side++) {
      due[w][side] = s->c->wires[w].peers[side] < 0 ? 0 : s->c->wires[w].to[side].n;
      moved = moved || due[w][side] > 0;
    }
  if (!moved) return false;
  s->c->now_ms += 10;
  for (int w = 0; w < n_wires; w++)
    for (int side = 1; side >= 0; side--)
      for (size_t i = 0; i < due[w][side] && s->c->wires[w].to[side].n > 0; i++) {
        say_frame(s, w, side, "");
        wire_deliver(s->c, w, side, 0);
      }
  return true;
}

void scene_deliver(scene *s) {
  for (int rounds = 0; scene_round(s); rounds++)
    if (rounds == 1000) check_failed(__FILE__, __LINE__, "the peers never stop talking");
}

void scene_lose(scene *s, int w, int to_side) {
  say_frame(s, w, to_side, "   (lost)");
  wire_drop(s->c, w, to_side, 0);
}

void scene_beat(scene *s) {
  s->c->now_ms += 1000 - (s->c->now_ms - s->begun_ms) % 1000;
  for (int i = 0; i < s->c->n_peers; i++)
    if (s->c->peers[i].r) tick(&s->c->peers[i]);
  scene_deliver(s);
}

void scene_without_acks(scene *s) {
  s->without_acks = true;
}

static const char *event_line(const scene *s, const replic_event *e) {
  switch (e->kind) {
  case REPLIC_EVENT_LINK_READY: return test_format("link to %s is ready", name_of(s, e->peer));
  case REPLIC_EVENT_LINK_CLOSE: return test_format("link to %s ends", name_of(s, e->peer));
  case REPLIC_EVENT_SYNCED: return test_format("in step with %s", name_of(s, e->peer));
  case REPLIC_EVENT_LINK_ERROR:
  case REPLIC_EVENT_ERROR: return test_format("%s", replic_code_name(e->code));
  default: return NULL;
  }
}

void scene_events(scene *s) {
  for (int i = 0; i < s->c->n_peers; i++) {
    const peer *p = &s->c->peers[i];
    for (; s->told[i] < p->n_events; s->told[i]++) {
      const char *line = event_line(s, &p->events[s->told[i]]);
      if (line) scene_say(s, "%c: %s", 'A' + i, line);
    }
  }
}

void scene_is(scene *s, const char *lines) {
  CHECK_TEXT(s->text, lines);
}

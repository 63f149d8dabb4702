#include "report.h"

#include <cstdlib>
#include <cstring>

#include "error.h"

// ---- tables -------------------------------------------------------------------------------------

Tables::~Tables() {
  free(data_);
}

bool Tables::put(const void *bytes, size_t len) {
  if (cap_ - len_ < len) {
    size_t cap = (cap_ + len) * 2;
    char *grown = static_cast<char *>(realloc(data_, cap));
    if (!grown) return false;
    data_ = grown;
    cap_ = cap;
  }
  memcpy(data_ + len_, bytes, len);
  len_ += len;
  return true;
}

bool Tables::put_number(size_t number) {
  return put(&number, sizeof number);
}

bool Tables::put_text(const char *text) {
  return put(text, strlen(text) + 1);
}

bool Tables::put_table(const replic_table *table) {
  bool ok = put_text(table->name) && put_number(table->has_nulls) &&
            put_number(table->has_deleted_at) && put_number(table->n_columns);
  for (size_t i = 0; ok && i < table->n_columns; i++) {
    const replic_column *column = &table->columns[i];
    ok = put_text(column->name) && put_text(column->type) && put_number(column->key) &&
         put_number(column->not_null) && put_number(column->carried);
  }
  return ok;
}

bool Tables::read(const replic *core) {
  size_t count = replic_table_count(core);
  len_ = 0;
  bool ok = put_number(count);
  for (size_t i = 0; ok && i < count; i++) ok = put_table(replic_table_at(core, i));
  return ok;
}

bool Tables::copy(const Tables &other) {
  len_ = 0;
  return put(other.data_, other.len_);
}

bool Tables::equals(const Tables &other) const {
  return len_ == other.len_ && (len_ == 0 || memcmp(data_, other.data_, len_) == 0);
}

namespace {
// Reads what Tables::put_… have written.
struct Unpacker {
  const char *at;
  size_t number() {
    size_t number;
    memcpy(&number, at, sizeof number);
    at += sizeof number;
    return number;
  }
  const char *text() {
    const char *text = at;
    at += strlen(text) + 1;
    return text;
  }
};
} // namespace

static Napi::Object column_to_js(Napi::Env env, Unpacker &from) {
  Napi::Object column = Napi::Object::New(env);
  column.Set("name", from.text());
  column.Set("type", from.text());
  column.Set("key", static_cast<double>(from.number()));
  column.Set("notNull", from.number() != 0);
  column.Set("carried", from.number() != 0);
  return column;
}

Napi::Value Tables::to_js(Napi::Env env) const {
  Unpacker from = {data_};
  size_t count = from.number();
  Napi::Array tables = Napi::Array::New(env, count);
  for (uint32_t i = 0; i < count; i++) {
    Napi::HandleScope scope(env);
    Napi::Object table = Napi::Object::New(env);
    table.Set("name", from.text());
    table.Set("hasNulls", from.number() != 0);
    table.Set("hasDeletedAt", from.number() != 0);
    size_t n_columns = from.number();
    Napi::Array columns = Napi::Array::New(env, n_columns);
    for (uint32_t j = 0; j < n_columns; j++) columns.Set(j, column_to_js(env, from));
    table.Set("columns", columns);
    tables.Set(i, table);
  }
  return tables;
}

// ---- figures ------------------------------------------------------------------------------------

Histogram::Histogram(const double (&upper)[N_BOUNDS]) {
  memcpy(bounds, upper, sizeof bounds);
}

void Histogram::add(double value) {
  for (size_t i = 0; i < N_BOUNDS; i++) at_most[i] += value <= bounds[i];
  count++;
  sum += value;
  if (value > max) max = value;
}

// { count, sum, max, buckets: flat [bound, how many are not above it, ...] }
Napi::Object Histogram::to_js(Napi::Env env) const {
  Napi::Object result = Napi::Object::New(env);
  Napi::Array buckets = Napi::Array::New(env, N_BOUNDS * 2);
  for (uint32_t i = 0; i < N_BOUNDS; i++) {
    buckets.Set(i * 2, bounds[i]);
    buckets.Set(i * 2 + 1, static_cast<double>(at_most[i]));
  }
  result.Set("count", static_cast<double>(count));
  result.Set("sum", sum);
  result.Set("max", max);
  result.Set("buckets", buckets);
  return result;
}

// A batch takes at most 512 calls, and as many frames.
Figures::Figures()
    : batch_calls({1, 10, 100, 1000, 10000}), batch_seconds({0.001, 0.01, 0.1, 1, 10}) {}

void Figures::read(const replic *core) {
  replic_get_counters(core, &counters);
  clock_ms = replic_clock_high(core);
  clock_raised_by = replic_clock_raised_by(core);
  clock_off_ms = replic_clock_off(core);
  log_rows = replic_log_rows(core);
}

void Figures::add_batch(const replic *core, size_t calls, double seconds) {
  int64_t commits = counters.commits;
  replic_get_counters(core, &counters);
  if (counters.commits == commits) return;
  batch_calls.add(static_cast<double>(calls));
  batch_seconds.add(seconds);
}

static Napi::Object counters_to_js(Napi::Env env, const replic_counters &from) {
  Napi::Object counters = Napi::Object::New(env);
  auto set = [&](const char *name, int64_t number) {
    counters.Set(name, Napi::Number::New(env, static_cast<double>(number)));
  };
  set("commits", from.commits);
  set("groupsWritten", from.groups_written);
  set("patchesWritten", from.patches_written);
  set("patchesApplied", from.patches_applied);
  set("patchesDuplicate", from.patches_duplicate);
  set("patchesRelayed", from.patches_relayed);
  set("patchesPruned", from.patches_pruned);
  set("patchesStaged", from.patches_staged);
  set("framesEarly", from.frames_early);
  set("framesDroppedEarly", from.frames_dropped_early);
  set("retransmissions", from.retransmissions);
  set("rowsWaiting", from.rows_waiting);
  set("jumps", from.jumps);
  set("jumpsResumed", from.jumps_resumed);
  set("jumpsAbandoned", from.jumps_abandoned);
  set("skewRefusals", from.skew_refusals);
  set("forksHealed", from.forks_healed);
  return counters;
}

Napi::Object Figures::to_js(Napi::Env env) const {
  Napi::Object result = Napi::Object::New(env);
  auto set = [&](const char *name, int64_t number) {
    result.Set(name, Napi::Number::New(env, static_cast<double>(number)));
  };
  set("clock", clock_ms);
  set("clockRaisedBy", clock_raised_by);
  set("clockOffMs", clock_off_ms);
  set("logRows", log_rows);
  result.Set("counters", counters_to_js(env, counters));
  result.Set("batchCalls", batch_calls.to_js(env));
  result.Set("batchSeconds", batch_seconds.to_js(env));
  return result;
}

// ---- collecting ---------------------------------------------------------------------------------

static bool is_link_event(const replic_event &event) {
  return event.kind == REPLIC_EVENT_LINK_READY || event.kind == REPLIC_EVENT_LINK_CLOSE ||
         event.kind == REPLIC_EVENT_LINK_ERROR || event.kind == REPLIC_EVENT_SYNCED;
}

// Without memory for it there are fewer.
void Pending::read(const replic *core, Arena &arena) {
  size_t count = replic_pending_count(core);
  list_ = arena.array<replic_pending>(count + 1);
  for (count_ = 0; list_ && count_ < count; count_++) {
    replic_pending &one = list_[count_] = *replic_pending_at(core, count_);
    one.table = arena.copy(one.table);
    one.why = arena.copy(one.why);
    if (!one.table || !one.why) break;
  }
}

Napi::Value Pending::to_js(Napi::Env env) const {
  Napi::Array pending = Napi::Array::New(env, count_);
  for (uint32_t i = 0; i < count_; i++) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("table", list_[i].table);
    one.Set("why", list_[i].why);
    one.Set("patches", Napi::Number::New(env, static_cast<double>(list_[i].patches)));
    one.Set("oldestAt", Napi::Number::New(env, static_cast<double>(list_[i].oldest_at)));
    pending.Set(i, one);
  }
  return pending;
}

// Without memory for it there are fewer.
void Stuck::read(const replic *core, Arena &arena) {
  size_t count = replic_stuck_count(core);
  rows_ = replic_stuck_rows(core);
  list_ = arena.array<replic_stuck>(count + 1);
  for (count_ = 0; list_ && count_ < count; count_++) {
    replic_stuck &one = list_[count_] = *replic_stuck_at(core, count_);
    one.table = arena.copy(one.table);
    one.key = arena.copy(one.key);
    one.why = arena.copy(one.why);
    if (!one.table || !one.key || !one.why) break;
  }
}

Napi::Value Stuck::to_js(Napi::Env env) const {
  Napi::Object stuck = Napi::Object::New(env);
  Napi::Array first = Napi::Array::New(env, count_);
  for (uint32_t i = 0; i < count_; i++) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("table", list_[i].table);
    one.Set("key", list_[i].key);
    one.Set("code", replic_code_name(list_[i].code));
    one.Set("why", list_[i].why);
    first.Set(i, one);
  }
  stuck.Set("rows", Napi::Number::New(env, static_cast<double>(rows_)));
  stuck.Set("first", first);
  return stuck;
}

void Report::collect(replic *core, Told &told) {
  replic_take_outbox(core, &outbox_);
  for (size_t i = 0; i < outbox_.n_events; i++)
    links_changed = links_changed || is_link_event(outbox_.events[i]);
  if (links_changed) collect_links(core);
  if (links_changed || tables_changed) collect_rest(core, told);
  if (tables_changed) collect_tables(core, told.tables);
}

// With each acknowledgement that leaves a link in step this is asked, so nothing is told twice.
void Report::collect_rest(const replic *core, Told &told) {
  bool pending = replic_pending_count(core) > 0, stuck = replic_stuck_rows(core) > 0;
  if (pending || told.pending) pending_.read(core, arena_);
  if (stuck || told.stuck) stuck_.read(core, arena_);
  told.pending = pending;
  told.stuck = stuck;
}

// Without memory for it there is no such list this time; the next heartbeat brings one.
void Report::collect_links(replic *core) {
  size_t count = replic_link_count(core);
  links_ = arena_.array<replic_link_info>(count);
  for (n_links_ = 0; links_ && n_links_ < count; n_links_++) {
    replic_link_info *info = &links_[n_links_];
    if (!replic_link_at(core, n_links_, info)) break;
    if (info->held) info->held = arena_.copy(info->held);
    if (info->schema) info->schema = arena_.copy(info->schema);
  }
}

void Report::collect_tables(const replic *core, Tables &known) {
  tables_changed = tables_.read(core) && !tables_.equals(known) && known.copy(tables_);
}

void Report::free_outbox() {
  replic_outbox_free(&outbox_);
  outbox_ = replic_outbox();
}

// ---- telling ------------------------------------------------------------------------------------

bool Report::worth_telling() const {
  return outbox_.n_sends || outbox_.n_events || links_ || pending_ || stuck_ || tables_changed ||
         drained || lost;
}

// Flat [link, frame, ...]. A frame that goes to several links is one Buffer.
static Napi::Array sends_to_js(Napi::Env env, const replic_outbox &outbox) {
  Napi::Array sends = Napi::Array::New(env, outbox.n_sends * 2);
  const replic_frame *last = nullptr;
  Napi::Value buffer;
  uint32_t at = 0;
  for (size_t i = 0; i < outbox.n_sends; i++) {
    const replic_send &send = outbox.sends[i];
    if (send.frame != last)
      buffer = Napi::Buffer<uint8_t>::Copy(env, send.frame->data, send.frame->len);
    last = send.frame;
    sends.Set(at++, Napi::Number::New(env, send.link));
    sends.Set(at++, buffer);
  }
  return sends;
}

static const char *event_kind(int kind) {
  switch (kind) {
  case REPLIC_EVENT_CHANGE: return "change";
  case REPLIC_EVENT_LINK_READY: return "ready";
  case REPLIC_EVENT_LINK_CLOSE: return "close";
  case REPLIC_EVENT_LINK_ERROR: return "linkError";
  case REPLIC_EVENT_LINK_LEFT: return "left";
  case REPLIC_EVENT_ACKED: return "acked";
  case REPLIC_EVENT_SYNCED: return "synced";
  case REPLIC_EVENT_MESSAGE: return "message";
  case REPLIC_EVENT_JUMPED: return "jumped";
  case REPLIC_EVENT_TRACE: return "trace";
  default: return "error";
  }
}

static Napi::Object event_to_js(Napi::Env env, const replic_event &from) {
  Napi::Object event = Napi::Object::New(env);
  event.Set("kind", event_kind(from.kind));
  if (from.link) event.Set("link", Napi::Number::New(env, from.link));
  if (from.peer) event.Set("peer", Napi::Number::New(env, from.peer));
  if (from.origin) event.Set("origin", Napi::Number::New(env, from.origin));
  if (from.kind == REPLIC_EVENT_CHANGE) {
    event.Set("local", (from.code & 1) != 0);
    event.Set("remote", (from.code & 2) != 0);
  } else if (from.code) {
    event.Set("code", replic_code_name(from.code));
  }
  if (from.kind == REPLIC_EVENT_LINK_LEFT || from.kind == REPLIC_EVENT_ACKED)
    event.Set("sum", static_cast<double>(from.a));
  if (from.kind == REPLIC_EVENT_MESSAGE)
    event.Set("bytes", Napi::Buffer<char>::Copy(env, from.text, static_cast<size_t>(from.a)));
  else if (from.text)
    event.Set("text", Napi::String::New(env, from.text));
  return event;
}

static Napi::Object lost_to_js(Napi::Env env, const Failure &lost) {
  Napi::Object event = Napi::Object::New(env);
  event.Set("kind", "error");
  event.Set("code", lost.code_name());
  event.Set("text", lost.text());
  return event;
}

// Flat [origin, sequence, patchedAt, ...]. Sequences and clocks are below 2^53.
static void push_position(Napi::Array &vector, const replic_event &event) {
  uint32_t at = vector.Length();
  Napi::Env env = vector.Env();
  vector.Set(at, Napi::Number::New(env, event.origin));
  vector.Set(at + 1, Napi::Number::New(env, static_cast<double>(event.a)));
  vector.Set(at + 2, Napi::Number::New(env, static_cast<double>(event.b)));
}

static Napi::Object link_to_js(Napi::Env env, const replic_link_info &info) {
  static const char *const STATES[] = {"opening", "ready", "standby"};
  static const char *const JUMPS[] = {nullptr, "sending", "receiving"};
  Napi::Object link = Napi::Object::New(env);
  auto set = [&](const char *name, int64_t number) {
    link.Set(name, Napi::Number::New(env, static_cast<double>(number)));
  };
  set("link", info.link);
  set("peer", info.peer);
  link.Set("state", STATES[info.state]);
  set("lag", info.lag);
  set("lagMs", info.lag_ms);
  set("behind", info.behind);
  set("unackedBytes", info.unacked_bytes);
  set("skewMs", info.skew_ms);
  set("bytesIn", info.bytes_in);
  set("bytesOut", info.bytes_out);
  set("framesIn", info.frames_in);
  set("framesOut", info.frames_out);
  set("retransmitted", info.retransmitted);
  set("staged", info.staged);
  link.Set("peerMayWrite", !info.reader);
  link.Set("selfMayWrite", !info.muted);
  const char *jump = JUMPS[info.jump];
  link.Set("jump", jump ? Napi::Value(Napi::String::New(env, jump)) : env.Null());
  link.Set("schema", info.schema ? info.schema : "");
  link.Set("held", info.held ? Napi::Value(Napi::String::New(env, info.held)) : env.Null());
  return link;
}

Napi::Value Report::to_js(Napi::Env env, size_t frame_bytes, bool unsettled) const {
  Napi::Object result = Napi::Object::New(env);
  Napi::Array events = Napi::Array::New(env), vector = Napi::Array::New(env),
              back = Napi::Array::New(env);
  for (size_t i = 0; i < outbox_.n_events; i++) {
    Napi::HandleScope scope(env);
    const replic_event &event = outbox_.events[i];
    if (event.kind == REPLIC_EVENT_VECTOR)
      push_position(vector, event);
    else if (event.kind == REPLIC_EVENT_BACK)
      push_position(back, event);
    else
      events.Set(events.Length(), event_to_js(env, event));
  }
  if (lost) events.Set(events.Length(), lost_to_js(env, lost));
  if (vector.Length()) result.Set("vector", vector);
  if (back.Length()) result.Set("back", back);
  result.Set("sends", sends_to_js(env, outbox_));
  result.Set("events", events);
  if (links_) {
    Napi::Array links = Napi::Array::New(env, n_links_);
    for (uint32_t i = 0; i < n_links_; i++) links.Set(i, link_to_js(env, links_[i]));
    result.Set("links", links);
  }
  if (pending_) result.Set("pending", pending_.to_js(env));
  if (stuck_) result.Set("stuck", stuck_.to_js(env));
  if (tables_changed) result.Set("tables", tables_.to_js(env));
  result.Set("frameBytes", static_cast<double>(frame_bytes));
  if (unsettled) result.Set("unsettled", true);
  return result;
}

/* sim.h - a simulated cluster: any number of peers, the network between them, and time, in one
 * thread and from one seed. Same seed, same calls: same trace.
 *
 *   peer 0 ──┐                  an edge is a place in the topology: it is dialed, and dialed again
 *            edge ── link 7     whenever its connection has ended;
 *   peer 1 ──┘                  a link is one such connection, with the number that the cores use
 *
 * Everything that happens is an event at a time: a frame arrives, a peer ticks, an edge is dialed.
 * sim_run_until lets time pass up to a point, event after event. Between two such calls the test
 * does to peers, edges and clocks what it likes.
 *
 * Nothing here knows what the peers write, or what must hold: the hooks are for that. */
#ifndef SIM_H
#define SIM_H

#include "harness.h"

typedef struct sim sim;

typedef struct sim_peer {
  sim *sim;
  int index;
  int disk;      /* of memvfs */
  char *path;    /* of its database; <path>-replic lies beside it */
  replic *r;     /* NULL while it is down */
  uint32_t id;   /* its peerId; stays while it is down */
  bool gone;     /* for ever */
  uint32_t life; /* number of its starts: what was scheduled for a former one is void */
  replic_config config;
  int64_t clock_offset_ms; /* its wall clock minus the true time */
  sqlite3 *reader;         /* sim_sql */
  void *mind;              /* the test's own */
} sim_peer;

typedef struct sim_quality {
  uint32_t delay_min_ms, delay_max_ms;
  uint32_t loss, duplication; /* percent */
  bool ordered;               /* frames do not overtake each other */
} sim_quality;

enum { SIM_NOTHING, SIM_PATCHES, SIM_ALL_BUT_HEARTBEATS };

typedef struct sim_packet sim_packet;

typedef struct sim_edge {
  int peers[2];
  sim_quality quality;
  bool cut;        /* whatever is sent is lost, and neither side is told */
  bool is_removed; /* never dialed again */
  bool stalled[2]; /* this side takes nothing; what arrives waits */
  int swallows[2]; /* SIM_…: what never arrives at this side */
  sim_packet *waiting[2], **waiting_end[2];
  bool mute[2];            /* whatever is sent to this side is lost, and nobody is told */
  int64_t bytes_per_ms[2]; /* to this side; 0: unbound. What is sent waits for what was before */
  int64_t free_us[2];      /* when all that was sent has left */
  int link;                /* the latest one; -1: none yet */
  bool is_dialing;
  int64_t last_arrival[2];
} sim_edge;

typedef struct sim_link {
  int edge;
  bool open[2];
} sim_link;

enum { SIM_CLOSE, SIM_KILL, SIM_POWER_CUT };

typedef struct sim_hooks {
  /* In every batch of receptions and ticks, before its commit: more calls may be added. */
  void (*in_batch)(sim_peer *p);
  /* After every commit, before its frames are on their way; rc: its code. */
  void (*committed)(sim_peer *p, int rc);
  void (*sent)(sim_peer *p, uint32_t link, const uint8_t *frame, size_t len);
  void (*event)(sim_peer *p, const replic_event *event);
  /* The disk failed for good within a batch: the peer has been killed. */
  void (*killed)(sim_peer *p);
  void (*begins)(sim_peer *p); /* before each batch */
} sim_hooks;

struct sim {
  rng g;
  rng quotas; /* what draws them: other seeds are as if there were none */
  rng lines;  /* the same of bandwidths, and of directions that bring nothing */
  bool has_quotas, has_crowds;
  int64_t now_ms;
  bool on_disk; /* real files, in the test's folder */
  bool trace;   /* print what happens */
  uint64_t trace_hash;
  sim_hooks hooks;
  void *mind;
  uint32_t next_id; /* a peerId that was never used */
  int n_peers, cap_peers;
  sim_peer **peers;
  int n_edges, cap_edges;
  sim_edge *edges;
  int n_links, cap_links;
  sim_link *links; /* number = index + 1 */
  size_t n_events, cap_events;
  struct sim_event *events; /* a heap, the earliest first */
  uint64_t n_scheduled;
  int64_t frames_sent, frames_lost, frames_swallowed, frames_queued, frames_arrived;
  int64_t bytes_sent, patches_sent;
};

/* One at a time: what a failed test has left is freed by the next, or by sim_free(NULL).
 * Meanwhile memvfs is SQLite's default VFS, unless it is on disk. */
sim *sim_new(uint64_t seed, bool on_disk);
void sim_free(sim *s);
/* A line of the trace: into its hash, and printed if asked for. */
void sim_trace(sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* In some seeds, from here on, those of each new peer are small, so that what others bring is held;
 * in some of them (has_crowds) links have room for few origins. */
void sim_draw_quotas(sim *s);
/* Until now: they are large for all, at once where a peer runs. */
void sim_lift_quotas(sim *s);
sim_peer *sim_add(sim *s);
int64_t sim_peer_now(const sim_peer *p);
/* Opens the replica, whose code is returned; where it fails, p->r is NULL and the text is traced.
 * Its edges will be dialed. */
int sim_start(sim_peer *p);
/* SIM_…; `silent`: the other sides are not told. */
void sim_stop(sim_peer *p, int how, bool silent);
int64_t sim_at(const sim_peer *p, uint32_t origin); /* its vector */
/* A connection that reads the file as any other program would; open until the peer stops. */
sqlite3 *sim_sql(sim_peer *p);

/* A batch of the test's own. A failing commit is a failed check, unless its disk failed. Returns
 * its code. */
void sim_begin(sim_peer *p);
int sim_commit(sim_peer *p);
void sim_rollback(sim_peer *p);

/* The files of a peer that is down, or between two batches. `suffix`: "", "-wal", "-replic". */
char *sim_file(const sim_peer *p, const char *suffix);
void sim_copy_file(sim *s, const char *from, const char *to);
void sim_remove_file(sim *s, const char *path);

int sim_connect(sim *s, int a, int b, sim_quality quality); /* the edge's index */
void sim_close_edge(sim *s, int edge);                      /* both sides are told; redialed */
void sim_remove_edge(sim *s, int edge);
void sim_cut(sim *s, int edge, bool cut);
void sim_stall(sim *s, int edge, int side, bool stalled);
/* One direction brings nothing, though the link is up. */
void sim_mute(sim *s, int edge, int side, bool mute);
/* Bytes in a ms to each side; 0: unbound. What is on its way arrives as before. */
void sim_set_lines(sim *s, int edge, int64_t to_0, int64_t to_1);
void sim_redial(sim *s, int edge, uint32_t after_ms);
bool sim_is_linked(const sim *s, int edge);

/* A number of a frame (docs/protocol.md), from *at on. */
uint64_t sim_read_varint(const uint8_t **at, const uint8_t *end);

/* Lets time pass up to `until_ms`. */
void sim_run_until(sim *s, int64_t until_ms);

#endif

/* sim_world.h - one seed's life of a simulated cluster: what its peers write, what goes wrong, and
 * what must hold after every step. See docs/simulator.md. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "sim.h"

enum {
  TOPOLOGY_ANY, /* drawn from the seed */
  TOPOLOGY_MESH,
  TOPOLOGY_HUB,
  TOPOLOGY_CHAIN,
  TOPOLOGY_RING,
  TOPOLOGY_HUBS,
  TOPOLOGY_RANDOM,
  N_TOPOLOGIES
};
extern const char *const TOPOLOGY_NAMES[N_TOPOLOGIES];

typedef struct world_options {
  uint64_t seed;
  int peers, steps; /* 0: drawn from the seed */
  int topology;
  bool on_disk, trace;
} world_options;

/* What has happened, over all seeds that were run with it. */
#define WORLD_COUNTERS(X)                                                                          \
  X(groups, "groups written")                                                                      \
  X(rollbacks, "batches rolled back")                                                              \
  X(frames, "frames sent")                                                                         \
  X(lost, "frames lost")                                                                           \
  X(applied, "patches applied")                                                                    \
  X(early, "early frames")                                                                         \
  X(early_dropped, "early frames dropped")                                                         \
  X(retransmissions, "patches retransmitted")                                                      \
  X(rows_waiting, "rows that waited for a column")                                                 \
  X(rows_stuck, "tables with rows that could not be stored")                                       \
  X(partitions, "partitions")                                                                      \
  X(stalls, "stalled links")                                                                       \
  X(timeouts, "links that timed out")                                                              \
  X(swallowed, "patches swallowed by links that let heartbeats pass")                              \
  X(carried, "links that carried in another's place")                                              \
  X(queued, "frames that waited for those before them")                                            \
  X(mutes, "directions that brought nothing while the link was up")                                \
  X(served, "rows that came within their bound")                                                   \
  X(kills, "processes killed")                                                                     \
  X(kills_inside, "processes killed within a batch")                                               \
  X(power_cuts, "power cuts")                                                                      \
  X(failed_commits, "commits that failed")                                                         \
  X(revived, "failed commits that a restart brought back")                                         \
  X(clock_steps, "clock steps")                                                                    \
  X(skew_refusals, "skew refusals")                                                                \
  X(quotas, "times that a quota has held something")                                               \
  X(restored, "restored backups")                                                                  \
  X(new_peers, "files that went on as a new peer")                                                 \
  X(refused_opens, "opens refused with REPLIC_RESTORED")                                           \
  X(joined, "peers that joined late")                                                              \
  X(left, "peers that left for ever")                                                              \
  X(relayed, "patches relayed")                                                                    \
  X(compactions, "compactions")                                                                    \
  X(pruned, "patches pruned")                                                                      \
  X(staged, "patches staged")                                                                      \
  X(jumps, "jumps")                                                                                \
  X(looks_ahead, "files that were looked at while a jump was being merged")                        \
  X(starts_ahead, "starts while a jump was being merged")                                          \
  X(jumps_resumed, "jumps resumed")                                                                \
  X(jumps_abandoned, "jumps abandoned")                                                            \
  X(forks, "forks")                                                                                \
  X(forks_refused, "forks refused")                                                                \
  X(forks_healed, "patches of forks issued anew")                                                  \
  X(steps_up, "steps of migrations up")                                                            \
  X(steps_down, "steps of migrations down")                                                        \
  X(steps_failed, "steps of migrations whose disk failed")

typedef struct world_report {
  uint64_t trace_hash; /* of the last seed */
  int64_t served_most; /* percent of its bound that the slowest row has taken (sim_fair.c) */
#define X(name, text) int64_t name;
  WORLD_COUNTERS(X)
#undef X
} world_report;

/* Lives one seed through. A failed check ends the test. */
void world_run(const world_options *options, world_report *report);
void world_print(const world_report *report);

#endif

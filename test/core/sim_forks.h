/* sim_forks.h - clusters in which one file goes on in two places, and which are healed as docs say.
 */
#ifndef SIM_FORKS_H
#define SIM_FORKS_H

#include "sim_world.h"

/* One seed. A failed check ends the test. */
void forks_run(uint64_t seed, bool trace, world_report *report);

#endif

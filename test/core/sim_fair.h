/* sim_fair.h - clusters on slow lines in which nobody who could be served may wait. */
#ifndef SIM_FAIR_H
#define SIM_FAIR_H

#include "sim_world.h"

/* One seed. A failed check ends the test. */
void fair_run(uint64_t seed, bool trace, world_report *report);

#endif

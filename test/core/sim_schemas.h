/* sim_schemas.h - clusters whose peers migrate up and down among five versions of a schema, while
 * all of them write. */
#ifndef SIM_SCHEMAS_H
#define SIM_SCHEMAS_H

#include "sim_world.h"

/* One seed. A failed check ends the test. */
void schemas_run(uint64_t seed, bool trace, world_report *report);

#endif

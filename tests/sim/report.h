/* SPDX-License-Identifier: Apache-2.0 */
/* What a run says: its trace (kept short in memory, printed when something goes wrong or when asked for), its digest,
 * and the command line that repeats it. The log of the daemon's own code goes there, too. */
#ifndef TESTS_SIM_REPORT_H
#define TESTS_SIM_REPORT_H

#include "tests/sim/world.h"

void report_begin(struct world *world);
void report_end(struct world *world);

#endif

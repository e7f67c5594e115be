/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the simulation share. Private to base. */
#ifndef BASE_SIM_PRIVATE_H
#define BASE_SIM_PRIVATE_H

#include "base/loop_private.h"
#include "base/rng.h"
#include "base/sim.h"

struct sim_disk;

struct sim {
    struct rng rng;
    uint64_t now_ns;
    struct sim_config config;
    struct sim_disk *disk;
    struct list listeners; /* of struct sim_listener */
    struct list watches;   /* of struct sim_watch */
    uint64_t observed;     /* file operations that the observer knows of */
    void (*observer)(void *arg);
    void *observer_arg;
};

struct sim_disk *sim_disk_new(struct sim *sim);
void sim_disk_free(struct sim_disk *disk);

static inline uint64_t sim_draw(struct sim *sim, uint64_t low, uint64_t high)
{
    return high > low ? rng_between(&sim->rng, low, high) : low;
}

/* The extra time of one thing in so many. */
static inline uint64_t sim_stall(struct sim *sim, uint64_t one_in)
{
    return one_in && !rng_below(&sim->rng, one_in) ? sim_draw(sim, sim->config.stall_low_ns, sim->config.stall_high_ns)
                                                   : 0;
}

#endif

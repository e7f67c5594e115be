/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a throttle group's properties mean: the six rates with their bursts, in two spellings ("limits" as one value and
 * x-... one by one), checked and brought into the form that arithmetic needs.
 */
#ifndef BLOCK_FILTERS_THROTTLE_LIMITS_H
#define BLOCK_FILTERS_THROTTLE_LIMITS_H

#include <stdbool.h>
#include "base/error.h"
#include "block/filters/leaky_bucket.h"

struct throttle_group_properties;

enum throttle_rate {
    RATE_BPS_TOTAL,
    RATE_BPS_READ,
    RATE_BPS_WRITE,
    RATE_IOPS_TOTAL,
    RATE_IOPS_READ,
    RATE_IOPS_WRITE,
    N_RATES,
};

struct throttle_limits_state {
    struct leaky_bucket buckets[N_RATES]; /* levels are 0 */
    uint64_t iops_size;                   /* a request counts as one for each so many bytes; 0: always as one */
};

/* Fills in every property: from `before` (NULL: the group is new) where nothing new is said. The x- spelling is for new
 * groups. */
bool throttle_complete(struct throttle_group_properties *properties, const struct throttle_group_properties *before,
                       struct error *err);
/* Of complete properties. Refuses contradictions; *state is changed in the case of success only. */
bool throttle_limits(const struct throttle_group_properties *properties, struct throttle_limits_state *state,
                     struct error *err);

#endif

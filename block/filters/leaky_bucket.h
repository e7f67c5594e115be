/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates with bursts, as leaky buckets. A bucket leaks at the rate that is allowed in the long run; every request pours
 * its cost in; and while more is in it than it holds, the next request waits until that has leaked out:
 *
 *     avg     what leaks out per second; 0: no limit
 *     max     the rate of a burst; 0: none, the bucket then holds what leaks in a tenth of a second
 *     length  seconds that a burst may last: the bucket holds max * length. For bursts longer than a second a second,
 *             small bucket with the leak `max` sees to it that the burst itself keeps to its rate.
 *
 * A request may always begin when there is room for anything at all, however large it is: what it takes too much, later
 * ones wait for. Pure arithmetic: time comes from the caller, in nanoseconds.
 */
#ifndef BLOCK_FILTERS_LEAKY_BUCKET_H
#define BLOCK_FILTERS_LEAKY_BUCKET_H

#include <stdint.h>
#include "base/math.h"

#define NS_PER_SECOND 1000000000.0

struct leaky_bucket {
    uint64_t avg, max, length;
    double level, burst_level;
};

static inline void leaky_bucket_leak(struct leaky_bucket *bucket, uint64_t passed_ns)
{
    double seconds = (double)passed_ns / NS_PER_SECOND;
    bucket->level = MAX(bucket->level - (double)bucket->avg * seconds, 0.0);
    bucket->burst_level = MAX(bucket->burst_level - (double)bucket->max * seconds, 0.0);
}

static inline void leaky_bucket_pour(struct leaky_bucket *bucket, double cost)
{
    bucket->level += bucket->avg ? cost : 0;
    bucket->burst_level += bucket->length > 1 ? cost : 0;
}

static inline uint64_t leaky_time_ns(double excess, uint64_t rate)
{
    /* Rounded up: whoever comes back then must find the bucket leaked. */
    return excess > 0 ? (uint64_t)(excess / (double)rate * NS_PER_SECOND) + 1 : 0;
}

/* How long until a request may begin; 0: now. */
static inline uint64_t leaky_bucket_wait_ns(const struct leaky_bucket *bucket)
{
    if (!bucket->avg)
        return 0;
    double holds = bucket->max ? (double)bucket->max * (double)bucket->length : (double)bucket->avg / 10;
    uint64_t wait = leaky_time_ns(bucket->level - holds, bucket->avg);
    if (bucket->length <= 1 || !bucket->max)
        return wait;
    return MAX(wait, leaky_time_ns(bucket->burst_level - (double)bucket->max / 10, bucket->max));
}

#endif

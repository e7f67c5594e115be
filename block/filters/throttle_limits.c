/* SPDX-License-Identifier: Apache-2.0 */
/* Properties of throttle groups; see the header. */
#include "block/filters/throttle_limits.h"

#include <inttypes.h>
#include <stddef.h>
#include "base/alloc.h"
#include "qmp/schema/types.h"

#define LARGEST_RATE INT64_C(1000000000000000)

/* Where a property is, in both spellings. */
struct place {
    size_t limit, has_limit, scalar, has_scalar;
    const char *name;
};

#define PLACE(member, text)                                                                                            \
    {                                                                                                                  \
        offsetof(struct throttle_limits, member), offsetof(struct throttle_limits, has_##member),                      \
            offsetof(struct throttle_group_properties, x_##member),                                                    \
            offsetof(struct throttle_group_properties, has_x_##member), text                                           \
    }
#define RATE(member, text)                                                                                             \
    {                                                                                                                  \
        PLACE(member, text), PLACE(member##_max, text "-max"), PLACE(member##_max_length, text "-max-length")          \
    }

enum { AVG, MAXIMUM, LENGTH };

static const struct place rates[N_RATES][3] = {
    [RATE_BPS_TOTAL] = RATE(bps_total, "bps-total"), [RATE_BPS_READ] = RATE(bps_read, "bps-read"),
    [RATE_BPS_WRITE] = RATE(bps_write, "bps-write"), [RATE_IOPS_TOTAL] = RATE(iops_total, "iops-total"),
    [RATE_IOPS_READ] = RATE(iops_read, "iops-read"), [RATE_IOPS_WRITE] = RATE(iops_write, "iops-write"),
};
static const struct place iops_size = PLACE(iops_size, "iops-size");

static int64_t *value_at(const void *base, size_t offset)
{
    return (int64_t *)((char *)base + offset);
}

static bool *flag_at(const void *base, size_t offset)
{
    return (bool *)((char *)base + offset);
}

static bool complete(struct throttle_group_properties *new, const struct throttle_group_properties *before,
                     const struct place *place, int64_t otherwise, struct error *err)
{
    bool said = *flag_at(new->limits, place->has_limit), said_scalar = *flag_at(new, place->has_scalar);
    int64_t value = *value_at(new->limits, place->limit), scalar = *value_at(new, place->scalar);
    if (before) {
        int64_t old = *value_at(before, place->scalar);
        if (said_scalar && scalar != old)
            return fail(err, EPERM, "Property cannot be set after initialization: use 'limits' instead of 'x-%s'",
                        place->name);
        value = said ? value : old;
    } else {
        value = said_scalar ? scalar : said ? value : otherwise;
    }
    *flag_at(new->limits, place->has_limit) = *flag_at(new, place->has_scalar) = true;
    *value_at(new->limits, place->limit) = *value_at(new, place->scalar) = value;
    return true;
}

bool throttle_complete(struct throttle_group_properties *properties, const struct throttle_group_properties *before,
                       struct error *err)
{
    if (!properties->limits)
        properties->limits = new (struct throttle_limits);
    for (size_t rate = 0; rate < N_RATES; rate++) {
        for (size_t which = AVG; which <= LENGTH; which++)
            if (!complete(properties, before, &rates[rate][which], which == LENGTH, err))
                return false;
    }
    return complete(properties, before, &iops_size, 0, err);
}

/* Checks ---------------------------------------------------------------------------------------------------------- */

static bool check_range(const struct throttle_limits *limits, const struct place *place, struct error *err)
{
    int64_t value = *value_at(limits, place->limit);
    return (value >= 0 && value <= LARGEST_RATE) ||
           fail(err, EINVAL, "bps/iops/max values must be within [0, %" PRId64 "]: '%s' is %" PRId64, LARGEST_RATE,
                place->name, value);
}

static bool check_bucket(const struct leaky_bucket *bucket, const struct place place[3], struct error *err)
{
    if (!bucket->length)
        return fail(err, EINVAL, "the burst length cannot be 0 ('%s')", place[LENGTH].name);
    if (bucket->length > UINT32_MAX)
        return fail(err, EINVAL, "'%s' is %" PRIu64 ", expected at most %u seconds", place[LENGTH].name, bucket->length,
                    UINT32_MAX);
    if (bucket->length > 1 && !bucket->max)
        return fail(err, EINVAL, "burst length set without burst rate: '%s' requires '%s'", place[LENGTH].name,
                    place[MAXIMUM].name);
    if (bucket->max && bucket->length > (uint64_t)LARGEST_RATE / bucket->max)
        return fail(err, EINVAL, "burst length too high for this burst rate: '%s' times '%s' exceeds %" PRId64,
                    place[LENGTH].name, place[MAXIMUM].name, LARGEST_RATE);
    if (bucket->max && !bucket->avg)
        return fail(err, EINVAL, "bps_max/iops_max require corresponding bps/iops values: '%s' requires '%s'",
                    place[MAXIMUM].name, place[AVG].name);
    if (bucket->max && bucket->max < bucket->avg)
        return fail(err, EINVAL,
                    "bps_max/iops_max cannot be lower than bps/iops: '%s' is %" PRIu64 ", '%s' is %" PRIu64,
                    place[MAXIMUM].name, bucket->max, place[AVG].name, bucket->avg);
    return true;
}

static bool is_set(const struct leaky_bucket *bucket)
{
    return bucket->avg || bucket->max;
}

/* A total and its parts would be two answers to one question. */
static bool check_totals(const struct leaky_bucket *buckets, struct error *err)
{
    for (size_t total = RATE_BPS_TOTAL; total <= RATE_IOPS_TOTAL; total += RATE_IOPS_TOTAL) {
        if (is_set(&buckets[total]) && (is_set(&buckets[total + 1]) || is_set(&buckets[total + 2])))
            return fail(err, EINVAL,
                        "bps/iops/max total values and read/write values cannot be used at the same time: give '%s' "
                        "alone, or '%s' and '%s'",
                        rates[total][AVG].name, rates[total + 1][AVG].name, rates[total + 2][AVG].name);
    }
    return true;
}

static bool check_iops_size(const struct throttle_limits_state *state, struct error *err)
{
    const struct leaky_bucket *ops = &state->buckets[RATE_IOPS_TOTAL];
    return !state->iops_size || ops[0].avg || ops[1].avg || ops[2].avg ||
           fail(err, EINVAL, "iops size requires an iops value to be set");
}

bool throttle_limits(const struct throttle_group_properties *properties, struct throttle_limits_state *state,
                     struct error *err)
{
    const struct throttle_limits *limits = properties->limits;
    struct throttle_limits_state result = {.iops_size = (uint64_t)limits->iops_size};
    for (size_t rate = 0; rate < N_RATES; rate++) {
        const struct place *place = rates[rate];
        for (size_t which = AVG; which <= LENGTH; which++)
            if (!check_range(limits, &place[which], err))
                return false;
        result.buckets[rate] = (struct leaky_bucket){.avg = (uint64_t)*value_at(limits, place[AVG].limit),
                                                     .max = (uint64_t)*value_at(limits, place[MAXIMUM].limit),
                                                     .length = (uint64_t)*value_at(limits, place[LENGTH].limit)};
    }
    if (!check_range(limits, &iops_size, err) || !check_totals(result.buckets, err))
        return false;
    for (size_t rate = 0; rate < N_RATES; rate++)
        if (!check_bucket(&result.buckets[rate], rates[rate], err))
            return false;
    if (!check_iops_size(&result, err))
        return false;
    *state = result;
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of a disk that somebody is busy with, so that others wait: a copy in flight, a read of the old content, a
 * write that goes to two places. A range lives on the stack of its coroutine. There are few at a time: a list is
 * enough.
 */
#ifndef BLOCK_FILTERS_RANGES_H
#define BLOCK_FILTERS_RANGES_H

#include "base/co.h"
#include "base/list.h"

struct range {
    struct list link;
    uint64_t offset, length;
    struct co_queue waiters;
};

static inline struct range *ranges_find(const struct list *ranges, uint64_t offset, uint64_t length)
{
    struct range *range;
    list_for_each (range, ranges, link) {
        if (spans_overlap(range->offset, range->length, offset, length))
            return range;
    }
    return NULL;
}

/* YIELDS until nobody is busy with any part. Returns whether it had to wait. */
static inline bool ranges_wait(const struct list *ranges, uint64_t offset, uint64_t length)
{
    struct range *range = ranges_find(ranges, offset, length);
    if (!range)
        return false;
    while (range) {
        co_queue_wait_uncancellable(&range->waiters);
        range = ranges_find(ranges, offset, length);
    }
    return true;
}

static inline void range_begin(struct list *ranges, struct range *range, uint64_t offset, uint64_t length)
{
    range->offset = offset;
    range->length = length;
    co_queue_init(&range->waiters);
    list_append(ranges, &range->link);
}

static inline void range_end(struct range *range)
{
    list_remove(&range->link);
    co_queue_wake_all(&range->waiters);
}

#endif

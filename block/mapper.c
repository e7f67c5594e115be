/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loops that move data for mapper drivers. A format only says where bytes are; here they are fetched and stored.
 *
 * Reading. The common request lies in one extent and becomes one request of the child: one map(), one read, nothing
 * allocated. A request over several extents is cut into pieces (neighbours that continue each other in the child are
 * joined); pieces that need I/O run at the same time, each in a coroutine of its own.
 *
 * Writing. prepare_write() covers a prefix of the request. In place, the data goes straight to the child. Newly
 * allocated space must get its old content around the data (copy on write): that is read through map(), which still
 * shows the old state, and goes out with the data in one write. Plans that continue each other are written together.
 *
 * Bytes of a child beyond its end read as zeroes: images may end in the middle of their last cluster.
 *
 * What is stored encoded (encrypted) goes through the driver's read_encoded() and write_encoded(), in the same loops.
 */
#include "block/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "block/event.h"

#define MAX_PIECES 8 /* reads in flight for one request */
#define MAX_PLANS 8  /* prepared writes that are joined */
#define LOCAL_IOVS 16

/* Reading --------------------------------------------------------------------------------------------------------- */

static void fill_zero(struct buffers to, uint64_t length)
{
    iov_set(to.iov, (int)to.count, to.skip, 0, length);
}

/* The part of a read that a child has; zeroes beyond its end. */
static int read_child(struct edge *child, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    uint64_t size = child->child->size;
    if (unlikely(!span_fits(offset, length, size))) {
        uint64_t there = offset < size ? size - offset : 0;
        fill_zero(buffers_skip(to, there), length - there);
        if (!there)
            return 0;
        length = there;
    }
    return block_read(child, offset, length, to, flags);
}

static int read_extent(struct node *node, uint64_t offset, const struct extent *extent, struct buffers to,
                       uint32_t flags)
{
    switch (extent->kind) {
    case EXTENT_DATA:
        block_event(extent->child, BLKDEBUG_EVENT_READ_AIO);
        return read_child(extent->child, extent->child_offset, extent->length, to, flags);
    case EXTENT_BACKING:
        if (node->backing) {
            if (node->file)
                block_event(node->file, BLKDEBUG_EVENT_READ_BACKING_AIO);
            return read_child(node->backing, offset, extent->length, to, flags);
        }
        break;
    case EXTENT_ENCODED: return node->driver->read_encoded(node, offset, extent->length, extent, to);
    case EXTENT_ZERO: break;
    }
    fill_zero(to, extent->length);
    return 0;
}

/* Joins what follows when it continues the extent in the same child. */
static bool extent_continues(const struct extent *extent, const struct extent *next)
{
    if (extent->kind != next->kind)
        return false;
    switch (extent->kind) {
    case EXTENT_DATA:
        return extent->child == next->child && extent->child_offset + extent->length == next->child_offset;
    case EXTENT_BACKING:
    case EXTENT_ZERO: return true;
    case EXTENT_ENCODED:
        return extent->child && extent->child == next->child &&
               extent->child_offset + extent->length == next->child_offset;
    }
    return false;
}

struct pieces {
    struct co_group group;
    struct node *node;
    int result;
    uint32_t flags;
};

struct piece {
    struct pieces *all;
    struct extent extent;
    uint64_t offset;
    struct buffers to;
};

static void read_piece(void *arg)
{
    struct piece *piece = arg;
    int result = read_extent(piece->all->node, piece->offset, &piece->extent, piece->to, piece->all->flags);
    if (result < 0 && !piece->all->result)
        piece->all->result = result;
}

/* Finds the longest extent at `offset`, joining neighbours. */
static int map_joined(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    int result = node_extent(node, offset, length, extent);
    while (result >= 0 && extent->length < length) {
        struct extent next;
        result = node_extent(node, offset + extent->length, length - extent->length, &next);
        if (result < 0 || !extent_continues(extent, &next))
            return 0; /* an error of the part behind is met when that part is reached */
        extent->length += next.length;
    }
    return result < 0 ? result : 0;
}

static __attribute__((noinline)) int read_scattered(struct node *node, uint64_t offset, uint64_t length,
                                                    struct buffers to, uint32_t flags)
{
    struct pieces all = {.node = node, .flags = flags};
    struct piece pieces[MAX_PIECES];
    size_t count = 0;
    co_group_init(&all.group);
    while (length && !all.result) {
        struct piece *piece = &pieces[count];
        *piece = (struct piece){.all = &all, .offset = offset, .to = to};
        int result = map_joined(node, offset, length, &piece->extent);
        if (result < 0) {
            all.result = result;
            break;
        }
        uint64_t done = piece->extent.length;
        /* The last piece needs no coroutine of its own, unless it goes on to the backing node: every layer of a deep
         * chain may be cut like this one, and one stack does not hold that many of these frames. */
        bool is_last = done == length && piece->extent.kind != EXTENT_BACKING;
        if (is_last || piece->extent.kind == EXTENT_ZERO) {
            read_piece(piece);
        } else {
            co_spawn(node->loop, &all.group, read_piece, piece);
            if (++count == MAX_PIECES) {
                co_group_wait(&all.group);
                count = 0;
            }
        }
        offset += done;
        length -= done;
        to.skip += done;
    }
    co_group_wait(&all.group);
    return all.result;
}

int mapper_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct extent extent;
    int result = node_extent(node, offset, length, &extent);
    if (unlikely(result < 0))
        return result;
    if (likely(extent.length == length))
        return read_extent(node, offset, &extent, to, flags);
    return read_scattered(node, offset, length, to, flags);
}

/* Writing --------------------------------------------------------------------------------------------------------- */

/* Does the old content of a span read as zeroes, as far as the metadata tells? */
static bool old_is_zero(struct node *node, uint64_t offset, uint64_t length)
{
    length = offset < node->size ? MIN(length, node->size - offset) : 0;
    while (length) {
        struct extent extent;
        if (node_extent(node, offset, length, &extent) < 0)
            return false;
        bool beyond_backing = extent.kind == EXTENT_BACKING && (!node->backing || node->backing->child->size <= offset);
        if (extent.kind != EXTENT_ZERO && !beyond_backing)
            return false;
        offset += extent.length;
        length -= extent.length;
    }
    return true;
}

static int read_old(struct node *node, uint64_t offset, uint64_t length, uint8_t *buffer)
{
    uint64_t there = offset < node->size ? MIN(length, node->size - offset) : 0;
    memset(buffer + there, 0, length - there);
    if (!there)
        return 0;
    struct iovec iov = {buffer, there};
    return mapper_read(node, offset, there, buffers_of(&iov, 1), 0);
}

/* Space behind the end of a file that grows has never been written: it reads as zeroes without our doing. */
static bool is_fresh(const struct edge *child, uint64_t offset)
{
    return child->child->growable && offset >= child->child->size;
}

/* Data of a plan, or of several that continue it, to its place. */
static inline int write_to_child(struct node *node, const struct write_plan *plan, uint64_t offset,
                                 uint64_t child_offset, uint64_t length, struct buffers from, uint32_t flags)
{
    if (unlikely(plan->encoded))
        return node->driver->write_encoded(node, plan, offset, child_offset, length, from, flags);
    return block_write(plan->child, child_offset, length, from, flags);
}

/* One write: old bytes, `length` of data, old bytes. */
static int write_with_copies(struct node *node, const struct write_plan *first, const struct write_plan *last,
                             uint64_t length, struct buffers from, uint32_t flags)
{
    uint64_t before = first->cow_before, after = last->cow_after;
    uint64_t end = last->offset + last->length;
    if (!first->encoded && old_is_zero(node, first->offset - before, before) && old_is_zero(node, end, after) &&
        is_fresh(first->child, first->child_offset - before)) {
        block_event(first->child, BLKDEBUG_EVENT_CLUSTER_ALLOC_SPACE);
        return block_write(first->child, first->child_offset, length, from, flags);
    }

    auto_free uint8_t *old = block_alloc_buffer(first->child, before + after);
    if (!old)
        return -ENOMEM;
    block_event(first->child, BLKDEBUG_EVENT_COW_READ);
    int result = before ? read_old(node, first->offset - before, before, old) : 0;
    if (result >= 0 && after)
        result = read_old(node, end, after, old + before);
    if (result < 0)
        return result;

    struct iovec local[LOCAL_IOVS];
    auto_free struct iovec *heap = NULL;
    struct iovec *iov = local;
    if (from.count + 2 > LOCAL_IOVS) {
        heap = try_calloc(from.count + 2, sizeof *heap);
        if (!heap)
            return -ENOMEM;
        iov = heap;
    }
    unsigned count = 0;
    if (before)
        iov[count++] = (struct iovec){old, before};
    count += (unsigned)iov_slice(iov + count, from.iov, (int)from.count, from.skip, length);
    if (after)
        iov[count++] = (struct iovec){old + before, after};
    block_event(first->child, BLKDEBUG_EVENT_COW_WRITE);
    return write_to_child(node, first, first->offset - before, first->child_offset - before, before + length + after,
                          buffers_of(iov, count), flags);
}

static bool plan_continues(const struct write_plan *plan, const struct write_plan *next)
{
    return plan->child == next->child && plan->child_offset + plan->length == next->child_offset && !plan->cow_after &&
           !next->cow_before;
}

/* Ends plans [0, count) with the result of their data; the first error wins. */
static int commit_plans(struct node *node, struct write_plan *plans, size_t count, int result)
{
    int total = result;
    for (size_t i = 0; i < count; i++) {
        if (plans[i].in_place)
            continue;
        int committed = node->driver->commit_write(node, &plans[i], result);
        if (!total)
            total = committed;
    }
    return total;
}

/* Data of plans [0, count), which continue each other. */
static int write_plans(struct node *node, struct write_plan *plans, size_t count, struct buffers from, uint32_t flags)
{
    const struct write_plan *first = &plans[0], *last = &plans[count - 1];
    uint64_t length = last->offset + last->length - first->offset;
    block_event(first->child, BLKDEBUG_EVENT_WRITE_AIO);
    int result = likely(!first->cow_before && !last->cow_after)
                     ? write_to_child(node, first, first->offset, first->child_offset, length, from, flags)
                     : write_with_copies(node, first, last, length, from, flags);
    return commit_plans(node, plans, count, result);
}

static int prepare(struct node *node, uint64_t offset, uint64_t length, uint32_t flags, struct write_plan *plan)
{
    *plan = (struct write_plan){.offset = offset, .fua_pending = flags & REQUEST_FUA};
    int result = node->driver->prepare_write(node, offset, length, plan);
    assert(result < 0 || (plan->length && plan->length <= length));
    return result;
}

/* Plans of one request that were prepared and whose data is still to be written: plans[first..count). They continue
 * each other. The mapper knows a plan by its address, so plans never move. */
struct gathering {
    struct write_plan plans[MAX_PLANS];
    size_t first, count;
    uint64_t length;
    struct buffers from;
    uint32_t flags;
};

static int gathering_write(struct node *node, struct gathering *all, size_t count)
{
    if (count == all->first)
        return 0;
    int result = write_plans(node, all->plans + all->first, count - all->first, all->from, all->flags);
    all->from.skip += all->length;
    all->length = 0;
    all->first = count;
    return result;
}

/* Guest offsets only grow from plan to plan, here and in every other request: so requests that each hold plans while
 * they prepare another cannot wait for each other in a circle. */
int mapper_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    struct gathering all; /* large: only the parts in use are ever touched */
    all.first = all.count = 0;
    all.length = 0;
    all.from = from;
    all.flags = flags;
    int result = 0;
    while (length && !result) {
        if (unlikely(all.count == MAX_PLANS)) {
            result = gathering_write(node, &all, all.count);
            all.first = all.count = 0;
            continue;
        }
        struct write_plan *plan = &all.plans[all.count];
        int prepared = prepare(node, offset, length, flags, plan);
        if (unlikely(prepared < 0)) {
            result = gathering_write(node, &all, all.count);
            return result ? result : prepared;
        }
        if (unlikely(all.count > all.first && !plan_continues(plan - 1, plan)))
            result = gathering_write(node, &all, all.count);
        if (unlikely(result))
            return commit_plans(node, plan, 1, result);
        offset += plan->length;
        length -= plan->length;
        all.length += plan->length;
        all.count++;
    }
    return result ? result : gathering_write(node, &all, all.count);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checked border. Every request comes in here through an edge and goes through the same steps: is the span inside
 * the node and allowed to this parent; wait while the node is drained; hand aligned pieces to the driver (or to the
 * mapper loops), pad the rest (block/pad.c); account.
 *
 * The fast path is a request that is aligned and small enough: check, enter, one call, account, leave. It allocates
 * nothing and scans nothing. A write also puts itself on the node's list of tracked requests, so that a later
 * read-modify-write can wait for it; the list is looked through only while such a request exists.
 *
 * Flushes are in flush.c, zero and discard in zero.c.
 */
#include "block/internal.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/trace.h"
#include "block/border.h"
#include "block/dirty_bitmap.h"

/* Aligned pieces -------------------------------------------------------------------------------------------------- */

static bool buffers_are_aligned(struct buffers buffers, uint64_t length, uint32_t alignment)
{
    for (unsigned i = 0; i < buffers.count && length; i++) {
        size_t size = buffers.iov[i].iov_len;
        if (buffers.skip >= size) {
            buffers.skip -= size;
            continue;
        }
        uintptr_t start = (uintptr_t)buffers.iov[i].iov_base + buffers.skip;
        size_t here = MIN((uint64_t)size - buffers.skip, length);
        if ((start | here) & (alignment - 1))
            return false;
        length -= here;
        buffers.skip = 0;
    }
    return true;
}

bool request_is_direct(const struct node *node, uint64_t offset, uint64_t length, struct buffers buffers)
{
    const struct block_limits *limits = &node->limits;
    if ((offset | length) & (limits->request_alignment - 1))
        return false;
    return likely(limits->memory_alignment == 1) || buffers_are_aligned(buffers, length, limits->memory_alignment);
}

static inline int driver_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    return node->driver->read ? node->driver->read(node, offset, length, to, flags)
                              : mapper_read(node, offset, length, to, flags);
}

static inline int driver_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    return node->driver->write ? node->driver->write(node, offset, length, from, flags)
                               : mapper_write(node, offset, length, from, flags);
}

static inline uint64_t piece_limit(const struct node *node)
{
    const struct block_limits *limits = &node->limits;
    return limits->max_transfer
               ? MAX(round_down(limits->max_transfer, limits->request_alignment), (uint64_t)limits->request_alignment)
               : UINT64_MAX;
}

int request_read_aligned(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    uint64_t limit = piece_limit(node);
    while (unlikely(length > limit)) {
        int result = driver_read(node, offset, limit, to, flags);
        if (result < 0)
            return result;
        offset += limit;
        length -= limit;
        to.skip += limit;
    }
    return driver_read(node, offset, length, to, flags);
}

int request_write_aligned(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    uint64_t limit = piece_limit(node);
    while (unlikely(length > limit)) {
        int result = driver_write(node, offset, limit, from, flags);
        if (result < 0)
            return result;
        offset += limit;
        length -= limit;
        from.skip += limit;
    }
    return driver_write(node, offset, length, from, flags);
}

int node_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    if (likely(request_is_direct(node, offset, length, to)))
        return request_read_aligned(node, offset, length, to, flags);
    return request_read_padded(node, offset, length, to, flags);
}

int node_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    if (likely(request_is_direct(node, offset, length, from)))
        return request_write_aligned(node, offset, length, from, flags);
    return request_write_padded(node, offset, length, from, flags);
}

/* Tracking -------------------------------------------------------------------------------------------------------- */

static bool must_wait(const struct tracked_request *mine, const struct tracked_request *other)
{
    return (mine->serialising || other->serialising) &&
           spans_overlap(mine->offset, mine->length, other->offset, other->length);
}

/* Only requests that came earlier are waited for, so that two can never wait for each other. */
static struct tracked_request *find_conflict(struct node *node, struct tracked_request *request)
{
    for (struct list *link = node->tracked.next; link != &request->link; link = link->next) {
        struct tracked_request *other = list_entry(link, struct tracked_request, link);
        if (must_wait(request, other))
            return other;
    }
    return NULL;
}

void tracked_wait(struct node *node, struct tracked_request *request)
{
    struct tracked_request *other;
    while ((other = find_conflict(node, request)))
        co_queue_wait_uncancellable(&other->waiters);
}

/* Checks ---------------------------------------------------------------------------------------------------------- */

/* A parent that may let the node grow has come to the end of a device, which may have been made larger meanwhile: as an
 * answer to the last time that it was too small. */
static int grown_outside(struct node *node, uint64_t end)
{
    uint64_t size = node->driver->current_size(node);
    if (size > node->size)
        node_set_size(node, size);
    return end <= node->size ? 0 : -ENOSPC;
}

int request_check_write(const struct edge *edge, uint64_t offset, uint64_t length, uint32_t flags)
{
    const struct node *node = edge->child;
    uint32_t enough =
        BLOCK_PERM_WRITE | (unlikely(flags & REQUEST_WRITE_UNCHANGED) ? (uint32_t)BLOCK_PERM_WRITE_UNCHANGED : 0);
    if (unlikely(!(edge->perm & enough)))
        return node->read_only ? -EROFS : -EPERM;
    if (unlikely(node->corrupt))
        return -EIO;
    if (likely(span_fits(offset, length, node->size)))
        return 0;
    uint64_t end;
    if (add_overflows(offset, length, &end) || end > INT64_MAX)
        return -EINVAL;
    if (!(edge->perm & BLOCK_PERM_RESIZE))
        return -EIO;
    return node->growable ? 0 : node->driver->current_size ? grown_outside(edge->child, end) : -EIO;
}

static int check_read(const struct node *node, uint64_t offset, uint64_t length)
{
    uint64_t end;
    if (likely(span_fits(offset, length, node->size)))
        return 0;
    return add_overflows(offset, length, &end) ? -EINVAL : -EIO;
}

/* Until the subtree that `edge` points into is not drained any more. */
void request_hold(struct edge *edge)
{
    while (edge_is_held(edge))
        co_queue_wait_uncancellable(&edge->child->resume_queue);
}

/* Requests -------------------------------------------------------------------------------------------------------- */

int block_read(struct edge *edge, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct node *node = request_enter(edge);
    trace(block_read, "node %s: offset %" PRIu64 " length %" PRIu64, node->name, offset, length);
    uint64_t start_ns = latency_start(edge);
    int result = check_read(node, offset, length);
    node->stats.invalid_reads += unlikely(result != 0);
    if (likely(!result && length))
        result = node_read(node, offset, length, to, flags);
    latency_end(node, LATENCY_READ, start_ns);
    if (likely(result >= 0)) {
        node->stats.read_bytes += length;
        edge->read_bytes += length;
        node->stats.read_operations++;
    } else {
        node->stats.failed_reads++;
    }
    request_leave(node);
    return result;
}

void request_pass_threshold(struct node *node, uint64_t end)
{
    const struct graph_events *events = &node->graph->events;
    uint64_t threshold = node->write_threshold;
    node->write_threshold = 0;
    if (events->write_threshold)
        events->write_threshold(events->user, node, threshold, end - threshold);
}

void request_wrote(struct node *node, uint64_t offset, uint64_t length)
{
    node_mark_written(node);
    uint64_t end = offset + length;
    if (end > node->stats.highest_write_offset)
        node->stats.highest_write_offset = end;
    if (unlikely(end > node->size))
        node_set_size(node, end);
}

/* What write() must do besides writing: recognizing zeroes, being durable. */
static int write_tracked(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    if (unlikely(node->detect_zeroes != BLOCK_DETECT_ZEROES_OFF) && !(flags & REQUEST_COMPRESSED) &&
        iov_is_zero(from.iov, (int)from.count, from.skip, length)) {
        bool unmap = node->detect_zeroes == BLOCK_DETECT_ZEROES_UNMAP;
        int result = request_zero(node, offset, length, unmap ? REQUEST_MAY_UNMAP : 0);
        if (result || !(flags & node->write_flags & REQUEST_FUA))
            return result;
        node_mark_written(node); /* the caller takes the driver's write for durable, but this was none */
        return node_flush(node);
    }
    if (unlikely(flags & REQUEST_COMPRESSED))
        return node->driver->write_compressed ? node->driver->write_compressed(node, offset, length, from) : -ENOTSUP;
    return node_write(node, offset, length, from, flags & node->write_flags);
}

int block_write(struct edge *edge, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    struct node *node = request_enter(edge);
    trace(block_write, "node %s: offset %" PRIu64 " length %" PRIu64 " flags %#x", node->name, offset, length, flags);
    uint64_t start_ns = latency_start(edge);
    int result = request_check_write(edge, offset, length, flags);
    node->stats.invalid_writes += unlikely(result != 0);
    if (likely(!result && length)) {
        struct tracked_request tracked;
        bool pads = !is_aligned(offset | length, node->limits.request_alignment);
        tracked_begin(node, &tracked, offset, length, pads || (flags & REQUEST_SERIALISING));
        if (unlikely(node->no_flush))
            flags &= ~(uint32_t)REQUEST_FUA;
        request_begin_change(node, offset, length);
        result = write_tracked(node, offset, length, from, flags);
        dirty_bitmaps_record(node, offset, length);
        /* A failed write may have left anything behind, which the next flush must not pass over, and made the file
         * longer. */
        if (likely(!result) || offset + length > node->size)
            request_wrote(node, offset, length);
        else
            node_mark_written(node);
        if (unlikely(flags & REQUEST_FUA) && !result && !(node->write_flags & REQUEST_FUA))
            result = node_flush(node);
        tracked_end(node, &tracked);
    }
    latency_end(node, LATENCY_WRITE, start_ns);
    if (likely(!result)) {
        node->stats.write_bytes += length;
        edge->write_bytes += length;
        node->stats.write_operations++;
    } else {
        node->stats.failed_writes++;
    }
    request_leave(node);
    return result;
}

int block_read_buffer(struct edge *edge, uint64_t offset, void *buffer, size_t length)
{
    struct iovec iov = {buffer, length};
    return block_read(edge, offset, length, buffers_of(&iov, 1), 0);
}

int block_write_buffer(struct edge *edge, uint64_t offset, const void *buffer, size_t length, uint32_t flags)
{
    struct iovec iov = {(void *)buffer, length};
    return block_write(edge, offset, length, buffers_of(&iov, 1), flags);
}

static uint32_t strictest_alignment(const struct node *node)
{
    uint32_t alignment = MAX(node->limits.memory_alignment, 1u);
    const struct edge *edge;
    list_for_each (edge, &node->children, parent_link)
        alignment = MAX(alignment, strictest_alignment(edge->child));
    return alignment;
}

uint32_t block_buffer_alignment(const struct edge *edge)
{
    return MAX(strictest_alignment(edge->child), 64u);
}

void *block_alloc_buffer(struct edge *edge, size_t size)
{
    return try_aligned_alloc(block_buffer_alignment(edge), size ? size : 1);
}

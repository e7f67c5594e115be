/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zero and discard. A driver that can zero gets spans on its own granularity; what is left over at both ends, and
 * everything when it cannot, is written as zero bytes (unless it reads as zero already). A discard is a hint: the parts
 * that do not suit the driver are dropped, and what a driver cannot do is no error.
 */
#include "block/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/trace.h"
#include "block/border.h"
#include "block/dirty_bitmap.h"

static int write_zeroes(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    size_t size = MIN(length, BOUNCE_SIZE);
    auto_free void *zeroes = try_aligned_alloc(MAX(node->limits.memory_alignment, 4096u), size);
    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, size);
    struct iovec iov = {zeroes, size};
    while (length) {
        uint64_t piece = MIN(length, size);
        int result = node_write(node, offset, piece, buffers_of(&iov, 1), flags & node->write_flags);
        if (result)
            return result;
        offset += piece;
        length -= piece;
    }
    return 0;
}

static bool reads_as_zero(struct node *node, uint64_t offset, uint64_t length)
{
    if (!span_fits(offset, length, node->size))
        return false;
    while (length) {
        struct extent extent;
        if (node_extent(node, offset, length, &extent) < 0)
            return false;
        bool is_zero = extent.kind == EXTENT_ZERO || (extent.kind == EXTENT_BACKING && !node->backing);
        if (!is_zero)
            return false;
        offset += extent.length;
        length -= extent.length;
    }
    return true;
}

/* A part that is smaller than what the driver zeroes efficiently. */
static int zero_fragment(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    if (reads_as_zero(node, offset, length))
        return 0;
    return flags & REQUEST_NO_FALLBACK ? -ENOTSUP : write_zeroes(node, offset, length, flags);
}

static int zero_piece(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    uint32_t known = node->zero_flags | REQUEST_MAY_UNMAP | REQUEST_NO_FALLBACK;
    int result = node->driver->zero(node, offset, length, flags & known);
    if (result != -ENOTSUP || (flags & REQUEST_NO_FALLBACK))
        return result;
    return write_zeroes(node, offset, length, flags);
}

/* The whole granules in the middle, in pieces that the driver takes. */
static int zero_middle(struct node *node, uint64_t offset, uint64_t length, uint64_t granule, uint32_t flags)
{
    uint64_t limit = node->limits.max_zero ? MAX(round_down(node->limits.max_zero, granule), granule) : UINT64_MAX;
    while (length) {
        uint64_t piece = MIN(length, limit);
        int result = zero_piece(node, offset, piece, flags);
        if (result)
            return result;
        offset += piece;
        length -= piece;
    }
    return 0;
}

static uint64_t granule_of(const struct node *node, uint64_t preferred)
{
    return MAX(preferred, (uint64_t)node->limits.request_alignment);
}

int request_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    if (node->discard != BLOCK_DISCARD_UNMAP)
        flags &= ~(uint32_t)REQUEST_MAY_UNMAP;
    if (!node->driver->zero)
        return flags & REQUEST_NO_FALLBACK ? -ENOTSUP : write_zeroes(node, offset, length, flags);

    uint64_t granule = granule_of(node, node->limits.zero_alignment);
    uint64_t end = offset + length;
    uint64_t middle = MIN(round_up(offset, granule), end);
    uint64_t tail = end >= node->size ? end : MAX(round_down(end, granule), middle);
    int result = middle > offset ? zero_fragment(node, offset, middle - offset, flags) : 0;
    if (!result && tail > middle)
        result = zero_middle(node, middle, tail - middle, granule, flags);
    if (!result && end > tail)
        result = zero_fragment(node, tail, end - tail, flags);
    return result;
}

/* Fragments of a zero request are written like any other unaligned write: neighbours must not change meanwhile. */
static bool zero_pads(const struct node *node, uint64_t offset, uint64_t length)
{
    return !is_aligned(offset | length, node->limits.request_alignment);
}

int block_zero(struct edge *edge, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct node *node = request_enter(edge);
    trace(block_zero, "node %s: offset %" PRIu64 " length %" PRIu64 " flags %#x", node->name, offset, length, flags);
    uint64_t start_ns = latency_start(edge);
    int result = request_check_write(edge, offset, length, flags);
    node->stats.invalid_writes += result != 0;
    if (!result && length) {
        struct tracked_request tracked;
        bool serialising = zero_pads(node, offset, length) || (flags & REQUEST_SERIALISING);
        tracked_begin(node, &tracked, offset, length, serialising);
        if (node->no_flush)
            flags &= ~(uint32_t)REQUEST_FUA;
        request_begin_change(node, offset, length);
        result = request_zero(node, offset, length, flags);
        dirty_bitmaps_record(node, offset, length);
        if (!result)
            request_wrote(node, offset, length);
        else
            node_mark_written(node); /* in part, perhaps */
        if (!result && (flags & REQUEST_FUA))
            result = node_flush(node); /* parts may have gone ways that are not durable by themselves */
        tracked_end(node, &tracked);
    }
    latency_end(node, LATENCY_WRITE, start_ns);
    if (!result) {
        node->stats.zero_bytes += length;
        node->stats.zero_operations++;
    } else {
        node->stats.failed_writes++;
    }
    request_leave(node);
    return result;
}

int block_allocate(struct edge *edge, uint64_t offset, uint64_t length)
{
    struct node *node = request_enter(edge);
    trace(block_allocate, "node %s: offset %" PRIu64 " length %" PRIu64, node->name, offset, length);
    int result = request_check_write(edge, offset, length, 0);
    if (!result && !span_fits(offset, length, node->size))
        result = -EIO;
    if (!result && !node->driver->allocate)
        result = -ENOTSUP;
    if (!result && length) {
        struct tracked_request tracked;
        tracked_begin(node, &tracked, offset, length, false);
        result = node->driver->allocate(node, offset, length);
        node_mark_written(node);
        tracked_end(node, &tracked);
    }
    request_leave(node);
    return result;
}

static int discard_span(struct node *node, uint64_t offset, uint64_t length)
{
    if (node->discard != BLOCK_DISCARD_UNMAP || !node->driver->discard)
        return 0;
    uint64_t granule = granule_of(node, node->limits.discard_alignment);
    uint64_t limit =
        node->limits.max_discard ? MAX(round_down(node->limits.max_discard, granule), granule) : UINT64_MAX;
    uint64_t end = offset + length;
    uint64_t start = round_up(offset, granule);
    uint64_t stop = end == node->size ? end : round_down(end, granule);
    while (start < stop) {
        uint64_t piece = MIN(stop - start, limit);
        int result = node->driver->discard(node, start, piece);
        if (result)
            return result == -ENOTSUP ? 0 : result;
        start += piece;
    }
    return 0;
}

int block_discard(struct edge *edge, uint64_t offset, uint64_t length)
{
    struct node *node = request_enter(edge);
    trace(block_discard, "node %s: offset %" PRIu64 " length %" PRIu64, node->name, offset, length);
    uint64_t start_ns = latency_start(edge);
    int result = request_check_write(edge, offset, length, 0);
    if (!result && !span_fits(offset, length, node->size))
        result = -EIO;
    node->stats.invalid_discards += result != 0;
    if (!result && length) {
        struct tracked_request tracked;
        tracked_begin(node, &tracked, offset, length, false);
        dirty_bitmaps_record(node, offset, length);
        result = discard_span(node, offset, length);
        dirty_bitmaps_record(node, offset, length);
        node_mark_written(node);
        tracked_end(node, &tracked);
    }
    latency_end(node, LATENCY_DISCARD, start_ns);
    if (!result) {
        node->stats.discard_bytes += length;
        node->stats.discard_operations++;
    } else {
        node->stats.failed_discards++;
    }
    request_leave(node);
    return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying between nodes in the cheapest way both sides offer. What the source knows to be zero is never read: it
 * becomes a zero request, or nothing where the target is zero already. Data goes by copy_file_range (which file systems
 * turn into reflinks) when the caller asks for it and both sides are plain windows of files of the same protocol; else
 * through one buffer.
 *
 * One call copies in order. Whoever wants several copies in flight calls from several coroutines.
 */
#include "block/internal.h"

#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/border.h"
#include "block/dirty_bitmap.h"

#define COPY_PIECE (2 * MiB)

/* A place in a protocol node. */
struct place {
    struct node *node;
    uint64_t offset, length;
};

/* Through layers that only rename bytes, as far as that is true for the whole span. Filters, which copy, count or slow
 * what passes, are not gone round. */
static bool find_place(struct edge *edge, uint64_t offset, uint64_t length, struct place *place)
{
    struct node *node = edge->child;
    while (node->driver->kind != DRIVER_PROTOCOL) {
        struct extent extent;
        if (node->driver->kind == DRIVER_FILTER || node_extent(node, offset, length, &extent) < 0 || !extent.follow ||
            !extent.child || extent.kind != EXTENT_DATA || extent.length < length)
            return false;
        offset = extent.child_offset;
        node = extent.child->child;
    }
    *place = (struct place){node, offset, length};
    return span_fits(offset, length, node->size);
}

/* The bitmaps of all layers that find_place() went through. */
static void record_path(struct edge *edge, uint64_t offset, uint64_t length)
{
    struct node *node = edge->child;
    struct extent extent;
    dirty_bitmaps_record(node, offset, length);
    while (node->driver->kind != DRIVER_PROTOCOL && !node_extent(node, offset, length, &extent) && extent.child) {
        offset = extent.child_offset;
        node = extent.child->child;
        dirty_bitmaps_record(node, offset, length);
    }
}

/* 0, or -ENOTSUP when bytes must go through us, or another error. */
static int copy_offloaded(struct edge *from, uint64_t from_offset, struct edge *to, uint64_t to_offset, uint64_t length)
{
    struct place source, target;
    if (!find_place(from, from_offset, length, &source) || !find_place(to, to_offset, length, &target))
        return -ENOTSUP;
    if (source.node->driver != target.node->driver || !source.node->driver->copy_range)
        return -ENOTSUP;
    source.node->in_flight++; /* we came here past their borders */
    target.node->in_flight++;
    record_path(to, to_offset, length);
    int64_t result = source.node->driver->copy_range(source.node, source.offset, target.node, target.offset, length);
    record_path(to, to_offset, length);
    request_leave(target.node);
    request_leave(source.node);
    return result == (int64_t)length ? 0 : result < 0 ? (int)result : -ENOTSUP;
}

static int copy_tracked(struct edge *from, uint64_t from_offset, struct edge *to, uint64_t to_offset, uint64_t length)
{
    struct node *source = request_enter(from);
    struct node *target = request_enter(to);
    int result = request_check_write(to, to_offset, length, 0);
    if (!result) {
        struct tracked_request tracked;
        tracked_begin(target, &tracked, to_offset, length, false);
        result = copy_offloaded(from, from_offset, to, to_offset, length);
        if (!result) {
            struct node *holder = target;
            request_wrote(target, to_offset, length);
            while (holder->file) { /* the layers below were written too */
                holder = holder->file->child;
                node_mark_written(holder);
            }
        }
        tracked_end(target, &tracked);
    }
    request_leave(target);
    request_leave(source);
    return result;
}

static int copy_buffered(struct edge *from, uint64_t from_offset, struct edge *to, uint64_t to_offset, uint64_t length,
                         uint32_t flags, bool *read_failed)
{
    uint64_t size = MIN(length, COPY_PIECE);
    size_t alignment = MAX(from->child->limits.memory_alignment, to->child->limits.memory_alignment);
    auto_free void *buffer = try_aligned_alloc(MAX(alignment, (size_t)4096), size);
    if (!buffer)
        return -ENOMEM;
    struct iovec iov = {buffer, size};
    while (length) {
        uint64_t piece = MIN(length, size);
        int result = block_read(from, from_offset, piece, buffers_of(&iov, 1), 0);
        *read_failed = result < 0;
        if (result >= 0)
            result = block_write(to, to_offset, piece, buffers_of(&iov, 1),
                                 flags & BLOCK_COPY_COMPRESS ? REQUEST_COMPRESSED : 0);
        if (result < 0)
            return result;
        from_offset += piece;
        to_offset += piece;
        length -= piece;
    }
    return 0;
}

static int copy_data(struct edge *from, uint64_t from_offset, struct edge *to, uint64_t to_offset, uint64_t length,
                     uint32_t flags, bool *read_failed)
{
    if (flags & BLOCK_COPY_OFFLOAD) {
        int result = copy_tracked(from, from_offset, to, to_offset, length);
        if (result != -ENOTSUP)
            return result;
    }
    return copy_buffered(from, from_offset, to, to_offset, length, flags, read_failed);
}

int block_copy_sides(struct edge *from, uint64_t from_offset, struct edge *to, uint64_t to_offset, uint64_t length,
                     uint32_t flags, bool *read_failed)
{
    while (length) {
        struct block_status status;
        int result = block_status(from, from_offset, length, BLOCK_STATUS_PRECISE, &status);
        *read_failed = result < 0;
        if (result < 0)
            return result;
        if (!status.zero)
            result = copy_data(from, from_offset, to, to_offset, status.length, flags, read_failed);
        else if (!(flags & BLOCK_COPY_TARGET_IS_ZERO))
            result = block_zero(to, to_offset, status.length, REQUEST_MAY_UNMAP);
        if (result < 0)
            return result;
        from_offset += status.length;
        to_offset += status.length;
        length -= status.length;
    }
    return 0;
}

int block_copy(struct edge *from, uint64_t from_offset, struct edge *to, uint64_t to_offset, uint64_t length,
               uint32_t flags)
{
    bool read_failed;
    return block_copy_sides(from, from_offset, to, to_offset, length, flags, &read_failed);
}

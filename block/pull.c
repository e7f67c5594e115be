/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulling: an overlay takes from its backing nodes what it would read from them, so that it needs them no more
 * (block-stream, copy-on-read). Reading below, looking whether the overlay still lacks the part, and writing it, are
 * one serialising request: a guest's write comes before all of it or after all of it, never in between.
 */
#include "block/internal.h"

#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/border.h"
#include "block/event.h"

struct pull {
    struct node *node;
    const struct node *base;
    uint8_t *buffer; /* BOUNCE_SIZE, made when first needed */
    bool *read_failed;
};

static int pull_data(struct pull *pull, uint64_t offset, uint64_t length)
{
    struct node *node = pull->node;
    if (!pull->buffer)
        pull->buffer = block_alloc_buffer(node->backing, BOUNCE_SIZE);
    if (!pull->buffer)
        return -ENOMEM;
    struct iovec iov = {pull->buffer, BOUNCE_SIZE};
    while (length) {
        uint64_t piece = MIN(length, BOUNCE_SIZE);
        int result = block_read(node->backing, offset, piece, buffers_of(&iov, 1), 0);
        *pull->read_failed = result < 0;
        if (node->file)
            block_event(node->file, BLKDEBUG_EVENT_COR_WRITE);
        if (result >= 0)
            result = node_write(node, offset, piece, buffers_of(&iov, 1), 0);
        if (result < 0)
            return result;
        offset += piece;
        length -= piece;
    }
    return 0;
}

/* A part that the overlay does not have; *done is how much of it was dealt with. */
static int pull_missing(struct pull *pull, uint64_t offset, uint64_t length, uint64_t *done)
{
    struct node *below = pull->node->backing->child;
    struct block_status status;
    *done = length;
    if (offset >= below->size)
        return pull->base ? request_zero(pull->node, offset, length, 0) : 0;
    length = MIN(length, below->size - offset);
    int result = block_status_above(pull->node->backing, pull->base, offset, length, 0, &status);
    *pull->read_failed = result < 0;
    if (result < 0)
        return result;
    *done = status.length;
    if (!status.allocated && !(status.zero && pull->base))
        return 0;
    if (!status.zero)
        return pull_data(pull, offset, status.length);
    return pull->base ? request_zero(pull->node, offset, status.length, 0) : 0;
}

static int pull_span(struct pull *pull, uint64_t offset, uint64_t length)
{
    struct node *node = pull->node;
    int result = 0;
    while (length && node->backing && result >= 0) {
        struct extent extent;
        result = node_extent(node, offset, length, &extent);
        uint64_t done = result < 0 ? length : extent.length;
        if (result >= 0 && extent.kind == EXTENT_BACKING) {
            result = pull_missing(pull, offset, extent.length, &done);
            node_mark_written(node);
        }
        offset += done;
        length -= done;
    }
    return result < 0 ? result : 0;
}

int block_pull(struct edge *edge, const struct node *base, uint64_t offset, uint64_t length, bool *read_failed)
{
    bool ignored;
    struct node *node = request_enter(edge);
    struct pull pull = {.node = node, .base = base, .read_failed = read_failed ? read_failed : &ignored};
    *pull.read_failed = false;
    int result = node->corrupt ? -EIO : 0;
    if (!(edge->perm & (BLOCK_PERM_WRITE | BLOCK_PERM_WRITE_UNCHANGED)))
        result = -EPERM;
    if (!result && !span_fits(offset, length, node->size))
        result = -EIO;
    if (!result && length) {
        struct tracked_request tracked;
        tracked_begin(node, &tracked, offset, length, true);
        result = pull_span(&pull, offset, length);
        tracked_end(node, &tracked);
    }
    free(pull.buffer);
    request_leave(node);
    return result;
}

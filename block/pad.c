/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests whose offset, length or memory does not suit the driver (a file opened with O_DIRECT). They go through a
 * bounce buffer in aligned pieces: a read throws the padding away, a write first reads the blocks that it covers only
 * in part. The caller tracks such a write as serialising, so nobody changes those blocks between the two steps.
 *
 * The last block may reach past the end of the node. Drivers read zeroes there.
 */
#include "block/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "block/border.h"
#include "block/event.h"

struct bounce {
    uint8_t *buffer;
    uint64_t offset, size; /* of the aligned piece in the buffer */
    uint64_t head, length; /* the part of it that was asked for */
};

/* The next aligned piece of a span, not larger than the buffer. */
static void bounce_next(struct bounce *bounce, uint64_t offset, uint64_t length, uint32_t alignment, uint64_t capacity)
{
    bounce->offset = round_down(offset, alignment);
    bounce->head = offset - bounce->offset;
    bounce->size = MIN(round_up(bounce->head + length, alignment), capacity);
    bounce->length = MIN(length, bounce->size - bounce->head);
}

static uint64_t bounce_capacity(const struct node *node, uint64_t length)
{
    uint32_t alignment = node->limits.request_alignment;
    uint64_t most = MAX(BOUNCE_SIZE, (uint64_t)alignment);
    if (node->limits.max_transfer)
        most = MAX(MIN(most, round_down(node->limits.max_transfer, alignment)), (uint64_t)alignment);
    return length > most ? most : MIN(most, round_up(length, alignment) + alignment);
}

static int read_piece(struct node *node, uint64_t offset, uint8_t *buffer, uint64_t size)
{
    struct iovec iov = {buffer, size};
    return request_read_aligned(node, offset, size, buffers_of(&iov, 1), 0);
}

int request_read_padded(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    uint32_t alignment = node->limits.request_alignment;
    uint64_t capacity = bounce_capacity(node, length);
    auto_free uint8_t *buffer = try_aligned_alloc(MAX(node->limits.memory_alignment, 64u), capacity);
    if (!buffer)
        return -ENOMEM;
    struct bounce bounce = {.buffer = buffer};
    while (length) {
        bounce_next(&bounce, offset, length, alignment, capacity);
        int result = read_piece(node, bounce.offset, buffer, bounce.size);
        if (result < 0)
            return result;
        iov_from_buffer(to.iov, (int)to.count, to.skip, buffer + bounce.head, bounce.length);
        offset += bounce.length;
        length -= bounce.length;
        to.skip += bounce.length;
    }
    return 0;
}

/* Old content of the first and the last block of the piece, where the request covers them only in part. */
static int read_edges(struct node *node, const struct bounce *bounce, uint32_t alignment)
{
    uint64_t tail = bounce->head + bounce->length;
    uint64_t last = round_down(tail, alignment); /* offset of the last block, when it is covered in part */
    bool head_read = false;
    if (bounce->head) {
        node_event(node, BLKDEBUG_EVENT_PWRITEV_RMW_HEAD);
        int result = read_piece(node, bounce->offset, bounce->buffer, alignment);
        node_event(node, BLKDEBUG_EVENT_PWRITEV_RMW_AFTER_HEAD);
        if (result < 0)
            return result;
        head_read = true;
    }
    if (tail == last || (last == 0 && head_read))
        return 0;
    node_event(node, BLKDEBUG_EVENT_PWRITEV_RMW_TAIL);
    int result = read_piece(node, bounce->offset + last, bounce->buffer + last, alignment);
    node_event(node, BLKDEBUG_EVENT_PWRITEV_RMW_AFTER_TAIL);
    return result < 0 ? result : 0;
}

int request_write_padded(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    uint32_t alignment = node->limits.request_alignment;
    uint64_t capacity = bounce_capacity(node, length);
    auto_free uint8_t *buffer = try_aligned_alloc(MAX(node->limits.memory_alignment, 64u), capacity);
    if (!buffer)
        return -ENOMEM;
    struct bounce bounce = {.buffer = buffer};
    while (length) {
        bounce_next(&bounce, offset, length, alignment, capacity);
        int result = read_edges(node, &bounce, alignment);
        if (result < 0)
            return result;
        iov_to_buffer(from.iov, (int)from.count, from.skip, buffer + bounce.head, bounce.length);
        struct iovec iov = {buffer, bounce.size};
        result = request_write_aligned(node, bounce.offset, bounce.size, buffers_of(&iov, 1), flags);
        if (result < 0)
            return result;
        offset += bounce.length;
        length -= bounce.length;
        from.skip += bounce.length;
    }
    return 0;
}

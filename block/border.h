/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of the request path that request.c, pad.c, zero.c and flush.c share: entering and leaving a node, and
 * tracking of writes. */
#ifndef BLOCK_BORDER_H
#define BLOCK_BORDER_H

#include <inttypes.h>
#include "block/dirty_bitmap.h"
#include "block/internal.h"
#include "block/latency.h"

/* A write, zero or discard in flight, on the stack of its coroutine and on node->tracked. A serialising one (its
 * padding reads and writes back bytes of others) and any other that overlaps exclude each other; the later one waits.
 */
struct tracked_request {
    struct list link;
    uint64_t offset, length; /* rounded out to the request alignment */
    bool serialising;
    struct co_queue waiters;
};

void request_hold(struct edge *edge);
bool request_is_direct(const struct node *node, uint64_t offset, uint64_t length, struct buffers buffers);
int request_check_write(const struct edge *edge, uint64_t offset, uint64_t length, uint32_t flags);
void request_wrote(struct node *node, uint64_t offset, uint64_t length);
int request_read_aligned(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags);
int request_write_aligned(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags);
int request_read_padded(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags);
int request_write_padded(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags);
int request_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags);
void tracked_wait(struct node *node, struct tracked_request *request);

void request_pass_threshold(struct node *node, uint64_t end);

/* Bytes are about to change: bitmaps, and who wants to know how far writes go. */
static inline void request_begin_change(struct node *node, uint64_t offset, uint64_t length)
{
    dirty_bitmaps_record(node, offset, length);
    if (unlikely(node->write_threshold) && offset + length > node->write_threshold)
        request_pass_threshold(node, offset + length);
}

static inline struct node *request_enter(struct edge *edge)
{
    if (unlikely(edge->child->quiesced))
        request_hold(edge);
    edge->child->in_flight++;
    return edge->child;
}

static inline void request_leave(struct node *node)
{
    if (--node->in_flight == 0 && unlikely(node->quiesced))
        co_queue_wake_all(&node->drain_queue);
}

/* YIELDS when an overlapping request must be waited for. */
static inline void tracked_begin(struct node *node, struct tracked_request *request, uint64_t offset, uint64_t length,
                                 bool serialising)
{
    uint32_t alignment = node->limits.request_alignment;
    request->offset = round_down(offset, alignment);
    request->length = round_up(offset + length, alignment) - request->offset;
    request->serialising = serialising;
    co_queue_init(&request->waiters);
    list_append(&node->tracked, &request->link);
    node->serialising += serialising;
    if (unlikely(node->serialising))
        tracked_wait(node, request);
}

static inline void tracked_end(struct node *node, struct tracked_request *request)
{
    list_remove(&request->link);
    node->serialising -= request->serialising;
    if (unlikely(!list_empty(&request->waiters.waiters)))
        co_queue_wake_all(&request->waiters);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flush: what was written before it is on stable storage after it. Each node counts its writes; a flush remembers the
 * count it covers, and with nothing new it costs nothing. One flush runs at a time on a node: requests that arrive
 * meanwhile wait, and then either find that theirs is covered or run one for all of them.
 *
 * A format first writes its own caches (driver->flush), then its children are flushed, except the backing node, which
 * it never writes. Of a filter with a file, that is flushed: other children do not concern those who use the filter,
 * unless the filter says so in its own flush.
 */
#include "block/internal.h"

#include "base/trace.h"
#include "block/border.h"
#include "block/event.h"

static int flush_children(struct node *node)
{
    int result = 0;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        bool is_aside = node->driver->kind == DRIVER_FILTER && node->file && edge != node->file;
        if (edge == node->backing || is_aside)
            continue;
        int flushed = block_flush(edge);
        if (!result)
            result = flushed;
    }
    return result;
}

static int flush_all(struct node *node)
{
    if (node->driver->kind == DRIVER_PROTOCOL && node->no_flush)
        return 0;
    if (node->file)
        block_event(node->file, BLKDEBUG_EVENT_FLUSH_TO_OS);
    int result = node->driver->flush ? node->driver->flush(node) : 0;
    if (node->file && !result)
        block_event(node->file, BLKDEBUG_EVENT_FLUSH_TO_DISK);
    return result || node->driver->flushes_children ? result : flush_children(node);
}

int node_flush(struct node *node)
{
    while (node->flushing)
        co_queue_wait_uncancellable(&node->flush_queue);
    uint64_t generation = node->write_generation;
    if (node->flushed_generation == generation)
        return 0;
    node->flushing = true;
    int result = flush_all(node);
    node->flushing = false;
    if (!result)
        node->flushed_generation = generation;
    co_queue_wake_all(&node->flush_queue);
    return result;
}

int block_flush(struct edge *edge)
{
    struct node *node = request_enter(edge);
    trace(block_flush, "node %s", node->name);
    uint64_t start_ns = latency_start(edge);
    int result = node_flush(node);
    latency_end(node, LATENCY_FLUSH, start_ns);
    node->stats.flush_operations++;
    if (result)
        node->stats.failed_flushes++;
    request_leave(node);
    return result;
}

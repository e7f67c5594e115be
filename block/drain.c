/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drain: a subtree comes to rest. First every node of it is marked, so that requests from outside wait at the border;
 * then we wait until nothing is in flight. Requests that are already inside may still ask the nodes below them: those
 * come from a parent that is marked itself, which is how the border tells them from new ones.
 */
#include "block/internal.h"

void node_quiesce(struct node *node, size_t times)
{
    node->quiesced += times;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link)
        node_quiesce(edge->child, times);
}

void node_unquiesce(struct node *node, size_t times)
{
    assert(node->quiesced >= times);
    node->quiesced -= times;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link)
        node_unquiesce(edge->child, times);
    if (!node->quiesced)
        co_queue_wake_all(&node->resume_queue);
}

static struct node *find_busy(struct node *node)
{
    if (node->in_flight)
        return node;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        struct node *busy = find_busy(edge->child);
        if (busy)
            return busy;
    }
    return NULL;
}

void node_drain_begin(struct node *node)
{
    node_ref(node);
    node_quiesce(node, 1);
    struct node *busy;
    while ((busy = find_busy(node)))
        co_queue_wait_uncancellable(&busy->drain_queue);
}

void node_drain_end(struct node *node)
{
    node_unquiesce(node, 1);
    node_unref(node);
}

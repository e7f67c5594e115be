/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drain: everything that can reach a node comes to rest. Requests are held back only where they enter the graph, at
 * root edges; those inside run to their end, whichever nodes they still need. (Holding them at the drained node instead
 * would let two drains wait for each other through a request that is stuck between them.)
 *
 * So a drain concerns all nodes that are connected with the drained one, by edges in either direction: the overlay
 * whose request is about to ask this node, and the other overlay that shares its base. `quiesced` of a node is the
 * number of drains in its connected part of the graph, and is computed anew when a drain begins or ends or an edge
 * changes while there is one.
 */
#include "block/internal.h"

#include "base/cleanup.h"
#include "base/vec.h"

vec_of(node_set, struct node *);

static void visit(struct node_set *set, struct node *node)
{
    if (node->visited == node->graph->visits)
        return;
    node->visited = node->graph->visits;
    vec_push(set, node);
}

/* All nodes connected with `node`. Does not yield; the set is the caller's to free. */
static struct node_set connected(struct node *node)
{
    struct node_set set = {0};
    node->graph->visits++;
    visit(&set, node);
    for (size_t i = 0; i < set.count; i++) {
        struct edge *edge;
        list_for_each (edge, &set.items[i]->children, parent_link)
            visit(&set, edge->child);
        list_for_each (edge, &set.items[i]->parents, child_link) {
            if (edge->parent)
                visit(&set, edge->parent);
        }
    }
    return set;
}

void drain_refresh(struct node *node)
{
    auto_free struct node_set set = connected(node);
    size_t drains = 0;
    struct node **member;
    vec_for_each (member, &set)
        drains += (*member)->drained;
    vec_for_each (member, &set) {
        bool changes = !(*member)->quiesced != !drains;
        (*member)->quiesced = drains;
        if (changes && (*member)->driver->quiesce)
            (*member)->driver->quiesce(*member, drains > 0);
        if (!drains)
            co_queue_wake_all(&(*member)->resume_queue);
    }
}

static struct node *find_busy(struct node *node)
{
    auto_free struct node_set set = connected(node);
    struct node **member;
    vec_for_each (member, &set) {
        if ((*member)->in_flight)
            return *member;
    }
    return NULL;
}

void node_drain_begin(struct node *node)
{
    node_ref(node);
    node->drained++;
    node->graph->drains++;
    drain_refresh(node);
    struct node *busy;
    while ((busy = find_busy(node)))
        co_queue_wait_uncancellable(&busy->drain_queue);
}

void node_drain_end(struct node *node)
{
    node->drained--;
    node->graph->drains--;
    drain_refresh(node);
    node_unref(node);
}

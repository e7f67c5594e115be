/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Edges: who uses a node. Attaching takes a reference, checks permissions and then becomes a child; detaching goes the
 * other way round. What an edge connects while there are drains takes part in them (block/drain.c).
 */
#include "block/internal.h"

#include <string.h>
#include "base/alloc.h"

static void set_shortcut(struct edge *edge, struct edge *value)
{
    struct node *parent = edge->parent;
    if (!parent)
        return;
    if (!strcmp(edge->role, "file"))
        parent->file = value;
    else if (!strcmp(edge->role, "backing"))
        parent->backing = value;
}

struct edge *edge_attach(struct node *parent, const char *role, struct node *child, uint32_t perm, uint32_t shared,
                         struct error *err)
{
    if (parent && child->inactive)
        return fail_null(err, EBUSY, "Node '%s' is inactive, and cannot be the %s of '%s'", child->name, role,
                         parent->name);
    struct edge *edge = new (struct edge);
    if (parent && !strcmp(role, "backing") && parent->driver->kind != DRIVER_FILTER) {
        uint32_t parent_perm, parent_shared;
        node_cumulative_perm(parent, &parent_perm, &parent_shared);
        perm_for_backing(parent, NULL, parent_perm, &perm, &shared);
    }
    edge->parent = parent;
    edge->child = child;
    edge->role = xstrdup(role);
    list_init(&edge->parent_link);
    list_init(&edge->child_link);
    edge->shared = BLOCK_PERM_ALL;
    node_ref(child);
    list_append(&child->parents, &edge->child_link); /* checking may yield: whoever comes meanwhile must see us */
    if (!edge_check_perm(edge, perm, shared, err)) {
        list_remove(&edge->child_link);
        node_unref(child);
        free(edge->role);
        free(edge);
        return NULL;
    }
    if (parent) {
        list_append(&parent->children, &edge->parent_link);
        if (child->graph->drains)
            drain_refresh(child);
    }
    set_shortcut(edge, edge);
    edge_apply_perm(edge, perm, shared);
    return edge;
}

void edge_detach(struct edge *edge)
{
    if (!edge)
        return;
    struct node *child = edge->child;
    set_shortcut(edge, NULL);
    edge_apply_perm(edge, 0, BLOCK_PERM_ALL);
    list_remove(&edge->parent_link);
    list_remove(&edge->child_link);
    if (edge->parent && child->graph->drains) {
        drain_refresh(edge->parent);
        drain_refresh(child);
    }
    free(edge->role);
    free(edge);
    node_unref(child);
}

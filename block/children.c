/* SPDX-License-Identifier: Apache-2.0 */
#include "block/children.h"

#include <string.h>
#include "block/driver.h"

bool node_add_child(struct node *parent, struct node *child, struct error *err)
{
    if (!parent->driver->add_child)
        return fail(err, ENOTSUP, "The node '%s' (driver '%s') does not take children while it is in use", parent->name,
                    parent->driver->name);
    if (node_is_below(child, parent))
        return fail(err, ELOOP, "Making '%s' a child of '%s' would create a cycle", child->name, parent->name);
    const struct edge *user = list_first(&child->parents, struct edge, child_link);
    if (user && user->parent)
        return fail(err, EBUSY, "The node '%s' already has a parent: it is the %s of '%s'", child->name, user->role,
                    user->parent->name);
    node_drain_begin(parent);
    bool ok = parent->driver->add_child(parent, child, err);
    node_mark_written(parent); /* what was flushed before says nothing about the new child */
    node_drain_end(parent);
    return ok;
}

static struct edge *find_child(const struct node *parent, const char *role)
{
    struct edge *edge;
    list_for_each (edge, &parent->children, parent_link) {
        if (!strcmp(edge->role, role))
            return edge;
    }
    return NULL;
}

bool node_remove_child(struct node *parent, const char *role, struct error *err)
{
    if (!find_child(parent, role))
        return fail(err, ENOENT, "The node '%s' has no child '%s'", parent->name, role);
    if (!parent->driver->remove_child)
        return fail(err, ENOTSUP, "The node '%s' (driver '%s') does not let go of children while it is in use",
                    parent->name, parent->driver->name);
    node_drain_begin(parent);
    struct edge *edge = find_child(parent, role); /* draining has yielded */
    bool ok = edge ? parent->driver->remove_child(parent, edge, err)
                   : fail(err, ENOENT, "The node '%s' has no child '%s'", parent->name, role);
    node_drain_end(parent);
    return ok;
}

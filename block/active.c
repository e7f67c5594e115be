/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inactive nodes. To deactivate a node is to close it and keep its name and options; its driver is replaced by one that
 * answers every request with -EIO, so that the request path knows nothing of this.
 */
#include "block/active.h"

#include <string.h>
#include "base/cleanup.h"
#include "block/dirty_bitmap.h"
#include "block/internal.h"
#include "qmp/schema/types.h"

static int inactive_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    return -EIO;
}

static int inactive_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    return -EIO;
}

static int inactive_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    return -EIO;
}

static bool inactive_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    return fail(err, EBUSY, "Node '%s' is inactive: it can be used when blockdev-set-active has made it active",
                node->name);
}

static const struct block_driver inactive_driver = {
    .name = "inactive",
    .kind = DRIVER_PROTOCOL,
    .read = inactive_read,
    .write = inactive_write,
    .extents = inactive_extents,
    .check_perm = inactive_check_perm,
};

static void detach_all(struct node *node)
{
    while (!list_empty(&node->children))
        edge_detach(list_first(&node->children, struct edge, parent_link));
}

/* They are in the image now, and are loaded from it again. */
static void forget_stored_bitmaps(struct node *node)
{
    struct dirty_bitmap *bitmap;
    list_for_each_safe (bitmap, &node->bitmaps, link) {
        if (bitmap->persistent)
            dirty_bitmap_free(bitmap);
    }
}

bool node_deactivate(struct node *node, struct error *err)
{
    if (node->inactive)
        return true;
    const struct edge *user = list_first(&node->parents, struct edge, child_link);
    if (user)
        return fail(err, EBUSY, "Node '%s' cannot be inactive: it is in use by %s%s%s", node->name,
                    user->parent ? "node '" : "", user->parent ? user->parent->name : user->role,
                    user->parent ? "'" : "");
    node_drain_begin(node);
    int result = node->read_only ? 0 : node_flush(node);
    if (!result && node->driver->close)
        node->driver->close(node);
    if (!result && !node->read_only && node->file)
        result = node_flush(node);
    if (!result) {
        detach_all(node);
        forget_stored_bitmaps(node);
        memset(node->state, 0, node->driver->instance_size);
        free(TAKE(node->filename));
        node->inactive = node->driver;
        node->driver = &inactive_driver;
    }
    node_drain_end(node);
    return !result || fail_errno(err, result, "Node '%s' could not be flushed", node->name);
}

bool node_activate(struct node *node, struct error *err)
{
    if (!node->inactive)
        return true;
    node_drain_begin(node);
    node->driver = node->inactive;
    bool ok = node_open_driver(node, err);
    if (ok) {
        node->inactive = NULL;
    } else {
        detach_all(node);
        memset(node->state, 0, node->driver->instance_size);
        node->driver = &inactive_driver;
    }
    node_drain_end(node);
    return ok;
}

/* The next node that can become what it shall be; NULL: none, and *left says whether there are others. */
static struct node *find_ready(struct graph *graph, bool active, struct node **left)
{
    *left = NULL;
    for (struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node)) {
        if (!node->monitor_owned || active == !node->inactive)
            continue;
        if (active || list_empty(&node->parents))
            return node;
        *left = node;
    }
    return NULL;
}

bool graph_set_active(struct graph *graph, bool active, struct error *err)
{
    struct node *node, *left;
    while ((node = find_ready(graph, active, &left))) {
        if (!(active ? node_activate(node, err) : node_deactivate(node, err)))
            return false;
    }
    return !left || node_deactivate(left, err); /* in use: the error says by whom */
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot-access: the old state that a copy-before-write node keeps, as a node that can be read and exported. What is
 * not kept (the node's `bitmap` leaves it out, or it has been discarded) cannot be read: -EACCES. A discard says that a
 * part will not be read again, so that its space is given back.
 */
#include "block/border.h"
#include "block/filters/copy_before_write.h"
#include "block/filters/filters.h"
#include "qmp/schema/types.h"

static bool snapshot_open(struct node *node, struct error *err)
{
    if (!filter_open_file(node, node->options->u.snapshot_access.file, err))
        return false;
    if (!node_is_copy_before_write(node->file->child))
        return fail(err, EINVAL, "The file of a snapshot-access node must be a copy-before-write node, '%s' is none",
                    node->file->child->name);
    node->discard = BLOCK_DISCARD_UNMAP;
    node->read_only = false; /* for discards, the only thing that changes it */
    return true;
}

static struct node *enter(struct node *node)
{
    return request_enter(node->file);
}

static int snapshot_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct node *cbw = enter(node);
    int result = cbw_snapshot_read(cbw, offset, length, to);
    request_leave(cbw);
    return result;
}

static int snapshot_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    return -EROFS;
}

static int snapshot_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    return -EROFS;
}

static int snapshot_discard(struct node *node, uint64_t offset, uint64_t length)
{
    struct node *cbw = enter(node);
    int result = cbw_snapshot_discard(cbw, offset, length);
    request_leave(cbw);
    return result;
}

static int snapshot_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    struct node *cbw = enter(node);
    int result = cbw_snapshot_extent(cbw, offset, length, extent);
    request_leave(cbw);
    return result;
}

/* Whoever reads here does not care about what happens to the disk: that is the point. */
static bool snapshot_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    return true;
}

const struct block_driver snapshot_access_driver = {
    .name = "snapshot-access",
    .kind = DRIVER_FILTER,
    .open = snapshot_open,
    .read = snapshot_read,
    .write = snapshot_write,
    .zero = snapshot_zero,
    .discard = snapshot_discard,
    .extents = snapshot_extents,
    .check_perm = snapshot_check_perm,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* A filter's easy part: what it does not care about goes on to its file. */
#include "base/alloc.h"
#include "block/create.h"
#include "block/filters/filters.h"
#include "qmp/schema/types.h"

bool filter_open_file(struct node *node, const struct blockdev_ref *ref, struct error *err)
{
    if (!node_open_child(node, "file", ref, 0, BLOCK_PERM_ALL, err))
        return false;
    const struct node *file = node->file->child;
    node->size = file->size;
    node->read_only = node->options_read_only || file->read_only;
    node->write_flags = REQUEST_FUA; /* block_write() below sees to it */
    node->zero_flags = REQUEST_FUA;
    node->limits.optimal_transfer = file->limits.optimal_transfer;
    return true;
}

int filter_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    return block_read(node->file, offset, length, to, flags);
}

int filter_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    return block_write(node->file, offset, length, from, flags);
}

int filter_write_compressed(struct node *node, uint64_t offset, uint64_t length, struct buffers from)
{
    return block_write(node->file, offset, length, from, REQUEST_COMPRESSED);
}

int filter_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    return block_zero(node->file, offset, length, flags);
}

int filter_discard(struct node *node, uint64_t offset, uint64_t length)
{
    return block_discard(node->file, offset, length);
}

bool filter_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact, struct error *err)
{
    if (!node_resize(node->file, size, preallocation, exact, err))
        return false;
    node_set_size(node, node->file->child->size);
    return true;
}

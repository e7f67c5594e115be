/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block status: which layer of a chain decides about a span, and where its bytes are. Walks down from the top: a format
 * answers from its map; what it does not have is the backing node's; a layer that only renames bytes (raw) is looked
 * through down to the file, which alone knows its holes.
 *
 * What lies behind the end of a short backing node reads as zeroes and belongs to the layer above it; no layer has it
 * allocated.
 */
#include "block/internal.h"

#include "block/border.h"

int node_extent(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    const struct block_driver *driver = node->driver;
    *extent = (struct extent){.kind = EXTENT_DATA, .length = length, .child_offset = offset, .allocated = true};
    int result = 0;
    if (driver->map)
        result = driver->map(node, offset, length, extent);
    else if (driver->extents)
        result = driver->extents(node, offset, length, extent);
    else if (driver->kind == DRIVER_FILTER && node->file)
        *extent = (struct extent){.kind = EXTENT_DATA,
                                  .length = length,
                                  .child = node->file,
                                  .child_offset = offset,
                                  .allocated = true,
                                  .follow = true};
    if (unlikely(result < 0))
        return result;
    /* Drivers compute this from what they read from disk. */
    return unlikely(!extent->length || extent->length > length) ? -EIO : 0;
}

/* Follows data through renaming layers to the node that stores it. Shortens *length to what is uniform. */
static int locate(struct extent *extent, struct node **holder, uint64_t *offset, bool precise, bool *is_hole)
{
    *is_hole = false;
    *holder = NULL;
    uint64_t length = extent->length;
    struct extent at = *extent;
    while (at.kind == EXTENT_DATA && at.child) {
        struct node *node = at.child->child;
        *holder = node;
        *offset = at.child_offset;
        if (!(precise || at.follow))
            break;
        if (at.child_offset >= node->size) { /* reads as zeroes, is stored nowhere yet */
            *is_hole = true;
            break;
        }
        uint64_t asked = MIN(length, node->size - at.child_offset);
        struct extent below;
        node->in_flight++;
        int result = node_extent(node, at.child_offset, asked, &below);
        request_leave(node);
        if (result < 0)
            return result;
        length = below.length;
        if (below.kind == EXTENT_DATA && !below.child)
            break; /* stored here */
        *is_hole = below.kind == EXTENT_ZERO;
        if (below.kind == EXTENT_BACKING || below.kind == EXTENT_ENCODED)
            *holder = NULL; /* an image below, whose bytes are not one to one */
        at = below;
    }
    extent->length = length;
    return 0;
}

/* Status of one layer. Returns 1 when the layer defers to the backing node for status->length bytes. */
static int layer_status(struct node *node, uint64_t offset, uint64_t length, uint32_t flags,
                        struct block_status *status)
{
    struct extent extent;
    int result = node_extent(node, offset, length, &extent);
    if (result < 0)
        return result;
    bool is_hole = false;
    switch (extent.kind) {
    case EXTENT_BACKING: status->length = extent.length; return 1;
    case EXTENT_ZERO:
        status->zero = true;
        if (!extent.child && node->driver->kind == DRIVER_PROTOCOL) {
            status->node = node;
            status->offset = offset;
        } else if (extent.child) { /* zero, yet with a place of its own (preallocated) */
            status->node = extent.child->child;
            status->offset = extent.child_offset;
        }
        break;
    case EXTENT_ENCODED:
        status->data = true;
        status->compressed = !extent.child;
        break;
    case EXTENT_DATA:
        status->data = true;
        if (!extent.child) {
            if (node->driver->kind != DRIVER_FORMAT) { /* a format that moves its bytes itself has changed them */
                status->node = node;
                status->offset = offset;
            }
            break;
        }
        result = locate(&extent, &status->node, &status->offset, flags & BLOCK_STATUS_PRECISE, &is_hole);
        if (result < 0)
            return result;
        status->zero = is_hole;
        status->data = !is_hole || !extent.follow;
        break;
    }
    status->length = extent.length;
    status->allocated = true;
    return 0;
}

/* Filters, and raw layers over an image, only rename bytes: the layer below decides. */
static int look_through(struct node **node, uint64_t *offset, uint64_t *length)
{
    while ((*node)->driver->kind != DRIVER_PROTOCOL) {
        struct extent extent;
        int result = node_extent(*node, *offset, *length, &extent);
        if (result < 0)
            return result;
        bool renames = extent.kind == EXTENT_DATA && extent.follow && extent.child;
        if (!renames || extent.child->child->driver->kind == DRIVER_PROTOCOL)
            return 0;
        *node = extent.child->child;
        *offset = extent.child_offset;
        *length = extent.length;
    }
    return 0;
}

static const struct node *skip_filters(const struct node *node)
{
    while (node && node->driver->kind == DRIVER_FILTER && node->file)
        node = node->file->child;
    return node;
}

/* Down to `base`, which itself is not looked at any more; NULL: the whole chain. */
static int chain_status(struct node *node, const struct node *base, uint64_t offset, uint64_t length, uint32_t flags,
                        struct block_status *status)
{
    *status = (struct block_status){.length = length};
    base = skip_filters(base);
    while (true) {
        if (base && skip_filters(node) == base) {
            status->length = length;
            return 0;
        }
        int result = look_through(&node, &offset, &length);
        if (result >= 0) {
            node->in_flight++;
            result = layer_status(node, offset, length, flags, status);
            request_leave(node);
        }
        if (result <= 0)
            return result;
        length = status->length;
        if (flags & BLOCK_STATUS_TOP_ONLY)
            return 0;
        struct node *backing = node->backing ? node->backing->child : NULL;
        if (!backing || offset >= backing->size) {
            status->zero = true;
            return 0;
        }
        length = MIN(length, backing->size - offset);
        node = backing;
        status->depth++;
    }
}

int block_status_above(struct edge *edge, const struct node *base, uint64_t offset, uint64_t length, uint32_t flags,
                       struct block_status *status)
{
    struct node *node = request_enter(edge);
    int result;
    if (!length)
        result = -EINVAL;
    else if (!span_fits(offset, length, node->size))
        result = offset + length < offset ? -EINVAL : -EIO;
    else
        result = chain_status(node, base, offset, length, flags, status);
    request_leave(node);
    return result;
}

int block_status(struct edge *edge, uint64_t offset, uint64_t length, uint32_t flags, struct block_status *status)
{
    return block_status_above(edge, NULL, offset, length, flags, status);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy-on-read: what is read from backing images is kept in the image that reads it. The pulling itself is
 * block_pull(); here reads are widened to whole clusters, so that the image need not copy around them, and cut at
 * `bottom`.
 */
#include "base/alloc.h"
#include "base/math.h"
#include "block/filters/filters.h"
#include "block/query.h"
#include "qmp/schema/types.h"

#define LEAST_CLUSTER (64 * KiB)

struct cor {
    uint64_t cluster_size;
    struct node *base; /* below `bottom`; NULL: the whole chain. Stays, as part of the chain, as long as we do. */
};

static bool find_base(struct node *node, const char *bottom, struct error *err)
{
    struct cor *cor = node->state;
    struct node *last = graph_find(node->graph, bottom);
    if (!last)
        return fail(err, ENOENT, "Bottom node '%s' not found", bottom);
    if (!node_is_below(node->file->child, last))
        return fail(err, EINVAL, "Bottom node '%s' is not in the chain of '%s'", bottom, node->file->child->name);
    cor->base = node_backing(last);
    return true;
}

static bool cor_open(struct node *node, struct error *err)
{
    const struct blockdev_options_cor *options = &node->options->u.copy_on_read;
    struct cor *cor = node->state;
    if (!filter_open_file(node, options->file, err))
        return false;
    cor->cluster_size = MAX(node_cluster_size(node->file->child), LEAST_CLUSTER);
    return !options->bottom || find_base(node, options->bottom, err);
}

static int cor_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    const struct cor *cor = node->state;
    if (node->file->perm & (BLOCK_PERM_WRITE | BLOCK_PERM_WRITE_UNCHANGED)) {
        uint64_t start = round_down(offset, cor->cluster_size);
        uint64_t end = MIN(round_up(offset + length, cor->cluster_size), node->size);
        int result = end > start ? block_pull(node->file, cor->base, start, end - start, NULL) : 0;
        if (result)
            return result;
    }
    return flags & REQUEST_PREFETCH ? 0 : filter_read(node, offset, length, to, flags);
}

/* Writing what is there already, on behalf of those who read. */
static bool cor_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    if (perm && !node->file->child->read_only)
        perm |= BLOCK_PERM_WRITE_UNCHANGED;
    return edge_check_perm(node->file, perm, shared, err);
}

static void cor_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    if (!node->file)
        return;
    if (perm && !node->file->child->read_only)
        perm |= BLOCK_PERM_WRITE_UNCHANGED;
    edge_apply_perm(node->file, perm, shared);
    node->read_only = node->options_read_only || node->file->child->read_only;
}

const struct block_driver copy_on_read_driver = {
    .name = "copy-on-read",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct cor),
    .open = cor_open,
    .read = cor_read,
    .write = filter_write,
    .write_compressed = filter_write_compressed,
    .zero = filter_zero,
    .discard = filter_discard,
    .check_perm = cor_check_perm,
    .set_perm = cor_set_perm,
    .resize = filter_resize,
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compress: every write becomes a compressed one, so that jobs and guests that know nothing of compression fill an
 * image compressed. A format compresses whole clusters: the request path widens writes to them, by reading the rest
 * first.
 */
#include "base/iov.h"
#include "block/filters/filters.h"
#include "block/query.h"
#include "qmp/schema/types.h"

static bool compress_open(struct node *node, struct error *err)
{
    if (!filter_open_file(node, node->options->u.compress.file, err))
        return false;
    struct node *file = node->file->child;
    uint64_t cluster_size = node_cluster_size(file);
    if (!node_compresses(file) || !cluster_size)
        return fail(err, ENOTSUP, "Compression is not supported for underlying format: %s", file->driver->name);
    node->limits.request_alignment = (uint32_t)cluster_size;
    return true;
}

/* The last cluster may reach past the end of the disk. */
static int compress_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    uint64_t end = MIN(offset + length, node->size);
    while (offset < end) {
        uint64_t piece = MIN((uint64_t)node->limits.request_alignment, end - offset);
        int result = block_write(node->file, offset, piece, from, REQUEST_COMPRESSED | (flags & REQUEST_FUA));
        if (result)
            return result;
        offset += piece;
        from.skip += piece;
    }
    return 0;
}

static int compress_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    uint64_t there = MIN(length, node->size - offset);
    int result = filter_read(node, offset, there, to, flags);
    if (!result && there < length)
        iov_set(to.iov, (int)to.count, to.skip + there, 0, length - there);
    return result;
}

const struct block_driver compress_driver = {
    .name = "compress",
    .kind = DRIVER_FILTER,
    .open = compress_open,
    .read = compress_read,
    .write = compress_write,
    .write_compressed = filter_write_compressed,
    .zero = filter_zero,
    .discard = filter_discard,
    .check_perm = node_pass_check_perm,
    .set_perm = node_pass_set_perm,
    .resize = filter_resize,
};

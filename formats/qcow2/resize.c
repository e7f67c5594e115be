/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing the size of the guest's disk. What a larger disk gains reads as zeroes, also where a backing file has data
 * and where the last cluster had room behind the old end. The header says the new size last: a crash leaves the old
 * size, with what was cut off empty, or what was added unseen.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/create.h"
#include "formats/qcow2/edges.h"
#include "formats/qcow2/state.h"

int qcow2_write_whole(struct node *node, uint64_t offset, uint64_t length, const uint8_t *data)
{
    while (length) {
        struct write_plan plan = {0};
        int result = qcow2_prepare_write(node, offset, length, &plan);
        if (result)
            return result;
        assert(!plan.cow_before || !plan.cow_after);
        struct iovec iov = {(void *)(uintptr_t)data, plan.length};
        result = plan.cow_before || plan.cow_after ? -ENOTSUP
                 : plan.encoded
                     ? qcow2_write_encoded(node, &plan, offset, plan.child_offset, plan.length, buffers_of(&iov, 1), 0)
                     : block_write(plan.child, plan.child_offset, plan.length, buffers_of(&iov, 1), 0);
        result = qcow2_commit_write(node, &plan, result);
        if (result)
            return result;
        offset += plan.length;
        length -= plan.length;
        data += plan.length;
    }
    return 0;
}

/* The unit of `size` bytes at the old end is made anew: what is in front of the end is kept, the rest is zero. */
static int rewrite_unit(struct qcow2 *q, uint64_t old_size, uint64_t size)
{
    uint64_t start = round_down(old_size, size), kept = old_size - start;
    auto_free uint8_t *buffer = block_alloc_buffer(q->file, size);
    if (!buffer)
        return -ENOMEM;
    memset(buffer, 0, size);
    struct iovec iov = {buffer, size};
    int result = qcow2_read_guest(q->node, start, kept, buffers_of(&iov, 1));
    return result ? result : qcow2_write_whole(q->node, start, size, buffer);
}

/* The part of an extent that its file has. */
static int zero_data(const struct extent *extent)
{
    uint64_t size = extent->child->child->size;
    uint64_t there = extent->child_offset < size ? MIN(extent->length, size - extent->child_offset) : 0;
    return there ? block_zero(extent->child, extent->child_offset, there, 0) : 0;
}

/* Bytes behind the old end, in the cluster that holds it: left over from a larger disk, or shown by the backing file.
 */
static int zero_tail(struct qcow2 *q, uint64_t old_size)
{
    uint64_t end = cluster_end(q, old_size), at = old_size;
    /* What a snapshot shares stays as it is: the cluster is replaced as a whole. */
    bool is_shared = q->snapshots.count;
    uint64_t unit = is_shared ? q->cluster_size : subcluster_size(q);
    int result = 0;
    while (at < end && !result) {
        struct extent extent;
        result = qcow2_map(q->node, at, end - at, &extent);
        if (result)
            return result;
        uint64_t sub_end = round_up(at, unit);
        bool shows = extent.kind == EXTENT_BACKING && has_backing(q) && q->node->backing->child->size > at;
        if (extent.kind == EXTENT_ENCODED || (extent.kind == EXTENT_DATA && is_shared))
            return rewrite_unit(q, at, q->cluster_size);
        if (extent.kind == EXTENT_DATA)
            result = zero_data(&extent);
        else if (shows && at < sub_end)
            result = rewrite_unit(q, at, unit);
        else if (shows)
            result = qcow2_zero_span(q, at, extent.length, 0);
        at += shows && at < sub_end ? sub_end - at : extent.length;
    }
    return result;
}

/* Entries behind the end: saved machine state that was never loaded, or what a forged image hid there. */
static int drop_hidden(struct qcow2 *q, uint64_t old_size)
{
    uint64_t begin = cluster_end(q, old_size);
    int result = 0;
    for (uint64_t i = l1_index(q, begin); i < q->l1.count && !result; i++) {
        uint64_t from = MAX(begin, i * l2_span(q));
        if (q->l1.entries[i] & ENTRY_OFFSET)
            result = qcow2_unmap_span(q, from, (i + 1) * l2_span(q) - from, true, FREE_CUT);
    }
    return result;
}

static int write_zero_clusters(struct qcow2 *q, uint64_t offset, uint64_t end)
{
    auto_free uint8_t *zeroes = block_alloc_buffer(q->file, q->cluster_size);
    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, q->cluster_size);
    int result = 0;
    for (; offset < end && !result; offset += q->cluster_size)
        result = qcow2_write_whole(q->node, offset, q->cluster_size, zeroes);
    return result;
}

/* A longer backing file must not show behind the old end. */
static int zero_gained(struct qcow2 *q, uint64_t old_size, uint64_t new_size)
{
    int result = drop_hidden(q, old_size);
    if (!result)
        result = zero_tail(q, old_size);
    uint64_t begin = cluster_end(q, old_size);
    uint64_t shown = has_backing(q) ? MIN(new_size, q->node->backing->child->size) : 0;
    if (result || begin >= shown)
        return result;
    uint64_t end = cluster_end(q, shown);
    if (q->header.version < 3)
        return write_zero_clusters(q, begin, end);
    return qcow2_zero_span(q, begin, end - begin, 0);
}

static bool store_size(struct qcow2 *q, uint64_t size, struct error *err)
{
    uint64_t old_size = q->header.size;
    /* Zeroed tails are data: the barrier is needed even when no metadata changed. */
    int result = qcow2_sync(q);
    if (!result)
        result = order_barrier(q, EDGE_ZEROES_BEFORE_SIZE);
    if (!result) {
        q->header.size = size;
        result = header_store(q);
    }
    if (!result)
        result = qcow2_barrier(q);
    if (result) {
        /* Nobody knows which size is on disk. What is written behind the smaller one from now on must not be lost. */
        q->header.size = old_size;
        q->broken |= header_store(q) || qcow2_barrier(q);
        return fail_errno(err, result, "cannot write the new size to the header");
    }
    q->size = size;
    if (q->node)
        node_set_size(q->node, size);
    return true;
}

/* The new size goes first: were entries dropped before, a crash between the two would leave the old size, and what the
 * backing file has there would show again. Entries behind the end do no harm, and zero_gained() drops them. */
static bool shrink(struct qcow2 *q, uint64_t size, struct error *err)
{
    uint64_t begin = cluster_end(q, size), end = cluster_end(q, q->size);
    if (!store_size(q, size, err))
        return false;
    block_event(q->file, BLKDEBUG_EVENT_L1_SHRINK_FREE_L2_CLUSTERS);
    int result = begin < end ? qcow2_unmap_span(q, begin, end - begin, true, FREE_CUT) : 0;
    if (result)
        return fail_errno(err, result, "cannot free the clusters behind the new end");
    return !q->external_data || node_resize(q->data, size, PREALLOCATION_OFF, false, err);
}

static bool grow(struct qcow2 *q, uint64_t size, enum preallocation preallocation, struct error *err)
{
    uint64_t old_size = q->size, entries = DIV_ROUND_UP(size, l2_span(q));
    if (entries > L1_BYTES_MAX / 8)
        return fail(err, EFBIG,
                    "a disk of %" PRIu64 " bytes is too large for clusters of %" PRIu64 " bytes: at most %" PRIu64
                    " bytes are possible",
                    size, q->cluster_size, (uint64_t)(l2_span(q) * (L1_BYTES_MAX / 8)));
    co_mutex_lock(&q->lock);
    int result = l1_grow(q, entries);
    co_mutex_unlock(&q->lock);
    if (!result)
        result = zero_gained(q, old_size, size);
    if (result)
        return fail_errno(err, result, "cannot make room for the larger disk");
    if (q->external_data &&
        !node_resize(q->data, size, preallocation == PREALLOCATION_METADATA ? PREALLOCATION_OFF : preallocation, false,
                     err))
        return false;
    if (q->raw_data && preallocation == PREALLOCATION_OFF)
        preallocation = PREALLOCATION_METADATA;
    return qcow2_preallocate(q, cluster_end(q, old_size), size, preallocation, err) && store_size(q, size, err);
}

bool qcow2_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact, struct error *err)
{
    struct qcow2 *q = node->state;
    if (q->broken)
        return fail(err, EIO, "the image is corrupt: it cannot be resized");
    if (size % 512)
        return fail(err, EINVAL, "the new size %" PRIu64 " is not a multiple of 512 bytes", size);
    if (q->snapshots.count && q->header.version < 3)
        return fail(err, ENOTSUP,
                    "a version 2 image with snapshots cannot be resized: it does not record the size that "
                    "the disk had when a snapshot was taken");
    node_mark_written(node);
    if (size < q->size && preallocation != PREALLOCATION_OFF)
        return fail(err, EINVAL, "preallocation can be used only to make a disk larger");
    if (size < q->size)
        return shrink(q, size, err);
    return size == q->size || grow(q, size, preallocation, err);
}

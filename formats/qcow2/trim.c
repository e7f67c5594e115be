/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file ends where the image does. Clusters that were freed are holes, where discards are passed on; behind the last
 * one in use they are not even that: the file becomes shorter.
 *
 * What may be cut off. Clusters from the end downwards whose count is 0 and which the write log does not use: nobody
 * names them, and nobody has been promised one (a cluster is counted under the lock, before anything is written to it).
 * And only as far as the file has holes there: where counts were wrong, what is cut off reads as it did before, as
 * zeroes. So an image that is damaged loses nothing by it, and who did not allow discards keeps the file as it is.
 *
 * When. The counts are on stable storage before the file is cut, so that no crash leaves an image whose counts speak of
 * what is behind the end. Nobody may be reading a cluster that was freed a moment ago: at close, and with a guest's
 * flush while no other request is under way, TRIM_NS after the last time at the earliest. Requests that come meanwhile
 * find their places below the new end, or wait for the lock to be given one.
 */
#include "formats/qcow2/trim.h"

#include "base/cleanup.h"
#include "block/create.h"

#define TRIM_NS UINT64_C(100000000)
enum { EXTENTS_MAX = 256 }; /* pieces of data among free clusters: with more of them, it is not worth the while */

static bool may_trim(const struct qcow2 *q)
{
    const struct node *file = q->file->child;
    return q->node && q->writable && !q->broken && q->pass_discard[FREE_REQUEST] && file->growable &&
           q->file->perm & BLOCK_PERM_RESIZE && file->driver->kind == DRIVER_PROTOCOL && file->driver->resize;
}

/* Where the free clusters at the end of the file begin. */
static int find_free_end(struct qcow2 *q, uint64_t *end)
{
    uint64_t index = DIV_ROUND_UP(q->file->child->size, q->cluster_size);
    for (; index && !log_holds(q, index - 1); index--) {
        uint64_t count;
        int result = refcount_get(q, index - 1, &count);
        if (result)
            return result;
        if (count)
            break;
    }
    *end = index << q->cluster_bits;
    return 0;
}

/* ... and where the hole that they end in begins. */
static int find_hole(struct qcow2 *q, uint64_t *end)
{
    uint64_t size = q->file->child->size;
    unsigned pieces = 0;
    for (uint64_t at = *end; at < size;) {
        struct block_status status;
        int result = block_status(q->file, at, size - at, BLOCK_STATUS_PRECISE, &status);
        if (result)
            return result;
        at += status.length;
        if (!status.zero || status.data)
            *end = cluster_end(q, at);
        if (pieces++ == EXTENTS_MAX)
            *end = size;
    }
    return 0;
}

static int cut(struct qcow2 *q, uint64_t end)
{
    struct node *file = q->file->child;
    auto_error err = {0};
    int result = q->header.incompatible & INCOMPATIBLE_DIRTY ? 0 : refcounts_write(q);
    if (!result)
        result = qcow2_barrier(q);
    if (result)
        return result;
    (void)file->driver->resize(file, end, PREALLOCATION_OFF, true, &err); /* a file that stays long is no harm */
    node_mark_written(file);
    return 0;
}

int qcow2_trim_locked(struct qcow2 *q)
{
    uint64_t end = 0;
    if (!may_trim(q))
        return 0;
    q->tail_was_freed = false;
    int result = find_free_end(q, &end);
    if (!result && end < q->file->child->size)
        result = find_hole(q, &end);
    return result || end >= q->file->child->size ? result : cut(q, end);
}

int qcow2_trim_when_idle(struct qcow2 *q)
{
    uint64_t now_ns = loop_now_ns(q->node->loop);
    if (!q->tail_was_freed || q->node->in_flight > 1 || q->file->child->in_flight || now_ns < q->trimmed_ns + TRIM_NS)
        return 0;
    co_mutex_lock(&q->lock);
    bool is_idle = q->node->in_flight <= 1 && !q->file->child->in_flight; /* still */
    int result = is_idle ? qcow2_trim_locked(q) : 0;
    q->trimmed_ns = now_ns;
    co_mutex_unlock(&q->lock);
    return result;
}

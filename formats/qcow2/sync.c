/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of metadata writes.
 *
 * A disk keeps what was written before a flush, and any part of what came after, in any order, torn at sector
 * boundaries. At every moment the file must be an image whose metadata is right, but for clusters that are counted and
 * not used (leaks). Three rules give that, and one function, qcow2_sync_locked(), keeps them:
 *
 *   1. Data before the entry that names it. Otherwise a crash would show the guest what the cluster held before.
 *   2. A reference is counted before it exists: refcounts before L2 and L1. (A refcount block before the table entry
 * that names it; the table before anything counted in that block is named.)
 *   3. A reference is gone before it is uncounted. Whoever drops one only queues it (qcow2_free_later); the count goes
 *      down, the hole is punched and the cluster becomes free for others after a barrier behind the last write that
 *      named it.
 *
 * So at the time of a sync:
 *
 *      data, new L2 tables (written already)
 *      refcount blocks  ->  [barrier, refcount table]
 *      ---------------- barrier ----------------
 *      changed L2 slices, changed L1 sectors
 *      the write log begins anew (write_log.c)
 *      ---------------- barrier ---------------- (only if something waits to be freed)
 *      counts of freed clusters in memory, discards to the file
 *
 * L2 and L1 may become durable in any order: a new L2 table was written as a whole before the first barrier, so an L1
 * entry that comes early leads to the old state (nothing, or the copy of a snapshot's table), which is right too.
 *
 * Because of rule 3, refcount blocks in memory never hold a count that is too low for what is on disk: they may be
 * written at any time. L2 slices may not: they leave the cache by a sync only. A barrier with nothing before it costs
 * nothing (the file's node knows), so a guest's flush after overwriting data in place is one flush of the file.
 *
 * With lazy refcounts the dirty bit takes the place of rule 2: counts are written when the image is closed, and made
 * anew from the L1 and L2 tables after a crash. The bit is on stable storage before the first change, and cleared after
 * the last count. Structures that move (L1, refcount table) are written completely, then a barrier, then the one
 * header sector that names them, then a barrier, and only then is the old place dropped.
 */
#include "formats/qcow2/edges.h"
#include "formats/qcow2/live.h"
#include "formats/qcow2/write_log.h"

#include <string.h>

enum { FREES_MAX = 4096 }; /* more than these waiting: a sync comes without a flush request, to have their room back */

int qcow2_begin_changes(struct qcow2 *q)
{
    if (q->broken)
        return -EIO;
    if (!q->lazy_refcounts || q->header.incompatible & INCOMPATIBLE_DIRTY)
        return 0;
    return header_set_incompatible(q, INCOMPATIBLE_DIRTY, true);
}

void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t length, enum free_reason reason)
{
    live_touch(q, offset, length);
    if (q->frees.count) {
        struct pending_free *last = vec_last(&q->frees);
        bool whole = in_cluster(q, offset) == 0 && in_cluster(q, last->offset + last->length) == 0;
        if (whole && last->reason == reason && last->offset + last->length == offset) {
            last->length += length;
            return;
        }
    }
    vec_push(&q->frees, ((struct pending_free){offset, length, reason}));
}

/* A failed discard costs space, nothing else. */
static void pass_discards(struct qcow2 *q, const struct freed_spans *freed)
{
    const struct host_span *span;
    vec_for_each (span, freed) {
        uint64_t size = q->file->child->size;
        q->tail_was_freed |= span->offset + span->length >= size;
        if (span->offset < size)
            (void)block_discard(q->file, span->offset, MIN(span->length, size - span->offset));
    }
}

/* What waited is unused on stable storage now. The lock keeps the allocator away until the holes are punched: a hole
 * never hits a cluster that has a new owner. */
static int apply_frees(struct qcow2 *q)
{
    struct pending_frees frees = q->frees;
    q->frees = (struct pending_frees){0};
    int result = 0;
    const struct pending_free *pending;
    vec_for_each (pending, &frees) {
        if (result || codec_reads_overlap(q, pending->offset, pending->length)) {
            vec_push(&q->frees, *pending);
            continue;
        }
        struct freed_spans freed = {0};
        block_event(q->file, BLKDEBUG_EVENT_CLUSTER_FREE);
        result = overlap_check_free(q, pending->offset, pending->length);
        if (!result)
            result = refcount_add(q, pending->offset, pending->length, -1, &freed);
        codec_cache_forget(q, pending->offset, pending->length);
        if (!result && q->pass_discard[pending->reason])
            pass_discards(q, &freed);
        vec_free(&freed);
    }
    vec_free(&frees);
    return result;
}

static bool l2_or_l1_is_dirty(const struct qcow2 *q)
{
    return cache_is_dirty(&q->l2_cache) || q->l1.is_dirty;
}

int qcow2_sync_locked(struct qcow2 *q)
{
    if (q->broken)
        return -EIO;
    int result = 0;
    if (!(q->header.incompatible & INCOMPATIBLE_DIRTY))
        result = refcounts_write(q);
    if (!result && l2_or_l1_is_dirty(q))
        result = order_barrier(q, EDGE_COUNTED_BEFORE_NAMED);
    bool writes_map = l2_or_l1_is_dirty(q);
    q->map_writes += writes_map; /* who asks meanwhile has to wait for a barrier ... */
    if (!result)
        result = cache_write(&q->l2_cache);
    if (!result && q->l1.is_dirty)
        block_event(q->file, BLKDEBUG_EVENT_L1_UPDATE);
    if (!result)
        result = disk_table_write(&q->l1, q->file);
    q->map_writes += writes_map; /* ... and one that began before the writes were done does not count */
    if (!result)
        result = log_reset(q); /* the tables have it all; and no freed cluster is given away before */
    if (!result && q->frees.count)
        result = order_barrier(q, EDGE_UNNAMED_BEFORE_FREED);
    if (!result && q->frees.count)
        result = apply_frees(q);
    return result;
}

int qcow2_sync(struct qcow2 *q)
{
    if (!l2_or_l1_is_dirty(q) && !q->frees.count && !cache_is_dirty(&q->refcount_cache) && !q->reftable.is_dirty)
        return 0;
    co_mutex_lock(&q->lock);
    int result = qcow2_sync_locked(q);
    co_mutex_unlock(&q->lock);
    return result;
}

int qcow2_sync_durable(struct qcow2 *q)
{
    int result = qcow2_sync(q);
    return !result && q->map_flushed != q->map_writes ? order_barrier(q, EDGE_MAP_BEFORE_ANSWER) : result;
}

int l2_load_locked(struct qcow2 *q, uint64_t slice_offset, uint8_t **slice)
{
    for (;;) {
        int result = cache_load(&q->l2_cache, slice_offset, slice);
        if (result == -EAGAIN)
            result = qcow2_sync_locked(q);
        else
            return result;
        if (result)
            return result;
    }
}

int l2_load(struct qcow2 *q, uint64_t slice_offset, uint8_t **slice)
{
    for (;;) {
        int result = cache_load(&q->l2_cache, slice_offset, slice);
        if (result == -EAGAIN)
            result = qcow2_sync(q);
        else
            return result;
        if (result)
            return result;
    }
}

int qcow2_relieve(struct qcow2 *q)
{
    bool crowded = q->l2_cache.dirty > q->l2_cache.capacity / 4 * 3 || q->frees.count > FREES_MAX;
    return crowded ? qcow2_sync_locked(q) : 0;
}

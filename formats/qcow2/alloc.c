/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding free host clusters: first fit from a hint below which everything is in use, so that images stay compact and
 * what is written in one go lies in one piece. Compressed clusters are packed byte behind byte, sharing host clusters
 * as far as the width of refcounts allows.
 */
#include "formats/qcow2/state.h"

#include <inttypes.h>

struct run {
    uint64_t first, count;
    uint64_t first_free; /* the first free cluster seen */
};

/* The block that counts cluster `index`. A new one is not put in the way of a run that has to go on here: it takes the
 * run's first cluster. */
static int enter_block(struct qcow2 *q, uint64_t index, uint64_t least, struct run *run, uint8_t **block)
{
    if (run->count == 0 || run->count >= least)
        return refblock_load_or_create(q, index, block);
    bool used;
    int result = refblock_load_or_create_at(q, index, run->first, &used, block);
    if (!result && used) {
        if (run->first_free == run->first)
            run->first_free++;
        run->first++;
        run->count--;
    }
    return result;
}

/* Looks for a run of `least` to `most` free clusters. Missing refcount blocks are made on the way, before their
 * clusters are looked at, since each takes one of them. */
static int find_run(struct qcow2 *q, uint64_t least, uint64_t most, struct run *run)
{
    uint64_t block_mask = (1ull << q->refblock_bits) - 1;
    uint8_t *block = NULL;
    *run = (struct run){.first_free = UINT64_MAX};
    for (uint64_t index = q->free_hint;; index++) {
        if (!block || (index & block_mask) == 0) {
            if (index >= HOST_OFFSET_END >> q->cluster_bits)
                return -EFBIG;
            int result = enter_block(q, index, least, run, &block);
            if (result)
                return result;
        }
        if (refcount_read(block, q->header.refcount_order, index & block_mask) == 0 && !log_holds(q, index)) {
            if (run->count++ == 0)
                run->first = index;
            run->first_free = MIN(run->first_free, index);
            if (run->count == most)
                return 0;
        } else if (run->count >= least && run->count) {
            return 0;
        } else {
            run->count = 0;
        }
    }
}

static int count_run(struct qcow2 *q, const struct run *run)
{
    for (uint64_t i = 0; i < run->count; i++) {
        int result = refcount_set(q, run->first + i, 1);
        if (result) {
            while (i-- > 0)
                (void)refcount_set(q, run->first + i, 0);
            return result;
        }
    }
    /* Clusters skipped because their run was too short stay below the hint's reach. */
    q->free_hint = run->first_free == run->first ? run->first + run->count : run->first_free;
    return 0;
}

static int allocate(struct qcow2 *q, uint64_t least, uint64_t most, uint64_t *offset, uint64_t *got)
{
    if (q->refblocks_shared)
        return qcow2_corrupt(q, q->reftable.offset, UINT64_MAX,
                             "two entries of the refcount table name the same block");
    int result = qcow2_begin_changes(q);
    struct run run;
    if (!result)
        result = find_run(q, least, most, &run);
    if (!result)
        result = overlap_check(q, run.first << q->cluster_bits, run.count << q->cluster_bits, 0);
    if (!result)
        result = count_run(q, &run);
    if (result)
        return result;
    *offset = run.first << q->cluster_bits;
    *got = run.count;
    return 0;
}

int alloc_clusters(struct qcow2 *q, uint64_t wanted, uint64_t *offset, uint64_t *got)
{
    block_event(q->file, BLKDEBUG_EVENT_CLUSTER_ALLOC);
    return allocate(q, 1, wanted, offset, got);
}

int alloc_contiguous(struct qcow2 *q, uint64_t count, uint64_t *offset)
{
    block_event(q->file, BLKDEBUG_EVENT_CLUSTER_ALLOC);
    uint64_t got;
    return allocate(q, count, count, offset, &got);
}

/* May `size` bytes go behind the last compressed cluster? They may reach into the next cluster, when that is free. */
static int tail_has_room(struct qcow2 *q, uint64_t size, bool *has_room)
{
    uint64_t index = cluster_index(q, q->compressed_tail), count;
    *has_room = false;
    int result = refcount_get(q, index, &count);
    if (result || count == 0 || count == q->refcount_max)
        return result;
    if (cluster_index(q, q->compressed_tail + size - 1) == index) {
        *has_room = true;
        return 0;
    }
    uint8_t *block;
    result = refblock_load(q, index + 1, &block);
    if (result || !block)
        return result;
    result = refcount_get(q, index + 1, &count);
    if (result || count || log_holds(q, index + 1))
        return result;
    result = overlap_check(q, (index + 1) << q->cluster_bits, q->cluster_size, 0);
    *has_room = !result;
    return result;
}

int alloc_bytes(struct qcow2 *q, uint64_t size, uint64_t *offset)
{
    block_event(q->file, BLKDEBUG_EVENT_CLUSTER_ALLOC_BYTES);
    bool behind_last = false;
    int result = qcow2_begin_changes(q);
    if (!result && q->compressed_tail)
        result = tail_has_room(q, size, &behind_last);
    if (result)
        return result;
    if (behind_last) {
        *offset = q->compressed_tail;
        result = refcount_add(q, *offset, size, 1, NULL);
    } else {
        result = alloc_contiguous(q, 1, offset);
    }
    if (!result)
        q->compressed_tail = in_cluster(q, *offset + size) ? *offset + size : 0;
    return result;
}

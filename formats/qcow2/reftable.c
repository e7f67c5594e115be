/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New refcount blocks and a larger refcount table. Both describe themselves: a block is placed into the first cluster
 * of those that it counts (nothing there is in use, or there would be a block), so that allocating one never needs an
 * allocation. The exception is a search for a run of clusters that is longer than a block counts: such a block would
 * lie in the way, and is given the first cluster of the run, which the block before it counts.
 *
 * A table that has become too small moves to the first clusters that the old one does not cover, together with the
 * blocks that count it:
 *
 *      old table covers ... | block block | new table      | free ...
 *                           S             S + blocks
 */
#include "formats/qcow2/edges.h"
#include "formats/qcow2/live.h"
#include "formats/qcow2/state.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"

static int create_block(struct qcow2 *q, uint64_t table_index, uint64_t offset, uint8_t **block)
{
    /* The block is written later, with others; here its place is decided, and what then fails undoes that. */
    block_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC);
    block_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE);
    block_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_HOOKUP);
    int result = overlap_check(q, offset, q->cluster_size, 0);
    while (!result && (result = cache_create(&q->refcount_cache, offset, block)) == -EAGAIN)
        result = refcounts_write(q);
    if (result)
        return result;
    live_touch(q, offset, q->cluster_size);
    disk_table_set(&q->reftable, (uint32_t)table_index, offset);
    overlap_add(q, OVERLAP_REFBLOCK, offset);
    return 0;
}

/* How large the new table must be, and how many blocks count it and themselves. */
static bool plan_table(const struct qcow2 *q, uint64_t wanted_index, uint64_t *blocks, uint64_t *table_clusters)
{
    uint64_t per_cluster = q->cluster_size / 8, per_block = 1ull << q->refblock_bits;
    uint64_t count = q->reftable.count;
    *blocks = 1;
    for (;;) {
        uint64_t entries = MAX(wanted_index + 1, count + *blocks);
        entries = MAX(entries, count + count / 2);
        *table_clusters = DIV_ROUND_UP(entries, per_cluster);
        uint64_t needed = DIV_ROUND_UP(*blocks + *table_clusters, per_block);
        if (*table_clusters > REFTABLE_BYTES_MAX / q->cluster_size)
            return false;
        if (needed <= *blocks)
            return true;
        *blocks = needed;
    }
}

/* Blocks that count `used` clusters from S, with S the first of the first block. */
static int write_blocks(struct qcow2 *q, uint64_t start, uint64_t blocks, uint64_t used)
{
    uint64_t per_block = 1ull << q->refblock_bits;
    uint8_t *buffer = block_alloc_buffer(q->file, q->cluster_size);
    if (!buffer)
        return -ENOMEM;
    int result = 0;
    for (uint64_t b = 0; b < blocks && !result; b++) {
        memset(buffer, 0, q->cluster_size);
        for (uint64_t i = 0; i < per_block && b * per_block + i < used; i++)
            refcount_write(buffer, q->header.refcount_order, i, 1);
        block_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS);
        result = block_write_buffer(q->file, (start + b) << q->cluster_bits, buffer, q->cluster_size, 0);
    }
    free(buffer);
    return result;
}

/* Points the header to the new table. If that fails nobody knows which of the two counts: nothing more is written. */
static int activate_table(struct qcow2 *q, const struct disk_table *table, uint64_t clusters)
{
    int result = order_barrier(q, EDGE_TABLE_BEFORE_HEADER);
    if (result)
        return result;
    q->header.reftable_offset = table->offset;
    q->header.reftable_clusters = (uint32_t)clusters;
    block_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
    result = header_store(q);
    if (!result)
        result = order_barrier(q, EDGE_HEADER_BEFORE_OLD);
    q->broken |= result != 0;
    return result;
}

static int grow_table(struct qcow2 *q, uint64_t wanted_index)
{
    uint64_t blocks, clusters;
    if (!plan_table(q, wanted_index, &blocks, &clusters))
        return -EFBIG;
    block_event(q->file, BLKDEBUG_EVENT_REFTABLE_GROW);
    uint64_t start = (uint64_t)q->reftable.count << q->refblock_bits, used = blocks + clusters;
    uint64_t offset = start << q->cluster_bits;
    int result = overlap_check(q, offset, used << q->cluster_bits, 0);
    if (!result)
        result = cache_write(&q->refcount_cache); /* the new table names all of them */
    if (!result)
        result = write_blocks(q, start, blocks, used);
    struct disk_table table = {0};
    if (!result &&
        !disk_table_init(&table, offset + (blocks << q->cluster_bits), (uint32_t)((clusters << q->cluster_bits) / 8)))
        result = -ENOMEM;
    if (result)
        return result;
    memcpy(table.entries, q->reftable.entries, (size_t)q->reftable.count * 8);
    for (uint64_t b = 0; b < blocks; b++)
        table.entries[q->reftable.count + b] = offset + (b << q->cluster_bits);
    block_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE_TABLE);
    result = disk_table_write_all(&table, q->file, clusters << q->cluster_bits);
    if (!result)
        result = activate_table(q, &table, clusters);
    if (result) {
        disk_table_release(&table);
        return result;
    }
    live_touch(q, offset, used << q->cluster_bits);
    struct host_span old = {q->reftable.offset, (uint64_t)q->reftable.count * 8};
    disk_table_release(&q->reftable);
    q->reftable = table;
    overlap_build(q);
    return refcount_add(q, old.offset, old.length, -1, NULL);
}

int refblock_load_or_create(struct qcow2 *q, uint64_t index, uint8_t **block)
{
    uint64_t table_index = index >> q->refblock_bits;
    if (table_index >= q->reftable.count) {
        int result = grow_table(q, table_index);
        if (result)
            return result;
    }
    int result = refblock_load(q, index, block);
    if (result || *block)
        return result;
    result = create_block(q, table_index, table_index << q->refblock_bits << q->cluster_bits, block);
    if (!result)
        refcount_write(*block, q->header.refcount_order, 0, 1);
    return result;
}

int refblock_load_or_create_at(struct qcow2 *q, uint64_t index, uint64_t place, bool *used, uint8_t **block)
{
    uint64_t table_index = index >> q->refblock_bits;
    *used = false;
    if (table_index >= q->reftable.count)
        return refblock_load_or_create(q, index, block);
    int result = refblock_load(q, index, block);
    if (result || *block)
        return result;
    result = refcount_set(q, place, 1);
    if (result)
        return result;
    result = create_block(q, table_index, place << q->cluster_bits, block);
    if (result)
        (void)refcount_set(q, place, 0);
    *used = !result;
    return result;
}

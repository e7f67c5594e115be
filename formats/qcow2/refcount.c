/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reference counts of host clusters, one at a time: a count of 1 to 64 bits in a refcount block that the refcount table
 * names. Everything here is called under the lock, and works on blocks in the cache.
 */
#include "formats/qcow2/edges.h"
#include "formats/qcow2/live.h"

#include <inttypes.h>

uint64_t refcount_read(const uint8_t *block, uint32_t order, uint64_t index)
{
    switch (order) {
    case 6: return load_be64(block + index * 8);
    case 5: return load_be32(block + index * 4);
    case 4: return load_be16(block + index * 2);
    case 3: return block[index];
    default: {
        /* Narrower than a byte: the first count is in the lowest bits. */
        uint64_t bit = index << order;
        return block[bit / 8] >> (bit % 8) & ((1u << (1u << order)) - 1);
    }
    }
}

void refcount_write(uint8_t *block, uint32_t order, uint64_t index, uint64_t count)
{
    switch (order) {
    case 6: store_be64(block + index * 8, count); break;
    case 5: store_be32(block + index * 4, (uint32_t)count); break;
    case 4: store_be16(block + index * 2, (uint16_t)count); break;
    case 3: block[index] = (uint8_t)count; break;
    default: {
        uint64_t bit = index << order;
        uint8_t mask = (uint8_t)(((1u << (1u << order)) - 1) << (bit % 8));
        block[bit / 8] = (uint8_t)((block[bit / 8] & ~mask) | (count << (bit % 8) & mask));
    }
    }
}

static uint64_t index_in_block(const struct qcow2 *q, uint64_t index)
{
    return index & ((1ull << q->refblock_bits) - 1);
}

static int load_block_at(struct qcow2 *q, uint64_t offset, uint8_t **block)
{
    for (;;) {
        int result = cache_load(&q->refcount_cache, offset, block);
        if (result == -EAGAIN)
            result = refcounts_write(q);
        else
            return result;
        if (result)
            return result;
    }
}

static int bad_block(struct qcow2 *q, uint64_t table_index, uint64_t offset)
{
    return qcow2_corrupt(q, offset, UINT64_MAX,
                         "refcount table entry %" PRIu64 " is 0x%" PRIx64
                         ": a refcount block begins at a multiple of %" PRIu64 ", inside the file",
                         table_index, offset, q->cluster_size);
}

int refblock_load(struct qcow2 *q, uint64_t index, uint8_t **block)
{
    uint64_t table_index = index >> q->refblock_bits;
    uint64_t offset = table_index < q->reftable.count ? q->reftable.entries[table_index] & ~REFTABLE_RESERVED : 0;
    *block = NULL;
    if (!offset)
        return 0;
    if (!is_aligned(offset, q->cluster_size))
        return bad_block(q, table_index, offset);
    *block = cache_peek(&q->refcount_cache, offset);
    if (*block)
        return 0; /* also a new one, which is not in the file yet */
    if (offset >= q->file->child->size)
        return bad_block(q, table_index, offset);
    return load_block_at(q, offset, block);
}

int refcount_get(struct qcow2 *q, uint64_t index, uint64_t *count)
{
    uint8_t *block;
    int result = refblock_load(q, index, &block);
    *count = !result && block ? refcount_read(block, q->header.refcount_order, index_in_block(q, index)) : 0;
    return result;
}

static void mark_block_dirty(struct qcow2 *q, uint64_t index)
{
    cache_mark_dirty(&q->refcount_cache, q->reftable.entries[index >> q->refblock_bits] & ~REFTABLE_RESERVED);
}

int refcount_set(struct qcow2 *q, uint64_t index, uint64_t count)
{
    uint8_t *block;
    int result = refblock_load(q, index, &block);
    if (result)
        return result;
    if (!block)
        return -EIO;
    refcount_write(block, q->header.refcount_order, index_in_block(q, index), count);
    live_touch(q, index << q->cluster_bits, 1);
    mark_block_dirty(q, index);
    return 0;
}

static void note_freed(struct qcow2 *q, uint64_t index, struct freed_spans *freed)
{
    q->free_hint = MIN(q->free_hint, index);
    if (q->compressed_tail && cluster_index(q, q->compressed_tail) == index)
        q->compressed_tail = 0;
    if (!freed)
        return;
    uint64_t offset = index << q->cluster_bits;
    struct host_span *last = freed->count ? vec_last(freed) : NULL;
    if (last && last->offset + last->length == offset)
        last->length += q->cluster_size;
    else
        vec_push(freed, ((struct host_span){offset, q->cluster_size}));
}

static int add_to_one(struct qcow2 *q, uint64_t index, int delta, struct freed_spans *freed)
{
    uint8_t *block;
    int result = refblock_load(q, index, &block);
    if (result)
        return result;
    uint64_t in_block = index_in_block(q, index);
    uint64_t count = block ? refcount_read(block, q->header.refcount_order, in_block) : 0;
    if (delta < 0 && count == 0)
        return qcow2_corrupt(q, index << q->cluster_bits, q->cluster_size,
                             "cluster at 0x%" PRIx64 " is in use and its refcount is 0", index << q->cluster_bits);
    if (delta > 0 && (!block || count == q->refcount_max))
        return -ERANGE;
    count += (uint64_t)(int64_t)delta;
    refcount_write(block, q->header.refcount_order, in_block, count);
    live_touch(q, index << q->cluster_bits, 1);
    mark_block_dirty(q, index);
    if (count == 0)
        note_freed(q, index, freed);
    return 0;
}

int refcount_add(struct qcow2 *q, uint64_t offset, uint64_t length, int delta, struct freed_spans *freed)
{
    uint64_t first = cluster_index(q, offset), end = cluster_index(q, offset + length - 1) + 1;
    for (uint64_t index = first; index < end; index++) {
        int result = add_to_one(q, index, delta, freed);
        if (result) {
            while (index-- > first)
                (void)add_to_one(q, index, -delta, NULL);
            return result;
        }
    }
    return 0;
}

int refcounts_write(struct qcow2 *q)
{
    int result = cache_write(&q->refcount_cache);
    if (!result && q->reftable.is_dirty)
        result = order_barrier(q, EDGE_BLOCK_BEFORE_TABLE);
    if (!result && q->reftable.is_dirty)
        block_event(q->file, BLKDEBUG_EVENT_REFTABLE_UPDATE);
    return result ? result : disk_table_write(&q->reftable, q->file);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * L1 and L2 tables: where the entry of a guest offset stands, and making it writable.
 *
 * An L2 table may be changed when the active L1 says COPIED (nobody else refers to it). Otherwise a snapshot shares it:
 * it is copied, and the copy takes its place in L1. A new table is written to the file as a whole at once, unordered,
 * since nothing refers to it; the L1 entry stays in memory until sync.c has seen to the order.
 */
#include <inttypes.h>
#include <string.h>
#include "formats/qcow2/write_log.h"

static int bad_table(struct qcow2 *q, uint64_t index, uint64_t offset)
{
    return qcow2_corrupt(q, offset, q->cluster_size,
                         "L1 entry %" PRIu64 " names an L2 table at 0x%" PRIx64
                         ": it must begin at a multiple of %" PRIu64 ", inside the file",
                         index, offset, q->cluster_size);
}

int l2_locate(struct qcow2 *q, uint64_t offset, uint64_t *slice_offset, uint32_t *index)
{
    uint64_t l1 = l1_index(q, offset);
    uint64_t table = l1 < q->l1.count ? q->l1.entries[l1] & ENTRY_OFFSET : 0;
    *slice_offset = 0;
    *index = 0;
    if (!table)
        return 0;
    if (unlikely(in_cluster(q, table) || table >= q->file->child->size))
        return bad_table(q, l1, table);
    uint64_t entry = cluster_index(q, offset) & ((1ull << q->l2_bits) - 1);
    uint64_t byte = entry * q->l2_entry_size, slice = round_down(byte, 1ull << q->slice_bits);
    *slice_offset = table + slice;
    *index = (uint32_t)((byte - slice) / q->l2_entry_size);
    return 0;
}

/* Space behind the end of a growing file reads as zeroes: its last sector is enough to make it part of the file. */
static int write_zero_table(struct qcow2 *q, uint64_t offset)
{
    struct node *file = q->file->child;
    uint64_t from = file->growable && offset >= file->size ? q->cluster_size - 512 : 0;
    uint64_t size = q->cluster_size - from;
    uint8_t *buffer = block_alloc_buffer(q->file, size);
    if (!buffer)
        return -ENOMEM;
    memset(buffer, 0, size);
    block_event(q->file, BLKDEBUG_EVENT_L2_ALLOC_WRITE);
    int result = block_write_buffer(q->file, offset + from, buffer, size, 0);
    free(buffer);
    return result;
}

static int copy_table(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint8_t *buffer = block_alloc_buffer(q->file, q->cluster_size);
    if (!buffer)
        return -ENOMEM;
    block_event(q->file, BLKDEBUG_EVENT_L2_ALLOC_COW_READ);
    int result = qcow2_read_file(q->file, from, buffer, q->cluster_size);
    block_event(q->file, BLKDEBUG_EVENT_L2_ALLOC_WRITE);
    if (!result)
        result = block_write_buffer(q->file, to, buffer, q->cluster_size, 0);
    free(buffer);
    return result;
}

/* A table of our own for an L1 entry: empty, or a copy of the one that is shared (`old` not 0). */
static int own_table(struct qcow2 *q, uint64_t index, uint64_t old)
{
    uint64_t table;
    int result = alloc_contiguous(q, 1, &table);
    if (result)
        return result;
    result = old ? copy_table(q, old, table) : write_zero_table(q, table);
    if (result) {
        (void)refcount_add(q, table, q->cluster_size, -1, NULL);
        return result;
    }
    cache_forget(&q->l2_cache, table, q->cluster_size);
    disk_table_set(&q->l1, (uint32_t)index, table | ENTRY_COPIED);
    overlap_add(q, OVERLAP_ACTIVE_L2, table);
    if (old) {
        cache_forget(&q->l2_cache, old, q->cluster_size);
        overlap_remove(q, OVERLAP_ACTIVE_L2, old);
        qcow2_free_later(q, old, q->cluster_size, FREE_OTHER);
    }
    return 0;
}

int l2_load_for_change(struct qcow2 *q, uint64_t offset, uint8_t **slice, uint64_t *slice_offset, uint32_t *index)
{
    uint64_t l1 = l1_index(q, offset);
    if (q->broken)
        return -EIO;
    if (l1 >= q->l1.count)
        return -EIO; /* resize sees to it that this cannot be */
    int result = log_begin_for_write(q);
    if (!result)
        result = l2_locate(q, offset, slice_offset, index);
    if (result)
        return result;
    uint64_t entry = q->l1.entries[l1];
    if (!*slice_offset || !(entry & ENTRY_COPIED)) {
        result = own_table(q, l1, entry & ENTRY_OFFSET);
        if (!result)
            result = l2_locate(q, offset, slice_offset, index);
    } else {
        result = overlap_check(q, entry & ENTRY_OFFSET, q->cluster_size, OVERLAP_ACTIVE_L2);
    }
    return result ? result : l2_load_locked(q, *slice_offset, slice);
}

/* The header names the table by place and size, in one sector. */
static int activate_l1(struct qcow2 *q, uint64_t offset, uint32_t count)
{
    int result = qcow2_barrier(q);
    if (result)
        return result;
    q->header.l1_offset = offset;
    q->header.l1_size = count;
    result = header_store(q);
    if (!result)
        result = qcow2_barrier(q);
    q->broken |= result != 0; /* nobody knows which of the two counts */
    return result;
}

int l1_grow(struct qcow2 *q, uint64_t entries)
{
    if (entries <= q->l1.count)
        return 0;
    if (entries > L1_BYTES_MAX / 8)
        return -EFBIG;
    /* The new table holds everything that memory holds: that must be on disk before. */
    int result = qcow2_sync_locked(q);
    if (result)
        return result;
    uint64_t old_room = cluster_end(q, (uint64_t)q->l1.count * 8), size = cluster_end(q, entries * 8);
    uint64_t offset = q->l1.offset;
    bool moves = size > old_room;
    block_event(q->file, BLKDEBUG_EVENT_L1_GROW_ALLOC_TABLE);
    if (moves)
        result = alloc_contiguous(q, size >> q->cluster_bits, &offset);
    struct disk_table table = {0};
    if (!result && !disk_table_init(&table, offset, (uint32_t)entries))
        result = -ENOMEM;
    if (result)
        return result;
    memcpy(table.entries, q->l1.entries, (size_t)q->l1.count * 8);
    if (moves)
        result = refcounts_write(q);
    block_event(q->file, BLKDEBUG_EVENT_L1_GROW_WRITE_TABLE);
    if (!result)
        result = disk_table_write_all(&table, q->file, size);
    block_event(q->file, BLKDEBUG_EVENT_L1_GROW_ACTIVATE_TABLE);
    if (!result)
        result = activate_l1(q, offset, (uint32_t)entries);
    if (result) {
        disk_table_release(&table);
        return result;
    }
    struct host_span old = {q->l1.offset, old_room};
    disk_table_release(&q->l1);
    q->l1 = table;
    overlap_build(q);
    if (moves && old.length)
        qcow2_free_later(q, old.offset, old.length, FREE_OTHER);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables that are in memory as a whole: the active L1 table and the refcount table. Both are arrays of offsets,
 * contiguous in the file. A change marks its 512-byte sector; sync.c decides when changed sectors may be written.
 */
#include "formats/qcow2/state.h"

#include <string.h>
#include "base/alloc.h"
#include "base/bitmap.h"
#include "base/cleanup.h"

enum { SECTOR = 512, SECTOR_ENTRIES = SECTOR / 8 };

bool disk_table_init(struct disk_table *table, uint64_t offset, uint32_t count)
{
    /* Whole sectors, so that one can be written without looking for the end. */
    size_t room = round_up((uint64_t)MAX(count, 1u), SECTOR_ENTRIES);
    *table = (struct disk_table){.entries = try_calloc(room, 8),
                                 .count = count,
                                 .offset = offset,
                                 .sectors = bitmap_try_new(room / SECTOR_ENTRIES)};
    if (table->entries && table->sectors)
        return true;
    disk_table_release(table);
    return false;
}

bool disk_table_load(struct disk_table *table, struct edge *file, uint64_t offset, uint32_t count, const char *what,
                     struct error *err)
{
    if (!disk_table_init(table, offset, count))
        return fail(err, ENOMEM, "out of memory for the %s of %u entries", what, count);
    int result = count ? qcow2_read_file(file, offset, table->entries, (size_t)count * 8) : 0;
    if (result) {
        disk_table_release(table);
        return fail_errno(err, result, "cannot read the %s at offset 0x%llx", what, (unsigned long long)offset);
    }
    for (uint32_t i = 0; i < count; i++)
        table->entries[i] = be64toh(table->entries[i]);
    return true;
}

void disk_table_release(struct disk_table *table)
{
    free(table->entries);
    free(table->sectors);
    *table = (struct disk_table){0};
}

void disk_table_set(struct disk_table *table, uint32_t index, uint64_t value)
{
    assert(index < table->count);
    table->entries[index] = value;
    bitmap_set_bit(table->sectors, index / SECTOR_ENTRIES);
    table->is_dirty = true;
}

int disk_table_write(struct disk_table *table, struct edge *file)
{
    if (!table->is_dirty)
        return 0;
    size_t sectors = DIV_ROUND_UP((size_t)table->count, SECTOR_ENTRIES);
    for (size_t s = bitmap_next_set(table->sectors, sectors, 0); s < sectors;
         s = bitmap_next_set(table->sectors, sectors, s + 1)) {
        uint8_t buffer[SECTOR];
        for (size_t i = 0; i < SECTOR_ENTRIES; i++)
            store_be64(buffer + i * 8, table->entries[s * SECTOR_ENTRIES + i]);
        int result = block_write_buffer(file, table->offset + s * SECTOR, buffer, SECTOR, 0);
        if (result)
            return result;
        bitmap_clear_bit(table->sectors, s);
    }
    table->is_dirty = false;
    return 0;
}

int disk_table_write_all(const struct disk_table *table, struct edge *file, uint64_t size)
{
    if (file->child->growable && table->offset >= file->child->size)
        size = round_up((uint64_t)table->count * 8, SECTOR); /* the rest was never written: zeroes */
    uint8_t *buffer = block_alloc_buffer(file, size);
    if (!buffer)
        return -ENOMEM;
    memset(buffer, 0, size);
    for (uint32_t i = 0; i < table->count; i++)
        store_be64(buffer + (size_t)i * 8, table->entries[i]);
    int result = block_write_buffer(file, table->offset, buffer, size, 0);
    free(buffer);
    return result;
}

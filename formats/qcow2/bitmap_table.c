/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where persistent bitmaps are, as the directory on disk says: a check counts their clusters as long as the image says
 * that they are valid.
 */
#include <inttypes.h>
#include "base/alloc.h"
#include "formats/qcow2/state.h"

bool bitmaps_valid(const struct qcow2 *q)
{
    return q->header.has_bitmaps && q->header.autoclear & AUTOCLEAR_BITMAPS;
}

typedef int visit_function(void *arg, uint64_t offset, uint64_t length);

static int visit_table(struct qcow2 *q, uint64_t offset, uint32_t entries, visit_function *visit, void *arg,
                       struct error *err)
{
    if (in_cluster(q, offset) || offset >= HOST_OFFSET_END || entries > BITMAP_TABLE_ENTRIES_MAX ||
        !span_fits(offset, (uint64_t)entries * 8, q->file->child->size)) {
        fail(err, EINVAL,
             "a bitmap table of %" PRIu32 " entries at 0x%" PRIx64
             " is not aligned to the cluster size, too large, or not inside the file",
             entries, offset);
        return -EINVAL;
    }
    struct disk_table table;
    if (!disk_table_load(&table, q->file, offset, entries, "bitmap table", err))
        return -EIO;
    int result = entries ? visit(arg, offset, (uint64_t)entries * 8) : 0;
    for (uint32_t i = 0; i < entries && !result; i++) {
        if (table.entries[i] & ENTRY_OFFSET)
            result = visit(arg, table.entries[i] & ENTRY_OFFSET, q->cluster_size);
    }
    disk_table_release(&table);
    return result;
}

static int bad_directory(struct error *err, uint32_t number)
{
    fail(err, EINVAL, "entry %" PRIu32 " of the bitmap directory does not end inside the directory", number);
    return -EINVAL;
}

int bitmap_table_visit(struct qcow2 *q, visit_function *visit, void *arg, struct error *err)
{
    if (!bitmaps_valid(q))
        return 0;
    uint64_t size = q->header.bitmap_directory_size;
    auto_free uint8_t *directory = try_calloc(1, size);
    if (!directory)
        return -ENOMEM;
    int result = qcow2_read_file(q->file, q->header.bitmap_directory_offset, directory, size);
    if (!result)
        result = visit(arg, q->header.bitmap_directory_offset, size);
    uint64_t at = 0;
    for (uint32_t number = 0; number < q->header.bitmap_count && !result; number++) {
        if (size - at < BITMAP_FIXED)
            return bad_directory(err, number);
        const uint8_t *entry = directory + at;
        uint64_t length =
            BITMAP_FIXED + (uint64_t)load_be32(entry + BITMAP_EXTRA_SIZE) + load_be16(entry + BITMAP_NAME_SIZE);
        if (length > size - at)
            return bad_directory(err, number);
        result = visit_table(q, load_be64(entry + BITMAP_TABLE_OFFSET), load_be32(entry + BITMAP_TABLE_SIZE), visit,
                             arg, err);
        at = MIN(round_up(at + length, 8), size);
    }
    return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The image as a whole: geometry, loading and finishing its metadata, barriers, and what happens when something is
 * found broken. */
#include "formats/qcow2/bitmap_store.h"
#include "formats/qcow2/claim.h"
#include "formats/qcow2/encryption.h"
#include "formats/qcow2/live.h"
#include "formats/qcow2/state.h"
#include "formats/qcow2/write_log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"

int qcow2_read_file(struct edge *file, uint64_t offset, void *buffer, size_t length)
{
    uint64_t size = file->child->size;
    size_t there = offset >= size ? 0 : (size_t)MIN((uint64_t)length, size - offset);
    memset((char *)buffer + there, 0, length - there);
    return there ? block_read_buffer(file, offset, buffer, there) : 0;
}

int qcow2_barrier(struct qcow2 *q)
{
    if (q->is_new)
        return 0;
    uint64_t map_writes = q->map_writes;
    int result = q->data != q->file ? block_flush(q->data) : 0;
    if (!result)
        result = block_flush(q->file);
    if (!result)
        q->map_flushed = MAX(q->map_flushed, map_writes);
    return result;
}

/* The corrupt bit goes to disk right away. Nothing else is written any more, so that what is there can be saved. */
static void mark_corrupt(struct qcow2 *q)
{
    q->broken = true;
    if (!q->writable || q->header.version < 3)
        return;
    int result = header_set_incompatible(q, INCOMPATIBLE_CORRUPT, true);
    if (result)
        log_warning("cannot mark image '%s' as corrupt: %s", q->file->child->filename ? q->file->child->filename : "",
                    strerror(-result));
}

int qcow2_corrupt(struct qcow2 *q, uint64_t offset, uint64_t size, const char *format, ...)
{
    if (q->broken)
        return -EIO;
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    if (q->writable)
        mark_corrupt(q);
    if (q->node)
        node_report_corruption(q->node, q->writable, offset, size, "%s", text);
    return -EIO;
}

bool qcow2_set_geometry(struct qcow2 *q, struct error *err)
{
    const struct header *h = &q->header;
    q->cluster_bits = h->cluster_bits;
    q->cluster_size = 1ull << h->cluster_bits;
    q->extended_l2 = h->incompatible & INCOMPATIBLE_EXTENDED_L2;
    q->external_data = h->incompatible & INCOMPATIBLE_DATA_FILE;
    /* An encrypted file does not read as the disk does, whatever the bit says. */
    q->raw_data = h->autoclear & AUTOCLEAR_RAW_DATA && !is_encrypted(q);
    q->l2_entry_size = q->extended_l2 ? 16 : 8;
    q->l2_bits = q->cluster_bits - (q->extended_l2 ? 4 : 3);
    q->subclusters = q->extended_l2 ? SUBCLUSTERS : 1;
    q->subcluster_bits = q->cluster_bits - (q->extended_l2 ? 5 : 0);
    q->refblock_bits = q->cluster_bits + 3 - h->refcount_order;
    q->refcount_max = h->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << h->refcount_order)) - 1;
    q->size = h->size;
    return true;
}

static bool load_tables(struct qcow2 *q, struct error *err)
{
    const struct header *h = &q->header;
    uint64_t file_size = q->file->child->size;
    if (!span_fits(h->l1_offset, (uint64_t)h->l1_size * 8, file_size) || (h->l1_size && !h->l1_offset))
        return fail(err, EINVAL,
                    "the L1 table of %" PRIu32 " entries at l1_table_offset 0x%" PRIx64
                    " does not lie behind the header and inside the file of %" PRIu64 " bytes",
                    h->l1_size, h->l1_offset, file_size);
    uint64_t reftable_bytes = (uint64_t)h->reftable_clusters << q->cluster_bits;
    if (!h->reftable_offset || h->reftable_offset >= file_size)
        return fail(err, EINVAL,
                    "the refcount table at refcount_table_offset 0x%" PRIx64
                    " does not lie behind the header and inside the file of %" PRIu64 " bytes",
                    h->reftable_offset, file_size);
    if (!disk_table_load(&q->l1, q->file, h->l1_offset, h->l1_size, "L1 table", err))
        return false;
    block_event(q->file, BLKDEBUG_EVENT_REFTABLE_LOAD);
    return disk_table_load(&q->reftable, q->file, h->reftable_offset, (uint32_t)(reftable_bytes / 8), "refcount table",
                           err);
}

bool qcow2_load(struct qcow2 *q, struct error *err)
{
    co_mutex_init(&q->lock);
    list_init(&q->claims);
    list_init(&q->spare_claims);
    if (!qcow2_set_geometry(q, err) || !options_apply(q, err) || !load_tables(q, err) || !snapshot_table_load(q, err))
        return false;
    overlap_build(q);
    if (q->overlap_types & OVERLAP_INACTIVE_L2 && !overlap_load_inactive(q, err))
        return false;
    if (!codec_cache_init(q))
        return fail(err, ENOMEM, "out of memory for compressed clusters");
    return true;
}

bool qcow2_reload(struct qcow2 *q, struct error *err)
{
    live_restart(q);
    cache_forget_all(&q->l2_cache);
    cache_forget_all(&q->refcount_cache);
    disk_table_release(&q->l1);
    disk_table_release(&q->reftable);
    overlap_release(q);
    vec_clear(&q->frees);
    q->compressed_tail = q->free_hint = 0;
    q->refblocks_shared = false;
    if (!load_tables(q, err))
        return false;
    overlap_build(q);
    return true;
}

void qcow2_unload(struct qcow2 *q)
{
    loop_timer_cancel(&q->clean_timer);
    log_release(q);
    if (q->codec)
        codec_cache_release(q);
    cache_destroy(&q->l2_cache);
    cache_destroy(&q->refcount_cache);
    disk_table_release(&q->l1);
    disk_table_release(&q->reftable);
    snapshot_table_release(q);
    bitmaps_release(q);
    overlap_release(q);
    encryption_release(q);
    vec_free(&q->frees);
    if (q->spare_claims.next)
        claims_destroy(q);
    header_release(&q->header);
}

int qcow2_finish(struct qcow2 *q)
{
    if (!q->writable || q->broken)
        return 0;
    int result = qcow2_sync(q);
    co_mutex_lock(&q->lock);
    if (!result)
        result = refcounts_write(q);
    if (!result && q->header.incompatible & INCOMPATIBLE_DIRTY && !q->keeps_dirty_mark) {
        result = qcow2_barrier(q);
        if (!result)
            result = header_set_incompatible(q, INCOMPATIBLE_DIRTY, false);
    }
    co_mutex_unlock(&q->lock);
    return result;
}

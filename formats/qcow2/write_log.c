/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes that were answered survive the end of the process.
 *
 * A guest's write may be answered long before it is flushed; power failing may lose it, but a killed daemon, restarted
 * under a running guest, must not. The data is safe then: it is in the page cache, or on the disk. What an allocating
 * write changes in L2 tables and refcounts is in our memory, and may not be written yet: those writes wait for a
 * barrier (sync.c), and that barrier for a flush.
 *
 * So before an allocating write (zero, discard) is answered, a record of the change goes to a log in the image file:
 * "guest clusters 17 to 20 have these entries". It is an ordinary write, without a flush: it survives in the page
 * cache, like the data. Requests that are under way together share one. After the next sync the L2 tables hold
 * everything, and the log begins anew.
 *
 * Who reads it. After a power cut the log must not be believed: its sectors may have reached the disk before the data
 * and counts they speak of. So every sector carries the machine's boot ID: under the same one, nothing that was written
 * is lost, the order of flushes does not matter, and the log is replayed; under another one it is thrown away, and the
 * image is what the last sync made it. And an autoclear bit of the header vouches for the log: a program that does not
 * know it clears the bit before it writes, so a log never meets an image that somebody else has changed.
 *
 *     header --extension--> | sector 0: epoch 7 | sector 1: epoch 7 | sector 2: epoch 6 | ... | dirty regions |
 *                             entries             entries             old: ends here
 *
 * Replay takes the last entry of each guest cluster, drops those that the tables have already, marks their clusters as
 * used, and then links them. Counts of clusters that the dead process had queued to be freed stay too high: leaks.
 * A kill in the middle of a sync leaves tables that are newer than the log in part: a cluster may go back to its state
 * of the last answered write, whose place is still counted, because frees wait until the log has begun anew.
 *
 * The area's refcounts are 0: to other programs it is free, and a crash leaves no leak; our allocator goes around it.
 *
 * Version 2 images (which have no autoclear bits), files whose flushes are ignored (cache=unsafe), and headers without
 * room have no log. Programs that serve nobody (graph_set_private: the image tools) begin one only for dirty bitmaps:
 * what they did not flush may go with them. By strace, one write of 64 KiB into a new image, and the end, are 5 writes
 * and 2 flushes there, 11 writes and 6 flushes in a server.
 */
#include "formats/qcow2/write_log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "formats/qcow2/entry.h"

enum { LOG_BYTES = 64 << 10, RUN_ADVANCES = 1 };
enum { CHANGES_MAX = 1 << 20 }; /* clusters that a log may speak of: what a replay holds in memory */

/* A sector of the log; numbers are big-endian like everything in the file. */
enum {
    SECTOR_MAGIC = 0,
    SECTOR_BOOT_ID = 8,
    SECTOR_EPOCH = 24,
    SECTOR_INDEX = 32,
    SECTOR_COUNT = 36,
    SECTOR_CHECKSUM = 40,
    SECTOR_ENTRIES = 48,
    RUN_CLUSTER = 0,
    RUN_DESCRIPTOR = 8,
    RUN_BITMAP = 16,
    RUN_COUNT = 24,
    RUN_FLAGS = 28,
    RUN_SIZE = 32,
};
#define LOG_MAGIC 0x73706c6f67726563ull /* "splogrec" */

static uint32_t runs_of_sector(const struct qcow2 *q)
{
    return (q->log.sector_size - SECTOR_ENTRIES) / RUN_SIZE;
}

static uint32_t checksum(const uint8_t *sector, uint32_t size)
{
    uint8_t zero[4] = {0};
    uLong sum = crc32(0, sector, SECTOR_CHECKSUM);
    sum = crc32(sum, zero, sizeof zero);
    return (uint32_t)crc32(sum, sector + SECTOR_CHECKSUM + 4, size - SECTOR_CHECKSUM - 4);
}

static bool boot_id_is_known(const struct qcow2 *q)
{
    static const uint8_t unknown[LOOP_BOOT_ID_SIZE];
    return memcmp(loop_boot_id(q->node->loop), unknown, sizeof unknown) != 0;
}

/* Life ------------------------------------------------------------------------------------------------------------- */

void log_init(struct qcow2 *q)
{
    uint32_t alignment = MAX(q->file->child->limits.request_alignment, 512u);
    q->log.sector_size = alignment;
    q->log.wanted = q->node && q->header.version >= 3 && !q->file->child->no_flush && alignment <= 4096 &&
                    q->cluster_size >= alignment && boot_id_is_known(q);
    q->log.for_bitmaps_only = q->node && graph_is_private(q->node->graph);
    co_queue_init(&q->log.waiters);
    co_queue_init(&q->dirty.waiters);
}

static uint8_t *sector_at(const struct qcow2 *q, uint32_t index)
{
    return q->log.buffer + (size_t)index * q->log.sector_size;
}

static void begin_sector(struct qcow2 *q, uint32_t index)
{
    uint8_t *sector = sector_at(q, index);
    memset(sector, 0, q->log.sector_size);
    store_be64(sector + SECTOR_MAGIC, LOG_MAGIC);
    memcpy(sector + SECTOR_BOOT_ID, loop_boot_id(q->node->loop), LOOP_BOOT_ID_SIZE);
    store_be64(sector + SECTOR_EPOCH, q->log.epoch);
    store_be32(sector + SECTOR_INDEX, index);
    q->log.used = index + 1;
    q->log.runs = 0;
}

static void begin_epoch(struct qcow2 *q)
{
    q->log.epoch++;
    q->log.first_unwritten = 0;
    q->log.overflows = false;
    q->log.clusters = 0;
    q->log.is_written = false;
    begin_sector(q, 0);
}

static int write_sectors(struct qcow2 *q, uint32_t first, uint32_t end)
{
    size_t size = (size_t)(end - first) * q->log.sector_size;
    memcpy(q->log.bounce, sector_at(q, first), size); /* more is noted while this is under way */
    for (uint32_t i = first; i < end; i++) {
        uint8_t *sector = q->log.bounce + (size_t)(i - first) * q->log.sector_size;
        store_be32(sector + SECTOR_CHECKSUM, checksum(sector, q->log.sector_size));
    }
    return block_write_buffer(q->file, q->log.offset + (uint64_t)first * q->log.sector_size, q->log.bounce, size, 0);
}

void log_release(struct qcow2 *q)
{
    free(TAKE(q->log.buffer));
    free(TAKE(q->log.bounce));
    q->log.active = false;
    vec_free(&q->recovery);
    dirty_log_release(q);
}

static bool allocate_buffers(struct qcow2 *q)
{
    free(q->log.buffer); /* of the time before the image was read-only for a while */
    free(q->log.bounce);
    q->log.buffer = block_alloc_buffer(q->file, LOG_BYTES);
    q->log.bounce = block_alloc_buffer(q->file, MAX(LOG_BYTES, DIRTY_MAP_BYTES));
    if (q->log.buffer && q->log.bounce)
        return true;
    free(TAKE(q->log.buffer));
    free(TAKE(q->log.bounce));
    return false;
}

/* Finds room and leaves its counts at 0: memory knows that it is taken (log_holds), and if we die, others may have it.
 */
static int find_room(struct qcow2 *q, uint64_t room, uint64_t *offset)
{
    int result = alloc_contiguous(q, room >> q->cluster_bits, offset);
    for (uint64_t at = 0; at < room && !result; at += q->cluster_size)
        result = refcount_set(q, cluster_index(q, *offset + at), 0);
    return result;
}

/* A new area, empty and named by the header. The header is written behind a barrier, and has one behind it. */
static int make_area(struct qcow2 *q)
{
    uint64_t room = cluster_end(q, LOG_BYTES + DIRTY_MAP_BYTES), offset;
    int result = find_room(q, room, &offset);
    if (result)
        return result;
    q->log.offset = offset;
    q->log.sectors = LOG_BYTES / q->log.sector_size;
    memset(q->log.buffer, 0, LOG_BYTES);
    begin_epoch(q);
    result = write_sectors(q, 0, q->log.sectors);
    memset(q->log.bounce, 0, DIRTY_MAP_BYTES);
    if (!result)
        result = block_write_buffer(q->file, offset + LOG_BYTES, q->log.bounce, DIRTY_MAP_BYTES, 0);
    /* The area may reach over refcount blocks that are new and lie in unusual places: a replay must find them there,
     * and make none inside the area. */
    if (!result)
        result = refcounts_write(q);
    if (!result)
        result = qcow2_barrier(q);
    if (result)
        return result;
    struct header now = q->header;
    now.log_offset = offset;
    now.log_size = room;
    now.log_region_bits = dirty_log_region_bits(q->size);
    now.autoclear |= AUTOCLEAR_WRITE_LOG;
    auto_error err = {0};
    if (!header_rewrite(q, &now, &err)) {
        /* No room in the header: no log, and nothing is lost by that. (A header that cannot be written will be noticed
         * by others.) */
        return err.code == ENOSPC || err.code == ENOTSUP || err.code == EINVAL ? -ENOTSUP : -err.code;
    }
    q->header = now;
    return 0;
}

int log_begin(struct qcow2 *q)
{
    if (likely(q->log.active) || !q->log.wanted)
        return 0;
    if (!allocate_buffers(q))
        return -ENOMEM;
    int result = make_area(q);
    q->log.active = !result;
    if (!result)
        dirty_log_begin(q);
    else
        q->log.wanted = false;
    return result == -ENOTSUP ? 0 : result;
}

bool log_drop(struct qcow2 *q, struct error *err)
{
    if (!q->header.log_offset)
        return true;
    uint64_t offset = q->header.log_offset, size = q->header.log_size;
    struct header now = q->header;
    now.log_offset = now.log_size = 0;
    now.autoclear &= ~AUTOCLEAR_WRITE_LOG;
    co_mutex_lock(&q->lock);
    bool ok = header_rewrite(q, &now, err);
    if (ok) {
        q->header = now;
        q->log.active = false;
        q->free_hint = MIN(q->free_hint, cluster_index(q, offset));
        uint64_t end = q->file->child->size;
        if (offset < end)
            (void)block_discard(q->file, offset, MIN(size, end - offset));
    }
    co_mutex_unlock(&q->lock);
    return ok;
}

/* Noting ----------------------------------------------------------------------------------------------------------- */

static bool extends_last(const struct qcow2 *q, const uint8_t *run, uint64_t cluster, struct l2_entry entry,
                         bool advances)
{
    uint32_t count = load_be32(run + RUN_COUNT), flags = load_be32(run + RUN_FLAGS);
    uint64_t descriptor = load_be64(run + RUN_DESCRIPTOR);
    bool is_single = count == 1;
    if (load_be64(run + RUN_CLUSTER) + count != cluster || load_be64(run + RUN_BITMAP) != entry.bitmap ||
        count > UINT32_MAX / 2)
        return false;
    if (advances)
        return (flags & RUN_ADVANCES || is_single) &&
               descriptor + ((uint64_t)count << q->cluster_bits) == entry.descriptor;
    return (!(flags & RUN_ADVANCES) || is_single) && descriptor == entry.descriptor;
}

void log_note(struct qcow2 *q, uint64_t cluster, struct l2_entry entry, uint32_t count, bool advances)
{
    struct write_log *log = &q->log;
    if (!log->active || log->overflows)
        return;
    uint8_t *sector = sector_at(q, log->used - 1);
    uint8_t *last = sector + SECTOR_ENTRIES + (size_t)(log->runs ? log->runs - 1 : 0) * RUN_SIZE;
    log->appended++;
    log->clusters += count;
    if (log->clusters > CHANGES_MAX) {
        log->overflows = true;
        return;
    }
    log->first_unwritten = MIN(log->first_unwritten, log->used - 1);
    if (log->runs && extends_last(q, last, cluster, entry, advances)) {
        store_be32(last + RUN_COUNT, load_be32(last + RUN_COUNT) + count);
        store_be32(last + RUN_FLAGS, advances ? RUN_ADVANCES : 0);
        return;
    }
    if (log->runs == runs_of_sector(q)) {
        if (log->used == log->sectors) {
            log->overflows = true;
            return;
        }
        begin_sector(q, log->used);
        sector = sector_at(q, log->used - 1);
    }
    uint8_t *run = sector + SECTOR_ENTRIES + (size_t)log->runs++ * RUN_SIZE;
    store_be64(run + RUN_CLUSTER, cluster);
    store_be64(run + RUN_DESCRIPTOR, entry.descriptor);
    store_be64(run + RUN_BITMAP, entry.bitmap);
    store_be32(run + RUN_COUNT, count);
    store_be32(run + RUN_FLAGS, advances ? RUN_ADVANCES : 0);
    store_be32(sector + SECTOR_COUNT, log->runs);
}

int log_settle(struct qcow2 *q, uint64_t *ticket)
{
    *ticket = q->log.appended;
    return unlikely(q->log.overflows) ? qcow2_sync_locked(q) : 0;
}

int log_wait(struct qcow2 *q, uint64_t ticket)
{
    struct write_log *log = &q->log;
    while (log->active && log->written < ticket) {
        if (log->writing) {
            co_queue_wait_uncancellable(&log->waiters);
            continue;
        }
        uint64_t covers = log->appended, epoch = log->epoch;
        uint32_t first = log->first_unwritten, end = log->used;
        log->first_unwritten = end;
        log->writing = log->is_written = true;
        int result = write_sectors(q, first, end);
        log->writing = false;
        if (log->epoch == epoch) {
            if (!result)
                log->written = MAX(log->written, covers);
            else
                log->first_unwritten = MIN(log->first_unwritten, first);
        }
        co_queue_wake_all(&log->waiters);
        if (result)
            return result;
    }
    return 0;
}

int log_reset(struct qcow2 *q)
{
    struct write_log *log = &q->log;
    if (!log->active || (log->used == 1 && !log->runs && !log->overflows))
        return 0;
    while (log->writing)
        co_queue_wait_uncancellable(&log->waiters);
    bool must_write = log->is_written;
    begin_epoch(q);
    int result = 0;
    if (must_write) {
        log->writing = true;
        result = write_sectors(q, 0, 1);
        log->writing = false;
    }
    /* Not before: as long as the old epoch can be replayed, it would undo what only the tables know. */
    if (!result) {
        log->written = log->appended;
        log->first_unwritten = must_write ? 1 : 0;
    }
    co_queue_wake_all(&log->waiters);
    return result;
}

/* Reading ---------------------------------------------------------------------------------------------------------- */

bool log_is_valid(const struct qcow2 *q)
{
    return q->header.log_offset && q->header.autoclear & AUTOCLEAR_WRITE_LOG;
}

static bool sector_is_good(const struct qcow2 *q, const uint8_t *sector, uint32_t size, uint32_t index)
{
    return load_be64(sector + SECTOR_MAGIC) == LOG_MAGIC &&
           !memcmp(sector + SECTOR_BOOT_ID, loop_boot_id(q->node->loop), LOOP_BOOT_ID_SIZE) &&
           load_be32(sector + SECTOR_INDEX) == index &&
           load_be32(sector + SECTOR_COUNT) <= (size - SECTOR_ENTRIES) / RUN_SIZE &&
           load_be32(sector + SECTOR_CHECKSUM) == checksum(sector, size);
}

/* Entries behind the disk's end are of a resize that did not come to its end. */
static void take_run(struct qcow2 *q, const uint8_t *run)
{
    uint64_t cluster = load_be64(run + RUN_CLUSTER), clusters = DIV_ROUND_UP(q->size, q->cluster_size);
    uint32_t count = load_be32(run + RUN_COUNT);
    if (q->recovery.count + count > CHANGES_MAX)
        return; /* not written by us */
    count = cluster < clusters ? (uint32_t)MIN((uint64_t)count, clusters - cluster) : 0;
    struct l2_entry entry = {load_be64(run + RUN_DESCRIPTOR), load_be64(run + RUN_BITMAP)};
    for (uint32_t i = 0; i < count; i++) {
        vec_push(&q->recovery,
                 ((struct log_change){.cluster = cluster + i, .order = q->recovery.count, .entry = entry}));
        if (load_be32(run + RUN_FLAGS) & RUN_ADVANCES)
            entry.descriptor += q->cluster_size;
    }
}

static void take_sectors(struct qcow2 *q, const uint8_t *area, uint32_t size)
{
    uint64_t epoch = load_be64(area + SECTOR_EPOCH);
    for (uint32_t i = 0; i < LOG_BYTES / size; i++) {
        const uint8_t *sector = area + (size_t)i * size;
        if (!sector_is_good(q, sector, size, i) || load_be64(sector + SECTOR_EPOCH) != epoch)
            break;
        for (uint32_t r = 0; r < load_be32(sector + SECTOR_COUNT); r++)
            take_run(q, sector + SECTOR_ENTRIES + (size_t)r * RUN_SIZE);
    }
}

static int compare_changes(const void *a, const void *b)
{
    const struct log_change *x = a, *y = b;
    if (x->cluster != y->cluster)
        return x->cluster < y->cluster ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int entry_on_disk(struct qcow2 *q, uint64_t cluster, struct l2_entry *entry)
{
    uint64_t slice_offset;
    uint32_t index;
    uint8_t *slice;
    *entry = (struct l2_entry){0};
    int result = l2_locate(q, cluster << q->cluster_bits, &slice_offset, &index);
    if (!result && slice_offset) {
        result = l2_load(q, slice_offset, &slice);
        if (!result)
            *entry = l2_get(q, slice, index);
    }
    return result;
}

static bool same_place(const struct qcow2 *q, uint64_t cluster, struct l2_entry a, struct l2_entry b)
{
    struct mapping x, y;
    uint64_t guest = cluster << q->cluster_bits;
    return !mapping_decode(q, a, guest, &x) && !mapping_decode(q, b, guest, &y) && x.has_host && y.has_host &&
           x.host == y.host;
}

/* The last change of each cluster, unless the tables have it. */
static int keep_last(struct qcow2 *q)
{
    size_t kept = 0, count = q->recovery.count;
    struct log_change *items = q->recovery.items;
    if (count)
        qsort(items, count, sizeof *items, compare_changes);
    for (size_t i = 0; i < count; i++) {
        if (i + 1 < count && items[i + 1].cluster == items[i].cluster)
            continue;
        struct l2_entry entry;
        int result = entry_on_disk(q, items[i].cluster, &entry);
        if (result)
            return result;
        if (entry.descriptor == items[i].entry.descriptor && entry.bitmap == items[i].entry.bitmap)
            continue;
        items[kept] = items[i];
        items[kept++].stays = same_place(q, items[i].cluster, entry, items[i].entry);
    }
    q->recovery.count = kept;
    return 0;
}

bool log_load(struct qcow2 *q, struct error *err)
{
    if (!log_is_valid(q))
        return true;
    auto_free uint8_t *area = block_alloc_buffer(q->file, LOG_BYTES);
    if (!area)
        return fail(err, ENOMEM, "out of memory for the write log");
    int result = qcow2_read_file(q->file, q->header.log_offset, area, LOG_BYTES);
    if (result)
        return fail_errno(err, result, "cannot read the write log");
    /* Sectors are as large as those of the file were when the log was made. */
    uint32_t size = 512;
    while (size < 4096 && !sector_is_good(q, area, size, 0))
        size *= 2;
    if (!sector_is_good(q, area, size, 0))
        return true; /* of another life of this machine, or of another machine */
    take_sectors(q, area, size);
    result = keep_last(q);
    return !result || fail_errno(err, result, "cannot compare the write log with the L2 tables");
}

/* Replaying -------------------------------------------------------------------------------------------------------- */

static struct host_span span_of(const struct qcow2 *q, const struct log_change *change, const struct mapping *m)
{
    if (m->compressed)
        return compressed_span(q, change->entry.descriptor);
    return m->has_host && !q->external_data ? (struct host_span){m->host, q->cluster_size} : (struct host_span){0, 0};
}

/* Nobody else may take the clusters of the changes: their counts may never have been written. */
static int mark_used(struct qcow2 *q, const struct log_change *change, const struct mapping *m)
{
    struct host_span span = span_of(q, change, m);
    if (!span.length)
        return 0;
    int result = overlap_check(q, span.offset, span.length, 0);
    for (uint64_t i = cluster_index(q, span.offset); !result && i <= cluster_index(q, span.offset + span.length - 1);
         i++) {
        uint64_t count;
        uint8_t *block;
        result = refblock_load_or_create(q, i, &block);
        if (!result)
            result = refcount_get(q, i, &count);
        if (result)
            return result;
        /* COPIED says 1; the count on disk may be of the cluster's life before this one. How many compressed clusters
         * share one is not known: too high is a leak. */
        uint64_t now = m->copied ? 1 : m->compressed ? MIN(count + 1, q->refcount_max) : MAX(count, 1ull);
        if (now != count)
            result = refcount_set(q, i, now);
    }
    return result;
}

static int decode(struct qcow2 *q, const struct log_change *change, struct mapping *m)
{
    const char *problem = mapping_decode(q, change->entry, change->cluster << q->cluster_bits, m);
    if (!problem)
        return 0;
    log_error("the write log gives guest offset 0x%" PRIx64 " %s", change->cluster << q->cluster_bits, problem);
    return -EINVAL;
}

static int link_change(struct qcow2 *q, const struct log_change *change)
{
    uint8_t *slice;
    uint64_t slice_offset;
    uint32_t index;
    struct mapping old, now;
    int result = decode(q, change, &now);
    if (!result)
        result = l2_load_for_change(q, change->cluster << q->cluster_bits, &slice, &slice_offset, &index);
    if (result)
        return result;
    struct l2_entry entry = l2_get(q, slice, index);
    bool bad = mapping_decode(q, entry, change->cluster << q->cluster_bits, &old) != NULL;
    bool stays = old.has_host && now.has_host && old.host == now.host;
    if (!bad && !stays)
        mapping_free_later(q, entry, &old, FREE_OTHER);
    l2_put(q, slice, index, change->entry);
    cache_mark_dirty(&q->l2_cache, slice_offset);
    return qcow2_relieve(q);
}

bool log_replay(struct qcow2 *q, bool counted, struct error *err)
{
    if (!q->recovery.count)
        return true;
    co_mutex_lock(&q->lock);
    int result = qcow2_begin_changes(q);
    for (size_t i = 0; i < q->recovery.count && !result && !counted; i++) {
        struct mapping m;
        result = decode(q, &q->recovery.items[i], &m);
        if (!result)
            result = mark_used(q, &q->recovery.items[i], &m);
    }
    q->free_hint = 0;
    for (size_t i = 0; i < q->recovery.count && !result; i++)
        result = link_change(q, &q->recovery.items[i]);
    if (!result)
        result = qcow2_sync_locked(q);
    if (!result)
        result = refcounts_write(q);
    if (!result)
        result = qcow2_barrier(q);
    co_mutex_unlock(&q->lock);
    if (result)
        return fail_errno(err, result, "cannot do the changes of the write log again");
    log_info("node '%s': %zu changes of a program that was killed are done again", q->node->name, q->recovery.count);
    vec_free(&q->recovery);
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps that survive a crash.
 *
 * A bitmap in memory is right, the one on disk is as old as the last time it was stored. What lies between must not be
 * lost, or an incremental backup would miss a write that reached the disk, flushed or not. So next to the write log
 * there is a map of coarse *regions* (up to 32768 of them, 64 KiB or more each) with one bit for every region that was
 * written to since the bitmaps were stored. The bit of a region is on stable storage before the first write to it
 * begins; the writes that follow, to the same region, cost nothing. Requests that wait for bits at the same time share
 * one durable write of 4 KiB.
 *
 *     dirty after a crash  =  bits as stored  or  whole regions of the map
 *
 * which is never too little, and too much by the size of regions only. From time to time, with a flush of the guest,
 * the bitmaps are stored (still marked as in use) and the map begins anew with what was written meanwhile.
 *
 *     bit of the region            -> write to the region
 *     bitmaps stored, with barrier -> fewer bits in the map
 *
 * Bits on disk need no order among themselves: clusters of bits are overwritten in place, old or new is right as long
 * as the map has not changed. For other programs all of this is invisible: they see bitmaps in use.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/dirty_bitmap.h"
#include "formats/qcow2/bitmap_store.h"
#include "formats/qcow2/write_log.h"

enum { REGIONS = DIRTY_MAP_BYTES * 8, REGION_BITS_LEAST = 16, LOG_BYTES = 64 << 10 };
enum { CHECKPOINT_REGIONS = 64 }; /* fewer in the map are not worth storing bitmaps for */
#define CHECKPOINT_INTERVAL_NS (10ull * 1000000000)

uint32_t dirty_log_region_bits(uint64_t size)
{
    uint32_t bits = REGION_BITS_LEAST;
    while (size >> bits >= REGIONS)
        bits++;
    return bits;
}

/* A disk that has grown since: the last region is all of the rest. */
static uint32_t region_of(const struct qcow2 *q, uint64_t offset)
{
    return (uint32_t)MIN(offset >> q->header.log_region_bits, (uint64_t)REGIONS - 1);
}

void dirty_log_begin(struct qcow2 *q)
{
    struct dirty_log *dirty = &q->dirty;
    free(dirty->wanted);
    free(dirty->durable);
    free(dirty->recent);
    dirty->wanted = bitmap_new(REGIONS);
    dirty->durable = bitmap_new(REGIONS);
    dirty->recent = bitmap_new(REGIONS);
    dirty->count = 0;
    dirty->stored_ns = loop_now_ns(q->node->loop);
}

void dirty_log_release(struct qcow2 *q)
{
    free(TAKE(q->dirty.wanted));
    free(TAKE(q->dirty.durable));
    free(TAKE(q->dirty.recent));
}

/* Words are stored in little-endian order, so that a bit has its place in a sector. */
static int write_map(struct qcow2 *q, const uint64_t *map)
{
    auto_free uint8_t *buffer = block_alloc_buffer(q->file, DIRTY_MAP_BYTES);
    if (!buffer)
        return -ENOMEM;
    for (uint32_t i = 0; i < REGIONS / 64; i++)
        store_le64(buffer + i * 8, map[i]);
    return block_write_buffer(q->file, q->header.log_offset + LOG_BYTES, buffer, DIRTY_MAP_BYTES, REQUEST_FUA);
}

/* Is there a bitmap whose losses would matter, and does the image know of all of them as they are? */
static bool is_needed(const struct qcow2 *q, bool *is_known)
{
    bool needed = false;
    *is_known = q->bitmaps_in_use;
    const struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &q->node->bitmaps, link) {
        if (!bitmap->persistent || bitmap->inconsistent)
            continue;
        needed |= bitmap->recording;
        const struct stored_bitmap *s = bitmap->stored;
        *is_known &= s && !(s->flags & BITMAP_AUTO) == !bitmap->recording;
    }
    return needed;
}

/* New bitmaps, and those that were switched on or off, are in the directory before the next write. */
static int register_bitmaps(struct qcow2 *q)
{
    co_mutex_lock(&q->lock);
    bool is_known;
    int result = q->writable && !q->broken ? log_begin(q) : -EIO;
    if (!result && is_needed(q, &is_known) && !is_known) /* somebody else may have been here first */
        result = bitmaps_store_locked(q, false);
    co_mutex_unlock(&q->lock);
    return result;
}

static bool is_durable(const struct qcow2 *q, uint32_t first, uint32_t last)
{
    return bitmap_is_set(q->dirty.durable, first, last - first + 1);
}

/* Puts bits into the map on disk; one writer at a time, for all who wait. */
static int make_durable(struct qcow2 *q, uint32_t first, uint32_t last)
{
    struct dirty_log *dirty = &q->dirty;
    bitmap_set(dirty->wanted, first, last - first + 1);
    while (!is_durable(q, first, last)) {
        if (dirty->writing) {
            co_queue_wait_uncancellable(&dirty->waiters);
            continue;
        }
        bitmap_set(dirty->wanted, first, last - first + 1);
        auto_free uint64_t *map = bitmap_new(REGIONS);
        memcpy(map, dirty->wanted, DIRTY_MAP_BYTES);
        dirty->writing = true;
        int result = write_map(q, map);
        dirty->writing = false;
        if (!result) {
            bitmap_or(dirty->durable, map, REGIONS);
            dirty->count = bitmap_count(dirty->durable, 0, REGIONS);
        }
        co_queue_wake_all(&dirty->waiters);
        if (result)
            return result;
    }
    return 0;
}

int dirty_log_cover_slowly(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    bool is_known;
    if (!length || !is_needed(q, &is_known))
        return 0;
    if (unlikely(!is_known || (!q->log.active && q->log.wanted))) {
        int result = register_bitmaps(q);
        if (result)
            return result;
    }
    if (!q->log.active)
        return 0; /* then a crash makes them inconsistent, as everywhere else */
    uint32_t first = region_of(q, offset), last = region_of(q, offset + length - 1);
    bitmap_set(q->dirty.recent, first, last - first + 1);
    return likely(is_durable(q, first, last)) ? 0 : make_durable(q, first, last);
}

/* The map becomes what was written since the bitmaps began to be stored. */
static int shrink_map(struct qcow2 *q)
{
    struct dirty_log *dirty = &q->dirty;
    while (dirty->writing)
        co_queue_wait_uncancellable(&dirty->waiters);
    auto_free uint64_t *map = bitmap_new(REGIONS);
    memcpy(map, dirty->recent, DIRTY_MAP_BYTES);
    memcpy(dirty->wanted, map, DIRTY_MAP_BYTES);
    memcpy(dirty->durable, map, DIRTY_MAP_BYTES); /* others are asked for again, behind this write */
    dirty->writing = true;
    int result = write_map(q, map);
    dirty->writing = false;
    dirty->count = bitmap_count(dirty->durable, 0, REGIONS);
    dirty->stored_ns = loop_now_ns(q->node->loop);
    co_queue_wake_all(&dirty->waiters);
    return result;
}

static bool is_time(struct qcow2 *q)
{
    return q->dirty.count >= CHECKPOINT_REGIONS &&
           loop_now_ns(q->node->loop) - q->dirty.stored_ns > CHECKPOINT_INTERVAL_NS;
}

int dirty_log_checkpoint(struct qcow2 *q, bool now)
{
    bool is_known;
    if (!q->node || list_empty(&q->node->bitmaps) || !q->writable || q->broken)
        return 0;
    bool needed = is_needed(q, &is_known);
    if (!now && (!needed || is_known) && !(q->log.active && needed && is_time(q)))
        return 0;
    co_mutex_lock(&q->lock);
    int result = log_begin(q);
    /* From here on writes are in the map that stays; those that began before have set their bits. */
    if (!result && q->log.active)
        bitmap_clear(q->dirty.recent, 0, REGIONS);
    if (!result)
        result = bitmaps_store_locked(q, false);
    if (!result && q->log.active)
        result = shrink_map(q);
    co_mutex_unlock(&q->lock);
    return result;
}

/* Opening ---------------------------------------------------------------------------------------------------------- */

static void add_regions(struct qcow2 *q, struct dirty_bitmap *bitmap, const uint64_t *map)
{
    for (uint64_t r = bitmap_next_set(map, REGIONS, 0); r < REGIONS; r = bitmap_next_set(map, REGIONS, r + 1)) {
        uint64_t offset = r << q->header.log_region_bits;
        if (offset < bitmap->size)
            dirty_bitmap_set(bitmap, offset,
                             r == REGIONS - 1 ? bitmap->size - offset : 1ull << q->header.log_region_bits);
    }
}

bool dirty_log_recover(struct qcow2 *q, struct error *err)
{
    if (!log_is_valid(q) || !q->bitmaps.count)
        return true;
    uint8_t *buffer = block_alloc_buffer(q->file, DIRTY_MAP_BYTES);
    if (!buffer)
        return fail(err, ENOMEM, "out of memory for the map of dirty regions");
    int result = qcow2_read_file(q->file, q->header.log_offset + LOG_BYTES, buffer, DIRTY_MAP_BYTES);
    auto_free uint64_t *map = bitmap_new(REGIONS);
    for (uint32_t i = 0; i < REGIONS / 64; i++)
        map[i] = load_le64(buffer + i * 8);
    free(buffer);
    if (result)
        return fail_errno(err, result, "cannot read the map of dirty regions");
    struct stored_bitmap **s;
    vec_for_each (s, &q->bitmaps) {
        struct dirty_bitmap *bitmap = (*s)->live;
        if (bitmap && !bitmap->inconsistent && (*s)->flags & BITMAP_IN_USE && bitmap->recording)
            add_regions(q, bitmap, map);
    }
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps in memory: words of bits, counted as they change, so that `count` costs nothing and a write to what is
 * dirty already costs one look at a word. Storing them is the business of format drivers (driver->bitmaps).
 */
#include "block/dirty_bitmap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/query.h"

#define DEFAULT_GRANULARITY (64 * KiB)
#define LEAST_DEFAULT_GRANULARITY (4 * KiB)

/* Life ------------------------------------------------------------------------------------------------------------ */

static uint32_t default_granularity(struct node *node)
{
    uint64_t cluster_size = node_cluster_size(node);
    if (!cluster_size)
        return DEFAULT_GRANULARITY;
    return (uint32_t)MIN(MAX(cluster_size, LEAST_DEFAULT_GRANULARITY), DEFAULT_GRANULARITY);
}

static bool check_new(const struct node *node, const char *name, uint32_t granularity, struct error *err)
{
    if (name && !name[0])
        return fail(err, EINVAL, "Bitmap name cannot be empty");
    if (name && strlen(name) > DIRTY_BITMAP_MAX_NAME)
        return fail(err, ENAMETOOLONG, "Bitmap name too long: it may have at most %d bytes", DIRTY_BITMAP_MAX_NAME);
    if (name && dirty_bitmap_find(node, name))
        return fail(err, EEXIST, "Bitmap already exists: %s", name);
    if (granularity < DIRTY_BITMAP_MIN_GRANULARITY || !is_power_of_two(granularity))
        return fail(err, EINVAL, "Granularity %" PRIu32 ": must be a power of 2, and at least %d", granularity,
                    DIRTY_BITMAP_MIN_GRANULARITY);
    return true;
}

static struct dirty_bitmap *bitmap_append(struct node *node, const char *name, uint32_t granularity)
{
    struct dirty_bitmap *bitmap = new (struct dirty_bitmap);
    bitmap->node = node;
    bitmap->name = xstrdup(name);
    bitmap->granularity = granularity;
    bitmap->size = node->size;
    list_append(&node->bitmaps, &bitmap->link);
    return bitmap;
}

struct dirty_bitmap *dirty_bitmap_new(struct node *node, const char *name, uint32_t granularity, struct error *err)
{
    if (!granularity)
        granularity = default_granularity(node);
    if (!check_new(node, name, granularity, err))
        return NULL;
    struct dirty_bitmap *bitmap = bitmap_append(node, name, granularity);
    bitmap->recording = true;
    bitmap->bits = bitmap_try_new(MAX(dirty_bitmap_bits(bitmap), 1ull));
    if (!bitmap->bits) {
        fail(err, ENOMEM, "No memory for a bitmap of %" PRIu64 " bits", dirty_bitmap_bits(bitmap));
        dirty_bitmap_free(bitmap);
        return NULL;
    }
    return bitmap;
}

struct dirty_bitmap *dirty_bitmap_new_inconsistent(struct node *node, const char *name, uint32_t granularity,
                                                   struct error *err)
{
    if (!check_new(node, name, granularity, err))
        return NULL;
    struct dirty_bitmap *bitmap = bitmap_append(node, name, granularity);
    bitmap->inconsistent = bitmap->persistent = true;
    return bitmap;
}

void dirty_bitmap_free(struct dirty_bitmap *bitmap)
{
    if (!bitmap)
        return;
    list_remove(&bitmap->link);
    free(bitmap->bits);
    free(bitmap->name);
    free(bitmap);
}

void dirty_bitmaps_free(struct node *node)
{
    while (!list_empty(&node->bitmaps))
        dirty_bitmap_free(list_first(&node->bitmaps, struct dirty_bitmap, link));
}

struct dirty_bitmap *dirty_bitmap_find(const struct node *node, const char *name)
{
    struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &node->bitmaps, link) {
        if (bitmap->name && !strcmp(bitmap->name, name))
            return bitmap;
    }
    return NULL;
}

bool dirty_bitmap_check(const struct dirty_bitmap *bitmap, unsigned wishes, struct error *err)
{
    if ((wishes & DIRTY_BITMAP_NOT_BUSY) && bitmap->busy)
        return fail(err, EBUSY, "Bitmap '%s' is currently in use by another operation and cannot be used",
                    bitmap->name);
    if ((wishes & DIRTY_BITMAP_NOT_READ_ONLY) && bitmap->read_only)
        return fail(err, EROFS, "Bitmap '%s' is readonly and cannot be modified", bitmap->name);
    if ((wishes & DIRTY_BITMAP_CONSISTENT) && bitmap->inconsistent) {
        fail(err, EINVAL, "Bitmap '%s' is inconsistent and cannot be used", bitmap->name);
        return fail_hint(err, "Try block-dirty-bitmap-remove to delete this bitmap from disk");
    }
    return true;
}

/* Bits ------------------------------------------------------------------------------------------------------------ */

static inline void set_range(struct dirty_bitmap *bitmap, uint64_t first, uint64_t count)
{
    bitmap->dirty_count += count - bitmap_count(bitmap->bits, first, count);
    bitmap_set(bitmap->bits, first, count);
}

void dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t length)
{
    if (unlikely(!bitmap->bits || offset >= bitmap->size || !length))
        return;
    uint64_t last = MIN(offset + (length - 1), bitmap->size - 1) / bitmap->granularity;
    uint64_t first = offset / bitmap->granularity;
    if (first == last && bitmap_test(bitmap->bits, first))
        return;
    set_range(bitmap, first, last - first + 1);
}

void dirty_bitmap_reset(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t length)
{
    if (!bitmap->bits || offset >= bitmap->size)
        return;
    uint64_t end = offset + MIN(length, bitmap->size - offset);
    uint64_t first = DIV_ROUND_UP(offset, bitmap->granularity);
    uint64_t stop = end == bitmap->size ? dirty_bitmap_bits(bitmap) : end / bitmap->granularity;
    if (first >= stop)
        return;
    bitmap->dirty_count -= bitmap_count(bitmap->bits, first, stop - first);
    bitmap_clear(bitmap->bits, first, stop - first);
}

void dirty_bitmap_clear(struct dirty_bitmap *bitmap)
{
    if (bitmap->bits)
        bitmap_clear(bitmap->bits, 0, dirty_bitmap_bits(bitmap));
    bitmap->dirty_count = 0;
}

bool dirty_bitmap_get(const struct dirty_bitmap *bitmap, uint64_t offset)
{
    return bitmap->bits && offset < bitmap->size && bitmap_test(bitmap->bits, offset / bitmap->granularity);
}

uint64_t dirty_bitmap_count(const struct dirty_bitmap *bitmap)
{
    uint64_t bits = dirty_bitmap_bits(bitmap), bytes = bitmap->dirty_count * bitmap->granularity;
    uint64_t rest = bitmap->size % bitmap->granularity;
    return rest && bitmap->bits && bitmap_test(bitmap->bits, bits - 1) ? bytes - bitmap->granularity + rest : bytes;
}

bool dirty_bitmap_next_dirty(const struct dirty_bitmap *bitmap, uint64_t offset, uint64_t limit, uint64_t *start,
                             uint64_t *length)
{
    uint64_t bits = dirty_bitmap_bits(bitmap);
    if (!bitmap->bits || offset >= bitmap->size || !limit)
        return false;
    uint64_t first = bitmap_next_set(bitmap->bits, bits, offset / bitmap->granularity);
    if (first >= bits)
        return false;
    *start = MAX(first * bitmap->granularity, offset);
    /* Not further than asked: a run may be as long as the disk. */
    uint64_t stop = limit < bitmap->size - *start ? DIV_ROUND_UP(*start + limit, bitmap->granularity) : bits;
    uint64_t end = bitmap_next_clear(bitmap->bits, stop, first);
    *length = MIN(MIN(end * bitmap->granularity, bitmap->size) - *start, limit);
    return true;
}

uint64_t dirty_bitmap_run(const struct dirty_bitmap *bitmap, uint64_t offset, uint64_t length, bool *dirty)
{
    *dirty = dirty_bitmap_get(bitmap, offset);
    if (!bitmap->bits || offset >= bitmap->size)
        return length;
    length = MIN(length, bitmap->size - offset);
    uint64_t first = offset / bitmap->granularity;
    uint64_t stop = DIV_ROUND_UP(offset + length, bitmap->granularity);
    uint64_t end = *dirty ? bitmap_next_clear(bitmap->bits, stop, first) : bitmap_next_set(bitmap->bits, stop, first);
    return MIN(end * bitmap->granularity - offset, length);
}

/* Whole bitmaps --------------------------------------------------------------------------------------------------- */

static void recount(struct dirty_bitmap *bitmap)
{
    bitmap->dirty_count = bitmap_count(bitmap->bits, 0, dirty_bitmap_bits(bitmap));
}

bool dirty_bitmap_merge(struct dirty_bitmap *to, const struct dirty_bitmap *from, struct error *err)
{
    if (to->size != from->size)
        return fail(err, EINVAL,
                    "Bitmaps are of different sizes (destination size is %" PRIu64 " and source size is %" PRIu64
                    ") and can't be merged",
                    to->size, from->size);
    if (!to->bits || !from->bits)
        return fail(err, EINVAL, "An inconsistent bitmap can't be merged");
    if (to->granularity == from->granularity) {
        bitmap_or(to->bits, from->bits, dirty_bitmap_bits(to));
        recount(to);
        return true;
    }
    uint64_t offset = 0, length;
    while (dirty_bitmap_next_dirty(from, offset, UINT64_MAX, &offset, &length)) {
        dirty_bitmap_set(to, offset, length);
        offset += length;
    }
    return true;
}

uint64_t *dirty_bitmap_save(const struct dirty_bitmap *bitmap)
{
    uint64_t *words = bitmap_try_new(MAX(dirty_bitmap_bits(bitmap), 1ull));
    if (words && bitmap->bits)
        memcpy(words, bitmap->bits, BITMAP_WORDS(dirty_bitmap_bits(bitmap)) * sizeof *words);
    return words;
}

void dirty_bitmap_restore(struct dirty_bitmap *bitmap, uint64_t *saved)
{
    if (bitmap->bits) {
        free(bitmap->bits);
        bitmap->bits = saved;
        recount(bitmap);
    } else {
        free(saved);
    }
}

void dirty_bitmap_resize(struct dirty_bitmap *bitmap, uint64_t size)
{
    uint64_t old_size = bitmap->size, old_bits = dirty_bitmap_bits(bitmap);
    bitmap->size = size;
    if (!bitmap->bits || size == old_size)
        return;
    uint64_t bits = dirty_bitmap_bits(bitmap);
    uint64_t *words = bits > old_bits ? bitmap_try_new(bits) : bitmap->bits;
    if (!words) {
        log_error("node '%s': no memory to resize bitmap '%s', which is inconsistent from now on", bitmap->node->name,
                  bitmap->name ? bitmap->name : "");
        free(TAKE(bitmap->bits));
        bitmap->inconsistent = true;
        bitmap->recording = false;
        bitmap->dirty_count = 0;
        return;
    }
    if (words != bitmap->bits) {
        memcpy(words, bitmap->bits, BITMAP_WORDS(old_bits) * sizeof *words);
        free(bitmap->bits);
        bitmap->bits = words;
    } else {
        bitmap_clear(words, bits, old_bits - bits);
        recount(bitmap);
    }
    if (size > old_size)
        dirty_bitmap_set(bitmap, old_size, size - old_size);
}

/* All bitmaps of a node ------------------------------------------------------------------------------------------- */

void dirty_bitmaps_record_all(struct node *node, uint64_t offset, uint64_t length)
{
    struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &node->bitmaps, link) {
        if (bitmap->recording)
            dirty_bitmap_set(bitmap, offset, length);
    }
}

void dirty_bitmaps_resize(struct node *node)
{
    struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &node->bitmaps, link)
        dirty_bitmap_resize(bitmap, node->size);
}

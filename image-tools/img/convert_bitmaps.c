/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img convert --bitmaps: the target gets the persistent bitmaps of the source, with name, granularity, content and
 * state. It happens after the data is copied, which must not count as changes. A bitmap that is inconsistent has no
 * content to copy: an error before anything is made, or with --skip-broken-bitmaps a warning.
 */
#include "base/log.h"
#include "base/math.h"
#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "block/request.h"
#include "image-tools/img/convert.h"

bool convert_bitmaps_check(struct edge *source, bool skip_broken, struct error *err)
{
    struct node *node = source->child;
    if (!node->driver->bitmaps)
        return fail(err, ENOTSUP, "Format driver '%s' does not support bitmaps", node->driver->name);
    const struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &node->bitmaps, link) {
        if (bitmap->persistent && bitmap->inconsistent && !skip_broken)
            return fail(err, EINVAL,
                        "Cannot copy inconsistent bitmap '%s': use --skip-broken-bitmaps, or delete it by 'bitmap "
                        "--remove'",
                        bitmap->name);
        if (bitmap->persistent && bitmap->inconsistent)
            log_warning("Skipping inconsistent bitmap '%s'", bitmap->name);
    }
    return true;
}

/* The target may have another size: what both have is copied. */
static void copy_content(const struct dirty_bitmap *from, struct dirty_bitmap *to)
{
    uint64_t offset = 0, start, length;
    while (dirty_bitmap_next_dirty(from, offset, UINT64_MAX, &start, &length)) {
        if (start >= to->size)
            break;
        dirty_bitmap_set(to, start, MIN(length, to->size - start));
        offset = start + length;
    }
}

static bool copy_bitmap(const struct dirty_bitmap *from, struct node *target, struct error *err)
{
    if (!target->driver->bitmaps->can_store(target, from->name, from->granularity, err))
        return false;
    struct dirty_bitmap *to = dirty_bitmap_new(target, from->name, from->granularity, err);
    if (!to)
        return false;
    copy_content(from, to);
    to->persistent = true;
    to->recording = from->recording;
    return true;
}

bool convert_bitmaps(struct edge *source, struct edge *target, struct error *err)
{
    const struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &source->child->bitmaps, link) {
        if (bitmap->persistent && !bitmap->inconsistent && !copy_bitmap(bitmap, target->child, err))
            return fail_prefix(err, "Failed to populate bitmap %s: ", bitmap->name);
    }
    if (!target->child->driver->bitmaps->store_all(target->child, err))
        return false;
    int result = block_flush(target);
    return !result || fail_errno(err, -result, "Could not write the bitmaps");
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The border for requests about zones: finds the device below, checks spans and permissions, counts what is in flight.
 */
#include "block/zones.h"

#include "base/math.h"
#include "block/border.h"

/* NULL: between here and a zoned device something moves bytes, or there is none. */
static struct node *find_device(struct node *node, uint64_t length)
{
    struct extent extent;
    while (!node->driver->zones) {
        bool passes = node->driver->kind == DRIVER_FORMAT && node->file && !node_extent(node, 0, length, &extent) &&
                      extent.follow && extent.child == node->file && extent.child_offset == 0;
        if (!passes)
            return NULL;
        node = node->file->child;
    }
    return node;
}

int block_zone_report(struct edge *edge, uint64_t offset, struct zone *zones, size_t *count)
{
    struct node *top = request_enter(edge), *device = find_device(top, 1);
    int result = !device ? -ENOTSUP : offset >= device->size || !*count ? -EINVAL : 0;
    if (!result)
        result = device->driver->zones->report(device, offset, zones, count);
    request_leave(top);
    return result;
}

int block_zone_order(struct edge *edge, enum zone_order order, uint64_t offset, uint64_t length)
{
    struct node *top = request_enter(edge), *device = find_device(top, 1);
    int result = !device ? -ENOTSUP : !span_fits(offset, length, device->size) || !length ? -EINVAL : 0;
    if (!result)
        result = request_check_write(edge, offset, length, 0);
    if (!result) {
        struct tracked_request tracked;
        tracked_begin(top, &tracked, offset, length, true);
        result = device->driver->zones->order(device, order, offset, length);
        if (!result && order == ZONE_RESET) /* it reads as zeroes now */
            request_wrote(top, offset, length);
        tracked_end(top, &tracked);
    }
    request_leave(top);
    return result;
}

int block_zone_append(struct edge *edge, uint64_t *offset, uint64_t length, struct buffers from)
{
    struct node *top = request_enter(edge), *device = find_device(top, 1);
    int result = !device ? -ENOTSUP : !span_fits(*offset, length, device->size) ? -EINVAL : 0;
    if (!result)
        result = request_check_write(edge, *offset, length, 0);
    if (!result) {
        /* Where it goes is known when it is there: one at a time, over the whole disk. */
        struct tracked_request tracked;
        tracked_begin(top, &tracked, 0, top->size, true);
        result = device->driver->zones->append(device, offset, length, from);
        if (!result) {
            dirty_bitmaps_record(top, *offset, length);
            request_wrote(top, *offset, length);
        }
        tracked_end(top, &tracked);
    }
    request_leave(top);
    return result;
}

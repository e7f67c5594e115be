/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zones of a block device, by the ioctls of <linux/blkzoned.h>, which count in sectors of 512 bytes. They wait for the
 * device, so they are made by a worker thread. A device without zones refuses to report, with ENOTTY or with a report
 * of none; both mean that it has no zones.
 *
 * The kernel offers programs no append: the write pointer is asked for, and the data is written there, synced, so that
 * the next question sees it. The request path lets only one of them run at a time; other writers of the device would
 * have to have its locks.
 */
#include <errno.h>
#include <linux/blkzoned.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/math.h"
#include "block/zones.h"
#include "protocol/file.h"

#define SECTOR 512ull
#define ZONES_AT_ONCE 4096u /* 256 KiB of report */

struct zone_call {
    int fd;
    unsigned long request;
    void *argument;
    int error;
};

static void call_device(void *arg)
{
    struct zone_call *call = arg;
    call->error = ioctl(call->fd, call->request, call->argument) < 0 ? errno : 0;
}

static int ask_device(struct node *node, unsigned long request, void *argument)
{
    struct file_state *state = node->state;
    struct zone_call call = {.fd = io_file_fd(state->file), .request = request, .argument = argument};
    if (call.fd < 0)
        return -ENOTSUP;
    co_offload(call_device, &call);
    return call.error == ENOTTY ? -ENOTSUP : -call.error;
}

static struct zone from_kernel(const struct blk_zone *zone, bool has_capacity)
{
    return (struct zone){
        .start = zone->start * SECTOR,
        .length = zone->len * SECTOR,
        .capacity = (has_capacity ? zone->capacity : zone->len) * SECTOR,
        .write_pointer = zone->wp * SECTOR,
        .kind = (enum zone_kind)zone->type,
        .condition = zone->cond,
    };
}

static int zones_report(struct node *node, uint64_t offset, struct zone *zones, size_t *count)
{
    unsigned room = (unsigned)MIN(*count, (size_t)ZONES_AT_ONCE);
    auto_free struct blk_zone_report *report = try_calloc(1, sizeof *report + room * sizeof(struct blk_zone));
    size_t wanted = *count;
    if (!report)
        return -ENOMEM;
    for (*count = 0; *count < wanted && offset < node->size;) {
        report->sector = offset / SECTOR;
        report->nr_zones = (unsigned)MIN(wanted - *count, (size_t)room);
        int result = ask_device(node, BLKREPORTZONE, report);
        if (result < 0 || !report->nr_zones || report->nr_zones > room)
            return result < 0 ? result : *count ? 0 : -ENOTSUP;
        for (unsigned i = 0; i < report->nr_zones; i++)
            zones[(*count)++] = from_kernel(&report->zones[i], report->flags & BLK_ZONE_REP_CAPACITY);
        const struct zone *last = &zones[*count - 1];
        if (!last->length || last->start + last->length <= offset)
            return -EIO; /* it would never end */
        offset = last->start + last->length;
    }
    return 0;
}

static int zones_order(struct node *node, enum zone_order order, uint64_t offset, uint64_t length)
{
    static const unsigned long requests[] = {
        [ZONE_OPEN] = BLKOPENZONE,
        [ZONE_CLOSE] = BLKCLOSEZONE,
        [ZONE_FINISH] = BLKFINISHZONE,
        [ZONE_RESET] = BLKRESETZONE,
    };
    struct blk_zone_range range = {.sector = offset / SECTOR, .nr_sectors = length / SECTOR};
    struct zone first;
    size_t count = 1;
    int result = zones_report(node, offset, &first, &count); /* tells devices without zones from wrong spans */
    if (result < 0)
        return result;
    if (offset != first.start || length % SECTOR)
        return -EINVAL;
    return ask_device(node, requests[order], &range);
}

static int zones_append(struct node *node, uint64_t *offset, uint64_t length, struct buffers from)
{
    struct zone zone;
    size_t count = 1;
    int result = zones_report(node, *offset, &zone, &count);
    if (result < 0)
        return result;
    if (zone.start != *offset || zone.kind == ZONE_CONVENTIONAL)
        return -EINVAL;
    uint64_t end = zone.start + zone.capacity;
    if (zone.write_pointer < zone.start || zone.write_pointer > end || length > end - zone.write_pointer)
        return -ENOSPC;
    *offset = zone.write_pointer;
    return node->driver->write(node, zone.write_pointer, length, from, REQUEST_FUA);
}

const struct zone_ops file_zone_ops = {.report = zones_report, .order = zones_order, .append = zones_append};

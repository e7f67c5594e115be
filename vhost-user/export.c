/* SPDX-License-Identifier: Apache-2.0 */
/* The export type `vhost-user-blk`: options, listening, one front end at a time. The conversation is in device.c. */
#include "vhost-user/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/math.h"
#include "objects/address.h"
#include "vhost-user/internal.h"

enum { SEG_MAX = 126 /* with header and status: 128 descriptors, the smallest usual ring */ };

static void acceptor_run(void *arg)
{
    struct device *device = arg;
    while ((device->stream = listener_accept_next(device->listener, device->export->id))) {
        device->has_front_end = true;
        device_serve(device);
        stream_close(device->stream);
        device->stream = NULL;
        device->has_front_end = false;
        if (co_cancelled())
            return;
    }
}

/* At home, at any time; the device is told on its own loop. Such news arrives before the device is closed, since
 * closing it is posted behind. */
struct resize {
    struct device *device;
    uint64_t size;
};

static void resized(void *arg)
{
    struct resize resize = *(struct resize *)arg;
    free(arg);
    device_notify_resize(resize.device, resize.size);
}

static void on_resize(void *user)
{
    struct device *device = user;
    struct resize *resize = new (struct resize);
    *resize = (struct resize){device, device->edge->child->size};
    if (device->loop == device->home)
        resized(resize);
    else
        loop_post(device->loop, resized, resize);
}

static void set_limits(struct device *device, const struct block_export_options_vhost_user_blk *options)
{
    const struct block_export *export = device->export;
    const struct node *node = device->edge->child;
    struct virtio_blk_limits *limits = &device->limits;
    uint32_t block = (uint32_t)options->logical_block_size, sector = VIRTIO_BLK_SECTOR_SIZE;
    *limits = (struct virtio_blk_limits){
        .capacity_bytes = round_down(node->size, block),
        .block_size = block,
        .seg_max = SEG_MAX,
        .min_io_blocks = 1,
        .opt_io_blocks = (uint32_t)(node->limits.optimal_transfer / block),
        .num_queues = device->queue_count,
        .read_only = !export->writable,
        .writeback = !export->writethrough,
    };
    if (export->writable) {
        limits->max_discard_sectors = limits->max_zeroes_sectors = (uint32_t)(GiB / sector);
        limits->max_discard_ranges = limits->max_zeroes_ranges = VIRTIO_BLK_MAX_RANGES;
        limits->discard_alignment = (uint32_t)(MAX(node->limits.discard_alignment, block) / sector);
        limits->zeroes_may_unmap = true;
    }
}

struct opening {
    struct device *device;
    const struct stream_address *address;
    struct error *err;
};

/* On the device's loop. */
static void start(void *arg)
{
    struct opening *opening = arg;
    struct device *device = opening->device;
    device->listener = listener_new(device->loop, opening->address, 1, opening->err);
    if (device->listener)
        co_spawn(device->loop, &device->group, acceptor_run, device);
}

static bool listen_at(struct device *device, const struct socket_address *address, struct error *err)
{
    auto_resolved struct resolved_address where = {0};
    if (address->type == SOCKET_ADDRESS_TYPE_INET)
        return fail(err, EINVAL, "addr.type 'inet': vhost-user passes file descriptors, which needs 'unix' or 'fd'");
    if (!address_resolve(graph_objects(device->edge->child->graph), address, &where, err))
        return false;
    struct opening opening = {device, &where.address, err};
    co_call_on(device->loop, start, &opening);
    if (device->listener)
        address_used(&where);
    return device->listener != NULL;
}

static void forget_queues(struct device *device)
{
    struct request *request;
    list_for_each_safe (request, &device->free_requests, link) {
        virtqueue_element_release(&request->element);
        free(request);
    }
    free(device->queues);
}

/* On the device's loop. */
static void stop(void *arg)
{
    struct device *device = arg;
    if (device->stream)
        stream_shutdown(device->stream);
    co_group_cancel(&device->group);
    co_group_wait(&device->group);
    co_group_wait(&device->requests);
    if (device->listener)
        listener_close(device->listener);
}

static void close_export(struct block_export *export)
{
    struct device *device = export->state;
    export->edge->resized = NULL;
    co_call_on(device->loop, stop, device);
    forget_queues(device);
}

static bool open_export(struct block_export *export, const struct block_export_options *options, struct error *err)
{
    const struct block_export_options_vhost_user_blk *own = &options->u.vhost_user_blk;
    struct device *device = export->state;
    if (!is_power_of_two(own->logical_block_size))
        return fail(err, EINVAL, "logical-block-size %llu: must be a power of two",
                    (unsigned long long)own->logical_block_size);
    device->export = export;
    device->edge = export->edge;
    device->loop = export->loop;
    device->home = export->edge->child->loop;
    device->queue_count = own->num_queues;
    snprintf(device->serial, sizeof device->serial, "%s", export->id);
    set_limits(device, own);
    guest_regions_init(&device->regions);
    list_init(&device->free_requests);
    co_group_init(&device->group);
    co_group_init(&device->requests);
    co_group_init(&device->notifiers);
    device->queues = new_array(struct queue, device->queue_count);
    for (unsigned i = 0; i < device->queue_count; i++)
        queue_init(&device->queues[i], device, i);
    export->edge->user = device;
    export->edge->resized = on_resize;
    if (listen_at(device, own->addr, err))
        return true;
    close_export(export);
    return false;
}

static bool in_use(const struct block_export *export)
{
    const struct device *device = export->state;
    return device->has_front_end;
}

const struct export_driver vhost_user_blk_export_driver = {
    .type = BLOCK_EXPORT_TYPE_VHOST_USER_BLK,
    .state_size = sizeof(struct device),
    .open = open_export,
    .close = close_export,
    .in_use = in_use,
};
